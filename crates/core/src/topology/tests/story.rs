//! The story of each hold and switch, and what a deposed master lost.
use super::*;
use crate::topology::status::Event;
use crate::topology::story::{Lost, Mark, MarkKind, Story};
use alloc::string::ToString;

/// When the scripted failovers begin.
const START: Now = Now::from_millis(5_000);

/// What was told, of this kind.
fn told(b: &Bench, kind: EventKind) -> Vec<Event> {
    let events = b.acts.iter().filter_map(|a| match a {
        Act::Story(e) if e.kind == kind => Some(e.clone()),
        _ => None,
    });
    events.collect()
}

fn the_story(b: &Bench, kind: EventKind) -> Story {
    let told = told(b, kind);
    assert_eq!(told.len(), 1, "{kind:?}: {told:?}");
    (**told[0].story.as_ref().unwrap()).clone()
}

/// Kinds and milliseconds since the first mark.
fn timeline(s: &Story) -> Vec<(&'static str, u128)> {
    s.marks.iter().map(|m| (m.kind.label(), m.at.since(s.began).as_millis())).collect()
}

fn mark(s: &Story, kind: MarkKind) -> &Mark {
    s.marks.iter().find(|m| m.kind == kind).unwrap_or_else(|| panic!("{s:?}"))
}

impl Bench {
    /// The next observation arrives so many milliseconds after the start of the script.
    fn ms(&mut self, ms: u64) -> &mut Bench {
        self.now = START + ms as u32 * MS - MS / 2;
        self
    }

    fn event(&mut self, port: u16, event: &str, stage: Option<Stage>, vote: Option<Vote>) {
        let selected = (event == "+selected-slave").then(|| at(12));
        self.sentinel(port, Seen::Announced(Announced { event: event.into(), stage, selected, vote }));
    }

    /// A node's report with an offset.
    fn reports(&mut self, port: u16, role: Role, l: Option<Lineage>, offset: u64) {
        self.process_reports(&format!("r{port}"), port, role, l, offset);
    }

    fn process_reports(&mut self, run: &str, port: u16, role: Role, l: Option<Lineage>, offset: u64) {
        let run_id = Some(run.into());
        self.node(
            port,
            Seen::Report(Report { role, loading: false, run_id, lineage: l, offset, attached: Vec::new() }),
        );
    }

    fn lost(&mut self) -> Vec<Lost> {
        told(self, EventKind::Lost).into_iter().map(|e| e.lost.unwrap()).collect()
    }
}

/// Node 12's history after it followed node 11 up to `offset`.
fn heir(offset: i64) -> Option<Lineage> {
    Some(Lineage { replid: "B".into(), replid2: Some("A".into()), second_offset: offset + 1 })
}

fn two_replicas() -> Bench {
    let mut b = calm();
    let two = [12, 13].map(|n| Listed { at: at(n), selected: false });
    b.sentinel(1, Seen::Replicas(Vec::from(two)));
    (1..=3).for_each(|s| b.sentinel(s, Seen::Id(format!("id{s}").into())));
    b.node(13, replica("r13", 11, "A"));
    b.pass_with(START.since(b.now) - 30 * MS, |b| {
        ready(b);
        b.node(13, replica("r13", 11, "A"));
    });
    b.acts.clear();
    b
}

/// A master dies at offset 1000, node 12 had followed it to 940; Sentinel 2 leads. Milliseconds as in life, but rounded.
fn failover() -> Bench {
    let mut b = two_replicas();
    b.ms(0).reports(11, Role::Master, lineage("A", None), 1_000);
    let sign = Sign {
        service: ServiceId(0),
        shard: ShardId(0),
        term: Term(1),
        at: START + 2 * MS,
        kind: SignKind::Broken,
    };
    b.ms(3).t.sign(START + 3 * MS, &sign);
    b.drain();
    b.ms(4).node(11, Seen::Gone(Gone::Refused));
    b.ms(1_050).event(1, "+sdown", Some(Stage::Suspects), None);
    b.ms(1_060).event(2, "+sdown", Some(Stage::Suspects), None);
    b.ms(1_100).event(2, "+odown", Some(Stage::Tries), None);
    b.ms(1_101).event(2, "+try-failover", Some(Stage::Tries), None);
    let vote = |_| Some(Vote { leader: "id2".into(), epoch: 6 });
    b.ms(1_102).event(2, "+vote-for-leader", None, vote(2));
    b.ms(1_110).event(1, "+vote-for-leader", None, vote(1));
    b.ms(1_190).event(2, "+elected-leader", Some(Stage::Acts), None);
    b.ms(1_250).event(2, "+selected-slave", Some(Stage::Acts), None);
    b.ms(1_340).reports(12, Role::Master, heir(940), 940);
    b.ms(1_345).flags(1, 11, 5, Stage::Suspects);
    b.ms(1_346).flags(2, 11, 5, Stage::Acts);
    b.ms(1_347).flags(3, 11, 5, Stage::Suspects);
    b.ms(1_350).reports(12, Role::Master, heir(940), 940);
    assert!(b.serves(12), "{}", b.view().why);
    b
}

