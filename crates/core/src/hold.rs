//! What is held, what is sent again, and what the client is told instead: the decisions at a switch (invariant 6).
use crate::Now;
use crate::blocking;
use crate::command::{Access, Act, Entry};
use crate::kill::Kill;
use crate::ledger::{Sent, Slot};
use crate::policy::Retry;
use crate::resp::frame::Request;
use crate::session::Tx;
use crate::topology::snapshot::{Gate, ShardView};
use alloc::boxed::Box;
use alloc::sync::Arc;

/// A command of a session that comes before all that the session has still to say.
#[derive(Clone, PartialEq, Debug)]
pub struct Redo {
    /// Its place among all that the session asked: replies go to the client in this order.
    pub seq: u64,
    /// What is to be done.
    pub then: Then,
}

/// What is to be done for a [`Redo`].
#[derive(Clone, PartialEq, Debug)]
pub enum Then {
    /// Route it again.
    Again {
        /// The request.
        bytes: Box<[u8]>,
        /// Whether a node may have executed it already (it only reads, then).
        maybe: bool,
        /// Its reply if a later write of its session was or may have been executed meanwhile: then it is not sent again,
        /// for the older value would win. Of what a node that is no usable master refused, that node's error.
        refusal: Option<Box<[u8]>>,
    },
    /// Its reply is known; it waits for its turn.
    Answer(Box<[u8]>),
    /// So is this one's, and where it leaves the session in a transaction whose connection is lost.
    InTx {
        /// The reply.
        answer: &'static [u8],
        /// Where the session stands then, if that is something new.
        tx: Option<Tx>,
    },
    /// Sessions are to be killed; how many were is its reply.
    Kill {
        /// Which.
        kill: Arc<Kill>,
        /// Whether the server has said that the user may.
        allowed: bool,
    },
}

impl Then {
    /// The reply that is known.
    pub fn answer(&self) -> Option<&[u8]> {
        match self {
            Then::Again { .. } | Then::Kill { .. } => None,
            Then::Answer(text) => Some(text),
            Then::InTx { answer, .. } => Some(answer),
        }
    }
}

/// What becomes of a command whose connection is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// It was certainly not executed: send it again.
    Again,
    /// It only reads: send it again, although a node may have executed it.
    ReadAgain,
    /// It writes what it wrote already, if it did: send it again, unless a later write of its session may have been
    /// executed.
    WriteAgain,
    /// Its outcome cannot be known.
    Uncertain,
}

/// What becomes of a request whose connection is gone, outside of a transaction.
pub fn lost(slot: &Slot, bytes: &[u8], sent: Sent, retry: Retry) -> Lost {
    if sent == Sent::NotAll {
        return Lost::Again;
    }
    // A state command changes only a connection that is gone: to ask again is what a direct client would do.
    let state = slot.entry.is_some_and(|e| {
        matches!(
            e.act,
            Act::Select
                | Act::Auth
                | Act::Hello
                | Act::ClientSetname
                | Act::ClientSetinfo
                | Act::ClientTracking
                | Act::Watch
                | Act::Unwatch
                | Act::Subscribe(_)
                | Act::Unsubscribe(_)
        )
    });
    let req = Request::new(bytes);
    match slot.entry {
        _ if state => Lost::ReadAgain,
        Some(e) if retry != Retry::None && reads_the_same(e, req) => Lost::ReadAgain,
        Some(e) if retry == Retry::Idempotent && e.is_idempotent(req.args()) => Lost::WriteAgain,
        _ => Lost::Uncertain,
    }
}

/// Whether a command that may have been executed only reads, and means the same when it is asked again.
fn reads_the_same(entry: &Entry, req: Request<'_>) -> bool {
    let waits = entry.act == Act::BlockIfAsked && entry.resend;
    only_reads(Some(entry)) || waits && blocking::newest_wanted(entry, req).next().is_none()
}

/// Whether a command can be sent again although it may have been executed: it only reads, and does not block.
pub fn only_reads(entry: Option<&Entry>) -> bool {
    entry.is_some_and(|e| e.resend && e.act != Act::BlockIfAsked)
}

/// What a node says to all who wait on it when it becomes a replica (`disconnectAllBlockedClients` in `blocked.c`). Other
/// errors that begin with `-UNBLOCKED` (`CLIENT UNBLOCK … ERROR`) say nothing of its role.
pub const UNBLOCKED: &[u8] = b"-UNBLOCKED force unblock from blocking operation, instance state changed";

