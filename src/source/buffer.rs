//! The part of the decompressed text that is in memory: a window that can be looked at, grown and consumed, and that
//! knows line and offset of its beginning.

use std::io::{ErrorKind, Read};

use crate::model::Position;

const CHUNK_BYTES: usize = 1 << 20;
/// Above this a buffer that is no longer needed goes back to the system.
const KEEP_BYTES: usize = 4 << 20;

/// The window. A failed read ends the text; the failure is kept.
#[derive(Debug)]
pub(super) struct Window<R> {
    reader: R,
    bytes: Vec<u8>,
    start: usize,
    /// The offset of `bytes[start]` in the text.
    offset: u64,
    /// The line of `bytes[start]`.
    line: u64,
    /// The offset at which that line begins.
    line_offset: u64,
    is_at_end: bool,
    failure: Option<std::io::Error>,
}

impl<R: Read> Window<R> {
    /// Wraps a reader at its beginning.
    pub(super) const fn new(reader: R) -> Self {
        Self {
            reader,
            bytes: Vec::new(),
            start: 0,
            offset: 0,
            line: 1,
            line_offset: 0,
            is_at_end: false,
            failure: None,
        }
    }

    /// What is in memory and not yet consumed.
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Reads more; `false` at the end of the text.
    pub(super) fn fill(&mut self) -> bool {
        if self.is_at_end {
            return false;
        }
        let length = self.bytes.len() - self.start;
        if self.start > 0 && self.start >= length {
            self.bytes.copy_within(self.start.., 0);
            self.bytes.truncate(length);
            self.start = 0;
            if self.bytes.capacity() > KEEP_BYTES && length < KEEP_BYTES / 4 {
                self.bytes.shrink_to(KEEP_BYTES / 2);
            }
        }
        let filled = self.bytes.len();
        self.bytes.resize(filled + CHUNK_BYTES, 0);
        let count = loop {
            match self.reader.read(&mut self.bytes[filled..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure = Some(error);
                    break 0;
                }
                Ok(count) => break count.min(CHUNK_BYTES),
            }
        };
        self.bytes.truncate(filled + count);
        self.is_at_end = count == 0;
        count > 0
    }

    /// Fills until `length` bytes are pending or the text ends.
    pub(super) fn fill_to(&mut self, length: usize) {
        while self.pending().len() < length && self.fill() {}
    }

    /// Drops the first `length` pending bytes.
    pub(super) fn consume(&mut self, length: usize) {
        let length = length.min(self.pending().len());
        let consumed = &self.bytes[self.start..self.start + length];
        if let Some(last) = memchr::memrchr(b'\n', consumed) {
            self.line += memchr::memchr_iter(b'\n', consumed).count() as u64;
            self.line_offset = self.offset + last as u64 + 1;
        }
        self.start += length;
        self.offset += length as u64;
    }

    /// How many bytes stand before the window on its line.
    pub(super) const fn column(&self) -> u64 {
        self.offset - self.line_offset
    }

    /// The offset of the window in the text.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Line and offset of the pending byte at `index`, under the name `source`.
    pub(super) fn position(&self, source: &str, index: usize) -> Position {
        let before = &self.pending()[..index.min(self.pending().len())];
        Position {
            source: source.to_owned(),
            line: self.line + memchr::memchr_iter(b'\n', before).count() as u64,
            byte_offset: self.offset + index as u64,
        }
    }

    /// Whether reading failed.
    pub(super) const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// What ended the text before its end, if anything did.
    pub(super) const fn take_failure(&mut self) -> Option<std::io::Error> {
        self.failure.take()
    }
}
