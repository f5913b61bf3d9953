//! One worker's thread: moves bytes between sockets and the [`Worker`] machine, and decides nothing.
//!
//! ```text
//!   poll ─▶ mailbox ─▶ read clients ─▶ read upstreams ─▶ write clients ─▶ version? ─▶ write upstreams ─▶ timers ─┐
//!    ▲                        (effects are carried out after each phase)                                     │
//!    └───────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Events are edge-triggered and both interests are registered once. So the loop keeps its own list of streams that
//! may still have something to read: those that filled the buffer, and those that were not read for back-pressure.
//! At the end of a turn clients may leave for another worker's loop, and at its beginning some may arrive, and what other
//! workers ask or answer (`migrate`).
pub(super) mod migrate;

use super::accept::Door;
use super::transport::Stream;
use super::{Message, Outbox, Shared};
use crate::clock;
use migrate::Moves;
use mio::event::Event as Ready;
use mio::{Events, Poll, Token, Waker};
use pointsman_core::Now;
use pointsman_core::topology::snapshot::Endpoint;
use pointsman_core::worker::{ClientId, Dst, Effect, How, Side, UpId, Worker};
use slab::Slab;
use slotmap::SecondaryMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

/// The token of the waker; streams have their index in the slab.
const WAKER: Token = Token(usize::MAX);
/// The kernel is asked for so many bytes at a time. One buffer serves all streams of a worker.
const READ_MAX: usize = 128 << 10;
/// So many times a stream is read in one turn, before the others have theirs.
const READS_A_TURN: usize = 4;
/// Sockets that are ready at once; more of them come with the next turn.
const EVENTS: usize = 1024;
/// How often the share of time that the worker is busy is told.
const BUSY_EVERY: Duration = Duration::from_millis(500);

struct Conn {
    dst: Dst,
    stream: Stream,
    /// An upstream connection that is not made yet.
    connecting: bool,
    /// There may be something to read.
    readable: bool,
    /// Its peer closed or failed: read until that is seen.
    ended: bool,
    /// It stands in the list of those to read.
    listed: bool,
    /// The kernel takes bytes.
    writable: bool,
}

/// A worker's thread.
pub(super) struct EventLoop {
    poll: Poll,
    worker: Worker,
    conns: Slab<Conn>,
    clients: SecondaryMap<ClientId, usize>,
    ups: SecondaryMap<UpId, usize>,
    to_read: Vec<usize>,
    /// Upstream connections whose kernel takes bytes again.
    to_write: Vec<usize>,
    buffer: Vec<u8>,
    mailbox: Receiver<Message>,
    shared: Arc<Shared>,
    outbox: Arc<dyn Outbox>,
    moves: Moves,
    stop_at: Option<Now>,
    busy_since: Now,
    busy: Duration,
}

impl EventLoop {
    /// With a poll of its own, whose waker has been made by [`EventLoop::poll`].
    pub(super) fn new(
        poll: Poll,
        worker: Worker,
        mailbox: Receiver<Message>,
        shared: Arc<Shared>,
        outbox: Arc<dyn Outbox>,
        moves: Moves,
    ) -> EventLoop {
        EventLoop {
            poll,
            worker,
            conns: Slab::new(),
            clients: SecondaryMap::new(),
            ups: SecondaryMap::new(),
            to_read: Vec::new(),
            to_write: Vec::new(),
            buffer: vec![0; READ_MAX],
            mailbox,
            shared,
            outbox,
            moves,
            stop_at: None,
            busy_since: clock::now(),
            busy: Duration::ZERO,
        }
    }

    /// What a worker's sockets are watched with, and how it is woken.
    pub(super) fn poll() -> io::Result<(Poll, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        Ok((poll, waker))
    }

    /// Runs until it is told to stop and its clients have left, or the time that they have for it is over.
    pub(super) fn run(mut self) {
        self.turns();
        self.moves.end();
    }

