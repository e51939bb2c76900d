//! What is known of the journal: which segments are loaded, and what it does not hold yet.

use std::collections::HashMap;

use super::{ArchiveRow, Catalog, CatalogError, Result, TeamRow, at, json};
use crate::catalog::engine::{Connection, long_query, query, query_scalar};
use crate::digest::Digest;
use crate::model::{AttachmentId, SegmentRef};

/// Empties the tables of what one archive's journal tells: for a catalog of that archive alone, and beside others.
const FORGET: [(&str, &str); 8] = [
    (
        "-- name: forget_all_links\nDELETE FROM links",
        "-- name: forget_links
        DELETE FROM links WHERE message_row IN
            (SELECT m.id FROM messages m JOIN teams t ON t.id = m.team_id WHERE t.archive_id = $1)",
    ),
    (
        "-- name: forget_all_messages\nDELETE FROM messages",
        "-- name: forget_messages
        DELETE FROM messages WHERE team_id IN (SELECT id FROM teams WHERE archive_id = $1)",
    ),
    (
        "-- name: forget_all_attachments\nDELETE FROM attachments",
        "-- name: forget_attachments
        DELETE FROM attachments WHERE team_id IN (SELECT id FROM teams WHERE archive_id = $1)",
    ),
    ("-- name: forget_all_texts\nDELETE FROM texts", "-- name: forget_texts\nDELETE FROM texts WHERE $1 IS NOT NULL"),
    ("-- name: forget_all_blobs\nDELETE FROM blobs", "-- name: forget_blobs\nDELETE FROM blobs WHERE archive_id = $1"),
    (
        "-- name: forget_all_segments\nDELETE FROM segments",
        "-- name: forget_segments\nDELETE FROM segments WHERE archive_id = $1",
    ),
    // What was read of Jelly is known by the journal alone: the next backfill looks whether it is there.
    (
        "-- name: forget_all_conversations\nDELETE FROM conversations",
        "-- name: forget_conversations
        DELETE FROM conversations WHERE team_id IN (SELECT id FROM teams WHERE archive_id = $1)",
    ),
    (
        "-- name: forget_all_met\nDELETE FROM walk_attachments",
        "-- name: forget_met
        DELETE FROM walk_attachments WHERE walk_id IN
            (SELECT w.id FROM walks w JOIN teams t ON t.id = w.team_id WHERE t.archive_id = $1)",
    ),
];

/// A segment that the catalog has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadedSegment {
    /// The digest of its bytes.
    pub sha256: Digest,
    /// Whether a later segment replaces it, so that it may vanish.
    pub superseded: bool,
    /// Whether its lines were loaded from it. One that was replaced before this catalog met it is known by name only, and
    /// one that was left has lines that no longer came from a lease.
    pub loaded: bool,
}

impl LoadedSegment {
    /// Whether it is to be loaded, although its writer took it in: some of its lines came too late for their leases.
    pub fn is_left(&self) -> bool {
        !self.loaded && !self.superseded
    }
}

/// Columns of an attachment named by a skip that the journal does not hold yet.
pub type UnjournaledSkip = (i64, AttachmentId, String);

/// `segments.superseded` of a segment that was replaced before it was loaded.
const REPLACED_UNREAD: i64 = 2;
/// `segments.superseded` of a segment whose lines are to be merged yet.
const LEFT: i64 = 3;

/// Notes that a segment has been loaded or written.
pub(super) async fn remember_segment(
    connection: &mut Connection,
    archive: ArchiveRow,
    key: &str,
    sha256: Digest,
) -> Result<()> {
    query(
        "-- name: remember_segment
        INSERT INTO segments (archive_id, key, sha256) VALUES ($1, $2, $3)
        ON CONFLICT (archive_id, key) DO UPDATE SET superseded = CASE segments.superseded WHEN 2 THEN 1 ELSE 0 END
            WHERE segments.superseded IN (2, 3)",
    )
    .bind(archive.0)
    .bind(key)
    .bind(&sha256.as_bytes()[..])
    .execute(connection)
    .await
    .map_err(at("remember_segment"))?;
    Ok(())
}

/// Notes that a segment was written whose lines could not all be taken in, so that a load merges them. Nothing changes if
/// it was loaded meanwhile.
pub(super) async fn leave_segment(
    connection: &mut Connection,
    archive: ArchiveRow,
    key: &str,
    sha256: Digest,
) -> Result<()> {
    query(
        "-- name: leave_segment
        INSERT INTO segments (archive_id, key, sha256, superseded) VALUES ($1, $2, $3, $4)
        ON CONFLICT (archive_id, key) DO NOTHING",
    )
    .bind(archive.0)
    .bind(key)
    .bind(&sha256.as_bytes()[..])
    .bind(LEFT)
    .execute(connection)
    .await
    .map_err(at("leave_segment"))?;
    Ok(())
}

pub(super) async fn supersede_segments(
    connection: &mut Connection,
    archive: ArchiveRow,
    replaced: &[SegmentRef],
) -> Result<()> {
    let rows: Vec<(&str, String)> =
        replaced.iter().map(|segment| (segment.key.as_str(), segment.sha256.to_hex())).collect();
    query(
        "-- name: supersede_segments
        INSERT INTO segments (archive_id, key, sha256, superseded)
        SELECT $1, value ->> 0, unhex(value ->> 1), 2 FROM json_each($2) WHERE true
        ON CONFLICT (archive_id, key) DO UPDATE SET superseded = CASE segments.superseded WHEN 0 THEN 1 ELSE 2 END
            WHERE segments.superseded IN (0, 3)",
    )
    .bind(archive.0)
    .bind(json(&rows))
    .execute(connection)
    .await
    .map_err(at("supersede_segments"))?;
    Ok(())
}

