//! Where a request's keys are, from the command's key specifications (Redis: `getKeysUsingKeySpecs` in db.c).
//!
//! Shard channels (SSUBSCRIBE, SPUBLISH) count as keys: they are routed like keys.
use super::Entry;

/// Where a command's keys are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// As these say together; at most [`SPECS_MAX`] of them. None: it has no keys.
    Specs(&'static [KeySpec]),
    /// SORT and SORT_RO: the first argument, and that of STORE (`sortGetKeys`). BY and GET can name keys by pattern.
    Sort,
    /// MIGRATE: the third argument, or if it is empty those after KEYS (`migrateGetKeys`).
    Migrate,
    /// The server cannot say it in key specifications.
    Unknown,
}

/// The most key specifications of one command.
pub const SPECS_MAX: usize = 3;

/// One key specification. Positions count the command as 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeySpec {
    /// Where the search begins.
    pub begin: Begin,
    /// How keys are found from there.
    pub find: Find,
}

/// Where the search for keys begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// At this argument.
    At(u8),
    /// Behind the first argument, from `from` on, that is this word in any letter case; without it there are no keys.
    After {
        /// The word, upper-case.
        word: &'static str,
        /// Where the search for the word begins.
        from: u8,
    },
}

/// How keys are found from where the search begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Find {
    /// Every `step`-th argument.
    Range {
        /// The last one: relative to the beginning, or if negative relative to the end (-1 is the last argument).
        last: i8,
        /// 1: each argument; 2: each second one.
        step: u8,
        /// 2 or more: only the first half, third … of the arguments that are left, and `last` counts from its end.
        limit: u8,
    },
    /// As many as an argument says.
    Counted {
        /// The argument that says how many; relative to the beginning.
        count: u8,
        /// The first key; relative to the beginning.
        first: u8,
        /// 1: each argument; 2: each second one.
        step: u8,
    },
}

/// Why a request's keys cannot be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeysError {
    /// The command may use keys that its arguments do not name.
    Unknowable,
    /// The arguments do not fit the command: the server answers with an error, and touches no key.
    Malformed,
}

/// The positions of a request's keys among its arguments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Positions {
    /// Those behind `used` are unused.
    runs: [Run; SPECS_MAX],
    used: usize,
    now: usize,
}

/// Positions `next`, `next + step` … up to `last`, which is part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Run {
    next: usize,
    last: usize,
    step: usize,
}

/// The positions of the keys of a request of `argc` arguments, of which `args` iterates over all (the command's name
/// is number 0). Most commands' keys are found without looking at any argument.
pub fn keys<'a, I>(entry: &Entry, argc: usize, args: I) -> Result<Positions, KeysError>
where
    I: Iterator<Item = &'a [u8]> + Clone,
{
    if !entry.takes(argc) {
        return Err(KeysError::Malformed);
    }
    let mut found = Positions::default();
    match entry.keys {
        Keys::Unknown => return Err(KeysError::Unknowable),
        Keys::Sort => sort(args, &mut found)?,
        Keys::Migrate => migrate(argc, args, &mut found)?,
        Keys::Specs(specs) => {
            for spec in specs {
                if let Some(run) = spec.run(argc, args.clone())? {
                    found.push(run);
                }
            }
        }
    }
    Ok(found)
}

impl KeySpec {
    fn run<'a>(
        &self,
        argc: usize,
        args: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<Option<Run>, KeysError> {
        let begin = match self.begin {
            Begin::At(at) => usize::from(at),
            Begin::After { word, from } => match place_of(word, from.into(), args.clone()) {
                Some(at) => at + 1,
                None => return Ok(None),
            },
        };
        // An optional argument that is not there (`SUNSUBSCRIBE`, `PFMERGE dest`): the arity allows it.
        if begin >= argc {
            return Ok(None);
        }
        let (first, last, step) = match self.find {
            Find::Range { last, step, limit } => (begin, last_of(begin, argc, last, limit)?, step.into()),
            Find::Counted { count, first, step } => {
                let n = args.clone().nth(begin + usize::from(count)).and_then(number);
                let n = n.ok_or(KeysError::Malformed)?;
                let Some(behind) = n.checked_sub(1) else { return Ok(None) };
                let (first, step) = (begin + usize::from(first), usize::from(step));
                let length = behind.checked_mul(step).ok_or(KeysError::Malformed)?;
                (first, first.checked_add(length).ok_or(KeysError::Malformed)?, step)
            }
        };
        if last < first || last >= argc {
            return Err(KeysError::Malformed);
        }
        Ok(Some(Run { next: first, last, step }))
    }
}

