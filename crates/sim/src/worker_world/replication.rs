//! Replication in the model: a master counts what it writes, replicas take it over now and then, `WAIT` waits for them, and
//! who is promoted has what it had taken over by then.
use super::World;
use super::server::{Role, Server};
use pointsman_core::Now;
use std::collections::BTreeMap;

/// What a server has written, or taken over.
#[derive(Clone, Debug, Default)]
pub(super) struct Replication {
    /// Which history a master writes: another one after each promotion.
    pub(super) history: u64,
    /// Where that began.
    base: u64,
    /// How far it has come.
    pub(super) offset: u64,
    /// Which history a replica follows, and how far it has.
    follows: Option<(u64, u64)>,
    /// How far a master's replicas have acknowledged.
    acknowledged: BTreeMap<usize, u64>,
    /// A replica takes over nothing until then.
    pub(super) stalled_until: Now,
}

impl Replication {
    /// The first master and its replicas, all empty.
    pub(super) fn new(master: bool) -> Replication {
        Replication { history: 1, follows: (!master).then_some((1, 0)), ..Replication::default() }
    }

    /// How many replicas have acknowledged what was written up to `offset`.
    pub(super) fn having(&self, offset: u64) -> usize {
        self.acknowledged.values().filter(|n| **n >= offset).count()
    }

    /// How much of the history that `master` writes a replica has.
    pub(super) fn of(&self, master: &Replication) -> Option<u64> {
        self.follows.filter(|(history, _)| *history == master.history).map(|(_, n)| n)
    }
}

/// What a promotion has cut off.
pub(super) struct Cut {
    /// Of the old master's history the new one has what was written up to this offset.
    pub(super) old: (u64, u64),
    /// The history that the new master had followed, and how far.
    pub(super) followed: Option<(u64, u64)>,
}

impl Server {
    /// It is promoted in the place of `old`.
    fn follow_on(&mut self, old: &Replication, history: u64) -> Cut {
        let r = &mut self.replication;
        let cut = Cut { old: (old.history, r.of(old).unwrap_or(old.base)), followed: r.follows };
        let offset = r.follows.map_or(r.offset, |(_, n)| n);
        *r = Replication { history, base: offset, offset, ..Replication::default() };
        cut
    }

    /// It takes over all that `master` has; whether that was something new.
    fn catch_up(&mut self, master: &mut Server) -> bool {
        let m = &mut master.replication;
        let all = Some((m.history, m.offset));
        if self.replication.follows == all && m.acknowledged.get(&self.id) == Some(&m.offset) {
            return false;
        }
        m.acknowledged.insert(self.id, m.offset);
        self.replication.follows = all;
        self.load(&master.copy());
        true
    }
}

impl World {
    /// Replicas take over what the master has.
    pub(super) fn replicate(&mut self) -> bool {
        let master = self.control.master();
        if self.refusing[master] || self.now < self.servers[master].stopped_until {
            return false;
        }
        let mut progress = false;
        for i in 0..self.servers.len() {
            let r = &self.servers[i];
            let follows = i != master && r.role == Role::Replica && !self.refusing[i];
            let idle = self.now < r.stopped_until || self.now < r.replication.stalled_until;
            if !follows || idle || !self.healed && !self.rng.chance(40) {
                continue;
            }
            let (before, from) = self.servers.split_at_mut(i.max(master));
            let (low, high) = (&mut before[i.min(master)], &mut from[0]);
            let (replica, master) = if i < master { (low, high) } else { (high, low) };
            progress |= replica.catch_up(master);
        }
        progress |= self.servers[master].serve_waiting(self.now);
        progress
    }

    /// A node is promoted with what it has.
    pub(super) fn take_over(&mut self, from: usize, to: usize) {
        let old = self.servers[from].replication.clone();
        let history = self.control.next_history();
        let cut = self.servers[to].follow_on(&old, history);
        self.servers[from].replication.follows = None;
        self.check.cut(&cut);
        self.control.kept_of_last_term = cut.old.1;
    }

    /// A replica falls behind.
    pub(super) fn stall_a_replica(&mut self, who: usize) {
        self.report.count("replicas that fall behind", 1);
        let until = self.now + std::time::Duration::from_millis(self.rng.between(5, 1_200));
        self.servers[who].replication.stalled_until = until;
    }
}
