//! The data plane as a machine: one worker's clients and upstream connections, from bytes to bytes.
//!
//! A command's way, and the files in which it goes:
//! ```text
//!   client's bytes ─▶ intake (frame, route, gate) ─▶ ledger of a lane or pinned connection ─▶ upstream
//!   client ◀─ settle (whose reply, what does it change) ◀─ frame ◀─ upstream's bytes
//!   gate (what waits, and in which line)
//!   stream (what passes through as it comes: large requests, bytes that are not counted)
//!   upstream (made, set up, pooled, closed)   lost (what a gone connection owed)   switch (gates, fence, release)
//!   deposed (what the last master still says of what it was sent)
//!   subscriptions (followed, made again)   blocked (what is left of a wait)   scripts (shown again)
//!   learning (asks the server about commands that the table does not have)
//!   replica (reads while there is no master)
//!   withheld (replies that may not be shown before a proof)   durable (WAIT, where that is the proof)
//!   migrate (clients that go to another worker, or come from one)   others (what is said of other sessions)
//!   users (who clients are, where that changes under them)
//! ```
//! The shell calls in (`read`, `wrote`, `eof`, `gone`, `connected`, `snapshot`, `timeout` …), then drains [`Worker::poll`],
//! [`Worker::next_dirty`] and [`Worker::gather`]. Calls for what is gone are harmless: ids carry a generation.
//!
//! Invariants (product.md's numbers): *no byte to a deposed node* (2) is in `switch` and [`Worker::gather`]; *every reply to
//! its owner* (4) in `settle`; *one place at a time* (5) in `intake`; *never twice, never out of order* (6) in
//! [`crate::hold`] and `lost`; *bounded* (8) in `intake` and `client`.
mod audit;
mod blocked;
mod client;
mod counters;
mod deposed;
mod dials;
mod durable;
mod gate;
mod here;
mod in_place;
mod intake;
mod learning;
mod line;
mod lost;
mod migrate;
mod others;
mod replica;
mod scripts;
mod settle;
mod stream;
mod subscriptions;
mod switch;
#[cfg(test)]
mod tests;
mod upstream;
mod users;
mod withheld;

pub use audit::Audit;
pub use counters::Counters;
pub use migrate::{Migrant, NotAdopted};
pub use others::{Finding, Inquiry};
pub use upstream::{Class, LaneKey};

use crate::Now;
use crate::command::Access;
use crate::learned::Learned;
use crate::policy::Policy;
use crate::scripts::Scripts;
use crate::session::{Ends, Session};
use crate::topology::snapshot::{Endpoint, ServiceId, ShardId, Sign, Snapshot};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use client::Client;
use core::time::Duration;
use learning::Question;
use others::{Pending, Promise};
use slotmap::SlotMap;
use switch::Shard;
use upstream::Up;

slotmap::new_key_type! {
    /// A client of one worker.
    pub struct ClientId;
    /// An upstream connection of one worker.
    pub struct UpId;
}

/// One end of a byte stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dst {
    /// A client.
    Client(ClientId),
    /// An upstream connection.
    Up(UpId),
}

/// Which streams [`Worker::next_dirty`] is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Clients, which are flushed first: it is they who wait.
    Clients,
    /// Upstream connections.
    Ups,
}

/// How a stream is to be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// At once, so that nothing queued in the kernel can still arrive (`SO_LINGER` 0).
    Abort,
    /// In the ordinary way: all that was to be said was written.
    Gently,
}

/// What the shell is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Connect; then call [`Worker::connected`].
    Connect(UpId, Endpoint),
    /// Close; the id is gone already.
    Close(Dst, How),
    /// Read this again: it was not read for back-pressure.
    Resume(Dst),
    /// Nothing more is written to this, it is only read.
    OnlyRead(UpId),
    /// What was written to this must have reached its peer by now: if some of it waits to be sent again, the connection is
    /// to be aborted, and [`Worker::gone`] to be called.
    Arrived(UpId),
    /// Tell the control plane.
    Tell(Event),
    /// Ask all other workers of this process ([`Worker::asked`]).
    Ask(Inquiry),
    /// Answer a worker that asked ([`Worker::told`]).
    Found {
        /// The shell's name for it.
        to: usize,
        /// What was found.
        finding: Finding,
    },
}