/// As [`failover`], until the Sentinels name the new master.
fn named() -> Bench {
    let mut b = failover();
    b.ms(2_300).names(2, 12, 6);
    b.ms(2_310).names(1, 12, 6);
    b.ms(2_320).reports(12, Role::Master, heir(940), 950);
    b
}

#[test]
fn a_switch_is_one_story_with_each_mark_at_its_millisecond() {
    let b = named();
    let s = the_story(&b, EventKind::Switch);
    let expected = [
        ("sign", 0),
        ("hold", 2),
        ("odown", 1_098),
        ("elected", 1_188),
        ("selected", 1_248),
        ("promoted", 1_338),
        ("fenced", 1_344),
        ("proven", 1_348),
        ("released", 1_348),
        ("majority", 2_308),
    ];
    assert_eq!(timeline(&s), expected, "{s:?}");
    assert_eq!((&*mark(&s, MarkKind::Sign).by, &*mark(&s, MarkKind::Sign).text), ("worker", "broken"));
    assert_eq!(&*mark(&s, MarkKind::Hold).by, "node 127.0.0.1:11");
    assert_eq!(&*mark(&s, MarkKind::Elected).by, "Sentinel 127.0.0.1:2");
    assert_eq!(&*mark(&s, MarkKind::Selected).text, "127.0.0.1:12");
    assert!(mark(&s, MarkKind::Proven).text.contains("elected for epoch 6 by 2 of 3"), "{s:?}");
    assert_eq!((s.from.master.clone(), s.from.term, s.from.epoch), (end(11), Term(1), Some(5)));
    assert_eq!((s.to.master.clone(), s.to.term, s.to.epoch), (end(12), Term(2), Some(6)));
    assert_eq!((s.held(), s.behind), (1_346 * MS, Some(60)));
    let line = s.line();
    assert!(
        line.starts_with(
            "127.0.0.1:11 -> 127.0.0.1:12; held for 1346 ms: sign by worker (broken), hold +2, "
        ),
        "{line}"
    );
    assert!(line.contains("at least 60 bytes"), "{line}");
}

#[test]
fn every_change_of_a_gate_or_a_grant_carries_the_story_as_far_as_it_has_come() {
    let b = named();
    let so_far = |kind| timeline(&the_story(&b, kind));
    assert_eq!(so_far(EventKind::Hold), [("sign", 0), ("hold", 2)]);
    assert_eq!(so_far(EventKind::Fence).last(), Some(&("fenced", 1_344)));
    let grant = the_story(&b, EventKind::Grant);
    assert_eq!(timeline(&grant).last(), Some(&("proven", 1_348)));
    assert!(grant.switched() && told(&b, EventKind::Held).is_empty());
}

#[test]
fn a_hold_without_a_switch_is_a_story_of_its_own() {
    let mut b = two_replicas();
    b.ms(0).node(11, Seen::Gone(Gone::Closed));
    assert!(!b.view().writes.is_open());
    b.ms(30).reports(11, Role::Master, lineage("A", None), 1_000);
    b.ms(37).names(1, 11, 5);
    b.ms(40).names(2, 11, 5);
    b.ms(50).reports(11, Role::Master, lineage("A", None), 1_000);
    assert!(b.serves(11), "{}", b.view().why);
    let s = the_story(&b, EventKind::Held);
    assert_eq!(timeline(&s), [("sign", 0), ("hold", 0), ("released", 40)]);
    assert!(
        !s.switched() && s.line().starts_with("127.0.0.1:11 is still master; held for 40 ms"),
        "{}",
        s.line()
    );
    assert_eq!(timeline(&the_story(&b, EventKind::Release)), timeline(&s));
    assert!(told(&b, EventKind::Switch).is_empty());
}

