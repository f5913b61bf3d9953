//! A model client: sends its script, reads its replies, and knows what each may be, as on a direct connection.
use super::resp::{self, Tag, Value};
use super::script::{Cmd, What, tag_bytes};
use super::server::is_pattern;
use crate::rng::Rng;
use pointsman_core::Now;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// A client waits so long for a pop that has no end.
const PATIENCE: Duration = Duration::from_millis(40);

/// The state that Redis would keep for the client's connection, by the replies so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    /// As whom; `None`: not authenticated.
    pub(super) user: Option<String>,
    /// In which database.
    pub(super) db: u32,
    /// In which protocol.
    pub(super) proto: u8,
    /// Its name.
    pub(super) name: Vec<u8>,
}

/// What came of a tagged command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It was answered without an error.
    Done,
    /// An error says that it was not executed.
    NotExecuted,
    /// An error of the server's own.
    Refused,
    /// It is not known.
    Uncertain,
}

/// One finding of a client, for the world's checks.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    /// Which command.
    pub(super) tag: Tag,
    /// What came of it.
    pub(super) outcome: Outcome,
    /// As whom, and where, it must have been executed.
    pub(super) state: State,
    /// Whether that is known: it is not of what was sent behind a change of the session that is uncertain.
    pub(super) sure: bool,
    /// Whether it was in a transaction.
    pub(super) in_tx: bool,
    /// The reply's bytes, if it must be the server's own, unaltered.
    pub(super) raw: Option<Vec<u8>>,
}

/// A transaction that has ended.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    /// Its commands.
    pub(super) tags: Vec<Tag>,
    /// The commands that watched for it.
    pub(super) watched: Vec<Tag>,
    /// What came of it.
    pub(super) outcome: Outcome,
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    /// When it connects.
    pub(super) starts: Now,
    /// So many commands it sends ahead of the replies.
    pub(super) window: usize,
    /// It reads at most so many bytes at a time.
    pub(super) reads: usize,
    /// Out of 100 times that it may read, it does.
    pub(super) attention: u64,
    /// It leaves without a word once it has sent so many commands.
    pub(super) leaves_after: Option<u32>,
    /// It says that it will send no more once all is sent.
    pub(super) half_closes: bool,
    /// If it is subscribed when all is said and heard, it stays until then.
    pub(super) lingers_to: Now,
}

/// Where a client stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// It has not connected.
    Before,
    /// It talks.
    Open,
    /// It has gone, or was sent away.
    Over,
}

#[derive(Debug)]
struct OpenTx {
    queued: Vec<(u32, What, State)>,
    /// A command of it was no command, or refused: it must not be executed.
    bad: bool,
    /// The database that the next queued command runs in.
    db: u32,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    /// Its number.
    pub(super) id: u32,
    /// How it behaves.
    pub(super) manner: Manner,
    /// Its connection.
    pub(super) link: usize,
    /// Where it stands.
    pub(super) phase: Phase,
    /// What it says.
    pub(super) script: Vec<Cmd>,
    /// The next to send.
    pub(super) next: usize,
    /// Bytes that the kernel did not take yet.
    pub(super) outbox: VecDeque<u8>,
    input: Vec<u8>,
    pending: VecDeque<(Cmd, u32)>,
    /// Its state.
    pub(super) state: State,
    default_user: Option<String>,
    tx: Option<OpenTx>,
    /// The commands by which it watches.
    watching: Vec<Tag>,
    /// To what it is subscribed.
    pub(super) subs: BTreeSet<Vec<u8>>,
    session_id: Option<i64>,
    monitors: bool,
    /// What it got that it does not count.
    pub(super) uncounted: Vec<u8>,
    /// Messages that it got for a pattern.
    pub(super) by_pattern: u64,
    half_closed: bool,
    unsure_to: u32,
    /// When it was last answered, or sent something when nothing was owed.
    pub(super) since: Now,
    /// Errors may be seen that only faults explain.
    pub(super) faults: bool,
    /// All replies, for comparison: which command, and the bytes.
    pub(super) heard: Vec<(u32, Vec<u8>)>,
    /// What must be checked against the servers' log.
    pub(super) settled: Vec<Settled>,
    /// Commands that must be executed all or none.
    pub(super) transactions: Vec<Transaction>,
    /// Its writes are durable.
    pub(super) durable: bool,
    /// Replies may be so long that they are passed on in parts.
    pub(super) huge: bool,
    /// It reads so slowly that it may not have heard for long, until all faults are over, what it was told soon.
    pub(super) slow: bool,
    /// Users authenticate to the worker, and are all the same one upstream.
    pub(super) own_users: bool,
    /// Limits under which a node's refusal may be shown.
    pub(super) shown_from: usize,
    /// Who waits in a pop that is lost is closed.
    pub(super) closes_pops: bool,
}