/// What a worker tells the control plane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The grant may have ended.
    Sign(Sign),
    /// Commands that may write were sent to the master of this service; told again as long as it goes on.
    Writes(ServiceId),
    /// A client was closed for what it left unread.
    Overrun {
        /// The name of its service.
        service: Arc<str>,
        /// Its session's id.
        session: u64,
        /// How many bytes.
        unread: usize,
        /// What it may leave.
        limit: OutputLimit,
    },
    /// A server refused to set a connection up (a password, a permission, too many connections …).
    SetupFailed {
        /// The name of its service.
        service: Arc<str>,
        /// Which server.
        endpoint: Endpoint,
        /// What it said.
        error: Box<str>,
    },
}

/// A limit on what a client leaves unread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutputLimit {
    /// `client_output_hard`.
    Client,
    /// `subscriber_output_hard`.
    Subscriber,
    /// `subscriber_output_soft`, for `subscriber_output_time`.
    SubscriberForLong,
    /// `subscriber_output_soft`, when the connection to its server was lost: it would go on without what it missed, and a
    /// server may have closed it for being slow.
    SubscriberLost,
}

impl OutputLimit {
    /// What the client did, for a person.
    pub fn label(self) -> &'static str {
        match self {
            OutputLimit::Client => "more than `limits.client_output_hard`",
            OutputLimit::Subscriber => "more than `limits.subscriber_output_hard`",
            OutputLimit::SubscriberForLong => {
                "more than `limits.subscriber_output_soft` for `limits.subscriber_output_time`"
            }
            OutputLimit::SubscriberLost => {
                "more than `limits.subscriber_output_soft`, when the connection to its server was lost"
            }
        }
    }
}

/// Why a client is not accepted: what to tell it before it is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAccepted(pub &'static [u8]);

/// Redis' words for it (`acceptCommonHandler` in `networking.c`).
const MAX_CLIENTS: NotAccepted = NotAccepted(b"-ERR max number of clients reached\r\n");
const NO_SERVICE: NotAccepted = NotAccepted(b"-ERR this service is being removed\r\n");

/// How often it is told that writes flow.
const WRITES_EVERY: Duration = Duration::from_millis(250);
/// How often what is idle is looked for.
const SWEEP: Duration = Duration::from_secs(1);

struct Service {
    policy: Arc<Policy>,
    shards: Vec<Shard>,
    clients: u32,
    counters: Counters,
    /// Commands that were sent upstream or answered here, by [`Access`].
    commands: [u64; 3],
    /// How many of them could write when that was last told, and when it may be told again.
    writes_told: (u64, Now),
    /// What its clients have shown.
    scripts: Scripts,
    /// What its master has said of commands that the table does not have, and what it is asked now.
    learned: Learned,
    questions: Vec<Question>,
    /// No new clients; those that are owed nothing are closed.
    draining: bool,
}

impl Service {
    fn count(&mut self, access: Access) {
        self.commands[access as usize] += 1;
    }

    fn writes(&self) -> u64 {
        self.commands[Access::Write as usize]
    }

    /// Whether it is to be told that writes flow.
    fn tells_writes(&mut self, now: Now) -> bool {
        let (told, due) = self.writes_told;
        let tells = now >= due && self.policy.tells_writes && self.writes() != told;
        if tells {
            self.writes_told = (self.writes(), now + WRITES_EVERY);
        }
        tells
    }
}

