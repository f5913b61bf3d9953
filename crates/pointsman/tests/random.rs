//! Random conversations of several clients, held with a server and with the proxy before an equal one. A failure says
//! the seed; `POINTSMAN_SEED=n cargo test -p pointsman --test random` holds that conversation again.
mod harness;

use harness::Pair;
use harness::raw::{Raw, request, shown};
use pointsman::sandbox::deployment::Options;
use std::hash::{BuildHasher, RandomState};

/// So many commands in all.
const COMMANDS: usize = 5_000;
const CLIENTS: usize = 4;
/// At most so many are sent before their replies are read.
const PIPELINE_MAX: usize = 12;

/// What is said. `K`: a key; `V`: a value; `N`: a small number; `L`: a large value; `D`: a database.
/// Left out is what answers differently from two servers: times, ids, the order of a hash table, chance.
const COMMANDS_OF_DATA: &[&str] = &[
    "GET K",
    "GET K",
    "SET K V",
    "SET K V",
    "SET K V XX",
    "SET K V NX GET",
    "SET K L",
    "APPEND K V",
    "INCR K",
    "INCRBY K N",
    "STRLEN K",
    "GETRANGE K 0 N",
    "SETRANGE K N V",
    "MGET K K K",
    "MSET K V K V",
    "DEL K K",
    "EXISTS K K",
    "TYPE K",
    "RENAME K K",
    "COPY K K REPLACE",
    "PERSIST K",
    "TTL K",
    "GETDEL K",
    "OBJECT ENCODING K",
    "DUMP K",
    "SETBIT K N 1",
    "BITCOUNT K",
    "HSET K f V g V",
    "HGET K f",
    "HGETALL K",
    "HDEL K f",
    "HINCRBY K f N",
    "HLEN K",
    "RPUSH K V V",
    "LPUSH K V",
    "LPOP K",
    "RPOP K N",
    "LRANGE K 0 -1",
    "LLEN K",
    "LINDEX K N",
    "LSET K N V",
    "LMOVE K K LEFT RIGHT",
    "SADD K N N",
    "SREM K N",
    "SCARD K",
    "SISMEMBER K N",
    "ZADD K N V",
    "ZRANGE K 0 -1 WITHSCORES",
    "ZINCRBY K N V",
    "ZREM K V",
    "ZCARD K",
    "ZPOPMIN K",
    "ZSCORE K V",
    "XADD K N-N f V",
    "XLEN K",
    "XRANGE K - +",
    "XREAD COUNT 2 STREAMS K 0",
    "PFADD K V",
    "PFCOUNT K",
    "SORT K ALPHA LIMIT 0 N",
    "DBSIZE",
    "PING",
    "PING V",
    "ECHO V",
    "EVAL script 1 K V",
    "PUBLISH ch V",
    "NOSUCH K",
    "GET",
    "SET K",
    "MOVE K D",
];
const COMMANDS_OF_STATE: &[&str] = &[
    "SELECT D",
    "SELECT D",
    "SELECT 99",
    "SELECT x",
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH K",
    "WATCH K",
    "UNWATCH",
    "CLIENT SETNAME V",
    "CLIENT GETNAME",
    "BLPOP K K 0.001",
    "BRPOP K 0.001",
    "BZPOPMIN K 0.001",
    "XREAD BLOCK 1 STREAMS K $",
    "BLMOVE K K LEFT LEFT 0.001",
    "RESET",
    "AUTH V",
    "ACL WHOAMI",
    "WAIT 0 0",
    "CLIENT NO-EVICT off",
    "COMMAND COUNT",
    "CONFIG GET maxmemory",
    "SCRIPT EXISTS V",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    fn word(&mut self, pattern: &str) -> Vec<u8> {
        let text = match pattern {
            "K" => format!("k{}", self.below(12)),
            "V" => format!("v{}", self.below(100)),
            "N" => self.below(20).to_string(),
            "N-N" => format!("{}-{}", self.below(1_000), 1 + self.below(9)),
            "D" => self.below(4).to_string(),
            "L" => return vec![b'a' + (self.below(26) as u8); 1 << (10 + self.below(12))],
            "script" => {
                "redis.call('SET', KEYS[1], ARGV[1]) return {ARGV[1], redis.call('GET', KEYS[1])}".into()
            }
            other => other.into(),
        };
        text.into_bytes()
    }

    fn command(&mut self) -> Vec<Vec<u8>> {
        let table = if self.below(4) == 0 { COMMANDS_OF_STATE } else { COMMANDS_OF_DATA };
        let pattern = self.one_of(table);
        pattern.split(' ').map(|word| self.word(word)).collect()
    }
}

#[test]
fn random_conversations_are_answered_alike() {
    let seed = match std::env::var("POINTSMAN_SEED") {
        Ok(text) => text.parse().expect("POINTSMAN_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0) % 1_000_000,
    };
    let pair = Pair::start(&Options::default(), &["--workers", "2"]);
    let mut random = Random(seed);
    let mut clients: Vec<(Raw, Raw)> =
        (0..CLIENTS).map(|_| (Raw::connect(pair.bare.addr()), Raw::connect(pair.proxy.addr()))).collect();
    let mut said = 0;
    while said < COMMANDS {
        let i = random.below(CLIENTS);
        if random.below(100) == 0 {
            clients[i] = (Raw::connect(pair.bare.addr()), Raw::connect(pair.proxy.addr()));
        }
        let commands: Vec<_> = (0..1 + random.below(PIPELINE_MAX)).map(|_| random.command()).collect();
        let bytes: Vec<u8> = commands.iter().flat_map(|c| request(c)).collect();
        let split = random.below(bytes.len());
        let (bare, front) = &mut clients[i];
        for raw in [&mut *bare, &mut *front] {
            raw.send(&bytes[..split]);
            raw.send(&bytes[split..]);
        }
        for command in &commands {
            let (right, seen) = (bare.next(), front.next());
            let text = |side: &std::io::Result<Vec<u8>>| match side {
                Ok(bytes) => shown(bytes),
                Err(e) => e.to_string(),
            };
            assert!(
                right.as_ref().ok() == seen.as_ref().ok() && right.is_ok(),
                "POINTSMAN_SEED={seed}, after {said} commands, client {i}: {}\n server: {}\n proxy:  {}\nin: {}",
                shown(&request(command)),
                text(&right),
                text(&seen),
                commands.iter().map(|c| shown(&c.join(&b' '))).collect::<Vec<_>>().join("; ")
            );
        }
        said += commands.len();
    }
}
