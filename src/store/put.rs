//! Storing blobs, a batch at a time: durability is bought once for all of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::folder::{Folder, hash, rename_if_absent};
use super::{Archive, Result, StoreError, blob_key, quarantine_key};
use crate::digest::Digest;

/// One blob to store.
#[derive(Debug)]
pub struct Put<'a> {
    /// Its name: the digest of its bytes, computed while they were received.
    pub digest: Digest,
    /// The bytes.
    pub bytes: PutBytes<'a>,
    /// Whether it goes to quarantine instead of the blobs.
    pub quarantine: bool,
}

/// Where the bytes to store are.
#[derive(Debug)]
pub enum PutBytes<'a> {
    /// In memory.
    Memory(&'a [u8]),
    /// In a file of the same file system, whose descriptor has been open since before the first write. The file is
    /// moved.
    File {
        /// Its path.
        path: &'a Path,
        /// Its descriptor.
        file: &'a File,
    },
}

/// What storing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// The bytes are new in the archive.
    New,
    /// The bytes were there, and were read and found right.
    AlreadyThere,
    /// Something else was there under the name; right bytes have replaced it.
    Replaced,
    /// Something that is no file stands in the way of this one blob, and why; the bytes are not stored.
    Blocked(String),
}

/// Up to this many files are synced one by one; above, the file system is synced as a whole.
pub(super) const SINGLE_SYNCS: usize = 8;

impl Archive {
    /// Stores a batch of blobs. When this returns, the bytes and the names of all of them are durable, in that order:
    /// a name never appears before its bytes are synced. On an error none of them counts as stored; what is there is
    /// harmless, since whoever meets it reads and hashes it first. `scratch` is a folder of the same file system.
    pub fn put(&self, scratch: &Path, batch: &[Put<'_>]) -> Result<Vec<Stored>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut written = Vec::with_capacity(batch.len());
        let outcome = self.put_written(scratch, batch, &mut written);
        for (path, stored) in written.iter().zip(outcome.iter().flatten()) {
            if matches!(stored, Stored::Blocked(_)) {
                let _ = std::fs::remove_file(path);
            }
        }
        if outcome.is_err() {
            // Bytes whose sync failed must not be taken for good by anyone.
            for path in &written {
                let _ = std::fs::remove_file(path);
            }
        }
        outcome
    }

    fn put_written(&self, scratch: &Path, batch: &[Put<'_>], written: &mut Vec<PathBuf>) -> Result<Vec<Stored>> {
        let single = batch.len() <= SINGLE_SYNCS;
        for (place, put) in batch.iter().enumerate() {
            let path = match put.bytes {
                PutBytes::File { path, file } => {
                    if single {
                        file.sync_data().map_err(StoreError::io("sync", path))?;
                    }
                    path.to_owned()
                }
                PutBytes::Memory(bytes) => {
                    let path = scratch.join(format!("{place}-{}.blob", put.digest));
                    written.push(path.clone());
                    write(&path, bytes, single).map_err(StoreError::io("write", &path))?;
                    path
                }
            };
            if written.last() != Some(&path) {
                written.push(path);
            }
        }
        let targets: Vec<PathBuf> = batch
            .iter()
            .map(|put| if put.quarantine { quarantine_key(put.digest) } else { blob_key(put.digest) })
            .map(|key| self.folder.path(&key))
            .collect();
        if !single {
            // One sync for the bytes and for the folders that their names go to.
            let mut made = BTreeSet::new();
            for target in &targets {
                self.folder.make_parent_unsynced(target, &mut made)?;
            }
            if self.folder.sync_all()? {
                self.folder.remember_folders(made);
            } else {
                for path in written.iter() {
                    File::open(path).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", path))?;
                }
            }
        }

        let mut stored = Vec::with_capacity(batch.len());
        let mut folders = BTreeSet::new();
        for ((put, from), to) in batch.iter().zip(written.iter()).zip(&targets) {
            stored.push(self.name(put.digest, from, to)?);
            folders.extend(to.parent().map(Path::to_owned));
        }
        if single || !self.folder.sync_all()? {
            for folder in &folders {
                Folder::sync_folder(folder)?;
            }
        }
        Ok(stored)
    }

    /// Gives the synced file `from` its name. What stands there is kept if its bytes are right.
    fn name(&self, digest: Digest, from: &Path, to: &Path) -> Result<Stored> {
        self.folder.make_parent(to)?;
        let named = match rename_if_absent(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody removed the folder since it was made.
                self.folder.forget_folders();
                self.folder.make_parent(to)?;
                rename_if_absent(from, to)
            }
            other => other,
        };
        if named.map_err(StoreError::io("name", to))? {
            return Ok(Stored::New);
        }
        let there = File::open(to).and_then(|file| Ok((file.try_clone()?, hash(file)?)));
        match there {
            Ok((file, (found, _))) if found == digest => {
                file.sync_all().map_err(StoreError::io("sync", to))?;
                std::fs::remove_file(from).map_err(StoreError::io("remove", from))?;
                Ok(Stored::AlreadyThere)
            }
            // Other bytes, or bytes that cannot be read.
            _ => match std::fs::rename(from, to) {
                Ok(()) => Ok(Stored::Replaced),
                Err(error) => {
                    Ok(Stored::Blocked(format!("what stands at {} cannot be replaced: {error}", to.display())))
                }
            },
        }
    }

    /// Reads and hashes a blob's file and, if it is right, makes its bytes and its name durable. For bytes that
    /// somebody else put there, who may have died before syncing them. Gives whether the blob is there and right.
    pub fn settle_blob(&self, digest: Digest) -> Result<bool> {
        let path = self.folder.path(&blob_key(digest));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(StoreError::io("open", &path)(error)),
        };
        let sync = file.try_clone().map_err(StoreError::io("open", &path))?;
        let (found, _) = hash(file).map_err(StoreError::io("read", &path))?;
        if found != digest {
            return Ok(false);
        }
        sync.sync_all().map_err(StoreError::io("sync", &path))?;
        self.folder.sync_parent(&path)?;
        Ok(true)
    }

