//! Commands that a service denies, or calls by other names.
use super::*;
use crate::rules::Rules;

fn ruled(denied: &[&str], renamed: &[(&str, &str)]) -> Rig {
    let denied = denied.iter().map(|name| (*name).into()).collect();
    let renamed = renamed.iter().map(|(own, name)| ((*own).into(), (*name).into())).collect();
    let mut r = Rig::new(|p| {
        p.rules = Rules::new(denied, renamed);
        p.limits.stream_from = 100;
        p.limits.in_place_from = 20;
    });
    r.grant();
    r
}

#[test]
fn a_renamed_command_goes_out_by_its_own_name_also_when_it_is_sent_again() {
    let mut r = ruled(&[], &[("SET", "PUT")]);
    let c = r.client();
    r.says(c, "GET a|");
    let up = r.up();
    r.asked(up);
    r.answers(up, "$-1|");
    r.hears(c);
    r.says(c, "put a 1|SET a 2|");
    assert_eq!(r.asked(up), requests("SET a 1"));
    r.answers(up, "-READONLY You can't write against a read only replica.|");
    r.asked(up);
    r.prove();
    assert_eq!(r.asked(up), requests("SET a 1"));
    r.answers(up, "+OK|");
    assert_eq!(r.hears(c), "+OK|-ERR unknown command 'SET', with args beginning with: 'a' '2' |");
}

#[test]
fn what_the_server_renamed_is_treated_as_what_it_is_and_nobody_asks() {
    let mut r = ruled(&[], &[("MYBLPOP", "BLPOP"), ("MYCONFIG", "CONFIG")]);
    let c = r.client();
    r.says(c, "BLPOP l 0|");
    let up = r.up();
    assert_eq!(r.asked(up), requests("MYBLPOP l 0"));
    r.answers(up, "*2|$1|l|$1|x|");
    r.says(c, "CONFIG GET x|");
    let lane = r.up();
    assert_eq!(r.asked(lane), requests("MYCONFIG GET x"));
}

#[test]
fn a_denied_command_says_so_and_breaks_its_transaction() {
    let mut r = ruled(&["KEYS"], &[]);
    let c = r.client();
    r.says(c, "MULTI|");
    let up = r.up();
    r.asked(up);
    r.answers(up, "+OK|");
    r.hears(c);
    r.says(c, "KEYS *|");
    assert!(r.hears(c).starts_with("-REFUSED 'KEYS' is not forwarded by Pointsman: the setting 'deny'"));
    r.says(c, "EXEC|");
    assert_eq!(r.asked(up), requests("DISCARD"));
    r.answers(up, "+OK|");
    assert!(r.hears(c).starts_with("-EXECABORT"));
}

#[test]
fn a_refusal_waits_for_the_replies_before_it() {
    let mut r = ruled(&["KEYS"], &[]);
    let c = r.client();
    r.says(c, "GET a|KEYS *|GET b|");
    let up = r.up();
    assert_eq!(r.asked(up), requests("GET a"));
    r.answers(up, "$1|A|");
    assert_eq!(r.asked(up), requests("GET b"));
    let heard = r.hears(c);
    assert!(heard.starts_with("$1|A|-REFUSED"), "{heard}");
}

#[test]
fn a_large_request_is_denied_and_renamed_too() {
    let mut r = ruled(&["APPEND"], &[("SET", "PUT")]);
    let c = r.client();
    let value = "x".repeat(200);
    let set = format!("*3|$3|PUT|$1|a|$200|{value}|");
    let (head, tail) = set.split_at(120);
    r.w.read(r.now, Dst::Client(c), &wire(head));
    r.effects();
    let up = r.up();
    r.w.read(r.now, Dst::Client(c), &wire(tail));
    r.effects();
    assert_eq!(r.asked(up), format!("*3|$3|SET|$1|a|$200|{value}|"));
    r.answers(up, "+OK|");
    assert_eq!(r.hears(c), "+OK|");
    let append = set.replace("$3|PUT", "$6|APPEND");
    let (head, tail) = append.split_at(120);
    for part in [head, tail, "GET a|"] {
        r.w.read(r.now, Dst::Client(c), &wire(part));
        r.effects();
    }
    assert!(r.hears(c).starts_with("-REFUSED 'APPEND'"));
    let lane = r.up();
    assert_eq!(r.asked(lane), requests("GET a"));
}

