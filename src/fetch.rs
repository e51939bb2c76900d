//! Follows a signed link to its bytes: redirects by hand, broken downloads continued, every declaration checked. Never
//! holds the token; makes [`Download`], which the spool turns into [`Spooled`].

mod claims;
mod download;
mod sniff;

use std::time::Duration;

use http::StatusCode;

pub use download::Download;
pub use sniff::sniff;

use crate::config::HttpConfig;
use crate::http::{Decision, HttpClients, TransportFailure, classify};
use crate::jelly::SignedUrl;
use crate::spool::{Reservation, Spool, SpoolError, Spooled};

/// What the payload says of an attachment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Declared {
    /// Its size, in bytes.
    pub size_bytes: Option<u64>,
}

/// Why no right bytes came. Texts hold no link.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// 400, 401, 403, 404 or 410: the link died, or the object is lost.
    #[error(
        "the storage does not honour the link ({status}): it expired, or the file is lost{}",
        if *.exact { "" } else { "; the link had signs that no URL can carry, which were percent-encoded" }
    )]
    Gone {
        /// The HTTP status.
        status: u16,
        /// Whether the link was sent byte for byte as the service wrote it.
        exact: bool,
    },
    /// 408, 429 or 5xx.
    #[error("the storage cannot answer now ({status})")]
    Unavailable {
        /// The HTTP status.
        status: u16,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// A status that no plain download has.
    #[error("the storage answered with the unexpected status {0}")]
    UnexpectedStatus(u16),
    /// A redirect that cannot be followed: no or a bad `Location`, or too many.
    #[error("the storage redirects in a way that cannot be followed: {0}")]
    Redirect(String),
    /// The link leads where the address rules forbid.
    #[error("the link's target is refused: {0}")]
    RefusedTarget(String),
    /// Nothing came in time.
    #[error("the storage did not answer in time ({0})")]
    Timeout(String),
    /// No connection, or a reset before the answer.
    #[error("cannot reach the storage ({0})")]
    Connection(String),
    /// The body ended early or stalled, and could not be continued.
    #[error("the download broke off after {received_bytes} bytes ({reason})")]
    Broken {
        /// What had come.
        received_bytes: u64,
        /// How it ended.
        reason: String,
        /// Whether it was not even tried to continue, for want of a strong `ETag`: a fresh link may do at once.
        afresh: bool,
    },
    /// Larger than is fetched.
    #[error("the file is larger than the limit of {limit_bytes} bytes (http.max_attachment)")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// A page that speaks of an error, which neither size nor checksum vouches for.
    #[error("an error page came in place of the file ({size_bytes} bytes, {kind})")]
    ErrorPage {
        /// Its size.
        size_bytes: u64,
        /// What it looks like.
        kind: &'static str,
    },
    /// A whole body that contradicts what was declared.
    #[error("the file contradicts what was declared: {facts}")]
    Mismatch {
        /// The bytes, for the quarantine.
        spooled: Box<Spooled>,
        /// What was declared, and what came.
        facts: String,
    },
    /// The spool could not take the bytes.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl FetchError {
    /// What to do next.
    pub fn decision(&self) -> Decision {
        match self {
            Self::Gone { .. } | Self::Broken { afresh: true, .. } => Decision::Reexchange,
            Self::Unavailable { retry_after, .. } => Decision::RetryAfter(*retry_after),
            Self::UnexpectedStatus(_)
            | Self::Redirect(_)
            | Self::RefusedTarget(_)
            | Self::Timeout(_)
            | Self::Connection(_)
            | Self::Broken { afresh: false, .. }
            | Self::ErrorPage { .. } => Decision::RetryAfter(None),
            Self::TooLarge { .. } => Decision::Fail,
            Self::Mismatch { .. } => Decision::Quarantine,
            Self::Spool(error) => error.decision(),
        }
    }

    /// Sorts a status that is neither a success nor a redirect.
    fn from_status(status: StatusCode, retry_after: Option<Duration>, exact: bool) -> Self {
        match status.as_u16() {
            // S3 answers 400 to expired session tokens.
            status @ (400 | 401 | 403 | 404 | 410) => Self::Gone { status, exact },
            status @ (408 | 429 | 500..=599) => Self::Unavailable { status, retry_after },
            status => Self::UnexpectedStatus(status),
        }
    }
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        let (kind, text) = classify(error);
        match kind {
            TransportFailure::Refused => Self::RefusedTarget(text),
            TransportFailure::Timeout => Self::Timeout(text),
            TransportFailure::Connection => Self::Connection(text),
        }
    }
}

/// Downloads what a link leads to, checked against everything that was declared. Dropping it half-way leaves nothing
/// behind.
pub async fn fetch(
    clients: &HttpClients,
    link: SignedUrl,
    declared: &Declared,
    spool: &Spool,
    reservation: Reservation,
    config: &HttpConfig,
) -> Result<Spooled, FetchError> {
    Download::open(clients, link, declared, spool, reservation, config).await?.finish().await
}

#[cfg(test)]
mod tests;
