//! What the Sentinels together imply: the majority at the highest config epoch, and what speaks against it.
//!
//! A node is proven when a majority of the known Sentinels name it at the highest config epoch seen and its own ROLE
//! agrees (or, until they do, by its promotion: `promotion`). A grant that stands needs no majority to go on: it goes on until there is a sign that it may have ended,
//! and after a sign until each sign is explained. The signs, in the order in which they are looked at:
//!
//! 1. a Sentinel names another node, or a higher epoch (`dissent`);
//! 2. a failover goes on (`stages`);
//! 3. a Sentinel has voted for one that we cannot see (`elections`);
//! 4. a failover was given up after its order to promote may have been sent (`aborts`);
//! 5. another node says master and continues this one's history (`rival`);
//! 6. a replica has vanished while a Sentinel is out of sight (`followers`);
//! 7. the Sentinels out of sight could have elected another master by now (`lease`), and, after any of these signs, until
//!    so many have answered again that the others could not elect among themselves (`sight`);
//! 8. the node itself ([`Facts::prove`]).
use super::judge::{Facts, Grant, Verdict, Wait};
use super::lease::votes_needed;
use super::nodes::{Key, Node};
use super::observation::{Lineage, Stage, View};
use super::promotion::Promotion;
use super::sentinels::{Sentinel, Sentinels};
use super::settings::{HostPort, WithoutLease};
use crate::Now;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// How long a single Sentinel can hold writes by a sign that nothing else supports: with the proof that then releases
/// them, half a second at most.
const MOMENT: Duration = Duration::from_millis(450);
/// How long a single Sentinel can hold writes by naming, at a higher epoch, a node that does not answer us or that has
/// nothing to do with the present master. Longer than two hello periods (2 s): what is true has spread by then.
const GOSSIP: Duration = Duration::from_secs(5);
/// How long all Sentinels that answer must agree on a lower epoch to begin a new era.
const ERA: Duration = Duration::from_secs(5);
/// A promotion by Sentinels is named by a majority within this time (the leader polls INFO each second): afterwards a
/// node that promoted itself, or was promoted by hand, is no longer taken for their choice.
pub(super) const NOTICED: Duration = Duration::from_secs(3);
/// When the selected replica cannot be asked, how long after an abort the majority must still name the old master.
const SETTLED: Duration = Duration::from_secs(2);
/// What a Sentinel's failover may take beyond its failover-timeout before its flag is no longer believed: in TILT
/// (30 s, sentinel_tilt_period) it stands still, and then goes on.
const FAILOVER_GRACE: Duration = Duration::from_secs(31);

/// What a majority names.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Choice {
    key: Key,
    epoch: u64,
}

impl Sentinels {
    /// The verdict of the Sentinels and the nodes together.
    pub(super) fn judge(&mut self, f: &Facts<'_>) -> Verdict {
        self.age(f.now, f.oldest);
        let majority = self.majority(f);
        let (choice, era) = self.order(f, majority.clone());
        // What a majority names counts for more, unless it is still the deposed master.
        let old = |c: &Choice| f.last.is_some_and(|l| l.key == c.key && l.provisional.is_none());
        let behind = choice.as_ref().is_none_or(old);
        if let Some(p) = self.promotion(f).filter(|_| behind) {
            return self.judge_promotion(f, p, majority);
        }
        let subject = match (&choice, f.standing) {
            (Some(c), Some(g)) if c.key != g.key => {
                return Verdict::Withdraw(format!("{}, not {}", self.describe(f, &c.key, c.epoch), g.key));
            }
            (Some(c), _) => c.clone(),
            (None, Some(g)) => Choice { key: g.key.clone(), epoch: g.epoch },
            (None, None) => return self.undecided(f, era),
        };
        self.note_dissent(f, &subject, choice.is_some());
        self.note_lapse(f, &subject.key);
        self.note_followers(f, &subject.key);
        match self.examine(f, &subject, choice.is_some(), None) {
            Ok(()) => Verdict::serve(subject.key, subject.epoch),
            // What is doubted of the standing grant may never be cleared up when the Sentinels know nothing of it any more.
            Err(verdict) => verdict.besides(era),
        }
    }

