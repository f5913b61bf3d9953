//! The control plane against real servers: one master, two replicas, three Sentinels.
use pointsman::clock;
use pointsman::control::{self, Handle, Publisher};
use pointsman::events::Teller;
use pointsman::sandbox::deployment::server_program;
use pointsman_core::topology::settings::{HostPort, Settings, Source};
use pointsman_core::topology::snapshot::{
    Endpoint, ServiceId, ShardId, ShardView, Sign, SignKind, Snapshot, Term,
};
use pointsman_core::topology::status::{Event, EventKind, State};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Whatever is waited for has come by then, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Server {
    port: u16,
    child: Child,
}

impl Server {
    /// A node, or a Sentinel.
    fn start(dir: &std::path::Path, sentinel: bool, port: u16, lines: &str) -> Server {
        let file = dir.join(format!("{port}.conf"));
        let conf = format!("port {port}\nbind 127.0.0.1\ndir {}\ndaemonize no\n{lines}", dir.display());
        std::fs::write(&file, conf).unwrap();
        let mut command = Command::new(server_program().unwrap());
        command.arg(&file).args(sentinel.then_some("--sentinel"));
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        Server { port, child }
    }

    fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn ask(&self, command: &str) -> String {
        ask(self.port, command).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(port: u16, command: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut buf = vec![0; 16384];
    let n = stream.read(&mut buf)?;
    Ok(String::from_utf8_lossy(&buf[..n]).into_owned())
}

fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Deployment {
    nodes: Vec<Server>,
    sentinels: Vec<Server>,
    _dir: tempfile::TempDir,
}

impl Deployment {
    fn start() -> Deployment {
        let dir = tempfile::tempdir().unwrap();
        let free: Vec<TcpListener> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = free.iter().map(|l| l.local_addr().unwrap().port()).collect();
        drop(free);
        let master = ports[0];
        let node = |(i, port): (usize, &u16)| {
            let sub = dir.path().join(format!("n{i}"));
            std::fs::create_dir(&sub).unwrap();
            let of = if i == 0 { String::new() } else { format!("replicaof 127.0.0.1 {master}\n") };
            Server::start(&sub, false, *port, &format!("save \"\"\nrepl-diskless-sync-delay 0\n{of}"))
        };
        let nodes: Vec<Server> = ports[..3].iter().enumerate().map(node).collect();
        until("replicas are in sync", DEADLINE, || {
            let info = nodes[0].ask("INFO replication");
            info.matches("state=online").count() == 2
        });
        let sentinel = |port: &u16| {
            let lines = format!(
                "sentinel monitor mymaster 127.0.0.1 {master} 2\nsentinel down-after-milliseconds mymaster 1000\n\
                 sentinel failover-timeout mymaster 10000\n"
            );
            Server::start(dir.path(), true, *port, &lines)
        };
        let sentinels: Vec<Server> = ports[3..].iter().map(sentinel).collect();
        until("Sentinels know each other and the replicas", DEADLINE, || {
            sentinels.iter().all(|s| {
                let m = s.ask("SENTINEL MASTER mymaster").replace("\r\n", " ");
                m.contains("num-slaves $1 2") && m.contains("num-other-sentinels $1 2")
            })
        });
        Deployment { nodes, sentinels, _dir: dir }
    }

    fn sentinel_addresses(&self) -> Vec<HostPort> {
        self.sentinels.iter().map(|s| at(s.port)).collect()
    }
}

fn at(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".into(), port }
}

fn settings(source: Source) -> Settings {
    Settings {
        interval: Duration::from_millis(200),
        guard: None,
        ..Settings::new(ServiceId(0), "cache", source)
    }
}

/// Remembers all snapshots.
#[derive(Default)]
struct Seen {
    views: Mutex<Vec<(Instant, Arc<ShardView>)>>,
    news: Condvar,
    kinds: Mutex<Vec<EventKind>>,
}

impl Teller for Seen {
    fn tell(&self, event: Event) {
        self.kinds.lock().unwrap().push(event.kind);
    }
}

impl Publisher for Seen {
    fn publish(&self, s: Arc<Snapshot>) {
        let Some(view) = s.shard(ServiceId(0), ShardId(0)) else { return };
        self.views.lock().unwrap().push((Instant::now(), view.clone()));
        self.news.notify_all();
    }
}

impl Seen {
    fn wait(&self, what: &str, limit: Duration, f: impl Fn(&ShardView) -> bool) -> Arc<ShardView> {
        let end = Instant::now() + limit;
        let mut views = self.views.lock().unwrap();
        loop {
            if let Some((_, v)) = views.last().filter(|(_, v)| f(v)) {
                return v.clone();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "not in time: {what}; {:?}", views.last());
            views = self.news.wait_timeout(views, left).unwrap().0;
        }
    }

    /// One master per term, and terms that only grow.
    fn check(&self) {
        let views = self.views.lock().unwrap();
        for pair in views.windows(2) {
            let (a, b) = (&pair[0].1, &pair[1].1);
            assert!(a.term <= b.term);
            let moved = a.master.is_some() && b.master.is_some() && a.master != b.master;
            assert!(!moved || a.term < b.term, "{a:?} {b:?}");
        }
    }
}

fn port_of(v: &ShardView) -> Option<u16> {
    match v.master.as_ref()? {
        Endpoint::Tcp(a) => Some(a.port()),
        Endpoint::Unix(_) => None,
    }
}

fn status(handle: &Handle) -> pointsman_core::topology::status::Status {
    handle.status().remove(0)
}

fn open(v: &ShardView) -> bool {
    v.writes.is_open()
}

#[test]
fn a_real_deployment_is_followed_through_switches_and_kills() {
    let mut d = Deployment::start();
    let seen = Arc::new(Seen::default());
    let source =
        Source::Sentinels { sentinels: d.sentinel_addresses()[..1].to_vec(), master: "mymaster".into() };
    let began = Instant::now();
    let handle = control::start(vec![settings(source)], seen.clone(), seen.clone()).unwrap();
    let first = seen.wait("a first grant", DEADLINE, open);
    eprintln!("granted after {:?}", began.elapsed());
    assert_eq!((port_of(&first), first.term), (Some(d.nodes[0].port), Term(1)));
    // The other Sentinels and the replicas are discovered.
    seen.wait("healthy replicas", DEADLINE, |v| v.replicas.iter().filter(|r| r.healthy).count() == 2);
    until("all are known, and well", DEADLINE, || {
        let s = status(&handle);
        (s.state, s.majority, s.sentinels.len(), s.nodes.len()) == (State::Serving, 2, 3, 3)
            && s.problems.is_empty()
    });

    // A sign on a healthy master costs a round trip.
    let sign_at = clock::now();
    let asked = Instant::now();
    let (service, shard) = (ServiceId(0), ShardId(0));
    handle.sign(Sign { service, shard, term: Term(1), at: sign_at, kind: SignKind::Broken });
    seen.wait("a newer proof", DEADLINE, |v| v.proven_at > sign_at && open(v));
    eprintln!("proven again after {:?}", asked.elapsed());

    // SENTINEL FAILOVER.
    let asked = Instant::now();
    assert!(d.sentinels[1].ask("SENTINEL FAILOVER mymaster").starts_with("+OK"));
    seen.wait("a hold", DEADLINE, |v| !open(v));
    eprintln!("SENTINEL FAILOVER: held after {:?}", asked.elapsed());
    let second = seen.wait("a second grant", DEADLINE, open);
    eprintln!("SENTINEL FAILOVER: granted after {:?}", asked.elapsed());
    assert_eq!(second.term, Term(2));
    let new = port_of(&second).unwrap();
    assert!(ask(new, "ROLE").unwrap().contains("master"));
    until("the old master is demoted", DEADLINE, || d.nodes[0].ask("ROLE").contains("slave"));
    let quiet = port_of(&seen.wait("still serving", DEADLINE, open));
    assert_eq!(quiet, Some(new), "the old master's claim changed nothing");

    // kill -9.
    let killed = Instant::now();
    let i = d.nodes.iter().position(|n| n.port == new).unwrap();
    until("a replica is in sync", DEADLINE, || {
        ask(new, "INFO replication").unwrap().contains("state=online")
    });
    // One that still moves the replicas of this failover would name its choice for long after the next.
    until("the failover has ended everywhere", DEADLINE, || {
        d.sentinels.iter().all(|s| !s.ask("SENTINEL MASTER mymaster").contains("failover_in_progress"))
    });
    d.nodes[i].kill9();
    seen.wait("a hold", DEADLINE, |v| !open(v));
    eprintln!("kill -9: held after {:?}", killed.elapsed());
    let third = seen.wait("a third grant", DEADLINE, open);
    eprintln!("kill -9: granted after {:?}", killed.elapsed());
    assert_eq!(third.term, Term(3));
    assert_ne!(port_of(&third), Some(new));

    // All Sentinels die, after a majority has named the new master: the service goes on. (They can elect twice in a row.)
    until("a majority confirms the grant", DEADLINE, || {
        let s = status(&handle);
        // The status is a little behind the view.
        s.term >= Term(3) && s.state == State::Serving && !s.why.contains("provisionally")
    });
    let terms = status(&handle).term.0;
    d.sentinels.iter_mut().for_each(Server::kill9);
    let before = seen.views.lock().unwrap().len();
    std::thread::sleep(Duration::from_secs(3));
    assert!(seen.views.lock().unwrap()[before..].iter().all(|(_, v)| open(v)), "dead Sentinels end no grant");
    let s = status(&handle);
    assert!(s.problems.iter().any(|p| p.contains("refuses connections")), "{:?}", s.problems);

    seen.check();
    let kinds = seen.kinds.lock().unwrap();
    let grants = kinds.iter().filter(|k| **k == EventKind::Grant).count();
    assert_eq!(grants as u64, terms, "{kinds:?}");
    handle.stop();
}

#[test]
fn before_the_deployment_is_up_it_holds_and_says_why_and_then_finds_it() {
    let seen = Arc::new(Seen::default());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nodes = vec![HostPort { host: "localhost".into(), port }];
    let source = Source::Roles { nodes, start_wait: Duration::from_secs(10) };
    let handle = control::start(vec![settings(source)], seen.clone(), seen.clone()).unwrap();
    seen.wait("a reason", DEADLINE, |v| v.why.contains("no answer from localhost"));
    until("the reason is in the status", DEADLINE, || {
        status(&handle).problems.iter().any(|p| p.contains("refuses connections"))
    });
    let dir = tempfile::tempdir().unwrap();
    let mut node = Server::start(dir.path(), false, port, "save \"\"\n");
    let view = seen.wait("a grant", DEADLINE, open);
    assert_eq!(port_of(&view), Some(port));
    // Restarted at the same address: proven again, in a new term.
    node.kill9();
    seen.wait("a hold", DEADLINE, |v| !open(v));
    let _node = Server::start(dir.path(), false, port, "save \"\"\n");
    let view = seen.wait("a grant", DEADLINE, open);
    assert_eq!(view.term, Term(2));
    seen.check();
    handle.stop();
}
