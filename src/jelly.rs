//! The client of Jelly's API: every call of it, the exchange of a stable id for a signed link, and the quota. The only
//! holder of the token; URLs are built from the configured base, never taken from a payload.
//!
//! `request` is what is sent, `answer` reads what comes, within bounds, `refusal` and `error` say what went wrong.
//! `entity` holds what the service speaks of, read leniently by `lenient` and kept as it came by `received`; `page` cuts
//! lists. The calls stand by what they are about: `conversations` (reading them), `changes` (of them), `contacts`, `team`;
//! the exchange is here, its link in `link`.

mod answer;
mod changes;
mod contacts;
mod conversations;
mod entity;
mod error;
mod lenient;
mod link;
mod page;
mod quota;
mod received;
mod refusal;
mod request;
mod team;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{AUTHORIZATION, HeaderValue};
use http::{Method, StatusCode};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Response;
use url::Url;

pub use answer::Bounds;
pub use changes::{Assignee, DraftReply};
pub use contacts::ContactChange;
pub use conversations::ConversationFilter;
pub use entity::{
    Comment, Contact, ContactLink, Conversation, Id, Label, Mailbox, Member, Message, MessageAttachment, Sender,
};
pub use error::ApiError;
pub use link::SignedUrl;
pub(crate) use link::resolve_location;
pub use page::{Cursor, MAX_PAGE_ENTRIES, Page, Trail, Unreadable};
pub use quota::{EgressWindow, Permit, Quota, QuotaLeft, QuotaLimits, QuotaPlace};
pub use received::{Received, Written};
pub use request::ApiRequest;

use crate::clock::Clock;
use crate::http::{BaseUrl, HttpClients, HttpError, read_body, served_at};
use crate::metrics::{ApiAnswer, TeamMetrics};
use crate::model::{AttachmentId, Lane, TeamKey};
use crate::secret::Secret;
use refusal::Refusal;

