//! Commands that the table does not have.
use super::*;

/// What a server says of a command: its own name for it, and its flags.
fn described(name: &str, flags: &[&str]) -> String {
    let list = flags.iter().fold(format!("*{}|", flags.len()), |out, flag| format!("{out}+{flag}|"));
    format!("*1|*10|${}|{name}|:-2|{list}:1|:1|:1|*0|*0|*0|*0|", name.len())
}

fn question(name: &str) -> String {
    requests(&format!("COMMAND INFO {name}"))
}

const NIL: &str = "*1|*-1|";

impl Rig {
    /// A client says a command of which the master is asked, on the newest connection; answers so.
    fn learns(&mut self, c: ClientId, says: &str, name: &str, answer: &str) -> UpId {
        self.says(c, says);
        let probe = self.up();
        assert_eq!(self.asked(probe), question(name));
        self.answers(probe, answer);
        probe
    }
}

#[test]
fn the_master_is_asked_once_and_its_answer_holds_for_all() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (c, other) = (r.client(), r.client());
    let json = described("JSON.GET", &["readonly", "module"]);
    let probe = r.learns(c, "json.get a|", "JSON.GET", &json);
    let up = r.up();
    assert_eq!(r.asked(up), requests("json.get a"));
    r.answers(up, "$1|A|");
    assert_eq!(r.hears(c), "$1|A|");
    // Over the connection that was given back.
    r.says(other, "JSON.GET b|");
    assert_eq!((r.asked(up), r.asked(probe)), (requests("JSON.GET b"), String::new()));
    assert_eq!(r.w.upstreams(), 2);
}

#[test]
fn who_asks_for_the_same_meanwhile_waits_for_the_same_answer_and_nobody_else_does() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (c, same, other) = (r.client(), r.client(), r.client());
    r.says(c, "MYGET a|");
    let probe = r.up();
    r.says(same, "myget b|GET c|");
    assert_eq!(r.asked(probe), question("MYGET"));
    r.says(other, "GET d|");
    let up = r.up();
    assert_eq!(r.asked(up), requests("GET d"));
    r.answers(probe, &described("get", &["readonly", "fast"]));
    assert_eq!(r.asked(up), requests("MYGET a|myget b|GET c"), "as GET: over the shared connection");
}

#[test]
fn a_command_that_does_not_exist_costs_no_connection_for_life() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.learns(c, "NOSUCH a|", "NOSUCH", NIL);
    let up = r.up();
    assert_eq!(r.asked(up), requests("NOSUCH a"));
    r.answers(up, "-ERR unknown command 'NOSUCH', with args beginning with: 'a' |");
    r.hears(c);
    r.says(c, "GET a|");
    let lane = r.up();
    assert_eq!((r.asked(up), r.asked(lane)), (String::new(), requests("GET a")));
}

#[test]
fn what_may_have_changed_its_connection_keeps_it_for_its_session_alone() {
    for reply in ["+OK|", "-ERR syntax error|"] {
        let mut r = Rig::new(|_| {});
        r.grant();
        let c = r.client();
        r.learns(
            c,
            "MYSELECT 3|",
            "MYSELECT",
            "-NOPERM User x has no permissions to run the 'command' command|",
        );
        let up = r.up();
        r.asked(up);
        r.answers(up, reply);
        r.hears(c);
        r.says(c, "GET a|");
        assert_eq!(r.asked(up), requests("GET a"));
        // What nothing asked for is its own, too: it may have subscribed.
        r.answers(up, "$1|A|*3|$7|message|$1|c|$1|x|");
        assert_eq!((r.hears(c), r.signs.len()), ("$1|A|*3|$7|message|$1|c|$1|x|".into(), 0));
        r.loses(up);
        assert!(r.closed.contains(&Dst::Client(c)), "as a direct connection would be");
    }
}

#[test]
fn a_set_that_may_have_two_replies_has_a_connection_of_its_own() {
    let both = "$1|0|-ERR must be exactly 16 hexadecimal characters|";
    let digest = "SET a 1 GET IFDEQ 0123456789abcdef|";
    let (twice, once) = (
        ["SET a 1 GET IFDEQ abc|", "set a 1 ifdne abc get|"],
        ["SET a 1 IFDEQ abc|", "SET GET IFDEQ abc|", digest],
    );
    for said in twice.iter().chain(&once) {
        let mut r = Rig::new(|_| {});
        r.grant();
        let (c, other) = (r.client(), r.client());
        r.says(other, "GET a|");
        let lane = r.up();
        r.asked(lane);
        r.answers(lane, "$1|0|");
        r.hears(other);
        r.says(c, &format!("{said}GET a|"));
        let sent = requests(&format!("{said}GET a"));
        if once.contains(said) {
            assert_eq!(r.asked(lane), sent);
            continue;
        }
        let own = r.up();
        assert_eq!((r.asked(own), r.asked(lane)), (sent, String::new()));
        r.answers(own, &format!("{both}$1|0|"));
        assert_eq!(r.hears(c), format!("{both}$1|0|"));
    }
}

#[test]
fn a_renamed_command_is_refused_as_under_its_own_name() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.learns(c, "HALT|", "HALT", &described("shutdown", &["admin", "noscript"]));
    assert!(r.hears(c).starts_with("-REFUSED 'SHUTDOWN' is not forwarded"));
}

