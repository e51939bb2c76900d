//! Filling the destination: page by page, each file proven before it has a name, and told in the lines of the run once
//! it is durable.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::{StreamExt as _, TryStreamExt as _};

use super::copy::{Copied, copy};
use super::destination::{Destination, Named, same_time};
use super::manifest::{Line, ProgressWriter, Status, blocking};
use super::names::Names;
use super::{
    ExportError, ExportOptions, ExportProgress, ExportReport, HardLinks, Subject, Template, conversation, sent_ms,
};
use crate::catalog::{ExportItem, Exported};
use crate::digest::Digest;

/// The bytes that are copied between two syncs; a crash costs no more.
const BATCH_BYTES: u64 = 256 << 20;

/// A place and the path it has.
#[derive(Debug)]
pub(super) struct Work {
    item: ExportItem,
    pub(super) path: String,
    /// The name without a number, and where it stands, for when the path is taken.
    folders: String,
    name: String,
}

impl Work {
    /// The place keeps the path it was given; else it gets one.
    pub(super) fn new(item: ExportItem, template: &Template, names: &mut Names) -> Self {
        let (mut folders, name) = template.render(&item.row, sent_ms(&item.row), &conversation(&item));
        if let (Some(folder), true) = (&item.folder, template.has_conversation_folder()) {
            folders.clone_from(folder);
        }
        let path = match &item.given {
            Some((path, _)) => path.clone(),
            None => names.assign(&folders, &name),
        };
        Self { item, path, folders, name }
    }

    fn digest(&self) -> Digest {
        self.item.row.sha256
    }

    /// The time of the file in milliseconds: when the message was sent, else when the bytes were archived.
    fn time_ms(&self) -> i64 {
        sent_ms(&self.item.row).unwrap_or(self.item.row.archived_at_ms)
    }
}

/// What is at the path of a place that was exported before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nothing.
    Absent,
    /// The file, with the time that is known.
    Right,
    /// The right bytes with another time.
    Touched(i64),
    /// Something else.
    Changed,
}

/// What became of one place in this run.
#[derive(Debug, Clone)]
enum Outcome {
    /// The file is there, with this time.
    Done(i64),
    /// It cannot be made.
    Failed(Status, Option<String>),
    /// The run stopped before.
    Stopped,
}

/// A run that fills a destination.
pub(super) struct Fill<'a> {
    subject: &'a Subject,
    options: &'a ExportOptions,
    progress: &'a Arc<ExportProgress>,
    destination: Arc<Destination>,
    names: Names,
    writer: ProgressWriter,
    report: ExportReport,
    /// The number of the next temporary file.
    next: u64,
}

impl<'a> Fill<'a> {
    pub(super) fn new(
        subject: &'a Subject,
        options: &'a ExportOptions,
        progress: &'a Arc<ExportProgress>,
        destination: Arc<Destination>,
        names: Names,
        writer: ProgressWriter,
        report: ExportReport,
    ) -> Self {
        Self { subject, options, progress, destination, names, writer, report, next: 1 }
    }

    /// What was done.
    pub(super) fn end(self) -> ExportReport {
        self.report
    }

    /// Gives every place of a page its file.
    pub(super) async fn page(&mut self, items: Vec<ExportItem>) -> Result<(), ExportError> {
        let works: Vec<Work> =
            items.into_iter().map(|item| Work::new(item, &self.options.template, &mut self.names)).collect();
        let destination = Arc::clone(&self.destination);
        let standings = blocking(move || {
            works
                .into_iter()
                .map(|work| Ok((standing(&destination, &work)?, work)))
                .collect::<Result<Vec<_>, ExportError>>()
        })
        .await?;
        let (mut batch, mut bytes, mut touched) = (Vec::new(), 0, Vec::new());
        for (standing, work) in standings {
            match standing {
                Standing::Right => self.count(1, |report| &mut report.present),
                Standing::Touched(modified_ms) => {
                    self.count(1, |report| &mut report.present);
                    touched.push((work, Outcome::Done(modified_ms)));
                }
                Standing::Changed => {
                    self.count(1, |report| &mut report.changed);
                    let reason = "it was changed since it was exported; move it away to have it exported anew";
                    self.report.tell(&work.path, reason);
                }
                Standing::Absent => {
                    bytes += work.item.row.size_bytes;
                    batch.push(work);
                    if bytes >= BATCH_BYTES {
                        self.batch(std::mem::take(&mut batch)).await?;
                        bytes = 0;
                    }
                }
            }
        }
        self.record(touched).await?;
        self.batch(batch).await
    }

    fn count(&mut self, number: u64, counter: impl Fn(&mut ExportReport) -> &mut u64) {
        *counter(&mut self.report) += number;
        self.report.left -= number;
        self.progress.done.fetch_add(number, Ordering::Relaxed);
    }

