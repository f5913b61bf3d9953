//! The whole: real workers, real topology machines and real observers, byte by byte, among model nodes that replicate
//! and model Sentinels that vote, under one virtual clock, from a seed.
//!
//! ```text
//!   clients ─▶ Worker ⇄ net ⇄ nodes (logs, histories, WAIT, pauses) ◀─ promote, demote ─┐
//!                ▲ snapshots         ▲                                                Sentinels
//!             Topology ◀─ Observers ⇄ net ⇄ nodes and Sentinels (MASTER, events …) ◀────┘
//!                ▲ hold, release     ▲
//!  operators ─▶ Switchover, Demotion ⇄ net ⇄ nodes and Sentinels ◀─ net ⇄ clients that pass the proxies by
//! ```
//! A history is short: a few clients write values that are theirs alone, one or two things go wrong (processes are killed
//! or stopped, hosts cut off, failovers ordered, a control plane or a whole proxy stalls, dies, or switches over), all
//! heals, and whoever is master then must have what was acknowledged. The model Sentinels are those of
//! [`crate::topology`], with its times.
//!
//! What is checked carries the number of the invariant in product.md: (1) one node executes a term's writes, terms grow,
//! and nothing is acknowledged by a node whose successor has been promoted; (2) nothing is sent through a closed gate
//! or after the lease, and nothing queued arrives on a closed connection; (3) whoever is granted was named by a majority or
//! promoted by a Sentinel; (4) replies go to their owners; (6) no write is executed twice, out of order, or after its
//! client was told that it was not; what was acknowledged is lost only if something kept it from the one that was promoted;
//! (8) everybody is served again in the end. What must hold of planned changes of master is in `planned`.
mod check;
mod client;
mod direct;
mod errand;
mod faults;
mod handover;
mod loss;
mod net;
mod node;
mod orders;
mod planned;
mod proxy;
mod sentinel;
mod truth;

use crate::resp::Tag;
use crate::rng::Rng;
use crate::topology::drive::{host, id_of};
use crate::topology::world::World;
use check::Check;
use client::Client;
use direct::Direct;
use errand::Wish;
use faults::Fault;
use net::{Conn, ConnId, Packet};
use node::Store;
use planned::Planned;
use pointsman_core::Now;
use pointsman_core::topology::observation::TargetKind;
use pointsman_core::topology::snapshot::ShardView;
use proxy::Proxy;
use sentinel::Desk;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use truth::Truth;

/// The offset of a node that has nothing.
const BASE: u64 = 1000;
/// How long a hold may last.
const HOLD_MAX: Duration = Duration::from_millis(3000);
/// How long replicas are waited for, for durable writes, in milliseconds.
const DURABLE_MS: u64 = 200;
/// Everybody must be served so soon after all has healed, in microseconds.
const RECOVERED_WITHIN: u64 = 30_000_000;
/// Nobody waits for so long while its proxy's gates are open and the master works, in microseconds.
const PATIENCE: u64 = 3_000_000;

/// A rule that the product is made to break: each must be caught by a checker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blindfold {
    /// None: the product as it is.
    None,
    /// All views seem to be of one config epoch.
    Epochs,
    /// No failover seems to go on.
    Stages,
    /// Workers are not told that writes are to stop, before there is another master.
    Fence,
    /// Workers know of no lease.
    Lease,
    /// Replies that arrive after a sign are not withheld.
    Withheld,
    /// `WAIT` seems to be answered by all replicas at once.
    Wait,
    /// There is no guard.
    Guard,
    /// Some replica seems to acknowledge always: the guard never trips.
    Silence,
    /// Once Sentinels have vouched for the master, they seem to go on: the guard is disarmed for as long as none of them says
    /// that it is down.
    Vouched,
    /// What stands in the kernel when a connection is closed still arrives.
    Linger,
    /// A write is sometimes sent twice.
    Once,
    /// A reply sometimes goes to another client.
    Owner,
    /// A switchover unpauses before the old master follows.
    UnpauseFirst,
    /// … does not wait until the replicas have what the master has.
    Offsets,
    /// … pauses for longer than the Sentinels bear.
    PauseBound,
    /// … does not put priorities back.
    Restore,
    /// Nobody knows that a Sentinel has the master hand over, and will cut clients.
    Coordinated,
    /// A switchover does not call off a handover that comes to nothing.
    CallOff,
    /// What a deposed master still says of what it was sent is not waited for.
    LastWords,
}

