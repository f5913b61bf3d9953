//! What a switchover does, whatever its deployment does.
mod world;

use super::*;
use alloc::format;
use alloc::string::String;
use world::{Fail, MS, World, at};

fn refusal(outcome: Result<String, String>) -> String {
    let why = outcome.expect_err("it is refused");
    assert!(why.starts_with("refused, nothing was changed: "), "{why}");
    why
}

/// Nothing that changes anything was sent.
fn assert_untouched(w: &World) {
    for command in ["SENTINEL FAILOVER mymaster", "CLIENT UNPAUSE", "FAILOVER TO"] {
        assert!(!w.did(command), "{command}");
    }
    let changes = |c: &str| {
        (c.starts_with("CLIENT") || c.starts_with("REPLICAOF") || c.starts_with("CONFIG")) && !c.contains('?')
    };
    assert!(w.commands.iter().all(|(_, _, c)| !changes(c)), "{:?}", w.commands);
    assert_eq!(w.holds, 0);
}

#[test]
fn the_old_master_follows_before_its_pause_ends_and_nothing_is_lost() {
    let mut w = World::new();
    let text = w.run(None).unwrap();
    assert!(text.contains("127.0.0.1:2 is master instead of 127.0.0.1:1"), "{text}");
    assert_eq!((w.nodes[&1].follows, w.lost, w.holds), (Some(2), 0, 1));
    let when = |command: &str| w.commands.iter().position(|(_, _, c)| c.starts_with(command)).unwrap();
    assert!(when("CLIENT PAUSE 450 WRITE") < when("SENTINEL FAILOVER mymaster"));
    assert!(when("REPLICAOF 127.0.0.1 2") < when("CLIENT UNPAUSE"));
    w.assert_put_back();
}

#[test]
fn a_named_node_is_made_master_although_the_sentinels_would_choose_another() {
    let mut w = World::new();
    let text = w.run(Some(3)).unwrap();
    assert!(text.contains("127.0.0.1:3 is master"), "{text}");
    let set = w.commands.iter().position(|(_, _, c)| c == "CONFIG SET replica-priority 0").unwrap();
    assert_eq!(w.commands[set].1, 2);
    // Nobody waited while the Sentinel did not show it yet.
    let (shown, paused) =
        (w.commands[set].0 + MS * 9000, w.commands.iter().find(|(_, _, c)| c.starts_with("CLIENT PAUSE 4")));
    assert!(paused.unwrap().0 >= shown);
    let left: Vec<&str> = w.said.iter().filter_map(|s| s.left_behind.as_deref()).collect();
    assert!(left.contains(&"pointsman switchover cache --restore 127.0.0.1:2=100"), "{left:?}");
    w.assert_put_back();
}

#[test]
fn whatever_fails_is_put_back_and_the_direct_client_loses_nothing_before_the_promotion() {
    for to in [None, Some(3)] {
        let mut w = World::new();
        w.run(to).unwrap();
        let commands = w.commands.clone();
        for (n, (_, port, command)) in commands.iter().enumerate() {
            for fail in [Fail::Error, Fail::Lost, Fail::LostAfter, Fail::Silent] {
                let mut w = World::new();
                w.fail = Some((n, fail));
                let outcome = w.run(to);
                let what = format!("{port} {command}: {fail:?}: {outcome:?}");
                let promoted = w.nodes.values().any(|n| n.replid2 == "a");
                if !promoted {
                    assert!(outcome.is_err() && w.nodes[&1].follows.is_none(), "{what}");
                }
                if outcome.is_ok() {
                    assert!(promoted, "{what}");
                }
                // Where the old master could not be told, or the pause ended too early, that is said.
                if w.lost > 0 {
                    assert!(w.said.iter().any(|s| s.warning && s.text.contains("lost")), "{what}");
                }
                w.assert_put_back();
            }
        }
    }
}

