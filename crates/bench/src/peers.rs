//! What is compared: each peer is started fresh on a port of its own, and always stopped again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;

use crate::programs;

const START_TIME_MAX: Duration = Duration::from_secs(15);
/// A question whose answer needs the server, so that a proxy cannot answer it alone (Twemproxy answers PING itself).
const QUESTION: &[u8] = b"*2\r\n$3\r\nGET\r\n$15\r\nbench:no-such-k\r\n";
const ANSWER: &[u8] = b"$-1\r\n";

/// The ways to the server that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    /// No proxy: the control.
    Direct,
    /// HAProxy in TCP mode with one thread: the reference.
    Haproxy,
    /// Twemproxy (nutcracker).
    Twemproxy,
    /// Pointsman with one worker.
    Pointsman,
    /// The same before a master with a replica: what [`Peer::Durable`] is compared with.
    Replicated,
    /// The same with `durable = 1`.
    Durable,
}

impl Peer {
    /// Those that are compared unless others are asked for.
    pub(crate) const USUAL: [Peer; 4] = [Peer::Direct, Peer::Haproxy, Peer::Twemproxy, Peer::Pointsman];

    /// Whether it stands before a master with a replica.
    pub(crate) fn has_replica(self) -> bool {
        matches!(self, Peer::Replicated | Peer::Durable)
    }

    /// Its name in options, tables and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Direct => "direct",
            Peer::Haproxy => "haproxy",
            Peer::Twemproxy => "twemproxy",
            Peer::Pointsman => "pointsman",
            Peer::Replicated => "replicated",
            Peer::Durable => "durable",
        }
    }

    /// The option that makes its program tell its version.
    pub(crate) fn version_flag(self) -> &'static str {
        match self {
            Peer::Haproxy => "-v",
            Peer::Twemproxy => "-V",
            Peer::Direct | Peer::Pointsman | Peer::Replicated | Peer::Durable => "--version",
        }
    }
}

/// A peer that accepts clients.
pub(crate) struct RunningPeer {
    process: Option<Process>,
    address: SocketAddr,
}

impl RunningPeer {
    /// Starts `peer` before the server at `redis`, and waits until it answers. `program` is not needed for
    /// [`Peer::Direct`]; `folder` gets its files.
    pub(crate) fn start(
        peer: Peer,
        program: Option<&Path>,
        redis: SocketAddr,
        folder: &Path,
    ) -> io::Result<Self> {
        let Some(program) = program.filter(|_| peer != Peer::Direct) else {
            return Ok(RunningPeer { process: None, address: redis });
        };
        let address = free_address()?;
        let arguments = arguments(peer, address, redis, folder)?;
        let mut process = Process::spawn(program, &arguments, &folder.join(format!("{}.log", peer.name())))?;
        process.wait_until_it_answers(address)?;
        Ok(RunningPeer { process: Some(process), address })
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process of the proxy; none for the control.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }
}

/// The server behind all peers.
pub(crate) struct Redis {
    process: Process,
    address: SocketAddr,
}

impl Redis {
    /// Starts a server that keeps nothing on disk.
    pub(crate) fn start(program: &Path, folder: &Path) -> io::Result<Self> {
        let address = free_address()?;
        let port = address.port();
        let arguments: Vec<OsString> =
            format!("--port {port} --bind 127.0.0.1 --tcp-backlog 4096 --appendonly no")
                .split(' ')
                .map(OsString::from)
                .chain(["--save".into(), "".into(), "--dir".into(), folder.into()])
                .collect();
        let mut process = Process::spawn(program, &arguments, &folder.join("redis.log"))?;
        process.wait_until_it_answers(address)?;
        Ok(Redis { process, address })
    }

