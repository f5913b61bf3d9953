//! A master that hands over by itself (`FAILOVER TO`): it waits, with its writes paused, until the other has everything; turns
//! replica; and asks the other to be master, over its own replication link (replication.c: `updateFailoverStatus`,
//! `syncCommand` with `PSYNC … FAILOVER`). That last step has no end of its own.
use super::{Event, Whole};
use crate::topology::world::{Handover, Promotion};

impl Whole {
    /// After a Sentinel's turn: nodes that it has told to hand over, and those whose clients it has cut.
    pub(super) fn look_at_handovers(&mut self) {
        for n in std::mem::take(&mut self.world.told) {
            self.report.count("masters told to hand over", 1);
            let handover = self.world.nodes[n].handover;
            self.note(|| format!("node {n} is told to hand over: {handover:?}"));
            let target = handover.map(|h| h.to);
            if target.is_some_and(|to| !self.stores[to].synced) {
                self.world.nodes[n].handover = None;
            }
            self.put(self.world.nodes[n].paused_until * 1000, Event::Runs(n));
            self.put(self.now + 100, Event::HandsOver(n));
        }
        for n in std::mem::take(&mut self.world.cut_off) {
            self.note(|| format!("the clients of node {n} are cut"));
            self.disconnect_clients(n);
            self.put(self.now + 1, Event::Runs(n));
        }
    }

    /// Goes on with a handover, if there is one.
    pub(super) fn hand_over(&mut self, n: usize) {
        let Some(h) = self.world.nodes[n].handover.filter(|_| self.works(n)) else { return };
        if h.asks {
            return self.ask_to_be_master(n, h);
        }
        if self.now / 1000 >= h.until {
            return self.abort_handover(n);
        }
        let len = self.stores[n].log.len();
        if !self.attached(n, h.to) || self.stores[n].acked.get(&h.to) != Some(&len) {
            return;
        }
        self.note(|| format!("node {n} follows node {}, and asks it to be master", h.to));
        self.world.demote(self.now / 1000, n, h.to);
        let node = &mut self.world.nodes[n];
        (node.handover, node.file) = (Some(Handover { asks: true, ..h }), Some(None));
        let store = &mut self.stores[n];
        (store.of, store.synced) = (Some(h.to), false);
        store.acked.clear();
        let next = self.now + self.rng.between(200, 3_000);
        self.put(next, Event::HandsOver(n));
    }

    fn ask_to_be_master(&mut self, n: usize, h: Handover) {
        if !self.works(h.to) || !self.linked(n, h.to) {
            return;
        }
        let (ours, theirs) = (&self.world.nodes[n], &self.world.nodes[h.to]);
        if theirs.of.is_none() || theirs.replid != ours.replid {
            return self.abort_handover(n);
        }
        let at = self.now / 1000;
        let of = theirs.of;
        self.world.promote(at, h.to);
        self.world.nodes[h.to].file = Some(of);
        self.world.promoted = Some(Promotion { at, node: h.to, of: n, by: h.by, forced: false });
        self.world.nodes[n].handover = None;
        self.report.count("masters that handed over", 1);
        self.look(h.to);
        self.unblock(n);
        self.put(self.now + 1, Event::Runs(n));
        self.put(self.now + 500, Event::Feed(n));
    }

    /// `FAILOVER ABORT`, or nothing has come of it: one that was a replica already is master again, under a history of its own.
    pub(super) fn abort_handover(&mut self, n: usize) {
        let Some(h) = self.world.nodes[n].handover.take() else { return };
        self.report.count("handovers that came to nothing", 1);
        self.note(|| format!("node {n} does not hand over"));
        if h.asks {
            self.world.promote(self.now / 1000, n);
            self.look(n);
        }
        self.put(self.now + 1, Event::Runs(n));
    }
}
