//! One server of a sandbox: a node or a Sentinel.
use super::watchdog::{Watchdog, end};
use crate::client::{Client, Value};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a server may take to answer us; one that is stopped takes for ever.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a server may take from its start to its first answer.
const START: Duration = Duration::from_secs(20);

/// How a server is started, each time.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) sentinel: bool,
    pub(super) port: u16,
    /// Where its configuration (`server.conf`), data and log are.
    pub(super) dir: PathBuf,
    pub(super) socket: Option<PathBuf>,
    pub(super) password: Option<String>,
}

/// A node or a Sentinel. All methods may be called from any thread; those that end it are harmless when it is dead.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    watchdog: Arc<Watchdog>,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// Starts it, without waiting for it.
    pub(super) fn start(launch: Launch, watchdog: Arc<Watchdog>) -> io::Result<Self> {
        let process = Self { launch, watchdog, child: Mutex::new(None) };
        process.spawn()?;
        Ok(process)
    }

    /// `node-1`, `sentinel-3`: counted from one.
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// Its TCP port on 127.0.0.1; the same for life.
    pub fn port(&self) -> u16 {
        self.launch.port
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.launch.port).into()
    }

    /// The path of its Unix socket, if it was asked for.
    pub fn socket(&self) -> Option<&Path> {
        self.launch.socket.as_deref()
    }

    /// The folder with its `server.conf`, `server.log` and data.
    pub fn dir(&self) -> &Path {
        &self.launch.dir
    }

    /// The process id, while it lives.
    pub fn pid(&self) -> Option<u32> {
        let mut child = self.child();
        let running = child.as_mut().is_some_and(|c| matches!(c.try_wait(), Ok(None)));
        child.as_ref().filter(|_| running).map(Child::id)
    }

    /// Whether the process exists; one that is stopped does.
    pub fn alive(&self) -> bool {
        self.pid().is_some()
    }

    /// Kills it at once, and returns when it is gone.
    pub fn kill9(&self) {
        if let Some(mut child) = self.child().take() {
            end(&mut child);
        }
    }

    /// SIGSTOP: it neither answers nor closes anything until [`Process::cont`].
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn cont(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to end (SIGTERM), as an operator would; see [`Process::alive`] for when it has.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Starts it again at the same address with the configuration that it has by now (the server and the Sentinels
    /// rewrite it), after killing it if it lives; returns when it answers, if only that it is loading.
    pub fn restart(&self) -> io::Result<()> {
        self.kill9();
        self.spawn()?;
        self.await_answer()
    }

    /// A new connection, authenticated with the deployment's password.
    pub fn connect(&self) -> io::Result<Client> {
        let mut client = Client::connect(self.addr(), ANSWER)?;
        if let Some(password) = &self.launch.password {
            client.ask(&["AUTH", password])?;
        }
        Ok(client)
    }

    /// One command over a connection of its own; an error reply is an error.
    pub fn ask(&self, args: &[&str]) -> io::Result<Value> {
        self.connect()?.ask(args)
    }

    /// The value of one field of `INFO section`.
    pub fn info(&self, section: &str, field: &str) -> io::Result<String> {
        let text = self.ask(&["INFO", section])?.text().unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value
            .map(str::to_owned)
            .ok_or_else(|| io::Error::other(format!("{} does not say {field}", self.name())))
    }

    /// Waits until the process that we started answers, not one of somebody else who took the port first.
    pub(super) fn await_answer(&self) -> io::Result<()> {
        let begin = Instant::now();
        loop {
            let Some(pid) = self.pid() else {
                return Err(io::Error::other(format!("{} ended: {}", self.name(), self.log_tail())));
            };
            match self.info("server", "process_id") {
                Ok(answered) if answered == pid.to_string() => return Ok(()),
                Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
                Err(e) if begin.elapsed() > START => {
                    return Err(io::Error::new(e.kind(), format!("{} does not answer: {e}", self.name())));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The last lines of its log (why it ended is seldom in the very last), as one.
    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.launch.dir.join("server.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(3)..].join("; ")
    }

    fn spawn(&self) -> io::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.launch.dir.join("server.log"))?;
        let mut command = Command::new(&self.launch.program);
        command.arg("server.conf").current_dir(&self.launch.dir).env("LC_ALL", "C");
        if self.launch.sentinel {
            command.arg("--sentinel");
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        *self.child() = Some(self.watchdog.spawn(&mut command)?);
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        // The lock keeps the child from being waited for meanwhile, so the id is still its own.
        if let Some(child) = self.child().as_mut() {
            if matches!(child.try_wait(), Ok(None)) {
                let _ = kill_process(Pid::from_child(child), signal);
            }
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().expect("no code panics while it holds this lock")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}
