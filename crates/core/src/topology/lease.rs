//! The lease: until when no failover can have happened that we could not know of.
//!
//! An automatic failover needs a leader that takes the master for down together with `quorum - 1` others, and the votes of
//! max(N/2+1, quorum) Sentinels, who need not see the master down themselves (sentinel.c, sentinelCheckObjectivelyDown
//! and sentinelGetLeader). What each Sentinel said last bounds from below when it can take the master for down, and
//! when it can have voted unseen. So nothing can have been promoted before so many of these moments have passed as
//! Sentinels are needed; until then, and no longer, writes may go on without hearing anything more. Who refuses
//! connections at its own address is not there, so its clock does not run and it does not vote.
//!
//! docs/adr/fencing.md has the argument, and what it does not cover.
use super::judge::Facts;
use super::nodes::{Key, Node, Nodes};
use super::observation::{Flags, Gone, Stage};
use super::sentinels::{Sentinel, Sentinels};
use super::settings::{HostPort, WithoutLease};
use crate::Now;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// From this down-after on a Sentinel's clock is taken to run since its last good pong, which is right whatever happens
/// to its connection. Below, pongs once a second (SENTINEL_PING_PERIOD) would leave no lease worth its name, and the
/// clock is taken to run since the oldest unanswered ping, as it does while the connection stands.
const SINCE_PONG: Duration = Duration::from_secs(3);
/// A Sentinel's word that the master is down counts with the others for so long (SENTINEL_ASK_PERIOD * 5).
const WORD_LASTS: Duration = Duration::from_secs(5);
/// A Sentinel that was in sight, and calm, is taken for a voter against us this long after its last word: longer
/// than a few missed answers on a busy machine.
const VOTES_AFTER: Duration = Duration::from_millis(300);
/// Refusals without a break for so long: dead.
const DEAD_AFTER: Duration = Duration::from_secs(1);

/// A leader that has its votes gives its order within this time (three turns of its timer, of 100 ms at most).
const PROMOTES_WITHIN: Duration = Duration::from_millis(500);
/// What a leader did, its hellos have told the others by then (it polls INFO each second, and says hello each 2 s).
const SPREAD: Duration = Duration::from_secs(5);
/// After this time without a word a Sentinel is out of sight, and all nodes are watched more closely.
const DARK_AFTER: Duration = Duration::from_secs(1);
/// A Sentinel that names another master than ours, or is still busy with the failover that made ours, needs this long
/// after its last word to begin another.
const BUSY: Duration = Duration::from_secs(1);

/// What is known of when one Sentinel may take the master for down.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// Its last word, and when that was asked for.
    said: Option<(Now, Flags)>,
    /// When it last said that its master is down, and of which config epoch that was.
    suspected: Option<(Now, u64)>,
    /// When its address last refused a connection, since its last word.
    refused: Option<Now>,
    /// Since when it has done so without a break.
    refuses_since: Option<Now>,
}

impl Clock {
    pub(super) fn answered(&mut self, sent: Now, flags: Flags) {
        (self.refused, self.refuses_since) = (None, None);
        if self.said.is_some_and(|(before, _)| before > sent) {
            return;
        }
        if suspects(&flags) {
            self.suspected = Some((sent, flags.epoch));
        }
        self.said = Some((sent, flags));
    }

    pub(super) fn refused(&mut self, at: Now) {
        self.refused = Some(at);
        self.refuses_since.get_or_insert(at);
    }

    /// It could not be reached in another way. What the last refusal said stays true.
    pub(super) fn refuses_no_longer(&mut self) {
        self.refuses_since = None;
    }

    /// Whether it has answered a question that was sent after this.
    pub(super) fn said_after(&self, since: Now) -> bool {
        self.said.is_some_and(|(at, _)| at > since)
    }

    fn dead(&self) -> bool {
        self.refused.zip(self.refuses_since).is_some_and(|(last, since)| last.since(since) >= DEAD_AFTER)
    }
}

/// One Sentinel as an elector of another master than the subject.
struct Elector<'a> {
    clock: &'a Clock,
    /// Its last word may have been about the subject, or about another.
    about: bool,
    about_another: bool,
    /// That its address refuses connections says that it does not live.
    refusals_count: bool,
    /// After how long without a pong it takes a master for down, if it has not said so itself.
    down_after: Duration,
}

