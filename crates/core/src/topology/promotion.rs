//! Proof of promotion: a new master about a second before a majority of the Sentinels names it.
//!
//! The leader of a failover notices the promotion that it ordered by a poll each second, and the others learn it from
//! the leader. Whoever saw all that led to the promotion need not wait for that. All of these must have been seen:
//!
//! 1. one Sentinel may promote: a majority voted for it in one epoch, later than the deposed master's, or it was ordered
//!    to fail over while a majority is in our sight;
//! 2. it selected a node, which had said before that it was a replica of the deposed master;
//! 3. that node now says master, and was promoted out of the deposed master's history (`master_replid2`);
//!    (one that has the master hand over, as Valkey's do, must have seen that by itself);
//! 4. nothing contradicts: no Sentinel names another node later than the deposed one, none has voted for another leader
//!    since, none fails over to another node, and no other node was promoted out of the same history.
//!
//! The machine fences the deposed master first. The grant is provisional until a majority names the node; it is held
//! when the leader gives up, or is lost, or a failover-timeout has passed; and it ends when the node turns replica again.
//! What this risks is in docs/adr/promotion-proof.md.
use super::judge::{Facts, Grant};
use super::nodes::{Key, Node};
use super::observation::{Lineage, Stage, View};
use super::sentinels::{Sentinel, Sentinels, TILT};
use super::settings::HostPort;
use crate::Now;
use alloc::format;
use alloc::string::String;

/// A promotion that no majority of the Sentinels names yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Promotion {
    /// The node that was promoted.
    pub(super) key: Key,
    /// A lower bound of the config epoch that it will be named at.
    pub(super) epoch: u64,
    /// Which Sentinel promoted it.
    pub(super) leader: HostPort,
    /// Out of whose history.
    pub(super) deposed: Key,
    /// When all of that was seen.
    pub(super) since: Now,
    /// A majority must name it until then.
    pub(super) until: Now,
    /// By which proof, for people.
    pub(super) how: String,
}

impl Sentinels {
    /// The promotion that is proven, or that the standing grant rests on.
    pub(super) fn promotion(&self, f: &Facts<'_>) -> Option<Promotion> {
        let last = f.last?;
        if last.provisional.is_some() {
            return last.provisional.as_deref().filter(|_| f.standing.is_some()).cloned();
        }
        if !f.early {
            return None;
        }
        self.counted().find_map(|(at, s)| self.promoted_by(f, last, at, s))
    }

    /// The promotion by the Sentinel at `at`, with all that proves it.
    fn promoted_by(&self, f: &Facts<'_>, last: &Grant, at: &HostPort, s: &Sentinel) -> Option<Promotion> {
        let view = s.vote(f.oldest).filter(|_| !s.tilt)?;
        // When it has seen the promotion it cuts the clients of the new master (sentinel.c, sentinelKillClients): what is in
        // flight by then would be lost.
        if s.coordinated && s.stage == Stage::Acts {
            return None;
        }
        let epoch = last.epoch + 1;
        let key = f.nodes.key(self.choice_of(f, last, s)?);
        let node = f.nodes.find(&key).map(|(_, n)| n)?;
        let followed = node.followed.as_ref().is_some_and(|of| f.nodes.key(of) == last.key);
        let lineage = node.lineage().zip(last.lineage.as_ref());
        let promoted = node.says_master() && lineage.is_some_and(|(theirs, ours)| theirs.succeeds(ours));
        if key == last.key || !followed || !promoted {
            return None;
        }
        let mandate = self.mandate(f, last, at, s)?;
        let how = format!(
            "Sentinel {at}, {mandate}, selected it, and it was promoted out of the history of {}",
            last.key
        );
        let (since, until) = (f.now, f.now + view.failover_timeout);
        let p = Promotion { key, epoch, leader: at.clone(), deposed: last.key.clone(), since, until, how };
        self.contradiction(f, &p).is_none().then_some(p)
    }

    /// The node that a leader has selected.
    fn choice_of<'a>(&self, f: &Facts<'_>, last: &Grant, s: &'a Sentinel) -> Option<&'a HostPort> {
        let (_, view) = s.said.as_ref()?;
        match s.stage {
            Stage::Acts => s.selected.as_ref(),
            _ if view.epoch > last.epoch && f.nodes.key(&view.master) != last.key => Some(&view.master),
            _ => None,
        }
    }

