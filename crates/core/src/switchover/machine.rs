//! The steps of a switchover, in order; each looks at what is known and goes on, waits, or gives up.
use super::judge::{Means, Plan, find};
use super::line::{Answer, Line, failure};
use super::survey::{NOBODY, Node, Sentinel};
use super::undo::Undo;
use super::{ANSWER_MAX, Credentials, Do, LineId, Order, Said, WATCH_EVERY};
use crate::Now;
use crate::topology::observation::Gone;
use crate::topology::outlook::{Known, Outlook};
use crate::topology::settings::HostPort;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

/// What a question was about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    /// `INFO replication`.
    Info,
    /// A command, tried with an argument that cannot be meant.
    Try(&'static str),
    Address,
    Master,
    Replicas,
    SentinelInfo,
    TryCoordinated,
    /// `CONFIG SET replica-priority`: to 0, or back.
    Lower,
    Restore,
    Pause,
    Unpause,
    Failover,
    Replicaof,
    /// Of what becomes of it nothing depends.
    Whatever,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Survey,
    Prioritise,
    Shown,
    Drain,
    Pause,
    CatchUp,
    Order,
    Promote,
    Depose,
    Cut,
    Grant,
    Undo,
    Over,
}

/// One switchover, from its order to its end.
#[derive(Debug)]
pub struct Switchover {
    pub(super) outlook: Outlook,
    pub(super) to: Option<alloc::sync::Arc<str>>,
    pub(super) places: Vec<Known>,
    pub(super) nodes: Vec<Node>,
    pub(super) sentinels: Vec<(HostPort, Sentinel)>,
    /// Of the nodes, then of the Sentinels, then a second one to the old master.
    pub(super) lines: Vec<Line<Ask>>,
    pub(super) credentials: Credentials,
    pub(super) step: Step,
    /// When the step began, and when it is looked at again.
    pub(super) since: Now,
    pub(super) look_at: Now,
    pub(super) plan: Option<Plan>,
    pub(super) undo: Undo,
    /// What the master had written when its writes were paused, and in which history.
    pub(super) offset: Option<u64>,
    pub(super) replid: alloc::boxed::Box<str>,
    pub(super) held_at: Now,
    pub(super) ordered_at: Option<Now>,
    pub(super) promoted: Option<usize>,
    /// Which node has said that it is the new master, on a connection that is still open …
    pub(super) seen_master: Option<usize>,
    /// … and when that was cut.
    pub(super) cut_at: Option<Now>,
    pub(super) in_flight: Option<u64>,
    pub(super) outcome: Option<Result<String, String>>,
    pub(super) out: VecDeque<Do>,
}

impl Switchover {
    /// Begins: asks everybody what there is.
    pub fn new(now: Now, outlook: Outlook, order: Order, credentials: Credentials) -> Switchover {
        let places = outlook.nodes.clone();
        let sentinels: Vec<_> =
            outlook.sentinels.iter().map(|at| (at.clone(), Sentinel::default())).collect();
        let of_nodes = places.iter().map(|k| (k.at.clone(), credentials.node.clone()));
        let of_sentinels = sentinels.iter().map(|(at, _)| (at.clone(), credentials.sentinel.clone()));
        let lines = (0..).zip(of_nodes.chain(of_sentinels));
        let lines = lines.map(|(i, (at, credential))| Line::new(LineId(i), at, credential)).collect();
        let mut s = Switchover {
            nodes: places.iter().map(|_| Node::default()).collect(),
            to: order.to.clone(),
            outlook,
            places,
            sentinels,
            lines,
            credentials,
            step: Step::Survey,
            since: now,
            look_at: Now::NEVER,
            plan: None,
            undo: Undo::default(),
            offset: None,
            replid: "".into(),
            held_at: now,
            ordered_at: None,
            promoted: None,
            seen_master: None,
            cut_at: None,
            in_flight: None,
            outcome: None,
            out: VecDeque::new(),
        };
        if order.restore.is_empty() {
            s.survey(now)
        } else {
            s.restore(now, &order)
        }
        s.settle(now);
        s
    }

    /// The connection was made.
    pub fn connected(&mut self, now: Now, id: LineId) {
        if let Some(line) = self.lines.get_mut(usize::from(id.0)) {
            line.connected(&mut self.out);
        }
        self.settle(now);
    }

    /// These bytes came in.
    pub fn bytes(&mut self, now: Now, id: LineId, bytes: &[u8]) {
        let Some(line) = self.lines.get_mut(usize::from(id.0)) else { return };
        for (ask, answer) in line.bytes(bytes, &mut self.out) {
            self.answered(now, usize::from(id.0), ask, &answer);
        }
        self.settle(now);
    }

