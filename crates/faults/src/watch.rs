//! What really happens, seen past the proxy and past every partition: each node and each Sentinel is watched from its own
//! host.
//!
//! - ROLE of each node, every 3 ms: when a successor was promoted.
//! - MONITOR of each node: which writes of the proxies it executed, and when. (Sentinels cut these connections, as all
//!   others, at a promotion and at a demotion; they are made again at once.)
//! - how long a thread that sleeps for 3 ms really sleeps: whether the machine itself stalled.
//! - whom each Sentinel names, every 25 ms: when a majority named the successor.
use crate::load::WriteId;
use crate::network::{Host, PROXY};
use crate::servers::{MASTER_NAME, Servers};
use pointsman::client::{Client, Value};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const ROLE_PERIOD: Duration = Duration::from_millis(3);
const NAMED_PERIOD: Duration = Duration::from_millis(25);
const ANSWER: Duration = Duration::from_millis(300);
const STALL_MIN: Duration = Duration::from_millis(5);
/// Clocks that were read within this were read at the same time.
const AT_ONCE: Duration = Duration::from_micros(500);

/// What was seen. Times count from the beginning of the row; nodes and Sentinels from 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// When which node began, or ceased, to say that it is master. Silence changes nothing.
    pub(crate) claims: Vec<(Duration, usize, bool)>,
    /// When which Sentinel began to name which address.
    pub(crate) named: Vec<(Duration, usize, Ipv4Addr)>,
    /// When which node executed which write of a proxy.
    pub(crate) executed: Vec<(Duration, usize, WriteId)>,
    /// When the machine did not let us run, up to that moment and for how long; which is none of the proxy's doing.
    pub(crate) stalls: Vec<(Duration, Duration)>,
}

impl Seen {
    /// When which node, that had said that it is a replica, began to say that it is master. (One that comes back and still
    /// believes to be master was not promoted.)
    pub(crate) fn promotions(&self) -> impl Iterator<Item = (Duration, usize)> {
        let was_replica = |i: usize, node| self.claims[..i].iter().any(|claim| claim.1 == node);
        let promoted = move |(i, &(at, node, is)): (usize, &(Duration, usize, bool))| {
            (is && was_replica(i, node)).then_some((at, node))
        };
        self.claims.iter().enumerate().filter_map(promoted)
    }

    /// The first promotion after that time.
    pub(crate) fn promotion(&self, after: Duration) -> Option<(Duration, usize)> {
        self.promotions().find(|(at, _)| *at >= after)
    }

    /// The longest stall between these moments.
    pub(crate) fn stall(&self, from: Duration, until: Duration) -> Duration {
        let between = self.stalls.iter().filter(|(at, _)| (from..=until).contains(at));
        between.map(|stall| stall.1).max().unwrap_or_default()
    }

    /// When more than half of `of` Sentinels named that address.
    pub(crate) fn majority(&self, ip: Ipv4Addr, of: usize) -> Option<Duration> {
        let first =
            |s| self.named.iter().find(|(_, sentinel, named)| *sentinel == s && *named == ip).map(|n| n.0);
        let mut firsts: Vec<Duration> = (0..of).filter_map(first).collect();
        firsts.sort();
        firsts.get(of / 2).copied()
    }
}

#[derive(Debug)]
struct Shared {
    begin: Instant,
    began: SystemTime,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no code panics while it holds this lock")
    }
}

