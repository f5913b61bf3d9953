//! When the gates close, for how long, and what opens them again.
use super::*;

#[test]
fn a_lone_objectively_down_holds_for_half_a_second_and_no_longer() {
    let mut b = calm();
    b.flags(3, 11, 5, Stage::Tries);
    assert!(!b.view().writes.is_open());
    let cut_off = |b: &mut Bench| {
        ready_but(b, 3);
        b.flags(3, 11, 5, Stage::Tries);
        b.node(11, master("r11", lineage("A", None)));
    };
    b.pass_with(400 * MS, cut_off);
    assert!(!b.view().writes.is_open());
    b.pass_with(300 * MS, cut_off);
    assert!(b.serves(11), "{}", b.view().why);
    b.published();
    b.pass_with(10_000 * MS, cut_off);
    assert!(b.serves(11));
    assert_eq!(b.news(), 0, "a sign that has lapsed changes nothing any more");
    assert_eq!(b.view().term, Term(1));
}

#[test]
fn objectively_down_by_a_majority_holds_until_it_is_resolved() {
    let mut b = calm();
    b.pass_with(3000 * MS, |b| {
        b.flags(1, 11, 5, Stage::Suspects);
        b.flags(2, 11, 5, Stage::Tries);
        b.names(3, 11, 5);
        b.node(11, master("r11", lineage("A", None)));
    });
    assert!(!b.view().writes.is_open());
    b.pass_with(200 * MS, ready);
    assert!(b.serves(11), "{}", b.view().why);
    assert_eq!(b.view().term, Term(1), "released to the same master");
}

#[test]
fn a_replica_that_was_promoted_holds_before_any_sentinel_says_so() {
    let mut b = calm();
    b.node(12, master("r12", lineage("B", Some("A"))));
    assert!(!b.view().writes.is_open());
    b.pass_with(1000 * MS, |b| {
        b.all_name(11, 5);
        b.node(11, master("r11", lineage("A", None)));
        b.node(12, master("r12", lineage("B", Some("A"))));
    });
    assert!(!b.view().writes.is_open());
}

#[test]
fn dead_sentinels_do_not_end_a_grant_and_silent_ones_hold_it() {
    let mut b = calm();
    (1..=3).for_each(|s| b.sentinel(s, Seen::Gone(Gone::Closed)));
    let alive = |b: &mut Bench| b.node(11, master("r11", lineage("A", None)));
    b.pass_with(20_000 * MS, |b| {
        (1..=3).for_each(|s| b.sentinel(s, Seen::Gone(Gone::Refused)));
        alive(b);
    });
    assert!(b.serves(11), "{}", b.view().why);
    let mut b = calm();
    for s in 1..=2 {
        b.sentinel(s, Seen::Gone(Gone::Timeout));
    }
    b.pass_with(2000 * MS, |b| {
        b.names(3, 11, 5);
        alive(b);
    });
    assert!(b.view().why.contains("out of sight"), "{}", b.view().why);
    assert!(!b.view().writes.is_open());
    b.pass_with(500 * MS, ready);
    assert!(b.serves(11), "{}", b.view().why);
}

#[test]
fn a_sign_on_a_healthy_master_is_answered_by_a_newer_proof_within_a_round_trip() {
    let mut b = calm();
    let at_sign = b.now;
    let sign =
        Sign { service: ServiceId(0), shard: ShardId(0), term: Term(1), at: at_sign, kind: SignKind::Broken };
    b.now = b.now + MS;
    b.t.sign(b.now, &sign);
    b.drain();
    assert!(b.asked(&Target::node(at(11))));
    assert_eq!(b.published().len(), 0, "others go on meanwhile");
    b.node(11, master("r11", lineage("A", None)));
    let views = b.published();
    assert_eq!(views.len(), 1);
    assert!(views[0].proven_at > at_sign && views[0].term == Term(1) && views[0].writes.is_open());
    // A node that says READONLY holds everybody until it has been asked.
    let sign = Sign { at: b.now, kind: SignKind::Readonly, ..sign };
    b.now = b.now + MS;
    b.t.sign(b.now, &sign);
    b.drain();
    assert!(!b.view().writes.is_open());
    b.node(11, replica("r11", 12, "B"));
    assert_eq!(b.view().master, None, "a demoted master is fenced");
    // Without an answer, all hold after a moment.
    let mut b = calm();
    b.t.sign(b.now, &Sign { at: b.now, kind: SignKind::Broken, ..sign });
    b.pass(25 * MS);
    assert!(!b.view().writes.is_open());
}

#[test]
fn a_master_that_restarted_gets_a_new_term_after_it_was_proven_again() {
    let mut b = calm();
    b.node(11, Seen::Gone(Gone::Closed));
    assert!(!b.view().writes.is_open());
    b.node(11, Seen::Connected(at(11).literal().unwrap()));
    b.pass_with(200 * MS, |b| {
        b.all_name(11, 5);
        b.node(11, master("other", lineage("Z", None)));
    });
    assert!(b.serves(11), "{}", b.view().why);
    assert_eq!(b.view().term, Term(2));
    assert!(b.stories(EventKind::Fence)[0].contains("restarted"));
    // The same process on a new connection keeps its term.
    b.node(11, Seen::Gone(Gone::Closed));
    b.node(11, Seen::Connected(at(11).literal().unwrap()));
    b.pass_with(200 * MS, |b| {
        b.all_name(11, 5);
        b.node(11, master("other", lineage("Z", None)));
    });
    assert!(b.serves(11));
    assert_eq!(b.view().term, Term(2));
}

