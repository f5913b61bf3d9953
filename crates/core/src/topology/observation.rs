//! Observations: facts that were seen, by whom and when. The observers make them out of bytes, the topology machine
//! takes them in; the simulator makes its own.
use super::settings::HostPort;
use crate::Now;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

/// What is observed: a Sentinel or a node, at the address that was configured or announced.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Target {
    /// A Sentinel or a node.
    pub kind: TargetKind,
    /// Where, as it was written or announced: an address or a name.
    pub at: HostPort,
}

/// The two kinds of [`Target`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TargetKind {
    /// A Sentinel process.
    Sentinel,
    /// A Redis or Valkey server.
    Node,
    /// The same, on the guard's connection: whether its replicas acknowledge.
    Guard,
}

/// How often a target is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pace {
    /// A calm Sentinel whose events arrive: for its flags less often.
    Relaxed,
    /// As is usual.
    #[default]
    Usual,
    /// Often: something goes on.
    Hurried,
}

impl Target {
    /// The Sentinel at `at`.
    pub fn sentinel(at: HostPort) -> Target {
        Target { kind: TargetKind::Sentinel, at }
    }

    /// The node at `at`.
    pub fn node(at: HostPort) -> Target {
        Target { kind: TargetKind::Node, at }
    }

    /// The guard's connection to the node at `at`.
    pub fn guard(at: HostPort) -> Target {
        Target { kind: TargetKind::Guard, at }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TargetKind::Sentinel => write!(f, "Sentinel {}", self.at),
            TargetKind::Node => write!(f, "node {}", self.at),
            TargetKind::Guard => write!(f, "guard of node {}", self.at),
        }
    }
}

/// One fact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observation {
    /// Who was asked, or was seen.
    pub from: Target,
    /// When the question was sent whose answer this is (for events and lost connections: when they were seen; for a
    /// connection that could not be made: when it was begun). What is said was true at some moment between this and the
    /// observation's arrival.
    pub sent: Now,
    /// What was seen.
    pub seen: Seen,
}

/// The kinds of facts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// A connection was made, to this address.
    Connected(SocketAddr),
    /// The connection ended, or could not be made.
    Gone(Gone),
    /// It answers, but not what is needed: a wrong password, a missing permission … For the operator.
    Problem(Arc<str>),
    /// The connection for a Sentinel's events has answered, or does not stand: why.
    Listening(Result<(), Arc<str>>),
    /// Whether a Sentinel is in TILT (`sentinel_tilt` of its `INFO`).
    Tilt(bool),
    /// A Sentinel's run id (`SENTINEL MYID`).
    Id(Box<str>),
    /// A Sentinel's view of the master.
    View(View),
    /// A Sentinel's flags and counts, without the address: the short question between two views.
    Flags(Flags),
    /// The Sentinel knows no master of that name.
    NoSuchMaster,
    /// The other Sentinels that a Sentinel knows (`SENTINEL SENTINELS`).
    Peers(Vec<Peer>),
    /// The replicas that a Sentinel knows (`SENTINEL REPLICAS`).
    Replicas(Vec<Listed>),
    /// Something that a Sentinel announced.
    Announced(Announced),
    /// A node's account of itself (`ROLE`, `INFO`).
    Report(Report),
    /// A node that says that it is master answers all else with `-BUSY`, for the script that it runs: this process, by its run
    /// id, is alive, and executes nothing for others.
    Busy(Box<str>),
    /// A node's answer to `PING` (static lists): whether it was `PONG`.
    Pong(bool),
    /// Whether some replica acknowledged a message in time (the guard's connection).
    Acknowledged(bool),
}

/// Why a connection ended or could not be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gone {
    /// Nobody listens there: the process does not live (unless something between answers in its place).
    Refused,
    /// It was reset or closed by the other side.
    Closed,
    /// No answer in time.
    Timeout,
    /// The name has no address, says the resolver.
    Unresolved(Arc<str>),
    /// There is no way to the address.
    Unreachable,
    /// The password, or the lack of one, was not accepted.
    Denied(Arc<str>),
    /// It sent what is not RESP, or more than an answer may be long.
    Garbage(Arc<str>),
    /// Another error of the operating system.
    Other(Arc<str>),
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gone::Refused => f.write_str("refuses connections"),
            Gone::Closed => f.write_str("closed the connection"),
            Gone::Timeout => f.write_str("does not answer"),
            Gone::Unresolved(e) => write!(f, "cannot be resolved ({e})"),
            Gone::Unreachable => f.write_str("cannot be reached"),
            Gone::Denied(e) => write!(f, "denies access ({e})"),
            Gone::Garbage(e) => write!(f, "sends garbage ({e})"),
            Gone::Other(e) => write!(f, "is not connected ({e})"),
        }
    }
}

