//! A model node: what it has, how it replicates, and what it answers. Roles, and who is told what by Sentinels, are
//! [`crate::topology::world`]'s.
//!
//! Its data are the log of the writes that made them; its replication offset is their number, and some. A replica
//! follows while the histories agree (`masterTryPartialResynchronization` in `replication.c`), and otherwise takes over
//! all that its master has, and loses what it had.
use super::net::{ConnId, Near, Packet, Server, Stamp};
use super::{BASE, Blindfold, Event, Whole};
use crate::resp::{Tag, bulk, encode, request, tag_of};
use crate::topology::drive::host;
use pointsman_core::topology::observation::TargetKind;
use std::collections::{BTreeMap, VecDeque};

/// One entry of a node's replication stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// Whose write; `None`: something that changes no data.
    pub(super) tag: Option<Tag>,
    /// Which key.
    pub(super) key: u32,
}

/// A command that waits.
#[derive(Debug)]
struct Waiting {
    /// For so many replicas …
    need: usize,
    /// … to have this …
    len: usize,
    /// … until then.
    until: u64,
}

/// One connection of a node.
#[derive(Debug, Default)]
pub(super) struct Link {
    input: Vec<u8>,
    /// Of the command that is executed now.
    stamp: Option<Stamp>,
    queue: VecDeque<(Vec<Vec<u8>>, Option<Stamp>)>,
    tx: Option<Vec<Vec<Vec<u8>>>>,
    /// A command of its transaction was refused.
    refused: bool,
    /// How much there was when it last wrote.
    wrote: usize,
    waiting: Option<Waiting>,
    /// The other end has closed it while the process was stopped: what stands before that is read, and no more waits.
    over: bool,
}

/// What a node has besides its role.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// What it has executed, or was given.
    pub(super) log: Vec<Entry>,
    /// How much of it was of the history before (`second_repl_offset`).
    second: usize,
    /// The role and history when it was last looked at.
    pub(super) of: Option<usize>,
    replid: u64,
    run: u64,
    /// It follows its master: the replication link stands.
    pub(super) synced: bool,
    /// How far each replica has acknowledged.
    pub(super) acked: BTreeMap<usize, usize>,
    pub(super) links: BTreeMap<ConnId, Link>,
    /// A slow link to its master: what comes over it comes so far apart, and when next.
    pub(super) lag: u64,
    pub(super) fed_at: u64,
    /// It runs a script, and says so.
    pub(super) busy: bool,
    /// When it acknowledges without being asked, the next time.
    acks_at: u64,
}

impl Store {
    pub(super) fn new(of: Option<usize>, replid: u64) -> Store {
        Store { of, replid, synced: of.is_some(), ..Store::default() }
    }
}

pub(super) fn error(text: &str) -> Vec<u8> {
    format!("-{text}\r\n").into_bytes()
}

fn text(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    bulk(&mut out, text.as_bytes());
    out
}

pub(super) const OK: &[u8] = b"+OK\r\n";

/// Whether a command is refused by a replica.
fn writes(name: &[u8]) -> bool {
    matches!(name, b"SET" | b"EVAL")
}

impl Whole {
    pub(super) fn works(&self, n: usize) -> bool {
        self.world.nodes[n].alive && !self.world.nodes[n].stopped
    }

    /// Something came to a node's host.
    pub(super) fn node_hears(&mut self, n: usize, conn: ConnId, packet: Packet) {
        let (alive, works) = (self.world.nodes[n].alive, self.works(n));
        let link = self.stores[n].links.get_mut(&conn);
        match (packet, link) {
            (Packet::Connect, _) if alive => {
                self.stores[n].links.insert(conn, Link::default());
                self.send(conn, false, Packet::Connected);
            }
            (Packet::Connect, _) => self.send(conn, false, Packet::Refused),
            (Packet::Data(bytes, stamp), Some(link)) => {
                link.input.extend_from_slice(&bytes);
                while let Ok(Some((args, len))) = request(&link.input) {
                    link.input.drain(..len);
                    link.queue.push_back((args, stamp));
                }
                self.node_reads(n, conn);
            }
            // The kernel keeps what stands before a reset; a process that is stopped reads it later.
            (Packet::Reset, Some(_)) if works => drop(self.stores[n].links.remove(&conn)),
            (Packet::Reset, Some(link)) => link.over = true,
            (Packet::Data(..), None) => self.send(conn, false, Packet::Reset),
            _ => {}
        }
    }

