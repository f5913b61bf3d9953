//! The program: arguments to one of its commands.
use clap::{Args, Parser, Subcommand};
use pointsman::admin::{client, switch};
use pointsman::{check, run, sandbox};
use pointsman_config::{Flags, parse_duration};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// One plain address that always reaches the true Redis or Valkey master.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy
    Run(ConfigArgs),
    /// Validate a configuration and explain what it would do
    Check(CheckArgs),
    /// Start a throwaway real deployment with the proxy before it
    Sandbox(sandbox::SandboxArgs),
    /// Show a running proxy's state
    Status(StatusArgs),
    /// Show what happened to a running proxy's services
    Events(EventsArgs),
    /// Make a running proxy read its configuration again
    Reload(AdminArgs),
    /// Accept that a service's Sentinels have begun to count epochs anew
    Trust(TrustArgs),
    /// Change the master of a service on purpose, without loss
    Switchover(SwitchoverArgs),
    /// Hold a service's commands, for maintenance
    Pause(PauseArgs),
    /// Let a paused service's commands go on
    Resume(TrustArgs),
}

#[derive(Args)]
struct ConfigArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
    /// The Sentinels
    #[arg(long, value_name = "HOST:PORT,…")]
    sentinel: Vec<String>,
    /// The name that the Sentinels give to the master
    #[arg(long, value_name = "NAME")]
    master: Option<String>,
    /// The nodes, to be asked for their roles (instead of Sentinels)
    #[arg(long, value_name = "HOST:PORT,…")]
    node: Vec<String>,
    /// Refuse no command
    #[arg(long)]
    transparent: bool,
    /// Threads that serve clients (default: as many as there are cores)
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// Where health, status and metrics are served (default 127.0.0.1:9400)
    #[arg(long, value_name = "ADDR|off")]
    admin: Option<String>,
    /// error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// human or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl ConfigArgs {
    fn flags(self) -> Flags {
        Flags {
            config: self.config,
            listen: self.listen,
            sentinels: self.sentinel,
            master: self.master,
            nodes: self.node,
            transparent: self.transparent,
            workers: self.workers,
            admin: self.admin,
            log_level: self.log_level,
            log_format: self.log_format,
        }
    }
}

#[derive(Args)]
struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Ask the Sentinels and nodes too
    #[arg(long)]
    probe: bool,
}

#[derive(Args)]
struct AdminArgs {
    /// The admin listener of the running proxy
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9400")]
    admin: SocketAddr,
}

#[derive(Args)]
struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct EventsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Go on as they happen
    #[arg(long)]
    follow: bool,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TrustArgs {
    /// The service's name
    service: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
struct SwitchoverArgs {
    /// The service's name
    service: String,
    /// Which node is to be master (default: whichever the Sentinels would choose)
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// Change no master, but give nodes back the priority that a switchover that was cut short has left at 0
    #[arg(long, value_name = "NODE=PRIORITY,…", value_delimiter = ',', conflicts_with = "to")]
    restore: Vec<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Args)]
struct PauseArgs {
    /// The service's name
    service: String,
    /// For how long at most; then it goes on by itself
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    span: Duration,
    #[command(flatten)]
    admin: AdminArgs,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::run(&args.flags()),
        Command::Check(args) => check::check(&args.config.flags(), args.probe),
        Command::Sandbox(args) => sandbox::run(&args),
        Command::Status(args) => said(client::status(args.admin.admin, args.json)),
        Command::Events(args) => said(
            client::events(args.admin.admin, args.follow, args.json, &mut io::stdout())
                .map(|()| String::new()),
        ),
        Command::Reload(args) => said(client::reload(args.admin)),
        Command::Trust(args) => said(client::trust(args.admin.admin, &args.service)),
        Command::Switchover(args) => {
            let SwitchoverArgs { service, to, restore, admin } = args;
            said(switch::switchover(admin.admin, &service, to.as_deref(), &restore, &mut io::stdout()))
        }
        Command::Pause(args) => said(switch::pause(args.admin.admin, &args.service, args.span)),
        Command::Resume(args) => said(switch::resume(args.admin.admin, &args.service)),
    }
}

fn said(outcome: Result<String, String>) -> ExitCode {
    match outcome {
        Ok(text) => {
            if !text.is_empty() {
                println!("{}", text.trim_end());
            }
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("pointsman: {text}");
            ExitCode::FAILURE
        }
    }
}
