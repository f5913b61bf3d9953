//! The state that Redis keeps for a connection, kept for a client instead: whichever upstream connection runs its
//! commands is made to agree with it. It changes only when a reply shows that the server agreed.
use crate::Now;
use crate::command::SubKind;
use crate::ledger::Apply;
use crate::policy::{Credential, Policy};
use crate::resp::Proto;
use crate::topology::snapshot::Term;
use crate::tracking::Tracking;
use crate::users::User;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use sha2::{Digest, Sha256};

/// Names a user and a secret without telling it: the key of everything that must not be shared between users.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct IdentId([u8; 16]);

impl IdentId {
    /// A connection that has not authenticated.
    pub const NOBODY: IdentId = IdentId([0; 16]);
    /// The connection on which `AUTH` is tried: its user is whoever tried last, so nothing else is sent on it.
    pub const ANYBODY: IdentId = IdentId([0xff; 16]);
}

impl fmt::Debug for IdentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            IdentId::NOBODY => f.write_str("nobody"),
            IdentId::ANYBODY => f.write_str("anybody"),
            IdentId(d) => write!(f, "ident-{:02x}{:02x}", d[0], d[1]),
        }
    }
}

/// A user whose secret the server has accepted (or that the configuration gives).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ident {
    /// Its digest.
    pub id: IdentId,
    /// What to authenticate with. In memory only.
    pub credential: Arc<Credential>,
}

impl Ident {
    /// The identity that `credential` gives.
    pub fn new(credential: Credential) -> Ident {
        let user = credential.user.as_deref().unwrap_or(b"default");
        let mut hash = Sha256::new();
        hash.update((user.len() as u64).to_le_bytes());
        hash.update(user);
        hash.update(&credential.secret);
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        Ident { id: IdentId(id), credential: Arc::new(credential) }
    }
}

/// What a session called itself, or its library.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// `CLIENT SETNAME`.
    pub name: Box<[u8]>,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: Box<[u8]>,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_ver: Box<[u8]>,
}

/// Where a session stands in a transaction.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Tx {
    /// Not in one.
    #[default]
    None,
    /// Between `MULTI` and its end, on a pinned connection.
    Open(Box<OpenTx>),
    /// Between `MULTI` and its end, but the connection is gone: `EXEC` will say so.
    Lost,
}

/// An open transaction.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct OpenTx {
    /// Commands that the server has queued.
    pub queued: u32,
    /// Of these, those that change the session or whose reply is rewritten: index in the transaction, and what.
    pub changes: Vec<(u32, Apply)>,
    /// A command of it was refused by Pointsman: `EXEC` must abort.
    pub refused: bool,
    /// One was refused by the server, which comes before what became of watched keys (multi.c, `execCommand`).
    pub failed: bool,
}

/// The state of a session's `WATCH`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Watch {
    /// No keys are watched.
    #[default]
    None,
    /// Some are, on the pinned connection.
    Held,
    /// Some were, but the connection is gone: the next `EXEC` gives nil.
    Lost,
}

/// What a session is subscribed to, as far as its names are kept: they are needed to subscribe again elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subs {
    /// By [`SubKind`].
    names: [BTreeSet<Box<[u8]>>; 3],
    /// What the names take.
    bytes: usize,
    /// There were too many to keep: then only how many of each kind there are, as the server counts them.
    counts: Option<[u64; 3]>,
}

/// A name takes about so many bytes besides its own.
const NAME_COST: usize = 64;

