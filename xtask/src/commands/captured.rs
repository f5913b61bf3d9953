//! What servers said, kept in `xtask/commands/*.txt`: a file for each server, a line for each command, so that the table
//! can be made again without them, and a change shows as a change of lines.
use super::merged::short;
use super::{Described, DescribedKeys, Result, Server};
use pointsman_core::command::{Begin, Find, KeySpec};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A server, and its commands in the order of their names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Captured {
    /// Such as `redis 7.0.15`.
    pub(super) server: String,
    pub(super) commands: Vec<Described>,
}

const HEAD: &str =
    "by `cargo run -p xtask -- commands --capture PROGRAM`: name, arity, flags, ACL categories, keys, since";

/// Asks a server, and writes what it says; returns where.
pub(super) fn capture(program: &str) -> Result<PathBuf> {
    let server = Server::start(program)?;
    let captured = Captured { server: server.version()?, commands: server.commands()? };
    fs::create_dir_all(folder())?;
    let path = folder().join(format!("{}.txt", captured.server.replace(' ', "-")));
    fs::write(&path, captured.to_text())?;
    Ok(path)
}

/// All that were captured: Redis before Valkey, older before newer.
pub(super) fn all() -> Result<Vec<Captured>> {
    let mut captured = Vec::new();
    for entry in fs::read_dir(folder())? {
        captured.push(Captured::of_text(&fs::read_to_string(entry?.path())?)?);
    }
    captured.sort_by_key(|c| (c.kind().to_owned(), c.version()));
    Ok(captured)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("commands")
}

impl Captured {
    /// `redis` or `valkey`.
    pub(super) fn kind(&self) -> &str {
        self.server.split(' ').next().unwrap_or_default()
    }

    fn version(&self) -> Vec<u32> {
        self.written_version().split('.').filter_map(|part| part.parse().ok()).collect()
    }

    /// Such as `7.0`.
    pub(super) fn short_version(&self) -> String {
        short(self.written_version())
    }

    fn written_version(&self) -> &str {
        self.server.rsplit(' ').next().unwrap_or_default()
    }

    fn to_text(&self) -> String {
        let mut out = format!("# {}, {HEAD}\n", self.server);
        for Described { name, arity, flags, categories, container: _, keys, since } in &self.commands {
            let (flags, categories) = (listed(flags), listed(categories));
            let since = since.as_deref().unwrap_or("-");
            writeln!(out, "{name} {arity} {flags} {categories} {} {since}", keys_text(keys))
                .expect("a String can be written to");
        }
        out
    }

    fn of_text(text: &str) -> Result<Captured> {
        let (head, lines) = text.split_once('\n').ok_or("an empty file")?;
        let server = head.trim_start_matches("# ").split(',').next().unwrap_or_default().to_owned();
        let mut commands = lines.lines().map(line).collect::<Result<Vec<_>>>()?;
        let names: Vec<String> = commands.iter().map(|c| c.name.clone()).collect();
        for command in &mut commands {
            command.container = names.iter().any(|name| name.starts_with(&format!("{}|", command.name)));
        }
        Ok(Captured { server, commands })
    }
}

fn line(text: &str) -> Result<Described> {
    let fields: Vec<&str> = text.split(' ').collect();
    let [name, arity, flags, categories, keys, since] = fields[..] else {
        return Err(format!("not six fields: {text}").into());
    };
    Ok(Described {
        name: name.into(),
        arity: arity.parse()?,
        flags: list(flags),
        categories: list(categories),
        container: false,
        keys: keys_of(keys)?,
        since: (since != "-").then(|| since.into()),
    })
}

fn listed(words: &[String]) -> String {
    if words.is_empty() { "-".into() } else { words.join(",") }
}

fn list(text: &str) -> Vec<String> {
    if text == "-" { vec![] } else { text.split(',').map(Into::into).collect() }
}

/// `1..+0/1`, `STREAMS@1..-1/1%2`, `2#0+1/1`; several are separated by `;`. `?`: it cannot be said so.
fn keys_text(keys: &DescribedKeys) -> String {
    let DescribedKeys::Specs(specs) = keys else { return "?".into() };
    let spec = |spec: &KeySpec| {
        let begin = match spec.begin {
            Begin::At(at) => at.to_string(),
            Begin::After { word, from } => format!("{word}@{from}"),
        };
        match spec.find {
            Find::Range { last, step, limit } => format!("{begin}..{last}/{step}%{limit}"),
            Find::Counted { count, first, step } => format!("{begin}#{count}+{first}/{step}"),
        }
    };
    if specs.is_empty() { "-".into() } else { specs.iter().map(spec).collect::<Vec<_>>().join(";") }
}

fn keys_of(text: &str) -> Result<DescribedKeys> {
    match text {
        "?" => Ok(DescribedKeys::Incomplete),
        "-" => Ok(DescribedKeys::Specs(vec![])),
        specs => Ok(DescribedKeys::Specs(specs.split(';').map(key_spec).collect::<Result<_>>()?)),
    }
}

fn key_spec(text: &str) -> Result<KeySpec> {
    let odd = || format!("not a key specification: {text}");
    let (begin, find) = match (text.split_once(".."), text.split_once('#')) {
        (Some((begin, range)), _) => {
            let (last, rest) = range.split_once('/').ok_or_else(odd)?;
            let (step, limit) = rest.split_once('%').ok_or_else(odd)?;
            (begin, Find::Range { last: last.parse()?, step: step.parse()?, limit: limit.parse()? })
        }
        (None, Some((begin, counted))) => {
            let (count, rest) = counted.split_once('+').ok_or_else(odd)?;
            let (first, step) = rest.split_once('/').ok_or_else(odd)?;
            (begin, Find::Counted { count: count.parse()?, first: first.parse()?, step: step.parse()? })
        }
        (None, None) => return Err(odd().into()),
    };
    let begin = match begin.split_once('@') {
        Some((word, from)) => Begin::After { word: word.to_owned().leak(), from: from.parse()? },
        None => Begin::At(begin.parse()?),
    };
    Ok(KeySpec { begin, find })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_said() {
        let captured = all().unwrap();
        assert!(captured.len() >= 5);
        for captured in captured {
            assert!(captured.commands.len() > 200, "{}", captured.server);
            assert_eq!(Captured::of_text(&captured.to_text()).unwrap(), captured, "{}", captured.server);
        }
    }
}