impl Client {
    /// A client that has not connected.
    pub(super) fn new(id: u32, manner: Manner, script: Vec<Cmd>, user: Option<&str>, faults: bool) -> Client {
        let user = user.map(String::from);
        Client {
            id,
            manner,
            link: usize::MAX,
            phase: Phase::Before,
            script,
            next: 0,
            outbox: VecDeque::new(),
            input: Vec::new(),
            pending: VecDeque::new(),
            state: State { user: user.clone(), db: 0, proto: 2, name: Vec::new() },
            default_user: user,
            tx: None,
            watching: Vec::new(),
            subs: BTreeSet::new(),
            session_id: None,
            monitors: false,
            uncounted: Vec::new(),
            by_pattern: 0,
            half_closed: false,
            unsure_to: 0,
            since: Now::ZERO,
            faults,
            heard: Vec::new(),
            settled: Vec::new(),
            transactions: Vec::new(),
            durable: false,
            huge: false,
            slow: false,
            own_users: false,
            shown_from: usize::MAX,
            closes_pops: false,
        }
    }

    /// How many replies it waits for.
    pub(super) fn owed(&self) -> usize {
        self.pending.len()
    }

    /// The oldest command that it waits for.
    pub(super) fn first_owed(&self) -> Option<&Cmd> {
        self.pending.front().map(|(c, _)| c)
    }

    /// Puts what it may send now into its outbox; whether it did.
    pub(super) fn speak(&mut self, now: Now, rng: &mut Rng) -> bool {
        let mut spoke = false;
        while self.next < self.script.len()
            && self.pending.len() < self.manner.window
            && self.outbox.len() < 4096
        {
            // As most do, some say nothing behind a pop before it has been answered.
            let pops = self.pending.back().is_some_and(|(cmd, _)| cmd.what == What::Blpop { forever: false });
            if pops && self.id % 2 == 0 || rng.chance(20) {
                break;
            }
            let cmd = self.script[self.next].clone();
            self.next += 1;
            spoke = true;
            self.outbox.extend(&cmd.bytes);
            self.monitors |= cmd.what == What::Reply;
            if cmd.what == What::Silent || self.monitors {
                continue;
            }
            if self.pending.is_empty() {
                self.since = now;
            }
            let replies = match &cmd.what {
                What::Subscribe(ch) => ch.len() as u32,
                What::Unsubscribe { names, .. } => names.len() as u32,
                _ => 1,
            };
            self.pending.push_back((cmd, replies));
        }
        spoke
    }

    /// Whether it has said and heard everything.
    pub(super) fn is_through(&self) -> bool {
        self.next == self.script.len() && self.outbox.is_empty() && self.pending.is_empty()
    }

    /// Whether it listens, and has nothing else to do.
    pub(super) fn lingers(&self, now: Now) -> bool {
        self.is_through() && (self.monitors || !self.subs.is_empty()) && now < self.manner.lingers_to
    }

    /// Whether it has turned replies off or on: it does not count them.
    pub(super) fn counts_none(&self) -> bool {
        self.script[..self.next].iter().any(|cmd| cmd.what == What::Reply)
    }

    /// Whether it is to leave without a word now.
    pub(super) fn walks_out(&self) -> bool {
        self.manner.leaves_after.is_some_and(|n| self.next as u32 >= n)
    }

