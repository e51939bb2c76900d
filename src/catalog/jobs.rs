//! Jobs and leases: who may work on what, and how the work ends.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::lanes::lane_column;
use super::{Catalog, CatalogError, Result, TeamRow, at, json};
use crate::catalog::engine::{Connection, Row, long_query, query, query_scalar};
use crate::model::{AttachmentId, AttachmentKey, Lane};

/// What is to be done: ids only. Made by [`Catalog::claim`] alone.
#[derive(Debug, Clone)]
pub struct Job {
    row: i64,
    team: TeamRow,
    lane: Lane,
    key: AttachmentKey,
    attachment_id: AttachmentId,
    declared_size: Option<u64>,
    attempts: u32,
    not_found_count: u32,
}

impl Job {
    /// Whose attachment it is.
    pub fn team(&self) -> TeamRow {
        self.team
    }

    /// Whether it goes first.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// Its compact key, whose short form names it to people.
    pub fn key(&self) -> AttachmentKey {
        self.key
    }

    /// Its stable id.
    pub fn attachment_id(&self) -> &AttachmentId {
        &self.attachment_id
    }

    /// Its declared size in bytes.
    pub fn declared_size(&self) -> Option<u64> {
        self.declared_size
    }

    /// How many attempts were spent before this one.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How often the API said before that there is no such attachment.
    pub fn not_found_count(&self) -> u32 {
        self.not_found_count
    }
}

/// The right to work on a [`Job`] until the lease expires. Made by [`Catalog::claim`] alone; it ends when it is
/// completed or released, or by itself when it expires.
#[derive(Debug)]
pub struct Lease<T> {
    job: T,
    token: [u8; 16],
    generation: u64,
}

impl<T> Lease<T> {
    /// What the lease is for.
    pub fn job(&self) -> &T {
        &self.job
    }

    /// The number of this grant, above every one before it.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

#[derive(Serialize)]
pub(super) struct LeaseJson {
    i: i64,
    t: String,
}

impl LeaseJson {
    pub(super) const fn row(&self) -> i64 {
        self.i
    }

    pub(super) fn new(ticket: &LeaseTicket) -> Self {
        Self { i: ticket.row, t: data_encoding::HEXLOWER.encode(&ticket.token) }
    }
}

/// By the first entry of each lane in one index, and the leased ones, of which there are few.
pub(super) const WAITING_SINCE: &str = "-- name: waiting_since
    SELECT min(since) FROM (
        SELECT since FROM (SELECT updated_at AS since FROM attachments
            WHERE team_id = ? AND lane = 0 AND state = 'pending' AND lease_token IS NULL ORDER BY not_before, id LIMIT 1) live
        UNION ALL
        SELECT since FROM (SELECT updated_at AS since FROM attachments
            WHERE team_id = ? AND lane = 1 AND state = 'pending' AND lease_token IS NULL ORDER BY not_before, id LIMIT 1) bulk
        UNION ALL
        SELECT min(updated_at) FROM attachments WHERE lease_token IS NOT NULL AND +team_id = ?) waiting";

pub(super) const DUE: &str = "-- name: due
    SELECT EXISTS (SELECT 1 FROM attachments
        WHERE team_id = ? AND lane = ? AND state = 'pending' AND lease_token IS NULL AND not_before <= ?)";

pub(super) const CLAIM: &str = "-- name: claim
    UPDATE attachments SET lease_token = randomblob(16), lease_expires_at = ?, generation = ?
    WHERE id IN (SELECT id FROM attachments
        WHERE team_id = ? AND lane = ? AND state = 'pending' AND lease_token IS NULL AND not_before <= ?
        ORDER BY not_before, id LIMIT ?)
    RETURNING id, key, attachment_id, declared_size, attempts, not_found_count, lease_token, not_before, generation";

pub(super) const NEXT_DUE: &str = "-- name: next_due
    SELECT min(not_before) FROM attachments
    WHERE team_id = ? AND lane = ? AND state = 'pending' AND lease_token IS NULL";

pub(super) const DUE_LANES: &str = "-- name: due_lanes
    SELECT t.team_id, l.lane FROM (SELECT CAST(value AS BIGINT) AS team_id FROM json_each(?)) t
    CROSS JOIN (VALUES (CAST(0 AS BIGINT)), (1)) l (lane) ON true
    WHERE EXISTS (SELECT 1 FROM attachments a WHERE a.team_id = t.team_id AND a.lane = l.lane
        AND a.state = 'pending' AND a.lease_token IS NULL AND a.not_before <= ? OFFSET 0)";

pub(super) const HELD: &str = "-- name: held
    SELECT a.id FROM json_each(?) j CROSS JOIN attachments a
    ON a.id = CAST(j.value ->> 'i' AS BIGINT) AND a.lease_token = unhex(j.value ->> 't') AND a.state = 'pending'";

/// Whoever claims at the same time takes others. One statement, and thus one transaction, which is over even if this process
/// is stopped. It is on the disk before anything is fetched: a crash of the server neither forgets who had what, nor gives out a
/// generation again.
const CLAIM_OF_MANY: &str = "-- name: claim_of_many
    WITH due AS MATERIALIZED (SELECT id FROM attachments
        WHERE team_id = ?2 AND lane = ?3 AND state = 'pending' AND lease_token IS NULL AND not_before <= ?4
        ORDER BY not_before, id LIMIT ?5 FOR UPDATE SKIP LOCKED),
        issued AS MATERIALIZED (SELECT nextval('generation') AS latest)
    UPDATE attachments SET lease_token = random_token(), lease_expires_at = ?1, lease_member = ?6,
        generation = (SELECT latest FROM issued)
    WHERE id = ANY (ARRAY(SELECT id FROM due))
    RETURNING id, key, attachment_id, declared_size, attempts, not_found_count, lease_token, not_before, generation";

impl Catalog {
    /// Issues the next generation, above all that were issued or loaded.
    pub async fn next_generation(&self) -> Result<u64> {
        let mut connection = self.connection().await;
        Ok(next_generation(&mut connection).await?.cast_unsigned())
    }

