//! Who is master: observations in, grants and gates out.
pub mod settings;
pub mod snapshot;
