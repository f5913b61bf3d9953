//! What of a session survives when its connection does not.
use super::super::upstream::SIGN_INS_MAX;
use super::*;
use crate::policy::Retry;

fn message(channel: &str, text: &str) -> String {
    format!("*3|$7|message|${}|{channel}|${}|{text}|", channel.len(), text.len())
}

#[test]
fn a_subscriber_is_subscribed_again_on_the_new_master_and_hears_nothing_of_it() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (c, up) = r.subscriber(&["news", "sport"]);
    r.says(c, "PSUBSCRIBE w*|SSUBSCRIBE s|");
    r.asked(up);
    r.answers(up, &(confirmed("psubscribe", "w*", 3) + &confirmed("ssubscribe", "s", 1)));
    r.hears(c);
    r.grant();
    let up = r.up();
    assert_eq!(r.asked(up), requests("SUBSCRIBE news sport|PSUBSCRIBE w*|SSUBSCRIBE s"));
    r.answers(up, &confirmed("subscribe", "news", 1));
    r.answers(up, &message("news", "first"));
    r.answers(up, &confirmed("subscribe", "sport", 2));
    r.answers(up, &(confirmed("psubscribe", "w*", 3) + &confirmed("ssubscribe", "s", 1)));
    assert_eq!(r.hears(c), message("news", "first"));
    r.says(c, "SUBSCRIBE more|");
    assert_eq!(r.asked(up), requests("SUBSCRIBE more"));
    r.answers(up, &confirmed("subscribe", "more", 4));
    assert_eq!(r.hears(c), confirmed("subscribe", "more", 4));
    assert_eq!((r.w.counters()[0].1.subscribers_interrupted, r.w.counters()[0].1.clients_cut), (1, 0));
}

#[test]
fn a_subscriber_whose_connection_merely_breaks_is_subscribed_again_before_it_goes_on() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (c, up) = r.subscriber(&["news"]);
    r.loses(up);
    r.says(c, "PING|");
    assert_eq!(r.hears(c), "");
    r.prove();
    let up = r.up();
    assert_eq!(r.asked(up), requests("SUBSCRIBE news|PING"));
    r.answers(up, &(confirmed("subscribe", "news", 1) + "*2|$4|pong|$0||"));
    assert_eq!(r.hears(c), "*2|$4|pong|$0||");
}

#[test]
fn a_subscriber_of_resp3_is_subscribed_again_by_pushes() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.resp3();
    r.says(c, "SUBSCRIBE ch|SET a 1|GET a|");
    let up = r.up_resp3();
    r.asked(up);
    r.answers(up, ">3|$9|subscribe|$2|ch|:1|");
    r.hears(c);
    r.loses(up);
    // What is known already is said at once; the rest waits behind the subscription.
    assert!(r.hears(c).starts_with("-UNCERTAIN"));
    r.prove();
    let up = r.up_resp3();
    assert_eq!(r.asked(up), requests("SUBSCRIBE ch|GET a"));
    r.answers(up, ">3|$9|subscribe|$2|ch|:1|>3|$7|message|$2|ch|$1|x|$1|1|");
    assert_eq!(r.hears(c), ">3|$7|message|$2|ch|$1|x|$1|1|");
}

#[test]
fn a_subscription_that_was_confirmed_in_part_is_confirmed_to_its_end_once() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "SUBSCRIBE a b c|");
    let up = r.up();
    r.asked(up);
    r.answers(up, &confirmed("subscribe", "a", 1));
    r.loses(up);
    r.prove();
    let up = r.up();
    assert_eq!(r.asked(up), requests("SUBSCRIBE a|SUBSCRIBE b c"));
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        r.answers(up, &confirmed("subscribe", name, i + 1));
    }
    let all = ["a", "b", "c"].iter().enumerate().map(|(i, n)| confirmed("subscribe", n, i + 1));
    assert_eq!(r.hears(c), all.collect::<String>());
}

#[test]
fn gates_that_close_do_not_take_a_subscription_back() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (c, _) = r.subscriber(&["news"]);
    r.grant();
    r.says(c, "PING|");
    r.hold(true);
    let up = r.up();
    assert_eq!(r.asked(up), "");
    r.release();
    assert_eq!(r.asked(up), requests("SUBSCRIBE news|PING"));
}

