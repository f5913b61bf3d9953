//! One Pointsman: a real worker, a real topology machine and real observers, and the shells that move their bytes.
use super::errand::{Errand, Wish};
use super::net::{ConnId, Near, Packet, Server, Stamp};
use super::sentinel::NAME;
use super::{Blindfold, Event, Whole};
use crate::topology::drive::{host, index_of, node_of};
use pointsman_core::Now;
use pointsman_core::observe::{Do, Observer};
use pointsman_core::policy::{Durable, Policy};
use pointsman_core::session::Ends;
use pointsman_core::switchover::Demotion;
use pointsman_core::topology::observation::{Gone, Observation, Seen, Stage, Target, TargetKind};
use pointsman_core::topology::settings::{Settings, Source};
use pointsman_core::topology::snapshot::{Gate, Kept, ServiceId, ServiceView, ShardView, Sign, Snapshot};
use pointsman_core::topology::status::GuardState;
use pointsman_core::topology::{Act, Topology};
use pointsman_core::worker::{ClientId, Dst, Effect, How, Side, UpId, Worker};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

const SERVICE: ServiceId = ServiceId(0);

/// What waits for a worker's turn.
#[derive(Debug)]
pub(super) enum Mail {
    /// Of an upstream connection.
    Up(ConnId, Packet),
    /// Bytes of a client.
    Client(u32, Vec<u8>),
    /// What the control plane says.
    Snapshot(Arc<ShardView>),
    /// An errand asks how many commands are in flight.
    Count(u64),
}

/// What waits for the control plane.
#[derive(Debug)]
pub(super) enum Note {
    /// Of an observer's connection, or an errand's.
    Heard(ConnId, Packet),
    /// A worker's sign.
    Sign(Sign),
    /// A worker has sent writes.
    Writes,
    /// What an errand asked the worker for.
    Counted(u64, Option<u64>),
    /// An operator's.
    Wish(Wish),
}

struct Watching {
    observer: Observer,
    target: Target,
    conn: Option<ConnId>,
    on: bool,
}

/// One Pointsman.
pub(super) struct Proxy {
    pub(super) worker: Worker,
    pub(super) topology: Topology,
    settings: Settings,
    watching: Vec<Watching>,
    ups: BTreeMap<ConnId, UpId>,
    conns: HashMap<UpId, ConnId>,
    /// The worker's clients, by our numbers.
    pub(super) clients: BTreeMap<u32, ClientId>,
    pub(super) mail: VecDeque<Mail>,
    pub(super) notes: VecDeque<Note>,
    /// What the worker was last told, and the control plane last said.
    pub(super) installed: Arc<ShardView>,
    pub(super) said: Arc<ShardView>,
    version: u64,
    /// When the next turn is, and when the control plane wakes next.
    turn_at: u64,
    wake_at: u64,
    /// Nothing of it runs until then.
    pub(super) stopped_until: u64,
    /// The control plane does not run until then.
    pub(super) stalled_until: u64,
    /// Its process was killed; another came in its place.
    pub(super) dead: bool,
    pub(super) errands: BTreeMap<u64, Errand>,
    errands_made: u64,
    /// What a switchover would leave behind now, by its account.
    pub(super) left_behind: Vec<Arc<str>>,
}

impl Proxy {
    pub(super) fn new(now: Now, index: usize, sentinels: usize, replicas: u32, guarded: bool) -> Proxy {
        let source = Source::Sentinels {
            sentinels: (0..sentinels).map(|s| host(TargetKind::Sentinel, s)).collect(),
            master: NAME.into(),
        };
        let mut settings = Settings::new(SERVICE, "whole", source);
        settings.interval = Duration::from_millis(100);
        settings.timeout = Duration::from_millis(300);
        settings.hold_max = Some(super::HOLD_MAX);
        if !guarded {
            settings.guard = None;
        }
        let mut policy = Policy::new(SERVICE, "whole");
        policy.connect_timeout = Duration::from_millis(500);
        policy.tells_writes = true;
        policy.durable = Durable { replicas, timeout: Duration::from_millis(super::DURABLE_MS) };
        let mut worker = Worker::new(1 + index as u64, 2);
        worker.configure(now, &[Arc::new(policy)]);
        let topology = Topology::new(now, settings.clone());
        let view = topology.view();
        Proxy {
            worker,
            topology,
            settings,
            watching: Vec::new(),
            ups: BTreeMap::new(),
            conns: HashMap::new(),
            clients: BTreeMap::new(),
            mail: VecDeque::new(),
            notes: VecDeque::new(),
            installed: view.clone(),
            said: view,
            version: 0,
            turn_at: u64::MAX,
            wake_at: u64::MAX,
            stopped_until: 0,
            stalled_until: 0,
            dead: false,
            errands: BTreeMap::new(),
            errands_made: 0,
            left_behind: Vec::new(),
        }
    }

