//! Observers: machines that know whom to ask, what, and when, and turn answers into observations.
//!
//! An [`Observer`] has one connection to one target. Its shell connects when told to, moves bytes, and reports what
//! happened; all that decides is here. A Sentinel has two observers: one that polls, which makes us right, and one that
//! listens to its events, which makes us fast. So has a node: one that asks, and one that waits while it runs a script
//! (`witness`). The granted master has a third: the guard's.
pub(crate) mod ask;
mod events;
mod guard;
pub(crate) mod node;
pub(crate) mod reply;
pub(crate) mod sentinel;
mod witness;

use crate::Now;
use crate::policy::Credential;
use crate::topology::observation::{Gone, Observation, Pace, Seen, Target, TargetKind};
use crate::topology::settings::{Settings, Source};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use ask::Question;
use core::net::SocketAddr;
use core::time::Duration;
use reply::{Decoder, Value};

/// How often a target is asked while something goes on.
const HURRY: Duration = Duration::from_millis(50);
/// How often a Sentinel is asked for its flags, always: its events can be missed, and what it says is good for a lease
/// that does not wait for the next round (docs/adr/fencing.md has what this costs a Sentinel).
const PULSE: Duration = Duration::from_millis(50);
/// The same while its events arrive. From the order to fail over, which shows in the flags at once, to the promotion a
/// leader's timer runs at least twice more, and it runs each 52 to 100 ms (sentinelTimer): this shows it before, whatever
/// becomes of the events.
const PULSE_RELAXED: Duration = Duration::from_millis(84);
/// A Sentinel that refuses connections is tried this often at least: each refusal says that nobody is there.
const REFUSED_EVERY: Duration = Duration::from_millis(200);
/// The first wait after a failed connection; doubled each time, up to the next one.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// The longest wait while something goes on.
const BACKOFF_HURRY: Duration = Duration::from_millis(100);
/// The wait after a refusal that will not pass by itself (events that are not permitted).
const BACKOFF_DENIED: Duration = Duration::from_secs(10);
/// Rounds of questions that may be unanswered on one connection.
const ROUNDS_MAX: u32 = 4;

/// What an observer wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Do {
    /// Connect to the target; answer with [`Observer::connected`] or [`Observer::gone`].
    Connect,
    /// Send these bytes.
    Send(Vec<u8>),
    /// Close the connection, or give up connecting. No answer is wanted.
    Close,
    /// Hand this to the topology.
    Observed(Observation),
}

/// What an observer asks.
#[derive(Clone, Debug)]
enum Script {
    Sentinel(sentinel::Poll),
    Events(events::Listen),
    Node(node::Probe),
    Witness(witness::Witness),
    Ping,
    Guard(guard::Probe),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Not connected; to be tried again then.
    Idle(Now),
    /// Since then.
    Connecting(Now),
    Up,
}

/// One connection to one target.
#[derive(Clone, Debug)]
pub struct Observer {
    target: Target,
    script: Script,
    credential: Option<Credential>,
    interval: Duration,
    timeout: Duration,
    /// How much longer its answers may take.
    patience: Duration,
    pace: Pace,
    state: State,
    backoff: Duration,
    failed_at: Now,
    decoder: Decoder,
    /// Questions that were sent and not answered, and when they were sent.
    waiting: VecDeque<(Question, Now)>,
    /// Rounds among them.
    rounds: u32,
    /// A round is wanted as soon as there is room.
    again: bool,
    polled_at: Now,
    /// When a Sentinel was last asked for its flags, by whichever question.
    pulsed_at: Now,
    out: VecDeque<Do>,
}

