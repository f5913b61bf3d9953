//! Replicas that vanish from the master's own list while a Sentinel is out of sight.
//!
//! No lease covers a failover that is ordered of a Sentinel that we cannot hear: it asks nobody. Whom it promotes says so
//! itself, if we can reach it (`rival`). If we cannot, its old master shows it: a replica that becomes master ends its
//! link at once (replication.c, replicationUnsetMaster), and so vanishes from the list that its master gives of its
//! replicas. So does one that died, was started again, or lost its link; of these, those that we can reach say so. For
//! the others writes wait until they are back, or until the Sentinels in sight would have heard of a promotion.
//!
//! A replica that was cut off from its master is listed until the master gives it up (`repl-timeout`): one that had
//! stopped to acknowledge before it vanished was not promoted just then, and holds nothing.
use super::judge::Facts;
use super::nodes::{Key, Node};
use super::observation::{Gone, Role};
use super::quorum::{NOTICED, lineage_of, unrelated};
use super::sentinels::Sentinels;
use super::settings::WithoutLease;
use crate::Now;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

/// Replicas acknowledge once a second (replicationCron). One that has not for this long was lost before it vanished.
const ACKNOWLEDGES_WITHIN: Duration = Duration::from_secs(3);
/// So long a node that was in sight has to say what became of it: to answer, or to refuse a new connection.
const GRACE: Duration = Duration::from_millis(100);

/// The replicas that the master has listed.
#[derive(Clone, Debug, Default)]
pub(super) struct Followers {
    of: Option<Key>,
    /// When the newest of its reports was asked for.
    sent: Now,
    map: BTreeMap<Key, Follower>,
}

/// One of them.
#[derive(Clone, Debug, Default)]
struct Follower {
    acknowledged: u64,
    /// When the last report was asked for by which it acknowledges.
    alive: Now,
    /// When the first report without it was asked for.
    missing: Option<Now>,
    /// It was missing before, and was not heard since: it holds nothing again.
    spent: bool,
}

impl Followers {
    /// Takes in what `master` said last of its replicas.
    fn note(&mut self, f: &Facts<'_>, master: &Key) {
        if self.of.as_ref() != Some(master) {
            *self = Followers { of: Some(master.clone()), ..Followers::default() };
        }
        let told = f.nodes.find(master).filter(|(_, n)| n.says_master()).and_then(|(_, n)| n.told.as_ref());
        let Some(told) = told.filter(|t| t.sent > self.sent) else { return };
        self.sent = told.sent;
        let listed = |key: &Key| told.report.attached.iter().find(|r| f.nodes.key(&r.at) == *key);
        for r in &told.report.attached {
            let key = f.nodes.key(&r.at);
            // One that no Sentinel lists is promoted by none.
            if f.nodes.find(&key).is_some() {
                self.map.entry(key).or_default();
            }
        }
        self.map.retain(|key, it| {
            let Some((_, node)) = f.nodes.find(key) else { return false };
            it.spent &= node.lost.is_some() || node.told.is_none();
            match listed(key) {
                Some(r) => it.listed(told.sent, r.acknowledged, told.report.offset),
                None => {
                    it.missing.get_or_insert(told.sent);
                }
            }
            it.missing.is_none_or(|since| since.since(it.alive) < ACKNOWLEDGES_WITHIN)
        });
    }
}

impl Follower {
    fn listed(&mut self, sent: Now, acknowledged: u64, offset: u64) {
        if acknowledged > self.acknowledged || acknowledged >= offset {
            self.alive = sent;
        }
        self.acknowledged = acknowledged;
        self.spent |= self.missing.take().is_some();
    }
}

impl Sentinels {
    /// Remembers whom this master lists as its replicas.
    pub(super) fn note_followers(&mut self, f: &Facts<'_>, master: &Key) {
        self.followers.note(f, master);
    }

    /// A replica that vanished from the master's list and may have been promoted by a Sentinel out of sight.
    pub(super) fn vanished(&self, f: &Facts<'_>, master: &Key) -> Option<String> {
        let followers = Some(&self.followers).filter(|l| l.of.as_ref() == Some(master))?;
        let dark = self.out_of_sight(f.now).filter(|_| self.fencing.without_lease != WithoutLease::GoOn)?;
        followers.map.iter().find_map(|(key, it)| {
            let since = it.missing.filter(|at| !it.spent && f.now.since(*at) < NOTICED)?;
            let (at, node) = f.nodes.find(key)?;
            let now = self.suspicious(f, master, node, since)?;
            Some(format!(
                "{master} no longer lists its replica {at}, which {now}, and Sentinel {dark} is out of sight"
            ))
        })
    }

    /// What a node that vanished then is suspected for.
    fn suspicious(&self, f: &Facts<'_>, master: &Key, node: &Node, since: Now) -> Option<String> {
        let told = node.told.as_ref().filter(|t| t.sent > since);
        let is_replica = |n: &Node| n.lost.is_none() && n.says_replica();
        match (told.map(|t| &t.report), &node.lost) {
            (_, Some((Gone::Refused, _))) if self.fencing.refused_is_dead => None,
            (Some(report), _) => match &report.role {
                Role::Replica { of, .. } => {
                    let to = f.nodes.key(of);
                    // Whom no Sentinel lists, none has promoted.
                    let other = f.nodes.find(&to).filter(|_| to != *master);
                    other.filter(|(_, n)| !is_replica(n)).map(|_| format!("now follows {of}"))
                }
                Role::Master if report.loading || unrelated(node, lineage_of(f, master)) => None,
                Role::Master => Some("now says master".into()),
            },
            (None, lost) => {
                let since = lost.as_ref().map_or(since, |(_, at)| *at);
                (f.now.since(since) >= GRACE).then(|| match lost {
                    Some((why, _)) => format!("{why}"),
                    None => "does not answer".into(),
                })
            }
        }
    }
}
