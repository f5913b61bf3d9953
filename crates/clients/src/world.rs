//! What a script is run against: a server, or the proxy before a deployment whose master can be changed.
use pointsman::sandbox::deployment::{Deployment, Options};
use pointsman::sandbox::proxy::Proxy;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

/// How long the proxy may take to serve, and a switch to be over.
const DEADLINE: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// How the master is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// `SENTINEL FAILOVER`.
    Switch,
    /// `kill -9`.
    Kill,
}

/// Servers, and perhaps the proxy before them. The proxy is dropped first.
pub(crate) struct World {
    proxy: Option<Proxy>,
    deployment: Deployment,
}

impl World {
    /// A server, without anything before it.
    pub(crate) fn direct() -> Result<Self, Box<dyn Error>> {
        let options = Options { nodes: 1, sentinels: 0, ..options() };
        Ok(Self { proxy: None, deployment: Deployment::start(options)? })
    }

    /// A master, two replicas and three Sentinels, and the proxy (`program`) before them.
    pub(crate) fn through(program: &Path) -> Result<Self, Box<dyn Error>> {
        let deployment = Deployment::start(options())?;
        let proxy = Proxy::start(program, &deployment, None)?;
        let this = Self { proxy: Some(proxy), deployment };
        this.wait("the proxy serves", || this.served().is_some())?;
        Ok(this)
    }

    /// Where clients connect.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.proxy.as_ref().map_or_else(|| self.deployment.nodes[0].addr(), Proxy::listen)
    }

    /// The folder that vanishes with it.
    pub(crate) fn dir(&self) -> &Path {
        self.deployment.dir()
    }

    /// Starts something that ends with it.
    pub(crate) fn spawn(&self, command: &mut Command) -> std::io::Result<Child> {
        self.deployment.spawn(command)
    }

    /// Changes the master, and returns when the proxy serves the new one and all nodes that live follow it. A server alone
    /// has nothing to change.
    pub(crate) fn change(&self, change: Change) -> Result<(), Box<dyn Error>> {
        if self.proxy.is_none() {
            return Ok(());
        }
        let old = self.deployment.master().ok_or("there is no master to be changed")?;
        match change {
            Change::Switch => self.deployment.sentinel_failover()?,
            Change::Kill => self.deployment.nodes[old].kill9(),
        }
        let new = self.deployment.wait_master(Some(old), DEADLINE)?;
        let addr = self.deployment.nodes[new].addr().to_string();
        self.wait("the proxy serves the new master", || self.served().as_ref() == Some(&addr))?;
        let lives = |node: &usize| *node != old || change == Change::Switch;
        self.wait("the others follow the new master", || {
            let nodes = (0..self.deployment.nodes.len()).filter(lives);
            nodes.filter(|node| *node != new).all(|node| self.deployment.in_sync(node, new))
        })
    }

    /// Whom the proxy serves.
    fn served(&self) -> Option<String> {
        let status = self.proxy.as_ref()?.status().ok()?;
        status.master.filter(|_| status.state == "serving")
    }

    fn wait(&self, what: &str, mut is: impl FnMut() -> bool) -> Result<(), Box<dyn Error>> {
        let begin = Instant::now();
        while !is() {
            if begin.elapsed() > DEADLINE {
                let log = self.proxy.as_ref().map(Proxy::log_tail).unwrap_or_default();
                return Err(format!("not in {} s: {what}; the proxy said: {log}", DEADLINE.as_secs()).into());
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// With a user, whom scripts know.
fn options() -> Options {
    Options { users: vec!["alice on >secret ~* &* +@all".into()], ..Options::default() }
}
