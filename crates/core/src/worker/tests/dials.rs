//! How many connections to a master are made at once.
use super::super::dials::DIALS_MAX;
use super::rig::*;
use super::*;

const MOST: usize = DIALS_MAX as usize;

/// So many clients each want a connection of their own.
fn watchers(r: &mut Rig, n: usize) -> Vec<ClientId> {
    let clients: Vec<ClientId> = (0..n).map(|_| r.client()).collect();
    clients.iter().for_each(|c| r.says(*c, "WATCH k|"));
    clients
}

#[test]
fn each_connection_that_is_made_lets_the_next_one_be_made() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let clients = watchers(&mut r, MOST + 3);
    assert_eq!(r.opened.len(), MOST);
    for n in 0..clients.len() {
        let up = r.opened[n];
        r.set_up(up, MASTER);
        assert_eq!(r.opened.len(), (MOST + n + 1).min(clients.len()));
        assert_eq!(r.asked(up), requests("WATCH k"));
        r.answers(up, "+OK|");
    }
    assert!(clients.iter().all(|c| r.hears(*c) == "+OK|"));
}

#[test]
fn one_that_breaks_and_one_whose_client_is_gone_make_room_too() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let clients = watchers(&mut r, MOST + 3);
    // The last one waits, and never is asked for.
    r.w.gone(r.now, Dst::Client(clients[MOST + 2]));
    r.effects();
    assert_eq!(r.opened.len(), MOST);
    let broken = r.opened[0];
    r.loses(broken);
    r.w.gone(r.now, Dst::Client(clients[1]));
    r.effects();
    assert_eq!(r.opened.len(), MOST + 2);
    let last = r.opened[MOST + 1];
    r.set_up(last, MASTER);
    assert_eq!(r.opened.len(), MOST + 2, "nobody waits any more");
}

#[test]
fn none_is_made_to_a_master_that_is_none_any_more() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let clients = watchers(&mut r, MOST + 3);
    let before = r.opened.len();
    r.switch_to("n");
    assert_eq!(r.opened.len(), before + MOST, "all that are made now are to the new one");
    for n in before..before + clients.len() {
        let up = r.opened[n];
        r.set_up(up, MASTER);
        r.asked(up);
        r.answers(up, "+OK|");
    }
    assert!(clients.iter().all(|c| r.hears(*c) == "+OK|"));
}

#[test]
fn where_nothing_answers_nobody_waits_for_long_and_no_more_are_tried_at_once() {
    let mut r = Rig::new(|p| p.connect_timeout = Duration::from_millis(100));
    r.grant();
    watchers(&mut r, MOST + 3);
    r.pass(99);
    assert_eq!((r.w.upstreams(), r.opened.len()), (MOST + 3, MOST));
    r.pass(1);
    assert_eq!(r.w.upstreams(), 0, "those that waited are given up with the others");
    let tried = r.opened.len();
    r.pass(50);
    r.prove();
    r.pass(1);
    assert_eq!((r.w.upstreams(), r.opened.len()), (MOST + 3, tried + MOST));
}
