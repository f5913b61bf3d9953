//! Every command that the server knows, formed at random, rightly and wrongly, said to a server and to the proxy before an equal
//! one: the replies are compared byte for byte. `POINTSMAN_SEED=n cargo test -p pointsman --test e2e differential` says the same
//! again; `POINTSMAN_COMMANDS=1000000` says more.
mod exceptions;
mod grammar;

use crate::harness::Pair;
use crate::harness::random::{Random, seed};
use crate::harness::raw::shown;
use crate::harness::twin::{Command, Twin};
use grammar::Form;
use pointsman::sandbox::deployment::Options;
use std::collections::BTreeSet;

const COMMANDS: usize = 100_000;
const CLIENTS: usize = 4;
const PIPELINE_MAX: usize = 24;
/// A transaction is ended by then, more or less.
const QUEUED_MAX: usize = 8;

/// One of the clients: what it has queued in a transaction, if it is in one.
struct Talker {
    twin: Twin,
    queued: Option<Vec<String>>,
}

impl Talker {
    fn connect(pair: &Pair, seed: u64) -> Talker {
        Talker { twin: Twin::connect(pair, seed), queued: None }
    }

    /// Says these, and hears and compares a reply to each.
    fn talk(&mut self, said: &[(&Form, Command)], random: &mut Random) {
        let all: Vec<Command> = said.iter().map(|(_, c)| c.clone()).collect();
        self.twin.say(&all, random);
        for (form, command) in said {
            let text = shown(&command.join(&b' '));
            let queued = self.queued.take();
            let seen_as = |reply: &[u8]| match (&queued, form.name.as_str()) {
                (Some(queued), "EXEC") => exceptions::exec_seen_as(queued, reply),
                (_, name) => exceptions::seen_as(name, reply),
            };
            let reply = self.twin.hear(&text, &all, seen_as);
            self.queued = match (queued, form.name.as_str()) {
                (None, "MULTI") if reply == b"+OK\r\n" => Some(Vec::new()),
                (Some(mut queued), _) if reply == b"+QUEUED\r\n" => {
                    queued.push(form.name.clone());
                    Some(queued)
                }
                (Some(_), "EXEC" | "DISCARD" | "RESET") if !reply.starts_with(b"-ERR") => None,
                (queued, _) => queued,
            };
        }
    }
}

fn commands(forms: &[Form], talker: &Talker, random: &mut Random) -> Vec<usize> {
    let find = |name: &str| forms.iter().position(|f| f.name == name).unwrap();
    let mut out = Vec::new();
    for _ in 0..1 + random.below(PIPELINE_MAX) {
        let many = talker.queued.as_ref().is_some_and(|q| q.len() > QUEUED_MAX);
        out.push(match random.below(100) {
            0..3 => find("MULTI"),
            3 => find("WATCH"),
            4..9 => find("EXEC"),
            9..30 if many => find("EXEC"),
            _ => {
                let n = random.below(forms.len());
                // A server looks for what has waited long enough ten times a second only.
                if forms[n].blocks() && random.percent(90) { random.below(forms.len()) } else { n }
            }
        });
    }
    out
}

fn signs_in(form: &Form, command: &Command) -> bool {
    form.name == "AUTH"
        || form.name == "HELLO" && command.iter().any(|word| word.eq_ignore_ascii_case(b"AUTH"))
}

#[test]
fn every_command_is_answered_as_the_server_answers_it() {
    let most = std::env::var("POINTSMAN_COMMANDS").map_or(COMMANDS, |n| n.parse().unwrap());
    let pair = Pair::start(&Options::default(), &["--workers", "2"]);
    let known = grammar::forms(&pair.bare.ask(&["COMMAND", "DOCS"]));
    if known.is_empty() {
        return eprintln!("skipped: this server does not know COMMAND DOCS (7.0 and later do)");
    }
    let refused = |name: &str| {
        pointsman_core::command::all()
            .iter()
            .any(|e| e.refused && (e.name == name || name.split('|').next() == Some(e.name)))
    };
    let (forms, left): (Vec<Form>, Vec<Form>) =
        known.into_iter().partition(|f| exceptions::not_said(&f.name).is_none() && !refused(&f.name));
    println!("{} commands are said, {} are not", forms.len(), left.len());
    let seed = seed();
    let mut random = Random(seed);
    let mut talkers: Vec<Talker> = (0..CLIENTS).map(|_| Talker::connect(&pair, seed)).collect();
    let (mut said, mut names) = (0, BTreeSet::new());
    while said < most {
        let who = random.below(CLIENTS);
        if random.below(300) == 0 {
            talkers[who] = Talker::connect(&pair, seed);
        }
        let which = commands(&forms, &talkers[who], &mut random);
        let mut batch: Vec<(&Form, Command)> =
            which.into_iter().map(|n| (&forms[n], forms[n].say(&mut random))).collect();
        // Behind another reply, servers from Redis 7.2 on (Valkey to 8) do not answer one that fails (redis/redis#15640).
        let behind = |i: usize| i > 0 || talkers[who].queued.is_some();
        let unanswered = |&i: &usize| behind(i) && signs_in(batch[i].0, &batch[i].1);
        batch.truncate((0..batch.len()).find(unanswered).unwrap_or(batch.len()));
        if batch.is_empty() {
            continue;
        }
        talkers[who].talk(&batch, &mut random);
        said += batch.len();
        names.extend(batch.iter().map(|(f, _)| f.name.as_str()));
    }
    if most >= COMMANDS {
        assert_eq!(names.len(), forms.len(), "every one was said");
    }
}

/// What is left out exists, so that a list that has grown old is noticed.
#[test]
fn what_is_not_said_is_known_and_everything_else_is_said() {
    let table: BTreeSet<&str> = pointsman_core::command::all().iter().map(|e| e.name).collect();
    let of_sentinels = ["SENTINEL"];
    for (names, why) in exceptions::NOT_SAID {
        for name in names.iter().filter(|n| !of_sentinels.contains(n)) {
            assert!(table.contains(name), "{name} ({why}) is no command");
        }
    }
}
