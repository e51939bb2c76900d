
//! The command line: one file a command, and the only place where modules are wired together.
//! The command line: one file a command; the only place of wiring.
pub mod config;
pub mod filter_args;
pub mod sim;
