//! Taking in what payloads show: messages, their links, and a row for every attachment.

use std::collections::{HashMap, HashSet};

use tokio::sync::MutexGuard;

use self::links::Link;
use super::lanes::{self, lane_column};
use super::rows::{PACKED_KEYS, chunks, values};
use super::{ArchiveRow, Catalog, InboxPosition, People, Result, State, TeamRow, at, json};
use crate::catalog::engine::{Connection, Done, query, query_scalar};
use crate::digest::Digest;
use crate::model::{AttachmentId, AttachmentKey, Lane, MessageLine, Reject};

mod links;

/// What the catalog holds of an attachment before it is taken in again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Its place.
    pub state: State,
}

/// One message to take in, with its line's digest (the identity of a line: its text without `at`).
#[derive(Debug, Clone)]
pub struct IngestMessage {
    /// The first 16 bytes of the line's SHA-256.
    pub line_digest: [u8; 16],
    /// Its line of the journal.
    pub line: MessageLine,
    /// What is decided of the line's attachments, one for each, in order.
    pub references: Vec<IngestReference>,
}

impl IngestMessage {
    /// The attachments' ids, each with what is decided of it.
    fn attachments(&self) -> impl Iterator<Item = Reference<'_>> {
        self.line.attachments.iter().zip(&self.references).map(|(attachment, reference)| Reference {
            id: &attachment.id,
            declared_size: size_column(attachment.size_bytes),
            key: reference.key,
            skip_rule: reference.skip_rule.as_deref(),
        })
    }
}

/// What is decided of one attachment of a message to take in.
#[derive(Debug, Clone)]
pub struct IngestReference {
    /// Its compact key.
    pub key: AttachmentKey,
    /// The rule that skips it; `None` accepts it.
    pub skip_rule: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Reference<'a> {
    id: &'a AttachmentId,
    declared_size: Option<i64>,
    key: AttachmentKey,
    skip_rule: Option<&'a str>,
}

/// What an ingest changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Attachments that became pending, for display: one that another process took in meanwhile may be missing.
    pub enqueued: u64,
    /// Pending attachments that waited as bulk work, and are live now.
    pub promoted: u64,
}

/// What is known of messages when they are taken in.
#[derive(Debug, Clone, Copy)]
pub struct Journaled<'a> {
    /// The archive whose journal has their lines.
    pub archive: ArchiveRow,
    /// The segments in which the lines stand, with their digests.
    pub segments: &'a [(String, Digest)],
    /// The generation of their skips' outcome lines.
    pub generation: u64,
    /// Who wrote them.
    pub writer_id: &'a str,
    /// Up to where the team's inbox has been taken in with them, where they came from it.
    pub position: Option<&'a InboxPosition>,
    /// The lane of what becomes pending. Live messages bring what they refer to, and waits as bulk work, with them.
    pub lane: Lane,
    /// Rows that wait as bulk work, and that known messages refer to: see [`MetLines::bulk`].
    pub promoted: &'a [i64],
}

#[cfg(test)]
impl<'a> Journaled<'a> {
    /// In no segment that matters.
    pub fn of(archive: ArchiveRow, generation: u64, writer_id: &'a str) -> Self {
        Self { archive, segments: &[], generation, writer_id, position: None, lane: Lane::Bulk, promoted: &[] }
    }
}

/// What the catalog knows of a batch of message lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetLines {
    /// The lines that it does not hold, by their place in the batch.
    pub new: HashSet<usize>,
    /// Attachments of lines that it holds which are skipped now: the line's place and the attachment's in it.
    pub skipped: Vec<(usize, usize)>,
    /// The rows of attachments of lines that it holds which wait as bulk work.
    pub bulk: Vec<i64>,
}

/// So many attachments of known lines wait to be put into `temp.seen`.
const SEEN_AHEAD: usize = 65_536;

/// A declared size as a column: sizes are below 2^63 by `model::Attachment`'s contract.
fn size_column(size: Option<u64>) -> Option<i64> {
    size.and_then(|size| i64::try_from(size).ok())
}

