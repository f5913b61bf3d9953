//! What must hold between the parts of a worker after every call, and how much is kept. The simulator asks after each
//! turn; it costs a walk over everything.
use super::client::{Client, Place, Wait};
use super::upstream::access;
use super::{Class, ClientId, UpId, Worker};
use crate::ledger::{Owner, Slot};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// How much a worker keeps: the largest of each kind, and what should be nothing when nobody is there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// Bytes of a client that wait to be routed.
    pub input_max: usize,
    /// Bytes that a client has not read.
    pub out_max: usize,
    /// Bytes of requests that an upstream connection keeps before the last one, which is taken as a whole.
    pub ring_max: usize,
    /// Bytes that an upstream connection keeps while a request streams into it, or uncounted bytes pass.
    pub stream_max: usize,
    /// Bytes of a request that is kept as a whole.
    pub request_max: usize,
    /// Bytes that wait on connections that are set up.
    pub unsent: usize,
    /// Commands of a client that are in flight.
    pub owed_max: usize,
    /// Pinned connections.
    pub pinned: usize,
    /// Of each client how many bytes it has not read, and how many commands it has asked of servers.
    pub clients: Vec<(ClientId, usize, u64)>,
    /// Entries of all lists together: slots, lines, those who wait for room, idle connections.
    pub kept: usize,
}

impl Worker {
    /// Walks over everything; an error says what contradicts what.
    pub fn audit(&self) -> Result<Audit, String> {
        let mut audit = Audit { kept: self.inquiries.len() + self.promises.len(), ..Audit::default() };
        let owed = self.audit_ups(&mut audit)?;
        if let Some((_, id)) = self
            .expiring
            .iter()
            .find(|(_, id)| self.ups.get(*id).is_none_or(|u| u.is_ready() != u.fenced.is_some()))
        {
            return Err(format!("{id:?} is to be given up, but set up or gone"));
        }
        for (id, c) in &self.clients {
            self.audit_client(id, c, &owed)?;
            audit.input_max = audit.input_max.max(c.waiting());
            audit.out_max = audit.out_max.max(c.unread());
            audit.owed_max = audit.owed_max.max(c.owed as usize);
            audit.clients.push((id, c.unwritten().len(), c.asked));
        }
        for s in self.services.iter().flatten() {
            audit.kept += s.questions.len();
            let there = self.clients.values().filter(|c| c.service == s.policy.id).count();
            if there != s.clients as usize {
                return Err(format!("{} clients are counted, {there} are there", s.clients));
            }
            for shard in &s.shards {
                let pinned = self.ups.values().filter(|u| u.key.class == Class::Pinned).count();
                if pinned != shard.pinned as usize {
                    return Err(format!(
                        "{} pinned connections are counted, {pinned} are there",
                        shard.pinned
                    ));
                }
                audit.pinned = audit.pinned.max(pinned);
                audit.kept += shard.dials.audit(self.ups.iter())?;
                audit.kept += shard.line.len();
                for id in shard.lanes.values().chain(shard.pool.values()).flatten() {
                    audit.kept += 1;
                    if !self.ups.contains_key(*id) {
                        return Err(format!("{id:?} is listed, but gone"));
                    }
                }
            }
        }
        Ok(audit)
    }

    /// Where each client's unanswered commands are, and how many.
    fn audit_ups(&self, audit: &mut Audit) -> Result<BTreeMap<ClientId, (UpId, usize)>, String> {
        let mut owed: BTreeMap<ClientId, (UpId, usize)> = BTreeMap::new();
        for (id, up) in &self.ups {
            let (kept, before) = (up.ledger.len(), up.ledger.len_before_last());
            match up.ledger.slots().last() {
                Some(s) if s.streams => audit.stream_max = audit.stream_max.max(kept),
                _ => audit.ring_max = audit.ring_max.max(before),
            }
            audit.request_max = audit.request_max.max(kept - before);
            if up.is_ready() {
                audit.unsent += up.ledger.unsent().len();
            } else if !self.expiring.iter().any(|(_, coming)| *coming == id) {
                return Err(format!("{id:?} is not set up, and never given up"));
            }
            let shard = &self.service_ref(up.service).shards[usize::from(up.shard.0)];
            let replica = up.key.class == Class::Read;
            if replica && shard.view.reads_from.as_ref() != Some(&up.endpoint) {
                return Err(format!("{id:?} goes to a replica that serves no reads"));
            }
            let ours = |s: &Slot| s.apply.restores() || s.apply.proves() || s.kills();
            let kept_back = |s: &&Slot| !replica && !shard.was_open(access(s)) && !ours(s);
            // What has begun to stream cannot be taken back, nor what passes uncounted.
            let mut unsent = up.ledger.unsent_slots().take_while(|s| !s.streams && !up.relay);
            if let Some(slot) = unsent.find(kept_back) {
                return Err(format!("{id:?} still has {slot:?}, which the gate forbids"));
            }
            audit.kept += up.ledger.owed() + up.starved.len();
            for slot in up.ledger.slots() {
                let Owner::Client(client) = slot.owner else { continue };
                if !self.clients.contains_key(client) {
                    return Err(format!("{id:?} owes {client:?}, who is gone, a reply"));
                }
                let relay = up.relay;
                let (at, n) = owed.entry(client).or_insert((id, 0));
                if *at != id {
                    return Err(format!("(5) {client:?} is owed replies by {at:?} and {id:?}"));
                }
                *n += usize::from(!relay);
            }
        }
        Ok(owed)
    }

    fn audit_client(
        &self,
        id: ClientId,
        c: &Client,
        owed: &BTreeMap<ClientId, (UpId, usize)>,
    ) -> Result<(), String> {
        let (at, n) = owed.get(&id).map_or((None, 0), |(at, n)| (Some(*at), *n));
        let place = match c.place {
            Place::Free => None,
            Place::Lane(up) | Place::Pinned(up) => Some(up),
        };
        let n = n + c.unproven() as usize;
        if n != c.owed as usize || at.is_some() && at != place {
            return Err(format!("{id:?} counts {} replies at {:?}, {n} are owed at {at:?}", c.owed, c.place));
        }
        if let Place::Pinned(up) = c.place
            && self.ups.get(up).is_none_or(|u| u.pinned_by != Some(id))
        {
            return Err(format!("{id:?} is pinned to {up:?}, which is not its own"));
        }
        let s = self.service_ref(c.service);
        let unmet = match c.wait {
            Wait::No => c.owed == 0 && (!c.redo.is_empty() || c.restore),
            Wait::Owed => c.owed == 0,
            Wait::InFlight => c.owed == 0,
            Wait::Gate => !s.shards.iter().any(|s| c.ticket.is_some_and(|t| s.line.holds(t, id))),
            Wait::Room => !self.ups.values().any(|u| u.starved.contains(&id)),
            Wait::Output => c.unread() == 0,
            Wait::Others => !self.inquiries.contains_key(&id),
            Wait::Learn => !s.questions.iter().any(|q| self.ups.contains_key(q.up) && q.by.contains(&id)),
        };
        let listens = c.session.listens() && !matches!(c.place, Place::Pinned(_));
        if listens && !c.restore && !c.closing && !c.deaf {
            return Err(format!("{id:?} believes that it hears what the server says"));
        }
        // One that is closed once it has read its replies waits for nothing else.
        if unmet && !c.closing {
            return Err(format!("{id:?} waits in vain: {:?}, owed {}, redo {:?}", c.wait, c.owed, c.redo));
        }
        Ok(())
    }
}