    /// Reads what stands in the kernel, and executes it.
    fn node_reads(&mut self, n: usize, conn: ConnId) {
        let busy = self.stores[n].busy;
        if !self.works(n) && !busy {
            return;
        }
        let mut out = Vec::new();
        while let Some(link) = self.stores[n].links.get_mut(&conn) {
            if link.waiting.is_some() {
                break;
            }
            let Some((args, stamp)) = link.queue.pop_front() else { break };
            link.stamp = stamp;
            let name = args[0].to_ascii_uppercase();
            if busy {
                out.extend(self.busy_says(n, conn, &name, &args));
                continue;
            }
            if self.waits_in_pause(n, conn, &name) {
                let link = self.stores[n].links.get_mut(&conn).expect("found above");
                link.queue.push_front((args, stamp));
                break;
            }
            out.extend(self.command(n, conn, &name, &args));
        }
        if !out.is_empty() {
            self.send(conn, false, Packet::Data(out, None));
        }
        if self.stores[n].links.get(&conn).is_some_and(|l| l.over) {
            self.stores[n].links.remove(&conn);
        }
    }

    /// A process runs again, or takes writes again: it reads what came meanwhile.
    pub(super) fn node_resumes(&mut self, n: usize) {
        let links: Vec<ConnId> = self.stores[n].links.keys().copied().collect();
        for conn in links {
            self.node_reads(n, conn);
        }
        if self.stores[n].links.values().any(|l| l.waiting.is_some()) {
            self.getack(n);
        }
    }

    /// Whether a command waits for the end of a pause: what writes or may be replicated (`processCommand` in `server.c`).
    fn waits_in_pause(&self, n: usize, conn: ConnId, name: &[u8]) -> bool {
        let held = |name: &[u8]| writes(name) || name == b"PUBLISH";
        let tx = || self.stores[n].links.get(&conn).and_then(|l| l.tx.as_ref());
        let queued = || tx().is_some_and(|tx| tx.iter().any(|args| held(&args[0].to_ascii_uppercase())));
        self.is_paused(n) && (held(name) || name == b"EXEC" && queued())
    }

    /// The script has run for long enough that its node says so.
    pub(super) fn node_is_busy(&mut self, n: usize) {
        let node = &self.world.nodes[n];
        if node.alive && node.stopped && self.healed.is_none() {
            self.stores[n].busy = true;
            self.node_resumes(n);
        }
    }

    /// What a node says that runs a script (`processCommand` in `server.c`).
    fn busy_says(&mut self, n: usize, conn: ConnId, name: &[u8], args: &[Vec<u8>]) -> Vec<u8> {
        const BUSY: &str = "BUSY Redis is busy running a script.";
        if matches!(name, b"HELLO" | b"MULTI" | b"DISCARD") {
            return self.command(n, conn, name, args);
        }
        let link = self.stores[n].links.get_mut(&conn).expect("it is read");
        link.refused = link.tx.is_some();
        if name == b"EXEC" {
            (link.tx, link.refused) = (None, false);
            return error(&format!("EXECABORT Transaction discarded because of: {BUSY}"));
        }
        error(BUSY)
    }

