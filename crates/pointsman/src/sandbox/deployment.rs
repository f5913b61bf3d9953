//! A throwaway deployment of real servers on loopback: nodes, and Sentinels that watch them, in a temporary folder.
//! It ends with its owner, whatever happens to that (see `watchdog`).
use super::ports::free_ports;
use super::process::Launch;
pub use super::process::Process;
use super::watchdog::Watchdog;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The variable that names what to start: a program in `PATH`, or a path.
pub const SERVER_VARIABLE: &str = "POINTSMAN_SERVER";
/// What can be started without it, in order of preference.
const SERVERS: [&str; 2] = ["redis-server", "valkey-server"];
/// How often ports are chosen anew because somebody else took one first.
const STARTS_MAX: usize = 5;
/// How long the replicas and the Sentinels may take to find each other (they take about three seconds).
const SETTLE: Duration = Duration::from_secs(60);
/// The pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);

/// What to start. The first node is the first master; the others replicate from it.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to start: a program in `PATH`, or a path. If not said, what [`server_program`] finds.
    pub server: Option<PathBuf>,
    /// How many servers, at least one.
    pub nodes: usize,
    /// How many Sentinels; none is fine.
    pub sentinels: usize,
    /// The name under which the Sentinels know the master.
    pub master_name: String,
    /// After how long without an answer a Sentinel thinks a node down.
    pub down_after_ms: u64,
    /// Sentinel's failover-timeout; it tries again after twice as long.
    pub failover_timeout_ms: u64,
    /// How many Sentinels must think the master down; a majority if not said.
    pub quorum: Option<usize>,
    /// `requirepass` (and `masterauth`) of the nodes.
    pub password: Option<String>,
    /// `requirepass` of the Sentinels.
    pub sentinel_password: Option<String>,
    /// ACL users of the nodes, as redis.conf has them: `alice on >secret ~* +@all`.
    pub users: Vec<String>,
    /// Whether writes survive a `kill -9` (an append-only file, written before the reply, synced by nobody).
    pub append_only: bool,
    /// Whether each node listens on a Unix socket too.
    pub unix_sockets: bool,
    /// Further lines for the nodes' configuration.
    pub node_lines: Vec<String>,
    /// Further lines for the Sentinels' configuration.
    pub sentinel_lines: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            server: None,
            nodes: 3,
            sentinels: 3,
            master_name: "mymaster".into(),
            down_after_ms: 1_000,
            failover_timeout_ms: 10_000,
            quorum: None,
            password: None,
            sentinel_password: None,
            users: Vec::new(),
            append_only: false,
            unix_sockets: false,
            node_lines: Vec::new(),
            sentinel_lines: Vec::new(),
        }
    }
}

/// Why there is no deployment.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nothing to start.
    #[error(
        "neither redis-server nor valkey-server is in PATH: install redis \
         (Debian, Ubuntu: apt-get install redis-server; Fedora: dnf install valkey; macOS: brew install redis)"
    )]
    NotInstalled,
    /// What was asked for is not there.
    #[error("{} is no program, here or in PATH", .0.display())]
    NoSuchServer(PathBuf),
    /// The options make no sense.
    #[error("a deployment needs at least one node")]
    NoNodes,
    /// A server, or the system, refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It started but does not work.
    #[error("the deployment is not ready after {} s: {what}", waited.as_secs())]
    NotReady {
        /// For how long we waited.
        waited: Duration,
        /// What is missing.
        what: String,
    },
}

/// A running deployment. Dropping it ends every process and removes the folder.
#[derive(Debug)]
pub struct Deployment {
    /// The servers; index 0 was the first master.
    pub nodes: Vec<Process>,
    /// The Sentinels.
    pub sentinels: Vec<Process>,
    options: Options,
    watchdog: Arc<Watchdog>,
    dir: TempDir,
}

impl Deployment {
    /// Starts it, and returns when all replicas are in sync and every Sentinel knows all others and all replicas.
    pub fn start(options: Options) -> Result<Self, StartError> {
        if options.nodes == 0 {
            return Err(StartError::NoNodes);
        }
        let program = match &options.server {
            Some(server) => find(server).ok_or_else(|| StartError::NoSuchServer(server.clone()))?,
            None => server_program()?,
        };
        let mut tries = 1;
        let deployment = loop {
            match Self::launch(&options, &program) {
                Err(e) if tries < STARTS_MAX && port_taken(&e) => tries += 1,
                other => break other?,
            }
        };
        deployment.wait_settled(SETTLE)?;
        Ok(deployment)
    }

