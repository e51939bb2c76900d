//! What a walk reads: the next conversation, its pages until they are ingested, and the attachments in them.

use super::{Walk, WalkNotes, WalkRow, column, note};
use crate::catalog::engine::query;
use crate::catalog::ingest::count_column;
use crate::catalog::rows::PACKED_KEYS;
use crate::catalog::{Catalog, CatalogError, Result, TeamRow, at};
use crate::model::{AttachmentKey, Conversation};

/// A conversation whose messages are to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToRead {
    /// Its row.
    pub row: i64,
    /// Its fields, as a listing showed them last.
    pub conversation: Conversation,
    /// The fingerprint that the reading will set.
    pub fingerprint: i64,
    /// Where to go on: behind pages that were read, or where the last reading found the last page of one that only grew.
    pub cursor: Option<String>,
    /// Its messages.
    pub messages_count: Option<u64>,
}

/// A page that was read and is not yet ingested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPage {
    /// Its row, which ascends.
    pub row: i64,
    /// What the walker wrote.
    pub content: String,
}

/// How many failures let a conversation wait for the walk's next attempt.
pub(super) const NEXT_TO_READ: &str = "-- name: next_to_read
    SELECT c.id, c.fields, coalesce(c.reading, c.seen), c.next_cursor, c.last_cursor, c.messages_count,
        c.done_messages_count, c.reading IS NOT NULL
    FROM conversations c
    WHERE c.team_id = ? AND c.id > ? AND c.done IS DISTINCT FROM c.seen AND EXISTS (
        SELECT 1 FROM walk_entries e WHERE e.walk_id = ? AND e.key = c.key AND e.failures <= ?)
    ORDER BY c.id LIMIT 1";

impl Catalog {
    /// The next conversation of a walk, behind the row `after`, whose messages are to be read and could not be at most
    /// `failures` times.
    pub async fn next_to_read(&self, walk: &Walk, after: i64, failures: u32) -> Result<Option<ToRead>> {
        let mut connection = self.connection().await;
        let row = query(NEXT_TO_READ)
            .bind(walk.team.0)
            .bind(after)
            .bind(walk.row.0)
            .bind(failures)
            .fetch_optional(&mut connection)
            .await
            .map_err(at("next_to_read"))?;
        row.map(|row| {
            let conversation = serde_json::from_str(row.get(1))
                .map_err(|error| CatalogError::Impossible(format!("conversations.fields: {error}")))?;
            let count = |index: usize| row.get::<Option<i64>>(index).map(i64::cast_unsigned);
            let (now, before) = (count(5), count(6));
            let grew = now.zip(before).is_some_and(|(now, before)| now > before);
            let cursor = if row.get(7) { row.get(3) } else { row.get::<Option<String>>(4).filter(|_| grew) };
            Ok(ToRead { row: row.get(0), conversation, fingerprint: row.get(2), cursor, messages_count: now })
        })
        .transpose()
    }

    /// Keeps a page that was read at `cursor`, until it is ingested, and notes that the reading goes on at `next_cursor`,
    /// or that it is at its end: then the conversation is done as it was listed before. No `content`: nothing of it is to be
    /// ingested.
    pub async fn keep_page(
        &self,
        walk: WalkRow,
        read: &ToRead,
        (cursor, next_cursor): (Option<&str>, Option<&str>),
        content: Option<&str>,
        notes: &WalkNotes,
    ) -> Result<()> {
        let mut connection = self.connection().await;
        let mut transaction = connection.begin().await.map_err(at("begin_keep_page"))?;
        if let Some(content) = content {
            query("-- name: keep_page\nINSERT INTO walk_pages (walk_id, content) VALUES (?, ?)")
                .bind(walk.0)
                .bind(content)
                .execute(&mut transaction)
                .await
                .map_err(at("keep_page"))?;
        }
        let query = match next_cursor {
            Some(next_cursor) => query(
                "-- name: read_on
                UPDATE conversations SET reading = ?, next_cursor = ? WHERE id = ?",
            )
            .bind(read.fingerprint)
            .bind(next_cursor),
            None => query(
                "-- name: read_to_end
                UPDATE conversations SET done = ?, last_cursor = ?, done_messages_count = ?, reading = NULL,
                    next_cursor = NULL
                WHERE id = ?",
            )
            .bind(read.fingerprint)
            .bind(cursor)
            .bind(column(read.messages_count)),
        };
        query.bind(read.row).execute(&mut transaction).await.map_err(at("read_on"))?;
        note(&mut transaction, walk, notes, self.clock.now_ms()).await?;
        transaction.commit().await.map_err(at("commit_keep_page"))
    }

