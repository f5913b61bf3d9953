//! The operator's view of one service's topology, as plain data, and the events that tell its story.
use super::machine::Topology;
use super::nodes::Node;
use super::observation::{Role, Stage};
use super::sentinels::{Sentinel, TILT};
use super::settings::HostPort;
use super::snapshot::{Endpoint, Gate, ServiceId, Term};
use super::story::{Lost, Story};
use super::view::endpoint;
use crate::Now;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// The summary of the gates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// All gates are open.
    Serving,
    /// Something waits.
    Holding,
    /// The hold ran out: commands get an error.
    Down,
}

impl State {
    /// A stable word for logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            State::Serving => "serving",
            State::Holding => "holding",
            State::Down => "down",
        }
    }
}

/// One line of a service's story: what changed and why, with the observations that caused it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Whose.
    pub service: ServiceId,
    /// Its name.
    pub name: Arc<str>,
    /// When.
    pub at: Now,
    /// What kind of change.
    pub kind: EventKind,
    /// The term after the change.
    pub term: Term,
    /// The master after the change.
    pub master: Option<Endpoint>,
    /// One line.
    pub text: Arc<str>,
    /// The story as far as it has come, of a change of a gate or a grant.
    pub story: Option<Arc<Story>>,
    /// What a deposed master has lost, of [`EventKind::Lost`].
    pub lost: Option<Lost>,
}

/// The kinds of [`Event`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EventKind {
    /// The gates closed.
    Hold,
    /// The grant was withdrawn: its node is no longer master, or no longer the same process.
    Fence,
    /// A grant began, and a new term.
    Grant,
    /// The gates opened again, for the same grant.
    Release,
    /// The hold ran out.
    Down,
    /// A switch is over: its whole story.
    Switch,
    /// A hold without a switch is over: its whole story.
    Held,
    /// A deposed master was seen again, and how much of it was lost.
    Lost,
    /// A new era of config epochs was accepted.
    Era,
    /// Something that the operator should look at.
    Warning,
    /// Something that is good to know.
    Note,
}

impl EventKind {
    /// A stable word for logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            EventKind::Hold => "hold",
            EventKind::Fence => "fence",
            EventKind::Grant => "grant",
            EventKind::Release => "release",
            EventKind::Down => "down",
            EventKind::Switch => "switch",
            EventKind::Held => "held",
            EventKind::Lost => "lost",
            EventKind::Era => "era",
            EventKind::Warning => "warning",
            EventKind::Note => "note",
        }
    }
}

/// One service, for `/api/status`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Which service.
    pub service: ServiceId,
    /// Its name.
    pub name: Arc<str>,
    /// The summary.
    pub state: State,
    /// Why.
    pub why: Arc<str>,
    /// When this was composed.
    pub at: Now,
    /// Since when it holds, if it does.
    pub held_since: Option<Now>,
    /// Until when an operator has paused it at most, if one has.
    pub paused_until: Option<Now>,
    /// The current grant's number.
    pub term: Term,
    /// The node that the grant names.
    pub master: Option<Endpoint>,
    /// The config epoch at which the Sentinels named it.
    pub epoch: Option<u64>,
    /// When the question of the newest proof was sent.
    pub proven_at: Option<Now>,
    /// How long a hold may last.
    pub hold_max: Duration,
    /// Until when writes may go on without another word of the Sentinels; `None`: they need no lease, or there is none.
    pub lease: Option<Now>,
    /// Holds for want of a lease.
    pub lapses: u64,
    /// The Sentinels that are known; empty without.
    pub sentinels: Vec<SentinelStatus>,
    /// How many Sentinels are a majority.
    pub majority: usize,
    /// The nodes that are known.
    pub nodes: Vec<NodeStatus>,
    /// Whether writes are guarded against a master that is cut off from its replicas.
    pub guard: GuardStatus,
    /// What the operator should look at.
    pub problems: Vec<String>,
}

/// The guard, for the status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuardStatus {
    /// Where it stands.
    pub state: GuardState,
    /// Why it holds, or why it does not although no replica acknowledges.
    pub why: Option<String>,
    /// How often it began to hold.
    pub trips: u64,
}

/// Where the guard stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum GuardState {
    /// The configuration turned it off, or there are no Sentinels.
    Off,
    /// No replica has acknowledged to the granted master yet.
    Unarmed,
    /// A replica acknowledges.
    Armed,
    /// No replica acknowledges, and writes wait.
    Holding,
    /// No replica acknowledges, and writes go on because nobody can be promoted meanwhile.
    Disarmed,
}

impl GuardState {
    /// All of them.
    pub const ALL: [GuardState; 5] =
        [GuardState::Off, GuardState::Unarmed, GuardState::Armed, GuardState::Holding, GuardState::Disarmed];

    /// A stable word for logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            GuardState::Off => "off",
            GuardState::Unarmed => "unarmed",
            GuardState::Armed => "armed",
            GuardState::Holding => "holding",
            GuardState::Disarmed => "disarmed",
        }
    }
}

/// One Sentinel, for the status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SentinelStatus {
    /// Where.
    pub at: String,
    /// Its run id.
    pub id: Option<String>,
    /// Configured, or discovered.
    pub configured: bool,
    /// Whether it is one of those of which a majority is needed.
    pub counted: bool,
    /// Whom it names.
    pub names: Option<String>,
    /// At which config epoch.
    pub epoch: Option<u64>,
    /// How far a failover has come: `calm`, `suspects`, `tries`, `acts`, `promoted`.
    pub stage: &'static str,
    /// When it last answered.
    pub last_seen: Option<Now>,
    /// Why it does not answer, or what is wrong with its answers.
    pub problem: Option<String>,
}

