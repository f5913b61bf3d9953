//! The steps up to the order: until then anything that goes wrong leaves the old master as it was.
use super::handover::{CUT_MAX, DEPOSE_MAX, HANDOVER_MAX};
use super::judge::{Facts, Means, Plan, find};
use super::line::Line;
use super::machine::{Ask, Step, Switchover};
use super::undo::{RESTORE_FOR, repair};
use super::{ANSWER_MAX, Do, LOOK_EVERY, LineId, WATCH_EVERY};
use crate::Now;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

/// A Sentinel asks each replica for INFO every 10 s; that it shows a priority takes as long, and a little more.
const SHOWN_MAX: Duration = Duration::from_secs(15);
/// What is in flight when the hold begins is answered within this.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// After the order a new master is proven within this; else the service is left to go on alone.
const GRANT_MAX: Duration = Duration::from_secs(10);
/// No hold of ours is longer, whatever becomes of us.
const HOLD_MAX: Duration = Duration::from_secs(15);

impl Switchover {
    pub(super) fn enter(&mut self, now: Now, step: Step) {
        let looks = matches!(step, Step::Shown | Step::CatchUp | Step::Promote | Step::Cut | Step::Undo);
        (self.step, self.since) = (step, now);
        self.look_at = if looks { now } else { Now::NEVER };
    }

    /// When a step gives up waiting.
    pub(super) fn step_ends(&self) -> Option<Now> {
        let most = match self.step {
            Step::Shown => SHOWN_MAX,
            Step::Drain => DRAIN_MAX,
            // What is left of the pause is for the promotion; one that is over is late for ever.
            Step::Pause | Step::CatchUp => {
                return Some(self.undo.paused.map_or(self.since, |end| end - self.pause_left()));
            }
            Step::Depose => DEPOSE_MAX,
            Step::Cut => CUT_MAX,
            Step::Promote if self.coordinated() => return Some(self.ordered_at? + HANDOVER_MAX),
            Step::Promote | Step::Grant => return Some(self.ordered_at? + GRANT_MAX),
            Step::Undo => RESTORE_FOR,
            _ => return None,
        };
        Some(self.since + most)
    }

    fn pause_left(&self) -> Duration {
        self.plan.as_ref().map_or(Duration::ZERO, |p| p.pause * 3 / 5)
    }

    pub(super) fn late(&self, now: Now) -> bool {
        self.step_ends().is_some_and(|at| now >= at)
    }

    pub(super) fn settle(&mut self, now: Now) {
        loop {
            let before = (self.step, self.since);
            self.end_pause(now);
            match self.step {
                Step::Survey => self.surveyed(now),
                Step::Prioritise => self.prioritised(now),
                Step::Shown => self.shown(now),
                Step::Drain => self.drained(now),
                Step::Pause => self.paused(now),
                Step::CatchUp => self.caught_up(now),
                Step::Order | Step::Over => {}
                Step::Promote => self.promoted(now),
                Step::Depose => self.follows(now),
                Step::Cut => self.cut(now),
                Step::Grant => self.granted(now),
                Step::Undo => self.undone(now),
            }
            if before == (self.step, self.since) {
                return;
            }
        }
    }

    /// Before the order, anything that makes the service hold ends the switchover.
    pub(super) fn disturbed(&mut self, now: Now) -> bool {
        if let Some(why) = self.outlook.holds.clone() {
            self.undo.leave_pause();
            self.give_up(now, format!("the service has begun to hold: {why}"));
            return true;
        }
        false
    }

    pub(super) fn surveyed(&mut self, now: Now) {
        if self.lines.iter().any(Line::is_asked) {
            return;
        }
        let facts = Facts {
            outlook: &self.outlook,
            places: &self.places,
            nodes: &self.nodes,
            sentinels: &self.sentinels,
            to: self.to.as_deref(),
        };
        let plan = match facts.plan() {
            Ok(plan) => plan,
            Err(why) => return self.finish(now, Err(format!("refused, nothing was changed: {why}"))),
        };
        self.explain(now, &plan);
        let others = plan.others.clone();
        self.plan = Some(plan);
        if others.is_empty() {
            return self.begin_hold(now);
        }
        self.enter(now, Step::Prioritise);
        for (i, priority) in others {
            self.undo.priorities.push((i, priority));
            let at = self.places[i].at.clone();
            let left = repair(&self.outlook.service, &at, priority);
            self.tell(
                now,
                format!("{at}: replica-priority 0 until the end (it is {priority})"),
                Some(left),
                false,
            );
            self.set_priority(now, i, Ask::Lower, 0);
        }
    }

