//! Whether a replica still acknowledges what the master writes: asked on a connection of its own to the granted master.
//!
//! Replicas acknowledge by themselves once a second, so `INFO` and `ROLE` cannot show in less that they stopped. `WAIT`
//! asks them at once (replication.c, replicationRequestAckFromSlaves), for what was written *on the same connection*; so
//! something must be written that changes no data: `PUBLISH` to a channel of our own, which is replicated always
//! (pubsub.c, publishCommand).
//!
//! Only `WAIT` after an answered `PUBLISH` says that nobody acknowledges. A master that answers nothing says nothing of
//! its replicas: it is stalled, or its clients are paused (`CLIENT PAUSE … WRITE` stalls `PUBLISH` too), and then it
//! acknowledges no writes either.
use super::ask::{Question, readable};
use super::reply::Value;
use crate::Now;
use crate::topology::observation::Seen;
use crate::topology::settings::Guarding;
use alloc::vec::Vec;
use core::time::Duration;

/// Where the probe's messages go.
pub(super) const CHANNEL: &[u8] = b"pointsman:guard";
/// How often the connection is kept alive while nothing is to be probed.
pub(super) const IDLE_EVERY: Duration = Duration::from_secs(1);
/// A master looks at the end of a `WAIT` as often as its clock ticks (`hz`, 10 a second by default).
const TICK: Duration = Duration::from_millis(100);

/// The probing of one master.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    guarding: Guarding,
    /// When `PUBLISH` was answered, while its `WAIT` is not and nothing was concluded.
    published: Option<Now>,
}

impl Probe {
    pub(super) fn new(guarding: Guarding) -> Probe {
        Probe { guarding, published: None }
    }

    /// A new connection begins anew.
    pub(super) fn greet(&mut self) {
        self.published = None;
    }

    /// How often a round is asked: while writes flow, and while they do not.
    pub(super) fn every(&self, wanted: bool) -> Duration {
        if wanted { self.guarding.every } else { IDLE_EVERY }
    }

    /// How much longer than others its answers may take.
    pub(super) fn patience(&self) -> Duration {
        self.guarding.wait + TICK
    }

    /// A round: the probe, or what keeps the connection alive.
    pub(super) fn round(&self, wanted: bool) -> Vec<Question> {
        if !wanted {
            return Vec::from([Question::Ping]);
        }
        Vec::from([Question::Mark, Question::WaitFor(self.guarding.wait)])
    }

    /// When it is concluded that nobody acknowledges, whatever `WAIT` says later.
    pub(super) fn deadline(&self) -> Option<Now> {
        self.published.map(|at| at + self.guarding.wait)
    }

    /// What the deadline says when it has passed.
    pub(super) fn expired(&mut self, now: Now) -> Option<Seen> {
        self.deadline().filter(|at| now >= *at)?;
        self.published = None;
        Some(Seen::Acknowledged(false))
    }

    /// What an answer says.
    pub(super) fn answer(&mut self, now: Now, question: &Question, value: &Value) -> Option<Seen> {
        match (question, value) {
            (Question::Mark, Value::Int(_)) => {
                self.published = Some(now);
                None
            }
            (Question::WaitFor(_), Value::Int(n)) => {
                let first = self.published.take().is_some();
                // What was concluded at the deadline need not be said again; a late yes must.
                (first || *n > 0).then_some(Seen::Acknowledged(*n > 0))
            }
            (Question::Mark | Question::WaitFor(_), Value::Error(e)) => {
                self.published = None;
                forbidden(e).then(|| Seen::Problem(readable(e).into()))
            }
            _ => None,
        }
    }
}

/// Whether an error will not pass by itself: no permission, or no such command. `-BUSY`, `-LOADING` and that a replica
/// cannot wait say nothing of the replicas.
fn forbidden(error: &[u8]) -> bool {
    error.starts_with(b"NOPERM") || error.starts_with(b"ERR unknown command")
}
