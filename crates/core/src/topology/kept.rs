//! What of a term's writes is with the node that comes after its master: until it is promoted, as far as it says that
//! it has followed; then, as far as it had followed (`second_repl_offset`). Workers show the replies to writes that were
//! under way at a sign only if they are among these.
use super::machine::Topology;
use super::observation::{Lineage, Report, Role};
use super::snapshot::{Kept, Term};
use crate::Now;
use alloc::boxed::Box;

/// The replication streams of the present term's master and of the one before.
#[derive(Default)]
pub(super) struct Stream {
    term: Term,
    /// The `master_replid` that the present term's master writes; `None`: it was not told.
    replid: Option<Box<str>>,
    /// What the present master has of the term before.
    inherited: Option<Kept>,
}

impl Stream {
    /// The master of `term` is proven, and this is its history.
    pub(super) fn note(&mut self, term: Term, lineage: Option<&Lineage>) {
        let replid = lineage.map(|l| &l.replid);
        if (term, replid) == (self.term, self.replid.as_ref()) {
            return;
        }
        if term != self.term {
            let before = self.replid.take().zip(lineage);
            self.inherited =
                before.and_then(|(of, l)| Some(Kept { term: self.term, offset: followed(l, &of)? }));
        }
        (self.term, self.replid) = (term, replid.cloned());
    }
}

/// Up to which offset a master followed the history `of` before it was promoted.
fn followed(l: &Lineage, of: &str) -> Option<u64> {
    let end = u64::try_from(l.second_offset).ok()?.checked_sub(1);
    end.filter(|_| &*l.replid != of && l.replid2.as_deref() == Some(of))
}

/// How much of the history `of` a node has.
fn has(report: &Report, of: &str) -> Option<u64> {
    let lineage = report.lineage.as_ref()?;
    match report.role {
        Role::Master => followed(lineage, of),
        Role::Replica { .. } => (&*lineage.replid == of).then_some(report.offset),
    }
}

impl Topology {
    /// What is kept, whoever of the selected nodes is promoted. While a service only waits because somebody wants it to,
    /// nobody doubts its master: all of it.
    pub(super) fn kept(&self, now: Now) -> Option<Kept> {
        if self.grant.is_some() && self.held.is_none() && self.paused.is_some() {
            return Some(Kept { term: self.term, offset: u64::MAX });
        }
        let of = self.stream.replid.as_deref().filter(|_| self.grant.is_some() && self.held.is_some());
        let having = |of: &str| {
            let mut all = self.candidates(now).map(|at| {
                let told = self.nodes.map.get(at)?.told.as_ref()?;
                has(&told.report, of)
            });
            let first = all.next()??;
            all.try_fold(first, |least, next| Some(least.min(next?)))
        };
        let present = of.and_then(having).map(|offset| Kept { term: self.term, offset });
        present.or(self.stream.inherited)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::HostPort;
    use super::*;

    fn lineage(replid: &str, replid2: Option<&str>, second_offset: i64) -> Lineage {
        Lineage { replid: replid.into(), replid2: replid2.map(Into::into), second_offset }
    }

    #[test]
    fn who_was_promoted_has_what_came_before_its_second_offset() {
        let mut s = Stream::default();
        s.note(Term(1), Some(&lineage("a", None, -1)));
        assert_eq!(s.inherited, None);
        s.note(Term(2), Some(&lineage("b", Some("a"), 101)));
        assert_eq!(s.inherited, Some(Kept { term: Term(1), offset: 100 }));
        s.note(Term(2), Some(&lineage("b", Some("a"), 101)));
        assert_eq!(s.inherited, Some(Kept { term: Term(1), offset: 100 }));
    }

    #[test]
    fn of_another_history_or_of_none_nothing_is_known() {
        for (before, after) in [
            (Some(lineage("x", None, -1)), Some(lineage("b", Some("a"), 101))),
            (None, Some(lineage("b", Some("a"), 101))),
            (Some(lineage("a", None, -1)), Some(lineage("b", None, -1))),
            (Some(lineage("a", None, -1)), Some(lineage("b", Some("a"), 0))),
            (Some(lineage("a", None, -1)), None),
        ] {
            let mut s = Stream::default();
            s.note(Term(1), before.as_ref());
            s.note(Term(2), after.as_ref());
            assert_eq!(s.inherited, None, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_history_that_changes_within_a_term_is_followed() {
        let mut s = Stream::default();
        s.note(Term(1), Some(&lineage("a", None, -1)));
        s.note(Term(1), Some(&lineage("a2", None, -1)));
        s.note(Term(2), Some(&lineage("b", Some("a2"), 51)));
        assert_eq!(s.inherited, Some(Kept { term: Term(1), offset: 50 }));
    }

    #[test]
    fn a_replica_has_what_it_applied_of_the_same_history() {
        let of = HostPort { host: "10.0.0.1".into(), port: 6379 };
        let replica = |replid: &str| Report {
            attached: alloc::vec::Vec::new(),
            role: Role::Replica { of: of.clone(), link_up: true },
            loading: false,
            run_id: None,
            lineage: Some(lineage(replid, None, -1)),
            offset: 70,
        };
        assert_eq!((has(&replica("a"), "a"), has(&replica("b"), "a")), (Some(70), None));
        let promoted =
            Report { role: Role::Master, lineage: Some(lineage("b", Some("a"), 71)), ..replica("b") };
        assert_eq!((has(&promoted, "a"), has(&promoted, "b")), (Some(70), None));
    }
}
