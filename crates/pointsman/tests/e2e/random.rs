//! Random conversations, held with a server and with the proxy before an equal one. A failure says the seed;
//! `POINTSMAN_SEED=n cargo test -p pointsman --test e2e random` holds the same conversations again.
use crate::harness::random::{Random, seed};
use crate::harness::raw::shown;
use crate::harness::twin::{Command, Twin};
use crate::harness::{Pair, Proxy, Server};
use pointsman::sandbox::deployment::Options;

/// At most so many are sent before their replies are read.
const PIPELINE_MAX: usize = 12;

/// What is said. `K`: a key; `V`: a value; `N`: a small number; `L`: a large value; `D`: a database; `C`: a channel.
/// Left out is what answers differently from two servers: times, ids, the order of a hash table (so no two patterns
/// match one channel), chance.
#[rustfmt::skip]
const DATA: &[&str] = &[
    "GET K", "GET K", "SET K V", "SET K V", "SET K V XX", "SET K V NX GET", "SET K L", "APPEND K V", "INCR K", "INCRBY K N",
    "STRLEN K", "GETRANGE K 0 N", "SETRANGE K N V", "MGET K K K", "MSET K V K V", "DEL K K", "EXISTS K K", "TYPE K",
    "RENAME K K", "COPY K K REPLACE", "PERSIST K", "TTL K", "GETDEL K", "OBJECT ENCODING K", "DUMP K", "SETBIT K N 1",
    "BITCOUNT K", "HSET K f V g V", "HGET K f", "HGETALL K", "HDEL K f", "HINCRBY K f N", "HLEN K", "RPUSH K V V",
    "LPUSH K V", "LPOP K", "RPOP K N", "LRANGE K 0 -1", "LLEN K", "LINDEX K N", "LSET K N V", "LMOVE K K LEFT RIGHT",
    "SADD K N N", "SREM K N", "SCARD K", "SISMEMBER K N", "ZADD K N V", "ZRANGE K 0 -1 WITHSCORES", "ZINCRBY K N V",
    "ZREM K V", "ZCARD K", "ZPOPMIN K", "ZSCORE K V", "XADD K N-N f V", "XLEN K", "XRANGE K - +",
    "XREAD COUNT 2 STREAMS K 0", "PFADD K V", "PFCOUNT K", "SORT K ALPHA LIMIT 0 N", "PING", "PING V", "ECHO V",
    "EVAL script 1 K V", "NOSUCH K", "GET", "SET K", "MOVE K D",
];
#[rustfmt::skip]
const STATE: &[&str] = &[
    "SELECT D", "SELECT D", "SELECT 99", "SELECT x", "CLIENT SETNAME V", "CLIENT GETNAME", "RESET", "ACL WHOAMI",
    "BLPOP K K 0.001", "BRPOP K 0.001", "BZPOPMIN K 0.001", "XREAD BLOCK 1 STREAMS K $", "BLMOVE K K LEFT LEFT 0.001",
    "WAIT 0 0", "CLIENT NO-EVICT off", "COMMAND COUNT", "CONFIG GET maxmemory", "SCRIPT EXISTS V", "AUTH V",
    "AUTH alice wonder", "AUTH bob builder", "AUTH alice V", "HELLO", "HELLO 2", "HELLO 3", "HELLO 9",
    "HELLO 3 AUTH alice wonder SETNAME V",
];
#[rustfmt::skip]
const TRANSACTION: &[&str] = &["MULTI", "MULTI", "EXEC", "EXEC", "EXEC", "DISCARD", "WATCH K", "WATCH K", "UNWATCH"];
#[rustfmt::skip]
const SUBSCRIPTION: &[&str] = &[
    "SUBSCRIBE C", "SUBSCRIBE C C", "PSUBSCRIBE x*", "PSUBSCRIBE C C", "SSUBSCRIBE C", "UNSUBSCRIBE C", "UNSUBSCRIBE C C",
    "UNSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "PUNSUBSCRIBE C", "SUNSUBSCRIBE", "SUBSCRIBE", "PUBLISH C V",
];

