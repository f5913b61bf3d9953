//! What is large passes through, and is not held whole.
use crate::harness::observer::Observer;
use crate::harness::raw::{Raw, request};
use crate::harness::{Proxy, Server};
use pointsman::sandbox::deployment::Options;

/// What a proxy through which large things pass may have for itself.
const MEMORY_MAX: u64 = 128 << 20;

fn start() -> (Server, Proxy, Observer) {
    let server = Server::start(&Options::default());
    let proxy = Proxy::start(&server, &["--workers", "1"]);
    let observer = Observer::of(&server);
    (server, proxy, observer)
}

fn small(proxy: &Proxy) {
    let most = proxy.memory_peak();
    assert!(most < MEMORY_MAX, "the proxy took {} MiB", most >> 20);
}

/// Expects these bytes.
fn expect(client: &mut Raw, want: &[u8]) {
    client.pieces(want.len(), |at, piece| {
        assert!(piece == &want[at..at + piece.len()], "other bytes in the {} from {at} on", piece.len());
    });
}

#[test]
fn replies_of_millions_of_elements_pass_through() {
    const ELEMENTS: usize = 2_000_000;
    const ENTRIES: usize = 200_000;
    let (server, proxy, _) = start();
    let numbers: Vec<String> = (0..ELEMENTS).map(|i| i.to_string()).collect();
    let push = |some: &[String]| request(&[&["RPUSH".to_owned(), "list".to_owned()][..], some].concat());
    let mut fill: Vec<u8> = numbers.chunks(10_000).flat_map(push).collect();
    for n in &numbers[1..=ENTRIES] {
        fill.extend(request(&["XADD", "stream", &format!("{n}-1"), "field", n]));
    }
    let mut writer = Raw::connect(server.addr());
    let sent = writer.send_aside(fill);
    for _ in 0..ELEMENTS / 10_000 + ENTRIES {
        assert!(!writer.reply().starts_with(b"-"));
    }
    sent.join().expect("no panic").expect("all was sent");
    let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
    let list: String = (0..ELEMENTS).map(|i| bulk(&i.to_string())).collect();
    let list = format!("*{ELEMENTS}\r\n{list}").into_bytes();
    let entry = |i: usize| {
        format!("*2\r\n{}*2\r\n{}{}", bulk(&format!("{i}-1")), bulk("field"), bulk(&i.to_string()))
    };
    let stream: String = (1..=ENTRIES).map(entry).collect();
    let stream = format!("*{ENTRIES}\r\n{stream}").into_bytes();
    let mut client = Raw::connect(proxy.addr());
    // Over a shared connection, and over one of its own: it watches.
    for _ in 0..2 {
        client.send(b"LRANGE list 0 -1\r\nXRANGE stream - +\r\nPING\r\n");
        expect(&mut client, &list);
        expect(&mut client, &stream);
        assert_eq!(client.reply(), b"+PONG\r\n");
        assert_eq!(client.call(&["WATCH", "list"]), b"+OK\r\n");
    }
    client.send(b"MULTI\r\nLRANGE list 0 -1\r\nPING\r\nEXEC\r\nPING\r\n");
    expect(&mut client, b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n");
    expect(&mut client, &list);
    expect(&mut client, b"+PONG\r\n+PONG\r\n");
    small(&proxy);
}

#[test]
fn a_value_of_the_largest_size_passes_through_and_is_not_held_whole() {
    const SIZE: usize = 512 << 20;
    const PIECE: usize = 251 << 12;
    let (_server, proxy, _observer) = start();
    // Each byte tells where it stands, as far as it can.
    let piece: Vec<u8> = (0..PIECE).map(|i| (i % 251) as u8).collect();
    let mut client = Raw::connect(proxy.addr());
    client.send(format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${SIZE}\r\n").as_bytes());
    let mut left = SIZE;
    while left > 0 {
        let n = left.min(PIECE);
        client.send(&piece[..n]);
        left -= n;
    }
    client.send(b"\r\n");
    assert_eq!(client.reply(), b"+OK\r\n");
    for (before, ask, after) in [("", "", ""), ("+OK\r\n+QUEUED\r\n*1\r\n", "MULTI\r\n", "EXEC\r\n")] {
        client.send(format!("{ask}GET big\r\n{after}PING\r\n").as_bytes());
        expect(&mut client, format!("{before}${SIZE}\r\n").as_bytes());
        client.pieces(SIZE, |at, got| {
            assert!(got == &piece[at % 251..][..got.len()], "other bytes in the {} from {at} on", got.len());
        });
        expect(&mut client, b"\r\n+PONG\r\n");
    }
    small(&proxy);
}

#[test]
fn a_pipeline_of_100_000_commands_is_answered_in_order() {
    const COMMANDS: usize = 100_000;
    let (_server, proxy, mut observer) = start();
    let replies: String = (1..=COMMANDS).map(|i| format!(":{i}\r\n")).collect();
    let mut client = Raw::connect(proxy.addr());
    let sent = client.send_aside(b"INCR n\r\n".repeat(COMMANDS));
    expect(&mut client, replies.as_bytes());
    sent.join().expect("no panic").expect("all was sent");
    // All of it before anything is read, as some libraries do.
    client.send(&b"GET n\r\n".repeat(COMMANDS));
    expect(&mut client, format!("$6\r\n{COMMANDS}\r\n").repeat(COMMANDS).as_bytes());
    assert_eq!(observer.get("n"), COMMANDS.to_string());
    // As a transaction.
    let mut text = b"MULTI\r\n".to_vec();
    text.extend(b"INCR n\r\n".repeat(COMMANDS));
    text.extend(b"EXEC\r\n");
    let sent = client.send_aside(text);
    expect(&mut client, b"+OK\r\n");
    expect(&mut client, b"+QUEUED\r\n".repeat(COMMANDS).as_slice());
    expect(&mut client, format!("*{COMMANDS}\r\n").as_bytes());
    let replies: String = (1..=COMMANDS).map(|i| format!(":{}\r\n", COMMANDS + i)).collect();
    expect(&mut client, replies.as_bytes());
    sent.join().expect("no panic").expect("all was sent");
    small(&proxy);
}
