//! Who is master by the nodes' own word, without Sentinels.
use super::judge::{Facts, Grant, Verdict};
use super::nodes::{Key, Node};
use super::settings::HostPort;
use crate::Now;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

/// Before the first grant, how long nodes that neither answered nor failed are waited for although most answered: one of them may say
/// master too. Round trips are far shorter, and nobody waits longer for a first grant because a host is gone.
const FIRST_LOOK: Duration = Duration::from_millis(200);

/// Role probes.
#[derive(Clone, Debug)]
pub(super) struct Roles {
    pub(super) nodes: Vec<HostPort>,
    pub(super) start_wait: Duration,
    /// Since when there has been a single claimant that nothing but waiting can prove.
    alone: Option<(Key, Now)>,
}

impl Roles {
    pub(super) fn new(nodes: &[HostPort], start_wait: Duration) -> Roles {
        Roles { nodes: nodes.to_vec(), start_wait, alone: None }
    }

    /// The verdict of the nodes.
    pub(super) fn judge(&mut self, f: &Facts<'_>) -> Verdict {
        let claimants = claimants(f);
        let alone = self.alone.take();
        let key = match claimants.as_slice() {
            [] => return self.nobody(f),
            [(key, node)] => {
                let key = key.clone();
                let known = self.known(f, &key, node);
                if !known || f.last.is_none() && !f.trusted && self.nodes.iter().any(|at| unheard(f, at)) {
                    let since = alone.filter(|(k, _)| *k == key).map_or(f.now, |(_, since)| since);
                    self.alone = Some((key.clone(), since));
                    let wait = if known { FIRST_LOOK.min(self.start_wait) } else { self.start_wait };
                    if f.last.is_some() || f.now.since(since) < wait {
                        return Verdict::trouble(self.unproven(f, &key));
                    }
                }
                key
            }
            many => match successor(f, many) {
                Some(key) => key,
                None => {
                    let names: Vec<String> = many.iter().map(|(k, _)| k.to_string()).collect();
                    return Verdict::trouble(format!(
                        "{} say that they are master, and none is proven to be the successor",
                        names.join(" and ")
                    ));
                }
            },
        };
        if let Some(grant) = f.standing.filter(|g| g.key != key) {
            return Verdict::Withdraw(format!("{key} says master, not {}", grant.key));
        }
        match f.prove(&key) {
            Ok(_) => Verdict::serve(key, 0),
            Err(verdict) => verdict,
        }
    }

    /// Nobody says master: what does the standing one say?
    fn nobody(&self, f: &Facts<'_>) -> Verdict {
        if let Some(Err(verdict)) = f.standing.map(|g| f.prove(&g.key)) {
            return verdict;
        }
        let silent: Vec<String> =
            self.nodes.iter().filter(|at| !answered(f, at)).map(|at| at.to_string()).collect();
        if silent.is_empty() {
            return Verdict::trouble("no node says that it is master".into());
        }
        Verdict::trouble(format!("no node says that it is master; no answer from {}", silent.join(", ")))
    }

    /// Whether a single claimant is proven by what is known: it was granted before, most nodes answered, or lineage.
    fn known(&self, f: &Facts<'_>, key: &Key, node: &Node) -> bool {
        let before = f.last.is_some_and(|g| g.key == *key);
        let answers = self.nodes.iter().filter(|at| answered(f, at)).count();
        before || f.trusted || answers * 2 > self.nodes.len() || f.last.is_some_and(|g| succeeds(node, g))
    }

    fn unproven(&self, f: &Facts<'_>, key: &Key) -> String {
        let answers = self.nodes.iter().filter(|at| answered(f, at)).count();
        let n = self.nodes.len();
        if answers * 2 > n {
            return format!(
                "{key} says master; {answers} of {n} nodes answered, and the others may say so too"
            );
        }
        format!(
            "{key} says master, but only {answers} of {n} nodes answer, and nothing proves that it succeeds the last master"
        )
    }

    /// How a grant came about, and whether it was given for want of anything better.
    pub(super) fn describe(&self, f: &Facts<'_>, key: &Key) -> (String, bool) {
        let answers = self.nodes.iter().filter(|at| answered(f, at)).count();
        let n = self.nodes.len();
        let claimants = f.nodes.claimants(f.oldest).len();
        let node = f.nodes.find(key).map(|(_, n)| n);
        let lineage = f.last.is_some_and(|g| node.is_some_and(|n| succeeds(n, g)));
        let doubtful = f.last.is_none() && answers * 2 <= n;
        let why = match (lineage, claimants) {
            (true, _) => {
                format!("it was promoted out of the last master's history; {answers} of {n} nodes answer")
            }
            (false, 0 | 1) => format!("it is the only one that says master; {answers} of {n} nodes answer"),
            (false, _) => format!("it is proven to be the successor among {claimants} that say master"),
        };
        (why, doubtful)
    }
}

/// Who says that it is master; also the standing one when it runs a script and says nothing else.
fn claimants<'a>(f: &Facts<'a>) -> Vec<(Key, &'a Node)> {
    let mut all = f.nodes.claimants(f.oldest);
    let busy = f.standing.filter(|g| f.busy(&g.key).is_some() && all.iter().all(|(key, _)| *key != g.key));
    all.extend(busy.and_then(|g| Some((g.key.clone(), f.nodes.find(&g.key)?.1))));
    all
}

fn answered(f: &Facts<'_>, at: &HostPort) -> bool {
    f.nodes
        .map
        .get(at)
        .is_some_and(|n| n.lost.is_none() && n.told.as_ref().is_some_and(|t| t.sent >= f.oldest))
}

/// A node of which nothing is known yet.
fn unheard(f: &Facts<'_>, at: &HostPort) -> bool {
    f.nodes.map.get(at).is_none_or(|n| n.lost.is_none() && n.told.is_none())
}

fn succeeds(node: &Node, grant: &Grant) -> bool {
    node.lineage().zip(grant.lineage.as_ref()).is_some_and(|(n, g)| n.succeeds(g))
}

/// The one of several claimants that lineage proves to be the successor: of the last granted master, or, before any
/// grant, of all the other claimants.
fn successor(f: &Facts<'_>, claimants: &[(Key, &Node)]) -> Option<Key> {
    if let Some(last) = f.last {
        // A replica that was restarted as a master from an old dump has the lineage too. While the last master still claims,
        // only one that had followed it as far as it was proven is its successor.
        let claims = claimants.iter().any(|(k, _)| *k == last.key);
        let followed = |n: &Node| {
            n.lineage().is_some_and(|l| l.second_offset > i64::try_from(last.offset).unwrap_or(i64::MAX))
        };
        let mut heirs =
            claimants.iter().filter(|(k, n)| *k != last.key && succeeds(n, last) && (!claims || followed(n)));
        match (heirs.next(), heirs.next()) {
            (Some((key, _)), None) => return Some(key.clone()),
            (Some(_), Some(_)) => return None,
            _ => {}
        }
    }
    let over = |a: &Node, b: &Node| a.lineage().zip(b.lineage()).is_some_and(|(a, b)| a.succeeds(b));
    let mut heirs =
        claimants.iter().filter(|(k, n)| claimants.iter().all(|(other, o)| other == k || over(n, o)));
    // Of the last master only what was said above takes the place.
    let last = f.last.map(|g| &g.key).filter(|k| claimants.iter().any(|(claimant, _)| claimant == *k));
    match (heirs.next(), heirs.next()) {
        (Some((key, _)), None) if last.is_none_or(|last| last == key) => Some(key.clone()),
        _ => None,
    }
}
