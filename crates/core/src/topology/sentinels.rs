//! The Sentinels of one service: which are known, what each said last, and how far a failover has come by what it
//! says. What follows from it is in `quorum`.
use super::events::Events;
use super::followers::Followers;
use super::lease::Clock;
use super::nodes::{Key, Nodes};
use super::observation::{Announced, Flags, Gone, Listed, Peer, Seen, Stage, View, Vote};
use super::settings::{Fencing, HostPort};
use crate::Now;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

/// Most Sentinels that are known; more are ignored.
const SENTINELS_MAX: usize = 32;
/// A Sentinel that for this long neither answered nor was seen up by another is no longer counted.
const DROPPED_AFTER: Duration = Duration::from_secs(600);
/// A Sentinel must have shown no failover for this long before a lone `+try-failover` of its holds again.
const QUIET_FOR: Duration = Duration::from_secs(5);

/// What a Sentinel in TILT does, for people.
pub(super) const TILT: &str =
    "does not act for 30 s, because its clock jumped or its timer stood still (TILT)";

/// So many configured Sentinels are believed without regard to how many others they count.
const CONFIGURED_ENOUGH: usize = 3;

/// One Sentinel.
#[derive(Clone, Debug, Default)]
pub(super) struct Sentinel {
    pub(super) configured: bool,
    /// Whether it is one of those of which a majority is needed.
    pub(super) counted: bool,
    /// Another configured address leads to the same Sentinel.
    alias: bool,
    pub(super) id: Option<Box<str>>,
    addr: Option<SocketAddr>,
    /// Its last view, and when that was asked for.
    pub(super) said: Option<(Now, View)>,
    /// When the newest question that it answered was sent.
    pub(super) answered: Option<Now>,
    /// When it last answered.
    pub(super) heard: Option<Now>,
    /// It knows no such master.
    pub(super) knows_none: bool,
    pub(super) lost: Option<(Gone, Now)>,
    /// When it was last out of reach, also if it is not any more.
    pub(super) away_at: Option<Now>,
    /// What is known of when it may take the master for down.
    pub(super) clock: Clock,
    /// Where the other Sentinels find it.
    announced: Option<HostPort>,
    /// It answered, or could not be reached, at least once.
    pub(super) tried: bool,
    /// Which Sentinels have listed it, and when last.
    listed: BTreeMap<HostPort, Now>,
    gave_list: bool,
    /// How many others its last list told.
    told: u32,
    /// When it last answered us or was seen up by another.
    up_at: Now,
    pub(super) stage: Stage,
    /// Its failover was ordered.
    pub(super) forced: bool,
    /// The master itself is to hand over.
    pub(super) coordinated: bool,
    /// Questions sent before this say nothing new about the stage.
    stage_at: Now,
    /// Since when it has been at [`Stage::Tries`] or further, not counting short interruptions.
    pub(super) tries_since: Option<Now>,
    quiet_since: Option<Now>,
    pub(super) acts_since: Option<Now>,
    /// The replica that it selected.
    pub(super) selected: Option<HostPort>,
    /// Its newest vote, by its own word, or by that of the Sentinel that asked for it: by whose word.
    votes: BTreeMap<HostPort, Vote>,
    /// When it announced its newest vote for another, for whom and for which epoch.
    pub(super) voted: Option<(Now, Vote)>,
    /// A failover that it began and did not bring to an end.
    pub(super) aborted: Option<Abort>,
    /// Since when it has contradicted what the others, or the grant, say.
    pub(super) dissents_since: Option<Now>,
    /// The node that it names, the one that a majority named instead of that, and the epoch of both: it was overruled.
    pub(super) overruled: Option<(Key, Key, u64)>,
    pub(super) problem: Option<Arc<str>>,
    /// Its clock jumped or its timer stood still, and it does nothing for 30 s (sentinel.c, sentinelCheckTiltCondition).
    pub(super) tilt: bool,
    pub(super) events: Events,
}

/// A failover that ended without a new master.
#[derive(Clone, Debug)]
pub(super) struct Abort {
    pub(super) at: Now,
    /// The view that the Sentinel had before and after it.
    pub(super) master: HostPort,
    pub(super) epoch: u64,
    /// Whom it had selected, if that was seen.
    pub(super) selected: Option<HostPort>,
}

impl Sentinel {
    /// Its process does not live.
    pub(super) fn dead(&self) -> bool {
        matches!(self.lost, Some((Gone::Refused, _)))
    }