    /// Leases up to `limit` attachments of a lane of `team` that are due, the longest due first, for `duration`.
    pub async fn claim(&self, team: TeamRow, lane: Lane, limit: usize, duration: Duration) -> Result<Vec<Lease<Job>>> {
        let now = self.clock.now_ms();
        let expires_at = now.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
        let mut connection = self.connection().await;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = if connection.is_postgres() {
            // Whoever shares a catalog has looked for all teams at once.
            let claim =
                query(CLAIM_OF_MANY).bind(expires_at).bind(team.0).bind(lane_column(lane)).bind(now).bind(limit);
            let claim = claim.bind(self.member.load(Ordering::Relaxed));
            claim.fetch_all(&mut connection).await.map_err(at("claim_of_many"))?
        } else {
            let due = query_scalar(DUE).bind(team.0).bind(lane_column(lane)).bind(now);
            let due: bool = due.fetch_one(&mut connection).await.map_err(at("due"))?;
            if !due {
                return Ok(Vec::new());
            }
            let mut transaction = connection.begin().await.map_err(at("begin_claim"))?;
            let generation = next_generation(&mut transaction).await?;
            let claim = query(CLAIM).bind(expires_at).bind(generation).bind(team.0).bind(lane_column(lane)).bind(now);
            let rows = claim.bind(limit).fetch_all(&mut transaction).await.map_err(at("claim"))?;
            transaction.commit().await.map_err(at("commit_claim"))?;
            rows
        };
        let leases = rows.iter().map(|row| Ok((row.get::<i64>(7), lease(row, (team, lane))?)));
        let mut leases: Vec<(i64, Lease<Job>)> = leases.collect::<Result<_>>()?;
        // An UPDATE gives its rows in no order.
        leases.sort_by_key(|(not_before, lease)| (*not_before, lease.job.row));
        Ok(leases.into_iter().map(|(_, lease)| lease).collect())
    }

