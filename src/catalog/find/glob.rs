//! Patterns as the rules know them (`*`, `?`, `[a-z]`, `{a,b}`, without regard to case), for SQLite's GLOB and for PostgreSQL's
//! LIKE, or its regular expressions where there are classes.

use super::text::Phrase;

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {pattern:?} cannot be read: {problem}")]
pub struct InvalidGlob {
    pattern: String,
    problem: &'static str,
}

/// The most alternatives that `{a,b}` groups may make together.
const MAX_ALTERNATIVES: usize = 64;
/// The longest pattern, in bytes.
const MAX_BYTES: usize = 512;

/// A pattern, ready for either engine: any of its alternatives may match the whole text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobPattern {
    alternatives: Vec<Vec<Piece>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(char),
    One,
    Many,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl GlobPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidGlob> {
        let invalid = |problem| InvalidGlob { pattern: text.to_owned(), problem };
        if text.len() > MAX_BYTES {
            return Err(invalid("it is longer than 512 bytes"));
        }
        let characters: Vec<char> = text.trim().to_lowercase().chars().collect();
        let mut rest = characters.as_slice();
        let alternatives = sequence(&mut rest, 0).map_err(invalid)?;
        Ok(Self { alternatives })
    }

    /// Whether it is plain text, which only the whole same text matches.
    pub fn is_literal(&self) -> bool {
        self.alternatives.iter().flatten().all(|piece| matches!(piece, Piece::Literal(_)))
    }

    /// The alternatives as SQLite's GLOB takes them.
    pub(super) fn sqlite(&self) -> Vec<String> {
        self.alternatives.iter().map(|pieces| pieces.iter().map(Piece::sqlite).collect()).collect()
    }

    /// The alternatives as PostgreSQL's LIKE takes them; or, if it cannot, as regular expressions without their anchors.
    pub(super) fn postgres(&self) -> Postgres {
        let has_classes = self.alternatives.iter().flatten().any(|piece| matches!(piece, Piece::Class { .. }));
        let each = |said: fn(&Piece) -> String| {
            self.alternatives.iter().map(|pieces| pieces.iter().map(said).collect()).collect::<Vec<String>>()
        };
        if has_classes { Postgres::Regular(each(Piece::regular)) } else { Postgres::Like(each(Piece::like)) }
    }

    /// Words, all of one of these lists, that every text has that the pattern matches; `None` if none can be told.
    pub(super) fn words(&self) -> Option<Vec<Vec<Phrase>>> {
        self.alternatives.iter().map(|pieces| words_of(pieces)).collect()
    }
}

/// A pattern in PostgreSQL's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Postgres {
    Like(Vec<String>),
    Regular(Vec<String>),
}

impl Piece {
    fn like(&self) -> String {
        match self {
            Self::Literal(sign @ ('%' | '_' | '\\')) => format!("\\{sign}"),
            Self::Literal(sign) => sign.to_string(),
            Self::One => "_".into(),
            // Where there are classes, LIKE is not used.
            Self::Many | Self::Class { .. } => "%".into(),
        }
    }

    fn regular(&self) -> String {
        // By its number, no sign has a meaning of its own.
        let escaped = |sign: char| format!("\\U{:08x}", u32::from(sign));
        match self {
            Self::Literal(sign) if sign.is_ascii_alphanumeric() => sign.to_string(),
            Self::Literal(sign) => escaped(*sign),
            Self::One => ".".into(),
            Self::Many => ".*".into(),
            Self::Class { negated, ranges } => {
                let each: Vec<String> =
                    ranges.iter().map(|(low, high)| format!("{}-{}", escaped(*low), escaped(*high))).collect();
                format!("[{}{}]", if *negated { "^" } else { "" }, each.concat())
            }
        }
    }

    fn sqlite(&self) -> String {
        match self {
            Self::Literal(sign @ ('*' | '?' | '[')) => format!("[{sign}]"),
            Self::Literal(sign) => sign.to_string(),
            Self::One => "?".into(),
            Self::Many => "*".into(),
            Self::Class { negated, ranges } => class(*negated, ranges),
        }
    }
}

/// A class in SQLite's words: `]` may stand first only, `-` next, `^` last.
fn class(negated: bool, ranges: &[(char, char)]) -> String {
    let (mut bracket, mut dash, mut caret, mut rest) = (false, false, false, String::new());
    for &(low, high) in ranges {
        let (mut low, mut high) = (u32::from(low), u32::from(high));
        // Ends of a range must be plain characters: the special ones are taken out of it, one by one.
        while low <= high {
            let special = |code: u32| matches!(char::from_u32(code), Some(']' | '-' | '^') | None);
            let end = if special(low) {
                low
            } else if special(high) {
                high
            } else {
                let ends = (char::from_u32(low), char::from_u32(high));
                match ends {
                    (Some(one), Some(same)) if one == same => rest.push(one),
                    (Some(from), Some(to)) => rest.extend([from, '-', to]),
                    _ => {}
                }
                break;
            };
            match char::from_u32(end) {
                Some(']') => bracket = true,
                Some('-') => dash = true,
                Some('^') => caret = true,
                _ => {}
            }
            if end == low {
                low += 1;
            } else {
                high -= 1;
            }
        }
    }
    if caret && !bracket && !dash && rest.is_empty() && !negated {
        return "^".into();
    }
    let mark = |set: bool, sign: &'static str| if set { sign } else { "" };
    format!("[{}{}{}{rest}{}]", mark(negated, "^"), mark(bracket, "]"), mark(dash, "-"), mark(caret, "^"))
}

