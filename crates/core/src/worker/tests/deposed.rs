//! Writes that a master has not answered when it is deposed.
use super::*;
use crate::topology::snapshot::Deposed;

/// A client whose command is under way when another node is granted.
fn deposed(says: &str) -> (Rig, ClientId, UpId) {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way(says);
    r.depose();
    (r, c, up)
}

impl Rig {
    fn uncertain(&self) -> u64 {
        self.w.counters()[0].1.uncertain
    }
}

#[test]
fn a_write_that_a_deposed_master_refuses_is_sent_to_the_new_one() {
    let (mut r, c, up) = deposed("SET a 1|");
    assert_eq!((r.hears(c), r.closed.contains(&Dst::Up(up))), (String::new(), false));
    assert_eq!(r.only_read, [up]);
    r.pass(299);
    r.answers(up, READONLY);
    let new = r.up();
    assert_eq!((r.hears(c), r.asked(new)), (String::new(), requests("SET a 1")));
    assert!(r.closed.contains(&Dst::Up(up)));
    r.answers(new, "+OK|");
    assert_eq!((r.hears(c), &r.signs[..], r.uncertain()), ("+OK|".into(), &[][..], 0));
}

#[test]
fn so_is_one_whose_master_is_known_to_be_a_replica_already_or_not_replaced_yet() {
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("SET a 1|");
    r.view.deposed = r.view.master.take().map(|at| Deposed { at, to_be_told: false });
    r.publish();
    r.pass(100);
    r.answers(up, READONLY);
    assert_eq!(r.hears(c), "");
    r.switch_to("n");
    let new = r.up();
    assert_eq!((r.asked(new), r.uncertain()), (requests("SET a 1"), 0));
}

#[test]
fn what_it_does_not_refuse_is_uncertain() {
    for answer in ["+OK|", "-ERR something|", "-NOREPLICAS Not enough good replicas to write.|"] {
        let (mut r, c, up) = deposed("SET a 1|");
        r.answers(up, answer);
        assert!(r.hears(c).starts_with("-UNCERTAIN the connection"), "{answer}");
        assert!(r.closed.contains(&Dst::Up(up)));
        r.says(c, "SET a 2|");
        let new = r.up();
        assert_eq!((r.asked(new), r.uncertain()), (requests("SET a 2"), 1));
    }
}

#[test]
fn a_refusal_is_waited_for_no_longer_than_a_moment() {
    let (mut r, c, up) = deposed("SET a 1|");
    r.pass(299);
    assert_eq!(r.hears(c), "");
    r.pass(1);
    assert!(r.hears(c).starts_with("-UNCERTAIN") && r.closed.contains(&Dst::Up(up)));

    // And shorter when it does not answer any more.
    let (mut r, c, up) = deposed("SET a 1|");
    r.pass(150);
    r.view.deposed = None;
    r.publish();
    r.pass(99);
    assert_eq!(r.hears(c), "");
    r.pass(1);
    assert!(r.hears(c).starts_with("-UNCERTAIN") && r.closed.contains(&Dst::Up(up)));
}

#[test]
fn what_was_sent_to_a_deposed_master_must_have_reached_it_soon() {
    let (mut r, c, up) = deposed("SET a 1|");
    r.pass(59);
    assert_eq!(r.arrived, []);
    r.pass(1);
    assert_eq!(r.arrived, [up]);
    // Some of it has not.
    r.loses(up);
    assert!(r.hears(c).starts_with("-UNCERTAIN"));

    // Who answers has got it.
    let (mut r, _, up) = deposed("SET a 1|");
    r.answers(up, READONLY);
    r.pass(60);
    assert_eq!(r.arrived, []);
}

#[test]
fn nothing_is_waited_for_that_cannot_come() {
    // It does not answer when the next one is granted.
    let mut r = Rig::new(|_| {});
    let (c, up) = r.under_way("SET a 1|");
    r.switch_to("n");
    assert!(r.hears(c).starts_with("-UNCERTAIN") && r.closed.contains(&Dst::Up(up)));
    // Its refusal would prove nothing, or not all.
    for says in ["EVAL x 0|", "WAIT 1 0|", "MULTI|SET a 1|", "GET a|"] {
        let mut r = Rig::new(|_| {});
        r.grant();
        let c = r.client();
        r.says(c, says);
        let up = r.up();
        r.asked(up);
        r.depose();
        assert!(r.closed.contains(&Dst::Up(up)), "{says}");
    }
    // It is lost.
    let (mut r, c, up) = deposed("SET a 1|");
    r.loses(up);
    assert!(r.hears(c).starts_with("-UNCERTAIN"));
    assert_eq!(r.signs, [], "it says nothing of the new one");
}

#[test]
fn those_who_wait_for_no_word_of_a_deposed_master_go_on_at_once() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (a, b, other) = (r.client(), r.client(), r.client());
    r.says(a, "SET a 1|");
    let up = r.up();
    r.says(b, "GET b|");
    r.says(other, "EVAL x 0|");
    r.says(other, "GET o|");
    r.says(a, "GET a|");
    r.asked(up);
    r.depose();
    let new = r.up();
    assert_eq!(r.asked(new), requests("GET b"));
    r.answers(new, "$1|2|");
    assert_eq!((r.hears(b), r.hears(a), r.hears(other)), ("$1|2|".into(), String::new(), String::new()));
    r.says(b, "SET b 3|");
    assert_eq!(r.asked(new), requests("SET b 3"));
    // What it reads there may be old.
    r.answers(up, &format!("{READONLY}$1|x|{READONLY}$1|0|$1|0|"));
    assert!(r.hears(other).starts_with("-UNCERTAIN"), "what a script says proves nothing");
    assert_eq!((r.hears(a), r.asked(new)), (String::new(), requests("GET o|SET a 1|GET a")));
    r.answers(new, "+OK|$1|2|+OK|$1|1|");
    assert_eq!((r.hears(b), r.hears(a), r.hears(other)), ("+OK|".into(), "+OK|$1|1|".into(), "$1|2|".into()));
}