    fn launch(options: &Options, program: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("pointsman-sandbox-").tempdir()?;
        let watchdog = Arc::new(Watchdog::start(dir.path())?);
        let ports = free_ports(options.nodes + options.sentinels)?;
        let (node_ports, sentinel_ports) = ports.split_at(options.nodes);
        let mut this = Self { nodes: vec![], sentinels: vec![], options: options.clone(), watchdog, dir };
        for (i, &port) in node_ports.iter().enumerate() {
            let process = this.launch_one(program, &format!("node-{}", i + 1), port, node_ports[0])?;
            this.nodes.push(process);
        }
        for node in &this.nodes {
            node.await_answer()?;
        }
        // The Sentinels learn of the replicas from the master, at once if they are there and 10 s later if not.
        this.wait(SETTLE, Self::unsynced).map_err(io::Error::other)?;
        for (i, &port) in sentinel_ports.iter().enumerate() {
            let process = this.launch_one(program, &format!("sentinel-{}", i + 1), port, node_ports[0])?;
            this.sentinels.push(process);
        }
        for sentinel in &this.sentinels {
            sentinel.await_answer()?;
        }
        Ok(this)
    }

    fn launch_one(&self, program: &Path, name: &str, port: u16, master: u16) -> io::Result<Process> {
        let dir = self.dir.path().join(name);
        std::fs::create_dir(&dir)?;
        let sentinel = name.starts_with("sentinel");
        let options = &self.options;
        let (conf, password) = if sentinel {
            (options.sentinel_conf(port, master), &options.sentinel_password)
        } else {
            (options.node_conf(port, master), &options.password)
        };
        std::fs::write(dir.join("server.conf"), conf)?;
        let socket = (options.unix_sockets && !sentinel).then(|| dir.join("server.sock"));
        let (program, password, name) = (program.into(), password.clone(), name.to_owned());
        let launch = Launch { name, program, sentinel, port, dir, socket, password };
        Process::start(launch, self.watchdog.clone())
    }

    /// The name under which the Sentinels know the master.
    pub fn master_name(&self) -> &str {
        &self.options.master_name
    }

    /// The temporary folder, which vanishes with the deployment.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The Sentinels' addresses, as `--sentinel` takes them: with commas between.
    pub fn sentinel_list(&self) -> String {
        let addrs: Vec<String> = self.sentinels.iter().map(|s| s.addr().to_string()).collect();
        addrs.join(",")
    }

