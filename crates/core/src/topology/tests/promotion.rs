//! A promotion that is believed before a majority names the node.
use super::*;

fn vote(leader: u16, epoch: u64) -> Option<Vote> {
    Some(Vote { leader: format!("id{leader}").into(), epoch })
}

fn voted(leader: u16, epoch: u64) -> Seen {
    let vote = vote(leader, epoch);
    Seen::Announced(Announced { event: "+vote-for-leader".into(), stage: None, selected: None, vote })
}

fn selected(node: u16) -> Seen {
    let selected = Some(at(node));
    Seen::Announced(Announced {
        event: "+selected-slave".into(),
        stage: Some(Stage::Acts),
        selected,
        vote: None,
    })
}

impl Bench {
    pub(super) fn ordered(&mut self, port: u16, node: u16, epoch: u64) {
        self.sentinel(
            port,
            Seen::View(View {
                epoch,
                master: at(node),
                stage: Stage::Acts,
                forced: true,
                coordinated: false,
                quorum: 2,
                others: 2,
                down_after: 1000 * MS,
                failover_timeout: 10_000 * MS,
                pong_age: 100 * MS,
                ping_age: Duration::ZERO,
                linked: true,
            }),
        );
    }

    /// Node 12 says that it was promoted, and Sentinels 1 and 3 that they know of nothing.
    fn promoted(&mut self) {
        self.names(1, 11, 5);
        self.names(3, 11, 5);
        self.node(12, master("r12", lineage("B", Some("A"))));
    }
}

/// Node 11 is master of two replicas; the Sentinels have ids; Sentinel 2 is ordered to fail over to node 12.
fn ordered() -> Bench {
    let mut b = calm();
    let two = [12, 13].map(|n| Listed { at: at(n), selected: false });
    b.sentinel(1, Seen::Replicas(Vec::from(two)));
    (1..=3).for_each(|s| b.sentinel(s, Seen::Id(format!("id{s}").into())));
    b.node(13, replica("r13", 11, "A"));
    b.ordered(2, 11, 5);
    b.sentinel(2, selected(12));
    assert!(!b.view().writes.is_open());
    b
}

/// As [`ordered`], and granted.
fn promoted() -> Bench {
    let mut b = ordered();
    b.promoted();
    b.ordered(2, 11, 5);
    b.promoted();
    assert!(b.serves(12), "{}", b.view().why);
    b
}

/// Lets time pass while all answer, Sentinel 2 as given.
fn promoted_for(b: &mut Bench, d: Duration, second: impl Fn(&mut Bench)) {
    b.pass_with(d, |b| {
        second(b);
        b.node(11, master("r11", lineage("A", None)));
        b.promoted();
    });
}

#[test]
fn an_ordered_promotion_is_granted_before_a_majority_names_it_and_confirmed_by_one() {
    let mut b = promoted();
    assert_eq!(b.view().term, Term(2));
    assert!(b.stories(EventKind::Fence)[0].contains("127.0.0.1:11 is fenced"));
    let grant = &b.stories(EventKind::Grant)[0];
    assert!(grant.contains("provisionally") && grant.contains("ordered to fail over"), "{grant}");
    assert!(b.view().why.contains("provisionally"), "{}", b.view().why);
    // The old master says master for long; the leader and then the others name the new one.
    promoted_for(&mut b, 900 * MS, |b| b.ordered(2, 11, 5));
    b.flags(2, 12, 9, Stage::Promoted);
    assert!(b.serves(12), "{}", b.view().why);
    b.names(3, 12, 9);
    assert!(b.stories(EventKind::Note).iter().any(|s| s.contains("no longer provisional")));
    assert!(b.serves(12) && !b.view().why.contains("provisionally"), "{}", b.view().why);
    assert_eq!((b.view().term, b.t.status().epoch), (Term(2), Some(9)));
    assert_eq!(b.stories(EventKind::Hold).len(), 1);
}

