//! When writes wait because no replica acknowledges them, and the three ways out.
use super::super::status::GuardState;
use super::*;

const OLD: Duration = Duration::from_secs(20);

pub(super) fn guarded(list: &[(u16, u64)], offset: u64) -> Seen {
    let Seen::Report(mut r) = master("r11", lineage("A", None)) else { unreachable!() };
    r.attached = list
        .iter()
        .map(|(port, acknowledged)| Attached { at: at(*port), acknowledged: *acknowledged })
        .collect();
    r.offset = offset;
    Seen::Report(r)
}

impl Bench {
    fn probed(&mut self, seen: Seen) {
        self.seen(Target::guard(at(11)), seen);
    }

    fn guard(&self) -> GuardState {
        self.t.status().guard.state
    }

    fn trips(&self) -> u64 {
        self.t.status().guard.trips
    }

    fn wants_probes(&mut self) -> Option<bool> {
        let told = self.acts.iter().rev().find_map(|a| match a {
            Act::Pace(t, pace) if *t == Target::guard(at(11)) => Some(*pace == Pace::Hurried),
            _ => None,
        });
        self.acts.clear();
        told
    }

    /// The Sentinels have had pongs of this age.
    fn pongs(&mut self, of: impl IntoIterator<Item = u16>, age: Duration) {
        for s in of {
            self.sees(s, 11, 5, Stage::Calm, age);
        }
    }
}

/// As `calm`, and node 12 has acknowledged; all pongs are old.
fn armed() -> Bench {
    armed_with(settings(sentinels(3)))
}

fn armed_with(s: Settings) -> Bench {
    let mut b = Bench::new(s);
    for _ in 0..2 {
        b.pongs(1..=3, OLD);
        b.sentinel(1, Seen::Replicas(Vec::from([Listed { at: at(12), selected: false }])));
        b.node(12, replica("r12", 11, "A"));
        b.node(11, guarded(&[(12, 90)], 100));
    }
    b.node(11, guarded(&[(12, 90)], 100));
    assert!(b.serves(11), "{:?}", b.view());
    assert_eq!(b.guard(), GuardState::Armed);
    b
}

/// It has held since just now: the trip is before every question that is sent from now on.
fn tripped() -> Bench {
    let mut b = armed();
    b.t.writes_flow(b.now);
    b.drain();
    b.acts.clear();
    b.probed(Seen::Acknowledged(false));
    assert!(!b.view().writes.is_open(), "{:?}", b.view());
    b
}

#[test]
fn it_is_armed_by_the_first_replica_that_has_acknowledged_and_asks_while_writes_flow() {
    let mut b = calm();
    assert_eq!(b.guard(), GuardState::Unarmed);
    b.probed(Seen::Acknowledged(false));
    assert!(b.serves(11), "nobody asked");
    b.node(11, guarded(&[(12, 0)], 100));
    b.pass(MS);
    assert_eq!(b.guard(), GuardState::Unarmed, "attached, but it has acknowledged nothing yet");
    b.node(11, guarded(&[(12, 90)], 100));
    b.pass(MS);
    assert_eq!(b.guard(), GuardState::Armed);
    assert!(b.acts.contains(&Act::Watch(Target::guard(at(11)))));
    assert_eq!(b.wants_probes(), None, "no write flows");
    b.t.writes_flow(b.now);
    b.drain();
    assert_eq!(b.wants_probes(), Some(true));
    b.pass_with(900 * MS, ready);
    assert_eq!(b.wants_probes(), None);
    b.pass_with(300 * MS, ready);
    assert_eq!(b.wants_probes(), Some(false), "they flow no longer");
}

#[test]
fn writes_wait_from_the_moment_that_none_acknowledges_until_one_does() {
    let mut b = armed();
    b.acts.clear();
    b.probed(Seen::Acknowledged(true));
    assert!(b.serves(11));
    b.probed(Seen::Acknowledged(false));
    assert!(!b.view().writes.is_open() && !b.view().reads.is_open());
    assert_eq!((b.guard(), b.trips()), (GuardState::Holding, 1));
    assert!(b.view().why.starts_with("no replica of 127.0.0.1:11 acknowledges"), "{}", b.view().why);
    assert_eq!(b.wants_probes(), Some(true), "also when no write flows: those that wait do not");
    b.pass_with(3000 * MS, |b| {
        b.pongs(1..=3, OLD);
        b.node(11, guarded(&[(12, 90)], 100));
        b.probed(Seen::Acknowledged(false));
    });
    assert!(!b.view().writes.is_open(), "{}", b.view().why);
    assert_eq!((b.view().term, b.trips()), (Term(1), 1));
    b.probed(Seen::Acknowledged(true));
    assert!(b.serves(11));
    assert_eq!((b.guard(), b.view().term), (GuardState::Armed, Term(1)));
}

