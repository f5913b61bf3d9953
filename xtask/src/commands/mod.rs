//! The command table of `pointsman-core`, and the page that shows it.
//!
//! `server` asks a real server what its commands are, `captured` keeps what servers said, `merged` makes one description of
//! all, `judge` adds what servers do not say, and `render` writes the table as Rust and as Markdown.
mod captured;
mod judge;
mod merged;
mod render;
mod server;

use captured::Captured;
use pointsman_core::command::{Entry, all};
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
    flags: Vec<String>,
    /// ACL categories, with their `@`.
    categories: Vec<String>,
    container: bool,
    keys: DescribedKeys,
    /// The version in which it came, if the server says that.
    since: Option<String>,
}

impl Described {
    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    /// Redis 6.2 says it by the category alone.
    fn blocks(&self) -> bool {
        self.has("blocking") || self.categories.iter().any(|c| c == "@blocking")
    }

    fn effect(&self) -> Effect {
        match (self.has("write"), self.has("readonly")) {
            (true, _) => Effect::Writes,
            (false, true) => Effect::Reads,
            (false, false) => Effect::Unsaid,
        }
    }
}

/// Its flag `write` or `readonly`, if any.
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

/// A command of the table, and since when servers have it.
struct Row {
    entry: Entry,
    since: String,
}

/// Asks a server, and keeps what it says.
pub(crate) fn capture(program: &str) -> Result<String> {
    Ok(format!("{}; now run `cargo run -p xtask -- commands`", captured::capture(program)?.display()))
}

/// Writes the table and the page.
pub(crate) fn write() -> Result<String> {
    let (rows, from) = generate()?;
    fs::write(table_path(), render::table(&rows, &from))?;
    fs::write(page_path(), render::page(&rows, &from))?;
    Ok(format!("{} commands and subcommands, from {from}", rows.len()))
}

/// Fails if the table or the page is not what the captured servers give.
pub(crate) fn check() -> Result<String> {
    let (rows, from) = generate()?;
    same(&table_path(), &render::table(&rows, &from))?;
    same(&page_path(), &render::page(&rows, &from))?;
    Ok(format!("the command table and its page are what {from} give"))
}

/// Says where a server's commands differ from the table.
pub(crate) fn compare(program: &str) -> Result<String> {
    let server = Server::start(program)?;
    let server = Captured { server: server.version()?, commands: server.commands()? };
    let mut said = format!("compared with {}\n", server.server);
    for theirs in &server.commands {
        match all().iter().find(|ours| ours.name == theirs.name) {
            None => writeln!(said, "unknown: {theirs:?}")?,
            Some(ours) => {
                difference(&server, ours, theirs).into_iter().try_for_each(|d| writeln!(said, "{d}"))?
            }
        }
    }
    Ok(said)
}

/// Where a server contradicts the table: its flags, its keys, or an arity that takes more.
fn difference(server: &Captured, ours: &Entry, theirs: &Described) -> Option<String> {
    // Redis 6.2 knows nothing of subcommands: their containers have their flags.
    if ours.container && !theirs.container {
        return None;
    }
    let judged = match judge::entry(theirs.clone()) {
        Ok(judged) => judged,
        Err(error) => return Some(format!("{}: {}: {error}", server.server, ours.name)),
    };
    let laxest = judge::laxer(ours.arity, theirs.arity) == ours.arity;
    // Redis 6.2 names the first key, the last and the step, and no more; others may not be able to say it either.
    let says_keys = theirs.keys != DescribedKeys::Incomplete && !server.server.starts_with("redis 6.2");
    let keys = if says_keys { judged.keys } else { ours.keys };
    let same = Entry { arity: ours.arity, keys, ..judged } == *ours && laxest;
    (!same).then(|| format!("{}: {ours:?}\n    is {judged:?}", server.server))
}

