//! Comparing the journal with the catalog: the journal is loaded into a temporary table on disk, so that memory stays
//! flat, and both sides are compared where they lie.

use std::collections::HashMap;

use serde::Serialize;

use super::report::unsigned;
use super::{ArchiveRow, BlobState, Catalog, CatalogError, Result, State, TeamRow, at, json};
use crate::catalog::engine::long_query as query;
use crate::digest::Digest;
use crate::model::{AttachmentKey, OutcomeLine, TeamKey};

/// An attachment on which journal and catalog differ, or that the journal holds in part only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// Its key.
    pub key: AttachmentKey,
    /// Its merged outcome in the journal.
    pub journal: Option<State>,
    /// Whether a message line of the journal carries it.
    pub carried: bool,
    /// Its place in the catalog.
    pub catalog: Option<State>,
    /// Whether digest and size agree.
    pub same_bytes: bool,
}

/// Bytes that the merged journal cites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CitedBytes {
    /// Their digest.
    pub sha256: Digest,
    /// The smallest size that is recorded for them.
    pub min_size: u64,
    /// The largest: the same, unless lines contradict each other.
    pub max_size: u64,
    /// One of the attachments that have them.
    pub key: AttachmentKey,
    /// How many have them.
    pub attachments: u64,
}

#[derive(Serialize)]
struct OutcomeJson<'a> {
    k: String,
    s: &'static str,
    g: u64,
    w: &'a str,
    t: i64,
    h: Option<String>,
    z: Option<u64>,
}

fn key(bytes: &[u8]) -> Result<AttachmentKey> {
    AttachmentKey::from_slice(bytes).ok_or_else(|| CatalogError::Impossible("attachments.key".into()))
}

fn digest(bytes: &[u8]) -> Result<Digest> {
    Ok(Digest::from_bytes(bytes.try_into().map_err(|_| CatalogError::Impossible("a sha256 column".into()))?))
}

fn state(text: Option<&str>) -> Result<Option<State>> {
    text.map(str::parse).transpose()
}

/// One blob as the catalog knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobRow {
    /// Its name.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// What is known of it.
    pub state: BlobState,
}

impl Catalog {
    /// Begins an audit of this connection: nothing of the journal is loaded yet.
    pub async fn begin_audit(&self) -> Result<()> {
        let mut connection = self.connection().await;
        for statement in [
            "-- name: drop_audited\nDROP TABLE IF EXISTS temp.audited",
            "-- name: create_audited
            CREATE TEMP TABLE audited (team_id INTEGER NOT NULL, key BLOB NOT NULL, carried INTEGER NOT NULL,
                state TEXT, generation INTEGER, at INTEGER NOT NULL, writer_id TEXT, sha256 BLOB, size_bytes INTEGER,
                PRIMARY KEY (team_id, key)) WITHOUT ROWID",
        ] {
            query(statement).execute(&mut connection).await.map_err(at("begin_audit"))?;
        }
        Ok(())
    }

    /// Loads attachments that a message line read at `at_ms` carries.
    pub async fn audit_carried(&self, team: TeamRow, carried: &[(AttachmentKey, i64)]) -> Result<()> {
        let rows: HashMap<String, i64> = carried.iter().map(|(key, at_ms)| (key.to_hex(), *at_ms)).collect();
        let rows: Vec<(String, i64)> = rows.into_iter().collect();
        let mut connection = self.connection().await;
        query(
            "-- name: audit_carried
            INSERT INTO temp.audited (team_id, key, carried, at)
            SELECT $1, unhex(value ->> 0), 1, CAST(value ->> 1 AS BIGINT) FROM json_each($2) WHERE true
            ON CONFLICT (team_id, key) DO UPDATE SET carried = 1",
        )
        .bind(team.0)
        .bind(json(&rows))
        .execute(&mut connection)
        .await
        .map_err(at("audit_carried"))?;
        Ok(())
    }

