//! Walks JSON that [`super::scan`] has judged valid: members, elements and strings as slices of the text, without a
//! tree. Given text that is not valid it yields nonsense, but never panics.

use std::borrow::Cow;

use super::scan::{Containers, plain_length};

/// A value as it stands in the text, without white space around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    text: &'a str,
    noted: Noted<'a>,
}

/// What [`Containers`] tells of a text.
#[derive(Debug, Clone, Copy)]
struct Noted<'a> {
    /// The text's address, from which offsets are counted.
    base: usize,
    spans: &'a [(usize, usize)],
}

impl Noted<'_> {
    /// The index after the container that begins at `at` of `bytes`, a part of the text.
    fn end_of_container(self, bytes: &[u8], at: usize) -> Option<usize> {
        let begin = (bytes.as_ptr() as usize).wrapping_sub(self.base).wrapping_add(at);
        let place = self.spans.binary_search_by_key(&begin, |(begin, _)| *begin).ok()?;
        let length = self.spans[place].1.checked_sub(begin)?;
        Some(at + length).filter(|end| *end <= bytes.len())
    }
}

/// A string's content.
#[derive(Debug)]
pub(super) struct Text<'a> {
    /// The characters; an escaped surrogate without its other half stands as U+FFFD.
    pub(super) content: Cow<'a, str>,
    /// Whether there was such a surrogate.
    pub(super) is_lossy: bool,
}

impl<'a> Value<'a> {
    /// Wraps the text of one value.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text: text.trim_ascii(), noted: Noted { base: 0, spans: &[] } }
    }

    /// Wraps the text of one value whose containers were noted when it was scanned.
    pub(super) fn scanned(text: &'a str, containers: &'a Containers) -> Self {
        let noted = Noted { base: text.as_ptr() as usize, spans: containers.spans() };
        Self { text: text.trim_ascii(), noted }
    }

    /// The value as it was written.
    pub(super) const fn text(self) -> &'a str {
        self.text
    }

    /// The first byte, which tells the kind.
    pub(super) fn first(self) -> u8 {
        self.text.bytes().next().unwrap_or(b'n')
    }

    /// Whether this is an object.
    pub(super) fn is_object(self) -> bool {
        self.first() == b'{'
    }

    /// Whether this is an array.
    pub(super) fn is_array(self) -> bool {
        self.first() == b'['
    }

    /// Whether this is `null`.
    pub(super) fn is_null(self) -> bool {
        self.first() == b'n'
    }

    /// An object's members in order, or an array's elements with empty keys; nothing for other values.
    pub(super) fn entries(self) -> Entries<'a> {
        let is_container = self.is_object() || self.is_array();
        let at = if is_container { 1 } else { self.text.len() };
        Entries { text: self.text, noted: self.noted, at, has_keys: self.is_object() }
    }

    /// A string's content; `None` for other values.
    pub(super) fn string(self) -> Option<Text<'a>> {
        (self.first() == b'"').then(|| unescape(self.text))
    }
}

/// See [`Value::entries`].
#[derive(Debug)]
pub(super) struct Entries<'a> {
    text: &'a str,
    noted: Noted<'a>,
    at: usize,
    has_keys: bool,
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let skip = |mut at: usize| {
            while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r' | b',' | b':')) {
                at += 1;
            }
            at
        };
        let mut key = "";
        self.at = skip(self.at);
        if matches!(bytes.get(self.at), None | Some(b'}' | b']')) {
            return None;
        }
        if self.has_keys {
            let end = end_of(bytes, self.at, self.noted);
            key = self.text.get(self.at..end)?;
            self.at = skip(end);
        }
        let end = end_of(bytes, self.at, self.noted).max(self.at + 1);
        let value = self.text.get(self.at..end)?;
        self.at = end;
        Some((key, Value { text: value, noted: self.noted }))
    }
}

/// The index after the value that begins at `at`.
fn end_of(bytes: &[u8], at: usize, noted: Noted<'_>) -> usize {
    match bytes.get(at) {
        Some(b'"') => end_of_string(bytes, at),
        Some(b'{' | b'[') => noted.end_of_container(bytes, at).unwrap_or_else(|| end_of_container(bytes, at)),
        _ => bytes[at.min(bytes.len())..]
            .iter()
            .position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'))
            .map_or(bytes.len(), |length| at + length),
    }
}

fn end_of_string(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < bytes.len() {
        at += plain_length(&bytes[at..]);
        match bytes.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn end_of_container(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = open;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = end_of_string(bytes, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Decodes a string literal, quotes included.
pub(super) fn unescape(literal: &str) -> Text<'_> {
    let inner = literal.strip_prefix('"').unwrap_or(literal);
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    if !inner.contains('\\') {
        return Text { content: Cow::Borrowed(inner), is_lossy: false };
    }
    let mut content = String::with_capacity(inner.len());
    let mut is_lossy = false;
    let mut rest = inner;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        content.push_str(plain);
        let mut characters = escaped.chars();
        match characters.next() {
            Some('b') => content.push('\u{8}'),
            Some('f') => content.push('\u{c}'),
            Some('n') => content.push('\n'),
            Some('r') => content.push('\r'),
            Some('t') => content.push('\t'),
            Some('u') => {
                let (character, length) = unicode_escape(escaped);
                is_lossy |= character.is_none();
                content.push(character.unwrap_or(char::REPLACEMENT_CHARACTER));
                rest = escaped.get(length..).unwrap_or("");
                continue;
            }
            Some(character) => content.push(character),
            None => {}
        }
        rest = characters.as_str();
    }
    content.push_str(rest);
    Text { content: Cow::Owned(content), is_lossy }
}

/// Decodes `uXXXX` or `uXXXX\uXXXX`: the character, unless it is half a surrogate pair, and the length it takes.
fn unicode_escape(text: &str) -> (Option<char>, usize) {
    let unit = |from: usize| text.get(from..from + 4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let Some(first) = unit(1) else { return (None, text.len()) };
    if (0xd800..0xdc00).contains(&first)
        && text.get(5..7) == Some("\\u")
        && let Some(second @ 0xdc00..0xe000) = unit(7)
    {
        return (char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)), 11);
    }
    (char::from_u32(first), 5)
}

/// Given the beginning of an object: where the elements of its list of `messages` or `conversations` begin, if the
/// beginning ends inside that list and no `id`, which would make the object a conversation, stands before.
pub(super) fn page_list(begin: &[u8]) -> Option<(usize, super::shape::Context)> {
    use super::shape::Context;
    let text = match std::str::from_utf8(begin) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&begin[..error.valid_up_to()]).ok()?,
    };
    if !text.starts_with('{') {
        return None;
    }
    for (key, value) in Value::new(text).entries() {
        let end = value.text().as_ptr() as usize + value.text().len();
        let is_cut_off = end == text.as_ptr() as usize + text.len();
        match unescape(key).content.as_ref() {
            "id" => return None,
            name @ ("messages" | "conversations") if is_cut_off && value.is_array() => {
                let context = if name == "messages" { Context::Message } else { Context::Conversation };
                return Some((value.text().as_ptr() as usize - text.as_ptr() as usize + 1, context));
            }
            _ => {}
        }
    }
    None
}
