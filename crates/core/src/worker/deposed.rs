//! What a deposed master still says of commands that it was sent and had not answered when its term ended. That it refuses
//! one, or unblocks a pop, proves that it was not executed: it is sent to the new master. So a connection on which such a
//! word can come is read for a moment more, and never written to; sessions that have written there wait for it, others go on
//! at once. Whatever else comes is as if the connection were lost.
//!
//! A pop waits for the demotion. So does a write, or the `EXEC` behind it, when somebody has paused the old master's writes, to change the master
//! without loss (another Pointsman's switchover).
use super::client::{Client, Place};
use super::lost::{Cause, Loss, as_asked};
use super::upstream::{Up, access};
use super::{Class, ClientId, Effect, UpId, Worker};
use crate::Now;
use crate::command::{Access, Act};
use crate::hold::{Then, not_a_master};
use crate::ledger::{Apply, Owner, Sent, Slot};
use crate::topology::snapshot::{ServiceId, ShardId, ShardView};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use core::time::Duration;

/// What a deposed master said when it became a replica is here so long after that was seen.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// For so long a write waits to be refused. Who pauses the old master's writes demotes it as soon as he sees its successor
/// promoted, which is when we see it; and no change of master that goes well holds anybody for longer than this.
const REFUSED_WITHIN: Duration = Duration::from_millis(300);

/// What a host has received it acknowledges after this time at the latest: 40 ms (Linux, `TCP_DELACK_MIN`) when nothing is
/// answered, as while writes are paused. What is not acknowledged then was lost on its way, and would be sent again.
const ARRIVES_WITHIN: Duration = Duration::from_millis(60);

/// What is known of a connection that is only read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fenced {
    /// What is known of it when it is given up.
    loss: Loss,
    /// When that is.
    until: Now,
}

/// For how long a deposed master's word on what is owed on a connection is waited for. `None`: it is not.
fn patience(view: &ShardView, up: &Up) -> Option<Duration> {
    let deposed = view.deposed.as_ref().filter(|d| d.at == up.endpoint);
    match deposed {
        Some(d) if up.blocks() && d.to_be_told => Some(view.hold_max),
        _ if up.blocks() => Some(LAST_WORDS),
        Some(_) => Some(REFUSED_WITHIN),
        None => None,
    }
}

/// Whether a node that is no master refuses something of what a connection owes, and what that proves is of use: what is
/// queued in a transaction is not executed anyway.
fn may_refuse(up: &Up, mut in_tx: bool) -> bool {
    up.ledger.slots().filter(|s| client_of(s).is_some()).any(|s| {
        match s.entry.map(|e| e.act) {
            Some(Act::Multi) => in_tx = true,
            Some(Act::Exec) if s.apply == Apply::Exec => return true,
            Some(Act::Exec | Act::Discard) => in_tx = false,
            _ => {}
        }
        !in_tx && !s.begun && s.entry.is_some_and(|e| e.proves && e.access == Access::Write)
    })
}

fn client_of(slot: &Slot) -> Option<ClientId> {
    match slot.owner {
        Owner::Client(client) => Some(client),
        Owner::Nobody => None,
    }
}

impl Worker {
    /// Whether a connection whose term is over is read on.
    pub(super) fn read_on(&mut self, now: Now, id: UpId) -> bool {
        let Some(up) = self.ups.get(id) else { return false };
        let view = self.service_ref(up.service).shards[usize::from(up.shard.0)].view.clone();
        if view.master.as_ref() == Some(&up.endpoint) {
            return false;
        }
        if up.fenced.is_some() {
            return true;
        }
        let Some(patience) = patience(&view, up).filter(|_| up.ends.is_none() && self.can_tell(up)) else {
            return false;
        };
        let mut loss = self.loss(up, Cause::Broken);
        self.retract([id].into());
        let Some(up) = self.ups.get_mut(id) else { return false };
        if !up.ledger.unsent().is_empty() || !may_refuse(up, loss.in_tx) {
            return false;
        }
        // What writes may still be executed there: nothing that its session asks later may overtake it.
        let writes = |s: &&Slot| access(s) == Access::Write;
        up.fenced = Some(Fenced { loss, until: now + patience });
        let waits: BTreeSet<ClientId> = up.ledger.slots().filter(writes).filter_map(client_of).collect();
        let others = up.ledger.disown_those(|client| !waits.contains(&client));
        let (withholding, pinned_by) = (up.withholding.take(), up.pinned_by);
        self.resolve_owed(id, None, others, &mut loss);
        if let Some(withholding) = withholding {
            self.never_proven(withholding);
        }
        if let Some(client) = pinned_by {
            // The deposed master tells it nothing of what others change at the new one.
            self.flush(client);
        }
        self.feed_starved(id);
        self.unlist(id);
        self.expires_at(id, now + patience.min(ARRIVES_WITHIN));
        self.effects.push_back(Effect::OnlyRead(id));
        true
    }

