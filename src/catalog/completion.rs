//! How leases end: what a batch is about to cite, and its outcomes, fenced by each lease's token.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::Serialize;

use super::jobs::{HELD, LeaseJson};
use super::{ArchiveRow, BlobState, Catalog, CatalogError, Job, Lease, LeaseTicket, Pause, Result, State, at, json};
use crate::catalog::engine::{Row, query, query_scalar};
use crate::digest::Digest;

/// How a lease ends.
#[derive(Debug, Clone)]
pub struct Completion {
    ticket: LeaseTicket,
    state: NewState,
}

/// The place a lease's attachment goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewState {
    /// Its outcome line is durable.
    Archived {
        /// The blob.
        sha256: Digest,
        /// Its size.
        size_bytes: u64,
        /// The media type that the bytes show.
        sniffed_type: Option<String>,
    },
    /// Its outcome line is durable.
    Failed {
        /// Why.
        reason: String,
    },
    /// Its outcome line is durable.
    Quarantined {
        /// The bytes.
        sha256: Digest,
        /// Their size.
        size_bytes: u64,
        /// The media type that the bytes show.
        sniffed_type: Option<String>,
        /// What contradicts what.
        reason: String,
    },
    /// Another attempt, later.
    Retry {
        /// How long from now.
        delay: Duration,
        /// Whether this counts as a spent attempt.
        attempt_spent: bool,
        /// Whether the API said that there is no such attachment.
        not_found: bool,
        /// Why, where something went wrong.
        reason: Option<String>,
    },
}

impl Completion {
    /// Ends `lease` with `state`.
    pub fn new(lease: &Lease<Job>, state: NewState) -> Self {
        Self { ticket: lease.ticket(), state }
    }

    /// Where the attachment goes.
    pub fn state(&self) -> &NewState {
        &self.state
    }
}

#[derive(Default, Serialize)]
struct CompletionJson<'a> {
    #[serde(flatten)]
    lease: Option<LeaseJson>,
    s: &'static str,
    h: Option<String>,
    z: Option<i64>,
    y: Option<&'a str>,
    r: Option<&'a str>,
    b: i64,
    a: u32,
    n: u32,
}

