//! Simulation: the machines of `pointsman-core` under a virtual clock, among model servers that fail, from a seed.
//! The same seed gives the same run.
//!
//! - [`worker_world`]: the data plane, among model clients and model servers
pub mod rng;
pub mod worker_world;
