//! The one table of statistics. `/metrics`, the `statistics` in `/api/status` and `docs/reference/metrics.md` are
//! rendered from it, so that none of them can have what the others lack.
use super::{Sample, ServiceSample, WorkerLoad};
use pointsman_core::Now;
use pointsman_core::command::Access;
use pointsman_core::hold::{Pass, pass};
use pointsman_core::topology::snapshot::ShardView;
use pointsman_core::topology::status::{GuardState, NodeStatus, SentinelStatus, State};
use pointsman_core::topology::story::MarkKind;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::HashSet;
use std::time::{Duration, SystemTime};

/// One row.
pub struct Statistic {
    /// Without the prefix `pointsman_`, the unit, and the `_total` of a counter.
    pub name: &'static str,
    /// What it means: a sentence or two, for people.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// A base unit (`seconds`, `bytes`, `ratio`), if it has one.
    pub unit: Option<&'static str>,
    /// The labels that it has besides those of [`Of`].
    pub labels: &'static [&'static str],
    /// Of what, and how it is read.
    pub of: Of,
}

/// Whether a statistic only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Kind {
    /// Prometheus' word.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        }
    }
}

/// Of what a statistic is, and how it is read.
pub enum Of {
    /// Of the process.
    Process(fn(&Sample) -> Points<'_>),
    /// Of each worker; it has the label `worker`, an index.
    Worker(fn(&WorkerLoad) -> Points<'_>),
    /// Of each service; it has the label `service`, a name.
    Service(fn(&ServiceSample, Now) -> Points<'_>),
}

impl Of {
    /// The label that tells one from the other.
    pub fn label(&self) -> Option<&'static str> {
        match self {
            Of::Process(_) => None,
            Of::Worker(_) => Some("worker"),
            Of::Service(_) => Some("service"),
        }
    }
}

/// What is read: for each combination of the values of the labels (in the order of [`Statistic::labels`]) a number.
pub type Points<'a> = Vec<(Vec<Cow<'a, str>>, Number)>;

/// A number.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum Number {
    /// A natural one.
    Whole(u64),
    /// A real one; finite.
    Real(f64),
}

impl Statistic {
    const fn new(name: &'static str, kind: Kind, of: Of, help: &'static str) -> Statistic {
        Statistic { name, help, kind, unit: None, labels: &[], of }
    }

    const fn counter(name: &'static str, of: Of, help: &'static str) -> Statistic {
        Statistic::new(name, Kind::Counter, of, help)
    }

    const fn gauge(name: &'static str, of: Of, help: &'static str) -> Statistic {
        Statistic::new(name, Kind::Gauge, of, help)
    }

    const fn unit(mut self, unit: &'static str) -> Statistic {
        self.unit = Some(unit);
        self
    }

    const fn by(mut self, labels: &'static [&'static str]) -> Statistic {
        self.labels = labels;
        self
    }

    /// The name with the unit: the key in the JSON.
    pub fn key(&self) -> String {
        self.unit.map_or_else(|| self.name.to_owned(), |unit| format!("{}_{unit}", self.name))
    }

    /// The name in Prometheus.
    pub fn metric(&self) -> String {
        let suffix = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{PREFIX}_{}{suffix}", self.key())
    }

    /// All labels, in order.
    pub fn all_labels(&self) -> impl Iterator<Item = &'static str> {
        self.of.label().into_iter().chain(self.labels.iter().copied())
    }

    /// All that there is of it in a sample, with the values of [`Statistic::all_labels`]; no two with the same ones.
    pub fn series<'a>(&self, sample: &'a Sample) -> Points<'a> {
        let mut all: Points<'a> = Vec::new();
        let mut take = |of: Option<Cow<'a, str>>, points: Points<'a>| {
            all.extend(points.into_iter().map(|(labels, n)| (of.iter().cloned().chain(labels).collect(), n)));
        };
        match &self.of {
            Of::Process(read) => take(None, read(sample)),
            Of::Worker(read) => {
                for (i, worker) in sample.workers.iter().enumerate() {
                    take(Some(i.to_string().into()), read(worker));
                }
            }
            Of::Service(read) => {
                for service in &sample.services {
                    take(Some((&*service.status.name).into()), read(service, sample.at));
                }
            }
        }
        // Two nodes that were announced under one address are one series: Prometheus refuses a page with doubles.
        let mut seen = HashSet::new();
        all.retain(|(labels, _)| seen.insert(labels.clone()));
        all
    }
}

