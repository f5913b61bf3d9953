//! Replies that are here, and may not be shown before something is proven of their writes.
//!
//! *At a sign.* When the gate for writes closes while writes are under way, they finish on the old master. Whether its successor has
//! them is not known yet: a `ROLE` goes behind them on the same connection and tells up to which offset of the
//! replication stream they reach; the view tells up to where the successor has it ([`ShardView::kept`]). What it has is
//! shown, also when the gate opens again for the same proven master; of what it does not have the client is told so.
//!
//! *Durable writes* wait for the answer to a `WAIT` behind them (`durable`).
//!
//! A client's replies keep their order: what comes behind a withheld reply waits with it. As long as a reply needs a
//! proof it is owed, so that its session stays where it is, and no more than `in_flight_max` can wait.
//!
//! [`ShardView::kept`]: crate::topology::snapshot::ShardView::kept
use super::durable::Waiting;
use super::{ClientId, Counters, UpId, Worker};
use crate::Now;
use crate::command::{Access, Act};
use crate::hold::Pass;
use crate::ledger::{Apply, Owner, Slot};
use crate::resp::frame::{Element, Elements};
use crate::resp::{parse_i64, reply};
use crate::session::Tx;
use crate::topology::snapshot::{ServiceId, ShardId, Term};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What is withheld from one client, oldest first.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    replies: VecDeque<Reply>,
    len: usize,
    unproven: u32,
}

/// A reply, or several that nothing needs to be proven of.
#[derive(Debug)]
struct Reply {
    bytes: Vec<u8>,
    /// The batch that it is proven with.
    awaits: Option<u64>,
}

impl Withheld {
    /// Bytes of all replies.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Replies that need a proof.
    pub(super) fn unproven(&self) -> u32 {
        self.unproven
    }

    /// A reply that needs no proof waits behind those that do.
    pub(super) fn push_behind(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        match self.replies.back_mut() {
            Some(last) if last.awaits.is_none() => last.bytes.extend_from_slice(bytes),
            _ => self.replies.push_back(Reply { bytes: bytes.into(), awaits: None }),
        }
    }

    /// A reply is proven with its batch; whether it is the batch's first here.
    fn push(&mut self, bytes: &[u8], batch: u64) -> bool {
        let newest = self.replies.iter().rev().find_map(|r| r.awaits);
        self.len += bytes.len();
        self.unproven += 1;
        self.replies.push_back(Reply { bytes: bytes.into(), awaits: Some(batch) });
        newest != Some(batch)
    }

    /// A batch's proof is here, or will never be: then this is the answer. Gives how many replies that were.
    fn resolve(&mut self, batch: u64, instead: Option<&[u8]>) -> u32 {
        let mut n = 0;
        for r in self.replies.iter_mut().filter(|r| r.awaits == Some(batch)) {
            r.awaits = None;
            n += 1;
            if let Some(text) = instead {
                self.len = self.len - r.bytes.len() + text.len();
                r.bytes = text.into();
            }
        }
        self.unproven -= n;
        n
    }

    /// The next that may be shown.
    fn next_shown(&mut self) -> Option<Vec<u8>> {
        self.replies.front().filter(|r| r.awaits.is_none())?;
        let shown = self.replies.pop_front()?.bytes;
        self.len -= shown.len();
        Some(shown)
    }
}

/// Writes that one proof will do for.
#[derive(Debug)]
pub(super) struct Batch {
    number: u64,
    up: UpId,
    term: Term,
    clients: Vec<ClientId>,
    /// Where they end in the replication stream of the term's master, once that is known.
    offset: Option<u64>,
}

impl Batch {
    fn new(number: u64, up: UpId, term: Term) -> Batch {
        Batch { number, up, term, clients: Vec::new(), offset: None }
    }
}

/// What one connection withholds: the replies that have arrived and whose proof has not.
#[derive(Debug)]
pub(super) struct Withholding {
    batch: Batch,
    pub(super) until: Until,
}

/// What its replies wait for.
#[derive(Debug)]
pub(super) enum Until {
    /// The node that succeeds the master has the writes, or the same master is proven again.
    Kept,
    /// Replicas have them.
    Durable(Waiting),
}

impl Withholding {
    pub(super) fn new(number: u64, up: UpId, term: Term, until: Until) -> Withholding {
        Withholding { batch: Batch::new(number, up, term), until }
    }

