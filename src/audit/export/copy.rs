//! One file of an export: its bytes, proven on the way.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::destination::{file_time, modified_ms};
use super::{ExportError, ExportProgress, HardLinks};
use crate::digest::{Digest, Hasher};
use crate::store::{Archive, StoreError, blob_key};

/// What became of the bytes of one file.
#[derive(Debug)]
pub(super) enum Copied {
    /// They are right, and lie in the temporary file, which has this time.
    Proven { modified_ms: i64, written: u64 },
    /// The archive's copy hashes to something else, or cannot be read.
    Damaged(String),
    /// The archive has no copy.
    Missing,
    /// The run is to stop.
    Stopped,
}

/// The archive's copy of some bytes, to be read; `None` where there is none. Everything that an export reads of the
/// archive's contents comes through here and [`path_of`].
fn open(archive: &Archive, digest: Digest) -> Result<Option<impl Read>, StoreError> {
    archive.open_bytes(digest, false)
}

/// The file of a content, where the archive is a folder.
fn path_of(archive: &Archive, digest: Digest) -> Option<PathBuf> {
    Some(archive.folder().path(&blob_key(digest)))
}

/// Makes `temporary` a proven copy of a content, with the time `sent_ms`.
pub(super) fn copy(
    archive: &Archive,
    digest: Digest,
    temporary: &Path,
    sent_ms: i64,
    links: HardLinks,
    progress: &ExportProgress,
) -> Result<Copied, ExportError> {
    if links == HardLinks::Archive
        && let Some(path) = path_of(archive, digest)
        && let Some(modified_ms) = link_to_archive(&path, digest, temporary, progress)
    {
        return Ok(Copied::Proven { modified_ms, written: 0 });
    }
    let mut from = match open(archive, digest) {
        Ok(Some(from)) => from,
        Ok(None) => return Ok(Copied::Missing),
        Err(error) => return Ok(Copied::Damaged(format!("it cannot be opened: {error}"))),
    };
    let io = |doing| ExportError::io(doing, temporary);
    let mut to = File::create(temporary).map_err(io("make"))?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 128 << 10];
    let mut written = 0;
    loop {
        if progress.stop.load(Ordering::Relaxed) {
            return Ok(Copied::Stopped);
        }
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Copied::Damaged(format!("it cannot be read: {error}"))),
        };
        hasher.update(&buffer[..length]);
        to.write_all(&buffer[..length]).map_err(io("write"))?;
        written += length as u64;
        add(&progress.bytes, length as u64);
    }
    let found = hasher.finish();
    if found != digest {
        return Ok(Copied::Damaged(format!("its bytes hash to {found}")));
    }
    let (time, modified_ms) = file_time(sent_ms);
    to.set_modified(time).map_err(io("set the time of"))?;
    if links != HardLinks::Never {
        // It may get more names, and then a change of one would be a change of all. A file system without modes has
        // its own ways, so that this may fail.
        let _ = to.set_permissions(Permissions::from_mode(0o444));
    }
    Ok(Copied::Proven { modified_ms, written })
}

/// Makes `temporary` another name of the archive's own file, once its bytes are proven and nobody can write to it.
/// `None` where that cannot be: a copy is made then, which also says what is wrong.
fn link_to_archive(path: &Path, digest: Digest, temporary: &Path, progress: &ExportProgress) -> Option<i64> {
    let mut file = File::open(path).ok()?;
    // Other names of these bytes are out of the archive's sight: without this, whoever opens one of them to change it
    // would damage the archive.
    file.set_permissions(Permissions::from_mode(0o444)).ok()?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => break,
            length => {
                hasher.update(&buffer[..length]);
                add(&progress.bytes, length as u64);
            }
        }
    }
    if hasher.finish() != digest {
        return None;
    }
    std::fs::hard_link(path, temporary).ok()?;
    let (proven, linked) = (file.metadata().ok()?, temporary.metadata().ok()?);
    if (proven.dev(), proven.ino()) != (linked.dev(), linked.ino()) {
        let _ = std::fs::remove_file(temporary);
        return None;
    }
    Some(modified_ms(&linked))
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}
