//! What is published of one service's topology.
use super::machine::Topology;
use super::nodes::{Key, Node};
use super::observation::Role;
use super::settings::Source;
use super::snapshot::{Endpoint, Gate, Replica, ShardView};
use crate::Now;
use alloc::vec::Vec;

impl Topology {
    /// The view as the workers are to see it.
    pub(super) fn compose(&self, now: Now) -> ShardView {
        let hold_max = self.hold_max();
        let shut = self.held.as_ref().map(|h| match h.since + hold_max {
            until if now >= until => Gate::Refuse,
            until => Gate::Hold { since: h.since, until },
        });
        let writes = shut.unwrap_or(Gate::Open);
        let may_read = self.grant.is_some() && !self.settings.hold_reads;
        let reads = match &self.held {
            Some(h) if h.reads && may_read => Gate::Open,
            _ => writes,
        };
        let why = match &self.held {
            Some(h) => h.why.as_str().into(),
            None => self.serving.clone(),
        };
        ShardView {
            term: self.term,
            master: self.grant.as_ref().and_then(|g| endpoint(&g.key)),
            proven_at: self.grant.as_ref().map_or(Now::ZERO, |g| g.proven_at),
            writes_until: None,
            kept: self.kept(now),
            replicas: self.replicas().into(),
            writes,
            reads,
            hold_max,
            why,
        }
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