/// Keys one after another, 16 bytes each.
fn packed<'a>(keys: impl IntoIterator<Item = &'a [u8; 16]>) -> Vec<u8> {
    keys.into_iter().flatten().copied().collect()
}

/// Numbers of a list that SQLite has joined.
pub(super) fn numbers(list: Option<&str>) -> impl Iterator<Item = usize> {
    list.unwrap_or_default().split_terminator(' ').filter_map(|number| number.parse().ok())
}

impl Catalog {
    /// The states of those of `keys` that are known.
    pub async fn known(&self, team: TeamRow, keys: &[AttachmentKey]) -> Result<HashMap<AttachmentKey, Known>> {
        let mut known = HashMap::new();
        let mut connection = self.connection().await;
        for keys in keys.chunks(PACKED_KEYS) {
            // One row for all: a row each costs more than finding it.
            let found: Option<String> = query_scalar(
                "-- name: known
                SELECT group_concat(n.i || ' ' || a.state, ',') FROM temp.ordinals n
                CROSS JOIN attachments a ON a.team_id = $1 AND a.key = substr($2, n.i * 16 + 1, 16)
                WHERE n.i < $3",
            )
            .bind(team.0)
            .bind(packed(keys.iter().map(AttachmentKey::as_bytes)))
            .bind(count_column(keys.len()))
            .fetch_one(&mut connection)
            .await
            .map_err(at("known"))?;
            for entry in found.as_deref().unwrap_or_default().split_terminator(',') {
                let parsed =
                    entry.split_once(' ').and_then(|(index, state)| Some((index.parse::<usize>().ok()?, state)));
                if let Some((key, state)) = parsed.and_then(|(index, state)| Some((keys.get(index)?, state))) {
                    known.insert(*key, Known { state: state.parse()? });
                }
            }
        }
        Ok(known)
    }

    /// Looks a batch of message lines up. The attachments of those that the catalog holds count as seen by this run
    /// from now on: archived ones as known. By the line and its links, not by each attachment's key: of a replay of
    /// what is known only one look-up a message goes to a random place.
    pub async fn meet_lines(&self, team: TeamRow, digests: &[[u8; 16]]) -> Result<MetLines> {
        let mut met = MetLines::default();
        let mut seen = Vec::with_capacity(digests.len());
        let mut connection = self.connection().await;
        for (number, digests) in digests.chunks(PACKED_KEYS).enumerate() {
            let offset = number * PACKED_KEYS;
            // One row for all, and two numbers for each attachment: the first holds its place, the line (below 4096) and
            // whether it is archived (1), skipped (2) or waits as bulk work (3).
            let found: Option<String> = query_scalar(
                "-- name: meet_lines
                SELECT group_concat(
                    (l.place * 16384 + n.i * 4 + CASE a.state
                        WHEN 'archived' THEN 1 WHEN 'skipped' THEN 2 WHEN 'pending' THEN 3 * a.lane ELSE 0 END)
                    || ' ' || l.attachment_row, ' ')
                FROM temp.ordinals n
                CROSS JOIN messages m ON m.team_id = $1 AND m.line_digest = substr($2, n.i * 16 + 1, 16)
                CROSS JOIN links l ON l.message_row = m.id
                CROSS JOIN attachments a ON a.id = l.attachment_row
                WHERE n.i < $3",
            )
            .bind(team.0)
            .bind(packed(digests))
            .bind(count_column(digests.len()))
            .fetch_one(&mut connection)
            .await
            .map_err(at("meet_lines"))?;
            let mut is_new = vec![true; digests.len()];
            let found: Vec<usize> = numbers(found.as_deref()).collect();
            for [packed, row] in found.as_chunks::<2>().0 {
                let (place, line, state) = (packed >> 14, packed >> 2 & 0xfff, packed & 3);
                is_new[line] = false;
                match state {
                    2 => met.skipped.push((offset + line, place)),
                    3 => met.bulk.push(count_column(*row)),
                    _ => {}
                }
                seen.push((count_column(*row), state == 1));
            }
            let new = is_new.iter().enumerate().filter(|(_, is_new)| **is_new);
            met.new.extend(new.map(|(line, _)| offset + line));
        }
        self.see_soon(&mut connection, seen).await?;
        Ok(met)
    }

