//! What the model server does for each command.
use super::super::resp::{bulk, tag_of};
use super::{
    Blocked, Conn, DATABASES, Data, OK, PATTERN, RENAMED, Replies, Role, Server, error, int, is_pattern,
};
use pointsman_core::Now;
use std::collections::VecDeque;
use std::time::Duration;

impl Server {
    /// Executes a command that nothing forbids; its reply (none if it blocks).
    pub(super) fn run(
        &mut self,
        now: Now,
        conn: usize,
        name: &str,
        args: &[Vec<u8>],
        in_tx: bool,
    ) -> Vec<u8> {
        let few = match name {
            "GET" | "SELECT" | "ECHO" | "INCR" => args.len() != 2,
            "SET" | "APPEND" | "PUBLISH" | "EVAL" | "EVALSHA" => args.len() < 3,
            "RPUSH" | "BLPOP" => args.len() < 3,
            "MGET" | "SUBSCRIBE" | "PSUBSCRIBE" | "WATCH" | "AUTH" | "CLIENT" => args.len() < 2,
            "LRANGE" => args.len() != 4,
            _ => false,
        };
        if few {
            return error(&format!(
                "ERR wrong number of arguments for '{}' command",
                name.to_ascii_lowercase()
            ));
        }
        match name {
            "PING" => self.ping(conn, args),
            "ECHO" => reply_bulk(&args[1]),
            "GET" | "MGET" | "LRANGE" => self.read(conn, name, args),
            "EVALSHA" if !self.knows_script => error("NOSCRIPT No matching script. Please use EVAL."),
            "SET" | "APPEND" | "INCR" | "EVAL" | "EVALSHA" | "RPUSH" | "PUBLISH" => {
                self.write(conn, name, args)
            }
            "WAIT" => self.wait(now, conn, args, in_tx),
            "BLPOP" => self.blpop(now, conn, args, in_tx),
            "MULTI" | "EXEC" | "DISCARD" | "WATCH" | "UNWATCH" => self.transaction(now, conn, name, args),
            "SUBSCRIBE" | "UNSUBSCRIBE" | "PSUBSCRIBE" | "PUNSUBSCRIBE" => {
                self.subscription(conn, name, args)
            }
            "ROLE" => self.say_role(),
            "COMMAND" => described(args),
            "CLIENT" if args[1].eq_ignore_ascii_case(b"UNBLOCK") => self.client_unblock(now, args),
            "MONITOR" => {
                self.conn(conn).monitor = true;
                OK.to_vec()
            }
            "QUIT" => {
                self.conn(conn).ending = true;
                OK.to_vec()
            }
            "RESET" => {
                let user = (!self.locked).then(|| "default".to_string());
                let c = self.conn(conn);
                (c.user, c.db, c.proto, c.tx, c.tx_bad, c.monitor) = (user, 0, 2, None, false, false);
                c.replies = Replies::On;
                c.name.clear();
                c.watched.clear();
                c.subs.clear();
                b"+RESET\r\n".to_vec()
            }
            _ => self.session(conn, name, args),
        }
    }

    fn conn(&mut self, id: usize) -> &mut Conn {
        self.conns.get_mut(&id).expect("a command of it runs")
    }

    fn ping(&mut self, conn: usize, args: &[Vec<u8>]) -> Vec<u8> {
        let c = self.conn(conn);
        match args.get(1) {
            _ if c.proto == 2 && !c.subs.is_empty() => {
                let mut out = b"*2\r\n$4\r\npong\r\n".to_vec();
                bulk(&mut out, args.get(1).map_or(b"", |a| a));
                out
            }
            Some(text) => reply_bulk(text),
            None => b"+PONG\r\n".to_vec(),
        }
    }

    fn say_role(&self) -> Vec<u8> {
        match self.role {
            Role::Master => {
                format!("*3\r\n$6\r\nmaster\r\n:{}\r\n*0\r\n", self.replication.offset).into_bytes()
            }
            _ => b"*5\r\n$5\r\nslave\r\n$1\r\nx\r\n:1\r\n$9\r\nconnected\r\n:0\r\n".to_vec(),
        }
    }

