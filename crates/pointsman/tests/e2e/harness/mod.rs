//! What the end-to-end tests share: real servers, the proxy before one, and connections that are read byte by byte.
//!
//! - [`Server`]: one node, and [`Proxy`]: the program before it
//! - [`raw`]: a connection that knows nothing but where a reply ends
//! - [`observer`]: who counts at the server, and who must not notice what others do
//! - [`script`]: the same conversation held with a server and with the proxy before an equal one
//! - [`twin`]: one client at both; [`random`]: what it says at random, from a seed
pub mod observer;
pub mod random;
pub mod raw;
pub mod script;
pub mod twin;

use pointsman::client::Client;
use pointsman::sandbox::deployment::{Deployment, Options, free_addr};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Whatever a test waits for has come by then, on the slowest machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Looks until `is` holds; panics with `what` if it does not in time.
pub fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < DEADLINE, "not in {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One node.
pub struct Server {
    deployment: Deployment,
    password: Option<String>,
}

impl Server {
    /// Starts a node.
    pub fn start(options: &Options) -> Server {
        let options = Options { nodes: 1, sentinels: 0, ..options.clone() };
        let password = options.password.clone();
        Server { deployment: Deployment::start(options).expect("a server"), password }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.deployment.nodes[0].addr()
    }

    /// One command, directly, as the deployment's own user.
    pub fn ask(&self, args: &[&str]) -> pointsman::client::Value {
        self.deployment.nodes[0].ask(args).expect("an answer")
    }

    /// A number of its INFO.
    pub fn count(&self, section: &str, field: &str) -> u64 {
        let text = self.deployment.nodes[0].info(section, field).expect("an answer");
        text.trim().parse().expect("a number")
    }

    /// A connection of the deployment's own user, which stays.
    pub fn connect(&self) -> Client {
        self.deployment.nodes[0].connect().expect("a connection")
    }
}

/// The program before a node.
pub struct Proxy {
    child: Child,
    addr: SocketAddr,
    log: PathBuf,
}

impl Proxy {
    /// Starts it before `server`, with further arguments, and returns when a client gets through.
    pub fn start(server: &Server, args: &[&str]) -> Proxy {
        Proxy::start_unasked(server, args).asked()
    }

    /// Starts it, and returns when it accepts clients; none has said a word yet.
    pub fn start_unasked(server: &Server, args: &[&str]) -> Proxy {
        let node = server.addr().to_string();
        Proxy::launch(server, |command, listen, _| {
            command.args(["--listen", listen, "--node", &node]).args(args);
        })
    }

    /// Starts it with one worker and these lines for its service.
    pub fn start_with(server: &Server, lines: &str) -> Proxy {
        let proxy = Proxy::launch(server, |command, listen, log| {
            let file = log.with_extension("toml");
            write_config(&file, listen, server, lines);
            command.arg("-c").arg(file);
        });
        proxy.asked()
    }

    /// Tells it to read its file again, with these lines for its service.
    pub fn reload(&self, server: &Server, lines: &str) {
        write_config(&self.log.with_extension("toml"), &self.addr.to_string(), server, lines);
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("it lives");
    }

    /// Starts it on a port that is free.
    fn launch(server: &Server, arguments: impl Fn(&mut Command, &str, &Path)) -> Proxy {
        loop {
            if let Some(proxy) = Proxy::try_launch(server, &arguments) {
                return proxy;
            }
        }
    }

    /// `None` if somebody else took the port first.
    fn try_launch(server: &Server, arguments: impl Fn(&mut Command, &str, &Path)) -> Option<Proxy> {
        let addr = free_addr().expect("a port");
        let log = server.deployment.dir().join(format!("pointsman-{}.log", addr.port()));
        let file = File::create(&log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        command.args(["run", "--admin", "off"]).stdin(Stdio::null());
        command.env("STATE_DIRECTORY", server.deployment.dir());
        arguments(&mut command, &addr.to_string(), &log);
        if let Some(password) = &server.password {
            command.env("POINTSMAN_PASSWORD", password);
        }
        command.stdout(file.try_clone().expect("a log")).stderr(file);
        let child = server.deployment.spawn(&mut command).expect("the program starts");
        let mut proxy = Proxy { child, addr, log };
        let begin = Instant::now();
        while TcpStream::connect(addr).is_err() {
            if proxy.child.try_wait().expect("its state").is_some() {
                let said = proxy.said();
                assert!(said.contains("listens there already"), "the proxy ended: {said}");
                return None;
            }
            assert!(begin.elapsed() < DEADLINE, "the proxy does not answer: {}", proxy.said());
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(proxy)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn asked(self) -> Proxy {
        let asked = Client::connect(self.addr, DEADLINE).and_then(|mut c| c.call(&["PING"]));
        assert!(asked.is_ok(), "{asked:?}");
        self
    }

    /// The most memory that it has had since it was last [told to forget](Proxy::forget_peak), in bytes.
    pub fn memory_peak(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// From now on a new peak of its memory counts.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("it is ours");
    }

    /// Its log.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// The configuration of one service before a server.
fn write_config(file: &Path, listen: &str, server: &Server, lines: &str) {
    let node = server.addr();
    let text = format!(
        "workers = 1\n[[service]]\nname = \"e2e\"\nlisten = [\"{listen}\"]\nnodes = [\"{node}\"]\n{lines}\n"
    );
    std::fs::write(file, text).expect("a file");
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the proxy said:\n{}", self.said());
        }
    }
}

/// A server, and the proxy before another that is started alike: what is said to both must be answered alike.
pub struct Pair {
    // The proxy goes first: its log is in the server's folder.
    pub proxy: Proxy,
    pub fronted: Server,
    pub bare: Server,
}

impl Pair {
    /// Starts both.
    pub fn start(options: &Options, args: &[&str]) -> Pair {
        let (bare, fronted) = (Server::start(options), Server::start(options));
        Pair { proxy: Proxy::start(&fronted, args), fronted, bare }
    }
}
