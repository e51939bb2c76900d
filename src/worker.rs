//! The driver: claims leases, keeps a bounded number of them at work, gathers what is finished into batches, and stops
//! cleanly. It knows nothing of HTTP or buckets; the work and the commit are closures.

mod turns;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::catalog::{Catalog, CatalogError, Job, Lease, LeaseTicket, TeamRow};
use crate::clock::Clock;
use crate::config::WorkerConfig;
use crate::model::Lane;
use crate::notify::Beat;
use turns::{Line, Slots, Turns};

/// A one-way switch that many can watch.
#[derive(Debug, Clone, Default)]
pub struct Signal(Arc<(AtomicBool, Notify)>);

impl Signal {
    /// Switches it on.
    pub fn set(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        self.0.1.notify_waiters();
    }

    /// Whether it is on.
    pub fn is_set(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Waits until it is on.
    pub async fn wait(&self) {
        let notified = self.0.1.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.is_set() {
            notified.await;
        }
    }
}

/// What the driver and its surroundings tell each other.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    /// No more work will be taken in: when all is done, the drive ends.
    pub input_ended: Signal,
    /// Stop: start nothing, finish or release what is in flight.
    pub stop: Signal,
    /// Something became due.
    pub work: Arc<Notify>,
    /// Bulk work that may be leased already came into the live lane. With it goes `work`.
    pub promoted: Arc<AtomicBool>,
    /// Attachments that are being worked on now, for display.
    pub in_flight: Arc<AtomicU64>,
    /// Others need this machine more: while it is set, attachments are begun one after the other, some 17 a second.
    pub sparing: Arc<AtomicBool>,
    /// Whether work that others bring is told of at once, by `work`.
    pub hearing: Arc<AtomicBool>,
    /// Where each turn of the driver shows a sign of life.
    pub beat: Option<Arc<Beat>>,
}

/// How a drive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing that this run has seen is pending.
    Done,
    /// What is pending waits for longer than a foreground run sits out.
    Waiting {
        /// When the next of it is due, in milliseconds since the Unix epoch.
        due_ms: i64,
    },
    /// It was told to stop.
    Stopped,
}

/// Why a drive broke off. What was in flight is released, or is when the next drive starts.
#[derive(Debug, thiserror::Error)]
pub enum DriveError<E: std::error::Error + 'static> {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A batch could not be made durable.
    #[error(transparent)]
    Commit(E),
    /// A task panicked, which is a defect of this program.
    #[error("a task ended early: {0}")]
    Task(String),
}

/// Drives work on the teams of one catalog.
#[derive(Debug)]
pub struct Driver {
    /// Where leases come from.
    pub catalog: Arc<Catalog>,
    /// The time.
    pub clock: Clock,
    /// Bounds.
    pub config: WorkerConfig,
    /// Whose attachments are worked on.
    pub teams: Vec<TeamRow>,
    /// A batch is closed when what is finished weighs this much, so that it does not crowd out what is in flight.
    pub batch_weight: u64,
    /// So many batches are committed at once.
    pub commits_at_once: usize,
    /// Whether a quarter of the slots stays free of bulk work, for live work that may come at any time.
    pub keep_for_live: bool,
}

/// A finished item waits at most this long for its batch to fill.
const LINGER: Duration = Duration::from_millis(200);

/// While others need the machine more, an attachment is begun this often: as Jelly's quota (5,000 in 5 minutes) lets them be
/// asked for. However long one of them takes, it keeps no other from being begun.
const SPARING_EVERY: Duration = Duration::from_millis(60);

/// Then batches wait for this long: few syncs, of which each holds up every other.
const SPARING_LINGER: Duration = Duration::from_millis(500);

/// How often the catalog is asked for work that nobody told of.
const POLL: Duration = Duration::from_millis(500);

/// The same, where others bring work to the same catalog and nobody tells.
const POLL_UNHEARD: Duration = Duration::from_millis(100);

