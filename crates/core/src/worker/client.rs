//! A client: what it sent and was not routed, what it is owed, what it has not read.
use super::blocked::Blocked;
use super::withheld::Withheld;
use super::{ClientId, Dst, Effect, Event, How, OutputLimit, UpId, Worker};
use crate::Now;
use crate::command::{Act, Entry};
use crate::hold::{Redo, Then};
use crate::policy::{Limits, Policy};
use crate::resp::reply;
use crate::resp::scan::RequestScan;
use crate::session::{Session, Tx};
use crate::topology::snapshot::ServiceId;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Where a session's unanswered commands are (invariant 5: in one place).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Place {
    /// Nowhere yet.
    #[default]
    Free,
    /// On a shared connection (the last one, if nothing is owed).
    Lane(UpId),
    /// On the session's own connection.
    Pinned(UpId),
}

/// Why a client's next command is not routed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Wait {
    /// It is.
    #[default]
    No,
    /// Until nothing is owed: the command goes elsewhere, or is answered here.
    Owed,
    /// Until fewer of its commands are in flight.
    InFlight,
    /// Until a gate opens; it stands in the shard's line.
    Gate,
    /// Until its connection's ring has room.
    Room,
    /// Until it has read some of its replies.
    Output,
    /// Until the server has said what its next command is.
    Learn,
    /// Until all workers have said what they know of other sessions.
    Others,
}

/// Whether a client that is not read, because it leaves its replies unread, takes none of them at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Stalled {
    /// Not that we know.
    #[default]
    No,
    /// It has taken none since the last look.
    Perhaps,
    /// Nor for a second before that: it says all that it has to say before it listens (as many libraries do with a pipeline).
    Yes,
}

/// A request that is larger than what is kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Stream {
    /// There is none.
    #[default]
    No,
    /// Its bytes go to this pinned connection as they come.
    Into(UpId),
    /// Its connection is gone: the rest of it is thrown away, then this is the answer.
    Discard(Box<[u8]>),
}

pub(super) struct Client {
    pub(super) service: ServiceId,
    pub(super) session: Session,
    /// What was sent and is not routed, from `input_at` on.
    pub(super) input: Vec<u8>,
    pub(super) input_at: usize,
    pub(super) scan: RequestScan,
    /// How much was read of it the last time.
    pub(super) last_read: usize,
    /// The length of the first request of `input`, if it was framed but could not be routed.
    pub(super) framed: Option<usize>,
    /// Replies, from `out_at` on.
    out: Vec<u8>,
    out_at: usize,
    /// Replies that may not be shown yet, and all that come behind them.
    pub(super) withheld: Option<Box<Withheld>>,
    /// Its writes are acknowledged when replicas have them.
    pub(super) durable: bool,
    /// Commands in flight upstream, or whose replies need a proof.
    pub(super) owed: u32,
    pub(super) place: Place,
    /// What comes before `input`, in the order in which it was asked.
    pub(super) redo: VecDeque<Redo>,
    /// So many commands it has asked of servers.
    pub(super) asked: u64,
    /// The newest of those in flight.
    pub(super) newest: u64,
    /// What the server is to tell it is to be asked for again, before anything else is for it.
    pub(super) restore: bool,
    /// What is known of its command that blocks.
    pub(super) blocked: Option<Box<Blocked>>,
    pub(super) wait: Wait,
    pub(super) stream: Stream,
    pub(super) dirty: bool,
    /// Its place in the line for a gate, if it stands there.
    pub(super) ticket: Option<u64>,
    /// In which connection's list of those it stands that wait for room.
    pub(super) starved_at: Option<UpId>,
    /// It will send no more.
    pub(super) eof: bool,
    /// Nor will it once what it sent and was not read is read.
    pub(super) hung_up: bool,
    /// What it sends is no longer looked at: it was malformed, or its user is gone.
    pub(super) deaf: bool,
    /// Since when it was seen to [lag](Client::lags), without a look at which it did not.
    pub(super) lags_since: Option<Now>,
    pub(super) stalled: Stalled,
    /// What it is told before it is closed, after all that it is owed.
    pub(super) last_words: Option<Box<[u8]>>,
    /// It is closed as soon as its replies are written.
    pub(super) closing: bool,
    /// The shell was told not to read it.
    pub(super) paused: bool,
    /// It is to go to another worker: it is not read until it is owed nothing.
    pub(super) leaving: bool,
    /// When it came from another worker.
    pub(super) moved_at: Option<Now>,
    pub(super) active: Now,
}

