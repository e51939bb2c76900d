//! The order of syncs, proved from what strace saw of the real program. A kill cannot show a sync that is missing, since
//! the system keeps what was written; a power cut would.
//!
//! For every outcome line: its blob's bytes were synced before they were named, the name (and every new folder above it)
//! and the message segment that carries the attachment were synced before the outcome segment was. For every
//! transaction of the catalog, whose files are rebuilt from the traced writes as they were at each of its syncs: what it
//! says of segments, messages, outcomes and blobs was synced before its first byte was written. The intent of a blob is
//! synced before the blob is made, and a lease before its attachment is asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use jellyjar::sim::Faults;

use super::catalog::{self, Snapshot};
use super::oracle::Archive;
use super::random::Random;
use super::steps::{SINGLE, SMALL, WHOLE, choose, places, traced};
use super::trace::{self, Call};
use super::world::{Settings, World};
use super::{Options, files};

/// Enough of each string to see a whole page of the catalog.
const STRING_BYTES: u32 = 5_000;

/// What was proved.
#[derive(Debug, Default)]
pub(crate) struct Proved {
    runs: u64,
    outcomes: u64,
    blobs: u64,
    transactions: u64,
    exchanges: u64,
}

impl Proved {
    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let Self { runs, outcomes, blobs, transactions, exchanges } = self;
        format!(
            "{runs} runs, {outcomes} outcome lines, {blobs} blobs, {transactions} transactions, {exchanges} exchanges: \
             every sync in order"
        )
    }
}

/// Traces whole runs and recoveries, and checks the order of their syncs.
pub(crate) fn run(options: &Options) -> Result<Proved> {
    let world = World::start(&options.dir.join("order"), &options.program, options.seed, SMALL)?;
    let mut random = Random::new(options.seed, 0x0_4de4);
    let mut proved = Proved::default();
    for settings in [SINGLE, WHOLE] {
        world.begin(settings, Faults::none())?;
        check_run(&world, &mut proved).with_context(|| format!("a whole run with {settings:?}"))?;
        // A process that died before it synced names leaves them to whoever comes next.
        world.begin(settings, Faults::none())?;
        let places = places(&traced(&world, &[])?.1);
        for step in ["sync a message segment (folder)", "sync an outcome segment (folder)", "sync a blob (folder)"] {
            let steps = places.get(step).or_else(|| places.get("sync everything written so far (syncfs)"));
            for (call, place) in choose(steps.context("a step that no run takes")?, 1, &mut random) {
                for keep_catalog in [true, false] {
                    let case = || format!("a recovery with {settings:?} from a kill at {call} {place} ({step:?})");
                    recover(&world, settings, &call, place, keep_catalog, &mut proved).with_context(case)?;
                }
            }
        }
    }
    Ok(proved)
}

fn recover(
    world: &World,
    settings: Settings,
    call: &str,
    place: usize,
    keep_catalog: bool,
    proved: &mut Proved,
) -> Result<()> {
    world.begin(settings, Faults::none())?;
    traced(world, &[format!("{call}:signal=SIGKILL:when={place}")])?;
    if !keep_catalog {
        world.delete_catalog()?;
    }
    check_run(world, proved)
}

/// Runs the program to its end under strace and checks everything.
fn check_run(world: &World, proved: &mut Proved) -> Result<()> {
    let home = world.archive().join(".jellyjar");
    let before = CatalogFiles::read(&home)?;
    let known = world.runtime.block_on(catalog::read(&home, &world.folder.join("catalog-copy")))?;
    let log = trace::log_path(&world.folder);
    let ran = world.run(&trace::tracer(&log, STRING_BYTES, &[]))?;
    anyhow::ensure!(ran.status.success(), "the run failed: {}{}", ran.stdout, ran.stderr);
    let calls = trace::read(&log, &world.folder)?;
    let disk = Disk::new(&calls);
    let commits = commits(world, &calls, before)?;
    let archive = Archive::read(&world.archive(), &mut HashSet::new())?;
    let mut check = Check { disk: &disk, archive: &archive, known: &known, commits: &commits, findings: Vec::new() };
    check.outcomes(proved);
    check.blobs(proved);
    check.transactions(proved);
    check.exchanges(&calls, proved);
    proved.runs += 1;
    match check.findings.as_slice() {
        [] => Ok(()),
        findings => {
            let shown: Vec<&str> = findings.iter().take(10).map(String::as_str).collect();
            bail!("{} syncs out of order:\n  {}", findings.len(), shown.join("\n  "))
        }
    }
}

