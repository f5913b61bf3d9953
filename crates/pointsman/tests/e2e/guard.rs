//! The guard with real servers and Sentinels: replicas that fall silent, die, or may not be probed.
use crate::scene::load::Load;
use crate::scene::{Proxy, eventually, ok};
use pointsman::sandbox::deployment::{Deployment, Options, Process};
use std::time::Duration;

const WRITERS: usize = 8;
const READERS: usize = 3;
/// What is not held is answered in far less.
const SOON: Duration = Duration::from_millis(100);

fn start(options: Options, rest: &str) -> (Deployment, Proxy) {
    let deployment = Deployment::start(options).unwrap();
    let proxy = Proxy::before_sentinels(&deployment, rest);
    proxy.wait_master(&deployment.nodes[0]);
    (deployment, proxy)
}

/// Sentinels that take nobody for down while a test lasts, on whatever machine.
fn patient() -> Options {
    Options { down_after_ms: 60_000, ..Options::default() }
}

fn guard(proxy: &Proxy) -> String {
    proxy.service("cache")["guard"]["state"].as_str().unwrap().to_owned()
}

fn wait_guard(proxy: &Proxy, state: &str) {
    eventually(&format!("the guard is {state}"), || guard(proxy) == state);
}

fn told(proxy: &Proxy, words: &str) -> bool {
    proxy.events().iter().any(|(_, text)| text.contains(words))
}

fn each(nodes: &[Process], act: impl Fn(&Process)) {
    nodes.iter().for_each(act);
}

#[test]
fn writes_wait_while_all_replicas_are_silent_and_go_on_when_one_acknowledges() {
    let (deployment, proxy) = start(patient(), "hold_reads = false\nhold = \"60s\"");
    let load = Load::start(proxy.listen, WRITERS, READERS);
    wait_guard(&proxy, "armed");
    // With their Sentinels, so that nobody can say that the master is well.
    each(&deployment.sentinels, Process::stop);
    each(&deployment.nodes[1..], Process::stop);
    wait_guard(&proxy, "holding");
    let mut writer = proxy.client();
    writer.send(&["SET", "k", "v"]).unwrap();
    assert!(!writer.wait(SOON).unwrap(), "it waits");
    assert_eq!(proxy.service("cache")["gates"]["writes"], "hold");
    deployment.nodes[2].cont();
    wait_guard(&proxy, "armed");
    each(&deployment.sentinels, Process::cont);
    assert_eq!(writer.read().unwrap(), ok());
    deployment.nodes[1].cont();
    load.progress();
    load.finish(&deployment.nodes[0]).assert_perfect();
    assert!(told(&proxy, "no replica of"), "{:?}", proxy.events());
    assert_eq!(proxy.term(), 1);
}

#[test]
fn silent_replicas_hold_the_writes_only_until_the_sentinels_have_heard_the_master() {
    let (deployment, proxy) = start(patient(), "hold = \"60s\"");
    let load = Load::start(proxy.listen, WRITERS, READERS);
    wait_guard(&proxy, "armed");
    each(&deployment.nodes[1..], Process::stop);
    wait_guard(&proxy, "disarmed");
    load.progress();
    assert!(told(&proxy, "its writes go on because it has answered"), "{:?}", proxy.events());
    let problems = proxy.service("cache")["problems"].to_string();
    assert!(problems.contains("no replica acknowledges"), "{problems}");
    // Sentinels that fall silent too are no excuse any more.
    each(&deployment.sentinels, Process::stop);
    wait_guard(&proxy, "holding");
    each(&deployment.sentinels, Process::cont);
    wait_guard(&proxy, "disarmed");
    each(&deployment.nodes[1..], Process::cont);
    wait_guard(&proxy, "armed");
    load.progress();
    load.finish(&deployment.nodes[0]).assert_perfect();
    assert_eq!(proxy.term(), 1);
}

#[test]
fn the_death_of_one_replica_disarms_nothing_and_that_of_all_ends_the_hold() {
    let (deployment, proxy) = start(patient(), "hold = \"60s\"");
    let load = Load::start(proxy.listen, WRITERS, READERS);
    wait_guard(&proxy, "armed");
    deployment.nodes[1].kill9();
    load.progress();
    wait_guard(&proxy, "armed");
    // Nothing but its own look at the nodes can end what it holds.
    each(&deployment.sentinels, Process::stop);
    deployment.nodes[2].kill9();
    wait_guard(&proxy, "unarmed");
    each(&deployment.sentinels, Process::cont);
    load.progress();
    deployment.nodes[1].restart().unwrap();
    wait_guard(&proxy, "armed");
    load.progress();
    load.finish(&deployment.nodes[0]).assert_perfect();
}

#[test]
fn a_user_that_may_not_probe_is_told_so_and_the_masters_reports_do_instead() {
    let users = vec!["watch on >secret ~* &* +@all -publish".to_owned()];
    let (deployment, proxy) =
        start(Options { users, ..patient() }, "hold = \"60s\"\nuser = \"watch\"\npassword = \"secret\"");
    let load = Load::start(proxy.listen, WRITERS, READERS);
    wait_guard(&proxy, "armed");
    let problem =
        |proxy: &Proxy| proxy.service("cache")["problems"].to_string().contains("the guard cannot probe");
    eventually("the problem is told", || problem(&proxy));
    each(&deployment.sentinels, Process::stop);
    each(&deployment.nodes[1..], Process::stop);
    wait_guard(&proxy, "holding");
    each(&deployment.nodes[1..], Process::cont);
    wait_guard(&proxy, "armed");
    each(&deployment.sentinels, Process::cont);
    load.progress();
    load.finish(&deployment.nodes[0]).assert_perfect();
}

#[test]
fn where_it_is_turned_off_silent_replicas_hold_nothing() {
    let (deployment, proxy) = start(patient(), "guard = false");
    let load = Load::start(proxy.listen, WRITERS, READERS);
    each(&deployment.nodes[1..], Process::stop);
    load.progress();
    let shown = &proxy.service("cache")["guard"];
    assert_eq!((shown["state"].as_str(), shown["holds"].as_u64()), (Some("off"), Some(0)));
    each(&deployment.nodes[1..], Process::cont);
    load.finish(&deployment.nodes[0]).assert_perfect();
}

#[test]
fn the_documented_permissions_are_enough_to_observe_and_to_probe() {
    let users = vec![
        "watch on >secret resetchannels &pointsman:guard -@all +ping +role +info +publish +wait".to_owned(),
    ];
    let (deployment, proxy) =
        start(Options { users, ..patient() }, "user = \"watch\"\npassword = \"secret\"");
    let load = Load::start(proxy.listen, WRITERS, READERS);
    wait_guard(&proxy, "armed");
    let waits = || deployment.nodes[0].info("commandstats", "cmdstat_wait").unwrap_or_default();
    eventually("the master is probed", || waits().starts_with("calls="));
    load.progress();
    assert!(waits().ends_with("rejected_calls=0,failed_calls=0"), "{}", waits());
    assert_eq!(proxy.service("cache")["problems"], serde_json::json!([]));
    load.finish(&deployment.nodes[0]).assert_perfect();
}
