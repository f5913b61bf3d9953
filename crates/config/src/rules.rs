//! The keys `deny` and `rename`: which commands nobody may use, and which are called otherwise. What a mistake would leave
//! open, or close to everybody, is an error.
use crate::allow::{command_name, is_word};
use crate::error::{nearest, quoted};
use crate::reader::{Placed, Table};
use pointsman_core::command::{self, Act, Entry};
use pointsman_core::policy::Allow;
use pointsman_core::rules::{NAME_MAX, Rules};
use std::sync::Arc;

/// Reads both.
pub(crate) fn rules(table: &Table<'_>, allow: &Allow) -> Option<Arc<Rules>> {
    let denied = denied(table, allow);
    let renamed = renamed(table);
    Rules::new(denied, renamed)
}

fn denied(table: &Table<'_>, allow: &Allow) -> Vec<Box<str>> {
    let mut denied = Vec::new();
    for Placed { value, spot } in table.list("deny").unwrap_or_default() {
        // Commands of modules have a dot; no others have.
        let module = value.contains('.') && is_word(&value) && value.len() <= NAME_MAX;
        let name = if module { Ok(value.to_ascii_uppercase().into()) } else { command_name(&value) };
        let name: Box<str> = match name {
            Ok(name) => name,
            Err((problem, remedy)) => {
                let names = command::all().iter().map(|entry| entry.name);
                let meant = nearest(&value.to_ascii_uppercase(), names);
                let remedy = meant.map_or(remedy, |meant| format!("did you mean {}?", quoted(meant)));
                table.reader.wrong(spot, problem, remedy);
                continue;
            }
        };
        if matches!(allow, Allow::These(names) if names.contains(&name)) {
            table.reader.wrong(spot, format!("{name} is both allowed and denied"), "keep one of the two");
        }
        denied.push(name);
    }
    denied
}

/// The server's names and the clients'.
fn renamed(table: &Table<'_>) -> Vec<(Box<str>, Box<str>)> {
    let written = table.names("rename").unwrap_or_default();
    let own: Vec<String> = written.iter().map(|(own, _)| own.value.to_ascii_uppercase()).collect();
    let mut renamed: Vec<(Box<str>, Box<str>)> = Vec::new();
    for (Placed { spot, .. }, name) in &written {
        let at = renamed.len();
        let pair: (Box<str>, Box<str>) = (own[at].as_str().into(), name.value.to_ascii_uppercase().into());
        let wrong = wrong(&pair.0, &pair.1, &own).or_else(|| {
            let twice = |a: &str, b: &str| renamed.iter().any(|(own, name)| **own == *a || **name == *b);
            twice(&pair.0, &pair.1).then(|| {
                (format!("{} = {} is the second of its name", pair.0, quoted(&pair.1)), "keep one".into())
            })
        });
        if let Some((problem, remedy)) = wrong {
            table.reader.wrong(*spot, problem, remedy);
        }
        renamed.push(pair);
    }
    renamed
}

/// What is wrong with calling a command otherwise, and what would be right. `renamed`: all that are.
fn wrong(own: &str, name: &str, renamed: &[String]) -> Option<(String, String)> {
    if name.is_empty() {
        return Some((
            format!("{own} has no new name"),
            format!("to forbid it write deny = [{}]", quoted(own)),
        ));
    }
    if let Some(odd) = [own, name].into_iter().find(|word| !is_word(word) || word.len() > NAME_MAX) {
        let remedy = format!("write whole commands: 1 to {NAME_MAX} letters, digits, \".\", \"_\" and \"-\"");
        return Some((format!("{} is not the name of a command", quoted(odd)), remedy));
    }
    let known = |name: &str| entries_of(name).next().is_some();
    match (known(own), known(name)) {
        (false, false) => {
            let names = command::all().iter().map(|entry| entry.name).filter(|name| !name.contains('|'));
            let remedy = nearest(own, names).map_or_else(
                || "write the server's name, = and the clients'".into(),
                |meant| format!("did you mean {}?", quoted(meant)),
            );
            Some((format!("there is no command {} or {}", quoted(own), quoted(name)), remedy))
        }
        (true, true) if !renamed.iter().any(|other| other == name) => Some((
            format!("{own} = {}: there is a command of that name", quoted(name)),
            format!("write another name, or rename {name} too"),
        )),
        // The nodes call it otherwise; we say some commands ourselves.
        (false, true) if entries_of(name).any(|entry| !is_plain(entry)) => Some((
            format!("{own} = {}: Pointsman itself uses {name}", quoted(name)),
            format!("let the nodes call it {name}"),
        )),
        _ => None,
    }
}

/// A command of the table and its subcommands.
fn entries_of(name: &str) -> impl Iterator<Item = &'static Entry> {
    command::all().iter().filter(move |entry| entry.name.split('|').next() == Some(name))
}

fn is_plain(entry: &Entry) -> bool {
    matches!(entry.act, Act::None | Act::Block | Act::BlockIfAsked)
}
