//! Byte streams: TCP and Unix sockets, with one face.
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use pointsman_core::session::Ends;
use pointsman_core::topology::snapshot::Endpoint;
use pointsman_core::worker::How;
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

/// A peer that is gone without a word is noticed after about this long.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A non-blocking stream.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Begins to connect; the stream is writable once it is decided.
    pub fn connect(to: &Endpoint) -> io::Result<Stream> {
        Ok(match to {
            Endpoint::Tcp(addr) => Stream::tcp(TcpStream::connect(*addr)?),
            Endpoint::Unix(path) => Stream::Unix(UnixStream::connect(&**path)?),
        })
    }

    /// A stream that was accepted.
    pub fn tcp(stream: TcpStream) -> Stream {
        // Neither option is worth losing a connection for.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        Stream::Tcp(stream)
    }

    /// Both ends of a stream that was accepted, as far as the system tells.
    pub fn ends(&self) -> Ends {
        let at = |a: SocketAddr| (a.ip(), a.port());
        match self {
            Stream::Tcp(s) => match (s.peer_addr(), s.local_addr()) {
                (Ok(peer), Ok(local)) => Ends::Tcp { peer: at(peer), local: at(local) },
                _ => Ends::Unknown,
            },
            Stream::Unix(s) => {
                let path = s.local_addr().ok().and_then(|a| Some(a.as_pathname()?.to_string_lossy().into()));
                path.map_or(Ends::Unknown, Ends::Unix)
            }
        }
    }

    /// Whether a connection that was begun is made: `Ok(false)` while it is not decided.
    pub fn is_connected(&self) -> io::Result<bool> {
        let (error, peer) = match self {
            Stream::Tcp(s) => (s.take_error()?, s.peer_addr().map(|_| ())),
            Stream::Unix(s) => (s.take_error()?, s.peer_addr().map(|_| ())),
        };
        match (error, peer) {
            (Some(e), _) => Err(e),
            (None, Ok(())) => Ok(true),
            (None, Err(e)) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
            (None, Err(e)) => Err(e),
        }
    }

    /// Whether all that was written has reached the other side, as far as its kernel has said so.
    pub fn has_delivered(&self) -> bool {
        let unacknowledged = match self {
            Stream::Tcp(s) => kernel::unacknowledged(s),
            Stream::Unix(s) => kernel::unacknowledged(s),
        };
        matches!(unacknowledged, Ok(0))
    }

    /// Tells the other side that nothing more is written.
    pub fn finish(&self) {
        // If it fails the connection has, which is seen when it is read.
        let _ = match self {
            Stream::Tcp(s) => s.shutdown(Shutdown::Write),
            Stream::Unix(s) => s.shutdown(Shutdown::Write),
        };
    }

    /// Closes the stream as the machine wants it.
    pub fn close(self, how: How) {
        if how == How::Abort
            && let Stream::Tcp(s) = &self
        {
            // With a linger of zero the kernel throws away what is queued, and resets the connection.
            let _ = SockRef::from(s).set_linger(Some(Duration::ZERO));
        }
    }

    /// Registers both interests, once for as long as one event loop has the stream.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Tcp(s) => s.register(registry, token, both),
            Stream::Unix(s) => s.register(registry, token, both),
        }
    }

    /// Undoes [`Stream::register`], so that another event loop can have the stream.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => s.deregister(registry),
            Stream::Unix(s) => s.deregister(registry),
        }
    }
}

/// What no crate that we use asks of the kernel.
#[allow(unsafe_code, reason = "a system call")]
mod kernel {
    use std::io;
    use std::os::fd::AsFd;

    /// `SIOCOUTQ` of tcp(7): bytes that were written and not acknowledged (for a Unix socket: not read). The number of this
    /// call differs between a few architectures.
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(super) fn unacknowledged(socket: impl AsFd) -> io::Result<i32> {
        use rustix::ioctl::{Getter, Opcode, ioctl};
        const SIOCOUTQ: Opcode = 0x5411;
        // SAFETY: this call writes one C int, which is an `i32` here, and takes nothing else.
        Ok(unsafe { ioctl(socket, Getter::<SIOCOUTQ, i32>::new()) }?)
    }

    /// Nobody tells.
    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    pub(super) fn unacknowledged(_: impl AsFd) -> io::Result<i32> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.read(buf),
            Stream::Unix(s) => s.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.write(buf),
            Stream::Unix(s) => s.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
