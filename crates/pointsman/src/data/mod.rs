//! The data plane's shell: threads, sockets and bytes. What they mean is decided in `pointsman_core::worker`.
//!
//! ```text
//!   accept (one thread) ── socket ──▶ worker 0 … worker N-1 (a thread and an event loop each)
//!   control plane ── snapshot, policies, stop ──▶ all workers      workers ── signs ──▶ control plane
//! ```
pub mod accept;
mod event_loop;
pub mod transport;

use event_loop::EventLoop;
use event_loop::migrate::{Berth, Moves, Peer};
use mio::Waker;
use pointsman_core::policy::Policy;
use pointsman_core::spread::{self, Load};
use pointsman_core::topology::snapshot::{ServiceId, Snapshot};
use pointsman_core::worker::{Counters, Event, Worker};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use transport::Stream;

/// Where a worker's events go. Must not block.
pub trait Outbox: Send + Sync {
    /// A worker saw something.
    fn tell(&self, event: Event);
}

/// Takes a worker's counters.
type Tell = Box<dyn FnOnce(Vec<(ServiceId, Counters)>) + Send>;

/// What is sent to a worker.
enum Message {
    /// A client was accepted.
    Accepted(accept::Door, Stream),
    /// A new view of all services.
    Snapshot(Arc<Snapshot>),
    /// The policies of all services.
    Configure(Arc<[Arc<Policy>]>),
    /// The counters are wanted.
    Count(Tell),
    /// No more clients; those that are there have `grace` to finish.
    Stop {
        /// How long.
        grace: Duration,
    },
}

/// What a worker shows of itself to other threads.
#[derive(Default)]
struct Shared {
    /// The version of the newest snapshot that was sent to it.
    version: AtomicU64,
    clients: AtomicUsize,
    busy_permille: AtomicUsize,
    /// Clients of other workers that are on their way to it.
    berth: Berth,
}

impl Shared {
    fn load(&self) -> Load {
        Load {
            busy_permille: self.busy_permille.load(Ordering::Relaxed) as u32,
            clients: self.clients.load(Ordering::Relaxed),
        }
    }
}

/// One worker's thread, from outside.
pub struct WorkerHandle {
    sender: Sender<Message>,
    waker: Arc<Waker>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerHandle {
    fn send(&self, message: Message) {
        // A worker that has ended needs nothing more.
        if self.sender.send(message).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

/// All workers.
pub struct Workers {
    handles: Vec<WorkerHandle>,
}

impl Workers {
    /// Starts `n` workers. Errors if the system gives no thread or no poll.
    pub fn start(n: usize, outbox: Arc<dyn Outbox>) -> io::Result<Arc<Workers>> {
        let n = n.max(1);
        let (mut peers, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let (poll, waker) = EventLoop::poll()?;
            let (arrivals, arriving) = channel();
            peers.push(Peer { shared: Arc::default(), arrivals, waker: Arc::new(waker) });
            ends.push((poll, arriving));
        }
        let peers: Arc<[Peer]> = peers.into();
        let mut handles = Vec::new();
        for (i, (poll, arriving)) in ends.into_iter().enumerate() {
            let (sender, mailbox) = channel();
            let (shared, waker) = (peers[i].shared.clone(), peers[i].waker.clone());
            let worker = Worker::new(i as u64 + 1, n as u64);
            let moves = Moves::new(i, peers.clone(), arriving);
            let event_loop = EventLoop::new(poll, worker, mailbox, shared.clone(), outbox.clone(), moves);
            let thread =
                std::thread::Builder::new().name(format!("worker-{i}")).spawn(move || event_loop.run())?;
            handles.push(WorkerHandle { sender, waker, shared, thread: Some(thread) });
        }
        Ok(Arc::new(Workers { handles }))
    }

    /// Gives all workers a new view. The version is told first, so that a worker in the middle of its turn looks into
    /// its mailbox before it writes to a master.
    pub fn publish(&self, snapshot: &Arc<Snapshot>) {
        for h in &self.handles {
            let _ = h.sender.send(Message::Snapshot(snapshot.clone()));
            h.shared.version.store(snapshot.version, Ordering::Release);
            let _ = h.waker.wake();
        }
    }

    /// Gives all workers the policies of all services.
    pub fn configure(&self, policies: &Arc<[Arc<Policy>]>) {
        for h in &self.handles {
            h.send(Message::Configure(policies.clone()));
        }
    }

    /// Hands a client that was accepted to a worker.
    pub fn accepted(&self, door: accept::Door, stream: Stream) {
        let loads = self.handles.iter().map(|h| h.shared.load());
        if let Some(h) = spread::newcomer(loads).map(|i| &self.handles[i]) {
            h.shared.clients.fetch_add(1, Ordering::Relaxed);
            h.send(Message::Accepted(door, stream));
        }
    }

    /// The counters of all workers, by worker. Waits for at most `patience`; one that does not answer in it has none.
    pub fn count(&self, patience: Duration) -> Vec<Option<Vec<(ServiceId, Counters)>>> {
        let (tell, told) = channel();
        for (i, h) in self.handles.iter().enumerate() {
            let tell = tell.clone();
            h.send(Message::Count(Box::new(move |counters| drop(tell.send((i, counters))))));
        }
        drop(tell);
        let until = Instant::now() + patience;
        let mut all = vec![None; self.handles.len()];
        while let Ok((i, counters)) = told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            all[i] = Some(counters);
        }
        all
    }

    /// Which share of its time each worker was busy lately, in thousandths, and how many clients it has.
    pub fn load(&self) -> Vec<(usize, usize)> {
        let of = |h: &WorkerHandle| {
            (h.shared.busy_permille.load(Ordering::Relaxed), h.shared.clients.load(Ordering::Relaxed))
        };
        self.handles.iter().map(of).collect()
    }

    /// Lets clients finish within `grace`, then ends all workers' threads. Call once, when nothing is accepted any more.
    pub fn stop(&self, grace: Duration) {
        for h in &self.handles {
            h.send(Message::Stop { grace });
        }
    }

    /// Whether all workers' threads have ended.
    pub fn ended(&self) -> bool {
        self.handles.iter().all(|h| h.thread.as_ref().is_none_or(JoinHandle::is_finished))
    }
}
