//! The sandbox: a throwaway deployment of real servers, the proxy before it, and a load that checks what it is told.
//!
//! - [`deployment`]: the servers, and that they end with us
//! - [`proxy`]: the proxy as a child process, and its status
//! - [`load`], [`book`]: the verified load; what it was told, and the verdict
//! - [`chaos`]: what to break next
//! - [`growth`]: whether the proxy's memory stays flat
//! - [`screen`]: what a person sees
pub mod book;
pub mod chaos;
pub mod deployment;
pub mod growth;
pub mod load;
mod ports;
mod process;
pub mod proxy;
mod run;
pub mod screen;
mod watchdog;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// The arguments of `pointsman sandbox`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SandboxArgs {
    /// Break something every few seconds: kill -9, SIGSTOP, SENTINEL FAILOVER, restart
    #[arg(long)]
    pub chaos: bool,
    /// End after this time, as 90s, 5m or 1h; without it, with Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub limit: Option<Duration>,
    /// Start no load
    #[arg(long)]
    pub no_load: bool,
    /// Choose the same faults again
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// What to start as nodes and Sentinels: a program in PATH, or a path [default: redis-server, else valkey-server]
    #[arg(long, value_name = "PROGRAM", env = deployment::SERVER_VARIABLE)]
    pub server: Option<std::path::PathBuf>,
    /// Let the proxy listen on this port of 127.0.0.1 instead of a free one
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
}

/// Runs a sandbox with this program as the proxy. Fails if it cannot start, or if the proxy lost or mixed up what only
/// it can have lost or mixed up (writes that were acknowledged under a grant to a node that stayed master, replies), or if
/// its memory grew after the first minute.
pub fn run(args: &SandboxArgs) -> ExitCode {
    match std::env::current_exe().and_then(|program| run_program(args, &program)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            // Not eprintln!: that panics when nobody reads any more.
            let _ = writeln!(io::stderr(), "pointsman sandbox: {e}");
            ExitCode::FAILURE
        }
    }
}

/// [`run`] with that program as the proxy; whether the verdict is good.
pub fn run_program(args: &SandboxArgs, program: &Path) -> io::Result<bool> {
    let mut run = run::Run::start(args, program)?;
    run.go()?;
    let (good, summary) = run.finish()?;
    io::stdout().write_all(summary.as_bytes())?;
    Ok(good)
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds_per_unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("a time is a number with s, m or h, as 90s".into()),
    };
    let number: u32 = digits.parse().map_err(|e| format!("{digits:?}: {e}"))?;
    Ok(Duration::from_secs(u64::from(number) * seconds_per_unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "60", "s", "1.5m", "-1s", "5 m", "3d", "99999999999s", "5é"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
