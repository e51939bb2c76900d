//! The bytes against what cites them: folder by folder, in the order of the tree, hashed on several threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;

use super::journal::causes;
use super::report::{BrokenBytes, FindingKind, Report};
use super::verify::Checked;
use super::{AuditError, Subject};
use crate::catalog::{BlobState, CitedBytes, State};
use crate::digest::Digest;
use crate::store::{Archive, BlobFile, StoreError, blob_key, quarantine_key};

/// Files that one thread hashes in one go: at most this many, or so many bytes.
const TASK_FILES: usize = 64;
const TASK_BYTES: u64 = 4 << 20;

const REPAIR: &str = "run `jellyjar verify --repair` to fetch the bytes again";
const NO_HARM: &str = "nothing needs to be done";

/// What is known of one name.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    file: Option<BlobFile>,
    cited: Option<CitedBytes>,
    row: Option<BlobState>,
}

/// What a thread found of one file: its digest and size, or why it cannot be read.
type Read = Result<Option<(Digest, u64)>, String>;

/// What one task has read.
type ReadFiles = Vec<(Digest, Entry, Read)>;

/// Compares all bytes with the merged journal and the catalog. Files that changed after `since_ms` may belong to work
/// in progress and are not called uncited.
pub(super) async fn audit_blobs(
    subject: &Subject,
    quick: bool,
    since_ms: i64,
    checked: &Checked,
    report: &mut Report,
) -> Result<(), AuditError> {
    let threads = subject.archive.reads_at_once();
    let mut tasks: JoinSet<Result<ReadFiles, StoreError>> = JoinSet::new();
    for stranger in subject.archive.blob_strangers().await? {
        stranger_note(report, stranger);
    }
    for prefix in 0..=u8::MAX {
        let (low, high) = folder_range(prefix);
        let folder = subject.archive.blob_folder(prefix).await?;
        for stranger in folder.strangers {
            stranger_note(report, stranger);
        }
        let mut entries: BTreeMap<Digest, Entry> = BTreeMap::new();
        for file in folder.blobs {
            report.looked.blobs += 1;
            report.looked.blob_bytes += file.size_bytes;
            entries.entry(file.digest).or_default().file = Some(file);
        }
        for cited in subject.catalog.audit_cited(State::Archived, low, high).await? {
            entries.entry(cited.sha256).or_default().cited = Some(cited);
        }
        for row in subject.catalog.blobs_between(subject.archive_row, low, high).await? {
            entries.entry(row.sha256).or_default().row = Some(row.state);
        }
        let mut batch: Vec<(Digest, Entry)> = Vec::new();
        let mut batch_bytes = 0;
        for (digest, entry) in entries {
            match entry.file {
                Some(file) if !quick => {
                    batch.push((digest, entry));
                    batch_bytes += file.size_bytes;
                    if batch.len() >= TASK_FILES || batch_bytes >= TASK_BYTES {
                        start(subject, std::mem::take(&mut batch), threads, &mut tasks, checked, since_ms, report)
                            .await?;
                        batch_bytes = 0;
                    }
                }
                file => {
                    add(checked, file.map_or(0, |file| file.size_bytes));
                    let read = Ok(file.map(|file| (digest, file.size_bytes)));
                    judge(subject, digest, &entry, &read, since_ms, report).await?;
                }
            }
        }
        if !batch.is_empty() {
            start(subject, batch, threads, &mut tasks, checked, since_ms, report).await?;
        }
    }
    while finish_one(subject, &mut tasks, since_ms, report).await? {}
    audit_quarantine(subject, quick, since_ms, report).await
}

/// Hands files to a thread, once one is free.
async fn start(
    subject: &Subject,
    batch: Vec<(Digest, Entry)>,
    threads: usize,
    tasks: &mut JoinSet<Result<ReadFiles, StoreError>>,
    checked: &Checked,
    since_ms: i64,
    report: &mut Report,
) -> Result<(), AuditError> {
    while tasks.len() >= threads {
        finish_one(subject, tasks, since_ms, report).await?;
    }
    for (_, entry) in &batch {
        add(checked, entry.file.map_or(0, |file| file.size_bytes));
    }
    let archive = Arc::clone(&subject.archive);
    tasks.spawn(async move {
        let mut done = Vec::with_capacity(batch.len());
        for (digest, entry) in batch {
            done.push((digest, entry, read(&archive, digest, false).await?));
        }
        Ok(done)
    });
    Ok(())
}

