//! What a Sentinel knows of the nodes that it could promote, which may be old; and what others ask of it besides.
use super::{DOWN_AFTER, World};
use std::cmp::Reverse;

/// How often INFO is asked for while nothing goes on (in the real one 10 s).
const EVERY: u64 = 1000;

impl World {
    /// Whom a Sentinel would promote, by what it saw last (sentinelSelectSlave).
    pub(super) fn select(&self, s: usize) -> Option<usize> {
        let me = &self.sentinels[s];
        let usable = |n: &usize| *n != me.master && me.seen[*n].0 > 0 && self.linked(s, *n);
        (0..self.nodes.len()).filter(usable).max_by_key(|n| (Reverse(me.seen[*n].0), me.seen[*n].1))
    }

    /// The priority of a node as a Sentinel shows it, and whether it takes the node for down.
    pub fn shows(&self, now: u64, s: usize, n: usize) -> (u64, bool) {
        let me = &self.sentinels[s];
        (me.seen[n].0, !self.linked(s, n) && now > me.lost[n] + DOWN_AFTER)
    }

    /// Asks the nodes for INFO, if it is time: more often while something goes on.
    pub(super) fn see(&mut self, now: u64, s: usize) {
        let busy = self.sentinels[s].failover.is_some() || self.down(now, s);
        if !busy && now < self.sentinels[s].seen_at {
            return;
        }
        self.sentinels[s].seen_at = now + EVERY;
        for n in 0..self.nodes.len() {
            if self.linked(s, n) {
                self.sentinels[s].seen[n] = (self.nodes[n].priority, self.nodes[n].offset);
            }
        }
    }

    /// Whether a failover of its goes on.
    pub fn leads(&self, s: usize) -> bool {
        self.acts(s) && self.sentinels[s].failover.is_some()
    }

    /// Whether a Sentinel's clock jumped, so that it does not act.
    pub fn tilts(&self, now: u64, s: usize) -> bool {
        now < self.sentinels[s].tilt_until
    }

    /// Whether a node's writes are paused.
    pub fn paused(&self, now: u64, n: usize) -> bool {
        now < self.nodes[n].paused_until || self.nodes[n].handover.is_some()
    }
}
