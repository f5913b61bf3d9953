//! Hosts that are network namespaces, and a router between them that can drop what one sends to another.
//!
//! ```text
//! host-1 10.0.1.2 ─veth─┐
//! host-2 10.0.2.2 ─veth─┤ router: forwards between its interfaces, except where a rule (`ip rule … blackhole`) says
//! host-3 10.0.3.2 ─veth─┤ that what comes from one side to another vanishes, as in a real partition: no RST, no ICMP
//! proxy  10.0.4.2 ─veth─┘
//! ```
//! Nothing is made in the namespace that we were started in but the names (`ip netns`), which are unique to this process.
use crate::guard::{Guard, NAMES};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

/// Hosts that have a node and a Sentinel each.
pub(crate) const HOSTS: usize = 3;
/// The index of the proxy's host, behind the others.
pub(crate) const PROXY: usize = HOSTS;

/// Which hosts are cut off from which others.
pub(crate) type Sides = (&'static [usize], &'static [usize]);

/// One host. A thread that enters it makes its sockets, and starts its children, there.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) ip: Ipv4Addr,
    namespace: Arc<File>,
}

impl Host {
    /// Moves the calling thread there for the rest of its life.
    pub(crate) fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Does something there, on a thread of its own.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| self.enter().and_then(|()| work()));
            worker.join().expect("the work does not panic")
        })
    }

    /// An address of this host.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }
}

/// The hosts (the last is the proxy's) and the router; they vanish when dropped.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) hosts: Vec<Host>,
    names: Vec<String>,
    router: String,
}

impl Network {
    /// Makes it.
    pub(crate) fn make(guard: &Guard) -> io::Result<Self> {
        let prefix = guard.network_prefix();
        let hosts = (1..=HOSTS).map(|i| format!("{prefix}host-{i}")).chain([format!("{prefix}proxy")]);
        let mut network = Self { hosts: vec![], names: hosts.collect(), router: format!("{prefix}router") };
        network.build()?;
        Ok(network)
    }

    fn build(&mut self) -> io::Result<()> {
        let router = &self.router;
        let all = self.names.iter().chain([router]);
        batch(&[], &all.map(|name| format!("netns add {name}")).collect::<Vec<_>>())?;
        for (i, name) in self.names.iter().enumerate() {
            let n = i + 1;
            batch(&[], &[format!("link add to-{n} netns {router} type veth peer name eth0 netns {name}")])?;
            batch(
                &["-n", name],
                &[
                    "link set lo up".into(),
                    format!("addr add 10.0.{n}.2/24 dev eth0"),
                    "link set eth0 up".into(),
                    format!("route add default via 10.0.{n}.1"),
                ],
            )?;
            batch(
                &["-n", router],
                &[format!("addr add 10.0.{n}.1/24 dev to-{n}"), format!("link set to-{n} up")],
            )?;
            self.hosts.push(Host { ip: Ipv4Addr::new(10, 0, n as u8, 2), namespace: namespace(name)? });
        }
        let router = Host { ip: Ipv4Addr::UNSPECIFIED, namespace: namespace(router)? };
        router.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
    }

    /// From now on whatever a host of one side sends to one of the other vanishes.
    pub(crate) fn cut(&self, sides: &Sides) -> io::Result<()> {
        self.rules("add", sides)
    }

    /// Undoes a cut.
    pub(crate) fn heal(&self, sides: &Sides) -> io::Result<()> {
        self.rules("del", sides)
    }

    fn rules(&self, verb: &str, (these, those): &Sides) -> io::Result<()> {
        let pairs = these.iter().flat_map(|&a| those.iter().flat_map(move |&b| [(a, b), (b, a)]));
        let rule = |(from, to): (usize, usize)| {
            format!("rule {verb} iif to-{} to 10.0.{}.0/24 blackhole", from + 1, to + 1)
        };
        batch(&["-n", &self.router], &pairs.map(rule).collect::<Vec<_>>())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.names.iter().chain([&self.router]) {
            let _ = batch(&[], &[format!("netns del {name}")]);
        }
    }
}

/// Why namespaces cannot be made here, if they cannot.
pub(crate) fn unavailable(guard: &Guard) -> Option<String> {
    match Network::make(guard).and_then(|network| network.cut(&(&[0], &[1]))) {
        Ok(()) => None,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Some("there is no ip program (Debian: iproute2)".into())
        }
        Err(e) => Some(e.to_string()),
    }
}

fn namespace(name: &str) -> io::Result<Arc<File>> {
    File::open(format!("{NAMES}/{name}")).map(Arc::new)
}

/// Gives `ip` some commands at once.
fn batch(options: &[&str], commands: &[String]) -> io::Result<()> {
    let mut ip = Command::new("ip");
    ip.args(options).args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut ip = ip.spawn()?;
    let mut input = ip.stdin.take().expect("it is piped");
    // If it has ended already, its status says why.
    let _ = input.write_all((commands.join("\n") + "\n").as_bytes());
    drop(input);
    let ended = ip.wait_with_output()?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(io::Error::other(format!("ip: {}", said.lines().next().unwrap_or("failed").trim())))
}
