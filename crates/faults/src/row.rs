//! The rows: what is broken, and what the product aims at.
use clap::ValueEnum;
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

/// What protects the writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Protection {
    /// What Pointsman does unless told otherwise: the guard
    Default,
    /// guard = false
    NoGuard,
    /// durable = 1: a write is acknowledged when a replica has it
    Durable,
}

/// How many acknowledged writes may be lost. Of dual writes there may never be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    None,
    /// Those of 0.3 s, and of a stall of the machine: until the guard notices.
    UntilNoticed,
    /// Those until the successor was promoted.
    UntilPromotion,
}

/// Which errors clients may see, by the first word of the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errors {
    /// These for writes that were in flight.
    pub(crate) in_flight: &'static [&'static str],
    /// These for any command.
    pub(crate) any: &'static [&'static str],
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
    /// How many proxies there are from the beginning, each with a load of its own.
    pub(crate) proxies: u64,
    /// Whether there is also a load that knows nothing but the first master's own address.
    pub(crate) direct: bool,
    pub(crate) lost: Lost,
    pub(crate) errors: Errors,
    pub(crate) pause: Pause,
}

/// What a round must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Targets {
    pub(crate) lost: Lost,
    /// Whether what was acknowledged to direct clients may not be lost either.
    pub(crate) direct_is_safe: bool,
    pub(crate) errors: Errors,
    pub(crate) pause_of_writes: Pause,
    pub(crate) pause_of_reads: Pause,
}

/// How many writes a second a load makes, and what 0.3 s of them are.
pub(crate) const WRITES_PER_S: u64 = 290;
pub(crate) const GUARD_LOST_MAX: u64 = 3 * WRITES_PER_S / 10;
/// After the proof, for a proxy that was started in the middle.
pub(crate) const READY_MS_MAX: i64 = 300;
/// A pause shorter than this is none: connections have a period of 28 ms, and machines that run tests stall.
const NO_PAUSE_MS: u64 = 100;
/// After a switch the Sentinels take so long, at most, to make another replica follow the new master.
const FOLLOWED_MS_MAX: u64 = 3000;

use Fault::*;
use Meanwhile::{Nothing, Reload, Start};
use Pause::{AfterPromotion, AtMost, UntilHealed};

const NO_ERRORS: Errors = Errors { in_flight: &[], any: &[] };
const IN_FLIGHT: Errors = Errors { in_flight: &["UNCERTAIN"], any: &[] };

const ROW: Row = Row {
    name: "",
    about: "",
    fault: Kill,
    meanwhile: Nothing,
    proxies: 1,
    direct: false,
    lost: Lost::None,
    errors: IN_FLIGHT,
    pause: AfterPromotion(100),
};
/// A partition of which the proxy sees both sides.
const CUT: Row = Row { fault: Cut, lost: Lost::UntilNoticed, pause: AfterPromotion(200), ..ROW };
const FAILOVER: Row = Row { fault: Failover, errors: NO_ERRORS, pause: AtMost(300), ..ROW };
const SWITCHOVER: Row = Row { fault: Switchover, direct: true, ..FAILOVER };

/// All rows, in the order in which they are shown.
pub(crate) const ROWS: &[Row] = &[
    Row { name: "F1", about: "kill -9 of the master", ..ROW },
    Row { name: "F2", about: "SIGSTOP of the master, then SIGCONT", fault: Stop, ..ROW },
    Row { name: "F3", about: "the master's host cut off from the others, the proxy sees both sides", ..CUT },
    Row {
        name: "F3b",
        about: "the same, the proxy on the master's side",
        fault: CutWithProxy,
        errors: Errors { any: &["MASTERDOWN"], ..IN_FLIGHT },
        pause: UntilHealed,
        ..CUT
    },
    Row { name: "F4", about: "SENTINEL FAILOVER", ..FAILOVER },
    Row {
        name: "F4s",
        about: "pointsman switchover, while others write to the master directly",
        ..SWITCHOVER
    },
    Row {
        name: "F5",
        about: "all Sentinels but one killed",
        fault: MostSentinels,
        errors: NO_ERRORS,
        pause: AtMost(NO_PAUSE_MS),
        ..ROW
    },
    Row {
        name: "F7",
        about: "all Sentinels killed",
        fault: AllSentinels,
        errors: NO_ERRORS,
        pause: AtMost(NO_PAUSE_MS),
        ..ROW
    },
    Row { name: "F6", about: "the master's host cut off from everyone", fault: Isolate, ..ROW },
    Row { name: "F8", about: "kill -9, and SENTINEL FAILOVER 1 s after the promotion", fault: Twice, ..ROW },
    Row { name: "F9s-F1", about: "a proxy started in the middle of F1", meanwhile: Start, ..ROW },
    Row { name: "F9s-F3", about: "a proxy started in the middle of F3", meanwhile: Start, ..CUT },
    Row { name: "F9s-F4", about: "a proxy started in the middle of F4", meanwhile: Start, ..FAILOVER },
    Row { name: "F9r-F1", about: "a reload in the middle of F1", meanwhile: Reload, ..ROW },
    Row { name: "F9r-F3", about: "a reload in the middle of F3", meanwhile: Reload, ..CUT },
    Row { name: "F9r-F4", about: "a reload in the middle of F4", meanwhile: Reload, ..FAILOVER },
    Row {
        name: "F10",
        about: "a replica killed",
        fault: Replica,
        errors: NO_ERRORS,
        pause: AtMost(1500),
        ..ROW
    },
    Row {
        name: "F10all",
        about: "all replicas killed",
        fault: Replicas,
        errors: NO_ERRORS,
        pause: AtMost(1500),
        ..ROW
    },
    Row {
        name: "F10stop",
        about: "all replicas SIGSTOPped, then SIGCONT",
        fault: StopReplicas,
        errors: NO_ERRORS,
        pause: AtMost(1500),
        ..ROW
    },
    Row { name: "two-F1", about: "F1 with two proxies and direct clients", proxies: 2, direct: true, ..ROW },
    Row { name: "two-F3", about: "F3 with two proxies and direct clients", proxies: 2, direct: true, ..CUT },
    Row {
        name: "two-F4",
        about: "F4 with two proxies and direct clients",
        proxies: 2,
        direct: true,
        ..FAILOVER
    },
    Row { name: "two-F4s", about: "F4s with two proxies and direct clients", proxies: 2, ..SWITCHOVER },
];

