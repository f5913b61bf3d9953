//! What sessions cost upstream, and that those who leave, or do not read, are nobody else's trouble.
mod harness;

use harness::raw::{Raw, request, shown};
use harness::{DEADLINE, Proxy, Server, eventually};
use pointsman::client::Client;
use pointsman::sandbox::deployment::Options;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A connection to the server that counts the others.
struct Observer(Client);

impl Observer {
    fn of(server: &Server) -> Observer {
        Observer(server.connect())
    }

    fn ask(&mut self, args: &[&str]) -> String {
        self.0.ask(args).expect("an answer").text().unwrap_or_default()
    }

    fn field(&mut self, section: &str, field: &str) -> u64 {
        let text = self.ask(&["INFO", section]);
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.expect("the field").trim().parse().expect("a number")
    }

    /// Connections that the server has accepted since it began.
    fn accepted(&mut self) -> u64 {
        self.field("stats", "total_connections_received")
    }

    /// Connections that there are, without this one.
    fn connections(&mut self) -> usize {
        self.ask(&["CLIENT", "LIST"]).lines().count() - 1
    }

    fn blocked(&mut self) -> u64 {
        self.field("clients", "blocked_clients")
    }

    fn get(&mut self, key: &str) -> String {
        self.ask(&["GET", key])
    }
}

/// A server, the proxy with one worker before it, and who counts.
fn start(options: &Options) -> (Server, Proxy, Observer) {
    let server = Server::start(options);
    let proxy = Proxy::start(&server, &["--workers", "1"]);
    let observer = Observer::of(&server);
    (server, proxy, observer)
}

fn said(client: &mut Raw, line: &str) -> String {
    shown(&client.call(&line.split(' ').collect::<Vec<_>>()))
}

/// Uses the proxy while others misbehave: each reply must be its own, and none may take long.
fn undisturbed(proxy: &Proxy, misbehave: impl FnOnce()) {
    let (over, slowest) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for i in 0..2 {
            let (over, slowest) = (&over, &slowest);
            scope.spawn(move || {
                let mut client = Raw::connect(proxy.addr());
                let mut round = 0;
                while !over.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    assert_eq!(said(&mut client, &format!("SET by:{i} {round}")), "+OK\\r\\n");
                    let value = format!("{round}");
                    let want = format!("${}\\r\\n{value}\\r\\n", value.len());
                    assert_eq!(said(&mut client, &format!("GET by:{i}")), want);
                    slowest.fetch_max(begin.elapsed().as_millis() as u64, Ordering::Relaxed);
                    round += 1;
                }
                assert!(round > 0);
            });
        }
        // However this ends, the others must.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _end = End(&over);
        misbehave();
    });
    let slowest = slowest.load(Ordering::Relaxed);
    assert!(slowest < 2_000, "a bystander waited {slowest} ms");
}

#[test]
fn what_only_concerns_the_session_needs_no_connection_of_its_own() {
    let options = Options {
        password: Some("sesame".into()),
        users: vec!["alice on >wonder ~* &* +@all".into()],
        ..Options::default()
    };
    let (_server, proxy, mut observer) = start(&options);
    let session = |i: usize| {
        let mut client = Raw::connect(proxy.addr());
        assert_eq!(said(&mut client, "AUTH sesame"), "+OK\\r\\n");
        let id = said(&mut client, "CLIENT ID");
        assert_eq!(said(&mut client, &format!("CLIENT SETNAME n{i}")), "+OK\\r\\n");
        said(&mut client, "CLIENT SETINFO LIB-NAME lib");
        assert_eq!(said(&mut client, "SELECT 1"), "+OK\\r\\n");
        assert_eq!(said(&mut client, "PING"), "+PONG\\r\\n");
        assert!(said(&mut client, "HELLO 3 AUTH alice wonder").starts_with('%'));
        assert!(said(&mut client, "CLIENT GETNAME").contains(&format!("n{i}\\r\\n")));
        assert_eq!(said(&mut client, "CLIENT ID"), id, "it stays the same");
        assert!(said(&mut client, "HELLO").contains(&format!("id\\r\\n{id}")), "and HELLO tells the same");
        assert_eq!(said(&mut client, "RESET"), "+RESET\\r\\n");
        assert!(said(&mut client, "GET k").starts_with("-NOAUTH"));
        (client, id)
    };
    let first = session(0);
    let (connections, accepted) = (observer.connections(), observer.accepted());
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=40).map(|i| scope.spawn(move || session(i))).collect();
        threads.into_iter().map(|t| t.join().expect("a session")).chain([first]).collect()
    });
    assert_eq!(all.iter().map(|(_, id)| id).collect::<BTreeSet<_>>().len(), 41, "ids are unique");
    assert_eq!((observer.connections(), observer.accepted()), (connections, accepted));
}

