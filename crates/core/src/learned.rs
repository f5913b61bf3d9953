//! What servers say of commands that the table does not have: those of modules, of newer servers, and those that somebody
//! renamed. They are asked once for each (`COMMAND INFO`); what they say is kept as long as the master is the same.
//!
//! What is not understood is treated in the safest way: it gets a connection of its own, which its session keeps.
use crate::Now;
use crate::command::{Access, Act, Entry, Idempotent, Keys, Lookup, lookup};
use crate::resp::frame::{Element, Elements, Request, children};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

/// The longest name that a server is asked about.
pub const NAME_MAX: usize = 64;
/// Most commands of a server that are kept; what is learnt beyond is not, and stays unknown.
const KNOWN_MAX: usize = 4096;
/// Most names that are kept for a while because the server knows no such command, or does not say. Clients can make them up.
const UNKNOWN_MAX: usize = 256;
/// So long they are not asked about again.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// The name under which a server is asked about a request's command: in upper case, a subcommand as `CLIENT|ID`. `None`:
/// no command has such a name.
pub fn name_of(req: Request<'_>) -> Option<Box<[u8]>> {
    let mut args = req.args();
    let (command, sub) = (args.next()?, args.next());
    let mut name = command.to_ascii_uppercase();
    if let (Lookup::UnknownSubcommand(_), Some(sub)) = (lookup(command, sub), sub) {
        name.push(b'|');
        name.extend(sub.to_ascii_uppercase());
    }
    (1..=NAME_MAX).contains(&name.len()).then(|| name.into())
}

/// What is known of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is treated as this entry says.
    Is(&'static Entry),
    /// The server does not know it, or does not say: it may do anything.
    Unknown,
    /// The server is to be asked.
    NotAsked,
}

/// The commands of one master that were asked about.
#[derive(Debug, Default)]
pub struct Learned {
    known: BTreeMap<Box<[u8]>, &'static Entry>,
    /// Until when they are not asked about again.
    unknown: BTreeMap<Box<[u8]>, Now>,
}

impl Learned {
    /// What is known of the command `name`, in a request with this first argument.
    pub fn get(&self, now: Now, name: &[u8], first_arg: Option<&[u8]>) -> Answer {
        match self.known.get(name) {
            Some(entry) if entry.container => match lookup(entry.name.as_bytes(), first_arg) {
                Lookup::Known(entry) => Answer::Is(as_alias(entry)),
                _ => Answer::Is(&PASSES),
            },
            Some(entry) => Answer::Is(entry),
            None if self.unknown.get(name).is_some_and(|until| now < *until) => Answer::Unknown,
            None => Answer::NotAsked,
        }
    }

    /// The server's reply to `COMMAND INFO name`, in RESP2.
    pub fn learn(&mut self, now: Now, name: &[u8], reply: &[u8]) {
        match judge(name, reply) {
            Some(entry) if self.known.len() < KNOWN_MAX => {
                self.unknown.remove(name);
                self.known.insert(name.into(), entry);
            }
            _ => self.give_up(now, name),
        }
    }

    /// The server cannot be asked about a name now.
    pub fn give_up(&mut self, now: Now, name: &[u8]) {
        if self.unknown.len() >= UNKNOWN_MAX {
            self.unknown.clear();
        }
        self.unknown.insert(name.into(), now + UNKNOWN_FOR);
    }

    /// Another server may be the master now, or the same one started anew: with other modules, other names.
    pub fn clear(&mut self) {
        *self = Learned::default();
    }

