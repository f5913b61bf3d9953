//! Drives the worker as `crates/pointsman/src/data/event_loop.rs` does: the same phases, the same edges, the same lists.
use super::migrate::Moving;
use super::net::{Got, LinkId, Peer};
use super::{SERVICE, World};
use pointsman_core::Now;
use pointsman_core::session::Ends;
use pointsman_core::topology::snapshot::{Endpoint, Snapshot};
use pointsman_core::worker::{Audit, ClientId, Dst, Effect, Event, How, Side, UpId, Worker};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// As in the event loop.
const READS_A_TURN: usize = 4;

pub(super) struct Conn {
    pub(super) dst: Dst,
    pub(super) connecting: bool,
    pub(super) readable: bool,
    pub(super) ended: bool,
    pub(super) listed: bool,
    pub(super) writable: bool,
}

enum Message {
    Accepted(LinkId),
    Snapshot(Arc<Snapshot>),
}

pub(super) struct Shell {
    pub(super) worker: Worker,
    pub(super) conns: BTreeMap<LinkId, Conn>,
    pub(super) clients: HashMap<ClientId, LinkId>,
    ups: HashMap<UpId, LinkId>,
    pub(super) to_read: Vec<LinkId>,
    to_write: Vec<LinkId>,
    /// Connections under way: when they are decided, and how.
    connecting: Vec<(Now, LinkId, usize)>,
    mailbox: VecDeque<Message>,
    read_max: usize,
    /// Something happened in this turn.
    pub(super) moved: bool,
    /// Clients that have left, and come back as those of another worker do.
    pub(super) moving: Vec<Moving>,
    /// So many bytes were given to clients in this turn.
    given: HashMap<ClientId, usize>,
    /// Clients that had more unread, when the last turn ended, than they may have to be asked for more.
    full: HashMap<ClientId, (usize, u64)>,
}

impl Shell {
    pub(super) fn new(worker: Worker, read_max: usize) -> Shell {
        Shell {
            worker,
            conns: BTreeMap::new(),
            clients: HashMap::new(),
            ups: HashMap::new(),
            to_read: Vec::new(),
            to_write: Vec::new(),
            connecting: Vec::new(),
            mailbox: VecDeque::new(),
            read_max,
            moved: false,
            moving: Vec::new(),
            given: HashMap::new(),
            full: HashMap::new(),
        }
    }

    pub(super) fn read_max(&self) -> usize {
        self.read_max
    }

    pub(super) fn mail_accepted(&mut self, link: LinkId) {
        self.mailbox.push_back(Message::Accepted(link));
    }

    pub(super) fn mail_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.mailbox.push_back(Message::Snapshot(snapshot));
    }

    pub(super) fn next_event(&self) -> Option<Now> {
        let arrive = self.moving.iter().map(|m| m.arrives);
        self.connecting.iter().map(|(at, ..)| *at).chain(arrive).min()
    }

    /// A turn has ended. (8) Who left `soft` bytes unread all the time was not asked for more.
    pub(super) fn check_unread(&mut self, audit: &Audit, soft: usize) -> Result<(), String> {
        let given = std::mem::take(&mut self.given);
        for (id, _, asked) in &audit.clients {
            let Some((unread, before)) = self.full.get(id) else { continue };
            let least = unread.saturating_sub(given.get(id).copied().unwrap_or(0));
            if least >= soft && asked > before {
                return Err(format!("(8) {id:?} has {least} bytes unread, and is asked for more"));
            }
        }
        let full = audit.clients.iter().filter(|(_, unread, _)| *unread >= soft);
        self.full = full.map(|(id, unread, asked)| (*id, (*unread, *asked))).collect();
        Ok(())
    }

    /// Whether all connections to servers take bytes.
    pub(super) fn all_writable(&self) -> bool {
        self.conns.values().all(|c| c.writable || c.connecting || matches!(c.dst, Dst::Client(_)))
    }

    /// How long it would sleep.
    pub(super) fn patience(&self, now: Now) -> Option<Duration> {
        if !self.to_read.is_empty() || self.worker.has_dirty() {
            return Some(Duration::ZERO);
        }
        self.worker.next_timeout(now).map(|t| t.since(now))
    }
}