    /// The verdict on a node that was promoted and is not named by a majority yet.
    fn judge_promotion(&mut self, f: &Facts<'_>, p: Promotion, majority: Option<Choice>) -> Verdict {
        match f.standing {
            Some(g) if g.key != p.key => {
                return Verdict::Withdraw(format!("{} is master now, not {}: {}", p.key, g.key, p.how));
            }
            Some(_) => {
                if let Some(why) = self.refuted(f, &p, majority) {
                    return Verdict::Withdraw(why);
                }
            }
            None => {}
        }
        let subject = Choice { key: p.key.clone(), epoch: p.epoch };
        self.note_dissent(f, &subject, false);
        self.note_lapse(f, &subject.key);
        match self.examine(f, &subject, false, Some(&p)) {
            Ok(()) => Verdict::Serve { key: subject.key, epoch: subject.epoch, promotion: Some(Box::new(p)) },
            Err(verdict) => verdict,
        }
    }

    /// Why a grant by promotion has ended: by its node's own word; or the promotion came to nothing, its node has been
    /// away for a while, and the majority still names the deposed master.
    fn refuted(&self, f: &Facts<'_>, p: &Promotion, majority: Option<Choice>) -> Option<String> {
        if let Err(Verdict::Withdraw(why)) = f.prove(&p.key) {
            return Some(why);
        }
        let why = self.unconfirmed(f, p)?;
        let (_, since) = f.nodes.find(&p.key)?.1.lost.as_ref()?;
        let settled = f.now.since(*since) >= SETTLED && majority.is_some_and(|c| c.key == p.deposed);
        settled.then(|| format!("{why}; it is away, and the majority names {}", p.deposed))
    }

    fn examine(
        &self,
        f: &Facts<'_>,
        subject: &Choice,
        named: bool,
        promotion: Option<&Promotion>,
    ) -> Result<(), Verdict> {
        let pending = |why: Option<String>, reads: bool| match why {
            Some(why) => {
                let reads = reads && f.readable(&subject.key);
                Err(Verdict::Hold(Wait { why, trouble: true, reads, only_sign: false, lapsed: false }))
            }
            None => Ok(()),
        };
        if f.standing.is_none() && f.last.is_none() {
            if let Some(why) = self.untried() {
                return Err(Verdict::awaiting(why));
            }
        }
        pending(promotion.and_then(|p| self.unconfirmed(f, p)), false)?;
        pending(self.rival(f, subject, named), false)?;
        pending(self.dissent(f, subject, named, promotion), false)?;
        pending(self.stages(f, subject), true)?;
        pending(self.elections(f, subject), true)?;
        pending(self.aborts(f, subject, named), true)?;
        pending(self.vanished(f, &subject.key), true)?;
        self.leased(f, subject)?;
        f.prove(&subject.key)?;
        if let Some(why) = self.sight(f.doubt_at) {
            return Err(Verdict::awaiting(why));
        }
        Ok(())
    }

    fn leased(&self, f: &Facts<'_>, subject: &Choice) -> Result<(), Verdict> {
        let lapsed = self.lapsed(f, &subject.key);
        let trouble = lapsed.is_some();
        let Some(why) = lapsed.or_else(|| self.aftermath(f, &subject.key)) else { return Ok(()) };
        let reads = self.fencing.without_lease == WithoutLease::HoldWrites && f.readable(&subject.key);
        Err(Verdict::Hold(Wait { why, trouble, reads, only_sign: false, lapsed: true }))
    }

    /// What a majority names, if it agrees.
    fn majority(&self, f: &Facts<'_>) -> Option<Choice> {
        let votes: Vec<(Key, u64)> = self
            .map
            .values()
            .filter_map(|s| s.vote(f.oldest))
            .map(|v| (f.nodes.key(&v.master), v.epoch))
            .collect();
        let need = if f.last.is_none() { self.need_first(f.oldest) } else { self.need() };
        let winner = votes.iter().find(|v| votes.iter().filter(|o| o == v).count() >= need)?;
        Some(Choice { key: winner.0.clone(), epoch: winner.1 })
    }

