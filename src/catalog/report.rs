//! What people ask of the catalog: totals, lists, and the decisions they take on them.

use serde::Serialize;

use super::bulk::totals_are_kept;
use super::{ArchiveRow, BlobState, Catalog, CatalogError, Result, State, at};
use crate::catalog::engine::{Row, long_query, long_query_scalar, query, query_scalar};
use crate::digest::Digest;
use crate::model::AttachmentKey;

/// Attachments by the place they are in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each field is the state of that name")]
pub struct StateTotals {
    pub archived: u64,
    pub skipped: u64,
    pub failed: u64,
    pub quarantined: u64,
    pub erased: u64,
    pub pending: u64,
}

impl StateTotals {
    fn add(&mut self, state: State, count: u64) {
        *match state {
            State::Archived => &mut self.archived,
            State::Skipped => &mut self.skipped,
            State::Failed => &mut self.failed,
            State::Quarantined => &mut self.quarantined,
            State::Erased => &mut self.erased,
            State::Pending => &mut self.pending,
        } += count;
    }

    /// All of them.
    pub fn sum(&self) -> u64 {
        self.archived + self.skipped + self.failed + self.quarantined + self.erased + self.pending
    }
}

/// The attachments that this run has seen. `states.archived` leaves out those that were archived before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SeenTotals {
    /// Distinct attachments.
    pub attachments: u64,
    /// Archived before this run met them.
    pub known: u64,
    /// The others.
    pub states: StateTotals,
    /// Pending ones that are leased.
    pub leased: u64,
}

/// One team in figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TeamTotals {
    /// Its `archive_key`.
    pub team: String,
    /// Its attachments.
    #[serde(flatten)]
    pub states: StateTotals,
    /// Its distinct message lines.
    pub messages: u64,
    /// The bytes that its archived attachments have together; a content counts once for each attachment.
    pub archived_bytes: u64,
}

/// One attachment as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttachmentRow {
    /// Its row.
    #[serde(skip)]
    pub row: i64,
    /// Its short id.
    pub id: String,
    /// Its team's `archive_key`.
    pub team: String,
    /// Its place.
    pub state: State,
    /// Its file name in the first message that showed it.
    pub name: Option<String>,
    /// That message's subject.
    pub subject: Option<String>,
    /// That message's sender.
    pub sender: Option<String>,
    /// When that message was sent, as it came.
    pub sent_at: Option<String>,
    /// Its declared media type.
    pub content_type: Option<String>,
    /// Its declared size in bytes.
    pub declared_size: Option<u64>,
    /// The bytes it has, where it was fetched.
    pub sha256: Option<Digest>,
    /// Their size.
    pub size_bytes: Option<u64>,
    /// The media type that those bytes show.
    pub sniffed_type: Option<String>,
    /// Rule or reason.
    pub reason: Option<String>,
    /// Attempts that were spent.
    pub attempts: u64,
    /// The last change, in milliseconds since the Unix epoch.
    pub updated_at_ms: i64,
    /// The stable id, which is not printed.
    #[serde(skip)]
    pub attachment_id: String,
    /// The generation of its outcome.
    #[serde(skip)]
    pub generation: u64,
}

/// Something that could not be read, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectRow {
    /// Where it was read.
    pub source: String,
    /// Counted from 1.
    pub line: u64,
    /// Counted from 0, in the decompressed text.
    pub byte_offset: u64,
    /// What is wrong with it.
    pub reason: String,
    /// Its first characters.
    pub excerpt: String,
    /// When it was first met, in milliseconds since the Unix epoch.
    pub first_seen_at_ms: i64,
}

pub(super) fn unsigned(row: &Row, column: usize) -> u64 {
    row.get::<Option<i64>>(column).and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}

/// The columns that [`attachment`] takes.
pub(super) const ATTACHMENT_COLUMNS: &str =
    "SELECT a.id, a.key, t.archive_key, a.state, l.name, m.subject, m.sender, m.sent_at,
        l.content_type, a.declared_size, a.sha256, a.size_bytes, a.reason, a.attempts, a.updated_at, a.attachment_id,
        a.generation, a.sniffed_type
    FROM attachments a JOIN teams t ON t.id = a.team_id
    LEFT JOIN links l ON (l.message_row, l.place) =
        (SELECT f.message_row, f.place FROM links f WHERE f.attachment_row = a.id ORDER BY f.message_row LIMIT 1)
    LEFT JOIN messages m ON m.id = l.message_row";