impl World {
    /// One turn. `late`: what the control plane publishes comes in the middle of it.
    pub(super) fn turn(&mut self, late: bool) -> Result<bool, String> {
        self.shell.moved = false;
        self.note_connected()?;
        for (link, edges) in self.net.edges() {
            self.note_edges(link, edges);
        }
        self.mail()?;
        self.read_all()?;
        self.write_all(Side::Clients)?;
        if late && self.control_tick() {
            self.shell.moved = true;
        }
        // The version is looked at again: what was published meanwhile comes before what is sent.
        self.mail()?;
        if self.rng.chance(20) {
            self.now = self.now + Duration::from_micros(self.rng.below(300));
        }
        let now = self.now;
        self.shell.worker.timeout_if_due(now);
        self.effects()?;
        for link in std::mem::take(&mut self.shell.to_write) {
            if let Some(dst) = self.shell.conns.get(&link).map(|c| c.dst) {
                self.write(link, dst)?;
            }
        }
        self.write_all(Side::Ups)?;
        self.write_all(Side::Clients)?;
        self.migrate()?;
        Ok(self.shell.moved)
    }

    fn note_connected(&mut self) -> Result<(), String> {
        let now = self.now;
        let mut due = Vec::new();
        self.shell.connecting.retain(|&(at, link, server)| {
            if at <= now {
                due.push((link, server));
            }
            at > now
        });
        for (link, server) in due {
            let Some(conn) = self.shell.conns.get_mut(&link) else { continue };
            let Dst::Up(id) = conn.dst else { continue };
            self.shell.moved = true;
            if self.refusing[server] || now < self.unreachable_until {
                self.report.count("connections refused", 1);
                self.drop_conn(link);
                self.net.close(link, How::Abort);
                self.net.peer_close(link, false);
                self.shell.worker.connected(now, id, false);
            } else {
                conn.connecting = false;
                conn.writable = true;
                self.servers[server].accept(link);
                self.shell.worker.connected(now, id, true);
            }
            self.effects()?;
        }
        Ok(())
    }

    fn note_edges(&mut self, link: LinkId, edges: super::net::Edges) {
        let Some(conn) = self.shell.conns.get_mut(&link) else { return };
        if edges.readable {
            conn.readable = true;
            conn.ended |= edges.ended;
            if !conn.listed {
                conn.listed = true;
                self.shell.to_read.push(link);
            }
        }
        if edges.writable && !conn.writable {
            conn.writable = true;
            self.shell.to_write.push(link);
        }
    }

    fn mail(&mut self) -> Result<(), String> {
        let now = self.now;
        while let Some(message) = self.shell.mailbox.pop_front() {
            self.shell.moved = true;
            match message {
                Message::Accepted(link) => self.accepted(link),
                Message::Snapshot(snapshot) => {
                    self.note(|| format!("snapshot {:?}", snapshot.services[0].shards[0]));
                    self.check.installed(&snapshot.services[0].shards[0]);
                    self.shell.worker.snapshot(now, snapshot);
                }
            }
            self.effects()?;
            self.check.fenced(now)?;
        }
        Ok(())
    }

    fn accepted(&mut self, link: LinkId) {
        let Ok(id) = self.shell.worker.accepted(self.now, SERVICE, self.asks_durable(link), Ends::Unknown)
        else {
            return;
        };
        let conn = Conn {
            dst: Dst::Client(id),
            connecting: false,
            readable: true,
            ended: false,
            listed: true,
            writable: true,
        };
        self.shell.conns.insert(link, conn);
        self.shell.clients.insert(id, link);
        self.shell.to_read.push(link);
    }

    fn read_all(&mut self) -> Result<(), String> {
        let listed = std::mem::take(&mut self.shell.to_read);
        for clients in [true, false] {
            for &link in &listed {
                let of_side =
                    self.shell.conns.get(&link).is_some_and(|c| matches!(c.dst, Dst::Client(_)) == clients);
                if of_side {
                    self.read(link);
                }
            }
            self.effects()?;
        }
        Ok(())
    }

