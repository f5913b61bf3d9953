//! Addresses as they are written: of listeners, and of the nodes and Sentinels to go to.
use crate::error::quoted;
use pointsman_core::topology::settings::HostPort;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// An address on which a service accepts clients. Written `0.0.0.0:6379`, `[::]:6379` or `unix:/run/cache.sock`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Listen {
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Where; absolute.
        path: PathBuf,
        /// Its permissions, such as 0o660.
        mode: u32,
    },
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => address.fmt(f),
            Listen::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listen {
    /// Whether the two cannot both be bound.
    pub(crate) fn collides(&self, other: &Listen) -> bool {
        match (self, other) {
            (Listen::Unix { path: a, .. }, Listen::Unix { path: b, .. }) => a == b,
            (Listen::Tcp(a), Listen::Tcp(b)) => {
                let wild = a.ip().is_unspecified() || b.ip().is_unspecified();
                let same_ip = a.ip() == b.ip() || (wild && a.is_ipv4() == b.is_ipv4());
                same_ip && a.port() == b.port() && a.port() != 0
            }
            _ => false,
        }
    }

    /// Whether only processes of this host can connect.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Listen::Tcp(address) => address.ip().is_loopback(),
            Listen::Unix { .. } => true,
        }
    }
}

/// What is wrong with an address, and what would be right.
pub(crate) type Wrong = (String, String);

/// Longest path of a Unix socket in bytes: `sun_path` less its final NUL (unix(7); macOS has 4 bytes less).
const UNIX_PATH_MAX: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Reads a listener; `mode` is what a Unix socket gets.
pub(crate) fn parse_listen(text: &str, mode: u32) -> Result<Listen, Wrong> {
    let Some(path) = text.strip_prefix("unix:") else {
        return parse_bind(text).map(Listen::Tcp);
    };
    let wrong = |why: String| {
        (
            format!("{} {why}", quoted(text)),
            "write an absolute path: \"unix:/run/pointsman/cache.sock\"".into(),
        )
    };
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(wrong("is not the absolute path of a socket".into()));
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(wrong(format!("is longer than the {UNIX_PATH_MAX} bytes that a socket's path may have")));
    }
    if path.contains('\0') {
        return Err(wrong("holds a NUL".into()));
    }
    Ok(Listen::Unix { path: path.into(), mode })
}

/// Reads an IP address and a port to bind.
pub(crate) fn parse_bind(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        let problem = format!("{} is not an IP address and a port", quoted(text));
        if text.starts_with('/') {
            return (problem, format!("for a Unix socket write \"unix:{text}\""));
        }
        let port = text.rsplit(':').next().filter(|p| p.parse::<u16>().is_ok()).unwrap_or("6379");
        let meant = match text.strip_suffix(&format!(":{port}")) {
            _ if text.parse::<Ipv6Addr>().is_ok() => format!("\"[{text}]:6379\""),
            Some("" | "*") => format!("\"0.0.0.0:{port}\" for every address of this host"),
            Some("localhost") => format!("\"127.0.0.1:{port}\""),
            _ => format!(
                "one of this host's addresses, such as \"127.0.0.1:{port}\", or \"0.0.0.0:{port}\" for all"
            ),
        };
        (problem, format!("write {meant}"))
    })
}

/// Reads the address of a node or a Sentinel; `port` is the usual one, for the advice.
pub(crate) fn parse_host_port(text: &str, port: u16) -> Result<HostPort, Wrong> {
    let wrong = |why: &str, meant: &str| (format!("{} {why}", quoted(text)), format!("write \"{meant}\""));
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(wrong("is an IPv6 address without brackets and a port", &format!("[{text}]:{port}")));
    }
    let Some((host, written_port)) = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()) else {
        let host = text.trim_end_matches(':').trim_start_matches(':');
        let host = if host.is_empty() || host.parse::<u16>().is_ok() { "10.0.0.1" } else { host };
        return Err(wrong("is not a host and a port", &format!("{host}:{port}")));
    };
    let written_port = written_port.parse::<u16>().ok().filter(|p| *p > 0);
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let is_host = match bare {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    match written_port {
        _ if !is_host => {
            Err(wrong("has no valid host", &format!("10.0.0.1:{}", written_port.unwrap_or(port))))
        }
        None => Err(wrong("has no port from 1 to 65535", &format!("{host}:{port}"))),
        Some(port) => Ok(HostPort { host: bare.unwrap_or(host).into(), port }),
    }
}

