//! What of a session survives a switch, with real servers: subscriptions, scripts, what blocks; what is sent again; reads
//! while there is no master.
use crate::scene::{DEADLINE, Proxy, Raw, bulk, eventually, is_end, is_error, ok};
use pointsman::client::{Client, Value};
use pointsman::sandbox::deployment::{Deployment, Options, Process};
use redis::{Commands, ConnectionInfo, IntoConnectionInfo, Msg, PubSub};
use std::collections::BTreeSet;
use std::time::Duration;

fn start(options: Options, rest: &str) -> (Deployment, Proxy) {
    let deployment = Deployment::start(options).unwrap();
    // How long a switch takes is not what is tested here.
    let proxy = Proxy::before_sentinels(&deployment, &format!("hold = \"5m\"\n{rest}"));
    proxy.wait_master(&deployment.nodes[0]);
    (deployment, proxy)
}

/// The Sentinels of this one do not notice when its master is away for a while.
fn patient() -> Options {
    Options { down_after_ms: 60_000, ..Options::default() }
}

fn planned_failover(deployment: &Deployment, proxy: &Proxy, old: usize) -> usize {
    eventually("a Sentinel begins a failover", || deployment.sentinel_failover().is_ok());
    proxy.follow(deployment, old)
}

fn blocks(node: &Process) {
    eventually("a client blocks", || node.info("clients", "blocked_clients").is_ok_and(|n| n == "1"));
}

fn counted(proxy: &Proxy, name: &str) -> u64 {
    let (_, page) = crate::scene::get(proxy.admin, "/metrics").unwrap();
    let line = page.lines().find(|l| l.starts_with(&format!("pointsman_{name}{{"))).unwrap_or_default();
    line.rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{name}: {line}"))
}

/// A subscriber of the `redis` crate, in either protocol.
fn subscriber(proxy: &Proxy, resp3: bool) -> redis::Connection {
    let protocol = if resp3 { "?protocol=resp3" } else { "" };
    let info: ConnectionInfo = format!("redis://{}{protocol}", proxy.listen).into_connection_info().unwrap();
    let connection = redis::Client::open(info).unwrap().get_connection_with_timeout(DEADLINE).unwrap();
    connection.set_read_timeout(Some(DEADLINE)).unwrap();
    connection
}

/// Publishes until the subscriber hears it: until it is subscribed again nobody does.
fn hears(sub: &mut PubSub<'_>, node: &Process, channel: &str, text: &str) -> Msg {
    let mut publisher = node.connect().unwrap();
    eventually(
        "somebody listens",
        || matches!(publisher.ask(&["PUBLISH", channel, text]).unwrap(), Value::Integer(n) if n > 0),
    );
    sub.get_message().unwrap()
}

#[test]
fn a_subscriber_of_a_client_library_stays_connected_through_failovers_of_both_kinds() {
    let (deployment, proxy) = start(Options::default(), "");
    let mut connections = [subscriber(&proxy, false), subscriber(&proxy, true)];
    let mut subs: Vec<PubSub<'_>> = connections.iter_mut().map(redis::Connection::as_pubsub).collect();
    for (i, sub) in subs.iter_mut().enumerate() {
        sub.subscribe(&[format!("a{i}"), format!("b{i}")]).unwrap();
        sub.psubscribe(format!("p{i}*")).unwrap();
    }
    let mut master = 0;
    for round in 0..2 {
        master = match round {
            0 => planned_failover(&deployment, &proxy, master),
            _ => {
                eventually("the others have followed", || {
                    (0..3).filter(|n| *n != master).all(|n| deployment.in_sync(n, master))
                });
                deployment.nodes[master].kill9();
                proxy.follow(&deployment, master)
            }
        };
        for (i, sub) in subs.iter_mut().enumerate() {
            for (channel, pattern) in
                [(format!("a{i}"), false), (format!("b{i}"), false), (format!("p{i}x"), true)]
            {
                let text = format!("round {round}");
                let message = hears(sub, &deployment.nodes[master], &channel, &text);
                assert_eq!((message.get_channel_name(), message.from_pattern()), (&channel[..], pattern));
                assert_eq!(message.get_payload::<String>().unwrap(), text);
            }
        }
    }
    // As many subscriptions as it believes it has, and an ordinary client again without them.
    for sub in &mut subs {
        sub.unsubscribe("a0").unwrap();
    }
    drop(subs);
    for connection in &mut connections {
        let () = connection.set("after", 1).unwrap();
    }
    assert!(counted(&proxy, "subscribers_interrupted_total") >= 4);
    let subscribed = deployment.nodes[master].ask(&["PUBSUB", "CHANNELS"]).unwrap();
    let own: Vec<_> = subscribed.items().iter().filter(|c| **c != bulk("__sentinel__:hello")).collect();
    assert!(own.is_empty(), "{own:?}");
}

