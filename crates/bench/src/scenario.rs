//! What is asked of the peers, and one measurement of one peer: a cell.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::load::{Load, LoadError, Script, Stop};
use crate::measure::{CpuSource, CpuTime, connections_to, resident_bytes};
use crate::peers::{Peer, Redis, RunningPeer};

/// How long idle clients are idle before memory is looked at: programs give buffers back by timers of a second or two.
const IDLE_TIME: Duration = Duration::from_secs(3);

/// What is done with the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Get,
    Set,
    /// SET within MULTI and EXEC, sent as one; it counts as one request.
    Transaction,
    /// Each client says PING once and then nothing.
    Idle,
}

/// One way of using a peer.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) action: Action,
    pub(crate) clients: usize,
    /// Requests that a client sends before it waits for their replies.
    depth: usize,
    value_bytes: usize,
    /// How many keys are used, in turn.
    keys: usize,
}

pub(crate) const SCENARIOS: [Scenario; 11] = [
    load("get-50", "GET, 64-byte values, 50 clients", Action::Get, 50, 1, 64),
    load("set-50", "SET, 64-byte values, 50 clients", Action::Set, 50, 1, 64),
    load("get-50-p16", "GET, 64-byte values, 50 clients, pipelines of 16", Action::Get, 50, 16, 64),
    load("set-50-p16", "SET, 64-byte values, 50 clients, pipelines of 16", Action::Set, 50, 16, 64),
    load("get-1000", "GET, 64-byte values, 1000 clients", Action::Get, 1000, 1, 64),
    load("set-1000", "SET, 64-byte values, 1000 clients", Action::Set, 1000, 1, 64),
    load("get-50-16k", "GET, 16 KiB values, 50 clients", Action::Get, 50, 1, 16 * 1024),
    load("set-50-16k", "SET, 16 KiB values, 50 clients", Action::Set, 50, 1, 16 * 1024),
    load("tx-50", "MULTI, SET, EXEC, 64-byte values, 50 clients", Action::Transaction, 50, 1, 64),
    load("tx-1000", "MULTI, SET, EXEC, 64-byte values, 1000 clients", Action::Transaction, 1000, 1, 64),
    load("idle", "memory per idle connection, 2000 clients", Action::Idle, 2000, 1, 0),
];

const fn load(
    name: &'static str,
    about: &'static str,
    action: Action,
    clients: usize,
    depth: usize,
    value_bytes: usize,
) -> Scenario {
    // Few enough large values that they stay in a cache, as small ones do.
    let keys = if value_bytes > 1024 { 64 } else { 1024 };
    Scenario { name, about, action, clients, depth, value_bytes, keys }
}

impl Scenario {
    /// Whether `peer` can do what is asked.
    pub(crate) fn suits(&self, peer: Peer) -> bool {
        self.action != Action::Transaction || peer != Peer::Twemproxy
    }

    /// Descriptors that the hungriest process needs: two for each client in a proxy, and some.
    pub(crate) fn open_files(&self) -> u64 {
        self.clients as u64 * 2 + 300
    }

    /// `generation` makes the values of each cell differ from those of any other.
    fn script(&self, generation: u64) -> Script {
        let exchange = |key| match self.action {
            Action::Get => (request(&[b"GET", &name(key)]), bulk(&self.value(key, generation))),
            Action::Set => {
                (request(&[b"SET", &name(key), &self.value(key, generation)]), b"+OK\r\n".to_vec())
            }
            Action::Transaction => {
                let set = request(&[b"SET", &name(key), &self.value(key, generation)]);
                let all = [&request(&[b"MULTI"])[..], &set, &request(&[b"EXEC"])].concat();
                (all, b"+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n".to_vec())
            }
            Action::Idle => (request(&[b"PING"]), b"+PONG\r\n".to_vec()),
        };
        Script::new((0..self.keys).map(exchange), self.depth)
    }

