//! Loading the journal into the catalog: at every start, every 30 s while working, and whole for a rebuild.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::FutureExt as _;
use futures::SinkExt as _;
use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::future::BoxFuture;
use serde::Deserialize;

use super::{Intake, Team, ingest_message};
use crate::catalog::{CatalogError, IngestMessage, Load, LoadedSegment};
use crate::digest::Digest;
use crate::model::{
    Attachment, Conversation, Message, OutcomeKind, OutcomeLine, SegmentRef, Stream, TeamKey, Versioned,
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

/// Segments that are opened ahead of the one that is read.
const OPEN_AHEAD: usize = 16;

/// What was loaded is committed when nothing has come for so long.
const COMMIT_AFTER: Duration = Duration::from_secs(1);

/// How often the archive is listed before a missing segment counts as lost.
const PASSES: u32 = 4;

/// Whether everything that was listed could be read.
enum Whole {
    Yes,
    /// A segment was removed between being listed and being opened.
    Moving,
    /// Segments that were loaded before are not listed, and nothing that is loaded replaces them.
    Vanished {
        count: usize,
        first: String,
    },
}

/// What the reading side knows and finds.
struct Reading<'a> {
    seen: &'a HashMap<String, LoadedSegment>,
    /// Whose segments are being taken in by themselves.
    at_work: &'a HashSet<String>,
    rules: &'a (dyn Fn(&TeamKey) -> Team + Send + Sync),
    done: &'a mut Reloaded,
    /// What is replaced.
    superseded: Vec<SegmentRef>,
    /// Segments of messages that were read.
    messages: Vec<(String, Digest)>,
    gone: bool,
}

/// A segment that was opened, or found gone.
type Opened = (Stream, String, Option<SegmentReader>);

/// What the reading side hands to the loading side, in order.
enum Read {
    Messages(TeamKey, Vec<IngestMessage>),
    Outcomes(TeamKey, Vec<OutcomeLine>),
    /// Segments that the one whose lines come next has replaced.
    Replaced(Vec<SegmentRef>),
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
    ///
    /// Segments of others who are at work on a shared catalog are theirs to take in; so are our own `while_working`. Before
    /// that, what an earlier life of this process has left is loaded, too.
    pub async fn reload(
        &self,
        rules: &(dyn Fn(&TeamKey) -> Team + Send + Sync),
        while_working: bool,
    ) -> Result<Reloaded, ReloadError> {
        // One process at a time: two would load the same. Who is at work need not wait for it.
        if !self.catalog.lock_loading(self.archive_row, !while_working).await? {
            return Ok(Reloaded::default());
        }
        let done = tokio::select! {
            done = self.reload_all(rules, while_working) => done?,
            error = self.catalog.stay_awake() => return Err(error.into()),
        };
        self.catalog.unlock_loading(self.archive_row).await?;
        Ok(done)
    }

    async fn reload_all(
        &self,
        rules: &(dyn Fn(&TeamKey) -> Team + Send + Sync),
        while_working: bool,
    ) -> Result<Reloaded, ReloadError> {
        let mut done = Reloaded::default();
        let others = self.catalog.others_at_work(self.archive_row).await?;
        let mut at_work: HashSet<String> = others.into_iter().map(|member| member.writer_id).collect();
        if while_working || !self.catalog.is_shared() {
            at_work.insert(self.journal.writer_id().0.clone());
        }
        for pass in 1.. {
            match self.load_unseen(rules, &at_work, &mut done).await? {
                Whole::Yes => break,
                // Compaction is at work, and what it wrote has not been listed: with the next listing it will be.
                Whole::Moving => {}
                Whole::Vanished { .. } if pass < PASSES => {}
                Whole::Vanished { count, first } => return Err(ReloadError::Vanished { count, first }),
            }
        }
        Ok(done)
    }

    async fn load_unseen(
        &self,
        rules: &(dyn Fn(&TeamKey) -> Team + Send + Sync),
        at_work: &HashSet<String>,
        done: &mut Reloaded,
    ) -> Result<Whole, ReloadError> {
        let seen = self.catalog.segments(self.archive_row).await?;
        let mut vanished: HashSet<&String> =
            seen.iter().filter(|(_, segment)| !segment.superseded).map(|(key, _)| key).collect();
        // All keys first, then the lines: an outcome's message is listed with it or before it.
        let mut unseen = Vec::new();
        for stream in Stream::ALL {
            for key in self.archive.segments(stream).await? {
                vanished.remove(&key);
                if seen.get(&key).is_none_or(LoadedSegment::is_left) {
                    unseen.push((stream, key));
                }
            }
        }
        // Before anything is built upon them.
        self.archive.sync_segments(unseen.iter().map(|(_, key)| key.clone()).collect()).await?;
        let mut reading =
            Reading { seen: &seen, at_work, rules, done, superseded: Vec::new(), messages: Vec::new(), gone: false };
        let messages_before = reading.done.messages;
        if !unseen.is_empty() {
            let load = self.catalog.load().await?;
            // Lines are read while those before them are loaded.
            let (sender, receiver) = mpsc::channel(0);
            let reading = self.read_segments(unseen, &mut reading, sender);
            let (read, loaded) = futures::join!(reading, self.load_all(load, receiver));
            loaded?;
            read?;
        }
        let Reading { superseded, messages, gone, done, .. } = reading;
        if done.messages > messages_before {
            self.journal_skips(rules).await?;
        }
        // Only now: a start that dies before its skips are in the journal must be followed by one that looks again.
        for (key, digest) in messages {
            self.catalog.remember_segment(self.archive_row, &key, digest).await?;
        }
        if !superseded.is_empty() {
            self.catalog.replaced_are_loaded(self.archive_row, &superseded).await?;
            for replaced in &superseded {
                vanished.remove(&replaced.key);
            }
        }
        if let Some(first) = vanished.iter().min() {
            return Ok(Whole::Vanished { count: vanished.len(), first: (*first).clone() });
        }
        Ok(if gone { Whole::Moving } else { Whole::Yes })
    }

