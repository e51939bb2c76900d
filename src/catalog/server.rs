//! What a PostgreSQL server is, and whether a catalog can be kept there.

use std::net::IpAddr;

use sqlx::postgres::PgSslMode;

use super::error::at;
use super::open::{postgres_connection, postgres_options};
use super::{CatalogError, CatalogPlace, Result};
use crate::config::PostgresUrl;

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
    /// Whether it follows another server, and can be read only.
    pub is_standby: bool,
    /// Whether transactions of the role in the database cannot write.
    pub is_read_only: bool,
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
            let (version, encoding, process, has_tables, may_create, may_temporary, is_standby, is_read_only): (
                String,
                String,
                i32,
                bool,
                bool,
                bool,
                bool,
                bool,
            ) = sqlx::query_as(
                "SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('server_encoding'),
                        pg_backend_pid(), to_regclass('jellyjar._sqlx_migrations') IS NOT NULL,
                        has_database_privilege(current_database(), 'CREATE'),
                        has_database_privilege(current_database(), 'TEMPORARY'), pg_is_in_recovery(),
                        current_setting('transaction_read_only') = 'on'",
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
            Ok(Some(Self { version, encoding, schema_version, missing, is_standby, is_read_only }))
        };
        asking.await.map_err(|error: CatalogError| error.with_rights(url))
    }

    /// How a catalog's connections are encrypted, where that lets another machine pass for the server; `None` where it cannot,
    /// or where the server is on this machine.
    pub fn unproven(place: &CatalogPlace) -> Option<String> {
        let CatalogPlace::Postgres { url, .. } = place else { return None };
        unproven(url)
    }
}

fn unproven(url: &PostgresUrl) -> Option<String> {
    let options = postgres_options(url).ok()?;
    let mode = match options.get_ssl_mode() {
        PgSslMode::VerifyCa | PgSslMode::VerifyFull => return None,
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
    };
    let host = options.get_host();
    let is_here = options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    (!is_here).then(|| format!("sslmode={mode}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_could_pass_for_the_server_is_known_by_the_address() {
        let of = |rest: &str| unproven(&format!("postgres://jar:s3cret@{rest}").parse().unwrap());
        for sound in [
            "db.example/jar?sslmode=verify-full",
            "db.example/jar?sslmode=verify-ca&sslrootcert=/etc/db.pem",
            "localhost/jar?sslmode=disable",
            "127.0.0.1:5433/jar?sslmode=prefer",
            "[::1]/jar?sslmode=prefer",
            "%2Fvar%2Frun%2Fpostgresql/jar?sslmode=prefer",
            "db.example/jar?host=/var/run/postgresql&sslmode=prefer",
        ] {
            assert_eq!(of(sound), None, "{sound}");
        }
        for (address, mode) in [
            ("db.example/jar", "sslmode=prefer"),
            ("db.example/jar?sslmode=require", "sslmode=require"),
            ("localhost/jar?host=db.example&sslmode=disable", "sslmode=disable"),
            ("localhost/jar?hostaddr=10.0.0.1", "sslmode=prefer"),
            ("10.0.0.1/jar?sslmode=allow", "sslmode=allow"),
        ] {
            assert_eq!(of(address).as_deref(), Some(mode), "{address}");
        }
    }
}
