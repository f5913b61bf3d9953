//! Replicas that vanish from the master's list while a Sentinel is out of sight.
use super::guard::guarded;
use super::*;

/// How often everybody answers.
const EVERY: Duration = Duration::from_millis(50);

/// Node 11 with the replicas 12 and 13, of which 13 is out of our sight from the beginning, as is Sentinel 3.
struct Dark {
    b: Bench,
    offset: u64,
    /// Whom the master lists.
    listed: Vec<u16>,
    /// What node 13 answers.
    thirteen: Option<Seen>,
    sentinels: u16,
}

impl Dark {
    fn new() -> Dark {
        let mut b = calm();
        let list = [12, 13].map(|n| Listed { at: at(n), selected: false });
        b.sentinel(1, Seen::Replicas(list.into()));
        b.node(13, replica("r13", 11, "A"));
        let mut d = Dark { b, offset: 100, listed: Vec::from([12, 13]), thirteen: None, sentinels: 2 };
        d.go(1500 * MS);
        assert!(d.b.serves(11), "{}", d.b.view().why);
        d
    }

    /// All answer that can.
    fn go(&mut self, d: Duration) {
        let end = self.b.now + d;
        while self.b.now < end {
            self.offset += 10;
            (1..=self.sentinels).for_each(|s| self.b.names(s, 11, 5));
            self.b.node(12, replica("r12", 11, "A"));
            self.b.node(13, self.thirteen.clone().unwrap_or(Seen::Gone(Gone::Timeout)));
            let listed: Vec<(u16, u64)> = self.listed.iter().map(|n| (*n, self.offset)).collect();
            self.b.node(11, guarded(&listed, self.offset));
            self.b.pass(EVERY);
        }
    }

    fn holds(&self) -> bool {
        !self.b.view().writes.is_open()
    }
}

#[test]
fn a_replica_out_of_sight_that_vanishes_holds_writes_until_sentinels_in_sight_would_know() {
    let mut d = Dark::new();
    d.listed = Vec::from([12]);
    d.go(EVERY);
    assert!(d.holds() && !d.b.view().reads.is_open(), "hold_reads is on");
    let why = d.b.view().why;
    assert!(
        why.contains("no longer lists its replica 127.0.0.1:13, which does not answer")
            && why.contains("Sentinel 127.0.0.1:3 is out of sight"),
        "{why}"
    );
    d.go(2800 * MS);
    assert!(d.holds());
    d.go(400 * MS);
    assert!(d.b.serves(11), "{}", d.b.view().why);
}

#[test]
fn one_that_is_listed_again_ends_the_hold_and_holds_nothing_a_second_time_while_it_is_out_of_sight() {
    let mut d = Dark::new();
    for (round, holds) in [true, false, false].into_iter().enumerate() {
        d.listed = Vec::from([12]);
        d.go(200 * MS);
        assert_eq!(d.holds(), holds, "{round}: {}", d.b.view().why);
        d.listed = Vec::from([12, 13]);
        d.go(200 * MS);
        assert!(d.b.serves(11), "{round}: {}", d.b.view().why);
    }
    // It has been seen meanwhile.
    d.thirteen = Some(replica("r13", 11, "A"));
    d.go(200 * MS);
    d.thirteen = None;
    d.listed = Vec::from([12]);
    d.go(200 * MS);
    assert!(d.holds());
}

#[test]
fn a_replica_that_dies_or_starts_again_in_our_sight_holds_nothing() {
    let loading = || match replica("r13b", 11, "A") {
        Seen::Report(r) => Seen::Report(Report { role: Role::Master, loading: true, ..r }),
        other => other,
    };
    let stories: [&[Seen]; 3] = [
        // Killed: its connection is closed, and then refused.
        &[Seen::Gone(Gone::Closed), Seen::Gone(Gone::Refused)],
        &[Seen::Gone(Gone::Closed), loading(), replica("r13b", 11, "A")],
        // It has only lost its link.
        &[replica("r13", 11, "A")],
    ];
    for story in stories {
        let mut d = Dark::new();
        d.thirteen = Some(replica("r13", 11, "A"));
        d.go(200 * MS);
        d.listed = Vec::from([12]);
        for seen in story {
            d.thirteen = Some(seen.clone());
            d.go(EVERY);
            assert!(d.b.serves(11), "{seen:?}: {}", d.b.view().why);
        }
        d.go(4000 * MS);
        assert_eq!(d.b.stories(EventKind::Hold), [""; 0]);
    }
}

#[test]
fn one_that_now_follows_another_holds() {
    let mut d = Dark::new();
    d.listed = Vec::from([12]);
    d.thirteen = Some(replica("r13", 12, "A"));
    d.go(200 * MS);
    assert!(d.b.serves(11), "12 says that it is a replica itself");
    let mut d = Dark::new();
    d.b.sentinel(1, Seen::Replicas([12, 13, 14].map(|n| Listed { at: at(n), selected: false }).into()));
    d.b.node(14, Seen::Gone(Gone::Timeout));
    d.listed = Vec::from([12]);
    d.thirteen = Some(replica("r13", 14, "A"));
    d.go(200 * MS);
    assert!(d.holds() && d.b.view().why.contains("now follows 127.0.0.1:14"), "{}", d.b.view().why);
}

#[test]
fn one_that_had_stopped_to_acknowledge_was_given_up_by_its_master() {
    let mut d = Dark::new();
    let end = d.b.now + 4000 * MS;
    let stuck = d.offset;
    while d.b.now < end {
        d.offset += 10;
        (1..=2).for_each(|s| d.b.names(s, 11, 5));
        d.b.node(12, replica("r12", 11, "A"));
        d.b.node(11, guarded(&[(12, d.offset), (13, stuck)], d.offset));
        d.b.pass(EVERY);
    }
    d.listed = Vec::from([12]);
    d.go(1000 * MS);
    assert!(d.b.serves(11), "{}", d.b.view().why);
}

#[test]
fn with_all_sentinels_in_sight_and_without_leases_it_holds_nothing() {
    let mut d = Dark::new();
    d.sentinels = 3;
    d.go(500 * MS);
    d.listed = Vec::from([12]);
    d.go(1000 * MS);
    assert!(d.b.serves(11), "{}", d.b.view().why);
    let mut d = Dark::new();
    let fencing = Fencing { without_lease: WithoutLease::GoOn, refused_is_dead: true };
    d.b.t.reconfigure(d.b.now, Settings { fencing, ..settings(sentinels(3)) });
    d.listed = Vec::from([12]);
    d.go(1000 * MS);
    assert!(d.b.serves(11), "{}", d.b.view().why);
}
