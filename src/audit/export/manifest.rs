//! What an export says of its files: a line for each in JSON Lines and in CSV, and sums that `sha256sum -c` reads.
//!
//! A run appends its lines to `.jellyjar-export/progress.jsonl`, each once its file is durable. The end of a run merges
//! them with the manifest, in the order of their paths, so that one catalog always gives the same
//! manifest.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ExportError;
use super::destination::Destination;
use crate::catalog::{Catalog, ExportItem};
use crate::digest::{Digest, Hasher};
use crate::store::blob_key;

/// The lines of a run, inside `.jellyjar-export/`.
pub(super) const PROGRESS: &str = "progress.jsonl";
const JSON: &str = "manifest.jsonl";
const CSV: &str = "manifest.csv";
const SUMS: &str = "SHA256SUMS";

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

    const COLUMNS: [&str; 17] = [
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

    fn cells(&self) -> [String; 17] {
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

fn write_json(to: &mut impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")
}

/// Merges the lines of the run with the manifest. Gives the digest of `SHA256SUMS`, which fixes all the rest.
pub(super) async fn write_manifest(
    destination: &std::sync::Arc<Destination>,
    catalog: &Catalog,
    root: &Path,
) -> Result<Digest, ExportError> {
    let mut progress = LineReader::progress(root)?;
    loop {
        let (lines, reader) = blocking(move || Ok((progress.next_batch(2000)?, progress))).await?;
        progress = reader;
        if lines.is_empty() {
            break;
        }
        let places: Vec<_> = lines.into_iter().map(|(line, offset)| (line.path, offset)).collect();
        catalog.remember_lines(&places).await?;
    }
    let mut merger = Merger::open(destination, root)?;
    let mut after = String::new();
    loop {
        let page = catalog.lines_after(&after, 2000).await?;
        let Some((last, _)) = page.last() else { break };
        after.clone_from(last);
        merger = blocking(move || {
            for (path, offset) in &page {
                merger.take(path, *offset)?;
            }
            Ok(merger)
        })
        .await?;
    }
    let destination = std::sync::Arc::clone(destination);
    blocking(move || merger.finish(&destination)).await
}

/// Runs file work on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ExportError> + Send + 'static,
) -> Result<T, ExportError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ExportError::Thread)?
}

/// The lines of the run between those of the manifest before.
struct Merger {
    before: LineReader,
    next: Option<Line>,
    progress: Option<File>,
    progress_path: PathBuf,
    json: Hashed,
    csv: csv::Writer<Hashed>,
    sums: Hashed,
}

impl Merger {
    fn open(destination: &Destination, root: &Path) -> Result<Self, ExportError> {
        let mut before = LineReader::manifest(root)?;
        let next = before.next()?.map(|(line, _)| line);
        let progress_path = destination.own(PROGRESS);
        let progress = File::open(&progress_path).ok();
        let json = Hashed::create(destination.own(JSON))?;
        let mut csv = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .from_writer(Hashed::create(destination.own(CSV))?);
        csv.write_record(Line::COLUMNS).map_err(csv_error(destination))?;
        let sums = Hashed::create(destination.own(SUMS))?;
        Ok(Self { before, next, progress, progress_path, json, csv, sums })
    }

    /// Takes a line of the run, after all lines of the manifest with lesser paths. It replaces one of the same path.
    fn take(&mut self, path: &str, offset: u64) -> Result<(), ExportError> {
        while let Some(line) = self.next.take_if(|line| line.path.as_str() < path) {
            self.write(&line)?;
            self.next = self.before.next()?.map(|(line, _)| line);
        }
        if self.next.as_ref().is_some_and(|line| line.path == path) {
            self.next = self.before.next()?.map(|(line, _)| line);
        }
        let io = |error| ExportError::io("read", &self.progress_path)(error);
        let file = self.progress.as_mut().ok_or_else(|| io(io::ErrorKind::NotFound.into()))?;
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        let mut text = Vec::new();
        BufReader::with_capacity(2048, file.take(u64::MAX)).read_until(b'\n', &mut text).map_err(io)?;
        let line = serde_json::from_slice(&text).map_err(|error| io(error.into()))?;
        self.write(&line)
    }

    fn write(&mut self, line: &Line) -> Result<(), ExportError> {
        write_json(&mut self.json, line).map_err(ExportError::io("write", &self.json.path))?;
        let wrong = |error: csv::Error| ExportError::io("write", Path::new(CSV))(error.into());
        self.csv.write_record(line.cells()).map_err(wrong)?;
        if line.status == Status::Exported {
            self.sum(line.sha256, &line.path)?;
        }
        Ok(())
    }

    fn sum(&mut self, digest: Digest, path: &str) -> Result<(), ExportError> {
        // No path needs escaping: none has a backslash or a line break.
        writeln!(self.sums, "{digest}  {path}").map_err(ExportError::io("write", &self.sums.path))
    }

    /// Writes the rest and names the files: first the manifest, last the lines of the run go. A crash in between is
    /// mended by the next run, which merges them again.
    fn finish(mut self, destination: &Destination) -> Result<Digest, ExportError> {
        while let Some(line) = self.next.take() {
            self.write(&line)?;
            self.next = self.before.next()?.map(|(line, _)| line);
        }
        let csv = self
            .csv
            .into_inner()
            .map_err(|error| ExportError::io("write", &destination.own(CSV))(io::Error::other(error.to_string())))?;
        let (csv, json) = (csv.finish()?, self.json.finish()?);
        for (digest, name) in [(csv, CSV), (json, JSON)] {
            writeln!(self.sums, "{digest}  {name}").map_err(ExportError::io("write", &self.sums.path))?;
        }
        let sums = self.sums.finish()?;
        let paths = [JSON, CSV, SUMS].map(|name| (destination.own(name), destination.path(name)));
        destination.sync(paths.iter().map(|(from, _)| from.as_path()))?;
        for (from, to) in &paths {
            std::fs::rename(from, to).map_err(ExportError::io("name", to))?;
        }
        let progress = destination.own(PROGRESS);
        destination.sync([progress.parent().unwrap_or(&progress), &destination.path("")])?;
        match std::fs::remove_file(&progress) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ExportError::io("remove", &progress)(error)),
            _ => Ok(sums),
        }
    }
}

fn csv_error(destination: &Destination) -> impl Fn(csv::Error) -> ExportError {
    let path = destination.own(CSV);
    move |error| ExportError::io("write", &path)(error.into())
}

/// A file that is hashed while it is written.
struct Hashed {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Hasher,
}

impl Hashed {
    fn create(path: PathBuf) -> Result<Self, ExportError> {
        let file = File::create(&path).map_err(ExportError::io("make", &path))?;
        Ok(Self { path, file: BufWriter::with_capacity(128 << 10, file), hasher: Hasher::default() })
    }

    fn finish(mut self) -> Result<Digest, ExportError> {
        self.file.flush().map_err(ExportError::io("write", &self.path))?;
        Ok(self.hasher.finish())
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
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
