//! The connections of errands (switchovers, demotions): tasks that resolve, connect and move bytes, and decide nothing.
use super::link::{dial, gone, resolve};
use pointsman_core::switchover::LineId;
use pointsman_core::topology::observation::Gone;
use pointsman_core::topology::settings::HostPort;
use std::collections::HashMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Bytes taken from a socket at once.
const READ_MAX: usize = 16 << 10;
/// Pieces of bytes that may wait to be sent on one connection: an errand sends few, and waits for answers.
const UNSENT_MAX: usize = 64;

/// What happened to an errand, on its way to the loop.
pub(super) struct Heard {
    /// Whose it is.
    pub(super) errand: u64,
    pub(super) what: What,
}

pub(super) enum What {
    /// Of the connection with this number.
    Line(LineId, u64, Happened),
    /// The workers have counted the commands in flight.
    InFlight(Option<u64>),
}

pub(super) enum Happened {
    Connected,
    Bytes(Vec<u8>),
    Gone(Gone),
}

/// The connections of one errand. They end when it is dropped.
pub(super) struct Wires {
    errand: u64,
    made: u64,
    open: HashMap<LineId, (u64, mpsc::Sender<Vec<u8>>)>,
    out: mpsc::Sender<Heard>,
}

impl Wires {
    pub(super) fn new(errand: u64, out: mpsc::Sender<Heard>) -> Wires {
        Wires { errand, made: 0, open: HashMap::new(), out }
    }

    pub(super) fn connect(&mut self, id: LineId, at: HostPort) {
        self.made += 1;
        let (send, unsent) = mpsc::channel(UNSENT_MAX);
        self.open.insert(id, (self.made, send));
        let task = Wire { errand: self.errand, id, number: self.made, out: self.out.clone() };
        tokio::spawn(task.run(at, unsent));
    }

    pub(super) fn send(&mut self, id: LineId, bytes: Vec<u8>) {
        // A connection that takes nothing more is one that does not answer.
        if let Some((_, send)) = self.open.get(&id) {
            let _ = send.try_send(bytes);
        }
    }

    pub(super) fn close(&mut self, id: LineId) {
        self.open.remove(&id);
    }

    /// Whether the connection with this number is the present one.
    pub(super) fn is_open(&self, id: LineId, number: u64) -> bool {
        self.open.get(&id).is_some_and(|(n, _)| *n == number)
    }
}

struct Wire {
    errand: u64,
    id: LineId,
    number: u64,
    out: mpsc::Sender<Heard>,
}

impl Wire {
    async fn run(self, at: HostPort, mut unsent: mpsc::Receiver<Vec<u8>>) {
        let why = match self.converse(at, &mut unsent).await {
            Ok(()) => return,
            Err(why) => why,
        };
        let _ = self.tell(Happened::Gone(why)).await;
    }

    /// Moves bytes until the connection ends; well, if nobody wants it any more.
    async fn converse(&self, at: HostPort, unsent: &mut mpsc::Receiver<Vec<u8>>) -> Result<(), Gone> {
        let addresses = match at.literal() {
            Some(addr) => vec![addr],
            None => resolve(at).await.map_err(|e| Gone::Unresolved(e.to_string().into()))?,
        };
        let (mut stream, _) = dial(addresses).await?;
        if self.tell(Happened::Connected).await.is_err() {
            return Ok(());
        }
        let mut buf = vec![0; READ_MAX];
        loop {
            tokio::select! {
                bytes = unsent.recv() => match bytes {
                    Some(bytes) => stream.write_all(&bytes).await.map_err(|e| gone(&e))?,
                    None => return Ok(()),
                },
                read = stream.read(&mut buf) => match read.map_err(|e| gone(&e))? {
                    0 => return Err(Gone::Closed),
                    n if self.tell(Happened::Bytes(buf[..n].to_vec())).await.is_err() => return Ok(()),
                    _ => {}
                },
            }
        }
    }

    async fn tell(&self, happened: Happened) -> Result<(), mpsc::error::SendError<Heard>> {
        let what = What::Line(self.id, self.number, happened);
        self.out.send(Heard { errand: self.errand, what }).await
    }
}
