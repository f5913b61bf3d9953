//! What passes through a pinned connection as it comes: requests that are larger than what is kept, and all that is said by
//! a session whose replies are not counted.
use super::client::{Client, Place, Stream, Wait};
use super::intake::Routed;
use super::{ClientId, UpId, Worker};
use crate::Now;
use crate::command::{Access, Act, Entry};
use crate::ledger::{Apply, Owner, Slot};
use crate::resp::frame::Request;
use crate::resp::reply;
use crate::resp::scan::{Malformed, RequestScan, RequestStep};
use crate::route::{self, Route};
use crate::rules::Ruled;
use crate::session::Tx;
use alloc::borrow::Cow;

impl Client {
    /// Whether what it sends next belongs to a request that has begun to stream.
    pub(super) fn streams(&self) -> bool {
        self.stream != Stream::No
    }
}

impl Worker {
    /// Passes on what comes next of a client that [streams](Client::streams); returns how many of the bytes are done
    /// with: none if they cannot be now.
    pub(super) fn stream(&mut self, id: ClientId, bytes: &[u8]) -> usize {
        let Some(c) = self.clients.get(id) else { return bytes.len() };
        let service = c.service;
        let Stream::Into(up) = c.stream else { return self.stream_on(id, bytes) };
        let Some(room) = self.room_to_pass(id, up) else {
            self.wait(id, Wait::Room);
            return 0;
        };
        let used = self.stream_on(id, &bytes[..bytes.len().min(room)]);
        if used > 0 {
            return used;
        }
        // The beginning of a header is passed on when its end has come: for that there is always room.
        let header = self.service_ref(service).policy.limits.inline_max + 2;
        self.stream_on(id, &bytes[..bytes.len().min(room.saturating_add(header))])
    }

    /// A request is not complete: if it is too large to wait for, it begins to stream. Returns how many of the bytes are
    /// done with; `None`: it waits.
    pub(super) fn stream_large(&mut self, now: Now, id: ClientId, bytes: &[u8]) -> Option<usize> {
        let c = self.clients.get(id)?;
        let limits = &self.service_ref(c.service).policy.limits;
        // Before its client is no longer read it must go on.
        let from = limits.stream_from.min(limits.client_input_max.saturating_sub(1));
        let least = c.scan.len_min();
        if least.max(bytes.len()) <= from {
            return None;
        }
        match self.stream_begin(now, id, bytes) {
            // `stream` goes on with the rest.
            Some(Ok(used)) => Some(used),
            Some(Err(wait)) => {
                self.wait(id, wait);
                None
            }
            // There is no command of such a name.
            None if least > from => {
                self.protocol_error(id, Malformed::BulkLength);
                Some(bytes.len())
            }
            None => None,
        }
    }

