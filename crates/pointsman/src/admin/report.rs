//! What `/api/status` and `/api/events` say: the types are the schema (docs/reference/admin.md explains it; an event is a
//! [`Line`]). The server writes them and the commands read them; a field that one side lacks gets its default, so that both
//! may differ in age.
use super::statistics::{Number, Of, STATISTICS, Statistic, gate_words, holding_s};
use super::{Sample, ServiceSample};
use crate::control::Account;
use crate::events::Line;
use pointsman_core::Now;
use pointsman_core::switchover::Said;
use pointsman_core::topology::status::{NodeStatus, SentinelStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

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
    /// If an operator has paused it: for how long at most it stays so.
    pub paused_left_s: Option<f64>,
    /// How long a hold may last.
    pub hold_max_s: f64,
    /// For how long writes may go on without another word of the Sentinels; absent if they need no lease.
    pub lease_s: Option<f64>,
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

/// A shape, and how it is made of what the topology says at a moment: one list for both. docs/reference/admin.md says
/// what each field means, and so do the docs of the topology's type.
macro_rules! shape {
    ($(#[$doc:meta])* $name:ident of ($from:ident: &$type:ty, $at:ident) { $($field:ident: $of:ty = $value:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
        #[serde(default)]
        #[allow(missing_docs, reason = "they are those of the topology's type")]
        pub struct $name {
            $(pub $field: $of,)*
        }

        impl $name {
            fn of($from: &$type, $at: Now) -> $name {
                $name { $($field: $value,)* }
            }
        }
    };
}

shape! {
    /// One Sentinel ([`SentinelStatus`]).
    Sentinel of (s: &SentinelStatus, at) {
        at: String = s.at.clone(),
        id: Option<String> = s.id.clone(),
        configured: bool = s.configured,
        counted: bool = s.counted,
        names: Option<String> = s.names.clone(),
        epoch: Option<u64> = s.epoch,
        stage: String = s.stage.to_owned(),
        seen_ago_s: Option<f64> = ago(s.last_seen, at),
        problem: Option<String> = s.problem.clone(),
    }
}

shape! {
    /// One node ([`NodeStatus`]).
    Node of (n: &NodeStatus, at) {
        at: String = n.at.clone(),
        address: Option<String> = n.address.clone(),
        role: Option<String> = n.role.map(str::to_owned),
        loading: bool = n.loading,
        link_up: Option<bool> = n.link_up,
        offset: Option<u64> = n.offset,
        lag_bytes: Option<u64> = n.lag_bytes,
        run_id: Option<String> = n.run_id.clone(),
        healthy: Option<bool> = n.healthy,
        seen_ago_s: Option<f64> = ago(n.last_seen, at),
        problem: Option<String> = n.problem.clone(),
    }
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
    /// Tells one count of events from the next at the same address: another number means that the count began again.
    pub journal: u64,
    /// The events.
    pub events: Vec<Line>,
}

/// What a command came to.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// What was done.
    pub done: Option<String>,
    /// Or why it was not.
    pub error: Option<String>,
}

/// How a switchover goes.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Tells one switchover of a process from the next.
    pub number: u64,
    /// What it has said so far.
    pub said: Vec<Remark>,
    /// How it ended well.
    pub done: Option<String>,
    /// Or how it did not.
    pub error: Option<String>,
}

/// One line of a switchover's account.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Remark {
    /// Milliseconds after it was ordered.
    pub ms: f64,
    /// The line.
    pub text: String,
    /// What stays behind if the process dies now, and how it is put right.
    pub left_behind: Option<String>,
    /// The operator should look at it.
    pub warning: bool,
}

/// The progress that an account shows.
pub fn progress(account: &Account) -> Progress {
    let remark = |said: &Said| Remark {
        ms: said.at.since(account.began).as_secs_f64() * 1000.0,
        text: said.text.to_string(),
        left_behind: said.left_behind.as_deref().map(str::to_owned),
        warning: said.warning,
    };
    let outcome = account.outcome.clone();
    let (done, error) = match outcome {
        Some(Ok(done)) => (Some(done), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    Progress { number: account.number, said: account.said.iter().map(remark).collect(), done, error }
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
        paused_left_s: status.paused_until.map(|until| until.since(at).as_secs_f64()),
        hold_max_s: status.hold_max.as_secs_f64(),
        lease_s: status.lease.map(|until| until.since(at).as_secs_f64()),
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
        sentinels: status.sentinels.iter().map(|s| Sentinel::of(s, at)).collect(),
        nodes: status.nodes.iter().map(|n| Node::of(n, at)).collect(),
        problems: status.problems.clone(),
        statistics: statistics(|statistic| match &statistic.of {
            Of::Service(read) => Some(read(s, at)),
            _ => None,
        }),
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
