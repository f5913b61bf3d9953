//! A worker between a client and a server that are played by hand.
use super::*;
use crate::topology::snapshot::{Gate, SignKind, Term};
use alloc::format;
use alloc::string::String;
use rig::*;

mod blocked;
mod deposed;
mod dials;
mod durable;
mod in_place;
mod learning;
mod migrate;
mod others;
mod rig;
mod rules;
mod sessions;
mod together;
mod users;
mod withheld;

#[test]
fn what_a_gate_takes_back_stands_behind_what_was_refused_before() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "SET a 1|SET b 2|");
    let up = r.up();
    assert_eq!(r.asked(up), "*3|$3|SET|$1|a|$1|1|*3|$3|SET|$1|b|$1|2|");
    r.says(c, "SET c 3|");
    r.answers(up, READONLY);
    r.answers(up, READONLY);
    // Where the second would end, had it been executed.
    assert_eq!((r.asked(up), r.hears(c)), (ROLE.into(), String::new()));
    r.prove();
    assert_eq!(r.asked(up), "*3|$3|SET|$1|a|$1|1|*3|$3|SET|$1|b|$1|2|*3|$3|SET|$1|c|$1|3|");
    r.answers(up, &format!("{MASTER}+1|+2|+3|"));
    assert_eq!(r.hears(c), "+1|+2|+3|");
}

#[test]
fn a_reply_to_what_was_asked_before_does_not_wait_for_what_was_taken_back() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (c, other) = (r.client(), r.client());
    r.says(other, "SET x 0|");
    let up = r.up();
    r.says(c, "GET a|");
    r.asked(up);
    r.says(c, "SET b 2|");
    r.answers(up, "-READONLY You can't write against a read only replica.|$1|A|");
    assert_eq!(r.hears(c), "$1|A|");
    r.prove();
    assert_eq!(r.asked(up), "*3|$3|SET|$1|x|$1|0|*3|$3|SET|$1|b|$1|2|");
}

#[test]
fn nothing_is_sent_again_before_what_came_after_it_is_answered() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "SET a 1|GET b|");
    let up = r.up();
    r.asked(up);
    r.answers(up, READONLY);
    r.prove();
    assert_eq!(r.asked(up), "");
    r.answers(up, "$1|B|");
    assert_eq!(r.asked(up), "*3|$3|SET|$1|a|$1|1|*2|$3|GET|$1|b|");
    r.answers(up, "+OK|$1|B|");
    assert_eq!(r.hears(c), "+OK|$1|B|");
}

#[test]
fn a_refused_write_is_not_sent_again_when_the_next_may_have_been_executed() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "SET a 1|SET a 2|");
    let up = r.up();
    r.asked(up);
    r.answers(up, READONLY);
    r.w.gone(r.now, Dst::Up(up));
    r.effects();
    assert!(r.hears(c).starts_with("-READONLY You can't write against a read only replica.|-UNCERTAIN "));
}

#[test]
fn who_comes_while_others_are_let_out_is_let_out_too() {
    let mut r = Rig::new(|_| {});
    let early: Vec<ClientId> = (0..150).map(|_| r.client()).collect();
    for c in &early {
        r.says(*c, "SET a 1|");
    }
    r.grant();
    let late = r.client();
    r.says(late, "SET b 2|");
    let up = r.up();
    for _ in 0..10 {
        r.pass(0);
    }
    let asked = r.asked(up);
    assert_eq!(asked.matches("SET").count(), 151);
    assert!(asked.ends_with("*3|$3|SET|$1|b|$1|2|"), "{asked}");
}

#[test]
fn what_gates_take_back_leaves_the_name_of_a_pinned_connection() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "CLIENT SETNAME me|");
    let probe = r.up();
    r.asked(probe);
    r.answers(probe, "+OK|");
    r.says(c, "MULTI|");
    let up = r.up();
    r.hold(true);
    assert_eq!(r.asked(up), "");
    r.release();
    assert_eq!(r.asked(up), "*3|$6|CLIENT|$7|SETNAME|$2|me|*1|$5|MULTI|");
}