    /// A request that is larger than what is kept begins to stream over a pinned connection. Returns how many of
    /// its bytes are done with, or for what it waits; `None`: its name has not arrived yet.
    fn stream_begin(&mut self, now: Now, id: ClientId, bytes: &[u8]) -> Option<Result<usize, Wait>> {
        let req = Request::new(bytes);
        let mut args = req.args();
        args.next()?;
        let entry = route::entry(req);
        if entry.is_some_and(|e| e.container) {
            // Which subcommand it is has not arrived yet.
            args.next()?;
        }
        if self.clients.get(id)?.owed > 0 {
            return Some(Err(Wait::Owed));
        }
        if self.clients.get(id)?.session.relay {
            return Some(self.relay_begin(id, entry, req));
        }
        let (sent, entry) = match self.as_sent(now, id, entry, req, None) {
            Ok(sent) => sent,
            // It has its answer: what is still to come of the request is thrown away.
            Err(Routed::Taken) => return Some(Ok(self.discard(id, bytes.len(), b""))),
            Err(Routed::Blocked(wait)) => return Some(Err(wait)),
        };
        let c = self.clients.get(id)?;
        let s = self.service_ref(c.service);
        if s.policy.users.is_some() && s.must_authenticate(c, &self.ups) {
            return Some(Ok(self.discard(id, bytes.len(), reply::NOAUTH)));
        }
        let c = self.clients.get(id)?;
        // What changes the session, or needs its arguments to be routed, is never so large.
        if let Some(e) = entry
            && (e.refused || !streams(e.act, &c.session.tx))
        {
            self.protocol_error(id, Malformed::BulkLength);
            return Some(Ok(bytes.len()));
        }
        let c = self.clients.get(id)?;
        if c.unread() >= c.soft(&self.service_ref(c.service).policy.limits) {
            return Some(Err(Wait::Output));
        }
        if c.session.tx == Tx::Lost {
            return Some(Ok(self.discard(id, bytes.len(), reply::QUEUED)));
        }
        // Where a refusal was said, what is still to come of the request is thrown away.
        match self.gate(now, id, entry, None) {
            None => {}
            Some(Routed::Taken) => return Some(Ok(self.discard(id, bytes.len(), b""))),
            Some(Routed::Blocked(wait)) => return Some(Err(wait)),
        }
        let apply = match entry.map(|e| e.act) {
            Some(Act::Watch) => Apply::Watch,
            Some(Act::Bind) => Apply::Bind,
            Some(_) => Apply::None,
            None => Apply::Unknown,
        };
        let replies = match entry.map(|e| e.act) {
            Some(Act::Subscribe(_) | Act::Unsubscribe(_)) => req.announced().saturating_sub(1).max(1),
            _ => 1,
        };
        let pin = Route::Pin { apply: apply.clone(), replies };
        let up = match self.connection_for(now, id, entry, &pin) {
            Ok(up) => up,
            Err(Routed::Taken) => return Some(Ok(self.discard(id, bytes.len(), b""))),
            Err(Routed::Blocked(wait)) => return Some(Err(wait)),
        };
        let Some(room) = self.room_to_pass(id, up) else { return Some(Err(Wait::Room)) };
        if room < req.name_end() {
            self.starve(id, up);
            return Some(Err(Wait::Room));
        }
        let (c, u) = (self.clients.get_mut(id)?, self.ups.get_mut(up)?);
        let bytes = &bytes[..c.scan.passed(bytes.len()).min(room)];
        c.scan.forwarded(bytes.len());
        // Its name may have been changed.
        let name = &sent[..Request::new(&sent).name_end()];
        c.stream = Stream::Into(up);
        c.owed += 1;
        c.asked += 1;
        c.newest = c.asked;
        let slot = Slot::new(Owner::Client(id), entry, apply);
        let slot = Slot { streams: true, seq: c.asked, replies, ..slot };
        u.ledger.push(name, slot);
        u.ledger.push_more(&bytes[req.name_end()..], false);
        let service = c.service;
        self.service(service).count(entry.map_or(Access::Write, |e| e.access));
        self.mark_up(up);
        Some(Ok(bytes.len()))
    }

    /// Throws away a request of which `len` bytes are there, and what is still to come of it; then answers. Returns how
    /// many bytes are done with.
    fn discard(&mut self, id: ClientId, len: usize, answer: &[u8]) -> usize {
        let Some(c) = self.clients.get_mut(id) else { return len };
        let passed = c.scan.passed(len);
        c.scan.forwarded(passed);
        c.stream = Stream::Discard(answer.into());
        passed
    }

    /// More of a request that streams; returns how many of the bytes are its.
    fn stream_on(&mut self, id: ClientId, bytes: &[u8]) -> usize {
        let Some(c) = self.clients.get_mut(id) else { return bytes.len() };
        let s =
            self.services[usize::from(c.service.0)].as_ref().expect("a service is kept while it has clients");
        let must_authenticate = s.must_authenticate(c, &self.ups);
        let relay = c.session.relay;
        let (len, last) = match c.scan.next(bytes, &s.policy.limits, must_authenticate) {
            Ok(RequestStep::Array { len }) => (len, true),
            Ok(_) => (c.scan.passed(bytes.len()), false),
            Err(malformed) => {
                self.protocol_error(id, malformed);
                return bytes.len();
            }
        };
        if !last {
            c.scan.forwarded(len);
        }
        match &mut c.stream {
            Stream::Into(up) => {
                let up = *up;
                if last {
                    c.stream = Stream::No;
                }
                if let Some(u) = self.ups.get_mut(up) {
                    u.ledger.push_more(&bytes[..len], last && !relay);
                    self.mark_up(up);
                }
            }
            Stream::Discard(answer) => {
                if last {
                    let answer = core::mem::take(answer);
                    c.stream = Stream::No;
                    self.deliver(id, &answer);
                }
            }
            Stream::No => {}
        }
        len
    }

