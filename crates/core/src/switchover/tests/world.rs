//! A deployment of plain data: a master, replicas and Sentinels that answer what real ones do, a topology that follows
//! them, and a client that writes to the first master directly. Any command can be made to fail.
use super::super::*;
use crate::observe::reply::Decoder;
use crate::topology::observation::Gone;
use crate::topology::outlook::{Known, Outlook};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub(super) const MS: Duration = Duration::from_millis(1);
/// From the order of a failover to the promotion, and from there to the topology's proof.
pub(super) const PROMOTION: Duration = Duration::from_millis(150);
const PROOF: Duration = Duration::from_millis(20);
/// From there until a Sentinel that has coordinated it has seen it.
const SEEN: Duration = Duration::from_millis(400);
/// How long a Sentinel has the master paused.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(180);

pub(super) fn at(port: u16) -> HostPort {
    HostPort { host: "127.0.0.1".into(), port }
}

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) follows: Option<u16>,
    pub(super) offset: u64,
    pub(super) replid: &'static str,
    pub(super) replid2: &'static str,
    pub(super) priority: u32,
    pub(super) paused_until: Option<Now>,
    /// It waits for a replica that it would hand over to, and pauses writes meanwhile.
    pub(super) waits: bool,
}

/// How a command fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fail {
    Error,
    /// The connection ends, and the command was not executed …
    Lost,
    /// … or it was.
    LostAfter,
    Silent,
}

pub(super) struct World {
    pub(super) now: Now,
    pub(super) s: Switchover,
    pub(super) nodes: BTreeMap<u16, Node>,
    /// Priorities as the Sentinels know them.
    pub(super) shown: BTreeMap<u16, u32>,
    pub(super) outlook: Outlook,
    pub(super) sentinel_flags: &'static str,
    pub(super) down_after: u64,
    pub(super) in_flight: u64,
    pub(super) coordinated: bool,
    /// The Sentinel that was asked dies before it has seen the promotion.
    pub(super) leader_dies: bool,
    /// When clients of the promoted node are cut.
    cut: Option<(Now, u16)>,
    /// Commands that match get no permission.
    pub(super) denied: Option<&'static str>,
    /// The command with this number fails.
    pub(super) fail: Option<(usize, Fail)>,
    /// Sentinels that were ordered to do something never do it.
    pub(super) lazy: bool,
    /// The topology learns nothing.
    pub(super) stalled: bool,
    /// Another switchover of the same deployment is ahead of ours: what it has paused, and its failover.
    pub(super) rival: bool,
    /// Commands with this in them are not answered.
    pub(super) mute: Option<&'static str>,
    /// Nobody answers any more.
    pub(super) silent: bool,
    lines: BTreeMap<LineId, u16>,
    pub(super) commands: Vec<(Now, u16, String)>,
    promotion: Option<(Now, u16)>,
    proof: Option<(Now, u16)>,
    shown_at: Option<Now>,
    pub(super) held: bool,
    pub(super) holds: usize,
    pub(super) said: Vec<Said>,
    pub(super) outcome: Option<Result<String, String>>,
    /// Writes that the direct client got executed on a node after another was promoted.
    pub(super) lost: u32,
}

impl World {
    /// Nodes 1 (master), 2 and 3; Sentinels 11, 12 and 13.
    pub(super) fn new() -> World {
        let node = |follows| Node {
            follows,
            offset: 1000,
            replid: "a",
            replid2: "0",
            priority: 100,
            paused_until: None,
            waits: false,
        };
        let nodes = BTreeMap::from([(1, node(None)), (2, node(Some(1))), (3, node(Some(1)))]);
        let known = |port: &u16| Known { at: at(*port), addr: at(*port).literal() };
        let outlook = Outlook {
            service: "cache".into(),
            monitored: Some("mymaster".into()),
            master: Some(at(1)),
            proven_at: Now::ZERO,
            holds: None,
            nodes: nodes.keys().map(known).collect(),
            sentinels: (11..14).map(at).collect(),
            majority: 2,
        };
        let now = Now::from_millis(1000);
        let nobody = Outlook { nodes: Vec::new(), sentinels: Vec::new(), ..outlook.clone() };
        World {
            now,
            s: Switchover::new(now, nobody, Order::default(), Credentials::default()),
            shown: nodes.keys().map(|n| (*n, 100)).collect(),
            nodes,
            outlook,
            sentinel_flags: "master",
            down_after: 1000,
            in_flight: 0,
            coordinated: false,
            leader_dies: false,
            cut: None,
            denied: None,
            fail: None,
            lazy: false,
            stalled: false,
            rival: false,
            mute: None,
            silent: false,
            lines: BTreeMap::new(),
            commands: Vec::new(),
            promotion: None,
            proof: None,
            shown_at: None,
            held: false,
            holds: 0,
            said: Vec::new(),
            outcome: None,
            lost: 0,
        }
    }