#[test]
fn a_session_keeps_its_order() {
    let (mut r, c, up) = deposed("SET a 1|GET a|SET b 2|");
    r.says(c, "SET a 3|");
    assert_eq!(r.asked(up), "");
    r.answers(up, &format!("{READONLY}$1|0|"));
    assert_eq!(r.hears(c), "");
    r.answers(up, READONLY);
    let new = r.up();
    assert_eq!(r.asked(new), requests("SET a 1|GET a|SET b 2|SET a 3"));

    // A later write may have been executed: then the one before it is not sent again.
    let (mut r, c, up) = deposed("SET a 1|SET a 2|");
    r.answers(up, &format!("{READONLY}+OK|"));
    let heard = r.hears(c);
    assert!(heard.starts_with(READONLY) && heard[READONLY.len()..].starts_with("-UNCERTAIN"), "{heard}");
}

#[test]
fn a_transaction_that_a_deposed_master_discards_is_not_uncertain() {
    const DISCARDED: &str = "-EXECABORT Transaction discarded because of previous errors.|";
    const LOST: &str = "-EXECABORT Transaction discarded because the connection";
    for (said, answers, heard) in [
        ("+OK|", format!("{READONLY}{DISCARDED}"), LOST),
        ("", format!("+OK|{READONLY}{DISCARDED}"), LOST),
        ("+OK|+QUEUED|", DISCARDED.into(), LOST),
        ("+OK|+QUEUED|", "*1|+OK|".into(), "-UNCERTAIN the connection"),
    ] {
        let mut r = Rig::new(|_| {});
        r.grant();
        let c = r.client();
        r.says(c, "MULTI|SET a 1|EXEC|");
        let up = r.up();
        r.asked(up);
        r.answers(up, said);
        assert_eq!(r.hears(c), said);
        r.depose();
        r.says(c, "SET b 1|");
        r.answers(up, &answers);
        let last = r.hears(c);
        let all = format!("{said}{last}");
        assert!(all.starts_with("+OK|+QUEUED|") && all["+OK|+QUEUED|".len()..].starts_with(heard), "{all}");
        let new = r.up();
        assert_eq!(r.asked(new), requests("SET b 1"));
        assert_eq!(r.uncertain(), u64::from(heard.starts_with("-UNC")));
    }
}

#[test]
fn who_caches_forgets_before_it_waits_for_a_deposed_master_and_is_tracked_again_before_it_goes_on() {
    const FLUSH: &str = ">2|$10|invalidate|_|";
    for (says, refusal) in [("SET a 1", READONLY), ("BLPOP l 0", UNBLOCKED)] {
        let mut r = Rig::new(|_| {});
        r.grant();
        let c = r.resp3();
        r.says(c, "CLIENT TRACKING ON|");
        let up = r.up_resp3();
        r.asked(up);
        r.answers(up, "+OK|");
        r.hears(c);
        r.says(c, &format!("{says}|"));
        r.asked(up);
        r.depose();
        // Of what changes at the new master it hears nothing.
        assert_eq!((r.hears(c), &r.only_read[..]), (FLUSH.into(), &[up][..]), "{says}");
        let push = ">2|$10|invalidate|*1|$1|k|";
        r.answers(up, push);
        assert_eq!(r.hears(c), push);
        r.answers(up, refusal);
        let new = r.up_resp3();
        assert_eq!(r.asked(new), requests(&format!("CLIENT TRACKING ON|{says}")));
        r.hears(c);
        r.answers(new, "+OK|+done|");
        assert_eq!(r.hears(c), format!("{FLUSH}+done|"));
        assert_eq!((r.uncertain(), r.w.counters()[0].1.clients_cut), (0, 0));
    }
}

#[test]
fn what_was_not_sent_to_a_deposed_master_is_taken_back() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (a, b) = (r.client(), r.client());
    r.says(a, "SET a 1|");
    let up = r.up();
    r.asked(up);
    r.says(a, "SET a 2|");
    r.says(b, "SET b 1|");
    r.depose();
    assert_eq!(r.asked(up), "");
    let new = r.up();
    assert_eq!(r.asked(new), requests("SET b 1"));
    r.answers(up, READONLY);
    assert_eq!(r.asked(new), requests("SET a 1|SET a 2"));
}

#[test]
fn a_connection_on_which_a_request_was_sent_in_part_is_closed() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "SET a 1|");
    let up = r.up();
    let n = r.w.gather(r.now, Dst::Up(up)).len();
    r.w.wrote(r.now, Dst::Up(up), n - 1);
    r.depose();
    assert!(r.closed.contains(&Dst::Up(up)));
    let new = r.up();
    assert_eq!((r.hears(c), r.asked(new)), (String::new(), requests("SET a 1")));
}

#[test]
fn nobody_waits_for_a_client_that_leaves() {
    let (mut r, c, up) = deposed("SET a 1|");
    r.w.gone(r.now, Dst::Client(c));
    r.effects();
    r.answers(up, READONLY);
    r.pass(300);
    assert!(r.closed.contains(&Dst::Up(up)));
    assert_eq!((r.opened.len(), r.w.upstreams(), r.uncertain()), (1, 0, 0));
}
