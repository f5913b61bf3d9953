//! Commands that the table does not have, that are refused, denied, or called otherwise: with a real server.
use crate::harness::raw::Raw;
use crate::harness::{Pair, Proxy, Server};
use pointsman::sandbox::deployment::Options;

/// A server that calls some commands otherwise, so that nobody knows them but by asking.
fn renaming() -> Options {
    let renamed = ["GET MYGET", "SELECT MYSELECT", "SUBSCRIBE MYSUBSCRIBE", "BLPOP MYBLPOP", "SHUTDOWN HALT"];
    Options {
        node_lines: renamed.iter().map(|pair| format!("rename-command {pair}")).collect(),
        users: vec!["low on >pw ~* &* +@all -command".into()],
        ..Options::default()
    }
}

fn text(reply: &[u8]) -> String {
    String::from_utf8_lossy(reply).trim_end().replace("\r\n", " ")
}

fn call(c: &mut Raw, words: &str) -> String {
    text(&c.call(&words.split(' ').collect::<Vec<_>>()))
}

/// How often the server was asked by `COMMAND INFO`.
fn asked(server: &Server) -> u64 {
    let stats = server.ask(&["INFO", "commandstats"]).text().expect("text");
    // Redis 6.2 does not count subcommands.
    let line = stats.lines().find(|line| line.starts_with("cmdstat_command"));
    let calls = line.and_then(|line| line.split("calls=").nth(1)?.split(',').next()?.parse().ok());
    calls.unwrap_or(0)
}

/// Connections of clients that the server has, without the one that asks.
fn connections(server: &Server) -> usize {
    let list = server.ask(&["CLIENT", "LIST", "TYPE", "normal"]).text().expect("text");
    list.lines().filter(|line| !line.contains("cmd=client|list")).count()
}

#[test]
fn a_command_that_only_the_server_knows_is_asked_about_once_and_shares_connections_then() {
    let server = Server::start(&renaming());
    let proxy = Proxy::start_with(&server, "");
    let mut clients: Vec<Raw> = (0..20).map(|_| Raw::connect(proxy.addr())).collect();
    assert_eq!(call(&mut clients[0], "SET a 1"), "+OK");
    let before = connections(&server);
    for _ in 0..5 {
        for c in &mut clients {
            assert_eq!(call(c, "myget a"), "$1 1");
        }
    }
    assert_eq!(asked(&server), 1);
    assert_eq!(connections(&server), before + 1, "that of the question, and no other");
}

#[test]
fn a_command_that_nobody_knows_is_told_as_the_server_tells_it() {
    let pair = Pair::start(&renaming(), &[]);
    let (mut front, mut bare) = (Raw::connect(pair.proxy.addr()), Raw::connect(pair.bare.addr()));
    for words in [
        "NOSUCH",
        "nosuch a b",
        "GET a",
        "CONFIG NOSUCH a",
        "CLIENT NOSUCH",
        "MYGET",
        "MULTI",
        "NOSUCH x",
        "EXEC",
        "MULTI",
        "MYGET a",
        "EXEC",
        "OBJECT NOSUCH",
        "FT.SEARCH i *",
        "PING",
    ] {
        assert_eq!(call(&mut front, words), call(&mut bare, words), "{words}");
    }
    let before = connections(&pair.fronted);
    for n in 0..50 {
        let mut c = Raw::connect(pair.proxy.addr());
        assert!(call(&mut c, &format!("NOSUCH{n}")).starts_with("-ERR unknown command"));
    }
    let after = connections(&pair.fronted);
    assert!(after <= before + 1, "{before} connections, then {after}");
}

#[test]
fn a_session_that_changes_its_connection_by_a_name_that_nobody_knows_changes_no_other() {
    let server = Server::start(&renaming());
    let proxy = Proxy::start_with(&server, "");
    for user in ["", "low"] {
        let mut one = Raw::connect(proxy.addr());
        if !user.is_empty() {
            assert_eq!(call(&mut one, "AUTH low pw"), "+OK");
        }
        assert_eq!(call(&mut one, "MYSELECT 3"), "+OK", "{user}");
        assert_eq!(call(&mut one, "SET k in-3"), "+OK");
        drop(one);
        for _ in 0..5 {
            let mut other = Raw::connect(proxy.addr());
            assert_eq!(call(&mut other, "MYGET k"), "$-1", "{user}");
            assert_eq!(call(&mut other, "MULTI"), "+OK");
            assert_eq!(call(&mut other, "MYGET k"), "+QUEUED");
            assert_eq!(call(&mut other, "EXEC"), "*1 $-1");
        }
    }
}

