//! The lanes of pending attachments: which go first, and which come to the front later.

use std::collections::{HashSet, VecDeque};

use super::ingest::count_column;
use super::jobs::LeaseJson;
use super::rows::PACKED_KEYS;
use super::{Catalog, Job, Lease, Result, TeamRow, at, json};
use crate::catalog::engine::{Connection, query, query_scalar};
use crate::model::{AttachmentKey, Lane};

/// A lane as a column.
pub(super) const fn lane_column(lane: Lane) -> i64 {
    match lane {
        Lane::Live => 0,
        Lane::Bulk => 1,
    }
}

/// By their keys, of which each is one row: whoever has a lease on one works on.
const PROMOTE: &str = "-- name: promote
    UPDATE attachments SET lane = 0
    WHERE team_id = ? AND state = 'pending' AND lane = 1
        AND key IN (SELECT substr(?, n.i * 16 + 1, 16) FROM temp.ordinals n WHERE n.i < ?)";

/// In the order in which leases end, too.
const PROMOTE_OF_MANY: &str = "-- name: promote_of_many
    WITH waiting AS (SELECT id FROM attachments
        WHERE team_id = ? AND state = 'pending' AND lane = 1
            AND key IN (SELECT substr(?, n.i * 16 + 1, 16) FROM temp.ordinals n WHERE n.i < ?)
        ORDER BY id FOR UPDATE)
    UPDATE attachments SET lane = 0 FROM waiting WHERE attachments.id = waiting.id";

const PROMOTE_ROWS: &str = "-- name: promote_rows
    UPDATE attachments SET lane = 0
    WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each(?)) AND state = 'pending' AND lane = 1";

/// Brings pending bulk attachments among `keys` into the live lane; gives how many.
pub(super) async fn promote(connection: &mut Connection, team: TeamRow, keys: &[AttachmentKey]) -> Result<u64> {
    let mut promoted = 0;
    for keys in keys.chunks(PACKED_KEYS) {
        let packed: Vec<u8> = keys.iter().flat_map(|key| *key.as_bytes()).collect();
        let query =
            query(connection.pick(PROMOTE, PROMOTE_OF_MANY)).bind(team.0).bind(packed).bind(count_column(keys.len()));
        promoted += query.execute(&mut *connection).await.map_err(at("promote"))?.rows_affected();
    }
    Ok(promoted)
}

/// The same, of rows.
pub(super) async fn promote_rows(connection: &mut Connection, rows: &[i64]) -> Result<u64> {
    if rows.is_empty() {
        return Ok(0);
    }
    let query = query(PROMOTE_ROWS).bind(json(&rows));
    Ok(query.execute(connection).await.map_err(at("promote_rows"))?.rows_affected())
}

impl Catalog {
    /// Takes those leases out of a queue of bulk work whose attachments have come into the live lane since.
    pub async fn take_promoted(&self, queue: &mut VecDeque<Lease<Job>>) -> Result<Vec<Lease<Job>>> {
        if queue.is_empty() {
            return Ok(Vec::new());
        }
        let leases: Vec<_> = queue.iter().map(|lease| LeaseJson::new(&lease.ticket())).collect();
        let mut connection = self.connection().await;
        let rows: Vec<i64> = query_scalar(
            "-- name: promoted
            SELECT a.id FROM json_each(?) j CROSS JOIN attachments a ON a.id = CAST(j.value ->> 'i' AS BIGINT) AND a.lane = 0",
        )
        .bind(json(&leases))
        .fetch_all(&mut connection)
        .await
        .map_err(at("promoted"))?;
        drop(connection);
        let rows: HashSet<i64> = rows.into_iter().collect();
        let (promoted, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(queue).into_iter().partition(|lease| rows.contains(&lease.ticket().row()));
        *queue = rest;
        Ok(promoted.into_iter().map(Lease::into_live).collect())
    }
}

#[cfg(test)]
mod tests;