/// Not `BCAST`: its invalidations come when the server has done all that it had read, which is not the same from one time to the
/// next. Nor `off` and `RESET`: behind another `on` a server goes on to tell of what was read before; through Pointsman that is
/// on another connection.
#[rustfmt::skip]
const TRACKING: &[&str] = &[
    "HELLO 3", "CLIENT TRACKING on", "CLIENT TRACKING on", "CLIENT TRACKING on OPTIN",
    "CLIENT TRACKING on OPTOUT NOLOOP", "CLIENT TRACKING on NOLOOP", "CLIENT CACHING yes", "CLIENT CACHING no",
    "CLIENT TRACKINGINFO", "CLIENT GETREDIR", "MGET K K K", "SET K V",
];

/// What is said at random.
trait Words {
    fn word(&mut self, pattern: &str, prefix: &str) -> Vec<u8>;
    fn command(&mut self, tables: &[&[&str]], prefix: &str) -> Command;
    fn commands(&mut self, tables: &[&[&str]], prefix: &str) -> Vec<Command>;
}

impl Words for Random {
    fn word(&mut self, pattern: &str, prefix: &str) -> Vec<u8> {
        let text = match pattern {
            "K" => format!("{prefix}k{}", self.below(12)),
            "V" => format!("v{}", self.below(100)),
            "N" => self.below(20).to_string(),
            "N-N" => format!("{}-{}", self.below(1_000), 1 + self.below(9)),
            "D" => self.below(4).to_string(),
            "C" => format!("c{}", self.below(4)),
            "L" => return vec![b'a' + (self.below(26) as u8); 1 << (10 + self.below(12))],
            "script" => {
                "redis.call('SET', KEYS[1], ARGV[1]) return {ARGV[1], redis.call('GET', KEYS[1])}".into()
            }
            other => other.into(),
        };
        text.into_bytes()
    }

    /// A command out of one of the tables; the first is asked as often as all others.
    fn command(&mut self, tables: &[&[&str]], prefix: &str) -> Command {
        let table = if self.below(2) == 0 { tables[0] } else { tables[self.below(tables.len())] };
        let pattern = table[self.below(table.len())];
        pattern.split(' ').map(|word| self.word(word, prefix)).collect()
    }

    fn commands(&mut self, tables: &[&[&str]], prefix: &str) -> Vec<Command> {
        (0..1 + self.below(PIPELINE_MAX)).map(|_| self.command(tables, prefix)).collect()
    }
}

fn servers() -> [Server; 2] {
    let users = ["alice on >wonder ~* &* +@all", "bob on >builder ~*k1* ~*k2* &* +@all"].map(str::to_owned);
    let options = Options { users: users.into(), ..Options::default() };
    [Server::start(&options), Server::start(&options)]
}

fn start() -> Pair {
    let [bare, fronted] = servers();
    Pair { proxy: Proxy::start(&fronted, &["--workers", "2"]), fronted, bare }
}

/// Says it, and hears a reply to each.
fn talk(client: &mut Twin, commands: &[Command], random: &mut Random) {
    client.say(commands, random);
    for command in commands {
        client.hear(&shown(&command.join(&b' ')), commands, seen_as);
    }
}

/// What a reply says that is not the session's own, or chance.
fn seen_as(reply: &[u8]) -> Vec<u8> {
    without_order(&without_id(reply))
}

