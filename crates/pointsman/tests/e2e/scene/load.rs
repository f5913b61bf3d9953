//! Clients that count. Each writer increments a counter of its own, so that its next reply is known in advance: a reply
//! that is someone else's, a command that was executed twice, and an acknowledged one that is lost all show in the number.
//! Readers look at the counters and know from when on a number must be there.
use super::{DEADLINE, eventually};
use pointsman::client::{Client, Value};
use pointsman::sandbox::deployment::Process;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The numbers of different counters are so far apart.
const APART: u64 = 1_000_000_000;
/// The pause of each client between two commands.
const PACE: Duration = Duration::from_millis(3);

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Acknowledged increments.
    pub writes: u64,
    /// Answered reads.
    pub reads: u64,
    /// Increments of which it was said that their outcome is unknown.
    pub uncertain: u64,
    /// Increments of which it was said that replicas are not known to have them.
    pub not_durable: u64,
    /// Other errors, in full.
    pub errors: Vec<String>,
    /// Connections that ended or said nonsense.
    pub dropped: Vec<String>,
    /// Replies that cannot be to the command.
    pub wrong: Vec<String>,
    /// Acknowledged increments that a later one of the same client no longer found.
    pub lost: u64,
    /// Increments that were executed more often than asked for.
    pub twice: u64,
    /// Reads that did not show what had been acknowledged before, and was not lost.
    pub stale: u64,
    /// The longest that any client waited for one reply.
    pub longest: Duration,
}

impl Tally {
    /// Nothing happened that only the proxy can be to blame for, whatever broke.
    pub fn assert_sound(&self) {
        assert!(self.errors.is_empty(), "{}", self.in_short());
        assert!(self.dropped.is_empty(), "{}", self.in_short());
        assert!(self.wrong.is_empty() && self.twice == 0 && self.stale == 0, "{}", self.in_short());
    }

    /// Nobody noticed anything.
    pub fn assert_perfect(&self) {
        self.assert_sound();
        assert!(self.uncertain + self.not_durable == 0 && self.lost == 0, "{}", self.in_short());
    }

    /// All of it, but of errors only how many there are, and the first.
    fn in_short(&self) -> String {
        let first = |v: &[String]| (v.len(), v.first().cloned());
        format!(
            "{} writes, {} reads, {} uncertain, {} not durable, {} lost, {} twice, {} stale, longest {:?}; errors {:?}, dropped {:?}, wrong {:?}",
            self.writes,
            self.reads,
            self.uncertain,
            self.not_durable,
            self.lost,
            self.twice,
            self.stale,
            self.longest,
            first(&self.errors),
            first(&self.dropped),
            first(&self.wrong)
        )
    }
}

#[derive(Default)]
struct Counter {
    /// The last number that was acknowledged.
    acknowledged: AtomicU64,
    /// The largest number that can be there.
    attempted: AtomicU64,
    /// How often its writer was answered well.
    writes: AtomicU64,
    /// How many acknowledged increments its writer has found lost.
    losses: AtomicU64,
}

struct Shared {
    target: SocketAddr,
    stop: AtomicBool,
    counters: Vec<Counter>,
    tally: Mutex<Tally>,
}

/// A running load.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts it, and returns when every writer was served.
    pub fn start(target: SocketAddr, writers: usize, readers: usize) -> Load {
        let counters = (0..writers).map(|_| Counter::default()).collect();
        let shared =
            Arc::new(Shared { target, stop: AtomicBool::new(false), counters, tally: Mutex::default() });
        let mut threads = Vec::new();
        for writer in 0..writers {
            let shared = shared.clone();
            threads.push(thread::spawn(move || shared.client(|shared, client| shared.write(client, writer))));
        }
        let load = Load { shared, threads };
        load.progress();
        load.with_readers(readers)
    }

    fn with_readers(mut self, readers: usize) -> Load {
        for reader in 0..readers {
            let shared = self.shared.clone();
            self.threads
                .push(thread::spawn(move || shared.client(|shared, client| shared.read(client, reader))));
        }
        self
    }

    /// Waits until every writer was served some more.
    pub fn progress(&self) {
        let writes = || self.shared.counters.iter().map(|c| c.writes.load(SeqCst));
        let before: Vec<u64> = writes().collect();
        eventually("every writer is served", || {
            let tally = self.tally();
            assert!(tally.dropped.is_empty(), "{tally:?}");
            writes().zip(&before).all(|(now, before)| now >= before + 20)
        });
    }

    /// What the clients saw so far.
    pub fn tally(&self) -> Tally {
        self.shared.tally.lock().unwrap().clone()
    }

    /// Ends it when all replies are there, and looks at `master` whether it has what was acknowledged.
    pub fn finish(mut self, master: &Process) -> Tally {
        self.shared.stop.store(true, SeqCst);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        for (i, counter) in self.shared.counters.iter().enumerate() {
            let there: u64 = master.ask(&["GET", &key(i)]).unwrap().text().unwrap().parse().unwrap();
            let range = counter.acknowledged.load(SeqCst)..=counter.attempted.load(SeqCst);
            assert!(range.contains(&there), "{}: {there} is not in {range:?}", key(i));
        }
        self.tally()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if thread::panicking() {
            eprintln!("the load saw: {:?}", self.shared.tally.lock());
        }
    }
}

