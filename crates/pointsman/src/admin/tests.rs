//! The fake that the tests of this module run on, and the tests of its parts.
mod listener;
mod renderings;

use super::*;
use crate::events::Line;
use pointsman_core::topology::snapshot::{Endpoint, Gate, ServiceId, Term};
use pointsman_core::topology::status::{
    Event, EventKind, GuardState, GuardStatus, NodeStatus, SentinelStatus, State,
};
use pointsman_core::topology::story::{Granted, Mark, MarkKind, Story};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

/// A moment `ms` before the sample.
fn ago(ms: u64) -> Now {
    at() - Duration::from_millis(ms)
}

/// When the sample was composed.
fn at() -> Now {
    Now::from_millis(1_000_000)
}

fn node_address(n: u8) -> Endpoint {
    Endpoint::Tcp(([10, 0, 0, n], 6379).into())
}

fn view(gate: Gate, master: Option<Endpoint>) -> ShardView {
    ShardView { master, writes: gate, reads: gate, ..ShardView::unknown(Now::ZERO, Duration::from_secs(15)) }
}

fn sentinel(n: u8, problem: Option<&str>) -> SentinelStatus {
    SentinelStatus {
        at: format!("10.0.0.{n}:26379"),
        id: Some(format!("{n:040x}")),
        configured: n < 3,
        counted: true,
        names: problem.is_none().then(|| "10.0.0.2:6379".into()),
        epoch: problem.is_none().then_some(13),
        stage: "calm",
        last_seen: Some(ago(if problem.is_some() { 72_000 } else { 120 })),
        problem: problem.map(str::to_owned),
    }
}

fn node(n: u8, role: Option<&'static str>, lag: Option<u64>) -> NodeStatus {
    NodeStatus {
        at: format!("10.0.0.{n}:6379"),
        address: Some(format!("10.0.0.{n}:6379")),
        role,
        loading: false,
        link_up: (role == Some("replica")).then_some(true),
        offset: role.map(|_| 5_000_000 - lag.unwrap_or(0)),
        lag_bytes: lag,
        run_id: None,
        healthy: None,
        last_seen: role.map(|_| ago(80)),
        problem: role.is_none().then(|| "Connection refused".into()),
    }
}

fn status_of(id: u16, name: &str, state: State, why: &str) -> Status {
    Status {
        service: ServiceId(id),
        name: name.into(),
        state,
        why: why.into(),
        at: at(),
        held_since: (state != State::Serving).then(|| ago(3_200)),
        paused_until: None,
        term: Term(4),
        master: (state == State::Serving).then(|| node_address(2)),
        epoch: Some(13),
        proven_at: Some(ago(250)),
        hold_max: Duration::from_secs(15),
        lease: (state == State::Serving).then(|| at() + Duration::from_millis(700)),
        lapses: 0,
        sentinels: Vec::new(),
        majority: 0,
        nodes: Vec::new(),
        guard: GuardStatus { state: GuardState::Armed, why: None, trips: 2 },
        problems: Vec::new(),
    }
}

/// With a number of its own in each field.
fn counters() -> Counters {
    Counters {
        clients_accepted: 1001,
        clients_refused: 1002,
        clients_overrun: 1003,
        clients_cut: 1004,
        clients_killed: 1091,
        clients_moved: 1090,
        clients_now: 1005,
        commands: 1006,
        writes: 1019,
        held: 1007,
        held_now: 1008,
        resent: 1009,
        uncertain: 1010,
        withheld: 1024,
        durable: 1025,
        not_durable: 1026,
        waits: 1027,
        masterdown: 1011,
        refused: 1012,
        unauthenticated: 1032,
        malformed: 1013,
        signs: 1014,
        client_bytes_in: 1015,
        client_bytes_out: 1016,
        up_bytes_in: 1017,
        up_bytes_out: 1018,
        up_writes: 503,
        ups_opened: 1020,
        ups_failed: 1021,
        lanes_now: 1022,
        pinned_now: 1023,
        in_flight_now: 1028,
        subscribers_interrupted: 1029,
        scripts_reloaded: 1030,
        replica_reads: 1031,
    }
}

