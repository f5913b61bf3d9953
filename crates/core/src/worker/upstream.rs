//! Upstream connections: made, set up and confirmed, used, pooled, closed.
use super::client::{Place, Stream};
use super::deposed::Fenced;
use super::withheld::Withholding;
use super::{ClientId, Dst, Effect, Event, How, UpId, Worker};
use crate::Now;
use crate::command::{Access, Act};
use crate::ledger::{Apply, Ledger, Owner, Slot};
use crate::resp::frame::{Element, Elements};
use crate::resp::scan::{self, ReplyScan};
use crate::resp::{Proto, parse_i64, reply};
use crate::session::{Ident, IdentId, Names, Session};
use crate::topology::snapshot::{Endpoint, ServiceId, ShardId, SignKind, Term};
use alloc::vec::Vec;

/// For what a connection is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Shared: carries many sessions' commands interleaved.
    Plain,
    /// Shared: carries writes that replicas must have before they are acknowledged, and what their sessions ask behind
    /// them.
    Durable,
    /// Shared: carries what changes a session and not data (`AUTH`, `HELLO`, `SELECT` …), so that its own state does
    /// not matter.
    Probe,
    /// One session's, or in the pool.
    Pinned,
    /// Shared, to a replica: carries reads while there is no master.
    Read,
}

/// What a connection is set up for; shard and term are the map's that it is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LaneKey {
    /// For what it is used.
    pub class: Class,
    /// As whom.
    pub ident: IdentId,
    /// In which protocol.
    pub proto: Proto,
    /// In which database.
    pub db: u32,
}

impl LaneKey {
    /// It carries nothing but `AUTH`, and `HELLO` with it. One at a time: behind another reply that is still to be sent, servers
    /// since Redis 7.2 (and Valkey to 8) do not answer it when it fails, and all replies after that would be someone else's (acl.c,
    /// `addAuthErrReply`; redis/redis#15640).
    pub(super) fn signs_in(&self) -> bool {
        self.class == Class::Probe && self.ident == IdentId::ANYBODY
    }
}

/// So many connections that carry `AUTH` each worker opens at most.
pub(super) const SIGN_INS_MAX: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Others are made first (`dials`).
    Waiting,
    Connecting,
    /// Set-up requests were sent; their replies decide.
    Setup,
    Ready,
}

/// The requests of a set-up, in the order in which they are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Auth,
    Hello,
    Select,
    /// `CLIENT ID`: others may want to name it.
    Id,
    Role,
}

pub(super) struct Up {
    pub(super) service: ServiceId,
    pub(super) shard: ShardId,
    pub(super) term: Term,
    pub(super) endpoint: Endpoint,
    pub(super) key: LaneKey,
    pub(super) ledger: Ledger,
    pub(super) scan: ReplyScan,
    /// The part of a reply that has arrived.
    pub(super) input: Vec<u8>,
    pub(super) dirty: bool,
    /// Whose it is, if it is pinned and not in the pool.
    pub(super) pinned_by: Option<ClientId>,
    /// Bytes pass uncounted.
    pub(super) relay: bool,
    /// Clients that wait for room in its ring.
    pub(super) starved: Vec<ClientId>,
    /// What must be proven before the replies to its writes are shown.
    pub(super) withholding: Option<Withholding>,
    /// A `PUBLISH` that a `WAIT` needs was denied.
    pub(super) wait_denied: bool,
    /// The server's id of it; `None`: it did not say.
    server_id: Option<u64>,
    /// It is never another session's: others know of it, or the server keeps something for it.
    pub(super) private: bool,
    /// Its client says no more, and nothing that it said has an end of its own: the server is told so (`true`: it was), and ends
    /// it all as it would on a direct connection.
    pub(super) ends: Option<bool>,
    /// Its term is over; it is only read, for what becomes of the commands that wait there (`deposed`).
    pub(super) fenced: Option<Fenced>,
    /// A script runs there, and nobody is to wait behind it; it is closed when it owes nothing.
    pub(super) left: bool,
    /// It was set up without `AUTH`, and the server wanted none: that stays so, whatever it wants later.
    pub(super) open: bool,
    /// It is there to see whether the server wants `AUTH`.
    pub(super) only_asks: bool,
    /// Its session has become another user meanwhile, by the configuration.
    pub(super) outdated: bool,
    pub(super) ident: Option<Ident>,
    names: Names,
    pub(super) state: State,
    setup: Vec<u8>,
    setup_sent: usize,
    steps: Vec<Step>,
    pub(super) deadline: Now,
    /// Something was sent on it since it was set up.
    pub(super) carried: bool,
    pub(super) used: Now,
}

