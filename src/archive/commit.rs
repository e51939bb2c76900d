//! Making a batch of finished leases durable, in the one order that never cites what is not there:
//! intent, bytes, names, outcome lines, catalog.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Map;
use tracing::warn;

use super::Finished;
use super::writing::Writing;
use crate::catalog::{
    ArchiveRow, BlobState, Catalog, CatalogError, Completion, Job, Lease, LeaseTicket, NewState, Pause,
};
use crate::clock::Clock;
use crate::digest::Digest;
use crate::fetch::sniff;
use crate::metrics::{Attempt, Metrics, Outcome, Stage, TeamMetrics};
use crate::model::{AttachmentKey, FORMAT_VERSION, OutcomeKind, OutcomeLine, Stream, TeamKey};
use crate::spool::{SpoolHold, SpooledBytes};
use crate::store::{Archive, JournalWriter, Put, StoreError, Stored};

/// What can go wrong while a batch is made durable. Nothing of the batch is lost: its leases end, and the work is
/// done again.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The archive failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What this process has done so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Attachments whose outcome is final, by this process.
    pub decided: AtomicU64,
    /// Archived ones.
    pub archived: AtomicU64,
    /// Those of them whose content was there already.
    pub duplicates: AtomicU64,
    /// Failed ones.
    pub failed: AtomicU64,
    /// Quarantined ones.
    pub quarantined: AtomicU64,
    /// Attempts that are to be repeated.
    pub retried: AtomicU64,
    /// Bytes of whole downloads.
    pub bytes_fetched: AtomicU64,
    /// Bytes that are new in the archive.
    pub bytes_stored: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Makes batches durable. Several may be on their way at once, where the archive is a bucket.
#[derive(Debug)]
pub struct Committer {
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// The archive.
    pub archive: Arc<Archive>,
    /// Its row.
    pub archive_row: ArchiveRow,
    /// This process's chains of segments.
    pub journal: Arc<JournalWriter>,
    /// The folder for temporary files.
    pub scratch: PathBuf,
    /// The time.
    pub clock: Clock,
    /// Attempts before an attachment fails for good.
    pub max_attempts: u32,
    /// What has been done.
    pub tally: Arc<Tally>,
    /// What its batches store now.
    pub writing: Writing,
    /// Where it is told how long it all takes.
    pub metrics: Metrics,
    /// Where it is told what became of each team's attachments.
    pub cells: HashMap<TeamKey, Arc<TeamMetrics>>,
}

/// Bytes of which one copy is stored for all that have them. Made of a download alone.
#[derive(Debug)]
struct Blob {
    digest: Digest,
    size_bytes: u64,
    bytes: SpooledBytes,
    quarantine: bool,
    hold: SpoolHold,
}

/// What is written down of one lease: its outcome line, if it has one, and its completion. Made only after the bytes
/// that it cites are durable.
#[derive(Debug)]
struct Record {
    line: Option<OutcomeLine>,
    completion: Completion,
    counted: Counted,
}

/// What is counted of a lease once its end is in the catalog.
#[derive(Debug)]
struct Counted {
    key: AttachmentKey,
    team: TeamKey,
    attempt: Attempt,
    outcome: Option<Outcome>,
    size_bytes: u64,
}

/// A lease whose bytes are on their way to the archive.
#[derive(Debug)]
struct Fetched {
    lease: Lease<Job>,
    team: TeamKey,
    digest: Digest,
    size_bytes: u64,
    sniffed_type: Option<String>,
    quarantine: Option<String>,
}

