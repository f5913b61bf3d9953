//! What is published of one service's topology.
use super::lease::renews;
use super::machine::{Act, Held, Topology};
use super::nodes::{Key, Node};
use super::observation::Role;
use super::settings::{Source, WithoutLease};
use super::snapshot::{Endpoint, Gate, Replica, ShardView};
use super::status::EventKind;
use crate::Now;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// While it holds, a change of nothing but the reason is published at most this often.
const WHY_EVERY: Duration = Duration::from_millis(100);
/// A replica whose link to its master was up so shortly before a hold is one that the trouble has cut off.
const LINKED_BEFORE: Duration = Duration::from_secs(3);
/// A change of nothing but the replicas' lag is published at most this often.
const LAG_EVERY: Duration = Duration::from_secs(1);

impl Topology {
    /// The view as the workers are to see it.
    pub(super) fn compose(&self, now: Now) -> ShardView {
        let hold_max = self.hold_max();
        let shut = |since: Now| match since + hold_max {
            until if now >= until => Gate::Refuse,
            until => Gate::Hold { since, until },
        };
        let writes = match &self.held {
            Some(h) => shut(h.since),
            None => self.paused_gate().unwrap_or(Gate::Open),
        };
        let reads = match &self.held {
            _ if self.paused_until().is_some() => writes,
            Some(h) if self.serves_reads(h) => Gate::Open,
            Some(h) => shut(h.reads_since),
            None if self.grant.is_some() && !self.settings.hold_reads => Gate::Open,
            None => writes,
        };
        let why = match (&self.held, &self.paused) {
            (Some(h), _) => h.why.as_str().into(),
            (None, Some(p)) => p.why.clone(),
            (None, None) => self.serving.clone(),
        };
        let writes_until = self.lease.filter(|t| *t != Now::NEVER);
        ShardView {
            term: self.term,
            master: self.grant.as_ref().and_then(|g| endpoint(&g.key)),
            proven_at: self.grant.as_ref().map_or(Now::ZERO, |g| g.proven_at),
            busy: self.grant.as_ref().and_then(|g| g.busy(&self.nodes, self.oldest(now))).is_some(),
            writes_until,
            reads_until: writes_until
                .filter(|_| self.settings.fencing.without_lease == WithoutLease::HoldAll),
            kept: self.kept(now),
            replicas: self.replicas().into(),
            writes,
            reads,
            reads_from: self.reads_from(now, reads),
            deposed: self.deposed(now),
            hold_max,
            why,
        }
    }

    /// Whether reads go on during this hold.
    pub(super) fn serves_reads(&self, h: &Held) -> bool {
        h.reads && self.grant.is_some() && (h.lapsed || !self.settings.hold_reads)
    }

    /// Tells the workers, if there is something that they should know.
    pub(super) fn publish(&mut self, now: Now) {
        let view = self.compose(now);
        let before = &*self.published;
        let since = now.since(self.published_at);
        let same_lag = before.replicas == view.replicas;
        let answers = self.owed.is_some_and(|at| view.proven_at > at && view.writes.is_open());
        let changed = answers
            || (before.term, &before.master, before.writes, before.reads, &before.reads_from)
                != (view.term, &view.master, view.writes, view.reads, &view.reads_from)
            || renews(now, before.writes_until, view.writes_until)
            || renews(now, before.reads_until, view.reads_until)
            || (before.hold_max, before.kept) != (view.hold_max, view.kept)
            || (&before.deposed, before.busy) != (&view.deposed, view.busy)
            || !same_health(&before.replicas, &view.replicas)
            || (!same_lag && since >= LAG_EVERY)
            || (before.why != view.why && since >= WHY_EVERY);
        if !changed {
            return;
        }
        if self.owed.is_some_and(|at| view.proven_at > at) || self.grant.is_none() {
            self.owed = None;
        }
        self.tell_of_reads(now, &view);
        self.published = Arc::new(view);
        self.published_at = now;
        self.acts.push_back(Act::Publish(self.published.clone()));
    }

