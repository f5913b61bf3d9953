//! When writes end because Sentinels are out of sight, and when they do not.
use super::*;

/// The interval of everything that answers in these tests.
const EVERY: Duration = Duration::from_millis(50);

/// What one Sentinel says, of its calm deployment, beside the defaults: three Sentinels, quorum 2, down-after 1 s.
#[derive(Clone, Copy)]
struct Word {
    quorum: u32,
    others: u32,
    down_after: Duration,
    pong_age: Duration,
    ping_age: Duration,
    linked: bool,
    stage: Stage,
}

const CALM: Word = Word {
    quorum: 2,
    others: 2,
    down_after: Duration::from_millis(1000),
    pong_age: Duration::from_millis(100),
    ping_age: Duration::ZERO,
    linked: true,
    stage: Stage::Calm,
};

impl Bench {
    fn says(&mut self, port: u16, w: Word) {
        let view = View {
            epoch: 5,
            master: at(11),
            stage: w.stage,
            forced: false,
            coordinated: false,
            quorum: w.quorum,
            others: w.others,
            down_after: w.down_after,
            failover_timeout: 180_000 * MS,
            pong_age: w.pong_age,
            ping_age: w.ping_age,
            linked: w.linked,
        };
        self.sentinel(port, Seen::View(view));
    }

    fn nodes(&mut self) {
        self.node(12, replica("r12", 11, "A"));
        self.node(11, master("r11", lineage("A", None)));
    }

    /// For how long writes may go on if nobody says anything more.
    fn left(&mut self) -> Duration {
        self.pass(Duration::ZERO);
        self.view().writes_until.expect("there is a lease").since(self.now)
    }

    /// Time passes; these Sentinels say this, and the nodes answer.
    fn hear(&mut self, d: Duration, said: &[(u16, Word)]) {
        let end = self.now + d;
        while self.now < end {
            said.iter().for_each(|(s, w)| self.says(*s, *w));
            self.nodes();
            self.pass(EVERY);
        }
    }

    /// The longest stretch in which no published view lets writes out, while these speak.
    fn shut(&mut self, d: Duration, said: &[(u16, Word)]) -> Duration {
        let end = self.now + d;
        let (mut shut, mut longest, mut known) = (None, Duration::ZERO, self.view());
        while self.now < end {
            if (self.now.as_micros() / 1000).is_multiple_of(EVERY.as_millis() as u64) {
                said.iter().for_each(|(s, w)| self.says(*s, *w));
                self.nodes();
            }
            self.pass(MS);
            self.now = Now::from_millis(self.now.as_micros() / 1000);
            known = self.published().pop().unwrap_or(known);
            let open = known.writes.is_open() && known.writes_until.is_none_or(|t| self.now < t);
            shut = if open { None } else { shut.or(Some(self.now)) };
            longest = longest.max(shut.map_or(Duration::ZERO, |since| self.now.since(since)));
        }
        longest
    }
}

fn with(w: Word) -> Bench {
    let mut b = Bench::new(settings(sentinels(3)));
    b.hear(300 * MS, &[(1, w), (2, w), (3, w)]);
    assert!(b.serves(11), "{}", b.view().why);
    b.published();
    b
}

#[test]
fn with_all_in_sight_there_is_nearly_the_whole_down_after_left_whatever_the_age_of_the_last_pong() {
    for pong_age in [0, 500, 1000, 1100] {
        let mut b = with(Word { pong_age: pong_age * MS, ..CALM });
        assert!(b.left() > 900 * MS, "{:?}", b.left());
    }
    // Where down-after is long, the age of the pong counts.
    let mut b = with(Word { down_after: 5000 * MS, pong_age: 1100 * MS, ..CALM });
    let left = b.left();
    assert!(left > 3800 * MS && left < 3950 * MS, "{left:?}");
}

#[test]
fn healthy_pings_never_shut_the_gate_also_if_an_answer_comes_late() {
    let mut b = with(CALM);
    for i in 0..40 {
        // Pongs come each second, polls after 50 ms, and sometimes after 300.
        let w = Word { pong_age: (i * 50 % 1100) * MS, ping_age: (i % 3) * MS, ..CALM };
        assert_eq!(b.shut(EVERY, &[(1, w), (2, w), (3, w)]), Duration::ZERO);
        if i % 5 == 0 {
            assert_eq!(b.shut(250 * MS, &[]), Duration::ZERO, "{}", b.view().why);
        }
    }
    assert_eq!(b.stories(EventKind::Hold).len(), 0);
}

