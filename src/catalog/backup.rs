//! A copy of the catalog that is whole although others write to it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::engine::query;
use super::{Catalog, CatalogError, Result, at};

/// A file that is removed unless it is kept.
#[derive(Debug)]
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Catalog {
    /// Copies the catalog, as it is at one moment, to `target`, which must not be there. The copy is checked and durable
    /// before it gets its name. Gives its size. Others may write meanwhile; an error, or a dropped future, leaves nothing
    /// behind.
    pub async fn back_up(&self, target: &Path) -> Result<u64> {
        let failed = |source| CatalogError::Backup { path: target.to_owned(), source };
        if target.symlink_metadata().is_ok() {
            return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
        }
        let folder = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let name = target.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| failed(std::io::Error::other(error.to_string())))?;
        let suffix = data_encoding::HEXLOWER.encode(&random);
        let path = folder.join(format!(".{}.{suffix}.tmp", name.to_string_lossy()));
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            // It holds subjects and addresses.
            options.mode(0o600);
        }
        options.open(&path).map_err(failed)?;
        let mut temporary = Temporary(Some(path.clone()));
        let Some(text) = path.to_str() else {
            return Err(failed(std::io::Error::other("its name is no text in UTF-8")));
        };
        query("-- name: back_up\nVACUUM INTO $1")
            .bind(text)
            .execute(&mut *self.connection().await)
            .await
            .map_err(at("back_up"))?;
        check(&path).await?;
        let synced = tokio::task::spawn_blocking({
            let (path, target, folder) = (path.clone(), target.to_owned(), folder.to_owned());
            move || {
                let file = File::open(&path)?;
                file.sync_all()?;
                // A link, unlike a rename, takes the place of nothing that came meanwhile.
                std::fs::hard_link(&path, &target)?;
                std::fs::remove_file(&path)?;
                File::open(&folder)?.sync_all()?;
                Ok(file.metadata()?.len())
            }
        })
        .await
        .map_err(|error| failed(std::io::Error::other(error)))?;
        let size = synced.map_err(failed)?;
        temporary.0 = None;
        Ok(size)
    }
}

/// Whether SQLite finds the copy whole.
async fn check(path: &Path) -> Result<()> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(Duration::from_secs(30))
        .disable_statement_logging();
    let mut connection: sqlx::SqliteConnection = options.connect().await.map_err(at("open_backup"))?;
    let answer: String = sqlx::query_scalar("-- name: check_backup\nPRAGMA quick_check(1)")
        .fetch_one(&mut connection)
        .await
        .map_err(at("check_backup"))?;
    connection.close().await.map_err(at("close_backup"))?;
    if answer == "ok" { Ok(()) } else { Err(CatalogError::Impossible(format!("in the copy: {answer}"))) }
}
