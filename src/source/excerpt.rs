//! The first characters of something that could not be read, fit to be shown: printable, with secrets cut.

/// The most characters of an excerpt.
const MAX_CHARACTERS: usize = 120;
/// How much is looked at to find them.
const MAX_BYTES: usize = 1024;
/// Longer runs of token characters are cut, as an attachment id or a key may be among them.
const MAX_TOKEN_LENGTH: usize = 23;
const CUT: &str = "[cut]";
/// Words in a key whose value is cut.
const SECRET_WORDS: &[&str] = &[
    "token",
    "secret",
    "password",
    "passwd",
    "authorization",
    "signature",
    "api_key",
    "apikey",
    "cookie",
    "credential",
];

/// Makes the excerpt of `bytes`.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(MAX_BYTES)];
    let text: String = String::from_utf8_lossy(head).chars().map(printable).collect();
    let text = cut_long_tokens(&cut_queries(&cut_schemes(&cut_values(&text))));
    text.trim().chars().take(MAX_CHARACTERS).collect()
}

fn printable(character: char) -> char {
    let is_hidden = character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    if is_hidden { ' ' } else { character }
}

/// Cuts what follows a secret word and `:` or `=`.
fn cut_values(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut result = String::with_capacity(text.len());
    let mut at = 0;
    while let Some((found, word)) =
        SECRET_WORDS.iter().filter_map(|word| lower[at..].find(word).map(|found| (at + found, word))).min()
    {
        let is_filler = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '"' | '\\' | '\'' | ' ');
        let after_word = found + word.len();
        let sign = after_word + text[after_word..].find(|c| !is_filler(c)).unwrap_or(text.len() - after_word);
        if !text[sign..].starts_with([':', '=']) {
            result.push_str(&text[at..after_word]);
            at = after_word;
            continue;
        }
        let open = sign + 1;
        let value = open + text[open..].find(|c| !matches!(c, '"' | '\\' | '\'' | ' ')).unwrap_or(text.len() - open);
        let is_quoted = text[open..value].contains(['"', '\'']);
        let ends = |c: char| matches!(c, '"' | '\\' | '\'') || !is_quoted && matches!(c, ',' | '}' | '&' | ';');
        let end = value + text[value..].find(ends).unwrap_or(text.len() - value);
        result.push_str(&text[at..value]);
        result.push_str(CUT);
        at = end;
    }
    result.push_str(&text[at..]);
    result
}

/// Cuts what follows `Bearer` or `Basic`.
fn cut_schemes(text: &str) -> String {
    let mut result = text.to_owned();
    for scheme in ["bearer ", "basic "] {
        let mut at = 0;
        while let Some(found) = result.to_ascii_lowercase()[at..].find(scheme) {
            let value = at + found + scheme.len();
            let end = value + result[value..].find([' ', '"', '\\']).unwrap_or(result.len() - value);
            result.replace_range(value..end, CUT);
            at = value + CUT.len();
        }
    }
    result
}

/// Cuts the query and the credentials of URLs.
fn cut_queries(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find("://") {
        let (before, after) = rest.split_at(found + 3);
        result.push_str(before);
        let end = after.find([' ', '"', '\\', '<', '>', '\'']).unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        let (address, query) = url.split_once(['?', '#']).map_or((url, false), |(address, _)| (address, true));
        let authority_end = address.find('/').unwrap_or(address.len());
        match address[..authority_end].rfind('@') {
            Some(sign) => {
                result.push_str(CUT);
                result.push_str(&address[sign..]);
            }
            None => result.push_str(address),
        }
        if query {
            result.push('?');
            result.push_str(CUT);
        }
        rest = tail;
    }
    result.push_str(rest);
    result
}

fn cut_long_tokens(text: &str) -> String {
    let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '=' | '+' | '/' | '%' | '.');
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(is_token) {
        let length = rest[begin..].find(|c| !is_token(c)).unwrap_or(rest.len() - begin);
        let run = &rest[begin..begin + length];
        result.push_str(&rest[..begin]);
        // Paths and host names are long, but their parts are not.
        let is_long = run.split(['/', '.']).any(|part| part.len() > MAX_TOKEN_LENGTH);
        result.push_str(if is_long { CUT } else { run });
        rest = &rest[begin + length..];
    }
    result.push_str(rest);
    result
}
