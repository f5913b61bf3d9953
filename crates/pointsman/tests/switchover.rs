//! Planned changes of master with real servers: under load, with clients that write to the old master directly, in the
//! middle of trouble; pauses; and deposed masters that are told whom to follow.
//! `cargo test -p pointsman --test switchover -- --nocapture` prints each account.
#![allow(clippy::unwrap_used, reason = "what the tests start must work; a panic is their failure")]
mod scene;

use pointsman::client::{Client, Value};
use pointsman::sandbox::deployment::{Deployment, Options};
use scene::load::Load;
use scene::{DEADLINE, Proxy, eventually, is_error, ok, said};
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
    load.progress();
    let tally = load.finish(&deployment.nodes[new]);
    println!("longest pause {:?}", tally.longest);
    tally.assert_perfect();
    let wrote = direct.finish();
    assert_eq!(lost(&deployment, new, &wrote), 0);
    for w in &wrote {
        assert!(!w.acknowledged.is_empty());
        assert!(w.refused.as_ref().is_some_and(|r| r.starts_with("READONLY")), "{:?}", w.refused);
    }
    for step in
        ["pausing all writes", "has the master's offset", "is promoted", "follows", "is master instead"]
    {
        assert!(text.contains(step), "{step}: {text}");
    }
}
