//! Holds that an operator wants, and deposed masters that are told whom to follow.
use super::drive::{Drive, host, index_of, ms};
use pointsman_core::Now;
use pointsman_core::topology::observation::TargetKind;
use pointsman_core::topology::pause::Pauser;
use pointsman_core::topology::settings::HostPort;
use pointsman_core::topology::snapshot::ShardView;
use std::time::Duration;

impl Drive {
    /// An operator pauses the service, or ends that.
    pub(super) fn pause_or_resume(&mut self) {
        let now = Now::from_millis(self.now);
        let by = if self.whims.chance(50) { Pauser::Operator } else { Pauser::Switchover };
        if self.whims.chance(30) {
            if self.topology.resume(now, by).is_ok() {
                self.paused_until = None;
            }
        } else {
            let span = self.whims.between(50, 2500);
            if self.topology.pause(now, by, ms(span)).is_ok() {
                if self.paused_until.is_none_or(|until| self.now >= until) {
                    self.paused_since = self.now;
                }
                self.paused_until = Some(self.now + span);
            }
        }
        self.obey();
    }

    /// Whether the service would serve if nobody had paused it: all that must hold of what is served holds then too.
    pub(super) fn is_only_paused(&self, v: &ShardView) -> bool {
        let paused = self.paused_until.is_some_and(|until| self.now < until);
        paused && v.master.is_some() && self.topology.outlook().holds.is_none()
    }

    /// How much longer than a hold a pause may be seen to last.
    pub(super) fn pause_lasts(&self) -> Option<Duration> {
        self.paused_until.map(|until| ms(until.saturating_sub(self.paused_since)))
    }

    /// What must hold while the service is paused.
    pub(super) fn check_paused(&mut self, writes_open: bool) {
        if writes_open && self.paused_until.is_some_and(|until| self.now < until) {
            self.fail("writes are open although the service is paused".into());
        }
    }

    /// A deposed master is to be told: only one whom no majority names, to follow one whom a majority names.
    pub(super) fn demote(&mut self, node: &HostPort, to: &HostPort) {
        let (n, m) = (index_of(node), index_of(to));
        if let Err(few) = self.named_at(m) {
            self.fail(format!("node {n} is told to follow node {m}, that {few} Sentinels name"));
        }
        let need = self.world.sentinels.len() / 2 + 1;
        let at = host(TargetKind::Node, n);
        let fresh = self.fresh_views().filter(|v| v.master == at).count();
        if fresh >= need {
            self.fail(format!("node {n} is told to follow, and {fresh} Sentinels name it"));
        }
        self.outcome.demotions += 1;
        let (now, us) = (self.now, self.world.us());
        let there = self.world.nodes.get(n).is_some_and(|x| x.alive && !x.stopped);
        let outcome = if there && self.world.reach(self.world.node_at(n), us) && self.whims.chance(80) {
            self.world.demote(now, n, m);
            Ok(format!("{node} follows {to} now"))
        } else {
            Err("it does not answer".into())
        };
        self.topology.demoted(Now::from_millis(now), node, outcome);
    }
}
