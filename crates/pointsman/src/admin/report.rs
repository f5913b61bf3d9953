//! What `/api/status` and `/api/events` say: the types are the schema (docs/reference/admin.md explains it). The server
//! writes them and the commands read them; a field that one side lacks gets its default, so that both may differ in age.
use super::statistics::{Number, Of, STATISTICS, Statistic, gate_words, holding_s};
use super::{Sample, ServiceSample};
use crate::clock;
use pointsman_core::Now;
use pointsman_core::topology::status::{Event, NodeStatus, SentinelStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::time::SystemTime;
use time::OffsetDateTime;

/// The status of the whole process. Keys that end in `_s` are seconds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The program's version.
    pub version: String,
    /// How long it runs.
    pub uptime_s: f64,
    /// Whether it was told to stop.
    pub stopping: bool,
    /// How often the configuration was read again and taken.
    pub reloads: u64,
    /// Why the newest attempt was not taken.
    pub reload_error: Option<String>,
    /// In the order of the configuration.
    pub services: Vec<Service>,
    /// By index.
    pub workers: Vec<Worker>,
    /// The table's statistics of the process.
    pub statistics: Value,
}

/// One service.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// `serving`, `holding` or `down`.
    pub state: String,
    /// For how long.
    pub state_s: f64,
    /// Why, with the observations that caused it.
    pub why: String,
    /// The number of the current grant; 0 before the first.
    pub term: u64,
    /// The node that is granted.
    pub master: Option<String>,
    /// The config epoch at which the Sentinels named it.
    pub epoch: Option<u64>,
    /// How old the newest proof is.
    pub proven_ago_s: Option<f64>,
    /// What commands get.
    pub gates: Gates,
    /// Whether writes are guarded against a master that is cut off from its replicas.
    pub guard: Guard,
    /// For how long it holds already.
    pub holding_s: Option<f64>,
    /// How long a hold may last.
    pub hold_max_s: f64,
    /// Clients whose commands wait now.
    pub held: u64,
    /// Commands that began to wait, since the start.
    pub held_total: u64,
    /// Clients now.
    pub clients: u64,
    /// Commands since the start.
    pub commands: u64,
    /// Changes of master since the start.
    pub switches: u64,
    /// Commands that were sent again.
    pub resent: u64,
    /// Commands that were answered with `-UNCERTAIN`.
    pub uncertain: u64,
    /// Commands that were answered with `-MASTERDOWN`.
    pub masterdown: u64,
    /// Where it accepts clients.
    pub listeners: Vec<String>,
    /// How many Sentinels are a majority.
    pub majority: u64,
    /// The Sentinels that are known.
    pub sentinels: Vec<Sentinel>,
    /// The nodes that are known.
    pub nodes: Vec<Node>,
    /// What the operator should look at.
    pub problems: Vec<String>,
    /// The table's statistics of the service.
    pub statistics: Value,
}

/// The two gates: `open`, `hold` or `refuse`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Gates {
    /// For commands that may change something.
    pub writes: String,
    /// For commands that only read.
    pub reads: String,
}

/// The guard.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Guard {
    /// `off`, `unarmed`, `armed`, `holding` or `disarmed`.
    pub state: String,
    /// Why it holds, or why it does not although no replica acknowledges.
    pub why: Option<String>,
    /// How often it began to hold, since the start.
    pub holds: u64,
}

/// One Sentinel.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sentinel {
    /// Where.
    pub at: String,
    /// Its run id.
    pub id: Option<String>,
    /// Configured, or discovered.
    pub configured: bool,
    /// Whether it is one of those of which a majority is needed.
    pub counted: bool,
    /// Whom it names master.
    pub names: Option<String>,
    /// At which config epoch.
    pub epoch: Option<u64>,
    /// How far a failover has come: `calm`, `suspects`, `tries`, `acts`, `promoted`.
    pub stage: String,
    /// How long ago it answered last.
    pub seen_ago_s: Option<f64>,
    /// Why it does not answer, or what is wrong with its answers.
    pub problem: Option<String>,
}

/// One node.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Where, as written or announced.
    pub at: String,
    /// Its address.
    pub address: Option<String>,
    /// `master` or `replica`: what it says itself.
    pub role: Option<String>,
    /// Whether it loads its data.
    pub loading: bool,
    /// Of a replica: whether its link to its master is up.
    pub link_up: Option<bool>,
    /// Its replication offset.
    pub offset: Option<u64>,
    /// How far it was behind the granted master.
    pub lag_bytes: Option<u64>,
    /// Its process' run id.
    pub run_id: Option<String>,
    /// Of a node of a static list: whether the checks found it healthy.
    pub healthy: Option<bool>,
    /// How long ago it answered last.
    pub seen_ago_s: Option<f64>,
    /// Why it does not answer, or what is wrong with its answers.
    pub problem: Option<String>,
}

/// One worker.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// Which share of its time it was busy lately, in thousandths.
    pub busy_permille: u32,
    /// Its clients.
    pub clients: u64,
}

/// Events, oldest first.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Events {
    /// Tells one process from the next at the same address: another number means that the count of events began again.
    pub process: u64,
    /// The events.
    pub events: Vec<Line>,
}

/// One event.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// Its number.
    pub n: u64,
    /// When, in UTC (RFC 3339).
    pub at: String,
    /// Of which service.
    pub service: String,
    /// `hold`, `fence`, `grant`, `release`, `down`, `era`, `warning` or `note`.
    pub kind: String,
    /// The term after it.
    pub term: u64,
    /// The master after it.
    pub master: Option<String>,
    /// What changed and why, in one line.
    pub text: String,
}

/// What a reload or a trust came to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// What was done.
    pub done: Option<String>,
    /// Or why it was not.
    pub error: Option<String>,
}

