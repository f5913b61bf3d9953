//! Commands of servers that could not be had to be asked: Redis 8.2 to 8.10, from their `src/commands/*.json` and their
//! documentation. Where a captured server has the command too, what that says counts; a bundled module other than vector
//! sets is left out.
use super::{Described, DescribedKeys};
use Effect::{Reads, Unsaid, Writes};
use pointsman_core::command::{Begin, Find, KeySpec};

/// What is documented, with the versions in which it came.
pub(super) fn described() -> impl Iterator<Item = Described> {
    ROWS.iter().flat_map(|(since, rows)| rows.iter().map(|row| row.described(since)))
}

enum Effect {
    Reads,
    Writes,
    Unsaid,
}

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

struct Row(&'static str, i32, Effect, Keyed);

#[rustfmt::skip]
const ROWS: &[(&str, &[Row])] = &[
    ("Redis 8.2", &[
        Row("XACKDEL", -6, Writes, At(1)),
        Row("XDELEX", -5, Writes, At(1)),
        Row("CLUSTER|SLOT-STATS", -4, Unsaid, No),
    ]),
    ("Redis 8.4", &[
        Row("VRANGE", -1, Reads, At(1)),
        Row("CLUSTER|MIGRATION", -4, Unsaid, No),
        Row("DELEX", -2, Writes, At(1)),
        Row("DIGEST", 2, Reads, At(1)),
        Row("MSETEX", -4, Writes, Counted(2)),
    ]),
    ("Redis 8.6", &[
        Row("HOTKEYS", -2, Unsaid, No),
        Row("HOTKEYS|GET", 2, Unsaid, No),
        Row("HOTKEYS|HELP", 2, Unsaid, No),
        Row("HOTKEYS|RESET", 2, Unsaid, No),
        Row("HOTKEYS|START", -2, Unsaid, No),
        Row("HOTKEYS|STOP", 2, Unsaid, No),
        Row("XCFGSET", -2, Writes, At(1)),
    ]),
    ("Redis 8.8", &[
        Row("ARCOUNT", -2, Reads, At(1)),
        Row("ARDEL", -2, Writes, At(1)),
        Row("ARDELRANGE", -2, Writes, At(1)),
        Row("ARGET", -2, Reads, At(1)),
        Row("ARGETRANGE", -2, Reads, At(1)),
        Row("ARGREP", -2, Reads, At(1)),
        Row("ARINFO", -2, Reads, At(1)),
        Row("ARINSERT", -2, Writes, At(1)),
        Row("ARLASTITEMS", -2, Reads, At(1)),
        Row("ARLEN", -2, Reads, At(1)),
        Row("ARMGET", -2, Reads, At(1)),
        Row("ARMSET", -2, Writes, At(1)),
        Row("ARNEXT", -2, Reads, At(1)),
        Row("AROP", -2, Reads, At(1)),
        Row("ARRING", -2, Writes, At(1)),
        Row("ARSCAN", -2, Reads, At(1)),
        Row("ARSEEK", -2, Writes, At(1)),
        Row("ARSET", -2, Writes, At(1)),
        Row("INCREX", -2, Writes, At(1)),
        Row("XNACK", -2, Writes, At(1)),
    ]),
    ("Redis 8.10", &[
        Row("BACKUP", -2, Unsaid, No),
        Row("BACKUP|ABORT", -2, Unsaid, No),
        Row("BACKUP|CLEANUP", -2, Unsaid, No),
        Row("BACKUP|HELP", 2, Unsaid, No),
        Row("BACKUP|LIST", -2, Unsaid, No),
        Row("BACKUP|SEAL", -2, Unsaid, No),
        Row("BACKUP|START", -2, Unsaid, No),
        Row("BACKUP|STATUS", -2, Unsaid, No),
        Row("BLMOVEM", -6, Writes, Two),
        Row("HIMPORT", -2, Unsaid, No),
        Row("HIMPORT|DISCARD", -2, Unsaid, No),
        Row("HIMPORT|DISCARDALL", -2, Unsaid, No),
        Row("HIMPORT|PREPARE", -2, Unsaid, No),
        Row("HIMPORT|SET", -3, Writes, At(2)),
        Row("LMOVEM", -5, Writes, Two),
        Row("SDIFFCARD", -3, Reads, Counted(1)),
        Row("SUNIONCARD", -3, Reads, Counted(1)),
    ]),
];

const BLOCKING: &str = "BLMOVEM";

impl Row {
    fn described(&self, since: &str) -> Described {
        let Row(name, arity, effect, keys) = self;
        let effect = match effect {
            Reads => Some("readonly"),
            Writes => Some("write"),
            Unsaid => None,
        };
        let blocking = (*name == BLOCKING).then_some("blocking");
        let within = format!("{name}|");
        let mut all = ROWS.iter().flat_map(|(_, rows)| rows.iter());
        Described {
            name: (*name).into(),
            arity: *arity,
            flags: effect.into_iter().chain(blocking).map(Into::into).collect(),
            categories: vec![],
            container: all.any(|row| row.0.starts_with(&within)),
            keys: DescribedKeys::Specs(keys.specs()),
            since: Some(since.into()),
        }
    }
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
