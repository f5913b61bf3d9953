//! What servers do not say about their commands, decided by hand. Each name stands in a list for a reason; a command
//! that neither reads nor writes by its flags must be in one, so that a new one cannot be overlooked.
use super::{Described, DescribedKeys, Effect, Result, Row};
use pointsman_core::command::{Access, Act, Entry, Idempotent, Keys, SubKind};

/// What it changes is not data, or is data behind a script's, a transaction's or another connection's back. PFCOUNT
/// stores what it counted; PUBLISH is replicated; WAIT is about earlier writes, so it goes where they went. The
/// containers are here for their unknown subcommands.
#[rustfmt::skip]
const WRITE_LIKE: &[&str] = &[
    "EVAL", "EVALSHA", "FCALL", "EXEC", "PFCOUNT", "PUBLISH", "SPUBLISH", "WAIT", "WAITAOF",
    "ACL", "ACL|DELUSER", "ACL|LOAD", "ACL|LOG", "ACL|SAVE", "ACL|SETUSER",
    "BACKUP", "BACKUP|ABORT", "BACKUP|CLEANUP", "BACKUP|SEAL", "BACKUP|START", "BGREWRITEAOF", "BGSAVE", "SAVE",
    "CLIENT", "CLIENT|PAUSE", "CLIENT|UNPAUSE",
    "CLUSTER", "CLUSTER|ADDSLOTS", "CLUSTER|ADDSLOTSRANGE", "CLUSTER|BUMPEPOCH", "CLUSTER|CANCELSLOTMIGRATIONS",
    "CLUSTER|DELSLOTS", "CLUSTER|DELSLOTSRANGE", "CLUSTER|FAILOVER", "CLUSTER|FLUSHSLOTS", "CLUSTER|FORGET",
    "CLUSTER|MEET", "CLUSTER|MIGRATESLOTS", "CLUSTER|MIGRATION", "CLUSTER|REPLICATE", "CLUSTER|RESET",
    "CLUSTER|SAVECONFIG", "CLUSTER|SET-CONFIG-EPOCH", "CLUSTER|SETSLOT", "CLUSTER|SYNCSLOTS",
    "COMMANDLOG", "COMMANDLOG|RESET", "CONFIG", "CONFIG|RESETSTAT", "CONFIG|REWRITE", "CONFIG|SET",
    "DEBUG", "FAILOVER", "REPLICAOF", "SLAVEOF", "SHUTDOWN", "PSYNC", "REPLCONF", "SYNC",
    "FUNCTION", "FUNCTION|KILL", "HIMPORT", "HOTKEYS", "HOTKEYS|RESET", "HOTKEYS|START", "HOTKEYS|STOP",
    "LATENCY", "LATENCY|RESET", "MEMORY", "MEMORY|PURGE", "SLOWLOG", "SLOWLOG|RESET",
    "MODULE", "MODULE|LOAD", "MODULE|LOADEX", "MODULE|UNLOAD", "OBJECT", "PUBSUB", "XGROUP", "XINFO",
    "SCRIPT", "SCRIPT|DEBUG", "SCRIPT|FLUSH", "SCRIPT|KILL", "SCRIPT|LOAD",
];

/// Reads data without saying so.
const READ_LIKE: &[&str] = &["CLUSTER|COUNTKEYSINSLOT", "CLUSTER|GETKEYSINSLOT"];

