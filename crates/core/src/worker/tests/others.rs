//! What sessions say of each other.
use super::*;
use crate::spread::Who;

/// Two workers of one process.
fn two() -> [Rig; 2] {
    let mut both = [1, 2].map(|n| Rig::one_of(n, 2, |_| {}));
    both.iter_mut().for_each(Rig::grant);
    both
}

/// Carries what the two have for each other, until they have no more.
fn talk(both: &mut [Rig; 2]) {
    while both.iter().any(|r| !r.asks.is_empty() || !r.finds.is_empty()) {
        for me in [0, 1] {
            let (asks, finds) = (core::mem::take(&mut both[me].asks), core::mem::take(&mut both[me].finds));
            let other = &mut both[1 - me];
            for inquiry in asks {
                other.w.asked(other.now, me, inquiry);
            }
            for (to, finding) in finds {
                assert_eq!(to, 1 - me);
                other.w.told(other.now, finding);
            }
            other.effects();
        }
    }
}

/// A client whose pop waits, and its connection.
fn blocked(r: &mut Rig) -> (ClientId, UpId) {
    let c = r.client();
    r.says(c, "BLPOP l 0|");
    let up = r.up();
    r.asked(up);
    (c, up)
}

fn id(r: &Rig, c: ClientId) -> u64 {
    r.w.clients[c].session.id
}

/// The server's id of a connection.
fn server_id(r: &Rig, up: UpId) -> usize {
    100 + r.opened.iter().position(|o| *o == up).unwrap()
}

/// How a number is said.
fn bulk(n: impl core::fmt::Display) -> String {
    let n = format!("{n}");
    format!("${}|{n}|", n.len())
}

fn unblock(n: impl core::fmt::Display) -> String {
    format!("*3|$6|CLIENT|$7|UNBLOCK|{}", bulk(n))
}

#[test]
fn a_client_is_unblocked_by_the_id_that_it_was_told() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (popper, up) = blocked(&mut r);
    let c = r.client();
    r.says(c, &format!("CLIENT UNBLOCK {}|GET a|", id(&r, popper)));
    let lane = r.up();
    assert_eq!(r.asked(lane), unblock(server_id(&r, up)) + &requests("GET a"));
    r.answers(lane, ":1|$-1|");
    assert_eq!(r.hears(c), ":1|$-1|");
    r.answers(up, "*-1|");
    assert_eq!(r.hears(popper), "*-1|");
    assert!(r.closed.contains(&Dst::Up(up)), "its id was told: it is nobody else's");
}

#[test]
fn who_is_not_blocked_is_nobody_to_the_server() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    let (popper, up) = blocked(&mut r);
    r.answers(up, "*2|$1|l|$1|x|");
    r.hears(popper);
    r.says(c, &format!("CLIENT UNBLOCK {}|CLIENT UNBLOCK 999|", id(&r, popper)));
    let lane = r.up();
    assert_eq!(r.asked(lane), unblock(0));
    r.answers(lane, ":0|");
    assert_eq!(r.asked(lane), unblock(0));
    r.answers(lane, ":0|");
    assert_eq!(r.hears(c), ":0|:0|");
    assert!(!r.closed.contains(&Dst::Up(up)));
}

#[test]
fn whom_the_server_does_not_tell_nobody_unblocks() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let popper = r.client();
    r.says(popper, "BLPOP l 0|");
    let up = r.opened[0];
    r.asked(up);
    r.answers(up, &format!("-NOPERM no|{MASTER}"));
    r.asked(up);
    let c = r.client();
    r.says(c, &format!("CLIENT UNBLOCK {}|", id(&r, popper)));
    let lane = r.up();
    assert_eq!(r.asked(lane), unblock(0));
}

#[test]
fn an_unblock_that_is_taken_back_names_whom_it_meant_on_the_next_master() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (popper, old) = blocked(&mut r);
    let c = r.client();
    r.says(c, "PING|");
    let lane = r.up();
    r.asked(lane);
    r.answers(lane, "+PONG|");
    r.says(c, &format!("CLIENT UNBLOCK {}|", id(&r, popper)));
    r.hold(true);
    assert_eq!(r.asked(lane), "");
    r.depose();
    r.answers(old, UNBLOCKED);
    for up in r.opened.clone().into_iter().skip(2) {
        if r.w.ups.contains_key(up) {
            r.set_up(up, MASTER);
        }
    }
    let asked: String = r.opened.clone().into_iter().map(|up| r.asked(up)).collect();
    let new = *r.opened.iter().find(|up| r.w.ups.get(**up).is_some_and(|u| u.blocks())).unwrap();
    // The pop may not have been sent yet when it was asked for: then nobody was there to be unblocked.
    let ids = [unblock(server_id(&r, new)), unblock(0)];
    assert!(ids.iter().any(|id| asked.contains(&**id)), "{asked}");
    assert_ne!(server_id(&r, new), server_id(&r, old));
    assert!(!asked.contains(&unblock(server_id(&r, old))));
}

