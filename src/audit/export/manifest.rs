//! What an export says of its files: a line for each in JSON Lines and in CSV, and sums that `sha256sum -c` reads.
//!
//! A run appends its lines to `.jellyjar-export/progress.jsonl`, each once its file is durable. The end of a run merges
//! them with the manifest, in the order of their paths, so that one catalog always gives the same
//! manifest.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ExportError;
use super::destination::Destination;
use crate::catalog::ExportItem;
use crate::digest::Digest;
use crate::store::blob_key;

/// The lines of a run, inside `.jellyjar-export/`.
pub(super) const PROGRESS: &str = "progress.jsonl";
pub(super) const JSON: &str = "manifest.jsonl";

/// Whether the file is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Exported,
    Missing,
    Damaged,
}

/// One line of the manifest. Text is as it came; only the path is made safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) path: String,
    pub(super) status: Status,
    pub(super) sha256: Digest,
    pub(super) size_bytes: u64,
    pub(super) name: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) sniffed_type: Option<String>,
    pub(super) sender: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) sent_at: Option<String>,
    pub(super) message_id: Option<String>,
    pub(super) conversation_id: Option<String>,
    pub(super) team: String,
    /// The short id.
    pub(super) attachment: String,
    pub(super) archived_at: Option<Timestamp>,
    pub(super) blob_key: String,
    /// The file's time, by which a later run knows it again.
    pub(super) modified_at: Option<Timestamp>,
    /// Why there is no file.
    pub(super) reason: Option<String>,
    /// What the place is, the same in every run.
    pub(super) place: String,
}

impl Line {
    /// The line of a file that is there.
    pub(super) fn exported(item: &ExportItem, path: &str, modified_ms: i64) -> Self {
        let modified_at = Timestamp::from_millisecond(modified_ms).ok();
        Self { modified_at, ..Self::absent(item, path, Status::Exported, None) }
    }

    /// The line of a file that cannot be made.
    pub(super) fn absent(item: &ExportItem, path: &str, status: Status, reason: Option<String>) -> Self {
        let row = item.row.clone();
        Self {
            path: path.into(),
            status,
            sha256: row.sha256,
            size_bytes: row.size_bytes,
            name: row.name,
            content_type: row.content_type,
            sniffed_type: row.sniffed_type,
            sender: row.sender,
            subject: row.subject,
            sent_at: row.sent_at,
            message_id: row.message_id,
            conversation_id: row.conversation_id,
            team: row.team,
            attachment: row.key.to_string(),
            archived_at: Timestamp::from_millisecond(row.archived_at_ms).ok(),
            blob_key: blob_key(row.sha256),
            modified_at: None,
            reason,
            place: data_encoding::HEXLOWER.encode(&item.id),
        }
    }

    /// What [`Line::place`] stands for.
    pub(super) fn id(&self) -> Option<[u8; 16]> {
        data_encoding::HEXLOWER.decode(self.place.as_bytes()).ok()?.try_into().ok()
    }

    /// The file's time, if there is a file.
    pub(super) fn modified_ms(&self) -> Option<i64> {
        self.modified_at.filter(|_| self.status == Status::Exported).map(Timestamp::as_millisecond)
    }

    pub(super) const COLUMNS: [&str; 17] = [
        "path",
        "status",
        "sha256",
        "size_bytes",
        "name",
        "content_type",
        "sniffed_type",
        "sender",
        "subject",
        "sent_at",
        "message_id",
        "conversation_id",
        "team",
        "attachment",
        "archived_at",
        "blob_key",
        "reason",
    ];

    pub(super) fn cells(&self) -> [String; 17] {
        let text = |text: &Option<String>| text.as_deref().map(cell).unwrap_or_default();
        let status = match self.status {
            Status::Exported => "exported",
            Status::Missing => "missing",
            Status::Damaged => "damaged",
        };
        [
            cell(&self.path),
            status.into(),
            self.sha256.to_hex(),
            self.size_bytes.to_string(),
            text(&self.name),
            text(&self.content_type),
            text(&self.sniffed_type),
            text(&self.sender),
            text(&self.subject),
            text(&self.sent_at),
            text(&self.message_id),
            text(&self.conversation_id),
            cell(&self.team),
            self.attachment.clone(),
            self.archived_at.map(|at| at.to_string()).unwrap_or_default(),
            self.blob_key.clone(),
            text(&self.reason),
        ]
    }
}

