//! The guard: writes wait while no replica acknowledges them and another node could be promoted meanwhile.
//!
//! A master that was cut off from its replicas goes on to acknowledge writes, and all that it acknowledges is lost when
//! the Sentinels on the other side promote one of them. The first that shows it is that no replica acknowledges any
//! more; so that is asked all the time while writes flow (`observe::guard`), and when none does, writes wait.
//!
//! It is *armed* as soon as a replica has acknowledged anything to the granted master. When none does any more it holds;
//! and also when that master is granted again, as after a restart: Sentinels may be about to elect another then, and its
//! replicas are still coming back. It leaves the hold when
//!
//! (a) one acknowledges again;
//! (b) there is nothing to promote: the master has no replicas, and all other nodes refuse connections;
//! (c) there is nobody to promote it: so many Sentinels have had a pong of the master since, and see nothing wrong with
//!     it, that the others could not even agree that it is down. It stays disarmed only as long as that stays true.
//!
//! Where no probe is answered (no permission, for one) it goes by what the master says of its replicas. They acknowledge
//! once a second, so that takes about two seconds.
use super::machine::{Act, Topology};
use super::nodes::{Key, Nodes, Told};
use super::observation::{Gone, Pace, Seen, Stage, Target};
use super::sentinels::{Sentinel, Sentinels};
use super::settings::HostPort;
use super::snapshot::Term;
use super::status::{EventKind, GuardState, GuardStatus};
use crate::Now;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// Probes go on for so long after a worker last said that writes flow.
const FLOWS_FOR: Duration = Duration::from_secs(1);
/// By the master's own word: after how long without progress its replicas are silent, and how far apart two of its
/// reports may be for that to be known.
const SLOW: Duration = Duration::from_secs(2);
const REPORTS_APART: Duration = Duration::from_secs(1);
/// A Sentinel pings the master this often, or each down-after if that is less (sentinel.c, SENTINEL_PING_PERIOD).
const PING_PERIOD: Duration = Duration::from_secs(1);

/// What the guard knows of the replicas of the granted master.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    /// Of which grant.
    term: Term,
    master: Option<Key>,
    stand: Stand,
    /// When writes were last said to flow.
    flows_at: Option<Now>,
    probe: Probe,
    reports: Reports,
    /// How often it began to hold, and whether it does.
    trips: u64,
    holds: bool,
    /// What the operator should read.
    news: Vec<String>,
}

/// Where the guard stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
enum Stand {
    /// No replica has acknowledged to this master yet.
    #[default]
    Unarmed,
    /// One does.
    Armed,
    /// None does.
    Silent {
        /// At the latest since then; what excuses it must be newer.
        since: Now,
        /// Why the writes go on nevertheless (c), or what is missing for that.
        excuse: Result<String, String>,
    },
}

/// The observer on the guard's own connection.
#[derive(Clone, Debug, Default)]
struct Probe {
    target: Option<Target>,
    /// Since when it is told to probe.
    wanted: Option<Now>,
    /// When it last had an answer that says something.
    heard: Option<Now>,
    /// When the last question was sent that a replica acknowledged.
    acknowledged: Now,
    /// Why it cannot probe.
    problem: Option<Arc<str>>,
}

impl Probe {
    /// Whether the master's reports must do instead.
    fn is_deaf(&self, now: Now) -> bool {
        let unanswered = self.wanted.map(|wanted| wanted.max(self.heard.unwrap_or(Now::ZERO)));
        self.problem.is_some() || unanswered.is_some_and(|since| now.since(since) >= SLOW)
    }
}

/// What the master's own reports say of its replicas.
#[derive(Clone, Debug, Default)]
struct Reports {
    /// When the newest was asked for.
    sent: Now,
    /// The most that any replica has acknowledged by it.
    acknowledged: u64,
    /// The newest that left nothing to complain of.
    good: Now,
    /// What was acknowledged last was so after this.
    progress_after: Now,
}

