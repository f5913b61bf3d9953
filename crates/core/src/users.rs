//! Users of a service itself: their clients authenticate to Pointsman instead of to the server, and act there as the
//! service's upstream user. Pure: what such a service says to `AUTH` and `HELLO`, and to who has not authenticated.
//!
//! Passwords are known by their SHA-256 alone, as Redis' ACL keeps them.
use crate::command::{Act, Entry};
use crate::resp::frame::Request;
use crate::resp::{Proto, parse_i64, reply};
use crate::route::Route;
use crate::session::{Session, Tx};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The SHA-256 of a password.
pub type Hash = [u8; 32];

/// Most passwords of one user: as many comparisons each attempt costs.
pub const PASSWORDS_MAX: usize = 16;
/// A longer password is wrong, whatever it is: who has not authenticated may not send it (`scan`), and to hash it costs time.
const PASSWORD_LEN_MAX: usize = 16 << 10;
/// The user of `AUTH password`.
const DEFAULT: &[u8] = b"default";

/// One user.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: Box<str>,
    /// Any of these passwords is right; none: whatever is given is.
    pub passwords: Box<[Hash]>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({}, {} passwords)", self.name, self.passwords.len())
    }
}

impl User {
    fn takes_all(&self) -> bool {
        self.passwords.is_empty()
    }
}

/// The users of one service, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Users(BTreeMap<Box<str>, Arc<User>>);

impl Users {
    /// These users, of whom no two have the same name. `None`: there are none, and clients authenticate to the server.
    pub fn new(users: Vec<User>) -> Option<Arc<Users>> {
        let by_name = |user: User| (user.name.clone(), Arc::new(user));
        (!users.is_empty()).then(|| Arc::new(Users(users.into_iter().map(by_name).collect())))
    }

    /// The user of that name.
    pub fn named(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.0.get(core::str::from_utf8(name).ok()?)
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|name| &**name)
    }

    /// Who a client is that has not authenticated: the user `default`, if it needs no password.
    pub fn newcomer(&self) -> Option<&Arc<User>> {
        self.named(DEFAULT).filter(|user| user.takes_all())
    }

    /// The user of that name, if the password is right. What it costs does not tell which of the two was wrong.
    fn check(&self, name: &[u8], password: &[u8]) -> Option<&Arc<User>> {
        let user = self.named(name);
        let known = user.map_or(&[][..], |user| &user.passwords);
        let given: Hash = match password.len() {
            0..=PASSWORD_LEN_MAX => Sha256::digest(password).into(),
            _ => Hash::default(),
        };
        let mut right = Choice::from(0);
        for i in 0..PASSWORDS_MAX {
            let (hash, counts) = known.get(i).map_or((&[0; 32], 0), |hash| (hash, 1));
            right |= hash.ct_eq(&given) & Choice::from(counts);
        }
        user.filter(|user| bool::from(right) || user.takes_all())
    }
}

/// What Pointsman itself does with a command of a service that has users; `None`: it goes where any other service's goes.
pub fn route<'a>(users: &Users, entry: Option<&Entry>, req: Request<'_>, s: &Session) -> Option<Route<'a>> {
    let refuse = |text: &[u8]| {
        let ends = entry.is_some_and(|e| e.act == Act::Exec);
        Some(Route::Refuse(if ends { reply::exec_rejected(text).into() } else { text.into() }))
    };
    let stranger = s.user.is_none();
    let Some(e) = entry else {
        // No server is asked what it is.
        return if stranger { refuse(reply::NOAUTH) } else { None };
    };
    match e.act {
        Act::Reset if stranger && !e.takes(req.args().count()) => return refuse(&reply::wrong_arity(e.name)),
        Act::Quit | Act::Reset | Act::Hangup => return None,
        Act::Auth | Act::Hello if stranger || authenticates(e, req) => {}
        _ if stranger => return refuse(reply::NOAUTH),
        _ => return None,
    }
    if let Some(text) = not_now(e, s) {
        return refuse(&text);
    }
    let said = if e.act == Act::Auth { Some(auth(users, e, req)) } else { hello(users, req, stranger) };
    said.map(|said| said.unwrap_or_else(|error| Route::Refuse(error.into())))
}

/// Why a session may not change its user now. In a transaction the reply would have to come from the server, which is not
/// asked.
fn not_now(e: &Entry, s: &Session) -> Option<Box<[u8]>> {
    let subscribed = s.proto == Proto::Resp2 && s.subs.as_ref().is_some_and(|subs| !subs.is_empty());
    match () {
        () if s.tx != Tx::None => Some(reply::NOT_IN_TX.into()),
        () if subscribed => Some(reply::subscribed(e.name).into()),
        () => None,
    }
}

