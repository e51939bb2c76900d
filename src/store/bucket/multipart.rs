//! Blobs in a bucket: small ones in one conditional request, large ones in parts. An upload in parts is written down on
//! the local disk before it begins, so that a crash leaves nothing behind that cannot be found and aborted.

use std::fs::File;
use std::path::Path as FilePath;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{Error, MultipartId, PutMultipartOptions};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::{ADMISSION_UNIT, Bucket, Created, Purpose};
use crate::config::ReadBack;
use crate::digest::Digest;
use crate::model::Provider;
use crate::spool::SpooledBytes;
use crate::store::{Put, Result, StoreError, Stored, blob_key, quarantine_key};

/// The most parts that one upload has; S3 allows 10,000.
const MAX_PARTS: u64 = 9_000;
/// Parts of one upload that are sent at once.
const PARTS_AT_ONCE: usize = 4;
/// Uploads of nobody knows whom are left alone for so long, in hours.
const FOREIGN_HOURS: i64 = 48;

/// An upload in parts that this machine has begun, as it is kept on the local disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRecord {
    /// The archive's place.
    pub archive: String,
    /// The key in the archive.
    pub key: String,
    /// The upload's id; missing where the crash came before it was known.
    pub id: Option<MultipartId>,
}

impl Bucket {
    /// Stores a batch of blobs. When this returns, the server has all of them. `scratch` is a local folder.
    pub(in crate::store) async fn put_blobs(&self, scratch: &FilePath, batch: &[Put]) -> Result<Vec<Stored>> {
        let mut puts: Vec<BoxFuture<'_, (usize, Result<Stored>)>> = Vec::with_capacity(batch.len());
        for (place, put) in batch.iter().enumerate() {
            puts.push(async move { (place, self.put_blob(scratch, put).await) }.boxed());
        }
        let mut stored: Vec<(usize, Result<Stored>)> =
            futures::stream::iter(puts).buffer_unordered(self.concurrency()).collect().await;
        stored.sort_unstable_by_key(|(place, _)| *place);
        stored.into_iter().map(|(_, stored)| stored).collect()
    }

    async fn put_blob(&self, scratch: &FilePath, put: &Put) -> Result<Stored> {
        let (key, purpose) = if put.quarantine {
            (quarantine_key(put.digest), Purpose::Record)
        } else {
            (blob_key(put.digest), Purpose::Blob)
        };
        if let SpooledBytes::File(file) = &put.bytes
            && put.size_bytes > self.settings.common.part_bytes
        {
            return self.put_large(scratch, &key, purpose, file.file(), put).await;
        }
        let _admitted = self.admit(put.size_bytes).await;
        let bytes = match &put.bytes {
            SpooledBytes::Memory(bytes) => bytes.clone(),
            SpooledBytes::File(file) => {
                read_part(file.file(), 0, put.size_bytes).await.map_err(StoreError::io("read", file.path()))?
            }
        };
        match self.put_if_absent(&key, bytes.clone(), purpose).await? {
            Created::New => Ok(Stored::New),
            Created::Same => Ok(Stored::AlreadyThere),
            Created::Other => {
                self.overwrite(&key, bytes, purpose).await?;
                Ok(Stored::Replaced)
            }
        }
    }

    /// An upload in parts knows no condition: it is looked first. To store the same bytes twice is harmless.
    async fn put_large(
        &self,
        scratch: &FilePath,
        key: &str,
        purpose: Purpose,
        file: &File,
        put: &Put,
    ) -> Result<Stored> {
        let stored = match self.found(key, put.digest).await? {
            Some(Created::Same) => return Ok(Stored::AlreadyThere),
            Some(_) => Stored::Replaced,
            None => Stored::New,
        };
        let file = file.try_clone().map_err(StoreError::io("open", scratch))?;
        self.upload(scratch, key, purpose, Arc::new(file), put.size_bytes).await?;
        let always = self.settings.common.read_back == ReadBack::Always;
        if always || self.location.provider != Provider::S3 {
            self.read_back(key, put.digest).await?;
        }
        Ok(stored)
    }

    async fn upload(
        &self,
        scratch: &FilePath,
        key: &str,
        purpose: Purpose,
        file: Arc<File>,
        size_bytes: u64,
    ) -> Result<()> {
        let record_path = scratch.join(format!("{}{}", Digest::of(key.as_bytes()), crate::store::Scratch::UPLOAD));
        let mut record = UploadRecord { archive: self.location.to_string(), key: key.to_owned(), id: None };
        keep(&record_path, &record).await?;
        let path = self.path(key);
        let (tags, attributes) = self.labels(purpose);
        let options = PutMultipartOptions { tags, attributes, ..PutMultipartOptions::default() };
        let begun = self.objects_for(purpose)?.create_multipart_opts(&path, options).await;
        let id = begun.map_err(|error| self.failed("write", key, &error))?;
        record.id = Some(id.clone());
        keep(&record_path, &record).await?;
        let done = self.send_parts(key, &path, &id, &file, size_bytes).await;
        if done.is_err() {
            // What cannot be aborted now is written down, and aborted by the next start.
            self.connection
                .objects
                .abort_multipart(&path, &id)
                .await
                .map_err(|error| self.failed("write", key, &error))?;
        }
        let _ = tokio::fs::remove_file(&record_path).await;
        done
    }

