//! Errands of a control plane, switchovers and demotions: the shell that moves their bytes and does their wishes, as
//! `crates/pointsman/src/control/switchover.rs` and `wire.rs`; and the operators who ask for them.
use super::net::{ConnId, Near, Packet, Server};
use super::proxy::{Mail, Proxy};
use super::{Blindfold, Event, Whole};
use crate::resp::{encode, request};
use crate::topology::drive::index_of;
use pointsman_core::switchover::{Credentials, Demotion, Do, LineId, Order, Switchover};
use pointsman_core::topology::observation::Gone;
use pointsman_core::topology::pause::Pauser;
use pointsman_core::topology::settings::HostPort;
use std::collections::BTreeMap;
use std::time::Duration;

/// When an operator asks again for what could not be done.
const ASKED_AGAIN: u64 = 500_000;
/// How far apart `UNPAUSE` and `REPLICAOF` are in a product that has them in the wrong order.
const LATER: u64 = 3_000;

/// What an operator wants.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    /// `pointsman switchover`, to the replica of this rank if one is named.
    Switch(Option<usize>),
    /// `pointsman switchover --restore`, until it is done.
    Restore(Order),
    /// `pointsman pause`, and `resume`.
    Pause(Duration),
    Resume,
}

enum Machine {
    Switchover(Box<Switchover>),
    Demotion(Box<Demotion>, HostPort),
}

/// An errand and its connections.
pub(super) struct Errand {
    machine: Machine,
    lines: BTreeMap<LineId, ConnId>,
    /// What it only puts back.
    restores: Option<Order>,
}

impl Errand {
    fn new(machine: Machine) -> Errand {
        Errand { machine, lines: BTreeMap::new(), restores: None }
    }

    pub(super) fn demotion(demotion: Demotion, node: HostPort) -> Errand {
        Errand::new(Machine::Demotion(Box::new(demotion), node))
    }

    pub(super) fn demotes(&self, at: &HostPort) -> bool {
        matches!(&self.machine, Machine::Demotion(_, node) if node == at)
    }

    pub(super) fn is_switchover(&self) -> bool {
        matches!(self.machine, Machine::Switchover(_))
    }

    pub(super) fn next_timeout(&self) -> Option<pointsman_core::Now> {
        match &self.machine {
            Machine::Switchover(m) => m.next_timeout(),
            Machine::Demotion(m, _) => m.next_timeout(),
        }
    }

    fn poll(&mut self) -> Option<Do> {
        match &mut self.machine {
            Machine::Switchover(m) => m.poll(),
            Machine::Demotion(m, _) => m.poll(),
        }
    }
}

impl Whole {
    /// An operator asks a process for something.
    pub(super) fn wished(&mut self, p: usize, wish: Wish) {
        let now = self.at();
        self.note(|| format!("proxy {p} is asked for {wish:?}"));
        let refused = match wish {
            Wish::Pause(span) => self.proxies[p].topology.pause(now, Pauser::Operator, span).err(),
            // It may have ended by itself.
            Wish::Resume => self.proxies[p].topology.resume(now, Pauser::Operator).err(),
            Wish::Switch(rank) => {
                let to = rank.and_then(|rank| self.ranked(p, rank));
                self.switch(p, Order { to, ..Order::default() }).err()
            }
            Wish::Restore(order) => {
                let refused = self.switch(p, order.clone()).err();
                if refused.is_some() {
                    self.put(self.now + ASKED_AGAIN, Event::Wish(p, Wish::Restore(order)));
                }
                refused
            }
        };
        if let Some(why) = refused {
            self.note(|| format!("proxy {p} refuses: {why}"));
        }
        self.obey(p);
    }

    /// The name of a replica that a process knows.
    fn ranked(&self, p: usize, rank: usize) -> Option<std::sync::Arc<str>> {
        let outlook = self.proxies[p].topology.outlook();
        let replicas: Vec<_> =
            outlook.nodes.iter().filter(|k| Some(&k.at) != outlook.master.as_ref()).collect();
        let known = replicas.get(rank % replicas.len().max(1))?;
        Some(known.at.to_string().into())
    }

    fn switch(&mut self, p: usize, order: Order) -> Result<(), String> {
        let proxy = &self.proxies[p];
        if proxy.errands.values().any(Errand::is_switchover) {
            return Err("a switchover goes on already".into());
        }
        if proxy.topology.paused_by(Pauser::Operator) {
            return Err("the service is paused".into());
        }
        let outlook = proxy.topology.outlook();
        let restores = Some(order.clone()).filter(|o| !o.restore.is_empty());
        let master = outlook.master.as_ref().map(index_of).filter(|_| restores.is_none());
        let machine = Switchover::new(self.at(), outlook, order, Credentials::default());
        let number = self.proxies[p].next_errand();
        let errand = Errand { restores, ..Errand::new(Machine::Switchover(Box::new(machine))) };
        let proxy = &mut self.proxies[p];
        proxy.left_behind.clear();
        proxy.errands.insert(number, errand);
        self.planned.begun(self.now, (p, number), master.map(|m| (m, self.world.nodes[m].replid)));
        Ok(())
    }