#[test]
fn reads_go_on_where_the_configuration_says_so() {
    let mut b = armed_with(Settings { hold_reads: false, ..settings(sentinels(3)) });
    b.probed(Seen::Acknowledged(false));
    assert!(!b.view().writes.is_open() && b.view().reads.is_open());
}

/// Its master was killed and is back at once, as another process.
fn restarted() -> Bench {
    let mut b = armed();
    b.node(11, Seen::Gone(Gone::Closed));
    b.pass(100 * MS);
    b.node(11, restarted_master(&[]));
    b.pongs(1..=3, OLD);
    b.node(11, restarted_master(&[]));
    assert_eq!((b.view().term, b.view().master.is_some()), (Term(2), true), "{:?}", b.view());
    b
}

fn restarted_master(list: &[(u16, u64)]) -> Seen {
    let Seen::Report(mut r) = guarded(list, 100) else { unreachable!() };
    r.run_id = Some("r11 again".into());
    r.lineage = lineage("B", None);
    Seen::Report(r)
}

#[test]
fn a_master_that_was_restarted_waits_until_a_replica_acknowledges() {
    let mut b = restarted();
    assert_eq!(b.guard(), GuardState::Holding);
    assert!(!b.view().writes.is_open(), "{:?}", b.view());
    b.node(11, restarted_master(&[(12, 90)]));
    b.probed(Seen::Acknowledged(true));
    assert!(b.serves(11), "{:?}", b.view());
    assert_eq!((b.guard(), b.view().term), (GuardState::Armed, Term(2)));
}

#[test]
fn or_until_it_has_answered_the_sentinels_again() {
    let mut b = restarted();
    b.pass(100 * MS);
    b.pongs(1..=3, Duration::ZERO);
    b.node(11, restarted_master(&[]));
    assert!(b.serves(11), "{:?}", b.view());
    assert_eq!(b.guard(), GuardState::Disarmed);
}

#[test]
fn where_it_is_turned_off_it_does_nothing() {
    let mut b = calm();
    b.t.reconfigure(b.now, Settings { guard: None, ..settings(sentinels(3)) });
    b.drain();
    b.acts.clear();
    b.node(11, guarded(&[(12, 90)], 100));
    b.t.writes_flow(b.now);
    b.pass(MS);
    assert_eq!(b.guard(), GuardState::Off);
    assert!(!b.acts.iter().any(|a| matches!(a, Act::Watch(_) | Act::Pace(..))));
    b.probed(Seen::Acknowledged(false));
    assert!(b.serves(11));
}

#[test]
fn turning_it_off_ends_its_hold() {
    let mut b = tripped();
    b.t.reconfigure(b.now, Settings { guard: None, ..settings(sentinels(3)) });
    b.drain();
    b.pongs(1..=3, OLD);
    b.node(11, guarded(&[(12, 90)], 100));
    assert!(b.serves(11), "{}", b.view().why);
    assert!(b.acts.contains(&Act::Unwatch(Target::guard(at(11)))));
}

#[test]
fn the_hold_ends_when_the_master_has_no_replicas_and_all_other_nodes_refuse_connections() {
    let mut b = tripped();
    b.node(11, guarded(&[], 100));
    assert!(!b.view().writes.is_open(), "a cut can have closed its connections");
    b.node(12, Seen::Gone(Gone::Closed));
    b.node(11, guarded(&[], 100));
    assert!(!b.view().writes.is_open(), "so can a reset");
    b.node(12, Seen::Gone(Gone::Refused));
    b.node(11, guarded(&[], 100));
    assert!(b.serves(11), "{}", b.view().why);
    assert_eq!(b.guard(), GuardState::Unarmed);
    assert!(b.acts.contains(&Act::Unwatch(Target::guard(at(11)))));
    assert_eq!(b.trips(), 1);
    // The replica is back.
    b.node(12, replica("r12", 11, "A"));
    b.node(11, guarded(&[(12, 100)], 100));
    b.pass(MS);
    assert_eq!(b.guard(), GuardState::Armed);
}

#[test]
fn a_replica_that_refuses_us_and_is_still_the_masters_ends_no_hold() {
    let mut b = tripped();
    b.node(12, Seen::Gone(Gone::Refused));
    b.node(11, guarded(&[(12, 90)], 100));
    b.pass(MS);
    assert!(!b.view().writes.is_open(), "{}", b.view().why);
}

