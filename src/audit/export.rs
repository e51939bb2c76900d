//! Giving an archive's files back as a tree that people can read: with names, in folders, each file proven, and with a
//! manifest that proves all of them again without this program.
//!
//! Places are put in one order, by date and then by ids, and get their names in that order, so that one archive always
//! gives the same tree. What an earlier run has named keeps its name.

mod copy;
mod destination;
mod error;
mod fill;
mod manifest;
mod merge;
mod names;
mod stage;
mod template;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jiff::Timestamp;
use serde::Serialize;

use self::destination::Destination;
use self::fill::{Fill, Work};
use self::manifest::{LineReader, blocking};
use self::names::Names;
use self::stage::{conversation_id, sent_ms, stage};
use self::template::Conversation;
use super::Subject;
use crate::catalog::{ExportConversation, ExportItem, ExportRow, ExportTotals, Exported};
use crate::digest::{Digest, Hasher};
use crate::filter::{self, Patterns};

pub use error::ExportError;
pub use template::{Template, TemplateError};

/// Which files may be one file with several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HardLinks {
    /// None.
    Never,
    /// Files of the export that have the same bytes. They are read-only, as a change of one would be a change of all.
    #[default]
    Export,
    /// These, and the archive's own files with them. The archive's files become read-only too: whoever makes them
    /// writable again can damage the archive through the export.
    Archive,
}

/// Which attachments are exported. What a message does not tell matches nothing.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Sent at this time or later.
    pub since: Option<Timestamp>,
    /// Sent before this time.
    pub until: Option<Timestamp>,
    /// Of one of these media types, by declaration or by their bytes.
    pub types: Patterns,
    /// From one of these addresses.
    pub senders: Patterns,
    /// With one of these names.
    pub names: Patterns,
    /// Of this conversation.
    pub conversation: Option<String>,
    /// Of this team.
    pub team: Option<String>,
}

impl Selection {
    fn takes(&self, row: &ExportRow, sent_ms: Option<i64>) -> bool {
        let matches = |patterns: &Patterns, text: Option<String>| {
            patterns.is_empty() || text.is_some_and(|text| patterns.match_text(&text))
        };
        let types = [&row.content_type, &row.sniffed_type];
        self.since.is_none_or(|since| sent_ms.is_some_and(|sent| sent >= since.as_millisecond()))
            && self.until.is_none_or(|until| sent_ms.is_some_and(|sent| sent < until.as_millisecond()))
            && types.iter().any(|text| matches(&self.types, text.as_deref().map(filter::essence)))
            && matches(&self.senders, row.sender.as_deref().map(filter::address))
            && matches(&self.names, row.name.as_deref().map(str::to_lowercase))
            && self.conversation.as_ref().is_none_or(|wanted| row.conversation_id.as_ref() == Some(wanted))
            && self.team.as_ref().is_none_or(|wanted| row.team == *wanted)
    }
}

/// What to export, where to and how.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The folder.
    pub destination: PathBuf,
    /// The layout.
    pub template: Template,
    /// Which attachments.
    pub selection: Selection,
    /// Which files may be one.
    pub links: HardLinks,
    /// Files that are copied at once.
    pub concurrency: usize,
    /// Whether to count only.
    pub dry_run: bool,
}

/// How far an export is, for display; and how it is stopped.
#[derive(Debug, Default)]
pub struct ExportProgress {
    /// Places.
    pub places: AtomicU64,
    /// Places that are done.
    pub done: AtomicU64,
    /// Bytes to be read.
    pub total_bytes: AtomicU64,
    /// Bytes that were read.
    pub bytes: AtomicU64,
    /// Whether the run is to end as soon as it can.
    pub stop: AtomicBool,
}

/// A place whose file is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportTrouble {
    /// Its path in the export.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

