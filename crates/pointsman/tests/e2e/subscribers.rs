//! Subscribers: as many channels as they like, and none that does not read is kept for ever.
use crate::harness::observer::{Observer, said, undisturbed};
use crate::harness::raw::{Raw, request, shown};
use crate::harness::{Pair, Proxy, Server, eventually};
use pointsman::client::Value;
use pointsman::sandbox::deployment::Options;

const MIB: usize = 1 << 20;

fn start(limits: &str) -> (Server, Proxy, Observer) {
    let server = Server::start(&Options::default());
    let proxy = Proxy::start_with(&server, &format!("[service.limits]\n{limits}"));
    let observer = Observer::of(&server);
    (server, proxy, observer)
}

fn subscribed(proxy: &Proxy, channel: &str) -> Raw {
    let mut client = Raw::connect(proxy.addr());
    assert!(said(&mut client, &format!("SUBSCRIBE {channel}")).contains(channel));
    client
}

/// A subscriber of RESP3 that is an ordinary client as well.
fn subscribed_in_resp3(proxy: &Proxy, channel: &str) -> Raw {
    let mut client = Raw::connect(proxy.addr());
    assert!(said(&mut client, "HELLO 3").starts_with('%'));
    assert!(said(&mut client, &format!("SUBSCRIBE {channel}")).starts_with('>'));
    client
}

#[test]
fn a_subscription_to_more_channels_than_are_kept_as_a_whole_streams_through() {
    const CHANNELS: usize = 40_000;
    let (server, proxy, _) = start("");
    let name = |i: usize| format!("a channel with a long name:{i:010}");
    let ask = |word: &str| {
        let names = (0..CHANNELS).map(name);
        request(&[word.to_owned()].into_iter().chain(names).collect::<Vec<_>>())
    };
    let confirmed = |word: &str, count: fn(usize) -> usize| -> Vec<u8> {
        let one = |i| {
            let (name, count) = (name(i), count(i));
            format!("*3\r\n${}\r\n{word}\r\n${}\r\n{name}\r\n:{count}\r\n", word.len(), name.len())
        };
        (0..CHANNELS).map(one).collect::<String>().into_bytes()
    };
    let mut client = Raw::connect(proxy.addr());
    let expect = |client: &mut Raw, want: Vec<u8>| {
        client.pieces(want.len(), |at, piece| assert!(piece == &want[at..at + piece.len()]));
    };
    let sent = client.send_aside([ask("SUBSCRIBE"), b"PING\r\n".to_vec()].concat());
    expect(&mut client, confirmed("subscribe", |i| i + 1));
    assert_eq!(shown(&client.reply()), "*2\\r\\n$4\\r\\npong\\r\\n$0\\r\\n\\r\\n");
    sent.join().expect("no panic").expect("all was sent");
    assert_eq!(server.connect().ask(&["PUBLISH", &name(7), "hi"]).expect("PUBLISH"), Value::Integer(1));
    assert_eq!(client.reply(), message('*', &name(7), "hi"));
    let sent = client.send_aside([ask("UNSUBSCRIBE"), b"PING\r\n".to_vec()].concat());
    expect(&mut client, confirmed("unsubscribe", |i| CHANNELS - 1 - i));
    assert_eq!(shown(&client.reply()), "+PONG\\r\\n");
    sent.join().expect("no panic").expect("all was sent");
}

/// The log says so, so many times. (It is written a little later than what it tells of happens.)
fn told(proxy: &Proxy, what: &str, times: usize) {
    eventually(what, || proxy.said().matches(what).count() == times);
}

fn message(kind: char, channel: &str, text: &str) -> Vec<u8> {
    let mut all = request(&["message", channel, text]);
    all[0] = kind as u8;
    all
}