#[test]
fn a_subscription_survives_a_connection_that_merely_breaks_and_shard_channels_too() {
    let (deployment, proxy) = start(patient(), "");
    let node = &deployment.nodes[0];
    let mut client = Raw::tcp(proxy.listen);
    client.say("SSUBSCRIBE s\r\n", "*3\r\n$10\r\nssubscribe\r\n$1\r\ns\r\n:1\r\n");
    let term = proxy.term();
    node.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
    let mut publisher = node.connect().unwrap();
    eventually("it listens again", || {
        matches!(publisher.ask(&["SPUBLISH", "s", "x"]).unwrap(), Value::Integer(1))
    });
    client.expect("*3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$1\r\nx\r\n");
    client.say("SSUBSCRIBE t\r\n", "*3\r\n$10\r\nssubscribe\r\n$1\r\nt\r\n:2\r\n");
    assert_eq!(proxy.term(), term);
}

#[test]
fn a_subscriber_of_whom_too_much_would_be_kept_is_closed() {
    let (deployment, proxy) = start(patient(), "[service.limits]\nsubscriptions = \"200B\"");
    let (mut few, mut many) = (proxy.client(), proxy.client());
    assert_eq!(few.call(&["SUBSCRIBE", "a"]).unwrap().items().len(), 3);
    assert_eq!(many.call(&["SUBSCRIBE", &"b".repeat(200)]).unwrap().items().len(), 3);
    deployment.nodes[0].ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).unwrap();
    assert!(is_end(&many.read().unwrap_err()));
    let mut publisher = deployment.nodes[0].connect().unwrap();
    eventually("the other listens", || publisher.ask(&["PUBLISH", "a", "x"]).unwrap() == Value::Integer(1));
    assert_eq!(few.read().unwrap().items()[2], bulk("x"));
}

#[test]
fn invalidations_go_on_at_the_new_master_and_what_was_missed_is_forgotten() {
    const FLUSH: &str = "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n$-1\r\n";
    let (deployment, proxy) = start(Options::default(), "");
    let mut told = Raw::tcp(proxy.listen);
    told.send("CLIENT ID\r\n");
    let id = told.skip_to("\r\n");
    let id = id.trim().trim_start_matches(':');
    told.send("SUBSCRIBE __redis__:invalidate\r\n");
    told.skip_to(":1\r\n");
    let mut reader = proxy.client();
    assert_eq!(reader.call(&["CLIENT", "TRACKING", "ON", "REDIRECT", id]).unwrap(), ok());
    assert_eq!(reader.call(&["GET", "k"]).unwrap(), Value::Nil);
    let mut master = 0;
    for round in 0..2 {
        master = match round {
            0 => planned_failover(&deployment, &proxy, master),
            _ => {
                deployment.nodes[master].kill9();
                proxy.follow(&deployment, master)
            }
        };
        told.expect(FLUSH);
        let key = format!("k{round}");
        assert_eq!(reader.call(&["GET", &key]).unwrap(), Value::Nil);
        deployment.nodes[master].ask(&["SET", &key, "1"]).unwrap();
        let heard = told.skip_to(&format!("*1\r\n$2\r\n{key}\r\n"));
        let flushes = heard.matches(FLUSH).count();
        assert!(flushes > 0 && heard.matches("message").count() == flushes + 1, "{heard}");
        eventually("the others have followed", || {
            (0..3).filter(|n| *n != master).all(|n| round > 0 || deployment.in_sync(n, master))
        });
    }
    assert_eq!(proxy.service("cache")["uncertain"], 0);
}

