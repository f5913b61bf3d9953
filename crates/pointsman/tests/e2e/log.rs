//! The log, in a process of its own: there is one in each, and what matters is its stderr.
use pointsman::log;
use pointsman_config::LogFormat;
use pointsman_core::Now;
use pointsman_core::topology::snapshot::{ServiceId, Term};
use pointsman_core::topology::status::{Event, EventKind};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// As if it came from the program: this file is not part of it.
const OURS: &str = "pointsman::test";
const PATIENCE: Duration = Duration::from_secs(30);

/// This test binary again, running `test` alone, with pipes.
fn child(test: &str) -> Child {
    Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", &format!("log::{test}"), "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this binary runs")
}

fn stderr_of(test: &str) -> Vec<String> {
    let mut child = child(test);
    let mut text = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut text).expect("text");
    assert!(child.wait().expect("it ends").success());
    text.lines().map(str::to_owned).collect()
}

/// What the child says on its stdout, line by line.
fn hear(child: &mut Child) -> Receiver<String> {
    let (say, hear) = channel();
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| say.send(line).is_ok()));
    hear
}

/// The rest of the line on which the child says `word`.
fn wait_for(hear: &Receiver<String>, word: &str) -> String {
    loop {
        let line = hear.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no {word}: {e}"));
        if let Some((_, rest)) = line.split_once(word) {
            return rest.trim().to_owned();
        }
    }
}

/// More than the pipe and the queue can take.
const FLOOD: usize = 20_000;

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn floods_its_stderr() {
    let guard = log::init("info", LogFormat::Json);
    let began = Instant::now();
    for n in 0..FLOOD {
        tracing::info!(target: OURS, n, "{}", "x".repeat(100));
    }
    println!("flooded {} {}", began.elapsed().as_millis(), guard.dropped());
    // Until the other side has read, and says so.
    std::io::stdin().read_line(&mut String::new()).expect("a line");
    tracing::info!(target: OURS, "last");
}

#[test]
fn a_stderr_that_nobody_reads_delays_nothing_and_what_is_missing_is_said() {
    let mut child = child("floods_its_stderr");
    let stdout = hear(&mut child);
    let flooded = wait_for(&stdout, "flooded ");
    let (ms, dropped) = flooded.split_once(' ').expect("two numbers");
    let (ms, dropped): (u64, usize) = (ms.parse().expect("ms"), dropped.parse().expect("a count"));
    assert!(ms < 10_000, "{ms} ms");
    assert!(dropped > FLOOD / 2, "{dropped} dropped");
    // Only now somebody reads: every line was written, or is counted where it is missing.
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let mut message = || {
        let line = stderr.next().expect("there is more");
        let line: serde_json::Value = serde_json::from_str(&line).expect("each line is whole, and JSON");
        line["message"].as_str().expect("a message").to_owned()
    };
    let (mut written, mut missing) = (0, 0);
    while written + missing < FLOOD {
        match message().split_once(" log lines are missing here") {
            Some((n, _)) => missing += n.parse::<usize>().expect("a count"),
            None => written += 1,
        }
    }
    assert_eq!((written, missing), (FLOOD - dropped, dropped));
    // There is room again: the child may say its last.
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), b"go on\n").expect("it waits");
    assert_eq!(message(), "last");
    assert!(child.wait().expect("it ends").success());
}

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn blocks_at_its_end() {
    let guard = log::init("info", LogFormat::Human);
    for _ in 0..FLOOD {
        tracing::info!(target: OURS, "{}", "x".repeat(100));
    }
    let began = Instant::now();
    drop(guard);
    println!("ended {}", began.elapsed().as_millis());
}

#[test]
fn a_stderr_that_nobody_reads_does_not_keep_the_process_alive() {
    let mut child = child("blocks_at_its_end");
    let stdout = hear(&mut child);
    let ms: u64 = wait_for(&stdout, "ended ").parse().expect("ms");
    assert!(ms < 5_000, "{ms} ms");
    let until = Instant::now() + PATIENCE;
    while child.try_wait().expect("a child").is_none() {
        assert!(Instant::now() < until, "it still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn event(kind: EventKind) -> Event {
    Event {
        service: ServiceId(0),
        name: "cache".into(),
        at: Now::ZERO,
        kind,
        term: Term(4),
        master: None,
        text: "".into(),
        story: None,
        lost: None,
    }
}

fn says_some() {
    let say = |kind, text| log::story(&event(kind), text);
    say(EventKind::Hold, "2 of 3 Sentinels say\r\n2020-01-01T00:00:00Z  INFO forged \x1b[2J");
    say(EventKind::Note, "good to know");
    tracing::debug!(target: OURS, "ours, debug");
    tracing::info!(target: "hyper", "others, info");
    tracing::warn!(target: "hyper", "others, warn");
}

#[test]
#[ignore = "run by a test below, in a process of its own"]
fn speaks_to_people() {
    let guard = log::init("warn", LogFormat::Human);
    says_some();
    guard.set_level("nonsense");
    guard.set_level("debug");
    says_some();
    guard.set_level("error");
    says_some();
}

#[test]
fn one_line_an_event_from_the_level_on() {
    let lines = stderr_of("speaks_to_people");
    let expected = [
        " WARN 2 of 3 Sentinels say  2020-01-01T00:00:00Z  INFO forged \\x1b[2J service=\"cache\" event=\"hold\" term=4",
        " WARN others, warn",
        " WARN 2 of 3 Sentinels say  2020-01-01T00:00:00Z  INFO forged \\x1b[2J service=\"cache\" event=\"hold\" term=4",
        " INFO good to know service=\"cache\" event=\"note\" term=4",
        "DEBUG ours, debug",
        " WARN others, warn",
    ];
    let said: Vec<&str> = lines.iter().map(|line| line.split_once(' ').expect("a time first").1).collect();
    assert_eq!(said, expected);
    let time = lines[0].split(' ').next().expect("a time");
    assert!(time.len() == 27 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
}

#[test]
#[ignore = "run by a test below, in a process of its own"]
fn speaks_to_machines() {
    let _guard = log::init("info", LogFormat::Json);
    says_some();
}

#[test]
fn one_json_object_a_line() {
    let lines = stderr_of("speaks_to_machines");
    let lines: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3);
    let hold = &lines[0];
    assert_eq!(hold["level"], "WARN");
    assert_eq!(hold["service"], "cache");
    assert_eq!(hold["event"], "hold");
    assert_eq!(hold["term"], 4);
    assert_eq!(hold["message"], "2 of 3 Sentinels say\r\n2020-01-01T00:00:00Z  INFO forged \u{1b}[2J");
    assert_eq!(hold["timestamp"].as_str().map(str::len), Some(27));
}
