//! The whole product in simulated histories, from seeds.
//!
//! `PMAN_SEED=7 cargo test -p pointsman-sim --test whole -- --nocapture` replays one seed with its story;
//! `PMAN_BLINDFOLD=Lease` with it replays how a product without that rule is caught. `PMAN_SEEDS=100000` runs so many
//! (from `PMAN_SEED` on, if that is given too).
use pointsman_sim::whole::{Blindfold, Report, run};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SEEDS: u64 = 10_000;
/// A product without one of its rules is caught in so many histories.
const SEEDS_TO_CATCH: u64 = 2_000;

/// Products without one of their rules.
const BROKEN: [Blindfold; 19] = [
    Blindfold::Withheld,
    Blindfold::Wait,
    Blindfold::Guard,
    Blindfold::Silence,
    Blindfold::Vouched,
    Blindfold::Stages,
    Blindfold::Fence,
    Blindfold::Lease,
    Blindfold::Linger,
    Blindfold::Once,
    Blindfold::Owner,
    Blindfold::Epochs,
    Blindfold::UnpauseFirst,
    Blindfold::Offsets,
    Blindfold::PauseBound,
    Blindfold::Restore,
    Blindfold::LastWords,
    Blindfold::Coordinated,
    Blindfold::CallOff,
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().expect("a number"))
}

/// The histories of `first..end`, on as many threads as there are cores; the first that is broken.
fn histories(first: u64, end: u64) -> Result<Report, (u64, String)> {
    let (next, over) = (AtomicU64::new(first), AtomicBool::new(false));
    let some = || {
        let mut all = Report::default();
        while !over.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            match run(seed, Blindfold::None, false) {
                Ok(report) => all.add(&report),
                Err(broken) if std::env::var("PMAN_ALL").is_ok() => {
                    println!("BROKEN {seed}: {}", broken.what);
                }
                Err(broken) => {
                    over.store(true, Ordering::Relaxed);
                    return Err((seed, broken.what));
                }
            }
        }
        Ok(all)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        let mut all = Report::default();
        for thread in running {
            all.add(&thread.join().expect("a history does not panic")?);
        }
        Ok(all)
    })
}

fn replay(seed: u64) {
    let blindfold = std::env::var("PMAN_BLINDFOLD").unwrap_or_default();
    let blindfold = BROKEN.into_iter().find(|b| format!("{b:?}") == blindfold).unwrap_or(Blindfold::None);
    match run(seed, blindfold, true) {
        Ok(report) => println!("seed {seed} is well: {:?}", report.counts),
        Err(broken) => {
            broken.trace.iter().for_each(|line| println!("{line}"));
            panic!("seed {seed}: {}", broken.what);
        }
    }
}

#[test]
fn whatever_fails_clients_lose_only_what_nobody_could_keep() {
    let (one, most) = (number("PMAN_SEED"), number("PMAN_SEEDS"));
    if let (Some(seed), None) = (one, most) {
        return replay(seed);
    }
    let first = one.unwrap_or(0);
    let all = match histories(first, first + most.unwrap_or(SEEDS)) {
        Ok(all) => all,
        Err((seed, what)) => panic!(
            "seed {seed}: {what}\nreplay: PMAN_SEED={seed} cargo test -p pointsman-sim --test whole -- --nocapture"
        ),
    };
    for (name, n) in &all.counts {
        println!("{name}: {n}");
    }
    if all.of("seeds") >= SEEDS {
        eventful(&all);
    }
}

/// What a run that proves something meets.
fn eventful(all: &Report) {
    let seeds = all.of("seeds");
    for (name, least) in [
        ("acknowledged", 20 * seeds),
        ("switch", seeds / 5),
        ("kept by a script", seeds / 500),
        ("hold", seeds / 2),
        ("uncertain", seeds / 20),
        ("lost", 1),
        ("dual", 1),
        ("force: histories", seeds / 50),
        ("aside: histories", seeds / 50),
        ("deposed masters told whom to follow", seeds / 20),
        ("not durable", 1),
        // What the guard did not notice at once, and what Sentinels vouched for meanwhile.
        ("excused: not noticed yet", seeds / 100),
        ("excused: vouched for", seeds / 500),
        ("switchover: histories", seeds / 10),
        ("switchovers done", seeds / 10),
        ("switchovers given up", seeds / 100),
        ("switchovers coordinated", seeds / 50),
        ("masters that handed over", seeds / 30),
        ("switchovers refused", 1),
        ("priorities left behind", 1),
        ("direct: acknowledged", 10 * seeds),
        ("pause: histories", seeds / 100),
    ] {
        assert!(all.of(name) >= least, "{name}: only {} in {seeds} histories", all.of(name));
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 0..20 {
        let report = || run(seed, Blindfold::None, false).map(|r| r.counts).map_err(|b| b.what);
        assert_eq!(report(), report(), "seed {seed}");
    }
}

#[test]
fn a_product_without_one_of_its_rules_is_caught() {
    if number("PMAN_SEED").is_some() {
        return;
    }
    for blindfold in BROKEN {
        let caught = (0..SEEDS_TO_CATCH).find_map(|seed| {
            let broken = run(seed, blindfold, false).err()?;
            Some((seed, broken.what))
        });
        match &caught {
            Some((seed, what)) => println!("{blindfold:?} is caught by seed {seed}: {what}"),
            None => println!("MISSED {blindfold:?}"),
        }
        assert!(caught.is_some() || std::env::var("PMAN_ALL").is_ok(), "{blindfold:?} was not caught");
    }
}