impl Elector<'_> {
    fn refused(&self) -> Option<Now> {
        self.clock.refused.filter(|_| self.refusals_count)
    }

    fn dead(&self) -> bool {
        self.refusals_count && self.clock.dead()
    }

    /// When it was last known to be calm, or absent.
    fn seen(&self) -> Option<Now> {
        self.clock.said.map(|(at, _)| at).max(self.refused())
    }

    /// The earliest moment at which it can have taken the subject for down; [`Now::ZERO`] if that is not known.
    fn suspects(&self) -> Now {
        // A process that begins later begins with a new clock (sentinel.c, createInstanceLink).
        let absent = self.refused().map_or(Now::ZERO, |at| at + self.down_after);
        let said = self.clock.said.map_or(Now::ZERO, |(at, flags)| {
            let lasts = |(t, epoch): (Now, u64)| epoch == flags.epoch && at.since(t) < WORD_LASTS;
            let of_ours = match self.clock.suspected {
                _ if !self.about => Now::NEVER,
                Some(suspected) if lasts(suspected) => Now::ZERO,
                _ => (at + flags.down_after) - running(&flags),
            };
            // It may have been told of the subject right after.
            let of_another = if self.about_another { at + BUSY.min(flags.down_after) } else { Now::NEVER };
            of_ours.min(of_another)
        });
        said.max(absent)
    }

    /// The earliest moment from which it may vote without our knowing.
    fn votes(&self) -> Now {
        let suspicious = self.about && self.clock.said.is_some_and(|(_, f)| suspects(&f));
        match self.refused() {
            Some(at) if self.dead() => at + self.down_after,
            None if suspicious => Now::ZERO,
            _ => self.seen().map_or(Now::ZERO, |at| at + VOTES_AFTER),
        }
    }
}

fn suspects(flags: &Flags) -> bool {
    matches!(flags.stage, Stage::Suspects | Stage::Tries | Stage::Acts)
}

/// For how long a Sentinel's clock for the master had run when it said this (sentinel.c, sentinelCheckSubjectivelyDown).
fn running(flags: &Flags) -> Duration {
    if flags.linked && flags.down_after < SINCE_PONG { flags.ping_age } else { flags.pong_age }
}

/// Whether a lease that reaches to `new` is worth telling those who know `old`: it was shortened, or less than half of
/// what could be had remains of the old one.
pub(super) fn renews(now: Now, old: Option<Now>, new: Option<Now>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => new < old || (new > old && old.since(now) < new.since(now) / 2),
        (old, new) => old != new,
    }
}

impl Sentinels {
    /// Until when nothing can have been promoted in place of `subject` that we could not know of; `None`: there are no
    /// leases; [`Now::NEVER`]: nobody could elect.
    pub(super) fn lease(&self, nodes: &Nodes, subject: &Key) -> Option<Now> {
        if self.fencing.without_lease == WithoutLease::GoOn {
            return None;
        }
        let all: Vec<Elector<'_>> = self.electors(nodes, subject).map(|(_, e)| e).collect();
        let said = || all.iter().filter_map(|e| e.clock.said.map(|(_, f)| f));
        let votes = said().map(|f| votes_needed(&f)).min().unwrap_or(self.need());
        let quorum = said().map(|f| f.quorum.max(1) as usize).min().unwrap_or(1).min(votes);
        let down = nth(quorum, all.iter().map(Elector::suspects));
        Some(down.max(nth(votes, all.iter().map(Elector::votes))))
    }

