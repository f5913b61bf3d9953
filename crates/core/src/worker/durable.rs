//! Durable writes: acknowledged when so many replicas have them.
//!
//! They travel over lanes of their own ([`Class::Durable`]), because a `WAIT` stops all that is behind it on its
//! connection. At the end of a turn one `WAIT` is queued behind all that was written in it, and no other as long as it is
//! not answered: however many clients write, what they write while replicas are waited for shares the next one. What its
//! session asks behind a write goes the same way; all else goes over ordinary lanes. On a session's own connection the
//! `WAIT` follows a reply, so that it never stands in a transaction.
//!
//! `WAIT` speaks of the earlier writes of its connection (`waitCommand` in `replication.c`), so it has to be this one.
//! Whatever it answers, and whatever happens to it, the write is never sent again.
use super::client::Client;
use super::upstream::Up;
use super::withheld::{Batch, Until, Withholding, needs_proof};
use super::{Class, UpId, Worker};
use crate::Now;
use crate::command::{Access, Act, Entry};
use crate::hold::UNBLOCKED;
use crate::ledger::{Apply, Owner, Slot};
use crate::resp::{parse_i64, reply};
use crate::session::Tx;
use crate::topology::snapshot::SignKind;
use alloc::string::String;
use alloc::vec::Vec;

/// Where a connection stands with its `WAIT`s.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// There are writes without a `WAIT` behind them.
    wanted: bool,
    /// A `WAIT` for so many replicas is queued or sent.
    asked: Option<u32>,
}

impl Waiting {
    /// A write was answered. A `WAIT` that is not is behind it; otherwise one is wanted: gives whether.
    pub(super) fn answered(&mut self) -> bool {
        self.wanted |= self.asked.is_none();
        self.wanted
    }
}

impl Client {
    /// The class of the shared connection over which its command goes.
    pub(super) fn shared_class(&self, entry: Option<&Entry>) -> Class {
        let writes = entry.is_none_or(|e| e.access == Access::Write);
        if self.durable && writes { Class::Durable } else { Class::Plain }
    }

    /// Whether a command on its own connection would keep out, or stop, the `WAIT` behind a durable write before it.
    pub(super) fn keeps_wait_out(&self, entry: Option<&Entry>) -> bool {
        let keeps = |e: &Entry| {
            matches!(e.act, Act::Multi | Act::Subscribe(_) | Act::Block | Act::BlockIfAsked | Act::Own)
        };
        self.durable && entry.is_none_or(keeps)
    }

    /// Whether what it asks next goes over the shared connection of this class that it has.
    pub(super) fn goes_over(&self, class: Class, access: Access) -> bool {
        match class {
            Class::Plain => !self.durable || access != Access::Write,
            Class::Durable => access == Access::Write || self.owed > 0,
            _ => false,
        }
    }
}

impl Up {
    /// A command was queued: behind a write a `WAIT` is wanted at the end of the turn.
    #[inline]
    pub(super) fn note_write(&mut self, entry: Option<&Entry>) {
        if self.key.class == Class::Durable
            && entry.is_none_or(|e| e.access == Access::Write)
            && let Some(Withholding { until: Until::Durable(waiting), .. }) = &mut self.withholding
        {
            waiting.wanted = true;
        }
    }

    fn waiting(&mut self) -> Option<&mut Waiting> {
        match &mut self.withholding.as_mut()?.until {
            Until::Durable(waiting) => Some(waiting),
            Until::Kept => None,
        }
    }

    /// Whether a write of a client is under way or waits.
    fn has_writes(&self) -> bool {
        let write = |s: &Slot| matches!(s.owner, Owner::Client(_)) && needs_proof(s, b"");
        self.withholding.as_ref().is_some_and(|w| !w.is_empty()) || self.ledger.slots().any(write)
    }
}

/// What the answer to a `WAIT` says of the node's role, if it says that it is no master.
fn sign_in(said: &[u8]) -> Option<SignKind> {
    if said.starts_with(UNBLOCKED) {
        Some(SignKind::Unblocked)
    } else {
        said.starts_with(b"-ERR WAIT cannot be used with replica").then_some(SignKind::NotMaster)
    }
}

