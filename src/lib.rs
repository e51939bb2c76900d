//! jellyjar archives every email attachment of a Jelly team into a bucket or folder that the team owns.
//!
//! The modules have one order, and a file imports only what stands to the left:
//! `model digest secret clock < config filter metrics < catalog < http < jelly < spool < fetch < store < source < inbox
//! < ingest < archive < walk < audit < notify < worker < web < cli`. `sim`, the simulated Jelly, imports `digest` and `clock`
//! alone.

// The store suite of tests/it runs in here, too, and names things as it does there.
#[cfg(test)]
extern crate self as jellyjar;

pub mod archive;
pub mod audit;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod digest;
pub mod fetch;
pub mod filter;
pub mod http;
pub mod inbox;
pub mod ingest;
pub mod jelly;
pub mod metrics;
pub mod model;
pub mod notify;
pub mod secret;
pub mod sim;
pub mod source;
pub mod spool;
pub mod store;
pub mod walk;
pub mod web;
pub mod worker;
