use super::*;
use crate::clock;
use pointsman_core::topology::snapshot::{Endpoint, Term};
use pointsman_core::topology::story::{
    Granted as CoreGranted, Mark as CoreMark, MarkKind, Story as CoreStory,
};
use std::fs;
use std::io::Write;
use std::path::Path;

const SERVICE: ServiceId = ServiceId(3);
const SIZE: u64 = 256 << 10;

fn node(n: u8) -> Option<Endpoint> {
    Some(Endpoint::Tcp(([10, 0, 0, n], 6379).into()))
}

fn event(kind: EventKind, text: &str, story: Option<CoreStory>) -> Event {
    Event {
        service: SERVICE,
        name: "cache".into(),
        at: clock::now(),
        kind,
        term: Term(2),
        master: node(2),
        text: text.into(),
        story: story.map(Arc::new),
        lost: None,
    }
}

fn story(began: Now) -> CoreStory {
    let mark = |kind, ms: u64| CoreMark {
        kind,
        at: began + Duration::from_micros(1500 * ms),
        by: "Sentinel 10.0.0.11:26379".into(),
        text: "+odown".into(),
    };
    let granted = |term, n| CoreGranted { term: Term(term), master: node(n), epoch: Some(term) };
    CoreStory {
        began,
        from: granted(1, 1),
        to: granted(2, 2),
        marks: vec![mark(MarkKind::Sign, 0), mark(MarkKind::Hold, 1), mark(MarkKind::Released, 3)],
        left_out: 0,
        behind: None,
    }
}

fn no_counts() -> Look {
    Box::new(BTreeMap::new)
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn at(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("events.jsonl")
}

fn start(path: &Path) -> Arc<Journal> {
    Journal::start(no_counts(), Some((path.to_owned(), SIZE))).expect("threads")
}

fn texts(journal: &Journal) -> Vec<String> {
    journal.events(0).into_iter().map(|l| l.text).collect()
}

#[test]
fn a_story_that_is_over_has_the_counts_since_before_its_first_sign() {
    let counted = Arc::new(Mutex::new(Counters { held: 100, uncertain: 7, ..Counters::default() }));
    let (counters, looks) = (counted.clone(), Arc::new(AtomicU64::new(0)));
    let looked = looks.clone();
    let look = move || {
        looked.fetch_add(1, Ordering::Relaxed);
        BTreeMap::from([(SERVICE, counters.lock().expect("nobody panicked").clone())])
    };
    let journal = Journal::start(Box::new(look), None).expect("threads");
    until("the first look is over", || (looks.load(Ordering::Relaxed) > 0).then_some(()));
    thread::sleep(Duration::from_millis(5));
    let began = clock::now();
    // What a worker counts at the very sign, before anybody else knows of it.
    counted.lock().expect("nobody panicked").uncertain += 2;
    journal.tell(event(EventKind::Hold, "it holds", Some(story(began))));
    {
        let mut counted = counted.lock().expect("nobody panicked");
        (counted.held, counted.resent, counted.masterdown) = (130, 4, 1);
    }
    journal.tell(event(EventKind::Switch, "it switched", Some(story(began))));
    let line = until("the switch is told", || journal.events(0).into_iter().find(|l| l.kind == "switch"));
    let told = line.story.expect("a story");
    assert_eq!(told.counts, Some(Counts { held: 30, resent: 4, uncertain: 2, masterdown: 1 }));
    assert_eq!(line.text, "it switched; commands: 30 held, 4 sent again, 2 uncertain, 1 refused");
    assert_eq!((told.from.term, told.to.master.as_deref(), told.held_ms), (1, Some("10.0.0.2:6379"), 3.0));
    let marks: Vec<(&str, f64)> = told.marks.iter().map(|m| (&*m.mark, m.ms)).collect();
    assert_eq!(marks, [("sign", 0.0), ("hold", 1.5), ("released", 4.5)]);
    // The next story begins with what this one ended with.
    journal.tell(event(EventKind::Held, "it held", Some(story(clock::now()))));
    let line = until("the hold is told", || journal.events(0).into_iter().find(|l| l.kind == "held"));
    assert_eq!(line.story.and_then(|s| s.counts), Some(Counts::default()));
    let tally = journal.tally(SERVICE);
    assert_eq!((tally.holds, tally.held, tally.last.is_some()), (1, Duration::from_millis(6), true));
    journal.stop();
}

#[test]
fn a_story_that_is_over_when_the_process_ends_is_told_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = start(&at(&folder));
    journal.tell(event(EventKind::Switch, "the last word", Some(story(clock::now()))));
    journal.stop();
    drop(journal);
    let again = start(&at(&folder));
    let [line] = again.events(0).try_into().expect("one event");
    assert!(line.text.starts_with("the last word") && line.story.is_some(), "{line:?}");
    again.stop();
}

