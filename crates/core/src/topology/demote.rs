//! Deposed masters that still say master are told to follow the new one: about a second after a switch, and not some ten
//! seconds later by the Sentinels. Only what they would do anyway is done, and only when nothing is in doubt:
//!
//! - the grant stands, rests on a majority that names it *now*, and nothing holds;
//! - every Sentinel that answers is calm, or tells that the failover is done;
//! - the node says master now, was granted before or is what the granted node was promoted out of, and no majority named it last.
use super::judge::Grant;
use super::machine::{Act, Topology};
use super::nodes::{Key, Node};
use super::observation::Stage;
use super::sentinels::Sentinels;
use super::settings::HostPort;
use super::snapshot::{Deposed, Endpoint};
use super::status::EventKind;
use super::view::endpoint;
use crate::Now;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// So often a node is told, so far apart; then it is left to the Sentinels.
const TRIES_MAX: u32 = 3;
const RETRY: Duration = Duration::from_secs(2);
/// A node that answers takes no longer, beyond the time from question to question.
const ANSWERS_WITHIN: Duration = Duration::from_millis(500);
/// Former masters that are remembered.
const FORMER_MAX: usize = 16;

/// What is known of deposed masters.
#[derive(Clone, Debug, Default)]
pub(super) struct Demotions {
    /// Who was granted before, the newest last.
    former: VecDeque<Key>,
    told: BTreeMap<HostPort, Told>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Told {
    tries: u32,
    again_at: Now,
    /// It is being told right now.
    busy: bool,
}

impl Demotions {
    fn note(&mut self, key: &Key) {
        if self.former.back() != Some(key) {
            self.former.retain(|k| k != key);
            if self.former.len() >= FORMER_MAX {
                self.former.pop_front();
            }
            self.former.push_back(key.clone());
        }
    }
}

impl Topology {
    /// Has deposed masters told, and those that no longer need it left alone.
    pub(super) fn demote(&mut self, now: Now) {
        if let Some(g) = &self.grant {
            self.demotions.note(&g.key);
        }
        let deposed = self.deposed_masters(now);
        // One that says replica was told; what came of it is still to be heard.
        let follows = |at: &HostPort| self.nodes.map.get(at).is_none_or(|n| n.says_replica());
        for (at, told) in &mut self.demotions.told {
            if told.busy && !follows(at) && !deposed.iter().any(|(node, _)| node == at) {
                told.busy = false;
                self.acts.push_back(Act::Spare(at.clone()));
            }
        }
        self.demotions.told.retain(|at, t| t.busy || !follows(at));
        for (node, to) in deposed {
            let told = self.demotions.told.entry(node.clone()).or_insert(Told {
                tries: 0,
                again_at: now,
                busy: false,
            });
            if told.busy || told.tries >= TRIES_MAX || now < told.again_at {
                continue;
            }
            *told = Told { tries: told.tries + 1, again_at: now + RETRY, busy: true };
            self.acts.push_back(Act::Demote { node, to });
        }
    }

    /// What came of telling a node ([`Act::Demote`]).
    pub fn demoted(&mut self, now: Now, node: &HostPort, outcome: Result<String, String>) {
        let Some(told) = self.demotions.told.get_mut(node).filter(|t| t.busy) else { return };
        (told.busy, told.again_at) = (false, now + RETRY);
        let last = told.tries >= TRIES_MAX;
        match outcome {
            Ok(text) => self.tell(now, EventKind::Note, format!("a deposed master is told by us: {text}")),
            Err(why) => {
                let next = if last { "it is left to the Sentinels" } else { "it is tried again" };
                let text = format!(
                    "{node} still says that it is master, and could not be told to follow: {why}; {next}"
                );
                self.tell(now, EventKind::Warning, text);
            }
        }
        self.timeout(now);
    }

    /// The newest former master that answers, still says that it is one, and will be told otherwise; or else the last
    /// one, if it answers.
    pub(super) fn deposed(&self, now: Now) -> Option<Deposed> {
        let granted = self.grant.as_ref().map(|g| &g.key);
        let former = || self.demotions.former.iter().rev().filter(|key| Some(*key) != granted);
        let last = former().next()?;
        if let Some(at) = self.to_be_told(former(), self.oldest(now)) {
            return Some(Deposed { at, to_be_told: true });
        }
        let (_, node) = self.nodes.find(last)?;
        let recent = now - (self.settings.interval + ANSWERS_WITHIN);
        let answers = node.lost.is_none() && node.told.as_ref().is_some_and(|t| t.sent >= recent);
        endpoint(last).filter(|_| answers).map(|at| Deposed { at, to_be_told: false })
    }

    /// The first of these that says master and will be told otherwise.
    fn to_be_told<'a>(&self, mut former: impl Iterator<Item = &'a Key>, oldest: Now) -> Option<Endpoint> {
        if !self.settings.demote || self.sentinels().is_none() {
            return None;
        }
        let claimants = self.nodes.claimants(oldest);
        let key = former.find(|key| claimants.iter().any(|(claims, _)| claims == *key))?;
        // Who could not be told may never be.
        let told = self.nodes.find(key).and_then(|(at, _)| self.demotions.told.get(at));
        endpoint(key).filter(|_| told.is_none_or(|told| told.busy))
    }

    /// Who is to be told, and whom to follow.
    fn deposed_masters(&self, now: Now) -> Vec<(HostPort, HostPort)> {
        let oldest = self.oldest(now);
        let grant = self.grant.as_ref().filter(|g| {
            self.settings.demote && self.held.is_none() && g.provisional.is_none() && !self.is_switching()
        });
        let (Some(grant), Some(sentinels)) = (grant, self.sentinels()) else { return Vec::new() };
        let Some(to) = self.named_now(sentinels, grant, oldest) else { return Vec::new() };
        let mut all: Vec<(HostPort, HostPort)> = Vec::new();
        for (key, node) in self.nodes.claimants(oldest) {
            if key != grant.key && self.was_master(&key, node, grant) && !self.is_named(sentinels, &key) {
                if let Some((at, _)) = self.nodes.find(&key) {
                    all.push((at.clone(), to.clone()));
                }
            }
        }
        all
    }

    /// How a majority calls the granted node, if it names it now and nothing goes on.
    fn named_now(&self, sentinels: &Sentinels, grant: &Grant, oldest: Now) -> Option<HostPort> {
        let fresh = || sentinels.counted().filter_map(|(_, s)| s.vote(oldest));
        let names = || fresh().filter(|v| v.epoch >= grant.epoch && self.nodes.key(&v.master) == grant.key);
        let calm = fresh().all(|v| matches!(v.stage, Stage::Calm | Stage::Promoted));
        let settled = sentinels
            .counted()
            .filter(|(_, s)| !s.dead())
            .all(|(_, s)| matches!(s.stage, Stage::Calm | Stage::Promoted));
        let majority = names().count() >= sentinels.need();
        names().next().filter(|_| majority && calm && settled).map(|v| v.master.clone())
    }

    fn is_named(&self, sentinels: &Sentinels, key: &Key) -> bool {
        let names = sentinels.counted().filter_map(|(_, s)| s.said.as_ref());
        names.filter(|(_, v)| self.nodes.key(&v.master) == *key).count() >= sentinels.need()
    }

    fn was_master(&self, key: &Key, node: &Node, grant: &Grant) -> bool {
        let lineage = grant.lineage.as_ref().zip(node.lineage());
        let promoted_out_of = lineage.is_some_and(|(ours, theirs)| ours.succeeds(theirs));
        promoted_out_of || self.demotions.former.contains(key)
    }
}
