//! Users: those of the server, whose passwords and permissions change while sessions share connections; and Pointsman's own.
use crate::harness::raw::{Raw, shown};
use crate::harness::{Pair, Proxy, Server, eventually, script};
use pointsman::client::{Client, Value};
use pointsman::sandbox::deployment::Options;
use sha2::Digest;

const NOAUTH: &str = "-NOAUTH Authentication required.\\r\\n";
const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.\\r\\n";
const NONE: &str = "$-1\\r\\n";

fn said(client: &mut Raw, line: &str) -> String {
    shown(&client.call(&line.split(' ').collect::<Vec<_>>()))
}

/// A client that says this first, to which the answer is yes.
fn client(proxy: &Proxy, first: &str) -> Raw {
    let mut client = Raw::connect(proxy.addr());
    assert_eq!(said(&mut client, first), "+OK\\r\\n", "{first}");
    client
}

/// An operator, at the server.
struct Operator(Client);

impl Operator {
    fn does(&mut self, line: &str) {
        let answer = self.0.call(&line.split(' ').collect::<Vec<_>>()).expect("an answer");
        assert!(!matches!(answer, Value::Error(_)), "{line}: {answer:?}");
    }

    /// How many connections there are of a user.
    fn connections(&mut self, user: &str) -> usize {
        let list = self.0.call(&["CLIENT", "LIST"]).expect("an answer").text().expect("text");
        list.lines().filter(|line| line.contains(&format!(" user={user} "))).count()
    }
}

fn start(options: &Options) -> (Server, Proxy, Operator) {
    let server = Server::start(options);
    let proxy = Proxy::start(&server, &["--workers", "1"]);
    let operator = Operator(server.connect());
    (server, proxy, operator)
}

fn with_carol() -> (Server, Proxy, Operator) {
    start(&Options { users: vec!["carol on >old ~* &* +@all".into()], ..Options::default() })
}

#[test]
fn a_new_password_is_asked_of_who_comes_and_who_is_there_goes_on() {
    let (_server, proxy, mut operator) = with_carol();
    let mut there = client(&proxy, "AUTH carol old");
    assert_eq!(said(&mut there, "GET k"), NONE);
    let mut tx = client(&proxy, "AUTH carol old");
    assert_eq!(said(&mut tx, "MULTI"), "+OK\\r\\n");
    operator.does("ACL SETUSER carol resetpass >new");
    assert_eq!(said(&mut there, "GET k"), NONE);
    let mut late = Raw::connect(proxy.addr());
    assert_eq!(said(&mut late, "AUTH carol old"), WRONGPASS);
    assert_eq!(said(&mut late, "HELLO 3 AUTH carol old"), WRONGPASS);
    assert_eq!(said(&mut late, "GET k"), NONE, "as the user that it was");
    let mut new = client(&proxy, "AUTH carol new");
    assert_eq!(said(&mut new, "GET k"), NONE);
    assert_eq!(said(&mut tx, "EXEC"), "*0\\r\\n");
}

#[test]
fn who_needs_a_new_connection_with_a_password_of_old_is_told_and_closed() {
    let (_server, proxy, mut operator) = with_carol();
    let mut old = client(&proxy, "AUTH carol old");
    assert_eq!(said(&mut old, "GET k"), NONE);
    operator.does("ACL SETUSER carol resetpass >new");
    let mut new = client(&proxy, "AUTH carol new");
    assert_eq!(said(&mut new, "SET k 1"), "+OK\\r\\n");
    // That is asked on another connection.
    assert_eq!(said(&mut old, "SELECT 1"), WRONGPASS);
    assert_eq!(shown(&old.rest().expect("its end")), "");
    assert_eq!(said(&mut new, "GET k"), "$1\\r\\n1\\r\\n");
}

