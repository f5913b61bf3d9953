//! Writes the [`Story`] of each hold and switch while it happens, and says what a deposed master lost.
//!
//! The machine calls in at four places: `hear` before an observation is judged, `note_sign` for a worker's sign, `tell`
//! with each event, and `follow` when all conclusions are drawn. Nothing is decided by what is kept here.
use super::judge::Grant;
use super::machine::{Act, Topology};
use super::nodes::Key;
use super::observation::{Announced, Lineage, Report, Role, Seen, Stage, Target, TargetKind, View};
use super::settings::HostPort;
use super::snapshot::{Gate, Sign, Term};
use super::status::{Event, EventKind};
use super::story::{Granted, Lost, MarkKind, Story};
use super::view::endpoint;
use crate::Now;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// So long after its last mark a story without a switch is over, though a Sentinel still suspects somebody …
const QUIET: Duration = Duration::from_secs(5);
/// … and so long one that has not come to a hold.
const STALE: Duration = Duration::from_secs(60);
/// Most deposed masters of which it is watched what they lost; of more the oldest is given up.
const DEPOSED_MAX: usize = 4;
/// A deposed master that says nothing else for so long has lost what it has shown until then.
const SHOWN_FOR: Duration = Duration::from_secs(60);

/// What is being told.
#[derive(Default)]
pub(super) struct Teller {
    draft: Option<Draft>,
    /// Whom the present call heard.
    cause: Option<Target>,
    deposed: Vec<Deposed>,
}

/// A story that is not over.
struct Draft {
    story: Story,
    /// The grant that stood when it began, with the greatest offset that its node has shown.
    old: Option<Grant>,
}

/// A master that was replaced, until it is known how much of it was lost.
struct Deposed {
    key: Key,
    term: Term,
    /// The process; `None`: not known.
    run_id: Option<Box<str>>,
    /// The history that it wrote.
    replid: Box<str>,
    /// Up to which offset its successor followed it.
    kept_to: u64,
    /// Up to which offset it had written when its successor was granted, if it was in sight then.
    wrote_before: Option<u64>,
    wrote_to: u64,
    /// Since when it has been seen again with that history.
    seen_since: Option<Now>,
    /// Whether it was the same process then, which shows all that it wrote. One that was started again has what was saved.
    whole: bool,
}

impl Draft {
    fn last_mark(&self) -> Now {
        self.story.marks.last().map_or(self.story.began, |m| m.at)
    }
}

impl Topology {
    /// Notes what an observation adds to the story. To be called before anything else is made of it.
    pub(super) fn hear(&mut self, now: Now, from: &Target, seen: &Seen) {
        self.teller.cause = Some(from.clone());
        match (from.kind, seen) {
            (TargetKind::Sentinel, Seen::Announced(a)) => self.hear_event(now, from, a),
            (TargetKind::Sentinel, Seen::View(v)) => self.hear_view(now, from, v),
            (TargetKind::Sentinel, Seen::Replicas(list)) => {
                let known = self.sentinels().and_then(|s| s.map.get(&from.at));
                let acts = known.is_some_and(|s| s.stage == Stage::Acts);
                if let Some(l) = list.iter().find(|l| l.selected && acts) {
                    self.mark(MarkKind::Selected, now, &l.at.to_string());
                }
            }
            (TargetKind::Node, Seen::Report(r)) => self.hear_report(now, &from.at, r),
            _ => {}
        }
    }

    fn hear_event(&mut self, now: Now, from: &Target, a: &Announced) {
        let Some(stage) = a.stage else { return };
        self.hear_stage(now, from, stage, &a.event, &*a.event == "+odown");
        if let Some(node) = &a.selected {
            self.mark(MarkKind::Selected, now, &node.to_string());
        }
    }

