//! Grants that begin with a proof of promotion, with real servers and Sentinels: what a switch costs the clients.
//! `cargo test -p pointsman --test e2e promotion -- --nocapture` prints the pauses.
use crate::scene::load::{Load, Tally};
use crate::scene::{DEADLINE, Proxy, eventually};
use pointsman::sandbox::deployment::{Deployment, Options};
use std::time::{Duration, Instant};

const WRITERS: usize = 8;
const READERS: usize = 3;
/// A majority of the Sentinels names a new master no earlier than this after `SENTINEL FAILOVER` (facts of Redis 7.0:
/// the leader asks the node for its role each second); a shorter pause can only come from a proof of promotion.
const MAJORITY_AT: Duration = Duration::from_millis(900);

/// What one switch was like: the clients' tally, and how long after its cause a node said that it was promoted.
struct Switch {
    tally: Tally,
    promoted: Duration,
    new: usize,
    proxy: Proxy,
    /// Keeps the servers alive.
    _deployment: Deployment,
}

fn switch(service: &str, cause: impl FnOnce(&Deployment)) -> Switch {
    let deployment = Deployment::start(Options::default()).unwrap();
    let proxy = Proxy::before_sentinels(&deployment, service);
    proxy.wait_master(&deployment.nodes[0]);
    let load = Load::start(proxy.listen, WRITERS, READERS);
    let begun = Instant::now();
    cause(&deployment);
    let promoted_at = || {
        let role = |n: usize| deployment.nodes[n].info("replication", "role").unwrap_or_default();
        (1..deployment.nodes.len()).find(|n| role(*n) == "master")
    };
    let mut new = None;
    eventually("a node is promoted", || {
        new = promoted_at();
        new.is_some()
    });
    let (promoted, new) = (begun.elapsed(), new.unwrap());
    proxy.wait_master(&deployment.nodes[new]);
    deployment.wait_master(Some(0), DEADLINE).unwrap();
    load.progress();
    let tally = load.finish(&deployment.nodes[new]);
    Switch { tally, promoted, new, proxy, _deployment: deployment }
}

fn ordered(deployment: &Deployment) {
    eventually("a Sentinel begins a failover", || deployment.sentinel_failover().is_ok());
}

fn killed(deployment: &Deployment) {
    deployment.nodes[0].kill9();
}

impl Switch {
    fn told(&self, kind: &str, words: &str) -> bool {
        self.proxy.events().iter().any(|(k, text)| k == kind && text.contains(words))
    }

    /// A new term, begun by a promotion and confirmed by a majority.
    fn assert_provisional(&self, how: &str) {
        assert!(self.told("grant", "provisionally, until a majority names it"), "{:?}", self.proxy.events());
        assert!(self.told("grant", how), "{:?}", self.proxy.events());
        eventually("a majority confirms it", || self.told("note", "no longer provisional"));
        // Sentinels can elect twice in a row.
        let (term, grants) = (self.proxy.term(), self.proxy.count_events("grant"));
        assert!(term >= 2 && grants as u64 == term, "{:?}", self.proxy.events());
        let words = "majority names it";
        let why = self.proxy.service("cache")["why"].to_string();
        assert!(!why.contains(words), "{why}");
    }

    fn print(&self, what: &str) {
        let (t, new) = (&self.tally, self.new);
        println!(
            "{what}: node {new} promoted after {} ms; longest pause {} ms; {} writes, {} uncertain, {} lost, {} errors",
            self.promoted.as_millis(),
            t.longest.as_millis(),
            t.writes,
            t.uncertain,
            t.lost,
            t.errors.len()
        );
    }
}

#[test]
fn an_ordered_switch_is_followed_as_soon_as_the_successor_was_promoted() {
    let s = switch("", ordered);
    s.print("SENTINEL FAILOVER, trust = promotion");
    s.tally.assert_perfect();
    s.assert_provisional("ordered to fail over");
}

#[test]
fn a_killed_master_is_followed_as_soon_as_its_successor_was_promoted() {
    let s = switch("", killed);
    s.print("kill -9, trust = promotion");
    s.tally.assert_sound();
    // What a dying master acknowledges before its replicas have it is lost on a direct connection too.
    assert!(s.tally.uncertain <= WRITERS as u64 && s.tally.lost <= WRITERS as u64, "{:?}", s.tally);
    s.assert_provisional("elected for epoch");
}

#[test]
fn with_trust_in_majorities_only_nothing_is_granted_before_one_names_the_node() {
    let s = switch("trust = \"majority\"", ordered);
    s.print("SENTINEL FAILOVER, trust = majority");
    s.tally.assert_perfect();
    assert!(!s.told("grant", "provisionally"));
    assert!(s.tally.longest >= MAJORITY_AT - Duration::from_millis(100), "{:?}", s.tally.longest);
}
