//! From payloads to rows: every message with attachments is put in the journal, every attachment gets its one place in
//! the catalog, and what the rules skip is recorded with its rule.

mod reload;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Map;

use crate::catalog::{ArchiveRow, Catalog, CatalogError, IngestMessage, IngestReference, State, TeamRow};
use crate::clock::Clock;
use crate::digest::Digest;
use crate::filter::{Filter, Verdict};
use crate::model::{
    AttachmentKey, FORMAT_VERSION, Message, MessageLine, OutcomeKind, OutcomeLine, Payload, Reject, Stream, TeamKey,
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

/// One attachment as one message showed it, judged by the rules. It holds the stable id and never a URL; made by
/// [`AttachmentRef::of`] alone.
#[derive(Debug)]
pub struct AttachmentRef {
    reference: IngestReference,
}

impl AttachmentRef {
    /// The attachments of a message, each with the rules' verdict.
    pub fn of(team: &Team, message: &Message) -> Vec<Self> {
        message
            .attachments
            .iter()
            .map(|attachment| {
                let skip_rule = match team.filter.decide(message, attachment) {
                    Verdict::Accept => None,
                    Verdict::Skip(rule) => Some(rule.into()),
                };
                let reference = IngestReference {
                    key: AttachmentKey::new(&team.key, &attachment.id),
                    attachment_id: attachment.id.clone(),
                    name: attachment.name.clone(),
                    content_type: attachment.content_type.clone(),
                    declared_size: attachment.size_bytes,
                    inline: attachment.inline,
                    skip_rule,
                };
                Self { reference }
            })
            .collect()
    }
}

/// A message that is ready to be taken in.
#[derive(Debug)]
struct Prepared {
    message: IngestMessage,
    line: MessageLine,
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

    /// Takes in messages of `team`. When this returns, new messages and the skips that they bring are durable in the
    /// journal, in this order, and every attachment of them has its place. Taking a message in again changes nothing.
    pub async fn take(&self, team: &Team, messages: Vec<Message>) -> Result<Taken, IngestError> {
        let at = self.clock.now();
        let mut prepared: Vec<Prepared> = Vec::with_capacity(messages.len());
        let mut met = HashSet::new();
        for message in messages {
            if message.attachments.is_empty() {
                continue;
            }
            let one = prepare(team, at, message);
            if met.insert(one.message.line_digest) {
                prepared.push(one);
            }
        }
        if prepared.is_empty() {
            return Ok(Taken::default());
        }
        let digests: Vec<[u8; 16]> = prepared.iter().map(|one| one.message.line_digest).collect();
        let keys: HashSet<AttachmentKey> = keys_of(&prepared).collect();
        let keys: Vec<AttachmentKey> = keys.into_iter().collect();
        let known_lines = self.catalog.known_lines(team.row, &digests).await?;
        let known = self.catalog.known(team.row, &keys).await?;

        let revives = |reference: &IngestReference| {
            reference.skip_rule.is_none()
                && known.get(&reference.key).is_some_and(|known| known.state == State::Skipped)
        };
        let is_new = |one: &Prepared| !known_lines.contains(&one.message.line_digest);
        let new_lines: Vec<&MessageLine> = prepared.iter().filter(|one| is_new(one)).map(|one| &one.line).collect();

        let mut accepted: HashSet<AttachmentKey> = HashSet::new();
        let mut skipped: HashMap<AttachmentKey, &IngestReference> = HashMap::new();
        for reference in prepared.iter().flat_map(|one| &one.message.references) {
            if reference.skip_rule.is_none() {
                accepted.insert(reference.key);
            } else {
                skipped.entry(reference.key).or_insert(reference);
            }
        }
        skipped.retain(|key, _| !accepted.contains(key) && !known.contains_key(key));

        let mut segments = Vec::new();
        if !new_lines.is_empty() {
            segments.push(self.journal.append(Stream::Messages, &new_lines).await?);
        }
        let mut generation = 0;
        if !skipped.is_empty() {
            generation = self.catalog.next_generation().await?;
            let lines: Vec<OutcomeLine> = skipped
                .values()
                .map(|reference| OutcomeLine {
                    rule: reference.skip_rule.clone(),
                    ..self.outcome(team, OutcomeKind::Skipped, reference.attachment_id.clone(), generation)
                })
                .collect();
            segments.push(self.journal.append(Stream::Outcomes, &lines).await?);
        }

        // Moved, not copied: a batch is large, and its lines are of no more use.
        let messages: Vec<IngestMessage> = prepared
            .into_iter()
            .filter(|one| is_new(one) || one.message.references.iter().any(revives))
            .map(|one| one.message)
            .collect();
        let writer_id = self.journal.writer_id().to_string();
        let ingested = self.catalog.ingest(team.row, &messages, &keys, generation, &writer_id).await?;
        for (key, digest) in segments {
            self.catalog.remember_segment(self.archive_row, &key, digest).await?;
        }
        Ok(Taken { enqueued: ingested.enqueued })
    }

    /// Keeps what could not be read.
    pub async fn keep_rejects(&self, rejects: &[Reject]) -> Result<(), IngestError> {
        Ok(self.catalog.keep_rejects(rejects).await?)
    }

    /// An outcome line of this writer, decided now.
    fn outcome(
        &self,
        team: &Team,
        kind: OutcomeKind,
        attachment_id: crate::model::AttachmentId,
        generation: u64,
    ) -> OutcomeLine {
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
    let at = jiff::Timestamp::UNIX_EPOCH;
    let prepared: Vec<Prepared> = messages.into_iter().map(|message| prepare(team, at, message)).collect();
    let keys: Vec<AttachmentKey> = keys_of(&prepared).collect::<HashSet<_>>().into_iter().collect();
    let known = match catalog {
        Some(catalog) => catalog.known(team.row, &keys).await?,
        None => HashMap::new(),
    };
    for reference in prepared.iter().flat_map(|one| &one.message.references) {
        let key = reference.key;
        match (known.get(&key).map(|known| known.state), &reference.skip_rule) {
            (None | Some(State::Pending | State::Skipped), None) => {
                forecast.skip.remove(&key);
                forecast.placed.remove(&key);
                forecast.fetch.insert(key, reference.declared_size);
            }
            (None, Some(rule)) if !forecast.fetch.contains_key(&key) => {
                forecast.skip.insert(key, rule.clone());
            }
            (Some(State::Pending), Some(_)) => {
                forecast.fetch.insert(key, reference.declared_size);
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

fn keys_of(prepared: &[Prepared]) -> impl Iterator<Item = AttachmentKey> {
    prepared.iter().flat_map(|one| &one.message.references).map(|reference| reference.key)
}

fn prepare(team: &Team, at: jiff::Timestamp, message: Message) -> Prepared {
    let references = AttachmentRef::of(team, &message).into_iter().map(|one| one.reference).collect();
    let line = MessageLine::new(team.key.clone(), at, message);
    Prepared { message: ingest_message(&line, references), line }
}

/// The identity of a message line: its text without `at`, so that it is the same when it is seen again.
pub fn line_digest(line: &MessageLine) -> [u8; 16] {
    let identity = serde_json::to_vec(&(&line.team, &line.message, &line.conversation, &line.attachments))
        .expect("message lines are plain structs and always serialise");
    let mut line_digest = [0; 16];
    line_digest.copy_from_slice(&Digest::of(&identity).as_bytes()[..16]);
    line_digest
}

/// The catalog's row of a message line.
fn ingest_message(line: &MessageLine, references: Vec<IngestReference>) -> IngestMessage {
    IngestMessage {
        line_digest: line_digest(line),
        message_id: line.message.id.clone(),
        subject: line.message.subject.clone(),
        sender: line.message.from.first().cloned(),
        sent_at: line.message.sent_at.clone(),
        conversation_id: line.conversation.as_ref().and_then(|conversation| conversation.id.clone()),
        references,
    }
}