    fn null(&mut self, conn: usize) -> &'static [u8] {
        if self.conn(conn).proto == 3 { b"_\r\n" } else { b"$-1\r\n" }
    }

    fn get(&mut self, conn: usize, key: &[u8]) -> Vec<u8> {
        let db = self.conn(conn).db;
        if tag_of(key).is_some() {
            return reply_bulk(key);
        }
        match self.data.get(&(db, key.to_vec())) {
            Some(Data::Text(t)) => reply_bulk(t),
            _ => self.null(conn).to_vec(),
        }
    }

    fn read(&mut self, conn: usize, name: &str, args: &[Vec<u8>]) -> Vec<u8> {
        let db = self.conn(conn).db;
        match name {
            "GET" => match self.data.get(&(db, args[1].clone())) {
                Some(Data::List(_)) => {
                    error("WRONGTYPE Operation against a key holding the wrong kind of value")
                }
                _ => self.get(conn, &args[1]),
            },
            "MGET" => {
                let mut out = format!("*{}\r\n", args.len() - 1).into_bytes();
                for key in &args[1..] {
                    out.extend(self.get(conn, key));
                }
                out
            }
            _ => {
                let empty = VecDeque::new();
                let list = match self.data.get(&(db, args[1].clone())) {
                    Some(Data::List(l)) => l,
                    _ => &empty,
                };
                let mut out = format!("*{}\r\n", list.len()).into_bytes();
                for e in list {
                    bulk(&mut out, e);
                }
                out
            }
        }
    }

    fn touch(&mut self, db: u32, key: &[u8]) {
        *self.versions.entry((db, key.to_vec())).or_default() += 1;
    }

    fn write(&mut self, conn: usize, name: &str, args: &[Vec<u8>]) -> Vec<u8> {
        let db = self.conn(conn).db;
        if name == "PUBLISH" {
            return self.publish(&args[1], &args[2]);
        }
        let key = if name.starts_with("EVAL") { args[3].clone() } else { args[1].clone() };
        self.touch(db, &key);
        let at = (db, key);
        let wrong = || error("WRONGTYPE Operation against a key holding the wrong kind of value");
        match name {
            "SET" | "EVAL" | "EVALSHA" => {
                self.knows_script |= name == "EVAL";
                let value = if name == "SET" { &args[2] } else { &args[4] };
                self.data.insert(at, Data::Text(value.clone()));
                if name == "SET" { OK.to_vec() } else { reply_bulk(value) }
            }
            "RPUSH" => match self.data.entry(at).or_insert_with(|| Data::List(VecDeque::new())) {
                Data::List(l) => {
                    l.extend(args[2..].iter().cloned());
                    int(l.len() as i64)
                }
                Data::Text(_) => wrong(),
            },
            "APPEND" => match self.data.entry(at).or_insert_with(|| Data::Text(Vec::new())) {
                Data::Text(t) => {
                    t.extend_from_slice(&args[2]);
                    t.truncate(1 << 16);
                    int(t.len() as i64)
                }
                Data::List(_) => wrong(),
            },
            _ => match self.data.entry(at).or_insert_with(|| Data::Text(b"0".to_vec())) {
                Data::Text(t) => {
                    let n: i64 = std::str::from_utf8(t).ok().and_then(|t| t.parse().ok()).unwrap_or(0) + 1;
                    *t = n.to_string().into_bytes();
                    int(n)
                }
                Data::List(_) => wrong(),
            },
        }
    }

    /// `waitCommand` (`replication.c`).
    fn wait(&mut self, now: Now, conn: usize, args: &[Vec<u8>], in_tx: bool) -> Vec<u8> {
        if self.role != Role::Master {
            return error(
                "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured to be writable (which is not the default) writes to replicas are just local and are not propagated.",
            );
        }
        let number =
            |i: usize| args.get(i).and_then(|a| String::from_utf8_lossy(a).parse::<u64>().ok()).unwrap_or(0);
        let (most, ms) = (number(1) as usize, number(2));
        let offset = self.conn(conn).wrote_to;
        let having = self.replication.having(offset);
        if having >= most || in_tx {
            return int(having as i64);
        }
        let until = (ms > 0).then(|| now + Duration::from_millis(ms));
        self.conn(conn).blocked = Some(Blocked { args: args.to_vec(), until, wait: Some((most, offset)) });
        Vec::new()
    }

    fn publish(&mut self, channel: &[u8], message: &[u8]) -> Vec<u8> {
        let mut heard = 0;
        for c in self.conns.values_mut() {
            let kind = if c.proto == 3 { '>' } else { '*' };
            let mut send = |parts: &[&[u8]]| {
                heard += 1;
                let mut out = format!("{kind}{}\r\n", parts.len()).into_bytes();
                parts.iter().for_each(|part| bulk(&mut out, part));
                c.out.extend(out);
            };
            if c.subs.contains(channel) {
                send(&[b"message", channel, message]);
            }
            let matches = |name: &&Vec<u8>| is_pattern(name) && channel.ends_with(&name[PATTERN.len()..]);
            for pattern in c.subs.iter().filter(matches) {
                send(&[b"pmessage", pattern, channel, message]);
            }
        }
        int(heard)
    }

    fn pop(&mut self, db: u32, args: &[Vec<u8>]) -> Option<Vec<u8>> {
        for key in &args[1..args.len() - 1] {
            let at = (db, key.clone());
            let Some(Data::List(l)) = self.data.get_mut(&at) else { continue };
            let Some(e) = l.pop_front() else { continue };
            if l.is_empty() {
                self.data.remove(&at);
            }
            self.touch(db, key);
            let mut out = b"*2\r\n".to_vec();
            bulk(&mut out, key);
            bulk(&mut out, &e);
            return Some(out);
        }
        None
    }

    fn blpop(&mut self, now: Now, conn: usize, args: &[Vec<u8>], in_tx: bool) -> Vec<u8> {
        let db = self.conn(conn).db;
        if let Some(reply) = self.pop(db, args) {
            return reply;
        }
        let c = self.conn(conn);
        if in_tx {
            return if c.proto == 3 { b"_\r\n".to_vec() } else { b"*-1\r\n".to_vec() };
        }
        let text = String::from_utf8_lossy(&args[args.len() - 1]).into_owned();
        let ms = (text.parse::<f64>().unwrap_or(0.0) * 1000.0) as u64;
        let until = (ms > 0).then(|| now + Duration::from_millis(ms));
        c.blocked = Some(Blocked { args: args.to_vec(), until, wait: None });
        Vec::new()
    }

    /// A connection waits no longer, as if its time were over. None has the id 0.
    fn client_unblock(&mut self, now: Now, args: &[Vec<u8>]) -> Vec<u8> {
        let named = args.get(2).and_then(|id| std::str::from_utf8(id).ok()?.parse::<usize>().ok());
        match named.filter(|id| *id > 0 && self.is_blocked(*id)) {
            Some(id) => {
                self.time_is_over(now, id);
                int(1)
            }
            None => int(0),
        }
    }

    /// Whoever waits for something that is there now gets it.
    pub(super) fn serve_blocked(&mut self, now: Now) {
        for id in self.conns() {
            let Some(c) = self.conns.get(&id) else { continue };
            let Some(b) = c.blocked.as_ref().filter(|b| b.wait.is_none()) else { continue };
            let (db, args) = (c.db, b.args.clone());
            if let Some(reply) = self.pop(db, &args) {
                self.unblock(now, id, |_| reply.clone());
            }
        }
    }

    fn transaction(&mut self, now: Now, conn: usize, name: &str, args: &[Vec<u8>]) -> Vec<u8> {
        let versions = self.versions.clone();
        let c = self.conn(conn);
        match name {
            "MULTI" if c.tx.is_some() => error("ERR MULTI calls can not be nested"),
            "MULTI" => {
                c.tx = Some(Vec::new());
                OK.to_vec()
            }
            "WATCH" if c.tx.is_some() => error("ERR WATCH inside MULTI is not allowed"),
            "WATCH" => {
                for key in &args[1..] {
                    let version = versions.get(&(c.db, key.clone())).copied().unwrap_or(0);
                    c.watched.push((c.db, key.clone(), version));
                }
                OK.to_vec()
            }
            "UNWATCH" => {
                c.watched.clear();
                OK.to_vec()
            }
            "DISCARD" if c.tx.is_none() => error("ERR DISCARD without MULTI"),
            "DISCARD" => {
                (c.tx, c.tx_bad) = (None, false);
                c.watched.clear();
                OK.to_vec()
            }
            _ => {
                let Some(tx) = c.tx.take() else { return error("ERR EXEC without MULTI") };
                let bad = std::mem::take(&mut c.tx_bad);
                let watched = std::mem::take(&mut c.watched);
                if bad {
                    return error("EXECABORT Transaction discarded because of previous errors.");
                }
                let changed = |(db, key, v): &(u32, Vec<u8>, u64)| {
                    versions.get(&(*db, key.clone())).copied().unwrap_or(0) != *v
                };
                if watched.iter().any(changed) {
                    return if c.proto == 3 { b"_\r\n".to_vec() } else { b"*-1\r\n".to_vec() };
                }
                let mut out = format!("*{}\r\n", tx.len()).into_bytes();
                for args in tx {
                    let name = String::from_utf8_lossy(&args[0]).to_ascii_uppercase();
                    let reply = self.run(now, conn, &name, &args, true);
                    self.note(now, conn, &args, &reply, true);
                    out.extend(reply);
                }
                out
            }
        }
    }

    fn subscription(&mut self, conn: usize, name: &str, args: &[Vec<u8>]) -> Vec<u8> {
        let c = self.conn(conn);
        let kind = if c.proto == 3 { '>' } else { '*' };
        let (adds, patterns) = (!name.contains("UN"), name.starts_with('P'));
        let mut channels: Vec<Option<Vec<u8>>> = args[1..].iter().cloned().map(Some).collect();
        if channels.is_empty() {
            channels = c.subs.iter().filter(|name| is_pattern(name) == patterns).cloned().map(Some).collect();
            if channels.is_empty() {
                channels.push(None);
            }
        }
        let mut out = Vec::new();
        for channel in channels {
            if let Some(ch) = &channel {
                if adds {
                    c.subs.insert(ch.clone());
                } else {
                    c.subs.remove(ch);
                }
            }
            out.extend(format!("{kind}3\r\n").bytes());
            bulk(&mut out, name.to_ascii_lowercase().as_bytes());
            match &channel {
                Some(ch) => bulk(&mut out, ch),
                None => out.extend(if c.proto == 3 { &b"_\r\n"[..] } else { b"$-1\r\n" }),
            }
            out.extend(int(c.subs.len() as i64));
        }
        out
    }

    fn session(&mut self, conn: usize, name: &str, args: &[Vec<u8>]) -> Vec<u8> {
        let locked = self.locked;
        let null = self.null(conn);
        let c = self.conn(conn);
        match name {
            "SELECT" => match std::str::from_utf8(&args[1]).ok().and_then(|t| t.parse::<u32>().ok()) {
                Some(db) if db < DATABASES => {
                    c.db = db;
                    OK.to_vec()
                }
                Some(_) => error("ERR DB index is out of range"),
                None => error("ERR invalid DB index"),
            },
            "AUTH" => match args {
                [_, secret] => authenticate(c, b"default", secret, locked),
                [_, user, secret] => authenticate(c, user, secret, locked),
                _ => error("ERR syntax error"),
            },
            "HELLO" => hello(c, conn, args, locked),
            _ => match args[1].to_ascii_uppercase().as_slice() {
                b"SETNAME" => {
                    c.name = args[2].clone();
                    OK.to_vec()
                }
                b"GETNAME" if c.name.is_empty() => null.to_vec(),
                b"GETNAME" => reply_bulk(&c.name),
                b"ID" => int(conn as i64),
                b"REPLY" => match args[2].as_slice() {
                    b"OFF" => {
                        c.replies = Replies::Off;
                        Vec::new()
                    }
                    b"SKIP" => {
                        if c.replies == Replies::On {
                            c.replies = Replies::SkipNext;
                        }
                        Vec::new()
                    }
                    _ => {
                        c.replies = Replies::On;
                        OK.to_vec()
                    }
                },
                _ => error("ERR unknown subcommand"),
            },
        }
    }
}

