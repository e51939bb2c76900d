//! What a PostgreSQL server is, and whether a catalog can be kept there.

use super::error::at;
use super::open::postgres_connection;
use super::{CatalogError, CatalogPlace, Result};

/// A server with a database for a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its version.
    pub version: String,
    /// The encoding of the database.
    pub encoding: String,
    /// The version of the catalog's tables; `None` where there are none yet.
    pub schema_version: Option<i64>,
    /// The rights in the database that are needed and that the role has not.
    pub missing: Vec<&'static str>,
}

impl Server {
    /// Asks the server of a catalog; `None` where it is in a folder. Nothing is made there.
    ///
    /// # Errors
    /// A server that cannot be reached, a role that it does not let in, a pooler that mixes sessions up.
    pub async fn ask(place: &CatalogPlace) -> Result<Option<Self>> {
        let CatalogPlace::Postgres { url, .. } = place else { return Ok(None) };
        let asking = async {
            let mut connection = postgres_connection(url).await?;
            let (version, encoding, process, has_tables, may_create, may_temporary): (
                String,
                String,
                i32,
                bool,
                bool,
                bool,
            ) = sqlx::query_as(
                "SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('server_encoding'),
                        pg_backend_pid(), to_regclass('jellyjar._sqlx_migrations') IS NOT NULL,
                        has_database_privilege(current_database(), 'CREATE'),
                        has_database_privilege(current_database(), 'TEMPORARY')",
            )
            .fetch_one(&mut connection)
            .await
            .map_err(at("server"))?;
            // Of two connections at once each has a session of its own.
            let mut second = postgres_connection(url).await?;
            let other: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
                .fetch_one(&mut second)
                .await
                .map_err(at("second_session"))?;
            if other == process {
                return Err(CatalogError::Pooled);
            }
            let schema_version = if has_tables {
                sqlx::query_scalar("SELECT max(version) FROM jellyjar._sqlx_migrations WHERE success")
                    .fetch_one(&mut connection)
                    .await
                    .map_err(at("schema_version"))?
            } else {
                None
            };
            let missing = [("CREATE", may_create || has_tables), ("TEMPORARY", may_temporary)];
            let missing = missing.into_iter().filter(|(_, has)| !has).map(|(right, _)| right).collect();
            Ok(Some(Self { version, encoding, schema_version, missing }))
        };
        asking.await.map_err(|error: CatalogError| error.with_rights(url))
    }
}
