//! How commands are formed, by what the server itself says of them (`COMMAND DOCS`), and any of them at random: most as the
//! server wants them, some not.
use super::exceptions::NOT_SAID_WITH;
use crate::harness::random::Random;
use crate::harness::twin::Command;
use pointsman::client::Value;

/// A command or subcommand.
pub(crate) struct Form {
    /// Upper-case; a subcommand is `CLIENT|ID`.
    pub(crate) name: String,
    arguments: Vec<Argument>,
}

struct Argument {
    name: String,
    kind: String,
    token: Option<String>,
    optional: bool,
    multiple: bool,
    /// Its token is said again with each.
    token_each: bool,
    parts: Vec<Argument>,
}

/// All that the answer to `COMMAND DOCS` tells of.
pub(crate) fn forms(docs: &Value) -> Vec<Form> {
    let mut all = Vec::new();
    for pair in docs.items().chunks_exact(2) {
        form(&pair[0], &pair[1], &mut all);
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn form(name: &Value, doc: &Value, all: &mut Vec<Form>) {
    let subcommands = of(doc, "subcommands");
    for pair in subcommands.chunks_exact(2) {
        form(&pair[0], &pair[1], all);
    }
    let name = name.text().expect("a command has a name").to_uppercase();
    if subcommands.is_empty() {
        let mut arguments = of(doc, "arguments").iter().map(argument).collect();
        for (_, token, _) in NOT_SAID_WITH.iter().filter(|(of, ..)| *of == name) {
            leave_out(&mut arguments, token);
        }
        all.push(Form { name, arguments });
    }
}

fn leave_out(arguments: &mut Vec<Argument>, token: &str) {
    arguments.retain(|a| a.token.as_deref() != Some(token));
    arguments.iter_mut().for_each(|a| leave_out(&mut a.parts, token));
}

fn of<'a>(doc: &'a Value, field: &str) -> &'a [Value] {
    let pair = doc.items().chunks_exact(2).find(|pair| pair[0].text().as_deref() == Some(field));
    pair.map_or(&[], |pair| pair[1].items())
}

fn argument(doc: &Value) -> Argument {
    let flags = of(doc, "flags");
    let is = |flag: &str| flags.iter().any(|f| f.text().as_deref() == Some(flag));
    Argument {
        name: doc.field("name").unwrap_or_default(),
        kind: doc.field("type").unwrap_or_default(),
        token: doc.field("token"),
        optional: is("optional"),
        multiple: is("multiple"),
        token_each: is("multiple_token"),
        parts: of(doc, "arguments").iter().map(argument).collect(),
    }
}

impl Form {
    /// Whether it may wait for others.
    pub(crate) fn blocks(&self) -> bool {
        self.arguments.iter().any(Argument::blocks)
    }

    /// Says it somehow.
    pub(crate) fn say(&self, random: &mut Random) -> Command {
        let mut words: Vec<String> = self.name.split('|').map(str::to_owned).collect();
        let fixed = words.len();
        Saying { random, keys: None }.all(&self.arguments, &mut words);
        if random.percent(12) {
            // What blocks is not told to block for long by mistake.
            let odd = if self.blocks() { &ODD[..3] } else { &ODD };
            spoil(random, &mut words, fixed, odd);
        }
        if random.percent(10) {
            words[0] = words[0].to_lowercase();
        }
        words.into_iter().map(String::into_bytes).collect()
    }
}

impl Argument {
    fn blocks(&self) -> bool {
        self.name == "timeout" || self.token.as_deref() == Some("BLOCK")
    }
}

struct Saying<'a> {
    random: &'a mut Random,
    /// So many keys were announced.
    keys: Option<usize>,
}