/// What the names of all metrics begin with.
pub const PREFIX: &str = "pointsman";

use Of::{Process, Service, Worker};

/// All statistics, in the order in which people want to read of them.
#[rustfmt::skip]
pub const STATISTICS: &[Statistic] = &[
    Statistic::gauge("build_info", Process(|s| vec![(vec![s.version.into()], Number::Whole(1))]),
        "Always 1; the label is the program's version.").by(&["version"]),
    Statistic::gauge("uptime", Process(|s| real(s.at.since(s.started).as_secs_f64())),
        "How long the process runs, also while the machine sleeps.").unit("seconds"),
    Statistic::gauge("stopping", Process(|s| flag(s.stopping)),
        "1 after the process was told to stop, while it lets its clients finish."),
    Statistic::counter("reloads", Process(|s| whole(s.reloads)),
        "Times that the configuration was read again and taken."),
    Statistic::gauge("reload_failed", Process(|s| flag(s.reload_error.is_some())),
        "1 if the newest attempt to reload was not taken: what runs is not what the file says."),
    Statistic::counter("log_lines_dropped", Process(|s| whole(s.log_lines_dropped)),
        "Log lines that were dropped because nobody read stderr fast enough."),
    Statistic::counter("events_unwritten", Process(|s| whole(s.events_unwritten)),
        "Events that are not in the events file although there is one: it could not be written, or not fast enough."),

    Statistic::gauge("worker_busy", Worker(|w| real(f64::from(w.busy_permille) / 1000.0)),
        "Which share of its time the worker was busy lately. At 1 it is at its limit.").unit("ratio"),
    Statistic::gauge("worker_clients", Worker(|w| whole(w.clients)),
        "Clients of the worker. Workers are filled one after the other, and share when one is at its limit."),

    Statistic::gauge("state", Service(states),
        "1 for the state that the service is in: serving (all gates open), holding (commands wait), down (the hold ran out: commands get an error).").by(&["state"]),
    Statistic::gauge("gate", Service(gates),
        "1 for what the gate says to commands now: open (they are sent), hold (they wait), refuse (they get `-MASTERDOWN`), replica (reads only: a replica serves them meanwhile).").by(&["gate", "is"]),
    Statistic::gauge("holding", Service(|s, at| real(holding_s(s, at).unwrap_or(0.0))),
        "For how long the service holds already; 0 if it does not.").unit("seconds"),
    Statistic::gauge("paused", Service(|s, _| flag(s.status.paused_until.is_some())),
        "1 while an operator has paused the service (`pointsman pause`)."),
    Statistic::gauge("hold_max", Service(|s, _| real(s.status.hold_max.as_secs_f64())),
        "How long a hold may last; then commands get `-MASTERDOWN`.").unit("seconds"),
    Statistic::gauge("lease", Service(|s, at| s.status.lease.map_or(vec![], |t| real(t.since(at).as_secs_f64()))),
        "For how long writes may go on without another word of the Sentinels; 0 if they wait for one, absent if they need none.").unit("seconds"),
    Statistic::counter("lease_lapses", Service(|s, _| whole(s.status.lapses)),
        "Holds because Sentinels that are out of sight could have elected another master."),
    Statistic::gauge("term", Service(|s, _| whole(s.status.term.0)),
        "The number of the current grant; 0 before the first."),
    Statistic::gauge("config_epoch", Service(|s, _| s.status.epoch.map_or(vec![], whole)),
        "The config epoch at which the Sentinels named the master."),
    Statistic::counter("switches", Service(|s, _| whole(s.switches)),
        "Changes of master: grants after the first."),
    Statistic::gauge("guard", Service(guard),
        "1 for where the guard stands: off, unarmed (no replica has acknowledged to this master yet), armed (one does), holding (none does, and writes wait), disarmed (none does, and writes go on because nobody can be promoted meanwhile).").by(&["state"]),
    Statistic::counter("guard_holds", Service(|s, _| whole(s.status.guard.trips)),
        "Times that the guard made writes wait because no replica acknowledged."),
    Statistic::counter("holds", Service(|s, _| whole(s.tally.holds)),
        "Times that the gates closed."),
    Statistic::counter("held", Service(|s, _| real(s.tally.held.as_secs_f64())),
        "For how long writes were held, of the holds and switches that are over.").unit("seconds"),
    Statistic::gauge("last_switch_time", Service(|s, _| s.tally.last.as_ref().map_or(vec![], |(_, at)| real(unix_s(*at)))),
        "When the newest switch was over: seconds since 1970, for `time() - pointsman_last_switch_time_seconds`.").unit("seconds"),
    Statistic::gauge("last_switch", Service(last_switch),
        "The newest switch's time line: how long after its first sign each mark was (hold, odown, elected, selected, promoted, fenced, proven, released, majority); `held` is for how long writes were held.").unit("seconds").by(&["mark"]),
    Statistic::counter("lost", Service(|s, _| kinds(&[("before", s.tally.lost.0), ("after", s.tally.lost.1)])),
        "Bytes of old masters' replication streams that their successors do not have, as far as the old ones were seen again: written before the successor was granted, and after (not through Pointsman; Sentinels' hellos and pings are among them).").unit("bytes").by(&["written"]),
    Statistic::gauge("problems", Service(|s, _| whole(s.status.problems.len() as u64)),
        "What the operator should look at; `/api/status` has the texts."),

    Statistic::gauge("clients", Service(|s, _| whole(s.counters.clients_now)),
        "Clients that are connected."),
    Statistic::counter("clients_accepted", Service(|s, _| whole(s.counters.clients_accepted)),
        "Clients that were accepted."),
    Statistic::counter("clients_moved", Service(|s, _| whole(s.counters.clients_moved)),
        "Times that a client went from one worker to another: because its worker was at its limit, or because two had little to do."),
    Statistic::counter("clients_killed", Service(|s, _| whole(s.counters.clients_killed)),
        "Clients that were closed because a client said `CLIENT KILL`."),
    Statistic::gauge("upstream_connections", Service(upstream_connections),
        "Connections to the master: shared (lanes, that carry the commands of many clients) and pinned (in use by one client, or in the pool).").by(&["class"]),
    Statistic::counter("upstream_connections_opened", Service(|s, _| whole(s.counters.ups_opened)),
        "Connections to nodes that were opened."),

    Statistic::counter("commands", Service(|s, _| whole(s.counters.commands)),
        "Commands that were sent to the master or answered by Pointsman itself."),
    Statistic::counter("write_commands", Service(|s, _| whole(s.counters.writes)),
        "Those of them that may write."),
    Statistic::counter("upstream_writes", Service(|s, _| whole(s.counters.up_writes)),
        "System calls that wrote to the master. `rate(pointsman_commands_total[1m]) / rate(pointsman_upstream_writes_total[1m])` is how many requests travel in one turn: the more, the cheaper each."),
    Statistic::gauge("commands_per_write", Service(commands_per_write),
        "The same, over the whole life of the process."),
    Statistic::gauge("held_clients", Service(|s, _| whole(s.counters.held_now)),
        "Clients whose commands wait for a gate now."),
    Statistic::counter("held_commands", Service(|s, _| whole(s.counters.held)),
        "Commands that began to wait for a gate."),
    Statistic::gauge("in_flight_commands", Service(|s, _| whole(s.counters.in_flight_now)),
        "Commands that are on their way on shared connections now: not answered yet by the master."),
    Statistic::counter("resent_commands", Service(|s, _| whole(s.counters.resent)),
        "Commands that were sent again: they only read, were certainly not executed, or are idempotent (`retry`)."),
    Statistic::counter("subscribers_interrupted", Service(|s, _| whole(s.counters.subscribers_interrupted)),
        "Times that a connection was lost on which a client was subscribed, or had the server track what it read, and that was made again: messages in between are lost."),
    Statistic::counter("replica_reads", Service(|s, _| whole(s.counters.replica_reads)),
        "Commands that a replica served while there was no master (`held_reads`): what they found may be old."),
    Statistic::counter("scripts_reloaded", Service(|s, _| whole(s.counters.scripts_reloaded)),
        "Times that a new master did not know a script that a client had shown before, and was shown it again."),
    Statistic::counter("withheld", Service(|s, _| whole(s.counters.withheld)),
        "Replies to writes that were on their way at a sign of a switch, and waited until the successor was known to have the write."),
    Statistic::counter("durable_writes", Service(|s, _| whole(s.counters.durable)),
        "Durable writes that were acknowledged: replicas have them."),
    Statistic::counter("durable_waits", Service(|s, _| whole(s.counters.waits)),
        "`WAIT`s that were sent for durable writes: writes divided by these is how many share one."),
    Statistic::counter("errors", Service(errors),
        "What went wrong, by kind. Commands: uncertain (answered `-UNCERTAIN`, the outcome is unknown), not_durable (durable writes answered `-NOTDURABLE`: the master executed them, replicas are not known to have them), masterdown (answered `-MASTERDOWN`, not executed), refused (by policy), unauthenticated (denied to clients that have to authenticate to Pointsman, wrong passwords among it), malformed. Clients: client_limit (not accepted, there were too many), overrun (closed, they did not read their replies), cut (closed, the connection that their state demanded was lost, what became of the pop that they waited in is not known, or their user is gone). Upstream: upstream_failed (connections that could not be made or set up).").by(&["kind"]),
    Statistic::counter("signs", Service(|s, _| whole(s.counters.signs)),
        "Times that a worker held by itself, because it saw a sign that the master may have changed: a connection broke, a node said `-READONLY` or `-LOADING` …"),
    Statistic::counter("client_received", Service(|s, _| whole(s.counters.client_bytes_in)),
        "Bytes from clients.").unit("bytes"),
    Statistic::counter("client_sent", Service(|s, _| whole(s.counters.client_bytes_out)),
        "Bytes to clients.").unit("bytes"),
    Statistic::counter("upstream_received", Service(|s, _| whole(s.counters.up_bytes_in)),
        "Bytes from nodes.").unit("bytes"),
    Statistic::counter("upstream_sent", Service(|s, _| whole(s.counters.up_bytes_out)),
        "Bytes to nodes.").unit("bytes"),

    Statistic::gauge("sentinels", Service(|s, _| of_sentinels(s, |x| x.counted)),
        "Sentinels that count: configured or discovered, and not given up."),
    Statistic::gauge("sentinels_answering", Service(|s, _| of_sentinels(s, |x| x.counted && answers(x.last_seen, &x.problem))),
        "Those of them that answer, and say nothing wrong."),
    Statistic::gauge("sentinels_majority", Service(|s, _| if s.status.sentinels.is_empty() { vec![] } else { whole(s.status.majority as u64) }),
        "How many of them must name the same master before a grant begins."),
    Statistic::gauge("node_master", Service(|s, _| of_nodes(s, |n| Some(u64::from(n.role == Some("master"))))),
        "1 if the node says that it is master. Only the one that is granted gets commands.").by(&["node"]),
    Statistic::gauge("node_answering", Service(|s, _| of_nodes(s, |n| Some(u64::from(answers(n.last_seen, &n.problem))))),
        "1 if the node answers, and says nothing wrong.").by(&["node"]),
    Statistic::gauge("node_offset", Service(|s, _| of_nodes(s, |n| n.offset)),
        "The node's replication offset.").unit("bytes").by(&["node"]),
    Statistic::gauge("node_lag", Service(|s, _| of_nodes(s, |n| n.lag_bytes)),
        "How far the node was behind the master when both were last asked.").unit("bytes").by(&["node"]),
];

