//! Whom the Sentinels' majority names.
use super::*;

#[test]
fn nothing_is_granted_before_a_majority_and_the_node_itself_agree() {
    let mut b = Bench::new(settings(sentinels(3)));
    assert_eq!(b.view().master, None);
    b.names(1, 11, 5);
    b.node(11, master("r11", lineage("A", None)));
    b.sentinel(3, Seen::Gone(Gone::Refused));
    b.node(11, master("r11", lineage("A", None)));
    assert_eq!(b.view().master, None, "one of three is no majority");
    b.names(2, 11, 5);
    assert_eq!(b.view().master, None, "the node's ROLE must be asked after the last doubt");
    assert!(b.asked(&Target::node(at(11))));
    b.node(11, replica("r11", 12, "A"));
    b.all_name(11, 5);
    assert_eq!(b.view().master, None, "its ROLE disagrees");
    b.node(11, master("r11", lineage("A", None)));
    b.names(1, 11, 5);
    b.names(2, 11, 5);
    b.node(11, master("r11", lineage("A", None)));
    assert!(b.serves(11));
    assert_eq!(b.view().term, Term(1));
    assert!(b.stories(EventKind::Grant)[0].contains("of 3 Sentinels name 127.0.0.1:11 at config epoch 5"));
}

#[test]
fn a_node_that_loads_is_not_granted() {
    let mut b = Bench::new(settings(sentinels(3)));
    let loads = || {
        let Seen::Report(mut r) = master("r11", None) else { unreachable!() };
        r.loading = true;
        Seen::Report(r)
    };
    b.all_name(11, 5);
    b.node(11, loads());
    b.all_name(11, 5);
    b.node(11, loads());
    assert_eq!(b.view().master, None);
    assert!(b.view().why.contains("loads"));
}

#[test]
fn a_switch_is_followed_when_the_majority_names_the_new_master_and_the_old_one_is_never_granted_again() {
    let mut b = calm();
    b.flags(2, 11, 5, Stage::Acts);
    assert!(!b.view().writes.is_open(), "held at the first sign");
    b.node(12, master("r12", lineage("B", Some("A"))));
    b.node(11, master("r11", lineage("A", None)));
    b.flags(2, 12, 6, Stage::Promoted);
    assert_eq!(b.view().master, end(11), "one Sentinel is no majority");
    assert!(!b.view().writes.is_open());
    b.names(1, 12, 6);
    b.node(12, master("r12", lineage("B", Some("A"))));
    b.flags(2, 12, 6, Stage::Promoted);
    b.names(1, 12, 6);
    b.node(12, master("r12", lineage("B", Some("A"))));
    assert!(b.serves(12), "{}", b.view().why);
    assert_eq!(b.view().term, Term(2));
    assert!(b.stories(EventKind::Fence)[0].contains("not 127.0.0.1:11"));
    // The old master keeps saying master for seconds, and one Sentinel is behind.
    b.pass_with(11_000 * MS, |b| {
        b.node(11, master("r11", lineage("A", None)));
        b.node(12, master("r12", lineage("B", Some("A"))));
        b.names(1, 12, 6);
        b.names(2, 12, 6);
        b.names(3, 11, 5);
    });
    assert!(b.serves(12));
    assert!(b.published().iter().all(|v| v.term < Term(2) || v.master == end(12)));
}

#[test]
fn consecutive_switches_are_followed() {
    let mut b = calm();
    for (node, run, epoch, l) in [
        (12, "r12", 6, lineage("B", Some("A"))),
        (13, "r13", 7, lineage("C", Some("B"))),
        (11, "r11", 8, lineage("D", Some("C"))),
    ] {
        b.all_name(node, epoch);
        for _ in 0..2 {
            b.node(node, master(run, l.clone()));
            b.all_name(node, epoch);
        }
        b.node(node, master(run, l));
        assert!(b.serves(node), "{}", b.view().why);
    }
    assert_eq!(b.view().term, Term(4));
}

