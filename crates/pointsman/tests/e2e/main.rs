//! End to end: the program before real servers, which the tests start and end. They are one test program, so that many of
//! them can wait at once; `cargo test -p pointsman --test e2e failover::` runs those of one module.
#![allow(clippy::unwrap_used, reason = "what the tests start must work; a panic is their failure")]
#![allow(unreachable_pub, reason = "nothing is outside of a program")]
mod harness;
mod scene;

mod authority;
mod blocked;
mod check;
mod client_library;
mod commands;
mod connections;
mod control;
mod differential;
mod durable;
mod failover;
mod guard;
mod introspection;
mod large;
mod lease;
mod lifecycle;
mod log;
mod parity;
mod programs;
mod promotion;
mod random;
mod roles;
mod sandbox;
mod scripts;
mod sessions;
mod static_list;
mod story;
mod subscribers;
mod switchover;
mod users;
mod workers;
