//! The control plane's shell: a thread of its own with a small tokio runtime.
//!
//! ```text
//!  link task ──observation──▶ ┌────────────┐ ──snapshot──▶ Publisher (the workers' mailboxes)
//!  link task ◀─ask, pace───── │ the loop:  │ ──story─────▶ Teller (the journal)
//!     ⋮                       │ Topologies │
//!  wire task ◀────bytes─────▶ │ errands    │ ◀─timeout
//!  Handle ──sign, trust,────▶ └────────────┘
//!           reconfigure, status, switchover, pause, stop
//! ```
//! A link task owns one connection and one observer machine, and moves bytes; the loop owns the topology machines, and
//! hands observations in and acts out. Nothing here decides who is master. Errands (`switchover`) are machines of the same
//! kind, with connections of their own (`wire`).
mod link;
mod switchover;
mod wire;

use crate::clock;
use crate::events::Teller;
use link::{Link, Received};
use pointsman_core::Now;
use pointsman_core::observe::Observer;
use pointsman_core::switchover::{Demotion, Order as Switch};
use pointsman_core::topology::observation::Target;
use pointsman_core::topology::pause::Pauser;
use pointsman_core::topology::settings::Settings;
use pointsman_core::topology::snapshot::{
    ServiceId, ServiceView, ShardId, ShardView, Sign, SignKind, Snapshot,
};
use pointsman_core::topology::status::Status;
use pointsman_core::topology::{Act, Topology};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
pub use switchover::Account;
use switchover::{Accounts, Errand};
use tokio::sync::{mpsc, oneshot};
use wire::{Heard, Wires};

/// Messages that may wait for the loop, from workers and operators, and from links.
const ORDERS_MAX: usize = 1024;
const OBSERVATIONS_MAX: usize = 1024;
/// What errands' connections have brought, and is not looked at yet.
const REPORTS_MAX: usize = 256;
/// Threads that resolve names.
const RESOLVERS_MAX: usize = 16;

/// Where snapshots go.
pub trait Publisher: Send + Sync {
    /// A new view of all services. Called on the control thread; must not block.
    fn publish(&self, snapshot: Arc<Snapshot>);

    /// How many commands of a service are in flight to its master, by all workers, after they have taken over what was
    /// published last; `None` if one did not say. May block for a moment; not called on the control thread.
    fn in_flight(&self, _service: ServiceId) -> Option<u64> {
        Some(0)
    }
}

/// What the rest of the process says to the control plane. Clones speak to the same.
#[derive(Clone)]
pub struct Handle {
    orders: mpsc::Sender<Order>,
    signs_lost: Arc<AtomicBool>,
    accounts: Accounts,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

enum Order {
    Sign(Sign),
    Writes(ServiceId),
    Trust(ServiceId),
    Switch(ServiceId, Switch, oneshot::Sender<Result<(), String>>),
    Pause(ServiceId, Duration, oneshot::Sender<Result<(), String>>),
    Resume(ServiceId, oneshot::Sender<Result<Duration, String>>),
    Reconfigure(Vec<Settings>),
    Status(oneshot::Sender<Vec<Status>>),
    Stop,
}

/// Starts the control plane for these services. The first snapshot is published before any connection is made. What
/// happens is told to `teller`.
pub fn start(
    services: Vec<Settings>,
    publisher: Arc<dyn Publisher>,
    teller: Arc<dyn Teller>,
) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(RESOLVERS_MAX)
        .build()?;
    let (orders, inbox) = mpsc::channel(ORDERS_MAX);
    let (heard, observations) = mpsc::channel(OBSERVATIONS_MAX);
    let (reported, reports) = mpsc::channel(REPORTS_MAX);
    let accounts = Accounts::default();
    let signs_lost = Arc::new(AtomicBool::new(false));
    let control = Control {
        services: BTreeMap::new(),
        version: 0,
        dirty: true,
        publisher,
        heard,
        links_made: 0,
        reported,
        errands: BTreeMap::new(),
        errands_made: 0,
        accounts: accounts.clone(),
        signs_lost: signs_lost.clone(),
        teller,
    };
    let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
        runtime.block_on(control.run(services, inbox, observations, reports));
        // Names that are still being resolved keep nobody from stopping.
        runtime.shutdown_background();
    })?;
    Ok(Handle { orders, signs_lost, accounts, thread: Arc::new(Mutex::new(Some(thread))) })
}

impl Handle {
    /// A worker saw a sign. Never blocks: if the mailbox is full, all services are proven again instead.
    pub fn sign(&self, sign: Sign) {
        if self.orders.try_send(Order::Sign(sign)).is_err() {
            self.signs_lost.store(true, Ordering::Release);
        }
    }

    /// A worker sends writes of this service. Never blocks: if the mailbox is full, it will be said again.
    pub fn writes(&self, service: ServiceId) {
        let _ = self.orders.try_send(Order::Writes(service));
    }