    /// Tells that the gate for reads alone has changed: within a hold, of which the beginning and the end are told anyway.
    fn tell_of_reads(&mut self, now: Now, view: &ShardView) {
        let before = &self.published;
        let gates = |v: &ShardView| (v.term, v.writes.is_open());
        if gates(before) != gates(view) || before.reads.is_open() == view.reads.is_open() {
            return;
        }
        let what = if view.reads.is_open() { "reads go on, and writes wait" } else { "reads wait too" };
        self.tell(now, EventKind::Note, format!("{what}: {}", view.why));
    }

    /// The replica that serves reads while their gate is closed: one that is linked to its master, or was when the hold
    /// began (no replica is linked to a master that has died), and has most of its data. It is kept as long as it is fit.
    fn reads_from(&self, now: Now, reads: Gate) -> Option<Endpoint> {
        let held = self.held.as_ref().filter(|_| self.settings.replica_reads && !reads.is_open())?;
        let last = self.grant.as_ref().or(self.last.as_ref())?;
        let oldest = self.oldest(now);
        let fit = |node: &Node| {
            let told = node.told.as_ref().filter(|t| node.lost.is_none() && t.sent >= oldest)?;
            let follows = match (&last.lineage, &told.report.lineage) {
                (Some(master), Some(own)) => own.replid == master.replid || own.succeeds(master),
                _ => true,
            };
            let linked = node.linked.is_some_and(|at| at >= held.since - LINKED_BEFORE);
            let replica = node.says_replica() && !told.report.loading;
            let addr = node
                .addr
                .filter(|_| follows && linked && replica && endpoint(&last.key) != node.endpoint())?;
            Some((Endpoint::Tcp(addr), told.report.offset))
        };
        let all: Vec<(Endpoint, u64)> = self.nodes.map.values().filter_map(fit).collect();
        let present = self.published.reads_from.as_ref();
        let kept = all.iter().find(|(at, _)| Some(at) == present);
        let best = kept.or_else(|| all.iter().max_by(|(a, x), (b, y)| x.cmp(y).then_with(|| b.cmp(a))));
        best.map(|(at, _)| at.clone())
    }

    fn replicas(&self) -> Vec<Replica> {
        if let Source::Static { .. } = self.settings.source {
            return Vec::new();
        }
        let master = self.grant.as_ref().map(|g| &g.key);
        let mut all: Vec<Replica> = Vec::new();
        for node in self.nodes.map.values() {
            let Some(addr) = node.addr else { continue };
            let endpoint = Endpoint::Tcp(addr);
            if master == Some(&Key::Addr(addr)) || all.iter().any(|r| r.endpoint == endpoint) {
                continue;
            }
            let up = |r: &Role| matches!(r, Role::Replica { link_up: true, .. });
            let told = node.told.as_ref().filter(|_| node.lost.is_none());
            let healthy = told.is_some_and(|t| up(&t.report.role) && !t.report.loading);
            all.push(Replica { endpoint, healthy, lag_bytes: self.lag(node) });
        }
        all.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        all
    }

    /// How far a replica is behind the granted master, by their last reports.
    pub(super) fn lag(&self, node: &Node) -> Option<u64> {
        let master = self.nodes.find(&self.grant.as_ref()?.key)?.1.told.as_ref()?;
        let replica = node.told.as_ref().filter(|_| node.says_replica())?;
        Some(master.report.offset.saturating_sub(replica.report.offset))
    }
}

/// Whether two lists differ in nothing but the lag.
pub(super) fn same_health(a: &[Replica], b: &[Replica]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (&a.endpoint, a.healthy) == (&b.endpoint, b.healthy))
}

/// Where a server listens, if that is known.
pub(super) fn endpoint(key: &Key) -> Option<Endpoint> {
    match key {
        Key::Addr(addr) => Some(Endpoint::Tcp(*addr)),
        Key::Name(_) => None,
    }
}
