//! Who is owed which reply on one upstream connection, and the bytes of the requests until their replies settle.
//!
//! Requests lie one behind the other in a ring. Three marks move over it: what was queued, what was sent, and what is
//! settled. Bytes stay until their reply settles, because sending again needs them; those of a request that streams
//! through are let go as they are sent.
use crate::command::{Act, Entry};
use crate::session::Ident;
use crate::worker::ClientId;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// To whom a reply is owed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// To this client.
    Client(ClientId),
    /// To nobody: Pointsman asked, or the client has left.
    Nobody,
}

/// What a reply, if it is no error, changes in the session, and how it is rewritten.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Apply {
    /// Nothing.
    #[default]
    None,
    /// `SELECT`.
    Select(u32),
    /// `AUTH`.
    Auth(Ident),
    /// `HELLO`: the protocol version, the user and the name that it asked for. The `id` in the reply is replaced.
    Hello(Box<Hello>),
    /// `CLIENT SETNAME`.
    Setname(Box<[u8]>),
    /// `CLIENT SETINFO`: whether it is the version, and the value.
    Setinfo(bool, Box<[u8]>),
    /// `CLIENT ID`: the reply is replaced by the session's id.
    ClientId,
    /// `CLIENT GETNAME`: the reply is replaced by the session's name.
    Getname,
    /// `CLIENT INFO`: what is the session's own is replaced.
    Info,
    /// `CLIENT INFO` in the place of `CLIENT LIST ID` of the session itself. These are the client's words.
    Listed(Box<[u8]>),
    /// `CLIENT GETREDIR`: the reply is replaced by the id of the session that is told.
    Getredir,
    /// `CLIENT TRACKINGINFO`: as for [`Apply::Getredir`].
    Trackinginfo,
    /// `CLIENT TRACKING`, in the client's words.
    Tracking(Box<[u8]>),
    /// `CLIENT UNBLOCK` of a connection, which these words of the client's name by its session.
    Unblock(Box<[u8]>),
    /// The question whether the user may `CLIENT KILL`, with the client's words. Its yes is not shown.
    MayKill(Box<[u8]>),
    /// `MULTI`.
    Multi,
    /// `EXEC`.
    Exec,
    /// `DISCARD` in the place of `EXEC`: the reply is replaced by this.
    ExecAs(Box<[u8]>),
    /// `DISCARD`.
    Discard,
    /// `WATCH`.
    Watch,
    /// `UNWATCH`.
    Unwatch,
    /// Binds the session to the connection.
    Bind,
    /// A command of which nothing is known: binds the session, unless it was rejected.
    Unknown,
    /// Pointsman's own `COMMAND INFO`, for a command that the table does not have.
    Learn,
    /// Pointsman's own `CLIENT SETNAME`, `SETINFO` or `CACHING` on a pinned connection.
    Name,
    /// The `PUBLISH` before a `WAIT`: if it is denied, the `WAIT` must not be believed.
    WaitMark,
    /// Pointsman's own `SUBSCRIBE` for a session whose connection was lost.
    Resubscribe,
    /// Pointsman's own `CLIENT TRACKING` for one.
    Retrack,
    /// The question for the last id of a stream, for that of the ids of the command behind it.
    LastId(u32),
    /// Pointsman's own `ROLE` behind writes whose replies are withheld: where they end in the replication stream.
    Offset,
    /// Pointsman's own `WAIT` behind durable writes.
    Replicas,
    /// Pointsman's own `PING` before it: until 7.2 what a blocked command did counts for `WAIT` only with the command
    /// that follows it (`processCommand`, `serveClientBlockedOnList`).
    Follow,
}

impl Apply {
    /// Whether it belongs to what Pointsman asks behind writes whose replies it withholds.
    pub fn proves(&self) -> bool {
        matches!(self, Apply::Offset | Apply::Replicas | Apply::Follow)
    }

    /// Whether it gives a connection what its session had on another one.
    pub fn restores(&self) -> bool {
        matches!(self, Apply::Name | Apply::Resubscribe | Apply::Retrack)
    }

    /// The request in its client's words, if it went out in others.
    pub fn own_words(&self) -> Option<&[u8]> {
        match self {
            Apply::ExecAs(_) => Some(b"*1\r\n$4\r\nEXEC\r\n"),
            Apply::Listed(own) | Apply::Tracking(own) | Apply::Unblock(own) | Apply::MayKill(own) => {
                Some(own)
            }
            _ => None,
        }
    }
}

