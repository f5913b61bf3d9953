//! What breaks in a run, and how it ends.
use super::drive::{Drive, Event};
use super::world::Node;
use pointsman_core::Now;
use pointsman_core::topology::snapshot::{ServiceId, ShardId, Sign, SignKind};

impl Drive {
    pub(super) fn fault(&mut self) {
        if !self.faulty {
            return;
        }
        let now = self.now;
        let (s, n) = (self.rng.index(self.world.sentinels.len()), self.rng.index(self.world.nodes.len()));
        // Mostly the master: that is where it hurts.
        let n = if self.rng.chance(60) { self.world.truth(now).map_or(n, |(m, _)| m) } else { n };
        let what = self.rng.below(20);
        match what {
            0..=1 => {
                self.world.nodes[n].alive = false;
                self.died();
            }
            17 => self.others_of(n, |node| node.stopped = true),
            18 => {
                self.others_of(n, |node| node.alive = false);
                self.died();
            }
            // The master's host is cut off, and we are on both sides.
            19 => self.world.isolate(self.world.node_at(n), false),
            2 => self.world.nodes[n].stopped = true,
            3..=4 => {
                self.died();
                for n in 0..self.world.nodes.len() {
                    if !self.world.nodes[n].alive {
                        self.world.restart_node(now, n);
                    }
                    self.world.nodes[n].stopped = false;
                }
            }
            5 => self.world.sentinels[s].alive = false,
            6 => self.world.sentinels[s].stopped = true,
            7 => self.world.restart_sentinel(now, s),
            8 => self.world.tilt(now, s),
            9..=11 => {
                let _ = self.world.force(now, s);
            }
            12 => {
                let at = if self.rng.chance(50) { s } else { self.world.node_at(n) };
                let also_from_us = self.rng.chance(50);
                self.world.isolate(at, also_from_us);
            }
            13 => self.world.heal(),
            16 => self.world.reset(now, s),
            15 => {
                // A majority comes back from old files, and a dead node with the role that it had.
                let all = self.world.sentinels.len();
                for i in 0..=all / 2 {
                    self.world.restore(now, (s + i) % all);
                }
                self.died();
                if !self.world.nodes[0].alive {
                    self.world.restart_node(now, 0);
                }
            }
            _ => {
                // A quick restart, before anybody notices.
                if self.world.nodes[n].alive && !self.world.nodes[n].stopped {
                    self.world.restart_node(now, n);
                    self.died();
                }
            }
        }
        self.log(format!("fault {what}: Sentinel {s}, node {n}"));
        if self.rng.chance(20) {
            self.sign();
        }
        if self.pauses && self.whims.chance(15) {
            self.pause_or_resume();
        }
        // Some faults come close together.
        let next = if self.rng.chance(40) { self.rng.between(1, 300) } else { self.rng.between(300, 2500) };
        self.put(now + next, Event::Fault);
    }

    /// Breaks all nodes but one.
    fn others_of(&mut self, n: usize, breaks: impl Fn(&mut Node)) {
        self.world.nodes.iter_mut().enumerate().filter(|(i, _)| *i != n).for_each(|(_, node)| breaks(node));
    }

    /// A leader has given its order, which was obeyed at once: what can go wrong now, sometimes does.
    pub(super) fn after_order(&mut self, s: usize, n: usize) {
        match self.rng.below(12) {
            0 => self.world.sentinels[s].alive = false,
            1 => self.world.sentinels[s].stopped = true,
            2 => self.world.set_cut(s, self.world.node_at(n), true),
            3 => {
                self.world.restart_node(self.now, n);
                self.died();
            }
            4 => self.world.isolate(s, false),
            _ => return,
        }
        self.log(format!("a fault after Sentinel {s} has promoted node {n}"));
    }

    fn sign(&mut self) {
        let kind = [SignKind::Broken, SignKind::Readonly, SignKind::Loading][self.rng.index(3)];
        let at = Now::from_millis(self.now - 1);
        let sign = Sign { service: ServiceId(0), shard: ShardId(0), term: self.view.term, at, kind };
        self.topology.sign(Now::from_millis(self.now), &sign);
        self.obey();
    }

    /// Faults end.
    pub(super) fn mend(&mut self) {
        self.log("faults end".into());
        self.faulty = false;
        self.world.heal();
        for n in 0..self.world.nodes.len() {
            if !self.world.nodes[n].alive {
                self.world.restart_node(self.now, n);
            }
            self.world.nodes[n].stopped = false;
        }
        for s in 0..self.world.sentinels.len() {
            if !self.world.sentinels[s].alive || self.world.sentinels[s].stopped {
                self.world.restart_sentinel(self.now, s);
            }
        }
        // Sometimes the Sentinels are set up anew, without their files, for the true master.
        if self.rng.chance(10) {
            if let Some((m, _)) =
                self.world.truth(self.now).filter(|(m, _)| self.world.nodes[*m].of.is_none())
            {
                self.log(format!("the Sentinels are redeployed for node {m}"));
                self.world.redeploy(self.now, m);
                self.eras += 1;
                self.epoch = 0;
            }
        }
    }
}
