//! The status and the events for a person: at 3 a.m., on a narrow terminal, without colours.
use super::report::{Node, Report, Sentinel, Service};
use crate::events::Line;
use std::fmt::Write;

/// The status as text; `before` is an earlier look at the same process, for how many commands there are a second.
pub fn status(now: &Report, before: Option<&Report>) -> String {
    let mut text = format!("pointsman {}, up {}", now.version, duration(now.uptime_s));
    let busy: Vec<String> = now.workers.iter().map(|w| format!("{} %", w.busy_permille / 10)).collect();
    let _ = writeln!(text, ", {} ({} busy)", count(busy.len(), "worker"), busy.join(", "));
    if now.stopping {
        text += "  ! it was told to stop, and lets its clients finish\n";
    }
    if let Some(error) = &now.reload_error {
        let _ = writeln!(text, "  ! the newest reload was not taken: {}", one_line(error));
    }
    for service in &now.services {
        let earlier = before.and_then(|r| r.services.iter().find(|s| s.name == service.name));
        let elapsed = before.map_or(0.0, |r| now.uptime_s - r.uptime_s);
        text.push('\n');
        text += &block(service, earlier.and_then(|e| rate(service, e, elapsed)));
    }
    text
}

/// An event in one line.
pub fn event(line: &Line) -> String {
    let (at, service, kind) = (&line.at, &line.service, &line.kind);
    format!("{at} {service} {kind:<8} term {}  {}", line.term, one_line(&line.text))
}

/// Commands a second.
fn rate(now: &Service, before: &Service, elapsed_s: f64) -> Option<f64> {
    let commands = now.commands.checked_sub(before.commands)?;
    (elapsed_s > 0.0).then(|| commands as f64 / elapsed_s)
}

fn block(s: &Service, rate: Option<f64>) -> String {
    let mut text = format!("{}: {} for {}, ", one_line(&s.name), s.state.to_uppercase(), duration(s.state_s));
    let _ = match &s.master {
        Some(master) => writeln!(text, "master {}, term {}", one_line(master), s.term),
        None => writeln!(text, "no master (the last term was {})", s.term),
    };
    for problem in &s.problems {
        let _ = writeln!(text, "  ! {}", one_line(problem));
    }
    for (name, value) in facts(s, rate) {
        let _ = writeln!(text, "  {name:<9} {}", one_line(&value));
    }
    if !s.sentinels.is_empty() {
        text += &table(
            &["sentinel", "names", "epoch", "seen", "stage", "problem"],
            s.sentinels.iter().map(sentinel),
        );
    }
    if !s.nodes.is_empty() {
        text += &table(&["node", "role", "offset", "lag", "seen", "problem"], s.nodes.iter().map(node));
    }
    text
}

fn facts(s: &Service, rate: Option<f64>) -> Vec<(&'static str, String)> {
    let mut facts = vec![("why", s.why.clone())];
    let mut proof: Vec<String> = s.proven_ago_s.map(|s| format!("{} ago", duration(s))).into_iter().collect();
    proof.extend(s.epoch.map(|epoch| format!("at config epoch {epoch}")));
    if !s.sentinels.is_empty() {
        let counted = s.sentinels.iter().filter(|x| x.counted).count();
        proof.push(format!("{} of {} Sentinels are needed", s.majority, counted));
    }
    if !proof.is_empty() {
        facts.push(("proof", proof.join(", ")));
    }
    facts.push(("gates", format!("writes {}, reads {}", s.gates.writes, s.gates.reads)));
    if !matches!(s.guard.state.as_str(), "off" | "") {
        let why = s.guard.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
        facts.push((
            "guard",
            format!("{}{why} ({} since the start)", s.guard.state, count(s.guard.holds, "hold")),
        ));
    }
    if let Some(held) = s.holding_s {
        let left = duration((s.hold_max_s - held).max(0.0));
        facts.push(("hold", format!("for {} already, {left} left", duration(held))));
    }
    if let Some(left) = s.paused_left_s {
        facts.push(("paused", format!("by an operator, for {} more at most", duration(left))));
    }
    if let Some(left) = s.lease_s {
        let text = match duration(left) {
            _ if left <= 0.0 => "over: the Sentinels could have elected another master unseen".to_owned(),
            left => format!("writes may go on for {left} without another word of the Sentinels"),
        };
        facts.push(("lease", text));
    }
    let held = match s.held {
        0 => "none waits".to_owned(),
        n => format!("{n} wait"),
    };
    facts.push((
        "clients",
        format!("{}, {held} ({} held since the start)", s.clients, count(s.held_total, "command")),
    ));
    let rate = rate.map_or(String::new(), |rate| format!("{rate:.0} a second, "));
    facts.push(("commands", format!("{rate}{} since the start", s.commands)));
    facts.push((
        "so far",
        format!(
            "{}, {} uncertain, {} masterdown, {} sent again",
            count(s.switches, "switch"),
            s.uncertain,
            s.masterdown,
            s.resent
        ),
    ));
    facts.push(("listeners", s.listeners.join(", ")));
    facts
}

