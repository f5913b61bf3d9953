//! The deployment: a node and a Sentinel on each host, and proxies.
use crate::guard::Guard;
use crate::network::{HOSTS, Host, Network, PROXY};
use pointsman::client::{Client, Value};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The port of each node, and of the first proxy on its own host.
pub(crate) const NODE_PORT: u16 = 6379;
pub(crate) const SENTINEL_PORT: u16 = 26379;
pub(crate) const MASTER_NAME: &str = "mymaster";
/// How long a server may take to answer.
const ANSWER: Duration = Duration::from_millis(500);
/// How long it may take until all know each other, and until all is in order again after a fault: an old master that was
/// cut off is told only when the Sentinels have met it again.
const SETTLE: Duration = Duration::from_secs(90);

/// A node, a Sentinel or a proxy.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    pub(crate) host: Host,
    port: u16,
    command: Vec<String>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
    guard: Arc<Guard>,
}

impl Server {
    fn start(
        guard: &Arc<Guard>,
        host: &Host,
        name: &str,
        port: u16,
        folder: &Path,
        command: Vec<String>,
    ) -> io::Result<Self> {
        let (log, child) = (folder.join("log"), Mutex::new(None));
        let server =
            Self { name: name.into(), host: host.clone(), port, command, log, child, guard: guard.clone() };
        server.spawn()?;
        Ok(server)
    }

    fn spawn(&self) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = self.host.run(|| self.guard.spawn(&mut command))?;
        *self.child() = Some(child);
        Ok(())
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().expect("no code panics while it holds this lock")
    }

    /// Kills it at once.
    pub(crate) fn kill9(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again if it is dead.
    pub(crate) fn revive(&self) -> io::Result<()> {
        if self.child().is_some() { Ok(()) } else { self.spawn() }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(child) = &*self.child() {
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    /// How it ended, if it did by itself.
    pub(crate) fn ended(&self) -> Option<String> {
        let status = self.child().as_mut()?.try_wait().ok()??;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(5).collect();
        Some(format!(
            "{} ended ({status}): {}",
            self.name,
            tail.into_iter().rev().collect::<Vec<_>>().join(" | ")
        ))
    }

    /// Where it listens. From its own host it can be reached whatever is cut.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.host.at(self.port)
    }

    /// Asks it something, from its own host; an error reply is an error.
    pub(crate) fn ask(&self, args: &[&str]) -> io::Result<Value> {
        self.host.run(|| Client::connect(self.addr(), ANSWER)?.ask(args))
    }

    fn replication(&self, field: &str) -> Option<String> {
        let text = self.ask(&["INFO", "replication"]).ok()?.text()?;
        text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).map(str::to_owned)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The servers of one network. The first node is the first master.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) nodes: Vec<Server>,
    pub(crate) sentinels: Vec<Server>,
    folder: PathBuf,
    guard: Arc<Guard>,
    proxy_host: Host,
    // Last, so that the processes in it end first.
    pub(crate) network: Network,
}

impl Servers {
    /// Starts them and waits until all know each other.
    pub(crate) fn start(guard: &Arc<Guard>, redis: &Path) -> io::Result<Self> {
        let network = Network::make(guard)?;
        let folder = tempfile::Builder::new().tempdir_in(guard.folder())?.keep();
        let proxy_host = network.hosts[PROXY].clone();
        let mut this =
            Self { nodes: vec![], sentinels: vec![], folder, guard: guard.clone(), proxy_host, network };
        let program = redis.display().to_string();
        for i in 0..HOSTS {
            let conf = node_conf(&this.network.hosts, i);
            let file = this.write(&format!("node-{}", i + 1), &conf)?;
            let node = this.launch(
                &file,
                &this.network.hosts[i],
                NODE_PORT,
                vec![program.clone(), file_name(&file)],
            )?;
            this.nodes.push(node);
        }
        this.wait("replicas in sync", |this| this.in_sync(0))?;
        for i in 0..HOSTS {
            let file = this.write(&format!("sentinel-{}", i + 1), &sentinel_conf(&this.network.hosts, i))?;
            let command = vec![program.clone(), file_name(&file), "--sentinel".into()];
            let sentinel = this.launch(&file, &this.network.hosts[i], SENTINEL_PORT, command)?;
            this.sentinels.push(sentinel);
        }
        this.wait("Sentinels that know everyone", |this| this.sentinels.iter().all(knows_everyone))?;
        Ok(this)
    }

    fn write(&self, name: &str, conf: &str) -> io::Result<PathBuf> {
        let folder = self.folder.join(name);
        std::fs::create_dir(&folder)?;
        let file = folder.join("conf");
        std::fs::write(&file, conf.replace("FOLDER", &folder.display().to_string()))?;
        Ok(file)
    }

    fn launch(&self, file: &Path, host: &Host, port: u16, command: Vec<String>) -> io::Result<Server> {
        let folder = file.parent().expect("it is in a folder");
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        Server::start(&self.guard, host, &name, port, folder, command)
    }

