//! The verified load: writers that remember each acknowledged write, and readers that check what they read.
//!
//! ```text
//! writer threads ─SET─▶ target     ─acknowledged─▶ ┐
//! reader threads ─GET─▶ target     ─seen?────────▶ ├ Book ─▶ stats, verdict
//! check (caller) ─MGET▶ the master ─missing──────▶ ┘
//! ```
use super::book::{Book, Switch, Verdict, WriteId};
use super::chaos::Random;
use crate::client::{Client, Value, is_timeout};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longer than any hold: a proxy that does not answer within this has forgotten us.
const ANSWER_MAX: Duration = Duration::from_secs(90);
/// How long a connection may take to open, and the rest of a reply to come.
const SOCKET_MAX: Duration = Duration::from_secs(5);
/// How often a waiting thread looks whether it shall end.
const LOOK: Duration = Duration::from_millis(100);
/// The pause after a failed connection.
const RETRY: Duration = Duration::from_millis(50);
/// Different kinds of errors that are counted by name; the rest are `other`.
const KINDS_MAX: usize = 32;
/// Keys per MGET or DEL of a check.
const BATCH: usize = 500;
/// What was acknowledged this long ago, and was there at a check, is settled.
const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// How much to do.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where: the proxy.
    pub target: SocketAddr,
    /// How many connections write.
    pub writers: usize,
    /// How many read.
    pub readers: usize,
    /// Operations per second of each connection, at most.
    pub rate: u32,
}

impl LoadOptions {
    /// A small load: 1000 writes and 500 reads per second.
    pub fn small(target: SocketAddr) -> Self {
        Self { target, writers: 4, readers: 2, rate: 250 }
    }
}

/// Figures so far.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Acknowledged writes.
    pub writes: u64,
    /// Answered reads.
    pub reads: u64,
    /// Errors by kind: the first word of an error reply, or `connect`, `closed`, `timeout`, `garbage`.
    pub errors: BTreeMap<String, u64>,
    /// Writes of which the proxy said that their outcome is unknown.
    pub uncertain: u64,
    /// The longest time between two acknowledgements of writes, the one that lasts included, and when it began.
    pub longest_pause: (Duration, Duration),
    /// Acknowledged writes that were missing at the last check.
    pub lost: usize,
}

impl Stats {
    /// All errors together.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    fn error(&mut self, kind: &str) {
        let kind =
            if self.errors.len() < KINDS_MAX || self.errors.contains_key(kind) { kind } else { "other" };
        *self.errors.entry(kind.to_owned()).or_default() += 1;
    }
}

#[derive(Debug)]
struct Tally {
    book: Book,
    stats: Stats,
    last_acknowledged: Duration,
}

#[derive(Debug)]
struct Shared {
    options: LoadOptions,
    begin: Instant,
    stop: AtomicBool,
    tally: Mutex<Tally>,
}

