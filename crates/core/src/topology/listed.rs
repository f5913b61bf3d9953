//! Who is master by a list in order of preference, and by health alone.
use super::judge::{Facts, Verdict, Wait};
use super::nodes::{Key, Node};
use super::settings::{Failback, HostPort, StaticNode};
use crate::Now;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A static list.
#[derive(Clone, Debug)]
pub(super) struct ListedNodes {
    /// In order of preference: backups last.
    pub(super) nodes: Vec<HostPort>,
    pub(super) rise: u32,
    pub(super) fall: u32,
    pub(super) failback: Failback,
    /// Until when the present node may finish what is in flight, before a better one takes over.
    draining: Option<(Key, Now)>,
}

impl ListedNodes {
    pub(super) fn new(nodes: &[StaticNode], rise: u32, fall: u32, failback: Failback) -> ListedNodes {
        let (backups, first): (Vec<&StaticNode>, Vec<&StaticNode>) = nodes.iter().partition(|n| n.backup);
        let nodes = first.into_iter().chain(backups).map(|n| n.at.clone()).collect();
        ListedNodes { nodes, rise: rise.max(1), fall: fall.max(1), failback, draining: None }
    }

    /// What a node's checks make of it: to be called after each check.
    pub(super) fn rate(&self, node: &mut Node) {
        let enough = if node.good { self.rise } else { self.fall };
        if node.streak >= enough {
            node.healthy = Some(node.good);
        }
    }

    /// The verdict of the checks.
    pub(super) fn judge(&mut self, f: &Facts<'_>) -> Verdict {
        let best = self.nodes.iter().find(|at| self.healthy(f, at) == Some(true)).map(|at| f.nodes.key(at));
        let Some(grant) = f.standing else {
            self.draining = None;
            return self.begin(f, best);
        };
        let at = self.nodes.iter().find(|at| f.nodes.key(at) == grant.key);
        let Some(at) = at else {
            return Verdict::Withdraw(format!("{} is no longer listed", grant.key));
        };
        if self.healthy(f, at) == Some(false) {
            return Verdict::Withdraw(self.ill(f, &grant.key));
        }
        let better = best.filter(|best| *best != grant.key && self.rank(f, best) < self.rank(f, &grant.key));
        match better {
            Some(better) => {
                if let Some(verdict) = self.go_back(f, better) {
                    return verdict;
                }
            }
            None => self.draining = None,
        }
        self.prove(f, grant.key.clone())
    }

    /// The first healthy node; a less preferred one only when it is clear that those before it are not.
    fn begin(&self, f: &Facts<'_>, best: Option<Key>) -> Verdict {
        let open = self.nodes.iter().find(|at| self.healthy(f, at) != Some(false));
        match (best, open) {
            (Some(best), Some(open)) if f.nodes.key(open) == best => self.prove(f, best),
            (_, Some(open)) => Verdict::trouble(format!("{open} has not passed its checks yet")),
            (_, None) => Verdict::trouble(match self.nodes.first() {
                Some(at) => format!("no listed node is healthy; {}", self.ill(f, &f.nodes.key(at))),
                None => "no node is listed".into(),
            }),
        }
    }

    fn go_back(&mut self, f: &Facts<'_>, better: Key) -> Option<Verdict> {
        let why = format!("{better} is healthy again, and preferred");
        match self.failback {
            Failback::Never => None,
            Failback::Cut => Some(Verdict::Withdraw(why)),
            Failback::Drain(time) => {
                let until = match &self.draining {
                    Some((key, until)) if *key == better => *until,
                    _ => f.now + time,
                };
                if f.now >= until {
                    self.draining = None;
                    return Some(Verdict::Withdraw(why));
                }
                self.draining = Some((better, until));
                Some(Verdict::trouble(why))
            }
        }
    }

    fn prove(&self, f: &Facts<'_>, key: Key) -> Verdict {
        let pong = f.nodes.find(&key).and_then(|(_, n)| n.pong);
        let why = format!("{key} is asked again");
        match pong {
            Some(sent) if sent > f.sign_at && (sent > f.doubt_at || f.standing.is_some()) => {
                Verdict::serve(key, 0)
            }
            // A single failed check of a healthy node is no reason to hold; a worker's sign is.
            None if f.standing.is_some() && f.sign_at <= f.last.map_or(Now::ZERO, |g| g.proven_at) => {
                Verdict::serve(key, 0)
            }
            Some(sent) if sent > f.doubt_at => {
                Verdict::Hold(Wait { why, trouble: false, reads: false, only_sign: true, lapsed: false })
            }
            _ => Verdict::awaiting(why),
        }
    }

    fn healthy(&self, f: &Facts<'_>, at: &HostPort) -> Option<bool> {
        f.nodes.map.get(at).and_then(|n| n.healthy)
    }

    fn rank(&self, f: &Facts<'_>, key: &Key) -> usize {
        self.nodes.iter().position(|at| f.nodes.key(at) == *key).unwrap_or(usize::MAX)
    }

    fn ill(&self, f: &Facts<'_>, key: &Key) -> String {
        let node = f.nodes.find(key).map(|(_, n)| n);
        let lost = node.and_then(|n| n.lost.as_ref());
        match (lost, node.and_then(|n| n.problem.as_ref())) {
            (Some((why, _)), _) => format!("{key} {why}"),
            (None, Some(p)) => format!("{key}: {p}"),
            (None, None) => format!("{key} fails its checks"),
        }
    }
}