impl Observer {
    /// The observers that `target` needs. They want to connect at once.
    pub fn all(now: Now, settings: &Settings, target: &Target) -> Vec<Observer> {
        let name = match &settings.source {
            Source::Sentinels { master, .. } => master.clone(),
            _ => "".into(),
        };
        let scripts = match target.kind {
            TargetKind::Sentinel => Vec::from([
                Script::Sentinel(sentinel::Poll::new(name.clone())),
                Script::Events(events::Listen::new(name)),
            ]),
            TargetKind::Node if matches!(settings.source, Source::Static { .. }) => Vec::from([Script::Ping]),
            TargetKind::Node => Vec::from([
                Script::Node(node::Probe::default()),
                Script::Witness(witness::Witness::default()),
            ]),
            TargetKind::Guard => {
                settings.guard.map(|g| Script::Guard(guard::Probe::new(g))).into_iter().collect()
            }
        };
        scripts.into_iter().map(|script| Observer::new(now, settings, target, script)).collect()
    }

    fn new(now: Now, settings: &Settings, target: &Target, script: Script) -> Observer {
        let credential = match target.kind {
            TargetKind::Sentinel => settings.sentinel_credential.clone(),
            TargetKind::Node | TargetKind::Guard => settings.node_credential.clone(),
        };
        let patience = match &script {
            Script::Guard(g) => g.patience(),
            Script::Witness(_) => witness::PATIENCE,
            _ => Duration::ZERO,
        };
        Observer {
            target: target.clone(),
            script,
            credential,
            interval: settings.interval,
            timeout: settings.timeout,
            patience,
            pace: Pace::default(),
            state: State::Connecting(now),
            backoff: BACKOFF_MIN,
            failed_at: Now::ZERO,
            decoder: Decoder::default(),
            waiting: VecDeque::new(),
            rounds: 0,
            again: false,
            polled_at: Now::ZERO,
            pulsed_at: Now::ZERO,
            out: VecDeque::from([Do::Connect]),
        }
    }

    /// Whom it observes.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The connection was made, to `addr`.
    pub fn connected(&mut self, now: Now, addr: SocketAddr) {
        if !matches!(self.state, State::Connecting(_)) {
            return;
        }
        self.state = State::Up;
        self.decoder = Decoder::default();
        if !matches!(self.script, Script::Events(_) | Script::Witness(_)) {
            self.saw(now, Seen::Connected(addr));
        }
        let mut questions = Vec::new();
        if let Some(c) = &self.credential {
            questions.push(Question::auth(c));
        }
        match &mut self.script {
            Script::Sentinel(s) => questions.extend(s.greet()),
            Script::Events(_) => questions.extend(events::greet()),
            Script::Node(n) => questions.extend(n.greet()),
            Script::Witness(w) => w.greet(),
            Script::Guard(g) => g.greet(),
            Script::Ping => {}
        }
        self.send(now, questions);
        self.round(now);
    }

    /// These bytes came in.
    pub fn bytes(&mut self, now: Now, bytes: &[u8]) {
        if self.state != State::Up {
            return;
        }
        self.decoder.feed(bytes);
        while self.state == State::Up {
            match self.decoder.next() {
                Ok(Some(value)) => self.answered(now, value),
                Ok(None) => break,
                Err(e) => self.fail(now, Gone::Garbage(e.into())),
            }
        }
        if self.again && self.rounds < ROUNDS_MAX && self.state == State::Up {
            self.round(now);
        }
    }

    /// The connection ended, or could not be made.
    pub fn gone(&mut self, now: Now, why: Gone) {
        if !matches!(self.state, State::Idle(_)) {
            self.lost(now, why);
        }
    }

    /// Asks at once (a proof is wanted), or tries at once to connect.
    pub fn ask(&mut self, now: Now) {
        match self.state {
            State::Up if self.rounds < ROUNDS_MAX => self.round(now),
            State::Up => self.again = true,
            State::Idle(at) => self.state = State::Idle(at.min(now.max(self.failed_at + BACKOFF_MIN))),
            State::Connecting(_) => {}
        }
    }

    /// Asks as often as this from now on.
    pub fn set_pace(&mut self, now: Now, pace: Pace) {
        self.pace = pace;
        if let (State::Idle(at), true, false) = (self.state, self.hurries(), self.patient()) {
            self.state = State::Idle(at.min(now + BACKOFF_HURRY));
        }
    }

