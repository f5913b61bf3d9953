//! A model of a Redis server: strings, lists, transactions, blocking pops, pub/sub, users, databases, both protocols; a
//! replica that serves stale reads and refuses writes; a node that loads. Order of checks as in `processCommand`
//! (`server.c`).
//!
//! One rule is not Redis': a key that begins with `t:` always holds its own name, so that a reply tells whose it is.
mod commands;

use super::replication::Replication;
use super::resp::{self, Access, Tag, access, tag};
use pointsman_core::Now;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A command that was executed (not one that was refused).
#[derive(Clone, Debug)]
pub(super) struct Executed {
    /// When.
    pub(super) at: Now,
    /// On which server.
    pub(super) server: usize,
    /// On which of its connections.
    pub(super) conn: usize,
    /// Whose it was.
    pub(super) tag: Tag,
    /// The command's name.
    pub(super) name: String,
    /// Whether it may have changed something.
    pub(super) write: bool,
    /// Whether it was executed by `EXEC`.
    pub(super) in_tx: bool,
    /// As which user.
    pub(super) user: String,
    /// In which database.
    pub(super) db: u32,
    /// In which protocol.
    pub(super) proto: u8,
    /// What the connection was called.
    pub(super) conn_name: Vec<u8>,
    /// What it answered.
    pub(super) reply: Vec<u8>,
    /// In which history, and where in it, if it wrote.
    pub(super) written: Option<(u64, u64)>,
}

/// What a server is for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// It takes writes.
    Master,
    /// It refuses writes and serves what it has.
    Replica,
    /// It refuses reads too: its link to the master is down, and stale data are not served.
    Cut,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Data {
    Text(Vec<u8>),
    List(VecDeque<Vec<u8>>),
}

#[derive(Debug)]
struct Blocked {
    args: Vec<Vec<u8>>,
    until: Option<Now>,
    /// `WAIT`: for so many replicas, which must have what was written up to this offset.
    wait: Option<(usize, u64)>,
}

/// Which replies a connection is given (`CLIENT_REPLY_*` in `server.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Replies {
    On,
    Off,
    /// Not the next one.
    SkipNext,
}

/// Names of patterns begin so; such a one matches the channels that end as it does.
pub(super) const PATTERN: &[u8] = b"p*";

/// Whether a name is a pattern's.
pub(super) fn is_pattern(name: &[u8]) -> bool {
    name.starts_with(PATTERN)
}

/// One connection of a server.
#[derive(Debug)]
struct Conn {
    user: Option<String>,
    db: u32,
    proto: u8,
    name: Vec<u8>,
    tx: Option<Vec<Vec<Vec<u8>>>>,
    tx_bad: bool,
    watched: Vec<(u32, Vec<u8>, u64)>,
    /// Channels, and patterns ([`is_pattern`]).
    subs: BTreeSet<Vec<u8>>,
    /// What `CLIENT REPLY` said.
    replies: Replies,
    blocked: Option<Blocked>,
    monitor: bool,
    /// What its next `WAIT` is about (`woff`).
    wrote_to: u64,
    input: Vec<u8>,
    out: Vec<u8>,
    ending: bool,
}

impl Conn {
    /// Whether a command waits while writes are paused.
    fn is_paused(&self, args: &[Vec<u8>]) -> bool {
        let name = args.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        let tx_writes = || self.tx.iter().flatten().any(|args| writes(args));
        name == b"PUBLISH" || name == b"EXEC" && tx_writes() || !args.is_empty() && writes(args)
    }
}

/// A server.
#[derive(Debug)]
pub(super) struct Server {
    /// Its number.
    pub(super) id: usize,
    /// What it is for now.
    pub(super) role: Role,
    /// It refuses most commands until then.
    pub(super) loading_until: Now,
    /// It does nothing until then.
    pub(super) stopped_until: Now,
    /// It executes nothing that may write until then, and nothing behind that on the same connection (`CLIENT PAUSE`).
    pub(super) paused_until: Now,
    /// Whether the default user needs a password.
    pub(super) locked: bool,
    /// It was shown the one script.
    pub(super) knows_script: bool,
    data: BTreeMap<(u32, Vec<u8>), Data>,
    versions: BTreeMap<(u32, Vec<u8>), u64>,
    conns: BTreeMap<usize, Conn>,
    /// What it has written or taken over.
    pub(super) replication: Replication,
    /// Every command moves what its connection's `WAIT` is about, but what is done for one that blocks does not, as before
    /// 7.2; later only what writes does.
    pub(super) old_wait: bool,
    /// What was executed since it was last taken.
    pub(super) log: Vec<Executed>,
    /// Commands that changed a connection's state: connection, and name.
    pub(super) state_commands: Vec<(usize, String)>,
}

