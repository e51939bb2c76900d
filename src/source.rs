//! Turns sources (files, folders, standard input; dumps, logs and inbox segments) into payloads. Owns every format in
//! which Jelly content is read; knows no catalog and no network. Synchronous: it runs on a thread of its own.
//!
//! `input` finds what to read, `decode` undoes compression, `split` cuts the text into JSON values (judged by `scan`,
//! held by `buffer`; `ahead` tells which were taken in before) and recovers from what is none, `shape` and `fields` find the
//! Jelly content in a value (walked by `value`), `inbox` is the format of accepted webhooks, `excerpt` shows what was rejected.

mod ahead;
mod buffer;
mod decode;
mod excerpt;
mod fields;
mod inbox;
mod input;
mod scan;
mod shape;
mod split;
mod value;

#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use ahead::{Memory, TextId};
pub use inbox::{inbox_line, inbox_line_bound, inbox_received_at};
pub use input::{Input, SourceError, resolve};

use crate::config::SourceConfig;
use crate::model::{Payload, Position, Reject};

/// One thing that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Jelly content.
    Payload(Payload),
    /// A payload that was taken in before.
    Known,
    /// A JSON value without Jelly content.
    Ignored(Position),
    /// Something that cannot be read. Reading went on behind it where that was possible.
    Rejected(Reject),
}

/// Reads one input to its end and gives every item to `sink`, in order; stops when `sink` breaks. An input that cannot
/// be opened, or not be read to its end, yields a reject. What `memory` knows comes as [`Item::Known`].
pub fn read<'a>(
    input: &'a Input,
    config: &SourceConfig,
    memory: Option<&'a mut dyn Memory>,
    sink: &'a mut dyn FnMut(Item) -> ControlFlow<()>,
) -> ControlFlow<()> {
    match input.open() {
        Ok(reader) => read_from(input.name(), Counted { reader, count: input.counter() }, config, memory, sink),
        Err(error) => sink(Item::Rejected(unreadable(input.name(), &error))),
    }
}

/// Reads any reader as [`read`] does; positions carry `name`.
pub fn read_from<'a>(
    name: &'a str,
    reader: impl Read,
    config: &SourceConfig,
    memory: Option<&'a mut dyn Memory>,
    sink: &'a mut dyn FnMut(Item) -> ControlFlow<()>,
) -> ControlFlow<()> {
    match decode::decode(reader) {
        Ok(text) => split::Splitter::new(name, text, config, memory, sink).run(),
        Err(error) => sink(Item::Rejected(unreadable(name, &error))),
    }
}

fn unreadable(name: &str, error: &io::Error) -> Reject {
    Reject {
        position: Position { source: name.to_owned(), line: 1, byte_offset: 0 },
        reason: format!("cannot be read: {error}"),
        excerpt: String::new(),
    }
}

/// Counts the bytes that are read.
struct Counted<R> {
    reader: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(target)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
