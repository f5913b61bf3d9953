//! Which worker a client belongs to. Workers are filled one after the other: what one of them can carry is cheaper there
//! than spread over two, whose turns are smaller. So a newcomer goes to the first that is not busy; clients that are there
//! move on only when their worker comes to its limit, and back when two workers have long had less to do than one can.
//!
//! That nobody is moved to and fro: between what spreads and what brings together is a wide gap; a worker looks at the
//! effect of what it did before it goes on; and who was moved stays (`worker/migrate`).
use crate::Now;
use core::time::Duration;

/// From this busy share on a worker gets no newcomers.
pub const BUSY: u32 = 600;
/// From this on, for so long, a worker hands clients over …
const LIMIT: u32 = 800;
const LIMIT_FOR: Duration = Duration::from_secs(1);
/// … to one that is busy for so much less.
const LESS: u32 = 200;
/// Two workers that together are busy for less than this, for so long, become one.
const TOGETHER: u32 = 300;
const TOGETHER_FOR: Duration = Duration::from_secs(10);

/// How much a worker has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// Which share of its time it was busy lately, in thousandths.
    pub busy_permille: u32,
    /// How many clients it has.
    pub clients: usize,
}

/// Which worker gets a client that was just accepted: the first that is not busy; when all are, the one with the
/// fewest clients. `None`: there are no workers.
pub fn newcomer(loads: impl Iterator<Item = Load> + Clone) -> Option<usize> {
    let idle = loads.clone().position(|l| l.busy_permille < BUSY);
    idle.or_else(|| loads.enumerate().min_by_key(|(_, l)| l.clients).map(|(i, _)| i))
}

/// Which clients are handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Of those that were heard lately so many thousandths. An only one stays: its load cannot be divided.
    Active(u32),
    /// All, also those that are silent.
    All,
}

impl Who {
    /// How many, out of `all`.
    pub fn of(self, all: usize) -> usize {
        match self {
            Who::All => all,
            Who::Active(_) if all < 2 => 0,
            Who::Active(permille) => (all * permille as usize / 1000).max(1),
        }
    }
}

/// What a worker is to hand over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handover {
    /// The index of the worker that gets them.
    pub to: usize,
    /// Which of its clients.
    pub who: Who,
}

/// What one worker remembers of its load.
#[derive(Debug)]
pub struct Spread {
    me: usize,
    /// Since when it is at its limit.
    limit_since: Option<Now>,
    /// Since when it and a worker before it have little to do.
    little_since: Option<Now>,
}

impl Spread {
    /// For the worker with index `me`.
    pub fn new(me: usize) -> Spread {
        Spread { me, limit_since: None, little_since: None }
    }

    /// A measurement has ended, that began `span` ago; `loads` are the newest of all workers.
    pub fn measured(&mut self, now: Now, span: Duration, loads: &[Load]) -> Option<Handover> {
        let mine = *loads.get(self.me)?;
        self.relief(now, span, mine, loads).or_else(|| self.reunion(now, span, mine, loads))
    }

    fn relief(&mut self, now: Now, span: Duration, mine: Load, loads: &[Load]) -> Option<Handover> {
        if mine.busy_permille < LIMIT {
            self.limit_since = None;
            return None;
        }
        let since = *self.limit_since.get_or_insert(now - span);
        if now.since(since) < LIMIT_FOR {
            return None;
        }
        let to = loads.iter().position(|l| l.busy_permille + LESS <= mine.busy_permille)?;
        // What it does is seen in measurements that begin now.
        self.limit_since = Some(now);
        // Half of what would make the two equal.
        let more = mine.busy_permille - loads[to].busy_permille;
        Some(Handover { to, who: Who::Active(more * 250 / mine.busy_permille) })
    }

    fn reunion(&mut self, now: Now, span: Duration, mine: Load, loads: &[Load]) -> Option<Handover> {
        let fits = |l: &Load| l.busy_permille + mine.busy_permille < TOGETHER;
        let to = loads[..self.me].iter().position(fits).filter(|_| mine.clients > 0);
        let Some(to) = to else {
            self.little_since = None;
            return None;
        };
        let since = *self.little_since.get_or_insert(now - span);
        (now.since(since) >= TOGETHER_FOR).then_some(Handover { to, who: Who::All })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const HALF: Duration = Duration::from_millis(500);

    fn loads(busy: &[u32]) -> Vec<Load> {
        busy.iter().map(|b| Load { busy_permille: *b, clients: 10 }).collect()
    }

    /// What worker `me` does in each of `n` measurements of half a second.
    fn run(me: usize, n: u64, busy: &[u32]) -> Vec<Option<Handover>> {
        let mut spread = Spread::new(me);
        let at = |i| Now::from_millis(1_000 + 500 * i);
        (0..n).map(|i| spread.measured(at(i), HALF, &loads(busy))).collect()
    }

    #[test]
    fn newcomers_go_to_the_first_that_is_not_busy_else_to_the_one_with_the_fewest() {
        assert_eq!(newcomer(loads(&[599, 0]).into_iter()), Some(0));
        assert_eq!(newcomer(loads(&[600, 900, 100]).into_iter()), Some(2));
        let mut full = loads(&[900, 600, 1000]);
        full[2].clients = 3;
        assert_eq!(newcomer(full.into_iter()), Some(2));
        assert_eq!(newcomer([].into_iter()), None);
    }

    #[test]
    fn what_one_worker_carries_stays_with_it() {
        assert!(run(0, 100, &[799, 0]).iter().all(Option::is_none));
    }

    #[test]
    fn at_its_limit_for_a_second_it_hands_a_part_to_the_first_that_has_less_to_do() {
        let to = |to, permille| Some(Handover { to, who: Who::Active(permille) });
        assert_eq!(run(0, 4, &[1000, 900, 500, 0]), [None, to(2, 125), None, to(2, 125)]);
        assert_eq!(run(1, 2, &[0, 800]), [None, to(0, 250)]);
    }

    #[test]
    fn a_peak_of_less_than_a_second_moves_nobody() {
        let mut spread = Spread::new(0);
        for i in 0..50 {
            let busy = if i % 2 == 0 { 1000 } else { 700 };
            assert_eq!(spread.measured(Now::from_millis(1_000 + 500 * i), HALF, &loads(&[busy, 0])), None);
        }
    }

    #[test]
    fn workers_that_are_about_as_busy_hand_nothing_over() {
        for me in [0, 1] {
            assert!(run(me, 100, &[1000, 801]).iter().all(Option::is_none));
            assert!(run(me, 100, &[700, 500]).iter().all(Option::is_none));
        }
    }

    #[test]
    fn two_that_have_little_to_do_for_long_become_one() {
        let all = run(1, 21, &[150, 149]);
        assert!(all[..19].iter().all(Option::is_none), "{all:?}");
        assert_eq!(all[19..], [Some(Handover { to: 0, who: Who::All }); 2]);
        assert!(run(0, 100, &[150, 149]).iter().all(Option::is_none), "the first one stays");
        assert!(run(1, 100, &[150, 150]).iter().all(Option::is_none));
    }

    #[test]
    fn an_only_client_is_not_a_load_that_can_be_divided() {
        assert_eq!((Who::Active(250).of(0), Who::Active(250).of(1)), (0, 0));
        assert_eq!((Who::Active(250).of(2), Who::Active(250).of(200)), (1, 50));
        assert_eq!(Who::All.of(1), 1);
    }
}
