//! What goes from one worker's event loop to another's: clients' sockets, with what the machines make of the client; and what
//! the machines ask each other.
//!
//! ```text
//!   measured ─▶ Spread (which, and to whom) ─▶ Worker::send_off … Worker::leavers ─▶ out of our poll ─┐
//!   into our poll, read once ◀─ Worker::adopt ◀── Berth, channel, waker ◀────────────────────────────┘
//! ```
//! What a client sends meanwhile stays in the kernel: whoever registers a socket is told that it has something to read.
//! What is asked of all workers meanwhile neither of the two would find: so the one has the other asked again, behind the client.
use super::super::Shared;
use super::super::transport::Stream;
use super::{Conn, EventLoop};
use mio::{Token, Waker};
use pointsman_core::Now;
use pointsman_core::spread::{Load, Spread};
use pointsman_core::worker::{ClientId, Dst, Finding, Inquiry, Migrant, NotAdopted};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// A client on its way.
pub(in crate::data) struct Arrival {
    migrant: Migrant,
    stream: Stream,
    /// As in [`Conn`].
    ended: bool,
    writable: bool,
    /// The worker from which it comes.
    from: usize,
    /// That is this one: nobody else took it.
    back: bool,
}

/// What one worker sends another.
pub(in crate::data) enum Parcel {
    /// A client.
    Client(Box<Arrival>),
    /// A question.
    Asked(Asked),
    /// An answer.
    Told(Finding),
}

/// A question on its way.
#[derive(Clone)]
pub(in crate::data) struct Asked {
    inquiry: Inquiry,
    /// The worker that asks.
    from: usize,
    /// How many others have passed it on.
    passes: usize,
}

/// To a client that is sent back for want of room the question is passed on twice.
const PASSES_MAX: usize = 2;
/// Nobody waits for an answer for longer.
const HANDED_LATELY: Duration = Duration::from_secs(2);

/// How many parcels are on their way to a worker; it does not end before they have arrived.
#[derive(Default)]
pub(in crate::data) struct Berth(AtomicUsize);

/// Set in a [`Berth`] when its worker ends.
const CLOSED: usize = 1 << (usize::BITS - 1);