#[test]
fn events_survive_a_restart_and_their_numbers_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = start(&at(&folder));
    first.tell(event(EventKind::Hold, "one", Some(story(clock::now()))));
    first.tell(event(EventKind::Grant, "two", None));
    let (id, before) = (first.id(), first.events(0));
    first.stop();
    drop(first);
    let second = start(&at(&folder));
    assert_eq!((second.id(), second.events(0)), (id, before.clone()));
    second.tell(event(EventKind::Note, "three", None));
    assert_eq!(texts(&second), ["one", "two", "three"]);
    assert!(second.events(before[1].n).iter().map(|l| &*l.text).eq(["three"]));
    second.stop();
}

#[test]
fn a_line_that_was_cut_off_is_taken_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = start(&at(&folder));
    first.tell(event(EventKind::Hold, "whole", None));
    first.stop();
    drop(first);
    let mut file = fs::OpenOptions::new().append(true).open(at(&folder)).expect("the file");
    // Longer than what is read at once from the end.
    write!(file, "{{\"n\":2,\"text\":\"{}", "x".repeat(10_000)).expect("a disk");
    let second = start(&at(&folder));
    assert_eq!(texts(&second), ["whole"]);
    second.tell(event(EventKind::Hold, "next", None));
    second.stop();
    drop(second);
    let text = fs::read_to_string(at(&folder)).expect("the file");
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok()), "{text}");
    assert_eq!(texts(&start(&at(&folder))), ["whole", "next"]);
}

#[test]
fn the_file_is_bounded_and_the_newest_are_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut file, found) = EventsFile::open(&at(&folder), SIZE, 9, EVENTS_MAX).expect("a file");
    assert!(found.lines.is_empty());
    for n in 1..=2000 {
        file.append(&Line { n, text: "x".repeat(900), ..Line::default() }).expect("a disk");
    }
    drop(file);
    let all: u64 = fs::read_dir(folder.path())
        .expect("the folder")
        .map(|f| f.expect("a file").metadata().expect("its size").len())
        .sum();
    assert!(all <= SIZE && all > SIZE / 2, "{all}");
    let (again, found) = EventsFile::open(&at(&folder), SIZE, 10, EVENTS_MAX).expect("a file");
    assert_eq!((found.id, found.lines.last().map(|l| l.n)), (9, Some(2000)));
    let numbers: Vec<u64> = found.lines.iter().map(|l| l.n).collect();
    assert!(numbers.len() > 120 && numbers.windows(2).all(|w| w[1] == w[0] + 1), "{numbers:?}");
    drop(again);
    let (_, found) = EventsFile::open(&at(&folder), SIZE, 10, 5).expect("a file");
    assert_eq!(found.lines.iter().map(|l| l.n).collect::<Vec<_>>(), [1996, 1997, 1998, 1999, 2000]);
}

