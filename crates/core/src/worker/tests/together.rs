//! What survives a switch, of sessions whose replies wait for a proof.
use super::durable::{WAIT, durable};
use super::sessions::{NOSCRIPT, SHA};
use super::*;

#[test]
fn a_pop_with_a_question_behind_it_is_still_asked_again() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("BLPOP l 5|");
    r.answers(up, &format!("{UNBLOCKED}*1|$5|slave|"));
    assert_eq!(r.hears(c), "");
    r.pass(500);
    r.grant();
    let up = r.up();
    assert!(r.asked(up).starts_with("*3|$5|BLPOP|$1|l|$5|4.4"));
    r.answers(up, "*2|$1|l|$1|x|");
    assert_eq!(r.hears(c), "*2|$1|l|$1|x|");
}

#[test]
fn what_a_pop_got_after_a_sign_waits_for_its_proof() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("BLPOP l 5|");
    r.answers(up, &format!("*2|$1|l|$1|x|{}", master_at(100)));
    assert_eq!(r.hears(c), "");
    r.keep(100);
    assert_eq!(r.hears(c), "*2|$1|l|$1|x|");
}

#[test]
fn no_replica_serves_a_read_behind_a_write_that_is_not_acknowledged() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("SET a 1|");
    r.answers(up, &format!("+OK|{}", master_at(100)));
    r.loses(up);
    r.holds_with_replica();
    let n = r.opened.len();
    r.says(c, "GET a|");
    assert_eq!((r.opened.len(), r.hears(c)), (n, String::new()));
    // Once it is known to be kept, the read is as any other.
    r.keep(100);
    let replica = r.up_replica();
    assert_eq!((r.hears(c), r.asked(replica)), ("+OK|".into(), requests("GET a")));
}

#[test]
fn nor_behind_a_durable_write_that_waits_for_replicas() {
    let mut r = durable();
    let (c, up) = r.waits();
    r.answers(up, "+OK|");
    r.holds_with_replica();
    let n = r.opened.len();
    r.says(c, "GET a|");
    let other = r.durable_client();
    assert_eq!((r.opened.len(), r.hears(c)), (n, String::new()));
    // A session that has written nothing may read there, and write nothing.
    r.says(other, "GET a|SET a 2|");
    let replica = r.up_replica();
    assert_eq!(r.asked(replica), requests("GET a"));
    r.answers(up, ":2|");
    assert_eq!((r.hears(c), r.asked(replica)), ("+OK|".into(), requests("GET a")));
}

/// A client whose writes are durable, and that has shown a script to the master before this one.
fn on_a_master_without_its_script() -> (Rig, ClientId) {
    let mut r = durable();
    let c = r.durable_client();
    r.w.read(r.now, Dst::Client(c), &wire("*3|$4|EVAL|$8|return 1|$1|0|"));
    r.effects();
    let up = r.up();
    r.turn(up);
    r.answers(up, ":1|:2|");
    r.hears(c);
    r.grant();
    (r, c)
}

#[test]
fn a_script_that_is_shown_again_waits_for_replicas() {
    let (mut r, c) = on_a_master_without_its_script();
    r.says(c, &format!("EVALSHA {SHA} 0|"));
    let up = r.up();
    assert!(r.turn(up).ends_with(WAIT));
    r.answers(up, NOSCRIPT);
    assert_eq!(r.turn(up), "*3|$4|EVAL|$8|return 1|$1|0|");
    // This was the answer to what went before it.
    r.answers(up, ":2|");
    assert_eq!(r.turn(up), WAIT);
    r.answers(up, ":1|");
    assert_eq!(r.hears(c), "");
    r.answers(up, ":2|");
    assert_eq!(r.hears(c), ":1|");
}

#[test]
fn a_durable_write_behind_an_unknown_script_keeps_its_proof() {
    let (mut r, c) = on_a_master_without_its_script();
    r.says(c, &format!("EVALSHA {SHA} 0|SET a 1|"));
    let up = r.up();
    assert!(r.turn(up).ends_with(WAIT));
    r.answers(up, &format!("{NOSCRIPT}+OK|:2|"));
    assert_eq!(r.hears(c), format!("{NOSCRIPT}+OK|"));
}

#[test]
fn the_question_for_the_newest_entry_goes_out_while_only_writes_wait() {
    let mut r = Rig::new(|_| {});
    r.grant();
    r.hold(false);
    let c = r.client();
    r.says(c, "XREAD BLOCK 0 STREAMS s $|");
    let up = r.up();
    assert_eq!(r.asked(up), requests("XREVRANGE s + - COUNT 1|XREAD BLOCK 0 STREAMS s $"));
}

#[test]
fn a_durable_subscriber_is_subscribed_again_without_a_wait() {
    let mut r = durable();
    let c = r.durable_client();
    r.says(c, "SUBSCRIBE news|");
    let up = r.up();
    r.asked(up);
    r.answers(up, &confirmed("subscribe", "news", 1));
    r.hears(c);
    r.grant();
    let up = r.up();
    assert_eq!(r.turn(up), requests("SUBSCRIBE news"));
    r.answers(up, &confirmed("subscribe", "news", 1));
    assert_eq!((r.turn(up), r.hears(c)), (String::new(), String::new()));
    r.says(c, "UNSUBSCRIBE|");
    assert_eq!(r.turn(up), requests("UNSUBSCRIBE"));
    r.answers(up, &confirmed("unsubscribe", "news", 0));
    r.hears(c);
    r.says(c, "SET a 1|");
    let up = r.up();
    assert_eq!(r.turn(up), [requests("SET a 1"), WAIT.into()].concat());
}

#[test]
fn a_subscriber_is_told_of_its_write_before_it_is_subscribed_again() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.resp3();
    r.says(c, "SUBSCRIBE ch|SET a 1|");
    let up = r.up_resp3();
    r.asked(up);
    r.answers(up, ">3|$9|subscribe|$2|ch|:1|");
    r.hears(c);
    r.hold(true);
    assert_eq!(r.asked(up), ROLE);
    r.answers(up, &format!("+OK|{}", master_at(100)));
    r.loses(up);
    assert_eq!(r.hears(c), "");
    // Reads go on; what was written is not known to be kept yet.
    r.view.reads = Gate::Open;
    r.prove();
    let n = r.opened.len();
    r.keep(100);
    assert_eq!((r.hears(c), r.opened.len()), ("+OK|".into(), n + 1));
    let up = r.up_resp3();
    assert_eq!(r.asked(up), requests("SUBSCRIBE ch"));
}