/// What `HELLO` asked for.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Hello {
    /// Whether the version is 3 (2 otherwise); `None`: not given.
    pub resp3: Option<bool>,
    /// `AUTH user password`.
    pub ident: Option<Ident>,
    /// `SETNAME name`.
    pub name: Option<Box<[u8]>>,
}

/// One request that was queued on a connection.
#[derive(Debug)]
pub struct Slot {
    /// To whom its reply is owed.
    pub owner: Owner,
    /// Its command; `None` if it is not in the table.
    pub entry: Option<&'static Entry>,
    /// What its reply changes.
    pub apply: Apply,
    /// So many replies are still to come (`SUBSCRIBE a b` has two).
    pub replies: u32,
    /// Part of its reply has been given to the client.
    pub begun: bool,
    /// Its bytes are not kept (the request streams through).
    pub streams: bool,
    /// A node may have executed it before (it only reads, then).
    pub maybe: bool,
    /// Its place among all that its client asked.
    pub seq: u64,
    /// Where its bytes end, as an offset in all bytes ever queued; `u64::MAX` while it streams in.
    pub(crate) end: u64,
}

impl Slot {
    /// A slot for a request whose one reply is owed to `owner`.
    pub fn new(owner: Owner, entry: Option<&'static Entry>, apply: Apply) -> Slot {
        Slot { owner, entry, apply, replies: 1, begun: false, streams: false, maybe: false, seq: 0, end: 0 }
    }
}

impl Slot {
    /// Whether it ends a script, or a function.
    pub fn kills(&self) -> bool {
        self.entry.is_some_and(|e| e.act == Act::Kill)
    }
}

/// How much of a request was given to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// Nothing, or not its last byte: the node cannot have executed it.
    NotAll,
    /// All: the node may have executed it.
    All,
}

/// The ledger of one upstream connection.
#[derive(Debug, Default)]
pub struct Ledger {
    /// What is kept lies in `head..tail`.
    ring: Vec<u8>,
    head: usize,
    tail: usize,
    /// Offset of the byte at `head`.
    base: u64,
    /// Offset of the first byte that was not sent.
    sent: u64,
    slots: VecDeque<Slot>,
}

/// A ring that has grown beyond this gives its memory back when it is empty.
const RING_KEPT: usize = 1 << 20;

impl Ledger {
    /// Queues a request.
    pub fn push(&mut self, bytes: &[u8], slot: Slot) {
        self.append(bytes);
        self.push_slot(slot);
    }

    /// Room behind what is queued, of at least `least` bytes: what a request is read into that is likely to be queued next.
    pub fn room(&mut self, least: usize) -> &mut [u8] {
        let full = self.tail + least > self.ring.len();
        // Settled bytes at the front are moved out of the way when that is cheaper than to grow.
        if full && self.head > 0 && self.head >= self.tail / 2 {
            self.ring.copy_within(self.head..self.tail, 0);
            self.tail -= self.head;
            self.head = 0;
        }
        if self.tail + least > self.ring.len() {
            self.ring.resize((self.tail + least).max(2 * self.ring.len()), 0);
        }
        &mut self.ring[self.tail..]
    }

    /// The first `n` bytes of that room.
    pub fn in_room(&self, n: usize) -> &[u8] {
        &self.ring[self.tail..self.tail + n]
    }

    /// Queues the request that the first `len` bytes of that room are.
    pub fn push_in_room(&mut self, len: usize, slot: Slot) {
        self.tail += len;
        self.push_slot(slot);
    }

    fn push_slot(&mut self, mut slot: Slot) {
        slot.end = if slot.streams { u64::MAX } else { self.queued() };
        self.slots.push_back(slot);
    }

    /// Queues more of the request that streams in, which is the last slot; `last` if it is now complete.
    pub fn push_more(&mut self, bytes: &[u8], last: bool) {
        self.append(bytes);
        let end = self.queued();
        if last && let Some(slot) = self.slots.back_mut() {
            slot.end = end;
        }
    }

    /// The bytes to send next.
    pub fn unsent(&self) -> &[u8] {
        &self.ring[self.index(self.sent)..self.tail]
    }