    /// Its newest vote by the word of these two.
    pub(super) fn voted(&self, own: &HostPort, asker: &HostPort) -> Option<&Vote> {
        [own, asker].into_iter().filter_map(|by| self.votes.get(by)).max_by_key(|v| v.epoch)
    }

    fn note_vote(&mut self, by: &HostPort, vote: Vote) {
        self.votes.insert(by.clone(), vote);
    }

    /// Its view, if it is fresh.
    pub(super) fn vote(&self, oldest: Now) -> Option<&View> {
        let fresh = self.counted && !self.knows_none && self.lost.is_none();
        self.said.as_ref().filter(|(sent, _)| fresh && *sent >= oldest).map(|(_, v)| v)
    }

    fn answer(&mut self, now: Now, sent: Now) {
        self.answered = self.answered.max(Some(sent));
        self.heard = Some(now);
        self.up_at = now;
        (self.tried, self.lost, self.problem) = (true, None, None);
    }

    fn view(&mut self, now: Now, sent: Now, view: View) {
        self.answer(now, sent);
        self.knows_none = false;
        self.clock.answered(sent, view.flags());
        if self.said.as_ref().is_some_and(|(before, _)| *before > sent) {
            return;
        }
        // An answer to a question from before an announcement takes nothing of it back.
        if sent > self.stage_at || (self.stage < view.stage && view.stage < Stage::Promoted) {
            let moved =
                self.said.as_ref().is_some_and(|(_, v)| (v.epoch, &v.master) != (view.epoch, &view.master));
            self.enter(now, view.stage, moved);
            (self.forced, self.coordinated) = (view.forced, view.coordinated);
        }
        self.said = Some((sent, view));
    }

    /// What it says without an address is no vote, but may be a sign, and counts for a lease.
    fn flags(&mut self, now: Now, sent: Now, flags: Flags) {
        (self.heard, self.up_at, self.lost) = (Some(now), now, None);
        self.clock.answered(sent, flags);
        if sent > self.stage_at || (self.stage < flags.stage && flags.stage < Stage::Promoted) {
            let moved = self.said.as_ref().is_some_and(|(_, v)| v.epoch != flags.epoch);
            self.enter(now, flags.stage, moved);
            (self.forced, self.coordinated) = (flags.forced, flags.coordinated);
        }
    }

    /// It is in TILT, or not. Gives what the operator should read.
    fn tilts(&mut self, at: &HostPort, tilt: bool) -> Option<String> {
        let before = core::mem::replace(&mut self.tilt, tilt);
        (before != tilt).then(|| match tilt {
            true => format!("Sentinel {at} {TILT}"),
            false => format!("Sentinel {at} acts again"),
        })
    }

    /// Its flags show this. Gives what the operator should read, if its events had not announced it.
    fn shows(&mut self, now: Now, at: &HostPort, flags: &Flags) -> Option<String> {
        let missed = self.events.shown(now, flags.epoch, flags.stage);
        missed.then(|| {
            format!(
                "Sentinel {at} had not announced what its flags show: it is asked more often for a minute"
            )
        })
    }

    /// Whether the address that we ask is its own, and not one that something else may refuse for it.
    fn at_home(&self, at: &HostPort) -> bool {
        let same = |own: &HostPort| own == at || own.literal().is_some_and(|a| self.addr == Some(a));
        self.announced.as_ref().is_none_or(same)
    }

    /// The stage becomes `to`. `moved`: the Sentinel names another master, or a new epoch.
    fn enter(&mut self, now: Now, to: Stage, moved: bool) {
        if self.stage == Stage::Acts && !matches!(to, Stage::Acts | Stage::Promoted) && !moved {
            self.abort(now);
        }
        if to == Stage::Acts {
            self.forced &= self.acts_since.is_some();
            self.acts_since.get_or_insert(now);
        } else {
            self.acts_since = None;
        }
        if matches!(to, Stage::Calm | Stage::Promoted) {
            self.selected = None;
        }
        if matches!(to, Stage::Tries | Stage::Acts) {
            if self.quiet_since.is_some_and(|q| now.since(q) >= QUIET_FOR) {
                self.tries_since = None;
            }
            self.quiet_since = None;
            self.tries_since.get_or_insert(now);
        } else {
            self.quiet_since.get_or_insert(now);
        }
        self.stage = to;
    }

    fn abort(&mut self, now: Now) {
        let selected = self.selected.take();
        self.aborted = self.said.as_ref().map(|(_, v)| Abort {
            at: now,
            master: v.master.clone(),
            epoch: v.epoch,
            selected,
        });
    }

