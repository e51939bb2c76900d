//! Getting a catalog that SQLite cannot read out of the way. Everything in it can be rebuilt from the journal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::{Catalog, CatalogError, Result, at};
use crate::clock::Clock;

impl Catalog {
    /// Moves the catalog of `folder` aside, to `catalog.sqlite.damaged-<time>`, if it cannot be read as a database or
    /// fails SQLite's own check. Gives where it is now; `None` if it is sound or not there. Only under the worker lock.
    ///
    /// # Errors
    /// A failure to look or to move; a sound database of another program is left alone, and `open` refuses it.
    pub async fn set_aside_if_corrupt(folder: &Path, clock: &Clock) -> Result<Option<PathBuf>> {
        let path = folder.join(Self::FILE_NAME);
        let failed = |source| CatalogError::Open { path: path.clone(), source };
        if !path.try_exists().map_err(failed)? || is_sound(&path).await? {
            return Ok(None);
        }
        let time = clock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut aside = folder.join(format!("{}.damaged-{time}", Self::FILE_NAME));
        let mut number = 1;
        while aside.try_exists().map_err(failed)? {
            number += 1;
            aside = folder.join(format!("{}.damaged-{time}-{number}", Self::FILE_NAME));
        }
        // The log goes first: a new catalog must never meet the log of the old one.
        for suffix in ["-wal", "-shm", ""] {
            let from = folder.join(format!("{}{suffix}", Self::FILE_NAME));
            let mut to = aside.clone().into_os_string();
            to.push(suffix);
            match std::fs::rename(&from, &to) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(failed)?,
            }
        }
        Ok(Some(aside))
    }
}

/// Whether SQLite says that the file is no database, or a broken one: `SQLITE_CORRUPT` and `SQLITE_NOTADB`, with their
/// extended codes (sqlite.org/rescode.html).
pub(super) fn is_corrupt(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    matches!(code.map(|code| code & 0xff), Some(11 | 26))
}

/// Whether SQLite can read all of it.
async fn is_sound(path: &Path) -> Result<bool> {
    let options =
        SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(30)).disable_statement_logging();
    let checked = async {
        let mut connection: SqliteConnection = options.connect().await?;
        let answer: String = sqlx::query_scalar("-- name: integrity_check\nPRAGMA integrity_check(1)")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(answer == "ok")
    };
    match checked.await {
        Err(error) if is_corrupt(&error) => Ok(false),
        other => other.map_err(at("integrity_check")),
    }
}
