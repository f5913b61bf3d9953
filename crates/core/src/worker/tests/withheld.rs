//! Replies that are withheld at a sign.
use super::*;
use crate::topology::snapshot::Kept;

const SET: &str = "*3|$3|SET|$1|a|$1|1|";
const UNCERTAIN: &str = "-UNCERTAIN the command was executed while the master was changing";

#[test]
fn a_reply_after_a_sign_is_shown_when_the_successor_has_its_write() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("SET a 1|");
    r.answers(up, "+OK|");
    assert_eq!(r.hears(c), "");
    r.answers(up, &master_at(100));
    r.keep(99);
    assert_eq!(r.hears(c), "");
    r.keep(100);
    assert_eq!(r.hears(c), "+OK|");
}

#[test]
fn what_the_successor_has_may_be_known_before_where_the_write_ends() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("SET a 1|");
    r.keep(100);
    r.answers(up, "+OK|");
    assert_eq!(r.hears(c), "");
    r.answers(up, &master_at(100));
    assert_eq!(r.hears(c), "+OK|");
}

#[test]
fn what_a_later_terms_successor_has_proves_nothing() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("SET a 1|");
    r.answers(up, &format!("+OK|{}", master_at(100)));
    r.view.kept = Some(Kept { term: Term(r.view.term.0 + 1), offset: 500 });
    r.publish();
    assert_eq!(r.hears(c), "");
    r.grant();
    assert!(r.hears(c).starts_with(UNCERTAIN));
}

#[test]
fn the_grant_itself_tells_what_the_successor_has() {
    for (has, heard) in [(100, "+OK|"), (99, UNCERTAIN)] {
        let mut r = Rig::new(|_| {});
        let (c, up) = r.under_way("SET a 1|");
        r.answers(up, &format!("+OK|{}", master_at(100)));
        r.view.kept = Some(Kept { term: r.view.term, offset: has });
        r.grant();
        assert!(r.hears(c).starts_with(heard));
        assert_eq!(r.w.counters()[0].1.uncertain, u64::from(has < 100));
    }
}

#[test]
fn the_same_master_proven_again_has_all_its_writes() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("SET a 1|");
    r.answers(up, "+OK|");
    r.release();
    assert_eq!(r.hears(c), "+OK|");
    r.answers(up, &master_at(100));
    r.says(c, "SET a 1|");
    assert_eq!(r.asked(up), SET);
    r.answers(up, "+OK|");
    assert_eq!(r.hears(c), "+OK|");
}

#[test]
fn an_older_offset_proves_only_what_came_before_it() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("SET a 1|");
    r.release();
    r.says(c, "SET a 1|");
    assert_eq!(r.asked(up), SET);
    r.hold(true);
    assert_eq!(r.asked(up), ROLE);
    // The answers to all four come at once, behind the second sign.
    r.answers(up, &format!("+1|{}+2|{}", master_at(100), master_at(200)));
    r.keep(150);
    assert_eq!(r.hears(c), "+1|");
    r.keep(200);
    assert_eq!(r.hears(c), "+2|");
}

#[test]
fn a_hold_that_runs_out_ends_in_uncertainty() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("SET a 1|");
    r.answers(up, &format!("+OK|{}", master_at(100)));
    r.pass(1_000);
    assert!(r.hears(c).starts_with(UNCERTAIN));
}

#[test]
fn with_reads_that_go_on_it_ends_so_too() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (early, late) = (r.client(), r.client());
    r.says(early, "SET a 1|");
    let up = r.up();
    r.says(late, "SET a 1|");
    r.asked(up);
    r.hold(false);
    assert_eq!(r.asked(up), ROLE);
    r.answers(up, "+OK|");
    r.pass(1_000);
    assert!(r.hears(early).starts_with(UNCERTAIN));
    r.answers(up, "+OK|");
    assert!(r.hears(late).starts_with(UNCERTAIN));
}

#[test]
fn a_connection_that_is_lost_takes_its_proof_along_unless_it_was_told() {
    for told in [false, true] {
        let mut r = Rig::new(|_| {});
        let (c, up) = r.under_way("SET a 1|");
        r.answers(up, "+OK|");
        if told {
            r.answers(up, &master_at(100));
        }
        r.w.gone(r.now, Dst::Up(up));
        r.effects();
        assert_eq!(r.hears(c).starts_with(UNCERTAIN), !told);
        r.keep(100);
        assert_eq!(r.hears(c), if told { "+OK|" } else { "" });
    }
}

