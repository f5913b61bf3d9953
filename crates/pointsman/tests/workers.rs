//! Workers are filled one after the other: few of them carry large turns.
#![allow(clippy::unwrap_used, reason = "what the tests start must work; a panic is their failure")]
mod scene;

use pointsman::client::Client;
use pointsman::sandbox::deployment::{Deployment, Options};
use scene::{Proxy, eventually, get};
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