impl Saying<'_> {
    fn all(&mut self, arguments: &[Argument], words: &mut Vec<String>) {
        for a in arguments {
            if !a.optional || self.random.percent(35) {
                self.argument(a, words);
            }
        }
    }

    fn argument(&mut self, a: &Argument, words: &mut Vec<String>) {
        let times = match (a.multiple, self.keys.take_if(|_| a.kind == "key")) {
            (true, Some(announced)) => announced,
            (true, None) => 1 + self.random.below(3),
            (false, _) => 1,
        };
        for i in 0..times {
            if let Some(token) = a.token.as_ref().filter(|t| !t.is_empty() && (i == 0 || a.token_each)) {
                words.push(token.clone());
            }
            self.value(a, words);
        }
    }

    fn value(&mut self, a: &Argument, words: &mut Vec<String>) {
        match a.kind.as_str() {
            "pure-token" => {}
            "block" => self.all(&a.parts, words),
            "oneof" => {
                // What `XADD` and `XSETID` can make up is different each time.
                let parts: Vec<&Argument> =
                    a.parts.iter().filter(|p| p.token.as_deref() != Some("*")).collect();
                let part = self.random.one_of(&parts);
                self.argument(part, words);
            }
            _ if a.name == "numkeys" => {
                let n = 1 + self.random.below(3);
                self.keys = Some(n);
                words.push(n.to_string());
            }
            _ => {
                let word = self.word(a);
                words.push(word);
            }
        }
    }

    /// A word that has some chance to mean something.
    fn word(&mut self, a: &Argument) -> String {
        let n = self.random.below(20);
        match (a.kind.as_str(), a.name.as_str()) {
            ("key", _) => format!("k{}", self.random.below(24)),
            // Nothing blocks for long, nor for ever.
            ("double", "timeout") => "0.002".into(),
            (_, "timeout") => "1".into(),
            (_, "milliseconds") if a.token.as_deref() == Some("BLOCK") => "1".into(),
            (_, "seconds") => (1_000_000 + n).to_string(),
            (_, "milliseconds") => (1_000_000_000 + n).to_string(),
            // Idle for so long is nobody, or everybody.
            (_, "min-idle-time") => {
                if n < 10 {
                    "0".into()
                } else {
                    "999999999".into()
                }
            }
            ("unix-time", name) => {
                let far = if n < 17 { 4_102_444_800 + n as u64 } else { 1 + n as u64 };
                (if name.contains("milli") { far * 1000 } else { far }).to_string()
            }
            (_, "protover") => (2 + n % 2).to_string(),
            (_, "index" | "destination-db" | "db" | "index1" | "index2") if a.kind == "integer" => {
                (n % 4).to_string()
            }
            ("integer", _) => match n {
                0 => "-1".into(),
                1 => "0".into(),
                _ => n.to_string(),
            },
            ("double", _) => format!("{}.5", n as i64 - 4),
            ("pattern", _) => ["*", "k1*", "?", "v[0-5]"][n % 4].into(),
            (
                _,
                "id" | "start" | "end" | "last-id" | "lastid" | "lower-bound" | "upper-bound" | "threshold",
            ) => match n {
                0 => "-".into(),
                1 => "+".into(),
                _ => format!("{}-{}", self.random.below(500), n),
            },
            (_, "min" | "max") => ["-inf", "+inf", "(3", "[a", "-", "+", "5"][n % 7].into(),
            (_, "score" | "increment" | "longitude" | "latitude" | "radius" | "width" | "height") => {
                n.to_string()
            }
            (_, "encoding") => ["u8", "i16", "u4"][n % 3].into(),
            (_, "offset") => n.to_string(),
            (_, "script") => "return {KEYS[1], ARGV[1], redis.call('DBSIZE') >= 0}".into(),
            (_, "field" | "member" | "member1" | "member2" | "element" | "pivot") => format!("m{}", n % 8),
            (_, "group" | "consumer") => format!("g{}", n % 3),
            _ => match n {
                0 => String::new(),
                1 => "a longer value, \r\n with all that can be in one: \0\u{7f}é".into(),
                _ => format!("v{n}"),
            },
        }
    }
}

/// What hardly any argument may be.
const ODD: [&str; 8] =
    ["", "-1", "nonsense", "9223372036854775807", "9223372036854775808", "1e3", "NX", "0x10"];

/// Makes a mistake.
fn spoil(random: &mut Random, words: &mut Vec<String>, fixed: usize, odd: &[&str]) {
    let at = fixed + random.below((words.len() - fixed).max(1));
    let odd = random.one_of(odd);
    match (random.below(4), at < words.len()) {
        (0, true) => drop(words.remove(at)),
        (1, true) => words[at] = odd.to_owned(),
        (2, true) => words.insert(at, words[at].clone()),
        _ => words.push(odd.to_owned()),
    }
}
