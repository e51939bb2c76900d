//! Proving an archive, putting right what is wrong with it, and giving its files back: verify, repair, rebuild, accept,
//! export.

mod accept;
mod blobs;
mod chain;
mod compact;
mod export;
mod journal;
mod rebuild;
mod recheck;
mod repair;
mod report;
mod verify;

use std::sync::Arc;

use crate::catalog::{ArchiveRow, Catalog, CatalogError};
use crate::clock::Clock;
use crate::ingest::ReloadError;
use crate::store::{Archive, JournalWriter, StoreError};

pub use accept::{Accepted, accept};
pub use compact::{CompactOptions, Compacted, Refused, compact, mergeable};
pub use export::{
    ExportError, ExportOptions, ExportProgress, ExportReport, ExportTrouble, HardLinks, Selection, Template,
    TemplateError, export,
};
pub use rebuild::{Rebuilt, rebuild};
pub use recheck::{Rechecked, recheck};
pub use repair::{RepairAccess, Repaired, Unrepaired, repair};
pub use report::{BrokenBytes, Finding, FindingKind, Looked, Report};
pub use verify::{Checked, VerifyOptions, verify};

/// What can go wrong while an archive is audited. What is wrong with the archive itself is a finding, no error.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The archive failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal could not be loaded.
    #[error(transparent)]
    Reload(#[from] ReloadError),
    /// Segments that cannot be read, so that a rebuild would lose what they hold.
    #[error(
        "{count} journal segments cannot be read (first: {first}); restore them from a copy, or move them out of the \
         archive to go on without them, then run `jellyjar rebuild` again; nothing was changed"
    )]
    Unreadable {
        /// How many.
        count: usize,
        /// The first, and what is wrong with it.
        first: String,
    },
    /// A thread that reads ended early, which is a defect of this program.
    #[error("a reading thread ended early")]
    Reader,
}

/// The archive that is audited, and its catalog.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The archive.
    pub archive: Arc<Archive>,
    /// Its row.
    pub archive_row: ArchiveRow,
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// This process's chains of segments.
    pub journal: Arc<JournalWriter>,
    /// The time.
    pub clock: Clock,
}