    /// Starts something else, such as a proxy, that dies with the deployment. The caller should still kill and wait
    /// for it when it can.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.watchdog.spawn(command)
    }

    /// `SENTINEL FAILOVER`, asked of the first Sentinel that answers. It only begins here: see
    /// [`Deployment::wait_master`].
    pub fn sentinel_failover(&self) -> io::Result<()> {
        let mut refused = io::Error::other("there is no Sentinel");
        for sentinel in &self.sentinels {
            match sentinel.ask(&["SENTINEL", "FAILOVER", self.master_name()]) {
                Ok(_) => return Ok(()),
                Err(e) => refused = e,
            }
        }
        Err(refused)
    }

    /// The index of the node that is master: the one that a majority of the Sentinels names, and whose own ROLE
    /// agrees; without Sentinels the only one whose ROLE says so.
    pub fn master(&self) -> Option<usize> {
        let claims = |i: &usize| self.nodes[*i].alive() && role_of(&self.nodes[*i]) == "master";
        if self.sentinels.is_empty() {
            let mut claimants = (0..self.nodes.len()).filter(claims);
            return claimants.next().filter(|_| claimants.next().is_none());
        }
        let named: Vec<usize> = self.sentinels.iter().filter_map(|s| self.named_by(s)).collect();
        let votes = |i: &usize| named.iter().filter(|&n| n == i).count();
        (0..self.nodes.len()).find(|i| votes(i) * 2 > self.sentinels.len()).filter(claims)
    }

    /// The master, if every Sentinel names it, sees nothing wrong with it, and has no failover going on.
    pub fn undisputed_master(&self) -> Option<usize> {
        let master = self.master()?;
        let flags = |s: &Process| s.ask(&["SENTINEL", "MASTER", self.master_name()]).ok()?.field("flags");
        let agrees = |s: &Process| self.named_by(s) == Some(master) && flags(s).as_deref() == Some("master");
        self.sentinels.iter().all(agrees).then_some(master)
    }

    fn named_by(&self, sentinel: &Process) -> Option<usize> {
        let answer = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.master_name()]).ok()?;
        let port: u16 = answer.items().get(1)?.text()?.parse().ok()?;
        self.nodes.iter().position(|node| node.port() == port)
    }

    /// Waits until a node other than `old` is master; says which.
    pub fn wait_master(&self, old: Option<usize>, timeout: Duration) -> Result<usize, StartError> {
        let mut found = None;
        self.wait(timeout, |this| {
            found = this.master().filter(|&i| Some(i) != old);
            found.is_none().then(|| "no new master".into())
        })?;
        Ok(found.expect("the wait ends well only with a master"))
    }

    /// Waits until all is in order: one master, all nodes alive and in sync with it, all Sentinels of that opinion.
    /// After a failover this takes about 10 s, because Sentinels let a returned master be for 8 s.
    pub fn wait_settled(&self, timeout: Duration) -> Result<(), StartError> {
        self.wait(timeout, Self::unsettled)
    }

    /// Looks until there is nothing left to wait `for`, which says what is missing.
    fn wait(
        &self,
        timeout: Duration,
        mut missing: impl FnMut(&Self) -> Option<String>,
    ) -> Result<(), StartError> {
        let begin = Instant::now();
        while let Some(what) = missing(self) {
            if begin.elapsed() > timeout {
                return Err(StartError::NotReady { waited: timeout, what });
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn unsettled(&self) -> Option<String> {
        self.unsynced().or_else(|| self.sentinels.iter().find_map(|s| self.unaware(s)))
    }

    /// What is missing until all nodes are in sync with one master.
    fn unsynced(&self) -> Option<String> {
        let Some(master) = self.master() else { return Some("there is no master".into()) };
        let lagging = (0..self.nodes.len()).find(|&i| i != master && !self.in_sync(i, master))?;
        Some(format!("{} is not in sync with {}", self.nodes[lagging].name(), self.nodes[master].name()))
    }

    /// Whether the node is a replica of that master with a link that is up, and has all that the master had written when
    /// this was asked. (After a full synchronisation the link is up before what was written meanwhile comes over it.)
    pub fn in_sync(&self, node: usize, master: usize) -> bool {
        let offset = |n: usize, field| self.nodes[n].info("replication", field).ok()?.parse::<u64>().ok();
        let says = |field| self.nodes[node].info("replication", field).unwrap_or_default();
        let written = offset(master, "master_repl_offset");
        self.nodes[node].alive()
            && says("master_port") == self.nodes[master].port().to_string()
            && says("master_link_status") == "up"
            && written.is_some_and(|written| offset(node, "slave_repl_offset") >= Some(written))
    }

    /// What this Sentinel does not know yet, if something.
    fn unaware(&self, sentinel: &Process) -> Option<String> {
        let view = |what| sentinel.ask(&["SENTINEL", what, self.master_name()]);
        let (Ok(master), Ok(replicas)) = (view("MASTER"), view("REPLICAS")) else {
            return Some(format!("{} does not answer", sentinel.name()));
        };
        let is = |name, wanted: usize| master.field(name) == Some(wanted.to_string());
        if master.field("flags").as_deref() != Some("master")
            || !is("num-other-sentinels", self.sentinels.len() - 1)
            || !is("num-slaves", self.nodes.len() - 1)
        {
            return Some(format!("{} does not know everyone", sentinel.name()));
        }
        // The link's status comes with the replica's first INFO, without which it cannot be selected.
        let fit = |r: &crate::client::Value| {
            r.field("flags").as_deref() == Some("slave")
                && r.field("master-link-status").as_deref() == Some("ok")
        };
        (!replicas.items().iter().all(fit)).then(|| format!("{} finds a replica unfit", sentinel.name()))
    }
}

impl Options {
    fn node_conf(&self, port: u16, master: u16) -> String {
        let mut conf = format!(
            "port {port}\nbind 127.0.0.1\nprotected-mode no\nsave \"\"\nrepl-diskless-sync-delay 0\n\
             appendonly {}\nappendfsync no\nauto-aof-rewrite-percentage 0\n",
            if self.append_only { "yes" } else { "no" }
        );
        if port != master {
            put(&mut conf, format_args!("replicaof 127.0.0.1 {master}"));
        }
        if let Some(password) = &self.password {
            put(&mut conf, format_args!("requirepass {password}\nmasterauth {password}"));
        }
        if self.unix_sockets {
            // A relative path: that of the folder may be too long for a socket's name.
            put(&mut conf, format_args!("unixsocket server.sock\nunixsocketperm 700"));
        }
        self.users.iter().for_each(|user| put(&mut conf, format_args!("user {user}")));
        self.node_lines.iter().for_each(|line| put(&mut conf, format_args!("{line}")));
        conf
    }

    fn sentinel_conf(&self, port: u16, master: u16) -> String {
        let name = &self.master_name;
        let quorum = self.quorum.unwrap_or(self.sentinels / 2 + 1);
        let mut conf = format!(
            "port {port}\nbind 127.0.0.1\nprotected-mode no\nsentinel monitor {name} 127.0.0.1 {master} {quorum}\n\
             sentinel down-after-milliseconds {name} {}\nsentinel failover-timeout {name} {}\n\
             sentinel parallel-syncs {name} {}\n",
            self.down_after_ms, self.failover_timeout_ms, self.nodes
        );
        if let Some(password) = &self.password {
            put(&mut conf, format_args!("sentinel auth-pass {name} {password}"));
        }
        if let Some(password) = &self.sentinel_password {
            // With `requirepass` a Sentinel uses the same for its peers.
            put(&mut conf, format_args!("requirepass {password}"));
        }
        self.sentinel_lines.iter().for_each(|line| put(&mut conf, format_args!("{line}")));
        conf
    }
}

fn put(conf: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(conf, "{line}").expect("writing to a String cannot fail");
}

/// The first of ROLE's answer; nothing if there is none.
fn role_of(node: &Process) -> String {
    node.ask(&["ROLE"]).ok().and_then(|role| role.items().first()?.text()).unwrap_or_default()
}

/// What is started unless [`Options::server`] says otherwise: what [`SERVER_VARIABLE`] names, else redis-server, else
/// valkey-server.
///
/// # Errors
/// If there is none of them.
pub fn server_program() -> Result<PathBuf, StartError> {
    match std::env::var_os(SERVER_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from) {
        Some(name) => find(&name).ok_or(StartError::NoSuchServer(name)),
        None => SERVERS.iter().find_map(|name| find(Path::new(name))).ok_or(StartError::NotInstalled),
    }
}

/// The absolute path of a program that is named as a shell would find it.
fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return std::path::absolute(program).ok().filter(|file| file.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn port_taken(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::AddrInUse || e.to_string().contains("Address already in use")
}

/// An address on loopback where nobody listens now (though somebody may before you do), outside the range of outgoing
/// connections. No other process gets it from here while this one lives.
pub fn free_addr() -> io::Result<SocketAddr> {
    Ok(SocketAddr::from(([127, 0, 0, 1], free_ports(1)?[0])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !condition() {
            assert!(begin.elapsed() < DEADLINE, "{what}");
            std::thread::sleep(LOOK);
        }
    }

    fn gone(pid: u32) -> bool {
        // A zombie whose parent is gone is dead too; not every container has an init that reaps.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    }

    #[test]
    fn a_single_node_with_users_password_and_socket() {
        let deployment = Deployment::start(Options {
            nodes: 1,
            sentinels: 0,
            password: Some("secret".into()),
            users: vec!["alice on >pw ~a:* +@all".into()],
            node_lines: vec!["maxclients 77".into()],
            unix_sockets: true,
            ..Options::default()
        })
        .unwrap();
        let node = &deployment.nodes[0];
        assert_eq!(deployment.master(), Some(0));
        assert_eq!(node.ask(&["CONFIG", "GET", "maxclients"]).unwrap().field("maxclients").unwrap(), "77");
        assert!(std::os::unix::net::UnixStream::connect(node.socket().unwrap()).is_ok());
        let mut alice = Client::connect(node.addr(), DEADLINE).unwrap();
        assert!(alice.ask(&["GET", "a:1"]).unwrap_err().to_string().starts_with("NOAUTH"));
        alice.ask(&["AUTH", "alice", "pw"]).unwrap();
        assert!(alice.ask(&["GET", "b:1"]).unwrap_err().to_string().starts_with("NOPERM"));
    }

    #[test]
    fn a_planned_failover_moves_the_master_and_all_settles_again() {
        let deployment =
            Deployment::start(Options { password: Some("secret".into()), ..Options::default() }).unwrap();
        assert_eq!(deployment.master(), Some(0));
        deployment.sentinel_failover().unwrap();
        let new = deployment.wait_master(Some(0), DEADLINE).unwrap();
        assert_ne!(new, 0);
        deployment.wait_settled(DEADLINE).unwrap();
        assert!(deployment.in_sync(0, new));
    }

    #[test]
    fn the_master_can_be_killed_and_comes_back_as_replica_with_its_data() {
        let deployment = Deployment::start(Options {
            append_only: true,
            sentinel_password: Some("s".into()),
            ..Options::default()
        })
        .unwrap();
        let old = &deployment.nodes[0];
        old.ask(&["SET", "k", "v"]).unwrap();
        let pid = old.pid().unwrap();
        old.kill9();
        assert!(!old.alive() && gone(pid));
        let new = deployment.wait_master(Some(0), DEADLINE).unwrap();
        assert_eq!(deployment.nodes[new].ask(&["GET", "k"]).unwrap().text().unwrap(), "v");
        old.restart().unwrap();
        // It may be given a copy by the new master meanwhile, and says that it is loading.
        eventually("it has its data", || {
            old.ask(&["GET", "k"]).is_ok_and(|v| v.text().as_deref() == Some("v"))
        });
        deployment.wait_settled(DEADLINE).unwrap();
    }

    #[test]
    fn a_stopped_node_is_silent_until_it_continues() {
        let deployment = Deployment::start(Options { nodes: 1, sentinels: 0, ..Options::default() }).unwrap();
        let node = &deployment.nodes[0];
        node.stop();
        assert!(node.alive());
        assert!(node.ask(&["PING"]).is_err());
        node.cont();
        eventually("it answers again", || node.ask(&["PING"]).is_ok());
    }

    #[test]
    fn dropping_it_leaves_nothing() {
        let deployment = Deployment::start(Options { nodes: 2, sentinels: 1, ..Options::default() }).unwrap();
        let mut other = deployment.spawn(Command::new("sleep").arg("1000")).unwrap();
        let pids: Vec<u32> =
            deployment.nodes.iter().chain(&deployment.sentinels).filter_map(Process::pid).collect();
        assert_eq!(pids.len(), 3);
        let dir = deployment.dir().to_owned();
        assert!(dir.is_dir());
        deployment.nodes[1].stop();
        drop(deployment);
        assert!(!dir.exists());
        assert!(pids.iter().all(|&pid| gone(pid)));
        eventually("what was started beside it is gone", || other.try_wait().unwrap().is_some());
    }

    #[test]
    fn what_is_to_be_started_can_be_named() {
        let found = find(Path::new("sh")).unwrap();
        assert!(found.is_absolute() && find(&found) == Some(found));
        let server = Some(PathBuf::from("./no-such-server"));
        let error = Deployment::start(Options { server, ..Options::default() }).unwrap_err().to_string();
        assert_eq!(error, "./no-such-server is no program, here or in PATH");
    }

    #[test]
    fn a_bad_line_is_an_error_in_the_servers_words() {
        let options = Options {
            nodes: 1,
            sentinels: 0,
            node_lines: vec!["no-such-thing 1".into()],
            ..Options::default()
        };
        let error = Deployment::start(options).unwrap_err().to_string();
        assert!(error.contains("node-1 ended") && error.contains("Bad directive"), "{error}");
    }

    /// Not a test of its own: what `nothing_is_left_when_the_owner_is_killed` kills.
    #[test]
    #[ignore = "it waits to be killed"]
    fn owner_that_waits_to_be_killed() {
        let deployment = Deployment::start(Options { nodes: 2, sentinels: 1, ..Options::default() }).unwrap();
        println!("\ndir {}", deployment.dir().display());
        for process in deployment.nodes.iter().chain(&deployment.sentinels) {
            println!("pid {}", process.pid().unwrap());
        }
        println!("ready");
        std::thread::sleep(DEADLINE * 10);
    }

    #[test]
    fn nothing_is_left_when_the_owner_is_killed() {
        let name = "sandbox::deployment::tests::owner_that_waits_to_be_killed";
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(owner.stdout.take().unwrap()).lines().map(Result::unwrap);
        let told: Vec<String> = lines.take_while(|line| line != "ready").collect();
        let said = |what: &str| {
            told.iter().filter_map(|l| l.strip_prefix(what)).map(str::to_owned).collect::<Vec<_>>()
        };
        let (dir, pids) = (PathBuf::from(&said("dir ")[0]), said("pid "));
        assert!(dir.is_dir() && pids.len() == 3, "{told:?}");
        owner.kill().unwrap();
        owner.wait().unwrap();
        eventually("its servers are gone", || pids.iter().all(|pid| gone(pid.parse().unwrap())));
        eventually("its folder is gone", || !dir.exists());
    }
}
