//! What the topology machine does, at the level of observations.
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

mod events;
mod followers;
mod guard;
mod holds;
mod known;
mod lease;
mod machine;
mod majority;
mod promotion;
mod scripts;
mod story;
mod wanted;
mod without_sentinels;

const MS: Duration = Duration::from_millis(1);

fn at(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".into(), port }
}

fn end(port: u16) -> Option<Endpoint> {
    Some(Endpoint::Tcp(at(port).literal().unwrap()))
}

fn settings(source: Source) -> Settings {
    Settings { interval: 200 * MS, ..Settings::new(ServiceId(0), "cache", source) }
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
        attached: Vec::new(),
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
        attached: Vec::new(),
    })
}

/// What a Sentinel says of a node that is well.
fn seen_view(node: u16) -> View {
    View {
        epoch: 5,
        master: at(node),
        stage: Stage::Calm,
        forced: false,
        coordinated: false,
        quorum: 2,
        others: 2,
        down_after: 1000 * MS,
        failover_timeout: 180_000 * MS,
        pong_age: 100 * MS,
        ping_age: Duration::ZERO,
        linked: true,
    }
}

/// A Sentinel that another one sees up.
fn peer(port: u16) -> Peer {
    Peer { id: format!("id{port}").into(), at: at(port), up: true, pong_age: Duration::ZERO, vote: None }
}

/// A machine with a clock, and what it has said.
struct Bench {
    now: Now,
    t: Topology,
    /// What was published when its acts were last looked at.
    known: Box<ShardView>,
    acts: Vec<Act>,
}

impl Bench {
    fn new(s: Settings) -> Bench {
        let now = Now::from_millis(1000);
        let t = Topology::new(now, s);
        let known = Box::new((*t.view()).clone());
        let mut b = Bench { now, t, known, acts: Vec::new() };
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
        self.sees(port, node, epoch, stage, 100 * MS);
    }

    /// A Sentinel's view, with the age of its last pong of the master.
    fn sees(&mut self, port: u16, node: u16, epoch: u64, stage: Stage, pong_age: Duration) {
        self.sentinel(port, Seen::View(View { epoch, stage, pong_age, ..seen_view(node) }));
    }

    /// It counts so many others.
    fn counts(&mut self, port: u16, node: u16, others: u32) {
        self.sentinel(port, Seen::View(View { others, ..seen_view(node) }));
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
        let views: Vec<ShardView> = views.collect();
        self.acts.clear();
        if let Some(v) = views.last() {
            *self.known = v.clone();
        }
        views
    }

    /// How many of the views that were published say more than that a lease is renewed.
    fn news(&mut self) -> usize {
        let plain = |v: ShardView| ShardView { writes_until: None, proven_at: Now::ZERO, ..v };
        let mut last = plain((*self.known).clone());
        let mut n = 0;
        for v in self.published() {
            n += usize::from(plain(v.clone()) != last);
            last = plain(v);
        }
        n
    }

    fn stories(&self, kind: EventKind) -> Vec<String> {
        let told = self.acts.iter().filter_map(|a| match a {
            Act::Story(e) if e.kind == kind => Some(String::from(&*e.text)),
            _ => None,
        });
        told.collect()
    }

    /// How often whom it wants asked, as far as that changed.
    fn paces(&mut self) -> Vec<(TargetKind, Pace)> {
        let acts = core::mem::take(&mut self.acts).into_iter();
        let all = acts.filter_map(|a| match a {
            Act::Pace(t, pace) => Some((t.kind, pace)),
            _ => None,
        });
        all.collect()
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
    b.published();
    b
}

/// Everybody answers once more: what the machine asked for.
fn ready(b: &mut Bench) {
    b.all_name(11, 5);
    b.node(12, replica("r12", 11, "A"));
    b.node(11, master("r11", lineage("A", None)));
}

fn ready_but(b: &mut Bench, not: u16) {
    (1..=3).filter(|s| *s != not).for_each(|s| b.names(s, 11, 5));
    b.node(12, replica("r12", 11, "A"));
    b.node(11, master("r11", lineage("A", None)));
}