    /// Of these the first, up to the first request for which `may` does not hold.
    pub fn unsent_while(&self, may: impl Fn(&Slot) -> bool) -> &[u8] {
        let next = self.slots.partition_point(|s| s.end <= self.sent);
        let allowed = self.slots.iter().skip(next).take_while(|s| may(s)).last();
        let end = allowed.map_or(self.sent, |s| s.end.min(self.queued()));
        &self.ring[self.index(self.sent)..self.index(end)]
    }

    /// `n` of them were sent.
    pub fn wrote(&mut self, n: usize) {
        self.sent += n as u64;
        self.let_go();
    }

    /// Lets go what was sent of the first request, if it streams; the bytes of those behind it are kept.
    fn let_go(&mut self) {
        match self.slots.front() {
            Some(s) if s.streams => self.release(s.end.min(self.sent)),
            Some(_) => {}
            None => self.release(self.sent),
        }
    }

    /// Bytes kept: queued or sent, not settled.
    pub fn len(&self) -> usize {
        self.tail - self.head
    }

    /// Of these, those before the last request, if that is kept as a whole; what Pointsman asks behind it is none.
    pub fn len_before_last(&self) -> usize {
        match self.slots.iter().rposition(|s| !s.apply.proves()) {
            Some(last) if !self.slots[last].streams => {
                let start = last.checked_sub(1).map_or(self.base, |before| self.slots[before].end);
                (start - self.base) as usize
            }
            _ => self.len(),
        }
    }

