//! Holds that somebody wants, and deposed masters that are told.
use super::*;
use crate::topology::pause::{PAUSE_MAX, Pauser};
use crate::topology::snapshot::Deposed;

fn hold_until(v: &ShardView) -> Option<Now> {
    match v.writes {
        Gate::Hold { until, .. } => Some(until),
        _ => None,
    }
}

#[test]
fn a_pause_holds_everything_and_ends_by_itself() {
    let mut b = calm();
    b.t.reconfigure(b.now, Settings { hold_reads: false, ..settings(sentinels(3)) });
    b.drain();
    b.t.pause(b.now, Pauser::Operator, 2000 * MS).unwrap();
    b.drain();
    let begun = b.now;
    let v = b.view();
    assert!(!v.writes.is_open() && !v.reads.is_open() && v.term == Term(1) && v.master == end(11));
    // Should nobody open the gates, workers wait for as long as at any hold.
    assert_eq!(hold_until(&v), Some(begun + 2000 * MS + v.hold_max));
    assert!(v.why.contains("paused by an operator"));
    let status = b.t.status();
    assert_eq!((status.state, status.paused_until), (State::Holding, Some(begun + 2000 * MS)));
    assert_eq!(b.t.next_timeout().map(|t| t <= begun + 2000 * MS), Some(true));
    b.pass_with(1900 * MS, ready);
    assert!(!b.view().writes.is_open());
    b.pass_with(200 * MS, ready);
    assert!(b.serves(11) && b.t.status().paused_until.is_none());
    assert!(b.stories(EventKind::Release)[0].contains("its time is over"));
}

#[test]
fn a_pause_can_be_ended_and_lasts_no_longer_than_the_longest() {
    let mut b = calm();
    b.t.pause(b.now, Pauser::Operator, PAUSE_MAX * 2).unwrap();
    assert_eq!(b.t.status().paused_until, Some(b.now + PAUSE_MAX));
    assert!(b.t.pause(b.now, Pauser::Switchover, 10 * MS).is_err(), "one at a time");
    assert!(b.t.resume(b.now, Pauser::Switchover).is_err(), "it is not its own");
    b.pass_with(300 * MS, ready);
    assert!(b.t.resume(b.now, Pauser::Operator).unwrap() >= 300 * MS);
    b.drain();
    assert!(b.serves(11));
    assert!(b.t.resume(b.now, Pauser::Operator).is_err());
}

#[test]
fn a_pause_lets_reads_go_on_if_a_switchover_wants_it_and_reads_do_not_wait() {
    let mut b = calm();
    b.t.reconfigure(b.now, Settings { hold_reads: false, ..settings(sentinels(3)) });
    b.t.pause(b.now, Pauser::Switchover, 1000 * MS).unwrap();
    assert!(!b.view().writes.is_open() && b.view().reads.is_open());
    assert_eq!(b.t.status().paused_until, None, "it is no operator's");
}

#[test]
fn what_is_under_way_at_a_pause_is_answered_until_there_is_a_sign() {
    let mut b = calm();
    b.t.pause(b.now, Pauser::Switchover, 1000 * MS).unwrap();
    assert_eq!(b.view().kept, Some(Kept { term: Term(1), offset: u64::MAX }));
    b.t.resume(b.now, Pauser::Switchover).unwrap();
    assert_eq!(b.view().kept, None);
    b.t.pause(b.now, Pauser::Switchover, 1000 * MS).unwrap();
    b.node(11, Seen::Gone(Gone::Refused));
    assert_eq!(b.view().kept, None);
}

#[test]
fn a_master_that_is_lost_during_a_pause_is_followed_and_the_pause_goes_on() {
    let mut b = calm();
    b.t.pause(b.now, Pauser::Operator, 5000 * MS).unwrap();
    for _ in 0..3 {
        b.node(12, master("r12", lineage("B", Some("A"))));
        b.all_name(12, 6);
        b.pass(40 * MS);
    }
    assert_eq!((b.view().term, b.view().master.clone()), (Term(2), end(12)));
    assert!(!b.view().writes.is_open(), "it is paused still");
    b.t.resume(b.now, Pauser::Operator).unwrap();
    assert!(b.serves(12), "{}", b.view().why);
}

#[test]
fn a_hold_that_runs_out_during_a_pause_gives_errors_as_ever() {
    let mut b = Bench::new(Settings { hold_max: Some(500 * MS), ..settings(sentinels(3)) });
    b.t.pause(b.now, Pauser::Operator, 5000 * MS).unwrap();
    b.pass(600 * MS);
    assert_eq!(b.view().writes, Gate::Refuse, "there is no master");
}

/// The switch of `calm()` from 11 to 12, by a majority; 11 still says master.
fn switched() -> Bench {
    let mut b = calm();
    for _ in 0..3 {
        still_two(&mut b);
        b.pass(40 * MS);
    }
    assert!(b.serves(12), "{}", b.view().why);
    b
}

