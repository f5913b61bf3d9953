//! The names in `allow`, by the table of commands: one that does not exist, or is mistyped, would allow nothing, and be
//! found out in the middle of a night.
use crate::address::Wrong;
use crate::error::{nearest, quoted};
use pointsman_core::command::{self, Entry};

/// The upper-case name of a command that the table has: `DEBUG`, `CLIENT|PAUSE`.
pub(crate) fn command_name(text: &str) -> Result<Box<str>, Wrong> {
    let parts: Vec<&str> = text.split('|').collect();
    if parts.len() > 2 || !parts.iter().all(|w| is_word(w)) {
        let meant = text.split_whitespace().take(2).collect::<Vec<_>>().join("|").to_uppercase();
        let meant = if meant.contains('|') { meant } else { "CLIENT|PAUSE".into() };
        let problem = format!("{} is not the name of a command", quoted(text));
        return Err((
            problem,
            format!("write a command, or a command and its subcommand: {}", quoted(&meant)),
        ));
    }
    let name = text.to_ascii_uppercase();
    if command::all().iter().any(|entry| entry.name == name) {
        return Ok(name.into());
    }
    Err((format!("there is no command {}", quoted(text)), instead_of(&name)))
}

/// Whether a command may have this name.
pub(crate) fn is_word(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(letter)
}

/// Whether a command of this name is refused by default, or one of its subcommands is.
pub(crate) fn refuses(name: &str) -> bool {
    let within = |other: &str| other.split_once('|').is_some_and(|(parent, _)| parent == name);
    refused().any(|refused| refused == name || within(refused))
}

/// What may have been meant by a command that does not exist.
fn instead_of(name: &str) -> String {
    match nearest(name, refused()) {
        Some(meant) => format!("did you mean {}?", quoted(meant)),
        None => format!("what can be allowed is {}", refused().collect::<Vec<_>>().join(", ")),
    }
}

fn refused() -> impl Iterator<Item = &'static str> {
    command::all().iter().filter(|entry: &&Entry| entry.refused).map(|entry| entry.name)
}
