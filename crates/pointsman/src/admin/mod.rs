//! What the running process shows of itself, and what can be asked of it, over HTTP.
//!
//! [`Running`] gives plain data (a [`Sample`]); all that is shown is rendered from it:
//! ```text
//!   Sample ─▶ statistics (one table) ─▶ prometheus   /metrics
//!          │                         └▶ report       /api/status  ─▶ print   `pointsman status`
//!          └▶ report::not_ready                      /readyz
//! ```
//! `server` is the listener, with its limits; [`client`] is the side of the commands that talk to a running process.
//! The server lives on a thread of its own: it can delay neither workers nor the topology.
pub mod client;
pub mod print;
mod prometheus;
pub mod report;
mod request;
mod server;
pub mod statistics;
pub mod switch;

pub use report::Events;
pub use server::{ServerHandle, serve};

use crate::control::Account;
use crate::events::Tally;
use pointsman_core::Now;
use pointsman_core::switchover::Order;
use pointsman_core::topology::snapshot::ShardView;
use pointsman_core::topology::status::Status;
use pointsman_core::worker::Counters;
use std::sync::Arc;
use std::time::Duration;

/// The running process, as the admin listener sees it. The calls may block for a moment (`sample` for some 200 ms,
/// `reload` and `trust` for some seconds); at most one of each kind runs at a time.
pub trait Running: Send + Sync + 'static {
    /// What there is to see now.
    fn sample(&self) -> Sample;

    /// The newest events, oldest first: those with a number greater than `after`, as far as they are still kept. Numbers
    /// grow, but not always by one.
    fn events(&self, after: u64) -> Events;

    /// Reads the configuration again, and says in one or more lines what changed.
    ///
    /// # Errors
    /// Why nothing was changed.
    fn reload(&self) -> Result<String, String>;

    /// Accepts what the Sentinels of a service say now as a new era of config epochs, and says what that meant.
    ///
    /// # Errors
    /// Why not: no such service, or nothing to accept.
    fn trust(&self, service: &str) -> Result<String, String>;

    /// Begins a switchover of a service; [`Running::account`] tells how it goes.
    ///
    /// # Errors
    /// Why it was not begun.
    fn switchover(&self, service: &str, order: Order) -> Result<String, String>;

    /// The account of a service's last switchover, if there was one.
    fn account(&self, service: &str) -> Option<Account>;

    /// Holds a service's commands for `span` at most.
    ///
    /// # Errors
    /// Why not.
    fn pause(&self, service: &str, span: Duration) -> Result<String, String>;

    /// Ends a pause.
    ///
    /// # Errors
    /// There is none.
    fn resume(&self, service: &str) -> Result<String, String>;
}

/// What the admin listener shows; composed anew for each request.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When this was composed.
    pub at: Now,
    /// When the process began.
    pub started: Now,
    /// The program's version.
    pub version: &'static str,
    /// Whether the process was told to stop, and lets its clients finish.
    pub stopping: bool,
    /// By index.
    pub workers: Vec<WorkerLoad>,
    /// In the order of the configuration.
    pub services: Vec<ServiceSample>,
    /// How often the configuration was read again and taken.
    pub reloads: u64,
    /// Why the newest attempt to reload was not taken, if it was not.
    pub reload_error: Option<String>,
    /// Log lines that were dropped because nobody read stderr fast enough ([`crate::log::Guard::dropped`]).
    pub log_lines_dropped: u64,
    /// Events that are not in the events file although there is one ([`crate::events::Journal::unwritten`]).
    pub events_unwritten: u64,
}

/// One worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerLoad {
    /// Which share of its time it was busy lately, in thousandths.
    pub busy_permille: u32,
    /// Its clients.
    pub clients: u64,
}

/// One service.
#[derive(Clone, Debug)]
pub struct ServiceSample {
    /// What its topology says.
    pub status: Status,
    /// What its workers were told.
    pub view: Arc<ShardView>,
    /// Since when its state is what it is: the moment of the event that changed it last, or of the start.
    pub since: Now,
    /// Summed over the workers. They may only grow, but for those that end in `now`: of a worker that did not answer in
    /// time, the last known ones count.
    pub counters: Counters,
    /// Where it accepts clients, as bound.
    pub listeners: Vec<String>,
    /// Grants after the first.
    pub switches: u64,
    /// The sum of its stories.
    pub tally: Tally,
}

#[cfg(test)]
mod tests;
