//! What goes from one worker's event loop to another's: clients' sockets, with what the machines make of the client; and what
//! the machines ask each other.
//!
//! ```text
//!   measured ─▶ Spread (which, and to whom) ─▶ Worker::send_off … Worker::leavers ─▶ out of our poll ─┐
//!   into our poll, read once ◀─ Worker::adopt ◀── Berth, channel, waker ◀────────────────────────────┘
//! ```
//! What a client sends meanwhile stays in the kernel: whoever registers a socket is told that it has something to read.
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
    /// A question of this worker's.
    Asked(usize, Inquiry),
    /// An answer.
    Told(Finding),
}

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
    /// Those who have to wait for a snapshot.
    early: Vec<Arrival>,
}

impl Moves {
    pub(in crate::data) fn new(me: usize, peers: Arc<[Peer]>, arrivals: Receiver<Parcel>) -> Moves {
        Moves { me, peers, spread: Spread::new(me), to: me, arrivals, early: Vec::new() }
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
        if let Err(arrival) = self.moves.peers[to].send_client(arrival) {
            self.keep(now, arrival);
        }
    }

    /// Asks all other workers; who ends has found nothing.
    pub(super) fn ask_others(&mut self, now: Now, inquiry: &Inquiry) {
        let me = self.moves.me;
        for i in (0..self.moves.peers.len()).filter(|i| *i != me) {
            if self.moves.peers[i].send(Parcel::Asked(me, inquiry.clone())).is_err() {
                self.worker.told(now, inquiry.in_vain());
            }
        }
    }

    /// Takes in what has arrived.
    pub(super) fn arrivals(&mut self, now: Now) {
        if !self.shared.berth.is_awaited() {
            return;
        }
        for arrival in std::mem::take(&mut self.moves.early) {
            self.arrive(now, arrival);
        }
        while let Ok(parcel) = self.moves.arrivals.try_recv() {
            match parcel {
                Parcel::Client(arrival) => self.arrive(now, *arrival),
                Parcel::Asked(from, inquiry) => {
                    self.worker.asked(now, from, inquiry);
                    self.shared.berth.leave();
                }
                Parcel::Told(finding) => {
                    self.worker.told(now, finding);
                    self.shared.berth.leave();
                }
            }
        }
        self.effects(now);
        self.count_clients();
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
                return self.moves.early.push(arrival);
            }
            Err(NotAdopted::Full(migrant)) => {
                let back = Arrival { migrant, back: true, ..arrival };
                let from = back.from;
                if let Err(arrival) = self.moves.peers[from].send_client(back) {
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