impl Up {
    /// Whether it has a command that blocks.
    pub(super) fn blocks(&self) -> bool {
        self.ledger.owes(|e| matches!(e.act, Act::Block | Act::BlockIfAsked | Act::Wait))
    }

    /// Whether what comes now is passed on uncounted: what was asked of it before, for itself, has been answered.
    pub(super) fn relays(&mut self) -> bool {
        self.relay && self.is_ready() && self.ledger.front().is_some_and(|s| s.owner != Owner::Nobody)
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether it is set up, and has all that its session had on another one.
    pub(super) fn is_restored(&self) -> bool {
        self.is_ready() && self.fenced.is_none() && !self.ledger.slots().any(|s| s.apply.restores())
    }

    /// The server's id of it, for others to know.
    pub(super) fn told_of(&mut self) -> Option<u64> {
        self.private |= self.server_id.is_some();
        self.server_id
    }

    fn is_unused(&self) -> bool {
        self.is_ready() && self.pinned_by.is_none() && self.ledger.is_empty()
    }
}

/// What a queued request does; of what is not known the worst is assumed.
pub(super) fn access(slot: &Slot) -> Access {
    match slot.entry {
        Some(e) => e.access,
        None if matches!(slot.apply, Apply::Name | Apply::Learn) || slot.apply.proves() => Access::Neither,
        None if matches!(slot.apply, Apply::LastId(_)) => Access::Read,
        None => Access::Write,
    }
}

impl Worker {
    /// The shared connection for `key`, made if there is none. `turn` chooses among several. `None`: one was tried in vain
    /// a moment ago, or there are too many.
    pub(super) fn lane(
        &mut self,
        now: Now,
        at: (ServiceId, ShardId),
        key: LaneKey,
        ident: Option<&Ident>,
        turn: u64,
    ) -> Option<UpId> {
        let s = self.service_ref(at.0);
        let there = s.shards[usize::from(at.1.0)].lanes.get(&key).map_or(&[][..], |v| &v[..]);
        let of = |most: usize| (turn % most as u64) as usize;
        let i = match key.class {
            _ if key.signs_in() => {
                let idle = |id: &UpId| self.ups.get(*id).is_some_and(|up| up.ledger.is_empty());
                let full = there.len() >= SIGN_INS_MAX;
                there.iter().position(idle).unwrap_or(if full { of(SIGN_INS_MAX) } else { there.len() })
            }
            Class::Probe => 0,
            _ => of(usize::from(s.policy.lanes_per_node.max(1))),
        };
        if i < there.len() {
            return Some(there[i]);
        }
        // With no room for another, an AUTH waits behind those that are under way.
        let another = there.get(of(there.len().max(1))).copied().filter(|_| key.signs_in());
        if self.lanes_are_full(at) {
            return another;
        }
        let id = self.open(now, at, key, ident)?;
        if key.class == Class::Durable {
            self.await_replicas(id);
        }
        self.shard(at.0, at.1).lanes.entry(key).or_default().push(id);
        Some(id)
    }

    /// Whether one more shared connection would be too many: of those that are not in use the one that was unused the
    /// longest makes room.
    pub(super) fn lanes_are_full(&mut self, at: (ServiceId, ShardId)) -> bool {
        let s = self.service_ref(at.0);
        let lanes = &s.shards[usize::from(at.1.0)].lanes;
        if lanes.values().map(Vec::len).sum::<usize>() < s.policy.shared_max as usize {
            return false;
        }
        let unused = lanes.values().flatten().filter(|id| self.ups.get(**id).is_some_and(Up::is_unused));
        match unused.min_by_key(|id| self.ups[**id].used).copied() {
            Some(id) => self.close_up(id),
            None => return true,
        }
        false
    }

