//! A prefix of a bucket as an object store: keys are relative paths, writes are put-if-absent, and an answer that leaves
//! open what happened is settled by reading what is there. An object is durable when the server has said that it stored
//! it.

mod connect;
mod error;
mod multipart;
mod put;
#[cfg(test)]
mod scripted;
mod trial;
mod uploads;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, GetOptions, ObjectMeta, ObjectStoreExt as _, PutMode, PutOptions, TagSet,
};
use tokio::sync::Semaphore;

use super::{ByteStream, Result, StoreError, Stored, blob_key, quarantine_key};
use crate::clock::Clock;
use crate::config::{BucketSettings, HttpConfig};
use crate::digest::{Digest, Hasher};
use crate::model::{BucketLocation, Provider};

pub use error::{BucketError, Fault};
pub use multipart::UploadRecord;

use connect::{Connection, Objects};
use put::{is_final, pause_before};

/// What an object is for: it decides how long it is locked, and where it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The bytes of an attachment.
    Blob,
    /// What became of attachments.
    Outcomes,
    /// Messages: personal data, which stays erasable unless told otherwise.
    Messages,
    /// Everything else; it is replaced or deleted in its time.
    Record,
}

/// What a put-if-absent found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Created {
    /// Nothing: the bytes are stored now.
    New,
    /// The same bytes.
    Same,
    /// Other bytes, which stay.
    Other,
}

/// So many parts of large objects are in memory at once.
const PARTS_ADMITTED: u64 = 4;
/// How often an unclear answer is settled by looking, before it counts as an error.
const SETTLE_TRIES: u32 = 8;
/// How often an object is deleted, if that fails for the moment.
const DELETE_TRIES: u32 = 3;
/// The largest record that is read whole into memory, in bytes.
const MAX_RECORD_BYTES: u64 = 64 << 20;
/// The largest object that S3 copies in one request, in bytes.
const MAX_COPY_BYTES: u64 = 5 << 30;
/// What memory for uploads is counted in, in bytes.
const ADMISSION_UNIT: u64 = 64 << 10;

const UNKNOWN: u8 = 0;
const CONDITIONAL: u8 = 1;
const UNCONDITIONAL: u8 = 2;

/// A prefix of a bucket.
pub struct Bucket {
    location: BucketLocation,
    connection: Connection,
    /// The client whose objects are locked, with the day it is for.
    locking: Mutex<Option<(String, Arc<dyn Objects>)>>,
    settings: BucketSettings,
    clock: Clock,
    /// Memory for uploads, in [`ADMISSION_UNIT`]s.
    admission: Arc<Semaphore>,
    admission_units: u32,
    /// Whether the server keeps `PutMode::Create`.
    conditional: AtomicU8,
}

impl Bucket {
    /// Makes the clients for a bucket; nothing is sent yet.
    pub fn connect(
        location: &BucketLocation,
        settings: &BucketSettings,
        http: &HttpConfig,
        clock: Clock,
    ) -> Result<Self> {
        let connection = connect::connect(location, settings, http)?;
        Ok(Self::with(location.clone(), connection, settings.clone(), clock))
    }

    fn with(location: BucketLocation, connection: Connection, settings: BucketSettings, clock: Clock) -> Self {
        // Whole objects come in memory that the spool accounts for.
        let parts = settings.common.part_bytes * PARTS_ADMITTED;
        let memory = settings.common.max_upload_memory_bytes.min(parts).max(settings.common.part_bytes);
        let admission_units =
            u32::try_from(memory.div_ceil(ADMISSION_UNIT)).unwrap_or(u32::MAX >> 4).min(u32::MAX >> 4);
        Self {
            location,
            connection,
            locking: Mutex::new(None),
            settings,
            clock,
            admission: Arc::new(Semaphore::new(admission_units as usize)),
            admission_units,
            conditional: AtomicU8::new(UNKNOWN),
        }
    }

    /// Where it is.
    pub fn location(&self) -> &BucketLocation {
        &self.location
    }

    /// Objects that are stored at once.
    pub(super) fn concurrency(&self) -> usize {
        self.settings.common.concurrency
    }

    /// Whether the server keeps a put-if-absent; `None` while that is not known.
    pub(super) fn is_conditional(&self) -> Option<bool> {
        match self.conditional.load(Ordering::Relaxed) {
            UNKNOWN => None,
            known => Some(known == CONDITIONAL),
        }
    }

    /// The path of a key in the bucket.
    fn path(&self, key: &str) -> Path {
        let prefix = &self.location.prefix;
        let text = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") };
        // As it stands: the other way to make a path escapes `~`, `%` and letters beyond ASCII in a prefix.
        Path::parse(&text).unwrap_or_else(|_| Path::from(text))
    }

