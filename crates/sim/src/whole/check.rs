//! What must hold of the whole, by product.md's numbers.
use super::Report;
use super::net::{Near, Stamp};
use crate::resp::Tag;
use crate::topology::drive::node_of;
use crate::topology::world::{FAILOVER_TIMEOUT, World};
use pointsman_core::topology::snapshot::{Gate, ShardView};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A majority's word is proof for so long, in microseconds.
const PROOF_LASTS: u64 = 1_500_000;

/// Whether replies to what was sent before a promotion, and was executed after it, are withheld from their clients.
const WITHHELD: bool = true;

/// What is written reaches the replicas within this, in microseconds, while nothing is wrong.
const REPLICATED_AFTER: u64 = 2_000;

/// One execution of a write.
#[derive(Clone, Copy, Debug)]
struct Run {
    at: u64,
    node: usize,
    replid: u64,
    /// When another had been promoted in its node's place, if one had.
    deposed: Option<u64>,
    /// When it was sent.
    sent: u64,
}

/// All that the checkers know.
#[derive(Debug, Default)]
pub(super) struct Check {
    written: HashMap<Tag, Run>,
    acked: BTreeMap<Tag, u64>,
    /// Of those, the ones that all replicas had.
    durable: HashSet<Tag>,
    /// Writes of which a client was told that they were not executed.
    pub(super) denied: HashSet<Tag>,
    /// Writes to a client's own key.
    pub(super) own: HashSet<Tag>,
    /// Reads that did not see their own session's last acknowledged write.
    pub(super) stale: Vec<(Tag, Tag)>,
    newest: HashMap<u32, u32>,
    /// Which node executed writes in each proxy's term.
    by_term: HashMap<(usize, u64), usize>,
    /// When a history was left for another, and which history goes on after a restart.
    superseded: HashMap<u64, (u64, usize)>,
    before: HashMap<u64, u64>,
    /// Histories out of which nobody was promoted when they were left.
    abandoned: HashSet<u64>,
    /// When a majority last named each node, and when each was last promoted.
    named: Option<usize>,
    named_at: BTreeMap<usize, u64>,
    promoted_at: BTreeMap<usize, u64>,
    /// Times in which what is written may not reach those who may be promoted.
    pub(super) impaired: Vec<(u64, u64)>,
    /// Writes that no other node had when theirs was killed or stopped.
    pub(super) behind: HashSet<Tag>,
    /// A node came back without its data.
    pub(super) wiped: bool,
    pub(super) errors: u64,
    pub(super) broken: Option<String>,
    /// What was lost, and what was acknowledged too late.
    pub(super) lost: Vec<Tag>,
    pub(super) dual: Vec<Tag>,
}

impl Check {
    /// An invariant does not hold.
    pub(super) fn breaks(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// A node executed a client's command.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn executed(
        &mut self,
        now: u64,
        node: usize,
        replid: u64,
        near: Near,
        stamp: Option<Stamp>,
        tag: Tag,
        write: bool,
    ) {
        let Some(stamp) = stamp else { return self.breaks(format!("{tag:?} came from nowhere")) };
        if !stamp.allowed[usize::from(!write)] {
            self.breaks(format!("(2) {tag:?} was sent through a closed gate or after the lease"));
        }
        if !write {
            return;
        }
        let Some(p) = near.proxy() else { return };
        let first = *self.by_term.entry((p, stamp.term)).or_insert(node);
        if first != node {
            self.breaks(format!("(1) nodes {first} and {node} execute writes of term {}", stamp.term));
        }
        let deposed = self.superseded_at(replid).filter(|t| now > *t);
        if let Some(before) = self.written.insert(tag, Run { at: now, node, replid, deposed, sent: stamp.at })
        {
            self.breaks(format!("(6) {tag:?} was executed twice: by node {} and node {node}", before.node));
        }
        // What a process that was stopped executes when it runs again is of a history that others have left.
        if deposed.is_some() {
            return;
        }
        let newest = self.newest.entry(tag.client).or_insert(tag.seq);
        if tag.seq < *newest {
            let text = format!("(6) {tag:?} was executed after command {newest} of its session");
            self.breaks(text);
        } else {
            *newest = tag.seq;
        }
    }

    /// A client was told that its write was executed.
    pub(super) fn acknowledged(&mut self, now: u64, tag: Tag, durable: bool) {
        if durable {
            self.durable.insert(tag);
        }
        if !self.written.contains_key(&tag) {
            self.breaks(format!("(4) {tag:?} is acknowledged, and was never executed"));
        }
        self.acked.insert(tag, now);
    }

    /// A node was promoted out of a history, while nodes of these said master.
    pub(super) fn promoted(&mut self, now: u64, n: usize, out_of: u64, claimants: impl Iterator<Item = u64>) {
        self.superseded.entry(out_of).or_insert((now, n));
        for replid in claimants.filter(|id| *id != out_of) {
            // Sentinels promote who follows somebody else, or nobody yet.
            if self.superseded_at(replid).is_none() {
                self.superseded.insert(replid, (now, n));
                self.abandoned.insert(replid);
            }
        }
        self.promoted_at.insert(n, now);
    }

    /// A master was started again, and goes on under another history.
    pub(super) fn goes_on(&mut self, old: u64, new: u64) {
        self.before.insert(new, old);
    }

