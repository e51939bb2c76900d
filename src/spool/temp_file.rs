//! A file that disappears with its owner unless it is kept.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::Spool;

/// A temporary file with the descriptor through which all of it was written, so that a later sync reports every write
/// that failed. Removed when dropped.
#[derive(Debug)]
pub struct TempFile {
    file: File,
    guard: PathGuard,
}

/// Removes the file at its path when dropped.
#[derive(Debug)]
struct PathGuard {
    path: PathBuf,
    /// Keeps the folder until the file is gone.
    _spool: Spool,
}

impl Drop for PathGuard {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // Already renamed or removed is as good; whatever stays goes with the run's folder.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl TempFile {
    /// Creates a new file at `path`, readable like any other file the user makes (the umask holds).
    pub(super) fn create(path: PathBuf, spool: Spool) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        Ok(Self { file, guard: PathGuard { path, _spool: spool } })
    }

    /// The descriptor.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.guard.path
    }

    /// Leaves the file in place: it was renamed, or is somebody else's now. Hands on the descriptor and the path.
    pub fn keep(mut self) -> (File, PathBuf) {
        let path = std::mem::take(&mut self.guard.path);
        (self.file, path)
    }
}
