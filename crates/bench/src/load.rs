//! The load generator: a closed loop of many connections on one thread.
//!
//! Each client sends a batch of `depth` requests, waits for all of its replies, and sends the next. Every byte of every
//! reply is compared with what it must be, so a misrouted, shifted or altered reply fails the run. Requests and their
//! replies are laid out beforehand, one after the other and all of one length; then sending is one write, checking is
//! one comparison, and counting is one division, and the generator takes little from those that it measures.
//! `redis-benchmark` does not look at its replies.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as BlockingStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// A peer that stays silent for this long has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Larger than any reply of a batch that is asked for with depth 1, so that most replies take one read.
const READ_BYTES: usize = 64 * 1024;
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Set when the run shall end early (a signal came).
pub(crate) type Stop = Arc<AtomicBool>;

/// How a load ended when it did not go well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("client {client} of {clients} could not connect: {source}")]
    Connect { client: usize, clients: usize, source: io::Error },
    #[error("client {client} lost its connection: {source}")]
    Broken { client: usize, source: io::Error },
    #[error("the peer closed the connection of client {client}")]
    Closed { client: usize },
    #[error("client {client} got a wrong reply: \"{got}\" instead of \"{wanted}\"")]
    WrongReply { client: usize, got: String, wanted: String },
    #[error("{silent} of {clients} clients got no reply within {} s", PATIENCE.as_secs())]
    Silent { silent: usize, clients: usize },
    #[error("no client got a reply")]
    NoReply,
    #[error("polling the sockets failed: {0}")]
    Poll(io::Error),
    #[error("interrupted")]
    Interrupted,
}

/// Requests and the replies that they must get, in batches of `depth`.
pub(crate) struct Script {
    requests: Vec<u8>,
    replies: Vec<u8>,
    request_bytes: usize,
    reply_bytes: usize,
    depth: usize,
}

impl Script {
    /// `exchanges` are pairs of request and reply: all requests of one length, all replies of one length, and their
    /// number a multiple of `depth`.
    pub(crate) fn new(exchanges: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>, depth: usize) -> Self {
        let mut script =
            Script { requests: Vec::new(), replies: Vec::new(), request_bytes: 0, reply_bytes: 0, depth };
        for (request, reply) in exchanges {
            if script.requests.is_empty() {
                (script.request_bytes, script.reply_bytes) = (request.len(), reply.len());
            }
            assert_eq!((script.request_bytes, script.reply_bytes), (request.len(), reply.len()));
            script.requests.extend(request);
            script.replies.extend(reply);
        }
        assert!(!script.requests.is_empty(), "a script asks for something");
        assert_eq!(script.requests.len() / script.request_bytes % depth, 0, "a script is whole batches");
        script
    }

    fn batches(&self) -> usize {
        self.requests.len() / (self.request_bytes * self.depth)
    }

    fn requests(&self, batch: usize) -> &[u8] {
        slice_of(&self.requests, batch, self.request_bytes * self.depth)
    }

    fn replies(&self, batch: usize) -> &[u8] {
        slice_of(&self.replies, batch, self.reply_bytes * self.depth)
    }
}

fn slice_of(bytes: &[u8], index: usize, len: usize) -> &[u8] {
    &bytes[index * len..(index + 1) * len]
}

/// What was done in a stretch of time.
pub(crate) struct Tally {
    /// Replies that came, all of them right.
    pub(crate) requests: u64,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// Nanoseconds from the sending of a request's batch to the arrival of its reply.
    pub(crate) latencies_ns: Histogram<u64>,
}

impl Tally {
    fn new() -> Self {
        let latencies_ns = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are valid");
        Tally { requests: 0, elapsed: Duration::ZERO, latencies_ns }
    }
}

