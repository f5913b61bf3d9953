//! Durable writes with real servers: what is acknowledged is on replicas, whatever the command, and nothing of it is lost
//! when the master dies.
use crate::scene::load::{Load, Tally};
use crate::scene::{DEADLINE, Proxy, eventually, is_error, ok, said};
use pointsman::client::{Client, Value};
use pointsman::sandbox::deployment::{Deployment, Options, free_addr};
use std::net::SocketAddr;

const WRITERS: usize = 8;

/// A master and two replicas, and a proxy before them with an ordinary listener and a durable one.
struct Durable {
    deployment: Deployment,
    proxy: Proxy,
    durable: SocketAddr,
}

fn durable(replicas: usize, timeout: &str) -> Durable {
    let deployment = Deployment::start(Options { sentinels: 0, ..Options::default() }).unwrap();
    let nodes: Vec<String> = deployment.nodes.iter().map(|n| format!("\"{}\"", n.addr())).collect();
    let durable = free_addr().unwrap();
    let rest = format!(
        "nodes = [{}]\ntimeout = \"30s\"\ndurable = {replicas}\ndurable_timeout = \"{timeout}\"\ndurable_listen = [\"{durable}\"]",
        nodes.join(", ")
    );
    let proxy = Proxy::start(&deployment, &rest);
    proxy.wait_master(&deployment.nodes[0]);
    Durable { deployment, proxy, durable }
}

impl Durable {
    fn client(&self) -> Client {
        Client::connect(self.durable, DEADLINE).unwrap()
    }

    fn on_master(&self, args: &[&str]) -> Value {
        self.deployment.nodes[0].ask(args).unwrap()
    }

    fn replicas_stop(&self, n: usize) {
        self.deployment.nodes[1..=n].iter().for_each(|n| n.stop());
    }

    fn replicas_go_on(&self) {
        self.deployment.nodes[1..].iter().for_each(|n| n.cont());
    }
}

#[test]
fn a_write_is_acknowledged_only_when_so_many_replicas_have_it() {
    let d = durable(2, "1s");
    let mut c = d.client();
    eventually("replicas acknowledge", || c.call(&["SET", "a", "1"]).unwrap() == ok());
    for node in &d.deployment.nodes[1..] {
        assert_eq!(node.ask(&["GET", "a"]).unwrap().text().unwrap(), "1", "{}", node.name());
    }
    d.replicas_stop(1);
    let reply = c.call(&["SET", "a", "2"]).unwrap();
    assert!(is_error(&reply, "NOTDURABLE"), "{reply:?}");
    assert_eq!(
        d.on_master(&["GET", "a"]).text().unwrap(),
        "2",
        "it is on the master, and was not sent again"
    );
    // Who does not ask for it does not wait for it.
    assert_eq!(d.proxy.client().call(&["SET", "a", "3"]).unwrap(), ok());
    d.replicas_go_on();
    eventually("replicas acknowledge again", || c.call(&["SET", "a", "4"]).unwrap() == ok());
}

#[test]
fn reads_do_not_wait_for_the_writes_of_others() {
    let d = durable(1, "30s");
    let (mut writer, mut reader) = (d.client(), d.client());
    d.replicas_stop(2);
    writer.send(&["SET", "a", "1"]).unwrap();
    writer.send(&["GET", "a"]).unwrap();
    eventually("it is executed", || d.on_master(&["GET", "a"]).text().as_deref() == Some("1"));
    assert_eq!(reader.call(&["GET", "a"]).unwrap().text().unwrap(), "1");
    assert!(!writer.wait(std::time::Duration::from_millis(50)).unwrap(), "its own reads come behind");
    d.replicas_go_on();
    assert_eq!((writer.read().unwrap(), writer.read().unwrap().text().unwrap()), (ok(), "1".into()));
}