/// When something began and ended, as lines of the log.
#[derive(Debug, Clone, Copy)]
struct Span {
    begin: usize,
    end: usize,
}

/// What happened to files, by path.
#[derive(Debug, Default)]
struct Disk {
    made: HashMap<String, Span>,
    written: HashMap<String, Vec<Span>>,
    /// Syncs of one file or folder.
    synced: HashMap<String, Vec<Span>>,
    /// Syncs of everything.
    synced_all: Vec<Span>,
    /// Names given: the new name, with the old one.
    named: BTreeMap<String, (String, Span)>,
    folders: HashMap<String, Span>,
}

impl Disk {
    fn new(calls: &[Call]) -> Self {
        let mut disk = Self::default();
        for call in calls {
            let span = Span { begin: call.begin, end: call.end };
            // A folder that was there already may be one that a dead process made and did not sync.
            let is_folder = call.is(&["mkdir", "mkdirat"]);
            if !call.succeeded() && !is_folder {
                continue;
            }
            match call.name.as_str() {
                "openat" if call.arguments.contains("O_CREAT") => drop(disk.made.insert(call.text(0), span)),
                "write" | "writev" | "pwrite64" | "ftruncate" => {
                    disk.written.entry(call.descriptor_path().into()).or_default().push(span);
                }
                "fsync" | "fdatasync" => disk.synced.entry(call.descriptor_path().into()).or_default().push(span),
                "syncfs" => disk.synced_all.push(span),
                "rename" | "renameat" | "renameat2" | "link" | "linkat" => {
                    disk.named.insert(call.text(1), (call.text(0), span));
                }
                "mkdir" | "mkdirat" => drop(disk.folders.entry(call.text(0)).or_insert(span)),
                _ => {}
            }
        }
        disk
    }

    /// The end of the first sync of `path` that began after `line`.
    fn synced_after(&self, path: &str, line: Option<usize>) -> Option<usize> {
        let single = self.synced.get(path).into_iter().flatten();
        let later = single.chain(&self.synced_all).filter(|sync| line.is_none_or(|line| sync.begin > line));
        later.map(|sync| sync.end).min()
    }

    /// When the name at `path`, and the names of the folders above it that were made, were synced. Of a name that was
    /// there before the run, its folder alone: nothing is ever named in a folder that is not durable itself.
    fn name_synced(&self, path: &str) -> Option<usize> {
        let (mut path, mut given) = (path, self.named.get(path).map(|(_, span)| span.end));
        if given.is_none() {
            return self.synced_after(path.rsplit_once('/')?.0, None);
        }
        let mut latest = 0;
        loop {
            let parent = path.rsplit_once('/').map(|(parent, _)| parent)?;
            latest = latest.max(self.synced_after(parent, given)?);
            match self.folders.get(parent) {
                Some(made) if parent != "archive" => (path, given) = (parent, Some(made.end)),
                _ => return Some(latest),
            }
        }
    }

    /// Whether all that was written to the file that became `path` was synced before it got that name.
    fn content_synced_before_name(&self, path: &str) -> bool {
        let Some((from, named)) = self.named.get(path) else { return false };
        let writes = self.written.get(from).into_iter().flatten().filter(|write| write.begin < named.begin);
        let made = self.made.get(from).into_iter();
        let last = writes.chain(made).map(|write| write.end).max();
        last.is_some() && self.synced_after(from, last).is_some_and(|synced| synced < named.begin)
    }
}

/// The bytes of the catalog's two files.
#[derive(Debug, Default, Clone)]
struct CatalogFiles(BTreeMap<String, Vec<u8>>);

impl CatalogFiles {
    fn read(home: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        for name in ["catalog.sqlite", "catalog.sqlite-wal"] {
            if home.join(name).exists() {
                files.insert(name.to_owned(), fs::read(home.join(name))?);
            }
        }
        Ok(Self(files))
    }