/// One worker.
pub struct Worker {
    /// By [`ServiceId`], which are small and never used again.
    services: Vec<Option<Service>>,
    clients: SlotMap<ClientId, Client>,
    ups: SlotMap<UpId, Up>,
    /// Connections that are not set up yet, or fenced and read on, by the moment at which they are given up: there may be
    /// thousands of others.
    expiring: BTreeSet<(Now, UpId)>,
    effects: VecDeque<Effect>,
    dirty_clients: Vec<ClientId>,
    dirty_ups: Vec<UpId>,
    /// Clients to look at again before the present call ends.
    ready: VecDeque<ClientId>,
    /// Whether waiting clients are being let out: then they pass those that wait behind them.
    releasing: bool,
    /// Clients that are to go to another worker, and when those that could not stay.
    leaving: Vec<ClientId>,
    leave_by: Now,
    /// Clients that wait for what all workers find, and questions of others that wait for a session's connection.
    inquiries: BTreeMap<ClientId, Pending>,
    promises: Vec<Promise>,
    next_inquiry: u64,
    buffers: Vec<Vec<u8>>,
    /// Numbers what is withheld together.
    next_batch: u64,
    next_session: u64,
    session_step: u64,
    next_sweep: Now,
    snapshot: Arc<Snapshot>,
}

impl Worker {
    /// A worker without services, one of `step` in its process. Session ids are `first`, `first + step` …, so that those of
    /// several workers differ.
    pub fn new(first: u64, step: u64) -> Worker {
        Worker {
            services: Vec::new(),
            clients: SlotMap::with_key(),
            ups: SlotMap::with_key(),
            expiring: BTreeSet::new(),
            effects: VecDeque::new(),
            dirty_clients: Vec::new(),
            dirty_ups: Vec::new(),
            ready: VecDeque::new(),
            releasing: false,
            leaving: Vec::new(),
            leave_by: Now::ZERO,
            inquiries: BTreeMap::new(),
            promises: Vec::new(),
            next_inquiry: 0,
            buffers: Vec::new(),
            next_batch: 0,
            next_session: first,
            session_step: step,
            next_sweep: Now::ZERO,
            snapshot: Arc::default(),
        }
    }

    /// Takes over the policies of all services. Services that are new wait for a snapshot; of those that are no longer
    /// there the clients are drained.
    pub fn configure(&mut self, now: Now, policies: &[Arc<Policy>]) {
        let mut others = Vec::new();
        for policy in policies {
            let i = usize::from(policy.id.0);
            if self.services.len() <= i {
                self.services.resize_with(i + 1, || None);
            }
            match &mut self.services[i] {
                Some(s) => {
                    others.push(core::mem::replace(&mut s.policy, policy.clone()));
                    s.draining = false;
                }
                none => {
                    *none = Some(Service {
                        policy: policy.clone(),
                        shards: [Shard::new(now)].into(),
                        clients: 0,
                        counters: Counters::default(),
                        commands: [0; 3],
                        writes_told: (0, Now::ZERO),
                        scripts: Scripts::default(),
                        learned: Learned::default(),
                        questions: Vec::new(),
                        draining: false,
                    });
                }
            }
        }
        others.iter().for_each(|old| self.users_changed(old));
        let kept: Vec<ServiceId> = policies.iter().map(|p| p.id).collect();
        for i in 0..self.services.len() {
            let gone = self.services[i].as_ref().is_some_and(|s| !kept.contains(&s.policy.id));
            if gone {
                self.drain(now, ServiceId(i as u16));
            }
        }
        let snapshot = self.snapshot.clone();
        self.snapshot(now, snapshot);
    }

    /// Accepts no more clients of `service`, and closes each as soon as it is owed nothing.
    pub fn drain(&mut self, now: Now, service: ServiceId) {
        let Some(s) = self.services.get_mut(usize::from(service.0)).and_then(Option::as_mut) else { return };
        s.draining = true;
        let of_it = |c: &Client| c.service == service;
        let ids: Vec<ClientId> = self.clients.iter().filter(|(_, c)| of_it(c)).map(|(id, _)| id).collect();
        self.ready.extend(ids);
        self.run_ready(now);
    }