/// The report of a sample.
pub fn report(sample: &Sample) -> Report {
    Report {
        version: sample.version.to_owned(),
        uptime_s: sample.at.since(sample.started).as_secs_f64(),
        stopping: sample.stopping,
        reloads: sample.reloads,
        reload_error: sample.reload_error.clone(),
        services: sample.services.iter().map(|s| service(s, sample.at)).collect(),
        workers: sample
            .workers
            .iter()
            .map(|w| Worker { busy_permille: w.busy_permille, clients: w.clients })
            .collect(),
        statistics: statistics(|statistic| match &statistic.of {
            Of::Process(read) => Some(read(sample)),
            _ => None,
        }),
    }
}

/// Why the process is not ready, a line for each reason; empty if it is: it was not told to stop, and each service has
/// an open gate.
pub fn not_ready(sample: &Sample) -> Vec<String> {
    let mut reasons = Vec::new();
    if sample.stopping {
        reasons.push("stopping: no more clients are accepted".to_owned());
    }
    for s in &sample.services {
        let [(_, writes), (_, reads)] = gate_words(&s.view, sample.at);
        if writes != "open" && reads != "open" {
            reasons.push(format!("{}: {}: {}", s.status.name, s.status.state.label(), s.status.why));
        }
    }
    reasons
}

/// An event as a line, with the time of day when it happened.
pub fn line(n: u64, event: &Event) -> Line {
    Line {
        n,
        at: time_of_day(event.at),
        service: event.name.to_string(),
        kind: event.kind.label().to_owned(),
        term: event.term.0,
        master: event.master.as_ref().map(ToString::to_string),
        text: event.text.to_string(),
    }
}

fn service(s: &ServiceSample, at: Now) -> Service {
    let (status, counters) = (&s.status, &s.counters);
    let [(_, writes), (_, reads)] = gate_words(&s.view, at);
    Service {
        name: status.name.to_string(),
        state: status.state.label().to_owned(),
        state_s: at.since(s.since).as_secs_f64(),
        why: status.why.to_string(),
        term: status.term.0,
        master: status.master.as_ref().map(ToString::to_string),
        epoch: status.epoch,
        proven_ago_s: ago(status.proven_at, at),
        gates: Gates { writes: writes.to_owned(), reads: reads.to_owned() },
        guard: Guard {
            state: status.guard.state.label().to_owned(),
            why: status.guard.why.clone(),
            holds: status.guard.trips,
        },
        holding_s: holding_s(s, at),
        hold_max_s: status.hold_max.as_secs_f64(),
        held: counters.held_now,
        held_total: counters.held,
        clients: counters.clients_now,
        commands: counters.commands,
        switches: s.switches,
        resent: counters.resent,
        uncertain: counters.uncertain,
        masterdown: counters.masterdown,
        listeners: s.listeners.clone(),
        majority: status.majority as u64,
        sentinels: status.sentinels.iter().map(|x| sentinel(x, at)).collect(),
        nodes: status.nodes.iter().map(|n| node(n, at)).collect(),
        problems: status.problems.clone(),
        statistics: statistics(|statistic| match &statistic.of {
            Of::Service(read) => Some(read(s, at)),
            _ => None,
        }),
    }
}

fn sentinel(s: &SentinelStatus, at: Now) -> Sentinel {
    Sentinel {
        at: s.at.clone(),
        id: s.id.clone(),
        configured: s.configured,
        counted: s.counted,
        names: s.names.clone(),
        epoch: s.epoch,
        stage: s.stage.to_owned(),
        seen_ago_s: ago(s.last_seen, at),
        problem: s.problem.clone(),
    }
}

fn node(n: &NodeStatus, at: Now) -> Node {
    Node {
        at: n.at.clone(),
        address: n.address.clone(),
        role: n.role.map(str::to_owned),
        loading: n.loading,
        link_up: n.link_up,
        offset: n.offset,
        lag_bytes: n.lag_bytes,
        run_id: n.run_id.clone(),
        healthy: n.healthy,
        seen_ago_s: ago(n.last_seen, at),
        problem: n.problem.clone(),
    }
}

fn ago(then: Option<Now>, at: Now) -> Option<f64> {
    then.map(|then| at.since(then).as_secs_f64())
}

/// The table as an object: key to number, or by the values of the labels to deeper objects.
fn statistics<'a>(read: impl Fn(&Statistic) -> Option<super::statistics::Points<'a>>) -> Value {
    let mut all = Map::new();
    for statistic in STATISTICS {
        for (labels, number) in read(statistic).unwrap_or_default() {
            insert(&mut all, &statistic.key(), &labels, number);
        }
    }
    Value::Object(all)
}

fn insert(into: &mut Map<String, Value>, key: &str, labels: &[impl AsRef<str>], number: Number) {
    match labels {
        [] => drop(into.insert(key.to_owned(), json!(number))),
        [first, rest @ ..] => {
            let deeper = into.entry(key).or_insert_with(|| Value::Object(Map::new()));
            insert(deeper.as_object_mut().expect("one depth a statistic"), first.as_ref(), rest, number);
        }
    }
}

/// The time of day at a moment, in UTC, to the millisecond (RFC 3339). The clock that moments are of counts on while the
/// machine sleeps, so that the difference of the two changes only when the time of day is set.
fn time_of_day(at: Now) -> String {
    let (now, wall) = (clock::now(), SystemTime::now());
    let then = wall.checked_sub(now.since(at)).unwrap_or(SystemTime::UNIX_EPOCH);
    let (date, (h, m, s, ms)) = {
        let then = OffsetDateTime::from(then);
        (then.date(), then.to_hms_milli())
    };
    format!("{date}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}
