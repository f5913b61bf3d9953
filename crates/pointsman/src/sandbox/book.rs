//! What the load was told, and what became of it: every acknowledged write that may still be lost, the switches, and the
//! verdict. Pure; `load` brings the facts.
//!
//! A check looks for all remembered writes on the current master. One that is missing for the first time was taken by
//! the first switch since the last check at which it was already acknowledged. If there is none, its node stayed master
//! (or it was never written there), and nothing excuses the loss.
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How many entries the book keeps. When it is full no more is written until old writes are settled.
const ENTRIES_MAX: usize = 500_000;
/// The newest writes of each writer that are never settled, so that readers always have something that exists.
const UNSETTLED_MIN: usize = 1_000;

/// One write: each has a key of its own, and a value that belongs to no other key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId {
    /// Which writer, from 0.
    pub writer: usize,
    /// Its writes are numbered from 0.
    pub seq: u64,
}

impl WriteId {
    /// The key that it sets.
    pub fn key(&self) -> String {
        format!("sandbox:{}:{}", self.writer, self.seq)
    }

    /// The value that it sets.
    pub fn value(&self) -> String {
        format!("written by {} as {}", self.writer, self.seq)
    }
}

/// A change of master. Times count from the start of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// When it was first seen.
    pub at: Duration,
    /// The term that began.
    pub term: u64,
    /// Who was master before.
    pub from: String,
    /// Who is now.
    pub to: String,
    /// What we broke before, if we did.
    pub cause: Option<String>,
}

/// A switch, and how many acknowledged writes the new master does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toll {
    /// The switch.
    pub switch: Switch,
    /// Acknowledged writes that it took.
    pub lost: usize,
}

/// What the run has shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// The switches in order, each with its losses.
    pub tolls: Vec<Toll>,
    /// Missing writes that no switch explains, with the time of their acknowledgement.
    pub unexplained: Vec<(WriteId, Duration)>,
    /// Reads that did not show a write that was acknowledged before and is not lost: from a node that is not master.
    pub stale_reads: usize,
    /// Replies that do not belong to their command.
    pub wrong_replies: u64,
}

impl Verdict {
    /// Acknowledged writes that are gone, explained or not.
    pub fn lost(&self) -> usize {
        self.unexplained.len() + self.tolls.iter().map(|toll| toll.lost).sum::<usize>()
    }

    /// Whether nothing happened for which only the proxy can be to blame.
    pub fn is_good(&self) -> bool {
        self.unexplained.is_empty() && self.stale_reads == 0 && self.wrong_replies == 0
    }
}

#[derive(Debug, Clone, Copy)]
struct Loss {
    acknowledged_at: Duration,
    switch: Option<usize>,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    /// Per writer, in order: number and time of each acknowledged write that is not settled.
    open: Vec<VecDeque<(u64, Duration)>>,
    acknowledged: u64,
    switches: Vec<Switch>,
    /// How many of the switches the last check knew.
    checked: usize,
    lost: BTreeMap<WriteId, Loss>,
    unseen: BTreeSet<WriteId>,
    wrong_replies: u64,
}

impl Book {
    /// An empty one.
    pub fn new(writers: usize) -> Self {
        Self {
            open: vec![VecDeque::new(); writers],
            acknowledged: 0,
            switches: Vec::new(),
            checked: 0,
            lost: BTreeMap::new(),
            unseen: BTreeSet::new(),
            wrong_replies: 0,
        }
    }

    /// Whether nothing more may be written for now.
    pub fn is_full(&self) -> bool {
        let open: usize = self.open.iter().map(VecDeque::len).sum();
        open + self.lost.len() + self.unseen.len() + self.switches.len() >= ENTRIES_MAX
    }

    /// A write was acknowledged. Each writer's come in order.
    pub fn acknowledged(&mut self, id: WriteId, at: Duration) {
        self.acknowledged += 1;
        self.open[id.writer].push_back((id.seq, at));
    }

