//! The lease with real servers: Sentinels that fall silent, and a proxy that was stopped while another master was made.
use crate::scene::{DEADLINE, Proxy, bulk, eventually, is_end, ok, role_and_increments, until};
use pointsman::client::{Client, Value};
use pointsman::sandbox::deployment::{Deployment, Options, Process};
use rustix::process::Signal;
use std::time::Duration;

fn start(rest: &str) -> (Deployment, Proxy) {
    let deployment = Deployment::start(Options::default()).unwrap();
    let proxy = Proxy::before_sentinels(&deployment, rest);
    proxy.wait_master(&deployment.nodes[0]);
    (deployment, proxy)
}

/// A client and a second command of it that waits.
fn waiting(proxy: &Proxy, command: &[&str]) -> Client {
    let mut client = proxy.client();
    client.send(command).unwrap();
    assert!(!client.wait(Duration::from_millis(200)).unwrap(), "{command:?} does not wait");
    client
}

#[test]
fn writes_wait_and_reads_go_on_while_a_majority_of_the_sentinels_is_silent() {
    let (deployment, proxy) = start("hold = \"60s\"");
    let mut client = proxy.client();
    assert_eq!(client.call(&["SET", "key", "1"]).unwrap(), ok());
    let lease = || proxy.service("cache")["lease_s"].as_f64();
    assert!(lease().is_some_and(|s| s <= 1.0), "{:?}", lease());

    deployment.sentinels[0].stop();
    deployment.sentinels[1].stop();
    eventually("the lease has ended", || proxy.service("cache")["gates"]["writes"] == "hold");
    let service = proxy.service("cache");
    let why = service["why"].as_str().unwrap();
    assert!(why.starts_with("2 of 3 Sentinels are out of sight"), "{why}");
    let mut writer = waiting(&proxy, &["SET", "key", "2"]);
    assert_eq!(client.call(&["GET", "key"]).unwrap(), bulk("1"));

    deployment.sentinels[0].cont();
    assert_eq!(writer.read().unwrap(), ok());
    assert_eq!(proxy.term(), 1, "{:?}", proxy.events());
    deployment.sentinels[1].cont();
}

#[test]
fn without_a_lease_all_commands_wait_or_none_where_the_service_says_so() {
    let (deployment, strict) = start("hold = \"60s\"\nwithout_lease = \"hold_all\"");
    let bold = Proxy::before_sentinels(&deployment, "without_lease = \"go_on\"");
    bold.wait_master(&deployment.nodes[0]);
    let holds = bold.count_events("hold");
    deployment.sentinels[1].stop();
    deployment.sentinels[2].stop();
    strict.wait_state("holding");
    let mut reader = waiting(&strict, &["GET", "key"]);
    // That one has seen as much.
    assert_eq!(bold.client().call(&["SET", "key", "1"]).unwrap(), ok());
    assert_eq!(bold.count_events("hold"), holds, "{:?}", bold.events());
    deployment.sentinels[1].cont();
    assert_eq!(reader.read().unwrap(), bulk("1"));
    deployment.sentinels[2].cont();
}

#[test]
fn a_proxy_that_was_stopped_while_another_master_was_made_writes_nothing_to_the_old_one() {
    let (deployment, proxy) = start("hold = \"60s\"");
    let old = &deployment.nodes[0];
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    for (i, client) in (1..).zip(&mut clients) {
        assert_eq!(client.call(&["INCR", "n"]).unwrap(), Value::Integer(i));
    }
    eventually("the replicas have it", || (1..3).all(|replica| deployment.in_sync(replica, 0)));
    proxy.freeze();
    // Read by the proxy when it goes on, before anything else.
    clients.iter_mut().for_each(|client| client.send(&["INCR", "n"]).unwrap());
    old.stop();
    let new = deployment.wait_master(Some(0), DEADLINE).unwrap();
    old.cont();
    let mut returned = until("it answers again", || old.connect().ok());
    let (master, before) = role_and_increments(&mut returned).unwrap();
    assert!(master && before == "8", "a false master, that has what it had: {master}, {before}");

    proxy.signal(Signal::CONT);
    for client in &mut clients {
        client.read().unwrap();
    }
    match role_and_increments(&mut returned) {
        Ok((_, increments)) => assert_eq!(increments, before, "it was written to"),
        Err(e) => assert!(is_end(&e), "{e}"),
    }
    proxy.wait_master(&deployment.nodes[new]);
    assert_eq!(deployment.nodes[new].ask(&["GET", "n"]).unwrap(), bulk("16"));
}

#[test]
fn sentinels_that_die_one_after_the_other_end_no_lease() {
    let (deployment, proxy) = start("");
    let mut client = proxy.client();
    // Dead for longer than any lease, at each step.
    for (i, sentinel) in deployment.sentinels.iter().enumerate() {
        Process::kill9(sentinel);
        let at = sentinel.addr().to_string();
        eventually("it has been dead for longer than a lease", || {
            let n = client.call(&["INCR", "n"]).unwrap();
            assert!(matches!(n, Value::Integer(_)), "{i} were dead: {n:?}");
            let service = proxy.service("cache");
            let all = service["sentinels"].as_array().unwrap();
            all.iter().any(|s| s["at"] == *at && s["seen_ago_s"].as_f64().is_some_and(|s| s > 2.5))
        });
    }
    assert_eq!((proxy.term(), proxy.service("cache")["masterdown"].as_u64()), (1, Some(0)));
}
