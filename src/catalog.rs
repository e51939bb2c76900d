//! The catalog: what is known of every attachment, its job, its lease; all SQL stands below this module.
//!
//! A catalog can always be rebuilt from the archive's journal; it is the index, never the only copy of an outcome.
//! Every public operation is one transaction: it happens whole or, on an error or a dropped future, not at all.

mod audit;
mod backup;
mod bulk;
mod completion;
mod decisions;
mod engine;
mod error;
mod export;
mod file_system;
mod find;
mod inbox;
mod ingest;
mod inspect;
mod jobs;
mod journal;
mod lanes;
mod listen;
mod load;
mod lock;
mod lookup;
mod members;
mod open;
mod pauses;
mod people;
mod quota;
mod recheck;
mod recover;
mod refilter;
mod report;
mod rows;
mod server;
mod state;
mod texts;
mod walks;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use tokio::sync::{Mutex, MutexGuard};

use self::engine::{Connection, query, query_scalar};
use self::error::at;
use crate::clock::Clock;
use crate::model::TeamKey;

pub use audit::{CitedBytes, Difference};
pub use completion::{Completion, Intent, NewState};
pub use error::{CatalogError, DatabaseError, Result};
pub use export::{ExportConversation, ExportItem, ExportPlace, ExportRow, ExportTotals, Exported};
pub use file_system::{file_system, network_file_system};
pub use find::{FindPage, FindQuery, FindSort, Found, GlobPattern, InvalidGlob, Shown};
pub use inbox::InboxPosition;
pub use ingest::{IngestMessage, IngestReference, Ingested, Journaled, Known, MetLines};
pub use jobs::{Job, Lease, LeaseTicket};
pub use journal::{LoadedSegment, UnjournaledSkip};
pub use listen::{Heard, Listener};
pub use load::Load;
pub use lock::WorkerLock;
pub use members::Member;
pub use open::CatalogPlace;
pub use pauses::{egress_scope, person_scope, team_scope};
pub use people::People;
pub use quota::{
    GivenRequests, RequestWish, SLOT_COUNTS_MS, SLOT_MS, UnusedRequests, UsedRequests, day_scope, window_scope,
};
pub use recheck::KnownContent;
pub use refilter::Judged;
pub use report::{AttachmentRow, RejectRow, SeenTotals, StateTotals, TeamTotals};
pub use server::Server;
pub use state::{BlobState, Pause, State};
pub use texts::{RulesId, TakenTexts};
pub use walks::{
    KeptPage, Met, ToRead, Walk, WalkEntry, WalkKind, WalkNotes, WalkPhase, WalkRow, WalkTotals, WalkWish,
};

/// A batch as the one JSON parameter of a statement.
fn json<T: serde::Serialize>(value: &T) -> String {
    let text = serde_json::to_string(value).expect("plain structs of text and numbers always serialise");
    if text.contains("\\u0000") { without_nul(&text) } else { text }
}

/// JSON without NUL characters: SQLite drops them, and PostgreSQL refuses them.
fn without_nul(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(escape) = rest.find('\\') {
        text.push_str(&rest[..escape]);
        rest = &rest[escape..];
        match rest.strip_prefix("\\u0000") {
            Some(behind) => rest = behind,
            None => {
                let (pair, behind) = rest.split_at(2);
                text.push_str(pair);
                rest = behind;
            }
        }
    }
    text.push_str(rest);
    text
}

/// The row id of an archive in this catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ArchiveRow(pub(crate) i64);

/// The row id of a team in this catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TeamRow(pub(crate) i64);

impl TeamRow {
    /// The row of no team.
    pub const NONE: Self = Self(0);

    /// Its number, as bytes.
    pub const fn to_be_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// An open catalog. All statements go through one connection, in order.
#[derive(Debug)]
pub struct Catalog {
    connection: Mutex<Connection>,
    /// Attachments that this run has met and that are not yet in the table `seen`: many at once are far cheaper. Each
    /// with whether it was archived when it was met.
    seen_ahead: std::sync::Mutex<Vec<(i64, bool)>>,
    /// Locks whose holders are gone, and that are to be given back with the next statement.
    unlocked: Arc<lock::Unlocked>,
    is_shared: bool,
    /// Who this is among those who share the catalog; 0 is nobody.
    member: AtomicI64,
    /// What notes the time that the rows have: PostgreSQL's own.
    clock: Clock,
    folder: PathBuf,
    shown: String,
}

impl Catalog {
    /// The file's name inside the catalog's folder.
    pub const FILE_NAME: &str = "catalog.sqlite";

