//! Who clients are: to Pointsman, to the server, and when that changes under them.
use super::*;
use crate::policy::Credential;
use crate::users::{User, Users};
use sha2::{Digest, Sha256};

const NOAUTH: &str = "-NOAUTH Authentication required.|";
const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.|";

fn users(names: &[&str]) -> Option<Arc<Users>> {
    let user = |name: &&str| User { name: (*name).into(), passwords: [Sha256::digest("pw").into()].into() };
    Users::new(names.iter().map(user).collect())
}

fn app(secret: &str) -> Option<Credential> {
    Some(Credential { user: Some(b"app"[..].into()), secret: secret.as_bytes().into() })
}

/// A service with the users `web` and `batch`, who are `app` upstream.
fn own(p: &mut Policy) {
    (p.users, p.upstream_user) = (users(&["web", "batch"]), app("sesame"));
}

impl Rig {
    /// Says something that needs no server.
    fn told(&mut self, c: ClientId, text: &str) -> String {
        self.says(c, text);
        self.hears(c)
    }

    /// The newest connection is set up as a user, with what is said for it.
    fn up_as(&mut self, auth: &str) -> UpId {
        let up = *self.opened.last().unwrap();
        let (own, id) = if self.w.ups[up].key.class == Class::Pinned { (ID, ":100|") } else { ("", "") };
        assert_eq!(self.asked(up), requests(auth) + own + ROLE);
        self.answers(up, &format!("+OK|{id}{MASTER}"));
        up
    }

    /// A client that has authenticated at the server, and has sent a GET over its user's connection.
    fn signed_in(&mut self, auth: &str) -> (ClientId, UpId) {
        let c = self.client();
        self.checked(c, auth);
        self.says(c, "GET a|");
        let lane = *self.opened.last().unwrap();
        (c, lane)
    }

    /// The server says yes to a client's AUTH.
    fn checked(&mut self, c: ClientId, auth: &str) {
        let n = self.opened.len();
        self.says(c, &format!("{auth}|"));
        if self.opened.len() > n {
            self.probe = self.up();
        }
        let probe = self.probe;
        assert_eq!(self.asked(probe), requests(auth));
        self.answers(probe, "+OK|");
        assert_eq!(self.hears(c), "+OK|");
    }

    fn reload(&mut self, change: impl FnOnce(&mut Policy)) {
        let mut policy = (*self.w.services[0].as_ref().unwrap().policy).clone();
        change(&mut policy);
        self.w.configure(self.now, &[Arc::new(policy)]);
        self.effects();
    }
}

#[test]
fn who_has_not_authenticated_to_us_costs_no_connection() {
    let mut r = Rig::new(own);
    r.grant();
    let c = r.client();
    for text in ["GET a|", "MULTI|", "X.Y 1|", "SUBSCRIBE ch|", "SELECT 1|", "CLIENT ID|", "EVALSHA a 0|"] {
        assert_eq!(r.told(c, text), NOAUTH, "{text}");
    }
    assert_eq!(r.told(c, "AUTH web wrong|AUTH app sesame|"), WRONGPASS.repeat(2));
    assert!(r.told(c, "HELLO 3|").starts_with("-NOAUTH HELLO must be called"));
    assert!(r.opened.is_empty());
    assert_eq!(r.w.counters()[0].1.unauthenticated, 10);
    assert_eq!(r.told(c, "AUTH web pw|"), "+OK|");
    assert!(r.opened.is_empty(), "nor does it cost one to authenticate");
    r.says(c, "GET a|");
    let lane = r.up_as("AUTH app sesame");
    assert_eq!(r.asked(lane), requests("GET a"));
    r.answers(lane, "$1|A|");
    assert_eq!(r.hears(c), "$1|A|");
}

