//! What operators ask a server, through the proxy.
use crate::harness::observer::{Observer, said};
use crate::harness::raw::{Raw, request, shown};
use crate::harness::{Pair, Proxy, Server, script};
use pointsman::client::{Client, Value};
use pointsman::sandbox::deployment::Options;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn what_the_server_says_of_itself() {
    script::hold(
        &Pair::start(&Options::default(), &[]),
        include_str!("parity/what_the_server_says_of_itself.txt"),
    );
}

/// What speaks of the server has its fields, and is the server's.
#[test]
fn info_has_its_sections() {
    let server = Server::start(&Options::default());
    let proxy = Proxy::start(&server, &[]);
    let mut client = Client::connect(proxy.addr(), crate::harness::DEADLINE).expect("a connection");
    let mut text = |words: &[&str]| client.ask(words).expect("an answer").text().expect("text");
    for (section, field) in [
        ("server", "run_id"),
        ("clients", "connected_clients"),
        ("memory", "used_memory"),
        ("persistence", "loading"),
        ("stats", "total_commands_processed"),
        ("replication", "master_replid"),
        ("cpu", "used_cpu_user"),
        ("commandstats", "cmdstat_info"),
        ("errorstats", ""),
        ("everything", "cluster_enabled"),
    ] {
        let info = text(&["INFO", section]);
        assert!(info.starts_with("# ") && info.contains(&format!("\r\n{field}")), "{section}: {info}");
    }
    let id = |info: String| info.lines().find(|l| l.starts_with("run_id:")).map(str::to_owned);
    let direct = server.connect().ask(&["INFO", "server"]).expect("INFO").text().expect("text");
    assert_eq!(id(text(&["INFO", "server"])), id(direct));
    let clients = text(&["CLIENT", "LIST"]);
    assert!(clients.lines().all(|line| line.starts_with("id=") && line.contains(" cmd=")), "{clients}");
}

#[test]
fn debug_is_refused_until_it_is_allowed() {
    let server = Server::start(&Options::default());
    // Since 7.0 the server has a say in it too.
    let asks = !Observer::of(&server)
        .0
        .ask(&["CONFIG", "GET", "enable-debug-command"])
        .expect("CONFIG")
        .items()
        .is_empty();
    let node_lines = if asks { vec!["enable-debug-command yes".to_owned()] } else { vec![] };
    let server = Server::start(&Options { node_lines, ..Options::default() });
    let refusing = Proxy::start(&server, &[]);
    let mut client = Raw::connect(refusing.addr());
    assert_eq!(said(&mut client, "SET k v"), "+OK\\r\\n");
    for line in ["DEBUG OBJECT k", "debug sleep 0", "DEBUG SET-ACTIVE-EXPIRE 1", "DEBUG NOSUCH"] {
        let reply = said(&mut client, line).replace('\\', "");
        assert!(
            reply.starts_with("-REFUSED 'DEBUG'") && reply.contains("setting 'allow'"),
            "{line}: {reply}"
        );
    }
    for lines in ["allow = [\"DEBUG\"]", "transparent = true"] {
        let proxy = Proxy::start_with(&server, lines);
        let mut client = Raw::connect(proxy.addr());
        assert!(said(&mut client, "DEBUG OBJECT k").starts_with("+Value at:"));
        assert_eq!(said(&mut client, "DEBUG SLEEP 0"), "+OK\\r\\n");
        assert_eq!(said(&mut client, "DEBUG SET-ACTIVE-EXPIRE 1"), "+OK\\r\\n");
        assert_eq!(said(&mut client, "GET k"), "$1\\r\\nv\\r\\n");
    }
}

/// Whoever writes meanwhile, what is there all the time is found.
#[test]
fn a_scan_finds_all_that_stays_whoever_writes_meanwhile() {
    const KEYS: usize = 10_000;
    let server = Server::start(&Options::default());
    let proxy = Proxy::start(&server, &["--workers", "2"]);
    let mut client = Client::connect(proxy.addr(), crate::harness::DEADLINE).expect("a connection");
    let fill = "for i = 1, ARGV[1] do redis.call('SET', 'stays:' .. i, i) redis.call('HSET', 'h', 'stays:' .. i, i) \
                redis.call('SADD', 's', 'stays:' .. i) redis.call('ZADD', 'z', i, 'stays:' .. i) end";
    client.ask(&["EVAL", fill, "0", &KEYS.to_string()]).expect("EVAL");
    let want: BTreeSet<String> = (1..=KEYS).map(|i| format!("stays:{i}")).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for i in 0..2 {
            let (over, addr) = (&over, proxy.addr());
            scope.spawn(move || {
                let mut writer = Raw::connect(addr);
                let mut n = 0;
                while !over.load(Ordering::Relaxed) {
                    n += 1;
                    let name = format!("goes:{i}:{}", n % 5_000);
                    let all = [
                        vec!["SET", &name, "1"],
                        vec!["HSET", "h", &name, "1"],
                        vec!["SADD", "s", &name],
                        vec!["ZADD", "z", "1", &name],
                    ];
                    for words in all {
                        assert!(!writer.call(&words).starts_with(b"-"));
                    }
                    assert!(
                        !writer
                            .call(&["DEL", &format!("goes:{i}:{}", (n + 2_500) % 5_000)])
                            .starts_with(b"-")
                    );
                }
            });
        }
        for (words, width) in
            [(&["SCAN"][..], 1), (&["HSCAN", "h"], 2), (&["SSCAN", "s"], 1), (&["ZSCAN", "z"], 2)]
        {
            let (mut cursor, mut seen, mut calls) = ("0".to_owned(), BTreeSet::new(), 0);
            loop {
                let reply = client.ask(&[words, &[&cursor, "COUNT", "200"]].concat()).expect("a page");
                let [next, page] = reply.items() else { panic!("{reply:?}") };
                seen.extend(page.items().iter().step_by(width).filter_map(Value::text));
                cursor = next.text().expect("a cursor");
                calls += 1;
                if cursor == "0" {
                    break;
                }
            }
            assert!(calls > 20, "{words:?} took only {calls} calls");
            assert!(want.is_subset(&seen), "{words:?} missed {}", want.difference(&seen).count());
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_monitor_hears_what_all_clients_say() {
    let server = Server::start(&Options::default());
    let proxy = Proxy::start(&server, &["--workers", "1"]);
    let mut monitor = Raw::connect(proxy.addr());
    assert_eq!(said(&mut monitor, "MONITOR"), "+OK\\r\\n");
    let mut clients: Vec<Raw> = (0..10).map(|_| Raw::connect(proxy.addr())).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(&request(&["SET", &format!("k{i}"), "v"]));
        client.send(b"MULTI\r\nGET k0\r\nEXEC\r\n");
        for _ in 0..4 {
            client.reply();
        }
    }
    let mut sets = 0;
    while sets < 10 {
        let line = shown(&monitor.reply());
        if line.contains("\\\"SET\\\"") {
            assert!(line.contains(&format!("k{sets}")), "{line}");
            sets += 1;
        }
    }
}
