//! What a walk has before it, and what became of what it has met.

use super::{Walk, WalkRow};
use crate::catalog::engine::{long_query as query, long_query_scalar as query_scalar};
use crate::catalog::{Catalog, Result, at};

/// What a walk knows once all is listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WalkTotals {
    /// Conversations that it has met.
    pub listed: u64,
    /// Those of them which may hold attachments.
    pub conversations: u64,
    /// Those of them whose messages are to be read.
    pub to_read: u64,
    /// The pages of messages of those, of 100 each; one where their number is not told.
    pub pages: u64,
    /// The attachments of all, where they are told.
    pub attachments: u64,
    /// Those that are in conversations which need not be read, and those of the others that the catalog knows.
    pub known: u64,
    /// Conversations that could not be read.
    pub failed: u64,
}

impl Catalog {
    /// What a walk has before it.
    pub async fn walk_totals(&self, walk: &Walk) -> Result<WalkTotals> {
        let mut connection = self.connection().await;
        let row = query(
            "-- name: walk_totals
            SELECT count(c.id), count(c.id) FILTER (WHERE c.done IS DISTINCT FROM c.seen),
                CAST(coalesce(sum(max(1, (coalesce(c.messages_count, 1) - CASE WHEN c.last_cursor IS NULL THEN 0
                    ELSE min(coalesce(c.done_messages_count, 0), coalesce(c.messages_count, 1)) END + 99) / 100))
                    FILTER (WHERE c.done IS DISTINCT FROM c.seen), 0) AS BIGINT),
                CAST(coalesce(sum(c.attachments_count), 0) AS BIGINT),
                CAST(coalesce(sum(c.attachments_count) FILTER (WHERE c.done IS NOT DISTINCT FROM c.seen), 0) AS BIGINT),
                count(c.id) FILTER (WHERE e.failures > 0 AND c.done IS DISTINCT FROM c.seen), count(*)
            FROM walk_entries e LEFT JOIN conversations c ON c.team_id = ? AND c.key = e.key
            WHERE e.walk_id = ?",
        )
        .bind(walk.team.0)
        .bind(walk.row.0)
        .fetch_one(&mut connection)
        .await
        .map_err(at("walk_totals"))?;
        let id = connection.pick("c.fields ->> 'id'", "json_field(c.fields, 'id')");
        let known: i64 = query_scalar(format!(
            "-- name: walk_known
            SELECT count(DISTINCT l.attachment_row) FROM messages m JOIN links l ON l.message_row = m.id
            WHERE m.team_id = ? AND m.conversation_id IN (
                SELECT {id} FROM walk_entries e JOIN conversations c ON c.team_id = ? AND c.key = e.key
                WHERE e.walk_id = ? AND c.done IS DISTINCT FROM c.seen)"
        ))
        .bind(walk.team.0)
        .bind(walk.team.0)
        .bind(walk.row.0)
        .fetch_one(&mut connection)
        .await
        .map_err(at("walk_known"))?;
        let count = |index: usize| row.get::<i64>(index).cast_unsigned();
        let attachments = row.get::<i64>(3).cast_unsigned();
        Ok(WalkTotals {
            listed: count(6),
            conversations: count(0),
            to_read: count(1),
            pages: count(2),
            attachments,
            known: (count(4) + known.cast_unsigned()).min(attachments),
            failed: count(5),
        })
    }

    /// Counts the attachments that a walk has met among those that this run has seen.
    pub async fn see_walk(&self, walk: WalkRow) -> Result<()> {
        let mut connection = self.seen_connection().await?;
        query(
            "-- name: see_walk
            INSERT INTO temp.seen (attachment_row, known)
            SELECT attachment_row, known FROM walk_attachments WHERE walk_id = ?
            ON CONFLICT (attachment_row) DO UPDATE SET known = excluded.known",
        )
        .bind(walk.0)
        .execute(&mut connection)
        .await
        .map_err(at("see_walk"))?;
        Ok(())
    }

    /// How many attachments of a team wait.
    pub async fn pending(&self, team: crate::catalog::TeamRow) -> Result<u64> {
        let mut connection = self.connection().await;
        let count: Option<i64> = query_scalar(
            "-- name: pending\nSELECT attachments FROM state_totals WHERE team_id = ? AND state = 'pending'",
        )
        .bind(team.0)
        .fetch_optional(&mut connection)
        .await
        .map_err(at("pending"))?;
        Ok(count.unwrap_or_default().cast_unsigned())
    }
}