    fn hear_view(&mut self, now: Now, from: &Target, v: &View) {
        let word = match v.stage {
            Stage::Suspects => "s_down",
            Stage::Tries if v.forced => "it was ordered to fail over",
            Stage::Tries => "o_down",
            Stage::Acts if v.forced => "it was ordered to fail over",
            _ => "failover_in_progress",
        };
        self.hear_stage(now, from, v.stage, word, v.stage == Stage::Tries && !v.forced);
    }

    /// A counted Sentinel is at this stage, by its event or flag `word`.
    fn hear_stage(&mut self, now: Now, from: &Target, to: Stage, word: &str, odown: bool) {
        let known = self.sentinels().and_then(|s| s.map.get(&from.at)).filter(|s| s.counted);
        let Some(before) = known.map(|s| s.stage) else { return };
        let rises = to != Stage::Promoted && (to > before || (before == Stage::Promoted && to > Stage::Calm));
        if rises {
            self.begin_story(now, now, word);
        }
        if odown {
            self.mark(MarkKind::Odown, now, word);
        }
        if rises && to == Stage::Acts {
            self.mark(MarkKind::Elected, now, word);
        }
    }

    fn hear_report(&mut self, now: Now, at: &HostPort, r: &Report) {
        let key = self.nodes.key(at);
        self.hear_deposed(now, &key, r);
        if let Some(old) = self.teller.draft.as_mut().and_then(|d| d.old.as_mut()).filter(|o| o.key == key) {
            if old.lineage.as_ref().zip(r.lineage.as_ref()).is_some_and(|(a, b)| a.replid == b.replid) {
                old.offset = old.offset.max(r.offset);
            }
        }
        let drafted = self.teller.draft.as_ref().and_then(|d| d.old.as_ref());
        let Some(old) = drafted.or(self.grant.as_ref()).or(self.last.as_ref()) else { return };
        let promoted = r.role == Role::Master && !r.loading && out_of(r.lineage.as_ref(), old);
        let known = self.nodes.map.get(at).is_some_and(|n| n.says_master());
        if promoted && !known && old.key != key && self.grant.as_ref().is_none_or(|g| g.key != key) {
            self.begin_story(now, now, "it says that it is master");
            self.mark(MarkKind::Promoted, now, &key.to_string());
        }
    }

    /// A worker saw a sign.
    pub(super) fn note_sign(&mut self, now: Now, sign: &Sign) {
        let unproven = self.grant.as_ref().is_some_and(|g| g.proven_at <= sign.at);
        if self.teller.draft.is_none() && unproven && sign.term == self.term {
            self.begin_story(now, sign.at, sign.kind.label());
            if let Some(mark) = self.teller.draft.as_mut().and_then(|d| d.story.marks.first_mut()) {
                mark.by = "worker".into();
            }
        }
    }

    /// A story begins with this sign, given by whoever was heard, unless one is being told.
    fn begin_story(&mut self, now: Now, at: Now, sign: &str) {
        if self.teller.draft.is_some() {
            return;
        }
        let old = self.grant.clone().or_else(|| self.last.clone());
        let from = self.granted(old.as_ref());
        let story = Story {
            began: at.min(now),
            to: from.clone(),
            from,
            marks: Vec::new(),
            left_out: 0,
            behind: None,
        };
        self.teller.draft = Some(Draft { story, old });
        self.mark(MarkKind::Sign, at.min(now), sign);
    }

    fn granted(&self, grant: Option<&Grant>) -> Granted {
        let epoch = self.sentinels().and(grant).map(|g| g.epoch);
        Granted { term: self.term, master: grant.and_then(|g| endpoint(&g.key)), epoch }
    }

    /// Adds a mark by whoever was heard to the story that is being told, if there is one.
    fn mark(&mut self, kind: MarkKind, at: Now, text: &str) {
        let by = self.teller.cause.as_ref().map_or_else(|| "pointsman".into(), Target::to_string);
        if let Some(d) = &mut self.teller.draft {
            d.story.mark(kind, at, &by, text);
        }
    }

