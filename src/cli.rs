//! The command line: one file a command, and the only place where modules are wired together.

pub mod config;
pub mod filter_args;