impl Committer {
    /// Makes a batch durable. When this returns, every lease in it has ended.
    ///
    /// # Errors
    /// On any, this process must commit no more: what a failed sync covered is not known.
    pub async fn commit(&self, batch: Vec<Finished>) -> Result<(), CommitError> {
        let began = Instant::now();
        let mut fetched = Vec::with_capacity(batch.len());
        let mut ended = Vec::new();
        let mut pauses = Vec::new();
        let mut blobs: HashMap<(Digest, bool), Blob> = HashMap::new();
        for finished in batch {
            match finished {
                Finished::Fetched { lease, team, spooled, quarantine } => {
                    let sniffed_type = sniff(spooled.head()).map(str::to_owned);
                    let (bytes, digest, size_bytes, hold) = spooled.into_parts();
                    let in_quarantine = quarantine.is_some();
                    add(&self.tally.bytes_fetched, size_bytes);
                    blobs.entry((digest, in_quarantine)).or_insert(Blob {
                        digest,
                        size_bytes,
                        bytes,
                        quarantine: in_quarantine,
                        hold,
                    });
                    fetched.push(Fetched { lease, team, digest, size_bytes, sniffed_type, quarantine });
                }
                Finished::Ended { lease, team, state, failure, pause } => {
                    pauses.extend(pause);
                    ended.push((lease, team, state, failure));
                }
            }
        }

        let tickets: Vec<LeaseTicket> = fetched
            .iter()
            .map(|one| one.lease.ticket())
            .chain(ended.iter().map(|(lease, ..)| lease.ticket()))
            .collect();
        let wanted: Vec<(Digest, u64)> =
            blobs.values().filter(|blob| !blob.quarantine).map(|blob| (blob.digest, blob.size_bytes)).collect();
        // Of two batches with one content the second finds it durable.
        let _claim = self.writing.claim(wanted.iter().map(|(digest, _)| *digest).collect()).await;
        let intent = self.catalog.intend(self.archive_row, &tickets, &wanted).await?;
        // A lease that was lost meanwhile gets no line: somebody else has the attachment, or it was erased.
        fetched.retain(|one| intent.holds(&one.lease.ticket()));
        ended.retain(|(lease, ..)| intent.holds(&lease.ticket()));
        let durable: HashSet<Digest> = intent
            .known_blobs()
            .iter()
            .filter(|(_, state)| *state == BlobState::Durable)
            .map(|(digest, _)| *digest)
            .collect();

        let needed: HashSet<(Digest, bool)> =
            fetched.iter().map(|one| (one.digest, one.quarantine.is_some())).collect();
        blobs.retain(|key, _| needed.contains(key));
        let (stored, blocked) = self.store(blobs, durable).await?;

        let mut records = Vec::with_capacity(tickets.len());
        let mut first_of: HashSet<Digest> = HashSet::new();
        for one in fetched {
            if let Some(reason) = blocked.get(&one.digest) {
                let state = self.blocked(&one.lease, reason);
                records.push(self.record_ended(&one.lease, &one.team, state, Some(Outcome::AttemptsUsedUp)));
                continue;
            }
            let is_copy = stored.get(&one.digest) != Some(&true) || !first_of.insert(one.digest);
            records.push(self.record_fetched(one, is_copy));
        }
        for (lease, team, state, failure) in ended {
            records.push(self.record_ended(&lease, &team, state, failure));
        }
        let intended: HashSet<Digest> = wanted.iter().map(|(digest, _)| *digest).collect();
        let written: Vec<Digest> = stored.into_keys().filter(|digest| intended.contains(digest)).collect();
        self.record(records, &written, &pauses).await?;
        self.metrics.stages.of(Stage::Commit).observe(began.elapsed());
        Ok(())
    }

    /// What becomes of an attachment whose blob cannot be stored, while others can.
    fn blocked(&self, lease: &Lease<Job>, reason: &str) -> NewState {
        let attempts = lease.job().attempts() + 1;
        if attempts >= self.max_attempts {
            return NewState::Failed { reason: reason.to_owned() };
        }
        let delay = Duration::from_secs(1) * attempts;
        NewState::Retry { delay, attempt_spent: true, not_found: false, reason: Some(reason.to_owned()) }
    }

    /// Stores what is not known to be durable. Gives, for each digest, whether its bytes are new in the archive; and
    /// those that could not be stored while the others could, with the reason.
    async fn store(
        &self,
        blobs: HashMap<(Digest, bool), Blob>,
        durable: HashSet<Digest>,
    ) -> Result<(HashMap<Digest, bool>, HashMap<Digest, String>), CommitError> {
        let mut outcome = HashMap::with_capacity(blobs.len());
        let mut blocked = HashMap::new();
        let known: Vec<(Digest, u64)> = blobs
            .values()
            .filter(|blob| !blob.quarantine && durable.contains(&blob.digest))
            .map(|blob| (blob.digest, blob.size_bytes))
            .collect();
        // The row says that the bytes were made durable here; whether they are still there is looked at.
        let there = self.archive.still_there(known.clone()).await?;
        let there: HashSet<Digest> =
            known.into_iter().zip(there).filter_map(|((digest, _), there)| there.then_some(digest)).collect();
        let (mut puts, mut placed) = (Vec::new(), Vec::new());
        // Their room in the spool is given back when all of them are stored.
        let mut holds = Vec::new();
        for blob in blobs.into_values() {
            if !blob.quarantine && there.contains(&blob.digest) {
                outcome.insert(blob.digest, false);
                continue;
            }
            let Blob { digest, size_bytes, bytes, quarantine, hold } = blob;
            placed.push((digest, size_bytes, quarantine));
            holds.push(hold);
            puts.push(Put { digest, size_bytes, bytes, quarantine });
        }
        let stored = self.archive.put(&self.scratch, puts).await?;
        drop(holds);
        for ((digest, size_bytes, quarantine), stored) in placed.into_iter().zip(stored) {
            if let Stored::Blocked(reason) = stored {
                warn!(blob = %digest, error = %reason, "cannot be stored");
                blocked.insert(digest, reason);
                continue;
            }
            if stored == Stored::Replaced {
                warn!(blob = %digest, "damaged bytes in the archive were replaced by right ones");
            }
            let new = stored != Stored::AlreadyThere;
            if new && !quarantine {
                add(&self.tally.bytes_stored, size_bytes);
            }
            outcome.insert(digest, new);
        }
        Ok((outcome, blocked))
    }

