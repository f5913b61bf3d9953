//! The program's life: start, mistakes, what it shows of itself, reload, end; and neighbours that misbehave.
use crate::scene::fake::Fake;
use crate::scene::load::Load;
use crate::scene::{
    DEADLINE, Proxy, Raw, bulk, eventually, get, http, is_end, is_error, ok, pointsman, said, until,
};
use pointsman::client::{Client, Value};
use pointsman::sandbox::deployment::{Deployment, Options, free_addr};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn one_node(options: Options) -> Deployment {
    Deployment::start(Options { nodes: 1, sentinels: 0, ..options }).unwrap()
}

/// A service before one node.
fn service(name: &str, listen: &[String], deployment: &Deployment, rest: &str) -> String {
    let node = deployment.nodes[0].addr();
    format!("[[service]]\nname = \"{name}\"\nlisten = {listen:?}\nnodes = [\"{node}\"]\n{rest}\n")
}

fn connect(addr: SocketAddr) -> Client {
    Client::connect(addr, DEADLINE).unwrap()
}

#[test]
fn services_come_and_go_and_change_while_the_clients_of_others_stay() {
    let plain = one_node(Options::default());
    let secret = one_node(Options {
        password: Some("observed".into()),
        users: vec![
            "alice on >wonder ~* &* +@all".into(),
            "watcher on >watches -@all +role +info +ping +hello +auth".into(),
        ],
        ..Options::default()
    });
    let [a, b, c, moved] = std::array::from_fn(|_| free_addr().unwrap());
    let socket = plain.dir().join("a.sock");
    let unix = format!("unix:{}", socket.display());
    let first = service("a", &[a.to_string(), unix.clone()], &plain, "socket_mode = \"0600\"");
    let second = service("b", &[b.to_string()], &secret, "user = \"watcher\"\npassword = \"watches\"");
    let proxy = Proxy::start_with(&plain, a, &format!("{first}{second}"));
    eventually("both serve", || get(proxy.admin, "/readyz").unwrap().0 == 200);

    // Two services, two kinds of listeners, two kinds of clients.
    let (mut over_tcp, mut over_unix) = (connect(a), Raw::unix(&socket));
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(over_tcp.call(&["SET", "k", "plain"]).unwrap(), ok());
    over_unix.say("GET k\r\n", "$5\r\nplain\r\n");
    let (mut alice, mut nobody) = (connect(b), connect(b));
    assert!(is_error(&alice.call(&["GET", "k"]).unwrap(), "NOAUTH"));
    assert!(is_error(&alice.call(&["AUTH", "alice", "wrong"]).unwrap(), "WRONGPASS"));
    assert_eq!(alice.call(&["AUTH", "alice", "wonder"]).unwrap(), ok());
    assert_eq!(alice.call(&["ACL", "WHOAMI"]).unwrap(), bulk("alice"));
    assert_eq!(alice.call(&["SET", "k", "secret"]).unwrap(), ok());
    assert!(is_error(&nobody.call(&["GET", "k"]).unwrap(), "NOAUTH"), "what alice knows is hers");
    assert_eq!(over_tcp.call(&["GET", "k"]).unwrap(), bulk("plain"));

    // A file with a mistake changes nothing, and is told with its place.
    proxy.rewrite(&format!("{first}{second}holt = \"1s\"\n"));
    let admin = proxy.admin.to_string();
    let (good, _, why) = said(&["reload", "--admin", &admin]);
    assert!(!good && why.contains(".toml:") && why.contains("did you mean `hold`"), "{why}");
    assert!(proxy.status()["reload_error"].as_str().unwrap().contains("holt"));
    assert!(said(&["status", "--admin", &admin]).1.contains("holt"));

    // One is added, one is changed, with a listener that moves; `a` is as before.
    let third = service("c", &[c.to_string()], &plain, "");
    let changed = service("b", &[moved.to_string()], &secret, "password = \"observed\"\nhold = \"3s\"");
    proxy.rewrite(&format!("{first}{changed}{third}"));
    let (good, what, why) = said(&["reload", "--admin", &admin]);
    assert!(good && what.contains("added: c") && what.contains("changed: b"), "{what}{why}");
    assert_eq!(proxy.status()["reload_error"], serde_json::Value::Null);
    eventually("all serve", || get(proxy.admin, "/readyz").unwrap().0 == 200);
    assert_eq!(connect(c).call(&["GET", "k"]).unwrap(), bulk("plain"));
    assert_eq!(connect(moved).call(&["AUTH", "alice", "wonder"]).unwrap(), ok());
    assert!(Client::connect(b, DEADLINE).is_err(), "nobody listens there any more");
    assert_eq!(alice.call(&["GET", "k"]).unwrap(), bulk("secret"), "who was connected stays");
    assert_eq!(
        (proxy.service("b")["hold_max_s"].as_f64(), proxy.service("b")["term"].as_u64()),
        (Some(3.0), Some(1))
    );

    // One goes, by a signal; its address goes to another at once.
    let taken = service("c", &[c.to_string(), moved.to_string()], &plain, "");
    proxy.rewrite(&format!("{first}{taken}"));
    proxy.signal(Signal::HUP);
    eventually("b is gone", || proxy.status()["services"].as_array().unwrap().len() == 2);
    eventually("its clients are gone", || alice.call(&["PING"]).is_err_and(|e| is_end(&e)));
    assert_eq!(connect(moved).call(&["GET", "k"]).unwrap(), bulk("plain"));
    assert_eq!(over_tcp.call(&["GET", "k"]).unwrap(), bulk("plain"));
    over_unix.say("GET k\r\n", "$5\r\nplain\r\n");
    assert_eq!(
        (proxy.service("a")["clients"].as_u64(), proxy.service("a")["term"].as_u64()),
        (Some(2), Some(1))
    );
    for word in ["observed", "watches", "wonder"] {
        assert!(!proxy.log().contains(word), "a secret is in the log");
    }
}

