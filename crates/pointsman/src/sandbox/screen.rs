//! What a person sees of a run: one screen that is redrawn in place, or, without a terminal, a line a second.
use super::load::Stats;
use super::proxy::Status;
use std::collections::VecDeque;
use std::io::{self, IsTerminal, Stdout, Write, stdout};
use std::time::Duration;

/// How many of the latest events are shown and kept.
const EVENTS_MAX: usize = 12;
/// Between two drawings.
const REDRAW: Duration = Duration::from_millis(250);
const LINE: Duration = Duration::from_secs(1);

/// The other screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Everything that is shown at one moment.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Time since the start.
    pub elapsed: Duration,
    /// When it ends by itself.
    pub limit: Option<Duration>,
    /// Where the proxy listens.
    pub port: u16,
    /// The seed, with chaos.
    pub seed: Option<u64>,
    /// The proxy's status; what went wrong if it has none.
    pub status: Result<Status, String>,
    /// The name of the master's node.
    pub master: String,
    /// The figures of the load, if there is one.
    pub stats: Option<Stats>,
    /// Operations in the last second.
    pub rate: u64,
}

/// The screen. Dropping it gives the terminal back as it was.
#[derive(Debug)]
pub struct Screen {
    out: Stdout,
    terminal: bool,
    drawn: Option<Duration>,
    events: VecDeque<String>,
}

impl Screen {
    /// Takes standard output.
    pub fn open() -> io::Result<Self> {
        let (mut out, terminal) = (stdout(), stdout().is_terminal());
        if terminal {
            write!(out, "{ENTER}")?;
        }
        Ok(Self { out, terminal, drawn: None, events: VecDeque::new() })
    }

    /// Something happened.
    pub fn event(&mut self, at: Duration, what: &str) -> io::Result<()> {
        let line = format!("{:>7}  {what}", seconds(at));
        if !self.terminal {
            return writeln!(self.out, "{line}");
        }
        self.events.push_back(line);
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
        self.drawn = None;
        Ok(())
    }

    /// Shows it, if it is time to.
    pub fn draw(&mut self, frame: &Frame) -> io::Result<()> {
        let pause = if self.terminal { REDRAW } else { LINE };
        if self.drawn.is_some_and(|drawn| frame.elapsed < drawn + pause) {
            return Ok(());
        }
        self.drawn = Some(frame.elapsed);
        if !self.terminal {
            return writeln!(self.out, "{}", line(frame));
        }
        // Home, each line cleared to its end as it is written, and what is below the last.
        let mut text = "\x1b[H".to_owned();
        for line in page(frame).iter().chain(&self.events) {
            text += line;
            text += "\x1b[K\r\n";
        }
        write!(self.out, "{text}\x1b[J")?;
        self.out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal {
            let _ = write!(self.out, "{LEAVE}");
            let _ = self.out.flush();
        }
    }
}

/// `12.3 s`
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn line(frame: &Frame) -> String {
    let mut text = format!("{:>7}  ", seconds(frame.elapsed));
    match &frame.status {
        Ok(s) => {
            text += &format!(
                "{} master {} term {} writes {} reads {} held {}",
                s.state, frame.master, s.term, s.writes, s.reads, s.held
            );
        }
        Err(e) => text += &format!("no status ({e})"),
    }
    if let Some(stats) = &frame.stats {
        text += &format!(
            " | {} op/s, errors {}, uncertain {}, longest pause {}, lost {}",
            frame.rate,
            stats.error_count(),
            stats.uncertain,
            seconds(stats.longest_pause.0),
            stats.lost
        );
    }
    text
}

fn page(frame: &Frame) -> Vec<String> {
    let limit = frame.limit.map(|l| format!(" of {}", seconds(l))).unwrap_or_default();
    let seed = frame.seed.map(|s| format!("   chaos, seed {s}")).unwrap_or_default();
    let mut lines = vec![
        format!("pointsman sandbox   redis-cli -p {}   {}{limit}{seed}", frame.port, seconds(frame.elapsed)),
        String::new(),
    ];
    match &frame.status {
        Ok(s) => {
            lines.push(format!(
                "master      {} ({})",
                frame.master,
                s.master.as_deref().unwrap_or("none yet")
            ));
            lines.push(format!("term        {}", s.term));
            lines.push(format!("gates       writes {}, reads {}   {}", s.writes, s.reads, s.state));
            lines.push(format!("why         {}", s.why));
            lines.push(format!("held        {}", s.held));
        }
        Err(e) => lines.push(format!("no status: {e}")),
    }
    if let Some(stats) = &frame.stats {
        let (pause, at) = stats.longest_pause;
        lines.push(format!("operations  {} per second", frame.rate));
        lines.push(format!("            {} writes acknowledged, {} reads", stats.writes, stats.reads));
        lines.push(format!("errors      {}", with_kinds(stats)));
        lines.push(format!("uncertain   {}", stats.uncertain));
        lines.push(format!("pause       {} at most, at {}", seconds(pause), seconds(at)));
        lines.push(format!("lost        {} so far", stats.lost));
    }
    lines.push(String::new());
    lines
}

/// `3 (closed 1, OOM 2)`
pub fn with_kinds(stats: &Stats) -> String {
    if stats.errors.is_empty() {
        return "0".into();
    }
    let kinds: Vec<String> = stats.errors.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
    format!("{} ({})", stats.error_count(), kinds.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        let status = Status {
            state: "holding".into(),
            term: 3,
            master: Some("127.0.0.1:7001".into()),
            writes: "hold".into(),
            reads: "open".into(),
            held: 17,
            why: "node-1 is gone".into(),
        };
        let stats = Stats {
            writes: 1000,
            reads: 500,
            errors: [("OOM".to_owned(), 2), ("closed".to_owned(), 1)].into(),
            uncertain: 4,
            longest_pause: (Duration::from_millis(2_340), Duration::from_secs(10)),
            lost: 5,
        };
        Frame {
            elapsed: Duration::from_millis(12_345),
            limit: Some(Duration::from_secs(60)),
            port: 6400,
            seed: Some(42),
            status: Ok(status),
            master: "node-2".into(),
            stats: Some(stats),
            rate: 1480,
        }
    }

    #[test]
    fn a_line_says_it_all() {
        assert_eq!(
            line(&frame()),
            " 12.3 s  holding master node-2 term 3 writes hold reads open held 17 | 1480 op/s, errors 3, \
             uncertain 4, longest pause 2.3 s, lost 5"
        );
        let dark = Frame { status: Err("refused".into()), stats: None, ..frame() };
        assert_eq!(line(&dark), " 12.3 s  no status (refused)");
    }

    #[test]
    fn the_page_says_how_to_join_and_which_errors_there_were() {
        let page = page(&frame()).join("\n");
        for part in
            ["redis-cli -p 6400", "12.3 s of 60.0 s", "seed 42", "node-2 (127.0.0.1:7001)", "node-1 is gone"]
        {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(page.contains("3 (OOM 2, closed 1)"), "{page}");
    }
}
