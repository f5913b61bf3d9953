//! What a gone connection owed: commands that are sent again, and those whose outcome cannot be known (invariant 6).
use super::client::{Place, Stream};
use super::subscriptions::unconfirmed;
use super::upstream::Up;
use super::{Class, ClientId, Dst, Effect, How, UpId, Worker};
use crate::Now;
use crate::command::{Access, Act};
use crate::hold::{Lost, Then, lost};
use crate::ledger::{Apply, Owner, Sent, Slot};
use crate::policy::Retry;
use crate::resp::reply;
use crate::session::{Tx, Watch};
use crate::topology::snapshot::{SignKind, Term};
use alloc::boxed::Box;
use alloc::vec::Vec;

impl Worker {
    /// The shell lost a connection, or could not make it: a sign.
    pub(super) fn up_gone(&mut self, now: Now, id: UpId) {
        let Some(up) = self.ups.get(id) else { return };
        if up.ends.is_some() {
            return self.ended(id);
        }
        let (at, term, ready) = ((up.service, up.shard), up.term, up.is_ready());
        let (class, says_nothing) = (up.key.class, up.relay || up.fenced.is_some());
        let cared_for = up.carried.then(|| (up.key, up.ident.clone()));
        if !ready {
            self.service(at.0).counters.ups_failed += 1;
            if class != Class::Read {
                self.shard(at.0, at.1).failed(now);
            }
        }
        self.resolve(id, Cause::Broken);
        if class != Class::Read {
            // The next connection may be to a server that was started anew.
            self.service(at.0).learned.clear();
        }
        // The server closes a connection whose bytes are not counted when its client has said QUIT.
        if !says_nothing {
            self.suspect(now, class, at, term, SignKind::Broken);
        }
        if let Some((key, ident)) = cared_for {
            self.look_after(now, at, key, ident.as_ref());
        }
    }

    /// Gives a connection up; `sign` if it is one that the grant may have ended.
    pub(super) fn lose_up(&mut self, now: Now, id: UpId, sign: Option<SignKind>) {
        let Some(up) = self.ups.get(id) else { return };
        let (at, term, class) = ((up.service, up.shard), up.term, up.key.class);
        // A deposed master says nothing of the new one.
        let says = sign.filter(|_| up.fenced.is_none());
        self.effects.push_back(Effect::Close(Dst::Up(id), How::Abort));
        self.resolve(
            id,
            match sign {
                Some(SignKind::Garbage) => Cause::Garbage,
                Some(SignKind::Unblocked) => Cause::Unblocked,
                // Whatever a replica was asked, it only reads: that we leave it costs it no try.
                None if class == Class::Read => Cause::Left,
                _ => Cause::Broken,
            },
        );
        if let Some(kind) = says {
            self.suspect(now, class, at, term, kind);
        }
    }

    /// Settles all that a connection owes, without it. What its server answered with garbage is not asked again, whatever
    /// it is: the answer would be the same, again and again.
    fn resolve(&mut self, id: UpId, cause: Cause) {
        let Some(mut up) = self.detach_up(id) else { return };
        let mut loss = self.loss(&up, cause);
        let mut owed = up.ledger.close();
        if cause == Cause::Unblocked {
            owed.iter_mut().for_each(|(.., sent)| *sent = Sent::NotAll);
        }
        self.resolve_owed(id, up.pinned_by, owed, &mut loss);
    }

    /// What is known when a connection is lost.
    pub(super) fn loss(&self, up: &Up, cause: Cause) -> Loss {
        let pinned_by = up.pinned_by.and_then(|c| self.clients.get(c));
        Loss {
            term: up.term,
            retry: self.service_ref(up.service).policy.retry,
            garbage: cause == Cause::Garbage,
            left: cause == Cause::Left,
            in_tx: pinned_by.is_some_and(|c| c.session.tx != Tx::None),
            discarded: false,
        }
    }

