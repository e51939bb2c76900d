//! The judge of what JSON is (RFC 8259): a state machine that takes bytes as they come, finds where one value ends and
//! fails at the first byte that no valid text could hold. Knows no encoding beyond ASCII and keeps no bytes.

/// How deep arrays and objects may stand in each other.
pub(super) const MAX_DEPTH: u32 = 128;

/// What [`Scanner::feed`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// All bytes were taken; the value goes on.
    More,
    /// The value ended before this index.
    End(usize),
    /// The byte at this index cannot stand there.
    Bad(usize, &'static str),
}

#[derive(Debug, Clone, Copy)]
enum State {
    Value,
    ElementOrEnd,
    KeyOrEnd,
    Key,
    Colon,
    AfterValue,
    Text { key: bool },
    Escape { key: bool },
    Unicode { key: bool, left: u8 },
    Literal(&'static [u8]),
    Number(Number),
    Done,
}

#[derive(Debug, Clone, Copy)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    /// The state after one more byte; `None` where the number ends before it.
    const fn next(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus, b'1'..=b'9') | (Self::Integer, b'0'..=b'9') => Some(Self::Integer),
            (Self::Zero | Self::Integer, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Some(Self::Exponent),
            (Self::Exponent, b'+' | b'-') => Some(Self::ExponentSign),
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => Some(Self::ExponentDigits),
            _ => None,
        }
    }

    /// Whether a number may end here.
    const fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Integer | Self::Fraction | Self::ExponentDigits)
    }
}

/// The most containers of a value that are noted; what lies behind them is walked again when it is read.
const MAX_NOTED: usize = 4096;

/// Where the containers of a value begin and end, in the order of their beginnings, so that whoever reads the value
/// need not walk through them to step over them.
#[derive(Debug, Clone, Default)]
pub(super) struct Containers {
    spans: Vec<(usize, usize)>,
    /// The open ones that are noted, by place in `spans`.
    open: Vec<usize>,
}

impl Containers {
    /// Begin and end of each; an end of 0 stands for one that was not closed.
    pub(super) fn spans(&self) -> &[(usize, usize)] {
        &self.spans
    }

    fn clear(&mut self) {
        self.spans.clear();
        self.open.clear();
    }

    fn begin(&mut self, at: usize) {
        if self.spans.len() < MAX_NOTED {
            self.open.push(self.spans.len());
            self.spans.push((at, 0));
        }
    }

    /// `depth` is that of the container which ends: those that are not noted stand within those that are.
    fn end(&mut self, at: usize, depth: u32) {
        if self.open.len() == depth as usize
            && let Some(place) = self.open.pop()
        {
            self.spans[place].1 = at + 1;
        }
    }
}

/// Scans one value, which must begin at the first byte that is fed.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    /// What is noted of the value's containers.
    containers: Option<Containers>,
    /// How many bytes were fed before.
    fed: usize,
    /// One bit for each open container: 1 for an object. The innermost is the lowest.
    objects: u128,
    depth: u32,
    state: State,
}

impl Scanner {
    /// Begins before a value.
    pub(super) const fn new() -> Self {
        Self { containers: None, fed: 0, objects: 0, depth: 0, state: State::Value }
    }

    /// Begins before a value whose containers are to be noted, in place of what was noted before.
    pub(super) fn noting(mut containers: Containers) -> Self {
        containers.clear();
        Self { containers: Some(containers), ..Self::new() }
    }

    /// What was noted.
    pub(super) fn into_containers(self) -> Containers {
        self.containers.unwrap_or_default()
    }

