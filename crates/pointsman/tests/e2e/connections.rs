//! What sessions cost upstream, and that those who leave, or do not read, are nobody else's trouble.
use crate::harness::observer::{Observer, said, undisturbed};
use crate::harness::raw::{Raw, request, shown};
use crate::harness::{Proxy, Server, eventually};
use pointsman::client::Value;
use pointsman::sandbox::deployment::Options;
use std::collections::BTreeSet;
use std::sync::Barrier;
use std::time::Duration;

/// A server, the proxy with one worker before it, and who counts.
fn start(options: &Options) -> (Server, Proxy, Observer) {
    let server = Server::start(options);
    let proxy = Proxy::start(&server, &["--workers", "1"]);
    let observer = Observer::of(&server);
    (server, proxy, observer)
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
    // Several try their passwords at once, each on a connection of which there are a few.
    let more = observer.connections() - connections;
    assert!(more <= 3 && observer.accepted() - accepted == more as u64, "{more} more connections");
}

/// So many run transactions at once, of whom 1,000 are connected.
const AT_ONCE: usize = 8;

#[test]
fn small_transactions_of_a_thousand_clients_make_no_connections_once_as_many_are_there_as_run_at_once() {
    let (_server, proxy, mut observer) = start(&Options::default());
    let before = observer.connections();
    let mut clients: Vec<Vec<Raw>> =
        (0..AT_ONCE).map(|_| (0..1_000 / AT_ONCE).map(|_| Raw::connect(proxy.addr())).collect()).collect();
    let all_at_once = Barrier::new(AT_ONCE);
    let run = |clients: &mut Vec<Vec<Raw>>| {
        std::thread::scope(|scope| {
            for (i, mine) in clients.iter_mut().enumerate() {
                let all_at_once = &all_at_once;
                scope.spawn(move || {
                    for (j, client) in mine.iter_mut().enumerate() {
                        piecewise(client, &format!("tx:{i}:{j}"), || {
                            if j == 0 {
                                all_at_once.wait();
                            }
                        });
                        in_one_write(client, &format!("tx:{i}:{j}"));
                    }
                });
            }
        });
    };
    run(&mut clients);
    let accepted = observer.accepted();
    for _ in 0..3 {
        run(&mut clients);
    }
    assert_eq!(observer.accepted(), accepted, "no connection was made");
    // One lane, and those that are in the pool.
    assert!(observer.connections() <= before + 1 + AT_ONCE, "{} connections", observer.connections());
    assert_eq!(observer.get("tx:0:0"), "8");
}

fn piecewise(client: &mut Raw, key: &str, meanwhile: impl FnOnce()) {
    assert_eq!(said(client, "MULTI"), "+OK\\r\\n");
    meanwhile();
    assert_eq!(said(client, &format!("INCR {key}")), "+QUEUED\\r\\n");
    assert!(said(client, "EXEC").starts_with("*1\\r\\n:"));
}

fn in_one_write(client: &mut Raw, key: &str) {
    client.send(format!("WATCH {key}\r\nMULTI\r\nINCR {key}\r\nGET {key}\r\nEXEC\r\n").as_bytes());
    let replies: Vec<String> = (0..5).map(|_| shown(&client.reply())).collect();
    assert_eq!(replies[..4], ["+OK\\r\\n", "+OK\\r\\n", "+QUEUED\\r\\n", "+QUEUED\\r\\n"]);
    assert!(replies[4].starts_with("*2\\r\\n:"), "{}", replies[4]);
}