    /// Reads segments and hands over what is in them; ends early where nobody takes it any more.
    async fn read_segments(
        &self,
        unseen: Vec<(Stream, String)>,
        reading: &mut Reading<'_>,
        mut sender: mpsc::Sender<Read>,
    ) -> Result<(), ReloadError> {
        // The next ones are opened while one is read: many small ones in a bucket would otherwise cost a round trip each.
        let mut opening: Vec<BoxFuture<'_, Result<Opened, StoreError>>> = Vec::new();
        for (stream, key) in unseen {
            let archive = &self.archive;
            let open = async move {
                let reader = SegmentReader::open(archive, &key).await?;
                Ok((stream, key, reader))
            };
            opening.push(open.boxed());
        }
        let mut opened = futures::stream::iter(opening).buffered(OPEN_AHEAD);
        while let Some(next) = opened.next().await {
            let (stream, key, reader) = next?;
            let Some(mut reader) = reader else {
                // Compaction has removed it since it was listed.
                reading.gone = true;
                continue;
            };
            let header = reader.header();
            if reading.at_work.contains(&header.writer_id.0) && !reading.seen.contains_key(&key) {
                // It is being taken in, and is remembered when that is done.
                continue;
            }
            let is_loaded = |old: &SegmentRef| {
                reading.seen.get(&old.key).is_some_and(|segment| segment.loaded && segment.sha256 == old.sha256)
            };
            let loaded_before = !header.supersedes.is_empty() && header.supersedes.iter().all(is_loaded);
            if !header.supersedes.is_empty() {
                let replaced = header.supersedes.clone();
                reading.superseded.extend(replaced.iter().cloned());
                // Before the segment counts as loaded: it is not read again.
                hand_over(&mut sender, Read::Replaced(replaced)).await;
            }
            match stream {
                // Nothing in it is new.
                _ if loaded_before => reader.skip_lines().await?,
                Stream::Messages => {
                    reading.done.messages += read_messages(&mut reader, reading.rules, &mut sender).await?;
                }
                Stream::Outcomes => reading.done.outcomes += read_outcomes(&mut reader, &mut sender).await?,
            }
            let digest: Digest = reader.finish();
            match stream {
                Stream::Messages => reading.messages.push((key, digest)),
                Stream::Outcomes => hand_over(&mut sender, Read::Segment(key, digest)).await,
            }
            reading.done.segments += 1;
        }
        Ok(())
    }

    /// Loads what is read, until the reading side ends. Should that fail, what came before is loaded: another load
    /// goes on from it.
    async fn load_all(&self, mut load: Load<'_>, mut receiver: mpsc::Receiver<Read>) -> Result<(), ReloadError> {
        loop {
            let read = match tokio::time::timeout(COMMIT_AFTER, receiver.next()).await {
                Ok(Some(read)) => read,
                Ok(None) => break,
                // Nobody waits for rows that are locked here while the archive is slow.
                Err(_) => {
                    load.commit().await?;
                    let Some(read) = receiver.next().await else { break };
                    read
                }
            };
            match read {
                Read::Messages(team, messages) => load.messages(self.archive_row, &team, &messages).await?,
                Read::Outcomes(team, lines) => load.outcomes(self.archive_row, &team, &lines).await?,
                Read::Replaced(replaced) => load.supersede_segments(self.archive_row, &replaced).await?,
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
    let mut text = Vec::new();
    loop {
        let line: Option<ReadMessage> = reader.next_line().await?;
        let at_end = line.is_none();
        if let Some(ReadMessage { team, at, mut message, conversation, attachments, .. }) = line {
            count += 1;
            (message.conversation, message.attachments) = (conversation, attachments);
            if !teams.contains_key(&team) {
                teams.insert(team.clone(), (rules(&team), Vec::new()));
            }
            if let Some((rules, batch)) = teams.get_mut(&team) {
                batch.push(ingest_message(rules, at, message, &mut text));
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
        let line: Option<OutcomeLine> = reader.next_line().await?;
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
