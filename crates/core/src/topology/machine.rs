//! The topology machine of one service: observations in; grants, gates, views and questions out.
//!
//! Its walk: an observation is noted (`nodes`, `sentinels`); a judge looks at everything that is known and gives a
//! verdict (`quorum`, `roles`, `listed`); the verdict begins, keeps, withdraws or releases a grant, and opens or closes
//! the gates; what changed is published, told, and asked for. Time and workers' signs go the same way.
//!
//! Two rules hold for all sources. *Trouble is followed by proof*: after the last moment at which something spoke
//! against a grant, only answers to questions that were sent later release it. *Terms are for fences*: a new term
//! begins when another node is granted, or another process at the same address, or one that was demoted in between;
//! otherwise a release keeps the term.
use super::demote::Demotions;
use super::guard::Guard;
use super::judge::{Facts, Grant, Verdict, Wait};
use super::kept::Stream;
use super::listed::ListedNodes;
use super::nodes::{Key, Nodes, Proof};
use super::observation::{Observation, Pace, Seen, Target, TargetKind};
use super::pause::Pause;
use super::promotion::Promotion;
use super::roles::Roles;
use super::sentinels::Sentinels;
use super::settings::{HostPort, Settings, Source, Trust};
use super::snapshot::{ShardView, Sign, SignKind, Term};
use super::status::{Event, EventKind};
use super::teller::Teller;
use super::watch::{ASK_EVERY, CHASE_EVERY, configured_nodes, observed_differently};
use crate::Now;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::mem;
use core::time::Duration;

/// How long a worker's sign of a broken connection waits for the node's own word before all workers hold (the worker
/// that saw it holds at once): connections break for many reasons.
const GRACE: Duration = Duration::from_millis(20);
/// How often time alone is looked at, while something goes on, and while nothing does.
const TICK_BUSY: Duration = Duration::from_millis(25);
const TICK_CALM: Duration = Duration::from_millis(200);
/// For how long an operator's trust is good.
const TRUST_FOR: Duration = Duration::from_secs(30);
/// The longest automatic hold, and what it adds to the largest down-after, and what it is without Sentinels.
const HOLD_MAX: Duration = Duration::from_secs(60);
const HOLD_BEYOND: Duration = Duration::from_secs(10);
const HOLD_ALONE: Duration = Duration::from_secs(15);

/// What the machine wants done, or told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Act {
    /// Observe this from now on.
    Watch(Target),
    /// Observe this no longer.
    Unwatch(Target),
    /// Ask this at once.
    Ask(Target),
    /// Ask this as often as that.
    Pace(Target, Pace),
    /// Tell the workers.
    Publish(Arc<ShardView>),
    /// Tell the people.
    Story(Event),
    /// Tell `node`, a deposed master that still says master, to follow `to`; answer with [`Topology::demoted`].
    Demote {
        /// The deposed master.
        node: HostPort,
        /// How the Sentinels call the granted one.
        to: HostPort,
    },
    /// Do not tell this node any more.
    Spare(HostPort),
}

/// How the master is known.
enum Judge {
    Sentinels(Sentinels),
    Roles(Roles),
    Listed(ListedNodes),
}

/// A hold of the service.
pub(super) struct Held {
    pub(super) since: Now,
    /// Since when reads wait too; as long as they do not: the last look.
    pub(super) reads_since: Now,
    pub(super) why: String,
    pub(super) reads: bool,
    /// It holds for want of a lease: whether reads go on does not depend on `hold_reads`.
    pub(super) lapsed: bool,
    /// It ran out, and that was told.
    down: bool,
}

/// One service's topology.
pub struct Topology {
    pub(super) settings: Settings,
    judge: Judge,
    pub(super) nodes: Nodes,
    pub(super) term: Term,
    pub(super) grant: Option<Grant>,
    /// The last grant, also after it was withdrawn: what comes next is measured by it.
    pub(super) last: Option<Grant>,
    /// The grant before a provisional one: what is measured by if that turns out wrong.
    deposed: Option<Grant>,
    pub(super) held: Option<Held>,
    /// A hold that is wanted.
    pub(super) paused: Option<Pause>,
    pub(super) demotions: Demotions,
    /// What the term's master wrote, and who has it.
    pub(super) stream: Stream,
    /// Why it serves.
    pub(super) serving: Arc<str>,
    pub(super) guard: Guard,
    /// Until when writes may go on without another word of the Sentinels.
    pub(super) lease: Option<Now>,
    /// Holds for want of a lease.
    pub(super) lapses: u64,
    doubt_at: Now,
    sign_at: Now,
    /// Until when a sign alone does not make all workers hold.
    grace_until: Now,
    /// A worker waits for a view whose proof began after this.
    pub(super) owed: Option<Now>,
    trusted_until: Option<Now>,
    pub(super) asked_at: Now,
    pub(super) chased_at: Now,
    pub(super) ask_wanted: bool,
    looked_at: Now,
    pub(super) published: Arc<ShardView>,
    pub(super) published_at: Now,
    /// Who is observed, and how often it was told to ask.
    pub(super) watched: BTreeMap<Target, Pace>,
    pub(super) teller: Teller,
    pub(super) acts: VecDeque<Act>,
}

