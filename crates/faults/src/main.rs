//! Pointsman under real faults: `make faults`.
//!
//! Each round of each row has three hosts (network namespaces) with a node and a Sentinel, a fourth with the proxy and its
//! clients, and one fault. What was acknowledged is compared with what the last master has; what really happened is watched
//! on the nodes themselves. What is done and how it is measured: docs/reference/faults.md.

mod figures;
mod guard;
mod load;
mod network;
mod play;
mod report;
mod row;
mod servers;
mod watch;

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use guard::Guard;
use play::{Stage, no_evidence};
use pointsman::sandbox::deployment::server_program;
use report::{Outcome, Report, gist};
use row::{Lost, Meanwhile, Protection, ROWS, Row};

/// Between the starts of two rounds, so that they do not all elect at once.
const STAGGER: Duration = Duration::from_millis(700);

/// Break a real deployment in every way that Pointsman must survive, and measure what clients notice
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Only rows whose name begins so, as F4, F9s or two
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    row: Vec<String>,
    /// What protects the writes; each row is played with each [default: default; with --short, plain partitions also
    /// with durable]
    #[arg(long, value_name = "PROTECTION", value_delimiter = ',')]
    with: Vec<Protection>,
    /// How often each row is played
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How many rounds are played at the same time [default: 2, with --short 7]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=32))]
    jobs: Option<u32>,
    /// Outages of 8 s instead of 20, and 12 s of load after them instead of 16: for CI, less than two minutes
    #[arg(long)]
    short: bool,
    /// A line for the service's configuration, as 'hold = "20s"'
    #[arg(long = "set", value_name = "LINE")]
    lines: Vec<String>,
    /// The binary to test [default: pointsman beside this one]
    #[arg(long, value_name = "PATH")]
    pointsman: Option<PathBuf>,
    /// Print the table in Markdown
    #[arg(long)]
    markdown: bool,
    /// Write everything, each round included, to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Arguments {
    /// The binary to test, if it runs.
    fn pointsman(&self) -> Result<PathBuf, Box<dyn Error>> {
        let program = match &self.pointsman {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("pointsman"),
        };
        if version(&program).is_none() {
            let path = program.display();
            let what = "build it (cargo build -p pointsman), or give --pointsman";
            return Err(format!("{path} does not run: {what}").into());
        }
        Ok(program.canonicalize()?)
    }

    fn jobs(&self) -> u32 {
        self.jobs.unwrap_or(if self.short { 7 } else { 2 })
    }

    /// With what the row is played. Where the guard lets some be lost, durable writes are what a short run must try too.
    fn protections(&self, row: &Row) -> Vec<Protection> {
        let may_lose = row.lost != Lost::None && row.meanwhile == Meanwhile::Nothing;
        match self.with[..] {
            [] if self.short && may_lose => vec![Protection::Default, Protection::Durable],
            [] => vec![Protection::Default],
            _ => self.with.clone(),
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pointsman-faults: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether nothing is broken.
fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let rows = rows(&arguments.row)?;
    let guard = Arc::new(Guard::start()?);
    if let Some(why) = network::unavailable(&guard) {
        println!("skipped: network namespaces cannot be made here: {why}");
        return Ok(true);
    }
    let (outage, after) = if arguments.short { (8, 12) } else { (20, 16) };
    let stage = Stage {
        guard,
        pointsman: arguments.pointsman()?,
        redis: server_program()?,
        lines: arguments.lines.clone(),
        outage: Duration::from_secs(outage),
        after: Duration::from_secs(after),
    };
    let mut report = play_all(&stage, &rows, arguments);
    report.about = about(&stage, arguments);
    publish(&report, arguments)
}

/// What figures depend on.
fn about(stage: &Stage, arguments: &Arguments) -> Vec<(&'static str, String)> {
    let (rounds, jobs, outage) = (arguments.rounds, arguments.jobs(), stage.outage.as_secs());
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let about = [
        ("rounds", format!("{rounds}, {jobs} at a time, outages of {outage} s; medians (min…max)")),
        ("load", "8 writers, together 290 SET/s, 4 readers with 145 GET/s".into()),
        ("machine", format!("{cores} cores")),
        ("proxy", version(&stage.pointsman).unwrap_or_default()),
        ("server", version(&stage.redis).unwrap_or_default()),
    ];
    about.into_iter().chain(stage.lines.iter().map(|line| ("configuration", line.clone()))).collect()
}

fn rows(wanted: &[String]) -> Result<Vec<usize>, String> {
    let is_wanted = |i: &usize| wanted.is_empty() || wanted.iter().any(|name| names(name, ROWS[*i].name));
    let rows: Vec<usize> = (0..ROWS.len()).filter(is_wanted).collect();
    if rows.is_empty() {
        let all: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("there is no such row; there are {}", all.join(", ")));
    }
    Ok(rows)
}