    fn gone(&mut self, now: Now, sent: Now, why: Gone) {
        self.tried = true;
        if why == Gone::Refused {
            self.clock.refused(sent);
        } else {
            self.clock.refuses_no_longer();
        }
        let since = self.lost.as_ref().map_or(now, |(_, since)| *since);
        self.away_at = Some(now);
        self.lost = Some((why, since));
        // Its failover died with it, but may have promoted its choice before.
        if self.dead() && self.stage != Stage::Calm {
            self.enter(now, Stage::Calm, false);
            self.tries_since = None;
        }
    }

    fn announced(&mut self, now: Now, own: &HostPort, a: Announced) {
        self.events.announced(now, &a);
        if let Some(at) = a.selected {
            self.selected = Some(at);
        }
        if let Some(vote) = a.vote {
            if self.id.as_deref() != Some(&*vote.leader) {
                self.voted = Some((now, vote.clone()));
            }
            self.note_vote(own, vote);
        }
        // Only an answer can tell that something is over.
        if let Some(stage) = a.stage.filter(|to| *to > self.stage || self.stage == Stage::Promoted) {
            self.enter(now, stage, false);
            self.stage_at = now;
        }
    }
}

/// When the lister last saw this peer up.
fn seen_up(now: Now, peer: &Peer) -> Now {
    if peer.up { now } else { now - peer.pong_age }
}

/// The Sentinels of one service.
#[derive(Clone, Debug)]
pub(super) struct Sentinels {
    pub(super) map: BTreeMap<HostPort, Sentinel>,
    /// How many count.
    pub(super) known: usize,
    /// Since when all that answer have agreed on a lower epoch than that of the last grant.
    pub(super) era: Option<(super::nodes::Key, u64, Now)>,
    pub(super) fencing: Fencing,
    /// For whom and when there was last no lease, until that is cleared up.
    pub(super) lapse: Option<(super::nodes::Key, Now)>,
    pub(super) followers: Followers,
    recounted_at: Now,
    /// What the operator should read: discoveries and drops.
    pub(super) news: Vec<String>,
}

impl Sentinels {
    pub(super) fn new(now: Now, configured: &[HostPort], fencing: Fencing) -> Sentinels {
        let mut s = Sentinels {
            map: BTreeMap::new(),
            known: 0,
            era: None,
            fencing,
            lapse: None,
            followers: Followers::default(),
            recounted_at: Now::ZERO,
            news: Vec::new(),
        };
        s.configure(now, configured, fencing);
        s
    }

    /// Sets which ones are configured, and keeps what is known of the others.
    pub(super) fn configure(&mut self, now: Now, configured: &[HostPort], fencing: Fencing) {
        self.fencing = fencing;
        for s in self.map.values_mut() {
            s.configured = false;
        }
        for at in configured {
            let s = self.map.entry(at.clone()).or_insert_with(|| Sentinel {
                addr: at.literal(),
                up_at: now,
                ..Sentinel::default()
            });
            s.configured = true;
        }
        self.recount(now);
    }

    /// How many votes are a majority.
    pub(super) fn need(&self) -> usize {
        self.known / 2 + 1
    }

    /// How many votes begin the first grant, when not all Sentinels may be known yet. Where one or two are configured and
    /// do not tell who the others are that they count (`num-other-sentinels`), those others count as well: as many as
    /// more than half of those that answer agree on, so that a misled one cannot add a crowd. Three that are configured
    /// and agree need no count of anybody.
    pub(super) fn need_first(&self, oldest: Now) -> usize {
        if self.map.values().filter(|s| s.configured && !s.alias).count() >= CONFIGURED_ENOUGH {
            return self.need();
        }
        let untold = |(s, v): (&Sentinel, &View)| if v.others > s.told { v.others as usize + 1 } else { 0 };
        let mut claims: Vec<usize> =
            self.map.values().filter_map(|s| Some(untold((s, s.vote(oldest)?)))).collect();
        claims.sort_unstable();
        let claimed = claims.get(claims.len().saturating_sub(1) / 2).copied().unwrap_or(0);
        self.need().max(claimed / 2 + 1)
    }

    pub(super) fn counted(&self) -> impl Iterator<Item = (&HostPort, &Sentinel)> {
        self.map.iter().filter(|(_, s)| s.counted)
    }