    pub(super) fn next_errand(&mut self) -> u64 {
        self.errands_made += 1;
        self.errands_made
    }

    /// Whether writes are open as it sees it, and to which node.
    pub(super) fn serves(&self) -> Option<usize> {
        self.installed.master.as_ref().filter(|_| self.installed.writes == Gate::Open).map(node_of)
    }

    fn index_of(&self, target: &Target) -> impl Iterator<Item = usize> {
        let target = target.clone();
        (0..self.watching.len()).filter(move |i| self.watching[*i].on && self.watching[*i].target == target)
    }
}

impl Whole {
    pub(super) fn at(&self) -> Now {
        Now::from_micros(self.now)
    }

    /// Something came to a proxy's host, or a direct client's.
    pub(super) fn near_hears(&mut self, conn: ConnId, packet: Packet) {
        match self.conns[conn].near {
            Near::Direct(d) => self.direct_hears(d, conn, packet),
            Near::Worker(p) => {
                self.proxies[p].mail.push_back(Mail::Up(conn, packet));
                self.turn_soon(p, self.now + 20);
            }
            Near::Observer(p, _) | Near::Errand(p, ..) => {
                self.proxies[p].notes.push_back(Note::Heard(conn, packet));
                self.wake_control(p, self.now);
            }
        }
    }

    /// The worker's next turn is then, or when the process runs again.
    pub(super) fn turn_soon(&mut self, p: usize, at: u64) {
        let proxy = &mut self.proxies[p];
        let at = at.max(proxy.stopped_until);
        if at < proxy.turn_at {
            proxy.turn_at = at;
            self.put(at, Event::Turn(p));
        }
    }

    pub(super) fn wake_control(&mut self, p: usize, at: u64) {
        let proxy = &mut self.proxies[p];
        let at = at.max(proxy.stopped_until).max(proxy.stalled_until);
        if at < proxy.wake_at {
            proxy.wake_at = at;
            self.put(at, Event::Control(p));
        }
    }

    // The worker's shell, as `crates/pointsman/src/data/event_loop.rs`.

    /// One turn of a worker.
    pub(super) fn turn(&mut self, p: usize) {
        if self.proxies[p].turn_at != self.now {
            return;
        }
        self.proxies[p].turn_at = u64::MAX;
        if self.now < self.proxies[p].stopped_until {
            return self.turn_soon(p, self.now);
        }
        let now = self.at();
        let mail = std::mem::take(&mut self.proxies[p].mail);
        let (snapshots, rest): (Vec<Mail>, Vec<Mail>) =
            mail.into_iter().partition(|m| matches!(m, Mail::Snapshot(_)));
        let (clients, ups): (Vec<Mail>, Vec<Mail>) =
            rest.into_iter().partition(|m| matches!(m, Mail::Client(..)));
        for m in snapshots.into_iter().chain(clients).chain(ups) {
            self.worker_takes(p, now, m);
            self.effects(p);
        }
        self.write(p, Side::Clients);
        self.proxies[p].worker.timeout_if_due(now);
        self.effects(p);
        self.write(p, Side::Ups);
        self.write(p, Side::Clients);
        self.effects(p);
        let worker = &self.proxies[p].worker;
        let next = if worker.has_dirty() { Some(now) } else { worker.next_timeout(now) };
        if let Some(at) = next {
            self.turn_soon(p, at.as_micros().max(self.now + 1));
        }
    }