/// Reads pieces up to the end, or, within a group, up to `,` or `}`.
fn sequence(rest: &mut &[char], depth: usize) -> Result<Vec<Vec<Piece>>, &'static str> {
    let mut alternatives: Vec<Vec<Piece>> = vec![Vec::new()];
    while let Some((&sign, after)) = rest.split_first() {
        if depth > 0 && matches!(sign, ',' | '}') {
            return Ok(alternatives);
        }
        *rest = after;
        let piece = match sign {
            '?' => Piece::One,
            '*' => Piece::Many,
            '[' => read_class(rest)?,
            '{' => {
                let group = read_group(rest, depth + 1)?;
                alternatives = alternatives
                    .iter()
                    .flat_map(|before| group.iter().map(|choice| [before.as_slice(), choice].concat()))
                    .collect();
                if alternatives.len() > MAX_ALTERNATIVES {
                    return Err("its groups make more than 64 alternatives");
                }
                continue;
            }
            '}' => return Err("a } without its {"),
            '\\' => {
                let (&escaped, after) = rest.split_first().ok_or("it ends with a lone \\")?;
                *rest = after;
                Piece::Literal(escaped)
            }
            sign => Piece::Literal(sign),
        };
        for pieces in &mut alternatives {
            if !(piece == Piece::Many && pieces.last() == Some(&Piece::Many)) {
                pieces.push(piece.clone());
            }
        }
    }
    if depth > 0 { Err("a { without its }") } else { Ok(alternatives) }
}

fn read_group(rest: &mut &[char], depth: usize) -> Result<Vec<Vec<Piece>>, &'static str> {
    if depth > 8 {
        return Err("its groups are nested too deep");
    }
    let mut choices = Vec::new();
    loop {
        choices.extend(sequence(rest, depth)?);
        let (&sign, after) = rest.split_first().ok_or("a { without its }")?;
        *rest = after;
        if sign == '}' {
            // As in the patterns of the rules, a choice of nothing is none.
            choices.retain(|choice| !choice.is_empty());
            return Ok(if choices.is_empty() { vec![Vec::new()] } else { choices });
        }
    }
}

fn read_class(rest: &mut &[char]) -> Result<Piece, &'static str> {
    const UNCLOSED: &str = "a [ without its ]";
    let mut next = || -> Result<char, &'static str> {
        let (&sign, after) = rest.split_first().ok_or(UNCLOSED)?;
        *rest = after;
        Ok(sign)
    };
    let mut sign = next()?;
    let negated = matches!(sign, '!' | '^');
    if negated {
        sign = next()?;
    }
    let mut members: Vec<(char, char)> = Vec::new();
    let (mut first, mut in_range) = (true, false);
    loop {
        match sign {
            ']' if !first => break,
            '-' if !first && !in_range => in_range = true,
            sign => match members.last_mut().filter(|_| in_range) {
                Some(last) => {
                    if last.0 > sign {
                        return Err("a range that goes backwards");
                    }
                    last.1 = sign;
                    in_range = false;
                }
                None => members.push((sign, sign)),
            },
        }
        first = false;
        sign = next()?;
    }
    if in_range {
        members.push(('-', '-'));
    }
    Ok(Piece::Class { negated, ranges: members })
}

/// The words that a text must have to match `pieces`: runs of ASCII letters and digits whose ends are certain.
fn words_of(pieces: &[Piece]) -> Option<Vec<Phrase>> {
    let mut words: Vec<Phrase> = Vec::new();
    let mut word = String::new();
    // Whether the word's beginning is certain: it stands at the start, or behind a separator.
    let mut begins = true;
    for piece in pieces.iter().map(Some).chain([None]) {
        match piece {
            Some(Piece::Literal(sign)) if sign.is_ascii_alphanumeric() => word.push(*sign),
            end => {
                // Behind anything but ASCII nobody can tell whether a word goes on.
                let certain = match end {
                    None => true,
                    Some(Piece::Literal(sign)) => sign.is_ascii(),
                    Some(_) => false,
                };
                let is_open = matches!(end, Some(Piece::One | Piece::Many | Piece::Class { .. }));
                if begins && !word.is_empty() {
                    if certain {
                        words.push(Phrase { text: word.clone(), is_beginning: false });
                    } else if is_open && word.len() > 1 {
                        words.push(Phrase { text: word.clone(), is_beginning: true });
                    }
                }
                word.clear();
                begins = certain;
            }
        }
    }
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests;