    /// The largest down-after of those that gave a view.
    pub(super) fn down_after(&self) -> Option<Duration> {
        self.counted().filter_map(|(_, s)| s.said.as_ref()).map(|(_, v)| v.down_after).max()
    }

    /// Whether a Sentinel of this run id has spoken since.
    pub(super) fn in_sight(&self, id: &str, since: Now) -> bool {
        self.counted().any(|(_, s)| s.id.as_deref() == Some(id) && s.clock.said_after(since))
    }

    /// Whether a refusal of this Sentinel's address says that its process does not live.
    pub(super) fn refusals_count(&self, at: &HostPort, s: &Sentinel) -> bool {
        self.fencing.refused_is_dead && s.at_home(at)
    }

    /// Takes in what was seen of one Sentinel.
    pub(super) fn observe(&mut self, now: Now, at: &HostPort, sent: Now, seen: Seen, nodes: &mut Nodes) {
        let Some(s) = self.map.get_mut(at) else { return };
        match seen {
            Seen::Connected(addr) => {
                s.addr = Some(addr);
                self.merge(now);
            }
            Seen::Gone(why) => s.gone(now, sent, why),
            Seen::Problem(text) => {
                s.tried = true;
                s.problem = Some(text);
            }
            Seen::Listening(r) => s.events.listening(sent, r),
            Seen::Tilt(tilt) => self.news.extend(s.tilts(at, tilt)),
            Seen::Id(id) => {
                s.id = Some(id);
                self.merge(now);
            }
            Seen::View(view) => {
                nodes.note(now, &view.master);
                self.news.extend(s.shows(now, at, &view.flags()));
                s.view(now, sent, view);
                if !s.counted {
                    self.recount(now);
                }
            }
            Seen::Flags(flags) => {
                self.news.extend(s.shows(now, at, &flags));
                s.flags(now, sent, flags);
            }
            Seen::NoSuchMaster => {
                s.answer(now, sent);
                s.knows_none = true;
                s.enter(now, Stage::Calm, false);
            }
            Seen::Peers(list) => self.peers(now, at, &list),
            Seen::Replicas(list) => {
                nodes.note_list(now, &list);
                self.replicas(at, &list);
            }
            Seen::Announced(a) => {
                match &*a.event {
                    "+tilt" => self.news.extend(s.tilts(at, true)),
                    "-tilt" => self.news.extend(s.tilts(at, false)),
                    _ => {}
                }
                s.announced(now, at, a);
            }
            Seen::Report(_) | Seen::Busy(_) | Seen::Pong(_) | Seen::Acknowledged(_) => {}
        }
    }

    fn replicas(&mut self, at: &HostPort, list: &[Listed]) {
        let selected = list.iter().find(|l| l.selected);
        let acting = self.map.get_mut(at).filter(|s| s.stage != Stage::Promoted);
        if let (Some(s), Some(l)) = (acting, selected) {
            s.selected = Some(l.at.clone());
        }
    }

    fn peers(&mut self, now: Now, lister: &HostPort, list: &[Peer]) {
        if let Some(s) = self.map.get_mut(lister) {
            (s.gave_list, s.told) = (true, u32::try_from(list.len()).unwrap_or(u32::MAX));
        }
        for peer in list {
            let at = self.place(now, peer);
            if let Some(s) = at.and_then(|at| self.map.get_mut(&at)) {
                s.listed.insert(lister.clone(), now);
                s.announced = Some(peer.at.clone());
                s.up_at = s.up_at.max(seen_up(now, peer));
                if let Some(vote) = &peer.vote {
                    s.note_vote(lister, vote.clone());
                }
            }
        }
        self.recount(now);
    }

    /// Where the record of `peer` is; made if it is new, and up or was so lately. One that is down counts too: who lists it
    /// may be the one that is cut off.
    fn place(&mut self, now: Now, peer: &Peer) -> Option<HostPort> {
        let by_id = self.map.iter().find(|(_, s)| !peer.id.is_empty() && s.id.as_deref() == Some(&*peer.id));
        if let Some((at, s)) = by_id {
            let at = at.clone();
            let moved = at != peer.at && !s.configured && s.lost.is_some() && peer.up;
            if !moved || self.map.contains_key(&peer.at) {
                return Some(at);
            }
            let mut s = self.map.remove(&at)?;
            s.addr = peer.at.literal();
            self.map.insert(peer.at.clone(), s);
            return Some(peer.at.clone());
        }
        let addr = peer.at.literal();
        let by_address =
            |(at, s): &(&HostPort, &Sentinel)| **at == peer.at || (addr.is_some() && s.addr == addr);
        if let Some((at, _)) = self.map.iter().find(by_address) {
            return Some(at.clone());
        }
        let up_at = seen_up(now, peer);
        let forgotten = !peer.up && peer.pong_age >= DROPPED_AFTER;
        if forgotten || self.map.len() >= SENTINELS_MAX || peer.at.port == 0 || peer.at.host.is_empty() {
            return None;
        }
        let id = Some(peer.id.clone()).filter(|id| !id.is_empty());
        self.map.insert(peer.at.clone(), Sentinel { id, addr, up_at, ..Sentinel::default() });
        Some(peer.at.clone())
    }

