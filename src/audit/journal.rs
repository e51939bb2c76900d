//! Reading the whole journal: every segment parses, every chain is whole, and what it says is loaded for comparison.

mod segments;

use std::collections::{HashMap, HashSet};

use super::chain::{self, ChainFault, Ends, Link};
use super::report::{FindingKind, Report};
use super::{AuditError, Subject};
use crate::catalog::{LoadedSegment, TeamRow};
use crate::digest::Digest;
use crate::ingest::line_digest;
use crate::model::{AttachmentKey, MessageLine, OutcomeLine, Stream, TeamKey};
use crate::store::{SegmentReader, StoreError};

pub(super) use segments::unreadable;
use segments::{batch, read_link};

const RESTORE: &str = "restore it from a copy of the archive; what it said is in no other place";

/// Walks the journal.
pub(super) struct JournalAudit<'a> {
    subject: &'a Subject,
    /// Times between which a change is in motion and not judged.
    moving: (i64, i64),
    teams: HashMap<TeamKey, TeamRow>,
    /// Whether a segment that was listed was gone when it was to be read.
    gone: bool,
}

/// What one walk over a stream found.
#[derive(Default)]
struct Walked {
    links: Vec<Link>,
    superseded: HashSet<Digest>,
    superseded_keys: HashSet<String>,
}

impl<'a> JournalAudit<'a> {
    pub(super) fn new(subject: &'a Subject, moving: (i64, i64)) -> Self {
        Self { subject, moving, teams: HashMap::new(), gone: false }
    }

    /// Reads everything, reports what is wrong with it, and loads it for comparison with the catalog.
    /// Gives `false` where a segment that was listed was gone when it was to be read: what was reported may be wrong then.
    pub(super) async fn run(mut self, report: &mut Report) -> Result<bool, AuditError> {
        let archive = std::sync::Arc::clone(&self.subject.archive);
        // In the order that a writer beside us makes harmless: a record never says more than the segments hold, a
        // catalog never knows segments that are not there, an outcome never comes before its message.
        let records = archive.writer_records().await?;
        let seen = self.subject.catalog.segments(self.subject.archive_row).await?;
        let outcomes = archive.segments(Stream::Outcomes).await?;
        let messages = archive.segments(Stream::Messages).await?;

        let mut known = Vec::new();
        for (key, record) in records {
            match record {
                Ok(record) => known.push(record),
                Err(error) => report.problem(
                    FindingKind::WriterRecord,
                    key,
                    format!("the writer's record cannot be read: {error}"),
                    "restore it from a copy; without it nobody can tell whether this writer's last segments are there",
                ),
            }
        }
        let mut present: HashSet<String> = HashSet::new();
        let mut superseded_keys = HashSet::new();
        for (stream, keys) in [(Stream::Messages, messages), (Stream::Outcomes, outcomes)] {
            let mut walked = Walked::default();
            for key in &keys {
                self.walk(stream, key, &seen, &mut walked, report).await?;
            }
            present.extend(keys);
            let ends: Ends =
                known.iter().map(|record| (record.writer_id.clone(), chain::end_of(record, stream))).collect();
            self.judge_chains(stream, walked.links, &ends, &walked.superseded, &present, report).await?;
            superseded_keys.extend(walked.superseded_keys);
        }
        let mut vanished: Vec<&String> = seen
            .iter()
            .filter(|(key, segment)| !segment.superseded && !present.contains(*key) && !superseded_keys.contains(*key))
            .map(|(key, _)| key)
            .collect();
        vanished.sort_unstable();
        for key in vanished {
            report.problem(
                FindingKind::SegmentMissing,
                key.clone(),
                "the catalog has loaded this segment, and it is gone",
                "restore it from a copy of the archive, or run `jellyjar rebuild` to go on with what is there",
            );
        }
        Ok(!self.gone)
    }