    fn read(&mut self, link: LinkId) {
        let now = self.now;
        let Some(conn) = self.shell.conns.get_mut(&link) else { return };
        conn.listed = false;
        let dst = conn.dst;
        for _ in 0..READS_A_TURN {
            let Some(conn) = self.shell.conns.get_mut(&link).filter(|c| c.dst == dst && c.readable) else {
                return;
            };
            let ended = conn.ended;
            if !self.shell.worker.reads(dst) {
                self.report.count("reads held back", 1);
                if ended {
                    self.shell.worker.hung_up(now, dst);
                    self.report.count("clients that hang up and are not read", 1);
                }
                self.note(|| format!("{link} {dst:?} is not read now"));
                return;
            }
            let room = self.shell.worker.read_room(dst);
            let (most, in_place) = (room.as_ref().map_or(usize::MAX, |r| r.len()), room.is_some());
            let most = most.min(self.shell.read_max);
            let got = self.net.read(link, most);
            if let (Some(room), Got::Bytes(bytes)) = (room, &got) {
                room[..bytes.len()].copy_from_slice(bytes);
            }
            match got {
                Got::Bytes(bytes) => {
                    self.shell.moved = true;
                    conn.readable = bytes.len() == most || conn.ended;
                    if let Dst::Up(_) = dst {
                        let to = self.net.heard_from(link).1;
                        self.check.reads(now, link, to - bytes.len() as u64, to);
                    }
                    if in_place {
                        self.report.count("reads in place", 1);
                        self.shell.worker.filled(now, dst, bytes.len());
                    } else {
                        self.shell.worker.read(now, dst, &bytes);
                    }
                    self.note(|| format!("{link} {dst:?} is read: {}", short(&bytes)));
                }
                Got::Nothing => {
                    conn.readable = false;
                    return;
                }
                Got::End => {
                    self.shell.moved = true;
                    conn.readable = false;
                    match dst {
                        Dst::Client(_) => self.shell.worker.eof(now, dst),
                        Dst::Up(_) => self.failed(link, dst),
                    }
                    return;
                }
                Got::Reset => return self.failed(link, dst),
            }
        }
        self.list(link, dst);
    }

    fn list(&mut self, link: LinkId, dst: Dst) {
        if let Some(conn) =
            self.shell.conns.get_mut(&link).filter(|c| c.dst == dst && c.readable && !c.listed)
        {
            conn.listed = true;
            self.shell.to_read.push(link);
        }
    }

    fn failed(&mut self, link: LinkId, dst: Dst) {
        let what = if matches!(dst, Dst::Up(_)) { "connections lost" } else { "clients lost" };
        self.report.count(what, 1);
        self.shell.moved = true;
        self.drop_conn(link);
        self.net.close(link, How::Abort);
        self.shell.worker.gone(self.now, dst);
    }

    fn drop_conn(&mut self, link: LinkId) {
        if let Some(conn) = self.shell.conns.remove(&link) {
            self.forget(conn.dst);
        }
        self.check.closed(link);
    }

    fn forget(&mut self, dst: Dst) -> Option<LinkId> {
        match dst {
            Dst::Client(id) => self.shell.clients.remove(&id),
            Dst::Up(id) => self.shell.ups.remove(&id),
        }
    }

    fn link_of(&self, dst: Dst) -> Option<LinkId> {
        match dst {
            Dst::Client(id) => self.shell.clients.get(&id).copied(),
            Dst::Up(id) => self.shell.ups.get(&id).copied(),
        }
    }

    fn write_all(&mut self, side: Side) -> Result<(), String> {
        while let Some(dst) = self.shell.worker.next_dirty(side) {
            if let Some(link) = self.link_of(dst) {
                self.write(link, dst)?;
            }
        }
        self.effects()
    }

