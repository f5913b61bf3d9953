//! What is not said, and what may differ between two servers that were asked the same: each with its reason.
use crate::harness::raw::frame_len;

/// Commands that are not said here; a name before `|` stands for all of its subcommands.
#[rustfmt::skip]
pub(crate) const NOT_SAID: &[(&[&str], &str)] = &[
    (&["SHUTDOWN", "DEBUG", "FAILOVER", "REPLICAOF", "SLAVEOF", "PSYNC", "SYNC", "REPLCONF", "MIGRATE", "RESTORE-ASKING",
       "MODULE", "CLUSTER", "SENTINEL"],
     "ends, changes or stalls the server, or is between servers"),
    (&["SAVE", "BGSAVE", "BGREWRITEAOF", "LASTSAVE"], "depends on when a process of the server ends"),
    (&["QUIT", "MONITOR", "CLIENT|REPLY", "CLIENT|TRACKING", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE",
       "PUNSUBSCRIBE", "SUNSUBSCRIBE"],
     "how many replies there are depends on more than the command; tests of their own compare these"),
    (&["CLIENT|ID", "CLIENT|INFO", "CLIENT|LIST", "CLIENT|KILL", "CLIENT|UNBLOCK", "CLIENT|PAUSE", "CLIENT|UNPAUSE"],
     "speaks of ids and addresses, which differ, or of all clients"),
    (&["TIME", "INFO", "MEMORY", "LATENCY", "SLOWLOG", "ACL|LOG", "ACL|GENPASS", "CONFIG", "COMMANDLOG",
       "HOTKEYS"],
     "speaks of times, sizes, ports or chance"),
    (&["ACL|SETUSER", "ACL|DELUSER", "ACL|LOAD", "ACL|SAVE"], "changes who may do what is said next"),
    (&["RANDOMKEY", "SPOP", "SRANDMEMBER", "HRANDFIELD", "ZRANDMEMBER"], "answers by chance"),
    (&["SCAN", "SSCAN", "HSCAN", "ZSCAN", "DUMP", "COMMAND", "COMMAND|DOCS", "COMMAND|INFO", "COMMAND|LIST", "FUNCTION|DUMP", "FUNCTION|LIST",
       "OBJECT|IDLETIME", "OBJECT|FREQ", "SORT", "SORT_RO", "GEORADIUS", "GEORADIUS_RO", "GEORADIUSBYMEMBER", "GEORADIUSBYMEMBER_RO"],
     "goes by the order or cursor of a hash table, whose seed is the process' own, or by the clock"),
    (&["XPENDING", "XINFO", "XAUTOCLAIM"], "tells how long messages are idle"),
    (&["BACKUP"], "depends on how far what it began is"),
    (&["PFDEBUG", "PFSELFTEST", "LOLWUT"], "takes long, and is for the developers of the server"),
    (&["SCRIPT|DEBUG"], "is refused behind others that the server reads with it"),
    (&["TTL", "PTTL"], "counts down between the two answers"),
    (&["EXPIRETIME", "PEXPIRETIME"], "tells when EXPIRE was executed"),
];

/// Options that a command is not said with.
pub(crate) const NOT_SAID_WITH: &[(&str, &str, &str)] = &[
    ("HELLO", "SETNAME", "until 7.2 a HELLO that fails can have set the name before"),
    ("SET", "IFDEQ", "with GET it can have two replies"),
    ("SET", "IFDNE", "with GET it can have two replies"),
];

/// Replies whose elements are in the order of a hash table.
const UNORDERED: &[&str] = &[
    "KEYS",
    "SMEMBERS",
    "SINTER",
    "SUNION",
    "SDIFF",
    "HGETALL",
    "HKEYS",
    "HVALS",
    "PUBSUB|CHANNELS",
    "PUBSUB|SHARDCHANNELS",
    "ACL|CAT",
    "ACL|LIST",
    "ACL|USERS",
    "ACL|GETUSER",
    "FUNCTION|STATS",
];

/// Why a command is not said.
pub(crate) fn not_said(name: &str) -> Option<&'static str> {
    let container = name.split('|').next().unwrap_or(name);
    let found = NOT_SAID
        .iter()
        .find(|(names, _)| names.contains(&name) || names.contains(&container) && name != container);
    found.map(|(_, why)| *why)
}

/// The reply to a command, without what two equal servers may say differently.
pub(crate) fn seen_as(name: &str, reply: &[u8]) -> Vec<u8> {
    match name {
        "HELLO" => without_id(reply),
        _ if UNORDERED.contains(&name) => sorted(reply),
        _ => reply.to_vec(),
    }
}

/// The reply to `EXEC`, each element as the reply to its command.
pub(crate) fn exec_seen_as(queued: &[String], reply: &[u8]) -> Vec<u8> {
    let Some((head, elements)) = elements(reply).filter(|(_, e)| e.len() == queued.len()) else {
        return reply.to_vec();
    };
    let seen = elements.iter().zip(queued).map(|(e, name)| seen_as(name, e));
    [head.to_vec()].into_iter().chain(seen).collect::<Vec<_>>().concat()
}

/// The elements of an array or set, with its head.
fn elements(reply: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    if !matches!(reply.first()?, b'*' | b'~' | b'%') {
        return None;
    }
    let (head, mut rest) = reply.split_at(reply.iter().position(|b| *b == b'\n')? + 1);
    let mut all = Vec::new();
    while !rest.is_empty() {
        let (element, more) = rest.split_at(frame_len(rest)?);
        all.push(element);
        rest = more;
    }
    Some((head, all))
}

fn sorted(reply: &[u8]) -> Vec<u8> {
    let Some((head, mut all)) = elements(reply) else { return reply.to_vec() };
    all.sort_unstable();
    [head].into_iter().chain(all).collect::<Vec<_>>().concat()
}

/// `HELLO` tells the session's own id.
fn without_id(reply: &[u8]) -> Vec<u8> {
    const ID: &[u8] = b"$2\r\nid\r\n:";
    let mut out = reply.to_vec();
    if let Some(at) = out.windows(ID.len()).position(|w| w == ID) {
        let from = at + ID.len();
        let digits = out[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        out.drain(from..from + digits);
    }
    out
}
