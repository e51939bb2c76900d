//! From payloads to rows: every message with attachments is put in the journal, every attachment gets its one place in
//! the catalog, and what the rules skip is recorded with its rule.

mod copies;
mod follow;
mod refilter;
mod reload;
mod texts;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Map;

use crate::catalog::{ArchiveRow, Catalog, CatalogError, IngestMessage, IngestReference, State, TakenTexts, TeamRow};
use crate::catalog::{InboxPosition, Ingested, Journaled};
use crate::clock::Clock;
use crate::digest::Digest;
use crate::filter::{Filter, Verdict};
use crate::model::{
    Attachment, AttachmentId, AttachmentKey, Conversation, FORMAT_VERSION, Lane, Message, MessageLine, OutcomeKind,
    OutcomeLine, Payload, Reject, Stream, TeamKey,
};
use crate::store::{Archive, JournalWriter, StoreError};

pub use copies::{Copies, CopyError};
pub use follow::{FollowError, Followed, Follower};
pub use reload::{ReloadError, Reloaded};
pub use texts::Texts;

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

/// Messages of one team, ready to be taken in: those that have attachments, each line once. Each is kept as the text that
/// is its identity, not as a tree: most lines of a replay are known, and a tree would be taken apart for nothing, on
/// another thread than the one that made it.
#[derive(Debug)]
pub struct Prepared {
    at: jiff::Timestamp,
    digests: Vec<[u8; 16]>,
    met: HashSet<[u8; 16]>,
    /// The lines' texts, one after another.
    text: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    /// For each payload that has attachments, how many lines there are up to its end.
    payload_ends: Vec<usize>,
    /// The texts of payloads in which the messages stood, where they will be known again by them.
    texts: TakenTexts,
}

impl Prepared {
    /// Begins with messages that are read `at` this time.
    pub fn new(at: jiff::Timestamp) -> Self {
        Self {
            at,
            digests: Vec::new(),
            met: HashSet::new(),
            text: Vec::new(),
            ends: Vec::new(),
            payload_ends: Vec::new(),
            texts: TakenTexts::default(),
        }
    }

    /// Adds the messages of a payload of `team`, the same for all.
    pub fn push(&mut self, team: &Team, payload: &Payload) {
        let with_attachments = || payload.messages.iter().filter(|message| !message.attachments.is_empty());
        for message in with_attachments() {
            let line = self.push_message(team, message);
            self.texts.lines.extend(payload.text.map(|text| (text, line)));
        }
        if with_attachments().next().is_none() {
            self.texts.bare.extend(payload.text);
        } else {
            self.payload_ends.push(self.digests.len());
        }
    }

    /// How many payloads brought one of these lines.
    fn payloads_with(&self, lines: &HashSet<usize>) -> u64 {
        let begins = std::iter::once(0).chain(self.payload_ends.iter().copied());
        let brought = begins.zip(&self.payload_ends).filter(|(begin, end)| (*begin..**end).any(|l| lines.contains(&l)));
        u64::try_from(brought.count()).unwrap_or(u64::MAX)
    }

    /// Adds a message and gives its line's digest.
    fn push_message(&mut self, team: &Team, message: &Message) -> [u8; 16] {
        let begin = self.text.len();
        let digest = identity(&mut self.text, &team.key, message, message.conversation.as_ref(), &message.attachments);
        if self.met.insert(digest) {
            self.digests.push(digest);
            self.ends.push(self.text.len());
        } else {
            self.text.truncate(begin);
        }
        digest
    }

    /// Makes the lines, judged by the rules of `team`.
    fn unpack(&self, team: &Team) -> Vec<IngestMessage> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let texts = begins.zip(&self.ends).map(|(begin, end)| &self.text[begin..*end]);
        texts
            .zip(&self.digests)
            .map(|(text, line_digest)| {
                let (_, message, conversation, attachments): (TeamKey, Message, _, _) =
                    serde_json::from_slice(text).expect("it was written from these same types");
                judged(team, self.at, Message { conversation, attachments, ..message }, *line_digest)
            })
            .collect()
    }
}

