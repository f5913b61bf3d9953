//! The command table: what each command does to data, to its session and to its connection, and where its keys are.
//!
//! `table.rs` is generated from real servers' replies to `COMMAND` and from what servers do not say about themselves
//! (`xtask/src/commands`); `cargo run -p xtask -- commands` makes it again. A command that is in no known server is
//! [`Lookup::Unknown`], and nothing may be assumed of it: it may write, block, or change its connection. The master is asked
//! what it is ([`learned`](crate::learned)).
mod keys;
mod table;

pub use keys::{Begin, Find, KeySpec, Keys, KeysError, Positions, SPECS_MAX, keys};

use table::ENTRIES;

/// What is known of one command or subcommand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Upper-case; a subcommand is `CLIENT|ID`. This is what a configuration's `allow` list names.
    pub name: &'static str,
    /// What it does to the server's data and state.
    pub access: Access,
    /// Whether it may be sent again when it is not known whether it was executed: it changes nothing. Of a
    /// [`Act::BlockIfAsked`] command this is so only when it names the ids that it has seen (`$` would mean something
    /// else the second time).
    pub resend: bool,
    /// Whether a top-level error reply proves that it was not executed. Not so for what runs scripts, modules or
    /// other servers: their error can come after their effect, and can have any text.
    pub proves: bool,
    /// Whether it may be executed twice.
    pub idempotent: Idempotent,
    /// Whether it has subcommands: then its first argument must be looked up too.
    pub container: bool,
    /// What it does to its session or its connection.
    pub act: Act,
    /// Refused unless the configuration allows it.
    pub refused: bool,
    /// Number of arguments, command and subcommand included; if negative, at least that many. It is the laxest of
    /// the server versions that are known, so a request that does not fit it is an error on all of them.
    pub arity: i32,
    /// Where its keys are.
    pub keys: Keys,
}

/// What a command does to the server's data and state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reads data only.
    Read,
    /// May change data or the server's state, or is about earlier writes (WAIT), or may hide writes (EVAL, EXEC).
    Write,
    /// Touches no data and changes nothing but its own session; may go out whenever reads may.
    Neither,
}

/// Whether a write leaves the same data, and has the same reply, when it is executed twice with nothing in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idempotent {
    /// It may not, or it is not known.
    No,
    /// It does.
    Yes,
    /// It does with exactly so many arguments, command included: its options are conditions.
    WithArgs(u8),
    /// SET: it does without options but for those that say when the value expires.
    Set,
}

/// The three kinds of subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SubKind {
    /// SUBSCRIBE: channels.
    Channel,
    /// PSUBSCRIBE: patterns.
    Pattern,
    /// SSUBSCRIBE: shard channels.
    Shard,
}

impl SubKind {
    /// All of them, each at its own index.
    pub const ALL: [SubKind; 3] = [SubKind::Channel, SubKind::Pattern, SubKind::Shard];

    /// The command that subscribes.
    pub fn subscribe(self) -> &'static Entry {
        let name: &[u8] = match self {
            SubKind::Channel => b"SUBSCRIBE",
            SubKind::Pattern => b"PSUBSCRIBE",
            SubKind::Shard => b"SSUBSCRIBE",
        };
        find_command(name).expect("the table has it")
    }
}

