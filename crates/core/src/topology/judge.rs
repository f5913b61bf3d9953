//! What the three judges (Sentinels, roles, listed nodes) have in common: what they are asked, what they answer, and
//! the proof that every grant needs from the node itself.
use super::nodes::{Identity, Key, Node, Nodes, Proof, Told};
use super::observation::Lineage;
use super::promotion::Promotion;
use super::settings::HostPort;
use crate::Now;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

/// The grant that stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Grant {
    pub(super) key: Key,
    /// The process; `None` where nodes are only pinged.
    pub(super) identity: Option<Identity>,
    /// Its replication history, as last seen.
    pub(super) lineage: Option<Lineage>,
    /// Its replication offset when it was last proven: what a successor must at least have followed.
    pub(super) offset: u64,
    /// The config epoch that it was named at; 0 without Sentinels.
    pub(super) epoch: u64,
    /// When the question of its newest proof was sent.
    pub(super) proven_at: Now,
    /// The promotion that proves it as long as no majority does.
    pub(super) provisional: Option<Box<Promotion>>,
}

impl Grant {
    /// When its process was last asked while it ran a script, and said that it is master; `None`: it has given a report since, or
    /// it was asked before `oldest`. A role does not change while a script runs, and nothing is executed for others.
    pub(super) fn busy(&self, nodes: &Nodes, oldest: Now) -> Option<Now> {
        let (_, node) = nodes.find(&self.key)?;
        let busy = node.busy.as_ref().filter(|b| b.sent >= oldest)?;
        let same = self.identity.as_ref()?.run_id.as_ref() == Some(&busy.run_id);
        let newest = node.told.as_ref().is_none_or(|t| t.sent < busy.sent);
        (same && newest).then_some(busy.sent)
    }
}

/// What is known when a verdict is asked for.
pub(super) struct Facts<'a> {
    pub(super) now: Now,
    /// An answer to a question sent before this is no longer fresh.
    pub(super) oldest: Now,
    pub(super) nodes: &'a Nodes,
    pub(super) standing: Option<&'a Grant>,
    /// The last grant, also after it was withdrawn.
    pub(super) last: Option<&'a Grant>,
    /// The last moment at which there was trouble. What releases or grants must have been asked after it.
    pub(super) doubt_at: Now,
    /// The last sign that a worker gave. The node's proof must have been asked after it.
    pub(super) sign_at: Now,
    /// The operator said that what the majority says now is to be believed.
    pub(super) trusted: bool,
    /// A promotion may be believed before a majority names it.
    pub(super) early: bool,
}

/// What all observations together imply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// This node is proven; by a promotion, as long as a majority does not name it.
    Serve {
        key: Key,
        epoch: u64,
        promotion: Option<Box<Promotion>>,
    },
    Hold(Wait),
    /// The standing grant has ended: why.
    Withdraw(String),
}

/// Why there is, for now, no proof.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wait {
    pub(super) why: String,
    /// Something speaks against a grant now; otherwise only answers are awaited (and should be asked for).
    pub(super) trouble: bool,
    /// The standing master itself is proven, is not deposed, and may serve reads.
    pub(super) reads: bool,
    /// Nothing is missing but the answer to a question sent after a worker's sign.
    pub(super) only_sign: bool,
    /// The lease on writes has ended: what happens then is a setting of its own.
    pub(super) lapsed: bool,
}

impl Verdict {
    pub(super) fn serve(key: Key, epoch: u64) -> Verdict {
        Verdict::Serve { key, epoch, promotion: None }
    }

    pub(super) fn trouble(why: String) -> Verdict {
        Verdict::Hold(Wait { why, trouble: true, reads: false, only_sign: false, lapsed: false })
    }

    /// With what the operator should know besides, of a verdict that holds.
    pub(super) fn besides(mut self, what: Option<String>) -> Verdict {
        if let (Verdict::Hold(wait), Some(what)) = (&mut self, what) {
            wait.why = format!("{}; besides, {what}", wait.why);
        }
        self
    }

    pub(super) fn awaiting(why: String) -> Verdict {
        Verdict::Hold(Wait { why, trouble: false, reads: false, only_sign: false, lapsed: false })
    }
}

impl<'a> Facts<'a> {
    /// The standing grant, if it is to `key`.
    pub(super) fn standing_for(&self, key: &Key) -> Option<&'a Grant> {
        self.standing.filter(|g| g.key == *key)
    }

    /// The proof that every grant needs from the node itself: that it answers, says master, does not load, and, if it
    /// is granted already, is the same process and was not demoted in between. A grant is kept also while its process runs
    /// a script, but none begins so.
    pub(super) fn prove(&self, key: &Key) -> Result<(), Verdict> {
        let busy = self.busy(key);
        let sent = match self.nodes.proof(key, self.oldest) {
            Proof::Master(at, node, told) => {
                self.same_process(key, at, node, told)?;
                busy.unwrap_or(told.sent)
            }
            Proof::Waiting | Proof::Lost(_) if busy.is_some() => busy.unwrap_or_default(),
            Proof::Waiting => return Err(Verdict::awaiting(format!("{key} was not heard yet"))),
            Proof::Lost(why) => return Err(Verdict::trouble(why)),
            Proof::Loading(at, node, told) => {
                self.same_process(key, at, node, told)?;
                return Err(Verdict::trouble(format!("{key} loads its data")));
            }
            Proof::Replica(why) if self.standing_for(key).is_some() => return Err(Verdict::Withdraw(why)),
            Proof::Replica(why) => return Err(Verdict::trouble(why)),
        };
        if sent <= self.doubt_at {
            return Err(Verdict::awaiting(format!("{key} is asked for its role again")));
        }
        if sent <= self.sign_at {
            let why = format!("{key} is asked for its role again, after a sign on a connection to it");
            return Err(Verdict::Hold(Wait {
                why,
                trouble: false,
                reads: false,
                only_sign: true,
                lapsed: false,
            }));
        }
        Ok(())
    }

    /// When the standing grant's process was last asked while it ran a script, if `key` is its node.
    pub(super) fn busy(&self, key: &Key) -> Option<Now> {
        self.standing_for(key)?.busy(self.nodes, self.oldest)
    }

    fn same_process(&self, key: &Key, at: &HostPort, node: &Node, told: &Told) -> Result<(), Verdict> {
        let Some(grant) = self.standing_for(key) else { return Ok(()) };
        let identity = Nodes::identity(at, node, told);
        if grant.identity.as_ref().is_some_and(|i| !i.same(&identity)) {
            let id = identity.run_id.as_deref().unwrap_or("unknown");
            return Err(Verdict::Withdraw(format!("{key} was restarted (its run id is now {id})")));
        }
        if let (Some(before), Some(after)) = (&grant.lineage, &told.report.lineage) {
            // A master's replid changes when it is promoted (replication.c, shiftReplicationId), and when it frees
            // its backlog for want of replicas, which clears replid2 (freeReplicationBacklog).
            if before.replid != after.replid && after.replid2.is_some() {
                return Err(Verdict::Withdraw(format!("{key} was demoted and promoted again")));
            }
        }
        Ok(())
    }

    /// Whether the standing master itself gives no reason for doubt, so that it may serve reads while writes wait.
    pub(super) fn readable(&self, key: &Key) -> bool {
        let Some(grant) = self.standing_for(key) else { return false };
        match self.nodes.proof(key, self.oldest) {
            Proof::Master(at, node, told) => {
                told.sent > self.sign_at && self.same_process(&grant.key, at, node, told).is_ok()
            }
            _ => self.busy(key).is_some_and(|sent| sent > self.sign_at),
        }
    }
}