/// Touches no data, and changes nothing but its own session (CLIENT KILL and UNBLOCK: nothing but other sessions). HELP
/// subcommands are too, and need not be listed.
#[rustfmt::skip]
const NEITHER: &[&str] = &[
    "ACL|CAT", "ACL|DRYRUN", "ACL|GENPASS", "ACL|GETUSER", "ACL|LIST", "ACL|USERS", "ACL|WHOAMI",
    "ASKING", "AUTH", "HELLO", "QUIT", "READONLY", "READWRITE", "RESET", "SELECT",
    "BACKUP|LIST", "BACKUP|STATUS", "HOTKEYS|GET",
    "CLIENT|CACHING", "CLIENT|CAPA", "CLIENT|GETNAME", "CLIENT|GETREDIR", "CLIENT|ID", "CLIENT|IMPORT-SOURCE",
    "CLIENT|INFO", "CLIENT|KILL", "CLIENT|LIST", "CLIENT|NO-EVICT", "CLIENT|NO-TOUCH", "CLIENT|REPLY", "CLIENT|SETINFO",
    "CLIENT|SETNAME", "CLIENT|TRACKING", "CLIENT|TRACKINGINFO", "CLIENT|UNBLOCK",
    "CLUSTER|COUNT-FAILURE-REPORTS", "CLUSTER|GETSLOTMIGRATIONS", "CLUSTER|INFO", "CLUSTER|KEYSLOT",
    "CLUSTER|LINKS", "CLUSTER|MYID", "CLUSTER|MYSHARDID", "CLUSTER|NODES", "CLUSTER|REPLICAS", "CLUSTER|SHARDS",
    "CLUSTER|SLAVES", "CLUSTER|SLOT-STATS", "CLUSTER|SLOTS",
    "COMMAND", "COMMAND|COUNT", "COMMAND|DOCS", "COMMAND|GETKEYS", "COMMAND|GETKEYSANDFLAGS", "COMMAND|INFO",
    "COMMAND|LIST", "COMMANDLOG|GET", "COMMANDLOG|LEN", "CONFIG|GET", "ECHO", "PING", "TIME",
    "FUNCTION|DUMP", "FUNCTION|LIST", "FUNCTION|STATS", "HIMPORT|DISCARD", "HIMPORT|DISCARDALL", "HIMPORT|PREPARE",
    "INFO", "LASTSAVE", "ROLE", "MONITOR", "MODULE|LIST", "PFSELFTEST",
    "LATENCY|DOCTOR", "LATENCY|GRAPH", "LATENCY|HISTOGRAM", "LATENCY|HISTORY", "LATENCY|LATEST",
    "MEMORY|DOCTOR", "MEMORY|MALLOC-STATS", "MEMORY|STATS", "SLOWLOG|GET", "SLOWLOG|LEN",
    "MULTI", "DISCARD", "WATCH", "UNWATCH",
    "PUBSUB|CHANNELS", "PUBSUB|NUMPAT", "PUBSUB|NUMSUB", "PUBSUB|SHARDCHANNELS", "PUBSUB|SHARDNUMSUB",
    "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE",
    "SCRIPT|EXISTS", "SCRIPT|SHOW",
];

/// An error of it can come after its effect, and can have any text. Vector sets (a module) are too.
#[rustfmt::skip]
const PROVES_NOTHING: &[&str] = &[
    "EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO", "EXEC", "MIGRATE", "DEBUG",
    "MODULE", "MODULE|LOAD", "MODULE|LOADEX", "MODULE|UNLOAD",
];

/// Leaves the same data, and has the same reply, when it is executed twice with nothing in between. Not those that count
/// what they changed (DEL, HSET, SADD …): the second reply would be another one. Not those that speak of positions or of
/// what is there (LSET, LTRIM, FLUSHALL …): what others did in between would be hit too.
#[rustfmt::skip]
const IDEMPOTENT: &[(&str, Idempotent)] = &[
    ("SET", Idempotent::Set), ("SETEX", Idempotent::Yes), ("PSETEX", Idempotent::Yes), ("SETRANGE", Idempotent::Yes),
    ("MSET", Idempotent::Yes), ("HMSET", Idempotent::Yes), ("PFMERGE", Idempotent::Yes),
    ("EXPIRE", Idempotent::WithArgs(3)), ("PEXPIRE", Idempotent::WithArgs(3)),
    ("EXPIREAT", Idempotent::WithArgs(3)), ("PEXPIREAT", Idempotent::WithArgs(3)),
    ("SCRIPT|LOAD", Idempotent::Yes),
];