    /// Makes the files of these places.
    async fn batch(&mut self, works: Vec<Work>) -> Result<(), ExportError> {
        if works.is_empty() || self.progress.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let sources = self.sources(&works).await?;
        let (mut first, mut further): (Vec<Work>, Vec<Work>) = (Vec::new(), Vec::new());
        let mut met: HashSet<Digest> = sources.keys().copied().collect();
        for work in works {
            let is_first = met.insert(work.digest()) || self.options.links == HardLinks::Never;
            if is_first { first.push(work) } else { further.push(work) }
        }
        let mut done = self.write(first).await?;
        let outcomes = done.iter().map(|(work, outcome)| (work.digest(), (work.path.clone(), outcome.clone())));
        let mut known: HashMap<Digest, (String, Outcome)> = outcomes.collect();
        known.extend(sources.into_iter().map(|(digest, (path, time))| (digest, (path, Outcome::Done(time)))));
        let (mut linked, refused) = self.link(further, known).await?;
        let links = linked.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Done(_))).count();
        self.report.linked += u64::try_from(links).unwrap_or(u64::MAX);
        done.append(&mut linked);
        done.append(&mut self.write(refused).await?);
        let mut recorded = Vec::new();
        for (work, outcome) in done {
            match &outcome {
                Outcome::Stopped => continue,
                Outcome::Done(_) => self.count(1, |report| &mut report.exported),
                Outcome::Failed(status, reason) => {
                    let reason = reason.clone().unwrap_or_else(|| "the archive has no copy of its bytes".into());
                    if *status == Status::Missing {
                        self.count(1, |report| &mut report.missing);
                    } else {
                        self.count(1, |report| &mut report.damaged);
                    }
                    self.report
                        .tell(&work.path, format!("{reason}; run `jellyjar verify --repair`, then export again"));
                    // The manifest says so already.
                    if work.item.given.as_ref().is_some_and(|(_, modified)| modified.is_none()) {
                        continue;
                    }
                }
            }
            recorded.push((work, outcome));
        }
        self.record(recorded).await
    }

    /// Files of the export that have the bytes of these places and are as they were left.
    async fn sources(&self, works: &[Work]) -> Result<HashMap<Digest, (String, i64)>, ExportError> {
        if self.options.links == HardLinks::Never {
            return Ok(HashMap::new());
        }
        let sizes: HashMap<Digest, u64> = works.iter().map(|work| (work.digest(), work.item.row.size_bytes)).collect();
        let digests: Vec<Digest> = sizes.keys().copied().collect();
        let found = self.subject.catalog.exported_with(&digests).await?;
        let destination = Arc::clone(&self.destination);
        blocking(move || {
            let mut sources = HashMap::new();
            for (digest, path, time) in found {
                let there = destination.measure(&path)?;
                let is_right = |(size, modified)| sizes.get(&digest) == Some(&size) && same_time(modified, time);
                if there.is_some_and(is_right) {
                    sources.insert(digest, (path, time));
                }
            }
            Ok(sources)
        })
        .await
    }

    /// Copies, proves, syncs and names files; each outcome is durable but for the names.
    async fn write(&mut self, works: Vec<Work>) -> Result<Vec<(Work, Outcome)>, ExportError> {
        let links = self.options.links;
        let jobs: Vec<_> = works
            .into_iter()
            .map(|work| {
                let number = self.next;
                self.next += 1;
                let (archive, destination) = (Arc::clone(&self.subject.archive), Arc::clone(&self.destination));
                let progress = Arc::clone(self.progress);
                blocking(move || {
                    let temporary = destination.temporary(number);
                    let copied = copy(&archive, work.digest(), &temporary, work.time_ms(), links, &progress)?;
                    Ok((work, number, copied))
                })
            })
            .collect();
        let copied: Vec<_> =
            futures::stream::iter(jobs).buffered(self.options.concurrency.max(1)).try_collect().await?;
        let (mut done, mut proven) = (Vec::new(), Vec::new());
        for (work, number, copied) in copied {
            match copied {
                Copied::Proven { modified_ms, written } => {
                    self.report.bytes_written += written;
                    proven.push((work, number, modified_ms));
                }
                Copied::Damaged(reason) => {
                    let reason = format!("the archive's copy {reason}");
                    done.push((work, Outcome::Failed(Status::Damaged, Some(reason))));
                }
                Copied::Missing => done.push((work, Outcome::Failed(Status::Missing, None))),
                Copied::Stopped => done.push((work, Outcome::Stopped)),
            }
        }
        let destination = Arc::clone(&self.destination);
        proven = blocking(move || {
            if !proven.is_empty() {
                // The bytes before the names: after a loss of power no name stands for half a file.
                let paths: Vec<_> = proven.iter().map(|(_, number, _)| destination.temporary(*number)).collect();
                destination.sync(paths.iter().map(std::path::PathBuf::as_path))?;
            }
            Ok(proven)
        })
        .await?;
        while !proven.is_empty() {
            let destination = Arc::clone(&self.destination);
            let named = blocking(move || {
                let name = |(work, number, modified_ms): (Work, u64, i64)| {
                    let temporary = destination.temporary(number);
                    let mut time = Some(modified_ms);
                    if destination.name(&temporary, &work.path)? != Named::Done {
                        // A run that died before it could tell has left it; or it is somebody else's.
                        time = adopt(&destination, &work)?;
                        if time.is_some() {
                            std::fs::remove_file(&temporary).map_err(ExportError::io("remove", &temporary))?;
                        }
                    }
                    Ok((work, number, modified_ms, time))
                };
                proven.into_iter().map(name).collect::<Result<Vec<_>, ExportError>>()
            })
            .await?;
            proven = Vec::new();
            for (mut work, number, modified_ms, time) in named {
                match time {
                    Some(time) => done.push((work, Outcome::Done(time))),
                    None => {
                        work.path = self.names.assign(&work.folders, &work.name);
                        proven.push((work, number, modified_ms));
                    }
                }
            }
        }
        Ok(done)
    }

    /// Gives known files further names. Gives what was done, and what must be copied after all.
    async fn link(
        &mut self,
        works: Vec<Work>,
        known: HashMap<Digest, (String, Outcome)>,
    ) -> Result<(Vec<(Work, Outcome)>, Vec<Work>), ExportError> {
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        let mut waiting = Vec::new();
        for work in works {
            match known.get(&work.digest()).cloned() {
                Some((path, Outcome::Done(time))) => waiting.push((work, path, time)),
                Some((_, other)) => done.push((work, other)),
                None => refused.push(work),
            }
        }
        while !waiting.is_empty() {
            let destination = Arc::clone(&self.destination);
            let linked = blocking(move || {
                let link = |(work, from, time): (Work, String, i64)| {
                    let mut named = destination.link(&from, &work.path)?;
                    let mut found = time;
                    if named == Named::Taken
                        && let Some(time) = adopt(&destination, &work)?
                    {
                        (named, found) = (Named::Done, time);
                    }
                    Ok((work, from, time, named, found))
                };
                waiting.into_iter().map(link).collect::<Result<Vec<_>, ExportError>>()
            })
            .await?;
            waiting = Vec::new();
            for (mut work, from, time, named, found) in linked {
                match named {
                    Named::Done => done.push((work, Outcome::Done(found))),
                    Named::Refused => refused.push(work),
                    Named::Taken => {
                        work.path = self.names.assign(&work.folders, &work.name);
                        waiting.push((work, from, time));
                    }
                }
            }
        }
        Ok((done, refused))
    }

    /// Makes names durable, then tells of them.
    async fn record(&mut self, done: Vec<(Work, Outcome)>) -> Result<(), ExportError> {
        if done.is_empty() {
            return Ok(());
        }
        let (mut lines, mut exported) = (Vec::new(), Vec::new());
        for (work, outcome) in done {
            let modified_ms = if let Outcome::Done(modified_ms) = outcome { Some(modified_ms) } else { None };
            lines.push(match outcome {
                Outcome::Done(modified_ms) => Line::exported(&work.item, &work.path, modified_ms),
                Outcome::Failed(status, reason) => Line::absent(&work.item, &work.path, status, reason),
                Outcome::Stopped => continue,
            });
            exported.push(Exported { id: work.item.id, path: work.path.clone(), sha256: work.digest(), modified_ms });
        }
        let destination = Arc::clone(&self.destination);
        let folders: std::collections::BTreeSet<_> =
            lines.iter().filter_map(|line| destination.path(&line.path).parent().map(ToOwned::to_owned)).collect();
        blocking(move || destination.sync(folders.iter().filter(|folder| folder.is_dir()).map(AsRef::as_ref))).await?;
        self.writer.append(&lines)?;
        self.subject.catalog.remember_exported(&exported).await?;
        Ok(())
    }
}

/// What is at the path of a place.
fn standing(destination: &Destination, work: &Work) -> Result<Standing, ExportError> {
    let Some((path, Some(time))) = &work.item.given else { return Ok(Standing::Absent) };
    let Some((size, modified)) = destination.measure(path)? else { return Ok(Standing::Absent) };
    if size == work.item.row.size_bytes && same_time(modified, *time) {
        return Ok(Standing::Right);
    }
    let is_right = size == work.item.row.size_bytes && destination.digest(path) == Some(work.digest());
    Ok(if is_right { Standing::Touched(modified) } else { Standing::Changed })
}

/// The time of the file at the path of a place, if it has the right bytes.
fn adopt(destination: &Destination, work: &Work) -> Result<Option<i64>, ExportError> {
    let there = destination.measure(&work.path)?.filter(|(size, _)| *size == work.item.row.size_bytes);
    Ok(there.filter(|_| destination.digest(&work.path) == Some(work.digest())).map(|(_, modified)| modified))
}
