//! Storing blobs, a batch at a time: durability is bought once for all of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::folder::{Folder, hash, rename_if_absent};
use super::{Archive, Files, Result, StoreError, blob_key, in_folder, quarantine_key};
use crate::digest::Digest;
use crate::spool::SpooledBytes;

/// One blob to store.
#[derive(Debug)]
pub struct Put {
    /// Its name: the digest of its bytes, computed while they were received.
    pub digest: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The bytes. For a folder, a file must be in the same file system; it is moved.
    pub bytes: SpooledBytes,
    /// Whether it goes to quarantine instead of the blobs.
    pub quarantine: bool,
}

/// One blob on its way into a folder.
struct FolderPut<'a> {
    digest: Digest,
    bytes: PutBytes<'a>,
    quarantine: bool,
}

/// Where the bytes to store are: in memory, or in a file whose descriptor has been open since before the first write.
enum PutBytes<'a> {
    Memory(&'a [u8]),
    File { path: &'a Path, file: &'a File },
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
    /// harmless, since whoever meets it reads and hashes it first. `scratch` is a local folder, for a folder archive in
    /// its file system. The batch lives until this returns.
    pub async fn put(&self, scratch: &Path, batch: Vec<Put>) -> Result<Vec<Stored>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        match &self.files {
            Files::Folder(folder) => {
                let scratch = scratch.to_owned();
                in_folder(folder, move |folder| {
                    let batch: Vec<FolderPut<'_>> = batch.iter().map(FolderPut::of).collect();
                    folder.put(&scratch, &batch)
                })
                .await
            }
            Files::Bucket(bucket) => bucket.put_blobs(scratch, &batch).await,
        }
    }

    /// Reads and hashes a blob and, if it is right, makes its bytes and its name durable. For bytes that somebody else
    /// put there, who may have died before syncing them. Gives whether the blob is there and right.
    pub async fn settle_blob(&self, digest: Digest) -> Result<bool> {
        match &self.files {
            Files::Folder(folder) => in_folder(folder, move |folder| folder.settle_blob(digest)).await,
            Files::Bucket(bucket) => {
                Ok(bucket.digest(&blob_key(digest)).await?.is_some_and(|(found, _)| found == digest))
            }
        }
    }

    /// Moves quarantined bytes to the blobs, durably, if they still are what their name says.
    pub async fn accept_quarantined(&self, digest: Digest) -> Result<Option<Stored>> {
        match &self.files {
            Files::Folder(folder) => in_folder(folder, move |folder| folder.accept_quarantined(digest)).await,
            Files::Bucket(bucket) => bucket.accept_quarantined(digest).await,
        }
    }
}

impl<'a> FolderPut<'a> {
    fn of(put: &'a Put) -> Self {
        let bytes = match &put.bytes {
            SpooledBytes::Memory(bytes) => PutBytes::Memory(bytes),
            SpooledBytes::File(file) => PutBytes::File { path: file.path(), file: file.file() },
        };
        Self { digest: put.digest, bytes, quarantine: put.quarantine }
    }
}

impl Folder {
    fn put(&self, scratch: &Path, batch: &[FolderPut<'_>]) -> Result<Vec<Stored>> {
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

    fn put_written(&self, scratch: &Path, batch: &[FolderPut<'_>], written: &mut Vec<PathBuf>) -> Result<Vec<Stored>> {
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
            .map(|key| self.path(&key))
            .collect();
        if !single {
            // One sync for the bytes and for the folders that their names go to.
            let mut made = BTreeSet::new();
            for target in &targets {
                self.make_parent_unsynced(target, &mut made)?;
            }
            if self.sync_all()? {
                self.remember_folders(made);
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
        if single || !self.sync_all()? {
            for folder in &folders {
                Self::sync_folder(folder)?;
            }
        }
        Ok(stored)
    }

    /// Gives the synced file `from` its name. What stands there is kept if its bytes are right.
    fn name(&self, digest: Digest, from: &Path, to: &Path) -> Result<Stored> {
        self.make_parent(to)?;
        let named = match rename_if_absent(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody removed the folder since it was made.
                self.forget_folders();
                self.make_parent(to)?;
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

    fn settle_blob(&self, digest: Digest) -> Result<bool> {
        let path = self.path(&blob_key(digest));
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
        self.sync_parent(&path)?;
        Ok(true)
    }

    fn accept_quarantined(&self, digest: Digest) -> Result<Option<Stored>> {
        let key = quarantine_key(digest);
        let from = self.path(&key);
        match self.digest(&key)? {
            Some((found, _)) if found == digest => {
                let file = File::open(&from).map_err(StoreError::io("open", &from))?;
                let put = FolderPut { digest, bytes: PutBytes::File { path: &from, file: &file }, quarantine: false };
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
    use crate::store::Place;

    fn memory(bytes: &'static [u8], quarantine: bool) -> Put {
        let digest = Digest::of(bytes);
        Put { digest, size_bytes: bytes.len() as u64, bytes: SpooledBytes::Memory(bytes.into()), quarantine }
    }

    async fn archive(folder: &Path) -> Archive {
        Archive::open_or_create(&Place::Folder(folder.to_owned()), &Clock::system()).await.unwrap()
    }

    #[tokio::test]
    async fn one_content_can_be_stored_and_quarantined_in_one_batch() {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive(folder.path()).await;
        let batch = [memory(b"ten bytes!", false), memory(b"ten bytes!", true)];
        assert_eq!(archive.put(folder.path(), batch.into()).await.unwrap(), [Stored::New, Stored::New]);
        let digest = Digest::of(b"ten bytes!");
        assert_eq!(archive.blob_digest(digest).await.unwrap(), Some((digest, 10)));
        assert_eq!(archive.quarantined_digest(digest).await.unwrap(), Some((digest, 10)));
    }

    #[tokio::test]
    async fn what_stands_in_the_way_of_one_blob_does_not_keep_the_others_out() {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive(folder.path()).await;
        let blocked = archive.folder().unwrap().path(&blob_key(Digest::of(b"blocked")));
        std::fs::create_dir_all(blocked.join("inside")).unwrap();
        let wrong = archive.folder().unwrap().path(&blob_key(Digest::of(b"damaged")));
        std::fs::create_dir_all(wrong.parent().unwrap()).unwrap();
        std::fs::write(&wrong, "other bytes").unwrap();
        let batch = [memory(b"blocked", false), memory(b"damaged", false), memory(b"fine", false)];
        let stored = archive.put(folder.path(), batch.into()).await.unwrap();
        assert!(matches!(stored[0], Stored::Blocked(_)), "{stored:?}");
        assert_eq!(stored[1..], [Stored::Replaced, Stored::New]);
        assert_eq!(archive.blob_digest(Digest::of(b"damaged")).await.unwrap(), Some((Digest::of(b"damaged"), 7)));
    }
}
