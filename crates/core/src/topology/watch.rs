//! Whom to watch, how often, and whom to ask out of turn.
use super::machine::{Act, Topology};
use super::observation::{Target, TargetKind};
use super::sentinels::Sentinels;
use super::settings::{HostPort, Settings, Source};
use crate::Now;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

/// Everybody is asked out of turn at most this often, so that nobody who keeps changing his mind makes us spin.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(5);
/// How often a node that was selected to be promoted is asked, and for how long (then as everybody while it holds).
pub(super) const CHASE_EVERY: Duration = Duration::from_millis(20);
const CHASE_FOR: Duration = Duration::from_secs(10);

impl Topology {
    /// Asks everybody, if that is wanted and due.
    pub(super) fn ask(&mut self, now: Now) {
        if !self.ask_wanted || now < self.asked_at + ASK_EVERY {
            return;
        }
        (self.asked_at, self.ask_wanted) = (now, false);
        let acts = self.watched.iter().cloned().map(Act::Ask);
        self.acts.extend(acts);
    }

    /// Asks the nodes that may be promoted at any moment, as often as is reasonable.
    pub(super) fn chase(&mut self, now: Now) {
        if self.held.is_none() || now < self.chased_at + CHASE_EVERY {
            return;
        }
        let acts: Vec<Act> = self.candidates(now).map(|at| Act::Ask(Target::node(at.clone()))).collect();
        if !acts.is_empty() {
            self.chased_at = now;
            self.acts.extend(acts);
        }
    }

    /// The selected nodes, until they are granted.
    pub(super) fn candidates(&self, now: Now) -> impl Iterator<Item = &HostPort> {
        let held = self.sentinels().filter(|_| self.held.is_some());
        let all = held.into_iter().flat_map(Sentinels::candidates);
        let recent = all.filter(move |(_, since)| now.since(*since) < CHASE_FOR);
        recent.filter_map(|(at, _)| Some(self.nodes.find(&self.nodes.key(at))?.0))
    }

    pub(super) fn note_configured(&mut self, now: Now) {
        for at in configured_nodes(&self.settings.source) {
            self.nodes.note(now, &at);
        }
    }

    /// Has everything watched that should be, often while something goes on.
    pub(super) fn arrange(&mut self) {
        let last = self.grant.as_ref().or(self.last.as_ref()).map(|g| g.key.clone());
        self.nodes.prune(last.as_ref());
        let busy = self.held.is_some()
            || self.is_switching()
            || self.sentinels().is_some_and(|s| s.counted().any(|(_, s)| s.stage != Default::default()));
        if !self.watches_all() {
            let sentinels = self.sentinels().into_iter().flat_map(|s| s.map.keys());
            let sentinels = sentinels.cloned().map(Target::sentinel);
            let wanted: BTreeSet<Target> =
                sentinels.chain(self.nodes.map.keys().cloned().map(Target::node)).collect();
            self.acts.extend(self.watched.difference(&wanted).cloned().map(Act::Unwatch));
            for t in wanted.difference(&self.watched) {
                self.acts.push_back(Act::Watch(t.clone()));
                if hurried(t, self.hurrying) {
                    self.acts.push_back(Act::Hurry(t.clone(), true));
                }
            }
            self.watched = wanted;
        }
        // No lease covers a failover that is ordered in the dark: only the nodes themselves show it.
        let dark = self.sentinels().is_some_and(|s| s.dark(self.looked_at()));
        let (before, after) = (self.hurrying, (busy, busy || dark));
        let changed = self.watched.iter().filter(|t| hurried(t, before) != hurried(t, after));
        let acts: Vec<Act> = changed.map(|t| Act::Hurry(t.clone(), hurried(t, after))).collect();
        self.acts.extend(acts);
        self.hurrying = after;
    }

    fn watches_all(&self) -> bool {
        let sentinels = self.sentinels().map(|s| &s.map);
        let known = |t: &Target| match t.kind {
            TargetKind::Sentinel => sentinels.is_some_and(|m| m.contains_key(&t.at)),
            TargetKind::Node => self.nodes.map.contains_key(&t.at),
            TargetKind::Guard => false,
        };
        let n = sentinels.map_or(0, |m| m.len()) + self.nodes.map.len();
        self.watched.len() == n && self.watched.iter().all(known)
    }
}

/// Whether this one is asked often, if Sentinels or nodes are.
fn hurried(t: &Target, (sentinels, nodes): (bool, bool)) -> bool {
    match t.kind {
        TargetKind::Sentinel => sentinels,
        TargetKind::Node => nodes,
        TargetKind::Guard => false,
    }
}

pub(super) fn configured_nodes(source: &Source) -> Vec<HostPort> {
    match source {
        Source::Sentinels { .. } => Vec::new(),
        Source::Roles { nodes, .. } => nodes.clone(),
        Source::Static { nodes, .. } => nodes.iter().map(|n| n.at.clone()).collect(),
    }
}

/// Whether the observers of one must be made anew for the other.
pub(super) fn observed_differently(a: &Settings, b: &Settings) -> bool {
    let name = |s: &Settings| match &s.source {
        Source::Sentinels { master, .. } => Some(master.clone()),
        _ => None,
    };
    (&a.sentinel_credential, &a.node_credential, a.interval, a.timeout, name(a), mem::discriminant(&a.source))
        != (
            &b.sentinel_credential,
            &b.node_credential,
            b.interval,
            b.timeout,
            name(b),
            mem::discriminant(&b.source),
        )
}
