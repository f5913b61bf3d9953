//! The story of one hold or switch: what was seen of it, when, and by whom; as plain data.
//!
//! A story begins with the first sign and ends when the gates are open again and nothing is left to prove. The machine
//! writes it as it goes (`teller`); every event of a gate or a grant carries it as far as it has come, and the last one,
//! [`EventKind::Switch`](super::status::EventKind::Switch) or [`EventKind::Held`](super::status::EventKind::Held), as a
//! whole.
use super::snapshot::{Endpoint, Term};
use crate::Now;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// Most marks of one story, besides the ends of its holds; what comes later is counted and not kept.
pub(super) const MARKS_MAX: usize = 64;

/// A hold or a switch, from its first sign on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Story {
    /// When its first mark was.
    pub began: Now,
    /// Who was granted before, and what is granted now.
    pub from: Granted,
    /// Who is granted now; as [`Self::from`] as long as nothing else is granted.
    pub to: Granted,
    /// What happened, in order.
    pub marks: Vec<Mark>,
    /// Marks that were left out, for want of room.
    pub left_out: u32,
    /// By the last reports before the switch: how many bytes of the old master's replication stream the new one does
    /// not have at least. `None`: not known.
    pub behind: Option<u64>,
}

/// A grant, for a story.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Granted {
    /// The number of the grant; 0 before the first.
    pub term: Term,
    /// Its node.
    pub master: Option<Endpoint>,
    /// The config epoch at which the Sentinels named it, or at least (of a grant by promotion).
    pub epoch: Option<u64>,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// What.
    pub kind: MarkKind,
    /// When it was seen here.
    pub at: Now,
    /// Who gave it to know: `Sentinel HOST:PORT`, `node HOST:PORT`, `worker`, or `pointsman` where it was concluded from
    /// time or decided here.
    pub by: Arc<str>,
    /// What was seen, or why: one line.
    pub text: Arc<str>,
}

/// The kinds of [`Mark`], in the order in which a failover by Sentinels has them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MarkKind {
    /// The first sign that the grant may end.
    Sign,
    /// The writes gate closed.
    Hold,
    /// The hold ran out.
    Down,
    /// A Sentinel takes the master for objectively down.
    Odown,
    /// A Sentinel may fail over: it was elected, or ordered to.
    Elected,
    /// A Sentinel selected the node that is to be promoted.
    Selected,
    /// A node said for the first time that it is master, with a history that continues the old master's.
    Promoted,
    /// The grant was withdrawn.
    Fenced,
    /// A node was proven to be master, and a grant began.
    Proven,
    /// A majority of the Sentinels names it.
    Majority,
    /// The writes gate opened.
    Released,
}

impl MarkKind {
    /// All of them.
    pub const ALL: [MarkKind; 11] = [
        MarkKind::Sign,
        MarkKind::Hold,
        MarkKind::Down,
        MarkKind::Odown,
        MarkKind::Elected,
        MarkKind::Selected,
        MarkKind::Promoted,
        MarkKind::Fenced,
        MarkKind::Proven,
        MarkKind::Majority,
        MarkKind::Released,
    ];

    /// A stable word for the log, the JSON and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            MarkKind::Sign => "sign",
            MarkKind::Hold => "hold",
            MarkKind::Down => "down",
            MarkKind::Odown => "odown",
            MarkKind::Elected => "elected",
            MarkKind::Selected => "selected",
            MarkKind::Promoted => "promoted",
            MarkKind::Fenced => "fenced",
            MarkKind::Proven => "proven",
            MarkKind::Majority => "majority",
            MarkKind::Released => "released",
        }
    }

    /// Whether only the first of its kind tells something.
    fn once(self) -> bool {
        use MarkKind::{Elected, Odown, Promoted, Selected, Sign};
        matches!(self, Sign | Odown | Elected | Selected | Promoted)
    }
}

/// What became of the old master's last writes, once it was seen again after a switch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lost {
    /// The old master, as it is named.
    pub node: String,
    /// The number of its grant.
    pub term: Term,
    /// Up to which offset its successor had followed it when it was promoted (`second_repl_offset` − 1).
    pub kept_to: u64,
    /// Up to which offset it is known to have written.
    pub wrote_to: u64,
    /// Of what is beyond [`Self::kept_to`], how many bytes came after its successor was granted, as far as that was seen:
    /// not through Pointsman.
    pub after: u64,
    /// Whether the same process was seen with its whole history; otherwise it may have written more.
    pub exact: bool,
}

