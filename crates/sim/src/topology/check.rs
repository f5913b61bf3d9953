//! What must hold of everything that the topology machine says, by what was delivered to it and by the truth.
use super::drive::{Drive, HURRY, INTERVAL, TIMEOUT, host, index_of, ms, node_of};
use super::world::FAILOVER_TIMEOUT;
use pointsman_core::Now;
use pointsman_core::topology::observation::{Role, Stage, TargetKind, View};
use pointsman_core::topology::snapshot::{Gate, ShardView};
use pointsman_core::topology::status::GuardState;
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
        self.check_paused(v.writes.is_open());
        // A grant that begins with a hold of the guard is one too.
        let guarded = v.term > self.view.term && self.guard_state() == GuardState::Holding;
        let open = v.writes.is_open() || v.reads.is_open() || self.is_only_paused(v) || guarded;
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
        self.check_named(n);
    }

    /// Whether a majority names the served node by now, at which epoch, and what its history is.
    fn check_named(&mut self, n: usize) {
        // Or later than nothing, if they were set up anew and the machine has accepted that.
        let later = |epoch: &u64| *epoch > self.epoch || self.eras > 0 || self.new_era;
        if let Some(epoch) = self.named_at(n).ok().filter(later) {
            (self.epoch, self.provisional, self.new_era) = (epoch, None, false);
        }
        let lineage = self.reports.get(&n).and_then(|(_, r)| r.lineage.as_ref());
        if let (None, Some(l)) = (self.provisional, lineage) {
            self.served = Some((n, l.replid.clone()));
        }
    }

    /// The highest epoch at which, or beyond which, enough Sentinels name a node; or how many name it at all.
    pub(super) fn named_at(&self, n: usize) -> Result<u64, usize> {
        let at = host(TargetKind::Node, n);
        let fresh = self.fresh_views();
        let need = (self.world.sentinels.len() / 2 + 1).saturating_sub(self.liars()).max(1);
        let mut epochs: Vec<u64> = fresh.filter(|v| v.master == at).map(|v| v.epoch).collect();
        epochs.sort_unstable_by_key(|e| Reverse(*e));
        epochs.get(need - 1).copied().ok_or(epochs.len())
    }

    /// What honest Sentinels have said lately.
    pub(super) fn fresh_views(&self) -> impl Iterator<Item = &View> {
        let oldest = self.now.saturating_sub(INTERVAL + TIMEOUT);
        self.views.values().filter(move |(sent, _)| *sent >= oldest).map(|(_, v)| v)
    }

    fn liars(&self) -> usize {
        self.world.sentinels.iter().filter(|s| s.liar && self.faulty).count()
    }

    /// Who may have promoted a node, or why its promotion is no proof, by what was delivered and true, independently of how the machine sees it.
    fn promoted(&self, n: usize) -> Result<Vec<usize>, String> {
        let Some((old, replid)) = &self.served else { return Err("nothing was served before".into()) };
        let oldest = self.now.saturating_sub(INTERVAL + TIMEOUT);
        let at = host(TargetKind::Node, n);
        let need = self.world.sentinels.len() / 2 + 1;
        let lineage = self.reports.get(&n).and_then(|(_, r)| r.lineage.as_ref());
        if lineage.and_then(|l| l.replid2.as_ref()) != Some(replid) {
            return Err(format!("it was not promoted out of the history of node {old}"));
        }
        if self.followed.get(&n) != Some(old) {
            return Err(format!("it never said that it was a replica of node {old}"));
        }
        let fresh = || self.views.iter().filter(|(_, (sent, _))| *sent >= oldest);
        if let Some((s, _)) = fresh().find(|(_, (_, v))| v.epoch > self.epoch && v.master != at) {
            return Err(format!("Sentinel {s} names another later"));
        }
        let may = |s: &usize, forced: bool| {
            let for_s = |o: usize| {
                let by = [(o, o), (o, *s)];
                let newest = by.iter().filter_map(|k| self.votes.get(k)).max();
                newest.filter(|(epoch, leader)| leader == s && *epoch > self.epoch).map(|(epoch, _)| *epoch)
            };
            let all = || (0..self.world.sentinels.len()).filter(|o| o != s).filter_map(for_s);
            let epoch = all().max();
            let votes = 1 + all().filter(|e| Some(*e) == epoch).count();
            if forced { fresh().count() + self.liars() >= need } else { votes >= need }
        };
        let leaders = fresh().filter(|(s, (_, v))| {
            let chose = self.selected.get(*s).is_some_and(|(m, _)| *m == n)
                && matches!(v.stage, Stage::Tries | Stage::Acts);
            let names = v.master == at && v.epoch > self.epoch;
            (chose || names) && may(s, v.forced)
        });
        let chose = |s: &usize| self.selected.get(s).is_some_and(|(m, _)| *m == n);
        let lying = |s: &usize| {
            let w = &self.world.sentinels[*s];
            // Its lie can happen to be what it did.
            let did = chose(s) || self.world.says(self.now, *s).selected == Some(n);
            w.liar && did && may(s, self.forced.get(s) == Some(&true))
        };
        // A liar can be elected; what it announces, and what the others say of it, is true, and so is its flag.
        let liars = (0..self.world.sentinels.len()).filter(lying);
        let leaders: Vec<usize> = leaders.map(|(s, _)| *s).chain(liars).collect();
        if leaders.is_empty() { Err("no Sentinel may have promoted it".into()) } else { Ok(leaders) }
    }

    /// A grant needs a majority at the highest epoch, or a proof of promotion, by what was delivered and true.
    fn check_grant(&mut self, n: usize) {
        self.provisional = None;
        // A lower epoch is right only in a new era: nobody is left who knows the old one.
        let old_era = self.world.sentinels.iter().any(|s| s.epoch >= self.epoch);
        let named = match self.named_at(n) {
            Ok(epoch) if epoch < self.epoch && self.eras == 0 && old_era => {
                Err(format!("at epoch {epoch}, after {}", self.epoch))
            }
            Ok(epoch) => Ok(epoch),
            Err(by) => Err(format!("only {by} honest Sentinels name it")),
        };
        let epoch = match (named, self.promoted(n)) {
            (Ok(epoch), _) => epoch,
            (_, Ok(leaders)) => {
                self.provisional = Some((n, self.now));
                self.leaders = leaders;
                self.outcome.promotions += 1;
                return;
            }
            (Err(what), Err(why)) => return self.fail(format!("node {n} is granted: {what}, and {why}")),
        };
        self.epoch = epoch;
    }

    /// What must hold at every moment.
    pub(super) fn check_always(&mut self) {
        if self.view.writes.is_open() || self.is_only_paused(&self.view) {
            self.view.master.as_ref().map(node_of).into_iter().for_each(|n| self.check_named(n));
            self.check_signs();
        }
        if let Gate::Hold { since, until } = self.view.writes {
            let paused = self.pause_lasts();
            if until.since(since) > ms(3000) + paused.unwrap_or_default() {
                self.fail("a hold is longer than allowed".into());
            }
        }
        self.check_astray();
        self.check_provisional();
        self.check_guard();
    }

    /// Writes are not open for long by a promotion alone, nor while its leader is known to have given it up.
    fn check_provisional(&mut self) {
        let Some((n, since)) = self.provisional.filter(|_| self.view.writes.is_open()) else { return };
        if self.view.master.as_ref().map(node_of) != Some(n) {
            return;
        }
        if self.now - since > FAILOVER_TIMEOUT + 200 {
            self.fail(format!("writes go to node {n} by a promotion that no Sentinel has named in time"));
        }
        let gone = |leader: &usize| {
            let said = self.views.get(leader).filter(|_| !self.world.sentinels[*leader].liar);
            said.is_some_and(|(sent, v)| *sent > since && v.stage < Stage::Acts && index_of(&v.master) != n)
        };
        if self.leaders.iter().all(gone) {
            let text = format!("writes go to node {n}, and {:?} have given up promoting it", self.leaders);
            self.fail(text);
        }
    }

    /// No Sentinel that we hear (and that does not lie) is failing over while writes are open.
    fn check_signs(&mut self) {
        let acting = self.views.iter().find(|(s, (sent, v))| {
            let heard = self.now.saturating_sub(*sent) < HURRY;
            let done = self.selected.get(*s).map(|(n, _)| *n) == self.view.master.as_ref().map(node_of);
            v.stage == Stage::Acts && heard && !self.world.sentinels[**s].liar && !done
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
            let since = self.epoch + u64::from(self.provisional.is_some());
            others.filter(|v| v.master != n && v.epoch >= since).count() > all / 2
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
        let armed = || !self.guarded || self.guard_state() == GuardState::Armed;
        let right = granted.is_some_and(|n| Some(n) == truth && self.world.nodes[n].of.is_none()) && armed();
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
        if self.now > 1000 + self.faults_for() + RECOVERED_WITHIN {
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