    pub(super) fn explain(&mut self, now: Now, plan: &Plan) {
        let old = &self.places[plan.old].at;
        let all: Vec<String> = plan.candidates.iter().map(|i| self.places[*i].at.to_string()).collect();
        let how = match plan.means {
            Means::Forced(s) => format!(
                "by Sentinel {}; writes are paused for {} ms at most",
                self.sentinels[s].0,
                plan.pause.as_millis()
            ),
            Means::Coordinated(s) => {
                format!("by Sentinel {}, coordinated with the master", self.sentinels[s].0)
            }
            Means::Failover => "by FAILOVER on the master".into(),
        };
        self.say(now, format!("from {old} to {}: {how}", all.join(" or ")));
        let never: Vec<String> = (0..self.nodes.len())
            .filter(|i| self.nodes[*i].priority == Some(0))
            .map(|i| self.places[i].at.to_string())
            .collect();
        if !never.is_empty() {
            let at = never.join(", ");
            let text = format!(
                "{at} has replica-priority 0 and is never promoted; if a switchover that was cut short left it so: \
                 pointsman switchover {} --restore NODE=100",
                self.outlook.service
            );
            self.warn(now, text);
        }
    }

    pub(super) fn prioritised(&mut self, now: Now) {
        if self.disturbed(now) || self.lines.iter().any(Line::is_asked) {
            return;
        }
        self.say(now, "waiting until the Sentinel shows the priorities (it asks every 10 s)".into());
        self.enter(now, Step::Shown);
    }

    pub(super) fn shown(&mut self, now: Now) {
        if self.disturbed(now) {
            return;
        }
        let Some(plan) = &self.plan else { return };
        let (Means::Forced(chosen) | Means::Coordinated(chosen)) = plan.means else { return };
        let line = self.nodes.len() + chosen;
        let (at, sentinel) = &self.sentinels[chosen];
        let target = plan.candidates.first().copied();
        let wrong = sentinel.replicas.iter().find(|l| {
            let is_target = find(&self.places, &l.at) == target;
            if is_target { !l.good || l.priority == 0 } else { l.priority != 0 }
        });
        let (at, wrong) = (at.clone(), wrong.map(|l| l.at.clone()));
        if let Some(why) = self.sentinels[chosen].1.lost.clone() {
            return self.give_up(now, why);
        }
        match wrong {
            None => self.begin_hold(now),
            Some(node) if self.late(now) => {
                self.give_up(now, format!("Sentinel {at} does not show the new priority of {node}"));
            }
            Some(_) if now >= self.look_at && !self.lines[line].is_asked() => {
                self.look_at = now + LOOK_EVERY;
                let name = self.outlook.monitored.clone().unwrap_or_default();
                self.ask(now, line, Ask::Replicas, &["SENTINEL", "SLAVES", &name], ANSWER_MAX);
            }
            Some(_) => self.look_at = self.look_at.max(now + WATCH_EVERY),
        }
    }

    pub(super) fn begin_hold(&mut self, now: Now) {
        let Some(plan) = &self.plan else { return };
        self.held_at = now;
        self.undo.held = true;
        self.in_flight = None;
        self.out.push_back(Do::Hold(HOLD_MAX));
        if let Means::Forced(_) = plan.means {
            // Made before it is needed; nothing that could be paused is ever sent on it.
            let id = LineId(self.lines.len() as u16);
            let line = Line::new(id, self.places[plan.old].at.clone(), self.credentials.node.clone());
            self.lines.push(line);
            self.ask_info(now, self.lines.len() - 1, ANSWER_MAX);
        }
        self.say(now, "holding the service's commands, finishing what is in flight".into());
        self.enter(now, Step::Drain);
        self.out.push_back(Do::Count);
    }

    /// The index of the second connection to the old master.
    pub(super) fn fresh(&self) -> usize {
        self.nodes.len() + self.sentinels.len()
    }

    pub(super) fn drained(&mut self, now: Now) {
        if self.disturbed(now) {
            return;
        }
        let old = self.plan.as_ref().map_or(0, |p| p.old);
        let ready = self.lines.get(self.fresh()).is_none_or(|l| !l.is_asked());
        if self.in_flight == Some(0) && ready {
            if let Some(why) = self.nodes[old].lost.clone() {
                return self.give_up(now, why);
            }
            return match self.plan.as_ref().map(|p| p.means) {
                Some(Means::Forced(_)) => self.pause(now),
                _ => self.order(now),
            };
        }
        if self.late(now) {
            let n = self.in_flight.map_or("some".into(), |n| n.to_string());
            let ms = DRAIN_MAX.as_millis();
            return self.give_up(now, format!("{n} commands in flight were not answered within {ms} ms"));
        }
        if now >= self.look_at {
            self.look_at = Now::NEVER;
            self.out.push_back(Do::Count);
        }
    }