    /// Without Sentinels.
    pub(super) fn alone() -> World {
        let mut w = World::new();
        (w.outlook.monitored, w.outlook.majority) = (None, 0);
        w.outlook.sentinels.clear();
        w
    }

    /// Runs a switchover to its end.
    pub(super) fn run(&mut self, to: Option<u16>) -> Result<String, String> {
        let to = to.map(|port| at(port).to_string().into());
        self.order(Order { to, ..Order::default() })
    }

    pub(super) fn order(&mut self, order: Order) -> Result<String, String> {
        self.begin(order);
        self.finish()
    }

    /// Goes on to its end.
    pub(super) fn finish(&mut self) -> Result<String, String> {
        let end = self.now + Duration::from_secs(120);
        while self.outcome.is_none() {
            self.step();
            assert!(self.now < end, "it does not end: {:?}", self.commands.last());
        }
        self.outcome.clone().unwrap()
    }

    pub(super) fn begin(&mut self, order: Order) {
        let credentials = Credentials::default();
        self.s = Switchover::new(self.now, self.outlook.clone(), order, credentials);
        self.outcome = None;
        self.drain();
    }

    /// Goes on to the next moment at which something happens.
    pub(super) fn step(&mut self) {
        let own =
            [self.promotion.map(|p| p.0), self.proof.map(|p| p.0), self.cut.map(|c| c.0), self.shown_at];
        let next = own.into_iter().flatten().chain(self.s.next_timeout()).min().expect("something is due");
        assert!(next != Now::NEVER);
        self.now = self.now.max(next) + Duration::from_micros(10);
        self.happen();
        self.s.timeout(self.now);
        self.drain();
    }

    pub(super) fn happen(&mut self) {
        for node in self.nodes.values_mut() {
            node.paused_until = node.paused_until.filter(|until| self.now < *until);
        }
        if let Some((_, new)) = self.promotion.take_if(|p| self.now >= p.0) {
            let node = self.nodes.get_mut(&new).unwrap();
            (node.follows, node.replid, node.replid2) = (None, "b", "a");
            self.proof = Some((self.now + PROOF, new));
            if self.coordinated {
                let old = self.nodes.get_mut(&1).unwrap();
                (old.follows, old.waits) = (Some(new), false);
                self.cut = (!self.leader_dies).then_some((self.now + SEEN, new));
            }
        }
        if let Some((_, new)) = self.cut.take_if(|c| self.now >= c.0) {
            self.nodes.get_mut(&1).unwrap().paused_until = None;
            self.cut_clients(new);
        }
        if let Some((_, new)) = self.proof.take_if(|p| self.now >= p.0) {
            (self.outlook.master, self.outlook.holds) = (Some(at(new)), None);
        }
        if !self.stalled && self.outlook.holds.is_none() {
            self.outlook.proven_at = self.now;
        }
        if self.shown_at.take_if(|t| self.now >= *t).is_some() {
            self.shown = self.nodes.iter().map(|(port, n)| (*port, n.priority)).collect();
        }
        self.direct_write();
        self.s.look(self.now, self.outlook.clone());
    }

    /// `CLIENT KILL TYPE normal`, on both.
    fn cut_clients(&mut self, new: u16) {
        let of = |port: &u16| *port == 1 || *port == new;
        let ids: Vec<LineId> = self.lines.iter().filter(|(_, port)| of(port)).map(|(id, _)| *id).collect();
        for id in ids {
            self.lines.remove(&id);
            self.s.gone(self.now, id, &Gone::Closed);
        }
    }

    /// A client that writes to node 1 whenever it is let.
    fn direct_write(&mut self) {
        let promoted = self.nodes.values().any(|n| n.replid2 == "a");
        let first = &self.nodes[&1];
        if first.paused_until.is_none() && !first.waits && first.follows.is_none() && promoted {
            self.lost += 1;
        }
    }