impl Topology {
    /// A machine that knows nothing yet: it holds from now on, and wants its targets watched.
    pub fn new(now: Now, settings: Settings) -> Topology {
        let judge = judge_for(now, &settings);
        let held = Held {
            reads_since: now,
            since: now,
            why: "the master is not known yet".into(),
            reads: false,
            lapsed: false,
            down: false,
        };
        let mut t = Topology {
            judge,
            nodes: Nodes::default(),
            term: Term(0),
            grant: None,
            last: None,
            deposed: None,
            stream: Stream::default(),
            held: Some(held),
            paused: None,
            demotions: Demotions::default(),
            serving: "".into(),
            guard: Guard::default(),
            lease: None,
            lapses: 0,
            doubt_at: Now::ZERO,
            sign_at: Now::ZERO,
            grace_until: Now::ZERO,
            owed: None,
            trusted_until: None,
            asked_at: Now::ZERO,
            chased_at: Now::ZERO,
            ask_wanted: false,
            looked_at: now,
            published: Arc::new(ShardView::unknown(now, HOLD_ALONE)),
            published_at: now,
            watched: BTreeMap::new(),
            teller: Teller::default(),
            acts: VecDeque::new(),
            settings,
        };
        t.note_configured(now);
        t.published = Arc::new(t.compose(now));
        t.acts.push_back(Act::Publish(t.published.clone()));
        t.arrange();
        t
    }

    /// Takes in a fact.
    pub fn observe(&mut self, now: Now, o: Observation) {
        let Observation { from, sent, seen } = o;
        let announced = matches!(seen, Seen::Announced(_));
        self.hear(now, &from, &seen);
        match (from.kind, &mut self.judge) {
            (TargetKind::Sentinel, Judge::Sentinels(s)) => {
                s.observe(now, &from.at, sent, seen, &mut self.nodes)
            }
            (TargetKind::Node, judge) => {
                self.nodes.observe(now, &from.at, sent, seen);
                if let (Judge::Listed(l), Some(n)) = (judge, self.nodes.map.get_mut(&from.at)) {
                    l.rate(n);
                }
            }
            (TargetKind::Guard, _) => self.guard_hear(now, &from.at, sent, seen),
            (TargetKind::Sentinel, _) => return,
        }
        self.ask_wanted |= announced;
        self.settle(now);
    }

    /// A worker saw a sign that the grant may have ended. The node is asked at once; a view whose proof began after
    /// the sign follows, or the reason why there is none.
    pub fn sign(&mut self, now: Now, sign: &Sign) {
        self.note_sign(now, sign);
        let Some(grant) = self.grant.as_ref().filter(|_| sign.term == self.term) else { return };
        self.owed = self.owed.max(Some(sign.at));
        if grant.proven_at <= sign.at {
            let kind = sign.kind.label();
            let first = self.sign_at <= grant.proven_at;
            self.sign_at = self.sign_at.max(sign.at);
            if !matches!(sign.kind, SignKind::Broken | SignKind::Garbage) {
                self.hold(
                    now,
                    format!("a worker saw a sign on a connection to {}: {kind}", grant.key),
                    false,
                );
            } else if first {
                self.grace_until = now + GRACE;
            }
            if self.asked_at <= sign.at {
                self.ask_wanted = true;
            }
        }
        self.settle(now);
    }

    /// The operator says that what is seen now is to be believed, although it does not continue what was known: a
    /// lower config epoch that a majority names, or a single claimant without lineage. Good for half a minute.
    pub fn trust(&mut self, now: Now) {
        self.trusted_until = Some(now + TRUST_FOR);
        self.tell(now, EventKind::Note, "the operator trusts what is seen now".into());
        self.ask_wanted = true;
        self.settle(now);
    }