/// What the gates of a shard say to writes and to reads at `at`, as a worker decides it.
pub fn gate_words(view: &ShardView, at: Now) -> [(&'static str, &'static str); 2] {
    let word = |access| match pass(view, None, access, at) {
        Pass::Go => "open",
        _ if access == Access::Read && view.reads_from.is_some() => "replica",
        Pass::Wait => "hold",
        Pass::Refuse => "refuse",
    };
    [("writes", word(Access::Write)), ("reads", word(Access::Read))]
}

/// For how many seconds a service holds already, if it does.
pub fn holding_s(service: &ServiceSample, at: Now) -> Option<f64> {
    service.status.held_since.map(|since| at.since(since).as_secs_f64())
}

/// Whether what was seen last of a Sentinel or node is a good answer.
pub fn answers(last_seen: Option<Now>, problem: &Option<String>) -> bool {
    last_seen.is_some() && problem.is_none()
}

fn whole(n: u64) -> Points<'static> {
    vec![(vec![], Number::Whole(n))]
}

fn real(n: f64) -> Points<'static> {
    vec![(vec![], Number::Real(n))]
}

fn flag(is: bool) -> Points<'static> {
    whole(u64::from(is))
}

fn states(service: &ServiceSample, _: Now) -> Points<'_> {
    let is =
        |state: State| (vec![state.label().into()], Number::Whole(u64::from(service.status.state == state)));
    [State::Serving, State::Holding, State::Down].map(is).into()
}

