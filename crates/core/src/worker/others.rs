//! What a session says of other sessions: `CLIENT UNBLOCK`, `CLIENT KILL`, `CLIENT TRACKING … REDIRECT`. They are named by
//! their own ids, and may be any worker's: all workers are asked, each looks among its own, and what they find is added up.
//!
//! ```text
//!   a command ─▶ inquire ─▶ Effect::Ask ─▶ the others' Worker::asked ─▶ Effect::Found ─▶ Worker::told ─▶ the command again
//! ```
//! The command waits, and with it all that its session says behind it, for [`ASK_MAX`] and up to the next look at what is due;
//! who has not answered by then has found nothing. A worker that has just handed clients to another one has that one asked again, behind
//! them: it may have been asked before they came. A connection that others were told of is never another session's.
use super::client::{Place, Wait};
use super::intake::{Again, Routed, SHARD};
use super::{ClientId, Effect, How, UpId, Worker};
use crate::Now;
use crate::command::Entry;
use crate::hold::{Redo, Then};
use crate::kill::{self, Kill, Seen};
use crate::ledger::Apply;
use crate::resp::frame::Request;
use crate::resp::{Proto, reply};
use crate::route::{About, Route};
use crate::session::Session;
use crate::topology::snapshot::{ServiceId, Term};
use crate::tracking::{FLUSH_RESP2, FLUSH_RESP3};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// So long the others are waited for.
const ASK_MAX: Duration = Duration::from_secs(1);

/// No session's connection has this id: servers count them from 1.
const NO_CONNECTION: u64 = i64::MAX as u64;

/// Who waits for the answers: a client of the worker that asks, and which of its questions it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Whose {
    client: ClientId,
    number: u64,
}

/// What one worker asks all of its process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inquiry {
    whose: Whose,
    service: ServiceId,
    /// Connections of another term are none.
    term: Term,
    asks: Asks,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Asks {
    /// The server's id of the connection on which this session is blocked.
    Blocked(u64),
    /// The server's id of this session's own connection; it gets one if it has none. It must be this user's: a connection
    /// is dear.
    Connection { session: u64, user: Who },
    /// Kill these, but not the session `by`, and say how many they were.
    Kill { kill: Arc<Kill>, by: u64 },
    /// This session has another connection now, with this id: who has the server tell it things is to say so again.
    Moved { session: u64, connection: u64 },
    /// What was to be told to this session may have been lost.
    Flush(u64),
}

/// A user: to the server, and the service's own.
type Who = (Box<[u8]>, Option<Box<str>>);

/// What one worker has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    whose: Whose,
    /// An id, or how many; 0: nothing.
    found: u64,
    /// It is no answer: there will be one more than was known.
    more: bool,
}

impl Inquiry {
    /// The answer of a worker that is not there any longer.
    pub fn in_vain(&self) -> Finding {
        Finding { whose: self.whose, found: 0, more: false }
    }

    /// What a worker says before it has another one asked once more.
    pub fn passed_on(&self) -> Finding {
        Finding { more: true, ..self.in_vain() }
    }
}

/// What a client waits for.
#[derive(Debug)]
pub(super) struct Pending {
    number: u64,
    term: Term,
    asks: Asks,
    /// So many have not answered.
    left: u64,
    found: u64,
    at: Now,
}

/// An answer that waits until its session has a connection.
#[derive(Debug)]
pub(super) struct Promise {
    from: Option<usize>,
    whose: Whose,
    term: Term,
    client: ClientId,
    at: Now,
}

impl Worker {
    /// Routes a command that speaks of another session, or as if its own had a connection.
    pub(super) fn about(
        &mut self,
        now: Now,
        id: ClientId,
        entry: Option<&'static Entry>,
        req: Request<'_>,
        about: About,
        again: Option<Again>,
    ) -> Routed {
        let c = &self.clients[id];
        if c.owed > 0 {
            return Routed::Blocked(Wait::Owed);
        }
        let own: Box<[u8]> = req.bytes().into();
        let (bytes, route) = match about {
            About::Itself => {
                let mut bytes = Vec::new();
                reply::request(&mut bytes, &[&b"CLIENT"[..], b"INFO"]);
                (bytes, Route::Shared(Apply::Listed(own)))
            }
            About::Kill => (kill::harmless(req), Route::Shared(Apply::MayKill(own))),
            About::Unblock(session) => match self.inquire(now, id, Asks::Blocked(session)) {
                None => return Routed::Blocked(Wait::Others),
                Some(found) => (req.with_number(2, found), Route::Shared(Apply::Unblock(own))),
            },
            About::Redirect(at, session) => match self.connection_of(now, id, session) {
                None => return Routed::Blocked(Wait::Others),
                Some(found) => {
                    let to = if found == 0 { NO_CONNECTION } else { found };
                    (req.with_number(at, to), Route::Pin { apply: Apply::Tracking(own), replies: 1 })
                }
            },
        };
        let up = match self.connection_for(now, id, entry, &route) {
            Ok(up) => up,
            Err(routed) => return routed,
        };
        self.enqueue(now, id, up, entry, route, Request::new(&bytes), again);
        if about == About::Kill
            && let Some(c) = self.clients.get_mut(id)
        {
            // Nothing that the session says behind it is routed before it is done.
            let seq = c.newest;
            if c.redo.front().is_none_or(|r| r.seq != seq) {
                let kill = Arc::new(Kill::of(req));
                c.redo.push_front(Redo { seq, then: Then::Kill { kill, allowed: false } });
            }
        }
        Routed::Taken
    }