    pub(super) fn drain(&mut self) {
        while let Some(wanted) = self.s.poll() {
            match wanted {
                Do::Connect(id, to) => {
                    self.lines.insert(id, to.port);
                    self.s.connected(self.now, id);
                }
                Do::Close(id) => drop(self.lines.remove(&id)),
                Do::Send(id, bytes) => self.take(id, &bytes),
                Do::Hold(_) => {
                    assert!(!self.held);
                    (self.held, self.holds) = (true, self.holds + 1);
                }
                Do::Release => {
                    assert!(self.held && self.cut.is_none(), "what is let out now would be cut");
                    self.held = false;
                }
                Do::Count => self.s.in_flight(self.now, Some(self.in_flight)),
                Do::Say(said) => self.said.push(said),
                Do::Finish(outcome) => {
                    assert!(self.outcome.is_none(), "it ends once");
                    self.outcome = Some(outcome);
                }
            }
        }
    }

    fn take(&mut self, id: LineId, bytes: &[u8]) {
        let mut decoder = Decoder::default();
        decoder.feed(bytes);
        while let Ok(Some(value)) = decoder.next() {
            let words: Vec<String> = value.items().iter().map(|w| w.text().unwrap().into()).collect();
            let Some(port) = self.lines.get(&id).copied() else { return };
            self.now = self.now + Duration::from_micros(50);
            self.happen();
            let number = self.commands.len();
            let command = words.join(" ");
            self.commands.push((self.now, port, command.clone()));
            let fail = self.fail.filter(|(n, _)| *n == number).map(|(_, f)| f);
            let reply = match fail {
                Some(Fail::Error) => "-ERR it fails\r\n".into(),
                Some(Fail::Silent) => continue,
                None if self.silent || self.mute.is_some_and(|m| command.contains(m)) => continue,
                Some(Fail::Lost | Fail::LostAfter) => {
                    if fail == Some(Fail::LostAfter) {
                        self.answer(port, &command);
                    }
                    self.lines.remove(&id);
                    self.s.gone(self.now, id, &Gone::Closed);
                    return;
                }
                None if self.denied.is_some_and(|d| command.starts_with(d)) => {
                    "-NOPERM this user has no permissions\r\n".into()
                }
                None => self.answer(port, &command),
            };
            self.s.bytes(self.now, id, reply.as_bytes());
        }
    }

    fn answer(&mut self, port: u16, command: &str) -> String {
        if port > 10 { self.sentinel(command) } else { self.node(port, command) }
    }

    fn sentinel(&mut self, command: &str) -> String {
        let master = self.outlook.master.clone().unwrap().port;
        let words: Vec<&str> = command.split(' ').collect();
        match words.as_slice() {
            ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", _] => list(&["127.0.0.1", &master.to_string()]),
            ["SENTINEL", "MASTER", _] => {
                let ms = self.down_after.to_string();
                list(&["flags", self.sentinel_flags, "down-after-milliseconds", &ms])
            }
            ["SENTINEL", "SLAVES", _] => self.replicas(),
            ["INFO", "sentinel"] => bulk("# Sentinel\r\nsentinel_tilt:0\r\n"),
            ["SENTINEL", "FAILOVER", "mymaster", ..] => self.failover(),
            ["SENTINEL", "FAILOVER", _, "COORDINATED"] if !self.coordinated => {
                "-ERR wrong number of arguments for 'sentinel|failover' command\r\n".into()
            }
            ["SENTINEL", "FAILOVER", ..] => "-ERR No such master with that name\r\n".into(),
            _ => "-ERR unknown command\r\n".into(),
        }
    }

    fn replicas(&self) -> String {
        let replicas = self.nodes.iter().filter(|(_, n)| n.follows.is_some());
        let one = |(port, _): (&u16, &Node)| {
            let (port, priority) = (port.to_string(), self.shown[port].to_string());
            list(&["ip", "127.0.0.1", "port", &port, "flags", "slave", "slave-priority", &priority])
        };
        let all: Vec<String> = replicas.map(one).collect();
        format!("*{}\r\n{}", all.len(), all.concat())
    }