#[test]
fn a_ping_that_waits_shortens_the_lease_by_its_wait_and_a_broken_link_by_the_age_of_the_pong() {
    let mut b = with(CALM);
    let waits = Word { ping_age: 700 * MS, ..CALM };
    b.hear(EVERY, &[(1, waits), (2, waits), (3, CALM)]);
    assert!(b.left() <= 300 * MS, "{:?}", b.left());
    let mut b = with(CALM);
    let broken = Word { linked: false, pong_age: 600 * MS, ..CALM };
    b.hear(EVERY, &[(1, broken), (2, broken), (3, CALM)]);
    assert!(b.left() <= 400 * MS, "{:?}", b.left());
}

#[test]
fn writes_end_down_after_the_last_word_of_those_out_of_sight_and_reads_go_on() {
    let mut b = with(CALM);
    let lost_at = b.now;
    b.hear(800 * MS, &[(1, CALM)]);
    assert!(b.serves(11), "{}", b.view().why);
    let until = b.view().writes_until.unwrap();
    assert!(until.since(lost_at) <= 1000 * MS && until > lost_at + 900 * MS, "{until:?} {lost_at:?}");
    b.hear(300 * MS, &[(1, CALM)]);
    let v = b.view();
    assert!(!v.writes.is_open() && v.reads.is_open(), "{v:?}");
    assert!(v.why.contains("2 of 3 Sentinels are out of sight") && v.why.contains("127.0.0.1:2 (last heard"));
    assert_eq!(b.t.status().lapses, 1);
    // They are seen again.
    b.hear(300 * MS, &[(1, CALM), (2, CALM), (3, CALM)]);
    assert!(b.serves(11) && b.view().term == Term(1), "{}", b.view().why);
    assert_eq!(b.stories(EventKind::Release).len(), 1);
}

#[test]
fn a_lease_that_was_lost_comes_back_when_whoever_is_still_dark_can_have_promoted_nobody() {
    let dark = |b: &mut Bench| {
        b.sentinel(1, Seen::Replicas(Vec::from([Listed { at: at(12), selected: false }])));
        b.hear(1200 * MS, &[(1, CALM)]);
        assert!(!b.view().writes.is_open());
    };
    let mut b = with(CALM);
    dark(&mut b);
    b.hear(300 * MS, &[(1, CALM), (2, CALM)]);
    assert!(!b.view().writes.is_open(), "3 may have 2's vote, and its order not given yet");
    b.hear(500 * MS, &[(1, CALM), (2, CALM)]);
    assert!(b.serves(11), "12 says that it is a replica: {}", b.view().why);
    // The same with a node that cannot be asked.
    let mut b = with(CALM);
    dark(&mut b);
    let unreachable = |b: &mut Bench, d: Duration| {
        let end = b.now + d;
        while b.now < end {
            (1..=2).for_each(|s| b.says(s, CALM));
            b.node(11, master("r11", lineage("A", None)));
            b.node(12, Seen::Gone(Gone::Timeout));
            b.pass(EVERY);
        }
    };
    unreachable(&mut b, 4500 * MS);
    assert!(!b.view().writes.is_open());
    unreachable(&mut b, 1000 * MS);
    assert!(b.serves(11), "2 would know by now: {}", b.view().why);
}

#[test]
fn reads_that_went_on_without_a_lease_have_a_whole_hold_when_they_have_to_wait_too() {
    let mut b = with(CALM);
    b.hear(13_000 * MS, &[(1, CALM)]);
    let v = b.view();
    assert!(v.writes == Gate::Refuse && v.reads.is_open(), "{v:?}");
    b.node(11, Seen::Gone(Gone::Closed));
    let v = b.view();
    assert!(
        v.writes == Gate::Refuse
            && matches!(v.reads, Gate::Hold { until, .. } if until > b.now + 10_000 * MS)
    );
    b.hear(300 * MS, &[(1, CALM), (2, CALM), (3, CALM)]);
    let told = b.stories(EventKind::Note);
    assert!(told.iter().any(|n| n.starts_with("reads wait too: ")), "{told:?}");
    assert!(b.serves(11) && b.view().reads.is_open());
}