struct Progress<F, E> {
    turns: Turns<Lease<Job>>,
    /// At most one claim is on its way. Nothing waits for it: the catalog may be busy with a large transaction meanwhile.
    claiming: JoinSet<Result<Claimed, CatalogError>>,
    running: JoinSet<F>,
    tickets: HashMap<Id, (TeamRow, Lane, LeaseTicket)>,
    finished: Vec<F>,
    finished_weight: u64,
    finished_tickets: Vec<LeaseTicket>,
    oldest_finished: Option<Instant>,
    committing: JoinSet<Result<(), E>>,
    committing_tickets: HashMap<Id, Vec<LeaseTicket>>,
}

/// A claim for lines that run low.
struct Asked {
    catalog: Arc<Catalog>,
    teams: Vec<TeamRow>,
    lease_duration: Duration,
    /// In the order in which they get leases: a line's place, whose it is, and how many leases it wants at most.
    lines: Vec<(usize, TeamRow, Lane, usize)>,
    /// So many leases there may be for all, by the lane.
    room: [usize; 2],
}

impl Asked {
    async fn claim(self) -> Result<Claimed, CatalogError> {
        let due = self.catalog.due_lanes(&self.teams).await?;
        let mut taken = 0;
        let mut claimed = Claimed::new();
        for (place, team, lane, most) in self.lines {
            if due.as_ref().is_some_and(|due| !due.contains(&(team, lane))) {
                continue;
            }
            let wanted = self.room[lane as usize].saturating_sub(taken).min(most);
            let leases = match wanted {
                0 => Vec::new(),
                _ => self.catalog.claim(team, lane, wanted, self.lease_duration).await?,
            };
            taken += leases.len();
            let has_more = leases.len() == wanted;
            claimed.push((place, leases, has_more));
        }
        Ok(claimed)
    }
}

/// What a claim brought: leases for lines, and whether there may be more.
type Claimed = Vec<(usize, Vec<Lease<Job>>, bool)>;

impl<F, E> Progress<F, E> {
    fn leases(&self) -> usize {
        let committing: usize = self.committing_tickets.values().map(Vec::len).sum();
        self.turns.waiting() + self.running.len() + self.finished.len() + committing
    }

    fn take_claimed(&mut self, claimed: Claimed) {
        for (place, leases, has_more) in claimed {
            let line = self.turns.line(place);
            line.queue.extend(leases);
            line.ask |= has_more;
        }
    }

    fn all_tickets(&self) -> Vec<LeaseTicket> {
        let queued = self.turns.iter().map(Lease::ticket);
        let running = self.tickets.values().map(|(.., ticket)| *ticket);
        let finished = self.finished_tickets.iter().chain(self.committing_tickets.values().flatten()).copied();
        queued.chain(running).chain(finished).collect()
    }
}

impl Driver {
    /// Works until the input has ended and nothing is left, or until it is told to stop. `held_until` tells until when
    /// a team may not send work of a lane (milliseconds since the Unix epoch). `work` is run for up to `concurrency` leases at once;
    /// `commit` is given batches, one at a time; `weigh` tells what a finished item takes up while it waits.
    pub async fn drive<F, E, W, WF, C, CF>(
        &self,
        signals: &Signals,
        held_until: impl Fn(TeamRow, Lane) -> Option<i64> + Sync,
        work: W,
        commit: C,
        weigh: fn(&F) -> u64,
    ) -> Result<Ended, DriveError<E>>
    where
        F: Send + 'static,
        E: std::error::Error + Send + 'static,
        W: Fn(Lease<Job>) -> WF + Sync,
        WF: Future<Output = F> + Send + 'static,
        C: Fn(Vec<F>) -> CF + Sync,
        CF: Future<Output = Result<(), E>> + Send + 'static,
    {
        let mut progress = Progress {
            turns: Turns::new(&self.teams, Slots::new(self.config.concurrency, self.teams.len(), self.keep_for_live)),
            running: JoinSet::new(),
            tickets: HashMap::new(),
            finished: Vec::new(),
            finished_weight: 0,
            finished_tickets: Vec::new(),
            oldest_finished: None,
            committing: JoinSet::new(),
            committing_tickets: HashMap::new(),
            claiming: JoinSet::new(),
        };
        let outcome = self.steps(signals, &held_until, &work, &commit, weigh, &mut progress).await;
        // Whatever happened: what is still leased goes back, so that nobody waits for leases to expire.
        progress.running.abort_all();
        while progress.committing.join_next().await.is_some() {}
        while let Some(joined) = progress.claiming.join_next().await {
            // Should it have failed, releasing what there is will say so.
            if let Ok(Ok(claimed)) = joined {
                progress.take_claimed(claimed);
            }
        }
        let left = progress.all_tickets();
        if !left.is_empty() {
            let released = self.catalog.release(&left).await;
            if outcome.is_ok() {
                released?;
            }
        }
        outcome
    }