#[test]
fn one_sentinel_that_is_ahead_alone_is_overruled_when_its_node_says_replica() {
    let mut b = calm();
    b.names(3, 12, 999);
    assert!(!b.view().writes.is_open(), "held for a moment");
    let misled = |b: &mut Bench| {
        ready_but(b, 3);
        b.names(3, 12, 999);
    };
    b.pass_with(700 * MS, misled);
    assert!(b.serves(11), "{}", b.view().why);
    let said = "names 127.0.0.1:12 at config epoch 999, against the others";
    assert!(b.t.status().problems.iter().any(|p| p.contains(said)), "{:?}", b.t.status().problems);
    ready_but(&mut b, 9);
    b.names(3, 11, 5);
    assert!(b.t.status().problems.is_empty(), "{:?}", b.t.status().problems);
    // Also at a start: it does not keep the others from being believed.
    let mut b = Bench::new(settings(sentinels(3)));
    b.pass_with(900 * MS, misled);
    assert!(b.serves(11), "{}", b.view().why);
}

#[test]
fn two_nodes_at_one_epoch_are_decided_by_the_majority_and_without_one_held() {
    let mut b = calm();
    b.names(3, 12, 5);
    b.sentinel(2, Seen::Gone(Gone::Refused));
    b.pass_with(3000 * MS, |b| {
        b.names(1, 11, 5);
        b.names(3, 12, 5);
        b.node(11, master("r11", lineage("A", None)));
    });
    assert!(!b.view().writes.is_open(), "one against one");
    b.pass_with(1000 * MS, |b| {
        b.names(1, 12, 5);
        b.names(3, 12, 5);
        b.node(12, master("r12", lineage("B", Some("A"))));
    });
    assert!(b.serves(12), "{}", b.view().why);
    assert_eq!(b.view().term, Term(2));
}

/// A Sentinel that was overruled at the epoch of the others, and then all have died.
fn overruled() -> Bench {
    let mut b = calm();
    b.pass_with(700 * MS, |b| {
        ready_but(b, 3);
        b.names(3, 12, 5);
    });
    assert!(b.serves(11), "{}", b.view().why);
    b.pass_with(3000 * MS, all_dead);
    b
}

fn all_dead(b: &mut Bench) {
    (1..=3).for_each(|s| b.sentinel(s, Seen::Gone(Gone::Refused)));
    b.node(12, replica("r12", 11, "A"));
    b.node(11, master("r11", lineage("A", None)));
}

#[test]
fn one_that_was_overruled_at_its_epoch_holds_nothing_when_all_have_died() {
    let mut b = overruled();
    assert!(b.serves(11), "{}", b.view().why);
    assert_eq!(b.view().term, Term(1));
    // Nor when it is the only one that comes back, and says the same.
    b.pass_with(1000 * MS, |b| {
        all_dead(b);
        b.names(3, 12, 5);
    });
    assert!(b.serves(11), "{}", b.view().why);
}

#[test]
fn it_is_heard_again_when_it_says_something_else() {
    for (node, epoch) in [(13, 5), (12, 6)] {
        let mut b = overruled();
        b.pass_with(1000 * MS, |b| {
            all_dead(b);
            b.names(3, node, epoch);
        });
        assert!(!b.view().writes.is_open(), "{node} at {epoch}");
        b.pass_with(1000 * MS, all_dead);
        assert!(!b.view().writes.is_open(), "{node} at {epoch}, and it has died");
    }
}

#[test]
fn what_only_the_operator_can_clear_up_is_told_also_while_something_else_is_in_doubt() {
    let mut b = calm();
    b.flags(2, 11, 5, Stage::Acts);
    b.sentinel(2, Seen::Replicas(Vec::from([Listed { at: at(12), selected: true }])));
    b.all_name(11, 5);
    assert!(b.view().why.contains("gave up a failover"), "{}", b.view().why);
    // They are set up anew for another master; the one that was selected is never heard of again.
    let anew = |b: &mut Bench| {
        b.all_name(13, 1);
        b.node(11, master("r11", lineage("A", None)));
        b.node(13, master("new", lineage("Q", None)));
    };
    b.pass_with(9000 * MS, anew);
    let why = b.view().why.clone();
    assert!(why.contains("gave up a failover") && why.contains("pointsman trust"), "{why}");
    b.t.trust(b.now);
    b.pass_with(300 * MS, anew);
    assert!(b.serves(13), "{}", b.view().why);
}

