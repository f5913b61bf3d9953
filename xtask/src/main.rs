//! Tasks for developers: `cargo run -p xtask -- TASK`.
mod commands;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo run -p xtask -- commands                     write the command table and its page again
       cargo run -p xtask -- commands --check             fail if they are not what the captured servers give
       cargo run -p xtask -- commands --capture PROGRAM   keep what a server says of its commands
       cargo run -p xtask -- commands --compare PROGRAM   say where a server contradicts the table";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["commands"] => commands::write(),
        ["commands", "--check"] => commands::check(),
        ["commands", "--capture", program] => commands::capture(program),
        ["commands", "--compare", program] => commands::compare(program),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
