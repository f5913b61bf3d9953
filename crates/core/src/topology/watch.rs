//! Whom to watch, how often, and whom to ask out of turn.
use super::machine::{Act, Topology};
use super::observation::{Pace, Target, TargetKind};
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
        let acts = self.watched.keys().cloned().map(Act::Ask);
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
            let gone = self.watched.keys().filter(|t| !wanted.contains(t));
            self.acts.extend(gone.cloned().map(Act::Unwatch));
            self.watched.retain(|t, _| wanted.contains(t));
            for t in wanted {
                if !self.watched.contains_key(&t) {
                    self.acts.push_back(Act::Watch(t.clone()));
                    self.watched.insert(t, Pace::Usual);
                }
            }
        }
        // No lease covers a failover that is ordered in the dark: only the nodes themselves show it.
        let dark = self.sentinels().is_some_and(|s| s.out_of_sight(self.looked_at()).is_some());
        let mut watched = mem::take(&mut self.watched);
        for (t, pace) in &mut watched {
            let wanted = self.pace(t, busy, dark);
            if *pace != wanted {
                *pace = wanted;
                self.acts.push_back(Act::Pace(t.clone(), wanted));
            }
        }
        self.watched = watched;
    }

    /// How often this one is to be asked while something goes on, or a Sentinel is out of sight, or neither.
    fn pace(&self, t: &Target, busy: bool, dark: bool) -> Pace {
        let arrive = |s: &Sentinels| s.map.get(&t.at).is_some_and(|s| s.events.arrive(self.looked_at()));
        match t.kind {
            TargetKind::Sentinel if busy => Pace::Hurried,
            TargetKind::Node if busy || dark => Pace::Hurried,
            TargetKind::Sentinel if !dark && self.sentinels().is_some_and(arrive) => Pace::Relaxed,
            _ => Pace::Usual,
        }
    }

    fn watches_all(&self) -> bool {
        let sentinels = self.sentinels().map(|s| &s.map);
        let known = |t: &Target| match t.kind {
            TargetKind::Sentinel => sentinels.is_some_and(|m| m.contains_key(&t.at)),
            TargetKind::Node => self.nodes.map.contains_key(&t.at),
            TargetKind::Guard => false,
        };
        let n = sentinels.map_or(0, |m| m.len()) + self.nodes.map.len();
        self.watched.len() == n && self.watched.keys().all(known)
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
