//! One connection of an errand: commands out, answers in, each within its time.
use super::{Do, LineId};
use crate::Now;
use crate::observe::ask::{array, readable};
use crate::observe::reply::{Decoder, Value};
use crate::policy::Credential;
use crate::topology::observation::Gone;
use crate::topology::settings::HostPort;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// What came of a command.
pub(super) type Answer = Result<Value, String>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Idle,
    Connecting,
    Up,
}

/// A connection; `K` tells its questions apart.
#[derive(Debug)]
pub(super) struct Line<K> {
    id: LineId,
    pub(super) at: HostPort,
    credential: Option<Credential>,
    state: State,
    decoder: Decoder,
    /// What is not answered yet, and until when it must be; `None`: our AUTH.
    waiting: VecDeque<(Option<K>, Now)>,
    /// What goes out as soon as there is a connection.
    unsent: Vec<u8>,
}

impl<K: Copy> Line<K> {
    pub(super) fn new(id: LineId, at: HostPort, credential: Option<Credential>) -> Line<K> {
        let (waiting, unsent) = (VecDeque::new(), Vec::new());
        Line { id, at, credential, state: State::Idle, decoder: Decoder::default(), waiting, unsent }
    }

    /// Connects, so that nothing has to wait for it later.
    pub(super) fn open(&mut self, now: Now, out: &mut VecDeque<Do>) {
        if self.state != State::Idle {
            return;
        }
        self.state = State::Connecting;
        self.decoder = Decoder::default();
        out.push_back(Do::Connect(self.id, self.at.clone()));
        if let Some(c) = &self.credential {
            let words: Vec<&[u8]> =
                [&b"AUTH"[..]].into_iter().chain(c.user.as_deref()).chain([&*c.secret]).collect();
            array(&words, &mut self.unsent);
            self.waiting.push_back((None, now + super::ANSWER_MAX));
        }
    }

    /// Sends a command, as soon as there is a connection.
    pub(super) fn ask(
        &mut self,
        now: Now,
        key: K,
        words: &[&str],
        patience: Duration,
        out: &mut VecDeque<Do>,
    ) {
        self.open(now, out);
        let words: Vec<&[u8]> = words.iter().map(|w| w.as_bytes()).collect();
        array(&words, &mut self.unsent);
        self.waiting.push_back((Some(key), now + patience));
        self.flush(out);
    }

    fn flush(&mut self, out: &mut VecDeque<Do>) {
        if self.state == State::Up && !self.unsent.is_empty() {
            out.push_back(Do::Send(self.id, core::mem::take(&mut self.unsent)));
        }
    }

    /// Whether something was asked and is not answered.
    pub(super) fn is_asked(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn connected(&mut self, out: &mut VecDeque<Do>) {
        if self.state == State::Connecting {
            self.state = State::Up;
            self.flush(out);
        }
    }

    /// The answers in these bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8], out: &mut VecDeque<Do>) -> Vec<(K, Answer)> {
        let mut answers = Vec::new();
        if self.state != State::Up {
            return answers;
        }
        self.decoder.feed(bytes);
        loop {
            let value = match self.decoder.next() {
                Ok(Some(value)) => value,
                Ok(None) => return answers,
                Err(e) => {
                    answers.extend(self.give_up(&format!("sends garbage ({e})"), out));
                    return answers;
                }
            };
            match (self.waiting.pop_front(), value) {
                (Some((Some(key), _)), value) => answers.push((key, Ok(value))),
                (Some((None, _)), Value::Error(e)) if !needless(&e) => {
                    answers.extend(self.give_up(&format!("denies access ({})", readable(&e)), out));
                    return answers;
                }
                (Some((None, _)), _) => {}
                (None, _) => {
                    answers.extend(self.give_up("answers what nobody asked", out));
                    return answers;
                }
            }
        }
    }

    /// The connection is gone, or could not be made: so are all answers.
    pub(super) fn gone(&mut self, why: &Gone) -> Vec<(K, Answer)> {
        self.lose(&format!("{why}"))
    }

    /// What was not answered in time.
    pub(super) fn timeout(&mut self, now: Now, out: &mut VecDeque<Do>) -> Vec<(K, Answer)> {
        if self.deadline().is_some_and(|at| now >= at) {
            return self.give_up("does not answer", out);
        }
        Vec::new()
    }

    pub(super) fn deadline(&self) -> Option<Now> {
        self.waiting.iter().map(|(_, at)| *at).min()
    }

    pub(super) fn close(&mut self, out: &mut VecDeque<Do>) {
        if self.state != State::Idle {
            out.push_back(Do::Close(self.id));
        }
        self.lose("");
    }

    fn give_up(&mut self, why: &str, out: &mut VecDeque<Do>) -> Vec<(K, Answer)> {
        out.push_back(Do::Close(self.id));
        self.lose(why)
    }

    fn lose(&mut self, why: &str) -> Vec<(K, Answer)> {
        self.state = State::Idle;
        self.unsent.clear();
        let lost = core::mem::take(&mut self.waiting);
        let why = format!("{} {why}", self.at);
        lost.into_iter().filter_map(|(key, _)| Some((key?, Err(why.clone())))).collect()
    }
}

/// A password that is not needed does no harm (acl.c, authCommand).
fn needless(e: &[u8]) -> bool {
    let text = String::from_utf8_lossy(e);
    text.contains("without any password configured") || text.contains("no password is set")
}

/// The words of an error reply, or of the connection's end; `None` if it went well.
pub(super) fn failure(answer: &Answer) -> Option<String> {
    match answer {
        Ok(Value::Error(e)) => Some(readable(e)),
        Ok(_) => None,
        Err(why) => Some(why.clone()),
    }
}

/// Whether a command may be run: it was tried with an argument that cannot be meant, and was refused for that and not
/// for want of permission, or because it does not exist. (The permission is looked at first: server.c, processCommand.)
pub(super) fn permitted(answer: &Answer) -> Result<(), String> {
    let Some(text) = failure(answer) else { return Ok(()) };
    if answer.is_err() || lacks_permission(&text) { Err(text) } else { Ok(()) }
}

/// Whether these words of a server say that a command may not be run, or does not exist, and not that its arguments are wrong.
pub fn lacks_permission(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let unknown = ["unknown command", "unknown subcommand", "unknown option", "unknown pause mode"];
    let denied = text.starts_with("NOPERM") || text.starts_with("NOAUTH");
    denied || unknown.iter().any(|u| lower.contains(u))
}
