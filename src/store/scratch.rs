//! The place for files that are not stored yet: one folder a process; for a folder archive in the archive's own file
//! system, so that storing is a rename. Folders of processes that are gone are removed, but for the records of uploads
//! that they have left unfinished.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{Result, StoreError, UploadRecord};
use crate::model::WriterId;

/// The name of the file whose lock a living process holds.
const LOCK: &str = "lock";

/// This process's folder of temporary files; it is removed at the end.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// The folder inside an archive for what is not part of it.
    pub const HOME: &str = ".jellyjar";

    /// How the names of records of uploads end.
    pub(super) const UPLOAD: &str = ".upload";

    /// Makes this process's folder below `home` and removes those of processes that are gone.
    pub fn open(home: &Path, writer: &WriterId) -> Result<Self> {
        let home = home.join("spool");
        std::fs::create_dir_all(&home).map_err(StoreError::io("make the folder", &home))?;
        sweep(&home);
        let path = home.join(&writer.0);
        std::fs::create_dir_all(&path).map_err(StoreError::io("make the folder", &path))?;
        let lock_path = path.join(LOCK);
        let lock = File::create(&lock_path).map_err(StoreError::io("make", &lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| StoreError::io("lock", &lock_path)(error.into()))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The records of uploads that dead processes have left, with the path of each.
    pub(super) fn abandoned_uploads(&self) -> Vec<(PathBuf, UploadRecord)> {
        let mut found = Vec::new();
        let folders = self.path.parent().and_then(|home| std::fs::read_dir(home).ok());
        for folder in folders.into_iter().flatten().flatten().map(|entry| entry.path()) {
            // A dead process's lock is removed with the rest of its folder, by whoever swept it.
            if folder == self.path || folder.join(LOCK).exists() {
                continue;
            }
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if is_upload(&path)
                    && let Some(record) = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok())
                {
                    found.push((path, record));
                }
            }
        }
        found
    }

    /// Removes the record of an upload that is done with, and its folder with the last one.
    pub(super) fn forget_upload(path: &Path) {
        let _ = std::fs::remove_file(path);
        if let Some(folder) = path.parent() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn is_upload(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(Scratch::UPLOAD))
}

/// Removes a folder, but for records of uploads, its lock last: what a crash in between leaves can still be told from a young process's folder.
fn remove(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder {
            let _ = std::fs::remove_dir_all(entry.path());
        } else if entry.file_name() != LOCK && !is_upload(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    let _ = std::fs::remove_file(folder.join(LOCK));
    let _ = std::fs::remove_dir(folder);
}

/// Removes what dead processes left. Best effort: what cannot be removed now is tried by the next start.
fn sweep(home: &Path) {
    for entry in std::fs::read_dir(home).into_iter().flatten().flatten() {
        let path = entry.path();
        let lock = File::open(path.join(LOCK));
        let dead = match &lock {
            Ok(lock) => flock(lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            // Between making the folder and its lock a process is young: leave it an hour.
            Err(_) => entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|made| made.elapsed().is_ok_and(|age| age.as_secs() > 3600)),
        };
        if dead {
            remove(&path);
        }
    }
    // Single files of the same kind lie beside this folder.
    for entry in home.parent().and_then(|parent| std::fs::read_dir(parent).ok()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let owner = name.strip_prefix("put-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| {
            owner != std::process::id()
                && Path::new("/proc/self").exists()
                && !Path::new(&format!("/proc/{owner}")).exists()
        }) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