/// What became of the places of an export.
#[derive(Debug, Default, Serialize)]
pub struct ExportReport {
    /// What there was to do.
    #[serde(flatten)]
    pub totals: ExportTotals,
    /// Files that were made now.
    pub exported: u64,
    /// Of these, further names of files with the same bytes.
    pub linked: u64,
    /// Files that were there.
    pub present: u64,
    /// Files that cannot be made: the archive has no copy of their bytes.
    pub missing: u64,
    /// The same: the archive's copy is damaged.
    pub damaged: u64,
    /// Files that somebody changed since they were exported; they are left alone.
    pub changed: u64,
    /// Places that were not come to.
    pub left: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// Archived attachments that no message shows, so that they have no place.
    pub without_message: u64,
    /// The first that are not as they should be.
    pub trouble: Vec<ExportTrouble>,
    /// The paths of the first files, in a dry run.
    pub first_paths: Vec<String>,
    /// The digest of `SHA256SUMS`, which covers the manifest and so fixes everything.
    pub sums_sha256: Option<Digest>,
}

impl ExportReport {
    /// At most this much trouble is told.
    const TOLD: usize = 100;

    /// Whether every place is accounted for.
    pub fn adds_up(&self) -> bool {
        let places = [self.exported, self.present, self.missing, self.damaged, self.changed, self.left];
        places.iter().sum::<u64>() == self.totals.places
    }

    /// Whether everything that was asked for is there.
    pub fn is_whole(&self) -> bool {
        self.adds_up() && self.missing + self.damaged + self.changed + self.left + self.without_message == 0
    }

    fn tell(&mut self, path: &str, reason: impl Into<String>) {
        if self.trouble.len() < Self::TOLD {
            self.trouble.push(ExportTrouble { path: path.to_owned(), reason: reason.into() });
        }
    }
}

/// Rows that are read at once, and places that are worked on at once.
const PAGE: u32 = 512;
/// The paths that a dry run shows.
const SHOWN: usize = 10;

/// Exports. The catalog should have loaded the journal before.
pub async fn export(
    subject: &Subject,
    options: &ExportOptions,
    progress: &Arc<ExportProgress>,
) -> Result<ExportReport, ExportError> {
    let (root, uuid) = (options.destination.clone(), subject.archive.uuid().to_owned());
    let by = options.template.as_str().to_owned();
    let dry_run = options.dry_run;
    let destination = blocking(move || {
        if dry_run {
            Destination::look(&root, &uuid, &by)?;
            return Ok(None);
        }
        Destination::open(&root, &uuid, &by).map(|destination| Some(Arc::new(destination)))
    })
    .await?;
    subject.catalog.begin_export().await?;
    let done = work(subject, options, progress, destination).await;
    subject.catalog.end_export().await?;
    done
}

async fn work(
    subject: &Subject,
    options: &ExportOptions,
    progress: &Arc<ExportProgress>,
    destination: Option<Arc<Destination>>,
) -> Result<ExportReport, ExportError> {
    let mut names = Names::default();
    let root = options.destination.as_path();
    load(subject, options, LineReader::manifest(root)?, &mut names).await?;
    let end = load(subject, options, LineReader::progress(root)?, &mut names).await?;
    stage(subject, options, progress).await?;
    let totals = subject.catalog.export_totals().await?;
    let without_message = subject.catalog.archived_without_message(subject.archive_row).await?;
    let mut report = ExportReport { totals, without_message, left: totals.places, ..ExportReport::default() };
    let to_read = if options.links == HardLinks::Never { totals.new_bytes } else { totals.new_content_bytes };
    progress.places.store(totals.places, Ordering::Relaxed);
    progress.total_bytes.store(to_read, Ordering::Relaxed);
    let Some(destination) = destination else {
        report.present = totals.places - totals.new_places;
        report.left = totals.new_places;
        report.first_paths = first_paths(subject, options, &mut names).await?;
        return Ok(report);
    };
    if let Some(free) = destination.free_bytes()
        && free < to_read
        && options.links != HardLinks::Archive
    {
        tracing::warn!("{} has {free} bytes free, and {to_read} are needed", root.display());
    }
    let writer = manifest::ProgressWriter::open(&destination, end)?;
    let mut fill = Fill::new(subject, options, progress, Arc::clone(&destination), names, writer, report);
    let mut cursor = (Vec::new(), [0; 16]);
    while !progress.stop.load(Ordering::Relaxed) {
        let items = subject.catalog.export_items((&cursor.0, cursor.1), PAGE).await?;
        let Some(last) = items.last() else { break };
        cursor = (last.order.clone(), last.id);
        fill.page(items).await?;
    }
    let mut report = fill.end();
    let sums = destination.path(names::OWN_NAMES[2]);
    let complete = names::OWN_NAMES.iter().all(|name| destination.path(name).exists());
    let has_lines = destination.own(manifest::PROGRESS).metadata().is_ok_and(|metadata| metadata.len() > 0);
    report.sums_sha256 = Some(if has_lines || !complete {
        merge::write_manifest(&destination, &subject.catalog, root).await?
    } else {
        blocking(move || hash(&sums)).await?
    });
    Ok(report)
}

