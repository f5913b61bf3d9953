//! What a story cost the clients: the difference of the workers' counters from before its first sign until after its end.
//!
//! Workers count without knowing of stories. So a thread looks at their counters each second, and keeps the last look
//! from before a story until it is over: what a worker counted at the very sign belongs to it too.
use super::Look;
use super::line::Counts;
use crate::clock;
use pointsman_core::Now;
use pointsman_core::topology::snapshot::ServiceId;
use pointsman_core::topology::status::Event;
use pointsman_core::worker::Counters;
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often the counters are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many looks are kept: a first sign may be told of a while after it was seen.
const LOOKS_MAX: usize = 8;
/// How long after the end of a story its counts are read: what waited is let out in turns.
const SETTLE: Duration = Duration::from_millis(150);

/// What the thread is told.
pub(super) enum Told {
    /// A story of this service is under way that began then.
    Begun(ServiceId, Now),
    /// A story is over.
    Over(Event),
    /// No more is told.
    Stop,
}

/// One look: what was counted until then at least.
struct Seen {
    at: Now,
    counters: BTreeMap<ServiceId, Counters>,
}

/// The life of the thread: until it is told to stop, or nobody is left to tell it anything. What is over goes to `add`.
pub(super) fn run(told: &Receiver<Told>, look: &Look, add: &dyn Fn(Event, Option<Counts>)) {
    let mut book = Book::default();
    let mut next = Instant::now() + LOOK_EVERY;
    book.look(look);
    loop {
        let due = book.over.front().map_or(next, |(due, _)| next.min(*due));
        match told.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(Told::Begun(service, began)) => book.begin(service, began),
            Ok(Told::Over(event)) => book.over.push_back((Instant::now() + SETTLE, event)),
            Ok(Told::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = Instant::now();
        if now >= next || book.over.front().is_some_and(|(due, _)| now >= *due) {
            book.look(look);
            next = now + LOOK_EVERY;
        }
        book.close(now, add);
    }
    if let Some((last, _)) = book.over.back() {
        let last = *last;
        book.look(look);
        book.close(last, add);
    }
}

#[derive(Default)]
struct Book {
    looks: VecDeque<Seen>,
    /// What each story that is under way began with, and when that was.
    begun: BTreeMap<ServiceId, (Now, Counters)>,
    /// Stories that are over, and when their counts may be read.
    over: VecDeque<(Instant, Event)>,
}

impl Book {
    fn look(&mut self, look: &Look) {
        let counters = look();
        if self.looks.len() >= LOOKS_MAX {
            self.looks.pop_front();
        }
        self.looks.push_back(Seen { at: clock::now(), counters });
    }

    /// Hands on the stories whose counts may be read at `now`.
    fn close(&mut self, now: Instant, add: &dyn Fn(Event, Option<Counts>)) {
        while self.over.front().is_some_and(|(due, _)| now >= *due) {
            let Some((_, event)) = self.over.pop_front() else { return };
            let counts = self.end(&event);
            add(event, counts);
        }
    }

    /// The counters before `began`, or as long before as looks are kept.
    fn before(&self, service: ServiceId, began: Now) -> Counters {
        let seen = self.looks.iter().rev().find(|s| s.at < began).or(self.looks.front());
        seen.and_then(|s| s.counters.get(&service)).cloned().unwrap_or_default()
    }

    fn begin(&mut self, service: ServiceId, began: Now) {
        if self.begun.get(&service).is_none_or(|(known, _)| *known < began) {
            let before = self.before(service, began);
            self.begun.insert(service, (began, before));
        }
    }

    fn end(&mut self, event: &Event) -> Option<Counts> {
        let story = event.story.as_ref()?;
        self.begin(event.service, story.began);
        let (_, before) = self.begun.remove(&event.service)?;
        let after = self.looks.back()?.counters.get(&event.service)?;
        Some(Counts::between(&before, after))
    }
}