/// A copy of a server's data.
#[derive(Clone, Debug)]
pub(super) struct DataCopy(BTreeMap<(u32, Vec<u8>), Data>);

/// Databases.
pub(super) const DATABASES: u32 = 4;
const DENIED_TO_BOB: &str = "APPEND";

fn error(text: &str) -> Vec<u8> {
    format!("-{text}\r\n").into_bytes()
}

fn int(n: i64) -> Vec<u8> {
    format!(":{n}\r\n").into_bytes()
}

const OK: &[u8] = b"+OK\r\n";

impl Server {
    /// A server without data.
    pub(super) fn new(id: usize, role: Role, locked: bool) -> Server {
        Server {
            id,
            role,
            loading_until: Now::ZERO,
            stopped_until: Now::ZERO,
            paused_until: Now::ZERO,
            locked,
            knows_script: false,
            data: BTreeMap::new(),
            versions: BTreeMap::new(),
            conns: BTreeMap::new(),
            replication: Replication::new(role == Role::Master),
            old_wait: id % 2 == 0,
            log: Vec::new(),
            state_commands: Vec::new(),
        }
    }

    /// All that it holds.
    pub(super) fn copy(&self) -> DataCopy {
        DataCopy(self.data.clone())
    }

    /// Replaces all that it holds.
    pub(super) fn load(&mut self, data: &DataCopy) {
        self.data = data.0.clone();
        for v in self.versions.values_mut() {
            *v += 1;
        }
    }

    /// A connection was accepted.
    pub(super) fn accept(&mut self, conn: usize) {
        let user = (!self.locked).then(|| "default".to_string());
        let conn_state = Conn {
            user,
            db: 0,
            proto: 2,
            name: Vec::new(),
            tx: None,
            tx_bad: false,
            watched: Vec::new(),
            subs: BTreeSet::new(),
            replies: Replies::On,
            blocked: None,
            monitor: false,
            wrote_to: 0,
            input: Vec::new(),
            out: Vec::new(),
            ending: false,
        };
        self.conns.insert(conn, conn_state);
    }

    /// Whether a connection is subscribed to just these.
    pub(super) fn has_subscriber(&self, subs: &BTreeSet<Vec<u8>>) -> bool {
        self.conns.values().any(|c| c.subs == *subs)
    }

    /// A connection is gone.
    pub(super) fn gone(&mut self, conn: usize) {
        self.conns.remove(&conn);
    }

    /// All its connections.
    pub(super) fn conns(&self) -> Vec<usize> {
        self.conns.keys().copied().collect()
    }

    /// Whether a connection waits for something to pop.
    pub(super) fn is_blocked(&self, conn: usize) -> bool {
        self.conns.get(&conn).is_some_and(|c| c.blocked.is_some())
    }