    #[expect(clippy::too_many_lines, reason = "one loop, whose steps are read together")]
    async fn steps<F, E, W, WF, C, CF>(
        &self,
        signals: &Signals,
        held_until: &(impl Fn(TeamRow, Lane) -> Option<i64> + Sync),
        work: &W,
        commit: &C,
        weigh: fn(&F) -> u64,
        progress: &mut Progress<F, E>,
    ) -> Result<Ended, DriveError<E>>
    where
        F: Send + 'static,
        E: std::error::Error + Send + 'static,
        W: Fn(Lease<Job>) -> WF + Sync,
        WF: Future<Output = F> + Send + 'static,
        C: Fn(Vec<F>) -> CF + Sync,
        CF: Future<Output = Result<(), E>> + Send + 'static,
    {
        let mut stop_by: Option<Instant> = None;
        let mut renew_at = Instant::now() + self.config.lease_duration / 3;
        if self.catalog.is_shared() {
            // Should all have been away, what they held is free for the first that is back; it may not last until its
            // next scan. What they have written down of it is loaded.
            self.catalog.release_expired().await?;
        }
        let mut start_at = Instant::now();
        loop {
            if let Some(beat) = &signals.beat {
                beat.beat();
            }
            let now_ms = self.clock.now_ms();
            let stopping = signals.stop.is_set();
            let input_ended = signals.input_ended.is_set();
            if stopping && stop_by.is_none() {
                stop_by = Some(Instant::now() + self.config.shutdown_timeout);
            }

            // Give back what may not be started now.
            let held: Vec<Option<i64>> = progress
                .turns
                .lines()
                .iter()
                .map(|line| held_until(line.team, line.lane).filter(|until| *until > now_ms))
                .collect();
            let mut idle = Vec::new();
            for (place, _) in held.iter().enumerate().filter(|(_, held)| stopping || held.is_some()) {
                idle.extend(progress.turns.line(place).queue.drain(..).map(|lease| lease.ticket()));
            }
            if !idle.is_empty() {
                self.catalog.release(&idle).await?;
            }

            // What goes first now need not wait for its claim to be over.
            // One that is still on its way would be missed.
            if progress.claiming.is_empty() && signals.promoted.swap(false, Ordering::Relaxed) {
                for place in progress.turns.places() {
                    let Line { team, lane: Lane::Bulk, queue, .. } = progress.turns.line(place) else { continue };
                    let (team, promoted) = (*team, self.catalog.take_promoted(queue).await?);
                    progress.turns.promote(team, promoted);
                }
            }

            // Claim, live work first and team by team in turn, where a queue runs low.
            if !stopping
                && progress.claiming.is_empty()
                && let Some(asked) = self.ask(&held, progress)
            {
                progress.claiming.spawn(asked.claim());
            }

            // Start.
            let sparing = signals.sparing.load(Ordering::Relaxed);
            while !stopping
                && (!sparing || Instant::now() >= start_at)
                && let Some((team, lane, lease)) = progress.turns.start()
            {
                start_at = Instant::now() + SPARING_EVERY;
                let ticket = lease.ticket();
                let task = progress.running.spawn(work(lease));
                progress.tickets.insert(task.id(), (team, lane, ticket));
            }
            signals.in_flight.store(u64::try_from(progress.running.len()).unwrap_or(0), Ordering::Relaxed);

            // Commit.
            let drained = progress.running.is_empty() && progress.turns.waiting() == 0 && progress.claiming.is_empty();
            let linger = if sparing { SPARING_LINGER } else { LINGER };
            let lingered = progress.oldest_finished.is_some_and(|oldest| oldest.elapsed() >= linger);
            let full =
                progress.finished.len() >= self.config.batch_size || progress.finished_weight >= self.batch_weight;
            // A second batch beside one that is on its way only when it is full: few large ones cost less.
            let may_commit = match progress.committing.len() {
                0 => drained || lingered || full,
                others => full && others < self.commits_at_once,
            };
            if may_commit && !progress.finished.is_empty() {
                let batch = std::mem::take(&mut progress.finished);
                progress.finished_weight = 0;
                progress.oldest_finished = None;
                let tickets = std::mem::take(&mut progress.finished_tickets);
                let task = progress.committing.spawn(commit(batch));
                progress.committing_tickets.insert(task.id(), tickets);
            }

            // End.
            let idle = progress.leases() == 0 && progress.claiming.is_empty();
            if stopping && (idle || stop_by.is_some_and(|by| Instant::now() >= by && progress.committing.is_empty())) {
                return Ok(Ended::Stopped);
            }
            let is_unheard = self.catalog.is_shared() && !signals.hearing.load(Ordering::Relaxed);
            let mut wake = Instant::now() + if is_unheard { POLL_UNHEARD } else { POLL };
            let asks = progress.turns.lines().iter().zip(&held).any(|(line, held)| line.ask && held.is_none());
            if idle && !asks && !stopping && input_ended {
                if !self.catalog.any_seen_pending().await? {
                    return Ok(Ended::Done);
                }
                let due_ms = self.next_due_ms(&held, progress.turns.lines()).await?;
                let wait_ms = due_ms.saturating_sub(now_ms).max(0);
                let is_too_long = Duration::from_millis(wait_ms.cast_unsigned()) > self.config.max_wait;
                if is_too_long && !(self.catalog.is_shared() && self.catalog.any_seen_leased().await?) {
                    return Ok(Ended::Waiting { due_ms });
                }
                wake = wake.min(Instant::now() + Duration::from_millis(wait_ms.cast_unsigned()));
            }
            if let (Some(oldest), true) = (progress.oldest_finished, progress.committing.is_empty()) {
                wake = wake.min(oldest + linger);
            }
            if sparing && progress.turns.waiting() > 0 && start_at > Instant::now() {
                wake = wake.min(start_at);
            }
            if let Some(by) = stop_by {
                wake = wake.min(by.max(Instant::now() + Duration::from_millis(10)));
            }

            tokio::select! {
                Some(joined) = progress.running.join_next_with_id(), if !progress.running.is_empty() => {
                    Self::take_finished(joined, weigh, progress)?;
                    // Take all that is there before looking at anything else.
                    while let Some(joined) = progress.running.try_join_next_with_id() {
                        Self::take_finished(joined, weigh, progress)?;
                    }
                }
                Some(joined) = progress.committing.join_next_with_id(), if !progress.committing.is_empty() => {
                    progress.turns.ask_all();
                    match joined {
                        Ok((id, Ok(()))) => {
                            progress.committing_tickets.remove(&id);
                        }
                        Ok((_, Err(error))) => return Err(DriveError::Commit(error)),
                        Err(error) => return Err(DriveError::Task(error.to_string())),
                    }
                }
                Some(joined) = progress.claiming.join_next(), if !progress.claiming.is_empty() => {
                    progress.take_claimed(joined.map_err(|error| DriveError::Task(error.to_string()))??);
                }
                () = signals.work.notified() => progress.turns.ask_all(),
                () = signals.input_ended.wait(), if !input_ended => progress.turns.ask_all(),
                () = signals.stop.wait(), if !stopping => {}
                () = sleep_until(wake) => progress.turns.ask_all(),
            }

            if Instant::now() >= renew_at {
                renew_at = Instant::now() + self.config.lease_duration / 3;
                let tickets = progress.all_tickets();
                let count = u64::try_from(tickets.len()).unwrap_or(u64::MAX);
                if count > 0 && self.catalog.renew(&tickets, self.config.lease_duration).await? < count {
                    self.drop_lost(progress).await?;
                }
                self.catalog.release_expired().await?;
            }
        }
    }

