//! Making the catalog anew from the journal. A crash in between leaves a catalog that the next load completes.

use serde::Serialize;

use super::journal::unreadable;
use super::{AuditError, Subject};
use crate::catalog::WorkerLock;
use crate::ingest::{Intake, Team};
use crate::model::TeamKey;

/// What was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Segments.
    pub segments: u64,
    /// Message lines.
    pub messages: u64,
    /// Outcome lines.
    pub outcomes: u64,
}

/// Forgets what the journal can tell, and loads the journal. Refuses, and changes nothing, while a segment cannot be
/// read.
pub async fn rebuild(
    subject: &Subject,
    intake: &Intake,
    lock: &WorkerLock,
    rules: &(dyn Fn(&TeamKey) -> Team + Send + Sync),
) -> Result<Rebuilt, AuditError> {
    let bad = unreadable(&subject.archive).await?;
    if let Some((key, reason)) = bad.first() {
        return Err(AuditError::Unreadable { count: bad.len(), first: format!("{key}: {reason}") });
    }
    subject.catalog.forget_archive(subject.archive_row, lock).await?;
    let loaded = intake.reload(rules, false).await?;
    Ok(Rebuilt { segments: loaded.segments, messages: loaded.messages, outcomes: loaded.outcomes })
}
