//! What the topology machine does, at the level of observations.
mod wanted;

use super::observation::*;
use super::settings::*;
use super::snapshot::*;
use super::status::{EventKind, State};
use super::{Act, Topology};
use crate::Now;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn at(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".into(), port }
}

fn end(port: u16) -> Option<Endpoint> {
    Some(Endpoint::Tcp(at(port).literal().unwrap()))
}

fn settings(source: Source) -> Settings {
    Settings {
        id: ServiceId(0),
        name: "cache".into(),
        source,
        sentinel_credential: None,
        node_credential: None,
        interval: 200 * MS,
        timeout: 1000 * MS,
        hold_max: None,
        hold_reads: true,
        trust: Trust::Promotion,
        demote: true,
    }
}

fn sentinels(n: u16) -> Source {
    Source::Sentinels { sentinels: (1..=n).map(at).collect(), master: "mymaster".into() }
}

fn lineage(id: &str, id2: Option<&str>) -> Option<Lineage> {
    Some(Lineage { replid: id.into(), replid2: id2.map(Into::into), second_offset: 1 })
}

fn master(run: &str, l: Option<Lineage>) -> Seen {
    Seen::Report(Report {
        role: Role::Master,
        loading: false,
        run_id: Some(run.into()),
        lineage: l,
        offset: 100,
    })
}

fn replica(run: &str, of: u16, id: &str) -> Seen {
    let role = Role::Replica { of: at(of), link_up: true };
    Seen::Report(Report {
        role,
        loading: false,
        run_id: Some(run.into()),
        lineage: lineage(id, None),
        offset: 90,
    })
}

/// A machine with a clock, and what it has said.
struct Bench {
    now: Now,
    t: Topology,
    acts: Vec<Act>,
}

impl Bench {
    fn new(s: Settings) -> Bench {
        let now = Now::from_millis(1000);
        let mut b = Bench { now, t: Topology::new(now, s), acts: Vec::new() };
        b.drain();
        b
    }

    fn drain(&mut self) {
        while let Some(a) = self.t.poll() {
            self.acts.push(a);
        }
    }

    fn sentinel(&mut self, port: u16, seen: Seen) {
        self.seen(Target::sentinel(at(port)), seen);
    }

    fn node(&mut self, port: u16, seen: Seen) {
        self.seen(Target::node(at(port)), seen);
    }

    /// An answer to a question that was sent just now.
    fn seen(&mut self, from: Target, seen: Seen) {
        let sent = self.now;
        self.now = self.now + MS / 2;
        self.t.observe(self.now, Observation { from, sent, seen });
        self.drain();
        self.now = self.now + MS / 2;
    }

    fn names(&mut self, port: u16, node: u16, epoch: u64) {
        self.flags(port, node, epoch, Stage::Calm);
    }

    fn flags(&mut self, port: u16, node: u16, epoch: u64, stage: Stage) {
        self.sentinel(
            port,
            Seen::View(View {
                epoch,
                master: at(node),
                stage,
                forced: false,
                quorum: 2,
                others: 2,
                down_after: 1000 * MS,
                failover_timeout: 180_000 * MS,
                pong_age: 100 * MS,
            }),
        );
    }

    fn all_name(&mut self, node: u16, epoch: u64) {
        (1..=3).for_each(|s| self.names(s, node, epoch));
    }

    fn pass(&mut self, d: Duration) {
        self.now = self.now + d;
        self.t.timeout(self.now);
        self.drain();
    }

    /// Lets time pass while these answer.
    fn pass_with(&mut self, d: Duration, each: impl Fn(&mut Bench)) {
        let end = self.now + d;
        while self.now < end {
            each(self);
            self.pass(40 * MS);
        }
    }

    fn view(&self) -> ShardView {
        (*self.t.view()).clone()
    }

    fn serves(&self, port: u16) -> bool {
        self.view().master == end(port) && self.view().writes.is_open()
    }

    fn published(&mut self) -> Vec<ShardView> {
        let views = self.acts.iter().filter_map(|a| match a {
            Act::Publish(v) => Some((**v).clone()),
            _ => None,
        });
        let views = views.collect();
        self.acts.clear();
        views
    }

    fn stories(&self, kind: EventKind) -> Vec<String> {
        let told = self.acts.iter().filter_map(|a| match a {
            Act::Story(e) if e.kind == kind => Some(String::from(&*e.text)),
            _ => None,
        });
        told.collect()
    }

    fn asked(&self, t: &Target) -> bool {
        self.acts.contains(&Act::Ask(t.clone()))
    }
}

/// Three Sentinels that name node 11, which agrees; node 12 is its replica.
fn calm() -> Bench {
    let mut b = Bench::new(settings(sentinels(3)));
    b.all_name(11, 5);
    b.sentinel(1, Seen::Replicas(Vec::from([Listed { at: at(12), selected: false }])));
    b.node(12, replica("r12", 11, "A"));
    b.node(11, master("r11", lineage("A", None)));
    ready(&mut b);
    assert!(b.serves(11), "{:?}", b.view());
    b.acts.clear();
    b
}