/// Connected clients, and the script that they follow.
pub(crate) struct Load {
    poll: Poll,
    clients: Vec<Client>,
    script: Script,
    asked: Vec<bool>,
    stop: Stop,
    scratch: Vec<u8>,
    tally: Tally,
    /// Clients that wait for replies.
    waiting: usize,
    /// Whether a client whose batch is done sends another.
    refill: bool,
}

impl Load {
    /// Connects `clients` clients, one after the other.
    pub(crate) fn connect(
        address: SocketAddr,
        clients: usize,
        script: Script,
        stop: Stop,
    ) -> Result<Self, LoadError> {
        let poll = Poll::new().map_err(LoadError::Poll)?;
        let mut load = Load {
            poll,
            clients: Vec::with_capacity(clients),
            asked: vec![false; script.batches()],
            script,
            stop,
            scratch: vec![0; READ_BYTES],
            tally: Tally::new(),
            waiting: 0,
            refill: false,
        };
        for client in 0..clients {
            load.check_stop()?;
            let stream = load.open(address, Token(client)).map_err(|source| LoadError::Connect {
                client,
                clients,
                source,
            })?;
            // Spread over the script, so that neighbours await different replies.
            let batch = client * load.script.batches() / clients;
            load.clients.push(Client { stream, batch, sent: 0, received: 0, since: None });
        }
        Ok(load)
    }

    fn open(&self, address: SocketAddr, token: Token) -> io::Result<TcpStream> {
        let stream = BlockingStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        // Thousands of connections in TIME_WAIT would use up the ports of the runs that follow.
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }

    /// Keeps every client busy for `time`, and says what was done in it. Batches stay in flight at its end, so that the
    /// next call goes on without a pause.
    pub(crate) fn drive(&mut self, time: Duration) -> Result<Tally, LoadError> {
        self.refill = true;
        self.tally = Tally::new();
        let begin = Instant::now();
        self.start_all()?;
        self.turn_until(begin + time, |_| false)?;
        let mut tally = std::mem::replace(&mut self.tally, Tally::new());
        tally.elapsed = begin.elapsed();
        if tally.requests == 0 {
            return Err(LoadError::NoReply);
        }
        Ok(tally)
    }

    /// Sends nothing more, and waits for the replies that are owed.
    pub(crate) fn finish(&mut self) -> Result<(), LoadError> {
        self.refill = false;
        self.turn_until(Instant::now() + PATIENCE, |load| load.waiting == 0)?;
        match self.waiting {
            0 => Ok(()),
            silent => Err(LoadError::Silent { silent, clients: self.clients.len() }),
        }
    }

    /// Every client sends one batch and gets its replies.
    pub(crate) fn ask_once(&mut self) -> Result<(), LoadError> {
        self.refill = false;
        self.start_all()?;
        self.finish()
    }

    /// For each batch of the script, whether any client asked it.
    pub(crate) fn asked(&self) -> &[bool] {
        &self.asked
    }

    fn start_all(&mut self) -> Result<(), LoadError> {
        for index in 0..self.clients.len() {
            if self.clients[index].since.is_none() {
                self.begin_batch(index, Instant::now())?;
            }
        }
        Ok(())
    }

    fn turn_until(&mut self, deadline: Instant, done: impl Fn(&Self) -> bool) -> Result<(), LoadError> {
        let mut events = Events::with_capacity(1024);
        while !done(self) {
            self.check_stop()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match self.poll.poll(&mut events, Some(left)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled.map_err(LoadError::Poll)?,
            }
            for event in &events {
                self.serve(event.token().0)?;
            }
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), LoadError> {
        if self.stop.load(Ordering::Relaxed) { Err(LoadError::Interrupted) } else { Ok(()) }
    }

    fn begin_batch(&mut self, index: usize, now: Instant) -> Result<(), LoadError> {
        let client = &mut self.clients[index];
        client.batch = (client.batch + 1) % self.asked.len();
        (client.sent, client.received, client.since) = (0, 0, Some(now));
        self.asked[client.batch] = true;
        self.waiting += 1;
        client.flush(&self.script).map_err(|source| LoadError::Broken { client: index, source })
    }

    /// Writes what is left to write and reads until the socket is drained, as edge-triggered polling demands.
    fn serve(&mut self, index: usize) -> Result<(), LoadError> {
        let broken = |source| LoadError::Broken { client: index, source };
        self.clients[index].flush(&self.script).map_err(broken)?;
        loop {
            let read = match self.clients[index].stream.read(&mut self.scratch) {
                Ok(0) => return Err(LoadError::Closed { client: index }),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(error)),
            };
            self.settle(index, read)?;
            if read < self.scratch.len() {
                return Ok(());
            }
        }
    }

