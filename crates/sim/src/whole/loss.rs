//! Why an acknowledged write is lost, or was executed by a deposed master: the excuses, each no wider than what is documented.
//!
//! A write is lost because a node without it was promoted, because the node that had it was told to follow another, or because a
//! process came back without its data. For the first, this is all that is accepted (docs/guide/guard.md, docs/adr/fencing.md):
//!
//! | excuse | its bound |
//! |---|---|
//! | what was written did not reach the one that was promoted: cut off, dead, stopped, not following yet | by the truth about just these two, at just that moment |
//! | … or it was still on its way, on a slow link | for as long as such a link takes |
//! | … and besides, where there is a guard, no replica at all received anything any more | [`UNNOTICED`] from then on, and the time in which the control plane stood still: the guard |
//! | … no replica had yet followed under this grant, or all others were dead | none: nobody acknowledges that could fall silent |
//! | … enough Sentinels had had an answer of the master since | until their last answer is too old |
//! | a failover that was ordered, or elected by a quorum that is no majority, while we did not hear who led it | the last moments before the promotion; and after it [`PROMOTION_SEEN`], or as long as we did not reach the promoted node either |
//! | Sentinels turned to a deposed master that had not been told to follow yet | as what did not reach the one that was promoted |
//! | a promotion came to nothing: its leader failed before it had told anybody | until we could know that it failed ([`LEADER_MISSED`]) |
//! | a process came back without its data | only what was written before that, by it or by whom it succeeded |
//!
//! Nothing but the last excuses the loss of a durable write: all replicas had it (docs/guide/durable-writes.md).
use super::Whole;
use super::check::{Check, Run};
use super::truth::Truth;
use crate::resp::Tag;
use crate::topology::world::DOWN_AFTER;
use std::collections::HashSet;

/// What is written reaches the replicas within this, while nothing is wrong. All times are in microseconds.
const REPLICATED_AFTER: u64 = 2_000;
/// So long writes may go on after the last replica fell silent: `guard_interval` + `guard_wait`, and what messages take.
const UNNOTICED: u64 = 300_000;
/// A grant's replicas are known to acknowledge when they have done so for this long: the master's next `ROLE` says it.
const ARMED_AFTER: u64 = 300_000;
/// `guard_wait`: an answer that is not this much newer than the silence is not newer than the trip.
const TRIPS_AFTER: u64 = 150_000;
/// When a Sentinel's last answer is too old to vouch for a master (`min(down-after, 1 s)` + half of down-after), and how
/// much later that is noticed at most.
const VOUCHES_FOR: u64 = DOWN_AFTER * 1_500;
const NOTICED_AFTER: u64 = 100_000;
/// An order is given at most this long before the promotion.
const ORDERED_BEFORE: u64 = 300_000;
/// All nodes are asked for their role every 50 ms while a Sentinel is out of sight.
const PROMOTION_SEEN: u64 = 150_000;
/// So long a leader that failed may be believed: the observers' time-out, and their interval.
const LEADER_MISSED: u64 = 450_000;

/// A promotion, and what it left behind.
#[derive(Debug)]
pub(super) struct Promotion {
    at: u64,
    node: usize,
    /// Its new history.
    replid: u64,
    /// The histories that it ends: the one that it comes out of, and those of all others who said master.
    ends: Vec<u64>,
    /// The Sentinel that gave the order; `None`: it was nobody's order.
    by: Option<usize>,
    forced: bool,
    /// What the node had.
    has: HashSet<Tag>,
    /// When a majority first named it.
    named: Option<u64>,
}

impl Whole {
    /// Takes down that a node was promoted out of a history, while those of others end.
    pub(super) fn note_promotion(&mut self, n: usize, out_of: u64, others: &[u64]) {
        let order = self.world.promoted.filter(|p| p.node == n && p.at == self.now / 1000);
        self.check.promotions.push(Promotion {
            at: self.now,
            node: n,
            replid: self.world.nodes[n].replid,
            ends: [&[out_of], others].concat(),
            by: order.map(|p| p.by),
            forced: order.is_some_and(|p| p.forced),
            has: self.stores[n].log.iter().filter_map(|e| e.tag).collect(),
            named: None,
        });
    }
}

