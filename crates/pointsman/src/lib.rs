//! Pointsman's I/O: what moves bytes for the machines of `pointsman-core`, and the commands of the program.
//!
//! - [`data`]: the data plane's shell: accept, the event loop of a worker, transports
//! - [`control`]: the control plane: observers' connections, publishing, reload, shutdown
//! - [`clock`]: the one clock that all threads read
//! - [`admin`]: statistics and their renderings, the listener that shows them, the commands that ask it
//! - [`events`]: the journal of what happened: in memory, in a file, in the log
//! - [`log`]: the log
//! - [`run`], [`check`]: the commands of these names
//! - [`sandbox`]: the throwaway deployment
//! - [`client`]: a blocking client, for sandbox and probes
pub mod admin;
pub mod check;
pub mod client;
pub mod clock;
pub mod control;
pub mod data;
pub mod events;
pub mod log;
pub mod run;
pub mod sandbox;
