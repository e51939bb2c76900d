//! Blobs in a bucket: small ones in one conditional request, large ones in parts. An upload in parts is written down on
//! the local disk before it begins, so that a crash leaves nothing behind that cannot be found and aborted.

use std::fs::File;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{Error, MultipartId, ObjectStoreExt as _, PutMultipartOptions};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::uploads::Listed;
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
/// How often an upload is begun that somebody else aborts.
const UPLOAD_TRIES: u32 = 3;
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

/// A large object on its way.
struct Source<'a> {
    key: &'a str,
    from: From,
    size_bytes: u64,
    digest: Digest,
}

/// Where its bytes are.
enum From {
    File(Arc<File>),
    /// In the bucket itself, under another name.
    Object(Path),
}

/// How an upload in parts ended well.
enum Sent {
    /// The server has put the parts together.
    Completed,
    /// It gave no clear answer, and the right bytes are there.
    Settled,
    /// Somebody else has stored them meanwhile.
    There,
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
        let _admitted;
        let bytes = match &put.bytes {
            SpooledBytes::Memory(bytes) => bytes.clone(),
            SpooledBytes::File(file) => {
                _admitted = self.admit(put.size_bytes).await;
                read_part(file.file(), 0, put.size_bytes).await.map_err(StoreError::io("read", file.path()))?
            }
        };
        match self.put_known_if_absent(&key, bytes.clone(), put.digest, purpose).await? {
            Created::New => Ok(Stored::New),
            Created::Same => Ok(Stored::AlreadyThere),
            Created::Other => {
                self.overwrite(&key, bytes, purpose).await?;
                Ok(Stored::Replaced)
            }
        }
    }

    /// An upload in parts knows no condition: it is looked before it begins and before it ends. To store the same bytes
    /// twice is harmless.
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
        let from = From::File(Arc::new(file));
        let source = Source { key, from, size_bytes: put.size_bytes, digest: put.digest };
        let mut tries = 0;
        let sent = loop {
            tries += 1;
            match self.upload(Some(scratch), &source, purpose).await {
                // Somebody took it for one that a dead process had left.
                Err(StoreError::Bucket(error)) if error.is_absence() && tries < UPLOAD_TRIES => {}
                sent => break sent?,
            }
        };
        match sent {
            Sent::There => Ok(Stored::AlreadyThere),
            Sent::Settled => Ok(stored),
            Sent::Completed => {
                let always = self.settings.common.read_back == ReadBack::Always;
                if always || self.location.provider != Provider::S3 {
                    self.read_back(key, put.digest).await?;
                }
                Ok(stored)
            }
        }
    }

    /// Stores an object of the bucket under another name, as a blob is stored. An upload that a crash leaves is found by
    /// its age alone.
    pub(super) async fn resend(&self, from: &str, to: &str, digest: Digest, size_bytes: u64) -> Result<()> {
        let path = self.path(from);
        if size_bytes > self.settings.common.part_bytes {
            let source = Source { key: to, from: From::Object(path), size_bytes, digest };
            return self.upload(None, &source, Purpose::Blob).await.map(|_| ());
        }
        let _admitted = self.admit(size_bytes).await;
        let bytes = async { self.connection.objects.get(&path).await?.bytes().await }.await;
        self.overwrite(to, bytes.map_err(|error| self.failed("read", from, &error))?, Purpose::Blob).await
    }

    async fn upload(&self, scratch: Option<&FilePath>, source: &Source<'_>, purpose: Purpose) -> Result<Sent> {
        // One record for each try: one whose id is not known yet must not be forgotten with the next.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let record_path = scratch.map(|scratch| scratch.join(format!("{number}{}", crate::store::Scratch::UPLOAD)));
        let key = source.key;
        let mut record = UploadRecord { archive: self.location.to_string(), key: key.to_owned(), id: None };
        keep(record_path.as_deref(), &record).await?;
        let path = self.path(key);
        let (tags, attributes) = self.labels(purpose);
        let options = PutMultipartOptions { tags, attributes, ..PutMultipartOptions::default() };
        let begun = self.objects_for(purpose)?.create_multipart_opts(&path, options).await;
        // It may have begun all the same: the record stays, and the next start looks for it.
        let id = begun.map_err(|error| self.failed("write", key, &error))?;
        record.id = Some(id.clone());
        let sent = match keep(record_path.as_deref(), &record).await {
            Ok(()) => self.send_parts(source, &path, &id).await,
            Err(error) => Err(error),
        };
        let gone = match &sent {
            Ok(Sent::Completed) => Ok(()),
            _ => self.abort(&path, &id).await,
        };
        match gone {
            Ok(()) => {
                if let Some(path) = &record_path {
                    let _ = tokio::fs::remove_file(path).await;
                }
            }
            Err(error) => {
                let error = self.failed("abort an upload to", key, &error);
                tracing::debug!(error = %error, "the next start aborts it");
            }
        }
        match sent {
            // Completed at the last moment, or by somebody else.
            Err(error) => {
                if self.is_there(source).await {
                    Ok(Sent::Settled)
                } else {
                    Err(error)
                }
            }
            sent => sent,
        }
    }

    async fn send_parts(&self, source: &Source<'_>, path: &Path, id: &MultipartId) -> Result<Sent> {
        let size_bytes = source.size_bytes;
        let part_bytes = self.settings.common.part_bytes.max(size_bytes.div_ceil(MAX_PARTS));
        let objects = &self.connection.objects;
        let mut parts: Vec<BoxFuture<'_, Result<PartId>>> = Vec::new();
        for number in 0..size_bytes.div_ceil(part_bytes) {
            let send = async move {
                let offset = number * part_bytes;
                let length = part_bytes.min(size_bytes - offset);
                let _admitted = self.admit(length).await;
                let bytes = match &source.from {
                    From::File(file) => {
                        let read = read_part(file, offset, length).await;
                        read.map_err(StoreError::io("read", FilePath::new(source.key)))?
                    }
                    From::Object(from) => {
                        let read = objects.get_range(from, offset..offset + length).await;
                        read.map_err(|error| self.failed("read", source.key, &error))?
                    }
                };
                let number = usize::try_from(number).expect("at most 9,000 parts");
                let sent = objects.put_part(path, id, number, bytes.into()).await;
                sent.map_err(|error| self.failed("write", source.key, &error))
            };
            parts.push(send.boxed());
        }
        let parts: Vec<PartId> = futures::stream::iter(parts).buffered(PARTS_AT_ONCE).try_collect().await?;
        if self.is_there(source).await {
            return Ok(Sent::There);
        }
        match objects.complete_multipart(path, id, parts).await {
            Ok(_) => Ok(Sent::Completed),
            // The answer may have been lost.
            Err(_) if self.is_there(source).await => Ok(Sent::Settled),
            Err(error) => Err(self.failed("write", source.key, &error)),
        }
    }

    /// Whether the right bytes are seen to stand under their name.
    async fn is_there(&self, source: &Source<'_>) -> bool {
        matches!(self.size(source.key).await, Ok(Some(size_bytes)) if size_bytes == source.size_bytes)
            && matches!(self.found(source.key, source.digest).await, Ok(Some(Created::Same)))
    }

    /// Aborts an upload; one that is not there is no error.
    async fn abort(&self, path: &Path, id: &MultipartId) -> std::result::Result<(), Error> {
        match self.connection.objects.abort_multipart(path, id).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
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
        let listed = self.list_uploads().await;
        for record in records {
            if record.archive != ours {
                settled.push(false);
                continue;
            }
            let path = self.path(&record.key);
            let ids: Vec<MultipartId> = match (&record.id, &listed) {
                (Some(id), _) => vec![id.clone()],
                (None, Listed::Uploads(listed)) => {
                    listed.iter().filter(|upload| upload.key == path.as_ref()).map(|upload| upload.id.clone()).collect()
                }
                // Nobody can say; a lifecycle rule of the bucket clears it away.
                (None, Listed::Never) => Vec::new(),
                (None, Listed::NotNow) => {
                    settled.push(false);
                    continue;
                }
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
        let Listed::Uploads(listed) = listed else { return (aborted, settled) };
        for upload in listed.into_iter().filter(|upload| is_before(upload.begun, old)) {
            let path = Path::parse(&upload.key).unwrap_or_else(|_| Path::from(upload.key.as_str()));
            if self.connection.objects.abort_multipart(&path, &upload.id).await.is_ok() {
                aborted += 1;
            }
        }
        (aborted, settled)
    }

    /// The uploads that were begun and never finished, as far as the server tells.
    pub(in crate::store) async fn unfinished_uploads(&self) -> Option<usize> {
        match self.list_uploads().await {
            Listed::Uploads(uploads) => Some(uploads.len()),
            Listed::Never | Listed::NotNow => None,
        }
    }

    /// Where large objects go, and nobody else's do: the slash keeps out prefixes that begin with the same letters.
    async fn list_uploads(&self) -> Listed {
        let Some(uploads) = &self.connection.uploads else { return Listed::Never };
        let mut found = Vec::new();
        for folder in ["blobs/sha256", "quarantine"] {
            match uploads.list(&format!("{}/", self.path(folder))).await {
                Listed::Uploads(listed) => found.extend(listed),
                other => return other,
            }
        }
        Listed::Uploads(found)
    }
}

fn is_before(begun: Option<Timestamp>, limit: Timestamp) -> bool {
    begun.is_some_and(|begun| begun < limit)
}

/// Writes a record down, durably.
async fn keep(path: Option<&FilePath>, record: &UploadRecord) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_vec(record).expect("a struct of text always serialises");
    let target = path.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        // Under its name in one step: a torn record would forget what it replaces.
        let temporary = target.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        std::io::Write::write_all(&mut file, &text)?;
        file.sync_data()?;
        std::fs::rename(&temporary, &target)?;
        target.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
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