#[test]
fn a_script_that_was_loaded_or_run_before_a_switch_runs_after_it() {
    let (deployment, proxy) = start(Options::default(), "");
    let mut client = proxy.client();
    let set = "return redis.call('SET', KEYS[1], ARGV[1])";
    let sha = client.call(&["SCRIPT", "LOAD", set]).unwrap().text().unwrap();
    assert_eq!(client.call(&["EVAL_RO", "return 'read'", "0"]).unwrap(), bulk("read"));
    let read_sha = deployment.nodes[1].ask(&["SCRIPT", "LOAD", "return 'read'"]).unwrap().text().unwrap();
    deployment.nodes.iter().for_each(|node| drop(node.ask(&["SCRIPT", "FLUSH"]).unwrap()));
    let evalsha = ["EVALSHA", &sha, "1", "k", "v"];
    assert!(is_error(&client.call(&evalsha).unwrap(), "NOSCRIPT"), "as a server whose scripts were flushed");
    let new = planned_failover(&deployment, &proxy, 0);
    assert_eq!(client.call(&evalsha).unwrap(), ok());
    assert_eq!(client.call(&["EVALSHA_RO", &read_sha, "0"]).unwrap(), bulk("read"));
    assert_eq!(deployment.nodes[new].ask(&["GET", "k"]).unwrap(), bulk("v"));
    let there = deployment.nodes[new].ask(&["SCRIPT", "EXISTS", &sha, &read_sha]).unwrap();
    assert_eq!(there.items(), [Value::Integer(1), Value::Integer(1)]);
    assert!(is_error(&client.call(&["EVALSHA", &"0".repeat(40), "0"]).unwrap(), "NOSCRIPT"));
    assert_eq!(counted(&proxy, "scripts_reloaded_total"), 2);
}

#[test]
fn a_wait_for_writes_to_an_earlier_master_is_an_error_until_the_session_writes_again() {
    let (deployment, proxy) = start(Options::default(), "");
    let (mut writer, mut reader) = (proxy.client(), proxy.client());
    let wait = ["WAIT", "1", "60000"];
    assert_eq!(writer.call(&["SET", "k", "1"]).unwrap(), ok());
    assert!(matches!(writer.call(&wait).unwrap(), Value::Integer(1..)));
    assert_eq!(reader.call(&["GET", "k"]).unwrap(), bulk("1"));
    let new = planned_failover(&deployment, &proxy, 0);
    for _ in 0..2 {
        assert!(is_error(&writer.call(&wait).unwrap(), "UNCERTAIN"));
    }
    assert!(matches!(reader.call(&["WAIT", "0", "1"]).unwrap(), Value::Integer(_)), "it has written nothing");
    eventually("a replica follows", || (0..3).any(|n| n != new && deployment.in_sync(n, new)));
    assert_eq!(writer.call(&["SET", "k", "2"]).unwrap(), ok());
    assert!(matches!(writer.call(&wait).unwrap(), Value::Integer(1..)));
}

