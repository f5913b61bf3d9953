//! What must hold of planned changes of master (docs/guide/switchover.md).
//!
//! - Nothing is lost in one that was completed, neither of the proxies' clients nor of those who write to the old master
//!   directly: its successor has all that it acknowledged, but for what it executed after its pause had ended by itself.
//! - Writes are paused for less than half of down-after, in all, and the order is given in the pause.
//! - One that failed leaves the old master serving: not paused, not held, and nobody promoted.
//! - Priorities are put back, or, when the process dies, by what it has said of them.
use super::faults::Fault;
use super::net::{ConnId, Near};
use super::{Report, Whole};
use crate::resp::Tag;
use crate::topology::world::{DOWN_AFTER, PRIORITY};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The `UNPAUSE` at the end of a pause comes about when it ends by itself, in microseconds.
const ABOUT: u64 = 1_000;

/// A process and the number of its errand.
type Key = (usize, u64);

/// A write that a node executed.
#[derive(Clone, Copy, Debug)]
struct Run {
    at: u64,
    node: usize,
    replid: u64,
}

/// A switchover.
#[derive(Debug, Default)]
struct Switch {
    began: u64,
    /// The master that it began with, and its history.
    old: Option<(usize, u64)>,
    /// For how long it has paused writes, in milliseconds, and until when it said it would.
    paused: u64,
    until: u64,
    /// The master was told to hand over, and pauses writes by itself until it is a replica.
    hands_over: bool,
}

/// A node was promoted out of a history, and which writes of it that node had not.
#[derive(Debug)]
struct Promotion {
    at: u64,
    node: usize,
    replid: u64,
    missing: BTreeSet<Tag>,
    /// The old master itself handed over.
    handed: bool,
}

/// What is known of the switchovers of a history.
#[derive(Debug, Default)]
pub(super) struct Planned {
    runs: HashMap<Tag, Run>,
    acked: BTreeSet<Tag>,
    switches: BTreeMap<Key, Switch>,
    promotions: Vec<Promotion>,
    /// Switchovers that were completed: the promotion, and when the pause before it was to end by itself.
    completed: Vec<(usize, u64)>,
}

impl Planned {
    pub(super) fn executed(&mut self, at: u64, node: usize, replid: u64, tag: Tag) {
        self.runs.insert(tag, Run { at, node, replid });
    }

    pub(super) fn acknowledged(&mut self, tag: Tag) {
        self.acked.insert(tag);
    }

    pub(super) fn begun(&mut self, began: u64, key: Key, old: Option<(usize, u64)>) {
        self.switches.insert(key, Switch { began, old, ..Switch::default() });
    }

    /// A write that was acknowledged and is lost by a switchover that was completed.
    fn lost(&self) -> Option<(Tag, Run)> {
        self.completed.iter().find_map(|(i, until)| {
            let p = &self.promotions[*i];
            let in_time = |run: &Run| run.replid == p.replid && run.at + ABOUT < *until;
            let gone = |tag: &Tag, run: &Run| p.missing.contains(tag) || run.at > p.at;
            let lost = |tag: &Tag| self.runs.get(tag).copied().filter(|r| in_time(r) && gone(tag, r));
            self.acked.iter().find_map(|tag| Some((*tag, lost(tag)?)))
        })
    }
}

impl Whole {
    /// A node was promoted out of a history, and may miss some of it.
    pub(super) fn note_missing(&mut self, n: usize, replid: u64) {
        let (at, has) = (self.now, self.stores[n].log.len());
        let old = (0..self.stores.len())
            .find(|m| *m != n && self.world.nodes[*m].of.is_none() && self.world.nodes[*m].replid == replid);
        let missing = old.map(|m| self.stores[m].log.get(has..).unwrap_or_default());
        let missing = missing.unwrap_or_default().iter().filter_map(|e| e.tag).collect();
        let order = self.world.promoted.filter(|p| p.node == n && p.at == at / 1000 && !p.forced);
        let handed = order.is_some_and(|p| self.world.coordinates(p.by));
        self.planned.promotions.push(Promotion { at, node: n, replid, missing, handed });
    }

    /// A node's writes are paused.
    pub(super) fn note_pause(&mut self, n: usize, conn: ConnId, ms: u64) {
        let Near::Errand(p, number, _) = self.conns[conn].near else { return };
        let end = self.now + ms * 1000;
        let Some(switch) = self.planned.switches.get_mut(&(p, number)) else { return };
        (switch.paused, switch.until) = (switch.paused + ms, end);
        let paused = switch.paused;
        if paused * 2 >= DOWN_AFTER {
            self.check.breaks(format!("(switchover) writes of node {n} are paused for {paused} ms in all"));
        }
    }