    /// Orders what the majority names after the last grant: an older view does not win, unless a new era has begun.
    /// Also says, for the operator, that one may have begun.
    fn order(&mut self, f: &Facts<'_>, majority: Option<Choice>) -> (Option<Choice>, Option<String>) {
        let Some(last) = f.last else { return (majority, None) };
        let Some(c) = majority else {
            self.era = None;
            return (None, None);
        };
        if c.epoch >= last.epoch {
            self.era = None;
            return (Some(c), None);
        }
        let agreed = self.map.values().filter_map(|s| s.vote(f.oldest));
        let unanimous = agreed.into_iter().all(|v| v.epoch == c.epoch && f.nodes.key(&v.master) == c.key);
        let since = match &self.era {
            Some((key, epoch, since)) if *key == c.key && *epoch == c.epoch && unanimous => *since,
            _ => f.now,
        };
        self.era = Some((c.key.clone(), c.epoch, since));
        let waited = unanimous && f.now.since(since) >= ERA;
        if f.trusted || (waited && continues(f, last, &c.key)) {
            return (Some(c), None);
        }
        if c.key == last.key && f.standing.is_some_and(|g| g.provisional.is_none()) {
            // They agree with the grant that stands; only their numbering is new.
            return (Some(Choice { key: c.key, epoch: last.epoch }), None);
        }
        let why = format!(
            "the Sentinels name {} at config epoch {}, which is older than the last grant's ({} at {}); if they were \
             set up anew and are right, say `pointsman trust`",
            c.key, c.epoch, last.key, last.epoch
        );
        (None, Some(why))
    }

    fn undecided(&self, f: &Facts<'_>, era: Option<String>) -> Verdict {
        if let Some(why) = era {
            return Verdict::trouble(why);
        }
        let said: Vec<String> = self.counted().map(|(at, s)| account(f, at, s)).collect();
        let need = self.need_first(f.oldest);
        if f.last.is_none() && need > self.need() {
            return Verdict::trouble(format!(
                "{need} Sentinels must name a master, as those that are known count others that they do not tell \
                 (add them to `sentinels`): {}",
                said.join(", ")
            ));
        }
        let why =
            format!("no majority of the {} known Sentinels names a master: {}", self.known, said.join(", "));
        Verdict::trouble(why)
    }

    /// Before the first grant each configured Sentinel must have been tried, so that who answers first decides nothing.
    fn untried(&self) -> Option<String> {
        let (at, _) = self.map.iter().find(|(_, s)| s.configured && !s.tried)?;
        Some(format!("Sentinel {at} was not heard yet"))
    }

    fn note_dissent(&mut self, f: &Facts<'_>, subject: &Choice, named: bool) {
        for s in self.map.values_mut() {
            let view = s.said.as_ref().map(|(_, v)| v).filter(|v| s.counted && contradicts(f, v, subject));
            s.dissents_since = view.and(s.dissents_since.or(Some(f.now)));
            let naming = view.map(|v| (f.nodes.key(&v.master), subject.key.clone(), v.epoch));
            let outvoted = |(key, _, epoch): &(Key, Key, u64)| {
                named && *epoch == subject.epoch && is_out_of_patience(f, subject, key, s.dissents_since)
            };
            // A majority of its epoch has decided, also when that majority has died since.
            s.overruled = naming.filter(|n| s.overruled.as_ref() == Some(n) || outvoted(n));
        }
    }

    fn dissent(
        &self,
        f: &Facts<'_>,
        subject: &Choice,
        named: bool,
        promotion: Option<&Promotion>,
    ) -> Option<String> {
        self.counted().find_map(|(at, s)| {
            let (since, (_, view)) = (s.dissents_since?, s.said.as_ref()?);
            let key = f.nodes.key(&view.master);
            // The epoch of a promotion is a lower bound: who names its node at a higher one agrees.
            if promotion.is_some() && key == subject.key {
                return None;
            }
            if s.overruled.is_some() || named && is_out_of_patience(f, subject, &key, Some(since)) {
                return None;
            }
            Some(format!(
                "Sentinel {at} names {key} at config epoch {}, against {} at {}",
                view.epoch, subject.key, subject.epoch
            ))
        })
    }