    /// The leader promotes the first replica that it believes to have a priority.
    fn failover(&mut self) -> String {
        if self.rival {
            return "-INPROG Failover already in progress\r\n".into();
        }
        let able = |port: &u16, n: &Node| n.follows == Some(1) && self.shown[port] > 0;
        let new = self.nodes.iter().find(|(port, n)| able(port, n)).map(|(port, _)| *port);
        let Some(new) = new else { return "-NOGOODSLAVE No suitable replica to promote\r\n".into() };
        if self.coordinated {
            let master = self.nodes.get_mut(&1).unwrap();
            (master.paused_until, master.waits) = (Some(self.now + FAILOVER_TIMEOUT), true);
        }
        if !self.lazy {
            self.outlook.holds = Some("a Sentinel is failing over".into());
            self.promotion = Some((self.now + PROMOTION, new));
        }
        "+OK\r\n".into()
    }

    fn node(&mut self, port: u16, command: &str) -> String {
        let now = self.now;
        let replicas: Vec<u16> =
            self.nodes.iter().filter(|(_, n)| n.follows == Some(port)).map(|(p, _)| *p).collect();
        let n = self.nodes.get_mut(&port).unwrap();
        let words: Vec<&str> = command.split(' ').collect();
        match words.as_slice() {
            ["INFO", "replication"] => bulk(&info(n, &replicas)),
            ["CLIENT", "PAUSE", "?", _] => "-ERR timeout is not an integer or out of range\r\n".into(),
            ["CLIENT", "PAUSE", ms, _] => {
                n.paused_until = Some(now + MS * ms.parse().unwrap());
                "+OK\r\n".into()
            }
            ["CLIENT", "UNPAUSE"] => {
                n.paused_until = None;
                "+OK\r\n".into()
            }
            ["REPLICAOF", _, "?"] => "-ERR Invalid master port\r\n".into(),
            ["REPLICAOF", _, of] => {
                n.follows = Some(of.parse().unwrap());
                "+OK\r\n".into()
            }
            ["CONFIG", "SET", _, "?"] => "-ERR CONFIG SET failed: argument couldn't be parsed\r\n".into(),
            ["CONFIG", "SET", _, priority] => {
                n.priority = priority.parse().unwrap();
                self.shown_at = Some(now + Duration::from_secs(9));
                "+OK\r\n".into()
            }
            ["FAILOVER", "TIMEOUT", "?"] => "-ERR value is not an integer or out of range\r\n".into(),
            ["FAILOVER", "TO", _, to, ..] => {
                let to = to.parse().unwrap();
                if !self.lazy {
                    n.follows = Some(to);
                    self.promotion = Some((now + PROMOTION, to));
                }
                "+OK\r\n".into()
            }
            ["FAILOVER", "ABORT"] => {
                n.waits = false;
                "+OK\r\n".into()
            }
            ["CONFIG", "REWRITE"] => "+OK\r\n".into(),
            _ => "-ERR unknown command\r\n".into(),
        }
    }

    /// A node does now what it was asked while all were silent.
    pub(super) fn obey_late(&mut self, port: u16, command: &str) {
        let reply = self.node(port, command);
        self.s.bytes(self.now, LineId(port - 1), reply.as_bytes());
        self.drain();
    }

    /// Whatever happened: nothing of ours is left.
    pub(super) fn assert_put_back(&mut self) {
        assert!(!self.held, "{:?}", self.outcome);
        self.now = self.now + Duration::from_secs(5);
        self.happen();
        assert!(self.nodes.values().all(|n| n.paused_until.is_none() && !n.waits));
        assert!(self.nodes.values().all(|n| n.priority == 100), "{:?} {:?}", self.outcome, self.nodes);
    }

    pub(super) fn did(&self, command: &str) -> bool {
        self.commands.iter().any(|(_, _, c)| c.starts_with(command))
    }
}

fn info(n: &Node, replicas: &[u16]) -> String {
    let mut text = match n.follows {
        None => {
            format!("role:master\r\nmaster_repl_offset:{}\r\nmaster_failover_state:no-failover\r\n", n.offset)
        }
        Some(of) => format!(
            "role:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:{of}\r\nmaster_link_status:up\r\n\
             slave_repl_offset:{}\r\nslave_priority:{}\r\n",
            n.offset, n.priority
        ),
    };
    for (i, port) in replicas.iter().enumerate() {
        text += &format!("slave{i}:ip=127.0.0.1,port={port},state=online,offset=1,lag=0\r\n");
    }
    text + &format!("master_replid:{}\r\nmaster_replid2:{}\r\n", n.replid, n.replid2)
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn list(words: &[&str]) -> String {
    let all: Vec<String> = words.iter().map(|w| bulk(w)).collect();
    format!("*{}\r\n{}", all.len(), all.concat())
}
