//! A failover that the master makes itself, as Sentinels of Valkey 9 order it (`SENTINEL FAILOVER … COORDINATED`): they elect who
//! leads it; that one has the master's writes paused and tells it `FAILOVER TO`; and when it has seen the promotion it cuts
//! the clients of both nodes (sentinel.c: `sentinelFailoverSendFailover`, `sentinelKillClients`). What the master does is the
//! whole simulation's (`whole/handover`).
use super::{FAILOVER_TIMEOUT, Way, World};

/// Less time than this is not enough for a master to hand over (in the real one 1 s).
const HANDOVER_MIN: u64 = 500;

/// A master that hands over (replication.c: `failoverCommand`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handover {
    /// To whom.
    pub to: usize,
    /// Until when that one may take to have everything.
    pub until: u64,
    /// It has everything: the master follows it by now, and asks it to be master. That ends when it answers.
    pub asks: bool,
    /// By which Sentinel's order.
    pub by: usize,
}

impl World {
    /// `SENTINEL FAILOVER … COORDINATED`: whether it begins. The others are asked for their votes at once.
    ///
    /// # Errors
    /// Why not.
    pub fn coordinate(&mut self, now: u64, s: usize) -> Result<(), &'static str> {
        self.order(now, s, Way::Coordinated)?;
        let epoch = self.sentinels[s].current_epoch;
        let votes = self.votes(now, s, epoch);
        if let Some(f) = &mut self.sentinels[s].failover {
            f.votes = votes;
        }
        Ok(())
    }

    /// Whether a Sentinel leads a failover, or wants to, that is the master's own.
    pub fn coordinates(&self, s: usize) -> bool {
        self.sentinels[s].failover.as_ref().is_some_and(|f| f.way == Way::Coordinated)
    }

    /// In one transaction: `CLIENT PAUSE … WRITE`, and `FAILOVER TO`, which may be refused. Whether it was sent.
    pub(super) fn tell_to_hand_over(&mut self, now: u64, s: usize, to: usize, waited: u64) -> Option<bool> {
        let m = self.sentinels[s].master;
        let ms = FAILOVER_TIMEOUT.saturating_sub(waited);
        if ms < HANDOVER_MIN {
            return None;
        }
        // Behind its own hello, which waits in another pause, nothing comes through.
        if !self.linked(s, m) || self.sentinels[s].stuck {
            return Some(false);
        }
        let fits = self.attached(m).iter().any(|(r, _)| *r == to);
        let node = &mut self.nodes[m];
        node.paused_until = node.paused_until.max(now + ms);
        if fits && node.of.is_none() && node.handover.is_none() {
            node.handover = Some(Handover { to, until: now + ms, asks: false, by: s });
        }
        self.told.push(m);
        Some(true)
    }

    /// `CONFIG REWRITE`, `CLIENT KILL` and `CLIENT UNPAUSE`, on the old master and on the new one.
    pub(super) fn cut_clients(&mut self, s: usize, new: usize) {
        for n in [self.sentinels[s].master, new] {
            if self.linked(s, n) {
                (self.nodes[n].paused_until, self.nodes[n].file) = (0, None);
                self.cut_off.push(n);
            }
        }
    }
}