    /// Whether it has lost patience with a pop that has no end.
    pub(super) fn is_stuck(&self, now: Now) -> bool {
        let forever = |c: &Cmd| c.what == What::Blpop { forever: true };
        !self.half_closed && self.first_owed().is_some_and(forever) && now > self.since + PATIENCE
    }

    /// It will send no more, whatever it had still to say.
    pub(super) fn half_closes(&mut self) {
        self.half_closed = true;
        self.next = self.script.len();
        self.outbox.clear();
    }

    /// Whether it is to say now that it will send no more.
    pub(super) fn half_closes_now(&mut self) -> bool {
        let now = self.manner.half_closes
            && !self.half_closed
            && self.next == self.script.len()
            && self.outbox.is_empty();
        self.half_closed |= now;
        now
    }

    /// Takes in what was read.
    pub(super) fn hear(&mut self, now: Now, bytes: &[u8]) -> Result<(), String> {
        self.input.extend_from_slice(bytes);
        let mut at = 0;
        while at < self.input.len() {
            if self.monitors && self.pending.is_empty() {
                // From here on bytes are not counted.
                self.uncounted.extend_from_slice(&self.input[at..]);
                at = self.input.len();
                break;
            }
            let found = match resp::reply(&self.input[at..]) {
                Err(_) if self.faults && self.first_owed().is_some_and(|c| c.what == What::Monitor) => {
                    // Garbage that was under way when it began not to count bytes any longer.
                    self.monitors = true;
                    self.pending.clear();
                    continue;
                }
                found => found.map_err(|e| self.told(&e))?,
            };
            let Some((value, len)) = found else { break };
            let raw = self.input[at..at + len].to_vec();
            at += len;
            self.since = now;
            self.reply(value, raw)?;
        }
        self.input.drain(..at);
        Ok(())
    }

    /// The proxy closed the connection: may it?
    pub(super) fn closed(&self) -> Result<(), String> {
        let last = self.script.get(..self.next).unwrap_or_default().last();
        let own_will = last.is_some_and(|c| matches!(c.what, What::Quit | What::Malformed | What::Monitor));
        let bound = self.monitors || !self.subs.is_empty() || self.half_closed;
        let subscribes =
            self.pending.iter().any(|(c, _)| matches!(c.what, What::Subscribe(_) | What::Unsubscribe { .. }));
        // A reply of which a part was given cannot be given again.
        let in_part = !self.input.is_empty() || self.huge;
        if own_will && self.pending.is_empty() || self.monitors || self.half_closed {
            return Ok(());
        }
        let pops = self.closes_pops && self.first_owed().is_some_and(|c| self.waits_to_pop(c));
        if self.faults && (bound || subscribes || in_part || own_will || pops) {
            return Ok(());
        }
        Err(self.told("was closed without a reason"))
    }

    /// Whether a command waits until there is something to pop.
    fn waits_to_pop(&self, cmd: &Cmd) -> bool {
        matches!(cmd.what, What::Blpop { .. }) && self.tx.is_none()
    }

    fn told(&self, what: &str) -> String {
        let front = self.pending.front().map(|(c, n)| (c.seq, &c.what, *n));
        format!(
            "client {}: {what}; it waits for {front:?} and {} more, tx {:?}, subs {}",
            self.id,
            self.pending.len().saturating_sub(1),
            self.tx,
            self.subs.len()
        )
    }

    fn is_message(&self, v: &Value) -> bool {
        let parts = match v {
            Value::Push(p) => p,
            Value::Array(p) if self.state.proto == 2 && !self.subs.is_empty() => p,
            _ => return false,
        };
        parts.first().is_some_and(|w| w.is_bulk(b"message") || w.is_bulk(b"pmessage"))
    }