    fn command(&mut self, n: usize, conn: ConnId, name: &[u8], args: &[Vec<u8>]) -> Vec<u8> {
        let node = &self.world.nodes[n];
        let loading = node.loads_until > self.now / 1000;
        if loading
            && !matches!(name, b"INFO" | b"ROLE" | b"HELLO" | b"CLIENT" | b"MULTI" | b"EXEC" | b"DISCARD")
        {
            return error("LOADING Redis is loading the dataset in memory");
        }
        let link = self.stores[n].links.get_mut(&conn).expect("it is read");
        if let Some(tx) = link.tx.as_mut().filter(|_| !matches!(name, b"EXEC" | b"DISCARD")) {
            if node.of.is_some() && writes(name) {
                link.refused = true;
                return error("READONLY You can't write against a read only replica.");
            }
            tx.push(args.to_vec());
            return b"+QUEUED\r\n".to_vec();
        }
        match name {
            b"MULTI" => {
                link.tx = Some(Vec::new());
                OK.to_vec()
            }
            b"DISCARD" => {
                (link.tx, link.refused) = (None, false);
                OK.to_vec()
            }
            b"EXEC" => {
                let tx = link.tx.take().unwrap_or_default();
                if std::mem::take(&mut link.refused) {
                    return error("EXECABORT Transaction discarded because of previous errors.");
                }
                if node.of.is_some() && tx.iter().any(|a| writes(&a[0])) {
                    return error(
                        "EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.",
                    );
                }
                let mut out = format!("*{}\r\n", tx.len()).into_bytes();
                for args in tx {
                    let name = args[0].to_ascii_uppercase();
                    out.extend(self.execute(n, conn, &name, &args));
                }
                out
            }
            _ if node.of.is_some() && writes(name) => {
                error("READONLY You can't write against a read only replica.")
            }
            _ => self.execute(n, conn, name, args),
        }
    }

    fn execute(&mut self, n: usize, conn: ConnId, name: &[u8], args: &[Vec<u8>]) -> Vec<u8> {
        match name {
            b"SET" => {
                let Some((key, tag)) = key_of(&args[1]).zip(tag_of(&args[2])) else {
                    return error("ERR syntax");
                };
                self.executed(n, conn, tag, true);
                self.append(n, conn, Entry { tag: Some(tag), key });
                OK.to_vec()
            }
            b"MGET" => {
                let mut out = format!("*{}\r\n", args.len() - 1).into_bytes();
                for arg in &args[1..] {
                    match (tag_of(arg), key_of(arg)) {
                        (Some(tag), _) => {
                            self.executed(n, conn, tag, false);
                            bulk(&mut out, arg);
                        }
                        (_, Some(key)) => match self.value(n, key) {
                            Some(t) => bulk(&mut out, format!("t:{}:{}:", t.client, t.seq).as_bytes()),
                            None => out.extend_from_slice(b"$-1\r\n"),
                        },
                        _ => return error("ERR syntax"),
                    }
                }
                out
            }
            b"PUBLISH" => {
                if self.world.nodes[n].of.is_none() {
                    self.append(n, conn, Entry { tag: None, key: 0 });
                }
                b":0\r\n".to_vec()
            }
            b"WAIT" => self.wait(n, conn, args),
            b"ROLE" => self.say_role(n),
            b"HELLO" => {
                let mut out = b"*2\r\n".to_vec();
                bulk(&mut out, b"role");
                bulk(&mut out, if self.world.nodes[n].of.is_some() { b"replica" } else { b"master" });
                out
            }
            b"INFO" => self.say_info(n, &args[1]),
            b"PING" => b"+PONG\r\n".to_vec(),
            b"REPLICAOF" | b"CLIENT" | b"CONFIG" | b"FAILOVER" => self.node_ordered(n, conn, name, args),
            _ => error("ERR unknown command"),
        }
    }

    /// Takes down that a tagged command was executed.
    fn executed(&mut self, n: usize, conn: ConnId, tag: Tag, write: bool) {
        let near = self.conns[conn].near;
        let stamp = self.stores[n].links.get(&conn).and_then(|l| l.stamp);
        let replid = self.world.nodes[n].replid;
        if write && !self.directs.is_empty() {
            self.planned.executed(self.now, n, replid, tag);
        }
        if let Near::Direct(_) = near {
            return;
        }
        self.check.executed(self.now, n, replid, near, stamp, tag, write);
    }

    fn value(&self, n: usize, key: u32) -> Option<Tag> {
        self.stores[n].log.iter().rev().find(|e| e.key == key && e.tag.is_some()).and_then(|e| e.tag)
    }

    fn append(&mut self, n: usize, conn: ConnId, entry: Entry) {
        let store = &mut self.stores[n];
        store.log.push(entry);
        let len = store.log.len();
        if let Some(link) = store.links.get_mut(&conn) {
            link.wrote = len;
        }
        self.world.nodes[n].offset = BASE + len as u64;
        for r in 0..self.stores.len() {
            if self.world.nodes[r].of == Some(n) {
                let delay = self.rng.between(60, 400);
                self.put(self.now + delay, Event::Feed(r));
            }
        }
    }