impl Row {
    /// What it aims at with that protection.
    pub(crate) fn targets(&self, with: Protection) -> Targets {
        let targets = Targets {
            lost: self.lost,
            direct_is_safe: self.fault == Switchover,
            errors: self.errors,
            pause_of_writes: self.pause,
            pause_of_reads: self.pause,
        };
        match with {
            Protection::Default => targets,
            Protection::NoGuard if self.lost == Lost::None => targets,
            Protection::NoGuard => Targets { lost: Lost::UntilPromotion, ..targets },
            Protection::Durable => self.durable(targets),
        }
    }

    /// Nothing is lost; but writes wait for a replica that follows, and say so if there is none in time.
    fn durable(&self, targets: Targets) -> Targets {
        let in_flight: &[&str] = match self.fault {
            _ if self.errors != NO_ERRORS => &["UNCERTAIN", "NOTDURABLE"],
            // What waits for replicas when another proxy pauses the master is not answered there any more: a paused master
            // does not ask its replicas.
            Switchover if self.proxies > 1 => &["NOTDURABLE"],
            _ => &[],
        };
        let errors = Errors { in_flight, ..self.errors };
        let targets = Targets { lost: Lost::None, errors, ..targets };
        match self.fault {
            Replicas | StopReplicas => Targets {
                errors: Errors { any: &["NOTDURABLE"], ..errors },
                pause_of_writes: UntilHealed,
                ..targets
            },
            fault if fault.deposes() => {
                Targets { pause_of_writes: self.pause.and(FOLLOWED_MS_MAX), ..targets }
            }
            _ => targets,
        }
    }
}

impl Protection {
    /// Its line in the service's configuration.
    pub(crate) fn line(self) -> Option<String> {
        match self {
            Protection::Default => None,
            Protection::NoGuard => Some("guard = false".into()),
            Protection::Durable => Some("durable = 1".into()),
        }
    }
}

impl Pause {
    fn and(self, ms: u64) -> Self {
        match self {
            AfterPromotion(more) => AfterPromotion(more + ms),
            AtMost(most) => AtMost(most + ms),
            UntilHealed => UntilHealed,
        }
    }
}

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

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protection::Default => "default",
            Protection::NoGuard => "no-guard",
            Protection::Durable => "durable",
        })
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_flight = (!self.in_flight.is_empty()).then(|| "in flight".to_owned());
        let words: Vec<String> =
            in_flight.into_iter().chain(self.any.iter().map(|kind| format!("-{kind}"))).collect();
        f.write_str(if words.is_empty() { "none".into() } else { words.join(", ") }.as_str())
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

    fn targets(name: &str, with: Protection) -> Targets {
        ROWS.iter().find(|row| row.name == name).expect("it is in the table").targets(with)
    }

    #[test]
    fn durable_writes_are_lost_in_no_row() {
        assert!(ROWS.iter().all(|row| row.targets(Protection::Durable).lost == Lost::None));
        assert_eq!(targets("F3", Protection::Default).lost, Lost::UntilNoticed);
        assert_eq!(targets("F3", Protection::NoGuard).lost, Lost::UntilPromotion);
        assert_eq!(targets("F1", Protection::NoGuard).lost, Lost::None);
    }

    #[test]
    fn only_durable_writes_may_be_not_durable() {
        let errors = |name, with| targets(name, with).errors.to_string();
        let kinds = |name, with| targets(name, with).errors.in_flight;
        assert_eq!(kinds("F1", Protection::NoGuard), ["UNCERTAIN"]);
        assert_eq!(kinds("F1", Protection::Durable), ["UNCERTAIN", "NOTDURABLE"]);
        assert_eq!(errors("F3b", Protection::Default), "in flight, -MASTERDOWN");
        assert_eq!(errors("F4", Protection::Durable), "none");
        assert_eq!(errors("F10all", Protection::Durable), "-NOTDURABLE");
    }

    #[test]
    fn durable_writes_wait_for_a_replica_and_reads_do_not() {
        let pauses = |name| {
            let targets = targets(name, Protection::Durable);
            (targets.pause_of_writes, targets.pause_of_reads)
        };
        assert_eq!(pauses("F1"), (AfterPromotion(3100), AfterPromotion(100)));
        assert_eq!(pauses("F10all"), (UntilHealed, AtMost(1500)));
        assert_eq!(pauses("F7"), (AtMost(NO_PAUSE_MS), AtMost(NO_PAUSE_MS)));
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
    }
}
