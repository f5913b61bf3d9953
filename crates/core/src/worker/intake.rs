//! From a client's bytes to the ledger of an upstream connection: frame, route, ask the gate, find the connection.
use super::blocked::Blocked;
use super::client::{Client, Place, Stream, Wait};
use super::{Class, ClientId, Dst, Effect, How, LaneKey, UpId, Worker};
use crate::Now;
use crate::command::{Access, Act, Entry};
use crate::hold::{Pass, Redo, Then, pass};
use crate::ledger::{Apply, Ledger, Owner, Slot};
use crate::resp::frame::Request;
use crate::resp::scan::{self, Malformed, RequestStep};
use crate::resp::{Proto, inline, reply};
use crate::route::{self, Route};
use crate::session::{IdentId, Tx, Watch};
use crate::topology::snapshot::ShardId;
use alloc::borrow::Cow;
use alloc::vec::Vec;

/// What became of a command that was to be routed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Routed {
    /// It is on its way, or answered.
    Taken,
    /// It waits, and so does all behind it.
    Blocked(Wait),
}

/// A command that was asked before: its place among its client's, and whether it may have been executed.
#[derive(Clone, Copy)]
pub(super) struct Again {
    pub(super) seq: u64,
    pub(super) maybe: bool,
}

/// A service has one shard until sharding comes.
pub(super) const SHARD: ShardId = ShardId(0);

/// The channel whose message moves the replication offset before a `WAIT`.
const WAIT_CHANNEL: &[u8] = b"pointsman:wait";

impl Worker {
    pub(super) fn client_bytes(&mut self, now: Now, id: ClientId, bytes: &[u8]) {
        self.note_read(now, id, bytes.len());
        // Of a request that arrived in part only the missing bytes are put to it; those behind it stay where they are.
        let Some(c) = self.clients.get(id) else { return };
        let missing = c.scan.missing(c.waiting());
        if c.waiting() > 0 && 0 < missing && missing < bytes.len() {
            self.take_in(now, id, &bytes[..missing]);
            self.take_in(now, id, &bytes[missing..]);
        } else {
            self.take_in(now, id, bytes);
        }
    }

    pub(super) fn note_read(&mut self, now: Now, id: ClientId, n: usize) {
        let Some(c) = self.clients.get_mut(id) else { return };
        (c.active, c.last_read) = (now, n);
        let service = c.service;
        self.service(service).counters.client_bytes_in += n as u64;
    }

    pub(super) fn take_in(&mut self, now: Now, id: ClientId, bytes: &[u8]) {
        let Some(c) = self.clients.get_mut(id) else { return };
        if c.closing || c.deaf {
            return;
        }
        let at_once = c.waiting() == 0 && c.wait == Wait::No && c.redo.is_empty();
        if at_once {
            let used = self.take(now, id, bytes);
            if let Some(c) = self.clients.get_mut(id)
                && used < bytes.len()
            {
                c.keep(&bytes[used..]);
            }
            self.finish(id);
        } else if let Some(c) = self.clients.get_mut(id) {
            c.keep(bytes);
            if c.wait == Wait::No {
                self.pump(now, id);
            }
        }
    }

    /// Routes what a client has waiting, as far as it goes.
    pub(super) fn pump(&mut self, now: Now, id: ClientId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        if c.closing {
            return;
        }
        c.wait = Wait::No;
        self.redo(now, id);
        let Some(c) = self.clients.get_mut(id) else { return };
        if c.wait == Wait::No && c.redo.is_empty() && c.waiting() > 0 {
            let buf = core::mem::take(&mut c.input);
            let at = core::mem::take(&mut c.input_at);
            let used = self.take(now, id, &buf[at..]);
            if let Some(c) = self.clients.get_mut(id) {
                // Nothing was kept meanwhile: only the shell's calls do that.
                if at + used < buf.len() {
                    (c.input, c.input_at) = (buf, at + used);
                }
            }
        }
        self.finish(id);
    }