#[test]
fn when_connections_are_lost_only_who_knows_the_password_goes_on() {
    let (_server, proxy, mut operator) = with_carol();
    let mut old: Vec<Raw> = (0..10).map(|_| client(&proxy, "AUTH carol old")).collect();
    for client in &mut old {
        assert_eq!(said(client, "GET k"), NONE);
    }
    operator.does("ACL SETUSER carol resetpass >new");
    let mut new = client(&proxy, "AUTH carol new");
    assert_eq!(said(&mut new, "SET k 1"), "+OK\\r\\n");
    let accepted = |operator: &mut Operator| {
        let info = operator.0.call(&["INFO", "stats"]).expect("an answer").text().expect("text");
        let count = info.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        count.expect("a count").trim().parse::<u64>().expect("a number")
    };
    let before = accepted(&mut operator);
    operator.does("CLIENT KILL USER carol");
    for mut client in old {
        assert_eq!(shown(&client.rest().expect("its end")), "", "idle ones are closed");
    }
    assert_eq!(said(&mut new, "GET k"), "$1\\r\\n1\\r\\n");
    assert_eq!(said(&mut new, "ACL WHOAMI"), "$5\\r\\ncarol\\r\\n");
    let tries = accepted(&mut operator) - before;
    assert!(tries <= 4, "{tries} connections for two shared ones and those that only authenticate");
}

#[test]
fn a_deleted_users_clients_are_closed_and_nobody_elses() {
    let (server, proxy, mut operator) = with_carol();
    let fresh = || client(&proxy, "AUTH carol old");
    let [mut idle, mut tx, mut blocked, mut subscriber] = [fresh(), fresh(), fresh(), fresh()];
    assert_eq!(said(&mut idle, "GET k"), NONE);
    assert_eq!(said(&mut tx, "MULTI"), "+OK\\r\\n");
    said(&mut subscriber, "SUBSCRIBE ch");
    blocked.send(b"BLPOP l 0\r\n");
    eventually("it is blocked", || server.count("clients", "blocked_clients") == 1);
    let mut other = Raw::connect(proxy.addr());
    assert_eq!(said(&mut other, "SET k 1"), "+OK\\r\\n");
    operator.does("ACL DELUSER carol");
    for mut client in [idle, subscriber] {
        assert_eq!(shown(&client.rest().expect("its end")), "");
    }
    // Whether it has popped nobody knows; directly, it would only be closed.
    let words = shown(&blocked.rest().expect("its end"));
    assert!(words.is_empty() || words.starts_with("-UNCERTAIN"), "{words}");
    assert_eq!(shown(&tx.rest().expect("its end")), "");
    assert_eq!(said(&mut other, "GET k"), "$1\\r\\n1\\r\\n");
    assert_eq!(operator.connections("carol"), 0);
    let mut late = Raw::connect(proxy.addr());
    assert_eq!(said(&mut late, "AUTH carol old"), WRONGPASS);
}

#[test]
fn a_user_that_is_switched_off_goes_on_with_what_it_has() {
    let (_server, proxy, mut operator) = with_carol();
    let mut there = client(&proxy, "AUTH carol old");
    assert_eq!(said(&mut there, "GET k"), NONE);
    operator.does("ACL SETUSER carol off");
    assert_eq!(said(&mut there, "GET k"), NONE);
    let mut late = Raw::connect(proxy.addr());
    assert_eq!(said(&mut late, "AUTH carol old"), WRONGPASS);
    operator.does("CLIENT KILL USER carol");
    assert_eq!(shown(&there.rest().expect("its end")), "");
    operator.does("ACL SETUSER carol on");
    assert_eq!(said(&mut late, "AUTH carol old"), "+OK\\r\\n");
    assert_eq!(said(&mut late, "GET k"), NONE);
}

#[test]
fn permissions_change_at_once() {
    let (_server, proxy, mut operator) = with_carol();
    let mut carol = client(&proxy, "AUTH carol old");
    assert_eq!(said(&mut carol, "GET k"), NONE);
    operator.does("ACL SETUSER carol -get resetkeys ~c:*");
    assert!(said(&mut carol, "GET c:k").starts_with("-NOPERM"));
    assert!(said(&mut carol, "SET k 1").starts_with("-NOPERM"));
    operator.does("ACL SETUSER carol +get");
    assert_eq!(said(&mut carol, "GET c:k"), NONE);
}