    /// The lanes of `teams` in which something is due. `None` where asking for each with its claim is as cheap.
    pub async fn due_lanes(&self, teams: &[TeamRow]) -> Result<Option<HashSet<(TeamRow, Lane)>>> {
        let mut connection = self.connection().await;
        if !connection.is_postgres() {
            return Ok(None);
        }
        let teams: Vec<i64> = teams.iter().map(|team| team.0).collect();
        let rows = query(DUE_LANES)
            .bind(json(&teams))
            .bind(self.clock.now_ms())
            .fetch_all(&mut connection)
            .await
            .map_err(at("due_lanes"))?;
        let lane = |column: i64| if column == lane_column(Lane::Live) { Lane::Live } else { Lane::Bulk };
        Ok(Some(rows.iter().map(|row| (TeamRow(row.get(0)), lane(row.get(1)))).collect()))
    }

    /// Those of these leases that are still held.
    pub async fn still_held(&self, leases: &[LeaseTicket]) -> Result<HashSet<LeaseTicket>> {
        let tickets: Vec<_> = leases.iter().map(LeaseJson::new).collect();
        let mut connection = self.connection().await;
        let rows: Vec<i64> =
            query_scalar(HELD).bind(json(&tickets)).fetch_all(&mut connection).await.map_err(at("held"))?;
        let rows: HashSet<i64> = rows.into_iter().collect();
        Ok(leases.iter().filter(|lease| rows.contains(&lease.row)).copied().collect())
    }

    /// Since when the attachment of `team` waits whose turn it is next, or now: since it was first seen, or last tried. In
    /// milliseconds since the Unix epoch; `None` if none waits.
    pub async fn waiting_since_ms(&self, team: TeamRow) -> Result<Option<i64>> {
        let mut connection = self.connection().await;
        query_scalar(WAITING_SINCE)
            .bind(team.0)
            .bind(team.0)
            .bind(team.0)
            .fetch_one(&mut connection)
            .await
            .map_err(at("waiting_since"))
    }

    /// Takes back every lease. Only for the holder of the worker lock, when it starts: whoever held them is gone. On
    /// PostgreSQL, where others may hold some, it changes nothing.
    pub async fn release_all(&self, _lock: &super::WorkerLock) -> Result<u64> {
        let mut connection = self.connection().await;
        if connection.is_postgres() {
            // Others may be at work: what its holder does not renew expires.
            return Ok(0);
        }
        let done = query(
            "-- name: release_all
            UPDATE attachments SET lease_token = NULL, lease_expires_at = NULL WHERE lease_token IS NOT NULL",
        )
        .execute(&mut connection)
        .await
        .map_err(at("release_all"))?;
        Ok(done.rows_affected())
    }

    /// Takes back the leases that have expired, or whose holder's session is gone. On PostgreSQL, this is also the time to look at the server's clock again,
    /// and to sum up the changes of the totals.
    pub async fn release_expired(&self) -> Result<u64> {
        let mut connection = self.connection().await;
        if connection.is_postgres() {
            let now_ms = query_scalar("-- name: server_time\nSELECT now_ms()");
            let now_ms: i64 = now_ms.fetch_one(&mut connection).await.map_err(at("server_time"))?;
            self.clock.set_server_ms(now_ms);
            long_query("-- name: sum_changes\nSELECT sum_changes()")
                .execute(&mut connection)
                .await
                .map_err(at("sum_changes"))?;
        }
        let done = query(connection.pick(
            "-- name: release_expired
            UPDATE attachments SET lease_token = NULL, lease_expires_at = NULL
            WHERE lease_token IS NOT NULL AND lease_expires_at < $1",
            "-- name: release_expired_and_orphaned
            WITH free AS MATERIALIZED (SELECT id FROM attachments
                WHERE lease_token IS NOT NULL AND (lease_expires_at < $1
                    OR lease_member <> 0 AND lease_member NOT IN (SELECT id FROM members_at_work))
                ORDER BY id FOR UPDATE SKIP LOCKED)
            UPDATE attachments SET lease_token = NULL, lease_expires_at = NULL FROM free WHERE attachments.id = free.id",
        ))
        .bind(self.clock.now_ms())
        .execute(&mut connection)
        .await
        .map_err(at("release_expired"))?;
        Ok(done.rows_affected())
    }

