//! What was accepted, as it lies in the inbox and in its copies: read with nothing of the program's own code.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::senders::Load;
use crate::oracle::{Finding, Kind, files_below};
use crate::world::{World, hex};

/// The records of a team.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// How often each body is there, by its SHA-256: in the inbox, and in copies.
    bodies: HashMap<String, [u64; 2]>,
    unreadable: u64,
    findings: Vec<Finding>,
}

/// The segments that the inbox has, below the world's folder.
pub(super) fn segments(world: &World) -> Result<Vec<String>> {
    let mut files = files_below(&world.folder, "inbox")?;
    files.retain(|file| Path::new(file).extension().is_some_and(|extension| extension == "jsonl"));
    Ok(files)
}

impl Records {
    /// Reads the inbox and its copies.
    pub(super) fn read(world: &World) -> Result<Self> {
        let mut records = Self::default();
        // By segment, so that one that is both in the inbox and in a copy counts once.
        let mut copied: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for key in files_below(&world.archive(), "payloads")? {
            let name = key.rsplit('/').next().unwrap_or_default();
            match name.strip_suffix(".jsonl.zst") {
                Some(segment) if key.starts_with("payloads/v1/default/") => {
                    let packed = fs::read(world.archive().join(&key))?;
                    let text = zstd::decode_all(packed.as_slice()).with_context(|| format!("unpacking {key}"))?;
                    records.take(&key, &text, 1);
                    copied.insert(segment.to_owned(), text);
                }
                _ => records.corrupt(format!("{key} has no place among copies")),
            }
        }
        for file in segments(world)? {
            let text = fs::read(world.folder.join(&file))?;
            // What stands behind the last line break was never accepted.
            let whole = &text[..text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)];
            let name = file.rsplit('/').next().unwrap_or_default().trim_end_matches(".jsonl");
            match copied.get(name) {
                Some(copy) if copy.as_slice() != whole => {
                    records.corrupt(format!("the copy of {file} differs from it"));
                }
                Some(_) => {}
                None => records.take(&file, whole, 0),
            }
        }
        Ok(records)
    }

    fn corrupt(&mut self, text: String) {
        self.findings.push((Kind::Corrupt, text));
    }

    fn take(&mut self, place: &str, text: &[u8], column: usize) {
        for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            match body_of(line) {
                Some(body) => {
                    self.unreadable += u64::from(Load::is_unreadable(&body));
                    self.bodies.entry(hex(&Sha256::digest(&body))).or_default()[column] += 1;
                }
                None => self.corrupt(format!("{place}: line {} is no record", number + 1)),
            }
        }
    }

    /// How many records there are.
    pub(super) fn len(&self) -> u64 {
        self.bodies.values().flatten().sum()
    }

    /// How many of them hold bodies that cannot be read.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Each body is there at least as often as it was acknowledged, and nothing else is; at the `end`, all of it is in
    /// copies.
    pub(super) fn check(&self, load: &Load<'_>, end: bool) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        let mut strangers: HashMap<&str, [u64; 2]> = self.bodies.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        for (body, acknowledged) in load.bodies() {
            let digest = hex(&Sha256::digest(body));
            let [waiting, copied] = strangers.remove(digest.as_str()).unwrap_or_default();
            let there = if end { copied } else { waiting + copied };
            if there < acknowledged {
                let text =
                    format!("the body {digest} was acknowledged {acknowledged} times and is there {there} times");
                findings.push((Kind::Lost, text));
            }
            if end && waiting > 0 {
                findings.push((Kind::Corrupt, format!("the body {digest} is still in the inbox")));
            }
        }
        let strange = strangers.keys().map(|digest| (Kind::Corrupt, format!("nobody posted the body {digest}")));
        findings.extend(strange);
        findings
    }
}

/// The body of a whole record with the right checksum.
fn body_of(line: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (covered, rest) = text.rsplit_once(",\"crc\":\"")?;
    if rest != format!("{:08x}\"}}", crc32c(covered.as_bytes())) {
        return None;
    }
    let record: Value = serde_json::from_str(text).ok()?;
    if record["v"] != 1 || record["team"] != "default" || record["source"] != "webhook" {
        return None;
    }
    match (record["body"].as_str(), record["body_base64"].as_str()) {
        (Some(body), None) => Some(body.as_bytes().to_vec()),
        (None, Some(body)) => data_encoding::BASE64.decode(body.as_bytes()).ok(),
        _ => None,
    }
}

/// CRC32C (RFC 3720, appendix B.4), by a table of its own.
fn crc32c(bytes: &[u8]) -> u32 {
    static TABLE: std::sync::LazyLock<[u32; 256]> = std::sync::LazyLock::new(|| {
        let mut table = [0; 256];
        for (byte, entry) in (0..).zip(&mut table) {
            *entry = (0..8).fold(byte, |sum: u32, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 });
        }
        table
    });
    !bytes.iter().fold(!0, |sum: u32, byte| TABLE[usize::from(sum.to_le_bytes()[0] ^ byte)] ^ (sum >> 8))
}