    fn turns(&mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let before = clock::now();
            match self.poll.poll(&mut events, self.patience(before)) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    tracing::error!(error = %e, "a worker cannot poll its sockets and ends");
                    return;
                }
                _ => {}
            }
            let began = clock::now();
            let now = began;
            for event in &events {
                self.note(now, event);
            }
            if !self.mail(now) {
                return;
            }
            self.arrivals(now);
            self.read_all(now);
            self.write_all(now, Side::Clients);
            if self.shared.version.load(Ordering::Acquire) != self.worker.version() && !self.mail(now) {
                return;
            }
            // Looked at again here: what is sent to a master is sent by the newest view and within its lease.
            let now = clock::now();
            self.worker.timeout_if_due(now);
            self.effects(now);
            for i in std::mem::take(&mut self.to_write) {
                if let Some(dst) = self.conns.get(i).map(|c| c.dst) {
                    self.write(now, i, dst);
                }
            }
            self.write_all(now, Side::Ups);
            self.write_all(now, Side::Clients);
            self.tell_busy(began);
            self.leavers(now);
            if self.is_over(now) {
                return;
            }
        }
    }

    fn is_over(&self, now: Now) -> bool {
        let Some(stop_at) = self.stop_at else { return false };
        now >= stop_at || self.worker.clients() == 0 && self.moves.can_end()
    }

    /// How long to sleep at most.
    fn patience(&self, now: Now) -> Option<Duration> {
        if !self.to_read.is_empty() || self.worker.has_dirty() {
            return Some(Duration::ZERO);
        }
        // Who was busy and sleeps now says so once more, or it would be passed over for ever.
        let was_busy = self.shared.busy_permille.load(Ordering::Relaxed) > 0;
        let told = was_busy.then(|| self.busy_since + BUSY_EVERY);
        let next = self.worker.next_timeout(now).into_iter().chain(self.stop_at).chain(told).min();
        // Rounded up: epoll counts in milliseconds, and to wake too early is to spin.
        next.map(|t| Duration::from_millis(t.since(now).as_micros().div_ceil(1000) as u64))
    }

    /// Takes down what an event says of a stream.
    fn note(&mut self, now: Now, event: &Ready) {
        let Token(i) = event.token();
        let Some(conn) = self.conns.get_mut(i) else { return };
        if conn.connecting {
            let outcome = conn.stream.is_connected();
            let Dst::Up(id) = conn.dst else { return };
            match outcome {
                Ok(false) => return,
                Ok(true) => {
                    conn.connecting = false;
                    conn.writable = true;
                    self.worker.connected(now, id, true);
                }
                Err(_) => {
                    self.drop_conn(i);
                    self.worker.connected(now, id, false);
                    self.effects(now);
                    return;
                }
            }
        }
        let Some(conn) = self.conns.get_mut(i) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            conn.readable = true;
            conn.ended |= event.is_read_closed() || event.is_error();
            if !conn.listed {
                conn.listed = true;
                self.to_read.push(i);
            }
        }
        if event.is_writable() && !conn.writable {
            conn.writable = true;
            match conn.dst {
                dst @ Dst::Client(_) => self.write(now, i, dst),
                // What goes upstream waits for the newest view.
                Dst::Up(_) => self.to_write.push(i),
            }
        }
    }

    /// Takes what the control plane has sent; `false`: the thread is to end at once.
    fn mail(&mut self, now: Now) -> bool {
        loop {
            match self.mailbox.try_recv() {
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
                Ok(message) => self.message(now, message),
            }
            self.effects(now);
        }
    }

    fn message(&mut self, now: Now, message: Message) {
        match message {
            Message::Accepted(door, stream) => self.accepted(now, door, stream),
            Message::Snapshot(snapshot) => self.worker.snapshot(now, snapshot),
            Message::Configure(policies) => self.worker.configure(now, &policies),
            Message::Count(tell) => tell(self.worker.counters()),
            Message::Stop { grace } => {
                self.stop_at = Some(now + grace);
                self.worker.drain_all(now);
            }
        }
    }

    fn accepted(&mut self, now: Now, door: Door, mut stream: Stream) {
        let id = match self.worker.accepted(now, door.service, door.durable, stream.ends()) {
            Ok(id) => id,
            Err(refused) => {
                // The socket is new: its buffer takes a line.
                let _ = stream.write(refused.0);
                return;
            }
        };
        self.watch(now, id, stream, false, true);
        self.count_clients();
    }

    /// Reads the streams that have something: clients first, so that what they ask for leaves in this turn.
    fn read_all(&mut self, now: Now) {
        let listed = std::mem::take(&mut self.to_read);
        for side in [Side::Clients, Side::Ups] {
            for &i in &listed {
                let of_side = self
                    .conns
                    .get(i)
                    .is_some_and(|c| matches!(c.dst, Dst::Client(_)) == (side == Side::Clients));
                if of_side {
                    self.read(now, i);
                }
            }
            self.effects(now);
        }
    }

    fn read(&mut self, now: Now, i: usize) {
        let Some(conn) = self.conns.get_mut(i) else { return };
        conn.listed = false;
        let dst = conn.dst;
        for _ in 0..READS_A_TURN {
            let Some(conn) = self.conns.get_mut(i).filter(|c| c.dst == dst && c.readable) else { return };
            let ended = conn.ended;
            if !self.worker.reads(dst) {
                // It is read again when the machine says so.
                if ended {
                    self.worker.hung_up(now, dst);
                }
                return;
            }
            let (read, room, in_place) = match self.worker.read_room(dst) {
                Some(room) => {
                    let most = room.len().min(READ_MAX);
                    (conn.stream.read(&mut room[..most]), most, true)
                }
                None => (conn.stream.read(&mut self.buffer), READ_MAX, false),
            };
            match read {
                Ok(0) => {
                    conn.readable = false;
                    return self.ended(now, i, dst);
                }
                Ok(n) => {
                    conn.readable = n == room || conn.ended;
                    if in_place {
                        self.worker.filled(now, dst, n);
                    } else {
                        self.worker.read(now, dst, &self.buffer[..n]);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    conn.readable = false;
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.failed(now, i, dst),
            }
        }
        self.list(i, dst);
    }

    /// Puts a stream that may have more to read into the list.
    fn list(&mut self, i: usize, dst: Dst) {
        if let Some(conn) = self.conns.get_mut(i).filter(|c| c.dst == dst && c.readable && !c.listed) {
            conn.listed = true;
            self.to_read.push(i);
        }
    }

    fn ended(&mut self, now: Now, i: usize, dst: Dst) {
        match dst {
            Dst::Client(_) => self.worker.eof(now, dst),
            Dst::Up(_) => self.failed(now, i, dst),
        }
    }

    fn failed(&mut self, now: Now, i: usize, dst: Dst) {
        self.drop_conn(i);
        self.worker.gone(now, dst);
        self.count_clients();
    }

    fn drop_conn(&mut self, i: usize) {
        if let Some(conn) = self.conns.try_remove(i) {
            self.forget(conn.dst);
        }
    }

    fn forget(&mut self, dst: Dst) -> Option<usize> {
        match dst {
            Dst::Client(id) => self.clients.remove(id),
            Dst::Up(id) => self.ups.remove(id),
        }
    }

    fn count_clients(&self) {
        self.shared.clients.store(self.worker.clients(), Ordering::Relaxed);
    }

    fn write_all(&mut self, now: Now, side: Side) {
        while let Some(dst) = self.worker.next_dirty(side) {
            let at = match dst {
                Dst::Client(id) => self.clients.get(id),
                Dst::Up(id) => self.ups.get(id),
            };
            if let Some(&i) = at {
                self.write(now, i, dst);
            }
        }
        self.effects(now);
    }

    fn write(&mut self, now: Now, i: usize, dst: Dst) {
        loop {
            let Some(conn) = self.conns.get_mut(i).filter(|c| c.dst == dst && c.writable && !c.connecting)
            else {
                return;
            };
            // A turn can be interrupted for long (a stopped process, a suspended machine) after it has read the time: what
            // goes to a master is measured by the lease at the last moment.
            let now = if matches!(dst, Dst::Up(_)) { clock::now() } else { now };
            let bytes = self.worker.gather(now, dst);
            if bytes.is_empty() {
                return;
            }
            let all = bytes.len();
            match conn.stream.write(bytes) {
                Ok(n) => {
                    conn.writable = n == all;
                    self.worker.wrote(now, dst, n);
                    if n < all {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    conn.writable = false;
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.failed(now, i, dst),
            }
        }
    }

    /// Does what the machine wants done.
    fn effects(&mut self, now: Now) {
        while let Some(effect) = self.worker.poll() {
            match effect {
                Effect::Connect(id, to) => self.connect(now, id, &to),
                Effect::Close(dst, how) => self.close(dst, how),
                Effect::Resume(dst) => {
                    let at = match dst {
                        Dst::Client(id) => self.clients.get(id),
                        Dst::Up(id) => self.ups.get(id),
                    };
                    if let Some(&i) = at {
                        self.list(i, dst);
                    }
                }
                // Nothing is gathered for it.
                Effect::OnlyRead(_) => {}
                Effect::Finish(id) => {
                    if let Some(conn) = self.ups.get(id).and_then(|&i| self.conns.get(i)) {
                        conn.stream.finish();
                    }
                }
                Effect::Arrived(id) => self.arrived(now, id),
                Effect::Tell(event) => self.outbox.tell(event),
                Effect::Ask(inquiry) => self.ask_others(now, &inquiry),
                Effect::Found { to, finding } => self.moves.answer(to, finding),
            }
        }
    }

    fn connect(&mut self, now: Now, id: UpId, to: &Endpoint) {
        let entry = self.conns.vacant_entry();
        let i = entry.key();
        let begun =
            Stream::connect(to).and_then(|mut s| s.register(self.poll.registry(), Token(i)).map(|()| s));
        match begun {
            Ok(stream) => {
                entry.insert(Conn {
                    dst: Dst::Up(id),
                    stream,
                    connecting: true,
                    readable: false,
                    ended: false,
                    listed: false,
                    writable: false,
                });
                self.ups.insert(id, i);
            }
            Err(error) => {
                tracing::debug!(%to, %error, "cannot connect");
                self.worker.connected(now, id, false);
            }
        }
    }

    /// What the kernel may still send again must not arrive at a master that is deposed.
    fn arrived(&mut self, now: Now, id: UpId) {
        let conn = self.ups.get(id).and_then(|&i| self.conns.get(i));
        if conn.is_some_and(|c| !c.stream.has_delivered()) {
            self.close(Dst::Up(id), How::Abort);
            self.worker.gone(now, Dst::Up(id));
        }
    }

    fn close(&mut self, dst: Dst, how: How) {
        if let Some(i) = self.forget(dst) {
            self.conns.remove(i).stream.close(how);
        }
        self.count_clients();
    }

    /// Tells from time to time which share of its time the worker is busy: whoever accepts clients wants to know.
    fn tell_busy(&mut self, turn_began: Now) {
        let now = clock::now();
        self.busy += now.since(turn_began);
        let span = now.since(self.busy_since);
        if span >= BUSY_EVERY {
            let permille = self.busy.as_micros() * 1000 / span.as_micros().max(1);
            self.shared.busy_permille.store(permille as usize, Ordering::Relaxed);
            self.busy = Duration::ZERO;
            self.busy_since = now;
            self.spread(now, span);
        }
    }
}
