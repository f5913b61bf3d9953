//! Model clients: each says something now and then, and takes down what it is told.
use super::proxy::Mail;
use super::{Blindfold, DURABLE_MS, Event, Whole};
use crate::resp::{Tag, Value, encode, reply, tag_of};
use std::collections::VecDeque;

/// Keys that all share; each client has one of its own besides.
const SHARED: u64 = 3;
const OWN: u32 = 100;

/// What was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Set,
    Read {
        own: bool,
    },
    /// MULTI, SET, EXEC.
    Transaction,
}

#[derive(Debug)]
struct Asked {
    what: What,
    seq: u32,
    at: u64,
    /// So many replies are still to come.
    left: u32,
    /// `MULTI` was answered with an error, so that what follows it stands alone.
    alone: bool,
}

/// A client of a proxy.
#[derive(Debug)]
pub(super) struct Client {
    id: u32,
    pub(super) proxy: usize,
    next: u32,
    asked: VecDeque<Asked>,
    input: Vec<u8>,
    window: usize,
    /// It says something about so often, in microseconds.
    pace: u64,
    /// Its own key's last write that was acknowledged.
    own: Option<u32>,
    /// Its writes are acknowledged when all replicas have them.
    pub(super) durable: bool,
    /// When it asked for the newest write that was acknowledged.
    pub(super) served: u64,
    /// Its proxy's process is gone, and it cannot connect.
    away: bool,
}

impl Client {
    pub(super) fn new(id: u32, proxy: usize, window: usize, pace: u64, durable: bool) -> Client {
        let (asked, input) = (VecDeque::new(), Vec::new());
        let (own, away) = (None, false);
        Client { id, proxy, next: 0, asked, input, window, pace, own, durable, served: 0, away }
    }

    /// Since when it waits.
    pub(super) fn waits(&self) -> Option<u64> {
        self.asked.front().map(|a| a.at)
    }
}

fn says(id: u32, seq: u32, what: What, key: u32) -> Vec<u8> {
    let (key, tag) = (format!("k{key}"), format!("t:{id}:{seq}:"));
    let (key, tag) = (key.as_bytes(), tag.as_bytes());
    match what {
        What::Set => encode(&[b"SET", key, tag]),
        What::Read { .. } => encode(&[b"MGET", key, tag]),
        What::Transaction => [encode(&[b"MULTI"]), encode(&[b"SET", key, tag]), encode(&[b"EXEC"])].concat(),
    }
}

impl Whole {
    /// A client says something, if it may.
    pub(super) fn speak(&mut self, c: usize) {
        let pace = self.clients[c].pace;
        let next = self.now + self.rng.between(pace / 4, pace * 2);
        self.put(next, Event::Speak(c));
        if self.clients[c].away || self.clients[c].asked.len() >= self.clients[c].window {
            return;
        }
        let own = self.rng.chance(50);
        let (what, left) = match self.rng.below(100) {
            0..60 => (What::Set, 1),
            60..90 => (What::Read { own }, 1),
            _ => (What::Transaction, 3),
        };
        let key = if own { OWN + c as u32 } else { self.rng.below(SHARED) as u32 };
        let (now, client) = (self.now, &mut self.clients[c]);
        let seq = client.next;
        client.next += 1;
        client.asked.push_back(Asked { what, seq, at: now, left, alone: false });
        let bytes = says(client.id, seq, what, key);
        let (p, id) = (client.proxy, client.id);
        if own && !matches!(what, What::Read { .. }) {
            self.check.own.insert(Tag { client: id, seq });
        }
        self.proxies[p].mail.push_back(Mail::Client(id, bytes.clone()));
        if self.is(Blindfold::Once) && self.rng.chance(1) && what == What::Set {
            let again = Mail::Client(id, bytes);
            self.clients[c].asked.push_back(Asked { what, seq, at: now, left, alone: false });
            self.proxies[p].mail.push_back(again);
        }
        self.turn_soon(p, self.now + 20);
    }

    /// To whom a reply goes: to its owner.
    pub(super) fn crossed(&mut self, c: u32) -> u32 {
        let cross = self.is(Blindfold::Owner) && self.rng.chance(1);
        if cross { (c + 1) % self.clients.len() as u32 } else { c }
    }

    /// A client is told something.
    pub(super) fn hear(&mut self, c: u32, bytes: &[u8]) {
        let c = c as usize;
        if self.clients[c].away {
            return;
        }
        self.clients[c].input.extend_from_slice(bytes);
        loop {
            let (value, len) = match reply(&self.clients[c].input) {
                Ok(Some(found)) => found,
                Ok(None) => return,
                Err(e) => return self.check.breaks(format!("(4) client {c} gets {e}")),
            };
            self.clients[c].input.drain(..len);
            self.told(c, value);
        }
    }