    /// Makes two records of one Sentinel (same run id, or same address) one: a discovered one gives way, and of two
    /// configured ones only the first counts.
    fn merge(&mut self, now: Now) {
        let mut seen: Vec<(HostPort, Option<Box<str>>, Option<SocketAddr>)> = Vec::new();
        let mut doubles: Vec<(HostPort, HostPort)> = Vec::new();
        let order = self
            .map
            .iter()
            .filter(|(_, s)| s.configured)
            .chain(self.map.iter().filter(|(_, s)| !s.configured));
        for (at, s) in order {
            let same = |o: &&(HostPort, Option<Box<str>>, Option<SocketAddr>)| {
                (s.id.is_some() && o.1 == s.id) || (s.addr.is_some() && o.2 == s.addr)
            };
            match seen.iter().find(same) {
                Some((first, ..)) => doubles.push((first.clone(), at.clone())),
                None => seen.push((at.clone(), s.id.clone(), s.addr)),
            }
        }
        for s in self.map.values_mut() {
            s.alias = false;
        }
        for (first, double) in doubles {
            let Some(s) = self.map.get_mut(&double) else { continue };
            if s.configured {
                s.alias = true;
                continue;
            }
            let (listed, up_at) = (core::mem::take(&mut s.listed), s.up_at);
            self.map.remove(&double);
            if let Some(f) = self.map.get_mut(&first) {
                f.listed.extend(listed);
                f.up_at = f.up_at.max(up_at);
            }
        }
        self.recount(now);
    }

    /// Decides which Sentinels count: the configured ones, and those that more than half of the counted ones list (so
    /// that a misled one cannot add a crowd); without those that nobody has seen up for ten minutes.
    fn recount(&mut self, now: Now) {
        self.recounted_at = now;
        let expired = |t: Now| now.since(t) >= DROPPED_AFTER;
        let before: Vec<HostPort> = self.counted().map(|(at, _)| at.clone()).collect();
        for s in self.map.values_mut() {
            s.listed.retain(|_, t| !expired(*t));
            s.counted = s.configured && !s.alias && !expired(s.up_at);
        }
        // Those that are endorsed endorse others: as often as it changes something, and at most thrice.
        for _ in 0..3 {
            let listers: Vec<HostPort> =
                self.counted().filter(|(_, s)| s.gave_list).map(|(at, _)| at.clone()).collect();
            let mut changed = false;
            for s in self.map.values_mut().filter(|s| !s.counted && !s.configured && !expired(s.up_at)) {
                let by = listers.iter().filter(|l| s.listed.contains_key(*l)).count();
                s.counted = by * 2 > listers.len();
                changed |= s.counted;
            }
            if !changed {
                break;
            }
        }
        self.known = self.counted().count();
        let after: Vec<HostPort> = self.counted().map(|(at, _)| at.clone()).collect();
        let n = self.known;
        for at in after.iter().filter(|at| !before.contains(at)) {
            if self.map.get(at).is_some_and(|s| !s.configured) {
                self.news.push(format!("Sentinel {at} was discovered; {n} are known now"));
            }
        }
        for at in before.iter().filter(|at| !after.contains(at)) {
            if self.map.get(at).is_some_and(|s| expired(s.up_at)) {
                let text = format!(
                    "Sentinel {at} is no longer counted: nobody has seen it up for 10 minutes; {n} are known now"
                );
                self.news.push(text);
            }
        }
        self.map.retain(|_, s| s.configured || !expired(s.up_at));
    }

    /// What time alone changes: Sentinels are dropped. Only while one is in sight that could see the others up.
    pub(super) fn age(&mut self, now: Now, oldest: Now) {
        if now.since(self.recounted_at) >= Duration::from_secs(1)
            && self.map.values().any(|s| s.vote(oldest).is_some())
        {
            self.recount(now);
        }
    }
}
