//! What is known of the nodes of one service.
use super::observation::{Gone, Lineage, Listed, Report, Role, Seen};
use super::settings::HostPort;
use super::snapshot::Endpoint;
use crate::Now;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

/// Most nodes that one service watches; more are ignored.
const NODES_MAX: usize = 64;
/// A node that no Sentinel lists for this long (while Sentinels give lists) is no longer watched.
const UNLISTED_FOR: Duration = Duration::from_secs(60);

/// Which server: by its address, so that a name and an address of the same node are one; by its name as long as that
/// is not resolved.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Key {
    /// A resolved address.
    Addr(SocketAddr),
    /// A name that was not resolved yet.
    Name(HostPort),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Addr(a) => a.fmt(f),
            Key::Name(n) => n.fmt(f),
        }
    }
}

/// Which process: by its run id where that is known, else by the connection (one connection, one process).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) run_id: Option<Box<str>>,
    pub(super) at: HostPort,
    pub(super) connection: u64,
}

impl Identity {
    pub(super) fn same(&self, other: &Identity) -> bool {
        match (&self.run_id, &other.run_id) {
            (Some(a), Some(b)) => a == b,
            _ => self.connection == other.connection && self.at == other.at,
        }
    }
}

/// The last report of a node.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) sent: Now,
    pub(super) report: Report,
}

/// A process that ran a script when it was last asked, and said that it is master.
#[derive(Clone, Debug)]
pub(super) struct Busy {
    pub(super) sent: Now,
    pub(super) run_id: Box<str>,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) addr: Option<SocketAddr>,
    /// Counts connections.
    pub(super) connection: u64,
    /// The last report on the present connection.
    pub(super) told: Option<Told>,
    /// Who answered with `-BUSY`, whatever became of the present connection.
    pub(super) busy: Option<Busy>,
    /// When the question of the last `PONG` was sent (static lists).
    pub(super) pong: Option<Now>,
    /// Checks in a row with the same result (static lists).
    pub(super) streak: u32,
    /// Whether that result is good.
    pub(super) good: bool,
    /// What the checks have made of it; `None` before they have decided.
    pub(super) healthy: Option<bool>,
    /// Why there is no connection, and since when.
    pub(super) lost: Option<(Gone, Now)>,
    pub(super) problem: Option<Arc<str>>,
    /// Since when, without interruption, it has said master.
    pub(super) master_since: Option<Now>,
    /// Whose replica it was when it last said that it was one.
    pub(super) followed: Option<HostPort>,
    /// When it last said that its link to its master is up.
    pub(super) linked: Option<Now>,
    /// When it last answered anything.
    pub(super) answered: Option<Now>,
    listed: Now,
}

impl Node {
    pub(super) fn lineage(&self) -> Option<&Lineage> {
        self.told.as_ref()?.report.lineage.as_ref()
    }

    pub(super) fn says_master(&self) -> bool {
        self.told.as_ref().is_some_and(|t| t.report.role == Role::Master && !t.report.loading)
    }

    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        self.addr.map(Endpoint::Tcp)
    }

    pub(super) fn says_replica(&self) -> bool {
        self.told.as_ref().is_some_and(|t| matches!(t.report.role, Role::Replica { .. }))
    }

    /// Counts one check of a static list.
    fn check(&mut self, good: bool) {
        self.streak = if self.good == good { self.streak.saturating_add(1) } else { 1 };
        self.good = good;
    }
}

/// What can be said of a node that is, or is to be, granted.
pub(super) enum Proof<'a> {
    /// It says master, and does not load.
    Master(&'a HostPort, &'a Node, &'a Told),
    /// It was not heard yet.
    Waiting,
    /// It is not there, or silent: why.
    Lost(String),
    /// It says that it is a replica: of whom.
    Replica(String),
    /// It says master and loads its data.
    Loading(&'a HostPort, &'a Node, &'a Told),
}

/// The nodes of one service.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    pub(super) map: BTreeMap<HostPort, Node>,
    newest_list: Now,
}

impl Nodes {
    /// Which server `at` is.
    pub(super) fn key(&self, at: &HostPort) -> Key {
        match self.map.get(at).and_then(|n| n.addr).or_else(|| at.literal()) {
            Some(a) => Key::Addr(a),
            None => Key::Name(at.clone()),
        }
    }

    /// All that is known under the names and addresses of one server; the best informed first.
    pub(super) fn find(&self, key: &Key) -> Option<(&HostPort, &Node)> {
        let all = self.map.iter().filter(|(at, n)| match (key, n.addr) {
            (Key::Addr(a), Some(b)) => *a == b,
            (Key::Name(name), None) => name == *at,
            _ => false,
        });
        all.max_by_key(|(_, n)| (n.lost.is_none(), n.told.as_ref().map(|t| t.sent), n.pong))
    }

