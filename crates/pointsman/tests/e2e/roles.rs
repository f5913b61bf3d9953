//! Switches without Sentinels: the nodes' own word, and their lineage.
use crate::scene::load::Load;
use crate::scene::{Proxy, bulk, eventually, is_error, ok};
use pointsman::client::{Client, Value};
use pointsman::sandbox::deployment::{Deployment, Options, Process};
use std::time::{Duration, Instant};

const WRITERS: usize = 4;

fn deployment(options: Options) -> Deployment {
    Deployment::start(Options { sentinels: 0, ..options }).unwrap()
}

fn proxy(deployment: &Deployment, rest: &str) -> Proxy {
    let nodes: Vec<String> = deployment.nodes.iter().map(|node| node.addr().to_string()).collect();
    Proxy::start(deployment, &format!("nodes = {nodes:?}\n{rest}"))
}

fn start() -> (Deployment, Proxy) {
    let deployment = deployment(Options::default());
    let proxy = proxy(&deployment, "");
    proxy.wait_master(&deployment.nodes[0]);
    (deployment, proxy)
}

fn follow(node: &Process, master: &Process) {
    node.ask(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).unwrap();
}

fn promote(node: &Process) {
    node.ask(&["REPLICAOF", "NO", "ONE"]).unwrap();
}

/// Lets it claim to be master, with a history of its own.
fn restart_as_stranger(node: &Process) {
    node.kill9();
    // A dump would carry its master's history on.
    let _ = std::fs::remove_file(node.dir().join("dump.rdb"));
    edit(node, |conf| {
        conf.lines().filter(|line| !line.starts_with("replicaof ")).collect::<Vec<_>>().join("\n")
    });
    node.restart().unwrap();
}

fn edit(node: &Process, change: impl FnOnce(String) -> String) {
    let path = node.dir().join("server.conf");
    std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
}

#[test]
fn a_planned_switch_by_hand_loses_nothing() {
    let (deployment, proxy) = start();
    let [old, new, third] = &deployment.nodes[..] else { unreachable!("three nodes") };
    let load = Load::start(proxy.listen, WRITERS, 2);
    // A replica that follows is online for its master a moment later.
    let order = ["FAILOVER", "TO", "127.0.0.1", &new.port().to_string()];
    eventually("the order is taken", || old.ask(&order).is_ok());
    proxy.wait_master(new);
    follow(third, new);
    load.progress();
    let tally = load.finish(new);
    tally.assert_sound();
    assert_eq!(tally.lost, 0, "{tally:?}");
    // The old master pauses writes until it knows that the new one has been promoted; we may know it before.
    assert!(tally.uncertain <= WRITERS as u64, "{tally:?}");
    assert_eq!(proxy.term(), 2, "{:?}", proxy.events());
}

#[test]
fn of_two_that_say_master_the_heir_is_followed_and_the_other_gets_nothing() {
    let (deployment, proxy) = start();
    let [old, new, _] = &deployment.nodes[..] else { unreachable!("three nodes") };
    let mut client = proxy.client();
    client.ask(&["SET", "before", "1"]).unwrap();
    eventually("it is replicated", || new.ask(&["GET", "before"]).unwrap() == bulk("1"));
    promote(new);
    proxy.wait_master(new);
    assert_eq!(client.call(&["SET", "after", "1"]).unwrap(), ok());
    assert_eq!(old.ask(&["EXISTS", "after"]).unwrap(), pointsman::client::Value::Integer(0));
    let problems = proxy.service("cache")["problems"].to_string();
    assert!(problems.contains(&format!("{} says that it is master too", old.addr())), "{problems}");
    follow(old, new);
    eventually("the old one has followed", || deployment.in_sync(0, 1));
    assert_eq!(client.call(&["GET", "after"]).unwrap(), bulk("1"));
    assert_eq!((proxy.term(), proxy.master()), (2, Some(new.addr().to_string())));
}

#[test]
fn of_two_strangers_that_say_master_none_is_chosen_and_both_are_named() {
    let (deployment, before) = start();
    let stranger = &deployment.nodes[2];
    restart_as_stranger(stranger);
    before.wait_state("holding");
    let fresh = proxy(&deployment, "");
    for proxy in [&before, &fresh] {
        let named = |why: &str| [0, 2].iter().all(|&i| why.contains(&deployment.nodes[i].addr().to_string()));
        eventually("both are named", || named(proxy.service("cache")["why"].as_str().unwrap()));
    }
    let mut clients: Vec<Client> = [&before, &fresh].iter().map(|proxy| proxy.client()).collect();
    for client in &mut clients {
        client.send(&["SET", "k", "v"]).unwrap();
        assert!(!client.wait(Duration::from_millis(300)).unwrap());
    }
    assert_eq!((before.term(), fresh.term()), (1, 0));
    follow(stranger, &deployment.nodes[0]);
    for client in &mut clients {
        assert_eq!(client.read().unwrap(), ok());
    }
    // The one that was granted before was never fenced.
    assert_eq!((before.term(), fresh.term()), (1, 1));
    assert_eq!(deployment.nodes[0].ask(&["GET", "k"]).unwrap(), bulk("v"));
}

