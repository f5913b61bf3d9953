//! As if directly connected (invariant 7): whatever a client says to the proxy is answered, byte for byte, as a server
//! answers it. Each exception stands, with its reason, above the line that makes it.
use crate::harness::raw::{self, Raw, shown};
use crate::harness::{Pair, Proxy, Server, script};
use pointsman::sandbox::deployment::Options;

/// Holds the conversation with a server without passwords, and with the proxy before another.
fn same(text: &str) {
    script::hold(&Pair::start(&Options::default(), &[]), text);
}

/// The same, where clients must authenticate.
fn same_with_users(text: &str) {
    let options = Options {
        password: Some("sesame".into()),
        users: [
            "alice on >wonder ~* &* +@all",
            "bob on >builder ~bob:* resetchannels &bob:* +@all -@dangerous -@admin",
            "reader on >books ~* resetchannels +@read +@connection -@write",
            "off off >nothing ~* +@all",
            "open on nopass ~* &* +@all",
        ]
        .map(str::to_owned)
        .into(),
        ..Options::default()
    };
    script::hold(&Pair::start(&options, &[]), text);
}

#[test]
fn data_of_every_type() {
    same(include_str!("parity/data_of_every_type.txt"));
}

#[test]
fn resp3_data() {
    same(include_str!("parity/resp3_data.txt"));
}

#[test]
fn requests_in_every_form() {
    same(include_str!("parity/requests_in_every_form.txt"));
}

#[test]
fn protocol_errors() {
    same(include_str!("parity/protocol_errors.txt"));
}

#[test]
fn what_follows_a_closing_quote_is_a_mistake_as_for_most_servers() {
    let pair = Pair::start(&Options::default(), &[]);
    let mut front = Raw::connect(pair.proxy.addr());
    front.send(b"'a'b\r\n");
    let words = front.rest().expect("it is closed");
    assert_eq!(words, b"-ERR Protocol error: unbalanced quotes in request\r\n");
    let mut bare = Raw::connect(pair.bare.addr());
    bare.send(b"'a'b\r\nPING\r\n");
    // Valkey 9.1 takes it for one argument, as a shell does.
    let lenient = b"-ERR unknown command 'ab'";
    let same = bare.next().expect("a reply");
    assert!(same == words || same.starts_with(lenient), "{:?}", String::from_utf8_lossy(&same));
}

#[test]
fn inline_requests_have_a_limit() {
    let long = "x".repeat(70_000);
    same(&format!(
        r#"
        A*1 "{long}"
        .end A
        B*1 "*{}"
        .end B
        "#,
        "1".repeat(70_000)
    ));
}

#[test]
fn transactions() {
    same(include_str!("parity/transactions.txt"));
}

#[test]
fn transactions_in_resp3() {
    same(include_str!("parity/transactions_in_resp3.txt"));
}

#[test]
fn publish_and_subscribe() {
    same(include_str!("parity/publish_and_subscribe.txt"));
}

#[test]
fn publish_and_subscribe_in_resp3() {
    same(include_str!("parity/publish_and_subscribe_in_resp3.txt"));
}

#[test]
fn blocking_commands() {
    same(include_str!("parity/blocking_commands.txt"));
}

#[test]
fn databases() {
    same(include_str!("parity/databases.txt"));
}

#[test]
fn the_connections_own_state() {
    same(include_str!("parity/the_connections_own_state.txt"));
}

#[test]
fn what_is_said_of_other_sessions() {
    same(include_str!("parity/what_is_said_of_other_sessions.txt"));
}

#[test]
fn who_may_not_say_it_is_told_so() {
    same_with_users(include_str!("parity/who_may_not_say_it_is_told_so.txt"));
}

#[test]
fn replies_can_be_turned_off() {
    same(include_str!("parity/replies_can_be_turned_off.txt"));
}

#[test]
fn tracking() {
    same(include_str!("parity/tracking.txt"));
}

#[test]
fn monitor() {
    same(include_str!("parity/monitor.txt"));
}

#[test]
fn scripts_and_functions() {
    same(include_str!("parity/scripts_and_functions.txt"));
}

#[test]
fn what_is_asked_of_the_server() {
    same(include_str!("parity/what_is_asked_of_the_server.txt"));
}