    /// Tells an event, with the story as far as it has come.
    pub(super) fn tell(&mut self, now: Now, kind: EventKind, text: String) {
        let mark = match kind {
            EventKind::Hold => Some(MarkKind::Hold),
            EventKind::Fence => Some(MarkKind::Fenced),
            EventKind::Down => Some(MarkKind::Down),
            EventKind::Release => Some(MarkKind::Released),
            EventKind::Grant => None,
            _ => return self.push(now, kind, text, None, None),
        };
        if kind != EventKind::Release {
            self.begin_story(now, now, &text);
        }
        match mark {
            Some(mark) => self.mark(mark, now, &text),
            None => self.mark_grant(now),
        }
        let story = self.teller.draft.as_ref().map(|d| Arc::new(d.story.clone()));
        self.push(now, kind, text, story, None);
    }

    fn push(
        &mut self,
        now: Now,
        kind: EventKind,
        text: String,
        story: Option<Arc<Story>>,
        lost: Option<Lost>,
    ) {
        self.acts.push_back(Act::Story(Event {
            service: self.settings.id,
            name: self.settings.name.clone(),
            at: now,
            kind,
            term: self.term,
            master: self.grant.as_ref().and_then(|g| endpoint(&g.key)),
            text: text.into(),
            story,
            lost,
        }));
    }

    /// A grant has begun.
    fn mark_grant(&mut self, now: Now) {
        let Some(grant) = &self.grant else { return };
        let (to, by_majority) = (self.granted(Some(grant)), grant.provisional.is_none());
        let (key, lineage) = (grant.key.clone(), grant.lineage.clone());
        let (how, by_majority) = (self.serving.clone(), by_majority && self.sentinels().is_some());
        self.mark(MarkKind::Proven, now, &how);
        if by_majority {
            self.mark(MarkKind::Majority, now, &how);
        }
        self.teller.deposed.retain(|d| d.key != key);
        let Some(draft) = &mut self.teller.draft else { return };
        draft.story.to = to;
        let Some(old) = draft.old.as_ref().filter(|o| o.key != key && out_of(lineage.as_ref(), o)) else {
            draft.story.behind = None;
            return;
        };
        let (Some(ours), Some(theirs)) = (&old.lineage, &lineage) else { return };
        let oldest = now - (self.settings.timeout + self.settings.interval);
        let told = self.nodes.find(&old.key).and_then(|(_, n)| n.told.as_ref());
        let in_sight = told.is_some_and(|t| t.sent >= oldest);
        let kept_to = u64::try_from(theirs.second_offset).unwrap_or(0).saturating_sub(1);
        draft.story.behind = Some(old.offset.saturating_sub(kept_to));
        let deposed = Deposed {
            key: old.key.clone(),
            term: draft.story.from.term,
            run_id: old.identity.as_ref().and_then(|i| i.run_id.clone()),
            replid: ours.replid.clone(),
            kept_to,
            wrote_before: in_sight.then_some(old.offset),
            wrote_to: old.offset,
            seen_since: None,
            whole: false,
        };
        self.teller.deposed.retain(|d| d.key != deposed.key);
        if self.teller.deposed.len() >= DEPOSED_MAX {
            self.teller.deposed.remove(0);
        }
        self.teller.deposed.push(deposed);
    }

    /// Notes what the conclusions of this call add to the story, and ends it when it is over.
    pub(super) fn follow(&mut self, now: Now) {
        let open = self.published.writes.is_open();
        let held = self.teller.draft.as_ref().is_some_and(|d| d.story.held_since().is_some());
        let full = self.teller.draft.as_ref().is_some_and(|d| d.story.is_full());
        match self.published.writes {
            Gate::Open if held => self.mark(MarkKind::Released, now, &self.published.why.clone()),
            Gate::Hold { since, .. } if !held && !full => {
                let why = self.published.why.clone();
                // A hold that a story did not begin with began when it was seen.
                let at = if self.teller.draft.is_some() { now } else { since.min(now) };
                self.begin_story(now, at, &why);
                self.mark(MarkKind::Hold, at, &why);
            }
            _ => {}
        }
        if open {
            self.end_story(now);
        }
        self.teller.cause = None;
        self.end_deposed(now);
    }