#[test]
fn a_node_that_loads_its_data_is_never_granted_and_no_client_sees_it_load() {
    let (deployment, before) = start();
    let node = &deployment.nodes[0];
    let mut direct = node.connect().unwrap();
    (0..2000).for_each(|i| direct.send(&["SET", &format!("key:{i}"), "v"]).unwrap());
    (0..2000).for_each(|_| assert_eq!(direct.read().unwrap(), ok()));
    // The replicas may still be given a copy, which is a save too.
    eventually("it saves", || direct.ask(&["SAVE"]).is_ok());
    edit(node, |conf| conf + "\nkey-load-delay 1000\nloading-process-events-interval-bytes 1024\n");

    let mut clients = vec![before.client()];
    node.restart().unwrap();
    let fresh = proxy(&deployment, "");
    clients.push(fresh.client());
    clients.push(before.client());
    clients.iter_mut().for_each(|client| client.send(&["INCR", "n"]).unwrap());
    let mut looks = 0;
    eventually("it has loaded", || {
        let (old, new) = (before.master(), fresh.master());
        let loading = node.info("persistence", "loading").unwrap() == "1";
        if loading {
            assert_eq!(new, None, "{:?}", fresh.events());
            // It may not have noticed yet that the connection is gone.
            assert!(old.is_none() || before.term() == 1, "{:?}", before.events());
            looks += 1;
        }
        !loading
    });
    assert!(looks > 10, "it did not load for long enough to tell: {looks} looks");
    for client in &mut clients {
        let reply = client.read().unwrap();
        assert!(!is_error(&reply, "LOADING"), "{reply:?}");
        assert!(matches!(reply, Value::Integer(1..=3)), "{reply:?}");
    }
    assert_eq!((before.term(), fresh.term()), (2, 1));
    assert_eq!(node.ask(&["GET", "n"]).unwrap(), bulk("3"));
}

/// A server that loads answers some commands. Behind Pointsman they wait with the others: nobody sees it load.
#[test]
fn all_that_is_asked_of_a_single_node_that_loads_waits_until_it_has_loaded() {
    let deployment = deployment(Options { nodes: 1, ..Options::default() });
    let node = &deployment.nodes[0];
    let proxy = proxy(&deployment, "hold = \"60s\"");
    proxy.wait_master(node);
    let mut direct = node.connect().unwrap();
    (0..2000).for_each(|i| direct.send(&["SET", &format!("key:{i}"), "v"]).unwrap());
    (0..2000).for_each(|_| assert_eq!(direct.read().unwrap(), ok()));
    assert_eq!(direct.ask(&["SAVE"]).unwrap(), ok());
    edit(node, |conf| conf + "\nkey-load-delay 1000\nloading-process-events-interval-bytes 1024\n");
    let asked: [&[&str]; 7] = [
        &["SET", "k", "v"],
        &["GET", "key:7"],
        &["PING"],
        &["AUTH", "nobody", "wrong"],
        &["SUBSCRIBE", "c"],
        &["MULTI"],
        &["DBSIZE"],
    ];
    let mut clients = asked.map(|_| proxy.client());
    clients.iter_mut().for_each(|c| assert!(c.call(&["PING"]).is_ok()));
    node.kill9();
    node.restart().unwrap();
    proxy.wait_state("holding");
    for (client, command) in clients.iter_mut().zip(asked) {
        client.send(command).unwrap();
    }
    let loading = || node.info("persistence", "loading").unwrap() == "1";
    let mut looks = 0;
    while loading() {
        for (client, command) in clients.iter_mut().zip(asked) {
            let answered = client.wait(Duration::from_millis(5)).unwrap();
            assert!(!answered || !loading(), "{command:?}: {:?}", client.read());
        }
        looks += 1;
    }
    assert!(looks > 10, "it did not load for long enough to tell: {looks} looks");
    let replies = clients.each_mut().map(|client| client.read().unwrap());
    assert_eq!(replies[..3], [ok(), bulk("v"), Value::Simple("PONG".into())]);
    assert!(is_error(&replies[3], "WRONGPASS"), "{:?}", replies[3]);
    assert_eq!(replies[4].items()[..2], [bulk("subscribe"), bulk("c")]);
    assert_eq!(replies[5], ok());
    assert!(matches!(replies[6], Value::Integer(2000..=2001)), "{:?}", replies[6]);
}

#[test]
fn a_single_claimant_is_granted_after_a_wait_and_with_a_warning_if_most_are_silent() {
    let deployment = deployment(Options::default());
    deployment.nodes[1..].iter().for_each(Process::kill9);
    let begin = Instant::now();
    let proxy = proxy(&deployment, "start_wait = \"2s\"");
    let mut client = proxy.client();
    client.send(&["SET", "k", "v"]).unwrap();
    eventually("it says why it waits", || {
        let why = proxy.service("cache")["why"].as_str().unwrap().to_owned();
        why.contains(&deployment.nodes[0].addr().to_string()) && why.contains("1 of 3")
    });
    assert_eq!(client.read().unwrap(), ok());
    assert!(begin.elapsed() > Duration::from_secs(2), "after {:?}", begin.elapsed());
    assert!(proxy.count_events("warning") > 0, "{:?}", proxy.events());
}

#[test]
fn lineage_proves_a_successor_when_most_nodes_are_silent() {
    let (deployment, proxy) = start();
    let [old, new, third] = &deployment.nodes[..] else { unreachable!("three nodes") };
    let mut client = proxy.client();
    client.ask(&["SET", "k", "v"]).unwrap();
    eventually("it is replicated", || new.ask(&["GET", "k"]).unwrap() == bulk("v"));
    third.kill9();
    old.kill9();
    proxy.wait_state("holding");
    client.send(&["GET", "k"]).unwrap();
    assert!(!client.wait(Duration::from_millis(300)).unwrap());
    promote(new);
    assert_eq!(client.read().unwrap(), bulk("v"));
    assert_eq!(proxy.master(), Some(new.addr().to_string()));
}
