//! A connection that knows nothing but where a reply ends. Not the proxy's framing, on purpose.
use super::DEADLINE;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread::JoinHandle;

/// A raw connection.
pub struct Raw {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Raw {
    /// Connects.
    pub fn connect(addr: SocketAddr) -> Raw {
        let stream = TcpStream::connect(addr).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(DEADLINE)).expect("an option");
        stream.set_write_timeout(Some(DEADLINE)).expect("an option");
        Raw { stream, held: Vec::new() }
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes. That the peer has closed meanwhile shows when its replies are read.
    pub fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Err(e) if !matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                panic!("cannot send: {e}")
            }
            _ => {}
        }
    }

    /// Whether the peer has closed it without a farewell.
    pub fn is_reset(&self) -> bool {
        self.stream.take_error().expect("its state").is_some()
    }

    /// Sends bytes while replies are read.
    pub fn send_aside(&self, bytes: Vec<u8>) -> JoinHandle<io::Result<()>> {
        let mut stream = self.stream.try_clone().expect("a handle");
        std::thread::spawn(move || stream.write_all(&bytes))
    }

    /// Sends a command and reads its reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Vec<u8> {
        self.send(&request(args));
        self.reply()
    }

    /// The bytes of the next reply, or push.
    pub fn reply(&mut self) -> Vec<u8> {
        self.next().unwrap_or_else(|e| panic!("no reply: {e}; held: {}", shown(&self.held)))
    }

    /// The bytes of the next reply; an error if the peer closes before its end, or says nothing in time.
    pub fn next(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(len) = frame_len(&self.held) {
                let rest = self.held.split_off(len);
                return Ok(std::mem::replace(&mut self.held, rest));
            }
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Everything until the peer closes; an error if it does not in time.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? {}
        Ok(std::mem::take(&mut self.held))
    }

    /// The next `n` bytes, in pieces as they come, with where each begins.
    pub fn pieces(&mut self, n: usize, mut look: impl FnMut(usize, &[u8])) {
        let mut at = 0;
        while at < n {
            if self.held.is_empty() {
                assert!(self.fill().expect("more in time"), "closed after {at} of {n} bytes");
            }
            let piece = self.held.len().min(n - at);
            look(at, &self.held[..piece]);
            self.held.drain(..piece);
            at += piece;
        }
    }

    /// No more will be sent.
    pub fn shut(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads more; whether there was more.
    fn fill(&mut self) -> io::Result<bool> {
        let begin = self.held.len();
        self.held.resize(begin + (256 << 10), 0);
        let n = match self.stream.read(&mut self.held[begin..]) {
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(0),
            other => other,
        };
        self.held.truncate(begin + *n.as_ref().unwrap_or(&0));
        n.map(|n| n > 0)
    }
}

/// A request as an array of bulk strings.
pub fn request<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.as_ref().len()).as_bytes());
        out.extend_from_slice(arg.as_ref());
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Bytes for a person, the middle of many left out.
pub fn shown(bytes: &[u8]) -> String {
    if bytes.len() <= 2_000 {
        return bytes.escape_ascii().to_string();
    }
    let (head, tail) = (&bytes[..1_000], &bytes[bytes.len() - 500..]);
    format!("{} …({} bytes)… {}", head.escape_ascii(), bytes.len(), tail.escape_ascii())
}

/// Where the reply at the front of `bytes` ends, if it is complete.
pub fn frame_len(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut left) = (0, 1u64);
    while left > 0 {
        let end = at + bytes.get(at..)?.windows(2).position(|w| w == b"\r\n")?;
        let line = &bytes[at + 1..end];
        let n = || -> i64 { std::str::from_utf8(line).expect("text").parse().expect("a length") };
        let (kind, after) = (bytes[at], end + 2);
        left -= 1;
        at = after;
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
            b'$' | b'=' | b'!' => at += usize::try_from(n()).map_or(0, |n| n + 2),
            b'*' | b'~' | b'>' => left += u64::try_from(n()).unwrap_or(0),
            b'%' => left += 2 * u64::try_from(n()).unwrap_or(0),
            // An attribute is no element.
            b'|' => left += 1 + 2 * u64::try_from(n()).unwrap_or(0),
            other => panic!("a reply of type {}: {}", other.escape_ascii(), shown(bytes)),
        }
    }
    (at <= bytes.len()).then_some(at)
}