    /// Any bytes, so that a proxy that looks for line ends in values fails.
    fn value(&self, key: usize, generation: u64) -> Vec<u8> {
        let mut random = Random(generation << 32 | key as u64);
        let mut value = Vec::with_capacity(self.value_bytes + 8);
        while value.len() < self.value_bytes {
            value.extend(random.next().to_le_bytes());
        }
        value.truncate(self.value_bytes);
        value
    }
}

/// What a cell can say, each a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Microseconds of CPU that the proxy used per request.
    CpuUs,
    /// The same of the server.
    RedisCpuUs,
    /// The same of the load generator.
    GeneratorCpuUs,
    OpsPerSecond,
    P50Us,
    P99Us,
    /// Connections to the server while the clients were connected.
    Upstream,
    /// Growth of the peer's resident memory per idle client (of the server's, for direct).
    IdleBytes,
    /// Growth of the server's resident memory per idle client of the peer.
    RedisIdleBytes,
}

/// The measurements of one peer in one scenario in one round.
pub(crate) type Cell = BTreeMap<Metric, f64>;

/// What all cells of a run share.
pub(crate) struct Bench<'a> {
    pub(crate) redis_program: &'a Path,
    pub(crate) redis: &'a Redis,
    pub(crate) folder: &'a Path,
    pub(crate) cpu_source: CpuSource,
    pub(crate) warmup: Duration,
    pub(crate) time: Duration,
    pub(crate) stop: Stop,
}