    /// How many names are kept.
    pub fn len(&self) -> usize {
        self.known.len() + self.unknown.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether an error proves that an unknown command has left its connection as it was: it was rejected before it began
/// (`processCommand`).
pub fn was_rejected(error: &[u8]) -> bool {
    [&b"-ERR unknown command"[..], b"-ERR unknown subcommand", b"-NOAUTH ", b"-NOPERM "]
        .iter()
        .any(|prefix| error.starts_with(prefix))
}

const fn entry_for(access: Access, act: Act) -> Entry {
    Entry {
        name: "",
        access,
        resend: false,
        proves: false,
        idempotent: Idempotent::No,
        container: false,
        act,
        refused: false,
        arity: -1,
        keys: Keys::Unknown,
    }
}

/// It reads, or writes, and says that it does nothing else.
static READS: Entry = entry_for(Access::Read, Act::Own);
static WRITES: Entry = entry_for(Access::Write, Act::Own);
/// It says nothing of that kind: its session keeps the connection.
static BINDS: Entry = entry_for(Access::Write, Act::Bind);
/// Its replies cannot be counted, either.
static PASSES: Entry = entry_for(Access::Write, Act::Relay);

/// How a command is treated that the server describes so; `None`: it knows none of that name, or does not say.
fn judge(name: &[u8], reply: &[u8]) -> Option<&'static Entry> {
    let info = children(reply).next().filter(|_| reply.first() == Some(&b'*'))?;
    let own = word(children(info).next()?)?;
    if !own.eq_ignore_ascii_case(name) {
        // It answers with its own name to another one: somebody renamed it.
        let (command, sub) = match own.iter().position(|b| *b == b'|') {
            Some(bar) => (&own[..bar], Some(&own[bar + 1..])),
            None => (own, None),
        };
        return Some(match lookup(command, sub) {
            Lookup::Known(entry) if entry.container => entry,
            Lookup::Known(entry) => as_alias(entry),
            _ => &PASSES,
        });
    }
    Some(match weight(info) {
        Weight::Reads => &READS,
        Weight::Writes => &WRITES,
        Weight::Binds => &BINDS,
        Weight::Streams => &PASSES,
    })
}

/// A command of the table by another name: as the table says, if nothing of what we would say ourselves needs its name.
fn as_alias(entry: &'static Entry) -> &'static Entry {
    let plain = matches!(entry.act, Act::None | Act::Block | Act::BlockIfAsked);
    if plain || entry.refused { entry } else { &PASSES }
}

/// What a command may do at worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Weight {
    Reads,
    Writes,
    Binds,
    Streams,
}

/// By its flags and categories, and those of its subcommands: name, arity, flags, first key, last key, step, ACL
/// categories, and since Redis 7 tips, key specifications and subcommands (`addReplyCommandInfo` in `server.c`).
fn weight(info: &[u8]) -> Weight {
    let mut fields = children(info).skip(2);
    let (flags, categories) = (words(fields.next()), words(fields.nth(3)));
    let subcommands = fields.nth(2).into_iter().flat_map(children);
    let has = |list: &[&[u8]], any: &[&str]| list.iter().any(|w| any.iter().any(|a| a.as_bytes() == *w));
    // What belongs to a module changes no connection but by mistake, whatever else it is.
    let odd = !has(&flags, &["module"]) && has(&flags, &["noscript", "admin"])
        || has(&categories, &["@connection", "@transaction"]);
    let own = match () {
        () if has(&flags, &["pubsub"]) => Weight::Streams,
        () if odd => Weight::Binds,
        () if has(&flags, &["write"]) => Weight::Writes,
        () if has(&flags, &["readonly"]) => Weight::Reads,
        () => Weight::Binds,
    };
    // A container does nothing by itself.
    subcommands.map(weight).max().unwrap_or(own)
}

fn words(list: Option<&[u8]>) -> Vec<&[u8]> {
    list.into_iter().flat_map(children).filter_map(word).collect()
}

fn word(frame: &[u8]) -> Option<&[u8]> {
    match Elements::of(frame).next()? {
        Element::Bulk(text) | Element::Line(b'+', text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    fn list(items: &[&str]) -> String {
        items.iter().fold(format!("*{}\r\n", items.len()), |out, i| out + "+" + i + "\r\n")
    }

    /// One element of the reply, as Redis 7 gives it.
    fn described(name: &str, flags: &[&str], categories: &[&str], subs: &[String]) -> String {
        let subs = subs.iter().fold(format!("*{}\r\n", subs.len()), |out, s| out + s);
        let (flags, categories) = (list(flags), list(categories));
        format!(
            "*10\r\n${}\r\n{name}\r\n:-2\r\n{flags}:1\r\n:1\r\n:1\r\n{categories}*0\r\n*0\r\n{subs}",
            name.len()
        )
    }

    fn of(asked: &str, described: &str) -> Answer {
        let mut learned = Learned::default();
        learned.learn(Now::ZERO, asked.as_bytes(), format!("*1\r\n{described}").as_bytes());
        learned.get(Now::ZERO, asked.as_bytes(), Some(b"GET"))
    }

    fn named(text: &str) -> Option<String> {
        let mut bytes = Vec::new();
        crate::resp::reply::request(&mut bytes, &text.split(' ').collect::<Vec<_>>());
        name_of(Request::new(&bytes)).map(|name| String::from_utf8_lossy(&name).into_owned())
    }

    #[test]
    fn a_module_s_command_is_what_its_flags_say() {
        let module = |flags: &[&str]| of("JSON.GET", &described("JSON.GET", flags, &[], &[]));
        assert_eq!(module(&["readonly", "module"]), Answer::Is(&READS));
        assert_eq!(module(&["write", "denyoom", "module", "noscript"]), Answer::Is(&WRITES));
        assert_eq!(module(&["module", "fast"]), Answer::Is(&BINDS), "it does not say");
    }

    #[test]
    fn what_may_change_a_connection_keeps_it() {
        let new = |flags: &[&str], categories: &[&str]| of("NEW", &described("new", flags, categories, &[]));
        assert_eq!(new(&["readonly", "fast"], &["@read"]), Answer::Is(&READS));
        assert_eq!(new(&["readonly", "noscript"], &[]), Answer::Is(&BINDS));
        assert_eq!(new(&["write"], &["@connection"]), Answer::Is(&BINDS));
        assert_eq!(new(&["pubsub", "readonly"], &[]), Answer::Is(&PASSES));
    }

    #[test]
    fn a_container_is_as_its_worst_subcommand() {
        let sub = |flags: &[&str]| described("new|x", flags, &[], &[]);
        let new = |subs: &[String]| of("NEW", &described("new", &[], &[], subs));
        assert_eq!(new(&[sub(&["readonly"])]), Answer::Is(&READS));
        assert_eq!(new(&[sub(&["readonly"]), sub(&["write"])]), Answer::Is(&WRITES));
        assert_eq!(new(&[sub(&["write"]), sub(&["admin"])]), Answer::Is(&BINDS));
    }

    #[test]
    fn a_renamed_command_is_what_it_was_called() {
        let renamed = |own: &str| match of("MINE", &described(own, &["readonly"], &[], &[])) {
            Answer::Is(entry) => (entry.name, entry.act),
            other => panic!("{other:?}"),
        };
        assert_eq!(renamed("get"), ("GET", Act::None));
        assert_eq!(renamed("blpop"), ("BLPOP", Act::Block));
        assert_eq!(renamed("shutdown"), ("SHUTDOWN", Act::None), "to be refused");
        assert_eq!(renamed("config"), ("CONFIG|GET", Act::None), "its first argument says which");
        assert_eq!(renamed("acl"), ("", Act::Relay), "there is no ACL GET");
        assert_eq!(renamed("multi"), ("", Act::Relay));
        assert_eq!(renamed("module.x"), ("", Act::Relay));
    }

    #[test]
    fn what_the_server_does_not_know_or_say_is_unknown_for_a_while() {
        for reply in ["*1\r\n*-1\r\n", "*1\r\n$-1\r\n", "-NOPERM no\r\n", "*0\r\n", "+OK\r\n"] {
            let mut learned = Learned::default();
            assert_eq!(learned.get(Now::ZERO, b"X", None), Answer::NotAsked);
            learned.learn(Now::ZERO, b"X", reply.as_bytes());
            assert_eq!(learned.get(Now::ZERO, b"X", None), Answer::Unknown, "{reply}");
            assert_eq!(learned.get(Now::ZERO + UNKNOWN_FOR, b"X", None), Answer::NotAsked);
        }
    }

    #[test]
    fn names_that_clients_make_up_push_out_nothing_and_fill_nothing() {
        let mut learned = Learned::default();
        let known = format!("*1\r\n{}", described("known", &["readonly"], &[], &[]));
        learned.learn(Now::ZERO, b"KNOWN", known.as_bytes());
        for n in 0..10 * UNKNOWN_MAX {
            learned.learn(Now::ZERO, format!("X{n}").as_bytes(), b"*1\r\n*-1\r\n");
            assert!(learned.len() <= UNKNOWN_MAX + 1);
        }
        assert_eq!(learned.get(Now::ZERO, b"KNOWN", None), Answer::Is(&READS));
        assert_eq!(named(&"x".repeat(NAME_MAX + 1)), None);
    }

    #[test]
    fn only_subcommands_of_the_table_s_containers_are_named_with_them() {
        assert_eq!(named("json.get k").as_deref(), Some("JSON.GET"));
        assert_eq!(named("client nosuch").as_deref(), Some("CLIENT|NOSUCH"));
        assert_eq!(named("client").as_deref(), Some("CLIENT"));
    }

    #[test]
    fn a_rejected_command_has_changed_nothing() {
        assert!(was_rejected(b"-ERR unknown command 'X', with args beginning with: \r\n"));
        assert!(was_rejected(b"-NOPERM User u has no permissions\r\n"));
        assert!(!was_rejected(b"-ERR syntax error\r\n") && !was_rejected(b"+OK\r\n"));
    }
}