#[test]
fn a_password_for_everybody_is_set_and_taken_away_at_run_time() {
    let (_server, proxy, mut operator) = start(&Options::default());
    let mut open = Raw::connect(proxy.addr());
    assert_eq!(said(&mut open, "SET k 1"), "+OK\\r\\n");
    operator.does("CONFIG SET requirepass sesame");
    let one = "$1\\r\\n1\\r\\n";
    eventually("who comes is asked for it", || said(&mut Raw::connect(proxy.addr()), "GET k") == NOAUTH);
    assert_eq!(said(&mut open, "GET k"), one, "who was there goes on");
    let mut named = client(&proxy, "AUTH sesame");
    let mut by_name = client(&proxy, "AUTH default sesame");
    assert_eq!((said(&mut named, "GET k"), said(&mut by_name, "GET k")), (one.into(), one.into()));
    let mut wrong = Raw::connect(proxy.addr());
    assert_eq!(said(&mut wrong, "AUTH other"), WRONGPASS);
    assert_eq!(said(&mut wrong, "GET k"), NOAUTH);
    // Without one, whoever has authenticated goes on, also over a new connection.
    operator.0.call(&["CONFIG", "SET", "requirepass", ""]).expect("an answer");
    operator.does("CLIENT KILL TYPE normal");
    for client in [&mut named, &mut by_name, &mut open, &mut wrong] {
        assert_eq!(said(client, "GET k"), one);
    }
    assert!(said(&mut wrong, "AUTH sesame").starts_with("-ERR AUTH <password> called without any password"));
}

#[test]
fn many_users_share_as_many_connections_as_they_are_and_leave_none() {
    const USERS: usize = 200;
    let users = (0..USERS).map(|i| format!("u{i} on >pw{i} ~u{i}:* &* +@all")).collect();
    let server = Server::start(&Options { users, ..Options::default() });
    let proxy = Proxy::start_with(&server, "upstream_idle = \"2s\"");
    let mut operator = Operator(server.connect());
    let mut clients: Vec<(usize, Raw)> =
        (0..2 * USERS).map(|i| (i % USERS, Raw::connect(proxy.addr()))).collect();
    for (i, client) in &mut clients {
        client.send(
            format!("AUTH u{i} pw{i}\r\nSET u{i}:k {i}\r\nGET u{i}:k\r\nACL WHOAMI\r\nGET other\r\n")
                .as_bytes(),
        );
    }
    for (i, client) in &mut clients {
        let bulk = |text: String| format!("${}\\r\\n{text}\\r\\n", text.len());
        for expected in ["+OK\\r\\n", "+OK\\r\\n", &bulk(i.to_string()), &bulk(format!("u{i}"))] {
            assert_eq!(shown(&client.reply()), expected);
        }
        assert!(shown(&client.reply()).starts_with("-NOPERM"));
    }
    for i in [0, USERS / 2, USERS - 1] {
        assert!(
            operator.connections(&format!("u{i}")) <= 2,
            "one, and perhaps that on which it authenticated"
        );
    }
    eventually("idle connections are closed", || operator.connections("u7") == 0);
    let (i, client) = &mut clients[7];
    assert_eq!(said(client, &format!("INCR u{i}:k")), ":8\\r\\n");
}

/// Of the same users one is the server's, one is Pointsman's.
const ALIKE: [(&str, &[&str]); 4] =
    [("default", &["sesame"]), ("alice", &["wonder"]), ("bob", &["builder", "wrecker"]), ("open", &[])];

/// The service's user upstream, and its own users with these passwords; none: any.
fn own_users(users: &[(&str, &[&str])]) -> String {
    use std::fmt::Write;
    let mut lines =
        String::from("password = \"sesame\"\nupstream_user = \"app\"\nupstream_password = \"deep\"\n");
    for (name, passwords) in users {
        writeln!(lines, "[[service.client_user]]\nname = \"{name}\"").expect("a String takes all");
        let hashes: Vec<String> = passwords.iter().map(|p| sha256(p)).collect();
        match hashes.is_empty() {
            true => lines += "nopass = true\n",
            false => writeln!(lines, "passwords = {hashes:?}").expect("a String takes all"),
        }
    }
    lines
}