    /// A connection for one session, out of the pool if one is there. `None`: there are too many, or no master.
    pub(super) fn pin(
        &mut self,
        now: Now,
        at: (ServiceId, ShardId),
        key: LaneKey,
        ident: Option<&Ident>,
        by: ClientId,
    ) -> Option<UpId> {
        let id = match self.take_pooled(at, key) {
            Some(id) => id,
            None => {
                let most = self.service(at.0).policy.pinned_max;
                if self.shard(at.0, at.1).pinned >= most {
                    let idle = self.shard(at.0, at.1).pool.first_key_value().map(|(key, _)| *key)?;
                    let id = self.take_pooled(at, idle)?;
                    self.close_up(id);
                }
                let id = self.open(now, at, key, ident)?;
                self.shard(at.0, at.1).pinned += 1;
                id
            }
        };
        self.ups[id].pinned_by = Some(by);
        if self.clients.get(by).is_some_and(|c| c.durable) {
            self.await_replicas(id);
        }
        Some(id)
    }

    fn take_pooled(&mut self, at: (ServiceId, ShardId), key: LaneKey) -> Option<UpId> {
        let pool = &mut self.shard(at.0, at.1).pool;
        let of_key = pool.get_mut(&key)?;
        let id = of_key.pop();
        if of_key.is_empty() {
            pool.remove(&key);
        }
        id
    }

    /// Makes the connection's names those of its session, ahead of the session's commands.
    pub(super) fn name_pinned(&mut self, id: UpId, client: ClientId) {
        let (Some(c), Some(up)) = (self.clients.get(client), self.ups.get_mut(id)) else { return };
        let none = Names::default();
        let want = c.session.names.as_deref().unwrap_or(&none);
        let mut set = |words: &[&[u8]]| {
            let mut bytes = Vec::new();
            reply::request(&mut bytes, words);
            up.ledger.push(&bytes, Slot::new(Owner::Nobody, None, Apply::Name));
        };
        if want.name != up.names.name {
            set(&[b"CLIENT", b"SETNAME", &want.name]);
        }
        if want.lib_name != up.names.lib_name {
            set(&[b"CLIENT", b"SETINFO", b"LIB-NAME", &want.lib_name]);
        }
        if want.lib_ver != up.names.lib_ver {
            set(&[b"CLIENT", b"SETINFO", b"LIB-VER", &want.lib_ver]);
        }
        up.names = want.clone();
    }

    /// A session needs its connection no longer: into the pool, if it is clean.
    pub(super) fn unpin(&mut self, id: UpId, session: &Session) {
        let Some(up) = self.ups.get_mut(id) else { return };
        let clean = up.ledger.is_empty() && !up.relay && !up.outdated && !up.private && up.is_ready();
        let clean = clean && up.ends.is_none();
        if session.needs_pin() || !clean {
            self.close_up(id);
            return;
        }
        // The session's SELECT, HELLO and AUTH were executed on this very connection.
        up.key =
            LaneKey { class: Class::Pinned, ident: session.ident_id(), proto: session.proto, db: session.db };
        up.ident = session.ident.clone();
        up.names = session.names.as_deref().cloned().unwrap_or_default();
        up.pinned_by = None;
        up.withholding = None;
        let (service, shard, key, term) = (up.service, up.shard, up.key, up.term);
        let shard = self.shard(service, shard);
        if shard.view.term == term {
            shard.pool.entry(key).or_default().push(id);
        } else {
            self.close_up(id);
        }
    }

