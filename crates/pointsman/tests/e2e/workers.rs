//! Workers are filled one after the other: few of them carry large turns. Clients move between them without noticing it.
use crate::scene::load::Load;
use crate::scene::{Proxy, bulk, eventually, get, is_end, ok};
use pointsman::client::{Client, Value};
use pointsman::sandbox::deployment::{Deployment, Options};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

/// How many clients each worker has.
fn clients(proxy: &Proxy) -> Vec<u64> {
    let status: serde_json::Value =
        serde_json::from_str(&get(proxy.admin, "/api/status").unwrap().1).unwrap();
    status["workers"].as_array().unwrap().iter().map(|w| w["clients"].as_u64().unwrap()).collect()
}

/// Clients that ask for what is refused, as fast as they can: it costs the worker time, and no server.
struct Loud(Vec<(TcpStream, [JoinHandle<()>; 2])>);

impl Loud {
    fn start(target: SocketAddr, n: usize) -> Loud {
        let one = |_| {
            let stream = TcpStream::connect(target).unwrap();
            let (mut writes, mut reads) = (stream.try_clone().unwrap(), stream.try_clone().unwrap());
            let asks = std::thread::spawn(move || {
                let refused = "SHUTDOWN\r\n".repeat(2_000);
                while writes.write_all(refused.as_bytes()).is_ok() {}
            });
            let hears = std::thread::spawn(move || {
                let mut into = vec![0; 1 << 20];
                while reads.read(&mut into).is_ok_and(|n| n > 0) {}
            });
            (stream, [asks, hears])
        };
        Loud((0..n).map(one).collect())
    }

    fn end(self) {
        for (stream, threads) in self.0 {
            stream.shutdown(Shutdown::Both).unwrap();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
    }
}

#[test]
fn workers_are_filled_one_after_the_other_by_how_busy_they_are() {
    let deployment = Deployment::start(Options { nodes: 1, sentinels: 0, ..Options::default() }).unwrap();
    let proxy = Proxy::start(&deployment, &format!("nodes = \"{}\"", deployment.nodes[0].addr()));
    proxy.wait_state("serving");
    let first: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    eventually("they are all the first worker's", || clients(&proxy) == [20, 0]);

    let loud = Loud::start(proxy.listen, 2);
    let mut newcomers = Vec::new();
    eventually("who comes when the first one is busy goes to the second", || {
        newcomers.push(proxy.client());
        std::thread::sleep(Duration::from_millis(50));
        clients(&proxy)[1] > 0
    });
    loud.end();
    drop((first, newcomers));
    // Nobody looks at them meanwhile: that would wake the first one.
    std::thread::sleep(Duration::from_secs(2));
    let _client = proxy.client();
    eventually("an idle first worker is preferred again", || clients(&proxy) == [1, 0]);
}

/// Clients whose pops wait with both workers.
fn poppers(proxy: &Proxy) -> Vec<(String, Client)> {
    let loud = Loud::start(proxy.listen, 2);
    let mut all = Vec::new();
    eventually("both workers have some", || {
        let mut c = proxy.client();
        let Value::Integer(id) = c.call(&["CLIENT", "ID"]).unwrap() else { panic!("an id") };
        c.send(&["BLPOP", "nothing", "0"]).unwrap();
        all.push((id.to_string(), c));
        std::thread::sleep(Duration::from_millis(50));
        clients(proxy)[1] > 0 && all.len() > 3
    });
    loud.end();
    all
}

#[test]
fn clients_of_all_workers_are_unblocked_and_killed() {
    let deployment = Deployment::start(Options { nodes: 1, sentinels: 0, ..Options::default() }).unwrap();
    let node = &deployment.nodes[0];
    let proxy = Proxy::start(&deployment, &format!("nodes = \"{}\"", node.addr()));
    proxy.wait_state("serving");
    let mut all = poppers(&proxy);
    let blocked = || node.info("clients", "blocked_clients").unwrap();
    eventually("all are blocked", || blocked() == all.len().to_string());
    let mut c = proxy.client();
    for (id, popper) in &mut all {
        assert_eq!(c.call(&["CLIENT", "UNBLOCK", id]).unwrap(), Value::Integer(1));
        assert_eq!(popper.read().unwrap(), Value::Nil);
        popper.send(&["BLPOP", "nothing", "0"]).unwrap();
    }
    eventually("all are blocked again", || blocked() == all.len().to_string());
    assert!(clients(&proxy)[1] > 0);
    let victims: Vec<&str> = all.iter().map(|(id, _)| &id[..]).collect();
    for id in &victims[1..] {
        assert_eq!(c.call(&["CLIENT", "KILL", "ID", id]).unwrap(), Value::Integer(1));
    }
    assert_eq!(c.call(&["CLIENT", "KILL", "USER", "default"]).unwrap(), Value::Integer(1));
    eventually("nobody is blocked", || blocked() == "0");
    for (_, mut popper) in all {
        assert!(is_end(&popper.read().unwrap_err()));
    }
    assert_eq!(c.call(&["PING"]).unwrap(), Value::Simple("PONG".into()));
}

/// How often clients moved.
fn moves(proxy: &Proxy) -> u64 {
    let (_, page) = get(proxy.admin, "/metrics").unwrap();
    let line = page.lines().find(|l| l.starts_with("pointsman_clients_moved_total")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Clients whose session is not the usual one, and who notice if it is not theirs any longer.
struct Guests(Vec<Client>);

impl Guests {
    fn come(proxy: &Proxy, n: usize) -> Guests {
        let guest = |i: usize| {
            let mut c = proxy.client();
            for words in [["SELECT", &(i % 4).to_string()], ["CLIENT", "SETNAME"]] {
                let name = format!("guest-{i}");
                let words =
                    if words[0] == "CLIENT" { [words[0], words[1], &name].to_vec() } else { words.to_vec() };
                assert_eq!(c.call(&words).unwrap(), ok());
            }
            assert_eq!(c.call(&["SET", &format!("of-{i}"), &format!("{i}")]).unwrap(), ok());
            c
        };
        Guests((0..n).map(guest).collect())
    }

    fn all_is_well(&mut self) {
        for (i, c) in self.0.iter_mut().enumerate() {
            assert_eq!(c.call(&["GET", &format!("of-{i}")]).unwrap(), bulk(&i.to_string()));
            assert_eq!(c.call(&["CLIENT", "GETNAME"]).unwrap(), bulk(&format!("guest-{i}")));
        }
    }
}

#[test]
fn clients_of_a_worker_at_its_limit_move_to_another_and_later_back_and_notice_nothing() {
    let deployment = Deployment::start(Options { nodes: 1, sentinels: 0, ..Options::default() }).unwrap();
    let proxy = Proxy::start(&deployment, &format!("nodes = \"{}\"", deployment.nodes[0].addr()));
    proxy.wait_state("serving");
    let mut guests = Guests::come(&proxy, 8);
    let load = Load::start(proxy.listen, 6, 3);
    assert_eq!(moves(&proxy), 0);

    let loud = Loud::start(proxy.listen, 2);
    eventually("the second worker has its part", || {
        guests.all_is_well();
        clients(&proxy)[1] >= 4
    });
    assert!(moves(&proxy) >= 1);
    loud.end();
    load.finish(&deployment.nodes[0]).assert_perfect();
    eventually("who has little to do is with the first worker again", || clients(&proxy) == [8, 0]);
    guests.all_is_well();
}