impl Bench<'_> {
    /// Measures a fresh `peer` once. `generation` must differ from cell to cell.
    pub(crate) fn measure(
        &self,
        scenario: &Scenario,
        peer: Peer,
        program: Option<&Path>,
        generation: u64,
    ) -> Result<Cell, Box<dyn Error>> {
        if scenario.action == Action::Idle {
            return self.measure_idle(scenario, peer, program);
        }
        if peer.has_replica() {
            let folder = tempfile::tempdir_in(self.folder)?;
            let of = |name| {
                let folder = folder.path().join(name);
                std::fs::create_dir(&folder).map(|()| folder)
            };
            let redis = Redis::start(self.redis_program, &of("master")?)?;
            let _replica = redis.replica(self.redis_program, &of("replica")?)?;
            let stop = self.stop.clone();
            let bench = Bench { redis: &redis, stop, ..*self };
            return bench.measure_load(scenario, peer, program, generation);
        }
        self.measure_load(scenario, peer, program, generation)
    }

    fn measure_load(
        &self,
        scenario: &Scenario,
        peer: Peer,
        program: Option<&Path>,
        generation: u64,
    ) -> Result<Cell, Box<dyn Error>> {
        self.prepare_keys(scenario, generation)?;
        let running = RunningPeer::start(peer, program, self.redis.address(), self.folder)?;
        let script = scenario.script(generation);
        let mut load = Load::connect(running.address(), scenario.clients, script, self.stop.clone())?;
        // Whatever connections a peer makes to its server, it has made them now.
        load.ask_once()?;
        load.drive(self.warmup)?;
        let own = std::process::id();
        let costs = |pid| CpuTime::of(pid, self.cpu_source);
        let before = (running.pid().map(costs).transpose()?, costs(self.redis.pid())?, costs(own)?);
        let tally = load.drive(self.time)?;
        let after = (running.pid().map(costs).transpose()?, costs(self.redis.pid())?, costs(own)?);
        load.finish()?;
        let upstream = connections_to(running.pid().unwrap_or(own), self.redis.address().port())?;
        if matches!(scenario.action, Action::Set | Action::Transaction) {
            self.read_back(scenario, generation, load.asked())?;
        }

        let requests = tally.requests as f64;
        let per_request = |now: &CpuTime, then| now.since(then).as_secs_f64() * 1e6 / requests;
        let quantile_us = |quantile| tally.latencies_ns.value_at_quantile(quantile) as f64 / 1e3;
        let mut cell = Cell::from([
            (Metric::RedisCpuUs, per_request(&after.1, &before.1)),
            (Metric::GeneratorCpuUs, per_request(&after.2, &before.2)),
            (Metric::OpsPerSecond, requests / tally.elapsed.as_secs_f64()),
            (Metric::P50Us, quantile_us(0.50)),
            (Metric::P99Us, quantile_us(0.99)),
            (Metric::Upstream, upstream as f64),
        ]);
        if let (Some(after), Some(before)) = (&after.0, &before.0) {
            cell.insert(Metric::CpuUs, per_request(after, before));
        }
        Ok(cell)
    }

    /// With a server of its own, whose memory has not grown yet. The first client pays for what all share, so it is
    /// connected before, and not counted.
    fn measure_idle(
        &self,
        scenario: &Scenario,
        peer: Peer,
        program: Option<&Path>,
    ) -> Result<Cell, Box<dyn Error>> {
        let folder = tempfile::tempdir_in(self.folder)?;
        let redis = Redis::start(self.redis_program, folder.path())?;
        let running = RunningPeer::start(peer, program, redis.address(), folder.path())?;
        let pid = running.pid().unwrap_or(redis.pid());
        let connect = |clients| {
            Load::connect(running.address(), clients, scenario.script(0), self.stop.clone()).and_then(
                |mut load| {
                    load.ask_once()?;
                    Ok(load)
                },
            )
        };
        let _first = connect(1)?;
        let before = (resident_bytes(pid)?, resident_bytes(redis.pid())?);
        let _others = connect(scenario.clients - 1)?;
        self.sleep(IDLE_TIME)?;
        let after = (resident_bytes(pid)?, resident_bytes(redis.pid())?);
        let upstream = connections_to(running.pid().unwrap_or(std::process::id()), redis.address().port())?;
        let per_client =
            |after: u64, before: u64| (after as f64 - before as f64) / (scenario.clients - 1) as f64;
        Ok(Cell::from([
            (Metric::IdleBytes, per_client(after.0, before.0)),
            (Metric::RedisIdleBytes, per_client(after.1, before.1)),
            (Metric::Upstream, upstream as f64),
        ]))
    }

    fn sleep(&self, time: Duration) -> Result<(), LoadError> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if self.stop.load(Ordering::Relaxed) {
                return Err(LoadError::Interrupted);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Gives the server, and it alone, the keys that a GET asks for. Before a SET there are none.
    fn prepare_keys(&self, scenario: &Scenario, generation: u64) -> Result<(), Box<dyn Error>> {
        let mut direct = Direct::connect(self.redis.address())?;
        direct.expect(&request(&[b"FLUSHALL"]), b"+OK\r\n")?;
        if scenario.action == Action::Get {
            for key in 0..scenario.keys {
                let set = request(&[b"SET", &name(key), &scenario.value(key, generation)]);
                direct.expect(&set, b"+OK\r\n")?;
            }
        }
        Ok(())
    }

    /// Every key that was set has what was set, whatever the replies said.
    fn read_back(&self, scenario: &Scenario, generation: u64, asked: &[bool]) -> Result<(), Box<dyn Error>> {
        let mut direct = Direct::connect(self.redis.address())?;
        for key in (0..scenario.keys).filter(|key| asked[key / scenario.depth]) {
            direct
                .expect(&request(&[b"GET", &name(key)]), &bulk(&scenario.value(key, generation)))
                .map_err(|error| format!("key {key} was set but is not there: {error}"))?;
        }
        Ok(())
    }
}

/// A plain connection to the server, beside the peers.
struct Direct(BufReader<TcpStream>);

impl Direct {
    fn connect(address: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_nodelay(true)?;
        Ok(Direct(BufReader::new(stream)))
    }

    fn expect(&mut self, request: &[u8], reply: &[u8]) -> Result<(), Box<dyn Error>> {
        self.0.get_mut().write_all(request)?;
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        if !reply.starts_with(&line) {
            return Err(format!("the server answered \"{}\"", line.escape_ascii()).into());
        }
        let mut rest = vec![0; reply.len() - line.len()];
        self.0.read_exact(&mut rest)?;
        if reply.ends_with(&rest) { Ok(()) } else { Err("the server has another value".into()) }
    }
}

