//! The end of a run: its lines and those of the manifest before become the manifest, and the sums that prove it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ExportError;
use super::destination::Destination;
use super::manifest::{JSON, Line, LineReader, PROGRESS, Status, blocking, write_json};
use crate::catalog::Catalog;
use crate::digest::{Digest, Hasher};

const CSV: &str = "manifest.csv";
const SUMS: &str = "SHA256SUMS";

/// Merges the lines of the run with the manifest. Gives the digest of `SHA256SUMS`, which fixes all the rest.
pub(super) async fn write_manifest(
    destination: &Arc<Destination>,
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
    let destination = Arc::clone(destination);
    blocking(move || merger.finish(&destination)).await
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
