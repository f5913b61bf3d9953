//! Planned changes of master with real servers: under load, with clients that write to the old master directly, in the
//! middle of trouble; pauses; and deposed masters that are told whom to follow.
//! `cargo test -p pointsman --test e2e switchover -- --nocapture` prints each account.
use crate::scene::load::Load;
use crate::scene::{DEADLINE, Proxy, eventually, ok, said};
use pointsman::client::{Client, Value};
use pointsman::sandbox::deployment::{Deployment, Options};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const WRITERS: usize = 8;
const READERS: usize = 3;

/// Long enough for a busy machine: the pause of writes is bounded by half of it.
fn patient() -> Options {
    Options { down_after_ms: 5_000, ..Options::default() }
}

fn start(options: Options, service: &str) -> (Deployment, Proxy) {
    let deployment = Deployment::start(options).unwrap();
    let proxy = Proxy::before_sentinels(&deployment, service);
    proxy.wait_master(&deployment.nodes[0]);
    (deployment, proxy)
}

/// Runs the command: whether it succeeded, and all that it said.
fn command(proxy: &Proxy, args: &[&str]) -> (bool, String) {
    let admin = proxy.admin.to_string();
    let (good, out, err) = said(&[args, &["--admin", &admin]].concat());
    println!("{out}{err}");
    (good, out + &err)
}

fn master_of(deployment: &Deployment, proxy: &Proxy) -> usize {
    let master = proxy.master().unwrap();
    (0..deployment.nodes.len()).find(|i| deployment.nodes[*i].addr().to_string() == master).unwrap()
}

fn role(deployment: &Deployment, node: usize) -> String {
    deployment.nodes[node].info("replication", "role").unwrap_or_default()
}

/// Clients that write to a node directly, until they are refused.
struct Direct {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Wrote>>,
}

#[derive(Default)]
struct Wrote {
    acknowledged: Vec<String>,
    refused: Option<String>,
}

impl Direct {
    fn start(node: SocketAddr, clients: usize) -> Direct {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..clients).map(|client| {
            let stop = stop.clone();
            thread::spawn(move || write_until_refused(node, client, &stop))
        });
        Direct { threads: threads.collect(), stop }
    }

    fn finish(self) -> Vec<Wrote> {
        self.stop.store(true, SeqCst);
        self.threads.into_iter().map(|t| t.join().unwrap()).collect()
    }
}