fn last_of(begin: usize, argc: usize, last: i8, limit: u8) -> Result<usize, KeysError> {
    let distance = usize::from(last.unsigned_abs());
    if last >= 0 {
        return Ok(begin + distance);
    }
    let end = if limit < 2 { argc } else { begin + (argc - begin) / usize::from(limit) };
    end.checked_sub(distance).ok_or(KeysError::Malformed)
}

fn place_of<'a>(word: &str, from: usize, args: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
    let mut places = args.enumerate().skip(from);
    places.find(|(_, arg)| arg.eq_ignore_ascii_case(word.as_bytes())).map(|(at, _)| at)
}

/// A number without sign, as `string2ll` takes it.
fn number(arg: &[u8]) -> Option<usize> {
    if arg.first() == Some(&b'+') {
        return None;
    }
    core::str::from_utf8(arg).ok()?.parse().ok()
}

fn sort<'a>(args: impl Iterator<Item = &'a [u8]>, found: &mut Positions) -> Result<(), KeysError> {
    found.push(Run::one(1));
    let mut args = args.enumerate().skip(2);
    let mut store = None;
    while let Some((_, arg)) = args.next() {
        let is = |word: &str| arg.eq_ignore_ascii_case(word.as_bytes());
        if is("LIMIT") {
            args.nth(1);
        } else if is("STORE") {
            store = args.next().map(|(at, _)| at).or(store);
        } else if (is("BY") || is("GET")) && args.next().is_some_and(|(_, pattern)| pattern.contains(&b'*')) {
            return Err(KeysError::Unknowable);
        }
    }
    if let Some(at) = store {
        found.push(Run::one(at));
    }
    Ok(())
}

fn migrate<'a>(
    argc: usize,
    args: impl Iterator<Item = &'a [u8]> + Clone,
    found: &mut Positions,
) -> Result<(), KeysError> {
    if args.clone().nth(3).is_some_and(|key| !key.is_empty()) {
        found.push(Run::one(3));
        return Ok(());
    }
    let mut options = args.enumerate().skip(6);
    while let Some((at, arg)) = options.next() {
        let is = |word: &str| arg.eq_ignore_ascii_case(word.as_bytes());
        if is("KEYS") && at + 1 < argc {
            found.push(Run { next: at + 1, last: argc - 1, step: 1 });
            return Ok(());
        } else if is("AUTH") {
            options.next();
        } else if is("AUTH2") {
            options.nth(1);
        }
    }
    Err(KeysError::Malformed)
}

impl Run {
    fn one(at: usize) -> Run {
        Run { next: at, last: at, step: 1 }
    }
}

impl Positions {
    fn push(&mut self, run: Run) {
        self.runs[self.used] = run;
        self.used += 1;
    }
}

impl Iterator for Positions {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.now < self.used {
            let run = &mut self.runs[self.now];
            if run.next <= run.last {
                let at = run.next;
                run.next += run.step;
                return Some(at);
            }
            self.now += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Lookup, all, lookup};
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn of(args: &[&str]) -> Result<Vec<usize>, KeysError> {
        let Lookup::Known(entry) = lookup(args[0].as_bytes(), args.get(1).map(|arg| arg.as_bytes())) else {
            panic!("{args:?} is not known");
        };
        keys(entry, args.len(), args.iter().map(|arg| arg.as_bytes())).map(Iterator::collect)
    }

    fn words(request: &str) -> Result<Vec<usize>, KeysError> {
        let args: Vec<&str> = request.split(' ').collect();
        of(&args)
    }

    #[track_caller]
    fn at(request: &str, expected: &[usize]) {
        assert_eq!(words(request).as_deref(), Ok(expected), "{request}");
    }

