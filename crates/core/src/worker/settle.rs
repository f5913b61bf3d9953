//! From a server's bytes to the client that is owed them: whose reply it is, what it changes, what it proves.
use super::client::{Place, Wait};
use super::lost::{again, as_asked};
use super::withheld::{Withholding, needs_proof};
use super::{Class, ClientId, How, UpId, Worker};
use crate::Now;
use crate::command::{Access, Act, Entry};
use crate::hold::{Refusal, Then, not_a_master, only_reads};
use crate::identity::{client_info, getredir, with_id};
use crate::learned::was_rejected;
use crate::ledger::{Apply, Owner, Slot};
use crate::resp::frame::children;
use crate::resp::scan::ReplyStep;
use crate::resp::{Proto, reply};
use crate::session::{Session, Tx, Watch};
use crate::topology::snapshot::{SignKind, Term};
use crate::tracking::Tracking;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// A reply that is longer than this is passed on while it arrives.
const REPLY_KEPT: usize = 64 << 10;

/// A reply that cannot be passed on while it arrives may always be so long.
const KEPT_MIN: usize = 1 << 20;

impl Worker {
    pub(super) fn up_bytes(&mut self, now: Now, id: UpId, bytes: &[u8]) {
        let Some(up) = self.ups.get_mut(id) else { return };
        let (service, shard) = (up.service, up.shard);
        self.service(service).counters.up_bytes_in += bytes.len() as u64;
        self.look_at_lease(now, (service, shard));
        let mut rest = bytes;
        while let Some(up) = self.ups.get_mut(id) {
            if up.input.is_empty() {
                let used = self.frames(now, id, rest);
                if let Some(up) = self.ups.get_mut(id) {
                    up.input.extend_from_slice(&rest[used..]);
                }
                return self.bound_input(now, id);
            }
            // Of a reply that arrived in part only the missing bytes are put to it; those behind it stay where they are.
            let missing = up.scan.missing(up.input.len());
            let n = if missing > 0 { missing.min(rest.len()) } else { rest.len() };
            up.input.extend_from_slice(&rest[..n]);
            rest = &rest[n..];
            let mut input = core::mem::take(&mut up.input);
            let used = self.frames(now, id, &input);
            let Some(up) = self.ups.get_mut(id) else { return };
            input.drain(..used);
            if input.capacity() <= REPLY_KEPT || !input.is_empty() {
                up.input = input;
            }
            if rest.is_empty() {
                return self.bound_input(now, id);
            }
        }
    }

    /// A reply that must be kept until it is complete may not be longer than what its client may leave unread.
    fn bound_input(&mut self, now: Now, id: UpId) {
        let Some(up) = self.ups.get_mut(id) else { return };
        let (service, kept) = (up.service, up.input.len());
        let client = match up.ledger.front().map(|s| s.owner) {
            Some(Owner::Client(client)) => Some(client),
            _ => up.pinned_by,
        };
        let limits = &self.service_ref(service).policy.limits;
        let of_client = client.and_then(|id| Some((id, self.clients.get(id)?.output_limit(limits))));
        let most = of_client.map_or(limits.client_output_hard, |(_, (most, _))| most);
        if kept <= most.max(KEPT_MIN) {
            return;
        }
        if let Some((client, (_, limit))) = of_client {
            self.overrun(client, limit, kept);
        }
        self.lose_up(now, id, None);
    }

    /// Settles the complete replies at the front of `buf`; returns how many bytes are done with.
    fn frames(&mut self, now: Now, id: UpId, buf: &[u8]) -> usize {
        let mut at = 0;
        while at < buf.len() {
            let Some(up) = self.ups.get_mut(id) else { return buf.len() };
            if up.relays() {
                if let Some(client) = up.pinned_by {
                    self.deliver(client, &buf[at..]);
                }
                return buf.len();
            }
            let s = self.services[usize::from(up.service.0)].as_ref().expect("a service is kept");
            match up.scan.next(&buf[at..], &s.policy.limits) {
                Err(_) => {
                    self.lose_up(now, id, Some(SignKind::Garbage));
                    return buf.len();
                }
                Ok(ReplyStep::More) => {
                    if buf.len() - at >= REPLY_KEPT {
                        at += self.pass_on(id, &buf[at..]);
                    }
                    break;
                }
                Ok(ReplyStep::Frame { len, kind }) => {
                    let frame = &buf[at..at + len];
                    at += len;
                    if up.is_ready() {
                        let ends = kind == b'-' && up.ends_with(frame);
                        self.settle(now, id, frame, kind);
                        if ends {
                            self.lose_up(now, id, Some(SignKind::Unblocked));
                        }
                    } else {
                        self.setup_reply(now, id, frame);
                    }
                }
            }
        }
        at
    }

