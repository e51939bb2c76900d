//! Opening a catalog: a file of SQLite in a folder, or a schema in a PostgreSQL database.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use tokio::sync::Mutex;

use super::engine::{Connection, query_scalar};
use super::{Catalog, CatalogError, DatabaseError, Result, at, bulk, network_file_system, recover, rows};
use crate::clock::Clock;
use crate::config::PostgresUrl;

/// `jjar` in ASCII: marks the database file as ours (SQLite's application id).
const APPLICATION_ID: i64 = 0x6a6a_6172;

/// How a connection works but while it fills an empty catalog. The log is copied at 16 MiB: a page that several batches
/// change is copied to the database once.
pub(super) const PRAGMAS: &str = "PRAGMA cache_size = -32000; PRAGMA wal_autocheckpoint = 4000;";

/// Where a catalog is.
#[derive(Debug, Clone)]
pub enum CatalogPlace {
    /// A file of SQLite in this folder.
    Folder(PathBuf),
    /// A PostgreSQL database, which many machines share.
    Postgres {
        /// The server and the database.
        url: PostgresUrl,
        /// The folder for what this machine keeps beside it.
        home: PathBuf,
        /// How long it may take to answer a statement.
        answer_timeout: Duration,
    },
}

/// As people are told: its file, or its address without a password.
impl fmt::Display for CatalogPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.join(Catalog::FILE_NAME).display().fmt(f),
            Self::Postgres { url, .. } => url.fmt(f),
        }
    }
}

impl From<&Path> for CatalogPlace {
    fn from(folder: &Path) -> Self {
        Self::Folder(folder.to_owned())
    }
}

impl From<&PathBuf> for CatalogPlace {
    fn from(folder: &PathBuf) -> Self {
        Self::Folder(folder.clone())
    }
}

/// Its migrations, of which a program tolerates newer ones: see the table `compatibility`.
static POSTGRES: sqlx::migrate::Migrator = {
    let mut migrator = sqlx::migrate!("src/catalog/migrations/postgres");
    migrator.ignore_missing = true;
    migrator
};

/// Joins are made in the order in which a statement names its tables, by look-ups, as SQLite makes them: the statements are
/// written for that, and a plan that was made while a table was empty must not outlive that. A worker that is stopped in the middle
/// of a transaction holds others up for so long and no longer. How long a statement may take is for `postgres.answer_timeout`
/// to say, which spares those that walk over whole tables: what a role or database has set would end those, time and again.
///
/// The schema is named here and not as a startup parameter, which poolers refuse.
const SESSION: &str = "SET search_path = jellyjar; SET join_collapse_limit = 1; SET from_collapse_limit = 1; SET enable_hashjoin = off;
    SET enable_mergejoin = off; SET enable_seqscan = off; SET plan_cache_mode = force_custom_plan; SET random_page_cost = 1.1;
    SET jit = off; SET idle_in_transaction_session_timeout = '5s'; SET lock_timeout = '30s'; SET statement_timeout = 0;
    SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; SET client_min_messages = warning;";

impl Catalog {
    /// Opens the catalog at a place, making it where it is missing.
    ///
    /// # Errors
    /// A network file system, a newer or foreign database, a server that cannot be reached, and anything the file system
    /// refuses.
    pub async fn open(place: impl Into<CatalogPlace>, clock: Clock) -> Result<Self> {
        let place = place.into();
        #[cfg(test)]
        let place = test::chosen(place).await;
        match place {
            CatalogPlace::Folder(folder) => Self::open_folder(&folder, clock).await,
            CatalogPlace::Postgres { url, home, answer_timeout } => {
                let opened = Self::open_postgres(&url, home, answer_timeout, clock).await;
                opened.map_err(|error| error.with_rights(&url))
            }
        }
    }

    fn new(connection: Connection, clock: Clock, folder: PathBuf, shown: String) -> Self {
        Self {
            is_shared: connection.is_postgres(),
            connection: Mutex::new(connection),
            seen_ahead: std::sync::Mutex::default(),
            unlocked: Arc::default(),
            member: AtomicI64::new(0),
            clock,
            folder,
            shown,
        }
    }