#[test]
fn exec_of_a_lost_transaction_says_so_also_when_it_was_to_say_something_else() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "MULTI|");
    let up = r.up();
    r.asked(up);
    r.answers(up, "+OK|");
    r.says(c, "SHUTDOWN|");
    r.hears(c);
    r.says(c, "EXEC|");
    r.w.gone(r.now, Dst::Up(up));
    r.effects();
    assert!(r.hears(c).starts_with("-EXECABORT "));
}

#[test]
fn a_lease_that_is_over_stops_writes_and_not_reads() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "GET a|");
    let up = r.up();
    r.view.writes_until = Some(r.now + Duration::from_millis(5));
    r.publish();
    r.asked(up);
    r.answers(up, "$-1|");
    r.says(c, "SET a 1|");
    r.now = r.now + Duration::from_millis(5);
    assert_eq!(r.asked(up), "");
    r.pass(0);
    let other = r.client();
    r.says(other, "GET b|");
    assert_eq!(r.asked(up), "*2|$3|GET|$1|b|");
}

#[test]
fn the_rest_of_a_write_is_not_sent_when_its_gate_has_closed() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "SET a 1|");
    let up = r.up();
    r.w.wrote(r.now, Dst::Up(up), 5);
    r.view.writes = Gate::Hold { since: r.now, until: r.now + Duration::from_secs(1) };
    r.publish();
    assert_eq!(r.asked(up), "");
    r.view.writes = Gate::Open;
    r.publish();
    assert_eq!(r.asked(up), "3|SET|$1|a|$1|1|");
}

#[test]
fn reads_pass_writes_that_wait() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (writer, reader) = (r.client(), r.client());
    r.says(writer, "SET a 1|");
    let up = r.up();
    r.says(reader, "GET b|");
    r.view.writes = Gate::Hold { since: r.now, until: r.now + Duration::from_secs(1) };
    r.publish();
    assert_eq!(r.asked(up), "*2|$3|GET|$1|b|");
    r.answers(up, "$1|B|");
    assert_eq!(r.hears(reader), "$1|B|");
}

#[test]
fn half_a_request_of_a_client_that_has_ended_keeps_no_connection() {
    let mut r = Rig::new(|p| p.limits.stream_from = 100);
    r.grant();
    let c = r.client();
    r.says(c, "*3|$3|SET|$1|a|$500|begun");
    let up = r.up();
    assert_eq!(r.asked(up), "*3|$3|SET|$1|a|$500|begun");
    r.w.eof(r.now, Dst::Client(c));
    r.effects();
    assert_eq!((r.w.clients(), r.w.upstreams()), (0, 0));
}

#[test]
fn what_blocks_ends_with_a_client_that_had_ended_before_it_was_routed() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "PING|BLPOP a 0|");
    let up = r.up();
    r.asked(up);
    r.w.eof(r.now, Dst::Client(c));
    r.answers(up, "+PONG|");
    assert_eq!(r.hears(c), "+PONG|");
    assert_eq!(r.w.clients(), 0);
}

#[test]
fn a_server_that_refuses_half_a_request_gives_no_sign() {
    let mut r = Rig::new(|p| p.limits.stream_from = 100);
    r.grant();
    let c = r.client();
    r.says(c, "*3|$3|SET|$1|a|$500|begun");
    let up = r.up();
    r.asked(up);
    r.answers(up, "-ERR Protocol error: invalid bulk length|");
    assert_eq!(r.hears(c), "-ERR Protocol error: invalid bulk length|");
    assert_eq!((r.w.clients(), &r.signs[..]), (0, &[][..]));
}

#[test]
fn a_reply_that_nobody_asked_for_is_a_sign() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "GET a|");
    let up = r.up();
    r.asked(up);
    r.answers(up, "$1|A|$1|B|");
    assert_eq!(r.hears(c), "$1|A|");
    assert_eq!((&r.signs[..], r.w.upstreams()), (&[SignKind::Garbage][..], 0));
}

