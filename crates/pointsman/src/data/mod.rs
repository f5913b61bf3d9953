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
use mio::Waker;
use pointsman_core::policy::Policy;
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
}

/// One worker's thread, from outside.
pub struct WorkerHandle {
    sender: Sender<Message>,
    waker: Waker,
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
        let mut handles = Vec::new();
        for i in 0..n.max(1) {
            let (sender, mailbox) = channel();
            let shared = Arc::new(Shared::default());
            let worker = Worker::new(i as u64 + 1, n.max(1) as u64);
            let (event_loop, waker) = EventLoop::new(worker, mailbox, shared.clone(), outbox.clone())?;
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

    /// Hands a client to a worker: to the first that is not busy, so that few workers carry large turns. When all are
    /// busy, to the one with the fewest clients.
    pub fn accepted(&self, door: accept::Door, stream: Stream) {
        const BUSY: usize = 600;
        let idle = self.handles.iter().find(|h| h.shared.busy_permille.load(Ordering::Relaxed) < BUSY);
        let fewest = || self.handles.iter().min_by_key(|h| h.shared.clients.load(Ordering::Relaxed));
        if let Some(h) = idle.or_else(fewest) {
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