    /// A client was accepted, on a listener that asks for durable writes or not. Errors with what to tell it before it is
    /// closed.
    pub fn accepted(
        &mut self,
        now: Now,
        service: ServiceId,
        durable: bool,
        ends: Ends,
    ) -> Result<ClientId, NotAccepted> {
        let slot = self.services.get_mut(usize::from(service.0)).and_then(Option::as_mut);
        let s = slot.filter(|s| !s.draining).ok_or(NO_SERVICE)?;
        if s.clients >= s.policy.clients_max {
            s.counters.clients_refused += 1;
            return Err(MAX_CLIENTS);
        }
        s.clients += 1;
        s.counters.clients_accepted += 1;
        let session = Session::new(self.next_session, ends, now, &s.policy);
        self.next_session += self.session_step;
        let durable = durable && s.policy.durable.replicas > 0;
        Ok(self.clients.insert(Client::new(service, session, durable, now)))
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// How many upstream connections there are.
    pub fn upstreams(&self) -> usize {
        self.ups.len()
    }

    /// Whether a stream is to be read now. If not, an [`Effect::Resume`] will say when.
    pub fn reads(&mut self, d: Dst) -> bool {
        let Dst::Client(id) = d else { return true };
        let Some(c) = self.clients.get_mut(id) else { return false };
        let Some(s) = self.services[usize::from(c.service.0)].as_ref() else { return false };
        c.paused = !c.wants_input(&s.policy.limits);
        !c.paused
    }

    /// Where a stream's next bytes are best read to; `None`: anywhere. If some are, [`Worker::filled`] says how many, before
    /// anything else is told.
    pub fn read_room(&mut self, d: Dst) -> Option<&mut [u8]> {
        let Dst::Client(id) = d else { return None };
        self.in_place(id).map(|(ledger, least)| ledger.room(least))
    }

    /// `n` bytes were read into the [room](Worker::read_room) that was given.
    pub fn filled(&mut self, now: Now, d: Dst, n: usize) {
        if let Dst::Client(id) = d {
            self.read_in_place(now, id, n);
        }
        self.run_ready(now);
    }

    /// Bytes were read.
    pub fn read(&mut self, now: Now, d: Dst, bytes: &[u8]) {
        match d {
            Dst::Client(id) => self.client_bytes(now, id, bytes),
            Dst::Up(id) => self.up_bytes(now, id, bytes),
        }
        self.run_ready(now);
    }

    /// The peer will send no more. A client is still given the replies to what it sent; an upstream connection is
    /// lost.
    pub fn eof(&mut self, now: Now, d: Dst) {
        match d {
            Dst::Client(id) => self.client_eof(now, id),
            Dst::Up(id) => self.up_gone(now, id),
        }
        self.run_ready(now);
    }

    /// The peer of a stream that is not read now will send no more than what stands before its end. (The end itself is
    /// told by [`Worker::eof`], when all before it was read.)
    pub fn hung_up(&mut self, now: Now, d: Dst) {
        if let Dst::Client(id) = d {
            self.client_hung_up(id);
        }
        self.run_ready(now);
    }

    /// A stream failed, or was closed by its peer in both directions. The shell has closed it.
    pub fn gone(&mut self, now: Now, d: Dst) {
        match d {
            Dst::Client(id) => self.forget_client(now, id),
            Dst::Up(id) => self.up_gone(now, id),
        }
        self.run_ready(now);
    }

    /// An upstream connection was made, or could not be.
    pub fn connected(&mut self, now: Now, id: UpId, made: bool) {
        if made {
            self.begin_setup(id);
        } else {
            self.up_gone(now, id);
        }
        self.run_ready(now);
    }

    /// The next stream of a side that has something to write; each once.
    pub fn next_dirty(&mut self, side: Side) -> Option<Dst> {
        loop {
            match side {
                Side::Clients => {
                    let id = self.dirty_clients.pop()?;
                    if let Some(c) = self.clients.get_mut(id) {
                        c.dirty = false;
                        return Some(Dst::Client(id));
                    }
                }
                Side::Ups => {
                    let id = self.dirty_ups.pop()?;
                    if let Some(u) = self.ups.get_mut(id) {
                        u.dirty = false;
                        if u.withholding.is_some() {
                            self.wait_behind(id);
                        }
                        return Some(Dst::Up(id));
                    }
                }
            }
        }
    }

    /// The bytes to write to a stream now: empty if there are none, if a gate is closed, or if it is gone.
    pub fn gather(&self, now: Now, d: Dst) -> &[u8] {
        match d {
            Dst::Client(id) => self.clients.get(id).map_or(&[], Client::unwritten),
            Dst::Up(id) => self.ups.get(id).map_or(&[], |u| self.up_unwritten(now, u)),
        }
    }

    /// The first `n` of the gathered bytes were written.
    pub fn wrote(&mut self, now: Now, d: Dst, n: usize) {
        match d {
            Dst::Client(id) => self.client_wrote(now, id, n),
            Dst::Up(id) => self.up_wrote(now, id, n),
        }
        self.run_ready(now);
    }

    /// Does what is due.
    pub fn timeout(&mut self, now: Now) {
        self.switch_timeout(now);
        self.leave_timeout(now);
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.sweep(now);
        }
        self.run_ready(now);
    }