/// RFC 1123 2.1, and underscores, which Docker's and Kubernetes' names have. Holds for IPv4 addresses as well.
fn is_host_name(host: &str) -> bool {
    let label = |l: &str| (1..=63).contains(&l.len()) && !l.starts_with('-') && !l.ends_with('-');
    let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let named = host.strip_suffix('.').unwrap_or(host);
    // What has only digits and dots was meant as an IPv4 address.
    let numeric = named.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    host.len() <= 253
        && host.bytes().all(letters)
        && named.split('.').all(label)
        && (!numeric || host.parse::<std::net::Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> Listen {
        parse_listen(text, 0o660).expect(text)
    }

    #[test]
    fn listeners_show_as_they_are_written() {
        for text in ["0.0.0.0:6379", "[::]:6379", "unix:/run/cache.sock"] {
            assert_eq!(listen(text).to_string(), text);
        }
    }

    #[test]
    fn a_wrong_listener_gets_the_right_one_as_advice() {
        for (text, remedy) in [
            (":6379", "write \"0.0.0.0:6379\" for every address of this host"),
            ("*:6380", "write \"0.0.0.0:6380\" for every address of this host"),
            ("localhost:6379", "write \"127.0.0.1:6379\""),
            ("::1", "write \"[::1]:6379\""),
            ("/run/x.sock", "for a Unix socket write \"unix:/run/x.sock\""),
            ("unix:x.sock", "write an absolute path: \"unix:/run/pointsman/cache.sock\""),
        ] {
            assert_eq!(parse_listen(text, 0).expect_err(text).1, remedy, "{text}");
        }
        assert!(parse_listen(&format!("unix:/{}", "x".repeat(107)), 0).is_err());
        assert!(parse_listen("unix:/a\0b", 0).is_err());
    }

    #[test]
    fn listeners_that_cannot_both_be_bound_collide() {
        assert!(listen("0.0.0.0:1").collides(&listen("127.0.0.1:1")));
        assert!(listen("unix:/a").collides(&listen("unix:/a")));
        assert!(!listen("10.0.0.1:1").collides(&listen("127.0.0.1:1")));
        assert!(!listen("[::]:1").collides(&listen("127.0.0.1:1")));
        assert!(!listen("127.0.0.1:0").collides(&listen("127.0.0.1:0")));
        assert!(!listen("127.0.0.1:1").collides(&listen("127.0.0.1:2")));
    }

    #[test]
    fn nodes_are_an_address_or_a_name_and_a_port() {
        for text in [
            "10.0.0.1:6379",
            "redis-0.redis.svc.cluster.local:26379",
            "[2001:db8::1]:1",
            "my_redis:2",
            "a.:3",
        ] {
            assert_eq!(parse_host_port(text, 6379).expect(text).to_string(), text);
        }
    }

    #[test]
    fn a_wrong_node_gets_the_right_one_as_advice() {
        for (text, remedy) in [
            ("10.0.0.1", "write \"10.0.0.1:6379\""),
            ("2001:db8::1", "write \"[2001:db8::1]:6379\""),
            ("redis:", "write \"redis:6379\""),
            ("redis:0", "write \"redis:6379\""),
            ("redis:65536", "write \"redis:6379\""),
            (":6380", "write \"10.0.0.1:6379\""),
            ("10.0.0.256:6380", "write \"10.0.0.1:6380\""),
            ("redis://h:6380", "write \"10.0.0.1:6380\""),
            ("-a:6380", "write \"10.0.0.1:6380\""),
            ("[10.0.0.1]:6380", "write \"10.0.0.1:6380\""),
            ("", "write \"10.0.0.1:6379\""),
        ] {
            assert_eq!(parse_host_port(text, 6379).expect_err(text).1, remedy, "{text}");
        }
    }
}