    async fn open_postgres(url: &PostgresUrl, home: PathBuf, answer_timeout: Duration, clock: Clock) -> Result<Self> {
        std::fs::create_dir_all(&home).map_err(|source| CatalogError::Open { path: home.clone(), source })?;
        let mut connection = postgres_connection(url).await?;
        let encoding: String =
            sqlx::query_scalar("SHOW server_encoding").fetch_one(&mut connection).await.map_err(at("encoding"))?;
        if encoding != "UTF8" {
            return Err(CatalogError::Encoding { shown: url.to_string(), encoding });
        }
        // Most find a catalog that is up to date: they wait for nobody who was stopped with the lock.
        if !is_migrated(&mut connection).await.map_err(at("migrations"))? {
            let lock = |text: &'static str| sqlx::raw_sql(text);
            // Of two that make a catalog at once, the second must find the tables of the first.
            lock("SELECT pg_advisory_lock(7307498800)")
                .execute(&mut connection)
                .await
                .map_err(at("lock_migrations"))?;
            lock("CREATE SCHEMA IF NOT EXISTS jellyjar").execute(&mut connection).await.map_err(at("create_schema"))?;
            POSTGRES.run(&mut connection).await.map_err(|error| match error {
                sqlx::migrate::MigrateError::Execute(source) => at("migrate")(source),
                other => unreachable_at(url)(sqlx::Error::Migrate(Box::new(other))),
            })?;
            lock("SELECT pg_advisory_unlock(7307498800)")
                .execute(&mut connection)
                .await
                .map_err(at("unlock_migrations"))?;
        }
        let mut connection = Connection::postgres(connection, answer_timeout);
        let oldest: i64 = query_scalar("-- name: oldest_program\nSELECT oldest FROM compatibility")
            .fetch_one(&mut connection)
            .await
            .map_err(at("oldest_program"))?;
        if POSTGRES.iter().map(|migration| migration.version).max().unwrap_or(0) < oldest {
            return Err(CatalogError::Outdated { shown: url.to_string() });
        }
        rows::create_temporary(&mut connection).await?;
        let now_ms = query_scalar("-- name: server_time\nSELECT now_ms()");
        let now_ms: i64 = now_ms.fetch_one(&mut connection).await.map_err(at("server_time"))?;
        let clock = if clock.is_system() { Clock::server(now_ms) } else { clock };
        Ok(Self::new(connection, clock, home, url.to_string()))
    }

    async fn open_folder(folder: &Path, clock: Clock) -> Result<Self> {
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
        let mut connection: sqlx::SqliteConnection = options.connect().await.map_err(|error| {
            if recover::is_corrupt(&error) {
                return CatalogError::Corrupt { path: path.clone(), source: error.into() };
            }
            open(std::io::Error::other(DatabaseError::from(error)))
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
            sqlx::migrate::MigrateError::Execute(source) => at("migrate")(source),
            other => open(std::io::Error::other(other)),
        })?;
        let mut connection = Connection::from(connection);
        bulk::mend(&mut connection, folder).await?;
        rows::create_temporary(&mut connection).await?;
        drop(opening);
        Ok(Self::new(connection, clock, folder.to_owned(), path.display().to_string()))
    }
}

/// Whether the catalog has all of this program's migrations, as they are.
async fn is_migrated(connection: &mut PgConnection) -> sqlx::Result<bool> {
    let table = sqlx::query_scalar("SELECT to_regclass('jellyjar._sqlx_migrations') IS NOT NULL");
    if !table.fetch_one(&mut *connection).await? {
        return Ok(false);
    }
    let known: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM jellyjar._sqlx_migrations WHERE success")
            .fetch_all(connection)
            .await?;
    let known: HashMap<i64, Vec<u8>> = known.into_iter().collect();
    Ok(POSTGRES.iter().all(|ours| known.get(&ours.version).is_some_and(|checksum| **checksum == *ours.checksum)))
}

/// Says that the server cannot be reached, or lets nobody in.
pub(super) fn unreachable_at(url: &PostgresUrl) -> impl Fn(sqlx::Error) -> CatalogError {
    move |source| CatalogError::Connect { shown: url.to_string(), source: source.into() }
}

/// How PostgreSQL is reached: with no startup parameter that a pooler refuses.
pub(super) fn postgres_options(url: &PostgresUrl) -> sqlx::Result<PgConnectOptions> {
    let options: PgConnectOptions = url.expose().parse()?;
    let name = concat!("jellyjar ", env!("CARGO_PKG_VERSION"));
    Ok(options.application_name(name).extra_float_digits(None).disable_statement_logging())
}