    /// The server has said that a client may kill.
    pub(super) fn may_kill(&mut self, id: ClientId) {
        if let Some(c) = self.clients.get_mut(id)
            && let Some(Redo { then: Then::Kill { allowed, .. }, .. }) = c.redo.front_mut()
        {
            *allowed = true;
        }
    }

    /// Kills, and says how many; for what the client waits if that is not known yet.
    pub(super) fn kill(&mut self, now: Now, id: ClientId, kill: &Arc<Kill>) -> Wait {
        let Some(c) = self.clients.get(id) else { return Wait::No };
        if let Some(word) = &kill.unknown {
            self.deliver(id, &reply::unknown_filter(word));
            return Wait::No;
        }
        let own = !kill.skips_me && kill.means(&seen(now, c));
        let by = c.session.id;
        let Some(others) = self.inquire(now, id, Asks::Kill { kill: kill.clone(), by }) else {
            return Wait::Others;
        };
        let killed = others + u64::from(own);
        let mut text = Vec::new();
        match kill.old_form {
            true if killed > 0 => text.extend_from_slice(reply::OK),
            true => text.extend_from_slice(reply::NO_SUCH_CLIENT),
            false => reply::integer(&mut text, killed),
        }
        self.deliver(id, &text);
        if own {
            let service = self.clients[id].service;
            self.service(service).counters.clients_killed += 1;
            self.say_no_more(id);
        }
        Wait::No
    }

    /// The server's id of the connection of another session; 0: it has none.
    fn connection_of(&mut self, now: Now, id: ClientId, session: u64) -> Option<u64> {
        let user = who(&self.clients.get(id)?.session);
        self.inquire(now, id, Asks::Connection { session, user })
    }

    /// What all workers find; `None`: they have not all said so yet, and the client is looked at again when they have.
    fn inquire(&mut self, now: Now, id: ClientId, asks: Asks) -> Option<u64> {
        let service = self.clients.get(id)?.service;
        let s = self.service_ref(service);
        let term = s.shards[usize::from(SHARD.0)].view.term;
        // Who has not authenticated where that is demanded is told so, whatever it says.
        if s.must_authenticate(self.clients.get(id)?, &self.ups) {
            return Some(0);
        }
        // Connections belong to a term.
        let same = |p: &Pending| p.asks == asks && (p.term == term || matches!(asks, Asks::Kill { .. }));
        if !self.inquiries.get(&id).is_some_and(same) {
            self.next_inquiry += 1;
            let (whose, others) = (Whose { client: id, number: self.next_inquiry }, self.session_step - 1);
            let inquiry = Inquiry { whose, service, term, asks: asks.clone() };
            let pending = Pending { number: whose.number, term, asks, left: others + 1, found: 0, at: now };
            self.inquiries.insert(id, pending);
            if others > 0 {
                self.effects.push_back(Effect::Ask(inquiry.clone()));
            }
            self.look_for(now, None, inquiry);
        }
        self.inquiries.get(&id).filter(|p| p.left == 0)?;
        self.inquiries.remove(&id).map(|p| p.found)
    }

    /// Another worker of the process asks; `from` is the shell's name for it.
    pub fn asked(&mut self, now: Now, from: usize, inquiry: Inquiry) {
        self.look_for(now, Some(from), inquiry);
        self.run_ready(now);
    }

    /// Another worker has answered.
    pub fn told(&mut self, now: Now, finding: Finding) {
        self.add_up(finding);
        self.run_ready(now);
    }

