//! The archive's files: blobs, segments, quarantine, the marker, in a folder or in a bucket. With `spool` the only user
//! of the archive's storage. Nothing here knows what an outcome means.
//!
//! In a folder, everything becomes visible by a rename of a temporary file that is already synced, so no reader ever sees
//! half a file; a name is durable only once its folder has been synced as well. In a bucket, an object is visible and
//! durable at once. Every function that stores says when what it stored is durable. All of them may be dropped while they
//! wait: what they have begun is then done or not, and harmless either way.

mod bucket;
mod error;
mod folder;
mod inventory;
mod journal;
mod keys;
mod lock;
mod marker;
mod payloads;
mod put;
mod scratch;
mod trial;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use crate::clock::Clock;
use crate::config::{BucketSettings, HttpConfig};
use crate::digest::Digest;
use crate::model::{Location, Stream};

pub use bucket::{Bucket, BucketError, Fault, UploadRecord};
pub use error::StoreError;
pub use folder::Folder;
pub use inventory::{BlobFile, BlobFolder, SegmentFile};
pub use journal::{ChainEnd, JournalWriter, SegmentReader, WriterCatalog, WriterHome, WriterRecord};
pub use keys::{blob_key, payloads_key, payloads_team, quarantine_key, segment_day};
pub use lock::ArchiveLock;
pub use marker::Marker;
pub use put::{Put, Stored};
pub use scratch::Scratch;
pub use trial::{Trial, nearest};

use bucket::{Created, Purpose};
use marker::read_marker;

/// Shorthand for the module's results.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Bytes as they are read, in pieces.
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// Where an archive is, ready to be opened.
#[derive(Debug, Clone)]
pub enum Place {
    /// A folder.
    Folder(PathBuf),
    /// A prefix of a bucket.
    Bucket(Arc<Bucket>),
}

impl Place {
    /// Prepares to open the archive at `location`; nothing is read or sent yet.
    pub fn of(location: &Location, buckets: &BucketSettings, http: &HttpConfig, clock: &Clock) -> Result<Self> {
        Ok(match location {
            Location::Folder(path) => Self::Folder(path.clone()),
            Location::Bucket(bucket) => Self::Bucket(Arc::new(Bucket::connect(bucket, buckets, http, clock.clone())?)),
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Bucket(bucket) => bucket.location().fmt(f),
        }
    }
}

/// The two kinds of storage.
#[derive(Debug, Clone)]
enum Files {
    Folder(Arc<Folder>),
    Bucket(Arc<Bucket>),
}

/// An open archive.
#[derive(Debug)]
pub struct Archive {
    files: Files,
    marker: Marker,
}

/// Does work on a folder where it may block.
async fn in_folder<T: Send + 'static>(
    folder: &Arc<Folder>,
    work: impl FnOnce(&Folder) -> Result<T> + Send + 'static,
) -> Result<T> {
    let folder = Arc::clone(folder);
    tokio::task::spawn_blocking(move || work(&folder)).await.map_err(|_| StoreError::Broken)?
}

impl Archive {
    /// The marker's key.
    pub const MARKER: &str = "jellyjar.json";

    /// Opens the archive at `place`, which must exist.
    pub async fn open(place: &Place) -> Result<Self> {
        Self::find(place).await?.ok_or_else(|| StoreError::Absent { place: place.to_string() })
    }

    /// Opens the archive at `place`; `None` where there is none.
    pub async fn find(place: &Place) -> Result<Option<Self>> {
        let Some(marker) = read_marker(place).await? else { return Ok(None) };
        let files = match place {
            Place::Folder(root) => Files::Folder(Arc::new(Folder::open(root)?)),
            Place::Bucket(bucket) => Files::Bucket(Arc::clone(bucket)),
        };
        Ok(Some(Self { files, marker }))
    }