    /// Takes bytes in; executes at most `most` commands. How many it executed.
    pub(super) fn feed(&mut self, now: Now, conn: usize, bytes: &[u8], most: usize) -> usize {
        let Some(c) = self.conns.get_mut(&conn) else { return 0 };
        c.input.extend_from_slice(bytes);
        let mut done = 0;
        while done < most {
            let Some(c) = self.conns.get_mut(&conn).filter(|c| c.blocked.is_none() && !c.ending) else {
                break;
            };
            match resp::request(&c.input) {
                Ok(Some((args, _))) if now < self.paused_until && c.is_paused(&args) => break,
                Ok(Some((args, len))) => {
                    c.input.drain(..len);
                    done += 1;
                    let replies = c.replies;
                    let reply = if args.is_empty() { Vec::new() } else { self.command(now, conn, args) };
                    match (replies, self.conns.get_mut(&conn).map(|c| &mut c.replies)) {
                        (Replies::SkipNext, Some(next)) => {
                            if *next == Replies::SkipNext {
                                *next = Replies::On;
                            }
                        }
                        (_, Some(Replies::Off | Replies::SkipNext)) => {}
                        _ => self.answer(conn, &reply),
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    self.answer(conn, b"-ERR Protocol error: expected '$', got 'x'\r\n");
                    if let Some(c) = self.conns.get_mut(&conn) {
                        c.ending = true;
                    }
                }
            }
        }
        done
    }

    fn answer(&mut self, conn: usize, bytes: &[u8]) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.out.extend_from_slice(bytes);
        }
    }

    /// What a connection is to be sent, and whether it ends then.
    pub(super) fn output(&mut self, conn: usize) -> (Vec<u8>, bool) {
        self.conns.get_mut(&conn).map_or((Vec::new(), true), |c| (std::mem::take(&mut c.out), c.ending))
    }

    /// Ends blocking pops whose time is over.
    pub(super) fn tick(&mut self, now: Now) -> bool {
        let due = |c: &Conn| c.blocked.as_ref().is_some_and(|b| b.until.is_some_and(|t| now >= t));
        let ids: Vec<usize> = self.conns.iter().filter(|(_, c)| due(c)).map(|(id, _)| *id).collect();
        for id in &ids {
            self.time_is_over(now, *id);
        }
        !ids.is_empty()
    }

    fn time_is_over(&mut self, now: Now, conn: usize) {
        let wait = self.conns.get(&conn).and_then(|c| c.blocked.as_ref()?.wait);
        let having = wait.map(|(_, offset)| int(self.replication.having(offset) as i64));
        let nil = |proto| if proto == 3 { b"_\r\n".to_vec() } else { b"*-1\r\n".to_vec() };
        self.unblock(now, conn, |proto| having.clone().unwrap_or_else(|| nil(proto)));
    }

    /// Answers the `WAIT`s for which enough replicas have acknowledged; whether there were some.
    pub(super) fn serve_waiting(&mut self, now: Now) -> bool {
        let mut any = false;
        for id in self.conns() {
            let Some((most, offset)) = self.conns.get(&id).and_then(|c| c.blocked.as_ref()?.wait) else {
                continue;
            };
            let having = self.replication.having(offset);
            if having >= most {
                any = true;
                self.unblock(now, id, |_| int(having as i64));
            }
        }
        any
    }

    /// When the next blocking pop ends.
    pub(super) fn next_event(&self, now: Now) -> Option<Now> {
        let pops = self.conns.values().filter_map(|c| c.blocked.as_ref()?.until);
        pops.chain([self.stopped_until, self.paused_until, self.loading_until]).filter(|t| *t > now).min()
    }

    /// It becomes something else; on demotion what blocks is told so (`disconnectOrRedirectAllBlockedClients`).
    pub(super) fn become_role(&mut self, now: Now, role: Role) {
        if self.role == Role::Master && role != Role::Master {
            for id in self.conns() {
                if self.is_blocked(id) {
                    let text = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
                    self.unblock(now, id, |_| error(text));
                    // Nothing behind it is executed.
                    self.conns.get_mut(&id).expect("listed above").ending = true;
                }
            }
        }
        self.role = role;
    }

    fn unblock(&mut self, now: Now, conn: usize, reply: impl Fn(u8) -> Vec<u8>) {
        let Some(c) = self.conns.get_mut(&conn) else { return };
        let Some(b) = c.blocked.take() else { return };
        let reply = reply(c.proto);
        self.note(now, conn, &b.args, &reply, false);
        if !self.old_wait && b.wait.is_none() {
            self.note_offset(conn);
        }
        self.answer(conn, &reply);
    }

    fn command(&mut self, now: Now, conn: usize, mut args: Vec<Vec<u8>>) -> Vec<u8> {
        if args[0].eq_ignore_ascii_case(RENAMED) {
            args[0] = b"SET".to_vec();
        }
        let name = String::from_utf8_lossy(&args[0]).to_ascii_uppercase();
        let master = self.role == Role::Master;
        let loading = now < self.loading_until;
        let cut = self.role == Role::Cut;
        let c = self.conns.get_mut(&conn).expect("it is fed");
        let free = matches!(&name[..], "AUTH" | "HELLO" | "QUIT" | "RESET");
        // What may be said while loading, and by a replica without its master (flags LOADING and STALE).
        let always = free
            || matches!(
                &name[..],
                "SELECT"
                    | "COMMAND"
                    | "MULTI"
                    | "DISCARD"
                    | "WATCH"
                    | "UNWATCH"
                    | "CLIENT"
                    | "ROLE"
                    | "SUBSCRIBE"
                    | "UNSUBSCRIBE"
                    | "PSUBSCRIBE"
                    | "PUNSUBSCRIBE"
                    | "PUBLISH"
                    | "EXEC"
                    | "MONITOR"
            );
        let tx_writes = c.tx.as_ref().is_some_and(|tx| tx.iter().any(|a| writes(a)));
        let refusal = if !is_known(&name) {
            Some(format!("ERR unknown command '{name}', with args beginning with: "))
        } else if c.user.is_none() && !free {
            Some("NOAUTH Authentication required.".into())
        } else if c.user.as_deref() == Some("bob") && name == DENIED_TO_BOB {
            Some("NOPERM User bob has no permissions to run the 'append' command".into())
        } else if !master && (writes(&args) || name == "EXEC" && tx_writes) {
            Some("READONLY You can't write against a read only replica.".into())
        } else if c.proto == 2
            && !c.subs.is_empty()
            && !matches!(
                &name[..],
                "SUBSCRIBE" | "UNSUBSCRIBE" | "PSUBSCRIBE" | "PUNSUBSCRIBE" | "PING" | "QUIT" | "RESET"
            )
        {
            Some(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                name.to_ascii_lowercase()
            ))
        } else if cut && !always {
            Some("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.".into())
        } else if loading && !always {
            Some("LOADING Redis is loading the dataset in memory".into())
        } else {
            None
        };
        if let Some(text) = refusal {
            if name == "EXEC" && c.tx.is_some() {
                (c.tx, c.tx_bad) = (None, false);
                c.watched.clear();
                return error(&format!("EXECABORT Transaction discarded because of: {text}"));
            }
            c.tx_bad |= c.tx.is_some();
            return error(&text);
        }
        if let Some(tx) = &mut c.tx
            && !matches!(&name[..], "EXEC" | "DISCARD" | "MULTI" | "WATCH" | "QUIT" | "RESET")
        {
            tx.push(args);
            return b"+QUEUED\r\n".to_vec();
        }
        let before = self.replication.offset;
        let reply = self.run(now, conn, &name, &args, false);
        if self.is_blocked(conn) {
            self.moved(conn, before);
            return Vec::new();
        }
        self.note(now, conn, &args, &reply, false);
        self.moved(conn, before);
        self.serve_blocked(now);
        reply
    }

    /// A command was executed: what its connection's next `WAIT` is about.
    fn moved(&mut self, conn: usize, before: u64) {
        if self.old_wait || self.replication.offset != before {
            self.note_offset(conn);
        }
    }

    fn note_offset(&mut self, conn: usize) {
        let offset = self.replication.offset;
        if let Some(c) = self.conns.get_mut(&conn) {
            c.wrote_to = offset;
        }
    }

    fn note(&mut self, now: Now, conn: usize, args: &[Vec<u8>], reply: &[u8], in_tx: bool) {
        let Some(c) = self.conns.get(&conn) else { return };
        let name = String::from_utf8_lossy(&args[0]).to_ascii_uppercase();
        let names = args.get(1).is_some_and(|a| a.eq_ignore_ascii_case(b"SETNAME"));
        if names
            || matches!(
                &name[..],
                "SELECT" | "AUTH" | "HELLO" | "MULTI" | "WATCH" | "SUBSCRIBE" | "PSUBSCRIBE"
            )
        {
            self.state_commands.push((conn, name.clone()));
        }
        let Some(tag) = tag(args).filter(|_| !proves_nothing_ran(reply)) else { return };
        // A pop that got nothing, and what failed, changed nothing.
        let got = !reply.starts_with(b"-") && (name != "BLPOP" || reply.starts_with(b"*2"));
        let write = got && matches!(access(name.as_bytes()), Access::Write);
        self.replication.offset += u64::from(write);
        self.log.push(Executed {
            written: write.then_some((self.replication.history, self.replication.offset)),
            at: now,
            server: self.id,
            conn,
            tag,
            write,
            name,
            in_tx,
            user: c.user.clone().unwrap_or_else(|| "nobody".into()),
            db: c.db,
            proto: c.proto,
            conn_name: c.name.clone(),
            reply: reply.to_vec(),
        });
    }

    /// What monitors see of a connection.
    pub(super) fn monitored(&mut self, line: &[u8]) {
        for c in self.conns.values_mut().filter(|c| c.monitor) {
            c.out.extend_from_slice(b"+");
            c.out.extend_from_slice(line);
            c.out.extend_from_slice(b"\r\n");
        }
    }
}