    /// Has a conversation read from its beginning: a cursor of it is refused.
    pub async fn forget_cursors(&self, read: &ToRead) -> Result<()> {
        let mut connection = self.connection().await;
        query(
            "-- name: forget_cursors
            UPDATE conversations SET reading = NULL, next_cursor = NULL, last_cursor = NULL WHERE id = ?",
        )
        .bind(read.row)
        .execute(&mut connection)
        .await
        .map_err(at("forget_cursors"))?;
        Ok(())
    }

    /// Forgets a conversation that is gone. If it is listed again, it is new.
    pub async fn forget_conversation(&self, read: &ToRead) -> Result<()> {
        let mut connection = self.connection().await;
        query("-- name: forget_conversation\nDELETE FROM conversations WHERE id = ?")
            .bind(read.row)
            .execute(&mut connection)
            .await
            .map_err(at("forget_conversation"))?;
        Ok(())
    }

    /// Notes that a conversation could not be read.
    pub async fn failed_to_read(&self, walk: WalkRow, read: &ToRead) -> Result<()> {
        let mut connection = self.connection().await;
        query(
            "-- name: failed_to_read
            UPDATE walk_entries SET failures = failures + 1
            WHERE walk_id = ? AND key = (SELECT key FROM conversations WHERE id = ?)",
        )
        .bind(walk.0)
        .bind(read.row)
        .execute(&mut connection)
        .await
        .map_err(at("failed_to_read"))?;
        Ok(())
    }

    /// Lets a walk try again what it could not read.
    pub async fn forget_failures(&self, walk: WalkRow) -> Result<()> {
        let mut connection = self.connection().await;
        query("-- name: forget_failures\nUPDATE walk_entries SET failures = 0 WHERE walk_id = ? AND failures > 0")
            .bind(walk.0)
            .execute(&mut connection)
            .await
            .map_err(at("forget_failures"))?;
        Ok(())
    }

    /// The first pages of a walk that are not yet ingested: up to `limit`, and of about `bytes` together.
    pub async fn kept_pages(&self, walk: WalkRow, limit: u32, bytes: usize) -> Result<Vec<KeptPage>> {
        let mut connection = self.connection().await;
        let rows = query(
            "-- name: kept_pages
            SELECT id, content FROM (
                SELECT id, content, sum(length(content)) OVER (ORDER BY id) - length(content) AS before
                FROM (SELECT id, content FROM walk_pages WHERE walk_id = ? ORDER BY id LIMIT ?) pages
            ) sized WHERE before <= ? ORDER BY id",
        )
        .bind(walk.0)
        .bind(limit)
        .bind(count_column(bytes))
        .fetch_all(&mut connection)
        .await
        .map_err(at("kept_pages"))?;
        Ok(rows.iter().map(|row| KeptPage { row: row.get(0), content: row.get(1) }).collect())
    }

    /// Notes that the pages of a walk up to the row `upto` are ingested, with the attachments that were in them, each with
    /// whether it was archived before.
    pub async fn pages_ingested(
        &self,
        walk: WalkRow,
        team: TeamRow,
        upto: i64,
        met: &[(AttachmentKey, bool)],
        notes: &WalkNotes,
    ) -> Result<()> {
        let mut connection = self.connection().await;
        let mut transaction = connection.begin().await.map_err(at("begin_pages_ingested"))?;
        query("-- name: drop_pages\nDELETE FROM walk_pages WHERE walk_id = ? AND id <= ?")
            .bind(walk.0)
            .bind(upto)
            .execute(&mut transaction)
            .await
            .map_err(at("drop_pages"))?;
        for is_known in [false, true] {
            let keys: Vec<AttachmentKey> =
                met.iter().filter(|(_, known)| *known == is_known).map(|(key, _)| *key).collect();
            for keys in keys.chunks(PACKED_KEYS) {
                query(
                    "-- name: note_met
                    INSERT OR IGNORE INTO walk_attachments (walk_id, attachment_row, known)
                    SELECT ?, a.id, ? FROM temp.ordinals n
                    CROSS JOIN attachments a ON a.team_id = ? AND a.key = substr(?, n.i * 16 + 1, 16)
                    WHERE n.i < ?",
                )
                .bind(walk.0)
                .bind(is_known)
                .bind(team.0)
                .bind(keys.iter().flat_map(|key| *key.as_bytes()).collect::<Vec<u8>>())
                .bind(count_column(keys.len()))
                .execute(&mut transaction)
                .await
                .map_err(at("note_met"))?;
            }
        }
        note(&mut transaction, walk, notes, self.clock.now_ms()).await?;
        transaction.commit().await.map_err(at("commit_pages_ingested"))
    }
}