    /// Takes over changed settings. The grant stays if the master is still known in the same way.
    pub fn reconfigure(&mut self, now: Now, settings: Settings) {
        let before = mem::replace(&mut self.settings, settings);
        if before == self.settings {
            return;
        }
        if observed_differently(&before, &self.settings) {
            for t in mem::take(&mut self.watched).into_keys() {
                self.acts.push_back(Act::Unwatch(t));
            }
        }
        self.guard_renew();
        match (&mut self.judge, &before.source, &self.settings.source) {
            (
                Judge::Sentinels(s),
                Source::Sentinels { master: a, .. },
                Source::Sentinels { master: b, sentinels },
            ) if a == b => s.configure(now, sentinels, self.settings.fencing),
            (_, a, b)
                if mem::discriminant(a) != mem::discriminant(b) || matches!(b, Source::Sentinels { .. }) =>
            {
                self.judge = judge_for(now, &self.settings);
                self.nodes = Nodes::default();
                self.withdraw(now, "the master is now known in another way".into());
                (self.last, self.deposed) = (None, None);
            }
            _ => self.judge = judge_for(now, &self.settings),
        }
        if let Source::Roles { .. } | Source::Static { .. } = self.settings.source {
            let listed = configured_nodes(&self.settings.source);
            self.nodes.map.retain(|at, _| listed.contains(at));
        }
        self.note_configured(now);
        self.settle(now);
    }

    /// Looks at what time alone changes.
    pub fn timeout(&mut self, now: Now) {
        self.settle(now);
    }

    /// When [`Self::timeout`] is due next.
    pub fn next_timeout(&self) -> Option<Now> {
        let busy = self.held.is_some() || self.owed.is_some();
        let tick = self.looked_at + if busy { TICK_BUSY } else { TICK_CALM };
        let end = self.held.as_ref().filter(|h| !h.down).map(|h| h.since + self.hold_max());
        let ask = self.ask_wanted.then(|| self.asked_at + ASK_EVERY);
        let chase = self.candidates(self.looked_at).next().map(|_| self.chased_at + CHASE_EVERY);
        let paused = self.paused.as_ref().map(|p| p.until);
        let lapse = self.lease.filter(|t| self.held.is_none() && *t > self.looked_at);
        [Some(tick), end, ask, chase, lapse, paused].into_iter().flatten().min()
    }

    /// The view as it is now; the published one may have an older proof.
    pub fn view(&self) -> Arc<ShardView> {
        Arc::new(self.compose(self.looked_at))
    }

    /// The next thing to do or to tell.
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    pub(super) fn sentinels(&self) -> Option<&Sentinels> {
        match &self.judge {
            Judge::Sentinels(s) => Some(s),
            _ => None,
        }
    }

    pub(super) fn looked_at(&self) -> Now {
        self.looked_at
    }

    pub(super) fn held_since(&self) -> Option<Now> {
        let held = self.held.as_ref().map(|h| h.since);
        held.into_iter().chain(self.paused.as_ref().map(|p| p.since)).min()
    }

    /// An answer to a question sent before this is no longer fresh.
    pub(super) fn oldest(&self, now: Now) -> Now {
        now - (self.settings.timeout + self.settings.interval)
    }

    /// How long a hold lasts.
    pub(super) fn hold_max(&self) -> Duration {
        let auto = || match self.sentinels().and_then(Sentinels::down_after) {
            Some(d) => d.saturating_add(HOLD_BEYOND).min(HOLD_MAX),
            None => HOLD_ALONE,
        };
        self.settings.hold_max.unwrap_or_else(auto)
    }

    /// Draws the conclusions of everything that is known.
    fn settle(&mut self, now: Now) {
        self.looked_at = now;
        // Trust ends with its time. A withdrawn grant makes way for the next; that is one more look.
        self.trusted_until = self.trusted_until.filter(|t| now < *t);
        self.guard_look(now);
        for _ in 0..3 {
            match self.verdict(now) {
                Verdict::Serve { key, epoch, promotion } => {
                    self.serve(now, key, epoch, promotion);
                    break;
                }
                Verdict::Hold(wait) => {
                    self.wait(now, wait);
                    break;
                }
                Verdict::Withdraw(why) => self.withdraw(now, why),
            }
        }
        self.lease = self.grant.as_ref().and_then(|g| self.sentinels()?.lease(&self.nodes, &g.key));
        if self.held.as_ref().is_some_and(|h| self.serves_reads(h)) {
            self.held.iter_mut().for_each(|h| h.reads_since = now);
        }
        self.run_out(now);
        self.end_pause(now);
        self.demote(now);
        self.tell_news(now);
        self.arrange();
        self.ask(now);
        self.chase(now);
        self.publish(now);
        self.follow(now);
    }