#[test]
fn a_subscriber_is_closed_when_it_cannot_be_subscribed_again() {
    // The new master refuses.
    let mut r = Rig::new(|_| {});
    r.grant();
    let (c, _) = r.subscriber(&["news"]);
    r.grant();
    let up = r.up();
    r.asked(up);
    r.answers(up, "-NOPERM this user has no permissions to access one of the channels|");
    assert!(r.is_closed(c) && r.w.upstreams() == 0);
    assert_eq!(r.hears(c), "");

    // It does not let its connection be set up.
    let (c, _) = r.subscriber(&["news"]);
    r.grant();
    let up = *r.opened.last().expect("one was opened");
    r.asked(up);
    r.answers(up, "-ERR max number of clients reached|");
    assert!(r.is_closed(c));

    // The hold runs out.
    let (c, _) = r.subscriber(&["news"]);
    r.view.master = None;
    (r.view.writes, r.view.reads) = (Gate::Refuse, Gate::Refuse);
    r.publish();
    assert!(r.is_closed(c));
}

#[test]
fn a_subscriber_of_more_than_is_kept_is_closed() {
    let mut r = Rig::new(|p| p.limits.subs_max = 200);
    r.grant();
    let (few, _) = r.subscriber(&["a", "b", "c"]);
    let (many, up) = r.subscriber(&["a", "b", "c", "d"]);
    r.says(many, "UNSUBSCRIBE|");
    r.asked(up);
    for (i, name) in ["a", "b", "c"].iter().enumerate() {
        r.answers(up, &confirmed("unsubscribe", name, 3 - i));
    }
    r.hears(many);
    r.grant();
    assert!(r.is_closed(many) && !r.is_closed(few));
}

#[test]
fn a_pop_that_a_demotion_unblocked_waits_for_the_rest_of_its_time() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "BLPOP l 5|");
    let up = r.up();
    r.asked(up);
    r.pass(1_000);
    r.answers(up, UNBLOCKED);
    assert_eq!((r.hears(c), &r.signs[..]), (String::new(), &[SignKind::Unblocked][..]));
    r.pass(499);
    r.grant();
    let up = r.up();
    assert_eq!(r.asked(up), requests("BLPOP l 3.500"));
    r.pass(1_000);
    r.answers(up, UNBLOCKED);
    r.prove();
    let up = r.up();
    assert_eq!(r.asked(up), requests("BLPOP l 2.499"));
    r.answers(up, "*2|$1|l|$1|x|");
    assert_eq!(r.hears(c), "*2|$1|l|$1|x|");
}

#[test]
fn an_unblocked_wait_is_shown() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "SET a 1|");
    let lane = r.up();
    r.asked(lane);
    r.answers(lane, "+OK|");
    r.says(c, "WAIT 1 0|");
    let up = r.up();
    r.asked(up);
    r.answers(up, &format!(":0|{UNBLOCKED}"));
    assert_eq!(r.hears(c), format!("+OK|{UNBLOCKED}"));
}

#[test]
fn a_blocked_read_of_the_newest_entries_misses_none_in_a_switch() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "XREAD BLOCK 0 STREAMS s t $ 0|");
    let up = r.up();
    assert_eq!(r.asked(up), requests("XREVRANGE s + - COUNT 1|XREAD BLOCK 0 STREAMS s t $ 0"));
    r.answers(up, "*1|*2|$3|7-1|*2|$1|f|$1|v|");
    r.loses(up);
    r.grant();
    let up = r.up();
    assert_eq!(r.asked(up), requests("XREAD BLOCK 0 STREAMS s t 7-1 0"));
    r.answers(up, "*-1|");
    assert_eq!(r.hears(c), "*-1|");
}

#[test]
fn a_blocked_read_of_the_newest_entries_is_uncertain_where_nobody_says_which_they_were() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "XREAD BLOCK 0 STREAMS s $|");
    let up = r.up();
    r.asked(up);
    r.answers(up, "-NOPERM no|");
    r.loses(up);
    assert!(r.hears(c).starts_with("-UNCERTAIN"));
}

#[test]
fn what_blocks_waits_until_nothing_else_is_owed_on_its_connection() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "WATCH k|BLPOP l 5|BLPOP l 5|");
    let up = r.up();
    assert_eq!(r.asked(up), requests("WATCH k"));
    r.answers(up, "+OK|");
    assert_eq!(r.asked(up), requests("BLPOP l 5"));
    r.pass(100);
    r.answers(up, "*2|$1|l|$1|x|");
    assert_eq!(r.asked(up), requests("BLPOP l 5"));
}