    /// When somebody was promoted in a node's place, by what it had written so far.
    fn superseded_at(&self, replid: u64) -> Option<u64> {
        let mut at = Some(replid);
        let mut found = None;
        while let Some(id) = at {
            found = self.superseded.get(&id).map(|(t, _)| *t).into_iter().chain(found).min();
            at = self.before.get(&id).copied();
        }
        found
    }

    /// Whom a majority of the Sentinels names now.
    pub(super) fn named(&mut self, now: u64, world: &World) {
        let Some((n, _)) = world.truth(now / 1000) else { return };
        self.named_at.insert(n, now);
        let again = self.named.replace(n) != Some(n);
        let node = &world.nodes[n];
        let nothing = |(_, by): &(u64, usize)| world.nodes[*by].of.is_some();
        if node.of.is_none() && (again || self.superseded.get(&node.replid).is_some_and(nothing)) {
            // They may come back to one that they had left, or a promotion may come to nothing.
            self.superseded.remove(&node.replid);
        }
    }

    /// A topology machine publishes a view.
    pub(super) fn published(
        &mut self,
        now: u64,
        p: usize,
        before: &ShardView,
        view: &ShardView,
        world: &World,
    ) {
        if view.term < before.term {
            self.breaks(format!("(1) proxy {p}: the term fell from {:?} to {:?}", before.term, view.term));
        }
        let same = view.term == before.term && before.master.is_some() && view.master.is_some();
        if same && view.master != before.master {
            self.breaks(format!("(1) proxy {p}: {:?} has two masters", view.term));
        }
        let Some(n) = view.master.as_ref().map(node_of).filter(|_| view.term > before.term) else { return };
        let since = |t: Option<&u64>| t.map_or(u64::MAX, |t| now - t);
        let named = since(self.named_at.get(&n)) < PROOF_LASTS;
        // One that was promoted already can be selected again, by Sentinels that never heard of it.
        let selected = (0..world.sentinels.len()).any(|s| world.says(now / 1000, s).selected == Some(n));
        let promoted = since(self.promoted_at.get(&n)) < FAILOVER_TIMEOUT * 1000 || selected;
        let node = &world.nodes[n];
        let master = node.of.is_none() || now.saturating_sub(node.since * 1000) < PROOF_LASTS;
        if !(named || promoted) || !master {
            self.breaks(format!(
                "(3) proxy {p} grants node {n}: named {named}, promoted {promoted}, master {master}"
            ));
        }
        if view.writes == Gate::Open && view.reads != Gate::Open {
            self.breaks("reads are shut while writes are open".into());
        }
    }

    /// Whether nobody was promoted out of the history that it belongs to.
    fn left(&self, run: &Run) -> bool {
        self.abandoned.contains(&run.replid) || self.superseded_at(run.replid).is_none()
    }

    /// Whether something kept what was written then from whoever was promoted.
    fn excused(&self, tag: Tag, run: &Run) -> bool {
        let apart = |(since, until): &(u64, u64)| run.at + REPLICATED_AFTER > *since && run.at < *until;
        let left = self.left(run);
        if self.durable.contains(&tag) {
            return self.wiped || left;
        }
        self.wiped || left || self.behind.contains(&tag) || self.impaired.iter().any(apart)
    }

    /// The checks that need everything; `has`: what the last master has. `fenced`: nothing may be acknowledged by a
    /// deposed node. `calm`: nothing went wrong that a client may notice.
    pub(super) fn finish(&mut self, has: &BTreeSet<Tag>, fenced: bool, calm: bool, report: &mut Report) {
        if calm && self.errors > 0 {
            self.breaks(format!("{} errors, and nothing was wrong with master or network", self.errors));
        }
        let acked: Vec<Tag> = self.acked.keys().copied().collect();
        for tag in acked {
            let Some(run) = self.written.get(&tag).copied() else { continue };
            let dual = run.deposed;
            if let Some(t) = dual {
                self.dual.push(tag);
                let late = run.sent > t;
                report.count("dual, sent after the promotion", u64::from(late));
                if fenced && (late || WITHHELD) {
                    self.breaks(format!(
                        "(1) {tag:?} was acknowledged by node {} at {} us, after its successor's promotion at {t} us",
                        run.node, run.at
                    ));
                }
            }
            if !has.contains(&tag) {
                self.lost.push(tag);
                if dual.is_none() && fenced && !self.excused(tag, &run) {
                    self.breaks(format!(
                        "{tag:?}, acknowledged by node {} at {} us, is lost",
                        run.node, run.at
                    ));
                }
            }
        }
        if let Some(tag) = self.denied.iter().filter(|t| self.written.contains_key(t)).min() {
            self.breaks(format!("(6) the client was told that {tag:?} was not executed"));
        }
        let stale: Vec<_> = self.stale.iter().filter(|(_, of)| has.contains(of)).copied().collect();
        if let Some((read, of)) = stale.first() {
            self.breaks(format!("(1) {read:?} did not see {of:?}, its session's own, which is not lost"));
        }
        report.count("acknowledged", self.acked.len() as u64);
        report.count("lost", self.lost.len() as u64);
        report.count("dual", self.dual.len() as u64);
        report.count("errors", self.errors);
    }
}