/// A connection to PostgreSQL, whose statements mean our schema.
pub(super) async fn postgres_connection(url: &PostgresUrl) -> Result<PgConnection> {
    let connect = unreachable_at(url);
    let options = postgres_options(url).map_err(&connect)?;
    let connecting = async {
        let mut connection: PgConnection = options.connect().await.map_err(&connect)?;
        sqlx::raw_sql(SESSION).execute(&mut connection).await.map_err(at("session"))?;
        let schema: String = sqlx::query_scalar("SELECT current_setting('search_path')")
            .fetch_one(&mut connection)
            .await
            .map_err(at("search_path"))?;
        // Whoever mixes sessions up would make our tables in another schema.
        if schema == "jellyjar" { Ok(connection) } else { Err(CatalogError::Pooled) }
    };
    let connected = tokio::time::timeout(Duration::from_secs(30), connecting).await;
    connected.unwrap_or_else(|_| Err(connect(sqlx::Error::PoolTimedOut)))
}

/// Tests of this crate run on both engines: with `JELLYJAR_TEST_CATALOG=postgres` each folder stands for a database of the
/// server at `JELLYJAR_TEST_POSTGRES`.
#[cfg(test)]
pub(super) mod test {
    use super::*;

    /// Whether the tests of this run are PostgreSQL's.
    #[allow(clippy::disallowed_methods, reason = "which engine tests run on is no setting")]
    pub(in crate::catalog) fn is_postgres() -> bool {
        std::env::var("JELLYJAR_TEST_CATALOG").is_ok_and(|engine| engine == "postgres")
    }

