//! The spool: where downloads are until they are stored. Owns temporary files, the bounds on disk and memory, and the
//! sums that are computed on the way; makes [`Spooled`].

mod space;
mod sums;
mod temp_file;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

pub use space::Reservation;
pub use sums::SumKind;
pub use temp_file::TempFile;
pub use writer::SpoolWriter;

use crate::config::SpoolConfig;
use crate::digest::Digest;
use crate::http::Decision;
use space::Space;

/// How many of the first bytes are kept at hand, for telling what a file is.
pub const HEAD_BYTES: usize = 8 << 10;

/// Why bytes could not be spooled. All of these are this side's own trouble: no attempt is spent on them.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file system is full, or nearly.
    #[error(
        "too little free space for downloads in {}: {} free, {} needed with the reserve; free some, or lower the \
         reserve (spool.min_free)", .folder.display(), bytesize::ByteSize(*.free_bytes),
        bytesize::ByteSize(*.needed_bytes)
    )]
    DiskFull {
        /// The spool's folder.
        folder: PathBuf,
        /// What is free, in bytes.
        free_bytes: u64,
        /// What would have to be, in bytes.
        needed_bytes: u64,
    },
    /// Other downloads have taken all the space that is configured.
    #[error("the spool has no room for a download that grew to {size_bytes} bytes; it is tried again")]
    Full {
        /// The size so far.
        size_bytes: u64,
    },
    /// A file could not be made or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The runtime stopped, or an earlier failure was ignored.
    #[error("writing to the spool was interrupted")]
    Interrupted,
}

impl SpoolError {
    /// What to do next: wait, without spending an attempt. A full disk needs a person, or other work to finish.
    pub fn decision(&self) -> Decision {
        match self {
            Self::Full { .. } | Self::Interrupted => Decision::HoldOff(Duration::from_secs(5)),
            Self::DiskFull { .. } | Self::Io { .. } => Decision::HoldOff(Duration::from_mins(1)),
        }
    }

    /// A system error, with a full disk told apart.
    fn io(action: &'static str, path: &Path, error: &io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let folder = path.parent().unwrap_or(path).to_owned();
            return Self::DiskFull { folder, free_bytes: 0, needed_bytes: 1 };
        }
        let source = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
        Self::Io { action, path: path.to_owned(), source }
    }
}

/// How much a spool holds in memory.
#[derive(Debug, Clone, Copy)]
pub struct SpoolMemory {
    /// All downloads together, in bytes.
    pub max_bytes: u64,
    /// The largest one, in bytes.
    pub threshold_bytes: u64,
    /// Whether a download of known size waits for memory. Where what is stored goes over the network it never needs the
    /// disk then, and downloads do not run ahead of it; in a folder, the disk is where it goes anyway.
    pub waits: bool,
}

impl SpoolMemory {
    /// As configured.
    pub fn of(config: &SpoolConfig) -> Self {
        let (max_bytes, threshold_bytes) = (config.max_memory_bytes, config.memory_threshold_bytes);
        Self { max_bytes, threshold_bytes, waits: false }
    }
}

/// The spool of one run. Cheap to clone; its folder goes, if it is empty, with the last clone.
#[derive(Debug, Clone)]
pub struct Spool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    threshold_bytes: u64,
    space: Arc<Space>,
    next: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Only an empty folder can be removed; one that is not belongs to files that are still held.
        let _ = std::fs::remove_dir(&self.folder);
    }
}

impl Spool {
    /// Opens a spool in `folder`, which is made if need be and belongs to this run alone. Blocks briefly.
    pub fn open(folder: PathBuf, config: &SpoolConfig, memory: SpoolMemory) -> Result<Self, SpoolError> {
        std::fs::create_dir_all(&folder).map_err(|error| SpoolError::io("make the spool folder", &folder, &error))?;
        let space = Arc::new(Space::new(folder.clone(), config, memory));
        let threshold_bytes = memory.threshold_bytes.min(memory.max_bytes);
        Ok(Self(Arc::new(Inner { folder, threshold_bytes, space, next: AtomicU64::new(0) })))
    }