#[test]
fn nor_is_it_sent_behind_a_transaction_that_has_not_answered() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "MULTI|BLPOP l 5|");
    let up = r.up();
    assert_eq!(r.asked(up), requests("MULTI"));
    r.answers(up, "+OK|");
    assert_eq!(r.asked(up), requests("BLPOP l 5"), "it is queued there, and does not block");
    r.says(c, "EXEC|BLPOP l 5|");
    assert_eq!(r.asked(up), requests("EXEC"));
    r.answers(up, "+QUEUED|*1|*-1|");
    assert_eq!(r.asked(up), requests("BLPOP l 5"));
}

pub(super) const SHA: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
pub(super) const NOSCRIPT: &str = "-NOSCRIPT No matching script. Please use EVAL.|";

#[test]
fn a_new_master_is_shown_the_scripts_that_it_does_not_know() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (c, other) = (r.client(), r.client());
    let load = wire("*3|$6|SCRIPT|$4|LOAD|$8|return 1|");
    r.w.read(r.now, Dst::Client(c), &load);
    r.effects();
    let up = r.up();
    r.asked(up);
    r.answers(up, &format!("$40|{SHA}|"));
    r.hears(c);
    // As long as the same master says so, it was told to forget them.
    r.says(c, &format!("EVALSHA {SHA} 0|"));
    r.asked(up);
    r.answers(up, NOSCRIPT);
    assert_eq!(r.hears(c), NOSCRIPT);
    r.grant();
    r.says(c, &format!("EVALSHA {SHA} 1 k a|"));
    r.says(other, &format!("EVALSHA {SHA} 0|"));
    let up = r.up();
    r.asked(up);
    r.answers(up, &NOSCRIPT.repeat(2));
    assert_eq!(
        r.asked(up),
        "*5|$4|EVAL|$8|return 1|$1|1|$1|k|$1|a|*3|$4|EVAL|$8|return 1|$1|0|",
        "both were on their way"
    );
    r.answers(up, ":1|:1|");
    assert_eq!((r.hears(c), r.hears(other)), (":1|".into(), ":1|".into()));
    assert_eq!(r.w.counters()[0].1.scripts_reloaded, 2);
}

#[test]
fn a_script_is_not_shown_again_behind_a_later_write_of_its_session() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.w.read(r.now, Dst::Client(c), &wire("*3|$4|EVAL|$8|return 1|$1|0|"));
    r.effects();
    let up = r.up();
    r.asked(up);
    r.answers(up, ":1|");
    r.grant();
    r.hears(c);
    r.says(c, &format!("EVALSHA {SHA} 0|SET k 2|"));
    let up = r.up();
    r.asked(up);
    r.answers(up, &format!("{NOSCRIPT}+OK|"));
    assert_eq!((r.hears(c), r.asked(up)), (format!("{NOSCRIPT}+OK|"), String::new()));
}

#[test]
fn idempotent_writes_are_sent_again_only_where_that_was_chosen() {
    for (retry, again) in [(Retry::None, ""), (Retry::Reads, "GET b"), (Retry::Idempotent, "SET a 1|GET b")] {
        let mut r = Rig::new(|p| p.retry = retry);
        r.grant();
        let all = [r.client(), r.client(), r.client()];
        for (c, text) in all.iter().zip(["SET a 1|", "GET b|", "SET a 1 NX|"]) {
            r.says(*c, text);
        }
        let up = r.up();
        r.asked(up);
        r.loses(up);
        assert!(r.hears(all[2]).starts_with("-UNCERTAIN"));
        r.prove();
        if again.is_empty() {
            assert!(r.hears(all[0]).starts_with("-UNCERTAIN") && r.hears(all[1]).starts_with("-UNCERTAIN"));
            continue;
        }
        let up = r.up();
        assert_eq!(r.asked(up), requests(again), "{retry:?}");
    }
}

#[test]
fn an_idempotent_write_is_not_sent_again_behind_a_write_that_may_have_been_executed() {
    let mut r = Rig::new(|p| p.retry = Retry::Idempotent);
    r.grant();
    let c = r.client();
    r.says(c, "SET a 1|INCR a|SET b 1|");
    let up = r.up();
    r.asked(up);
    r.loses(up);
    let heard = r.hears(c);
    assert_eq!(heard.matches("-UNCERTAIN").count(), 2, "{heard}");
    r.prove();
    let up = r.up();
    assert_eq!(r.asked(up), requests("SET b 1"));
    assert_eq!(r.w.counters()[0].1.uncertain, 2);
}