    /// Why this Sentinel may promote: an order while a majority is in sight, or the votes of a majority, and none of
    /// its voters has voted for another since.
    fn mandate(&self, f: &Facts<'_>, last: &Grant, at: &HostPort, s: &Sentinel) -> Option<String> {
        let vote = |(o, other): (&HostPort, &'_ Sentinel)| {
            let vote = other.voted(o, at).filter(|v| v.epoch > last.epoch)?;
            Some((Some(&*vote.leader) == s.id.as_deref(), vote.epoch))
        };
        let own = vote((at, s)).filter(|(for_it, _)| *for_it).map(|(_, epoch)| epoch);
        let others = || self.counted().filter(|(o, _)| *o != at).filter_map(vote);
        let epoch = others().filter(|(for_it, _)| *for_it).map(|(_, epoch)| epoch).max();
        let rival = others().filter(|(for_it, _)| !for_it).map(|(_, epoch)| epoch).max();
        if s.forced {
            let seen = self.counted().filter(|(_, s)| s.vote(f.oldest).is_some()).count();
            let alone = rival.is_none_or(|r| own.is_some_and(|o| o > r));
            return (seen >= self.need() && alone)
                .then(|| format!("which was ordered to fail over in the sight of {seen} of {}", self.known));
        }
        // A leader votes for itself: that it acts says so. Who voted for another in the same epoch was outvoted.
        let epoch = epoch.max(own)?;
        let votes = 1 + others().filter(|v| *v == (true, epoch)).count();
        (votes >= self.need() && rival.is_none_or(|r| r <= epoch))
            .then(|| format!("elected for epoch {epoch} by {votes} of {}", self.known))
    }

    /// What speaks against a promotion, besides what speaks against any grant.
    fn contradiction(&self, f: &Facts<'_>, p: &Promotion) -> Option<String> {
        let told = |s: &Sentinel| s.said.as_ref().map(|(_, v)| (v.epoch, f.nodes.key(&v.master)));
        let other = self.counted().find_map(|(at, s)| {
            let (epoch, key) = told(s)?;
            (epoch >= p.epoch && key != p.key).then(|| format!("Sentinel {at} names {key} at epoch {epoch}"))
        });
        other.or_else(|| self.second_leader(f, p)).or_else(|| sibling(f, p))
    }

    fn second_leader(&self, f: &Facts<'_>, p: &Promotion) -> Option<String> {
        let acts = |s: &Sentinel| s.stage == Stage::Acts && !s.dead();
        let (at, _) = self.counted().find(|(at, s)| {
            acts(s) && **at != p.leader && s.selected.as_ref().is_none_or(|n| f.nodes.key(n) != p.key)
        })?;
        Some(format!("Sentinel {at} is failing over too"))
    }

    /// Why a grant by promotion cannot go on without a majority.
    pub(super) fn unconfirmed(&self, f: &Facts<'_>, p: &Promotion) -> Option<String> {
        let why =
            |what: String| Some(format!("{} was promoted, but no majority names it, and {what}", p.key));
        if !f.early {
            return why("only a majority is trusted".into());
        }
        if f.now >= p.until {
            return why(format!("the failover of Sentinel {} has run out of time", p.leader));
        }
        match self.map.get(&p.leader) {
            Some(Sentinel { lost: Some((gone, _)), .. }) => {
                return why(format!("Sentinel {} {gone}", p.leader));
            }
            Some(s) if s.tilt => return why(format!("Sentinel {} {TILT}", p.leader)),
            // A process that was stopped runs again in TILT (sentinel.c, SENTINEL_TILT_TRIGGER): it says for 30 s what it said
            // before, and the others undo meanwhile what it has told nobody.
            Some(s) if s.away_at.is_some_and(|at| at >= p.since) && !names(f, p, s) => {
                let leader = &p.leader;
                return why(format!("Sentinel {leader} was away, and has not shown since that it goes on"));
            }
            Some(s) if s.counted && Self::stands_by(f, p, s) => {}
            _ => return why(format!("Sentinel {} no longer stands by it", p.leader)),
        }
        self.contradiction(f, p).and_then(why)
    }

    fn stands_by(f: &Facts<'_>, p: &Promotion, s: &Sentinel) -> bool {
        let selects = s.stage == Stage::Acts && s.selected.as_ref().is_some_and(|n| f.nodes.key(n) == p.key);
        selects || names(f, p, s)
    }

    /// The nodes that may be promoted at any moment, and since when.
    pub(super) fn candidates(&self) -> impl Iterator<Item = (&HostPort, Now)> {
        let acting = self.counted().filter(|(_, s)| s.stage == Stage::Acts && !s.dead());
        acting.filter_map(|(_, s)| Some((s.selected.as_ref()?, s.acts_since?)))
    }
}

/// Whether a Sentinel names the promoted node.
fn names(f: &Facts<'_>, p: &Promotion, s: &Sentinel) -> bool {
    let names = |v: &View| v.epoch >= p.epoch && f.nodes.key(&v.master) == p.key;
    s.said.as_ref().is_some_and(|(_, v)| names(v))
}

/// Another node that was promoted out of the same history.
fn sibling(f: &Facts<'_>, p: &Promotion) -> Option<String> {
    let of = |n: &Node| n.lineage().and_then(|l: &Lineage| l.replid2.clone());
    let history = of(f.nodes.find(&p.key)?.1)?;
    let others = f.nodes.claimants(f.oldest).into_iter();
    let mut others = others.filter(|(key, _)| *key != p.key && *key != p.deposed);
    let (key, _) = others.find(|(_, n)| of(n).as_ref() == Some(&history))?;
    Some(format!("{key} was promoted out of the same history"))
}
