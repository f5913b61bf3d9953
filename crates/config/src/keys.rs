//! Every key of the configuration, in one table: the reader takes kinds and ranges from it, the errors their advice,
//! and the reference page and the example file in `docs/reference` are made from it. A key that is not here does not
//! exist.
//!
//! The defaults that are written here are for people. The ones that count are in `pointsman-core` (`Policy::new`,
//! `Limits::default`, `Settings::new`) and beside the code that reads the key; a test holds the two together.
use crate::units::{show_duration, show_size};
use std::fmt;
use std::time::Duration;

/// A table of the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Section {
    /// What stands before the first header: the process.
    Process,
    /// `[log]`
    Log,
    /// `[events]`
    Events,
    /// `[[service]]`
    Service,
    /// `[[service.node]]`
    Node,
    /// `[[service.client_user]]`
    ClientUser,
    /// `[service.limits]`
    Limits,
}

impl Section {
    /// All of them, in the order of the file.
    pub const ALL: [Section; 7] = [
        Section::Process,
        Section::Log,
        Section::Events,
        Section::Service,
        Section::Node,
        Section::ClientUser,
        Section::Limits,
    ];

    /// As it is written; empty for [`Section::Process`].
    pub fn header(self) -> &'static str {
        match self {
            Section::Process => "",
            Section::Log => "[log]",
            Section::Events => "[events]",
            Section::Service => "[[service]]",
            Section::Node => "[[service.node]]",
            Section::ClientUser => "[[service.client_user]]",
            Section::Limits => "[service.limits]",
        }
    }

    /// The key under which it stands in its parent.
    pub fn name(self) -> &'static str {
        self.header().trim_matches(['[', ']']).rsplit('.').next().unwrap_or("")
    }

    /// The section that it stands in.
    pub fn parent(self) -> Option<Section> {
        match self {
            Section::Process => None,
            Section::Log | Section::Events | Section::Service => Some(Section::Process),
            Section::Node | Section::ClientUser | Section::Limits => Some(Section::Service),
        }
    }

    /// Whether there can be several.
    pub fn repeats(self) -> bool {
        self.header().starts_with("[[")
    }

    /// Its keys, in the order of the table.
    pub fn keys(self) -> impl Iterator<Item = &'static Key> {
        KEYS.iter().filter(move |key| key.section == self)
    }
}

/// What a key's value may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A string.
    Text,
    /// A string that is never shown.
    Secret,
    /// The path of a file, relative to the folder of the configuration file.
    File,
    /// As [`Kind::File`], or one of these two words.
    FileOr(&'static str, &'static str),
    /// Strings: a list, or one string with commas.
    List,
    /// Strings, each under a name.
    Names,
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number from the first to the second.
    Count(u64, u64),
    /// Bytes from the first to the second.
    Size(u64, u64),
    /// Milliseconds from the first to the second.
    Duration(u64, u64),
    /// As [`Kind::Duration`], or this word.
    DurationOr(&'static str, u64, u64),
    /// Permissions in octal.
    Mode,
    /// An IP address and a port.
    Address,
    /// As [`Kind::Address`], or this word.
    AddressOr(&'static str),
}

/// In the words of the reference page and of the errors: "a duration from 10ms to 1m".
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |ms: u64| show_duration(Duration::from_millis(ms));
        match *self {
            Kind::Text | Kind::Secret => f.write_str("a string"),
            Kind::File => f.write_str("the path of a file"),
            Kind::FileOr(a, b) => write!(f, "\"{a}\", \"{b}\" or the path of a file"),
            Kind::List => f.write_str("a list of strings"),
            Kind::Names => f.write_str("a table of strings"),
            Kind::Bool => f.write_str("true or false"),
            Kind::Word(words) => {
                let (last, others) = words.split_last().expect("a key has a word");
                write!(f, "\"{}\" or \"{last}\"", others.join("\", \""))
            }
            Kind::Count(min, max) => write!(f, "a whole number from {min} to {max}"),
            Kind::Size(min, max) => write!(f, "a size from {} to {}", show_size(min), show_size(max)),
            Kind::Duration(min, max) => write!(f, "a duration from {} to {}", time(min), time(max)),
            Kind::DurationOr(word, min, max) => {
                write!(f, "\"{word}\" or a duration from {} to {}", time(min), time(max))
            }
            Kind::Mode => f.write_str("permissions in octal"),
            Kind::Address => f.write_str("an IP address and a port"),
            Kind::AddressOr(word) => write!(f, "\"{word}\" or an IP address and a port"),
        }
    }
}