#[test]
fn reads_that_wait_are_served_by_a_replica_and_writes_and_what_is_behind_them_are_not() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let all: Vec<ClientId> = (0..4).map(|_| r.client()).collect();
    r.hold(true);
    for (c, text) in all.iter().zip(["GET a|", "SET b 1|GET b|", "WATCH c|GET c|", "PING|SET d 1|"]) {
        r.says(*c, text);
    }
    r.holds_with_replica();
    let replica = r.up_replica();
    assert_eq!(r.asked(replica), requests("GET a|PING"));
    r.answers(replica, "$1|A|+PONG|");
    assert_eq!((r.hears(all[0]), r.hears(all[3])), ("$1|A|".into(), "+PONG|".into()));
    assert_eq!(r.w.counters()[0].1.replica_reads, 2);
    // They go on when the hold has run out.
    r.pass(5_000);
    assert_eq!(r.asked(replica), requests("GET b|GET c"));
    r.answers(replica, "$1|B|$1|C|");
    assert!(r.hears(all[1]).starts_with("-MASTERDOWN "));
    r.says(all[0], "GET e|");
    assert_eq!(r.asked(replica), requests("GET e"));
    // What the replica has not answered goes to the new master.
    r.view.reads_from = None;
    r.grant();
    assert!(r.closed.contains(&Dst::Up(replica)));
    let up = r.up();
    assert_eq!(r.asked(up), requests("GET e"));
    assert_eq!(r.signs, []);
}

#[test]
fn a_replica_that_fails_is_no_sign_and_is_left_alone_for_a_while() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.holds_with_replica();
    r.says(c, "GET a|");
    let replica = r.up_replica();
    r.asked(replica);
    r.answers(replica, "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.|");
    assert_eq!((r.asked(replica), r.hears(c)), (String::new(), String::new()));
    r.pass(500);
    assert_eq!(r.asked(replica), requests("GET a"));
    r.loses(replica);
    let n = r.opened.len();
    r.pass(400);
    assert_eq!(r.opened.len(), n);
    r.pass(100);
    let replica = *r.opened.last().expect("one was opened");
    r.asked(replica);
    // It has been promoted, and the view does not say so yet.
    r.answers(replica, MASTER);
    assert!(r.closed.contains(&Dst::Up(replica)));
    assert_eq!(r.signs, []);
    r.view.reads_from = None;
    r.grant();
    let up = r.up();
    assert_eq!(r.asked(up), requests("GET a"));
}

