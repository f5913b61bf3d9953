//! What a lease is for: Sentinels out of sight, who elect as early as Redis could, and a control plane that stands still.
//!
//! Nothing else breaks in these runs (no orders, resets, lies or old files: no arithmetic covers those), so that
//! the promise can be checked as it stands: from the moment of a promotion on no view lets a write out to the old
//! master; and as long as nothing is wrong but that Sentinels are dead, writes go on.
use super::check::FAULTS_FOR;
use super::drive::{Drive, Event, INTERVAL, TIMEOUT, node_of};
use super::world::{DOWN_AFTER, Promotion};
use pointsman_core::Now;

/// After this time without trouble all in sight has been heard, and the last s_down no longer counts (5 s).
const HEALTHY_AFTER: u64 = 5000 + INTERVAL + TIMEOUT + DOWN_AFTER;
/// How long after a promotion a write to the old master is the lease's fault. Later the promotion may have come to nothing (a
/// promoted node that dies at once gives the grant back to the one that a majority still names): that has its own rules and
/// checks, and `whole` looks at every write, however late.
const DARK_FOR: u64 = 1500;

impl Drive {
    pub(super) fn dark_fault(&mut self) {
        if !self.faulty {
            return;
        }
        let now = self.now;
        let (s, n) = (self.rng.index(self.world.sentinels.len()), self.rng.index(self.world.nodes.len()));
        let n = if self.rng.chance(60) { self.world.truth(now).map_or(n, |(m, _)| m) } else { n };
        let what = if self.only_deaths { self.rng.between(8, 10) } else { self.rng.below(16) };
        match what {
            0..=3 => self.split(n),
            4..=5 => self.look_away(),
            6..=7 => self.world.heal(),
            8..=9 => self.world.sentinels[s].alive = false,
            10 => {
                for s in 0..self.world.sentinels.len() {
                    if !self.world.sentinels[s].alive {
                        self.world.restart_sentinel(now, s);
                    }
                }
            }
            11 => self.world.sentinels[s].stopped = true,
            12 => self.world.sentinels.iter_mut().for_each(|s| s.stopped = false),
            13 => self.stalled_until = self.stalled_until.max(now + self.rng.between(20, 2 * DOWN_AFTER)),
            14 => self.world.nodes[n].stopped = true,
            _ => self.world.nodes.iter_mut().for_each(|n| n.stopped = false),
        }
        self.log(format!("dark fault {what}: Sentinel {s}, node {n}"));
        let next = if self.rng.chance(30) { self.rng.between(1, 600) } else { self.rng.between(600, 2500) };
        self.put(now + next, Event::Fault);
    }

    /// Two sides that do not reach each other; we are mostly with the master.
    fn split(&mut self, master: usize) {
        self.world.heal();
        let all = self.world.us() + 1;
        let mut side: Vec<bool> = (0..all).map(|_| self.rng.chance(50)).collect();
        if self.rng.chance(70) {
            side[all - 1] = side[self.world.node_at(master)];
        }
        for a in 0..all {
            for b in 0..a {
                self.world.set_cut(a, b, side[a] != side[b]);
            }
        }
    }

    /// We lose sight of some; they see each other.
    fn look_away(&mut self) {
        let us = self.world.us();
        for s in 0..self.world.sentinels.len() {
            if self.rng.chance(50) {
                self.world.set_cut(us, s, true);
            }
        }
    }

    pub(super) fn check_dark(&mut self) {
        let end = self.view.writes_until;
        let open = self.view.writes.is_open() && end.is_none_or(|t| Now::from_millis(self.now) < t);
        let served = self.view.master.as_ref().map(node_of);
        if let Some(Promotion { at, node: new, of: old, .. }) = self.world.promoted {
            let deposed = open && served == Some(old) && self.world.nodes[new].of.is_none();
            // With a quorum that is no majority, one who has long taken the master for down may get the vote of one who was in
            // sight a moment ago: he is believed for 300 ms, and needs 100 (docs/adr/fencing.md).
            let by_few = 2 * self.world.quorum <= self.world.sentinels.len();
            let from = at + if by_few { 200 } else { 0 };
            if deposed && (from..at + DARK_FOR).contains(&self.now) {
                let (quorum, said) =
                    (self.world.quorum, self.views.iter().map(|(s, (at, v))| (s, at, v.stage)));
                let said: Vec<_> = said.collect();
                self.fail(format!(
                    "writes go to node {old} until {end:?}, and node {new} was promoted at {at} with quorum {quorum}, {said:?}"
                ));
            }
        }
        self.check_available(open, served);
    }

    /// What is served stays served while all that live see each other and us, and nobody is deposed.
    fn check_available(&mut self, open: bool, served: Option<usize>) {
        let Some(m) = served.filter(|_| self.well()) else { return self.healthy = None };
        let (since, was_open) = self.healthy.unwrap_or((self.now, open));
        if self.world.nodes[m].of.is_some() {
            return self.healthy = None;
        }
        let settled = self.now - since > HEALTHY_AFTER;
        if settled && was_open && !open {
            let why = self.view.why.clone();
            self.fail(format!("writes wait although nothing is wrong since {since}: {why}"));
        }
        // What cannot be granted while too few Sentinels live is not expected.
        self.healthy = Some((since, open && (was_open || !settled)));
    }

    fn well(&self) -> bool {
        let (w, us) = (&self.world, self.world.us());
        let all = 0..w.sentinels.len();
        let nodes = w.nodes.iter().all(|n| n.alive && !n.stopped && n.loads_until <= self.now);
        let joined = (0..us).all(|a| (0..=us).all(|b| a == b || w.reach(a, b)));
        let calm = |s: usize| !w.sentinels[s].alive || !w.sentinels[s].stopped && w.calm(self.now, s);
        nodes && joined && self.now >= self.stalled_until && all.into_iter().all(calm)
    }

    /// How long the faults of a dark run go on: long enough for quiet stretches.
    pub(super) fn faults_for(&self) -> u64 {
        if self.dark { 4 * FAULTS_FOR } else { FAULTS_FOR }
    }
}