    async fn send_parts(
        &self,
        key: &str,
        path: &Path,
        id: &MultipartId,
        file: &Arc<File>,
        size_bytes: u64,
    ) -> Result<()> {
        let part_bytes = self.settings.common.part_bytes.max(size_bytes.div_ceil(MAX_PARTS).next_multiple_of(1 << 20));
        let objects = &self.connection.objects;
        let mut parts: Vec<BoxFuture<'_, Result<PartId>>> = Vec::new();
        for number in 0..size_bytes.div_ceil(part_bytes) {
            let send = async move {
                let offset = number * part_bytes;
                let length = part_bytes.min(size_bytes - offset);
                let _admitted = self.admit(length).await;
                let bytes =
                    read_part(file, offset, length).await.map_err(StoreError::io("read", FilePath::new(key)))?;
                let number = usize::try_from(number).expect("at most 9,000 parts");
                let sent = objects.put_part(path, id, number, bytes.into()).await;
                sent.map_err(|error| self.failed("write", key, &error))
            };
            parts.push(send.boxed());
        }
        let parts: Vec<PartId> = futures::stream::iter(parts).buffered(PARTS_AT_ONCE).try_collect().await?;
        match objects.complete_multipart(path, id, parts).await {
            Ok(_) => Ok(()),
            // It was completed, and the answer was lost: the id is gone, and the object is there.
            Err(error) => match self.size(key).await {
                Ok(Some(found)) if found == size_bytes => {
                    tracing::debug!("the answer to a completed upload was lost");
                    self.confirm_completed(key, &error, file).await
                }
                _ => Err(self.failed("write", key, &error)),
            },
        }
    }

    /// Settles whether an upload whose completion got no clear answer is whole.
    async fn confirm_completed(&self, key: &str, error: &Error, file: &Arc<File>) -> Result<()> {
        let file = Arc::clone(file);
        let wanted = tokio::task::spawn_blocking(move || {
            let mut file = file.try_clone()?;
            std::io::Seek::rewind(&mut file)?;
            crate::store::folder::hash(file)
        })
        .await
        .map_err(|_| StoreError::Broken)?
        .map_err(StoreError::io("read", FilePath::new(key)))?;
        if self.digest(key).await? == Some(wanted) { Ok(()) } else { Err(self.failed("write", key, error)) }
    }

    /// Waits for memory for so many bytes; one object, however large, is always let through alone.
    async fn admit(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(ADMISSION_UNIT)).unwrap_or(u32::MAX).clamp(1, self.admission_units);
        Arc::clone(&self.admission).acquire_many_owned(units).await.ok()
    }

    /// Aborts uploads that were begun and never finished: those of dead processes of this machine, by their records;
    /// and, where the server lists them, those that are older than two days. Gives how many, and the records that are
    /// done with.
    pub(in crate::store) async fn abort_uploads(&self, records: &[UploadRecord]) -> (usize, Vec<bool>) {
        let ours = self.location.to_string();
        let mut aborted = 0;
        let mut settled = Vec::with_capacity(records.len());
        let listed = match &self.connection.uploads {
            Some(uploads) => uploads.list(self.path("blobs").as_ref()).await,
            None => None,
        };
        for record in records {
            if record.archive != ours {
                settled.push(false);
                continue;
            }
            let path = self.path(&record.key);
            let ids: Vec<MultipartId> = match (&record.id, &listed) {
                (Some(id), _) => vec![id.clone()],
                (None, Some(listed)) => {
                    listed.iter().filter(|upload| upload.key == path.as_ref()).map(|upload| upload.id.clone()).collect()
                }
                // Nobody can say; a lifecycle rule of the bucket clears it away.
                (None, None) => Vec::new(),
            };
            let mut all = true;
            for id in ids {
                match self.connection.objects.abort_multipart(&path, &id).await {
                    Ok(()) => aborted += 1,
                    Err(Error::NotFound { .. }) => {}
                    Err(error) => {
                        tracing::warn!(error = %self.failed("abort an upload to", &record.key, &error), "left for later");
                        all = false;
                    }
                }
            }
            settled.push(all);
        }
        let old = self.clock.now() - jiff::SignedDuration::from_hours(FOREIGN_HOURS);
        for upload in listed.into_iter().flatten().filter(|upload| is_before(upload.begun, old)) {
            if self.connection.objects.abort_multipart(&Path::from(upload.key), &upload.id).await.is_ok() {
                aborted += 1;
            }
        }
        (aborted, settled)
    }

    /// The uploads that were begun and never finished, as far as the server tells.
    pub(in crate::store) async fn unfinished_uploads(&self) -> Option<usize> {
        Some(self.connection.uploads.as_ref()?.list(self.path("blobs").as_ref()).await?.len())
    }
}

fn is_before(begun: Option<Timestamp>, limit: Timestamp) -> bool {
    begun.is_some_and(|begun| begun < limit)
}

/// Writes a record down, durably.
async fn keep(path: &FilePath, record: &UploadRecord) -> Result<()> {
    let text = serde_json::to_vec(record).expect("a struct of text always serialises");
    let target = path.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        let mut file = File::create(&target)?;
        std::io::Write::write_all(&mut file, &text)?;
        file.sync_data()
    });
    written.await.map_err(|_| StoreError::Broken)?.map_err(StoreError::io("write", path))
}

/// Reads a part of a file into memory.
async fn read_part(file: &File, offset: u64, length: u64) -> std::io::Result<Bytes> {
    use std::os::unix::fs::FileExt as _;
    let file = file.try_clone()?;
    tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(Bytes::from(bytes))
    })
    .await
    .map_err(std::io::Error::other)?
}