/// A reply without the id of `HELLO`, which is the session's own.
fn without_id(reply: &[u8]) -> Vec<u8> {
    const ID: &[u8] = b"$2\r\nid\r\n:";
    let mut out = reply.to_vec();
    let mut from = 0;
    while let Some(at) = out[from..].windows(ID.len()).position(|w| w == ID) {
        from += at + ID.len();
        let digits = out[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        out.drain(from..from + digits);
    }
    out
}

/// The end of one of several subscriptions without its name: they end in the order of a hash table.
fn without_order(reply: &[u8]) -> Vec<u8> {
    let text = reply.escape_ascii().to_string();
    let lines: Vec<&str> = text.split("\\r\\n").collect();
    match lines[..] {
        [head, _, word, _, _, count, ""] if word.ends_with("unsubscribe") => {
            format!("{head} {word} {count}").into()
        }
        _ => reply.to_vec(),
    }
}

/// Clients that take turns, and get in each other's way: they share keys.
#[test]
fn clients_that_take_turns() {
    const CLIENTS: usize = 4;
    let (pair, seed) = (start(), seed());
    let mut random = Random(seed);
    let mut clients: Vec<Twin> = (0..CLIENTS).map(|_| Twin::connect(&pair, seed)).collect();
    let mut said = 0;
    while said < 5_000 {
        let i = random.below(CLIENTS);
        if random.below(100) == 0 {
            clients[i] = Twin::connect(&pair, seed);
        }
        let commands = random.commands(&[DATA, STATE, TRANSACTION], "");
        talk(&mut clients[i], &commands, &mut random);
        said += commands.len();
    }
}

/// Clients that all speak at once, each of keys of its own: their commands travel interleaved.
fn at_once(pair: &Pair) {
    let seed = seed();
    std::thread::scope(|scope| {
        for i in 0..6 {
            scope.spawn(move || {
                let (mut random, mut client) = (Random(seed + i), Twin::connect(pair, seed));
                let mut said = 0;
                while said < 1_000 {
                    let commands = random.commands(&[DATA, STATE, TRANSACTION], &format!("own{i}:"));
                    talk(&mut client, &commands, &mut random);
                    said += commands.len();
                }
            });
        }
    });
}

#[test]
fn clients_that_speak_at_once() {
    at_once(&start());
}

/// The same with little room: what is large streams, and back-pressure works all the time.
#[test]
fn clients_that_speak_at_once_in_little_room() {
    let [bare, fronted] = servers();
    let limits = "[service.limits]\ninline = \"16KiB\"\nstream_from = \"16KiB\"\nclient_input = \"16KiB\"\nclient_output_soft = \"16KiB\"\n\
                  in_flight = 2\nupstream_queue = \"64KiB\"";
    at_once(&Pair { proxy: Proxy::start_with(&fronted, limits), fronted, bare });
}

/// Clients that hear what they do not ask for each time: what is published, or what has changed.
fn that_listen(tables: &[&[&str]]) {
    let (pair, seed) = (start(), seed());
    let mut random = Random(seed);
    let mut clients: Vec<Twin> = (0..3).map(|_| Twin::connect(&pair, seed)).collect();
    for round in 0..400 {
        let i = random.below(clients.len());
        let mut commands = random.commands(tables, "");
        // How many replies there are is not known before; the last is.
        let last = format!("the last of {round}");
        // In no transaction.
        commands.push(["EXEC".into()].into());
        commands.push(["PING".into(), last.clone().into_bytes()].into());
        clients[i].say(&commands, &mut random);
        while !shown(&clients[i].hear("one of these", &commands, seen_as)).contains(&last) {}
    }
}

/// Clients that subscribe and unsubscribe, and go on as ordinary ones between.
#[test]
fn clients_that_subscribe() {
    that_listen(&[SUBSCRIPTION, DATA, STATE]);
}

/// The same with transactions, in which they hear themselves. (To unsubscribe of all there is to do so in the order of a hash table.)
#[test]
fn clients_that_subscribe_and_run_transactions() {
    let named: Vec<&str> = SUBSCRIPTION.iter().filter(|s| !s.ends_with("UNSUBSCRIBE")).copied().collect();
    that_listen(&[&named, DATA, TRANSACTION, &["HELLO 3", "PUBLISH C V"]]);
}

/// Clients that keep copies of what they read.
#[test]
fn clients_that_track() {
    that_listen(&[
        TRACKING,
        DATA,
        TRANSACTION,
        &["SELECT D", "CLIENT SETNAME V", "BLPOP K K 0.001", "HELLO 2"],
    ]);
}
