//! What is looked at while a fleet works: how far it is, its leases, and what it asks of Jelly.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::PgConnection;

use super::database::{self, Database, Held};
use crate::world::World;

/// The window in which Jelly counts requests.
const WINDOW: Duration = Duration::from_mins(5);
/// How often requests are counted, and the catalog is asked.
const EVERY: Duration = Duration::from_millis(200);
/// After the server was away, nobody's lease is judged for so long.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    connection: Option<PgConnection>,
    /// Since when the server has answered every time.
    answers_since: Instant,
    looked_at: Instant,
    /// Attachments that are pending.
    pub(super) pending: i64,
    /// When that last became less.
    pub(super) progressed_at: Instant,
    /// For how long a lease was over, at the longest.
    pub(super) overdue_ms: i64,
    requests: VecDeque<(Instant, u64)>,
    /// The most requests of any window.
    pub(super) requests_in_window: u64,
}

impl Watch {
    /// Begins.
    pub(super) async fn start(database: &Database) -> Result<Self> {
        let mut connection = database.connect().await?;
        let (pending, _) = database::progress(&mut connection).await?;
        let now = Instant::now();
        Ok(Self {
            connection: Some(connection),
            answers_since: now,
            looked_at: now,
            pending,
            progressed_at: now,
            overdue_ms: 0,
            requests: VecDeque::from([(now, 0)]),
            requests_in_window: 0,
        })
    }

    /// Looks, if it is time.
    pub(super) fn look(&mut self, world: &World, database: &Database) -> Result<()> {
        let now = Instant::now();
        if now < self.looked_at + EVERY {
            return Ok(());
        }
        self.looked_at = now;
        let asked = world.sim.stats().api_requests;
        self.requests.push_back((now, asked));
        while self.requests.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.requests.pop_front();
        }
        let before = self.requests.front().map_or(asked, |(_, before)| *before);
        self.requests_in_window = self.requests_in_window.max(asked - before);

        let answer = world.runtime.block_on(async {
            if self.connection.is_none() {
                self.answers_since = Instant::now();
                self.connection = Some(database.connect().await?);
            }
            let Some(connection) = &mut self.connection else { return Ok(None) };
            anyhow::Ok(database::progress(connection).await.ok())
        })?;
        let Some((pending, overdue_ms)) = answer else {
            // It was crashed just now.
            self.connection = None;
            return Ok(());
        };
        if pending < self.pending {
            self.progressed_at = Instant::now();
        }
        self.pending = pending;
        if self.answers_since.elapsed() > SETTLES_WITHIN {
            self.overdue_ms = self.overdue_ms.max(overdue_ms);
        }
        Ok(())
    }

    /// The leases that are held now.
    pub(super) fn leases(&mut self, world: &World, database: &Database) -> Result<Vec<Held>> {
        world.runtime.block_on(async {
            loop {
                if self.connection.is_none() {
                    self.answers_since = Instant::now();
                    self.connection = Some(database.connect().await?);
                }
                let Some(connection) = &mut self.connection else { continue };
                match database::leases(connection).await {
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