    /// Calls [`Worker::timeout`] if something is due.
    pub fn timeout_if_due(&mut self, now: Now) {
        // What happened in this turn may have moved deadlines; looking is cheap.
        if self.next_timeout(now).is_some_and(|t| now >= t) {
            self.timeout(now);
        }
    }

    /// Whether [`Worker::next_dirty`] has something.
    pub fn has_dirty(&self) -> bool {
        !self.dirty_clients.is_empty() || !self.dirty_ups.is_empty()
    }

    /// Drains all services: the process is to end.
    pub fn drain_all(&mut self, now: Now) {
        let all: Vec<ServiceId> = self.services.iter().flatten().map(|s| s.policy.id).collect();
        for service in all {
            self.drain(now, service);
        }
    }

    /// When [`Worker::timeout`] is to be called.
    pub fn next_timeout(&self, now: Now) -> Option<Now> {
        let sweep = (!self.ups.is_empty() || !self.clients.is_empty()).then_some(self.next_sweep);
        [sweep, self.leave_deadline(), self.switch_next_timeout(now)].into_iter().flatten().min()
    }

    /// The next thing to do. To be drained after each phase, before anything is written.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What was counted for each service, and how many clients and upstream connections it has now.
    pub fn counters(&self) -> Vec<(ServiceId, Counters)> {
        let mut all: Vec<(ServiceId, Counters)> =
            self.services.iter().flatten().map(|s| (s.policy.id, self.counters_of(s))).collect();
        for (_, up) in &self.ups {
            if let Ok(i) = all.binary_search_by_key(&up.service, |(id, _)| *id) {
                let c = &mut all[i].1;
                match up.key.class {
                    Class::Pinned => c.pinned_now += 1,
                    // What a replica owes is not on its way to the master.
                    Class::Read => c.lanes_now += 1,
                    Class::Plain | Class::Durable | Class::Probe => {
                        c.lanes_now += 1;
                        c.in_flight_now += up.ledger.owed() as u64;
                    }
                }
            }
        }
        all
    }

    fn counters_of(&self, s: &Service) -> Counters {
        let held = s.shards.iter().map(|s| s.line.len() as u64).sum();
        Counters {
            clients_now: u64::from(s.clients),
            held_now: held,
            commands: s.commands.iter().sum(),
            writes: s.writes(),
            ..s.counters.clone()
        }
    }

    fn service(&mut self, id: ServiceId) -> &mut Service {
        self.services[usize::from(id.0)]
            .as_mut()
            .expect("a service is kept while it has clients or connections")
    }

    fn service_ref(&self, id: ServiceId) -> &Service {
        self.services[usize::from(id.0)]
            .as_ref()
            .expect("a service is kept while it has clients or connections")
    }

    /// The one shard of a service, until services have more.
    fn shard(&mut self, id: ServiceId, shard: ShardId) -> &mut Shard {
        &mut self.service(id).shards[usize::from(shard.0)]
    }

    /// Looks again at all clients for whom something has changed.
    fn run_ready(&mut self, now: Now) {
        while let Some(id) = self.ready.pop_front() {
            self.pump(now, id);
        }
    }

    fn sweep(&mut self, now: Now) {
        self.sweep_ups(now);
        self.sweep_clients(now);
        self.sweep_questions(now);
        self.sweep_inquiries(now);
        self.ask_for_auth(now);
    }
}