    fn line(&self, lease: &Lease<Job>, team: &TeamKey, kind: OutcomeKind) -> OutcomeLine {
        OutcomeLine {
            v: FORMAT_VERSION,
            kind,
            team: team.clone(),
            attachment_id: lease.job().attachment_id().clone(),
            generation: lease.generation(),
            writer_id: self.journal.writer_id().clone(),
            at: self.clock.now(),
            sha256: None,
            size_bytes: None,
            sniffed_type: None,
            rule: None,
            reason: None,
            extra: Map::new(),
        }
    }

    fn record_fetched(&self, one: Fetched, is_copy: bool) -> Record {
        let Fetched { lease, team, digest, size_bytes, sniffed_type, quarantine } = one;
        add(&self.tally.decided, 1);
        let kind = if quarantine.is_some() { OutcomeKind::Quarantined } else { OutcomeKind::Archived };
        let line = OutcomeLine {
            sha256: Some(digest),
            size_bytes: Some(size_bytes),
            sniffed_type: sniffed_type.clone(),
            reason: quarantine.clone(),
            ..self.line(&lease, &team, kind)
        };
        let outcome = match (&quarantine, is_copy) {
            (Some(_), _) => Outcome::Contradicted,
            (None, true) => Outcome::Deduplicated,
            (None, false) => Outcome::Stored,
        };
        let counted =
            Counted { key: lease.job().key(), team, attempt: Attempt::Fetched, outcome: Some(outcome), size_bytes };
        let state = match quarantine {
            Some(reason) => {
                add(&self.tally.quarantined, 1);
                warn!(attachment.id_hash = %lease.job().key(), error = %reason, "quarantined");
                NewState::Quarantined { sha256: digest, size_bytes, sniffed_type, reason }
            }
            None => {
                add(&self.tally.archived, 1);
                add(&self.tally.duplicates, u64::from(is_copy));
                NewState::Archived { sha256: digest, size_bytes, sniffed_type }
            }
        };
        Record { line: Some(line), completion: Completion::new(&lease, state), counted }
    }

    /// `failure` is what it counts as, if it failed.
    fn record_ended(&self, lease: &Lease<Job>, team: &TeamKey, state: NewState, failure: Option<Outcome>) -> Record {
        let (attempt, outcome) = match &state {
            NewState::Failed { .. } => (Attempt::Failed, failure),
            NewState::Retry { attempt_spent: false, .. } => (Attempt::Released, None),
            _ => (Attempt::Retry, None),
        };
        let counted = Counted { key: lease.job().key(), team: team.clone(), attempt, outcome, size_bytes: 0 };
        let line = match &state {
            NewState::Failed { reason } => {
                add(&self.tally.decided, 1);
                add(&self.tally.failed, 1);
                Some(OutcomeLine { reason: Some(reason.clone()), ..self.line(lease, team, OutcomeKind::Failed) })
            }
            _ => {
                add(&self.tally.retried, 1);
                None
            }
        };
        Record { line, completion: Completion::new(lease, state), counted }
    }

    /// Writes the outcome lines down, and only then tells the catalog.
    async fn record(&self, records: Vec<Record>, durable: &[Digest], pauses: &[Pause]) -> Result<(), CommitError> {
        let mut lines: Vec<OutcomeLine> = Vec::with_capacity(records.len());
        let (mut completions, mut counted) = (Vec::with_capacity(records.len()), Vec::with_capacity(records.len()));
        for record in records {
            lines.extend(record.line);
            completions.push(record.completion);
            counted.push(record.counted);
        }
        let segment = if lines.is_empty() { None } else { Some(self.journal.append(Stream::Outcomes, &lines).await?) };
        let segment = segment.as_ref().map(|(key, digest)| (key.as_str(), *digest));
        let writer_id = self.journal.writer_id().to_string();
        let stale = self.catalog.complete(self.archive_row, &completions, durable, segment, pauses, &writer_id).await?;
        if stale > 0 {
            warn!(stale, "leases were lost before their outcome was recorded; the journal's merge settles it");
        }
        for one in &counted {
            self.count(one);
        }
        Ok(())
    }

    fn count(&self, one: &Counted) {
        let Some(cells) = self.cells.get(&one.team) else { return };
        cells.attempts.count(one.attempt);
        let Some(outcome) = one.outcome else { return };
        cells.outcomes.count(outcome);
        let arrived_ms = self.metrics.arrivals.take(one.key.as_bytes());
        if matches!(outcome, Outcome::Stored | Outcome::Deduplicated) {
            cells.archived_bytes.add(one.size_bytes);
            cells.last_success.set(self.clock.now());
            if let Some(arrived_ms) = arrived_ms {
                let delay_ms = self.clock.now_ms().saturating_sub(arrived_ms);
                self.metrics.archive_delay.observe(Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0)));
            }
        }
        if outcome == Outcome::Stored {
            cells.stored_bytes.add(one.size_bytes);
        }
    }
}
