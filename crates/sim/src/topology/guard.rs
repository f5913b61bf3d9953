//! The guard in the model: its probes, and what must hold of it by the truth.
use super::drive::{Drive, Event, HURRY, TIMEOUT, ms, node_of};
use pointsman_core::Now;
use pointsman_core::topology::observation::{Gone, Seen, Stage};
use pointsman_core::topology::settings::Guarding;
use pointsman_core::topology::status::GuardState;

/// How often the probe is asked while that is wanted, and how long a replica may take.
pub(super) const EVERY: u64 = 100;
pub(super) const WAIT: u64 = 150;
/// How often it is looked whether somebody acknowledges meanwhile.
const STEP: u64 = 20;
/// What questions, answers and timers may take besides.
const SLACK: u64 = 60;
/// Faults that come so close together may be one cut.
const TOGETHER: u64 = 100;
/// How long a replica must have acknowledged to be known for it, and dead nodes have been up again.
const SETTLED: u64 = 1500;
/// How long the guard may hold while nothing is wrong with any Sentinel.
const LEAVES_WITHIN: u64 = 10 * HURRY + TIMEOUT;

/// What the checkers remember.
#[derive(Clone, Debug, Default)]
pub(super) struct Truth {
    /// The granted node, and since when some replica could, or none could, acknowledge to it.
    acknowledges: Option<(usize, bool, u64)>,
    /// For how long one could before that.
    before: u64,
    /// Since when so many Sentinels do not reach it that they could elect another.
    electable: Option<u64>,
    /// Since when the guard holds although all Sentinels reach it and see nothing wrong.
    needless: Option<u64>,
    /// When a node last died or came back.
    death_at: u64,
    /// Since when writes are open: before, none told that writes flow.
    open: Option<u64>,
}

pub(super) fn guarding() -> Guarding {
    Guarding { every: ms(EVERY), wait: ms(WAIT) }
}

impl Drive {
    /// The guard's question is on its way, or waits for an acknowledgement.
    pub(super) fn probe(&mut self, t: usize, sent: u64, n: usize) {
        let node = &self.world.nodes[n];
        let heard = node.alive && !node.stopped && self.world.reach(self.world.node_at(n), self.world.us());
        if heard && self.world.acknowledged(n) {
            return self.letter(t, sent, Seen::Acknowledged(true), true);
        }
        if heard && self.now >= sent + WAIT {
            return self.letter(t, sent, Seen::Acknowledged(false), true);
        }
        if self.now >= sent + WAIT + TIMEOUT {
            return self.letter(t, sent, Seen::Gone(Gone::Timeout), false);
        }
        // A master that does not hear begins to wait when it does.
        let sent = if heard { sent } else { sent + STEP };
        self.put(self.now + STEP, Event::Ask(t, sent, false));
    }

    /// Writes flow while they can.
    pub(super) fn write(&mut self) {
        if self.view.writes.is_open() {
            self.topology.writes_flow(Now::from_millis(self.now));
            self.obey();
        }
        self.check_left();
    }

    pub(super) fn guard_state(&self) -> GuardState {
        self.topology.status().guard.state
    }

    pub(super) fn died(&mut self) {
        self.truth.death_at = self.now;
    }

    /// Writes are not open for long to a node whose replicas fell silent, when Sentinels that can elect another lost it
    /// at the same time (docs/guide/guard.md). What the guard does not cover is left out: a grant whose replicas were hardly known yet;
    /// dead nodes, out of which nobody is promoted (b); a master that does not answer us either; and Sentinels that lost it later,
    /// when they may have vouched for it (c): that is checked in `whole`, to the millisecond.
    pub(super) fn check_guard(&mut self) {
        let Some(n) = self.view.master.as_ref().map(node_of).filter(|_| self.guarded) else {
            return self.truth.acknowledges = None;
        };
        let (now, yes) = (self.now, self.world.acknowledged(n));
        self.truth.open = self.view.writes.is_open().then(|| self.truth.open.unwrap_or(now));
        match self.truth.acknowledges {
            Some((m, was, _)) if (m, was) == (n, yes) => {}
            Some((m, true, since)) if m == n => {
                self.truth.before = now - since;
                self.truth.acknowledges = Some((n, yes, now));
            }
            _ => (self.truth.before, self.truth.acknowledges) = (0, Some((n, yes, now))),
        }
        self.truth.electable = if self.could_elect(n) { self.truth.electable.or(Some(now)) } else { None };
        let Some((_, false, silent)) = self.truth.acknowledges else { return };
        let Some(electable) = self.truth.electable.filter(|at| *at <= silent + TOGETHER) else { return };
        let known = self.truth.before >= SETTLED && silent > self.truth.death_at + SETTLED;
        let lives = self.world.nodes.iter().all(|n| n.alive);
        let node = &self.world.nodes[n];
        let heard = !node.stopped && self.world.reach(self.world.node_at(n), self.world.us());
        let Some(open) = self.truth.open.filter(|_| known && lives && heard) else { return };
        if now > silent.max(electable).max(open).max(self.stalled_until) + EVERY + WAIT + SLACK {
            let text =
                format!("writes go to node {n}, and nobody has acknowledged them for {} ms", now - silent);
            self.fail(text);
        }
    }

    /// Whether the Sentinels that do not reach a node, but each other, could elect another.
    fn could_elect(&self, n: usize) -> bool {
        let all = self.world.sentinels.len();
        let cut = |s: &usize| {
            let w = &self.world.sentinels[*s];
            w.alive && !w.stopped && !self.world.reach(*s, self.world.node_at(n))
        };
        (0..all).filter(cut).count() >= (all / 2 + 1).max(self.world.quorum)
    }

    /// The guard does not hold for long when all Sentinels hear the master and see nothing wrong.
    fn check_left(&mut self) {
        let holds = self.view.why.starts_with("no replica of ") && self.now >= self.stalled_until;
        let Some(n) = self.view.master.as_ref().map(node_of).filter(|_| holds) else {
            return self.truth.needless = None;
        };
        let us = self.world.us();
        let well = (0..self.world.sentinels.len()).all(|s| {
            let (w, says) = (&self.world.sentinels[s], self.world.says(self.now, s));
            let linked = self.world.reach(s, self.world.node_at(n)) && self.world.reach(s, us);
            w.alive && !w.stopped && !w.liar && linked && (says.master, says.stage) == (n, Stage::Calm)
        });
        let node = &self.world.nodes[n];
        let heard = node.alive && !node.stopped && self.world.reach(self.world.node_at(n), us);
        if !(well && heard && self.guard_state() == GuardState::Holding) {
            self.truth.needless = None;
        } else if self.now - *self.truth.needless.get_or_insert(self.now) > LEAVES_WITHIN {
            self.fail(format!("the guard still holds, and all Sentinels hear node {n}"));
        }
    }
}