#[test]
fn small_transactions_share_few_connections() {
    const THREADS: usize = 8;
    let (_server, proxy, mut observer) = start(&Options::default());
    let before = observer.connections();
    let mut clients: Vec<Vec<Raw>> =
        (0..THREADS).map(|_| (0..25).map(|_| Raw::connect(proxy.addr())).collect()).collect();
    let mut run = |clients: &mut Vec<Vec<Raw>>| {
        std::thread::scope(|scope| {
            for (i, mine) in clients.iter_mut().enumerate() {
                scope.spawn(move || {
                    for (j, client) in mine.iter_mut().enumerate() {
                        let key = format!("tx:{i}:{j}");
                        assert_eq!(said(client, "MULTI"), "+OK\\r\\n");
                        assert_eq!(said(client, &format!("INCR {key}")), "+QUEUED\\r\\n");
                        assert!(said(client, "EXEC").starts_with("*1\\r\\n:"));
                        client.send(format!("MULTI\r\nGET {key}\r\nEXEC\r\n").as_bytes());
                        let replies = [client.reply(), client.reply(), client.reply()];
                        assert!(replies[2].starts_with(b"*1\r\n$"), "{}", shown(&replies[2]));
                    }
                });
            }
        });
    };
    run(&mut clients);
    assert!(observer.connections() <= before + THREADS, "at most as many as run at once");
    let accepted = observer.accepted();
    run(&mut clients);
    run(&mut clients);
    assert!(observer.connections() <= before + THREADS);
    // A pool that was not filled by the first round (fewer ran at once) may grow once more.
    assert!(observer.accepted() <= accepted + THREADS as u64 && observer.accepted() <= before as u64 + 40);
    let settled = observer.accepted();
    run(&mut clients);
    assert_eq!(observer.accepted().max(settled), observer.accepted());
}

#[test]
fn who_leaves_while_blocked_pops_nothing() {
    let (_server, proxy, mut observer) = start(&Options::default());
    let before = observer.connections();
    undisturbed(&proxy, || {
        let mut waiting: Vec<Raw> = (0..20).map(|_| Raw::connect(proxy.addr())).collect();
        for client in &mut waiting {
            client.send(b"BLPOP queue 0\r\n");
        }
        eventually("all are blocked", || observer.blocked() == 20);
        let mut last = waiting.pop().expect("there are 20");
        drop(waiting);
        eventually("only one is blocked", || observer.blocked() == 1);
        observer.ask(&["LPUSH", "queue", "job"]);
        assert!(shown(&last.reply()).contains("job"));
        observer.ask(&["LPUSH", "queue", "next"]);
        assert_eq!(
            observer.0.ask(&["LLEN", "queue"]).expect("an answer"),
            pointsman::client::Value::Integer(1)
        );
    });
    eventually("their connections are closed", || observer.connections() <= before + 1);
}

#[test]
fn who_leaves_in_the_middle_disturbs_nobody() {
    let (_server, proxy, mut observer) = start(&Options::default());
    let before = observer.connections();
    let large = request(&[&b"SET"[..], b"large", &vec![b'x'; 4 << 20]]);
    undisturbed(&proxy, || {
        for round in 0..10 {
            let mut half = Raw::connect(proxy.addr());
            half.send(b"SET half 1\r\n*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$100\r\nabc");
            half.reply();

            let mut tx = Raw::connect(proxy.addr());
            tx.send(b"MULTI\r\nSET tx 1\r\n");
            (tx.reply(), tx.reply());

            let mut value = Raw::connect(proxy.addr());
            value.send(&large[..large.len() / 2]);

            let mut unread = Raw::connect(proxy.addr());
            unread.send(&b"GET by:0\r\n".repeat(500));

            let mut watching = Raw::connect(proxy.addr());
            watching.send(b"WATCH by:0\r\nSUBSCRIBE ch\r\n");
            watching.reply();

            if round % 2 == 0 {
                // With a reset instead of a farewell.
                for client in [&half, &tx, &value, &unread, &watching] {
                    let socket = socket2::SockRef::from(client.stream());
                    socket.set_linger(Some(Duration::ZERO)).expect("an option");
                }
            }
        }
    });
    eventually("their connections are closed or idle", || observer.connections() <= before + 3);
    assert_eq!(observer.get("half"), "1");
    assert_eq!((observer.get("tx"), observer.get("large")), (String::new(), String::new()));
    let mut client = Raw::connect(proxy.addr());
    client.send(b"MULTI\r\nPING\r\nEXEC\r\n");
    let replies: Vec<String> = (0..3).map(|_| shown(&client.reply())).collect();
    assert_eq!(replies, ["+OK\\r\\n", "+QUEUED\\r\\n", "*1\\r\\n+PONG\\r\\n"]);
}

#[test]
fn who_does_not_read_is_closed_and_delays_nobody() {
    let (server, proxy, mut observer) = start(&Options::default());
    let big = "x".repeat(1 << 20);
    observer.ask(&["SET", "big", &big]);
    undisturbed(&proxy, || {
        let mut subscriber = Raw::connect(proxy.addr());
        said(&mut subscriber, "SUBSCRIBE ch");
        let mut reader = Raw::connect(proxy.addr());
        reader.send(&b"GET big\r\n".repeat(200));
        let mut publisher = server.connect();
        let begin = Instant::now();
        while publisher.ask(&["PUBLISH", "ch", &big]).expect("PUBLISH")
            != pointsman::client::Value::Integer(0)
        {
            assert!(begin.elapsed() < DEADLINE, "the subscriber is never closed");
        }
        assert!(subscriber.rest().expect("an end").len() >= big.len());
        let got = reader.rest().expect("an end").len();
        assert!((1 << 20..200 << 20).contains(&got), "the reader got {got} bytes");
    });
}

#[test]
fn a_client_that_waits_is_not_closed() {
    let (_server, proxy, mut observer) = start(&Options::default());
    observer.ask(&["SET", "big", &"x".repeat(100 << 10)]);
    let mut client = Raw::connect(proxy.addr());
    // More replies than the sockets hold, less than the limit; read only when all has been asked for.
    let asked = client.send_aside(b"GET big\r\n".repeat(400));
    asked.join().expect("no panic").expect("all was sent");
    client.send(b"PING\r\n");
    for _ in 0..400 {
        assert_eq!(client.reply().len(), (100 << 10) + 11);
    }
    assert_eq!(client.reply(), b"+PONG\r\n");
}