impl Berth {
    /// One more is on its way; `false`: the worker ends, and takes nobody.
    fn take(&self) -> bool {
        let one_more = |n: usize| (n & CLOSED == 0).then_some(n + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    /// One has arrived.
    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    fn is_awaited(&self) -> bool {
        self.0.load(Ordering::Acquire) & !CLOSED > 0
    }

    /// Nobody can come any longer, unless somebody is on the way.
    fn close_if_empty(&self) -> bool {
        self.0.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Nobody can come any longer.
    fn close(&self) {
        self.0.fetch_or(CLOSED, Ordering::AcqRel);
    }
}

/// A worker as the others see it.
pub(in crate::data) struct Peer {
    pub(in crate::data) shared: Arc<Shared>,
    pub(in crate::data) arrivals: Sender<Parcel>,
    pub(in crate::data) waker: Arc<Waker>,
}

impl Peer {
    fn load(&self) -> Load {
        self.shared.load()
    }

    /// Sends it a client; the client, if it ends.
    fn send_client(&self, arrival: Arrival) -> Result<(), Arrival> {
        self.send(Parcel::Client(Box::new(arrival))).map_err(|parcel| match parcel {
            Parcel::Client(arrival) => *arrival,
            _ => unreachable!("it is what was sent"),
        })
    }

    /// Sends it something; that, if it ends.
    fn send(&self, parcel: Parcel) -> Result<(), Parcel> {
        if !self.shared.berth.take() {
            return Err(parcel);
        }
        self.arrivals.send(parcel).map_err(|e| {
            self.shared.berth.leave();
            e.0
        })?;
        let _ = self.waker.wake();
        Ok(())
    }
}

/// One worker's part in it.
pub(in crate::data) struct Moves {
    me: usize,
    peers: Arc<[Peer]>,
    spread: Spread,
    /// Where the clients go that are to leave.
    to: usize,
    arrivals: Receiver<Parcel>,
    /// When each other worker was last sent a client.
    handed: Box<[Option<Now>]>,
    /// Those who have to wait for a snapshot, and what was asked since they came.
    early: Vec<Parcel>,
}

impl Moves {
    pub(in crate::data) fn new(me: usize, peers: Arc<[Peer]>, arrivals: Receiver<Parcel>) -> Moves {
        let handed = peers.iter().map(|_| None).collect();
        Moves { me, peers, spread: Spread::new(me), to: me, arrivals, handed, early: Vec::new() }
    }

    /// Sends a client to a worker; the client, if that ends.
    fn send_client(&mut self, now: Now, to: usize, arrival: Arrival) -> Result<(), Arrival> {
        self.handed[to] = Some(now);
        self.peers[to].send_client(arrival)
    }

    /// Has those asked, once more and behind them, to whom clients were sent lately.
    fn pass_on(&self, now: Now, asked: &Asked) {
        if asked.passes >= PASSES_MAX {
            return;
        }
        let lately = |at: Option<Now>| at.is_some_and(|at| now.since(at) < HANDED_LATELY);
        for to in (0..self.handed.len()).filter(|to| lately(self.handed[*to])) {
            // Whoever asks must know it before there is an answer.
            self.answer(asked.from, asked.inquiry.passed_on());
            let more = Asked { passes: asked.passes + 1, ..asked.clone() };
            if self.peers[to].send(Parcel::Asked(more)).is_err() {
                self.answer(asked.from, asked.inquiry.in_vain());
            }
        }
    }

    pub(super) fn end(&self) {
        self.peers[self.me].shared.berth.close();
    }

    /// Answers a worker; who has ended does not want to know.
    pub(super) fn answer(&self, to: usize, finding: Finding) {
        let _ = self.peers[to].send(Parcel::Told(finding));
    }

    /// Whether the worker can end without leaving somebody behind who is on the way to it.
    pub(super) fn can_end(&self) -> bool {
        self.peers[self.me].shared.berth.close_if_empty()
    }
}

impl EventLoop {
    /// The share of time that the worker was busy in the last `span` was told.
    pub(super) fn spread(&mut self, now: Now, span: Duration) {
        if self.stop_at.is_some() || self.worker.has_leavers() {
            return;
        }
        let loads: Vec<Load> = self.moves.peers.iter().map(Peer::load).collect();
        if let Some(handover) = self.moves.spread.measured(now, span, &loads) {
            self.moves.to = handover.to;
            let n = self.worker.send_off(now, handover.who);
            tracing::debug!(from = self.moves.me, to = handover.to, clients = n, ?loads, "clients move");
        }
    }

    /// Sends those on their way who are to go and can.
    pub(super) fn leavers(&mut self, now: Now) {
        if !self.worker.has_leavers() {
            return;
        }
        if self.stop_at.is_some() {
            self.worker.call_off(now);
        }
        for (id, migrant) in self.worker.leavers(now) {
            self.leave(now, id, migrant);
        }
        self.effects(now);
        self.count_clients();
    }

    fn leave(&mut self, now: Now, id: ClientId, migrant: Migrant) {
        // A client without a socket is being closed.
        let Some(mut conn) = self.clients.remove(id).and_then(|i| self.conns.try_remove(i)) else { return };
        let (to, from) = (self.moves.to, self.moves.me);
        let unwatched = conn.stream.deregister(self.poll.registry());
        let Conn { stream, ended, writable, .. } = conn;
        let arrival = Arrival { migrant, stream, ended, writable, from, back: false };
        if let Err(error) = unwatched {
            tracing::error!(%error, "a client's socket cannot be handed over; it is closed");
            return;
        }
        if let Err(arrival) = self.moves.send_client(now, to, arrival) {
            self.keep(now, arrival);
        }
    }

    /// Asks all other workers; who ends has found nothing.
    pub(super) fn ask_others(&mut self, now: Now, inquiry: &Inquiry) {
        let me = self.moves.me;
        for i in (0..self.moves.peers.len()).filter(|i| *i != me) {
            let asked = Asked { inquiry: inquiry.clone(), from: me, passes: 0 };
            if self.moves.peers[i].send(Parcel::Asked(asked)).is_err() {
                self.worker.told(now, inquiry.in_vain());
            }
        }
    }

    /// Takes in what has arrived.
    pub(super) fn arrivals(&mut self, now: Now) {
        if !self.shared.berth.is_awaited() {
            return;
        }
        for parcel in std::mem::take(&mut self.moves.early) {
            self.take_in(now, parcel);
        }
        while let Ok(parcel) = self.moves.arrivals.try_recv() {
            self.take_in(now, parcel);
        }
        self.effects(now);
        self.count_clients();
    }

    fn take_in(&mut self, now: Now, parcel: Parcel) {
        match parcel {
            Parcel::Client(arrival) => return self.arrive(now, *arrival),
            // It may mean somebody who is not taken in yet.
            Parcel::Asked(_) if !self.moves.early.is_empty() => return self.moves.early.push(parcel),
            Parcel::Asked(asked) => {
                self.moves.pass_on(now, &asked);
                self.worker.asked(now, asked.from, asked.inquiry);
            }
            Parcel::Told(finding) => self.worker.told(now, finding),
        }
        self.shared.berth.leave();
    }

    fn arrive(&mut self, now: Now, mut arrival: Arrival) {
        if arrival.back {
            self.keep(now, arrival);
            return self.shared.berth.leave();
        }
        match self.worker.adopt(now, arrival.migrant) {
            Ok(id) => self.watch(now, id, arrival.stream, arrival.ended, arrival.writable),
            Err(NotAdopted::NotYet(migrant)) => {
                arrival.migrant = migrant;
                return self.moves.early.push(Parcel::Client(Box::new(arrival)));
            }
            Err(NotAdopted::Full(migrant)) => {
                let back = Arrival { migrant, back: true, ..arrival };
                let from = back.from;
                if let Err(arrival) = self.moves.send_client(now, from, back) {
                    self.keep(now, arrival);
                }
            }
        }
        self.shared.berth.leave();
    }

    /// A client that nobody else takes.
    fn keep(&mut self, now: Now, arrival: Arrival) {
        let id = self.worker.readopt(now, arrival.migrant);
        self.watch(now, id, arrival.stream, arrival.ended, arrival.writable);
    }

    /// A client's socket is this loop's from now on. What came before is read in the next turn: no event tells of it.
    pub(super) fn watch(&mut self, now: Now, id: ClientId, mut stream: Stream, ended: bool, writable: bool) {
        let entry = self.conns.vacant_entry();
        let i = entry.key();
        if let Err(error) = stream.register(self.poll.registry(), Token(i)) {
            tracing::error!(%error, "a client's socket cannot be watched; it is closed");
            self.worker.gone(now, Dst::Client(id));
            return;
        }
        let (connecting, readable, listed) = (false, true, true);
        entry.insert(Conn { dst: Dst::Client(id), stream, connecting, readable, ended, listed, writable });
        self.clients.insert(id, i);
        self.to_read.push(i);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::Poll;
    use pointsman_core::policy::Policy;
    use pointsman_core::session::Ends;
    use pointsman_core::topology::snapshot::{
        Endpoint, Gate, ServiceId, ServiceView, ShardView, Snapshot, Term,
    };
    use pointsman_core::worker::{Effect, Worker};
    use std::sync::mpsc::channel;

    /// What a worker asks of the others for a client that names another one.
    fn inquiry(now: Now) -> Inquiry {
        let id = ServiceId(0);
        let mut worker = Worker::new(1, 3);
        worker.configure(now, &[Arc::new(Policy::new(id, "s"))]);
        let mut view = ShardView::unknown(now, Duration::from_secs(1));
        (view.term, view.master) = (Term(1), Some(Endpoint::Unix("m".into())));
        (view.writes, view.reads) = (Gate::Open, Gate::Open);
        let services = [ServiceView { id, shards: [Arc::new(view)].into() }].into();
        worker.snapshot(now, Arc::new(Snapshot { version: 1, services }));
        let client = worker.accepted(now, id, false, Ends::Unknown).expect("there is room");
        worker.read(now, Dst::Client(client), b"CLIENT UNBLOCK 5\r\n");
        let asks = std::iter::from_fn(|| worker.poll());
        let mut asks = asks.filter_map(|effect| if let Effect::Ask(i) = effect { Some(i) } else { None });
        asks.next().expect("it asks")
    }

    #[test]
    fn what_is_asked_of_a_worker_goes_on_to_whom_it_has_just_sent_a_client() {
        let now = Now::from_millis(10_000);
        let inquiry = inquiry(now);
        let asked = |passes| Asked { inquiry: inquiry.clone(), from: 0, passes };
        let poll = Poll::new().expect("a poll");
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
        let (peers, ends): (Vec<Peer>, Vec<Receiver<Parcel>>) = (0..3)
            .map(|_| {
                let (arrivals, end) = channel();
                (Peer { shared: Arc::default(), arrivals, waker: waker.clone() }, end)
            })
            .unzip();
        let mut moves = Moves::new(1, peers.into(), channel().1);
        let told = |end: &Receiver<Parcel>| match end.try_recv() {
            Ok(Parcel::Told(finding)) => Some(finding),
            _ => None,
        };
        moves.pass_on(now, &asked(0));
        assert!(ends.iter().all(|end| end.try_recv().is_err()), "it has sent nobody");
        moves.handed[2] = Some(now);
        moves.pass_on(now + HANDED_LATELY, &asked(0));
        moves.pass_on(now, &asked(PASSES_MAX));
        assert!(ends.iter().all(|end| end.try_recv().is_err()), "nobody waits any more");
        moves.pass_on(now, &asked(0));
        assert_eq!(told(&ends[0]), Some(inquiry.passed_on()));
        let Ok(Parcel::Asked(more)) = ends[2].try_recv() else { panic!("it is not asked") };
        assert_eq!((more.inquiry, more.from, more.passes), (inquiry.clone(), 0, 1));
        moves.peers[2].shared.berth.close();
        moves.pass_on(now, &asked(0));
        let vain = [Some(inquiry.passed_on()), Some(inquiry.in_vain()), None];
        assert_eq!([0; 3].map(|_| told(&ends[0])), vain, "it has ended");
    }

    #[test]
    fn a_worker_does_not_end_while_a_client_is_on_its_way_to_it() {
        let berth = Berth::default();
        assert!(berth.take() && berth.is_awaited() && !berth.close_if_empty());
        berth.leave();
        assert!(!berth.is_awaited() && berth.close_if_empty());
        assert!(!berth.take(), "nobody sets out for one that has ended");
        assert!(!berth.is_awaited());
    }

    #[test]
    fn who_is_on_the_way_to_a_worker_that_ends_at_once_is_nobody_elses() {
        let berth = Berth::default();
        assert!(berth.take());
        berth.close();
        assert!(berth.is_awaited() && !berth.take());
        berth.leave();
        assert!(!berth.is_awaited());
    }
}