    /// The key of a path in the bucket; `None` for what is not below the prefix, such as the empty object that some
    /// tools put there as a folder.
    fn key(&self, path: &Path) -> Option<String> {
        let prefix = &self.location.prefix;
        if prefix.is_empty() {
            return Some(path.to_string());
        }
        Some(path.as_ref().strip_prefix(prefix.as_str())?.strip_prefix('/')?.to_owned())
    }

    fn place(&self, key: &str) -> String {
        if key.is_empty() { self.location.to_string() } else { format!("{}/{key}", self.location) }
    }

    fn failed(&self, doing: &'static str, key: &str, error: &Error) -> StoreError {
        BucketError::new(doing, self.place(key), error).into()
    }

    /// Reads a record; `None` where there is none.
    pub(super) async fn read(&self, key: &str) -> Result<Option<Bytes>> {
        let result = match self.connection.objects.get_opts(&self.path(key), GetOptions::default()).await {
            Ok(result) => result,
            // A missing bucket is no missing object.
            Err(error @ Error::NotFound { .. }) => return self.absent(key, &error).map(|()| None),
            Err(error) => return Err(self.failed("read", key, &error)),
        };
        if result.meta.size > MAX_RECORD_BYTES {
            let reason = format!("it has {} bytes, far more than any such record", result.meta.size);
            return Err(StoreError::Damaged { key: key.to_owned(), reason });
        }
        result.bytes().await.map(Some).map_err(|error| self.failed("read", key, &error))
    }

    /// Tells a missing object from a missing bucket.
    fn absent(&self, key: &str, error: &Error) -> Result<()> {
        let explained = BucketError::new("read", self.place(key), error);
        if explained.fault == Fault::NoBucket { Err(explained.into()) } else { Ok(()) }
    }

    /// Opens an object to be read; `None` where there is none. What comes out of it is unproven until it is hashed.
    pub(super) async fn open(self: &Arc<Self>, key: &str) -> Result<Option<ByteStream>> {
        match self.connection.objects.get(&self.path(key)).await {
            Ok(result) => {
                let (bucket, key) = (Arc::clone(self), key.to_owned());
                let stream = result.into_stream();
                Ok(Some(stream.map_err(move |error| bucket.failed("read", &key, &error)).boxed()))
            }
            Err(error @ Error::NotFound { .. }) => self.absent(key, &error).map(|()| None),
            Err(error) => Err(self.failed("read", key, &error)),
        }
    }

