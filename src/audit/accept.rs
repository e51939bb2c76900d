//! Accepting quarantined bytes by a person's leave: blob, outcome line, catalog, in this order. A crash between any two
//! leaves what the next call, or the next load of the journal, completes.

use serde::Serialize;
use serde_json::Map;

use super::{AuditError, Subject};
use crate::catalog::{AttachmentRow, State};
use crate::digest::Digest;
use crate::model::{FORMAT_VERSION, OutcomeKind, OutcomeLine, Stream};

/// What became of the accepted attachments.
#[derive(Debug, Default, Serialize)]
pub struct Accepted {
    /// Those that are archived now.
    pub accepted: Vec<AttachmentRow>,
    /// Those whose bytes are gone or no longer what was quarantined.
    pub bytes_lost: Vec<AttachmentRow>,
}

/// Attachments that share one outcome segment.
const BATCH: usize = 500;

/// Admits quarantined bytes of these attachments to the archive.
pub async fn accept(subject: &Subject, rows: Vec<AttachmentRow>) -> Result<Accepted, AuditError> {
    let mut done = Accepted::default();
    let mut rows = rows.into_iter();
    loop {
        let batch: Vec<AttachmentRow> = rows.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return Ok(done);
        }
        accept_batch(subject, batch, &mut done).await?;
    }
}

async fn accept_batch(subject: &Subject, batch: Vec<AttachmentRow>, done: &mut Accepted) -> Result<(), AuditError> {
    let intents: Vec<(Digest, u64)> =
        batch.iter().filter_map(|row| Some((row.sha256?, row.size_bytes.unwrap_or(0)))).collect();
    // The blobs are named in the catalog before they are there, as for any other.
    subject.catalog.intend(subject.archive_row, &[], &intents).await?;
    let archive = &subject.archive;
    let mut moved = Vec::with_capacity(batch.len());
    for row in &batch {
        moved.push(match row.sha256 {
            // Moved already: by an accept that died, or for another attachment with the same bytes.
            Some(sha256) => archive.accept_quarantined(sha256).await?.is_some() || archive.settle_blob(sha256).await?,
            None => false,
        });
    }

    let mut lines = Vec::new();
    let mut accepted = Vec::new();
    for (mut row, there) in batch.into_iter().zip(moved) {
        let (Ok(team), Ok(attachment_id), true) = (row.team.parse(), row.attachment_id.clone().try_into(), there)
        else {
            done.bytes_lost.push(row);
            continue;
        };
        let reason = format!("accepted by hand: {}", row.reason.as_deref().unwrap_or("no reason was kept"));
        row.reason = Some(reason.clone());
        lines.push(OutcomeLine {
            v: FORMAT_VERSION,
            kind: OutcomeKind::Archived,
            team,
            attachment_id,
            generation: subject.catalog.next_generation().await?,
            writer_id: subject.journal.writer_id().clone(),
            at: subject.clock.now(),
            sha256: row.sha256,
            size_bytes: row.size_bytes,
            sniffed_type: row.sniffed_type.clone(),
            rule: None,
            reason: Some(reason),
            extra: Map::new(),
        });
        accepted.push(row);
    }
    if lines.is_empty() {
        return Ok(());
    }
    let (key, digest) = subject.journal.append(Stream::Outcomes, &lines).await?;
    let writer_id = &subject.journal.writer_id().0;
    for (row, line) in accepted.iter().zip(&lines) {
        let reason = row.reason.as_deref().unwrap_or_default();
        let segment = (key.as_str(), digest);
        let still =
            subject.catalog.accept(subject.archive_row, row, line.generation, reason, writer_id, segment).await?;
        if !still {
            // It was queued again meanwhile. The line is in the journal, so the journal's merge decides.
            let lines = std::slice::from_ref(line);
            subject.catalog.load_outcomes(subject.archive_row, &line.team, lines).await?;
        }
    }
    done.accepted.extend(accepted.into_iter().map(|row| AttachmentRow { state: State::Archived, ..row }));
    Ok(())
}
