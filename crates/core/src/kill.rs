//! `CLIENT KILL`, said of Pointsman's sessions: which of them it means. The server is asked too, in a form that can match
//! no connection of its own: its ACL decides whether the user may kill, and its words are the answer to what it cannot
//! read. (`clientCommand` in `networking.c` of Redis, `parseClientFilters` of Valkey.)
use crate::resp::frame::Request;
use crate::resp::{parse_i64, reply};
use crate::session::Session;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// No connection has this id: a server counts them from 1.
const NOBODY: &[u8] = b"9223372036854775807";

/// Which sessions are to be killed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kill {
    /// `CLIENT KILL ip:port`: it is answered with `+OK` or an error, and spares nobody.
    pub old_form: bool,
    /// The session that says it is spared.
    pub skips_me: bool,
    filters: Vec<(bool, Filter)>,
    /// A filter that the server may know and Pointsman does not.
    pub unknown: Option<Box<[u8]>>,
}

/// What a session must be, or must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Filter {
    Id(Vec<u64>),
    Addr(Box<[u8]>),
    Laddr(Box<[u8]>),
    User(Box<[u8]>),
    Type(Box<[u8]>),
    Name(Box<[u8]>),
    LibName(Box<[u8]>),
    LibVer(Box<[u8]>),
    Db(u64),
    /// At least so many seconds old.
    MaxAge(u64),
    /// Idle for at least so many seconds.
    Idle(u64),
}

/// What filters look at.
pub struct Seen<'a> {
    /// The session.
    pub session: &'a Session,
    /// For how long it is connected, in seconds.
    pub age: u64,
    /// For how long it has said nothing, in seconds.
    pub idle: u64,
}

impl Kill {
    /// What a request means, as far as a server would take it. Of what a server refuses only that matters.
    pub fn of(req: Request<'_>) -> Kill {
        let args: Vec<&[u8]> = req.args().skip(2).collect();
        let mut kill = Kill { old_form: args.len() == 1, skips_me: true, filters: Vec::new(), unknown: None };
        if kill.old_form {
            kill.skips_me = false;
            kill.filters.push((true, Filter::Addr(args[0].into())));
            return kill;
        }
        let mut rest = &args[..];
        while let [word, more @ ..] = rest {
            rest = kill.take(word, more).unwrap_or_else(|| {
                kill.unknown.get_or_insert((*word).into());
                more.get(1..).unwrap_or_default()
            });
        }
        kill
    }

    /// Takes an option and its values; what follows them, or `None` if it is not known.
    fn take<'a, 'b>(&mut self, word: &[u8], more: &'b [&'a [u8]]) -> Option<&'b [&'a [u8]]> {
        let upper = word.to_ascii_uppercase();
        let (value, after) = more.split_first()?;
        let number = || parse_i64(value).and_then(|n| u64::try_from(n).ok());
        if upper == b"SKIPME" {
            self.skips_me = !value.eq_ignore_ascii_case(b"no");
            return Some(after);
        }
        let (is, name) = match upper.strip_prefix(b"NOT-") {
            Some(name) => (false, name),
            None => (true, &upper[..]),
        };
        let own = || Box::from(*value);
        let filter = match name {
            b"ID" => {
                let ids: Vec<u64> = more.iter().map_while(|v| id(v)).collect();
                let after = &more[ids.len().max(1)..];
                self.filters.push((is, Filter::Id(ids)));
                return Some(after);
            }
            b"ADDR" => Filter::Addr(own()),
            b"LADDR" => Filter::Laddr(own()),
            b"USER" => Filter::User(own()),
            b"TYPE" => Filter::Type(value.to_ascii_lowercase().into()),
            b"NAME" => Filter::Name(own()),
            b"LIB-NAME" => Filter::LibName(own()),
            b"LIB-VER" => Filter::LibVer(own()),
            b"DB" => Filter::Db(number()?),
            b"MAXAGE" => Filter::MaxAge(number()?),
            b"IDLE" => Filter::Idle(number()?),
            _ => return None,
        };
        self.filters.push((is, filter));
        Some(after)
    }

    /// Whether it means this session.
    pub fn means(&self, seen: &Seen<'_>) -> bool {
        self.filters.iter().all(|(is, filter)| filter.fits(seen) == *is)
    }
}

impl Filter {
    fn fits(&self, seen: &Seen<'_>) -> bool {
        let s = seen.session;
        let names = s.names.as_deref();
        match self {
            Filter::Id(ids) => ids.contains(&s.id),
            Filter::Addr(addr) => s.ends.peer().as_bytes() == &**addr,
            Filter::Laddr(addr) => s.ends.local().as_bytes() == &**addr,
            Filter::User(user) => s.user() == &**user,
            // There are no replicas among clients, and no master.
            Filter::Type(kind) => &**kind == if s.subs.is_some() { &b"pubsub"[..] } else { b"normal" },
            Filter::Name(name) => names.map_or(&b""[..], |n| &n.name) == &**name,
            Filter::LibName(name) => names.map_or(&b""[..], |n| &n.lib_name) == &**name,
            Filter::LibVer(ver) => names.map_or(&b""[..], |n| &n.lib_ver) == &**ver,
            Filter::Db(db) => u64::from(s.db) == *db,
            Filter::MaxAge(least) => seen.age >= *least,
            Filter::Idle(least) => seen.idle >= *least,
        }
    }
}