    /// Gives leases back unused: their attachments are due again at once, with no attempt spent.
    pub async fn release(&self, leases: &[LeaseTicket]) -> Result<()> {
        let leases: Vec<_> = leases.iter().map(LeaseJson::new).collect();
        let mut connection = self.connection().await;
        query(
            "-- name: release
            UPDATE attachments SET lease_token = NULL, lease_expires_at = NULL
            FROM (SELECT CAST(value ->> 'i' AS BIGINT) AS row_id, unhex(value ->> 't') AS token FROM json_each($1)) j
            WHERE attachments.id = j.row_id AND attachments.lease_token = j.token",
        )
        .bind(json(&leases))
        .execute(&mut connection)
        .await
        .map_err(at("release"))?;
        Ok(())
    }

    /// Extends leases that are still held, by `duration` from now. `leases` are (row, token) pairs as
    /// [`Lease::ticket`] gives them.
    pub async fn renew(&self, leases: &[LeaseTicket], duration: Duration) -> Result<u64> {
        let expires_at = self.clock.now_ms().saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
        let leases: Vec<_> = leases.iter().map(LeaseJson::new).collect();
        let mut connection = self.connection().await;
        let done = query(
            "-- name: renew
            UPDATE attachments SET lease_expires_at = $2
            FROM (SELECT CAST(value ->> 'i' AS BIGINT) AS row_id, unhex(value ->> 't') AS token FROM json_each($1)) j
            WHERE attachments.id = j.row_id AND attachments.lease_token = j.token",
        )
        .bind(json(&leases))
        .bind(expires_at)
        .execute(&mut connection)
        .await
        .map_err(at("renew"))?;
        Ok(done.rows_affected())
    }

    /// When the next pending attachment of a lane of `team` that nobody has leased is due; `None` when there is none.
    pub async fn next_due_ms(&self, team: TeamRow, lane: Lane) -> Result<Option<i64>> {
        let mut connection = self.connection().await;
        let next_due = query_scalar(NEXT_DUE).bind(team.0).bind(lane_column(lane));
        next_due.fetch_one(&mut connection).await.map_err(at("next_due"))
    }
}

/// Names a lease to the catalog, for renewal and fencing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseTicket {
    row: i64,
    token: [u8; 16],
}

impl LeaseTicket {
    /// The attachment's row.
    pub(super) fn row(&self) -> i64 {
        self.row
    }
}

impl Lease<Job> {
    /// The lease's name to the catalog.
    pub fn ticket(&self) -> LeaseTicket {
        LeaseTicket { row: self.job.row, token: self.token }
    }

    /// The same lease, of a job that goes first now.
    pub(super) fn into_live(mut self) -> Self {
        self.job.lane = Lane::Live;
        self
    }
}

async fn next_generation(connection: &mut Connection) -> Result<i64> {
    let next = query_scalar(connection.pick(
        "-- name: next_generation
        UPDATE generations SET latest = latest + 1 WHERE singleton = 1 RETURNING latest",
        "-- name: next_generation
        SELECT nextval('generation')",
    ));
    next.fetch_one(connection).await.map_err(at("next_generation"))
}

fn lease(row: &Row, (team, lane): (TeamRow, Lane)) -> Result<Lease<Job>> {
    let impossible = |what: &str| CatalogError::Impossible(format!("attachments.{what}"));
    let key: &[u8] = row.get(1);
    let token: &[u8] = row.get(6);
    let job = Job {
        row: row.get(0),
        team,
        lane,
        key: AttachmentKey::from_slice(key).ok_or_else(|| impossible("key"))?,
        attachment_id: row.get::<String>(2).try_into().map_err(|_| impossible("attachment_id"))?,
        declared_size: row.get::<Option<i64>>(3).and_then(|size| u64::try_from(size).ok()),
        attempts: u32::try_from(row.get::<i64>(4)).unwrap_or(u32::MAX),
        not_found_count: u32::try_from(row.get::<i64>(5)).unwrap_or(u32::MAX),
    };
    Ok(Lease {
        job,
        token: token.try_into().map_err(|_| impossible("lease_token"))?,
        generation: row.get::<i64>(8).cast_unsigned(),
    })
}