/// What one batch of payloads did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Attachments that became pending.
    pub enqueued: u64,
    /// Pending attachments that waited as bulk work, and are live now.
    pub promoted: u64,
    /// Attachments that nobody knew and that the rules skip.
    pub skipped: u64,
    /// Payloads that brought messages that nobody knew.
    pub new_payloads: u64,
    /// The texts that need not be taken in again.
    pub texts: TakenTexts,
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
    /// Whatever becomes pending is bulk work.
    pub async fn take(&self, team: &Team, prepared: Prepared) -> Result<Taken, IngestError> {
        self.take_upto(team, prepared, None).await
    }

    /// Like [`Intake::take`], of what stands in the team's inbox up to `position`, which is kept with it. It is live: what
    /// becomes pending by it goes first, and so does what waits already.
    pub async fn take_live(
        &self,
        team: &Team,
        prepared: Prepared,
        position: &InboxPosition,
    ) -> Result<Taken, IngestError> {
        self.take_upto(team, prepared, Some(position)).await
    }

    async fn take_upto(
        &self,
        team: &Team,
        mut prepared: Prepared,
        position: Option<&InboxPosition>,
    ) -> Result<Taken, IngestError> {
        let writer_id = self.journal.writer_id().to_string();
        let lane = if position.is_some() { Lane::Live } else { Lane::Bulk };
        let nothing = Journaled {
            archive: self.archive_row,
            segments: &[],
            generation: 0,
            writer_id: &writer_id,
            position,
            lane,
            promoted: &[],
        };
        let texts = std::mem::take(&mut prepared.texts);
        if prepared.digests.is_empty() {
            self.catalog.ingest(team.row, &[], &nothing).await?;
            return Ok(Taken { texts, ..Taken::default() });
        }
        let met = self.catalog.meet_lines(team.row, &prepared.digests).await?;
        let nothing = Journaled { promoted: if lane == Lane::Live { &met.bulk } else { &[] }, ..nothing };
        if met.new.is_empty() && met.skipped.is_empty() {
            let Ingested { promoted, .. } = self.catalog.ingest(team.row, &[], &nothing).await?;
            return Ok(Taken { promoted, texts, ..Taken::default() });
        }
        let new_payloads = prepared.payloads_with(&met.new);
        let mut messages = prepared.unpack(team);
        let texts = TakenTexts { skipped: skipped_by_text(&messages, &texts.lines), ..texts };
        // Of lines that are known, only those matter on that bring an accepted attachment which was skipped before.
        let revives = |line: usize, place: usize| {
            let references = messages.get(line).map(|message| &message.references);
            references.and_then(|references| references.get(place)).is_some_and(|one| one.skip_rule.is_none())
        };
        let revived: HashSet<usize> =
            met.skipped.iter().filter(|(line, place)| revives(*line, *place)).map(|(line, _)| *line).collect();
        if met.new.is_empty() && revived.is_empty() {
            let Ingested { promoted, .. } = self.catalog.ingest(team.row, &[], &nothing).await?;
            return Ok(Taken { promoted, texts, ..Taken::default() });
        }
        let new_lines: Vec<&MessageLine> = messages
            .iter()
            .enumerate()
            .filter(|(line, _)| met.new.contains(line))
            .map(|(_, message)| &message.line)
            .collect();
        let skipped = self.new_skips(team, &messages, &met.new).await?;

        let skips = u64::try_from(skipped.len()).unwrap_or(u64::MAX);
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
        let journaled = Journaled { segments: &segments, generation, ..nothing };
        let ingested = self.catalog.ingest(team.row, &messages, &journaled).await?;
        let Ingested { enqueued, promoted } = ingested;
        Ok(Taken { enqueued, promoted, skipped: skips, new_payloads, texts })
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
    prepared: &Prepared,
    forecast: &mut Forecast,
) -> Result<(), CatalogError> {
    let messages = prepared.unpack(team);
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

/// The attachments that the rules skip wherever they stand in these messages, for each text in which they do.
fn skipped_by_text(messages: &[IngestMessage], texts: &[([u8; 16], [u8; 16])]) -> Vec<([u8; 16], AttachmentKey)> {
    let references = || messages.iter().flat_map(|message| &message.references);
    let accepted: HashSet<AttachmentKey> =
        references().filter(|one| one.skip_rule.is_none()).map(|one| one.key).collect();
    let lines: HashMap<[u8; 16], &IngestMessage> =
        messages.iter().map(|message| (message.line_digest, message)).collect();
    let of_line = |(text, line): &([u8; 16], [u8; 16])| {
        let text = *text;
        let references = lines.get(line).into_iter().flat_map(|message| &message.references);
        references.filter(|one| one.skip_rule.is_some()).map(move |one| (text, one.key))
    };
    texts.iter().flat_map(of_line).filter(|(_, key)| !accepted.contains(key)).collect()
}

/// Judges one message and makes its line. `text` is room for the line's identity, used again for each.
fn ingest_message(team: &Team, at: jiff::Timestamp, message: Message, text: &mut Vec<u8>) -> IngestMessage {
    text.clear();
    let digest = identity(text, &team.key, &message, message.conversation.as_ref(), &message.attachments);
    judged(team, at, message, digest)
}

fn judged(team: &Team, at: jiff::Timestamp, message: Message, line_digest: [u8; 16]) -> IngestMessage {
    let references = AttachmentRef::of(team, &message).into_iter().map(|one| one.reference).collect();
    IngestMessage { line_digest, line: MessageLine::new(team.key.clone(), at, message), references }
}

/// The identity of a message line: its text without `at`, so that it is the same when it is seen again. Appends it to
/// `text` and gives its digest.
fn identity(
    text: &mut Vec<u8>,
    team: &TeamKey,
    message: &Message,
    conversation: Option<&Conversation>,
    attachments: &[Attachment],
) -> [u8; 16] {
    let begin = text.len();
    serde_json::to_writer(&mut *text, &(team, message, conversation, attachments))
        .expect("message lines are plain structs and always serialise");
    Digest::of(&text[begin..]).short()
}

/// The identity of a line that was read.
pub fn line_digest(line: &MessageLine) -> [u8; 16] {
    identity(&mut Vec::new(), &line.team, &line.message, line.conversation.as_ref(), &line.attachments)
}