#[test]
fn without_sentinels_the_master_hands_over_by_itself() {
    let mut w = World::alone();
    w.nodes.get_mut(&3).unwrap().offset = 1001;
    let text = w.run(None).unwrap();
    assert!(text.contains("127.0.0.1:3 is master"), "{text}");
    assert!(w.did("FAILOVER TO 127.0.0.1 3 TIMEOUT") && !w.did("REPLICAOF 127.0.0.1 3"));
    w.assert_put_back();
    let mut w = World::alone();
    w.lazy = true;
    let why = w.run(Some(2)).unwrap_err();
    assert!(why.contains("came to nothing") && w.did("FAILOVER ABORT"), "{why}");
    w.assert_put_back();
}

#[test]
fn where_the_sentinels_can_coordinate_with_the_master_we_pause_nothing() {
    let mut w = World::new();
    w.coordinated = true;
    w.run(None).unwrap();
    assert!(w.did("SENTINEL FAILOVER mymaster COORDINATED") && !w.did("CLIENT PAUSE 4"));
    assert!(w.said.iter().any(|s| s.text.contains("the Sentinel has cut the clients of 127.0.0.1:2")));
    w.assert_put_back();
}

#[test]
fn where_a_sentinel_that_coordinates_dies_before_it_has_seen_the_promotion_the_old_master_is_unpaused_by_us()
{
    let mut w = World::new();
    (w.coordinated, w.leader_dies) = (true, true);
    let begun = w.now;
    w.run(None).unwrap();
    assert!(w.now < begun + MS * 4000 && w.did("CLIENT UNPAUSE") && !w.did("FAILOVER ABORT"));
    w.assert_put_back();
}

#[test]
fn a_master_that_finds_nobody_to_hand_over_to_is_told_to_go_on() {
    for stalled in [false, true] {
        let mut w = World::new();
        (w.coordinated, w.lazy, w.stalled) = (true, true, stalled);
        let begun = w.now;
        w.run(None).unwrap_err();
        assert!(w.now < begun + MS * 5000 && w.did("FAILOVER ABORT"), "{:?}", w.commands.last());
        w.assert_put_back();
    }
}

#[test]
fn an_order_that_comes_to_nothing_gives_the_service_back_to_the_old_master() {
    let mut w = World::new();
    w.lazy = true;
    let begun = w.now;
    let why = w.run(None).unwrap_err();
    assert!(why.contains("the old master goes on"), "{why}");
    assert!(w.now < begun + MS * 3000);
    // The pause did not wait for that.
    let unpaused = w.commands.iter().find(|(_, _, c)| c == "CLIENT UNPAUSE").unwrap().0;
    let paused = w.commands.iter().find(|(_, _, c)| c.starts_with("CLIENT PAUSE 4")).unwrap().0;
    assert!(unpaused < paused + MS * 500, "half of down-after");
    w.assert_put_back();
}

