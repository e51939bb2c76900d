//! What a killed program's catalog says, read from a copy so that its own recovery is left to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use super::world::hex;

/// What a catalog says at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Leases that are held: the attachment's id and the lease's token.
    pub(crate) leases: Vec<(String, Vec<u8>)>,
    /// The ids of all attachments.
    pub(crate) attachments: Vec<String>,
    /// The keys of the journal's segments that it has seen.
    pub(crate) segments: Vec<String>,
    /// The ids of attachments that are archived.
    pub(crate) archived: Vec<String>,
    /// Blobs that are durable, in hex.
    pub(crate) durable: Vec<String>,
    /// Blobs of any state, in hex.
    pub(crate) intended: Vec<String>,
    /// Defects, each with its place.
    pub(crate) rejects: Vec<String>,
}

/// Copies the catalog in `folder` to `copy` (a folder) and reads it. One that has no tables yet says nothing.
pub(crate) async fn read(folder: &Path, copy: &Path) -> Result<Snapshot> {
    fs::create_dir_all(copy)?;
    for name in ["catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"] {
        let _ = fs::remove_file(copy.join(name));
        // Without the -shm file, SQLite reads the log as it does after a power cut.
        if !name.ends_with("-shm") && folder.join(name).exists() {
            fs::copy(folder.join(name), copy.join(name))?;
        }
    }
    let path = copy.join("catalog.sqlite");
    if !path.exists() {
        return Ok(Snapshot::default());
    }
    let options = SqliteConnectOptions::new().filename(&path).busy_timeout(Duration::ZERO).disable_statement_logging();
    let mut connection = options.connect().await.context("opening a copy of the catalog")?;
    let check: String = sqlx::query_scalar("PRAGMA quick_check").fetch_one(&mut connection).await?;
    anyhow::ensure!(check == "ok", "the catalog is damaged: {check}");
    let ready: bool =
        sqlx::query_scalar("SELECT count(*) = 2 FROM sqlite_schema WHERE name IN ('attachments', 'segments')")
            .fetch_one(&mut connection)
            .await?;
    let mut snapshot = Snapshot::default();
    if ready {
        let rows = sqlx::query("SELECT attachment_id, lease_token FROM attachments WHERE lease_token IS NOT NULL")
            .fetch_all(&mut connection)
            .await?;
        snapshot.leases = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        snapshot.attachments =
            sqlx::query_scalar("SELECT attachment_id FROM attachments").fetch_all(&mut connection).await?;
        snapshot.segments = sqlx::query_scalar("SELECT key FROM segments").fetch_all(&mut connection).await?;
        snapshot.archived = sqlx::query_scalar("SELECT attachment_id FROM attachments WHERE state = 'archived'")
            .fetch_all(&mut connection)
            .await?;
        snapshot.rejects = sqlx::query_scalar("SELECT format('%s:%d: %s', source, byte_offset, reason) FROM rejects")
            .fetch_all(&mut connection)
            .await?;
        let blobs = sqlx::query("SELECT sha256, state = 'durable' FROM blobs").fetch_all(&mut connection).await?;
        for row in &blobs {
            let name = hex(row.get::<&[u8], _>(0));
            if row.get::<bool, _>(1) {
                snapshot.durable.push(name.clone());
            }
            snapshot.intended.push(name);
        }
    }
    connection.close().await?;
    Ok(snapshot)
}

/// What a catalog that nobody has open says of attachments and messages, each in a line.
pub(crate) async fn places(folder: &Path) -> Result<BTreeSet<String>> {
    let options = SqliteConnectOptions::new().filename(folder.join("catalog.sqlite")).disable_statement_logging();
    let mut connection = options.connect().await.context("opening a catalog")?;
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT format('attachment %s: %s %s %d', attachment_id, state, hex(sha256), size_bytes) FROM attachments
         UNION ALL
         SELECT format('link of message %s to %s', hex(m.line_digest), a.attachment_id)
         FROM links l JOIN messages m ON m.id = l.message_row JOIN attachments a ON a.id = l.attachment_row",
    )
    .fetch_all(&mut connection)
    .await?;
    connection.close().await?;
    Ok(rows.into_iter().collect())
}

/// Lets the time pass that pending attachments wait for (a spool that cannot write waits a minute), without waiting.
pub(crate) async fn let_time_pass(folder: &Path) -> Result<()> {
    let path = folder.join("catalog.sqlite");
    if !path.exists() {
        return Ok(());
    }
    let mut connection = SqliteConnectOptions::new().filename(&path).disable_statement_logging().connect().await?;
    let ready: bool = sqlx::query_scalar("SELECT count(*) = 1 FROM sqlite_schema WHERE name = 'attachments'")
        .fetch_one(&mut connection)
        .await?;
    if ready {
        sqlx::query("UPDATE attachments SET not_before = 0 WHERE state = 'pending'").execute(&mut connection).await?;
    }
    Ok(connection.close().await?)
}
