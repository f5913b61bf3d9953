//! Whether a Sentinel's events arrive: as long as they do, it is asked for its flags less often.
//!
//! Events make us fast, and polls make us right: an event closes the gate at once, and a poll does if the event was lost.
//! So while a Sentinel's events are known to arrive its polls become fewer, and never end. They are known to arrive while
//! their connection answers its pings, and as long as an event has announced whatever the polls showed.
use super::observation::{Announced, Stage};
use crate::Now;
use alloc::sync::Arc;
use core::time::Duration;

/// Without an answer on their connection for so long, events may be lost. It is pinged each second (`observe::events`).
const ANSWERED_WITHIN: Duration = Duration::from_millis(2500);
/// What a poll shows was announced no longer before than this.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(1);
/// For how long a Sentinel's events are not relied on after its polls showed what none had announced.
const MISSED_FOR: Duration = Duration::from_secs(60);
/// What is announced where a new config epoch comes from, besides the stages of a failover (sentinel.c:
/// sentinelProcessHelloMessage, sentinelRefreshInstanceInfo, sentinelStartFailover, sentinelVoteLeader).
const OF_EPOCHS: [&str; 5] =
    ["+switch-master", "+config-update-from", "+promoted-slave", "+new-epoch", "+vote-for-leader"];

/// What is known of one Sentinel's events.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    /// Why they cannot be listened to.
    pub(super) deaf: Option<Arc<str>>,
    /// When the question was sent that was answered last on their connection.
    answered: Option<Now>,
    /// When something was last announced that polls show as well.
    announced: Option<Now>,
    /// What the last poll showed.
    shown: Option<(u64, Stage)>,
    /// When a poll showed what had not been announced.
    missed: Option<Now>,
}

impl Events {
    /// Their connection has answered a question sent then, or does not stand: why.
    pub(super) fn listening(&mut self, sent: Now, r: Result<(), Arc<str>>) {
        self.answered = r.is_ok().then_some(sent);
        self.deaf = r.err();
    }

    pub(super) fn announced(&mut self, now: Now, a: &Announced) {
        if a.stage.is_some() || OF_EPOCHS.contains(&&*a.event) {
            self.announced = Some(now);
        }
    }

    /// A poll showed this. Gives whether events that were known to arrive had not announced it.
    pub(super) fn shown(&mut self, now: Now, epoch: u64, stage: Stage) -> bool {
        let arrived = self.arrive(now);
        let before = self.shown.replace((epoch, stage));
        let news = before.is_some_and(|(e, s)| e != epoch || (s == Stage::Calm && stage != Stage::Calm));
        let told = self.announced.is_some_and(|at| now.since(at) < ANNOUNCED_WITHIN);
        if news && !told {
            self.missed = Some(now);
        }
        arrived && news && !told
    }

    /// Whether they can be relied on.
    pub(super) fn arrive(&self, now: Now) -> bool {
        self.answered.is_some_and(|at| now.since(at) < ANSWERED_WITHIN)
            && self.missed.is_none_or(|at| now.since(at) >= MISSED_FOR)
    }
}
