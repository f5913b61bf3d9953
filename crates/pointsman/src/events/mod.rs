//! The journal: every event of every service, in the log, in memory and in a file.
//!
//! ```text
//!  control ──event──▶ Journal::tell ──▶ log · the newest events · tallies      (at once, never waits)
//!                        │      └─line─▶ thread "events-file" ─▶ file
//!                        └─a story that is over─▶ thread "events": waits for the workers' counts, then as above
//! ```
//! Events reach the file later than the memory, and may be missing there: whoever writes to a slow disk delays nobody.
mod counts;
mod file;
mod line;

pub use file::place;
pub use line::{Counts, Granted, Line, Lost, Mark, Story};

use counts::Told;
use file::EventsFile;
use pointsman_core::Now;
use pointsman_core::topology::snapshot::ServiceId;
use pointsman_core::topology::status::{Event, EventKind};
use pointsman_core::topology::story;
use pointsman_core::worker::Counters;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

/// How many events are remembered.
const EVENTS_MAX: usize = 1000;
/// Messages that may wait for each of the two threads.
const QUEUE_MAX: usize = 1024;
/// How long the end waits for the threads: a disk may hang.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Takes events. Must not block.
pub trait Teller: Send + Sync {
    /// Something happened.
    fn tell(&self, event: Event);
}

/// How the workers' counters are read, summed over the workers.
pub type Look = Box<dyn Fn() -> BTreeMap<ServiceId, Counters> + Send>;

/// The sum of a service's stories, since the start.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// When its state last changed.
    pub since: Option<Now>,
    /// Holds that began.
    pub holds: u64,
    /// For how long writes were held, of the stories that are over.
    pub held: Duration,
    /// The newest switch, and when it was over, by the wall clock.
    pub last: Option<(Arc<story::Story>, SystemTime)>,
    /// Bytes of old masters' replication streams that their successors do not have: written before, and after the switch.
    pub lost: (u64, u64),
}

/// The journal.
pub struct Journal {
    kept: Arc<Kept>,
    stories: SyncSender<Told>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What is remembered.
struct Kept {
    newest: Mutex<Newest>,
    id: u64,
    file: Option<SyncSender<Option<Line>>>,
    unwritten: Arc<AtomicU64>,
}

struct Newest {
    /// The number of the next event.
    next: u64,
    lines: VecDeque<Line>,
    tallies: BTreeMap<ServiceId, Tally>,
}

impl Journal {
    /// Begins, or goes on with what `file` has. A file that cannot be used is a warning: the journal does without.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(look: Look, file: Option<(PathBuf, u64)>) -> io::Result<Arc<Journal>> {
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (mut newest, mut id) = (Newest::default(), began.as_micros() as u64);
        let mut threads = Vec::new();
        let unwritten = Arc::new(AtomicU64::new(0));
        let mut to_file = None;
        if let Some((path, size_max)) = file {
            match EventsFile::open(&path, size_max, id, EVENTS_MAX) {
                Ok((file, found)) => {
                    id = found.id;
                    // Those that did not come to the file had numbers too.
                    newest.next = found.lines.last().map_or(1, |l| l.n + QUEUE_MAX as u64);
                    newest.lines = found.lines.into();
                    let (sender, lines) = sync_channel(QUEUE_MAX);
                    let unwritten = unwritten.clone();
                    threads.push(
                        thread::Builder::new()
                            .name("events-file".into())
                            .spawn(move || write(file, &lines, &unwritten))?,
                    );
                    to_file = Some(sender);
                }
                Err(e) => tracing::warn!("events are not kept: {} cannot be used: {e}", path.display()),
            }
        }
        let kept = Arc::new(Kept { newest: Mutex::new(newest), id, file: to_file, unwritten });
        let (stories, told) = sync_channel(QUEUE_MAX);
        let to = kept.clone();
        threads.push(
            thread::Builder::new()
                .name("events".into())
                .spawn(move || counts::run(&told, &look, &|event, counts| to.add(event, counts)))?,
        );
        Ok(Arc::new(Journal { kept, stories, threads: Mutex::new(threads) }))
    }