    /// A Sentinel is ordered to fail over.
    pub(super) fn note_order(&mut self, key: Key, hands_over: bool) {
        let Some(switch) = self.planned.switches.get_mut(&key) else { return };
        switch.hands_over = hands_over;
        let Some((old, replid)) = switch.old.filter(|_| !hands_over) else { return };
        let same = self.works(old) && self.world.nodes[old].replid == replid;
        if same && !self.is_paused(old) {
            self.check.breaks(format!("(switchover) the order is given while node {old} takes writes"));
        }
    }

    /// A switchover is over.
    pub(super) fn switched(&mut self, p: usize, number: u64, outcome: Result<String, String>) {
        self.proxies[p].left_behind.clear();
        let Some(switch) = self.planned.switches.get(&(p, number)) else { return };
        let (began, old, hands_over) = (switch.began, switch.old, switch.hands_over);
        let until = if switch.hands_over { u64::MAX } else { switch.until };
        let done = outcome.is_ok() && switch.hands_over;
        self.report.count("switchovers coordinated", u64::from(done));
        let what = match &outcome {
            Ok(_) => "done",
            Err(why) if why.starts_with("refused") => "refused",
            Err(why) if why.starts_with("given up") => "given up",
            Err(_) => "failed",
        };
        self.report.count(&format!("switchovers {what}"), 1);
        let Some((old, replid)) = old else { return };
        match outcome {
            Ok(_) => {
                let of = self.planned.promotions.iter().rposition(|t| t.node != old && t.at > began);
                match of.map(|i| (i, self.planned.promotions[i].replid)) {
                    // Somebody else had another failover made meanwhile, without a pause.
                    Some((i, _)) if done && !self.planned.promotions[i].handed => {}
                    Some((i, of)) if of == replid => self.planned.completed.push((i, until)),
                    // The old master was started again in the middle, which ends its pause.
                    Some(_) => {}
                    None => {
                        self.check.breaks("(switchover) it was completed, and nobody was promoted".into())
                    }
                }
            }
            Err(why) if what != "failed" => {
                self.planned.switches.remove(&(p, number));
                self.went_on(old, replid, &why);
            }
            Err(_) => {}
        }
        self.let_go(p, old, hands_over);
    }

    /// Nobody was promoted in place of the old master, if nobody else can have wanted it.
    fn went_on(&mut self, old: usize, replid: u64, why: &str) {
        // Another proxy's switchover from the same master, which was not given up, does what this one did not.
        let others = self.planned.switches.values().any(|s| s.old == Some((old, replid)));
        let alone = !others && self.plan.iter().all(|(_, f)| f.is_gentle());
        let promoted = self.planned.promotions.iter().any(|t| t.replid == replid && t.node != old);
        let master = self.world.nodes[old].of.is_none();
        if alone && (promoted || !master) {
            self.check.breaks(format!("(switchover) node {old} does not go on as master, after: {why}"));
        }
    }

    /// Nothing holds any more that the switchover held.
    fn let_go(&mut self, p: usize, old: usize, hands_over: bool) {
        use pointsman_core::topology::pause::Pauser;
        if self.proxies[p].topology.paused_by(Pauser::Switchover) {
            self.check.breaks(format!("(switchover) it is over, and proxy {p} still holds"));
        }
        // What the master pauses by itself ends with the switchover, also while replicas are away.
        let harmless = |f: &Fault| hands_over && matches!(f, Fault::Replicas { .. } | Fault::Lag(_));
        let others = self.plan.iter().filter(|(_, f)| !harmless(f)).count();
        if others == 1 && self.is_paused(old) {
            self.check.breaks(format!("(switchover) it is over, and node {old} is still paused"));
        }
    }

    /// Whether nothing of a switchover goes on, or is left behind.
    pub(super) fn is_put_back(&self) -> bool {
        let idle = self.proxies.iter().all(|p| p.dead || !p.errands.values().any(|e| e.is_switchover()));
        idle && self.world.nodes.iter().all(|n| n.priority == PRIORITY)
    }

    /// The checks of switchovers that need everything.
    pub(super) fn finish_planned(&mut self) {
        if let Some((tag, run)) = self.planned.lost() {
            self.check.breaks(format!(
                "(switchover) {tag:?}, acknowledged by node {} at {} us, is lost by a switchover that was completed",
                run.node, run.at
            ));
        }
        let ordered = self.plan.iter().any(|(_, f)| matches!(f, Fault::Switch(_)));
        count(&mut self.report, "switchover: histories", ordered);
    }
}

fn count(report: &mut Report, name: &str, yes: bool) {
    report.count(name, u64::from(yes));
}