/// A running load; it ends when dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins. Times count from `begin`.
    pub fn start(options: LoadOptions, begin: Instant) -> io::Result<Self> {
        let book = Book::new(options.writers);
        let tally = Tally { book, stats: Stats::default(), last_acknowledged: begin.elapsed() };
        let stop = AtomicBool::new(false);
        let shared = Arc::new(Shared { options, begin, stop, tally: Mutex::new(tally) });
        let mut load = Self { shared: shared.clone(), threads: Vec::new() };
        for writer in 0..shared.options.writers {
            load.thread("writer", move |shared| write_on(shared, writer))?;
        }
        for reader in 0..shared.options.readers {
            load.thread("reader", move |shared| read_on(shared, reader))?;
        }
        Ok(load)
    }

    fn thread(&mut self, name: &str, body: impl Fn(&Shared) + Send + 'static) -> io::Result<()> {
        let shared = self.shared.clone();
        self.threads.push(thread::Builder::new().name(name.into()).spawn(move || body(&shared))?);
        Ok(())
    }

    /// The time since `begin`, as in [`Switch::at`].
    pub fn now(&self) -> Duration {
        self.shared.begin.elapsed()
    }

    /// The figures so far.
    pub fn stats(&self) -> Stats {
        let tally = &mut *self.shared.tally();
        tally.stats.lost = tally.book.lost();
        if !self.shared.stopped() {
            tally.pause_until(self.now());
        }
        tally.stats.clone()
    }

    /// Notes a change of master.
    pub fn switched(&self, switch: Switch) {
        self.shared.tally().book.switched(switch);
    }

    /// Whether a switch has happened since the last check.
    pub fn check_due(&self) -> bool {
        self.shared.tally().book.check_due()
    }

    /// Looks for the acknowledged writes on the master that was granted at `as_of` (a time of [`Load::now`]); forgets
    /// those, there and here, that need no more looking for. An error means that nothing was found out.
    pub fn check(&self, master: &mut Client, as_of: Duration) -> io::Result<()> {
        require_master(master)?;
        let ids = self.shared.tally().book.to_check(as_of);
        let mut missing = BTreeSet::new();
        for batch in ids.chunks(BATCH) {
            let found = master.ask(&command("MGET", batch))?;
            if found.items().len() != batch.len() {
                return Err(io::Error::other("MGET did not answer for each key"));
            }
            let absent = |(id, value): &(&WriteId, &Value)| value.text() != Some(id.value());
            missing.extend(batch.iter().zip(found.items()).filter(absent).map(|(id, _)| *id));
        }
        // A node that was demoted or restarted meanwhile would show less than the master has.
        require_master(master)?;
        let settled = {
            let book = &mut self.shared.tally().book;
            book.checked(as_of, &missing);
            book.settle(as_of.saturating_sub(SETTLED_AFTER))
        };
        settled.chunks(BATCH).try_for_each(|batch| master.ask(&command("DEL", batch)).map(drop))
    }

    /// Ends the load; what is not answered within a moment stays unknown. The figures stay.
    pub fn stop(&mut self) {
        if !self.shared.stop.swap(true, Relaxed) {
            self.shared.tally().pause_until(self.now());
        }
        for thread in self.threads.drain(..) {
            thread.join().expect("the load's threads do not panic");
        }
    }

    /// What the checks have shown.
    pub fn verdict(&self) -> Verdict {
        self.shared.tally().book.verdict()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

fn command(name: &str, ids: &[WriteId]) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(ids.iter().map(WriteId::key)).collect()
}

fn require_master(node: &mut Client) -> io::Result<()> {
    let role = node.ask(&["ROLE"])?.items().first().and_then(Value::text);
    if role.as_deref() == Some("master") { Ok(()) } else { Err(io::Error::other("it is not master now")) }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no code panics while it holds this lock")
    }

    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Waits until the next operation is due. After a stall it goes on at the usual pace, without catching up.
    fn pace(&self, due: &mut Instant) {
        let now = Instant::now();
        *due = (*due + Duration::from_secs(1) / self.options.rate.max(1)).max(now);
        thread::sleep(*due - now);
    }

    /// Sends one command and waits for its reply; `None` if there is none to count (see the errors).
    fn exchange(&self, connection: &mut Option<Client>, args: &[&str]) -> Option<Value> {
        match self.try_exchange(connection, args) {
            Ok(reply) => reply,
            Err((stage, e)) => {
                *connection = None;
                let kind = match e.kind() {
                    _ if stage == "connect" => stage,
                    io::ErrorKind::InvalidData => "garbage",
                    _ if is_timeout(&e) => "timeout",
                    _ => stage,
                };
                self.tally().stats.error(kind);
                thread::sleep(RETRY);
                None
            }
        }
    }

    fn try_exchange(
        &self,
        connection: &mut Option<Client>,
        args: &[&str],
    ) -> Result<Option<Value>, (&'static str, io::Error)> {
        let client = match connection {
            Some(client) => client,
            None => {
                let new = Client::connect(self.options.target, SOCKET_MAX).map_err(|e| ("connect", e))?;
                connection.insert(new)
            }
        };
        let broken = |e| ("closed", e);
        client.send(args).map_err(broken)?;
        let sent = Instant::now();
        while !client.wait(LOOK).map_err(broken)? {
            if self.stopped() {
                *connection = None;
                return Ok(None);
            }
            if sent.elapsed() > ANSWER_MAX {
                return Err(broken(io::ErrorKind::TimedOut.into()));
            }
        }
        client.read().map(Some).map_err(broken)
    }
}