#[test]
fn who_has_not_authenticated_to_us_may_send_little() {
    let mut r = Rig::new(|p| {
        own(p);
        p.limits.stream_from = 16 << 10;
    });
    r.grant();
    let c = r.client();
    let half = "x".repeat(10_000);
    let request = format!("*3|$3|SET|$10000|{half}|$10000|{half}|");
    assert_eq!(r.told(c, &request[..18_000]), "");
    assert_eq!(r.told(c, &request[18_000..]), NOAUTH);
    let said = r.told(c, &format!("*2|$3|GET|$16385|{half}"));
    assert!(said.contains("unauthenticated bulk length"), "{said}");
    assert!(r.is_closed(c) && r.opened.is_empty());
}

#[test]
fn a_hello_that_authenticates_to_us_is_answered_by_the_server_that_never_sees_the_password() {
    let mut r = Rig::new(own);
    r.grant();
    let c = r.client();
    r.says(c, "HELLO 3 AUTH web pw SETNAME me|GET a|");
    let probe = r.up_as("AUTH app sesame");
    assert_eq!(r.asked(probe), requests("HELLO 3 SETNAME me"));
    r.answers(probe, "%1|$2|id|:812|");
    assert_eq!(r.hears(c), "%1|$2|id|:1|");
    let lane = *r.opened.last().unwrap();
    assert_eq!(r.asked(lane), requests("AUTH app sesame|HELLO 3") + ROLE);
    assert_eq!(r.told(c, "HELLO 2 AUTH web wrong|"), "", "in its turn");
    r.answers(lane, &format!("+OK|%0|{MASTER}"));
    assert_eq!(r.asked(lane), requests("GET a"));
    r.answers(lane, "$1|A|");
    assert_eq!(r.hears(c), format!("$1|A|{WRONGPASS}"));
}

#[test]
fn users_of_ours_authenticate_while_there_is_no_master() {
    let mut r = Rig::new(own);
    let [c, other] = [r.client(), r.client()];
    assert_eq!(r.told(c, "AUTH web pw|"), "+OK|");
    assert_eq!(r.told(other, "HELLO 3 AUTH web wrong|"), WRONGPASS);
    assert_eq!(r.told(c, "GET a|HELLO 3 AUTH batch pw|"), "", "held");
    assert_eq!(r.told(other, "GET a|"), NOAUTH, "not held");
    r.grant();
    let lane = r.up_as("AUTH app sesame");
    assert_eq!(r.asked(lane), requests("GET a"));
    r.answers(lane, "$1|A|");
    let probe = r.up_as("AUTH app sesame");
    assert_eq!(r.asked(probe), requests("HELLO 3"));
    assert_eq!(r.hears(c), "$1|A|");
}

#[test]
fn who_resets_has_to_authenticate_again() {
    let mut r = Rig::new(own);
    r.grant();
    let c = r.client();
    r.says(c, "AUTH web pw|GET a|");
    let lane = r.up_as("AUTH app sesame");
    r.asked(lane);
    r.answers(lane, "$1|A|");
    r.hears(c);
    assert_eq!(r.told(c, "RESET|GET a|"), format!("+RESET|{NOAUTH}"));
    assert_eq!((r.asked(lane), r.opened.len()), (String::new(), 1));
    r.says(c, "AUTH web pw|GET b|");
    assert_eq!((r.hears(c), r.asked(lane)), ("+OK|".into(), requests("GET b")));
}

#[test]
fn nobody_becomes_another_user_of_ours_in_a_transaction_or_where_replies_are_not_counted() {
    let mut r = Rig::new(own);
    r.grant();
    let c = r.client();
    r.says(c, "AUTH web pw|MULTI|AUTH batch pw|EXEC|");
    let up = r.up_as("AUTH app sesame");
    assert_eq!(r.asked(up), requests("MULTI"));
    r.answers(up, "+OK|");
    assert_eq!(r.asked(up), requests("DISCARD"));
    r.answers(up, "+OK|");
    let heard = r.hears(c);
    let aborts = "+OK|+OK|-ERR Command not allowed inside a transaction|-EXECABORT Transaction discarded";
    assert!(heard.starts_with(aborts), "{heard}");
    for last in ["AUTH web pw", "HELLO 3 AUTH web pw", "RESET"] {
        let c = r.client();
        r.says(c, "AUTH web pw|MONITOR|");
        let up = *r.opened.last().unwrap();
        if !r.asked(up).ends_with(&requests("MONITOR")) {
            r.answers(up, &format!("+OK|:100|{MASTER}"));
            r.asked(up);
        }
        r.answers(up, "+OK|");
        r.says(c, &format!("{last}|"));
        assert!(r.hears(c).ends_with("CLIENT REPLY or the like|"), "{last}");
        assert!(r.is_closed(c) && r.closed.contains(&Dst::Up(up)), "{last}");
    }
}

