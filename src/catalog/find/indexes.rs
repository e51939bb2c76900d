//! The indexes that a large fill goes without: names, senders and sizes come in no order, and each step would write nearly every
//! page of theirs again; PostgreSQL's words come in no order either. They are made at its end, by whoever finds nothing more
//! to index.

use crate::catalog::engine::{Connection, long_query as query, long_query_scalar as query_scalar};
use crate::catalog::{Result, at};

/// SQLite's, by name: created as the migrations create them.
const SQLITE: [(&str, &str); 4] = [
    ("find_entries_name", "CREATE INDEX IF NOT EXISTS find_entries_name ON find_entries (name)"),
    ("find_entries_sender", "CREATE INDEX IF NOT EXISTS find_entries_sender ON find_entries (sender)"),
    ("find_entries_size", "CREATE INDEX IF NOT EXISTS find_entries_size ON find_entries (size_bytes)"),
    (
        "find_entries_conversation",
        "CREATE INDEX IF NOT EXISTS find_entries_conversation ON find_entries (conversation_id)
            WHERE conversation_id IS NOT NULL",
    ),
];

/// PostgreSQL's.
const POSTGRES: [(&str, &str); 5] = [
    ("find_entries_name", "CREATE INDEX find_entries_name ON find_entries (left(name, 600), id)"),
    ("find_entries_sender", "CREATE INDEX find_entries_sender ON find_entries (left(sender, 600), id)"),
    ("find_entries_size", "CREATE INDEX find_entries_size ON find_entries (size_bytes, id)"),
    (
        "find_entries_conversation",
        "CREATE INDEX find_entries_conversation ON find_entries USING hash (conversation_id)
            WHERE conversation_id IS NOT NULL",
    ),
    ("find_text_words", "CREATE INDEX find_text_words ON find_text USING gin (words)"),
];

type Deferred = &'static [(&'static str, &'static str)];

/// Those of this engine, and the names of all that are there.
async fn deferred(connection: &mut Connection) -> Result<(Deferred, Vec<String>)> {
    let deferred: Deferred = if connection.is_postgres() { &POSTGRES } else { &SQLITE };
    let statement = connection.pick(
        "-- name: find_indexes
        SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'find_entries'",
        "-- name: find_indexes
        SELECT CAST(indexname AS TEXT) FROM pg_indexes
        WHERE schemaname = current_schema() AND tablename IN ('find_entries', 'find_text')",
    );
    let present = query_scalar(statement).fetch_all(connection).await.map_err(at("find_indexes"))?;
    Ok((deferred, present))
}

/// Drops what a large fill goes without; on PostgreSQL one index, as it takes its table from everybody, who might in turn hold
/// the other table. Gives whether the transaction is to end with that.
pub(super) async fn drop_deferred(connection: &mut Connection) -> Result<bool> {
    let (deferred, present) = deferred(connection).await?;
    let is_one_by_one = connection.is_postgres();
    let names = deferred.iter().map(|(name, _)| *name).filter(|name| present.iter().any(|one| one == name));
    let drops: Vec<String> =
        names.take(if is_one_by_one { 1 } else { usize::MAX }).map(|name| format!("DROP INDEX {name};")).collect();
    if drops.is_empty() {
        return Ok(false);
    }
    connection.run(drops.concat()).await.map_err(at("drop_find_indexes"))?;
    Ok(is_one_by_one)
}

/// Makes one index that a large fill left out, or whose filler died; `false` where none is missing.
pub(super) async fn make_deferred(connection: &mut Connection) -> Result<bool> {
    let (deferred, present) = deferred(connection).await?;
    let Some((_, create)) = deferred.iter().find(|(name, _)| !present.iter().any(|one| one == name)) else {
        return Ok(false);
    };
    query(*create).execute(connection).await.map_err(at("create_find_index"))?;
    if connection.is_postgres() {
        // Else it would be planned without figures until somebody gathers them.
        connection.run_long("ANALYZE find_entries; ANALYZE find_text").await.map_err(at("analyze_find"))?;
    }
    Ok(true)
}