    fn worker_takes(&mut self, p: usize, now: Now, mail: Mail) {
        let durable = matches!(&mail, Mail::Client(c, _) if self.clients[*c as usize].durable);
        let proxy = &mut self.proxies[p];
        match mail {
            Mail::Snapshot(view) => {
                proxy.installed = view.clone();
                proxy.version += 1;
                let shards = [view].into();
                let services = [ServiceView { id: SERVICE, shards }].into();
                proxy.worker.snapshot(now, Arc::new(Snapshot { version: proxy.version, services }));
            }
            Mail::Client(c, bytes) => {
                let id = proxy.clients.get(&c).copied();
                let id = match id {
                    Some(id) => id,
                    None => {
                        let Ok(id) = proxy.worker.accepted(now, SERVICE, durable, Ends::Unknown) else {
                            return;
                        };
                        proxy.clients.insert(c, id);
                        id
                    }
                };
                proxy.worker.read(now, Dst::Client(id), &bytes);
            }
            Mail::Up(conn, packet) => {
                let Some(id) = proxy.ups.get(&conn).copied() else { return };
                match packet {
                    Packet::Connected => proxy.worker.connected(now, id, true),
                    Packet::Refused => {
                        self.forget_up(p, conn);
                        self.proxies[p].worker.connected(now, id, false);
                    }
                    Packet::Data(bytes, _) => proxy.worker.read(now, Dst::Up(id), &bytes),
                    Packet::Reset => {
                        self.forget_up(p, conn);
                        self.proxies[p].worker.gone(now, Dst::Up(id));
                    }
                    Packet::Connect => {}
                }
            }
            Mail::Count(number) => {
                let of = proxy.worker.counters().into_iter().find(|(id, _)| *id == SERVICE);
                proxy.notes.push_back(Note::Counted(number, of.map(|(_, c)| c.in_flight_now)));
                self.wake_control(p, self.now + 20);
            }
        }
    }

    fn forget_up(&mut self, p: usize, conn: ConnId) {
        self.conns[conn].closed = true;
        if let Some(id) = self.proxies[p].ups.remove(&conn) {
            self.proxies[p].conns.remove(&id);
        }
    }

    fn write(&mut self, p: usize, side: Side) {
        let now = self.at();
        while let Some(dst) = self.proxies[p].worker.next_dirty(side) {
            let bytes = self.proxies[p].worker.gather(now, dst).to_vec();
            if bytes.is_empty() {
                continue;
            }
            match dst {
                Dst::Client(id) => {
                    let client = self.proxies[p].clients.iter().find(|(_, c)| **c == id).map(|(c, _)| *c);
                    if let Some(c) = client {
                        let to = self.crossed(c);
                        self.put(self.now + 50, Event::Hear(to, bytes.clone()));
                    }
                }
                Dst::Up(id) => {
                    let Some(conn) = self.proxies[p].conns.get(&id).copied() else { continue };
                    let stamp = self.stamp(p);
                    self.send(conn, true, Packet::Data(bytes.clone(), Some(stamp)));
                }
            }
            self.proxies[p].worker.wrote(now, dst, bytes.len());
        }
        self.effects(p);
    }

    /// What the worker may send now, by what it was told.
    fn stamp(&self, p: usize) -> Stamp {
        let view = &self.proxies[p].installed;
        let lasts = |until: Option<Now>| until.is_none_or(|t| self.at() < t);
        let writes = view.writes == Gate::Open && lasts(view.writes_until);
        let reads = view.reads == Gate::Open && lasts(view.reads_until);
        Stamp { at: self.now, term: view.term.0, allowed: [writes, reads] }
    }

    fn effects(&mut self, p: usize) {
        while let Some(effect) = self.proxies[p].worker.poll() {
            match effect {
                Effect::Connect(id, to) => {
                    let n = node_of(&to);
                    let conn = self.dial(Near::Worker(p), Server::Node(n));
                    let proxy = &mut self.proxies[p];
                    proxy.ups.insert(conn, id);
                    proxy.conns.insert(id, conn);
                }
                Effect::Close(Dst::Up(id), how) => {
                    if let Some(conn) = self.proxies[p].conns.get(&id).copied() {
                        self.forget_up(p, conn);
                        self.close_up(conn, how);
                    }
                }
                Effect::Close(Dst::Client(id), _) => {
                    let client = self.proxies[p].clients.iter().find(|(_, c)| **c == id).map(|(c, _)| *c);
                    if let Some(c) = client {
                        self.put(self.now + 60, Event::Closed(c));
                    }
                }
                Effect::OnlyRead(_) => self.report.count("connections that are read on", 1),
                Effect::Arrived(id) => self.arrived(p, id),
                // Nobody says anything of other sessions here, or sends no more and stays.
                Effect::Finish(_) | Effect::Resume(_) | Effect::Ask(_) | Effect::Found { .. } => {}
                Effect::Tell(pointsman_core::worker::Event::Sign(sign)) => {
                    self.note(|| format!("proxy {p}: {sign:?}"));
                    self.proxies[p].notes.push_back(Note::Sign(sign));
                    self.wake_control(p, self.now + 20);
                }
                Effect::Tell(pointsman_core::worker::Event::Writes(_)) => {
                    self.proxies[p].notes.push_back(Note::Writes);
                    self.wake_control(p, self.now + 20);
                }
                Effect::Tell(
                    pointsman_core::worker::Event::SetupFailed { .. }
                    | pointsman_core::worker::Event::Overrun { .. },
                ) => {}
            }
        }
    }

