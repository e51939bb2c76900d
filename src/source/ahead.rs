//! Looks ahead: which of the next lines are payloads that were taken in before, so that they need not be read again.

use std::collections::VecDeque;

/// What a text is known again by: made of its bytes, and of whatever else decides what is made of it.
pub type TextId = [u8; 16];

/// Remembers the texts of payloads that were taken in.
pub trait Memory: Send {
    /// For each text its id, and whether it was taken in before and would change nothing now. Who is told so leaves it
    /// out, and counts it as a payload.
    fn recall(&mut self, texts: &[&[u8]]) -> Vec<(TextId, bool)>;
}

/// A line that was looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// Where it begins in the text.
    offset: u64,
    /// Its bytes, without the line break.
    pub(super) length: usize,
    pub(super) text: TextId,
    pub(super) is_known: bool,
}

/// The lines that were looked up and are not yet reached.
pub(super) struct Ahead<'a> {
    memory: &'a mut dyn Memory,
    lines: VecDeque<Line>,
    /// Everything before this offset was looked up.
    until: u64,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(memory: &'a mut dyn Memory) -> Self {
        Self { memory, lines: VecDeque::new(), until: 0 }
    }

    /// The line that begins at `offset`, where `pending` stands, if it can be a whole payload. Lines are looked up
    /// together, as many as are in memory: nothing waits for more.
    pub(super) fn line(&mut self, offset: u64, pending: &[u8]) -> Option<Line> {
        while self.lines.front().is_some_and(|line| line.offset < offset) {
            self.lines.pop_front();
        }
        if self.lines.is_empty() && offset >= self.until {
            self.look(offset, pending);
        }
        if self.lines.front()?.offset == offset { self.lines.pop_front() } else { None }
    }

    fn look(&mut self, offset: u64, pending: &[u8]) {
        let mut texts = Vec::new();
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', pending) {
            let line = &pending[begin..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.starts_with(b"{") && line.ends_with(b"}") {
                texts.push((begin, line));
            }
            begin = end + 1;
        }
        self.until = offset + begin as u64;
        if texts.is_empty() {
            return;
        }
        let recalled = self.memory.recall(&texts.iter().map(|(_, text)| *text).collect::<Vec<_>>());
        self.lines.extend(texts.iter().zip(recalled).map(|((begin, line), (text, is_known))| Line {
            offset: offset + *begin as u64,
            length: line.len(),
            text,
            is_known,
        }));
    }
}