/// A way, or an error.
type Said<'a> = Result<Route<'a>, Vec<u8>>;

/// `authCommand` in `acl.c`.
fn auth<'a>(users: &Users, e: &Entry, req: Request<'_>) -> Said<'a> {
    let args: Vec<&[u8]> = req.args().skip(1).take(3).collect();
    let user = match args[..] {
        [] => return Err(reply::wrong_arity(e.name)),
        [_] if users.newcomer().is_some() => return Err(reply::AUTH_WITHOUT_PASSWORD.into()),
        [password] => users.check(DEFAULT, password),
        [name, password] => users.check(name, password),
        _ => return Err(reply::SYNTAX.into()),
    };
    let user = user.ok_or(reply::WRONGPASS)?.clone();
    Ok(Route::SignIn { user, then: None })
}

/// `helloCommand` in `networking.c`, as far as it is about users; the server answers what is left. `None`: nothing of it is.
fn hello<'a>(users: &Users, req: Request<'_>, stranger: bool) -> Option<Said<'a>> {
    let parsed = match Hello::parse(req) {
        Err(error) => return Some(Err(error)),
        Ok(parsed) => parsed,
    };
    match parsed.auth {
        None if stranger => Some(Err(reply::HELLO_NOAUTH.into())),
        None => None,
        Some((name, password)) => Some(match users.check(name, password) {
            None => Err(reply::WRONGPASS.into()),
            Some(user) => {
                let mut rest = Vec::new();
                reply::request(&mut rest, &parsed.rest);
                Ok(Route::SignIn { user: user.clone(), then: Some(rest) })
            }
        }),
    }
}

/// A `HELLO` without mistakes.
struct Hello<'r> {
    /// User and password, if it authenticates.
    auth: Option<(&'r [u8], &'r [u8])>,
    /// What it says besides.
    rest: Vec<&'r [u8]>,
}

impl<'r> Hello<'r> {
    fn parse(req: Request<'r>) -> Result<Hello<'r>, Vec<u8>> {
        let args: Vec<&[u8]> = req.args().collect();
        let mut hello = Hello { auth: None, rest: args.iter().take(2).copied().collect() };
        match args.get(1).map(|version| parse_i64(version)) {
            None | Some(Some(2 | 3)) => {}
            Some(None) => return Err(reply::HELLO_VERSION.into()),
            Some(Some(_)) => return Err(reply::NOPROTO.into()),
        }
        let mut options = args.get(2..).unwrap_or_default();
        while let [option, rest @ ..] = options {
            options = match rest {
                [user, password, rest @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                    hello.auth = Some((user, password));
                    rest
                }
                [name, rest @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                    if !name.iter().all(u8::is_ascii_graphic) {
                        return Err(reply::BAD_NAME.into());
                    }
                    hello.rest.extend([option, name]);
                    rest
                }
                _ => return Err(reply::hello_option(option)),
            };
        }
        Ok(hello)
    }
}

/// What becomes of a client when its service's users have changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stands {
    /// It is this user now; `None`: it has to authenticate, or the service has no users.
    As(Option<Arc<User>>),
    /// Its user is gone, or it came when nobody had to authenticate, and now has to: it is closed.
    Not,
}

/// What becomes of a client that is `user`. `had`: whether its service had users when it came. Another password changes
/// nothing, as in Redis.
pub fn stands(users: Option<&Users>, user: Option<&User>, had: bool) -> Stands {
    match (users, user) {
        (None, _) => Stands::As(None),
        (Some(users), Some(user)) => {
            users.named(user.name.as_bytes()).map_or(Stands::Not, |user| Stands::As(Some(user.clone())))
        }
        (Some(users), None) => match users.newcomer() {
            None if !had => Stands::Not,
            newcomer => Stands::As(newcomer.cloned()),
        },
    }
}

/// Whether a request would authenticate, or try to.
pub fn authenticates(entry: &Entry, req: Request<'_>) -> bool {
    match entry.act {
        Act::Auth => true,
        Act::Hello => req.args().skip(2).any(|arg| arg.eq_ignore_ascii_case(b"AUTH")),
        _ => false,
    }
}

/// The hash that 64 hexadecimal digits are, with or without the `#` of `ACL SETUSER` before them.
pub fn hash(text: &str) -> Option<Hash> {
    let digits = text.strip_prefix('#').unwrap_or(text).as_bytes();
    let mut hash = Hash::default();
    if digits.len() != 2 * hash.len() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(hash)
}