    fn reply(&mut self, v: Value, raw: Vec<u8>) -> Result<(), String> {
        if self.is_message(&v) {
            let (Value::Push(parts) | Value::Array(parts)) = &v else { return Ok(()) };
            let known = matches!(&parts[1], Value::Bulk(ch) if self.subs.contains(ch));
            self.by_pattern += u64::from(parts[0].is_bulk(b"pmessage"));
            return if known {
                Ok(())
            } else {
                Err(self.told(&format!("got {v:?} of no channel of its own")))
            };
        }
        if self.monitors && self.pending.is_empty() {
            return Ok(());
        }
        let Some(cmd) = self.first_owed().cloned() else {
            return Err(self.told(&format!("got {v:?}, which it did not ask for")));
        };
        if matches!(cmd.what, What::Subscribe(_) | What::Unsubscribe { .. }) && self.confirmation(&cmd, &v)? {
            return Ok(());
        }
        self.pending.pop_front();
        self.heard.push((cmd.seq, raw.clone()));
        self.judge(&cmd, v, raw)
    }

    /// A confirmation of a subscription; `false` if it is something else.
    fn confirmation(&mut self, cmd: &Cmd, v: &Value) -> Result<bool, String> {
        let (Value::Push(parts) | Value::Array(parts)) = v else { return Ok(false) };
        let (word, adds, named) = match &cmd.what {
            What::Subscribe(ch) => (&b"subscribe"[..], true, ch),
            What::Unsubscribe { names, .. } => (&b"unsubscribe"[..], false, names),
            _ => return Ok(false),
        };
        let patterns = match &cmd.what {
            What::Unsubscribe { patterns, .. } => *patterns,
            _ => named.first().is_some_and(|name| is_pattern(name)),
        };
        let word = [if patterns { &b"p"[..] } else { b"" }, word].concat();
        let Some((_, left)) = self.pending.front_mut() else { return Ok(false) };
        if *left == 0 {
            // UNSUBSCRIBE of all: as many as there are, or one.
            *left = (self.subs.iter().filter(|name| is_pattern(name) == patterns).count() as u32).max(1);
        }
        let right = parts.len() == 3 && parts[0].is_bulk(&word);
        let channel = match &parts.get(1) {
            Some(Value::Bulk(ch)) => Some(ch.clone()),
            _ => None,
        };
        let i = named.len().saturating_sub(*left as usize);
        let expected = named.get(i).is_none_or(|n| Some(n) == channel.as_ref());
        if !right || !expected {
            return Err(self.told(&format!("got {v:?} for a confirmation")));
        }
        *left -= 1;
        let done = *left == 0;
        if let Some(ch) = channel {
            if adds {
                self.subs.insert(ch);
            } else {
                self.subs.remove(&ch);
            }
        }
        if done && let Some((cmd, _)) = self.pending.pop_front() {
            self.heard.push((cmd.seq, b"confirmed".to_vec()));
        }
        Ok(true)
    }

    fn settle(&mut self, seq: u32, outcome: Outcome, state: State, in_tx: bool, raw: Option<Vec<u8>>) {
        let tag = Tag { client: self.id, seq };
        let sure = seq > self.unsure_to;
        self.settled.push(Settled { tag, outcome, state, sure, in_tx, raw });
    }