/// What a command does to its session or its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Nothing: one reply, and all is as before.
    None,
    /// SELECT.
    Select,
    /// AUTH.
    Auth,
    /// HELLO: protocol version, and perhaps user and name.
    Hello,
    /// RESET.
    Reset,
    /// QUIT.
    Quit,
    /// The server closes the connection without a reply: POST and `Host:`, which it takes for an attack from a
    /// browser (`securityWarningCommand`). Must never reach a shared connection.
    Hangup,
    /// CLIENT ID.
    ClientId,
    /// CLIENT GETNAME.
    ClientGetname,
    /// CLIENT SETNAME.
    ClientSetname,
    /// CLIENT SETINFO.
    ClientSetinfo,
    /// CLIENT INFO.
    ClientInfo,
    /// CLIENT LIST: as [`Act::None`], but for the session's own id it is CLIENT INFO.
    ClientList,
    /// CLIENT KILL: closes sessions of Pointsman's, after the server has said that its user may.
    ClientKill,
    /// CLIENT UNBLOCK: of another session.
    ClientUnblock,
    /// CLIENT TRACKING: its connection is the session's own while something is tracked.
    ClientTracking,
    /// CLIENT GETREDIR.
    ClientGetredir,
    /// CLIENT TRACKINGINFO.
    ClientTrackinginfo,
    /// MULTI.
    Multi,
    /// EXEC.
    Exec,
    /// DISCARD.
    Discard,
    /// WATCH.
    Watch,
    /// UNWATCH.
    Unwatch,
    /// SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE: one reply for each argument, then messages.
    Subscribe(SubKind),
    /// UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE.
    Unsubscribe(SubKind),
    /// Its connection answers nothing else until its reply, which may take for ever.
    Block,
    /// XREAD, XREADGROUP: as [`Act::Block`] if [`Entry::asks_to_block`].
    BlockIfAsked,
    /// Not in the table, but known to the server, and harmless as far as it says: it gets a connection of its own until
    /// its reply, for few commands of modules say that they block.
    Own,
    /// WAIT, WAITAOF: blocks, and speaks about earlier writes of the same connection.
    Wait,
    /// Gives its connection a state that cannot be given to another one: the session is bound to the connection for
    /// life. Still one reply for each command.
    Bind,
    /// As [`Act::Bind`], and from now on replies can no longer be counted.
    Relay,
    /// EVAL, EVAL_RO, SCRIPT LOAD, SCRIPT FLUSH: as [`Act::None`], but tells which scripts the server knows.
    Script,
    /// SCRIPT KILL, FUNCTION KILL: must not stand behind the script that it is to end.
    Kill,
}

/// The answer of [`lookup`].
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    /// This one. A container without an argument is the container's own entry.
    Known(&'static Entry),
    /// A subcommand that is not known, of this container.
    UnknownSubcommand(&'static Entry),
    /// Not known.
    Unknown,
}

/// All commands and subcommands, in the order of their names.
pub fn all() -> &'static [Entry] {
    &ENTRIES
}

/// Finds a command by its name in any letter case. `first_arg` is looked at for containers only.
pub fn lookup(name: &[u8], first_arg: Option<&[u8]>) -> Lookup {
    let Some(entry) = find_command(name) else { return Lookup::Unknown };
    let (true, Some(sub)) = (entry.container, first_arg) else { return Lookup::Known(entry) };
    let prefix = entry.name.len() + 1;
    let hash = hash(hash(SEED, entry.name.as_bytes()), sub);
    let found = find(&SUBCOMMANDS, hash, prefix + sub.len(), |known| {
        known.starts_with(entry.name.as_bytes())
            && known[prefix - 1] == b'|'
            && known[prefix..].eq_ignore_ascii_case(sub)
    });
    found.map_or(Lookup::UnknownSubcommand(entry), Lookup::Known)
}

/// A set of the table's commands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Set([u64; ENTRIES.len().div_ceil(64)]);

impl Set {
    /// Those of the table for which `is` holds.
    pub fn of(is: impl Fn(&Entry) -> bool) -> Set {
        let mut set = [0; ENTRIES.len().div_ceil(64)];
        for (at, _) in ENTRIES.iter().enumerate().filter(|(_, entry)| is(entry)) {
            set[at / 64] |= 1 << (at % 64);
        }
        Set(set)
    }

    /// Whether it has this entry of the table.
    #[inline]
    pub fn has(&self, entry: &'static Entry) -> bool {
        // Its place is its distance from the first: nothing is hashed or compared.
        let from = core::ptr::from_ref(entry).addr().wrapping_sub(ENTRIES.as_ptr().addr());
        let at = from / size_of::<Entry>();
        self.0.get(at / 64).is_some_and(|bits| bits >> (at % 64) & 1 == 1)
    }
}

fn find_command(name: &[u8]) -> Option<&'static Entry> {
    find(&COMMANDS, hash(SEED, name), name.len(), |known| known.eq_ignore_ascii_case(name))
}

