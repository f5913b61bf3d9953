//! The topology machine among model Sentinels and nodes.
//!
//! [`world`] is the model: Sentinels that ping, vote, promote, gossip and convert as `sentinel.c` does, with its times
//! scaled down; nodes with roles, run ids and replication histories; a network that can be cut. [`drive`] plays the
//! observers between it and a real [`pointsman_core::topology::Topology`], `faults` breaks things, `wanted` pauses, `dark` is
//! what a lease is for, `blindfold` hides things from the machine itself, and `check` and `stories` are what must hold of
//! what it says.
pub mod blindfold;
mod check;
mod dark;
pub mod drive;
mod faults;
mod guard;
pub(crate) mod stories;
mod wanted;
pub mod world;
