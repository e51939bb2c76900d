//! The harness: a simulated Jelly, the real binary in an environment of its own, dumps, and the oracle that reads
//! archives without the program's own code.

mod bucket;
mod database;
mod disk;
mod dump;
mod gate;
mod jelly;
mod ledger;
mod process;
mod proxy;
mod scripted;
mod serve;
mod world;

pub(crate) use bucket::{Bucket, Objects};
pub(crate) use database::Database;
pub(crate) use disk::Disk;
pub(crate) use dump::{attachments, events, events_from, ids, lines, write_lines};
pub(crate) use gate::{Mishap, Refusal};
pub(crate) use jelly::Jelly;
pub(crate) use ledger::Ledger;
pub(crate) use process::{Ended, Process, Receipt, until};
pub(crate) use proxy::Proxy;
pub(crate) use scripted::Scripted;
pub(crate) use serve::{Answer, SECRET, SERVE, Sender, Serve, Worker, archived, files, sign, until_archived};
pub(crate) use world::{TOKEN, World};