/// The users' names for people: "`a` and `b`".
impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.names().map(|name| alloc::format!("`{name}`")).collect();
        match names.split_last() {
            Some((last, others)) if !others.is_empty() => write!(f, "{} and {last}", others.join(", ")),
            _ => f.write_str(&names.concat()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::entry;
    use crate::session::Subs;
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec;

    fn user(name: &str, passwords: &[&str]) -> User {
        User { name: name.into(), passwords: passwords.iter().map(|p| Sha256::digest(p).into()).collect() }
    }

    fn users() -> Arc<Users> {
        let many: Vec<String> = (0..PASSWORDS_MAX).map(|n| format!("p{n}")).collect();
        let many: Vec<&str> = many.iter().map(|p| &**p).collect();
        let users = vec![user("app", &["one", "two"]), user("many", &many), user("any", &[])];
        Users::new(users).unwrap()
    }

    /// What is said to a request, or who it makes of the session and what is left of it.
    fn said(users: &Users, s: &Session, text: &str) -> String {
        let mut bytes = Vec::new();
        reply::request(&mut bytes, &text.split(' ').collect::<Vec<_>>());
        let req = Request::new(&bytes);
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().replace("\r\n", "|");
        match route(users, entry(req), req, s) {
            None => "goes on".into(),
            Some(Route::Refuse(text)) => shown(&text),
            Some(Route::SignIn { user, then: None }) => user.name.to_string(),
            Some(Route::SignIn { user, then: Some(then) }) => format!("{}, then {}", user.name, shown(&then)),
            Some(other) => panic!("{other:?}"),
        }
    }

    const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.";
    const NOAUTH: &str = "-NOAUTH Authentication required.";

    #[test]
    fn each_password_of_a_user_is_right_and_no_other() {
        let (users, s) = (users(), Session::default());
        for (text, expected) in [
            ("AUTH app one", "app"),
            ("auth app two", "app"),
            ("AUTH app three", WRONG),
            ("AUTH app ", WRONG),
            ("AUTH many p0", "many"),
            ("AUTH many p15", "many"),
            ("AUTH many one", WRONG),
            ("AUTH nobody one", WRONG),
            ("AUTH any whatever", "any"),
            ("AUTH one", WRONG),
            ("AUTH", "-ERR wrong number of arguments for 'auth' command"),
            ("AUTH app one two", "-ERR syntax error"),
            (&format!("AUTH any {}", "x".repeat(PASSWORD_LEN_MAX + 1)), "any"),
            (&format!("AUTH app {}", "x".repeat(PASSWORD_LEN_MAX + 1)), WRONG),
        ] {
            assert_eq!(said(&users, &s, text), expected, "{text:.40}");
        }
    }

    #[test]
    fn a_password_alone_is_that_of_the_user_default() {
        let s = Session::default();
        let own = Users::new(vec![user("default", &["x"])]).unwrap();
        assert_eq!((said(&own, &s, "AUTH x"), said(&own, &s, "AUTH y")), ("default".into(), WRONG.into()));
        assert_eq!(own.newcomer(), None);
        let open = Users::new(vec![user("default", &[])]).unwrap();
        assert!(said(&open, &s, "AUTH x").starts_with("-ERR AUTH <password> called without any password"));
        assert_eq!(said(&open, &s, "AUTH default x"), "default");
        assert_eq!(&*open.newcomer().unwrap().name, "default");
    }

    #[test]
    fn a_hello_that_authenticates_goes_on_without_the_password() {
        let (users, s) = (users(), Session::default());
        for (text, expected) in [
            ("HELLO 3 AUTH app one", "app, then *2|$5|HELLO|$1|3"),
            ("HELLO 2 auth app one SETNAME me", "app, then *4|$5|HELLO|$1|2|$7|SETNAME|$2|me"),
            ("HELLO 3 SETNAME me AUTH app two", "app, then *4|$5|HELLO|$1|3|$7|SETNAME|$2|me"),
            ("HELLO 3 AUTH app wrong", WRONG),
            ("HELLO 3 AUTH app wrong AUTH app one", "app, then *2|$5|HELLO|$1|3"),
            ("HELLO 4 AUTH app one", "-NOPROTO unsupported protocol version"),
            ("HELLO three AUTH app one", "-ERR Protocol version is not an integer or out of range"),
            ("HELLO AUTH app one", "-ERR Protocol version is not an integer or out of range"),
            ("HELLO 3 AUTH app", "-ERR Syntax error in HELLO option 'AUTH'"),
            ("HELLO 3 AUTH app one SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'"),
            ("HELLO 3 AUTH app one NAME x", "-ERR Syntax error in HELLO option 'NAME'"),
            (
                "HELLO 3 AUTH app one SETNAME a\tb",
                "-ERR Client names cannot contain spaces, newlines or special characters.",
            ),
        ] {
            assert_eq!(said(&users, &s, text), expected, "{text}");
        }
        assert!(said(&users, &s, "HELLO").starts_with("-NOAUTH HELLO must be called"));
        assert!(said(&users, &s, "HELLO 3 SETNAME AUTH").starts_with("-NOAUTH HELLO must be called"));
    }

    #[test]
    fn who_has_not_authenticated_gets_nothing_else() {
        let (users, mut s) = (users(), Session::default());
        for text in [
            "GET k",
            "GET",
            "CLIENT ID x",
            "NOSUCH",
            "DEBUG JMAP",
            "MULTI",
            "SUBSCRIBE a",
            "CLIENT ID",
            "CLIENT NOSUCH",
            "PING",
        ] {
            assert_eq!(said(&users, &s, text), NOAUTH, "{text}");
        }
        let rejected = "-EXECABORT Transaction discarded because of: NOAUTH Authentication required.";
        assert_eq!(said(&users, &s, "EXEC"), rejected);
        assert_eq!(said(&users, &s, "RESET x"), "-ERR wrong number of arguments for 'reset' command");
        for text in ["QUIT", "QUIT x", "RESET", "POST /"] {
            assert_eq!(said(&users, &s, text), "goes on", "{text}");
        }
        s.user = users.named(b"app").cloned();
        for text in ["GET k", "GET", "NOSUCH", "HELLO 3", "HELLO 9", "HELLO 3 SETNAME AUTH"] {
            assert_eq!(said(&users, &s, text), "goes on", "{text}");
        }
        assert_eq!(said(&users, &s, "AUTH any x"), "any");
        assert_eq!(said(&users, &s, "HELLO 3 AUTH app wrong"), WRONG);
    }

    #[test]
    fn nobody_changes_the_user_where_the_server_would_have_to_answer() {
        let users = users();
        let user = users.named(b"app").cloned();
        let tx = Session { user: user.clone(), tx: Tx::Lost, ..Session::default() };
        for text in ["AUTH any x", "HELLO 3 AUTH any x"] {
            assert_eq!(said(&users, &tx, text), "-ERR Command not allowed inside a transaction", "{text}");
        }
        assert_eq!(said(&users, &tx, "HELLO 3"), "goes on");
        let mut subs = Subs::default();
        subs.follow(crate::command::SubKind::Channel, true, b"a", 1, 1000);
        let mut s = Session { user, subs: Some(Box::new(subs)), ..Session::default() };
        assert!(said(&users, &s, "AUTH any x").starts_with("-ERR Can't execute 'auth': only (P|S)SUBSCRIBE"));
        s.proto = Proto::Resp3;
        assert_eq!(said(&users, &s, "AUTH any x"), "any");
    }

    #[test]
    fn a_deleted_user_stands_no_longer_and_one_of_another_password_does() {
        let users = users();
        let app = user("app", &["old"]);
        assert_eq!(stands(Some(&users), Some(&app), true), Stands::As(users.named(b"app").cloned()));
        assert_eq!(stands(Some(&users), Some(&user("gone", &[])), true), Stands::Not);
        assert_eq!(stands(Some(&users), None, true), Stands::As(None));
        assert_eq!(stands(Some(&users), None, false), Stands::Not);
        assert_eq!(stands(None, Some(&app), true), Stands::As(None));
        let open = Users::new(vec![user("default", &[])]).unwrap();
        assert_eq!(stands(Some(&open), None, false), Stands::As(open.newcomer().cloned()));
    }

    #[test]
    fn hashes_are_read_as_redis_writes_them_and_not_shown() {
        let text = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";
        let known: Hash = Sha256::digest("foo").into();
        assert_eq!(hash(text), Some(known));
        assert_eq!(hash(&format!("#{}", text.to_uppercase())), Some(known));
        for wrong in [
            "",
            "foo",
            &text[1..],
            &format!("{text}0"),
            &text.replace('2', "g"),
            &text.replacen("2c", "é", 1),
        ] {
            assert_eq!(hash(wrong), None, "{wrong}");
        }
        let shown = format!("{:?}", users());
        assert!(shown.contains("User(app, 2 passwords)"), "{shown}");
        assert_eq!(users().to_string(), "`any`, `app` and `many`");
    }
}
