//! The log: one line per event, on stderr. Writing is left to a thread of its own, behind a bounded queue: whoever logs
//! never waits, not even for a stderr that nobody reads. Lines for which the queue has no room are dropped, counted, and
//! their number is said before the next line that is written.
use pointsman_config::LogFormat;
use pointsman_core::topology::status::{Event, EventKind};
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// Most lines that wait to be written.
const LINES_MAX: usize = 4096;

/// What our crates' names begin with.
const OURS: &str = "pointsman";

/// Keeps the log alive. When it is dropped, what waits is written, for at most a second or so.
pub struct Guard {
    dropped: ErrorCounter,
    filter: reload::Handle<Targets, Registry>,
    _writer: WorkerGuard,
}

impl Guard {
    /// Changes the least important level that is written; what is not a level changes nothing.
    pub fn set_level(&self, level: &str) {
        if let Some(filter) = filter(level) {
            // It fails only when the subscriber is gone, and there is no log then.
            let _ = self.filter.reload(filter);
        }
    }

    /// How many lines were dropped because nobody read stderr fast enough.
    pub fn dropped(&self) -> u64 {
        self.dropped.dropped_lines() as u64
    }
}

/// Starts the log. `level` is `error`, `warn`, `info`, `debug` or `trace` (else: `info`). Lines of others' crates are
/// written from `warn` on. Times are in UTC (RFC 3339).
///
/// # Panics
/// If the process has a log already.
pub fn init(level: &str, format: LogFormat) -> Guard {
    let dropped = Arc::new(OnceLock::new());
    let lines = Lines { out: io::stderr(), format, dropped: dropped.clone(), said: 0 };
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX)
        .thread_name("log")
        .finish(lines);
    let counter = dropped.get_or_init(|| writer.error_counter()).clone();
    let (filter, handle) = reload::Layer::new(filter(level).unwrap_or_default());
    let form = fmt::layer().with_writer(writer).with_ansi(false);
    let form = match format {
        LogFormat::Human => form.with_target(false).compact().boxed(),
        LogFormat::Json => {
            form.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(form).init();
    Guard { dropped: counter, filter: handle, _writer: guard }
}

fn filter(level: &str) -> Option<Targets> {
    let level: LevelFilter = level.parse().ok()?;
    Some(Targets::new().with_target(OURS, level).with_default(level.min(LevelFilter::WARN)))
}

/// Logs a change of a gate or a grant, and the rest of a service's story, with these words.
pub fn story(event: &Event, text: &str) {
    let master = event.master.as_ref().map(tracing::field::display);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                service = &*event.name,
                event = event.kind.label(),
                term = event.term.0,
                master,
                "{}",
                text
            )
        };
    }
    match event.kind {
        EventKind::Down => line!(error),
        EventKind::Hold | EventKind::Fence | EventKind::Era | EventKind::Warning | EventKind::Switch => {
            line!(warn)
        }
        EventKind::Lost if event.lost.as_ref().is_some_and(|l| !l.exact || l.bytes() > l.after) => {
            line!(warn)
        }
        EventKind::Grant | EventKind::Release | EventKind::Held | EventKind::Lost | EventKind::Note => {
            line!(info)
        }
    }
}

/// Writes lines, and says how many are missing.
struct Lines<W> {
    out: W,
    format: LogFormat,
    dropped: Arc<OnceLock<ErrorCounter>>,
    said: usize,
}

impl<W: Write> Lines<W> {
    fn say_what_is_missing(&mut self) -> io::Result<()> {
        let dropped = self.dropped.get().map_or(0, ErrorCounter::dropped_lines);
        let missing = dropped - self.said;
        if missing == 0 {
            return Ok(());
        }
        self.said = dropped;
        let text = format!("{missing} log lines are missing here: nobody read stderr fast enough");
        let mut time = String::new();
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let line = match self.format {
            LogFormat::Human => format!("{time} ERROR {text}\n"),
            LogFormat::Json => {
                format!("{}\n", serde_json::json!({ "timestamp": time, "level": "ERROR", "message": text }))
            }
        };
        self.out.write_all(line.as_bytes())
    }
}

impl<W: Write> Write for Lines<W> {
    /// Takes one line as a whole. Texts that come from other servers begin no line of their own.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.say_what_is_missing()?;
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let mut clean: Vec<u8> = text.iter().map(|b| if b.is_ascii_control() { b' ' } else { *b }).collect();
        clean.push(b'\n');
        self.out.write_all(&clean)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
