//! Loading the journal into the catalog: at every start, every 30 s while working, and whole for a rebuild.

use std::collections::{HashMap, HashSet};

use futures::SinkExt as _;
use futures::StreamExt as _;
use futures::channel::mpsc;
use serde::Deserialize;

use super::{Intake, Team, ingest_message};
use crate::catalog::{CatalogError, IngestMessage, Load};
use crate::digest::Digest;
use crate::model::{
    Attachment, Conversation, Message, OutcomeKind, OutcomeLine, Stream, TeamKey, Versioned,
};
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

/// Lines that are handed to the catalog at once.
const BATCH_LINES: usize = 2_000;

/// What the reading side hands to the loading side, in order.
enum Read {
    Messages(TeamKey, Vec<IngestMessage>),
    Outcomes(TeamKey, Vec<OutcomeLine>),
    /// A segment of outcomes has been handed over whole.
    Segment(String, Digest),
}

/// A message line as loading needs it. Fields of newer programs count for nothing here, and are not kept in memory.
#[derive(Deserialize)]
struct ReadMessage {
    v: u32,
    team: TeamKey,
    at: jiff::Timestamp,
    message: Message,
    conversation: Option<Conversation>,
    attachments: Vec<Attachment>,
}

impl Versioned for ReadMessage {
    fn version(&self) -> u32 {
        self.v
    }
}

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
            for key in self.archive.segments(stream)? {
                vanished.remove(&key);
                if !seen.contains_key(&key) {
                    unseen.push((stream, key));
                }
            }
        }
        // Before anything is built upon them.
        self.archive.sync_segments(unseen.iter().map(|(_, key)| key.as_str()))?;
        let mut superseded = Vec::new();
        let mut loaded_messages = Vec::new();
        if !unseen.is_empty() {
            let load = self.catalog.load().await?;
            // Lines are read while those before them are loaded.
            let (sender, receiver) = mpsc::channel(0);
            let reading = self.read_segments(unseen, rules, sender, &mut done, &mut superseded, &mut loaded_messages);
            let (read, loaded) = futures::join!(reading, self.load_all(load, receiver));
            loaded?;
            read?;
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

    /// Reads segments and hands over what is in them; ends early where nobody takes it any more.
    async fn read_segments(
        &self,
        unseen: Vec<(Stream, String)>,
        rules: &(dyn Fn(&TeamKey) -> Team + Send + Sync),
        mut sender: mpsc::Sender<Read>,
        done: &mut Reloaded,
        superseded: &mut Vec<String>,
        loaded_messages: &mut Vec<(String, Digest)>,
    ) -> Result<(), ReloadError> {
        for (stream, key) in unseen {
            let mut reader = match SegmentReader::open(&self.archive, &key) {
                // Compaction may have removed it since it was listed.
                Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
                other => other?,
            };
            if reader.header().writer_id == *self.journal.writer_id() {
                // Our own: it is being taken in, and is remembered when that is done.
                continue;
            }
            superseded.extend(reader.header().supersedes.iter().map(|segment| segment.key.clone()));
            match stream {
                Stream::Messages => done.messages += read_messages(&mut reader, rules, &mut sender).await?,
                Stream::Outcomes => done.outcomes += read_outcomes(&mut reader, &mut sender).await?,
            }
            let digest: Digest = reader.finish();
            match stream {
                Stream::Messages => loaded_messages.push((key, digest)),
                Stream::Outcomes => hand_over(&mut sender, Read::Segment(key, digest)).await,
            }
            done.segments += 1;
        }
        Ok(())
    }

    /// Loads what is read, until the reading side ends. Should that fail, what came before is loaded: another load
    /// goes on from it.
    async fn load_all(&self, mut load: Load<'_>, mut receiver: mpsc::Receiver<Read>) -> Result<(), ReloadError> {
        while let Some(read) = receiver.next().await {
            match read {
                Read::Messages(team, messages) => load.messages(self.archive_row, &team, &messages).await?,
                Read::Outcomes(team, lines) => load.outcomes(self.archive_row, &team, &lines).await?,
                Read::Segment(key, digest) => load.remember_segment(self.archive_row, &key, digest).await?,
            }
        }
        Ok(load.finish().await?)
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

/// Hands something over. That nobody takes it is no failure of the reading side: the loading side tells its own.
async fn hand_over(sender: &mut mpsc::Sender<Read>, read: Read) {
    let _ = sender.send(read).await;
}

async fn read_messages(
    reader: &mut SegmentReader,
    rules: &(dyn Fn(&TeamKey) -> Team + Send + Sync),
    sender: &mut mpsc::Sender<Read>,
) -> Result<u64, ReloadError> {
    let mut count = 0;
    let mut teams: HashMap<TeamKey, (Team, Vec<IngestMessage>)> = HashMap::new();
    loop {
        let line: Option<ReadMessage> = reader.next_line()?;
        let at_end = line.is_none();
        if let Some(ReadMessage { team, at, mut message, conversation, attachments, .. }) = line {
            count += 1;
            (message.conversation, message.attachments) = (conversation, attachments);
            if !teams.contains_key(&team) {
                teams.insert(team.clone(), (rules(&team), Vec::new()));
            }
            if let Some((rules, batch)) = teams.get_mut(&team) {
                batch.push(ingest_message(rules, at, message));
            }
        }
        for (key, (_, batch)) in &mut teams {
            if batch.len() >= BATCH_LINES || (at_end && !batch.is_empty()) {
                hand_over(sender, Read::Messages(key.clone(), std::mem::take(batch))).await;
            }
        }
        if at_end {
            return Ok(count);
        }
    }
}

async fn read_outcomes(reader: &mut SegmentReader, sender: &mut mpsc::Sender<Read>) -> Result<u64, ReloadError> {
    let mut count = 0;
    let mut teams: HashMap<TeamKey, Vec<OutcomeLine>> = HashMap::new();
    loop {
        let line: Option<OutcomeLine> = reader.next_line()?;
        let at_end = line.is_none();
        if let Some(line) = line {
            count += 1;
            match teams.get_mut(&line.team) {
                Some(batch) => batch.push(line),
                None => {
                    teams.insert(line.team.clone(), vec![line]);
                }
            }
        }
        for (key, batch) in &mut teams {
            if batch.len() >= BATCH_LINES || (at_end && !batch.is_empty()) {
                hand_over(sender, Read::Outcomes(key.clone(), std::mem::take(batch))).await;
            }
        }
        if at_end {
            return Ok(count);
        }
    }
}
