//! What the tests of switches and of the program's life share: the program before real servers, what it says of itself,
//! and what clients of it do.
//!
//! - [`Proxy`]: the program with a configuration file, its admin listener, its log
//! - [`fake`]: a node that answers what a test wants
//! - [`load`]: clients that count, and notice whatever a proxy can do wrong
//! - [`Raw`]: a connection whose bytes are written and read as they are
pub mod fake;
pub mod load;

use pointsman::admin::Events;
use pointsman::client::{Client, Value};
use pointsman::events::Line;
use pointsman::sandbox::deployment::{Deployment, Process, free_addr};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Whatever a test waits for has come by then, on the slowest machine: there Sentinels may need more than one election, or
/// do nothing for half a minute because their clock seems to have jumped (TILT).
pub const DEADLINE: Duration = Duration::from_secs(120);
/// The pause between two looks at a condition.
pub const LOOK: Duration = Duration::from_millis(10);

/// Looks until `is` holds; panics with `what` if it does not in time.
pub fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    until(what, || is().then_some(()));
}

/// Looks until there is something, and gives that; panics with `what` if there is nothing in time.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < DEADLINE, "not in {DEADLINE:?}: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Whether a node says that it is master, and how many increments it has executed: both at one moment. Fails when the
/// node closes the connection, as it does when a Sentinel demotes it.
pub fn role_and_increments(node: &mut Client) -> io::Result<(bool, String)> {
    node.ask(&["MULTI"])?;
    node.ask(&["ROLE"])?;
    node.ask(&["INFO", "commandstats"])?;
    let both = node.ask(&["EXEC"])?;
    let stats = both.items()[1].text().unwrap();
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_incr:calls=")?.split(',').next());
    Ok((both.items()[0].items()[0] == bulk("master"), calls.unwrap_or_default().to_owned()))
}

