//! What an export reads and remembers: archived attachments with their messages, and, in temporary tables on disk, the
//! places they get. Memory stays flat however many there are.

mod staged;

use serde::Serialize;

use super::report::unsigned;
use super::{ArchiveRow, Catalog, CatalogError, Result, at, json};
use crate::catalog::engine::{Row, long_query as query};
use crate::digest::Digest;
use crate::model::AttachmentKey;

/// An archived attachment as one message line shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportRow {
    /// The row of the message line.
    pub message_row: i64,
    /// Its place in the message.
    pub place: i64,
    /// Its key.
    pub key: AttachmentKey,
    /// Its team's `archive_key`.
    pub team: String,
    /// The bytes it has.
    pub sha256: Digest,
    /// Their size.
    pub size_bytes: u64,
    /// The media type that those bytes show.
    pub sniffed_type: Option<String>,
    /// When it was archived, in milliseconds since the Unix epoch.
    pub archived_at_ms: i64,
    /// Its file name, as it came.
    pub name: Option<String>,
    /// Its declared media type.
    pub content_type: Option<String>,
    /// The message's subject.
    pub subject: Option<String>,
    /// Its first sender.
    pub sender: Option<String>,
    /// When it was sent, as it came.
    pub sent_at: Option<String>,
    /// Its id.
    pub message_id: Option<String>,
    /// Its conversation's id.
    pub conversation_id: Option<String>,
    /// The digest of the message line, which is the same in every catalog.
    pub line_digest: [u8; 16],
}

/// A place of an export: an attachment in one conversation, or once. Of several messages the least `order` counts.
#[derive(Debug, Clone)]
pub struct ExportPlace {
    /// What it is, the same in every run.
    pub id: [u8; 16],
    /// Where it stands among all places.
    pub order: Vec<u8>,
    /// The message line and the place in it.
    pub link: (i64, i64),
    /// The bytes.
    pub sha256: Digest,
    /// Their size.
    pub size_bytes: u64,
    /// The conversation, where that matters.
    pub conversation: Option<[u8; 16]>,
}

/// A message with files, as its conversation sees it. Of several the least `order` counts.
#[derive(Debug, Clone)]
pub struct ExportConversation {
    /// The conversation.
    pub id: [u8; 16],
    /// Where the message stands among all.
    pub order: Vec<u8>,
    /// When it was sent.
    pub sent_ms: Option<i64>,
    /// Its subject.
    pub subject: Option<String>,
    /// The folder that an earlier run gave the conversation.
    pub folder: Option<String>,
}

/// A path that an export has given away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The place.
    pub id: [u8; 16],
    /// Its path.
    pub path: String,
    /// The bytes that belong there.
    pub sha256: Digest,
    /// The file's time, if the file was made.
    pub modified_ms: Option<i64>,
}

/// A place, with everything that is known of it.
#[derive(Debug, Clone)]
pub struct ExportItem {
    /// The place.
    pub id: [u8; 16],
    /// Where it stands among all places: the cursor.
    pub order: Vec<u8>,
    /// The attachment and its message.
    pub row: ExportRow,
    /// When the first message of its conversation was sent.
    pub conversation_sent_ms: Option<i64>,
    /// The subject of that message.
    pub conversation_subject: Option<String>,
    /// The folder that an earlier run gave the conversation.
    pub folder: Option<String>,
    /// The path that an earlier run gave it, and the time of the file.
    pub given: Option<(String, Option<i64>)>,
}

/// What there is to export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ExportTotals {
    /// Places.
    pub places: u64,
    /// The bytes of all their files.
    pub bytes: u64,
    /// Places without a file from an earlier run.
    pub new_places: u64,
    /// The bytes of their files.
    pub new_bytes: u64,
    /// The bytes of those of their contents that no earlier file has, each once.
    pub new_content_bytes: u64,
}

const ROW_COLUMNS: &str = "l.message_row, l.place, a.key, t.archive_key, a.sha256, a.size_bytes, a.sniffed_type,
        a.updated_at, l.name, l.content_type, m.subject, m.sender, m.sent_at, m.message_id, m.conversation_id,
        m.line_digest";

fn digest(bytes: Option<&[u8]>) -> Result<Digest> {
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.map(Digest::from_bytes).ok_or_else(|| CatalogError::Impossible("attachments.sha256".into()))
}

fn short(bytes: &[u8]) -> Result<[u8; 16]> {
    bytes.try_into().map_err(|_| CatalogError::Impossible("a key of 16 bytes".into()))
}

fn export_row(row: &Row) -> Result<ExportRow> {
    let key = AttachmentKey::from_slice(row.get(2));
    Ok(ExportRow {
        message_row: row.get(0),
        place: row.get(1),
        key: key.ok_or_else(|| CatalogError::Impossible("attachments.key".into()))?,
        team: row.get(3),
        sha256: digest(row.get(4))?,
        size_bytes: unsigned(row, 5),
        sniffed_type: row.get(6),
        archived_at_ms: row.get(7),
        name: row.get(8),
        content_type: row.get(9),
        subject: row.get(10),
        sender: row.get(11),
        sent_at: row.get(12),
        message_id: row.get(13),
        conversation_id: row.get(14),
        line_digest: short(row.get(15))?,
    })
}

