//! A blocking RESP2 client: just enough to set up, watch and load a sandbox, and to probe. Not the proxy's framing, on purpose:
//! what checks the proxy should not share its code.
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The largest reply element that is read; more is an error, so that a confused server cannot make us allocate it.
const ELEMENT_BYTES_MAX: usize = 64 << 20;
/// The most elements that an array may announce.
const ARRAY_LEN_MAX: usize = 1 << 20;
/// Deeper replies than this are refused; that to `COMMAND DOCS` is the deepest of a server.
const DEPTH_MAX: usize = 32;

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `+OK`
    Simple(String),
    /// `-ERR …`, without the dash: an answer, not a failure of the connection.
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3 …`
    Bulk(Vec<u8>),
    /// `*2 …`
    Array(Vec<Value>),
    /// `$-1` and `*-1`
    Nil,
}

impl Value {
    /// The text of a simple or bulk string; what is not UTF-8 is replaced.
    pub fn text(&self) -> Option<String> {
        match self {
            Value::Simple(s) => Some(s.clone()),
            Value::Bulk(b) => Some(String::from_utf8_lossy(b).into_owned()),
            _ => None,
        }
    }

    /// The elements of an array; of anything else none.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) => items,
            _ => &[],
        }
    }

    /// The value of `name` in an array of alternating names and values, as the Sentinels answer.
    pub fn field(&self, name: &str) -> Option<String> {
        let pair = self.items().chunks_exact(2).find(|pair| pair[0].text().as_deref() == Some(name))?;
        pair[1].text()
    }
}

/// A connection. After an error of its own (not a [`Value::Error`]) it is of no more use.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects within `timeout`, which is also how long each later read or write may take.
    pub fn connect(addr: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends one command and reads its reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Value> {
        self.send(args)?;
        self.read()
    }

    /// Like [`Client::call`], but an error reply is an error of kind `Other` with the server's words.
    pub fn ask<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Value> {
        match self.call(args)? {
            Value::Error(text) => Err(io::Error::other(text)),
            value => Ok(value),
        }
    }

    /// Sends one command; its reply is owed until [`Client::read`].
    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<()> {
        let mut out = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            let arg = arg.as_ref();
            out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            out.extend_from_slice(arg);
            out.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&out)
    }

    /// Waits up to `timeout` for the beginning of a reply; false if none came. `UnexpectedEof` if the peer closed.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        let usual = self.stream.get_ref().read_timeout()?;
        self.stream.get_ref().set_read_timeout(Some(timeout))?;
        let filled = self.stream.fill_buf().map(|bytes| !bytes.is_empty());
        self.stream.get_ref().set_read_timeout(usual)?;
        match filled {
            Ok(true) => Ok(true),
            Ok(false) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(e) if is_timeout(&e) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Reads one reply.
    pub fn read(&mut self) -> io::Result<Value> {
        self.read_nested(DEPTH_MAX)
    }

    fn read_nested(&mut self, depth: usize) -> io::Result<Value> {
        let line = self.read_line()?;
        let (&kind, rest) = line.as_bytes().split_first().ok_or_else(|| malformed("an empty line"))?;
        let rest = std::str::from_utf8(rest).map_err(|_| malformed("a line that is not UTF-8"))?;
        match kind {
            b'+' => Ok(Value::Simple(rest.to_owned())),
            b'-' => Ok(Value::Error(rest.to_owned())),
            b':' => rest.parse().map(Value::Integer).map_err(|_| malformed(&line)),
            b'$' | b'*' if rest == "-1" => Ok(Value::Nil),
            b'$' => self.read_bulk(rest.parse().map_err(|_| malformed(&line))?),
            b'*' if depth == 0 => Err(malformed("too deep")),
            b'*' => {
                let len: usize = rest.parse().map_err(|_| malformed(&line))?;
                if len > ARRAY_LEN_MAX {
                    return Err(malformed("an array that is too long"));
                }
                (0..len).map(|_| self.read_nested(depth - 1)).collect::<io::Result<_>>().map(Value::Array)
            }
            _ => Err(malformed(&line)),
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let n = (&mut self.stream).take(ELEMENT_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.strip_suffix(b"\r\n").ok_or_else(|| malformed("a line without an end"))?;
        Ok(String::from_utf8_lossy(line).into_owned())
    }

    fn read_bulk(&mut self, len: usize) -> io::Result<Value> {
        if len > ELEMENT_BYTES_MAX {
            return Err(malformed("a bulk string that is too long"));
        }
        let mut bytes = vec![0; len + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(len);
        Ok(Value::Bulk(bytes))
    }
}

/// Whether a socket's time ran out (which of the two kinds is said depends on the system).
pub fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a RESP2 reply: {what:.80}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A client whose server says `bytes` and closes.
    fn told(bytes: &[u8]) -> Client {
        let bytes = bytes.to_vec();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || listener.accept().unwrap().0.write_all(&bytes).unwrap());
        Client::connect(addr, Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn reads_each_kind_of_reply() {
        let mut client = told(b"+OK\r\n-ERR no\r\n:-7\r\n$-1\r\n*2\r\n$4\r\na\r\nb\r\n*0\r\n");
        assert_eq!(client.read().unwrap(), Value::Simple("OK".into()));
        assert_eq!(client.read().unwrap(), Value::Error("ERR no".into()));
        assert_eq!(client.read().unwrap(), Value::Integer(-7));
        assert_eq!(client.read().unwrap(), Value::Nil);
        assert_eq!(
            client.read().unwrap(),
            Value::Array(vec![Value::Bulk(b"a\r\nb".to_vec()), Value::Array(vec![])])
        );
        assert_eq!(client.read().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn refuses_what_is_not_resp_or_too_large() {
        let deep = b"*1\r\n".repeat(DEPTH_MAX + 1);
        for bytes in [&b"hello\r\n"[..], b"$999999999999\r\n", b"*99999999\r\n", b"+cut", &deep] {
            assert_eq!(told(bytes).read().unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }

    #[test]
    fn waiting_for_a_reply_ends_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = Client::connect(listener.local_addr().unwrap(), Duration::from_secs(5)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert!(!client.wait(Duration::from_millis(20)).unwrap());
        server.write_all(b"+OK\r\n").unwrap();
        assert!(client.wait(Duration::from_secs(5)).unwrap());
        assert_eq!(client.read().unwrap(), Value::Simple("OK".into()));
        drop(server);
        assert_eq!(client.wait(Duration::from_secs(5)).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
