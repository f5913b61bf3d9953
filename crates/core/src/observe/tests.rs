//! What observers ask, and what they make of answers, byte for byte.
use super::*;
use crate::topology::observation::*;
use crate::topology::settings::{Failback, HostPort, StaticNode};
use crate::topology::snapshot::ServiceId;
use alloc::string::ToString;

const MS: Duration = Duration::from_millis(1);
const T0: Now = Now::from_millis(5000);

fn settings() -> Settings {
    let source = Source::Sentinels { sentinels: Vec::new(), master: "mymaster".into() };
    let credential =
        Credential { user: Some(b"watch".as_slice().into()), secret: b"s3cret".as_slice().into() };
    Settings {
        sentinel_credential: Some(credential),
        interval: 200 * MS,
        ..Settings::new(ServiceId(0), "cache", source)
    }
}

fn at(port: u16) -> HostPort {
    HostPort { host: "10.0.0.1".into(), port }
}

fn observers(target: Target) -> Vec<Observer> {
    Observer::all(T0, &settings(), &target)
}

/// Everything that it wants done, and what it saw.
fn drain(o: &mut Observer) -> (String, Vec<Seen>, bool) {
    let (mut sent, mut seen, mut closed) = (Vec::new(), Vec::new(), false);
    while let Some(d) = o.poll() {
        match d {
            Do::Send(b) => sent.extend(b),
            Do::Observed(x) => seen.push(x.seen),
            Do::Close => closed = true,
            Do::Connect => sent.extend(b"CONNECT "),
        }
    }
    (String::from_utf8(sent).unwrap().replace("\r\n", " "), seen, closed)
}

fn bulk(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|w| format!("${}\r\n{w}\r\n", w.len())).collect();
    format!("*{}\r\n{}", words.len(), words.concat())
}

fn master(epoch: &str, flags: &str, state: Option<&str>) -> String {
    let mut words = Vec::from(["name", "mymaster", "ip", "10.0.0.1", "port", "6379", "flags", flags]);
    if let Some(s) = state {
        words.extend(["failover-state", s]);
    }
    words.extend(["last-ok-ping-reply", "88", "down-after-milliseconds", "5000", "config-epoch", epoch]);
    words.extend(["num-other-sentinels", "2", "quorum", "2", "failover-timeout", "60000"]);
    bulk(&words)
}

/// A Sentinel's poller, connected and greeted.
fn polling() -> Observer {
    let mut o = observers(Target::sentinel(at(26379))).remove(0);
    o.connected(T0, "10.0.0.1:26379".parse().unwrap());
    drain(&mut o);
    o.bytes(T0, b"+OK\r\n$3\r\nabc\r\n*0\r\n*0\r\n-NOPERM no INFO\r\n");
    drain(&mut o);
    o
}

fn view(answers: &str) -> Vec<Seen> {
    let mut o = polling();
    o.bytes(T0 + MS, answers.as_bytes());
    drain(&mut o).1
}

#[test]
fn a_sentinel_is_asked_for_its_lists_first_and_for_the_address_between_two_epochs() {
    let mut o = observers(Target::sentinel(at(26379))).remove(0);
    assert_eq!(drain(&mut o).0, "CONNECT ");
    o.connected(T0, "10.0.0.1:26379".parse().unwrap());
    let (sent, seen, _) = drain(&mut o);
    let words: Vec<&str> = sent.split(' ').filter(|w| !w.starts_with(['*', '$'])).collect();
    assert_eq!(
        words.join(" ").trim(),
        "AUTH watch s3cret SENTINEL MYID SENTINEL SENTINELS mymaster SENTINEL SLAVES mymaster \
         INFO sentinel SENTINEL MASTER mymaster SENTINEL GET-MASTER-ADDR-BY-NAME mymaster SENTINEL MASTER mymaster"
    );
    assert_eq!(seen, [Seen::Connected("10.0.0.1:26379".parse().unwrap())]);
    assert!(!format!("{o:?}").contains("s3cret"), "the secret is not kept in the questions");
    let words = ["name", "x", "ip", "10.0.0.2", "port", "26379", "runid", "id2", "flags", "s_down,sentinel"];
    let peer = bulk(
        &[&words[..], &["voted-leader", "id1", "voted-leader-epoch", "7", "last-ok-ping-reply", "4321"]]
            .concat(),
    );
    let slave = bulk(&["ip", "redis-1.svc", "port", "6380", "flags", "slave,promoted"]);
    let info = "# Sentinel\r\nsentinel_masters:1\r\nsentinel_tilt:1\r\n";
    let info = format!("${}\r\n{info}\r\n", info.len());
    o.bytes(T0, format!("+OK\r\n$3\r\nabc\r\n*1\r\n{peer}*1\r\n{slave}{info}").as_bytes());
    let seen = drain(&mut o).1;
    assert_eq!(seen[0], Seen::Id("abc".into()));
    let listed = HostPort { host: "redis-1.svc".into(), port: 6380 };
    let host = HostPort { host: "10.0.0.2".into(), port: 26379 };
    let vote = Some(Vote { leader: "id1".into(), epoch: 7 });
    assert_eq!(
        seen[1],
        Seen::Peers(Vec::from([Peer { id: "id2".into(), at: host, up: false, pong_age: 4321 * MS, vote }]))
    );
    assert_eq!(seen[2], Seen::Replicas(Vec::from([Listed { at: listed, selected: true }])));
    assert_eq!(seen[3], Seen::Tilt(true));
}

