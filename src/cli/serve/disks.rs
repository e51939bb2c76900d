//! The disks that an archive's work goes through. Where one cannot be written, nothing is leased and nothing asked of Jelly
//! until it can be again, whatever paused it.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use super::board::Board;
use crate::archive::LOCAL_SCOPE;
use crate::catalog::CatalogError;
use crate::cli::run::Run;
use crate::cli::session::{Access, Session};
use crate::clock::Clock;
use crate::spool::Spool;

/// How often pauses are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The longest time until a pause is tried to be ended, and after which trouble counts as new.
const WAIT_MOST: Duration = Duration::from_mins(1);
/// What is written to see whether that works: more than one page of whatever a file system keeps.
static PROBE: [u8; 256 << 10] = [0; 256 << 10];

/// A disk that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the disk of {what} cannot be written, in {folder}", folder = folder.display())]
struct Unwritable {
    what: &'static str,
    folder: PathBuf,
    source: std::io::Error,
}

const CATALOG: &str = "the catalog";

/// Whether it is the catalog, or its disk, that has failed, and not the archive.
pub(super) fn is_of_catalog(error: &anyhow::Error) -> bool {
    let of_disk = |unwritable: &Unwritable| unwritable.what == CATALOG;
    error.chain().any(|one| CatalogError::is_cause(one) || one.downcast_ref().is_some_and(of_disk))
}

/// Where an archive's work writes on this machine. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Disks {
    spool: Spool,
    /// What is kept there, and the folder.
    folders: [(&'static str, PathBuf); 2],
}

impl Disks {
    /// Those of an archive that is open.
    pub(super) fn of(session: &Session, access: &Access) -> Self {
        // The spool of a folder archive is in the archive's own file system.
        let spooled = if session.archive.folder().is_some() { "the archive" } else { "the spool" };
        let folders = [(CATALOG, session.catalog.folder().to_owned()), (spooled, access.scratch.path().to_owned())];
        Self { spool: access.fetcher.spool.clone(), folders }
    }

    /// Tries whether something can be written and synced.
    pub(super) async fn try_writing(&self) -> anyhow::Result<()> {
        let folders = self.folders.clone();
        tokio::task::spawn_blocking(move || {
            for (what, folder) in folders {
                let path = folder.join(format!("probe-{}", std::process::id()));
                let written = File::create(&path).and_then(|mut file| {
                    file.write_all(&PROBE)?;
                    file.sync_all()
                });
                // Whether it is removed is not what was asked.
                let _ = std::fs::remove_file(&path);
                written.map_err(|source| Unwritable { what, folder, source })?;
            }
            Ok(())
        })
        .await
        .context("trying the disks was interrupted")?
    }

    /// Tries that, and whether downloads have room beside what is to stay free.
    async fn try_all(&self) -> anyhow::Result<()> {
        self.try_writing().await?;
        Ok(self.spool.check_free()?)
    }

    /// Ends pauses for this machine's own trouble once it is over, and tells of both. Never ends by itself.
    pub(super) async fn guard(&self, place: &str, board: &Board, clock: &Clock, run: &Run) -> std::convert::Infallible {
        let (mut wait, mut ended_at): (_, Option<Instant>) = (LOOK_EVERY, None);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let holds = &run.access.holds;
            let Some(pause) = holds.held(&[LOCAL_SCOPE], clock.now_ms()) else { continue };
            board.archive_failed(place, format!("nothing is fetched: {}", pause.reason));
            // What comes back soon after it seemed to be over is not asked for as often: each time may cost requests.
            wait = if ended_at.is_some_and(|at| at.elapsed() < WAIT_MOST) {
                (wait * 2).min(WAIT_MOST)
            } else {
                LOOK_EVERY
            };
            tokio::time::sleep(wait.saturating_sub(LOOK_EVERY)).await;
            while let Err(error) = self.try_all().await {
                board.failed(place, &error, format!("nothing is fetched: {error:#}"));
                holds.lengthen(LOCAL_SCOPE, clock.now_ms(), WAIT_MOST);
                tokio::time::sleep(LOOK_EVERY).await;
            }
            holds.end(LOCAL_SCOPE);
            ended_at = Some(Instant::now());
            tracing::info!(archive = %place, "what it is written to has room again; work goes on");
            board.is_well(place);
            run.signals.work.notify_one();
        }
    }
}