    /// One of the writer's newest acknowledged writes, chosen by `pick`; for readers.
    pub fn recent(&self, pick: u64) -> Option<WriteId> {
        let writer = (pick >> 32) as usize % self.open.len().max(1);
        let open = self.open.get(writer)?;
        let newest = open.len().min(100);
        let back = pick as u32 as usize % newest.max(1);
        let &(seq, _) = open.get(open.len().checked_sub(back + 1)?)?;
        Some(WriteId { writer, seq })
    }

    /// A read did not show this write, which had been acknowledged before the read was sent.
    pub fn unseen(&mut self, id: WriteId) {
        self.unseen.insert(id);
    }

    /// A reply was not one to its command.
    pub fn wrong_reply(&mut self) {
        self.wrong_replies += 1;
    }

    /// Another node became master.
    pub fn switched(&mut self, switch: Switch) {
        self.switches.push(switch);
    }

    /// Whether a switch has happened that no check has looked at.
    pub fn check_due(&self) -> bool {
        self.checked < self.switches.len()
    }

    /// The writes to look for on a master whose grant was seen at `as_of`: what was acknowledged later may have gone to
    /// another one.
    pub fn to_check(&self, as_of: Duration) -> Vec<WriteId> {
        let of = |(writer, open): (usize, &VecDeque<(u64, Duration)>)| {
            let known = open.iter().filter(|(_, at)| *at <= as_of);
            known.map(|&(seq, _)| WriteId { writer, seq }).collect::<Vec<_>>()
        };
        self.open.iter().enumerate().flat_map(of).collect()
    }

    /// The outcome of a check: of [`Book::to_check`], these are missing. A lost write that is there again (its old
    /// master was elected again) is not lost.
    pub fn checked(&mut self, as_of: Duration, missing: &BTreeSet<WriteId>) {
        for (writer, open) in self.open.iter().enumerate() {
            for &(seq, at) in open.iter().filter(|(_, at)| *at <= as_of) {
                let id = WriteId { writer, seq };
                if !missing.contains(&id) {
                    self.lost.remove(&id);
                    continue;
                }
                self.unseen.remove(&id);
                let switch = (self.checked..self.switches.len()).find(|&i| self.switches[i].at >= at);
                self.lost.entry(id).or_insert(Loss { acknowledged_at: at, switch });
            }
        }
        self.checked = self.switches.len();
    }

    /// Forgets the writes that were acknowledged before `before` and are not lost, but for the newest; says which, so
    /// that the server can forget them too. To be called right after a check: what has outlived that is taken as safe.
    pub fn settle(&mut self, before: Duration) -> Vec<WriteId> {
        let mut settled = Vec::new();
        for (writer, open) in self.open.iter_mut().enumerate() {
            while open.len() > UNSETTLED_MIN && open[0].1 < before {
                let (seq, _) = open.pop_front().expect("it has more than the newest");
                let id = WriteId { writer, seq };
                if !self.lost.contains_key(&id) {
                    settled.push(id);
                }
            }
        }
        settled
    }

    /// What has been shown so far.
    pub fn verdict(&self) -> Verdict {
        let taken = |i| self.lost.values().filter(|loss| loss.switch == Some(i)).count();
        let tolls = self.switches.iter().enumerate();
        Verdict {
            acknowledged: self.acknowledged,
            tolls: tolls.map(|(i, switch)| Toll { switch: switch.clone(), lost: taken(i) }).collect(),
            unexplained: (self.lost.iter().filter(|(_, loss)| loss.switch.is_none()))
                .map(|(&id, loss)| (id, loss.acknowledged_at))
                .collect(),
            stale_reads: self.unseen.iter().filter(|id| !self.lost.contains_key(id)).count(),
            wrong_replies: self.wrong_replies,
        }
    }