    /// Moves quarantined bytes to the blobs, durably, if they still are what their name says.
    pub fn accept_quarantined(&self, digest: Digest) -> Result<Option<Stored>> {
        let key = quarantine_key(digest);
        let from = self.folder.path(&key);
        match self.folder.digest(&key)? {
            Some((found, _)) if found == digest => {
                let file = File::open(&from).map_err(StoreError::io("open", &from))?;
                let put = Put { digest, bytes: PutBytes::File { path: &from, file: &file }, quarantine: false };
                // Not by `put`, which removes its source when it fails: these bytes are the only copy.
                let mut written = Vec::new();
                let stored = self.put_written(Path::new(""), std::slice::from_ref(&put), &mut written)?;
                // What is blocked stays in quarantine.
                Ok(stored.into_iter().next().filter(|stored| !matches!(stored, Stored::Blocked(_))))
            }
            _ => Ok(None),
        }
    }
}

fn write(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    if sync { file.sync_data() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn memory(bytes: &[u8], quarantine: bool) -> Put<'_> {
        Put { digest: Digest::of(bytes), bytes: PutBytes::Memory(bytes), quarantine }
    }

    #[test]
    fn one_content_can_be_stored_and_quarantined_in_one_batch() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open_or_create(folder.path(), &Clock::system()).unwrap();
        let batch = [memory(b"ten bytes!", false), memory(b"ten bytes!", true)];
        assert_eq!(archive.put(folder.path(), &batch).unwrap(), [Stored::New, Stored::New]);
        let digest = Digest::of(b"ten bytes!");
        assert_eq!(archive.blob_digest(digest).unwrap(), Some((digest, 10)));
        assert_eq!(archive.quarantined_digest(digest).unwrap(), Some((digest, 10)));
    }

    #[test]
    fn what_stands_in_the_way_of_one_blob_does_not_keep_the_others_out() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open_or_create(folder.path(), &Clock::system()).unwrap();
        let blocked = archive.folder().path(&blob_key(Digest::of(b"blocked")));
        std::fs::create_dir_all(blocked.join("inside")).unwrap();
        let wrong = archive.folder().path(&blob_key(Digest::of(b"damaged")));
        std::fs::create_dir_all(wrong.parent().unwrap()).unwrap();
        std::fs::write(&wrong, "other bytes").unwrap();
        let batch = [memory(b"blocked", false), memory(b"damaged", false), memory(b"fine", false)];
        let stored = archive.put(folder.path(), &batch).unwrap();
        assert!(matches!(stored[0], Stored::Blocked(_)), "{stored:?}");
        assert_eq!(stored[1..], [Stored::Replaced, Stored::New]);
        assert_eq!(archive.blob_digest(Digest::of(b"damaged")).unwrap(), Some((Digest::of(b"damaged"), 7)));
    }
}
