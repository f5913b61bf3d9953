//! The virtual network: byte streams that arrive in pieces, stall, fill up and break, with edges as epoll reports them.
use crate::rng::Rng;
use pointsman_core::Now;
use pointsman_core::worker::How;
use std::collections::{BTreeMap, VecDeque};

/// A connection between the worker and one peer.
pub(super) type LinkId = usize;

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Peer {
    /// A model client.
    Client(u32),
    /// A model server.
    Server(usize),
}

#[derive(Debug, Default)]
struct Pipe {
    /// Given to the sender's kernel.
    sent: VecDeque<u8>,
    /// In the receiver's kernel.
    arrived: VecDeque<u8>,
    /// The sender will send no more.
    fin: bool,
    stalled_until: Now,
    /// Bytes ever given, and ever taken.
    given: u64,
    taken: u64,
}

impl Pipe {
    fn len(&self) -> usize {
        self.sent.len() + self.arrived.len()
    }

    /// What is under way is lost.
    fn lose(&mut self) {
        self.sent.clear();
        self.arrived.clear();
    }

    fn give(&mut self, bytes: &[u8]) {
        self.sent.extend(bytes);
        self.given += bytes.len() as u64;
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        let n = n.min(self.arrived.len());
        self.taken += n as u64;
        self.arrived.drain(..n).collect()
    }

    /// Moves some bytes on; whether something came to the receiver.
    fn tick(&mut self, rng: &mut Rng, now: Now, smooth: bool) -> bool {
        if now < self.stalled_until || self.sent.is_empty() {
            return false;
        }
        let all = self.sent.len() as u64;
        let n = if smooth || rng.chance(50) { all } else { rng.between(1, all.min(40)) };
        self.arrived.extend(self.sent.drain(..n as usize));
        true
    }
}

/// What the worker's end of a read gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// Bytes.
    Bytes(Vec<u8>),
    /// Nothing now.
    Nothing,
    /// No more will come.
    End,
    /// The connection failed.
    Reset,
}

#[derive(Debug)]
struct Link {
    peer: Peer,
    to_peer: Pipe,
    from_peer: Pipe,
    /// Most bytes under way to the peer.
    room: usize,
    reset: bool,
    /// The worker has closed its end.
    closed_here: bool,
    /// The worker writes no more.
    finished: bool,
    /// The peer has closed its end altogether.
    closed_there: bool,
    /// The end of the peer's stream was reported.
    end_told: bool,
    edge_read: bool,
    edge_write: bool,
    full: bool,
}

/// Edges of one connection since they were last asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Edges {
    /// There is something to read.
    pub(super) readable: bool,
    /// There is room again.
    pub(super) writable: bool,
    /// The peer closed or the connection failed.
    pub(super) ended: bool,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Net {
    links: BTreeMap<LinkId, Link>,
    next: LinkId,
    /// Nothing is delayed or cut into pieces any longer.
    pub(super) smooth: bool,
}

impl Net {
    /// A new connection, whose worker's end takes `room` bytes at a time.
    pub(super) fn open(&mut self, peer: Peer, room: usize) -> LinkId {
        let id = self.next;
        self.next += 1;
        let link = Link {
            peer,
            to_peer: Pipe::default(),
            from_peer: Pipe::default(),
            room,
            reset: false,
            closed_here: false,
            finished: false,
            closed_there: false,
            end_told: false,
            edge_read: false,
            edge_write: true,
            full: false,
        };
        self.links.insert(id, link);
        id
    }

    /// Moves bytes; whether any moved.
    pub(super) fn tick(&mut self, rng: &mut Rng, now: Now) -> bool {
        let smooth = self.smooth;
        let mut moved = false;
        for link in self.links.values_mut() {
            moved |= link.to_peer.tick(rng, now, smooth);
            if link.from_peer.tick(rng, now, smooth) {
                link.edge_read = true;
                moved = true;
            }
            let end =
                link.from_peer.fin && link.from_peer.sent.is_empty() && now >= link.from_peer.stalled_until;
            if end && !link.end_told {
                link.end_told = true;
                link.edge_read = true;
                moved = true;
            }
        }
        moved
    }

    /// The edges of all connections that have some.
    pub(super) fn edges(&mut self) -> Vec<(LinkId, Edges)> {
        let mut out = Vec::new();
        for (id, link) in &mut self.links {
            if link.closed_here || !(link.edge_read || link.edge_write) {
                continue;
            }
            let ended = link.reset || link.end_told;
            out.push((*id, Edges { readable: link.edge_read, writable: link.edge_write, ended }));
            (link.edge_read, link.edge_write) = (false, false);
        }
        out
    }

    /// The worker reads.
    pub(super) fn read(&mut self, id: LinkId, most: usize) -> Got {
        let Some(link) = self.links.get_mut(&id) else { return Got::Reset };
        if link.reset {
            return Got::Reset;
        }
        if !link.from_peer.arrived.is_empty() {
            return Got::Bytes(link.from_peer.take(most));
        }
        if link.end_told { Got::End } else { Got::Nothing }
    }

