//! Client libraries, and what is built on them, directly and through Pointsman: `make test-clients`.
//!
//! Each script does with its library what applications do, twice: with a server, and with the proxy before a deployment whose
//! master changes in the middle of it. What it prints must be the same. What is run, and what each library shows differently:
//! docs/reference/clients.md.

mod kit;
mod page;
mod play;
mod world;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::Parser;

use kit::{Kit, Unready};
use play::Library;

/// Run client libraries directly and through Pointsman, and compare what they say
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Only scripts whose name begins so, as redis_py
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// The binary to test [default: pointsman beside this one]
    #[arg(long, value_name = "PATH")]
    pointsman: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pointsman-clients: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says whether all that could be run is as the page has it.
fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let this = std::env::current_exe()?;
    let program = arguments.pointsman.clone().unwrap_or_else(|| this.with_file_name("pointsman"));
    if !program.is_file() {
        let path = program.display();
        return Err(
            format!("there is no {path}: build it (cargo build -p pointsman), or give --pointsman").into()
        );
    }
    let folder = this.ancestors().nth(2).ok_or("this program is in no folder")?.join("clients");
    let chosen = |name: &str| {
        arguments.only.is_empty() || arguments.only.iter().any(|begin| name.starts_with(begin.as_str()))
    };
    let jobs =
        Kit::ALL.map(|kit| (kit, kit.scripts().iter().copied().filter(|s| chosen(s)).collect::<Vec<_>>()));
    if jobs.iter().all(|(_, scripts)| scripts.is_empty()) {
        let all: Vec<&str> = Kit::ALL.iter().flat_map(|kit| kit.scripts()).copied().collect();
        return Err(format!("there is no such script; there are {}", all.join(", ")).into());
    }
    // Each language installs its libraries and runs its scripts, one after the other, beside the others.
    let play = |kit: Kit, scripts: Vec<&'static str>| -> Result<Vec<Library>, String> {
        if scripts.is_empty() {
            return Ok(vec![]);
        }
        let folder = folder.join(kit.to_string());
        match kit.install(&folder) {
            Ok(()) => (),
            Err(Unready::Broken(what)) => return Err(what),
            Err(Unready::Missing(what)) => {
                println!("skipped: {}: {what}", scripts.join(", "));
                return Ok(vec![]);
            }
        }
        Ok(scripts.into_iter().map(|script| play::play(kit, &folder, script, &program)).collect())
    };
    let played = thread::scope(|scope| {
        let play = &play;
        let threads = jobs.map(|(kit, scripts)| scope.spawn(move || play(kit, scripts)));
        threads.map(|thread| thread.join().expect("a thread that plays does not panic"))
    });
    let libraries = played.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    let good = libraries.iter().all(Library::is_good);
    Ok(page::hold_against(&libraries)? && good)
}
