//! Simulation: the machines of `pointsman-core` under a virtual clock, among model servers that fail, from a seed.
//! The same seed gives the same run.
//!
//! - [`topology`]: who is master, among model Sentinels and nodes
//! - [`worker_world`]: the data plane, among model clients and model servers
//! - [`whole`]: all of it together, among model nodes that replicate and model Sentinels that vote
mod resp;
pub mod rng;
pub mod topology;
pub mod whole;
pub mod worker_world;
