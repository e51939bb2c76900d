//! What can go wrong with the archive's files.

use std::io;
use std::path::{Path, PathBuf};

use super::BucketError;
use crate::model::UnsupportedVersion;

/// What can go wrong with the archive's files.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {doing} {path}", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder or prefix that holds other things.
    #[error(
        "{place} is not empty and is no jellyjar archive; give --archive an empty or new place, such as one below it"
    )]
    NotAnArchive {
        /// The folder or prefix.
        place: String,
    },
    /// A file where a folder is needed.
    #[error("{path} is not a folder; give --archive a folder", path = path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// No archive where one is needed.
    #[error("there is no jellyjar archive at {place}; check --archive, or make one with `jellyjar replay`")]
    Absent {
        /// The folder or prefix.
        place: String,
    },
    /// A newer program's archive.
    #[error("the archive {place} cannot be used")]
    Unsupported {
        /// The folder, bucket or key.
        place: String,
        /// Which version.
        source: UnsupportedVersion,
    },
    /// A file of ours that cannot be read as what it is.
    #[error("{key} in the archive is damaged: {reason}; restore it from a copy, then run `jellyjar verify`")]
    Damaged {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// Another process does what only one should do at a time.
    #[error(
        "another process has locked the archive for {purpose} since {since}; wait until it is done, or, if it was \
             killed, for five minutes"
    )]
    Locked {
        /// What for.
        purpose: String,
        /// Since when.
        since: jiff::Timestamp,
    },
    /// A bucket refused, or could not be reached.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A sync failed before: what it covered is not trusted, and nothing more is written by this process.
    #[error("an earlier write to the journal failed; start again to go on")]
    Broken,
}

impl StoreError {
    /// Wraps an error of the file system.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}
