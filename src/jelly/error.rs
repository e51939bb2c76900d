//! What a request of the API can end with, and what is to be done about it.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::Received;
use super::refusal::Refusal;
use crate::catalog::CatalogError;
use crate::http::{Decision, TransportFailure, classify};
use crate::model::InvalidId;

/// The wait after a 429 that names none.
const DEFAULT_WAIT: Duration = Duration::from_mins(1);
/// The wait after a request that could not be counted.
const UNCOUNTED_WAIT: Duration = Duration::from_secs(5);
/// Up to this long a 429 speaks of the address's 5-minute window; beyond, of the team's day.
const LONGEST_WINDOW_WAIT: Duration = Duration::from_mins(5);

/// Why a request did not give what it should. The texts hold the service's own words, made safe to print, and neither
/// token nor link nor raw attachment id.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// 401.
    #[error("Jelly refused the API token ({0}); check the token, then run again")]
    Unauthorized(String),
    /// 403.
    #[error("Jelly refused access to this {what} (403: {words})")]
    Forbidden {
        /// What was asked for.
        what: &'static str,
        /// What the service said.
        words: String,
    },
    /// 404.
    #[error("Jelly knows no such {what} (404: {words})")]
    NotFound {
        /// What was asked for.
        what: &'static str,
        /// What the service said.
        words: String,
    },
    /// 404, but of the endpoint: the base URL is wrong.
    #[error("Jelly knows no such endpoint: the base URL is wrong; it ends with /api, as in the default")]
    WrongEndpoint,
    /// 409: what was to be made is there already.
    #[error("Jelly has such a {what} already (409)")]
    Conflict {
        /// What was to be made.
        what: &'static str,
        /// What is there.
        existing: Box<Received<Value>>,
    },
    /// 422: each thing that is wrong with the request.
    #[error("Jelly rejected the request (422: {})", .0.join("; "))]
    Invalid(Vec<String>),
    /// Every other 4xx.
    #[error("Jelly rejected the request ({status}: {words})")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// What the service said.
        words: String,
    },
    /// 429.
    #[error("Jelly's request limit is reached; it asks to wait {} s ({words})", retry_after.as_secs())]
    RateLimited {
        /// How long to wait: one second to one day; a minute where the answer does not say.
        retry_after: Duration,
        /// What the service said.
        words: String,
    },
    /// Our own count of requests is at its limit; nothing was sent.
    #[error("the request quota is used up; there is room again in {} s", retry_after.as_secs().max(1))]
    QuotaUsedUp {
        /// How long until a request fits.
        retry_after: Duration,
    },
    /// The catalog, which counts requests for all processes, failed; nothing was sent.
    #[error("the request cannot be counted in the catalog, so it is not sent")]
    Uncounted(#[source] Arc<CatalogError>),
    /// 5xx.
    #[error("Jelly failed ({status}: {words})")]
    Server {
        /// The HTTP status.
        status: u16,
        /// What the service said.
        words: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// A body that is not JSON where the service always sends JSON: something else answered.
    #[error("Jelly answered with status {status} and {found} where JSON was expected; is the base URL right?")]
    NotJson {
        /// The HTTP status.
        status: u16,
        /// What came instead.
        found: &'static str,
    },
    /// Neither what was expected nor an error: JSON of another shape, an empty success, a broken `Location`.
    #[error("Jelly answered with {found} where {expected} was expected; is the base URL right?")]
    UnexpectedAnswer {
        /// What should have come.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// The body is larger than is read.
    #[error("Jelly's answer is larger than the limit of {limit_bytes} bytes (http.max_answer_size)")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The pages lead back to one that was read before.
    #[error("Jelly's pages lead back to one that was read before, after {pages} pages; begin anew without a cursor")]
    CursorLoop {
        /// The pages that were read.
        pages: u64,
    },
    /// The pages go on and on without an entry.
    #[error("Jelly gave {pages} pages in a row without an entry, and says each time that there are more")]
    EmptyPages {
        /// The pages in a row.
        pages: u64,
    },
    /// The link, or the API itself, leads where the address rules forbid.
    #[error("the target is refused: {0}")]
    RefusedTarget(String),
    /// Nothing came in time.
    #[error("Jelly did not answer in time ({0})")]
    Timeout(String),
    /// No connection, or a reset.
    #[error("cannot reach Jelly ({0})")]
    Connection(String),
    /// An id that no request can carry; nothing was sent.
    #[error(transparent)]
    InvalidId(#[from] InvalidId),
}

impl ApiError {
    /// What to do next.
    pub fn decision(&self) -> Decision {
        match self {
            Self::Unauthorized(_) => Decision::PauseTeam,
            Self::Forbidden { .. } => Decision::ProbeMembers,
            Self::NotFound { .. } => Decision::RetryGone,
            Self::Uncounted(_) => Decision::HoldOff(UNCOUNTED_WAIT),
            // Every request would end so: nothing is tried again until somebody has looked.
            Self::WrongEndpoint => Decision::HoldOff(Duration::from_mins(1)),
            Self::Conflict { .. }
            | Self::Invalid(_)
            | Self::Rejected { .. }
            | Self::TooLarge { .. }
            | Self::CursorLoop { .. }
            | Self::EmptyPages { .. }
            | Self::InvalidId(_) => Decision::Fail,
            Self::RateLimited { retry_after, .. } if *retry_after <= LONGEST_WINDOW_WAIT => {
                Decision::PauseEgressGroup(*retry_after)
            }
            Self::RateLimited { retry_after, .. } | Self::QuotaUsedUp { retry_after } => {
                Decision::PauseTeamFor(*retry_after)
            }
            Self::Server { retry_after, .. } => Decision::RetryAfter(*retry_after),
            // All of these also come from what stands between us and Jelly (a login page, a name server): they pass.
            Self::NotJson { .. }
            | Self::UnexpectedAnswer { .. }
            | Self::RefusedTarget(_)
            | Self::Timeout(_)
            | Self::Connection(_) => Decision::RetryAfter(None),
        }
    }

    /// How long to wait before the same request can succeed, where that is known: after a 429, or where our own quota
    /// is used up. The request was not carried out then, so that sending it again is safe even if it changes something.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::QuotaUsedUp { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// Whether the service may have carried out the request all the same: the answer was lost, or cannot be read. What
    /// changes something and is not idempotent must then not be sent again without a look at what is there.
    pub fn may_be_done(&self) -> bool {
        match self {
            Self::Timeout(_)
            | Self::Connection(_)
            | Self::Server { .. }
            | Self::UnexpectedAnswer { .. }
            | Self::TooLarge { .. } => true,
            Self::NotJson { status, .. } => !(400..500).contains(status),
            _ => false,
        }
    }

    /// Sorts an answer that is not the expected one. `what` names what was asked for, `expected` what should have come.
    pub(super) fn of_refusal(refusal: Refusal, what: &'static str, expected: &'static str) -> Self {
        let Refusal { status, retry_after, messages, not_json } = refusal;
        let words = messages.join("; ");
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized(words),
            StatusCode::FORBIDDEN => Self::Forbidden { what, words },
            // The service tells the two apart, and always answers in JSON.
            StatusCode::NOT_FOUND if words.eq_ignore_ascii_case("endpoint not found") => Self::WrongEndpoint,
            StatusCode::NOT_FOUND if not_json == Some(Refusal::PAGE) => {
                Self::NotJson { status: status.as_u16(), found: Refusal::PAGE }
            }
            StatusCode::NOT_FOUND => Self::NotFound { what, words },
            StatusCode::UNPROCESSABLE_ENTITY => Self::Invalid(messages),
            StatusCode::TOO_MANY_REQUESTS => {
                Self::RateLimited { retry_after: retry_after.unwrap_or(DEFAULT_WAIT), words }
            }
            StatusCode::REQUEST_TIMEOUT => Self::Timeout(format!("408: {words}")),
            _ if status.is_client_error() => Self::Rejected { status: status.as_u16(), words },
            _ if status.is_server_error() => Self::Server { status: status.as_u16(), words, retry_after },
            _ => Self::UnexpectedAnswer { expected, found: format!("status {} ({words})", status.as_u16()) },
        }
    }
}

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        Self::Uncounted(Arc::new(error))
    }
}

