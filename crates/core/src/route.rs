//! Where a command goes: a pure function of the command, the session and the service's policy.
use crate::command::{Access, Act, Entry, Idempotent, Keys, Lookup, lookup};
use crate::ledger::{Apply, Hello};
use crate::policy::{Allow, Credential, Policy};
use crate::resp::frame::Request;
use crate::resp::reply;
use crate::resp::{Proto, parse_i64};
use crate::session::{Ident, Session, Tx, Watch};
use crate::tracking;
use crate::users::{self, User};
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Where a command goes. A session that is pinned already has all but [`Route::Here`], [`Route::Refuse`] and
/// [`Route::SignIn`] sent to its pinned connection.
#[derive(Clone, PartialEq, Debug)]
pub enum Route<'a> {
    /// Over a shared connection of the session's user, protocol and database.
    Shared(Apply),
    /// Over a pinned connection, for as long as the session's state, or the reply, demands it.
    Pin {
        /// What its reply changes.
        apply: Apply,
        /// How many replies it gets.
        replies: u32,
    },
    /// A `WAIT`: pinned, behind something that propagates.
    Wait,
    /// From here on replies pass without being counted, for as long as the client stays.
    Relay,
    /// Changes the session, not data: tried on a connection that nobody's data commands use.
    Probe {
        /// Whether it authenticates (then the connection's user is whoever tried last).
        authenticates: bool,
        /// What its reply changes.
        apply: Apply,
        /// The request, rewritten where it speaks of the connection's own state.
        bytes: Cow<'a, [u8]>,
    },
    /// Speaks of another session, which the server knows by another id.
    About(About),
    /// Answered without asking the server, once nothing is owed.
    Here(Here),
    /// Refused, once nothing is owed.
    Refuse(Box<[u8]>),
    /// The session is this user of the service from now on, once nothing is owed; and then says this, or is told `+OK`.
    SignIn {
        /// Who.
        user: Arc<User>,
        /// A request that is left.
        then: Option<Vec<u8>>,
    },
}

/// Of which session a command speaks, by the ids that clients are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// `CLIENT LIST ID` of the session itself.
    Itself,
    /// `CLIENT KILL`.
    Kill,
    /// `CLIENT UNBLOCK` of this one.
    Unblock(u64),
    /// `CLIENT TRACKING … REDIRECT`, whose argument at this place is the session.
    Redirect(usize, u64),
}

/// What is answered here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Here {
    /// `+OK`, and close.
    Quit,
    /// Close without a reply, as the server does.
    Hangup,
    /// `+RESET`, and begin anew.
    Reset,
    /// `+OK`: `DISCARD` of a transaction whose connection is gone.
    DiscardLost,
    /// `-EXECABORT`: `EXEC` of one.
    ExecLost,
    /// `+QUEUED`: another command in one.
    QueuedLost,
    /// `WAIT` for writes of an earlier term.
    WaitLost,
}

/// The table's entry for a request; `None` for a command that is not in it.
pub fn entry(req: Request<'_>) -> Option<&'static Entry> {
    let mut args = req.args();
    let name = args.next()?;
    match lookup(name, args.next()) {
        Lookup::Known(e) if e.idempotent == Idempotent::Set && is_answered_twice(args.skip(1)) => {
            Some(&ANSWERED_TWICE)
        }
        Lookup::Known(e) => Some(e),
        Lookup::UnknownSubcommand(e) => Some(e).filter(|e| e.refused),
        Lookup::Unknown => None,
    }
}

/// Whether a `SET` with these options has two replies from Redis 8.4 on (8.6.3 and 8.10.2 were seen): the old value, for `GET`, and then
/// an error, for a digest is not as long as it must be (`setGenericCommand`). On a shared connection all replies after that would be
/// someone else's.
fn is_answered_twice<'a>(mut options: impl Iterator<Item = &'a [u8]>) -> bool {
    let (mut gets, mut compares) = (false, false);
    while let Some(option) = options.next() {
        gets |= option.eq_ignore_ascii_case(b"GET");
        if option.eq_ignore_ascii_case(b"IFDEQ") || option.eq_ignore_ascii_case(b"IFDNE") {
            compares |= options.next().is_some_and(|digest| digest.len() != DIGEST_LEN);
        }
    }
    gets && compares
}

/// Hexadecimal digits of a digest.
const DIGEST_LEN: usize = 16;

static ANSWERED_TWICE: Entry = Entry {
    name: "SET",
    access: Access::Write,
    resend: false,
    proves: false,
    idempotent: Idempotent::No,
    container: false,
    act: Act::Relay,
    refused: false,
    arity: -3,
    keys: Keys::Unknown,
};