    fn add_up(&mut self, finding: Finding) {
        let Whose { client, number } = finding.whose;
        let open = |p: &&mut Pending| p.number == number && p.left > 0;
        let Some(p) = self.inquiries.get_mut(&client).filter(open) else { return };
        if finding.more {
            p.left += 1;
            return;
        }
        p.left -= 1;
        p.found = match p.asks {
            Asks::Kill { .. } => p.found + finding.found,
            // It is one session's, however often somebody was asked.
            _ => p.found.max(finding.found),
        };
        // Who asks just now sees it at once.
        let waits = self.clients.get(client).is_some_and(|c| c.wait == Wait::Others);
        if p.left == 0 && waits {
            self.ready.push_back(client);
        }
    }

    fn found(&mut self, from: Option<usize>, whose: Whose, found: u64) {
        let finding = Finding { whose, found, more: false };
        match from {
            Some(to) => self.effects.push_back(Effect::Found { to, finding }),
            None => self.add_up(finding),
        }
    }

    /// Looks among this worker's own sessions; `from`: for whom, if it is another worker.
    fn look_for(&mut self, now: Now, from: Option<usize>, inquiry: Inquiry) {
        let whose = inquiry.whose;
        if self.services.get(usize::from(inquiry.service.0)).is_none_or(Option::is_none) {
            // It was not told of this service yet.
            return self.found(from, whose, 0);
        }
        let found = match &inquiry.asks {
            Asks::Blocked(session) => self.blocked_on(&inquiry, *session),
            Asks::Kill { kill, by } => self.kill_own(now, inquiry.service, kill, *by),
            Asks::Connection { session, user } => {
                let named = self.session_of(inquiry.service, *session);
                return match named.filter(|c| self.is_user(*c, user)) {
                    Some(client) => self.promise(now, from, &inquiry, client),
                    None => self.found(from, whose, 0),
                };
            }
            Asks::Moved { session, connection } => {
                return self.say_again(now, inquiry.service, *session, *connection);
            }
            Asks::Flush(session) => {
                return self.session_of(inquiry.service, *session).map_or((), |client| self.flush(client));
            }
        };
        self.found(from, whose, found);
    }

    fn session_of(&self, service: ServiceId, session: u64) -> Option<ClientId> {
        let mut all = self.clients.iter();
        let is = |c: &super::Client| c.service == service && c.session.id == session && !c.closing && !c.deaf;
        all.find(|(_, c)| is(c)).map(|(id, _)| id)
    }

    fn is_user(&self, client: ClientId, user: &Who) -> bool {
        let c = &self.clients[client];
        who(&c.session) == *user && !self.service_ref(c.service).must_authenticate(c, &self.ups)
    }

    /// The server's id of the connection on which a session is blocked. Only pinned ones are looked at: there are not many.
    fn blocked_on(&mut self, inquiry: &Inquiry, session: u64) -> u64 {
        let clients = &self.clients;
        let is = |by: ClientId| clients.get(by).is_some_and(|c| c.session.id == session);
        let up = self.ups.values_mut().find(|u| {
            let there = (u.service, u.term) == (inquiry.service, inquiry.term) && u.fenced.is_none();
            there && u.pinned_by.is_some_and(is) && u.blocks()
        });
        up.and_then(|u| u.told_of()).unwrap_or(0)
    }

    fn kill_own(&mut self, now: Now, service: ServiceId, kill: &Kill, by: u64) -> u64 {
        let means = |c: &super::Client| {
            c.service == service && c.session.id != by && !c.closing && kill.means(&seen(now, c))
        };
        let ids: Vec<ClientId> = self.clients.iter().filter(|(_, c)| means(c)).map(|(id, _)| id).collect();
        for id in &ids {
            self.close_client(*id, How::Gently);
        }
        self.service(service).counters.clients_killed += ids.len() as u64;
        ids.len() as u64
    }

    /// A session's connection is to be told of. From now on it keeps it; if it has none, it gets one.
    fn promise(&mut self, now: Now, from: Option<usize>, inquiry: &Inquiry, client: ClientId) {
        let c = &mut self.clients[client];
        c.session.told = true;
        if !matches!(c.place, Place::Pinned(_)) {
            c.restore = true;
            self.ready.push_back(client);
        }
        self.promises.push(Promise { from, whose: inquiry.whose, term: inquiry.term, client, at: now });
        self.keep_promises();
    }

    /// Answers what can be answered of those questions that waited for a session's connection.
    pub(super) fn keep_promises(&mut self) {
        if self.promises.is_empty() {
            return;
        }
        for p in core::mem::take(&mut self.promises) {
            let Some(c) = self.clients.get(p.client) else {
                self.found(p.from, p.whose, 0);
                continue;
            };
            let up = match c.place {
                Place::Pinned(up) => self.ups.get_mut(up).filter(|u| u.is_restored() && u.term >= p.term),
                _ => None,
            };
            match up {
                Some(u) => {
                    let same = u.term == p.term;
                    let found = u.told_of().filter(|_| same).unwrap_or(0);
                    self.found(p.from, p.whose, found);
                }
                None => self.promises.push(p),
            }
        }
    }

