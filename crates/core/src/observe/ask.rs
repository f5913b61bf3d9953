//! The questions that observers ask, as RESP arrays.
use crate::policy::Credential;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// One question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Question {
    /// With what; forgotten once it was sent.
    Auth(Box<[Box<[u8]>]>),
    MyId,
    Master,
    Address,
    MasterAgain,
    Flags,
    Sentinels,
    Replicas,
    Tilt,
    Subscribe,
    PingEvents,
    Server,
    Role,
    /// The role again: `HELLO` is answered also while a script runs.
    Hello,
    Replication,
    Persistence,
    Ping,
    /// A message that is replicated and changes no data.
    Mark,
    /// Until a replica has acknowledged what was written before on this connection, or so long.
    WaitFor(Duration),
}

impl Question {
    pub(super) fn auth(c: &Credential) -> Question {
        Question::Auth(c.user.iter().chain([&c.secret]).cloned().collect())
    }

    /// The same question without its secret.
    pub(super) fn forget(self) -> Question {
        match self {
            Question::Auth(_) => Question::Auth(Box::default()),
            other => other,
        }
    }

    /// Whether its answer is the last of a round.
    pub(super) fn ends_round(&self) -> bool {
        matches!(
            self,
            Question::MasterAgain
                | Question::PingEvents
                | Question::Persistence
                | Question::Ping
                | Question::WaitFor(_)
                | Question::Hello
        )
    }

    /// Appends the command; `name` is the master's, for Sentinels.
    pub(super) fn write(&self, name: &str, out: &mut Vec<u8>) {
        let name = name.as_bytes();
        let words: &[&[u8]] = match self {
            Question::Auth(args) => {
                let words: Vec<&[u8]> = [&b"AUTH"[..]].into_iter().chain(args.iter().map(|a| &**a)).collect();
                return array(&words, out);
            }
            Question::MyId => &[b"SENTINEL", b"MYID"],
            Question::Master | Question::MasterAgain | Question::Flags => &[b"SENTINEL", b"MASTER", name],
            Question::Address => &[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name],
            Question::Sentinels => &[b"SENTINEL", b"SENTINELS", name],
            // SLAVES is the older name, which every version knows.
            Question::Replicas => &[b"SENTINEL", b"SLAVES", name],
            Question::Tilt => &[b"INFO", b"sentinel"],
            Question::Subscribe => &[b"PSUBSCRIBE", b"*"],
            Question::PingEvents | Question::Ping => &[b"PING"],
            Question::Server => &[b"INFO", b"server"],
            Question::Role => &[b"ROLE"],
            // Before 6.2 it needs the version, and with it changes nothing.
            Question::Hello => &[b"HELLO", b"2"],
            Question::Replication => &[b"INFO", b"replication"],
            Question::Persistence => &[b"INFO", b"persistence"],
            Question::Mark => &[b"PUBLISH", super::guard::CHANNEL, b""],
            Question::WaitFor(time) => {
                let ms = format!("{}", time.as_millis());
                return array(&[b"WAIT", b"1", ms.as_bytes()], out);
            }
        };
        array(words, out);
    }
}

pub(crate) fn array(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for w in words {
        out.extend_from_slice(format!("${}\r\n", w.len()).as_bytes());
        out.extend_from_slice(w);
        out.extend_from_slice(b"\r\n");
    }
}

/// Text from outside, made fit for a log line: printable, and short.
pub(crate) fn readable(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(200)];
    format!("{}", cut.escape_ascii())
}