#[test]
fn a_hold_runs_from_its_first_trouble_and_then_commands_are_refused_until_there_is_a_grant() {
    let mut b = calm();
    let began = b.now;
    b.node(11, Seen::Gone(Gone::Refused));
    b.pass_with(6000 * MS, |b| b.all_name(11, 5));
    let Gate::Hold { since, until } = b.view().writes else { panic!("{:?}", b.view().writes) };
    assert!(since.since(began) < 10 * MS && until == since + 11_000 * MS, "down-after + 10 s");
    b.pass_with(6000 * MS, |b| b.all_name(11, 5));
    assert_eq!(b.view().writes, Gate::Refuse);
    assert_eq!(b.t.status().state, State::Down);
    assert_eq!(b.stories(EventKind::Down).len(), 1);
    b.pass_with(200 * MS, ready);
    assert!(b.serves(11));
}

#[test]
fn reads_stay_open_only_while_the_master_itself_is_beyond_doubt() {
    let mut s = settings(sentinels(3));
    s.hold_reads = false;
    let mut b = Bench::new(s);
    b.sentinel(1, Seen::Replicas(Vec::from([Listed { at: at(12), selected: false }])));
    (0..3).for_each(|_| ready(&mut b));
    b.flags(2, 11, 5, Stage::Acts);
    assert!(b.view().reads.is_open() && !b.view().writes.is_open());
    b.node(12, master("r12", lineage("B", Some("A"))));
    assert!(!b.view().reads.is_open(), "its successor is there");
}

#[test]
fn an_announcement_raises_a_stage_and_only_an_answer_lowers_it() {
    let mut b = calm();
    let announced = |stage| {
        Seen::Announced(Announced { event: "+event".into(), stage: Some(stage), selected: None, vote: None })
    };
    b.sentinel(2, announced(Stage::Acts));
    assert!(!b.view().writes.is_open());
    let before = b.now;
    b.sentinel(2, announced(Stage::Suspects));
    b.pass_with(1000 * MS, |b| {
        ready_but(b, 2);
        let view = View {
            epoch: 5,
            master: at(11),
            stage: Stage::Calm,
            forced: false,
            coordinated: false,
            quorum: 2,
            others: 2,
            down_after: 1000 * MS,
            failover_timeout: 180_000 * MS,
            pong_age: MS,
            ping_age: Duration::ZERO,
            linked: true,
        };
        let o = Observation { from: Target::sentinel(at(2)), sent: before - 2 * MS, seen: Seen::View(view) };
        b.t.observe(b.now, o);
    });
    assert!(!b.view().writes.is_open(), "an answer to an older question takes nothing back");
    b.pass_with(300 * MS, ready);
    assert!(b.serves(11), "{}", b.view().why);
}

#[test]
fn reads_that_wait_go_to_the_replica_that_was_linked_and_has_most() {
    let mut s = settings(sentinels(3));
    s.replica_reads = true;
    let mut b = Bench::new(s);
    let listed = [12, 13].map(|port| Listed { at: at(port), selected: false });
    b.sentinel(1, Seen::Replicas(listed.into()));
    (0..3).for_each(|_| ready(&mut b));
    let of = |id, offset, link_up| {
        let role = Role::Replica { of: at(11), link_up };
        Report {
            role,
            loading: false,
            run_id: None,
            lineage: lineage(id, None),
            offset,
            attached: Vec::new(),
        }
    };
    b.node(12, Seen::Report(of("A", 90, true)));
    b.node(13, Seen::Report(of("A", 100, true)));
    assert_eq!(b.view().reads_from, None, "the master serves");
    b.flags(2, 11, 5, Stage::Acts);
    assert_eq!((b.view().reads.is_open(), b.view().reads_from.clone()), (false, end(13)));
    // As long as it is fit it stays, also when its link is down and another has more.
    b.node(12, Seen::Report(of("A", 200, true)));
    b.node(13, Seen::Report(of("A", 100, false)));
    assert_eq!(b.view().reads_from, end(13));
    b.node(13, Seen::Report(Report { loading: true, ..of("A", 100, true) }));
    assert_eq!(b.view().reads_from, end(12));
    // One of another history, or that is promoted, serves nobody.
    b.node(12, Seen::Report(of("X", 300, true)));
    assert_eq!(b.view().reads_from, None);
    b.node(12, master("r12", lineage("B", Some("A"))));
    assert_eq!(b.view().reads_from, None);
}

#[test]
fn a_replica_that_was_cut_off_long_before_the_hold_serves_no_reads() {
    let mut s = settings(sentinels(3));
    s.replica_reads = true;
    let mut b = Bench::new(s);
    b.sentinel(1, Seen::Replicas([Listed { at: at(12), selected: false }].into()));
    (0..3).for_each(|_| ready(&mut b));
    let cut_off = |b: &mut Bench| {
        b.all_name(11, 5);
        b.node(11, master("r11", lineage("A", None)));
        let role = Role::Replica { of: at(11), link_up: false };
        let lineage = lineage("A", None);
        b.node(
            12,
            Seen::Report(Report {
                role,
                loading: false,
                run_id: None,
                lineage,
                offset: 90,
                attached: Vec::new(),
            }),
        );
    };
    b.node(12, replica("r12", 11, "A"));
    b.pass_with(5_000 * MS, cut_off);
    b.flags(2, 11, 5, Stage::Acts);
    assert_eq!((b.view().reads.is_open(), b.view().reads_from.clone()), (false, None));
}