/// What the servers were told to call SET, too (`rename-command`); only they know it.
pub(super) const RENAMED: &[u8] = b"PUT";

fn is_known(name: &str) -> bool {
    matches!(
        name,
        "PING"
            | "ECHO"
            | "GET"
            | "MGET"
            | "LRANGE"
            | "SET"
            | "APPEND"
            | "INCR"
            | "EVAL"
            | "EVALSHA"
            | "RPUSH"
            | "PUBLISH"
            | "WAIT"
            | "BLPOP"
            | "MULTI"
            | "EXEC"
            | "DISCARD"
            | "WATCH"
            | "UNWATCH"
            | "SUBSCRIBE"
            | "UNSUBSCRIBE"
            | "PSUBSCRIBE"
            | "PUNSUBSCRIBE"
            | "ROLE"
            | "MONITOR"
            | "QUIT"
            | "RESET"
            | "SELECT"
            | "AUTH"
            | "HELLO"
            | "CLIENT"
            | "COMMAND"
    )
}

/// Whether a replica refuses it: scripts are refused when they write, which here they do.
fn writes(args: &[Vec<u8>]) -> bool {
    let name = args[0].to_ascii_uppercase();
    matches!(&name[..], b"SET" | b"APPEND" | b"INCR" | b"EVAL" | b"EVALSHA" | b"RPUSH" | b"BLPOP")
}

/// Errors that a command gets from within: it was asked, and not executed.
fn proves_nothing_ran(reply: &[u8]) -> bool {
    reply.starts_with(b"-UNBLOCKED ") || reply.starts_with(b"-NOSCRIPT ")
}