    fn stages(&self, f: &Facts<'_>, subject: &Choice) -> Option<String> {
        let about =
            |s: &Sentinel| s.said.as_ref().is_some_and(|(_, v)| f.nodes.key(&v.master) == subject.key);
        let suspecting = self.counted().filter(|(_, s)| !s.dead() && s.stage >= Stage::Suspects);
        let suspecting = suspecting.filter(|(_, s)| s.stage < Stage::Promoted && about(s)).count();
        self.counted().filter(|(_, s)| !s.dead()).find_map(|(at, s)| match s.stage {
            // A failover to the subject does it no harm.
            Stage::Acts if s.selected.as_ref().is_some_and(|n| f.nodes.key(n) == subject.key) => None,
            Stage::Acts => {
                let limit = s.said.as_ref().map_or(Duration::from_secs(180), |(_, v)| v.failover_timeout);
                let since = s.acts_since.unwrap_or(f.now);
                let chosen = s.selected.as_ref().map_or(String::new(), |n| format!(", it selected {n}"));
                (f.now.since(since) < limit.saturating_add(FAILOVER_GRACE))
                    .then(|| format!("Sentinel {at} is failing over{chosen}"))
            }
            Stage::Tries if about(s) && suspecting >= self.need() => {
                Some(format!("{suspecting} of {} Sentinels take {} for down", self.known, subject.key))
            }
            Stage::Tries if about(s) && f.now.since(s.tries_since.unwrap_or(f.now)) < MOMENT => {
                // Its flags, which come later, would tell.
                Some(format!(
                    "Sentinel {at} takes {} for objectively down, or was ordered to fail over",
                    subject.key
                ))
            }
            _ => None,
        })
    }

    /// A vote for a Sentinel out of sight, who may be elected by it and promote: its hellos tell the voter within this time.
    fn elections(&self, f: &Facts<'_>, subject: &Choice) -> Option<String> {
        self.counted().find_map(|(at, s)| {
            let (when, vote) = s.voted.as_ref()?;
            let open = vote.epoch > subject.epoch && f.now.since(*when) < GOSSIP;
            (open && !self.in_sight(&vote.leader, *when)).then(|| {
                format!(
                    "Sentinel {at} votes for {}, which is out of sight, in epoch {}",
                    vote.leader, vote.epoch
                )
            })
        })
    }

    /// A failover that was given up: the old master goes on only when the node that was selected says that it is a
    /// replica, or, if that cannot be asked, when the majority still names the old master after a while.
    fn aborts(&self, f: &Facts<'_>, subject: &Choice, named: bool) -> Option<String> {
        self.counted().find_map(|(at, s)| {
            let abort = s.aborted.as_ref()?;
            if abort.epoch != subject.epoch || f.nodes.key(&abort.master) != subject.key {
                return None;
            }
            let settled = named && f.now.since(abort.at) >= SETTLED;
            let open = |(n, node): (&HostPort, &Node)| {
                if f.nodes.key(n) == subject.key {
                    return None;
                }
                match &node.told {
                    Some(t) if t.sent > abort.at && node.says_replica() => None,
                    // A master of another history was not promoted by that failover.
                    Some(t) if t.sent > abort.at && unrelated(node, lineage_of(f, &subject.key)) => None,
                    Some(t) if t.sent > abort.at => Some(format!("{n} says master")),
                    _ if settled => None,
                    _ => Some(format!("{n} has not said its role since")),
                }
            };
            let unclear = match &abort.selected {
                Some(n) => f.nodes.map.get_key_value(n).and_then(open),
                None => f.nodes.map.iter().find_map(open),
            };
            unclear.map(|why| format!("Sentinel {at} gave up a failover, and {why}"))
        })
    }

    /// Lets go of failovers that were given up and are explained.
    pub(super) fn forget_aborts(&mut self) {
        for s in self.map.values_mut() {
            s.aborted = None;
        }
    }

    /// Another node that says master and was promoted out of the subject's history.
    fn rival(&self, f: &Facts<'_>, subject: &Choice, named: bool) -> Option<String> {
        let present = lineage_of(f, &subject.key);
        let granted = f.last.filter(|g| g.key == subject.key).and_then(|g| g.lineage.as_ref());
        let quiet = named
            && self
                .counted()
                .all(|(_, s)| s.stage == Stage::Calm && (s.dead() || s.vote(f.oldest).is_some()));
        f.nodes.claimants(f.oldest).into_iter().find_map(|(key, node)| {
            let since = node.master_since.unwrap_or(f.now);
            let out_of =
                |ours: Option<&Lineage>| ours.is_some_and(|o| node.lineage().is_some_and(|l| l.succeeds(o)));
            let promoted = key != subject.key && (out_of(present) || out_of(granted));
            if !promoted || (quiet && f.now.since(since) >= NOTICED) {
                return None;
            }
            Some(format!("{key} says master, and was promoted out of {}'s history", subject.key))
        })
    }