    async fn judge_chains(
        &self,
        stream: Stream,
        links: Vec<Link>,
        ends: &Ends,
        superseded: &HashSet<Digest>,
        present: &HashSet<String>,
        report: &mut Report,
    ) -> Result<(), AuditError> {
        let mut faults = chain::check(links.clone(), ends, superseded);
        let is_gap = |fault: &ChainFault| matches!(fault, ChainFault::Missing { .. } | ChainFault::NoRecord { .. });
        if faults.iter().any(is_gap) {
            // A listing beside a writer is no snapshot: what it missed is there now.
            let mut links = links;
            for key in self.subject.archive.segments(stream).await? {
                if !present.contains(&key)
                    && let Some(link) = read_link(&self.subject.archive, &key).await
                {
                    links.push(link);
                }
            }
            let mut ends = ends.clone();
            for (_, record) in self.subject.archive.writer_records().await? {
                if let Ok(record) = record {
                    ends.entry(record.writer_id.clone()).or_insert(None);
                }
            }
            // The tail that came meanwhile may itself have been listed in part.
            let last_listed: HashMap<String, u64> =
                links.iter().filter(|link| present.contains(&link.key)).fold(HashMap::new(), |mut last, link| {
                    let seq = last.entry(link.writer.0.clone()).or_insert(link.seq);
                    *seq = (*seq).max(link.seq);
                    last
                });
            links.retain(|link| last_listed.get(&link.writer.0).is_some_and(|last| link.seq <= *last));
            faults = chain::check(links, &ends, superseded);
        }
        let name = stream.prefix();
        for fault in faults {
            match fault {
                ChainFault::Altered { key } if report.has(FindingKind::SegmentAltered, &key) => {}
                ChainFault::Missing { writer, from, to } => report.problem(
                    FindingKind::SegmentMissing,
                    format!("{name}/"),
                    format!("segments {from} to {} of writer {writer} are gone", to - 1),
                    "restore them from a copy of the archive; what they said is in no other place",
                ),
                ChainFault::Fork { keys: [one, two], seq } => report.problem(
                    FindingKind::SegmentFork,
                    two,
                    format!("it claims the same place ({seq}) as {one}"),
                    "one of the two was copied here from elsewhere; compare them with a copy of the archive",
                ),
                ChainFault::Altered { key } => report.problem(
                    FindingKind::SegmentAltered,
                    key,
                    "it is not what it was: the next segment, or its writer's record, names another digest",
                    "restore it from a copy of the archive",
                ),
                ChainFault::NoRecord { writer } => report.problem(
                    FindingKind::WriterRecord,
                    format!("writers/{writer}.json"),
                    "the writer has segments, and its record is gone",
                    "restore it from a copy; without it nobody can tell whether this writer's last segments are there",
                ),
            }
        }
        Ok(())
    }

