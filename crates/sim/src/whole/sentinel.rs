//! What model Sentinels say on the wire. What they do is [`crate::topology::world`]'s.
use super::net::{ConnId, Packet, Server};
use super::{Blindfold, Event, Whole};
use crate::resp::{bulk, digits, encode, head, request};
use crate::topology::drive::{host, id_of};
use crate::topology::world::{DOWN_AFTER, FAILOVER_TIMEOUT, Says, TICK};
use Value::{Number, Text};
use pointsman_core::topology::observation::{Stage, TargetKind};
use std::collections::{BTreeMap, BTreeSet};

/// The master's name.
pub(super) const NAME: &str = "mymaster";

/// A Sentinel's connections.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// What stands in the kernel, and whether it listens to events.
    links: BTreeMap<ConnId, (Vec<u8>, bool)>,
    /// Closed by the other end while the process was stopped: what stands before that is still read.
    over: BTreeSet<ConnId>,
}

fn error(text: &str) -> Vec<u8> {
    format!("-{text}\r\n").into_bytes()
}

/// A flat list of names and values.
fn flat(out: &mut Vec<u8>, fields: &[(&str, Value<'_>)]) {
    head(out, b'*', fields.len() * 2);
    for (name, value) in fields {
        bulk(out, name.as_bytes());
        match value {
            Value::Text(t) => bulk(out, t.as_bytes()),
            Value::Number(n) => number(out, *n),
        }
    }
}

enum Value<'a> {
    Text(&'a str),
    Number(u64),
}

/// Appends a number as a bulk string.
fn number(out: &mut Vec<u8>, n: u64) {
    let mut text = Vec::with_capacity(20);
    digits(&mut text, n as usize);
    bulk(out, &text);
}

impl Whole {
    fn attends(&self, s: usize) -> bool {
        self.world.sentinels[s].alive && !self.world.sentinels[s].stopped
    }

    /// Something came to a Sentinel's host.
    pub(super) fn sentinel_hears(&mut self, s: usize, conn: ConnId, packet: Packet) {
        let (alive, attends) = (self.world.sentinels[s].alive, self.attends(s));
        let link = self.desks[s].links.get_mut(&conn);
        match (packet, link) {
            (Packet::Connect, _) if alive => {
                self.desks[s].links.insert(conn, Default::default());
                self.send(conn, false, Packet::Connected);
            }
            (Packet::Connect, _) => self.send(conn, false, Packet::Refused),
            (Packet::Data(bytes, _), Some((input, _))) => {
                input.extend_from_slice(&bytes);
                self.sentinel_reads(s, conn);
            }
            (Packet::Data(..), None) => self.send(conn, false, Packet::Reset),
            (Packet::Reset, _) if attends => drop(self.desks[s].links.remove(&conn)),
            (Packet::Reset, _) => drop(self.desks[s].over.insert(conn)),
            _ => {}
        }
    }

    fn sentinel_reads(&mut self, s: usize, conn: ConnId) {
        if !self.attends(s) {
            return;
        }
        let mut out = Vec::new();
        while let Some((input, listens)) = self.desks[s].links.get_mut(&conn) {
            let Ok(Some((args, len))) = request(input) else { break };
            input.drain(..len);
            let listening = *listens;
            *listens |= args[0].eq_ignore_ascii_case(b"PSUBSCRIBE");
            out.extend(self.sentinel_answers(s, listening, &args));
        }
        if !out.is_empty() {
            self.send(conn, false, Packet::Data(out, None));
        }
    }

    fn sentinel_answers(&mut self, s: usize, listening: bool, args: &[Vec<u8>]) -> Vec<u8> {
        let word = |i: usize| args.get(i).map(|a| a.to_ascii_uppercase()).unwrap_or_default();
        match (&word(0)[..], &word(1)[..]) {
            (b"PING", _) if listening => b"*2\r\n$4\r\npong\r\n$0\r\n\r\n".to_vec(),
            (b"PING", _) => b"+PONG\r\n".to_vec(),
            (b"PSUBSCRIBE", _) => b"*3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n".to_vec(),
            (b"SENTINEL", b"MYID") => {
                let mut out = Vec::new();
                bulk(&mut out, id_of(s).as_bytes());
                out
            }
            (b"SENTINEL", b"MASTER") => self.say_master(s),
            (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME") => {
                encode(&[self.names[self.says(s).master].as_bytes(), b"6379"])
            }
            (b"SENTINEL", b"SENTINELS") => self.say_sentinels(s),
            (b"SENTINEL", b"SLAVES" | b"REPLICAS") => self.say_replicas(s),
            (b"SENTINEL", b"FAILOVER") if args.len() != 3 && !(self.world.modern && args.len() == 4) => {
                error("ERR wrong number of arguments for 'sentinel|failover' command")
            }
            (b"SENTINEL", b"FAILOVER") if args[2] != NAME.as_bytes() => {
                error("ERR No such master with that name")
            }
            (b"SENTINEL", b"FAILOVER") => match self.order_failover(s, args.len() == 4) {
                Ok(()) => b"+OK\r\n".to_vec(),
                Err(why) => error(why),
            },
            (b"INFO", _) => {
                let tilt = u8::from(self.world.tilts(self.now / 1000, s));
                let mut out = Vec::new();
                bulk(&mut out, format!("# Sentinel\r\nsentinel_tilt:{tilt}\r\n").as_bytes());
                out
            }
            _ => error("ERR unknown command"),
        }
    }

    fn says(&self, s: usize) -> Says {
        self.world.says(self.now / 1000, s)
    }

    fn say_master(&self, s: usize) -> Vec<u8> {
        let now = self.now / 1000;
        let says = self.says(s);
        let mut flags = String::from("master");
        let mut state = None;
        match says.stage {
            Stage::Calm => {}
            Stage::Suspects => flags += ",s_down",
            Stage::Tries if self.world.coordinates(s) => {
                flags += ",failover_in_progress";
                state = Some("wait_start");
            }
            Stage::Tries => flags += ",s_down,o_down",
            Stage::Acts => {
                flags += ",failover_in_progress";
                state = Some("wait_promotion");
            }
            Stage::Promoted => {
                flags += ",failover_in_progress";
                state = Some("reconf_slaves");
            }
        }
        if says.forced {
            flags += ",force_failover";
        }
        if self.world.coordinates(s) && !self.is(Blindfold::Coordinated) {
            flags += ",coordinated_failover";
        }
        let (pong, ping) = self.world.pings(now, s);
        let at = &self.names[self.world.sentinels[s].master];
        let mut fields = vec![
            ("name", Text(NAME)),
            ("ip", Text(at)),
            ("port", Number(6379)),
            ("flags", Text(&flags)),
            ("last-ping-sent", Number(ping)),
            ("last-ok-ping-reply", Number(pong)),
            ("down-after-milliseconds", Number(DOWN_AFTER)),
            ("config-epoch", Number(says.epoch)),
            ("num-other-sentinels", Number(self.world.others(now, s) as u64)),
            ("quorum", Number(self.world.quorum as u64)),
            ("failover-timeout", Number(FAILOVER_TIMEOUT)),
        ];
        fields.extend(state.map(|state| ("failover-state", Text(state))));
        let mut out = Vec::with_capacity(400);
        flat(&mut out, &fields);
        out
    }

    fn say_sentinels(&self, s: usize) -> Vec<u8> {
        let now = self.now / 1000;
        let known = self.world.others(now, s) > 0;
        let others: Vec<usize> = (0..self.desks.len()).filter(|o| *o != s && known).collect();
        let mut out = Vec::with_capacity(200 * others.len() + 8);
        head(&mut out, b'*', others.len());
        for o in others {
            let up = self.attends(o) && self.world.reach(s, o);
            let mut fields = vec![
                ("ip", Text(&self.names[self.stores.len() + o])),
                ("port", Number(26379)),
                ("runid", Text(&self.ids[o])),
                ("flags", Text(if up { "sentinel" } else { "s_down,sentinel" })),
                ("last-ok-ping-reply", Number(if up { 100 } else { 100_000 })),
            ];
            // It knows the votes that it asked for.
            let (epoch, leader) = self.world.vote(o);
            if leader == s && epoch > 0 {
                fields.push(("voted-leader", Text(&self.ids[leader])));
                fields.push(("voted-leader-epoch", Number(epoch)));
            }
            flat(&mut out, &fields);
        }
        out
    }

    fn say_replicas(&self, s: usize) -> Vec<u8> {
        let says = self.says(s);
        let master = self.world.sentinels[s].master;
        let replicas: Vec<usize> = (0..self.stores.len()).filter(|n| *n != master).collect();
        let mut out = Vec::with_capacity(150 * replicas.len() + 8);
        head(&mut out, b'*', replicas.len());
        for n in replicas {
            let (priority, down) = self.world.shows(self.now / 1000, s, n);
            let flags = match (says.selected == Some(n), down) {
                (true, _) => "slave,promoted",
                (false, true) => "s_down,slave,disconnected",
                (false, false) => "slave",
            };
            let fields = [
                ("ip", Text(&self.names[n])),
                ("port", Number(6379)),
                ("flags", Text(flags)),
                ("slave-priority", Number(priority)),
            ];
            flat(&mut out, &fields);
        }
        out
    }

    /// A Sentinel's timer, and what comes of it.
    pub(super) fn sentinel_ticks(&mut self, s: usize) {
        let now = self.now / 1000;
        let before: Vec<Says> = (0..self.desks.len()).map(|o| self.says(o)).collect();
        let votes: Vec<_> = (0..self.desks.len()).map(|o| self.world.vote(o)).collect();
        self.world.tick(now, s);
        for n in 0..self.stores.len() {
            self.look(n);
        }
        self.look_at_handovers();
        for o in 0..self.desks.len() {
            let after = self.says(o);
            if (after.stage, after.selected) != (before[o].stage, before[o].selected) {
                self.note(|| format!("Sentinel {o} {after:?}"));
                self.announce(o, &after);
            }
            if after.epoch != before[o].epoch {
                self.announce_switch(o, before[o].master, after.master);
            }
            self.announce_vote(o, votes[o]);
        }
        self.check.named(self.now, &self.world);
        let next = self.now + TICK * 1000 + self.rng.below(10_000);
        self.put(next, Event::Sentinel(s));
    }

    fn announce_vote(&mut self, s: usize, before: (u64, usize)) {
        let (epoch, leader) = self.world.vote(s);
        if before != (epoch, leader) {
            self.publish_event(s, "+vote-for-leader", &format!("{} {epoch}", id_of(leader)));
        }
    }

    /// `SENTINEL FAILOVER`.
    pub(super) fn order_failover(&mut self, s: usize, coordinated: bool) -> Result<(), &'static str> {
        let now = self.now / 1000;
        if !coordinated {
            return self.world.force(now, s);
        }
        let votes: Vec<_> = (0..self.desks.len()).map(|o| self.world.vote(o)).collect();
        self.world.coordinate(now, s)?;
        self.note(|| format!("Sentinel {s} is to have the master hand over"));
        (0..votes.len()).for_each(|o| self.announce_vote(o, votes[o]));
        Ok(())
    }

    fn announce(&mut self, s: usize, says: &Says) {
        let at = host(TargetKind::Node, self.world.sentinels[s].master);
        let master = format!("master {NAME} {} {}", at.host, at.port);
        match (says.stage, says.selected) {
            (Stage::Suspects, _) => self.publish_event(s, "+sdown", &master),
            (Stage::Tries, _) => self.publish_event(s, "+odown", &master),
            (Stage::Acts, None) => self.publish_event(s, "+elected-leader", &master),
            (Stage::Acts, Some(n)) => {
                let to = host(TargetKind::Node, n).host;
                let text = format!("slave {to}:6379 {to} 6379 @ {NAME} {} {}", at.host, at.port);
                self.publish_event(s, "+selected-slave", &text);
            }
            _ => {}
        }
    }

    fn announce_switch(&mut self, s: usize, from: usize, to: usize) {
        let [from, to] = [from, to].map(|n| host(TargetKind::Node, n).host);
        self.publish_event(s, "+switch-master", &format!("{NAME} {from} 6379 {to} 6379"));
    }

    fn publish_event(&mut self, s: usize, channel: &str, payload: &str) {
        if !self.announces || !self.attends(s) {
            return;
        }
        let listeners: Vec<ConnId> =
            self.desks[s].links.iter().filter(|(_, (_, on))| *on).map(|(id, _)| *id).collect();
        for conn in listeners {
            let bytes = encode(&[b"pmessage", b"*", channel.as_bytes(), payload.as_bytes()]);
            self.send(conn, false, Packet::Data(bytes, None));
        }
    }

    /// A Sentinel's process is killed.
    pub(super) fn kill_sentinel(&mut self, s: usize) {
        self.world.sentinels[s].alive = false;
        self.desks[s] = Desk::default();
        self.hang_up(Server::Sentinel(s));
    }

    /// A Sentinel's process runs again after it was stopped.
    pub(super) fn sentinel_resumes(&mut self, s: usize) {
        let links: Vec<ConnId> = self.desks[s].links.keys().copied().collect();
        for conn in links {
            self.sentinel_reads(s, conn);
        }
        for conn in std::mem::take(&mut self.desks[s].over) {
            self.desks[s].links.remove(&conn);
        }
    }
}
