//! Writes that are acknowledged when replicas have them.
use super::*;
use crate::policy::Durable;

const SET: &str = "*3|$3|SET|$1|a|$1|1|";
const GET: &str = "*2|$3|GET|$1|a|";
pub(super) const WAIT: &str = "*3|$4|WAIT|$1|2|$3|500|";
const PING: &str = "*1|$4|PING|";
const NOT_DURABLE: &str = "-NOTDURABLE the write was executed on the master, but ";

pub(super) fn durable() -> Rig {
    let mut r = Rig::new(|p| p.durable = Durable { replicas: 2, timeout: Duration::from_millis(500) });
    r.grant();
    r
}

impl Rig {
    pub(super) fn durable_client(&mut self) -> ClientId {
        self.w.accepted(self.now, SERVICE, true, Ends::Unknown).expect("there is room")
    }

    /// The end of a turn: what is to be written to a connection.
    pub(super) fn turn(&mut self, up: UpId) -> String {
        let mut found = false;
        while let Some(dst) = self.w.next_dirty(Side::Ups) {
            found |= dst == Dst::Up(up);
        }
        if found { self.asked(up) } else { String::new() }
    }

    /// A client whose `SET` was sent, with the `WAIT` behind it.
    pub(super) fn waits(&mut self) -> (ClientId, UpId) {
        let c = self.durable_client();
        self.says(c, "SET a 1|");
        let up = self.up();
        assert_eq!(self.turn(up), [SET, WAIT].concat());
        (c, up)
    }

    fn not_durable(&self) -> u64 {
        self.w.counters()[0].1.not_durable
    }
}

#[test]
fn a_write_is_acknowledged_when_so_many_replicas_have_it() {
    for (n, heard) in [(3, "+OK|"), (2, "+OK|"), (1, NOT_DURABLE), (0, NOT_DURABLE)] {
        let mut r = durable();
        let (c, up) = r.waits();
        r.answers(up, "+OK|");
        assert_eq!(r.hears(c), "");
        r.answers(up, &format!(":{n}|"));
        assert!(r.hears(c).starts_with(heard), "{n}");
        assert_eq!(r.not_durable(), u64::from(n < 2));
        assert_eq!(r.turn(up), "");
    }
}

#[test]
fn whatever_a_wait_is_refused_with_the_write_is_not_known_to_be_replicated() {
    for (said, sign) in [
        (
            "-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
            Some(SignKind::Unblocked),
        ),
        ("-UNBLOCKED client unblocked via CLIENT UNBLOCK", None),
        (
            "-ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 …",
            Some(SignKind::NotMaster),
        ),
        ("-NOPERM User x has no permissions to run the 'wait' command", None),
        ("+QUEUED", None),
    ] {
        let mut r = durable();
        let (c, up) = r.waits();
        r.answers(up, &format!("+OK|{said}|"));
        let heard = r.hears(c);
        assert!(heard.starts_with(NOT_DURABLE) && heard.contains(&said[..20.min(said.len())]), "{heard}");
        assert_eq!(r.signs, Vec::from_iter(sign), "{said}");
    }
}

#[test]
fn all_that_is_written_while_replicas_are_waited_for_shares_the_next_wait() {
    let mut r = durable();
    let (first, up) = r.waits();
    let others: Vec<ClientId> = (0..100).map(|_| r.durable_client()).collect();
    for c in &others {
        r.says(*c, "SET a 1|");
    }
    assert_eq!(r.turn(up), SET.repeat(100));
    r.answers(up, "+OK|:2|");
    assert_eq!(r.hears(first), "+OK|");
    assert_eq!(r.turn(up), WAIT);
    r.answers(up, &"+OK|".repeat(100));
    assert_eq!(r.hears(others[0]), "");
    r.answers(up, ":2|");
    assert!(others.iter().all(|c| r.hears(*c) == "+OK|"));
    assert_eq!(r.w.counters()[0].1.waits, 2);
}

