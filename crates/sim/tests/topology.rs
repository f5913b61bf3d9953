//! The topology machine under seeded random Sentinels, nodes, partitions, clock jumps, restarts and lies.
//! `PMAN_SEED=n cargo test -p pointsman-sim` replays one seed and prints its story; `PMAN_SEEDS=n` runs more.
use pointsman_sim::topology::blindfold::Blindfold;
use pointsman_sim::topology::drive::{Outcome, run, run_dark};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().expect("a number"))
}

fn describe(seed: u64, o: &Outcome) -> String {
    let tail: Vec<&str> = o.log.iter().rev().take(60).rev().map(String::as_str).collect();
    format!("PMAN_SEED={seed}: {}\n{}", o.failure.as_deref().unwrap_or("no failure"), tail.join("\n"))
}

#[test]
fn whatever_fails_there_is_one_master_and_the_right_one_is_found_again() {
    if let Some(seed) = number("PMAN_SEED") {
        let o = run(seed, Blindfold::None);
        println!("{}", describe(seed, &o));
        assert!(o.failure.is_none());
        return;
    }
    let seeds = number("PMAN_SEEDS").unwrap_or(2000);
    let (mut grants, mut releases, mut promotions, mut confirmed, mut stories) = (0, 0, 0, 0, 0);
    let mut demotions = 0;
    for seed in 0..seeds {
        let o = run(seed, Blindfold::None);
        assert!(o.failure.is_none(), "{}", describe(seed, &o));
        grants += o.grants;
        releases += o.releases;
        stories += o.stories;
        promotions += o.promotions;
        confirmed += o.confirmed;
        demotions += o.demotions;
    }
    println!(
        "{seeds} seeds, {grants} grants, {promotions} by promotion, {confirmed} confirmed, {releases} releases, {stories} stories"
    );
    assert!(2 * grants > 3 * seeds && 2 * releases > seeds, "the simulation must be eventful");
    assert!(stories > 2 * seeds, "what happens must be told");
    assert!(4 * promotions > seeds && 2 * confirmed > promotions, "there must be promotions");
    assert!(20 * demotions > seeds, "there must be deposed masters that are told: {demotions}");
    assert!(10 * (promotions - confirmed) > promotions, "some must come to nothing");
}

#[test]
fn no_write_goes_to_a_master_that_was_deposed_out_of_our_sight_and_the_dead_stop_nothing() {
    if let Some(seed) = number("PMAN_SEED") {
        let o = run_dark(seed, Blindfold::None);
        println!("{}", describe(seed, &o));
        assert!(o.failure.is_none());
        return;
    }
    let seeds = number("PMAN_SEEDS").unwrap_or(1000);
    let (mut grants, mut releases) = (0, 0);
    for seed in 0..seeds {
        let o = run_dark(seed, Blindfold::None);
        assert!(o.failure.is_none(), "{}", describe(seed, &o));
        grants += o.grants;
        releases += o.releases;
    }
    println!("{seeds} dark seeds, {grants} grants, {releases} releases");
    assert!(4 * grants > 5 * seeds && releases > seeds, "the simulation must be eventful");
    for blindfold in [Blindfold::Leases, Blindfold::Refusals] {
        let caught = (0..seeds).find(|seed| run_dark(*seed, blindfold).failure.is_some());
        let caught = caught.unwrap_or_else(|| panic!("{blindfold:?} was not caught"));
        println!("{blindfold:?} is caught by seed {caught}: {:?}", run_dark(caught, blindfold).failure);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (a, b) = (run(7, Blindfold::None), run(7, Blindfold::None));
    assert_eq!(a.log, b.log);
}

#[test]
fn a_product_without_one_of_its_rules_is_caught() {
    for blindfold in [
        Blindfold::Epochs,
        Blindfold::Roles,
        Blindfold::Majority,
        Blindfold::Stages,
        Blindfold::RunIds,
        Blindfold::Lineage,
        Blindfold::Votes,
        Blindfold::Leaders,
        Blindfold::Silence,
        Blindfold::Acknowledgements,
        Blindfold::Pongs,
    ] {
        let caught = (0..2000).find(|seed| run(*seed, blindfold).failure.is_some());
        assert!(caught.is_some(), "{blindfold:?} was not caught");
        println!(
            "{blindfold:?} is caught by seed {caught:?}: {:?}",
            run(caught.unwrap_or(0), blindfold).failure
        );
    }
}
