//! The scripts that clients have shown, so that a new master can be shown them again: it has none of those that the old one
//! had been told (`EVALSHA` is replicated by its effects, not as a script).
use crate::Now;
use crate::command::Entry;
use crate::resp::frame::Request;
use crate::resp::reply;
use crate::topology::snapshot::Term;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;
use sha1_smol::Sha1;

/// A script's name: the SHA-1 of its text.
type Sha = [u8; 20];

/// A script takes about so many bytes besides its text.
const SCRIPT_COST: usize = 256;
/// No script may take more than this share of the room.
const SHARE: usize = 4;
/// Commands that were on their way while a script was loaded again may still be told that it is not there.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// The scripts of one service, the least recently used forgotten first.
#[derive(Debug, Default)]
pub struct Scripts {
    known: BTreeMap<Sha, Known>,
    /// By when they were used last.
    by_use: BTreeMap<u64, Sha>,
    /// By their length, beginning and end, so that a text that comes again need not be digested again.
    by_look: BTreeMap<(usize, u64), Sha>,
    uses: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Known {
    text: Box<[u8]>,
    used: u64,
    /// The newest term in which it was shown.
    term: Term,
    /// When it was shown in that term first; `None`: it was not known before.
    again_at: Option<Now>,
}

impl Scripts {
    /// A client shows a script to the master of `term`. No more than `bytes_max` are kept.
    pub fn learn(&mut self, now: Now, text: &[u8], term: Term, bytes_max: usize) {
        if text.len() + SCRIPT_COST > bytes_max / SHARE {
            return;
        }
        let look = look(text);
        let seen =
            self.by_look.get(&look).filter(|sha| self.known.get(*sha).is_some_and(|k| *k.text == *text));
        let sha = seen.copied().unwrap_or_else(|| Sha1::from(text).digest().bytes());
        self.by_look.insert(look, sha);
        self.uses += 1;
        let used = self.uses;
        match self.known.get_mut(&sha) {
            Some(k) => {
                self.by_use.remove(&core::mem::replace(&mut k.used, used));
                if term > k.term {
                    (k.term, k.again_at) = (term, Some(now));
                }
            }
            None => {
                self.bytes += text.len() + SCRIPT_COST;
                self.known.insert(sha, Known { text: text.into(), used, term, again_at: None });
            }
        }
        self.by_use.insert(used, sha);
        while self.bytes > bytes_max {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, sha: &Sha) {
        let Some(k) = self.known.remove(sha) else { return };
        self.bytes -= k.text.len() + SCRIPT_COST;
        let look = look(&k.text);
        if self.by_look.get(&look) == Some(sha) {
            self.by_look.remove(&look);
        }
    }

    /// A client had the server forget its scripts.
    pub fn clear(&mut self) {
        *self = Scripts { uses: self.uses, ..Scripts::default() };
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The master of `term` does not know the script of an `EVALSHA`: the `EVAL` that shows it and does the same. `None`:
    /// we do not know it either, or it was shown in this term already, so that it was forgotten on somebody's order.
    pub fn eval(&self, now: Now, entry: &Entry, req: Request<'_>, term: Term) -> Option<Box<[u8]>> {
        let name: &[u8] = match entry.name {
            "EVALSHA" => b"EVAL",
            "EVALSHA_RO" => b"EVAL_RO",
            _ => return None,
        };
        let known = self.known.get(&sha(req.args().nth(1)?)?)?;
        let on_its_way = known.again_at.is_some_and(|at| now < at + ON_ITS_WAY);
        // What could say the same after it has written may have done so.
        let says_so = memchr::memmem::find(&known.text, b"NOSCRIPT").is_some();
        if known.term >= term && !on_its_way || says_so {
            return None;
        }
        let words: Vec<&[u8]> = [name, &known.text].into_iter().chain(req.args().skip(2)).collect();
        let mut bytes = Vec::new();
        reply::request(&mut bytes, &words);
        Some(bytes.into())
    }
}

/// Enough to tell nearly all scripts apart; the text decides.
fn look(text: &[u8]) -> (usize, u64) {
    const END: usize = 32;
    let (head, tail) = (&text[..text.len().min(END)], &text[text.len().saturating_sub(END)..]);
    let hash = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    (text.len(), head.iter().chain(tail).fold(0xcbf2_9ce4_8422_2325, hash))
}

/// The digest that 40 hexadecimal digits stand for.
fn sha(hex: &[u8]) -> Option<Sha> {
    let mut sha = Sha::default();
    if hex.len() != 2 * sha.len() {
        return None;
    }
    for (byte, pair) in sha.iter_mut().zip(hex.chunks(2)) {
        let digit = |b: u8| char::from(b).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(sha)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Lookup, lookup};
    use alloc::format;
    use alloc::string::{String, ToString};

    const MAX: usize = 1 << 20;
    const RETURN_1: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";

    fn eval(s: &Scripts, ms: u64, asked: &str, term: u64) -> Option<String> {
        let words: Vec<&str> = asked.split(' ').collect();
        let mut bytes = Vec::new();
        reply::request(&mut bytes, &words);
        let Lookup::Known(entry) = lookup(words[0].as_bytes(), None) else { panic!("{asked}") };
        let eval = s.eval(Now::from_millis(ms), entry, Request::new(&bytes), Term(term))?;
        let words: Vec<_> =
            Request::new(&eval).args().map(|a| String::from_utf8_lossy(a).to_string()).collect();
        Some(words.join("|"))
    }

    #[test]
    fn a_script_that_an_older_master_was_shown_is_shown_again() {
        let mut s = Scripts::default();
        s.learn(Now::ZERO, b"return 1", Term(1), MAX);
        let ask = format!("EVALSHA {} 1 k v", RETURN_1.to_uppercase());
        assert_eq!(eval(&s, 0, &ask, 2).as_deref(), Some("EVAL|return 1|1|k|v"));
        let read = format!("evalsha_ro {RETURN_1} 0");
        assert_eq!(eval(&s, 0, &read, 2).as_deref(), Some("EVAL_RO|return 1|0"));
        assert_eq!(eval(&s, 0, &read, 1), None, "somebody has flushed it");
        assert_eq!(eval(&s, 0, "EVALSHA 8fb32eda56f40a2c0cbb2c2ea2c0e1b0b8a8b1b2 0", 2), None);
        assert_eq!(eval(&s, 0, "EVALSHA x 0", 2), None);
        assert_eq!(eval(&s, 0, "EVAL x 0", 2), None);
        s.clear();
        assert_eq!(eval(&s, 0, &ask, 2), None);
    }

    #[test]
    fn commands_on_their_way_while_it_was_shown_again_profit_too() {
        let mut s = Scripts::default();
        s.learn(Now::ZERO, b"return 1", Term(1), MAX);
        s.learn(Now::from_millis(10), b"return 1", Term(2), MAX);
        let ask = format!("EVALSHA {RETURN_1} 0");
        assert!(eval(&s, 11, &ask, 2).is_some());
        assert!(eval(&s, 3_000, &ask, 2).is_none());
    }

    #[test]
    fn a_script_that_could_say_so_itself_is_not_run_twice() {
        let mut s = Scripts::default();
        let text = b"redis.call('INCR', 'n') return redis.error_reply('NOSCRIPT No matching script.')";
        s.learn(Now::ZERO, text, Term(1), MAX);
        let ask = format!("EVALSHA {} 0", Sha1::from(text).digest());
        assert!(eval(&s, 0, &ask, 2).is_none());
    }

    #[test]
    fn the_least_recently_used_is_forgotten_first_and_the_bound_is_kept() {
        let mut s = Scripts::default();
        let most = 4 * (SCRIPT_COST + 10);
        let text = |n: u32| format!("return {n:03}");
        for n in 0..50 {
            s.learn(Now::ZERO, b"return 1", Term(1), most);
            s.learn(Now::ZERO, text(n).as_bytes(), Term(1), most);
            assert!(s.bytes() <= most);
            assert_eq!((s.known.len(), s.by_use.len(), s.by_look.len()), {
                let n = s.known.len();
                (n, n, n)
            });
        }
        assert!(eval(&s, 0, &format!("EVALSHA {RETURN_1} 0"), 2).is_some());
        assert!(eval(&s, 0, &format!("EVALSHA {} 0", Sha1::from(text(3)).digest()), 2).is_none());
        s.learn(Now::ZERO, &[b'x'; 2000], Term(1), most);
        assert!(s.bytes() <= most && s.known.len() > 2, "what is too large pushes nothing out");
    }
}