#[test]
fn reads_of_others_go_another_way_and_ones_own_behind_the_write() {
    let mut r = durable();
    let (c, lane) = r.waits();
    r.says(c, "GET a|");
    assert_eq!(r.turn(lane), GET);
    let other = r.durable_client();
    r.says(other, "GET a|");
    let reads = r.up();
    assert_ne!(reads, lane);
    assert_eq!(r.asked(reads), GET);
    r.answers(reads, "$1|1|");
    assert_eq!(r.hears(other), "$1|1|");
    r.answers(lane, "+OK|:2|$1|1|");
    assert_eq!(r.hears(c), "+OK|$1|1|");
    // Nothing is owed to it any longer: its next read goes with the others'.
    r.says(c, "GET a|");
    assert_eq!(r.asked(reads), GET);
}

#[test]
fn a_write_does_not_overtake_the_reads_before_it() {
    let mut r = durable();
    let c = r.durable_client();
    r.says(c, "GET a|SET a 1|");
    let reads = r.up();
    assert_eq!(r.asked(reads), GET);
    assert_eq!(r.opened.len(), 1);
    r.answers(reads, "$-1|");
    let lane = r.up();
    assert_eq!(r.turn(lane), [SET, WAIT].concat());
}

#[test]
fn clients_of_another_listener_do_not_wait() {
    let mut r = durable();
    let c = r.client();
    r.says(c, "SET a 1|");
    let up = r.up();
    assert_eq!(r.turn(up), SET);
    r.answers(up, "+OK|");
    assert_eq!(r.hears(c), "+OK|");
}

#[test]
fn a_refused_write_is_told_at_once() {
    let mut r = durable();
    let (c, up) = r.waits();
    r.answers(up, "-WRONGTYPE Operation against a key holding the wrong kind of value|");
    assert!(r.hears(c).starts_with("-WRONGTYPE"));
    r.answers(up, ":2|");
}

#[test]
fn a_transaction_waits_on_its_own_connection_behind_its_end() {
    let mut r = durable();
    let c = r.durable_client();
    r.says(c, "MULTI|SET a 1|");
    let up = r.up();
    assert_eq!(r.turn(up), ["*1|$5|MULTI|", SET].concat());
    r.answers(up, "+OK|+QUEUED|");
    assert_eq!((r.hears(c), r.turn(up)), ("+OK|+QUEUED|".into(), String::new()));
    r.says(c, "NOSUCH a|");
    let probe = r.up();
    assert_eq!(r.asked(probe), "*3|$7|COMMAND|$4|INFO|$6|NOSUCH|");
    r.answers(probe, "*1|*-1|");
    assert_eq!(r.turn(up), "*2|$6|NOSUCH|$1|a|");
    r.answers(up, "-ERR unknown command|");
    assert_eq!((r.hears(c), r.turn(up)), ("-ERR unknown command|".into(), String::new()));
    r.says(c, "EXEC|MULTI|");
    assert_eq!(r.turn(up), "*1|$4|EXEC|");
    r.answers(up, "*1|+OK|");
    assert_eq!((r.hears(c), r.turn(up)), (String::new(), [PING, WAIT].concat()));
    r.answers(up, "+PONG|:2|");
    assert_eq!((r.hears(c), r.turn(up)), ("*1|+OK|".into(), "*1|$5|MULTI|".into()));
}

#[test]
fn nothing_blocks_behind_a_write_that_replicas_are_waited_for() {
    let mut r = durable();
    let c = r.durable_client();
    r.says(c, "MULTI|EXEC|BLPOP l 0|");
    let up = r.up();
    assert_eq!(r.turn(up), "*1|$5|MULTI|*1|$4|EXEC|");
    r.answers(up, "+OK|*0|");
    assert_eq!((r.hears(c), r.turn(up)), ("+OK|".into(), [PING, WAIT].concat()));
    r.answers(up, "+PONG|:2|");
    assert_eq!((r.hears(c), r.turn(up)), ("*0|".into(), "*3|$5|BLPOP|$1|l|$1|0|".into()));
}

