//! The API server: the token, the limits, the exchange of an id for a signed link, and the simulator's own control
//! pages under `/_sim/`.

use std::fmt::Write as _;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use super::faults::{Fault, Faults};
use super::http::{Next, Request, write_answer};
use super::ids::Blob;
use super::state::{State, lock};

const JSON: &str = "Content-Type: application/json; charset=utf-8\r\nCache-Control: no-cache\r\n";
const INVALID_TOKEN: &str = r#"{"error":"Invalid API token"}"#;
const NOT_FOUND: &str = r#"{"error":"Resource not found"}"#;
const NO_ENDPOINT: &str = r#"{"error":"Endpoint not found"}"#;
const FORBIDDEN: &str = r#"{"error":"Forbidden"}"#;
const TOO_MANY: &str = r#"{"error":"Rate limit exceeded"}"#;
const BROKEN: &str = r#"{"error":"Internal server error"}"#;
const MEMBERS: &str = r#"[{"id":"41","name":"Ada Winter","email":"ada@harbour.example","role":"owner","active":true},{"id":"42","name":"Jonas Okafor","email":"jonas@harbour.example","role":"member","active":true},{"id":"47","name":"Mirela Popescu","email":"mirela@harbour.example","role":"member","active":true}]"#;
pub(super) const LOGIN_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><form \
    action=\"/session\" method=\"post\"><label>Email <input name=\"email\"></label></form></body></html>\n";

const EXCHANGE_FAULTS: [Fault; 15] = [
    Fault::ApiReset,
    Fault::ApiStall,
    Fault::Api401,
    Fault::Api403,
    Fault::Api404,
    Fault::Api429,
    Fault::Api429Date,
    Fault::Api500,
    Fault::Api503,
    Fault::ApiHtml,
    Fault::MissingLocation,
    Fault::LinkMetadata,
    Fault::LinkPrivate,
    Fault::ExpiredLink,
    Fault::ShortLink,
];

/// Answers one request.
pub(super) fn answer(state: &State, request: &Request<'_>, out: &mut Vec<u8>) -> Next {
    let path = request.target.split_once('?').map_or(request.target, |(path, _)| path);
    if let Some(page) = path.strip_prefix("/_sim/") {
        return control(state, request, page, out);
    }
    state.counters.api_requests.fetch_add(1, Relaxed);
    let now = state.clock.now();
    let taken = lock(&state.limits).take(now.as_millisecond());
    if let Err(seconds) = taken {
        state.counters.rate_limited.fetch_add(1, Relaxed);
        return too_many(out, &seconds.to_string());
    }
    let authorized = {
        let expected = state.authorization.read().unwrap_or_else(PoisonError::into_inner);
        request.header("authorization").is_some_and(|value| value == *expected)
    };
    if !authorized {
        state.counters.unauthorized.fetch_add(1, Relaxed);
        return dated(state, out, "401 Unauthorized", INVALID_TOKEN);
    }
    match path.strip_prefix("/api/") {
        Some("members") if request.method == "GET" => members(state, out),
        Some(rest) if request.method == "GET" => match rest.strip_prefix("attachments/") {
            Some(id) if !id.contains('/') => exchange(state, id, now, out),
            _ => unknown(state, out),
        },
        _ => unknown(state, out),
    }
}

fn unknown(state: &State, out: &mut Vec<u8>) -> Next {
    state.counters.other.fetch_add(1, Relaxed);
    json(out, "404 Not Found", NO_ENDPOINT)
}

fn members(state: &State, out: &mut Vec<u8>) -> Next {
    state.counters.members.fetch_add(1, Relaxed);
    let asked = state.members_asked.fetch_add(1, Relaxed);
    let asked = u32::try_from(asked).unwrap_or(u32::MAX);
    match state.pick(&[Fault::Members401, Fault::Members403], 0, asked) {
        Some(Fault::Members401) => dated(state, out, "401 Unauthorized", INVALID_TOKEN),
        Some(_) => dated(state, out, "403 Forbidden", FORBIDDEN),
        None => dated(state, out, "200 OK", MEMBERS),
    }
}

/// An answer that tells the time, as the service's answers do.
fn dated(state: &State, out: &mut Vec<u8>, status: &str, body: &str) -> Next {
    let headers = format!("{JSON}Date: {}\r\n", http_date(state.clock.now()));
    write_answer(out, status, &headers, body.as_bytes());
    Next::KeepAlive
}