    /// Starts another server as its replica, and waits until it follows.
    pub(crate) fn replica(&self, program: &Path, folder: &Path) -> io::Result<Self> {
        let replica = Redis::start(program, folder)?;
        let port = self.address.port();
        ask(replica.address, &format!("REPLICAOF 127.0.0.1 {port}\r\n"))?;
        let deadline = Instant::now() + START_TIME_MAX;
        while !ask(replica.address, "INFO replication\r\n")?.contains("master_link_status:up") {
            if Instant::now() > deadline {
                return Err(io::Error::other("the replica does not follow its master"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(replica)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Writes the peer's configuration to `folder`, if it needs any, and gives its arguments.
fn arguments(peer: Peer, listen: SocketAddr, redis: SocketAddr, folder: &Path) -> io::Result<Vec<OsString>> {
    let file = folder.join(format!("{}.conf", peer.name()));
    let arguments = match peer {
        Peer::Direct => Vec::new(),
        Peer::Haproxy => {
            fs::write(&file, haproxy_configuration(listen, redis, haproxy_maxconn()))?;
            vec!["-db".into(), "-f".into(), file.into()]
        }
        Peer::Twemproxy => {
            fs::write(&file, twemproxy_configuration(listen, redis))?;
            let stats_port = free_address()?.port().to_string();
            let pid_file = folder.join("twemproxy.pid");
            ["-a", "127.0.0.1", "-s", &stats_port, "-o", "/dev/stderr", "-p"]
                .map(OsString::from)
                .into_iter()
                .chain([pid_file.into(), "-c".into(), file.into()])
                .collect()
        }
        Peer::Durable => {
            fs::write(&file, durable_configuration(listen, redis))?;
            vec!["run".into(), "-c".into(), file.into()]
        }
        Peer::Pointsman | Peer::Replicated => {
            let (listen, node) = (listen.to_string(), redis.to_string());
            ["run", "--listen", &listen, "--node", &node, "--workers", "1", "--admin", "off"]
                .map(OsString::from)
                .into()
        }
    };
    Ok(arguments)
}

/// TCP mode as the manual suggests it for a service of many short exchanges; what is not named is at its default.
fn haproxy_configuration(listen: SocketAddr, redis: SocketAddr, maxconn: u64) -> String {
    format!(
        "global
    nbthread 1
    maxconn {maxconn}
defaults
    mode tcp
    maxconn {maxconn}
    option tcp-smart-accept
    option tcp-smart-connect
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend clients
    bind {listen} backlog 4096
    default_backend redis
backend redis
    server redis {redis}
"
    )
}

fn durable_configuration(listen: SocketAddr, redis: SocketAddr) -> String {
    format!(
        "workers = 1
admin = \"off\"
[[service]]
name = \"bench\"
listen = [\"{listen}\"]
nodes = [\"{redis}\"]
durable = 1
"
    )
}

/// HAProxy wants two descriptors for each connection, and does not start when it cannot have them.
fn haproxy_maxconn() -> u64 {
    (open_files_max() / 2).saturating_sub(100).clamp(100, 10_000)
}

fn twemproxy_configuration(listen: SocketAddr, redis: SocketAddr) -> String {
    format!(
        "clients:
  listen: {listen}
  redis: true
  hash: fnv1a_64
  distribution: ketama
  backlog: 4096
  preconnect: true
  auto_eject_hosts: false
  servers:
    - {redis}:1
"
    )
}

/// How many files this process and its children may have open.
pub(crate) fn open_files_max() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises the limit of open files as far as an ordinary user may.
pub(crate) fn raise_open_files() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// A child that does not outlive us.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// In a process group of its own, so that Ctrl-C reaches only us; and where there is setpriv (util-linux), killed
    /// by the kernel should we be killed ourselves.
    fn spawn(program: &Path, arguments: &[OsString], log: &Path) -> io::Result<Self> {
        let mut command = match programs::find(&["setpriv"]) {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL", "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let output = File::create(log)?;
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()?;
        Ok(Process { child, log: log.to_owned() })
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_it_answers(&mut self, address: SocketAddr) -> io::Result<()> {
        let deadline = Instant::now() + START_TIME_MAX;
        loop {
            let problem = match answers(address) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("it ended with {status}: {}", self.last_words())));
            }
            if Instant::now() > deadline {
                let seconds = START_TIME_MAX.as_secs();
                return Err(io::Error::other(format!(
                    "no answer in {seconds} s: {problem}; {}",
                    self.last_words()
                )));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(500)..]).into_owned();
        tail.lines().rev().take(3).collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing of it is worth keeping, and it may hang.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One question, and the beginning of its answer.
fn ask(address: SocketAddr, question: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(question.as_bytes())?;
    let mut answer = [0; 4096];
    let n = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..n]).into_owned())
}

fn answers(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(QUESTION)?;
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer)?;
    if answer == *ANSWER {
        return Ok(());
    }
    let mut words = answer.to_vec();
    let _ = stream.take(200).read_to_end(&mut words);
    Err(io::Error::other(format!("it answered \"{}\"", words.escape_ascii())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_installed_peer_serves_and_is_gone_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let server = programs::find(programs::REDIS.names).expect("redis-server is installed");
        let redis = Redis::start(&server, folder.path()).unwrap();
        let proxies = [(Peer::Haproxy, &programs::HAPROXY), (Peer::Twemproxy, &programs::NUTCRACKER)];
        let found = proxies.map(|(peer, program)| (peer, programs::find(program.names)));
        let installed = found.into_iter().filter(|(_, program)| program.is_some());
        for (peer, program) in [(Peer::Direct, None)].into_iter().chain(installed) {
            let running =
                RunningPeer::start(peer, program.as_deref(), redis.address(), folder.path()).unwrap();
            answers(running.address()).unwrap();
            assert_eq!(running.pid().is_some(), peer != Peer::Direct);
            let (pid, address) = (running.pid(), running.address());
            drop(running);
            if let Some(pid) = pid {
                assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{peer:?}");
                assert!(TcpStream::connect(address).is_err(), "{peer:?}");
            }
        }
    }

    #[test]
    fn a_program_that_ends_at_once_is_reported_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let shell = programs::find(&["sh"]).unwrap();
        let log = folder.path().join("log");
        let mut process =
            Process::spawn(&shell, &["-c".into(), "echo no such thing; exit 3".into()], &log).unwrap();
        let failure = process.wait_until_it_answers(free_address().unwrap()).unwrap_err().to_string();
        assert!(failure.contains('3') && failure.contains("no such thing"), "{failure}");
    }

    #[test]
    fn names_are_those_of_the_options() {
        for peer in Peer::USUAL.into_iter().chain([Peer::Replicated, Peer::Durable]) {
            assert_eq!(peer.to_possible_value().unwrap().get_name(), peer.name());
            assert_eq!(serde_json::to_value(peer).unwrap(), peer.name());
        }
    }
}