#[test]
fn who_leaves_while_blocked_pops_nothing() {
    let (_server, proxy, mut observer) = start(&Options::default());
    let before = observer.connections();
    undisturbed(&proxy, |others| {
        let mut waiting: Vec<Raw> = (0..20).map(|_| Raw::connect(proxy.addr())).collect();
        for client in &mut waiting {
            client.send(b"BLPOP queue 0\r\n");
        }
        eventually("all are blocked", || observer.blocked() == 20);
        others.go_on();
        let mut last = waiting.pop().expect("there are 20");
        drop(waiting);
        eventually("only one is blocked", || observer.blocked() == 1);
        observer.ask(&["LPUSH", "queue", "job"]);
        assert!(shown(&last.reply()).contains("job"));
        observer.ask(&["LPUSH", "queue", "next"]);
        assert_eq!(observer.0.ask(&["LLEN", "queue"]).expect("an answer"), Value::Integer(1));
    });
    eventually("their connections are closed", || observer.connections() <= before + 1);
}

#[test]
fn who_leaves_while_blocked_and_not_read_is_noticed() {
    let server = Server::start(&Options::default());
    let proxy = Proxy::start_with(&server, "[service.limits]\nin_flight = 10");
    let mut observer = Observer::of(&server);
    let before = observer.connections();
    // More than is kept of what waits, of a command each, behind what never ends.
    let more = b"SET after 1\r\n".repeat((1 << 20) / 13 + 1000);
    let [mut leaves, mut ends] = [Raw::connect(proxy.addr()), Raw::connect(proxy.addr())];
    for client in [&mut leaves, &mut ends] {
        client.send(b"BLPOP queue 0\r\n");
    }
    eventually("both are blocked", || observer.blocked() == 2);
    for client in [&mut leaves, &mut ends] {
        client.send(&more);
    }
    drop(leaves);
    ends.shut();
    eventually("nobody is blocked", || observer.blocked() == 0);
    eventually("their connections are closed", || observer.connections() <= before + 1);
    assert_eq!(shown(&ends.rest().expect("its end")), "");
    assert_eq!(observer.get("after"), "");
}

