//! The observers' connections: tasks that resolve, connect and move bytes, and decide nothing.
use crate::clock;
use pointsman_core::observe::{Do, Observer};
use pointsman_core::topology::observation::{Gone, Observation, Pace};
use pointsman_core::topology::settings::HostPort;
use pointsman_core::topology::snapshot::ServiceId;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Bytes taken from a socket at once.
const READ_MAX: usize = 16 << 10;

/// An observation on its way to the loop.
pub(super) struct Received {
    pub(super) service: ServiceId,
    pub(super) link: u64,
    pub(super) observation: Observation,
}

/// What the loop wants of a target's observers.
#[derive(Clone, Copy, Default)]
struct Wish {
    pace: Pace,
    /// Counts demands to ask at once.
    asks: u64,
}

/// The observers of one target. They end when it is dropped.
pub(super) struct Link {
    pub(super) id: u64,
    wish: watch::Sender<Wish>,
}

impl Link {
    /// Starts a task for each of a target's observers.
    pub(super) fn start(
        service: ServiceId,
        id: u64,
        all: Vec<Observer>,
        out: &mpsc::Sender<Received>,
    ) -> Link {
        let (wish, wishes) = watch::channel(Wish::default());
        for observer in all {
            let addresses = observer.target().at.literal().into_iter().collect();
            let task = Task {
                service,
                id,
                observer,
                out: out.clone(),
                line: Line::Down,
                unsent: Vec::new(),
                addresses,
                lookup: None,
            };
            tokio::spawn(task.run(wishes.clone()));
        }
        Link { id, wish }
    }

    pub(super) fn ask(&self) {
        self.wish.send_modify(|w| w.asks += 1);
    }

    pub(super) fn set_pace(&self, pace: Pace) {
        self.wish.send_modify(|w| w.pace = pace);
    }
}

type Dialing = Pin<Box<dyn Future<Output = Result<(TcpStream, SocketAddr), Gone>> + Send>>;

/// Where a connection stands.
enum Line {
    Down,
    Resolving,
    Dialing(Dialing),
    Up(TcpStream),
}

struct Task {
    service: ServiceId,
    id: u64,
    observer: Observer,
    out: mpsc::Sender<Received>,
    line: Line,
    unsent: Vec<u8>,
    /// What the name meant when it was last resolved: better than nothing while the resolver is gone.
    addresses: Vec<SocketAddr>,
    /// At most one at a time, however long it takes.
    lookup: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Task {
    async fn run(mut self, mut wishes: watch::Receiver<Wish>) {
        let mut asks = 0;
        loop {
            if !self.obey().await {
                return;
            }
            let due = self.observer.next_timeout();
            let idle = async {
                match due {
                    Some(at) => tokio::time::sleep(at.since(clock::now())).await,
                    None => std::future::pending().await,
                }
            };
            // In this order: an answer that is there counts before a deadline that passed while this thread slept.
            tokio::select! {
                biased;
                changed = wishes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let wish = *wishes.borrow_and_update();
                    self.observer.set_pace(clock::now(), wish.pace);
                    if wish.asks != asks {
                        asks = wish.asks;
                        self.observer.ask(clock::now());
                    }
                }
                happened = progress(&mut self.line, &mut self.lookup, &mut self.unsent) => self.happened(happened),
                () = idle => self.observer.timeout(clock::now()),
            }
        }
    }

    /// Does what the observer wants; false when nobody listens any more.
    async fn obey(&mut self) -> bool {
        while let Some(wanted) = self.observer.poll() {
            match wanted {
                Do::Connect => self.connect(),
                Do::Send(bytes) => self.unsent.extend(bytes),
                Do::Close => self.close(),
                Do::Observed(observation) => {
                    let received = Received { service: self.service, link: self.id, observation };
                    if self.out.send(received).await.is_err() {
                        return false;
                    }
                }
            }
        }
        true
    }

    fn close(&mut self) {
        self.line = Line::Down;
        self.unsent.clear();
    }

    /// Resolves and dials. A lookup that was begun for an earlier attempt and still runs is not waited for again if
    /// the name's last addresses are known.
    fn connect(&mut self) {
        let at = &self.observer.target().at;
        let slow = self.lookup.as_ref().is_some_and(|l| !l.is_finished()) && !self.addresses.is_empty();
        if at.literal().is_some() || slow {
            return self.dial();
        }
        if self.lookup.is_none() {
            self.lookup = Some(tokio::spawn(resolve(at.clone())));
        }
        self.line = Line::Resolving;
    }

