//! Clients that go from one worker to another.
use super::*;
use crate::spread::Who;

const GET: &str = "*2|$3|GET|$1|k|";

/// Two workers that serve the same master.
fn two(change: fn(&mut Policy)) -> (Rig, Rig) {
    let (mut a, mut b) = (Rig::new(change), Rig::new(change));
    a.grant();
    b.grant();
    (a, b)
}

/// All that can go, go.
fn moved(a: &mut Rig, b: &mut Rig) -> Vec<ClientId> {
    a.w.send_off(a.now, Who::All);
    arrived(a, b)
}

fn arrived(a: &mut Rig, b: &mut Rig) -> Vec<ClientId> {
    let leavers = a.w.leavers(a.now);
    a.effects();
    let ids = leavers.into_iter().map(|(_, m)| b.w.adopt(b.now, m).ok().expect("it is taken in")).collect();
    b.effects();
    ids
}

/// The newest connection is set up, for database 3.
fn in_db_3(r: &mut Rig) -> UpId {
    let up = *r.opened.last().expect("one was opened");
    assert_eq!(r.asked(up), "*2|$6|SELECT|$1|3|*1|$4|ROLE|");
    r.answers(up, "+OK|*1|$6|master|");
    up
}

fn now_and_moved(r: &Rig) -> (u64, u64, u64) {
    let c = &r.w.counters()[0].1;
    (c.clients_now, c.clients_accepted, c.clients_moved)
}

#[test]
fn a_client_takes_its_session_its_half_request_and_its_unread_replies_along() {
    let (mut a, mut b) = two(|_| {});
    let c = a.client();
    a.says(c, "SELECT 3|");
    let probe = a.up();
    a.asked(probe);
    a.answers(probe, "+OK|");
    a.hears(c);
    a.says(c, "GET k|");
    let up = in_db_3(&mut a);
    assert_eq!(a.asked(up), GET);
    a.answers(up, "$1|v|");
    a.says(c, "*2|$3|GET|$1");
    let ids = moved(&mut a, &mut b);
    assert_eq!((now_and_moved(&a), now_and_moved(&b)), ((0, 1, 0), (1, 0, 1)));
    assert_eq!(b.w.next_dirty(Side::Clients), Some(Dst::Client(ids[0])));
    assert_eq!(b.hears(ids[0]), "$1|v|");
    b.says(ids[0], "|k|CLIENT ID|");
    let up = in_db_3(&mut b);
    assert_eq!(b.asked(up), format!("{GET}*2|$6|CLIENT|$2|ID|"));
    b.answers(up, "$1|w|:77|");
    assert_eq!(b.hears(ids[0]), "$1|w|:1|");
}

#[test]
fn who_is_owed_something_is_not_read_and_goes_when_it_has_it() {
    let (mut a, mut b) = two(|_| {});
    let c = a.client();
    a.says(c, "GET k|");
    let up = a.up();
    a.asked(up);
    assert!(a.w.reads(Dst::Client(c)));
    assert_eq!((moved(&mut a, &mut b), a.w.reads(Dst::Client(c))), (Vec::new(), false));
    a.answers(up, "$1|v|");
    let ids = arrived(&mut a, &mut b);
    assert_eq!(b.hears(ids[0]), "$1|v|");
    assert!(b.w.reads(Dst::Client(ids[0])) && !a.w.has_leavers());
}

#[test]
fn who_is_owed_something_for_long_stays_and_is_read_again() {
    let (mut a, mut b) = two(|_| {});
    let c = a.client();
    a.says(c, "GET k|");
    let up = a.up();
    a.asked(up);
    assert!(moved(&mut a, &mut b).is_empty() && !a.w.reads(Dst::Client(c)));
    a.now = a.now + Duration::from_millis(250);
    assert!(a.w.next_timeout(a.now).is_some_and(|t| t <= a.now), "it is looked at again");
    a.w.timeout_if_due(a.now);
    assert_eq!(a.w.poll(), Some(Effect::Resume(Dst::Client(c))));
    a.answers(up, "$1|v|");
    assert!(arrived(&mut a, &mut b).is_empty() && a.w.reads(Dst::Client(c)));
    assert_eq!((a.hears(c), now_and_moved(&a)), ("$1|v|".into(), (1, 1, 0)));
}