    fn verdict(&mut self, now: Now) -> Verdict {
        let f = facts(now, self.oldest(now), &self.nodes, &self.grant, &self.last, self.times());
        match &mut self.judge {
            Judge::Sentinels(s) => s.judge(&f),
            Judge::Roles(r) => r.judge(&f),
            Judge::Listed(l) => l.judge(&f),
        }
    }

    fn times(&self) -> (Now, Now, bool, Trust) {
        (self.doubt_at, self.sign_at, self.trusted_until.is_some(), self.settings.trust)
    }

    /// There is proof: the grant begins, goes on, or is released.
    fn serve(&mut self, now: Now, key: Key, epoch: u64, promotion: Option<Box<Promotion>>) {
        let proven = match (self.nodes.find(&key), self.nodes.proof(&key, self.oldest(now))) {
            (_, Proof::Master(at, node, told)) => {
                let report = &told.report;
                Some((
                    told.sent,
                    Some(Nodes::identity(at, node, told)),
                    report.lineage.clone(),
                    report.offset,
                ))
            }
            (Some((_, node)), _) => node.pong.map(|sent| (sent, None, None, 0)),
            _ => None,
        };
        let oldest = self.oldest(now);
        match (&mut self.grant, proven) {
            (Some(g), proven) => {
                g.proven_at = g.proven_at.max(g.busy(&self.nodes, oldest).unwrap_or_default());
                if let Some((sent, _, lineage, offset)) = proven {
                    g.proven_at = g.proven_at.max(sent);
                    g.offset = offset;
                    g.lineage = lineage.or(g.lineage.take());
                }
                if epoch < g.epoch {
                    let text = format!("a new era: config epoch {epoch} follows {}", g.epoch);
                    g.epoch = epoch;
                    self.tell(now, EventKind::Era, text);
                } else {
                    g.epoch = epoch;
                }
                if promotion.is_none() {
                    self.confirm(now);
                }
                self.release(now);
            }
            (None, Some((sent, identity, lineage, offset))) => {
                self.deposed = promotion.as_ref().and_then(|_| self.last.take());
                let provisional = promotion.clone();
                self.begin(
                    now,
                    Grant { key, identity, lineage, offset, epoch, proven_at: sent, provisional },
                );
            }
            (None, None) => {}
        }
        self.last = self.grant.clone();
        self.stream.note(self.term, self.grant.as_ref().and_then(|g| g.lineage.as_ref()));
        // What was given up still matters if the old master gets its grant back.
        if let (Judge::Sentinels(s), None) = (&mut self.judge, promotion) {
            s.forget_aborts();
        }
    }

    /// A majority names the node that was granted for its promotion.
    fn confirm(&mut self, now: Now) {
        let Some(grant) = self.grant.as_mut() else { return };
        if grant.provisional.take().is_none() {
            return;
        }
        let (key, epoch) = (grant.key.clone(), grant.epoch);
        self.deposed = None;
        let f = facts(now, self.oldest(now), &self.nodes, &self.grant, &self.last, self.times());
        let how = self.sentinels().map(|s| s.describe(&f, &key, epoch)).unwrap_or_default();
        self.serving = format!("{key} is master: {how}").into();
        self.tell(now, EventKind::Note, format!("the grant to {key} is no longer provisional: {how}"));
    }

    fn begin(&mut self, now: Now, grant: Grant) {
        let f = facts(now, self.oldest(now), &self.nodes, &self.grant, &self.last, self.times());
        let (how, doubtful) = match &self.judge {
            Judge::Sentinels(s) => match &grant.provisional {
                Some(p) => (format!("provisionally, until a majority names it: {}", p.how), false),
                None => (s.describe(&f, &grant.key, grant.epoch), false),
            },
            Judge::Roles(r) => r.describe(&f, &grant.key),
            Judge::Listed(_) => ("it is the first healthy one of the list".into(), false),
        };
        let era = self.last.as_ref().filter(|l| grant.epoch < l.epoch).map(|l| l.epoch);
        let process = grant.identity.as_ref().and_then(|i| i.run_id.as_deref());
        let process = process.map_or(String::new(), |id| format!("; its run id is {id}"));
        let before = self.held.take();
        let held = before.as_ref().map_or(Duration::ZERO, |h| now.since(h.since));
        let key = grant.key.clone();
        self.term = Term(self.term.0 + 1);
        self.serving = format!("{key} is master: {how}").into();
        self.grant = Some(grant);
        // Trust is for one decision.
        self.trusted_until = None;
        if let Some(before) = era {
            self.tell(
                now,
                EventKind::Era,
                format!("a new era of config epochs is accepted, after epoch {before}"),
            );
        }
        self.tell(
            now,
            EventKind::Grant,
            format!("{key} is granted after {} ms: {how}{process}", held.as_millis()),
        );
        if doubtful {
            let text = format!(
                "{key} was granted although most nodes do not answer: nothing better was known in time"
            );
            self.tell(now, EventKind::Warning, text);
        }
        self.guard_look(now);
        if let Some(why) = self.guard.holds() {
            // It is the same hold, for another reason.
            let why = why.into();
            self.held = before;
            self.hold(now, why, true);
        }
    }

