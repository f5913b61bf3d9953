//! What a server tells a session without being asked each time: subscriptions, followed by what the server confirms, and
//! invalidations (`CLIENT TRACKING`). They are asked for again on another connection when theirs is lost. That comes before
//! anything else that the session asks of it, and the answers are not the client's. Messages in between are lost, as with
//! Redis; what is counted is that it happened. A client that keeps copies of what it read is told to forget them.
use super::client::{Place, Wait};
use super::intake::{Routed, SHARD};
use super::{Class, ClientId, LaneKey, OutputLimit, UpId, Worker};
use crate::Now;
use crate::command::{Access, Act, SubKind};
use crate::hold::Pass;
use crate::identity::with_id;
use crate::ledger::{Apply, Owner, Slot};
use crate::resp::frame::{Element, Elements, Request};
use crate::resp::{Proto, parse_i64, reply};
use crate::route::entry;
use crate::session::{Session, Subs};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// The session is gone that is told in the place of this one (`sendTrackingMessage` in `tracking.c`).
const REDIRECT_BROKEN: &[u8] = b"tracking-redir-broken";

impl Worker {
    /// On a pinned connection: confirmations of subscriptions, messages and other pushes, which are no replies in the
    /// ordinary sense. `true` if the frame was one.
    pub(super) fn aside(&mut self, id: UpId, frame: &[u8], kind: u8) -> bool {
        let Some(client) = self.ups[id].pinned_by else { return false };
        let Some(c) = self.clients.get_mut(client) else { return false };
        let up = &mut self.ups[id];
        let asked = up.ledger.expects()
            && up.ledger.front().is_some_and(|s| {
                s.entry.is_some_and(|e| matches!(e.act, Act::Subscribe(_) | Act::Unsubscribe(_)))
            });
        let subscribed = c.session.subs.as_ref().is_some_and(|s| !s.is_empty());
        // In RESP3 only a push is no reply, whatever else a reply may look like.
        let looks = kind == b'*' && c.session.proto == Proto::Resp2 && (asked || subscribed);
        if kind != b'>' && !looks {
            return false;
        }
        let mut elements = Elements::of(frame);
        elements.next();
        let Some(Element::Bulk(word)) = elements.next() else {
            return kind == b'>' && self.pushed(client, frame);
        };
        if kind == b'>' && word == REDIRECT_BROKEN {
            let to = c.session.tracking.as_ref().map_or(0, |t| t.redirect);
            return self.pushed(client, &with_id(frame, REDIRECT_BROKEN, to));
        }
        let Some((kind_of_sub, adds)) = subscription_word(word) else {
            let message = matches!(word, b"message" | b"pmessage" | b"smessage") || kind == b'>';
            return message && self.pushed(client, frame);
        };
        let own = asked && up.ledger.front().is_some_and(|s| s.apply == Apply::Resubscribe);
        if !own {
            let limits =
                &self.services[usize::from(c.service.0)].as_ref().expect("a service is kept").policy.limits;
            follow(&mut c.session, kind_of_sub, adds, &mut elements, limits.subs_max);
            self.deliver(client, frame);
        }
        // Its client may have been closed for what it leaves unread, and its connection with it.
        if asked && let Some(up) = self.ups.get_mut(id) {
            let Some(slot) = up.ledger.front() else { return true };
            slot.replies -= 1;
            if slot.replies == 0 {
                up.ledger.settle();
                if own {
                    self.keep_promises();
                } else {
                    self.owed_less(client, id);
                }
                self.after_settle(id);
            }
        }
        true
    }

    fn pushed(&mut self, client: ClientId, frame: &[u8]) -> bool {
        self.deliver(client, frame);
        true
    }

    /// The connection is gone of a session to which the server tells things. `false`: what that was is not known any more,
    /// or it would not hear of it.
    pub(super) fn listener_lost(&mut self, id: ClientId) -> bool {
        let Some(c) = self.clients.get_mut(id) else { return false };
        let s = &c.session;
        let known = s.subs.as_ref().is_none_or(|s| s.are_known());
        let known = known && s.tracking.as_ref().is_none_or(|t| t.is_known());
        if !known || c.closing || c.deaf || c.eof {
            return false;
        }
        let limits =
            &self.services[usize::from(c.service.0)].as_ref().expect("a service is kept").policy.limits;
        if c.lags(limits) {
            self.overrun(id, OutputLimit::SubscriberLost, 0);
            return false;
        }
        if !core::mem::replace(&mut c.restore, true) {
            let service = c.service;
            self.service(service).counters.subscribers_interrupted += 1;
            self.flush(id);
        }
        self.ready.push_back(id);
        true
    }