#[test]
fn a_user_that_is_deleted_is_closed_and_one_of_a_new_password_is_not() {
    let mut r = Rig::new(own);
    r.grant();
    let [gone, stays, stranger] = [r.client(), r.client(), r.client()];
    r.told(gone, "AUTH batch pw|");
    r.told(stays, "AUTH web pw|");
    r.says(gone, "GET a|");
    let lane = r.up_as("AUTH app sesame");
    r.says(stays, "GET b|");
    r.asked(lane);
    let web = User { name: "web".into(), passwords: [Sha256::digest("new").into()].into() };
    r.reload(|p| p.users = Users::new([web].into()));
    assert!(r.is_closed(gone) && !r.is_closed(stays) && !r.is_closed(stranger));
    r.answers(lane, "$1|A|$1|B|");
    assert_eq!(r.hears(stays), "$1|B|");
    assert_eq!(r.told(stays, "AUTH web pw|"), WRONGPASS);
    assert_eq!(r.told(stranger, "AUTH web new|"), "+OK|");
}

#[test]
fn a_service_that_gets_users_closes_who_has_not_authenticated_to_it() {
    let mut r = Rig::new(|p| p.upstream_user = app("sesame"));
    r.grant();
    let before = r.client();
    r.reload(own);
    assert!(r.is_closed(before));
    let web = r.client();
    r.told(web, "AUTH web pw|");
    r.reload(|p| p.users = None);
    assert!(!r.is_closed(web));
    r.says(web, "GET a|");
    r.up_as("AUTH app sesame");
}

#[test]
fn a_user_that_was_deleted_is_closed_also_if_it_comes_from_a_worker_that_does_not_know_yet() {
    let mut from = Rig::new(own);
    let c = from.client();
    from.told(c, "AUTH batch pw|");
    from.w.send_off(from.now, crate::spread::Who::All);
    let (_, migrant) = from.w.leavers(from.now).pop().unwrap();
    let mut to = Rig::new(|p| p.users = users(&["web"]));
    let c = to.w.adopt(to.now, migrant).ok().unwrap();
    to.effects();
    assert!(to.is_closed(c));
}

#[test]
fn a_new_upstream_password_is_everybodys_and_connections_of_the_old_one_go_to_nobody() {
    let mut r = Rig::new(|p| p.upstream_user = app("old"));
    r.grant();
    let [idle, busy, tx] = [r.client(), r.client(), r.client()];
    r.says(idle, "GET a|");
    let lane = r.up_as("AUTH app old");
    r.asked(lane);
    r.answers(lane, "$1|A|");
    r.says(busy, "GET b|");
    r.asked(lane);
    r.says(tx, "MULTI|");
    let pinned = r.up_as("AUTH app old");
    r.asked(pinned);
    r.answers(pinned, "+OK|");
    r.reload(|p| p.upstream_user = app("new"));
    r.says(idle, "GET c|");
    let renewed = r.up_as("AUTH app new");
    assert_eq!(r.asked(renewed), requests("GET c"));
    r.says(busy, "GET d|");
    assert_eq!(r.asked(lane), requests("GET d"), "in one place at a time");
    r.says(tx, "EXEC|");
    r.asked(pinned);
    r.answers(pinned, "*0|");
    assert!(r.closed.contains(&Dst::Up(pinned)));
    r.loses(lane);
    r.prove();
    assert!(r.asked(renewed).starts_with(&requests("GET b|GET d")));
}

