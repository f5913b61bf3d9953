//! Who is master: observations in, grants and gates out.
//!
//! [`observation`] is what was seen, by whom and when. [`machine`] holds the grant, the gates, the hold and what is
//! published; the three ways to know the master ([`settings::Source`]) are three judges that look at all observations
//! together and give a verdict: `sentinels` (with `quorum`, `lease`, `followers`, `events` and `promotion`), `roles` and `listed`. `nodes` is what
//! is known of the nodes, `guard` makes writes wait that no replica acknowledges, `watch` whom to ask and how often, and
//! [`status`] the operator's view; [`story`] is what is told of each switch, and `teller` writes it. [`pause`] holds because
//! somebody wants it, `demote` has deposed masters told, and [`outlook`] is what a switchover gets to see. [`snapshot`] is
//! what the data plane gets to see.
mod demote;
mod events;
mod followers;
mod guard;
mod judge;
mod kept;
mod lease;
mod listed;
pub mod machine;
mod nodes;
pub mod observation;
pub mod outlook;
pub mod pause;
mod promotion;
mod quorum;
mod roles;
mod sentinels;
pub mod settings;
pub mod snapshot;
pub mod status;
pub mod story;
mod teller;
mod view;
mod watch;

pub use machine::{Act, Topology};

#[cfg(test)]
mod tests;