    /// Opens the archive at `place`, or makes one where there is nothing yet. Of two that make one at once, the first
    /// wins and both open it.
    pub async fn open_or_create(place: &Place, clock: &Clock) -> Result<Self> {
        if let Some(archive) = Self::find(place).await? {
            return Ok(archive);
        }
        let text = marker::new_marker(clock)?;
        match place {
            Place::Folder(root) => {
                let root = root.clone();
                let made = tokio::task::spawn_blocking(move || marker::make_folder_archive(&root, &text));
                made.await.map_err(|_| StoreError::Broken)??;
            }
            Place::Bucket(bucket) => {
                if !place.is_free().await? {
                    return Err(StoreError::NotAnArchive { place: place.to_string() });
                }
                bucket.put_if_absent(Self::MARKER, text.into(), Purpose::Record).await?;
            }
        }
        Self::open(place).await
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        match &self.files {
            Files::Folder(folder) => Place::Folder(folder.root().to_owned()),
            Files::Bucket(bucket) => Place::Bucket(Arc::clone(bucket)),
        }
    }

    /// Its folder; `None` for a bucket.
    pub fn folder(&self) -> Option<&Folder> {
        match &self.files {
            Files::Folder(folder) => Some(folder),
            Files::Bucket(_) => None,
        }
    }

    /// Its bucket; `None` for a folder.
    fn bucket(&self) -> Option<&Bucket> {
        match &self.files {
            Files::Folder(_) => None,
            Files::Bucket(bucket) => Some(bucket),
        }
    }

    /// Its identity.
    pub fn uuid(&self) -> &str {
        &self.marker.archive_uuid
    }

    /// How many files are best read at once.
    pub fn reads_at_once(&self) -> usize {
        match &self.files {
            Files::Folder(_) => std::thread::available_parallelism().map_or(2, usize::from).max(2),
            Files::Bucket(bucket) => bucket.concurrency(),
        }
    }

    /// The keys of a stream's segments, in the order of their names, which is that of their making.
    pub async fn segments(&self, stream: Stream) -> Result<Vec<String>> {
        let mut keys = match &self.files {
            Files::Folder(folder) => in_folder(folder, move |folder| folder.list(stream.prefix())).await?,
            Files::Bucket(bucket) => bucket.list(stream.prefix()).await?.into_iter().map(|(key, _)| key).collect(),
        };
        keys.retain(|key| keys::is_segment(key));
        Ok(keys)
    }

    /// Makes the names of segments durable that others have written: one that died may have named them and not come to
    /// sync the names. Their lines were synced before, and so were the folders above.
    pub async fn sync_segments(&self, keys: Vec<String>) -> Result<()> {
        match &self.files {
            Files::Folder(folder) if !keys.is_empty() => {
                in_folder(folder, move |folder| folder.sync_parents_of(&keys)).await
            }
            Files::Folder(_) | Files::Bucket(_) => Ok(()),
        }
    }

    /// The size in bytes of a blob; `None` where there is none. A size says nothing of the content.
    pub async fn blob_size(&self, digest: Digest) -> Result<Option<u64>> {
        let key = blob_key(digest);
        match &self.files {
            Files::Folder(folder) => in_folder(folder, move |folder| folder.size(&key)).await,
            Files::Bucket(bucket) => bucket.size(&key).await,
        }
    }

    /// Whether blobs that were stored under this catalog's eyes are still there, as far as it can be told without a
    /// request: in a folder by their size. A bucket is taken at its word.
    pub async fn still_there(&self, blobs: Vec<(Digest, u64)>) -> Result<Vec<bool>> {
        match &self.files {
            Files::Folder(folder) if !blobs.is_empty() => {
                let look = move |folder: &Folder| {
                    let there = |(digest, size)| Ok(folder.size(&blob_key(digest))? == Some(size));
                    blobs.into_iter().map(there).collect()
                };
                in_folder(folder, look).await
            }
            Files::Folder(_) | Files::Bucket(_) => Ok(vec![true; blobs.len()]),
        }
    }

    /// Reads and hashes a blob; `None` where there is none.
    pub async fn blob_digest(&self, digest: Digest) -> Result<Option<(Digest, u64)>> {
        self.digest_of(blob_key(digest)).await
    }

    /// Reads and hashes a quarantined file; `None` where there is none.
    pub async fn quarantined_digest(&self, digest: Digest) -> Result<Option<(Digest, u64)>> {
        self.digest_of(quarantine_key(digest)).await
    }

