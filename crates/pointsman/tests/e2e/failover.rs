//! Switches with real servers and Sentinels: planned, after a death, after a freeze, without Sentinels in sight, at start.
use crate::scene::load::Load;
use crate::scene::{
    DEADLINE, Proxy, Raw, bulk, eventually, get, is_end, is_error, ok, role_and_increments, until,
};
use pointsman::client::Value;
use pointsman::sandbox::deployment::{Deployment, Options, Process};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How long a switch takes is not what is tested here: on a busy machine Sentinels may need long to agree.
const PATIENT: &str = "hold = \"5m\"";
const WRITERS: usize = 8;
const READERS: usize = 3;

fn deployment(options: Options) -> Deployment {
    Deployment::start(options).unwrap()
}

fn start() -> (Deployment, Proxy) {
    start_with("")
}

fn start_with(settings: &str) -> (Deployment, Proxy) {
    let deployment = deployment(Options::default());
    let proxy = Proxy::before_sentinels(&deployment, &format!("{PATIENT}\n{settings}"));
    proxy.wait_master(&deployment.nodes[0]);
    (deployment, proxy)
}

/// `SENTINEL FAILOVER` as soon as a Sentinel lets us, and when the proxy has followed; which node is master then.
fn planned_failover(deployment: &Deployment, proxy: &Proxy, old: usize) -> usize {
    let term = proxy.term();
    eventually("a Sentinel begins a failover", || deployment.sentinel_failover().is_ok());
    let new = proxy.follow(deployment, old);
    assert!(proxy.term() > term);
    new
}

#[test]
fn planned_switches_in_a_row_are_noticed_by_no_client() {
    let (deployment, proxy) = start();
    let load = Load::start(proxy.listen, WRITERS, READERS);
    let second = planned_failover(&deployment, &proxy, 0);
    // Whoever is selected before it has what the second has, Redis itself would lose it. The old master may be, too.
    eventually("both others have what the second has", || {
        (0..3).filter(|n| *n != second).all(|n| deployment.in_sync(n, second))
    });
    let last = planned_failover(&deployment, &proxy, second);
    load.progress();
    let tally = load.finish(&deployment.nodes[last]);
    tally.assert_perfect();
    assert!(proxy.events().iter().any(|(kind, _)| kind == "hold"));
}

#[test]
fn after_the_death_of_the_master_only_what_was_in_flight_is_uncertain() {
    let (deployment, proxy) = start();
    let load = Load::start(proxy.listen, WRITERS, READERS);
    deployment.nodes[0].kill9();
    proxy.wait_state("holding");
    // Who comes while there is no master is accepted, and waits too.
    let mut newcomer = proxy.client();
    newcomer.send(&["SET", "newcomer", "waits"]).unwrap();
    assert!(!newcomer.wait(Duration::from_millis(100)).unwrap());
    assert_eq!(newcomer.read().unwrap(), ok());
    let new = proxy.follow(&deployment, 0);
    load.progress();
    let tally = load.finish(&deployment.nodes[new]);
    tally.assert_sound();
    assert!(tally.uncertain <= WRITERS as u64, "{tally:?}");
    // What a dying master acknowledges before its replicas have it is lost on a direct connection too.
    assert!(tally.lost <= WRITERS as u64, "{tally:?}");
    assert_eq!(deployment.nodes[new].ask(&["GET", "newcomer"]).unwrap(), bulk("waits"));
    assert_eq!(proxy.service("cache")["masterdown"], 0);
}

