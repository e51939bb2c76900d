//! Sends a request and reads its answer within bounds of size and time. The depth of what is read is bounded by the JSON
//! parser (128 levels).

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use reqwest::Response;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::refusal::not_json;
use super::{ApiError, ApiRequest, JellyClient, Written};
use crate::config::HttpConfig;
use crate::http::served_at;

/// How much is read of one answer, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The largest body. A page of 100 messages holds their texts, so that this must not be small.
    pub max_answer_bytes: u64,
    /// How long a request and its whole answer may take.
    pub patience: Duration,
}

impl Bounds {
    /// As configured.
    pub fn of(config: &HttpConfig) -> Self {
        Self { max_answer_bytes: config.max_answer_bytes, patience: Duration::from_mins(2) }
    }
}

impl Default for Bounds {
    /// 64 MiB and two minutes.
    fn default() -> Self {
        Self::of(&HttpConfig::default())
    }
}

/// A successful answer, or the resource that is there already.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// `None` where there is no body.
    pub(super) json: Option<Box<RawValue>>,
    /// The service's clock, to the second, where the answer shows it.
    pub(super) served_at: Option<Timestamp>,
}

impl JellyClient {
    /// Takes from the quota, sends, and reads the whole answer. Never sends twice, and follows no redirect. A status of
    /// success comes back, and so does 409 with the JSON of what is there; everything else is an error.
    pub(super) async fn call(&self, request: &ApiRequest) -> Result<Answer, ApiError> {
        let url = self.url_of(request)?;
        let permit = self.admit().await?;
        let deadline = Instant::now() + self.bounds.patience;
        let work = async {
            let response = self.send(permit, request.method.clone(), url, request.body.as_ref()).await?;
            let status = response.status();
            if !status.is_success() && status != StatusCode::CONFLICT {
                let refusal = self.refusal(response, &[]).await;
                return Err(ApiError::of_refusal(refusal, request.what, "JSON"));
            }
            let served_at = served_at(response.headers());
            let body = self.read(response).await?;
            if status.is_success() && body.trim_ascii().is_empty() {
                return Ok(Answer { status, json: None, served_at });
            }
            match serde_json::from_slice(&body) {
                Ok(json) => Ok(Answer { status, json: Some(json), served_at }),
                Err(_) => {
                    let found = not_json(&body).unwrap_or("JSON that cannot be read");
                    Err(ApiError::NotJson { status: status.as_u16(), found })
                }
            }
        };
        timeout_at(deadline, work).await.unwrap_or_else(|_| {
            Err(ApiError::Timeout(format!("the whole answer was not there after {} s", self.bounds.patience.as_secs())))
        })
    }

    /// Reads a body to its end.
    async fn read(&self, mut response: Response) -> Result<Vec<u8>, ApiError> {
        let limit_bytes = self.bounds.max_answer_bytes;
        let too_large = || ApiError::TooLarge { limit_bytes };
        if response.content_length().is_some_and(|length| length > limit_bytes) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await? {
            if (body.len() + piece.len()) as u64 > limit_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// An answer of JSON; an empty body or a conflict is an error.
    pub(super) async fn json(&self, request: &ApiRequest) -> Result<Box<RawValue>, ApiError> {
        let (status, json) = self.json_or_conflict(request).await?;
        if status == StatusCode::CONFLICT { Err(self.conflict(&json, request)) } else { Ok(json) }
    }

    /// An answer of JSON, be it of what is there already.
    pub(super) async fn json_or_conflict(&self, request: &ApiRequest) -> Result<(StatusCode, Box<RawValue>), ApiError> {
        let Answer { status, json, .. } = self.call(request).await?;
        let json = json.ok_or(ApiError::NotJson { status: status.as_u16(), found: "an empty body" })?;
        Ok((status, json))
    }

    /// The error of a 409.
    pub(super) fn conflict(&self, json: &RawValue, request: &ApiRequest) -> ApiError {
        match self.received(json, "what is there already") {
            Ok(existing) => ApiError::Conflict { what: request.what, existing: Box::new(existing) },
            Err(error) => error,
        }
    }

    /// What a request that makes or changes something was answered with; 201 says that it is new.
    pub(super) async fn written<T: DeserializeOwned>(
        &self,
        request: &ApiRequest,
        expected: &'static str,
    ) -> Result<Written<T>, ApiError> {
        let (status, json) = self.json_or_conflict(request).await?;
        if status == StatusCode::CONFLICT {
            return Err(self.conflict(&json, request));
        }
        Ok(Written { is_new: status == StatusCode::CREATED, resource: self.received(&json, expected)? })
    }
}
