//! The rows: what is broken, what the product aims at, and what it keeps already.
use std::fmt;

/// What is done to the deployment. The master is on host 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9` of the master; started again, empty, at the end of the outage.
    Kill,
    /// SIGSTOP of the master, SIGCONT at the end of the outage.
    Stop,
    /// The master's host cannot reach the other hosts, nor they it; the proxy reaches all.
    Cut,
    /// The same, with the proxy on the master's side.
    CutWithProxy,
    /// The master's host reaches nobody.
    Isolate,
    /// `SENTINEL FAILOVER`.
    Failover,
    /// `pointsman switchover`, while another load writes to the master directly.
    Switchover,
    /// `kill -9` of two of three Sentinels.
    MostSentinels,
    /// `kill -9` of all Sentinels.
    AllSentinels,
    /// `kill -9` of the master, and 1 s after the promotion `SENTINEL FAILOVER` of its successor.
    Twice,
    /// `kill -9` of one replica.
    Replica,
    /// `kill -9` of both replicas.
    Replicas,
    /// SIGSTOP of both replicas, SIGCONT at the end of the outage.
    StopReplicas,
}

/// What is done to the proxy meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    Nothing,
    /// A second one is started, with a load of its own, 100 ms after the promotion: when two nodes may say that they are
    /// master, and the Sentinels disagree.
    Start,
    /// It is told to reload 300 ms after the fault, and again 300 ms after the promotion.
    Reload,
}

/// Which errors clients may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errors {
    None,
    /// `-UNCERTAIN` for writes that were in flight.
    InFlight,
    /// And `-MASTERDOWN` after the hold.
    InFlightThenDown,
}

/// How long the longest pause may be, of writes and of reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// So many ms more than it took until the successor was promoted.
    AfterPromotion(u64),
    /// So many ms.
    AtMost(u64),
    /// Until the partition is healed.
    UntilHealed,
}

/// A figure that is compared with its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    Lost,
    Dual,
    Errors,
    Pause,
    /// When a proxy that was started in the middle gives its first service.
    Ready,
}

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) fault: Fault,
    pub(crate) meanwhile: Meanwhile,
    /// Acknowledged writes that may be lost, and those of a stall of the machine if that is not 0. Of dual writes there may
    /// never be one.
    pub(crate) lost_max: u64,
    pub(crate) errors: Errors,
    pub(crate) pause: Pause,
    /// What is not reached yet, sometimes or always. The rest of losses, dual writes and errors is asserted.
    pub(crate) not_yet: &'static [Figure],
}

/// How many writes a second the load makes, and what 0.3 s of them are.
pub(crate) const WRITES_PER_S: u64 = 290;
const GUARD_LOST_MAX: u64 = 3 * WRITES_PER_S / 10;
/// After the proof, for a proxy that was started in the middle.
pub(crate) const READY_MS_MAX: i64 = 300;
/// A pause shorter than this is none: connections have a period of 28 ms, and machines that run tests stall.
const NO_PAUSE_MS: u64 = 100;

use Errors::{InFlight, InFlightThenDown};
use Fault::*;
use Meanwhile::{Nothing, Reload, Start};
use Pause::{AfterPromotion, AtMost, UntilHealed};

const ROW: Row = Row {
    name: "",
    about: "",
    fault: Kill,
    meanwhile: Nothing,
    lost_max: 0,
    errors: InFlight,
    pause: AfterPromotion(100),
    not_yet: &[],
};