    /// Something came on an errand's connection.
    pub(super) fn errand_hears(&mut self, p: usize, number: u64, line: LineId, conn: ConnId, packet: Packet) {
        let (now, offsets) = (self.at(), self.is(Blindfold::Offsets));
        let Some(errand) = self.proxies[p].errands.get_mut(&number) else { return };
        if errand.lines.get(&line) != Some(&conn) {
            return;
        }
        let gone = match &packet {
            Packet::Refused => Some(Gone::Refused),
            Packet::Reset => Some(Gone::Closed),
            _ => None,
        };
        if let Some(why) = gone {
            errand.lines.remove(&line);
            self.conns[conn].closed = true;
            match &mut errand.machine {
                Machine::Switchover(m) => m.gone(now, line, &why),
                Machine::Demotion(m, _) => m.gone(now, &why),
            }
            return;
        }
        match (&mut errand.machine, packet) {
            (Machine::Switchover(m), Packet::Connected) => m.connected(now, line),
            (Machine::Demotion(m, _), Packet::Connected) => m.connected(),
            (Machine::Switchover(m), Packet::Data(bytes, _)) => {
                let bytes = if offsets { caught_up(bytes) } else { bytes };
                m.bytes(now, line, &bytes);
            }
            (Machine::Demotion(m, _), Packet::Data(bytes, _)) => m.bytes(now, &bytes),
            _ => {}
        }
    }

    /// The workers have counted what is in flight.
    pub(super) fn counted(&mut self, p: usize, number: u64, commands: Option<u64>) {
        let now = self.at();
        if let Some(Machine::Switchover(m)) = self.proxies[p].errands.get_mut(&number).map(|e| &mut e.machine)
        {
            m.in_flight(now, commands);
        }
    }

    /// Shows the errands what the topology knows now, and does what they want done.
    pub(super) fn run_errands(&mut self, p: usize) {
        let now = self.at();
        let all: Vec<u64> = self.proxies[p].errands.keys().copied().collect();
        for number in all {
            let Proxy { errands, topology, .. } = &mut self.proxies[p];
            let Some(errand) = errands.get_mut(&number) else { continue };
            let due = errand.next_timeout().is_some_and(|t| t <= now);
            match &mut errand.machine {
                Machine::Switchover(m) => {
                    if due {
                        m.timeout(now);
                    }
                    m.look(now, topology.outlook());
                }
                Machine::Demotion(m, _) if due => m.timeout(now),
                Machine::Demotion(..) => {}
            }
            while let Some(wanted) = self.proxies[p].errands.get_mut(&number).and_then(Errand::poll) {
                self.carry_out(p, number, wanted);
            }
        }
    }

    fn carry_out(&mut self, p: usize, number: u64, wanted: Do) {
        let now = self.at();
        match wanted {
            Do::Connect(line, at) => {
                let n = index_of(&at);
                let server = if at.port == 6379 { Server::Node(n) } else { Server::Sentinel(n) };
                let conn = self.dial(Near::Errand(p, number, line), server);
                self.set_line(p, number, line, Some(conn));
            }
            Do::Send(line, bytes) => {
                let conn = self.proxies[p].errands.get(&number).and_then(|e| e.lines.get(&line).copied());
                if let Some(conn) = conn {
                    self.errand_sends(p, number, conn, bytes);
                }
            }
            Do::Close(line) => {
                if let Some(conn) = self.set_line(p, number, line, None) {
                    self.close(conn, true);
                }
            }
            Do::Hold(span) => {
                let _ = self.proxies[p].topology.pause(now, Pauser::Switchover, span);
                self.obey(p);
            }
            Do::Release => {
                let _ = self.proxies[p].topology.resume(now, Pauser::Switchover);
                self.obey(p);
            }
            // Behind the view that holds them, which was published just now.
            Do::Count => self.put(self.now + 35, Event::Count(p, number)),
            Do::Say(said) => {
                self.note(|| format!("proxy {p}: switchover: {}", said.text));
                self.proxies[p].left_behind.extend(said.left_behind);
            }
            Do::Finish(outcome) => self.errand_over(p, number, outcome),
        }
    }

