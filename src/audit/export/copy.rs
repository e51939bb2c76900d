//! One file of an export: its bytes, proven on the way.

use std::fs::{File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt as _;

use super::super::journal::causes;
use super::destination::{file_time, modified_ms};
use super::{ExportError, ExportProgress, HardLinks};
use crate::digest::{Digest, Hasher};
use crate::store::{Archive, StoreError, blob_key};

/// What became of the bytes of one file.
#[derive(Debug)]
pub(super) enum Copied {
    /// They are right, and lie in the temporary file, which has this time.
    Proven { modified_ms: i64, written: u64 },
    /// The archive's copy hashes to something else, or cannot be read: what it does.
    Damaged(String),
    /// The archive has no copy.
    Missing,
    /// The run is to stop.
    Stopped,
}

/// The file of a content, where the archive is a folder.
fn path_of(archive: &Archive, digest: Digest) -> Option<PathBuf> {
    Some(archive.folder()?.path(&blob_key(digest)))
}

/// Makes `temporary` a proven copy of a content, with the time `sent_ms`. Runs on a thread that may wait.
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
    let runtime = tokio::runtime::Handle::current();
    let unreadable = |error: StoreError| match error {
        // A bucket that cannot be reached says nothing of its files: the run ends, and the next one goes on.
        StoreError::Bucket(_) => Err(error.into()),
        error => Ok(Copied::Damaged(format!("cannot be read: {}", causes(&error)))),
    };
    let mut from = match runtime.block_on(archive.open_bytes(digest, false)) {
        Ok(Some(from)) => from,
        Ok(None) => return Ok(Copied::Missing),
        Err(error) => return unreadable(error),
    };
    let io = |doing| ExportError::io(doing, temporary);
    let mut to = File::create(temporary).map_err(io("make"))?;
    let mut hasher = Hasher::default();
    let mut written = 0;
    while let Some(chunk) = runtime.block_on(from.next()) {
        if progress.stop.load(Ordering::Relaxed) {
            return Ok(Copied::Stopped);
        }
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return unreadable(error),
        };
        hasher.update(&chunk);
        to.write_all(&chunk).map_err(io("write"))?;
        written += chunk.len() as u64;
        add(&progress.bytes, chunk.len() as u64);
    }
    let found = hasher.finish();
    if found != digest {
        return Ok(Copied::Damaged(format!("is damaged: its bytes hash to {found}")));
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
