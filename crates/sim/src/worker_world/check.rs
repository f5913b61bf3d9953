//! The checkers, named by product.md's invariants: what the worker sent, what servers executed, what clients were told.
use super::Report;
use super::client::{Outcome, Settled, Transaction};
use super::net::LinkId;
use super::replication::Cut;
use super::resp::{self, Access, Tag, access, tag};
use super::server::Executed;
use pointsman_core::Now;
use pointsman_core::topology::snapshot::{Endpoint, Gate, ShardView, Sign, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What is owed on a connection of an older term is waited for no longer than this (and a turn).
const READ_ON_MAX: Duration = Duration::from_secs(4);

/// A request that was sent (at least its first byte).
#[derive(Debug)]
struct Sent {
    tag: Option<Tag>,
    writes: bool,
    /// Where its reply ends in what the server wrote, once it is written.
    reply_end: Option<u64>,
}

/// What is known of one upstream connection.
#[derive(Debug)]
struct Up {
    term: Term,
    endpoint: Endpoint,
    /// What was sent of a request that is not complete.
    part: Vec<u8>,
    /// The request that is not complete was judged.
    judged: bool,
    /// `ROLE`, the last request of a set-up, was sent.
    ready: bool,
    /// `MONITOR` was sent.
    relays: bool,
    /// Since when it is only read, and which clients wait for what the server still says.
    only_read: Option<(Now, BTreeSet<u32>)>,
    sent: VecDeque<Sent>,
    /// So many of `sent` the server has executed.
    consumed: usize,
    /// So many of them it has answered.
    answered: usize,
}

/// All that the checkers know.
#[derive(Debug, Default)]
pub(super) struct Check {
    view: Option<Arc<ShardView>>,
    /// The worker holds the shard by itself since this sign.
    signed: Option<Now>,
    newest_sign: Now,
    ups: BTreeMap<LinkId, Up>,
    executed: BTreeMap<Tag, Vec<Executed>>,
    order: Vec<Tag>,
    settled: BTreeMap<Tag, Settled>,
    /// Commands of which the last byte was sent at least once.
    sent_whole: BTreeSet<Tag>,
    broken: Option<String>,
    /// Requests of which a part was sent before the rest was there.
    pub(super) streamed: u64,
    /// Writes whose replies the worker read while the gate for writes was closed, by term.
    after_sign: BTreeMap<Tag, Term>,
    /// Up to where what was written in a history was kept by the promotion that ended it, and by all since.
    cuts: BTreeMap<u64, (u64, u64)>,
    /// Clients whose writes are durable.
    pub(super) durable: BTreeSet<u32>,
    /// Clients that were closed for not reading, as far as they know.
    pub(super) overruns: u64,
}

impl Check {
    /// Nothing has happened; the writes of these clients are durable.
    pub(super) fn new(durable: BTreeSet<u32>) -> Check {
        Check { durable, ..Check::default() }
    }

    /// The worker was given a snapshot.
    pub(super) fn installed(&mut self, view: &Arc<ShardView>) {
        let newer = self
            .view
            .as_ref()
            .is_some_and(|old| view.term > old.term || old.master.is_some() && view.master.is_none());
        if self.view.as_ref().is_some_and(|old| view.term < old.term) {
            return;
        }
        if newer || view.proven_at > self.newest_sign {
            self.signed = None;
        }
        self.view = Some(view.clone());
        if view.writes == Gate::Open && self.signed.is_none() {
            // The same master is proven: it has all that it has answered.
            self.after_sign.retain(|_, term| *term != view.term);
        }
    }

    /// A node was promoted.
    pub(super) fn cut(&mut self, cut: &Cut) {
        let (history, kept) = cut.old;
        let (_, all) = self.cuts.entry(history).or_insert((kept, kept));
        *all = kept.min(*all);
        // What it had not followed of an earlier history is gone with those who had.
        if let Some((history, n)) = cut.followed.filter(|(history, _)| *history != cut.old.0) {
            let (_, all) = self.cuts.entry(history).or_insert((u64::MAX, n));
            *all = n.min(*all);
        }
    }

    /// The worker reads what a server wrote up to a byte.
    pub(super) fn reads(&mut self, now: Now, link: LinkId, from: u64, to: u64) {
        let (Some(v), Some(up)) = (&self.view, self.ups.get(&link)) else { return };
        let leased = v.writes_until.is_none_or(|t| now < t);
        let shut = self.signed.is_some() || v.writes != Gate::Open || !leased;
        let read = |s: &&Sent| s.reply_end.is_some_and(|end| from < end && end <= to);
        for tag in up.sent.iter().filter(read).filter_map(|s| s.tag) {
            // What was refused after a sign, and asked again, may be answered when there is none.
            match shut {
                true => self.after_sign.insert(tag, up.term),
                false => self.after_sign.remove(&tag),
            };
        }
    }

    /// (10) What is acknowledged although its reply came after a sign is not lost by that switch; (11) what is
    /// acknowledged to a client whose writes are durable is not lost at all.
    fn acknowledged(&self, report: &mut Report) -> Result<(), String> {
        for s in self.settled.values().filter(|s| s.outcome == Outcome::Done) {
            let Some(e) = self.executed.get(&s.tag).and_then(|all| all.iter().find(|e| e.write)) else {
                continue;
            };
            let Some((history, at)) = e.written else { continue };
            let (first, all) = self.cuts.get(&history).copied().unwrap_or((u64::MAX, u64::MAX));
            let durable = self.durable.contains(&s.tag.client);
            report.count("durable writes acknowledged", u64::from(durable));
            report.count("acknowledged and lost", u64::from(at > first && !durable));
            if durable && at > all {
                return Err(format!("(11) {e:?} was acknowledged, and lost: only {all} was kept"));
            }
            let after = self.after_sign.contains_key(&s.tag);
            report.count("acknowledged after a sign", u64::from(after && !durable));
            if after && !durable && at > first {
                return Err(format!(
                    "(10) {e:?} was acknowledged after a sign, and lost: only {first} was kept"
                ));
            }
        }
        Ok(())
    }

    /// (2) What belongs to an older term is closed before anything else happens, but for what is only read.
    pub(super) fn fenced(&self, now: Now) -> Result<(), String> {
        let Some(view) = &self.view else { return Ok(()) };
        let open = |up: &Up| {
            let deposed = view.master.as_ref() != Some(&up.endpoint);
            up.term < view.term
                && !(deposed && up.only_read.as_ref().is_some_and(|(at, _)| now.since(*at) < READ_ON_MAX))
        };
        match self.ups.iter().find(|(_, up)| open(up)) {
            Some((link, up)) => Err(format!("(2) {link}, of {:?}, is open in {:?}", up.term, view.term)),
            None => Ok(()),
        }
    }

    /// (2) A connection is only read from now on, of whose answers the worker has taken so much: all of its requests were
    /// sent whole, and some write.
    pub(super) fn only_read(&mut self, link: LinkId, now: Now, taken: u64) -> Result<(), String> {
        let Some(up) = self.ups.get_mut(&link) else { return Ok(()) };
        let owed = up.sent.iter().filter(|s| s.writes && s.reply_end.is_none_or(|end| end > taken));
        let mut owed: Vec<&Sent> = owed.collect();
        if owed.is_empty() || !up.part.is_empty() {
            return Err(format!("(2) {link} is read on for nothing: {:?}", up.sent));
        }
        if owed.iter().any(|s| s.tag.is_none()) {
            // An `EXEC`: all of it is one session's.
            owed = up.sent.iter().collect();
        }
        let waits: BTreeSet<u32> = owed.iter().filter_map(|s| s.tag).map(|t| t.client).collect();
        up.only_read = Some((now, waits));
        Ok(())
    }

    /// The worker told a sign.
    pub(super) fn signed(&mut self, sign: &Sign) {
        if self.view.as_ref().is_some_and(|v| v.term == sign.term) {
            self.signed.get_or_insert(sign.at);
            self.newest_sign = sign.at;
        }
    }

    /// The worker wants a connection.
    pub(super) fn opened(&mut self, link: LinkId, endpoint: Endpoint) {
        let term = self.view.as_ref().map_or(Term(0), |v| v.term);
        let up = Up {
            term,
            endpoint,
            part: Vec::new(),
            judged: false,
            ready: false,
            relays: false,
            only_read: None,
            sent: VecDeque::new(),
            consumed: 0,
            answered: 0,
        };
        self.ups.insert(link, up);
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, link: LinkId) {
        self.ups.remove(&link);
    }

    fn allows(&self, link: LinkId, what: Access, now: Now) -> Result<(), String> {
        let Some(v) = &self.view else { return Err("before the first snapshot".into()) };
        let to = self.ups.get(&link).map(|up| &up.endpoint);
        if what != Access::Write && to.is_some() && to == v.reads_from.as_ref() {
            return Ok(());
        }
        if to != v.master.as_ref() {
            return Err(format!("to {to:?}, which is neither the master nor the replica for reads: {v:?}"));
        }
        if let Some(at) = self.signed {
            return Err(format!("although the worker holds since {at:?}"));
        }
        let gate = if what == Access::Write { v.writes } else { v.reads };
        if gate != Gate::Open || v.master.is_none() {
            return Err(format!("through a closed gate: {v:?}"));
        }
        if what == Access::Write && v.writes_until.is_some_and(|t| now >= t) {
            return Err(format!("after the lease: {v:?}"));
        }
        Ok(())
    }

    /// The first `n` of `bytes` were written to a connection; the rest stands behind them. `taken` says how much of
    /// each server's answers the worker has read.
    pub(super) fn sent(
        &mut self,
        now: Now,
        link: LinkId,
        bytes: &[u8],
        n: usize,
        taken: &BTreeMap<LinkId, u64>,
    ) -> Result<(), String> {
        let term = self.view.as_ref().map_or(Term(0), |v| v.term);
        let Some(up) = self.ups.get_mut(&link) else {
            return Err(format!("(2) sent on {link}, which is gone"));
        };
        if up.term != term || up.only_read.is_some() {
            return Err(format!("(2) sent on a connection of {:?} in {term:?}", up.term));
        }
        let mut all = std::mem::take(&mut up.part);
        let before = all.len();
        all.extend_from_slice(bytes);
        let end = before + n;
        let mut at = 0;
        while at < end {
            let (name, whole, len) = front(&all[at..])?;
            let Some((name, t)) = name else { break };
            let up = self.ups.get_mut(&link).expect("looked up above");
            let first = !std::mem::take(&mut up.judged);
            let setup = !up.ready;
            up.relays |= name == b"MONITOR"
                || name == b"CLIENT" && all[at..(at + len).min(all.len())].windows(5).any(|w| w == b"REPLY");
            up.ready |= name == b"ROLE" && whole && at + len <= end;
            if first {
                let writes = access(&name) == Access::Write;
                up.sent.push_back(Sent { tag: t, writes, reply_end: None });
            } else if let (Some(last), Some(t)) = (up.sent.back_mut(), t) {
                last.tag = Some(t);
            }
            // Where writes end, and who has them, may be asked while commands wait.
            let asks = t.is_none() && matches!(&name[..], b"ROLE" | b"PING" | b"WAIT");
            if !setup && !asks {
                // What of this request is sent now must be allowed now.
                self.allows(link, access(&name), now)
                    .map_err(|e| format!("(2) {} was sent {e}", name.escape_ascii()))?;
            }
            if let Some(t) = t {
                self.one_place(t, link, taken)?;
            }
            self.streamed += u64::from(!whole && first);
            if !whole || at + len > end {
                self.ups.get_mut(&link).expect("looked up above").judged = true;
                break;
            }
            if let Some(t) = t {
                self.sent_whole.insert(t);
            }
            at += len;
        }
        let up = self.ups.get_mut(&link).expect("looked up above");
        up.part = all[at..end].to_vec();
        Ok(())
    }

    /// (5) All that a session is owed comes over one connection. (What is only read owes nothing to those who do not wait
    /// for it.)
    fn one_place(&self, t: Tag, link: LinkId, taken: &BTreeMap<LinkId, u64>) -> Result<(), String> {
        let owes = |up: &Up| up.only_read.as_ref().is_none_or(|(_, waits)| waits.contains(&t.client));
        for (other, up) in self.ups.iter().filter(|(other, up)| **other != link && owes(up)) {
            let read = taken.get(other).copied().unwrap_or(0);
            let owed = |s: &&Sent| s.reply_end.is_none_or(|end| end > read);
            let mut of_client = up.sent.iter().filter(|s| s.tag.is_some_and(|o| o.client == t.client));
            if let Some(s) = of_client.find(owed) {
                return Err(format!(
                    "(5) {t:?} was sent on {link} while {:?} is unanswered on {other}",
                    s.tag
                ));
            }
        }
        Ok(())
    }

    /// Whether what a server says on a connection is passed on uncounted, whatever it is.
    pub(super) fn relays(&self, link: LinkId) -> bool {
        const MONITOR: &[u8] = b"*1\r\n$7\r\nMONITOR\r\n";
        self.ups
            .get(&link)
            .is_some_and(|up| up.relays || !up.part.is_empty() && MONITOR.starts_with(&up.part))
    }

    /// A server began to execute the next command of a connection.
    pub(super) fn consumed(&mut self, link: LinkId) {
        if let Some(up) = self.ups.get_mut(&link) {
            up.consumed += 1;
        }
    }

    /// All that a server has executed of a connection is answered, up to this byte.
    pub(super) fn answered(&mut self, link: LinkId, end: u64) {
        let Some(up) = self.ups.get_mut(&link) else { return };
        while up.answered < up.consumed {
            if let Some(s) = up.sent.get_mut(up.answered) {
                s.reply_end = Some(end);
            }
            up.answered += 1;
        }
    }

    /// A command that changed the state of a connection was executed.
    pub(super) fn state_command(&mut self, link: LinkId, name: &str) {
        let Some(up) = self.ups.get(&link) else { return };
        // Those that stand behind it, and those before it whose answers are not settled: all of one session.
        let behind = up.sent.iter().skip(up.consumed.saturating_sub(1));
        let sessions: BTreeSet<u32> = behind.filter_map(|s| s.tag).map(|t| t.client).collect();
        if sessions.len() > 1 {
            let what = format!("(5) {name} was executed on {link} before commands of sessions {sessions:?}");
            self.broken.get_or_insert(what);
        }
    }

    /// A server executed a command.
    pub(super) fn executed(&mut self, e: Executed) {
        self.order.push(e.tag);
        self.executed.entry(e.tag).or_default().push(e);
    }

    /// A client was told what came of a command.
    pub(super) fn settled(&mut self, s: Settled) -> Result<(), String> {
        if let Some(raw) = &s.raw {
            let newest = self.executed.get(&s.tag).and_then(|all| all.last());
            let Some(e) = newest else {
                return Err(format!(
                    "(4) {:?} was answered {} but never executed",
                    s.tag,
                    raw.escape_ascii()
                ));
            };
            if e.reply != *raw {
                let (said, got) = (e.reply.escape_ascii(), raw.escape_ascii());
                return Err(format!("(4) the server answered {:?} with {said}, the client got {got}", s.tag));
            }
        }
        if s.outcome == Outcome::Uncertain && !s.in_tx && !self.sent_whole.contains(&s.tag) {
            let tagged = self.executed.contains_key(&s.tag);
            self.settled.insert(s.tag, s.clone());
            // Commands without a tag on the wire cannot be followed.
            return if tagged {
                Err(format!("(6) {:?} is uncertain, but was not sent", s.tag))
            } else {
                Ok(())
            };
        }
        self.settled.insert(s.tag, s);
        Ok(())
    }

    /// (6) All or nothing, over one connection.
    pub(super) fn transaction(&self, tx: &Transaction) -> Result<(), String> {
        let runs: Vec<&Executed> = tx
            .tags
            .iter()
            .filter_map(|t| self.executed.get(t))
            .flat_map(|all| all.iter().filter(|e| e.in_tx))
            .collect();
        if tx.outcome == Outcome::NotExecuted && !runs.is_empty() {
            return Err(format!("(6) a transaction was discarded, but executed: {:?}", runs[0]));
        }
        if runs.iter().any(|e| e.conn != runs[0].conn) {
            return Err(format!("(6) a transaction was executed in parts: {runs:?}"));
        }
        // What a connection watches another one does not know of.
        // (What changes a session may be asked once more, when it is not known that it was done.)
        for watch in tx.watched.iter().filter_map(|t| self.executed.get(t)) {
            if let Some(run) = runs.first().filter(|run| watch.iter().all(|w| w.conn != run.conn)) {
                return Err(format!("(7) {run:?} was executed elsewhere than {watch:?}"));
            }
        }
        Ok(())
    }

    /// The checks that need everything.
    pub(super) fn finish(&self, report: &mut Report) -> Result<(), String> {
        if let Some(what) = &self.broken {
            return Err(what.clone());
        }
        let mut last: BTreeMap<u32, u32> = BTreeMap::new();
        let mut at: BTreeMap<Tag, usize> = BTreeMap::new();
        for tag in &self.order {
            let i = at.entry(*tag).or_default();
            let e = &self.executed[tag][*i];
            *i += 1;
            if !e.write {
                continue;
            }
            let newest = last.entry(tag.client).or_insert(0);
            if tag.seq < *newest {
                return Err(format!("(6) {e:?} was executed after command {newest} of its session"));
            }
            *newest = tag.seq;
        }
        for (tag, all) in &self.executed {
            self.once(*tag, all)?;
            report.count("executed", all.len() as u64);
            report.count("executed again", all.len() as u64 - 1);
        }
        let in_tx = self.executed.values().flatten().filter(|e| e.in_tx).count();
        report.count("executed in transactions", in_tx as u64);
        report.count("requests that stream", self.streamed);
        self.acknowledged(report)?;
        let told = |o: Outcome| self.settled.values().filter(|s| s.outcome == o).count() as u64;
        report.count("told uncertain", told(Outcome::Uncertain));
        report.count("told not executed", told(Outcome::NotExecuted));
        Ok(())
    }

    fn once(&self, tag: Tag, all: &[Executed]) -> Result<(), String> {
        let writes = all.iter().filter(|e| e.write).count();
        if writes > 1 {
            return Err(format!("(6) executed twice: {all:?}"));
        }
        if all.len() > 1 && !matches!(&all[0].name[..], "PING" | "ECHO" | "MGET" | "WATCH") {
            // Only what had no effect the first time.
            let effect = all[..all.len() - 1].iter().any(|e| e.write);
            if effect {
                return Err(format!("(6) sent again after it was executed: {all:?}"));
            }
        }
        let Some(s) = self.settled.get(&tag) else { return Ok(()) };
        // A pop that found nothing on a deposed master has done nothing, and is asked again; nor has what was an error.
        let did_nothing = |e: &Executed| !e.write && (e.name == "BLPOP" || e.reply.starts_with(b"-"));
        if s.outcome == Outcome::NotExecuted && !all.iter().all(did_nothing) {
            return Err(format!("(6) the client was told that it was not executed: {all:?}"));
        }
        for e in all.iter().filter(|_| s.sure) {
            let user = s.state.user.as_deref().unwrap_or("nobody");
            // What only touches the connection may run in any database.
            if e.user != user || e.proto != s.state.proto || e.db != s.state.db {
                return Err(format!("(7) {e:?} should have run as {:?}", s.state));
            }
            let own = e.in_tx || e.name == "BLPOP" || e.name == "WATCH";
            if own && e.conn_name != s.state.name {
                return Err(format!("(7) {e:?} should have run on a connection called {:?}", s.state.name));
            }
        }
        Ok(())
    }
}

type Named = Option<(Vec<u8>, Option<Tag>)>;

/// The request at the front: its name and tag, as far as they are there, whether it is whole, and how long it is.
fn front(buf: &[u8]) -> Result<(Named, bool, usize), String> {
    if let Some((args, len)) = resp::request(buf)? {
        let name = args.first().map(|n| n.to_ascii_uppercase()).unwrap_or_default();
        return Ok((Some((name, tag(&args))), true, len));
    }
    // The arguments that are there, of a request that streams through.
    let text = buf;
    let mut parts = text.split(|b| *b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l));
    let (_, _) = (parts.next(), parts.next());
    let Some(name) = parts.next().filter(|_| text.iter().filter(|b| **b == b'\n').count() >= 3) else {
        return Ok((None, false, 0));
    };
    let tag = parts.find_map(resp::tag_of);
    Ok((Some((name.to_ascii_uppercase(), tag)), false, buf.len()))
}