fn guard(service: &ServiceSample, _: Now) -> Points<'_> {
    let is = |state: GuardState| {
        (vec![state.label().into()], Number::Whole(u64::from(service.status.guard.state == state)))
    };
    GuardState::ALL.map(is).into()
}

fn gates(service: &ServiceSample, at: Now) -> Points<'_> {
    let mut points = Vec::new();
    for (gate, now) in gate_words(&service.view, at) {
        for word in ["open", "hold", "refuse", "replica"] {
            points.push((vec![gate.into(), word.into()], Number::Whole(u64::from(now == word))));
        }
    }
    points
}

fn kinds(kinds: &[(&'static str, u64)]) -> Points<'static> {
    kinds.iter().map(|(kind, n)| (vec![(*kind).into()], Number::Whole(*n))).collect()
}

fn last_switch(service: &ServiceSample, _: Now) -> Points<'_> {
    let Some((story, _)) = &service.tally.last else { return vec![] };
    let point = |mark: &'static str, d: Duration| (vec![mark.into()], Number::Real(d.as_secs_f64()));
    let marks = MarkKind::ALL.into_iter().filter(|kind| *kind != MarkKind::Sign);
    let marks = marks.filter_map(|kind| Some(point(kind.label(), story.after(kind)?)));
    marks.chain([point("held", story.held())]).collect()
}

fn unix_s(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn upstream_connections(service: &ServiceSample, _: Now) -> Points<'_> {
    kinds(&[("shared", service.counters.lanes_now), ("pinned", service.counters.pinned_now)])
}

fn errors(service: &ServiceSample, _: Now) -> Points<'_> {
    let c = &service.counters;
    kinds(&[
        ("uncertain", c.uncertain),
        ("not_durable", c.not_durable),
        ("masterdown", c.masterdown),
        ("refused", c.refused),
        ("unauthenticated", c.unauthenticated),
        ("malformed", c.malformed),
        ("client_limit", c.clients_refused),
        ("overrun", c.clients_overrun),
        ("cut", c.clients_cut),
        ("upstream_failed", c.ups_failed),
    ])
}

fn commands_per_write(service: &ServiceSample, _: Now) -> Points<'_> {
    let c = &service.counters;
    if c.up_writes == 0 { vec![] } else { real(c.commands as f64 / c.up_writes as f64) }
}

fn of_sentinels(service: &ServiceSample, which: fn(&SentinelStatus) -> bool) -> Points<'_> {
    let all = &service.status.sentinels;
    if all.is_empty() { vec![] } else { whole(all.iter().filter(|s| which(s)).count() as u64) }
}

fn of_nodes(service: &ServiceSample, read: fn(&NodeStatus) -> Option<u64>) -> Points<'_> {
    let point = |n| read(n).map(|value| (vec![n.at.as_str().into()], Number::Whole(value)));
    service.status.nodes.iter().filter_map(point).collect()
}