    /// Whether those Sentinels that did not answer a question sent since `since`, and are not dead, could elect a
    /// leader: an automatic failover needs max(N/2+1, quorum) votes, by what each Sentinel itself knows (sentinel.c,
    /// sentinelGetLeader).
    fn sight(&self, since: Now) -> Option<String> {
        let unseen: Vec<(&HostPort, &Sentinel)> = self
            .counted()
            .filter(|(at, s)| !self.dead(at, s) && !s.knows_none && s.answered.is_none_or(|a| a < since))
            .collect();
        let votes = |s: &Sentinel| s.said.as_ref().map_or(self.need(), |(_, v)| votes_needed(&v.flags()));
        let enough = unseen.iter().map(|(_, s)| votes(s)).min()?;
        if unseen.len() < enough {
            return None;
        }
        let names: Vec<String> = unseen.iter().map(|(at, _)| format!("{at}")).collect();
        Some(format!(
            "{} of {} Sentinels are out of sight and could elect: {}",
            unseen.len(),
            self.known,
            names.join(", ")
        ))
    }

    /// Who names `key`, for stories.
    pub(super) fn describe(&self, f: &Facts<'_>, key: &Key, epoch: u64) -> String {
        let names = |v: &View| f.nodes.key(&v.master) == *key;
        let by: Vec<String> = self
            .map
            .iter()
            .filter(|(_, s)| s.vote(f.oldest).is_some_and(names))
            .map(|(at, _)| format!("{at}"))
            .collect();
        format!(
            "{} of {} Sentinels name {key} at config epoch {epoch} ({})",
            by.len(),
            self.known,
            by.join(", ")
        )
    }
}

/// Whether a node certainly was not promoted out of this history.
pub(super) fn unrelated(node: &Node, ours: Option<&Lineage>) -> bool {
    node.lineage().zip(ours).is_some_and(|(theirs, ours)| !theirs.succeeds(ours))
}

fn contradicts(f: &Facts<'_>, view: &View, subject: &Choice) -> bool {
    view.epoch > subject.epoch || (view.epoch == subject.epoch && f.nodes.key(&view.master) != subject.key)
}

/// Whether a majority that names the subject overrules by now one that has named `other` since then.
fn is_out_of_patience(f: &Facts<'_>, subject: &Choice, other: &Key, since: Option<Now>) -> bool {
    patience(f, subject, other).zip(since).is_some_and(|(p, since)| f.now.since(since) >= p)
}

/// How long one Sentinel that names `other` can hold against a majority that names the subject; `None`: until one of
/// them changes its mind.
fn patience(f: &Facts<'_>, subject: &Choice, other: &Key) -> Option<Duration> {
    if *other == subject.key {
        return Some(MOMENT);
    }
    let Some((_, node)) = f.nodes.find(other).filter(|(_, n)| n.lost.is_none() && n.told.is_some()) else {
        return Some(GOSSIP);
    };
    if !node.says_master() {
        return Some(MOMENT);
    }
    let ours = lineage_of(f, &subject.key);
    if node.lineage().zip(ours).is_some_and(|(theirs, ours)| ours.succeeds(theirs)) {
        return Some(MOMENT);
    }
    unrelated(node, ours).then_some(GOSSIP)
}

pub(super) fn lineage_of<'a>(f: &Facts<'a>, key: &Key) -> Option<&'a Lineage> {
    let present = f.nodes.find(key).and_then(|(_, n)| n.lineage());
    present.or_else(|| f.last.filter(|g| g.key == *key)?.lineage.as_ref())
}

/// Whether `key` is the last grant's process, or was promoted out of its history.
fn continues(f: &Facts<'_>, last: &Grant, key: &Key) -> bool {
    let now = f.nodes.find(key).filter(|(_, n)| n.says_master()).and_then(|(_, n)| n.lineage());
    match (now, &last.lineage) {
        (Some(now), Some(before)) => now.replid == before.replid || now.succeeds(before),
        _ => false,
    }
}

fn account(f: &Facts<'_>, at: &HostPort, s: &Sentinel) -> String {
    if let Some(v) = s.vote(f.oldest) {
        return format!("{at} names {} at config epoch {}", f.nodes.key(&v.master), v.epoch);
    }
    match (&s.lost, &s.problem) {
        (Some((why, _)), _) => format!("{at} {why}"),
        (None, _) if s.knows_none => format!("{at} knows no such master"),
        (None, Some(p)) => format!("{at}: {p}"),
        (None, None) => format!("{at} was not heard"),
    }
}
