//! What a model client says: phrases of commands, each with a tag where its arguments allow one.
//!
//! Never said: shard channels, `CLIENT TRACKING`, `XREAD` and other commands that block than `BLPOP`, functions, `SCRIPT KILL`, replies of
//! maps, sets or doubles but for `HELLO`'s. Those are tested beside the worker, or with real servers.
use super::resp::{Tag, encode};
use super::server::{PATTERN, RENAMED, is_pattern};
use crate::rng::Rng;

/// What a command is, as far as its reply must be understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// PING or ECHO with a tag.
    Echo {
        /// It is PING.
        ping: bool,
    },
    /// MGET of a key and a tag.
    Mget,
    /// GET of a key.
    Get,
    /// LRANGE of a list.
    Lrange,
    /// SET of a tagged value.
    Set,
    /// APPEND of a tag.
    Append,
    /// INCR of a key that is a tag.
    Incr,
    /// EVAL with a tag, which it answers with.
    Eval,
    /// EVALSHA of the same script.
    Evalsha,
    /// RPUSH of a tag.
    Rpush,
    /// PUBLISH of a tag.
    Publish,
    /// WAIT 0 10.
    Wait,
    /// BLPOP of a list and a tag.
    Blpop {
        /// Without an end: its client loses patience, and leaves.
        forever: bool,
    },
    /// MULTI.
    Multi,
    /// EXEC.
    Exec,
    /// DISCARD.
    Discard,
    /// WATCH of a key and a tag.
    Watch,
    /// UNWATCH.
    Unwatch,
    /// SUBSCRIBE, or PSUBSCRIBE of patterns.
    Subscribe(Vec<Vec<u8>>),
    /// UNSUBSCRIBE, or PUNSUBSCRIBE.
    Unsubscribe {
        /// It is the latter.
        patterns: bool,
        /// Which; none: all.
        names: Vec<Vec<u8>>,
    },
    /// SELECT.
    Select(u32),
    /// AUTH.
    Auth(&'static str, &'static str),
    /// HELLO.
    Hello {
        /// The version.
        proto: Option<u8>,
        /// The user and secret.
        auth: Option<(&'static str, &'static str)>,
        /// The name.
        name: Option<Vec<u8>>,
    },
    /// CLIENT ID.
    ClientId,
    /// CLIENT GETNAME.
    Getname,
    /// CLIENT UNBLOCK of some session.
    Unblock,
    /// CLIENT SETNAME.
    Setname(Vec<u8>),
    /// RESET.
    Reset,
    /// QUIT.
    Quit,
    /// A command that no server knows.
    Unknown,
    /// A command that is refused by default.
    Refused,
    /// A request that gets no reply.
    Silent,
    /// Bytes that are no request.
    Malformed,
    /// MONITOR.
    Monitor,
    /// CLIENT REPLY: its client does not count replies from here on.
    Reply,
}

/// One command.
#[derive(Clone, Debug)]
pub(super) struct Cmd {
    /// Its place in the script.
    pub(super) seq: u32,
    /// What it is.
    pub(super) what: What,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
}

/// The digest of the one Lua script that there is: `s`.
pub(super) const SHA: &[u8] = b"a0f1490a20d0211c997b44bc357e1972deab8ae3";

/// What a script may contain.
#[derive(Clone, Debug)]
pub(super) struct Style {
    /// Keys and lists are the client's own.
    pub(super) private: bool,
    /// The default user needs a password.
    pub(super) locked: bool,
    /// Values of this size are large to the proxy.
    pub(super) large: usize,
    /// Values that are so large that their reply is passed on in parts, too.
    pub(super) huge: bool,
    /// About so many phrases.
    pub(super) phrases: u64,
}

struct Writer<'a> {
    rng: &'a mut Rng,
    style: &'a Style,
    client: u32,
    out: Vec<Cmd>,
}

/// The script of one client.
pub(super) fn script(rng: &mut Rng, client: u32, style: &Style) -> Vec<Cmd> {
    let mut w = Writer { rng, style, client, out: Vec::new() };
    if style.locked && w.rng.chance(85) {
        w.authenticate();
    }
    for _ in 0..w.rng.between(1, style.phrases) {
        w.phrase();
    }
    match w.rng.below(20) {
        0 | 1 => w.push(What::Quit, &[b"QUIT"]),
        2 => {
            let bytes: &[u8] = [&b"*1\r\n!4\r\nPING\r\n"[..], b"*x\r\n", b"*2\r\n$-3\r\n"][w.rng.index(3)];
            w.raw(What::Malformed, bytes.to_vec());
        }
        3 if !style.private => w.push(What::Monitor, &[b"MONITOR"]),
        4..=8 if !style.private => drop(w.subscribe()),
        9 | 10 => w.without_replies(),
        11..=13 => {
            // It ends in the middle of whatever it does.
            let most = w.out.len() as u64;
            w.out.truncate(w.rng.between(1, most.max(1)) as usize);
        }
        _ => {}
    }
    w.out
}

