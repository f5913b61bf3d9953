//! Scripts that the service's clients have shown: learnt on their way to the server, shown again to a new master. And scripts that
//! run for long.
use super::client::Place;
use super::intake::SHARD;
use super::upstream::Up;
use super::withheld::needs_proof;
use super::{Class, ClientId, UpId, Worker};
use crate::Now;
use crate::command::Entry;
use crate::hold::Then;
use crate::ledger::{Owner, Slot};
use crate::resp::frame::Request;
use crate::session::Tx;
use crate::topology::snapshot::{ServiceId, ShardId};
use alloc::vec::Vec;

impl Up {
    /// Whether a script may run there, or a function: what sessions ask behind it is not even answered with `-BUSY`.
    fn runs_script(&self) -> bool {
        let shared = matches!(self.key.class, Class::Plain | Class::Durable);
        let first = self.ledger.slots().next().filter(|_| shared && self.ledger.expects());
        first.is_some_and(|s| s.entry.is_some_and(|e| !e.proves))
    }
}

impl Worker {
    /// The master runs a script: sessions that are owed nothing leave the connection on which it may be. What they ask
    /// next goes over another one, and is answered as on a connection of their own.
    pub(super) fn leave_scripts(&mut self, at: (ServiceId, ShardId)) {
        let lanes = self.shard(at.0, at.1).lanes.values().flatten().copied().collect::<Vec<_>>();
        for id in lanes {
            let Some(up) = self.ups.get_mut(id).filter(|up| up.runs_script()) else { continue };
            up.left = true;
            self.unlist(id);
            let there = self.clients.values_mut().filter(|c| c.owed == 0 && c.place == Place::Lane(id));
            there.for_each(|c| c.place = Place::Free);
        }
    }

    /// A command that says which scripts the server knows is on its way.
    pub(super) fn note_script(&mut self, now: Now, id: ClientId, entry: &Entry, req: Request<'_>) {
        let Some(c) = self.clients.get(id) else { return };
        let s = self.services[usize::from(c.service.0)].as_mut().expect("a service is kept");
        // Who has not authenticated where that is demanded gets nothing remembered.
        if s.must_authenticate(c, &self.ups) {
            return;
        }
        let shard = &s.shards[usize::from(SHARD.0)];
        let text = match entry.name {
            "SCRIPT|FLUSH" => return s.scripts.clear(),
            "SCRIPT|LOAD" => req.args().nth(2),
            _ => req.args().nth(1),
        };
        if let Some(text) = text {
            s.scripts.learn(now, text, shard.view.term, s.policy.limits.scripts_max);
        }
    }

    /// The server does not know a script that we do: the command is done again in a way that shows it. Nothing of it was
    /// executed; as any other that was refused, it is not done again behind a later write of its session.
    pub(super) fn script_again(&mut self, now: Now, id: UpId, client: ClientId, frame: &[u8]) -> bool {
        if !frame.starts_with(b"-NOSCRIPT No matching script") {
            return false;
        }
        let Some(up) = self.ups.get_mut(id) else { return false };
        let (service, term) = (up.service, up.term);
        let pinned = up.key.class == Class::Pinned;
        let Some(slot) = up.ledger.front() else { return false };
        let Some(entry) = slot.entry.filter(|_| !slot.begun && !slot.streams) else { return false };
        let in_tx = self.clients.get(client).is_some_and(|c| c.session.tx != Tx::None);
        let seq = slot.seq;
        let up = &self.ups[id];
        // The reply to a write behind it would be kept from its proof, and the script would not be done behind that anyway.
        let behind = |s: &Slot| s.owner == Owner::Client(client) && s.seq > seq && needs_proof(s, b"");
        let spoils = up.withholding.is_some() && up.ledger.slots().any(behind);
        if in_tx || spoils || pinned && up.ledger.followed_by_state() {
            return false;
        }
        let req = Request::new(up.ledger.front_bytes());
        let Some(bytes) = self.service_ref(service).scripts.eval(now, entry, req, term) else { return false };
        let Some(slot) = self.ups[id].ledger.settle() else { return false };
        debug_assert_eq!(slot.owner, Owner::Client(client));
        if let Some(c) = self.clients.get_mut(client) {
            let refusal = Some(frame.into());
            c.redo_at(slot.seq, Then::Again { bytes, maybe: slot.maybe, refusal });
        }
        self.service(service).counters.scripts_reloaded += 1;
        self.owed_less(client, id);
        self.after_settle(id);
        true
    }
}
