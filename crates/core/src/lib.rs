//! What decides in Pointsman, as machines without I/O.
//!
//! This crate is `no_std`: it cannot read a clock, a random number, a socket, a file or the environment. Time
//! ([`Now`]) and seeds come in as arguments, bytes come in as slices, and outputs are drained after every call.
//! What moves the bytes is the `pointsman` crate; the simulator (`pointsman-sim`) runs the same machines from a seed.
//!
//! Read in this order: [`resp`] (framing), [`command`] (the table), [`session`], [`route`], [`ledger`], [`hold`]
//! and [`worker`] make the data plane; [`observe`] and [`topology`] make the control plane; [`topology::snapshot`]
//! is the only thing that the second tells the first.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod blocking;
pub mod command;
pub mod hold;
pub mod identity;
pub mod kill;
pub mod learned;
pub mod ledger;
pub mod observe;
pub mod policy;
pub mod resp;
pub mod route;
pub mod rules;
pub mod scripts;
pub mod session;
pub mod spread;
pub mod switchover;
pub mod time;
pub mod topology;
pub mod tracking;
pub mod users;
pub mod worker;

pub use time::Now;
