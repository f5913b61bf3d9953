//! What must hold of the stories that the topology machine tells, whatever happens.
use super::drive::Drive;
use pointsman_core::topology::status::{Event, EventKind};
use pointsman_core::topology::story::{MarkKind, Story};

/// Most marks of a story, with the ends of its holds.
const MARKS_MAX: usize = 128;

impl Drive {
    pub(super) fn check_story(&mut self, e: &Event) {
        if let Some(wrong) = wrong_with(e) {
            self.fail(format!("{wrong}, in the story of '{}': {:?}", e.kind.label(), e.story));
        }
    }
}

/// What is wrong with an event, or the story that it tells.
pub(crate) fn wrong_with(e: &Event) -> Option<&'static str> {
    use EventKind::{Down, Fence, Grant, Held, Hold, Release, Switch};
    let Some(s) = &e.story else {
        return matches!(e.kind, Switch | Held | Hold | Fence | Grant | Down).then_some("there is none");
    };
    let over = matches!(e.kind, Switch | Held);
    let rules = [
        (s.marks.first().is_none_or(|m| m.kind != MarkKind::Sign), "it does not begin with a sign"),
        (s.marks.first().is_some_and(|m| m.at != s.began), "it does not begin with its first mark"),
        (!s.marks.is_sorted_by_key(|m| m.at), "its marks are out of order"),
        (s.marks.last().is_some_and(|m| m.at > e.at), "it tells what has not happened yet"),
        (s.marks.len() > MARKS_MAX, "it is too long"),
        (!alternates(s), "a hold ends that did not begin, or begins twice"),
        (over && s.held_since().is_some(), "it is over, and a hold goes on"),
        (s.to.term != e.term && s.switched(), "it ends with another grant"),
        (s.switched() && !s.has(MarkKind::Proven), "a grant has no proof"),
        (e.kind == Switch && !s.has(MarkKind::Majority), "no majority names the master"),
        (e.kind == Held && (s.switched() || !s.has(MarkKind::Hold)), "it is no hold"),
        (e.kind == Release && s.held_since().is_some(), "it goes on after its release"),
    ];
    rules.into_iter().find_map(|(wrong, what)| wrong.then_some(what))
}

fn alternates(s: &Story) -> bool {
    let gates = s.marks.iter().filter(|m| matches!(m.kind, MarkKind::Hold | MarkKind::Released));
    gates.enumerate().all(|(i, m)| (m.kind == MarkKind::Hold) == (i % 2 == 0))
}