    fn release(&mut self, now: Now) {
        if let Some(why) = self.guard.holds() {
            let why = why.into();
            self.hold(now, why, true);
            self.held.iter_mut().for_each(|h| h.lapsed = false);
            return;
        }
        let Some(held) = self.held.take() else { return };
        let ms = now.since(held.since).as_millis();
        let oldest = self.oldest(now);
        let is = |g: &Grant| match g.busy(&self.nodes, oldest) {
            Some(_) => "runs a script, and is master still,",
            None => "is proven again",
        };
        let key = self.grant.as_ref().map(|g| format!("{} {}", g.key, is(g))).unwrap_or_default();
        self.tell(now, EventKind::Release, format!("{key} after {ms} ms; it was held because {}", held.why));
    }

    /// There is no proof for now.
    fn wait(&mut self, now: Now, wait: Wait) {
        if wait.trouble {
            self.doubt_at = now;
        } else if self.asked_at <= self.doubt_at.max(self.sign_at) {
            self.ask_wanted = true;
        }
        if wait.only_sign && self.held.is_none() && now < self.grace_until {
            return;
        }
        // While a reason is being cleared up, it stays the reason that people see; at a start there is none yet.
        if wait.trouble || self.held.is_none() || self.last.is_none() {
            self.hold(now, wait.why, wait.reads);
        } else if let Some(h) = &mut self.held {
            h.reads = wait.reads;
        }
        if let Some(h) = &mut self.held {
            self.lapses += u64::from(wait.lapsed && !h.lapsed);
            h.lapsed = wait.lapsed;
        }
    }

    fn hold(&mut self, now: Now, why: String, reads: bool) {
        if let Some(h) = &mut self.held {
            (h.why, h.reads) = (why, reads);
            return;
        }
        self.held =
            Some(Held { since: now, reads_since: now, why: why.clone(), reads, lapsed: false, down: false });
        self.tell(now, EventKind::Hold, why);
    }

    fn withdraw(&mut self, now: Now, why: String) {
        let Some(grant) = self.grant.take() else { return };
        if grant.provisional.is_some() {
            self.last = self.deposed.take();
        }
        self.hold(now, why.clone(), false);
        self.tell(now, EventKind::Fence, format!("{} is fenced: {why}", grant.key));
    }

    fn run_out(&mut self, now: Now) {
        let max = self.hold_max();
        let Some(h) = self.held.as_mut().filter(|h| !h.down && now.since(h.since) >= max) else { return };
        h.down = true;
        let text = format!("commands get an error: the hold ran out after {} ms: {}", max.as_millis(), h.why);
        self.tell(now, EventKind::Down, text);
    }

    fn tell_news(&mut self, now: Now) {
        if let Judge::Sentinels(s) = &mut self.judge {
            for text in mem::take(&mut s.news) {
                self.tell(now, EventKind::Note, text);
            }
        }
    }
}

fn facts<'a>(
    now: Now,
    oldest: Now,
    nodes: &'a Nodes,
    grant: &'a Option<Grant>,
    last: &'a Option<Grant>,
    (doubt_at, sign_at, trusted, trust): (Now, Now, bool, Trust),
) -> Facts<'a> {
    let early = trust == Trust::Promotion;
    let (standing, last) = (grant.as_ref(), last.as_ref());
    Facts { now, oldest, nodes, standing, last, doubt_at, sign_at, trusted, early }
}

fn judge_for(now: Now, settings: &Settings) -> Judge {
    match &settings.source {
        Source::Sentinels { sentinels, .. } => {
            Judge::Sentinels(Sentinels::new(now, sentinels, settings.fencing))
        }
        Source::Roles { nodes, start_wait } => Judge::Roles(Roles::new(nodes, *start_wait)),
        Source::Static { nodes, rise, fall, failback } => {
            Judge::Listed(ListedNodes::new(nodes, *rise, *fall, *failback))
        }
    }
}