/// What took a write away.
enum Fate<'a> {
    /// This promotion, in the place of the node that had it.
    Promotion(&'a Promotion, usize),
    /// The node that had it was told to follow another, and nobody had been promoted in its place.
    Left(usize, u64),
}

impl Check {
    /// A majority names this node now.
    pub(super) fn confirmed(&mut self, now: u64, n: usize, replid: u64) {
        let named = self.promotions.iter_mut().filter(|p| p.node == n && p.replid == replid);
        named.for_each(|p| p.named = p.named.or(Some(now)));
    }

    /// Follows a lost write from node to node to where it was lost.
    fn fate(&self, tag: Tag, run: &Run) -> Fate<'_> {
        let (mut node, mut history, mut since) = (run.node, run.replid, run.at);
        loop {
            let ends = |p: &&Promotion| p.at >= since && p.ends.iter().any(|e| self.continues(*e, history));
            let mut next = self.promotions.iter().filter(ends);
            match next.clone().find(|p| p.has.contains(&tag)) {
                Some(p) => (node, history, since) = (p.node, p.replid, p.at + 1),
                None => {
                    return match next.next_back() {
                        Some(p) => Fate::Promotion(p, node),
                        None => Fate::Left(node, history),
                    };
                }
            }
        }
    }

    /// Why it is nobody's fault that an acknowledged write is lost; or why it is.
    pub(super) fn excused(&self, tag: Tag, run: &Run, durable: bool) -> Result<&'static str, String> {
        let fate = self.fate(tag, run);
        let (holder, heir) = match &fate {
            Fate::Promotion(p, holder) => (*holder, p.node),
            Fate::Left(holder, _) => (*holder, *holder),
        };
        let wiped = |(at, n): &(u64, usize)| *at > run.at && (*n == holder || *n == heir);
        if self.truth.wipes.iter().any(wiped) {
            return Ok("came back without data");
        }
        if durable {
            return Err(format!("its replicas had it; node {heir} does not"));
        }
        match fate {
            Fate::Left(n, history) => self.came_to_nothing(run, n, history),
            Fate::Promotion(p, n) if n != run.node => self.behind_twice(p, n, run),
            Fate::Promotion(p, _) => self.behind(p, run),
        }
    }

    /// The one that was promoted had never followed the one whose place it takes.
    fn behind_twice(&self, p: &Promotion, holder: usize, run: &Run) -> Result<&'static str, String> {
        match self.truth.apart(holder, p.node, run.at, p.at) {
            true => Ok("two promotions in a row"),
            false => Err(format!("node {} had followed node {holder}, and does not have it", p.node)),
        }
    }

    /// What was written did not reach the one that was promoted.
    fn behind(&self, p: &Promotion, run: &Run) -> Result<&'static str, String> {
        let lag = self.truth.lag(p.node, run.at, run.at + REPLICATED_AFTER);
        let reaches = run.at + REPLICATED_AFTER + lag;
        if !self.truth.apart(run.node, p.node, run.at, reaches.min(p.at)) {
            if lag > 0 && reaches >= p.at {
                return Ok("on a slow link");
            }
            // Its reply is withheld by those who could know of the failover.
            let late = reaches >= p.at;
            return match self.unheard(p, run) {
                Some(why) if late => Ok(why),
                _ => Err(format!("node {}, promoted at {} us, could have it", p.node, p.at)),
            };
        }
        self.unguarded(run)
    }

    /// Why the guard need not have held this write.
    fn unguarded(&self, run: &Run) -> Result<&'static str, String> {
        if !self.guarded {
            return Ok("no guard");
        }
        let truth: &Truth = &self.truth;
        let (node, sent) = (run.node, run.sent);
        let Some((since, silent)) = truth.followed(node, sent) else { return Ok("no replica yet") };
        let since = since.max(truth.granted(run.proxy, run.term));
        let stalled = truth.stalled(run.proxy, since, sent);
        if since + ARMED_AFTER + stalled > silent {
            return Ok("no replica for long");
        }
        if sent <= silent + UNNOTICED {
            return Ok("not noticed yet");
        }
        if sent <= silent + UNNOTICED + stalled {
            return Ok("not noticed while the control plane stood still");
        }
        let died = |(n, t): (usize, &super::truth::Track)| n == node || t.ever(false, silent, sent);
        if truth.lives.iter().enumerate().all(died) {
            return Ok("all replicas were dead");
        }
        if self.vouched(node, silent, sent) {
            return Ok("vouched for");
        }
        Err(format!(
            "no replica of node {node} received anything since {silent} us, and it was sent at {sent} us"
        ))
    }

    /// Whether so many Sentinels had had an answer of the master, newer than the trip and not too old, that the others
    /// could not agree that it is down.
    fn vouched(&self, node: usize, silent: u64, sent: u64) -> bool {
        let from = (silent + TRIPS_AFTER).max(sent.saturating_sub(VOUCHES_FOR + NOTICED_AFTER));
        let fine =
            |s: &usize| self.truth.pongs[*s].iter().any(|(at, n)| *n == node && (from..=sent).contains(at));
        let voters = (0..self.truth.pongs.len()).filter(|s| !self.truth.votes[*s].ever(false, silent, sent));
        voters.filter(|s| !fine(s)).count() < self.quorum.min(self.truth.pongs.len() / 2 + 1)
    }

    /// Why a promotion could not be foreseen: docs/adr/fencing.md, "What it does not cover".
    fn unheard(&self, p: &Promotion, run: &Run) -> Option<&'static str> {
        let by = p.by?;
        let from = p.at.saturating_sub(ORDERED_BEFORE);
        let few = 2 * self.quorum <= self.truth.pongs.len();
        let deaf = self.truth.deaf(run.proxy, by, from, run.sent.max(p.at));
        match (deaf, p.forced, few) {
            (true, true, _) => Some("ordered out of our hearing"),
            (true, false, true) => Some("elected by few out of our hearing"),
            _ => None,
        }
    }

    /// Why a write was executed by a deposed master, and acknowledged; or that there is no reason.
    pub(super) fn dual_excused(&self, run: &Run, deposed: u64) -> Result<&'static str, String> {
        let Some(p) = self.promotions.iter().find(|p| p.at == deposed) else {
            return Err("nobody was promoted".into());
        };
        let Some(why) = self.unheard(p, run) else {
            return Err(format!("node {} was promoted in our hearing at {deposed} us", p.node));
        };
        let blind = self.truth.seen[p.node].ever(false, p.at, run.sent.max(p.at) + 1)
            || self.truth.stalls[run.proxy].ever(true, p.at, run.sent.max(p.at) + 1);
        if run.sent <= p.at + PROMOTION_SEEN || blind {
            return Ok(why);
        }
        Err(format!("node {} could be seen to be master since {deposed} us", p.node))
    }

    /// The node that had it was promoted, and the others came back to another before they had heard of it.
    fn came_to_nothing(&self, run: &Run, n: usize, history: u64) -> Result<&'static str, String> {
        let Some(p) = self.promotions.iter().find(|p| p.node == n && self.continues(history, p.replid))
        else {
            return Err(format!("node {n} was told to follow another, and nobody was promoted"));
        };
        // Sentinels may also turn to one that was deposed and never told: it says master already, so nobody is promoted.
        let alone = |r: usize| self.truth.apart(n, r, run.at, run.at + REPLICATED_AFTER);
        if n == run.node && (0..self.truth.runs.len()).all(alone) && p.named.is_some() {
            return self.unguarded(run);
        }
        if p.named.is_some_and(|at| at <= run.sent) {
            return Err(format!("node {n} was named by a majority since {:?}", p.named));
        }
        let Some(by) = p.by else { return Err(format!("nobody ordered node {n} to be promoted")) };
        let failed = |from: u64| self.truth.heard[by].ever(false, p.at, from);
        match (failed(run.sent + 1), failed(run.sent.saturating_sub(LEADER_MISSED))) {
            (true, false) => Ok("its leader failed"),
            (true, true) => Err(format!("Sentinel {by}, who promoted node {n}, had long failed")),
            (false, _) => Ok("its leader failed later"),
        }
    }
}
