//! Whose word counts, with real Sentinels: one that is cut off, one that cries alone, Sentinels that were set up anew, and
//! what reads do while writes wait for them.
use crate::scene::load::Load;
use crate::scene::{Proxy, bulk, eventually, ok, said, until};
use pointsman::client::Value;
use pointsman::sandbox::deployment::{Deployment, Options, Process, free_addr};
use serde_json::Value as Json;
use std::time::{Duration, Instant};

fn deployment(options: Options) -> Deployment {
    Deployment::start(options).unwrap()
}

/// The Sentinels that this one lists as down.
fn takes_for_down(sentinel: &Process, name: &str) -> usize {
    let list = sentinel.ask(&["SENTINEL", "SENTINELS", name]).unwrap();
    let down = |s: &&Value| s.field("flags").is_some_and(|flags| flags.contains("s_down"));
    list.items().iter().filter(down).count()
}

/// What the proxy says of one Sentinel.
fn sentinel_of(service: &Json, sentinel: &Process) -> Json {
    let at = sentinel.addr().to_string();
    let found = service["sentinels"].as_array().unwrap().iter().find(|s| s["at"] == at.as_str());
    found.cloned().unwrap_or(Json::Null)
}

#[test]
fn a_single_configured_sentinel_that_is_cut_off_is_no_majority() {
    let deployment = deployment(Options::default());
    let [cut_off, others @ ..] = &deployment.sentinels[..] else { unreachable!("three Sentinels") };
    others.iter().for_each(Process::stop);
    eventually("it takes the others for down", || takes_for_down(cut_off, deployment.master_name()) == 2);
    let (at, name) = (cut_off.addr(), deployment.master_name());
    let proxy =
        Proxy::start(&deployment, &format!("sentinels = \"{at}\"\nmaster = \"{name}\"\nhold = \"5m\""));
    let service = until("all it can know is known", || {
        let service = proxy.service("cache");
        let heard = sentinel_of(&service, cut_off)["names"].is_string();
        let node = service["nodes"].as_array().unwrap().iter().any(|n| n["role"] == "master");
        (heard && node).then_some(service)
    });
    assert_eq!((&service["term"], &service["majority"]), (&Json::from(0), &Json::from(2)), "{service}");
    let why = service["why"].as_str().unwrap();
    assert!(why.contains("no majority of the 3 known Sentinels"), "{why}");
    others[0].cont();
    proxy.wait_master(&deployment.nodes[0]);
    assert_eq!(proxy.term(), 1);
}

#[test]
fn a_sentinel_that_stood_still_is_seen_to_do_nothing_and_stops_nobody() {
    let deployment = deployment(Options::default());
    let proxy = Proxy::before_sentinels(&deployment, "");
    proxy.wait_master(&deployment.nodes[0]);
    let load = Load::start(proxy.listen, 4, 2);
    let stopped = &deployment.sentinels[0];
    stopped.stop();
    // The others notice it after down-after; its timer stands still for longer than SENTINEL_TILT_TRIGGER, 2 s.
    eventually("another misses it", || {
        takes_for_down(&deployment.sentinels[1], deployment.master_name()) == 1
    });
    let stood_still = Instant::now();
    eventually("its timer is late", || stood_still.elapsed() > Duration::from_millis(2500));
    stopped.cont();
    let problem = until("its state is told", || {
        let problem = sentinel_of(&proxy.service("cache"), stopped)["problem"].as_str()?.to_owned();
        problem.contains("TILT").then_some(problem)
    });
    assert!(problem.contains("does not act for 30 s"), "{problem}");
    load.progress();
    load.finish(&deployment.nodes[0]).assert_perfect();
}

/// Makes a Sentinel believe what one that is cut off believes: its nodes and its peers take no word from it.
fn deafen(sentinel: &Process, name: &str) {
    sentinel.ask(&["SENTINEL", "SET", name, "quorum", "1"]).unwrap();
    sentinel.ask(&["SENTINEL", "CONFIG", "SET", "sentinel-pass", "wrong"]).unwrap();
    eventually("its peers are lost to it", || takes_for_down(sentinel, name) == 2);
    sentinel.ask(&["SENTINEL", "SET", name, "auth-pass", "wrong"]).unwrap();
}

#[test]
fn a_lone_cry_of_a_sentinel_with_quorum_1_holds_for_a_moment_only() {
    let secret = Some("secret".to_owned());
    let deployment =
        deployment(Options { password: secret.clone(), sentinel_password: secret, ..Options::default() });
    let proxy = Proxy::before_sentinels(
        &deployment,
        "password = \"secret\"\nsentinel_password = \"secret\"\nupstream_password = \"secret\"",
    );
    proxy.wait_master(&deployment.nodes[0]);
    let load = Load::start(proxy.listen, 4, 2);
    let lone = &deployment.sentinels[0];
    deafen(lone, deployment.master_name());
    eventually("it cries", || {
        let lines = proxy.events();
        lines.iter().any(|(kind, text)| kind == "hold" && text.contains("objectively down"))
    });
    // It goes on: for 10 s it asks for votes, and then takes the master for objectively down.
    eventually("it serves while that Sentinel still tries", || {
        let service = proxy.service("cache");
        service["state"] == "serving" && sentinel_of(&service, lone)["stage"] == "tries"
    });
    load.progress();
    assert_eq!((proxy.term(), proxy.count_events("fence")), (1, 0), "{:?}", proxy.events());
    let tally = load.finish(&deployment.nodes[0]);
    eprintln!("the longest pause: {:?}; {:?}", tally.longest, proxy.events());
    tally.assert_perfect();
}