#[test]
fn masters_that_die_one_after_the_other_are_followed_and_so_is_a_new_count_of_epochs() {
    let deployment = deployment(Options { failover_timeout_ms: 2_000, ..Options::default() });
    let proxy = Proxy::before_sentinels(&deployment, PATIENT);
    proxy.wait_master(&deployment.nodes[0]);
    let load = Load::start(proxy.listen, WRITERS, READERS);
    deployment.nodes[0].kill9();
    let second = proxy.follow(&deployment, 0);
    let third = 3 - second;
    eventually("the third node replicates from the second", || deployment.in_sync(third, second));
    load.progress();
    deployment.nodes[second].kill9();
    eventually("the third node is master", || deployment.master() == Some(third));
    proxy.wait_master(&deployment.nodes[third]);
    load.progress();
    let tally = load.finish(&deployment.nodes[third]);
    tally.assert_sound();
    assert!(tally.uncertain <= 2 * WRITERS as u64 && tally.lost <= 2 * WRITERS as u64, "{tally:?}");

    // As when the Sentinels are deployed anew: they begin again at epoch 0. All forget before the first begins again, or it would be
    // told the old epoch.
    let (name, port) = (deployment.master_name(), deployment.nodes[third].port().to_string());
    let load = Load::start(proxy.listen, WRITERS, READERS);
    let term = proxy.term();
    for command in
        [&["SENTINEL", "REMOVE", name][..], &["SENTINEL", "MONITOR", name, "127.0.0.1", &port, "2"]]
    {
        deployment.sentinels.iter().for_each(|sentinel| assert_eq!(sentinel.ask(command).unwrap(), ok()));
    }
    eventually("the new era is accepted", || proxy.count_events("era") > 0);
    proxy.wait_master(&deployment.nodes[third]);
    load.progress();
    load.finish(&deployment.nodes[third]).assert_perfect();
    assert_eq!((proxy.term(), proxy.service("cache")["epoch"].as_u64()), (term, Some(0)));
}

#[test]
fn failovers_that_contradict_each_other_end_at_the_master_that_remains() {
    let (deployment, proxy) = start();
    let load = Load::start(proxy.listen, WRITERS, READERS);
    let name = deployment.master_name();
    let begun: Vec<bool> = std::thread::scope(|scope| {
        let ask = |s: &'_ Process| s.ask(&["SENTINEL", "FAILOVER", name]).is_ok();
        let asked: Vec<_> = deployment.sentinels.iter().map(|s| scope.spawn(move || ask(s))).collect();
        asked.into_iter().map(|begun| begun.join().unwrap()).collect()
    });
    assert!(begun.iter().filter(|begun| **begun).count() > 1, "failovers of their own: {begun:?}");
    deployment.wait_settled(DEADLINE).unwrap();
    let last = deployment.master().unwrap();
    proxy.wait_master(&deployment.nodes[last]);
    load.progress();
    // The Sentinels may promote two nodes at once: what the losing one was told is lost, by them.
    load.finish(&deployment.nodes[last]).assert_sound();
}

#[test]
fn a_freeze_and_broken_connections_of_a_master_that_stays_master_cost_no_term() {
    // The Sentinels shall not notice.
    let deployment = deployment(Options { down_after_ms: 20_000, ..Options::default() });
    let proxy = Proxy::before_sentinels(&deployment, PATIENT);
    let node = &deployment.nodes[0];
    proxy.wait_master(node);
    let load = Load::start(proxy.listen, WRITERS, READERS);
    node.stop();
    proxy.wait_state("holding");
    node.cont();
    load.progress();
    proxy.wait_state("serving");
    load.tally().assert_perfect();

    for round in 1..=3 {
        node.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
        load.progress();
        let tally = load.tally();
        assert!(tally.uncertain <= round * WRITERS as u64, "{tally:?}");
    }
    proxy.wait_state("serving");
    assert_eq!(proxy.term(), 1, "{:?}", proxy.events());
    let tally = load.finish(node);
    tally.assert_sound();
    assert_eq!(tally.lost, 0, "{tally:?}");
}

#[test]
fn pipelines_come_through_a_planned_switch_in_order() {
    let (deployment, proxy) = start();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|i| {
                let (proxy, stop) = (&proxy, &stop);
                scope.spawn(move || {
                    let (mut client, key) = (proxy.client(), format!("pipelined:{i}"));
                    let mut n = 0;
                    while !stop.load(SeqCst) {
                        for _ in 0..16 {
                            client.send(&["INCR", &key]).unwrap();
                            client.send(&["GET", &key]).unwrap();
                        }
                        for _ in 0..16 {
                            n += 1;
                            assert_eq!(client.read().unwrap(), Value::Integer(n));
                            assert_eq!(client.read().unwrap(), bulk(&n.to_string()));
                        }
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    n
                })
            })
            .collect();
        let new = planned_failover(&deployment, &proxy, 0);
        let before = proxy.service("cache")["commands"].as_u64().unwrap();
        eventually("they go on", || proxy.service("cache")["commands"].as_u64().unwrap() > before + 1000);
        stop.store(true, SeqCst);
        for (i, client) in clients.into_iter().enumerate() {
            let n = client.join().unwrap().to_string();
            assert_eq!(deployment.nodes[new].ask(&["GET", &format!("pipelined:{i}")]).unwrap(), bulk(&n));
        }
    });
    assert_eq!(proxy.service("cache")["uncertain"], 0);
}