    /// Begins inside an object, after one of its values.
    pub(super) const fn in_object() -> Self {
        Self { containers: None, fed: 0, objects: 1, depth: 1, state: State::AfterValue }
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Step {
        let step = self.take(bytes);
        self.fed += bytes.len();
        step
    }

    fn take(&mut self, bytes: &[u8]) -> Step {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Done => return Step::End(at),
                State::Text { key } => {
                    at += plain_length(&bytes[at..]);
                    match bytes.get(at) {
                        None => return Step::More,
                        Some(b'"') if key => self.state = State::Colon,
                        Some(b'"') => self.complete(),
                        Some(b'\\') => self.state = State::Escape { key },
                        Some(_) => return Step::Bad(at, "a raw control character or line break in a string"),
                    }
                }
                State::Escape { key } => match byte {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.state = State::Text { key },
                    b'u' => self.state = State::Unicode { key, left: 4 },
                    _ => return Step::Bad(at, "an unknown escape in a string"),
                },
                State::Unicode { key, left } => {
                    if !byte.is_ascii_hexdigit() {
                        return Step::Bad(at, "a broken \\u escape in a string");
                    }
                    self.state = if left == 1 { State::Text { key } } else { State::Unicode { key, left: left - 1 } };
                }
                State::Number(number) => match number.next(byte) {
                    Some(next) => self.state = State::Number(next),
                    None if number.is_whole() => {
                        self.complete();
                        continue;
                    }
                    None => return Step::Bad(at, "a broken number"),
                },
                State::Literal(rest) => match rest.split_first() {
                    Some((&expected, rest)) if expected == byte => {
                        if rest.is_empty() {
                            self.complete();
                        } else {
                            self.state = State::Literal(rest);
                        }
                    }
                    _ => return Step::Bad(at, "a word that is no JSON"),
                },
                _ if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') => {}
                _ => {
                    if let Err(reason) = self.structural(byte, at) {
                        return Step::Bad(at, reason);
                    }
                }
            }
            at += 1;
        }
        if matches!(self.state, State::Done) { Step::End(at) } else { Step::More }
    }

    /// Whether the value is whole when nothing follows.
    pub(super) const fn may_end(&self) -> bool {
        match self.state {
            State::Done => true,
            State::Number(number) => self.depth == 0 && number.is_whole(),
            _ => false,
        }
    }

    fn structural(&mut self, byte: u8, at: usize) -> Result<(), &'static str> {
        match (self.state, byte) {
            (State::ElementOrEnd, b']') | (State::KeyOrEnd, b'}') => self.close(at),
            (State::Value | State::ElementOrEnd, _) => return self.begin_value(byte, at),
            (State::Key | State::KeyOrEnd, b'"') => self.state = State::Text { key: true },
            (State::Key | State::KeyOrEnd, _) => return Err("a key was expected here"),
            (State::Colon, b':') => self.state = State::Value,
            (State::Colon, _) => return Err("a colon was expected here"),
            (_, b',') => self.state = if self.objects & 1 == 1 { State::Key } else { State::Value },
            (_, b'}') if self.objects & 1 == 1 => self.close(at),
            (_, b']') if self.objects & 1 == 0 => self.close(at),
            _ => return Err("a comma or the end of the list or object was expected here"),
        }
        Ok(())
    }

    fn begin_value(&mut self, byte: u8, at: usize) -> Result<(), &'static str> {
        self.state = match byte {
            b'{' | b'[' => {
                if self.depth == MAX_DEPTH {
                    return Err("nested too deeply (128 levels are allowed)");
                }
                self.depth += 1;
                if let Some(containers) = &mut self.containers {
                    containers.begin(self.fed + at);
                }
                self.objects = self.objects << 1 | u128::from(byte == b'{');
                if byte == b'{' { State::KeyOrEnd } else { State::ElementOrEnd }
            }
            b'"' => State::Text { key: false },
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Integer),
            b't' => State::Literal(b"rue"),
            b'f' => State::Literal(b"alse"),
            b'n' => State::Literal(b"ull"),
            _ => return Err("a JSON value was expected here"),
        };
        Ok(())
    }

    fn close(&mut self, at: usize) {
        if let Some(containers) = &mut self.containers {
            containers.end(self.fed + at, self.depth);
        }
        self.objects >>= 1;
        self.depth -= 1;
        self.complete();
    }

    const fn complete(&mut self) {
        self.state = if self.depth == 0 { State::Done } else { State::AfterValue };
    }
}

/// Whether `text` is exactly one JSON value, white space around it allowed.
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    let bytes = text.trim_ascii().as_bytes();
    let mut scanner = Scanner::new();
    match scanner.feed(bytes) {
        Step::Bad(_, reason) => Err(reason),
        Step::End(end) if end == bytes.len() => Ok(()),
        Step::End(_) => Err("something follows the JSON value"),
        Step::More if scanner.may_end() => Ok(()),
        Step::More => Err("the JSON ends before it is whole"),
    }
}

/// How many bytes at the beginning are neither a quote, a backslash nor a control character; eight at a time.
#[inline]
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = word ^ (ONES * 0x22);
        let quote = quote.wrapping_sub(ONES) & !quote;
        let backslash = word ^ (ONES * 0x5c);
        let backslash = backslash.wrapping_sub(ONES) & !backslash;
        let hits = (control | quote | backslash) & HIGH;
        if hits != 0 {
            return index * 8 + (hits.trailing_zeros() / 8) as usize;
        }
    }
    let plain = rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count();
    words.len() * 8 + plain
}
