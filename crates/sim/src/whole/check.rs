//! What must hold of the whole, by the numbers of the product's invariants (ARCHITECTURE.md). Who checks which:
//!
//! | invariant | here | elsewhere |
//! |---|---|---|
//! | 1 one master | [`Check::executed`]: one node a term; [`Check::published`]: terms grow; [`Check::finish`]: nothing acknowledged is lost or executed by a deposed node, but for what `loss` excuses | `topology/check`, and with the lease alone `topology/dark` |
//! | 2 no byte to a deposed node | [`Check::executed`]: nothing is sent through a closed gate or after the lease; `net`: nothing queued arrives on a closed connection | `worker_world/check` |
//! | 3 proof before trust | [`Check::published`] | `topology/check`: each condition of each proof |
//! | 4 every reply to its owner | [`Check::acknowledged`], `client` | `worker_world/check`, to the byte |
//! | 5 one place at a time | not here: sessions do nothing that makes them move | `worker_world/check` |
//! | 6 never twice, never out of order | [`Check::executed`]; [`Check::finish`]: nothing ran of which its client was told that it did not | `worker_world/check` |
//! | 7 as if directly connected | `client`: nobody is closed; [`Check::finish`]: reads see their own session's writes | `worker_world/check`, and the differential tests |
//! | 8 bounded | in time: everybody is served again, nobody waits behind open gates | in room: `worker_world` (`Worker::audit`); holds: `topology/check` |
//! | 9 it explains itself | [`Check::explained`], [`Check::tells`]: whenever a gate or the grant changes an event is told, with a story that fits | `topology/stories` |
//!
//! Those who write past the proxies are asked of by `planned` alone: they carry no grant, and only a planned change of master
//! must not lose what they wrote.
use super::Report;
use super::loss::Promotion;
use super::net::{Near, Stamp};
use super::truth::Truth;
use crate::resp::Tag;
use crate::topology::drive::node_of;
use crate::topology::stories::wrong_with;
use crate::topology::world::{FAILOVER_TIMEOUT, World};
use pointsman_core::topology::snapshot::{Gate, ShardView};
use pointsman_core::topology::status::Event;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A majority's word is proof for so long, in microseconds.
const PROOF_LASTS: u64 = 1_500_000;

/// One execution of a write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) at: u64,
    pub(super) node: usize,
    pub(super) replid: u64,
    /// When another had been promoted in its node's place, if one had.
    deposed: Option<u64>,
    /// When it was sent, by whom, and under which grant.
    pub(super) sent: u64,
    pub(super) proxy: usize,
    pub(super) term: u64,
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
    /// When and where reads were executed last.
    reads: HashMap<Tag, (u64, usize)>,
    newest: HashMap<u32, u32>,
    /// Which node executed writes in each proxy's term.
    by_term: HashMap<(usize, u64), usize>,
    /// Proxies of which a gate, or the grant, has changed just now and nothing is told of it, and when each last told something.
    untold: Vec<usize>,
    told: HashMap<usize, u64>,
    /// When a history was left for another, and which history goes on after a restart.
    superseded: HashMap<u64, (u64, usize)>,
    before: HashMap<u64, u64>,
    /// When a majority last named each node, and when each was last promoted.
    named: Option<usize>,
    named_at: BTreeMap<usize, u64>,
    promoted_at: BTreeMap<usize, u64>,
    /// What was so, and who was promoted.
    pub(super) truth: Truth,
    pub(super) promotions: Vec<Promotion>,
    /// How many Sentinels must take the master for down.
    pub(super) quorum: usize,
    /// The proxies have a guard.
    pub(super) guarded: bool,
    pub(super) errors: u64,
    pub(super) broken: Option<String>,
    /// What was lost, and what was acknowledged too late.
    pub(super) lost: Vec<Tag>,
    pub(super) dual: Vec<Tag>,
}