    /// Tells one sequence of numbers from the next: with a file it stays the same across restarts.
    pub fn id(&self) -> u64 {
        self.kept.id
    }

    /// The newest events, oldest first: those with a number greater than `after`, as far as they are still kept.
    pub fn events(&self, after: u64) -> Vec<Line> {
        self.kept.newest().lines.iter().filter(|l| l.n > after).cloned().collect()
    }

    /// The sum of a service's stories.
    pub fn tally(&self, service: ServiceId) -> Tally {
        self.kept.newest().tallies.get(&service).cloned().unwrap_or_default()
    }

    /// Events that are not in the file, because it could not be written or not fast enough.
    pub fn unwritten(&self) -> u64 {
        self.kept.unwritten.load(Ordering::Relaxed)
    }

    /// Writes what waits, for a second at most. What is told later is not written.
    pub fn stop(&self) {
        let _ = self.stories.try_send(Told::Stop);
        let until = Instant::now() + STOP_PATIENCE;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // The one that counts is the last, and tells the file's what it has.
        for thread in threads.into_iter().rev() {
            while !thread.is_finished() && Instant::now() < until {
                thread::sleep(Duration::from_millis(5));
            }
            if let Some(file) = &self.kept.file {
                let _ = file.try_send(None);
            }
        }
    }
}

impl Teller for Journal {
    fn tell(&self, event: Event) {
        self.kept.tally(&event);
        let told = match event.kind {
            EventKind::Switch | EventKind::Held => Told::Over(event),
            _ => {
                let began = event.story.as_ref().map(|s| Told::Begun(event.service, s.began));
                self.kept.add(event, None);
                match began {
                    Some(began) => began,
                    None => return,
                }
            }
        };
        // Whoever counts is far behind: then without counts.
        if let Err(e) = self.stories.try_send(told) {
            let (std::sync::mpsc::TrySendError::Full(told)
            | std::sync::mpsc::TrySendError::Disconnected(told)) = e;
            if let Told::Over(event) = told {
                self.kept.add(event, None);
            }
        }
    }
}

impl Kept {
    fn newest(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self, event: &Event) {
        use EventKind::{Down, Fence, Grant, Held, Hold, Lost, Release, Switch};
        let mut newest = self.newest();
        let tally = newest.tallies.entry(event.service).or_default();
        if matches!(event.kind, Down | Fence | Grant | Hold | Release) {
            tally.since = Some(event.at);
        }
        tally.holds += u64::from(event.kind == Hold);
        match (event.kind, &event.story, &event.lost) {
            (Switch | Held, Some(story), _) => {
                tally.held += story.held();
                if event.kind == Switch {
                    tally.last = Some((story.clone(), SystemTime::now()));
                }
            }
            (Lost, _, Some(lost)) => {
                tally.lost.0 += lost.bytes().saturating_sub(lost.after);
                tally.lost.1 += lost.after;
            }
            _ => {}
        }
    }

    /// One line in the log, one in memory, and one on its way to the file.
    fn add(&self, event: Event, counts: Option<Counts>) {
        let mut line = Line::new(&event, counts);
        crate::log::story(&event, &line.text);
        let mut newest = self.newest();
        line.n = newest.next;
        newest.next += 1;
        if newest.lines.len() >= EVENTS_MAX {
            newest.lines.pop_front();
        }
        newest.lines.push_back(line.clone());
        // Sent in the order of the numbers.
        if self.file.as_ref().is_some_and(|file| file.try_send(Some(line)).is_err()) {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Default for Newest {
    fn default() -> Newest {
        Newest { next: 1, lines: VecDeque::new(), tallies: BTreeMap::new() }
    }
}

/// The life of the thread that writes the file: until it is told `None`, or nobody is left to tell it anything.
fn write(mut file: EventsFile, lines: &Receiver<Option<Line>>, unwritten: &AtomicU64) {
    let mut failing = false;
    while let Ok(Some(line)) = lines.recv() {
        match file.append(&line) {
            Ok(()) => failing = false,
            Err(e) => {
                unwritten.fetch_add(1, Ordering::Relaxed);
                // Once, and not for each line.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!("events are not written to {}: {e}", file.path().display());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