impl Reports {
    fn note(&mut self, told: &Told) {
        if told.sent <= self.sent {
            return;
        }
        let most = told.report.attached.iter().map(|r| r.acknowledged).max();
        let more = most.is_some_and(|most| most > self.acknowledged);
        let all = most.is_some_and(|most| most >= told.report.offset);
        if more {
            self.progress_after = self.sent;
        }
        if more || all || told.sent.since(self.sent) > REPORTS_APART {
            self.good = told.sent;
        }
        (self.sent, self.acknowledged) = (told.sent, most.unwrap_or(0));
    }

    fn are_silent(&self) -> bool {
        self.sent.since(self.good) >= SLOW
    }
}

/// What the guard must know of everything else.
pub(super) struct Around<'a> {
    pub(super) now: Now,
    /// An answer to a question sent before this is no longer fresh.
    pub(super) oldest: Now,
    pub(super) nodes: &'a Nodes,
    pub(super) sentinels: &'a Sentinels,
    /// The granted master.
    pub(super) master: &'a Key,
}

impl Guard {
    /// Why writes are to wait, if they are.
    pub(super) fn holds(&self) -> Option<&str> {
        match &self.stand {
            Stand::Silent { excuse: Err(why), .. } => Some(why),
            _ => None,
        }
    }

    /// Where the guard of the next grant stands, which is to this master.
    fn stand_after(&self, now: Now, master: Option<&Key>) -> Stand {
        match self.stand {
            Stand::Unarmed => Stand::Unarmed,
            _ if master.is_none() || self.master.as_ref() != master => Stand::Unarmed,
            _ => Stand::Silent { since: now, excuse: Err("no replica acknowledges yet".into()) },
        }
    }

    fn armed(&mut self) {
        if matches!(self.stand, Stand::Silent { excuse: Ok(_), .. }) {
            self.news.push("a replica acknowledges again: the guard is armed".into());
        }
        self.stand = Stand::Armed;
    }

    fn silent(&mut self, now: Now) {
        if self.stand == Stand::Armed {
            self.stand = Stand::Silent { since: now, excuse: Err("no replica acknowledges".into()) };
        }
    }

    /// Takes in what was seen on the guard's connection.
    fn hear(&mut self, now: Now, sent: Now, seen: Seen) {
        match seen {
            Seen::Acknowledged(yes) => {
                (self.probe.heard, self.probe.problem) = (Some(now), None);
                if yes {
                    self.probe.acknowledged = self.probe.acknowledged.max(sent);
                    self.armed();
                } else {
                    self.silent(now);
                }
            }
            Seen::Problem(why) => self.probe.problem = Some(why),
            _ => {}
        }
    }

    /// Draws the conclusions of what is known now.
    fn look(&mut self, a: &Around<'_>) {
        let told = a.nodes.find(a.master).and_then(|(_, n)| n.told.as_ref());
        if let Some(told) = told.filter(|t| t.sent >= a.oldest) {
            self.reports.note(told);
            let acknowledged = told.report.attached.iter().any(|r| r.acknowledged > 0);
            match &self.stand {
                Stand::Unarmed if acknowledged => self.armed(),
                Stand::Silent { since, .. } if self.reports.progress_after > *since => self.armed(),
                Stand::Armed if self.probe.is_deaf(a.now) && self.reports.are_silent() => self.silent(a.now),
                _ => {}
            }
            self.excuse(a, told);
        }
        let holds = self.holds().is_some();
        self.trips += u64::from(holds && !self.holds);
        self.holds = holds;
    }