    fn judge(&mut self, cmd: &Cmd, v: Value, raw: Vec<u8>) -> Result<(), String> {
        if let Value::Error(text) = &v {
            return self.judge_error(cmd, text, raw);
        }
        let ok = v == Value::Simple("OK".into());
        let wrong = || Err(format!("got {v:?} for command {} {:?}", cmd.seq, cmd.what));
        if self.tx.is_some() && !matches!(cmd.what, What::Exec | What::Discard | What::Quit | What::Reset) {
            return match v == Value::Simple("QUEUED".into()) {
                true => {
                    self.queue(cmd);
                    Ok(())
                }
                false => wrong().map_err(|e: String| self.told(&e)),
            };
        }
        let tag = tag_bytes(Tag { client: self.id, seq: cmd.seq });
        let right = match &cmd.what {
            What::Echo { ping: true } if self.state.proto == 2 && !self.subs.is_empty() => {
                matches!(&v, Value::Array(a) if a.len() == 2 && a[1].is_bulk(&tag))
            }
            What::Echo { .. } => v.is_bulk(&tag),
            What::Mget => matches!(&v, Value::Array(a) if a.len() == 2 && a[1].is_bulk(&tag)),
            What::Eval | What::Evalsha => v.is_bulk(&tag),
            What::Get => matches!(v, Value::Bulk(_) | Value::Nil),
            What::Lrange => matches!(v, Value::Array(_)),
            What::Set | What::Multi | What::Watch | What::Unwatch | What::Quit => ok,
            // Garbage that comes before it was sent is passed on uncounted, too.
            What::Monitor => ok || self.faults,
            What::Select(_) | What::Auth(..) | What::Setname(_) => ok,
            What::Incr => v == Value::Int(1),
            What::Append | What::Rpush | What::Publish | What::Wait => matches!(v, Value::Int(_)),
            What::Blpop { .. } => matches!(&v, Value::Array(a) if a.len() == 2) || v == Value::Nil,
            What::Exec => {
                matches!(v, Value::Array(_) | Value::Nil) && self.tx.as_ref().is_some_and(|tx| !tx.bad)
            }
            What::Discard => ok && self.tx.is_some(),
            What::Hello { .. } => matches!(v, Value::Array(_) | Value::Map(_)),
            What::ClientId => matches!(&v, Value::Int(n) if self.session_id.is_none_or(|id| id == *n)),
            What::Unblock => matches!(v, Value::Int(0 | 1)),
            What::Getname => match &v {
                Value::Bulk(n) => *n == self.state.name,
                v => *v == Value::Nil && self.state.name.is_empty(),
            },
            What::Reset => v == Value::Simple("RESET".into()),
            What::Subscribe(_) | What::Unsubscribe { .. } | What::Unknown | What::Refused => false,
            What::Malformed | What::Silent | What::Reply => false,
        };
        if !right {
            return wrong().map_err(|e: String| self.told(&e));
        }
        self.apply(cmd, &v)?;
        let raw = is_verbatim(&cmd.what).then_some(raw);
        if !matches!(cmd.what, What::Exec | What::Discard) {
            self.settle(cmd.seq, Outcome::Done, self.state.clone(), false, raw);
        }
        Ok(())
    }

    /// A reply without an error changes the session.
    fn apply(&mut self, cmd: &Cmd, v: &Value) -> Result<(), String> {
        match &cmd.what {
            What::Select(db) => self.state.db = *db,
            What::Auth(user, _) => self.becomes(user),
            What::Hello { proto, auth, name } => {
                if let Some(p) = proto {
                    self.state.proto = *p;
                }
                if let Some((user, _)) = auth {
                    self.becomes(user);
                }
                if let Some(n) = name {
                    self.state.name = n.clone();
                }
                let (Value::Array(parts) | Value::Map(parts)) = v else { return Ok(()) };
                let map = matches!(v, Value::Map(_));
                if map != (self.state.proto == 3) {
                    return Err(self.told(&format!("got {v:?} in the wrong protocol")));
                }
                if let Some(Value::Int(id)) = parts.get(5) {
                    self.same_id(*id)?;
                }
            }
            What::ClientId => {
                if let Value::Int(id) = v {
                    self.same_id(*id)?;
                }
            }
            What::Setname(n) => self.state.name = n.clone(),
            What::Multi => self.tx = Some(OpenTx { queued: Vec::new(), bad: false, db: self.state.db }),
            What::Watch => self.watching.push(Tag { client: self.id, seq: cmd.seq }),
            What::Unwatch => self.watching.clear(),
            What::Exec | What::Discard => return self.end_tx(v),
            What::Reset => {
                self.state = State { user: self.default_user.clone(), db: 0, proto: 2, name: Vec::new() };
                self.tx = None;
                self.watching.clear();
                self.subs.clear();
            }
            What::Monitor => self.monitors = true,
            _ => {}
        }
        Ok(())
    }

    /// It has authenticated.
    fn becomes(&mut self, user: &str) {
        self.state.user = Some(if self.own_users { "alice" } else { user }.into());
    }