#[test]
fn a_command_that_the_server_renamed_is_denied_by_its_own_name() {
    let mut r = ruled(&["FLUSHALL"], &[]);
    let c = r.client();
    r.says(c, "WIPE|");
    let probe = r.up();
    r.asked(probe);
    r.answers(probe, "*1|*6|$8|flushall|:-1|*1|+write|:0|:0|:0|");
    assert!(r.hears(c).starts_with("-REFUSED 'FLUSHALL'"));
}

#[test]
fn what_is_read_to_where_it_is_kept_is_denied_and_renamed_too() {
    let mut r = ruled(&["APPEND"], &[("SET", "PUT")]);
    let c = r.client();
    r.says(c, "GET a|");
    let up = r.up();
    r.asked(up);
    r.answers(up, "$-1|");
    r.hears(c);
    // What follows is as large as what was read last.
    r.says_bytes(c, &wire(&format!("*2|$3|GET|$40|{}|", "k".repeat(40))));
    r.asked(up);
    r.answers(up, "$-1|");
    r.hears(c);
    let put = wire("*3|$3|PUT|$1|a|$20|xxxxxxxxxxxxxxxxxxxx|");
    assert_eq!(r.says_bytes(c, &put), 1);
    assert_eq!(r.asked(up), "*3|$3|SET|$1|a|$20|xxxxxxxxxxxxxxxxxxxx|");
    r.answers(up, "+OK|");
    assert_eq!(r.hears(c), "+OK|");
    for denied in ["$6|APPEND", "$3|SET"] {
        let request = shown(&put).replace("$3|PUT", denied);
        assert_eq!(r.says_bytes(c, &wire(&request)), 1);
        assert_eq!(r.asked(up), "");
        assert!(r.hears(c).starts_with('-'));
    }
}

/// A session whose replies are not counted, and its connection.
fn monitor(r: &mut Rig) -> (ClientId, UpId) {
    let c = r.client();
    r.says(c, "MONITOR|");
    let up = r.up();
    assert_eq!(r.asked(up), requests("MONITOR"));
    r.answers(up, "+OK|");
    assert_eq!(r.hears(c), "+OK|");
    (c, up)
}

#[test]
fn a_session_whose_replies_are_not_counted_may_not_say_what_is_refused_either() {
    for says in ["SHUTDOWN|", "KEYS *|", "SET a 1|"] {
        let mut r = ruled(&["KEYS"], &[("SET", "PUT")]);
        let (c, up) = monitor(&mut r);
        r.says(c, "PUT a 1|get b|");
        assert_eq!(r.asked(up), requests("SET a 1|get b"));
        r.answers(up, "+OK|$-1|");
        r.hears(c);
        r.says(c, says);
        assert_eq!(r.asked(up), "");
        assert!(r.hears(c).starts_with('-'), "{says}");
        assert!(r.closed.contains(&Dst::Client(c)) && r.closed.contains(&Dst::Up(up)), "{says}");
    }
}

#[test]
fn what_such_a_session_says_passes_in_parts_if_it_is_large() {
    let mut r = ruled(&[], &[("SET", "PUT")]);
    let (c, up) = monitor(&mut r);
    let value = "x".repeat(200);
    let set = format!("*3|$3|PUT|$1|a|$200|{value}|");
    let mut asked = String::new();
    for part in [&set[..5], &set[5..150], &set[150..], "GET b|"] {
        r.w.read(r.now, Dst::Client(c), &wire(part));
        r.effects();
        asked += &r.asked(up);
    }
    assert_eq!(asked, format!("*3|$3|SET|$1|a|$200|{value}|{}", requests("GET b")));
    // What is no request the server answers.
    r.w.read(r.now, Dst::Client(c), b"*x\r\n");
    assert_eq!(r.asked(up), "*x|");
}