    /// Starts a proxy on the proxies' host, that listens on that port there. `lines` go into its service's configuration.
    pub(crate) fn proxy(&self, program: &Path, port: u16, lines: &[String]) -> io::Result<Server> {
        let sentinels: Vec<String> =
            self.sentinels.iter().map(|s| format!("{:?}", s.addr().to_string())).collect();
        let conf = format!(
            "admin = \"127.0.0.1:{}\"\n[[service]]\nname = \"faults\"\nlisten = [\"{}\"]\nsentinels = [{}]\n\
             master = \"{MASTER_NAME}\"\n{}\n[events]\nfile = \"events.jsonl\"\n",
            port + 1000,
            self.proxy_host.at(port),
            sentinels.join(", "),
            lines.join("\n")
        );
        let file = self.write(&format!("proxy-{port}"), &conf)?;
        let command = vec![program.display().to_string(), "run".into(), "-c".into(), file_name(&file)];
        self.launch(&file, &self.proxy_host, port, command)
    }

    /// Waits until one node is master for a majority of the Sentinels, and all others replicate from it; says which.
    pub(crate) fn wait_settled(&self) -> io::Result<usize> {
        let mut master = None;
        self.wait("one master, and all others in sync with it", |this| {
            master = (0..HOSTS).find(|&i| this.named(i) * 2 > HOSTS && this.in_sync(i));
            master.is_some()
        })?;
        Ok(master.expect("the wait ended well"))
    }

    /// `SENTINEL FAILOVER`, asked of the first Sentinel that agrees to it and knows this node as the master.
    pub(crate) fn failover(&self, master: usize) -> io::Result<()> {
        let willing = |sentinel: &&Server| {
            self.names(sentinel, master) && sentinel.ask(&["SENTINEL", "FAILOVER", MASTER_NAME]).is_ok()
        };
        self.sentinels
            .iter()
            .find(willing)
            .map(drop)
            .ok_or_else(|| io::Error::other("no Sentinel begins a failover"))
    }

    fn named(&self, node: usize) -> usize {
        self.sentinels.iter().filter(|sentinel| self.names(sentinel, node)).count()
    }

    fn names(&self, sentinel: &Server, node: usize) -> bool {
        let answer = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME]);
        let ip = answer.ok().and_then(|value| value.items().first()?.text());
        ip == Some(self.nodes[node].host.ip.to_string())
    }

    fn in_sync(&self, master: usize) -> bool {
        let ip = self.nodes[master].host.ip.to_string();
        let follows = |node: &Server| {
            node.replication("master_link_status").as_deref() == Some("up")
                && node.replication("master_host").as_deref() == Some(&ip)
        };
        self.nodes[master].replication("role").as_deref() == Some("master")
            && (0..HOSTS).all(|i| i == master || follows(&self.nodes[i]))
    }

    fn wait(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) -> io::Result<()> {
        let begin = Instant::now();
        while !condition(self) {
            let ended = self.nodes.iter().chain(&self.sentinels).find_map(Server::ended);
            if let Some(ended) = ended {
                return Err(io::Error::other(ended));
            }
            if begin.elapsed() > SETTLE {
                return Err(io::Error::other(format!("waited {} s in vain for {what}", SETTLE.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn file_name(file: &Path) -> String {
    file.display().to_string()
}

fn node_conf(hosts: &[Host], i: usize) -> String {
    let follow = if i == 0 { String::new() } else { format!("replicaof {} {NODE_PORT}\n", hosts[0].ip) };
    format!(
        "dir FOLDER\nbind {}\nport {NODE_PORT}\nprotected-mode no\nsave \"\"\nrepl-diskless-sync-delay 0\n{follow}",
        hosts[i].ip
    )
}

fn sentinel_conf(hosts: &[Host], i: usize) -> String {
    format!(
        "dir FOLDER\nbind {}\nport {SENTINEL_PORT}\nprotected-mode no\nsentinel monitor {MASTER_NAME} {} {NODE_PORT} 2\n\
         sentinel down-after-milliseconds {MASTER_NAME} 1000\nsentinel failover-timeout {MASTER_NAME} 10000\n",
        hosts[i].ip, hosts[0].ip
    )
}

fn knows_everyone(sentinel: &Server) -> bool {
    let view = |what| sentinel.ask(&["SENTINEL", what, MASTER_NAME]);
    let (Ok(master), Ok(replicas)) = (view("MASTER"), view("REPLICAS")) else { return false };
    let fit = |replica: &Value| {
        replica.field("flags").as_deref() == Some("slave")
            && replica.field("master-link-status").as_deref() == Some("ok")
    };
    let others = Some((HOSTS - 1).to_string());
    master.field("flags").as_deref() == Some("master")
        && master.field("num-other-sentinels") == others
        && master.field("num-slaves") == others
        && replicas.items().iter().all(fit)
}