/// A count or size as a column.
fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Catalog {
    /// Notes, before anything is stored, what a batch of leases is about to cite: blobs that are not known become
    /// `writing`, and a condemned one comes back to it. Gives the state of every named blob, and drops leases that
    /// are no longer held (their rows are returned).
    pub async fn intend(&self, archive: ArchiveRow, leases: &[LeaseTicket], blobs: &[(Digest, u64)]) -> Result<Intent> {
        #[derive(Serialize)]
        struct BlobJson {
            h: String,
            z: i64,
        }
        let tickets: Vec<_> = leases.iter().map(LeaseJson::new).collect();
        let wanted: BTreeMap<String, i64> =
            blobs.iter().map(|(digest, size)| (digest.to_hex(), column(*size))).collect();
        let wanted: Vec<_> = wanted.into_iter().map(|(h, z)| BlobJson { h, z }).collect();
        let wanted = json(&wanted);
        let mut connection = self.connection().await;
        let mut transaction = connection.begin().await.map_err(at("begin_intend"))?;
        let held: Vec<i64> =
            query_scalar(HELD).bind(json(&tickets)).fetch_all(&mut transaction).await.map_err(at("held"))?;
        let rows = query(
            "-- name: blob_states
            SELECT b.sha256, b.state FROM json_each($2) j
            CROSS JOIN blobs b ON b.archive_id = $1 AND b.sha256 = unhex(j.value ->> 'h')",
        )
        .bind(archive.0)
        .bind(&wanted)
        .fetch_all(&mut transaction)
        .await
        .map_err(at("blob_states"))?;
        let mut known = Vec::with_capacity(rows.len());
        for row in &rows {
            known.push((digest(row, 0)?, row.get::<&str>(1).parse::<BlobState>()?));
        }
        query(
            "-- name: intend_blobs
            INSERT INTO blobs (archive_id, sha256, size_bytes, state)
            SELECT $1, unhex(value ->> 'h'), CAST(value ->> 'z' AS BIGINT), 'writing' FROM json_each($2) WHERE true
            ORDER BY value ->> 'h'
            ON CONFLICT (archive_id, sha256) DO UPDATE SET state = 'writing' WHERE blobs.state = 'condemned'",
        )
        .bind(archive.0)
        .bind(&wanted)
        .execute(&mut transaction)
        .await
        .map_err(at("intend_blobs"))?;
        transaction.commit().await.map_err(at("commit_intend"))?;
        Ok(Intent { held: held.into_iter().collect(), known })
    }

    /// Ends leases, all in one transaction, after everything that they cite is durable: `durable` blobs, and the
    /// outcome segment `segment`. Each completion is fenced by its lease's token and changes exactly one row or none;
    /// gives the number of those that changed none. If there are any, the segment is left to be loaded: whoever looks into
    /// the journal next merges its lines, so that this catalog says what a new one would.
    pub async fn complete(
        &self,
        archive: ArchiveRow,
        completions: &[Completion],
        durable: &[Digest],
        segment: Option<(&str, Digest)>,
        pauses: &[Pause],
        writer_id: &str,
    ) -> Result<u64> {
        let now = self.clock.now_ms();
        let mut rows: Vec<CompletionJson<'_>> =
            completions.iter().map(|completion| completion_json(completion, now)).collect();
        // In one order, as others may lock some of these rows, too.
        rows.sort_by_key(|row| row.lease.as_ref().map(LeaseJson::row));
        let mut connection = self.connection().await;
        let mut transaction = connection.begin().await.map_err(at("begin_complete"))?;
        if !durable.is_empty() {
            let digests: Vec<_> = durable.iter().map(Digest::to_hex).collect();
            query(transaction.pick(BLOBS_DURABLE, BLOBS_DURABLE_IN_ORDER))
                .bind(archive.0)
                .bind(json(&digests))
                .execute(&mut transaction)
                .await
                .map_err(at("blobs_durable"))?;
        }
        let done = query(
            "-- name: complete
            UPDATE attachments SET
                state = j.state, sha256 = j.sha256, size_bytes = j.size_bytes, sniffed_type = j.sniffed_type,
                reason = j.reason, not_before = j.not_before, attempts = attachments.attempts + j.attempts,
                not_found_count = attachments.not_found_count + j.not_found, lease_token = NULL, lease_expires_at = NULL,
                writer_id = $2, updated_at = $3
            FROM (SELECT CAST(value ->> 'i' AS BIGINT) AS row_id, unhex(value ->> 't') AS token, value ->> 's' AS state,
                    unhex(value ->> 'h') AS sha256, CAST(value ->> 'z' AS BIGINT) AS size_bytes, value ->> 'y' AS sniffed_type,
                    value ->> 'r' AS reason, CAST(value ->> 'b' AS BIGINT) AS not_before, CAST(value ->> 'a' AS BIGINT) AS attempts,
                    CAST(value ->> 'n' AS BIGINT) AS not_found
                FROM json_each($1)) j
            WHERE attachments.id = j.row_id AND attachments.lease_token = j.token AND attachments.state = 'pending'",
        )
        .bind(json(&rows))
        .bind(writer_id)
        .bind(now)
        .execute(&mut transaction)
        .await
        .map_err(at("complete"))?;
        let stale = column_to_u64(completions.len()).saturating_sub(done.rows_affected());
        match segment {
            Some((key, digest)) if stale == 0 => {
                super::journal::remember_segment(&mut transaction, archive, key, digest).await?;
            }
            Some((key, digest)) => super::journal::leave_segment(&mut transaction, archive, key, digest).await?,
            None => {}
        }
        for pause in pauses {
            super::pauses::keep_pause(&mut transaction, pause).await?;
        }
        transaction.commit().await.map_err(at("commit_complete"))?;
        Ok(stale)
    }
}