fn still_two(b: &mut Bench) {
    b.all_name(12, 6);
    b.node(12, master("r12", lineage("B", Some("A"))));
    b.node(11, master("r11", lineage("A", None)));
}

fn told(b: &Bench) -> usize {
    let demote = Act::Demote { node: at(11), to: at(12) };
    b.acts.iter().filter(|a| **a == demote).count()
}

#[test]
fn a_deposed_master_is_told_as_soon_as_a_majority_names_the_new_one() {
    let mut b = switched();
    assert_eq!(told(&b), 1);
    b.pass_with(4000 * MS, still_two);
    assert_eq!(told(&b), 1, "once at a time");
    // Its new role is seen before the errand has ended, and does not cut it short.
    b.node(11, replica("r11", 12, "B"));
    assert!(!b.acts.contains(&Act::Spare(at(11))));
    b.t.demoted(b.now, &at(11), Ok("it follows".into()));
    b.drain();
    b.node(11, replica("r11", 12, "B"));
    b.pass(40 * MS);
    assert_eq!(told(&b), 1);
    assert!(b.stories(EventKind::Note).iter().any(|n| n.contains("told by us")));
}

#[test]
fn workers_know_a_deposed_master_as_long_as_it_answers_and_whether_it_is_to_be_told() {
    let deposed = |to_be_told| end(11).map(|at| Deposed { at, to_be_told });
    let mut b = switched();
    assert_eq!(b.published().last().map(|v| v.deposed.clone()), Some(deposed(true)));
    b.node(11, replica("r11", 12, "B"));
    assert_eq!(b.published().last().map(|v| v.deposed.clone()), Some(deposed(false)), "it was told");

    let mut b = switched();
    b.pass_with(2000 * MS, |b| {
        b.all_name(12, 6);
        b.node(12, master("r12", lineage("B", Some("A"))));
    });
    assert_eq!(b.view().deposed, None, "it does not answer");

    let mut b = switched();
    b.t.demoted(b.now, &at(11), Err("NOPERM".into()));
    assert_eq!(b.view().deposed, deposed(false), "it cannot be told");

    let mut b = calm();
    assert_eq!(b.view().deposed, None);
    b.t.reconfigure(b.now, Settings { demote: false, ..settings(sentinels(3)) });
    for _ in 0..5 {
        still_two(&mut b);
        b.pass(40 * MS);
    }
    assert!(b.serves(12) && b.view().deposed == deposed(false), "nobody tells it");
}

#[test]
fn one_that_cannot_be_told_is_tried_thrice_and_left_to_the_sentinels() {
    let mut b = switched();
    for n in 1..=5 {
        assert_eq!(told(&b), n.min(3));
        b.t.demoted(b.now, &at(11), Err("NOPERM".into()));
        b.drain();
        b.pass_with(2500 * MS, still_two);
    }
    assert_eq!(b.stories(EventKind::Warning).len(), 3);
    assert!(b.stories(EventKind::Warning)[2].contains("left to the Sentinels"));
}

#[test]
fn nobody_is_told_on_a_provisional_grant_or_in_doubt_or_against_the_setting() {
    // A promotion that no majority names yet.
    let mut b = calm();
    b.flags(2, 11, 5, Stage::Acts);
    for _ in 0..5 {
        b.node(12, master("r12", lineage("B", Some("A"))));
        b.node(11, master("r11", lineage("A", None)));
        b.names(1, 12, 6);
        b.pass(40 * MS);
    }
    assert_eq!(told(&b), 0);
    // A Sentinel is failing over again.
    let mut b = calm();
    for _ in 0..5 {
        still_two(&mut b);
        b.flags(3, 12, 6, Stage::Acts);
        b.pass(40 * MS);
    }
    assert_eq!(told(&b), 0);
    let mut b = calm();
    b.t.reconfigure(b.now, Settings { demote: false, ..settings(sentinels(3)) });
    for _ in 0..5 {
        still_two(&mut b);
        b.pass(40 * MS);
    }
    assert!(b.serves(12) && told(&b) == 0);
}

#[test]
fn a_stranger_that_says_master_is_not_told() {
    let mut b = calm();
    b.sentinel(1, Seen::Replicas(Vec::from([Listed { at: at(13), selected: false }])));
    b.pass_with(1000 * MS, |b| {
        ready(b);
        b.node(13, master("r13", lineage("X", None)));
    });
    assert!(b.serves(11));
    assert!(!b.acts.iter().any(|a| matches!(a, Act::Demote { .. })));
}

#[test]
fn one_that_becomes_master_again_while_it_is_told_is_spared() {
    let mut b = switched();
    assert_eq!(told(&b), 1);
    b.acts.clear();
    b.all_name(11, 7);
    b.pass(40 * MS);
    assert!(b.acts.contains(&Act::Spare(at(11))));
}
