//! Accepts clients of all listeners, on one thread, and hands them on.
use super::Workers;
use super::transport::Stream;
use mio::net::{TcpListener, UnixListener};
use mio::{Events, Interest, Poll, Token, Waker};
use pointsman_core::topology::snapshot::ServiceId;
use slab::Slab;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const WAKER: Token = Token(usize::MAX);
/// Connections that the kernel completes and keeps until they are accepted.
const BACKLOG: i32 = 4096;
/// After the process ran out of file descriptors, how long until it is tried again.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// A bound listener.
pub enum Listener {
    /// On a TCP address.
    Tcp(TcpListener),
    /// On a Unix socket, whose file is removed at the end.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Binds a TCP address. Errors as the system does (address in use, not permitted …).
    pub fn tcp(addr: SocketAddr) -> io::Result<Listener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(Listener::Tcp(TcpListener::from_std(socket.into())))
    }

    /// Binds a Unix socket. A file that a dead process left is replaced; one that answers is not.
    pub fn unix(path: &Path, mode: u32) -> io::Result<Listener> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        if is_socket(path) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        Ok(Listener::Unix(listener, path.to_owned()))
    }

    /// The TCP address that was bound (with the port that the system chose, if 0 was asked for).
    pub fn addr(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(l) => l.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }

    fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(l) => l.accept().map(|(s, _)| Stream::tcp(s)),
            Listener::Unix(l, _) => l.accept().map(|(s, _)| Stream::Unix(s)),
        }
    }

    fn register(&mut self, poll: &Poll, token: Token) -> io::Result<()> {
        match self {
            Listener::Tcp(l) => poll.registry().register(l, token, Interest::READABLE),
            Listener::Unix(l, _) => poll.registry().register(l, token, Interest::READABLE),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

/// For whom a listener accepts clients.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    /// The service.
    pub service: ServiceId,
    /// Whether its clients' writes are durable.
    pub durable: bool,
}

enum Message {
    Open(Door, u64, Listener),
    Assign(u64, Door),
    Close(u64),
    Stop,
}

/// The accepting thread, from outside.
pub struct Acceptor {
    sender: Sender<Message>,
    waker: Waker,
}

impl Acceptor {
    /// Starts the thread, without listeners.
    pub fn start(workers: Arc<Workers>) -> io::Result<Acceptor> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (sender, mailbox) = channel();
        std::thread::Builder::new().name("accept".into()).spawn(move || run(poll, &mailbox, &workers))?;
        Ok(Acceptor { sender, waker })
    }

    /// Accepts clients on a listener; `id` is what [`Acceptor::close`] names it by.
    pub fn open(&self, door: Door, id: u64, listener: Listener) {
        self.send(Message::Open(door, id, listener));
    }

    /// From now on a listener accepts clients for `door`.
    pub fn assign(&self, id: u64, door: Door) {
        self.send(Message::Assign(id, door));
    }

    /// Closes a listener.
    pub fn close(&self, id: u64) {
        self.send(Message::Close(id));
    }

    /// Closes all listeners, and ends the thread.
    pub fn stop(&self) {
        self.send(Message::Stop);
    }

    fn send(&self, message: Message) {
        if self.sender.send(message).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

struct Open {
    door: Door,
    id: u64,
    listener: Listener,
}

fn run(mut poll: Poll, mailbox: &Receiver<Message>, workers: &Workers) {
    let mut events = Events::with_capacity(64);
    let mut open: Slab<Open> = Slab::new();
    // Listeners with connections that could not be accepted for want of file descriptors.
    let mut behind: Vec<usize> = Vec::new();
    loop {
        let patience = (!behind.is_empty()).then_some(OUT_OF_FILES);
        if let Err(e) = poll.poll(&mut events, patience)
            && e.kind() != io::ErrorKind::Interrupted
        {
            tracing::error!(error = %e, "no more clients can be accepted");
            return;
        }
        while let Ok(message) = mailbox.try_recv() {
            match message {
                Message::Stop => return,
                Message::Assign(id, door) => {
                    open.iter_mut().filter(|(_, o)| o.id == id).for_each(|(_, o)| o.door = door);
                }
                Message::Close(id) => open.retain(|_, o| o.id != id),
                Message::Open(door, id, mut listener) => {
                    let entry = open.vacant_entry();
                    match listener.register(&poll, Token(entry.key())) {
                        Ok(()) => drop(entry.insert(Open { door, id, listener })),
                        Err(error) => tracing::error!(%error, "a listener cannot be watched"),
                    }
                }
            }
        }
        let mut ready: Vec<usize> =
            events.iter().map(|e| e.token()).filter(|t| *t != WAKER).map(|t| t.0).collect();
        ready.append(&mut behind);
        for i in ready {
            let Some(o) = open.get(i) else { continue };
            if !accept_all(o, workers) {
                behind.push(i);
            }
        }
    }
}

/// Accepts what waits; `false` if some must wait longer.
fn accept_all(o: &Open, workers: &Workers) -> bool {
    loop {
        match o.listener.accept() {
            Ok(stream) => workers.accepted(o.door, stream),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
            // The connection was gone before it was accepted.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                tracing::warn!(%error, "a client cannot be accepted for now (raise the limit of open files?)");
                return false;
            }
        }
    }
}