    /// Nothing has come of a connection that is only read: it is given up, if it is time. Before, all that was sent must
    /// have arrived: nothing is to reach a deposed master much later.
    pub(super) fn read_on_in_vain(&mut self, now: Now, id: UpId) {
        let Some(Fenced { until, .. }) = self.ups.get(id).and_then(|up| up.fenced) else { return };
        if now >= until {
            return self.lose_up(now, id, None);
        }
        self.effects.push_back(Effect::Arrived(id));
        self.expires_at(id, until);
    }

    /// Whether the replies to come on a connection can be told apart, and all that is owed there could be asked elsewhere.
    fn can_tell(&self, up: &Up) -> bool {
        let known = |c: &Client, s: &Slot| match s.entry.map(|e| e.act) {
            _ if client_of(s).is_none() => true,
            Some(Act::None | Act::Multi | Act::Exec | Act::Discard | Act::Watch | Act::Unwatch) => true,
            _ => c.blocked.as_ref().is_some_and(|b| b.pops(s)),
        };
        let pinned_by = || up.pinned_by.and_then(|c| self.clients.get(c));
        let own = || pinned_by().filter(|c| !c.session.bound && c.session.subs.is_none());
        let class = match up.key.class {
            Class::Plain | Class::Durable => true,
            Class::Pinned => own().is_some_and(|c| up.ledger.slots().all(|s| known(c, s))),
            Class::Probe | Class::Read => false,
        };
        class && up.is_ready() && !up.relay && !up.ledger.slots().any(|s| s.streams)
    }

    /// Another node is deposed, or none, or it has been told: what a former one has said by now is on its way.
    pub(super) fn deposed_changed(&mut self, now: Now, at: (ServiceId, ShardId)) {
        let view = self.shard(at.0, at.1).view.clone();
        for id in self.ups_of(at) {
            let Some(up) = self.ups.get_mut(id) else { continue };
            let patience = patience(&view, up).unwrap_or(LAST_WORDS);
            if let Some(fenced) = &mut up.fenced {
                fenced.until = fenced.until.min(now + patience);
                let next = up.deadline.min(fenced.until);
                self.expires_at(id, next);
            }
        }
    }

    /// A deposed node says what became of a command.
    pub(super) fn told_by_deposed(&mut self, now: Now, id: UpId, frame: &[u8], kind: u8) {
        let Some(up) = self.ups.get_mut(id) else { return };
        let Some(Fenced { mut loss, until }) = up.fenced else { return };
        let bytes: Box<[u8]> = up.ledger.front_bytes().into();
        let Some(slot) = up.ledger.settle() else { return };
        let Some(client) = client_of(&slot) else { return };
        let Some(c) = self.clients.get_mut(client) else { return };
        let popped_nothing = matches!(frame, b"*-1\r\n" | b"$-1\r\n" | b"_\r\n")
            && c.blocked.as_ref().is_some_and(|b| b.pops(&slot));
        let refused = kind == b'-' && !loss.in_tx && not_a_master(slot.entry, frame).is_some();
        if popped_nothing || refused {
            let refusal = Some(frame.into());
            let bytes = as_asked(&slot, bytes);
            c.redo_at(slot.seq, Then::Again { bytes, maybe: slot.maybe, refusal });
        } else {
            loss.discarded = frame.starts_with(b"-EXECABORT ");
            self.resolve_slot(client, slot, bytes, Sent::All, &mut loss);
            if let Some(up) = self.ups.get_mut(id) {
                up.fenced = Some(Fenced { loss, until });
            }
        }
        self.waits_less(client, id);
        if self.ups.get(id).is_some_and(|up| up.ledger.slots().all(|s| client_of(s).is_none())) {
            self.lose_up(now, id, None);
        }
    }

    /// A client waits for one word less of a deposed node; for the last one on a shared connection, it goes on.
    fn waits_less(&mut self, id: ClientId, up: UpId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        c.owed = c.owed.saturating_sub(1);
        // What is withheld waits for its proof wherever the session goes.
        if c.owed == c.unproven() && c.place == Place::Lane(up) {
            c.place = Place::Free;
            self.ready.push_back(id);
        }
    }
}