    /// Gives the client the part of a long reply that has arrived, unless it must be kept until it is complete. Returns
    /// how many bytes are done with.
    fn pass_on(&mut self, id: UpId, part: &[u8]) -> usize {
        let Some(up) = self.ups.get_mut(id) else { return part.len() };
        if !up.ledger.expects() || !up.is_ready() || up.fenced.is_some() {
            return 0;
        }
        let part = &part[..up.scan.passed(part.len())];
        let kind = up.scan.kind();
        let by = up.pinned_by.and_then(|by| self.clients.get(by));
        let Some(slot) = up.ledger.front() else { return 0 };
        let unknown = slot.apply == Apply::Unknown;
        let plain = match slot.apply {
            Apply::None | Apply::Unknown => true,
            // What its commands change in the session is looked for when it is whole.
            Apply::Exec => by.is_some_and(|c| matches!(&c.session.tx, Tx::Open(tx) if tx.changes.is_empty())),
            _ => false,
        };
        let plain = plain && slot.replies == 1 && !matches!(kind, 0 | b'-' | b'>');
        // What needs a proof is shown as a whole, or not at all.
        let plain = plain && !(up.withholding.is_some() && needs_proof(slot, part));
        // So is what may be a message or a confirmation.
        let subscribes = |e: &Entry| matches!(e.act, Act::Subscribe(_) | Act::Unsubscribe(_));
        let aside = by.is_some_and(|c| c.session.proto == Proto::Resp2 && c.session.subs.is_some());
        if !plain || kind == b'*' && (aside || slot.entry.is_some_and(subscribes)) {
            return 0;
        }
        if let Owner::Client(client) = slot.owner {
            if self.clients.get(client).is_some_and(|c| c.is_behind(slot.seq)) {
                return 0;
            }
            slot.begun = true;
            up.scan.forwarded(part.len());
            if unknown && let Some(c) = self.clients.get_mut(client) {
                c.session.bound = true;
            }
            self.deliver(client, part);
        } else {
            up.scan.forwarded(part.len());
        }
        part.len()
    }

    fn settle(&mut self, now: Now, id: UpId, frame: &[u8], kind: u8) {
        let up = &mut self.ups[id];
        if up.key.class == Class::Pinned && self.aside(id, frame, kind) {
            return;
        }
        let up = &mut self.ups[id];
        if kind == b'>' {
            // A push that nobody on a shared connection can have asked for.
            return;
        }
        if !up.ledger.expects() {
            let half = kind == b'-' && up.ledger.front().is_some_and(|s| s.streams);
            return match up.pinned_by.filter(|_| half) {
                // The server refuses the rest of a request, and will close: that is between it and the client.
                Some(client) => {
                    self.deliver(client, frame);
                    self.let_go(client);
                }
                None if self.is_bound(id) => self.deliver_to_bound(id, frame),
                None => self.lose_up(now, id, Some(SignKind::Garbage)),
            };
        }
        if up.fenced.is_some() {
            return self.told_by_deposed(now, id, frame, kind);
        }
        let Some(slot) = up.ledger.front() else { return };
        if slot.replies > 1 && kind != b'-' {
            slot.replies -= 1;
            let owner = slot.owner;
            if let Owner::Client(client) = owner {
                self.deliver(client, frame);
            }
            return;
        }
        let Owner::Client(client) = slot.owner else {
            if slot.apply == Apply::Learn {
                self.learn(now, id, frame);
            }
            let Some(slot) = self.ups[id].ledger.settle() else { return };
            match slot.apply {
                Apply::WaitMark => self.ups[id].wait_denied = kind == b'-',
                Apply::Retrack if kind != b'-' => self.tracks_again_on(now, id),
                Apply::Resubscribe | Apply::Retrack => self.cannot_restore(id),
                Apply::LastId(which) => self.last_id(id, slot.seq, which, frame),
                Apply::Offset => self.offset_told(id, frame),
                Apply::Replicas => self.replicas_told(now, id, frame),
                _ => {}
            }
            self.keep_promises();
            return self.after_settle(id);
        };
        if kind == b'-'
            && (self.refused_by_node(now, id, client, frame) || self.script_again(now, id, client, frame))
        {
            return;
        }
        let up = &mut self.ups[id];
        let term = up.term;
        let seq = up.ledger.front().map_or(0, |s| s.seq);
        if self.clients.get(client).is_some_and(|c| c.is_behind(seq)) {
            self.settle_behind(id, client, term, frame, kind);
        } else {
            let denied = core::mem::take(&mut up.wait_denied);
            let withholds = up.withholding.is_some();
            let Some(slot) = up.ledger.settle() else { return };
            if withholds && needs_proof(&slot, frame) {
                self.withhold(now, id, client, term, slot, frame);
                return self.after_settle(id);
            }
            let shown = self.settle_in_order(now, client, term, slot, frame, kind, denied);
            self.deliver(client, &shown);
        }
        self.owed_less(client, id);
        self.after_settle(id);
    }