#[test]
fn an_unblock_for_which_its_connection_has_no_room_waits() {
    let mut r = Rig::new(|p| p.limits.ring_max = 40);
    r.grant();
    let (popper, up) = blocked(&mut r);
    let [c, other] = [r.client(), r.client()];
    r.says(other, "SET a 0123456789012345678901234567890123456789|");
    r.says(c, &format!("CLIENT UNBLOCK {}|", id(&r, popper)));
    let lane = r.up();
    r.asked(lane);
    assert_eq!(r.asked(lane), "");
    r.answers(lane, "+OK|");
    assert_eq!(r.asked(lane), unblock(server_id(&r, up)));
}

#[test]
fn other_workers_are_asked_too() {
    let mut both = two();
    let (popper, up) = blocked(&mut both[1]);
    let c = both[0].client();
    let named = id(&both[1], popper);
    both[0].says(c, &format!("CLIENT UNBLOCK {named}|PING|"));
    assert_eq!((both[0].opened.len(), both[0].asks.len()), (0, 1));
    talk(&mut both);
    let lane = both[0].up();
    assert_eq!(both[0].asked(lane), unblock(server_id(&both[1], up)) + &requests("PING"));
}

#[test]
fn a_worker_that_does_not_answer_is_not_waited_for() {
    let [mut r, _] = two();
    let c = r.client();
    r.says(c, "CLIENT UNBLOCK 2|");
    assert!(r.opened.is_empty());
    r.pass(900);
    assert!(r.opened.is_empty());
    r.pass(1_000);
    r.pass(1_000);
    let lane = r.up();
    assert_eq!(r.asked(lane), unblock(0));
}

const NOBODY: &str = "9223372036854775807";

#[test]
fn sessions_of_all_workers_are_killed_and_counted_when_the_server_allows_it() {
    let mut both = two();
    let victims = both.each_mut().map(|r| r.subscriber(&["ch"]));
    let c = both[0].client();
    both[0].says(c, "CLIENT KILL TYPE pubsub|GET a|");
    let lane = both[0].up();
    let asked = requests(&format!("CLIENT KILL TYPE pubsub ID {NOBODY}"));
    assert_eq!(both[0].asked(lane), asked);
    assert!(!both[0].is_closed(victims[0].0), "nobody has allowed it yet");
    both[0].answers(lane, ":0|");
    talk(&mut both);
    assert_eq!(both[0].hears(c), ":2|");
    for (r, (victim, up)) in both.iter().zip(victims) {
        assert!(r.is_closed(victim) && r.closed.contains(&Dst::Up(up)));
        assert_eq!(r.w.counters()[0].1.clients_killed, 1);
    }
    assert_eq!(both[0].asked(lane), requests("GET a"));
}

#[test]
fn who_goes_to_a_worker_that_has_answered_already_is_killed_when_that_is_asked_again() {
    let [mut asks, mut from, mut to] = [1, 2, 3].map(|n| Rig::one_of(n, 3, |_| {}));
    [&mut asks, &mut from, &mut to].into_iter().for_each(Rig::grant);
    let (killer, victim) = (asks.client(), from.client());
    asks.says(killer, &format!("CLIENT KILL ID {}|", id(&from, victim)));
    let lane = asks.up();
    asks.asked(lane);
    asks.answers(lane, ":0|");
    let inquiry = asks.asks.pop().unwrap();
    let answer = |r: &mut Rig| {
        r.w.asked(r.now, 0, inquiry.clone());
        r.effects();
        r.finds.pop().unwrap().1
    };
    let early = answer(&mut to);
    assert_eq!(from.w.send_off(from.now, Who::All), 1);
    let (_, migrant) = from.w.leavers(from.now).pop().unwrap();
    let late = answer(&mut from);
    for finding in [early, inquiry.passed_on(), late] {
        asks.w.told(asks.now, finding);
        asks.effects();
    }
    assert_eq!(asks.hears(killer), "", "one more will answer");
    let there = to.w.adopt(to.now, migrant).ok().unwrap();
    let last = answer(&mut to);
    assert!(to.is_closed(there));
    asks.w.told(asks.now, last);
    asks.effects();
    assert_eq!(asks.hears(killer), ":1|");
}