/// All rows, in the order in which they are shown.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "F1", about: "kill -9 of the master", ..ROW },
    Row { name: "F2", about: "SIGSTOP of the master, then SIGCONT", fault: Stop, ..ROW },
    Row {
        name: "F3",
        about: "the master's host cut off from the others, the proxy sees both sides",
        fault: Cut,
        lost_max: GUARD_LOST_MAX,
        pause: AfterPromotion(200),
        ..ROW
    },
    Row {
        name: "F3b",
        about: "the same, the proxy on the master's side",
        fault: CutWithProxy,
        lost_max: GUARD_LOST_MAX,
        errors: InFlightThenDown,
        pause: UntilHealed,
        ..ROW
    },
    Row {
        name: "F4",
        about: "SENTINEL FAILOVER",
        fault: Failover,
        errors: Errors::None,
        pause: AtMost(300),
        ..ROW
    },
    Row {
        name: "F4s",
        about: "pointsman switchover, while others write to the master directly",
        fault: Switchover,
        errors: Errors::None,
        pause: AtMost(300),
        ..ROW
    },
    Row {
        name: "F5",
        about: "all Sentinels but one killed",
        fault: MostSentinels,
        errors: Errors::None,
        pause: AtMost(NO_PAUSE_MS),
        ..ROW
    },
    Row {
        name: "F7",
        about: "all Sentinels killed",
        fault: AllSentinels,
        errors: Errors::None,
        pause: AtMost(NO_PAUSE_MS),
        ..ROW
    },
    Row { name: "F6", about: "the master's host cut off from everyone", fault: Isolate, ..ROW },
    Row { name: "F8", about: "kill -9, and SENTINEL FAILOVER 1 s after the promotion", fault: Twice, ..ROW },
    Row { name: "F9s-F1", about: "a proxy started in the middle of F1", meanwhile: Start, ..ROW },
    Row {
        name: "F9s-F3",
        about: "a proxy started in the middle of F3",
        fault: Cut,
        meanwhile: Start,
        lost_max: GUARD_LOST_MAX,
        pause: AfterPromotion(200),
        ..ROW
    },
    Row {
        name: "F9s-F4",
        about: "a proxy started in the middle of F4",
        fault: Failover,
        meanwhile: Start,
        errors: Errors::None,
        pause: AtMost(300),
        ..ROW
    },
    Row { name: "F9r-F1", about: "a reload in the middle of F1", meanwhile: Reload, ..ROW },
    Row {
        name: "F9r-F3",
        about: "a reload in the middle of F3",
        fault: Cut,
        meanwhile: Reload,
        lost_max: GUARD_LOST_MAX,
        pause: AfterPromotion(200),
        ..ROW
    },
    Row {
        name: "F9r-F4",
        about: "a reload in the middle of F4",
        fault: Failover,
        meanwhile: Reload,
        errors: Errors::None,
        pause: AtMost(300),
        ..ROW
    },
    Row {
        name: "F10",
        about: "a replica killed",
        fault: Replica,
        errors: Errors::None,
        pause: AtMost(1500),
        ..ROW
    },
    Row {
        name: "F10all",
        about: "all replicas killed",
        fault: Replicas,
        errors: Errors::None,
        pause: AtMost(1500),
        ..ROW
    },
    Row {
        name: "F10stop",
        about: "all replicas SIGSTOPped, then SIGCONT",
        fault: StopReplicas,
        errors: Errors::None,
        pause: AtMost(1500),
        ..ROW
    },
];

impl Fault {
    /// Whether it makes another node master.
    pub(crate) fn deposes(self) -> bool {
        !matches!(self, MostSentinels | AllSentinels | Replica | Replicas | StopReplicas)
    }

    /// Whether nothing tells the proxy at once: each connection may then have sent a command into the void.
    pub(crate) fn is_silent(self) -> bool {
        matches!(self, Stop | Cut | CutWithProxy | Isolate)
    }
}

impl Figure {
    /// Whether a short run asserts it; what is measured in milliseconds depends on the machine.
    pub(crate) fn is_asserted(self) -> bool {
        matches!(self, Figure::Lost | Figure::Dual | Figure::Errors)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Figure::Lost => "lost",
            Figure::Dual => "dual",
            Figure::Errors => "errors",
            Figure::Pause => "pause",
            Figure::Ready => "ready",
        })
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Errors::None => "none",
            Errors::InFlight => "in flight",
            Errors::InFlightThenDown => "in flight, -MASTERDOWN",
        })
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pause::AfterPromotion(ms) => write!(f, "T + {ms}"),
            Pause::AtMost(ms) => write!(f, "{ms}"),
            Pause::UntilHealed => f.write_str("until healed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
    }
}