#[test]
fn the_machine_says_at_the_moment_of_its_end_that_a_lease_has_ended() {
    let mut b = with(CALM);
    let until = b.view().writes_until.unwrap();
    let mut at = b.now;
    while at < until {
        at = b.t.next_timeout().unwrap();
        b.now = at;
        b.pass(Duration::ZERO);
    }
    assert_eq!(at, until);
    assert!(!b.view().writes.is_open());
}

#[test]
fn one_sentinel_out_of_sight_ends_nothing_whatever_the_quorum() {
    for quorum in [1, 2] {
        let w = Word { quorum, ..CALM };
        let mut b = with(w);
        assert_eq!(b.shut(10_000 * MS, &[(1, w), (2, w)]), Duration::ZERO, "{}", b.view().why);
    }
}

#[test]
fn with_quorum_1_one_that_takes_the_master_for_down_and_one_more_vote_are_enough() {
    let w = Word { quorum: 1, ..CALM };
    let mut b = with(w);
    let suspects = Word { stage: Stage::Suspects, ..w };
    b.hear(200 * MS, &[(1, w), (2, w), (3, suspects)]);
    assert!(b.serves(11), "in sight it would be seen to be elected: {}", b.view().why);
    b.hear(400 * MS, &[(1, w), (3, suspects)]);
    assert!(!b.view().writes.is_open(), "2 may have voted for 3");
}

#[test]
fn those_who_say_that_the_master_is_down_end_the_lease_at_once() {
    let mut b = with(CALM);
    let suspects = Word { stage: Stage::Suspects, ..CALM };
    b.hear(EVERY, &[(1, CALM), (2, suspects), (3, CALM)]);
    assert!(b.serves(11));
    b.hear(EVERY, &[(1, CALM), (2, suspects), (3, suspects)]);
    assert!(!b.view().writes.is_open());
    assert!(b.view().why.contains("take 127.0.0.1:11 for down"), "{}", b.view().why);
}

#[test]
fn what_each_sentinel_knows_decides_how_many_votes_are_enough() {
    // It was reset: it could elect itself.
    let alone = Word { quorum: 1, others: 0, ..CALM };
    let w = Word { quorum: 1, ..CALM };
    let mut b = with(w);
    b.hear(EVERY, &[(1, w), (2, w), (3, alone)]);
    b.hear(1200 * MS, &[(1, w), (2, w)]);
    assert!(!b.view().writes.is_open(), "one is enough");
    // They still know two that are long gone: three of five are needed, and there are three.
    let w = Word { quorum: 2, others: 4, ..CALM };
    let mut b = with(w);
    b.hear(5000 * MS, &[(1, w)]);
    assert!(b.serves(11), "two cannot elect: {}", b.view().why);
}

#[test]
fn the_dead_never_end_a_lease_and_their_host_s_silence_does() {
    let mut b = with(CALM);
    (2..=3).for_each(|s| b.sentinel(s, Seen::Gone(Gone::Closed)));
    for _ in 0..100 {
        (2..=3).for_each(|s| b.sentinel(s, Seen::Gone(Gone::Refused)));
        b.hear(200 * MS, &[(1, CALM)]);
        assert!(b.serves(11), "{}", b.view().why);
    }
    assert_eq!(b.stories(EventKind::Hold).len(), 0);
    (2..=3).for_each(|s| b.sentinel(s, Seen::Gone(Gone::Timeout)));
    b.hear(1100 * MS, &[(1, CALM)]);
    assert!(!b.view().writes.is_open(), "somebody may live there by now");
}