#[test]
fn a_session_that_two_workers_are_asked_for_twice_is_one() {
    let [mut asks, mut other] = two();
    let (popper, up) = blocked(&mut other);
    let c = asks.client();
    asks.says(c, &format!("CLIENT UNBLOCK {}|", id(&other, popper)));
    let inquiry = asks.asks.pop().unwrap();
    asks.w.told(asks.now, inquiry.passed_on());
    for _ in 0..2 {
        other.w.asked(other.now, 0, inquiry.clone());
        other.effects();
        let (_, finding) = other.finds.pop().unwrap();
        asks.w.told(asks.now, finding);
        asks.effects();
    }
    let lane = asks.up();
    assert_eq!(asks.asked(lane), unblock(server_id(&other, up)));
}

#[test]
fn who_may_not_kill_kills_nobody() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (victim, c) = (r.client(), r.client());
    r.says(c, &format!("CLIENT KILL ID {}|PING|", id(&r, victim)));
    let lane = r.up();
    assert_eq!(r.asked(lane), requests(&format!("CLIENT KILL ID {NOBODY}")));
    r.answers(lane, "-NOPERM no|");
    assert_eq!(r.hears(c), "-NOPERM no|");
    assert_eq!(r.asked(lane), requests("PING"));
    assert!(!r.is_closed(victim));
}

#[test]
fn a_kill_whose_connection_is_lost_is_asked_for_again() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (victim, c) = (r.client(), r.client());
    r.says(c, &format!("CLIENT KILL ID {}|", id(&r, victim)));
    let lane = r.up();
    r.asked(lane);
    r.grant();
    let lane = r.up();
    assert_eq!(r.asked(lane), requests(&format!("CLIENT KILL ID {NOBODY}")));
    r.answers(lane, ":0|");
    assert_eq!(r.hears(c), ":1|");
    assert!(r.is_closed(victim));
}

#[test]
fn who_kills_itself_is_told_so_and_closed() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, &format!("CLIENT KILL ID {} SKIPME no|PING|", id(&r, c)));
    let lane = r.up();
    r.asked(lane);
    r.answers(lane, ":0|");
    assert_eq!(r.hears(c), ":1|");
    assert!(r.is_closed(c));
}

#[test]
fn a_filter_that_only_the_server_knows_kills_nobody() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (other, c) = (r.client(), r.client());
    r.says(c, "CLIENT KILL FLAGS x|");
    let lane = r.up();
    r.asked(lane);
    r.answers(lane, ":0|");
    assert!(r.hears(c).starts_with("-ERR Pointsman cannot tell"));
    assert!(!r.is_closed(other));
}

#[test]
fn a_kill_in_a_transaction_breaks_it() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "MULTI|");
    let up = r.up();
    r.asked(up);
    r.answers(up, "+OK|");
    r.says(c, "CLIENT KILL ID 5|EXEC|");
    assert_eq!(r.asked(up), requests("DISCARD"));
    r.answers(up, "+OK|");
    assert!(r.hears(c).contains("-ERR CLIENT KILL in a transaction"));
}

/// A client whose invalidations go to a subscriber, and the connection of each.
fn redirected(r: &mut Rig) -> [(ClientId, UpId); 2] {
    let (told, told_up) = r.subscriber(&["__redis__:invalidate"]);
    let c = r.client();
    let named = id(r, told);
    r.says(c, &format!("CLIENT TRACKING ON REDIRECT {named}|"));
    let up = r.up();
    let n = server_id(r, told_up);
    assert_eq!(r.asked(up), requests(&format!("CLIENT TRACKING ON REDIRECT {n}")));
    r.answers(up, "+OK|");
    assert_eq!(r.hears(c), "+OK|");
    [(c, up), (told, told_up)]
}

const FLUSH: &str = "*3|$7|message|$20|__redis__:invalidate|$-1|";

