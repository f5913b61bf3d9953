//! Thousands of clients that block at once.
use crate::harness::observer::{Observer, said, undisturbed};
use crate::harness::raw::{Raw, request, shown};
use crate::harness::{Proxy, Server, eventually};
use pointsman::client::Value;
use pointsman::sandbox::deployment::Options;
use std::collections::BTreeSet;

const CLIENTS: usize = 3_000;

fn start(lines: &str) -> (Server, Proxy, Observer) {
    let server = Server::start(&Options::default());
    let proxy = Proxy::start_with(&server, lines);
    let observer = Observer::of(&server);
    (server, proxy, observer)
}

fn blocked(proxy: &Proxy, observer: &mut Observer, n: usize) -> Vec<Raw> {
    let mut clients: Vec<Raw> = (0..n).map(|_| Raw::connect(proxy.addr())).collect();
    clients.iter_mut().for_each(|client| client.send(b"BLPOP queue 0\r\n"));
    eventually("all are blocked", || observer.blocked() == n as u64);
    clients
}

#[test]
fn each_of_thousands_that_wait_gets_one_element() {
    let (_server, proxy, mut observer) = start("");
    let mut clients = blocked(&proxy, &mut observer, CLIENTS);
    let accepted = observer.accepted();
    undisturbed(&proxy, |_| {
        for round in 0..3 {
            let elements: Vec<String> = (0..CLIENTS).map(|i| format!("{round}:{i}")).collect();
            // Some at once, the others one by one; a part by another client of the proxy.
            let mut pusher = Raw::connect(proxy.addr());
            let words = [&["RPUSH".to_owned(), "queue".to_owned()][..], &elements[..1_000]].concat();
            pusher.send(&request(&words));
            for element in &elements[1_000..] {
                pusher.send(&request(&["RPUSH", "queue", element]));
            }
            let mut popped = BTreeSet::new();
            for client in &mut clients {
                let reply = String::from_utf8(client.reply()).expect("text");
                let words: Vec<&str> = reply.split("\r\n").collect();
                assert_eq!((words[0], words[2]), ("*2", "queue"), "{reply:?}");
                assert!(popped.insert(words[4].to_owned()), "{} came twice", words[4]);
                client.send(b"BLPOP queue 0\r\n");
            }
            assert_eq!(popped, elements.into_iter().collect());
            eventually("all are blocked again", || observer.blocked() == CLIENTS as u64);
        }
    });
    // The connections that they had, and at most one lane for those who push.
    assert!(observer.accepted() <= accepted + 1);
    assert_eq!(observer.0.ask(&["LLEN", "queue"]).expect("LLEN"), Value::Integer(0));
}

#[test]
fn thousands_that_leave_at_once_pop_nothing() {
    let (_server, proxy, mut observer) = start("");
    let before = observer.connections();
    undisturbed(&proxy, |others| {
        let mut clients = blocked(&proxy, &mut observer, CLIENTS);
        others.go_on();
        let mut last = clients.pop().expect("there are some");
        // One half with a farewell, one without.
        clients.iter().step_by(2).for_each(Raw::shut);
        drop(clients);
        eventually("only one is blocked", || observer.blocked() == 1);
        observer.ask(&["RPUSH", "queue", "first", "second"]);
        assert!(shown(&last.reply()).contains("first"));
        assert_eq!(observer.0.ask(&["LLEN", "queue"]).expect("LLEN"), Value::Integer(1));
    });
    // One pinned connection is in the pool, and one lane is there.
    eventually("their connections are closed", || observer.connections() <= before + 2);
}

#[test]
fn more_than_may_block_are_told_so_and_go_on() {
    let (_server, proxy, mut observer) = start("pinned = 1000");
    let mut clients = blocked(&proxy, &mut observer, 1_000);
    let mut more: Vec<Raw> = (0..500).map(|_| Raw::connect(proxy.addr())).collect();
    for client in &mut more {
        client.send(b"BLPOP queue 0\r\nMULTI\r\nINCR n\r\nSUBSCRIBE ch\r\nPING\r\n");
    }
    let mut counted = BTreeSet::new();
    for client in &mut more {
        let error = shown(&client.reply());
        assert!(error.starts_with("-ERR too many sessions need a connection of their own"), "{error}");
        assert!(shown(&client.reply()).starts_with("-ERR too many sessions"));
        // What needs none is executed: the transaction did not begin.
        assert!(counted.insert(shown(&client.reply())));
        assert!(shown(&client.reply()).starts_with("-ERR too many sessions"));
        assert_eq!(client.reply(), b"+PONG\r\n");
    }
    assert_eq!(observer.get("n"), counted.len().to_string());
    observer.ask(&["RPUSH", "queue", "job"]);
    eventually("one is free again", || {
        let heard = said(&mut more[0], "BLPOP nolist 0.01");
        assert!(heard == "*-1\\r\\n" || heard.starts_with("-ERR too many sessions"), "{heard}");
        heard == "*-1\\r\\n"
    });
    clients.drain(..500);
    // One, of either half, had its element.
    eventually("half of them have left", || [499, 500].contains(&observer.blocked()));
    assert_eq!(said(&mut more[1], "MULTI"), "+OK\\r\\n");
}