    /// The operator believes what is seen now of this service (see [`Topology::trust`]).
    /// Waits while the mailbox is full; not to be called on a runtime's thread, as all that follow.
    pub fn trust(&self, service: ServiceId) {
        let _ = self.orders.blocking_send(Order::Trust(service));
    }

    /// Begins a switchover of a service; [`Handle::account`] tells how it goes.
    ///
    /// # Errors
    /// Why it was not begun.
    pub fn switch(&self, service: ServiceId, order: Switch) -> Result<(), String> {
        self.ask(|answer| Order::Switch(service, order, answer))
    }

    /// The account of a service's last switchover, if there was one.
    pub fn account(&self, service: ServiceId) -> Option<Account> {
        switchover::account(&self.accounts, service)
    }

    /// Holds a service's commands for `span` at most.
    ///
    /// # Errors
    /// Why not.
    pub fn pause(&self, service: ServiceId, span: Duration) -> Result<(), String> {
        self.ask(|answer| Order::Pause(service, span, answer))
    }

    /// Ends a pause; for how long it lasted.
    ///
    /// # Errors
    /// There is none.
    pub fn resume(&self, service: ServiceId) -> Result<Duration, String> {
        self.ask(|answer| Order::Resume(service, answer))
    }

    fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Order) -> Result<T, String> {
        let stopped = || String::from("the control plane has stopped");
        let (answer, answered) = oneshot::channel();
        self.orders.blocking_send(order(answer)).map_err(|_| stopped())?;
        answered.blocking_recv().unwrap_or_else(|_| Err(stopped()))
    }

    /// The set of services is now this. Those that stay keep their grants.
    pub fn reconfigure(&self, services: Vec<Settings>) {
        let _ = self.orders.blocking_send(Order::Reconfigure(services));
    }

    /// The state of all services; empty once the control plane has stopped.
    pub fn status(&self) -> Vec<Status> {
        let (answer, status) = oneshot::channel();
        if self.orders.blocking_send(Order::Status(answer)).is_err() {
            return Vec::new();
        }
        status.blocking_recv().unwrap_or_default()
    }

    /// Stops the control plane, and waits until it has. To be called outside of a runtime's threads.
    pub fn stop(&self) {
        let _ = self.orders.blocking_send(Order::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::error!(target: "pointsman::topology", "the control thread had panicked");
        }
    }
}

/// One service: its machine, its links, and its last view.
struct Service {
    topology: Topology,
    settings: Settings,
    links: HashMap<Target, Link>,
    view: Arc<ShardView>,
}

struct Control {
    services: BTreeMap<ServiceId, Service>,
    version: u64,
    /// A view changed, or the set of services did.
    dirty: bool,
    publisher: Arc<dyn Publisher>,
    heard: mpsc::Sender<Received>,
    /// Counts links, so that a late word of one that is gone is not taken for its successor's.
    links_made: u64,
    /// Where errands' connections report.
    reported: mpsc::Sender<Heard>,
    errands: BTreeMap<u64, Errand>,
    errands_made: u64,
    accounts: Accounts,
    signs_lost: Arc<AtomicBool>,
    teller: Arc<dyn Teller>,
}

impl Control {
    async fn run(
        mut self,
        services: Vec<Settings>,
        mut inbox: mpsc::Receiver<Order>,
        mut observations: mpsc::Receiver<Received>,
        mut reports: mpsc::Receiver<Heard>,
    ) {
        self.reconfigure(clock::now(), services);
        let mut end = None;
        loop {
            self.publish();
            if end.is_some_and(|end| !self.is_switching() || clock::now() >= end) {
                return;
            }
            tokio::select! {
                biased;
                order = inbox.recv(), if end.is_none() => match order {
                    None | Some(Order::Stop) => end = Some(self.wind_up(clock::now())),
                    Some(order) => self.order(clock::now(), order),
                },
                Some(heard) = reports.recv() => self.heard(clock::now(), heard),
                Some(received) = observations.recv() => self.observe(clock::now(), received),
                () = self.idle(end) => self.timeout(clock::now()),
            }
            if !self.errands.is_empty() {
                self.run_errands(clock::now());
            }
            if self.signs_lost.swap(false, Ordering::AcqRel) {
                self.doubt_all(clock::now());
            }
        }
    }

    /// Until the first machine's time has come.
    async fn idle(&self, end: Option<Now>) {
        let machines = self.services.values().filter_map(|s| s.topology.next_timeout());
        let errands = self.errands.values().filter_map(Errand::next_timeout);
        match machines.chain(errands).chain(end).min() {
            Some(at) => tokio::time::sleep(at.since(clock::now())).await,
            None => std::future::pending().await,
        }
    }