#[test]
fn the_session_that_is_told_is_named_by_the_id_that_it_knows() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let [(c, up), (told, told_up)] = redirected(&mut r);
    let n = server_id(&r, told_up);
    r.says(c, "CLIENT GETREDIR|CLIENT TRACKINGINFO|");
    r.asked(up);
    r.answers(up, &format!(":{n}|*2|$8|redirect|:{n}|"));
    let own = id(&r, told);
    assert_eq!(r.hears(c), format!(":{own}|*2|$8|redirect|:{own}|"));
    // Who is told stays where it is, also when it has unsubscribed.
    r.says(told, "UNSUBSCRIBE|");
    r.asked(told_up);
    r.answers(told_up, &confirmed("unsubscribe", "__redis__:invalidate", 0));
    r.says(told, "GET a|");
    assert_eq!(r.asked(told_up), requests("GET a"));
}

#[test]
fn who_is_to_be_told_and_has_no_connection_gets_one() {
    let mut both = two();
    let (c, told) = (both[0].client(), both[1].client());
    both[1].says(told, "SET a 1|");
    let lane = both[1].up();
    both[1].asked(lane);
    let named = id(&both[1], told);
    both[0].says(c, &format!("CLIENT TRACKING ON REDIRECT {named}|"));
    talk(&mut both);
    assert_eq!(both[1].opened.len(), 1, "it is owed a reply elsewhere");
    both[1].answers(lane, "+OK|");
    let told_up = both[1].up();
    talk(&mut both);
    let up = both[0].up();
    let n = server_id(&both[1], told_up);
    assert_eq!(both[0].asked(up), requests(&format!("CLIENT TRACKING ON REDIRECT {n}")));
    both[1].says(told, "SUBSCRIBE __redis__:invalidate|");
    assert_eq!(both[1].asked(told_up), requests("SUBSCRIBE __redis__:invalidate"));
}

#[test]
fn who_gets_a_connection_to_be_told_has_its_name_there_before_others_know() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (c, told) = (r.client(), r.client());
    r.says(told, "CLIENT SETNAME me|");
    let probe = r.up();
    r.asked(probe);
    r.answers(probe, "+OK|");
    let named = id(&r, told);
    r.says(c, &format!("CLIENT TRACKING ON REDIRECT {named}|"));
    let told_up = r.up();
    assert_eq!(r.asked(told_up), requests("CLIENT SETNAME me"));
    let opened = r.opened.len();
    r.answers(told_up, "+OK|");
    assert_eq!(r.opened.len(), opened + 1);
}

#[test]
fn who_is_another_user_gets_no_connection_to_be_told() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (c, told) = (r.client(), r.client());
    r.says(c, "AUTH alice x|");
    let probe = r.up();
    r.asked(probe);
    r.answers(probe, "+OK|");
    r.hears(c);
    let named = id(&r, told);
    r.says(c, &format!("CLIENT TRACKING ON REDIRECT {named}|"));
    let up = *r.opened.last().unwrap();
    r.asked(up);
    r.answers(up, &format!("+OK|:9|{MASTER}"));
    assert_eq!(r.asked(up), requests(&format!("CLIENT TRACKING ON REDIRECT {NOBODY}")));
    assert_eq!(r.opened.len(), 2);
}

#[test]
fn a_session_that_does_not_exist_is_none_to_the_server_either() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "CLIENT TRACKING ON REDIRECT 99|");
    let up = r.up();
    assert_eq!(r.asked(up), requests(&format!("CLIENT TRACKING ON REDIRECT {NOBODY}")));
}

#[test]
fn tracking_is_switched_on_again_before_anything_else_and_its_client_forgets_what_it_knows() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.resp3();
    r.says(c, "CLIENT TRACKING ON BCAST PREFIX a|CLIENT TRACKING ON BCAST PREFIX b NOLOOP|");
    let up = r.up_resp3();
    r.asked(up);
    r.answers(up, "+OK|+OK|");
    r.hears(c);
    r.grant();
    let flush = ">2|$10|invalidate|_|";
    assert_eq!(r.hears(c), flush, "at once");
    r.says(c, "GET a|");
    let up = r.up_resp3();
    let again = "CLIENT TRACKING ON BCAST PREFIX a|CLIENT TRACKING ON BCAST PREFIX b NOLOOP|GET a";
    assert_eq!(r.asked(up), requests(again));
    r.answers(up, "+OK|");
    assert_eq!(r.hears(c), "");
    r.answers(up, "+OK|$1|A|");
    assert_eq!(r.hears(c), format!("{flush}$1|A|"), "and when it is tracked again");
    assert_eq!(r.w.counters()[0].1.clients_cut, 0);
}

