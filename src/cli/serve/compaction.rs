//! Merging the journal's small segments from time to time: each batch leaves one, and listing and opening them is what a
//! start costs after years.
//!
//! It works in small steps, each begun when nothing is being fetched, if that moment comes soon: a step holds the
//! journal for a fraction of a second. What was begun is harmless wherever it is dropped.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::Mutex;

use super::Shared;
use crate::audit::{CompactOptions, Compacted, compact, mergeable};
use crate::cli::run::Run;
use crate::cli::session::Session;
use crate::metrics::Success;
use crate::model::Stream;
use crate::notify::Beat;
use crate::store::{ArchiveLock, StoreError};

/// How long after an archive was opened it begins: what was waiting comes first.
const FIRST_AFTER: Duration = Duration::from_mins(5);
/// How often it is looked whether a step disturbs nobody.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// So many looks are made before it goes on all the same.
const LOOKS: u32 = 600;
/// A step makes at most one segment of about this size, in memory.
const STEP_BYTES: u64 = 16 << 20;

/// Compacts the journal of one archive.
pub(super) struct Compaction<'a> {
    pub(super) place: &'a str,
    pub(super) shared: &'a Shared,
    pub(super) session: &'a Session,
    pub(super) run: &'a Run,
    pub(super) beat: Beat,
    /// The archive's lock, kept where whoever drops the work finds it.
    pub(super) lock: &'a Mutex<Option<ArchiveLock>>,
}

impl Compaction<'_> {
    /// Compacts again and again. What fails is tried again the next time: a bucket may forbid to remove anything, and
    /// work goes on without. A journal that cannot be written any more is noticed by who writes it.
    pub(super) async fn run(&self) -> Infallible {
        let every = self.session.config.worker.compact_every;
        if every.is_zero() {
            return std::future::pending().await;
        }
        let mut wait = every.min(FIRST_AFTER);
        loop {
            self.rest(wait).await;
            wait = every;
            let done = self.compact().await;
            release(self.session, self.lock).await;
            let counts = &self.shared.metrics.compactions;
            match done {
                Ok(None) => {}
                Ok(Some(done)) => {
                    counts.of(Success::Succeeded).add(1);
                    let Compacted { merged, written, segments_now, left_over, .. } = done;
                    tracing::info!(
                        archive = self.place,
                        merged,
                        written,
                        left_over,
                        segments_now,
                        "compacted the journal"
                    );
                    for one in &done.refused {
                        tracing::warn!(archive = self.place, segment = one.key, "not merged: {}", one.reason);
                    }
                }
                Err(error) => {
                    counts.of(Success::Failed).add(1);
                    tracing::warn!(archive = self.place, "the journal cannot be compacted now: {error:#}");
                }
            }
        }
    }

    /// Waits, and shows that it is alive meanwhile.
    async fn rest(&self, mut wait: Duration) {
        const BEAT_EVERY: Duration = Duration::from_mins(10);
        while !wait.is_zero() {
            self.beat.beat();
            let nap = wait.min(BEAT_EVERY);
            tokio::time::sleep(nap).await;
            wait -= nap;
        }
        self.beat.beat();
    }

    /// Merges what can be merged; `None` where that is too little, or another process is at it.
    async fn compact(&self) -> anyhow::Result<Option<Compacted>> {
        let (session, archive) = (self.session, &self.session.archive);
        let mut small = 0;
        for stream in Stream::ALL {
            small = small.max(mergeable(&archive.segment_files(stream).await?, session.clock.now()));
        }
        if small < 2 {
            return Ok(None);
        }
        match archive.lock("compaction", session.journal.writer_id(), &session.clock).await {
            Ok(taken) => *self.lock.lock().await = Some(taken),
            Err(StoreError::Locked { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // It must have loaded all that it merges.
        session.reload_while_working().await?;
        let options = CompactOptions { target_bytes: STEP_BYTES, steps: Some(1), ..CompactOptions::default() };
        let mut done: Option<Compacted> = None;
        loop {
            self.quiet().await;
            self.beat.beat();
            let step = compact(&session.subject(), options, self.lock.lock().await.as_mut()).await?;
            let is_last = step.written == 0;
            done = Some(match done {
                None => step,
                Some(before) => before.and(step),
            });
            if is_last {
                return Ok(done);
            }
        }
    }

    /// Waits for a moment in which nothing is in flight, for a minute at most.
    async fn quiet(&self) {
        let is_busy = || self.run.signals.in_flight.load(std::sync::atomic::Ordering::Relaxed) > 0;
        let mut looks = 0;
        while is_busy() && looks < LOOKS {
            tokio::time::sleep(LOOK_EVERY).await;
            looks += 1;
        }
    }
}

/// Gives the archive's lock back, if it is held. One that cannot be given back ends by itself after minutes.
pub(super) async fn release(session: &Session, lock: &Mutex<Option<ArchiveLock>>) {
    let mut lock = lock.lock().await;
    // It stays where it is until it is given back: whoever is dropped meanwhile leaves it to the end of the life.
    let Some(held) = lock.as_ref() else { return };
    match tokio::time::timeout(Duration::from_secs(2), held.release(&session.archive)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the archive's lock is left to end by itself"),
        Err(_) => tracing::debug!("the archive's lock is left to end by itself"),
    }
    *lock = None;
}