    /// Whether a folder's file system is in memory.
    pub fn is_in_memory(folder: &Path) -> bool {
        #[cfg(target_os = "linux")]
        {
            const TMPFS_MAGIC: u32 = 0x0102_1994; // statfs(2)
            const RAMFS_MAGIC: u32 = 0x8584_58f6;
            rustix::fs::statfs(folder).is_ok_and(|found| {
                let kind = u32::try_from(found.f_type).unwrap_or_default();
                kind == TMPFS_MAGIC || kind == RAMFS_MAGIC
            })
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = folder;
            false
        }
    }

    /// Waits for room for a download of `declared` bytes (1 MiB where unknown), in order of asking, and checks the
    /// free space. One larger than the whole spool waits until it is alone. Safe to drop while it waits.
    ///
    /// What is spooled keeps its room until it is dropped, so whoever gathers [`Spooled`] values into batches must
    /// not wait for one more while holding some.
    pub async fn reserve(&self, declared: Option<u64>) -> Result<Reservation, SpoolError> {
        self.0.space.reserve(declared).await
    }

    /// Whether the file system has the free space that is to stay, beside what downloads were promised.
    pub fn check_free(&self) -> Result<(), SpoolError> {
        self.0.space.check_free()
    }

    /// Begins a download. `expected` is the length that the answer announces; `kinds` are the sums to compute beside
    /// the SHA-256.
    pub fn writer(&self, reservation: Reservation, expected: Option<u64>, kinds: &[SumKind]) -> SpoolWriter {
        SpoolWriter::new(self.clone(), reservation, expected, kinds)
    }

    /// The room that downloads take now, in bytes: each as much as it has declared, or grown to.
    pub fn taken_bytes(&self) -> u64 {
        self.0.space.taken_bytes()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    fn space(&self) -> &Arc<Space> {
        &self.0.space
    }

    fn threshold_bytes(&self) -> u64 {
        self.0.threshold_bytes
    }

    fn next_path(&self) -> PathBuf {
        self.0.folder.join(format!("{}.part", self.0.next.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Where spooled bytes are.
#[derive(Debug)]
pub enum SpooledBytes {
    /// In memory.
    Memory(Bytes),
    /// In a file, complete, not synced.
    File(TempFile),
}

/// The room that spooled bytes take. To be dropped once they are stored.
#[derive(Debug)]
pub struct SpoolHold {
    _reservation: Reservation,
    _memory: Option<OwnedSemaphorePermit>,
}

/// A whole download: its bytes, digest and size. Made by [`SpoolWriter::finish`] alone.
#[derive(Debug)]
pub struct Spooled {
    bytes: SpooledBytes,
    size_bytes: u64,
    head: Bytes,
    sha256: Digest,
    sums: Vec<(SumKind, Vec<u8>)>,
    hold: SpoolHold,
}

impl Spooled {
    fn new(
        bytes: SpooledBytes,
        size_bytes: u64,
        head: Bytes,
        (sha256, sums): (Digest, Vec<(SumKind, Vec<u8>)>),
        hold: SpoolHold,
    ) -> Self {
        Self { bytes, size_bytes, head, sha256, sums, hold }
    }

    /// The digest.
    pub fn sha256(&self) -> Digest {
        self.sha256
    }

    /// The size, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The first bytes, up to [`HEAD_BYTES`].
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// The bytes, while they are in memory.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &self.bytes {
            SpooledBytes::Memory(bytes) => Some(bytes),
            SpooledBytes::File(_) => None,
        }
    }

    /// The value of a sum that was asked for.
    pub fn sum(&self, kind: SumKind) -> Option<&[u8]> {
        if kind == SumKind::Sha256 {
            return Some(self.sha256.as_bytes());
        }
        self.sums.iter().find(|(known, _)| *known == kind).map(|(_, value)| value.as_slice())
    }

    /// Hands the bytes to the store, with the room they take.
    pub fn into_parts(self) -> (SpooledBytes, Digest, u64, SpoolHold) {
        (self.bytes, self.sha256, self.size_bytes, self.hold)
    }
}

#[cfg(test)]
mod tests;
