//! How answers are printed: tables of what a terminal can bear, or the service's own JSON.

use std::process::ExitCode;

use serde_json::Value;
use serde_json::value::RawValue;

use super::super::session::settings;
use super::super::{DONE, Global, output};
use crate::http::BaseUrl;
use crate::jelly::{ApiRequest, Cursor, Received};

/// The longest text in a column, in characters.
const MAX_CELL: usize = 60;

/// A field from the service, for a terminal.
pub(super) fn cell(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| output::printable(text, MAX_CELL))
}

/// Some names from the service, for a terminal.
pub(super) fn cells<'a>(texts: impl IntoIterator<Item = Option<&'a str>>) -> String {
    let all: Vec<String> = texts.into_iter().map(cell).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

/// A number from the service, for a terminal.
pub(super) fn count(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), super::super::receipt::number)
}

/// A list, as JSON: each entry as it came.
pub(super) fn list<'a>(entries: impl IntoIterator<Item = &'a RawValue>) -> String {
    let texts: Vec<&str> = entries.into_iter().map(RawValue::get).collect();
    format!("[{}]", texts.join(","))
}

/// The texts of what was received.
pub(super) fn raws<T>(entries: &[Received<T>]) -> impl Iterator<Item = &RawValue> {
    entries.iter().map(Received::raw)
}

/// A cursor, as JSON.
pub(super) fn cursor(cursor: Option<&Cursor>) -> String {
    cursor.map_or_else(|| "null".to_owned(), |cursor| Value::from(cursor.as_str()).to_string())
}

/// Prints one JSON document: `ok`, and these fields, whose values are JSON.
pub(super) fn document(fields: &[(&str, &str)]) {
    let fields: Vec<String> = fields.iter().map(|(name, json)| format!("\"{name}\":{json}")).collect();
    output::line(visible(&format!("{{\"ok\":true,{}}}", fields.join(","))));
}

/// JSON with every character escaped that a terminal would obey or hide. It means the same: such characters stand in
/// texts alone, save line ends and tabs between the values.
fn visible(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        let hidden = matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        match character {
            // Not within a text, where they would be escaped (RFC 8259 §7).
            '\n' | '\r' | '\t' => out.push(' '),
            _ if character.is_control() || hidden => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out
}

/// What a dry run would send.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) request: ApiRequest,
    /// What follows from its answer, in words, where the next request depends on it.
    pub(super) then: Option<String>,
}

impl From<ApiRequest> for Plan {
    fn from(request: ApiRequest) -> Self {
        Self { request, then: None }
    }
}

/// Prints what a dry run would send.
pub(super) fn plan(plan: &Plan, global: &Global) -> anyhow::Result<ExitCode> {
    let Plan { request, then } = plan;
    let config = settings(&global.overrides(true))?.config;
    let url = format!("{}{}", BaseUrl::parse(&config.api.base_url)?, request.path());
    if global.json {
        let body = request.json().map_or_else(|| "null".to_owned(), Value::to_string);
        let text = |text: &str| Value::from(text).to_string();
        let (method, url) = (text(request.method()), text(&url));
        let then = then.as_deref().map(text);
        let mut fields = vec![("dry_run", "true"), ("method", &*method), ("url", &url), ("body", &body)];
        fields.extend(then.as_deref().map(|then| ("then", then)));
        document(&fields);
    } else {
        output::line(format!("{} {url}", request.method()));
        if let Some(body) = request.json() {
            output::line(visible_lines(&format!("{body:#}")));
        }
        if let Some(then) = then {
            output::note(format!("Then: {}.", output::printable(then, 500)));
        }
        output::note("Nothing was sent (--dry-run).");
    }
    Ok(ExitCode::from(DONE))
}

/// Like [`visible`], with its lines kept.
fn visible_lines(json: &str) -> String {
    json.lines().map(visible).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_printed_without_what_a_terminal_obeys_and_means_the_same() {
        let json = "{\"a\":\"x\u{9b}2J\u{202e}y\u{7f}\u{2028}\", \n\"b\" :\t1e400}";
        let shown = visible(json);
        assert_eq!(shown, "{\"a\":\"x\\u009b2J\\u202ey\\u007f\\u2028\",  \"b\" : 1e400}");
        let text: Value = serde_json::from_str("\"x\u{9b}\u{202e}\"").unwrap();
        assert_eq!(serde_json::from_str::<Value>(&visible("\"x\u{9b}\u{202e}\"")).unwrap(), text);
    }

    #[test]
    fn cells_show_no_control_characters_and_no_nothing() {
        assert_eq!(cell(Some("a\u{1b}[2J")), "a\u{fffd}[2J");
        assert_eq!((cell(None), cells([]), cells([Some("a"), None])), ("-".into(), "-".into(), "a, -".into()));
    }
}