    /// Checks and counts `read` bytes of replies, and sends the next batch when this one is done.
    fn settle(&mut self, index: usize, read: usize) -> Result<(), LoadError> {
        let (client, script) = (&mut self.clients[index], &self.script);
        let got = &self.scratch[..read];
        let (since, owed) = match client.since {
            Some(since) => (since, &script.replies(client.batch)[client.received..]),
            None => return Err(wrong_reply(index, got, b"")),
        };
        if !owed.starts_with(got) {
            return Err(wrong_reply(index, got, owed));
        }
        let before = client.received / script.reply_bytes;
        client.received += read;
        let replies = (client.received / script.reply_bytes - before) as u64;
        let done = got.len() == owed.len();
        if replies == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let latency_ns = now.duration_since(since).as_nanos().min(u128::from(LATENCY_NS_MAX)) as u64;
        self.tally.requests += replies;
        self.tally.latencies_ns.record_n(latency_ns, replies).expect("the latency is within the bounds");
        if done {
            self.clients[index].since = None;
            self.waiting -= 1;
            if self.refill {
                return self.begin_batch(index, now);
            }
        }
        Ok(())
    }
}

/// Shows both sides from shortly before the first byte that differs.
fn wrong_reply(client: usize, got: &[u8], wanted: &[u8]) -> LoadError {
    let same = got.iter().zip(wanted).take_while(|(got, wanted)| got == wanted).count();
    let show = |bytes: &[u8]| {
        let from = same.saturating_sub(8).min(bytes.len());
        bytes[from..].iter().take(80).copied().flat_map(std::ascii::escape_default).map(char::from).collect()
    };
    LoadError::WrongReply { client, got: show(got), wanted: show(wanted) }
}

struct Client {
    stream: TcpStream,
    batch: usize,
    /// Bytes of the batch's requests that are written.
    sent: usize,
    /// Bytes of the batch's replies that came.
    received: usize,
    /// When the batch was sent; none when nothing is owed.
    since: Option<Instant>,
}