    #[allow(clippy::disallowed_methods, reason = "which server tests have is no setting")]
    pub(super) async fn chosen(place: CatalogPlace) -> CatalogPlace {
        let CatalogPlace::Folder(home) = place else { return place };
        if !is_postgres() {
            return CatalogPlace::Folder(home);
        }
        std::fs::create_dir_all(&home).unwrap();
        let server = std::env::var("JELLYJAR_TEST_POSTGRES").expect("JELLYJAR_TEST_POSTGRES names a server");
        let folder = home.canonicalize().unwrap();
        let digest = crate::digest::Digest::of(folder.as_os_str().as_encoded_bytes()).to_hex();
        let database = format!("unit_{}", &digest[..24]);
        let mut admin: PgConnection = <PgConnection as sqlx::Connection>::connect(&server).await.unwrap();
        let made = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&mut admin).await;
        if let Err(error) = made {
            let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
            // It is there: another catalog of the same folder.
            assert!(matches!(code.as_deref(), Some("42P04" | "23505")), "{error}");
        }
        let mut url = url::Url::parse(&server).unwrap();
        url.set_path(&database);
        CatalogPlace::Postgres { url: url.as_str().parse().unwrap(), home, answer_timeout: Duration::from_mins(1) }
    }

    #[test]
    fn nothing_is_asked_of_a_server_s_start_that_a_pooler_refuses() {
        let options = postgres_options(&"postgres://jar@db.example/archive".parse().unwrap()).unwrap();
        assert_eq!(options.get_options(), None);
        assert!(format!("{options:?}").contains("extra_float_digits: None"), "{options:?}");
    }

    #[tokio::test]
    async fn a_role_without_the_rights_is_told_which_it_needs() {
        if !is_postgres() {
            return; // Who may write a file is the file system's business.
        }
        let folder = tempfile::tempdir().unwrap();
        let CatalogPlace::Postgres { url, home, answer_timeout } = chosen(folder.path().into()).await else {
            unreachable!()
        };
        let mut owner: PgConnection = <PgConnection as sqlx::Connection>::connect(url.expose()).await.unwrap();
        for (right, query) in [("TEMPORARY", "create_temporary"), ("CREATE", "create_schema")] {
            // Rights are the owner's too, and can be taken from it.
            for statement in [
                "DROP SCHEMA IF EXISTS jellyjar CASCADE".to_owned(),
                format!("GRANT CREATE, TEMPORARY ON DATABASE {} TO CURRENT_USER", url.database()),
                format!("REVOKE {right} ON DATABASE {} FROM CURRENT_USER, PUBLIC", url.database()),
            ] {
                sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut owner).await.unwrap();
            }
            let place = CatalogPlace::Postgres { url: url.clone(), home: home.clone(), answer_timeout };
            let error = Catalog::open(place, Clock::system()).await.unwrap_err().to_string();
            let advice = format!("GRANT CREATE, TEMPORARY ON DATABASE {} TO {}", url.database(), url.role().unwrap());
            assert!(error.contains(&advice) && error.contains(query), "{error}");
        }
    }

    #[tokio::test]
    async fn all_tables_are_in_the_schema_of_ours_and_the_session_means_them() {
        if !is_postgres() {
            return; // SQLite knows no schemas.
        }
        let folder = tempfile::tempdir().unwrap();
        let place = chosen(folder.path().into()).await;
        let CatalogPlace::Postgres { url, .. } = &place else { unreachable!() };
        Catalog::open(place.clone(), Clock::system()).await.unwrap().close().await.unwrap();
        let mut connection = postgres_connection(url).await.unwrap();
        let tables = "SELECT current_schema()::text, count(*) FILTER (WHERE schemaname = 'public'),
            count(*) FILTER (WHERE schemaname = 'jellyjar' AND tablename IN ('_sqlx_migrations', 'attachments')) FROM pg_tables";
        let found: (String, i64, i64) = sqlx::query_as(tables).fetch_one(&mut connection).await.unwrap();
        assert_eq!(found, ("jellyjar".to_owned(), 0, 2));
    }

    #[tokio::test]
    async fn a_time_limit_of_the_database_for_statements_is_not_ours() {
        if !is_postgres() {
            return; // SQLite has none.
        }
        let folder = tempfile::tempdir().unwrap();
        let CatalogPlace::Postgres { url, .. } = chosen(folder.path().into()).await else { unreachable!() };
        let mut owner: PgConnection = <PgConnection as sqlx::Connection>::connect(url.expose()).await.unwrap();
        let statement = format!("ALTER DATABASE {} SET statement_timeout = '7s'", url.database());
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut owner).await.unwrap();
        let mut connection = postgres_connection(&url).await.unwrap();
        let found: String = sqlx::query_scalar("SHOW statement_timeout").fetch_one(&mut connection).await.unwrap();
        assert_eq!(found, "0");
    }

    #[tokio::test]
    async fn a_session_that_others_share_is_told_as_such() {
        if !is_postgres() {
            return; // A file has no pooler before it.
        }
        let folder = tempfile::tempdir().unwrap();
        let CatalogPlace::Postgres { url, .. } = chosen(folder.path().into()).await else { unreachable!() };
        let mut connection = postgres_connection(&url).await.unwrap();
        // What another client of the same session has prepared: the driver numbers its statements.
        let others = "DO $$ BEGIN FOR i IN 1..9 LOOP BEGIN EXECUTE format('PREPARE sqlx_s_%s AS SELECT 1', i);
            EXCEPTION WHEN duplicate_prepared_statement THEN NULL; END; END LOOP; END $$";
        sqlx::raw_sql(others).execute(&mut connection).await.unwrap();
        let failed = sqlx::query("SELECT 2").execute(&mut connection).await.map_err(at("any")).unwrap_err();
        assert!(matches!(failed, CatalogError::Pooled), "{failed:?}");
        assert!(failed.to_string().contains("pool_mode = session"), "{failed}");
    }

    #[tokio::test]
    async fn a_database_that_cannot_hold_every_text_is_refused() {
        if !is_postgres() {
            return; // SQLite's databases are ours alone.
        }
        let folder = tempfile::tempdir().unwrap();
        let CatalogPlace::Postgres { url, home, answer_timeout } = chosen(folder.path().into()).await else {
            unreachable!()
        };
        let (server, name) = url.expose().rsplit_once('/').unwrap();
        let mut admin: PgConnection =
            <PgConnection as sqlx::Connection>::connect(&format!("{server}/postgres")).await.unwrap();
        for statement in [
            format!("DROP DATABASE {name}"),
            format!(
                "CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
            ),
        ] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut admin).await.unwrap();
        }
        let place = CatalogPlace::Postgres { url: url.clone(), home, answer_timeout };
        let error = Catalog::open(place, Clock::system()).await.unwrap_err().to_string();
        assert!(error.contains("the encoding SQL_ASCII") && error.contains("ENCODING 'UTF8'"), "{error}");
        assert!(error.contains(&url.to_string()), "{error}");
    }
}