/// Breaks the deployment, or the proxy under everyone.
#[rustfmt::skip]
const REFUSED: &[&str] = &[
    "SHUTDOWN", "REPLICAOF", "SLAVEOF", "FAILOVER", "SYNC", "PSYNC", "REPLCONF", "DEBUG",
    "CLIENT|CAPA", "CLIENT|PAUSE", "CLIENT|UNPAUSE",
    "CLUSTER|ADDSLOTS", "CLUSTER|ADDSLOTSRANGE", "CLUSTER|BUMPEPOCH", "CLUSTER|CANCELSLOTMIGRATIONS",
    "CLUSTER|DELSLOTS", "CLUSTER|DELSLOTSRANGE", "CLUSTER|FAILOVER", "CLUSTER|FLUSHSLOT", "CLUSTER|FLUSHSLOTS",
    "CLUSTER|FORGET", "CLUSTER|MEET", "CLUSTER|MIGRATESLOTS", "CLUSTER|MIGRATION", "CLUSTER|REPLICATE",
    "CLUSTER|RESET", "CLUSTER|SAVECONFIG", "CLUSTER|SET-CONFIG-EPOCH", "CLUSTER|SETSLOT", "CLUSTER|SYNCSLOTS",
    "MODULE|LOAD", "MODULE|LOADEX", "MODULE|UNLOAD",
];

/// What a command does to its session or its connection, where the flag `blocking` does not say it.
#[rustfmt::skip]
const ACTS: &[(&str, Act)] = &[
    ("SELECT", Act::Select), ("AUTH", Act::Auth), ("HELLO", Act::Hello), ("RESET", Act::Reset), ("QUIT", Act::Quit),
    ("HOST:", Act::Hangup), ("POST", Act::Hangup),
    ("CLIENT|ID", Act::ClientId), ("CLIENT|GETNAME", Act::ClientGetname), ("CLIENT|SETNAME", Act::ClientSetname),
    ("CLIENT|SETINFO", Act::ClientSetinfo), ("CLIENT|INFO", Act::ClientInfo), ("CLIENT|LIST", Act::ClientList),
    ("CLIENT|KILL", Act::ClientKill), ("CLIENT|UNBLOCK", Act::ClientUnblock), ("CLIENT|TRACKING", Act::ClientTracking),
    ("CLIENT|GETREDIR", Act::ClientGetredir), ("CLIENT|TRACKINGINFO", Act::ClientTrackinginfo),
    ("MULTI", Act::Multi), ("EXEC", Act::Exec), ("DISCARD", Act::Discard), ("WATCH", Act::Watch),
    ("UNWATCH", Act::Unwatch),
    ("SUBSCRIBE", Act::Subscribe(SubKind::Channel)), ("UNSUBSCRIBE", Act::Unsubscribe(SubKind::Channel)),
    ("PSUBSCRIBE", Act::Subscribe(SubKind::Pattern)), ("PUNSUBSCRIBE", Act::Unsubscribe(SubKind::Pattern)),
    ("SSUBSCRIBE", Act::Subscribe(SubKind::Shard)), ("SUNSUBSCRIBE", Act::Unsubscribe(SubKind::Shard)),
    ("XREAD", Act::BlockIfAsked), ("XREADGROUP", Act::BlockIfAsked),
    ("EVAL", Act::Script), ("EVAL_RO", Act::Script), ("SCRIPT|LOAD", Act::Script), ("SCRIPT|FLUSH", Act::Script),
    ("SCRIPT|KILL", Act::Kill), ("FUNCTION|KILL", Act::Kill),
    ("WAIT", Act::Wait), ("WAITAOF", Act::Wait),
    // ASKING binds for one command only, READONLY and READWRITE could be replayed; without a cluster all three are
    // errors (Redis) or without effect (Valkey), so they are not worth more.
    ("ASKING", Act::Bind), ("READONLY", Act::Bind), ("READWRITE", Act::Bind),
    ("CLIENT|CAPA", Act::Bind), ("CLIENT|IMPORT-SOURCE", Act::Bind), ("CLIENT|NO-EVICT", Act::Bind),
    ("CLIENT|NO-TOUCH", Act::Bind),
    ("HIMPORT|DISCARD", Act::Bind), ("HIMPORT|DISCARDALL", Act::Bind), ("HIMPORT|PREPARE", Act::Bind),
    ("HIMPORT|SET", Act::Bind),
    ("CLIENT|REPLY", Act::Relay), ("MONITOR", Act::Relay), ("SCRIPT|DEBUG", Act::Relay),
    ("CLUSTER|SYNCSLOTS", Act::Relay), ("PSYNC", Act::Relay), ("REPLCONF", Act::Relay), ("SYNC", Act::Relay),
];

