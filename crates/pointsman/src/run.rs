//! `pointsman run`: starts the two planes, wires them together, and sees them through reloads to their end.
//!
//! ```text
//!   main thread (signals) ── accept ── worker 0 … N-1      control (tokio)      admin (tokio)      log writer
//! ```
//! The main thread decides nothing about traffic: it waits for signals and for what the admin listener asks.
use crate::admin::{self, Running, Sample, ServerHandle, ServiceSample, WorkerLoad};
use crate::control::{self, Account, Publisher};
use crate::data::accept::{Acceptor, Door, Listener};
use crate::data::{Outbox, Workers};
use crate::events::{self, Journal};
use crate::{clock, log};
use pointsman_config::{Change, Config, Flags, Listen, Service, diff, from_flags, warnings};
use pointsman_core::Now;
use pointsman_core::policy::Policy;
use pointsman_core::switchover::Order;
use pointsman_core::topology::pause::PAUSE_MAX;
use pointsman_core::topology::settings::Settings;
use pointsman_core::topology::snapshot::{ServiceId, Snapshot};
use pointsman_core::topology::status::Status;
use pointsman_core::worker::{Counters, Event};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the admin listener waits for the workers' counters.
const COUNT_PATIENCE: Duration = Duration::from_millis(200);
/// How long the answer to a pause waits for what was sent before it, and how often that is looked at.
const PAUSE_SETTLE: Duration = Duration::from_secs(1);
const PAUSE_LOOK: Duration = Duration::from_millis(5);
/// How often the end of the workers is looked for.
const END_POLL: Duration = Duration::from_millis(10);
/// Beyond the clients' grace: how long threads may take to end.
const END_GRACE: Duration = Duration::from_secs(1);