impl Entry {
    /// Whether this request of an [`Act::BlockIfAsked`] command has a BLOCK option (`xreadCommand`). `args` are the
    /// request's arguments; whether the command's name is among them does not matter.
    pub fn asks_to_block<'a>(&self, args: impl Iterator<Item = &'a [u8]>) -> bool {
        let mut args = args;
        while let Some(arg) = args.next() {
            let is = |word: &str| arg.eq_ignore_ascii_case(word.as_bytes());
            let values = match () {
                () if is("STREAMS") => return false,
                () if is("BLOCK") => return true,
                () if is("GROUP") => 2,
                // CLAIM since Redis 8.4, MAXCOUNT and MAXSIZE since Redis 8.10.
                () if is("COUNT") || is("CLAIM") || is("MAXCOUNT") || is("MAXSIZE") => 1,
                () => 0,
            };
            for _ in 0..values {
                args.next();
            }
        }
        false
    }

    /// Whether this request may be executed twice. `args` are the request's arguments, the command's name first.
    pub fn is_idempotent<'a>(&self, args: impl Iterator<Item = &'a [u8]>) -> bool {
        match self.idempotent {
            Idempotent::No => false,
            Idempotent::Yes => true,
            Idempotent::WithArgs(n) => args.count() == usize::from(n),
            Idempotent::Set => {
                let mut options = args.skip(3);
                let expires = |o: &[u8]| {
                    [&b"EX"[..], b"PX", b"EXAT", b"PXAT"].iter().any(|e| o.eq_ignore_ascii_case(e))
                };
                match options.next() {
                    None => true,
                    Some(option) => expires(option) && options.next().is_some() && options.next().is_none(),
                }
            }
        }
    }

    /// Whether a request of so many arguments, command and subcommand included, fits the arity.
    pub fn takes(&self, argc: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { argc >= wanted } else { argc == wanted }
    }
}

// The two indexes are open-addressing tables with linear probing, made by the compiler. They are less than half
// full, so a search ends soon for any name.
const SLOTS: usize = 1024;
type Index = [u16; SLOTS];
const FREE: u16 = u16::MAX;

static COMMANDS: Index = index(false);
static SUBCOMMANDS: Index = index(true);

const SEED: u32 = 0x811c_9dc5;

const fn index(subcommands: bool) -> Index {
    let mut slots = [FREE; SLOTS];
    let (mut i, mut used) = (0, 0);
    while i < ENTRIES.len() {
        let name = ENTRIES[i].name.as_bytes();
        let bar = position_of_bar(name);
        if (bar < name.len()) == subcommands {
            let (command, rest) = name.split_at(bar);
            let mut hashed = hash(SEED, command);
            if let [_, sub @ ..] = rest {
                hashed = hash(hashed, sub);
            }
            let mut at = slot(hashed);
            while slots[at] != FREE {
                at = (at + 1) % SLOTS;
            }
            slots[at] = i as u16;
            used += 1;
        }
        i += 1;
    }
    assert!(used * 2 < SLOTS, "the table has outgrown its index: double SLOTS");
    slots
}

