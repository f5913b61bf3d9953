//! Pops that wait on a master that is deposed.
use super::*;
use crate::topology::snapshot::Kept;

impl Rig {
    /// A client was closed without a word, and so was its connection.
    fn is_cut(&mut self, c: ClientId, up: UpId) {
        assert_eq!(self.hears(c), "");
        assert!(self.is_closed(c) && self.closed.contains(&Dst::Up(up)));
        assert_eq!(self.w.counters()[0].1.uncertain, 0);
    }
}

/// Clients whose pops are lost are closed.
fn closing(policy: &mut Policy) {
    policy.close_lost_pops = true;
}

/// A client that waits for something to pop when another node is granted.
fn deposed() -> (Rig, ClientId, UpId) {
    let mut r = Rig::new(|p| {
        closing(p);
        p.upstream_idle = Duration::from_secs(100);
    });
    r.view.hold_max = Duration::from_secs(3);
    let (c, up) = r.under_way("BLPOP l 5|");
    r.depose();
    (r, c, up)
}

#[test]
fn a_pop_that_waits_on_a_deposed_master_is_asked_of_the_new_one_when_the_old_one_is_demoted() {
    let (mut r, c, up) = deposed();
    assert_eq!((r.hears(c), r.closed.contains(&Dst::Up(up))), (String::new(), false));
    assert_eq!(r.only_read, [up]);
    r.pass(998);
    r.answers(up, UNBLOCKED);
    let new = r.up();
    assert_eq!((r.hears(c), r.asked(new)), (String::new(), requests("BLPOP l 4.001")));
    assert!(r.closed.contains(&Dst::Up(up)));
    r.answers(new, "*2|$1|l|$1|x|");
    assert_eq!((r.hears(c), &r.signs[..]), ("*2|$1|l|$1|x|".into(), &[][..]));
    assert_eq!(r.w.counters()[0].1.uncertain, 0);
}

#[test]
fn so_is_one_for_which_nothing_came_there_in_its_time() {
    for nothing in ["*-1|", "$-1|", "_|"] {
        let (mut r, c, up) = deposed();
        r.pass(2_000);
        r.answers(up, nothing);
        let new = r.up();
        assert_eq!((r.hears(c), r.asked(new)), (String::new(), requests("BLPOP l 2.999")));
    }
}

#[test]
fn what_was_popped_from_a_deposed_master_is_not_shown() {
    for answer in ["*2|$1|l|$1|x|", "-ERR something|", "+nonsense|"] {
        let (mut r, c, up) = deposed();
        r.answers(up, answer);
        r.is_cut(c, up);
    }
}

#[test]
fn nor_is_a_long_answer_while_it_arrives() {
    let mut r = Rig::new(closing);
    r.grant();
    let c = r.client();
    r.says(c, "BLMOVE a b LEFT LEFT 5|");
    let up = r.up();
    r.asked(up);
    r.depose();
    r.answers(up, &format!("$100000|{}", "x".repeat(90_000)));
    assert_eq!(r.hears(c), "");
    r.answers(up, &format!("{}|", "x".repeat(10_000)));
    r.is_cut(c, up);
}

#[test]
fn nothing_more_is_sent_on_the_connection_of_a_pop_that_waits_on_a_deposed_master() {
    let (mut r, c, up) = deposed();
    r.says(c, "SET a 1|");
    assert_eq!(r.asked(up), "");
    r.pass(1_000);
    r.answers(up, UNBLOCKED);
    let new = r.up();
    assert_eq!(r.asked(new), requests("BLPOP l 3.999|SET a 1"));
}

#[test]
fn a_demotion_is_not_waited_for_for_ever_nor_past_the_next_switch() {
    let (mut r, c, up) = deposed();
    r.pass(2_999);
    assert_eq!(r.hears(c), "");
    r.pass(1);
    r.is_cut(c, up);

    // The next switch changes nothing, unless it makes the same node master: its pops are its new term's.
    let (mut r, c, up) = deposed();
    r.pass(2_000);
    r.switch_to("o");
    assert_eq!(r.hears(c), "");
    r.switch_to("m");
    r.is_cut(c, up);
}

#[test]
fn a_deposed_master_that_is_lost_closes_the_clients_of_its_pops() {
    let (mut r, c, up) = deposed();
    r.loses(up);
    assert!(r.is_closed(c));
    assert_eq!(r.signs, [], "it says nothing of the new one");
}

#[test]
fn a_client_that_leaves_waits_for_no_demotion() {
    let (mut r, c, up) = deposed();
    r.w.eof(r.now, Dst::Client(c));
    r.effects();
    assert!(r.closed.contains(&Dst::Up(up)));
    assert_eq!(r.w.clients(), 0);
}

