//! Whether a master that answers nothing runs a script: asked on a connection of its own, which outlives the silence.
//!
//! While a script (or a function) runs, a server answers nobody; after `busy-reply-threshold`, 5 s by default, it says
//! `-BUSY` to all but a few commands (server.c, `processCommand`). A silent node's other observer has given up its
//! connection by then, for it may be its host that is gone, and on a new one `INFO` is answered with `-BUSY` too: which
//! process that is could not be said. This one waits. It was told the run id before, and one connection is one process.
//! The role is told by `HELLO`, which is always answered (`CMD_ALLOW_BUSY`).
use super::ask::Question;
use super::node::info;
use super::reply::Value;
use crate::topology::observation::Seen;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

/// How often it is asked at most: often enough that one of its answers is fresh at any time.
const EVERY: Duration = Duration::from_millis(500);
/// How much longer than others its answers may take: what lasts longer than the longest automatic hold helps nobody.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The connection to one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Witness {
    /// Which process it is connected to, if that was told.
    run_id: Option<Box<str>>,
    /// The last answer to `ROLE` was `-BUSY`.
    busy: bool,
}

impl Witness {
    /// A new connection begins anew.
    pub(super) fn greet(&mut self) {
        *self = Witness::default();
    }

    /// How often it is asked, of a node that others ask each `interval`.
    pub(super) fn every(&self, interval: Duration) -> Duration {
        if self.busy { interval.min(EVERY) } else { EVERY }
    }

    /// A round of questions.
    pub(super) fn round(&self) -> Vec<Question> {
        let server = self.run_id.is_none().then_some(Question::Server);
        server.into_iter().chain([Question::Role, Question::Hello]).collect()
    }

    /// What an answer says.
    pub(super) fn answer(&mut self, question: &Question, value: &Value) -> Option<Seen> {
        match question {
            Question::Server => self.run_id = info(value, "run_id").map(Into::into),
            Question::Role => self.busy = is_busy(value),
            Question::Hello if self.busy && value.field("role") == Some("master") => {
                return self.run_id.clone().map(Seen::Busy);
            }
            _ => {}
        }
        None
    }
}

/// Whether a node does not answer a question for the script that it runs.
pub(super) fn is_busy(value: &Value) -> bool {
    matches!(value, Value::Error(e) if e.starts_with(b"BUSY "))
}