#[test]
fn an_elected_leader_needs_the_votes_of_a_majority_by_events_or_by_its_own_list() {
    let acts = |b: &mut Bench| {
        b.flags(2, 11, 5, Stage::Acts);
        b.promoted();
    };
    let listed = |vote| Peer { vote, ..peer(3) };
    let elected: [&dyn Fn(&mut Bench); 2] =
        [&|b| b.sentinel(1, voted(2, 6)), &|b| b.sentinel(2, Seen::Peers(Vec::from([listed(vote(2, 6))])))];
    for votes in elected {
        let mut b = ordered();
        (0..3).for_each(|_| acts(&mut b));
        assert_eq!(b.view().master, end(11), "nobody has voted");
        b.sentinel(3, voted(2, 5));
        acts(&mut b);
        assert_eq!(b.view().master, end(11), "a vote for an epoch that is past counts for nothing");
        votes(&mut b);
        acts(&mut b);
        acts(&mut b);
        assert!(b.serves(12), "{}", b.view().why);
        assert!(b.view().why.contains("elected for epoch 6 by 2 of 3"), "{}", b.view().why);
    }
    // A later vote for another leader: whom it will promote is not known.
    let mut b = ordered();
    b.sentinel(1, voted(2, 6));
    b.sentinel(3, voted(3, 7));
    (0..3).for_each(|_| acts(&mut b));
    assert_eq!(b.view().master, end(11));
    // Who voted for another in the same epoch was outvoted.
    let mut b = ordered();
    b.sentinel(1, voted(2, 6));
    b.sentinel(3, voted(3, 6));
    (0..3).for_each(|_| acts(&mut b));
    assert!(b.serves(12), "{}", b.view().why);
    // What another Sentinel says of a vote is not the voter's word, nor that of the one who asked for it.
    let mut b = ordered();
    b.sentinel(1, Seen::Peers(Vec::from([listed(vote(2, 6))])));
    (0..3).for_each(|_| acts(&mut b));
    assert_eq!(b.view().master, end(11));
}

#[test]
fn a_leader_that_has_the_master_hand_over_must_have_seen_the_promotion_for_it_cuts_clients_then() {
    let coordinates = |stage| View { epoch: 5, stage, coordinated: true, ..seen_view(11) };
    let mut b = ordered();
    [1, 3].into_iter().for_each(|s| b.sentinel(s, voted(2, 6)));
    for _ in 0..3 {
        b.sentinel(2, Seen::View(coordinates(Stage::Acts)));
        b.promoted();
    }
    assert_eq!(b.view().master, end(11), "{}", b.view().why);
    let seen = View { epoch: 6, master: at(12), ..coordinates(Stage::Promoted) };
    for _ in 0..2 {
        b.sentinel(2, Seen::View(seen.clone()));
        b.promoted();
    }
    assert!(b.serves(12), "{}", b.view().why);
}

#[test]
fn a_promotion_is_no_proof_if_anything_is_missing() {
    let orders = |b: &mut Bench| b.ordered(2, 11, 5);
    let none: &dyn Fn(&mut Bench) = &|_| {};
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Bench), &'a dyn Fn(&mut Bench));
    let cases: [Case<'_>; 8] = [
        ("another history", none, &|b| b.node(12, master("r12", lineage("B", Some("X"))))),
        ("no history", none, &|b| b.node(12, master("r12", None))),
        ("another node was selected", &|b| b.sentinel(2, selected(13)), none),
        ("a Sentinel names another node", &|b| b.names(3, 13, 6), &|b| b.names(3, 13, 6)),
        ("no majority in sight", none, &|b| {
            b.sentinel(1, Seen::Gone(Gone::Timeout));
            b.sentinel(3, Seen::Gone(Gone::Timeout));
        }),
        ("a second leader", &|b| b.ordered(3, 11, 5), &|b| b.ordered(3, 11, 5)),
        ("a sibling", none, &|b| b.node(13, master("r13", lineage("C", Some("A"))))),
        ("it was a replica of another", &|b| b.node(12, replica("r12", 13, "A")), none),
    ];
    for (what, before, after) in cases {
        let mut b = ordered();
        before(&mut b);
        for _ in 0..4 {
            // The fourth of them is about a Sentinel that must not have answered otherwise.
            if !what.contains("Sentinel") && !what.contains("sight") && !what.contains("leader") {
                b.promoted();
            } else {
                b.node(12, master("r12", lineage("B", Some("A"))));
            }
            after(&mut b);
            orders(&mut b);
            assert!(!b.view().writes.is_open(), "{what}: {}", b.view().why);
        }
    }
    // Only a majority is trusted.
    let mut b = ordered();
    b.t.reconfigure(b.now, Settings { trust: Trust::Majority, ..settings(sentinels(3)) });
    promoted_for(&mut b, 1000 * MS, orders);
    assert_eq!(b.view().master, end(11));
    assert!(!b.view().writes.is_open());
}

