//! Loading the journal into the catalog: at every start, every 30 s while working, and whole for a rebuild.

use std::collections::{HashMap, HashSet};

use super::{AttachmentRef, Intake, Team, ingest_message};
use crate::catalog::{CatalogError, IngestMessage};
use crate::digest::Digest;
use crate::model::{Message, MessageLine, OutcomeKind, OutcomeLine, Stream, TeamKey};
use crate::store::{SegmentReader, StoreError};

/// What can go wrong while the journal is loaded.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A segment that the catalog has seen is gone.
    #[error(
        "{count} journal segments that this catalog has seen are gone from the archive (first: {first}); restore them \
         from a copy, or run `jellyjar rebuild` to go on with what is there"
    )]
    Vanished {
        /// How many.
        count: usize,
        /// The key of the first.
        first: String,
    },
    /// The archive failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// What was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Segments.
    pub segments: u64,
    /// Message lines.
    pub messages: u64,
    /// Outcome lines.
    pub outcomes: u64,
}

/// Lines that are loaded in one transaction.
const BATCH_LINES: usize = 2_000;

impl Intake {
    /// Loads the segments that the catalog has not seen. `rules` finds a team's rules, for messages whose writer died
    /// before their attachments got an outcome. Loading a segment twice changes nothing.
    pub async fn reload(&self, rules: &(dyn Fn(&TeamKey) -> Team + Send + Sync)) -> Result<Reloaded, ReloadError> {
        let seen = self.catalog.segments(self.archive_row).await?;
        let mut done = Reloaded::default();
        let mut vanished: HashSet<&String> =
            seen.iter().filter(|(_, segment)| !segment.superseded).map(|(key, _)| key).collect();
        // All keys first, then the lines: an outcome's message is listed with it or before it.
        let mut unseen = Vec::new();
        for stream in Stream::ALL {
            for key in self.archive.segments(stream).await? {
                vanished.remove(&key);
                if !seen.contains_key(&key) {
                    unseen.push((stream, key));
                }
            }
        }
        // Before anything is built upon them.
        self.archive.sync_segments(unseen.iter().map(|(_, key)| key.clone()).collect()).await?;
        let mut superseded = Vec::new();
        let mut loaded_messages = Vec::new();
        for (stream, key) in unseen {
            // Compaction may have removed it since it was listed.
            let Some(mut reader) = SegmentReader::open(&self.archive, &key).await? else { continue };
            if reader.header().writer_id == *self.journal.writer_id() {
                // Our own: it is being taken in, and is remembered when that is done.
                continue;
            }
            superseded.extend(reader.header().supersedes.iter().map(|segment| segment.key.clone()));
            match stream {
                Stream::Messages => done.messages += self.load_messages(&mut reader, rules).await?,
                Stream::Outcomes => done.outcomes += self.load_outcomes(&mut reader).await?,
            }
            let digest: Digest = reader.finish();
            match stream {
                Stream::Messages => loaded_messages.push((key, digest)),
                Stream::Outcomes => self.catalog.remember_segment(self.archive_row, &key, digest).await?,
            }
            done.segments += 1;
        }
        if !superseded.is_empty() {
            self.catalog.supersede_segments(self.archive_row, &superseded).await?;
            for key in &superseded {
                vanished.remove(key);
            }
        }
        if let Some(first) = vanished.iter().min() {
            return Err(ReloadError::Vanished { count: vanished.len(), first: (*first).clone() });
        }
        if done.messages > 0 {
            self.journal_skips(rules).await?;
        }
        // Only now: a start that dies before its skips are in the journal must be followed by one that looks again.
        for (key, digest) in loaded_messages {
            self.catalog.remember_segment(self.archive_row, &key, digest).await?;
        }
        Ok(done)
    }

    async fn load_messages(
        &self,
        reader: &mut SegmentReader,
        rules: &(dyn Fn(&TeamKey) -> Team + Send + Sync),
    ) -> Result<u64, ReloadError> {
        let mut count = 0;
        let mut teams: HashMap<TeamKey, (Team, Vec<IngestMessage>)> = HashMap::new();
        loop {
            let line: Option<MessageLine> = reader.next_line().await?;
            let at_end = line.is_none();
            if let Some(line) = line {
                count += 1;
                if !teams.contains_key(&line.team) {
                    let mut team = rules(&line.team);
                    team.row = self.catalog.bind_team(self.archive_row, &line.team).await?;
                    teams.insert(line.team.clone(), (team, Vec::new()));
                }
                if let Some((team, batch)) = teams.get_mut(&line.team) {
                    let message: Message = line.clone().into_message();
                    let references = AttachmentRef::of(team, &message).into_iter().map(|one| one.reference).collect();
                    batch.push(ingest_message(&line, references));
                }
            }
            for (team, batch) in teams.values_mut() {
                if batch.len() >= BATCH_LINES || (at_end && !batch.is_empty()) {
                    self.catalog.load_messages(team.row, batch).await?;
                    batch.clear();
                }
            }
            if at_end {
                return Ok(count);
            }
        }
    }

    async fn load_outcomes(&self, reader: &mut SegmentReader) -> Result<u64, ReloadError> {
        let mut count = 0;
        let mut teams: HashMap<TeamKey, Vec<OutcomeLine>> = HashMap::new();
        loop {
            let line: Option<OutcomeLine> = reader.next_line().await?;
            let at_end = line.is_none();
            if let Some(line) = line {
                count += 1;
                teams.entry(line.team.clone()).or_default().push(line);
            }
            for (key, batch) in &mut teams {
                if batch.len() >= BATCH_LINES || (at_end && !batch.is_empty()) {
                    let row = self.catalog.bind_team(self.archive_row, key).await?;
                    self.catalog.load_outcomes(self.archive_row, row, key, batch).await?;
                    batch.clear();
                }
            }
            if at_end {
                return Ok(count);
            }
        }
    }

    /// Writes the outcome lines of skips whose writer died between a message and its outcomes.
    async fn journal_skips(&self, rules: &(dyn Fn(&TeamKey) -> Team + Send + Sync)) -> Result<(), ReloadError> {
        for (row, key) in self.catalog.teams(self.archive_row).await? {
            let skips = self.catalog.unjournaled_skips(row).await?;
            if skips.is_empty() {
                continue;
            }
            let team = rules(&key);
            let generation = self.catalog.next_generation().await?;
            for batch in skips.chunks(BATCH_LINES) {
                let lines: Vec<OutcomeLine> = batch
                    .iter()
                    .map(|(_, id, rule)| OutcomeLine {
                        rule: Some(rule.clone()),
                        ..self.outcome(&team, OutcomeKind::Skipped, id.clone(), generation)
                    })
                    .collect();
                let (segment, digest) = self.journal.append(Stream::Outcomes, &lines).await?;
                let rows: Vec<i64> = batch.iter().map(|(row, _, _)| *row).collect();
                self.catalog.mark_journaled(&rows, generation, &self.journal.writer_id().0).await?;
                self.catalog.remember_segment(self.archive_row, &segment, digest).await?;
            }
        }
        Ok(())
    }
}
