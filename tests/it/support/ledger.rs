//! The oracle: reads an archive from its files alone, with nothing of the program's code, and finds what is wrong in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::Receipt;

/// One line of `outcomes/`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) kind: String,
    pub(crate) team: String,
    pub(crate) id: String,
    pub(crate) generation: u64,
    pub(crate) at: String,
    pub(crate) writer_id: String,
    pub(crate) sha256: Option<String>,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) sniffed_type: Option<String>,
    pub(crate) rule: Option<String>,
    pub(crate) reason: Option<String>,
}

impl Outcome {
    fn of(line: &Value) -> Self {
        let text = |key: &str| line[key].as_str().map(str::to_owned);
        Self {
            kind: text("kind").unwrap_or_default(),
            team: text("team").unwrap_or_default(),
            id: text("attachment_id").unwrap_or_default(),
            generation: line["generation"].as_u64().unwrap_or(0),
            at: text("at").unwrap_or_default(),
            writer_id: text("writer_id").unwrap_or_default(),
            sha256: text("sha256"),
            size_bytes: line["size_bytes"].as_u64(),
            sniffed_type: text("sniffed_type"),
            rule: text("rule"),
            reason: text("reason"),
        }
    }

    /// Whether it wins over another outcome of the same attachment.
    fn beats(&self, other: &Self) -> bool {
        let rank = |one: &Self| {
            let place = match one.kind.as_str() {
                "erased" => 2,
                "archived" => 1,
                _ => 0,
            };
            (place, one.generation, one.at.clone(), one.writer_id.clone())
        };
        rank(self) > rank(other)
    }
}

/// What an archive's files say.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Every outcome line, in the order of the segments' names.
    pub(crate) outcomes: Vec<Outcome>,
    /// The outcome that counts, by team and attachment.
    pub(crate) merged: BTreeMap<(String, String), Outcome>,
    /// The attachments that message lines carry, by team and id.
    pub(crate) carried: BTreeSet<(String, String)>,
    /// Message lines.
    pub(crate) messages: Vec<Value>,
    /// The size of each blob file, by the SHA-256 of its bytes.
    pub(crate) blobs: BTreeMap<String, u64>,
    /// The same for the quarantine.
    pub(crate) quarantine: BTreeMap<String, u64>,
    /// What is wrong.
    pub(crate) violations: Vec<String>,
}

impl Ledger {
    /// Reads the archive at `root`, which must be sound.
    pub(crate) fn sound(root: &Path) -> Self {
        let ledger = Self::read(root);
        assert!(ledger.violations.is_empty(), "the archive is not sound:\n{}", ledger.violations.join("\n"));
        ledger
    }

    /// Reads the archive at `root`.
    pub(crate) fn read(root: &Path) -> Self {
        let mut ledger = Self::default();
        let marker: Value = serde_json::from_slice(&std::fs::read(root.join("jellyjar.json")).unwrap()).unwrap();
        assert_eq!(marker["format_version"], 1);
        for key in files(&root.join("messages")) {
            let lines = ledger.lines(&key);
            for line in &lines {
                let team = line["team"].as_str().unwrap_or_default().to_owned();
                for attachment in line["attachments"].as_array().into_iter().flatten() {
                    let id = attachment["id"].as_str().unwrap_or_default().to_owned();
                    ledger.carried.insert((team.clone(), id));
                }
            }
            ledger.messages.extend(lines);
        }
        for key in files(&root.join("outcomes")) {
            let lines = ledger.lines(&key);
            ledger.outcomes.extend(lines.iter().map(Outcome::of));
        }
        ledger.chains(root);
        ledger.blobs = ledger.hashed(&root.join("blobs"));
        ledger.quarantine = ledger.hashed(&root.join("quarantine"));
        for outcome in ledger.outcomes.clone() {
            let key = (outcome.team.clone(), outcome.id.clone());
            if ledger.merged.get(&key).is_none_or(|other| outcome.beats(other)) {
                ledger.merged.insert(key, outcome);
            }
        }
        // What was quarantined and then accepted, or fetched again, has left the quarantine; nothing leaves the blobs.
        for outcome in ledger.outcomes.clone() {
            let counts = ledger.merged.get(&(outcome.team.clone(), outcome.id.clone())) == Some(&outcome);
            if counts || outcome.kind != "quarantined" {
                ledger.judge(&outcome);
            }
        }
        ledger
    }

    /// Checks one outcome against the blobs and the messages.
    fn judge(&mut self, outcome: &Outcome) {
        let mut wrong = |what: &str| self.violations.push(format!("{what}: {outcome:?}"));
        if !self.carried.contains(&(outcome.team.clone(), outcome.id.clone())) {
            wrong("no message line carries this attachment");
        }
        let place = match outcome.kind.as_str() {
            "archived" => &self.blobs,
            "quarantined" => &self.quarantine,
            "skipped" if outcome.rule.is_some() => return,
            "failed" if outcome.reason.is_some() => return,
            "erased" => return,
            _ => return wrong("an outcome of no kind, or without its rule or reason"),
        };
        match (outcome.sha256.as_ref().and_then(|digest| place.get(digest)), outcome.size_bytes) {
            (Some(there), Some(said)) if *there == said => {}
            (Some(_), _) => wrong("the file has another size"),
            (None, _) => wrong("the file is not there"),
        }
    }

