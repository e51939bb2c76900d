//! The folder that an export fills: whose it is, who works in it, and how a file gets its name there.
//!
//! What is not finished lies in `.jellyjar-export/`, in the same file system, so that naming is a rename. That folder
//! also says which archive and layout the export has, and keeps the lines of a run that has not ended.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::ExportError;
use crate::digest::{Digest, Hasher};
use crate::store::Archive;

/// The folder inside an export for what is not part of it.
pub(super) const HOME: &str = ".jellyjar-export";
/// What is in it: who the export belongs to.
const MARKER: &str = "export.json";
/// The version of the marker and the manifest.
const VERSION: u32 = 1;
/// File systems round times: FAT to two seconds.
const TIME_TOLERANCE_MS: u64 = 2000;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    v: u32,
    kind: String,
    archive_uuid: String,
    /// The layout's template.
    by: String,
}

/// A folder that this process may fill, until this is dropped.
#[derive(Debug)]
pub(super) struct Destination {
    root: PathBuf,
    /// Opened before anything is written, so that a sync on it sees every error (syncfs(2)).
    descriptor: File,
    _lock: File,
}

/// How a file was given its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// It has it.
    Done,
    /// Another file has it.
    Taken,
    /// The file system makes no such link.
    Refused,
}

impl Destination {
    /// Looks, and changes nothing: gives whether there is an export of this archive and layout, which may be continued.
    pub(super) fn look(root: &Path, archive_uuid: &str, by: &str) -> Result<bool, ExportError> {
        let io = |doing| ExportError::io(doing, root);
        let above = root.ancestors().find_map(|folder| folder.canonicalize().ok());
        for folder in above.iter().flat_map(|above| above.ancestors()) {
            if folder.join(Archive::MARKER).symlink_metadata().is_ok() {
                return Err(ExportError::InsideArchive { path: root.to_owned(), archive: folder.to_owned() });
            }
        }
        match root.metadata() {
            Ok(metadata) if !metadata.is_dir() => return Err(ExportError::NotAFolder { path: root.to_owned() }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return Err(ExportError::NotAFolder { path: root.to_owned() });
            }
            Err(error) => return Err(io("look at")(error)),
        }
        match std::fs::read(root.join(HOME).join(MARKER)) {
            Ok(text) => Self::check(root, &text, archive_uuid, by).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for entry in root.read_dir().map_err(io("read the folder"))? {
                    let name = entry.map_err(io("read the folder"))?.file_name();
                    // A run that ended between making its folder and its marker leaves the folder alone.
                    if name != HOME && name != "lost+found" {
                        return Err(ExportError::Foreign { path: root.to_owned() });
                    }
                }
                Ok(false)
            }
            Err(error) => Err(ExportError::io("read", &root.join(HOME).join(MARKER))(error)),
        }
    }

    fn check(root: &Path, text: &[u8], archive_uuid: &str, by: &str) -> Result<(), ExportError> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let path = root.to_owned();
        let damaged = |error: serde_json::Error| ExportError::Damaged {
            path: root.join(HOME).join(MARKER),
            line: 1,
            reason: error.to_string(),
        };
        let version: Version = serde_json::from_slice(text).map_err(damaged)?;
        if version.v > VERSION {
            return Err(ExportError::Newer { path });
        }
        let marker: Marker = serde_json::from_slice(text).map_err(damaged)?;
        if marker.archive_uuid != archive_uuid {
            return Err(ExportError::OtherArchive { path, uuid: marker.archive_uuid });
        }
        if marker.by != by {
            return Err(ExportError::OtherLayout { path, by: marker.by });
        }
        Ok(())
    }

    /// Takes the folder, which is made where it is missing.
    pub(super) fn open(root: &Path, archive_uuid: &str, by: &str) -> Result<Self, ExportError> {
        let ours = Self::look(root, archive_uuid, by)?;
        let home = root.join(HOME);
        let temporary = home.join("tmp");
        std::fs::create_dir_all(&home).map_err(ExportError::io("make the folder", &home))?;
        let lock_path = home.join("lock");
        let lock = File::create(&lock_path).map_err(ExportError::io("make", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            // Or a file system without locks: nobody else is expected there.
            Ok(()) | Err(Errno::NOLCK | Errno::NOSYS | Errno::NOTSUP) => {}
            Err(Errno::WOULDBLOCK) => return Err(ExportError::Busy { path: root.to_owned() }),
            Err(error) => return Err(ExportError::io("lock", &lock_path)(error.into())),
        }
        // Whatever a run that was killed had not named.
        let _ = std::fs::remove_dir_all(&temporary);
        std::fs::create_dir_all(&temporary).map_err(ExportError::io("make the folder", &temporary))?;
        let descriptor = File::open(root).map_err(ExportError::io("open", root))?;
        let destination = Self { root: root.to_owned(), descriptor, _lock: lock };
        if !ours {
            let marker = Marker { v: VERSION, kind: "export".into(), archive_uuid: archive_uuid.into(), by: by.into() };
            let text = serde_json::to_vec_pretty(&marker).expect("a struct of text and numbers always serialises");
            let temporary = destination.temporary(0);
            std::fs::write(&temporary, text).map_err(ExportError::io("write", &temporary))?;
            destination.sync([temporary.as_path()])?;
            std::fs::rename(&temporary, home.join(MARKER)).map_err(ExportError::io("name", &home))?;
            destination.sync([home.as_path(), root])?;
        }
        Ok(destination)
    }

    /// The path of a name in the export.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The path of a file of this run in `.jellyjar-export/`.
    pub(super) fn own(&self, name: &str) -> PathBuf {
        self.root.join(HOME).join(name)
    }

    /// The path of a file that has no name yet.
    pub(super) fn temporary(&self, number: u64) -> PathBuf {
        self.root.join(HOME).join("tmp").join(format!("{number}.part"))
    }

    /// Makes what was written durable: everything, where the system has a call for that, else these files or folders.
    #[cfg_attr(target_os = "linux", expect(clippy::needless_pass_by_value, reason = "other systems go through it"))]
    pub(super) fn sync<'a>(&self, written: impl IntoIterator<Item = &'a Path>) -> Result<(), ExportError> {
        #[cfg(target_os = "linux")]
        {
            let _ = written;
            rustix::fs::syncfs(&self.descriptor)
                .map_err(|error| ExportError::io("sync the file system of", &self.root)(error.into()))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = &self.descriptor;
            for path in written {
                File::open(path).and_then(|file| file.sync_all()).map_err(ExportError::io("sync", path))?;
            }
            Ok(())
        }
    }

    /// Gives a finished file its name, never over another file.
    pub(super) fn name(&self, temporary: &Path, name: &str) -> Result<Named, ExportError> {
        let path = self.path(name);
        self.make_folders(&path)?;
        match renameat_with(CWD, temporary, CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(Named::Done),
            Err(Errno::EXIST) => return Ok(Named::Taken),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            Err(error) => return Err(ExportError::io("name", &path)(error.into())),
        }
        match std::fs::hard_link(temporary, &path) {
            Ok(()) => {
                std::fs::remove_file(temporary).map_err(ExportError::io("remove", temporary))?;
                return Ok(Named::Done);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Named::Taken),
            Err(_) => {}
        }
        // Neither exists there (some network shares). The lock keeps other exports away.
        if path.symlink_metadata().is_ok() {
            return Ok(Named::Taken);
        }
        std::fs::rename(temporary, &path).map_err(ExportError::io("name", &path))?;
        Ok(Named::Done)
    }

    /// Gives a file of the export one more name.
    pub(super) fn link(&self, from: &str, name: &str) -> Result<Named, ExportError> {
        let path = self.path(name);
        self.make_folders(&path)?;
        match std::fs::hard_link(self.path(from), &path) {
            Ok(()) => Ok(Named::Done),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Named::Taken),
            // No links there, too many of one file, or not allowed: a copy will do, and says so if it cannot.
            Err(_) => Ok(Named::Refused),
        }
    }

    fn make_folders(&self, path: &Path) -> Result<(), ExportError> {
        let folder = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(folder).map_err(ExportError::io("make the folder", folder))
    }

    /// Size and time of a file; `None` where nothing has that name.
    pub(super) fn measure(&self, name: &str) -> Result<Option<(u64, i64)>, ExportError> {
        let path = self.path(name);
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_file() => Ok(Some((metadata.len(), modified_ms(&metadata)))),
            // What is no file has no size that a file can have.
            Ok(_) => Ok(Some((u64::MAX, 0))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(ExportError::io("look at", &path)(error)),
        }
    }

    /// Reads and hashes a file; `None` where there is none that can be read.
    pub(super) fn digest(&self, name: &str) -> Option<Digest> {
        let mut file = File::open(self.path(name)).ok()?;
        let (mut hasher, mut buffer) = (Hasher::default(), vec![0; 128 << 10]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Some(hasher.finish()),
                Ok(length) => hasher.update(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    /// The bytes that this user can still write there; `None` where that cannot be told.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let state = rustix::fs::fstatvfs(&self.descriptor).ok()?;
        Some(state.f_bavail.saturating_mul(state.f_frsize))
    }
}

/// Whether two times of a file are one, as far as file systems tell.
pub(super) fn same_time(one_ms: i64, other_ms: i64) -> bool {
    one_ms.abs_diff(other_ms) <= TIME_TOLERANCE_MS
}

/// A file's time in milliseconds since the Unix epoch.
pub(super) fn modified_ms(metadata: &std::fs::Metadata) -> i64 {
    let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    modified.duration_since(UNIX_EPOCH).map_or_else(|before| -ms(before.duration()), ms)
}

/// The time that a file gets: within what every file system and archive format can hold.
pub(super) fn file_time(ms: i64) -> (SystemTime, i64) {
    // FAT counts from 1980 to 2107.
    let ms = ms.clamp(315_619_200_000, 4_354_732_800_000);
    (UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs()), ms)
}
