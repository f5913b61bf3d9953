//! Pointsman side by side with HAProxy, Twemproxy and direct Redis: `make bench`.
//!
//! A *cell* is one measurement of one peer in one scenario. Each round has every cell once, the peers of a scenario in
//! a random order right after each other, each started fresh; figures are medians over the rounds. How and why:
//! docs/reference/benchmark.md.

mod load;
mod measure;
mod peers;
mod programs;
mod report;
mod scenario;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Parser;
use clap::builder::PossibleValuesParser;

use load::Stop;
use measure::CpuSource;
use peers::{Peer, Redis};
use report::Report;
use scenario::{Action, Bench, Metric, Random, SCENARIOS, Scenario};

/// Memory hardly varies, and a cell of it takes seconds.
const IDLE_ROUNDS_MAX: u32 = 3;

/// Compare Pointsman with HAProxy, Twemproxy and direct Redis
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The binary to measure, instead of building target/release/pointsman
    #[arg(long, value_name = "PATH")]
    pointsman: Option<PathBuf>,
    /// Only these scenarios
    #[arg(long, value_name = "NAME", value_delimiter = ',',
          value_parser = PossibleValuesParser::new(SCENARIOS.map(|scenario| scenario.name)))]
    scenario: Vec<String>,
    /// Only these peers (replicated and durable only if they are named here)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    peers: Vec<Peer>,
    /// How often everything is measured [default: 5, with --quick 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// How long each measurement takes [default: 1, with --quick 0.3]
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,
    /// About a minute instead of about five
    #[arg(long)]
    quick: bool,
    /// Of the random order
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print tables in Markdown
    #[arg(long)]
    markdown: bool,
    /// Write everything, each round included, to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds from 0.01 to 3600 is needed".to_owned()),
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failures) => {
            eprintln!("pointsman-bench: {failures} measurements failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("pointsman-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says how many measurements failed.
fn run(arguments: &Arguments) -> Result<usize, Box<dyn Error>> {
    peers::raise_open_files()?;
    let wanted = |scenario: &&Scenario| {
        arguments.scenario.is_empty() || arguments.scenario.iter().any(|name| name == scenario.name)
    };
    let scenarios: Vec<&Scenario> = SCENARIOS.iter().filter(wanted).collect();
    scenario::check_open_files(&scenarios, peers::open_files_max())?;
    let cpu_source =
        CpuSource::detect().map_err(|error| format!("no CPU times, Linux is needed: {error}"))?;
    let redis_program = programs::REDIS.find_or_install()?;
    let programs = programs_of(arguments)?;
    let rounds = arguments.rounds.unwrap_or(if arguments.quick { 3 } else { 5 });
    let default_time = Duration::from_millis(if arguments.quick { 300 } else { 1000 });
    let time = arguments.seconds.unwrap_or(default_time);

    let stop = Stop::default();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let folder = tempfile::Builder::new().prefix("pointsman-bench-").tempdir()?;
    let bench = Bench {
        redis: &Redis::start(&redis_program, folder.path())?,
        redis_program: &redis_program,
        folder: folder.path(),
        cpu_source,
        warmup: time.mul_f64(0.3).max(Duration::from_millis(100)),
        time,
        stop,
    };
    let mut about = vec![
        ("machine", measure::machine()),
        (
            "rounds",
            format!("{rounds} of {} s, seed {}; medians (min..max)", time.as_secs_f64(), arguments.seed),
        ),
        ("CPU", cpu_source.describe().to_owned()),
        ("ratios", "the median of the ratios within each round".to_owned()),
        ("redis", programs::version(&redis_program, "--version")),
    ];
    about.extend(programs.iter().filter_map(|(peer, program)| {
        program.as_ref().map(|program| (peer.name(), programs::version(program, peer.version_flag())))
    }));
    let mut report = Report::new(about, scenarios, programs.keys().copied().collect());
    measure_all(&bench, &mut report, &programs, rounds, arguments)?;
    publish(&report, arguments)
}

/// The peers to compare and their programs. One that cannot be had is left out, with a line about it.
fn programs_of(arguments: &Arguments) -> Result<BTreeMap<Peer, Option<PathBuf>>, Box<dyn Error>> {
    let wanted = if arguments.peers.is_empty() { &Peer::USUAL[..] } else { &arguments.peers };
    let mut programs = BTreeMap::new();
    for &peer in wanted {
        let program = match (peer, &arguments.pointsman) {
            (Peer::Direct, _) => Ok(None),
            (Peer::Haproxy, _) => programs::HAPROXY.find_or_install().map(Some),
            (Peer::Twemproxy, _) => programs::NUTCRACKER.find_or_install().map(Some),
            (Peer::Pointsman | Peer::Replicated | Peer::Durable, Some(path)) => {
                Ok(Some(path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?))
            }
            (Peer::Pointsman | Peer::Replicated | Peer::Durable, None) => {
                Ok(Some(programs::build_pointsman()?))
            }
        };
        match program {
            Ok(program) => _ = programs.insert(peer, program),
            Err(missing) => eprintln!("leaving out {}: {missing}", peer.name()),
        }
    }
    if programs.is_empty() { Err("there is nothing to compare".into()) } else { Ok(programs) }
}

fn measure_all(
    bench: &Bench,
    report: &mut Report,
    programs: &BTreeMap<Peer, Option<PathBuf>>,
    rounds: u32,
    arguments: &Arguments,
) -> Result<(), Box<dyn Error>> {
    let mut random = Random(arguments.seed);
    let mut generation = 0;
    let idle_rounds = if arguments.quick { 1 } else { rounds.min(IDLE_ROUNDS_MAX) };
    for round in 0..rounds {
        for scenario in report.scenarios().to_vec() {
            if scenario.action == Action::Idle && round >= idle_rounds {
                continue;
            }
            let mut order: Vec<Peer> =
                programs.keys().copied().filter(|peer| scenario.suits(*peer)).collect();
            random.shuffle(&mut order);
            for peer in order {
                generation += 1;
                let outcome = bench.measure(scenario, peer, programs[&peer].as_deref(), generation);
                if bench.stop.load(Ordering::Relaxed) {
                    return Err("interrupted".into());
                }
                let outcome = outcome.map_err(|error| error.to_string());
                let gist = match &outcome {
                    Ok(cell) => gist(cell),
                    Err(error) => format!("failed: {error}"),
                };
                eprintln!("round {}/{rounds}  {:<10}  {:<9}  {gist}", round + 1, scenario.name, peer.name());
                report.add(scenario, peer, outcome);
            }
        }
    }
    Ok(())
}

/// A cell in a few words, to watch the progress.
fn gist(cell: &scenario::Cell) -> String {
    let words = [
        (Metric::OpsPerSecond, 0, "ops/s"),
        (Metric::CpuUs, 2, "us/req"),
        (Metric::IdleBytes, 0, "bytes/client"),
    ];
    let said = words.iter().filter_map(|(metric, digits, unit)| {
        cell.get(metric).map(|figure| format!("{figure:.digits$} {unit}"))
    });
    said.collect::<Vec<_>>().join("  ")
}

fn publish(report: &Report, arguments: &Arguments) -> Result<usize, Box<dyn Error>> {
    let text = if arguments.markdown { report.markdown() } else { report.text() };
    io::stdout().write_all(format!("\n{text}").as_bytes())?;
    if let Some(file) = &arguments.json {
        fs::write(file, format!("{:#}\n", report.json()))
            .map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    }
    Ok(report.failures())
}
