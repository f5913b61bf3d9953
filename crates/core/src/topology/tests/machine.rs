//! What is published and asked, how often, and what a change of settings keeps.
use super::*;

#[test]
fn calm_polls_publish_nothing_and_the_lag_at_most_once_a_second() {
    let mut b = calm();
    b.pass_with(5000 * MS, ready);
    let renewals = b.acts.iter().filter(|a| matches!(a, Act::Publish(_))).count();
    assert!((5..=12).contains(&renewals), "{renewals}: a lease is renewed when half of it is over");
    assert_eq!(b.news(), 0);
    let mut n = 90;
    let end = b.now + 3000 * MS;
    while b.now < end {
        n -= 1;
        let role = Role::Replica { of: at(11), link_up: true };
        let run_id = Some(Box::from("r12"));
        b.node(
            12,
            Seen::Report(Report {
                role,
                loading: false,
                run_id,
                lineage: lineage("A", None),
                offset: n,
                attached: Vec::new(),
            }),
        );
        ready_but(&mut b, 9);
        b.pass(40 * MS);
    }
    let news = b.news();
    assert!((1..=4 + 6).contains(&news), "{news}: once a second, and with each renewal");
}

#[test]
fn reconfiguring_keeps_the_grant_while_the_way_of_knowing_is_the_same() {
    let mut b = calm();
    b.t.reconfigure(b.now, Settings { hold_reads: false, ..settings(sentinels(2)) });
    b.drain();
    assert!(b.serves(11));
    b.t.reconfigure(b.now, settings(Source::Roles { nodes: Vec::from([at(11)]), start_wait: MS }));
    b.drain();
    assert_eq!(b.view().master, None);
    b.node(11, master("r11", None));
    b.node(11, master("r11", None));
    assert!(b.serves(11) && b.view().term == Term(2));
}

#[test]
fn a_sentinel_that_keeps_changing_its_mind_makes_nobody_spin() {
    let mut b = calm();
    let mut rounds = 0;
    let end = b.now + 100 * MS;
    while b.now < end {
        rounds += 1;
        b.names(3, 11 + rounds % 2, 5 + u64::from(rounds % 2));
        b.node(11, master("r11", lineage("A", None)));
    }
    let asked = b.acts.iter().filter(|a| **a == Act::Ask(Target::node(at(11)))).count();
    assert!((1..=21).contains(&asked), "{asked} questions out of turn in 100 ms");
}