impl Lost {
    /// How many bytes of its replication stream its successor does not have.
    pub fn bytes(&self) -> u64 {
        self.wrote_to.saturating_sub(self.kept_to)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = if self.exact { "" } else { "at least " };
        write!(f, "{}, master until the last switch, was seen again: ", self.node)?;
        match self.bytes() {
            0 if self.exact => f.write_str("nothing that it wrote is lost")?,
            0 => f.write_str("how much of what it wrote is lost is not known")?,
            n => write!(f, "{least}{n} bytes of its replication stream are lost")?,
        }
        if self.after > 0 {
            write!(f, ", {} of them written after the switch, not through Pointsman", self.after)?;
        }
        write!(f, " (it wrote to offset {}, its successor had followed to {})", self.wrote_to, self.kept_to)
    }
}

impl Story {
    /// Whether something of that kind has happened.
    pub fn has(&self, kind: MarkKind) -> bool {
        self.marks.iter().any(|m| m.kind == kind)
    }

    /// How long after the first sign the first mark of this kind was.
    pub fn after(&self, kind: MarkKind) -> Option<Duration> {
        self.marks.iter().find(|m| m.kind == kind).map(|m| m.at.since(self.began))
    }

    /// Since when the writes gate is closed, if it is.
    pub fn held_since(&self) -> Option<Now> {
        let last = self.marks.iter().rev().find(|m| matches!(m.kind, MarkKind::Hold | MarkKind::Released))?;
        (last.kind == MarkKind::Hold).then_some(last.at)
    }

    /// For how long, all in all, the writes gate was closed between the marks.
    pub fn held(&self) -> Duration {
        let (mut sum, mut since) = (Duration::ZERO, None);
        for m in &self.marks {
            match m.kind {
                MarkKind::Hold => since = since.or(Some(m.at)),
                MarkKind::Released => sum += since.take().map_or(Duration::ZERO, |s| m.at.since(s)),
                _ => {}
            }
        }
        sum
    }

    /// Whether another grant than the first has begun.
    pub fn switched(&self) -> bool {
        self.to.term != self.from.term
    }

    /// Whether there is room for nothing more but the end of a hold.
    pub(super) fn is_full(&self) -> bool {
        self.marks.iter().filter(|m| m.kind != MarkKind::Released).count() >= MARKS_MAX
    }

    /// Adds a mark, if it tells something new.
    pub(super) fn mark(&mut self, kind: MarkKind, at: Now, by: &str, text: &str) {
        let open = self.held_since().is_some();
        let stale = match kind {
            MarkKind::Hold => open,
            MarkKind::Released => !open,
            kind => kind.once() && self.has(kind),
        };
        if stale {
            return;
        }
        // Each hold that has found room finds room for its end.
        if self.is_full() && kind != MarkKind::Released {
            self.left_out += 1;
            return;
        }
        // What was seen a moment earlier than something that was noted before it goes before it.
        let after = self.marks.iter().rposition(|m| m.at <= at).map_or(0, |i| i + 1);
        self.marks.insert(after, Mark { kind, at, by: by.into(), text: text.into() });
        self.began = self.marks[0].at;
    }

    /// One line for people: from whom to whom, how long it was held, and each mark.
    pub fn line(&self) -> String {
        let name = |r: &Granted| r.master.as_ref().map_or("nobody".into(), |m| format!("{m}"));
        let (from, to) = (name(&self.from), name(&self.to));
        let what = match (self.switched(), from == to) {
            (true, false) => format!("{from} -> {to}"),
            (true, true) => format!("{to} is master again, in a new term"),
            (false, _) => format!("{to} is still master"),
        };
        let marks: Vec<String> = self.marks.iter().map(|m| self.in_words(m)).collect();
        let mut text = format!("{what}; held for {} ms: {}", self.held().as_millis(), marks.join(", "));
        if self.left_out > 0 {
            text += &format!(", and {} more", self.left_out);
        }
        if let Some(bytes) = self.behind.filter(|b| *b > 0) {
            text += &format!("; at least {bytes} bytes of the old master's replication stream are lost");
        }
        text
    }

    fn in_words(&self, m: &Mark) -> String {
        let (kind, ms) = (m.kind.label(), m.at.since(self.began).as_millis());
        match m.kind {
            MarkKind::Sign => format!("{kind} by {} ({})", m.by, m.text),
            MarkKind::Elected => format!("{kind} +{ms} ({})", m.by),
            MarkKind::Selected => format!("{kind} +{ms} ({})", m.text),
            _ => format!("{kind} +{ms}"),
        }
    }
}