    fn arrived(&mut self, p: usize, id: UpId) {
        let conn = self.proxies[p].conns.get(&id).copied();
        let Some(conn) = conn.filter(|conn| !self.has_delivered(*conn)) else { return };
        self.forget_up(p, conn);
        self.close_up(conn, How::Abort);
        let now = self.at();
        self.proxies[p].worker.gone(now, Dst::Up(id));
    }

    fn close_up(&mut self, conn: ConnId, how: How) {
        let lingers = how == How::Gently || self.is(Blindfold::Linger);
        self.close(conn, lingers);
    }

    // The control plane's shell, as `crates/pointsman/src/control`.

    /// The control plane does what is due.
    pub(super) fn control(&mut self, p: usize) {
        if self.proxies[p].wake_at != self.now {
            return;
        }
        self.proxies[p].wake_at = u64::MAX;
        let proxy = &self.proxies[p];
        if self.now < proxy.stopped_until.max(proxy.stalled_until) {
            return self.wake_control(p, self.now);
        }
        let now = self.at();
        while let Some(note) = self.proxies[p].notes.pop_front() {
            match note {
                Note::Heard(conn, packet) => match self.conns[conn].near {
                    Near::Errand(_, number, line) => self.errand_hears(p, number, line, conn, packet),
                    _ => self.observer_hears(p, conn, packet),
                },
                Note::Counted(number, commands) => self.counted(p, number, commands),
                Note::Wish(wish) => self.wished(p, wish),
                Note::Sign(sign) => {
                    self.proxies[p].topology.sign(now, &sign);
                    self.obey(p);
                }
                Note::Writes => {
                    self.proxies[p].topology.writes_flow(now);
                    self.obey(p);
                }
            }
        }
        for i in 0..self.proxies[p].watching.len() {
            let w = &mut self.proxies[p].watching[i];
            if w.on && w.observer.next_timeout().is_some_and(|t| t <= now) {
                w.observer.timeout(now);
                self.drain(p, i);
            }
        }
        if self.proxies[p].topology.next_timeout().is_some_and(|t| t <= now) {
            self.proxies[p].topology.timeout(now);
        }
        self.obey(p);
        self.run_errands(p);
        let proxy = &self.proxies[p];
        let observers = proxy.watching.iter().filter(|w| w.on).filter_map(|w| w.observer.next_timeout());
        let errands = proxy.errands.values().filter_map(Errand::next_timeout);
        if let Some(at) = observers.chain(errands).chain(proxy.topology.next_timeout()).min() {
            self.wake_control(p, at.as_micros().max(self.now + 1));
        }
    }

    fn observer_hears(&mut self, p: usize, conn: ConnId, packet: Packet) {
        let now = self.at();
        let Near::Observer(_, i) = self.conns[conn].near else { return };
        let w = &mut self.proxies[p].watching[i];
        if w.conn != Some(conn) {
            return;
        }
        match packet {
            Packet::Connected => {
                let addr = w.target.at.literal().expect("model hosts are addresses");
                w.observer.connected(now, addr);
            }
            Packet::Refused => {
                w.conn = None;
                w.observer.gone(now, Gone::Refused);
            }
            Packet::Reset => {
                w.conn = None;
                self.conns[conn].closed = true;
                w.observer.gone(now, Gone::Closed);
            }
            Packet::Data(bytes, _) => w.observer.bytes(now, &bytes),
            Packet::Connect => {}
        }
        self.drain(p, i);
    }

    fn drain(&mut self, p: usize, i: usize) {
        while let Some(what) = self.proxies[p].watching[i].observer.poll() {
            match what {
                Do::Connect => {
                    let target = &self.proxies[p].watching[i].target;
                    let n = index_of(&target.at);
                    let server = match target.kind {
                        TargetKind::Sentinel => Server::Sentinel(n),
                        TargetKind::Node | TargetKind::Guard => Server::Node(n),
                    };
                    let conn = self.dial(Near::Observer(p, i), server);
                    self.proxies[p].watching[i].conn = Some(conn);
                }
                Do::Send(bytes) => {
                    if let Some(conn) = self.proxies[p].watching[i].conn {
                        self.send(conn, true, Packet::Data(bytes, None));
                    }
                }
                Do::Close => {
                    if let Some(conn) = self.proxies[p].watching[i].conn.take() {
                        self.close(conn, false);
                    }
                }
                Do::Observed(o) => {
                    if let Some(o) = self.blind(p, o) {
                        let now = self.at();
                        self.proxies[p].topology.observe(now, o);
                    }
                    self.obey(p);
                }
            }
        }
    }