fn sentinel(s: &Sentinel) -> [String; 6] {
    let note = match (s.counted, s.configured) {
        (false, _) => " (not counted)",
        (true, false) => " (discovered)",
        (true, true) => "",
    };
    [
        format!("{}{note}", s.at),
        s.names.clone().unwrap_or_default(),
        s.epoch.map_or(String::new(), |e| e.to_string()),
        seen(s.seen_ago_s),
        s.stage.clone(),
        s.problem.clone().unwrap_or_default(),
    ]
}

fn node(n: &Node) -> [String; 6] {
    let mut problems: Vec<String> = n.problem.iter().cloned().collect();
    let notes = [
        (n.loading, "it loads its data"),
        (n.link_up == Some(false), "its link to its master is down"),
        (n.healthy == Some(false), "not healthy"),
    ];
    problems.extend(notes.iter().filter(|(is, _)| *is).map(|(_, note)| (*note).to_owned()));
    [
        n.at.clone(),
        n.role.clone().unwrap_or_else(|| "?".into()),
        n.offset.map_or(String::new(), |o| o.to_string()),
        n.lag_bytes.map_or(String::new(), bytes),
        seen(n.seen_ago_s),
        problems.join("; "),
    ]
}

fn seen(ago_s: Option<f64>) -> String {
    ago_s.map_or_else(|| "never".into(), |s| format!("{} ago", duration(s)))
}

/// Columns as wide as their widest cell, under their names; a column that is empty in all rows is left out.
fn table<const N: usize>(names: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.map(|row| row.map(|cell| one_line(&cell))).collect();
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let columns: Vec<(usize, usize)> =
        (0..N).filter(|i| *i == 0 || width(*i) > 0).map(|i| (i, width(i).max(names[i].len()))).collect();
    let line = |cells: &dyn Fn(usize) -> String| {
        let cells: Vec<String> = columns.iter().map(|&(i, width)| format!("{:<width$}", cells(i))).collect();
        format!("  {}\n", cells.join("  ").trim_end())
    };
    let mut text = String::from("\n");
    text += &line(&|i| names[i].to_uppercase());
    for row in &rows {
        text += &line(&|i| row[i].clone());
    }
    text
}

/// The two units that matter: `3d 4h`, `2h 13m`, `1m 5s`, `12.3s`.
fn duration(s: f64) -> String {
    let whole = s as u64;
    match whole {
        0..60 => format!("{s:.1}s"),
        60..3600 => format!("{}m {}s", whole / 60, whole % 60),
        3600..86400 => format!("{}h {}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d {}h", whole / 86400, whole % 86400 / 3600),
    }
}

fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..0x10_0000 => format!("{:.1} KiB", n as f64 / 1024.0),
        _ => format!("{:.1} MiB", n as f64 / f64::from(1 << 20)),
    }
}

fn count(n: impl TryInto<u64>, thing: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    let plural = match thing {
        _ if n == 1 => "",
        "switch" => "es",
        _ => "s",
    };
    format!("{n} {thing}{plural}")
}

/// The text without line breaks: some of it comes from other servers.
fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}
