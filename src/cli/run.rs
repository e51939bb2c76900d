//! A foreground run: drives what is pending until it is done, or follows another process that does, and writes the
//! receipt.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::FutureExt as _;

use super::output;
use super::pause::held_note;
use super::progress::{Expected, Progress};
use super::receipt::{Input, Receipt};
use super::session::{Access, Session};
use crate::archive::{CommitError, Committer, Finished, Tally, Writing};
use crate::catalog::{CatalogError, Heard, Listener, Pause, WorkerLock};
use crate::model::Lane;
use crate::worker::{DriveError, Driver, Ended, Signal, Signals};

/// How often a run that follows another process looks.
const FOLLOW_EVERY: Duration = Duration::from_millis(300);

/// More messages than this, a run does not index at its end.
const INDEX_AT_MOST: u64 = 50_000;

/// How often the journal is read again, and the writer's sign of life renewed, while working.
const RELOAD_EVERY: Duration = Duration::from_secs(30);

/// After listening has failed, so long until the next try; work is polled for meanwhile.
const HEAR_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How often a process that works heeds what others did to pauses and quotas.
const HEED_EVERY: Duration = Duration::from_secs(1);

/// One foreground run.
pub(super) struct Run {
    pub(super) session: Arc<Session>,
    pub(super) access: Arc<Access>,
    pub(super) signals: Signals,
    pub(super) tally: Arc<Tally>,
    pub(super) expected: Arc<Expected>,
    /// Set once this process has the worker lock: then it may walk, too.
    pub(super) leading: Signal,
    /// Whether this process has held leases.
    drove: AtomicBool,
    started: Instant,
}

impl Run {
    /// Prepares a run, and listens for Ctrl-C: the first stops it in good order, the second at once.
    pub(super) fn new(session: Arc<Session>, access: Arc<Access>) -> Self {
        let run = Self::with(session, access, Signals::default());
        let signals = run.signals.clone();
        let stop = signals.stop.clone();
        tokio::spawn(async move {
            interrupted().await;
            output::note("Stopping: finishing or releasing what is in flight. Press Ctrl-C again to stop at once.");
            stop.set();
            interrupted().await;
            // Nothing is lost: whatever was not recorded is done again.
            std::process::exit(i32::from(super::INTERRUPTED));
        });
        run
    }

