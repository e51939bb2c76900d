//! What can go wrong with an export.

use std::io;
use std::path::{Path, PathBuf};

use crate::catalog::CatalogError;
use crate::store::StoreError;

/// What can go wrong with an export. Bytes that are missing or damaged are findings, no error.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The archive failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file where a folder is needed.
    #[error("{path} is not a folder; give a new or empty one", path = path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// A folder of other things.
    #[error("{path} is not empty and is no export of jellyjar; give a new or empty folder", path = path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// A folder in an archive, where other things would be in the way.
    #[error(
        "{path} is inside the archive {archive}; give a folder outside of it",
        path = path.display(), archive = archive.display()
    )]
    InsideArchive {
        /// The folder.
        path: PathBuf,
        /// The archive.
        archive: PathBuf,
    },
    /// An export of another archive.
    #[error("{path} is an export of another archive ({uuid}); give another folder", path = path.display())]
    OtherArchive {
        /// The folder.
        path: PathBuf,
        /// That archive.
        uuid: String,
    },
    /// An export with another layout.
    #[error("{path} is laid out by {by:?}; give the same --by, or another folder", path = path.display())]
    OtherLayout {
        /// The folder.
        path: PathBuf,
        /// Its template.
        by: String,
    },
    /// An export of a newer program.
    #[error("{path} was made by a newer jellyjar; install that version, or give another folder", path = path.display())]
    Newer {
        /// The folder.
        path: PathBuf,
    },
    /// Another process fills it.
    #[error("another jellyjar exports to {path}; wait for its end", path = path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A file of the export that cannot be read as what it is.
    #[error("{path}:{line} is damaged: {reason}; export to a new folder", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The file system refused.
    #[error("cannot {doing} {path}; run the same command again to go on once this is mended", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A thread ended early, which is a defect of this program.
    #[error("a thread of the export ended early")]
    Thread,
}

impl ExportError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// Whether another folder or flag is the way out.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::NotAFolder { .. }
            | Self::Foreign { .. }
            | Self::InsideArchive { .. }
            | Self::OtherArchive { .. }
            | Self::OtherLayout { .. }
            | Self::Newer { .. }
            | Self::Busy { .. } => true,
            Self::Catalog(_) | Self::Store(_) | Self::Damaged { .. } | Self::Io { .. } | Self::Thread => false,
        }
    }
}