#[test]
fn a_promotion_that_nobody_names_in_time_is_held() {
    let mut b = promoted();
    promoted_for(&mut b, 9_900 * MS, |b| b.ordered(2, 11, 5));
    assert!(b.serves(12), "{}", b.view().why);
    promoted_for(&mut b, 200 * MS, |b| b.ordered(2, 11, 5));
    assert!(!b.view().writes.is_open() && b.view().why.contains("out of time"), "{}", b.view().why);
    b.names(1, 12, 6);
    b.names(2, 12, 6);
    b.node(12, master("r12", lineage("B", Some("A"))));
    b.names(1, 12, 6);
    b.names(2, 12, 6);
    b.node(12, master("r12", lineage("B", Some("A"))));
    assert!(b.serves(12) && b.view().term == Term(2), "{}", b.view().why);
}

#[test]
fn a_leader_that_dies_or_gives_up_after_its_promotion_holds_until_a_majority_names_a_node() {
    let ends: [&dyn Fn(&mut Bench); 2] =
        [&|b| b.sentinel(2, Seen::Gone(Gone::Refused)), &|b| b.names(2, 11, 5)];
    for end_of_leader in ends {
        let mut b = promoted();
        promoted_for(&mut b, 1000 * MS, end_of_leader);
        assert!(!b.view().writes.is_open(), "{}", b.view().why);
        assert_eq!(b.view().master, end(12), "nothing goes back to the old one meanwhile");
        // The others elect again, and choose another node.
        let other = |b: &mut Bench| {
            b.names(1, 13, 7);
            b.names(3, 13, 7);
            b.node(13, master("r13", lineage("C", Some("A"))));
        };
        (0..3).for_each(|_| other(&mut b));
        assert!(b.serves(13) && b.view().term == Term(3), "{}", b.view().why);
    }
}

#[test]
fn a_leader_that_was_away_after_its_promotion_is_believed_again_when_it_shows_that_it_goes_on() {
    let mut b = promoted();
    b.sentinel(2, Seen::Gone(Gone::Timeout));
    // A process that was stopped is in TILT: it says what it said before.
    promoted_for(&mut b, 600 * MS, |b| b.ordered(2, 11, 5));
    assert!(!b.view().writes.is_open() && b.view().why.contains("was away"), "{}", b.view().why);
    promoted_for(&mut b, 200 * MS, |b| b.flags(2, 12, 9, Stage::Promoted));
    assert!(b.serves(12) && b.view().term == Term(2), "{}", b.view().why);
}

#[test]
fn a_leader_that_stands_still_after_its_promotion_holds_until_it_or_a_majority_goes_on() {
    let tilt = |event: &str| {
        Seen::Announced(Announced { event: event.into(), stage: None, selected: None, vote: None })
    };
    let mut b = promoted();
    b.sentinel(2, tilt("+tilt"));
    b.ordered(2, 11, 5);
    assert!(!b.view().writes.is_open() && b.view().why.contains("TILT"), "{}", b.view().why);
    let sentinels = b.t.status().sentinels;
    assert!(sentinels[1].problem.as_ref().is_some_and(|p| p.contains("TILT")), "{sentinels:?}");
    b.sentinel(2, tilt("-tilt"));
    b.ordered(2, 11, 5);
    b.promoted();
    assert!(b.serves(12), "{}", b.view().why);
    b.sentinel(2, Seen::Tilt(true));
    b.ordered(2, 11, 5);
    assert!(!b.view().writes.is_open());
    // Another was elected; the one that stands still hears of it as all do.
    (1..=3).for_each(|s| b.names(s, 12, 9));
    b.node(12, master("r12", lineage("B", Some("A"))));
    assert!(b.serves(12), "{}", b.view().why);
}

