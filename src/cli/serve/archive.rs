//! One archive of a service, with all its teams: opened, worked on, and opened again after whatever goes wrong.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::OptionFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::SignedDuration;

use super::Shared;
use super::board::WEBHOOK;
use super::compaction::{self, Compaction};
use super::disks::Disks;
use crate::cli::fleet;
use crate::cli::run::Run;
use crate::cli::session::{Access, Session};
use crate::config::{Config, SourceConfig};
use crate::ingest::{Copies, FollowError, Followed, Follower, Team};
use crate::metrics::{Outcome, Payload, Stage, Success};
use crate::model::TeamKey;
use crate::notify::{Condition, Kind};
use crate::source::inbox_line_bound;
use crate::store::StoreError;
use crate::worker::{Signal, Signals};

/// How long to wait before an archive that failed is opened again, at first and at most.
const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_MOST: Duration = Duration::from_mins(1);
/// A catalog on a server comes back by itself, and others hold back what this process has leased.
const WAIT_MOST_SHARED: Duration = Duration::from_secs(4);
/// A life that has lasted so long was no failure of the start.
const LIFE: Duration = Duration::from_mins(1);
/// It is one as soon as it can have worked, where others wait for what it holds.
const LIFE_SHARED: Duration = Duration::from_secs(5);
/// How often pauses are read from the catalog, in which people begin and end them.
const PAUSES_EVERY: Duration = Duration::from_secs(2);
/// How often finished segments of inboxes are copied.
const COPY_EVERY: Duration = Duration::from_secs(5);
/// A worker that has not turned for so long hangs. Its turns wait for the catalog alone.
const TURN_WITHIN: Duration = Duration::from_mins(5);
/// What goes to an archive may take long: many files, a slow network, and a bucket that is asked again and again.
const TIDY_WITHIN: Duration = Duration::from_hours(1);
/// A batch of an inbox waits for the catalog, and for two lines that go to the archive: to a bucket that hangs, each is sent
/// for a quarter of an hour.
const FOLLOW_WITHIN: Duration = Duration::from_mins(30);
/// A step of a compaction reads up to thousands of objects.
const COMPACT_WITHIN: Duration = Duration::from_hours(6);
/// How often a receiver gives a sign of life in the archive.
const BEAT_EVERY: Duration = Duration::from_mins(1);
/// How often it is looked whether others work on the archive with another catalog: on a bucket it costs a listing.
const LOOK_EVERY: Duration = Duration::from_mins(10);
/// How often what is old is removed.
const TIDY_EVERY: Duration = Duration::from_hours(1);

/// No webhook is larger, whatever the settings were when it was accepted.
const LARGEST_BODY_BYTES: usize = 1 << 30;

/// The service of one archive.
pub(super) struct Service {
    /// Where the archive is, for people.
    pub(super) place: String,
    /// One of its teams.
    pub(super) team: String,
    pub(super) config: Config,
    pub(super) shared: Shared,
}