impl Client {
    pub(super) fn new(service: ServiceId, session: Session, durable: bool, now: Now) -> Client {
        Client {
            service,
            session,
            input: Vec::new(),
            input_at: 0,
            scan: RequestScan::default(),
            last_read: 0,
            framed: None,
            out: Vec::new(),
            out_at: 0,
            withheld: None,
            durable,
            owed: 0,
            place: Place::Free,
            redo: VecDeque::new(),
            asked: 0,
            newest: 0,
            restore: false,
            blocked: None,
            wait: Wait::No,
            stream: Stream::No,
            dirty: false,
            ticket: None,
            starved_at: None,
            eof: false,
            hung_up: false,
            deaf: false,
            lags_since: None,
            stalled: Stalled::No,
            last_words: None,
            closing: false,
            paused: false,
            leaving: false,
            moved_at: None,
            active: now,
        }
    }

    /// Puts a command where it belongs among those that are still to be done.
    pub(super) fn redo_at(&mut self, seq: u64, then: Then) {
        let at = self.redo.partition_point(|r| r.seq < seq);
        self.redo.insert(at, Redo { seq, then });
    }

    /// Whether something that it asked before `seq` is still to be done.
    pub(super) fn is_behind(&self, seq: u64) -> bool {
        self.redo.front().is_some_and(|r| r.seq < seq)
    }

    /// A command was or may have been executed: a write that it asked before, and that is to be sent again, is not, for the
    /// older value would win. Its refusal is its answer, unless a node may have executed it before. Returns of how many
    /// commands the outcome is not known.
    pub(super) fn overtaken(&mut self, seq: u64) -> u64 {
        let mut uncertain = 0;
        for earlier in self.redo.iter_mut().filter(|r| r.seq < seq) {
            if let Then::Again { refusal, maybe, .. } = &mut earlier.then
                && let Some(text) = refusal.take()
            {
                uncertain += u64::from(*maybe);
                earlier.then = Then::Answer(if *maybe { reply::UNCERTAIN.into() } else { text });
            }
        }
        uncertain
    }

    pub(super) fn unwritten(&self) -> &[u8] {
        &self.out[self.out_at..]
    }

    /// Bytes of replies that it has not read, or not been given yet.
    pub(super) fn unread(&self) -> usize {
        self.unwritten().len() + self.withheld.as_ref().map_or(0, |w| w.len())
    }

    /// So much it may leave unread, and which limit that is.
    pub(super) fn output_limit(&self, lim: &Limits) -> (usize, OutputLimit) {
        match self.session.subs {
            None => (lim.client_output_hard, OutputLimit::Client),
            Some(_) => (lim.subscriber_output_hard, OutputLimit::Subscriber),
        }
    }

    /// Whether it is a subscriber that leaves more unread than it may for long.
    pub(super) fn lags(&self, lim: &Limits) -> bool {
        self.session.subs.is_some() && self.unread() > lim.subscriber_output_soft
    }

    /// Replies that need a proof: as long as they do they are owed.
    pub(super) fn unproven(&self) -> u32 {
        self.withheld.as_ref().map_or(0, |w| w.unproven())
    }

    /// Whether it is in no transaction, and its state demands no connection.
    pub(super) fn tx_free(&self) -> bool {
        self.session.tx == Tx::None && !self.session.needs_pin()
    }

    /// Whether what it is sent has no end: it subscribes, or its bytes are not counted.
    fn only_listens(&self) -> bool {
        self.session.relay || self.session.subs.as_ref().is_some_and(|s| !s.is_empty())
    }