#[test]
fn the_promotion_by_a_leader_that_stands_still_is_no_proof() {
    let mut b = ordered();
    b.sentinel(2, Seen::Tilt(true));
    b.promoted();
    b.ordered(2, 11, 5);
    b.promoted();
    assert!(!b.serves(12), "{}", b.view().why);
}

#[test]
fn a_promoted_node_that_turns_replica_again_loses_its_grant_and_the_old_master_has_to_be_proven() {
    let mut b = promoted();
    b.node(12, replica("r12", 11, "A"));
    assert!(!b.view().writes.is_open());
    assert_eq!(b.view().master, None);
    b.pass_with(300 * MS, |b| {
        b.node(13, replica("r13", 11, "A"));
        ready(b);
    });
    assert!(b.serves(11) && b.view().term == Term(3), "{}", b.view().why);
    assert_eq!(b.t.status().epoch, Some(5));
}

#[test]
fn a_promoted_node_that_is_away_gives_way_to_the_old_master_when_its_leader_has_given_up() {
    let mut b = promoted();
    let away = |b: &mut Bench| {
        b.node(12, Seen::Gone(Gone::Timeout));
        b.node(13, replica("r13", 11, "A"));
        b.all_name(11, 5);
        b.node(11, master("r11", lineage("A", None)));
    };
    b.pass_with(1800 * MS, away);
    assert_eq!(b.view().master, end(12), "it may yet be named");
    b.pass_with(3000 * MS, away);
    assert!(b.serves(11) && b.view().term == Term(3), "{}", b.view().why);
}

#[test]
fn a_selected_node_is_asked_every_20_ms_until_it_is_granted_and_for_10_s_at_most() {
    let asked = |b: &mut Bench, d: Duration| {
        b.acts.clear();
        let end = b.now + d;
        while b.t.next_timeout().is_some_and(|t| t < end) {
            b.now = b.now.max(b.t.next_timeout().unwrap());
            b.t.timeout(b.now);
            b.drain();
        }
        b.now = end;
        b.acts.iter().filter(|a| **a == Act::Ask(Target::node(at(12)))).count()
    };
    let mut b = ordered();
    let n = asked(&mut b, 200 * MS);
    assert!((9..=12).contains(&n), "{n} questions in 200 ms");
    b.pass(10_000 * MS);
    assert!(asked(&mut b, 200 * MS) <= 2);
    let mut b = promoted();
    assert_eq!(asked(&mut b, 200 * MS), 0);
}

#[test]
fn workers_are_told_how_far_the_selected_node_has_followed_and_then_how_far_it_had() {
    let mut b = ordered();
    assert_eq!(b.view().kept, Some(Kept { term: Term(1), offset: 90 }));
    b.node(12, replica("r12", 11, "other"));
    assert_eq!(b.view().kept, None, "it follows another history");
    b.node(12, replica("r12", 11, "A"));
    let until = Lineage { second_offset: 101, ..lineage("B", Some("A")).unwrap() };
    let promoted = |b: &mut Bench| {
        b.names(1, 11, 5);
        b.names(3, 11, 5);
        b.node(12, master("r12", Some(until.clone())));
    };
    promoted(&mut b);
    b.ordered(2, 11, 5);
    promoted(&mut b);
    assert!(b.serves(12), "{}", b.view().why);
    assert_eq!(b.view().kept, Some(Kept { term: Term(1), offset: 100 }));
}
