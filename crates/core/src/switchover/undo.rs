//! What a switchover has changed and must put back, whatever happens.
use crate::Now;
use crate::topology::settings::HostPort;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// How long it is tried to put a priority back.
pub(super) const RESTORE_FOR: Duration = Duration::from_secs(30);

/// The undo list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Undo {
    /// The service's commands are held.
    pub(super) held: bool,
    /// The master's writes are paused, and end by themselves at this moment.
    pub(super) paused: Option<Now>,
    /// The master was told to fail over by itself, and that can be called off.
    pub(super) failover: bool,
    /// A Sentinel was told to have the master paused and handed over.
    pub(super) handover: bool,
    /// Nodes (by index) whose priority was set to 0, and what it was.
    pub(super) priorities: Vec<(usize, u32)>,
}

impl Undo {
    /// Somebody else may be failing over, and have paused the writes as well: what is paused is better refused by a
    /// replica than executed by a deposed master, so the pause is left to end by itself.
    pub(super) fn leave_pause(&mut self) {
        self.paused = None;
    }

    /// Whether nothing is left to be put back.
    pub(super) fn is_empty(&self) -> bool {
        *self == Undo::default()
    }
}

/// How a person puts a priority back.
pub(super) fn repair(service: &str, at: &HostPort, priority: u32) -> String {
    format!("pointsman switchover {service} --restore {at}={priority}")
}
