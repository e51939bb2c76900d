//! Loading the journal's lines: many in one transaction, and into an empty catalog without the indexes that can be built
//! at the end.

use tokio::sync::MutexGuard;

use super::bulk::{self, BulkLock};
use super::ingest::count_column;
use super::rows::{PACKED_KEYS, chunks, values};
use super::{ArchiveRow, Catalog, IngestMessage, Result, TeamRow, at};
use crate::catalog::engine::{Connection, Query, query};
use crate::digest::Digest;
use crate::model::{AttachmentKey, Lane, OutcomeKind, OutcomeLine, SegmentRef, TeamKey};

/// Lines of one transaction. Others wait meanwhile, and a crash loses as many: they are loaded again.
const LINES: usize = 20_000;
/// Lines of one transaction while an empty catalog is filled: every page of an index is written once in each.
const BULK_LINES: usize = 250_000;

/// A load that is going on. It holds the catalog's connection while a transaction is open; dropped, it leaves what was
/// committed, which is always fit to be gone on from.
#[derive(Debug)]
pub struct Load<'a> {
    catalog: &'a Catalog,
    open: Option<MutexGuard<'a, Connection>>,
    /// Lines of the open transaction.
    lines: usize,
    /// Lines of this load.
    total: usize,
    /// Whether the catalog held nothing when the load began, so that it may be filled in bulk.
    is_empty: bool,
    /// After so many lines it is.
    bulk_after: usize,
    bulk: Option<BulkLock>,
}

impl Catalog {
    /// Begins to load lines of the journal.
    pub async fn load(&self) -> Result<Load<'_>> {
        let mut connection = self.connection().await;
        let is_empty = bulk::is_empty(&mut connection).await?;
        drop(connection);
        Ok(Load { catalog: self, open: None, lines: 0, total: 0, is_empty, bulk_after: LINES, bulk: None })
    }

    /// Loads outcome lines of one team and merges them, in one transaction; see [`Load::outcomes`].
    pub async fn load_outcomes(&self, archive: ArchiveRow, key: &TeamKey, lines: &[OutcomeLine]) -> Result<()> {
        let mut load = self.load().await?;
        load.outcomes(archive, key, lines).await?;
        load.finish().await
    }
}