    /// What is said when it is not proven.
    pub(super) fn unproven(&self) -> &'static [u8] {
        match self.until {
            Until::Kept => reply::UNPROVEN,
            Until::Durable(_) => reply::NOT_DURABLE_LOST,
        }
    }

    /// Whether replies wait.
    pub(super) fn is_empty(&self) -> bool {
        self.batch.clients.is_empty()
    }

    /// The replies that wait; those that arrive from now on are another batch.
    pub(super) fn take(&mut self, number: u64) -> Batch {
        let next = Batch::new(number, self.batch.up, self.batch.term);
        core::mem::replace(&mut self.batch, next)
    }
}

/// Whether a reply says something that is true only as long as its write is not lost. An error acknowledges nothing.
pub(super) fn needs_proof(slot: &Slot, frame: &[u8]) -> bool {
    let writes = slot.entry.is_none_or(|e| e.access == Access::Write && e.act != Act::Wait);
    writes && !slot.begun && frame.first() != Some(&b'-')
}

/// The offset in a master's answer to `ROLE`.
fn master_offset(frame: &[u8]) -> Option<u64> {
    let mut elements = Elements::of(frame);
    elements.next();
    if elements.next() != Some(Element::Bulk(b"master")) {
        return None;
    }
    match elements.next() {
        Some(Element::Line(b':', n)) => u64::try_from(parse_i64(n)?).ok(),
        _ => None,
    }
}

impl Worker {
    /// The gate for writes has closed: the replies to those that are under way are withheld from now on.
    pub(super) fn withhold_writes(&mut self, at: (ServiceId, ShardId)) {
        let shard = self.shard(at.0, at.1);
        let (term, shut) = (shard.view.term, shard.writes() != Pass::Go);
        for id in self.ups_of(at) {
            let Some(up) = self.ups.get_mut(id) else { continue };
            let current = shut && up.term == term && up.is_ready() && !up.relay && up.fenced.is_none();
            let sent = |s: &Slot| matches!(s.owner, Owner::Client(_)) && needs_proof(s, b"");
            if !current || up.withholding.is_some() || !up.ledger.slots().any(sent) {
                continue;
            }
            let tx = up.pinned_by.and_then(|c| self.clients.get(c)).is_some_and(|c| c.session.tx != Tx::None);
            self.next_batch += 1;
            up.withholding = Some(Withholding::new(self.next_batch, id, term, Until::Kept));
            // Nothing can be asked within a request that was sent in part, or streams in, or within a transaction.
            // What was asked before and not answered is as good, if nothing came behind it.
            let asked = up.ledger.slots().last().is_some_and(|s| s.apply == Apply::Offset);
            let within =
                asked || !up.ledger.unsent().is_empty() || up.ledger.streams_in() || up.ledger.ends_in_tx(tx);
            if !within {
                let mut role = Vec::new();
                reply::request(&mut role, &[b"ROLE"]);
                up.ledger.push(&role, Slot::new(Owner::Nobody, None, Apply::Offset));
                self.mark_up(id);
            }
            self.shard(at.0, at.1).withholds = true;
        }
    }

    /// A write's reply has arrived on a connection that withholds them.
    pub(super) fn withhold(
        &mut self,
        now: Now,
        id: UpId,
        client: ClientId,
        term: Term,
        slot: Slot,
        frame: &[u8],
    ) {
        let blocked = self.clients.get(client).and_then(|c| c.blocked.as_ref());
        let pops = blocked.is_some_and(|b| b.pops(&slot));
        let shown = self.settle_in_order(now, client, term, slot, frame, frame[0], false);
        // Within a transaction nothing is executed.
        if self.clients.get(client).is_some_and(|c| matches!(c.session.tx, Tx::Open(_))) {
            self.deliver(client, &shown);
            return self.owed_less(client, id);
        }
        let (Some(c), Some(up)) = (self.clients.get_mut(client), self.ups.get_mut(id)) else { return };
        let Some(withholding) = &mut up.withholding else { return };
        let batch = &mut withholding.batch;
        if c.withheld.get_or_insert_default().push(&shown, batch.number) {
            batch.clients.push(client);
        }
        if let Some(blocked) = c.blocked.as_mut().filter(|_| pops) {
            blocked.batch = Some(batch.number);
        }
        let at = (up.service, up.shard);
        match &mut withholding.until {
            Until::Kept => self.service(at.0).counters.withheld += 1,
            Until::Durable(waiting) => {
                if waiting.answered() {
                    self.mark_up(id);
                }
            }
        }
        self.bound_output(client);
        let shard = self.shard(at.0, at.1);
        if shard.writes() == Pass::Refuse || shard.keeps_all() {
            self.prove(at);
        }
    }