/// Bytes of a message that takes so much.
fn large(n: usize) -> String {
    message("news", &"x".repeat(n))
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_at_its_own_limit() {
    let mut r = Rig::new(|p| p.limits.subscriber_output_hard = 10_000);
    r.grant();
    let (c, up) = r.subscriber(&["news"]);
    let (other, _) = r.subscriber(&["other"]);
    r.answers(up, &large(6_000));
    assert!(!r.is_closed(c));
    r.hears(c);
    r.answers(up, &large(6_000));
    r.answers(up, &large(6_000));
    assert!(r.is_closed(c) && r.closed.contains(&Dst::Up(up)) && !r.is_closed(other));
    assert_eq!(r.overrun, [OutputLimit::Subscriber]);
    assert_eq!(r.w.counters()[0].1.clients_overrun, 1);
    // What is no subscriber any more may leave more.
    let up = *r.opened.last().expect("its own");
    r.says(other, "UNSUBSCRIBE other|");
    r.asked(up);
    r.answers(up, &confirmed("unsubscribe", "other", 0));
    r.says(other, "GET a|");
    let up = r.up();
    r.asked(up);
    r.answers(up, &format!("$20000|{}|", "x".repeat(20_000)));
    assert!(!r.is_closed(other));
}

#[test]
fn a_subscriber_may_be_closed_by_a_confirmation() {
    let mut r = Rig::new(|p| p.limits.subscriber_output_hard = 50);
    r.grant();
    let (c, up) = r.subscriber(&["news"]);
    r.says(c, "SUBSCRIBE more|");
    r.asked(up);
    r.answers(up, &(confirmed("subscribe", "more", 2) + &message("news", "x")));
    assert!(r.is_closed(c));
}

#[test]
fn a_message_that_is_larger_than_a_subscriber_may_leave_unread_is_not_kept() {
    let mut r = Rig::new(|p| p.limits.subscriber_output_hard = 1 << 20);
    r.grant();
    let (c, up) = r.subscriber(&["news"]);
    r.answers(up, "*3|$7|message|$4|news|$100000000|");
    for _ in 0..11 {
        r.answers(up, &"x".repeat(100_000));
    }
    assert!(r.is_closed(c) && r.closed.contains(&Dst::Up(up)));
    assert_eq!(r.overrun, [OutputLimit::Subscriber]);
}

#[test]
fn a_subscriber_that_lags_for_long_is_closed_unless_it_catches_up() {
    let mut r = Rig::new(|p| {
        p.limits.subscriber_output_soft = 1_000;
        p.limits.subscriber_output_time = Duration::from_secs(3);
    });
    r.grant();
    let (slow, slow_up) = r.subscriber(&["news"]);
    let (late, late_up) = r.subscriber(&["news"]);
    for _ in 0..4 {
        r.answers(slow_up, &large(1_000));
        r.answers(late_up, &large(1_000));
        r.pass(1_000);
        r.hears(late);
    }
    assert!(r.is_closed(slow) && !r.is_closed(late));
    assert_eq!(r.overrun, [OutputLimit::SubscriberForLong]);
}

#[test]
fn a_subscriber_that_lags_is_closed_with_its_connection() {
    let mut r = Rig::new(|p| p.limits.subscriber_output_soft = 1_000);
    r.grant();
    let (slow, slow_up) = r.subscriber(&["news"]);
    let (reads, up) = r.subscriber(&["news"]);
    for up in [slow_up, up] {
        r.answers(up, &large(1_000));
    }
    r.hears(reads);
    r.loses(slow_up);
    r.loses(up);
    assert!(r.is_closed(slow) && !r.is_closed(reads));
    assert_eq!(r.overrun, [OutputLimit::SubscriberLost]);
    assert_eq!(r.w.counters()[0].1.subscribers_interrupted, 1);
}

#[test]
fn long_arrays_on_a_pinned_connection_are_passed_on_while_they_arrive() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "MULTI|GET a|GET b|EXEC|");
    let up = r.up();
    r.asked(up);
    r.answers(up, "+OK|+QUEUED|+QUEUED|");
    r.hears(c);
    let value = "x".repeat(100_000);
    r.answers(up, &format!("*2|$100000|{value}"));
    let part = r.hears(c);
    assert!(part.len() > 100_000, "{} bytes of it", part.len());
    // What an element says is not what EXEC says.
    r.answers(up, "|-EXECABORT not at all|");
    assert_eq!(part + &r.hears(c), format!("*2|$100000|{value}|-EXECABORT not at all|"));
    r.says(c, "MULTI|");
    assert_eq!(r.asked(up), requests("MULTI"), "the connection was given back");
}

#[test]
fn a_script_can_be_ended_while_commands_wait_but_not_on_a_master_of_an_older_term() {
    for reads in [false, true] {
        let mut r = Rig::new(|_| {});
        r.grant();
        let (runs, kills) = (r.client(), r.client());
        r.says(runs, "EVAL s 0|");
        let lane = r.up();
        r.asked(lane);
        r.hold(reads);
        r.says(kills, "SCRIPT KILL|SET a 1|");
        let probe = r.up();
        assert_eq!(r.asked(probe), requests("SCRIPT KILL"));
        r.answers(probe, "+OK|");
        assert_eq!((r.hears(kills), r.asked(lane)), ("+OK|".into(), ROLE.into()));
        r.says(runs, "FUNCTION KILL|");
        r.answers(lane, "-ERR killed|");
        assert_eq!(r.asked(probe), requests("FUNCTION KILL"));
        r.answers(probe, "-LOADING it is not even that|");
        assert_eq!((r.asked(probe), r.signs.len()), (String::new(), 0), "it is not asked again and again");
        // Once the hold has run out, too; but not once the grant has ended.
        r.pass(1_500);
        r.says(runs, "SCRIPT KILL|");
        let probe = if reads { r.up() } else { probe };
        assert_eq!(r.asked(probe), requests("SCRIPT KILL"));
        r.view.master = None;
        r.publish();
        let late = r.client();
        r.says(late, "SCRIPT KILL|");
        assert_eq!(r.hears(late).split(' ').next(), Some("-MASTERDOWN"));
    }
}