fn write_until_refused(node: SocketAddr, client: usize, stop: &AtomicBool) -> Wrote {
    let mut wrote = Wrote::default();
    let mut connection = Client::connect(node, DEADLINE).unwrap();
    for n in 0.. {
        if stop.load(SeqCst) {
            break;
        }
        let key = format!("direct:{client}:{n}");
        match connection.call(&["SET", &key, "1"]) {
            Ok(Value::Error(text)) => {
                wrote.refused = Some(text);
                break;
            }
            Ok(_) => wrote.acknowledged.push(key),
            Err(e) => {
                wrote.refused = Some(e.to_string());
                break;
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    wrote
}

fn lost(deployment: &Deployment, master: usize, wrote: &[Wrote]) -> usize {
    let mut client = deployment.nodes[master].connect().unwrap();
    let all = wrote.iter().flat_map(|w| &w.acknowledged);
    all.filter(|key| client.ask(&["GET", key]).unwrap() == Value::Nil).count()
}

#[test]
fn a_switchover_under_load_loses_nothing_not_even_what_direct_clients_write() {
    let (deployment, proxy) = start(patient(), "");
    let load = Load::start(proxy.listen, WRITERS, READERS);
    let direct = Direct::start(deployment.nodes[0].addr(), 4);
    let (good, text) = command(&proxy, &["switchover", "cache"]);
    assert!(good, "{text}");
    let new = master_of(&deployment, &proxy);
    assert_ne!(new, 0);
    // Not left to the Sentinels: it follows before the command has ended.
    assert_eq!(role(&deployment, 0), "slave", "{text}");
    // A Sentinel that coordinates (Valkey 9) cuts all clients of both when it has seen the promotion.
    eventually("a majority names it", || proxy.count_events("switch") == 1);
    load.progress();
    let tally = load.finish(&deployment.nodes[new]);
    println!("longest pause {:?}", tally.longest);
    tally.assert_perfect();
    let wrote = direct.finish();
    assert_eq!(lost(&deployment, new, &wrote), 0);
    // Where the master itself hands over, its Sentinel can cut whoever is connected to it before they write again (`CLIENT KILL TYPE normal`).
    let coordinated = text.contains("COORDINATED");
    for w in &wrote {
        assert!(!w.acknowledged.is_empty());
        let refused = |r: &String| r.starts_with("READONLY") || coordinated && r.contains("end of file");
        assert!(w.refused.as_ref().is_some_and(refused), "{:?}", w.refused);
    }
    let own = ["pausing all writes", "has the master's offset", "follows"];
    let steps = own.into_iter().filter(|_| !coordinated).chain(["is promoted", "is master instead"]);
    for step in steps {
        assert!(text.contains(step), "{step}: {text}");
    }
}

#[test]
fn the_named_node_becomes_master_and_priorities_are_what_they_were() {
    let (deployment, proxy) = start(patient(), "");
    let load = Load::start(proxy.listen, WRITERS, READERS);
    let to = deployment.nodes[2].addr().to_string();
    let (good, text) = command(&proxy, &["switchover", "cache", "--to", &to]);
    assert!(good, "{text}");
    assert_eq!(proxy.master(), Some(to.clone()));
    let priorities: Vec<String> = (0..3).map(|n| priority(&deployment, n)).collect();
    assert_eq!(priorities, ["100", "100", "100"]);
    load.progress();
    load.finish(&deployment.nodes[2]).assert_perfect();

    // There is nothing more to be gained, and nothing is changed.
    let term = proxy.term();
    let (good, text) = command(&proxy, &["switchover", "cache", "--to", &to]);
    assert!(
        !good && text.contains("refused, nothing was changed") && text.contains("is master already"),
        "{text}"
    );
    assert_eq!(proxy.term(), term);
}

fn priority(deployment: &Deployment, node: usize) -> String {
    let answer = deployment.nodes[node].ask(&["CONFIG", "GET", "replica-priority"]).unwrap();
    answer.field("replica-priority").unwrap()
}

#[test]
fn it_refuses_what_it_may_not_do_and_says_so() {
    let watcher = "watcher on >secret ~* &* +info +role +ping";
    let options = Options { users: vec![watcher.into()], ..patient() };
    let (deployment, proxy) = start(options, "user = \"watcher\"\npassword = \"secret\"");
    let (good, text) = command(&proxy, &["switchover", "cache"]);
    assert!(!good && text.contains("CLIENT PAUSE: NOPERM"), "{text}");
    assert_eq!((proxy.count_events("hold"), role(&deployment, 0)), (0, "master".to_owned()));
    let (good, text) = command(&proxy, &["switchover", "nobody"]);
    assert!(!good && text.contains("there is no service 'nobody'"), "{text}");
}

#[test]
fn it_refuses_while_a_replica_is_stopped_and_the_master_goes_on() {
    let (deployment, proxy) = start(patient(), "timeout = \"300ms\"");
    deployment.nodes[2].stop();
    let (good, text) = command(&proxy, &["switchover", "cache"]);
    deployment.nodes[2].cont();
    assert!(!good && text.contains("refused, nothing was changed"), "{text}");
    assert_eq!(proxy.client().call(&["SET", "k", "v"]).unwrap(), ok());
    assert_eq!(role(&deployment, 0), "master");
}

#[test]
fn sentinels_that_die_in_the_middle_leave_nothing_changed() {
    let (deployment, proxy) = start(patient(), "");
    let load = Load::start(proxy.listen, WRITERS, READERS);
    let to = deployment.nodes[2].addr().to_string();
    let (good, text) = thread::scope(|scope| {
        let run = scope.spawn(|| command(&proxy, &["switchover", "cache", "--to", &to]));
        eventually("priorities are changed", || priority(&deployment, 1) == "0");
        deployment.sentinels.iter().for_each(|s| s.kill9());
        run.join().unwrap()
    });
    assert!(!good && text.contains("the old master goes on"), "{text}");
    assert!((0..3).all(|n| priority(&deployment, n) == "100"));
    load.progress();
    load.finish(&deployment.nodes[0]).assert_perfect();
    assert_eq!((proxy.term(), proxy.master()), (1, Some(deployment.nodes[0].addr().to_string())));
}

#[test]
fn a_proxy_that_is_stopped_in_the_middle_puts_back_what_it_changed() {
    let (deployment, mut proxy) = start(patient(), "");
    let (admin, to) = (proxy.admin.to_string(), deployment.nodes[2].addr().to_string());
    let asked = thread::spawn(move || said(&["switchover", "cache", "--to", &to, "--admin", &admin]));
    eventually("priorities are changed", || priority(&deployment, 1) == "0");
    proxy.signal(rustix::process::Signal::TERM);
    eventually("it ends", || proxy.ended().is_some());
    assert_eq!(priority(&deployment, 1), "100");
    let (good, _, err) = asked.join().unwrap();
    assert!(!good, "{err}");
}

#[test]
fn a_proxy_that_was_killed_in_the_middle_says_what_it_left_and_the_next_one_puts_it_right() {
    let (deployment, proxy) = start(patient(), "");
    let (admin, to) = (proxy.admin.to_string(), deployment.nodes[2].addr().to_string());
    let asked = thread::spawn(move || said(&["switchover", "cache", "--to", &to, "--admin", &admin]));
    eventually("priorities are changed", || priority(&deployment, 1) == "0");
    // The one who waits has seen it said.
    eventually("it is said", || proxy.events().iter().any(|(_, text)| text.contains("replica-priority 0")));
    thread::sleep(Duration::from_millis(500));
    drop(proxy);
    let (good, _, err) = asked.join().unwrap();
    let repair = format!("--restore {}=100", deployment.nodes[1].addr());
    assert!(!good && err.contains(&repair), "{err}");
    assert_eq!(priority(&deployment, 1), "0");
    let next = Proxy::before_sentinels(&deployment, "");
    next.wait_master(&deployment.nodes[0]);
    let words = format!("{}=100", deployment.nodes[1].addr());
    let (good, text) = command(&next, &["switchover", "cache", "--restore", &words]);
    assert!(good, "{text}");
    assert_eq!(priority(&deployment, 1), "100");
}

#[test]
fn without_sentinels_the_master_hands_over_to_its_replica() {
    let deployment = Deployment::start(Options { sentinels: 0, ..Options::default() }).unwrap();
    let nodes: Vec<String> = deployment.nodes.iter().map(|n| n.addr().to_string()).collect();
    let proxy = Proxy::start(&deployment, &format!("nodes = {nodes:?}"));
    proxy.wait_master(&deployment.nodes[0]);
    let load = Load::start(proxy.listen, WRITERS, READERS);
    let direct = Direct::start(deployment.nodes[0].addr(), 2);
    let (good, text) = command(&proxy, &["switchover", "cache", "--to", &nodes[2]]);
    assert!(good, "{text}");
    assert_eq!(proxy.master(), Some(nodes[2].clone()));
    load.progress();
    load.finish(&deployment.nodes[2]).assert_perfect();
    assert_eq!(lost(&deployment, 2, &direct.finish()), 0);
}

#[test]
fn with_trust_in_majorities_only_direct_clients_lose_nothing_either() {
    let (deployment, proxy) = start(patient(), "trust = \"majority\"");
    let load = Load::start(proxy.listen, WRITERS, READERS);
    let direct = Direct::start(deployment.nodes[0].addr(), 2);
    let (good, text) = command(&proxy, &["switchover", "cache"]);
    assert!(good, "{text}");
    let new = master_of(&deployment, &proxy);
    load.progress();
    load.finish(&deployment.nodes[new]).assert_perfect();
    assert_eq!(lost(&deployment, new, &direct.finish()), 0);
    assert!(!proxy.events().iter().any(|(_, text)| text.contains("provisionally")));
}

#[test]
fn clients_of_another_proxy_lose_nothing_either() {
    let (deployment, proxy) = start(patient(), "");
    let other = Proxy::before_sentinels(&deployment, "");
    other.wait_master(&deployment.nodes[0]);
    let load = Load::start(other.listen, WRITERS, READERS);
    let (good, text) = command(&proxy, &["switchover", "cache"]);
    assert!(good, "{text}");
    let new = master_of(&deployment, &proxy);
    other.wait_master(&deployment.nodes[new]);
    load.progress();
    let tally = load.finish(&deployment.nodes[new]);
    println!("{tally:?}");
    tally.assert_sound();
    assert_eq!(tally.lost, 0, "{tally:?}");
    assert!(tally.uncertain <= WRITERS as u64, "{tally:?}");
}

#[test]
fn a_static_list_has_no_switchover() {
    let deployment = Deployment::start(Options { nodes: 1, sentinels: 0, ..Options::default() }).unwrap();
    let node = deployment.nodes[0].addr();
    let proxy = Proxy::start(&deployment, &format!("[[service.node]]\naddress = \"{node}\""));
    proxy.wait_master(&deployment.nodes[0]);
    let (good, text) = command(&proxy, &["switchover", "cache"]);
    assert!(!good && text.contains("static list"), "{text}");
}

#[test]
fn a_pause_holds_commands_until_it_is_ended_or_its_time_is_over() {
    let (_deployment, proxy) = start(Options::default(), "");
    let mut client = proxy.client();
    assert_eq!(client.call(&["SET", "k", "1"]).unwrap(), ok());
    let (good, text) = command(&proxy, &["pause", "cache", "--for", "60s"]);
    assert!(good && text.contains("paused for 60s at most"), "{text}");
    for words in [&["SET", "k", "2"][..], &["GET", "k"]] {
        client.send(words).unwrap();
    }
    assert!(!client.wait(Duration::from_millis(200)).unwrap());
    let service = proxy.service("cache");
    assert!(service["paused_left_s"].as_f64().unwrap() > 1.0 && service["state"] == "holding", "{service}");
    assert_eq!(service["statistics"]["paused"], 1);
    let (good, text) = command(&proxy, &["switchover", "cache"]);
    assert!(!good && text.contains("is paused"), "{text}");
    let (good, text) = command(&proxy, &["resume", "cache"]);
    assert!(good && text.contains("goes on after"), "{text}");
    assert_eq!(client.read().unwrap(), ok());
    assert_eq!(client.read().unwrap().text().as_deref(), Some("2"));
    let (good, text) = command(&proxy, &["resume", "cache"]);
    assert!(!good && text.contains("it is not paused"), "{text}");

    let (good, _) = command(&proxy, &["pause", "cache", "--for", "300ms"]);
    assert!(good);
    assert_eq!(client.call(&["SET", "k", "3"]).unwrap(), ok());
    let over = |(kind, text): &(String, String)| kind == "release" && text.contains("its time is over");
    eventually("that is told", || proxy.events().iter().any(over));
    let (good, text) = command(&proxy, &["pause", "cache", "--for", "1h"]);
    assert!(!good && text.contains("a pause lasts from"), "{text}");
}

/// How long after `SENTINEL FAILOVER` the old master follows the new one.
fn deposed_after(service: &str) -> (Duration, Proxy, Deployment) {
    let (deployment, proxy) = start(Options::default(), service);
    eventually("a Sentinel begins a failover", || deployment.sentinel_failover().is_ok());
    let begun = Instant::now();
    eventually("the old master follows", || role(&deployment, 0) == "slave");
    (begun.elapsed(), proxy, deployment)
}

#[test]
fn a_deposed_master_is_told_by_us_long_before_the_sentinels_would() {
    let (ours, proxy, _deployment) = deposed_after("");
    println!("deposed after {ours:?}");
    let told = || proxy.events().iter().any(|(_, text)| text.contains("a deposed master is told by us"));
    eventually("that is told", told);
    // What the Sentinels do by themselves comes 8 to 11 s after the promotion.
    let (theirs, proxy, _deployment) = deposed_after("demote = false");
    println!("by the Sentinels after {theirs:?}");
    assert!(ours < theirs, "{ours:?} {theirs:?}");
    assert!(!proxy.events().iter().any(|(_, text)| text.contains("told by us")));
}