/// What happened, summed up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// What was counted, by name.
    pub counts: BTreeMap<String, u64>,
}

impl Report {
    /// Adds another run's.
    pub fn add(&mut self, other: &Report) {
        other.counts.iter().for_each(|(name, n)| self.count(name, *n));
    }

    fn count(&mut self, name: &str, n: u64) {
        match self.counts.get_mut(name) {
            Some(all) => *all += n,
            None => drop(self.counts.insert(name.into(), n)),
        }
    }

    /// How often something happened.
    pub fn of(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

/// A broken invariant.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What is wrong.
    pub what: String,
    /// What happened before, if it was asked for.
    pub trace: Vec<String>,
}

#[derive(Debug)]
enum Event {
    Sentinel(usize),
    Cron(usize),
    Feed(usize),
    Acknowledge(usize, usize),
    Waited(usize),
    Runs(usize),
    /// A node says that it runs a script.
    Busy(usize),
    HandsOver(usize),
    Arrive(ConnId, bool, Packet),
    Turn(usize),
    Control(usize),
    Publish(usize, Arc<ShardView>),
    Speak(usize),
    Hear(u32, Vec<u8>),
    Closed(u32),
    Write(usize),
    Wish(usize, Wish),
    Count(usize, u64),
    Start(usize),
    Fault(Fault),
    Heal,
    Unstick,
    Look,
}

struct Whole {
    now: u64,
    rng: Rng,
    world: World,
    stores: Vec<Store>,
    desks: Vec<Desk>,
    /// Addresses of nodes, then of Sentinels; and the Sentinels' run ids.
    names: Vec<Box<str>>,
    ids: Vec<Box<str>>,
    conns: Vec<Conn>,
    proxies: Vec<Proxy>,
    clients: Vec<Client>,
    directs: Vec<Direct>,
    check: Check,
    planned: Planned,
    report: Report,
    queue: BTreeMap<(u64, u64), Event>,
    posted: u64,
    blindfold: Blindfold,
    trace: Option<Vec<String>>,
    plan: Vec<(u64, Fault)>,
    healed: Option<u64>,
    /// Sentinels announce what they do.
    announces: bool,
}

/// Runs the history of a seed.
pub fn run(seed: u64, blindfold: Blindfold, traced: bool) -> Result<Report, Broken> {
    let mut whole = Whole::new(seed, blindfold, traced);
    whole.run();
    match whole.check.broken.take() {
        None => Ok(whole.report),
        Some(what) => {
            let what = format!("at {} us, with {:?}: {what}", whole.now, whole.plan);
            Err(Broken { what, trace: whole.trace.unwrap_or_default() })
        }
    }
}

impl Whole {
    fn new(seed: u64, blindfold: Blindfold, traced: bool) -> Whole {
        let mut rng = Rng::new(seed);
        let sentinels = if rng.chance(80) { 3 } else { 5 };
        let nodes = if rng.chance(70) { 3 } else { 2 };
        let majority = sentinels / 2 + 1;
        let quorum = if rng.chance(80) { majority } else { rng.between(1, majority as u64) as usize };
        let mut world = World::new(sentinels, nodes, quorum, Rng::new(rng.any()));
        world.modern = rng.chance(35) || matches!(blindfold, Blindfold::Coordinated | Blindfold::CallOff);
        let stores = world.nodes.iter().map(|n| Store::new(n.of, n.replid)).collect();
        let now = 100_000;
        let durable = matches!(blindfold, Blindfold::Wait) || rng.chance(40);
        // What the lease alone must do is seen where the guard has not done it before.
        let guarded = rng.chance(85) && blindfold != Blindfold::Lease;
        let guards = guarded && blindfold != Blindfold::Guard;
        let proxies: Vec<Proxy> = (0..if rng.chance(25) { 2 } else { 1 })
            .map(|p| Proxy::new(Now::from_micros(now), p, sentinels, nodes as u32 - 1, guards))
            .collect();
        let clients = (0..rng.between(2, 4) as u32)
            .map(|id| {
                let pace = rng.between(8_000, 40_000);
                Client::new(id, id as usize % proxies.len(), 1 + rng.index(3), pace, durable && id % 2 == 1)
            })
            .collect();
        let plan = faults::plan(&mut rng, blindfold);
        let truth = Truth::new(nodes, sentinels);
        let switches = plan.iter().any(|(_, f)| matches!(f, Fault::Switch(_)));
        let directs = (0..usize::from(switches)).map(|_| Direct::new(rng.between(5_000, 20_000))).collect();
        let names = (0..nodes).map(|n| host(TargetKind::Node, n).host);
        let names = names.chain((0..sentinels).map(|s| host(TargetKind::Sentinel, s).host)).collect();
        Whole {
            now,
            world,
            stores,
            names,
            ids: (0..sentinels).map(id_of).collect(),
            desks: (0..sentinels).map(|_| Desk::default()).collect(),
            conns: Vec::new(),
            proxies,
            clients,
            directs,
            check: Check::new(truth, quorum, guarded),
            planned: Planned::default(),
            report: Report::default(),
            queue: BTreeMap::new(),
            posted: 0,
            blindfold,
            trace: traced.then(Vec::new),
            plan,
            healed: None,
            announces: rng.chance(70),
            rng,
        }
    }

