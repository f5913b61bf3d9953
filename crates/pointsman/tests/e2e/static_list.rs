//! A list of nodes in order of preference, with backups: health, and the ways back.
use crate::scene::fake::Fake;
use crate::scene::{DEADLINE, Proxy, bulk, eventually, is_error, ok};
use pointsman::client::{Client, Value};
use pointsman::sandbox::deployment::{Deployment, Options, free_addr};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

/// A service's list: the first node, and a backup.
fn list(first: SocketAddr, backup: SocketAddr) -> String {
    format!(
        "interval = \"50ms\"\n[[service.node]]\naddress = \"{first}\"\n[[service.node]]\naddress = \"{backup}\"\nbackup = true\n"
    )
}

fn two_nodes() -> Deployment {
    Deployment::start(Options { nodes: 2, sentinels: 0, append_only: true, ..Options::default() }).unwrap()
}

fn listed(deployment: &Deployment) -> String {
    list(deployment.nodes[0].addr(), deployment.nodes[1].addr())
}

#[test]
fn a_backup_serves_while_the_first_is_down_and_its_readonly_is_passed_on() {
    let deployment = two_nodes();
    let proxy = Proxy::start(&deployment, &listed(&deployment));
    let [first, backup] = &deployment.nodes[..] else { unreachable!("two nodes") };
    proxy.wait_master(first);
    let mut client = proxy.client();
    assert_eq!(client.call(&["SET", "k", "v"]).unwrap(), ok());
    eventually("it is replicated", || backup.ask(&["GET", "k"]).unwrap() == bulk("v"));
    first.kill9();
    assert_eq!(client.call(&["GET", "k"]).unwrap(), bulk("v"));
    assert_eq!(proxy.master(), Some(backup.addr().to_string()));
    let refused = client.call(&["SET", "k", "w"]).unwrap();
    assert!(is_error(&refused, "READONLY"), "{refused:?}");
    assert_eq!(proxy.service("cache")["state"], "serving");
    backup.ask(&["REPLICAOF", "NO", "ONE"]).unwrap();
    assert_eq!(client.call(&["SET", "k", "w"]).unwrap(), ok());
}

/// Three services before the same two nodes, one for each way back.
struct Ways {
    deployment: Deployment,
    proxy: Proxy,
    listens: Vec<SocketAddr>,
}

const WAYS: [&str; 3] = ["never", "cut", "drain"];

impl Ways {
    fn start() -> Ways {
        let deployment = two_nodes();
        deployment.nodes[1].ask(&["REPLICAOF", "NO", "ONE"]).unwrap();
        for (node, who) in deployment.nodes.iter().zip(["first", "backup"]) {
            node.ask(&["SET", "who", who]).unwrap();
        }
        let listens: Vec<SocketAddr> = WAYS.iter().map(|_| free_addr().unwrap()).collect();
        let mut services = String::new();
        for (way, listen) in WAYS.iter().zip(&listens) {
            writeln!(services, "[[service]]\nname = \"{way}\"\nlisten = [\"{listen}\"]").unwrap();
            writeln!(services, "failback = \"{way}\"\n{}", listed(&deployment)).unwrap();
        }
        let services =
            services.replace("\"drain\"\ninterval", "\"drain\"\nfailback_drain = \"3s\"\ninterval");
        let proxy = Proxy::start_with(&deployment, listens[0], &services);
        Ways { deployment, proxy, listens }
    }

    fn client(&self, way: &str) -> Client {
        let i = WAYS.iter().position(|w| *w == way).unwrap();
        Client::connect(self.listens[i], DEADLINE).unwrap()
    }

    /// Which node a service serves from, while it serves.
    fn serves(&self, way: &str) -> Option<usize> {
        let service = self.proxy.service(way);
        let at = |i: &usize| service["master"] == self.deployment.nodes[*i].addr().to_string();
        (0..2).find(at).filter(|_| service["state"] == "serving")
    }
}

