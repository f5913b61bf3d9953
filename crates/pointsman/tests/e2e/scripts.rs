//! Scripts and functions: those that do not end, those that wait, those that fail.
use crate::harness::observer::{Observer, said};
use crate::harness::raw::{Raw, request, shown};
use crate::harness::{Pair, Proxy, Server, eventually, script};
use pointsman::sandbox::deployment::Options;

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

/// A node that runs a script answers Pointsman's own questions no more than others', so commands wait. The script can be ended.
#[test]
fn a_script_can_be_ended_when_commands_wait_because_of_it() {
    let (_server, proxy) = start();
    let mut runner = Raw::connect(proxy.addr());
    assert_eq!(said(&mut runner, "SET k v"), "+OK\\r\\n");
    runner.send(&request(&["EVAL", "while true do end", "0"]));
    eventually("commands wait", || proxy.said().contains("event=\"hold\""));
    let (mut reader, mut killer) = (Raw::connect(proxy.addr()), Raw::connect(proxy.addr()));
    reader.send(b"GET k\r\n");
    assert_eq!(said(&mut killer, "SCRIPT KILL"), "+OK\\r\\n");
    assert!(shown(&runner.reply()).contains("killed by user"));
    assert_eq!(reader.reply(), b"$1\r\nv\r\n");
}

#[test]
fn scripts_that_fail_or_wait_answer_as_directly() {
    script::hold(
        &Pair::start(&Options::default(), &[]),
        include_str!("parity/scripts_that_fail_or_wait.txt"),
    );
}