    fn dial(&mut self) {
        self.line = Line::Dialing(Box::pin(dial(self.addresses.clone())));
    }

    fn happened(&mut self, happened: Happened) {
        match happened {
            Happened::Resolved(result) => {
                self.lookup = None;
                match result {
                    Ok(addresses) => self.addresses = addresses,
                    Err(e) if self.addresses.is_empty() => {
                        return self.gone(Gone::Unresolved(e.to_string().into()));
                    }
                    Err(_) => {}
                }
                if let Line::Resolving = self.line {
                    self.dial();
                }
            }
            Happened::Connected(Ok((stream, addr))) => {
                self.line = Line::Up(stream);
                self.observer.connected(clock::now(), addr);
            }
            Happened::Connected(Err(why)) => self.gone(why),
            Happened::Read(bytes) => self.observer.bytes(clock::now(), &bytes),
            Happened::Wrote => {}
            Happened::Broke(why) => self.gone(why),
        }
    }

    fn gone(&mut self, why: Gone) {
        self.close();
        self.observer.gone(clock::now(), why);
    }
}

/// What can happen on a connection.
enum Happened {
    Resolved(io::Result<Vec<SocketAddr>>),
    Connected(Result<(TcpStream, SocketAddr), Gone>),
    Read(Vec<u8>),
    Wrote,
    Broke(Gone),
}

/// The next thing that happens. May be dropped at any time.
async fn progress(
    line: &mut Line,
    lookup: &mut Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
    unsent: &mut Vec<u8>,
) -> Happened {
    match line {
        Line::Down => std::future::pending().await,
        Line::Resolving => match lookup {
            Some(lookup) => Happened::Resolved(lookup.await.unwrap_or_else(|e| Err(io::Error::other(e)))),
            None => std::future::pending().await,
        },
        Line::Dialing(dialing) => Happened::Connected(dialing.await),
        Line::Up(stream) => match transfer(stream, unsent).await {
            Ok(happened) => happened,
            Err(e) => Happened::Broke(gone(&e)),
        },
    }
}

async fn transfer(stream: &mut TcpStream, unsent: &mut Vec<u8>) -> io::Result<Happened> {
    loop {
        let interest =
            if unsent.is_empty() { Interest::READABLE } else { Interest::READABLE.add(Interest::WRITABLE) };
        let ready = stream.ready(interest).await?;
        if ready.is_readable() {
            let mut buf = vec![0; READ_MAX];
            match stream.try_read(&mut buf) {
                Ok(0) => return Ok(Happened::Broke(Gone::Closed)),
                Ok(n) => {
                    buf.truncate(n);
                    return Ok(Happened::Read(buf));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        if ready.is_writable() && !unsent.is_empty() {
            match stream.try_write(unsent) {
                Ok(n) => {
                    unsent.drain(..n);
                    return Ok(Happened::Wrote);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}

pub(super) async fn resolve(at: HostPort) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> =
        tokio::net::lookup_host((&*at.host, at.port)).await?.take(ADDRESSES_MAX).collect();
    if found.is_empty() { Err(io::Error::other("it has no address")) } else { Ok(found) }
}

/// Connects to the first address that can be connected to. It counts as refused only if every address refused.
pub(super) async fn dial(addresses: Vec<SocketAddr>) -> Result<(TcpStream, SocketAddr), Gone> {
    let mut worst = Gone::Refused;
    for addr in addresses {
        match TcpStream::connect(addr).await {
            // Nobody listens there: on loopback a connection can end up at itself.
            Ok(stream) if stream.local_addr().is_ok_and(|own| own == addr) => {}
            Ok(stream) => {
                // Only a matter of speed.
                let _ = stream.set_nodelay(true);
                return Ok((stream, addr));
            }
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {}
            Err(e) => worst = gone(&e),
        }
    }
    Err(worst)
}

pub(super) fn gone(e: &io::Error) -> Gone {
    match e.kind() {
        ErrorKind::ConnectionRefused => Gone::Refused,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Gone::Closed,
        ErrorKind::TimedOut => Gone::Timeout,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Gone::Unreachable,
        _ => Gone::Other(e.to_string().into()),
    }
}
