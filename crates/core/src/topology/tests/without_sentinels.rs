//! The master by the nodes' roles, and by a static list.
use super::*;

fn roles(n: u16) -> Settings {
    settings(Source::Roles { nodes: (11..11 + n).map(at).collect(), start_wait: 3000 * MS })
}

#[test]
fn roles_grant_the_only_claimant_when_most_nodes_answer() {
    let mut b = Bench::new(roles(3));
    let two = |b: &mut Bench| {
        b.node(11, master("r11", lineage("A", None)));
        b.node(12, replica("r12", 11, "A"));
    };
    b.node(11, master("r11", lineage("A", None)));
    assert_eq!(b.view().master, None);
    b.pass_with(300 * MS, two);
    assert!(b.serves(11), "{}", b.view().why);
    // The master dies; the replica is promoted: lineage proves it although only one of three answers.
    b.node(11, Seen::Gone(Gone::Refused));
    b.node(13, Seen::Gone(Gone::Refused));
    assert!(!b.view().writes.is_open());
    for _ in 0..2 {
        b.node(12, master("r12", lineage("B", Some("A"))));
    }
    assert!(b.serves(12), "{}", b.view().why);
    // The old one wakes up with its old history: it is the predecessor.
    for _ in 0..3 {
        b.node(11, master("r11", lineage("A", None)));
        b.node(12, master("r12", lineage("B", Some("A"))));
    }
    assert!(b.serves(12), "{}", b.view().why);
    // A claimant without lineage: nobody can say who is right.
    b.node(13, master("r13", lineage("X", None)));
    assert!(!b.view().writes.is_open() && b.view().why.contains("none is proven"));
}

#[test]
fn at_start_a_node_that_was_not_heard_yet_is_waited_for_a_moment() {
    let two = |b: &mut Bench| {
        b.node(11, master("r11", lineage("A", None)));
        b.node(12, replica("r12", 11, "A"));
    };
    let mut b = Bench::new(roles(3));
    b.pass_with(100 * MS, two);
    assert!(b.view().master.is_none() && b.view().why.contains("may say so too"), "{}", b.view().why);
    b.node(13, master("r13", lineage("X", None)));
    assert!(b.view().master.is_none() && b.view().why.contains("none is proven"), "{}", b.view().why);

    let mut b = Bench::new(roles(3));
    b.pass_with(100 * MS, two);
    b.node(13, Seen::Gone(Gone::Refused));
    two(&mut b);
    assert!(b.serves(11), "one that refuses says nothing: {}", b.view().why);

    let mut b = Bench::new(roles(3));
    b.pass_with(300 * MS, two);
    assert!(b.serves(11), "one that is silent is not waited for any longer: {}", b.view().why);
}

#[test]
fn an_heir_of_an_old_dump_takes_no_place_from_a_master_that_is_ahead() {
    let mut b = Bench::new(roles(2));
    for _ in 0..3 {
        b.node(11, master("r11", lineage("A", None)));
        b.node(12, replica("r12", 11, "A"));
    }
    assert!(b.serves(11), "{}", b.view().why);
    // It followed the history of the master, which was proven at offset 100, to here.
    let heir = |second_offset| Some(Lineage { second_offset, ..lineage("B", Some("A")).expect("is one") });
    for _ in 0..3 {
        b.node(11, master("r11", lineage("A", None)));
        b.node(12, master("r12", heir(61)));
    }
    assert!(!b.view().writes.is_open() && b.view().why.contains("none is proven"), "{}", b.view().why);
    for _ in 0..3 {
        b.node(11, master("r11", lineage("A", None)));
        b.node(12, master("r12", heir(101)));
    }
    assert!(b.serves(12), "{}", b.view().why);
}

#[test]
fn roles_grant_a_single_claimant_after_the_start_wait_with_a_warning() {
    let mut b = Bench::new(roles(3));
    let one = |b: &mut Bench| b.node(11, master("r11", lineage("A", None)));
    b.pass_with(2500 * MS, one);
    assert_eq!(b.view().master, None);
    b.pass_with(1000 * MS, one);
    assert!(b.serves(11));
    assert_eq!(b.stories(EventKind::Warning).len(), 1);
}

fn listed(failback: Failback) -> Bench {
    let node = |port, backup| StaticNode { at: at(port), backup };
    let nodes = Vec::from([node(12, true), node(11, false)]);
    Bench::new(settings(Source::Static { nodes, rise: 2, fall: 3, failback }))
}

#[test]
fn a_static_list_serves_the_first_healthy_one_and_goes_back_as_configured() {
    for failback in [Failback::Never, Failback::Cut, Failback::Drain(300 * MS)] {
        let mut b = listed(failback);
        for _ in 0..3 {
            b.node(12, Seen::Pong(true));
        }
        assert_eq!(b.view().master, None, "the backup waits until the first one is known to be ill");
        for _ in 0..3 {
            b.node(11, Seen::Pong(true));
        }
        assert!(b.serves(11), "{}", b.view().why);
        for _ in 0..2 {
            b.node(11, Seen::Pong(false));
        }
        assert!(b.serves(11), "two failed checks are not three");
        b.node(11, Seen::Gone(Gone::Refused));
        b.node(12, Seen::Pong(true));
        assert!(b.serves(12) && b.view().term == Term(2), "{}", b.view().why);
        let both = |b: &mut Bench| {
            b.node(11, Seen::Pong(true));
            b.node(12, Seen::Pong(true));
        };
        both(&mut b);
        assert!(b.serves(12), "one good check is not two");
        both(&mut b);
        both(&mut b);
        match failback {
            Failback::Never => b.pass_with(1000 * MS, both),
            Failback::Cut => {}
            Failback::Drain(_) => {
                assert!(!b.view().writes.is_open() && b.view().master == end(12), "drains");
                b.pass_with(400 * MS, both);
            }
        }
        let expected = if failback == Failback::Never { (12, Term(2)) } else { (11, Term(3)) };
        assert!(b.serves(expected.0) && b.view().term == expected.1, "{failback:?}: {}", b.view().why);
    }
}