/// With which way of knowing the master a key has a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// `sentinels` and `master`.
    Sentinels,
    /// `nodes`: role probes.
    Roles,
    /// `[[service.node]]`: a static list.
    Static,
}

impl Way {
    /// For "has a meaning only with …".
    pub fn written(self) -> &'static str {
        match self {
            Way::Sentinels => "`sentinels`",
            Way::Roles => "`nodes`",
            Way::Static => "`[[service.node]]`",
        }
    }

    /// The key that chooses it, if it is a key.
    pub fn key(self) -> Option<&'static str> {
        match self {
            Way::Sentinels => Some("sentinels"),
            Way::Roles => Some("nodes"),
            Way::Static => None,
        }
    }
}

/// One key. Literals are TOML, as one would write them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    /// Where it stands.
    pub section: Section,
    /// As it is written.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// The value that it has when it is not written; `None`: none.
    pub default: Option<&'static str>,
    /// A right value other than the default.
    pub example: &'static str,
    /// What it means: sentences, in Markdown.
    pub doc: &'static str,
    /// The only way of knowing the master with which it has a meaning; `None`: all.
    pub only: Option<Way>,
    /// Whether a reload can change it; otherwise it takes a restart.
    pub reloads: bool,
    /// The flag or the variable that says the same without a file; empty if there is none.
    pub input: &'static str,
}

impl Key {
    const fn new(
        section: Section,
        name: &'static str,
        kind: Kind,
        example: &'static str,
        doc: &'static str,
    ) -> Key {
        Key { section, name, kind, default: None, example, doc, only: None, reloads: true, input: "" }
    }

    const fn default(self, default: &'static str) -> Key {
        Key { default: Some(default), ..self }
    }

    const fn only(self, way: Way) -> Key {
        Key { only: Some(way), ..self }
    }

    const fn restarts(self) -> Key {
        Key { reloads: false, ..self }
    }

    const fn input(self, input: &'static str) -> Key {
        Key { input, ..self }
    }

    /// What would be right: "write a size from 1KiB to 16MiB, such as "16KiB"".
    pub(crate) fn remedy(&self) -> String {
        match self.kind {
            Kind::Bool | Kind::Word(_) => format!("write {}", self.kind),
            kind => format!("write {kind}, such as {}", self.example),
        }
    }

    /// As it is named to people: `log.level`, and `hold` for `service.hold`.
    pub fn path(&self) -> String {
        match self.section {
            Section::Process | Section::Service => self.name.into(),
            section => format!("{}.{}", section.name(), self.name),
        }
    }
}

/// The key of that name.
pub(crate) fn find(section: Section, name: &str) -> Option<&'static Key> {
    section.keys().find(|key| key.name == name)
}

const MS: u64 = 1;
const S: u64 = 1000 * MS;
const M: u64 = 60 * S;
const H: u64 = 60 * M;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

use Kind::*;
use Section::{ClientUser, Events, Limits, Log, Node, Process, Service};

