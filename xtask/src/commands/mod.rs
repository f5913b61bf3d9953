//! The command table of `pointsman-core`, and the page that shows it.
//!
//! `server` asks a real server what its commands are, `newer` adds those of servers that are newer, `judge` adds what
//! servers do not say, and `render` writes the table as Rust and as Markdown.
mod judge;
mod newer;
mod render;
mod server;

use pointsman_core::command::{Entry, GENERATED_FROM, all};
use server::Server;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A command as a server describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Described {
    /// Upper-case; a subcommand is `CLIENT|ID`.
    name: String,
    arity: i32,
    /// Its flag `write` or `readonly`, if any.
    effect: Effect,
    blocking: bool,
    container: bool,
    keys: DescribedKeys,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effect {
    Writes,
    Reads,
    Unsaid,
}

/// What a server's key specifications say.
#[derive(Clone, PartialEq, Eq, Debug)]
enum DescribedKeys {
    Specs(Vec<pointsman_core::command::KeySpec>),
    /// A specification is `unknown` or `incomplete`: the server has code of its own for this command.
    Incomplete,
}

/// Writes the table and the page.
pub(crate) fn write() -> Result<String> {
    let (entries, from) = generate("redis-server")?;
    fs::write(table_path(), render::table(&entries, &from))?;
    fs::write(page_path(), render::page(&entries, &from))?;
    Ok(format!("{} commands and subcommands, from {from}", entries.len()))
}

/// Fails if the table or the page is not what the installed server gives.
pub(crate) fn check() -> Result<String> {
    let (entries, from) = generate("redis-server")?;
    if from != GENERATED_FROM {
        return Ok(format!(
            "not compared: the table is from {GENERATED_FROM}, the installed server is {from}"
        ));
    }
    same(&table_path(), &render::table(&entries, &from))?;
    same(&page_path(), &render::page(&entries, &from))?;
    Ok(format!("the command table and its page are what {from} gives"))
}

/// Says what the commands of another server change: for those who bring `newer` up to date.
pub(crate) fn compare(program: &str) -> Result<String> {
    let server = Server::start(program)?;
    let mut said = format!("compared with {}\n", server.version()?);
    for theirs in server.commands()? {
        match all().iter().find(|ours| ours.name == theirs.name) {
            None => writeln!(said, "unknown: {theirs:?}")?,
            Some(ours) => said.push_str(&differences(ours, theirs)?),
        }
    }
    Ok(said)
}

fn differences(ours: &Entry, theirs: Described) -> Result<String> {
    let lax = judge::laxer(ours.arity, theirs.arity) == ours.arity;
    let theirs =
        Entry { arity: ours.arity, ..judge::entry(Described { arity: theirs.arity, ..theirs.clone() })? };
    let mut said = String::new();
    if !lax {
        writeln!(said, "{}: takes requests that its arity {} does not fit", ours.name, ours.arity)?;
    }
    if *ours != theirs {
        writeln!(said, "differs: {ours:?}\n         {theirs:?}")?;
    }
    Ok(said)
}

/// The entries, and the server that they are from.
fn generate(program: &str) -> Result<(Vec<Entry>, String)> {
    let server = Server::start(program)?;
    let described = newer::add_to(server.commands()?);
    let mut entries = described.into_iter().map(judge::entry).collect::<Result<Vec<_>>>()?;
    entries.sort_by_key(|entry| entry.name);
    judge::names_are_all_known(&entries)?;
    Ok((entries, server.version()?))
}

fn same(path: &Path, expected: &str) -> Result<()> {
    if fs::read_to_string(path)? == expected {
        return Ok(());
    }
    Err(format!("{} is out of date: run `cargo run -p xtask -- commands`", path.display()).into())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn table_path() -> PathBuf {
    root().join("crates/core/src/command/table.rs")
}

fn page_path() -> PathBuf {
    root().join("docs/reference/commands.md")
}

#[cfg(test)]
mod tests {
    use super::server::Value;
    use super::*;
    use pointsman_core::command::{Access, Act, KeysError, Lookup, keys, lookup};

    fn find(name: &str, sub: Option<&str>) -> Lookup {
        lookup(name.as_bytes(), sub.map(str::as_bytes))
    }

    #[test]
    fn table_and_page_are_what_the_installed_server_gives() {
        let said = check().unwrap();
        println!("{said}");
    }

    #[test]
    fn table_and_page_agree() {
        same(&table_path(), &render::table(all(), GENERATED_FROM)).unwrap();
        same(&page_path(), &render::page(all(), GENERATED_FROM)).unwrap();
    }

    #[test]
    fn each_command_of_the_server_is_found_in_any_case_with_the_access_that_its_flags_say() {
        let commands = Server::start("redis-server").unwrap().commands().unwrap();
        assert!(commands.len() > 300);
        for command in commands {
            let upper = command.name.as_str();
            let lower = upper.to_ascii_lowercase();
            let mixed = upper[..1].to_owned() + &lower[1..];
            for name in [upper, &lower, &mixed] {
                let found = match name.split_once('|') {
                    Some((container, sub)) => find(container, Some(sub)),
                    None => find(name, None),
                };
                let Lookup::Known(entry) = found else { panic!("{name}: {found:?}") };
                assert_eq!(entry.name, upper);
                match command.effect {
                    Effect::Writes => assert_eq!(entry.access, Access::Write, "{name}"),
                    Effect::Reads if upper == "PFCOUNT" => assert_eq!(entry.access, Access::Write),
                    Effect::Reads => assert_eq!(entry.access, Access::Read, "{name}"),
                    Effect::Unsaid => assert!(!entry.resend || entry.access != Access::Write, "{name}"),
                }
                if command.blocking {
                    assert!(matches!(entry.act, Act::Block | Act::BlockIfAsked | Act::Wait), "{name}");
                }
            }
        }
    }

    #[test]
    fn keys_are_where_the_server_finds_them() {
        let server = Server::start("redis-server").unwrap();
        let requests: &[&[&str]] = &[
            &["GET", "a"],
            &["MSET", "a", "1", "b", "2"],
            &["DEL", "a", "b", "c"],
            &["EVAL", "s", "2", "a", "b", "c"],
            &["FCALL_RO", "f", "1", "a", "b"],
            &["BITOP", "AND", "d", "a", "b"],
            &["BLPOP", "a", "b", "0"],
            &["BLMPOP", "0", "2", "a", "b", "LEFT"],
            &["LCS", "a", "b", "LEN"],
            &["OBJECT", "ENCODING", "a"],
            &["XREAD", "COUNT", "1", "STREAMS", "a", "b", "0", "0"],
            &["XREADGROUP", "GROUP", "STREAMS", "c", "STREAMS", "a", ">"],
            &["ZUNIONSTORE", "d", "2", "a", "b", "WEIGHTS", "1", "2"],
            &["SINTERSTORE", "d", "a", "b"],
            &["GEORADIUS", "a", "0", "0", "1", "km", "STORE", "d"],
            &["GEORADIUS", "a", "0", "0", "1", "km"],
            &["SORT", "a", "BY", "STORE", "LIMIT", "0", "1", "STORE", "d", "STORE", "e"],
            &["SORT", "a", "GET", "#"],
            &["SORT_RO", "a"],
            &["MIGRATE", "h", "1", "a", "0", "5"],
            &["MIGRATE", "h", "1", "", "0", "5", "COPY", "AUTH", "KEYS", "KEYS", "a", "KEYS", "b"],
        ];
        for request in requests {
            let Lookup::Known(entry) = find(request[0], request.get(1).copied()) else {
                panic!("{request:?}")
            };
            let ours: std::result::Result<Vec<&str>, KeysError> =
                keys(entry, request.len(), request.iter().map(|arg| arg.as_bytes()))
                    .map(|positions| positions.map(|at| request[at]).collect());
            let theirs = server.ask(&[&["COMMAND", "GETKEYS"], *request].concat()).unwrap();
            let theirs: Vec<String> =
                theirs.list().unwrap().into_iter().map(|key| key.text().unwrap()).collect();
            assert_eq!(ours.unwrap(), theirs, "{request:?}");
        }
    }

    #[test]
    fn the_server_hangs_up_on_what_the_table_says_it_does() {
        let server = Server::start("redis-server").unwrap();
        for name in ["POST", "post", "Host:"] {
            assert!(matches!(find(name, None), Lookup::Known(Entry { act: Act::Hangup, .. })), "{name}");
            assert!(server.ask(&[name]).is_err(), "{name}");
        }
        assert!(matches!(server.ask(&["Host"]).unwrap(), Value::Error(_)));
    }
}
