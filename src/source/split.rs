//! Cuts a text into JSON values, whatever way they are written one after another, and finds its way again after
//! whatever is none. Memory is bounded by the largest unit that is allowed; a byte is looked at a bounded number of
//! times, as values that fail to end must all stand in each other.

mod recover;

use std::io::Read;
use std::ops::ControlFlow;

use super::Item;
use super::ahead::{Ahead, Line, Memory};
use super::buffer::Window;
use super::scan::{Containers, Scanner, Step};
use super::shape::{self, Context, Found, Unit};
use crate::config::SourceConfig;
use crate::model::{Payload, Position, Reject};

/// Rejects in a row that are told one by one, as long as what is rejected does not even look like JSON.
const MAX_REJECTS_IN_A_ROW: u64 = 100;
/// How much of a text is looked at to tell whether it is one.
const HEAD_BYTES: usize = 512;

/// Where the next value stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In no other.
    Top,
    /// In a list that is taken apart: at the top, or in a page object.
    List { context: Context, is_page: bool, comma: Comma, opened_line: u64, opened_offset: u64 },
}

/// What may come next in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comma {
    /// An element or the end.
    First,
    /// An element, as a comma was read.
    Read,
    /// A comma or the end.
    Due,
}

/// Rejects that are told together.
#[derive(Debug)]
struct Held {
    first: Reject,
    count: u64,
    last_line: u64,
}

pub(super) struct Splitter<'a, R> {
    name: &'a str,
    window: Window<R>,
    limit: usize,
    /// The same for records of an inbox.
    record_limit: usize,
    sink: &'a mut dyn FnMut(Item) -> ControlFlow<()>,
    place: Place,
    /// After a broken value of several lines: its column. What is indented deeper is taken for parts of it.
    broken_column: Option<u64>,
    /// Whether a list was left before its end, so that commas and brackets may follow.
    is_list_lost: bool,
    has_seen_container: bool,
    rejects_in_a_row: u64,
    held: Option<Held>,
    found: Vec<Found>,
    containers: Containers,
    ahead: Option<Ahead<'a>>,
}

impl<'a, R: Read> Splitter<'a, R> {
    pub(super) fn new(
        name: &'a str,
        reader: R,
        config: &SourceConfig,
        memory: Option<&'a mut dyn Memory>,
        sink: &'a mut dyn FnMut(Item) -> ControlFlow<()>,
    ) -> Self {
        Self {
            name,
            window: Window::new(reader),
            limit: config.max_payload_bytes,
            record_limit: config.max_record_bytes.max(config.max_payload_bytes),
            sink,
            place: Place::Top,
            broken_column: None,
            is_list_lost: false,
            has_seen_container: false,
            rejects_in_a_row: 0,
            held: None,
            found: Vec::new(),
            containers: Containers::default(),
            ahead: memory.map(Ahead::new),
        }
    }

    /// Reads to the end.
    pub(super) fn run(mut self) -> ControlFlow<()> {
        if self.is_readable()? {
            while let Some(byte) = self.next_byte() {
                match self.place {
                    Place::Top => self.at_top(byte)?,
                    Place::List { context, comma, .. } => self.in_list(byte, context, comma)?,
                }
            }
        }
        if let Place::List { opened_line: line, opened_offset: byte_offset, .. } = self.place
            && !self.window.has_failed()
        {
            let position = Position { source: self.name.to_owned(), line, byte_offset };
            let reason = "the list that begins here is not closed: the text is cut off";
            self.emit_reject(Reject::new(position, reason.into()), true)?;
        }
        self.tell_held()?;
        if let Some(failure) = self.window.take_failure() {
            let position = self.window.position(self.name, 0);
            let reason = format!("cannot be read further: {failure}");
            (self.sink)(Item::Rejected(Reject::new(position, reason)))?;
        }
        ControlFlow::Continue(())
    }

