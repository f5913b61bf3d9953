//! Who looks on: a connection to the server that counts the others, and clients of the proxy that must not notice what others do.
use super::raw::{Raw, shown};
use super::{DEADLINE, Proxy, Server};
use pointsman::client::Client;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// A connection to the server that counts the others.
pub struct Observer(pub Client);

impl Observer {
    /// Connects.
    pub fn of(server: &Server) -> Observer {
        Observer(server.connect())
    }

    /// The text of an answer.
    pub fn ask(&mut self, args: &[&str]) -> String {
        self.0.ask(args).expect("an answer").text().unwrap_or_default()
    }

    /// A number of its INFO.
    pub fn field(&mut self, section: &str, field: &str) -> u64 {
        let text = self.ask(&["INFO", section]);
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.expect("the field").trim().parse().expect("a number")
    }

    /// Connections that the server has accepted since it began.
    pub fn accepted(&mut self) -> u64 {
        self.field("stats", "total_connections_received")
    }

    /// Connections that there are, without this one.
    pub fn connections(&mut self) -> usize {
        self.ask(&["CLIENT", "LIST"]).lines().count() - 1
    }

    /// Clients that wait for something.
    pub fn blocked(&mut self) -> u64 {
        self.field("clients", "blocked_clients")
    }

    /// A string.
    pub fn get(&mut self, key: &str) -> String {
        self.ask(&["GET", key])
    }
}

/// Says a command of plain words, and shows its reply.
pub fn said(client: &mut Raw, line: &str) -> String {
    shown(&client.call(&line.split(' ').collect::<Vec<_>>()))
}

/// Uses the proxy while others misbehave: each reply must be its own, and none may take long.
pub fn undisturbed(proxy: &Proxy, misbehave: impl FnOnce()) {
    let (over, slowest) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for i in 0..2 {
            let (over, slowest) = (&over, &slowest);
            scope.spawn(move || {
                let mut client = Raw::connect(proxy.addr());
                let mut round = 0;
                loop {
                    let begin = Instant::now();
                    assert_eq!(said(&mut client, &format!("SET by:{i} {round}")), "+OK\\r\\n");
                    let value = format!("{round}");
                    let want = format!("${}\\r\\n{value}\\r\\n", value.len());
                    assert_eq!(said(&mut client, &format!("GET by:{i}")), want);
                    slowest.fetch_max(begin.elapsed().as_millis() as u64, Ordering::Relaxed);
                    round += 1;
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        // However this ends, the others must.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _end = End(&over);
        misbehave();
    });
    let slowest = slowest.load(Ordering::Relaxed);
    // A machine that does other things as well takes its time; whoever waits for others waits until the deadline.
    assert!(slowest < DEADLINE.as_millis() as u64 / 2, "a bystander waited {slowest} ms");
}
