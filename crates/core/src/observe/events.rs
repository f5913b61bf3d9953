//! What a Sentinel announces on its event channels (sentinel.c, sentinelEvent).
use super::ask::{Question, readable};
use super::reply::Value;
use super::sentinel::host_port;
use crate::topology::observation::{Announced, Seen, Stage, Vote};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// How often the connection is checked: events can be rare.
pub(super) const PING_EVERY: Duration = Duration::from_secs(1);

/// The listening to one Sentinel.
#[derive(Clone, Debug)]
pub(super) struct Listen {
    name: Arc<str>,
}

pub(super) fn greet() -> Vec<Question> {
    Vec::from([Question::Subscribe])
}

pub(super) fn round() -> Vec<Question> {
    Vec::from([Question::PingEvents])
}

/// What an answer says that is not an event.
pub(super) fn answer(question: &Question, value: &Value) -> Option<Seen> {
    match (question, value) {
        (Question::Subscribe, Value::Error(e)) => Some(Seen::Listening(Err(readable(e).into()))),
        (Question::Subscribe | Question::PingEvents, _) => Some(Seen::Listening(Ok(()))),
        _ => None,
    }
}

impl Listen {
    pub(super) fn new(name: Arc<str>) -> Listen {
        Listen { name }
    }

    /// Whether a reply is an event, and what it says of this master, if anything.
    pub(super) fn event(&self, value: &Value) -> Option<Option<Announced>> {
        match value.items() {
            [kind, _, channel, payload] if kind.bytes() == Some(b"pmessage") => {
                Some(channel.text().zip(payload.text()).and_then(|(c, p)| self.announced(c, p)))
            }
            _ => None,
        }
    }

    /// Most payloads are `<type> <name> <ip> <port> @ <master> <ip> <port>`, for masters without the second part.
    fn announced(&self, channel: &str, payload: &str) -> Option<Announced> {
        let words: Vec<&str> = payload.split(' ').collect();
        let about = match words.as_slice() {
            ["master", name, ..] => Some(*name),
            _ if channel == "+switch-master" => words.first().copied(),
            _ => words.iter().position(|w| *w == "@").and_then(|i| words.get(i + 1)).copied(),
        };
        // Votes, epochs and TILT name no master: they may be about this one.
        let unnamed = matches!(channel, "+vote-for-leader" | "+new-epoch" | "+tilt" | "-tilt");
        if about != Some(&*self.name) && !unnamed {
            return None;
        }
        let master = words.first() == Some(&"master");
        let stage = match channel {
            "+sdown" if master => Some(Stage::Suspects),
            "+odown" | "+try-failover" => Some(Stage::Tries),
            "+elected-leader"
            | "+failover-state-select-slave"
            | "+selected-slave"
            | "+failover-state-send-slaveof-noone"
            | "+failover-state-wait-promotion" => Some(Stage::Acts),
            // What is told after a promotion, or of an end, is better read from the flags.
            _ => None,
        };
        let selected = match (channel, words.as_slice()) {
            ("+selected-slave", [_, _, host, port, ..]) => host_port(Some(host), Some(port)),
            _ => None,
        };
        let vote = match (channel, words.as_slice()) {
            ("+vote-for-leader", [leader, epoch]) => {
                epoch.parse().ok().map(|epoch| Vote { leader: (*leader).into(), epoch })
            }
            _ => None,
        };
        Some(Announced { event: channel.into(), stage, selected, vote })
    }
}