#[test]
fn a_view_counts_only_if_the_epoch_was_the_same_before_and_after() {
    let addr = bulk(&["10.0.0.7", "6379"]);
    let seen = view(&format!("{}{addr}{}", master("7", "master", None), master("7", "master,s_down", None)));
    let [Seen::View(v)] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((v.epoch, v.master.to_string().as_str(), v.stage), (7, "10.0.0.7:6379", Stage::Suspects));
    assert_eq!((v.quorum, v.others, v.down_after, v.pong_age), (2, 2, 5000 * MS, 88 * MS));
    assert_eq!(view(&format!("{}{addr}{}", master("7", "master", None), master("8", "master", None))), []);
}

#[test]
fn flags_and_failover_state_give_the_stage() {
    let stage = |flags: &str, state: Option<&str>| {
        let m = master("7", flags, state);
        match view(&format!("{m}{}{m}", bulk(&["h", "1"]))).as_slice() {
            [Seen::View(v)] => {
                assert_eq!(v.forced, flags.contains("force"));
                assert_eq!(v.coordinated, flags.contains("coordinated"));
                v.stage
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(stage("master", None), Stage::Calm);
    assert_eq!(stage("master,s_down,o_down", None), Stage::Tries);
    assert_eq!(stage("master,o_down,failover_in_progress", Some("wait_start")), Stage::Tries);
    assert_eq!(stage("master,failover_in_progress,force_failover", Some("wait_start")), Stage::Acts);
    assert_eq!(stage("master,failover_in_progress", Some("wait_promotion")), Stage::Acts);
    let coordinated = "master,failover_in_progress,coordinated_failover";
    assert_eq!(stage(coordinated, Some("wait_start")), Stage::Tries);
    assert_eq!(stage(coordinated, Some("send_slaveof_noone")), Stage::Acts);
    assert_eq!(stage("master,failover_in_progress", Some("reconf_slaves")), Stage::Promoted);
}

#[test]
fn errors_and_strange_answers_are_problems_and_never_panics() {
    let none = "-ERR No such master with that name\r\n";
    assert_eq!(view(&format!("{none}*-1\r\n{none}")), [Seen::NoSuchMaster]);
    let unknown = "-ERR unknown command `SENTINEL`\r\n";
    assert_eq!(view(&unknown.repeat(3)), [Seen::Problem("ERR unknown command `SENTINEL`".into())]);
    assert_eq!(view(":1\r\n:2\r\n:3\r\n"), []);
    assert_eq!(view("*1\r\n$1\r\nx\r\n*3\r\n:1\r\n:1\r\n:1\r\n*0\r\n").len(), 1);
    assert_eq!(
        view("HTTP/1.1 400 Bad Request\r\n"),
        [Seen::Gone(Gone::Garbage("an answer that is not RESP".into()))]
    );
    let m = master("7", "master", None);
    let seen = view(&format!("{m}{}{m}+EXTRA\r\n", bulk(&["h", "1"])));
    assert!(matches!(seen.as_slice(), [Seen::View(_), Seen::Gone(Gone::Garbage(_))]), "{seen:?}");
}

#[test]
fn a_wrong_password_is_told_and_tried_again_patiently() {
    let mut o = observers(Target::sentinel(at(26379))).remove(0);
    o.connected(T0, "10.0.0.1:26379".parse().unwrap());
    drain(&mut o);
    o.bytes(T0, b"-WRONGPASS invalid username-password pair or user is disabled.\r\n");
    let (_, seen, closed) = drain(&mut o);
    assert!(closed && matches!(&seen[..], [Seen::Gone(Gone::Denied(t))] if t.starts_with("WRONGPASS")));
    assert_eq!(o.next_timeout(), Some(T0 + BACKOFF_MAX));
    // Where none is needed, one too many does no harm.
    let mut o = observers(Target::sentinel(at(26379))).remove(0);
    o.connected(T0, "10.0.0.1:26379".parse().unwrap());
    drain(&mut o);
    o.bytes(T0, b"-ERR AUTH <password> called without any password configured for the default user. Are you sure?\r\n$1\r\nx\r\n");
    assert_eq!(drain(&mut o).1, [Seen::Id("x".into())]);
}

#[test]
fn silence_ends_a_connection_and_failed_ones_are_tried_again_at_least_each_second() {
    let mut o = polling();
    assert_eq!(o.next_timeout(), Some(T0 + 1000 * MS));
    o.timeout(T0 + 1000 * MS);
    let (_, seen, closed) = drain(&mut o);
    assert!(closed && seen == [Seen::Gone(Gone::Timeout)]);
    let mut waits = Vec::new();
    for _ in 0..9 {
        let at = o.next_timeout().unwrap();
        o.timeout(at);
        assert_eq!(drain(&mut o).0, "CONNECT ");
        o.gone(at, Gone::Unreachable);
        assert_eq!(drain(&mut o).1, [Seen::Gone(Gone::Unreachable)]);
        waits.push(o.next_timeout().unwrap().since(at));
    }
    assert!(waits.is_sorted() && waits[8] == BACKOFF_MAX && waits[0] < 100 * MS, "{waits:?}");
    let last = o.next_timeout().unwrap();
    o.set_pace(last - 900 * MS, Pace::Hurried);
    assert_eq!(o.next_timeout(), Some(last - 800 * MS));
    o.ask(last - 850 * MS);
    assert_eq!(o.next_timeout(), Some(last - 850 * MS));
}

#[test]
fn a_sentinel_that_refuses_connections_is_tried_often_and_a_refusal_dates_from_the_attempt() {
    let mut o = polling();
    o.gone(T0, Gone::Closed);
    drain(&mut o);
    for _ in 0..9 {
        let at = o.next_timeout().unwrap();
        o.timeout(at);
        drain(&mut o);
        o.gone(at + 7 * MS, Gone::Refused);
        let Some(Do::Observed(x)) = o.poll() else { panic!("a refusal is seen") };
        assert_eq!((x.seen, x.sent), (Seen::Gone(Gone::Refused), at));
        assert!(o.next_timeout().unwrap().since(at + 7 * MS) <= REFUSED_EVERY);
    }
}

#[test]
fn a_sentinel_is_asked_for_its_flags_every_50_ms_and_for_all_when_they_change() {
    let mut o = polling();
    let m = master("7", "master", None);
    o.bytes(T0, format!("{m}{}{m}", bulk(&["h", "1"])).as_bytes());
    drain(&mut o);
    let flags = "*3 $8 SENTINEL $6 MASTER $8 mymaster ";
    for i in 1..=3 {
        let at = T0 + i * PULSE;
        assert_eq!(o.next_timeout(), Some(at));
        o.timeout(at);
        assert_eq!(drain(&mut o).0, flags, "one short question");
        assert_eq!(o.next_timeout(), Some((T0 + 200 * MS).max(at)), "and one at a time");
        o.bytes(at, m.as_bytes());
        let (sent, seen, _) = drain(&mut o);
        assert!(
            sent.is_empty()
                && matches!(seen.as_slice(), [Seen::Flags(f)] if f.pong_age == 88 * MS && f.linked)
        );
    }
    o.timeout(T0 + 200 * MS);
    assert!(drain(&mut o).0.contains("GET-MASTER-ADDR-BY-NAME"), "the whole round comes at its interval");
    o.bytes(T0 + 200 * MS, format!("{m}{}{m}", bulk(&["h", "1"])).as_bytes());
    drain(&mut o);
    o.timeout(T0 + 250 * MS);
    drain(&mut o);
    let acts = master("7", "master,failover_in_progress,disconnected", Some("select_slave"));
    o.bytes(T0 + 250 * MS, acts.as_bytes());
    let (sent, seen, _) = drain(&mut o);
    assert!(matches!(seen.as_slice(), [Seen::Flags(f)] if f.stage == Stage::Acts && !f.linked));
    assert!(sent.contains("GET-MASTER-ADDR-BY-NAME"), "{sent}");
}

#[test]
fn a_sentinel_whose_events_arrive_is_asked_twice_for_its_flags_between_two_rounds() {
    let mut o = polling();
    let m = master("7", "master", None);
    let round = format!("{m}{}{m}", bulk(&["h", "1"]));
    o.bytes(T0, round.as_bytes());
    o.set_pace(T0, Pace::Relaxed);
    drain(&mut o);
    assert_eq!(o.next_timeout(), Some(T0 + PULSE_RELAXED));
    o.timeout(T0 + PULSE_RELAXED);
    assert!(drain(&mut o).0.starts_with("*3 $8 SENTINEL $6 MASTER"));
    o.bytes(T0 + 90 * MS, m.as_bytes());
    assert_eq!(o.next_timeout(), Some(T0 + 2 * PULSE_RELAXED));
    o.set_pace(T0 + 100 * MS, Pace::Usual);
    assert_eq!(o.next_timeout(), Some(T0 + PULSE_RELAXED + PULSE));
}

#[test]
fn a_node_is_asked_at_its_interval_faster_in_a_hurry_and_at_once_on_demand() {
    let mut o = observers(Target::node(at(6379))).remove(0);
    drain(&mut o);
    o.connected(T0, "10.0.0.1:6379".parse().unwrap());
    let sent = drain(&mut o).0;
    assert!(sent.contains("INFO $6 server") && sent.contains("ROLE"));
    let info = |s: &str| format!("${}\r\n{s}\r\n", s.len());
    let server = info("# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n");
    let replication =
        info("role:master\r\nmaster_replid:aaa\r\nmaster_replid2:000\r\nsecond_repl_offset:-1\r\n");
    let persistence = info("loading:0\r\nasync_loading:0\r\n");
    let round = format!("*3\r\n$6\r\nmaster\r\n:4711\r\n*0\r\n{replication}{persistence}");
    o.bytes(T0 + MS, format!("{server}{round}").as_bytes());
    let lineage = Some(Lineage { replid: "aaa".into(), replid2: None, second_offset: -1 });
    let report = Report {
        role: Role::Master,
        loading: false,
        run_id: Some("abc".into()),
        lineage,
        offset: 4711,
        attached: Vec::new(),
    };
    let mut seen = drain(&mut o).1;
    assert_eq!(seen.pop(), Some(Seen::Report(report.clone())));
    assert_eq!(o.next_timeout(), Some(T0 + 200 * MS));
    o.set_pace(T0 + MS, Pace::Hurried);
    assert_eq!(o.next_timeout(), Some(T0 + HURRY));
    // Asked while a round is under way: the new question is sent all the same, and its answer carries its own time.
    o.timeout(T0 + HURRY);
    o.ask(T0 + HURRY + MS);
    drain(&mut o);
    o.bytes(T0 + HURRY + 2 * MS, round.repeat(2).as_bytes());
    let mut times = Vec::new();
    while let Some(Do::Observed(x)) = o.poll() {
        assert_eq!(x.seen, Seen::Report(report.clone()));
        times.push(x.sent);
    }
    assert_eq!(times, [T0 + HURRY, T0 + HURRY + MS]);
    // More at once than it may have unanswered is made up for later, once.
    for _ in 0..20 {
        o.ask(T0 + HURRY + 3 * MS);
    }
    assert_eq!(drain(&mut o).0.matches("ROLE").count(), ROUNDS_MAX as usize);
    o.bytes(T0 + HURRY + 4 * MS, round.as_bytes());
    assert_eq!(drain(&mut o).0.matches("ROLE").count(), 1);
}

#[test]
fn a_node_s_role_is_taken_from_info_where_role_is_forbidden_and_loading_is_seen() {
    let answers = |role: &str, replication: &str, persistence: &str| {
        let mut o = observers(Target::node(at(6379))).remove(0);
        o.connected(T0, "10.0.0.1:6379".parse().unwrap());
        drain(&mut o);
        let info = |s: &str| if s.starts_with('-') { s.into() } else { format!("${}\r\n{s}\r\n", s.len()) };
        o.bytes(T0, format!("-NOPERM no\r\n{role}{}{}", info(replication), info(persistence)).as_bytes());
        drain(&mut o).1.pop().unwrap()
    };
    let slave =
        "role:slave\r\nmaster_host:m\r\nmaster_port:1\r\nmaster_link_status:up\r\nslave_repl_offset:9\r\n";
    let Seen::Report(r) = answers("-NOPERM x\r\n", slave, "loading:0\r\n") else { panic!() };
    let of = HostPort { host: "m".into(), port: 1 };
    assert_eq!((r.role, r.offset, r.run_id), (Role::Replica { of, link_up: true }, 9, None));
    // ROLE says master, INFO a moment later replica: it is just being demoted.
    let Seen::Report(r) = answers("*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n", slave, "loading:0\r\n") else {
        panic!()
    };
    assert!(matches!(r.role, Role::Replica { .. }));
    let Seen::Report(r) = answers("*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n", "role:master\r\n", "loading:1\r\n")
    else {
        panic!()
    };
    assert!(r.loading);
    let Seen::Report(r) = answers("-LOADING Redis is loading\r\n", "-NOPERM\r\n", "-NOPERM\r\n") else {
        panic!()
    };
    assert!(r.loading);
    let forbidden = answers("-NOPERM ROLE\r\n", "-NOPERM\r\n", "-NOPERM\r\n");
    assert_eq!(forbidden, Seen::Problem("NOPERM ROLE".into()));
    let sentinel = answers("*2\r\n$8\r\nsentinel\r\n*1\r\n$1\r\nm\r\n", "", "");
    assert_eq!(sentinel, Seen::Problem("it is not a master and not a replica".into()));
}

#[test]
fn events_of_this_master_are_announced_and_others_are_not() {
    let mut o = observers(Target::sentinel(at(26379))).remove(1);
    drain(&mut o);
    o.connected(T0, "10.0.0.1:26379".parse().unwrap());
    assert!(drain(&mut o).0.contains("PSUBSCRIBE"));
    o.bytes(T0, b"+OK\r\n*3\r\n$10\r\npsubscribe\r\n$1\r\n*\r\n:1\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    assert_eq!(drain(&mut o).1, [Seen::Listening(Ok(())), Seen::Listening(Ok(()))], "and again by each PONG");
    let mut told = |channel: &str, payload: &str| {
        o.bytes(T0, bulk(&["pmessage", "*", channel, payload]).as_bytes());
        match drain(&mut o).1.as_slice() {
            [] => None,
            [Seen::Announced(a)] => Some((a.stage, a.selected.clone())),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told("+odown", "master mymaster 10.0.0.1 6379 #quorum 2/2"), Some((Some(Stage::Tries), None)));
    assert_eq!(told("+odown", "master other 10.0.0.1 6379 #quorum 2/2"), None);
    let slave = "slave 10.0.0.2:6379 10.0.0.2 6379 @ mymaster 10.0.0.1 6379";
    let selected = HostPort { host: "10.0.0.2".into(), port: 6379 };
    assert_eq!(told("+selected-slave", slave), Some((Some(Stage::Acts), Some(selected))));
    assert_eq!(told("+sdown", slave), Some((None, None)));
    assert_eq!(told("+switch-master", "mymaster 10.0.0.1 6379 10.0.0.2 6379"), Some((None, None)));
    assert_eq!(told("+vote-for-leader", "0123456789 12"), Some((None, None)));
    o.bytes(T0, bulk(&["pmessage", "*", "+vote-for-leader", "0123456789 12"]).as_bytes());
    let vote = Some(Vote { leader: "0123456789".into(), epoch: 12 });
    assert!(matches!(&drain(&mut o).1[..], [Seen::Announced(a)] if a.vote == vote));
    let mut told = |channel: &str, payload: &str| {
        o.bytes(T0, bulk(&["pmessage", "*", channel, payload]).as_bytes());
        drain(&mut o).1.len()
    };
    assert_eq!(told("+vote-for-leader", "0123456789 many"), 1);
    assert_eq!(told("+switch-master", "other 10.0.0.1 6379 10.0.0.2 6379"), 0);
}

#[test]
fn forbidden_events_are_only_noted() {
    let mut o = observers(Target::sentinel(at(26379))).remove(1);
    o.connected(T0, "10.0.0.1:26379".parse().unwrap());
    drain(&mut o);
    o.bytes(T0, b"+OK\r\n-NOPERM no channels\r\n");
    let (_, seen, closed) = drain(&mut o);
    assert!(closed && seen == [Seen::Listening(Err("NOPERM no channels".into()))]);
    assert_eq!(o.next_timeout(), Some(T0 + BACKOFF_DENIED));
}

#[test]
fn a_listed_node_is_only_pinged_and_failures_come_no_faster_than_checks() {
    let node = StaticNode { at: at(6379), backup: false };
    let source = Source::Static { nodes: Vec::from([node]), rise: 1, fall: 3, failback: Failback::Never };
    let mut o = Observer::all(T0, &Settings { source, ..settings() }, &Target::node(at(6379))).remove(0);
    o.gone(T0, Gone::Refused);
    assert_eq!(o.next_timeout(), Some(T0 + 200 * MS));
    o.timeout(T0 + 200 * MS);
    o.connected(T0 + 200 * MS, "10.0.0.1:6379".parse().unwrap());
    assert!(drain(&mut o).0.ends_with("*1 $4 PING "));
    o.bytes(T0 + 201 * MS, b"+PONG\r\n");
    assert_eq!(drain(&mut o).1, [Seen::Pong(true)]);
    o.timeout(T0 + 400 * MS);
    o.bytes(T0 + 401 * MS, b"-LOADING Redis is loading the dataset in memory\r\n");
    assert_eq!(drain(&mut o).1.pop(), Some(Seen::Pong(false)));
}

/// An answer to `INFO`.
fn text(s: &str) -> String {
    format!("${}\r\n{s}\r\n", s.len())
}

const BUSY: &str =
    "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n";

#[test]
fn a_process_that_ran_a_script_when_it_was_connected_to_is_named_before_it_reports() {
    let mut o = observers(Target::node(at(6379))).remove(0);
    o.connected(T0, "10.0.0.1:6379".parse().unwrap());
    drain(&mut o);
    let role = "*3\r\n$6\r\nmaster\r\n:77\r\n*0\r\n";
    let rest = [role, &text("role:master\r\n"), &text("loading:0\r\n")].concat();
    // The script has ended before the second answer.
    o.bytes(T0, format!("{BUSY}{rest}").as_bytes());
    assert!(matches!(drain(&mut o).1.as_slice(), [Seen::Problem(_)]));
    assert!(ask_now(&mut o, T0 + 200 * MS).starts_with("INFO server ROLE"));
    o.bytes(T0 + 201 * MS, format!("{}{rest}", text("run_id:r1\r\n")).as_bytes());
    let seen = drain(&mut o).1;
    let [Seen::Report(report)] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(report.run_id.as_deref(), Some("r1"));
    assert!(ask_now(&mut o, T0 + 400 * MS).starts_with("ROLE"));
}

/// The connection that waits for a node, which it knows by its run id.
fn witness() -> Observer {
    let mut o = observers(Target::node(at(6379))).remove(1);
    o.connected(T0, "10.0.0.1:6379".parse().unwrap());
    o.bytes(T0, format!("{}*0\r\n{}", text("run_id:r1\r\n"), hello("master")).as_bytes());
    assert_eq!(drain(&mut o).1, []);
    o
}

fn hello(role: &str) -> String {
    bulk(&["server", "redis", "role", role])
}

#[test]
fn a_silent_node_is_waited_for_on_one_connection_until_it_says_that_it_runs_a_script() {
    let mut o = witness();
    assert_eq!(ask_now(&mut o, T0 + 500 * MS), "ROLE HELLO 2");
    for s in 1..50 {
        o.timeout(T0 + 1000 * MS * s);
        assert_eq!(drain(&mut o), (String::new(), Vec::new(), false), "after {s} s");
    }
    o.bytes(T0 + 50_000 * MS, format!("{BUSY}{}", hello("master")).as_bytes());
    assert_eq!(drain(&mut o).1, [Seen::Busy("r1".into())]);
    assert_eq!(ask_now(&mut o, T0 + 50_000 * MS), "ROLE HELLO 2", "at once");
    o.bytes(T0 + 50_001 * MS, format!("{BUSY}{}", hello("master")).as_bytes());
    assert_eq!(drain(&mut o).1, [Seen::Busy("r1".into())]);
    assert_eq!(o.next_timeout(), Some(T0 + 50_200 * MS), "as often as others");
    ask_now(&mut o, T0 + 50_200 * MS);
    o.bytes(T0 + 50_201 * MS, format!("*0\r\n{}", hello("master")).as_bytes());
    assert_eq!(drain(&mut o).1, [], "the script has ended");
    assert_eq!(o.next_timeout(), Some(T0 + 50_700 * MS));
    // Not for ever.
    ask_now(&mut o, T0 + 50_700 * MS);
    o.timeout(T0 + 50_700 * MS + o.timeout + o.patience);
    let (_, seen, closed) = drain(&mut o);
    assert_eq!((seen, closed), (Vec::new(), true), "the other observer tells of its node");
}

#[test]
fn a_script_of_a_replica_or_of_nobody_knows_whom_says_nothing() {
    let mut o = witness();
    ask_now(&mut o, T0 + 500 * MS);
    o.bytes(T0 + 501 * MS, format!("{BUSY}{}", hello("replica")).as_bytes());
    assert_eq!(drain(&mut o).1, []);
    ask_now(&mut o, T0 + 701 * MS);
    o.bytes(T0 + 702 * MS, format!("{BUSY}-ERR unknown command\r\n").as_bytes());
    assert_eq!(drain(&mut o).1, []);
    // Connected to while it runs: which process it is was not told.
    let mut o = observers(Target::node(at(6379))).remove(1);
    o.connected(T0, "10.0.0.1:6379".parse().unwrap());
    o.bytes(T0, format!("{BUSY}{BUSY}{}", hello("master")).as_bytes());
    assert_eq!(drain(&mut o).1, []);
    assert_eq!(ask_now(&mut o, T0 + 200 * MS), "INFO server ROLE HELLO 2");
}

/// The guard's observer, connected, told to probe, and after its first keep-alive.
fn guarding() -> Observer {
    let mut o = observers(Target::guard(at(6379))).remove(0);
    o.connected(T0, "10.0.0.1:6379".parse().unwrap());
    o.bytes(T0, b"+PONG\r\n");
    drain(&mut o);
    o.set_pace(T0, Pace::Hurried);
    o
}

fn ask_now(o: &mut Observer, now: Now) -> String {
    o.timeout(now);
    let (sent, _, _) = drain(o);
    sent.split(' ').filter(|w| !w.starts_with(['*', '$'])).collect::<Vec<_>>().join(" ").trim().to_string()
}

#[test]
fn the_guard_publishes_and_waits_every_100_ms_while_that_is_wanted_and_pings_otherwise() {
    let mut o = guarding();
    assert_eq!(o.next_timeout(), Some(T0 + 100 * MS));
    assert_eq!(ask_now(&mut o, T0 + 100 * MS), "PUBLISH pointsman:guard  WAIT 1 150");
    o.bytes(T0 + 101 * MS, b":0\r\n:2\r\n");
    assert_eq!(drain(&mut o).1, [Seen::Acknowledged(true)]);
    assert_eq!(o.next_timeout(), Some(T0 + 200 * MS));
    o.set_pace(T0 + 150 * MS, Pace::Usual);
    assert_eq!(ask_now(&mut o, T0 + 200 * MS), "");
    assert_eq!(ask_now(&mut o, T0 + 1100 * MS), "PING");
    o.bytes(T0 + 1101 * MS, b"+PONG\r\n");
    o.set_pace(T0 + 1500 * MS, Pace::Hurried);
    assert_eq!(ask_now(&mut o, T0 + 1500 * MS), "PUBLISH pointsman:guard  WAIT 1 150", "at once");
}

#[test]
fn the_guard_takes_a_wait_for_a_no_after_its_time_and_hears_a_late_yes() {
    let mut o = guarding();
    ask_now(&mut o, T0 + 100 * MS);
    // A master that was busy for long: its WAIT began when the PUBLISH was answered.
    o.bytes(T0 + 400 * MS, b":0\r\n");
    assert_eq!(o.next_timeout(), Some(T0 + 550 * MS));
    o.timeout(T0 + 549 * MS);
    assert_eq!(drain(&mut o).1, []);
    o.timeout(T0 + 550 * MS);
    assert_eq!(drain(&mut o).1, [Seen::Acknowledged(false)]);
    o.timeout(T0 + 600 * MS);
    assert_eq!(drain(&mut o).1, [], "once");
    o.bytes(T0 + 610 * MS, b":1\r\n");
    assert_eq!(drain(&mut o).1, [Seen::Acknowledged(true)]);
    // And the server's own no is one.
    ask_now(&mut o, T0 + 611 * MS);
    o.bytes(T0 + 612 * MS, b":0\r\n:0\r\n");
    assert_eq!(drain(&mut o).1, [Seen::Acknowledged(false)]);
}

#[test]
fn a_master_that_does_not_answer_the_guard_says_nothing_of_its_replicas() {
    let mut o = guarding();
    ask_now(&mut o, T0 + 100 * MS);
    o.timeout(T0 + 1300 * MS);
    assert_eq!(drain(&mut o).1, []);
    o.timeout(T0 + 1350 * MS);
    let (_, seen, closed) = drain(&mut o);
    assert_eq!((seen, closed), (Vec::from([Seen::Gone(Gone::Timeout)]), true));
    for silent in ["-LOADING x", "-BUSY Redis is busy", "-ERR WAIT cannot be used with replica instances."] {
        let mut o = guarding();
        ask_now(&mut o, T0 + 100 * MS);
        o.bytes(T0 + 101 * MS, format!("{silent}\r\n{silent}\r\n").as_bytes());
        assert_eq!(drain(&mut o), (String::new(), Vec::new(), false), "{silent}");
    }
}

#[test]
fn what_the_guard_may_not_do_is_told_and_tried_again_much_later() {
    for answers in
        ["-NOPERM no channel\r\n:0\r\n", ":0\r\n-NOPERM no wait\r\n", "-ERR unknown command\r\n:0\r\n"]
    {
        let mut o = guarding();
        ask_now(&mut o, T0 + 100 * MS);
        o.bytes(T0 + 101 * MS, answers.as_bytes());
        let (_, seen, closed) = drain(&mut o);
        assert!(matches!(seen.as_slice(), [Seen::Problem(_)]) && closed, "{seen:?}");
        assert_eq!(o.next_timeout(), Some(T0 + 10_101 * MS));
    }
}

#[test]
fn the_replicas_of_a_master_are_read_from_role_or_from_info() {
    let one =
        |host: &str, port, acknowledged| Attached { at: HostPort { host: host.into(), port }, acknowledged };
    let replica = |host: &str, port: &str, offset: &str| bulk(&[host, port, offset]);
    let replication = "role:master\r\nconnected_slaves:3\r\nmaster_repl_offset:77\r\n\
                slave0:ip=10.0.0.8,port=6379,state=online,offset=70,lag=0\r\n\
                slave1:ip=::1,port=6380,state=online,offset=71,lag=1\r\n\
                slave2:ip=10.0.0.9,port=6379,state=wait_bgsave,offset=0,lag=0\r\nslave_x:ip=\r\n";
    let replicas = [replica("10.0.0.8", "6379", "70"), replica("::1", "6380", "71")].concat();
    let role = format!("*3\r\n$6\r\nmaster\r\n:77\r\n*2\r\n{replicas}");
    let info = |s: &str| format!("${}\r\n{s}\r\n", s.len());
    for role in [role.as_str(), "-NOPERM no role\r\n"] {
        let mut o = observers(Target::node(at(6379))).remove(0);
        o.connected(T0, "10.0.0.1:6379".parse().unwrap());
        drain(&mut o);
        let answers = [&*info("run_id:r1\r\n"), role, &info(replication), &info("loading:0\r\n")];
        o.bytes(T0, answers.concat().as_bytes());
        let seen = drain(&mut o).1;
        let [Seen::Report(report)] = seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!((report.offset, &report.role), (77, &Role::Master));
        assert_eq!(report.attached, [one("10.0.0.8", 6379, 70), one("::1", 6380, 71)]);
    }
}
