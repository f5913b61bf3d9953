//! The load: writers and readers in closed loops, that keep a journal of every operation.
//!
//! Each connection sends, waits for its reply, and sends again when its period is over; after a stall it goes on at its
//! usual pace. The last reader makes a new connection for each operation, as short-lived clients do.
use crate::network::Host;
use pointsman::client::{Client, Value, is_timeout};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub(crate) const WRITERS: usize = 8;
const READERS: usize = 4;
/// Between two operations of a connection: 8 writers make 290 writes a second.
const PERIOD: Duration = Duration::from_micros(27_586);
/// Longer than any hold: a proxy that does not answer within this has forgotten us.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// How long what is unanswered may take to be answered after the end.
const LAST_MAX: Duration = Duration::from_secs(3);
const CONNECT_MAX: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(20);

/// A write; its key and value are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WriteId {
    pub(crate) load: u32,
    pub(crate) writer: u32,
    pub(crate) seq: u64,
}

impl WriteId {
    pub(crate) fn key(&self) -> String {
        format!("faults:{}:{}:{}", self.load, self.writer, self.seq)
    }

    /// The write of this key.
    pub(crate) fn of_key(key: &str) -> Option<Self> {
        let mut parts = key.strip_prefix("faults:")?.split(':');
        let id = Self {
            load: parts.next()?.parse().ok()?,
            writer: parts.next()?.parse().ok()?,
            seq: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(id)
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Acknowledged; or the value that was written.
    Good,
    /// A read that did not show a write that had been acknowledged before it was sent.
    Missing,
    /// The first word of an error reply, or `connect`, `closed`, `timeout`, `garbage`.
    Error(String),
}

/// One operation. Times count from the beginning of the row.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: WriteId,
    pub(crate) sent: Duration,
    pub(crate) answered: Duration,
    pub(crate) outcome: Outcome,
}

/// All operations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    pub(crate) writes: Vec<Operation>,
    pub(crate) reads: Vec<Operation>,
}

#[derive(Debug)]
struct Shared {
    load: u32,
    target: SocketAddr,
    begin: Instant,
    stop: AtomicBool,
    /// For each writer: one more than the number of its newest acknowledged write; 0 before the first.
    newest: Vec<AtomicU64>,
}

/// A running load.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<Vec<Operation>>>,
    readers: Vec<JoinHandle<Vec<Operation>>>,
}

impl Load {
    /// Begins, on that host. `number` tells the keys of several loads apart.
    pub(crate) fn start(host: &Host, target: SocketAddr, number: u32, begin: Instant) -> Self {
        let newest = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared { load: number, target, begin, stop: AtomicBool::new(false), newest });
        let spawn = |body: fn(&Shared, usize) -> Vec<Operation>, i| {
            let (shared, host) = (shared.clone(), host.clone());
            thread::spawn(move || match host.enter() {
                Ok(()) => body(&shared, i),
                Err(e) => vec![shared.failed(&e)],
            })
        };
        let writers = (0..WRITERS).map(|i| spawn(write_on, i)).collect();
        let readers = (0..READERS).map(|i| spawn(read_on, i)).collect();
        Self { shared, writers, readers }
    }

    /// How many writes each writer has seen acknowledged, at least.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.newest.iter().map(|newest| newest.load(Relaxed)).min().unwrap_or_default()
    }

    /// Ends it; what is not answered soon is an error of kind `unanswered`.
    pub(crate) fn stop(mut self) -> Journal {
        self.shared.stop.store(true, Relaxed);
        Journal { writes: joined(&mut self.writers), reads: joined(&mut self.readers) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        joined(&mut self.writers);
        joined(&mut self.readers);
    }
}

