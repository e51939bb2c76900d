//! `POST /webhooks/{team}`: who may send, what is refused, and that 2xx is said only when the body is kept.
//!
//! The order of the checks is part of what strangers can learn. Path and method come first and never depend on whether a
//! team exists; then what is wrong with the request itself; then, over the whole body, who sent it: one answer for all
//! that can be wrong there. The body is not parsed here at all: what is signed and unreadable is kept, too.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_ENCODING, EXPECT, HeaderMap, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::{Instant, timeout};

use super::answer::{self, Answer};
use super::body::{self, BodyError, Bounds};
use super::budget::Budget;
use super::hooks::{Hook, Hooks};
use super::quiet::Quiet;
use super::{Handler, Refusal, Sink};
use crate::config::{SMALL_BODY_BYTES, ServeConfig};

/// When a sender is told to come again, where nothing better is known.
const COME_AGAIN: Duration = Duration::from_secs(5);

/// What became of a request to the public listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryResult {
    /// It is kept: 200.
    Stored,
    /// Its sender is not known: 401.
    Unauthorized,
    /// No such path, or no such team: 404.
    NotFound,
    /// Not `POST`: 405.
    WrongMethod,
    /// It came too slowly: 408.
    TooSlow,
    /// Its sender broke off, or broke HTTP's rules: 400.
    Broken,
    /// Its body is larger than is taken: 413.
    TooLarge,
    /// Its body is compressed: 415.
    Encoded,
    /// It expects what is not done here: 417.
    Unmet,
    /// More came in than could be kept: 503.
    Overloaded,
    /// Nothing could be kept: 503.
    Unavailable,
}

impl DeliveryResult {
    /// All results, in the order in which they are declared.
    pub const ALL: [Self; 11] = [
        Self::Stored,
        Self::Unauthorized,
        Self::NotFound,
        Self::WrongMethod,
        Self::TooSlow,
        Self::Broken,
        Self::TooLarge,
        Self::Encoded,
        Self::Unmet,
        Self::Overloaded,
        Self::Unavailable,
    ];

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::WrongMethod => "wrong_method",
            Self::TooSlow => "too_slow",
            Self::Broken => "broken",
            Self::TooLarge => "too_large",
            Self::Encoded => "encoded",
            Self::Unmet => "unmet",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
        }
    }

    /// What an operator is told; `None` for what strangers do all the time or what the sender alone can mend.
    const fn advice(self) -> Option<&'static str> {
        match self {
            Self::Unauthorized => {
                Some("a webhook was refused: its signature, or its user name and password, are not those of the team")
            }
            Self::TooLarge => Some("a webhook was refused for its size; `serve.max_body_size` is the limit"),
            Self::Encoded => Some("a webhook was refused, for its body is compressed"),
            Self::TooSlow => Some("a webhook was cut off, for it came too slowly"),
            Self::Overloaded => Some("webhooks are refused for now: more come in than can be stored"),
            Self::Unavailable => Some("webhooks are refused for now: they cannot be stored"),
            Self::Stored | Self::NotFound | Self::WrongMethod | Self::Broken | Self::Unmet => None,
        }
    }
}

/// One answered request, for metrics and notifications.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The team, where the path names one that has hooks.
    pub team: Option<&'a str>,
    /// What became of it.
    pub result: DeliveryResult,
    /// The size of the body that was kept, in bytes; 0 for what was not.
    pub size_bytes: u64,
    /// From the head's last byte to the answer.
    pub elapsed: Duration,
}

/// Is told of each answered request. Must not block.
type Observer = Arc<dyn Fn(&Delivery<'_>) + Send + Sync>;

/// Takes webhooks and hands them on.
pub struct Receiver<S> {
    hooks: Arc<Hooks>,
    sink: S,
    budget: Budget,
    bounds: Bounds,
    store_timeout: Duration,
    observe: Observer,
    quiet: Quiet<(Option<String>, DeliveryResult)>,
}

impl<S> fmt::Debug for Receiver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("hooks", &self.hooks).field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

/// Why a request was refused, with what its answer depends on.
struct Refused {
    result: DeliveryResult,
    retry_after: Duration,
    /// For the log only.
    reason: Option<String>,
}

impl From<DeliveryResult> for Refused {
    fn from(result: DeliveryResult) -> Self {
        Self { result, retry_after: COME_AGAIN, reason: None }
    }
}

impl From<BodyError> for Refused {
    fn from(error: BodyError) -> Self {
        Self::from(match error {
            BodyError::TooLarge => DeliveryResult::TooLarge,
            BodyError::TooSlow => DeliveryResult::TooSlow,
            BodyError::NoRoom => DeliveryResult::Overloaded,
            BodyError::Broken => DeliveryResult::Broken,
        })
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Overloaded { retry_after } => {
                Self { result: DeliveryResult::Overloaded, retry_after, reason: None }
            }
            Refusal::Unavailable { reason } => {
                Self { result: DeliveryResult::Unavailable, retry_after: COME_AGAIN, reason: Some(reason) }
            }
        }
    }
}