    /// The reply is the next that the client is owed: what it changes, and as what the client is to see it.
    #[allow(clippy::too_many_arguments, reason = "what is known of one reply")]
    pub(super) fn settle_in_order<'a>(
        &mut self,
        now: Now,
        id: ClientId,
        term: Term,
        slot: Slot,
        frame: &'a [u8],
        kind: u8,
        denied: bool,
    ) -> Cow<'a, [u8]> {
        let Some(c) = self.clients.get_mut(id) else { return Cow::Borrowed(frame) };
        let error = kind == b'-';
        if !error && slot.entry.is_none_or(|e| e.access == Access::Write) {
            c.session.last_write = Some(term);
        }
        let waited = denied && !error && slot.entry.is_some_and(|e| e.act == Act::Wait);
        if waited {
            return Cow::Borrowed(reply::WAIT_DENIED);
        }
        if slot.begun {
            // Of what was passed on while it arrived only the end is here; it changes nothing, but for the end of a transaction.
            if slot.apply == Apply::Exec {
                (c.session.tx, c.session.watch) = (Tx::None, Watch::None);
            }
            return Cow::Borrowed(frame);
        }
        if slot.apply == Apply::None && c.session.tx == Tx::None {
            return Cow::Borrowed(frame);
        }
        if matches!(slot.apply, Apply::MayKill(_)) && !error {
            self.may_kill(id);
            return Cow::Borrowed(b"");
        }
        let shown = apply(now, &mut c.session, slot.apply, frame, error);
        if let Some(tracking) = &mut c.session.tracking {
            let limits =
                &self.services[usize::from(c.service.0)].as_ref().expect("a service is kept").policy.limits;
            tracking.bound(limits.subs_max);
        }
        shown
    }

    /// A reply to a client one of whose earlier commands is to be sent again: it waits its turn, or is asked again.
    fn settle_behind(&mut self, id: UpId, client: ClientId, term: Term, frame: &[u8], kind: u8) {
        let up = &mut self.ups[id];
        let bytes: Box<[u8]> = up.ledger.front_bytes().into();
        let Some(slot) = up.ledger.settle() else { return };
        // What would prove it does not wait with it for its turn.
        let unproven = up.withholding.as_ref().map(Withholding::unproven);
        let Some(c) = self.clients.get_mut(client) else { return };
        // What changes the session does so in its turn.
        if (only_reads(slot.entry) || slot.apply != Apply::None) && !bytes.is_empty() {
            c.redo_at(slot.seq, again(&slot, bytes, true));
            return;
        }
        let executed = kind != b'-' || slot.entry.is_none_or(|e| !e.proves);
        let unproven = unproven.filter(|_| needs_proof(&slot, frame));
        let (mut uncertain, service) = (0, c.service);
        if executed {
            uncertain = c.overtaken(slot.seq);
            if slot.entry.is_none_or(|e| e.access == Access::Write) {
                c.session.last_write = Some(term);
            }
        }
        c.redo_at(slot.seq, Then::Answer(unproven.unwrap_or(frame).into()));
        let counters = &mut self.service(service).counters;
        counters.uncertain += uncertain + u64::from(unproven == Some(reply::UNPROVEN));
        counters.not_durable += u64::from(unproven == Some(reply::NOT_DURABLE_LOST));
    }

    /// A node that is no usable master refused a command: it is held, and sent again (invariant 6).
    fn refused_by_node(&mut self, now: Now, id: UpId, client: ClientId, frame: &[u8]) -> bool {
        let up = &mut self.ups[id];
        let Some(slot) = up.ledger.front() else { return false };
        let Some(refusal) = not_a_master(slot.entry, frame) else { return false };
        let (seq, entry) = (slot.seq, slot.entry);
        // On a pinned connection what follows has changed the connection already: it cannot be done in its turn again.
        let kept = !slot.begun && !slot.streams;
        let kept = kept && !(up.key.class == Class::Pinned && up.ledger.followed_by_state());
        let (service, shard, term, class) = (up.service, up.shard, up.term, up.key.class);
        if refusal == Refusal::Readonly && self.service_ref(service).policy.pass_readonly {
            return false;
        }
        let kind = match refusal {
            Refusal::Readonly => SignKind::Readonly,
            Refusal::Loading => SignKind::Loading,
            Refusal::Masterdown => SignKind::Masterdown,
            Refusal::Unblocked => SignKind::Unblocked,
        };
        let in_tx = self.clients.get(client).is_some_and(|c| c.session.tx != Tx::None);
        let bytes = self.ups[id].ledger.front_bytes();
        if kept
            && !in_tx
            && let Some(bytes) = self.to_ask_again(client, seq, entry, bytes)
        {
            let up = &mut self.ups[id];
            let Some(slot) = up.ledger.settle() else { return true };
            if let Some(c) = self.clients.get_mut(client) {
                let bytes = as_asked(&slot, bytes);
                let then = Then::Again { bytes, maybe: slot.maybe, refusal: Some(frame.into()) };
                c.redo_at(slot.seq, then);
            }
            self.owed_less(client, id);
            self.after_settle(id);
            // It stands in line before those of whom the closing gate takes something back.
            self.suspect(now, class, (service, shard), term, kind);
            return true;
        }
        self.suspect(now, class, (service, shard), term, kind);
        false
    }

    /// One reply less is owed to a client: it may go on, or give its connection back.
    pub(super) fn owed_less(&mut self, id: ClientId, up: UpId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        c.owed = c.owed.saturating_sub(1);
        let half =
            self.services[usize::from(c.service.0)].as_ref().map_or(0, |s| s.policy.limits.in_flight_max / 2);
        if c.owed == 0 {
            if c.place == Place::Pinned(up) && !c.session.needs_pin() {
                c.place = Place::Free;
                let session = c.session.clone();
                self.unpin(up, &session);
            }
            let Some(c) = self.clients.get_mut(id) else { return };
            let s = self.services[usize::from(c.service.0)].as_ref().expect("a service is kept");
            if matches!(c.wait, Wait::Owed | Wait::InFlight)
                || !c.redo.is_empty()
                || c.eof
                || c.deaf
                || s.draining
            {
                self.ready.push_back(id);
            }
        } else if c.wait == Wait::InFlight && c.owed <= half {
            self.ready.push_back(id);
        }
    }

    /// A connection's ring has room again.
    pub(super) fn after_settle(&mut self, id: UpId) {
        let Some(up) = self.ups.get(id) else { return };
        if up.left && up.ledger.is_empty() && up.withholding.is_none() {
            return self.close_up(id);
        }
        if up.starved.is_empty() {
            return;
        }
        let most = self.service_ref(up.service).policy.limits.ring_max;
        if up.ledger.len() <= most / 2 {
            self.feed_starved(id);
        }
    }

    /// Those who waited for room in a connection's ring are looked at again, in the order in which they came.
    pub(super) fn feed_starved(&mut self, id: UpId) {
        let starved = self.ups.get_mut(id).map(|up| core::mem::take(&mut up.starved)).unwrap_or_default();
        for client in starved {
            if let Some(c) = self.clients.get_mut(client).filter(|c| c.starved_at == Some(id)) {
                c.starved_at = None;
                self.ready.push_back(client);
            }
        }
    }

    /// The client can make no sense of what would follow what it has been given.
    pub(super) fn cut_client(&mut self, id: ClientId) {
        self.say_no_more(id);
        let Some(c) = self.clients.get(id) else { return };
        let (service, given) = (c.service, c.unwritten().is_empty());
        self.service(service).counters.clients_cut += 1;
        if given {
            // What was written to it may be on its way yet.
            self.close_client(id, How::Gently);
        }
    }
}

