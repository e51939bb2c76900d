//! The storage server: gives out bytes to those who hold a signed link, the way S3 does.

use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

use super::api::LOGIN_PAGE;
use super::faults::Fault;
use super::http::{Body, End, Next, Request, write_answer};
use super::ids::Blob;
use super::link::Refusal;
use super::state::State;

const XML: &str = "Content-Type: application/xml\r\nServer: jellyjar-sim\r\n";
const LAST_MODIFIED: &str = "Tue, 01 Sep 2026 08:00:00 GMT";

const DOWNLOAD_FAULTS: [Fault; 24] = [
    Fault::StorageReset,
    Fault::StorageStall,
    Fault::Lost,
    Fault::Storage403,
    Fault::Storage404,
    Fault::Storage500,
    Fault::Storage503,
    Fault::Redirect,
    Fault::RedirectLoop,
    Fault::RedirectMetadata,
    Fault::RedirectPrivate,
    Fault::HtmlPage,
    Fault::HtmlOctets,
    Fault::JsonPage,
    Fault::XmlPage,
    Fault::WrongSize,
    Fault::Flip,
    Fault::FlipSilent,
    Fault::ShortLength,
    Fault::LongLength,
    Fault::Truncate,
    Fault::Reset,
    Fault::Stall,
    Fault::Slow,
];

/// Answers one request.
pub(super) fn answer(state: &State, request: &Request<'_>, out: &mut Vec<u8>) -> Next {
    let counters = &state.counters;
    counters.storage_requests.fetch_add(1, Relaxed);
    if request.header("referer").is_some() || request.header("cookie").is_some() {
        counters.storage_referer_seen.fetch_add(1, Relaxed);
    }
    if request.header("authorization").is_some() {
        counters.storage_authorization_seen.fetch_add(1, Relaxed);
        counters.storage_refused.fetch_add(1, Relaxed);
        let message = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query \
                       string parameter or the Authorization header should be specified";
        return error(out, "400 Bad Request", "InvalidArgument", message);
    }
    let host = request.header("host").unwrap_or_default();
    match state.links.verify(request.method, host, request.target, state.now_ms()) {
        Ok(blob) => object(state, request, blob, out),
        Err(refusal) => {
            counters.storage_refused.fetch_add(1, Relaxed);
            match refusal {
                Refusal::Signature => {
                    let message = "The request signature we calculated does not match the signature you provided. \
                                   Check your key and signing method.";
                    error(out, "403 Forbidden", "SignatureDoesNotMatch", message)
                }
                Refusal::Expired => error(out, "403 Forbidden", "AccessDenied", "Request has expired"),
            }
        }
    }
}