impl<S: Sink> Receiver<S> {
    /// Makes a receiver. `observe` is told of each answered request, and must not block.
    pub fn new(
        config: &ServeConfig,
        hooks: Arc<Hooks>,
        sink: S,
        observe: impl Fn(&Delivery<'_>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            hooks,
            sink,
            budget: Budget::new(config),
            bounds: Bounds::new(config),
            store_timeout: config.store_timeout,
            observe: Arc::new(observe),
            quiet: Quiet::new(),
        }
    }

    /// The memory that is given to bodies now, in bytes; the first 16 KiB of each aside.
    pub fn body_bytes(&self) -> u64 {
        self.budget.taken_bytes()
    }

    /// Takes one webhook to its durable end, and returns its size in bytes.
    async fn take(&self, team: Option<(&str, Arc<Hook>)>, request: Request<Incoming>) -> Result<u64, Refused> {
        if request.method() != Method::POST {
            return Err(DeliveryResult::WrongMethod.into());
        }
        let Some((team, hook)) = team else { return Err(DeliveryResult::NotFound.into()) };
        if is_encoded(request.headers()) {
            return Err(DeliveryResult::Encoded.into());
        }
        if expects_more(request.headers()) {
            return Err(DeliveryResult::Unmet.into());
        }
        let (head, body) = request.into_parts();
        let (body, share) = body::read(body, self.bounds, &self.budget).await?;
        if !judge(hook, head.headers, &body).await {
            return Err(DeliveryResult::Unauthorized.into());
        }
        let size_bytes = body.len() as u64;
        let stored = timeout(self.store_timeout, self.sink.append(team, body)).await;
        drop(share);
        match stored {
            Ok(stored) => stored?,
            Err(_) => {
                return Err(
                    Refusal::Unavailable { reason: "storing took longer than `serve.store_timeout`".into() }.into()
                );
            }
        }
        Ok(size_bytes)
    }

    /// Logs what an operator can do something about, once a minute and team.
    fn tell(&self, team: Option<&str>, refused: &Refused) {
        let result = refused.result;
        let Some(advice) = result.advice() else { return };
        if let Some(held_back) = self.quiet.ask((team.map(str::to_owned), result), Instant::now()) {
            let reason = refused.reason.as_deref();
            tracing::warn!(team, reason, since_last_told = held_back, "{advice}");
        }
    }
}

impl<S: Sink> Handler for Receiver<S> {
    async fn handle(&self, request: Request<Incoming>) -> Response<Answer> {
        let began = Instant::now();
        let Some(name) = team_of(request.uri().path()).map(str::to_owned) else {
            return self.finish(None, began, Err(DeliveryResult::NotFound.into()));
        };
        let hook = self.hooks.of(&name);
        let known = hook.is_some().then_some(name.as_str());
        let taken = self.take(known.zip(hook), request).await;
        self.finish(known, began, taken)
    }
}

impl<S: Sink> Receiver<S> {
    /// Tells of a request that is done, and makes its answer.
    fn finish(&self, team: Option<&str>, began: Instant, taken: Result<u64, Refused>) -> Response<Answer> {
        let (result, size_bytes, response) = match taken {
            Ok(size_bytes) => (DeliveryResult::Stored, size_bytes, answer::plain(StatusCode::OK, "stored\n")),
            Err(refused) => {
                self.tell(team, &refused);
                (refused.result, 0, refusal(&refused))
            }
        };
        (self.observe)(&Delivery { team, result, size_bytes, elapsed: began.elapsed() });
        response
    }
}

/// The team that a path names.
fn team_of(path: &str) -> Option<&str> {
    let team = path.strip_prefix("/webhooks/")?;
    (!team.is_empty() && !team.contains('/')).then_some(team)
}

