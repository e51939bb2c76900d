//! The catalog: what is known of every attachment, its job, its lease; all SQL stands below this module.
//!
//! A catalog can always be rebuilt from the archive's journal; it is the index, never the only copy of an outcome.
//! Every public operation is one transaction: it happens whole or, on an error or a dropped future, not at all.

mod audit;
mod backup;
mod bulk;
mod completion;
mod decisions;
mod export;
mod find;
mod inbox;
mod ingest;
mod inspect;
mod jobs;
mod journal;
mod lanes;
mod load;
mod lookup;
mod pauses;
mod people;
mod recheck;
mod recover;
mod refilter;
mod report;
mod rows;
mod state;
mod texts;
mod walks;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::{Mutex, MutexGuard};

use crate::clock::Clock;
use crate::model::TeamKey;

pub use audit::{CitedBytes, Difference};
pub use completion::{Completion, Intent, NewState};
pub use export::{ExportConversation, ExportItem, ExportPlace, ExportRow, ExportTotals, Exported};
pub use find::{FindPage, FindQuery, FindSort, Found, GlobPattern, InvalidGlob, Shown};
pub use inbox::InboxPosition;
pub use ingest::{IngestMessage, IngestReference, Ingested, Journaled, Known, MetLines};
pub use jobs::{Job, Lease, LeaseTicket};
pub use journal::{LoadedSegment, UnjournaledSkip};
pub use load::Load;
pub use pauses::{person_scope, team_scope};
pub use people::People;
pub use recheck::KnownContent;
pub use refilter::Judged;
pub use report::{AttachmentRow, RejectRow, SeenTotals, StateTotals, TeamTotals};
pub use state::{BlobState, Pause, State};
pub use texts::{RulesId, TakenTexts};
pub use walks::{
    KeptPage, Met, ToRead, Walk, WalkEntry, WalkKind, WalkNotes, WalkPhase, WalkRow, WalkTotals, WalkWish,
};

