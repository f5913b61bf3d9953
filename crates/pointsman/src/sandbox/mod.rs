//! The sandbox: a throwaway deployment of real servers, the proxy before it, and a load that checks what it is told.
//!
//! - [`deployment`]: the servers, and that they end with us
//! - [`client`]: a blocking client, for our own use
pub mod client;
pub mod deployment;
mod ports;
mod process;
mod watchdog;
