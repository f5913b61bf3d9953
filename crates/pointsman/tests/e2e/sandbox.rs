//! `pointsman sandbox` as a person runs it, with real servers.
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// A sandbox that puts its folder into `dir`, and its output after the line that says how to join.
fn sandbox(args: &[&str], dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .arg("sandbox")
        .args(args)
        .env("TMPDIR", dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("redis-cli -p "), "{line}");
    assert!(!is_empty(dir));
    (child, out)
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

fn end(mut child: Child, mut out: BufReader<ChildStdout>) -> (bool, String) {
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    (child.wait().unwrap().success(), text)
}

#[test]
fn a_calm_run_ends_by_itself_and_nothing_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (child, out) = sandbox(&["--for", "5s"], dir.path());
    let (good, text) = end(child, out);
    assert!(good && text.contains("acknowledged writes that are missing: 0"), "{text}");
    assert!(text.contains("errors: 0\n") && text.contains("switches: 0"), "{text}");
    assert!(is_empty(dir.path()));
}

#[test]
fn chaos_is_survived_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let (child, out) = sandbox(&["--chaos", "--for", "30s", "--seed", "11"], dir.path());
    let (good, text) = end(child, out);
    assert!(good, "{text}");
    assert!(text.contains("term 2: ") && !text.contains("switches: 0"), "{text}");
    assert!(text.contains("kill -9 of") || text.contains("SIGSTOP of"), "{text}");
    assert!(is_empty(dir.path()));
}

#[test]
fn sigterm_ends_it_with_a_summary() {
    let dir = tempfile::tempdir().unwrap();
    let (child, out) = sandbox(&[], dir.path());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let (good, text) = end(child, out);
    assert!(good && text.contains("the final master"), "{text}");
    assert!(is_empty(dir.path()));
}

#[test]
fn nothing_is_left_when_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _out) = sandbox(&["--no-load"], dir.path());
    child.kill().unwrap();
    child.wait().unwrap();
    let begin = Instant::now();
    while !is_empty(dir.path()) {
        assert!(begin.elapsed() < Duration::from_secs(20), "the folder is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}