impl Subs {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        SubKind::ALL.iter().all(|kind| self.count(*kind) == 0)
    }

    /// How many of a kind there are.
    pub fn count(&self, kind: SubKind) -> usize {
        match &self.counts {
            Some(counts) => usize::try_from(counts[kind as usize]).unwrap_or(usize::MAX),
            None => self.names[kind as usize].len(),
        }
    }

    /// Whether all names are kept.
    pub fn are_known(&self) -> bool {
        self.counts.is_none()
    }

    /// The names of a kind, if all are kept.
    pub fn names(&self, kind: SubKind) -> impl ExactSizeIterator<Item = &[u8]> {
        self.names[kind as usize].iter().map(|name| &**name)
    }

    /// The server confirmed a subscription (or its end), and counts so many now: channels and patterns together, or
    /// shard channels (`addReplyPubsubSubscribed` in `pubsub.c`). `bytes_max`: more than this is not kept.
    pub fn follow(&mut self, kind: SubKind, adds: bool, name: &[u8], total: u64, bytes_max: usize) {
        if let Some(counts) = &mut self.counts {
            let other = match kind {
                SubKind::Channel => counts[SubKind::Pattern as usize],
                SubKind::Pattern => counts[SubKind::Channel as usize],
                SubKind::Shard => 0,
            };
            counts[kind as usize] = total.saturating_sub(other);
            return;
        }
        let names = &mut self.names[kind as usize];
        match adds {
            true if names.insert(name.into()) => self.bytes += name.len() + NAME_COST,
            false if names.remove(name) => self.bytes -= name.len() + NAME_COST,
            _ => {}
        }
        if self.bytes > bytes_max {
            let counts = core::array::from_fn(|i| self.names[i].len() as u64);
            *self = Subs { counts: Some(counts), ..Subs::default() };
        }
    }
}

/// The two ends of a client's connection to Pointsman.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Ends {
    /// Nobody knows.
    #[default]
    Unknown,
    /// Addresses and ports.
    Tcp {
        /// The client's.
        peer: (IpAddr, u16),
        /// Ours.
        local: (IpAddr, u16),
    },
    /// The path of our Unix socket.
    Unix(Arc<str>),
}

impl Ends {
    /// The client's end, as Redis writes it (`getClientPeerId`).
    pub fn peer(&self) -> String {
        self.shown(true)
    }

    /// Our end, as Redis writes it (`getClientSockname`).
    pub fn local(&self) -> String {
        self.shown(false)
    }

    fn shown(&self, of_peer: bool) -> String {
        match self {
            Ends::Unknown => "?:0".into(),
            Ends::Tcp { peer, local } => {
                format!("{}", SocketAddr::from(if of_peer { *peer } else { *local }))
            }
            Ends::Unix(path) => format!("{path}:0"),
        }
    }
}

/// The state of one client's connection.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// What `CLIENT ID` says: unique in this process.
    pub id: u64,
    /// The client's connection to us.
    pub ends: Ends,
    /// When it was accepted.
    pub since: Now,
    /// Who the client is upstream; `None`: it has not authenticated there.
    pub ident: Option<Ident>,
    /// Which of the service's own users it is; `None`: it has not authenticated to us, or the service has none.
    pub user: Option<Arc<User>>,
    /// The selected database.
    pub db: u32,
    /// The protocol version.
    pub proto: Proto,
    /// Names, if it gave any.
    pub names: Option<Box<Names>>,
    /// Its transaction.
    pub tx: Tx,
    /// Its watched keys.
    pub watch: Watch,
    /// Its subscriptions, if any.
    pub subs: Option<Box<Subs>>,
    /// What it has the server track, if anything.
    pub tracking: Option<Box<Tracking>>,
    /// Whether others have been told of its connection, and the server sends there what they are to hear
    /// (`CLIENT TRACKING … REDIRECT`).
    pub told: bool,
    /// Whether its connection has state that binds it for life.
    pub bound: bool,
    /// Whether bytes pass in both directions without being counted (`MONITOR` and the like).
    pub relay: bool,
    /// The term in which its last write was executed.
    pub last_write: Option<Term>,
}

impl Session {
    /// A new client's.
    pub fn new(id: u64, ends: Ends, since: Now, policy: &Policy) -> Session {
        let ident = policy.upstream_user.clone().map(Ident::new);
        let user = policy.users.as_ref().and_then(|users| users.newcomer()).cloned();
        Session { id, ends, since, ident, user, ..Session::default() }
    }

    /// The identity on whose connections its commands go.
    pub fn ident_id(&self) -> IdentId {
        self.ident.as_ref().map_or(IdentId::NOBODY, |i| i.id)
    }