/// Whether a body is compressed. A digest of compressed bytes would be right, but what is inside could be of any size.
fn is_encoded(headers: &HeaderMap) -> bool {
    let plain = |value: &[u8]| {
        value.split(|byte| *byte == b',').all(|name| {
            let name = name.trim_ascii();
            name.is_empty() || name.eq_ignore_ascii_case(b"identity")
        })
    };
    headers.get_all(CONTENT_ENCODING).iter().any(|value| !plain(value.as_bytes()))
}

/// Whether something is expected that is not done here (RFC 9110, section 10.1.1): anything but an interim answer.
fn expects_more(headers: &HeaderMap) -> bool {
    let known = |value: &[u8]| {
        value.split(|byte| *byte == b',').all(|name| {
            let name = name.trim_ascii();
            name.is_empty() || name.eq_ignore_ascii_case(b"100-continue")
        })
    };
    headers.get_all(EXPECT).iter().any(|value| !known(value.as_bytes()))
}

/// Whether a body comes from the team's Jelly. Large ones are hashed beside the threads that serve connections.
async fn judge(hook: Arc<Hook>, headers: HeaderMap, body: &Bytes) -> bool {
    if body.len() as u64 <= SMALL_BODY_BYTES {
        return hook.accepts(&headers, body);
    }
    let body = body.clone();
    tokio::task::spawn_blocking(move || hook.accepts(&headers, &body)).await.unwrap_or(false)
}

fn refusal(refused: &Refused) -> Response<Answer> {
    let retry = |response| answer::retry_after(response, refused.retry_after);
    match refused.result {
        DeliveryResult::Stored | DeliveryResult::Unauthorized => {
            let response = answer::closing(answer::plain(StatusCode::UNAUTHORIZED, "not authorized\n"));
            // Always closing, or it would differ with and without a body. RFC 9110, section 15.5.2, wants a challenge; it is the same for teams with and without a password.
            answer::with(response, WWW_AUTHENTICATE, "Basic realm=\"webhooks\"")
        }
        DeliveryResult::NotFound => answer::plain(StatusCode::NOT_FOUND, "not found\n"),
        DeliveryResult::WrongMethod => {
            answer::with(answer::plain(StatusCode::METHOD_NOT_ALLOWED, "send POST\n"), ALLOW, "POST")
        }
        DeliveryResult::TooSlow => answer::closing(answer::plain(StatusCode::REQUEST_TIMEOUT, "too slow\n")),
        DeliveryResult::Broken => answer::closing(answer::plain(StatusCode::BAD_REQUEST, "not understood\n")),
        DeliveryResult::TooLarge => answer::closing(answer::plain(StatusCode::PAYLOAD_TOO_LARGE, "too large\n")),
        DeliveryResult::Encoded => {
            answer::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the body without compression\n")
        }
        DeliveryResult::Unmet => answer::plain(StatusCode::EXPECTATION_FAILED, "send it without that expectation\n"),
        DeliveryResult::Overloaded | DeliveryResult::Unavailable => {
            retry(answer::plain(StatusCode::SERVICE_UNAVAILABLE, "come again later\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_name_below_webhooks_is_a_team() {
        assert_eq!(team_of("/webhooks/default"), Some("default"));
        for path in ["/", "/webhooks", "/webhooks/", "/webhooks/a/b", "/webhooks/a/", "//webhooks/a", "/WEBHOOKS/a"] {
            assert_eq!(team_of(path), None, "{path}");
        }
    }

    #[test]
    fn only_plain_bodies_are_not_encoded() {
        for (value, encoded) in
            [("identity", false), ("IDENTITY", false), ("", false), ("gzip", true), ("identity, br", true)]
        {
            let headers: HeaderMap = std::iter::once((CONTENT_ENCODING, value.parse().unwrap())).collect();
            assert_eq!(is_encoded(&headers), encoded, "{value}");
        }
    }

    #[test]
    fn nothing_but_an_interim_answer_may_be_expected() {
        for (value, more) in [
            ("100-continue", false),
            ("100-Continue", false),
            ("", false),
            ("foo", true),
            ("100-continue, foo=1", true),
        ] {
            let headers: HeaderMap = std::iter::once((EXPECT, value.parse().unwrap())).collect();
            assert_eq!(expects_more(&headers), more, "{value}");
        }
    }

    #[test]
    fn all_results_are_listed_once() {
        let names: std::collections::BTreeSet<_> = DeliveryResult::ALL.iter().map(|result| result.name()).collect();
        assert_eq!(names.len(), DeliveryResult::ALL.len());
    }
}