    /// `WAIT`: asks the replicas, and answers when enough have said.
    fn wait(&mut self, n: usize, conn: ConnId, args: &[Vec<u8>]) -> Vec<u8> {
        if self.world.nodes[n].of.is_some() {
            return error("ERR WAIT cannot be used with replica instances.");
        }
        let number =
            |i: usize| std::str::from_utf8(&args[i]).ok().and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
        let (need, ms) = (number(1) as usize, number(2));
        let len = self.stores[n].links[&conn].wrote;
        let lies = self.is(Blindfold::Wait) && matches!(self.conns[conn].near, Near::Worker(_));
        let have = if lies { need } else { self.acked(n, len) };
        if have >= need {
            return format!(":{have}\r\n").into_bytes();
        }
        let until = if ms == 0 { u64::MAX } else { self.now + ms * 1000 };
        self.stores[n].links.get_mut(&conn).expect("it is read").waiting = Some(Waiting { need, len, until });
        self.getack(n);
        if until < u64::MAX {
            self.put(until, Event::Waited(n));
        }
        Vec::new()
    }

    /// A master asks its replicas how far they are (`REPLCONF GETACK`): not in a pause, but behind it.
    fn getack(&mut self, n: usize) {
        for r in 0..self.stores.len() {
            if self.world.nodes[r].of == Some(n) && !self.is_paused(n) {
                let delay = self.rng.between(100, 500);
                self.put(self.now + delay, Event::Acknowledge(r, n));
            }
        }
    }

    /// Who waits for replicas on a node that becomes one is told so, and closed (`disconnectAllBlockedClients`).
    pub(super) fn unblock(&mut self, n: usize) {
        let store = &mut self.stores[n];
        let (blocked, rest): (BTreeMap<_, _>, _) =
            std::mem::take(&mut store.links).into_iter().partition(|(_, l)| l.waiting.is_some());
        store.links = rest;
        for conn in blocked.into_keys() {
            let why = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
            self.send(conn, false, Packet::Data(error(why), None));
            self.send(conn, false, Packet::Reset);
        }
    }

    fn acked(&self, n: usize, len: usize) -> usize {
        self.stores[n].acked.iter().filter(|(r, has)| **has >= len && self.attached(n, **r)).count()
    }

    /// Whether a master takes a node for its replica: a silent one stays attached for longer than a run takes.
    pub(super) fn attached(&self, n: usize, r: usize) -> bool {
        self.world.nodes[r].alive && self.world.nodes[r].of == Some(n) && self.stores[r].synced
    }

    /// Ends the waits that are over.
    pub(super) fn waited(&mut self, n: usize) {
        if !self.works(n) {
            return;
        }
        let conns: Vec<ConnId> =
            self.stores[n].links.iter().filter(|(_, l)| l.waiting.is_some()).map(|(id, _)| *id).collect();
        for conn in conns {
            let Some(w) = self.stores[n].links.get(&conn).and_then(|l| l.waiting.as_ref()) else { continue };
            let have = self.acked(n, w.len);
            if have < w.need && self.now < w.until {
                continue;
            }
            self.stores[n].links.get_mut(&conn).expect("listed above").waiting = None;
            self.send(conn, false, Packet::Data(format!(":{have}\r\n").into_bytes(), None));
            self.node_reads(n, conn);
        }
    }

    /// A replica tells its master how far it is.
    pub(super) fn acknowledge(&mut self, r: usize, n: usize) {
        // It is asked in the stream itself (GETACK), behind what was written.
        self.feed(r);
        let follows = self.world.nodes[r].of == Some(n) && self.stores[r].synced && self.works(r);
        if follows && self.linked(r, n) {
            let len = self.stores[r].log.len();
            self.stores[n].acked.insert(r, len);
            self.waited(n);
            self.hand_over(n);
        }
    }

    pub(super) fn linked(&self, a: usize, b: usize) -> bool {
        self.world.reach(self.world.node_at(a), self.world.node_at(b))
    }

