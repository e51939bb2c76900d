//! What an answer says that is not the expected one, made safe to print.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use reqwest::Response;
use serde_json::Value;

use crate::http::{read_body, retry_after};

/// The most of the service's own words that one message repeats, in characters.
const MAX_WORDS: usize = 200;
/// The most messages of one answer that are repeated.
const MAX_MESSAGES: usize = 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// How long it asks to wait.
    pub(super) retry_after: Option<Duration>,
    /// What the service says; one text unless it lists several. Never empty.
    pub(super) messages: Vec<String>,
    /// What the body is, where it is not JSON.
    pub(super) not_json: Option<&'static str>,
}

impl Refusal {
    /// What a body is that begins like HTML or XML.
    pub(super) const PAGE: &str = "a page (HTML or XML)";

    /// Reads what there is of the body, as far as it comes soon; `secrets` are cut from what it says.
    pub(super) async fn read(mut response: Response, now: Timestamp, secrets: &[&str]) -> Self {
        let status = response.status();
        let retry_after = retry_after(response.headers(), now);
        let body = read_body(&mut response).await;
        Self { status, retry_after, messages: messages(&body, secrets), not_json: not_json(&body) }
    }
}

/// What a body is that is not JSON; `None` if it is.
pub(super) fn not_json(body: &[u8]) -> Option<&'static str> {
    let text = body.trim_ascii_start();
    if text.is_empty() {
        Some("an empty body")
    } else if text.starts_with(b"<") {
        Some(Refusal::PAGE)
    } else if std::str::from_utf8(body)
        .map_or(true, |text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_err())
    {
        Some("a body that is not JSON")
    } else {
        None
    }
}

/// What the service says in an error body (`{"error": …}` or `{"errors": […]}`).
fn messages(body: &[u8], secrets: &[&str]) -> Vec<String> {
    let texts = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(mut fields)) => match fields.remove("errors").or_else(|| fields.remove("error")) {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(texts)) => texts
                .into_iter()
                .filter_map(|text| if let Value::String(text) = text { Some(text) } else { None })
                .take(MAX_MESSAGES)
                .collect(),
            _ => Vec::new(),
        },
        Ok(_) => Vec::new(),
        Err(_) if body.is_empty() => vec!["no body".to_owned()],
        Err(_) => vec!["the body is not JSON".to_owned()],
    };
    if texts.is_empty() {
        return vec!["no error message".to_owned()];
    }
    texts.into_iter().map(|text| printable(&without(text, secrets))).collect()
}

/// Cuts secrets out.
pub(super) fn without(text: String, secrets: &[&str]) -> String {
    // A secret of a few signs is a word like any other.
    let cut = |text: String, secret: &&str| if secret.len() < 4 { text } else { text.replace(secret, "[cut]") };
    secrets.iter().fold(text, cut)
}

/// At most 200 printable characters; words that look like links or tokens (long, without a space) are cut out.
pub(super) fn printable(text: &str) -> String {
    let secretive = |word: &str| word.contains("://") || word.contains("eyJ") || word.len() > 40 || word.contains("--");
    let safe = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let mut words: Vec<String> = Vec::new();
    let mut after_bearer = false;
    for word in text.split_whitespace() {
        let cut = after_bearer || secretive(word);
        after_bearer = word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic");
        words.push(if cut { "[cut]".to_owned() } else { word.chars().filter(|c| safe(*c)).collect() });
    }
    words.join(" ").chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_error_shapes_are_read() {
        let words = |body: &[u8], secrets: &[&str]| messages(body, secrets).join("; ");
        assert_eq!(words(br#"{"error":"Invalid API token"}"#, &[]), "Invalid API token");
        assert_eq!(messages(br#"{"errors":["Name can't be blank",7,"Too long"]}"#, &[]).len(), 2);
        assert_eq!(words(b"<html>", &[]), "the body is not JSON");
        assert_eq!(words(b"", &[]), "no body");
        assert_eq!(words(br#"{"error":7}"#, &[]), "no error message");
        assert_eq!(words(br#"{"errors":[]}"#, &[]), "no error message");
        assert_eq!(words(b"[]", &[]), "no error message");
        assert_eq!(words(br#"{"error":"no file id-77."}"#, &["id-77", "n"]), "no file [cut].");
        let many = format!("{{\"errors\":[{}\"x\"]}}", "\"x\",".repeat(500));
        assert_eq!(messages(many.as_bytes(), &[]).len(), 20);
    }

    #[test]
    fn the_services_words_are_made_safe_to_print() {
        let text =
            printable("a\u{1b}[31m b\u{202e} see https://x.example/?sig=1 eyJfcmFpbHMi Authorization: Bearer t0k");
        assert_eq!(text, "a[31m b see [cut] [cut] Authorization: Bearer [cut]");
        assert_eq!(printable(&"word ".repeat(100)).chars().count(), 200);
        assert_eq!(printable(&"x".repeat(41)), "[cut]");
    }

    #[test]
    fn bodies_that_are_not_json_are_named() {
        assert_eq!(not_json(b" {} "), None);
        assert_eq!(not_json(b"  "), Some("an empty body"));
        assert_eq!(not_json(b"\n<!DOCTYPE html>"), Some(Refusal::PAGE));
        assert_eq!(not_json(b"{"), Some("a body that is not JSON"));
        assert_eq!(not_json(b"{\"a\":\"\xff\"}"), Some("a body that is not JSON"));
    }
}