impl Worker {
    /// From now on the replies to a connection's writes wait for replicas.
    pub(super) fn await_replicas(&mut self, id: UpId) {
        let Some(up) = self.ups.get_mut(id) else { return };
        self.next_batch += 1;
        up.withholding =
            Some(Withholding::new(self.next_batch, id, up.term, Until::Durable(Waiting::default())));
    }

    /// The turn ends: a `WAIT` behind what was written, unless one is not answered yet.
    pub(super) fn wait_behind(&mut self, id: UpId) {
        let Some(up) = self.ups.get_mut(id) else { return };
        let in_tx = |c: &Client| c.session.tx != Tx::None;
        let in_tx = up.pinned_by.and_then(|c| self.clients.get(c)).is_some_and(in_tx);
        let ready = up.is_ready() && !up.relay && !up.ledger.streams_in() && !up.ledger.ends_in_tx(in_tx);
        let (has_writes, service) = (up.has_writes(), up.service);
        let pinned = up.key.class == Class::Pinned;
        let Some(waiting) = up.waiting().filter(|w| ready && w.wanted && w.asked.is_none()) else { return };
        waiting.wanted = false;
        if !has_writes {
            return;
        }
        let policy = &self.services[usize::from(service.0)].as_ref().expect("a service is kept").policy;
        let durable = policy.durable;
        waiting.asked = Some(durable.replicas);
        let mut ask = |apply: Apply, words: &[&[u8]]| {
            let mut bytes = Vec::new();
            reply::request(&mut bytes, words);
            up.ledger.push(&bytes, Slot::new(Owner::Nobody, None, apply));
        };
        if pinned {
            ask(Apply::Follow, &[b"PING"]);
        }
        let replicas = alloc::format!("{}", durable.replicas);
        let ms = alloc::format!("{}", durable.timeout.as_millis().max(1));
        ask(Apply::Replicas, &[b"WAIT", replicas.as_bytes(), ms.as_bytes()]);
        self.service(service).counters.waits += 1;
    }

    /// The answer to a `WAIT`: all that was written before it is acknowledged, or none of it.
    pub(super) fn replicas_told(&mut self, now: Now, id: UpId, frame: &[u8]) {
        self.next_batch += 1;
        let number = self.next_batch;
        let Some(up) = self.ups.get_mut(id) else { return };
        let (at, term) = ((up.service, up.shard), up.term);
        let Some(asked) = up.waiting().and_then(|w| w.asked.take()) else { return };
        let Some(batch) = up.withholding.as_mut().map(|w| w.take(number)) else { return };
        // Writes that came meanwhile want the next.
        self.mark_up(id);
        let said = frame.strip_suffix(b"\r\n").unwrap_or(frame);
        match said.strip_prefix(b":").and_then(parse_i64) {
            Some(n) if n >= i64::from(asked) => self.durable_batch(batch, None),
            Some(n) => {
                let text = reply::not_durable(asked, &alloc::format!("{n} had it in time"));
                self.durable_batch(batch, Some(&text));
            }
            None => {
                let text = reply::not_durable(asked, &String::from_utf8_lossy(said));
                self.durable_batch(batch, Some(&text));
                if let Some(kind) = sign_in(said) {
                    self.sign(now, at, term, kind);
                }
            }
        }
    }

    /// A `WAIT` that was queued and not sent was taken back: what is under way still wants one.
    pub(super) fn wait_taken_back(&mut self, id: UpId, slot: &Slot) {
        if slot.apply == Apply::Replicas
            && let Some(waiting) = self.ups.get_mut(id).and_then(Up::waiting)
        {
            *waiting = Waiting { wanted: true, asked: None };
            self.mark_up(id);
        }
    }

    pub(super) fn durable_batch(&mut self, batch: Batch, instead: Option<&[u8]>) {
        self.end_batch(batch, instead, |c, n| match instead {
            None => c.durable += n,
            Some(_) => c.not_durable += n,
        });
    }
}