    /// Settles what a connection owed, without its replies; nothing else that it owes is of the same clients.
    pub(super) fn resolve_owed(
        &mut self,
        id: UpId,
        pinned_by: Option<ClientId>,
        owed: Vec<(Slot, Box<[u8]>, Sent)>,
        loss: &mut Loss,
    ) {
        let mut met: Vec<ClientId> = pinned_by.into_iter().collect();
        for (slot, bytes, sent) in owed {
            if let Owner::Client(client) = slot.owner {
                if let Some(c) = self.clients.get_mut(client)
                    && core::mem::take(&mut c.owed) > 0
                    && pinned_by != Some(client)
                {
                    met.push(client);
                }
                self.resolve_slot(client, slot, bytes, sent, loss);
            }
            // Garbage answers the first.
            loss.garbage = false;
        }
        for client in met {
            let Some(c) = self.clients.get_mut(client) else { continue };
            // What is withheld still waits for its proof.
            c.owed = c.unproven();
            if matches!(c.place, Place::Lane(u) | Place::Pinned(u) if u == id) {
                c.place = Place::Free;
            }
            if pinned_by == Some(client) && !self.unpinned_by_loss(client) {
                continue;
            }
            self.ready.push_back(client);
        }
    }

    /// A client's own connection is gone: what it held is lost, or the client is. `false`: the client is.
    pub(super) fn unpinned_by_loss(&mut self, id: ClientId) -> bool {
        let Some(c) = self.clients.get_mut(id) else { return false };
        let s = &c.session;
        let (bound, listens) = (s.bound || s.relay, s.listens());
        if bound || listens && !self.listener_lost(id) {
            self.cut_client(id);
            return false;
        }
        let Some(c) = self.clients.get_mut(id) else { return false };
        let s = &mut c.session;
        if matches!(s.tx, Tx::Open(_)) {
            s.tx = Tx::Lost;
        }
        if s.watch == Watch::Held {
            s.watch = Watch::Lost;
        }
        if let Stream::Into(_) = c.stream {
            c.stream = Stream::Discard(Box::default());
        }
        true
    }

    /// What becomes of one request, without its reply.
    pub(super) fn resolve_slot(
        &mut self,
        id: ClientId,
        slot: Slot,
        bytes: Box<[u8]>,
        sent: Sent,
        loss: &mut Loss,
    ) {
        if slot.begun {
            return self.cut_client(id);
        }
        let bytes = match sent {
            Sent::All => self.to_ask_again(id, slot.seq, slot.entry, &bytes).unwrap_or(bytes),
            Sent::NotAll => bytes,
        };
        let Some(c) = self.clients.get_mut(id) else { return };
        let Some(s) = self.services[usize::from(c.service.0)].as_mut() else { return };
        let answer = if sent == Sent::All || slot.streams { loss.in_lost_tx(&slot) } else { None };
        let then = match answer {
            Some(then) => then,
            // Its bytes are gone. If the server has not got all of it, it was not executed.
            None if slot.streams && sent == Sent::NotAll => {
                s.counters.masterdown += 1;
                let why = "the connection was lost while the request was sent";
                Then::Answer(reply::masterdown(&s.policy.name, why).into())
            }
            None if slot.streams => Then::Answer(reply::UNCERTAIN.into()),
            None if loss.left => again(&slot, bytes, slot.maybe || sent == Sent::All),
            None => match lost(&slot, &bytes, sent, loss.retry) {
                Lost::Again => again(&slot, bytes, slot.maybe),
                // What two connections did not survive may be the reason: there is no third try.
                Lost::ReadAgain if !loss.garbage && !slot.maybe => again(&slot, bytes, true),
                Lost::WriteAgain if !loss.garbage && !slot.maybe => {
                    let refusal = Some(reply::UNCERTAIN.into());
                    Then::Again { bytes: as_asked(&slot, bytes), maybe: true, refusal }
                }
                _ => Then::Answer(reply::UNCERTAIN.into()),
            },
        };
        if then.answer() == Some(reply::UNCERTAIN) {
            if s.policy.close_lost_pops && c.blocked.as_ref().is_some_and(|b| b.pops(&slot)) {
                // As on a direct connection: who pops in a loop knows a lost connection, and no error of ours.
                return self.cut_client(id);
            }
            s.counters.uncertain += 1 + c.overtaken(slot.seq);
            if slot.entry.is_none_or(|e| e.access == Access::Write) {
                c.session.last_write = Some(loss.term);
            }
        }
        match (&c.stream, then.answer()) {
            (Stream::Into(_), Some(text)) if slot.streams => c.stream = Stream::Discard(text.into()),
            _ => c.redo_at(slot.seq, then),
        }
    }

