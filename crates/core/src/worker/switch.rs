//! A switch as a worker sees it: snapshots and signs close gates, fence connections, and let out what waits.
use super::dials::Dials;
use super::line::Line;
use super::upstream::LaneKey;
use super::withheld::Batch;
use super::{Class, Effect, Event, UpId, Worker};
use crate::Now;
use crate::command::Access;
use crate::hold::{Pass, pass};
use crate::topology::snapshot::{Gate, Kept, ServiceId, ShardId, ShardView, Sign, SignKind, Snapshot, Term};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// So many waiting clients are let out in one turn.
const BATCH: usize = 64;

/// After a connection could not be made the next is tried no sooner than this, doubled with each failure …
const RETRY_FIRST: Duration = Duration::from_millis(10);
/// … up to so many times.
const RETRY_DOUBLINGS: u32 = 6;

pub(super) struct Shard {
    pub(super) view: Arc<ShardView>,
    /// When this worker began to hold the shard by itself, for a sign.
    pub(super) held_since: Option<Now>,
    /// The newest sign: a proof that began later releases.
    signed_at: Now,
    /// Shared connections.
    pub(super) lanes: BTreeMap<LaneKey, Vec<UpId>>,
    /// Pinned connections that nobody uses.
    pub(super) pool: BTreeMap<LaneKey, Vec<UpId>>,
    /// Pinned connections, in use or in the pool.
    pub(super) pinned: u32,
    /// Clients that wait for a gate.
    pub(super) line: Line,
    /// Replies that are withheld until a successor is known to have their writes.
    pub(super) withheld: Vec<Batch>,
    /// Connections withhold such replies, or did when the gate for writes was last seen shut.
    pub(super) withholds: bool,
    /// The server wants `AUTH` before anything else.
    pub(super) needs_auth: bool,
    /// When that was last seen, and how many clients the service had had by then.
    pub(super) auth_asked: (Now, u64),
    /// No connection is tried before this.
    pub(super) retry_at: Option<Now>,
    pub(super) failures: u32,
    /// The replica that serves reads is not asked before this.
    pub(super) replica_at: Option<Now>,
    /// Since when no connection could be made, and when the last was tried.
    failing: Option<(Now, Now)>,
    /// Connections to its node that are being made.
    pub(super) dials: Dials,
    /// The gates' state at the last look, to see a change that time alone made.
    last: [Pass; 2],
}

impl Shard {
    pub(super) fn new(now: Now) -> Shard {
        Shard {
            // Until the control plane has said anything: wait for it.
            view: Arc::new(ShardView::unknown(now, Duration::from_secs(60))),
            held_since: None,
            signed_at: Now::ZERO,
            lanes: BTreeMap::new(),
            pool: BTreeMap::new(),
            pinned: 0,
            line: Line::default(),
            withheld: Vec::new(),
            withholds: false,
            needs_auth: false,
            auth_asked: (Now::ZERO, 0),
            retry_at: None,
            failures: 0,
            replica_at: None,
            failing: None,
            dials: Dials::default(),
            last: [Pass::Wait; 2],
        }
    }

    pub(super) fn pinned_is_full(&self, most: u32) -> bool {
        self.pinned >= most && self.pool.is_empty()
    }

    /// Whether writes and reads may go out on a connection of `term` now (invariant 2). What the gates forbid was taken
    /// back when they closed, but for what was sent in part; what time has closed since then is taken back at the
    /// next look, and nothing is sent before.
    pub(super) fn sends(&self, term: Term, now: Now) -> [bool; 2] {
        let gates = self.gates(now);
        let usable = term == self.view.term && gates == self.last;
        gates.map(|gate| usable && gate == Pass::Go)
    }

    /// Whether a connection of `term` may still be asked how far its node has come, although commands wait.
    pub(super) fn may_ask(&self, term: Term, now: Now) -> bool {
        let waits = self.last[0] == Pass::Wait && self.gates(now) == self.last;
        waits && self.may_kill(term, now)
    }

    /// Whether a script may be ended over a connection of `term`, although commands wait: it may be what the node does instead of
    /// answering, and nobody else can end it.
    pub(super) fn may_kill(&self, term: Term, now: Now) -> bool {
        let leased = self.view.writes_until.is_none_or(|t| now < t);
        term == self.view.term && self.view.master.is_some() && leased
    }