    /// Whether nothing is owed and nothing is to be sent.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.len() == 0
    }

    /// Requests that are not settled.
    pub fn owed(&self) -> usize {
        self.slots.len()
    }

    /// The request whose reply comes next, if all of it was sent.
    pub fn front(&mut self) -> Option<&mut Slot> {
        self.slots.front_mut()
    }

    /// The bytes of that request (none if it streamed through).
    pub fn front_bytes(&self) -> &[u8] {
        match self.slots.front() {
            Some(s) if !s.streams => &self.ring[self.head..self.index(s.end)],
            _ => &[],
        }
    }

    /// Whether a reply can be owed: the first request was sent to its end.
    pub fn expects(&self) -> bool {
        self.slots.front().is_some_and(|s| s.end <= self.sent)
    }

    /// The first request's reply has come.
    pub fn settle(&mut self) -> Option<Slot> {
        let slot = self.slots.pop_front()?;
        self.release(slot.end.min(self.sent));
        self.let_go();
        Some(slot)
    }

    /// Whether a request behind the first changes the session or the connection.
    pub fn followed_by_state(&self) -> bool {
        let changes = |s: &Slot| {
            let subscribes =
                s.entry.is_some_and(|e| matches!(e.act, Act::Subscribe(_) | Act::Unsubscribe(_)));
            s.apply != Apply::None && !s.apply.proves() || subscribes
        };
        self.slots.iter().skip(1).any(changes)
    }

    /// Takes back the requests of which no byte was sent, oldest first. What gives the connection its session's name and
    /// subscriptions stays.
    pub fn retract(&mut self) -> Vec<(Slot, Box<[u8]>)> {
        let mut out = Vec::new();
        loop {
            let start = self.last_start();
            let Some(slot) = self.slots.back() else { break };
            if start < self.sent || slot.streams {
                break;
            }
            if slot.apply.restores() {
                // What follows it was taken back, and comes again.
                break;
            }
            let from = self.index(start);
            let bytes = self.ring[from..self.tail].into();
            self.tail = from;
            out.extend(self.slots.pop_back().map(|s| (s, bytes)));
        }
        out.reverse();
        out
    }

    /// Ends the ledger: all that is owed, in order, with the bytes that are kept and how much of it was sent.
    pub fn close(&mut self) -> Vec<(Slot, Box<[u8]>, Sent)> {
        let mut out = Vec::new();
        while let Some(slot) = self.slots.front() {
            let sent = if slot.end <= self.sent { Sent::All } else { Sent::NotAll };
            let bytes = self.front_bytes().into();
            let end = slot.end.min(self.queued());
            self.release(end);
            out.extend(self.slots.pop_front().map(|s| (s, bytes, sent)));
        }
        *self = Ledger::default();
        out
    }

    /// Whether the last request still streams in: nothing can be queued behind it yet.
    pub fn streams_in(&self) -> bool {
        self.slots.back().is_some_and(|s| s.end == u64::MAX)
    }

    /// Whether what is queued next would stand in a transaction; `open`: whether the session is in one already.
    pub fn ends_in_tx(&self, open: bool) -> bool {
        let turn = self.slots.iter().rev().find_map(|s| match s.entry?.act {
            Act::Multi => Some(true),
            Act::Exec | Act::Discard => Some(false),
            _ => None,
        });
        turn.unwrap_or(open)
    }

    /// Whether a request in flight is of a command for which `is` holds.
    pub fn owes(&self, is: impl Fn(&Entry) -> bool) -> bool {
        self.slots.iter().any(|s| s.entry.is_some_and(&is))
    }

    /// The requests that are not settled, oldest first.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// Of these, those of which no byte was sent, newest first.
    pub fn unsent_slots(&self) -> impl Iterator<Item = &Slot> {
        let starts = self.slots.iter().rev().skip(1).map(|s| s.end).chain([self.base]);
        self.slots.iter().rev().zip(starts).take_while(|(_, start)| *start >= self.sent).map(|(slot, _)| slot)
    }

    /// The slots owed to `client` are owed to nobody from now on.
    pub fn disown(&mut self, client: ClientId) {
        for slot in &mut self.slots {
            if slot.owner == Owner::Client(client) {
                slot.owner = Owner::Nobody;
                slot.apply = Apply::None;
            }
        }
    }

    /// The slots of clients for whom `of` holds are owed to nobody from now on: what they were, with their bytes.
    pub fn disown_those(&mut self, of: impl Fn(ClientId) -> bool) -> Vec<(Slot, Box<[u8]>, Sent)> {
        let mut out = Vec::new();
        let mut start = self.base;
        for i in 0..self.slots.len() {
            let end = self.slots[i].end.min(self.queued());
            if matches!(self.slots[i].owner, Owner::Client(client) if of(client)) {
                let bytes = self.ring[self.index(start)..self.index(end)].into();
                let slot = &mut self.slots[i];
                let nobodys = Slot {
                    replies: slot.replies,
                    begun: slot.begun,
                    streams: slot.streams,
                    end: slot.end,
                    ..Slot::new(Owner::Nobody, slot.entry, Apply::None)
                };
                let sent = if slot.end <= self.sent { Sent::All } else { Sent::NotAll };
                out.push((core::mem::replace(slot, nobodys), bytes, sent));
            }
            start = end;
        }
        out
    }

    /// Where the last request begins.
    fn last_start(&self) -> u64 {
        let n = self.slots.len();
        if n < 2 { self.base } else { self.slots[n - 2].end }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.tail += bytes.len();
    }

    fn queued(&self) -> u64 {
        self.base + self.len() as u64
    }

    fn index(&self, offset: u64) -> usize {
        self.head + (offset - self.base) as usize
    }

    fn release(&mut self, to: u64) {
        let n = (to - self.base) as usize;
        self.head += n;
        self.base = to;
        self.sent = self.sent.max(to);
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
            if self.ring.len() > RING_KEPT {
                self.ring = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slot() -> Slot {
        Slot::new(Owner::Nobody, None, Apply::None)
    }

    #[test]
    fn bytes_are_kept_until_settled() {
        let mut l = Ledger::default();
        l.push(b"one", slot());
        l.push(b"two", slot());
        l.wrote(4);
        assert_eq!((l.unsent(), l.front_bytes()), (&b"wo"[..], &b"one"[..]));
        l.settle();
        assert_eq!(l.front_bytes(), b"two");
        assert!(!l.expects());
        l.wrote(2);
        assert!(l.expects());
        l.settle();
        assert!(l.is_empty());
    }

    #[test]
    fn only_what_no_byte_was_sent_of_is_taken_back() {
        let mut l = Ledger::default();
        for b in [b"aa", b"bb", b"cc", b"dd"] {
            l.push(b, slot());
        }
        l.wrote(3);
        let back: Vec<_> = l.retract().into_iter().map(|(_, b)| b).collect();
        assert_eq!(back, [Box::from(&b"cc"[..]), Box::from(&b"dd"[..])]);
        assert_eq!(l.unsent(), b"b");
        assert_eq!(l.owed(), 2);
        assert!(l.retract().is_empty());
    }

    #[test]
    fn closing_tells_what_may_have_been_executed() {
        let mut l = Ledger::default();
        for b in [b"aa", b"bb", b"cc"] {
            l.push(b, slot());
        }
        l.wrote(3);
        let all: Vec<_> = l.close().into_iter().map(|(_, b, s)| (b, s)).collect();
        let want = [(b"aa", Sent::All), (b"bb", Sent::NotAll), (b"cc", Sent::NotAll)];
        assert_eq!(all, want.map(|(b, s)| (Box::from(&b[..]), s)));
        assert!(l.is_empty());
    }

    #[test]
    fn what_streams_through_is_not_kept() {
        let mut l = Ledger::default();
        l.push(b"head", Slot { streams: true, ..slot() });
        l.wrote(4);
        assert_eq!(l.len(), 0);
        l.push_more(b"tail", true);
        assert!(!l.expects());
        l.wrote(4);
        assert!(l.expects());
        l.settle();
        assert!(l.is_empty());
    }

    #[test]
    fn only_what_may_be_sent_is_shown() {
        let mut l = Ledger::default();
        for (bytes, seq) in [(b"aa", 1), (b"bb", 1), (b"cc", 2), (b"dd", 1)] {
            l.push(bytes, Slot { seq, ..slot() });
        }
        let ones = |s: &Slot| s.seq == 1;
        assert_eq!(l.unsent_while(ones), b"aabb");
        l.wrote(3);
        assert_eq!(l.unsent_while(ones), b"b");
        l.wrote(2);
        assert_eq!(l.unsent_while(ones), b"");
        assert_eq!(l.unsent_while(|_| true), l.unsent());
    }

    #[test]
    fn a_stream_is_let_go_when_what_was_before_it_settles() {
        let mut l = Ledger::default();
        l.push(b"name", slot());
        l.push(b"head", Slot { streams: true, ..slot() });
        l.wrote(6);
        assert_eq!(l.len(), 8);
        l.settle();
        assert_eq!((l.len(), l.unsent()), (2, &b"ad"[..]));
    }

    #[test]
    fn what_follows_a_stream_is_kept() {
        let mut l = Ledger::default();
        l.push(b"head", Slot { streams: true, ..slot() });
        l.push_more(b"tail", true);
        l.push(b"next", slot());
        l.wrote(12);
        assert_eq!(l.len(), 4);
        l.settle();
        assert_eq!((l.front_bytes(), l.expects()), (&b"next"[..], true));
        l.settle();
        assert!(l.is_empty());
    }

    #[test]
    fn what_streams_behind_another_is_let_go_when_that_settles() {
        let mut l = Ledger::default();
        l.push(b"name", slot());
        l.push(b"head", Slot { streams: true, ..slot() });
        l.wrote(8);
        assert_eq!(l.len(), 8);
        l.settle();
        assert_eq!(l.len(), 0);
    }

    proptest! {
        #[test]
        fn marks_keep_their_order(ops in prop::collection::vec((0u8..4, 1usize..9), 0..200)) {
            let mut l = Ledger::default();
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            let mut sent: usize = 0; // of the model's bytes
            let mut next = 0u8;
            for (op, n) in ops {
                let queued: usize = model.iter().map(Vec::len).sum();
                match op {
                    0 => {
                        next = next.wrapping_add(1);
                        l.push(&alloc::vec![next; n], slot());
                        model.push_back(alloc::vec![next; n]);
                    }
                    1 => {
                        let n = n.min(queued - sent);
                        l.wrote(n);
                        sent += n;
                    }
                    2 if l.expects() => {
                        let first = model.pop_front().expect("the ledger expects a reply");
                        prop_assert_eq!(l.front_bytes(), &first[..]);
                        prop_assert!(sent >= first.len());
                        sent -= first.len();
                        l.settle();
                    }
                    3 => {
                        let back = l.retract();
                        for (_, bytes) in back.iter().rev() {
                            prop_assert_eq!(&bytes[..], &model.pop_back().expect("was queued")[..]);
                        }
                        prop_assert!(model.iter().map(Vec::len).sum::<usize>() >= sent);
                    }
                    _ => {}
                }
                let all: Vec<u8> = model.iter().flatten().copied().collect();
                prop_assert_eq!(l.unsent(), &all[sent..]);
                prop_assert_eq!((l.owed(), l.len()), (model.len(), all.len()));
            }
        }
    }
}