/// Words of the reason, the node that is wanted, and what is wrong.
type Refusal = (&'static str, Option<u16>, fn(&mut World));

#[test]
fn it_refuses_with_the_reason_before_anything_is_changed() {
    let cases: [Refusal; 13] = [
        ("is master already", Some(1), |_| ()),
        ("there is no node 127.0.0.1:9", Some(9), |_| ()),
        ("the service holds: no majority", None, |w| w.outlook.holds = Some("no majority".into())),
        ("2000000 bytes behind", None, |w| w.nodes.get_mut(&1).unwrap().offset = 2_001_000),
        ("does not replicate from", None, |w| w.nodes.get_mut(&3).unwrap().follows = Some(2)),
        ("CLIENT PAUSE: NOPERM", None, |w| w.denied = Some("CLIENT PAUSE")),
        ("REPLICAOF: NOPERM", None, |w| w.denied = Some("REPLICAOF")),
        ("SENTINEL FAILOVER: NOPERM", None, |w| w.denied = Some("SENTINEL FAILOVER")),
        ("CONFIG SET replica-priority: NOPERM", Some(2), |w| w.denied = Some("CONFIG SET")),
        ("is not calm", None, |w| w.sentinel_flags = "master,failover_in_progress"),
        ("too short", None, |w| w.down_after = 300),
        ("would not promote", Some(3), |w| *w.shown.get_mut(&3).unwrap() = 0),
        ("only 0 of 3 Sentinels", None, |w| w.denied = Some("SENTINEL")),
    ];
    for (words, to, change) in cases {
        let mut w = World::new();
        change(&mut w);
        let why = refusal(w.run(to));
        assert!(why.contains(words), "{words}: {why}");
        assert_untouched(&w);
    }
    let mut w = World::alone();
    w.denied = Some("FAILOVER");
    assert!(refusal(w.run(None)).contains("FAILOVER: NOPERM"));
    let mut w = World::alone();
    w.nodes.retain(|port, _| *port == 1);
    w.outlook.nodes.truncate(1);
    assert!(refusal(w.run(None)).contains("nothing is to be gained"));
    assert_untouched(&w);
}

#[test]
fn a_replica_that_does_not_catch_up_in_time_ends_it_before_the_order() {
    let mut w = World::new();
    w.nodes.get_mut(&1).unwrap().offset = 1010;
    let why = w.run(None).unwrap_err();
    assert!(why.contains("still 10 bytes behind"), "{why}");
    assert!(!w.did("SENTINEL FAILOVER mymaster") && w.did("CLIENT UNPAUSE"));
    w.assert_put_back();
}

#[test]
fn a_process_that_was_stopped_does_not_order_when_its_pause_is_over() {
    let mut w = World::new();
    for port in [1, 2] {
        w.nodes.get_mut(&port).unwrap().offset = 1010;
    }
    w.begin(Order::default());
    while !w.did("CLIENT PAUSE 4") {
        w.step();
    }
    w.silent = true;
    w.step();
    // The last one has caught up meanwhile, and its answer is read before the clock is looked at.
    w.silent = false;
    w.now = w.now + MS * 2000;
    w.nodes.get_mut(&3).unwrap().offset = 1010;
    w.obey_late(3, "INFO replication");
    let why = w.finish().unwrap_err();
    assert!(why.contains("the old master goes on: too little is left of the pause"), "{why}");
    assert!(!w.did("SENTINEL FAILOVER mymaster"));
    w.assert_put_back();
}

#[test]
fn a_process_that_was_stopped_behind_the_order_does_not_say_that_the_old_master_goes_on() {
    let mut w = World::new();
    w.begin(Order::default());
    w.stalled = true;
    while !w.did("SENTINEL FAILOVER mymaster") {
        w.step();
    }
    // What its topology knows is from before the order; the replicas do not answer.
    (w.outlook.holds, w.silent) = (None, true);
    w.now = w.now + MS * 2000;
    w.s.look(w.now, w.outlook.clone());
    w.s.timeout(w.now);
    w.drain();
    assert!(w.outcome.is_none() && w.held, "{:?}", w.outcome);
}

#[test]
fn a_priority_that_is_lowered_after_all_was_given_up_is_put_back() {
    let mut w = World::new();
    w.mute = Some("replica-priority 0");
    w.begin(Order { to: Some("127.0.0.1:3".into()), ..Order::default() });
    assert!(w.did("CONFIG SET replica-priority 0"));
    w.outlook.holds = Some("the master does not answer".into());
    w.happen();
    w.drain();
    w.obey_late(2, "CONFIG SET replica-priority 0");
    assert!(w.finish().unwrap_err().contains("has begun to hold"));
    w.assert_put_back();
}

#[test]
fn the_pause_of_another_switchover_is_not_ended_by_one_that_comes_too_late() {
    // Its order is refused …
    let mut w = World::new();
    w.rival = true;
    let why = w.run(None).unwrap_err();
    assert!(why.contains("INPROG") && w.did("CLIENT PAUSE 4") && !w.did("CLIENT UNPAUSE"), "{why}");
    assert!(!w.held);
    w.assert_put_back();
    // … or it sees the other's failover before it gives one.
    let mut w = World::new();
    w.nodes.get_mut(&1).unwrap().offset = 1010;
    w.begin(Order::default());
    assert!(w.did("CLIENT PAUSE 4"));
    w.outlook.holds = Some("a Sentinel is failing over".into());
    w.happen();
    w.drain();
    assert!(w.finish().unwrap_err().contains("has begun to hold") && !w.did("CLIENT UNPAUSE"));
    w.assert_put_back();
}

#[test]
fn commands_that_stay_in_flight_end_it_before_the_pause() {
    let mut w = World::new();
    w.in_flight = 3;
    let why = w.run(None).unwrap_err();
    assert!(why.contains("3 commands in flight"), "{why}");
    assert!(!w.did("CLIENT PAUSE 4"));
    w.assert_put_back();
}

#[test]
fn a_failover_of_somebody_else_ends_it() {
    let mut w = World::new();
    w.begin(Order { to: Some("127.0.0.1:3".into()), ..Order::default() });
    while !w.did("CONFIG SET replica-priority 0") {
        w.step();
    }
    w.outlook.holds = Some("a Sentinel is failing over".into());
    w.happen();
    w.drain();
    while w.outcome.is_none() {
        w.step();
    }
    assert!(w.outcome.clone().unwrap().unwrap_err().contains("has begun to hold"));
    assert_eq!(w.holds, 0);
    w.assert_put_back();
}

#[test]
fn a_process_that_stops_puts_back_what_it_changed() {
    let mut w = World::new();
    w.begin(Order { to: Some("127.0.0.1:3".into()), ..Order::default() });
    while !w.did("CONFIG SET replica-priority 0") {
        w.step();
    }
    w.s.cancel(w.now);
    w.drain();
    assert!(w.outcome.clone().unwrap().unwrap_err().contains("Pointsman stops"));
    w.assert_put_back();
}

#[test]
fn what_a_dead_process_left_behind_can_be_put_back() {
    let mut w = World::new();
    w.nodes.get_mut(&2).unwrap().priority = 0;
    let order = Order { to: None, restore: [("127.0.0.1:2".into(), 100)].into() };
    w.order(order).unwrap();
    assert_eq!(w.holds, 0);
    w.assert_put_back();
    let order = Order { to: None, restore: [("127.0.0.1:9".into(), 100)].into() };
    assert!(w.order(order).unwrap_err().contains("there is no node"));
}

#[test]
fn a_deposed_master_is_told_once_and_looked_at_again() {
    let now = Now::from_millis(5);
    let mut d = Demotion::new(now, at(1), at(2), None);
    assert_eq!(d.poll(), Some(Do::Connect(LineId(0), at(1))));
    d.connected();
    let sent = |d: &mut Demotion| match d.poll() {
        Some(Do::Send(_, bytes)) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    };
    let info = |role: &str| format!("${}\r\nrole:{role}\r\n\r\n", role.len() + 7);
    assert!(sent(&mut d).contains("INFO"));
    d.bytes(now, info("master").as_bytes());
    assert!(sent(&mut d).contains("REPLICAOF"));
    assert!(sent(&mut d).contains("INFO"));
    d.bytes(now, format!("+OK\r\n{}", info("slave")).as_bytes());
    assert!(sent(&mut d).contains("REWRITE"));
    d.bytes(now, b"-ERR The server is running without a config file\r\n");
    assert!(matches!(d.poll(), Some(Do::Finish(Ok(_)))));

    // One that follows already is not told.
    let mut d = Demotion::new(now, at(1), at(2), None);
    d.connected();
    d.bytes(now, info("slave").as_bytes());
    let all: Vec<Do> = core::iter::from_fn(|| d.poll()).collect();
    assert!(all.iter().any(|x| matches!(x, Do::Finish(Ok(_)))));
    assert!(!format!("{all:?}").contains("REPLICAOF"));
}
