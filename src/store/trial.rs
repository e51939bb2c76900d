//! Trying a place out: whether an archive there can be written, read, listed and deleted, by one small file that is gone
//! again at the end. It lies among the writers' records, where nobody takes it for one; where there is no archive yet,
//! right below the place, where it is not in the way of one that is made at the same time.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::folder::{Folder, rename_if_absent};
use super::{Archive, Marker, Place, Result, Scratch, StoreError, read_marker};
use crate::digest::Digest;

/// How the names of files begin that are there for a trial only.
const TRIAL: &str = "jellyjar-doctor-";
/// What such a file says.
pub(super) const TRIAL_TEXT: &[u8] = b"made by jellyjar doctor; it may be deleted\n";

/// Whether a file or object does not keep a place from becoming an archive.
pub(super) fn is_of_a_trial(name: &str) -> bool {
    name.starts_with(TRIAL)
}

/// What a trial found. What was not tried, because a step before it failed, is `None`.
#[derive(Debug)]
pub struct Trial {
    /// Where it took place.
    pub place: String,
    /// Whether something new may be written.
    pub written: Result<()>,
    /// Whether it can be read back, and is the same.
    pub read: Option<Result<bool>>,
    /// Whether a second put under the same name is refused, as it must be.
    pub conditional: Option<Result<bool>>,
    /// Whether it is listed.
    pub listed: Option<Result<bool>>,
    /// The clock of a bucket: when it says that the object was stored.
    pub stored_at: Option<Timestamp>,
    /// Whether it may be deleted, and is gone then.
    pub deleted: Option<Result<()>>,
}

impl Trial {
    pub(super) fn begun(place: String, written: Result<()>) -> Self {
        Self { place, written, read: None, conditional: None, listed: None, stored_at: None, deleted: None }
    }
}

impl Place {
    /// The marker of the archive; `None` where there is none.
    pub async fn marker(&self) -> Result<Option<Marker>> {
        read_marker(self).await
    }

    /// Whether an archive may be made in a place that has none: only where nothing else is.
    pub async fn is_free(&self) -> Result<bool> {
        match self {
            Self::Folder(root) => {
                let root = root.clone();
                blocking(move || Ok(!root.exists() || only_ours(&root)?)).await
            }
            Self::Bucket(bucket) => {
                let (objects, prefixes) = bucket.list_names("").await?;
                Ok(prefixes.is_empty() && objects.iter().all(|name| name == Archive::MARKER || is_of_a_trial(name)))
            }
        }
    }

    /// Tries the place out. Nothing is left behind, unless what was written may not be deleted.
    pub async fn try_out(&self, has_archive: bool) -> Result<Trial> {
        let name = format!("{TRIAL}{}", data_encoding::HEXLOWER.encode(&super::marker::random_bytes()?[..8]));
        match self {
            Self::Folder(root) => {
                let writers = root.join("writers");
                let folder = if has_archive && writers.exists() { writers } else { nearest(root) };
                blocking(move || Ok(try_folder(&folder, &name))).await
            }
            Self::Bucket(bucket) => Ok(bucket.try_out(if has_archive { "writers" } else { "" }, &name).await),
        }
    }

    /// The uploads in parts that were begun in a bucket and never finished; `None` where nobody can tell.
    pub async fn unfinished_uploads(&self) -> Option<usize> {
        match self {
            Self::Folder(_) => Some(0),
            Self::Bucket(bucket) => bucket.unfinished_uploads().await,
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Broken)?
}

/// Whether a folder holds nothing that an archive would not hold when it is new.
pub(super) fn only_ours(root: &Path) -> Result<bool> {
    let entries = std::fs::read_dir(root).map_err(StoreError::io("read the folder", root))?;
    for entry in entries {
        let name = entry.map_err(StoreError::io("read the folder", root))?.file_name();
        let known = name == Scratch::HOME || name == Archive::MARKER || name == "lost+found";
        if !known && !is_of_a_trial(&name.to_string_lossy()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The folder, or the first one above it that is there: where the rest would be made.
pub fn nearest(folder: &Path) -> PathBuf {
    let there = folder.ancestors().find(|folder| folder.exists());
    there.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn try_folder(folder: &Path, name: &str) -> Trial {
    let (path, temporary) = (folder.join(name), folder.join(format!("{name}.tmp")));
    let put = || -> Result<bool> {
        let mut file = std::fs::File::options().write(true).create_new(true).open(&temporary);
        file = file.and_then(|mut file| file.write_all(TRIAL_TEXT).map(|()| file));
        file.and_then(|file| file.sync_all()).map_err(StoreError::io("write", &temporary))?;
        rename_if_absent(&temporary, &path).map_err(StoreError::io("name", &path))
    };
    let mut trial = Trial::begun(folder.display().to_string(), put().map(|_| ()));
    if trial.written.is_ok() {
        let read = Folder::open(folder).and_then(|folder| folder.digest(name));
        trial.read = Some(read.map(|read| read.is_some_and(|(digest, _)| digest == Digest::of(TRIAL_TEXT))));
        trial.conditional = Some(put().map(|stored| !stored));
        trial.listed = Some(list(folder).map(|names| names.iter().any(|found| found == name)));
    }
    let remove = |path: &Path| match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    };
    let removed = remove(&temporary).and(remove(&path));
    if trial.written.is_ok() {
        trial.deleted = Some(removed);
    }
    trial
}

fn list(folder: &Path) -> Result<Vec<std::ffi::OsString>> {
    let names = std::fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    names.map_err(StoreError::io("list", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Folder(folder.path().join("not/there/yet"));
        assert_eq!(place.marker().await.unwrap(), None);
        assert!(place.is_free().await.unwrap());
        let trial = place.try_out(false).await.unwrap();
        assert_eq!(trial.place, folder.path().display().to_string(), "where the rest would be made");
        assert!(trial.written.is_ok() && trial.deleted.unwrap().is_ok());
        assert!(trial.read.unwrap().unwrap() && trial.conditional.unwrap().unwrap() && trial.listed.unwrap().unwrap());
        assert_eq!(list(folder.path()).unwrap().len(), 0);
    }

    #[tokio::test]
    async fn what_is_left_of_a_trial_is_not_in_the_way_of_an_archive_and_other_things_are() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Folder(folder.path().to_owned());
        std::fs::write(folder.path().join(format!("{TRIAL}1")), "").unwrap();
        assert!(place.is_free().await.unwrap());
        std::fs::write(folder.path().join("letter.txt"), "").unwrap();
        assert!(!place.is_free().await.unwrap());
        std::fs::remove_file(folder.path().join("letter.txt")).unwrap();
        Archive::open_or_create(&place, &crate::clock::Clock::system()).await.unwrap();
    }
}
