//! The command line: one file a command; the only place of wiring.

pub mod sim;
