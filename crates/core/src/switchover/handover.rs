//! The steps from the promotion to the end, and the end of all others: what was changed is put back.
use super::judge::{Means, find, named};
use super::line::Line;
use super::machine::{Ask, Step, Switchover};
use super::undo::repair;
use super::{ANSWER_MAX, Do, Order};
use crate::Now;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

/// How long the old master may take to follow, or to end the pause.
pub(super) const DEPOSE_MAX: Duration = Duration::from_millis(500);
/// A Sentinel that coordinates names the new master within this: replicas acknowledge once a second, and it looks once a second.
pub(super) const HANDOVER_MAX: Duration = Duration::from_secs(4);
/// The Sentinel looks at the promoted node each second, and then cuts its clients.
pub(super) const CUT_MAX: Duration = Duration::from_millis(2500);
/// So long after the pause, an order that nothing is seen of has come to nothing.
const SETTLED: Duration = Duration::from_secs(1);
/// Between two tries to put something back.
const RETRY: Duration = Duration::from_secs(1);

impl Switchover {
    pub(super) fn promoted(&mut self, now: Now) {
        let Some(plan) = &self.plan else { return };
        let means = plan.means;
        let forced = matches!(means, Means::Forced(_));
        let by_itself = plan.candidates.iter().copied().find(|i| {
            let node = &self.nodes[*i];
            forced && node.lost.is_none() && node.master && node.replid2 == self.replid
        });
        let granted = self.granted_now().filter(|i| *i != plan.old);
        let Some(new) = by_itself.or(granted) else {
            if self.came_to_nothing() {
                let text = "the order was taken, but it came to nothing";
                return self.give_up(now, text.into());
            }
            if self.late(now) {
                let text = "the order was given, but no new master was proven in time; the service goes on with \
                            what its topology knows";
                return self.give_up(now, text.into());
            }
            return self.look_again(now);
        };
        self.promoted = Some(new);
        self.undo.failover = false;
        self.say(now, format!("{} is promoted", self.places[new].at));
        match means {
            Means::Forced(_) => self.depose(now, new),
            Means::Coordinated(_) => self.enter(now, Step::Cut),
            Means::Failover => self.enter(now, Step::Grant),
        }
    }

    pub(super) fn coordinated(&self) -> bool {
        self.plan.as_ref().is_some_and(|p| matches!(p.means, Means::Coordinated(_)))
    }

    /// Who has said on which connection that it is the new master.
    pub(super) fn note_master(&mut self, line: usize) {
        let ordered = self.ordered_at.is_some() && self.plan.as_ref().is_some_and(|p| p.old != line);
        let node = &self.nodes[line];
        if ordered && node.lost.is_none() && node.master {
            self.seen_master = Some(line);
        }
    }

    /// When the Sentinel has seen the promotion it cuts the clients of both nodes (`CLIENT KILL`: sentinel.c,
    /// `sentinelKillClients`), us too. What was in flight then would be lost, so nothing is let out before.
    pub(super) fn cut(&mut self, now: Now) {
        let at = self.promoted.map(|new| self.places[new].at.clone());
        match (self.cut_at, at) {
            (Some(_), Some(at)) => {
                self.say(now, format!("the Sentinel has cut the clients of {at}"));
                self.enter(now, Step::Grant);
            }
            _ if self.late(now) => {
                self.warn(now, "the Sentinel has not cut the new master's clients in time".into());
                self.enter(now, Step::Grant);
            }
            _ => self.look_again(now),
        }
    }

    /// Whether nothing came of the order: the topology has proven the old master again, by answers to questions that were
    /// sent after a promotion must have been seen. (What it knew before tells nothing: our process may have been stopped.)
    pub(super) fn came_to_nothing(&self) -> bool {
        let (Some(plan), Some(at)) = (&self.plan, self.ordered_at) else { return false };
        self.outlook.proven_at >= at + plan.pause + SETTLED && self.granted_now() == Some(plan.old)
    }