    fn apply(&mut self, call: &Call) -> Result<()> {
        let path = if call.is(&["unlink"]) { call.text(0) } else { call.descriptor_path().to_owned() };
        let Some(name) = path.strip_prefix("archive/.jellyjar/").filter(|name| name.starts_with("catalog.sqlite"))
        else {
            return Ok(());
        };
        let numbers: Vec<&str> = call.arguments.rsplit(", ").collect();
        let number = |index: usize| numbers.get(index).and_then(|number| number.parse::<usize>().ok());
        match call.name.as_str() {
            "pwrite64" => {
                let bytes = call.strings().swap_remove(0);
                let (offset, length) = (number(0).context("no offset")?, number(1).context("no length")?);
                anyhow::ensure!(bytes.len() == length, "a write to {name} is not shown whole");
                let file = self.0.entry(name.into()).or_default();
                if file.len() < offset + length {
                    file.resize(offset + length, 0);
                }
                file[offset..offset + length].copy_from_slice(&bytes);
            }
            "ftruncate" => self.0.entry(name.into()).or_default().resize(number(0).context("no length")?, 0),
            "unlink" => drop(self.0.remove(name)),
            "write" | "writev" => bail!("{name} is written by {}", call.name),
            _ => {}
        }
        Ok(())
    }
}

/// What the catalog said once its log was synced.
#[derive(Debug)]
struct Commit {
    /// When the first byte of it was written.
    begin: usize,
    /// When it was synced.
    end: usize,
    snapshot: Snapshot,
}

/// Rebuilds the catalog as it was at each sync of its log.
fn commits(world: &World, calls: &[Call], mut files: CatalogFiles) -> Result<Vec<Commit>> {
    const LOG: &str = "archive/.jellyjar/catalog.sqlite-wal";
    let (rebuilt, copy) = (world.folder.join("catalog-rebuilt"), world.folder.join("catalog-copy"));
    let mut commits = Vec::new();
    let mut begin = None;
    for call in calls.iter().filter(|call| call.succeeded()) {
        files.apply(call)?;
        if call.descriptor_path() != LOG {
            continue;
        }
        if call.is(&["pwrite64"]) {
            begin = begin.or(Some(call.begin));
        } else if call.is(&["fsync", "fdatasync"])
            && let Some(begin) = begin.take()
        {
            files::replace_folder(&rebuilt, &files.0)?;
            let snapshot = world.runtime.block_on(catalog::read(&rebuilt, &copy)).context("a rebuilt catalog")?;
            commits.push(Commit { begin, end: call.end, snapshot });
        }
    }
    Ok(commits)
}

/// One traced run and what is known about it.
struct Check<'a> {
    disk: &'a Disk,
    archive: &'a Archive,
    /// What the catalog said before the run.
    known: &'a Snapshot,
    commits: &'a [Commit],
    findings: Vec<String>,
}