    /// Why its next command has to wait, whatever it is: too many are in flight, or it does not read.
    pub(super) fn is_full(&self, lim: &Limits) -> Option<Wait> {
        if self.owed >= lim.in_flight_max {
            return Some(Wait::InFlight);
        }
        (self.unread() >= self.soft(lim)).then_some(Wait::Output)
    }

    /// So much it may leave unread and still be read. One that would neither read nor be read for ever has half of what it may
    /// leave at all.
    pub(super) fn soft(&self, lim: &Limits) -> usize {
        match self.stalled {
            Stalled::Yes => lim.client_output_soft.max(lim.client_output_hard / 2),
            _ => lim.client_output_soft,
        }
    }

    /// Whether a command changes nothing in it, and nothing in it changes how the command is sent.
    pub(super) fn is_plain(&self, e: &'static Entry, policy: &Policy) -> bool {
        e.act == Act::None && policy.sends(e) && self.session.tx == Tx::None
    }

    /// Bytes that wait to be routed.
    pub(super) fn waiting(&self) -> usize {
        self.input.len() - self.input_at
    }

    /// Whether more of what it sends can be taken in: back-pressure.
    pub(super) fn wants_input(&self, lim: &Limits) -> bool {
        // A line that is too long must be seen to be so.
        let most = lim.client_input_max.max(lim.inline_max + 1);
        let ends = self.closing || self.eof || self.leaving;
        !ends && self.waiting() < most && self.unread() < self.soft(lim)
    }

    /// Keeps bytes that cannot be routed yet.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if self.input_at > 0 {
            self.input.drain(..self.input_at);
            self.input_at = 0;
        }
        self.input.extend_from_slice(bytes);
    }
}

/// Buffers of up to this many bytes are kept for the next client, so many of them.
const BUFFER_KEPT: usize = 64 << 10;
const BUFFERS_KEPT: usize = 256;

impl Worker {
    /// Gives a client bytes, behind those that are withheld from it. One that does not read them is closed at its limit.
    pub(super) fn deliver(&mut self, id: ClientId, bytes: &[u8]) {
        self.put::<false>(id, bytes);
    }

    /// Gives a client bytes at once.
    pub(super) fn give(&mut self, id: ClientId, bytes: &[u8]) {
        self.put::<true>(id, bytes);
    }

    #[inline]
    fn put<const AT_ONCE: bool>(&mut self, id: ClientId, bytes: &[u8]) {
        let Some(c) = self.clients.get_mut(id) else { return };
        if !AT_ONCE && let Some(withheld) = &mut c.withheld {
            withheld.push_behind(bytes);
            return self.bound_output(id);
        }
        if c.out.capacity() == 0
            && let Some(buffer) = self.buffers.pop()
        {
            c.out = buffer;
        }
        c.out.extend_from_slice(bytes);
        if !c.dirty {
            c.dirty = true;
            self.dirty_clients.push(id);
        }
        let s =
            self.services[usize::from(c.service.0)].as_mut().expect("a service is kept while it has clients");
        s.counters.client_bytes_out += bytes.len() as u64;
        let (most, limit) = c.output_limit(&s.policy.limits);
        if c.unread() > most {
            self.overrun(id, limit, 0);
        }
    }

    /// Closes a client of whose replies more waits than may.
    pub(super) fn bound_output(&mut self, id: ClientId) {
        let Some(c) = self.clients.get(id) else { return };
        let (most, limit) = c.output_limit(&self.service_ref(c.service).policy.limits);
        if c.unread() > most {
            self.overrun(id, limit, 0);
        }
    }

    /// Closes a client that leaves more unread than a limit allows, at once, as a server does, and tells why. `more`: bytes for
    /// it that it was not given.
    pub(super) fn overrun(&mut self, id: ClientId, limit: OutputLimit, more: usize) {
        let Some(c) = self.clients.get(id) else { return };
        let (service, session, unread) = (c.service, c.session.id, c.unread() + more);
        let s = self.service(service);
        s.counters.clients_overrun += 1;
        let service = s.policy.name.clone();
        self.effects.push_back(Effect::Tell(Event::Overrun { service, session, unread, limit }));
        self.close_client(id, How::Abort);
    }