#[test]
fn a_process_that_is_told_to_stop_lets_its_clients_finish_and_exits_well() {
    let deployment = one_node(Options::default());
    let socket = deployment.dir().join("stop.sock");
    let listen = free_addr().unwrap();
    let listens = [listen.to_string(), format!("unix:{}", socket.display())];
    let text = service("cache", &listens, &deployment, "");
    let mut proxy = Proxy::start_with(&deployment, listen, &text);
    proxy.wait_master(&deployment.nodes[0]);
    let (mut busy, mut idle) = (proxy.client(), proxy.client());
    assert_eq!(idle.call(&["SET", "k", "v"]).unwrap(), ok());
    busy.send(&["BLPOP", "list", "0"]).unwrap();
    let blocked = || deployment.nodes[0].info("clients", "blocked_clients").unwrap() == "1";
    eventually("it blocks", blocked);
    proxy.signal(Signal::TERM);
    assert!(is_end(&idle.read().unwrap_err()), "who is owed nothing is let go");
    eventually("nobody is accepted", || Client::connect(listen, DEADLINE).is_err());
    let (code, why) = get(proxy.admin, "/readyz").unwrap();
    assert!(code == 503 && why.contains("stop"), "{code} {why}");
    assert!(proxy.ended().is_none() && blocked());
    deployment.nodes[0].ask(&["RPUSH", "list", "x"]).unwrap();
    assert_eq!(busy.read().unwrap().items(), [bulk("list"), bulk("x")]);
    assert!(is_end(&busy.read().unwrap_err()));
    let status = until("it ends", || proxy.ended());
    assert!(status.success(), "{status}");
    assert!(
        proxy.log().lines().last().unwrap().ends_with("stopped"),
        "the last word is lost: {}",
        proxy.log()
    );

    // Another takes over where it was, Unix socket included.
    let next = Proxy::start_with(&deployment, listen, &text);
    next.wait_master(&deployment.nodes[0]);
    Raw::unix(&socket).say("GET k\r\n", "$1\r\nv\r\n");
}

#[test]
fn who_does_not_finish_is_closed_when_the_grace_is_over() {
    let deployment = one_node(Options::default());
    let listen = free_addr().unwrap();
    let text = service("cache", &[listen.to_string()], &deployment, "");
    let mut proxy = Proxy::start_with(&deployment, listen, &format!("shutdown_grace = \"1s\"\n{text}"));
    proxy.wait_master(&deployment.nodes[0]);
    let mut busy = proxy.client();
    busy.send(&["BLPOP", "list", "0"]).unwrap();
    eventually("it blocks", || deployment.nodes[0].info("clients", "blocked_clients").unwrap() == "1");
    let begin = Instant::now();
    proxy.signal(Signal::TERM);
    assert!(is_end(&busy.read().unwrap_err()));
    let status = until("it ends", || proxy.ended());
    assert!(status.success() && begin.elapsed() > Duration::from_secs(1), "{status}");
    eventually("the pop is gone", || deployment.nodes[0].info("clients", "blocked_clients").unwrap() == "0");
}

