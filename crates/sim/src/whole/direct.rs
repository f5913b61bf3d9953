//! Clients that write to the master's own address, past every proxy: what a planned change of master must not lose.
//! They follow the Sentinels as client libraries do: they stay on a connection until it breaks or is refused on.
use super::net::{ConnId, Near, Packet, Server};
use super::{Event, Whole};
use crate::resp::{Tag, Value, encode, reply};

/// Their numbers begin here, and their keys.
pub(super) const FIRST: u32 = 1000;
/// How long one waits for an answer before it connects again, in microseconds.
const PATIENCE: u64 = 1_000_000;

/// A direct client.
#[derive(Debug)]
pub(super) struct Direct {
    conn: Option<ConnId>,
    input: Vec<u8>,
    next: u32,
    /// The write that is not answered, and since when.
    asked: Option<(Tag, u64)>,
    pace: u64,
}

impl Direct {
    pub(super) fn new(pace: u64) -> Direct {
        Direct { conn: None, input: Vec::new(), next: 0, asked: None, pace }
    }
}

impl Whole {
    /// A direct client writes, if it may.
    pub(super) fn write_directly(&mut self, d: usize) {
        let pace = self.directs[d].pace;
        let next = self.now + self.rng.between(pace / 2, pace * 3 / 2);
        self.put(next, Event::Write(d));
        match self.directs[d].asked {
            Some((_, since)) if self.now > since + PATIENCE => self.leave(d),
            Some(_) => return,
            None => {}
        }
        let conn = match self.directs[d].conn {
            Some(conn) => conn,
            None => {
                let Some((n, _)) = self.world.truth(self.now / 1000) else { return };
                let conn = self.dial(Near::Direct(d), Server::Node(n));
                self.directs[d].conn = Some(conn);
                conn
            }
        };
        let client = &mut self.directs[d];
        let tag = Tag { client: FIRST + d as u32, seq: client.next };
        client.next += 1;
        client.asked = Some((tag, self.now));
        let (key, value) = (format!("k{}", tag.client), format!("t:{}:{}:", tag.client, tag.seq));
        let bytes = encode(&[b"SET", key.as_bytes(), value.as_bytes()]);
        self.send(conn, true, Packet::Data(bytes, None));
    }

    /// It gives up a connection, and what it does not know of its last write.
    fn leave(&mut self, d: usize) {
        let client = &mut self.directs[d];
        (client.asked, client.input) = (None, Vec::new());
        if let Some(conn) = client.conn.take() {
            self.close(conn, true);
        }
    }

    /// Something came to a direct client.
    pub(super) fn direct_hears(&mut self, d: usize, conn: ConnId, packet: Packet) {
        if self.directs[d].conn != Some(conn) {
            return;
        }
        match packet {
            Packet::Data(bytes, _) => self.directs[d].input.extend(bytes),
            Packet::Refused | Packet::Reset => return self.leave(d),
            Packet::Connect | Packet::Connected => return,
        }
        while let Ok(Some((value, len))) = reply(&self.directs[d].input) {
            self.directs[d].input.drain(..len);
            let Some((tag, _)) = self.directs[d].asked.take() else { continue };
            match value {
                Value::Simple(ok) if ok == "OK" => {
                    self.report.count("direct: acknowledged", 1);
                    self.planned.acknowledged(tag);
                }
                // A replica, or one that loads: it asks the Sentinels again.
                _ => {
                    self.report.count("direct: refused", 1);
                    return self.leave(d);
                }
            }
        }
    }
}