/// All keys, section by section, in the order in which people want to read of them.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    Key::new(Process, "workers", Count(0, 256), "2",
        "Threads that serve clients. 0: as many as the machine has cores. They are filled one after the other, so more than are needed cost little.")
        .default("0").restarts().input("--workers"),
    Key::new(Process, "admin", AddressOr("off"), "\"127.0.0.1:9500\"",
        "Where health, status and metrics are served over HTTP. It asks for no password: keep it on loopback or in a network that you trust.")
        .default("\"127.0.0.1:9400\"").restarts().input("--admin"),
    Key::new(Process, "shutdown_grace", Duration(0, H), "\"5s\"",
        "How long a process that was told to stop (SIGTERM) lets clients finish before it closes them.")
        .default("\"30s\""),

    Key::new(Log, "level", Word(&["error", "warn", "info", "debug", "trace"]), "\"debug\"",
        "The least important lines that are written.")
        .default("\"info\"").input("--log-level"),
    Key::new(Log, "format", Word(&["human", "json"]), "\"json\"",
        "Lines for people, or one JSON object a line.")
        .default("\"human\"").restarts().input("--log-format"),

    Key::new(Events, "file", FileOr("auto", "off"), "\"/srv/pointsman/events.jsonl\"",
        "Where the story of each hold and switch is kept beyond the life of the process: a JSON object a line, see [events](events.md). `auto`: `events.jsonl` in the folder that systemd gives (`StateDirectory=pointsman`), else in `/var/lib/pointsman` if that is there, else nowhere. If it cannot be written there is a warning, and everything else goes on.")
        .default("\"auto\"").restarts(),
    Key::new(Events, "size", Size(256 * KIB, GIB), "\"1MiB\"",
        "Most bytes of the file and of its older half, which has `.1` at the end of its name and is replaced when the newer one is full.")
        .default("\"8MiB\"").restarts(),

    Key::new(Service, "name", Text, "\"cache\"",
        "The service's name in the log, the status and the metrics: letters, digits, `.`, `_` and `-`, at most 64. Required. A service keeps its clients across a reload as long as it keeps its name."),
    Key::new(Service, "listen", List, "[\"0.0.0.0:6379\"]",
        "Where clients connect: an IP address and a port, or `unix:` and an absolute path (`\"unix:/run/pointsman/cache.sock\"`). Required. With port 0 the system chooses one.")
        .input("--listen"),
    Key::new(Service, "socket_mode", Mode, "\"0600\"",
        "Permissions of the Unix sockets in `listen`.")
        .default("\"0660\""),

    Key::new(Service, "sentinels", List, "[\"10.0.0.11:26379\", \"10.0.0.12:26379\", \"10.0.0.13:26379\"]",
        "The master is the node that a majority of the known Sentinels names, if it agrees. Known are these, and those that they list, until for 10 minutes nobody has seen them up. If fewer than three are given and they count others that they do not list, those count too before the first grant. One of `sentinels`, `nodes` and `[[service.node]]` is required.")
        .only(Way::Sentinels).input("--sentinel"),
    Key::new(Service, "master", Text, "\"mymaster\"",
        "The name that the Sentinels give to the deployment (`sentinel monitor NAME …`). Required with `sentinels`.")
        .only(Way::Sentinels).input("--master"),
    Key::new(Service, "nodes", List, "[\"10.0.0.1:6379\", \"10.0.0.2:6379\"]",
        "Without Sentinels: all nodes. The master is the only one that claims the role, if most of them answered or if lineage proves the succession.")
        .only(Way::Roles).input("--node"),
    Key::new(Service, "start_wait", Duration(0, 10 * M), "\"1m\"",
        "At start, with one node that claims to be master and most of the others silent: how long to wait before it is trusted, with a warning.")
        .default("\"10s\"").only(Way::Roles),
    Key::new(Service, "rise", Count(1, 100), "5",
        "So many good checks in a row make a node healthy.")
        .default("2").only(Way::Static),
    Key::new(Service, "fall", Count(1, 100), "5",
        "So many failed checks in a row make a node unhealthy.")
        .default("3").only(Way::Static),
    Key::new(Service, "failback", Word(&["never", "cut", "drain"]), "\"drain\"",
        "What happens when a more preferred node recovers. `never`: stay until the present one fails. `cut`: go back at once and close what is open to the present one. `drain`: hold new commands, give those that are on their way `failback_drain` to be answered, then cut. No session stays behind.")
        .default("\"never\"").only(Way::Static),
    Key::new(Service, "failback_drain", Duration(10 * MS, 10 * M), "\"3s\"",
        "See `failback = \"drain\"`; it has no meaning with the other words.")
        .default("\"10s\"").only(Way::Static),

    Key::new(Service, "user", Text, "\"observer\"",
        "The ACL user as which nodes are observed (PING, ROLE, INFO; for the guard PUBLISH to `pointsman:guard`, and WAIT); without it, the user `default`. Clients never get it.")
        .input("POINTSMAN_USER"),
    Key::new(Service, "password", Secret, "\"${REDIS_PASSWORD}\"",
        "The password for observing the nodes.")
        .input("POINTSMAN_PASSWORD"),
    Key::new(Service, "password_file", File, "\"redis.password\"",
        "The same, from a file: its content less one newline at its end.")
        .input("POINTSMAN_PASSWORD_FILE"),
    Key::new(Service, "sentinel_user", Text, "\"observer\"",
        "The ACL user for the Sentinels; without it, the user `default`.")
        .only(Way::Sentinels).input("POINTSMAN_SENTINEL_USER"),
    Key::new(Service, "sentinel_password", Secret, "\"${SENTINEL_PASSWORD}\"",
        "The password for the Sentinels. Sentinels are asked without one unless it is given: it is not taken from `password`.")
        .only(Way::Sentinels).input("POINTSMAN_SENTINEL_PASSWORD"),
    Key::new(Service, "sentinel_password_file", File, "\"sentinel.password\"",
        "The same, from a file.")
        .only(Way::Sentinels).input("POINTSMAN_SENTINEL_PASSWORD_FILE"),
    Key::new(Service, "upstream_user", Text, "\"app\"",
        "The ACL user that clients are for the nodes until they authenticate themselves; without it, the user `default`.")
        .input("POINTSMAN_UPSTREAM_USER"),
    Key::new(Service, "upstream_password", Secret, "\"${APP_PASSWORD}\"",
        "The password of `upstream_user`. With it, whoever can connect acts as that user without a password, unless the service has users of its own (`[[service.client_user]]`). Without it, clients have to authenticate as on a direct connection.")
        .input("POINTSMAN_UPSTREAM_PASSWORD"),
    Key::new(Service, "upstream_password_file", File, "\"app.password\"",
        "The same, from a file.")
        .input("POINTSMAN_UPSTREAM_PASSWORD_FILE"),

    Key::new(Service, "interval", Duration(10 * MS, M), "\"1s\"",
        "How often each Sentinel and node is asked (in a static list: how often its health is checked).")
        .default("\"250ms\""),
    Key::new(Service, "timeout", Duration(10 * MS, M), "\"500ms\"",
        "A Sentinel or node that does not answer for so long counts as silent.")
        .default("\"1s\""),
    Key::new(Service, "hold", DurationOr("auto", 0, 10 * M), "\"20s\"",
        "How long commands wait for a master, from the first sign that it is gone, before they get `-MASTERDOWN`. `auto`: the largest `down-after-milliseconds` of the Sentinels and 10 s, at most 60 s; 15 s without Sentinels.")
        .default("\"auto\""),
    Key::new(Service, "hold_reads", Bool, "false",
        "Whether reads wait too while writes do. `false` lets them go on to the last master, where they may find stale values.")
        .default("true"),
    Key::new(Service, "held_reads", Word(&["wait", "replica"]), "\"replica\"",
        "What becomes of reads that are held. `wait`: they wait as writes do. `replica`: a replica that was linked to the last master when the hold began serves them, also after the hold has run out; it may lack the newest writes, the session's own among them. Sessions in transactions, subscriptions and the like wait, and so does all that stands behind a write. Not for static lists.")
        .default("\"wait\""),
    Key::new(Service, "trust", Word(&["promotion", "majority"]), "\"majority\"",
        "What a grant may begin with. `promotion`: as soon as a node was seen to be promoted, with all that led to it, about a second before a majority of the Sentinels names it; the grant is provisional until they do. What that risks: if the Sentinel that led the failover dies in that second, the others may choose another node, and what was written in between is lost. `majority`: only when a majority names the node.")
        .default("\"promotion\"").only(Way::Sentinels),
    Key::new(Service, "demote", Bool, "false",
        "Whether a deposed master that still says master is told to follow the new one (`REPLICAOF`), as soon as a majority of the Sentinels names that, instead of some 10 s later by them: what clients write to it directly meanwhile is lost.")
        .default("true").only(Way::Sentinels),
    Key::new(Service, "without_lease", Word(&["hold_writes", "hold_all", "go_on"]), "\"hold_all\"",
        "What happens when Sentinels that are out of sight, but not dead, could have elected another master by now. `hold_writes`: writes wait, reads go on. `hold_all`: everything waits. `go_on`: nothing waits; what is then written to a master that was deposed in the dark is lost.")
        .default("\"hold_writes\"").only(Way::Sentinels),
    Key::new(Service, "refused_is_dead", Bool, "false",
        "Whether a Sentinel whose own announced address refuses connections is taken for dead: the dead cannot elect, so they end no lease. Write `false` where something else can refuse in a Sentinel's place: NAT, a load balancer, a Kubernetes Service.")
        .default("true").only(Way::Sentinels),
    Key::new(Service, "guard", Bool, "false",
        "Whether writes wait while no replica acknowledges them and another node could be promoted meanwhile: a master that was cut off would go on to acknowledge what is lost. Begins with the first replica that has acknowledged anything. What it asks of the master and of its ACL: [the guard](../guide/guard.md).")
        .default("true").only(Way::Sentinels),
    Key::new(Service, "guard_interval", Duration(10 * MS, 10 * S), "\"250ms\"",
        "How often the guard asks, while writes flow, whether a replica still acknowledges.")
        .default("\"100ms\"").only(Way::Sentinels),
    Key::new(Service, "guard_wait", Duration(10 * MS, 10 * S), "\"400ms\"",
        "How long the fastest replica may take to acknowledge before writes wait. With `guard_interval` it bounds for how long a master that was cut off is written to. More than a round trip to the replicas, by far.")
        .default("\"150ms\"").only(Way::Sentinels),
    Key::new(Service, "retry", Word(&["reads", "idempotent", "none"]), "\"idempotent\"",
        "What is sent again when its connection broke before the reply, so that it may have been executed. `reads`: commands that only read. `idempotent`: also writes that leave the same data and the same reply when they are executed twice; the page of the commands names them. If another client has written to the same key in between, the older value wins. `none`: no command. What is not sent again gets `-UNCERTAIN`.")
        .default("\"reads\""),

    Key::new(Service, "lost_pops", Word(&["error", "close"]), "\"close\"",
        "What a client is told that waits in a pop (`BLPOP` and its like) whose connection breaks, so that an element may have been taken for it. `error`: `-UNCERTAIN`, and it stays connected. `close`: nothing, it is closed, as the server would do it: for workers that end at an error that they do not know, such as those of Celery and RQ.")
        .default("\"error\""),
    Key::new(Service, "durable", Count(0, 16), "1",
        "A write is acknowledged to its client only when so many replicas have it (`WAIT`); 0: when the master has it. Docs: guide/durable-writes.md.")
        .default("0"),
    Key::new(Service, "durable_timeout", Duration(10 * MS, M), "\"500ms\"",
        "How long a write waits for these replicas before it is answered with `-NOTDURABLE`: the master has executed it, and it may be lost if the master fails. After a switch the Sentinels take up to 3 s to make the other replicas follow the new master. It has a meaning only with `durable`.")
        .default("\"5s\""),
    Key::new(Service, "durable_listen", List, "[\"0.0.0.0:6380\"]",
        "More listeners, as in `listen`. With them only the writes of their clients are durable, so that an application chooses by the port; without them, those of all clients. It has a meaning only with `durable`.")
        .default("[]"),

    Key::new(Service, "lanes", Count(1, 64), "2",
        "Shared connections that each worker opens to the master for each kind of session (user, database, protocol version).")
        .default("1"),
    Key::new(Service, "shared", Count(8, 1_000_000), "1000",
        "Most shared connections of each worker, of all kinds of session together. The one that was unused the longest makes room for another; if all are in use, a command that needs another one gets `-ERR too many users …`.")
        .default("4096"),
    Key::new(Service, "pinned", Count(1, 1_000_000), "1000",
        "Most connections of each worker that belong to one session for a while (transactions, blocking commands, subscriptions), idle ones included.")
        .default("4096"),
    Key::new(Service, "clients", Count(1, 1_000_000), "10000",
        "Most clients of each worker. One more gets `-ERR max number of clients reached` and is closed.")
        .default("65536"),
    Key::new(Service, "client_idle", DurationOr("never", S, 365 * 24 * H), "\"1h\"",
        "A client that sends nothing and waits for nothing for so long is closed.")
        .default("\"never\""),
    Key::new(Service, "upstream_idle", Duration(S, 24 * H), "\"5m\"",
        "A connection to a node that nobody uses for so long is closed.")
        .default("\"1m\""),
    Key::new(Service, "connect_timeout", Duration(10 * MS, M), "\"500ms\"",
        "A connection to a node that is not made and set up (AUTH, HELLO, SELECT, ROLE) in this time is given up.")
        .default("\"2s\""),
    Key::new(Service, "allow", List, "[\"DEBUG\", \"CLIENT|PAUSE\"]",
        "Commands that are refused by default and now are not, by name, or by name and subcommand; a name that no command has is an error. Refused is what breaks the deployment or the proxy under everyone: SHUTDOWN, REPLICAOF, SLAVEOF, FAILOVER, SYNC, PSYNC, REPLCONF, CLIENT|PAUSE, CLIENT|UNPAUSE, DEBUG, MODULE|LOAD, MODULE|UNLOAD, the subcommands of CLUSTER that change it, and others: the page of the commands marks them.")
        .default("[]"),
    Key::new(Service, "transparent", Bool, "true",
        "Refuse none of the commands that are refused by default. Then `allow` has no meaning.")
        .default("false").input("--transparent"),
    Key::new(Service, "deny", List, "[\"KEYS\", \"CONFIG|SET\"]",
        "Commands that nobody may use through this service, by name, or by name and subcommand; clients get `-REFUSED`. A name that no command has is an error, unless it has a dot, as those of modules do. What scripts do is not looked at: for real protection use the nodes' ACL.")
        .default("[]"),
    Key::new(Service, "rename", Names, "{ CONFIG = \"ADMIN-CONFIG\" }",
        "Commands that clients call otherwise, as `rename-command` of redis.conf does it: the server's name, and the clients'. By the server's name clients are told that there is no such command. Where the nodes were told to call a command otherwise, it can get its usual name back: `{ MYGET = \"GET\" }`. Only whole commands are renamed; `COMMAND` shows the server's names.")
        .default("{}"),

    Key::new(Node, "address", Text, "\"10.0.0.1:6379\"",
        "A node of a static list: host and port. Required. Nodes are preferred in the order of the file; the first healthy one is used."),
    Key::new(Node, "backup", Bool, "true",
        "Used only while no node that is not a backup is healthy.")
        .default("false"),

    Key::new(ClientUser, "name", Text, "\"app\"",
        "The name that a client gives with `AUTH name password` or `HELLO 3 AUTH name password`; `AUTH password` means the user `default`. Required."),
    Key::new(ClientUser, "passwords", List, "[\"2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90\"]",
        "The SHA-256 of each password in hexadecimal, as `printf %s PASSWORD | sha256sum` says it, or as Redis' ACL keeps it (`#` and the digits). Any of them is right, so that one can take the place of another; at most 16. Required without `nopass`."),
    Key::new(ClientUser, "nopass", Bool, "true",
        "Whether any password is right. Clients are the user `default` from the start if it is such a one."
        ).default("false"),

    Key::new(Limits, "bulk", Size(KIB, 16 * GIB), "\"64MiB\"",
        "Longest argument of a command (Redis: `proto-max-bulk-len`).")
        .default("\"512MiB\""),
    Key::new(Limits, "args", Count(16, i32::MAX as u64), "1000000",
        "Most arguments of a command.")
        .default("2147483647"),
    Key::new(Limits, "inline", Size(KIB, 16 * MIB), "\"16KiB\"",
        "Longest inline command, and longest line of a header (Redis: 64KiB).")
        .default("\"64KiB\""),
    Key::new(Limits, "depth", Count(8, 65536), "32",
        "Deepest nesting of a reply. The default is more than a server's scripts can make.")
        .default("8192"),
    Key::new(Limits, "stream_from", Size(16 * KIB, 64 * MIB), "\"512KiB\"",
        "A command that is larger is not read as a whole: it streams over a connection of its own. At most `client_input` and `upstream_queue`.")
        .default("\"1MiB\""),
    Key::new(Limits, "client_input", Size(16 * KIB, GIB), "\"2MiB\"",
        "A client of whom this much waits to be sent is not read until some of it is.")
        .default("\"1MiB\""),
    Key::new(Limits, "client_output_soft", Size(16 * KIB, GIB), "\"256KiB\"",
        "A client that leaves this much of its replies unread is not read until it has taken some. One that takes none at all for a second or two, because it says all before it listens, may leave half of `client_output_hard`. At most `client_output_hard`.")
        .default("\"1MiB\""),
    Key::new(Limits, "client_output_hard", Size(16 * KIB, 16 * GIB), "\"32MiB\"",
        "A client that leaves this much of its replies unread is closed (Redis: `client-output-buffer-limit`). The default is room for one reply of the largest size.")
        .default("\"640MiB\""),
    Key::new(Limits, "subscriber_output_hard", Size(16 * KIB, 16 * GIB), "\"64MiB\"",
        "A subscriber that leaves this much unread is closed (Redis: `client-output-buffer-limit pubsub`, whose defaults these three are).")
        .default("\"32MiB\""),
    Key::new(Limits, "subscriber_output_soft", Size(16 * KIB, 16 * GIB), "\"16MiB\"",
        "A subscriber that leaves more than this unread for `subscriber_output_time`, or when its connection to its server is lost, is closed. At most `subscriber_output_hard`.")
        .default("\"8MiB\""),
    Key::new(Limits, "subscriber_output_time", Duration(S, H), "\"10s\"",
        "For so long a subscriber may leave more than `subscriber_output_soft` unread.")
        .default("\"60s\""),
    Key::new(Limits, "in_flight", Count(1, 1_000_000), "256",
        "Most commands of one client that are sent and not answered. Its further ones wait.")
        .default("1024"),
    Key::new(Limits, "upstream_queue", Size(64 * KIB, GIB), "\"32MiB\"",
        "Most bytes of commands that one connection to a node keeps until they are answered. Further ones wait with their clients.")
        .default("\"16MiB\""),
    Key::new(Limits, "subscriptions", Size(0, GIB), "\"64KiB\"",
        "Most bytes of the names of the channels and patterns of one client (and 64 bytes for each) that are kept to subscribe again when its server is lost; and most bytes of what it said to have tracked (`CLIENT TRACKING`). A client that has more is closed then.")
        .default("\"1MiB\""),
    Key::new(Limits, "scripts", Size(0, GIB), "\"16MiB\"",
        "Most bytes of Lua scripts (and 256 bytes for each) that each worker keeps of the service, to show them again to a new master that does not know them. The least recently used are forgotten first; one that takes more than a quarter is not kept.")
        .default("\"4MiB\""),
];
