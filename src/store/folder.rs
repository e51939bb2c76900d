//! A folder as an object store: keys are relative paths, writes are put-if-absent, and syncs are explicit.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::put::SINGLE_SYNCS;
use super::{Result, Scratch, StoreError};
use crate::digest::{Digest, Hasher};

/// A folder on a local file system. Its own descriptor is opened before anything is written, so that a `syncfs` on it
/// reports every write-back error that happens from then on (syncfs(2), Linux 5.8).
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    descriptor: File,
    /// Folders whose own entries are known to be durable.
    durable_folders: Mutex<HashSet<PathBuf>>,
}

impl Folder {
    pub(super) fn open(root: &Path) -> Result<Self> {
        let descriptor = File::open(root).map_err(StoreError::io("open", root))?;
        Ok(Self { root: root.to_owned(), descriptor, durable_folders: Mutex::new(HashSet::new()) })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a key.
    pub fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Stores `bytes` under `key` unless it is taken; durable, name and all, when this returns. Gives whether it was
    /// stored now.
    pub(super) fn put_if_absent(&self, key: &str, bytes: &[u8]) -> Result<bool> {
        let temporary = self.write_temporary(bytes)?;
        let path = self.path(key);
        self.make_parent(&path)?;
        let stored = rename_if_absent(&temporary, &path).map_err(StoreError::io("name", &path))?;
        if !stored {
            let _ = std::fs::remove_file(&temporary);
        }
        self.sync_parent(&path)?;
        Ok(stored)
    }

    /// Stores `bytes` under `key`, replacing what is there in one step; durable when this returns.
    pub(super) fn replace(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let temporary = self.write_temporary(bytes)?;
        let path = self.path(key);
        self.make_parent(&path)?;
        std::fs::rename(&temporary, &path).map_err(StoreError::io("name", &path))?;
        self.sync_parent(&path)
    }

    /// Makes sure that the folder is still the one that was opened: where its disk was unmounted, there is another one by
    /// its name, which is no archive.
    fn is_in_place(&self) -> Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let identity = |found: &std::fs::Metadata| (found.dev(), found.ino());
        let opened = self.descriptor.metadata().map_err(StoreError::io("look at", &self.root))?;
        match std::fs::metadata(&self.root) {
            Ok(found) if identity(&found) == identity(&opened) => Ok(()),
            Ok(_) => Err(StoreError::Absent { place: self.root.display().to_string() }),
            Err(error) => Err(StoreError::io("look at", &self.root)(error)),
        }
    }