#[test]
fn what_was_acknowledged_before_the_silence_ends_no_hold_and_what_was_after_it_does() {
    let mut b = armed();
    b.pass(250 * MS);
    b.probed(Seen::Acknowledged(false));
    b.node(11, guarded(&[(12, 95)], 100));
    assert!(!b.view().writes.is_open(), "it came between the last report and the silence");
    b.node(11, guarded(&[(12, 95)], 100));
    assert!(!b.view().writes.is_open());
    b.node(11, guarded(&[(12, 100)], 100));
    b.pass(MS);
    assert!(b.serves(11), "{}", b.view().why);
}

#[test]
fn dead_replicas_do_not_end_the_hold_while_one_is_only_silent() {
    let mut b = tripped();
    b.sentinel(1, Seen::Replicas([12, 13].map(|n| Listed { at: at(n), selected: false }).into()));
    b.node(13, Seen::Gone(Gone::Timeout));
    b.node(12, Seen::Gone(Gone::Refused));
    b.node(11, guarded(&[], 100));
    b.node(11, guarded(&[], 100));
    assert!(!b.view().writes.is_open(), "{}", b.view().why);
}

#[test]
fn replicas_that_are_known_to_be_dead_when_the_probe_fails_cause_no_hold() {
    let mut b = armed();
    b.node(12, Seen::Gone(Gone::Closed));
    b.node(12, Seen::Gone(Gone::Refused));
    b.node(11, guarded(&[], 100));
    b.acts.clear();
    b.probed(Seen::Acknowledged(false));
    assert!(b.serves(11));
    assert_eq!((b.trips(), b.stories(EventKind::Hold).len()), (0, 0));
}

#[test]
fn the_hold_ends_when_so_many_sentinels_have_heard_the_master_since_that_nobody_can_be_promoted() {
    let mut b = tripped();
    b.pass(500 * MS);
    b.node(11, guarded(&[(12, 90)], 100));
    b.pongs(1..=3, 600 * MS);
    assert!(!b.view().writes.is_open(), "these pongs are older than the silence");
    b.pongs([1], 10 * MS);
    assert!(!b.view().writes.is_open(), "the other two could promote");
    b.pongs([2], 10 * MS);
    assert!(b.serves(11), "{}", b.view().why);
    assert_eq!((b.guard(), b.view().term), (GuardState::Disarmed, Term(1)));
    assert!(b.t.status().problems.iter().any(|p| p.starts_with("no replica acknowledges")));
    b.probed(Seen::Acknowledged(false));
    assert!(b.serves(11), "no further hold for the same silence");
    b.probed(Seen::Acknowledged(true));
    assert_eq!(b.guard(), GuardState::Armed);
}

#[test]
fn it_is_disarmed_only_as_long_as_the_sentinels_hear_the_master() {
    let mut b = tripped();
    let fresh = |b: &mut Bench| {
        b.node(11, guarded(&[(12, 90)], 100));
        b.pongs(1..=3, 10 * MS);
    };
    b.pass_with(5000 * MS, fresh);
    assert_eq!(b.guard(), GuardState::Disarmed, "{}", b.view().why);
    assert_eq!(b.trips(), 1);
    // The pongs stop; the Sentinels do not say yet that it is down.
    let stopped = b.now;
    b.pass_with(1200 * MS, |b| {
        b.node(11, guarded(&[(12, 90)], 100));
        let age = b.now.since(stopped);
        b.pongs(1..=3, age);
    });
    assert!(b.serves(11), "a ping a second is their pace");
    b.pass_with(500 * MS, |b| {
        b.node(11, guarded(&[(12, 90)], 100));
        let age = b.now.since(stopped);
        b.pongs(1..=3, age);
    });
    assert!(!b.view().writes.is_open());
    assert_eq!((b.guard(), b.trips()), (GuardState::Holding, 2));
    // One pong that is newer than that ends it again.
    b.pass_with(200 * MS, fresh);
    assert!(b.serves(11), "{}", b.view().why);
}

#[test]
fn after_a_doubt_of_the_sentinels_only_later_pongs_disarm_it_again() {
    let mut b = tripped();
    let at_once = |b: &mut Bench, age: Duration| {
        b.pongs(1..=3, age);
        b.node(11, guarded(&[(12, 90)], 100));
        b.pass(MS);
    };
    at_once(&mut b, Duration::ZERO);
    assert_eq!(b.guard(), GuardState::Disarmed);
    b.pass(300 * MS);
    b.sees(1, 11, 5, Stage::Suspects, Duration::ZERO);
    b.sees(2, 11, 5, Stage::Suspects, Duration::ZERO);
    assert_eq!(b.guard(), GuardState::Holding);
    at_once(&mut b, 200 * MS);
    assert!(!b.view().writes.is_open(), "newer than the silence, and older than the doubt");
    at_once(&mut b, Duration::ZERO);
    assert!(b.serves(11), "{}", b.view().why);
}