#[test]
fn a_master_that_was_frozen_gets_nothing_when_it_returns_as_a_false_one() {
    // So that it is a false one for long.
    let (deployment, proxy) = start_with("demote = false");
    let load = Load::start(proxy.listen, WRITERS, READERS);
    let old = &deployment.nodes[0];
    old.stop();
    let new = proxy.follow(&deployment, 0);
    load.progress();
    let term = proxy.term();

    old.cont();
    let mut returned = until("it answers again", || old.connect().ok());
    // What had reached it before it froze may still be executed, in its first turn.
    role_and_increments(&mut returned).unwrap();
    let (_, before) = role_and_increments(&mut returned).unwrap();
    let mut false_looks = 0;
    eventually("the Sentinels demote it", || match role_and_increments(&mut returned) {
        Ok((true, increments)) => {
            assert_eq!(increments, before, "it was written to");
            false_looks += 1;
            false
        }
        Ok((false, _)) => true,
        Err(e) => is_end(&e),
    });
    eventually("it follows the new master", || deployment.in_sync(0, new));
    assert!(false_looks > 10, "it was no false master for long enough to tell: {false_looks} looks");
    load.progress();
    assert_eq!(proxy.term(), term, "{:?}", proxy.events());
    let tally = load.finish(&deployment.nodes[new]);
    tally.assert_sound();
    assert!(tally.uncertain <= WRITERS as u64 && tally.lost <= WRITERS as u64, "{tally:?}");
}

#[test]
fn a_write_that_was_answered_and_that_the_successor_never_got_is_uncertain() {
    // The Sentinels shall not take the master for down while it is paused.
    let deployment = deployment(Options { down_after_ms: 20_000, ..Options::default() });
    let settings = format!("{PATIENT}\ntrust = \"majority\"\nguard = false");
    let proxy = Proxy::before_sentinels(&deployment, &settings);
    let old = &deployment.nodes[0];
    proxy.wait_master(old);
    old.ask(&["CLIENT", "PAUSE", "600000", "WRITE"]).unwrap();
    let mut writer = proxy.client();
    writer.send(&["INCR", "n"]).unwrap();
    eventually("the write is under way", || {
        old.ask(&["CLIENT", "LIST"]).unwrap().text().unwrap().contains(" cmd=incr ")
    });
    // One Sentinel promotes another node, and cannot tell anybody.
    deployment.sentinels[1..].iter().for_each(Process::stop);
    deployment.sentinels[0].ask(&["SENTINEL", "FAILOVER", deployment.master_name()]).unwrap();
    proxy.wait_state("holding");
    // Who is told to follow it closes connections.
    let role = |n: usize| deployment.nodes[n].info("replication", "role");
    let is_master = |n: &usize| role(*n).is_ok_and(|role| role == "master");
    let new = until("one is promoted", || (1..3).find(is_master));
    // Only now it is executed: in a history that has ended.
    old.ask(&["CLIENT", "UNPAUSE"]).unwrap();
    eventually("it is executed", || old.ask(&["GET", "n"]).unwrap() == bulk("1"));
    assert!(!writer.wait(Duration::from_millis(100)).unwrap(), "its reply is withheld");

    deployment.sentinels.iter().for_each(Process::cont);
    let told = writer.read().unwrap();
    assert!(is_error(&told, "UNCERTAIN") && format!("{told:?}").contains("was executed"), "{told:?}");
    proxy.wait_master(&deployment.nodes[new]);
    assert_eq!(deployment.nodes[new].ask(&["GET", "n"]).unwrap(), Value::Nil);
    assert_eq!((proxy.term(), proxy.service("cache")["uncertain"].as_u64()), (2, Some(1)));
}