    fn write_temporary(&self, bytes: &[u8]) -> Result<PathBuf> {
        self.is_in_place()?;
        let home = self.root.join(Scratch::HOME);
        std::fs::create_dir_all(&home).map_err(StoreError::io("make the folder", &home))?;
        // One folder may be open more than once.
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = home.join(format!("put-{}-{number}.tmp", std::process::id()));
        let written = File::create(&path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&path);
            return Err(StoreError::io("write", &path)(error));
        }
        Ok(path)
    }

    /// Makes the folder above `path`, durably: each new folder's own entry is synced.
    pub(super) fn make_parent(&self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if parent == self.root || self.durable_folders().contains(parent) {
            return Ok(());
        }
        self.is_in_place()?;
        self.make_parent(parent)?;
        make_folder(parent)?;
        // Also where it was there: whoever made it may have died before syncing it.
        self.sync_parent(parent)?;
        self.durable_folders().insert(parent.to_owned());
        Ok(())
    }

    /// Makes the folders above `path` where they are not known to be durable, and adds them to `made`. They become
    /// durable with the next [`Folder::sync_all`]; [`Folder::remember_folders`] is to be told then.
    pub(super) fn make_parent_unsynced(&self, path: &Path, made: &mut BTreeSet<PathBuf>) -> Result<()> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if parent == self.root || made.contains(parent) || self.durable_folders().contains(parent) {
            return Ok(());
        }
        self.is_in_place()?;
        self.make_parent_unsynced(parent, made)?;
        make_folder(parent)?;
        made.insert(parent.to_owned());
        Ok(())
    }

    /// Notes folders that have become durable.
    pub(super) fn remember_folders(&self, folders: BTreeSet<PathBuf>) {
        self.durable_folders().extend(folders);
    }

    fn durable_folders(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable_folders.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Forgets which folders are known to be there, after one has vanished.
    pub(super) fn forget_folders(&self) {
        self.durable_folders().clear();
    }

    /// Makes the entries of `folder` durable.
    pub(super) fn sync_folder(folder: &Path) -> Result<()> {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync the folder", folder))
    }

    /// Makes the name `path` durable.
    pub(super) fn sync_parent(&self, path: &Path) -> Result<()> {
        Self::sync_folder(path.parent().unwrap_or(&self.root))
    }

    /// Makes everything that was written to this file system durable, in one call. Gives `false` where the platform
    /// has no such call.
    pub(super) fn sync_all(&self) -> Result<bool> {
        #[cfg(target_os = "linux")]
        {
            rustix::fs::syncfs(&self.descriptor)
                .map_err(|error| StoreError::io("sync the file system of", &self.root)(error.into()))?;
            Ok(true)
        }
        #[cfg(not(target_os = "linux"))]
        Ok(false)
    }

    /// Makes the names of the files `keys` durable.
    pub(super) fn sync_parents_of(&self, keys: &[String]) -> Result<()> {
        let folders: BTreeSet<&str> = keys.iter().filter_map(|key| Some(key.rsplit_once('/')?.0)).collect();
        if folders.len() > SINGLE_SYNCS && self.sync_all()? {
            return Ok(());
        }
        folders.into_iter().try_for_each(|folder| Self::sync_folder(&self.path(folder)))
    }

    /// The size of the file `key`; `None` where there is none.
    pub(super) fn size(&self, key: &str) -> Result<Option<u64>> {
        let path = self.path(key);
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("look at", &path)(error)),
        }
    }

    /// Reads and hashes the file `key`; `None` where there is none.
    pub(super) fn digest(&self, key: &str) -> Result<Option<(Digest, u64)>> {
        let path = self.path(key);
        match File::open(&path) {
            Ok(file) => hash(file).map(Some).map_err(StoreError::io("read", &path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("open", &path)(error)),
        }
    }

    /// Removes files; those that are not there are no error. Not synced: what comes back after a crash is removed again.
    pub(super) fn remove(&self, keys: &[String]) -> Result<()> {
        for key in keys {
            let path = self.path(key);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The keys of all files below `prefix`, in order.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        self.list_into(prefix, &mut keys)?;
        Ok(keys)
    }

    /// The names in a folder, in order, and whether each is a folder; none where the folder is missing.
    pub(super) fn entries(&self, key: &str) -> Result<Vec<(String, bool)>> {
        let path = self.path(key);
        let entries = match std::fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::io("list", &path)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(StoreError::io("list", &path))?;
            let is_folder = entry.file_type().map_err(StoreError::io("look at", &path))?.is_dir();
            names.push((entry.file_name().to_string_lossy().into_owned(), is_folder));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn list_into(&self, prefix: &str, keys: &mut Vec<String>) -> Result<()> {
        for (name, is_folder) in self.entries(prefix)? {
            let key = format!("{prefix}/{name}");
            if is_folder { self.list_into(&key, keys)? } else { keys.push(key) }
        }
        Ok(())
    }
}

/// Makes one folder; one that is there will do.
fn make_folder(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(StoreError::io("make the folder", path)(error))
        }
        _ => Ok(()),
    }
}

/// Hashes a file from where it stands to its end.
pub(super) fn hash(mut file: File) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), size)),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                size += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Renames `from` to `to` unless `to` exists, in one step. Gives whether it was done.
pub(super) fn rename_if_absent(from: &Path, to: &Path) -> io::Result<bool> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // A file system without the flag: a hard link is put-if-absent too.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match std::fs::hard_link(from, to) {
            Ok(()) => std::fs::remove_file(from).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        },
        Err(error) => Err(error.into()),
    }
}