#[test]
fn what_was_said_behind_a_pop_that_a_demotion_ends_was_not_executed_either() {
    for deposed in [true, false] {
        let mut r = Rig::new(closing);
        let (c, up) = r.under_way("BLPOP l 5|SET a 1|");
        if deposed {
            r.depose();
        }
        r.answers(up, UNBLOCKED);
        assert!(r.closed.contains(&Dst::Up(up)));
        if !deposed {
            assert_eq!(r.signs, [SignKind::Unblocked]);
            r.switch_to("n");
        }
        let new = r.up();
        let again = r.asked(new);
        assert!(again.starts_with("*3|$5|BLPOP|$1|l|$") && again.ends_with(&requests("SET a 1")), "{again}");
        assert_eq!(r.hears(c), "");
    }
}

#[test]
fn a_client_whose_pop_was_lost_is_told_so_and_stays_if_nothing_else_is_said() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "BLPOP l 5|");
    let up = r.up();
    r.asked(up);
    r.loses(up);
    assert!(r.hears(c).starts_with("-UNCERTAIN the connection") && !r.is_closed(c));
    assert_eq!(r.w.counters()[0].1.uncertain, 1);
}

#[test]
fn a_client_whose_pop_was_lost_with_its_connection_is_closed_and_what_it_said_behind_it_is_lost_too() {
    for says in ["BLPOP l 5|", "BLPOP l 5|SET a 1|GET a|", "XREADGROUP GROUP g c BLOCK 0 STREAMS s >|"] {
        let mut r = Rig::new(closing);
        r.grant();
        let (c, other) = (r.client(), r.client());
        r.says(c, says);
        let up = r.up();
        r.says(other, "SET a 1|");
        let lane = r.up();
        r.asked(up);
        r.asked(lane);
        r.loses(up);
        r.loses(lane);
        assert!(r.is_closed(c) && !r.is_closed(other), "{says}");
        assert!(r.hears(other).starts_with("-UNCERTAIN the connection"));
        let counters = &r.w.counters()[0].1;
        assert_eq!((counters.clients_cut, counters.uncertain), (1, 1), "{says}");
    }
}

#[test]
fn one_that_has_not_read_all_its_replies_is_given_them_before() {
    let mut r = Rig::new(closing);
    r.grant();
    let c = r.client();
    r.says(c, "BLPOP l 5|BLPOP l 5|");
    let up = r.up();
    r.asked(up);
    r.answers(up, "*2|$1|l|$1|x|");
    r.asked(up);
    r.loses(up);
    assert!(!r.is_closed(c));
    assert_eq!(r.hears(c), "*2|$1|l|$1|x|");
    assert!(r.is_closed(c));
}

#[test]
fn so_is_a_client_of_whose_pop_it_is_not_known_whether_the_successor_has_it() {
    for (kept, cut) in [(100, false), (99, true)] {
        let mut r = Rig::new(closing);
        let (c, up) = r.under_way("BLPOP l 5|");
        r.answers(up, &format!("*2|$1|l|$1|x|{}", master_at(100)));
        r.view.kept = Some(Kept { term: r.view.term, offset: kept });
        r.switch_to("n");
        assert_eq!((r.hears(c).is_empty(), r.is_closed(c)), (cut, cut));
        assert_eq!(r.w.counters()[0].1.uncertain, 0);
    }
}

#[test]
fn nobody_waits_for_what_a_master_says_that_nobody_will_demote() {
    // It does not answer when the next one is granted.
    let mut r = Rig::new(closing);
    let (c, up) = r.under_way("BLPOP l 5|");
    r.switch_to("n");
    r.pass(99);
    assert_eq!(r.hears(c), "");
    r.pass(1);
    r.is_cut(c, up);

    // Later it does not answer any more, or has been demoted.
    let (mut r, c, up) = deposed();
    r.pass(500);
    r.view.deposed = None;
    r.publish();
    r.pass(99);
    assert_eq!(r.hears(c), "", "its last words may be on their way");
    r.pass(1);
    r.is_cut(c, up);
}

#[test]
fn what_a_demoted_master_has_said_of_a_pop_counts_although_its_role_was_seen_first() {
    let mut r = Rig::new(closing);
    let (c, up) = r.under_way("BLPOP l 5|");
    r.view.master = None;
    r.publish();
    r.answers(up, UNBLOCKED);
    assert_eq!(r.hears(c), "");
    r.switch_to("n");
    let new = r.up();
    assert!(r.asked(new).starts_with("*3|$5|BLPOP|$1|l|$5|4.9"));
}