#[test]
fn a_reload_that_hangs_delays_nothing_but_itself() {
    let deployment = one_node(Options::default());
    let listen = free_addr().unwrap();
    let text = service("cache", &[listen.to_string()], &deployment, "");
    let mut proxy = Proxy::start_with(&deployment, listen, &text);
    proxy.wait_state("serving");
    // A pipe without a writer, as a file on a server that does not answer.
    let whole = std::fs::read_to_string(&proxy.config).unwrap();
    let pipe = || {
        std::fs::remove_file(&proxy.config).unwrap();
        assert!(Command::new("mkfifo").arg(&proxy.config).status().unwrap().success());
    };
    pipe();
    let (admin, config) = (proxy.admin, proxy.config.clone());
    let reload = std::thread::spawn(move || http(admin, "POST", "/api/reload").unwrap());
    // Whoever opens the other end knows that it has begun; until something comes it hangs.
    let mut other_end = std::fs::OpenOptions::new().write(true).open(&config).unwrap();
    assert_eq!(proxy.service("cache")["state"], "serving");
    assert_eq!(get(admin, "/readyz").unwrap().0, 200);
    assert!(get(admin, "/metrics").unwrap().1.contains("service=\"cache\""));
    assert_eq!(proxy.client().call(&["SET", "k", "v"]).unwrap(), ok());
    assert!(!reload.is_finished());
    other_end.write_all(whole.as_bytes()).unwrap();
    drop(other_end);
    let (code, body) = reload.join().unwrap();
    assert!(code == 200 && body.contains("nothing changed"), "{code} {body}");
    // A signal to reload, too, keeps none to stop waiting.
    proxy.signal(Signal::HUP);
    let _other_end = std::fs::OpenOptions::new().write(true).open(&config).unwrap();
    proxy.signal(Signal::TERM);
    assert!(until("it ends", || proxy.ended()).success());
}

/// Runs the program with this file, which it refuses: its last line.
fn refused(dir: &Path, text: &str) -> String {
    let file = dir.join("refused.toml");
    std::fs::write(&file, text).unwrap();
    let (good, out, err) = said(&["run", "-c", file.to_str().unwrap()]);
    assert!(!good && out.is_empty(), "{out}");
    assert_eq!(err.lines().count(), 1, "{err:?} of {text}");
    err
}

#[test]
fn what_keeps_it_from_starting_is_said_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken_at, free) = (taken.local_addr().unwrap(), free_addr().unwrap());
    let text = |listen: SocketAddr, admin: &str, rest: &str| {
        format!(
            "admin = \"{admin}\"\n[[service]]\nname = \"x\"\nlisten = [\"{listen}\"]\nnodes = [\"h:1\"]\n{rest}"
        )
    };
    let said_of = |text: &str, parts: &[&str]| {
        let line = refused(dir.path(), text);
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    };
    said_of(&text(taken_at, "off", ""), &["'x'", &taken_at.to_string(), "listens there already"]);
    said_of(&text(free, &taken_at.to_string(), ""), &["admin", &taken_at.to_string(), "--admin"]);
    said_of(&text("192.0.2.1:1".parse().unwrap(), "off", ""), &["192.0.2.1:1", "no such address"]);
    said_of(&text(free, "off", "holt = \"1s\""), &["refused.toml:6:1", "did you mean `hold`"]);
    said_of(
        &text(free, "off", "password_file = \"nowhere\""),
        &["refused.toml:6:", "nowhere", "No such file"],
    );
    said_of(&text(free, "off", "password = \"${NOT_SET_AT_ALL}\""), &["refused.toml:6:", "NOT_SET_AT_ALL"]);

    let missing = dir.path().join("missing.toml");
    let (good, _, err) = said(&["run", "-c", missing.to_str().unwrap()]);
    assert!(!good && err.lines().count() == 1 && err.contains("missing.toml"), "{err}");
    let (good, _, err) = said(&["run", "--listen", "127.0.0.1:0"]);
    assert!(!good && err.lines().count() == 1 && err.contains("--sentinel"), "{err}");
}