#[test]
fn a_suspicion_that_comes_to_nothing_is_not_told_and_does_not_date_the_next_story() {
    let mut b = two_replicas();
    b.ms(0).event(3, "+sdown", Some(Stage::Suspects), None);
    b.pass_with(7_000 * MS, |b| {
        ready(b);
        b.node(13, replica("r13", 11, "A"));
    });
    assert!(told(&b, EventKind::Held).is_empty() && told(&b, EventKind::Hold).is_empty());
    let later = b.now;
    b.node(11, Seen::Gone(Gone::Closed));
    assert!(the_story(&b, EventKind::Hold).began > later);
}

#[test]
fn releases_and_holds_while_a_sentinel_still_tries_are_one_story() {
    let mut b = two_replicas();
    b.ms(0).event(2, "+odown", Some(Stage::Tries), None);
    let all = |b: &mut Bench| {
        b.names(1, 11, 5);
        b.flags(2, 11, 5, Stage::Tries);
        b.names(3, 11, 5);
        b.node(11, master("r11", lineage("A", None)));
    };
    b.pass_with(1_500 * MS, all);
    assert!(b.serves(11) && told(&b, EventKind::Release).len() == 1, "{}", b.view().why);
    b.node(11, Seen::Gone(Gone::Closed));
    b.pass_with(500 * MS, all);
    assert!(told(&b, EventKind::Held).is_empty());
    b.pass_with(6_000 * MS, all);
    let kinds: Vec<&str> = timeline(&the_story(&b, EventKind::Held)).iter().map(|m| m.0).collect();
    assert_eq!(kinds, ["sign", "odown", "hold", "released", "hold", "released"]);
}

#[test]
fn the_first_grant_is_no_switch() {
    let mut b = Bench::new(settings(sentinels(3)));
    let began = b.now;
    b.all_name(11, 5);
    b.node(11, master("r11", lineage("A", None)));
    ready(&mut b);
    assert!(b.serves(11));
    assert!(told(&b, EventKind::Switch).is_empty() && told(&b, EventKind::Held).is_empty());
    let s = the_story(&b, EventKind::Grant);
    assert_eq!((s.began, s.from.master.clone(), s.to.term), (began, None, Term(1)));
}

#[test]
fn a_story_that_does_not_end_stays_small() {
    let mut b = two_replicas();
    for round in 0..500 {
        if round % 2 == 0 {
            b.node(11, Seen::Gone(Gone::Closed));
            // Time that passes while it is held adds nothing.
            (0..if round == 400 { 500 } else { 0 }).for_each(|_| b.pass(MS));
        } else {
            b.node(11, master("r11", lineage("A", None)));
            b.names(1, 11, 5);
            b.names(3, 11, 5);
            b.flags(2, 11, 5, Stage::Tries);
            b.node(11, master("r11", lineage("A", None)));
        }
        b.acts.retain(|a| matches!(a, Act::Story(_)));
    }
    let longest = b.acts.iter().filter_map(|a| match a {
        Act::Story(e) => e.story.as_ref(),
        _ => None,
    });
    let longest = longest.max_by_key(|s| s.marks.len()).unwrap();
    let ends = longest.marks.iter().filter(|m| m.kind == MarkKind::Released).count();
    assert_eq!((longest.marks.len() - ends, longest.held_since()), (64, None));
    assert!((100..500).contains(&longest.left_out), "{}", longest.left_out);
}

#[test]
fn what_a_dead_master_wrote_beyond_its_successor_is_told_when_it_is_seen_again() {
    let mut b = named();
    // It comes back as the master that it thinks it is, says so for a while, and is then made a replica.
    b.ms(9_000).reports(11, Role::Master, lineage("A", None), 1_010);
    b.ms(9_500).reports(11, Role::Master, lineage("A", None), 1_100);
    assert!(b.lost().is_empty(), "it may write more");
    let of_12 = || Role::Replica { of: at(12), link_up: true };
    b.ms(9_600).reports(11, Role::Replica { of: at(12), link_up: false }, lineage("A", None), 1_100);
    b.ms(9_700).reports(11, of_12(), lineage("B", None), 990);
    let [lost] = b.lost().try_into().unwrap();
    assert_eq!(
        (lost.bytes(), lost.kept_to, lost.wrote_to, lost.after, lost.exact),
        (160, 940, 1_100, 0, true)
    );
    assert_eq!((&*lost.node, lost.term), ("127.0.0.1:11", Term(1)));
    assert!(lost.to_string().contains("160 bytes of its replication stream are lost"), "{lost}");
    b.ms(9_800).reports(11, of_12(), lineage("B", None), 1_000);
    assert_eq!(b.lost().len(), 1, "told once");
}

