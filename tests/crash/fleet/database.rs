//! The PostgreSQL of a fleet: a database for each life, looked into and disturbed on connections of the test's own, which
//! no proxy cuts.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use url::Url;

use crate::catalog::Snapshot;
use crate::world::hex;

/// How long a server may take to answer again after a crash.
const BACK_WITHIN: Duration = Duration::from_mins(1);

/// A lease that is held.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Held {
    /// The attachment's id.
    pub(super) id: String,
    /// The lease's generation, which no other lease has.
    pub(super) generation: i64,
}

/// What has become of an attachment.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) generation: i64,
    pub(super) writer_id: String,
}

impl Place {
    /// The lease that it came of.
    pub(super) fn of(&self) -> (i64, &str) {
        (self.generation, &self.writer_id)
    }
}

/// See the module. Dropping it drops the database.
#[derive(Debug)]
pub(super) struct Database {
    server: Url,
    name: String,
    control: String,
}

impl Database {
    /// Makes a database in the server that tests/servers/run tells of; `None` where there is none.
    #[expect(clippy::disallowed_methods, reason = "the environment of the tests, not the program's")]
    pub(super) async fn create(name: &str) -> Result<Option<Self>> {
        let Ok(server) = std::env::var("JELLYJAR_TEST_POSTGRES") else { return Ok(None) };
        let control = std::env::var("JELLYJAR_TEST_POSTGRES_CONTROL")?;
        let database = Self { server: server.parse()?, name: name.to_owned(), control };
        let mut connection = PgConnection::connect(database.server.as_str()).await?;
        for statement in [format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"), format!("CREATE DATABASE {name}")] {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
        }
        Ok(Some(database))
    }

    /// Drops it.
    pub(super) async fn remove(&self) -> Result<()> {
        let mut connection = PgConnection::connect(self.server.as_str()).await?;
        let statement = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await?;
        Ok(())
    }

    /// Where the server listens.
    pub(super) fn address(&self) -> Result<SocketAddr> {
        let (host, port) = (self.server.host_str().context("no host")?, self.server.port().context("no port")?);
        Ok(SocketAddr::new(host.parse()?, port))
    }

    /// The database as the setting `catalog` takes it, reached at `address`.
    pub(super) fn url(&self, address: SocketAddr) -> Result<String> {
        let mut url = self.server.clone();
        url.set_path(&self.name);
        url.set_port(Some(address.port())).map_err(|()| anyhow::anyhow!("no port can be set"))?;
        Ok(url.into())
    }

    /// What nobody may ever see.
    pub(super) fn password(&self) -> &str {
        self.server.password().unwrap_or_default()
    }

    /// A connection; waits for a server that is about to come back.
    pub(super) async fn connect(&self) -> Result<PgConnection> {
        // The program's tables are in a schema of its own.
        let options: PgConnectOptions = self.url(self.address()?)?.parse()?;
        let options = options.options([("search_path", "jellyjar")]);
        let began = Instant::now();
        loop {
            match PgConnection::connect_with(&options).await {
                Ok(connection) => return Ok(connection),
                Err(error) if began.elapsed() > BACK_WITHIN => return Err(error).context("connecting to PostgreSQL"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Crashes the server, and starts it again on the same port.
    pub(super) fn crash_server(&self) -> Result<()> {
        let mut command = Command::new(&self.control);
        let status = command.arg("restart-immediate").stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        if !status.success() {
            bail!("PostgreSQL does not come back: {status}");
        }
        Ok(())
    }

    /// Has it note every lease that a scan takes back, as its holder's session or time is over, and every one whose attachment
    /// turns out to be archived, as the journal is loaded with a line of somebody whose lease was cut short. The tables must be
    /// there.
    pub(super) async fn note_taken_back(&self) -> Result<()> {
        const NOTES: &str = "CREATE TABLE taken_back (attachment_id text NOT NULL, generation bigint NOT NULL);
            CREATE FUNCTION note_taken_back() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF current_query() ~ '-- name: (release_expired_and_orphaned|merge_outcomes)\\M' THEN
                    INSERT INTO jellyjar.taken_back VALUES (OLD.attachment_id, OLD.generation);
                END IF;
                RETURN NULL;
            END $$;
            CREATE TRIGGER note_taken_back AFTER UPDATE ON attachments FOR EACH ROW
                WHEN (OLD.lease_token IS NOT NULL AND NEW.lease_token IS NULL)
                EXECUTE FUNCTION note_taken_back()";
        sqlx::raw_sql(NOTES).execute(&mut self.connect().await?).await?;
        Ok(())
    }

    /// Ends one of the connections that others have to it, as operators do. Gives whether there was one.
    pub(super) async fn terminate_one(&self) -> Result<bool> {
        let mut connection = self.connect().await?;
        let ended: Option<bool> = sqlx::query_scalar(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
             ORDER BY state = 'active' DESC, random() LIMIT 1",
        )
        .fetch_optional(&mut connection)
        .await?;
        Ok(ended == Some(true))
    }
}

/// The leases that are held.
pub(super) async fn leases(connection: &mut PgConnection) -> Result<Vec<Held>, sqlx::Error> {
    let rows = sqlx::query("SELECT attachment_id, generation FROM attachments WHERE lease_token IS NOT NULL")
        .fetch_all(connection)
        .await?;
    Ok(rows.iter().map(|row| Held { id: row.get(0), generation: row.get(1) }).collect())
}

/// The leases that were taken back: see [`Database::note_taken_back`].
pub(super) async fn taken_back(connection: &mut PgConnection) -> Result<Vec<Held>> {
    let rows = sqlx::query("SELECT attachment_id, generation FROM taken_back").fetch_all(connection).await?;
    Ok(rows.iter().map(|row| Held { id: row.get(0), generation: row.get(1) }).collect())
}

/// How far a fleet is.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    /// Attachments that are pending.
    pub(super) pending: i64,
    /// The server's time, in milliseconds since the Unix epoch.
    pub(super) now_ms: i64,
    /// When the lease was over that is over for the longest, if any is.
    pub(super) over_since_ms: Option<i64>,
    /// The processes that have joined and may hold leases (advisory lock 7307498802), by their ids.
    pub(super) at_work: Vec<i64>,
}

/// See [`Progress`].
pub(super) async fn progress(connection: &mut PgConnection) -> Result<Progress, sqlx::Error> {
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM attachments WHERE state = 'pending'), now.ms,
                (SELECT min(lease_expires_at) FROM attachments WHERE lease_token IS NOT NULL AND lease_expires_at < now.ms),
                ARRAY(SELECT m.process FROM members_at_work m
                    JOIN pg_locks member ON member.locktype = 'advisory' AND member.classid = 730749881
                        AND member.objid::BIGINT = m.id
                    JOIN pg_locks works ON works.pid = member.pid AND works.locktype = 'advisory' AND works.granted
                        AND works.classid = 1 AND works.objid = 3012531506)
         FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::BIGINT AS ms) now",
    )
    .fetch_one(connection)
    .await?;
    Ok(Progress { pending: row.get(0), now_ms: row.get(1), over_since_ms: row.get(2), at_work: row.get(3) })
}