#[test]
fn who_leaves_in_the_middle_disturbs_nobody() {
    let (_server, proxy, mut observer) = start(&Options::default());
    let before = observer.connections();
    let large = request(&[&b"SET"[..], b"large", &vec![b'x'; 4 << 20]]);
    undisturbed(&proxy, |others| {
        for round in 0..10 {
            let mut half = Raw::connect(proxy.addr());
            half.send(b"SET half 1\r\n*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$100\r\nabc");
            half.reply();

            let mut tx = Raw::connect(proxy.addr());
            tx.send(b"MULTI\r\nSET tx 1\r\n");
            tx.reply();
            tx.reply();

            let mut value = Raw::connect(proxy.addr());
            value.send(&large[..large.len() / 2]);

            let mut unread = Raw::connect(proxy.addr());
            unread.send(&b"GET by:0\r\n".repeat(500));

            let mut watching = Raw::connect(proxy.addr());
            watching.send(b"WATCH by:0\r\nSUBSCRIBE ch\r\n");
            watching.reply();

            others.go_on();
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
    let server = Server::start(&Options::default());
    let proxy = Proxy::start_with(&server, "[service.limits]\nclient_output_hard = \"64MiB\"");
    let mut observer = Observer::of(&server);
    let big = "x".repeat(1 << 20);
    observer.ask(&["SET", "big", &big]);
    undisturbed(&proxy, |others| {
        let [mut waits, mut closed] = [Raw::connect(proxy.addr()), Raw::connect(proxy.addr())];
        // More than the sockets hold, less than may wait.
        waits.send(&b"GET big\r\n".repeat(48));
        others.go_on();
        closed.send(&b"GET big\r\n".repeat(200));
        eventually("who leaves too much unread is closed", || closed.is_reset());
        others.go_on();
        assert!(!waits.is_reset());
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

/// As on a direct connection, where all that was said before the end is done: also by who wants no reply and waits for none.
#[test]
fn what_was_said_is_done_when_its_client_leaves_without_waiting_for_replies() {
    const INCREMENTS: usize = 100_000;
    let (_server, proxy, mut observer) = start(&Options::default());
    let before = observer.connections();
    undisturbed(&proxy, |_| {
        for first in ["CLIENT REPLY OFF", "CLIENT REPLY SKIP", "PING"] {
            observer.ask(&["DEL", "n"]);
            let mut client = Raw::connect(proxy.addr());
            // Whose replies nobody reads is reset by them sooner or later.
            let n = if first == "CLIENT REPLY OFF" { INCREMENTS } else { 100 };
            client.send(format!("{first}\r\n").as_bytes());
            client.send(&b"INCR n\r\n".repeat(n));
            drop(client);
            eventually(first, || observer.get("n") == n.to_string());
        }
    });
    eventually("their connections are closed", || observer.connections() <= before + 1);
}

/// Libraries write a pipeline as a whole before they read. A server keeps the replies meanwhile.
#[test]
fn who_says_all_before_it_listens_is_read_on() {
    const PAIRS: usize = 40_000;
    let (_server, proxy, _) = start(&Options::default());
    let value = "x".repeat(1_000);
    let (set, get) = (request(&["SET", "k", &value]), request(&["GET", "k"]));
    let mut client = Raw::connect(proxy.addr());
    // More than all sockets between hold, either way.
    client.send(&[set, get].concat().repeat(PAIRS));
    let want = format!("+OK\r\n${}\r\n{value}\r\n", value.len()).into_bytes().repeat(PAIRS);
    client.pieces(want.len(), |at, piece| assert!(piece == &want[at..at + piece.len()]));
    assert_eq!(said(&mut client, "PING"), "+PONG\\r\\n");
}

/// An operator kills everything but himself, the proxy's observers included: clients stay, and are told what was lost.
#[test]
fn what_the_server_closes_is_made_again() {
    let (_server, proxy, mut observer) = start(&Options::default());
    observer.ask(&["SET", "k", "old"]);
    let mut all: Vec<Raw> = (0..5).map(|_| Raw::connect(proxy.addr())).collect();
    let [plain, watching, tx, blocked, subscriber] = &mut all[..] else { panic!("there are five") };
    assert_eq!(said(plain, "SELECT 2"), "+OK\\r\\n");
    assert_eq!(said(plain, "SET in 2"), "+OK\\r\\n");
    assert_eq!(said(watching, "WATCH k"), "+OK\\r\\n");
    assert_eq!(said(tx, "MULTI"), "+OK\\r\\n");
    assert_eq!(said(tx, "SET tx 1"), "+QUEUED\\r\\n");
    said(subscriber, "SUBSCRIBE ch");
    blocked.send(b"BLPOP queue 0\r\n");
    eventually("it is blocked", || observer.blocked() == 1);
    for kind in ["normal", "pubsub"] {
        observer.0.ask(&["CLIENT", "KILL", "TYPE", kind]).expect("an answer");
    }
    assert_eq!(said(plain, "GET in"), "$1\\r\\n2\\r\\n");
    assert!(shown(&blocked.reply()).starts_with("-UNCERTAIN"));
    assert_eq!(said(blocked, "PING"), "+PONG\\r\\n");
    // In one write: the end of the transaction is there before its beginning is answered.
    watching.send(b"MULTI\r\nSET k new\r\nEXEC\r\n");
    let replies: Vec<String> = (0..3).map(|_| shown(&watching.reply())).collect();
    assert_eq!(replies, ["+OK\\r\\n", "+QUEUED\\r\\n", "*-1\\r\\n"]);
    assert_eq!(said(watching, "GET k"), "$3\\r\\nold\\r\\n");
    assert_eq!(said(tx, "SET tx 2"), "+QUEUED\\r\\n");
    assert!(said(tx, "EXEC").starts_with("-EXECABORT"));
    assert_eq!(said(tx, "GET tx"), "$-1\\r\\n");
    assert_eq!(said(subscriber, "PING"), "*2\\r\\n$4\\r\\npong\\r\\n$0\\r\\n\\r\\n");
    observer.ask(&["PUBLISH", "ch", "again"]);
    assert!(shown(&subscriber.reply()).ends_with("again\\r\\n"));
}

/// What `CLIENT INFO` says under a name.
fn info(client: &mut Raw, field: &str) -> String {
    let text = String::from_utf8(client.call(&["CLIENT", "INFO"])).expect("text");
    let value = text.split([' ', '\n']).find_map(|f| f.strip_prefix(field)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {field} in {text}")).to_owned()
}

fn own_id(client: &mut Raw) -> String {
    said(client, "CLIENT ID").trim_matches([':', '\\', 'r', 'n']).to_owned()
}

#[test]
fn client_info_tells_of_the_clients_own_connection() {
    let (_server, proxy, _) = start(&Options::default());
    let (mut first, mut second) = (Raw::connect(proxy.addr()), Raw::connect(proxy.addr()));
    for (i, client) in [&mut first, &mut second].into_iter().enumerate() {
        assert_eq!(said(client, &format!("CLIENT SETNAME n{i}")), "+OK\\r\\n");
        assert_eq!(said(client, "SELECT 3"), "+OK\\r\\n");
    }
    for (i, client) in [&mut first, &mut second].into_iter().enumerate() {
        let own = client.stream().local_addr().expect("an address").to_string();
        for binds in ["PING", "WATCH k", "CLIENT NO-EVICT on"] {
            said(client, binds);
            let id = own_id(client);
            let fields = ["id", "addr", "laddr", "name", "db"].map(|f| info(client, f));
            assert_eq!(fields, [id, own.clone(), proxy.addr().to_string(), format!("n{i}"), "3".into()]);
        }
    }
}

#[test]
fn clients_are_killed_by_what_they_are_and_nobody_else_is() {
    let (_server, proxy, mut observer) = start(&Options::default());
    let mut client = Raw::connect(proxy.addr());
    let id = own_id(&mut client);
    let addr = |c: &Raw| c.stream().local_addr().expect("an address").to_string();
    let mut others: Vec<Raw> = (0..6).map(|_| Raw::connect(proxy.addr())).collect();
    for other in &mut others {
        assert_eq!(said(other, "PING"), "+PONG\\r\\n");
    }
    let ends = |mut other: Raw| assert_eq!(shown(&other.rest().expect("an end")), "");
    let one = others.pop().expect("there are six");
    assert_eq!(said(&mut client, &format!("CLIENT KILL {}", addr(&one))), "+OK\\r\\n");
    ends(one);
    let one = others.pop().expect("there are five");
    assert_eq!(said(&mut client, &format!("CLIENT KILL ADDR {} TYPE pubsub", addr(&one))), ":0\\r\\n");
    assert_eq!(said(&mut client, &format!("CLIENT KILL ADDR {} TYPE normal", addr(&one))), ":1\\r\\n");
    ends(one);
    let mut blocked = others.pop().expect("there are four");
    blocked.send(b"BLPOP queue 0\r\n");
    eventually("it is blocked", || observer.blocked() == 1);
    let rest = said(&mut client, &format!("CLIENT KILL LADDR {} USER default", proxy.addr()));
    // Whoever looked whether the proxy answers may not have been seen to leave.
    assert!(rest == ":4\\r\\n" || rest == ":5\\r\\n", "{rest}");
    ends(blocked);
    others.into_iter().for_each(ends);
    eventually("nobody is blocked", || observer.blocked() == 0);
    assert_eq!(own_id(&mut client), id);
    assert_eq!(observer.get("k"), "");
}

/// Keys are read, by the hearer itself or another, and changed by somebody else, until the hearer is told of one of them. To be
/// told to forget all is as good for a key, but not for ever.
fn hears_what_changes(
    round: usize,
    observer: &mut Observer,
    mut reader: Option<&mut Raw>,
    hearer: &mut Raw,
    flush: &str,
) {
    for n in 0..100 {
        let key = format!("k:{round}:{n}:{}", reader.is_some());
        match &mut reader {
            Some(reader) => assert_eq!(said(reader, &format!("GET {key}")), "$-1\\r\\n"),
            None => {
                hearer.send(format!("GET {key}\r\n").as_bytes());
                while shown(&hearer.reply()) != "_\\r\\n" {}
            }
        }
        observer.ask(&["SET", &key, "1"]);
        loop {
            let heard = shown(&hearer.reply());
            if heard.contains(&key) {
                return;
            }
            assert!(heard == flush || heard.contains("invalidate"), "{heard}");
            if heard == flush {
                break;
            }
        }
    }
    panic!("nothing else is heard");
}

/// What is invalidated while its connection was lost nobody can say: a client forgets all, and is told of what comes.
#[test]
fn who_keeps_copies_is_told_to_forget_them_when_its_connection_was_lost() {
    let (_server, proxy, mut observer) = start(&Options::default());
    let mut all: Vec<Raw> = (0..3).map(|_| Raw::connect(proxy.addr())).collect();
    let [itself, told, redirects] = &mut all[..] else { panic!("there are three") };
    said(itself, "HELLO 3");
    assert_eq!(said(itself, "CLIENT TRACKING on"), "+OK\\r\\n");
    let id = own_id(told);
    said(told, "SUBSCRIBE __redis__:invalidate");
    assert_eq!(said(redirects, &format!("CLIENT TRACKING on REDIRECT {id}")), "+OK\\r\\n");
    assert_eq!(said(redirects, "CLIENT GETREDIR"), format!(":{id}\\r\\n"));
    assert_eq!(info(redirects, "redir"), id);
    let push = ">2\\r\\n$10\\r\\ninvalidate\\r\\n_\\r\\n";
    let message = "*3\\r\\n$7\\r\\nmessage\\r\\n$20\\r\\n__redis__:invalidate\\r\\n$-1\\r\\n";
    // All is lost, then only what tells one of them.
    for (round, killed) in ["", "SKIPME yes", "TYPE pubsub", "TYPE pubsub"].into_iter().enumerate() {
        if !killed.is_empty() {
            let words: Vec<&str> = ["CLIENT", "KILL"].into_iter().chain(killed.split(' ')).collect();
            observer.0.ask(&words).expect("an answer");
            assert_eq!(shown(&told.reply()), message);
        }
        if killed.contains("SKIPME") {
            assert_eq!(shown(&itself.reply()), push);
        }
        hears_what_changes(round, &mut observer, None, itself, push);
        hears_what_changes(round, &mut observer, Some(redirects), told, message);
    }
}

#[test]
fn what_is_more_than_a_limit_is_refused_and_disturbs_nobody() {
    let server = Server::start(&Options::default());
    let proxy = Proxy::start_with(&server, "clients = 4\npinned = 2");
    let mut clients: Vec<Raw> = Vec::new();
    // The one that looked whether the proxy answers may not have been seen to leave.
    eventually("there is room for all", || {
        clients = (0..4).map(|_| Raw::connect(proxy.addr())).collect();
        clients.iter_mut().all(|c| c.call(&["PING"]) == b"+PONG\r\n")
    });
    let mut more = Raw::connect(proxy.addr());
    assert_eq!(more.rest().expect("an end"), b"-ERR max number of clients reached\r\n");
    let mut observer = Observer::of(&server);
    let [one, two, three, four] = &mut clients[..] else { panic!("there are four") };
    one.send(b"BLPOP queue 0\r\n");
    assert_eq!(said(two, "MULTI"), "+OK\\r\\n");
    eventually("it is blocked", || observer.blocked() == 1);
    assert!(said(three, "BLPOP queue 0").starts_with("-ERR too many sessions"));
    assert_eq!(said(three, "SET k 1"), "+OK\\r\\n");
    assert_eq!(said(two, "EXEC"), "*0\\r\\n");
    assert_eq!(said(four, "MULTI"), "+OK\\r\\n");
    observer.ask(&["RPUSH", "queue", "job"]);
    assert!(shown(&one.reply()).contains("job"));
    assert_eq!(said(four, "EXEC"), "*0\\r\\n");
}