fn write_on(shared: &Shared, writer: usize) {
    let (mut connection, mut due) = (None, Instant::now());
    for seq in 0.. {
        while shared.tally().book.is_full() && !shared.stopped() {
            thread::sleep(LOOK);
        }
        if shared.stopped() {
            return;
        }
        let id = WriteId { writer, seq };
        let reply = shared.exchange(&mut connection, &["SET", &id.key(), &id.value()]);
        let at = shared.begin.elapsed();
        shared.tally().write_answered(id, reply, at);
        shared.pace(&mut due);
    }
}

fn read_on(shared: &Shared, reader: usize) {
    let (mut connection, mut due) = (None, Instant::now());
    let mut random = Random::new(reader as u64);
    while !shared.stopped() {
        let Some(id) = shared.tally().book.recent(random.number()) else {
            thread::sleep(LOOK);
            continue;
        };
        let reply = shared.exchange(&mut connection, &["GET", &id.key()]);
        shared.tally().read_answered(id, reply);
        shared.pace(&mut due);
    }
}

impl Tally {
    fn write_answered(&mut self, id: WriteId, reply: Option<Value>, at: Duration) {
        match reply {
            Some(Value::Simple(ok)) if ok == "OK" => self.acknowledged(id, at),
            Some(Value::Error(text)) if text.starts_with("UNCERTAIN") => self.stats.uncertain += 1,
            Some(Value::Error(text)) => self.stats.error(first_word(&text)),
            Some(_) => self.book.wrong_reply(),
            None => {}
        }
    }

    fn read_answered(&mut self, id: WriteId, reply: Option<Value>) {
        match reply {
            Some(Value::Error(text)) => self.stats.error(first_word(&text)),
            Some(Value::Nil) => self.book.unseen(id),
            Some(value) if value.text() != Some(id.value()) => self.book.wrong_reply(),
            Some(_) => self.stats.reads += 1,
            None => {}
        }
    }

    fn acknowledged(&mut self, id: WriteId, at: Duration) {
        self.book.acknowledged(id, at);
        self.stats.writes += 1;
        self.pause_until(at);
        self.last_acknowledged = self.last_acknowledged.max(at);
    }

    fn pause_until(&mut self, at: Duration) {
        let pause = at.saturating_sub(self.last_acknowledged);
        self.stats.longest_pause = self.stats.longest_pause.max((pause, self.last_acknowledged));
    }
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::deployment::{Deployment, Options};

    const DEADLINE: Duration = Duration::from_secs(20);

    fn one_node() -> Deployment {
        Deployment::start(Options { nodes: 1, sentinels: 0, append_only: true, ..Options::default() })
            .unwrap()
    }

    fn load_on(deployment: &Deployment) -> Load {
        Load::start(LoadOptions::small(deployment.nodes[0].addr()), Instant::now()).unwrap()
    }