#[test]
fn sentinels_that_fall_silent_or_die_change_nothing_while_the_master_is_well() {
    let (deployment, proxy) = start();
    let load = Load::start(proxy.listen, WRITERS, READERS);
    let names = ["SENTINEL", "SENTINELS", deployment.master_name()];
    deployment.sentinels[2].stop();
    eventually("the others think it down", || {
        let view = deployment.sentinels[0].ask(&names).unwrap();
        view.items().iter().any(|s| s.field("flags").unwrap().contains("s_down"))
    });
    load.progress();
    deployment.sentinels[2].cont();
    deployment.sentinels.iter().for_each(Process::kill9);
    eventually("the proxy has not heard of any for long", || {
        let service = proxy.service("cache");
        let seen = |s: &serde_json::Value| s["seen_ago_s"].as_f64().unwrap_or(f64::MAX);
        service["sentinels"].as_array().unwrap().iter().all(|s| seen(s) > 3.0)
    });
    load.progress();
    assert_eq!(proxy.client().call(&["PING"]).unwrap(), Value::Simple("PONG".into()));
    assert_eq!((proxy.term(), proxy.count_events("hold")), (1, 0), "{:?}", proxy.events());
    assert_eq!(get(proxy.admin, "/readyz").unwrap().0, 200);
    load.finish(&deployment.nodes[0]).assert_perfect();
}