    /// Loads outcome lines and merges them by the rule of the journal.
    pub async fn audit_outcomes(&self, team: TeamRow, team_key: &TeamKey, lines: &[OutcomeLine]) -> Result<()> {
        let rows: Vec<_> = lines
            .iter()
            .map(|line| OutcomeJson {
                k: AttachmentKey::new(team_key, &line.attachment_id).to_hex(),
                s: line.kind.as_str(),
                g: line.generation,
                w: &line.writer_id.0,
                t: line.at.as_millisecond(),
                h: line.sha256.map(|digest| digest.to_hex()),
                z: line.size_bytes,
            })
            .collect();
        let mut connection = self.connection().await;
        let mut transaction = connection.begin().await.map_err(at("begin_audit_outcomes"))?;
        query(
            "-- name: audit_outcomes
            INSERT INTO temp.audited (team_id, key, carried, state, generation, writer_id, at, sha256, size_bytes)
            SELECT $1, unhex(value ->> 'k'), 0, value ->> 's', CAST(value ->> 'g' AS BIGINT), value ->> 'w',
                CAST(value ->> 't' AS BIGINT), unhex(value ->> 'h'), CAST(value ->> 'z' AS BIGINT)
            FROM json_each($2) WHERE true
            ON CONFLICT (team_id, key) DO UPDATE SET
                state = excluded.state, generation = excluded.generation, writer_id = excluded.writer_id,
                at = excluded.at, sha256 = excluded.sha256, size_bytes = excluded.size_bytes
            WHERE CASE
                WHEN audited.state IS NULL THEN true
                WHEN audited.state = 'erased' THEN false
                WHEN excluded.state = 'erased' THEN true
                WHEN (audited.state = 'archived') <> (excluded.state = 'archived') THEN excluded.state = 'archived'
                ELSE (excluded.generation, excluded.at, excluded.writer_id)
                    > (audited.generation, audited.at, audited.writer_id)
            END",
        )
        .bind(team.0)
        .bind(json(&rows))
        .execute(&mut transaction)
        .await
        .map_err(at("audit_outcomes"))?;
        transaction.commit().await.map_err(at("commit_audit_outcomes"))
    }

    /// Ends the loading: the merged journal can be asked by digest from now on.
    pub async fn index_audit(&self) -> Result<()> {
        let mut connection = self.connection().await;
        query(
            "-- name: index_audit
            CREATE INDEX temp.audited_sha256 ON audited (state, sha256) WHERE sha256 IS NOT NULL",
        )
        .execute(&mut connection)
        .await
        .map_err(at("index_audit"))?;
        Ok(())
    }

    /// How many attachments the journal holds: with an outcome, and all.
    pub async fn audit_totals(&self) -> Result<(u64, u64)> {
        let mut connection = self.connection().await;
        let row = query("-- name: audit_totals\nSELECT count(state), count(*) FROM temp.audited")
            .fetch_one(&mut connection)
            .await
            .map_err(at("audit_totals"))?;
        Ok((unsigned(&row, 0), unsigned(&row, 1)))
    }

    /// The attachments on which journal and catalog differ, at most `limit`, and how many there are. What changed
    /// between the two times (milliseconds since the Unix epoch) is in motion and not judged.
    pub async fn audit_differences(
        &self,
        archive: ArchiveRow,
        moving: (i64, i64),
        limit: usize,
    ) -> Result<(Vec<Difference>, u64)> {
        use futures::TryStreamExt as _;
        const FROM_JOURNAL: &str = "-- name: audit_from_journal
            SELECT j.key, j.state, j.carried, a.state, a.sha256 IS NOT DISTINCT FROM j.sha256 AND a.size_bytes IS NOT DISTINCT FROM j.size_bytes
            FROM temp.audited j LEFT JOIN attachments a ON a.team_id = j.team_id AND a.key = j.key
            WHERE $1 IS NOT NULL AND j.at NOT BETWEEN $2 AND $3 AND coalesce(a.updated_at, -1) NOT BETWEEN $2 AND $3
                AND (a.id IS NULL
                    OR (j.state <> 'erased' AND j.carried = 0)
                    OR (j.state IS NOT NULL
                        AND NOT (a.state = 'pending' AND j.state NOT IN ('archived', 'erased'))
                        AND (a.state <> j.state OR (j.state IN ('archived', 'quarantined')
                            AND NOT (a.sha256 IS NOT DISTINCT FROM j.sha256 AND a.size_bytes IS NOT DISTINCT FROM j.size_bytes)))))";
        const FROM_CATALOG: &str = "-- name: audit_from_catalog
            SELECT a.key, j.state, j.key IS NOT NULL, a.state, 0
            FROM attachments a LEFT JOIN temp.audited j ON j.team_id = a.team_id AND j.key = a.key
            WHERE a.team_id IN (SELECT id FROM teams WHERE archive_id = $1) AND a.updated_at NOT BETWEEN $2 AND $3
                AND CASE a.state WHEN 'pending' THEN j.key IS NULL ELSE j.state IS NULL END";
        let (mut found, mut count) = (Vec::new(), 0);
        let mut connection = self.connection().await;
        for sql in [FROM_JOURNAL, FROM_CATALOG] {
            let mut rows = query(sql).bind(archive.0).bind(moving.0).bind(moving.1).fetch(&mut connection);
            while let Some(row) = rows.try_next().await.map_err(at("audit_differences"))? {
                count += 1;
                if found.len() < limit {
                    found.push(Difference {
                        key: key(row.get(0))?,
                        journal: state(row.get(1))?,
                        carried: row.get::<i64>(2) != 0,
                        catalog: state(row.get(3))?,
                        same_bytes: row.get::<i64>(4) != 0,
                    });
                }
            }
        }
        Ok((found, count))
    }

