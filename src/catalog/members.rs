//! Who else works on a shared catalog. A catalog in a folder has one worker, and knows of no others.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::engine::{Connection, query, query_scalar};
use super::{ArchiveRow, Catalog, CatalogError, Result, at};

/// One process at work on one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who it is in the journal.
    pub writer_id: String,
    /// Its command.
    pub role: String,
    /// The machine's name.
    pub host: String,
    /// Its process id there.
    pub process: u32,
    /// The program's version.
    pub program: String,
    /// Since when, by the catalog's clock; who joins need not say it.
    pub started_at_ms: i64,
    /// Fingerprints of the settings that all must have alike, by their names.
    pub settings: BTreeMap<String, String>,
}

impl Member {
    /// The settings in which another differs from this one.
    pub fn differing_from(&self, other: &Self) -> Vec<String> {
        let names: std::collections::BTreeSet<&String> = self.settings.keys().chain(other.settings.keys()).collect();
        names.into_iter().filter(|name| self.settings.get(*name) != other.settings.get(*name)).cloned().collect()
    }
}

/// Those whose session is gone are forgotten after this.
const FORGET_AFTER_MS: i64 = 86_400_000;

impl Catalog {
    /// Joins those who work on `archive`, for as long as this catalog's connection lasts. What is leased from now on goes
    /// back as soon as that ends. Does nothing where the catalog is not shared.
    pub async fn join(&self, archive: ArchiveRow, member: &Member) -> Result<()> {
        let now_ms = self.clock.now_ms();
        let mut connection = self.connection().await;
        if !connection.is_postgres() {
            return Ok(());
        }
        let settings = serde_json::to_string(&member.settings).expect("a map of texts always serialises");
        let id: i64 = query_scalar(
            "-- name: join
            INSERT INTO members (archive_id, writer_id, role, host, process, program, settings, started_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        )
        .bind(archive.0)
        .bind(&member.writer_id)
        .bind(&member.role)
        .bind(&member.host)
        .bind(member.process)
        .bind(&member.program)
        .bind(settings)
        .bind(now_ms)
        .fetch_one(&mut connection)
        .await
        .map_err(at("join"))?;
        query("-- name: hold_membership\nSELECT pg_advisory_lock(730749881, CAST(? AS int4))")
            .bind(id)
            .execute(&mut connection)
            .await
            .map_err(at("hold_membership"))?;
        query(
            "-- name: forget_members
            DELETE FROM members WHERE started_at < ? AND id NOT IN (SELECT id FROM members_at_work)",
        )
        .bind(now_ms.saturating_sub(FORGET_AFTER_MS))
        .execute(&mut connection)
        .await
        .map_err(at("forget_members"))?;
        self.member.store(id, Ordering::Relaxed);
        Ok(())
    }

    /// Those who work on `archive` beside this one. Their segments of the journal are being taken in by themselves.
    pub async fn others_at_work(&self, archive: ArchiveRow) -> Result<Vec<Member>> {
        let mut connection = self.connection().await;
        if !connection.is_postgres() {
            return Ok(Vec::new());
        }
        let rows = query(
            "-- name: others_at_work
            SELECT writer_id, role, host, process, program, settings, started_at FROM members_at_work
            WHERE archive_id = ? AND id <> ? ORDER BY id",
        )
        .bind(archive.0)
        .bind(self.member.load(Ordering::Relaxed))
        .fetch_all(&mut connection)
        .await
        .map_err(at("others_at_work"))?;
        rows.iter()
            .map(|row| {
                let settings: String = row.get(5);
                let settings = serde_json::from_str(&settings)
                    .map_err(|error| CatalogError::Impossible(format!("members.settings: {error}")))?;
                Ok(Member {
                    writer_id: row.get(0),
                    role: row.get(1),
                    host: row.get(2),
                    process: u32::try_from(row.get::<i64>(3)).unwrap_or(0),
                    program: row.get(4),
                    started_at_ms: row.get(6),
                    settings,
                })
            })
            .collect()
    }

    /// Takes the right to walk through what Jelly lists for `archive`, which one process at a time has, until the connection
    /// ends. Who holds the worker lock of a catalog in a folder has it anyway.
    pub async fn try_walk_lock(&self, archive: ArchiveRow) -> Result<bool> {
        let mut connection = self.connection().await;
        if !connection.is_postgres() {
            return Ok(true);
        }
        query_scalar("-- name: walk_lock\nSELECT pg_try_advisory_lock(730749882, CAST(? AS int4))")
            .bind(archive.0)
            .fetch_one(&mut connection)
            .await
            .map_err(at("walk_lock"))
    }

    /// Whether this process may load the journal now: one at a time does. Waits for another, if `wait` says so. Until
    /// [`Catalog::unlock_loading`], the server ends the connection of a process that stands still for some seconds, so that
    /// it holds up nobody; see [`Catalog::stay_awake`].
    pub async fn lock_loading(&self, archive: ArchiveRow, wait: bool) -> Result<bool> {
        loop {
            let mut connection = self.connection().await;
            if !connection.is_postgres() {
                return Ok(true);
            }
            let is_locked: bool =
                query_scalar("-- name: lock_loading\nSELECT pg_try_advisory_lock(730749883, CAST(? AS int4))")
                    .bind(archive.0)
                    .fetch_one(&mut connection)
                    .await
                    .map_err(at("lock_loading"))?;
            if is_locked {
                rest_at_most(&mut connection, "5s").await?;
            }
            drop(connection);
            if is_locked || !wait {
                return Ok(is_locked);
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }

    /// Ends what [`Catalog::lock_loading`] began. Should the load have failed, the end of the connection does.
    pub async fn unlock_loading(&self, archive: ArchiveRow) -> Result<()> {
        let mut connection = self.connection().await;
        if connection.is_postgres() {
            rest_at_most(&mut connection, "0").await?;
            query("-- name: unlock_loading\nSELECT pg_advisory_unlock(730749883, CAST(? AS int4))")
                .bind(archive.0)
                .execute(&mut connection)
                .await
                .map_err(at("unlock_loading"))?;
        }
        Ok(())
    }
    /// Shows the server every second that this process lives. Ends with an error alone.
    pub async fn stay_awake(&self) -> CatalogError {
        if !self.is_shared() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let mut connection = self.connection().await;
            if let Err(error) = query("-- name: awake\nSELECT 1").execute(&mut connection).await {
                return at("awake")(error);
            }
        }
    }
}

/// After how long the server ends a session that says nothing; "0" is never. PostgreSQL 13 knows no such thing.
async fn rest_at_most(connection: &mut Connection, time: &'static str) -> Result<()> {
    query(
        "-- name: rest_at_most
        SELECT set_config('idle_session_timeout', ?, false)
        WHERE CAST(current_setting('server_version_num') AS int4) >= 140000",
    )
    .bind(time)
    .execute(connection)
    .await
    .map_err(at("rest_at_most"))?;
    Ok(())
}
