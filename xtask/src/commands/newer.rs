//! Commands that the generating server may be too old to have, as newer servers describe them, and arities that
//! newer servers relaxed. What a server of the wanted version is at hand for was taken from its `COMMAND` reply
//! (Redis 8.0.6 and Valkey 9.1.2; `commands --compare` checks it again), the rest from `src/commands/*.json` and the
//! documentation of Redis 8.2 to 8.10. Bundled modules other than vector sets are left out: what is not known is
//! taken to write.
use super::{Described, DescribedKeys, Effect, judge};
use Effect::{Reads, Unsaid, Writes};
use pointsman_core::command::{Begin, Find, KeySpec};

/// What the server described, and what it is too old for.
pub(super) fn add_to(mut described: Vec<Described>) -> Vec<Described> {
    for newer in rows() {
        match described.iter_mut().find(|known| known.name == newer.name) {
            Some(known) => known.arity = judge::laxer(known.arity, newer.arity),
            None => described.push(newer),
        }
    }
    for &(name, arity) in RELAXED {
        for known in described.iter_mut().filter(|known| known.name == name) {
            known.arity = judge::laxer(known.arity, arity);
        }
    }
    described
}

/// Commands that take more arguments than they used to.
const RELAXED: &[(&str, i32)] = &[
    ("CLUSTER|REPLICATE", -3), // Valkey 9.0
    ("COMMAND|GETKEYS", -3),   // Redis 7.2
    ("COMMAND|GETKEYSANDFLAGS", -3),
    ("SCRIPT|DEBUG", -3), // Valkey 9.0
    ("ZRANK", -3),        // Redis 7.2: WITHSCORE
    ("ZREVRANK", -3),
];

enum Keyed {
    /// No keys.
    No,
    /// The argument at this place.
    At(u8),
    /// Two, from the first argument on.
    Two,
    /// As many as the first argument says, each of so many arguments.
    Counted(u8),
}
use Keyed::{At, Counted, No, Two};