    /// After routing: closes a client that has said and heard all, resumes one that was not read.
    pub(super) fn finish(&mut self, id: ClientId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        if c.wait != Wait::Gate && c.ticket.is_some() {
            self.leave_line(id);
        }
        let Some(c) = self.clients.get_mut(id) else { return };
        if let Place::Pinned(_) = c.place {
            if c.eof {
                self.abandon(id);
            }
            self.give_back(id);
        }
        let Some(c) = self.clients.get_mut(id) else { return };
        let s =
            self.services[usize::from(c.service.0)].as_ref().expect("a service is kept while it has clients");
        // What is left in the input of a client that sends no more is not a whole request, unless it waits.
        let heard = c.owed == 0 && c.redo.is_empty() && c.wait == Wait::No;
        let ends = matches!(c.place, Place::Pinned(up) if self.ups.get(up).is_some_and(|u| u.ends.is_some()));
        if heard && !ends && (c.eof || c.deaf || s.draining && c.waiting() == 0 && c.tx_free()) && !c.closing
        {
            c.closing = true;
            if let Some(text) = c.last_words.take() {
                self.deliver(id, &text);
            }
            if self.clients.get(id).is_some_and(|c| c.unwritten().is_empty()) {
                self.close_client(id, How::Gently);
            }
            return;
        }
        if !c.paused {
            return;
        }
        if c.wants_input(&s.policy.limits) {
            c.paused = false;
            self.effects.push_back(Effect::Resume(Dst::Client(id)));
        } else if c.hung_up {
            self.abandon(id);
        }
    }

    /// What comes before the client's input: commands that are sent again, and replies that are known already.
    fn redo(&mut self, now: Now, id: ClientId) {
        while let Some(c) = self.clients.get_mut(id) {
            if c.restore && c.redo.front().is_none_or(|r| r.then.answer().is_none()) {
                match self.restore(now, id) {
                    Routed::Taken => continue,
                    Routed::Blocked(wait) => return self.wait(id, wait),
                }
            }
            let Some(c) = self.clients.get_mut(id) else { return };
            let Some(Redo { seq, then }) = c.redo.pop_front() else { return };
            // A connection answers in the order in which it is asked: what is later and in flight is answered first.
            let waits = c.owed > 0 && (then.answer().is_some() || c.newest > seq);
            let wait = match &then {
                _ if waits => Wait::Owed,
                Then::Answer(bytes) => {
                    self.deliver(id, bytes);
                    continue;
                }
                Then::InTx { answer, tx } => {
                    self.deliver(id, answer);
                    if let Some(tx) = tx {
                        self.tx_was_lost(id, tx);
                    }
                    continue;
                }
                // The server has not said yet whether it may.
                Then::Kill { .. } if c.owed > 0 => Wait::Owed,
                // It had its answer.
                Then::Kill { allowed: false, .. } => continue,
                Then::Kill { kill, .. } => match self.kill(now, id, kill) {
                    Wait::No => continue,
                    wait => wait,
                },
                Then::Again { bytes, maybe, .. } => {
                    if let Err(malformed) = self.still_allowed(id, bytes) {
                        return self.protocol_error(id, malformed);
                    }
                    let again = Again { seq, maybe: *maybe };
                    let bytes = self.as_left(now, id, seq, bytes);
                    match self.command(now, id, Request::new(&bytes), Some(again)) {
                        Routed::Taken => {
                            let Some(service) = self.clients.get(id).map(|c| c.service) else { return };
                            self.service(service).counters.resent += 1;
                            continue;
                        }
                        Routed::Blocked(wait) => wait,
                    }
                }
            };
            let Some(c) = self.clients.get_mut(id) else { return };
            c.redo.push_front(Redo { seq, then });
            c.wait = wait;
            return;
        }
    }

    /// A session is now where a transaction left it whose connection was lost. What it watches on another one it would
    /// not know of.
    fn tx_was_lost(&mut self, id: ClientId, tx: &Tx) {
        let Some(c) = self.clients.get_mut(id) else { return };
        (c.session.tx, c.session.watch) = (tx.clone(), Watch::None);
        if let Place::Pinned(up) = c.place {
            self.close_up(up);
            self.unpinned_by_loss(id);
        }
    }