    /// How many bytes of what only passes through a connection's ring takes now; `None`: it is full.
    fn room_to_pass(&mut self, id: ClientId, up: UpId) -> Option<usize> {
        let Some(u) = self.ups.get(up) else { return Some(usize::MAX) };
        let most = self.service_ref(u.service).policy.limits.ring_max;
        let len = u.ledger.len();
        if len < most {
            return Some(most - len);
        }
        self.starve(id, up);
        None
    }

    /// A request of a session whose replies are not counted. What is refused ends it: nobody could tell which of the
    /// replies is the refusal.
    pub(super) fn relay(&mut self, id: ClientId, entry: Option<&'static Entry>, req: Request<'_>) -> Routed {
        let Some(Place::Pinned(up)) = self.clients.get(id).map(|c| c.place) else { return Routed::Taken };
        if let Err(routed) = self.room(id, up) {
            return routed;
        }
        if let Some(sent) = self.may_relay(id, entry, req) {
            self.pass(up, &sent);
        }
        Routed::Taken
    }

    /// As much as there is of a request of such a session that is larger than what is kept.
    fn relay_begin(
        &mut self,
        id: ClientId,
        entry: Option<&'static Entry>,
        req: Request<'_>,
    ) -> Result<usize, Wait> {
        let len = req.bytes().len();
        let Some(Place::Pinned(up)) = self.clients.get(id).map(|c| c.place) else { return Ok(len) };
        if self.room_to_pass(id, up).is_none() {
            return Err(Wait::Room);
        }
        let Some(sent) = self.may_relay(id, entry, req) else { return Ok(len) };
        let Some(c) = self.clients.get_mut(id) else { return Ok(len) };
        let used = c.scan.passed(len);
        c.scan.forwarded(used);
        c.stream = Stream::Into(up);
        self.pass(up, &sent[..sent.len() - (len - used)]);
        Ok(used)
    }

    /// What does not even begin as a request: the server says so.
    pub(super) fn relay_malformed(&mut self, id: ClientId, bytes: &[u8]) {
        let Some(c) = self.clients.get_mut(id) else { return };
        c.scan = RequestScan::default();
        if let Place::Pinned(up) = c.place {
            self.pass(up, bytes);
        }
    }

    /// The bytes that are sent for a request; `None`: it is refused, and its client closed.
    fn may_relay<'r>(
        &mut self,
        id: ClientId,
        entry: Option<&'static Entry>,
        req: Request<'r>,
    ) -> Option<Cow<'r, [u8]>> {
        let policy = &self.service_ref(self.clients.get(id)?.service).policy;
        let ruled = policy.rules.as_ref().map_or(Ruled::AsItIs, |rules| rules.ask(req, &policy.name));
        let sent = match ruled {
            Ruled::By(own) => Ok(Cow::Owned(req.renamed(&own))),
            Ruled::AsItIs => Ok(Cow::Borrowed(req.bytes())),
            Ruled::Refused(text) => Err(text),
        };
        let refused = sent.and_then(|sent| {
            let entry = if matches!(sent, Cow::Owned(_)) { route::entry(Request::new(&sent)) } else { entry };
            let named = || entry.filter(|e| route::names_a_session(e, Request::new(&sent)));
            let user = entry.filter(|e| policy.changes_user(e, Request::new(&sent)));
            let uncounted = || user.or_else(named).map(|e| reply::uncounted(e.name).into());
            entry.and_then(|e| route::refusal(e, policy)).or_else(uncounted).map_or(Ok(sent), Err)
        });
        match refused {
            Ok(sent) => Some(sent),
            Err(text) => {
                self.refuse(id, &text);
                self.let_go(id);
                None
            }
        }
    }

    fn pass(&mut self, up: UpId, bytes: &[u8]) {
        if let Some(u) = self.ups.get_mut(up) {
            u.ledger.push_more(bytes, false);
            self.mark_up(up);
        }
    }
}

/// Whether a command that does so may be larger than what is kept.
fn streams(act: Act, tx: &Tx) -> bool {
    match act {
        Act::None | Act::Script | Act::Block | Act::BlockIfAsked | Act::Own | Act::Watch | Act::Bind => true,
        // In a transaction their confirmations are not counted.
        Act::Subscribe(_) | Act::Unsubscribe(_) => !matches!(tx, Tx::Open(_)),
        _ => false,
    }
}