impl From<reqwest::Error> for ApiError {
    fn from(error: reqwest::Error) -> Self {
        let (kind, text) = classify(error);
        match kind {
            TransportFailure::Refused => Self::RefusedTarget(text),
            TransportFailure::Timeout => Self::Timeout(text),
            TransportFailure::Connection => Self::Connection(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_is_the_teams_day_and_a_short_one_the_window() {
        let limited =
            |seconds| ApiError::RateLimited { retry_after: Duration::from_secs(seconds), words: String::new() };
        assert_eq!(limited(300).decision(), Decision::PauseEgressGroup(Duration::from_mins(5)));
        assert_eq!(limited(301).decision(), Decision::PauseTeamFor(Duration::from_secs(301)));
    }

    #[test]
    fn what_was_refused_was_not_done_and_what_was_lost_may_be() {
        let lost = ApiError::Connection("reset".into());
        let server = ApiError::Server { status: 502, words: String::new(), retry_after: None };
        let page = |status| ApiError::NotJson { status, found: Refusal::PAGE };
        let limited = ApiError::RateLimited { retry_after: DEFAULT_WAIT, words: String::new() };
        assert!([&lost, &server, &page(200)].iter().all(|error| error.may_be_done() && error.wait().is_none()));
        assert!(!page(404).may_be_done() && !limited.may_be_done());
        assert_eq!(limited.wait(), Some(DEFAULT_WAIT));
    }
}