/// What a reply changes in the session; gives the reply as the client is to see it.
fn apply<'a>(now: Now, s: &mut Session, what: Apply, frame: &'a [u8], error: bool) -> Cow<'a, [u8]> {
    let queued = frame == reply::QUEUED;
    if let Tx::Open(tx) = &mut s.tx
        && queued
    {
        // A name is the connection's own by then, and what is watched ends with the transaction.
        if !matches!(what, Apply::None | Apply::Getname | Apply::Watch | Apply::Unwatch) {
            tx.changes.push((tx.queued, what));
        }
        tx.queued += 1;
        return Cow::Borrowed(frame);
    }
    if let Tx::Open(tx) = &mut s.tx {
        // These are executed at once, and what they cannot do is no reason to abort (multi.c, `multiCommand`).
        tx.failed |= error && !matches!(what, Apply::Multi | Apply::Watch);
    }
    match what {
        Apply::Exec => return end_of_tx(now, s, frame, error),
        Apply::ExecAs(instead) => {
            (s.tx, s.watch) = (Tx::None, Watch::None);
            return Cow::Owned(instead.into());
        }
        Apply::Unknown => s.bound |= !(error && was_rejected(frame)),
        _ if error => {}
        // What was asked on behalf of no session, or of its connection.
        Apply::None | Apply::Name | Apply::WaitMark | Apply::Resubscribe | Apply::Retrack => {}
        Apply::LastId(_) | Apply::Offset | Apply::Replicas | Apply::Follow | Apply::Learn => {}
        // Of other sessions.
        Apply::Unblock(_) | Apply::MayKill(_) => {}
        Apply::Info => return Cow::Owned(client_info(frame, s, now, false)),
        Apply::Listed(_) => return Cow::Owned(client_info(frame, s, now, true)),
        Apply::Getredir => return Cow::Owned(getredir(frame, s)),
        Apply::Trackinginfo => {
            let to = s.tracking.as_ref().map_or(0, |t| t.redirect);
            return Cow::Owned(with_id(frame, b"redirect", to));
        }
        Apply::Tracking(request) => s.tracking = Tracking::after(s.tracking.take(), request),
        Apply::Select(db) => s.db = db,
        Apply::Auth(ident) => s.ident = Some(ident),
        Apply::Hello(hello) => {
            if let Some(resp3) = hello.resp3 {
                s.proto = if resp3 { Proto::Resp3 } else { Proto::Resp2 };
            }
            if let Some(ident) = hello.ident {
                s.ident = Some(ident);
            }
            if let Some(name) = hello.name {
                s.names_mut().name = name;
            }
            return Cow::Owned(with_id(frame, b"id", s.id));
        }
        Apply::Setname(name) => s.names_mut().name = name,
        Apply::Setinfo(false, lib) => s.names_mut().lib_name = lib,
        Apply::Setinfo(true, ver) => s.names_mut().lib_ver = ver,
        Apply::ClientId => {
            let mut out = Vec::new();
            reply::integer(&mut out, s.id);
            return Cow::Owned(out);
        }
        Apply::Getname => {
            let mut out = Vec::new();
            match s.names.as_ref().filter(|n| !n.name.is_empty()) {
                Some(n) => reply::bulk(&mut out, &n.name),
                None => reply::null_bulk(&mut out, s.proto),
            }
            return Cow::Owned(out);
        }
        Apply::Multi => s.tx = Tx::Open(Box::default()),
        Apply::Discard => (s.tx, s.watch) = (Tx::None, Watch::None),
        Apply::Watch => s.watch = if s.watch == Watch::Lost { Watch::Lost } else { Watch::Held },
        Apply::Unwatch => s.watch = Watch::None,
        Apply::Bind => s.bound = true,
    }
    Cow::Borrowed(frame)
}