    fn same_id(&mut self, id: i64) -> Result<(), String> {
        if *self.session_id.get_or_insert(id) != id {
            return Err(self.told(&format!("has a new id, {id}")));
        }
        Ok(())
    }

    fn queue(&mut self, cmd: &Cmd) {
        let Some(tx) = &mut self.tx else { return };
        let state = State { db: tx.db, ..self.state.clone() };
        if let What::Select(db) = cmd.what
            && db < super::server::DATABASES
        {
            tx.db = db;
        }
        tx.queued.push((cmd.seq, cmd.what.clone(), state));
    }

    fn end_tx(&mut self, v: &Value) -> Result<(), String> {
        let Some(tx) = self.tx.take() else { return Ok(()) };
        let watched = std::mem::take(&mut self.watching);
        let outcome = match v {
            Value::Array(parts) => {
                if parts.len() != tx.queued.len() {
                    return Err(self.told(&format!("queued {:?} and got {v:?}", tx.queued)));
                }
                for ((seq, what, _), part) in tx.queued.iter().zip(parts) {
                    let tag = tag_bytes(Tag { client: self.id, seq: *seq });
                    let own = match what {
                        What::Mget => matches!(part, Value::Array(a) if a[1].is_bulk(&tag)),
                        What::Echo { .. } | What::Eval => part.is_bulk(&tag),
                        What::Evalsha => part.is_bulk(&tag) || is_noscript(part),
                        What::Incr => *part == Value::Int(1),
                        _ => true,
                    };
                    if !own {
                        return Err(self.told(&format!("got {part:?} for command {seq} of its transaction")));
                    }
                }
                self.state.db = tx.db;
                Outcome::Done
            }
            Value::Error(text)
                if text.starts_with("NOTDURABLE ")
                    || text.starts_with("UNCERTAIN the command was executed") =>
            {
                // What it did to the session it did.
                self.state.db = tx.db;
                Outcome::Uncertain
            }
            Value::Error(text) if text.starts_with("UNCERTAIN") => Outcome::Uncertain,
            _ => Outcome::NotExecuted,
        };
        let tags = |seq: u32| Tag { client: self.id, seq };
        let tags = tx.queued.iter().map(|(seq, ..)| tags(*seq)).collect();
        self.transactions.push(Transaction { tags, watched, outcome });
        for (seq, _, state) in tx.queued {
            self.settle(seq, outcome, state, true, None);
        }
        Ok(())
    }

