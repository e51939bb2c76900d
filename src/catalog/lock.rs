//! Who may hold leases. On SQLite one process at a time; on PostgreSQL as many as like, unless one of them needs to be alone.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::engine::{Connection, query_scalar};
use super::{Catalog, Result, at};

/// The right to hold leases on a catalog. It ends when this is dropped (or the process ends).
#[derive(Debug)]
pub struct WorkerLock(#[expect(dead_code, reason = "held for what its end does")] Held);

#[derive(Debug)]
#[expect(dead_code, reason = "held for what its end does")]
enum Held {
    File(File),
    Advisory(Advisory),
}

/// A lock of the connection's session, noted as unlocked at its end.
#[derive(Debug)]
struct Advisory {
    unlocked: Arc<Unlocked>,
    is_shared: bool,
}

/// Locks of a session that nobody holds any more.
#[derive(Debug, Default)]
pub(super) struct Unlocked {
    shared: AtomicU64,
    alone: AtomicU64,
}

impl Drop for Advisory {
    fn drop(&mut self) {
        let count = if self.is_shared { &self.unlocked.shared } else { &self.unlocked.alone };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Catalog {
    /// Takes the right to hold leases. `None` while another process has it on a catalog in a folder; and on one in
    /// PostgreSQL, where any number may hold leases, while one has it alone.
    pub async fn try_worker_lock(&self) -> Result<Option<WorkerLock>> {
        self.try_lock(true).await
    }

    /// Takes the right to hold leases for this process alone. `None` while any other has it.
    pub async fn try_lock_alone(&self) -> Result<Option<WorkerLock>> {
        self.try_lock(false).await
    }

    async fn try_lock(&self, is_shared: bool) -> Result<Option<WorkerLock>> {
        let mut connection = self.connection().await;
        if !connection.is_postgres() {
            drop(connection);
            return Self::worker_lock_in(&self.folder)
                .map_err(|source| super::CatalogError::Open { path: self.folder.clone(), source });
        }
        let sql = if is_shared {
            "-- name: lock_shared\nSELECT pg_try_advisory_lock_shared(7307498802)"
        } else {
            "-- name: lock_alone\nSELECT pg_try_advisory_lock(7307498802)"
        };
        let is_locked: bool = query_scalar(sql).fetch_one(&mut connection).await.map_err(at("lock"))?;
        let unlocked = Arc::clone(&self.unlocked);
        Ok(is_locked.then(|| WorkerLock(Held::Advisory(Advisory { unlocked, is_shared }))))
    }

    /// Like [`Catalog::try_worker_lock`], for a folder whose catalog may be unfit to be opened.
    pub fn worker_lock_in(folder: &Path) -> std::io::Result<Option<WorkerLock>> {
        let path = folder.join("worker.lock");
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(WorkerLock(Held::File(file)))),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives back the session's locks whose holders are gone. Should it fail, so does the statement that follows; and the
    /// locks end with the session.
    pub(super) async fn give_locks_back(&self, connection: &mut Connection) {
        for (count, sql) in [
            (&self.unlocked.shared, "-- name: unlock_shared\nSELECT pg_advisory_unlock_shared(7307498802)"),
            (&self.unlocked.alone, "-- name: unlock_alone\nSELECT pg_advisory_unlock(7307498802)"),
        ] {
            for _ in 0..count.swap(0, Ordering::Relaxed) {
                let _: sqlx::Result<bool> = query_scalar(sql).fetch_one(connection).await;
            }
        }
    }
}
