//! The archive's files: blobs, segments, quarantine, the marker. With `spool` the only user of the archive's file
//! system. Nothing here knows what an outcome means.
//!
//! Everything becomes visible by a rename of a temporary file that is already synced, so no reader ever sees half a
//! file; a name is durable only once its folder has been synced as well, and every function that stores says when.

mod folder;
mod inventory;
mod journal;
mod keys;
mod put;
mod scratch;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::digest::Digest;
use crate::model::{FORMAT_VERSION, Stream, UnsupportedVersion};

pub use folder::Folder;
pub use inventory::{BlobFile, BlobFolder};
pub use journal::{ChainEnd, JournalWriter, SegmentReader, WriterRecord};
pub use keys::{blob_key, quarantine_key};
pub use put::{Put, PutBytes, Stored};
pub use scratch::Scratch;

/// What can go wrong with the archive's files.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder that holds other things.
    #[error("{path} is not empty and is no jellyjar archive; give --archive an empty or new folder", path = path.display())]
    NotAnArchive {
        /// The folder.
        path: PathBuf,
    },
    /// A file where a folder is needed.
    #[error("{path} is not a folder; give --archive a folder", path = path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// No archive where one is needed.
    #[error("there is no jellyjar archive at {path}; check --archive, or make one with `jellyjar replay`", path = path.display())]
    Absent {
        /// The folder.
        path: PathBuf,
    },
    /// A newer program's archive.
    #[error("the archive {path} cannot be used", path = path.display())]
    Unsupported {
        /// The folder or key.
        path: PathBuf,
        /// Which version.
        source: UnsupportedVersion,
    },
    /// A file of ours that cannot be read as what it is.
    #[error("{key} in the archive is damaged: {reason}; restore it from a copy, then run `jellyjar verify`")]
    Damaged {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A sync failed before: what it covered is not trusted, and nothing more is written by this process.
    #[error("an earlier write to the journal failed; start again to go on")]
    Broken,
}

impl StoreError {
    /// Wraps an error of the file system.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// Shorthand for the module's results.
pub type Result<T> = std::result::Result<T, StoreError>;

/// `jellyjar.json`: what makes a folder an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The version of the layout.
    pub format_version: u32,
    /// The archive's identity, wherever it is moved.
    pub archive_uuid: String,
    /// When it was made.
    pub created_at: jiff::Timestamp,
}

/// An open archive.
#[derive(Debug)]
pub struct Archive {
    folder: Folder,
    marker: Marker,
}

impl Archive {
    /// The marker's key.
    pub const MARKER: &str = "jellyjar.json";

    /// Opens the archive at `root`, which must exist.
    pub fn open(root: &Path) -> Result<Self> {
        let marker = read_marker(root)?.ok_or_else(|| StoreError::Absent { path: root.to_owned() })?;
        Ok(Self { folder: Folder::open(root)?, marker })
    }

    /// Opens the archive at `root`, or makes one where there is nothing yet. Of two that make one at once, the first
    /// wins and both open it.
    pub fn open_or_create(root: &Path, clock: &Clock) -> Result<Self> {
        if let Some(marker) = read_marker(root)? {
            return Ok(Self { folder: Folder::open(root)?, marker });
        }
        std::fs::create_dir_all(root).map_err(StoreError::io("make the folder", root))?;
        let entries = std::fs::read_dir(root).map_err(StoreError::io("read the folder", root))?;
        for entry in entries {
            let entry = entry.map_err(StoreError::io("read the folder", root))?;
            let name = entry.file_name();
            if name != Scratch::HOME && name != Self::MARKER && name != "lost+found" {
                return Err(StoreError::NotAnArchive { path: root.to_owned() });
            }
        }
        let marker = Marker { format_version: FORMAT_VERSION, archive_uuid: random_uuid()?, created_at: clock.now() };
        let folder = Folder::open(root)?;
        let mut text = serde_json::to_vec_pretty(&marker).expect("a struct of text and numbers always serialises");
        text.push(b'\n');
        if let Some(parent) = root.parent() {
            Folder::sync_folder(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
        }
        folder.put_if_absent(Self::MARKER, &text)?;
        Self::open(root)
    }

    /// Its folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        self.folder.root()
    }

    /// Its identity.
    pub fn uuid(&self) -> &str {
        &self.marker.archive_uuid
    }

    /// The keys of a stream's segments, in the order of their names, which is that of their making.
    pub fn segments(&self, stream: Stream) -> Result<Vec<String>> {
        let mut keys = self.folder.list(stream.prefix())?;
        keys.retain(|key| Path::new(key).extension().is_some_and(|extension| extension == "jsonl"));
        Ok(keys)
    }

    /// Makes the names of segments durable that others have written: one that died may have named them and not come to
    /// sync the names. Their lines were synced before, and so were the folders above.
    pub fn sync_segments<'a>(&self, keys: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let folders: BTreeSet<&str> = keys.into_iter().filter_map(|key| Some(key.rsplit_once('/')?.0)).collect();
        if folders.len() > put::SINGLE_SYNCS && self.folder.sync_all()? {
            return Ok(());
        }
        folders.into_iter().try_for_each(|folder| Folder::sync_folder(&self.folder.path(folder)))
    }

    /// The size in bytes of a blob's file; `None` where there is none. A size says nothing of the content.
    pub fn blob_size(&self, digest: Digest) -> Result<Option<u64>> {
        self.folder.size(&blob_key(digest))
    }

    /// Reads and hashes a blob's file; `None` where there is none.
    pub fn blob_digest(&self, digest: Digest) -> Result<Option<(Digest, u64)>> {
        self.folder.digest(&blob_key(digest))
    }

    /// Reads and hashes a quarantined file; `None` where there is none.
    pub fn quarantined_digest(&self, digest: Digest) -> Result<Option<(Digest, u64)>> {
        self.folder.digest(&quarantine_key(digest))
    }

    /// Opens a blob's file, or a quarantined file, to be read; `None` where there is none. What comes out of it is
    /// unproven until it is hashed.
    pub fn open_bytes(&self, digest: Digest, quarantine: bool) -> Result<Option<std::fs::File>> {
        let path = self.folder.path(&if quarantine { quarantine_key(digest) } else { blob_key(digest) });
        match std::fs::File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("open", &path)(error)),
        }
    }
}

fn read_marker(root: &Path) -> Result<Option<Marker>> {
    let path = root.join(Archive::MARKER);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(StoreError::NotAFolder { path: root.to_owned() });
        }
        Err(error) => return Err(StoreError::io("read", &path)(error)),
    };
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let damaged =
        |error: serde_json::Error| StoreError::Damaged { key: Archive::MARKER.into(), reason: error.to_string() };
    let version: Version = serde_json::from_slice(&text).map_err(damaged)?;
    if version.format_version > FORMAT_VERSION {
        let source = UnsupportedVersion(version.format_version);
        return Err(StoreError::Unsupported { path: root.to_owned(), source });
    }
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

/// A random (version 4) UUID, RFC 9562 §5.4.
fn random_uuid() -> Result<String> {
    let mut bytes = random_bytes()?;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    Ok(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

fn random_bytes() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| StoreError::io("read random bytes from", Path::new("the system"))(io::Error::other(error)))?;
    Ok(bytes)
}
