//! `jellyjar catalog`: a copy of the catalog, and where it is.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::receipt::size;
use super::session::{open_place, settings};
use super::{DONE, Global, INTERRUPTED, UsageError, output, run};
use crate::catalog::{Catalog, CatalogPlace};
use crate::clock::Clock;
use crate::config::PostgresUrl;

/// The arguments of `jellyjar catalog`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar catalog path --archive /srv/archive
  jellyjar catalog backup /backup/catalog-2026-11-22.sqlite --archive /srv/archive")]
pub(super) struct CatalogArgs {
    #[command(subcommand)]
    command: CatalogCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum CatalogCommand {
    /// Copy the catalog, consistent and checked, while others work with it
    #[command(after_help = "Examples:
  jellyjar catalog backup /backup/catalog-2026-11-22.sqlite --archive /srv/archive
  jellyjar catalog backup monday.sqlite --archive /srv/archive --json

The catalog can always be made anew from the archive's journal by `jellyjar rebuild`; a copy saves the time \
of that, and holds what the journal does not: what was rejected, pauses, and used quotas. To restore one, stop \
jellyjar, remove catalog.sqlite-wal and catalog.sqlite-shm beside the catalog, and put the copy in place of \
catalog.sqlite. The next command loads what the journal has had since.")]
    Backup {
        /// The file to write; it must not be there
        #[arg(value_name = "DEST")]
        target: PathBuf,
    },
    /// Print where the catalog is
    #[command(after_help = "Examples:
  jellyjar catalog path --archive /srv/archive
  jellyjar catalog path --archive /srv/archive --json")]
    Path,
}

#[derive(Debug, Serialize)]
struct BackupAnswer {
    ok: bool,
    path: String,
    size_bytes: u64,
    /// The file that a copy would take the place of.
    catalog: String,
}

/// Runs the command.
pub(super) async fn run(args: CatalogArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let loaded = settings(&global.overrides(true))?;
    let folder = match open_place(global, &loaded.config).await? {
        CatalogPlace::Folder(folder) => folder,
        CatalogPlace::Postgres { url, .. } => return in_postgres(&args.command, &url, global),
    };
    let file = folder.join(Catalog::FILE_NAME);
    match args.command {
        CatalogCommand::Path => {
            let path = file.display().to_string();
            if global.json {
                output::json(&serde_json::json!({ "ok": true, "path": path }));
            } else {
                output::line(path);
            }
            Ok(ExitCode::from(DONE))
        }
        CatalogCommand::Backup { target } => {
            tokio::select! {
                done = back_up(&folder, &file, &target, global) => done,
                // The copy is removed with the future that makes it.
                () = run::interrupted() => {
                    output::note("Interrupted; nothing was written.");
                    Ok(ExitCode::from(INTERRUPTED))
                }
            }
        }
    }
}

/// What is said of a catalog that is no file.
fn in_postgres(command: &CatalogCommand, url: &PostgresUrl, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        CatalogCommand::Path if global.json => {
            output::json(&serde_json::json!({ "ok": true, "path": url.to_string() }));
        }
        CatalogCommand::Path => output::line(url.to_string()),
        CatalogCommand::Backup { .. } => {
            return Err(UsageError(format!(
                "the catalog {url} is in PostgreSQL; copy it with `pg_dump --schema=jellyjar`, or make it anew with \
                 `jellyjar rebuild` when it is lost"
            ))
            .into());
        }
    }
    Ok(ExitCode::from(DONE))
}

async fn back_up(folder: &Path, file: &Path, target: &Path, global: &Global) -> anyhow::Result<ExitCode> {
    if target.symlink_metadata().is_ok() {
        let what = if target.is_dir() { "is a folder; name a file in it" } else { "is there already; name another" };
        return Err(UsageError(format!("{} {what}", target.display())).into());
    }
    if !file.exists() {
        return Err(UsageError(format!(
            "there is no catalog at {}; `jellyjar rebuild` makes one from the archive",
            file.display()
        ))
        .into());
    }
    let catalog = Catalog::open(folder, Clock::system()).await?;
    let size_bytes = catalog.back_up(target).await?;
    let answer =
        BackupAnswer { ok: true, path: target.display().to_string(), size_bytes, catalog: file.display().to_string() };
    if global.json {
        output::json(&answer);
    } else {
        output::line(format!(
            "{}: {}, checked.\nTo restore it: stop jellyjar, remove {catalog}-wal and {catalog}-shm, and copy it to {catalog}.",
            answer.path,
            size(size_bytes),
            catalog = answer.catalog
        ));
    }
    Ok(ExitCode::from(DONE))
}