    /// Makes sure that a node is watched.
    pub(super) fn note(&mut self, now: Now, at: &HostPort) {
        if let Some(n) = self.map.get_mut(at) {
            n.listed = now;
        } else if self.map.len() < NODES_MAX && at.port != 0 && !at.host.is_empty() {
            self.map.insert(at.clone(), Node { listed: now, addr: at.literal(), ..Node::default() });
        }
    }

    /// A Sentinel's list of replicas.
    pub(super) fn note_list(&mut self, now: Now, list: &[Listed]) {
        self.newest_list = now;
        for l in list {
            self.note(now, &l.at);
        }
    }

    /// Forgets nodes that are no longer listed, except `keep`.
    pub(super) fn prune(&mut self, keep: Option<&Key>) {
        let Some(oldest) = self.newest_list.as_micros().checked_sub(UNLISTED_FOR.as_micros() as u64) else {
            return;
        };
        if self.map.values().all(|n| n.listed.as_micros() >= oldest) {
            return;
        }
        let kept = keep.and_then(|k| self.find(k)).map(|(at, _)| at.clone());
        self.map.retain(|at, n| n.listed.as_micros() >= oldest || kept.as_ref() == Some(at));
    }

    /// Takes in what was seen of one node.
    pub(super) fn observe(&mut self, now: Now, at: &HostPort, sent: Now, seen: Seen) {
        let Some(n) = self.map.get_mut(at) else { return };
        match seen {
            Seen::Connected(addr) => {
                n.addr = Some(addr);
                n.connection += 1;
                (n.told, n.pong, n.problem) = (None, None, None);
            }
            Seen::Gone(why) => {
                n.told = None;
                n.pong = None;
                n.master_since = None;
                let since = n.lost.as_ref().map_or(now, |(_, since)| *since);
                n.lost = Some((why, since));
                n.check(false);
                // Silence does not end a process; anything else may.
                n.busy = n.busy.take().filter(|_| matches!(n.lost, Some((Gone::Timeout, _))));
            }
            Seen::Problem(text) => n.problem = Some(text),
            Seen::Busy(run_id) => (n.busy, n.answered) = (Some(Busy { sent, run_id }), Some(now)),
            Seen::Report(report) => {
                (n.lost, n.problem, n.answered) = (None, None, Some(now));
                n.master_since =
                    if report.role != Role::Master { None } else { n.master_since.or(Some(now)) };
                if let Role::Replica { of, link_up } = &report.role {
                    n.followed = Some(of.clone());
                    n.linked = if *link_up { Some(now) } else { n.linked };
                }
                if n.told.as_ref().is_none_or(|t| t.sent <= sent) {
                    n.told = Some(Told { sent, report });
                }
            }
            Seen::Pong(good) => {
                (n.lost, n.answered) = (None, Some(now));
                if good {
                    (n.pong, n.problem) = (Some(sent), None);
                }
                n.check(good);
            }
            _ => {}
        }
    }

    /// What `key` proves of itself. `oldest`: when its question must have been sent at the earliest to be fresh.
    pub(super) fn proof(&self, key: &Key, oldest: Now) -> Proof<'_> {
        let Some((at, n)) = self.find(key) else { return Proof::Waiting };
        if let Some((why, _)) = &n.lost {
            return Proof::Lost(format!("{key} {why}"));
        }
        let Some(told) = &n.told else {
            return match &n.problem {
                Some(p) => Proof::Lost(format!("{key}: {p}")),
                None => Proof::Waiting,
            };
        };
        if told.sent < oldest {
            return Proof::Lost(format!("{key} does not answer"));
        }
        match &told.report.role {
            Role::Replica { of, .. } => Proof::Replica(format!("{key} says that it is a replica of {of}")),
            Role::Master if told.report.loading => Proof::Loading(at, n, told),
            Role::Master => Proof::Master(at, n, told),
        }
    }

    /// The identity of the process behind a report.
    pub(super) fn identity(at: &HostPort, n: &Node, told: &Told) -> Identity {
        Identity { run_id: told.report.run_id.clone(), at: at.clone(), connection: n.connection }
    }

    /// Nodes that say master and are fresh, once per server.
    pub(super) fn claimants(&self, oldest: Now) -> Vec<(Key, &Node)> {
        let mut all: Vec<(Key, &Node)> = Vec::new();
        for (at, n) in &self.map {
            let fresh = n.told.as_ref().is_some_and(|t| t.sent >= oldest);
            if n.lost.is_none() && fresh && n.says_master() {
                let key = self.key(at);
                if all.iter().all(|(k, _)| *k != key) {
                    all.push((key, n));
                }
            }
        }
        all
    }
}