    pub(super) fn client_wrote(&mut self, _now: Now, id: ClientId, n: usize) {
        let Some(c) = self.clients.get_mut(id) else { return };
        c.out_at += n;
        c.stalled = Stalled::No;
        if c.out_at == c.out.len() {
            let mut buffer = core::mem::take(&mut c.out);
            c.out_at = 0;
            if buffer.capacity() <= BUFFER_KEPT && self.buffers.len() < BUFFERS_KEPT {
                buffer.clear();
                self.buffers.push(buffer);
            }
            if c.closing {
                self.close_client(id, How::Gently);
                return;
            }
        } else if c.out_at > c.out.len() / 2 && c.out_at > BUFFER_KEPT {
            c.out.drain(..c.out_at);
            c.out_at = 0;
        }
        let Some(s) = self.services[usize::from(c.service.0)].as_ref() else { return };
        let limits = &s.policy.limits;
        c.lags_since = c.lags_since.filter(|_| c.lags(limits));
        if (c.wait == Wait::Output || c.paused) && c.unread() < c.soft(limits) {
            self.ready.push_back(id);
        }
    }

    /// A client has sent all that it will. What blocks, or never ends, ends with it, as on a direct connection.
    pub(super) fn client_eof(&mut self, now: Now, id: ClientId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        c.eof = true;
        self.pump(now, id);
        self.abandon(id);
    }

    /// A client that is not read, for back-pressure, will send no more than it has. Its end may never be read: what it
    /// waits for may block for ever.
    pub(super) fn client_hung_up(&mut self, id: ClientId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        c.hung_up = true;
        self.abandon(id);
    }

    /// A client that sends no more may wait for what has no end of its own: what blocks, what it listens to, and the rest of
    /// a request. (A server would not even answer what was before that.)
    pub(super) fn abandon(&mut self, id: ClientId) {
        let Some(c) = self.clients.get(id).filter(|c| !c.closing) else { return };
        let all_routed = if c.eof { c.wait == Wait::No } else { c.waiting() == 0 };
        let half = c.eof && matches!(c.stream, Stream::Into(_));
        match c.place {
            Place::Pinned(up) if self.ups.get(up).is_some_and(|u| u.blocks()) => self.end_with(id, up),
            Place::Pinned(up) if all_routed && (half || c.session.relay) => self.end_with(id, up),
            Place::Pinned(_) if c.session.relay || c.owed > 0 && c.eof => {}
            // It may not have a connection just now, where it would listen again.
            _ if c.only_listens() => self.let_go(id),
            _ => {}
        }
    }

    /// A client says no more: its connection's server is told so behind all that it has said, and answers what it can, as on
    /// a direct connection. What was not sent yet because of what is in flight is not sent.
    fn end_with(&mut self, id: ClientId, up: UpId) {
        let Some(u) = self.ups.get_mut(up) else { return };
        if u.fenced.is_some() {
            return self.let_go(id);
        }
        u.ends = u.ends.or(Some(false));
        let Some(c) = self.clients.get_mut(id) else { return };
        c.deaf = true;
        (c.input, c.input_at) = (Vec::new(), 0);
        self.tell_end(up);
    }

    /// Tells the server of a connection that [ends](super::upstream::Up::ends), once all before it was written.
    pub(super) fn tell_end(&mut self, up: UpId) {
        let Some(u) = self.ups.get_mut(up) else { return };
        if u.ends == Some(false) && u.is_ready() && u.ledger.unsent().is_empty() {
            u.ends = Some(true);
            self.effects.push_back(Effect::Finish(up));
        }
    }

    /// A connection has ended with its client.
    pub(super) fn ended(&mut self, up: UpId) {
        let by = self.detach_up(up).and_then(|u| u.pinned_by);
        let Some((id, c)) = by.and_then(|id| Some((id, self.clients.get_mut(id)?))) else { return };
        c.owed = 0;
        self.say_no_more(id);
        if self.clients.get(id).is_some_and(|c| c.unwritten().is_empty()) {
            self.close_client(id, How::Gently);
        }
    }