fn name(key: usize) -> Vec<u8> {
    format!("bench:{key:06}").into_bytes()
}

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    words.iter().for_each(|word| bytes.extend(bulk(word)));
    bytes
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// SplitMix64 (Steele, Lea, Flood 2014): a few lines that give the same sequence everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Fisher and Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}

/// The hard limit of open files is often low in containers; say so before the first cell, not in the middle.
pub(crate) fn check_open_files(scenarios: &[&Scenario], limit: u64) -> Result<(), String> {
    match scenarios.iter().find(|scenario| scenario.open_files() > limit) {
        Some(scenario) => Err(format!(
            "{} needs {} open files and the limit is {limit}: raise it (ulimit -Hn), or leave the scenario out",
            scenario.name,
            scenario.open_files()
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs;

    fn with_bench(test: impl FnOnce(&Bench)) {
        let folder = tempfile::tempdir().unwrap();
        let redis_program = programs::find(programs::REDIS.names).expect("redis-server is installed");
        let redis = Redis::start(&redis_program, folder.path()).unwrap();
        test(&Bench {
            redis_program: &redis_program,
            redis: &redis,
            folder: folder.path(),
            cpu_source: CpuSource::detect().unwrap(),
            warmup: Duration::from_millis(10),
            time: Duration::from_millis(50),
            stop: Stop::default(),
        });
    }

    fn scenario(action: Action, depth: usize, value_bytes: usize) -> Scenario {
        Scenario { name: "test", about: "", action, clients: 8, depth, value_bytes, keys: 32 }
    }

    #[test]
    fn a_cell_has_every_figure_that_concerns_its_peer() {
        with_bench(|bench| {
            for (number, action) in [Action::Get, Action::Set, Action::Transaction].into_iter().enumerate() {
                let cell =
                    bench.measure(&scenario(action, 4, 100), Peer::Direct, None, number as u64).unwrap();
                assert!(cell[&Metric::OpsPerSecond] > 0.0 && cell[&Metric::RedisCpuUs] > 0.0, "{cell:?}");
                assert!(cell[&Metric::P99Us] >= cell[&Metric::P50Us], "{cell:?}");
                assert_eq!(cell[&Metric::Upstream], 8.0);
                assert!(!cell.contains_key(&Metric::CpuUs), "there is no proxy");
            }
        });
    }

    #[test]
    fn reading_back_notices_a_write_that_was_lost() {
        with_bench(|bench| {
            let (set, asked) = (scenario(Action::Set, 1, 64), [true; 32]);
            bench.measure(&set, Peer::Direct, None, 7).unwrap();
            assert!(bench.read_back(&set, 8, &asked).is_err(), "values of another generation are others");
            let mut direct = Direct::connect(bench.redis.address()).unwrap();
            for key in 0..set.keys {
                let write = request(&[b"SET", &name(key), &set.value(key, 7)]);
                direct.expect(&write, b"+OK\r\n").unwrap();
            }
            bench.read_back(&set, 7, &asked).unwrap();
            direct.expect(&request(&[b"DEL", &name(3)]), b":1\r\n").unwrap();
            let failure = bench.read_back(&set, 7, &asked).unwrap_err().to_string();
            assert!(failure.starts_with("key 3 was set but is not there"), "{failure}");
        });
    }

    #[test]
    fn values_differ_between_keys_and_generations() {
        let set = scenario(Action::Set, 1, 64);
        let values = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(key, generation)| set.value(key, generation));
        for (index, value) in values.iter().enumerate() {
            assert_eq!(value.len(), 64);
            assert!(!values[..index].contains(value));
        }
    }

    #[test]
    fn a_seed_gives_one_order_and_another_seed_another() {
        let order = |seed| {
            let mut items: Vec<u32> = (0..20).collect();
            Random(seed).shuffle(&mut items);
            items
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let mut sorted = order(1);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn a_low_limit_of_open_files_is_named_with_its_scenario() {
        let all: Vec<&Scenario> = SCENARIOS.iter().collect();
        assert!(check_open_files(&all, 20_000).is_ok());
        assert!(check_open_files(&all, 1024).unwrap_err().contains("get-1000"));
    }
}