    /// Whether a request that was framed before is within what its client may send now.
    fn still_allowed(&self, id: ClientId, bytes: &[u8]) -> Result<(), Malformed> {
        let Some(c) = self.clients.get(id) else { return Ok(()) };
        let s = self.service_ref(c.service);
        scan::all(bytes, &s.policy.limits, s.must_authenticate(c, &self.ups))
    }

    /// Routes the requests at the front of `buf`; returns how many bytes are done with.
    fn take(&mut self, now: Now, id: ClientId, buf: &[u8]) -> usize {
        let mut at = 0;
        while at < buf.len() {
            let Some(c) = self.clients.get_mut(id) else { return buf.len() };
            if c.deaf {
                return buf.len();
            }
            if c.closing || c.wait != Wait::No || !c.redo.is_empty() {
                break;
            }
            if c.streams() {
                let used = self.stream(id, &buf[at..]);
                at += used;
                if used == 0 {
                    break;
                }
                continue;
            }
            let s = self.services[usize::from(c.service.0)]
                .as_ref()
                .expect("a service is kept while it has clients");
            let must_authenticate = s.must_authenticate(c, &self.ups);
            let limits = &s.policy.limits;
            let step = match c.framed {
                Some(len) if !must_authenticate => Ok(RequestStep::Array { len }),
                // It may have been framed before it was known that the client must authenticate.
                _ => c.scan.next(&buf[at..], limits, must_authenticate),
            };
            let relay = c.session.relay;
            match step {
                Err(_) if relay => {
                    self.relay_malformed(id, &buf[at..]);
                    return buf.len();
                }
                Err(malformed) => {
                    self.protocol_error(id, malformed);
                    return buf.len();
                }
                Ok(RequestStep::More) => match self.stream_large(now, id, &buf[at..]) {
                    Some(used) => at += used,
                    None => break,
                },
                Ok(RequestStep::Empty { len }) => at += len,
                Ok(RequestStep::Inline { len }) => match inline::to_array(&buf[at..at + len]) {
                    Err(_) if relay => {
                        self.relay_malformed(id, &buf[at..]);
                        return buf.len();
                    }
                    Err(malformed) => {
                        self.protocol_error(id, malformed);
                        return buf.len();
                    }
                    Ok(None) => at += len,
                    Ok(Some(array)) => match self.command(now, id, Request::new(&array), None) {
                        Routed::Taken => at += len,
                        Routed::Blocked(wait) => {
                            self.wait(id, wait);
                            break;
                        }
                    },
                },
                Ok(RequestStep::Array { len }) => {
                    match self.command(now, id, Request::new(&buf[at..at + len]), None) {
                        Routed::Taken => {
                            at += len;
                            if let Some(c) = self.clients.get_mut(id) {
                                c.framed = None;
                            }
                        }
                        Routed::Blocked(wait) => {
                            if let Some(c) = self.clients.get_mut(id) {
                                c.framed = Some(len);
                            }
                            self.wait(id, wait);
                            break;
                        }
                    }
                }
            }
        }
        at
    }

    pub(super) fn wait(&mut self, id: ClientId, wait: Wait) {
        if let Some(c) = self.clients.get_mut(id) {
            c.wait = wait;
        }
    }

    /// A malformed request: Redis' error after all replies that are owed, and the end.
    pub(super) fn protocol_error(&mut self, id: ClientId, m: Malformed) {
        let Some(c) = self.clients.get_mut(id) else { return };
        if let Stream::Into(up) = core::mem::take(&mut c.stream) {
            // The server has half a request: its connection is of no more use.
            c.owed = 0;
            c.place = Place::Free;
            self.close_up(up);
        }
        let Some(c) = self.clients.get_mut(id) else { return };
        c.redo.clear();
        c.last_words = Some(reply::protocol_error(m).into());
        c.deaf = true;
        c.input = Vec::new();
        c.input_at = 0;
        let service = c.service;
        self.service(service).counters.malformed += 1;
        self.ready.push_back(id);
    }