#[rustfmt::skip]
const ROWS: &[(&str, i32, Effect, Keyed)] = &[
    // Redis 7.2, Valkey 7.2
    ("CLIENT|NO-TOUCH", 3, Unsaid, No),
    ("CLIENT|SETINFO", 4, Unsaid, No),
    ("CLUSTER|MYSHARDID", 2, Unsaid, No),
    ("WAITAOF", 4, Unsaid, No),
    // Redis 7.4, Valkey 9.0
    ("HEXPIRE", -6, Writes, At(1)),
    ("HEXPIREAT", -6, Writes, At(1)),
    ("HEXPIRETIME", -5, Reads, At(1)),
    ("HPERSIST", -5, Writes, At(1)),
    ("HPEXPIRE", -6, Writes, At(1)),
    ("HPEXPIREAT", -6, Writes, At(1)),
    ("HPEXPIRETIME", -5, Reads, At(1)),
    ("HPTTL", -5, Reads, At(1)),
    ("HTTL", -5, Reads, At(1)),
    // Redis 8.0, Valkey 9.0 and 9.1
    ("HGETDEL", -5, Writes, At(1)),
    ("HGETEX", -5, Writes, At(1)),
    ("HSETEX", -6, Writes, At(1)),
    // Redis 8.0: vector sets, a module
    ("VADD", -1, Writes, At(1)),
    ("VCARD", -1, Reads, At(1)),
    ("VDIM", -1, Reads, At(1)),
    ("VEMB", -1, Reads, At(1)),
    ("VGETATTR", -1, Reads, At(1)),
    ("VINFO", -1, Reads, At(1)),
    ("VISMEMBER", -1, Reads, At(1)),
    ("VLINKS", -1, Reads, At(1)),
    ("VRANDMEMBER", -1, Reads, At(1)),
    ("VRANGE", -1, Reads, At(1)), // Redis 8.4
    ("VREM", -1, Writes, At(1)),
    ("VSETATTR", -1, Writes, At(1)),
    ("VSIM", -1, Reads, At(1)),
    // Redis 8.2
    ("CLUSTER|SLOT-STATS", -4, Unsaid, No), // Valkey 8.0
    ("XACKDEL", -6, Writes, At(1)),
    ("XDELEX", -5, Writes, At(1)),
    // Redis 8.4
    ("CLUSTER|MIGRATION", -4, Unsaid, No),
    ("DELEX", -2, Writes, At(1)),
    ("DIGEST", 2, Reads, At(1)),
    ("MSETEX", -4, Writes, Counted(2)), // Valkey 9.1
    // Redis 8.6
    ("HOTKEYS", -2, Unsaid, No),
    ("HOTKEYS|GET", 2, Unsaid, No),
    ("HOTKEYS|HELP", 2, Unsaid, No),
    ("HOTKEYS|RESET", 2, Unsaid, No),
    ("HOTKEYS|START", -2, Unsaid, No),
    ("HOTKEYS|STOP", 2, Unsaid, No),
    ("XCFGSET", -2, Writes, At(1)),
    // Redis 8.8
    ("ARCOUNT", -2, Reads, At(1)),
    ("ARDEL", -2, Writes, At(1)),
    ("ARDELRANGE", -2, Writes, At(1)),
    ("ARGET", -2, Reads, At(1)),
    ("ARGETRANGE", -2, Reads, At(1)),
    ("ARGREP", -2, Reads, At(1)),
    ("ARINFO", -2, Reads, At(1)),
    ("ARINSERT", -2, Writes, At(1)),
    ("ARLASTITEMS", -2, Reads, At(1)),
    ("ARLEN", -2, Reads, At(1)),
    ("ARMGET", -2, Reads, At(1)),
    ("ARMSET", -2, Writes, At(1)),
    ("ARNEXT", -2, Reads, At(1)),
    ("AROP", -2, Reads, At(1)),
    ("ARRING", -2, Writes, At(1)),
    ("ARSCAN", -2, Reads, At(1)),
    ("ARSEEK", -2, Writes, At(1)),
    ("ARSET", -2, Writes, At(1)),
    ("INCREX", -2, Writes, At(1)),
    ("XNACK", -2, Writes, At(1)),
    // Redis 8.10
    ("BACKUP", -2, Unsaid, No),
    ("BACKUP|ABORT", -2, Unsaid, No),
    ("BACKUP|CLEANUP", -2, Unsaid, No),
    ("BACKUP|HELP", 2, Unsaid, No),
    ("BACKUP|LIST", -2, Unsaid, No),
    ("BACKUP|SEAL", -2, Unsaid, No),
    ("BACKUP|START", -2, Unsaid, No),
    ("BACKUP|STATUS", -2, Unsaid, No),
    ("BLMOVEM", -6, Writes, Two),
    ("HIMPORT", -2, Unsaid, No),
    ("HIMPORT|DISCARD", -2, Unsaid, No),
    ("HIMPORT|DISCARDALL", -2, Unsaid, No),
    ("HIMPORT|PREPARE", -2, Unsaid, No),
    ("HIMPORT|SET", -3, Writes, At(2)),
    ("LMOVEM", -5, Writes, Two),
    ("SDIFFCARD", -3, Reads, Counted(1)),
    ("SUNIONCARD", -3, Reads, Counted(1)),
    // Valkey 8.0
    ("CLIENT|CAPA", -3, Unsaid, No),
    ("SCRIPT|SHOW", 3, Unsaid, No),
    // Valkey 8.1
    ("CLIENT|IMPORT-SOURCE", 3, Unsaid, No),
    ("COMMANDLOG", -2, Unsaid, No),
    ("COMMANDLOG|GET", 4, Unsaid, No),
    ("COMMANDLOG|HELP", 2, Unsaid, No),
    ("COMMANDLOG|LEN", 3, Unsaid, No),
    ("COMMANDLOG|RESET", 3, Unsaid, No),
    // Valkey 9.0
    ("CLUSTER|CANCELSLOTMIGRATIONS", 2, Unsaid, No),
    ("CLUSTER|FLUSHSLOT", -3, Writes, No),
    ("CLUSTER|GETSLOTMIGRATIONS", 2, Unsaid, No),
    ("CLUSTER|MIGRATESLOTS", -4, Unsaid, No),
    ("CLUSTER|SYNCSLOTS", -3, Unsaid, No),
    ("DELIFEQ", 3, Writes, At(1)),
    // Valkey 9.1
    ("CLUSTERSCAN", -2, Reads, At(1)),
    // In no server's COMMAND reply, and in every server (`processCommand`)
    ("HOST:", -1, Unsaid, No),
    ("POST", -1, Unsaid, No),
];

const BLOCKING: [&str; 2] = ["BLMOVEM", "WAITAOF"];

fn rows() -> impl Iterator<Item = Described> {
    ROWS.iter().map(|(name, arity, effect, keys)| Described {
        name: (*name).into(),
        arity: *arity,
        effect: *effect,
        blocking: BLOCKING.contains(name),
        container: ROWS.iter().any(|(other, ..)| other.split_once('|').is_some_and(|(c, _)| c == *name)),
        keys: DescribedKeys::Specs(keys.specs()),
    })
}

impl Keyed {
    fn specs(&self) -> Vec<KeySpec> {
        let one = |at| KeySpec { begin: Begin::At(at), find: Find::Range { last: 0, step: 1, limit: 0 } };
        match *self {
            No => vec![],
            At(at) => vec![one(at)],
            Two => vec![one(1), one(2)],
            Counted(step) => {
                vec![KeySpec { begin: Begin::At(1), find: Find::Counted { count: 0, first: 1, step } }]
            }
        }
    }
}
