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

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::topology::snapshot::Term;
    use pointsman_core::topology::status::EventKind;
    use pointsman_core::topology::story::{Granted, Story};
    use std::sync::Arc;

    const SERVICE: ServiceId = ServiceId(3);

    fn seen(ms: u64, uncertain: u64) -> Seen {
        let counters = BTreeMap::from([(SERVICE, Counters { uncertain, ..Counters::default() })]);
        Seen { at: Now::from_millis(ms), counters }
    }

    fn over(began: u64) -> Event {
        let story = Story {
            began: Now::from_millis(began),
            from: Granted::default(),
            to: Granted::default(),
            marks: Vec::new(),
            left_out: 0,
            behind: None,
        };
        Event {
            service: SERVICE,
            name: "cache".into(),
            at: Now::from_millis(began),
            kind: EventKind::Switch,
            term: Term(2),
            master: None,
            text: "".into(),
            story: Some(Arc::new(story)),
            lost: None,
        }
    }

    fn uncertain(book: &mut Book, began: u64) -> u64 {
        book.end(&over(began)).expect("there were looks").uncertain
    }

    #[test]
    fn a_story_has_what_was_counted_since_its_sign_however_late_that_is_told() {
        let mut book = Book::default();
        book.looks.extend([seen(1000, 1), seen(2000, 3), seen(3000, 5)]);
        book.begin(SERVICE, Now::from_millis(1500));
        // Later looks change nothing about where it began.
        book.looks = VecDeque::from([seen(9000, 7), seen(10_000, 8)]);
        assert_eq!(uncertain(&mut book, 1500), 7);
        // One whose beginning was not told, and one that began before everything that is known.
        assert_eq!(uncertain(&mut book, 9500), 1);
        assert_eq!(uncertain(&mut book, 500), 1);
        // One that came to nothing does not date the next.
        book.begin(SERVICE, Now::from_millis(9500));
        assert_eq!(uncertain(&mut book, 11_000), 0);
    }
}