/// The entries, and the servers that they are from.
fn generate() -> Result<(Vec<Row>, String)> {
    let captured = captured::all()?;
    let row = |described: Described| {
        let since = described.since.clone().unwrap_or_default();
        Ok(Row { entry: judge::entry(described)?, since })
    };
    let mut rows = merged::all(&captured).into_iter().map(row).collect::<Result<Vec<_>>>()?;
    rows.sort_by_key(|row| row.entry.name);
    judge::names_are_all_known(&rows)?;
    Ok((rows, captured.iter().map(|c| &*c.server).collect::<Vec<_>>().join(", ")))
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
    use pointsman_core::Now;
    use pointsman_core::command::{Access, Act, KeysError, Lookup, keys, lookup};
    use pointsman_core::learned::{Answer, Learned};
    use std::collections::BTreeSet;

    fn find(name: &str, sub: Option<&str>) -> Lookup {
        lookup(name.as_bytes(), sub.map(str::as_bytes))
    }

    /// The installed server, or another one.
    fn program() -> String {
        let installed =
            || if Path::new("/usr/bin/redis-server").exists() { "redis-server" } else { "valkey-server" };
        std::env::var("POINTSMAN_SERVER").unwrap_or_else(|_| installed().into())
    }

    #[test]
    fn the_table_and_its_page_are_what_the_captured_servers_give() {
        check().unwrap();
    }

    #[test]
    fn no_captured_server_contradicts_the_table() {
        let mut wrong = Vec::new();
        for server in captured::all().unwrap() {
            for theirs in &server.commands {
                let ours = all().iter().find(|ours| ours.name == theirs.name).expect("the table has all");
                wrong.extend(difference(&server, ours, theirs));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn nor_does_the_installed_server() {
        let said = compare(&program()).unwrap();
        let (head, rest) = said.split_once('\n').unwrap();
        println!("{head}");
        assert!(rest.is_empty(), "{said}");
    }

    #[test]
    fn each_command_of_the_server_is_found_in_any_case() {
        let commands = Server::start(&program()).unwrap().commands().unwrap();
        assert!(commands.len() > 200);
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
            }
        }
    }

    /// The entry that a command would get by what its server says.
    fn as_if_unknown(command: &Described) -> &'static Entry {
        let list = |words: &[String]| {
            let lines: String = words.iter().map(|word| format!("+{word}\r\n")).collect();
            format!("*{}\r\n{lines}", words.len())
        };
        let Described { name, flags, categories, .. } = command;
        let (flags, categories) = (list(flags), list(categories));
        let reply =
            format!("*1\r\n*7\r\n${}\r\n{name}\r\n:-1\r\n{flags}:0\r\n:0\r\n:0\r\n{categories}", name.len());
        let mut learned = Learned::default();
        learned.learn(Now::ZERO, name.as_bytes(), reply.as_bytes());
        match learned.get(Now::ZERO, name.as_bytes(), None) {
            Answer::Is(entry) => entry,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn what_servers_say_of_their_commands_is_enough_to_treat_those_that_the_table_does_not_have() {
        // As if the newest server's commands were unknown: none may get a laxer treatment than the table's.
        let server = captured::all().unwrap().pop().unwrap();
        for command in server.commands.iter().filter(|c| !c.name.contains('|') && !c.container) {
            let Lookup::Known(entry) = find(&command.name, None) else { panic!("{}", command.name) };
            let treated = as_if_unknown(command);
            let harmless = matches!(entry.act, Act::None | Act::Script | Act::Block | Act::BlockIfAsked);
            assert!(harmless || treated.act != Act::Own, "{}: {treated:?}", command.name);
            if treated.access == Access::Read && entry.access != Access::Read {
                assert_eq!(entry.name, "PFCOUNT", "it stores what it counted, and does not say so");
            }
        }
    }

    #[test]
    fn keys_are_where_the_server_finds_them() {
        let server = Server::start(&program()).unwrap();
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
            let ours: std::result::Result<BTreeSet<&str>, KeysError> =
                keys(entry, request.len(), request.iter().map(|arg| arg.as_bytes()))
                    .map(|positions| positions.map(|at| request[at]).collect());
            let known = server.ask(&["COMMAND", "INFO", request[0]]).unwrap().list().unwrap();
            if known == [Value::Nil] {
                assert!(server.version().unwrap().starts_with("redis 6"), "{request:?} is known since 7.0");
                continue;
            }
            let theirs = server.ask(&[&["COMMAND", "GETKEYS"], *request].concat()).unwrap();
            // In an order of its own: Redis 6.2 says some destinations last.
            let theirs: Vec<String> =
                theirs.list().unwrap().into_iter().map(|key| key.text().unwrap()).collect();
            assert_eq!(ours.unwrap(), theirs.iter().map(String::as_str).collect(), "{request:?}");
        }
    }

    #[test]
    fn the_server_hangs_up_on_what_the_table_says_it_does() {
        let server = Server::start(&program()).unwrap();
        for name in ["POST", "post", "Host:"] {
            assert!(matches!(find(name, None), Lookup::Known(Entry { act: Act::Hangup, .. })), "{name}");
            assert!(server.ask(&[name]).is_err(), "{name}");
        }
        assert!(matches!(server.ask(&["Host"]).unwrap(), Value::Error(_)));
    }
}
