//! What an audit found.

use serde::Serialize;

use crate::digest::Digest;

/// The kind of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The archive's marker is gone or wrong.
    Marker,
    /// A segment, or a line of one, cannot be read.
    SegmentDamaged,
    /// A segment is not what it was.
    SegmentAltered,
    /// A segment is gone.
    SegmentMissing,
    /// Two segments claim one place.
    SegmentFork,
    /// A writer's record is gone or cannot be read.
    WriterRecord,
    /// An outcome whose message is not in the journal.
    OutcomeWithoutMessage,
    /// Journal and catalog differ.
    CatalogDiffers,
    /// The catalog holds what the journal does not.
    NotInJournal,
    /// Bytes that an attachment has are gone.
    BytesMissing,
    /// Bytes that an attachment has are wrong.
    BytesDamaged,
    /// Bytes that nothing cites; harmless.
    Uncited,
    /// A file that is none of the archive's; harmless.
    Stranger,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Whether the archive is not whole because of it; a note otherwise.
    pub problem: bool,
    /// A key in the archive, or an attachment's short id.
    pub place: String,
    /// What is wrong.
    pub detail: String,
    /// What to do.
    pub advice: String,
    /// Whether `--repair` has put it right.
    pub repaired: bool,
    /// The bytes it is about.
    pub sha256: Option<Digest>,
}

/// Bytes that are missing or damaged and that an attachment has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenBytes {
    /// Their digest.
    pub sha256: Digest,
    /// Their recorded size.
    pub size_bytes: u64,
    /// Whether they belong in quarantine.
    pub quarantine: bool,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Looked {
    /// Segments of the journal.
    pub segments: u64,
    /// Message lines.
    pub message_lines: u64,
    /// Outcome lines.
    pub outcome_lines: u64,
    /// Attachments that have an outcome.
    pub outcomes: u64,
    /// Blob files.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Quarantined files.
    pub quarantined: u64,
}

/// The result of an audit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was looked at.
    #[serde(flatten)]
    pub looked: Looked,
    /// Whether the bytes were hashed, rather than only measured.
    pub hashed: bool,
    /// How much is wrong.
    pub problems: u64,
    /// How much of that was put right.
    pub repaired: u64,
    /// Harmless things.
    pub notes: u64,
    /// The findings, problems first, as far as they are kept.
    pub findings: Vec<Finding>,
    /// What `--repair` can fetch again.
    #[serde(skip)]
    pub broken: Vec<BrokenBytes>,
}

impl Report {
    /// At most this many findings of either sort are kept in full; all are counted.
    pub const KEPT: u64 = 1_000;

    /// Adds a problem.
    pub(super) fn problem(
        &mut self,
        kind: FindingKind,
        place: impl Into<String>,
        detail: impl Into<String>,
        advice: &str,
    ) {
        self.problems += 1;
        self.keep(kind, true, place.into(), detail.into(), advice, None);
    }

    /// Adds bytes that are missing or damaged.
    pub(super) fn broken(
        &mut self,
        kind: FindingKind,
        broken: BrokenBytes,
        place: String,
        detail: String,
        advice: &str,
    ) {
        self.problems += 1;
        self.broken.push(broken);
        self.keep(kind, true, place, detail, advice, Some(broken.sha256));
    }

    /// Adds something harmless.
    pub(super) fn note(
        &mut self,
        kind: FindingKind,
        place: impl Into<String>,
        detail: impl Into<String>,
        advice: &str,
    ) {
        self.notes += 1;
        self.keep(kind, false, place.into(), detail.into(), advice, None);
    }

    fn keep(
        &mut self,
        kind: FindingKind,
        problem: bool,
        place: String,
        detail: String,
        advice: &str,
        sha256: Option<Digest>,
    ) {
        if if problem { self.problems } else { self.notes } <= Self::KEPT {
            let advice = advice.to_owned();
            self.findings.push(Finding { kind, problem, place, detail, advice, repaired: false, sha256 });
        }
    }

    /// Whether a kept finding says this of that place.
    pub(super) fn has(&self, kind: FindingKind, place: &str) -> bool {
        self.findings.iter().any(|finding| finding.kind == kind && finding.place == place)
    }

    /// Marks bytes as put right.
    pub fn mark_repaired(&mut self, sha256: Digest) {
        self.repaired += 1;
        for finding in self.findings.iter_mut().filter(|finding| finding.sha256 == Some(sha256)) {
            finding.repaired = true;
        }
    }

    /// Whether the archive is whole.
    pub fn is_whole(&self) -> bool {
        self.problems == self.repaired
    }
}
