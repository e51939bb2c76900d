//! Copies of inboxes in the archive: made before a segment of the inbox goes, taken in again by a catalog that does not
//! know them, and removed when their time is over.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{IngestError, Intake, Prepared, Team};
use crate::catalog::{ArchiveRow, Catalog, CatalogError};
use crate::clock::Clock;
use crate::config::SourceConfig;
use crate::inbox::{ClosedSegment, Inboxes, ReadError};
use crate::model::{Reject, TeamKey};
use crate::source::{self, Item};
use crate::store::{Archive, StoreError, payloads_key, payloads_team, segment_day};

/// zstd's own default: bodies are text, which it packs to a tenth.
const LEVEL: i32 = 3;
/// So many copies are removed at once.
const REMOVE_AT_ONCE: usize = 1_000;
/// Payloads are taken in in batches of this many attachments.
const BATCH_ATTACHMENTS: usize = 4_000;

/// Why copies cannot be looked after now.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The archive failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The inbox failed.
    #[error(transparent)]
    Inbox(#[from] ReadError),
    /// A copy cannot be taken in.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// A segment of the inbox cannot be read.
    #[error("cannot read the inbox segment {path}: {source}")]
    Read {
        /// Its file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The runtime is stopping.
    #[error("copying the inbox was interrupted")]
    Interrupted,
}

/// Looks after the copies of one archive.
#[derive(Debug)]
pub struct Copies {
    /// The archive.
    pub archive: Arc<Archive>,
    /// Its row.
    pub archive_row: ArchiveRow,
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// Where payloads go.
    pub intake: Arc<Intake>,
    /// How payloads are read.
    pub source: SourceConfig,
    /// The time.
    pub clock: Clock,
    /// For how long copies are kept; zero keeps none.
    pub keep: SignedDuration,
}

impl Copies {
    /// Copies the segments of a team's inbox that have been taken in to their end, and removes each once its copy is
    /// durable; where none are kept, at once, for what was taken in is in the journal. Gives how many were copied.
    pub async fn copy_finished(&self, inboxes: &Inboxes, name: &str, team: &TeamKey) -> Result<u64, CopyError> {
        let mut copied = 0;
        for segment in inboxes.finished(name)? {
            let id = segment.id;
            if segment.bytes > 0 && !self.keep.is_zero() {
                let path = segment.path.display().to_string();
                let packed = tokio::task::spawn_blocking(move || pack(&segment));
                let packed = packed.await.map_err(|_| CopyError::Interrupted)?;
                let packed = packed.map_err(|source| CopyError::Read { path, source })?;
                let at = Timestamp::from_millisecond(id.began_at_ms()).unwrap_or_else(|_| self.clock.now());
                let mut number = 0_u32;
                // Whatever stands under its name was packed by another version: it gets a name of its own.
                loop {
                    let name = if number == 0 { id.to_string() } else { format!("{id}-{number}") };
                    let key = payloads_key(team, at, &name);
                    // First, as it holds already that all of it is taken in: a copy that a crash leaves unremembered
                    // would be, once more, and what is wrong in it be listed at two places.
                    self.catalog.remember_payloads(self.archive_row, &key).await?;
                    if self.archive.put_payloads(&key, packed.clone()).await? {
                        break;
                    }
                    number += 1;
                }
                copied += 1;
            }
            let (inboxes, name) = (inboxes.clone(), name.to_owned());
            let removed = tokio::task::spawn_blocking(move || inboxes.remove(&name, id));
            removed.await.map_err(|_| CopyError::Interrupted)??;
        }
        Ok(copied)
    }

    /// Takes in copies that this catalog does not know: those of a lost catalog, or of another machine. What is in them
    /// and known already changes nothing. `team` finds a team by its name in the archive. Gives how many copies.
    pub async fn take_unknown(&self, team: impl Fn(&TeamKey) -> Option<Team>) -> Result<u64, CopyError> {
        let known: HashSet<String> = self.catalog.known_payloads(self.archive_row).await?.into_iter().collect();
        let mut taken = 0;
        for key in self.archive.payloads().await?.into_iter().filter(|key| !known.contains(key)) {
            let Some(team) = payloads_team(&key).and_then(|key| team(&key)) else { continue };
            // Gone meanwhile: its time was over.
            let Some(packed) = self.archive.read_payloads(&key).await? else { continue };
            let (place, source, at, of) = (key.clone(), self.source.clone(), self.clock.now(), team.clone());
            let read = tokio::task::spawn_blocking(move || read(&place, &packed, &source, at, &of));
            let (batches, rejects) = read.await.map_err(|_| CopyError::Interrupted)?;
            self.intake.keep_rejects(&rejects).await?;
            for prepared in batches {
                self.intake.take(&team, prepared).await?;
            }
            self.catalog.remember_payloads(self.archive_row, &key).await?;
            taken += 1;
        }
        Ok(taken)
    }

    /// Removes copies whose time is over, by the day in their key, and that this catalog knows: then everything in them is in
    /// the journal. Gives how many.
    pub async fn remove_old(&self) -> Result<u64, CopyError> {
        let Ok(limit) = self.clock.now().checked_sub(self.keep) else { return Ok(0) };
        let limit = limit.to_zoned(jiff::tz::TimeZone::UTC).date();
        let known: HashSet<String> = self.catalog.known_payloads(self.archive_row).await?.into_iter().collect();
        let mut old = self.archive.payloads().await?;
        old.retain(|key| known.contains(key) && segment_day(key).is_some_and(|day| day < limit || self.keep.is_zero()));
        let count = old.len() as u64;
        for keys in old.chunks(REMOVE_AT_ONCE) {
            self.archive.remove_payloads(keys.to_vec()).await?;
            for key in keys {
                self.catalog.forget_payloads(self.archive_row, key).await?;
            }
        }
        Ok(count)
    }
}

fn pack(segment: &ClosedSegment) -> io::Result<Bytes> {
    zstd::stream::encode_all(segment.open()?, LEVEL).map(Bytes::from)
}

fn read(key: &str, packed: &[u8], source: &SourceConfig, at: Timestamp, team: &Team) -> (Vec<Prepared>, Vec<Reject>) {
    let mut batches = vec![Prepared::new(at)];
    let (mut attachments, mut rejects) = (0, Vec::new());
    let _never_breaks = source::read_from(key, packed, source, None, &mut |item| {
        match item {
            Item::Payload(payload) => {
                rejects.extend(payload.rejects());
                attachments += payload.messages.iter().map(|message| message.attachments.len()).sum::<usize>();
                if let Some(batch) = batches.last_mut() {
                    batch.push(team, &payload);
                }
                if attachments >= BATCH_ATTACHMENTS {
                    attachments = 0;
                    batches.push(Prepared::new(at));
                }
            }
            Item::Rejected(reject) => rejects.push(reject),
            Item::Known | Item::Ignored(_) => {}
        }
        ControlFlow::Continue(())
    });
    (batches, rejects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::TeamRow;
    use crate::config::FilterConfig;
    use crate::filter::Filter;

    #[test]
    fn what_cannot_be_read_of_a_payload_is_listed_and_the_rest_of_it_taken() {
        let packed = zstd::stream::encode_all(&br#"{"id":1,"attachments":[{"id":""},{"id":"a"}]}"#[..], LEVEL).unwrap();
        let filter = Arc::new(Filter::compile(&FilterConfig::default()).unwrap());
        let team = Team { row: TeamRow::NONE, key: "default".parse().unwrap(), filter };
        let (batches, rejects) = read("copy", &packed, &SourceConfig::default(), Timestamp::UNIX_EPOCH, &team);
        let reasons: Vec<&str> = rejects.iter().map(|reject| reject.reason.as_str()).collect();
        assert_eq!(reasons, ["attachments[0]: attachment id is empty"]);
        assert_eq!((batches.len(), batches[0].payload_ends.as_slice()), (1, [1].as_slice()));
    }
}