#[test]
fn a_node_that_is_no_master_any_longer_proves_nothing() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("SET a 1|");
    r.answers(up, "+OK|*5|$5|slave|$1|h|:1|$9|connected|:100|");
    r.keep(100);
    assert_eq!(r.hears(c), "");
    r.grant();
    assert!(r.hears(c).starts_with(UNCERTAIN));
}

#[test]
fn only_what_comes_behind_a_withheld_reply_waits_with_it() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (c, other) = (r.client(), r.client());
    r.says(c, "SET a 1|GET a|");
    let up = r.up();
    r.says(other, "GET a|");
    r.asked(up);
    r.hold(true);
    assert_eq!(r.asked(up), ROLE);
    r.answers(up, &format!("+OK|$1|1|$1|1|{}", master_at(100)));
    assert_eq!((r.hears(c), r.hears(other)), (String::new(), "$1|1|".into()));
    r.keep(100);
    assert_eq!(r.hears(c), "+OK|$1|1|");
}

#[test]
fn a_refused_write_needs_no_proof() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("INCR a|");
    r.answers(up, "-ERR value is not an integer or out of range|");
    assert_eq!(r.hears(c), "-ERR value is not an integer or out of range|");
}

#[test]
fn a_sign_that_the_worker_saw_withholds_too() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (c, other) = (r.client(), r.client());
    r.says(c, "SET a 1|");
    let up = r.up();
    r.says(other, "SET a 1|");
    r.asked(up);
    r.answers(up, READONLY);
    assert_eq!(r.asked(up), ROLE);
    r.answers(up, "+OK|");
    assert_eq!(r.hears(other), "");
    r.grant();
    assert!(r.hears(other).starts_with(UNCERTAIN));
}

#[test]
fn a_reply_after_the_lease_is_withheld_before_its_end_was_noticed() {
    let mut r = Rig::new(|_| {});
    r.grant();
    r.view.writes_until = Some(r.now + Duration::from_millis(5));
    r.publish();
    let c = r.client();
    r.says(c, "SET a 1|");
    let up = r.up();
    r.asked(up);
    r.now = r.now + Duration::from_millis(5);
    r.answers(up, "+OK|");
    assert_eq!(r.hears(c), "");
    r.view.writes_until = None;
    r.prove();
    assert_eq!(r.hears(c), "+OK|");
}

#[test]
fn nothing_is_asked_within_a_transaction() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "MULTI|SET a 1|");
    let up = r.up();
    r.asked(up);
    r.hold(true);
    assert_eq!(r.asked(up), "");
    r.answers(up, "+OK|+QUEUED|");
    assert_eq!(r.hears(c), "+OK|+QUEUED|");
    r.release();
    r.says(c, "EXEC|");
    assert_eq!(r.asked(up), "*1|$4|EXEC|");
    r.hold(true);
    assert_eq!(r.asked(up), ROLE);
    r.answers(up, &format!("*1|+OK|{}", master_at(100)));
    assert_eq!(r.hears(c), "");
    r.keep(100);
    assert_eq!(r.hears(c), "*1|+OK|");
}

#[test]
fn a_client_that_leaves_is_owed_nothing() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("SET a 1|");
    r.answers(up, "+OK|");
    r.w.gone(r.now, Dst::Client(c));
    r.answers(up, &master_at(100));
    r.keep(100);
    assert_eq!(r.w.clients(), 0);
}

#[test]
fn who_sends_no_more_is_closed_when_it_has_heard_what_was_withheld() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("SET a 1|");
    r.w.eof(r.now, Dst::Client(c));
    r.answers(up, &format!("+OK|{}", master_at(100)));
    assert!(!r.closed.contains(&Dst::Client(c)));
    r.keep(100);
    assert_eq!(r.hears(c), "+OK|");
    assert!(r.closed.contains(&Dst::Client(c)));
}

#[test]
fn what_was_taken_back_follows_what_was_withheld() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "SET a 1|");
    let up = r.up();
    r.asked(up);
    r.says(c, "SET a 1|SET a 1|");
    r.hold(true);
    assert_eq!(r.asked(up), ROLE);
    r.answers(up, &format!("+1|{}", master_at(100)));
    r.view.kept = Some(Kept { term: r.view.term, offset: 100 });
    r.grant();
    assert_eq!(r.hears(c), "+1|");
    let up = r.up();
    assert_eq!(r.asked(up), [SET, SET].concat());
    r.answers(up, "+2|+3|");
    assert_eq!(r.hears(c), "+2|+3|");
}
