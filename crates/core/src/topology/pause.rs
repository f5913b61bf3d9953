//! Holds that are wanted: an operator's pause, and that of a switchover. They are on top of what the observations imply,
//! and end by themselves.
use super::machine::Topology;
use super::snapshot::Gate;
use super::status::EventKind;
use crate::Now;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

/// The longest pause that an operator can ask for.
pub const PAUSE_MAX: Duration = Duration::from_secs(600);

/// Who wants the service to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pauser {
    /// `pointsman pause`: for maintenance. Reads wait too.
    Operator,
    /// A switchover. Reads wait if they do at any other hold.
    Switchover,
}

/// A hold that is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pause {
    pub(super) since: Now,
    pub(super) until: Now,
    pub(super) by: Pauser,
    pub(super) why: Arc<str>,
}

impl Topology {
    /// Holds the service's commands for `span`, at most [`PAUSE_MAX`]. Said again, it counts from now.
    ///
    /// # Errors
    /// Why not: the other one holds it already.
    pub fn pause(&mut self, now: Now, by: Pauser, span: Duration) -> Result<(), String> {
        if let Some(p) = self.paused.as_ref().filter(|p| p.by != by) {
            return Err(format!("{} already", p.why));
        }
        let span = span.min(PAUSE_MAX);
        let why: Arc<str> = match by {
            Pauser::Operator => {
                format!("it is paused by an operator, for {} s at most", span.as_secs_f32()).into()
            }
            Pauser::Switchover => "a switchover goes on".into(),
        };
        let since = self.paused.take().map_or(now, |p| p.since);
        self.paused = Some(Pause { since, until: now + span, by, why: why.clone() });
        self.tell(now, EventKind::Hold, format!("{why}"));
        self.timeout(now);
        Ok(())
    }

    /// Ends the hold that `by` has asked for; for how long it lasted.
    ///
    /// # Errors
    /// There is none.
    pub fn resume(&mut self, now: Now, by: Pauser) -> Result<Duration, String> {
        let pause = self.paused.take_if(|p| p.by == by).ok_or("it is not paused")?;
        let span = now.since(pause.since);
        self.resumed(now, span, "");
        self.timeout(now);
        Ok(span)
    }

    /// Ends a pause whose time is over.
    pub(super) fn end_pause(&mut self, now: Now) {
        if let Some(pause) = self.paused.take_if(|p| now >= p.until) {
            self.resumed(now, now.since(pause.since), ": its time is over");
        }
    }

    fn resumed(&mut self, now: Now, span: Duration, why: &str) {
        let but = if self.held.is_some() { "; it holds on for want of a proven master" } else { "" };
        self.tell(now, EventKind::Release, format!("resumed after {} ms{why}{but}", span.as_millis()));
    }

    /// What the gates say while somebody wants the service to hold. Should nobody be there to open them at the end,
    /// workers wait for as long as at any other hold, and then refuse.
    pub(super) fn paused_gate(&self) -> Option<Gate> {
        let p = self.paused.as_ref()?;
        Some(Gate::Hold { since: p.since, until: p.until + self.hold_max() })
    }

    /// Whether an operator has paused the service, and until when at most.
    pub(super) fn paused_until(&self) -> Option<Now> {
        self.paused.as_ref().filter(|p| p.by == Pauser::Operator).map(|p| p.until)
    }

    /// Whether `by` wants the service to hold.
    pub fn paused_by(&self, by: Pauser) -> bool {
        self.paused.as_ref().is_some_and(|p| p.by == by)
    }

    /// Whether a switchover holds the service.
    pub(super) fn is_switching(&self) -> bool {
        self.paused_by(Pauser::Switchover)
    }
}
