//! The commands that talk to a running process: `pointsman status | events | reload | trust`; `switch` has the others.
use super::print;
use super::report::{Events, Outcome, Report};
use super::request::{Answer, ask};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

/// Between two looks, for a rate.
const RATE_OVER: Duration = Duration::from_millis(500);
/// How often news are asked for.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// The status of the process whose admin listener is at `address`: for a person, or (`json`) as `/api/status` gives it.
/// For a person it looks twice, half a second apart, so that it can say how many commands there are a second.
///
/// # Errors
/// One line for the person who asked.
pub fn status(address: SocketAddr, json: bool) -> Result<String, String> {
    let answer = get(address, "/api/status")?;
    if json {
        return Ok(answer.body);
    }
    let before: Report = understood(address, &answer)?;
    sleep(RATE_OVER);
    let now = get(address, "/api/status").and_then(|answer| understood(address, &answer));
    // A process that ends in this half second was still seen once.
    Ok(now.map_or_else(|_| print::status(&before, None), |now| print::status(&now, Some(&before))))
}

/// Writes the events of the process whose admin listener is at `address`, a line each, to `out`: for a person, or
/// (`json`) as JSON objects. With `follow` it goes on until writing fails, also across a restart of the process.
///
/// # Errors
/// One line for the person who asked. While following, only the first look can fail.
pub fn events(address: SocketAddr, follow: bool, json: bool, out: &mut dyn Write) -> Result<(), String> {
    let mut news = news(address, 0, 0)?;
    let (mut journal, mut last) = (news.journal, 0);
    loop {
        let mut text = String::new();
        for line in &news.events {
            last = last.max(line.n);
            let line = if json {
                serde_json::to_string(line).map_err(|e| e.to_string())?
            } else {
                print::event(line)
            };
            let _ = writeln!(text, "{line}");
        }
        // Whoever read this is gone.
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() || !follow {
            return Ok(());
        }
        sleep(FOLLOW_EVERY);
        // A process that restarts is away for a while.
        news = self::news(address, journal, last).unwrap_or(Events { journal, events: Vec::new() });
        if news.journal != journal {
            (journal, last) = (news.journal, 0);
        }
    }
}

/// The events after `last`; all, if it was numbered in another count.
fn news(address: SocketAddr, journal: u64, last: u64) -> Result<Events, String> {
    let look = |after| {
        let answer = get(address, &format!("/api/events?after={after}"))?;
        understood::<Events>(address, &answer)
    };
    let news = look(last)?;
    if news.journal != journal && last != 0 { look(0) } else { Ok(news) }
}

/// Makes the process whose admin listener is at `address` read its configuration again, and says what changed.
///
/// # Errors
/// Why nothing was changed.
pub fn reload(address: SocketAddr) -> Result<String, String> {
    act(address, "/api/reload")
}

/// Makes the process whose admin listener is at `address` accept a new era of config epochs for `service`.
///
/// # Errors
/// Why not.
pub fn trust(address: SocketAddr, service: &str) -> Result<String, String> {
    act(address, &format!("/api/trust/{}", escaped(service)))
}

/// A text as a part of a path or of a query.
pub(super) fn escaped(text: &str) -> String {
    let mut path = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

pub(super) fn act(address: SocketAddr, path: &str) -> Result<String, String> {
    let answer = ask(address, "POST", path)?;
    let outcome: Outcome = understood(address, &answer)?;
    outcome.done.ok_or_else(|| outcome.error.unwrap_or_else(|| no_sense(address, &answer)))
}

pub(super) fn get(address: SocketAddr, path: &str) -> Result<Answer, String> {
    let answer = ask(address, "GET", path)?;
    if answer.status == 200 {
        return Ok(answer);
    }
    let error = understood::<Outcome>(address, &answer)?.error;
    Err(error.unwrap_or_else(|| no_sense(address, &answer)))
}

/// Reads JSON. Nothing in it can move a terminal's cursor afterwards: some of the texts come from other servers.
pub(super) fn understood<T: DeserializeOwned>(address: SocketAddr, answer: &Answer) -> Result<T, String> {
    let parsed = serde_json::from_str(&answer.body).and_then(|mut value: Value| {
        clean(&mut value);
        serde_json::from_value(value)
    });
    parsed.map_err(|_| no_sense(address, answer))
}

fn no_sense(address: SocketAddr, answer: &Answer) -> String {
    format!("{address} answered {} with what is not understood: is that Pointsman?", answer.status)
}

fn clean(value: &mut Value) {
    match value {
        Value::String(text) if text.contains(|c: char| c.is_control() && c != '\n') => {
            *text = text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}");
        }
        Value::Array(values) => values.iter_mut().for_each(clean),
        Value::Object(values) => values.values_mut().for_each(clean),
        _ => {}
    }
}