    /// Begins a connection to the shard's master, or to the replica that serves its reads. `None`: there is none now, or it was tried a moment ago in vain.
    pub(super) fn open(
        &mut self,
        now: Now,
        at: (ServiceId, ShardId),
        key: LaneKey,
        ident: Option<&Ident>,
    ) -> Option<UpId> {
        let s = self.service(at.0);
        let timeout = s.policy.connect_timeout;
        let shard = &s.shards[usize::from(at.1.0)];
        let endpoint = match key.class {
            Class::Read => shard.view.reads_from.clone()?,
            _ if shard.retry_at.is_some_and(|t| now < t) => return None,
            _ => shard.view.master.clone()?,
        };
        let term = shard.view.term;
        s.counters.ups_opened += 1;
        let id = self.ups.insert(Up {
            service: at.0,
            shard: at.1,
            term,
            endpoint,
            key,
            ledger: Ledger::default(),
            scan: ReplyScan::default(),
            input: Vec::new(),
            dirty: false,
            pinned_by: None,
            relay: false,
            starved: Vec::new(),
            withholding: None,
            wait_denied: false,
            server_id: None,
            private: false,
            ends: None,
            fenced: None,
            left: false,
            open: false,
            only_asks: false,
            outdated: false,
            ident: ident.cloned(),
            names: Names::default(),
            state: State::Waiting,
            setup: Vec::new(),
            setup_sent: 0,
            steps: Vec::new(),
            deadline: now + timeout,
            carried: false,
            used: now,
        });
        self.expiring.insert((now + timeout, id));
        self.dial(id);
        Some(id)
    }

    /// The connection is made: its set-up goes out in one write.
    pub(super) fn begin_setup(&mut self, id: UpId) {
        let Some(up) = self.ups.get_mut(id) else { return };
        up.state = State::Setup;
        let mut steps = Vec::new();
        let bytes = &mut up.setup;
        if let Some(ident) = &up.ident {
            let c = &ident.credential;
            // By its name, `default` is let in also when its password was taken away.
            let user = c.user.as_deref().unwrap_or(b"default");
            reply::request(bytes, &[&b"AUTH"[..], user, &c.secret]);
            steps.push(Step::Auth);
        }
        if up.key.proto == Proto::Resp3 {
            reply::request(bytes, &[&b"HELLO"[..], b"3"]);
            steps.push(Step::Hello);
        }
        if up.key.db != 0 {
            let mut db = Vec::new();
            reply::integer(&mut db, u64::from(up.key.db));
            reply::request(bytes, &[&b"SELECT"[..], &db[1..db.len() - 2]]);
            steps.push(Step::Select);
        }
        if up.key.class == Class::Pinned {
            reply::request(bytes, &[&b"CLIENT"[..], b"ID"]);
            steps.push(Step::Id);
        }
        reply::request(bytes, &[&b"ROLE"[..]]);
        steps.push(Step::Role);
        steps.reverse();
        up.steps = steps;
        self.mark_up(id);
    }

    /// A reply to a step of the set-up.
    pub(super) fn setup_reply(&mut self, now: Now, id: UpId, frame: &[u8]) {
        let Some(up) = self.ups.get_mut(id) else { return };
        let Some(step) = up.steps.pop() else { return self.lose_up(now, id, Some(SignKind::Garbage)) };
        let error = frame.first() == Some(&b'-');
        let nobody = up.key.ident == IdentId::NOBODY;
        let replica = up.key.class == Class::Read;
        let unnamed = up.ident.is_none();
        let at = (up.service, up.shard);
        match step {
            Step::Id if !error => {
                let id = frame.strip_prefix(b":").and_then(|n| parse_i64(n.trim_ascii_end()));
                up.server_id = id.and_then(|n| u64::try_from(n).ok());
            }
            // What the server does not tell, nobody can name.
            Step::Id if [&b"-NOAUTH"[..], b"-NOPERM", b"-BUSY"].iter().any(|e| frame.starts_with(e)) => {}
            Step::Role if !error => {
                let mut elements = Elements::of(frame);
                elements.next();
                let master = elements.next() == Some(Element::Bulk(b"master"));
                if unnamed {
                    self.auth_wanted(now, id, false);
                }
                if master == replica && (replica || !self.service_ref(at.0).policy.pass_readonly) {
                    return self.lose_up(now, id, Some(SignKind::NotMaster));
                }
            }
            // A user who may not ask for the role is none the worse for it; a limit on connections is an error.
            Step::Role if unnamed && (frame.starts_with(b"-NOAUTH") || frame.starts_with(b"-NOPERM")) => {
                self.auth_wanted(now, id, frame.starts_with(b"-NOAUTH"));
                self.take_back(id);
            }
            Step::Role if frame.starts_with(b"-NOAUTH") || frame.starts_with(b"-NOPERM") => {}
            // It runs a script; what may be said to it meanwhile, such as SCRIPT KILL, is its own to decide.
            Step::Role if frame.starts_with(b"-BUSY") => {}
            // Without permission for them, the data commands will say so too.
            Step::Hello | Step::Select if nobody && frame.starts_with(b"-NOAUTH") => {}
            _ if error && replica => return self.lose_up(now, id, Some(SignKind::NotMaster)),
            _ if error => {
                let ident = up.key.ident;
                self.setup_failed(now, id, frame);
                if step == Step::Auth && frame.starts_with(b"-WRONGPASS") {
                    self.deny(at.0, ident);
                }
                return;
            }
            _ => {}
        }
        let Some(up) = self.ups.get_mut(id) else { return };
        if up.steps.is_empty() {
            up.state = State::Ready;
            up.setup = Vec::new();
            up.used = now;
            let only_asks = up.only_asks;
            self.expiring.remove(&(up.deadline, id));
            let pinned = up.key.class == Class::Pinned;
            self.dialed(at);
            if !replica {
                self.shard(at.0, at.1).succeeded();
            }
            self.mark_up(id);
            if only_asks {
                self.close_up(id);
            }
            if pinned {
                self.has_connection(now, id);
            }
        }
    }

