//! The data plane in simulated worlds, from seeds.
//!
//! `PMAN_SEED=7 cargo test -p pointsman-sim --test worker -- --nocapture` replays one seed with a trace;
//! `PMAN_SEEDS=5000` runs so many (from `PMAN_SEED` on, if that is given too) instead of as many as fit into the usual
//! time.
use pointsman_sim::worker_world::{Kind, Report, run};
use std::time::{Duration, Instant};

/// Each test takes about so long, on whatever machine.
const TIME: Duration = Duration::from_secs(7);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn worlds(kind: Kind, test: &str) -> Report {
    let mut all = Report::default();
    let one = number("PMAN_SEED");
    let most = number("PMAN_SEEDS");
    let began = Instant::now();
    let first = one.unwrap_or(0);
    for seed in first.. {
        let enough = match (one, most) {
            (_, Some(n)) => seed - first >= n,
            (Some(_), None) => seed > first,
            (None, None) => began.elapsed() > TIME,
        };
        if enough {
            all.counts.insert("seeds", seed - first);
            break;
        }
        match run(seed, kind, one.is_some() && most.is_none()) {
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

#[test]
fn without_faults_the_worker_answers_as_the_server_does() {
    let report = worlds(Kind::Calm, "without_faults");
    assert!(report.counts["commands answered"] > 0);
}

#[test]
fn under_faults_the_worker_keeps_its_invariants() {
    let report = worlds(Kind::Faults, "under_faults");
    assert!(report.counts["commands answered"] > 0);
}