    /// The connection ended, or could not be made.
    pub fn gone(&mut self, now: Now, id: LineId, why: &Gone) {
        let Some(line) = self.lines.get_mut(usize::from(id.0)) else { return };
        for (ask, answer) in line.gone(why) {
            self.answered(now, usize::from(id.0), ask, &answer);
        }
        if self.seen_master == Some(usize::from(id.0)) {
            self.cut_at.get_or_insert(now);
        }
        self.settle(now);
    }

    /// So many of the service's commands are in flight; `None`: a worker did not say.
    pub fn in_flight(&mut self, now: Now, commands: Option<u64>) {
        self.in_flight = commands;
        if self.step == Step::Drain && commands != Some(0) {
            self.look_at = now + WATCH_EVERY;
        }
        self.settle(now);
    }

    /// What the topology knows now.
    pub fn look(&mut self, now: Now, outlook: Outlook) {
        if outlook != self.outlook {
            self.outlook = outlook;
            self.settle(now);
        }
    }

    /// The process stops, or the service is no more: puts back what can be.
    pub fn cancel(&mut self, now: Now) {
        if self.ordered_at.is_none() && self.outcome.is_none() {
            self.give_up(now, "Pointsman stops".into());
        }
        self.settle(now);
    }

    /// Something is due.
    pub fn timeout(&mut self, now: Now) {
        for i in 0..self.lines.len() {
            for (ask, answer) in self.lines[i].timeout(now, &mut self.out) {
                self.answered(now, i, ask, &answer);
            }
        }
        self.settle(now);
    }