#[test]
fn what_may_still_come_right_is_told_and_tried_on() {
    let deployment = Deployment::start(Options {
        nodes: 1,
        sentinels: 1,
        password: Some("right".into()),
        ..Options::default()
    })
    .unwrap();
    let listens: [SocketAddr; 4] = std::array::from_fn(|_| free_addr().unwrap());
    let listen = |i: usize| [listens[i].to_string()];
    let sentinel = deployment.sentinels[0].addr();
    let nowhere = free_addr().unwrap();
    let before_sentinel = |name: &str, i: usize, at: SocketAddr, master: &str| {
        let listen = listen(i);
        format!(
            "[[service]]\nname = \"{name}\"\nlisten = {listen:?}\nsentinels = [\"{at}\"]\nmaster = \"{master}\"\npassword = \"right\"\n"
        )
    };
    let wrong = service("wrong", &listen(0), &deployment, "password = \"wrong\"");
    let node = deployment.nodes[0].addr().to_string();
    let lost = service("lost", &listen(1), &deployment, "").replace(&node, "no-such-host.invalid:6379");
    let unknown = before_sentinel("unknown", 2, sentinel, "other");
    let alone = before_sentinel("alone", 3, nowhere, "mymaster");
    let proxy = Proxy::start_with(&deployment, listens[0], &format!("{wrong}{lost}{unknown}{alone}"));
    let told = |name: &str, parts: &[&str]| {
        eventually(&format!("{name}: {parts:?}"), || {
            let problems = proxy.service(name)["problems"].to_string();
            parts.iter().all(|part| problems.contains(part))
        });
    };
    told("wrong", &["WRONGPASS", &node]);
    told("lost", &["no-such-host.invalid:6379"]);
    told("unknown", &["knows no such master", &sentinel.to_string()]);
    told("alone", &["refuses connections", &nowhere.to_string()]);
    let (code, why) = get(proxy.admin, "/readyz").unwrap();
    assert_eq!((code, why.lines().count()), (503, 4), "{why}");
    assert_eq!(get(proxy.admin, "/healthz").unwrap().0, 200);
    let (good, text, _) = said(&["status", "--admin", &proxy.admin.to_string()]);
    assert!(good && text.contains("WRONGPASS") && text.contains("knows no such master"), "{text}");

    // It comes right by itself.
    let mut waits: Vec<Client> = [listens[0], listens[2]].map(connect).into();
    waits.iter_mut().for_each(|client| client.send(&["AUTH", "right"]).unwrap());
    deployment.nodes[0].ask(&["CONFIG", "SET", "requirepass", "wrong"]).unwrap();
    eventually("the password is right now", || proxy.service("wrong")["state"] == "serving");
    assert!(is_error(&waits[0].read().unwrap(), "WRONGPASS"), "what it waited for is no longer right");
    let mut node = connect(deployment.nodes[0].addr());
    node.ask(&["AUTH", "wrong"]).unwrap();
    node.ask(&["CONFIG", "SET", "requirepass", "right"]).unwrap();
    let port = deployment.nodes[0].port().to_string();
    deployment.sentinels[0].ask(&["SENTINEL", "MONITOR", "other", "127.0.0.1", &port, "1"]).unwrap();
    deployment.sentinels[0].ask(&["SENTINEL", "SET", "other", "auth-pass", "right"]).unwrap();
    assert_eq!(waits[1].read().unwrap(), ok());
    assert_eq!(proxy.service("unknown")["state"], "serving");
}

/// Whether this is Prometheus' text, line by line; how many samples it has.
fn samples(text: &str) -> usize {
    let name = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c));
    let mut count = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let (metric, labels) = series.split_once('{').unwrap_or((series, "}"));
        assert!(name(metric) && metric.starts_with("pointsman_"), "{line}");
        assert!(labels.ends_with('}') && labels.matches('"').count() % 2 == 0, "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        count += 1;
    }
    assert!(text.ends_with("# EOF\n"));
    count
}

