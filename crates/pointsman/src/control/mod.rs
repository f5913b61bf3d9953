//! The control plane's shell: a thread of its own with a small tokio runtime.
//!
//! ```text
//!  link task ──observation──▶ ┌────────────┐ ──snapshot──▶ Publisher (the workers' mailboxes)
//!  link task ◀─ask, hurry──── │ the loop:  │ ──story─────▶ Teller (the journal)
//!     ⋮                       │ Topologies │
//!  Handle ──sign, trust,────▶ └────────────┘ ◀─timeout
//!           reconfigure, status, stop
//! ```
//! A link task owns one connection and one observer machine, and moves bytes; the loop owns the topology machines, and
//! hands observations in and acts out. Nothing here decides who is master.
mod link;

use crate::clock;
use crate::events::Teller;
use link::{Link, Received};
use pointsman_core::Now;
use pointsman_core::observe::Observer;
use pointsman_core::topology::observation::Target;
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
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for the loop, from workers and operators, and from links.
const ORDERS_MAX: usize = 1024;
const OBSERVATIONS_MAX: usize = 1024;
/// Threads that resolve names.
const RESOLVERS_MAX: usize = 16;

/// Where snapshots go.
pub trait Publisher: Send + Sync {
    /// A new view of all services. Called on the control thread; must not block.
    fn publish(&self, snapshot: Arc<Snapshot>);
}

/// What the rest of the process says to the control plane. Clones speak to the same.
#[derive(Clone)]
pub struct Handle {
    orders: mpsc::Sender<Order>,
    signs_lost: Arc<AtomicBool>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

enum Order {
    Sign(Sign),
    Writes(ServiceId),
    Trust(ServiceId),
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
    let signs_lost = Arc::new(AtomicBool::new(false));
    let control = Control {
        services: BTreeMap::new(),
        version: 0,
        dirty: true,
        publisher,
        heard,
        links_made: 0,
        signs_lost: signs_lost.clone(),
        teller,
    };
    let thread = std::thread::Builder::new().name("control".into()).spawn(move || {
        runtime.block_on(control.run(services, inbox, observations));
        // Names that are still being resolved keep nobody from stopping.
        runtime.shutdown_background();
    })?;
    Ok(Handle { orders, signs_lost, thread: Arc::new(Mutex::new(Some(thread))) })
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
    signs_lost: Arc<AtomicBool>,
    teller: Arc<dyn Teller>,
}

impl Control {
    async fn run(
        mut self,
        services: Vec<Settings>,
        mut inbox: mpsc::Receiver<Order>,
        mut observations: mpsc::Receiver<Received>,
    ) {
        self.reconfigure(clock::now(), services);
        loop {
            self.publish();
            tokio::select! {
                biased;
                order = inbox.recv() => match order {
                    None | Some(Order::Stop) => return,
                    Some(order) => self.order(clock::now(), order),
                },
                Some(received) = observations.recv() => self.observe(clock::now(), received),
                () = self.idle() => self.timeout(clock::now()),
            }
            if self.signs_lost.swap(false, Ordering::AcqRel) {
                self.doubt_all(clock::now());
            }
        }
    }

    /// Until the first machine's time has come.
    async fn idle(&self) {
        let next = self.services.values().filter_map(|s| s.topology.next_timeout()).min();
        match next {
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
                Act::Hurry(target, on) => service.links.get(&target).into_iter().for_each(|l| l.hurry(on)),
                Act::Publish(view) => {
                    service.view = view;
                    self.dirty = true;
                }
                Act::Story(event) => self.teller.tell(event),
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