    /// The lines of a segment after its first. Each must be whole.
    fn lines(&mut self, path: &Path) -> Vec<Value> {
        let bytes = std::fs::read(path).unwrap();
        if bytes.last() != Some(&b'\n') {
            self.violations.push(format!("{} is cut off", path.display()));
        }
        let mut lines = Vec::new();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).skip(1) {
            match serde_json::from_slice::<Value>(line) {
                Ok(line) if line["v"] == 1 => lines.push(line),
                other => self.violations.push(format!("{}: {other:?}", path.display())),
            }
        }
        lines
    }

    /// Checks that every writer's segments of a stream are whole: numbered from 0, each naming the one before.
    fn chains(&mut self, root: &Path) {
        let mut chains: BTreeMap<(String, String), BTreeMap<u64, (String, Value)>> = BTreeMap::new();
        for stream in ["messages", "outcomes"] {
            for path in files(&root.join(stream)) {
                let bytes = std::fs::read(&path).unwrap();
                let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
                let header: Value = serde_json::from_slice(first).unwrap_or_default();
                if header["kind"] != "segment" || header["v"] != 1 || header["stream"] != stream {
                    self.violations.push(format!("{} has no header", path.display()));
                    continue;
                }
                let writer = header["writer_id"].as_str().unwrap_or_default().to_owned();
                let seq = header["seq"].as_u64().unwrap_or(u64::MAX);
                let chain = chains.entry((stream.to_owned(), writer)).or_default();
                if chain.insert(seq, (digest(&bytes), header)).is_some() {
                    self.violations.push(format!("{} has a number that is taken", path.display()));
                }
            }
        }
        for ((stream, writer), chain) in &chains {
            let mut before = Value::Null;
            for (expected, (seq, (digest, header))) in (0..).zip(chain) {
                if *seq != expected || header["previous_sha256"] != before {
                    self.violations.push(format!("{stream} of {writer} breaks off before segment {seq}"));
                }
                before = digest.clone().into();
            }
            let record = root.join("writers").join(format!("{writer}.json"));
            let record: Value =
                std::fs::read(record).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
            if record["writer_id"] != *writer {
                self.violations.push(format!("{writer} wrote, and has no record in writers/"));
            }
            // A writer that ended in good order has told how far it came.
            let last = chain.last_key_value().map(|(seq, (digest, _))| (*seq, digest.clone()));
            let told = record[stream]["seq"].as_u64().zip(record[stream]["sha256"].as_str().map(str::to_owned));
            if !record["ended_at"].is_null() && told != last {
                self.violations.push(format!("{stream} of {writer} ends at {last:?}, not at {told:?}"));
            }
        }
    }

    /// Hashes every file below a folder; its name must be that hash.
    fn hashed(&mut self, folder: &Path) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for path in files(folder) {
            let bytes = std::fs::read(&path).unwrap();
            let digest = digest(&bytes);
            if path.file_name().unwrap().to_str() != Some(&digest) {
                self.violations.push(format!("{} does not hash to its name", path.display()));
            }
            found.insert(digest, bytes.len() as u64);
        }
        found
    }

    /// How many attachments have an outcome of this kind.
    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.merged.values().filter(|outcome| outcome.kind == kind).count() as u64
    }

    /// The ids of all attachments with an outcome of this kind.
    pub(crate) fn ids(&self, kind: &str) -> BTreeSet<String> {
        self.merged.values().filter(|outcome| outcome.kind == kind).map(|outcome| outcome.id.clone()).collect()
    }

    /// The digest of each archived attachment, by id.
    pub(crate) fn digests(&self) -> BTreeMap<String, String> {
        let archived = self.merged.values().filter(|outcome| outcome.kind == "archived");
        archived.map(|outcome| (outcome.id.clone(), outcome.sha256.clone().unwrap())).collect()
    }

    /// How many raw outcome lines there are for each id.
    pub(crate) fn raw_counts(&self) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for outcome in &self.outcomes {
            *counts.entry(outcome.id.clone()).or_insert(0) += 1;
        }
        counts
    }

    /// Checks that the receipt of a run that has seen everything in this archive tells what its files tell.
    pub(crate) fn agrees_with(&self, receipt: &Receipt) {
        assert_eq!(receipt.attachments, self.carried.len() as u64, "attachments: {receipt:?}");
        assert_eq!(receipt.archived + receipt.known, self.count("archived"), "archived: {receipt:?}");
        for (kind, count) in [
            ("skipped", receipt.skipped),
            ("failed", receipt.failed),
            ("quarantined", receipt.quarantined),
            ("erased", receipt.erased),
        ] {
            assert_eq!(count, self.count(kind), "{kind}: {receipt:?}");
        }
        assert_eq!(receipt.pending, (self.carried.len() - self.merged.len()) as u64, "pending: {receipt:?}");
    }
}

fn digest(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// Every file below a folder, sorted; none if there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
