//! One download from its first request to its last byte.

use std::time::Duration;

use http::header::{CONTENT_RANGE, ETAG, HeaderValue, IF_MATCH, RANGE, TRANSFER_ENCODING};
use http::{StatusCode, Version};
use jiff::Timestamp;
use reqwest::Response;
use tokio::time::Instant;
use url::Url;

use super::claims::{Claim, claims, continues_at, strong_etag};
use super::sniff::error_page;
use super::{Declared, FetchError};
use crate::config::HttpConfig;
use crate::http::{HttpClients, classify, read_body, retry_after};
use crate::jelly::{SignedUrl, resolve_location};
use crate::spool::{Reservation, Spool, SpoolWriter, Spooled, SumKind};

/// A download that drips more slowly than this counts as broken once it has had its time, in bytes a second.
const SLOWEST_RATE: u64 = 256;
/// How long a download may be slow.
const SLOW_GRACE: Duration = Duration::from_mins(2);

/// A download whose answer has begun: the head is read and sound, the body is on its way. Made by
/// [`Download::open`] alone; becomes [`Spooled`].
#[derive(Debug)]
pub struct Download {
    clients: HttpClients,
    /// Where the bytes are, after all redirects.
    target: Target,
    declared: Declared,
    max_resumes: u32,
    limit_bytes: u64,
    answer: Answer,
    writer: SpoolWriter,
    resumes: u32,
}

/// A URL that prints scheme and host alone, and whether it is exactly what the service wrote.
struct Target {
    url: Url,
    exact: bool,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", crate::http::Origin(&self.url))
    }
}

/// What the head of the answer says of the whole body.
struct Answer {
    response: Response,
    length: Option<u64>,
    etag: Option<HeaderValue>,
    claims: Vec<Claim>,
    /// Whether only the connection's end marks the body's (RFC 9112 §6.3): it may be a cut.
    ends_with_connection: bool,
    started: Instant,
    received_bytes: u64,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Answer {
    fn new(response: Response, limit_bytes: u64) -> Result<Self, FetchError> {
        let length = response.content_length();
        if length.is_some_and(|length| length > limit_bytes) {
            return Err(FetchError::TooLarge { limit_bytes });
        }
        let headers = response.headers();
        let framed = length.is_some() || headers.contains_key(TRANSFER_ENCODING);
        Ok(Self {
            length,
            etag: strong_etag(headers).cloned(),
            claims: claims(headers),
            ends_with_connection: !framed && response.version() <= Version::HTTP_11,
            started: Instant::now(),
            received_bytes: 0,
            response,
        })
    }

    fn kinds(&self) -> Vec<SumKind> {
        self.claims.iter().map(|claim| claim.kind).collect()
    }
}

/// How the body ended.
enum End {
    Whole,
    Cut(String),
}

impl Download {
    /// Requests the link and follows its redirects, each checked by the address rules, until bytes begin to come.
    pub async fn open(
        clients: &HttpClients,
        link: SignedUrl,
        declared: &Declared,
        spool: &Spool,
        reservation: Reservation,
        config: &HttpConfig,
    ) -> Result<Self, FetchError> {
        let mut target = Target { exact: link.is_exact(), url: link.open() };
        for _ in 0..=config.max_storage_redirects {
            check_target(clients, &target.url)?;
            let mut response = clients.storage().get(target.url.clone()).send().await?;
            match response.status() {
                StatusCode::OK => {
                    let answer = Answer::new(response, config.max_attachment_bytes)?;
                    let writer = spool.writer(reservation, answer.length, &answer.kinds());
                    return Ok(Self {
                        clients: clients.clone(),
                        target,
                        declared: *declared,
                        max_resumes: config.max_resumes,
                        limit_bytes: config.max_attachment_bytes,
                        answer,
                        writer,
                        resumes: 0,
                    });
                }
                status if is_redirect(status) => {
                    let (url, exact) = resolve_location(&target.url, response.headers())
                        .map_err(|bad| FetchError::Redirect(format!("it answers {bad}")))?;
                    target = Target { url, exact: exact && target.exact };
                    read_body(&mut response).await;
                }
                status => return Err(refused(status, response, target.exact).await),
            }
        }
        Err(FetchError::Redirect(format!("more than {} redirects", config.max_storage_redirects)))
    }

    /// Reads the body to its end, continuing it where it breaks, and checks it.
    pub async fn finish(mut self) -> Result<Spooled, FetchError> {
        loop {
            match self.read().await? {
                End::Whole => break,
                End::Cut(reason) => self = self.resume(reason).await?,
            }
        }
        let Self { writer, answer, declared, .. } = self;
        let spooled = writer.finish().await?;
        check(spooled, &answer.claims, declared)
    }