/// A service that holds, with Sentinels, and one that serves, without.
fn sample() -> Sample {
    let mut cache = status_of(0, "cache", State::Holding, "2 of 3 Sentinels say that 10.0.0.1:6379 is down");
    cache.sentinels = vec![sentinel(1, None), sentinel(2, None), sentinel(3, Some("no answer for 72s"))];
    cache.majority = 2;
    cache.nodes =
        vec![node(1, None, None), node(2, Some("master"), None), node(3, Some("replica"), Some(2_560))];
    cache.problems = vec!["the Sentinel 10.0.0.3:26379 does not answer".into()];
    let hold = Gate::Hold { since: ago(3_200), until: at() + Duration::from_millis(11_800) };
    let mut queue = status_of(1, "queue", State::Serving, "10.0.0.2:6379 is the only node that says master");
    queue.epoch = None;
    queue.nodes = vec![node(2, Some("master"), None)];
    let service = |status, view, listener: &str| ServiceSample {
        status,
        view: Arc::new(view),
        since: ago(3_200),
        counters: counters(),
        listeners: vec![listener.into()],
        switches: 3,
        tally: tally(),
    };
    Sample {
        at: at(),
        started: ago(100_000),
        version: "0.1.0",
        stopping: false,
        workers: vec![
            WorkerLoad { busy_permille: 125, clients: 7 },
            WorkerLoad { busy_permille: 0, clients: 0 },
        ],
        services: vec![
            service(cache, view(hold, None), "0.0.0.0:6379"),
            service(queue, view(Gate::Open, Some(node_address(2))), "unix:/run/queue.sock"),
        ],
        reloads: 2,
        reload_error: None,
        log_lines_dropped: 0,
        events_unwritten: 0,
    }
}

fn event(kind: EventKind, text: &str) -> Event {
    Event {
        service: ServiceId(0),
        name: "cache".into(),
        at: crate::clock::now(),
        kind,
        term: Term(4),
        master: Some(node_address(2)),
        text: text.into(),
        story: None,
        lost: None,
    }
}

/// One switch, by a story with a mark of each kind.
fn tally() -> Tally {
    let marks = MarkKind::ALL.into_iter().zip(0..);
    let mark = |(kind, n): (MarkKind, u64)| Mark {
        kind,
        at: ago(9_000) + Duration::from_millis(100 * n),
        by: "worker".into(),
        text: "broken".into(),
    };
    let granted = |term, n| Granted { term: Term(term), master: Some(node_address(n)), epoch: Some(13) };
    let story = Story {
        began: ago(9_000),
        from: granted(3, 1),
        to: granted(4, 2),
        marks: marks.map(mark).collect(),
        left_out: 0,
        behind: Some(0),
    };
    Tally {
        since: None,
        holds: 3,
        held: Duration::from_millis(4_321),
        last: Some((Arc::new(story), SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000))),
        lost: (160, 140),
    }
}

type Hook = Box<dyn Fn() + Send>;

/// A process that is plain data.
struct Fake {
    sample: Mutex<Sample>,
    events: Mutex<Events>,
    samples: AtomicUsize,
    /// What `sample` does first.
    hook: Mutex<Option<Hook>>,
}

impl Fake {
    fn new() -> Arc<Fake> {
        Arc::new(Fake {
            sample: Mutex::new(sample()),
            events: Mutex::new(Events { journal: crate::clock::now().as_micros(), events: Vec::new() }),
            samples: AtomicUsize::new(0),
            hook: Mutex::default(),
        })
    }

    fn tell(&self, n: u64, text: &str) {
        let line = Line { n, ..Line::new(&event(EventKind::Hold, text), None) };
        self.events.lock().expect("nobody panicked").events.push(line);
    }

    fn change(&self, change: impl FnOnce(&mut Sample)) {
        change(&mut self.sample.lock().expect("nobody panicked"));
    }
}

impl Running for Fake {
    fn sample(&self) -> Sample {
        self.samples.fetch_add(1, Ordering::Relaxed);
        let hook = self.hook.lock().ok().and_then(|mut hook| hook.take());
        if let Some(hook) = hook {
            hook();
        }
        self.sample.lock().expect("nobody panicked").clone()
    }

    fn events(&self, after: u64) -> Events {
        let mut events = self.events.lock().expect("nobody panicked").clone();
        events.events.retain(|line| line.n > after);
        events
    }

    fn reload(&self) -> Result<String, String> {
        Err("pointsman.toml:4:1: unknown key \"sentinel\"".into())
    }

    fn trust(&self, service: &str) -> Result<String, String> {
        Ok(format!("trusted {service}"))
    }

    fn switchover(&self, service: &str, order: Order) -> Result<String, String> {
        Err(format!("{service}: {order:?}"))
    }

    fn account(&self, service: &str) -> Option<Account> {
        (service == "cache").then(Account::default)
    }

    fn pause(&self, service: &str, span: Duration) -> Result<String, String> {
        Ok(format!("paused {service} for {span:?}"))
    }

    fn resume(&self, service: &str) -> Result<String, String> {
        Ok(format!("resumed {service}"))
    }
}
