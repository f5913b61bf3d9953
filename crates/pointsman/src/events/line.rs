//! An event as it is shown and kept: the types are the schema (docs/reference/events.md explains it). The process writes
//! them, the commands and the next process read them; a field that one side lacks gets its default, so that both may
//! differ in age.
use crate::clock;
use pointsman_core::Now;
use pointsman_core::topology::snapshot::Endpoint;
use pointsman_core::topology::status::Event;
use pointsman_core::topology::story;
use pointsman_core::worker::Counters;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;

/// One event.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// Its number.
    pub n: u64,
    /// When, in UTC (RFC 3339).
    pub at: String,
    /// Of which service.
    pub service: String,
    /// [`pointsman_core::topology::status::EventKind::label`].
    pub kind: String,
    /// The term after it.
    pub term: u64,
    /// The master after it.
    pub master: Option<String>,
    /// What changed and why, in one line.
    pub text: String,
    /// Of a change of a gate or a grant: the story as far as it has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub story: Option<Story>,
    /// Of kind `lost`: what the old master has lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
}

/// A hold or a switch. Keys that end in `ms` are milliseconds.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Story {
    /// When the first sign was, in UTC.
    pub began: String,
    /// The grant before.
    pub from: Granted,
    /// The grant now.
    pub to: Granted,
    /// For how long, all in all, writes were held until the last mark.
    pub held_ms: f64,
    /// What happened, in order.
    pub marks: Vec<Mark>,
    /// Marks that were left out, for want of room.
    pub left_out: u32,
    /// Bytes that the new master did not have by the last reports before the switch, at least.
    pub behind: Option<u64>,
    /// What became of commands, of a story that is over.
    pub counts: Option<Counts>,
}

/// A grant.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Granted {
    /// Its number; 0 before the first.
    pub term: u64,
    /// Its node.
    pub master: Option<String>,
    /// The config epoch at which the Sentinels named it.
    pub epoch: Option<u64>,
}

/// One thing that happened.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Mark {
    /// [`story::MarkKind::label`].
    pub mark: String,
    /// How long after the first sign.
    pub ms: f64,
    /// Who gave it to know.
    pub by: String,
    /// What was seen, or why.
    pub text: String,
}

/// What became of commands, from before the first sign until after the end.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Commands that began to wait.
    pub held: u64,
    /// Commands that were sent again.
    pub resent: u64,
    /// Commands that were answered with `-UNCERTAIN`.
    pub uncertain: u64,
    /// Commands that were answered with `-MASTERDOWN`.
    pub masterdown: u64,
}

/// What an old master has lost.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Lost {
    /// The old master.
    pub node: String,
    /// The number of its grant.
    pub term: u64,
    /// Bytes of its replication stream that its successor does not have.
    pub bytes: u64,
    /// Those of them that were written after its successor was granted, as far as that was seen.
    pub after: u64,
    /// Up to which offset its successor had followed it.
    pub kept_to: u64,
    /// Up to which offset it had written.
    pub wrote_to: u64,
    /// Whether it was seen with its whole history; otherwise `bytes` are the least.
    pub exact: bool,
}

impl Line {
    /// The event, with the time of day when it happened; it has no number yet.
    pub fn new(event: &Event, counts: Option<Counts>) -> Line {
        let told = counts.as_ref().map_or(String::new(), |c| format!("; {c}"));
        Line {
            n: 0,
            at: time_of_day(event.at),
            service: event.name.to_string(),
            kind: event.kind.label().to_owned(),
            term: event.term.0,
            master: event.master.as_ref().map(Endpoint::to_string),
            text: format!("{}{told}", event.text),
            story: event.story.as_ref().map(|s| Story { counts, ..Story::of(s) }),
            lost: event.lost.as_ref().map(Lost::of),
        }
    }
}

impl Story {
    fn of(s: &story::Story) -> Story {
        let mark = |m: &story::Mark| Mark {
            mark: m.kind.label().to_owned(),
            ms: ms(m.at.since(s.began)),
            by: m.by.to_string(),
            text: m.text.to_string(),
        };
        Story {
            began: time_of_day(s.began),
            from: Granted::of(&s.from),
            to: Granted::of(&s.to),
            held_ms: ms(s.held()),
            marks: s.marks.iter().map(mark).collect(),
            left_out: s.left_out,
            behind: s.behind,
            counts: None,
        }
    }
}

impl Granted {
    fn of(r: &story::Granted) -> Granted {
        Granted { term: r.term.0, master: r.master.as_ref().map(Endpoint::to_string), epoch: r.epoch }
    }
}

impl Lost {
    fn of(l: &story::Lost) -> Lost {
        Lost {
            node: l.node.clone(),
            term: l.term.0,
            bytes: l.bytes(),
            after: l.after,
            kept_to: l.kept_to,
            wrote_to: l.wrote_to,
            exact: l.exact,
        }
    }
}

impl Counts {
    /// What was counted between two looks.
    pub fn between(before: &Counters, after: &Counters) -> Counts {
        Counts {
            held: after.held.saturating_sub(before.held),
            resent: after.resent.saturating_sub(before.resent),
            uncertain: after.uncertain.saturating_sub(before.uncertain),
            masterdown: after.masterdown.saturating_sub(before.masterdown),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { held, resent, uncertain, masterdown } = self;
        write!(f, "commands: {held} held, {resent} sent again, {uncertain} uncertain, {masterdown} refused")
    }
}

fn ms(d: Duration) -> f64 {
    d.as_micros() as f64 / 1000.0
}

/// The time of day at a moment, in UTC, to the millisecond (RFC 3339). The clock that moments are of counts on while the
/// machine sleeps, so that the difference of the two changes only when the time of day is set.
fn time_of_day(at: Now) -> String {
    let (now, wall) = (clock::now(), SystemTime::now());
    let then = wall.checked_sub(now.since(at)).unwrap_or(SystemTime::UNIX_EPOCH);
    let (date, (h, m, s, ms)) = {
        let then = OffsetDateTime::from(then);
        (then.date(), then.to_hms_milli())
    };
    format!("{date}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}