impl Load<'_> {
    /// The connection, inside a transaction.
    async fn transaction(&mut self) -> Result<&mut Connection> {
        if self.open.is_none() {
            let mut connection = self.catalog.connection().await;
            connection.enter().await.map_err(at("begin_load"))?;
            if connection.is_postgres() {
                // What a crash of the server takes with it is loaded again: no later note that a segment is loaded survives it.
                connection.run("SET LOCAL synchronous_commit = off").await.map_err(at("unwaited_load"))?;
            }
            self.open = Some(connection);
        }
        Ok(self.open.as_mut().expect("it was opened just now"))
    }

    /// Counts lines, and commits where they are enough.
    async fn count(&mut self, lines: usize) -> Result<()> {
        self.lines += lines;
        self.total += lines;
        if self.is_empty && self.bulk.is_none() && self.total >= self.bulk_after {
            self.commit().await?;
            let mut connection = self.catalog.connection().await;
            self.bulk = bulk::begin(&mut connection, &self.catalog.folder).await?;
            self.is_empty = self.bulk.is_some();
        }
        if self.lines >= if self.bulk.is_some() { BULK_LINES } else { LINES } {
            self.commit().await?;
        }
        Ok(())
    }

    /// Commits what was loaded so far.
    pub async fn commit(&mut self) -> Result<()> {
        self.lines = 0;
        self.commit_open().await
    }

    async fn commit_open(&mut self) -> Result<()> {
        if let Some(mut connection) = self.open.take() {
            connection.commit().await.map_err(at("commit_load"))?;
        }
        Ok(())
    }

    /// Ends the load: everything is committed, and every index is there.
    pub async fn finish(mut self) -> Result<()> {
        self.commit().await?;
        if let Some(lock) = self.bulk.take() {
            let mut connection = self.catalog.connection().await;
            bulk::end(&mut connection, lock).await?;
        }
        Ok(())
    }

    /// The team of this key in that archive, remembered at first sight.
    pub async fn bind_team(&mut self, archive: ArchiveRow, key: &TeamKey) -> Result<TeamRow> {
        super::bind_team(self.transaction().await?, archive, key).await
    }

    /// Notes that a segment has been loaded whole.
    pub async fn remember_segment(&mut self, archive: ArchiveRow, key: &str, sha256: Digest) -> Result<()> {
        super::journal::remember_segment(self.transaction().await?, archive, key, sha256).await
    }

    /// Like [`Catalog::supersede_segments`].
    pub async fn supersede_segments(&mut self, archive: ArchiveRow, replaced: &[SegmentRef]) -> Result<()> {
        super::journal::supersede_segments(self.transaction().await?, archive, replaced).await
    }

    /// Loads messages of one team. An attachment without an outcome becomes pending, or skipped with generation 0 (see
    /// [`Catalog::unjournaled_skips`]); an outcome that is known stays. Nothing of it counts as seen by this run.
    pub async fn messages(&mut self, archive: ArchiveRow, key: &TeamKey, messages: &[IngestMessage]) -> Result<()> {
        let now = self.catalog.clock.now_ms();
        let team = self.bind_team(archive, key).await?;
        super::ingest::insert(self.transaction().await?, team, messages, (0, Lane::Bulk), "", now).await?;
        self.count(messages.len()).await
    }

    /// Loads outcome lines of one team and merges them: `erased` wins, then `archived`, then the highest generation
    /// (then `at`, then `writer_id`). Blobs that were not known are taken as `writing`, so that their bytes are read
    /// before they are cited again.
    pub async fn outcomes(&mut self, archive: ArchiveRow, key: &TeamKey, lines: &[OutcomeLine]) -> Result<()> {
        let team = self.bind_team(archive, key).await?;
        for round in rounds(key, lines) {
            for chunk in chunks(&round) {
                merge(self.transaction().await?, team, chunk).await?;
                if self.catalog.is_shared() {
                    // Its rows are locked in the order of their ids. With those of the next one they would not be.
                    self.commit_open().await?;
                }
            }
        }
        if self.bulk.is_none() {
            cite(self.transaction().await?, archive, lines).await?;
        }
        let latest = lines.iter().map(|line| line.generation).max().unwrap_or(0);
        let connection = self.transaction().await?;
        let raise = query(connection.pick(
            "-- name: raise_generation
            UPDATE generations SET latest = ?1 WHERE singleton = 1 AND latest < ?1",
            "-- name: raise_generation
            SELECT raise_generation(?)",
        ));
        raise.bind(column(latest)).execute(connection).await.map_err(at("raise_generation"))?;
        self.count(lines.len()).await
    }
}

/// A count or size as a column.
fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A line and the key of its attachment.
type Keyed<'a> = (AttachmentKey, &'a OutcomeLine);

/// The lines in the order of their keys, in as many rounds as one attachment has lines: in each round an attachment
/// occurs once, and the lines of each keep their order from round to round.
fn rounds<'a>(key: &TeamKey, lines: &'a [OutcomeLine]) -> Vec<Vec<Keyed<'a>>> {
    let mut keyed: Vec<Keyed<'a>> =
        lines.iter().map(|line| (AttachmentKey::new(key, &line.attachment_id), line)).collect();
    keyed.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    let mut rounds: Vec<Vec<Keyed<'a>>> = Vec::new();
    let mut previous = None;
    let mut round = 0;
    for (key, line) in keyed {
        round = if previous == Some(key) { round + 1 } else { 0 };
        previous = Some(key);
        if round == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[round].push((key, line));
    }
    rounds
}

