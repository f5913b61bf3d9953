//! The topology machine among model Sentinels and nodes.
//!
//! [`world`] is the model: Sentinels that ping, vote, promote, gossip and convert as `sentinel.c` does, with its times
//! scaled down; nodes with roles, run ids and replication histories; a network that can be cut. [`drive`] plays the
//! observers between it and a real [`pointsman_core::topology::Topology`], `faults` breaks things, and `check` and
//! `stories` are what must hold of what it says.
mod check;
mod dark;
pub mod drive;
mod faults;
mod guard;
mod stories;
pub mod world;