/// Takes the result of one thread; `false` when none is at work.
async fn finish_one(
    subject: &Subject,
    tasks: &mut JoinSet<Result<ReadFiles, StoreError>>,
    since_ms: i64,
    report: &mut Report,
) -> Result<bool, AuditError> {
    let Some(joined) = tasks.join_next().await else { return Ok(false) };
    for (digest, entry, read) in joined.map_err(|_| AuditError::Reader)?? {
        judge(subject, digest, &entry, &read, since_ms, report).await?;
    }
    Ok(true)
}

/// Reads a file. One that cannot be read is damaged; a bucket that cannot be reached says nothing of its files.
async fn read(archive: &Archive, digest: Digest, quarantine: bool) -> Result<Read, StoreError> {
    let read = if quarantine { archive.quarantined_digest(digest).await } else { archive.blob_digest(digest).await };
    match read {
        Err(error @ StoreError::Bucket(_)) => Err(error),
        read => Ok(read.map_err(|error| causes(&error))),
    }
}

fn add(checked: &Checked, bytes: u64) {
    checked.blobs.fetch_add(1, Ordering::Relaxed);
    checked.bytes.fetch_add(bytes, Ordering::Relaxed);
}

/// What is wrong with bytes; `None` if they are what they should be.
fn fault(digest: Digest, cited: Option<&CitedBytes>, read: &Read) -> Option<(FindingKind, String)> {
    let (found, size) = match read {
        Err(error) => return Some((FindingKind::BytesDamaged, format!("the file cannot be read: {error}"))),
        Ok(None) => return Some((FindingKind::BytesMissing, "the file is gone".into())),
        Ok(Some(read)) => *read,
    };
    if let Some(cited) = cited.filter(|cited| cited.min_size != size || cited.max_size != size) {
        let detail = format!("the file has {size} bytes, {} are recorded", cited.max_size);
        return Some((FindingKind::BytesDamaged, detail));
    }
    (found != digest).then(|| (FindingKind::BytesDamaged, format!("the bytes hash to {found}")))
}

async fn judge(
    subject: &Subject,
    digest: Digest,
    entry: &Entry,
    read: &Read,
    since_ms: i64,
    report: &mut Report,
) -> Result<(), AuditError> {
    let (catalog, archive_row) = (&subject.catalog, subject.archive_row);
    let key = blob_key(digest);
    let fault = fault(digest, entry.cited.as_ref(), read);
    let Some(cited) = entry.cited else {
        // Nothing cites it: harmless, as long as nobody takes it unread.
        let change = [BlobState::Durable, BlobState::Damaged];
        if fault.is_some() || entry.row == Some(BlobState::Damaged) {
            catalog.change_blob_state(archive_row, digest, &change, BlobState::Writing).await?;
        }
        if entry.file.is_some_and(|file| file.modified_ms < since_ms) {
            let detail = match fault {
                Some((_, fault)) => format!("nothing cites it, and {fault}"),
                None => "nothing cites it: a crash came before its outcome was written".into(),
            };
            report.note(FindingKind::Uncited, key, detail, NO_HARM);
        }
        return Ok(());
    };
    match fault {
        Some((kind, detail)) => {
            catalog.set_blob_state(archive_row, digest, cited.max_size, BlobState::Damaged).await?;
            let detail = format!("{detail}; {} attachments have it, one is {}", cited.attachments, cited.key);
            let broken = BrokenBytes { sha256: digest, size_bytes: cited.max_size, quarantine: false };
            report.broken(kind, broken, key, detail, REPAIR);
        }
        None => match entry.row {
            // Somebody put it right. It is read once more before it is cited.
            Some(BlobState::Damaged) => {
                catalog.change_blob_state(archive_row, digest, &[BlobState::Damaged], BlobState::Writing).await?;
            }
            Some(_) => {}
            None => report.problem(
                FindingKind::CatalogDiffers,
                key,
                "the journal cites it, and the catalog does not know it",
                "run `jellyjar rebuild`",
            ),
        },
    }
    Ok(())
}