/// The running observation; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Watch {
    /// Begins.
    pub(crate) fn start(servers: &Servers, begin: Instant) -> Self {
        let began = wall_clock_at(begin);
        let shared = Arc::new(Shared { begin, began, stop: AtomicBool::new(false), seen: Mutex::default() });
        let mut this = Self { shared, threads: vec![] };
        let proxies = servers.network.hosts[PROXY].ip;
        for (i, node) in servers.nodes.iter().enumerate() {
            this.thread(&node.host, node.addr(), move |shared, addr| claims_of(shared, addr, i));
            this.thread(&node.host, node.addr(), move |shared, addr| executions_of(shared, addr, i, proxies));
        }
        this.thread(&servers.network.hosts[PROXY], servers.nodes[0].addr(), |shared, _| {
            stalls(shared);
            Ok(())
        });
        for (i, sentinel) in servers.sentinels.iter().enumerate() {
            this.thread(&sentinel.host, sentinel.addr(), move |shared, addr| named_by(shared, addr, i));
        }
        this
    }

    /// Repeats `look`, each time with a new connection, until the end.
    fn thread(
        &mut self,
        host: &Host,
        addr: SocketAddr,
        look: impl Fn(&Shared, SocketAddr) -> io::Result<()> + Send + 'static,
    ) {
        let (shared, host) = (self.shared.clone(), host.clone());
        self.threads.push(thread::spawn(move || {
            host.enter().expect("threads that entered it before ran well");
            while !shared.stop.load(Relaxed) {
                if look(&shared, addr).is_err() {
                    thread::sleep(ROLE_PERIOD);
                }
            }
        }));
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> Seen {
        self.shared.seen().clone()
    }

    /// Waits for a promotion: see [`Seen::promotion`].
    pub(crate) fn promotion(&self, after: Duration, limit: Duration) -> Option<(Duration, usize)> {
        let begin = Instant::now();
        loop {
            let promotion = self.shared.seen().promotion(after);
            if promotion.is_some() || begin.elapsed() > limit {
                return promotion;
            }
            thread::sleep(ROLE_PERIOD);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What the wall clock, which MONITOR tells, said at `begin`. A stall between the readings of two clocks would shift all
/// that is compared by them.
fn wall_clock_at(begin: Instant) -> SystemTime {
    loop {
        let before = Instant::now();
        let wall = SystemTime::now();
        if before.elapsed() < AT_ONCE {
            return wall - before.duration_since(begin);
        }
    }
}

fn claims_of(shared: &Shared, addr: SocketAddr, node: usize) -> io::Result<()> {
    let mut client = Client::connect(addr, ANSWER)?;
    while !shared.stop.load(Relaxed) {
        let role = client.ask(&["ROLE"])?.items().first().and_then(Value::text);
        let (at, is_master) = (shared.begin.elapsed(), role.as_deref() == Some("master"));
        let seen = &mut *shared.seen();
        let last = seen.claims.iter().rev().find(|(_, n, _)| *n == node).map(|claim| claim.2);
        if last != Some(is_master) {
            seen.claims.push((at, node, is_master));
        }
        thread::sleep(ROLE_PERIOD);
    }
    Ok(())
}

fn stalls(shared: &Shared) {
    while !shared.stop.load(Relaxed) {
        let asleep = Instant::now();
        thread::sleep(ROLE_PERIOD);
        let stall = asleep.elapsed().saturating_sub(ROLE_PERIOD);
        if stall >= STALL_MIN {
            shared.seen().stalls.push((shared.begin.elapsed(), stall));
        }
    }
}

fn named_by(shared: &Shared, addr: SocketAddr, sentinel: usize) -> io::Result<()> {
    let mut client = Client::connect(addr, ANSWER)?;
    while !shared.stop.load(Relaxed) {
        let answer = client.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME])?;
        let ip = answer.items().first().and_then(Value::text).and_then(|ip| ip.parse().ok());
        let at = shared.begin.elapsed();
        if let Some(ip) = ip {
            let seen = &mut *shared.seen();
            let last = seen.named.iter().rev().find(|(_, s, _)| *s == sentinel).map(|named| named.2);
            if last != Some(ip) {
                seen.named.push((at, sentinel, ip));
            }
        }
        thread::sleep(NAMED_PERIOD);
    }
    Ok(())
}

fn executions_of(shared: &Shared, addr: SocketAddr, node: usize, proxies: Ipv4Addr) -> io::Result<()> {
    let mut client = Client::connect(addr, ANSWER)?;
    client.ask(&["MONITOR"])?;
    while !shared.stop.load(Relaxed) {
        if client.wait(ANSWER)? {
            let line = client.read()?.text().unwrap_or_default();
            if let Some((at, id)) = execution(&line, proxies) {
                let at = UNIX_EPOCH + at;
                shared.seen().executed.push((at.duration_since(shared.began).unwrap_or_default(), node, id));
            }
        }
    }
    Ok(())
}

/// The time and the write of a line of MONITOR, if it is one of a proxy and not one that came by replication.
fn execution(line: &str, proxies: Ipv4Addr) -> Option<(Duration, WriteId)> {
    let (at, rest) = line.split_once(" [0 ")?;
    let (peer, command) = rest.split_once("] ")?;
    let peer: SocketAddr = peer.parse().ok()?;
    let (seconds, micros) = at.split_once('.')?;
    let at = Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?);
    let key = command.strip_prefix("\"SET\" \"")?.split('"').next()?;
    (peer.ip() == proxies).then_some((at, WriteId::of_key(key)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXIES: Ipv4Addr = Ipv4Addr::new(10, 0, 4, 2);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_write_of_a_proxy_is_an_execution() {
        let line = "1700000000.000250 [0 10.0.4.2:40000] \"SET\" \"faults:0:3:17\" \"faults:0:3:17\"";
        let id = WriteId { load: 0, writer: 3, seq: 17 };
        assert_eq!(execution(line, PROXIES), Some((Duration::from_micros(1_700_000_000_000_250), id)));
        assert_eq!(execution(&line.replace("10.0.4.2", "10.0.1.2"), PROXIES), None, "replication");
        assert_eq!(execution(&line.replace("SET", "GET"), PROXIES), None);
        assert_eq!(execution("OK", PROXIES), None);
    }

    #[test]
    fn a_promotion_is_a_claim_of_one_that_was_replica() {
        let claims = vec![
            (ms(0), 0, true),
            (ms(0), 1, false),
            (ms(2), 2, false),
            (ms(60), 2, true),
            (ms(90), 0, false),
        ];
        let mut seen = Seen { claims, ..Seen::default() };
        assert_eq!(seen.promotions().collect::<Vec<_>>(), [(ms(60), 2)]);
        assert_eq!(seen.promotion(ms(61)), None);
        seen.claims.push((ms(99), 0, true));
        assert_eq!(seen.promotion(ms(61)), Some((ms(99), 0)), "back again");
    }

    #[test]
    fn a_majority_is_there_with_the_second_of_three() {
        let (old, new) = (Ipv4Addr::new(10, 0, 1, 2), Ipv4Addr::new(10, 0, 2, 2));
        let mut seen =
            Seen { named: vec![(ms(0), 0, old), (ms(0), 1, old), (ms(5), 2, new)], ..Seen::default() };
        assert_eq!(seen.majority(new, 3), None);
        seen.named.push((ms(9), 0, new));
        assert_eq!(seen.majority(new, 3), Some(ms(9)));
    }
}