impl Check<'_> {
    fn expect(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.findings.push(text());
        }
    }

    /// Every outcome segment of this run: what it cites was durable before it was synced.
    fn outcomes(&mut self, proved: &mut Proved) {
        let (disk, archive) = (self.disk, self.archive);
        for (key, line) in &archive.outcomes {
            let path = format!("archive/{key}");
            let Some((from, _)) = disk.named.get(&path) else { continue };
            let synced = disk.synced.get(from).and_then(|syncs| syncs.first()).map_or(0, |sync| sync.begin);
            let id = line["attachment_id"].as_str().unwrap_or_default();
            let text = |what: &str| format!("{key}: {what}, for {id}");
            self.expect(disk.content_synced_before_name(&path), || text("named before its lines were synced"));
            self.expect(disk.name_synced(&path).is_some(), || text("its name was never synced"));
            let carried = archive.carried.get(id).into_iter().flatten().any(|message| {
                let message = format!("archive/{message}");
                let whole = !disk.named.contains_key(&message) || disk.content_synced_before_name(&message);
                let was_known = self.known.segments.iter().any(|known| message.ends_with(known));
                whole && (was_known || disk.name_synced(&message).is_some_and(|line| line < synced))
            });
            self.expect(carried, || text("the message segment was not durable before"));
            if let Some(digest) = line["sha256"].as_str() {
                let held =
                    self.known.durable.iter().any(|known| known == digest) || self.blob_durable_by(digest, synced);
                self.expect(held, || text("the blob was not durable before"));
            }
            proved.outcomes += 1;
        }
    }

    /// Whether a blob's bytes and name were synced by this run before `line`.
    fn blob_durable_by(&self, digest: &str, line: usize) -> bool {
        let path = blob_path(digest);
        let content = if self.disk.named.contains_key(&path) {
            self.disk.content_synced_before_name(&path)
        } else {
            // It was there: then it was read, and synced by its own name.
            self.disk.synced_after(&path, None).is_some_and(|synced| synced < line)
        };
        content && self.disk.name_synced(&path).is_some_and(|synced| synced < line)
    }

    /// Every blob that was named: its intent was synced before.
    fn blobs(&mut self, proved: &mut Proved) {
        let disk = self.disk;
        for (path, (from, named)) in &disk.named {
            let Some(digest) = path.strip_prefix("archive/blobs/sha256/").and_then(|key| key.split('/').nth(1)) else {
                continue;
            };
            let intended = if self.known.intended.iter().any(|known| known == digest) {
                Some(0)
            } else {
                let first = self.commits.iter().find(|commit| commit.snapshot.intended.iter().any(|one| one == digest));
                first.map(|commit| commit.end)
            };
            // A download's file is made before anyone knows its digest; the put begins with its sync or its name.
            let put = if trace::kind_of(from) == "blob" { disk.made.get(from).map(|made| made.begin) } else { None };
            let put = put.unwrap_or(named.begin);
            self.expect(intended.is_some_and(|line| line < put), || {
                format!("{path}: put before its intent was synced")
            });
            self.expect(disk.content_synced_before_name(path), || {
                format!("{path}: named before its bytes were synced")
            });
            proved.blobs += 1;
        }
    }

    /// Every transaction: what it says was durable before its first byte was written.
    fn transactions(&mut self, proved: &mut Proved) {
        let (disk, archive) = (self.disk, self.archive);
        let mut said = Said::of(self.known);
        let mut archived_in: HashMap<&str, Vec<&str>> = HashMap::new();
        for (key, line) in archive.outcomes.iter().filter(|(_, line)| line["kind"] == "archived") {
            archived_in.entry(line["attachment_id"].as_str().unwrap_or_default()).or_default().push(key);
        }
        for commit in self.commits {
            let durable = |key: &str| {
                let path = format!("archive/{key}");
                let whole = !disk.named.contains_key(&path) || disk.content_synced_before_name(&path);
                whole && disk.name_synced(&path).is_some_and(|line| line < commit.begin)
            };
            let now = Said::of(&commit.snapshot);
            for key in now.segments.difference(&said.segments) {
                self.expect(durable(key), || format!("the catalog knew {key} before it was durable"));
            }
            for id in now.archived.difference(&said.archived) {
                let written = archived_in.get(id.as_str()).into_iter().flatten().any(|key| durable(key));
                self.expect(written, || format!("the catalog had {id} archived before its outcome line was durable"));
            }
            for id in now.attachments.difference(&said.attachments) {
                let carried = archive.carried.get(id).into_iter().flatten().any(|key| durable(key));
                self.expect(carried, || format!("the catalog knew {id} before its message line was durable"));
            }
            for digest in now.durable.difference(&said.durable) {
                let holds = self.blob_durable_by(digest, commit.begin);
                self.expect(holds, || format!("the catalog had blob {digest} durable before it was"));
            }
            said = now;
            proved.transactions += 1;
        }
    }

    /// Every exchange: its lease was synced before it was asked for.
    fn exchanges(&mut self, calls: &[Call], proved: &mut Proved) {
        let mut granted: HashMap<&str, usize> = HashMap::new();
        for commit in self.commits {
            for (id, _) in &commit.snapshot.leases {
                granted.entry(id).or_insert(commit.end);
            }
        }
        for call in calls.iter().filter(|call| call.is(&["writev", "write", "sendto"])) {
            let Some((_, target)) = call.arguments.split_once("GET /api/attachments/") else { continue };
            let id = target.split(' ').next().unwrap_or_default().replace("%3D", "=");
            let lease = granted.get(id.as_str());
            self.expect(lease.is_some_and(|line| *line < call.begin), || format!("{id} was asked for without a lease"));
            proved.exchanges += 1;
        }
    }
}

fn blob_path(digest: &str) -> String {
    format!("archive/blobs/sha256/{}/{digest}", digest.get(..2).unwrap_or_default())
}

/// What a catalog says, as sets.
struct Said {
    segments: BTreeSet<String>,
    attachments: BTreeSet<String>,
    archived: BTreeSet<String>,
    durable: BTreeSet<String>,
}

impl Said {
    fn of(snapshot: &Snapshot) -> Self {
        let set = |names: &[String]| names.iter().cloned().collect();
        Self {
            segments: set(&snapshot.segments),
            attachments: set(&snapshot.attachments),
            archived: set(&snapshot.archived),
            durable: set(&snapshot.durable),
        }
    }
}
