//! The same conversation, held with a server and with the proxy before an equal one: every reply must be the same, byte
//! for byte.
//!
//! A script has one step a line; `#` begins a comment. Connections are made when they are first named.
//! ```text
//! A SET k v            connection A says it, and both replies are compared
//! A*2 SUBSCRIBE a b    … and two replies are compared
//! A*0 BLPOP k 0        … and no reply is expected yet
//! A*1                  one more reply
//! A~ CLIENT ID         … compared without digits          (the reason stands above the line)
//! A^ SMEMBERS s        … compared as a set of elements    (servers hash with seeds of their own)
//! A? RANDOMKEY         … only its type is compared
//! A*2 "PING\r\nPING\r\n"   raw bytes
//! .drip A*1 "PING\r\n"     a byte at a time
//! .id A                A asks for its id; from now on `{A}` stands for it, with each server for the one that it told
//! .blocked 1           wait until so many clients are blocked
//! .shut A              A will send no more
//! .end A               the server closes A; what it says before is compared
//! .gone A              A closes
//! ```
//! A word `@100` stands for 100 letters; one in quotes may have escapes.
use super::raw::{Raw, frame_len, request, shown};
use super::{Pair, eventually};
use std::collections::BTreeMap;
use std::io;

struct Twin {
    bare: Raw,
    front: Raw,
}

#[derive(Clone, Copy, PartialEq)]
enum Compare {
    Exactly,
    WithoutDigits,
    AsSet,
    Type,
}

/// Holds the conversation.
pub fn hold(pair: &Pair, script: &str) {
    let mut twins = Twins::new();
    let mut ids = Ids::new();
    for (i, line) in script.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = format!("line {}: {line:.200}", i + 1);
        let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
        match head {
            ".id" => {
                let twin = twin(pair, &mut twins, rest);
                ids.insert(format!("{{{rest}}}"), [id(&mut twin.bare), id(&mut twin.front)]);
            }
            ".blocked" => blocked(pair, rest.parse().expect("a number"), &at),
            ".gone" => drop(twins.remove(rest)),
            ".shut" => {
                let twin = twins.get(rest).expect("a connection");
                twin.bare.shut();
                twin.front.shut();
            }
            ".end" => {
                let mut twin = twins.remove(rest).expect("a connection");
                let ends =
                    |raw: &mut Raw| raw.rest().unwrap_or_else(|e| panic!("{at}: it is not closed: {e}"));
                let (bare, front) = (ends(&mut twin.bare), ends(&mut twin.front));
                assert_eq!(
                    shown(&front),
                    shown(&bare),
                    "{at}: the last words differ (proxy left, server right)"
                );
            }
            ".drip" => {
                let (head, rest) = rest.split_once(' ').expect("something to say");
                step(twin(pair, &mut twins, name(head)), &ids, head, rest, true, &at);
            }
            _ => step(twin(pair, &mut twins, name(head)), &ids, head, rest, false, &at),
        }
    }
}

type Twins = BTreeMap<String, Twin>;

/// What a name stands for at the server, and at the proxy.
type Ids = BTreeMap<String, [String; 2]>;

fn twin<'a>(pair: &Pair, twins: &'a mut Twins, name: &str) -> &'a mut Twin {
    twins.entry(name.to_owned()).or_insert_with(|| Twin {
        bare: Raw::connect(pair.bare.addr()),
        front: Raw::connect(pair.proxy.addr()),
    })
}

fn id(raw: &mut Raw) -> String {
    let reply = String::from_utf8(raw.call(&["CLIENT", "ID"])).expect("text");
    reply.trim_start_matches(':').trim_end().to_owned()
}

/// Whose step it is.
fn name(head: &str) -> &str {
    head.trim_end_matches(|c: char| !c.is_alphabetic())
}

fn step(twin: &mut Twin, ids: &Ids, head: &str, rest: &str, drip: bool, at: &str) {
    let how = &head[name(head).len()..];
    let compare = match how.chars().last() {
        Some('~') => Compare::WithoutDigits,
        Some('^') => Compare::AsSet,
        Some('?') => Compare::Type,
        _ => Compare::Exactly,
    };
    let count = how.trim_matches(['*', '~', '^', '?']).parse().unwrap_or(1);
    for (side, raw) in [&mut twin.bare, &mut twin.front].into_iter().enumerate() {
        let own = ids.iter().fold(rest.to_owned(), |text, (name, ids)| text.replace(name, &ids[side]));
        let bytes = said(&own);
        if drip {
            bytes.chunks(1).for_each(|byte| raw.send(byte));
        } else {
            raw.send(&bytes);
        }
    }
    for n in 1..=count {
        let (bare, front) = (twin.bare.next(), twin.front.next());
        let alike = match (&bare, &front) {
            (Ok(bare), Ok(front)) => seen(bare, compare) == seen(front, compare),
            _ => false,
        };
        let text = |side: &io::Result<Vec<u8>>| match side {
            Ok(bytes) => shown(bytes),
            Err(e) => e.to_string(),
        };
        assert!(alike, "{at}\nreply {n} of {count}\n server: {}\n proxy:  {}", text(&bare), text(&front));
    }
}

/// What of a reply is compared.
fn seen(reply: &[u8], compare: Compare) -> Vec<u8> {
    match compare {
        Compare::Exactly => reply.to_vec(),
        Compare::WithoutDigits => reply.iter().copied().filter(|b| !b.is_ascii_digit()).collect(),
        Compare::Type => reply[..1].to_vec(),
        Compare::AsSet => {
            let header = reply.iter().position(|b| *b == b'\n').expect("a header") + 1;
            let (mut rest, mut elements) = (&reply[header..], Vec::new());
            while !rest.is_empty() {
                let (element, after) = rest.split_at(frame_len(rest).expect("a whole element"));
                elements.push(element);
                rest = after;
            }
            elements.sort_unstable();
            [&reply[..header]].into_iter().chain(elements).flatten().copied().collect()
        }
    }
}

/// What a line says, in bytes.
fn said(text: &str) -> Vec<u8> {
    let text = text.trim();
    match text.strip_prefix('"') {
        _ if text.is_empty() => Vec::new(),
        Some(raw) => unescaped(raw.strip_suffix('"').expect("a closing quote")),
        None => request(&words(text)),
    }
}

fn words(text: &str) -> Vec<Vec<u8>> {
    let (mut words, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        let len = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                let end = end.expect("a closing quote");
                words.push(unescaped(&quoted[..end]));
                end + 2
            }
            None => {
                let end = rest.find(' ').unwrap_or(rest.len());
                let word = &rest[..end];
                words.push(match word.strip_prefix('@').and_then(|n| n.parse().ok()) {
                    Some(n) => vec![b'x'; n],
                    None => word.as_bytes().to_vec(),
                });
                end
            }
        };
        rest = rest[len..].trim_start();
    }
    words
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let mut next = || char::from(bytes.next().expect("an escape"));
        out.push(match next() {
            'r' => b'\r',
            'n' => b'\n',
            't' => b'\t',
            '0' => 0,
            'x' => u8::from_str_radix(&format!("{}{}", next(), next()), 16).expect("two digits"),
            other => u8::try_from(other).expect("ASCII"),
        });
    }
    out
}

fn blocked(pair: &Pair, n: u64, at: &str) {
    for server in [&pair.bare, &pair.fronted] {
        eventually(at, || server.count("clients", "blocked_clients") == n);
    }
}