impl Catalog {
    /// The segments that this catalog has seen, by key.
    pub async fn segments(&self, archive: ArchiveRow) -> Result<HashMap<String, LoadedSegment>> {
        let mut connection = self.connection().await;
        let rows = query(
            "-- name: segments
            SELECT key, sha256, superseded FROM segments WHERE archive_id = $1",
        )
        .bind(archive.0)
        .fetch_all(&mut connection)
        .await
        .map_err(at("segments"))?;
        rows.iter()
            .map(|row| {
                let superseded: i64 = row.get(2);
                let sha256: &[u8] = row.get(1);
                let sha256 = sha256.try_into().map_err(|_| CatalogError::Impossible("segments.sha256".into()))?;
                Ok((
                    row.get(0),
                    LoadedSegment {
                        sha256: Digest::from_bytes(sha256),
                        superseded: ![0, LEFT].contains(&superseded),
                        loaded: ![REPLACED_UNREAD, LEFT].contains(&superseded),
                    },
                ))
            })
            .collect()
    }

    /// Notes a message segment that this process has written; its messages go in by [`Catalog::ingest`].
    pub async fn remember_segment(&self, archive: ArchiveRow, key: &str, sha256: Digest) -> Result<()> {
        let mut connection = self.connection().await;
        remember_segment(&mut connection, archive, key, sha256).await
    }

    /// Notes that segments are replaced by a later one, which need not be loaded yet. To be told before that one counts
    /// as loaded: nobody would look at it again.
    pub async fn supersede_segments(&self, archive: ArchiveRow, replaced: &[SegmentRef]) -> Result<()> {
        let mut connection = self.connection().await;
        supersede_segments(&mut connection, archive, replaced).await
    }

    /// Notes that the lines of replaced segments are loaded, from those that replaced them.
    pub async fn replaced_are_loaded(&self, archive: ArchiveRow, replaced: &[SegmentRef]) -> Result<()> {
        let keys: Vec<&str> = replaced.iter().map(|segment| segment.key.as_str()).collect();
        let mut connection = self.connection().await;
        query(
            "-- name: replaced_are_loaded
            UPDATE segments SET superseded = 1
            WHERE archive_id = $1 AND superseded = 2 AND key IN (SELECT value FROM json_each($2))",
        )
        .bind(archive.0)
        .bind(json(&keys))
        .execute(&mut connection)
        .await
        .map_err(at("replaced_are_loaded"))?;
        Ok(())
    }

    /// Skips whose outcome line the journal does not hold: a writer died between a message and its outcomes. Once
    /// their lines are durable, [`Catalog::mark_journaled`] gives them that generation.
    pub async fn unjournaled_skips(&self, team: TeamRow) -> Result<Vec<UnjournaledSkip>> {
        let mut connection = self.connection().await;
        let rows = query(
            "-- name: unjournaled_skips
            SELECT id, attachment_id, coalesce(reason, '') FROM attachments
            WHERE team_id = $1 AND state = 'skipped' AND generation = 0",
        )
        .bind(team.0)
        .fetch_all(&mut connection)
        .await
        .map_err(at("unjournaled_skips"))?;
        rows.iter()
            .map(|row| {
                let id = row
                    .get::<String>(1)
                    .try_into()
                    .map_err(|_| CatalogError::Impossible("attachments.attachment_id".into()))?;
                Ok((row.get(0), id, row.get(2)))
            })
            .collect()
    }

    /// Gives skips that are now in the journal their generation.
    pub async fn mark_journaled(&self, rows: &[i64], generation: u64, writer_id: &str) -> Result<()> {
        let mut connection = self.connection().await;
        query(
            "-- name: mark_journaled
            UPDATE attachments SET generation = $2, writer_id = $3
            FROM (SELECT CAST(value AS BIGINT) AS row_id FROM json_each($1)) j WHERE attachments.id = j.row_id AND attachments.generation = 0",
        )
        .bind(json(&rows))
        .bind(i64::try_from(generation).unwrap_or(i64::MAX))
        .bind(writer_id)
        .execute(&mut connection)
        .await
        .map_err(at("mark_journaled"))?;
        Ok(())
    }

    /// Forgets everything that the journal of `archive` can tell again. For `rebuild`, under the worker lock.
    pub async fn forget_archive(&self, archive: ArchiveRow, _lock: &super::WorkerLock) -> Result<()> {
        let mut connection = self.connection().await;
        let mut transaction = connection.begin().await.map_err(at("begin_forget"))?;
        // No triggers for each row: the totals are counted once at the end. Nor for a filler, which makes them itself.
        let has_triggers = !transaction.is_postgres() && super::bulk::totals_are_kept(&mut transaction).await?;
        if has_triggers {
            super::bulk::drop_triggers(&mut transaction).await?;
        }
        let others: bool = query_scalar(
            "-- name: other_archives
            SELECT EXISTS (SELECT 1 FROM archives WHERE id <> $1)",
        )
        .bind(archive.0)
        .fetch_one(&mut transaction)
        .await
        .map_err(at("other_archives"))?;
        for (all, ours) in FORGET {
            // Without a condition SQLite empties a table at once.
            let statement = if others { long_query(ours).bind(archive.0) } else { long_query(all) };
            statement.execute(&mut transaction).await.map_err(at("forget_archive"))?;
        }
        if has_triggers {
            super::bulk::count_totals(&mut transaction).await?;
        }
        super::find::forget(&mut transaction).await?;
        transaction.commit().await.map_err(at("commit_forget"))
    }
}