    /// Looks at the beginning: skips a byte order mark, and refuses what is no text in one reject.
    fn is_readable(&mut self) -> ControlFlow<(), bool> {
        self.window.fill_to(HEAD_BYTES);
        let refusal = match self.window.pending() {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("is UTF-16 text; convert it to UTF-8"),
            [0xef, 0xbb, 0xbf, ..] => {
                self.window.consume(3);
                None
            }
            head => {
                let head = &head[..head.len().min(HEAD_BYTES)];
                let begin = head.iter().position(|byte| *byte != 0).unwrap_or(head.len());
                let is_json = matches!(head.get(begin), None | Some(b'{' | b'[' | b' ' | b'\t' | b'\n' | b'\r'));
                let is_binary = !is_json && head[begin..].contains(&0);
                is_binary.then_some("is no text: neither JSON nor gzip or zstd of it")
            }
        };
        let Some(reason) = refusal else { return ControlFlow::Continue(true) };
        self.reject(0, reason.to_owned(), 0, true)?;
        ControlFlow::Continue(false)
    }

    /// The next byte that is not white space.
    fn next_byte(&mut self) -> Option<u8> {
        loop {
            let pending = self.window.pending();
            if let Some(blank) = pending.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
                let byte = pending[blank];
                self.window.consume(blank);
                return Some(byte);
            }
            self.window.consume(pending.len());
            if !self.window.fill() {
                return None;
            }
        }
    }

    fn at_top(&mut self, byte: u8) -> ControlFlow<()> {
        let is_inside_broken = self.broken_column.is_some_and(|column| self.window.column() > column);
        match byte {
            b'[' => {
                self.enter_list(1, Context::Any, false);
                ControlFlow::Continue(())
            }
            b'{' => self.line(),
            0 => {
                self.reject(0, "zero bytes, as a crash leaves them".into(), 64, false)?;
                while self.window.pending().first() == Some(&0)
                    || self.window.pending().is_empty() && self.window.fill()
                {
                    let length = self.window.pending().iter().take_while(|byte| **byte == 0).count();
                    self.window.consume(length);
                }
                ControlFlow::Continue(())
            }
            b',' | b']' if self.is_list_lost => {
                self.window.consume(1);
                ControlFlow::Continue(())
            }
            b'}' | b']' | b',' | b':' if self.broken_column.is_some() => {
                self.window.consume(1);
                ControlFlow::Continue(())
            }
            _ if is_inside_broken || byte == b'"' && self.broken_column.is_some() => {
                self.skip_line();
                ControlFlow::Continue(())
            }
            b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => self.value(Context::Any, None),
            _ => {
                self.reject(0, "no JSON value begins here".into(), usize::MAX, false)?;
                self.skip_line();
                ControlFlow::Continue(())
            }
        }
    }

    fn enter_list(&mut self, length: usize, context: Context, is_page: bool) {
        let Position { line: opened_line, byte_offset: opened_offset, .. } = self.window.position(self.name, 0);
        self.place = Place::List { context, is_page, comma: Comma::First, opened_line, opened_offset };
        self.window.consume(length);
    }

    fn expect(&mut self, next: Comma) {
        if let Place::List { comma, .. } = &mut self.place {
            *comma = next;
        }
    }

    fn in_list(&mut self, byte: u8, context: Context, comma: Comma) -> ControlFlow<()> {
        match (byte, comma) {
            (b']', _) => {
                if comma == Comma::Read {
                    self.reject(0, "a comma stands before the end of the list".into(), 1, true)?;
                }
                self.window.consume(1);
                let is_page = matches!(self.place, Place::List { is_page: true, .. });
                self.place = Place::Top;
                self.has_seen_container = true;
                if is_page { self.skip_value(Scanner::in_object()) } else { ControlFlow::Continue(()) }
            }
            (b',', Comma::Due) => {
                self.window.consume(1);
                self.expect(Comma::Read);
                ControlFlow::Continue(())
            }
            (_, Comma::Due) => {
                self.reject(0, "a comma or the end of the list was expected here".into(), usize::MAX, true)?;
                self.leave_list();
                if !matches!(byte, b'{' | b'[') {
                    self.skip_line();
                }
                ControlFlow::Continue(())
            }
            _ => {
                self.expect(Comma::Due);
                self.value(context, None)
            }
        }
    }

    fn leave_list(&mut self) {
        if matches!(self.place, Place::List { .. }) {
            self.is_list_lost = true;
            self.place = Place::Top;
        }
    }

    /// Reads the object that begins here, outside of any other value, unless it is a line that was taken in before.
    fn line(&mut self) -> ControlFlow<()> {
        let line = match &mut self.ahead {
            Some(ahead) if self.window.column() == 0 => ahead.line(self.window.offset(), self.window.pending()),
            _ => None,
        };
        match line {
            Some(line) if line.is_known => {
                self.met_container()?;
                self.broken_column = None;
                self.window.consume(line.length);
                (self.sink)(Item::Known)
            }
            line => self.value(Context::Any, line),
        }
    }

    /// Reads the value that begins here. `line` is what is known of it where it may be a line of its own.
    fn value(&mut self, context: Context, line: Option<Line>) -> ControlFlow<()> {
        let mut scanner = Scanner::noting(std::mem::take(&mut self.containers));
        let mut taken = 0;
        let end = loop {
            let limit = self.limit_here();
            let pending = self.window.pending();
            let stop = pending.len().min(limit + 1);
            match scanner.feed(&pending[taken..stop]) {
                Step::End(end) if taken + end <= limit => break taken + end,
                Step::Bad(at, reason) => return self.broken(taken + at, reason),
                Step::End(_) => return self.too_large(scanner),
                Step::More => taken = stop,
            }
            if taken > limit {
                return self.too_large(scanner);
            }
            if taken == self.window.pending().len() && !self.window.fill() {
                if scanner.may_end() {
                    break taken;
                }
                return self.broken(taken, "the text is cut off before the JSON is whole");
            }
        };
        let is_container = matches!(self.window.pending().first(), Some(b'{' | b'['));
        if !is_container && matches!(self.place, Place::Top) {
            self.window.fill_to(end + 1);
            if !matches!(self.window.pending().get(end), None | Some(b' ' | b'\t' | b'\n' | b'\r')) {
                return self.broken(end, "something follows the JSON value");
            }
        }
        self.containers = scanner.into_containers();
        self.whole(end, context, is_container, line.filter(|line| line.length == end))
    }

    /// How large the value that begins here may be.
    fn limit_here(&self) -> usize {
        if super::inbox::is_record(self.window.pending()) { self.record_limit } else { self.limit }
    }

    /// Notes that a whole container was met.
    fn met_container(&mut self) -> ControlFlow<()> {
        self.has_seen_container = true;
        self.rejects_in_a_row = 0;
        self.tell_held()
    }

    /// Gives out what is in a whole value. `line` is what is known of it where it is a line of its own.
    fn whole(&mut self, end: usize, context: Context, is_container: bool, line: Option<Line>) -> ControlFlow<()> {
        let column = self.window.column();
        let is_inside_broken = self.broken_column.is_some_and(|broken| column > broken);
        if is_container {
            self.met_container()?;
        }
        if !is_inside_broken {
            self.broken_column = None;
        }
        let mut found = std::mem::take(&mut self.found);
        match std::str::from_utf8(&self.window.pending()[..end]) {
            Ok(text) => shape::interpret(text, &self.containers, context, &mut found),
            Err(error) => {
                let reason = format!("invalid UTF-8 at byte {} of the value", error.valid_up_to());
                found.clear();
                found.push(Found { offset: 0, unit: Unit::Bad(reason) });
            }
        }
        // What yields more than itself, or rejects, is not remembered: it is looked at each time.
        let text = line.filter(|_| found.len() == 1).map(|line| line.text);
        for Found { offset, unit } in found.drain(..) {
            match unit {
                Unit::Ignored if is_inside_broken => {}
                Unit::Ignored => (self.sink)(Item::Ignored(self.window.position(self.name, offset)))?,
                Unit::Bad(reason) => self.reject(offset, reason, end - offset, true)?,
                Unit::Content { team, messages, bad_attachments } => {
                    let position = self.window.position(self.name, offset);
                    let text = text.filter(|_| bad_attachments.is_empty());
                    (self.sink)(Item::Payload(Payload { position, team, messages, bad_attachments, text }))?;
                }
            }
        }
        self.found = found;
        self.window.consume(end);
        ControlFlow::Continue(())
    }
}
