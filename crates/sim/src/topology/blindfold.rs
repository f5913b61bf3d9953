//! A product in which a rule is missing: what the machine is kept from knowing.
use super::drive::{Drive, index};
use pointsman_core::topology::observation::{Role, Seen, Stage, Target, TargetKind};
use std::time::Duration;

/// What the machine is kept from knowing: each must be caught by a checker. They stand for a product in which the
/// corresponding rule is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blindfold {
    /// Nothing: the product as it is.
    None,
    /// All views seem to be of one epoch.
    Epochs,
    /// Every node seems to say master.
    Roles,
    /// Each Sentinel seems to be the only one.
    Majority,
    /// No failover seems to go on.
    Stages,
    /// Restarted processes seem to be the same.
    RunIds,
    /// Every node that says master seems to have been promoted out of the granted one's history.
    Lineage,
    /// Every failover seems to have been ordered, so that nobody need have voted.
    Votes,
    /// A Sentinel that gave up a failover, or died, seems to go on with it.
    Leaders,
    /// Some replica seems to acknowledge always: the guard never trips.
    Silence,
    /// No replica seems to acknowledge: it is never armed again.
    Acknowledgements,
    /// No Sentinel seems to have heard the master: it does not leave.
    Pongs,
    /// There are no leases.
    Leases,
    /// A Sentinel that refuses connections may be alive.
    Refusals,
}

impl Drive {
    /// Whether the grant rests on this one's promotion.
    fn leads(&self, from: &Target) -> bool {
        from.kind == TargetKind::Sentinel && self.provisional.is_some() && self.leaders.contains(&index(from))
    }

    pub(super) fn blind(&self, from: &Target, mut seen: Seen) -> Seen {
        match (&mut seen, self.blindfold) {
            (Seen::View(v), Blindfold::Epochs) => v.epoch = 1,
            (Seen::View(v), Blindfold::Stages) => v.stage = Stage::Calm,
            (Seen::Flags(f), Blindfold::Stages) => f.stage = Stage::Calm,
            (Seen::Flags(f), Blindfold::Epochs) => f.epoch = 1,
            (Seen::Announced(a), Blindfold::Epochs) => a.vote = None,
            (Seen::Flags(f), Blindfold::Votes) => f.forced = true,
            (Seen::Flags(f), Blindfold::Leaders) if self.leads(from) => f.stage = Stage::Acts,
            (Seen::Report(r), Blindfold::Roles) => (r.role, r.loading) = (Role::Master, false),
            (Seen::View(v), Blindfold::Votes) => v.forced = true,
            (Seen::View(v), Blindfold::Leaders) if self.leads(from) => v.stage = Stage::Acts,
            (Seen::Gone(_), Blindfold::Leaders) if self.leads(from) => seen = Seen::Pong(true),
            (Seen::Report(r), Blindfold::Lineage) if r.role == Role::Master => {
                if let (Some(l), Some((_, replid))) = (&mut r.lineage, &self.served) {
                    l.replid2 = Some(replid.clone()).filter(|id| *id != l.replid);
                }
            }
            (Seen::Acknowledged(yes), Blindfold::Silence) => *yes = true,
            (Seen::Acknowledged(yes), Blindfold::Acknowledgements) => *yes = false,
            (Seen::View(v), Blindfold::Pongs) => v.pong_age = Duration::MAX,
            (Seen::Report(r), Blindfold::RunIds) => r.run_id = Some("same".into()),
            _ => {}
        }
        seen
    }
}