    fn end_story(&mut self, now: Now) {
        let named = self.grant.as_ref().is_some_and(|g| g.provisional.is_none());
        let Some(draft) = &self.teller.draft else { return };
        let story = &draft.story;
        let calm = !self.sentinels().is_some_and(|s| {
            s.counted().any(|(_, s)| !s.dead() && (Stage::Suspects..=Stage::Acts).contains(&s.stage))
        });
        let quiet = now.since(draft.last_mark());
        let (over, kind) = match (story.switched(), story.has(MarkKind::Hold)) {
            (true, _) => (named, EventKind::Switch),
            (false, true) => (calm || quiet >= QUIET, EventKind::Held),
            (false, false) => (quiet >= if calm { QUIET } else { STALE }, EventKind::Note),
        };
        if !over {
            return;
        }
        if kind == EventKind::Switch && self.sentinels().is_some() && !story.has(MarkKind::Majority) {
            self.mark(MarkKind::Majority, now, &self.serving.clone());
        }
        let Some(Draft { mut story, .. }) = self.teller.draft.take() else { return };
        // What is not named by a majority yet has a lower bound of its epoch.
        if story.switched() {
            story.to = self.granted(self.grant.as_ref());
        }
        let began = story.from.master.is_some();
        if kind == EventKind::Held || (kind == EventKind::Switch && began) {
            let text = story.line();
            self.push(now, kind, text, Some(Arc::new(story)), None);
        }
    }

    /// A report of a deposed master shows how much of it was lost: what it wrote beyond that which its successor had.
    fn hear_deposed(&mut self, now: Now, key: &Key, r: &Report) {
        let Some(i) = self.teller.deposed.iter().position(|d| d.key == *key) else { return };
        let Some(lineage) = &r.lineage else { return };
        let d = &mut self.teller.deposed[i];
        let same = d.run_id.is_some() && d.run_id == r.run_id;
        if *lineage.replid == *d.replid {
            d.seen_since = d.seen_since.or(Some(now));
            d.whole |= same;
            d.wrote_to = d.wrote_to.max(r.offset);
            return;
        }
        // It has begun a history of its own, or follows its successor: nothing more of the old one will be seen. The old
        // one's end is kept as second by who goes on from there with what the successor has (replication.c, a partial
        // resynchronization), and by who was started again (server.c, loadDataFromDisk: of what it had saved).
        if lineage.replid2.as_deref() == Some(&*d.replid) {
            d.whole |= same;
            d.wrote_to = d.wrote_to.max(u64::try_from(lineage.second_offset - 1).unwrap_or(0));
        }
        let d = self.teller.deposed.remove(i);
        self.tell_lost(now, &d);
    }

    fn end_deposed(&mut self, now: Now) {
        let shown = |d: &Deposed| d.seen_since.is_some_and(|t| now.since(t) >= SHOWN_FOR);
        while let Some(i) = self.teller.deposed.iter().position(shown) {
            let d = self.teller.deposed.remove(i);
            self.tell_lost(now, &d);
        }
    }

    fn tell_lost(&mut self, now: Now, d: &Deposed) {
        let after = |before: u64| d.wrote_to.saturating_sub(before.max(d.kept_to));
        let lost = Lost {
            node: d.key.to_string(),
            term: d.term,
            kept_to: d.kept_to,
            wrote_to: d.wrote_to,
            after: d.wrote_before.map_or(0, after),
            exact: d.whole,
        };
        self.push(now, EventKind::Lost, format!("{lost}"), None, Some(lost));
    }
}

/// Whether this history continues that of the grant's node.
fn out_of(lineage: Option<&Lineage>, of: &Grant) -> bool {
    lineage.zip(of.lineage.as_ref()).is_some_and(|(theirs, ours)| theirs.succeeds(ours))
}