    /// The answer to the `ROLE` behind a batch.
    pub(super) fn offset_told(&mut self, id: UpId, frame: &[u8]) {
        let Some(up) = self.ups.get_mut(id) else { return };
        let (at, offset) = ((up.service, up.shard), master_offset(frame));
        let Some(withholding) = up.withholding.as_mut().filter(|_| offset.is_some()) else { return };
        self.next_batch += 1;
        let batch = withholding.take(self.next_batch);
        self.shard(at.0, at.1).withheld.push(Batch { offset, ..batch });
        self.prove(at);
    }

    /// Looks what the view proves, or makes impossible to prove.
    pub(super) fn prove(&mut self, at: (ServiceId, ShardId)) {
        let shard = self.shard(at.0, at.1);
        if !shard.withholds {
            return;
        }
        let (view, gate, all) = (shard.view.clone(), shard.writes(), shard.keeps_all());
        shard.withholds = gate != Pass::Go;
        if gate != Pass::Wait || all {
            for id in self.ups_of(at) {
                self.end_withholding(id, view.term, gate, all);
            }
        }
        for batch in core::mem::take(&mut self.shard(at.0, at.1).withheld) {
            let has = |upto: u64| batch.offset.is_some_and(|o| o <= upto);
            let stands = batch.term == view.term;
            let kept = view.kept.is_some_and(|k| k.term == batch.term && has(k.offset));
            if kept || stands && gate == Pass::Go {
                self.resolve_batch(batch, None);
            } else if gate == Pass::Refuse || !stands && view.master.is_some() {
                self.resolve_batch(batch, Some(reply::UNPROVEN));
            } else {
                self.shard(at.0, at.1).withheld.push(batch);
            }
        }
    }

    /// The gate is open again, for the same master, or will not open in time; or (`all`) nobody doubts the master, and the
    /// gate is shut for another reason.
    fn end_withholding(&mut self, id: UpId, term: Term, gate: Pass, all: bool) {
        let Some(up) = self.ups.get_mut(id) else { return };
        let Some(withholding) = up.withholding.as_mut().filter(|w| matches!(w.until, Until::Kept)) else {
            return;
        };
        self.next_batch += 1;
        let batch = withholding.take(self.next_batch);
        if gate == Pass::Go && batch.term == term {
            up.withholding = None;
            return self.resolve_batch(batch, None);
        }
        if all && batch.term == term && gate == Pass::Wait {
            return self.resolve_batch(batch, None);
        }
        // What is still to come is not shown either.
        self.resolve_batch(batch, Some(reply::UNPROVEN));
    }

    /// A connection is gone before it told what would prove its writes.
    pub(super) fn never_proven(&mut self, withholding: Withholding) {
        let text = withholding.unproven();
        match withholding.until {
            Until::Kept => self.resolve_batch(withholding.batch, Some(text)),
            Until::Durable(_) => self.durable_batch(withholding.batch, Some(text)),
        }
    }

    fn resolve_batch(&mut self, batch: Batch, instead: Option<&[u8]>) {
        self.end_batch(batch, instead, |c, n| c.uncertain += if instead.is_some() { n } else { 0 });
    }

    /// The replies of a batch are shown, or `instead` in the place of each; they are counted for their service.
    pub(super) fn end_batch(
        &mut self,
        batch: Batch,
        instead: Option<&[u8]>,
        count: impl Fn(&mut Counters, u64),
    ) {
        for client in batch.clients {
            let Some(c) = self.clients.get_mut(client) else { continue };
            let service = c.service;
            let Some(withheld) = &mut c.withheld else { continue };
            let n = withheld.resolve(batch.number, instead);
            let popped = c.blocked.as_ref().is_some_and(|b| b.batch == Some(batch.number));
            let closes = self.service_ref(service).policy.close_lost_pops;
            if popped && closes && instead == Some(reply::UNPROVEN) {
                self.cut_client(client);
            } else {
                count(&mut self.service(service).counters, u64::from(n));
                self.show(client);
            }
            for _ in 0..n {
                self.owed_less(client, batch.up);
            }
        }
    }

    /// Gives a client what need wait no longer.
    fn show(&mut self, id: ClientId) {
        while let Some(c) = self.clients.get_mut(id)
            && let Some(withheld) = &mut c.withheld
        {
            match withheld.next_shown() {
                Some(bytes) => self.give(id, &bytes),
                None if withheld.replies.is_empty() => c.withheld = None,
                None => return,
            }
        }
    }
}