/// What can go wrong with the catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The folder or file cannot be made or opened.
    #[error("cannot open the catalog {path}", path = path.display())]
    Open {
        /// The catalog's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It may be read, but not written.
    #[error(
        "the catalog {path} cannot be written, which every command needs; give --catalog a folder of your own: it is \
         made anew there from the archive",
        path = path.display()
    )]
    ReadOnly {
        /// The catalog's file.
        path: PathBuf,
    },
    /// A newer program has been here.
    #[error("the catalog {path} was made by a newer jellyjar; install that version, or give another --catalog", path = path.display())]
    Newer {
        /// The catalog's file.
        path: PathBuf,
    },
    /// Some other program's database.
    #[error("{path} is not a jellyjar catalog; give another --catalog", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// SQLite cannot read it.
    #[error(
        "the catalog {path} is damaged; run `jellyjar rebuild`, which moves it aside and makes it anew from the archive",
        path = path.display()
    )]
    Corrupt {
        /// The catalog's file.
        path: PathBuf,
        /// What SQLite says.
        source: sqlx::Error,
    },
    /// It is the catalog of another archive.
    #[error(
        "the catalog in {path} is that of another archive, {location}, to which team {team} belongs there; give \
         --catalog another folder, or --archive that place",
        path = path.display()
    )]
    OtherArchive {
        /// The catalog's folder.
        path: PathBuf,
        /// The team.
        team: String,
        /// Where that archive was last seen.
        location: String,
    },
    /// SQLite's locks do not hold there.
    #[error(
        "the catalog cannot be kept on a network file system ({kind}) at {path}: its locks do not hold there; \
         give --catalog a folder on a local disk",
        path = path.display()
    )]
    NetworkFileSystem {
        /// The folder.
        path: PathBuf,
        /// The file system's type.
        kind: String,
    },
    /// A copy of it cannot be written.
    #[error("cannot write the copy {path}", path = path.display())]
    Backup {
        /// The copy.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A statement failed.
    #[error("the catalog failed at '{query}'")]
    Query {
        /// The statement's name.
        query: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// A row that no version of this program writes.
    #[error("the catalog holds an impossible value: {0}; run `jellyjar rebuild`")]
    Impossible(String),
}

/// Shorthand for the module's results.
pub type Result<T> = std::result::Result<T, CatalogError>;

/// Names the statement that failed.
fn at(query: &'static str) -> impl FnOnce(sqlx::Error) -> CatalogError {
    move |source| CatalogError::Query { query, source }
}

/// A batch as the one JSON parameter of a statement.
fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain structs of text and numbers always serialise")
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

/// `jjar` in ASCII: marks the database file as ours (SQLite's application id).
const APPLICATION_ID: i64 = 0x6a6a_6172;

/// How a connection works but while it fills an empty catalog. The log is copied at 16 MiB: a page that several batches
/// change is copied to the database once.
const PRAGMAS: &str = "PRAGMA cache_size = -32000; PRAGMA wal_autocheckpoint = 4000;";

/// An open catalog (SQLite). All statements go through one connection, in order.
#[derive(Debug)]
pub struct Catalog {
    connection: Mutex<SqliteConnection>,
    /// Attachments that this run has met and that are not yet in the table `seen`: many at once are far cheaper. Each
    /// with whether it was archived when it was met.
    seen_ahead: std::sync::Mutex<Vec<(i64, bool)>>,
    /// Whether a transaction of [`Load`] is open, or was when its load was dropped.
    is_unfinished: AtomicBool,
    clock: Clock,
    folder: PathBuf,
}

impl Catalog {
    /// The file's name inside the catalog's folder.
    pub const FILE_NAME: &str = "catalog.sqlite";

    /// Opens the catalog in `folder`, making both where they are missing.
    ///
    /// # Errors
    /// A network file system, a newer or foreign database, and anything the file system refuses.
    pub async fn open(folder: &Path, clock: Clock) -> Result<Self> {
        let path = folder.join(Self::FILE_NAME);
        let open = |source| CatalogError::Open { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(open)?;
        if let Some(kind) = network_file_system(folder) {
            return Err(CatalogError::NetworkFileSystem { path: folder.to_owned(), kind });
        }
        // Of two that make a catalog at once, the second must find the tables of the first: SQLite's migrations take no
        // lock of their own. Held until they are done.
        let opening = File::options().create(true).truncate(false).write(true).open(folder.join("open.lock"));
        let opening = opening.map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                CatalogError::ReadOnly { path: path.clone() }
            }
            _ => open(error),
        })?;
        opening.lock().map_err(open)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(30))
            .foreign_keys(false)
            .pragma("temp_store", "0")
            .pragma("journal_size_limit", "67108864")
            .disable_statement_logging();
        let mut connection = options.connect().await.map_err(|error| {
            if recover::is_corrupt(&error) {
                return CatalogError::Corrupt { path: path.clone(), source: error };
            }
            open(std::io::Error::other(error))
        })?;
        let application_id: i64 = sqlx::query_scalar("PRAGMA application_id")
            .fetch_one(&mut connection)
            .await
            .map_err(at("application_id"))?;
        let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
            .fetch_one(&mut connection)
            .await
            .map_err(at("count_tables"))?;
        if application_id != APPLICATION_ID && (application_id != 0 || tables != 0) {
            return Err(CatalogError::Foreign { path });
        }
        sqlx::raw_sql(PRAGMAS).execute(&mut connection).await.map_err(at("pragmas"))?;
        sqlx::query("PRAGMA application_id = 1785356658").execute(&mut connection).await.map_err(|error| {
            let read_only = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
            if read_only.is_some_and(|code| code == "8" || code == "1032") {
                return CatalogError::ReadOnly { path: path.clone() };
            }
            at("mark")(error)
        })?;
        sqlx::migrate!("src/catalog/migrations/sqlite").run(&mut connection).await.map_err(|error| match error {
            sqlx::migrate::MigrateError::VersionMissing(_) => CatalogError::Newer { path: path.clone() },
            sqlx::migrate::MigrateError::Execute(source) => CatalogError::Query { query: "migrate", source },
            other => open(std::io::Error::other(other)),
        })?;
        bulk::mend(&mut connection, folder).await?;
        rows::create_temporary(&mut connection).await?;
        drop(opening);
        let connection = Mutex::new(connection);
        Ok(Self {
            connection,
            seen_ahead: std::sync::Mutex::default(),
            is_unfinished: AtomicBool::new(false),
            clock,
            folder: folder.to_owned(),
        })
    }

    /// Where the catalog is kept.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the right to hold leases, which one process at a time has on this catalog. `None` while another has it.
    /// The right ends with the returned file (or the process).
    pub fn try_worker_lock(&self) -> std::io::Result<Option<WorkerLock>> {
        Self::worker_lock_in(&self.folder)
    }

    /// Like [`Catalog::try_worker_lock`], for a catalog that may be unfit to be opened.
    pub fn worker_lock_in(folder: &Path) -> std::io::Result<Option<WorkerLock>> {
        let path = folder.join("worker.lock");
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(WorkerLock(file))),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The archive of this UUID, remembered at first sight.
    pub async fn bind_archive(&self, uuid: &str, location: &str) -> Result<ArchiveRow> {
        let mut connection = self.connection().await;
        let row = sqlx::query_scalar(
            "-- name: bind_archive
            INSERT INTO archives (uuid, location, first_seen_at) VALUES ($1, $2, $3)
            ON CONFLICT (uuid) DO UPDATE SET location = excluded.location RETURNING id",
        )
        .bind(uuid)
        .bind(location)
        .bind(self.clock.now_ms())
        .fetch_one(&mut *connection)
        .await
        .map_err(at("bind_archive"))?;
        Ok(ArchiveRow(row))
    }

    /// Refuses a catalog in which one of these teams belongs to another archive: its rows would never meet that team's
    /// attachments again, and all of them would be fetched anew.
    pub async fn refuse_teams_of_others(&self, uuid: &str, teams: &[TeamKey]) -> Result<()> {
        let mut connection = self.connection().await;
        let keys: Vec<&str> = teams.iter().map(TeamKey::as_str).collect();
        let found = sqlx::query(
            "-- name: refuse_teams_of_others
            SELECT teams.archive_key, archives.location FROM teams JOIN archives ON archives.id = teams.archive_id
            WHERE archives.uuid <> $1 AND teams.archive_key IN (SELECT value FROM json_each($2))
              AND NOT EXISTS (
                SELECT 1 FROM teams AS ours JOIN archives AS here ON here.id = ours.archive_id
                WHERE here.uuid = $1 AND ours.archive_key = teams.archive_key)
            LIMIT 1",
        )
        .bind(uuid)
        .bind(json(&keys))
        .fetch_optional(&mut *connection)
        .await
        .map_err(at("refuse_teams_of_others"))?;
        match found {
            None => Ok(()),
            Some(row) => {
                Err(CatalogError::OtherArchive { path: self.folder.clone(), team: row.get(0), location: row.get(1) })
            }
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
        let rows = sqlx::query(
            "-- name: teams
            SELECT id, archive_key FROM teams WHERE archive_id = $1 ORDER BY id",
        )
        .bind(archive.0)
        .fetch_all(&mut *connection)
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

    async fn connection(&self) -> MutexGuard<'_, SqliteConnection> {
        let mut connection = self.connection.lock().await;
        if self.is_unfinished.swap(false, Ordering::Relaxed) {
            // If that fails, so does the statement that follows, and says why.
            let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
        }
        connection
    }

    /// Opens a transaction that outlives this call. Should [`Catalog::commit`] never be called, whoever takes the
    /// connection next undoes it.
    async fn begin(&self, connection: &mut SqliteConnection) -> Result<()> {
        self.is_unfinished.store(true, Ordering::Relaxed);
        sqlx::query("BEGIN IMMEDIATE").execute(connection).await.map_err(at("begin_load"))?;
        Ok(())
    }

    async fn commit(&self, connection: &mut SqliteConnection) -> Result<()> {
        sqlx::query("COMMIT").execute(connection).await.map_err(at("commit_load"))?;
        self.is_unfinished.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Ends the connection after a last checkpoint.
    pub async fn close(self) -> Result<()> {
        self.connection.into_inner().close().await.map_err(at("close"))
    }
}

/// The right to hold leases on a catalog.
#[derive(Debug)]
pub struct WorkerLock(#[expect(dead_code, reason = "held for its lock")] File);

async fn bind_team(connection: &mut SqliteConnection, archive: ArchiveRow, key: &TeamKey) -> Result<TeamRow> {
    let row = sqlx::query_scalar(
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

/// The type of the file system that holds `folder`; `None` where that cannot be told.
pub fn file_system(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let kind = mounts
        .lines()
        .filter_map(|line| {
            // proc(5): field 5 is the mount point; the type is the first field after the separator " - ".
            let (fields, rest) = line.split_once(" - ")?;
            let mount_point = fields.split(' ').nth(4)?.replace("\\040", " ");
            folder.starts_with(&mount_point).then(|| (mount_point.len(), rest.split(' ').next().unwrap_or("")))
        })
        .max_by_key(|(length, _)| *length)?
        .1;
    Some(kind.to_owned())
}

/// The type of the network file system that holds `folder`; `None` on a local one, or where that cannot be told.
pub fn network_file_system(folder: &Path) -> Option<String> {
    const NETWORK: [&str; 16] = [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ceph",
        "afs",
        "9p",
        "lustre",
        "gpfs",
        "glusterfs",
        "beegfs",
        "fuse.sshfs",
        "fuse.s3fs",
        "fuse.rclone",
        "fuse.glusterfs",
    ];
    file_system(folder).filter(|kind| NETWORK.contains(&kind.as_str()))
}
