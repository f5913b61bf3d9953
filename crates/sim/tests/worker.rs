//! The data plane in simulated worlds, from seeds.
//!
//! `PMAN_SEED=7 cargo test -p pointsman-sim --test worker -- --nocapture` replays one seed with a trace;
//! `PMAN_SEEDS=5000` runs so many (from `PMAN_SEED` on, if that is given too) instead of the usual number.
use pointsman_sim::worker_world::{Kind, Report, run};

/// Always the same ones, so that what a run meets depends on the code and not on the machine.
const SEEDS: u64 = 1000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn worlds(kind: Kind, test: &str) -> Report {
    let mut all = Report::default();
    let one = number("PMAN_SEED");
    let seeds = number("PMAN_SEEDS").unwrap_or(if one.is_some() { 1 } else { SEEDS });
    let first = one.unwrap_or(0);
    all.counts.insert("seeds", seeds);
    for seed in first..first + seeds {
        match run(seed, kind, seeds == 1) {
            Ok(report) => all.add(&report),
            Err(broken) => {
                for line in &broken.trace {
                    println!("{line}");
                }
                panic!(
                    "seed {seed}: {}\nreplay: PMAN_SEED={seed} cargo test -p pointsman-sim --test worker {test} -- --nocapture",
                    broken.what
                );
            }
        }
    }
    println!("{test}: {:?}", all.counts);
    all
}

/// What a run that proves something meets: often, that is in one of twenty worlds, and at all.
fn met(report: &Report, often: &[&str], at_all: &[&str]) {
    let seeds = report.counts["seeds"];
    if seeds < SEEDS {
        return;
    }
    let count = |name: &str| *report.counts.get(name).unwrap_or(&0);
    for name in often {
        assert!(count(name) >= seeds / 20, "{name}: only {} in {seeds} worlds", count(name));
    }
    for name in at_all {
        assert!(count(name) > 0, "{name}: never in {seeds} worlds");
    }
}

#[test]
fn without_faults_the_worker_answers_as_the_server_does() {
    let report = worlds(Kind::Calm, "without_faults");
    met(
        &report,
        &[
            "clients that move",
            "clients that turn them on again",
            "commands answered",
            "executed",
            "executed in transactions",
            "held",
            "reads held back",
            "reads in place",
            "requests that stream",
            "turns with a full ring",
            "turns with all in flight",
            "writes in part to clients",
            "writes in part to servers",
        ],
        &["malformed", "refused"],
    );
}

#[test]
fn under_faults_the_worker_keeps_its_invariants() {
    let report = worlds(Kind::Faults, "under_faults");
    met(
        &report,
        &[
            "clients that half-close",
            "clients that leave in the middle",
            "clients lost",
            "clients that turn replies off",
            "clients that are to move",
            "clients that move",
            "commands answered",
            "connections lost",
            "connections refused",
            "connections that are never made",
            "connections that break",
            "connections that stall",
            "connections with garbage",
            "durable writes acknowledged",
            "crashes with a switch",
            "demotions that nobody knows of",
            "denied before they authenticate",
            "executed in transactions",
            "held",
            "holds without a switch",
            "leases",
            "masterdown",
            "masters that cannot be reached",
            "masters that load",
            "masters that stop",
            "messages for patterns",
            "masters whose writes are paused",
            "not durable",
            "no master",
            "reads held back",
            "reads in place",
            "refusals",
            "replicas that fall behind",
            "requests that stream",
            "reads by replicas",
            "resent",
            "restarts of the master",
            "signs",
            "subscribers interrupted",
            "waits",
            "withheld at a sign",
            "switches, demoted first",
            "switches, demoted later",
            "told not executed",
            "told uncertain",
            "turns with a full ring",
            "turns with all in flight",
            "turns with all pinned",
            "turns with bytes withheld",
            "uncertain",
            "writes in part to clients",
            "writes in part to servers",
        ],
        &[
            "clients closed by the proxy",
            "clients stuck that half-close",
            "clients stuck that leave",
            "clients that hang up and are not read",
            "connections that are read on",
            "connections told that their clients say no more",
            "cut",
            "executed again",
            "malformed",
            "overrun",
            "scripts shown again",
            "subscribers that stay",
            "refused",
        ],
    );
}