/// RFC 3986 §2.3: everything else in an id is percent-encoded.
const NOT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One team's access to the API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JellyClient {
    inner: Arc<Inner>,
    cells: Arc<TeamMetrics>,
    bounds: Bounds,
    lane: Lane,
}

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
    ) -> Result<Self, ApiError> {
        let usable = !token.is_empty() && token.expose().bytes().all(|b| b.is_ascii_graphic());
        let authorization = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
        let (true, Ok(mut authorization)) = (usable, authorization) else {
            return Err(ApiError::Unauthorized(format!(
                "the API token of team {team} is empty or holds spaces or signs that no token has; copy it again"
            )));
        };
        authorization.set_sensitive(true);
        let requests = AtomicU64::new(0);
        let inner = Arc::new(Inner { clients, base, authorization, team, quota, clock, requests });
        Ok(Self { inner, cells: Arc::default(), bounds: Bounds::default(), lane: Lane::Live })
    }

    /// The same client, which counts its requests in these cells.
    #[must_use]
    pub fn counted_in(self, cells: Arc<TeamMetrics>) -> Self {
        Self { cells, ..self }
    }

    /// The same client, which reads no answer beyond these bounds.
    #[must_use]
    pub fn bounded_by(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// The same client, whose calls leave to live work what is kept for it.
    #[must_use]
    pub fn in_bulk(self) -> Self {
        Self { lane: Lane::Bulk, ..self }
    }

    /// The team.
    pub fn team(&self) -> &TeamKey {
        &self.inner.team
    }

    /// The team's quota. Every call takes from it by itself, save [`JellyClient::exchange`], before which the driver takes.
    pub fn quota(&self) -> &Quota {
        &self.inner.quota
    }

    /// The API requests that this client has made.
    pub fn requests(&self) -> u64 {
        self.inner.requests.load(Ordering::Relaxed)
    }

    /// Takes one request from the quota. Every call asks here before it sends anything; nothing else takes for them.
    async fn admit(&self) -> Result<Permit, ApiError> {
        self.permit(self.lane).await
    }

    /// Takes one request from the quota, for [`JellyClient::exchange`].
    pub async fn permit(&self, lane: Lane) -> Result<Permit, ApiError> {
        self.inner.quota.take(&self.inner.clock, lane).await
    }

    /// Exchanges a stable id for a fresh signed link. One request, which the caller has taken from the quota; safe to
    /// drop at any time and to repeat. A permit that is not good any more is replaced before anything is sent.
    pub async fn exchange(&self, permit: Permit, id: &AttachmentId) -> Result<SignedUrl, ApiError> {
        let encoded = encoded(id.as_str());
        let url = self.url(&["attachments", &encoded])?;
        let mut response = self.send(permit, Method::GET, url.clone(), None).await?;
        match response.status() {
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => {
                let link = SignedUrl::from_redirect(&url, response.headers(), self.inner.clients.rules());
                // Read to its end so that the connection can be used again.
                read_body(&mut response).await;
                link
            }
            _ => {
                let refusal = self.refusal(response, &[id.as_str(), &encoded]).await;
                Err(ApiError::of_refusal(refusal, "attachment", link::A_REDIRECT))
            }
        }
    }

    /// Like [`JellyClient::exchange`], for those who have not taken from the quota.
    ///
    /// ```no_run
    /// # use jellyjar::jelly::{ApiError, JellyClient, MessageAttachment, SignedUrl};
    /// async fn link(client: &JellyClient, attachment: &MessageAttachment) -> Result<SignedUrl, ApiError> {
    ///     client.link_to(&attachment.id).await // good for minutes, and for one use
    /// }
    /// ```
    pub async fn link_to(&self, id: &AttachmentId) -> Result<SignedUrl, ApiError> {
        let permit = self.admit().await?;
        self.exchange(permit, id).await
    }

    /// Asks whether the token is still accepted (`GET /members`). Counts against the quota even when that is used up.
    pub async fn probe_members(&self) -> Result<bool, ApiError> {
        Ok(self.probe().await?.refusal.is_none())
    }

    /// The same, with what else the answer tells.
    pub async fn probe(&self) -> Result<Probe, ApiError> {
        let permit = self.inner.quota.take_anyway(&self.inner.clock).await?;
        let mut response = self.send(permit, Method::GET, self.url(&["members"])?, None).await?;
        let served_at = served_at(response.headers());
        let status = response.status();
        if status == StatusCode::OK {
            read_body(&mut response).await;
            return Ok(Probe { refusal: None, served_at });
        }
        let refusal = self.refusal(response, &[]).await;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Ok(Probe { refusal: Some((status.as_u16(), refusal.messages.join("; "))), served_at })
            }
            _ => Err(ApiError::of_refusal(refusal, "list of members", "the list of members")),
        }
    }

    /// Reads an answer that is not the expected one; `ids` and the token are cut from what it says.
    async fn refusal(&self, response: Response, ids: &[&str]) -> Refusal {
        Refusal::read(response, self.inner.clock.now(), &[ids, &[self.token()]].concat()).await
    }

    /// The token, to be cut from what is shown.
    fn token(&self) -> &str {
        let authorization = self.inner.authorization.to_str().unwrap_or_default();
        authorization.strip_prefix("Bearer ").unwrap_or(authorization)
    }

    /// The URL of these segments, percent-encoded already, below the base.
    fn url(&self, segments: &[&str]) -> Result<Url, ApiError> {
        self.inner.base.below(segments).map_err(|error: HttpError| {
            // The text would hold the id.
            drop(error);
            let found = "a base URL below which the request's URL cannot be built".into();
            ApiError::UnexpectedAnswer { expected: "a usable one", found }
        })
    }

    /// Sends one request with the token, and with leave to send it.
    async fn send(
        &self,
        permit: Permit,
        method: Method,
        url: Url,
        body: Option<&serde_json::Value>,
    ) -> Result<Response, ApiError> {
        let inner = &self.inner;
        let mut request = inner.clients.api().request(method, url).header(AUTHORIZATION, inner.authorization.clone());
        if let Some(body) = body {
            request = request.json(body);
        }
        // The last thing before it is sent: this process may have been stopped since.
        let _sent = inner.quota.renewed(permit, &inner.clock).await?;
        inner.requests.fetch_add(1, Ordering::Relaxed);
        let answer = request.send().await;
        let status = answer.as_ref().ok().map(|response| response.status().as_u16());
        self.cells.api_requests.count(ApiAnswer::of_status(status));
        Ok(answer?)
    }
}

/// An id as one segment of a path.
fn encoded(id: &str) -> String {
    utf8_percent_encode(id, NOT_UNRESERVED).to_string()
}

#[cfg(test)]
mod tests;