impl Catalog {
    /// Archived attachments by the messages that show them, in the order of their rows: at most `limit` after `after`.
    pub async fn export_rows(&self, archive: ArchiveRow, after: (i64, i64), limit: u32) -> Result<Vec<ExportRow>> {
        let sql = format!(
            "-- name: export_rows
            SELECT {ROW_COLUMNS} FROM links l
            CROSS JOIN messages m ON m.id = l.message_row CROSS JOIN teams t ON t.id = m.team_id
            CROSS JOIN attachments a ON a.id = l.attachment_row
            WHERE (l.message_row, l.place) > ($2, $3) AND t.archive_id = $1 AND a.state = 'archived'
            ORDER BY l.message_row, l.place LIMIT $4"
        );
        let mut connection = self.connection().await;
        let rows = query(sql)
            .bind(archive.0)
            .bind(after.0)
            .bind(after.1)
            .bind(limit)
            .fetch_all(&mut connection)
            .await
            .map_err(at("export_rows"))?;
        rows.iter().map(export_row).collect()
    }

    /// Puts the staged places in order, and counts them.
    pub async fn export_totals(&self) -> Result<ExportTotals> {
        let mut connection = self.connection().await;
        query("CREATE INDEX IF NOT EXISTS temp.export_order ON export_places (position, id)")
            .execute(&mut connection)
            .await
            .map_err(at("order_export"))?;
        let all = query(
            "-- name: export_totals
            SELECT count(*), CAST(sum(p.size_bytes) AS BIGINT), count(*) FILTER (WHERE e.id IS NULL),
                CAST(sum(p.size_bytes) FILTER (WHERE e.id IS NULL) AS BIGINT)
            FROM temp.export_places p LEFT JOIN temp.exported e ON e.id = p.id AND e.modified_ms IS NOT NULL",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(at("export_totals"))?;
        let contents = query(
            "-- name: export_content_totals
            SELECT CAST(sum(size_bytes) AS BIGINT) FROM (
                SELECT max(p.size_bytes) AS size_bytes FROM temp.export_places p WHERE NOT EXISTS (
                    SELECT 1 FROM temp.exported e WHERE e.sha256 = p.sha256 AND e.modified_ms IS NOT NULL)
                GROUP BY p.sha256) contents",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(at("export_content_totals"))?;
        Ok(ExportTotals {
            places: unsigned(&all, 0),
            bytes: unsigned(&all, 1),
            new_places: unsigned(&all, 2),
            new_bytes: unsigned(&all, 3),
            new_content_bytes: unsigned(&contents, 0),
        })
    }

    /// The staged places in order: at most `limit` after the one with that order and id.
    pub async fn export_items(&self, after: (&[u8], [u8; 16]), limit: u32) -> Result<Vec<ExportItem>> {
        let sql = format!(
            "-- name: export_items
            SELECT {ROW_COLUMNS}, p.id, p.position, c.sent_ms, c.subject, c.folder, e.path, e.modified_ms
            FROM temp.export_places p CROSS JOIN links l ON l.message_row = p.message_row AND l.place = p.place
            CROSS JOIN messages m ON m.id = l.message_row CROSS JOIN teams t ON t.id = m.team_id
            CROSS JOIN attachments a ON a.id = l.attachment_row
            LEFT JOIN temp.export_conversations c ON c.id = p.conversation LEFT JOIN temp.exported e ON e.id = p.id
            WHERE (p.position, p.id) > ($1, $2) ORDER BY p.position, p.id LIMIT $3"
        );
        let mut connection = self.connection().await;
        let rows = query(sql)
            .bind(after.0)
            .bind(&after.1[..])
            .bind(limit)
            .fetch_all(&mut connection)
            .await
            .map_err(at("export_items"))?;
        rows.iter()
            .map(|row| {
                let path: Option<String> = row.get(21);
                Ok(ExportItem {
                    row: export_row(row)?,
                    id: short(row.get(16))?,
                    order: row.get(17),
                    conversation_sent_ms: row.get(18),
                    conversation_subject: row.get(19),
                    folder: row.get(20),
                    given: path.map(|path| (path, row.get(22))),
                })
            })
            .collect()
    }

    /// For each of `digests` that a file of the export has: the first such file, and its time.
    pub async fn exported_with(&self, digests: &[Digest]) -> Result<Vec<(Digest, String, i64)>> {
        let mut connection = self.connection().await;
        let rows = query(
            "-- name: exported_with
            SELECT sha256, path, modified_ms FROM (
                SELECT sha256, path, modified_ms, row_number() OVER (PARTITION BY sha256 ORDER BY path) AS place
                FROM temp.exported
                WHERE modified_ms IS NOT NULL AND sha256 IN (SELECT unhex(value) FROM json_each($1))
            ) files WHERE place = 1",
        )
        .bind(json(&digests))
        .fetch_all(&mut connection)
        .await
        .map_err(at("exported_with"))?;
        rows.iter().map(|row| Ok((digest(row.get(0))?, row.get(1), row.get(2)))).collect()
    }

    /// How many archived attachments no message shows, so that no export can have them. `verify` calls them problems.
    pub async fn archived_without_message(&self, archive: ArchiveRow) -> Result<u64> {
        let mut connection = self.connection().await;
        let row = query(
            "-- name: archived_without_message
            SELECT count(*) FROM attachments a WHERE a.state = 'archived'
                AND a.team_id IN (SELECT id FROM teams WHERE archive_id = $1)
                AND NOT EXISTS (SELECT 1 FROM links l WHERE l.attachment_row = a.id)",
        )
        .bind(archive.0)
        .fetch_one(&mut connection)
        .await
        .map_err(at("archived_without_message"))?;
        Ok(unsigned(&row, 0))
    }
}