fn hash(path: &Path) -> Result<Digest, ExportError> {
    let mut file = std::fs::File::open(path).map_err(ExportError::io("open", path))?;
    struct Sink(Hasher);
    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink(Hasher::default());
    io::copy(&mut file, &mut sink).map_err(ExportError::io("read", path))?;
    Ok(sink.0.finish())
}

/// Takes over what earlier runs have given away. Gives where the whole lines end.
async fn load(
    subject: &Subject,
    options: &ExportOptions,
    mut lines: LineReader,
    names: &mut Names,
) -> Result<u64, ExportError> {
    loop {
        let (batch, reader) = blocking(move || Ok((lines.next_batch(2000)?, lines))).await?;
        lines = reader;
        if batch.is_empty() {
            return Ok(lines.end());
        }
        let (mut exported, mut folders) = (Vec::new(), HashMap::new());
        for (line, _) in batch {
            names.take(&line.path);
            let Some(id) = line.id() else { continue };
            let conversation = conversation_id(&line.team, line.conversation_id.as_deref(), line.message_id.as_deref());
            if let (Some(id), Some((folder, _)), true) =
                (conversation, line.path.rsplit_once('/'), options.template.has_conversation_folder())
            {
                folders.insert(id, folder.to_owned());
            }
            let modified_ms = line.modified_ms();
            exported.push(Exported { id, path: line.path, sha256: line.sha256, modified_ms });
        }
        subject.catalog.remember_exported(&exported).await?;
        let conversations: Vec<_> = folders
            .into_iter()
            // Behind every message: it names the folder and nothing else.
            .map(|(id, folder)| ExportConversation {
                id,
                order: vec![0xff; 64],
                sent_ms: None,
                subject: None,
                folder: Some(folder),
            })
            .collect();
        subject.catalog.stage_export(&[], &conversations).await?;
    }
}

async fn first_paths(
    subject: &Subject,
    options: &ExportOptions,
    names: &mut Names,
) -> Result<Vec<String>, ExportError> {
    let mut cursor = (Vec::new(), [0; 16]);
    let mut paths = Vec::new();
    loop {
        let items = subject.catalog.export_items((&cursor.0, cursor.1), PAGE).await?;
        let Some(last) = items.last() else { return Ok(paths) };
        cursor = (last.order.clone(), last.id);
        for item in items {
            let is_new = item.given.as_ref().is_none_or(|(_, modified)| modified.is_none());
            let work = Work::new(item, &options.template, names);
            if is_new {
                paths.push(work.path);
            }
            if paths.len() == SHOWN {
                return Ok(paths);
            }
        }
    }
}

/// The conversation of an item, for its name.
fn conversation(item: &ExportItem) -> Conversation {
    Conversation { sent_ms: item.conversation_sent_ms, subject: item.conversation_subject.clone() }
}