#[test]
fn who_is_owed_nothing_leaves_a_connection_on_which_a_script_runs() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (runs, behind, idle, new) = (r.client(), r.client(), r.client(), r.client());
    r.says(idle, "GET a|");
    let lane = r.up();
    r.asked(lane);
    r.answers(lane, "$-1|");
    r.hears(idle);
    r.says(runs, "EVALSHA s 0|");
    r.says(behind, "GET b|");
    r.asked(lane);
    r.hold(true);
    r.says(idle, "GET c|");
    r.view.busy = true;
    r.release();
    r.says(new, "GET d|");
    assert_eq!(r.opened.len(), 2, "one more, for both");
    let other = r.up();
    assert_eq!(r.asked(other), requests("GET c|GET d"));
    r.answers(other, "-BUSY a script|-BUSY a script|");
    assert_eq!((r.hears(idle), r.hears(new)), ("-BUSY a script|".into(), "-BUSY a script|".into()));
    r.says(behind, "GET e|");
    r.asked(lane);
    assert_eq!(r.hears(behind), "", "one place at a time");
    // It goes on: nothing else is taken for a script.
    r.view.busy = false;
    r.publish();
    r.says(new, "GET f|");
    r.asked(other);
    r.view.busy = true;
    r.publish();
    r.says(idle, "GET g|");
    assert_eq!((r.opened.len(), r.asked(other)), (2, requests("GET g")));
    let role = master_at(1);
    r.answers(lane, &format!("+done|$1|B|{role}$1|E|"));
    assert_eq!((r.hears(runs), r.hears(behind)), ("+done|".into(), "$1|B|$1|E|".into()));
    assert!(r.closed.contains(&Dst::Up(lane)), "nobody uses it any more");
    r.says(behind, "GET h|");
    assert_eq!(r.asked(other), requests("GET h"));
}

#[test]
fn nothing_stands_before_an_auth_on_its_connection_because_it_would_not_be_answered_there() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let auth = "AUTH u p|";
    let mut ups = Vec::new();
    for n in 1..=SIGN_INS_MAX {
        let c = r.client();
        r.says(c, auth);
        assert_eq!(r.opened.len(), n, "each has a connection");
        let up = r.up();
        assert_eq!(r.asked(up), requests("AUTH u p"));
        ups.push((c, up));
    }
    let more: Vec<ClientId> = (0..2 * SIGN_INS_MAX).map(|_| r.client()).collect();
    more.iter().for_each(|c| r.says(*c, auth));
    assert_eq!(r.opened.len(), SIGN_INS_MAX, "their number is bounded");
    assert!(ups.iter().all(|(_, up)| r.w.gather(r.now, Dst::Up(*up)).is_empty()));
    for _ in 0..3 {
        for (_, up) in &ups {
            r.answers(*up, "-WRONGPASS no|");
            let next = r.asked(*up);
            assert!(next.is_empty() || next == requests("AUTH u p"), "one at a time: {next}");
        }
    }
    for c in ups.iter().map(|(c, _)| c).chain(&more) {
        assert_eq!(r.hears(*c), "-WRONGPASS no|");
    }
    let c = r.client();
    r.says(c, auth);
    assert_eq!(r.opened.len(), SIGN_INS_MAX, "one that owes nothing is taken");
}

#[test]
fn an_auth_waits_for_another_when_there_is_no_room_for_one_more_connection() {
    let mut r = Rig::new(|p| p.shared_max = 1);
    r.grant();
    let (first, second) = (r.client(), r.client());
    r.says(first, "AUTH u p|");
    let up = r.up();
    assert_eq!(r.asked(up), requests("AUTH u p"));
    r.says(second, "AUTH v p|");
    assert_eq!(r.asked(up), "", "one at a time");
    r.answers(up, "-WRONGPASS no|");
    assert_eq!(r.asked(up), requests("AUTH v p"));
    r.answers(up, "-WRONGPASS nor this|");
    assert_eq!((r.hears(first), r.hears(second)), ("-WRONGPASS no|".into(), "-WRONGPASS nor this|".into()));
    assert_eq!(r.w.upstreams(), 1);
}

#[test]
fn an_auth_of_a_session_with_a_connection_of_its_own_waits_for_what_was_asked_before() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "WATCH k|AUTH u p|");
    let up = r.up();
    assert_eq!(r.asked(up), requests("WATCH k"));
    r.answers(up, "+OK|");
    assert_eq!(r.asked(up), requests("AUTH u p"));
    r.answers(up, "-WRONGPASS no|");
    assert_eq!(r.hears(c), "+OK|-WRONGPASS no|");
}