    /// Reads and hashes an object; `None` where there is none.
    pub(super) async fn digest(&self, key: &str) -> Result<Option<(Digest, u64)>> {
        let result = match self.connection.objects.get(&self.path(key)).await {
            Ok(result) => result,
            Err(error @ Error::NotFound { .. }) => return self.absent(key, &error).map(|()| None),
            Err(error) => return Err(self.failed("read", key, &error)),
        };
        let mut stream = result.into_stream();
        let mut hasher = Hasher::default();
        let mut size = 0;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| self.failed("read", key, &error))?;
            hasher.update(&chunk);
            size += chunk.len() as u64;
        }
        Ok(Some((hasher.finish(), size)))
    }

    /// The size of an object in bytes; `None` where there is none. A size says nothing of the content.
    pub(super) async fn size(&self, key: &str) -> Result<Option<u64>> {
        match self.connection.objects.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("look at", key, &error)),
        }
    }

    /// The keys below `prefix`, with what the server says of each, in order.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<(String, ObjectMeta)>> {
        let mut found = Vec::new();
        let path = self.path(prefix);
        let mut stream = self.connection.objects.list((!path.as_ref().is_empty()).then_some(&path));
        while let Some(meta) = stream.next().await {
            let meta = meta.map_err(|error| self.failed("list", prefix, &error))?;
            found.extend(self.key(&meta.location).map(|key| (key, meta)));
        }
        found.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        Ok(found)
    }

    /// The names right below `prefix`: objects, then prefixes.
    pub(super) async fn list_names(&self, prefix: &str) -> Result<(Vec<String>, Vec<String>)> {
        let path = self.path(prefix);
        let listed = self
            .connection
            .objects
            .list_with_delimiter((!path.as_ref().is_empty()).then_some(&path))
            .await
            .map_err(|error| self.failed("list", prefix, &error))?;
        let name = |found: &Path| (*found != path).then(|| found.filename().unwrap_or_default().to_owned());
        Ok((
            listed.objects.iter().filter_map(|meta| name(&meta.location)).collect(),
            listed.common_prefixes.iter().filter_map(name).collect(),
        ))
    }

    /// Stores a record, replacing what is there.
    pub(super) async fn replace(&self, key: &str, bytes: Bytes) -> Result<()> {
        let options = self.options(PutMode::Overwrite, Purpose::Record);
        let put = self.connection.objects.put_opts(&self.path(key), bytes.into(), options).await;
        put.map(|_| ()).map_err(|error| self.failed("write", key, &error))
    }

    /// Deletes objects; those that are not there are no error.
    pub(super) async fn delete(&self, keys: &[String]) -> Result<()> {
        let delete = |key: String| {
            async move {
                let mut tries = 0;
                loop {
                    tries += 1;
                    match self.connection.objects.delete(&self.path(&key)).await {
                        Ok(()) | Err(Error::NotFound { .. }) => return Ok(()),
                        // The client does not repeat what it sends by POST.
                        Err(error) if !is_final(&error) && tries < DELETE_TRIES => {
                            tokio::time::sleep(pause_before(tries)).await;
                        }
                        Err(error) => return Err(self.failed("delete", &key, &error)),
                    }
                }
            }
            .boxed()
        };
        futures::stream::iter(keys.iter().cloned())
            .map(delete)
            .buffer_unordered(self.concurrency())
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    /// Copies quarantined bytes to the blobs, if they still are what their name says, and takes them out of quarantine.
    pub(super) async fn accept_quarantined(&self, digest: Digest) -> Result<Option<Stored>> {
        let (from, to) = (quarantine_key(digest), blob_key(digest));
        let size_bytes = match self.digest(&from).await? {
            Some((found, size_bytes)) if found == digest => size_bytes,
            _ => return Ok(None),
        };
        let stored = match self.found(&to, digest).await? {
            Some(Created::Same) => Stored::AlreadyThere,
            found => {
                let (tags, attributes) = self.labels(Purpose::Blob);
                // A copy has neither the tags nor the storage class of a blob.
                if tags.encoded().is_empty() && attributes.is_empty() && size_bytes <= MAX_COPY_BYTES {
                    self.objects_for(Purpose::Blob)?
                        .copy(&self.path(&from), &self.path(&to))
                        .await
                        .map_err(|error| self.failed("write", &to, &error))?;
                } else {
                    self.resend(&from, &to, digest, size_bytes).await?;
                }
                self.read_back(&to, digest).await?;
                if found.is_some() { Stored::Replaced } else { Stored::New }
            }
        };
        self.delete(&[from]).await?;
        Ok(Some(stored))
    }

    /// The client for objects of a purpose. Locked ones have their date in a header of the client.
    fn objects_for(&self, purpose: Purpose) -> Result<Arc<dyn Objects>> {
        let s3 = &self.settings.s3;
        let locked = match purpose {
            Purpose::Blob | Purpose::Outcomes => true,
            Purpose::Messages => s3.object_lock_messages,
            Purpose::Record => false,
        };
        let (true, Some(make), Some(days)) = (locked, &self.connection.locking, s3.object_lock_days) else {
            return Ok(Arc::clone(&self.connection.objects));
        };
        // A day more, so that it is never short of what was asked for.
        let hours = i64::try_from(days + 1).unwrap_or(i64::MAX).saturating_mul(24);
        let until =
            self.clock.now().checked_add(jiff::SignedDuration::from_hours(hours)).unwrap_or(jiff::Timestamp::MAX);
        let day = until.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d").to_string();
        let mut locking = self.locking.lock().unwrap_or_else(PoisonError::into_inner);
        match &*locking {
            Some((known, objects)) if *known == day => Ok(Arc::clone(objects)),
            _ => {
                let objects = make(&day)?;
                *locking = Some((day, Arc::clone(&objects)));
                Ok(objects)
            }
        }
    }

    fn options(&self, mode: PutMode, purpose: Purpose) -> PutOptions {
        let (tags, attributes) = self.labels(purpose);
        PutOptions { mode, tags, attributes, ..PutOptions::default() }
    }

    /// The tags and the storage class of objects of a purpose.
    fn labels(&self, purpose: Purpose) -> (TagSet, Attributes) {
        let (mut tags, mut attributes) = (TagSet::default(), Attributes::new());
        if self.location.provider == Provider::S3 {
            if matches!(purpose, Purpose::Blob | Purpose::Outcomes) {
                for (key, value) in &self.settings.s3.tags {
                    tags.push(key, value);
                }
            }
            if let Some(class) = self.settings.s3.storage_class.as_ref().filter(|_| purpose == Purpose::Blob) {
                attributes.insert(Attribute::StorageClass, class.clone().into());
            }
        }
        (tags, attributes)
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").field("location", &self.location).finish_non_exhaustive()
    }
}