#[test]
fn what_is_read_behind_a_caching_that_was_said_before_the_switch_is_tracked() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.resp3();
    r.says(c, "CLIENT TRACKING ON OPTIN|CLIENT CACHING YES|");
    let up = r.up_resp3();
    r.asked(up);
    r.answers(up, "+OK|+OK|");
    r.says(c, "SUBSCRIBE ch|");
    r.asked(up);
    r.answers(up, ">3|$9|subscribe|$2|ch|:1|");
    r.grant();
    r.says(c, "GET a|");
    let up = r.up_resp3();
    let again = "CLIENT TRACKING ON OPTIN|SUBSCRIBE ch|CLIENT CACHING YES|GET a";
    assert_eq!(r.asked(up), requests(again));
}

#[test]
fn who_tracks_no_more_gives_its_connection_up_and_nobody_else_gets_it() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "CLIENT TRACKING ON|CLIENT TRACKING OFF|");
    let up = r.up();
    r.asked(up);
    r.answers(up, "+OK|+OK|");
    assert_eq!(r.hears(c), "+OK|+OK|");
    assert!(r.closed.contains(&Dst::Up(up)));
    assert!(!r.is_closed(c));
}

#[test]
fn a_master_that_does_not_track_for_it_again_ends_a_session() {
    let mut r = Rig::new(|p| p.limits.subs_max = 60);
    r.grant();
    let all = ["", " BCAST PREFIX 0123456789"].map(|more| {
        let c = r.client();
        r.says(c, &format!("CLIENT TRACKING ON{more}|"));
        let up = r.up();
        r.asked(up);
        r.answers(up, "+OK|");
        r.hears(c);
        c
    });
    r.grant();
    assert!(r.is_closed(all[1]), "too much was to be kept of it");
    let up = r.up();
    r.asked(up);
    r.answers(up, "-NOPERM no|");
    assert!(r.is_closed(all[0]));
}

#[test]
fn a_redirection_is_made_again_to_the_new_connection_of_who_is_told() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let [(c, _), (told, _)] = redirected(&mut r);
    let before = r.opened.len();
    r.grant();
    assert_eq!(r.hears(told), FLUSH);
    r.says(c, "GET a|");
    let told_up = r.opened[before];
    assert_eq!(r.opened.len(), before + 1, "its own waits for that one");
    r.set_up(told_up, MASTER);
    assert_eq!(r.asked(told_up), requests("SUBSCRIBE __redis__:invalidate"));
    assert_eq!(r.opened.len(), before + 1);
    r.answers(told_up, &confirmed("subscribe", "__redis__:invalidate", 1));
    let up = r.up();
    let n = server_id(&r, told_up);
    assert_eq!(r.asked(up), requests(&format!("CLIENT TRACKING ON REDIRECT {n}|GET a")));
    assert_eq!(r.hears(told), "");
    r.answers(up, "+OK|$1|A|");
    assert_eq!((r.hears(told), r.hears(c)), (FLUSH.into(), "$1|A|".into()));
}

#[test]
fn a_redirection_follows_when_only_the_connection_of_who_is_told_breaks() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let [(c, up), (_, told_up)] = redirected(&mut r);
    r.loses(told_up);
    r.prove();
    let told_up = r.up();
    r.asked(told_up);
    r.answers(told_up, &confirmed("subscribe", "__redis__:invalidate", 1));
    assert!(r.closed.contains(&Dst::Up(up)), "on it the server would tell nobody");
    assert!(!r.is_closed(c));
    let up = r.up();
    let n = server_id(&r, told_up);
    assert_eq!(r.asked(up), requests(&format!("CLIENT TRACKING ON REDIRECT {n}")));
}

#[test]
fn when_who_is_told_is_gone_a_redirection_cannot_be_made_again() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let [(c, _), (told, _)] = redirected(&mut r);
    r.w.gone(r.now, Dst::Client(told));
    r.grant();
    assert!(r.is_closed(c));
}

#[test]
fn on_a_connection_that_is_not_counted_no_session_is_named() {
    let mut r = Rig::new(|_| {});
    r.grant();
    for (n, text) in
        ["CLIENT KILL ID 5|", "CLIENT UNBLOCK 5|", "CLIENT TRACKING ON REDIRECT 5|"].iter().enumerate()
    {
        let c = r.client();
        r.says(c, "MONITOR|");
        let up = r.up();
        r.asked(up);
        r.says(c, text);
        assert_eq!(r.w.ups.get(up).map(|u| u.ledger.unsent().len()).unwrap_or(0), 0, "{n}");
        assert!(r.hears(c).starts_with("-REFUSED 'CLIENT|"), "{n}");
        assert!(r.is_closed(c));
    }
}