    /// The old master follows the new one before its pause ends, so that what it paused is refused and not lost.
    pub(super) fn depose(&mut self, now: Now, new: usize) {
        self.enter(now, Step::Depose);
        let Some(plan) = &self.plan else { return };
        let called = if plan.candidates.first() == Some(&new) { &plan.called } else { &self.places[new].at };
        let (host, port) = (called.host.clone(), called.port.to_string());
        let old = plan.old;
        self.nodes[old].denied = None;
        let fresh = self.fresh();
        self.ask(now, fresh, Ask::Replicaof, &["REPLICAOF", &host, &port], DEPOSE_MAX);
        self.ask_info(now, fresh, DEPOSE_MAX);
    }

    pub(super) fn follows(&mut self, now: Now) {
        let (Some(plan), Some(new)) = (&self.plan, self.promoted) else { return };
        let (old, fresh) = (plan.old, self.fresh());
        if self.lines[fresh].is_asked() && !self.late(now) {
            return;
        }
        let node = &self.nodes[old];
        let follows = node.follows.as_ref().and_then(|of| find(&self.places, of)) == Some(new);
        let at = self.places[old].at.clone();
        if follows && node.lost.is_none() {
            self.say(now, format!("{at} follows {}", self.places[new].at));
        } else {
            let why = node.denied.clone().or(node.lost.clone()).unwrap_or_default();
            let text = format!(
                "{at} could not be told to follow ({why}): what clients write to it directly is lost until the \
                 Sentinels tell it"
            );
            self.warn(now, text);
        }
        self.unpause(now, old);
        // As the Sentinels do, so that it does not come back as a master when it is restarted.
        self.ask(now, fresh, Ask::Whatever, &["CONFIG", "REWRITE"], ANSWER_MAX);
        self.enter(now, Step::Grant);
    }

    pub(super) fn unpause(&mut self, now: Now, old: usize) {
        if self.undo.paused.is_some() {
            self.ask(now, old, Ask::Unpause, &["CLIENT", "UNPAUSE"], DEPOSE_MAX);
        }
    }

    /// The pause has ended by itself; that it does so even if the master's clock is slow is made sure.
    pub(super) fn end_pause(&mut self, now: Now) {
        if self.undo.paused.is_none_or(|until| now < until) {
            return;
        }
        let old = self.plan.as_ref().map_or(0, |p| p.old);
        self.unpause(now, old);
        self.undo.paused = None;
        if matches!(self.step, Step::Order | Step::Promote) {
            let text = format!(
                "the pause had to end before the promotion was seen: what clients write directly to {} from now on, \
                 until it follows, is lost",
                self.places[old].at
            );
            self.warn(now, text);
        }
    }

    /// Which node the topology has granted, and nothing speaks against it.
    pub(super) fn granted_now(&self) -> Option<usize> {
        self.outlook
            .master
            .as_ref()
            .filter(|_| self.outlook.holds.is_none())
            .and_then(|m| find(&self.places, m))
    }

    pub(super) fn granted(&mut self, now: Now) {
        let (Some(plan), Some(new)) = (&self.plan, self.promoted) else { return };
        // By an answer to a question that was sent when nothing was left to be cut.
        let fresh = self.cut_at.is_none_or(|at| self.outlook.proven_at >= at);
        match self.granted_now() {
            Some(granted) if granted == new && fresh => {
                let (old, new) = (self.places[plan.old].at.clone(), self.places[new].at.clone());
                let ms = now.since(self.held_at).as_millis();
                self.finish(
                    now,
                    Ok(format!("{new} is master instead of {old}; commands waited for {ms} ms")),
                );
            }
            Some(granted) if granted != plan.old && granted != new => {
                let at = self.places[granted].at.clone();
                self.finish(
                    now,
                    Err(format!("{} was promoted, but {at} is master now", self.places[new].at)),
                );
            }
            _ if self.late(now) => {
                let at = self.places[new].at.clone();
                self.give_up(now, format!("{at} was promoted, but it was not proven to be master in time"));
            }
            _ => {}
        }
    }