    /// Drops what waits and is leased no more: this process was stopped for longer than its leases last.
    async fn drop_lost<F, E>(&self, progress: &mut Progress<F, E>) -> Result<(), CatalogError> {
        let waiting: Vec<LeaseTicket> = progress.turns.iter().map(Lease::ticket).collect();
        let held = self.catalog.still_held(&waiting).await?;
        for place in progress.turns.places() {
            progress.turns.line(place).queue.retain(|lease| held.contains(&lease.ticket()));
        }
        Ok(())
    }

    /// The claim for the lines whose queue runs low, if there are some and there is room. They ask no more, unless something
    /// changes while it is on its way. No line may have so many leases that there is no room for others.
    fn ask<F, E>(&self, held: &[Option<i64>], progress: &mut Progress<F, E>) -> Option<Asked> {
        let WorkerConfig { concurrency, max_leases, batch_size, lease_duration, .. } = self.config;
        let teams = self.teams.len().max(1);
        let most = (batch_size / teams).max(concurrency).min(max_leases / 2 / teams).max(1);
        let kept_for_live = if self.keep_for_live { max_leases / 4 } else { 0 };
        let room = max_leases.saturating_sub(progress.leases());
        let room = Lane::ALL.map(|lane| if lane == Lane::Bulk { room.saturating_sub(kept_for_live) } else { room });
        let mut lines = Vec::new();
        for place in progress.turns.places() {
            let Line { team, lane, ask, queue, .. } = progress.turns.line(place);
            let runs_low = queue.len() < concurrency.min(most) && room[*lane as usize] > 0;
            if *ask && runs_low && held[place].is_none() {
                *ask = false;
                lines.push((place, *team, *lane, most - queue.len()));
            }
        }
        let (catalog, teams) = (Arc::clone(&self.catalog), self.teams.clone());
        (!lines.is_empty()).then_some(Asked { catalog, teams, lease_duration, lines, room })
    }

    fn take_finished<F, E: std::error::Error + 'static>(
        joined: Result<(Id, F), tokio::task::JoinError>,
        weigh: fn(&F) -> u64,
        progress: &mut Progress<F, E>,
    ) -> Result<(), DriveError<E>> {
        let (id, finished) = joined.map_err(|error| DriveError::Task(error.to_string()))?;
        progress.finished_weight += weigh(&finished);
        progress.finished.push(finished);
        if let Some((team, lane, ticket)) = progress.tickets.remove(&id) {
            progress.turns.ended(team, lane);
            progress.finished_tickets.push(ticket);
        }
        progress.oldest_finished.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// When the next pending attachment of any line may be worked on.
    async fn next_due_ms(&self, held: &[Option<i64>], lines: &[Line<Lease<Job>>]) -> Result<i64, CatalogError> {
        let mut earliest = i64::MAX;
        for (line, held) in lines.iter().zip(held) {
            if let Some(due) = self.catalog.next_due_ms(line.team, line.lane).await? {
                earliest = earliest.min(due.max(held.unwrap_or(i64::MIN)));
            }
        }
        Ok(earliest)
    }
}