#[test]
fn an_aborted_failover_gives_the_grant_back_when_the_nodes_agree() {
    let mut b = calm();
    b.flags(2, 11, 5, Stage::Acts);
    b.sentinel(2, Seen::Replicas(Vec::from([Listed { at: at(12), selected: true }])));
    b.all_name(11, 5);
    b.node(11, master("r11", lineage("A", None)));
    b.all_name(11, 5);
    b.node(11, master("r11", lineage("A", None)));
    assert!(!b.view().writes.is_open(), "the selected node has not spoken");
    assert!(b.view().why.contains("gave up a failover"), "{}", b.view().why);
    b.node(12, replica("r12", 11, "A"));
    b.all_name(11, 5);
    b.node(11, master("r11", lineage("A", None)));
    assert!(b.serves(11), "{}", b.view().why);
    assert_eq!(b.view().term, Term(1));
}

#[test]
fn an_older_view_does_not_win_but_a_new_era_that_continues_the_last_master_does() {
    let mut b = calm();
    let anew = |b: &mut Bench| {
        b.all_name(12, 1);
        b.node(11, Seen::Gone(Gone::Refused));
        b.node(12, master("r12", lineage("B", Some("A"))));
    };
    b.pass_with(3000 * MS, anew);
    assert_eq!(b.view().master, end(11), "old views cannot win");
    b.pass_with(4000 * MS, anew);
    assert!(b.serves(12), "{}", b.view().why);
    assert_eq!(b.stories(EventKind::Era).len(), 1);
    // Without lineage only the operator can say so.
    let mut b = calm();
    let unrelated = |b: &mut Bench| {
        b.all_name(12, 1);
        b.node(11, replica("r11", 12, "Q"));
        b.node(12, master("new", lineage("Q", None)));
    };
    b.pass_with(9000 * MS, unrelated);
    assert_eq!(b.view().master, None);
    assert!(b.view().why.contains("pointsman trust"));
    b.t.trust(b.now);
    b.pass_with(300 * MS, unrelated);
    assert!(b.serves(12), "{}", b.view().why);
}

#[test]
fn names_and_addresses_of_one_node_are_one_vote() {
    let mut b = Bench::new(settings(sentinels(3)));
    let name = HostPort { host: "redis-0".into(), port: 11 };
    let by_name = |b: &mut Bench, s: u16| {
        let view = View {
            epoch: 5,
            master: name.clone(),
            stage: Stage::Calm,
            forced: false,
            coordinated: false,
            quorum: 2,
            others: 2,
            down_after: MS,
            failover_timeout: MS,
            pong_age: MS,
            ping_age: Duration::ZERO,
            linked: true,
        };
        b.sentinel(s, Seen::View(view));
    };
    by_name(&mut b, 1);
    b.names(2, 11, 5);
    b.sentinel(3, Seen::Gone(Gone::Refused));
    b.seen(Target::node(name.clone()), Seen::Connected(at(11).literal().unwrap()));
    b.seen(Target::node(name.clone()), master("r11", None));
    by_name(&mut b, 1);
    b.names(2, 11, 5);
    b.seen(Target::node(name.clone()), master("r11", None));
    by_name(&mut b, 1);
    b.names(2, 11, 5);
    assert!(b.serves(11), "{}", b.view().why);
}

#[test]
fn who_answers_at_a_new_address_behind_the_masters_name_is_proven_anew() {
    let mut b = Bench::new(settings(sentinels(3)));
    let name = HostPort { host: "redis-0".into(), port: 11 };
    let at_name = Target::node(name.clone());
    let all = |b: &mut Bench, run: &str, id: &str| {
        (1..=3).for_each(|s| b.sentinel(s, Seen::View(View { master: name.clone(), ..seen_view(11) })));
        b.seen(at_name.clone(), master(run, lineage(id, None)));
    };
    (1..=3).for_each(|s| b.sentinel(s, Seen::View(View { master: name.clone(), ..seen_view(11) })));
    b.seen(at_name.clone(), Seen::Connected(at(11).literal().unwrap()));
    b.pass_with(200 * MS, |b| all(b, "r11", "A"));
    assert!(b.serves(11) && b.view().term == Term(1), "{}", b.view().why);
    // The name means another address now, and another process: nothing goes to the first one any more.
    b.seen(at_name.clone(), Seen::Gone(Gone::Closed));
    assert!(!b.view().writes.is_open());
    b.seen(at_name.clone(), Seen::Connected(at(12).literal().unwrap()));
    b.pass_with(200 * MS, |b| all(b, "r12", "A"));
    assert!(b.serves(12) && b.view().term == Term(2), "{:?}", b.view());
}