    /// What the product is kept from knowing.
    fn blind(&self, p: usize, mut o: Observation) -> Option<Observation> {
        let disarmed = || self.proxies[p].topology.status().guard.state == GuardState::Disarmed;
        match (self.blindfold, &mut o.seen) {
            (Blindfold::Silence, Seen::Acknowledged(yes)) => *yes = true,
            (Blindfold::Vouched, Seen::View(v)) if disarmed() => v.pong_age = Duration::ZERO,
            (Blindfold::Epochs, Seen::View(v)) => v.epoch = 1,
            (Blindfold::Stages, Seen::View(v)) => v.stage = Stage::Calm,
            (Blindfold::Stages, Seen::Flags(f)) => f.stage = Stage::Calm,
            (Blindfold::Stages, Seen::Announced(_) | Seen::Replicas(_)) => return None,
            _ => {}
        }
        Some(o)
    }

    /// Does what a topology machine wants done.
    pub(super) fn obey(&mut self, p: usize) {
        let now = self.at();
        while let Some(act) = self.proxies[p].topology.poll() {
            match act {
                Act::Watch(target) => {
                    let all = Observer::all(now, &self.proxies[p].settings, &target);
                    for observer in all {
                        let w = Watching { observer, target: target.clone(), conn: None, on: true };
                        self.proxies[p].watching.push(w);
                        self.drain(p, self.proxies[p].watching.len() - 1);
                    }
                    self.wake_control(p, self.now + 1);
                }
                Act::Unwatch(target) => {
                    for i in self.proxies[p].index_of(&target).collect::<Vec<_>>() {
                        self.proxies[p].watching[i].on = false;
                        if let Some(conn) = self.proxies[p].watching[i].conn.take() {
                            self.close(conn, false);
                        }
                    }
                }
                Act::Ask(target) => self.tell_observers(p, &target, |o| o.ask(now)),
                Act::Pace(target, pace) => self.tell_observers(p, &target, |o| o.set_pace(now, pace)),
                Act::Publish(view) => self.publish(p, view),
                Act::Demote { node, to } => {
                    let demotion = Demotion::new(now, node.clone(), to, None);
                    let number = self.proxies[p].next_errand();
                    self.proxies[p].errands.insert(number, Errand::demotion(demotion, node));
                }
                Act::Spare(node) => self.proxies[p].errands.retain(|_, e| !e.demotes(&node)),
                Act::Story(e) => {
                    self.note(|| format!("proxy {p}: {} {}: {}", e.term.0, e.kind.label(), e.text));
                    self.report.count(e.kind.label(), 1);
                    self.report.count(
                        "kept by a script",
                        u64::from(e.text.contains("runs a script, and is master")),
                    );
                    self.check.tells(self.now, p, &e);
                }
            }
        }
    }

    fn tell_observers(&mut self, p: usize, target: &Target, f: impl Fn(&mut Observer)) {
        for i in self.proxies[p].index_of(target).collect::<Vec<_>>() {
            f(&mut self.proxies[p].watching[i].observer);
            self.drain(p, i);
        }
        self.wake_control(p, self.now + 1);
    }

    fn publish(&mut self, p: usize, view: Arc<ShardView>) {
        let before = std::mem::replace(&mut self.proxies[p].said, view.clone());
        self.check.published(self.now, p, &before, &view, &self.world);
        let view = match self.blindfold {
            Blindfold::Lease => {
                Arc::new(ShardView { writes_until: None, reads_until: None, ..(*view).clone() })
            }
            Blindfold::Withheld => {
                let kept = Some(Kept { term: view.term, offset: u64::MAX });
                Arc::new(ShardView { kept, ..(*view).clone() })
            }
            Blindfold::LastWords => Arc::new(ShardView { deposed: None, ..(*view).clone() }),
            Blindfold::Fence if view.master.is_some() => self.unfenced(p, &view),
            _ => view,
        };
        self.put(self.now + 30, Event::Publish(p, view));
    }

    /// The view of a product that does not fence: the grant's end is not told, until there is another master.
    fn unfenced(&self, p: usize, view: &Arc<ShardView>) -> Arc<ShardView> {
        let old = &self.proxies[p].installed;
        let shut = view.writes != Gate::Open && old.writes == Gate::Open;
        if shut { old.clone() } else { view.clone() }
    }
}