    /// Gives a connection of its own back that nothing demands any longer.
    pub(super) fn give_back(&mut self, id: ClientId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        let Place::Pinned(up) = c.place else { return };
        let idle = c.owed == 0 && c.wait == Wait::No && c.redo.is_empty() && c.stream == Stream::No;
        if idle && !c.session.needs_pin() {
            c.place = Place::Free;
            let session = c.session.clone();
            self.unpin(up, &session);
        }
    }

    /// A client has no more to expect (it sends no more, and waits for what it cannot get): it is closed once it has read
    /// what it was given, and its connection at once.
    pub(super) fn let_go(&mut self, id: ClientId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        c.owed = 0;
        self.say_no_more(id);
        let Some(c) = self.clients.get_mut(id) else { return };
        if let Place::Pinned(up) = core::mem::take(&mut c.place) {
            self.close_up(up);
        }
        if self.clients.get(id).is_some_and(|c| c.unwritten().is_empty()) {
            self.close_client(id, How::Abort);
        }
    }

    /// A client is closed when it has read what it was given: nothing else that it asked matters any longer.
    pub(super) fn say_no_more(&mut self, id: ClientId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        c.closing = true;
        c.wait = Wait::No;
        c.restore = false;
        c.redo.clear();
        c.owed -= c.unproven().min(c.owed);
        c.withheld = None;
        self.leave_line(id);
    }

    /// A client waits for a gate no longer.
    pub(super) fn leave_line(&mut self, id: ClientId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        let (service, ticket) = (c.service, c.ticket.take());
        if let Some(ticket) = ticket {
            self.service(service).shards.iter_mut().for_each(|shard| shard.line.leave(ticket));
        }
    }

    /// Closes a client that the shell still holds.
    pub(super) fn close_client(&mut self, id: ClientId, how: How) {
        if self.remove_client(id) {
            self.effects.push_back(Effect::Close(Dst::Client(id), how));
        }
    }

    /// A client is gone: what it is owed is owed to nobody, what it alone used is closed.
    pub(super) fn forget_client(&mut self, _now: Now, id: ClientId) {
        self.remove_client(id);
    }

    fn remove_client(&mut self, id: ClientId) -> bool {
        self.leave_line(id);
        let Some(c) = self.clients.remove(id) else { return false };
        self.service(c.service).clients -= 1;
        match c.place {
            Place::Lane(up) if c.owed > 0 => {
                if let Some(u) = self.ups.get_mut(up) {
                    u.ledger.disown(id);
                }
            }
            Place::Pinned(up) if c.owed == 0 && !c.session.needs_pin() && c.stream == Stream::No => {
                self.unpin(up, &c.session);
            }
            Place::Pinned(up) => self.close_up(up),
            _ => {}
        }
        true
    }

    /// Closes who is idle, and who lags for long; reads on who stalls.
    pub(super) fn sweep_clients(&mut self, now: Now) {
        let (mut idle, mut slow, mut stalled) = (Vec::new(), Vec::new(), Vec::new());
        for (id, c) in &mut self.clients {
            let Some(s) = self.services[usize::from(c.service.0)].as_ref() else { continue };
            let quiet = c.owed == 0 && c.redo.is_empty() && c.waiting() == 0 && !c.only_listens();
            if s.policy.client_idle.is_some_and(|limit| quiet && now.since(c.active) >= limit) {
                idle.push(id);
            }
            if (c.paused || c.wait == Wait::Output) && c.unread() >= c.soft(&s.policy.limits) {
                let before = core::mem::replace(&mut c.stalled, Stalled::Perhaps);
                if before != Stalled::No {
                    c.stalled = Stalled::Yes;
                    stalled.push(id);
                }
            }
            if c.lags(&s.policy.limits) {
                let since = *c.lags_since.get_or_insert(now);
                if now.since(since) >= s.policy.limits.subscriber_output_time {
                    slow.push(id);
                }
            }
        }
        self.ready.extend(stalled);
        for id in idle {
            self.close_client(id, How::Gently);
        }
        for id in slow {
            self.overrun(id, OutputLimit::SubscriberForLong, 0);
        }
    }
}
