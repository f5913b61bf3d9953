//! What a worker must know of a service's configuration. The `config` crate makes these from the file or the flags;
//! a [`Policy`] that exists is right.
use crate::command::{Act, Entry};
use crate::resp::frame::Request;
use crate::rules::Rules;
use crate::topology::snapshot::ServiceId;
use crate::users::{self, Users};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// A user and its secret. Never printed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Credential {
    /// The user name; `None` is `AUTH secret`, that is the user `default`.
    pub user: Option<Box<[u8]>>,
    /// The password.
    pub secret: Box<[u8]>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_deref().unwrap_or(b"default");
        write!(f, "Credential({}, ***)", user.escape_ascii())
    }
}

/// Which commands are refused by default and now are allowed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Allow {
    /// None beyond the table's default.
    #[default]
    Default,
    /// These, by upper-case name (`DEBUG`) or name and subcommand (`CLIENT|PAUSE`).
    These(Vec<Box<str>>),
    /// All: `--transparent`.
    All,
}

/// Which commands are sent again when their connection broke before the reply, so that they may have been executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Retry {
    /// None.
    None,
    /// Those that only read.
    #[default]
    Reads,
    /// These, and writes that leave the same data and the same reply when they are executed twice
    /// ([`Idempotent`](crate::command::Idempotent)).
    Idempotent,
}

/// How a client's bytes and commands are bounded. Sizes are in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest bulk string in a request (Redis: `proto-max-bulk-len`).
    pub bulk_max: u64,
    /// Most arguments in a request (Redis 7: 2^31 - 1).
    pub args_max: u64,
    /// Longest inline request, and longest line of a header (Redis: `PROTO_INLINE_MAX_SIZE`).
    pub inline_max: usize,
    /// Deepest nesting of a reply. (A script can nest as deeply as its stack, of 8,000 values, allows: `LUAI_MAXCSTACK`.)
    pub depth_max: usize,
    /// A request that is larger than this streams over a pinned connection instead of waiting to be complete.
    pub stream_from: usize,
    /// A client of whom this much waits to be routed is no longer read (until it has fallen below).
    pub client_input_max: usize,
    /// A client that leaves this much of its replies unread is not asked for more commands.
    pub client_output_soft: usize,
    /// A client that leaves this much of its replies unread is closed (Redis: `client-output-buffer-limit`).
    pub client_output_hard: usize,
    /// A subscriber that leaves this much unread is closed: unlike others it is sent more whether it asks or not (Redis:
    /// `client-output-buffer-limit pubsub`).
    pub subscriber_output_hard: usize,
    /// So is one that leaves more than this much unread …
    pub subscriber_output_soft: usize,
    /// … for so long.
    pub subscriber_output_time: Duration,
    /// Most commands of one client that are sent and not answered.
    pub in_flight_max: u32,
    /// Most bytes of requests that one upstream connection keeps (sent and not answered, or not yet sent), before the
    /// last one: that is taken as a whole, and is no longer than what its client may have waiting.
    pub ring_max: usize,
    /// Most bytes of the names of the channels and patterns of one client that are kept to subscribe again, and of its
    /// requests to track. One that has more is closed when its connection is lost.
    pub subs_max: usize,
    /// A client of whom at least so much was read at a time is read to where its requests are kept: to copy less costs
    /// nothing. (Not to be configured.)
    pub in_place_from: usize,
    /// Most bytes of scripts that a worker keeps of one service, to load them again on a new master; 0: none.
    pub scripts_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bulk_max: 512 << 20,
            args_max: (1 << 31) - 1,
            inline_max: 64 << 10,
            depth_max: 8192,
            stream_from: 1 << 20,
            client_input_max: 1 << 20,
            client_output_soft: 1 << 20,
            client_output_hard: 640 << 20,
            subscriber_output_hard: 32 << 20,
            subscriber_output_soft: 8 << 20,
            subscriber_output_time: Duration::from_secs(60),
            in_flight_max: 1024,
            ring_max: 16 << 20,
            subs_max: 1 << 20,
            in_place_from: 8 << 10,
            scripts_max: 4 << 20,
        }
    }
}

/// How many replicas must have a write before it is acknowledged, for listeners that ask for durable writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Durable {
    /// So many; 0: none, whatever a listener asks for.
    pub replicas: u32,
    /// How long they are waited for.
    pub timeout: Duration,
}

impl Default for Durable {
    fn default() -> Durable {
        Durable { replicas: 0, timeout: Duration::from_secs(5) }
    }
}

/// What a worker must know of one service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Which service.
    pub id: ServiceId,
    /// Its name, for messages.
    pub name: Arc<str>,
    /// Shared connections per node, worker and kind (user, database, protocol); at least 1.
    pub lanes_per_node: u16,
    /// Most shared connections of one worker.
    pub shared_max: u32,
    /// Most pinned connections of one worker, in use and idle together.
    pub pinned_max: u32,
    /// Most clients of one worker.
    pub clients_max: u32,
    /// A client that sends nothing and is owed nothing for this long is closed; `None`: never.
    pub client_idle: Option<Duration>,
    /// An upstream connection that nobody uses for this long is closed.
    pub upstream_idle: Duration,
    /// An upstream connection that is not made and set up in this time is given up.
    pub connect_timeout: Duration,
    /// Whether a `-READONLY` from a node is passed on instead of held (static lists with backups).
    pub pass_readonly: bool,
    /// What is sent again when its connection broke before the reply.
    pub retry: Retry,
    /// Whether a client whose blocked pop was lost with its connection is closed instead of told so.
    pub close_lost_pops: bool,
    /// What durable writes wait for.
    pub durable: Durable,
    /// Whether the control plane wants to know that writes flow (its guard does).
    pub tells_writes: bool,
    /// Who unauthenticated clients are upstream; `None`: nobody, as on a direct connection.
    pub upstream_user: Option<Credential>,
    /// The users that clients authenticate as to Pointsman itself, if not to the server.
    pub users: Option<Arc<Users>>,
    /// Which of the commands that are refused by default are allowed.
    pub allow: Allow,
    /// Which commands are denied, and which have other names, if any.
    pub rules: Option<Arc<Rules>>,
    /// Bounds on what clients send and leave unread.
    pub limits: Limits,
}

impl Policy {
    /// Whether a command of the table is sent without a look at its name.
    #[inline]
    pub fn sends(&self, entry: &'static Entry) -> bool {
        !entry.refused && self.rules.as_ref().is_none_or(|rules| !rules.touch(entry))
    }

    /// Whether a request would make its connection another user's than the service gives it: on a connection whose replies
    /// are not counted, where we could not answer it ourselves.
    pub fn changes_user(&self, entry: &Entry, req: Request<'_>) -> bool {
        let authenticates = self.users.is_some() && users::authenticates(entry, req);
        authenticates || entry.act == Act::Reset && self.upstream_user.is_some()
    }

    /// The defaults of a service.
    pub fn new(id: ServiceId, name: &str) -> Policy {
        Policy {
            id,
            name: name.into(),
            lanes_per_node: 1,
            shared_max: 4096,
            pinned_max: 4096,
            clients_max: 65536,
            client_idle: None,
            upstream_idle: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(2),
            pass_readonly: false,
            retry: Retry::Reads,
            close_lost_pops: false,
            durable: Durable::default(),
            tells_writes: false,
            upstream_user: None,
            users: None,
            allow: Allow::Default,
            rules: None,
            limits: Limits::default(),
        }
    }
}