fn sha256(text: &str) -> String {
    let hash = sha2::Sha256::digest(text);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fronted() -> Server {
    Server::start(&Options {
        password: Some("sesame".into()),
        users: vec!["app on >deep ~* &* +@all".into()],
        ..Options::default()
    })
}

#[test]
fn who_authenticates_to_pointsman_is_answered_as_by_a_server_with_these_users() {
    let users = ALIKE[1..].iter().map(|(name, passwords)| {
        let passwords = passwords.iter().map(|p| format!(">{p}")).collect::<Vec<_>>().join(" ");
        let passwords = if passwords.is_empty() { "nopass".into() } else { passwords };
        format!("{name} on {passwords} ~* &* +@all")
    });
    let bare = Server::start(&Options {
        password: Some("sesame".into()),
        users: users.collect(),
        ..Options::default()
    });
    let fronted = fronted();
    let proxy = Proxy::start_with(&fronted, &own_users(&ALIKE));
    script::hold(&Pair { proxy, fronted, bare }, include_str!("parity/users_of_pointsman.txt"));
}

#[test]
fn who_has_not_authenticated_to_pointsman_costs_the_server_nothing() {
    let fronted = fronted();
    let proxy = Proxy::start_with(&fronted, &own_users(&ALIKE));
    let mut operator = Operator(fronted.connect());
    let mut strangers: Vec<Raw> = (0..20).map(|_| Raw::connect(proxy.addr())).collect();
    for stranger in &mut strangers {
        for line in ["GET k", "NOSUCH", "MULTI", "CONFIG GET requirepass", "ACL WHOAMI"] {
            assert_eq!(said(stranger, line), NOAUTH, "{line}");
        }
        assert_eq!(said(stranger, "AUTH app deep"), WRONGPASS, "that is the server's user");
    }
    assert_eq!(operator.connections("app"), 0);
    assert_eq!(said(&mut strangers[0], "AUTH alice wonder"), "+OK\\r\\n");
    assert_eq!(said(&mut strangers[0], "ACL WHOAMI"), "$3\\r\\napp\\r\\n");
    assert_eq!(operator.connections("app"), 1);
    for secret in ["wonder", "sesame", "deep", &sha256("wonder")] {
        assert!(!proxy.said().contains(secret), "{secret}: {}", proxy.said());
    }
}

#[test]
fn a_reload_closes_the_clients_of_a_deleted_user_and_no_others() {
    let fronted = fronted();
    let proxy = Proxy::start_with(&fronted, &own_users(&ALIKE));
    let [mut alice, mut bob, mut subscriber] =
        ["AUTH alice wonder", "AUTH bob builder", "AUTH bob builder"].map(|auth| client(&proxy, auth));
    assert_eq!(said(&mut alice, "SET k 1"), "+OK\\r\\n");
    said(&mut subscriber, "SUBSCRIBE ch");
    proxy.reload(&fronted, &own_users(&[("alice", &["changed"])]));
    for client in [&mut bob, &mut subscriber] {
        assert_eq!(shown(&client.rest().expect("its end")), "");
    }
    assert_eq!(said(&mut alice, "GET k"), "$1\\r\\n1\\r\\n");
    let mut late = Raw::connect(proxy.addr());
    for (line, answer) in [
        ("AUTH bob builder", WRONGPASS),
        ("AUTH alice wonder", WRONGPASS),
        ("AUTH alice changed", "+OK\\r\\n"),
    ] {
        assert_eq!(said(&mut late, line), answer);
    }
}

#[test]
fn the_upstream_password_can_be_changed_while_clients_stay() {
    let fronted = fronted();
    let lines = own_users(&ALIKE);
    let proxy = Proxy::start_with(&fronted, &lines);
    let mut operator = Operator(fronted.connect());
    let mut alice = client(&proxy, "AUTH alice wonder");
    assert_eq!(said(&mut alice, "SET k 1"), "+OK\\r\\n");
    operator.does("ACL SETUSER app >deeper");
    proxy.reload(&fronted, &lines.replace("deep", "deeper"));
    eventually("it is read", || proxy.said().contains("configuration read again: changed"));
    operator.does("ACL SETUSER app <deep");
    operator.does("CLIENT KILL USER app");
    assert_eq!(said(&mut alice, "GET k"), "$1\\r\\n1\\r\\n");
}