    /// The server wants `AUTH` first, which may not have been known: what was queued is looked at again, by the limits
    /// that hold for those who have not authenticated.
    fn take_back(&mut self, id: UpId) {
        let Some(up) = self.ups.get(id) else { return };
        let by = up.pinned_by;
        match by.filter(|by| self.clients.get(*by).is_some_and(|c| c.stream == Stream::Into(id))) {
            None => self.retract([id].into()),
            Some(client) => {
                let limits = &self.service_ref(up.service).policy.limits;
                if let Err(malformed) = scan::all(up.ledger.unsent(), limits, true) {
                    self.protocol_error(client, malformed);
                }
            }
        }
    }

    /// The server said why a connection cannot be set up: that is the reply to whoever waits for it.
    fn setup_failed(&mut self, now: Now, id: UpId, error: &[u8]) {
        let Some(up) = self.ups.get_mut(id) else { return };
        let (service, endpoint) = (up.service, up.endpoint.clone());
        let owed = up.ledger.close();
        let s = self.service(service);
        s.counters.ups_failed += 1;
        let name = s.policy.name.clone();
        let text = alloc::string::String::from_utf8_lossy(error).trim_end().into();
        self.effects.push_back(Effect::Tell(Event::SetupFailed { service: name, endpoint, error: text }));
        let by = self.ups.get(id).and_then(|up| up.pinned_by).and_then(|c| self.clients.get(c));
        if by.is_some_and(|c| c.session.listens()) {
            self.cannot_restore(id);
        }
        self.cannot_learn(now, id);
        self.close_up(id);
        for (slot, _, _) in owed {
            if let Owner::Client(client) = slot.owner {
                self.answer_lost(client, &slot, error);
            }
        }
    }

    /// What may be written now: the set-up first, then requests while a gate is open and the lease holds.
    pub(super) fn up_unwritten<'a>(&'a self, now: Now, up: &'a Up) -> &'a [u8] {
        match up.state {
            State::Waiting | State::Connecting => &[],
            State::Setup => &up.setup[up.setup_sent..],
            State::Ready => {
                let shard = &self.service_ref(up.service).shards[usize::from(up.shard.0)];
                match shard.sends(up.term, now) {
                    _ if up.key.class == Class::Read => {
                        match shard.view.reads_from.as_ref() == Some(&up.endpoint) {
                            true => up.ledger.unsent(),
                            false => &[],
                        }
                    }
                    [true, true] => up.ledger.unsent(),
                    _ if up.relay => &[],
                    [writes, reads] => {
                        let asks = shard.may_ask(up.term, now);
                        let kills = shard.may_kill(up.term, now);
                        up.ledger.unsent_while(|slot| match access(slot) {
                            _ if slot.apply.proves() => asks || reads,
                            _ if slot.kills() => kills,
                            Access::Write => writes,
                            _ => reads,
                        })
                    }
                }
            }
        }
    }