    /// How many acknowledged writes are missing as far as checked.
    pub fn lost(&self) -> usize {
        self.lost.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn id(seq: u64) -> WriteId {
        WriteId { writer: 0, seq }
    }

    fn switch(at: u64, term: u64) -> Switch {
        Switch { at: ms(at), term, from: "node-1".into(), to: "node-2".into(), cause: None }
    }

    /// A book with writes 0, 1, 2 … that were acknowledged at 0, 10, 20 … ms.
    fn book(writes: u64) -> Book {
        let mut book = Book::new(1);
        (0..writes).for_each(|seq| book.acknowledged(id(seq), ms(seq * 10)));
        book
    }

    #[test]
    fn nothing_missing_is_good() {
        let mut book = book(5);
        book.switched(switch(100, 2));
        book.checked(ms(200), &BTreeSet::new());
        let verdict = book.verdict();
        assert!(verdict.is_good());
        assert_eq!((verdict.acknowledged, verdict.lost()), (5, 0));
    }

    #[test]
    fn a_loss_belongs_to_the_first_switch_after_its_acknowledgement() {
        let mut book = book(5);
        book.switched(switch(15, 2));
        book.switched(switch(35, 3));
        book.checked(ms(100), &[id(1), id(2), id(3)].into());
        let verdict = book.verdict();
        assert_eq!(verdict.tolls.iter().map(|t| t.lost).collect::<Vec<_>>(), [1, 2]);
        assert!(verdict.is_good(), "asynchronous replication may lose them");
    }

    #[test]
    fn a_write_that_an_earlier_check_has_seen_was_taken_by_a_later_switch() {
        let mut book = book(2);
        book.switched(switch(15, 2));
        assert!(book.check_due());
        book.checked(ms(20), &BTreeSet::new());
        assert!(!book.check_due());
        book.switched(switch(50, 3));
        book.checked(ms(60), &[id(1)].into());
        assert_eq!(book.verdict().tolls.iter().map(|t| t.lost).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_loss_without_a_switch_is_unexplained() {
        let mut book = book(5);
        book.switched(switch(15, 2));
        book.checked(ms(100), &[id(1), id(4)].into());
        let verdict = book.verdict();
        assert_eq!(verdict.unexplained, [(id(4), ms(40))], "acknowledged after the switch");
        assert_eq!(verdict.lost(), 2);
        assert!(!verdict.is_good());
    }

    #[test]
    fn what_was_acknowledged_after_the_look_at_the_grant_is_not_looked_for() {
        let mut book = book(5);
        assert_eq!(book.to_check(ms(20)), [id(0), id(1), id(2)]);
        book.checked(ms(20), &[id(4)].into());
        assert_eq!(book.lost(), 0);
    }

    #[test]
    fn a_lost_write_can_return() {
        let mut book = book(2);
        book.switched(switch(50, 2));
        book.checked(ms(60), &[id(1)].into());
        assert_eq!(book.lost(), 1);
        book.switched(switch(70, 3));
        book.checked(ms(80), &BTreeSet::new());
        assert_eq!(book.lost(), 0);
    }

    #[test]
    fn a_read_that_shows_less_than_was_acknowledged_is_stale_unless_the_write_is_lost() {
        let mut book = book(3);
        book.unseen(id(1));
        book.unseen(id(2));
        book.switched(switch(50, 2));
        book.checked(ms(60), &[id(1)].into());
        let verdict = book.verdict();
        assert_eq!(verdict.stale_reads, 1);
        assert!(!verdict.is_good());
    }

    #[test]
    fn old_writes_are_settled_but_losses_and_the_newest_stay() {
        let mut book = book(UNSETTLED_MIN as u64 + 10);
        book.checked(ms(1_000_000), &[id(3)].into());
        let settled = book.settle(ms(50));
        assert_eq!(settled, [id(0), id(1), id(2), id(4)]);
        assert_eq!(book.lost(), 1);
        assert_eq!(book.settle(ms(1_000_000)).len(), 5, "the newest stay");
    }

    #[test]
    fn a_full_book_says_so() {
        let mut book = book(ENTRIES_MAX as u64 - 1);
        assert!(!book.is_full());
        book.acknowledged(id(ENTRIES_MAX as u64), ms(0));
        assert!(book.is_full());
    }
}
