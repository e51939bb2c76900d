//! The contents that a run knows without having fetched them, page by page; and what becomes of attachments whose bytes
//! turn out to be gone.

use super::report::unsigned;
use super::{ArchiveRow, Catalog, CatalogError, Result, at};
use crate::catalog::engine::{long_query as query, long_query_scalar as query_scalar};
use crate::digest::Digest;

/// The content of attachments that this run has seen and that were archived before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownContent {
    /// Its digest.
    pub sha256: Digest,
    /// Its size in bytes, as it was recorded.
    pub size_bytes: u64,
}

impl Catalog {
    /// Gathers the known contents of what this run has seen so far, each once, in a temporary table on disk. Gives how
    /// many there are.
    pub async fn begin_recheck(&self) -> Result<u64> {
        let mut connection = self.seen_connection().await?;
        for statement in [
            "-- name: drop_rechecked\nDROP TABLE IF EXISTS temp.rechecked",
            "-- name: create_rechecked
            CREATE TEMP TABLE rechecked (sha256 BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL) WITHOUT ROWID",
            "-- name: gather_rechecked
            INSERT OR IGNORE INTO temp.rechecked (sha256, size_bytes)
            SELECT a.sha256, a.size_bytes FROM temp.seen s CROSS JOIN attachments a ON a.id = s.attachment_row
            WHERE s.known <> 0 AND a.state = 'archived' AND a.sha256 IS NOT NULL",
        ] {
            query(statement).execute(&mut connection).await.map_err(at("begin_recheck"))?;
        }
        let count: i64 = query_scalar("-- name: count_rechecked\nSELECT count(*) FROM temp.rechecked")
            .fetch_one(&mut connection)
            .await
            .map_err(at("count_rechecked"))?;
        Ok(count.cast_unsigned())
    }

    /// The next gathered contents after `after`, in order, at most `limit`.
    pub async fn known_contents(&self, after: Option<Digest>, limit: usize) -> Result<Vec<KnownContent>> {
        let mut connection = self.connection().await;
        let rows = query(
            "-- name: known_contents
            SELECT sha256, size_bytes FROM temp.rechecked WHERE sha256 > $1 ORDER BY sha256 LIMIT $2",
        )
        .bind(after.as_ref().map_or(&[][..], |digest| &digest.as_bytes()[..]))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut connection)
        .await
        .map_err(at("known_contents"))?;
        rows.iter()
            .map(|row| {
                let sha256: &[u8] = row.get(0);
                let sha256 = sha256.try_into().map_err(|_| CatalogError::Impossible("attachments.sha256".into()))?;
                Ok(KnownContent { sha256: Digest::from_bytes(sha256), size_bytes: unsigned(row, 1) })
            })
            .collect()
    }

    /// Notes that the bytes of a known content are gone or wrong, and puts one attachment of this run that has them back
    /// to the start of the queue: one brings them back for all. It counts as decided by this run. Gives whether one was
    /// put back; not where its state has changed meanwhile.
    pub async fn lose_content(&self, archive: ArchiveRow, content: KnownContent) -> Result<bool> {
        let mut connection = self.seen_connection().await?;
        let mut transaction = connection.begin().await.map_err(at("begin_lose_content"))?;
        let row: Option<i64> = query_scalar(
            "-- name: requeue_lost
            UPDATE attachments SET state = 'pending', attempts = 0, not_found_count = 0, not_before = 0, lane = 1,
                updated_at = $3, sha256 = NULL, size_bytes = NULL, sniffed_type = NULL,
                reason = 'its bytes were missing from the archive'
            WHERE id = (SELECT a.id FROM attachments a JOIN teams t ON t.id = a.team_id
                WHERE a.sha256 = $2 AND a.state = 'archived' AND t.archive_id = $1
                    AND EXISTS (SELECT 1 FROM temp.seen s WHERE s.attachment_row = a.id AND s.known <> 0)
                ORDER BY a.id LIMIT 1)
            RETURNING id",
        )
        .bind(archive.0)
        .bind(&content.sha256.as_bytes()[..])
        .bind(self.clock.now_ms())
        .fetch_optional(&mut transaction)
        .await
        .map_err(at("requeue_lost"))?;
        if let Some(row) = row {
            query("-- name: unknow_lost\nUPDATE temp.seen SET known = 0 WHERE attachment_row = $1")
                .bind(row)
                .execute(&mut transaction)
                .await
                .map_err(at("unknow_lost"))?;
            query(
                "-- name: damage_lost
                INSERT INTO blobs (archive_id, sha256, size_bytes, state) VALUES ($1, $2, $3, 'damaged')
                ON CONFLICT (archive_id, sha256) DO UPDATE SET state = 'damaged'",
            )
            .bind(archive.0)
            .bind(&content.sha256.as_bytes()[..])
            .bind(i64::try_from(content.size_bytes).unwrap_or(i64::MAX))
            .execute(&mut transaction)
            .await
            .map_err(at("damage_lost"))?;
        }
        transaction.commit().await.map_err(at("commit_lose_content"))?;
        Ok(row.is_some())
    }
}