    /// Counts attachments among those that this run has seen, each with whether it was archived when it was met.
    pub(super) async fn see_soon(&self, connection: &mut Connection, mut seen: Vec<(i64, bool)>) -> Result<()> {
        let is_full = self.seen_ahead(|ahead| {
            ahead.append(&mut seen);
            ahead.len() >= SEEN_AHEAD
        });
        if is_full { self.write_seen(connection).await } else { Ok(()) }
    }

    /// The connection, for who reads the table `seen` or writes to it: everything that was met is in it.
    pub(super) async fn seen_connection(&self) -> Result<MutexGuard<'_, Connection>> {
        let mut connection = self.connection().await;
        self.write_seen(&mut connection).await?;
        Ok(connection)
    }

    /// Puts what was met into the table `seen`, in the order of its rows.
    async fn write_seen(&self, connection: &mut Connection) -> Result<()> {
        let rows: Vec<(i64, bool)> = self.seen_ahead(|ahead| {
            // Stable: the first word of each counts.
            ahead.sort_by_key(|(row, _)| *row);
            ahead.dedup_by_key(|(row, _)| *row);
            ahead.clone()
        });
        let mut scattered = Vec::new();
        // What was archived together is met together: rows that follow each other need no list.
        for run in rows.chunk_by(|(row, known), (next, is_known)| row + 1 == *next && known == is_known) {
            for run in run.chunks(PACKED_KEYS) {
                let [(first, is_known), ..] = run else { continue };
                if run.len() < 16 {
                    scattered.extend(run.iter().map(|(row, is_known)| row << 1 | i64::from(*is_known)));
                    continue;
                }
                query(
                    "-- name: write_seen_run
                    INSERT OR IGNORE INTO temp.seen (attachment_row, known) SELECT ? + i, ? FROM temp.ordinals WHERE i < ?",
                )
                .bind(first)
                .bind(is_known)
                .bind(count_column(run.len()))
                .execute(&mut *connection)
                .await
                .map_err(at("write_seen_run"))?;
            }
        }
        if !scattered.is_empty() {
            query(
                "-- name: write_seen
                INSERT OR IGNORE INTO temp.seen (attachment_row, known) SELECT CAST(value AS BIGINT) >> 1, CAST(value AS BIGINT) & 1 FROM json_each(?)",
            )
            .bind(json(&scattered))
            .execute(connection)
            .await
            .map_err(at("write_seen"))?;
        }
        // Not before: whoever breaks off here loses nothing.
        self.seen_ahead(Vec::clear);
        Ok(())
    }

    /// Works on what waits to be put into `seen`. Only who has the connection calls this.
    fn seen_ahead<T>(&self, work: impl FnOnce(&mut Vec<(i64, bool)>) -> T) -> T {
        work(&mut self.seen_ahead.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Takes in messages whose lines (and whose skips' outcome lines) are durable in the journal. New attachments
    /// become pending, or skipped where every reference to them is; a skipped one that is now accepted becomes
    /// pending. All attachments of the messages count in this run's receipt. With them, in the same transaction, goes what
    /// else is known of them.
    pub async fn ingest(
        &self,
        team: TeamRow,
        messages: &[IngestMessage],
        journaled: &Journaled<'_>,
    ) -> Result<Ingested> {
        if messages.is_empty() && journaled.position.is_none() && journaled.promoted.is_empty() {
            return Ok(Ingested::default());
        }
        let now = self.clock.now_ms();
        let mut connection = self.seen_connection().await?;
        let mut transaction = connection.begin().await.map_err(at("begin_ingest"))?;
        let Journaled { archive, segments, generation, writer_id, position, lane, promoted } = *journaled;
        for (key, digest) in segments {
            super::journal::remember_segment(&mut transaction, archive, key, *digest).await?;
        }
        if let Some(position) = position {
            super::inbox::keep_position(&mut transaction, team, position).await?;
        }
        let Inserted { mut ingested, new, old } =
            insert(&mut transaction, team, messages, (generation, lane), writer_id, now).await?;
        ingested.promoted += lanes::promote_rows(&mut transaction, promoted).await?;
        // Nothing of this changes what is archived: that is `known`; everything else the run decides.
        see(&mut transaction, team, &old).await?;
        transaction.commit().await.map_err(at("commit_ingest"))?;
        self.see_soon(&mut connection, new.into_iter().map(|row| (row, false)).collect()).await?;
        Ok(ingested)
    }

    /// Keeps what could not be read; the same defect of the same place is kept once.
    pub async fn keep_rejects(&self, rejects: &[Reject]) -> Result<()> {
        if rejects.is_empty() {
            return Ok(());
        }
        let mut places = HashSet::new();
        let rejects: Vec<&Reject> = rejects
            .iter()
            .filter(|reject| {
                let position = &reject.position;
                places.insert((&position.source, position.line, position.byte_offset, &reject.reason))
            })
            .collect();
        let mut connection = self.connection().await;
        query(
            "-- name: keep_rejects
            INSERT INTO rejects (source, line, byte_offset, reason, excerpt, first_seen_at, last_seen_at)
            SELECT value -> 'position' ->> 'source', CAST(value -> 'position' ->> 'line' AS BIGINT),
                CAST(value -> 'position' ->> 'byte_offset' AS BIGINT), value ->> 'reason', value ->> 'excerpt', $2, $2
            FROM json_each($1) WHERE true
            ON CONFLICT (source, line, byte_offset, reason) DO UPDATE SET last_seen_at = excluded.last_seen_at",
        )
        .bind(json(&rejects))
        .bind(self.clock.now_ms())
        .execute(&mut connection)
        .await
        .map_err(at("keep_rejects"))?;
        Ok(())
    }
}

pub(super) fn count_column(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Counts attachments among those that this run has seen, where they have a row.
async fn see(connection: &mut Connection, team: TeamRow, keys: &[AttachmentKey]) -> Result<()> {
    for keys in keys.chunks(PACKED_KEYS) {
        query(
            "-- name: see
            INSERT OR IGNORE INTO temp.seen (attachment_row, known)
            SELECT a.id, CASE a.state WHEN 'archived' THEN 1 ELSE 0 END FROM temp.ordinals n
            CROSS JOIN attachments a ON a.team_id = $1 AND a.key = substr($2, n.i * 16 + 1, 16)
            WHERE n.i < $3",
        )
        .bind(team.0)
        .bind(packed(keys.iter().map(AttachmentKey::as_bytes)))
        .bind(count_column(keys.len()))
        .execute(&mut *connection)
        .await
        .map_err(at("see"))?;
    }
    Ok(())
}

/// What [`insert`] did.
#[derive(Debug, Default)]
pub(super) struct Inserted {
    ingested: Ingested,
    /// The rows of attachments that are new.
    new: Vec<i64>,
    /// The attachments that may have had a row before.
    old: Vec<AttachmentKey>,
}

/// Puts messages, their attachments and the links between them where they are missing, within a transaction.
pub(super) async fn insert(
    connection: &mut Connection,
    team: TeamRow,
    messages: &[IngestMessage],
    (generation, lane): (u64, Lane),
    writer_id: &str,
    now: i64,
) -> Result<Inserted> {
    let attachments = distinct(messages);
    let attachments = numbered(connection, "attachments", attachments, |attachment| *attachment.key.as_bytes()).await?;
    let generation = i64::try_from(generation).unwrap_or(i64::MAX);
    let skips = attachments.iter().filter(|(_, attachment)| attachment.skip_rule.is_some()).count();
    let (mut changed, mut promoted) = (0, 0);
    let (mut new, mut old) = (Vec::new(), Vec::new());
    let mut attachment_rows: HashMap<AttachmentKey, i64> = HashMap::new();
    for chunk in chunks(&attachments) {
        let sql = format!(
            "-- name: ingest_attachments
            INSERT OR FAIL INTO attachments
                (team_id, writer_id, updated_at, lane, id, key, attachment_id, state, declared_size, reason, generation)
            SELECT shared.*, rows.* FROM (SELECT ?, ?, ?, ?) shared CROSS JOIN (VALUES {}) rows ON true WHERE true
            ON CONFLICT (team_id, key) DO NOTHING",
            values(chunk.len(), 7)
        );
        let query = query(sql).bind(team.0).bind(writer_id).bind(now);
        let mut query = query.bind(lane_column(lane));
        for (row, attachment) in chunk {
            let state = if attachment.skip_rule.is_some() { State::Skipped } else { State::Pending };
            query = query
                .bind(*row)
                .bind(&attachment.key.as_bytes()[..])
                .bind(attachment.id.as_str())
                .bind(state.as_str())
                .bind(attachment.declared_size)
                .bind(attachment.skip_rule)
                .bind(if attachment.skip_rule.is_some() { generation } else { 0 });
        }
        let done = query.execute(&mut *connection).await.map_err(at("ingest_attachments"))?;
        changed += done.rows_affected();
        match rows_of_new(&done, chunk) {
            Some(rows) => {
                new.extend(&rows);
                attachment_rows.extend(chunk.iter().map(|(_, attachment)| attachment.key).zip(rows));
            }
            None => {
                changed += accept_skipped(connection, (team, lane), chunk, now).await?;
                let keys: Vec<AttachmentKey> = chunk.iter().map(|(_, attachment)| attachment.key).collect();
                if lane == Lane::Live {
                    promoted += lanes::promote(connection, team, &keys).await?;
                }
                old.extend(keys);
            }
        }
    }
    let mut links = Vec::new();
    let messages = numbered(connection, "messages", messages.iter().collect(), |message| message.line_digest).await?;
    for chunk in chunks(&messages) {
        let sql = format!(
            "-- name: ingest_messages
            INSERT OR FAIL INTO messages (team_id, id, line_digest, message_id, subject, sender, people, sent_at, conversation_id)
            SELECT shared.*, rows.* FROM (SELECT ?) shared CROSS JOIN (VALUES {}) rows ON true WHERE true
            ON CONFLICT (team_id, line_digest) DO NOTHING",
            values(chunk.len(), 8)
        );
        let mut query = query(sql).bind(team.0);
        for (row, IngestMessage { line_digest, line, .. }) in chunk {
            query = query
                .bind(*row)
                .bind(&line_digest[..])
                .bind(line.message.id.as_deref())
                .bind(line.message.subject.as_deref())
                .bind(line.message.from.first().map(String::as_str))
                .bind(People::column(&line.message))
                .bind(line.message.sent_at.as_deref())
                .bind(line.conversation.as_ref().and_then(|conversation| conversation.id.as_deref()));
        }
        let done = query.execute(&mut *connection).await.map_err(at("ingest_messages"))?;
        let mut rows = rows_of_new(&done, chunk).into_iter().flatten();
        for (_, message) in chunk {
            let row = rows.next();
            let attachments = message.line.attachments.iter().zip(&message.references).enumerate();
            links.extend(attachments.map(|(place, (attachment, reference))| Link {
                digest: &message.line_digest,
                key: reference.key,
                rows: row.zip(attachment_rows.get(&reference.key).copied()),
                place,
                attachment,
            }));
        }
    }
    links::insert(connection, team, links).await?;
    let enqueued = changed.saturating_sub(u64::try_from(skips).unwrap_or(u64::MAX));
    Ok(Inserted { ingested: Ingested { enqueued, promoted }, new, old })
}

/// Makes those pending again that are skipped and accepted now; gives how many.
async fn accept_skipped(
    connection: &mut Connection,
    (team, lane): (TeamRow, Lane),
    attachments: &[(Option<i64>, Reference<'_>)],
    now: i64,
) -> Result<u64> {
    let accepted: Vec<_> = attachments
        .iter()
        .map(|(_, attachment)| attachment)
        .filter(|attachment| attachment.skip_rule.is_none())
        .collect();
    let mut changed = 0;
    for chunk in chunks(&accepted) {
        let sql = format!(
            "-- name: accept_skipped
            UPDATE OR FAIL attachments SET
                state = 'pending', reason = NULL, declared_size = new.declared_size, not_before = 0,
                updated_at = new.updated_at, lane = new.lane
            FROM (
                SELECT old.id, v.column2 AS declared_size, shared.updated_at, shared.lane
                FROM (SELECT ? AS team_id, ? AS updated_at, ? AS lane) shared CROSS JOIN (VALUES {}) v ON true
                CROSS JOIN attachments old ON old.team_id = shared.team_id AND old.key = v.column1
                WHERE old.state = 'skipped'
                -- Without it SQLite joins in another order, and walks the whole table.
                LIMIT -1
            ) new WHERE attachments.id = new.id",
            values(chunk.len(), 2)
        );
        let mut query = query(sql).bind(team.0).bind(now).bind(lane_column(lane));
        for attachment in chunk {
            query = query.bind(&attachment.key.as_bytes()[..]).bind(attachment.declared_size);
        }
        changed += query.execute(&mut *connection).await.map_err(at("accept_skipped"))?.rows_affected();
    }
    Ok(changed)
}

/// The attachments of messages, each once, in order: an accepting reference wins over skips.
fn distinct(messages: &[IngestMessage]) -> Vec<Reference<'_>> {
    let mut places: HashMap<AttachmentKey, usize> = HashMap::new();
    let mut attachments: Vec<Reference<'_>> = Vec::new();
    for reference in messages.iter().flat_map(IngestMessage::attachments) {
        match places.get(&reference.key) {
            None => {
                places.insert(reference.key, attachments.len());
                attachments.push(reference);
            }
            Some(place) if attachments[*place].skip_rule.is_some() && reference.skip_rule.is_none() => {
                attachments[*place] = reference;
            }
            Some(_) => {}
        }
    }
    attachments
}

/// Gives what is to be inserted its rows, where others may insert, too: in its order. Then it goes in by its keys, so that
/// two who insert the same do not wait for each other. SQLite gives each row the number after the highest.
async fn numbered<T>(
    connection: &mut Connection,
    table: &str,
    items: Vec<T>,
    key: impl Fn(&T) -> [u8; 16],
) -> Result<Vec<(Option<i64>, T)>> {
    if !connection.is_postgres() || items.is_empty() {
        return Ok(items.into_iter().map(|item| (None, item)).collect());
    }
    let sql = format!(
        "-- name: reserve_rows
        SELECT nextval(s.rows) FROM (SELECT pg_get_serial_sequence('{table}', 'id')::regclass AS rows OFFSET 0) s,
            generate_series(1, ?)"
    );
    let rows = query_scalar::<i64>(sql).bind(count_column(items.len()));
    let rows = rows.fetch_all(connection).await.map_err(at("reserve_rows"))?;
    let mut numbered: Vec<(Option<i64>, T)> = rows.into_iter().map(Some).zip(items).collect();
    numbered.sort_by_cached_key(|(_, item)| key(item));
    Ok(numbered)
}

/// The rows that a statement has inserted, in order, where all of them were new.
fn rows_of_new<T>(done: &Done, items: &[(Option<i64>, T)]) -> Option<Vec<i64>> {
    let count = i64::try_from(items.len()).ok().filter(|count| u64::try_from(*count) == Ok(done.rows_affected()))?;
    match done.last_insert_rowid() {
        Some(last) => Some((last - count + 1..=last).collect()),
        None => items.iter().map(|(row, _)| *row).collect(),
    }
}
