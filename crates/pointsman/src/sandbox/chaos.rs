//! What to break next: a pure, seeded decision, and the thin hand that does it.
//!
//! One thing is broken at a time, and the master only while a replica in sync could follow it: what then goes wrong is
//! not the deployment's fault.
use super::deployment::Deployment;
use std::io;
use std::time::Duration;

/// Between the end of one fault and the next, in ms.
const REST_MS: (u64, u64) = (1_500, 4_000);
/// How long a killed or stopped node is left so, in ms: shorter and longer than the Sentinels take to act.
const BROKEN_MS: (u64, u64) = (100, 6_000);
/// The pause before looking again when nothing may be broken.
const AGAIN: Duration = Duration::from_millis(500);

/// SplitMix64 (Steele, Lea and Flood 2014): enough to choose faults and keys.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One in `from..to`, which is not empty.
    pub fn between(&mut self, (from, to): (u64, u64)) -> u64 {
        from + self.number() % (to - from)
    }
}

/// What the deployment looks like when a fault is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Who is master, if that is clear.
    pub master: Option<usize>,
    /// Per node: whether it is the master or in sync with it.
    pub fit: Vec<bool>,
}

/// One thing to do. Nodes are indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `kill -9`; a [`Step::Restart`] follows.
    Kill(usize),
    /// SIGSTOP; a [`Step::Continue`] follows.
    Stop(usize),
    /// Start a killed node again.
    Restart(usize),
    /// SIGCONT.
    Continue(usize),
    /// `SENTINEL FAILOVER`.
    Failover,
}

/// Decides.
#[derive(Debug, Clone)]
pub struct Chaos {
    random: Random,
    due: Duration,
    repair: Option<Step>,
}

impl Chaos {
    /// The same seed gives the same faults, as far as the deployment behaves the same.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let due = Duration::from_millis(random.between(REST_MS));
        Self { random, due, repair: None }
    }

    /// When the next [`Chaos::step`] wants to be called.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// What is still broken: how to repair it.
    pub fn repair(&self) -> Option<Step> {
        self.repair
    }

    /// What to do now, if it is time.
    pub fn step(&mut self, now: Duration, view: &View) -> Option<Step> {
        if now < self.due {
            return None;
        }
        // Drawn always, so that a view that allows nothing does not shift what follows.
        let (dice, rest, broken) =
            (self.random.number(), self.random.between(REST_MS), self.random.between(BROKEN_MS));
        if let Some(repair) = self.repair.take() {
            self.due = now + Duration::from_millis(rest);
            return Some(repair);
        }
        let Some(step) = choose(dice, view) else {
            self.due = now + AGAIN;
            return None;
        };
        self.repair = match step {
            Step::Kill(node) => Some(Step::Restart(node)),
            Step::Stop(node) => Some(Step::Continue(node)),
            Step::Restart(_) | Step::Continue(_) | Step::Failover => None,
        };
        let wait = if self.repair.is_some() { broken } else { rest };
        self.due = now + Duration::from_millis(wait);
        Some(step)
    }
}

/// Three in eight times a planned failover, four the master, once a replica; and a replica while the master must be
/// spared, which after a failover is for about 12 s, until its old master has been made one.
fn choose(dice: u64, view: &View) -> Option<Step> {
    let master = view.master?;
    let whole = view.fit.iter().all(|&fit| fit);
    let replicas: Vec<usize> = (0..view.fit.len()).filter(|&i| i != master && view.fit[i]).collect();
    if replicas.is_empty() {
        return None;
    }
    let (what, how, which) = (dice % 8, dice / 8 % 2, dice / 16);
    let node = match what {
        0..=2 if whole => return Some(Step::Failover),
        3..=6 if whole => master,
        _ => replicas[which as usize % replicas.len()],
    };
    Some(if how == 0 { Step::Kill(node) } else { Step::Stop(node) })
}

/// Looks at the deployment.
pub fn view(deployment: &Deployment) -> View {
    let master = deployment.master();
    let fit = |i| master.is_some_and(|m| i == m || deployment.in_sync(i, m));
    View { master, fit: (0..deployment.nodes.len()).map(fit).collect() }
}

/// Does it, and says what was done.
pub fn perform(step: Step, deployment: &Deployment) -> io::Result<String> {
    let name = |node: usize| deployment.nodes[node].name();
    match step {
        Step::Kill(node) => deployment.nodes[node].kill9(),
        Step::Stop(node) => deployment.nodes[node].stop(),
        Step::Restart(node) => deployment.nodes[node].restart()?,
        Step::Continue(node) => deployment.nodes[node].cont(),
        Step::Failover => deployment.sentinel_failover()?,
    }
    Ok(match step {
        Step::Kill(node) => format!("kill -9 of {}", name(node)),
        Step::Stop(node) => format!("SIGSTOP of {}", name(node)),
        Step::Restart(node) => format!("restart of {}", name(node)),
        Step::Continue(node) => format!("SIGCONT of {}", name(node)),
        Step::Failover => "SENTINEL FAILOVER".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A deployment that always elects the next node, in no time; `seconds` of it.
    fn play(seed: u64, seconds: u64) -> Vec<(u64, Step)> {
        let (mut chaos, mut master, mut broken, mut story) = (Chaos::new(seed), 0, None, vec![]);
        for ms in (0..seconds * 1000).step_by(50) {
            let fit = (0..3).map(|i| Some(i) != broken).collect();
            let now = Duration::from_millis(ms);
            assert!(chaos.due() > now || chaos.due() + AGAIN > now);
            let Some(step) = chaos.step(now, &View { master: Some(master), fit }) else { continue };
            story.push((ms, step));
            match step {
                Step::Kill(node) | Step::Stop(node) => {
                    assert_eq!(broken, None, "one at a time");
                    broken = Some(node);
                    master = if node == master { (master + 1) % 3 } else { master };
                }
                Step::Restart(node) | Step::Continue(node) => {
                    assert_eq!(broken.take(), Some(node), "only what is broken");
                }
                Step::Failover => {
                    assert_eq!(broken, None);
                    master = (master + 1) % 3;
                }
            }
            assert_eq!(chaos.repair().is_some(), broken.is_some());
        }
        story
    }

    #[test]
    fn a_seed_replays() {
        assert_eq!(play(7, 600), play(7, 600));
        assert_ne!(play(7, 600), play(8, 600));
    }

    #[test]
    fn every_fault_comes_and_is_repaired_whatever_the_seed() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let story = play(seed, 300);
            assert!(story.len() > 30, "every few seconds: {}", story.len());
            kinds.extend(story.iter().map(|(_, step)| format!("{step:?}")));
        }
        for kind in ["Kill(0)", "Kill(2)", "Stop(0)", "Stop(1)", "Restart(1)", "Continue(2)", "Failover"] {
            assert!(kinds.contains(kind), "{kind} in {kinds:?}");
        }
    }

    #[test]
    fn the_master_is_spared_while_a_replica_is_unfit_and_nothing_is_broken_without_a_master() {
        for dice in 0..100 {
            let lame = View { master: Some(0), fit: vec![true, true, false] };
            assert!(matches!(choose(dice, &lame), Some(Step::Kill(1) | Step::Stop(1))));
            let alone = View { master: Some(0), fit: vec![true, false, false] };
            assert_eq!(choose(dice, &alone), None);
            assert_eq!(choose(dice, &View { master: None, fit: vec![false; 3] }), None);
        }
    }
}