    /// Before the promotion: the old master goes on.
    pub(super) fn give_up(&mut self, now: Now, why: String) {
        let old_goes_on = self.ordered_at.is_none() || self.came_to_nothing();
        let changed =
            if self.promoted.is_none() && old_goes_on { "given up, the old master goes on: " } else { "" };
        self.finish(now, Err(format!("{changed}{why}")));
    }

    pub(super) fn finish(&mut self, now: Now, outcome: Result<String, String>) {
        if self.outcome.is_some() {
            return;
        }
        self.outcome = Some(outcome);
        self.enter(now, Step::Undo);
        let old = self.plan.as_ref().map_or(0, |p| p.old);
        self.unpause(now, old);
        if core::mem::take(&mut self.undo.failover) {
            self.ask(now, old, Ask::Whatever, &["FAILOVER", "ABORT"], ANSWER_MAX);
        }
        if core::mem::take(&mut self.undo.handover) {
            self.call_off(now, old);
        }
        if core::mem::take(&mut self.undo.held) {
            self.out.push_back(Do::Release);
            let ms = now.since(self.held_at).as_millis();
            self.say(now, format!("the service's commands go on after {ms} ms"));
        }
    }

    /// Ends the pause that a Sentinel has told the old master to make; and its waiting for a replica, if it waits. If it is a
    /// replica already, it may have been heard by the one that it asks to be master: two would say so.
    fn call_off(&mut self, now: Now, old: usize) {
        if self.nodes[old].master && self.promoted.is_none() {
            self.ask(now, old, Ask::Whatever, &["FAILOVER", "ABORT"], ANSWER_MAX);
        }
        self.ask(now, old, Ask::Whatever, &["CLIENT", "UNPAUSE"], ANSWER_MAX);
    }

    /// Puts back what is still to be put back, as often as it takes.
    pub(super) fn undone(&mut self, now: Now) {
        let late = self.late(now);
        if !self.undo.is_empty() && !late {
            if now >= self.look_at {
                self.look_at = now + RETRY;
                for (i, priority) in self.undo.priorities.clone() {
                    if !self.lines[i].is_asked() {
                        self.set_priority(now, i, Ask::Restore, priority);
                    }
                }
            }
            return;
        }
        let left = core::mem::take(&mut self.undo.priorities);
        if let (Some(Ok(_)), false, None) = (&self.outcome, left.is_empty(), &self.plan) {
            self.outcome = Some(Err("not all priorities could be put back".into()));
        }
        for (i, priority) in left {
            let at = self.places[i].at.clone();
            let left = repair(&self.outlook.service, &at, priority);
            let text = format!("{at} keeps replica-priority 0, because it cannot be reached; later: {left}");
            self.tell(now, text, Some(left), true);
        }
        if self.lines.iter().any(Line::is_asked) && !late {
            self.look_at = Now::NEVER;
            return;
        }
        self.enter(now, Step::Over);
        for line in &mut self.lines {
            line.close(&mut self.out);
        }
        let outcome = self.outcome.take().unwrap_or_else(|| Err(String::new()));
        self.out.push_back(Do::Finish(outcome));
    }

    pub(super) fn restore(&mut self, now: Now, order: &Order) {
        for (name, priority) in &order.restore {
            let Some(i) = named(&self.places, name) else {
                self.undo.priorities.clear();
                let all: Vec<String> = self.places.iter().map(|k| k.at.to_string()).collect();
                return self
                    .finish(now, Err(format!("there is no node {name}; there are {}", all.join(", "))));
            };
            self.undo.priorities.push((i, *priority));
        }
        self.say(now, "putting priorities back".into());
        self.finish(now, Ok("the priorities are as asked for".into()));
    }
}