    fn told(&mut self, c: usize, value: Value) {
        let id = self.clients[c].id;
        let Some(asked) = self.clients[c].asked.front_mut() else {
            return self.check.breaks(format!("(4) client {id} gets {value:?}, and has asked nothing"));
        };
        asked.left -= 1;
        asked.alone |= asked.left == 2 && matches!(value, Value::Error(_));
        let alone = asked.alone;
        let (what, seq, left, at) = (asked.what, asked.seq, asked.left, asked.at);
        let tag = Tag { client: id, seq };
        if what == What::Transaction && left > 0 {
            let fits = match &value {
                Value::Simple(t) if !alone => t == if left == 2 { "OK" } else { "QUEUED" },
                Value::Error(_) => true,
                _ if alone => true,
                _ => false,
            };
            if !fits {
                self.check.breaks(format!("(4) {tag:?}, a transaction, is answered {value:?}"));
            }
            return;
        }
        self.clients[c].asked.pop_front();
        if alone {
            return;
        }
        match (what, value) {
            (_, Value::Error(e)) => self.told_error(tag, what, &e),
            (What::Set, Value::Simple(ok)) if ok == "OK" => self.acknowledged(c, tag, at),
            (What::Transaction, Value::Array(all)) if all.len() == 1 => self.acknowledged(c, tag, at),
            (What::Read { own }, Value::Array(all)) if all.len() == 2 => self.read(c, tag, own, &all),
            (_, value) => self.check.breaks(format!("(4) {tag:?}, {what:?}, is answered {value:?}")),
        }
    }

    fn acknowledged(&mut self, c: usize, tag: Tag, asked_at: u64) {
        let client = &mut self.clients[c];
        client.served = client.served.max(asked_at);
        if self.check.own.contains(&tag) {
            client.own = Some(tag.seq);
        }
        let durable = client.durable;
        self.check.acknowledged(self.now, tag, durable);
        self.planned.acknowledged(tag);
    }

    fn told_error(&mut self, tag: Tag, what: What, error: &str) {
        let word = error.split(' ').next().unwrap_or("");
        let write = !matches!(what, What::Read { .. });
        self.note(|| format!("{tag:?} is told {error}"));
        match word {
            // All of its replicas are not always there.
            "NOTDURABLE" => return self.told_not_durable(tag),
            "UNCERTAIN" => self.report.count("uncertain", 1),
            "MASTERDOWN" | "EXECABORT" | "READONLY" | "LOADING" | "BUSY" => {
                self.report.count("not executed", 1);
                if write {
                    self.check.denied.insert(tag);
                }
            }
            _ => self.check.breaks(format!("(4) {tag:?} is answered {error}")),
        }
        // What another proxy's pause meets in a transaction is refused there, and so discarded.
        let discarded = word == "EXECABORT" && self.proxies.len() > 1;
        self.check.errors += u64::from(!discarded);
    }

    fn told_not_durable(&mut self, tag: Tag) {
        self.report.count("not durable", 1);
        // The one that is asked in the end is content that the master has it.
        let (c, now) = (tag.client as usize, self.now);
        let client = &mut self.clients[c];
        client.served = client.served.max(now.saturating_sub(DURABLE_MS * 1000));
    }

    fn read(&mut self, c: usize, tag: Tag, own: bool, all: &[Value]) {
        let echo = matches!(&all[1], Value::Bulk(b) if tag_of(b) == Some(tag));
        if !echo {
            return self.check.breaks(format!("(4) {tag:?} is answered with another's reply: {all:?}"));
        }
        let value = match &all[0] {
            Value::Bulk(b) => tag_of(b),
            _ => None,
        };
        if let Some(last) = self.clients[c].own.filter(|_| own) {
            let expected = Tag { client: tag.client, seq: last };
            if value.is_none_or(|v| v.client == tag.client && v.seq < last) {
                self.check.stale.push((tag, expected));
            } else if value.is_some_and(|v| v.client != tag.client) {
                self.check.breaks(format!("(4) {tag:?} reads {value:?}, which nobody wrote there"));
            }
        }
    }

    /// The process of a proxy is gone: what its clients have asked, nobody answers.
    pub(super) fn leave_proxy(&mut self, p: usize) {
        for client in self.clients.iter_mut().filter(|c| c.proxy == p) {
            (client.away, client.input) = (true, Vec::new());
            client.asked.clear();
        }
    }

    /// They connect to the next.
    pub(super) fn join_proxy(&mut self, from: usize, to: usize) {
        for client in self.clients.iter_mut().filter(|c| c.proxy == from) {
            (client.away, client.proxy) = (false, to);
        }
    }

    /// A client's connection was closed by the proxy.
    pub(super) fn client_closed(&mut self, c: u32) {
        self.check.breaks(format!("(7) client {c} was closed without a reason"));
    }
}
