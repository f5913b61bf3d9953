//! Free ports on loopback, for servers that are started later.
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Below the range from which systems take the local ports of outgoing connections (Linux: 32768, BSD: 49152). A port
/// of that range could be taken by a connection while its server is down; a connection to it could even meet itself.
const PORTS: Range<u16> = 11_000..32_000;
/// A process takes so many for itself at once.
const BLOCK: u16 = 50;

/// What this process has taken. It keeps all of it to its end: the port of a server that is down for a while must not
/// become another's, which would be met where the first one is expected.
static TAKEN: Mutex<Taken> = Mutex::new(Taken { claims: Vec::new(), rest: 0..0 });

struct Taken {
    claims: Vec<claim::Claim>,
    /// Of the last block, those that nobody has asked for yet.
    rest: Range<u16>,
}

impl Taken {
    fn next(&mut self) -> io::Result<u16> {
        loop {
            if let Some(port) = self.rest.next() {
                return Ok(port);
            }
            let blocks = (PORTS.end - PORTS.start) / BLOCK;
            let first = (RandomState::new().hash_one(0) % u64::from(blocks)) as u16;
            let mut free = (0..blocks)
                .map(|i| PORTS.start + (first + i) % blocks * BLOCK)
                .filter_map(|from| Some((from, claim::take(from)?)));
            let (from, claim) = free.next().ok_or_else(|| {
                io::Error::new(io::ErrorKind::AddrInUse, "no free ports on 127.0.0.1 from 11000 to 31999")
            })?;
            self.claims.push(claim);
            self.rest = from..from + BLOCK;
        }
    }
}

/// `count` different ports on which nobody listens now, and which no other process is given that asks here. Somebody else may
/// take one before we do: whoever starts a server on one must be ready to try others.
pub(super) fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Vec::new();
    while found.len() < count {
        let port = taken.next()?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            found.push(port);
        }
    }
    Ok(found)
}

/// What says to other processes that a block is taken: a Unix socket in the abstract namespace, which ends with us.
#[cfg(target_os = "linux")]
mod claim {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    pub(super) type Claim = UnixListener;

    pub(super) fn take(from: u16) -> Option<Claim> {
        let name = SocketAddr::from_abstract_name(format!("pointsman-ports-{from}")).ok()?;
        UnixListener::bind_addr(&name).ok()
    }
}

/// Elsewhere chance and a look have to do.
#[cfg(not(target_os = "linux"))]
mod claim {
    pub(super) type Claim = ();

    pub(super) fn take(_: u16) -> Option<Claim> {
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ports_are_different_and_free_and_never_given_again() {
        let mut ports = free_ports(2 * usize::from(BLOCK)).unwrap();
        ports.extend(free_ports(8).unwrap());
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 2 * usize::from(BLOCK) + 8);
        let held: Vec<_> = ports.iter().map(|&p| TcpListener::bind((Ipv4Addr::LOCALHOST, p))).collect();
        assert!(held.iter().all(Result::is_ok));
    }

    #[test]
    fn a_block_that_is_taken_is_not_taken_again() {
        let from = free_ports(1).unwrap()[0];
        let block = PORTS.start + (from - PORTS.start) / BLOCK * BLOCK;
        assert_eq!(claim::take(block).is_none(), cfg!(target_os = "linux"));
    }
}