    async fn walk(
        &mut self,
        stream: Stream,
        key: &str,
        seen: &HashMap<String, LoadedSegment>,
        walked: &mut Walked,
        report: &mut Report,
    ) -> Result<(), AuditError> {
        report.looked.segments += 1;
        let mut reader = match SegmentReader::open(&self.subject.archive, key).await {
            Ok(Some(reader)) => reader,
            // Compaction may have removed it since it was listed; if not, its chain has a gap.
            Ok(None) => {
                self.gone = true;
                return Ok(());
            }
            Err(StoreError::Damaged { key, reason }) => {
                report.problem(FindingKind::SegmentDamaged, key, reason, RESTORE);
                return Ok(());
            }
            Err(error @ StoreError::Io { .. }) => {
                report.problem(FindingKind::SegmentDamaged, key, causes(&error), "see why it cannot be read");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let header = reader.header().clone();
        if header.stream != stream {
            report.problem(
                FindingKind::SegmentDamaged,
                key,
                format!("it says that it belongs to {}/", header.stream.prefix()),
                "it was moved or copied here; restore the archive's own from a copy",
            );
        }
        let whole = match stream {
            Stream::Messages => self.messages(key, &mut reader, report).await?,
            Stream::Outcomes => self.outcomes(key, &mut reader, report).await?,
        };
        if !whole {
            return Ok(());
        }
        let sha256 = reader.finish();
        if seen.get(key).is_some_and(|segment| segment.sha256 != sha256) {
            report.problem(
                FindingKind::SegmentAltered,
                key,
                "it is not what it was when the catalog loaded it",
                "restore it from a copy of the archive",
            );
        }
        for segment in header.supersedes {
            walked.superseded.insert(segment.sha256);
            walked.superseded_keys.insert(segment.key);
        }
        walked.links.push(Link {
            key: key.to_owned(),
            writer: header.writer_id,
            seq: header.seq,
            previous: header.previous_sha256,
            sha256,
        });
        Ok(())
    }

    async fn messages(
        &mut self,
        key: &str,
        reader: &mut SegmentReader,
        report: &mut Report,
    ) -> Result<bool, AuditError> {
        loop {
            let Some((lines, at_end)) = batch::<MessageLine>(key, reader, report).await? else { return Ok(false) };
            report.looked.message_lines += lines.len() as u64;
            let mut teams: HashMap<TeamKey, Vec<MessageLine>> = HashMap::new();
            for line in lines {
                teams.entry(line.team.clone()).or_default().push(line);
            }
            for (team_key, lines) in teams {
                let team = self.team(&team_key).await?;
                self.compare_links(key, team, &lines, report).await?;
                let carried: Vec<(AttachmentKey, i64)> = lines
                    .iter()
                    .flat_map(|line| line.attachments.iter().map(move |attachment| (line, attachment)))
                    .map(|(line, attachment)| (AttachmentKey::new(&team_key, &attachment.id), line.at.as_millisecond()))
                    .collect();
                self.subject.catalog.audit_carried(team, &carried).await?;
            }
            if at_end {
                return Ok(true);
            }
        }
    }

    async fn compare_links(
        &self,
        key: &str,
        team: TeamRow,
        lines: &[MessageLine],
        report: &mut Report,
    ) -> Result<(), AuditError> {
        let digests: Vec<[u8; 16]> = lines.iter().map(line_digest).collect();
        let linked = self.subject.catalog.links_of_lines(team, &digests).await?;
        let unlinked = lines
            .iter()
            .zip(&digests)
            .filter(|(line, digest)| linked.get(*digest).copied() != Some(line.attachments.len() as u64))
            .filter(|(line, _)| !(self.moving.0..=self.moving.1).contains(&line.at.as_millisecond()))
            .count();
        if unlinked > 0 {
            report.problem(
                FindingKind::CatalogDiffers,
                key,
                format!(
                    "{unlinked} messages of this segment are not in the catalog, or not with all their attachments"
                ),
                "run `jellyjar rebuild`",
            );
        }
        Ok(())
    }

    async fn outcomes(
        &mut self,
        key: &str,
        reader: &mut SegmentReader,
        report: &mut Report,
    ) -> Result<bool, AuditError> {
        loop {
            let Some((lines, at_end)) = batch::<OutcomeLine>(key, reader, report).await? else { return Ok(false) };
            report.looked.outcome_lines += lines.len() as u64;
            let mut teams: HashMap<TeamKey, Vec<OutcomeLine>> = HashMap::new();
            for line in lines {
                teams.entry(line.team.clone()).or_default().push(line);
            }
            for (team_key, lines) in teams {
                let team = self.team(&team_key).await?;
                self.subject.catalog.audit_outcomes(team, &team_key, &lines).await?;
            }
            if at_end {
                return Ok(true);
            }
        }
    }

    async fn team(&mut self, key: &TeamKey) -> Result<TeamRow, AuditError> {
        if let Some(row) = self.teams.get(key) {
            return Ok(*row);
        }
        let row = self.subject.catalog.bind_team(self.subject.archive_row, key).await?;
        self.teams.insert(key.clone(), row);
        Ok(row)
    }
}

/// An error with what caused it, in one line.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