    /// A command's reply is known without its connection.
    pub(super) fn answer_lost(&mut self, id: ClientId, slot: &Slot, answer: &[u8]) {
        let Some(c) = self.clients.get_mut(id) else { return };
        match c.stream {
            Stream::Into(_) if slot.streams => c.stream = Stream::Discard(answer.into()),
            _ => c.redo_at(slot.seq, Then::Answer(answer.into())),
        }
        c.owed = c.unproven();
        c.place = Place::Free;
        self.ready.push_back(id);
    }

    /// Takes back what was queued and not sent on the connections of a shard: it waits with its session instead, so
    /// that it can go elsewhere.
    pub(super) fn retract(&mut self, ups: Vec<UpId>) {
        for id in ups {
            let Some(up) = self.ups.get_mut(id) else { continue };
            if up.relay {
                continue;
            }
            for (slot, bytes) in up.ledger.retract() {
                let Owner::Client(client) = slot.owner else {
                    self.wait_taken_back(id, &slot);
                    if slot.apply == Apply::Learn {
                        self.look_up_again(id);
                    }
                    continue;
                };
                let Some(c) = self.clients.get_mut(client) else { continue };
                c.owed = c.owed.saturating_sub(1);
                c.redo_at(slot.seq, again(&slot, bytes, slot.maybe));
                self.ready.push_back(client);
            }
            self.feed_starved(id);
        }
    }
}

/// A request that was sent, as the client asked it, and as far as it is not answered.
pub(super) fn as_asked(slot: &Slot, bytes: Box<[u8]>) -> Box<[u8]> {
    match (slot.apply.own_words(), slot.entry.map(|e| e.act)) {
        (Some(own), _) => own.into(),
        (None, Some(Act::Subscribe(_) | Act::Unsubscribe(_))) => unconfirmed(bytes, slot.replies),
        _ => bytes,
    }
}

/// To send a request again.
pub(super) fn again(slot: &Slot, bytes: Box<[u8]>, maybe: bool) -> Then {
    Then::Again { bytes: as_asked(slot, bytes), maybe, refusal: None }
}

/// Why a connection is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// Nobody knows what became of what was sent on it.
    Broken,
    /// Its server answered the next of its requests with garbage.
    Garbage,
    /// Its server has become a replica, ended what waited there, and executes nothing behind it ([`Up::ends_with`]).
    Unblocked,
    /// We left it, and what was sent on it did nothing.
    Left,
}

/// What is known of a connection that is gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    term: Term,
    retry: Retry,
    /// Whether its server answered the next of its requests with garbage.
    garbage: bool,
    /// Whether we left it, and whatever was sent on it only reads.
    left: bool,
    /// Whether the next of its requests stands in a transaction.
    pub(super) in_tx: bool,
    /// Whether its server has said that it discards that transaction.
    pub(super) discarded: bool,
}

impl Loss {
    /// What is said of a command that was sent within a transaction whose connection is lost: nothing of a transaction
    /// is executed before its `EXEC`.
    fn in_lost_tx(&mut self, slot: &Slot) -> Option<Then> {
        let act = slot.entry.map(|e| e.act);
        let (answer, tx) = match act {
            Some(Act::Multi) if !self.in_tx && slot.apply == Apply::Multi => (reply::OK, Some(Tx::Lost)),
            _ if !self.in_tx => return None,
            Some(Act::Exec) if self.discarded || matches!(slot.apply, Apply::ExecAs(_)) => {
                (reply::EXECABORT_SWITCH, Some(Tx::None))
            }
            Some(Act::Exec) => (reply::UNCERTAIN, Some(Tx::None)),
            Some(Act::Discard) => (reply::OK, Some(Tx::None)),
            _ => (reply::QUEUED, None),
        };
        self.in_tx = tx != Some(Tx::None);
        Some(Then::InTx { answer, tx })
    }
}