#[test]
fn when_the_first_recovers_sessions_stay_or_are_cut_or_drained() {
    let ways = Ways::start();
    let [first, backup] = &ways.deployment.nodes[..] else { unreachable!("two nodes") };
    WAYS.iter().for_each(|way| eventually("the first serves", || ways.serves(way) == Some(0)));
    first.kill9();
    WAYS.iter().for_each(|way| eventually("the backup serves", || ways.serves(way) == Some(1)));
    let mut clients: Vec<Client> = WAYS.iter().map(|way| ways.client(way)).collect();
    let mut blocked: Vec<Client> = WAYS.iter().map(|way| ways.client(way)).collect();
    for ((client, blocked), way) in clients.iter_mut().zip(&mut blocked).zip(WAYS) {
        assert_eq!(client.call(&["GET", "who"]).unwrap(), bulk("backup"), "{way}");
        blocked.send(&["BLPOP", way, "0"]).unwrap();
    }
    let mut late = ways.client("drain");
    late.send(&["BLPOP", "late", "0"]).unwrap();
    eventually("all pops block", || backup.info("clients", "blocked_clients").unwrap() == "4");
    let [never, cut, drain] = &mut clients[..] else { unreachable!("three services") };
    let [never_blocked, cut_blocked, drain_blocked] = &mut blocked[..] else {
        unreachable!("three services")
    };

    first.restart().unwrap();
    eventually("it drains", || ways.proxy.service("drain")["state"] == "holding");
    // What is under way is answered; what is new waits.
    drain.send(&["GET", "who"]).unwrap();
    backup.ask(&["RPUSH", "drain", "x"]).unwrap();
    assert_eq!(drain_blocked.read().unwrap().items(), [bulk("drain"), bulk("x")]);
    assert!(!drain.wait(Duration::from_millis(1)).unwrap(), "it still drains");
    assert!(is_error(&late.read().unwrap(), "UNCERTAIN"), "its time was over");
    assert_eq!(drain.read().unwrap(), bulk("first"));

    assert!(is_error(&cut_blocked.read().unwrap(), "UNCERTAIN"));
    assert_eq!(cut.call(&["GET", "who"]).unwrap(), bulk("first"));

    assert_eq!(ways.serves("never"), Some(1));
    assert_eq!(never.call(&["GET", "who"]).unwrap(), bulk("backup"));
    backup.ask(&["RPUSH", "never", "y"]).unwrap();
    assert_eq!(never_blocked.read().unwrap().items(), [bulk("never"), bulk("y")]);
    assert_eq!(backup.info("clients", "blocked_clients").unwrap(), "0", "nobody is left behind");
    backup.kill9();
    assert_eq!(never.call(&["GET", "who"]).unwrap(), bulk("first"));
}

#[test]
fn so_many_failed_checks_make_a_node_ill_and_so_many_good_ones_well() {
    let deployment = Deployment::start(Options { nodes: 1, sentinels: 0, ..Options::default() }).unwrap();
    // How many of the next checks find it ill.
    let ill = Arc::new(AtomicI64::new(0));
    let seen = ill.clone();
    let first = Fake::start(move |command| {
        Some(match command[0].to_uppercase().as_str() {
            "PING" if seen.fetch_sub(1, SeqCst) > 0 => b"-ERR I am ill\r\n".to_vec(),
            "PING" => b"+PONG\r\n".to_vec(),
            "ROLE" => b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n".to_vec(),
            "GET" => b"$4\r\nfake\r\n".to_vec(),
            _ => b"-ERR unknown command\r\n".to_vec(),
        })
    });
    let rest =
        format!("failback = \"cut\"\nrise = 4\nfall = 3\n{}", list(first.addr, deployment.nodes[0].addr()));
    let proxy = Proxy::start(&deployment, &rest);
    let master = || proxy.service("cache")["master"].as_str().map(str::to_owned);
    eventually("the first serves", || master() == Some(first.addr.to_string()));
    let mut client = proxy.client();
    assert_eq!(client.call(&["GET", "k"]).unwrap(), bulk("fake"));

    ill.store(2, SeqCst);
    eventually("two checks have failed, and more were good", || ill.load(SeqCst) < -5);
    assert_eq!(proxy.service("cache")["term"], 1, "{:?}", proxy.events());
    ill.store(1_000_000, SeqCst);
    eventually("the backup serves", || master() == Some(deployment.nodes[0].addr().to_string()));
    assert!(ill.load(SeqCst) <= 1_000_000 - 3, "it took three");
    assert_eq!(client.call(&["GET", "k"]).unwrap(), Value::Nil);
    // Three good ones are not enough.
    for _ in 0..3 {
        ill.store(-1_000, SeqCst);
        eventually("some checks are good", || ill.load(SeqCst) <= -1_002);
        ill.store(1, SeqCst);
        eventually("one is not", || ill.load(SeqCst) <= 0);
    }
    ill.store(0, SeqCst);
    eventually("the first serves again", || master() == Some(first.addr.to_string()));
    assert!(ill.load(SeqCst) <= -4, "it took four");
}
