//! Scripts and functions: those that do not end, those that wait, those that fail.
use crate::harness::observer::{Observer, said};
use crate::harness::raw::{Raw, request, shown};
use crate::harness::{Pair, Proxy, Server, eventually, script};
use crate::scene;
use pointsman::sandbox::deployment::{Deployment, Options};

const LIBRARY: &str = "#!lua name=x\nredis.register_function('endless', function() while true do end end)";

/// Soon impatient with scripts.
fn start() -> (Server, Proxy) {
    let node_lines = vec!["lua-time-limit 50".to_owned()];
    let server = Server::start(&Options { node_lines, ..Options::default() });
    let proxy = Proxy::start(&server, &["--workers", "1"]);
    (server, proxy)
}

/// A script that does not end can be ended by another client, although both are in the same database as the same user.
#[test]
fn what_does_not_end_can_be_killed_by_another_client() {
    let (server, proxy) = start();
    let has_functions = !server.connect().ask(&["COMMAND", "INFO", "FUNCTION"]).expect("COMMAND").items()[0]
        .items()
        .is_empty();
    let kinds = [
        (&["EVAL", "while true do end", "0"][..], "SCRIPT KILL"),
        (&["FCALL", "endless", "0"], "FUNCTION KILL"),
    ];
    for (begin, kill) in &kinds[..if has_functions { 2 } else { 1 }] {
        let mut killer = Raw::connect(proxy.addr());
        killer.call(&["FUNCTION", "LOAD", "REPLACE", LIBRARY]);
        let mut runner = Raw::connect(proxy.addr());
        runner.send(&request(begin));
        eventually("it is killed", || said(&mut killer, kill) == "+OK\\r\\n");
        assert!(shown(&runner.reply()).contains("killed by user"));
        assert_eq!(said(&mut killer, "SET k 1"), "+OK\\r\\n");
        assert!(said(&mut killer, kill).starts_with("-NOTBUSY"));
    }
}

/// A script that has written cannot be killed; what others are told is what the server says.
#[test]
fn who_comes_while_a_script_runs_is_told_that_the_server_is_busy() {
    let (server, proxy) = start();
    let mut observer = Observer::of(&server);
    let mut runner = Raw::connect(proxy.addr());
    assert_eq!(said(&mut runner, "SET k old"), "+OK\\r\\n");
    let script =
        "redis.call('SET', 'k', 'new') while redis.call('TIME')[1] - ARGV[1] < 4 do end return 'done'";
    // In a database of its own: over a connection on which the script does not run.
    let mut other = Raw::connect(proxy.addr());
    assert_eq!(said(&mut other, "SELECT 1"), "+OK\\r\\n");
    assert_eq!(said(&mut other, "SET k other"), "+OK\\r\\n");
    let time = observer.0.ask(&["TIME"]).expect("TIME").items()[0].text().expect("seconds");
    runner.send(&request(&["EVAL", script, "0", &time]));
    eventually("the server is busy", || said(&mut other, "GET k").starts_with("-BUSY "));
    assert!(said(&mut other, "SCRIPT KILL").starts_with("-UNKILLABLE "));
    assert_eq!(runner.reply(), b"$4\r\ndone\r\n");
    assert_eq!(said(&mut runner, "GET k"), "$3\\r\\nnew\\r\\n");
    assert_eq!(said(&mut other, "GET k"), "$5\\r\\nother\\r\\n");
}

/// What sessions say while a script runs, each on a connection that was there before, or on a new one.
const OTHERS: [&[&str]; 10] = [
    &["SET k 1", "GET k", "PING", "CLIENT ID", "QUIT"],
    &["SELECT 1", "GET k"],
    &["MULTI", "SET k 2", "EXEC", "GET k"],
    &["WATCH k", "UNWATCH", "DISCARD", "EXEC"],
    &["SUBSCRIBE c", "PING"],
    &["BLPOP list 1", "RESET"],
    &["AUTH nobody wrong", "HELLO 9", "INFO server"],
    &["EVAL return(1) 0", "EVALSHA 0 0", "SCRIPT EXISTS 0", "FUNCTION LIST"],
    &["CLIENT SETNAME x", "CLIENT GETNAME", "DBSIZE"],
    &["XREAD BLOCK 1 STREAMS s $", "WAIT 0 1", "PUBLISH c x"],
];