    /// Whether its state demands the connection that it has.
    pub fn needs_pin(&self) -> bool {
        self.bound
            || self.relay
            || matches!(self.tx, Tx::Open(_))
            || self.watch == Watch::Held
            || self.listens()
    }

    /// Whether the server sends it what it did not ask for each time: subscriptions, invalidations. That is made again on
    /// another connection when its own is lost.
    pub fn listens(&self) -> bool {
        self.subs.is_some() || self.tracking.is_some() || self.told
    }

    /// Who it is to the server; a user of the service's own is none there.
    pub fn user(&self) -> &[u8] {
        self.ident.as_ref().and_then(|i| i.credential.user.as_deref()).unwrap_or(b"default")
    }

    /// How many channels, patterns or shard channels it is subscribed to.
    pub fn subscribed(&self, kind: SubKind) -> usize {
        self.subs.as_ref().map_or(0, |s| s.count(kind))
    }

    /// Its names, made if it had none.
    pub fn names_mut(&mut self) -> &mut Names {
        self.names.get_or_insert_default()
    }

    /// `RESET`: all but the id, the connection, and the library's name and version. It is who a new client is.
    pub fn reset(&mut self, policy: &Policy) {
        let mut names = self.names.take();
        if let Some(n) = &mut names {
            n.name = Box::default();
        }
        let (ends, since, last_write) = (self.ends.clone(), self.since, self.last_write);
        *self = Session { names, last_write, ..Session::new(self.id, ends, since, policy) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::snapshot::ServiceId;

    fn ident(user: Option<&str>, secret: &str) -> Ident {
        let user = user.map(|u| u.as_bytes().into());
        Ident::new(Credential { user, secret: secret.as_bytes().into() })
    }

    #[test]
    fn identities_differ_by_user_and_secret() {
        assert_eq!(ident(None, "x").id, ident(Some("default"), "x").id);
        assert_ne!(ident(Some("a"), "x").id, ident(Some("a"), "y").id);
        assert_ne!(ident(Some("a"), "bx").id, ident(Some("ab"), "x").id);
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = alloc::format!("{:?}", ident(Some("u"), "hunter2"));
        assert!(!text.contains("hunter2") && text.contains("u"), "{text}");
    }

    #[test]
    fn names_of_channels_are_kept_up_to_a_bound_and_counted_beyond_it() {
        let mut subs = Subs::default();
        let most = 2 * (NAME_COST + 1);
        for (n, name) in [b"a", b"a", b"b"].into_iter().enumerate() {
            subs.follow(SubKind::Channel, true, name, n.clamp(1, 2) as u64, most);
        }
        assert!(subs.are_known() && subs.names(SubKind::Channel).eq([b"a", b"b"]));
        subs.follow(SubKind::Pattern, true, b"c", 3, most);
        assert!(!subs.are_known() && subs.names(SubKind::Channel).len() == 0);
        subs.follow(SubKind::Shard, true, b"d", 1, most);
        subs.follow(SubKind::Channel, true, b"a", 3, most);
        subs.follow(SubKind::Channel, false, b"b", 2, most);
        let counts = SubKind::ALL.map(|kind| subs.count(kind));
        assert_eq!((counts, subs.is_empty()), ([1, 1, 1], false));
        subs.follow(SubKind::Channel, false, b"a", 1, most);
        subs.follow(SubKind::Pattern, false, b"c", 0, most);
        subs.follow(SubKind::Shard, false, b"d", 0, most);
        assert!(subs.is_empty());
    }

    #[test]
    fn reset_keeps_the_id_and_the_library() {
        let mut s = Session { id: 7, db: 3, proto: Proto::Resp3, bound: true, ..Session::default() };
        s.names_mut().name = b"me"[..].into();
        s.names_mut().lib_name = b"lib"[..].into();
        s.reset(&Policy::new(ServiceId(0), "s"));
        assert_eq!((s.id, s.db, s.proto, s.bound), (7, 0, Proto::Resp2, false));
        assert_eq!(s.names, Some(Box::new(Names { lib_name: b"lib"[..].into(), ..Names::default() })));
    }
}
