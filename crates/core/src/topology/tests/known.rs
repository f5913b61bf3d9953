//! Which Sentinels are known, and so how many are a majority.
use super::*;

/// Its own word and the node's, a few times: whatever the machine asks for.
fn one_says(b: &mut Bench, sentinel: u16, others: u32) {
    for _ in 0..3 {
        b.counts(sentinel, 11, others);
        b.node(11, master("r11", lineage("A", None)));
    }
}

#[test]
fn sentinels_are_discovered_and_a_misled_one_cannot_add_a_crowd() {
    let peers = |ports: &[u16]| Seen::Peers(ports.iter().map(|p| peer(*p)).collect());
    let mut b = Bench::new(settings(sentinels(1)));
    b.sentinel(1, peers(&[2, 3]));
    assert!(b.acts.contains(&Act::Watch(Target::sentinel(at(2)))));
    b.names(1, 11, 5);
    b.node(11, master("r11", None));
    b.names(1, 11, 5);
    b.node(11, master("r11", None));
    assert_eq!(b.view().master, None, "one of three");
    assert_eq!(b.t.status().majority, 2);
    let mut b = calm();
    b.sentinel(1, peers(&[2, 3]));
    b.sentinel(2, peers(&[1, 3]));
    b.sentinel(3, peers(&[1, 2, 101, 102, 103, 104]));
    assert_eq!(b.t.status().majority, 2);
    assert_eq!(b.t.status().sentinels.iter().filter(|s| s.counted).count(), 3);
}

#[test]
fn a_lone_configured_sentinel_is_no_majority_of_those_that_it_counts() {
    // It is cut off from the others: it lists them as down.
    let down = |port, age| Peer { up: false, pong_age: age, ..peer(port) };
    let mut b = Bench::new(settings(sentinels(1)));
    b.sentinel(1, Seen::Peers(Vec::from([down(2, 3000 * MS), down(3, 3000 * MS)])));
    one_says(&mut b, 1, 2);
    assert_eq!((b.view().master, b.t.status().majority), (None, 2));
    assert!(b.acts.contains(&Act::Watch(Target::sentinel(at(2)))), "we may reach them");
    b.names(2, 11, 5);
    one_says(&mut b, 1, 2);
    assert!(b.serves(11), "{}", b.view().why);
    // Nobody has seen them up for ten minutes: they were taken away, and nobody reset it.
    let mut b = Bench::new(settings(sentinels(1)));
    b.sentinel(1, Seen::Peers(Vec::from([down(2, 600_000 * MS), down(3, 900_000 * MS)])));
    one_says(&mut b, 1, 2);
    assert!(b.serves(11), "{}", b.view().why);
    // It counts others, and may not or does not say who they are.
    let mut b = Bench::new(settings(sentinels(1)));
    one_says(&mut b, 1, 2);
    assert_eq!(b.view().master, None);
    assert!(b.view().why.contains("2 Sentinels must name a master"), "{}", b.view().why);
    b.sentinel(1, Seen::Peers(Vec::new()));
    one_says(&mut b, 1, 2);
    assert_eq!(b.view().master, None, "a list that leaves them out");
    one_says(&mut b, 1, 0);
    assert!(b.serves(11), "{}", b.view().why);
}

#[test]
fn a_sentinel_that_counts_a_crowd_stops_no_configured_majority() {
    for (configured, named) in [(2, 2), (3, 2), (3, 3)] {
        let mut b = Bench::new(settings(sentinels(configured)));
        for silent in named + 1..=configured {
            b.sentinel(silent, Seen::Gone(Gone::Refused));
        }
        b.sentinel(1, Seen::Peers((101..=120).map(peer).collect()));
        b.sentinel(2, Seen::Peers(Vec::from([peer(1)])));
        for _ in 0..3 {
            (2..=named).for_each(|s| b.counts(s, 11, u32::from(configured) - 1));
            b.counts(1, 11, 40);
            b.node(11, master("r11", lineage("A", None)));
        }
        assert!(b.serves(11), "{named} of {configured}: {}", b.view().why);
    }
}

#[test]
fn a_sentinel_that_nobody_has_seen_up_for_ten_minutes_is_no_longer_counted() {
    let mut b = Bench::new(settings(sentinels(2)));
    let down = Peer { up: false, pong_age: Duration::ZERO, ..peer(2) };
    b.sentinel(1, Seen::Peers(Vec::from([down, Peer { up: false, pong_age: 700_000 * MS, ..peer(3) }])));
    b.names(1, 11, 5);
    b.sentinel(2, Seen::Gone(Gone::Refused));
    let one = |b: &mut Bench| {
        b.names(1, 11, 5);
        b.node(11, master("r11", None));
    };
    b.pass_with(595_000 * MS, one);
    assert_eq!(b.view().master, None);
    b.pass_with(6_000 * MS, one);
    assert!(b.serves(11), "{}", b.view().why);
    assert!(b.stories(EventKind::Note).iter().any(|s| s.contains("no longer counted")));
    b.names(2, 11, 5);
    b.pass(2000 * MS);
    assert_eq!(b.t.status().majority, 2, "and is counted again when it answers");
}