    /// Routes one command; `again` if it was asked before.
    pub(super) fn command(
        &mut self,
        now: Now,
        id: ClientId,
        req: Request<'_>,
        again: Option<Again>,
    ) -> Routed {
        let entry = route::entry(req);
        let Some(c) = self.clients.get(id) else { return Routed::Taken };
        let s = self.service_ref(c.service);
        if let Some(wait) = c.is_full(&s.policy.limits) {
            return Routed::Blocked(wait);
        }
        if let (Some(e), Place::Lane(up)) = (entry, c.place)
            && c.is_plain(e, &s.policy)
            && again.is_none()
            && let Some(routed) = self.plain(now, id, e, up, |ledger, slot| ledger.push(req.bytes(), slot))
        {
            return routed;
        }
        if self.clients.get(id).is_some_and(|c| c.session.relay) {
            return self.relay(id, entry, req);
        }
        let (sent, entry) = match self.as_sent(now, id, entry, req, again) {
            Ok(sent) => sent,
            Err(routed) => return routed,
        };
        let req = Request::new(&sent);
        let Some(c) = self.clients.get(id) else { return Routed::Taken };
        let s = self.service_ref(c.service);
        let shard = &s.shards[usize::from(SHARD.0)];
        let stale_write = c.session.last_write.is_some_and(|t| t != shard.view.term);
        let route = route::route(entry, req, &c.session, &s.policy, stale_write);
        match route {
            Route::Here(_) | Route::Refuse(_) | Route::SignIn { .. } if c.owed > 0 => {
                return Routed::Blocked(Wait::Owed);
            }
            Route::Here(here) => return self.answer_here(id, here),
            Route::Refuse(text) => return self.refuse(id, &text),
            Route::SignIn { user, then } => return self.sign_in(now, id, user, then, again),
            _ => {}
        }
        if let Some(routed) = self.read_elsewhere(now, id, entry, req, &route, again) {
            return routed;
        }
        if let Some(routed) = self.gate(now, id, entry, again) {
            return routed;
        }
        if let Route::About(about) = route {
            return self.about(now, id, entry, req, about, again);
        }
        let up = match self.connection_for(now, id, entry, &route) {
            Ok(up) => up,
            Err(routed) => return routed,
        };
        if let Some(e) = entry.filter(|e| e.act == Act::Script) {
            self.note_script(now, id, e, req);
        }
        self.enqueue(now, id, up, entry, route, req, again);
        Routed::Taken
    }

    /// The short way of most commands: the session's last commands went over this lane, and so does this one. `None`:
    /// something is not as usual, and the long way must say what. (A session whose user, protocol or database changed
    /// is not on a lane of [`Class::Plain`]: what changed it went over another connection.)
    #[inline]
    pub(super) fn plain(
        &mut self,
        now: Now,
        id: ClientId,
        entry: &'static Entry,
        up: UpId,
        push: impl FnOnce(&mut Ledger, Slot),
    ) -> Option<Routed> {
        let c = self.clients.get_mut(id)?;
        let u = self.ups.get_mut(up)?;
        let s = self.services[usize::from(c.service.0)].as_mut()?;
        let shard = &s.shards[usize::from(SHARD.0)];
        let usual = c.goes_over(u.key.class, entry.access)
            && !shard.line.is_leaving()
            && u.term == shard.view.term
            && u.ledger.len() < s.policy.limits.ring_max
            && pass(&shard.view, shard.held_since, entry.access, now) == Pass::Go;
        if !usual {
            return None;
        }
        c.asked += 1;
        c.newest = c.asked;
        let slot = Slot { seq: c.asked, ..Slot::new(Owner::Client(id), Some(entry), Apply::None) };
        push(&mut u.ledger, slot);
        u.note_write(Some(entry));
        c.owed += 1;
        s.count(entry.access);
        if !u.dirty {
            u.dirty = true;
            self.dirty_ups.push(up);
        }
        Some(Routed::Taken)
    }