    /// The bytes between two digests, both included, that the merged journal cites as `state`, in order.
    pub async fn audit_cited(&self, state: State, low: Digest, high: Digest) -> Result<Vec<CitedBytes>> {
        let mut connection = self.connection().await;
        let rows = query(
            "-- name: audit_cited
            SELECT sha256, min(size_bytes), max(size_bytes), min(key), count(*) FROM temp.audited
            WHERE state = $1 AND sha256 IS NOT NULL AND sha256 BETWEEN $2 AND $3 GROUP BY sha256 ORDER BY sha256",
        )
        .bind(state.as_str())
        .bind(&low.as_bytes()[..])
        .bind(&high.as_bytes()[..])
        .fetch_all(&mut connection)
        .await
        .map_err(at("audit_cited"))?;
        rows.iter()
            .map(|row| {
                Ok(CitedBytes {
                    sha256: digest(row.get(0))?,
                    min_size: unsigned(row, 1),
                    max_size: unsigned(row, 2),
                    key: key(row.get(3))?,
                    attachments: unsigned(row, 4),
                })
            })
            .collect()
    }

    /// The blobs of `archive` between two digests, both included, in order.
    pub async fn blobs_between(&self, archive: ArchiveRow, low: Digest, high: Digest) -> Result<Vec<BlobRow>> {
        const KNOWN: &str = "-- name: blobs_between
            SELECT sha256, size_bytes, state FROM blobs
            WHERE archive_id = $1 AND sha256 BETWEEN $2 AND $3 ORDER BY sha256";
        // While another process fills the catalog: with those that it takes in at its end.
        const COMING: &str = "-- name: blobs_between_of_filler
            SELECT sha256, size_bytes, state FROM blobs WHERE archive_id = $1 AND sha256 BETWEEN $2 AND $3
            UNION ALL
            SELECT a.sha256, coalesce(max(a.size_bytes), 0), 'writing'
            FROM attachments a JOIN teams t ON t.id = a.team_id AND t.archive_id = $1
            WHERE a.state = 'archived' AND a.sha256 BETWEEN $2 AND $3
                AND NOT EXISTS (SELECT 1 FROM blobs b WHERE b.archive_id = $1 AND b.sha256 = a.sha256)
            GROUP BY a.sha256
            ORDER BY sha256";
        let mut connection = self.connection().await;
        let is_whole = super::bulk::totals_are_kept(&mut connection).await?;
        let rows = query(if is_whole { KNOWN } else { COMING })
            .bind(archive.0)
            .bind(&low.as_bytes()[..])
            .bind(&high.as_bytes()[..])
            .fetch_all(&mut connection)
            .await
            .map_err(at("blobs_between"))?;
        rows.iter()
            .map(|row| {
                Ok(BlobRow {
                    sha256: digest(row.get(0))?,
                    size_bytes: unsigned(row, 1),
                    state: row.get::<&str>(2).parse()?,
                })
            })
            .collect()
    }

    /// For those of `digests` whose message line the catalog holds: how many attachments it links.
    pub async fn links_of_lines(&self, team: TeamRow, digests: &[[u8; 16]]) -> Result<HashMap<[u8; 16], u64>> {
        let digests: Vec<String> = digests.iter().map(|digest| data_encoding::HEXLOWER.encode(digest)).collect();
        let mut connection = self.connection().await;
        let rows = query(
            "-- name: links_of_lines
            SELECT m.line_digest, (SELECT count(*) FROM links l WHERE l.message_row = m.id) FROM json_each($2) j
            CROSS JOIN messages m ON m.team_id = $1 AND m.line_digest = unhex(j.value)",
        )
        .bind(team.0)
        .bind(json(&digests))
        .fetch_all(&mut connection)
        .await
        .map_err(at("links_of_lines"))?;
        Ok(rows.iter().filter_map(|row| Some((row.get::<&[u8]>(0).try_into().ok()?, unsigned(row, 1)))).collect())
    }

    /// Changes what is known of a blob that the catalog holds, if it is still in one of the states `from`.
    pub async fn change_blob_state(
        &self,
        archive: ArchiveRow,
        sha256: Digest,
        from: &[BlobState],
        to: BlobState,
    ) -> Result<bool> {
        let from: Vec<&str> = from.iter().map(|state| state.as_str()).collect();
        let mut connection = self.connection().await;
        let done = query(
            "-- name: change_blob_state
            UPDATE blobs SET state = $4
            WHERE archive_id = $1 AND sha256 = $2 AND state IN (SELECT value FROM json_each($3))",
        )
        .bind(archive.0)
        .bind(&sha256.as_bytes()[..])
        .bind(json(&from))
        .bind(to.as_str())
        .execute(&mut connection)
        .await
        .map_err(at("change_blob_state"))?;
        Ok(done.rows_affected() > 0)
    }
}