#[test]
fn who_is_not_let_in_again_is_told_and_closed_and_nobody_else() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (old, lane) = r.signed_in("AUTH carol old");
    r.up_as("AUTH carol old");
    r.asked(lane);
    r.answers(lane, "$1|A|");
    r.hears(old);
    let [waits, tx] = [r.client(), r.client()];
    r.checked(waits, "AUTH carol old");
    r.checked(tx, "AUTH carol old");
    r.says(tx, "MULTI|");
    let pinned = r.up_as("AUTH carol old");
    r.asked(pinned);
    r.answers(pinned, "+OK|");
    r.hears(tx);
    // Her password is changed.
    let (new, lane_of_new) = r.signed_in("AUTH carol new");
    r.up_as("AUTH carol new");
    r.asked(lane_of_new);
    r.says(waits, "SELECT 3|");
    let probe = *r.opened.last().unwrap();
    r.asked(probe);
    r.answers(probe, WRONGPASS);
    assert_eq!(r.hears(waits), WRONGPASS);
    assert!(r.is_closed(waits) && r.w.upstreams() == 4);
    assert!(!r.is_closed(old) && !r.is_closed(tx) && !r.is_closed(new), "they have what they need");
    let n = r.opened.len();
    r.loses(lane);
    r.answers(lane_of_new, "$1|N|");
    assert_eq!(r.hears(new), "$1|N|");
    assert_eq!(r.opened.len(), n + 1, "it is tried once more");
    let again = *r.opened.last().unwrap();
    r.asked(again);
    r.answers(again, WRONGPASS);
    assert!(r.is_closed(old) && !r.is_closed(tx) && !r.is_closed(new));
    r.says(tx, "EXEC|");
    r.prove();
    r.asked(pinned);
    r.answers(pinned, "*0|");
    assert_eq!((r.hears(tx), r.opened.len()), ("*0|".into(), n + 1));
}

#[test]
fn a_connection_that_was_not_used_is_not_made_again() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let (_, lane) = r.signed_in("AUTH carol pw");
    r.up_as("AUTH carol pw");
    r.asked(lane);
    r.answers(lane, "$1|A|");
    r.loses(lane);
    let again = r.up_as("AUTH carol pw");
    assert_ne!(again, lane);
    let n = r.opened.len();
    r.loses(again);
    r.prove();
    assert_eq!(r.opened.len(), n);
}

#[test]
fn the_clients_of_an_upstream_user_that_is_not_let_in_are_told_and_stay() {
    let mut r = Rig::new(own);
    r.grant();
    let c = r.client();
    r.told(c, "AUTH web pw|");
    for _ in 0..2 {
        r.says(c, "GET a|");
        let lane = *r.opened.last().unwrap();
        r.asked(lane);
        r.answers(lane, WRONGPASS);
        assert_eq!(r.hears(c), WRONGPASS);
    }
    assert!(!r.is_closed(c));
}