    fn write(&mut self, link: LinkId, dst: Dst) -> Result<(), String> {
        let now = self.now;
        loop {
            let usable = |c: &&mut Conn| c.dst == dst && c.writable && !c.connecting;
            let Some(conn) = self.shell.conns.get_mut(&link).filter(usable) else { return Ok(()) };
            let bytes = self.shell.worker.gather(now, dst).to_vec();
            if bytes.is_empty() {
                return Ok(());
            }
            let Some(n) = self.net.write(link, &bytes) else {
                self.failed(link, dst);
                return Ok(());
            };
            if n == 0 {
                conn.writable = false;
                return Ok(());
            }
            self.shell.moved = true;
            conn.writable = n == bytes.len();
            let blocked = !conn.writable;
            let part = if matches!(dst, Dst::Up(_)) {
                "writes in part to servers"
            } else {
                "writes in part to clients"
            };
            self.report.count(part, u64::from(blocked));
            if let Dst::Client(id) = dst {
                *self.shell.given.entry(id).or_default() += n;
            }
            if matches!(dst, Dst::Up(_)) {
                let taken: BTreeMap<LinkId, u64> =
                    self.net.to_servers().into_iter().map(|(l, _)| (l, self.net.heard_from(l).1)).collect();
                self.check.sent(now, link, &bytes, n, &taken)?;
            }
            self.note(|| format!("{link} {dst:?} is written: {}", short(&bytes[..n])));
            self.shell.worker.wrote(now, dst, n);
            if blocked {
                return Ok(());
            }
        }
    }

    pub(super) fn effects(&mut self) -> Result<(), String> {
        while let Some(effect) = self.shell.worker.poll() {
            self.shell.moved = true;
            match effect {
                Effect::Connect(id, to) => self.connect(id, &to),
                Effect::Close(dst, how) => {
                    if let Some(link) = self.forget(dst) {
                        self.note(|| format!("{link} {dst:?} is closed, {how:?}"));
                        self.shell.conns.remove(&link);
                        self.check.closed(link);
                        self.net.close(link, how);
                    }
                }
                Effect::Resume(dst) => {
                    if let Some(link) = self.link_of(dst) {
                        self.list(link, dst);
                    }
                }
                Effect::OnlyRead(id) => self.only_read(id)?,
                Effect::Finish(id) => {
                    if let Some(link) = self.link_of(Dst::Up(id)) {
                        self.note(|| format!("{link} is told that its client says no more"));
                        self.report.count("connections told that their clients say no more", 1);
                        self.net.finish(link);
                    }
                }
                Effect::Arrived(id) => self.arrived(id),
                Effect::Ask(_) | Effect::Found { .. } => return Err("there is no other worker".into()),
                Effect::Tell(Event::Sign(sign)) => {
                    self.note(|| format!("{sign:?}"));
                    self.check.signed(&sign);
                    self.signed(&sign);
                }
                Effect::Tell(event) => {
                    self.note(|| format!("{event:?}"));
                }
            }
        }
        Ok(())
    }

    fn only_read(&mut self, id: UpId) -> Result<(), String> {
        let Some(link) = self.link_of(Dst::Up(id)) else { return Ok(()) };
        self.note(|| format!("{link} is only read from now on"));
        self.report.count("connections that are read on", 1);
        let taken = self.net.heard_from(link).1;
        self.check.only_read(link, self.now, taken)
    }

    fn arrived(&mut self, id: UpId) {
        if let Some(link) = self.link_of(Dst::Up(id)).filter(|link| !self.net.has_delivered(*link)) {
            self.failed(link, Dst::Up(id));
        }
    }

    fn connect(&mut self, id: UpId, to: &Endpoint) {
        let server = super::control::server_at(to);
        if !self.healed && self.rng.chance(3) {
            self.shell.worker.connected(self.now, id, false);
            return;
        }
        let room = [40, 400, 200_000][self.rng.index(3)];
        let link = self.net.open(Peer::Server(server), room);
        let wait = if self.healed || self.rng.chance(95) { self.rng.below(3_000) } else { 10_000_000 };
        self.report.count("connections that are never made", u64::from(wait == 10_000_000));
        self.shell.connecting.push((self.now + Duration::from_micros(wait), link, server));
        self.check.opened(link, to.clone());
        self.note(|| format!("connection {link} to server {server}"));
        let conn = Conn {
            dst: Dst::Up(id),
            connecting: true,
            readable: false,
            ended: false,
            listed: false,
            writable: false,
        };
        self.shell.conns.insert(link, conn);
        self.shell.ups.insert(id, link);
    }
}

fn short(bytes: &[u8]) -> String {
    let text = bytes[..bytes.len().min(160)].escape_ascii().to_string();
    format!("{} {}", bytes.len(), text.replace("\\r\\n", "|"))
}
