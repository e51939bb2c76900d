//! From payloads to rows: every message with attachments is put in the journal, every attachment gets its one place in
//! the catalog, and what the rules skip is recorded with its rule.

mod refilter;
mod reload;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Map;

use crate::catalog::{ArchiveRow, Catalog, CatalogError, IngestMessage, IngestReference, State, TeamRow};
use crate::clock::Clock;
use crate::digest::Digest;
use crate::filter::{Filter, Verdict};
use crate::model::{
    AttachmentId, AttachmentKey, FORMAT_VERSION, Message, MessageLine, OutcomeKind, OutcomeLine, Payload, Reject,
    Stream, TeamKey,
};
use crate::store::{Archive, JournalWriter, StoreError};

pub use reload::{ReloadError, Reloaded};

/// What can go wrong while payloads are taken in.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The archive failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A team whose payloads are taken in.
#[derive(Debug, Clone)]
pub struct Team {
    /// Its row.
    pub row: TeamRow,
    /// Its name in the archive.
    pub key: TeamKey,
    /// Its rules.
    pub filter: Arc<Filter>,
}

/// One attachment as one message showed it, judged by the rules. It holds the stable id's key and never a URL; made by
/// [`AttachmentRef::of`] alone.
#[derive(Debug)]
pub struct AttachmentRef {
    reference: IngestReference,
}

impl AttachmentRef {
    /// The attachments of a message, in order, each with the rules' verdict.
    pub fn of(team: &Team, message: &Message) -> Vec<Self> {
        message
            .attachments
            .iter()
            .map(|attachment| {
                let skip_rule = match team.filter.decide(message, attachment) {
                    Verdict::Accept => None,
                    Verdict::Skip(rule) => Some(rule.into()),
                };
                let key = AttachmentKey::new(&team.key, &attachment.id);
                Self { reference: IngestReference { key, skip_rule } }
            })
            .collect()
    }
}

/// Messages of one team, judged and ready to be taken in: those that have attachments, each line once.
#[derive(Debug)]
pub struct Prepared {
    messages: Vec<IngestMessage>,
}

impl Prepared {
    /// Judges messages that were read `at` this time. This is work for the processor alone.
    pub fn new(team: &Team, at: jiff::Timestamp, messages: Vec<Message>) -> Self {
        let mut met = HashSet::with_capacity(messages.len());
        let with_attachments = messages.into_iter().filter(|message| !message.attachments.is_empty());
        let mut messages: Vec<IngestMessage> =
            with_attachments.map(|message| ingest_message(team, at, message)).collect();
        messages.retain(|message| met.insert(message.line_digest));
        Self { messages }
    }
}

/// What one batch of payloads did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Attachments that became pending.
    pub enqueued: u64,
}

/// What a payload would do, without doing it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Attachments that would be fetched: one API request each.
    pub fetch: HashMap<AttachmentKey, Option<u64>>,
    /// Attachments that rules would skip.
    pub skip: HashMap<AttachmentKey, String>,
    /// Attachments that have their place already.
    pub placed: HashMap<AttachmentKey, State>,
}

/// Takes payloads in, for one archive.
#[derive(Debug)]
pub struct Intake {
    catalog: Arc<Catalog>,
    archive: Arc<Archive>,
    archive_row: ArchiveRow,
    journal: Arc<JournalWriter>,
    clock: Clock,
}

impl Intake {
    /// Prepares to take in payloads of teams whose archive this is.
    pub fn new(
        catalog: Arc<Catalog>,
        archive: Arc<Archive>,
        archive_row: ArchiveRow,
        journal: Arc<JournalWriter>,
        clock: Clock,
    ) -> Self {
        Self { catalog, archive, archive_row, journal, clock }
    }

    /// Judges messages of `team` that were read just now.
    pub fn prepare(&self, team: &Team, messages: Vec<Message>) -> Prepared {
        Prepared::new(team, self.clock.now(), messages)
    }

    /// Takes in messages of `team`. When this returns, new messages and the skips that they bring are durable in the
    /// journal, in this order, and every attachment of them has its place. Taking a message in again changes nothing.
    pub async fn take(&self, team: &Team, prepared: Prepared) -> Result<Taken, IngestError> {
        let mut messages = prepared.messages;
        if messages.is_empty() {
            return Ok(Taken::default());
        }
        let digests: Vec<[u8; 16]> = messages.iter().map(|message| message.line_digest).collect();
        let met = self.catalog.meet_lines(team.row, &digests).await?;
        // Of lines that are known, only those matter on that bring an accepted attachment which was skipped before.
        let revives = |line: usize, place: usize| {
            let references = messages.get(line).map(|message| &message.references);
            references.and_then(|references| references.get(place)).is_some_and(|one| one.skip_rule.is_none())
        };
        let revived: HashSet<usize> =
            met.skipped.iter().filter(|(line, place)| revives(*line, *place)).map(|(line, _)| *line).collect();
        if met.new.is_empty() && revived.is_empty() {
            return Ok(Taken::default());
        }
        let new_lines: Vec<&MessageLine> = messages
            .iter()
            .enumerate()
            .filter(|(line, _)| met.new.contains(line))
            .map(|(_, message)| &message.line)
            .collect();
        let skipped = self.new_skips(team, &messages, &met.new).await?;

        let mut segments = Vec::new();
        if !new_lines.is_empty() {
            segments.push(self.journal.append(Stream::Messages, &new_lines).await?);
        }
        let mut generation = 0;
        if !skipped.is_empty() {
            generation = self.catalog.next_generation().await?;
            let lines: Vec<OutcomeLine> = skipped
                .into_iter()
                .map(|(id, rule)| OutcomeLine {
                    rule: Some(rule),
                    ..self.outcome(team, OutcomeKind::Skipped, id, generation)
                })
                .collect();
            segments.push(self.journal.append(Stream::Outcomes, &lines).await?);
        }

        let mut line = 0..;
        messages.retain(|_| line.next().is_some_and(|line| met.new.contains(&line) || revived.contains(&line)));
        let writer_id = self.journal.writer_id().to_string();
        let ingested = self.catalog.ingest(team.row, &messages, generation, &writer_id).await?;
        for (key, digest) in segments {
            self.catalog.remember_segment(self.archive_row, &key, digest).await?;
        }
        Ok(Taken { enqueued: ingested.enqueued })
    }

