//! One script, directly and through the proxy, and what it shows.
//!
//! A script prints lines of JSON: which library it is (`library`, `version`), the result of each test (`test`, and `result` or
//! `failed`), and `switch` or `kill` when the master is to be changed; it is told by a line when that is done.
use crate::kit::Kit;
use crate::world::{Change, World};
use serde_json::Value;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// The longest that a script says nothing.
const SILENCE: Duration = Duration::from_secs(150);
/// As much of a result is shown when two differ.
const SHOWN_CHARS: usize = 600;

/// A library, and how its tests went.
#[derive(Debug, Clone)]
pub(crate) struct Library {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) tests: Vec<Test>,
}

/// A test that was run twice.
#[derive(Debug, Clone)]
pub(crate) struct Test {
    pub(crate) name: String,
    /// What is not as it should be, if something is.
    pub(crate) broken: Option<String>,
}

impl Library {
    /// Whether nothing is broken.
    pub(crate) fn is_good(&self) -> bool {
        self.tests.iter().all(|test| test.broken.is_none())
    }

    /// Its name with its version.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    /// One line for each test.
    fn print(&self) {
        for test in &self.tests {
            let verdict = test.broken.as_ref().map_or("equal".to_owned(), |what| format!("BROKEN: {what}"));
            println!("{:<24} {:<28} {verdict}", self.title(), test.name);
        }
    }
}

/// Runs it in both worlds at once, and prints how that went.
pub(crate) fn play(kit: Kit, folder: &Path, script: &str, program: &Path) -> Library {
    let (direct, through) = thread::scope(|scope| {
        let direct = scope.spawn(|| lines(World::direct(), kit, folder, script));
        let through = scope.spawn(|| lines(World::through(program), kit, folder, script));
        (direct.join().expect("it does not panic"), through.join().expect("it does not panic"))
    });
    let library = match (direct, through) {
        (Ok(direct), Ok(through)) => compare(&direct, &through),
        (Err(e), _) => broken(script, format!("directly: {e}")),
        (_, Err(e)) => broken(script, e),
    };
    library.print();
    library
}

fn broken(script: &str, what: String) -> Library {
    let test = Test { name: "all".into(), broken: Some(what) };
    Library { name: script.into(), version: String::new(), tests: vec![test] }
}

/// All that a script says; an error says why that is not all.
fn lines(
    world: Result<World, Box<dyn Error>>,
    kit: Kit,
    folder: &Path,
    script: &str,
) -> Result<Vec<Value>, String> {
    let world = world.map_err(|e| e.to_string())?;
    let log = world.dir().join("script.log");
    let mut child =
        start(&world, kit, folder, script, &log).map_err(|e| format!("{script} does not start: {e}"))?;
    let said = converse(&world, &mut child);
    let _ = child.kill();
    let _ = child.wait();
    said.map_err(|e| {
        let log = fs::read_to_string(log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(15).collect();
        format!("{e}\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
    })
}

fn start(world: &World, kit: Kit, folder: &Path, script: &str, log: &Path) -> std::io::Result<Child> {
    let mut command = kit.command(folder, script);
    let addr = world.addr();
    command.env("REDIS_HOST", addr.ip().to_string()).env("REDIS_PORT", addr.port().to_string());
    command.current_dir(world.dir());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(log)?);
    world.spawn(&mut command)
}

/// Hears it out, and changes the master when it asks for that.
fn converse(world: &World, child: &mut Child) -> Result<Vec<Value>, Box<dyn Error>> {
    let mut input = child.stdin.take().ok_or("it has no input")?;
    let output = in_background(child.stdout.take().ok_or("it has no output")?);
    let mut said = vec![];
    loop {
        let line = match output.recv_timeout(SILENCE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => return Err("it hangs".into()),
        };
        let line: Value = serde_json::from_str(&line).map_err(|e| format!("it says {line:?}: {e}"))?;
        let changes = [("switch", Change::Switch), ("kill", Change::Kill)];
        match changes.into_iter().find(|(word, _)| line[*word] == true) {
            Some((_, change)) => {
                world.change(change)?;
                input.write_all(b"changed\n")?;
            }
            None => said.push(line),
        }
    }
    let status = child.wait()?;
    if status.success() { Ok(said) } else { Err(format!("it ends with {status}").into()) }
}

fn in_background(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Pairs what was said, line by line.
fn compare(direct: &[Value], through: &[Value]) -> Library {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let mut library = Library { name: String::new(), version: String::new(), tests: vec![] };
    for (i, line) in direct.iter().enumerate() {
        if line["library"].is_string() {
            (library.name, library.version) = (text(line, "library"), text(line, "version"));
            continue;
        }
        let broken = difference(line, through.get(i).unwrap_or(&Value::Null));
        library.tests.push(Test { name: text(line, "test"), broken });
    }
    library
}

/// Where two lines are not the same, or what failed.
fn difference(direct: &Value, through: &Value) -> Option<String> {
    if let Some(failed) = direct["failed"].as_str() {
        return Some(format!("fails directly: {failed}"));
    }
    if direct == through {
        return None;
    }
    if let Some(failed) = through["failed"].as_str() {
        return Some(failed.to_owned());
    }
    let (mut direct, mut through) = (&direct["result"], &through["result"]);
    let mut place = String::new();
    if let (Value::Array(d), Value::Array(t)) = (direct, through) {
        if let Some(i) = d.iter().zip(t).position(|(d, t)| d != t) {
            (direct, through, place) = (&d[i], &t[i], format!("value {i} "));
        }
    }
    Some(format!("{place}is {} and not {}", shown(through), shown(direct)))
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_differs_or_fails_is_broken() {
        let line = |result: Value| json!({"test": "t", "result": result});
        assert_eq!(difference(&line(json!([1, 2])), &line(json!([1, 2]))), None);
        assert_eq!(difference(&line(json!([1, 2])), &line(json!([1, 3]))).unwrap(), "value 1 is 3 and not 2");
        assert_eq!(difference(&line(json!([1])), &line(json!([1, 2]))).unwrap(), "is [1,2] and not [1]");
        let failed = json!({"test": "t", "failed": "no such thing"});
        assert_eq!(difference(&failed, &failed).unwrap(), "fails directly: no such thing");
        assert_eq!(difference(&line(json!(1)), &failed).unwrap(), "no such thing");
        assert!(difference(&line(json!(1)), &Value::Null).is_some());
    }
}
