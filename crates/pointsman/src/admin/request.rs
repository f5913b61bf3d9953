//! One HTTP request to the admin listener of a running process. Small on purpose: the other side is our own server, that
//! answers one request a connection.
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest answer in bytes.
const ANSWER_MAX: u64 = 32 << 20;
/// In this time a connection must be there.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// In this time the whole answer must be there: longer than the server's longest wait.
const ANSWER_PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 25 });

/// What the server answered.
pub(super) struct Answer {
    /// The status, such as 200.
    pub(super) status: u16,
    /// The text.
    pub(super) body: String,
}

/// Asks `address` with `method` (`GET` or `POST`) for `path`.
///
/// # Errors
/// One line that says what is wrong, and where to look.
pub(super) fn ask(address: SocketAddr, method: &str, path: &str) -> Result<Answer, String> {
    let address = reachable(address);
    let wrong = |e: io::Error| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("{address} does not answer: is that Pointsman?")
        }
        _ => format!("{address} broke off ({e}): is that Pointsman?"),
    };
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_PATIENCE).map_err(|e| {
        format!("nobody answers at {address} ({e}): is Pointsman running, with this `admin` address?")
    })?;
    let until = Instant::now() + ANSWER_PATIENCE;
    stream.set_write_timeout(Some(ANSWER_PATIENCE)).map_err(wrong)?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(wrong)?;
    let bytes = read(&mut stream, until).map_err(wrong)?;
    parse(&bytes).ok_or_else(|| format!("what {address} answered is not understood: is that Pointsman?"))
}

/// Where a listener can be reached that is bound to `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn read(stream: &mut TcpStream, until: Instant) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if bytes.len() as u64 > ANSWER_MAX {
            return Err(io::Error::other(format!("more than {ANSWER_MAX} bytes")));
        }
    }
}

/// An answer that is whole: as long as its `Content-Length` says.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    (length == Some(body.len())).then(|| Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_is_understood() {
        let whole =
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nContent-Length: 4\r\n\r\nwhy\n";
        let answer = parse(whole).expect("an answer");
        assert_eq!((answer.status, &*answer.body), (503, "why\n"));
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_none(), "{cut} bytes");
        }
    }

    #[test]
    fn what_is_not_http_is_not_understood() {
        for other in
            ["+PONG\r\n", "-ERR unknown command 'GET'\r\n\r\n", "HTTP/1.1 \r\n\r\n", "HTTP/1.1 x y\r\n\r\n"]
        {
            assert!(parse(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_over_loopback() {
        let reach = |a: &str| reachable(a.parse().expect("an address")).to_string();
        assert_eq!(reach("0.0.0.0:9400"), "127.0.0.1:9400");
        assert_eq!(reach("[::]:9400"), "[::1]:9400");
        assert_eq!(reach("10.0.0.5:9400"), "10.0.0.5:9400");
    }
}