#[test]
fn transactions_scripts_and_blocked_pops_wait_too() {
    let d = durable(1, "1s");
    let mut c = d.client();
    let transaction = |c: &mut Client| {
        assert_eq!(c.call(&["MULTI"]).unwrap(), ok());
        c.call(&["INCR", "n"]).unwrap();
        c.call(&["EXEC"]).unwrap()
    };
    let script = |c: &mut Client| c.call(&["EVAL", "return redis.call('incr', KEYS[1])", "1", "n"]).unwrap();
    let pop = |c: &mut Client| {
        c.send(&["BLPOP", "list", "0"]).unwrap();
        eventually("it blocks", || d.on_master(&["CLIENT", "LIST"]).text().unwrap().contains("cmd=blpop"));
        d.on_master(&["RPUSH", "list", "x"]);
        c.read().unwrap()
    };
    assert_eq!(transaction(&mut c), Value::Array(vec![Value::Integer(1)]));
    assert_eq!(script(&mut c), Value::Integer(2));
    assert_eq!(pop(&mut c).items().len(), 2);
    d.replicas_stop(2);
    for (what, reply) in [("EXEC", transaction(&mut c)), ("EVAL", script(&mut c)), ("BLPOP", pop(&mut c))] {
        assert!(is_error(&reply, "NOTDURABLE"), "{what}: {reply:?}");
    }
    assert_eq!(d.on_master(&["GET", "n"]).text().unwrap(), "4");
    d.replicas_go_on();
    eventually("replicas acknowledge again", || !is_error(&script(&mut c), "NOTDURABLE"));
}

#[test]
fn many_writers_share_a_wait() {
    let d = durable(2, "5s");
    let load = Load::start(d.durable, 40, 0);
    let mut raw = crate::scene::Raw::tcp(d.durable);
    let n = 2_000;
    raw.send(&"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n".repeat(n));
    raw.expect(&"+OK\r\n".repeat(n));
    let tally = load.finish(&d.deployment.nodes[0]);
    tally.assert_perfect();
    let statistics = &d.proxy.service("cache")["statistics"];
    let of = |name: &str| statistics[name].as_u64().unwrap();
    assert!(of("durable_writes") >= n as u64 + tally.writes, "{statistics}");
    assert!(of("durable_waits") * 2 < of("durable_writes"), "{statistics}");
}

fn failover(cause: impl FnOnce(&Deployment)) -> Tally {
    let deployment = Deployment::start(Options::default()).unwrap();
    let proxy = Proxy::before_sentinels(&deployment, "durable = 1\ndurable_timeout = \"20s\"");
    proxy.wait_master(&deployment.nodes[0]);
    let load = Load::start(proxy.listen, WRITERS, 2);
    cause(&deployment);
    let new = proxy.follow(&deployment, 0);
    load.progress();
    let tally = load.finish(&deployment.nodes[new]);
    println!("{tally:?}");
    tally
}

#[test]
fn a_probe_tells_whether_there_are_replicas_for_it() {
    let deployment = Deployment::start(Options { nodes: 2, ..Options::default() }).unwrap();
    let check = |replicas: usize| {
        let proxy = Proxy::before_sentinels(&deployment, &format!("durable = {replicas}"));
        said(&["check", "-c", proxy.config.to_str().unwrap(), "--probe"])
    };
    let (good, text, _) = check(1);
    assert!(good && text.contains("acknowledges a write when a replica has it"), "{text}");
    assert!(text.contains("all replicas that there are") && text.contains("run on one host"), "{text}");
    let (good, text, _) = check(2);
    assert!(!good && text.contains("durable = 2, but 1 replicas follow the master"), "{text}");
}

#[test]
fn nothing_that_was_acknowledged_is_lost_when_the_master_is_killed() {
    let tally = failover(|d| d.nodes[0].kill9());
    tally.assert_sound();
    assert_eq!(tally.lost, 0);
    assert!(tally.uncertain + tally.not_durable <= WRITERS as u64, "{tally:?}");
}

#[test]
fn an_ordered_switch_shows_no_errors_and_loses_nothing() {
    let tally = failover(|d| eventually("a Sentinel fails over", || d.sentinel_failover().is_ok()));
    tally.assert_perfect();
}