#[test]
fn it_shows_what_it_does_to_people_and_programs() {
    let deployment = Deployment::start(Options { nodes: 2, sentinels: 2, ..Options::default() }).unwrap();
    let proxy = Proxy::before_sentinels(&deployment, "hold = \"2s\"");
    let (admin, file) = (proxy.admin.to_string(), proxy.config.to_str().unwrap().to_owned());
    let master = deployment.nodes[0].addr().to_string();
    proxy.wait_master(&deployment.nodes[0]);
    let mut client = proxy.client();
    (0..10).for_each(|_| assert_eq!(client.call(&["SET", "k", "v"]).unwrap(), ok()));
    assert!(is_error(&client.call(&["SHUTDOWN"]).unwrap(), "REFUSED"));

    let service = proxy.service("cache");
    assert_eq!((service["state"].as_str(), service["clients"].as_u64()), (Some("serving"), Some(1)));
    assert_eq!(service["sentinels"].as_array().unwrap().len(), 2);
    assert_eq!(service["nodes"].as_array().unwrap().len(), 2);
    let (code, metrics) = get(proxy.admin, "/metrics").unwrap();
    assert!(code == 200 && samples(&metrics) > 20, "{metrics}");
    assert!(metrics.contains("service=\"cache\""), "{metrics}");

    let (good, text, _) = said(&["status", "--admin", &admin]);
    assert!(good && text.contains("cache: SERVING") && text.contains(&master), "{text}");
    let (good, json, _) = said(&["status", "--admin", &admin, "--json"]);
    assert!(good && serde_json::from_str::<serde_json::Value>(&json).unwrap()["services"].is_array());
    let (good, text, _) = said(&["events", "--admin", &admin]);
    assert!(good && text.contains("grant") && text.contains(&master), "{text}");
    assert!(proxy.log().lines().any(|line| line.contains("grant") && line.contains(&master)));

    let (good, text, _) = said(&["check", "-c", &file]);
    assert!(good && text.contains("cache") && text.contains("warning"), "{text}");
    let (good, text, _) = said(&["check", "-c", &file, "--probe"]);
    assert!(good && text.contains(&format!("node {master}: master with 1 replica")), "{text}");
    assert!(text.contains("even number") && text.contains("the hold is shorter than a failover"), "{text}");

    deployment.nodes[0].kill9();
    eventually("it is not ready", || get(proxy.admin, "/readyz").unwrap().0 == 503);
    let (good, text, _) = said(&["check", "-c", &file, "--probe"]);
    assert!(!good && text.contains("error: ") && text.contains(&master), "{text}");
    deployment.sentinels.iter().for_each(|sentinel| sentinel.kill9());
    let (good, text, _) = said(&["check", "-c", &file, "--probe"]);
    assert!(!good && text.contains("0 of 2 Sentinels name a master"), "{text}");
    drop(proxy);
    let (good, out, err) = said(&["status", "--admin", &admin]);
    assert!(!good && out.is_empty() && err.lines().count() == 1 && err.contains(&admin), "{err}");
}