    pub(super) fn pause(&mut self, now: Now) {
        let Some(plan) = &self.plan else { return };
        let (old, pause) = (plan.old, plan.pause);
        let ms = pause.as_millis().to_string();
        self.enter(now, Step::Pause);
        self.undo.paused = Some(now + pause);
        let text = format!("pausing all writes on {} for {ms} ms at most", self.places[old].at);
        let left = format!("the pause ends by itself after {ms} ms");
        self.tell(now, text, Some(left), false);
        self.ask(now, old, Ask::Pause, &["CLIENT", "PAUSE", &ms, "WRITE"], pause);
        self.ask_info(now, old, pause);
    }

    pub(super) fn paused(&mut self, now: Now) {
        let old = self.plan.as_ref().map_or(0, |p| p.old);
        if self.disturbed(now) {
            return;
        }
        if self.offset.is_some() {
            return self.enter(now, Step::CatchUp);
        }
        if self.late(now) || !self.lines[old].is_asked() {
            let why = self.nodes[old].lost.clone();
            self.give_up(now, why.unwrap_or_else(|| "the master does not say what it has written".into()));
        }
    }

    pub(super) fn caught_up(&mut self, now: Now) {
        if self.disturbed(now) {
            return;
        }
        let (Some(plan), Some(offset)) = (&self.plan, self.offset) else { return };
        let behind = plan.candidates.iter().copied().find(|i| {
            let node = &self.nodes[*i];
            node.lost.is_some() || node.master || node.offset < offset
        });
        let late = self.late(now);
        match behind {
            None if late => {
                self.give_up(now, "too little is left of the pause: we were stopped meanwhile".into())
            }
            None => {
                let text = format!("every replica that could be selected has the master's offset {offset}");
                self.say(now, text);
                self.order(now);
            }
            Some(i) if late => {
                let (at, node) = (&self.places[i].at, &self.nodes[i]);
                let text = match &node.lost {
                    Some(why) => why.clone(),
                    None => format!("{at} is still {} bytes behind", offset.saturating_sub(node.offset)),
                };
                self.give_up(now, text);
            }
            Some(_) => self.look_again(now),
        }
    }

    pub(super) fn look_again(&mut self, now: Now) {
        if now >= self.look_at {
            self.look_at = now + WATCH_EVERY;
            self.watch_nodes(now);
        }
    }

    pub(super) fn order(&mut self, now: Now) {
        let Some(plan) = self.plan.clone() else { return };
        self.enter(now, Step::Order);
        self.ordered_at = Some(now);
        let name = self.outlook.monitored.clone().unwrap_or_default();
        let (host, port) = (plan.called.host.clone(), plan.called.port.to_string());
        let ms = plan.pause.as_millis().to_string();
        let patience = plan.pause / 2;
        match plan.means {
            Means::Forced(s) => {
                self.say(now, format!("SENTINEL FAILOVER at {}", self.sentinels[s].0));
                let line = self.nodes.len() + s;
                self.ask(now, line, Ask::Failover, &["SENTINEL", "FAILOVER", &name], patience);
            }
            Means::Coordinated(s) => {
                self.undo.handover = true;
                let text = format!("SENTINEL FAILOVER COORDINATED at {}", self.sentinels[s].0);
                let left = "the master's own pause ends by itself after the Sentinels' failover-timeout";
                self.tell(now, text, Some(left.into()), false);
                let (line, words) = (self.nodes.len() + s, ["SENTINEL", "FAILOVER", &name, "COORDINATED"]);
                self.ask(now, line, Ask::Failover, &words, ANSWER_MAX);
            }
            Means::Failover => {
                self.undo.failover = true;
                let at = &self.places[plan.old].at;
                let text = format!("FAILOVER TO {host} {port} at {at}");
                let left = format!("the failover is given up by {at} itself after {ms} ms");
                self.tell(now, text, Some(left), false);
                let words = ["FAILOVER", "TO", &host, &port, "TIMEOUT", &ms];
                self.ask(now, plan.old, Ask::Failover, &words, ANSWER_MAX);
            }
        }
    }
}