    /// Prepares a run that others stop.
    pub(super) fn with(session: Arc<Session>, access: Arc<Access>, signals: Signals) -> Self {
        let (tally, expected) = (Arc::default(), Arc::default());
        Self {
            session,
            access,
            signals,
            tally,
            expected,
            leading: Signal::default(),
            drove: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    /// Works until everything that this run has seen has its place, or cannot get it now.
    pub(super) async fn finish(&self, quiet: bool) -> Result<Ended, anyhow::Error> {
        let _progress = Progress::start(quiet, Arc::clone(&self.tally), Arc::clone(&self.expected));
        let mut said = false;
        loop {
            if let Some(lock) = self.session.catalog.try_worker_lock().await.context("cannot lock the catalog")? {
                // Boxed: a future this large would be moved about on the stack of every command that waits for it.
                return Box::pin(self.drive(&lock)).await;
            }
            if let Some(beat) = &self.signals.beat {
                beat.beat();
            }
            if !said {
                tracing::info!("another jellyjar works on this archive; following it");
                said = true;
            }
            if self.signals.stop.is_set() {
                return Ok(Ended::Stopped);
            }
            if self.signals.input_ended.is_set() && !self.session.catalog.any_seen_pending().await? {
                return Ok(Ended::Done);
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
                () = self.signals.stop.wait() => {}
            }
        }
    }

    async fn drive(&self, lock: &WorkerLock) -> anyhow::Result<Ended> {
        let (session, access) = (&self.session, &self.access);
        session.catalog.release_all(lock).await?;
        let driver = Driver {
            catalog: Arc::clone(&session.catalog),
            clock: session.clock.clone(),
            config: session.config.worker.clone(),
            teams: access.teams.keys().copied().collect(),
            batch_weight: session.spool_memory().max_bytes / (session.commits_at_once() as u64 + 1),
            commits_at_once: session.commits_at_once(),
            // Webhooks may come while a replay drives, too: a service that starts beside it only takes them in.
            keep_for_live: session.teams.keys().any(|name| session.config.takes_webhooks(name)),
        };
        let committer = Arc::new(Committer {
            catalog: Arc::clone(&session.catalog),
            archive: Arc::clone(&session.archive),
            archive_row: session.archive_row,
            journal: Arc::clone(&session.journal),
            scratch: access.scratch.path().to_owned(),
            clock: session.clock.clone(),
            max_attempts: session.config.retry.max_attempts,
            tally: Arc::clone(&self.tally),
            writing: Writing::default(),
            metrics: access.fetcher.metrics.clone(),
            cells: session
                .teams
                .iter()
                .map(|(name, team)| (team.key.clone(), access.fetcher.metrics.team(name)))
                .collect(),
        });
        self.drove.store(true, Ordering::Relaxed);
        self.leading.set();
        let held = |row, lane| {
            let pause = access.teams.get(&row)?.held(&access.holds, lane, session.clock.now_ms());
            pause.map(|pause| pause.until_ms)
        };
        let work = |lease: crate::catalog::Lease<crate::catalog::Job>| {
            let access = Arc::clone(access);
            async move {
                match access.teams.get(&lease.job().team()) {
                    Some(team) => Some(access.fetcher.attempt(lease, team).await),
                    // The driver claims for these teams only.
                    None => None,
                }
            }
        };
        let commit = |batch: Vec<Option<Finished>>| {
            let (committer, access) = (Arc::clone(&committer), Arc::clone(access));
            async move {
                let batch: Vec<Finished> = batch.into_iter().flatten().collect();
                let pauses: Vec<Pause> = batch.iter().filter_map(Finished::pause).cloned().collect();
                committer.commit(batch).await?;
                access.holds.are_kept(&pauses);
                Ok::<(), CommitError>(())
            }
            .boxed()
        };
        let (refreshing, hearing, heeding) = (self.refresh(), self.hear(), self.heed_others());
        let driving =
            driver.drive(&self.signals, held, work, commit, |one| one.as_ref().map_or(0, Finished::memory_bytes));
        let ended = tokio::select! {
            ended = driving => ended,
            error = refreshing => return Err(error),
            never = hearing => match never {},
            error = heeding => return Err(error.into()),
        };
        match ended {
            Ok(ended) => Ok(ended),
            Err(DriveError::Catalog(error)) => Err(error.into()),
            Err(DriveError::Commit(error)) => Err(error.into()),
            Err(error @ DriveError::Task(_)) => Err(error.into()),
        }
    }

    /// Hears of work that others bring to a shared catalog.
    async fn hear(&self) -> Infallible {
        let signals = &self.signals;
        loop {
            match Listener::open(&self.session.catalog_place).await {
                Ok(None) => return std::future::pending().await,
                Ok(Some(mut listener)) => {
                    signals.hearing.store(true, Ordering::Relaxed);
                    // Something may have come before.
                    signals.work.notify_one();
                    let lost = loop {
                        match listener.next().await {
                            Ok(Heard::Work) => {
                                signals.promoted.store(true, Ordering::Relaxed);
                                signals.work.notify_one();
                            }
                            Ok(Heard::Pauses) => self.take_over_pauses().await,
                            Err(error) => break error,
                        }
                    };
                    tracing::debug!("work is polled for, as nothing is heard: {lost}");
                }
                Err(error) => tracing::debug!("work is polled for, as nothing is heard: {error}"),
            }
            signals.hearing.store(false, Ordering::Relaxed);
            tokio::time::sleep(HEAR_AGAIN_AFTER).await;
        }
    }

    /// Takes over what others have paused or resumed; what fails here, the catalog's next user tells.
    async fn take_over_pauses(&self) {
        if self.access.heed_pauses(&self.session.catalog).await.is_ok() {
            self.signals.work.notify_one();
        }
    }

    /// Keeps the catalog and the journal in step while working; ends only with an error.
    async fn refresh(&self) -> anyhow::Error {
        loop {
            tokio::time::sleep(RELOAD_EVERY).await;
            let step = async {
                self.session.reload_while_working().await?;
                self.session.journal.heartbeat(false).await?;
                anyhow::Ok(())
            };
            if let Err(error) = step.await {
                return error;
            }
        }
    }

    /// Heeds the pauses that others begin and end, and what they use of the quotas; ends only with an error.
    async fn heed_others(&self) -> CatalogError {
        loop {
            tokio::time::sleep(HEED_EVERY).await;
            let step = async {
                self.access.heed_pauses(&self.session.catalog).await?;
                self.access.give_back(false).await?;
                self.access.look_at_quotas().await
            };
            if let Err(error) = step.await {
                return error;
            }
        }
    }

    /// Brings up to date what `find` needs; a large backlog is left to `find` itself, which shows how far it is. First what
    /// the index has: what is added then comes with what is known by now.
    async fn index(&self) -> anyhow::Result<()> {
        if self.session.catalog.unindexed_messages().await? > INDEX_AT_MOST {
            return Ok(());
        }
        self.session.catalog.settle_entries(u64::MAX, true).await?;
        while !self.signals.stop.is_set() && self.session.catalog.index_messages().await? {}
        Ok(())
    }

    /// Writes down what the next life needs to know, at the end of a service.
    pub(super) async fn close(&self) -> anyhow::Result<()> {
        self.access.give_back(true).await?;
        Ok(self.session.journal.heartbeat(true).await?)
    }

    /// Ends the run: writes down its end and makes the receipt. `outcome` is how the drive went.
    pub(super) async fn receipt(&self, input: Input, outcome: anyhow::Result<Ended>) -> Receipt {
        let mut receipt = Receipt { input, ..Receipt::default() };
        match outcome {
            Ok(Ended::Done) => {}
            Ok(Ended::Stopped) => receipt.interrupted = true,
            Ok(Ended::Waiting { due_ms }) => {
                let now = self.session.clock.now_ms();
                let paused: Vec<_> = self
                    .access
                    .teams
                    .values()
                    .filter_map(|team| team.held(&self.access.holds, Lane::Bulk, now))
                    .collect();
                receipt.token_refused = paused.iter().any(Pause::is_of_refused_token);
                if paused.is_empty() && due_ms == i64::MAX {
                    receipt.notes.push("what is pending belongs to teams that have no API token here".into());
                }
                receipt.notes.extend(paused.iter().map(held_note));
                if receipt.notes.is_empty() {
                    receipt.notes.push(format!("the next attempt is due at {}", output::time(due_ms)));
                }
            }
            Err(error) => receipt.notes.push(format!("the run broke off: {error:#}")),
        }
        receipt.totals_unknown = true;
        let closing = async {
            self.access.give_back(true).await?;
            self.session.journal.heartbeat(true).await?;
            receipt.places(&self.session.catalog.seen_totals().await?);
            if self.tally.decided.load(Ordering::Relaxed) > receipt.archived + receipt.failed + receipt.quarantined {
                let writer_id = self.session.journal.writer_id().to_string();
                receipt.earlier = self.session.catalog.decided_unseen(&writer_id).await?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = closing.await {
            receipt.notes.push(format!("the run could not be closed in good order: {error:#}"));
        }
        // Whoever is in a hurry does not wait for this; `find` does it too.
        if !receipt.interrupted
            && let Err(error) = self.index().await
        {
            tracing::warn!("what `jellyjar find` needs could not be brought up to date: {error:#}");
        }
        receipt.duplicates = self.tally.duplicates.load(Ordering::Relaxed);
        receipt.bytes_fetched = self.tally.bytes_fetched.load(Ordering::Relaxed);
        receipt.bytes_stored = self.tally.bytes_stored.load(Ordering::Relaxed);
        receipt.api_requests = self.access.requests();
        receipt.followed = !self.drove.load(Ordering::Relaxed);
        receipt.close(self.started.elapsed());
        receipt
    }
}

/// Waits for Ctrl-C or SIGTERM.
pub(super) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