impl Client {
    fn flush(&mut self, script: &Script) -> io::Result<()> {
        let requests = script.requests(self.batch);
        while self.since.is_some() && self.sent < requests.len() {
            match self.stream.write(&requests[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::peers::Redis;
    use crate::programs;

    const SHORT: Duration = Duration::from_millis(50);

    fn redis() -> (tempfile::TempDir, Redis) {
        let folder = tempfile::tempdir().unwrap();
        let program = programs::find(&["redis-server", "valkey-server"]).expect("redis-server is installed");
        let redis = Redis::start(&program, folder.path()).unwrap();
        (folder, redis)
    }

    fn echoes(count: usize, depth: usize) -> Script {
        Script::new(
            (0..count)
                .map(|i| (format!("ECHO {i:04}\r\n").into_bytes(), format!("$4\r\n{i:04}\r\n").into_bytes())),
            depth,
        )
    }

    /// A peer that sends `answer` to whatever arrives first, and then keeps the connection until the client leaves.
    fn answers_once(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut scratch = [0; 1024];
            let _ = stream.read(&mut scratch);
            let _ = stream.write_all(answer);
            while matches!(stream.read(&mut scratch), Ok(1..)) {}
        });
        address
    }

    fn against(address: SocketAddr, script: Script) -> Result<(), LoadError> {
        let mut load = Load::connect(address, 1, script, Stop::default())?;
        load.drive(SHORT)?;
        load.finish()
    }

    #[test]
    fn every_reply_of_a_real_server_is_counted_and_right() {
        let (_folder, redis) = redis();
        for (clients, depth) in [(1, 1), (20, 1), (7, 16)] {
            let mut load =
                Load::connect(redis.address(), clients, echoes(64, depth), Stop::default()).unwrap();
            let tally = load.drive(SHORT).unwrap();
            load.finish().unwrap();
            assert!(tally.requests >= clients as u64);
            assert_eq!(tally.requests, tally.latencies_ns.len());
            assert!(tally.elapsed >= SHORT);
            assert!(load.asked().contains(&true));
        }
    }

    #[test]
    fn values_larger_than_the_buffers_of_a_socket_come_through() {
        let (_folder, redis) = redis();
        let value = "v".repeat(8 * 1024 * 1024);
        let request = format!("*2\r\n$4\r\nECHO\r\n${}\r\n{value}\r\n", value.len()).into_bytes();
        let reply = format!("${}\r\n{value}\r\n", value.len()).into_bytes();
        let mut load =
            Load::connect(redis.address(), 2, Script::new([(request, reply)], 1), Stop::default()).unwrap();
        load.ask_once().unwrap();
        assert_eq!(load.tally.requests, 2);
    }

    #[test]
    fn asking_once_asks_each_client_exactly_once() {
        let (_folder, redis) = redis();
        let mut load = Load::connect(redis.address(), 30, echoes(4, 1), Stop::default()).unwrap();
        load.ask_once().unwrap();
        assert_eq!(load.tally.requests, 30);
    }

    #[test]
    fn a_reply_that_belongs_to_another_request_is_an_error() {
        let failure = against(answers_once(b"$4\r\n0000\r\n"), echoes(2, 1)).unwrap_err();
        assert!(
            matches!(&failure, LoadError::WrongReply { wanted, .. } if wanted.contains("0001")),
            "{failure}"
        );
    }

    #[test]
    fn an_error_reply_is_shown() {
        let failure = against(answers_once(b"-MASTERDOWN no master\r\n"), echoes(2, 1)).unwrap_err();
        assert!(failure.to_string().contains("-MASTERDOWN no master"), "{failure}");
    }

    #[test]
    fn a_reply_too_many_is_an_error() {
        let failure = against(answers_once(b"$4\r\n0001\r\n$4\r\n0000\r\n"), echoes(2, 1)).unwrap_err();
        assert!(matches!(failure, LoadError::WrongReply { .. }), "{failure}");
    }

    #[test]
    fn a_peer_that_closes_is_an_error_not_a_hang() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || drop(listener.accept()));
        let failure = against(address, echoes(2, 1)).unwrap_err();
        assert!(matches!(failure, LoadError::Closed { .. } | LoadError::Broken { .. }), "{failure}");
    }

    #[test]
    fn a_peer_that_never_answers_is_an_error_not_a_hang() {
        let failure = against(answers_once(b""), echoes(2, 1)).unwrap_err();
        assert!(matches!(failure, LoadError::NoReply), "{failure}");
        let mut load = Load::connect(answers_once(b"$4\r\n00"), 1, echoes(2, 1), Stop::default()).unwrap();
        assert!(matches!(load.ask_once(), Err(LoadError::Silent { silent: 1, clients: 1 })));
    }

    #[test]
    fn a_stop_ends_a_load_at_once() {
        let (_folder, redis) = redis();
        let stop = Stop::default();
        let mut load = Load::connect(redis.address(), 1, echoes(2, 1), stop.clone()).unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(load.drive(PATIENCE), Err(LoadError::Interrupted)));
    }
}
