//! A master that runs a script: it answers nothing, then nothing but `-BUSY`.
use super::*;

const LATE: Duration = Duration::from_millis(1500);

fn busy(run: &str) -> Seen {
    Seen::Busy(run.into())
}

/// The Sentinels of [`calm`], and its replica, go on; the master answers nothing.
fn others(b: &mut Bench) {
    b.all_name(11, 5);
    b.node(12, replica("r12", 11, "A"));
}

/// A master that was silent for long enough.
fn silent() -> Bench {
    let mut b = calm();
    b.pass_with(LATE, others);
    assert!(!b.view().writes.is_open() && b.view().why.contains("does not answer"), "{}", b.view().why);
    b.node(11, Seen::Gone(Gone::Timeout));
    b
}

#[test]
fn a_grant_is_kept_while_its_process_runs_a_script() {
    let mut b = silent();
    assert!(!b.view().busy);
    let before = b.view().proven_at;
    b.pass_with(LATE, |b| {
        others(b);
        b.node(11, busy("r11"));
    });
    assert!(b.serves(11) && b.view().busy, "{}", b.view().why);
    assert!(b.view().proven_at > before, "workers that hold for a sign are released");
    assert_eq!((b.view().term, b.stories(EventKind::Fence).len()), (Term(1), 0));
    let told = b.stories(EventKind::Release);
    assert!(told.last().is_some_and(|t| t.contains("runs a script, and is master still")), "{told:?}");
    // It reports again, as on a connection that was made meanwhile.
    b.node(11, Seen::Connected(at(11).literal().unwrap()));
    b.pass_with(LATE, ready);
    assert!(b.serves(11) && !b.view().busy, "{}", b.view().why);
    assert_eq!((b.view().term, b.stories(EventKind::Hold).len()), (Term(1), 1));
}

#[test]
fn what_was_asked_before_the_last_doubt_releases_nothing() {
    let mut b = silent();
    others(&mut b);
    // The question had waited for the whole silence.
    let sent = b.now - LATE / 2;
    b.acts.clear();
    b.t.observe(b.now, Observation { from: Target::node(at(11)), sent, seen: busy("r11") });
    b.drain();
    assert!(!b.view().writes.is_open(), "{}", b.view().why);
    assert!(b.asked(&Target::node(at(11))), "it is asked once more");
    b.pass_with(100 * MS, |b| {
        others(b);
        b.node(11, busy("r11"));
    });
    assert!(b.serves(11), "{}", b.view().why);
}

#[test]
fn no_grant_begins_with_a_script_nor_is_another_process_taken_for_the_granted_one() {
    let mut b = Bench::new(settings(sentinels(3)));
    b.sentinel(1, Seen::Replicas(Vec::new()));
    b.pass_with(LATE, |b| {
        b.all_name(11, 5);
        b.node(11, busy("r11"));
    });
    assert_eq!((b.view().master, b.view().busy), (None, false));

    let mut b = silent();
    b.pass_with(LATE, |b| {
        others(b);
        b.node(11, busy("another"));
    });
    assert!(!b.view().writes.is_open() && !b.view().busy, "{}", b.view().why);
}

#[test]
fn a_script_is_no_excuse_for_what_comes_after_it() {
    let runs = |b: &mut Bench| {
        others(b);
        b.node(11, busy("r11"));
    };
    let running = || {
        let mut b = silent();
        b.pass_with(LATE, runs);
        assert!(b.serves(11), "{}", b.view().why);
        b
    };
    let mut b = running();
    b.node(11, Seen::Gone(Gone::Refused));
    assert!(!b.view().writes.is_open(), "its process has ended: {}", b.view().why);
    let mut b = running();
    b.pass_with(LATE, others);
    assert!(!b.view().writes.is_open(), "nothing was heard since: {}", b.view().why);
    let mut b = running();
    b.node(11, replica("r11", 12, "A"));
    assert_eq!(b.view().master, None, "it was demoted");
    let mut b = running();
    b.node(11, master("new", lineage("N", None)));
    assert!(b.stories(EventKind::Fence).iter().any(|t| t.contains("was restarted")), "{}", b.view().why);
    let mut b = running();
    b.pass_with(LATE, |b| {
        (1..=3).for_each(|s| b.names(s, 12, 6));
        b.node(11, busy("r11"));
        b.node(12, master("r12", lineage("B", Some("A"))));
    });
    assert!(b.serves(12), "another was promoted: {}", b.view().why);
}

#[test]
fn writes_end_with_the_lease_also_while_a_script_runs() {
    let mut b = silent();
    b.pass_with(LATE, |b| {
        (1..=3).for_each(|s| {
            let view = View { pong_age: 900 * MS, ping_age: 900 * MS, ..seen_view(11) };
            b.sentinel(s, Seen::View(view));
        });
        b.node(12, replica("r12", 11, "A"));
        b.node(11, busy("r11"));
    });
    let left = b.view().writes_until.expect("there is a lease").since(b.now);
    // What a Sentinel needs to vote unseen; nothing is left of its clock.
    assert!(left <= 300 * MS, "{left:?}");
}

#[test]
fn by_roles_the_master_that_runs_a_script_is_one_of_those_that_say_master() {
    let nodes = |b: &mut Bench| {
        b.node(12, replica("r12", 11, "A"));
        b.node(13, replica("r13", 11, "A"));
    };
    let mut b =
        Bench::new(settings(Source::Roles { nodes: (11..14).map(at).collect(), start_wait: 3000 * MS }));
    b.pass_with(LATE, |b| {
        nodes(b);
        b.node(11, master("r11", lineage("A", None)));
    });
    assert!(b.serves(11), "{}", b.view().why);
    b.pass_with(LATE, nodes);
    assert!(!b.view().writes.is_open());
    b.pass_with(LATE, |b| {
        nodes(b);
        b.node(11, busy("r11"));
    });
    assert!(b.serves(11), "{}", b.view().why);
    // A node that is no successor does not take its place.
    b.pass_with(LATE, |b| {
        nodes(b);
        b.node(11, busy("r11"));
        b.node(13, master("r13", lineage("X", None)));
    });
    assert!(!b.view().writes.is_open() && b.view().why.contains("none is proven"), "{}", b.view().why);
    assert_eq!(b.view().term, Term(1));
}