/// Everybody answers once more: what the machine asked for.
fn ready(b: &mut Bench) {
    b.all_name(11, 5);
    b.node(12, replica("r12", 11, "A"));
    b.node(11, master("r11", lineage("A", None)));
}

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
    b.acts.clear();
    b.pass_with(10_000 * MS, cut_off);
    assert!(b.serves(11));
    assert_eq!(b.published().len(), 0, "a sign that has lapsed changes nothing any more");
    assert_eq!(b.view().term, Term(1));
}

fn ready_but(b: &mut Bench, not: u16) {
    (1..=3).filter(|s| *s != not).for_each(|s| b.names(s, 11, 5));
    b.node(12, replica("r12", 11, "A"));
    b.node(11, master("r11", lineage("A", None)));
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
    for s in 1..=3 {
        b.sentinel(s, Seen::Gone(Gone::Closed));
        b.sentinel(s, Seen::Gone(Gone::Refused));
    }
    let alive = |b: &mut Bench| b.node(11, master("r11", lineage("A", None)));
    b.pass_with(20_000 * MS, alive);
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
fn names_and_addresses_of_one_node_are_one_vote() {
    let mut b = Bench::new(settings(sentinels(3)));
    let name = HostPort { host: "redis-0".into(), port: 11 };
    let by_name = |b: &mut Bench, s: u16| {
        let view = View {
            epoch: 5,
            master: name.clone(),
            stage: Stage::Calm,
            forced: false,
            quorum: 2,
            others: 2,
            down_after: MS,
            failover_timeout: MS,
            pong_age: MS,
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
fn sentinels_are_discovered_and_a_misled_one_cannot_add_a_crowd() {
    let peers = |ports: &[u16]| {
        Seen::Peers(
            ports
                .iter()
                .map(|p| Peer { id: format!("id{p}").into(), at: at(*p), up: true, vote: None })
                .collect(),
        )
    };
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
fn a_sentinel_that_nobody_has_seen_up_for_ten_minutes_is_no_longer_counted() {
    let mut b = Bench::new(settings(sentinels(2)));
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

#[test]
fn calm_polls_publish_nothing_and_the_lag_at_most_once_a_second() {
    let mut b = calm();
    b.pass_with(5000 * MS, ready);
    assert_eq!(b.published().len(), 0);
    let mut n = 90;
    let end = b.now + 3000 * MS;
    while b.now < end {
        n -= 1;
        let role = Role::Replica { of: at(11), link_up: true };
        let run_id = Some(Box::from("r12"));
        b.node(
            12,
            Seen::Report(Report { role, loading: false, run_id, lineage: lineage("A", None), offset: n }),
        );
        ready_but(&mut b, 9);
        b.pass(40 * MS);
    }
    let views = b.published();
    assert!((1..=4).contains(&views.len()), "{}", views.len());
}

#[test]
fn reconfiguring_keeps_the_grant_while_the_way_of_knowing_is_the_same() {
    let mut b = calm();
    b.t.reconfigure(b.now, Settings { hold_reads: false, ..settings(sentinels(2)) });
    b.drain();
    assert!(b.serves(11));
    b.t.reconfigure(b.now, settings(Source::Roles { nodes: Vec::from([at(11)]), start_wait: MS }));
    b.drain();
    assert_eq!(b.view().master, None);
    b.node(11, master("r11", None));
    b.node(11, master("r11", None));
    assert!(b.serves(11) && b.view().term == Term(2));
}

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
    two(&mut b);
    two(&mut b);
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

#[test]
fn a_sentinel_that_keeps_changing_its_mind_makes_nobody_spin() {
    let mut b = calm();
    let mut rounds = 0;
    let end = b.now + 100 * MS;
    while b.now < end {
        rounds += 1;
        b.names(3, 11 + rounds % 2, 5 + u64::from(rounds % 2));
        b.node(11, master("r11", lineage("A", None)));
    }
    let asked = b.acts.iter().filter(|a| **a == Act::Ask(Target::node(at(11)))).count();
    assert!((1..=21).contains(&asked), "{asked} questions out of turn in 100 ms");
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
            quorum: 2,
            others: 2,
            down_after: 1000 * MS,
            failover_timeout: 180_000 * MS,
            pong_age: MS,
        };
        let o = Observation { from: Target::sentinel(at(2)), sent: before - 2 * MS, seen: Seen::View(view) };
        b.t.observe(b.now, o);
    });
    assert!(!b.view().writes.is_open(), "an answer to an older question takes nothing back");
    b.pass_with(300 * MS, ready);
    assert!(b.serves(11), "{}", b.view().why);
}

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
    fn ordered(&mut self, port: u16, node: u16, epoch: u64) {
        self.sentinel(
            port,
            Seen::View(View {
                epoch,
                master: at(node),
                stage: Stage::Acts,
                forced: true,
                quorum: 2,
                others: 2,
                down_after: 1000 * MS,
                failover_timeout: 10_000 * MS,
                pong_age: 100 * MS,
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
    let listed = |vote| Peer { id: "id3".into(), at: at(3), up: true, vote };
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
