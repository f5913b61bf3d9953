//! Free ports on loopback, for servers that are started later.
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Below the range from which systems take the local ports of outgoing connections (Linux: 32768, BSD: 49152). A port
/// of that range could be taken by a connection while its server is down; a connection to it could even meet itself.
const PORTS: std::ops::Range<u64> = 11_000..32_000;
/// With this many tries in vain something else is wrong.
const TRIES_MAX: usize = 2_000;

/// `count` different ports on which nobody listens now. Somebody may before we do: whoever starts a server on one must
/// be ready to try others.
pub(super) fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let random = RandomState::new();
    let candidates = (0..TRIES_MAX).map(|i| PORTS.start + random.hash_one(i) % (PORTS.end - PORTS.start));
    let mut seen = BTreeSet::new();
    let free = |port: &u16| seen.insert(*port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let found: Vec<u16> = candidates.map(|port| port as u16).filter(free).take(count).collect();
    if found.len() == count {
        return Ok(found);
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no {count} free ports on 127.0.0.1")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_different_and_free() {
        let ports = free_ports(8).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 8);
        let held: Vec<_> = ports.iter().map(|&p| TcpListener::bind((Ipv4Addr::LOCALHOST, p))).collect();
        assert!(held.iter().all(Result::is_ok));
    }

    #[test]
    fn more_than_there_are_is_an_error() {
        assert_eq!(free_ports(60_000).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