/// Whether an error reply proves that its command was not executed because the node is not a usable master, and which
/// sign it is.
///
/// Exact prefixes of Redis' `shared.roslaveerr`, `shared.loadingerr` and `shared.masterdownerr` (`server.c`), and
/// [`UNBLOCKED`]. For commands that run scripts only what is said before the script starts proves anything.
pub fn not_a_master(entry: Option<&Entry>, error: &[u8]) -> Option<Refusal> {
    // It is sent also while commands wait, and would be again and again.
    if entry.is_some_and(|e| e.act == Act::Kill) {
        return None;
    }
    let refusal = if error.starts_with(b"-READONLY You can't write against a read only replica.") {
        Refusal::Readonly
    } else if error.starts_with(b"-LOADING ") {
        Refusal::Loading
    } else if error.starts_with(b"-MASTERDOWN Link with MASTER is down") {
        Refusal::Masterdown
    } else if error.starts_with(UNBLOCKED) {
        // A WAIT that is unblocked had its writes executed.
        let pops = entry.is_some_and(|e| e.proves && matches!(e.act, Act::Block | Act::BlockIfAsked));
        return pops.then_some(Refusal::Unblocked);
    } else {
        return None;
    };
    let proves = entry.is_some_and(|e| e.proves);
    (proves || refusal != Refusal::Readonly).then_some(refusal)
}

/// How a node said that it is no usable master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It is a replica.
    Readonly,
    /// It is loading its data.
    Loading,
    /// It is a replica whose link to the master is down.
    Masterdown,
    /// It has just become a replica, and lets nobody wait.
    Unblocked,
}

/// What the gates say to one command now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// It may be sent.
    Go,
    /// It waits.
    Wait,
    /// It is answered with `-MASTERDOWN`.
    Refuse,
}

/// What the snapshot's gates and a hold of the worker's own (begun at `sign`) say to a command.
pub fn pass(view: &ShardView, sign: Option<Now>, access: Access, now: Now) -> Pass {
    let writes = access == Access::Write;
    let gate = if writes { view.writes } else { view.reads };
    match gate {
        Gate::Refuse => return Pass::Refuse,
        Gate::Hold { until, .. } => return if now >= until { Pass::Refuse } else { Pass::Wait },
        Gate::Open => {}
    }
    if let Some(at) = sign {
        return if now >= at + view.hold_max { Pass::Refuse } else { Pass::Wait };
    }
    if view.master.is_none() {
        return Pass::Wait;
    }
    let lease = if writes { view.writes_until } else { view.reads_until };
    match lease.filter(|end| now >= *end) {
        Some(end) if now >= end + view.hold_max => Pass::Refuse,
        Some(_) => Pass::Wait,
        None => Pass::Go,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::snapshot::{Endpoint, Term};
    use core::time::Duration;

    fn serving() -> ShardView {
        let mut v = ShardView::unknown(Now::ZERO, Duration::from_secs(15));
        v.term = Term(1);
        v.master = Some(Endpoint::Unix("m".into()));
        (v.writes, v.reads) = (Gate::Open, Gate::Open);
        v
    }

    #[test]
    fn a_hold_ends_in_a_refusal_by_itself() {
        let mut v = serving();
        v.writes = Gate::Hold { since: Now::ZERO, until: Now::from_millis(100) };
        assert_eq!(pass(&v, None, Access::Write, Now::from_millis(99)), Pass::Wait);
        assert_eq!(pass(&v, None, Access::Write, Now::from_millis(100)), Pass::Refuse);
        assert_eq!(pass(&v, None, Access::Read, Now::from_millis(100)), Pass::Go);
    }

    #[test]
    fn a_sign_holds_reads_and_writes_alike() {
        let v = serving();
        for access in [Access::Read, Access::Write, Access::Neither] {
            assert_eq!(pass(&v, None, access, Now::from_millis(1)), Pass::Go);
            assert_eq!(pass(&v, Some(Now::ZERO), access, Now::from_millis(1)), Pass::Wait);
            assert_eq!(pass(&v, Some(Now::ZERO), access, Now::from_millis(15_000)), Pass::Refuse);
        }
    }

    #[test]
    fn nothing_is_written_without_a_lease() {
        let v = ShardView { writes_until: Some(Now::from_millis(10)), ..serving() };
        assert_eq!(pass(&v, None, Access::Write, Now::from_millis(9)), Pass::Go);
        assert_eq!(pass(&v, None, Access::Write, Now::from_millis(10)), Pass::Wait);
        assert_eq!(pass(&v, None, Access::Read, Now::from_millis(10)), Pass::Go);
        assert_eq!(
            pass(&v, None, Access::Write, Now::from_millis(15_010)),
            Pass::Refuse,
            "no hold is endless"
        );
        let v = ShardView { reads_until: v.writes_until, ..v };
        assert_eq!(pass(&v, None, Access::Read, Now::from_millis(10)), Pass::Wait);
    }
}