/// What [`Catalog::intend`] found.
#[derive(Debug)]
pub struct Intent {
    held: HashSet<i64>,
    known: Vec<(Digest, BlobState)>,
}

impl Intent {
    /// Whether the lease of this ticket is still held.
    pub fn holds(&self, ticket: &LeaseTicket) -> bool {
        self.held.contains(&ticket.row())
    }

    /// The blobs that were known before, with their states then.
    pub fn known_blobs(&self) -> &[(Digest, BlobState)] {
        &self.known
    }
}

/// Not by a join: SQLite would walk the list once for each blob of the archive.
const BLOBS_DURABLE: &str = "-- name: blobs_durable
    UPDATE blobs SET state = 'durable'
    WHERE archive_id = $1 AND sha256 IN (SELECT unhex(value) FROM json_each($2))";

/// Others may do the same for some of them: rows are locked in one order, each looked up by its key.
const BLOBS_DURABLE_IN_ORDER: &str = "-- name: blobs_durable_in_order
    WITH known AS (SELECT b.archive_id, b.sha256
        FROM (SELECT unhex(value) AS sha256 FROM json_each($2) ORDER BY 1) named
        CROSS JOIN LATERAL (SELECT archive_id, sha256 FROM blobs
            WHERE archive_id = $1 AND sha256 = named.sha256 AND state <> 'durable' FOR UPDATE) b ON true)
    UPDATE blobs SET state = 'durable' FROM known
    WHERE blobs.archive_id = known.archive_id AND blobs.sha256 = known.sha256";

fn column_to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn digest(row: &Row, column: usize) -> Result<Digest> {
    let bytes: &[u8] = row.get(column);
    let bytes = bytes.try_into().map_err(|_| CatalogError::Impossible("a digest that is not 32 bytes".into()))?;
    Ok(Digest::from_bytes(bytes))
}

fn completion_json(completion: &Completion, now: i64) -> CompletionJson<'_> {
    let lease = Some(LeaseJson::new(&completion.ticket));
    match &completion.state {
        NewState::Archived { sha256, size_bytes, sniffed_type } => CompletionJson {
            lease,
            s: State::Archived.as_str(),
            h: Some(sha256.to_hex()),
            z: Some(column(*size_bytes)),
            y: sniffed_type.as_deref(),
            ..CompletionJson::default()
        },
        NewState::Failed { reason } => {
            CompletionJson { lease, s: State::Failed.as_str(), r: Some(reason), a: 1, ..CompletionJson::default() }
        }
        NewState::Quarantined { sha256, size_bytes, sniffed_type, reason } => CompletionJson {
            lease,
            s: State::Quarantined.as_str(),
            h: Some(sha256.to_hex()),
            z: Some(column(*size_bytes)),
            y: sniffed_type.as_deref(),
            r: Some(reason),
            a: 1,
            ..CompletionJson::default()
        },
        NewState::Retry { delay, attempt_spent, not_found, reason } => CompletionJson {
            lease,
            s: State::Pending.as_str(),
            r: reason.as_deref(),
            b: now.saturating_add(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)),
            a: u32::from(*attempt_spent),
            n: u32::from(*not_found),
            ..CompletionJson::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn blobs_become_durable_by_their_keys_and_not_by_a_walk_through_the_archive() {
        if crate::catalog::open::test::is_postgres() {
            return; // SQLite's own.
        }
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(folder.path(), Clock::system()).await.unwrap();
        let mut connection = catalog.connection().await;
        let plan = query(format!("EXPLAIN QUERY PLAN {BLOBS_DURABLE}")).fetch_all(&mut connection).await.unwrap();
        let steps: Vec<String> = plan.iter().map(|step| step.get(3)).collect();
        assert_eq!(steps[0], "SEARCH blobs USING PRIMARY KEY (archive_id=? AND sha256=?)", "{steps:?}");
    }
}
