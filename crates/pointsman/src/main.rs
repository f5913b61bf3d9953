//! The binary (provisional).
use pointsman::data::accept::{Acceptor, Listener};
use pointsman::data::{Outbox, Workers};
use pointsman_core::policy::Policy;
use pointsman_core::topology::snapshot::*;
use std::sync::Arc;
struct Log;
impl Outbox for Log {
    fn tell(&self, e: pointsman_core::worker::Event) {
        eprintln!("{e:?}");
    }
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|a| a == "--version") {
        println!("pointsman 0.1.0");
        return;
    }
    let get = |k: &str| args.iter().position(|a| a == k).map(|i| args[i + 1].clone());
    let listen = get("--listen").expect("--listen");
    let node = get("--node").expect("--node");
    let n: usize = get("--workers").map_or(1, |n| n.parse().expect("number"));
    let workers = Workers::start(n, Arc::new(Log)).expect("start");
    workers.configure(&Arc::from([Arc::new(Policy::new(ServiceId(0), "main"))]));
    let now = pointsman::clock::now();
    let mut v = ShardView::unknown(now, std::time::Duration::from_secs(15));
    v.term = Term(1);
    v.master = Some(Endpoint::Tcp(node.parse().expect("addr")));
    v.writes = Gate::Open;
    v.reads = Gate::Open;
    v.proven_at = Now::NEVER;
    use pointsman_core::Now;
    let snap = Snapshot {
        version: 1,
        services: [ServiceView { id: ServiceId(0), shards: [Arc::new(v)].into() }].into(),
    };
    workers.publish(&Arc::new(snap));
    let acceptor = Acceptor::start(workers).expect("acceptor");
    acceptor.open(ServiceId(0), 1, Listener::tcp(listen.parse().expect("addr")).expect("bind"));
    loop {
        std::thread::park();
    }
}
