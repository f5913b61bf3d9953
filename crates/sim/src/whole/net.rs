//! The network between the proxies and the servers: connections whose bytes take a moment, wait while the two hosts
//! cannot talk, and stand in a kernel while a process is stopped.
use super::{Event, Whole};
use pointsman_core::switchover::LineId;

/// A connection, from a proxy (or a client of its own) to a server.
pub(super) type ConnId = usize;

/// A server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Server {
    /// A Redis server.
    Node(usize),
    /// A Sentinel.
    Sentinel(usize),
}

/// Who connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Near {
    /// The worker of this proxy.
    Worker(usize),
    /// An observer of this proxy, by its index.
    Observer(usize, usize),
    /// An errand of this proxy, by its number, and its line.
    Errand(usize, u64, LineId),
    /// A client that passes the proxies by.
    Direct(usize),
}

impl Near {
    /// The proxy's index, if it is one.
    pub(super) fn proxy(self) -> Option<usize> {
        match self {
            Near::Worker(p) | Near::Observer(p, _) | Near::Errand(p, ..) => Some(p),
            Near::Direct(_) => None,
        }
    }
}

/// What was true when a worker sent something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    /// When.
    pub(super) at: u64,
    /// Under which grant.
    pub(super) term: u64,
    /// Whether that allowed writes then, and reads.
    pub(super) allowed: [bool; 2],
}

/// What travels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Packet {
    /// A connection is wanted, was made, or is refused.
    Connect,
    Connected,
    Refused,
    /// Bytes, and what was true when they were sent.
    Data(Vec<u8>, Option<Stamp>),
    /// The connection is over.
    Reset,
}

#[derive(Debug, Default)]
pub(super) struct Pipe {
    /// When the last packet arrives: they keep their order.
    pub(super) last: u64,
    /// What cannot be sent for now.
    stuck: Vec<Packet>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) near: Near,
    pub(super) server: Server,
    /// The near end was closed, and when.
    pub(super) closed: bool,
    pub(super) closed_at: u64,
    lingers: bool,
    /// To the server, and back.
    pub(super) pipes: [Pipe; 2],
}

impl Whole {
    /// Connects.
    pub(super) fn dial(&mut self, near: Near, server: Server) -> ConnId {
        self.conns.push(Conn {
            near,
            server,
            closed: false,
            closed_at: 0,
            lingers: false,
            pipes: Default::default(),
        });
        let id = self.conns.len() - 1;
        self.send(id, true, Packet::Connect);
        id
    }

    /// Sends something, to the server or back.
    pub(super) fn send(&mut self, id: ConnId, out: bool, packet: Packet) {
        let delay = self.rng.between(60, 250);
        let pipe = &mut self.conns[id].pipes[usize::from(!out)];
        // It overtakes nothing that is still on its way.
        if !pipe.stuck.is_empty() && pipe.last < self.now {
            pipe.stuck.push(packet);
            return;
        }
        let at = (self.now + delay).max(pipe.last + 1);
        pipe.last = at;
        self.put(at, Event::Arrive(id, out, packet));
    }

    /// The near end closes: at once, so that what is still in its kernel is lost (`SO_LINGER` 0), or so that it lingers.
    pub(super) fn close(&mut self, id: ConnId, lingers: bool) {
        let conn = &mut self.conns[id];
        (conn.closed, conn.closed_at, conn.lingers) = (true, self.now, lingers);
        if conn.pipes[0].stuck.is_empty() {
            self.send(id, true, Packet::Reset);
        } else if !lingers {
            conn.pipes[0].stuck.clear();
        }
    }

    /// Whether all that the near end wrote has come to the server's kernel.
    pub(super) fn has_delivered(&self, id: ConnId) -> bool {
        let pipe = &self.conns[id].pipes[0];
        pipe.stuck.is_empty() && pipe.last < self.now
    }

    fn talk(&self, server: Server) -> bool {
        let us = self.world.us();
        match server {
            Server::Node(n) => self.world.reach(us, self.world.node_at(n)),
            Server::Sentinel(s) => self.world.reach(us, s),
        }
    }

    /// A packet would arrive now.
    pub(super) fn arrive(&mut self, id: ConnId, out: bool, packet: Packet) {
        let talk = self.talk(self.conns[id].server);
        let conn = &mut self.conns[id];
        let pipe = &mut conn.pipes[usize::from(!out)];
        // What its kernel was told to forget is not sent again; nobody repeats a reset.
        let late = out && conn.closed && self.now > conn.closed_at + 1_000;
        let forgotten = packet == Packet::Reset || out && conn.closed && !conn.lingers;
        if !talk || !pipe.stuck.is_empty() {
            if !forgotten {
                pipe.stuck.push(packet);
            }
            return;
        }
        if late && matches!(packet, Packet::Data(..)) {
            if !conn.lingers {
                return;
            }
            if matches!(conn.near, Near::Worker(_)) {
                self.check
                    .breaks("(2) what was queued has arrived long after its connection was closed".into());
            }
        }
        match (out, packet) {
            (true, packet) => match conn.server {
                Server::Node(n) => self.node_hears(n, id, packet),
                Server::Sentinel(s) => self.sentinel_hears(s, id, packet),
            },
            (false, _) if conn.closed => {}
            (false, packet) => self.near_hears(id, packet),
        }
    }

    /// All connections of a process that died, with what stands in their kernel: its host is gone as well.
    pub(super) fn drop_conns(&mut self, p: usize) {
        for id in 0..self.conns.len() {
            if self.conns[id].near.proxy() == Some(p) && !self.conns[id].closed {
                self.close(id, false);
            }
        }
    }

    /// Hosts can talk again: what is stuck is sent again after a while.
    pub(super) fn unstick(&mut self) {
        for id in 0..self.conns.len() {
            if !self.talk(self.conns[id].server) {
                continue;
            }
            for out in [true, false] {
                let late = self.rng.between(1_000, 250_000);
                let pipe = &mut self.conns[id].pipes[usize::from(!out)];
                if pipe.stuck.is_empty() {
                    continue;
                }
                if pipe.last >= self.now {
                    // What is still on its way comes behind it.
                    let landed = pipe.last + 1;
                    self.put(landed, Event::Unstick);
                    continue;
                }
                let stuck = std::mem::take(&mut pipe.stuck);
                pipe.last = pipe.last.max(self.now + late);
                for packet in stuck {
                    let pipe = &mut self.conns[id].pipes[usize::from(!out)];
                    pipe.last += 1;
                    let at = pipe.last;
                    self.put(at, Event::Arrive(id, out, packet));
                }
            }
        }
    }

    /// A process has died: its kernel says so on all its connections.
    pub(super) fn hang_up(&mut self, server: Server) {
        for id in 0..self.conns.len() {
            let conn = &self.conns[id];
            if conn.server == server && !conn.closed {
                self.send(id, false, Packet::Reset);
            }
        }
    }
}