/// `EXEC` has answered.
fn end_of_tx<'a>(now: Now, s: &mut Session, frame: &'a [u8], error: bool) -> Cow<'a, [u8]> {
    if frame.starts_with(b"-ERR EXEC without MULTI") {
        // Nothing has ended; what is watched still is.
        return Cow::Borrowed(frame);
    }
    if error && !frame.starts_with(b"-EXECABORT") {
        // Denied, or refused for a reason that may leave the transaction open: the connection is not given back.
        s.bound |= matches!(s.tx, Tx::Open(_));
        return Cow::Borrowed(frame);
    }
    let tx = core::mem::take(&mut s.tx);
    s.watch = Watch::None;
    let Tx::Open(tx) = tx else { return Cow::Borrowed(frame) };
    if error || tx.changes.is_empty() {
        return Cow::Borrowed(frame);
    }
    let mut changes = tx.changes.into_iter().peekable();
    let header = memchr::memchr(b'\n', frame).map_or(frame.len(), |end| end + 1);
    let mut seen = frame[..header].to_vec();
    let mut i = 0;
    for reply in children(frame) {
        if reply.starts_with(b">") {
            // None of its elements.
            seen.extend_from_slice(reply);
            continue;
        }
        let what = changes.next_if(|(at, _)| *at == i).map_or(Apply::None, |(_, what)| what);
        seen.extend_from_slice(&apply(now, s, what, reply, reply.first() == Some(&b'-')));
        i += 1;
    }
    Cow::Owned(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn select_in_a_transaction_counts_when_it_was_executed() {
        let mut s = Session { tx: Tx::Open(Box::default()), ..Session::default() };
        apply(Now::ZERO, &mut s, Apply::None, reply::QUEUED, false);
        apply(Now::ZERO, &mut s, Apply::Select(3), reply::QUEUED, false);
        assert_eq!(s.db, 0);
        apply(Now::ZERO, &mut s, Apply::Exec, b"*2\r\n*1\r\n+OK\r\n+OK\r\n", false);
        assert_eq!((s.db, s.tx), (3, Tx::None));
    }

    #[test]
    fn select_in_a_transaction_that_failed_does_not_count() {
        let mut s = Session { tx: Tx::Open(Box::default()), ..Session::default() };
        apply(Now::ZERO, &mut s, Apply::Select(99), reply::QUEUED, false);
        apply(Now::ZERO, &mut s, Apply::Exec, b"*1\r\n-ERR DB index is out of range\r\n", false);
        assert_eq!(s.db, 0);
    }

    #[test]
    fn whatever_is_refused_in_a_transaction_aborts_it_but_not_what_is_done_at_once() {
        for (what, failed) in [(Apply::None, true), (Apply::Info, true), (Apply::Watch, false)] {
            let mut s = Session { tx: Tx::Open(Box::default()), ..Session::default() };
            apply(Now::ZERO, &mut s, what.clone(), b"-ERR no\r\n", true);
            assert!(matches!(&s.tx, Tx::Open(tx) if tx.failed == failed), "{what:?}");
        }
    }

    #[test]
    fn an_exec_that_was_denied_outside_of_a_transaction_binds_nothing() {
        let mut s = Session::default();
        apply(Now::ZERO, &mut s, Apply::Exec, b"-NOAUTH Authentication required.\r\n", true);
        assert!(!s.needs_pin());
    }

    #[test]
    fn exec_without_multi_leaves_what_is_watched() {
        let mut s = Session { watch: Watch::Held, ..Session::default() };
        apply(Now::ZERO, &mut s, Apply::Exec, b"-ERR EXEC without MULTI\r\n", true);
        assert_eq!((s.watch, s.bound), (Watch::Held, false));
    }

    #[test]
    fn what_a_transaction_changes_and_asks_of_the_session_is_the_sessions() {
        let mut s = Session { id: 7, tx: Tx::Open(Box::default()), ..Session::default() };
        for what in [Apply::ClientId, Apply::Setname(b"me"[..].into()), Apply::Setname(b"no"[..].into())] {
            apply(Now::ZERO, &mut s, what, reply::QUEUED, false);
        }
        let seen = apply(Now::ZERO, &mut s, Apply::Exec, b"*3\r\n:812\r\n+OK\r\n-ERR no\r\n", false);
        assert_eq!(&*seen, b"*3\r\n:7\r\n+OK\r\n-ERR no\r\n");
        assert_eq!(&*s.names_mut().name, b"me");
    }

    #[test]
    fn an_exec_that_was_denied_keeps_the_connection_out_of_the_pool() {
        let mut s = Session { tx: Tx::Open(Box::default()), ..Session::default() };
        apply(Now::ZERO, &mut s, Apply::Exec, b"-NOPERM no\r\n", true);
        assert!(s.needs_pin());
    }
}