/// Where `req` goes. `stale_write`: whether the session's last write belongs to an earlier term.
pub fn route<'a>(
    entry: Option<&'static Entry>,
    req: Request<'a>,
    s: &Session,
    policy: &Policy,
    stale_write: bool,
) -> Route<'a> {
    if let Some(users) = &policy.users
        && let Some(route) = users::route(users, entry, req, s)
    {
        return route;
    }
    let Some(e) = entry else {
        // What is not known may block, or change its connection: it gets one of its own.
        return if s.tx == Tx::Lost { Route::Here(Here::QueuedLost) } else { pin(Apply::Unknown) };
    };
    match e.act {
        Act::Quit => return Route::Here(Here::Quit),
        Act::Reset if e.takes(req.args().count()) => return Route::Here(Here::Reset),
        Act::Reset => return Route::Shared(Apply::None),
        Act::Hangup => return Route::Here(Here::Hangup),
        _ => {}
    }
    if let Some(text) = refusal(e, policy) {
        return Route::Refuse(text);
    }
    if s.tx == Tx::Lost {
        return Route::Here(match e.act {
            Act::Exec => Here::ExecLost,
            Act::Discard => Here::DiscardLost,
            _ => Here::QueuedLost,
        });
    }
    let mut args = req.args();
    match e.act {
        Act::None | Act::Script | Act::Quit | Act::Reset | Act::Hangup => Route::Shared(Apply::None),
        Act::ClientId => Route::Shared(Apply::ClientId),
        Act::ClientGetname => Route::Shared(Apply::Getname),
        Act::ClientInfo => Route::Shared(Apply::Info),
        Act::ClientGetredir => Route::Shared(Apply::Getredir),
        Act::ClientTrackinginfo => Route::Shared(Apply::Trackinginfo),
        Act::ClientKill if !e.takes(args.clone().count()) => Route::Shared(Apply::None),
        Act::ClientKill if matches!(s.tx, Tx::Open(_)) => Route::Refuse(reply::KILL_IN_TX.into()),
        Act::ClientList | Act::ClientKill | Act::ClientUnblock | Act::ClientTracking => about(e.act, req, s),
        Act::Select => match args.nth(1).and_then(parse_i64).and_then(|n| u32::try_from(n).ok()) {
            Some(db) => probe(req, Apply::Select(db)),
            None => probe(req, Apply::None),
        },
        Act::Auth => auth(req),
        Act::Hello => hello(req, s.proto),
        Act::ClientSetname => probe(req, args.nth(2).map_or(Apply::None, |n| Apply::Setname(n.into()))),
        Act::ClientSetinfo => {
            let what = args.nth(2).unwrap_or_default();
            let ver = what.eq_ignore_ascii_case(b"lib-ver");
            probe(req, args.next().map_or(Apply::None, |v| Apply::Setinfo(ver, v.into())))
        }
        Act::Kill => probe(req, Apply::None),
        Act::Multi => pin(Apply::Multi),
        Act::Exec => exec(s),
        Act::Discard => pin(Apply::Discard),
        Act::Watch => pin(Apply::Watch),
        // Without a pinned connection nothing is watched there, and the server's +OK is as good from any.
        Act::Unwatch => Route::Shared(Apply::Unwatch),
        // The confirmations come in the reply to EXEC, more of them than its header says.
        Act::Subscribe(_) | Act::Unsubscribe(_) if matches!(s.tx, Tx::Open(_)) => Route::Relay,
        Act::Subscribe(_) => {
            Route::Pin { apply: Apply::None, replies: count(args.count().saturating_sub(1)) }
        }
        Act::Unsubscribe(kind) => {
            let named = args.count().saturating_sub(1);
            let replies = if named > 0 { named } else { s.subscribed(kind).max(1) };
            Route::Pin { apply: Apply::None, replies: count(replies) }
        }
        Act::Block | Act::Own => pin(Apply::None),
        Act::BlockIfAsked if e.asks_to_block(req.args()) => pin(Apply::None),
        Act::BlockIfAsked => Route::Shared(Apply::None),
        Act::Wait if stale_write => Route::Here(Here::WaitLost),
        Act::Wait => Route::Wait,
        Act::Bind => pin(Apply::Bind),
        Act::Relay => Route::Relay,
    }
}

