//! What a command is to the server, where its name alone does not say it: the service's rules call it otherwise, or the table
//! does not have it. Of such a command the master is asked what it is, on a connection that nobody's data commands
//! use, and whoever said one waits for the answer before it is sent. Nobody else does.
//!
//! Waiting ends when the answer is here, when its connection is gone (then the server is asked again), or after a moment
//! ([`ASK_MAX`]): what is still not known then goes the safest way.
use super::client::Wait;
use super::intake::{Again, Routed, SHARD};
use super::{Class, ClientId, LaneKey, UpId, Worker};
use crate::Now;
use crate::command::Entry;
use crate::hold::Pass;
use crate::learned::{Answer, name_of};
use crate::ledger::{Apply, Owner, Slot};
use crate::resp::frame::Request;
use crate::resp::{Proto, reply};
use crate::route;
use crate::rules::Ruled;
use crate::session::Tx;
use crate::topology::snapshot::ServiceId;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

/// So long an answer is waited for, and up to the next look at what is due.
const ASK_MAX: Duration = Duration::from_secs(1);
/// Most names of one service that are asked about at once.
const QUESTIONS_MAX: usize = 64;

/// What a server is asked.
#[derive(Debug)]
pub(super) struct Question {
    name: Box<[u8]>,
    at: Now,
    /// On this connection.
    pub(super) up: UpId,
    /// Those who wait for the answer.
    pub(super) by: Vec<ClientId>,
}

