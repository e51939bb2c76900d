//! The exchange of an attachment's id for a signed link.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use super::super::faults::Fault;
use super::super::http::{Next, write_answer};
use super::super::ids::Blob;
use super::super::state::State;
use super::answer::{BROKEN, FORBIDDEN, INVALID_TOKEN, NOT_FOUND, html, http_date, json, too_many};

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

/// Answers `GET /attachments/:id`; the id is as it stands in the target.
pub(super) fn exchange(state: &State, id: &str, now: Timestamp, out: &mut Vec<u8>) -> Next {
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
        Some(Fault::ApiHtml) => html(out),
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