    /// The connection over which a command goes: the session's present one, if it has to be, or the one of its kind.
    pub(super) fn connection_for(
        &mut self,
        now: Now,
        id: ClientId,
        entry: Option<&Entry>,
        route: &Route<'_>,
    ) -> Result<UpId, Routed> {
        let c = &self.clients[id];
        let at = (c.service, SHARD);
        if let Place::Pinned(up) = c.place {
            let unclear = match route {
                Route::Relay => true,
                // Behind something, it may not be answered (`LaneKey::signs_in`).
                Route::Probe { authenticates: true, .. } if c.session.tx == Tx::None => true,
                // It will be lost.
                _ if self.ups.get(up).is_some_and(|u| u.fenced.is_some()) => true,
                // Its time begins when it is sent, and it does not block in a transaction.
                Route::Pin { .. } if entry.is_none_or(may_block) && !self.queues_in_tx(c, up) => true,
                _ => c.keeps_wait_out(entry) || entry.is_some_and(|e| self.unclear(c, up, e)),
            };
            return if c.owed > 0 && unclear { Err(Routed::Blocked(Wait::Owed)) } else { self.room(id, up) };
        }
        if c.owed > 0 && matches!(route, Route::Probe { bytes: Cow::Owned(_), .. }) {
            // It was rewritten by a state that what is still to be answered may change.
            return Err(Routed::Blocked(Wait::Owed));
        }
        let (class, who) = match route {
            Route::Probe { authenticates: true, .. } => (Class::Probe, IdentId::ANYBODY),
            Route::Probe { .. } => (Class::Probe, c.session.ident_id()),
            Route::Shared(_) => (c.shared_class(entry), c.session.ident_id()),
            _ => (Class::Pinned, c.session.ident_id()),
        };
        let (proto, db) =
            if class == Class::Probe { (Proto::Resp2, 0) } else { (c.session.proto, c.session.db) };
        let key = LaneKey { class, ident: who, proto, db };
        if let Place::Lane(up) = c.place
            && let Some(u) = self.ups.get(up)
        {
            // What a session asks behind a durable write goes the same way.
            let behind = c.owed > 0 && u.key == LaneKey { class: Class::Durable, ..key };
            if u.fenced.is_none() && (u.key == key || behind && class == Class::Plain) {
                return self.room(id, up);
            }
            if c.owed > 0 {
                return Err(Routed::Blocked(Wait::Owed));
            }
        }
        let (turn, ident) = (c.session.id, c.session.ident.clone().filter(|_| who != IdentId::ANYBODY));
        let found = if class == Class::Pinned {
            if self.service_ref(at.0).shards[usize::from(SHARD.0)]
                .pinned_is_full(self.service_ref(at.0).policy.pinned_max)
            {
                self.deliver(id, reply::PINNED_MAX);
                return Err(Routed::Taken);
            }
            self.pin(now, at, key, ident.as_ref(), id)
        } else {
            self.lane(now, at, key, ident.as_ref(), turn)
        };
        let Some(up) = found else {
            if class != Class::Pinned && self.lanes_are_full(at) {
                self.deliver(id, reply::SHARED_MAX);
                return Err(Routed::Taken);
            }
            // A connection was tried in vain a moment ago.
            self.line_up(id);
            return Err(Routed::Blocked(Wait::Gate));
        };
        if class == Class::Pinned {
            self.clients[id].place = Place::Pinned(up);
            self.name_pinned(up, id);
            return Ok(up);
        }
        self.room(id, up)
    }

    /// Whether what is queued next stands in a transaction that the server is known to have begun.
    fn queues_in_tx(&self, c: &Client, up: UpId) -> bool {
        c.session.tx != Tx::None && self.ups.get(up).is_some_and(|u| u.ledger.ends_in_tx(true))
    }

    /// Whether what becomes of a command depends on replies that are still to come.
    fn unclear(&self, c: &Client, up: UpId, e: &Entry) -> bool {
        match e.act {
            // A transaction that was just begun has not been told yet that what it watched is lost.
            Act::Exec => c.session.watch == Watch::Lost,
            // How many replies it has: as many as there are subscriptions then, or one if it is queued. And WAIT brings
            // its mark neither into a transaction nor to a subscriber.
            Act::Unsubscribe(_) | Act::Wait => true,
            Act::Subscribe(_) => {
                let of_tx = |e: &Entry| matches!(e.act, Act::Multi | Act::Exec | Act::Discard);
                self.ups.get(up).is_some_and(|u| u.ledger.owes(of_tx))
            }
            _ => false,
        }
    }