fn key(writer: usize) -> String {
    format!("count:{writer}")
}

impl Shared {
    /// A client's life: it never connects again.
    fn client(&self, mut step: impl FnMut(&Shared, &mut Client) -> std::io::Result<()>) {
        let lived = Client::connect(self.target, DEADLINE).and_then(|mut client| {
            while !self.stop.load(SeqCst) {
                let sent = Instant::now();
                step(self, &mut client)?;
                self.note(|t| t.longest = t.longest.max(sent.elapsed()));
                thread::sleep(PACE);
            }
            Ok(())
        });
        if let Err(e) = lived {
            self.note(|t| t.dropped.push(e.to_string()));
        }
    }

    fn note(&self, note: impl FnOnce(&mut Tally)) {
        note(&mut self.tally.lock().unwrap());
    }

    fn write(&self, client: &mut Client, writer: usize) -> std::io::Result<()> {
        let counter = &self.counters[writer];
        let acknowledged = counter.acknowledged.load(SeqCst);
        if acknowledged == 0 {
            let first = APART * (writer as u64 + 1);
            client.ask(&["SET", &key(writer), &first.to_string()])?;
            counter.attempted.store(first, SeqCst);
            counter.acknowledged.store(first, SeqCst);
            return Ok(());
        }
        let attempted = counter.attempted.fetch_add(1, SeqCst) + 1;
        let reply = client.call(&["INCR", &key(writer)])?;
        match reply {
            Value::Integer(n) if n as u64 / APART == writer as u64 + 1 => {
                let n = n as u64;
                let lost = (acknowledged + 1).saturating_sub(n);
                self.note(|t| {
                    t.writes += 1;
                    t.lost += lost;
                    t.twice += n.saturating_sub(attempted);
                });
                counter.losses.fetch_add(lost, SeqCst);
                counter.acknowledged.store(n, SeqCst);
                counter.attempted.store(n, SeqCst);
                counter.writes.fetch_add(1, SeqCst);
            }
            // It is there, and may be lost.
            Value::Error(text) if text.starts_with("NOTDURABLE ") => self.note(|t| t.not_durable += 1),
            Value::Error(text) if text.starts_with("UNCERTAIN ") => self.note(|t| t.uncertain += 1),
            Value::Error(text) => self.note(|t| t.errors.push(format!("INCR: {text}"))),
            other => self.note(|t| t.wrong.push(format!("INCR {}: {other:?}", key(writer)))),
        }
        Ok(())
    }

    fn read(&self, client: &mut Client, reader: usize) -> std::io::Result<()> {
        let reads = self.tally.lock().unwrap().reads as usize;
        let writer = (reader + reads) % self.counters.len();
        let counter = &self.counters[writer];
        let (least, losses) = (counter.acknowledged.load(SeqCst), counter.losses.load(SeqCst));
        let reply = client.call(&["GET", &key(writer)])?;
        let number = reply.text().and_then(|text| text.parse::<u64>().ok());
        match (reply, number) {
            (_, Some(n)) if n / APART == writer as u64 + 1 => {
                let most = counter.attempted.load(SeqCst);
                let old = n < least && !self.loses(counter, losses);
                let new = n > most && counter.losses.load(SeqCst) == losses;
                self.note(|t| {
                    t.reads += 1;
                    t.stale += u64::from(old);
                    if new {
                        t.wrong.push(format!("GET {}: {n} of {most}", key(writer)));
                    }
                });
            }
            (Value::Error(text), _) => self.note(|t| t.errors.push(format!("GET: {text}"))),
            (other, _) => self.note(|t| t.wrong.push(format!("GET {}: {other:?}", key(writer)))),
        }
        Ok(())
    }

    /// Whether the counter's writer finds, when it is served next, that something is lost.
    fn loses(&self, counter: &Counter, losses: u64) -> bool {
        let (begin, writes) = (Instant::now(), counter.writes.load(SeqCst));
        while counter.writes.load(SeqCst) < writes + 2 && begin.elapsed() < DEADLINE {
            if self.stop.load(SeqCst) {
                return true;
            }
            thread::sleep(PACE);
        }
        counter.losses.load(SeqCst) > losses
    }
}