/// By default a server says nothing for 5 seconds. Then it tells others that it is busy; so does the proxy, which has told them to
/// wait meanwhile, on a single connection for all.
#[test]
fn others_are_answered_as_directly_while_a_script_of_many_seconds_runs() {
    let pair = Pair::start(&Options::default(), &["--workers", "1"]);
    let addrs = [pair.bare.addr(), pair.proxy.addr()];
    let mut runners = addrs.map(Raw::connect);
    let mut old = addrs.map(|addr| OTHERS.map(|_| Raw::connect(addr)));
    for client in runners.iter_mut().chain(old.iter_mut().flatten()) {
        assert_eq!(said(client, "SET k old"), "+OK\\r\\n");
    }
    runners.iter_mut().for_each(|runner| runner.send(&request(&["EVAL", "while true do end", "0"])));
    eventually("commands wait", || pair.proxy.said().contains("event=\"hold\""));
    let new = addrs.map(|addr| OTHERS.map(|_| Raw::connect(addr)));
    let [[bare, fronted], [bare_new, fronted_new]] = [old, new];
    let both = bare.into_iter().chain(bare_new).zip(fronted.into_iter().chain(fronted_new));
    let lines = || OTHERS.iter().chain(&OTHERS);
    let mut all: Vec<(&&[&str], (Raw, Raw))> = lines().zip(both).collect();
    // All at once, before the first answer.
    for (lines, (a, b)) in &mut all {
        let first: Vec<&str> = lines[0].split(' ').collect();
        [a, b].into_iter().for_each(|client| client.send(&request(&first)));
    }
    for (lines, (a, b)) in &mut all {
        assert_eq!(shown(&a.reply()), shown(&b.reply()), "{}", lines[0]);
        for line in &lines[1..] {
            assert_eq!(said(a, line), said(b, line), "{line} of {lines:?}");
        }
    }
    for (addr, runner) in addrs.into_iter().zip(&mut runners) {
        assert!(said(&mut Raw::connect(addr), "GET k").starts_with("-BUSY "));
        assert_eq!(said(&mut Raw::connect(addr), "SCRIPT KILL"), "+OK\\r\\n");
        assert!(shown(&runner.reply()).contains("killed by user"));
        assert_eq!(said(runner, "GET k"), "$3\\r\\nold\\r\\n");
    }
    let log = pair.proxy.said();
    assert!(log.contains("runs a script, and is master still") && !log.contains("event=\"fence\""), "{log}");
}

/// What a script has done is not lost for having taken long: its client is told, in the term in which it began.
#[test]
fn a_script_of_many_seconds_ends_no_grant_as_long_as_no_sentinel_could_promote_another() {
    let options = Options { down_after_ms: 30_000, ..Options::default() };
    let deployment = Deployment::start(options).expect("a deployment");
    let proxy = scene::Proxy::before_sentinels(&deployment, "");
    proxy.wait_master(&deployment.nodes[0]);
    let mut runner = Raw::connect(proxy.listen);
    let script = "redis.call('SET', 'k', 'new') local b = redis.call('TIME')[1] \
                  while redis.call('TIME')[1] - b < 7 do end return 'done'";
    runner.send(&request(&["EVAL", script, "0"]));
    proxy.wait_state("holding");
    let mut other = Raw::connect(proxy.listen);
    assert!(said(&mut other, "SET k other").starts_with("-BUSY "));
    assert!(said(&mut other, "SCRIPT KILL").starts_with("-UNKILLABLE "));
    assert_eq!(runner.reply(), b"$4\r\ndone\r\n");
    assert_eq!(said(&mut other, "GET k"), "$3\\r\\nnew\\r\\n");
    assert_eq!((proxy.term(), proxy.count_events("hold")), (1, 1), "{:?}", proxy.events());
}

#[test]
fn scripts_that_fail_or_wait_answer_as_directly() {
    script::hold(
        &Pair::start(&Options::default(), &[]),
        include_str!("parity/scripts_that_fail_or_wait.txt"),
    );
}
