//! Proving an archive: marker, journal, catalog and bytes, each against the others. Nothing in the archive is changed;
//! in the catalog, bytes that are missing or wrong are marked, so that nobody cites them unread.

use std::sync::atomic::AtomicU64;

use super::blobs::audit_blobs;
use super::journal::JournalAudit;
use super::report::{FindingKind, Report};
use super::{AuditError, Subject};
use crate::catalog::{Difference, State};
use crate::store::Archive;

/// How thorough a verification is.
#[derive(Debug, Clone, Copy, Default)]
pub struct VerifyOptions {
    /// Measure the bytes instead of hashing them.
    pub quick: bool,
    /// Whether another process works on the archive: what it changed within the last minute is not judged.
    pub worker_running: bool,
}

/// How far a verification is, for display.
#[derive(Debug, Default)]
pub struct Checked {
    /// Blob files that were looked at.
    pub blobs: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
}

/// A worker tells the catalog within this time what it has put in the journal.
const IN_MOTION_MS: i64 = 60_000;
/// A writer gives a sign of life every 30 s.
const ALIVE_MS: i64 = 90_000;
/// How often the journal is read at most while compaction moves it.
const PASSES: u32 = 10;

/// Verifies an archive. The catalog should have loaded the journal before.
pub async fn verify(subject: &Subject, options: VerifyOptions, checked: &Checked) -> Result<Report, AuditError> {
    let started_ms = subject.clock.now_ms();
    let in_motion = options.worker_running || others_write(subject, started_ms).await?;
    let since = if in_motion { started_ms - IN_MOTION_MS } else { started_ms };
    // What claims to be of the future is judged: its clock is wrong.
    let moving = (since, started_ms + 24 * 3_600_000);
    let mut report;
    let mut pass = 0;
    loop {
        pass += 1;
        report = Report { hashed: !options.quick, ..Report::default() };
        check_marker(subject, &mut report).await;
        subject.catalog.begin_audit().await?;
        // Where compaction moved lines while they were read, all is read again: they are in segments that were not listed.
        if JournalAudit::new(subject, moving).run(&mut report).await? || pass == PASSES {
            break;
        }
    }
    subject.catalog.index_audit().await?;
    (report.looked.outcomes, _) = subject.catalog.audit_totals().await?;
    compare_catalog(subject, moving, &mut report).await?;
    audit_blobs(subject, options.quick, since, checked, &mut report).await?;
    report.findings.sort_by_key(|finding| !finding.problem);
    Ok(report)
}

/// Whether a writer of another process is at work: its record is fresh, and does not say that it has ended.
async fn others_write(subject: &Subject, now_ms: i64) -> Result<bool, AuditError> {
    let ours = subject.journal.writer_id();
    let records = subject.archive.writer_records().await?;
    Ok(records.iter().filter_map(|(_, record)| record.as_ref().ok()).any(|record| {
        record.writer_id != *ours
            && record.ended_at.is_none()
            && now_ms - record.heartbeat_at.as_millisecond() < ALIVE_MS
    }))
}

async fn check_marker(subject: &Subject, report: &mut Report) {
    let found = Archive::open(&subject.archive.place()).await.map(|archive| archive.uuid().to_owned());
    if found.as_deref().ok() != Some(subject.archive.uuid()) {
        report.problem(
            FindingKind::Marker,
            Archive::MARKER,
            "it changed while the archive was open",
            "restore it from a copy of the archive",
        );
    }
}

async fn compare_catalog(subject: &Subject, moving: (i64, i64), report: &mut Report) -> Result<(), AuditError> {
    let kept = usize::try_from(Report::KEPT).unwrap_or(usize::MAX);
    let (differences, total) = subject.catalog.audit_differences(subject.archive_row, moving, kept).await?;
    let left_out = total.saturating_sub(differences.len() as u64);
    for difference in differences {
        let (kind, detail, advice) = judge(&difference);
        report.problem(kind, difference.key.to_string(), detail, advice);
    }
    report.problems += left_out;
    Ok(())
}

/// What a difference between journal and catalog means.
fn judge(difference: &Difference) -> (FindingKind, String, &'static str) {
    let word = |state: Option<State>| state.map_or("nothing", State::as_str);
    let Difference { journal, catalog, carried, same_bytes, .. } = *difference;
    if catalog.is_none() {
        let detail = format!(
            "the journal says {}, and the catalog does not know it",
            journal.map_or("it was seen", State::as_str)
        );
        return (FindingKind::CatalogDiffers, detail, "run `jellyjar rebuild`");
    }
    if journal.is_none() {
        let detail = if catalog == Some(State::Pending) {
            "it is pending, and no message of the journal carries it".to_owned()
        } else {
            format!("the catalog says {}, and the journal has no outcome for it", word(catalog))
        };
        let advice =
            "restore the missing segments from a copy, or run `jellyjar rebuild` and replay the payload it came from";
        return (FindingKind::NotInJournal, detail, advice);
    }
    if journal != catalog || !same_bytes && matches!(journal, Some(State::Archived | State::Quarantined)) {
        let pending = catalog == Some(State::Pending) && !matches!(journal, Some(State::Archived | State::Erased));
        if !pending {
            let detail = if journal == catalog {
                "journal and catalog name different bytes for it".to_owned()
            } else {
                format!("the journal says {}, the catalog {}", word(journal), word(catalog))
            };
            return (FindingKind::CatalogDiffers, detail, "run `jellyjar rebuild`");
        }
    }
    debug_assert!(!carried, "a difference has a cause");
    (
        FindingKind::OutcomeWithoutMessage,
        format!("the journal says {}, and no message of the journal carries it", word(journal)),
        "restore the missing segment of messages/ from a copy, or replay the payload it came from",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AttachmentKey;

    fn judged(journal: Option<State>, carried: bool, catalog: Option<State>, same_bytes: bool) -> FindingKind {
        let key = AttachmentKey::from_slice(&[7; 16]).unwrap();
        judge(&Difference { key, journal, carried, catalog, same_bytes }).0
    }

    #[test]
    fn each_difference_is_told_as_what_it_is() {
        use FindingKind as Kind;
        assert_eq!(judged(Some(State::Archived), true, None, false), Kind::CatalogDiffers);
        assert_eq!(judged(None, true, None, false), Kind::CatalogDiffers);
        assert_eq!(judged(Some(State::Archived), true, Some(State::Pending), false), Kind::CatalogDiffers);
        assert_eq!(judged(Some(State::Archived), true, Some(State::Archived), false), Kind::CatalogDiffers);
        assert_eq!(judged(None, true, Some(State::Archived), false), Kind::NotInJournal);
        assert_eq!(judged(None, false, Some(State::Pending), false), Kind::NotInJournal);
        assert_eq!(judged(Some(State::Archived), false, Some(State::Archived), true), Kind::OutcomeWithoutMessage);
        assert_eq!(judged(Some(State::Failed), false, Some(State::Pending), false), Kind::OutcomeWithoutMessage);
    }
}