/// FNV-1a over the letters without their case: the names are few and fixed, so it need not resist an attacker.
const fn hash(seed: u32, name: &[u8]) -> u32 {
    let (mut hashed, mut i) = (seed, 0);
    while i < name.len() && i < NAME_MAX {
        hashed = (hashed ^ (name[i] & !0x20) as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    hashed
}

/// No command or subcommand is longer, so no more is ever hashed.
const NAME_MAX: usize = 32;

const fn slot(hash: u32) -> usize {
    (hash ^ (hash >> 16)) as usize % SLOTS
}

const fn position_of_bar(name: &[u8]) -> usize {
    let mut i = 0;
    while i < name.len() && name[i] != b'|' {
        i += 1;
    }
    i
}

fn find(index: &Index, hash: u32, len: usize, is: impl Fn(&[u8]) -> bool) -> Option<&'static Entry> {
    let mut at = slot(hash);
    while let Some(entry) = ENTRIES.get(usize::from(index[at])) {
        if entry.name.len() == len && is(entry.name.as_bytes()) {
            return Some(entry);
        }
        at = (at + 1) % SLOTS;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;

    fn known(name: &str, sub: Option<&str>) -> &'static Entry {
        match lookup(name.as_bytes(), sub.map(str::as_bytes)) {
            Lookup::Known(entry) => entry,
            other => panic!("{name} {sub:?}: {other:?}"),
        }
    }

    fn blocks(request: &str) -> bool {
        let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let with_name = known(request.split(' ').next().unwrap(), None).asks_to_block(args.iter().copied());
        let without_name = known("XREAD", None).asks_to_block(args[1..].iter().copied());
        assert_eq!(with_name, without_name, "{request}");
        with_name
    }

    #[test]
    fn each_entry_is_found_by_its_own_name_in_any_case() {
        for entry in all() {
            let (command, sub) = match entry.name.split_once('|') {
                Some((command, sub)) => (command, Some(sub)),
                None => (entry.name, None),
            };
            assert!(core::ptr::eq(known(command, sub), entry));
            let lower = |name: &str| name.to_ascii_lowercase();
            assert!(core::ptr::eq(known(&lower(command), sub.map(lower).as_deref()), entry));
            let mixed = |name: &str| -> String {
                let case = |(i, c): (usize, char)| if i % 2 == 0 { c.to_ascii_lowercase() } else { c };
                name.chars().enumerate().map(case).collect()
            };
            assert!(core::ptr::eq(known(&mixed(command), sub.map(mixed).as_deref()), entry));
        }
    }

    #[test]
    fn a_set_has_the_entries_that_it_was_made_of_and_no_others() {
        let reads = Set::of(|entry| entry.access == Access::Read);
        for entry in all() {
            assert_eq!(reads.has(entry), entry.access == Access::Read, "{}", entry.name);
        }
        static OTHER: Entry = Entry { name: "OTHER", ..ENTRIES[0] };
        assert!(!Set::of(|_| true).has(&OTHER));
    }

    #[test]
    fn names_are_upper_case_sorted_and_unique() {
        assert!(all().is_sorted_by(|a, b| a.name < b.name));
        assert!(all().iter().all(|e| e.name.len() <= NAME_MAX && e.name == e.name.to_ascii_uppercase()));
    }

    #[test]
    fn only_containers_look_at_the_first_argument() {
        assert_eq!(known("GET", Some("ID")).name, "GET");
        assert_eq!(known("client", Some("id")).name, "CLIENT|ID");
        assert_eq!(known("CLIENT", None).name, "CLIENT");
        assert_eq!(known("COMMAND", None).access, Access::Neither);
        assert!(matches!(
            lookup(b"CLIENT", Some(b"NOSUCH")),
            Lookup::UnknownSubcommand(Entry { name: "CLIENT", .. })
        ));
        assert!(matches!(lookup(b"CLIENT", Some(b"")), Lookup::UnknownSubcommand(_)));
    }

    #[test]
    fn what_is_not_a_command_is_unknown() {
        let long = [b'A'; 10_000];
        let strange: [&[u8]; 8] = [b"", b"GE", b"GETT", b"G\0T", b"CLIENT|ID", b"\xff\xfe", b"GET ", &long];
        for name in strange {
            assert!(matches!(lookup(name, Some(b"ID")), Lookup::Unknown), "{}", name.escape_ascii());
        }
        assert!(matches!(lookup(b"CONFIG", Some(&long)), Lookup::UnknownSubcommand(_)));
        // Differ from known names only in the bit that tells the cases of letters apart.
        assert!(matches!(lookup(b"RESTORE\rASKING", None), Lookup::Unknown));
        assert!(matches!(lookup(b"EVAL\x7fRO", None), Lookup::Unknown));
    }

    #[test]
    fn what_reads_and_what_writes() {
        for name in ["GET", "MGET", "XREAD", "SCAN", "EVAL_RO", "EVALSHA_RO", "FCALL_RO", "SORT_RO", "VSIM"] {
            assert_eq!((known(name, None).access, known(name, None).resend), (Access::Read, true), "{name}");
        }
        for name in [
            "SET",
            "SORT",
            "XREADGROUP",
            "EVAL",
            "EVALSHA",
            "FCALL",
            "PFCOUNT",
            "PUBLISH",
            "SPUBLISH",
            "EXEC",
            "WAIT",
            "WAITAOF",
            "BGSAVE",
            "GETEX",
            "HGETDEL",
            "MSETEX",
            "DELIFEQ",
        ] {
            assert_eq!(
                (known(name, None).access, known(name, None).resend),
                (Access::Write, false),
                "{name}"
            );
        }
        for (name, sub) in [("CONFIG", "SET"), ("ACL", "SETUSER"), ("FUNCTION", "LOAD"), ("SCRIPT", "FLUSH")]
        {
            assert_eq!(known(name, Some(sub)).access, Access::Write, "{name} {sub}");
        }
        for name in ["PING", "ECHO", "TIME", "INFO", "ROLE"] {
            assert_eq!(
                (known(name, None).access, known(name, None).resend),
                (Access::Neither, true),
                "{name}"
            );
        }
    }

    #[test]
    fn what_changes_the_session_is_never_sent_again() {
        use Act::*;
        for entry in all().iter().filter(|e| e.resend) {
            assert_ne!(entry.access, Access::Write, "{}", entry.name);
            let asks = matches!(
                entry.act,
                ClientId
                    | ClientGetname
                    | ClientInfo
                    | ClientList
                    | ClientKill
                    | ClientGetredir
                    | ClientTrackinginfo
            );
            let harmless = asks || matches!(entry.act, None | Script | BlockIfAsked);
            assert!(harmless, "{}", entry.name);
        }
    }

    #[test]
    fn scripts_and_modules_prove_nothing() {
        for name in ["EVAL", "EVALSHA", "FCALL", "EVAL_RO", "EXEC", "MIGRATE", "VADD"] {
            assert!(!known(name, None).proves, "{name}");
        }
        assert!(known("SET", None).proves && known("BLPOP", None).proves);
    }

    #[test]
    fn what_breaks_the_deployment_is_refused() {
        for (name, sub) in [
            ("SHUTDOWN", None),
            ("SLAVEOF", None),
            ("REPLICAOF", None),
            ("DEBUG", Some("SLEEP")),
            ("CLUSTER", Some("RESET")),
            ("CLUSTER", Some("migrateslots")),
            ("CLIENT", Some("pause")),
            ("CLIENT", Some("CAPA")),
            ("MODULE", Some("LOADEX")),
        ] {
            assert!(known(name, sub).refused, "{name} {sub:?}");
        }
        for (name, sub) in
            [("CONFIG", Some("SET")), ("CLUSTER", Some("INFO")), ("CLIENT", None), ("CLIENT", Some("LIST"))]
        {
            assert!(!known(name, sub).refused, "{name} {sub:?}");
        }
    }

    #[test]
    fn what_binds_and_what_blocks() {
        assert_eq!(known("BLPOP", None).act, Act::Block);
        assert_eq!(known("BLMOVEM", None).act, Act::Block);
        assert_eq!(known("WAITAOF", None).act, Act::Wait);
        assert_eq!(known("MONITOR", None).act, Act::Relay);
        assert_eq!(known("CLIENT", Some("REPLY")).act, Act::Relay);
        assert_eq!(known("CLIENT", Some("NO-EVICT")).act, Act::Bind);
        assert_eq!(known("HIMPORT", Some("PREPARE")).act, Act::Bind);
        assert_eq!(known("PSUBSCRIBE", None).act, Act::Subscribe(SubKind::Pattern));
        assert_eq!(known("host:", None).act, Act::Hangup);
    }

    #[test]
    fn xread_blocks_only_when_asked_to() {
        assert!(blocks("XREAD BLOCK 0 STREAMS a $"));
        assert!(blocks("xread count 5 block 100 streams a 0"));
        assert!(blocks("XREADGROUP GROUP g c NOACK BLOCK 5 STREAMS a >"));
        assert!(blocks("XREAD MAXCOUNT 5 BLOCK 0 STREAMS a $"));
        assert!(!blocks("XREAD STREAMS a 0"));
        assert!(!blocks("XREAD COUNT 5 STREAMS BLOCK 0"));
        assert!(!blocks("XREADGROUP GROUP BLOCK BLOCK COUNT 1 STREAMS a >"));
        assert!(!blocks("XREADGROUP GROUP g BLOCK STREAMS BLOCK >"));
        assert!(!blocks("XREAD COUNT"));
    }

    #[test]
    fn a_write_is_idempotent_only_where_neither_data_nor_reply_tells_that_it_ran_twice() {
        let is = |request: &str| {
            let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            known(request.split(' ').next().unwrap(), args.get(1).map(|a| core::str::from_utf8(a).unwrap()))
                .is_idempotent(args.into_iter())
        };
        for yes in [
            "SET k v",
            "SET k v EX 10",
            "set k v pxat 99",
            "SET k NX",
            "MSET a 1 b 2",
            "PSETEX k 5 v",
            "HMSET h f v",
            "EXPIREAT k 99",
            "SCRIPT LOAD x",
        ] {
            assert!(is(yes), "{yes}");
        }
        for no in [
            "SET k v NX",
            "SET k v XX",
            "SET k v GET",
            "SET k v KEEPTTL",
            "SET k v EX 10 NX",
            "SET k v EX",
            "INCR k",
            "APPEND k v",
            "DEL k",
            "HSET h f v",
            "SADD s m",
            "LPUSH l v",
            "EXPIRE k 5 NX",
            "GETSET k v",
            "EVAL x 0",
            "FLUSHALL",
            "GET k",
            "MSETNX a 1",
        ] {
            assert!(!is(no), "{no}");
        }
    }

    #[test]
    fn arity_counts_the_command_and_its_subcommand() {
        assert!(known("GET", None).takes(2) && !known("GET", None).takes(3));
        assert!(known("MGET", None).takes(9) && !known("MGET", None).takes(1));
        assert!(known("ZRANK", None).takes(4), "WITHSCORE since Redis 7.2");
        assert!(known("CLIENT", Some("ID")).takes(2));
    }
}