/// A command that may name a session.
fn about<'a>(act: Act, req: Request<'a>, s: &Session) -> Route<'a> {
    let named = |at: usize| {
        req.args().nth(at).and_then(parse_i64).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0)
    };
    match act {
        Act::ClientKill => Route::About(About::Kill),
        Act::ClientUnblock => {
            named(2).map_or(Route::Shared(Apply::None), |of| Route::About(About::Unblock(of)))
        }
        Act::ClientTracking => match tracking::redirect(req) {
            Some((at, to)) => Route::About(About::Redirect(at, to)),
            None => pin(Apply::Tracking(req.bytes().into())),
        },
        _ => {
            let by_id = req.args().nth(2).is_some_and(|word| word.eq_ignore_ascii_case(b"ID"));
            let own = by_id && req.args().count() == 4 && named(3) == Some(s.id);
            if own { Route::About(About::Itself) } else { Route::Shared(Apply::None) }
        }
    }
}

/// Whether a request names another session; on a connection whose replies are not counted it cannot be translated.
pub fn names_a_session(e: &Entry, req: Request<'_>) -> bool {
    match e.act {
        Act::ClientKill | Act::ClientUnblock => true,
        Act::ClientTracking => tracking::redirect(req).is_some(),
        _ => false,
    }
}

fn pin<'a>(apply: Apply) -> Route<'a> {
    Route::Pin { apply, replies: 1 }
}

fn probe(req: Request<'_>, apply: Apply) -> Route<'_> {
    Route::Probe { authenticates: false, apply, bytes: Cow::Borrowed(req.bytes()) }
}

fn count(n: usize) -> u32 {
    u32::try_from(n.max(1)).unwrap_or(u32::MAX)
}

/// What is said to a command that is refused by default, and not allowed.
pub fn refusal(e: &Entry, policy: &Policy) -> Option<Box<[u8]>> {
    (e.refused && !allowed(e, &policy.allow)).then(|| reply::refused(e.name, &policy.name).into())
}

fn allowed(e: &Entry, allow: &Allow) -> bool {
    match allow {
        Allow::Default => false,
        Allow::All => true,
        Allow::These(names) => {
            let container = e.name.split('|').next().unwrap_or(e.name);
            names.iter().any(|n| n.eq_ignore_ascii_case(e.name) || n.eq_ignore_ascii_case(container))
        }
    }
}

fn auth(req: Request<'_>) -> Route<'_> {
    let args: Vec<&[u8]> = req.args().skip(1).take(3).collect();
    let apply = match args[..] {
        [secret] => Apply::Auth(Ident::new(Credential { user: None, secret: secret.into() })),
        [user, secret] => {
            Apply::Auth(Ident::new(Credential { user: Some(user.into()), secret: secret.into() }))
        }
        _ => Apply::None,
    };
    Route::Probe { authenticates: true, apply, bytes: Cow::Borrowed(req.bytes()) }
}

/// `HELLO [protover [AUTH user password] [SETNAME name]]` (`helloCommand` in `networking.c`).
fn hello(req: Request<'_>, proto: Proto) -> Route<'_> {
    let mut args = req.args().skip(1);
    let mut hello = Hello::default();
    let mut bytes = Cow::Borrowed(req.bytes());
    match args.next() {
        None => {
            // Without a version the reply is in the connection's present one; say which that is for this session.
            let mut explicit = Vec::new();
            let version: &[u8] = if proto == Proto::Resp3 { b"3" } else { b"2" };
            reply::request(&mut explicit, &[&b"HELLO"[..], version]);
            bytes = Cow::Owned(explicit);
        }
        Some(b"2") => hello.resp3 = Some(false),
        Some(b"3") => hello.resp3 = Some(true),
        Some(_) => {}
    }
    while let Some(option) = args.next() {
        if option.eq_ignore_ascii_case(b"AUTH") {
            if let (Some(user), Some(secret)) = (args.next(), args.next()) {
                let credential = Credential { user: Some(user.into()), secret: secret.into() };
                hello.ident = Some(Ident::new(credential));
            }
        } else if option.eq_ignore_ascii_case(b"SETNAME") {
            hello.name = args.next().map(Into::into);
        }
    }
    Route::Probe { authenticates: hello.ident.is_some(), apply: Apply::Hello(Box::new(hello)), bytes }
}

fn exec<'a>(s: &Session) -> Route<'a> {
    if let Tx::Open(tx) = &s.tx {
        let lost = s.watch == Watch::Lost;
        if tx.refused || lost && tx.failed {
            return pin(Apply::ExecAs(reply::EXECABORT_REFUSED.into()));
        }
        if lost {
            let mut nil = Vec::new();
            reply::null_array(&mut nil, s.proto);
            return pin(Apply::ExecAs(nil.into()));
        }
    }
    pin(Apply::Exec)
}