/// What its connections are doing, the leases that are over, and who holds locks of sessions, one in a line.
pub(super) async fn activity(connection: &mut PgConnection) -> Result<String> {
    let lines: Vec<String> = sqlx::query_scalar(
        "SELECT concat_ws(' ', 'process', pid, coalesce(state, '?'), wait_event_type, wait_event,
             'for', clock_timestamp() - state_change, 'blocked by', pg_blocking_pids(pid)::text, left(query, 60))
         FROM pg_stat_activity WHERE datname = current_database()
         UNION ALL SELECT concat_ws(' ', 'lock', classid, objid, 'of', pid, CASE WHEN granted THEN '' ELSE 'waits' END)
         FROM pg_locks WHERE locktype = 'advisory'
         UNION ALL SELECT concat_ws(' ', count(*), 'leases of member', lease_member, 'are over')
         FROM attachments WHERE lease_token IS NOT NULL AND lease_expires_at < extract(epoch FROM clock_timestamp()) * 1000
         GROUP BY lease_member",
    )
    .fetch_all(connection)
    .await?;
    Ok(lines.join("\n"))
}

/// What the catalog says of every attachment.
pub(super) async fn places(connection: &mut PgConnection) -> Result<Vec<Place>> {
    let rows = sqlx::query("SELECT attachment_id, state, generation, coalesce(writer_id, '') FROM attachments")
        .fetch_all(connection)
        .await?;
    let place =
        |row: &PgRow| Place { id: row.get(0), state: row.get(1), generation: row.get(2), writer_id: row.get(3) };
    Ok(rows.iter().map(place).collect())
}

/// The keys of the segments whose lines the catalog has merged.
pub(super) async fn loaded_segments(connection: &mut PgConnection) -> Result<HashSet<String>> {
    let keys: Vec<String> =
        sqlx::query_scalar("SELECT key FROM segments WHERE superseded = 0").fetch_all(connection).await?;
    Ok(keys.into_iter().collect())
}

/// Waits until what the server was doing at this moment is done. What waits for a lock leases nothing: claims pass over what is
/// locked.
pub(super) async fn settle(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    const BUSY: &str = "SELECT pid || ' ' || query_start FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()
            AND wait_event_type IS DISTINCT FROM 'Lock'";
    let mut busy: HashSet<String> = sqlx::query_scalar(BUSY).fetch_all(&mut *connection).await?.into_iter().collect();
    while !busy.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let still: HashSet<String> = sqlx::query_scalar(BUSY).fetch_all(&mut *connection).await?.into_iter().collect();
        busy.retain(|one| still.contains(one));
    }
    Ok(())
}

/// The same as the oracle wants it, with blobs and rejects.
pub(super) async fn snapshot(connection: &mut PgConnection, places: &[Place]) -> Result<Snapshot> {
    let mut snapshot = Snapshot {
        attachments: places.iter().map(|place| place.id.clone()).collect(),
        archived: places.iter().filter(|place| place.state == "archived").map(|place| place.id.clone()).collect(),
        segments: sqlx::query_scalar("SELECT key FROM segments").fetch_all(&mut *connection).await?,
        rejects: sqlx::query_scalar("SELECT source || ': ' || reason FROM rejects").fetch_all(&mut *connection).await?,
        ..Snapshot::default()
    };
    for row in sqlx::query("SELECT sha256, state = 'durable' FROM blobs").fetch_all(connection).await? {
        let name = hex(row.get::<&[u8], _>(0));
        if row.get::<bool, _>(1) {
            snapshot.durable.push(name.clone());
        }
        snapshot.intended.push(name);
    }
    Ok(snapshot)
}
