//! The judge: reads an archive with nothing of the program's own code, and says what is wrong with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::catalog::Snapshot;
use super::world::{Truth, hex};

/// In which way an archive is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Something that was accepted has no place, or what it needs is gone.
    Lost,
    /// Something was done more often than crashes explain.
    Twice,
    /// Something is there and is not what it should be.
    Corrupt,
}

/// What is wrong, in a sentence.
pub(crate) type Finding = (Kind, String);

/// One segment of the journal.
#[derive(Debug)]
struct Segment {
    sha256: String,
    seq: u64,
    previous: Option<String>,
}

/// An archive as it lies on the disk.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    /// Outcome lines, with the key of their segment, in the order of keys.
    pub(crate) outcomes: Vec<(String, Value)>,
    /// The ids of attachments, each with the keys of the segments whose message lines carry it.
    pub(crate) carried: BTreeMap<String, BTreeSet<String>>,
    /// Blob files: name and size.
    pub(crate) blobs: BTreeMap<String, u64>,
    chains: BTreeMap<(String, String), Vec<Segment>>,
    /// What is wrong with the files as such.
    pub(crate) findings: Vec<Finding>,
}

/// Everything below `folder`, as paths relative to `root`.
pub(crate) fn files_below(root: &Path, folder: &str) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path().strip_prefix(root)?.to_str().context("a name that is not UTF-8")?.to_owned());
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

impl Archive {
    /// Reads everything. Blobs whose names are in `hashed` are not read again; the others are hashed and added.
    pub(crate) fn read(root: &Path, hashed: &mut HashSet<String>) -> Result<Self> {
        let mut archive = Self::default();
        let mut outcomes = Vec::new();
        archive.read_stream(root, "messages", &mut |archive, key, line| {
            for attachment in line["attachments"].as_array().into_iter().flatten() {
                let id = attachment["id"].as_str().unwrap_or_default();
                archive.carried.entry(id.to_owned()).or_default().insert(key.to_owned());
            }
        })?;
        archive.read_stream(root, "outcomes", &mut |_, key, line| outcomes.push((key.to_owned(), line)))?;
        archive.outcomes = outcomes;
        archive.check_chains(root);
        for key in files_below(root, "blobs")? {
            let name = key.rsplit('/').next().unwrap_or_default().to_owned();
            let path = root.join(&key);
            archive.blobs.insert(name.clone(), fs::metadata(&path)?.len());
            if key != format!("blobs/sha256/{}/{name}", name.get(..2).unwrap_or_default()) {
                archive.corrupt(format!("{key} is in the wrong place"));
            }
            if !hashed.contains(&name) {
                if hex(&Sha256::digest(fs::read(&path)?)) == name {
                    hashed.insert(name);
                } else {
                    archive.corrupt(format!("{key} does not hash to its name"));
                }
            }
        }
        let known = ["jellyjar.json", "blobs", "messages", "outcomes", "payloads", "writers", ".jellyjar"];
        for entry in fs::read_dir(root).into_iter().flatten() {
            let name = entry?.file_name();
            if !known.iter().any(|known| name == *known) {
                archive.corrupt(format!("{} has no place in an archive", name.display()));
            }
        }
        Ok(archive)
    }

    fn corrupt(&mut self, text: String) {
        self.findings.push((Kind::Corrupt, text));
    }