    /// Gives up what is not answered in time.
    pub(super) fn sweep_inquiries(&mut self, now: Now) {
        self.promises.retain(|p| now.since(p.at) < 2 * ASK_MAX);
        self.inquiries.retain(|client, _| self.clients.contains_key(*client));
        let late = |p: &Pending| p.left > 0 && now.since(p.at) >= ASK_MAX;
        for (client, p) in self.inquiries.iter_mut().filter(|(_, p)| late(p)) {
            p.left = 0;
            self.ready.push_back(*client);
        }
    }

    /// A client that keeps copies of what it read may have missed that something changed.
    pub(super) fn flush(&mut self, id: ClientId) {
        let Some(s) = self.clients.get(id).map(|c| &c.session) else { return };
        let itself = s.tracking.as_ref().is_some_and(|t| t.redirect == 0);
        match s.proto {
            Proto::Resp3 if itself || s.told => self.deliver(id, FLUSH_RESP3),
            Proto::Resp2 if s.told && s.subs.is_some() => self.deliver(id, FLUSH_RESP2),
            _ => {}
        }
    }

    /// The requests that switch a session's tracking on again. `None`: it is not known yet who is to be told. An error:
    /// nobody is.
    pub(super) fn tracking_again(&mut self, now: Now, id: ClientId) -> Option<Result<Vec<Vec<u8>>, ()>> {
        let Some(c) = self.clients.get(id) else { return Some(Err(())) };
        let Some(t) = &c.session.tracking else { return Some(Ok(Vec::new())) };
        let to = match t.redirect {
            0 => 0,
            // Nobody but itself could say to which connection, and it has none.
            session if session == c.session.id => return Some(Err(())),
            session => self.connection_of(now, id, session)?,
        };
        let Some(t) = self.clients.get_mut(id).and_then(|c| c.session.tracking.as_mut()) else {
            return Some(Err(()));
        };
        t.connection = to;
        let told = t.redirect == 0 || to > 0;
        Some(told.then(|| t.requests(to).collect()).ok_or(()))
    }

    /// A session's tracking is on again. What has changed meanwhile nobody was told.
    pub(super) fn tracks_again(&mut self, now: Now, id: ClientId) {
        let Some(c) = self.clients.get(id) else { return };
        match c.session.tracking.as_ref().map_or(0, |t| t.redirect) {
            0 => self.flush(id),
            session => self.tell_all(now, c.service, Asks::Flush(session)),
        }
    }

    /// A pinned connection is set up: what was asked about its session is answered, and who had the server tell the session
    /// things on another one says so again.
    pub(super) fn has_connection(&mut self, now: Now, up: UpId) {
        self.keep_promises();
        let Some(u) = self.ups.get_mut(up) else { return };
        let Some(c) = u.pinned_by.and_then(|c| self.clients.get(c)).filter(|c| c.session.told) else {
            return;
        };
        if let Some(connection) = u.told_of() {
            self.tell_all(now, c.service, Asks::Moved { session: c.session.id, connection });
        }
    }

    /// What all workers are to do, and nobody waits for.
    fn tell_all(&mut self, now: Now, service: ServiceId, asks: Asks) {
        let term = self.service_ref(service).shards[usize::from(SHARD.0)].view.term;
        let inquiry = Inquiry { whose: Whose::default(), service, term, asks };
        if self.session_step > 1 {
            self.effects.push_back(Effect::Ask(inquiry.clone()));
        }
        self.look_for(now, None, inquiry);
    }

    /// Sessions that have the server tell `session` things say so again: they give up the connection on which the server
    /// would tell another one.
    fn say_again(&mut self, now: Now, service: ServiceId, session: u64, connection: u64) {
        let old = |c: &super::Client| {
            let t = c.session.tracking.as_ref();
            c.service == service && t.is_some_and(|t| t.redirect == session && t.connection != connection)
        };
        let all = self.clients.values().filter(|c| old(c));
        let ups: Vec<UpId> = all
            .filter_map(|c| match c.place {
                Place::Pinned(up) => Some(up),
                _ => None,
            })
            .collect();
        for up in ups {
            self.lose_up(now, up, None);
        }
    }
}

fn who(s: &Session) -> Who {
    (s.user().into(), s.user.as_ref().map(|user| user.name.clone()))
}

fn seen(now: Now, c: &super::Client) -> Seen<'_> {
    let age = now.since(c.session.since).as_secs();
    Seen { session: &c.session, age, idle: now.since(c.active).as_secs() }
}
