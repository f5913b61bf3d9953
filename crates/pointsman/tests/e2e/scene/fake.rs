//! A server that speaks just enough RESP to be taken for a node, and answers what a test makes it answer.
use super::DEADLINE;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// From a command to the bytes of its reply; `None` closes the connection.
type Answer = dyn Fn(&[String]) -> Option<Vec<u8>> + Send + Sync;

/// A running server. It ends with the test's process; its threads only answer.
pub struct Fake {
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Fake {
    /// Starts it.
    pub fn start(answer: impl Fn(&[String]) -> Option<Vec<u8>> + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let answer: Arc<Answer> = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answer = answer.clone();
                thread::spawn(move || serve(stream, &*answer));
            }
        });
        Fake { addr }
    }
}

fn serve(stream: TcpStream, answer: &Answer) -> Option<()> {
    stream.set_write_timeout(Some(DEADLINE)).ok()?;
    let mut out = stream.try_clone().ok()?;
    let mut requests = BufReader::new(stream);
    loop {
        let reply = answer(&request(&mut requests)?)?;
        out.write_all(&reply).ok()?;
    }
}

fn request(from: &mut impl BufRead) -> Option<Vec<String>> {
    let len = header(from, '*')?;
    (0..len).map(|_| argument(from)).collect()
}

fn argument(from: &mut impl BufRead) -> Option<String> {
    let mut bytes = vec![0; header(from, '$')? + 2];
    from.read_exact(&mut bytes).ok()?;
    bytes.truncate(bytes.len() - 2);
    String::from_utf8(bytes).ok()
}

fn header(from: &mut impl BufRead, kind: char) -> Option<usize> {
    let mut line = String::new();
    from.take(64).read_line(&mut line).ok()?;
    line.strip_prefix(kind)?.trim_end().parse().ok()
}