impl Writer<'_> {
    fn seq(&self) -> u32 {
        self.out.len() as u32
    }

    fn tag(&self) -> Vec<u8> {
        tag_bytes(Tag { client: self.client, seq: self.seq() })
    }

    fn raw(&mut self, what: What, bytes: Vec<u8>) {
        let seq = self.seq();
        self.out.push(Cmd { seq, what, bytes });
    }

    fn push(&mut self, what: What, args: &[&[u8]]) {
        let plain =
            args.iter().all(|a| !a.is_empty() && a.len() < 40 && !a.iter().any(|b| b" \"'\r\n".contains(b)));
        if plain && self.rng.chance(8) {
            let mut line = args.join(&b' ');
            line.extend_from_slice(if self.rng.chance(50) { b"\r\n" } else { b"\n" });
            return self.raw(what, line);
        }
        self.raw(what, encode(args));
    }

    fn name(&mut self, kind: &str, of: u64) -> Vec<u8> {
        let n = self.rng.below(of);
        let owner = if self.style.private { format!("c{}:", self.client) } else { String::new() };
        format!("{owner}{kind}{n}").into_bytes()
    }

    /// A channel, which is everybody's.
    fn channel(&mut self, of: u64) -> Vec<u8> {
        format!("ch{}", self.rng.below(of)).into_bytes()
    }

    fn key(&mut self) -> Vec<u8> {
        self.name("k", 4)
    }

    fn phrase(&mut self) {
        match self.rng.below(24) {
            0..=8 => {
                for _ in 0..self.rng.between(1, 12) {
                    self.simple();
                }
            }
            9..=11 => self.transaction(),
            12 => self.blpop(),
            13 => self.select(),
            14 => self.hello(),
            15 => self.authenticate(),
            16 => self.names(),
            17 => self.subscription(),
            18 => {
                if self.rng.chance(30) {
                    self.reset();
                }
            }
            19 => self.odd(),
            20 | 21 => self.large(),
            22 => self.push(What::Wait, &[b"WAIT", b"0", b"10"]),
            _ => {
                let key = self.name("l", 2);
                let tag = self.tag();
                self.push(What::Rpush, &[b"RPUSH", &key, &tag]);
                self.blpop();
            }
        }
    }

    fn reset(&mut self) {
        self.push(What::Reset, &[b"RESET"]);
        if self.style.locked {
            self.authenticate();
        }
    }

    fn simple(&mut self) {
        let tag = self.tag();
        let key = self.key();
        match self.rng.below(14) {
            12 => {
                let list = self.name("l", 2);
                self.push(What::Lrange, &[b"LRANGE", &list, b"0", b"-1"]);
            }
            0 => self.push(What::Echo { ping: true }, &[b"PING", &tag]),
            1 => self.push(What::Echo { ping: false }, &[b"eCHo", &tag]),
            2 | 3 => self.push(What::Mget, &[b"MGET", &key, &tag]),
            4 => self.push(What::Get, &[b"GET", &key]),
            5..=7 => {
                let mut value = tag;
                value.resize(value.len() + self.rng.below(60) as usize, b'v');
                let name = if self.rng.chance(10) { RENAMED } else { b"SET" };
                self.push(What::Set, &[name, &key, &value]);
            }
            8 => self.push(What::Append, &[b"APPEND", &key, &tag]),
            9 => self.push(What::Incr, &[b"INCR", &tag]),
            10 if !self.style.private && self.rng.chance(60) => {
                self.push(What::Evalsha, &[b"EVALSHA", SHA, b"1", &key, &tag]);
            }
            10 => self.push(What::Eval, &[b"EVAL", b"s", b"1", &key, &tag]),
            11 => {
                let list = self.name("l", 2);
                self.push(What::Rpush, &[b"RPUSH", &list, &tag]);
            }
            _ => {
                let channel = self.channel(2);
                self.push(What::Publish, &[b"PUBLISH", &channel, &tag]);
            }
        }
    }

    fn large(&mut self) {
        let mut value = self.tag();
        let most = self.style.large as u64 * 4;
        let mut size = self.rng.between(1, most);
        if self.style.huge && self.rng.chance(40) {
            size = self.rng.between(60_000, 150_000);
        }
        value.resize(value.len() + size as usize, b'V');
        let key = self.key();
        let name = if self.rng.chance(20) { RENAMED } else { b"SET" };
        self.push(What::Set, &[name, &key, &value]);
        let tag = self.tag();
        self.push(What::Mget, &[b"MGET", &key, &tag]);
        if self.rng.chance(50) {
            self.push(What::Get, &[b"GET", &key]);
        }
    }

    fn without_replies(&mut self) {
        for _ in 0..self.rng.between(1, 3) {
            let how: &[u8] = [&b"OFF"[..], b"SKIP", b"ON"][self.rng.index(3)];
            self.push(What::Reply, &[b"CLIENT", b"REPLY", how]);
            for _ in 0..self.rng.below(6) {
                self.simple();
                // How many hear it depends on others.
                if self.style.private && self.out.last().is_some_and(|cmd| cmd.what == What::Publish) {
                    self.out.pop();
                }
            }
        }
    }

    fn transaction(&mut self) {
        if self.rng.chance(30) {
            let (key, tag) = (self.key(), self.tag());
            self.push(What::Watch, &[b"WATCH", &key, &tag]);
            for _ in 0..self.rng.below(3) {
                self.simple();
            }
            if self.rng.chance(10) {
                return self.push(What::Unwatch, &[b"UNWATCH"]);
            }
        }
        self.push(What::Multi, &[b"MULTI"]);
        for _ in 0..self.rng.below(5) {
            match self.rng.below(30) {
                0..=2 => self.select(),
                3 | 4 => self.large(),
                5 | 6 => self.push(What::Unknown, &[b"FROBNICATE", b"x"]),
                7 | 8 => self.push(What::ClientId, &[b"CLIENT", b"ID"]),
                9 => self.push(What::Refused, &[b"SHUTDOWN"]),
                10 => self.push(What::Multi, &[b"MULTI"]),
                11 => {
                    let (key, tag) = (self.key(), self.tag());
                    self.push(What::Watch, &[b"WATCH", &key, &tag]);
                }
                12 => {
                    let (list, tag) = (self.name("l", 2), self.tag());
                    self.push(What::Blpop { forever: false }, &[b"BLPOP", &list, &tag, b"0.1"]);
                }
                13 => return self.reset(),
                14 | 15 => self.unblock(),
                _ => self.simple(),
            }
        }
        if self.rng.chance(85) {
            self.push(What::Exec, &[b"EXEC"]);
        } else {
            self.push(What::Discard, &[b"DISCARD"]);
        }
    }

    fn blpop(&mut self) {
        let (list, tag) = (self.name("l", 2), self.tag());
        let forever = !self.style.private && self.rng.chance(20);
        let timeout: &[u8] =
            if forever { b"0" } else { [&b"0.01"[..], b"0.1", b"0.5", b"2"][self.rng.index(4)] };
        self.push(What::Blpop { forever }, &[b"BLPOP", &list, &tag, timeout]);
        // Behind what never ends more is said than anybody wants to keep.
        for _ in 0..if forever { self.rng.between(20, 80) } else { 0 } {
            self.simple();
        }
    }

    fn select(&mut self) {
        let db = self.rng.below(6) as u32;
        self.push(What::Select(db), &[b"SELECT", db.to_string().as_bytes()]);
    }

    fn credential(&mut self) -> (&'static str, &'static str) {
        let all = [
            ("alice", "alice-secret"),
            ("alice", "alice-secret"),
            ("bob", "bob-secret"),
            ("alice", "wrong"),
            ("default", "default-secret"),
        ];
        all[self.rng.index(all.len())]
    }

    fn authenticate(&mut self) {
        let (user, secret) = self.credential();
        if user == "default" && self.rng.chance(50) {
            self.push(What::Auth(user, secret), &[b"AUTH", secret.as_bytes()]);
        } else {
            self.push(What::Auth(user, secret), &[b"AUTH", user.as_bytes(), secret.as_bytes()]);
        }
    }

    fn hello(&mut self) {
        let proto = [None, Some(2), Some(3), Some(3), Some(4)][self.rng.index(5)];
        let version = proto.map(|p: u8| p.to_string());
        let (mut auth, mut name) = (None, None);
        let mut args: Vec<Vec<u8>> = vec![b"HELLO".to_vec()];
        if let Some(v) = version {
            args.push(v.into_bytes());
            if self.rng.chance(25) {
                let (user, secret) = self.credential();
                auth = Some((user, secret));
                args.extend([b"AUTH".to_vec(), user.into(), secret.into()]);
            }
            if self.rng.chance(25) {
                let n = self.fresh_name();
                name = Some(n.clone());
                args.extend([b"SETNAME".to_vec(), n]);
            }
        }
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        self.push(What::Hello { proto, auth, name }, &args);
    }

    fn fresh_name(&mut self) -> Vec<u8> {
        format!("n{}-{}", self.client, self.seq()).into_bytes()
    }

    fn names(&mut self) {
        if self.rng.chance(60) {
            let name = self.fresh_name();
            self.push(What::Setname(name.clone()), &[b"CLIENT", b"SETNAME", &name]);
        }
        if self.rng.chance(60) {
            self.push(What::Getname, &[b"CLIENT", b"getname"]);
        }
        if self.rng.chance(60) {
            self.push(What::ClientId, &[b"CLIENT", b"ID"]);
        }
        if self.rng.chance(60) {
            self.unblock();
        }
    }

    fn unblock(&mut self) {
        // Sessions count from 1.
        let session = format!("{}", self.rng.between(1, 8));
        self.push(What::Unblock, &[b"CLIENT", b"unblock", session.as_bytes()]);
    }

    fn subscribe(&mut self) -> Vec<Vec<u8>> {
        let patterns = self.rng.chance(30);
        let mut channels: Vec<Vec<u8>> = (0..self.rng.between(1, 3)).map(|_| self.channel(3)).collect();
        if patterns {
            channels.iter_mut().for_each(|name| *name = [PATTERN, &name[..]].concat());
        }
        let mut args: Vec<&[u8]> = vec![if patterns { b"PSUBSCRIBE" } else { b"SUBSCRIBE" }];
        args.extend(channels.iter().map(Vec::as_slice));
        let bytes = encode(&args);
        self.raw(What::Subscribe(channels.clone()), bytes);
        channels
    }

    fn subscription(&mut self) {
        let mut channels = self.subscribe();
        for _ in 0..self.rng.below(5) {
            if self.rng.chance(8) {
                self.hello();
            } else if self.rng.chance(5) {
                return self.reset();
            } else if self.rng.chance(8) {
                channels.extend(self.subscribe());
            } else if self.rng.chance(5) {
                self.transaction();
            } else if self.rng.chance(20) {
                // A list that looks like a message.
                let (list, tag) = (self.name("m", 1), self.tag());
                self.push(What::Rpush, &[b"RPUSH", &list, b"message", &tag]);
                self.push(What::Lrange, &[b"LRANGE", &list, b"0", b"-1"]);
            } else if self.rng.chance(50) {
                let tag = self.tag();
                self.push(What::Echo { ping: true }, &[b"PING", &tag]);
            } else {
                self.simple();
            }
        }
        let all = self.rng.chance(50);
        let (patterns, channels): (Vec<_>, Vec<_>) = channels.into_iter().partition(|name| is_pattern(name));
        let mut both = [(&b"UNSUBSCRIBE"[..], channels), (b"PUNSUBSCRIBE", patterns)];
        if self.rng.chance(50) {
            both.reverse();
        }
        for (word, mut names) in both {
            if names.is_empty() {
                continue;
            }
            if all {
                names.clear();
            }
            let mut args: Vec<&[u8]> = vec![word];
            args.extend(names.iter().map(Vec::as_slice));
            let bytes = encode(&args);
            self.raw(What::Unsubscribe { patterns: word[0] == b'P', names }, bytes);
        }
    }

    fn odd(&mut self) {
        match self.rng.below(4) {
            0 => self.push(What::Unknown, &[b"FROBNICATE", b"x"]),
            1 => self.push(What::Refused, &[b"SHUTDOWN"]),
            2 => self.raw(What::Silent, b"\r\n".to_vec()),
            _ => self.raw(What::Silent, b"*0\r\n".to_vec()),
        }
    }
}

/// A tag as it stands in a command.
pub(super) fn tag_bytes(tag: Tag) -> Vec<u8> {
    format!("t:{}:{}:", tag.client, tag.seq).into_bytes()
}