#[test]
fn what_was_written_to_a_deposed_master_in_our_sight_is_told_apart() {
    let mut b = two_replicas();
    b.ms(0).reports(11, Role::Master, lineage("A", None), 1_000);
    b.ms(10).event(2, "+elected-leader", Some(Stage::Acts), None);
    b.ms(11).ordered(2, 11, 5);
    b.ms(60).event(2, "+selected-slave", Some(Stage::Acts), None);
    // Somebody wrote to it until the promotion, and the replica did not get it.
    b.ms(100).reports(11, Role::Master, lineage("A", None), 1_020);
    b.ms(120).reports(12, Role::Master, heir(1_000), 1_000);
    b.ms(121).names(1, 11, 5);
    b.ms(122).ordered(2, 11, 5);
    b.ms(123).names(3, 11, 5);
    b.ms(124).reports(12, Role::Master, heir(1_000), 1_000);
    assert!(b.serves(12), "{}", b.view().why);
    // A Sentinel's hello, and the end of it.
    b.ms(800).reports(11, Role::Master, lineage("A", None), 1_140);
    b.ms(900).reports(11, Role::Replica { of: at(12), link_up: true }, lineage("B", None), 1_010);
    let [lost] = b.lost().try_into().unwrap();
    assert_eq!((lost.bytes(), lost.after, lost.exact), (140, 120, true));
    assert_eq!(the_story(&b, EventKind::Grant).behind, Some(20));
}

#[test]
fn a_master_that_lost_its_memory_says_how_little_is_known() {
    let restarted = |l: Option<Lineage>| {
        let mut b = named();
        b.ms(9_000).process_reports("again", 11, Role::Master, l, 700);
        let [lost] = b.lost().try_into().unwrap();
        (lost.bytes(), lost.exact)
    };
    assert_eq!(restarted(lineage("C", None)), (60, false), "by its last report before it died");
    let saved = Some(Lineage { replid: "C".into(), replid2: Some("A".into()), second_offset: 1_051 });
    assert_eq!(restarted(saved), (110, false), "it had saved up to 1050");
}

#[test]
fn a_master_that_was_started_again_with_what_it_had_saved_does_not_show_all_that_it_wrote() {
    let mut b = named();
    b.ms(9_000).process_reports("again", 11, Role::Master, lineage("A", None), 930);
    let of_12 = Role::Replica { of: at(12), link_up: true };
    b.ms(9_100).process_reports("again", 11, of_12, lineage("B", None), 990);
    let [lost] = b.lost().try_into().unwrap();
    assert_eq!((lost.bytes(), lost.exact), (60, false), "by its last report before it died");
}

#[test]
fn a_master_that_follows_its_successor_from_where_it_was_has_lost_nothing() {
    let follows = |run: &str| {
        let mut b = two_replicas();
        b.ms(0).reports(11, Role::Master, lineage("A", None), 1_000);
        b.ms(10).event(2, "+elected-leader", Some(Stage::Acts), None);
        b.ms(11).ordered(2, 11, 5);
        b.ms(60).event(2, "+selected-slave", Some(Stage::Acts), None);
        b.ms(120).reports(12, Role::Master, heir(1_000), 1_000);
        [1, 3].iter().for_each(|s| b.names(*s, 11, 5));
        b.ms(122).ordered(2, 11, 5);
        b.ms(124).reports(12, Role::Master, heir(1_000), 1_000);
        assert!(b.serves(12), "{}", b.view().why);
        // It was told to follow, and did, before it was asked again.
        let of_12 = Role::Replica { of: at(12), link_up: true };
        b.ms(200).process_reports(run, 11, of_12, heir(1_000), 1_030);
        let [lost] = b.lost().try_into().unwrap();
        (lost.bytes(), lost.exact)
    };
    assert_eq!(follows("r11"), (0, true));
    assert_eq!(follows("again"), (0, false), "what it had not saved is not known");
}

#[test]
fn a_deposed_master_that_is_granted_again_or_says_nothing_has_lost_nothing_that_we_know_of() {
    let mut b = named();
    b.pass_with(120_000 * MS, |b| {
        b.all_name(12, 6);
        b.node(12, master("r12", heir(940)));
    });
    assert!(b.lost().is_empty());
}