    fn set_line(&mut self, p: usize, number: u64, line: LineId, conn: Option<ConnId>) -> Option<ConnId> {
        let lines = &mut self.proxies[p].errands.get_mut(&number)?.lines;
        match conn {
            Some(conn) => lines.insert(line, conn),
            None => lines.remove(&line),
        }
    }

    /// The worker is asked how much is in flight.
    pub(super) fn count(&mut self, p: usize, number: u64) {
        self.proxies[p].mail.push_back(Mail::Count(number));
        self.turn_soon(p, self.now);
    }

    fn errand_sends(&mut self, p: usize, number: u64, conn: ConnId, bytes: Vec<u8>) {
        let (server, mut rest, mut sent) = (self.conns[conn].server, &bytes[..], Vec::new());
        while let Ok(Some((args, len))) = request(rest) {
            rest = &rest[len..];
            let words: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            match (server, &words[..]) {
                (Server::Node(n), [b"REPLICAOF", _, port])
                    if *port != b"?" && self.is(Blindfold::UnpauseFirst) =>
                {
                    self.unpause(n);
                    let pipe = &mut self.conns[conn].pipes[0];
                    pipe.last = pipe.last.max(self.now + LATER);
                }
                (Server::Node(n), [b"FAILOVER", b"ABORT"] | [b"CLIENT", b"UNPAUSE"])
                    if self.is(Blindfold::CallOff) && self.is_paused(n) =>
                {
                    sent.extend(encode(&[b"PING"]));
                    continue;
                }
                (Server::Sentinel(_), [b"SENTINEL", b"FAILOVER", name, how @ ..])
                    if *name == super::sentinel::NAME.as_bytes() =>
                {
                    self.note_order((p, number), !how.is_empty());
                }
                _ => {}
            }
            sent.extend(encode(&self.blind_order(&words)));
        }
        self.send(conn, true, Packet::Data(sent, None));
    }

    /// What is said by a product that lacks a rule.
    fn blind_order<'a>(&self, words: &[&'a [u8]]) -> Vec<&'a [u8]> {
        match words {
            [b"CLIENT", b"PAUSE", ms, mode] if *ms != b"?" && self.is(Blindfold::PauseBound) => {
                vec![b"CLIENT", b"PAUSE", b"900", mode]
            }
            [b"CONFIG", b"SET", what, to] if *to != b"?" && self.is(Blindfold::Restore) => {
                vec![b"CONFIG", b"SET", what, b"0"]
            }
            _ => words.to_vec(),
        }
    }

    fn errand_over(&mut self, p: usize, number: u64, outcome: Result<String, String>) {
        let now = self.at();
        let Some(errand) = self.proxies[p].errands.remove(&number) else { return };
        for conn in errand.lines.into_values() {
            self.close(conn, true);
        }
        self.note(|| format!("proxy {p}: errand {number} is over: {outcome:?}"));
        match errand.machine {
            Machine::Demotion(_, node) => {
                self.report.count("deposed masters told whom to follow", u64::from(outcome.is_ok()));
                self.proxies[p].topology.demoted(now, &node, outcome);
                self.obey(p);
            }
            Machine::Switchover(_) => match errand.restores {
                Some(order) if outcome.is_err() => {
                    self.put(self.now + ASKED_AGAIN, Event::Wish(p, Wish::Restore(order)));
                }
                Some(_) => self.proxies[p].left_behind.clear(),
                None => self.switched(p, number, outcome),
            },
        }
    }

    /// The connections of a process that died, and its errands.
    pub(super) fn drop_errands(&mut self, p: usize) {
        self.proxies[p].errands.clear();
    }

    /// What a process that died has left behind, by its own account, is put right with the next.
    pub(super) fn put_right(&mut self, dead: usize, next: usize) {
        let left = std::mem::take(&mut self.proxies[dead].left_behind);
        let restore: Vec<_> = left.iter().filter_map(|text| repair(text)).collect();
        if !restore.is_empty() {
            self.report.count("priorities left behind", 1);
            self.put(self.now + ASKED_AGAIN, Event::Wish(next, Wish::Restore(Order { to: None, restore })));
        }
    }
}

/// `pointsman switchover SERVICE --restore NODE=PRIORITY`
fn repair(text: &str) -> Option<(std::sync::Arc<str>, u32)> {
    let (node, priority) = text.split_once("--restore ")?.1.split_once('=')?;
    Some((node.into(), priority.parse().ok()?))
}

/// What replicas say who seem to have everything.
fn caught_up(mut bytes: Vec<u8>) -> Vec<u8> {
    let name = b"slave_repl_offset:";
    if let Some(at) = bytes.windows(name.len()).position(|w| w == name) {
        bytes[at + name.len()..].iter_mut().take_while(|b| b.is_ascii_digit()).for_each(|b| *b = b'9');
    }
    bytes
}
