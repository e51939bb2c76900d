//! The client of Jelly's API: the exchange of a stable id for a signed link, and the quota. The only holder of the
//! token; URLs are built from the configured base, never taken from a payload.

mod error;
mod link;
mod quota;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Response;
use url::Url;

pub use error::ExchangeError;
pub use link::SignedUrl;
pub(crate) use link::resolve_location;
pub use quota::{EgressWindow, Quota, QuotaLeft, QuotaLimits, QuotaState};

use crate::clock::Clock;
use crate::http::{BaseUrl, HttpClients, HttpError, read_body, served_at};
use crate::metrics::{ApiAnswer, TeamMetrics};
use crate::model::{AttachmentId, TeamKey};
use crate::secret::Secret;

/// RFC 3986 §2.3: everything else in an id is percent-encoded.
const NOT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One team's access to the API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JellyClient(Arc<Inner>, Arc<TeamMetrics>);

#[derive(Debug)]
struct Inner {
    clients: HttpClients,
    base: BaseUrl,
    authorization: HeaderValue,
    team: TeamKey,
    quota: Quota,
    clock: Clock,
    requests: AtomicU64,
}

/// What the service says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Why it is not accepted: the status, 401 or 403, and the service's words. `None` if it is.
    pub refusal: Option<(u16, String)>,
    /// The service's clock, to the second, as its answer shows it.
    pub served_at: Option<Timestamp>,
}

impl JellyClient {
    /// Makes the client of one team. Fails where the token cannot be sent in a header.
    pub fn new(
        clients: HttpClients,
        base: BaseUrl,
        token: &Secret,
        team: TeamKey,
        quota: Quota,
        clock: Clock,
    ) -> Result<Self, ExchangeError> {
        let usable = !token.is_empty() && token.expose().bytes().all(|b| b.is_ascii_graphic());
        let authorization = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
        let (true, Ok(mut authorization)) = (usable, authorization) else {
            return Err(ExchangeError::Unauthorized(format!(
                "the API token of team {team} is empty or holds spaces or signs that no token has; copy it again"
            )));
        };
        authorization.set_sensitive(true);
        let requests = AtomicU64::new(0);
        Ok(Self(Arc::new(Inner { clients, base, authorization, team, quota, clock, requests }), Arc::default()))
    }

    /// The same client, which counts its requests in these cells.
    #[must_use]
    pub fn counted_in(self, cells: Arc<TeamMetrics>) -> Self {
        Self(self.0, cells)
    }

    /// The team.
    pub fn team(&self) -> &TeamKey {
        &self.0.team
    }

    /// The team's quota. The driver takes from it before each [`JellyClient::exchange`].
    pub fn quota(&self) -> &Quota {
        &self.0.quota
    }

    /// The API requests that this client has made.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Exchanges a stable id for a fresh signed link. One request; safe to drop at any time and to repeat.
    pub async fn exchange(&self, id: &AttachmentId) -> Result<SignedUrl, ExchangeError> {
        let encoded = utf8_percent_encode(id.as_str(), NOT_UNRESERVED).to_string();
        let (url, mut response) = self.get(&["attachments", &encoded]).await?;
        match response.status() {
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => {
                let link = SignedUrl::from_redirect(&url, response.headers(), self.0.clients.rules());
                // Read to its end so that the connection can be used again.
                read_body(&mut response).await;
                link
            }
            _ => Err(self.refused(response, &[id.as_str(), &encoded]).await),
        }
    }

    /// Asks whether the token is still accepted (`GET /members`). Counts against the quota even when that is used up.
    pub async fn probe_members(&self) -> Result<bool, ExchangeError> {
        Ok(self.probe().await?.refusal.is_none())
    }

    /// The same, with what else the answer tells.
    pub async fn probe(&self) -> Result<Probe, ExchangeError> {
        self.0.quota.take_anyway(self.0.clock.now());
        let (_, mut response) = self.get(&["members"]).await?;
        let served_at = served_at(response.headers());
        let status = response.status();
        match status {
            StatusCode::OK => {
                read_body(&mut response).await;
                Ok(Probe { refusal: None, served_at })
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let words = match self.refused(response, &[]).await {
                    ExchangeError::Unauthorized(words) | ExchangeError::Forbidden(words) => words,
                    other => other.to_string(),
                };
                Ok(Probe { refusal: Some((status.as_u16(), words)), served_at })
            }
            _ => Err(self.refused(response, &[]).await),
        }
    }

    /// Reads an answer that is not the expected one; `ids` and the token are cut from what it says.
    async fn refused(&self, response: Response, ids: &[&str]) -> ExchangeError {
        let authorization = self.0.authorization.to_str().unwrap_or_default();
        let token = authorization.strip_prefix("Bearer ").unwrap_or(authorization);
        ExchangeError::from_answer(response, self.0.clock.now(), &[ids, &[token]].concat()).await
    }

    /// Sends one request with the token.
    async fn get(&self, segments: &[&str]) -> Result<(Url, Response), ExchangeError> {
        let inner = &self.0;
        let url = inner.base.below(segments).map_err(|error: HttpError| {
            // The text would hold the id.
            drop(error);
            ExchangeError::UnexpectedAnswer("the request URL cannot be built from the base URL".into())
        })?;
        inner.requests.fetch_add(1, Ordering::Relaxed);
        let request = inner.clients.api().get(url.clone()).header(AUTHORIZATION, inner.authorization.clone());
        let answer = request.send().await;
        let status = answer.as_ref().ok().map(|response| response.status().as_u16());
        self.1.api_requests.count(ApiAnswer::of_status(status));
        Ok((url, answer?))
    }
}

#[cfg(test)]
mod tests;
