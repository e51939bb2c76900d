//! What can go wrong with the catalog, and what databases say of it.

use std::fmt;
use std::path::PathBuf;

use sqlx::postgres::PgDatabaseError;

use crate::config::PostgresUrl;

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
        source: DatabaseError,
    },
    /// It is the catalog of another archive.
    #[error(
        "the catalog {shown} is that of another archive, {location} ({theirs}), to which team {team} belongs there, and not of \
         this one ({ours}); give --catalog another {kind}, or --archive that place",
        kind = if shown.starts_with("postgres:") { "database" } else { "folder" }
    )]
    OtherArchive {
        /// The catalog's folder, or its address without a password.
        shown: Box<str>,
        /// The team.
        team: Box<str>,
        /// Where that archive was last seen.
        location: Box<str>,
        /// The UUID of that archive.
        theirs: Box<str>,
        /// The UUID of the one that was opened.
        ours: Box<str>,
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
    /// PostgreSQL cannot be reached, or lets nobody in.
    #[error("cannot open the catalog {shown}; check the address, the password, and that the server runs")]
    Connect {
        /// The address, without its password.
        shown: String,
        /// Why.
        source: DatabaseError,
    },
    /// The database cannot hold every text.
    #[error(
        "the database of the catalog {shown} has the encoding {encoding}, which cannot hold every text; make one with \
         `CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0`"
    )]
    Encoding {
        /// The address, without its password.
        shown: String,
        /// The encoding's name.
        encoding: String,
    },
    /// The role may not do there what the catalog needs.
    #[error(
        "the role of the catalog {url} has not the rights for '{query}'; let the database's owner run `GRANT CREATE, \
         TEMPORARY ON DATABASE {database} TO {role}`, and where another role has made its tables, connect as that one",
        database = url.database(),
        role = url.role().unwrap_or("…")
    )]
    Forbidden {
        /// The address.
        url: Box<PostgresUrl>,
        /// The statement's name.
        query: &'static str,
        /// Why.
        source: DatabaseError,
    },
    /// The server takes no writes.
    #[error(
        "the server of the catalog {shown} cannot be written: it is a standby, or transactions there are read-only \
         (`default_transaction_read_only`); give the address of the primary, and a role that may write"
    )]
    ReadOnlyServer {
        /// The address, without its password.
        shown: String,
        /// Why.
        source: DatabaseError,
    },
    /// Statements of other sessions come between.
    #[error(
        "the connection to PostgreSQL is no session of its own: statements of others come between (a pooler in transaction \
         mode?); give the address of the server itself, or of a pooler in session mode (`pool_mode = session`)"
    )]
    Pooled,
    /// What this program needs has been given up by newer ones.
    #[error("the catalog {shown} serves newer versions of jellyjar alone by now; install one of them")]
    Outdated {
        /// The address, without its password.
        shown: String,
    },
    /// A statement failed.
    #[error("the catalog failed at '{query}'")]
    Query {
        /// The statement's name.
        query: &'static str,
        /// Why.
        source: DatabaseError,
    },
    /// A row that no version of this program writes.
    #[error("the catalog holds an impossible value: {0}; run `jellyjar rebuild`")]
    Impossible(String),
}

/// Shorthand for the module's results.
pub type Result<T> = std::result::Result<T, CatalogError>;

/// PostgreSQL's codes of statements that were prepared before: one of this name is there, or is not. Each session has its
/// own, unless a pooler mixes sessions up.
const PREPARED_ELSEWHERE: [&str; 2] = ["42P05", "26000"];
/// PostgreSQL's code of what a role may not do.
const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// PostgreSQL's code of what cannot be done where nothing can be written.
const READ_ONLY: &str = "25006";

/// Names the statement that failed.
pub(super) fn at(query: &'static str) -> impl FnOnce(sqlx::Error) -> CatalogError {
    move |source| {
        let source = DatabaseError(source);
        if PREPARED_ELSEWHERE.iter().any(|code| source.has_code(code)) {
            return CatalogError::Pooled;
        }
        CatalogError::Query { query, source }
    }
}

impl CatalogError {
    /// Whether an error of a chain is the catalog's, or a cause of one: errors that wrap it may stand in its place.
    pub fn is_cause(error: &(dyn std::error::Error + 'static)) -> bool {
        error.is::<Self>() || error.is::<DatabaseError>()
    }

    /// The same with the way out, where PostgreSQL refuses the role something, or all writes.
    pub(super) fn with_rights(self, url: &PostgresUrl) -> Self {
        match self {
            Self::Query { query, source } if source.has_code(INSUFFICIENT_PRIVILEGE) => {
                Self::Forbidden { url: Box::new(url.clone()), query, source }
            }
            Self::Query { source, .. } if source.has_code(READ_ONLY) => {
                Self::ReadOnlyServer { shown: url.to_string(), source }
            }
            other => other,
        }
    }
}

/// What a database says, or what keeps it from saying anything. It is said once: of the driver's errors most repeat what
/// their sources say, and those of PostgreSQL end with a line of the server's own code.
#[derive(Debug)]
pub struct DatabaseError(sqlx::Error);

impl DatabaseError {
    fn has_code(&self, code: &str) -> bool {
        self.0.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|found| found == code)
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
                Some(error) => f.write_str(error.message()),
                None => error.fmt(f),
            },
            // Of an end that the other side did not announce, TLS says more than helps.
            sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                f.write_str("the connection was lost")
            }
            sqlx::Error::Io(error) => error.fmt(f),
            sqlx::Error::PoolTimedOut => f.write_str("there was no answer in time"),
            other => other.fmt(f),
        }
    }
}

impl std::error::Error for DatabaseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_database_says_is_said_once() {
        let refused = || std::io::Error::from_raw_os_error(111);
        let error =
            CatalogError::Connect { shown: "postgres://db/x".into(), source: sqlx::Error::Io(refused()).into() };
        let text = format!("{:#}", anyhow::Error::new(error));
        assert_eq!(text.matches("Connection refused").count(), 1, "{text}");
        let error = anyhow::Error::new(at("some_query")(sqlx::Error::Io(refused())));
        assert_eq!(format!("{error:#}"), "the catalog failed at 'some_query': Connection refused (os error 111)");
        let lost = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "no close_notify: see https://docs.example/");
        let error = anyhow::Error::new(at("some_query")(sqlx::Error::Io(lost)));
        assert_eq!(format!("{error:#}"), "the catalog failed at 'some_query': the connection was lost");
    }
}