#[test]
fn a_password_that_is_set_at_run_time_is_asked_of_who_comes_then() {
    let mut r = Rig::new(|_| {});
    r.grant();
    let old = r.client();
    r.says(old, "GET a|");
    let lane = r.up();
    r.asked(lane);
    r.answers(lane, "$1|A|");
    r.hears(old);
    let n = r.opened.len();
    r.pass(30_000);
    assert_eq!(r.opened.len(), n, "nobody has come");
    let new = r.client();
    r.pass(1_000);
    let asks = *r.opened.last().unwrap();
    assert_eq!((r.opened.len(), r.asked(asks)), (n + 1, ROLE.into()));
    r.answers(asks, NOAUTH);
    assert!(r.closed.contains(&Dst::Up(asks)));
    let new_too = r.client();
    r.pass(5_000);
    assert_eq!(r.opened.len(), n + 1, "it was asked a moment ago");
    r.w.gone(r.now, Dst::Client(new_too));
    r.says(new, "GET a|");
    let unnamed = *r.opened.last().unwrap();
    r.asked(unnamed);
    r.answers(unnamed, NOAUTH);
    assert_eq!(r.asked(unnamed), requests("GET a"));
    // Who was there before goes on, and may send as much as before.
    let big = "x".repeat(20_000);
    r.says(old, &format!("GET {big}|"));
    assert_eq!(r.asked(lane), requests(&format!("GET {big}")));
    r.answers(lane, "$1|A|");
    assert_eq!(r.hears(old), "$1|A|");
    // It is taken away again.
    r.answers(unnamed, NOAUTH);
    r.client();
    r.pass(11_000);
    let asks = *r.opened.last().unwrap();
    assert_eq!(r.asked(asks), ROLE);
    r.answers(asks, MASTER);
    r.hears(new);
    r.says(new, &format!("GET {big}|"));
    assert_eq!(r.asked(unnamed), requests(&format!("GET {big}")));
}

#[test]
fn a_shared_connection_that_is_unused_makes_room_and_one_that_is_used_does_not() {
    let mut r = Rig::new(|p| p.shared_max = 2);
    r.grant();
    let (first, lane) = r.signed_in("AUTH carol pw");
    r.up_as("AUTH carol pw");
    r.asked(lane);
    let second = r.client();
    r.says(second, "GET b|");
    // The one on which AUTH was tried is unused.
    assert!(r.closed.contains(&Dst::Up(r.probe)));
    let unnamed = r.up();
    r.asked(unnamed);
    let third = r.client();
    assert!(r.told(third, "AUTH dave pw|").starts_with("-ERR too many users"));
    r.answers(lane, "$1|A|");
    r.answers(unnamed, "$1|B|");
    assert_eq!((r.hears(first), r.hears(second)), ("$1|A|".into(), "$1|B|".into()));
    r.checked(third, "AUTH dave pw");
    assert_eq!(r.w.upstreams(), 2);
}

#[test]
fn who_has_not_authenticated_to_us_says_nothing_of_other_sessions() {
    let mut r = Rig::new(own);
    r.grant();
    let popper = r.client();
    r.says(popper, "AUTH web pw|BLPOP l 0|");
    let up = r.up_as("AUTH app sesame");
    r.asked(up);
    r.hears(popper);
    let id = r.w.clients[popper].session.id;
    let opened = r.opened.len();
    for text in [
        format!("CLIENT KILL ID {id}|"),
        format!("CLIENT UNBLOCK {id}|"),
        format!("CLIENT LIST ID {id}|"),
        format!("CLIENT TRACKING ON REDIRECT {id}|"),
        "CLIENT TRACKING ON|".into(),
        "CLIENT INFO|".into(),
    ] {
        let stranger = r.client();
        assert_eq!(r.told(stranger, &text), NOAUTH, "{text}");
        r.says(stranger, "AUTH web pw|RESET|");
        r.hears(stranger);
        assert_eq!(r.told(stranger, &text), NOAUTH, "{text}");
    }
    assert_eq!((r.opened.len(), r.is_closed(popper), r.asked(up)), (opened, false, String::new()));
}

#[test]
fn nobody_is_told_for_another_user_of_ours_or_for_a_stranger() {
    let mut r = Rig::new(own);
    r.grant();
    let [same, other, stranger] = [r.client(), r.client(), r.client()];
    r.told(same, "AUTH web pw|");
    r.told(other, "AUTH batch pw|");
    for (to, gets_one) in [(other, false), (stranger, false), (same, true)] {
        let c = r.client();
        r.told(c, "AUTH web pw|");
        let id = r.w.clients[to].session.id;
        r.says(c, &format!("CLIENT TRACKING ON REDIRECT {id}|"));
        assert_eq!(matches!(r.w.clients[to].place, client::Place::Pinned(_)), gets_one, "{id}");
    }
}