#[test]
fn a_proxy_that_starts_before_its_deployment_lets_clients_wait_and_tells_them_when_it_takes_too_long() {
    let deployment = deployment(Options::default());
    deployment.sentinels.iter().chain(&deployment.nodes).for_each(Process::kill9);
    let patient = Proxy::before_sentinels(&deployment, PATIENT);
    let hasty = Proxy::before_sentinels(&deployment, "hold = \"3s\"");
    let mut waits = patient.client();
    waits.send(&["SET", "first", "1"]).unwrap();

    let mut told = hasty.client();
    let down = told.call(&["SET", "second", "2"]).unwrap();
    assert!(is_error(&down, "MASTERDOWN") && format!("{down:?}").contains("'cache'"), "{down:?}");
    let begin = Instant::now();
    for command in [&["GET", "second"][..], &["SET", "second", "2"], &["BLPOP", "list", "0"]] {
        let down = told.call(command).unwrap();
        assert!(is_error(&down, "MASTERDOWN"), "{command:?}: {down:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(3), "at once, not after {:?}", begin.elapsed());
    let mut newcomer = hasty.client();
    assert!(is_error(&newcomer.call(&["GET", "second"]).unwrap(), "MASTERDOWN"));
    hasty.wait_state("down");
    let (code, why) = get(hasty.admin, "/readyz").unwrap();
    assert!(code == 503 && why.contains("cache"), "{code} {why}");
    assert!(!waits.wait(Duration::from_millis(1)).unwrap());

    deployment.nodes.iter().chain(&deployment.sentinels).for_each(|process| process.restart().unwrap());
    assert_eq!(waits.read().unwrap(), ok());
    eventually("the client that was refused is served", || {
        told.call(&["SET", "second", "2"]).unwrap() == ok()
    });
    assert_eq!(newcomer.call(&["GET", "second"]).unwrap(), bulk("2"));
    assert_eq!(deployment.nodes[0].ask(&["GET", "first"]).unwrap(), bulk("1"));
    assert_eq!(get(hasty.admin, "/readyz").unwrap().0, 200);
}

#[test]
fn a_master_that_restarts_at_its_address_is_proven_again_with_its_data_or_without() {
    // The Sentinels shall not notice.
    let options = Options { append_only: true, down_after_ms: 20_000, ..Options::default() };
    let deployment = deployment(options);
    let proxy = Proxy::before_sentinels(&deployment, PATIENT);
    let node = &deployment.nodes[0];
    proxy.wait_master(node);
    let load = Load::start(proxy.listen, WRITERS, READERS);
    node.restart().unwrap();
    load.progress();
    let tally = load.finish(node);
    tally.assert_sound();
    assert!(tally.uncertain <= WRITERS as u64 && tally.lost == 0, "{tally:?}");
    assert_eq!(proxy.term(), 2, "another process is another term: {:?}", proxy.events());
    assert_eq!(proxy.master(), Some(node.addr().to_string()));

    let mut client = proxy.client();
    client.ask(&["SET", "old", "data"]).unwrap();
    node.kill9();
    std::fs::remove_dir_all(node.dir().join("appendonlydir")).unwrap();
    client.send(&["GET", "old"]).unwrap();
    node.restart().unwrap();
    assert_eq!(client.read().unwrap(), Value::Nil, "the true master is empty");
    assert_eq!(proxy.term(), 3);
    let run_id = node.info("server", "run_id").unwrap();
    let events = proxy.events();
    let grant = events.iter().rposition(|(kind, _)| kind == "grant").unwrap();
    let fence = events.iter().rposition(|(kind, _)| kind == "fence").unwrap();
    assert!(fence < grant && events[grant].1.contains(&run_id), "{events:?}");
}

/// One that remembers who it is.
struct Settled {
    raw: Raw,
}

impl Settled {
    fn start(proxy: &Proxy) -> Settled {
        let mut raw = Raw::tcp(proxy.listen);
        // How HELLO's reply ends depends on the server's modules.
        raw.send("HELLO 3 AUTH alice wonder SETNAME rabbit\r\nECHO over\r\n");
        assert!(raw.skip_to("$4\r\nover\r\n").starts_with('%'));
        raw.say("SELECT 5\r\n", "+OK\r\n");
        raw.say("SET hole deep\r\n", "+OK\r\n");
        Settled { raw }
    }

    fn is_the_same(&mut self) {
        self.raw.say("GET hole\r\n", "$4\r\ndeep\r\n");
        self.raw.say("ACL WHOAMI\r\n", "$5\r\nalice\r\n");
        self.raw.say("CLIENT GETNAME\r\n", "$6\r\nrabbit\r\n");
        self.raw.say("HGETALL none\r\n", "%0\r\n");
    }
}

#[test]
fn sessions_survive_the_death_of_their_master_with_what_can_be_kept() {
    let users = vec!["alice on >wonder ~* &* +@all".to_owned()];
    let deployment = deployment(Options { users, ..Options::default() });
    let proxy = Proxy::before_sentinels(&deployment, PATIENT);
    proxy.wait_master(&deployment.nodes[0]);

    let mut settled = Settled::start(&proxy);
    let mut open = proxy.client();
    open.ask(&["MULTI"]).unwrap();
    assert_eq!(open.call(&["SET", "multi", "1"]).unwrap(), Value::Simple("QUEUED".into()));
    let mut watching = proxy.client();
    assert_eq!(watching.call(&["WATCH", "watched"]).unwrap(), ok());
    let mut blocked = proxy.client();
    blocked.send(&["BLPOP", "list", "0"]).unwrap();
    let mut subscriber = proxy.client();
    assert_eq!(subscriber.call(&["SUBSCRIBE", "news"]).unwrap().items().len(), 3);
    let replica = &deployment.nodes[1..];
    let has = |node: &Process| {
        let mut node = node.connect().unwrap();
        node.ask(&["SELECT", "5"]).unwrap();
        node.ask(&["GET", "hole"]).unwrap() == bulk("deep")
    };
    eventually("the replicas have it", || replica.iter().all(has));
    eventually("the pop blocks", || {
        let info = deployment.nodes[0].info("clients", "blocked_clients").unwrap();
        info == "1"
    });

    deployment.nodes[0].kill9();
    assert!(is_error(&blocked.read().unwrap(), "UNCERTAIN"));
    let aborted = open.call(&["EXEC"]).unwrap();
    assert!(is_error(&aborted, "EXECABORT"), "{aborted:?}");
    assert_eq!(watching.call(&["MULTI"]).unwrap(), ok());
    assert_eq!(watching.call(&["SET", "watched", "by me"]).unwrap(), Value::Simple("QUEUED".into()));
    assert_eq!(watching.call(&["EXEC"]).unwrap(), Value::Nil);
    settled.is_the_same();

    let new = proxy.follow(&deployment, 0);
    for key in ["multi", "watched"] {
        assert_eq!(deployment.nodes[new].ask(&["GET", key]).unwrap(), Value::Nil, "{key}");
    }
    let mut publisher = deployment.nodes[new].connect().unwrap();
    eventually("it is subscribed again", || {
        publisher.ask(&["PUBLISH", "news", "of the new one"]).unwrap() == Value::Integer(1)
    });
    assert_eq!(subscriber.read().unwrap().items()[2], bulk("of the new one"));
    // All can go on, transactions included.
    for client in [&mut open, &mut watching, &mut blocked] {
        assert_eq!(client.call(&["MULTI"]).unwrap(), ok());
        assert_eq!(client.call(&["INCR", "all"]).unwrap(), Value::Simple("QUEUED".into()));
        assert_eq!(client.call(&["EXEC"]).unwrap().items().len(), 1);
    }
    assert_eq!(deployment.nodes[new].ask(&["GET", "all"]).unwrap(), bulk("3"));
}
