use super::*;
use crate::admin::server::CONNECTIONS_MAX;
use crate::admin::{client, serve};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::Instant;

fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn start(running: &Arc<Fake>) -> (ServerHandle, SocketAddr) {
    let (listener, address) = bind();
    (serve(listener, running.clone()).expect("a thread"), address)
}

/// Sends `request` and reads until the other side closes, for at most 10 s.
fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("room");
    read(&mut stream)
}

fn read(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "closed, not left open"),
    }
    String::from_utf8(bytes).expect("text")
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    parts(&exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")))
}

fn post(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    parts(&exchange(address, &format!("POST {path} HTTP/1.1\r\n{headers}\r\n")))
}

fn parts(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (head[9..12].parse().expect("a status"), body.to_owned())
}

#[test]
fn every_page_is_there_and_no_other() {
    let fake = Fake::new();
    let (server, address) = start(&fake);
    assert_eq!(get(address, "/healthz"), (200, "ok\n".into()));
    assert_eq!(get(address, "/readyz").0, 503);
    assert!(get(address, "/readyz").1.starts_with("cache: holding: "));
    assert!(get(address, "/metrics").1.ends_with("# EOF\n"));
    assert!(get(address, "/api/status").1.starts_with("{\"version\":\"0.1.0\""));
    for page in ["/nothing", "/api", "/metrics/", "/api/trust/a/b", "/%00"] {
        assert_eq!(get(address, page).0, 404, "{page}");
    }
    assert_eq!(get(address, "/api/reload").0, 405);
    assert_eq!(get(address, "/api/events?after=x").0, 400);
    assert_eq!(post(address, "/metrics", "Host: localhost\r\n").0, 405);
    let head = exchange(address, "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    let old = exchange(address, "GET /healthz HTTP/1.0\r\n\r\n");
    assert!(old.starts_with("HTTP/1.0 200") && old.ends_with("ok\n"), "{old}");
    let index = get(address, "/").1;
    for page in
        ["/healthz", "/readyz", "/metrics", "/api/status", "/api/events", "/api/reload", "/api/trust/"]
    {
        assert!(index.contains(page), "{page}");
    }
    server.stop();
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn ready_once_all_gates_are_open() {
    let fake = Fake::new();
    let (server, address) = start(&fake);
    fake.change(|s| drop(s.services.remove(0)));
    assert_eq!(get(address, "/readyz"), (200, "ok\n".into()));
    server.stop();
}

#[test]
fn what_acts_is_for_programs_of_this_host() {
    let fake = Fake::new();
    let (server, address) = start(&fake);
    let port = address.port();
    let trust = |headers: &str| post(address, "/api/trust/cache", headers);
    for host in
        [format!("127.0.0.1:{port}"), "localhost".into(), format!("[::1]:{port}"), "LOCALHOST:1".into()]
    {
        assert_eq!(
            trust(&format!("Host: {host}\r\n")),
            (200, "{\"done\":\"trusted cache\",\"error\":null}\n".into())
        );
    }
    for wrong in [
        "Host: localhost\r\nOrigin: http://localhost\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: evil.example\r\n",
        "Host: localhost.evil.example\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Host: evil.example@localhost:1\r\nOrigin: x\r\n",
        "Host: 10.0.0.1\r\n",
        "Host: localhost\r\nHost: evil.example\r\n",
        "Host: \r\n",
        "",
    ] {
        let (status, body) = trust(wrong);
        assert_eq!(status, 403, "{wrong:?}: {body}");
        assert!(body.contains("\"error\":\""), "{body}");
    }
    server.stop();
}

#[test]
fn the_commands_understand_the_listener() {
    let fake = Fake::new();
    let (server, address) = start(&fake);
    assert_eq!(client::reload(address), Err("pointsman.toml:4:1: unknown key \"sentinel\"".into()));
    assert_eq!(client::trust(address, "cache"), Ok("trusted cache".into()));
    assert_eq!(client::trust(address, "a b/ü"), Ok("trusted a b/ü".into()));
    let text = client::status(address, false).expect("a status");
    assert!(text.contains("cache: HOLDING"), "{text}");
    assert!(client::status(address, true).expect("a status").starts_with('{'));
    server.stop();
}

#[test]
fn texts_of_other_servers_cannot_move_the_cursor() {
    let fake = Fake::new();
    let (server, address) = start(&fake);
    fake.change(|s| s.services[0].status.problems[0] = "\x1b[2J\r\n\u{9b}2Jgone".into());
    let text = client::status(address, false).expect("a status");
    assert!(text.contains("gone"));
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    server.stop();
}

#[test]
fn events_are_told_once_and_followed_across_a_restart() {
    let fake = Fake::new();
    fake.tell(1, "first");
    let (server, address) = start(&fake);
    let mut out = Vec::new();
    client::events(address, false, false, &mut out).expect("events");
    let text = String::from_utf8(out).expect("text");
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[1..], ["cache", "hold", "term", "4", "first"]);
    assert!(words[0].ends_with('Z') && words[0].contains('T'), "{}", words[0]);

    let (heard, hear) = channel();
    let follower = std::thread::spawn(move || client::events(address, true, true, &mut Ear(heard)));
    let next = || {
        let line = hear.recv_timeout(Duration::from_secs(10)).expect("an event is followed");
        serde_json::from_str::<serde_json::Value>(&line).expect("JSON")["text"].clone()
    };
    assert_eq!(next(), "first");
    fake.tell(2, "second");
    assert_eq!(next(), "second");
    server.stop();
    // Another process at the same address, that counts from 1 again.
    let after = Fake::new();
    after.tell(1, "after");
    let listener = TcpListener::bind(address).expect("the port is free again");
    let server = serve(listener, after.clone()).expect("a thread");
    assert_eq!(next(), "after");
    drop(hear);
    after.tell(2, "nobody hears");
    assert_eq!(follower.join().expect("no panic"), Ok(()), "ends when nobody reads");
    server.stop();
}

/// Hands on what is written, until nobody wants it.
struct Ear(std::sync::mpsc::Sender<String>);

impl Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.0.send(text).map_err(|_| ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_commands_say_what_is_wrong_in_one_line() {
    let (listener, address) = bind();
    drop(listener);
    let error = client::status(address, false).expect_err("nobody listens");
    assert!(error.starts_with(&format!("nobody answers at {address}")), "{error}");
    assert!(!error.contains('\n'));

    // A server that speaks another language, and one that says nothing.
    for (answer, expected) in
        [("-ERR unknown command 'GET'\r\n", "is not understood"), ("", "does not answer")]
    {
        let (listener, address) = bind();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut head = [0; 16];
            stream.read_exact(&mut head).expect("a request");
            stream.write_all(answer.as_bytes()).expect("room");
            if !answer.is_empty() {
                stream.shutdown(Shutdown::Write).expect("half a close");
            }
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let error = client::status(address, false).expect_err("that is not Pointsman");
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        server.join().expect("no panic");
    }
}

#[test]
fn a_client_that_says_nothing_or_too_much_is_dropped() {
    let fake = Fake::new();
    let (server, address) = start(&fake);
    assert_eq!(exchange(address, ""), "");
    assert_eq!(exchange(address, "GET /healthz HT"), "");
    // Endless headers: dropped when there are too many, not when memory is.
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream.write_all(b"GET /healthz HTTP/1.1\r\n").expect("room");
    let mut sent = 0;
    while sent < 64 << 20
        && stream.write_all(format!("X-{sent}: {}\r\n", "x".repeat(1000)).as_bytes()).is_ok()
    {
        sent += 1000;
    }
    assert!(sent < 64 << 20, "nobody reads 64 MiB of headers");
    // And a byte at a time: the time for all of it is bounded.
    let began = Instant::now();
    let mut slow = TcpStream::connect(address).expect("a connection");
    slow.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    let open = |stream: &mut TcpStream| match stream.read(&mut [0]) {
        Ok(_) => false,
        Err(e) => e.kind() == ErrorKind::WouldBlock,
    };
    while slow.write_all(b"G").is_ok() && open(&mut slow) {
        assert!(began.elapsed() < Duration::from_secs(10), "still open");
    }
    assert_eq!(get(address, "/healthz").0, 200);
    server.stop();
}

#[test]
fn many_idle_connections_delay_the_others_only_until_they_are_dropped() {
    let fake = Fake::new();
    let (server, address) = start(&fake);
    let idle: Vec<TcpStream> =
        (0..CONNECTIONS_MAX + 8).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    assert_eq!(get(address, "/healthz").0, 200);
    drop(idle);
    server.stop();
}

#[test]
fn a_process_that_hangs_or_panics_is_told_apart_from_one_that_is_dead() {
    let fake = Fake::new();
    let (server, address) = start(&fake);
    let (release, released) = channel::<()>();
    *fake.hook.lock().expect("nobody panicked") = Some(Box::new(move || {
        let _ = released.recv();
    }));
    let (status, body) = get(address, "/api/status");
    assert_eq!((status, body.contains("no answer after")), (503, true), "{body}");
    assert_eq!(get(address, "/healthz").0, 200);
    assert_eq!(get(address, "/api/events").0, 200);
    drop(release);
    assert_eq!(get(address, "/api/status").0, 200);
    *fake.hook.lock().expect("nobody panicked") = Some(Box::new(|| panic!("on purpose")));
    assert_eq!(get(address, "/api/status").0, 500);
    assert_eq!(get(address, "/api/status").0, 200);
    server.stop();
}

#[test]
fn requests_that_come_together_share_a_sample_and_none_gets_an_old_one() {
    let fake = Fake::new();
    let (server, address) = start(&fake);
    let (begun, began) = channel();
    let (release, released) = channel::<()>();
    *fake.hook.lock().expect("nobody panicked") = Some(Box::new(move || {
        begun.send(()).expect("the test waits");
        let _ = released.recv();
    }));
    let first = std::thread::spawn(move || get(address, "/api/status"));
    began.recv_timeout(Duration::from_secs(10)).expect("the first sample began");
    // These ask while it is being composed: it may be too old for them.
    let others: Vec<_> = (0..8).map(|_| std::thread::spawn(move || get(address, "/api/status"))).collect();
    std::thread::sleep(Duration::from_millis(100));
    drop(release);
    assert_eq!(first.join().expect("no panic").0, 200);
    assert!(others.into_iter().all(|t| t.join().expect("no panic").0 == 200));
    let samples = fake.samples.load(Ordering::Relaxed);
    assert!((2..9).contains(&samples), "{samples} samples for 9 requests");
    fake.change(|s| s.reloads = 77);
    assert!(get(address, "/api/status").1.contains("\"reloads\":77"));
    server.stop();
}