#[test]
fn what_a_blocked_pop_took_is_waited_for_behind_its_reply() {
    let mut r = durable();
    let c = r.durable_client();
    r.says(c, "BLPOP l 0|");
    let up = r.up();
    assert_eq!(r.turn(up), "*3|$5|BLPOP|$1|l|$1|0|");
    r.answers(up, "*2|$1|l|$1|v|");
    assert_eq!((r.hears(c), r.turn(up)), (String::new(), [PING, WAIT].concat()));
    r.answers(up, "+PONG|:2|");
    assert_eq!(r.hears(c), "*2|$1|l|$1|v|");
    // The connection goes back to the pool, and does not wait for others.
    let other = r.client();
    r.says(other, "BLPOP l 0|");
    r.asked(up);
    r.answers(up, "*2|$1|l|$1|v|");
    assert_eq!(r.hears(other), "*2|$1|l|$1|v|");
}

#[test]
fn a_durable_write_that_a_deposed_master_refuses_is_sent_to_the_new_one() {
    let mut r = durable();
    let (c, up) = r.waits();
    r.depose();
    r.says(c, "GET a|");
    r.answers(up, READONLY);
    let new = r.up();
    assert_eq!((r.hears(c), r.turn(new)), (String::new(), [SET, GET, WAIT].concat()));
    r.answers(new, "+OK|$1|1|:2|");
    assert_eq!((r.hears(c), r.not_durable()), ("+OK|$1|1|".into(), 0));
}

#[test]
fn what_stands_behind_a_wait_that_a_demotion_ends_was_not_executed() {
    for fenced in [false, true] {
        let mut r = durable();
        let (c, up) = r.waits();
        r.says(c, "SET a 1|");
        assert_eq!(r.turn(up), SET);
        r.answers(up, "+OK|");
        if fenced {
            r.depose();
        }
        r.answers(up, UNBLOCKED);
        assert!(r.hears(c).starts_with(NOT_DURABLE) && r.closed.contains(&Dst::Up(up)));
        if !fenced {
            r.switch_to("n");
        }
        let new = r.up();
        assert_eq!((r.hears(c), r.turn(new)), (String::new(), [SET, WAIT].concat()));
        r.answers(new, "+OK|:2|");
        assert_eq!(r.hears(c), "+OK|");
    }
}

#[test]
fn a_lost_connection_leaves_what_was_answered_not_durable_and_the_rest_uncertain() {
    let mut r = durable();
    let (c, up) = r.waits();
    r.says(c, "SET a 1|");
    r.turn(up);
    r.answers(up, "+OK|");
    r.w.gone(r.now, Dst::Up(up));
    r.effects();
    let heard = r.hears(c);
    assert!(heard.starts_with(NOT_DURABLE) && heard.contains("|-UNCERTAIN "), "{heard}");
    r.prove();
    assert!(r.opened.len() == 1 && r.hears(c).is_empty(), "it is not sent again");
}

#[test]
fn what_is_under_way_when_the_gates_close_is_still_waited_for() {
    let mut r = durable();
    let c = r.durable_client();
    r.says(c, "SET a 1|");
    let up = r.up();
    assert_eq!(r.asked(up), SET, "the turn has not ended");
    r.hold(true);
    r.says(c, "SET a 1|");
    assert_eq!(r.turn(up), WAIT);
    r.answers(up, "+OK|:2|");
    assert_eq!(r.hears(c), "+OK|");
}

#[test]
fn a_wait_that_a_closing_gate_takes_back_comes_again() {
    let mut r = durable();
    let c = r.durable_client();
    r.says(c, "SET a 1|");
    let up = r.up();
    while r.w.next_dirty(Side::Ups).is_some() {}
    r.w.wrote(r.now, Dst::Up(up), SET.replace('|', "\r\n").len());
    r.hold(true);
    assert_eq!(r.turn(up), WAIT);
    r.answers(up, "+OK|:2|");
    assert_eq!(r.hears(c), "+OK|");
}