    fn order(&mut self, now: Now, order: Order) {
        match order {
            Order::Sign(sign) => self.on(sign.service, |t| t.sign(now, &sign)),
            Order::Writes(id) => self.on(id, |t| t.writes_flow(now)),
            Order::Trust(id) => self.on(id, |t| t.trust(now)),
            Order::Reconfigure(services) => self.reconfigure(now, services),
            Order::Switch(id, order, answer) => drop(answer.send(self.switch(now, id, order))),
            Order::Pause(id, span, answer) => {
                let outcome = self.with(id, |t| t.pause(now, Pauser::Operator, span));
                // Before the answer, so that whoever has it can wait for the workers to know.
                self.publish();
                drop(answer.send(outcome));
            }
            Order::Resume(id, answer) => {
                let outcome = self.with(id, |t| t.resume(now, Pauser::Operator));
                drop(answer.send(outcome));
            }
            Order::Status(answer) => {
                // Who asked may have gone away.
                let _ = answer.send(self.services.values().map(|s| s.topology.status()).collect());
            }
            Order::Stop => {}
        }
    }

    fn observe(&mut self, now: Now, received: Received) {
        let service = self.services.get(&received.service);
        let link = service.and_then(|s| s.links.get(&received.observation.from));
        if link.is_some_and(|l| l.id == received.link) {
            self.on(received.service, |t| t.observe(now, received.observation));
        }
    }

    fn timeout(&mut self, now: Now) {
        let due = |t: &Topology| t.next_timeout().is_some_and(|at| at <= now);
        let due: Vec<ServiceId> =
            self.services.iter().filter(|(_, s)| due(&s.topology)).map(|(id, _)| *id).collect();
        for id in due {
            self.on(id, |t| t.timeout(now));
        }
    }

    /// Signs were lost: as if each service's master had given one.
    fn doubt_all(&mut self, now: Now) {
        let terms: Vec<_> = self.services.iter().map(|(id, s)| (*id, s.view.term)).collect();
        for (service, term) in terms {
            let sign = Sign { service, shard: ShardId(0), term, at: now, kind: SignKind::Broken };
            self.on(service, |t| t.sign(now, &sign));
        }
    }

    fn reconfigure(&mut self, now: Now, settings: Vec<Settings>) {
        self.services.retain(|id, _| settings.iter().any(|s| s.id == *id));
        self.dirty = true;
        for s in settings {
            let id = s.id;
            if let Some(service) = self.services.get_mut(&id) {
                service.settings = s.clone();
                self.on(id, |t| t.reconfigure(now, s));
            } else {
                let topology = Topology::new(now, s.clone());
                let view = topology.view();
                self.services.insert(id, Service { topology, settings: s, links: HashMap::new(), view });
                self.on(id, |_| ());
            }
        }
    }

    /// As [`Self::on`], with an outcome.
    fn with<T>(
        &mut self,
        id: ServiceId,
        f: impl FnOnce(&mut Topology) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut outcome = Err("there is no such service".into());
        self.on(id, |t| outcome = f(t));
        outcome
    }

    /// Lets a service's machine do something, and does what it then wants done.
    fn on(&mut self, id: ServiceId, f: impl FnOnce(&mut Topology)) {
        let Some(service) = self.services.get_mut(&id) else { return };
        f(&mut service.topology);
        while let Some(act) = service.topology.poll() {
            match act {
                Act::Watch(target) => {
                    self.links_made += 1;
                    let observers = Observer::all(clock::now(), &service.settings, &target);
                    let link = Link::start(id, self.links_made, observers, &self.heard);
                    service.links.insert(target, link);
                }
                Act::Unwatch(target) => drop(service.links.remove(&target)),
                Act::Ask(target) => service.links.get(&target).into_iter().for_each(Link::ask),
                Act::Pace(target, pace) => {
                    service.links.get(&target).into_iter().for_each(|l| l.set_pace(pace))
                }
                Act::Publish(view) => {
                    service.view = view;
                    self.dirty = true;
                }
                Act::Story(event) => self.teller.tell(event),
                Act::Demote { node, to } => {
                    self.errands_made += 1;
                    let wires = Wires::new(self.errands_made, self.reported.clone());
                    let credential = service.settings.node_credential.clone();
                    let demotion = Demotion::new(clock::now(), node.clone(), to, credential);
                    let errand = Errand::demotion(id, demotion, node, wires);
                    self.errands.insert(self.errands_made, errand);
                }
                Act::Spare(node) => self.errands.retain(|_, e| !e.demotes(id, &node)),
            }
        }
    }

    fn publish(&mut self) {
        if !self.dirty {
            return;
        }
        self.dirty = false;
        self.version += 1;
        let view = |(id, s): (&ServiceId, &Service)| ServiceView { id: *id, shards: [s.view.clone()].into() };
        let services = self.services.iter().map(view).collect();
        self.publisher.publish(Arc::new(Snapshot { version: self.version, services }));
    }
}