    /// A replica takes what its master has.
    pub(super) fn feed(&mut self, r: usize) {
        let Some(m) = self.world.nodes[r].of.filter(|m| *m != r) else { return };
        if !self.works(r) || !self.works(m) || !self.linked(r, m) {
            return;
        }
        let (loads, ours, theirs) = {
            let (a, b) = (&self.world.nodes[r], &self.world.nodes[m]);
            (b.loads_until > self.now / 1000, a.replid, (b.replid, b.replid2))
        };
        if loads || self.world.nodes[m].of.is_some() && !self.stores[m].synced {
            return;
        }
        if self.now < self.stores[r].fed_at {
            return self.put(self.stores[r].fed_at, Event::Feed(r));
        }
        let has = self.stores[r].log.len();
        let same = ours == theirs.0 && has <= self.stores[m].log.len();
        let continues = Some(ours) == theirs.1 && has <= self.stores[m].second;
        if !self.stores[r].synced && !self.rng.chance(50) {
            // It takes a moment to connect again.
            return self.put(self.now + 10_000, Event::Feed(r));
        }
        let keep = if same || continues { has } else { 0 };
        let more: Vec<Entry> = self.stores[m].log[keep..].to_vec();
        let second = self.stores[m].second;
        let store = &mut self.stores[r];
        store.log.truncate(keep);
        store.log.extend(more);
        (store.synced, store.second, store.replid) = (true, second, theirs.0);
        store.fed_at = self.now + store.lag;
        let len = store.log.len();
        let node = &mut self.world.nodes[r];
        (node.replid, node.replid2, node.offset) = (theirs.0, theirs.1, BASE + len as u64);
        self.stores[m].acked.entry(r).or_insert(0);
    }

    /// Looks at what Sentinels, and others, have done to a node.
    pub(super) fn look(&mut self, n: usize) {
        let node = self.world.nodes[n].clone();
        let store = &mut self.stores[n];
        if store.run != node.run {
            let kept = node.of.is_some() || node.replid2.is_some();
            let (log, old) = (std::mem::take(&mut store.log), store.replid);
            let lag = store.lag;
            *store = Store { run: node.run, synced: false, lag, ..Store::new(node.of, node.replid) };
            if kept {
                (store.second, store.log) = (log.len(), log);
            } else {
                self.check.truth.wipes.push((self.now, n));
            }
            if old != node.replid {
                self.check.goes_on(old, node.replid);
            }
        } else if store.of != node.of {
            let old = store.replid;
            (store.of, store.replid, store.synced) = (node.of, node.replid, false);
            store.acked.clear();
            if node.of.is_none() {
                store.second = store.log.len();
                let others = self.world.nodes.iter().enumerate().filter(|(o, c)| *o != n && c.of.is_none());
                let claimed: Vec<u64> = others.map(|(_, c)| c.replid).collect();
                self.check.promoted(self.now, n, old, &claimed);
                self.note_promotion(n, old, &claimed);
                self.note_missing(n, old);
                self.note(|| format!("node {n} is promoted, out of history {old}"));
            } else {
                self.note(|| format!("node {n} is told to follow {:?}", node.of));
                self.disconnect_clients(n);
                self.put(self.now + 5_000, Event::Feed(n));
            }
        }
        let len = self.stores[n].log.len();
        self.world.nodes[n].offset = BASE + len as u64;
    }

    /// `CLIENT KILL TYPE normal`, which a Sentinel says with `SLAVEOF`.
    pub(super) fn disconnect_clients(&mut self, n: usize) {
        for conn in std::mem::take(&mut self.stores[n].links).into_keys() {
            self.send(conn, false, Packet::Reset);
        }
    }

    fn say_role(&self, n: usize) -> Vec<u8> {
        let node = &self.world.nodes[n];
        if let Some(m) = node.of {
            let at = host(TargetKind::Node, m);
            let state = if self.follows(n) { "connected" } else { "connect" };
            let mut out = b"*5\r\n$5\r\nslave\r\n".to_vec();
            bulk(&mut out, at.host.as_bytes());
            out.extend_from_slice(format!(":{}\r\n", at.port).as_bytes());
            bulk(&mut out, state.as_bytes());
            out.extend_from_slice(format!(":{}\r\n", node.offset).as_bytes());
            return out;
        }
        let replicas: Vec<usize> = (0..self.stores.len()).filter(|r| self.attached(n, *r)).collect();
        let mut out =
            format!("*3\r\n$6\r\nmaster\r\n:{}\r\n*{}\r\n", node.offset, replicas.len()).into_bytes();
        for r in replicas {
            let at = host(TargetKind::Node, r);
            let offset = BASE + self.stores[n].acked.get(&r).copied().unwrap_or(0) as u64;
            out.extend(encode(&[
                at.host.as_bytes(),
                at.port.to_string().as_bytes(),
                offset.to_string().as_bytes(),
            ]));
        }
        out
    }