    /// Something is due.
    pub fn timeout(&mut self, now: Now) {
        match self.state {
            State::Idle(at) if now >= at => {
                self.state = State::Connecting(now);
                self.out.push_back(Do::Connect);
            }
            State::Connecting(since) if now.since(since) >= self.timeout => self.fail(now, Gone::Timeout),
            State::Up if self.overdue().is_some_and(|at| now >= at) => self.fail(now, Gone::Timeout),
            State::Up if self.deadline().is_some_and(|at| now >= at) => self.expire(now),
            State::Up if self.rounds == 0 && now >= self.next_round() => self.round(now),
            State::Up if self.next_pulse().is_some_and(|at| now >= at) => self.pulse(now),
            _ => {}
        }
    }

    /// When [`Self::timeout`] is due.
    pub fn next_timeout(&self) -> Option<Now> {
        match self.state {
            State::Idle(at) => Some(at),
            State::Connecting(since) => Some(since + self.timeout),
            State::Up => {
                let round = (self.rounds == 0).then(|| self.next_round());
                [self.overdue(), self.deadline(), round, self.next_pulse()].into_iter().flatten().min()
            }
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Do> {
        self.out.pop_front()
    }

    fn hurries(&self) -> bool {
        self.pace == Pace::Hurried
    }

    fn overdue(&self) -> Option<Now> {
        self.waiting.front().map(|(_, sent)| *sent + self.timeout + self.patience)
    }

    /// When the guard's answer is taken for a no.
    fn deadline(&self) -> Option<Now> {
        match &self.script {
            Script::Guard(g) => g.deadline(),
            _ => None,
        }
    }

    fn expire(&mut self, now: Now) {
        if let Script::Guard(g) = &mut self.script
            && let Some(seen) = g.expired(now)
        {
            self.saw(now, seen);
        }
    }

    fn next_round(&self) -> Now {
        let period = match &self.script {
            Script::Guard(g) => g.every(self.hurries()),
            Script::Witness(w) => w.every(self.interval),
            Script::Events(_) => events::PING_EVERY.max(self.interval),
            Script::Ping => self.interval,
            _ if self.hurries() => self.interval.min(HURRY),
            _ => self.interval,
        };
        self.polled_at + period
    }

    /// When a Sentinel is to be asked for its flags; not while an answer is awaited.
    fn next_pulse(&self) -> Option<Now> {
        let idle = self.waiting.is_empty() && matches!(self.script, Script::Sentinel(_));
        let period = if self.pace == Pace::Relaxed { PULSE_RELAXED } else { PULSE };
        idle.then(|| self.pulsed_at + period)
    }

    /// Asks a Sentinel for its flags.
    fn pulse(&mut self, now: Now) {
        self.pulsed_at = now;
        self.send(now, Vec::from([Question::Flags]));
    }

    /// Asks the script's round of questions.
    fn round(&mut self, now: Now) {
        let questions = match &mut self.script {
            Script::Sentinel(s) => s.round(now, self.pace == Pace::Hurried),
            Script::Events(_) => events::round(),
            Script::Node(n) => n.round(),
            Script::Witness(w) => w.round(),
            Script::Guard(g) => g.round(self.pace == Pace::Hurried),
            Script::Ping => Vec::from([Question::Ping]),
        };
        (self.polled_at, self.pulsed_at) = (now, now);
        self.again = false;
        self.rounds += 1;
        self.send(now, questions);
    }

    fn send(&mut self, now: Now, questions: Vec<Question>) {
        let mut bytes = Vec::new();
        let name = match &self.script {
            Script::Sentinel(s) => s.name(),
            _ => "",
        };
        for q in questions {
            q.write(name, &mut bytes);
            self.waiting.push_back((q.forget(), now));
        }
        if !bytes.is_empty() {
            self.out.push_back(Do::Send(bytes));
        }
    }

    fn answered(&mut self, now: Now, value: Value) {
        if let Script::Events(l) = &mut self.script {
            if let Some(announced) = l.event(&value) {
                if let Some(a) = announced {
                    self.saw(now, Seen::Announced(a));
                }
                return;
            }
        }
        let Some((question, sent)) = self.waiting.pop_front() else {
            return self.fail(now, Gone::Garbage("an answer that nobody asked for".into()));
        };
        if question.ends_round() {
            self.rounds = self.rounds.saturating_sub(1);
        }
        if let Some(denied) = denial(&question, &value) {
            return self.fail(now, Gone::Denied(denied));
        }
        let seen: Vec<Seen> = match &mut self.script {
            Script::Sentinel(s) => s.answer(&question, &value),
            Script::Events(_) => events::answer(&question, &value).into_iter().collect(),
            Script::Node(n) => n.answer(&question, &value).into_iter().collect(),
            Script::Witness(w) => w.answer(&question, &value).into_iter().collect(),
            Script::Guard(g) => g.answer(now, &question, &value).into_iter().collect(),
            Script::Ping => node::pong(&question, &value),
        };
        if !seen.is_empty() {
            self.backoff = BACKOFF_MIN;
        }
        if let (Script::Sentinel(s), [Seen::Flags(f)]) = (&self.script, seen.as_slice()) {
            self.again |= s.is_news(f);
        }
        let guards = matches!(self.script, Script::Guard(_));
        let refused =
            |s: &Seen| matches!(s, Seen::Listening(Err(_))) || guards && matches!(s, Seen::Problem(_));
        let deaf = seen.iter().any(refused);
        for s in seen {
            self.out.push_back(Do::Observed(Observation { from: self.target.clone(), sent, seen: s }));
        }
        if deaf {
            self.out.push_back(Do::Close);
            self.disconnect(now, BACKOFF_DENIED);
        }
    }

    fn saw(&mut self, sent: Now, seen: Seen) {
        self.out.push_back(Do::Observed(Observation { from: self.target.clone(), sent, seen }));
    }

    /// Gives up the connection from our side.
    fn fail(&mut self, now: Now, why: Gone) {
        self.out.push_back(Do::Close);
        self.lost(now, why);
    }

    fn lost(&mut self, now: Now, why: Gone) {
        let wait = match why {
            _ if self.patient() => self.interval.max(BACKOFF_MIN),
            Gone::Denied(_) => BACKOFF_MAX,
            _ if self.hurries() => self.backoff.min(BACKOFF_HURRY),
            Gone::Refused if matches!(self.script, Script::Sentinel(_)) => self.backoff.min(REFUSED_EVERY),
            _ => self.backoff,
        };
        let sent = match self.state {
            State::Connecting(since) => since,
            _ => now,
        };
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        self.disconnect(now, wait);
        match self.script {
            Script::Events(_) => self.saw(now, Seen::Listening(Err(format!("{why}").into()))),
            // The other observer says so.
            Script::Witness(_) => {}
            _ => self.saw(sent, Seen::Gone(why)),
        }
    }

    /// Whether failed attempts count as checks, so that they come no more often than those.
    fn patient(&self) -> bool {
        matches!(self.script, Script::Ping)
    }

    fn disconnect(&mut self, now: Now, wait: Duration) {
        self.state = State::Idle(now + wait);
        self.failed_at = now;
        self.waiting.clear();
        (self.rounds, self.again) = (0, false);
    }
}

/// Whether an answer says that we are not, or not rightly, authenticated.
fn denial(question: &Question, value: &Value) -> Option<Arc<str>> {
    let Value::Error(e) = value else { return None };
    let text = String::from_utf8_lossy(e);
    // A password that is not needed does no harm (acl.c, authCommand; before 6.0 in other words).
    let needless = text.contains("without any password configured") || text.contains("no password is set");
    let denied = matches!(question, Question::Auth(_)) && !needless;
    (denied || text.starts_with("NOAUTH")).then(|| ask::readable(e).into())
}

#[cfg(test)]
mod tests;