#[test]
fn whoever_moves_the_file_away_gets_a_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut file, _) = EventsFile::open(&at(&folder), SIZE, 9, EVENTS_MAX).expect("a file");
    file.append(&Line { n: 1, ..Line::default() }).expect("a disk");
    fs::rename(at(&folder), folder.path().join("mine")).expect("moved");
    file.append(&Line { n: 2, ..Line::default() }).expect("a disk");
    let text = fs::read_to_string(at(&folder)).expect("a new one");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn one_process_writes_and_another_does_without() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = start(&at(&folder));
    let second = start(&at(&folder));
    second.tell(event(EventKind::Hold, "in memory", None));
    assert_eq!(texts(&second), ["in memory"]);
    second.stop();
    first.stop();
    drop(first);
    assert!(texts(&start(&at(&folder))).is_empty());
}

#[test]
fn a_file_that_cannot_be_written_is_no_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = start(&folder.path().join("no such folder").join("events.jsonl"));
    journal.tell(event(EventKind::Hold, "told", None));
    assert_eq!(texts(&journal), ["told"]);
    journal.stop();
    // A disk that is full later on.
    let journal = Journal::start(no_counts(), Some((at(&folder), SIZE))).expect("threads");
    fs::remove_file(at(&folder)).expect("removed");
    fs::create_dir(at(&folder)).expect("a folder in its place");
    journal.tell(event(EventKind::Hold, "not written", None));
    until("it is counted", || (journal.unwritten() == 1).then_some(()));
    fs::remove_dir(at(&folder)).expect("removed");
    journal.tell(event(EventKind::Hold, "written again", None));
    journal.stop();
    drop(journal);
    assert_eq!(texts(&start(&at(&folder))), ["written again"]);
}

#[test]
fn the_newest_are_remembered_and_no_more() {
    let journal = Journal::start(no_counts(), None).expect("threads");
    for n in 0..EVENTS_MAX + 10 {
        journal.tell(event(EventKind::Note, &n.to_string(), None));
    }
    let told = texts(&journal);
    assert_eq!((told.len(), &*told[0]), (EVENTS_MAX, "10"));
    journal.stop();
}

#[test]
fn the_folder_is_the_given_one_or_that_of_the_system() {
    use pointsman_config::EventsFile as Setting;
    let place = |setting, dir: &'static str| place(&setting, &|_| Some(dir.to_owned()));
    assert_eq!(place(Setting::Off, "/var/lib/a"), None);
    assert_eq!(place(Setting::At("/e".into()), "/var/lib/a"), Some("/e".into()));
    assert_eq!(place(Setting::Auto, "/var/lib/a:/var/lib/b"), Some("/var/lib/a/events.jsonl".into()));
}

#[test]
fn the_reference_of_the_events_names_every_key_kind_and_mark() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/events.md");
    let page = fs::read_to_string(page).expect("the page");
    let mut event = event(EventKind::Lost, "x", Some(story(clock::now())));
    let node = "n".into();
    event.lost = Some(story::Lost { node, term: Term(1), kept_to: 1, wrote_to: 3, after: 1, exact: true });
    let line = serde_json::to_value(Line::new(&event, Some(Counts::default()))).expect("JSON");
    let mut all = Vec::new();
    let mut values = vec![&line];
    while let Some(value) = values.pop() {
        match value {
            serde_json::Value::Object(o) => {
                all.extend(o.keys().cloned());
                values.extend(o.values());
            }
            serde_json::Value::Array(a) => values.extend(a),
            _ => {}
        }
    }
    assert!(all.len() > 30, "{all:?}");
    all.extend(MarkKind::ALL.map(|m| m.label().to_owned()));
    for word in all {
        assert!(page.contains(&format!("`{word}`")), "docs/reference/events.md does not explain `{word}`");
    }
    let examples = page.split("```json\n").nth(1).and_then(|t| t.split("```").next()).expect("examples");
    for example in examples.lines() {
        let line: Line = serde_json::from_str(example).expect("an example is right");
        let again = serde_json::to_value(&line).expect("JSON");
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(example).expect("JSON"));
    }
}
