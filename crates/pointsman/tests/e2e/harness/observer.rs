//! Who looks on: a connection to the server that counts the others, and clients of the proxy that must not notice what others do.
use super::raw::{Raw, shown};
use super::{Proxy, Server, eventually};
use pointsman::client::Client;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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

/// Clients that use the proxy all the time.
pub struct Bystanders {
    /// How often each has had its replies.
    rounds: [AtomicU64; 2],
    over: AtomicBool,
}

impl Bystanders {
    /// Returns when each has had replies to what it only asked after this was called: whatever the others have done until now,
    /// and have not been closed for, none of them waits for its end.
    pub fn go_on(&self) {
        let before = self.rounds();
        // The round that goes on may have begun before.
        eventually("the bystanders go on", || {
            self.rounds().iter().zip(before).all(|(now, then)| *now >= then + 2)
        });
    }

    fn rounds(&self) -> [u64; 2] {
        [0, 1].map(|i| self.rounds[i].load(Ordering::Relaxed))
    }

    /// Each reply must be its own.
    fn use_it(&self, proxy: &Proxy, i: usize) {
        let mut client = Raw::connect(proxy.addr());
        while !self.over.load(Ordering::Relaxed) {
            let value = self.rounds[i].load(Ordering::Relaxed).to_string();
            assert_eq!(said(&mut client, &format!("SET by:{i} {value}")), "+OK\\r\\n");
            let want = format!("${}\\r\\n{value}\\r\\n", value.len());
            assert_eq!(said(&mut client, &format!("GET by:{i}")), want);
            self.rounds[i].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Others use the proxy while some misbehave; they must not notice, and go on in the end.
pub fn undisturbed(proxy: &Proxy, misbehave: impl FnOnce(&Bystanders)) {
    // However this ends, they must.
    struct End<'a>(&'a Bystanders);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.over.store(true, Ordering::Relaxed);
        }
    }
    let others = Bystanders { rounds: Default::default(), over: AtomicBool::new(false) };
    std::thread::scope(|scope| {
        let end = End(&others);
        for i in 0..others.rounds.len() {
            let others = &others;
            scope.spawn(move || others.use_it(proxy, i));
        }
        misbehave(&others);
        others.go_on();
        drop(end);
    });
}