    /// Looks for the ways out of a hold that are not an acknowledgement.
    fn excuse(&mut self, a: &Around<'_>, told: &Told) {
        let Stand::Silent { since, excuse } = &mut self.stand else { return };
        let bare = told.report.attached.is_empty() && told.sent > self.probe.acknowledged;
        if bare && a.others_are_dead() {
            self.news.push(format!(
                "{} has no replicas, and all other nodes refuse connections: its writes go on",
                a.master
            ));
            self.stand = Stand::Unarmed;
            return;
        }
        let was = excuse.is_ok();
        let mut vouched = a.vouched(*since);
        if was && vouched.is_err() {
            // What excuses it again must be newer than this.
            *since = a.now;
            vouched = a.vouched(a.now);
        }
        if let (Ok(why), false) = (&vouched, was) {
            self.news.push(format!(
                "no replica of {} acknowledges; its writes go on because {why}. The guard is disarmed as long as that \
                 is so, or until a replica acknowledges",
                a.master
            ));
        }
        *excuse =
            vouched.map_err(|lacking| format!("no replica of {} acknowledges, and {lacking}", a.master));
    }

    /// Whether the probe is to be asked all the time.
    fn wants(&self, now: Now) -> bool {
        let flows = self.flows_at.is_some_and(|at| now.since(at) < FLOWS_FOR);
        match self.stand {
            Stand::Unarmed => false,
            _ => flows || self.holds().is_some(),
        }
    }
}

impl Around<'_> {
    /// Whether every node but the master refuses connections, and nothing else could in its place.
    fn others_are_dead(&self) -> bool {
        if !self.sentinels.fencing.refused_is_dead {
            return false;
        }
        let others = self.nodes.map.iter().filter(|(at, _)| self.nodes.key(at) != *self.master);
        others.into_iter().all(|(_, n)| matches!(n.lost, Some((Gone::Refused, _))))
    }

    /// Why nobody can be promoted (c), or who could bring it about.
    fn vouched(&self, since: Now) -> Result<String, String> {
        let counted =
            || self.sentinels.counted().filter(|(at, s)| !self.sentinels.dead(at, s) && !s.knows_none);
        let (good, bad): (Vec<_>, Vec<_>) = counted().partition(|(_, s)| self.sees_it_well(s, since));
        // So many must take it for down before anybody asks for votes, and so many votes are needed then.
        let view = |s: &Sentinel| s.said.as_ref().map(|(_, v)| (v.quorum as usize, v.others as usize));
        let needed = |(quorum, others): (usize, usize)| quorum.min(others.div_ceil(2) + 1);
        let few = counted().filter_map(|(_, s)| view(s)).map(needed).min().unwrap_or(0).max(1);
        let names = |of: &[(&HostPort, &Sentinel)]| {
            of.iter().map(|(at, _)| format!("{at}")).collect::<Vec<_>>().join(", ")
        };
        if bad.len() >= few {
            return Err(format!("it is not known to have answered since: {}", names(&bad)));
        }
        Ok(match good.len() {
            0 => "no Sentinel lives that could promote another".into(),
            n => {
                format!("it has answered {n} of {} Sentinels since ({})", self.sentinels.known, names(&good))
            }
        })
    }

    /// Whether a Sentinel has had a pong of the master after `since` and lately, and sees nothing wrong.
    fn sees_it_well(&self, s: &Sentinel, since: Now) -> bool {
        let Some((sent, view)) = s.said.as_ref().filter(|_| s.vote(self.oldest).is_some()) else {
            return false;
        };
        let pong = *sent - view.pong_age;
        // It takes the master for down no earlier than down-after after a ping that was not answered.
        let recent = view.down_after.min(PING_PERIOD) + view.down_after / 2;
        let names = self.nodes.key(&view.master) == *self.master;
        names && s.stage == Stage::Calm && pong > since && self.now.since(pong) <= recent
    }
}

impl Topology {
    /// Writes flow to the master of this service: a worker has sent some.
    pub fn writes_flow(&mut self, now: Now) {
        self.guard.flows_at = Some(now);
        self.guard_arrange(now);
    }

    /// Takes in what was seen on the guard's connection.
    pub(super) fn guard_hear(&mut self, now: Now, at: &HostPort, sent: Now, seen: Seen) {
        if self.guard.probe.target.as_ref().is_some_and(|t| t.at == *at) {
            self.guard.hear(now, sent, seen);
        }
    }

