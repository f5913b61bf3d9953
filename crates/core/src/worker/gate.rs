//! What the gates say to a client, and its place in the line of those that wait for one.
use super::client::{Place, Wait};
use super::intake::{Again, Routed, SHARD};
use super::{ClientId, Worker};
use crate::Now;
use crate::command::{Access, Act, Entry};
use crate::hold::{Pass, pass};
use crate::resp::reply;
use crate::route::Here;
use crate::session::Tx;

impl Worker {
    /// What a gate says to a client now; who is to wait stands in the line.
    pub(super) fn at_gate(&mut self, now: Now, id: ClientId, access: Access) -> Pass {
        let Some(c) = self.clients.get(id) else { return Pass::Refuse };
        let service = c.service;
        let shard = &self.service_ref(service).shards[usize::from(SHARD.0)];
        let pass = pass(&shard.view, shard.held_since, access, now);
        let behind = pass == Pass::Go && !self.releasing && !shard.line.lets_pass(c.ticket);
        if behind || pass == Pass::Wait {
            let ticket = self.line_up(id);
            if behind {
                // Whoever waits longer goes first.
                self.shard(service, SHARD).line.let_out_to(ticket);
            }
            return Pass::Wait;
        }
        pass
    }

    /// Asks the gate; `None` is a yes.
    pub(super) fn gate(
        &mut self,
        now: Now,
        id: ClientId,
        entry: Option<&Entry>,
        again: Option<Again>,
    ) -> Option<Routed> {
        let c = self.clients.get(id)?;
        let (service, owed) = (c.service, c.owed);
        let shard = &self.service_ref(service).shards[usize::from(SHARD.0)];
        if entry.is_some_and(|e| e.act == Act::Kill) && shard.may_kill(shard.view.term, now) {
            return None;
        }
        match self.at_gate(now, id, entry.map_or(Access::Write, |e| e.access)) {
            Pass::Go => None,
            Pass::Wait => Some(Routed::Blocked(Wait::Gate)),
            Pass::Refuse if owed > 0 => Some(Routed::Blocked(Wait::Owed)),
            Pass::Refuse if self.refused_in_tx(id, entry) => Some(Routed::Taken),
            Pass::Refuse => {
                let s = self.service(service);
                let shard = &s.shards[usize::from(SHARD.0)];
                let text = if again.is_some_and(|a| a.maybe) {
                    s.counters.uncertain += 1;
                    reply::UNCERTAIN.into()
                } else {
                    s.counters.masterdown += 1;
                    reply::masterdown(&s.policy.name, &shard.view.why)
                };
                self.deliver(id, &text);
                Some(Routed::Taken)
            }
        }
    }

    /// A closed gate refuses a command of an open transaction, which must fail then. `true`: it was the last, and has its
    /// answer: as on a direct connection it ends the transaction, whatever it says.
    fn refused_in_tx(&mut self, id: ClientId, entry: Option<&Entry>) -> bool {
        let Some(c) = self.clients.get_mut(id) else { return true };
        let Tx::Open(tx) = &mut c.session.tx else { return false };
        tx.refused = true;
        let here = match entry.map(|e| e.act) {
            Some(Act::Exec) => Here::ExecLost,
            Some(Act::Discard) => Here::DiscardLost,
            _ => return false,
        };
        if let Place::Pinned(up) = c.place {
            self.close_up(up);
        }
        if self.unpinned_by_loss(id) {
            self.answer_here(id, here);
        }
        true
    }

    /// Puts a client at the end of the line of those that wait for a gate, unless it stands there already; its ticket.
    pub(super) fn line_up(&mut self, id: ClientId) -> u64 {
        let Some(c) = self.clients.get_mut(id) else { return 0 };
        if let Some(ticket) = c.ticket {
            return ticket;
        }
        let s =
            self.services[usize::from(c.service.0)].as_mut().expect("a service is kept while it has clients");
        s.counters.held += 1;
        let ticket = s.shards[usize::from(SHARD.0)].line.join(id);
        c.ticket = Some(ticket);
        ticket
    }
}