fn exchange(state: &State, id: &str, now: Timestamp, out: &mut Vec<u8>) -> Next {
    state.counters.exchanges.fetch_add(1, Relaxed);
    let blob = percent_decode_str(id).decode_utf8().ok().and_then(|id| state.ids.verify(&id));
    let Some(blob) = blob else {
        state.counters.unknown_ids.fetch_add(1, Relaxed);
        return json(out, "404 Not Found", NOT_FOUND);
    };
    let fault = state.next_fault(blob, &EXCHANGE_FAULTS, |asked| &mut asked.exchanges);
    let (retry_after, _, short_link) = state.measures();
    match fault {
        None => link(state, blob, now, state.link_ttl, out),
        Some(Fault::ExpiredLink) => link(state, blob, now, Duration::ZERO, out),
        Some(Fault::ShortLink) => link(state, blob, now, short_link, out),
        Some(Fault::LinkMetadata) => {
            found(out, Some("http://169.254.169.254/latest/meta-data/iam/security-credentials/"))
        }
        Some(Fault::LinkPrivate) => found(out, Some("http://10.0.0.1/jelly-sim-attachments/object")),
        Some(Fault::MissingLocation) => found(out, None),
        Some(Fault::ApiReset) => Next::Reset,
        Some(Fault::ApiStall) => Next::Stall,
        Some(Fault::Api401) => json(out, "401 Unauthorized", INVALID_TOKEN),
        Some(Fault::Api403) => json(out, "403 Forbidden", FORBIDDEN),
        Some(Fault::Api404) => json(out, "404 Not Found", NOT_FOUND),
        Some(Fault::Api429) => too_many(out, &retry_after.to_string()),
        Some(Fault::Api429Date) => {
            let until_ms = now.as_millisecond().saturating_add_unsigned(retry_after.saturating_mul(1000));
            let until = Timestamp::from_millisecond(until_ms).unwrap_or(now);
            too_many(out, &http_date(until))
        }
        Some(Fault::Api503) => {
            let headers = "Content-Type: application/json; charset=utf-8\r\n";
            write_answer(out, "503 Service Unavailable", headers, br#"{"error":"Service unavailable"}"#);
            Next::KeepAlive
        }
        Some(Fault::ApiHtml) => {
            write_answer(out, "200 OK", "Content-Type: text/html; charset=utf-8\r\n", LOGIN_PAGE.as_bytes());
            Next::KeepAlive
        }
        Some(_) => json(out, "500 Internal Server Error", BROKEN),
    }
}

fn link(state: &State, blob: Blob, now: Timestamp, ttl: Duration, out: &mut Vec<u8>) -> Next {
    state.counters.links.fetch_add(1, Relaxed);
    let mut location = String::with_capacity(2048);
    state.mint_link(blob, now, ttl, &mut location);
    found(out, Some(&location))
}

/// Writes a 302 with the small chunked page that the service sends along.
fn found(out: &mut Vec<u8>, location: Option<&str>) -> Next {
    out.extend_from_slice(
        b"HTTP/1.1 302 Found\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: max-age=300, private\r\n\
          Transfer-Encoding: chunked\r\n",
    );
    if let Some(location) = location {
        out.extend_from_slice(b"Location: ");
        out.extend_from_slice(location.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let page = "<html><body>You are being <a href=\"#\">redirected</a>.</body></html>";
    let mut body = String::new();
    let _ = write!(body, "\r\n{:x}\r\n{page}\r\n0\r\n\r\n", page.len());
    out.extend_from_slice(body.as_bytes());
    Next::KeepAlive
}

fn too_many(out: &mut Vec<u8>, retry_after: &str) -> Next {
    let headers = format!("{JSON}Retry-After: {retry_after}\r\n");
    write_answer(out, "429 Too Many Requests", &headers, TOO_MANY.as_bytes());
    Next::KeepAlive
}

fn json(out: &mut Vec<u8>, status: &str, body: &str) -> Next {
    write_answer(out, status, JSON, body.as_bytes());
    Next::KeepAlive
}

/// A time as HTTP writes it (RFC 9110 §5.6.7).
pub(super) fn http_date(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// The control pages: counters, faults, the token.
fn control(state: &State, request: &Request<'_>, page: &str, out: &mut Vec<u8>) -> Next {
    match (request.method, page) {
        ("GET", "stats") => {
            let text = serde_json::to_string_pretty(&state.counters.snapshot()).unwrap_or_default();
            json(out, "200 OK", &text)
        }
        ("GET", "exchanges") => {
            let counts: Vec<_> = lock(&state.asked).iter().map(|(blob, asked)| (*blob, asked.exchanges)).collect();
            let mut lines = String::new();
            for (blob, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
                let _ = writeln!(lines, "{{\"id\":\"{}\",\"count\":{count}}}", state.ids.mint(blob));
            }
            write_answer(out, "200 OK", "Content-Type: application/jsonl\r\n", lines.as_bytes());
            Next::KeepAlive
        }
        ("PUT", "faults") => match Faults::from_json(request.body) {
            Ok(faults) => {
                *state.faults.write().unwrap_or_else(PoisonError::into_inner) = faults;
                json(out, "200 OK", "{}")
            }
            Err(error) => {
                let text = serde_json::json!({ "errors": [error.to_string()] }).to_string();
                json(out, "422 Unprocessable Content", &text)
            }
        },
        ("PUT", "token") => match std::str::from_utf8(request.body) {
            Ok(token) if !token.trim().is_empty() => {
                set_token(state, token.trim());
                json(out, "200 OK", "{}")
            }
            _ => json(out, "422 Unprocessable Content", r#"{"errors":["the body is the new token, as text"]}"#),
        },
        ("POST", "reset") => {
            state.reset();
            json(out, "200 OK", "{}")
        }
        _ => json(out, "404 Not Found", NO_ENDPOINT),
    }
}

/// Makes `token` the only one that is accepted.
pub(super) fn set_token(state: &State, token: &str) {
    *state.authorization.write().unwrap_or_else(PoisonError::into_inner) = format!("Bearer {token}");
}