    /// Lets the guard draw its conclusions, and has its connection made where there is something to guard.
    pub(super) fn guard_look(&mut self, now: Now) {
        let oldest = self.oldest(now);
        if self.guard.term != self.term || self.settings.guard.is_none() {
            self.guard_renew();
            let Guard { flows_at, trips, .. } = self.guard;
            let stand = match self.settings.guard {
                Some(_) => self.guard.stand_after(now, self.grant.as_ref().map(|g| &g.key)),
                None => Stand::Unarmed,
            };
            let master = self.grant.as_ref().map(|g| g.key.clone());
            self.guard = Guard { term: self.term, master, stand, flows_at, trips, ..Guard::default() };
        }
        let mut guard = core::mem::take(&mut self.guard);
        if let (Some(grant), Some(sentinels), Some(_)) = (&self.grant, self.sentinels(), self.settings.guard)
        {
            let a = Around { now, oldest, nodes: &self.nodes, sentinels, master: &grant.key };
            guard.look(&a);
        }
        let news = core::mem::take(&mut guard.news);
        self.guard = guard;
        for text in news {
            self.tell(now, EventKind::Note, text);
        }
        self.guard_arrange(now);
    }

    /// The guard's connection goes to the granted master, while there is something to guard.
    fn guard_arrange(&mut self, now: Now) {
        let wanted = self.guard_target();
        let probe = &mut self.guard.probe;
        if probe.target != wanted {
            self.acts.extend(probe.target.take().map(Act::Unwatch));
            self.acts.extend(wanted.clone().map(Act::Watch));
            *probe = Probe { target: wanted, ..Probe::default() };
        }
        let wants = self.guard.wants(now);
        let probe = &mut self.guard.probe;
        if let Some(target) = probe.target.clone().filter(|_| wants != probe.wanted.is_some()) {
            probe.wanted = wants.then_some(now);
            self.acts.push_back(Act::Pace(target, if wants { Pace::Hurried } else { Pace::Usual }));
        }
    }

    fn guard_target(&self) -> Option<Target> {
        let grant = self.grant.as_ref().filter(|_| self.guard.stand != Stand::Unarmed)?;
        let present = self.guard.probe.target.as_ref();
        let good = |t: &&Target| self.nodes.map.contains_key(&t.at) && self.nodes.key(&t.at) == grant.key;
        match present.filter(good) {
            Some(target) => Some(target.clone()),
            None => Some(Target::guard(self.nodes.find(&grant.key)?.0.clone())),
        }
    }

    /// The guard's connection is made anew when it is next looked at: the settings have changed.
    pub(super) fn guard_renew(&mut self) {
        let target = self.guard.probe.target.take();
        self.acts.extend(target.map(Act::Unwatch));
    }

    /// The guard, for the operator.
    pub(super) fn guard_status(&self) -> GuardStatus {
        let guard = &self.guard;
        let off = self.settings.guard.is_none() || self.sentinels().is_none();
        let (state, why) = match &guard.stand {
            _ if off => (GuardState::Off, None),
            Stand::Unarmed => (GuardState::Unarmed, None),
            Stand::Armed => (GuardState::Armed, None),
            Stand::Silent { excuse: Ok(why), .. } => (GuardState::Disarmed, Some(why.clone())),
            Stand::Silent { excuse: Err(why), .. } => (GuardState::Holding, Some(why.clone())),
        };
        GuardStatus { state, why, trips: guard.trips }
    }

    /// What the operator should look at.
    pub(super) fn guard_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let probe = &self.guard.probe;
        if let (Some(target), true) = (&probe.target, probe.is_deaf(self.looked_at())) {
            let why = probe.problem.as_deref().unwrap_or("it does not answer");
            problems.push(format!(
                "the guard cannot probe {}: {why}; it goes by ROLE and INFO, and needs over a second to notice that \
                 replicas are silent",
                target.at
            ));
        }
        if let Stand::Silent { excuse: Ok(why), .. } = &self.guard.stand {
            problems.push(format!("no replica acknowledges; writes go on because {why}"));
        }
        problems
    }
}