    #[test]
    fn fixed_places() {
        at("GET k", &[1]);
        at("set k v EX 5", &[1]);
        at("MGET a b c", &[1, 2, 3]);
        at("MSET a 1 b 2", &[1, 3]);
        at("BLPOP a b 0", &[1, 2]);
        at("RENAME a b", &[1, 2]);
        at("BITOP AND d a b", &[2, 3, 4]);
        at("SINTERSTORE d a b", &[1, 2, 3]);
        at("LCS a b LEN", &[1, 2]);
        at("OBJECT ENCODING k", &[2]);
        at("XGROUP CREATE s g $", &[2]);
        at("PING", &[]);
        at("SCAN 0", &[]);
    }

    #[test]
    fn optional_places_may_be_missing() {
        at("PFMERGE d", &[1]);
        at("SUNSUBSCRIBE", &[]);
    }

    #[test]
    fn counted() {
        at("EVAL s 2 a b c", &[3, 4]);
        at("EVAL s 0 a", &[]);
        at("FCALL_RO f 1 a", &[3]);
        at("ZUNIONSTORE d 2 a b WEIGHTS 1 2", &[1, 3, 4]);
        at("ZDIFF 1 a", &[2]);
        at("BLMPOP 0 2 a b LEFT", &[3, 4]);
        at("MSETEX 2 a 1 b 2 EX 5", &[2, 4]);
    }

    #[test]
    fn behind_a_word() {
        at("XREAD COUNT 2 STREAMS a b 0 0", &[4, 5]);
        at("xread block 0 streams a $", &[4]);
        at("XREADGROUP GROUP STREAMS c STREAMS k >", &[5]);
        at("GEORADIUS k 0 0 1 km", &[1]);
        at("GEORADIUS k 0 0 1 km STORE d", &[1, 7]);
        at("GEORADIUSBYMEMBER k m 1 km storedist d", &[1, 6]);
    }

    #[test]
    fn sort_and_its_destination() {
        at("SORT k", &[1]);
        at("SORT k LIMIT 0 5 STORE d", &[1, 6]);
        at("SORT k BY nosort GET # STORE d", &[1, 7]);
        at("SORT k BY STORE GET x", &[1]);
        at("SORT k STORE a STORE b", &[1, 5]);
        assert_eq!(words("SORT k BY w_*"), Err(KeysError::Unknowable));
        assert_eq!(words("SORT_RO k GET o_*->f"), Err(KeysError::Unknowable));
    }

    #[test]
    fn migrate_names_one_key_or_many() {
        at("MIGRATE h 1 k 0 100", &[3]);
        at("MIGRATE h 1 k 0 100 AUTH KEYS", &[3]);
        let many =
            ["MIGRATE", "h", "1", "", "0", "100", "COPY", "AUTH2", "KEYS", "KEYS", "KEYS", "a", "KEYS"];
        assert_eq!(of(&many), Ok([11, 12].into()));
        assert_eq!(of(&["MIGRATE", "h", "1", "", "0", "100", "COPY"]), Err(KeysError::Malformed));
    }

    #[test]
    fn requests_that_do_not_fit_are_malformed() {
        for request in [
            "GET",
            "GET a b",
            "EVAL s x a",
            "EVAL s -1 a",
            "EVAL s +1 a",
            "EVAL s 3 a b",
            "EVAL s 18446744073709551615 a",
            "EVAL s 99999999999999999999 a",
            "MSETEX 9223372036854775807 a 1",
            "XREAD COUNT 1 STREAMS a",
        ] {
            assert_eq!(words(request), Err(KeysError::Malformed), "{request}");
        }
    }

    #[test]
    fn no_command_has_more_specs_than_fit() {
        for entry in all() {
            assert!(!matches!(entry.keys, Keys::Specs(specs) if specs.len() > SPECS_MAX), "{}", entry.name);
        }
    }

    proptest! {
        #[test]
        fn positions_are_always_arguments(
            entry in 0..all().len(),
            args in proptest::collection::vec("|[0-9]{1,2}|STREAMS|STORE|KEYS|BY|GET|LIMIT|k\\*?", 1..12),
        ) {
            if let Ok(found) = keys(&all()[entry], args.len(), args.iter().map(|arg| arg.as_bytes())) {
                for at in found {
                    prop_assert!((1..args.len()).contains(&at));
                }
            }
        }
    }
}