/// Reads a row of [`ATTACHMENT_COLUMNS`].
pub(super) fn attachment(row: &Row) -> Result<AttachmentRow> {
    let key: &[u8] = row.get(1);
    let key = AttachmentKey::from_slice(key).ok_or_else(|| CatalogError::Impossible("attachments.key".into()))?;
    let sha256: Option<&[u8]> = row.get(10);
    let optional = |column| row.get::<Option<i64>>(column).and_then(|number| u64::try_from(number).ok());
    Ok(AttachmentRow {
        row: row.get(0),
        id: key.to_string(),
        team: row.get(2),
        state: row.get::<&str>(3).parse()?,
        name: row.get(4),
        subject: row.get(5),
        sender: row.get(6),
        sent_at: row.get(7),
        content_type: row.get(8),
        declared_size: optional(9),
        sha256: sha256.and_then(|bytes| bytes.try_into().ok()).map(Digest::from_bytes),
        size_bytes: optional(11),
        reason: row.get(12),
        attempts: unsigned(row, 13),
        updated_at_ms: row.get(14),
        attachment_id: row.get(15),
        generation: unsigned(row, 16),
        sniffed_type: row.get(17),
    })
}

/// What is true of an attachment that a process works on.
const LEASED: &str = "a.lease_token IS NOT NULL";

/// The condition that `condition` is true of any attachment `a` that this run has seen.
fn seen(condition: &str) -> String {
    format!(
        "EXISTS (SELECT 1 FROM attachments a WHERE {condition}
            AND EXISTS (SELECT 1 FROM temp.seen s WHERE s.attachment_row = a.id))"
    )
}

impl Catalog {
    /// What became of the attachments that this run has seen, as the catalog knows it now.
    pub async fn seen_totals(&self) -> Result<SeenTotals> {
        let mut connection = self.seen_connection().await?;
        // In one walk, which groups nothing: sorting costs more than counting.
        let row = long_query(
            "-- name: seen_totals
            SELECT count(*), count(a.lease_token), count(*) FILTER (WHERE s.known <> 0 AND a.state = 'archived'),
                count(*) FILTER (WHERE s.known = 0 AND a.state = 'archived'),
                count(*) FILTER (WHERE a.state = 'skipped'), count(*) FILTER (WHERE a.state = 'failed'),
                count(*) FILTER (WHERE a.state = 'quarantined'), count(*) FILTER (WHERE a.state = 'erased'),
                count(*) FILTER (WHERE a.state = 'pending')
            FROM temp.seen s LEFT JOIN attachments a ON a.id = s.attachment_row",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(at("seen_totals"))?;
        Ok(SeenTotals {
            attachments: unsigned(&row, 0),
            leased: unsigned(&row, 1),
            known: unsigned(&row, 2),
            states: StateTotals {
                archived: unsigned(&row, 3),
                skipped: unsigned(&row, 4),
                failed: unsigned(&row, 5),
                quarantined: unsigned(&row, 6),
                erased: unsigned(&row, 7),
                pending: unsigned(&row, 8),
            },
        })
    }

    /// Forgets what this run has seen: for a service, whose runs never end and give no account.
    pub async fn forget_seen(&self) -> Result<()> {
        let mut connection = self.seen_connection().await?;
        query("-- name: forget_seen\nDELETE FROM temp.seen")
            .execute(&mut connection)
            .await
            .map_err(at("forget_seen"))?;
        Ok(())
    }

    /// How many attachments this writer has decided that this run has not seen: work that earlier runs left pending.
    pub async fn decided_unseen(&self, writer_id: &str) -> Result<u64> {
        let mut connection = self.seen_connection().await?;
        let count: i64 = long_query_scalar(
            "-- name: decided_unseen
            SELECT count(*) FROM attachments a WHERE a.writer_id = $1 AND a.state IN ('archived', 'failed', 'quarantined')
                AND NOT EXISTS (SELECT 1 FROM temp.seen s WHERE s.attachment_row = a.id)",
        )
        .bind(writer_id)
        .fetch_one(&mut connection)
        .await
        .map_err(at("decided_unseen"))?;
        Ok(count.cast_unsigned())
    }

    /// Whether any attachment that this run has seen is pending.
    pub async fn any_seen_pending(&self) -> Result<bool> {
        let mut connection = self.seen_connection().await?;
        // Two conditions, each with an index of its own.
        let (free, leased) = (seen("a.state = 'pending' AND a.lease_token IS NULL"), seen(LEASED));
        let sql = format!("-- name: any_seen_pending\nSELECT {free} OR {leased}");
        query_scalar(sql).fetch_one(&mut connection).await.map_err(at("any_seen_pending"))
    }

    /// Whether another process works on any attachment that this run has seen. To be asked while this one holds no lease.
    pub async fn any_seen_leased(&self) -> Result<bool> {
        let mut connection = self.seen_connection().await?;
        let sql = format!("-- name: any_seen_leased\nSELECT {}", seen(LEASED));
        query_scalar(sql).fetch_one(&mut connection).await.map_err(at("any_seen_leased"))
    }

    /// Every team of `archive` in figures.
    pub async fn team_totals(&self, archive: ArchiveRow) -> Result<Vec<TeamTotals>> {
        let mut connection = self.connection().await;
        let (states, messages) = if totals_are_kept(&mut connection).await? {
            ("state_totals", "message_totals")
        } else {
            ("counted_states", "counted_messages")
        };
        let sql = format!(
            "-- name: team_totals
            SELECT t.archive_key, s.state, s.attachments, s.archived_bytes,
                (SELECT m.messages FROM {messages} m WHERE m.team_id = t.id)
            FROM teams t LEFT JOIN {states} s ON s.team_id = t.id
            WHERE t.archive_id = $1 ORDER BY t.archive_key"
        );
        let rows = query(sql).bind(archive.0).fetch_all(&mut connection).await.map_err(at("team_totals"))?;
        let mut teams: Vec<TeamTotals> = Vec::new();
        for row in &rows {
            let team: String = row.get(0);
            if teams.last().is_none_or(|last| last.team != team) {
                let states = StateTotals::default();
                teams.push(TeamTotals { team, states, messages: unsigned(row, 4), archived_bytes: 0 });
            }
            if let (Some(totals), Some(state)) = (teams.last_mut(), row.get::<Option<&str>>(1)) {
                totals.states.add(state.parse()?, unsigned(row, 2));
                totals.archived_bytes += unsigned(row, 3);
            }
        }
        Ok(teams)
    }

    /// The distinct contents of archived attachments, and their bytes together.
    pub async fn content_totals(&self, archive: ArchiveRow) -> Result<(u64, u64)> {
        let mut connection = self.connection().await;
        let contents = if totals_are_kept(&mut connection).await? { "content_totals" } else { "counted_contents" };
        let sql = format!("-- name: content_totals\nSELECT contents, bytes FROM {contents} WHERE archive_id = $1");
        let row = query(sql).bind(archive.0).fetch_optional(&mut connection).await.map_err(at("content_totals"))?;
        Ok(row.map_or((0, 0), |row| (unsigned(&row, 0), unsigned(&row, 1))))
    }

    /// Attachments of `archive` in `state`, the last changed first, at most `limit`.
    pub async fn in_state(&self, archive: ArchiveRow, state: State, limit: u64) -> Result<Vec<AttachmentRow>> {
        let mut connection = self.connection().await;
        let sql = format!(
            "-- name: in_state\n{ATTACHMENT_COLUMNS}
            WHERE t.archive_id = $1 AND a.state = $2 ORDER BY a.updated_at DESC, a.id LIMIT $3"
        );
        let rows = query(sql)
            .bind(archive.0)
            .bind(state.as_str())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut connection)
            .await
            .map_err(at("in_state"))?;
        rows.iter().map(attachment).collect()
    }