/// Where a command's own code finds its keys.
const OWN_KEYS: &[(&str, Keys)] =
    &[("MIGRATE", Keys::Migrate), ("SORT", Keys::Sort), ("SORT_RO", Keys::Sort)];

/// What a server said, and what it did not say.
pub(super) fn entry(command: Described) -> Result<Entry> {
    let name: &'static str = command.name.clone().leak();
    let access = access(&command)?;
    let act = act(&command);
    let asks = matches!(
        act,
        Act::ClientId
            | Act::ClientGetname
            | Act::ClientInfo
            | Act::ClientList
            | Act::ClientKill
            | Act::ClientGetredir
            | Act::ClientTrackinginfo
    );
    let changes_nothing = asks || matches!(act, Act::None | Act::Script | Act::BlockIfAsked);
    Ok(Entry {
        name,
        access,
        resend: access != Access::Write && changes_nothing,
        proves: !PROVES_NOTHING.contains(&name) && !is_vector_set(name),
        idempotent: idempotent(name),
        container: command.container,
        act,
        refused: REFUSED.contains(&name),
        arity: command.arity,
        keys: keys(command),
    })
}

/// The arity that takes more requests.
pub(super) fn laxer(a: i32, b: i32) -> i32 {
    let least = a.abs().min(b.abs());
    if a == b { a } else { -least }
}

/// Fails if a list names a command that does not exist: it would be a decision without effect.
pub(super) fn names_are_all_known(rows: &[Row]) -> Result<()> {
    let lists = [WRITE_LIKE, READ_LIKE, NEITHER, PROVES_NOTHING, REFUSED];
    let acts = ACTS.iter().map(|(name, _)| name);
    let idempotent = IDEMPOTENT.iter().map(|(name, _)| name);
    let own_keys = OWN_KEYS.iter().map(|(name, _)| name);
    let mut names = lists.into_iter().flatten().chain(acts).chain(idempotent).chain(own_keys);
    match names.find(|name| !rows.iter().any(|row| row.entry.name == **name)) {
        Some(name) => Err(format!("judge.rs names {name}, which no server has").into()),
        None => Ok(()),
    }
}

fn access(command: &Described) -> Result<Access> {
    let name = command.name.as_str();
    let is_in = |list: &[&str]| list.contains(&name);
    match (is_in(WRITE_LIKE), is_in(READ_LIKE), is_in(NEITHER) || name.ends_with("|HELP"), command.effect()) {
        (_, false, false, Effect::Writes) | (true, false, false, _) => Ok(Access::Write),
        (false, _, false, Effect::Reads) | (false, true, false, _) => Ok(Access::Read),
        (false, false, true, Effect::Unsaid) => Ok(Access::Neither),
        (false, false, false, Effect::Unsaid) => {
            Err(format!("{name} has neither the flag write nor readonly: judge.rs must say what it does")
                .into())
        }
        _ => Err(format!("judge.rs contradicts itself or the server about {name}").into()),
    }
}

fn act(command: &Described) -> Act {
    let listed = ACTS.iter().find(|(name, _)| *name == command.name);
    match listed {
        Some((_, act)) => *act,
        None if command.blocks() => Act::Block,
        None => Act::None,
    }
}

fn idempotent(name: &str) -> Idempotent {
    IDEMPOTENT.iter().find(|(n, _)| *n == name).map_or(Idempotent::No, |(_, is)| *is)
}

fn keys(command: Described) -> Keys {
    let own = OWN_KEYS.iter().find(|(name, _)| *name == command.name);
    match (own, command.keys) {
        (Some((_, own)), _) => *own,
        (None, DescribedKeys::Specs(specs)) => Keys::Specs(specs.leak()),
        (None, DescribedKeys::Incomplete) => Keys::Unknown,
    }
}

/// Vector sets are a module; no other commands begin so.
fn is_vector_set(name: &str) -> bool {
    name.starts_with('V')
}