    /// Whether a replica's link to its master stands, as far as it knows.
    fn follows(&self, r: usize) -> bool {
        self.stores[r].synced && self.world.nodes[r].of.is_some_and(|m| self.world.nodes[m].alive)
    }

    fn say_info(&self, n: usize, section: &[u8]) -> Vec<u8> {
        let node = &self.world.nodes[n];
        if section.eq_ignore_ascii_case(b"server") {
            return text(&format!("# Server\r\nredis_version:7.0.15\r\nrun_id:{n}-{}\r\n", node.run));
        }
        if section.eq_ignore_ascii_case(b"persistence") {
            let loading = u8::from(node.loads_until > self.now / 1000);
            return text(&format!("# Persistence\r\nloading:{loading}\r\n"));
        }
        let mut out = String::from("# Replication\r\n");
        match node.of {
            Some(m) => {
                let link = if self.follows(n) { "up" } else { "down" };
                out += &format!(
                    "role:slave\r\nmaster_host:{}\r\nmaster_port:6379\r\nmaster_link_status:{link}\r\nslave_repl_offset:{}\r\nslave_priority:{}\r\n",
                    host(TargetKind::Node, m).host,
                    node.offset,
                    node.priority,
                );
            }
            None => {
                out += "role:master\r\n";
                let replicas = (0..self.stores.len()).filter(|r| self.attached(n, *r));
                for (i, r) in replicas.enumerate() {
                    let offset = BASE + self.stores[n].acked.get(&r).copied().unwrap_or(0) as u64;
                    let at = host(TargetKind::Node, r).host;
                    out += &format!("slave{i}:ip={at},port=6379,state=online,offset={offset},lag=0\r\n");
                }
            }
        }
        let id2 = node.replid2.map_or("0000".into(), |id| format!("r{id}"));
        let second =
            if node.replid2.is_some() { (BASE + self.stores[n].second as u64 + 1) as i64 } else { -1 };
        let handover = match node.handover {
            None => "no-failover",
            Some(h) if h.asks => "failover-in-progress",
            Some(_) => "waiting-for-sync",
        };
        out += &format!(
            "master_failover_state:{handover}\r\nmaster_replid:r{}\r\nmaster_replid2:{id2}\r\nmaster_repl_offset:{}\r\nsecond_repl_offset:{second}\r\n",
            node.replid, node.offset
        );
        text(&out)
    }

    /// A node's own clock, ten times a second: replicas catch up, and acknowledge.
    pub(super) fn node_cron(&mut self, n: usize) {
        self.look(n);
        self.hand_over(n);
        self.feed(n);
        if let Some(m) = self.world.nodes[n].of.filter(|_| self.now >= self.stores[n].acks_at) {
            // Once a second (replicationCron).
            self.stores[n].acks_at = self.now + self.rng.between(850_000, 950_000);
            self.acknowledge(n, m);
        }
        let next = self.now + self.rng.between(90_000, 110_000);
        self.put(next, Event::Cron(n));
    }

    /// A node's process is killed.
    pub(super) fn kill_node(&mut self, n: usize) {
        self.world.nodes[n].alive = false;
        self.stores[n].busy = false;
        self.stores[n].links.clear();
        for r in 0..self.stores.len() {
            if self.world.nodes[r].of == Some(n) {
                self.stores[r].synced = false;
            }
        }
        self.hang_up(Server::Node(n));
    }
}

/// The number of a key `k<number>`.
fn key_of(arg: &[u8]) -> Option<u32> {
    std::str::from_utf8(arg).ok()?.strip_prefix('k')?.parse().ok()
}
