//! What the topology machine and the observers must know of one service's configuration. The `config` crate makes
//! these; a [`Settings`] that exists is right.
use super::snapshot::ServiceId;
use crate::policy::Credential;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

/// A host and port as written: the host is an address or a name that the control plane resolves.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostPort {
    /// An IPv4 or IPv6 address (without brackets), or a name.
    pub host: Box<str>,
    /// The TCP port.
    pub port: u16,
}

impl HostPort {
    /// The socket address, if the host is an address and not a name.
    pub fn literal(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.parse().ok()?, self.port))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How it is known who is master.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// By a majority of Sentinels.
    Sentinels {
        /// The configured ones; further ones are discovered from them.
        sentinels: Vec<HostPort>,
        /// The name that the Sentinels give to the master.
        master: Arc<str>,
    },
    /// By asking the nodes for their role.
    Roles {
        /// All nodes.
        nodes: Vec<HostPort>,
        /// At start with one claimant and most nodes silent: how long to wait before it is granted with a warning.
        start_wait: Duration,
    },
    /// By health alone: the first healthy node in order.
    Static {
        /// In order of preference; backups come after all others.
        nodes: Vec<StaticNode>,
        /// So many good checks in a row make a node healthy.
        rise: u32,
        /// So many failed checks in a row make it unhealthy.
        fall: u32,
        /// What happens when a more preferred node recovers.
        failback: Failback,
    },
}

/// A node of a static list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StaticNode {
    /// Where it listens.
    pub at: HostPort,
    /// Used only when no other is healthy.
    pub backup: bool,
}

/// What a static list does when a more preferred node recovers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failback {
    /// Stay with the present one until it fails.
    Never,
    /// Go back at once, and close what is open to the backup.
    Cut,
    /// Go back: hold new commands, give those in flight on the backup this long to be answered, then cut.
    Drain(Duration),
}

/// One service's topology settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Which service.
    pub id: ServiceId,
    /// Its name, for events.
    pub name: Arc<str>,
    /// How the master is known.
    pub source: Source,
    /// With what to authenticate to Sentinels.
    pub sentinel_credential: Option<Credential>,
    /// With what to authenticate to nodes, for observing them.
    pub node_credential: Option<Credential>,
    /// How often each Sentinel and node is asked.
    pub interval: Duration,
    /// An observer that got no answer for this long counts its target as silent.
    pub timeout: Duration,
    /// How long a hold lasts; `None` is automatic: the largest down-after of the Sentinels + 10 s, at most 60 s; 15 s
    /// without Sentinels.
    pub hold_max: Option<Duration>,
    /// Whether reads wait too while writes do.
    pub hold_reads: bool,
    /// Whether reads that wait may be served by a replica meanwhile.
    pub replica_reads: bool,
    /// What a grant may begin with, where Sentinels decide.
    pub trust: Trust,
    /// Whether a deposed master that still says master is told to follow the new one, where Sentinels decide.
    pub demote: bool,
    /// What Sentinels out of sight mean for writes, where Sentinels decide.
    pub fencing: Fencing,
    /// How it is noticed that no replica acknowledges any more, where Sentinels decide; `None`: it is not looked for.
    pub guard: Option<Guarding>,
}

/// How the guard probes (`topology::guard`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guarding {
    /// How often, while writes flow.
    pub every: Duration,
    /// How long a replica may take to acknowledge.
    pub wait: Duration,
}

impl Default for Guarding {
    fn default() -> Guarding {
        Guarding { every: Duration::from_millis(100), wait: Duration::from_millis(150) }
    }
}

/// What Sentinels out of sight mean (docs/adr/fencing.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fencing {
    /// What happens when those out of sight may have elected another master.
    pub without_lease: WithoutLease,
    /// Whether a Sentinel whose address refuses connections is taken for dead. Not where something between us and the
    /// Sentinels (NAT, a Service address) can refuse in its place.
    pub refused_is_dead: bool,
}

/// What happens when there is no lease on writes any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WithoutLease {
    /// Writes wait, reads go on.
    HoldWrites,
    /// Everything waits.
    HoldAll,
    /// Nothing waits: there are no leases.
    GoOn,
}

/// What proves a new master, where Sentinels decide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// A majority of the Sentinels that names it; or, until that is there, a promotion that was seen with all that
    /// led to it (docs/adr/promotion-proof.md).
    Promotion,
    /// Nothing but a majority that names it.
    Majority,
}

impl Settings {
    /// The defaults of a service whose master is known by `source`.
    pub fn new(id: ServiceId, name: &str, source: Source) -> Settings {
        Settings {
            id,
            name: name.into(),
            sentinel_credential: None,
            node_credential: None,
            interval: Duration::from_millis(250),
            timeout: Duration::from_secs(1),
            hold_max: None,
            hold_reads: true,
            replica_reads: false,
            trust: Trust::Promotion,
            demote: true,
            fencing: Fencing { without_lease: WithoutLease::HoldWrites, refused_is_dead: true },
            guard: matches!(source, Source::Sentinels { .. }).then(Guarding::default),
            source,
        }
    }
}