#[test]
fn an_array_is_a_reply_to_a_subscriber_of_resp3_whatever_is_in_it() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.resp3();
    r.says(c, "SUBSCRIBE ch|");
    let up = r.up_resp3();
    r.asked(up);
    r.answers(up, ">3|$9|subscribe|$2|ch|:1|");
    r.says(c, "LRANGE l 0 -1|PING|");
    r.asked(up);
    r.hears(c);
    r.answers(up, "*2|$7|message|$1|x|+PONG|");
    assert_eq!(r.hears(c), "*2|$7|message|$1|x|+PONG|");
    assert_eq!(r.signs, []);
}

#[test]
fn a_server_that_never_ends_its_answer_to_a_set_up_is_given_up() {
    let mut r = Rig::new(|p| p.limits.client_output_hard = 1 << 20);
    r.grant();
    let c = r.client();
    r.says(c, "GET a|");
    let up = *r.opened.last().expect("one was opened");
    r.asked(up);
    r.answers(up, "$100000000|");
    let most = 200;
    for _ in 0..most {
        r.answers(up, &"x".repeat(10_000));
    }
    assert!(r.closed.contains(&Dst::Up(up)));
}

#[test]
fn a_hold_ends_also_when_the_master_is_proven_again_and_again_but_cannot_be_reached() {
    let mut r = Rig::new(|_| {});
    r.reachable = false;
    r.grant();
    let c = r.client();
    r.says(c, "GET a|");
    for _ in 0..60 {
        r.pass(50);
        r.prove();
    }
    let heard = r.hears(c);
    assert!(heard.starts_with("-MASTERDOWN "), "{heard}");
    r.reachable = true;
    r.pass(2_000);
    r.says(c, "GET b|");
    let up = r.up();
    assert_eq!(r.asked(up), "*2|$3|GET|$1|b|");
}

#[test]
fn who_waits_for_a_master_that_cannot_be_reached_goes_to_the_next() {
    let mut r = Rig::new(|_| {});
    r.reachable = false;
    r.grant();
    let c = r.client();
    r.says(c, "GET a|");
    r.prove();
    r.reachable = true;
    r.grant();
    let up = r.up();
    assert_eq!(r.asked(up), "*2|$3|GET|$1|a|");
}

#[test]
fn exec_at_a_gate_that_refuses_ends_the_transaction() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "MULTI|SET a 1|");
    let up = r.up();
    r.asked(up);
    r.answers(up, "+OK|+QUEUED|");
    r.view.writes = Gate::Refuse;
    r.publish();
    r.says(c, "EXEC|");
    let heard = r.hears(c);
    assert!(heard.starts_with("+OK|+QUEUED|-EXECABORT "), "{heard}");
    r.says(c, "GET a|");
    let up = r.up();
    assert_eq!(r.asked(up), "*2|$3|GET|$1|a|");
}

#[test]
fn without_room_for_its_connection_a_large_request_is_thrown_away_to_its_end() {
    let mut r = Rig::new(|p| {
        p.limits.stream_from = 100;
        p.pinned_max = 0;
    });
    r.grant();
    let c = r.client();
    r.says(c, &format!("*3|$3|SET|$1|a|$200|{}", "x".repeat(50)));
    r.says(c, &format!("{}|PING|", "x".repeat(150)));
    let up = r.up();
    assert_eq!(r.asked(up), "*1|$4|PING|");
    assert!(r.hears(c).starts_with("-ERR too many sessions"));
}

#[test]
fn a_request_as_long_as_what_may_wait_does_not_wait_for_ever() {
    let mut r = Rig::new(|p| (p.limits.stream_from, p.limits.client_input_max) = (300, 300));
    r.grant();
    for len in 250..300 {
        let c = r.client();
        let text = format!("*3|$3|SET|$1|a|${len}|{}|", "x".repeat(len));
        for part in wire(&text).chunks(50) {
            assert!(r.w.reads(Dst::Client(c)), "{len}");
            r.w.read(r.now, Dst::Client(c), part);
            r.effects();
        }
    }
}

