//! How many connections to one master are made at once. A server takes them out of a queue of bounded length (`tcp-backlog`, 511 by
//! default; listen(2)); what finds it full TCP tries again after a whole second, and a thousand sessions that need a connection of their
//! own after a switch all ask for it in one moment.
use super::upstream::{State, Up};
use super::{Effect, UpId, Worker};
use crate::Now;
use crate::topology::snapshot::{ServiceId, ShardId};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;

/// So many connections a worker makes to a master at once: eight workers fit into the queue.
pub(super) const DIALS_MAX: u32 = 64;

/// The connections to one master that are being made, and those that wait for their turn.
#[derive(Default, Debug)]
pub(super) struct Dials {
    under_way: u32,
    /// Since when they wait.
    waiting: BTreeSet<(Now, UpId)>,
}

impl Dials {
    /// A connection that waits for its turn since `since` is given up.
    pub(super) fn never(&mut self, since: Now, id: UpId) {
        self.waiting.remove(&(since, id));
    }

    /// All that wait are given up.
    pub(super) fn never_any(&mut self) {
        self.waiting.clear();
    }

    /// What contradicts the connections that are there; how many wait.
    pub(super) fn audit<'a>(&self, ups: impl Iterator<Item = (UpId, &'a Up)>) -> Result<usize, String> {
        let (mut under_way, mut waiting) = (0, BTreeSet::new());
        for (id, up) in ups {
            match up.state {
                State::Waiting => drop(waiting.insert((up.used, id))),
                State::Connecting | State::Setup => under_way += 1,
                State::Ready => {}
            }
        }
        if (under_way, &waiting) != (self.under_way, &self.waiting) {
            return Err(format!("{under_way} are being made, {waiting:?} wait, but it says {self:?}"));
        }
        Ok(waiting.len())
    }
}

impl Worker {
    /// Has a connection made, now or as soon as others are.
    pub(super) fn dial(&mut self, id: UpId) {
        let Some(up) = self.ups.get(id) else { return };
        let (at, since, endpoint) = ((up.service, up.shard), up.used, up.endpoint.clone());
        let dials = &mut self.shard(at.0, at.1).dials;
        if dials.under_way >= DIALS_MAX {
            dials.waiting.insert((since, id));
            return;
        }
        dials.under_way += 1;
        self.ups[id].state = State::Connecting;
        self.effects.push_back(Effect::Connect(id, endpoint));
    }

    /// A connection was made, or is given up: the next one's turn.
    pub(super) fn dialed(&mut self, at: (ServiceId, ShardId)) {
        let dials = &mut self.shard(at.0, at.1).dials;
        dials.under_way -= 1;
        if let Some((_, next)) = dials.waiting.pop_first() {
            self.dial(next);
        }
    }
}