/// Answers a request with a good link.
fn object(state: &State, request: &Request<'_>, blob: Blob, out: &mut Vec<u8>) -> Next {
    let fault = state.next_fault(blob, &DOWNLOAD_FAULTS, |asked| &mut asked.downloads);
    match fault {
        Some(Fault::StorageReset) => Next::Reset,
        Some(Fault::StorageStall) => Next::Stall,
        Some(Fault::Lost) => error(out, "404 Not Found", "NoSuchKey", "The specified key does not exist."),
        Some(Fault::Storage403) => error(out, "403 Forbidden", "AccessDenied", "Access Denied"),
        Some(Fault::Storage404) => {
            write_answer(out, "404 Not Found", "", b"");
            Next::KeepAlive
        }
        Some(Fault::Storage500) => {
            let message = "We encountered an internal error. Please try again.";
            error(out, "500 Internal Server Error", "InternalError", message)
        }
        Some(Fault::Storage503) => {
            error(out, "503 Service Unavailable", "SlowDown", "Please reduce your request rate.")
        }
        Some(Fault::Redirect) => {
            let mut location = String::new();
            state.mint_link(blob, state.clock.now(), state.link_ttl, &mut location);
            redirect(out, &location)
        }
        Some(Fault::RedirectLoop) => redirect(out, &format!("http://{}{}", state.storage_host, request.target)),
        Some(Fault::RedirectMetadata) => redirect(out, "http://169.254.169.254/latest/meta-data/"),
        Some(Fault::RedirectPrivate) => redirect(out, "http://10.0.0.1/jelly-sim-attachments/object"),
        Some(Fault::HtmlPage) => page(out, "text/html; charset=utf-8", LOGIN_PAGE),
        Some(Fault::HtmlOctets) => page(out, "application/octet-stream", LOGIN_PAGE),
        Some(Fault::JsonPage) => page(out, "application/json", r#"{"error":"Internal server error"}"#),
        Some(Fault::XmlPage) => page(out, "application/xml", &error_xml("InternalError", "Please try again.")),
        fault => download(state, request, blob, fault, out),
    }
}

/// Sends the object, or a part of it, perhaps with a fault in the body.
fn download(state: &State, request: &Request<'_>, blob: Blob, fault: Option<Fault>, out: &mut Vec<u8>) -> Next {
    let whole_bytes = blob.size_bytes.saturating_add(if fault == Some(Fault::WrongSize) { 7 } else { 0 });
    let source = state.contents.source(blob);
    let sums = state.contents.sums(blob, &source, whole_bytes);
    if let Some(wanted) = request.header("if-match")
        && wanted != "*"
        && !wanted.split(',').any(|tag| tag.trim() == sums.etag)
    {
        let message = "At least one of the pre-conditions you specified did not hold";
        return error(out, "412 Precondition Failed", "PreconditionFailed", message);
    }
    let (from, size_bytes, is_part) = match request.header("range").map_or(Range::Ignored, |r| range(r, whole_bytes)) {
        Range::Ignored => (0, whole_bytes, false),
        Range::Part(from, to) => (from, to - from + 1, true),
        Range::Unsatisfiable => {
            let text = error_xml("InvalidRange", "The requested range is not satisfiable");
            let headers = format!("{XML}Content-Range: bytes */{whole_bytes}\r\n");
            write_answer(out, "416 Range Not Satisfiable", &headers, text.as_bytes());
            return Next::KeepAlive;
        }
    };
    let (sent_bytes, declared_bytes, end) = match fault {
        Some(Fault::ShortLength) => (size_bytes.saturating_sub(1), size_bytes.saturating_sub(1), End::KeepAlive),
        Some(Fault::LongLength) => (size_bytes, size_bytes.saturating_add(1000), End::Close),
        Some(Fault::Truncate) => (size_bytes / 2, size_bytes, End::Close),
        Some(Fault::Reset) => (size_bytes / 2, size_bytes, End::Reset),
        Some(Fault::Stall) => (size_bytes / 2, size_bytes, End::Stall),
        _ => (size_bytes, size_bytes, End::KeepAlive),
    };
    let mut head = String::with_capacity(512);
    let status = if is_part { "206 Partial Content" } else { "200 OK" };
    let _ = write!(
        head,
        "HTTP/1.1 {status}\r\nContent-Length: {declared_bytes}\r\nContent-Type: {}\r\nLast-Modified: {LAST_MODIFIED}\r\n\
         Accept-Ranges: bytes\r\nContent-Disposition: attachment\r\nServer: jellyjar-sim\r\n",
        blob.kind.served_type()
    );
    if fault != Some(Fault::FlipSilent) {
        let _ = write!(head, "ETag: {}\r\n", sums.etag);
        if !is_part {
            head.push_str(&sums.checksums);
        }
    }
    if is_part {
        state.counters.storage_ranges.fetch_add(1, Relaxed);
        let _ = write!(head, "Content-Range: bytes {from}-{}/{whole_bytes}\r\n", from + size_bytes - 1);
    }
    head.push_str("\r\n");
    out.extend_from_slice(head.as_bytes());
    let is_flipped = matches!(fault, Some(Fault::Flip | Fault::FlipSilent)) && size_bytes > 0;
    let bytes_per_second = (fault == Some(Fault::Slow)).then(|| state.measures().1);
    Next::Send(Box::new(Body {
        source,
        offset: from,
        size_bytes: sent_bytes,
        flip_at: is_flipped.then_some(from + size_bytes / 2),
        bytes_per_second,
        end,
    }))
}

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// Nothing that is understood: the whole is sent (RFC 9110 §14.2).
    Ignored,
    /// The bytes from the first to the last number, both included.
    Part(u64, u64),
    /// Bytes that do not exist.
    Unsatisfiable,
}

/// Reads a `Range` header for an object of `size_bytes`. Several ranges are ignored, as S3 does.
fn range(header: &str, size_bytes: u64) -> Range {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
        return Range::Ignored;
    };
    let part = |from: u64, to: u64| {
        if from >= size_bytes { Range::Unsatisfiable } else { Range::Part(from, to.min(size_bytes - 1)) }
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(from), Ok(to)) if from <= to => part(from, to),
        (Ok(from), Err(_)) if last.is_empty() => part(from, u64::MAX),
        (Err(_), Ok(0)) if first.is_empty() => Range::Unsatisfiable,
        (Err(_), Ok(count)) if first.is_empty() => part(size_bytes.saturating_sub(count), u64::MAX),
        _ => Range::Ignored,
    }
}

fn redirect(out: &mut Vec<u8>, location: &str) -> Next {
    let headers = format!("{XML}Location: {location}\r\n");
    let text = error_xml("TemporaryRedirect", "Please re-send this request to the specified temporary endpoint.");
    write_answer(out, "307 Temporary Redirect", &headers, text.as_bytes());
    Next::KeepAlive
}

fn page(out: &mut Vec<u8>, media_type: &str, text: &str) -> Next {
    write_answer(out, "200 OK", &format!("Content-Type: {media_type}\r\n"), text.as_bytes());
    Next::KeepAlive
}

fn error_xml(code: &str, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
         <RequestId>SIMULATED</RequestId></Error>"
    )
}

/// Writes an S3 error.
fn error(out: &mut Vec<u8>, status: &str, code: &str, message: &str) -> Next {
    write_answer(out, status, XML, error_xml(code, message).as_bytes());
    Next::KeepAlive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        assert_eq!(range("bytes=0-", 10), Range::Part(0, 9));
        assert_eq!(range("bytes=3-4", 10), Range::Part(3, 4));
        assert_eq!(range("bytes=9-99", 10), Range::Part(9, 9));
        assert_eq!(range("bytes=-4", 10), Range::Part(6, 9));
        assert_eq!(range("bytes=-40", 10), Range::Part(0, 9));
        for past in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert_eq!(range(past, 10), Range::Unsatisfiable, "{past}");
        }
        for any in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            assert_eq!(range(any, 0), Range::Unsatisfiable, "{any} of an empty file");
        }
        for ignored in ["bytes=4-3", "bytes=0-1,3-4", "items=0-1", "bytes=", "bytes=-", "bytes=a-b"] {
            assert_eq!(range(ignored, 10), Range::Ignored, "{ignored}");
        }
    }
}
