//! A planned change of master, as a machine without I/O: `pointsman switchover`.
//!
//! ```text
//!   survey ─▶ [prioritise ─▶ shown by the Sentinel] ─▶ hold ─▶ drained ─▶ pause ─▶ caught up ─▶ order
//!      │                                                                                         │
//!      └ refused: nothing was changed           promoted ─▶ depose ─▶ unpause ─▶ granted ─▶ release ─▶ restored
//! ```
//! [`Switchover`] decides what is asked of which node or Sentinel, and when; its shell connects, moves bytes, and
//! carries out [`Do`]. What it changed is in its undo list (`undo`), which is worked off whatever happens. [`Demotion`]
//! is the smaller errand: one deposed master is told whom to follow. Both talk over [`line`]s.
//!
//! Why the steps come in this order is in docs/adr/switchover.md.
mod demotion;
mod handover;
mod judge;
mod line;
mod machine;
mod steps;
mod survey;
mod undo;

pub use demotion::Demotion;
pub use line::lacks_permission;
pub use machine::Switchover;

use crate::Now;
use crate::policy::Credential;
use crate::topology::settings::HostPort;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// One connection of a switchover or a demotion.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LineId(pub u16);

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Do {
    /// Connect; answer with `connected` or `gone`.
    Connect(LineId, HostPort),
    /// Send these bytes.
    Send(LineId, Vec<u8>),
    /// Close the connection, or give up connecting. No answer is wanted.
    Close(LineId),
    /// Hold the service's commands, for no longer than this.
    Hold(Duration),
    /// Ask the workers how many commands are in flight; answer with `in_flight`.
    Count,
    /// Let the service's commands go on.
    Release,
    /// Show this to the person who waits, and write it down.
    Say(Said),
    /// It is over.
    Finish(Result<String, String>),
}

/// One line of a switchover's account of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// When.
    pub at: Now,
    /// One line.
    pub text: Arc<str>,
    /// A change that stays behind if we die now, and how it is put right.
    pub left_behind: Option<Arc<str>>,
    /// The operator should look at it.
    pub warning: bool,
}

/// What an operator asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Order {
    /// Which node is to be master; `None`: whichever can be.
    pub to: Option<Arc<str>>,
    /// Instead of a switchover: give these nodes back these priorities, which one that was cut short has left behind.
    pub restore: Vec<(Arc<str>, u32)>,
}

/// With what to authenticate.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Credentials {
    /// To nodes.
    pub node: Option<Credential>,
    /// To Sentinels.
    pub sentinel: Option<Credential>,
}

/// How long anything that is asked may take, except while writes are paused.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How often who is waited for is asked, while nothing is held.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// … and while everybody waits.
const WATCH_EVERY: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests;