#[test]
fn a_sentinel_that_suspects_the_master_or_names_another_does_not_vouch_for_it() {
    for (stage, node) in [(Stage::Suspects, 11), (Stage::Calm, 12)] {
        let mut b = tripped();
        b.node(11, guarded(&[(12, 90)], 100));
        b.pongs([1], Duration::ZERO);
        b.sees(2, node, 4, stage, Duration::ZERO);
        b.pass(MS);
        assert!(!b.view().writes.is_open(), "{stage:?} {node}");
        b.pongs([2], Duration::ZERO);
        b.node(11, guarded(&[(12, 90)], 100));
        b.pass(MS);
        assert!(b.serves(11), "{}", b.view().why);
    }
}

#[test]
fn dead_sentinels_promote_nobody() {
    let mut b = tripped();
    let refuse = |b: &mut Bench| {
        (1..=3).for_each(|s| b.sentinel(s, Seen::Gone(Gone::Refused)));
        b.node(11, guarded(&[(12, 90)], 100));
    };
    refuse(&mut b);
    assert!(!b.view().writes.is_open(), "they may be starting again");
    b.pass_with(1100 * MS, refuse);
    refuse(&mut b);
    b.pass(MS);
    assert!(b.serves(11), "{}", b.view().why);
    assert_eq!(b.guard(), GuardState::Disarmed);
}

#[test]
fn where_others_can_refuse_in_their_place_no_node_is_dead() {
    let fencing = Fencing { refused_is_dead: false, ..settings(sentinels(3)).fencing };
    let mut b = armed_with(Settings { fencing, ..settings(sentinels(3)) });
    b.probed(Seen::Acknowledged(false));
    b.node(12, Seen::Gone(Gone::Refused));
    b.node(11, guarded(&[], 100));
    b.node(11, guarded(&[], 100));
    assert!(!b.view().writes.is_open(), "{}", b.view().why);
}

#[test]
fn a_new_master_begins_without_a_guard_until_a_replica_follows_it() {
    let mut b = tripped();
    let news = |b: &mut Bench| {
        (1..=3).for_each(|s| b.names(s, 12, 6));
        b.node(12, master("r12", lineage("B", Some("A"))));
    };
    (0..3).for_each(|_| news(&mut b));
    assert!(b.serves(12), "{}", b.view().why);
    assert_eq!(b.guard(), GuardState::Unarmed);
    b.probed(Seen::Acknowledged(false));
    assert!(b.serves(12), "a late word of the old one's");
    assert_eq!(b.trips(), 1);
}

#[test]
fn where_probes_are_forbidden_or_unanswered_the_masters_reports_tell_after_two_seconds() {
    for forbidden in [true, false] {
        let mut b = armed();
        b.t.writes_flow(b.now);
        if forbidden {
            b.probed(Seen::Problem("NOPERM this user has no permissions to run the 'wait' command".into()));
            assert!(b.t.status().problems.iter().any(|p| p.contains("cannot probe 127.0.0.1:11: NOPERM")));
        }
        let mut offset = 100;
        let mut write = |b: &mut Bench, acknowledged: bool| {
            offset += 10;
            b.pongs(1..=3, OLD);
            b.node(11, guarded(&[(12, if acknowledged { offset - 5 } else { 101 })], offset));
            b.t.writes_flow(b.now);
            b.drain();
            b.pass(196 * MS);
        };
        (0..20).for_each(|_| write(&mut b, true));
        assert_eq!(b.guard(), GuardState::Armed);
        (0..9).for_each(|_| write(&mut b, false));
        assert!(b.serves(11), "replicas acknowledge once a second");
        (0..4).for_each(|_| write(&mut b, false));
        assert!(!b.view().writes.is_open(), "{}", b.view().why);
        write(&mut b, true);
        write(&mut b, true);
        b.pass(MS);
        assert!(b.serves(11), "{}", b.view().why);
    }
}

#[test]
fn a_probe_that_is_not_answered_is_no_sign_of_silent_replicas() {
    let mut b = armed();
    b.t.writes_flow(b.now);
    b.probed(Seen::Gone(Gone::Timeout));
    b.pass_with(5000 * MS, |b| {
        b.pongs(1..=3, OLD);
        b.node(11, guarded(&[(12, 100)], 100));
        b.t.writes_flow(b.now);
    });
    assert!(b.serves(11), "{}", b.view().why);
    assert!(b.t.status().problems.iter().any(|p| p.contains("it does not answer")));
}