    fn eventually(load: &Load, what: &str, condition: impl Fn(&Stats) -> bool) {
        let begin = Instant::now();
        while !condition(&load.stats()) {
            assert!(begin.elapsed() < DEADLINE, "{what}: {:?}", load.stats());
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_healthy_master_has_everything() {
        let deployment = one_node();
        let mut load = load_on(&deployment);
        eventually(&load, "it writes and reads", |s| s.writes > 300 && s.reads > 100);
        load.stop();
        load.check(&mut deployment.nodes[0].connect().unwrap(), load.now()).unwrap();
        let verdict = load.verdict();
        assert!(verdict.is_good() && verdict.lost() == 0, "{verdict:?}");
        assert!(verdict.acknowledged > 300);
        assert_eq!(load.stats().error_count(), 0);
    }

    #[test]
    fn a_key_that_is_deleted_or_changed_behind_its_back_is_reported() {
        let deployment = one_node();
        let mut load = load_on(&deployment);
        eventually(&load, "it writes", |s| s.writes > 300);
        load.stop();
        let (gone, changed) = (WriteId { writer: 1, seq: 20 }, WriteId { writer: 3, seq: 5 });
        let mut node = deployment.nodes[0].connect().unwrap();
        assert_eq!(node.ask(&["DEL", &gone.key()]).unwrap(), Value::Integer(1));
        node.ask(&["SET", &changed.key(), "older"]).unwrap();
        load.check(&mut node, load.now()).unwrap();
        let verdict = load.verdict();
        assert_eq!(verdict.unexplained.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [gone, changed]);
        assert!(!verdict.is_good());
    }

    #[test]
    fn a_loss_before_a_switch_is_put_down_to_it() {
        let deployment = one_node();
        let mut load = load_on(&deployment);
        eventually(&load, "it writes", |s| s.writes > 300);
        load.stop();
        let (at, from, to) = (load.now(), "node-1".to_owned(), "node-2".to_owned());
        load.switched(Switch { at, term: 2, from, to, cause: None });
        let mut node = deployment.nodes[0].connect().unwrap();
        node.ask(&["DEL", "sandbox:0:3", "sandbox:2:4"]).unwrap();
        assert!(load.check_due());
        load.check(&mut node, load.now()).unwrap();
        let verdict = load.verdict();
        assert!(verdict.is_good());
        assert_eq!(verdict.tolls[0].lost, 2);
        assert_eq!(load.stats().lost, 2);
    }

    #[test]
    fn a_restart_shows_as_errors_and_a_pause_and_loses_nothing() {
        let deployment = one_node();
        let mut load = load_on(&deployment);
        eventually(&load, "it writes", |s| s.writes > 100);
        deployment.nodes[0].kill9();
        eventually(&load, "it notices", |s| {
            s.errors.contains_key("connect") && s.errors.contains_key("closed")
        });
        let before = load.stats().writes;
        deployment.nodes[0].restart().unwrap();
        eventually(&load, "it goes on", |s| s.writes > before + 100);
        load.stop();
        assert!(load.stats().longest_pause.0 > Duration::from_millis(40), "{:?}", load.stats());
        load.check(&mut deployment.nodes[0].connect().unwrap(), load.now()).unwrap();
        assert_eq!(load.verdict().lost(), 0);
    }

    #[test]
    fn a_replica_is_not_asked() {
        let deployment = Deployment::start(Options { nodes: 2, sentinels: 0, ..Options::default() }).unwrap();
        let mut load = load_on(&deployment);
        eventually(&load, "it writes", |s| s.writes > 10);
        load.stop();
        let error = load.check(&mut deployment.nodes[1].connect().unwrap(), load.now()).unwrap_err();
        assert_eq!(error.to_string(), "it is not master now");
        assert_eq!(load.verdict().lost(), 0);
    }

    #[test]
    fn it_stops_soon_though_nobody_answers() {
        let deployment = one_node();
        let mut load = load_on(&deployment);
        eventually(&load, "it writes", |s| s.writes > 10);
        deployment.nodes[0].stop();
        let begin = Instant::now();
        load.stop();
        assert!(begin.elapsed() < DEADLINE / 4);
        deployment.nodes[0].cont();
    }
}