#[test]
fn a_refusal_says_nothing_if_it_is_not_to_be_believed_or_another_address_is_announced() {
    let refused = |b: &mut Bench| {
        for _ in 0..8 {
            (2..=3).for_each(|s| b.sentinel(s, Seen::Gone(Gone::Refused)));
            b.hear(200 * MS, &[(1, CALM)]);
        }
    };
    let mut s = settings(sentinels(3));
    s.fencing.refused_is_dead = false;
    let mut b = with(CALM);
    b.t.reconfigure(b.now, s);
    refused(&mut b);
    assert!(!b.view().writes.is_open());
    // Behind a Service or NAT the Sentinels know each other by other addresses.
    let mut b = with(CALM);
    (1..=3).for_each(|s| b.sentinel(s, Seen::Id(format!("id{s}").into())));
    let peer = |s: u16| Peer {
        id: format!("id{s}").into(),
        at: at(100 + s),
        up: true,
        pong_age: Duration::ZERO,
        vote: None,
    };
    b.sentinel(1, Seen::Peers(Vec::from([peer(2), peer(3)])));
    refused(&mut b);
    assert!(!b.view().writes.is_open(), "{}", b.view().why);
}

#[test]
fn without_a_lease_everything_waits_or_nothing_does_if_the_service_says_so() {
    let with_setting = |without_lease| {
        let mut s = settings(sentinels(3));
        s.fencing.without_lease = without_lease;
        let mut b = with(CALM);
        b.t.reconfigure(b.now, s);
        b.hear(1200 * MS, &[(1, CALM)]);
        b
    };
    let b = with_setting(WithoutLease::HoldAll);
    assert!(!b.view().writes.is_open() && !b.view().reads.is_open());
    let b = with_setting(WithoutLease::GoOn);
    assert!(b.serves(11) && b.view().writes_until.is_none());
}

#[test]
fn flags_between_two_views_renew_the_lease_and_are_no_vote() {
    let mut b = with(CALM);
    let flags = |b: &mut Bench, s: u16, stage: Stage| {
        let f = Flags {
            epoch: 5,
            stage,
            forced: false,
            coordinated: false,
            quorum: 2,
            others: 2,
            down_after: 1000 * MS,
            pong_age: 100 * MS,
            ping_age: Duration::ZERO,
            linked: true,
        };
        b.sentinel(s, Seen::Flags(f));
    };
    b.pass(900 * MS);
    (1..=3).for_each(|s| flags(&mut b, s, Stage::Calm));
    assert!(b.left() > 900 * MS);
    flags(&mut b, 2, Stage::Acts);
    assert!(!b.view().writes.is_open(), "the leader of a forced failover shows it in its flags");
    // At the start, flags alone name nobody.
    let mut b = Bench::new(settings(sentinels(3)));
    (1..=3).for_each(|s| flags(&mut b, s, Stage::Calm));
    b.nodes();
    assert_eq!(b.view().master, None);
}

#[test]
fn while_a_sentinel_is_out_of_sight_the_nodes_are_asked_often_and_the_sentinels_are_not() {
    let mut b = with(CALM);
    b.hear(1500 * MS, &[(1, CALM), (2, CALM)]);
    assert_eq!(b.paces(), [(TargetKind::Node, Pace::Hurried)]);
    b.hear(100 * MS, &[(1, CALM), (2, CALM), (3, CALM)]);
    assert_eq!(b.paces(), [(TargetKind::Node, Pace::Usual)]);
}

#[test]
fn a_vote_for_a_sentinel_out_of_sight_holds_until_it_is_seen_or_time_has_told() {
    let vote = |b: &mut Bench| {
        let vote = Some(Vote { leader: "id3".into(), epoch: 6 });
        let event = "+vote-for-leader".into();
        b.sentinel(1, Seen::Announced(Announced { event, stage: None, selected: None, vote }));
    };
    let mut b = with(CALM);
    (1..=3).for_each(|s| b.sentinel(s, Seen::Id(format!("id{s}").into())));
    b.hear(500 * MS, &[(1, CALM), (2, CALM)]);
    vote(&mut b);
    assert!(!b.view().writes.is_open());
    assert!(b.view().why.contains("votes for id3, which is out of sight, in epoch 6"), "{}", b.view().why);
    b.hear(4500 * MS, &[(1, CALM), (2, CALM)]);
    assert!(!b.view().writes.is_open());
    b.hear(1000 * MS, &[(1, CALM), (2, CALM)]);
    assert!(b.serves(11), "{}", b.view().why);
    vote(&mut b);
    assert!(!b.view().writes.is_open());
    b.hear(200 * MS, &[(1, CALM), (2, CALM), (3, CALM)]);
    assert!(b.serves(11), "its flags would show a failover: {}", b.view().why);
}