/// `F3` is a row, though there is an `F3b`; `F9` and `F9s` are groups.
fn names(wanted: &str, row: &str) -> bool {
    let is_row = ROWS.iter().any(|row| row.name == wanted);
    row == wanted || (!is_row && row.starts_with(wanted))
}

fn play_all(stage: &Stage, rows: &[usize], arguments: &Arguments) -> Report {
    let of_row = |&row: &usize| arguments.protections(&ROWS[row]).into_iter().map(move |with| (row, with));
    let rounds: Vec<_> = (0..arguments.rounds).flat_map(|_| rows.iter().flat_map(of_row)).collect();
    let jobs = arguments.jobs().min(rounds.len() as u32);
    let (next, report, begin) = (AtomicUsize::new(0), Mutex::new(Report::of(ROWS)), Instant::now());
    let work = |job: u32| {
        thread::sleep(STAGGER * job);
        while let Some(&(row, with)) = rounds.get(next.fetch_add(1, Relaxed)) {
            let say = |said: &str| {
                let (seconds, name, with) = (begin.elapsed().as_secs(), ROWS[row].name, with.to_string());
                eprintln!("{seconds:>4} s  {name:<7} {with:<8} {said}");
            };
            let (outcome, again) = play(stage, row, with, say);
            report.lock().expect("no code panics while it holds this lock").add(row, with, outcome, again);
        }
    };
    thread::scope(|scope| (0..jobs).for_each(|job| drop(scope.spawn(move || work(job)))));
    report.into_inner().expect("no code panics while it holds this lock")
}

/// A round; once more if it was none, and why.
fn play(stage: &Stage, row: usize, with: Protection, say: impl Fn(&str)) -> (Outcome, Option<String>) {
    let mut outcome = stage.play(&ROWS[row], with);
    let again = no_evidence(&outcome, &ROWS[row], with);
    if let Some(why) = &again {
        say(&format!("is played once more: {why}"));
        outcome = stage.play(&ROWS[row], with);
    }
    match &outcome {
        Ok(figures) => say(&gist(figures)),
        Err(trouble) => say(&format!("failed: {trouble}")),
    }
    (outcome, again)
}

/// The first line that a program says about its version, if it runs.
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

fn publish(report: &Report, arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let text = if arguments.markdown { report.markdown() } else { report.text() };
    io::stdout().write_all(format!("\n{text}").as_bytes())?;
    if let Some(file) = &arguments.json {
        fs::write(file, format!("{:#}\n", report.json()))
            .map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    }
    let failures = report.failures();
    for failure in &failures {
        println!("broken: {failure}");
    }
    Ok(failures.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_name_or_by_group() {
        let chosen =
            |name: &str| rows(&[name.to_owned()]).map(|rows| rows.iter().map(|&i| ROWS[i].name).collect());
        assert_eq!(chosen("F3"), Ok(vec!["F3"]));
        assert_eq!(chosen("F9s"), Ok(vec!["F9s-F1", "F9s-F3", "F9s-F4"]));
        assert!(chosen("F11").is_err());
        assert_eq!(rows(&[]).map(|rows| rows.len()), Ok(ROWS.len()));
    }
}