    /// Whether the proxies are told to have a guard.
    fn guards(&self) -> bool {
        self.check.guarded && !self.is(Blindfold::Guard)
    }

    fn is(&self, blindfold: Blindfold) -> bool {
        self.blindfold == blindfold
    }

    fn put(&mut self, at: u64, event: Event) {
        self.posted += 1;
        self.queue.insert((at.max(self.now), self.posted), event);
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:9} {}", self.now, what()));
        }
    }

    fn begin(&mut self) {
        self.watch();
        self.check.named(self.now, &self.world);
        for s in 0..self.desks.len() {
            let at = self.now + self.rng.below(50_000);
            self.put(at, Event::Sentinel(s));
        }
        for n in 0..self.stores.len() {
            let at = self.now + self.rng.below(100_000);
            self.put(at, Event::Cron(n));
        }
        for p in 0..self.proxies.len() {
            self.obey(p);
            self.wake_control(p, self.now + 1);
        }
        for c in 0..self.clients.len() {
            self.put(self.now + 1, Event::Speak(c));
        }
        for d in 0..self.directs.len() {
            self.put(self.now + 1, Event::Write(d));
        }
        let plan = self.plan.clone();
        for (at, fault) in &plan {
            self.put(self.now + at, Event::Fault(*fault));
        }
        let last = plan.iter().map(|(at, _)| *at).max().unwrap_or(0);
        let heal = self.now + last + self.rng.between(700_000, 2_500_000);
        self.put(heal, Event::Heal);
        self.put(self.now, Event::Look);
    }

    fn run(&mut self) {
        self.begin();
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.happen(event);
            self.watch();
            self.check.explained();
            if self.check.broken.is_some() {
                return;
            }
            if self.recovered() {
                break;
            }
            let late = self.healed.is_some_and(|t| self.now > t + RECOVERED_WITHIN);
            if late {
                let what = if self.is_put_back() {
                    "(8) not everybody is served again"
                } else {
                    "(switchover) not all is put back"
                };
                return self.check.breaks(format!("{what}: {}", self.state()));
            }
        }
        self.finish();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Sentinel(s) => self.sentinel_ticks(s),
            Event::Cron(n) => self.node_cron(n),
            Event::Feed(n) => self.feed(n),
            Event::Acknowledge(_, n) if self.is_paused(n) => {}
            Event::Acknowledge(r, n) => self.acknowledge(r, n),
            Event::Waited(n) => self.waited(n),
            Event::Runs(n) => self.node_resumes(n),
            Event::Busy(n) => self.node_is_busy(n),
            Event::HandsOver(n) => self.hand_over(n),
            Event::Arrive(conn, out, packet) => self.arrive(conn, out, packet),
            Event::Turn(p) => self.turn(p),
            Event::Control(p) => self.control(p),
            Event::Publish(p, view) => {
                self.note(|| format!("proxy {p} is told {view:?}"));
                self.proxies[p].mail.push_back(proxy::Mail::Snapshot(view));
                self.turn_soon(p, self.now);
            }
            Event::Speak(c) => self.speak(c),
            Event::Hear(c, bytes) => self.hear(c, &bytes),
            Event::Closed(c) => self.client_closed(c),
            Event::Write(d) => self.write_directly(d),
            Event::Wish(p, wish) => {
                self.proxies[p].notes.push_back(proxy::Note::Wish(wish));
                self.wake_control(p, self.now);
            }
            Event::Count(p, number) => self.count(p, number),
            Event::Start(p) => self.start_proxy(p),
            Event::Fault(fault) => self.fault(fault),
            Event::Heal => self.heal(),
            Event::Unstick => self.unstick(),
            Event::Look => self.look_at_waits(),
        }
    }

    /// (8) Nobody waits for long behind open gates of a master that works.
    fn look_at_waits(&mut self) {
        self.put(self.now + 200_000, Event::Look);
        for c in 0..self.clients.len() {
            let proxy = &self.proxies[self.clients[c].proxy];
            let waits = self.clients[c].waits().filter(|t| self.now > t + PATIENCE);
            let works = |n: &usize| {
                let node = &self.world.nodes[*n];
                node.alive && !node.stopped && node.of.is_none() && self.now > node.since * 1000 + PATIENCE
            };
            let serves = proxy.serves().filter(works);
            let well = self.healed.is_some_and(|t| self.now > t + PATIENCE);
            if well
                && waits.is_some()
                && serves.is_some()
                && self.now > proxy.stopped_until.saturating_add(PATIENCE)
            {
                let text = format!("(8) client {c} waits since {waits:?}: {}", self.state());
                self.check.breaks(text);
            }
        }
    }

    /// Whether the true master is served by all, to all.
    fn recovered(&self) -> bool {
        let Some(healed) = self.healed else { return false };
        let truth = self.world.truth(self.now / 1000).map(|(n, _)| n);
        let right =
            |p: &Proxy| p.serves().is_some_and(|n| Some(n) == truth && self.world.nodes[n].of.is_none());
        let right = |p: &Proxy| p.dead || right(p);
        self.is_put_back() && self.clients.iter().all(|c| c.served > healed) && self.proxies.iter().all(right)
    }

    fn state(&self) -> String {
        let truth = self.world.truth(self.now / 1000);
        let views: Vec<_> = self.proxies.iter().map(|p| &p.installed).collect();
        format!("truth {truth:?}, nodes {:?}, views {views:?}", self.world.nodes)
    }

    fn finish(&mut self) {
        let Some(n) = self.world.truth(self.now / 1000).map(|(n, _)| n) else { return };
        let has: BTreeSet<Tag> = self.stores[n].log.iter().filter_map(|e| e.tag).collect();
        let calm = self.plan.len() == 1 && self.plan[0].1.is_mild();
        self.check.finish(&has, calm, &mut self.report);
        self.finish_planned();
        self.report.count("seeds", 1);
        self.report.count("virtual ms", self.now / 1000 - 100);
        if let [(_, fault)] = self.plan[..] {
            let name = fault.name();
            for (what, n) in [
                ("histories", 1),
                ("lost", self.check.lost.len() as u64),
                ("dual", self.check.dual.len() as u64),
                ("errors", self.check.errors),
            ] {
                self.report.count(&format!("{name}: {what}"), n);
            }
        }
    }
}