/// The program as a test runs it, with arguments of its own.
pub fn pointsman(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("POINTSMAN_")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command of the program to its end: whether it succeeded, its output, its errors.
pub fn said(args: &[&str]) -> (bool, String, String) {
    let Output { status, stdout, stderr } = pointsman(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

/// A running proxy; dropping it kills it. A test that fails shows its log.
pub struct Proxy {
    child: Child,
    /// Its first service's first listener.
    pub listen: SocketAddr,
    /// Its admin listener.
    pub admin: SocketAddr,
    /// Its configuration file.
    pub config: PathBuf,
    log: PathBuf,
}

impl Proxy {
    /// Starts it with one service named `cache`, of which `rest` says everything but where it listens. Returns when it
    /// answers on its admin listener, whoever is master.
    pub fn start(deployment: &Deployment, rest: &str) -> Proxy {
        let listen = free_addr().unwrap();
        let service = format!("[[service]]\nname = \"cache\"\nlisten = [\"{listen}\"]\n{rest}\n");
        Proxy::start_with(deployment, listen, &service)
    }

    /// Starts it before the deployment's Sentinels.
    pub fn before_sentinels(deployment: &Deployment, rest: &str) -> Proxy {
        let (sentinels, name) = (deployment.sentinel_list(), deployment.master_name());
        Proxy::start(deployment, &format!("sentinels = \"{sentinels}\"\nmaster = \"{name}\"\n{rest}"))
    }

    /// Starts it with a file that ends with `services`; `listen` is where its first service listens.
    pub fn start_with(deployment: &Deployment, listen: SocketAddr, services: &str) -> Proxy {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = |kind| deployment.dir().join(format!("proxy-{number}.{kind}"));
        let (admin, config, log) = (free_addr().unwrap(), file("toml"), file("log"));
        std::fs::write(&config, whole(admin, services)).unwrap();
        let out = File::create(&log).unwrap();
        let mut command = pointsman(&["run", "-c", config.to_str().unwrap()]);
        std::fs::create_dir(file("state")).unwrap();
        command.env("STATE_DIRECTORY", file("state")).stdout(out.try_clone().unwrap()).stderr(out);
        let child = deployment.spawn(&mut command).unwrap();
        let mut proxy = Proxy { child, listen, admin, config, log };
        eventually("the proxy answers", || {
            let ended = proxy.child.try_wait().unwrap();
            assert!(ended.is_none(), "the proxy ended: {ended:?}");
            get(admin, "/healthz").is_ok()
        });
        proxy
    }

    /// Writes the configuration file anew; nobody reads it yet.
    pub fn rewrite(&self, services: &str) {
        std::fs::write(&self.config, whole(self.admin, services)).unwrap();
    }

    /// A new client.
    pub fn client(&self) -> Client {
        Client::connect(self.listen, DEADLINE).unwrap()
    }

    /// Asks `/api/status`.
    pub fn status(&self) -> Json {
        let (code, body) = get(self.admin, "/api/status").unwrap();
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// What the status says of the service of that name.
    pub fn service(&self, name: &str) -> Json {
        let mut status = self.status();
        let services = status["services"].as_array_mut().unwrap();
        let found = services.iter_mut().find(|s| s["name"] == name).map(Json::take);
        found.unwrap_or_else(|| panic!("no service {name}: {services:?}"))
    }

    /// The term of the service `cache`.
    pub fn term(&self) -> u64 {
        self.service("cache")["term"].as_u64().unwrap()
    }

    /// The service `cache`'s master, if it is granted and the service serves.
    pub fn master(&self) -> Option<String> {
        let service = self.service("cache");
        let serving = service["state"] == "serving";
        service["master"].as_str().filter(|_| serving).map(str::to_owned)
    }

    /// Waits until this node is master.
    pub fn wait_master(&self, node: &Process) {
        let wanted = node.addr().to_string();
        eventually(&format!("{wanted} is granted"), || self.master().as_ref() == Some(&wanted));
    }

    /// Waits until the Sentinels and the proxy agree on another master than `old`; says which. Sentinels can elect twice in
    /// a row, so that who is named first need not stay.
    pub fn follow(&self, deployment: &Deployment, old: usize) -> usize {
        until("the proxy follows the Sentinels", || {
            let new = deployment.master().filter(|new| *new != old)?;
            (self.master()? == deployment.nodes[new].addr().to_string()).then_some(new)
        })
    }

    /// Waits until the first service is in this state.
    pub fn wait_state(&self, state: &str) {
        eventually(&format!("it is {state}"), || self.service("cache")["state"] == state);
    }

    /// What happened so far.
    pub fn lines(&self) -> Vec<Line> {
        let (_, body) = get(self.admin, "/api/events?after=0").unwrap();
        serde_json::from_str::<Events>(&body).unwrap().events
    }

    /// What happened so far, as kind and text.
    pub fn events(&self) -> Vec<(String, String)> {
        self.lines().into_iter().map(|l| (l.kind, l.text)).collect()
    }

    /// How many events of this kind there were.
    pub fn count_events(&self, kind: &str) -> usize {
        self.events().iter().filter(|(k, _)| k == kind).count()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it (SIGSTOP), and returns when all its threads stand still.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        let stands = |task: io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        eventually("all its threads stand still", || std::fs::read_dir(&tasks).unwrap().all(stands));
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let status = get(self.admin, "/api/status").map(|(_, body)| body).unwrap_or_default();
            eprintln!("the proxy said:\n{}\nits status:\n{status}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn whole(admin: SocketAddr, services: &str) -> String {
    format!("workers = 2\nadmin = \"{admin}\"\n{services}")
}

/// A page: its status and body.
pub fn get(addr: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    http(addr, "GET", path)
}

/// One HTTP request: the answer's status and body.
pub fn http(addr: SocketAddr, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}

/// `+OK`.
pub fn ok() -> Value {
    Value::Simple("OK".into())
}

/// A bulk string.
pub fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

/// Whether this is an error that begins with `word`.
pub fn is_error(value: &Value, word: &str) -> bool {
    matches!(value, Value::Error(text) if text.split(' ').next() == Some(word))
}

/// Whether the other side closed the connection, gently or not.
pub fn is_end(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// A socket that [`Raw`] can use.
pub trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

/// A connection whose bytes are written and read as they are.
pub struct Raw(Box<dyn Socket>);

impl Raw {
    /// Over TCP.
    pub fn tcp(addr: SocketAddr) -> Raw {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Raw(Box::new(stream))
    }

    /// Over a Unix socket.
    pub fn unix(path: &Path) -> Raw {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Raw(Box::new(stream))
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).unwrap();
    }

    /// The next bytes are these.
    pub fn expect(&mut self, bytes: &str) {
        let mut got = vec![0; bytes.len()];
        if let Err(e) = self.0.read_exact(&mut got) {
            panic!("{e} instead of {bytes:?}, or in the middle of it: {:?}", String::from_utf8_lossy(&got));
        }
        assert_eq!(String::from_utf8_lossy(&got), bytes);
    }

    /// Sends one and expects the other.
    pub fn say(&mut self, bytes: &str, reply: &str) {
        self.send(bytes);
        self.expect(reply);
    }

    /// Reads until what was read ends so.
    pub fn skip_to(&mut self, end: &str) -> String {
        let mut got = Vec::new();
        while !got.ends_with(end.as_bytes()) {
            let mut byte = [0];
            let read = self.0.read_exact(&mut byte);
            assert!(read.is_ok(), "{read:?} after {:?}", String::from_utf8_lossy(&got));
            got.push(byte[0]);
        }
        String::from_utf8_lossy(&got).into_owned()
    }
}