/// With the limits as they are: those of Redis.
#[test]
fn who_does_not_read_what_is_published_is_closed_and_costs_nobody_anything() {
    let (server, proxy, mut observer) = start("");
    let text = "x".repeat(MIB);
    undisturbed(&proxy, |others| {
        let mut reader = subscribed(&proxy, "news");
        let mut slow = [subscribed(&proxy, "news"), subscribed_in_resp3(&proxy, "news")];
        slow[1].send(b"SET k v\r\nGET k\r\n");
        let mut publisher = server.connect();
        let want = message('*', "news", &text);
        let mut published = 0;
        proxy.forget_peak();
        eventually("only who reads is left", || {
            published += 1;
            others.go_on();
            let heard = publisher.ask(&["PUBLISH", "news", &text]).expect("PUBLISH");
            reader.pieces(want.len(), |at, piece| assert!(piece == &want[at..at + piece.len()]));
            heard == Value::Integer(1)
        });
        // As much as may wait, and what the kernel holds.
        assert!(published > 32 && published < 64, "closed after {published} messages of 1 MiB");
        let peak = proxy.memory_peak();
        assert!(peak < 200 * MIB as u64, "two that do not read cost {} MiB", peak >> 20);
        for client in &slow {
            eventually("it hears it", || client.is_reset());
        }
        assert_eq!(
            said(&mut reader, "UNSUBSCRIBE news"),
            "*3\\r\\n$11\\r\\nunsubscribe\\r\\n$4\\r\\nnews\\r\\n:0\\r\\n"
        );
        assert_eq!(said(&mut reader, "PING"), "+PONG\\r\\n");
    });
    told(&proxy, "more than `limits.subscriber_output_hard`", 2);
    eventually("their connections are closed", || {
        observer.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]).is_empty()
    });
}

#[test]
fn who_is_far_behind_for_long_is_closed_and_who_catches_up_is_not() {
    let (server, proxy, _) = start("subscriber_output_soft = \"64KiB\"\nsubscriber_output_time = \"5s\"");
    let text = "x".repeat(MIB);
    let want = message('*', "news", &text);
    let slow = subscribed(&proxy, "news");
    let mut late = subscribed(&proxy, "news");
    let mut publisher = server.connect();
    for _ in 0..24 {
        assert_eq!(publisher.ask(&["PUBLISH", "news", &text]).expect("PUBLISH"), Value::Integer(2));
    }
    for _ in 0..24 {
        late.pieces(want.len(), |at, piece| assert!(piece == &want[at..at + piece.len()]));
    }
    eventually("the slow one is closed", || slow.is_reset());
    assert_eq!(publisher.ask(&["PUBLISH", "news", "last"]).expect("PUBLISH"), Value::Integer(1));
    assert_eq!(late.reply(), message('*', "news", "last"));
    told(&proxy, "more than `limits.subscriber_output_soft` for", 1);
}