/// A Sentinel's view of the master, from `SENTINEL MASTER` and `GET-MASTER-ADDR-BY-NAME`, with the same config epoch
/// before and after the address (sentinel.c: during a failover the two commands differ on the leader).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// The config epoch: orders views.
    pub epoch: u64,
    /// Whom it names master.
    pub master: HostPort,
    /// How far a failover has come, by this Sentinel's flags.
    pub stage: Stage,
    /// Whether that failover was ordered (`SENTINEL FAILOVER`, flag `force_failover`): nobody votes on it.
    pub forced: bool,
    /// The master itself is to hand over (`coordinated_failover`, Valkey 9).
    pub coordinated: bool,
    /// Its quorum.
    pub quorum: u32,
    /// How many other Sentinels it knows.
    pub others: u32,
    /// After how long without a pong it takes the master for down.
    pub down_after: Duration,
    /// How long it gives a failover.
    pub failover_timeout: Duration,
    /// How old its last good pong of the master was (`last-ok-ping-reply`).
    pub pong_age: Duration,
    /// For how long its oldest unanswered ping to the master has waited (`last-ping-sent`); zero if none waits.
    pub ping_age: Duration,
    /// Whether its connections to the master stand (no flag `disconnected`).
    pub linked: bool,
}

impl View {
    /// The same without the address.
    pub fn flags(&self) -> Flags {
        Flags {
            epoch: self.epoch,
            stage: self.stage,
            forced: self.forced,
            coordinated: self.coordinated,
            quorum: self.quorum,
            others: self.others,
            down_after: self.down_after,
            pong_age: self.pong_age,
            ping_age: self.ping_age,
            linked: self.linked,
        }
    }
}

/// What one `SENTINEL MASTER` says by itself. The fields mean what they mean in [`View`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags {
    /// The config epoch.
    pub epoch: u64,
    /// How far a failover has come.
    pub stage: Stage,
    /// Whether that failover was ordered.
    pub forced: bool,
    /// The master itself is to hand over (`coordinated_failover`, Valkey 9).
    pub coordinated: bool,
    /// Its quorum.
    pub quorum: u32,
    /// How many other Sentinels it knows.
    pub others: u32,
    /// After how long without a pong it takes the master for down.
    pub down_after: Duration,
    /// How old its last good pong of the master was.
    pub pong_age: Duration,
    /// For how long its oldest unanswered ping to the master has waited.
    pub ping_age: Duration,
    /// Whether its connections to the master stand.
    pub linked: bool,
}

/// How far a failover has come, as one Sentinel sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Stage {
    /// Nothing goes on.
    #[default]
    Calm,
    /// It takes the master for down (`s_down`).
    Suspects,
    /// A quorum does (`o_down`), or it asks for votes (`failover_in_progress`, state `wait_start`).
    Tries,
    /// It was elected, or was told to (`force_failover`): a replica is being selected and promoted.
    Acts,
    /// A replica was promoted, the others are being moved; the Sentinel names the new master.
    Promoted,
}

/// Another Sentinel, as one Sentinel knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its run id; empty before the first hello.
    pub id: Box<str>,
    /// Its announced address.
    pub at: HostPort,
    /// Whether that Sentinel sees it up.
    pub up: bool,
    /// How old its last good pong to that Sentinel was (`last-ok-ping-reply`).
    pub pong_age: Duration,
    /// What it answered to that Sentinel when it was asked for its vote (`voted-leader`).
    pub vote: Option<Vote>,
}

/// A Sentinel's vote: it gives one for each epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vote {
    /// For whom: a run id.
    pub leader: Box<str>,
    /// For which epoch.
    pub epoch: u64,
}

/// A replica, as one Sentinel knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its announced address.
    pub at: HostPort,
    /// Whether it was selected to be promoted (flag `promoted`, on the leader only).
    pub selected: bool,
}

/// Something that a Sentinel announced on its event channels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announced {
    /// The event, by its channel: `+odown`, `+switch-master` …
    pub event: Box<str>,
    /// What it says of this master's failover; `None` where only polling can tell.
    pub stage: Option<Stage>,
    /// The replica that was selected, if the event says so.
    pub selected: Option<HostPort>,
    /// Its vote, if the event says so (`+vote-for-leader`).
    pub vote: Option<Vote>,
}

/// A node's account of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Its role (`ROLE`).
    pub role: Role,
    /// Whether it loads its data.
    pub loading: bool,
    /// The process' run id; `None` where `INFO` is not permitted.
    pub run_id: Option<Box<str>>,
    /// Its replication history, where `INFO` is permitted.
    pub lineage: Option<Lineage>,
    /// Its replication offset, in bytes.
    pub offset: u64,
    /// The replicas that are attached to it and not in a full synchronization; at most [`ATTACHED_MAX`].
    pub attached: Vec<Attached>,
}

/// Most attached replicas that are looked at; more are ignored.
pub const ATTACHED_MAX: usize = 64;

/// A replica, as its master sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// Its announced address.
    pub at: HostPort,
    /// Up to which offset it has acknowledged; 0: it never did. Replicas acknowledge once a second.
    pub acknowledged: u64,
}

/// A node's role.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// It says `master`.
    Master,
    /// It says `slave`.
    Replica {
        /// Of which master.
        of: HostPort,
        /// Whether the link to it is up (`connected`).
        link_up: bool,
    },
}

/// The replication history of a node (`INFO replication`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lineage {
    /// `master_replid`: the history that it writes or follows.
    pub replid: Box<str>,
    /// `master_replid2`: the history that it followed before it was promoted; `None` if there is none.
    pub replid2: Option<Box<str>>,
    /// `second_repl_offset`: up to which offset (exclusive) it followed that; negative if not at all.
    pub second_offset: i64,
}

impl Lineage {
    /// Whether this node was promoted out of `other`'s history.
    pub fn succeeds(&self, other: &Lineage) -> bool {
        self.replid != other.replid && self.replid2.as_deref() == Some(&*other.replid)
    }
}