impl Check {
    /// The checkers of this deployment.
    pub(super) fn new(truth: Truth, quorum: usize, guarded: bool) -> Check {
        Check { quorum, guarded, truth, ..Check::default() }
    }

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
            self.reads.insert(tag, (now, node));
            return;
        }
        let Some(p) = near.proxy() else { return };
        let first = *self.by_term.entry((p, stamp.term)).or_insert(node);
        if first != node {
            self.breaks(format!("(1) nodes {first} and {node} execute writes of term {}", stamp.term));
        }
        let deposed = self.superseded_at(replid).filter(|t| now > *t);
        let Stamp { at: sent, term, .. } = stamp;
        let run = Run { at: now, node, replid, deposed, sent, proxy: p, term };
        if let Some(before) = self.written.insert(tag, run) {
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
    pub(super) fn promoted(&mut self, now: u64, n: usize, out_of: u64, claimants: &[u64]) {
        self.superseded.entry(out_of).or_insert((now, n));
        for replid in claimants.iter().filter(|id| **id != out_of) {
            // Sentinels promote who follows somebody else, or nobody yet.
            if self.superseded_at(*replid).is_none() {
                self.superseded.insert(*replid, (now, n));
            }
        }
        self.promoted_at.insert(n, now);
    }

    /// A master was started again, and goes on under another history.
    pub(super) fn goes_on(&mut self, old: u64, new: u64) {
        self.before.insert(new, old);
    }

    /// A history, and those from which it went on after restarts.
    fn lineage(&self, history: u64) -> impl Iterator<Item = u64> + '_ {
        std::iter::successors(Some(history), |id| self.before.get(id).copied())
    }

    /// Whether a history is this one, or went on from it after restarts.
    pub(super) fn continues(&self, history: u64, from: u64) -> bool {
        self.lineage(history).any(|id| id == from)
    }

    /// When somebody was promoted in a node's place, by what it had written so far.
    fn superseded_at(&self, replid: u64) -> Option<u64> {
        self.lineage(replid).filter_map(|id| self.superseded.get(&id)).map(|(t, _)| *t).min()
    }

    /// Whom a majority of the Sentinels names now.
    pub(super) fn named(&mut self, now: u64, world: &World) {
        let Some((n, _)) = world.truth(now / 1000) else { return };
        self.named_at.insert(n, now);
        let again = self.named.replace(n) != Some(n);
        let node = &world.nodes[n];
        self.confirmed(now, n, node.replid);
        if node.of.is_some() {
            return;
        }
        // Also what it had been deposed from before it was started again.
        let histories: Vec<u64> = self.lineage(node.replid).collect();
        for id in histories {
            // They may come back to one that they had left, or a promotion may come to nothing.
            let Some((at, by)) = self.superseded.get(&id).copied() else { continue };
            let came_to_nothing = world.nodes[by].of.is_some();
            if again || came_to_nothing {
                self.superseded.remove(&id);
            }
            if came_to_nothing {
                self.deposed_nobody(n, at);
            }
        }
    }

    /// The promotion of then has come to nothing, and this node remains the master: of what it executed meanwhile, and no
    /// client has been told yet, it is asked as of all that a master executes (that it is not lost). What was acknowledged
    /// before could not be known to be good, and stays what it was.
    fn deposed_nobody(&mut self, n: usize, at: u64) {
        let meanwhile = |run: &Run| run.node == n && run.deposed == Some(at);
        for (tag, run) in self.written.iter_mut().filter(|(_, run)| meanwhile(run)) {
            if !self.acked.contains_key(tag) {
                run.deposed = None;
            }
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
        if view.why.is_empty() {
            self.breaks(format!("(9) proxy {p} does not say why its gates are as they are"));
        }
        let open = |v: &ShardView| [v.writes, v.reads].map(Gate::is_open);
        let moved = open(view) != open(before) || view.term != before.term;
        if moved && self.told.get(&p) != Some(&now) {
            self.untold.push(p);
        }
        let Some(n) = view.master.as_ref().map(node_of).filter(|_| view.term > before.term) else { return };
        self.truth.grants.insert((p, view.term.0), now);
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

    /// Whether the node that was read came back without its data after a write.
    fn wiped_between(&self, write: &Tag, read: &Tag) -> bool {
        let (Some(run), Some((at, node))) = (self.written.get(write), self.reads.get(read)) else {
            return false;
        };
        self.truth.wipes.iter().any(|(t, n)| n == node && (run.at..*at).contains(t))
    }

    /// (9) Whether each change of a gate was told, with its reasons.
    pub(super) fn explained(&mut self) {
        if let Some(p) = self.untold.first() {
            self.breaks(format!("(9) a gate of proxy {p} has moved, and nothing is told of it"));
        }
    }

    /// A proxy tells something.
    pub(super) fn tells(&mut self, now: u64, p: usize, e: &Event) {
        self.told.insert(p, now);
        self.untold.retain(|of| *of != p);
        if let Some(wrong) = wrong_with(e) {
            self.breaks(format!("(9) {wrong}, in the story of '{}': {:?}", e.kind.label(), e.story));
        }
    }

    /// The checks that need everything; `has`: what the last master has. `calm`: nothing went wrong that a client may notice.
    pub(super) fn finish(&mut self, has: &BTreeSet<Tag>, calm: bool, report: &mut Report) {
        if calm && self.errors > 0 {
            self.breaks(format!("{} errors, and nothing was wrong with master or network", self.errors));
        }
        let acked: Vec<Tag> = self.acked.keys().copied().collect();
        for tag in acked {
            let Some(run) = self.written.get(&tag).copied() else { continue };
            let durable = self.durable.contains(&tag);
            let judged = match run.deposed {
                Some(t) => {
                    self.dual.push(tag);
                    report.count("dual, sent after the promotion", u64::from(run.sent > t));
                    let what = format!("after its successor's promotion at {t} us");
                    Some((self.dual_excused(&run, t), what))
                }
                None if has.contains(&tag) => None,
                None => Some((self.excused(tag, &run, durable), "and is lost".into())),
            };
            if !has.contains(&tag) {
                self.lost.push(tag);
            }
            match judged {
                None => {}
                Some((Ok(why), _)) => report.count(&format!("excused: {why}"), 1),
                Some((Err(why), what)) => self.breaks(format!(
                    "(1) {tag:?}, durable: {durable}, was acknowledged by node {} at {} us {what}: {why}",
                    run.node, run.at
                )),
            }
        }
        if let Some(tag) = self.denied.iter().filter(|t| self.written.contains_key(t)).min() {
            self.breaks(format!("(6) the client was told that {tag:?} was not executed"));
        }
        let stale: Vec<_> = self
            .stale
            .iter()
            .filter(|(read, of)| has.contains(of) && !self.wiped_between(of, read))
            .collect();
        if let Some((read, of)) = stale.first() {
            self.breaks(format!("(1) {read:?} did not see {of:?}, its session's own, which is not lost"));
        }
        report.count("acknowledged", self.acked.len() as u64);
        report.count("lost", self.lost.len() as u64);
        report.count("dual", self.dual.len() as u64);
        report.count("errors", self.errors);
    }
}
