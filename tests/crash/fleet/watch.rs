//! What is looked at while a fleet works: how far it is, its leases, and what it asks of Jelly.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::PgConnection;

use super::SCAN;
use super::database::{self, Database, Held, Progress};
use crate::world::World;

/// The window in which Jelly counts requests.
const WINDOW: Duration = Duration::from_mins(5);
/// How often requests are counted, and the catalog is asked.
const EVERY: Duration = Duration::from_millis(200);
/// Who looks more seldom than this was stopped, too, and judges nothing that happened meanwhile.
const SLEPT: Duration = Duration::from_secs(2);

/// Whether it was looked as often as always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    InTime,
    /// The machine stood still meanwhile.
    AfterSleep,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    connection: Option<PgConnection>,
    /// The processes that were at work when it was looked last, and not stopped.
    pub(super) going: HashSet<i64>,
    /// For how long there was always one of them, over all.
    attended: Duration,
    /// That time by the server's time.
    attended_at: VecDeque<(i64, Duration)>,
    /// Since when there is none, though the server answers.
    unattended_since: Option<Instant>,
    /// When the fleet was cared for last.
    pub(super) called_at: Instant,
    looked_at: Instant,
    /// The leases that were held then.
    pub(super) held: Vec<Held>,
    /// Attachments that are pending.
    pub(super) pending: i64,
    /// When that last became less.
    pub(super) progressed_at: Instant,
    /// For how long a lease was over while somebody was at work who could have freed it, at the longest.
    pub(super) overdue: Duration,
    /// For how long the server answered and nobody was at work, at the longest.
    pub(super) unattended: Duration,
    /// What the server was doing when that was too long for the first time.
    pub(super) meanwhile: String,
    requests: VecDeque<(Instant, u64)>,
    /// The most requests of any window.
    pub(super) requests_in_window: u64,
}

impl Watch {
    /// Begins.
    pub(super) async fn start(database: &Database) -> Result<Self> {
        let mut connection = database.connect().await?;
        let Progress { pending, .. } = database::progress(&mut connection).await?;
        let now = Instant::now();
        Ok(Self {
            connection: Some(connection),
            going: HashSet::new(),
            attended: Duration::ZERO,
            attended_at: VecDeque::new(),
            unattended_since: None,
            called_at: now,
            looked_at: now,
            held: Vec::new(),
            pending,
            progressed_at: now,
            overdue: Duration::ZERO,
            unattended: Duration::ZERO,
            meanwhile: String::new(),
            requests: VecDeque::from([(now, 0)]),
            requests_in_window: 0,
        })
    }

    /// Looks, if it is time. `processes` are those that are not stopped.
    pub(super) fn look(&mut self, world: &World, database: &Database, processes: &HashSet<i64>) -> Result<Looked> {
        let now = Instant::now();
        let looked = if now > self.called_at + SLEPT { Looked::AfterSleep } else { Looked::InTime };
        self.called_at = now;
        if now < self.looked_at + EVERY {
            return Ok(looked);
        }
        let since = now - std::mem::replace(&mut self.looked_at, now);
        let asked = world.sim.stats().api_requests;
        self.requests.push_back((now, asked));
        while self.requests.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.requests.pop_front();
        }
        let before = self.requests.front().map_or(asked, |(_, before)| *before);
        self.requests_in_window = self.requests_in_window.max(asked - before);

        let answer = world.runtime.block_on(async {
            if self.connection.is_none() {
                self.connection = Some(database.connect().await?);
            }
            let Some(connection) = &mut self.connection else { return Ok(None) };
            if looked == Looked::InTime
                && let Ok(held) = database::leases(connection).await
            {
                self.held = held;
            }
            anyhow::Ok(database::progress(connection).await.ok())
        })?;
        let Some(progress) = answer else {
            // It was crashed just now.
            self.connection = None;
            self.going.clear();
            self.unattended_since = None;
            return Ok(looked);
        };
        if progress.pending < self.pending {
            self.progressed_at = Instant::now();
        }
        self.pending = progress.pending;
        let overdue = self.attend(&progress, processes, since);
        self.overdue = self.overdue.max(overdue);
        if (overdue > SCAN || self.unattended_since.is_some_and(|since| since.elapsed() > SCAN * 2))
            && self.meanwhile.is_empty()
            && let Some(connection) = &mut self.connection
        {
            self.meanwhile = world.runtime.block_on(database::activity(connection))?;
        }
        Ok(looked)
    }

    /// Counts the time since the last look, if somebody was at work through it; gives for how long of such time a lease is
    /// over now.
    fn attend(&mut self, progress: &Progress, processes: &HashSet<i64>, since: Duration) -> Duration {
        let going: HashSet<i64> = progress.at_work.iter().filter(|one| processes.contains(one)).copied().collect();
        let slept = since > SLEPT;
        if !slept && !going.is_disjoint(&self.going) {
            self.attended += since;
        }
        if !going.is_empty() || processes.is_empty() || slept {
            self.unattended_since = None;
        } else {
            let begun = self.unattended_since.get_or_insert_with(Instant::now);
            self.unattended = self.unattended.max(begun.elapsed());
        }
        self.going = going;
        self.attended_at.push_back((progress.now_ms, self.attended));
        let Some(over_since_ms) = progress.over_since_ms else {
            self.attended_at.drain(..self.attended_at.len() - 1);
            return Duration::ZERO;
        };
        // What was counted up to the last look before it was over.
        while self.attended_at.get(1).is_some_and(|(at, _)| *at <= over_since_ms) {
            self.attended_at.pop_front();
        }
        self.attended_at.front().map_or(Duration::ZERO, |(_, before)| self.attended - *before)
    }

    /// The leases that are held now, with those that the server was giving out at this moment.
    pub(super) fn leases(&mut self, world: &World, database: &Database) -> Result<Vec<Held>> {
        world.runtime.block_on(async {
            loop {
                if self.connection.is_none() {
                    self.connection = Some(database.connect().await?);
                }
                let Some(connection) = &mut self.connection else { continue };
                let leases = async {
                    database::settle(connection).await?;
                    database::leases(connection).await
                };
                match leases.await {
                    Ok(leases) => return Ok(leases),
                    Err(sqlx::Error::Database(error)) if !error.code().is_some_and(|code| code.starts_with("57")) => {
                        return Err(sqlx::Error::Database(error).into());
                    }
                    Err(_) => self.connection = None,
                }
            }
        })
    }
}
