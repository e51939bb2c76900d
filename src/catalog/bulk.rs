//! Filling an empty catalog: without the indexes and triggers that a walk over the finished tables makes in a fraction of
//! the time. Which are missing is told by the database itself, so that whoever opens a catalog whose filler died
//! makes them.

use std::fs::File;
use std::path::Path;

use super::{CatalogError, Result, at};
use crate::catalog::engine::{Connection, query, query_scalar};

/// What a bulk load goes without, by name: created as the migrations create it.
const DEFERRED: [(&str, &str); 4] = [
    (
        "attachments_due",
        "CREATE INDEX IF NOT EXISTS attachments_due ON attachments (team_id, lane, not_before, id)
            WHERE state = 'pending' AND lease_token IS NULL",
    ),
    (
        "attachments_attention",
        "CREATE INDEX IF NOT EXISTS attachments_attention ON attachments (state, updated_at)
            WHERE state IN ('failed', 'quarantined')",
    ),
    (
        "attachments_sha256",
        "CREATE INDEX IF NOT EXISTS attachments_sha256 ON attachments (sha256) WHERE sha256 IS NOT NULL",
    ),
    ("links_attachment", "CREATE INDEX IF NOT EXISTS links_attachment ON links (attachment_row)"),
];

/// The triggers that keep the totals.
const TRIGGERS: [&str; 5] =
    ["attachments_added", "attachments_removed", "attachments_changed", "messages_added", "messages_removed"];

/// Makes them, and counts what they keep.
const TOTALS: &str = include_str!("totals.sql");

/// The blobs that archived attachments cite, in their order: a bulk load leaves them to its end, as their digests come in
/// no order, and each transaction would write nearly every page of theirs again.
const CITED: &str = "-- name: cite_blobs
    INSERT OR FAIL INTO blobs (archive_id, sha256, size_bytes, state)
    SELECT t.archive_id, a.sha256, coalesce(max(a.size_bytes), 0), 'writing'
    FROM attachments a NOT INDEXED JOIN teams t ON t.id = a.team_id
    WHERE a.state = 'archived' AND a.sha256 IS NOT NULL GROUP BY t.archive_id, a.sha256
    ON CONFLICT (archive_id, sha256) DO NOTHING";

/// Held by the process that fills a catalog, so that others do not take its missing indexes for those of a dead one.
#[derive(Debug)]
pub(super) struct BulkLock(#[expect(dead_code, reason = "held for its lock")] File);

/// Takes the lock; `None` while another process fills the catalog.
fn lock(folder: &Path) -> Result<Option<BulkLock>> {
    let path = folder.join("load.lock");
    let failed = |source| CatalogError::Open { path: path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(BulkLock(file))),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

/// Whether nothing of any journal is in the catalog.
pub(super) async fn is_empty(connection: &mut Connection) -> Result<bool> {
    query_scalar(
        "-- name: is_empty
        SELECT NOT EXISTS (SELECT 1 FROM attachments) AND NOT EXISTS (SELECT 1 FROM messages)",
    )
    .fetch_one(connection)
    .await
    .map_err(at("is_empty"))
}

/// Begins: indexes and triggers go. `None` while another process does the same.
pub(super) async fn begin(connection: &mut Connection, folder: &Path) -> Result<Option<BulkLock>> {
    // PostgreSQL is filled as it is: others may be at work.
    if connection.is_postgres() {
        return Ok(None);
    }
    let Some(lock) = lock(folder)? else { return Ok(None) };
    let mut transaction = connection.begin().await.map_err(at("begin_bulk"))?;
    drop_triggers(&mut transaction).await?;
    let drops: Vec<String> = DEFERRED.iter().map(|(name, _)| format!("DROP INDEX IF EXISTS {name};")).collect();
    transaction.run(drops.concat()).await.map_err(at("drop_indexes"))?;
    transaction.commit().await.map_err(at("commit_bulk"))?;
    // Room for the pages of the indexes that are looked up meanwhile, at random; and a log that takes whole transactions
    // before it is copied.
    pragmas(connection, "PRAGMA cache_size = -64000; PRAGMA wal_autocheckpoint = 65536;").await?;
    Ok(Some(lock))
}

/// Ends: everything that was left out is made, in one transaction.
pub(super) async fn end(connection: &mut Connection, lock: BulkLock) -> Result<()> {
    complete(connection).await?;
    pragmas(connection, super::open::PRAGMAS).await?;
    drop(lock);
    Ok(())
}

async fn pragmas(connection: &mut Connection, text: &'static str) -> Result<()> {
    connection.run(text).await.map_err(at("pragmas"))?;
    Ok(())
}

/// Makes what a bulk load left out. Doing it again changes nothing.
async fn complete(connection: &mut Connection) -> Result<()> {
    // A sort takes as much memory as the cache may, and beside it.
    pragmas(connection, "PRAGMA cache_size = -16000").await?;
    let mut transaction = connection.begin().await.map_err(at("begin_complete"))?;
    query(CITED).execute(&mut transaction).await.map_err(at("cite_blobs"))?;
    // Before the indexes are there: one walk over the table and a sort beat a walk in the order of the contents.
    count_totals(&mut transaction).await?;
    for (_, create) in DEFERRED {
        query(create).execute(&mut transaction).await.map_err(at("create_index"))?;
    }
    transaction.commit().await.map_err(at("commit_complete"))
}

/// Makes what the dead filler of a catalog left out. A living one does it itself.
pub(super) async fn mend(connection: &mut Connection, folder: &Path) -> Result<()> {
    let present: i64 = query_scalar(format!(
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('{}')",
        DEFERRED.iter().map(|(name, _)| *name).chain(TRIGGERS).collect::<Vec<_>>().join("','")
    ))
    .fetch_one(&mut *connection)
    .await
    .map_err(at("deferred_indexes"))?;
    if usize::try_from(present).is_ok_and(|present| present == DEFERRED.len() + TRIGGERS.len()) {
        return Ok(());
    }
    match lock(folder)? {
        Some(lock) => end(connection, lock).await,
        None => Ok(()),
    }
}

/// Drops the triggers that keep the totals, within a transaction that calls [`count_totals`], or holds [`BulkLock`].
pub(super) async fn drop_triggers(connection: &mut Connection) -> Result<()> {
    let drops: Vec<String> = TRIGGERS.iter().map(|name| format!("DROP TRIGGER IF EXISTS {name};")).collect();
    connection.run(drops.concat()).await.map_err(at("drop_triggers"))?;
    Ok(())
}

/// Counts the totals, and makes the triggers that keep them.
pub(super) async fn count_totals(connection: &mut Connection) -> Result<()> {
    connection.run_long(TOTALS).await.map_err(at("count_totals"))?;
    Ok(())
}

/// Whether the totals are kept at the moment; else they must be counted.
pub(super) async fn totals_are_kept(connection: &mut Connection) -> Result<bool> {
    if connection.is_postgres() {
        return Ok(true);
    }
    query_scalar(
        "-- name: totals_are_kept
        SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = 'attachments_changed')",
    )
    .fetch_one(connection)
    .await
    .map_err(at("totals_are_kept"))
}
