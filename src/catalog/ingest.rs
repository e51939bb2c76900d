//! Taking in what payloads show: messages, their links, and a row for every attachment.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use sqlx::Connection as _;

use super::{Catalog, Result, State, TeamRow, at, json};
use crate::model::{AttachmentId, AttachmentKey, Reject};

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
    /// The message's id.
    pub message_id: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// Its first sender.
    pub sender: Option<String>,
    /// When it was sent, as it came.
    pub sent_at: Option<String>,
    /// Its conversation's slug.
    pub conversation_id: Option<String>,
    /// Its attachments, in order.
    pub references: Vec<IngestReference>,
}

/// One attachment of a message to take in.
#[derive(Debug, Clone)]
pub struct IngestReference {
    /// Its compact key.
    pub key: AttachmentKey,
    /// Its stable id.
    pub attachment_id: AttachmentId,
    /// Its file name.
    pub name: Option<String>,
    /// Its declared media type.
    pub content_type: Option<String>,
    /// Its declared size in bytes.
    pub declared_size: Option<u64>,
    /// Whether the body refers to it.
    pub inline: bool,
    /// The rule that skips it; `None` accepts it.
    pub skip_rule: Option<String>,
}

/// What an ingest changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Attachments that became pending, for display: one that another process took in meanwhile may be missing.
    pub enqueued: u64,
}

#[derive(Serialize)]
struct AttachmentJson<'a> {
    k: String,
    i: String,
    s: &'static str,
    d: Option<i64>,
    r: Option<&'a str>,
}

#[derive(Serialize)]
struct MessageJson<'a> {
    h: String,
    m: Option<&'a str>,
    s: Option<&'a str>,
    f: Option<&'a str>,
    t: Option<&'a str>,
    c: Option<&'a str>,
}

#[derive(Serialize)]
struct LinkJson<'a> {
    h: &'a str,
    p: usize,
    k: String,
    n: Option<&'a str>,
    c: Option<&'a str>,
    d: Option<i64>,
    i: bool,
}

/// A declared size as a column: sizes are below 2^63 by `model::Attachment`'s contract.
fn size_column(size: Option<u64>) -> Option<i64> {
    size.and_then(|size| i64::try_from(size).ok())
}

impl Catalog {
    /// The states of those of `keys` that are known.
    pub async fn known(&self, team: TeamRow, keys: &[AttachmentKey]) -> Result<HashMap<AttachmentKey, Known>> {
        let hex: Vec<String> = keys.iter().map(AttachmentKey::to_hex).collect();
        let mut connection = self.connection().await;
        // One row for all: a row each costs more than finding it.
        let found: Option<String> = sqlx::query_scalar(
            "-- name: known
            SELECT group_concat(j.key || ' ' || a.state) FROM json_each($2) j
            CROSS JOIN attachments a ON a.team_id = $1 AND a.key = unhex(j.value)",
        )
        .bind(team.0)
        .bind(json(&hex))
        .fetch_one(&mut *connection)
        .await
        .map_err(at("known"))?;
        let mut known = HashMap::new();
        for entry in found.as_deref().unwrap_or_default().split_terminator(',') {
            let parsed = entry.split_once(' ').and_then(|(index, state)| Some((index.parse::<usize>().ok()?, state)));
            if let Some((key, state)) = parsed.and_then(|(index, state)| Some((keys.get(index)?, state))) {
                known.insert(*key, Known { state: state.parse()? });
            }
        }
        Ok(known)
    }

    /// Those of `digests` whose message line the journal holds.
    pub async fn known_lines(&self, team: TeamRow, digests: &[[u8; 16]]) -> Result<HashSet<[u8; 16]>> {
        let hex: Vec<String> = digests.iter().map(|digest| data_encoding::HEXLOWER.encode(digest)).collect();
        let mut connection = self.connection().await;
        let found: Option<String> = sqlx::query_scalar(
            "-- name: known_lines
            SELECT group_concat(j.key) FROM json_each($2) j
            CROSS JOIN messages m ON m.team_id = $1 AND m.line_digest = unhex(j.value)",
        )
        .bind(team.0)
        .bind(json(&hex))
        .fetch_one(&mut *connection)
        .await
        .map_err(at("known_lines"))?;
        let indexes = found.as_deref().unwrap_or_default().split_terminator(',');
        Ok(indexes.filter_map(|index| digests.get(index.parse::<usize>().ok()?).copied()).collect())
    }

