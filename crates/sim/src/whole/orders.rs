//! What a node is ordered to do besides serving: to pause writes, to follow another, to be chosen sooner or never.
use super::net::ConnId;
use super::node::{OK, error};
use super::{Event, Whole};

fn number(arg: Option<&Vec<u8>>) -> Option<u64> {
    std::str::from_utf8(arg?).ok()?.parse().ok()
}

impl Whole {
    /// Whether a node's writes are paused.
    pub(super) fn is_paused(&self, n: usize) -> bool {
        self.world.paused(self.now / 1000, n)
    }

    pub(super) fn node_ordered(&mut self, n: usize, conn: ConnId, name: &[u8], args: &[Vec<u8>]) -> Vec<u8> {
        let word = args.get(1).map(|a| a.to_ascii_uppercase()).unwrap_or_default();
        match (name, &word[..]) {
            (b"CLIENT", b"PAUSE") => match number(args.get(2)) {
                None => return error("ERR timeout is not an integer or out of range"),
                Some(ms) => self.pause(n, conn, ms),
            },
            (b"CLIENT", b"UNPAUSE") => self.unpause(n),
            (b"REPLICAOF", _) => {
                if number(args.get(2)).is_none() {
                    return error("ERR Invalid master port");
                }
                let of = args[1].rsplit(|b| *b == b'.').next().map(<[u8]>::to_vec);
                if self.world.nodes[n].handover.is_some() {
                    return error("ERR REPLICAOF not allowed while failing over.");
                }
                if let Some(m) = number(of.as_ref()) {
                    self.replica_of(n, m as usize);
                }
            }
            (b"CONFIG", b"SET") => match number(args.get(3)) {
                None => return error("ERR CONFIG SET failed: argument couldn't be parsed into an integer"),
                Some(priority) => self.world.nodes[n].priority = priority,
            },
            (b"FAILOVER", b"ABORT") if self.world.nodes[n].handover.is_none() => {
                return error("ERR No failover in progress.");
            }
            (b"FAILOVER", b"ABORT") => self.abort_handover(n),
            _ => {}
        }
        OK.to_vec()
    }

    /// `CLIENT PAUSE … WRITE`: it ends by itself, and a second one does not shorten it (`pauseActions` in `networking.c`).
    fn pause(&mut self, n: usize, conn: ConnId, ms: u64) {
        let end = (self.now + ms * 1000).div_ceil(1000);
        let node = &mut self.world.nodes[n];
        node.paused_until = node.paused_until.max(end);
        self.put(end * 1000, Event::Runs(n));
        self.note(|| format!("node {n} pauses writes for {ms} ms"));
        self.note_pause(n, conn, ms);
    }

    /// `CLIENT UNPAUSE`.
    pub(super) fn unpause(&mut self, n: usize) {
        if self.is_paused(n) {
            self.note(|| format!("node {n} takes writes again"));
            self.put(self.now + 1, Event::Runs(n));
        }
        self.world.nodes[n].paused_until = 0;
    }

    /// `REPLICAOF` by somebody else than a Sentinel.
    fn replica_of(&mut self, n: usize, m: usize) {
        if m == n || self.world.nodes[n].of == Some(m) {
            return;
        }
        self.note(|| format!("node {n} is told to follow node {m}, and not by a Sentinel"));
        self.world.demote(self.now / 1000, n, m);
        let store = &mut self.stores[n];
        (store.of, store.synced) = (Some(m), false);
        store.acked.clear();
        self.unblock(n);
        self.put(self.now + 5_000, Event::Feed(n));
    }
}