    /// When [`Self::timeout`] is due.
    pub fn next_timeout(&self) -> Option<Now> {
        let lines = self.lines.iter().filter_map(Line::deadline).min();
        let looks = (self.step != Step::Over && self.look_at != Now::NEVER).then_some(self.look_at);
        let paused = self.undo.paused.filter(|_| self.step != Step::Over);
        [lines, looks, self.step_ends(), paused].into_iter().flatten().min()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Do> {
        self.out.pop_front()
    }

    // --- what is asked ---

    pub(super) fn ask(&mut self, now: Now, line: usize, ask: Ask, words: &[&str], patience: Duration) {
        self.lines[line].ask(now, ask, words, patience, &mut self.out);
    }

    pub(super) fn ask_info(&mut self, now: Now, line: usize, patience: Duration) {
        self.ask(now, line, Ask::Info, &["INFO", "replication"], patience);
    }

    pub(super) fn survey(&mut self, now: Now) {
        let old = self.outlook.master.as_ref().and_then(|m| find(&self.places, m));
        for i in 0..self.nodes.len() {
            self.ask_info(now, i, ANSWER_MAX);
            let tries: &[(&'static str, &[&str])] = match (&self.outlook.monitored, Some(i) == old) {
                (Some(_), true) => &[
                    ("CLIENT PAUSE", &["CLIENT", "PAUSE", "?", "WRITE"]),
                    ("REPLICAOF", &["REPLICAOF", "127.0.0.1", "?"]),
                ],
                (Some(_), false) if self.to.is_some() => {
                    &[("CONFIG SET replica-priority", &["CONFIG", "SET", "replica-priority", "?"])]
                }
                (None, true) => &[("FAILOVER", &["FAILOVER", "TIMEOUT", "?"])],
                _ => &[],
            };
            for (command, words) in tries {
                self.ask(now, i, Ask::Try(command), words, ANSWER_MAX);
            }
        }
        let Some(name) = self.outlook.monitored.clone() else { return };
        for i in self.nodes.len()..self.lines.len() {
            for (ask, words) in [
                (Ask::Address, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &*name][..]),
                (Ask::Master, &["SENTINEL", "MASTER", &*name]),
                (Ask::Replicas, &["SENTINEL", "SLAVES", &*name]),
                (Ask::SentinelInfo, &["INFO", "sentinel"]),
                (Ask::Try("SENTINEL FAILOVER"), &["SENTINEL", "FAILOVER", NOBODY]),
                (Ask::TryCoordinated, &["SENTINEL", "FAILOVER", NOBODY, "COORDINATED"]),
            ] {
                self.ask(now, i, ask, words, ANSWER_MAX);
            }
        }
    }

    /// Asks those that may be promoted, and a master that hands over by itself.
    pub(super) fn watch_nodes(&mut self, now: Now) {
        let Some(plan) = &self.plan else { return };
        let old = Some(plan.old).filter(|_| matches!(plan.means, Means::Coordinated(_)));
        let all: Vec<usize> = plan.candidates.iter().copied().chain(old).collect();
        for i in all {
            if !self.lines[i].is_asked() {
                self.ask_info(now, i, ANSWER_MAX);
            }
        }
    }

    pub(super) fn set_priority(&mut self, now: Now, node: usize, ask: Ask, priority: u32) {
        let words = ["CONFIG", "SET", "replica-priority", &priority.to_string()];
        self.ask(now, node, ask, &words, ANSWER_MAX);
    }

    // --- what was answered ---

    pub(super) fn answered(&mut self, now: Now, line: usize, ask: Ask, answer: &Answer) {
        if self.step == Step::Over {
            return;
        }
        if line == self.fresh() {
            return self.deposed(ask, answer);
        }
        if let Some(i) = line.checked_sub(self.nodes.len()) {
            return self.sentinel_answered(now, i, ask, answer);
        }
        match ask {
            Ask::Info => {
                self.nodes[line].info(answer);
                self.note_offset(line);
                self.note_master(line);
            }
            Ask::Try(command) => self.nodes[line].tried(command, answer),
            Ask::Lower => self.lowered(now, line, answer),
            Ask::Restore if failure(answer).is_none() => self.undo.priorities.retain(|(i, _)| *i != line),
            Ask::Pause => {
                if let Some(why) = failure(answer) {
                    self.give_up(now, format!("writes could not be paused: {why}"));
                }
            }
            Ask::Unpause if answer.is_ok() => self.undo.paused = None,
            Ask::Failover => self.ordered(now, answer),
            _ => {}
        }
    }

    pub(super) fn sentinel_answered(&mut self, now: Now, i: usize, ask: Ask, answer: &Answer) {
        let s = &mut self.sentinels[i].1;
        match ask {
            Ask::Address => s.address(answer),
            Ask::Master => s.master(answer),
            Ask::Replicas => s.replicas(answer),
            Ask::SentinelInfo => s.info(answer),
            Ask::Try(_) => s.tried(answer),
            Ask::TryCoordinated => s.tried_coordinated(answer),
            Ask::Failover => self.ordered(now, answer),
            _ => {}
        }
    }

    /// What the master has written, asked behind the pause on the same connection.
    pub(super) fn note_offset(&mut self, line: usize) {
        let paused = self.step == Step::Pause && self.plan.as_ref().is_some_and(|p| p.old == line);
        let node = &self.nodes[line];
        if paused && node.lost.is_none() && node.master && !self.lines[line].is_asked() {
            (self.offset, self.replid) = (Some(node.offset), node.replid.clone());
        }
    }

    pub(super) fn lowered(&mut self, now: Now, node: usize, answer: &Answer) {
        if let (Some(why), Step::Prioritise) = (failure(answer), self.step) {
            let at = self.places[node].at.clone();
            self.give_up(now, format!("the priority of {at} could not be changed: {why}"));
        }
    }

    /// What the order to fail over came to. An order whose answer is lost may have been taken.
    pub(super) fn ordered(&mut self, now: Now, answer: &Answer) {
        if self.step != Step::Order {
            return;
        }
        match answer {
            Err(why) => self.warn(now, format!("it is not known whether the order was taken: {why}")),
            _ => match failure(answer) {
                Some(why) => {
                    self.ordered_at = None;
                    if why.starts_with("INPROG") {
                        self.undo.leave_pause();
                    }
                    return self.give_up(now, format!("the order to fail over was refused: {why}"));
                }
                None => self.say(now, "the order was taken; waiting for the promotion".into()),
            },
        }
        self.enter(now, Step::Promote);
    }

    /// What the old master said on its second connection.
    pub(super) fn deposed(&mut self, ask: Ask, answer: &Answer) {
        let Some(plan) = &self.plan else { return };
        let old = plan.old;
        match (ask, self.step) {
            (Ask::Info, _) => self.nodes[old].info(answer),
            (Ask::Replicaof, Step::Depose) => self.nodes[old].denied = failure(answer),
            _ => {}
        }
    }

    pub(super) fn say(&mut self, now: Now, text: String) {
        self.tell(now, text, None, false);
    }

    pub(super) fn warn(&mut self, now: Now, text: String) {
        self.tell(now, text, None, true);
    }

    pub(super) fn tell(&mut self, now: Now, text: String, left_behind: Option<String>, warning: bool) {
        let left_behind = left_behind.map(Into::into);
        self.out.push_back(Do::Say(Said { at: now, text: text.into(), left_behind, warning }));
    }
}
