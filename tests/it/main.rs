//! Tests of the real binary against the simulated Jelly. What it left in the archive is read back with code of its own,
//! so that a mistake of the program cannot hide behind itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod api;
mod audit;
mod backfill;
mod backup;
mod bad_input;
mod bucket;
mod command_line;
mod compact;
mod completions;
mod demo;
mod deploy;
mod doctor;
mod export;
mod faults;
mod filters;
mod find;
mod inbox;
mod interruption;
mod load;
mod man;
mod memory;
mod metrics;
mod module_order;
mod other_catalogs;
mod postgres;
mod recheck;
mod refilter;
mod replay;
mod secrets;
mod serve;
mod simulator;
mod store;
mod support;
mod toy_gate;
mod vendor_page;