/// What would break the deployment, or the proxy under everyone, is refused, and says so.
#[test]
fn what_is_refused_is_refused_clearly() {
    let pair = Pair::start(&Options::default(), &[]);
    let mut client = Raw::connect(pair.proxy.addr());
    for words in [
        &["DEBUG", "SLEEP", "0"][..],
        &["debug", "jmap"],
        &["SHUTDOWN"],
        &["REPLICAOF", "NO", "ONE"],
        &["SLAVEOF", "127.0.0.1", "1"],
        &["FAILOVER"],
        &["CLIENT", "PAUSE", "10"],
        &["MODULE", "LOAD", "x"],
        &["PSYNC", "?", "-1"],
        &["CLUSTER", "RESET"],
    ] {
        let reply = String::from_utf8(client.call(words)).expect("text");
        assert!(reply.starts_with("-REFUSED '") && reply.contains("setting 'allow'"), "{words:?}: {reply}");
    }
    assert_eq!(client.call(&["PING"]), b"+PONG\r\n");
    // Refused while a transaction is open: it aborts.
    client.call(&["MULTI"]);
    assert!(client.call(&["DEBUG", "JMAP"]).starts_with(b"-REFUSED"));
    assert_eq!(client.call(&["SET", "k", "1"]), b"+QUEUED\r\n");
    assert!(client.call(&["EXEC"]).starts_with(b"-EXECABORT"));
    assert_eq!(client.call(&["GET", "k"]), b"$-1\r\n");
}

#[test]
fn users() {
    same_with_users(include_str!("parity/users.txt"));
}

#[test]
fn handshakes() {
    same_with_users(include_str!("parity/handshakes.txt"));
}

#[test]
fn users_in_transactions_and_subscriptions() {
    same_with_users(include_str!("parity/users_in_transactions_and_subscriptions.txt"));
}

#[test]
fn who_must_authenticate_may_send_little() {
    same_with_users(include_str!("parity/who_must_authenticate_may_send_little.txt"));
}

/// The very first words of the first clients, before the proxy can know that the server wants a password.
#[test]
fn the_first_client_of_all_may_send_no_more() {
    for first in
        [&["MSET", "a", "1", "b", "2", "c", "3", "d", "4", "e", "5"][..], &["AUTH", &"x".repeat(16_385)]]
    {
        let options = Options { password: Some("sesame".into()), ..Options::default() };
        let (bare, fronted) = (Server::start(&options), Server::start(&options));
        let proxy = Proxy::start_unasked(&fronted, &[]);
        let (mut direct, mut client) = (Raw::connect(bare.addr()), Raw::connect(proxy.addr()));
        let (mut other, mut second) = (Raw::connect(proxy.addr()), Raw::connect(proxy.addr()));
        let said = raw::request(first);
        direct.send(&said);
        client.send(&said);
        other.send(b"GET a\r\n");
        assert_eq!(shown(&client.rest().expect("an end")), shown(&direct.rest().expect("an end")));
        // Nobody else is any the worse for it.
        assert_eq!(shown(&other.reply()), "-NOAUTH Authentication required.\\r\\n");
        second.send(b"AUTH sesame\r\nGET a\r\n");
        assert_eq!(shown(&second.reply()), "+OK\\r\\n");
        assert_eq!(shown(&second.reply()), "$-1\\r\\n");
    }
}

#[test]
fn large_values() {
    same(include_str!("parity/large_values.txt"));
}

#[test]
fn large_values_from_whom_they_are_refused() {
    same_with_users(include_str!("parity/large_values_from_whom_they_are_refused.txt"));
}

#[test]
fn the_largest_values() {
    same(include_str!("parity/the_largest_values.txt"));
}

#[test]
fn many_commands_at_once() {
    let sets: String = (0..10_000).map(|i| format!("SET k{i} {i}\\r\\n")).collect();
    let gets: String = (0..10_000).map(|i| format!("GET k{i}\\r\\n")).collect();
    let mixed: String = (0..1_000)
        .map(|i| format!("SELECT {}\\r\\nSET m {i}\\r\\nMULTI\\r\\nGET m\\r\\nEXEC\\r\\n", i % 5))
        .collect();
    same(&format!(
        r#"
        A*10000 "{sets}"
        A*10000 "{gets}"
        A*5000 "{mixed}"
        B*1 "MULTI\r\n"
        B*10000 "{gets}"
        B EXEC
        "#
    ));
}

#[test]
fn a_client_that_will_send_no_more_gets_its_replies() {
    same(include_str!("parity/a_client_that_will_send_no_more_gets_its_replies.txt"));
}