    /// Whether the peer closed or the connection failed, and the worker could know.
    pub(super) fn has_ended(&self, id: LinkId) -> bool {
        self.links.get(&id).is_none_or(|l| l.reset || l.end_told)
    }

    /// The worker writes; `None` if the connection failed.
    pub(super) fn write(&mut self, id: LinkId, bytes: &[u8]) -> Option<usize> {
        let link = self.links.get_mut(&id).filter(|l| !l.reset)?;
        let n = bytes.len().min(link.room.saturating_sub(link.to_peer.len()));
        link.full = n < bytes.len();
        if link.closed_there {
            // The answer to what comes to a socket that is closed.
            link.reset = true;
            (link.edge_read, link.edge_write) = (true, true);
        } else {
            link.to_peer.give(&bytes[..n]);
        }
        Some(n)
    }

    /// Whether all that the worker wrote has come to the peer's kernel.
    pub(super) fn has_delivered(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|l| l.to_peer.sent.is_empty())
    }

    /// The worker will write no more, but still reads.
    pub(super) fn finish(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.finished = true;
            link.to_peer.fin = true;
        }
    }

    /// The worker closes.
    pub(super) fn close(&mut self, id: LinkId, how: How) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.closed_here = true;
        link.from_peer.lose();
        match how {
            How::Abort => {
                link.reset = true;
                link.to_peer.lose();
            }
            How::Gently => link.to_peer.fin = true,
        }
        if link.closed_there {
            self.links.remove(&id);
        }
    }

    /// The peer reads up to `most` bytes. The second is whether the worker's end is closed and all was read.
    pub(super) fn peer_read(&mut self, id: LinkId, most: usize) -> (Vec<u8>, bool) {
        let Some(link) = self.links.get_mut(&id) else { return (Vec::new(), true) };
        let bytes = link.to_peer.take(most);
        if link.full && !bytes.is_empty() && link.to_peer.len() < link.room {
            link.full = false;
            link.edge_write = true;
        }
        let ended = link.closed_here || link.finished;
        let end = link.reset || ended && link.to_peer.len() == 0;
        (bytes, end)
    }

    /// The peer writes.
    pub(super) fn peer_write(&mut self, id: LinkId, bytes: &[u8]) {
        if let Some(link) = self.links.get_mut(&id)
            && !link.closed_here
            && !link.reset
            && !link.from_peer.fin
        {
            link.from_peer.give(bytes);
        }
    }

    /// How much of what the peer sent is under way or not yet read.
    pub(super) fn peer_unread(&self, id: LinkId) -> usize {
        self.links.get(&id).map_or(0, |l| l.from_peer.len())
    }

    /// Bytes that the peer ever wrote, and that the worker ever read.
    pub(super) fn heard_from(&self, id: LinkId) -> (u64, u64) {
        self.links.get(&id).map_or((0, 0), |l| (l.from_peer.given, l.from_peer.taken))
    }

    /// The peer will send no more, but still reads.
    pub(super) fn peer_half_close(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.from_peer.fin = true;
        }
    }

    /// The peer closes: in the ordinary way, or so that the worker sees a failure.
    pub(super) fn peer_close(&mut self, id: LinkId, gently: bool) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.closed_here {
            self.links.remove(&id);
            return;
        }
        link.closed_there = true;
        link.to_peer.lose();
        link.from_peer.fin = true;
        if !gently {
            link.from_peer.lose();
            link.reset = true;
            (link.edge_read, link.edge_write) = (true, true);
        }
        if std::mem::take(&mut link.full) {
            link.edge_write = true;
        }
    }

    /// The connection breaks in the middle.
    pub(super) fn cut(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.reset = true;
            (link.edge_read, link.edge_write) = (true, true);
            link.to_peer.lose();
            link.from_peer.lose();
        }
    }

    /// Nothing moves on a connection until then.
    pub(super) fn stall(&mut self, id: LinkId, until: Now) {
        if let Some(link) = self.links.get_mut(&id) {
            link.to_peer.stalled_until = until;
            link.from_peer.stalled_until = until;
        }
    }

    /// All connections to servers.
    pub(super) fn to_servers(&self) -> Vec<(LinkId, usize)> {
        let server = |l: &Link| match l.peer {
            Peer::Server(s) => Some(s),
            Peer::Client(_) => None,
        };
        self.links
            .iter()
            .filter(|(_, l)| !l.closed_here)
            .filter_map(|(id, l)| Some((*id, server(l)?)))
            .collect()
    }

    /// Nothing stalls any longer.
    pub(super) fn heal(&mut self) {
        self.smooth = true;
        for link in self.links.values_mut() {
            link.to_peer.stalled_until = Now::ZERO;
            link.from_peer.stalled_until = Now::ZERO;
        }
    }

    /// Whether a peer has something to read.
    pub(super) fn peers_have_mail(&self) -> bool {
        self.links.values().any(|l| !l.to_peer.arrived.is_empty())
    }

    /// When the next stall ends.
    pub(super) fn next_event(&self, now: Now) -> Option<Now> {
        let stalls = |l: &Link| [l.to_peer.stalled_until, l.from_peer.stalled_until];
        self.links.values().flat_map(stalls).filter(|t| *t > now).min()
    }
}
