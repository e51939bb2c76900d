//! How far each team's inbox has been taken in, and which copies of inboxes in the archive.

use super::{ArchiveRow, Catalog, Result, TeamRow, at};
use crate::catalog::engine::{Connection, Row, query, query_scalar};

/// A place in a team's inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxPosition {
    /// Which inbox that is.
    pub inbox: String,
    /// The segment.
    pub segment: String,
    /// Bytes of it.
    pub offset: u64,
}

/// Notes how far a team's inbox has been taken in, within a transaction.
pub(super) async fn keep_position(connection: &mut Connection, team: TeamRow, position: &InboxPosition) -> Result<()> {
    query(
        "-- name: keep_inbox_position
        INSERT INTO inbox_positions (team_id, inbox, segment, byte_offset) VALUES (?, ?, ?, ?)
        ON CONFLICT (team_id, inbox) DO UPDATE
        SET segment = excluded.segment, byte_offset = excluded.byte_offset",
    )
    .bind(team.0)
    .bind(&position.inbox)
    .bind(&position.segment)
    .bind(i64::try_from(position.offset).unwrap_or(i64::MAX))
    .execute(connection)
    .await
    .map_err(at("keep_inbox_position"))?;
    Ok(())
}

fn position(row: &Row) -> InboxPosition {
    InboxPosition { inbox: row.get(0), segment: row.get(1), offset: row.get::<i64>(2).cast_unsigned() }
}

impl Catalog {
    /// How far an inbox of a team has been taken in.
    pub async fn inbox_position(&self, team: TeamRow, inbox: &str) -> Result<Option<InboxPosition>> {
        let mut connection = self.connection().await;
        let row = query(
            "-- name: inbox_position
            SELECT inbox, segment, byte_offset FROM inbox_positions WHERE team_id = ? AND inbox = ?",
        )
        .bind(team.0)
        .bind(inbox)
        .fetch_optional(&mut connection)
        .await
        .map_err(at("inbox_position"))?;
        Ok(row.as_ref().map(position))
    }

    /// How far each inbox of a team has been taken in: what changes when a webhook came to anybody.
    pub async fn inbox_positions(&self, team: TeamRow) -> Result<Vec<InboxPosition>> {
        let mut connection = self.connection().await;
        let rows = query(
            "-- name: inbox_positions
            SELECT inbox, segment, byte_offset FROM inbox_positions WHERE team_id = ? ORDER BY inbox",
        )
        .bind(team.0)
        .fetch_all(&mut connection)
        .await
        .map_err(at("inbox_positions"))?;
        Ok(rows.iter().map(position).collect())
    }

    /// The copies of inboxes in an archive that this catalog has taken in, or whose inbox it has.
    pub async fn known_payloads(&self, archive: ArchiveRow) -> Result<Vec<String>> {
        let mut connection = self.connection().await;
        query_scalar("-- name: known_payloads\nSELECT key FROM payload_segments WHERE archive_id = ?")
            .bind(archive.0)
            .fetch_all(&mut connection)
            .await
            .map_err(at("known_payloads"))
    }

    /// Notes that a copy of an inbox needs not be taken in, as all of it is in the catalog.
    pub async fn remember_payloads(&self, archive: ArchiveRow, key: &str) -> Result<()> {
        let mut connection = self.connection().await;
        query(
            "-- name: remember_payloads
            INSERT INTO payload_segments (archive_id, key) VALUES (?, ?) ON CONFLICT (archive_id, key) DO NOTHING",
        )
        .bind(archive.0)
        .bind(key)
        .execute(&mut connection)
        .await
        .map_err(at("remember_payloads"))?;
        Ok(())
    }

    /// Forgets a copy that is no longer in the archive.
    pub async fn forget_payloads(&self, archive: ArchiveRow, key: &str) -> Result<()> {
        let mut connection = self.connection().await;
        query("-- name: forget_payloads\nDELETE FROM payload_segments WHERE archive_id = ? AND key = ?")
            .bind(archive.0)
            .bind(key)
            .execute(&mut connection)
            .await
            .map_err(at("forget_payloads"))?;
        Ok(())
    }
}
