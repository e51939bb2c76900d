//! What people decide on single attachments.

use super::{ArchiveRow, AttachmentRow, Catalog, Result, at};
use crate::catalog::engine::query;
use crate::digest::Digest;

impl Catalog {
    /// Puts attachments that failed, were quarantined or wait for a later attempt back to the start of the queue, with
    /// all attempts ahead; they count as seen by this run. Gives how many.
    pub async fn requeue(&self, rows: &[i64]) -> Result<u64> {
        let mut connection = self.seen_connection().await?;
        let mut transaction = connection.begin().await.map_err(at("begin_requeue"))?;
        let rows = serde_json::to_string(rows).expect("numbers always serialise");
        let done = query(
            "-- name: requeue
            UPDATE attachments SET state = 'pending', attempts = 0, not_found_count = 0, not_before = 0,
                updated_at = $2, sha256 = NULL, size_bytes = NULL, sniffed_type = NULL
            FROM (SELECT CAST(value AS BIGINT) AS row_id FROM json_each($1)) j
            WHERE attachments.id = j.row_id AND attachments.state IN ('failed', 'quarantined', 'pending')
                AND attachments.lease_token IS NULL",
        )
        .bind(&rows)
        .bind(self.clock.now_ms())
        .execute(&mut transaction)
        .await
        .map_err(at("requeue"))?;
        query(
            "-- name: see_rows
            INSERT OR IGNORE INTO temp.seen (attachment_row, known)
            SELECT a.id, CASE a.state WHEN 'archived' THEN 1 ELSE 0 END FROM json_each($1) j
            CROSS JOIN attachments a ON a.id = CAST(j.value AS BIGINT)",
        )
        .bind(&rows)
        .execute(&mut transaction)
        .await
        .map_err(at("see_rows"))?;
        transaction.commit().await.map_err(at("commit_requeue"))?;
        Ok(done.rows_affected())
    }

    /// Takes a quarantined attachment as archived, once its blob and outcome line are durable. Gives whether it was
    /// still quarantined with those bytes. `reason` is what its outcome line says.
    pub async fn accept(
        &self,
        archive: ArchiveRow,
        attachment: &AttachmentRow,
        generation: u64,
        reason: &str,
        writer_id: &str,
        segment: (&str, Digest),
    ) -> Result<bool> {
        let Some(sha256) = attachment.sha256 else { return Ok(false) };
        let mut connection = self.connection().await;
        let mut transaction = connection.begin().await.map_err(at("begin_accept"))?;
        query(
            "-- name: accept_blob
            INSERT INTO blobs (archive_id, sha256, size_bytes, state) VALUES ($1, $2, $3, 'durable')
            ON CONFLICT (archive_id, sha256) DO UPDATE SET state = 'durable'",
        )
        .bind(archive.0)
        .bind(&sha256.as_bytes()[..])
        .bind(i64::try_from(attachment.size_bytes.unwrap_or(0)).unwrap_or(i64::MAX))
        .execute(&mut transaction)
        .await
        .map_err(at("accept_blob"))?;
        super::journal::remember_segment(&mut transaction, archive, segment.0, segment.1).await?;
        let done = query(
            "-- name: accept
            UPDATE attachments SET state = 'archived', generation = $3, writer_id = $4, updated_at = $5, reason = $6
            WHERE id = $1 AND state = 'quarantined' AND sha256 = $2",
        )
        .bind(attachment.row)
        .bind(&sha256.as_bytes()[..])
        .bind(i64::try_from(generation).unwrap_or(i64::MAX))
        .bind(writer_id)
        .bind(self.clock.now_ms())
        .bind(reason)
        .execute(&mut transaction)
        .await
        .map_err(at("accept"))?;
        transaction.commit().await.map_err(at("commit_accept"))?;
        Ok(done.rows_affected() == 1)
    }
}