async fn audit_quarantine(
    subject: &Subject,
    quick: bool,
    since_ms: i64,
    report: &mut Report,
) -> Result<(), AuditError> {
    let folder = subject.archive.quarantine_folder().await?;
    for stranger in folder.strangers {
        stranger_note(report, stranger);
    }
    report.looked.quarantined = folder.blobs.len() as u64;
    let mut files: BTreeMap<Digest, BlobFile> = folder.blobs.into_iter().map(|file| (file.digest, file)).collect();
    let (low, high) = (Digest::from_bytes([0; 32]), Digest::from_bytes([0xff; 32]));
    for cited in subject.catalog.audit_cited(State::Quarantined, low, high).await? {
        let file = files.remove(&cited.sha256);
        let (archive, digest) = (&subject.archive, cited.sha256);
        let read = match file {
            Some(file) if quick => Ok(Some((digest, file.size_bytes))),
            Some(_) => read(archive, digest, true).await?,
            // Accepted for another attachment with the same bytes.
            None if quick => Ok(archive.blob_size(digest).await?.map(|size| (digest, size))),
            None => read(archive, digest, false).await?,
        };
        if let Some((kind, detail)) = fault(digest, Some(&cited), &read) {
            let broken = BrokenBytes { sha256: digest, size_bytes: cited.max_size, quarantine: true };
            let detail = format!("{detail}; {} attachments have it, one is {}", cited.attachments, cited.key);
            let advice = "run `jellyjar verify --repair`, or `jellyjar retry --quarantined`, to fetch the bytes again";
            report.broken(kind, broken, quarantine_key(digest), detail, advice);
        }
    }
    for (digest, file) in files {
        if file.modified_ms < since_ms {
            let detail = "no attachment is quarantined with these bytes any more";
            report.note(FindingKind::Uncited, quarantine_key(digest), detail, "it may be deleted");
        }
    }
    Ok(())
}

fn stranger_note(report: &mut Report, key: String) {
    report.note(FindingKind::Stranger, key, "it is none of the archive's files", "it may be moved away");
}

fn folder_range(prefix: u8) -> (Digest, Digest) {
    let (mut low, mut high) = ([0; 32], [0xff; 32]);
    (low[0], high[0]) = (prefix, prefix);
    (Digest::from_bytes(low), Digest::from_bytes(high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AttachmentKey;

    #[test]
    fn bytes_are_faulty_when_missing_unreadable_of_another_size_or_of_another_digest() {
        let digest = Digest::of(b"right");
        let key = AttachmentKey::from_slice(&[1; 16]).unwrap();
        let cited = CitedBytes { sha256: digest, min_size: 5, max_size: 5, key, attachments: 1 };
        let kind = |read: Read| fault(digest, Some(&cited), &read).map(|(kind, _)| kind);
        assert_eq!(kind(Ok(Some((digest, 5)))), None);
        assert_eq!(kind(Ok(None)), Some(FindingKind::BytesMissing));
        assert_eq!(kind(Err("no".into())), Some(FindingKind::BytesDamaged));
        assert_eq!(kind(Ok(Some((digest, 6)))), Some(FindingKind::BytesDamaged));
        assert_eq!(kind(Ok(Some((Digest::of(b"wrong"), 5)))), Some(FindingKind::BytesDamaged));
        let unsure = CitedBytes { min_size: 4, ..cited };
        assert!(fault(digest, Some(&unsure), &Ok(Some((digest, 5)))).is_some());
    }

    #[test]
    fn the_256_folders_cover_every_digest_once() {
        let digest = Digest::of(b"x");
        let holding = (0..=u8::MAX).filter(|prefix| {
            let (low, high) = folder_range(*prefix);
            low <= digest && digest <= high
        });
        assert_eq!(holding.collect::<Vec<_>>(), [digest.as_bytes()[0]]);
    }
}