#[test]
fn a_renamed_subscription_gets_its_messages_and_a_renamed_pop_its_element() {
    let server = Server::start(&renaming());
    let proxy = Proxy::start_with(&server, "");
    // Channels of their own: the first one's subscription may end at the server when the second one's has begun.
    for (user, [a, b]) in [("", ["a", "b"]), ("low", ["c", "d"])] {
        let (mut sub, mut pop) = (Raw::connect(proxy.addr()), Raw::connect(proxy.addr()));
        if !user.is_empty() {
            for c in [&mut sub, &mut pop] {
                assert_eq!(call(c, "AUTH low pw"), "+OK");
            }
        }
        assert_eq!(call(&mut sub, &format!("MYSUBSCRIBE {a} {b}")), format!("*3 $9 subscribe $1 {a} :1"));
        assert_eq!(text(&sub.reply()), format!("*3 $9 subscribe $1 {b} :2"));
        let mut publisher = Raw::connect(proxy.addr());
        assert_eq!(call(&mut publisher, &format!("PUBLISH {b} x")), ":1");
        assert_eq!(text(&sub.reply()), format!("*3 $7 message $1 {b} $1 x"));
        assert_eq!(call(&mut sub, "PING"), "*2 $4 pong $0");
        pop.send(b"MYBLPOP l 0\r\n");
        crate::harness::eventually("it blocks", || server.count("clients", "blocked_clients") == 1);
        assert_eq!(call(&mut publisher, "RPUSH l e"), ":1");
        assert_eq!(text(&pop.reply()), "*2 $1 l $1 e");
        // The master was not doubted for anything that a client said.
        assert_eq!(call(&mut publisher, "PING"), "+PONG");
    }
    assert!(!proxy.said().contains("holding"), "{}", proxy.said());
}

#[test]
fn what_is_refused_by_default_is_refused_by_any_name_and_can_be_allowed() {
    let server = Server::start(&renaming());
    let refused = |words: &str, lines: &str| {
        let proxy = Proxy::start_with(&server, lines);
        call(&mut Raw::connect(proxy.addr()), words)
    };
    let says = "-REFUSED 'SHUTDOWN' is not forwarded by Pointsman; \
                to allow it add \"SHUTDOWN\" to the setting 'allow' of service 'e2e'";
    assert_eq!(refused("HALT NOSUCH", ""), says);
    assert_eq!(refused("HALT NOSUCH", "allow = [\"SHUTDOWN\"]"), "-ERR syntax error");
    assert!(refused("DEBUG NOSUCH", "").starts_with("-REFUSED 'DEBUG'"));
    let passed = refused("CLIENT PAUSE x", "transparent = true");
    assert!(passed.starts_with("-ERR timeout is not an integer"), "{passed}");
}

#[test]
fn a_service_denies_and_renames_commands() {
    let server = Server::start(&renaming());
    let lines = "deny = [\"KEYS\", \"CONFIG|SET\"]\n\
                 rename = { CONFIG = \"ADMIN-CONFIG\", INFO = \"TYPE\", TYPE = \"INFO\", MYGET = \"GET\" }";
    let proxy = Proxy::start_with(&server, lines);
    let mut c = Raw::connect(proxy.addr());
    let denied = |name: &str| {
        format!(
            "-REFUSED '{name}' is not forwarded by Pointsman: the setting 'deny' of service 'e2e' forbids it"
        )
    };
    assert_eq!(call(&mut c, "KEYS *"), denied("KEYS"));
    assert_eq!(call(&mut c, "admin-config set maxmemory 0"), denied("ADMIN-CONFIG"));
    assert_eq!(call(&mut c, "admin-config get maxmemory"), "*2 $9 maxmemory $1 0");
    let unknown = "-ERR unknown command 'CONFIG', with args beginning with: 'GET' 'maxmemory'";
    assert_eq!(call(&mut c, "CONFIG GET maxmemory"), unknown);
    assert_eq!(call(&mut c, "SET k v"), "+OK");
    assert_eq!((call(&mut c, "INFO k"), call(&mut c, "GET k")), ("+string".into(), "$1 v".into()));
    assert!(call(&mut c, "TYPE server").contains("redis_version"));
    assert_eq!(asked(&server), 0, "the rules say what it is");
    // As on a server that was told so.
    assert_eq!(call(&mut c, "MULTI"), "+OK");
    assert_eq!(call(&mut c, "CONFIG GET maxmemory"), unknown);
    assert!(call(&mut c, "EXEC").starts_with("-EXECABORT"));
    let large = "v".repeat(3 << 20);
    assert_eq!(call(&mut c, &format!("SET big {large}")), "+OK");
    assert_eq!(c.call(&["GET", "big"]).len(), large.len() + "$3145728\r\n\r\n".len());
}