    /// What the gate for writes was at the last look.
    pub(super) fn writes(&self) -> Pass {
        self.last[0]
    }

    /// Whether nothing that the master executed can be lost, as far as anybody knows.
    pub(super) fn keeps_all(&self) -> bool {
        let all = Some(Kept { term: self.view.term, offset: u64::MAX });
        self.held_since.is_none() && self.view.kept == all
    }

    /// Whether the gate was open at the last look.
    pub(super) fn was_open(&self, access: Access) -> bool {
        self.last[usize::from(access != Access::Write)] == Pass::Go
    }

    /// A connection could not be made.
    pub(super) fn failed(&mut self, now: Now) {
        let wait = RETRY_FIRST * 2u32.pow(self.failures.min(RETRY_DOUBLINGS));
        // Connections that were tried at once fail as one.
        if self.retry_at.is_none_or(|t| now >= t) {
            self.retry_at = Some(now + wait);
            self.failures = self.failures.saturating_add(1);
        }
        // Long after the last failure it is a new one.
        let recent = self.failing.filter(|(_, last)| now.since(*last) < self.view.hold_max + 2 * wait);
        self.failing = Some((recent.map_or(now, |(since, _)| since), now));
    }

    /// A connection could be made, or another master is to be tried.
    pub(super) fn succeeded(&mut self) {
        self.retry_at = None;
        self.failures = 0;
        self.failing = None;
    }

    fn gates(&self, now: Now) -> [Pass; 2] {
        [Access::Write, Access::Read].map(|access| pass(&self.view, self.held_since, access, now))
    }

    /// The moments at which the gates change by themselves.
    fn deadlines(&self) -> impl Iterator<Item = Now> {
        let end = |g: Gate| match g {
            Gate::Hold { until, .. } => Some(until),
            _ => None,
        };
        let own = self.held_since.map(|t| t + self.view.hold_max);
        let lease = self.view.writes_until;
        let lapse = lease.map(|t| t + self.view.hold_max);
        let leases = [lease, lapse, self.view.reads_until];
        [end(self.view.writes), end(self.view.reads), own, self.retry_at, self.replica_at]
            .into_iter()
            .chain(leases)
            .flatten()
    }
}

impl Worker {
    /// A new view of all services. What it fences is closed before anything else happens.
    pub fn snapshot(&mut self, now: Now, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot.clone();
        for service in &snapshot.services {
            for (i, view) in service.shards.iter().enumerate() {
                let known = self.services.get(usize::from(service.id.0)).and_then(Option::as_ref);
                if known.is_some_and(|s| i < s.shards.len()) {
                    self.install(now, (service.id, ShardId(i as u16)), view.clone());
                }
            }
        }
        self.run_ready(now);
    }

    /// The version of the newest snapshot.
    pub fn version(&self) -> u64 {
        self.snapshot.version
    }

    fn install(&mut self, now: Now, at: (ServiceId, ShardId), view: Arc<ShardView>) {
        let shard = self.shard(at.0, at.1);
        if Arc::ptr_eq(&shard.view, &view) || view.term < shard.view.term {
            return;
        }
        let fence = view.term > shard.view.term || view.master.is_none() && shard.view.master.is_some();
        let news = view.master != shard.view.master;
        let replica = view.reads_from != shard.view.reads_from;
        let deposed = view.deposed != shard.view.deposed;
        shard.view = view;
        if fence || shard.held_since.is_some() && shard.view.proven_at > shard.signed_at {
            // A newer term was proven after anything that was seen on an older one.
            shard.held_since = None;
        }
        if fence || news {
            shard.succeeded();
            // Also those who wait because the old master could not be reached, at gates that are open before and after.
            shard.line.let_all_out();
            self.fence(now, at);
            self.service(at.0).learned.clear();
        }
        if deposed {
            self.deposed_changed(now, at);
        }
        if replica {
            self.replica_changed(now, at);
        }
        self.look(now, at);
    }

    /// Closes all connections of a shard: they belong to a term that is over, or to nobody; but for those that are only
    /// read on.
    fn fence(&mut self, now: Now, at: (ServiceId, ShardId)) {
        self.shard(at.0, at.1).dials.never_any();
        for id in self.ups_of(at) {
            if !self.read_on(now, id) {
                self.lose_up(now, id, None);
            }
        }
    }

