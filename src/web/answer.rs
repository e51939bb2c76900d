//! The answers: short, the same for all, and telling nothing of what is inside.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

/// The body of an answer.
pub type Answer = Full<Bytes>;

/// Makes an answer of plain text.
pub(super) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Answer> {
    typed(status, "text/plain; charset=utf-8", text)
}

/// Makes an answer of a media type.
pub(super) fn typed(status: StatusCode, media_type: &'static str, text: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// Adds a header.
pub(super) fn with(mut response: Response<Answer>, name: HeaderName, value: &'static str) -> Response<Answer> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

/// Says when to come again, in whole seconds, at least one.
pub(super) fn retry_after(mut response: Response<Answer>, wait: Duration) -> Response<Answer> {
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Ends the connection after the answer.
pub(super) fn closing(response: Response<Answer>) -> Response<Answer> {
    with(response, CONNECTION, "close")
}