/// Text for a cell of a spreadsheet: what would be a formula gets a `'` before it, and control characters become spaces.
fn cell(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Spreadsheets take formulas behind spaces and in full-width signs too.
    if plain.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']) || text.starts_with(['\t', '\r'])
    {
        format!("'{plain}")
    } else {
        plain
    }
}

/// Reads the lines of a manifest from a file; nothing where there is none.
pub(super) struct LineReader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    line: u64,
    offset: u64,
    /// Whether the last line may be torn, as a crash leaves it.
    may_be_torn: bool,
}

impl LineReader {
    /// The manifest that an earlier run has made.
    pub(super) fn manifest(root: &Path) -> Result<Self, ExportError> {
        Self::open(root.join(JSON), false)
    }

    /// The lines of a run that has not ended.
    pub(super) fn progress(root: &Path) -> Result<Self, ExportError> {
        Self::open(root.join(super::destination::HOME).join(PROGRESS), true)
    }

    fn open(path: PathBuf, may_be_torn: bool) -> Result<Self, ExportError> {
        let file = match File::open(&path) {
            Ok(file) => Some(BufReader::with_capacity(256 << 10, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(ExportError::io("open", &path)(error)),
        };
        Ok(Self { path, file, line: 0, offset: 0, may_be_torn })
    }

    /// The next line and the byte at which it begins.
    pub(super) fn next(&mut self) -> Result<Option<(Line, u64)>, ExportError> {
        let Some(file) = &mut self.file else { return Ok(None) };
        let mut text = Vec::new();
        let length = file.read_until(b'\n', &mut text).map_err(ExportError::io("read", &self.path))?;
        if length == 0 || (self.may_be_torn && text.last() != Some(&b'\n')) {
            return Ok(None);
        }
        self.line += 1;
        let at = self.offset;
        self.offset += length as u64;
        match serde_json::from_slice::<Line>(&text) {
            Ok(line) if line.id().is_some() => Ok(Some((line, at))),
            Ok(_) => Err(self.damaged("`place` is no 32 hexadecimal digits".into())),
            Err(error) => Err(self.damaged(error.to_string())),
        }
    }

    /// The next lines, at most `count`.
    pub(super) fn next_batch(&mut self, count: usize) -> Result<Vec<(Line, u64)>, ExportError> {
        let mut lines = Vec::new();
        while lines.len() < count
            && let Some(line) = self.next()?
        {
            lines.push(line);
        }
        Ok(lines)
    }

    fn damaged(&self, reason: String) -> ExportError {
        ExportError::Damaged { path: self.path.clone(), line: self.line, reason }
    }

    /// Where the whole lines end that were read.
    pub(super) fn end(&self) -> u64 {
        self.offset
    }
}

/// Appends lines, each batch durable when it returns.
#[derive(Debug)]
pub(super) struct ProgressWriter {
    path: PathBuf,
    file: File,
}

impl ProgressWriter {
    /// Goes on behind `end`: what stands there is a torn line.
    pub(super) fn open(destination: &Destination, end: u64) -> Result<Self, ExportError> {
        let path = destination.own(PROGRESS);
        let io = |doing| ExportError::io(doing, &path);
        let mut file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io("open"))?;
        file.set_len(end).map_err(io("cut"))?;
        file.seek(SeekFrom::End(0)).map_err(io("read"))?;
        Ok(Self { path, file })
    }

    /// Appends.
    pub(super) fn append(&mut self, lines: &[Line]) -> Result<(), ExportError> {
        let mut text = Vec::new();
        for line in lines {
            write_json(&mut text, line).map_err(ExportError::io("write", &self.path))?;
        }
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        written.map_err(ExportError::io("write", &self.path))
    }
}

pub(super) fn write_json(to: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")
}

/// Runs file work on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExportError> + Send + 'static,
) -> Result<T, ExportError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ExportError::Thread)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " \n=1", "＝1"] {
            assert!(cell(text).starts_with('\''), "{text:?} became {:?}", cell(text));
        }
        assert_eq!(cell("Invoice = paid\n"), "Invoice = paid ");
        assert_eq!(cell("a\u{0}b"), "a b");
    }
}