impl Service {
    /// Lives until `stop`.
    pub(super) async fn run(&self, stop: &Signal) {
        let (most, life) =
            if self.config.catalog_is_shared() { (WAIT_MOST_SHARED, LIFE_SHARED) } else { (WAIT_MOST, LIFE) };
        let (mut wait, mut has_failed) = (WAIT_FIRST, false);
        while !stop.is_set() {
            let began = tokio::time::Instant::now();
            let Err(error) = Box::pin(self.live(stop, has_failed)).await else { return };
            has_failed = true;
            if began.elapsed() > life {
                wait = WAIT_FIRST;
            }
            let text = format!("{error:#}");
            // A fleet whose server was away does not come back as one.
            let pause = if self.config.catalog_is_shared() { jittered(wait) } else { wait };
            tracing::error!(archive = %self.place, "{text}; trying again in {:.1} s", pause.as_secs_f64());
            self.shared.board.failed(&self.place, &error, text);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.wait() => {}
            }
            wait = (wait * 2).min(most);
        }
    }

    /// One life: from opening the archive to `stop` or the first failure. A connection or a journal that has failed is
    /// never used again.
    async fn live(&self, stop: &Signal, has_failed: bool) -> anyhow::Result<()> {
        // An archive that does not answer is waited for, but not by whoever wants to stop. Breaking off there is as safe
        // as a kill is.
        let (session, access, copies) = tokio::select! {
            opened = self.open() => opened?,
            () = stop.wait() => return Ok(()),
        };
        let shared = &self.shared;
        let works = shared.role.works();
        let worker = works.then(|| Arc::new(shared.pulse.expect(format!("worker of {}", self.place), TURN_WITHIN)));
        let sparing = shared.rush.sparing();
        let signals = Signals { stop: stop.clone(), sparing, beat: worker, ..Signals::default() };
        let run = Run::with(Arc::clone(&session), Arc::clone(&access), signals);
        let disks = Disks::of(&session, &access);
        let _open = shared.samples.open(&self.place, &session, &access, &run.signals.in_flight);
        let lock = tokio::sync::Mutex::new(None);
        let compaction = works.then(|| {
            let beat = shared.pulse.expect(format!("compaction of {}", self.place), COMPACT_WITHIN);
            Compaction { place: &self.place, shared, session: &session, run: &run, beat, lock: &lock }
        });
        let working = async {
            tokio::select! {
                // In this order the first time: who sees that the archive is ready finds that this service works on it.
                biased;
                // Only a stop ends it well.
                ended = run.finish(true), if works => ended.map(|_| ()),
                () = stop.wait(), if !works => Ok(()),
                failed = self.follow_all(&session, &run) => Err(failed),
                never = self.is_ready(has_failed) => match never {},
                failed = self.copy(&session, &copies) => Err(failed),
                failed = self.look_after(&session, &access, &copies, &run) => Err(failed),
                failed = self.walk(&session, &access, &run), if works => Err(failed),
                Some(never) = OptionFuture::from(compaction.as_ref().map(Compaction::run)) => match never {},
                never = disks.guard(&self.place, &shared.board, &shared.clock, &run), if works => match never {},
            }
        };
        let worked = Box::pin(working).await;
        compaction::release(&session, &lock).await;
        let closed = run.close().await.context("the archive could not be closed in good order");
        worked.and(closed)
    }

    /// Tells that the archive is ready, and after a failure that this is over.
    async fn is_ready(&self, has_failed: bool) -> Infallible {
        self.shared.board.is_well(&self.place);
        if has_failed {
            tracing::info!(archive = %self.place, "archive and catalog are open again; work goes on");
        }
        std::future::pending().await
    }

    /// Opens the archive, and takes in what its catalog does not know.
    async fn open(&self) -> anyhow::Result<(Arc<Session>, Arc<Access>, Copies)> {
        let shared = &self.shared;
        // Where an archive was once, a missing one is a disk that is not mounted, and no place for a new one.
        let create = !shared.board.was_there(&self.place);
        let earlier = shared.writers().get(&self.place).map(Arc::clone);
        let (mut config, team, clock) = (self.config.clone(), self.team.clone(), shared.clock.clone());
        config.retry = config.retry.patient();
        let opened = Session::open_again(config, team, create, clock, earlier.as_deref()).await;
        let session = Arc::new(opened.map_err(|error| match error.downcast_ref() {
            Some(StoreError::Absent { .. }) => error.context("the archive was there before; is its disk mounted?"),
            _ => error,
        })?);
        shared.writers().insert(self.place.clone(), Arc::clone(&session.journal));
        fleet::join(&session, shared.role.name()).await?;
        let access = Arc::new(if shared.role.works() {
            Access::open_in(&session, &shared.windows, &shared.tried, &shared.metrics).await?
        } else {
            Access::without_clients(&session, &shared.metrics).await?
        });
        // Before any request is spent: a life that cannot keep what it fetches would spend them in vain.
        Disks::of(&session, &access).try_writing().await?;
        session.reload().await?;
        let copies = Copies {
            archive: Arc::clone(&session.archive),
            archive_row: session.archive_row,
            catalog: Arc::clone(&session.catalog),
            intake: Arc::clone(&session.intake),
            source: self.source_of(&self.team),
            clock: shared.clock.clone(),
            keep: SignedDuration::try_from(self.config.inbox.keep_copies).unwrap_or(SignedDuration::MAX),
        };
        let of_key = |key: &TeamKey| session.teams.values().find(|team| team.key == *key).cloned();
        let taken = copies.take_unknown(of_key).await?;
        if taken > 0 {
            tracing::info!(archive = %self.place, taken, "copies of inboxes are taken in that this catalog did not know");
        }
        Ok((session, access, copies))
    }

    /// How records of an inbox are read: the largest webhook that is taken has room in one.
    fn source_of(&self, name: &str) -> SourceConfig {
        let largest = inbox_line_bound(name, WEBHOOK, LARGEST_BODY_BYTES);
        SourceConfig { max_record_bytes: largest, ..self.config.source.clone() }
    }

    /// Follows the inboxes of all teams, where there are any. A file that cannot be read keeps only its own team.
    async fn follow_all(&self, session: &Session, run: &Run) -> anyhow::Error {
        let Some(inboxes) = &self.shared.inboxes else { return std::future::pending().await };
        let follow = |(name, team): (&String, &Team)| {
            let follower = Follower {
                inboxes: inboxes.clone(),
                name: name.clone(),
                team: team.clone(),
                intake: Arc::clone(&session.intake),
                catalog: Arc::clone(&session.catalog),
                source: self.source_of(name),
                clock: self.shared.clock.clone(),
                metrics: self.shared.metrics.clone(),
            };
            let beat = self.shared.pulse.expect(format!("inbox of team {name}"), FOLLOW_WITHIN);
            async move {
                loop {
                    let told = |followed| self.followed(&follower.name, followed, run);
                    match follower.run(|| beat.beat(), told).await {
                        Ok(never) => match never {},
                        Err(FollowError::Inbox(error)) => {
                            let error = anyhow::Error::from(error);
                            tracing::error!(team = %follower.name, "{error:#}");
                            tokio::time::sleep(WAIT_FIRST * 5).await;
                        }
                        Err(error) => return anyhow::Error::from(error),
                    }
                }
            }
        };
        let mut following: FuturesUnordered<_> = session.teams.iter().map(follow).collect();
        match following.next().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    fn followed(&self, name: &str, followed: Followed, run: &Run) {
        let cells = self.shared.metrics.team(name);
        self.shared.metrics.stages.of(Stage::Ingest).observe(followed.took);
        cells.outcomes.add(Outcome::Skipped, followed.skipped);
        cells.payloads.add(Payload::New, followed.new);
        cells.payloads.add(Payload::Known, followed.known);
        cells.payloads.of(Payload::Ignored).add(followed.ignored);
        cells.payloads.of(Payload::Rejected).add(followed.rejected);
        if followed.rejected > 0 {
            let detail = "an accepted webhook cannot be read; it is kept, and `jellyjar rejected` shows it";
            self.shared.notifier.happened(Condition::new(Kind::Unreadable, name), followed.rejected, detail);
        }
        if followed.promoted > 0 {
            run.signals.promoted.store(true, Ordering::Relaxed);
        }
        if followed.enqueued + followed.promoted > 0 {
            run.signals.work.notify_one();
        }
    }

    /// Copies finished segments of inboxes into the archive.
    async fn copy(&self, session: &Session, copies: &Copies) -> anyhow::Error {
        let Some(inboxes) = &self.shared.inboxes else { return std::future::pending().await };
        let beat = self.shared.pulse.expect(format!("copier of {}", self.place), TIDY_WITHIN);
        loop {
            for (name, team) in &session.teams {
                beat.beat();
                match copies.copy_finished(inboxes, name, &team.key).await {
                    Ok(0) => {}
                    Ok(copied) => self.shared.metrics.payload_copies.of(Success::Succeeded).add(copied),
                    Err(error) => {
                        self.shared.metrics.payload_copies.of(Success::Failed).add(1);
                        return anyhow::Error::from(error).context("an inbox cannot be copied into the archive");
                    }
                }
            }
            tokio::time::sleep(COPY_EVERY).await;
        }
    }

    /// Takes over what people decide beside it, tells how the teams are, and removes what is old.
    async fn look_after(&self, session: &Session, access: &Access, copies: &Copies, run: &Run) -> anyhow::Error {
        let mut tidy_at = tokio::time::Instant::now();
        // Those who were there at the start are in the log.
        let (mut elsewhere, mut look_at) = (fleet::others_elsewhere(session).await, tidy_at + LOOK_EVERY);
        let mut beat_at = tidy_at + BEAT_EVERY;
        let beat = self.shared.pulse.expect(format!("keeper of {}", self.place), TIDY_WITHIN);
        loop {
            beat.beat();
            let step = async {
                access.holds.sync(session.catalog.pauses().await?);
                // A worker gives its own sign of life.
                if tokio::time::Instant::now() >= beat_at && !self.shared.role.works() {
                    beat_at = tokio::time::Instant::now() + BEAT_EVERY;
                    session.journal.heartbeat(false).await?;
                }
                if tokio::time::Instant::now() >= look_at {
                    look_at = tokio::time::Instant::now() + LOOK_EVERY;
                    elsewhere = fleet::others_elsewhere(session).await;
                }
                let mut differing = fleet::differences(session, self.shared.role.name()).await?;
                differing.extend(elsewhere.iter().map(|other| format!("{other}: {}", fleet::ANOTHER_CATALOG)));
                let differing = (!differing.is_empty()).then(|| differing.join("; "));
                self.shared.notifier.set(Condition::new(Kind::SettingsDiffer, &self.place), differing);
                access.look_at_quotas().await?;
                self.shared.samples.pauses(&self.shared, session, access);
                self.shared.samples.queues(&self.shared, session, access, run.leading.is_set()).await?;
                if tokio::time::Instant::now() >= tidy_at {
                    tidy_at = tokio::time::Instant::now() + TIDY_EVERY;
                    session.catalog.forget_seen().await?;
                    copies.remove_old().await?;
                }
                anyhow::Ok(())
            };
            if let Err(error) = step.await {
                return error;
            }
            tokio::time::sleep(PAUSES_EVERY).await;
        }
    }
}

/// A random time from half of `bound` to all of it.
fn jittered(bound: Duration) -> Duration {
    let mut random = [0; 2];
    // Without randomness all of it is waited.
    let share =
        getrandom::fill(&mut random).map_or(1.0, |()| f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX));
    bound.mul_f64(0.5 + share / 2.0)
}