    /// Attachments that nobody knew and that every message of the batch skips, each with the rule of the first. Lines
    /// that are known tell nothing new, but one of them may accept what a new one skips.
    async fn new_skips(
        &self,
        team: &Team,
        messages: &[IngestMessage],
        new: &HashSet<usize>,
    ) -> Result<Vec<(AttachmentId, String)>, IngestError> {
        let mut accepted: HashSet<AttachmentKey> = HashSet::new();
        let mut skipped: HashMap<AttachmentKey, (&AttachmentId, &String)> = HashMap::new();
        for (line, message) in messages.iter().enumerate() {
            for (attachment, reference) in message.line.attachments.iter().zip(&message.references) {
                match &reference.skip_rule {
                    None => {
                        accepted.insert(reference.key);
                    }
                    Some(rule) if new.contains(&line) => {
                        skipped.entry(reference.key).or_insert((&attachment.id, rule));
                    }
                    Some(_) => {}
                }
            }
        }
        skipped.retain(|key, _| !accepted.contains(key));
        let keys: Vec<AttachmentKey> = skipped.keys().copied().collect();
        let known = self.catalog.known(team.row, &keys).await?;
        skipped.retain(|key, _| !known.contains_key(key));
        Ok(skipped.into_values().map(|(id, rule)| (id.clone(), rule.clone())).collect())
    }

    /// Keeps what could not be read.
    pub async fn keep_rejects(&self, rejects: &[Reject]) -> Result<(), IngestError> {
        Ok(self.catalog.keep_rejects(rejects).await?)
    }

    /// An outcome line of this writer, decided now.
    fn outcome(&self, team: &Team, kind: OutcomeKind, attachment_id: AttachmentId, generation: u64) -> OutcomeLine {
        OutcomeLine {
            v: FORMAT_VERSION,
            kind,
            team: team.key.clone(),
            attachment_id,
            generation,
            writer_id: self.journal.writer_id().clone(),
            at: self.clock.now(),
            sha256: None,
            size_bytes: None,
            sniffed_type: None,
            rule: None,
            reason: None,
            extra: Map::new(),
        }
    }
}

/// Tells what [`Intake::take`] would do, and adds it to `forecast`; nothing is written. Without a catalog nothing is
/// known.
pub async fn forecast(
    catalog: Option<&Catalog>,
    team: &Team,
    messages: Vec<Message>,
    forecast: &mut Forecast,
) -> Result<(), CatalogError> {
    let Prepared { messages } = Prepared::new(team, jiff::Timestamp::UNIX_EPOCH, messages);
    let keys: HashSet<AttachmentKey> =
        messages.iter().flat_map(|message| &message.references).map(|reference| reference.key).collect();
    let keys: Vec<AttachmentKey> = keys.into_iter().collect();
    let known = match catalog {
        Some(catalog) => catalog.known(team.row, &keys).await?,
        None => HashMap::new(),
    };
    for (attachment, reference) in
        messages.iter().flat_map(|message| message.line.attachments.iter().zip(&message.references))
    {
        let key = reference.key;
        match (known.get(&key).map(|known| known.state), &reference.skip_rule) {
            (None | Some(State::Pending | State::Skipped), None) => {
                forecast.skip.remove(&key);
                forecast.placed.remove(&key);
                forecast.fetch.insert(key, attachment.size_bytes);
            }
            (None, Some(rule)) if !forecast.fetch.contains_key(&key) => {
                forecast.skip.insert(key, rule.clone());
            }
            (Some(State::Pending), Some(_)) => {
                forecast.fetch.insert(key, attachment.size_bytes);
            }
            (Some(state), _) if !forecast.fetch.contains_key(&key) => {
                forecast.placed.insert(key, state);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Splits payloads by the team they belong to: an inbox record names one, everything else belongs to `default_team`.
pub fn by_team(payloads: Vec<Payload>, default_team: &str) -> Vec<(String, Vec<Message>)> {
    let mut teams: Vec<(String, Vec<Message>)> = Vec::new();
    for payload in payloads {
        let name = payload.team.as_deref().unwrap_or(default_team);
        match teams.iter_mut().find(|(team, _)| team == name) {
            Some((_, messages)) => messages.extend(payload.messages),
            None => teams.push((name.to_owned(), payload.messages)),
        }
    }
    teams
}

/// Judges one message and makes its line.
fn ingest_message(team: &Team, at: jiff::Timestamp, message: Message) -> IngestMessage {
    let references = AttachmentRef::of(team, &message).into_iter().map(|one| one.reference).collect();
    let line = MessageLine::new(team.key.clone(), at, message);
    IngestMessage { line_digest: line_digest(&line), line, references }
}

/// The identity of a message line: its text without `at`, so that it is the same when it is seen again.
pub fn line_digest(line: &MessageLine) -> [u8; 16] {
    let mut identity = Vec::with_capacity(1024);
    serde_json::to_writer(&mut identity, &(&line.team, &line.message, &line.conversation, &line.attachments))
        .expect("message lines are plain structs and always serialise");
    let mut line_digest = [0; 16];
    line_digest.copy_from_slice(&Digest::of(&identity).as_bytes()[..16]);
    line_digest
}