    /// Gives a session a connection on which it hears all that it did on the one that was lost.
    pub(super) fn restore(&mut self, now: Now, id: ClientId) -> Routed {
        // Its replies that need a proof keep it where it is.
        if self.clients.get(id).is_some_and(|c| c.owed > 0) {
            return Routed::Blocked(Wait::Owed);
        }
        match self.at_gate(now, id, Access::Neither) {
            Pass::Go => {}
            Pass::Wait => return Routed::Blocked(Wait::Gate),
            // It would wait for messages that cannot come: a closed connection says so.
            Pass::Refuse => {
                self.cut_client(id);
                return Routed::Taken;
            }
        }
        let tracking = match self.tracking_again(now, id) {
            Some(Ok(requests)) => requests,
            Some(Err(())) => {
                self.cut_client(id);
                return Routed::Taken;
            }
            None => return Routed::Blocked(Wait::Others),
        };
        let Some(c) = self.clients.get(id) else { return Routed::Taken };
        let s = self.service_ref(c.service);
        if s.shards[usize::from(SHARD.0)].pinned_is_full(s.policy.pinned_max) {
            self.cut_client(id);
            return Routed::Taken;
        }
        let session = &c.session;
        let key =
            LaneKey { class: Class::Pinned, ident: session.ident_id(), proto: session.proto, db: session.db };
        let (at, ident) = ((c.service, SHARD), session.ident.clone());
        let Some(up) = self.pin(now, at, key, ident.as_ref(), id) else {
            // A connection was tried in vain a moment ago.
            self.line_up(id);
            return Routed::Blocked(Wait::Gate);
        };
        self.clients[id].place = Place::Pinned(up);
        self.name_pinned(up, id);
        let c = &mut self.clients[id];
        c.restore = false;
        let u = &mut self.ups[up];
        u.private |= !tracking.is_empty();
        for bytes in tracking {
            u.ledger.push(&bytes, Slot::new(Owner::Nobody, entry(Request::new(&bytes)), Apply::Retrack));
        }
        if let Some(subs) = &c.session.subs {
            let ledger = &mut u.ledger;
            for kind in SubKind::ALL {
                if let Some((bytes, replies)) = subscription(subs, kind) {
                    let slot = Slot::new(Owner::Nobody, Some(kind.subscribe()), Apply::Resubscribe);
                    ledger.push(&bytes, Slot { replies, ..slot });
                }
            }
        }
        if c.session.tracking.as_ref().is_some_and(|t| t.opts_in()) {
            // Whether it said so just before nobody knows any longer. To track one answer too many does no harm.
            let mut bytes = Vec::new();
            reply::request(&mut bytes, &[&b"CLIENT"[..], b"CACHING", b"YES"]);
            u.ledger.push(&bytes, Slot::new(Owner::Nobody, None, Apply::Name));
        }
        self.mark_up(up);
        if self.ups[up].is_ready() {
            self.has_connection(now, up);
        }
        Routed::Taken
    }

    /// A request to track was granted again; the last of them makes it whole.
    pub(super) fn tracks_again_on(&mut self, now: Now, id: UpId) {
        let Some(up) = self.ups.get(id) else { return };
        if !up.ledger.slots().any(|s| s.apply == Apply::Retrack)
            && let Some(client) = up.pinned_by
        {
            self.tracks_again(now, client);
        }
    }

    /// The server refuses a subscription that it granted before (its users differ from the old master's, or a connection
    /// for it cannot be set up): the client must not believe that it still has it.
    pub(super) fn cannot_restore(&mut self, id: UpId) {
        if let Some(client) = self.ups.get(id).and_then(|up| up.pinned_by) {
            self.cut_client(client);
            self.close_up(id);
        }
    }
}

/// The request for all subscriptions of a kind, and how many confirmations it gets.
fn subscription(subs: &Subs, kind: SubKind) -> Option<(Vec<u8>, u32)> {
    let replies = u32::try_from(subs.names(kind).len()).ok().filter(|n| *n > 0)?;
    let words: Vec<&[u8]> =
        core::iter::once(kind.subscribe().name.as_bytes()).chain(subs.names(kind)).collect();
    let mut bytes = Vec::new();
    reply::request(&mut bytes, &words);
    Some((bytes, replies))
}

/// Of a request to subscribe, or to subscribe no longer, what is still to be confirmed: the last `replies` names.
pub(super) fn unconfirmed(bytes: Box<[u8]>, replies: u32) -> Box<[u8]> {
    let req = Request::new(&bytes);
    let done = (req.args().count() - 1).saturating_sub(replies as usize);
    if done == 0 {
        return bytes;
    }
    let words: Vec<&[u8]> = core::iter::once(req.name()).chain(req.args().skip(1 + done)).collect();
    let mut rest = Vec::new();
    reply::request(&mut rest, &words);
    rest.into()
}

fn subscription_word(word: &[u8]) -> Option<(SubKind, bool)> {
    Some(match word {
        b"subscribe" => (SubKind::Channel, true),
        b"unsubscribe" => (SubKind::Channel, false),
        b"psubscribe" => (SubKind::Pattern, true),
        b"punsubscribe" => (SubKind::Pattern, false),
        b"ssubscribe" => (SubKind::Shard, true),
        b"sunsubscribe" => (SubKind::Shard, false),
        _ => return None,
    })
}

/// Follows a session's subscriptions by what the server confirms: a name, and how many there are now.
fn follow(s: &mut Session, kind: SubKind, adds: bool, elements: &mut Elements<'_>, bytes_max: usize) {
    let Some(Element::Bulk(name)) = elements.next() else { return };
    let total = match elements.next() {
        Some(Element::Line(b':', n)) => parse_i64(n).and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
        _ => 0,
    };
    let subs: &mut Subs = s.subs.get_or_insert_default();
    subs.follow(kind, adds, name, total, bytes_max);
    if subs.is_empty() {
        s.subs = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    #[test]
    fn what_was_confirmed_is_not_asked_again() {
        let rest = |text: &str, replies| {
            let words: Vec<&str> = text.split(' ').collect();
            let mut bytes = Vec::new();
            reply::request(&mut bytes, &words);
            let rest = unconfirmed(bytes.into(), replies);
            let rest: Vec<_> = Request::new(&rest).args().map(String::from_utf8_lossy).collect();
            rest.join(" ")
        };
        assert_eq!(rest("SUBSCRIBE a b c", 3), "SUBSCRIBE a b c");
        assert_eq!(rest("SUBSCRIBE a b c", 1), "SUBSCRIBE c");
        assert_eq!(rest("UNSUBSCRIBE", 4), "UNSUBSCRIBE");
    }
}
