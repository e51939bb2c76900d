//! What happens to what is no JSON, or too large: a reject, and a place to read on from.

use std::io::Read;
use std::ops::ControlFlow;

use super::{Held, MAX_REJECTS_IN_A_ROW, Place, Splitter};
use crate::model::Reject;
use crate::source::Item;
use crate::source::excerpt::excerpt;
use crate::source::scan::{Scanner, Step};
use crate::source::value;

impl<R: Read> Splitter<'_, R> {
    /// Rejects the value that begins here and cannot go on at `at`, and finds where to read on.
    pub(super) fn broken(&mut self, at: usize, reason: &str) -> ControlFlow<()> {
        let column = self.window.column();
        let is_part = self.broken_column.is_some_and(|broken| column > broken);
        let looks_json = matches!(self.window.pending().first(), Some(b'{' | b'['));
        let is_at_end = at >= self.window.pending().len();
        let is_explained = is_at_end && self.window.has_failed();
        if !is_part && !is_explained {
            self.reject(0, format!("{reason} (at byte {at} of the value)"), usize::MAX, looks_json)?;
        }
        let pending = self.window.pending();
        if let Some(line_break) = memchr::memchr(b'\n', &pending[..at.min(pending.len())]) {
            self.window.consume(line_break + 1);
            if !is_part {
                self.broken_column = Some(column);
            }
            self.leave_list();
        } else if let Some(end) = self.end_in_list() {
            self.window.consume(end);
        } else {
            self.leave_list();
            self.skip_line();
        }
        ControlFlow::Continue(())
    }

    /// Where a broken element ends if its brackets and quotes are in order after all, on its line and in memory.
    fn end_in_list(&self) -> Option<usize> {
        if matches!(self.place, Place::Top) {
            return None;
        }
        let pending = self.window.pending();
        let (mut depth, mut is_in_text, mut is_escaped) = (0_u64, false, false);
        for (index, byte) in pending[..pending.len().min(self.limit)].iter().enumerate() {
            match byte {
                b'\n' => return None,
                _ if is_escaped => is_escaped = false,
                b'\\' if is_in_text => is_escaped = true,
                b'"' => is_in_text = !is_in_text,
                _ if is_in_text => {}
                b'{' | b'[' => depth += 1,
                b',' | b']' if depth == 0 => return Some(index),
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        None
    }

    /// Goes on behind the next line break.
    pub(super) fn skip_line(&mut self) {
        loop {
            let pending = self.window.pending();
            match memchr::memchr(b'\n', pending) {
                Some(line_break) => return self.window.consume(line_break + 1),
                None => self.window.consume(pending.len()),
            }
            if !self.window.fill() {
                return;
            }
        }
    }

    /// Deals with a value above the limit: a page is taken apart, anything else rejected and skipped.
    pub(super) fn too_large(&mut self, scanner: Scanner) -> ControlFlow<()> {
        let limit = self.limit_here();
        if matches!(self.place, Place::Top) {
            let begin = &self.window.pending()[..limit.min(self.window.pending().len())];
            if let Some((length, context)) = value::page_list(begin) {
                self.enter_list(length, context, true);
                return ControlFlow::Continue(());
            }
        }
        let reason = format!("larger than {limit} bytes, the most that one message or conversation may take");
        self.reject(0, reason, usize::MAX, true)?;
        self.window.consume(limit + 1);
        self.skip_value(scanner)
    }

    /// Goes on behind a value whose beginning is consumed, without keeping it.
    pub(super) fn skip_value(&mut self, mut scanner: Scanner) -> ControlFlow<()> {
        loop {
            let pending = self.window.pending();
            match scanner.feed(pending) {
                Step::End(end) => {
                    self.window.consume(end);
                    return ControlFlow::Continue(());
                }
                Step::More => self.window.consume(pending.len()),
                Step::Bad(at, reason) => {
                    self.reject(at, format!("{reason}, in the rest of a large value"), usize::MAX, true)?;
                    self.window.consume(at);
                    self.leave_list();
                    self.skip_line();
                    return ControlFlow::Continue(());
                }
            }
            if !self.window.fill() {
                if !scanner.may_end() && !self.window.has_failed() {
                    self.reject(0, "the text is cut off in a large value".into(), 0, true)?;
                }
                return ControlFlow::Continue(());
            }
        }
    }

    /// Rejects what stands at `index`; its excerpt is of at most `length` bytes and of one line.
    pub(super) fn reject(&mut self, index: usize, reason: String, length: usize, looks_json: bool) -> ControlFlow<()> {
        if self.is_held_back(looks_json)
            && let Some(held) = &mut self.held
        {
            held.count += 1;
            held.last_line = self.window.position("", index).line;
            return ControlFlow::Continue(());
        }
        let pending = &self.window.pending()[index.min(self.window.pending().len())..];
        let line = pending[..pending.len().min(length).min(4096)].split(|byte| *byte == b'\n').next();
        let excerpt = excerpt(line.unwrap_or_default());
        let position = self.window.position(self.name, index);
        self.emit_reject(Reject { position, reason, excerpt }, looks_json)
    }

    /// Tells a reject, or holds it back where many of the same kind were told.
    pub(super) fn emit_reject(&mut self, reject: Reject, looks_json: bool) -> ControlFlow<()> {
        if self.is_held_back(looks_json) {
            let last_line = reject.position.line;
            let held = self.held.get_or_insert(Held { first: reject, count: 0, last_line });
            held.count += 1;
            held.last_line = last_line;
            return ControlFlow::Continue(());
        }
        self.rejects_in_a_row += 1;
        (self.sink)(Item::Rejected(reject))
    }

    fn is_held_back(&self, looks_json: bool) -> bool {
        let is_noise = !(looks_json && self.has_seen_container);
        is_noise && self.rejects_in_a_row >= MAX_REJECTS_IN_A_ROW
    }

    pub(super) fn tell_held(&mut self) -> ControlFlow<()> {
        let Some(Held { mut first, count, last_line }) = self.held.take() else { return ControlFlow::Continue(()) };
        if count > 1 {
            first.reason = format!("{} (and {} more places up to line {last_line})", first.reason, count - 1);
        }
        (self.sink)(Item::Rejected(first))
    }
}