#[test]
fn flags_alone_are_enough() {
    let deployment = Deployment::start(Options {
        nodes: 1,
        sentinels: 1,
        password: Some("p".into()),
        sentinel_password: Some("s".into()),
        ..Options::default()
    })
    .unwrap();
    let (listen, admin) = (free_addr().unwrap(), free_addr().unwrap());
    let sentinels = deployment.sentinel_list();
    let mut command = pointsman(&["run", "--listen", &listen.to_string(), "--sentinel", &sentinels]);
    command.args(["--master", "mymaster", "--workers", "1", "--admin", &admin.to_string()]);
    command.env("POINTSMAN_PASSWORD", "p").env("POINTSMAN_SENTINEL_PASSWORD", "s");
    let mut child = deployment.spawn(command.stderr(Stdio::null())).unwrap();
    eventually("it serves", || get(admin, "/readyz").is_ok_and(|(code, _)| code == 200));
    let mut client = connect(listen);
    assert!(
        is_error(&client.call(&["GET", "k"]).unwrap(), "NOAUTH"),
        "the observer's password is not the client's"
    );
    assert_eq!(client.call(&["AUTH", "p"]).unwrap(), ok());
    assert_eq!(client.call(&["SET", "k", "v"]).unwrap(), ok());
    drop(client);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_server_that_speaks_garbage_hurts_only_those_whose_commands_it_had() {
    let deployment = one_node(Options::default());
    let fake = Fake::start(|command| {
        let first = command[0].to_uppercase();
        Some(match (first.as_str(), command.get(1).map(String::as_str)) {
            ("PING", _) => b"+PONG\r\n".to_vec(),
            ("ROLE", _) => b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n".to_vec(),
            ("SET", Some("garbage")) => b"\x00\xffHTTP/1.1 400 Bad Request\r\n\r\n+OK\r\n+OK\r\n".to_vec(),
            ("GET", Some("garbage")) => b"$nonsense\r\n".to_vec(),
            ("SET", _) => b"+OK\r\n".to_vec(),
            ("GET", Some(key)) => format!("${}\r\n{key}\r\n", key.len()).into_bytes(),
            _ => b"-ERR unknown command\r\n".to_vec(),
        })
    });
    let proxy =
        Proxy::start(&deployment, &format!("hold = \"2s\"\n[[service.node]]\naddress = \"{}\"", fake.addr));
    eventually("it serves", || proxy.service("cache")["state"] == "serving");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..4)
            .map(|i| {
                let (proxy, stop) = (&proxy, &stop);
                scope.spawn(move || {
                    let mut client = proxy.client();
                    let mut uncertain = 0;
                    for n in 0.. {
                        let key = format!("client-{i}-{n}");
                        assert_eq!(client.call(&["GET", &key]).unwrap(), bulk(&key), "its own reply");
                        let set = client.call(&["SET", &key, "v"]).unwrap();
                        uncertain += usize::from(is_error(&set, "UNCERTAIN"));
                        assert!(set == ok() || is_error(&set, "UNCERTAIN"), "{set:?}");
                        if stop.load(std::sync::atomic::Ordering::SeqCst) {
                            break;
                        }
                    }
                    uncertain
                })
            })
            .collect();
        let mut hurt = proxy.client();
        for _ in 0..20 {
            let set = hurt.call(&["SET", "garbage", "v"]).unwrap();
            assert!(is_error(&set, "UNCERTAIN"), "{set:?}");
            assert_eq!(hurt.call(&["GET", "after"]).unwrap(), bulk("after"));
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let uncertain: usize = others.into_iter().map(|other| other.join().unwrap()).sum();
        // Each piece of garbage can take one command of each of the others with it.
        assert!(uncertain <= 20 * 4, "{uncertain}");
    });
    // A read is asked again, but not for ever.
    let mut hurt = proxy.client();
    let begin = Instant::now();
    let reply = hurt.call(&["GET", "garbage"]).unwrap();
    assert!(matches!(reply, Value::Error(_)), "{reply:?}");
    assert!(begin.elapsed() < Duration::from_secs(10), "after {:?}", begin.elapsed());
    eventually("others are served", || proxy.client().call(&["GET", "k"]).unwrap() == bulk("k"));
}

#[test]
fn an_stderr_that_nobody_reads_delays_nothing() {
    let deployment = one_node(Options::default());
    let (listen, admin, node) = (free_addr().unwrap(), free_addr().unwrap(), deployment.nodes[0].addr());
    let mut command = pointsman(&["run", "--listen", &listen.to_string(), "--admin", &admin.to_string()]);
    command.args(["--node", &node.to_string(), "--log-level", "debug"]).stdout(Stdio::null());
    let mut child = deployment.spawn(command.stderr(Stdio::piped())).unwrap();
    eventually("it serves", || get(admin, "/readyz").is_ok_and(|(code, _)| code == 200));
    let load = Load::start(listen, 2, 1);
    // Each reload is a line; the pipe takes 64 KiB, and so many lines wait.
    let lost = || {
        let status: serde_json::Value = serde_json::from_str(&get(admin, "/api/status").unwrap().1).unwrap();
        status["statistics"]["log_lines_dropped"].as_u64().unwrap()
    };
    let mut slowest = Duration::ZERO;
    eventually("lines are dropped", || {
        for _ in 0..100 {
            let begin = Instant::now();
            assert_eq!(http(admin, "POST", "/api/reload").unwrap().0, 200);
            slowest = slowest.max(begin.elapsed());
        }
        lost() > 0
    });
    load.progress();
    let tally = load.finish(&deployment.nodes[0]);
    tally.assert_perfect();
    // A line that waited for its reader would have waited for ever.
    let long = Duration::from_secs(15);
    assert!(tally.longest < long && slowest < long, "{slowest:?} {tally:?}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let begin = Instant::now();
    assert!(until("it ends", || child.try_wait().unwrap()).success());
    assert!(begin.elapsed() < Duration::from_secs(10), "after {:?}", begin.elapsed());
}