/// One node, for the status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStatus {
    /// Where, as written or announced.
    pub at: String,
    /// Its address.
    pub address: Option<String>,
    /// `master`, `replica`, or unknown.
    pub role: Option<&'static str>,
    /// Whether it loads its data.
    pub loading: bool,
    /// Whether its link to its master is up, of a replica.
    pub link_up: Option<bool>,
    /// Its replication offset.
    pub offset: Option<u64>,
    /// How far it was behind the granted master, in bytes.
    pub lag_bytes: Option<u64>,
    /// Its process' run id.
    pub run_id: Option<String>,
    /// What the checks of a static list made of it.
    pub healthy: Option<bool>,
    /// When it last answered.
    pub last_seen: Option<Now>,
    /// Why it does not answer, or what is wrong with its answers.
    pub problem: Option<String>,
}

impl Topology {
    /// Everything that an operator may want to see.
    pub fn status(&self) -> Status {
        let view = self.view();
        let state = match view.writes {
            Gate::Open => State::Serving,
            Gate::Hold { .. } => State::Holding,
            Gate::Refuse => State::Down,
        };
        let sentinels = self.sentinels();
        let epoch = sentinels.and(self.grant.as_ref()).map(|g| g.epoch);
        let mut status = Status {
            service: self.settings.id,
            name: self.settings.name.clone(),
            state,
            why: view.why.clone(),
            at: self.looked_at(),
            held_since: self.held_since(),
            paused_until: self.paused_until(),
            term: self.term,
            master: self.grant.as_ref().and_then(|g| endpoint(&g.key)),
            epoch,
            proven_at: self.grant.as_ref().map(|g| g.proven_at),
            hold_max: view.hold_max,
            lease: view.writes_until,
            lapses: self.lapses,
            sentinels: sentinels
                .into_iter()
                .flat_map(|s| &s.map)
                .map(|(at, s)| sentinel_status(at, s))
                .collect(),
            majority: sentinels.map_or(0, |s| s.need()),
            nodes: self.nodes.map.iter().map(|(at, n)| self.node_status(at, n)).collect(),
            guard: self.guard_status(),
            problems: Vec::new(),
        };
        let of_sentinels = status
            .sentinels
            .iter()
            .filter_map(|s| Some(format!("Sentinel {}: {}", s.at, s.problem.as_ref()?)));
        let of_nodes =
            status.nodes.iter().filter_map(|n| Some(format!("node {}: {}", n.at, n.problem.as_ref()?)));
        let problems =
            of_sentinels.chain(of_nodes).chain(self.other_masters()).chain(self.guard_problems()).collect();
        status.problems = problems;
        status
    }

    /// Nodes besides the granted one that say master: somebody may write to them.
    fn other_masters(&self) -> Vec<String> {
        let Some(grant) = &self.grant else { return Vec::new() };
        let claimants = self.nodes.claimants(self.oldest(self.looked_at())).into_iter();
        let others = claimants.filter(|(key, _)| *key != grant.key);
        others.map(|(key, _)| format!("{key} says that it is master too; nothing is sent to it")).collect()
    }

    fn node_status(&self, at: &HostPort, node: &Node) -> NodeStatus {
        let report = node.told.as_ref().map(|t| &t.report);
        NodeStatus {
            at: at.to_string(),
            address: node.addr.map(|a| a.to_string()),
            role: report.map(|r| if r.role == Role::Master { "master" } else { "replica" }),
            loading: report.is_some_and(|r| r.loading),
            link_up: report.and_then(|r| match r.role {
                Role::Replica { link_up, .. } => Some(link_up),
                Role::Master => None,
            }),
            offset: report.map(|r| r.offset),
            lag_bytes: self.lag(node),
            run_id: report.and_then(|r| r.run_id.as_deref()).map(Into::into),
            healthy: node.healthy,
            last_seen: node.answered,
            problem: problem_of(node.lost.as_ref().map(|(why, _)| why.to_string()), node.problem.as_deref()),
        }
    }
}

fn sentinel_status(at: &HostPort, s: &Sentinel) -> SentinelStatus {
    let view = s.said.as_ref().map(|(_, v)| v).filter(|_| !s.knows_none);
    let none = s.knows_none.then_some("it knows no such master");
    let deaf = s
        .events
        .deaf
        .as_ref()
        .filter(|_| s.lost.is_none())
        .map(|why| format!("its events cannot be listened to: {why}"));
    let none = none.or(s.tilt.then_some(TILT));
    let dissents = s
        .dissents_since
        .and(view)
        .map(|v| format!("names {} at config epoch {}, against the others", v.master, v.epoch));
    let problem = problem_of(s.lost.as_ref().map(|(why, _)| why.to_string()), s.problem.as_deref().or(none));
    SentinelStatus {
        at: at.to_string(),
        id: s.id.as_deref().map(Into::into),
        configured: s.configured,
        counted: s.counted,
        names: view.map(|v| v.master.to_string()),
        epoch: view.map(|v| v.epoch),
        stage: match s.stage {
            Stage::Calm => "calm",
            Stage::Suspects => "suspects",
            Stage::Tries => "tries",
            Stage::Acts => "acts",
            Stage::Promoted => "promoted",
        },
        last_seen: s.heard,
        problem: problem.or(dissents).or(deaf),
    }
}

fn problem_of(lost: Option<String>, problem: Option<&str>) -> Option<String> {
    lost.or_else(|| problem.map(Into::into))
}
