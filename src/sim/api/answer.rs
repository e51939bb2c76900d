//! What answers are made of.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::http::{Next, write_answer};

const JSON: &str = "Content-Type: application/json; charset=utf-8\r\nCache-Control: no-cache\r\n";
pub(super) const INVALID_TOKEN: &str = r#"{"error":"Invalid API token"}"#;
pub(super) const NOT_FOUND: &str = r#"{"error":"Resource not found"}"#;
pub(super) const NO_ENDPOINT: &str = r#"{"error":"Endpoint not found"}"#;
pub(super) const FORBIDDEN: &str = r#"{"error":"Forbidden"}"#;
pub(super) const BROKEN: &str = r#"{"error":"Internal server error"}"#;
const TOO_MANY: &str = r#"{"error":"Rate limit exceeded"}"#;
/// What someone who is not signed in would see.
pub(in crate::sim) const LOGIN_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><form \
    action=\"/session\" method=\"post\"><label>Email <input name=\"email\"></label></form></body></html>\n";

/// What a call comes to.
pub(super) type Outcome = Result<Done, Refusal>;

/// A call that was done.
#[derive(Debug)]
pub(super) enum Done {
    /// 200.
    Ok(Value),
    /// 201.
    Created(Value),
}

/// A call that was not.
#[derive(Debug)]
pub(super) enum Refusal {
    /// 404: there is no such thing.
    NotFound,
    /// 409, with what is there already.
    Conflict(Value),
    /// 422, with what is wrong.
    Invalid(Vec<String>),
}

impl Refusal {
    /// 422 with one message.
    pub(super) fn invalid(error: impl Into<String>) -> Self {
        Self::Invalid(vec![error.into()])
    }
}

/// Writes what a call came to.
pub(super) fn outcome(out: &mut Vec<u8>, now: Timestamp, outcome: Outcome) -> Next {
    let (status, body) = match outcome {
        Ok(Done::Ok(value)) => ("200 OK", value.to_string()),
        Ok(Done::Created(value)) => ("201 Created", value.to_string()),
        Err(Refusal::NotFound) => ("404 Not Found", NOT_FOUND.to_owned()),
        Err(Refusal::Conflict(value)) => ("409 Conflict", value.to_string()),
        Err(Refusal::Invalid(errors)) => ("422 Unprocessable Content", json!({ "errors": errors }).to_string()),
    };
    dated(out, now, status, &body)
}

/// Writes JSON.
pub(super) fn json(out: &mut Vec<u8>, status: &str, body: &str) -> Next {
    write_answer(out, status, JSON, body.as_bytes());
    Next::KeepAlive
}

/// Writes JSON that tells the time, as the service's answers do.
pub(super) fn dated(out: &mut Vec<u8>, now: Timestamp, status: &str, body: &str) -> Next {
    let headers = format!("{JSON}Date: {}\r\n", http_date(now));
    write_answer(out, status, &headers, body.as_bytes());
    Next::KeepAlive
}

/// Writes a 429.
pub(super) fn too_many(out: &mut Vec<u8>, retry_after: &str) -> Next {
    let headers = format!("{JSON}Retry-After: {retry_after}\r\n");
    write_answer(out, "429 Too Many Requests", &headers, TOO_MANY.as_bytes());
    Next::KeepAlive
}

/// Writes a page where JSON is expected.
pub(super) fn html(out: &mut Vec<u8>) -> Next {
    write_answer(out, "200 OK", "Content-Type: text/html; charset=utf-8\r\n", LOGIN_PAGE.as_bytes());
    Next::KeepAlive
}

/// A time as HTTP writes it (RFC 9110 §5.6.7).
pub(super) fn http_date(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