    /// The archived attachments of `archive` that have these bytes.
    pub async fn by_digest(&self, archive: ArchiveRow, sha256: Digest) -> Result<Vec<AttachmentRow>> {
        let mut connection = self.connection().await;
        let sql = format!(
            "-- name: by_digest\n{ATTACHMENT_COLUMNS}
            WHERE t.archive_id = $1 AND a.sha256 = $2 ORDER BY a.id"
        );
        let rows = query(sql)
            .bind(archive.0)
            .bind(&sha256.as_bytes()[..])
            .fetch_all(&mut connection)
            .await
            .map_err(at("by_digest"))?;
        rows.iter().map(attachment).collect()
    }

    /// What could not be read, the latest first, at most `limit`.
    pub async fn rejects(&self, limit: u64) -> Result<Vec<RejectRow>> {
        let mut connection = self.connection().await;
        let rows = query(
            "-- name: rejects
            SELECT source, line, byte_offset, reason, excerpt, first_seen_at FROM rejects ORDER BY id DESC LIMIT $1",
        )
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut connection)
        .await
        .map_err(at("rejects"))?;
        Ok(rows
            .iter()
            .map(|row| RejectRow {
                source: row.get(0),
                line: unsigned(row, 1),
                byte_offset: unsigned(row, 2),
                reason: row.get(3),
                excerpt: row.get(4),
                first_seen_at_ms: row.get(5),
            })
            .collect())
    }

    /// How many things could not be read.
    pub async fn reject_count(&self) -> Result<u64> {
        let mut connection = self.connection().await;
        let count: i64 = query_scalar("-- name: reject_count\nSELECT count(*) FROM rejects")
            .fetch_one(&mut connection)
            .await
            .map_err(at("reject_count"))?;
        Ok(count.cast_unsigned())
    }

    /// Sets what is known of a blob.
    pub async fn set_blob_state(
        &self,
        archive: ArchiveRow,
        sha256: Digest,
        size_bytes: u64,
        state: BlobState,
    ) -> Result<()> {
        let mut connection = self.connection().await;
        query(
            "-- name: set_blob_state
            INSERT INTO blobs (archive_id, sha256, size_bytes, state) VALUES ($1, $2, $3, $4)
            ON CONFLICT (archive_id, sha256) DO UPDATE SET state = excluded.state",
        )
        .bind(archive.0)
        .bind(&sha256.as_bytes()[..])
        .bind(i64::try_from(size_bytes).unwrap_or(i64::MAX))
        .bind(state.as_str())
        .execute(&mut connection)
        .await
        .map_err(at("set_blob_state"))?;
        Ok(())
    }
}
