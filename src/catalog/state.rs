//! The words that rows hold.

use std::str::FromStr;

use serde::Serialize;

use super::CatalogError;
use crate::model::OutcomeKind;

/// The one place an attachment is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// To be fetched, or being fetched.
    Pending,
    /// Its bytes are a blob.
    Archived,
    /// A rule decided against it.
    Skipped,
    /// It could not be fetched, for good.
    Failed,
    /// Its bytes contradict what was declared; a person decides.
    Quarantined,
    /// It was erased on request.
    Erased,
}

impl State {
    /// The word in rows and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Archived => "archived",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Quarantined => "quarantined",
            Self::Erased => "erased",
        }
    }
}

impl From<OutcomeKind> for State {
    fn from(kind: OutcomeKind) -> Self {
        match kind {
            OutcomeKind::Archived => Self::Archived,
            OutcomeKind::Skipped => Self::Skipped,
            OutcomeKind::Failed => Self::Failed,
            OutcomeKind::Quarantined => Self::Quarantined,
            OutcomeKind::Erased => Self::Erased,
        }
    }
}

impl FromStr for State {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        [Self::Pending, Self::Archived, Self::Skipped, Self::Failed, Self::Quarantined, Self::Erased]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| CatalogError::Impossible(format!("attachments.state {text:?}")))
    }
}

/// What is known of a blob's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobState {
    /// Meant to be stored, or cited by a journal that was loaded: to be read and hashed before it is cited.
    Writing,
    /// Stored and synced under this catalog's eyes.
    Durable,
    /// Cited by nothing; to be deleted unless it is cited again.
    Condemned,
    /// Being deleted.
    Deleting,
    /// Known to be missing or wrong.
    Damaged,
}

impl BlobState {
    /// The word in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Writing => "writing",
            Self::Durable => "durable",
            Self::Condemned => "condemned",
            Self::Deleting => "deleting",
            Self::Damaged => "damaged",
        }
    }
}

impl FromStr for BlobState {
    type Err = CatalogError;

    fn from_str(text: &str) -> Result<Self, CatalogError> {
        [Self::Writing, Self::Durable, Self::Condemned, Self::Deleting, Self::Damaged]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| CatalogError::Impossible(format!("blobs.state {text:?}")))
    }
}

/// A time during which a team or egress group sends no request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// `team:<row>`, `person:<row>` or `egress:<group>`; in memory alone also `bulk:…`, `token:…` and `local`.
    pub scope: String,
    /// Its end in milliseconds since the Unix epoch; `i64::MAX` until somebody resumes.
    pub until_ms: i64,
    /// Why.
    pub reason: String,
}

impl Pause {
    /// Whether a person holds the team, which says nothing of its token.
    pub fn is_by_person(&self) -> bool {
        self.scope.starts_with("person:")
    }

    /// Whether the team's token was refused.
    pub fn is_of_refused_token(&self) -> bool {
        self.until_ms == i64::MAX && (self.scope.starts_with("team:") || self.scope.starts_with("token:"))
    }
}