    /// Whether many processes may hold leases at once: on PostgreSQL. Told without waiting for the connection, which statements
    /// ask for their engine.
    pub const fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// What tells the time of its rows: PostgreSQL's own, or that of this machine.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Where the catalog is kept; of one in PostgreSQL, what this machine keeps beside it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it is, as people are told: its file, or its address without a password.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The archive of this UUID, remembered at first sight.
    pub async fn bind_archive(&self, uuid: &str, location: &str) -> Result<ArchiveRow> {
        let mut connection = self.connection().await;
        let random = connection.pick("randomblob(16)", "random_token()");
        let row = query_scalar(format!(
            "-- name: bind_archive
            INSERT INTO archives (uuid, location, first_seen_at, catalog_id) VALUES ($1, $2, $3, {random})
            ON CONFLICT (uuid) DO UPDATE
                SET location = excluded.location, catalog_id = coalesce(archives.catalog_id, excluded.catalog_id)
            RETURNING id",
        ))
        .bind(uuid)
        .bind(location)
        .bind(self.clock.now_ms())
        .fetch_one(&mut connection)
        .await
        .map_err(at("bind_archive"))?;
        Ok(ArchiveRow(row))
    }

    /// What tells this catalog of an archive from any other of it: the same for all processes that work with it.
    pub async fn id_for(&self, archive: ArchiveRow) -> Result<String> {
        let mut connection = self.connection().await;
        let id: Vec<u8> = query_scalar("-- name: id_for\nSELECT catalog_id FROM archives WHERE id = ?")
            .bind(archive.0)
            .fetch_one(&mut connection)
            .await
            .map_err(at("id_for"))?;
        Ok(data_encoding::HEXLOWER.encode(&id))
    }

    /// Refuses a catalog in which one of these teams belongs to another archive: its rows would never meet that team's
    /// attachments again, and all of them would be fetched anew.
    pub async fn refuse_teams_of_others(&self, uuid: &str, teams: &[TeamKey]) -> Result<()> {
        let mut connection = self.connection().await;
        let keys: Vec<&str> = teams.iter().map(TeamKey::as_str).collect();
        let found = query(
            "-- name: refuse_teams_of_others
            SELECT teams.archive_key, archives.location, archives.uuid FROM teams JOIN archives ON archives.id = teams.archive_id
            WHERE archives.uuid <> $1 AND teams.archive_key IN (SELECT value FROM json_each($2))
              AND NOT EXISTS (
                SELECT 1 FROM teams AS ours JOIN archives AS here ON here.id = ours.archive_id
                WHERE here.uuid = $1 AND ours.archive_key = teams.archive_key)
            LIMIT 1",
        )
        .bind(uuid)
        .bind(json(&keys))
        .fetch_optional(&mut connection)
        .await
        .map_err(at("refuse_teams_of_others"))?;
        match found {
            None => Ok(()),
            Some(row) => Err(CatalogError::OtherArchive {
                shown: self.shown.as_str().into(),
                team: row.get::<String>(0).into(),
                location: row.get::<String>(1).into(),
                theirs: row.get::<String>(2).into(),
                ours: uuid.into(),
            }),
        }
    }

    /// The team of this key in that archive, remembered at first sight.
    pub async fn bind_team(&self, archive: ArchiveRow, key: &TeamKey) -> Result<TeamRow> {
        let mut connection = self.connection().await;
        bind_team(&mut connection, archive, key).await
    }

    /// The teams of that archive.
    pub async fn teams(&self, archive: ArchiveRow) -> Result<Vec<(TeamRow, TeamKey)>> {
        let mut connection = self.connection().await;
        let rows = query(
            "-- name: teams
            SELECT id, archive_key FROM teams WHERE archive_id = $1 ORDER BY id",
        )
        .bind(archive.0)
        .fetch_all(&mut connection)
        .await
        .map_err(at("teams"))?;
        rows.iter()
            .map(|row| {
                let key: String = row.get(1);
                let key =
                    key.parse().map_err(|error| CatalogError::Impossible(format!("teams.archive_key: {error}")))?;
                Ok((TeamRow(row.get(0)), key))
            })
            .collect()
    }

    async fn connection(&self) -> MutexGuard<'_, Connection> {
        let mut connection = self.connection.lock().await;
        connection.undo_unfinished().await;
        if self.is_shared {
            self.give_locks_back(&mut connection).await;
        }
        connection
    }

    /// Ends the connection after a last checkpoint.
    pub async fn close(self) -> Result<()> {
        self.connection.into_inner().close().await.map_err(at("close"))
    }
}

async fn bind_team(connection: &mut Connection, archive: ArchiveRow, key: &TeamKey) -> Result<TeamRow> {
    let row = query_scalar(
        "-- name: bind_team
        INSERT INTO teams (archive_id, archive_key) VALUES ($1, $2)
        ON CONFLICT (archive_id, archive_key) DO UPDATE SET archive_key = excluded.archive_key RETURNING id",
    )
    .bind(archive.0)
    .bind(key.as_str())
    .fetch_one(connection)
    .await
    .map_err(at("bind_team"))?;
    Ok(TeamRow(row))
}