/// The request that asks a server whether this user may kill, and whether it can be read, and can kill nobody.
pub fn harmless(req: Request<'_>) -> Vec<u8> {
    let args: Vec<&[u8]> = req.args().collect();
    // A lone address is in the old form, which says no more than that.
    let said = if args.len() == 3 { 2 } else { args.len() };
    let mut words: Vec<&[u8]> = args[..2].to_vec();
    let (mut names_ids, mut has_id) = (false, false);
    for word in &args[2..said] {
        let is_id = names_ids && id(word).is_some();
        words.push(if is_id { NOBODY } else { word });
        has_id |= is_id;
        names_ids = is_id || word.eq_ignore_ascii_case(b"ID");
    }
    if !has_id {
        words.extend([&b"ID"[..], NOBODY]);
    }
    let mut bytes = Vec::new();
    reply::request(&mut bytes, &words);
    bytes
}

/// What a server takes for the id of a client.
fn id(value: &[u8]) -> Option<u64> {
    parse_i64(value).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Credential;
    use crate::session::{Ends, Ident};
    use alloc::string::{String, ToString};
    use core::net::{IpAddr, Ipv4Addr};

    fn request(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        reply::request(&mut bytes, &text.split(' ').collect::<Vec<_>>());
        bytes
    }

    fn kill(text: &str) -> Kill {
        Kill::of(Request::new(&request(text)))
    }

    fn asked(text: &str) -> String {
        let bytes = harmless(Request::new(&request(text)));
        let words: Vec<_> =
            Request::new(&bytes).args().map(|a| String::from_utf8_lossy(a).to_string()).collect();
        words.join(" ")
    }

    fn session() -> Session {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut s = Session { id: 7, db: 3, ..Session::default() };
        s.ends = Ends::Tcp { peer: (here, 5), local: (here, 6) };
        let (user, secret) = (Some(b"alice"[..].into()), b"x"[..].into());
        s.ident = Some(Ident::new(Credential { user, secret }));
        s.names_mut().name = b"me"[..].into();
        s
    }

    fn means(text: &str) -> bool {
        let seen = Seen { session: &session(), age: 60, idle: 10 };
        kill(text).means(&seen)
    }

    #[test]
    fn it_means_whom_the_filters_name() {
        for yes in [
            "CLIENT KILL 127.0.0.1:5",
            "client kill id 7",
            "CLIENT KILL ID 1 7 9 SKIPME no",
            "CLIENT KILL ADDR 127.0.0.1:5 LADDR 127.0.0.1:6 USER alice TYPE NORMAL",
            "CLIENT KILL MAXAGE 60 SKIPME yes",
            "CLIENT KILL NOT-ID 1 2 NAME me",
            "CLIENT KILL DB 3 IDLE 10 NOT-TYPE pubsub",
            "CLIENT KILL SKIPME yes",
        ] {
            assert!(means(yes), "{yes}");
            assert_eq!(kill(yes).unknown, None, "{yes}");
        }
        for no in [
            "CLIENT KILL 127.0.0.1:6",
            "CLIENT KILL ID 8",
            "CLIENT KILL ID 7 USER bob",
            "CLIENT KILL TYPE pubsub",
            "CLIENT KILL TYPE replica",
            "CLIENT KILL MAXAGE 61",
            "CLIENT KILL NOT-ID 7",
            "CLIENT KILL NAME you",
        ] {
            assert!(!means(no), "{no}");
        }
    }

    #[test]
    fn the_old_form_spares_nobody() {
        let old = kill("CLIENT KILL 127.0.0.1:5");
        assert!(old.old_form && !old.skips_me);
        let new = kill("CLIENT KILL ADDR 127.0.0.1:5");
        assert!(!new.old_form && new.skips_me);
        assert!(!kill("CLIENT KILL ADDR 127.0.0.1:5 SKIPME No").skips_me);
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert_eq!(kill("CLIENT KILL FLAGS x ID 7").unknown.as_deref(), Some(&b"FLAGS"[..]));
        assert_eq!(kill("CLIENT KILL ID 7 not-capa x").unknown.as_deref(), Some(&b"not-capa"[..]));
    }

    #[test]
    fn a_server_is_asked_what_it_cannot_do_to_anybody() {
        const NOBODY: &str = "9223372036854775807";
        let ids = |text: &str| text.replace('_', NOBODY);
        for (said, sent) in [
            ("CLIENT KILL 127.0.0.1:5", "CLIENT KILL ID _"),
            ("CLIENT KILL ID 7", "CLIENT KILL ID _"),
            ("client kill id 7 8 SKIPME yes", "client kill id _ _ SKIPME yes"),
            ("CLIENT KILL USER bob", "CLIENT KILL USER bob ID _"),
            ("CLIENT KILL USER ID ID 5", "CLIENT KILL USER ID ID _"),
            ("CLIENT KILL ID x", "CLIENT KILL ID x ID _"),
            ("CLIENT KILL ID 0", "CLIENT KILL ID 0 ID _"),
            ("CLIENT KILL TYPE normal LADDR", "CLIENT KILL TYPE normal LADDR ID _"),
        ] {
            assert_eq!(asked(said), ids(sent), "{said}");
        }
    }
}
