//! The immutable view of all services that the control plane publishes: the only thing that it tells the data plane
//! about topology.
use crate::Now;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

/// Index of a service in the configuration; stable while the process lives, also across reloads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceId(pub u16);

/// Index of a shard within its service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

/// The number of a grant. A shard's term only grows; an upstream connection belongs to one term.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Term(pub u64);

/// The address of a server, resolved.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Endpoint {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(Arc<str>),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(a) => a.fmt(f),
            Endpoint::Unix(p) => write!(f, "unix:{p}"),
        }
    }
}

/// What a worker may do now with one kind of command (writes, or reads) of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// Send.
    Open,
    /// Keep the commands, in order. From `until` on, answer them with `-MASTERDOWN` instead (the worker does so by
    /// itself, without waiting for another snapshot).
    Hold {
        /// When the service's hold began.
        since: Now,
        /// When it ends.
        until: Now,
    },
    /// Answer every command with `-MASTERDOWN` at once: the hold ran out.
    Refuse,
}

impl Gate {
    /// Whether commands may be sent.
    pub fn is_open(self) -> bool {
        self == Gate::Open
    }
}

/// A replica, as far as the data plane and the operator's view need to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replica {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Whether it answers, and says that its link to the master is up.
    pub healthy: bool,
    /// How many bytes of the replication stream it was behind the master when both were last asked.
    pub lag_bytes: Option<u64>,
}

/// What of a term's writes is certainly not lost by a switch: the node that was selected to succeed the term's master,
/// or that has succeeded it, has its replication stream up to this offset (inclusive).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// The term whose master wrote the stream.
    pub term: Term,
    /// How far: a replication offset of that master, in bytes.
    pub offset: u64,
}

/// A former master that answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deposed {
    /// Where it listens.
    pub at: Endpoint,
    /// It still says that it is master, and is to be told to follow: then it says of what blocks there that it was not
    /// executed.
    pub to_be_told: bool,
}

/// One shard: who is granted mastership, and which gates are open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardView {
    /// The current grant's number; 0 before the first.
    pub term: Term,
    /// The node that the current grant names (kept while holding, so that a release to it needs no new term); `None`
    /// before the first grant, and after a grant was withdrawn.
    pub master: Option<Endpoint>,
    /// When the newest proof of the grant *began* (its question was sent). A worker that held a shard by itself, for
    /// a sign that it saw, is released by a snapshot whose proof began after that sign.
    pub proven_at: Now,
    /// The master runs a script, and answers others with `-BUSY`.
    pub busy: bool,
    /// No write is sent to the master at or after this moment (a lease); `None`: no lease is needed.
    pub writes_until: Option<Now>,
    /// The same for reads, where they wait for a lease too.
    pub reads_until: Option<Now>,
    /// What of a term's writes is with whoever comes after that term's master.
    pub kept: Option<Kept>,
    /// Replicas, in address order.
    pub replicas: Box<[Replica]>,
    /// Whether writes may be sent.
    pub writes: Gate,
    /// Whether reads may be sent.
    pub reads: Gate,
    /// A replica that may serve reads while their gate is closed, if that is wanted and one is known to be fit.
    pub reads_from: Option<Endpoint>,
    /// A former master that answers: what it says of commands that it was sent still counts for a moment.
    pub deposed: Option<Deposed>,
    /// How long a hold that a worker begins by itself may last.
    pub hold_max: Duration,
    /// Why the gates are as they are: one line for the log, the status and the text of `-MASTERDOWN`.
    pub why: Arc<str>,
}

impl ShardView {
    /// The view before anything is known: everything waits, from `now` until `now + hold_max`.
    pub fn unknown(now: Now, hold_max: Duration) -> ShardView {
        let gate = Gate::Hold { since: now, until: now + hold_max };
        ShardView {
            term: Term(0),
            master: None,
            proven_at: Now::ZERO,
            busy: false,
            writes_until: None,
            reads_until: None,
            kept: None,
            replicas: Box::default(),
            writes: gate,
            reads: gate,
            reads_from: None,
            deposed: None,
            hold_max,
            why: "the master is not known yet".into(),
        }
    }
}

/// One service's shards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceView {
    /// Which service.
    pub id: ServiceId,
    /// Its shards, by [`ShardId`]; at least one.
    pub shards: Box<[Arc<ShardView>]>,
}

/// An immutable view of all services. Workers replace theirs as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Grows at each publication.
    pub version: u64,
    /// In [`ServiceId`] order.
    pub services: Box<[ServiceView]>,
}

impl Snapshot {
    /// The view of one shard.
    pub fn shard(&self, service: ServiceId, shard: ShardId) -> Option<&Arc<ShardView>> {
        let i = self.services.binary_search_by_key(&service, |s| s.id).ok()?;
        self.services[i].shards.get(usize::from(shard.0))
    }
}

/// What a worker saw that may mean that a grant has ended. The worker holds the shard at once and tells the control
/// plane, which proves the master again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sign {
    /// Which service.
    pub service: ServiceId,
    /// Which shard.
    pub shard: ShardId,
    /// The term of the connection on which it was seen.
    pub term: Term,
    /// When.
    pub at: Now,
    /// What.
    pub kind: SignKind,
}

/// The kinds of [`Sign`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SignKind {
    /// A connection could not be made, or was closed or reset by the node.
    Broken,
    /// The node answered `-READONLY`.
    Readonly,
    /// The node answered `-LOADING`.
    Loading,
    /// The node answered `-MASTERDOWN`.
    Masterdown,
    /// The node answered `-UNBLOCKED`, because it became a replica.
    Unblocked,
    /// The node said that it is a replica: by its `ROLE` on a new connection, or when it was asked to `WAIT`.
    NotMaster,
    /// The node sent what is not RESP, or a reply that nobody asked for.
    Garbage,
}

impl SignKind {
    /// A stable word for logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            SignKind::Broken => "broken",
            SignKind::Readonly => "readonly",
            SignKind::Loading => "loading",
            SignKind::Masterdown => "masterdown",
            SignKind::Unblocked => "unblocked",
            SignKind::NotMaster => "not_master",
            SignKind::Garbage => "garbage",
        }
    }
}