#[test]
fn a_renamed_command_that_changes_its_connection_passes_uncounted() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.learns(c, "MYSUB a b|", "MYSUB", &described("subscribe", &["pubsub", "noscript"]));
    let up = r.up();
    assert_eq!(r.asked(up), requests("MYSUB a b"));
    r.answers(up, "*3|$9|subscribe|$1|a|:1|*3|$9|subscribe|$1|b|:2|");
    assert_eq!(r.hears(c).matches("subscribe").count(), 2);
}

#[test]
fn who_has_not_authenticated_makes_nobody_ask_and_keeps_nothing() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "GET a|");
    let up = r.opened[0];
    r.asked(up);
    r.answers(up, "-NOAUTH Authentication required.|");
    r.asked(up);
    r.answers(up, "-NOAUTH Authentication required.|");
    r.hears(c);
    for n in 0..100 {
        r.says(c, &format!("NAME{n}|"));
        let pinned = *r.opened.last().unwrap();
        if n == 0 {
            r.asked(pinned);
            r.answers(pinned, &"-NOAUTH Authentication required.|".repeat(2));
        }
        assert_eq!(r.asked(pinned), requests(&format!("NAME{n}")));
        r.answers(pinned, "-NOAUTH Authentication required.|");
        assert!(r.hears(c).starts_with("-NOAUTH"));
    }
    assert_eq!((r.opened.len(), r.w.services[0].as_ref().unwrap().learned.len()), (2, 0));
}

#[test]
fn a_question_whose_connection_is_lost_is_asked_again_of_the_next_master() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "X.A 1|");
    let probe = r.up();
    r.asked(probe);
    r.loses(probe);
    assert_eq!(r.hears(c), "");
    r.grant();
    let probe = r.up();
    assert_eq!(r.asked(probe), question("X.A"));
    r.answers(probe, &described("x.a", &["write", "module"]));
    let up = r.up();
    assert_eq!(r.asked(up), requests("X.A 1"));
}

#[test]
fn what_a_master_said_is_not_believed_of_the_next() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.learns(c, "MYGET a|", "MYGET", &described("get", &["readonly"]));
    let up = r.up();
    r.asked(up);
    r.answers(up, "$-1|");
    r.hears(c);
    r.grant();
    r.learns(c, "MYGET a|", "MYGET", &described("getdel", &["write"]));
}

#[test]
fn who_waits_for_an_answer_while_the_gate_shuts_stands_in_its_line() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "X.A 1|");
    let probe = r.up();
    let hold = Gate::Hold { since: r.now, until: r.now + Duration::from_millis(500) };
    (r.view.writes, r.view.reads) = (hold, hold);
    r.publish();
    assert_eq!(r.asked(probe), "");
    r.pass(500);
    assert!(r.hears(c).starts_with("-MASTERDOWN "));
}

#[test]
fn a_server_that_does_not_answer_is_not_waited_for() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "X.A 1|");
    let probe = r.up();
    r.asked(probe);
    r.pass(1000);
    r.pass(1000);
    let up = r.up();
    assert_eq!(r.asked(up), requests("X.A 1"), "the safest way");
    r.answers(probe, &described("x.a", &["write", "module"]));
}

#[test]
fn a_connection_that_may_not_be_used_is_the_answer() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "X.A 1|");
    for _ in 0..2 {
        let up = *r.opened.last().unwrap();
        r.asked(up);
        r.answers(up, "-ERR max number of clients reached|");
    }
    assert_eq!((r.hears(c), r.opened.len()), ("-ERR max number of clients reached|".into(), 2));
}

#[test]
fn no_more_than_so_many_names_are_asked_about_at_once() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let clients: Vec<ClientId> = (0..200).map(|_| r.client()).collect();
    for (n, c) in clients.iter().enumerate() {
        r.says(*c, &format!("X.{n}|"));
    }
    let probe = r.opened[0];
    r.asked(probe);
    r.answers(probe, MASTER);
    assert_eq!(r.asked(probe).matches("COMMAND").count(), 64);
}

#[test]
fn in_a_transaction_the_master_is_asked_beside_it() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "MULTI|");
    let up = r.up();
    r.asked(up);
    r.answers(up, "+OK|");
    r.learns(c, "X.A 1|", "X.A", &described("x.a", &["write", "module"]));
    assert_eq!(r.asked(up), requests("X.A 1"));
    r.answers(up, "+QUEUED|");
    r.says(c, "EXEC|");
    r.asked(up);
    r.answers(up, "*1|+OK|");
    assert_eq!(r.hears(c), "+OK|+QUEUED|*1|+OK|");
    r.says(c, "GET a|");
    assert_eq!(r.asked(up), "", "it is not bound");
}

#[test]
fn an_unknown_command_in_a_transaction_binds_when_it_was_executed() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let c = r.client();
    r.says(c, "MULTI|");
    let up = r.up();
    r.asked(up);
    r.answers(up, "+OK|");
    r.learns(c, "MYSELECT 1|", "MYSELECT", "-NOPERM no|");
    r.asked(up);
    r.answers(up, "+QUEUED|");
    r.says(c, "EXEC|");
    r.asked(up);
    r.answers(up, "*1|+OK|");
    r.says(c, "GET a|");
    assert_eq!(r.asked(up), requests("GET a"));
}