    fn judge_error(&mut self, cmd: &Cmd, text: &str, raw: Vec<u8>) -> Result<(), String> {
        let is = |p: &str| text.starts_with(p);
        let in_tx = self.tx.is_some();
        let subscribed = self.state.proto == 2 && !self.subs.is_empty();
        let node = is("READONLY ") || is("LOADING ") || is("MASTERDOWN Link");
        let legit = match &cmd.what {
            // It is closed instead, if all of the request was kept.
            _ if is("UNCERTAIN ") && self.waits_to_pop(cmd) && cmd.bytes.len() <= self.shown_from => {
                self.faults && !self.closes_pops
            }
            _ if is("UNCERTAIN ") || is("MASTERDOWN no master") => self.faults,
            _ if is("NOTDURABLE ") => self.faults && self.durable,
            // Shown where it cannot be sent again: in a transaction, of a request that is not kept, and of what others
            // of the session follow or were executed after.
            // No error of a script proves that it did nothing.
            What::Eval | What::Evalsha if node => self.faults,
            _ if node => {
                self.faults && (in_tx || cmd.bytes.len() > self.shown_from || self.manner.window > 1)
            }
            _ if is("NOAUTH ") || is("EXECABORT Transaction discarded because of: NOAUTH") => {
                self.state.user.is_none()
            }
            _ if is("ERR Can't execute") => subscribed,
            _ if is("ERR too many sessions") => self.faults,
            What::Append => is("NOPERM ") && self.state.user.as_deref() == Some("bob") || is("WRONGTYPE"),
            What::Rpush | What::Get | What::Incr => is("WRONGTYPE"),
            What::Evalsha => is("NOSCRIPT "),
            What::Auth(_, s) | What::Hello { auth: Some((_, s)), .. } if is("WRONGPASS ") => *s == "wrong",
            What::Auth(u, _) | What::Hello { auth: Some((u, _)), .. } if is("ERR AUTH <password>") => {
                *u == "default"
            }
            What::Hello { proto, .. } => is("NOPROTO") && *proto == Some(4),
            What::Select(db) => is("ERR DB index is out of range") && *db >= super::server::DATABASES,
            What::Multi => is("ERR MULTI calls can not be nested") && in_tx,
            What::Watch => is("ERR WATCH inside MULTI") && in_tx,
            What::Exec => is("EXECABORT ") && in_tx || is("ERR EXEC without MULTI") && !in_tx,
            What::Discard => is("ERR DISCARD without MULTI") && !in_tx,
            What::Wait => self.faults && (is("UNBLOCKED ") || is("ERR WAIT cannot be used with replica")),
            What::Blpop { .. } => is("UNBLOCKED ") && self.faults,
            What::Unknown => is("ERR unknown command"),
            What::Refused => is("REFUSED "),
            What::Malformed => is("ERR Protocol error: "),
            _ => false,
        };
        if !legit {
            return Err(self.told(&format!("got -{text} for command {} {:?}", cmd.seq, cmd.what)));
        }
        if let Some(tx) = &mut self.tx {
            tx.bad |= matches!(cmd.what, What::Unknown | What::Refused) && !is("UNCERTAIN ");
        }
        // Of a HELLO with AUTH the rest could not be asked of a server.
        let asked = !["NOAUTH ", "WRONGPASS ", "NOPROTO"].iter().any(|p| is(p));
        if let What::Hello { auth: Some((user, _)), .. } = &cmd.what
            && self.own_users
            && asked
        {
            self.becomes(user);
        }
        if matches!(cmd.what, What::Exec) && in_tx {
            if is("MASTERDOWN no master") {
                return Err(self.told("is told MASTERDOWN for EXEC, which leaves the transaction open"));
            }
            if is("UNCERTAIN ") || is("NOTDURABLE ") {
                self.unsure_to = self.pending.back().map_or(self.unsure_to, |(c, _)| c.seq);
            }
            return self.end_tx(&Value::Error(text.into()));
        }
        if is("UNCERTAIN ") {
            self.unsure_to = self.pending.back().map_or(self.unsure_to, |(c, _)| c.seq);
        }
        let outcome = match () {
            () if is("UNCERTAIN ") || is("NOTDURABLE ") => Outcome::Uncertain,
            () if is("MASTERDOWN ") || is("READONLY ") || is("LOADING ") => Outcome::NotExecuted,
            () => Outcome::Refused,
        };
        let raw =
            (outcome == Outcome::Refused && is_verbatim(&cmd.what) && !is("ERR too many")).then_some(raw);
        let _ = raw;
        self.settle(cmd.seq, outcome, self.state.clone(), in_tx, None);
        Ok(())
    }

    /// Who it is before it says so.
    pub(super) fn first_user(&self) -> Option<&str> {
        self.default_user.as_deref()
    }

    /// Whether the reply to this command tells of what is the connection's or the server's own.
    pub(super) fn is_own(&self, seq: u32) -> bool {
        // How many replicas there are, a server that is alone does not know.
        matches!(
            self.script[seq as usize].what,
            What::ClientId | What::Unblock | What::Hello { .. } | What::Exec | What::Wait | What::Publish
        )
    }
}

fn is_noscript(v: &Value) -> bool {
    matches!(v, Value::Error(text) if text.starts_with("NOSCRIPT "))
}

/// Whether a reply must be, to the byte, what the server said when it executed the command.
fn is_verbatim(what: &What) -> bool {
    matches!(
        what,
        What::Echo { .. }
            | What::Mget
            | What::Set
            | What::Append
            | What::Incr
            | What::Eval
            | What::Evalsha
            | What::Rpush
            | What::Publish
            | What::Blpop { .. }
            | What::Watch
    )
}