fn joined(threads: &mut Vec<JoinHandle<Vec<Operation>>>) -> Vec<Operation> {
    threads.drain(..).flat_map(|thread| thread.join().expect("the load's threads do not panic")).collect()
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn failed(&self, e: &io::Error) -> Operation {
        let (at, id) = (self.begin.elapsed(), WriteId { load: self.load, writer: 0, seq: 0 });
        Operation { id, sent: at, answered: at, outcome: Outcome::Error(format!("setns: {e}")) }
    }

    /// One operation on the connection, which is made if there is none, and is none after a failure.
    fn operate(&self, connection: &mut Option<Client>, id: WriteId, args: &[&str]) -> Operation {
        let sent = self.begin.elapsed();
        let answer = self.exchange(connection, args);
        let answered = self.begin.elapsed();
        let outcome = match answer {
            Ok(Value::Error(text)) => Outcome::Error(text.split(' ').next().unwrap_or_default().to_owned()),
            Ok(Value::Nil) => Outcome::Missing,
            Ok(Value::Simple(ok)) if ok == "OK" => Outcome::Good,
            Ok(Value::Bulk(value)) if value == id.key().as_bytes() => Outcome::Good,
            Ok(_) => Outcome::Error("wrong-reply".into()),
            Err(kind) => {
                *connection = None;
                thread::sleep(RETRY);
                Outcome::Error(kind.into())
            }
        };
        Operation { id, sent, answered, outcome }
    }

    fn exchange(&self, connection: &mut Option<Client>, args: &[&str]) -> Result<Value, &'static str> {
        let client = match connection {
            Some(client) => client,
            None => connection.insert(Client::connect(self.target, CONNECT_MAX).map_err(|_| "connect")?),
        };
        client.send(args).map_err(|_| "closed")?;
        let sent = Instant::now();
        let mut stopped = None;
        while !client.wait(Duration::from_millis(100)).map_err(|_| "closed")? {
            if self.stopped() {
                stopped.get_or_insert_with(Instant::now);
            }
            if stopped.is_some_and(|since| since.elapsed() > LAST_MAX) {
                return Err("unanswered");
            }
            if sent.elapsed() > ANSWER_MAX {
                return Err("timeout");
            }
        }
        client.read().map_err(|e| match e.kind() {
            io::ErrorKind::InvalidData => "garbage",
            _ if is_timeout(&e) => "timeout",
            _ => "closed",
        })
    }
}

fn pace(due: &mut Instant) {
    let now = Instant::now();
    *due = (*due + PERIOD).max(now);
    thread::sleep(*due - now);
}

/// Connections begin spread over a period.
fn begin_of(i: usize, of: usize) -> Instant {
    thread::sleep(PERIOD * i as u32 / of as u32);
    Instant::now()
}

fn write_on(shared: &Shared, writer: usize) -> Vec<Operation> {
    let (mut connection, mut due, mut journal) = (None, begin_of(writer, WRITERS), vec![]);
    for seq in 0.. {
        if shared.stopped() {
            break;
        }
        let id = WriteId { load: shared.load, writer: writer as u32, seq };
        let key = id.key();
        let operation = shared.operate(&mut connection, id, &["SET", &key, &key]);
        if operation.outcome == Outcome::Good {
            shared.newest[writer].store(seq + 1, Relaxed);
        }
        journal.push(operation);
        pace(&mut due);
    }
    journal
}

fn read_on(shared: &Shared, reader: usize) -> Vec<Operation> {
    let (mut connection, mut due, mut journal) = (None, begin_of(reader, READERS), vec![]);
    let is_newcomer = reader + 1 == READERS;
    for turn in reader.. {
        if shared.stopped() {
            break;
        }
        let writer = turn % WRITERS;
        if let Some(seq) = shared.newest[writer].load(Relaxed).checked_sub(1) {
            let id = WriteId { load: shared.load, writer: writer as u32, seq };
            journal.push(shared.operate(&mut connection, id, &["GET", &id.key()]));
        }
        if is_newcomer {
            connection = None;
        }
        pace(&mut due);
    }
    journal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_known_by_its_key() {
        let id = WriteId { load: 1, writer: 7, seq: 99 };
        assert_eq!(WriteId::of_key(&id.key()), Some(id));
        for other in ["faults:1:7", "faults:1:7:99:1", "faults:a:7:99", "1:7:99", ""] {
            assert_eq!(WriteId::of_key(other), None, "{other}");
        }
    }
}
