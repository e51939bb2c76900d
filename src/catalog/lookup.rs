//! Finding attachments by what a person types, and the figures that `status` shows.

use super::bulk::totals_are_kept;
use super::report::{ATTACHMENT_COLUMNS, attachment, unsigned};
use super::{ArchiveRow, AttachmentRow, Catalog, Result, State, TeamRow, at};
use crate::catalog::engine::{long_query_scalar, query, query_scalar};
use crate::digest::Digest;
use crate::model::AttachmentKey;

impl Catalog {
    /// The attachments of `archive` whose key lies between `low` and `high`, both included, at most `limit`.
    pub async fn by_key_range(
        &self,
        archive: ArchiveRow,
        low: AttachmentKey,
        high: AttachmentKey,
        limit: u64,
    ) -> Result<Vec<AttachmentRow>> {
        let sql = format!(
            "-- name: by_key_range\n{ATTACHMENT_COLUMNS}
            WHERE t.archive_id = $1 AND a.team_id IN (SELECT id FROM teams WHERE archive_id = $1)
                AND a.key BETWEEN $2 AND $3 ORDER BY a.key LIMIT $4"
        );
        self.by_range(sql, archive, low.as_bytes(), high.as_bytes(), limit).await
    }

    /// The attachments of `archive` that have, or had in quarantine, bytes whose digest lies between `low` and `high`,
    /// both included, at most `limit`.
    pub async fn by_digest_range(
        &self,
        archive: ArchiveRow,
        low: Digest,
        high: Digest,
        limit: u64,
    ) -> Result<Vec<AttachmentRow>> {
        let sql = format!(
            "-- name: by_digest_range\n{ATTACHMENT_COLUMNS}
            WHERE t.archive_id = $1 AND a.sha256 BETWEEN $2 AND $3 ORDER BY a.sha256, a.id LIMIT $4"
        );
        self.by_range(sql, archive, low.as_bytes(), high.as_bytes(), limit).await
    }

    async fn by_range(
        &self,
        sql: String,
        archive: ArchiveRow,
        low: &[u8],
        high: &[u8],
        limit: u64,
    ) -> Result<Vec<AttachmentRow>> {
        let mut connection = self.connection().await;
        let rows = query(sql)
            .bind(archive.0)
            .bind(low)
            .bind(high)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut connection)
            .await
            .map_err(at("by_range"))?;
        rows.iter().map(attachment).collect()
    }

    /// The rows of one team's attachments in `state`.
    pub async fn rows_in_state(&self, team: TeamRow, state: State) -> Result<Vec<i64>> {
        let mut connection = self.connection().await;
        long_query_scalar(
            "-- name: rows_in_state
            SELECT id FROM attachments WHERE team_id = $1 AND state = $2 ORDER BY id",
        )
        .bind(team.0)
        .bind(state.as_str())
        .fetch_all(&mut connection)
        .await
        .map_err(at("rows_in_state"))
    }

    /// When anything of `archive` last changed, in milliseconds since the Unix epoch.
    pub async fn last_activity_ms(&self, archive: ArchiveRow) -> Result<Option<i64>> {
        let mut connection = self.connection().await;
        let states = if totals_are_kept(&mut connection).await? { "state_totals" } else { "counted_states" };
        let sql = format!(
            "-- name: last_activity
            SELECT max(changed_at) FROM {states} WHERE team_id IN (SELECT id FROM teams WHERE archive_id = $1)"
        );
        query_scalar(sql).bind(archive.0).fetch_one(&mut connection).await.map_err(at("last_activity"))
    }

    /// How many blobs of `archive` are known to be missing or wrong.
    pub async fn damaged_blobs(&self, archive: ArchiveRow) -> Result<u64> {
        let mut connection = self.connection().await;
        let row = query(connection.pick(
            "-- name: damaged_blobs
            SELECT count(*) FROM blobs WHERE archive_id = $1 AND state = 'damaged'",
            "-- name: blobs_that_are_damaged
            SELECT count(*) FROM blobs WHERE archive_id = $1 AND is_damaged",
        ))
        .bind(archive.0)
        .fetch_one(&mut connection)
        .await
        .map_err(at("damaged_blobs"))?;
        Ok(unsigned(&row, 0))
    }
}