    /// Reads what is left of the answer that is open.
    async fn read(&mut self) -> Result<End, FetchError> {
        loop {
            let piece = match self.answer.response.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(self.end()),
                Err(error) => return Ok(End::Cut(classify(error).1)),
            };
            let size_bytes = self.writer.size_bytes().saturating_add(piece.len() as u64);
            if size_bytes > self.limit_bytes {
                return Err(FetchError::TooLarge { limit_bytes: self.limit_bytes });
            }
            if self.answer.length.is_some_and(|length| size_bytes > length) {
                return Err(self.broken("more bytes came than were announced".into(), true));
            }
            self.writer.write(&piece).await?;
            self.answer.received_bytes += piece.len() as u64;
            if too_slow(self.answer.started.elapsed(), self.answer.received_bytes) {
                return Ok(End::Cut("the bytes come too slowly".into()));
            }
        }
    }

    /// Judges an orderly end.
    fn end(&self) -> End {
        let size_bytes = self.writer.size_bytes();
        let short = match self.answer.length {
            Some(length) => size_bytes < length,
            None => {
                self.answer.ends_with_connection
                    && self.declared.size_bytes.is_some_and(|declared| size_bytes < declared)
            }
        };
        if short { End::Cut("the connection ended early".into()) } else { End::Whole }
    }

    /// Opens an answer that continues the bytes that are here, or begins anew on the same link.
    async fn resume(mut self, mut reason: String) -> Result<Self, FetchError> {
        let Some(etag) = self.answer.etag.clone() else { return Err(self.broken(reason, true)) };
        let mut whole = self.writer.size_bytes() == 0;
        while self.resumes < self.max_resumes {
            self.resumes += 1;
            let mut request = self.clients.storage().get(self.target.url.clone());
            if !whole {
                let range = format!("bytes={}-", self.writer.size_bytes());
                request = request.header(RANGE, range).header(IF_MATCH, etag.clone());
            }
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) => {
                    reason = classify(error).1;
                    continue;
                }
            };
            match response.status() {
                StatusCode::OK => {
                    self.answer = Answer::new(response, self.limit_bytes)?;
                    self.writer = self.writer.restart(self.answer.length, &self.answer.kinds());
                    return Ok(self);
                }
                StatusCode::PARTIAL_CONTENT if !whole && self.continues(&response, &etag) => {
                    self.answer.response = response;
                    self.answer.started = Instant::now();
                    self.answer.received_bytes = 0;
                    return Ok(self);
                }
                // Something else is there now, or ranges are not understood: from the beginning.
                StatusCode::PARTIAL_CONTENT | StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE
                    if !whole =>
                {
                    whole = true;
                    reason = format!("it could not be continued ({})", response.status().as_u16());
                }
                status => return Err(refused(status, response, self.target.exact).await),
            }
        }
        Err(self.broken(reason, false))
    }

    /// Whether a 206 continues exactly where the bytes end, in the same version of the file.
    fn continues(&self, response: &Response, etag: &HeaderValue) -> bool {
        let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok()).unwrap_or_default();
        response.headers().get(ETAG) == Some(etag) && continues_at(range, self.writer.size_bytes(), self.answer.length)
    }

    fn broken(&self, reason: String, afresh: bool) -> FetchError {
        FetchError::Broken { received_bytes: self.writer.size_bytes(), reason, afresh }
    }
}

/// Whether a download of `received_bytes` in `elapsed` is stuck for all purposes.
fn too_slow(elapsed: Duration, received_bytes: u64) -> bool {
    elapsed > SLOW_GRACE && received_bytes < elapsed.as_secs().saturating_mul(SLOWEST_RATE)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn check_target(clients: &HttpClients, url: &Url) -> Result<(), FetchError> {
    clients.rules().check_url(url).map_err(|refusal| FetchError::RefusedTarget(refusal.to_string()))
}

async fn refused(status: StatusCode, mut response: Response, exact: bool) -> FetchError {
    // A date to wait for is measured on the server's own clock; where that is not told, it counts as now.
    let told = response.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    let now =
        told.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map_or(Timestamp::MAX, |date| date.timestamp());
    let wait = retry_after(response.headers(), now);
    read_body(&mut response).await;
    FetchError::from_status(status, wait, exact)
}

/// Compares a whole body with everything that was declared of it.
fn check(spooled: Spooled, claims: &[Claim], declared: Declared) -> Result<Spooled, FetchError> {
    let (mut facts, mut vouched) = (Vec::new(), false);
    if let Some(size_bytes) = declared.size_bytes {
        if size_bytes == spooled.size_bytes() {
            vouched = true;
        } else {
            facts.push(format!("the message declares {size_bytes} bytes, the file has {}", spooled.size_bytes()));
        }
    }
    for claim in claims {
        match claim.contradiction(&spooled) {
            Some(fact) => facts.push(fact),
            None => vouched = true,
        }
    }
    if !vouched && let Some(kind) = error_page(spooled.head(), spooled.size_bytes()) {
        return Err(FetchError::ErrorPage { size_bytes: spooled.size_bytes(), kind });
    }
    if facts.is_empty() {
        Ok(spooled)
    } else {
        Err(FetchError::Mismatch { spooled: Box::new(spooled), facts: facts.join("; ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drip_is_too_slow_once_it_has_had_its_time() {
        assert!(!too_slow(Duration::from_secs(119), 0));
        assert!(too_slow(Duration::from_secs(200), 200 * 256 - 1));
        assert!(!too_slow(Duration::from_secs(200), 200 * 256));
    }
}