#[test]
fn a_pop_that_a_demotion_unblocked_pops_on_the_new_master() {
    let deployment = Deployment::start(Options { sentinels: 0, ..Options::default() }).unwrap();
    let nodes: Vec<String> = deployment.nodes.iter().map(|node| node.addr().to_string()).collect();
    let proxy = Proxy::start(&deployment, &format!("nodes = {nodes:?}\nhold = \"5m\""));
    let [old, new, third] = &deployment.nodes[..] else { unreachable!("three nodes") };
    proxy.wait_master(old);
    let mut popper = proxy.client();
    popper.send(&["BLPOP", "l", "0"]).unwrap();
    let mut briefly = proxy.client();
    briefly.send(&["BLPOP", "nothing", "1.5"]).unwrap();
    eventually("both block", || old.info("clients", "blocked_clients").unwrap() == "2");
    // The old one first, so that what blocks is told before anybody is promoted.
    let port = new.port().to_string();
    old.ask(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
    proxy.wait_state("holding");
    new.ask(&["REPLICAOF", "NO", "ONE"]).unwrap();
    third.ask(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
    proxy.wait_master(new);
    assert_eq!(briefly.read().unwrap(), Value::Nil);
    blocks(new);
    assert_eq!(new.ask(&["RPUSH", "l", "x"]).unwrap(), Value::Integer(1));
    assert_eq!(popper.read().unwrap().items()[1], bulk("x"));
    assert_eq!(proxy.service("cache")["uncertain"], 0);
}

#[test]
fn a_pop_that_waits_at_a_planned_switch_pops_on_the_new_master() {
    let (deployment, proxy) = start(Options::default(), "");
    let mut popper = proxy.client();
    let mut master = 0;
    for by_us in [false, true] {
        popper.send(&["BLPOP", "l", "0"]).unwrap();
        blocks(&deployment.nodes[master]);
        let before = master;
        master = if by_us {
            deployment.wait_settled(DEADLINE).unwrap();
            let admin = proxy.admin.to_string();
            let (good, out, err) = crate::scene::said(&["switchover", "cache", "--admin", &admin]);
            assert!(good, "{out}{err}");
            proxy.follow(&deployment, before)
        } else {
            planned_failover(&deployment, &proxy, before)
        };
        blocks(&deployment.nodes[master]);
        deployment.nodes[master].ask(&["RPUSH", "l", "x"]).unwrap();
        assert_eq!(popper.read().unwrap().items()[1], bulk("x"), "{:?}", proxy.events());
    }
    assert_eq!(proxy.service("cache")["uncertain"], 0);
}

#[test]
fn a_client_whose_pop_waits_when_the_master_dies_loses_its_connection_where_that_was_chosen_and_pops_on_the_next()
 {
    let (deployment, proxy) = start(Options::default(), "lost_pops = \"close\"");
    let (mut popper, mut other) = (proxy.client(), proxy.client());
    popper.send(&["BLPOP", "l", "0"]).unwrap();
    blocks(&deployment.nodes[0]);
    assert_eq!(other.call(&["SET", "k", "1"]).unwrap(), ok());
    deployment.nodes[0].kill9();
    assert!(is_end(&popper.read().unwrap_err()));
    popper = proxy.client();
    popper.send(&["BLPOP", "l", "0"]).unwrap();
    let new = proxy.follow(&deployment, 0);
    blocks(&deployment.nodes[new]);
    assert_eq!(other.call(&["RPUSH", "l", "x"]).unwrap(), Value::Integer(1));
    assert_eq!(popper.read().unwrap().items()[1], bulk("x"));
    let service = proxy.service("cache");
    assert_eq!((&service["uncertain"], &service["statistics"]["errors"]["cut"]), (&0.into(), &1.into()));
}

fn added(node: &mut Client, text: &str) -> String {
    node.ask(&["XADD", "s", "*", "f", text]).unwrap().text().unwrap()
}

#[test]
fn a_blocked_read_of_new_entries_misses_none_that_were_added_before_it_was_asked_again() {
    // The node is promoted about a second before the proxy believes it.
    let (deployment, proxy) = start(Options::default(), "trust = \"majority\"");
    added(&mut deployment.nodes[0].connect().unwrap(), "old");
    eventually("it is replicated", || (1..3).all(|n| deployment.in_sync(n, 0)));
    let mut reader = proxy.client();
    reader.send(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]).unwrap();
    blocks(&deployment.nodes[0]);
    deployment.nodes[0].kill9();
    proxy.wait_state("holding");
    let role = |node: &Process| node.ask(&["ROLE"]).is_ok_and(|role| role.items()[0] == bulk("master"));
    let new = crate::scene::until("one is promoted", || (1..3).find(|n| role(&deployment.nodes[*n])));
    added(&mut deployment.nodes[new].connect().unwrap(), "in between");
    let read = reader.read().unwrap();
    let entries = read.items()[0].items()[1].items();
    assert_eq!(entries.len(), 1, "{read:?}");
    assert_eq!(entries[0].items()[1].items()[1], bulk("in between"));
}

/// A cursor is of one server's tables. Another takes it without an error, as it takes any number; that nothing is missed holds only
/// of a scan that begins anew.
#[test]
fn a_cursor_of_the_old_master_is_taken_by_the_new_one_and_a_new_scan_finds_all() {
    const KEYS: usize = 1_000;
    let (deployment, proxy) = start(Options::default(), "");
    let mut client = proxy.client();
    let fill = "for i = 1, ARGV[1] do redis.call('SET', 'key:' .. i, i) end";
    client.call(&["EVAL", fill, "0", &KEYS.to_string()]).unwrap();
    let mut page = |cursor: &str| {
        let reply = client.ask(&["SCAN", cursor, "COUNT", "100"]).unwrap();
        let keys: Vec<String> = reply.items()[1].items().iter().filter_map(Value::text).collect();
        (reply.items()[0].text().unwrap(), keys)
    };
    let (old_cursor, _) = page("0");
    assert_ne!(old_cursor, "0");
    eventually("the replicas have it", || (1..3).all(|n| deployment.in_sync(n, 0)));
    planned_failover(&deployment, &proxy, 0);
    for begin in [&*old_cursor, "0"] {
        let (mut cursor, mut found) = (begin.to_owned(), BTreeSet::new());
        loop {
            let (next, keys) = page(&cursor);
            found.extend(keys);
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        assert!(found.iter().all(|key| key.starts_with("key:")));
        assert!(begin != "0" || found.len() == KEYS, "{} of {KEYS}", found.len());
    }
}

#[test]
fn an_idempotent_write_is_sent_again_where_that_was_chosen() {
    let (deployment, proxy) = start(Options::default(), "retry = \"idempotent\"");
    let (mut sets, mut counts) = (proxy.client(), proxy.client());
    assert_eq!(sets.call(&["SET", "k", "0"]).unwrap(), ok());
    assert_eq!(counts.call(&["INCR", "n"]).unwrap(), Value::Integer(1));
    deployment.nodes[0].stop();
    sets.send(&["SET", "k", "1", "EX", "1000"]).unwrap();
    counts.send(&["INCR", "n"]).unwrap();
    let new = proxy.follow(&deployment, 0);
    assert_eq!(sets.read().unwrap(), ok());
    assert!(is_error(&counts.read().unwrap(), "UNCERTAIN"));
    assert_eq!(deployment.nodes[new].ask(&["GET", "k"]).unwrap(), bulk("1"));
}

#[test]
fn reads_are_served_by_a_replica_while_there_is_no_master_and_writes_wait() {
    let (deployment, proxy) = start(patient(), "held_reads = \"replica\"");
    let (mut writer, mut reader) = (proxy.client(), proxy.client());
    assert_eq!(writer.call(&["SET", "k", "1"]).unwrap(), ok());
    assert_eq!(reader.call(&["GET", "k"]).unwrap(), bulk("1"));
    eventually("the replicas have it", || (1..3).all(|n| deployment.in_sync(n, 0)));
    deployment.nodes[0].kill9();
    proxy.wait_state("holding");
    writer.send(&["SET", "k", "2"]).unwrap();
    assert_eq!(reader.call(&["GET", "k"]).unwrap(), bulk("1"));
    let mut newcomer = proxy.client();
    assert_eq!(newcomer.call(&["GET", "k"]).unwrap(), bulk("1"));
    assert!(!writer.wait(Duration::from_millis(1)).unwrap());
    assert!(counted(&proxy, "replica_reads_total") >= 2);
    assert_eq!(proxy.service("cache")["gates"]["reads"], "replica");
    deployment.nodes[0].restart().unwrap();
    assert_eq!(writer.read().unwrap(), ok());
    assert_eq!(reader.call(&["GET", "k"]).unwrap(), bulk("2"));
    let replicas =
        [1, 2].map(|n| deployment.nodes[n].info("commandstats", "cmdstat_set").unwrap_or_default());
    assert_eq!(proxy.service("cache")["uncertain"], 0, "{replicas:?}");
}