    fn read_stream(&mut self, root: &Path, stream: &str, take: &mut dyn FnMut(&mut Self, &str, Value)) -> Result<()> {
        for key in files_below(root, stream)? {
            let bytes = fs::read(root.join(&key))?;
            let mut lines = Vec::new();
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                match serde_json::from_slice::<Value>(line) {
                    Ok(value) if line.ends_with(b"\n") => lines.push(value),
                    _ => self.corrupt(format!("{key}: line {} is no whole line of JSON", lines.len() + 1)),
                }
            }
            let mut lines = lines.into_iter();
            let header = lines.next().unwrap_or_default();
            let text = |name: &str| header[name].as_str().map(str::to_owned);
            if text("kind").as_deref() != Some("segment") || header["v"] != 1 || header["stream"] != stream {
                self.corrupt(format!("{key}: {header} is no header of {stream}"));
            }
            let segment = Segment {
                sha256: hex(&Sha256::digest(&bytes)),
                seq: header["seq"].as_u64().unwrap_or(u64::MAX),
                previous: text("previous_sha256"),
            };
            self.chains.entry((text("writer_id").unwrap_or_default(), stream.to_owned())).or_default().push(segment);
            for line in lines {
                take(self, &key, line);
            }
        }
        Ok(())
    }

    /// Each writer's segments of a stream follow each other without a gap, and none is behind the writer's own record.
    fn check_chains(&mut self, root: &Path) {
        let mut findings = Vec::new();
        for ((writer, stream), chain) in &mut self.chains {
            chain.sort_by_key(|segment| segment.seq);
            let mut previous = None;
            for (place, segment) in chain.iter().enumerate() {
                if segment.seq != place as u64 || segment.previous != previous {
                    findings.push((Kind::Lost, format!("{stream} of {writer}: the chain breaks at segment {place}")));
                    break;
                }
                previous = Some(segment.sha256.clone());
            }
            let record = match fs::read(root.join(format!("writers/{writer}.json"))) {
                Ok(text) => serde_json::from_slice(&text).unwrap_or(Value::Null),
                Err(_) => Value::Null,
            };
            if record["writer_id"] != writer.as_str() {
                findings.push((Kind::Lost, format!("writers/{writer}.json is missing or damaged")));
            } else if let Some(end) = record[stream.as_str()]["seq"].as_u64() {
                let there = usize::try_from(end).ok().and_then(|end| chain.get(end));
                if there.is_none_or(|segment| record[stream.as_str()]["sha256"] != segment.sha256.as_str()) {
                    findings.push((Kind::Lost, format!("{stream} of {writer}: segment {end} is recorded and gone")));
                }
            }
        }
        self.findings.append(&mut findings);
    }

    /// What holds at every moment, whatever was killed: every line cites what is there, and the truth.
    pub(crate) fn check_any_moment(&self, truth: &BTreeMap<String, Truth>, catalog: Option<&Snapshot>) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        let mut say = |kind, text| findings.push((kind, text));
        let mut archived = HashSet::new();
        for (key, line) in &self.outcomes {
            let id = line["attachment_id"].as_str().unwrap_or_default();
            if !self.carried.contains_key(id) {
                say(Kind::Lost, format!("{key}: no message line carries {id}"));
            }
            match (line["kind"].as_str(), truth.get(id)) {
                (Some("archived"), Some(Truth::Bytes { sha256, size_bytes })) => {
                    archived.insert(id);
                    if line["sha256"] != sha256.as_str() || line["size_bytes"] != *size_bytes {
                        say(Kind::Corrupt, format!("{key}: {line} cites other bytes than {sha256}"));
                    }
                    match self.blobs.get(sha256) {
                        None => say(Kind::Lost, format!("{key}: the blob {sha256} is not there")),
                        Some(size) if size != size_bytes => {
                            say(Kind::Corrupt, format!("the blob {sha256} has {size} bytes, not {size_bytes}"));
                        }
                        Some(_) => {}
                    }
                }
                // One that is inline here may come without being inline later: then it is archived after all.
                (Some("skipped"), Some(_)) => {}
                _ => say(Kind::Corrupt, format!("{key}: {line} should not be")),
            }
        }
        for id in catalog.iter().flat_map(|catalog| &catalog.archived) {
            if !archived.contains(id.as_str()) {
                say(Kind::Lost, format!("the catalog has {id} archived, and the journal does not"));
            }
        }
        for digest in catalog.iter().flat_map(|catalog| &catalog.durable) {
            if !self.blobs.contains_key(digest) {
                say(Kind::Lost, format!("the catalog has blob {digest} durable, and it is not there"));
            }
        }
        findings
    }

    /// What holds at the end of a run that says that all is done: every attachment has its place in the journal
    /// alone, no more bytes than the truth are stored, and nothing temporary is left.
    pub(crate) fn check_end(
        &self,
        home: &Path,
        truth: &BTreeMap<String, Truth>,
        exchanges: &HashMap<String, u32>,
        leased: &HashMap<String, u32>,
    ) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let mut say = |kind, text| findings.push((kind, text));
        let mut lines: HashMap<(&str, &str), u32> = HashMap::new();
        for (_, line) in &self.outcomes {
            let text = |name: &str| line[name].as_str().unwrap_or_default();
            *lines.entry((text("attachment_id"), text("kind"))).or_default() += 1;
        }
        for (id, truth) in truth {
            if !self.carried.contains_key(id) {
                say(Kind::Lost, format!("no message line carries {id}"));
            }
            let wanted = if *truth == Truth::Inline { "skipped" } else { "archived" };
            let written = lines.get(&(id.as_str(), wanted)).copied().unwrap_or(0);
            if written == 0 {
                say(Kind::Lost, format!("{id} ({truth:?}) has no outcome line {wanted:?}"));
            }
            if *truth == Truth::Inline {
                continue;
            }
            let allowed = 1 + leased.get(id).copied().unwrap_or(0);
            let asked = exchanges.get(id).copied().unwrap_or(0);
            if asked > allowed {
                say(Kind::Twice, format!("{id} was exchanged {asked} times; {allowed} are explained"));
            }
            if written > allowed {
                say(Kind::Twice, format!("{id} has {written} outcome lines \"archived\"; {allowed} are explained"));
            }
        }
        let wanted: BTreeSet<&String> = truth
            .values()
            .filter_map(|truth| if let Truth::Bytes { sha256, .. } = truth { Some(sha256) } else { None })
            .collect();
        for stranger in self.blobs.keys().filter(|name| !wanted.contains(name)) {
            say(Kind::Corrupt, format!("the blob {stranger} is nobody's"));
        }
        for key in files_below(home, "")? {
            let name = key.rsplit('/').next().unwrap_or_default();
            if key.starts_with("spool/") || name.starts_with("put-") {
                say(Kind::Corrupt, format!("{key} was left behind"));
            }
        }
        Ok(findings)
    }
}

/// What a receipt has to say at the end of a run that completes a life.
pub(crate) fn check_receipt(receipt: &Value, truth: &BTreeMap<String, Truth>) -> Vec<Finding> {
    let count = |name: &str| receipt[name].as_u64().unwrap_or(u64::MAX);
    let inline = truth.values().filter(|truth| **truth == Truth::Inline).count() as u64;
    let all = truth.len() as u64;
    let right = receipt["ok"] == true
        && receipt["adds_up"] == true
        && count("attachments") == all
        && count("skipped") == inline
        && count("archived").saturating_add(count("known")) == all - inline
        && ["failed", "quarantined", "erased", "pending", "rejected"].iter().all(|name| count(name) == 0);
    if right {
        Vec::new()
    } else {
        vec![(Kind::Lost, format!("{all} attachments, {inline} inline; receipt {receipt}"))]
    }
}