fn reply_bulk(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    bulk(&mut out, bytes);
    out
}

fn authenticate(c: &mut Conn, user: &[u8], secret: &[u8], locked: bool) -> Vec<u8> {
    let right = match user {
        b"default" if !locked && secret != b"default-secret" => {
            return error(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
            );
        }
        b"default" => secret == b"default-secret",
        b"alice" => secret == b"alice-secret",
        b"bob" => secret == b"bob-secret",
        _ => false,
    };
    if !right {
        return error("WRONGPASS invalid username-password pair or user is disabled.");
    }
    c.user = Some(String::from_utf8_lossy(user).into());
    OK.to_vec()
}

fn hello(c: &mut Conn, id: usize, args: &[Vec<u8>], locked: bool) -> Vec<u8> {
    let mut version = c.proto;
    if let Some(v) = args.get(1) {
        version = match &v[..] {
            b"2" => 2,
            b"3" => 3,
            _ => return error("NOPROTO unsupported protocol version"),
        };
    }
    let mut i = 2;
    let mut name = None;
    let mut auth = None;
    while i < args.len() {
        match args[i].to_ascii_uppercase().as_slice() {
            b"AUTH" if i + 2 < args.len() => {
                auth = Some((args[i + 1].clone(), args[i + 2].clone()));
                i += 3;
            }
            b"SETNAME" if i + 1 < args.len() => {
                name = Some(args[i + 1].clone());
                i += 2;
            }
            _ => return error("ERR Syntax error in HELLO option"),
        }
    }
    if let Some((user, secret)) = auth {
        let reply = authenticate(c, &user, &secret, locked);
        if reply.starts_with(b"-") {
            return reply;
        }
    }
    if c.user.is_none() {
        return error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        );
    }
    if let Some(name) = name {
        c.name = name;
    }
    c.proto = version;
    let mut out = if version == 3 { b"%3\r\n".to_vec() } else { b"*6\r\n".to_vec() };
    bulk(&mut out, b"server");
    bulk(&mut out, b"model");
    bulk(&mut out, b"proto");
    out.extend(int(i64::from(version)));
    bulk(&mut out, b"id");
    out.extend(int(id as i64));
    out
}

/// `COMMAND INFO name`: a command that was renamed tells its own name.
fn described(args: &[Vec<u8>]) -> Vec<u8> {
    match args.get(2) {
        Some(name) if name.eq_ignore_ascii_case(RENAMED) => {
            b"*1\r\n*7\r\n$3\r\nset\r\n:-3\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n*0\r\n".to_vec()
        }
        _ => b"*1\r\n*-1\r\n".to_vec(),
    }
}