    async fn digest_of(&self, key: String) -> Result<Option<(Digest, u64)>> {
        match &self.files {
            Files::Folder(folder) => in_folder(folder, move |folder| folder.digest(&key)).await,
            Files::Bucket(bucket) => bucket.digest(&key).await,
        }
    }

    /// Opens a blob, or quarantined bytes, to be read; `None` where there are none. What comes out of it is unproven
    /// until it is hashed.
    pub async fn open_bytes(&self, digest: Digest, quarantine: bool) -> Result<Option<ByteStream>> {
        self.open_key(&if quarantine { quarantine_key(digest) } else { blob_key(digest) }).await
    }

    /// Opens any file of the archive.
    async fn open_key(&self, key: &str) -> Result<Option<ByteStream>> {
        match &self.files {
            Files::Folder(folder) => {
                let path = folder.path(key);
                match tokio::fs::File::open(&path).await {
                    Ok(file) => Ok(Some(file_stream(file, path))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(StoreError::io("open", &path)(error)),
                }
            }
            Files::Bucket(bucket) => bucket.open(key).await,
        }
    }

    /// Reads a small file whole; `None` where there is none.
    async fn read_key(&self, key: &str) -> Result<Option<Bytes>> {
        match &self.files {
            Files::Folder(folder) => {
                let path = folder.path(key);
                match tokio::fs::read(&path).await {
                    Ok(bytes) => Ok(Some(bytes.into())),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(StoreError::io("read", &path)(error)),
                }
            }
            Files::Bucket(bucket) => bucket.read(key).await,
        }
    }

    /// Stores a new segment, durably. Gives whether its name was free.
    async fn put_segment(&self, stream: Stream, key: &str, bytes: Vec<u8>) -> Result<bool> {
        match &self.files {
            Files::Folder(folder) => {
                let key = key.to_owned();
                in_folder(folder, move |folder| folder.put_if_absent(&key, &bytes)).await
            }
            Files::Bucket(bucket) => {
                let purpose = match stream {
                    Stream::Messages => Purpose::Messages,
                    Stream::Outcomes => Purpose::Outcomes,
                };
                // The same bytes under a random name are ours: the answer to our own request was lost.
                Ok(bucket.put_if_absent(key, bytes.into(), purpose).await? != Created::Other)
            }
        }
    }

    /// Stores a record in place of the one before it, durably.
    async fn replace(&self, key: &str, bytes: Vec<u8>) -> Result<()> {
        match &self.files {
            Files::Folder(folder) => {
                let key = key.to_owned();
                in_folder(folder, move |folder| folder.replace(&key, &bytes)).await
            }
            Files::Bucket(bucket) => bucket.replace(key, bytes.into()).await,
        }
    }

    /// Aborts uploads in parts that dead processes of this machine have left, and, where the server lists them, old ones
    /// of anybody. Gives how many.
    pub async fn abort_uploads(&self, scratch: &Scratch) -> Result<usize> {
        let Files::Bucket(bucket) = &self.files else { return Ok(0) };
        let abandoned = scratch.abandoned_uploads();
        let records: Vec<UploadRecord> = abandoned.iter().map(|(_, record)| record.clone()).collect();
        let (aborted, settled) = bucket.abort_uploads(&records).await;
        for ((path, _), settled) in abandoned.iter().zip(settled) {
            if settled {
                Scratch::forget_upload(path);
            }
        }
        Ok(aborted)
    }

    /// How many uploads in parts of its blobs were begun and are not finished; `None` where nobody can tell.
    pub async fn unfinished_uploads(&self) -> Option<usize> {
        self.bucket()?.unfinished_uploads().await
    }
}

/// A file's bytes from its beginning.
fn file_stream(file: tokio::fs::File, path: PathBuf) -> ByteStream {
    futures::stream::unfold(Some((file, path)), |state| async {
        let (mut file, path) = state?;
        let mut buffer = bytes::BytesMut::with_capacity(READ_BYTES);
        match tokio::io::AsyncReadExt::read_buf(&mut file, &mut buffer).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(buffer.freeze()), Some((file, path)))),
            Err(error) => Some((Err(StoreError::io("read", &path)(error)), None)),
        }
    })
    .boxed()
}

/// What is read of a file at once, in bytes.
const READ_BYTES: usize = 256 << 10;
