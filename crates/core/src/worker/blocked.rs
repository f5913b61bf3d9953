//! Commands that block: since when, and what `$` meant. A session has one of them in flight at most, so that the time is
//! its own. What was unblocked by a demotion, or only reads, is asked again with what is left of its timeout.
use super::upstream::Up;
use super::{ClientId, UpId, Worker};
use crate::Now;
use crate::blocking;
use crate::command::{Access, Act, Entry};
use crate::hold::UNBLOCKED;
use crate::ledger::{Apply, Ledger, Owner, Slot};
use crate::resp::frame::{Element, Elements, Request};
use crate::resp::reply;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// The ids of no more streams than this are asked for.
const STREAMS_MAX: usize = 64;

/// What is known of a command that blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Blocked {
    /// Its place among all that its client asked.
    seq: u64,
    /// When it was sent.
    at: Now,
    /// For each `$` the last id of that stream then, once it is known.
    ids: Vec<Option<Box<[u8]>>>,
    /// With which batch what it took is withheld.
    pub(super) batch: Option<u64>,
}

impl Blocked {
    /// A command that blocks is about to be queued. Of each stream whose newest entry it waits for, the last id is asked
    /// first, in the same write: afterwards nobody can tell what `$` meant. (An entry that is deleted already counts no
    /// more than for `XREAD` itself, so the last entry's id is as good as the stream's last id.)
    pub(super) fn begin(
        now: Now,
        seq: u64,
        entry: &Entry,
        req: Request<'_>,
        ledger: &mut Ledger,
    ) -> Option<Box<Blocked>> {
        if !blocking::blocks(entry, req) {
            return None;
        }
        let streams: Vec<&[u8]> = blocking::newest_wanted(entry, req).take(STREAMS_MAX).collect();
        for (i, stream) in streams.iter().enumerate() {
            let mut question = Vec::new();
            reply::request(&mut question, &[&b"XREVRANGE"[..], stream, b"+", b"-", b"COUNT", b"1"]);
            let slot = Slot::new(Owner::Nobody, None, Apply::LastId(i as u32));
            ledger.push(&question, Slot { seq, ..slot });
        }
        Some(Box::new(Blocked { seq, at: now, ids: alloc::vec![None; streams.len()], batch: None }))
    }

    /// Whether this request of its client is it, and takes what comes.
    pub(super) fn pops(&self, slot: &Slot) -> bool {
        self.seq == slot.seq && slot.entry.is_some_and(|e| e.proves && e.access == Access::Write)
    }

    /// What a request would be if it were asked again: with an id for each `$`. `None`: it still has one.
    fn as_it_was_meant(&self, entry: &Entry, bytes: Box<[u8]>) -> Option<Box<[u8]>> {
        let bytes = blocking::with_ids(entry, bytes, &self.ids);
        let known = blocking::newest_wanted(entry, Request::new(&bytes)).next().is_none();
        known.then_some(bytes)
    }
}

impl Up {
    /// Whether with this error the server, now a replica, ends what waited there and then the connection: it closes it behind
    /// the error, and executes nothing that it has read meanwhile (`CLIENT_CLOSE_AFTER_REPLY` in `disconnectAllBlockedClients`
    /// and `processInputBuffer`).
    pub(super) fn ends_with(&mut self, error: &[u8]) -> bool {
        let waits = |e: &Entry| e.proves && matches!(e.act, Act::Block | Act::BlockIfAsked | Act::Wait);
        error.starts_with(UNBLOCKED)
            && self.ledger.expects()
            && self.ledger.front().is_some_and(|s| s.apply == Apply::Replicas || s.entry.is_some_and(waits))
    }
}

impl Worker {
    /// The last entry of a stream, or an error, which leaves its id unknown.
    pub(super) fn last_id(&mut self, id: UpId, seq: u64, which: u32, frame: &[u8]) {
        let client = self.ups.get(id).and_then(|up| up.pinned_by);
        let Some(c) = client.and_then(|c| self.clients.get_mut(c)) else { return };
        let Some(blocked) = c.blocked.as_mut().filter(|b| b.seq == seq) else { return };
        if let Some(slot) = blocked.ids.get_mut(which as usize) {
            *slot = newest(frame).map(Into::into);
        }
    }

    /// A request that is asked again, as it is then: of one that blocks only the rest of its timeout is left.
    pub(super) fn as_left<'a>(&self, now: Now, id: ClientId, seq: u64, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let blocked = self.clients.get(id).and_then(|c| c.blocked.as_ref()).filter(|b| b.seq == seq);
        let req = Request::new(bytes);
        let entry = blocked.and_then(|_| crate::route::entry(req));
        match (blocked, entry) {
            (Some(b), Some(e)) => {
                blocking::with_rest_of_timeout(e, req, now.since(b.at)).unwrap_or(Cow::Borrowed(bytes))
            }
            _ => Cow::Borrowed(bytes),
        }
    }

    /// The bytes with which a command of a client that may have blocked is asked again. `None`: it cannot be.
    pub(super) fn to_ask_again(
        &self,
        id: ClientId,
        seq: u64,
        entry: Option<&Entry>,
        bytes: &[u8],
    ) -> Option<Box<[u8]>> {
        let blocked = self.clients.get(id).and_then(|c| c.blocked.as_ref()).filter(|b| b.seq == seq);
        let bytes = bytes.into();
        match (blocked, entry) {
            (Some(b), Some(entry)) => b.as_it_was_meant(entry, bytes),
            _ => Some(bytes),
        }
    }
}

/// The id of the newest entry in the reply to `XREVRANGE … COUNT 1`; of a stream that is empty or not there, what `$`
/// means then.
fn newest(frame: &[u8]) -> Option<&[u8]> {
    let mut elements = Elements::of(frame);
    match elements.next()? {
        Element::Aggregate(b'*', 0) => Some(b"0-0"),
        Element::Aggregate(b'*', 1) => match (elements.next()?, elements.next()?) {
            (Element::Aggregate(b'*', _), Element::Bulk(id)) => Some(id),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_entry_says_what_the_last_id_is() {
        let entry = b"*1\r\n*2\r\n$3\r\n5-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
        assert_eq!(newest(entry), Some(&b"5-1"[..]));
        assert_eq!(newest(b"*0\r\n"), Some(&b"0-0"[..]));
        assert_eq!(newest(b"-WRONGTYPE x\r\n"), None);
    }
}
