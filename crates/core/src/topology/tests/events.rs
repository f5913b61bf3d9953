//! When a Sentinel is asked less often because its events arrive, and when no longer.
use super::*;

fn pong(b: &mut Bench, port: u16) {
    b.sentinel(port, Seen::Listening(Ok(())));
}

fn flags(b: &mut Bench, port: u16, stage: Stage) {
    b.sentinel(port, Seen::Flags(View { stage, ..seen_view(11) }.flags()));
}

fn event(event: &str, stage: Option<Stage>) -> Seen {
    Seen::Announced(Announced { event: event.into(), stage, selected: None, vote: None })
}

/// A calm deployment whose Sentinels' events arrive.
fn listening() -> Bench {
    let mut b = calm();
    (1..=3).for_each(|s| pong(&mut b, s));
    assert_eq!(b.paces(), [(TargetKind::Sentinel, Pace::Relaxed); 3]);
    b
}

/// Time passes while all answer.
fn quiet(b: &mut Bench, d: Duration) {
    b.pass_with(d, |b| {
        (1..=3).for_each(|s| pong(b, s));
        ready(b);
    });
}

#[test]
fn a_sentinel_is_asked_less_often_as_long_as_its_events_connection_answers() {
    let mut b = listening();
    quiet(&mut b, 5000 * MS);
    assert_eq!(b.paces(), []);
    b.sentinel(2, Seen::Listening(Err("closed the connection".into())));
    assert_eq!(b.paces(), [(TargetKind::Sentinel, Pace::Usual)]);
    pong(&mut b, 2);
    assert_eq!(b.paces(), [(TargetKind::Sentinel, Pace::Relaxed)]);
    // One that is silent, and has not been found out to be gone.
    b.pass_with(3000 * MS, |b| {
        (1..=2).for_each(|s| pong(b, s));
        ready(b);
    });
    assert_eq!(b.paces(), [(TargetKind::Sentinel, Pace::Usual)]);
}

#[test]
fn while_something_goes_on_all_are_asked_often_whatever_is_announced() {
    let mut b = listening();
    b.sentinel(1, event("+try-failover", Some(Stage::Tries)));
    assert!(b.paces().iter().filter(|p| **p == (TargetKind::Sentinel, Pace::Hurried)).count() == 3);
    flags(&mut b, 1, Stage::Acts);
    flags(&mut b, 1, Stage::Calm);
    b.paces();
    quiet(&mut b, 1000 * MS);
    assert!(b.serves(11), "{}", b.view().why);
    let relaxed = b.paces().into_iter().filter(|p| *p == (TargetKind::Sentinel, Pace::Relaxed));
    assert_eq!(relaxed.count(), 3, "it was announced");
}

#[test]
fn what_polls_show_and_no_event_announced_ends_the_trust_in_them_for_a_minute() {
    let mut b = listening();
    flags(&mut b, 1, Stage::Suspects);
    let told = b.stories(EventKind::Note);
    assert!(told.len() == 1 && told[0].contains("127.0.0.1:1 had not announced"), "{told:?}");
    flags(&mut b, 1, Stage::Calm);
    b.paces();
    quiet(&mut b, 50_000 * MS);
    assert_eq!(b.paces(), [], "the two others are relaxed already");
    quiet(&mut b, 11_000 * MS);
    assert_eq!(b.paces(), [(TargetKind::Sentinel, Pace::Relaxed)]);
    // The same with an epoch.
    let epoch = |b: &mut Bench, epoch| b.sentinel(1, Seen::Flags(View { epoch, ..seen_view(11) }.flags()));
    b.sentinel(1, event("+switch-master", None));
    epoch(&mut b, 6);
    assert_eq!(b.stories(EventKind::Note).len(), 0, "this one was announced");
    b.pass(1100 * MS);
    pong(&mut b, 1);
    epoch(&mut b, 7);
    assert_eq!(b.stories(EventKind::Note).len(), 1);
}

#[test]
fn while_a_sentinel_is_out_of_sight_the_others_are_asked_as_usual() {
    let mut b = listening();
    b.pass_with(1500 * MS, |b| {
        (1..=2).for_each(|s| pong(b, s));
        ready_but(b, 3);
    });
    let paces = b.paces();
    assert_eq!(paces.iter().filter(|p| **p == (TargetKind::Sentinel, Pace::Usual)).count(), 3, "{paces:?}");
    assert!(b.serves(11));
}