    pub(super) fn ups_of(&self, at: (ServiceId, ShardId)) -> Vec<UpId> {
        self.ups.iter().filter(|(_, u)| (u.service, u.shard) == at).map(|(id, _)| id).collect()
    }

    /// Something was seen that may mean that the grant has ended: hold, and tell.
    pub(super) fn sign(&mut self, now: Now, at: (ServiceId, ShardId), term: Term, kind: SignKind) {
        let s = self.service(at.0);
        let shard = &mut s.shards[usize::from(at.1.0)];
        if term != shard.view.term || (shard.held_since.is_some() && shard.signed_at == now) {
            return;
        }
        s.counters.signs += 1;
        shard.signed_at = now;
        // As long as no connection can be made it is one hold, however often the master is proven meanwhile.
        let since = shard.failing.filter(|(_, last)| *last == now).map_or(now, |(since, _)| since);
        shard.held_since.get_or_insert(since);
        let sign = Sign { service: at.0, shard: at.1, term, at: now, kind };
        self.effects.push_back(Effect::Tell(Event::Sign(sign)));
        self.look(now, at);
    }

    /// What arrives after a lease has run out is not taken for what came before.
    pub(super) fn look_at_lease(&mut self, now: Now, at: (ServiceId, ShardId)) {
        let shard = self.shard(at.0, at.1);
        if shard.last[0] == Pass::Go && shard.view.writes_until.is_some_and(|t| now >= t) {
            self.look(now, at);
        }
    }

    /// Compares the gates with what they were at the last look, and does what follows from a change.
    fn look(&mut self, now: Now, at: (ServiceId, ShardId)) {
        let shard = self.shard(at.0, at.1);
        let gates = shard.gates(now);
        let before = core::mem::replace(&mut shard.last, gates);
        let closed = gates.iter().zip(before).any(|(g, b)| b == Pass::Go && *g != b);
        if closed {
            let ups = self.ups_of(at);
            self.retract(ups);
            self.withhold_writes(at);
        }
        if gates == [Pass::Refuse; 2] && before != gates {
            // The hold has run out: what was sent and not answered is not waited for any longer. Replicas go on.
            for id in self.ups_of(at) {
                if self.ups.get(id).is_some_and(|up| up.key.class != Class::Read) {
                    self.lose_up(now, id, None);
                }
            }
        }
        self.prove(at);
        let shard = self.shard(at.0, at.1);
        let due = |t: &mut Option<Now>| t.take_if(|t| now >= *t).is_some();
        let retry = due(&mut shard.retry_at) | due(&mut shard.replica_at);
        let opened = gates.iter().zip(before).any(|(g, b)| *g != Pass::Wait && *g != b);
        if opened || retry {
            shard.line.let_all_out();
        }
        if gates != before {
            self.ups_dirty(at);
        }
        self.release(now, at);
    }

    /// What was written only in part when the gate closed goes on, and what is still allowed.
    fn ups_dirty(&mut self, at: (ServiceId, ShardId)) {
        for id in self.ups_of(at) {
            self.mark_up(id);
        }
    }

    /// Lets a batch of waiting clients out, the longest-waiting first.
    fn release(&mut self, now: Now, at: (ServiceId, ShardId)) {
        for _ in 0..BATCH {
            let Some(id) = self.shard(at.0, at.1).line.next_out() else { return };
            self.releasing = true;
            self.pump(now, id);
            self.releasing = false;
        }
    }

    pub(super) fn switch_timeout(&mut self, now: Now) {
        self.give_up(now);
        let all: Vec<(ServiceId, ShardId)> = self.shards().collect();
        for at in all {
            self.look(now, at);
        }
    }

    pub(super) fn switch_next_timeout(&self, now: Now) -> Option<Now> {
        let shards = self.services.iter().flatten().flat_map(|s| &s.shards);
        let at = shards.flat_map(|s| {
            let changed =
                s.gates(now) != s.last || [s.retry_at, s.replica_at].iter().flatten().any(|t| now >= *t);
            let due = (changed || s.line.is_leaving()).then_some(now);
            s.deadlines().filter(move |t| *t > now).chain(due)
        });
        at.chain(self.give_up_at()).min()
    }

    fn shards(&self) -> impl Iterator<Item = (ServiceId, ShardId)> {
        self.services.iter().flatten().flat_map(|s| {
            let id = s.policy.id;
            (0..s.shards.len()).map(move |i| (id, ShardId(i as u16)))
        })
    }
}