#[test]
fn whose_state_demands_a_connection_or_who_waits_at_a_gate_stays() {
    let (mut a, mut b) = two(|_| {});
    let talk = [
        ("MULTI|", "+OK|"),
        ("WATCH k|", "+OK|"),
        ("SUBSCRIBE ch|", "*3|$9|subscribe|$2|ch|:1|"),
        ("BLPOP k 0|", ""),
        ("MONITOR|", "+OK|"),
        ("*3|$3|SET|$1|k|$9999999|xx", ""),
    ];
    for (words, answer) in talk {
        let c = a.client();
        a.says(c, words);
        let up = a.up();
        a.asked(up);
        a.answers(up, answer);
        assert_eq!(moved(&mut a, &mut b), [], "{words}");
        assert!(!a.w.has_leavers(), "{words}: it is not waited for");
    }
    a.view.writes = Gate::Hold { since: a.now, until: a.now + Duration::from_secs(1) };
    a.publish();
    let held = a.client();
    a.says(held, "SET k v|");
    assert_eq!((moved(&mut a, &mut b), now_and_moved(&b)), (Vec::new(), (0, 0, 0)));
    assert!(!a.w.has_leavers());
}

#[test]
fn whoever_knows_less_does_not_take_a_client_in_yet() {
    let (mut a, mut b) = two(|_| {});
    a.client();
    a.grant();
    a.w.send_off(a.now, Who::All);
    let (_, migrant) = a.w.leavers(a.now).pop().expect("it leaves");
    let Err(NotAdopted::NotYet(migrant)) = b.w.adopt(b.now, migrant) else { panic!("it is too early") };
    assert_eq!(b.w.clients(), 0);
    b.grant();
    assert!(b.w.adopt(b.now, migrant).is_ok());
}

#[test]
fn who_is_refused_for_the_limit_is_taken_back() {
    let (mut a, mut b) = two(|p| p.clients_max = 1);
    a.client();
    b.client();
    a.w.send_off(a.now, Who::All);
    let (_, migrant) = a.w.leavers(a.now).pop().expect("it leaves");
    let Err(NotAdopted::Full(migrant)) = b.w.adopt(b.now, migrant) else { panic!("it has enough") };
    let other = a.client();
    let back = a.w.readopt(a.now, migrant);
    a.effects();
    assert!(a.w.reads(Dst::Client(back)) && a.w.reads(Dst::Client(other)));
    assert_eq!((now_and_moved(&a), now_and_moved(&b)), ((2, 2, 0), (1, 1, 0)));
}

#[test]
fn a_client_whose_service_was_drained_meanwhile_is_closed_in_its_new_place() {
    let (mut a, mut b) = two(|_| {});
    a.client();
    let whole = a.client();
    a.says(whole, "GET");
    b.w.drain(b.now, SERVICE);
    let ids = moved(&mut a, &mut b);
    assert_eq!(b.closed, [Dst::Client(ids[0])]);
    b.says(ids[1], " k|");
    let up = b.up();
    b.asked(up);
    b.answers(up, "$1|v|");
    assert_eq!(b.hears(ids[1]), "$1|v|");
    assert_eq!(b.closed[1..], [Dst::Client(ids[1])]);
}

#[test]
fn who_was_moved_stays_for_a_while_and_the_silent_do_not_count_as_a_load() {
    let (mut a, mut b) = two(|_| {});
    let ids: Vec<ClientId> = (0..8).map(|_| a.client()).collect();
    a.pass(600);
    for id in &ids[..4] {
        a.says(*id, "SHUTDOWN|");
    }
    assert_eq!(a.w.send_off(a.now, Who::Active(500)), 2);
    let moved = arrived(&mut a, &mut b);
    assert_eq!((moved.len(), b.w.send_off(b.now + Duration::from_secs(9), Who::All)), (2, 0));
    assert_eq!(b.w.send_off(b.now + Duration::from_secs(10), Who::All), 2);
}

#[test]
fn what_the_old_worker_was_still_to_do_for_a_client_is_nothing() {
    let (mut a, mut b) = two(|_| {});
    let c = a.client();
    a.says(c, "SHUTDOWN|");
    assert_eq!(moved(&mut a, &mut b).len(), 1);
    assert_eq!((a.w.next_dirty(Side::Clients), a.hears(c)), (None, String::new()));
    a.says(c, "GET k|");
    a.w.gone(a.now, Dst::Client(c));
    assert_eq!(now_and_moved(&a), (0, 1, 0));
}