    pub(super) fn up_wrote(&mut self, now: Now, id: UpId, n: usize) {
        let Some(up) = self.ups.get_mut(id) else { return };
        if up.state == State::Setup {
            up.setup_sent += n;
            return;
        }
        up.ledger.wrote(n);
        (up.used, up.carried) = (now, true);
        let (service, pinned) = (up.service, up.pinned_by.is_some());
        let s = self.services[usize::from(service.0)]
            .as_mut()
            .expect("a service is kept while it has connections");
        s.counters.up_bytes_out += n as u64;
        s.counters.up_writes += 1;
        if s.tells_writes(now) {
            self.effects.push_back(Effect::Tell(Event::Writes(service)));
        }
        if pinned {
            // What streams through is let go as it is sent.
            self.after_settle(id);
            self.tell_end(id);
        }
    }

    pub(super) fn mark_up(&mut self, id: UpId) {
        if let Some(up) = self.ups.get_mut(id)
            && !up.dirty
        {
            up.dirty = true;
            self.dirty_ups.push(id);
        }
    }

    /// Closes a connection of our own will; whatever it owed is dropped (the caller has seen to it).
    pub(super) fn close_up(&mut self, id: UpId) {
        if self.detach_up(id).is_some() {
            self.effects.push_back(Effect::Close(Dst::Up(id), How::Abort));
        }
    }

    /// Takes a connection out of all that knows it.
    pub(super) fn detach_up(&mut self, id: UpId) -> Option<Up> {
        self.feed_starved(id);
        self.look_up_again(id);
        self.unlist(id);
        let mut up = self.ups.remove(id)?;
        self.expiring.remove(&(up.deadline, id));
        let at = (up.service, up.shard);
        match up.state {
            State::Waiting => self.shard(at.0, at.1).dials.never(up.used, id),
            State::Connecting | State::Setup => self.dialed(at),
            State::Ready => {}
        }
        if up.key.class == Class::Pinned {
            let shard = self.shard(up.service, up.shard);
            shard.pinned = shard.pinned.saturating_sub(1);
        }
        if let Some(c) = up.pinned_by.and_then(|c| self.clients.get_mut(c))
            && c.place == Place::Pinned(id)
        {
            c.place = Place::Free;
        }
        if let Some(withholding) = up.withholding.take() {
            self.never_proven(withholding);
        }
        Some(up)
    }

    /// Nothing more is to go over a connection.
    pub(super) fn unlist(&mut self, id: UpId) {
        let Some(up) = self.ups.get(id) else { return };
        let (service, shard, key) = (up.service, up.shard, up.key);
        let shard = self.shard(service, shard);
        let map = if key.class == Class::Pinned { &mut shard.pool } else { &mut shard.lanes };
        if let Some(of_key) = map.get_mut(&key) {
            of_key.retain(|u| *u != id);
            if of_key.is_empty() {
                map.remove(&key);
            }
        }
    }

    /// Gives up what does not come up, and closes what nobody uses.
    pub(super) fn sweep_ups(&mut self, now: Now) {
        let mut idle = Vec::new();
        for (id, up) in &self.ups {
            let limit = self.service_ref(up.service).policy.upstream_idle;
            if up.is_unused() && now.since(up.used) >= limit {
                idle.push(id);
            }
        }
        for id in idle {
            self.close_up(id);
        }
    }

    /// It is looked then whether a connection is to be given up, and not when it was to be until now.
    pub(super) fn expires_at(&mut self, id: UpId, at: Now) {
        let Some(up) = self.ups.get_mut(id) else { return };
        self.expiring.remove(&(up.deadline, id));
        up.deadline = at;
        self.expiring.insert((at, id));
    }

    /// The earliest moment at which a connection is given up.
    pub(super) fn give_up_at(&self) -> Option<Now> {
        self.expiring.first().map(|(deadline, _)| *deadline)
    }

    /// Connections are given up that did not come up in time; and those that were read on in vain.
    pub(super) fn give_up(&mut self, now: Now) {
        while let Some(&(deadline, id)) = self.expiring.first().filter(|(t, _)| now >= *t) {
            self.expiring.remove(&(deadline, id));
            if self.ups.get(id).is_some_and(|up| up.fenced.is_some()) {
                self.read_on_in_vain(now, id);
                continue;
            }
            self.effects.push_back(Effect::Close(Dst::Up(id), How::Abort));
            self.up_gone(now, id);
        }
    }
}