/// Merges lines of distinct attachments: those that have a row first, as in a fresh load nearly all do. Not in one
/// statement with `DO UPDATE`: see [`super::rows`].
async fn merge(connection: &mut Connection, team: TeamRow, lines: &[Keyed<'_>]) -> Result<()> {
    if connection.is_postgres() {
        for lines in lines.chunks(PACKED_KEYS) {
            let keys: Vec<u8> = lines.iter().flat_map(|(key, _)| *key.as_bytes()).collect();
            let lock = query(LOCK_MERGED).bind(team.0).bind(keys).bind(count_column(lines.len()));
            lock.execute(&mut *connection).await.map_err(at("lock_merged"))?;
        }
    }
    let values = values(lines.len(), LINE_COLUMNS);
    let merged =
        bind_all(merge_sql(&values), team, lines).execute(&mut *connection).await.map_err(at("merge_outcomes"))?;
    if usize::try_from(merged.rows_affected()).is_ok_and(|merged| merged == lines.len()) {
        return Ok(());
    }
    let insert = format!(
        "-- name: load_outcomes
        INSERT OR FAIL INTO attachments (team_id, key, attachment_id, state, generation, writer_id, updated_at,
            sha256, size_bytes, sniffed_type, reason)
        SELECT shared.*, rows.* FROM (SELECT ?) shared CROSS JOIN (VALUES {values}) rows ON true WHERE true
        ON CONFLICT (team_id, key) DO NOTHING"
    );
    bind_all(insert, team, lines).execute(connection).await.map_err(at("load_outcomes"))?;
    Ok(())
}

/// Others end leases and claim meanwhile. A statement compares lines with what was there when it began, and would then write
/// over what has come since: so the rows are locked before, in the order in which leases end.
const LOCK_MERGED: &str = "-- name: lock_merged
    SELECT count(*) FROM (SELECT a.id FROM temp.ordinals n
        CROSS JOIN attachments a ON a.team_id = ? AND a.key = substr(?, n.i * 16 + 1, 16)
        WHERE n.i < ? ORDER BY a.id) known
    CROSS JOIN LATERAL (SELECT id FROM attachments WHERE id = known.id FOR UPDATE) locked ON true";

/// Columns of a line that [`bind_all`] binds.
const LINE_COLUMNS: usize = 10;

fn merge_sql(values: &str) -> String {
    format!(
        "-- name: merge_outcomes
        UPDATE OR FAIL attachments SET
            state = new.state, generation = new.generation, writer_id = new.writer_id, updated_at = new.updated_at,
            sha256 = new.sha256, size_bytes = new.size_bytes, sniffed_type = new.sniffed_type, reason = new.reason,
            lease_token = NULL, lease_expires_at = NULL
        FROM (
            SELECT old.id, v.column3 AS state, v.column4 AS generation, v.column5 AS writer_id,
                v.column6 AS updated_at, v.column7 AS sha256, v.column8 AS size_bytes, v.column9 AS sniffed_type,
                v.column10 AS reason
            FROM (SELECT ? AS team_id) shared CROSS JOIN (VALUES {values}) v ON true
            CROSS JOIN attachments old ON old.team_id = shared.team_id AND old.key = v.column1
            WHERE CASE
                WHEN old.state = 'erased' THEN false
                WHEN v.column3 = 'erased' THEN true
                WHEN (old.state = 'archived') <> (v.column3 = 'archived') THEN v.column3 = 'archived'
                WHEN old.state = 'pending' THEN v.column4 >= old.generation
                ELSE (v.column4, v.column6, v.column5) > (old.generation, old.updated_at, coalesce(old.writer_id, ''))
            END
            -- Without it SQLite joins in another order, and walks the whole table.
            LIMIT -1
        ) new WHERE attachments.id = new.id"
    )
}

/// The team, and the columns of each line.
fn bind_all<'a>(sql: String, team: TeamRow, lines: &'a [Keyed<'a>]) -> Query<'a> {
    let mut query = query(sql).bind(team.0);
    for (key, line) in lines {
        query = query
            .bind(&key.as_bytes()[..])
            .bind(line.attachment_id.as_str())
            .bind(line.kind.as_str())
            .bind(column(line.generation))
            .bind(line.writer_id.0.as_str())
            .bind(line.at.as_millisecond())
            .bind(line.sha256.as_ref().map(|digest| &digest.as_bytes()[..]))
            .bind(line.size_bytes.map(column))
            .bind(line.sniffed_type.as_deref())
            .bind(line.rule.as_deref().or(line.reason.as_deref()));
    }
    query
}

/// Takes the blobs that lines cite as `writing` where they are not known.
async fn cite(connection: &mut Connection, archive: ArchiveRow, lines: &[OutcomeLine]) -> Result<()> {
    let cited: Vec<(Digest, u64)> = lines
        .iter()
        .filter(|line| line.kind == OutcomeKind::Archived)
        .filter_map(|line| Some((line.sha256?, line.size_bytes.unwrap_or(0))))
        .collect();
    for chunk in chunks(&cited) {
        let sql = format!(
            "-- name: load_blobs
            INSERT OR FAIL INTO blobs (archive_id, state, sha256, size_bytes)
            SELECT shared.*, rows.* FROM (SELECT ?, 'writing') shared CROSS JOIN (VALUES {}) rows ON true WHERE true
            ON CONFLICT (archive_id, sha256) DO NOTHING",
            values(chunk.len(), 2)
        );
        let mut query = query(sql).bind(archive.0);
        for (sha256, size) in chunk {
            query = query.bind(&sha256.as_bytes()[..]).bind(column(*size));
        }
        query.execute(&mut *connection).await.map_err(at("load_blobs"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