    /// Whether a connection takes another request: its ring has room, and nothing stands before an `AUTH`.
    pub(super) fn room(&mut self, id: ClientId, up: UpId) -> Result<UpId, Routed> {
        let Some(u) = self.ups.get(up) else { return Err(Routed::Blocked(Wait::Owed)) };
        let most = self.services[usize::from(u.service.0)].as_ref().map_or(0, |s| s.policy.limits.ring_max);
        if u.ledger.len() >= most || u.key.signs_in() && !u.ledger.is_empty() {
            self.starve(id, up);
            return Err(Routed::Blocked(Wait::Room));
        }
        Ok(up)
    }

    #[allow(clippy::too_many_arguments, reason = "what is known of one command")]
    pub(super) fn enqueue(
        &mut self,
        now: Now,
        id: ClientId,
        up: UpId,
        entry: Option<&'static Entry>,
        route: Route<'_>,
        req: Request<'_>,
        again: Option<Again>,
    ) {
        let (Some(c), Some(u)) = (self.clients.get_mut(id), self.ups.get_mut(up)) else { return };
        let pinned = matches!(c.place, Place::Pinned(_));
        if !pinned {
            c.place = Place::Lane(up);
        }
        c.owed += 1;
        c.asked += u64::from(again.is_none());
        let Again { seq, maybe } = again.unwrap_or(Again { seq: c.asked, maybe: false });
        c.newest = seq;
        let slot = |apply| Slot { seq, maybe, ..Slot::new(Owner::Client(id), entry, apply) };
        match route {
            Route::Shared(apply) => u.ledger.push(req.bytes(), slot(apply)),
            Route::Probe { apply, bytes, .. } => {
                // The session's own connection needs no rewriting: its state is the session's.
                let bytes = if pinned { req.bytes() } else { &bytes };
                u.ledger.push(bytes, slot(apply));
            }
            Route::Pin { apply: Apply::ExecAs(instead), .. } => {
                u.ledger.push(b"*1\r\n$7\r\nDISCARD\r\n", slot(Apply::ExecAs(instead)));
            }
            Route::Pin { apply, replies } => {
                if let Some(e) = entry.filter(|e| may_block(e))
                    && c.session.tx == Tx::None
                {
                    c.blocked = Blocked::begin(now, seq, e, req, &mut u.ledger);
                }
                // The server keeps something for it that the next session is not to meet.
                u.private |= matches!(apply, Apply::Tracking(_));
                u.ledger.push(req.bytes(), Slot { replies, ..slot(apply) });
            }
            Route::Wait => {
                // In a transaction it does not wait, and a subscriber may not.
                if !matches!(c.session.tx, Tx::Open(_)) && c.session.subs.is_none() {
                    let mut mark = Vec::new();
                    reply::request(&mut mark, &[b"PUBLISH", WAIT_CHANNEL, b""]);
                    u.ledger.push(&mark, Slot::new(Owner::Nobody, None, Apply::WaitMark));
                }
                u.ledger.push(req.bytes(), slot(Apply::None));
            }
            Route::Relay => {
                c.owed -= 1;
                c.session.relay = true;
                u.relay = true;
                u.ledger.push(req.bytes(), Slot { streams: true, ..slot(Apply::None) });
            }
            Route::About(_) | Route::Here(_) | Route::Refuse(_) | Route::SignIn { .. } => c.owed -= 1,
        }
        u.note_write(entry);
        let service = c.service;
        self.service(service).count(entry.map_or(Access::Write, |e| e.access));
        self.mark_up(up);
    }

    /// A client waits for room in a connection's ring.
    pub(super) fn starve(&mut self, id: ClientId, up: UpId) {
        let (Some(c), Some(u)) = (self.clients.get_mut(id), self.ups.get_mut(up)) else { return };
        if c.starved_at != Some(up) {
            c.starved_at = Some(up);
            u.starved.push(id);
        }
    }
}

/// Whether a command may wait for what others do.
fn may_block(e: &Entry) -> bool {
    matches!(e.act, Act::Block | Act::BlockIfAsked)
}