    /// Those who could take part in an election.
    fn electors<'a>(
        &'a self,
        nodes: &'a Nodes,
        subject: &'a Key,
    ) -> impl Iterator<Item = (&'a HostPort, Elector<'a>)> {
        let known = self.counted().filter_map(|(_, s)| s.clock.said);
        let down_after = known.map(|(_, f)| f.down_after).min().unwrap_or_default();
        self.counted().filter(|(_, s)| !s.knows_none).map(move |(at, s)| {
            let view = s.said.as_ref().map(|(_, v)| v);
            let names = view.is_some_and(|v| nodes.key(&v.master) == *subject);
            // Newer flags of another epoch are about somebody whom the next view names.
            let moved = view.map(|v| v.epoch) != s.clock.said.map(|(_, f)| f.epoch);
            // The leader of a failover names its choice while its flags are about the deposed master.
            let leads = s.stage == Stage::Promoted;
            let elector = Elector {
                clock: &s.clock,
                about: (names || moved) && !leads,
                about_another: !names || moved || leads,
                refusals_count: self.refusals_count(at, s),
                down_after,
            };
            (at, elector)
        })
    }

    /// Whether this Sentinel's process is proven not to live.
    pub(super) fn dead(&self, at: &HostPort, s: &Sentinel) -> bool {
        s.clock.dead() && self.refusals_count(at, s)
    }

    /// One that may be alive and has been out of sight for a while.
    pub(super) fn out_of_sight(&self, now: Now) -> Option<&HostPort> {
        let heard = |s: &Sentinel| s.heard.is_some_and(|at| now.since(at) < DARK_AFTER);
        self.counted().find(|(at, s)| s.tried && !heard(s) && !self.dead(at, s)).map(|(at, _)| at)
    }

    /// Remembers when there was last no lease for this one.
    pub(super) fn note_lapse(&mut self, f: &Facts<'_>, subject: &Key) {
        if self.lapsed(f, subject).is_some() {
            self.lapse = Some((subject.clone(), f.now));
            return;
        }
        let over = |(key, at): &(Key, Now)| {
            key != subject || f.now.since(*at) >= SPREAD || self.since_lapse(*at).is_none()
        };
        if self.lapse.as_ref().is_some_and(over) {
            self.lapse = None;
        }
    }

    /// One that may be alive and has not been heard since.
    fn since_lapse(&self, at: Now) -> Option<&HostPort> {
        let silent =
            |o: &HostPort, s: &Sentinel| !s.knows_none && !s.clock.said_after(at) && !self.dead(o, s);
        self.counted().find(|(o, s)| silent(o, s)).map(|(o, _)| o)
    }

    /// Why a lease that was lost is not renewed yet although enough Sentinels are back: one that is not may have had
    /// their votes in the dark. Until all nodes have said that they are replicas, or what it did has had time to spread.
    pub(super) fn aftermath(&self, f: &Facts<'_>, subject: &Key) -> Option<String> {
        let (_, at) = self.lapse.as_ref().filter(|(key, _)| key == subject)?;
        let silent = self.since_lapse(*at)?;
        let harmless = |n: &Node| match (&n.told, &n.lost) {
            (_, Some((gone, _))) => *gone == Gone::Refused,
            (Some(told), None) => n.says_replica() && told.sent >= *at + PROMOTES_WITHIN,
            (None, None) => false,
        };
        let (open, _) = f.nodes.map.iter().find(|(o, n)| f.nodes.key(o) != *subject && !harmless(n))?;
        Some(format!(
            "Sentinel {silent}, still out of sight, may have been elected before the others were back, and {open} has not said since that it is a replica"
        ))
    }

    /// Why there is no lease on writes to `subject` any more.
    pub(super) fn lapsed(&self, f: &Facts<'_>, subject: &Key) -> Option<String> {
        self.lease(f.nodes, subject).filter(|until| f.now >= *until)?;
        let could = self.electors(f.nodes, subject).filter(|(_, e)| e.votes() <= f.now);
        let names: Vec<String> = could
            .map(|(at, e)| match e.seen() {
                Some(seen) => format!("{at} (last heard {} ms ago)", f.now.since(seen).as_millis()),
                None => format!("{at} (never heard)"),
            })
            .collect();
        Some(format!(
            "{} of {} Sentinels are out of sight or take {subject} for down, and could have elected another by now: {}",
            names.len(),
            self.known,
            names.join(", ")
        ))
    }
}

/// The `n`th of these moments, counted from one; never, if there are fewer.
fn nth(n: usize, moments: impl Iterator<Item = Now>) -> Now {
    let mut moments: Vec<Now> = moments.collect();
    moments.sort_unstable();
    moments.get(n - 1).copied().unwrap_or(Now::NEVER)
}

/// By what one Sentinel knows, how many votes make a leader (sentinel.c, sentinelGetLeader).
pub(super) fn votes_needed(flags: &Flags) -> usize {
    (flags.others as usize).div_ceil(2).saturating_add(1).max(flags.quorum as usize)
}