impl Worker {
    /// A request in the server's words, and its entry if anybody knows what it is. An error says what became of it
    /// already. What was asked before is in the server's words, and is not refused any more.
    pub(super) fn as_sent<'r>(
        &mut self,
        now: Now,
        id: ClientId,
        entry: Option<&'static Entry>,
        req: Request<'r>,
        again: Option<Again>,
    ) -> Result<(Cow<'r, [u8]>, Option<&'static Entry>), Routed> {
        let c = &self.clients[id];
        let (service, owed) = (c.service, c.owed);
        let policy = &self.service_ref(service).policy;
        if policy.rules.is_none() && entry.is_some() {
            return Ok((Cow::Borrowed(req.bytes()), entry));
        }
        let policy = policy.clone();
        let rules = policy.rules.as_deref();
        let asked = rules.filter(|_| again.is_none());
        let refuse = |w: &mut Worker, text: &[u8]| match owed {
            0 => Err(w.refuse(id, text)),
            _ => Err(Routed::Blocked(Wait::Owed)),
        };
        let sent = match asked.map_or(Ruled::AsItIs, |rules| rules.ask(req, &policy.name)) {
            Ruled::AsItIs => Cow::Borrowed(req.bytes()),
            Ruled::By(own) => Cow::Owned(req.renamed(&own)),
            Ruled::Refused(text) => return refuse(self, &text),
        };
        let req = Request::new(&sent);
        let known = route::entry(req).or_else(|| rules?.entry_of_sent(req));
        let entry = match known {
            Some(entry) => Some(entry),
            None => self.look_up(now, id, req, again)?,
        };
        // It may have been renamed on the server.
        if let (Some(rules), Some(entry)) = (asked, entry)
            && rules.deny(entry)
        {
            return refuse(self, &reply::denied(entry.name, &policy.name));
        }
        Ok((sent, entry))
    }

    /// What a command is that the table does not have; `None`: it may be anything. An error says for what the client
    /// waits, or that it has its answer already.
    pub(super) fn look_up(
        &mut self,
        now: Now,
        id: ClientId,
        req: Request<'_>,
        again: Option<Again>,
    ) -> Result<Option<&'static Entry>, Routed> {
        let (Some(c), Some(name)) = (self.clients.get(id), name_of(req)) else { return Ok(None) };
        let s = self.service_ref(c.service);
        // Who has not authenticated where that is demanded is told so, whatever it says.
        if s.must_authenticate(c, &self.ups) || c.session.tx == Tx::Lost {
            return Ok(None);
        }
        match s.learned.get(now, &name, req.args().nth(1)) {
            Answer::Is(entry) => Ok(Some(entry)),
            Answer::Unknown => Ok(None),
            Answer::NotAsked => match self.gate(now, id, None, again) {
                Some(routed) => Err(routed),
                None => self.ask_about(now, id, name),
            },
        }
    }

    fn ask_about(
        &mut self,
        now: Now,
        id: ClientId,
        name: Box<[u8]>,
    ) -> Result<Option<&'static Entry>, Routed> {
        let c = &self.clients[id];
        let (service, turn, ident) = (c.service, c.session.id, c.session.ident.clone());
        let key = LaneKey { class: Class::Probe, ident: c.session.ident_id(), proto: Proto::Resp2, db: 0 };
        let questions = &mut self.service(service).questions;
        if let Some(asked) = questions.iter_mut().find(|q| q.name == name) {
            if !asked.by.contains(&id) {
                asked.by.push(id);
            }
            return Err(Routed::Blocked(Wait::Learn));
        }
        if questions.len() >= QUESTIONS_MAX {
            return Ok(None);
        }
        let Some(up) = self.lane(now, (service, SHARD), key, ident.as_ref(), turn) else {
            if self.lanes_are_full((service, SHARD)) {
                return Ok(None);
            }
            // A connection was tried in vain a moment ago.
            self.line_up(id);
            return Err(Routed::Blocked(Wait::Gate));
        };
        let mut bytes = Vec::new();
        reply::request(&mut bytes, &[&b"COMMAND"[..], b"INFO", &name]);
        self.ups[up].ledger.push(&bytes, Slot::new(Owner::Nobody, None, Apply::Learn));
        self.mark_up(up);
        self.service(service).questions.push(Question { name, at: now, up, by: [id].into() });
        Err(Routed::Blocked(Wait::Learn))
    }

    /// The answer to the first question of a connection.
    pub(super) fn learn(&mut self, now: Now, id: UpId, frame: &[u8]) {
        let Some(up) = self.ups.get(id) else { return };
        let service = up.service;
        let Some(name) = Request::new(up.ledger.front_bytes()).args().nth(2) else { return };
        let s = self.services[usize::from(service.0)].as_mut().expect("a service is kept");
        s.learned.learn(now, name, frame);
        let name: Box<[u8]> = name.into();
        self.answered(service, |q| q.name == name);
    }

    /// The server does not let the connection be used on which it is asked.
    pub(super) fn cannot_learn(&mut self, now: Now, id: UpId) {
        let Some(up) = self.ups.get(id) else { return };
        let service = up.service;
        let s = self.service(service);
        for q in s.questions.iter().filter(|q| q.up == id) {
            s.learned.give_up(now, &q.name);
        }
        self.answered(service, |q| q.up == id);
    }

    /// A question was taken back, or its connection is gone: who waits for the answer asks again.
    pub(super) fn look_up_again(&mut self, id: UpId) {
        let Some(up) = self.ups.get(id).filter(|up| up.key.class == Class::Probe) else { return };
        self.answered(up.service, |q| q.up == id);
    }

    /// Gives up questions that are not answered in time. While a gate is shut nobody is asked, and nothing follows from
    /// that.
    pub(super) fn sweep_questions(&mut self, now: Now) {
        let late = |asked: Now| now.since(asked) >= ASK_MAX;
        let mut services = Vec::new();
        for s in self.services.iter_mut().flatten().filter(|s| s.questions.iter().any(|q| late(q.at))) {
            let open = s.shards[usize::from(SHARD.0)].writes() == Pass::Go;
            for q in s.questions.iter().filter(|q| open && late(q.at)) {
                s.learned.give_up(now, &q.name);
            }
            services.push(s.policy.id);
        }
        for service in services {
            self.answered(service, |q| late(q.at));
        }
    }

    /// Questions are over: those who wait for the answers go on.
    fn answered(&mut self, service: ServiceId, over: impl Fn(&Question) -> bool) {
        let questions = &mut self.service(service).questions;
        let (over, left): (Vec<_>, Vec<_>) = core::mem::take(questions).into_iter().partition(over);
        *questions = left;
        self.ready.extend(over.into_iter().flat_map(|q| q.by));
    }

    /// Whether a connection's session keeps it for a command of which nothing certain is known.
    pub(super) fn is_bound(&self, id: UpId) -> bool {
        let client = self.ups.get(id).and_then(|up| up.pinned_by);
        client.and_then(|c| self.clients.get(c)).is_some_and(|c| c.session.bound)
    }

    /// A reply that nothing asked for, of a session that may have subscribed by a name that we do not know.
    pub(super) fn deliver_to_bound(&mut self, id: UpId, frame: &[u8]) {
        if let Some(client) = self.ups.get(id).and_then(|up| up.pinned_by) {
            self.deliver(client, frame);
        }
    }
}