#[test]
fn it_tells_that_writes_flow_where_that_is_wanted_and_not_more_often_than_needed() {
    for wanted in [true, false] {
        let mut r = Rig::new(|p| p.tells_writes = wanted);
        r.grant();
        let c = r.client();
        r.says(c, "GET a|");
        let up = r.up();
        r.asked(up);
        assert_eq!(r.writes_told, 0, "reads are none");
        let told = |r: &mut Rig, command: &str| {
            let before = r.writes_told;
            r.says(c, command);
            r.asked(up);
            r.writes_told - before
        };
        assert_eq!(told(&mut r, "SET a 1|"), u32::from(wanted));
        assert_eq!(told(&mut r, "SET a 2|"), 0, "that was told just now");
        r.pass(300);
        assert_eq!(told(&mut r, "GET a|"), u32::from(wanted), "of the second one");
        r.pass(300);
        assert_eq!(told(&mut r, "GET a|"), 0);
        assert_eq!((r.w.counters()[0].1.commands, r.w.counters()[0].1.writes), (5, 2));
    }
}

#[test]
fn a_request_that_streams_keeps_within_the_ring() {
    let mut r = Rig::new(|p| {
        (p.limits.stream_from, p.limits.client_input_max) = (100, 4000);
        (p.limits.ring_max, p.limits.inline_max) = (300, 64);
    });
    r.grant();
    let c = r.client();
    let text = format!("*3|$3|SET|$1|a|${}|{}|", 2000, "x".repeat(2000));
    for part in wire(&text).chunks(900) {
        r.w.read(r.now, Dst::Client(c), part);
        r.effects();
        let kept = r.w.audit().expect("all parts agree").stream_max;
        assert!(kept <= 300 + 64 + 2, "{kept}");
    }
    let up = r.up();
    let mut sent = String::new();
    for _ in 0..20 {
        sent += &r.asked(up);
    }
    assert_eq!(sent, text);
    r.answers(up, "+OK|");
    assert_eq!(r.hears(c), "+OK|");
}

fn little_input(p: &mut Policy) {
    (p.limits.client_input_max, p.limits.inline_max) = (100, 64);
    p.limits.in_flight_max = 3;
}

/// A client that is not read, and waits for what never comes.
fn blocked_and_not_read(r: &mut Rig) -> (ClientId, UpId) {
    r.grant();
    let c = r.client();
    r.says(c, "BLPOP a 0|");
    let up = r.up();
    r.asked(up);
    assert!(r.w.reads(Dst::Client(c)));
    r.says(c, &"SET b 1|".repeat(20));
    assert!(!r.w.reads(Dst::Client(c)));
    (c, up)
}

#[test]
fn a_blocked_client_that_is_not_read_is_let_go_when_it_hangs_up() {
    let mut r = Rig::new(little_input);
    let (c, up) = blocked_and_not_read(&mut r);
    r.w.hung_up(r.now, Dst::Client(c));
    r.effects();
    assert_eq!((r.w.clients(), r.w.upstreams()), (0, 0));
    assert!(r.closed.contains(&Dst::Up(up)));
}

#[test]
fn what_a_client_that_hung_up_has_sent_is_done_up_to_what_blocks() {
    let mut r = Rig::new(little_input);
    r.grant();
    let c = r.client();
    r.says(c, "PING|");
    let up = r.up();
    r.asked(up);
    r.says(c, &format!("BLPOP a 0|{}", "SET b 1|".repeat(20)));
    assert!(!r.w.reads(Dst::Client(c)));
    r.w.hung_up(r.now, Dst::Client(c));
    r.effects();
    assert_eq!(r.w.clients(), 1);
    r.answers(up, "+PONG|");
    assert_eq!(r.hears(c), "+PONG|");
    r.effects();
    assert_eq!(r.w.clients(), 0);
}

#[test]
fn a_read_that_may_have_been_executed_is_not_said_to_be_refused() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "GET a|");
    let up = r.up();
    r.asked(up);
    r.grant();
    let up = r.up();
    assert_eq!(r.asked(up), "*2|$3|GET|$1|a|");
    r.says(c, "SET c 1|");
    r.asked(up);
    r.answers(up, "-LOADING Redis is loading the dataset in memory|+OK|");
    r.prove();
    // Nor is it said of the write behind it, which cannot wait for a proof of its own, that it is certain.
    let heard = r.hears(c);
    let (read, write) = heard.split_once('|').expect("two replies");
    assert!(read.starts_with("-UNCERTAIN the connection"), "{heard}");
    assert!(write.starts_with("-UNCERTAIN the command was executed"), "{heard}");
}