    /// Takes in messages whose lines (and whose skips' outcome lines) are durable in the journal. New attachments
    /// become pending, or skipped where every reference to them is; a skipped one that is now accepted becomes
    /// pending. `seen` are all attachments of the batch, known ones included: they count in this run's receipt.
    #[expect(clippy::too_many_lines, reason = "one transaction, whose statements are read together")]
    pub async fn ingest(
        &self,
        team: TeamRow,
        messages: &[IngestMessage],
        seen: &[AttachmentKey],
        generation: u64,
        writer_id: &str,
    ) -> Result<Ingested> {
        // One row a key: an accepting reference wins over skips.
        let mut rows: HashMap<AttachmentKey, &IngestReference> = HashMap::new();
        for reference in messages.iter().flat_map(|message| &message.references) {
            rows.entry(reference.key)
                .and_modify(|best| {
                    if best.skip_rule.is_some() && reference.skip_rule.is_none() {
                        *best = reference;
                    }
                })
                .or_insert(reference);
        }
        let attachments: Vec<_> = rows
            .values()
            .map(|reference| AttachmentJson {
                k: reference.key.to_hex(),
                // In hex, as SQLite's JSON functions drop NUL characters.
                i: data_encoding::HEXLOWER.encode(reference.attachment_id.as_str().as_bytes()),
                s: if reference.skip_rule.is_some() { "skipped" } else { "pending" },
                d: size_column(reference.declared_size),
                r: reference.skip_rule.as_deref(),
            })
            .collect();
        let digests: Vec<String> =
            messages.iter().map(|message| data_encoding::HEXLOWER.encode(&message.line_digest)).collect();
        let lines: Vec<_> = messages
            .iter()
            .zip(&digests)
            .map(|(message, digest)| MessageJson {
                h: digest.clone(),
                m: message.message_id.as_deref(),
                s: message.subject.as_deref(),
                f: message.sender.as_deref(),
                t: message.sent_at.as_deref(),
                c: message.conversation_id.as_deref(),
            })
            .collect();
        let links: Vec<_> = messages
            .iter()
            .zip(&digests)
            .flat_map(|(message, digest)| {
                message.references.iter().enumerate().map(move |(place, reference)| LinkJson {
                    h: digest,
                    p: place,
                    k: reference.key.to_hex(),
                    n: reference.name.as_deref(),
                    c: reference.content_type.as_deref(),
                    d: size_column(reference.declared_size),
                    i: reference.inline,
                })
            })
            .collect();
        let seen: Vec<String> = seen.iter().map(AttachmentKey::to_hex).collect();
        let seen = json(&seen);
        let now = self.clock.now_ms();

        let mut connection = self.connection().await;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(at("begin_ingest"))?;
        // What is archived before the run meets it is `known`; everything else is decided by this run.
        const SEE: &str = "-- name: see
            INSERT OR IGNORE INTO temp.seen (attachment_row, known)
            SELECT a.id, a.state = 'archived' FROM json_each($2) j
            CROSS JOIN attachments a ON a.team_id = $1 AND a.key = unhex(j.value)";
        sqlx::query(SEE).bind(team.0).bind(&seen).execute(&mut *transaction).await.map_err(at("see"))?;
        let mut enqueued = 0;
        if !attachments.is_empty() {
            let skips = attachments.iter().filter(|attachment| attachment.r.is_some()).count();
            let done = sqlx::query(
                "-- name: ingest_attachments
                INSERT INTO attachments
                    (team_id, key, attachment_id, state, declared_size, reason, generation, writer_id, updated_at)
                SELECT $1, unhex(value ->> 'k'), CAST(unhex(value ->> 'i') AS TEXT), value ->> 's', value ->> 'd', value ->> 'r',
                    CASE value ->> 's' WHEN 'skipped' THEN $3 ELSE 0 END, $4, $5
                FROM json_each($2) WHERE true
                ON CONFLICT (team_id, key) DO UPDATE SET
                    state = 'pending', reason = NULL, declared_size = excluded.declared_size,
                    not_before = 0, updated_at = excluded.updated_at
                WHERE attachments.state = 'skipped' AND excluded.state = 'pending'",
            )
            .bind(team.0)
            .bind(json(&attachments))
            .bind(i64::try_from(generation).unwrap_or(i64::MAX))
            .bind(writer_id)
            .bind(now)
            .execute(&mut *transaction)
            .await
            .map_err(at("ingest_attachments"))?;
            enqueued = done.rows_affected().saturating_sub(u64::try_from(skips).unwrap_or(u64::MAX));
            sqlx::query(
                "-- name: ingest_messages
                INSERT INTO messages (team_id, line_digest, message_id, subject, sender, sent_at, conversation_id)
                SELECT $1, unhex(value ->> 'h'), value ->> 'm', value ->> 's', value ->> 'f', value ->> 't', value ->> 'c'
                FROM json_each($2) WHERE true
                ON CONFLICT (team_id, line_digest) DO NOTHING",
            )
            .bind(team.0)
            .bind(json(&lines))
            .execute(&mut *transaction)
            .await
            .map_err(at("ingest_messages"))?;
            sqlx::query(
                "-- name: ingest_links
                INSERT INTO links (message_row, place, attachment_row, name, content_type, declared_size, inline)
                SELECT m.id, value ->> 'p', a.id, value ->> 'n', value ->> 'c', value ->> 'd', value ->> 'i'
                FROM json_each($2)
                CROSS JOIN messages m ON m.team_id = $1 AND m.line_digest = unhex(value ->> 'h')
                CROSS JOIN attachments a ON a.team_id = $1 AND a.key = unhex(value ->> 'k')
                WHERE true
                ON CONFLICT (message_row, place) DO NOTHING",
            )
            .bind(team.0)
            .bind(json(&links))
            .execute(&mut *transaction)
            .await
            .map_err(at("ingest_links"))?;
            sqlx::query(SEE).bind(team.0).bind(&seen).execute(&mut *transaction).await.map_err(at("see"))?;
        }
        transaction.commit().await.map_err(at("commit_ingest"))?;
        Ok(Ingested { enqueued })
    }

    /// Keeps what could not be read; the same defect of the same place is kept once.
    pub async fn keep_rejects(&self, rejects: &[Reject]) -> Result<()> {
        if rejects.is_empty() {
            return Ok(());
        }
        let mut connection = self.connection().await;
        sqlx::query(
            "-- name: keep_rejects
            INSERT INTO rejects (source, line, byte_offset, reason, excerpt, first_seen_at, last_seen_at)
            SELECT value ->> '$.position.source', value ->> '$.position.line', value ->> '$.position.byte_offset',
                value ->> 'reason', value ->> 'excerpt', $2, $2
            FROM json_each($1) WHERE true
            ON CONFLICT (source, line, byte_offset, reason) DO UPDATE SET last_seen_at = excluded.last_seen_at",
        )
        .bind(json(&rejects))
        .bind(self.clock.now_ms())
        .execute(&mut *connection)
        .await
        .map_err(at("keep_rejects"))?;
        Ok(())
    }
}
