//! What must hold of everything that the topology machine says, by what was delivered to it and by the truth.
use super::drive::{Drive, HURRY, INTERVAL, TIMEOUT, host, ms, node_of};
use pointsman_core::Now;
use pointsman_core::topology::observation::{Role, Stage, TargetKind};
use pointsman_core::topology::snapshot::{Gate, ShardView};
use std::cmp::Reverse;
use std::sync::Arc;

/// How long faults go on.
pub(super) const FAULTS_FOR: u64 = 8000;
/// How long the deployment and the machine may take to find the right master when they have ended.
const RECOVERED_WITHIN: u64 = 30_000;
/// For how long the right master must then be served without a break.
const STEADY_FOR: u64 = 500;
/// How long writes may be open to a node after a majority that we can see, and have asked, names another.
const NOTICED_WITHIN: u64 = INTERVAL + 2 * TIMEOUT;

impl Drive {
    /// What must hold of each view.
    pub(super) fn check_view(&mut self, v: &Arc<ShardView>) {
        if v.term < self.view.term {
            self.fail(format!("the term fell from {:?} to {:?}", self.view.term, v.term));
        }
        if let Some(master) = &v.master {
            let before = self.masters.entry(v.term).or_insert_with(|| master.clone());
            if before != master {
                let text = format!("{:?} has two masters: {before} and {master}", v.term);
                self.fail(text);
            }
        }
        if v.writes.is_open() && !v.reads.is_open() {
            self.fail("reads are shut while writes are open".into());
        }
        let open = v.writes.is_open() || v.reads.is_open();
        let Some(n) = v.master.as_ref().map(node_of).filter(|_| open) else {
            if open {
                self.fail("a gate is open and there is no master".into());
            }
            return;
        };
        if v.term > self.view.term {
            self.check_grant(n);
        }
        let Some((sent, report)) = self.reports.get(&n).cloned() else {
            return self.fail(format!("node {n} is served and never said anything"));
        };
        if report.role != Role::Master || report.loading {
            self.fail(format!("node {n} is served, and said {:?}, loading {}", report.role, report.loading));
        }
        let (_, run) = self.runs.entry(v.term).or_insert((n, report.run_id.clone()));
        if *run != report.run_id {
            self.fail(format!("{:?} is served by two processes", v.term));
        }
        if v.proven_at.as_micros() / 1000 > sent {
            self.fail("a proof is newer than its question".into());
        }
    }

    /// A grant needs a majority at the highest epoch, by what was delivered and true.
    fn check_grant(&mut self, n: usize) {
        let oldest = self.now.saturating_sub(INTERVAL + TIMEOUT);
        let at = host(TargetKind::Node, n);
        let fresh = || self.views.values().filter(move |(sent, _)| *sent >= oldest).map(|(_, v)| v);
        let liars = self.world.sentinels.iter().filter(|s| s.liar && self.faulty).count();
        let need = (self.world.sentinels.len() / 2 + 1).saturating_sub(liars).max(1);
        let mut epochs: Vec<u64> = fresh().filter(|v| v.master == at).map(|v| v.epoch).collect();
        epochs.sort_unstable_by_key(|e| Reverse(*e));
        // The highest epoch that, with those beyond it, enough of them name it at.
        let Some(epoch) = epochs.get(need - 1).copied() else {
            let n_named = epochs.len();
            return self.fail(format!("node {n} is granted, and only {n_named} honest Sentinels name it"));
        };
        // A lower epoch is right only in a new era: nobody is left who knows the old one.
        let old_era = self.world.sentinels.iter().any(|s| s.epoch >= self.epoch);
        if epoch < self.epoch && self.eras == 0 && old_era {
            self.fail(format!("node {n} is granted at epoch {epoch}, after {}", self.epoch));
        }
        self.epoch = epoch;
    }

    /// What must hold at every moment.
    pub(super) fn check_always(&mut self) {
        if self.view.writes.is_open() {
            self.check_signs();
        }
        if let Gate::Hold { since, until } = self.view.writes {
            if until.since(since) > ms(3000) {
                self.fail("a hold is longer than allowed".into());
            }
        }
        self.check_astray();
    }

    /// No Sentinel that we hear (and that does not lie) is failing over while writes are open.
    fn check_signs(&mut self) {
        let acting = self.views.iter().find(|(s, (sent, v))| {
            let heard = self.now.saturating_sub(*sent) < HURRY;
            v.stage == Stage::Acts && heard && !self.world.sentinels[**s].liar
        });
        if let Some((s, _)) = acting {
            let text = format!("writes are open, and Sentinel {s} is failing over");
            self.fail(text);
        }
    }

    /// Writes are not open for long to a node that a majority in our sight no longer names.
    fn check_astray(&mut self) {
        let granted = self.view.master.as_ref().filter(|_| self.view.writes.is_open()).map(node_of);
        let us = self.world.us();
        let seen = |s: &usize| self.world.reach(*s, us) && self.world.sentinels[*s].alive;
        let honest = |s: &usize| !self.world.sentinels[*s].liar && !self.world.sentinels[*s].stopped;
        let all = self.world.sentinels.len();
        let against = |n: usize| {
            let others = (0..all).filter(seen).filter(honest).map(|s| self.world.says(self.now, s));
            others.filter(|v| v.master != n && v.epoch >= self.epoch).count() > all / 2
        };
        if granted.is_none_or(|n| !against(n)) {
            self.astray_since = None;
        } else if self.now - *self.astray_since.get_or_insert(self.now) > NOTICED_WITHIN && self.eras == 0 {
            self.fail(format!("writes go to node {granted:?}, which a majority has long given up"));
        }
    }

    /// Whether the right master is served again, and steadily. Fails when it takes too long.
    pub(super) fn recovered(&mut self) -> bool {
        if self.faulty {
            return false;
        }
        let granted = self.view.master.as_ref().filter(|_| self.view.writes.is_open()).map(node_of);
        let truth = self.world.truth(self.now).map(|(n, _)| n);
        let right = granted.is_some_and(|n| Some(n) == truth && self.world.nodes[n].of.is_none());
        if !right {
            self.steady_since = None;
        } else if self.now - *self.steady_since.get_or_insert(self.now) >= STEADY_FOR {
            return true;
        }
        if self.now >= self.trusts_at && self.view.why.contains("pointsman trust") {
            // What the operator would do; a lower epoch is right from now on.
            self.trusts_at = self.now + 1000;
            self.eras += 1;
            self.topology.trust(Now::from_millis(self.now));
            self.obey();
        }
        if self.now > 1000 + FAULTS_FOR + RECOVERED_WITHIN {
            let state: Vec<_> =
                (0..self.world.sentinels.len()).map(|s| self.world.says(self.now, s)).collect();
            self.fail(format!(
                "not recovered: serves {granted:?} ({}), truth {truth:?}, {state:?}",
                self.view.why
            ));
        }
        false
    }
}