#[test]
fn sentinels_and_data_that_began_anew_are_believed_when_the_operator_says_so() {
    let deployment = deployment(Options::default());
    let proxy = Proxy::before_sentinels(&deployment, "hold = \"2s\"");
    proxy.wait_master(&deployment.nodes[0]);
    eventually("a failover begins", || deployment.sentinel_failover().is_ok());
    let master = proxy.follow(&deployment, 0);
    eventually("a majority names it", || proxy.service("cache")["epoch"].as_u64() >= Some(1));
    eventually("nothing more is to be told to the nodes", || deployment.undisputed_master() == Some(master));

    // Everything is lost: the Sentinels' state, and the data with its history.
    let (name, port) = (deployment.master_name(), deployment.nodes[master].port().to_string());
    deployment.sentinels.iter().for_each(|s| drop(s.ask(&["SENTINEL", "REMOVE", name]).unwrap()));
    deployment.nodes.iter().for_each(Process::kill9);
    eventually("the loss is seen", || proxy.master().is_none());
    deployment.nodes[master].restart().unwrap();
    for sentinel in &deployment.sentinels {
        sentinel.ask(&["SENTINEL", "MONITOR", name, "127.0.0.1", &port, "2"]).unwrap();
    }
    let mut waits = proxy.client();
    eventually("it says what can be done", || {
        proxy.service("cache")["why"].as_str().unwrap().contains("pointsman trust")
    });
    // Longer than a new era takes that continues the last master.
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!((proxy.master(), proxy.count_events("era")), (None, 0), "{:?}", proxy.events());

    let admin = proxy.admin.to_string();
    let (good, _, why) = said(&["trust", "nothing", "--admin", &admin]);
    assert!(!good && why.contains("there is no service 'nothing'"), "{why}");
    let (good, text, why) = said(&["trust", "cache", "--admin", &admin]);
    assert!(good && text.contains("new era"), "{text} {why}");
    proxy.wait_master(&deployment.nodes[master]);
    assert_eq!((proxy.count_events("era"), &proxy.service("cache")["epoch"]), (1, &Json::from(0)));
    assert_eq!(waits.call(&["SET", "k", "v"]).unwrap(), ok());
    assert_eq!(deployment.nodes[master].ask(&["GET", "k"]).unwrap(), bulk("v"));
}

#[test]
fn reads_go_on_while_only_writes_are_in_doubt_if_the_service_wants_it_so() {
    let deployment = deployment(Options::default());
    let listens = [free_addr().unwrap(), free_addr().unwrap()];
    let (sentinels, name) = (deployment.sentinel_list(), deployment.master_name());
    let service = |i: usize, title: &str, hold_reads: &str| {
        format!(
            "[[service]]\nname = \"{title}\"\nlisten = \"{}\"\nsentinels = \"{sentinels}\"\nmaster = \"{name}\"\n\
             hold = \"5m\"\n{hold_reads}\n",
            listens[i]
        )
    };
    let services =
        service(0, "cache", "hold_reads = false") + &service(1, "strict", "without_lease = \"hold_all\"");
    let proxy = Proxy::start_with(&deployment, listens[0], &services);
    let state = |title: &str| proxy.service(title)["state"].as_str().unwrap().to_owned();
    eventually("both serve", || state("cache") == "serving" && state("strict") == "serving");
    let client = |i: usize| pointsman::client::Client::connect(listens[i], crate::scene::DEADLINE).unwrap();
    let (mut reads, mut writes, mut strict) = (client(0), client(0), client(1));
    assert_eq!(writes.call(&["SET", "k", "before"]).unwrap(), ok());

    // Two of three Sentinels are out of sight: they could elect.
    deployment.sentinels[1..].iter().for_each(Process::stop);
    eventually("both hold", || state("cache") == "holding" && state("strict") == "holding");
    let gates = proxy.service("cache")["gates"].clone();
    assert_eq!((&gates["writes"], &gates["reads"]), (&Json::from("hold"), &Json::from("open")));
    writes.send(&["SET", "k", "after"]).unwrap();
    strict.send(&["GET", "k"]).unwrap();
    for _ in 0..100 {
        assert_eq!(reads.call(&["GET", "k"]).unwrap(), bulk("before"));
    }
    assert!(!writes.wait(Duration::from_millis(1)).unwrap(), "the write waits");
    assert!(!strict.wait(Duration::from_millis(1)).unwrap(), "where reads need a lease they wait too");
    // A script may write.
    let mut script = client(0);
    script.send(&["EVAL", "return redis.call('GET', KEYS[1])", "1", "k"]).unwrap();
    assert!(!script.wait(Duration::from_millis(50)).unwrap());

    deployment.sentinels[1..].iter().for_each(Process::cont);
    assert_eq!(writes.read().unwrap(), ok());
    assert!(strict.read().unwrap().text().is_some());
    assert!(script.read().unwrap().text().is_some());
    assert_eq!(reads.call(&["GET", "k"]).unwrap(), bulk("after"));
    assert_eq!((proxy.term(), proxy.count_events("fence")), (1, 0), "{:?}", proxy.events());
}