/// Runs the proxy until it is told to stop. Exits with 0 then, and with 1 if it could not start.
pub fn run(flags: &Flags) -> ExitCode {
    let config = match from_flags(flags, &environment) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::FAILURE;
        }
    };
    let log = log::init(config.log.level, config.log.format);
    raise_file_limit();
    // Before anybody can find us running: a signal that nobody waits for would end us.
    let signals = match Signals::new([SIGTERM, SIGINT, SIGHUP]) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("pointsman: signals cannot be waited for: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (process, admin) = match Process::start(flags.clone(), config, log) {
        Ok(started) => started,
        Err(text) => {
            // Not logged: the log ended with what could not start.
            eprintln!("pointsman: {text}");
            return ExitCode::FAILURE;
        }
    };
    process.wait(signals);
    // It holds the process, and so the log, whose last lines are written when that is let go of.
    admin.into_iter().for_each(ServerHandle::stop);
    ExitCode::SUCCESS
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Each client and upstream connection is a file: as many as the system lets us have.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Where a listener is, whatever else is said of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Where {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Where {
    fn of(listen: &Listen) -> Where {
        match listen {
            Listen::Tcp(addr) => Where::Tcp(*addr),
            Listen::Unix { path, .. } => Where::Unix(path.clone()),
        }
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Where::Tcp(addr) => addr.fmt(f),
            Where::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

struct Process {
    flags: Flags,
    started: Now,
    workers: Arc<Workers>,
    acceptor: Acceptor,
    control: control::Handle,
    journal: Arc<Journal>,
    publisher: Arc<ToWorkers>,
    log: log::Guard,
    stopping: AtomicBool,
    counting: Arc<Counting>,
    /// One reload at a time. What a reload reads and binds may take long: it holds no other lock meanwhile.
    reloading: Mutex<()>,
    /// A SIGHUP waits for its reload to begin.
    reload_waits: AtomicBool,
    /// What a reload changes.
    state: Mutex<State>,
}

/// The workers' counters.
struct Counting {
    workers: Arc<Workers>,
    /// What each worker counted when it last answered.
    last: Mutex<Vec<Vec<(ServiceId, Counters)>>>,
}

impl Counting {
    fn new(workers: Arc<Workers>) -> Counting {
        let last = Mutex::new(vec![Vec::new(); workers.load().len()]);
        Counting { workers, last }
    }

    /// What all workers counted, by service.
    fn count(&self) -> BTreeMap<ServiceId, Counters> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for (last, now) in last.iter_mut().zip(self.workers.count(COUNT_PATIENCE)) {
            if let Some(now) = now {
                *last = now;
            }
        }
        let mut sums: BTreeMap<ServiceId, Counters> = BTreeMap::new();
        for (service, counters) in last.iter().flatten() {
            sums.entry(*service).or_default().add(counters);
        }
        sums
    }
}

struct State {
    config: Config,
    /// Listeners that are open, by where the configuration has them.
    open: BTreeMap<Where, Open>,
    next_listener: u64,
    reloads: u64,
    reload_error: Option<String>,
}

/// A listener that is open.
#[derive(Clone)]
struct Open {
    /// The number that the acceptor knows it by.
    id: u64,
    /// Where it is, with the port that the system chose if the configuration said 0.
    shown: String,
}

/// Brings snapshots to the workers, and keeps the newest for whoever looks.
struct ToWorkers {
    workers: Arc<Workers>,
    newest: Mutex<Arc<Snapshot>>,
}

impl Publisher for ToWorkers {
    fn publish(&self, snapshot: Arc<Snapshot>) {
        self.workers.publish(&snapshot);
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    fn in_flight(&self, service: ServiceId) -> Option<u64> {
        let mut sum = 0;
        for counted in self.workers.count(COUNT_PATIENCE) {
            let of = counted?.into_iter().find(|(id, _)| *id == service);
            sum += of.map_or(0, |(_, counters)| counters.in_flight_now);
        }
        Some(sum)
    }
}

/// Brings what workers see to the control plane.
#[derive(Default)]
struct ToControl(OnceLock<control::Handle>);

impl Outbox for ToControl {
    fn tell(&self, event: Event) {
        match event {
            Event::Sign(sign) => {
                if let Some(control) = self.0.get() {
                    control.sign(sign);
                }
            }
            Event::Writes(service) => {
                if let Some(control) = self.0.get() {
                    control.writes(service);
                }
            }
            Event::Overrun { service, session, unread, limit } => {
                tracing::warn!(
                    service = &*service,
                    client = session,
                    "a client was closed: it left {unread} bytes of what it was sent unread, {}",
                    limit.label()
                );
            }
            Event::SetupFailed { service, endpoint, error } => {
                tracing::warn!(service = &*service, %endpoint, "the server refuses a connection: {error}");
            }
        }
    }
}

impl Process {
    fn start(
        flags: Flags,
        config: Config,
        log: log::Guard,
    ) -> Result<(Arc<Process>, Option<ServerHandle>), String> {
        let mut bound = Vec::new();
        for service in &config.services {
            for listen in &service.listen {
                bound.push((door(service, listen), listen.clone(), bind(service, listen)?));
            }
        }
        let admin = config.admin.map(bind_admin).transpose()?;
        for warning in warnings(&config) {
            tracing::warn!("{warning}");
        }
        let cores = || thread::available_parallelism().map_or(1, |n| n.get());
        let n = if config.workers == 0 { cores() } else { config.workers };
        let outbox = Arc::new(ToControl::default());
        let thread_error = |e: io::Error| format!("cannot start a thread: {e}");
        let workers = Workers::start(n, outbox.clone()).map_err(thread_error)?;
        workers.configure(&policies(&config));
        let acceptor = Acceptor::start(workers.clone()).map_err(thread_error)?;
        let publisher = Arc::new(ToWorkers { workers: workers.clone(), newest: Mutex::default() });
        let counting = Arc::new(Counting::new(workers.clone()));
        let look = counting.clone();
        let file = events::place(&config.events.file, &environment).map(|at| (at, config.events.size_max));
        let journal = Journal::start(Box::new(move || look.count()), file).map_err(thread_error)?;
        let control =
            control::start(topologies(&config), publisher.clone(), journal.clone()).map_err(thread_error)?;
        let _ = outbox.0.set(control.clone());
        let mut open = BTreeMap::new();
        for (id, (door, listen, listener)) in (0..).zip(bound) {
            let shown = listener.addr().map_or_else(|| listen.to_string(), |addr| addr.to_string());
            tracing::info!(service = %name_of(&config, door.service), "listening on {shown}");
            acceptor.open(door, id, listener);
            open.insert(Where::of(&listen), Open { id, shown });
        }
        let next_listener = open.len() as u64;
        let state = State { config, open, next_listener, reloads: 0, reload_error: None };
        let process = Arc::new(Process {
            flags,
            started: clock::now(),
            counting,
            workers,
            acceptor,
            control,
            journal,
            publisher,
            log,
            stopping: AtomicBool::new(false),
            reloading: Mutex::new(()),
            reload_waits: AtomicBool::new(false),
            state: Mutex::new(state),
        });
        let running: Arc<dyn Running> = process.clone();
        let admin =
            admin.map(|listener| admin::serve(listener, running)).transpose().map_err(thread_error)?;
        Ok((process, admin))
    }

    /// Waits for signals, and does what they ask for.
    fn wait(self: Arc<Process>, mut signals: Signals) {
        for signal in signals.forever() {
            if signal == SIGHUP {
                self.clone().reload_apart();
                continue;
            }
            self.stop();
            return;
        }
    }

    /// Reloads on a thread of its own: a file that hangs keeps no other signal waiting.
    fn reload_apart(self: Arc<Process>) {
        if self.reload_waits.swap(true, Ordering::Relaxed) {
            return;
        }
        let reload = {
            let this = self.clone();
            move || {
                let turn = this.alone();
                this.reload_waits.store(false, Ordering::Relaxed);
                // What became of it is logged there.
                let _ = this.reload_in(&turn);
            }
        };
        if let Err(error) = thread::Builder::new().name("reload".into()).spawn(reload) {
            self.reload_waits.store(false, Ordering::Relaxed);
            tracing::error!("the configuration is not read again: cannot start a thread: {error}");
        }
    }

    fn alone(&self) -> MutexGuard<'_, ()> {
        self.reloading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts no more, lets clients finish within the grace, and ends the threads.
    fn stop(&self) {
        let grace = self.state().config.shutdown_grace;
        self.stopping.store(true, Ordering::Relaxed);
        tracing::info!("stopping: clients have {grace:?} to finish");
        self.acceptor.stop();
        self.workers.stop(grace);
        let until = Instant::now() + grace + END_GRACE;
        while !self.workers.ended() && Instant::now() < until {
            thread::sleep(END_POLL);
        }
        self.control.stop();
        self.journal.stop();
        tracing::info!("stopped");
    }

    fn service_id(&self, name: &str) -> Result<ServiceId, String> {
        let id = self.state().config.services.iter().find(|s| *s.name == *name).map(Service::id);
        id.ok_or_else(|| format!("there is no service '{name}'"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reload, in its turn.
    fn reload_in(&self, turn: &MutexGuard<'_, ()>) -> Result<String, String> {
        let outcome = self.apply(turn);
        match &outcome {
            Ok(text) => tracing::info!("configuration read again: {text}"),
            Err(text) => tracing::error!("the configuration is not applied, nothing changed: {text}"),
        }
        let mut state = self.state();
        state.reloads += u64::from(outcome.is_ok());
        state.reload_error = outcome.as_ref().err().cloned();
        outcome
    }

    /// Reads the configuration again and applies what changed; on an error nothing changes.
    fn apply(&self, _: &MutexGuard<'_, ()>) -> Result<String, String> {
        let (config, mut open, mut next_listener) = {
            let state = self.state();
            (state.config.clone(), state.open.clone(), state.next_listener)
        };
        let new = from_flags(&self.flags, &environment).map_err(|e| e.to_string())?;
        let (new, change) = diff(&config, new).map_err(|e| e.to_string())?;
        if change.is_empty() {
            return Ok("nothing changed".into());
        }
        let wanted: BTreeMap<Where, (&Service, &Listen)> =
            new.services.iter().flat_map(|s| s.listen.iter().map(move |l| (Where::of(l), (s, l)))).collect();
        // Whatever can fail comes first.
        let mut bound = Vec::new();
        for (at, (service, listen)) in &wanted {
            if !open.contains_key(at) {
                bound.push((at.clone(), door(service, listen), bind(service, listen)?));
            }
        }
        self.workers.configure(&policies(&new));
        self.control.reconfigure(topologies(&new));
        open.retain(|at, open| {
            let Some((service, listen)) = wanted.get(at) else {
                self.acceptor.close(open.id);
                return false;
            };
            // An address that another service has now is handed over without being closed.
            self.acceptor.assign(open.id, door(service, listen));
            if let Listen::Unix { path, mode } = listen {
                let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(*mode));
            }
            true
        });
        for (at, door, listener) in bound {
            let id = next_listener;
            next_listener += 1;
            let shown = listener.addr().map_or_else(|| at.to_string(), |addr| addr.to_string());
            self.acceptor.open(door, id, listener);
            open.insert(at, Open { id, shown });
        }
        self.log.set_level(new.log.level);
        let text = said(&config, &new, &change);
        let mut state = self.state();
        (state.config, state.open, state.next_listener) = (new, open, next_listener);
        Ok(text)
    }
}

impl Running for Process {
    fn sample(&self) -> Sample {
        let mut counted = self.counting.count();
        let statuses = self.control.status();
        let snapshot = self.publisher.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = self.state();
        let shown = |listen: &Listen| state.open.get(&Where::of(listen)).map(|open| open.shown.clone());
        let of = |status: Status| {
            let id = status.service;
            let service = state.config.services.iter().find(|s| s.id() == id)?;
            let view = snapshot.shard(id, pointsman_core::topology::snapshot::ShardId(0))?.clone();
            let tally = self.journal.tally(id);
            Some(ServiceSample {
                since: tally.since.unwrap_or(self.started),
                view,
                counters: counted.remove(&id).unwrap_or_default(),
                listeners: service.listen.iter().filter_map(shown).collect(),
                switches: status.term.0.saturating_sub(1),
                tally,
                status,
            })
        };
        let services = statuses.into_iter().filter_map(of).collect();
        let workers = self.workers.load().into_iter();
        Sample {
            at: clock::now(),
            started: self.started,
            version: env!("CARGO_PKG_VERSION"),
            workers: workers
                .map(|(busy, clients)| WorkerLoad { busy_permille: busy as u32, clients: clients as u64 })
                .collect(),
            services,
            stopping: self.stopping.load(Ordering::Relaxed),
            reloads: state.reloads,
            reload_error: state.reload_error.clone(),
            log_lines_dropped: self.log.dropped(),
            events_unwritten: self.journal.unwritten(),
        }
    }

    fn events(&self, after: u64) -> admin::Events {
        admin::Events { journal: self.journal.id(), events: self.journal.events(after) }
    }

    fn reload(&self) -> Result<String, String> {
        self.reload_in(&self.alone())
    }

    fn trust(&self, service: &str) -> Result<String, String> {
        let id = self.service_id(service)?;
        self.control.trust(id);
        Ok(format!("service '{service}': what its Sentinels agree on now is taken as a new era"))
    }

    fn switchover(&self, service: &str, order: Order) -> Result<String, String> {
        self.control.switch(self.service_id(service)?, order)?;
        Ok(format!("service '{service}': the switchover has begun"))
    }

    fn account(&self, service: &str) -> Option<Account> {
        self.control.account(self.service_id(service).ok()?)
    }

    fn pause(&self, service: &str, span: Duration) -> Result<String, String> {
        if span.is_zero() || span > PAUSE_MAX {
            return Err(format!("a pause lasts from 1 ms to {} s", PAUSE_MAX.as_secs()));
        }
        let id = self.service_id(service)?;
        self.control.pause(id, span)?;
        let until = Instant::now() + PAUSE_SETTLE.min(span);
        let rest = loop {
            let rest = self.publisher.in_flight(id);
            if rest == Some(0) || Instant::now() >= until {
                break rest;
            }
            std::thread::sleep(PAUSE_LOOK);
        };
        let rest = match rest {
            Some(0) => String::new(),
            Some(n) => {
                format!("; {n} commands that were sent before are not answered yet")
            }
            None => "; a worker has not confirmed it yet".into(),
        };
        Ok(format!(
            "service '{service}' is paused for {span:?} at most; `pointsman resume {service}` ends it{rest}"
        ))
    }

    fn resume(&self, service: &str) -> Result<String, String> {
        let span = self.control.resume(self.service_id(service)?)?;
        Ok(format!("service '{service}' goes on after {} ms", span.as_millis()))
    }
}

/// For whom a listener of a service accepts clients.
fn door(service: &Service, listen: &Listen) -> Door {
    Door { service: service.id(), durable: service.is_durable(listen) }
}

fn bind(service: &Service, listen: &Listen) -> Result<Listener, String> {
    let bound = match listen {
        Listen::Tcp(addr) => Listener::tcp(*addr),
        Listen::Unix { path, mode } => Listener::unix(path, *mode),
    };
    bound.map_err(|e| format!("service '{}' cannot listen on {listen}: {}", service.name, in_words(&e)))
}

fn bind_admin(addr: SocketAddr) -> Result<TcpListener, String> {
    let hint = "; choose another with --admin ADDR, or --admin off";
    TcpListener::bind(addr)
        .map_err(|e| format!("the admin listener cannot listen on {addr}: {}{hint}", in_words(&e)))
}

fn in_words(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::AddrInUse => "something else listens there already".into(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        io::ErrorKind::PermissionDenied => "not permitted (ports below 1024 need a capability)".into(),
        _ => e.to_string(),
    }
}

fn policies(config: &Config) -> Arc<[Arc<Policy>]> {
    config.services.iter().map(|s| Arc::new(s.policy.clone())).collect()
}

fn topologies(config: &Config) -> Vec<Settings> {
    config.services.iter().map(|s| s.topology.clone()).collect()
}

fn name_of(config: &Config, id: ServiceId) -> Arc<str> {
    config.services.iter().find(|s| s.id() == id).map_or_else(|| "?".into(), |s| s.name.clone())
}

/// What a reload changed, in a line.
fn said(old: &Config, new: &Config, change: &Change) -> String {
    let names = |config: &Config, ids: &[ServiceId]| {
        ids.iter().map(|id| name_of(config, *id).to_string()).collect::<Vec<_>>().join(", ")
    };
    let changed: Vec<ServiceId> = change.changed.iter().map(|c| c.id).collect();
    let parts = [
        ("added", names(new, &change.added)),
        ("removed", names(old, &change.removed)),
        ("changed", names(new, &changed)),
        ("needs a restart", change.restart.join(", ")),
    ];
    let said: Vec<String> = parts
        .into_iter()
        .filter(|(_, what)| !what.is_empty())
        .map(|(how, what)| format!("{how}: {what}"))
        .collect();
    if said.is_empty() { "process settings changed".into() } else { said.join("; ") }
}