/// A server closes a subscriber's connection for its own limit: of one that is behind the rest would be missing unnoticed.
#[test]
fn who_is_far_behind_when_its_connection_is_lost_is_closed_as_directly() {
    let (server, proxy, mut observer) = start("subscriber_output_soft = \"64KiB\"");
    let text = "x".repeat(MIB);
    let slow = subscribed(&proxy, "slow");
    let mut reader = subscribed(&proxy, "read");
    let mut publisher = server.connect();
    for _ in 0..24 {
        publisher.ask(&["PUBLISH", "slow", &text]).expect("PUBLISH");
    }
    eventually("the server has sent it all", || {
        let clients = observer.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        clients.lines().count() == 2
            && clients.lines().all(|c| c.contains(" obl=0 ") && c.contains(" omem=0 "))
    });
    observer.ask(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1 0 0"]);
    eventually("it is closed, and not subscribed again", || {
        publisher.ask(&["PUBLISH", "slow", &text]).expect("PUBLISH");
        slow.is_reset()
    });
    observer.ask(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"]);
    told(&proxy, "when the connection to its server was lost", 1);
    assert_eq!(publisher.ask(&["PUBLISH", "slow", "nobody"]).expect("PUBLISH"), Value::Integer(0));
    observer.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    eventually("who reads is subscribed again", || {
        publisher.ask(&["PUBLISH", "read", "again"]).expect("PUBLISH") == Value::Integer(1)
    });
    assert_eq!(reader.reply(), message('*', "read", "again"));
}

/// A server takes it for an ordinary client, and sets no limit by default.
#[test]
fn who_does_not_read_what_it_monitors_is_closed() {
    let (server, proxy, _) = start("client_output_hard = \"16MiB\"");
    let text = "x".repeat(MIB);
    let mut monitor = Raw::connect(proxy.addr());
    assert_eq!(said(&mut monitor, "MONITOR"), "+OK\\r\\n");
    let mut writer = server.connect();
    eventually("it is closed", || {
        writer.ask(&["SET", "k", &text]).expect("SET");
        monitor.is_reset()
    });
    told(&proxy, "more than `limits.client_output_hard`", 1);
}

#[test]
fn one_client_has_ten_thousand_channels() {
    const CHANNELS: usize = 10_000;
    let (_server, proxy, mut observer) = start("");
    let names: Vec<String> = (0..CHANNELS).map(|i| format!("channel:{i}")).collect();
    for (kind, connect) in [('*', subscribed as fn(&Proxy, &str) -> Raw), ('>', subscribed_in_resp3)] {
        let mut client = connect(&proxy, "channel:0");
        let words = [&["SUBSCRIBE".to_owned()][..], &names].concat();
        client.send(&request(&words));
        for (i, name) in names.iter().enumerate() {
            let want = format!("{kind}3\r\n$9\r\nsubscribe\r\n${}\r\n{name}\r\n:{}\r\n", name.len(), i + 1);
            assert_eq!(shown(&client.reply()), shown(want.as_bytes()));
        }
        assert_eq!(observer.0.ask(&["PUBLISH", "channel:9999", "x"]).expect("PUBLISH"), Value::Integer(1));
        assert_eq!(client.reply(), message(kind, "channel:9999", "x"));
        // It stays subscribed when its connection breaks.
        observer.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        eventually("it is subscribed again", || {
            observer.0.ask(&["PUBLISH", "channel:9999", "y"]).expect("PUBLISH") == Value::Integer(1)
        });
        assert_eq!(client.reply(), message(kind, "channel:9999", "y"));
        client.send(b"UNSUBSCRIBE\r\nPING\r\n");
        for left in (0..CHANNELS).rev() {
            let said = shown(&client.reply());
            assert!(said.contains("unsubscribe") && said.ends_with(&format!(":{left}\\r\\n")), "{said}");
        }
        assert_eq!(client.reply(), b"+PONG\r\n");
        assert_eq!(said(&mut client, "SET k v"), "+OK\\r\\n");
        assert_eq!(observer.0.ask(&["PUBLISH", "channel:0", "x"]).expect("PUBLISH"), Value::Integer(0));
    }
}

#[test]
fn keyspace_notifications_arrive() {
    let (_server, proxy, _) = start("");
    let (mut client, mut other) = (Raw::connect(proxy.addr()), Raw::connect(proxy.addr()));
    assert_eq!(said(&mut other, "CONFIG SET notify-keyspace-events KEA"), "+OK\\r\\n");
    assert!(said(&mut client, "PSUBSCRIBE __key*@3__:*").starts_with("*3"));
    for line in ["SET elsewhere 1", "SELECT 3", "SET k v PX 1", "RPUSH l a", "LPOP l"] {
        assert!(!said(&mut other, line).starts_with('-'));
    }
    // That it has expired is told when it is looked for, at the latest.
    eventually("it expires", || said(&mut other, "GET k").starts_with("$-1"));
    let mut heard: Vec<String> = Vec::new();
    for _ in 0..12 {
        let text = String::from_utf8(client.reply()).expect("text");
        let words: Vec<&str> = text.split("\r\n").filter(|w| !w.starts_with(['*', '$'])).collect();
        heard.push(words[2..].join(" ").trim().to_owned());
    }
    let pairs =
        [("k", "set"), ("k", "expire"), ("l", "rpush"), ("l", "lpop"), ("l", "del"), ("k", "expired")];
    for (key, event) in pairs {
        for want in [format!("__keyspace@3__:{key} {event}"), format!("__keyevent@3__:{event} {key}")] {
            assert_eq!(heard.iter().filter(|words| **words == want).count(), 1, "{want}: {heard:?}");
        }
    }
}

/// Replies and messages come over one connection: each kind in its order, and nothing is lost or said twice.
#[test]
fn a_subscriber_of_resp3_gets_its_replies_among_many_messages() {
    const EACH: usize = 20_000;
    let (_server, proxy, _) = start("");
    let mut client = subscribed_in_resp3(&proxy, "news");
    let mut publisher = Raw::connect(proxy.addr());
    let published: Vec<u8> = (0..EACH).flat_map(|i| request(&["PUBLISH", "news", &i.to_string()])).collect();
    let both = [client.send_aside(b"INCR n\r\n".repeat(EACH)), publisher.send_aside(published)];
    let (mut replies, mut messages) = (0, 0);
    while replies < EACH || messages < EACH {
        let heard = client.reply();
        if heard[0] == b'>' {
            assert_eq!(shown(&heard), shown(&message('>', "news", &messages.to_string())));
            messages += 1;
        } else {
            replies += 1;
            assert_eq!(shown(&heard), format!(":{replies}\\r\\n"));
        }
    }
    for thread in both {
        thread.join().expect("no panic").expect("all was sent");
    }
    for _ in 0..EACH {
        assert_eq!(publisher.reply(), b":1\r\n");
    }
}

#[test]
fn what_is_asked_about_subscriptions_is_answered_as_directly() {
    let pair = Pair::start(&Options::default(), &[]);
    crate::harness::script::hold(&pair, include_str!("parity/what_is_asked_about_subscriptions.txt"));
}
