//! Requests of a walk: within the quota's bulk share, held by what holds the team, tried again where that may help.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::{debug, warn};

use super::WalkError;
use crate::archive::{Holds, TeamAccess};
use crate::catalog::{Catalog, Pause};
use crate::clock::Clock;
use crate::http::Decision;
use crate::jelly::{ApiError, JellyClient};
use crate::model::Lane;

/// So often one request is tried.
const ATTEMPTS: u32 = 6;
/// The wait after the first failure, and the longest.
const BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A pause is looked at so often: a person may end it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// 429 answers that ask for at most this long hold the whole egress group: the 5-minute window is per address.
const EGRESS_PAUSE_MAX: Duration = Duration::from_mins(5);

/// Why a request gave nothing.
#[derive(Debug)]
pub(super) enum Refused {
    /// 422: a cursor or a parameter that the service does not take.
    Invalid(String),
    /// A page leads to itself.
    Circle,
    /// There is no such thing.
    Gone,
    /// The answer is too large.
    TooLarge(String),
    /// This one cannot be had.
    Failed(String),
    /// Nothing can be had now.
    Walk(WalkError),
}

impl From<WalkError> for Refused {
    fn from(error: WalkError) -> Self {
        Self::Walk(error)
    }
}

/// Asks for one team.
#[derive(Debug, Clone)]
pub struct Asker {
    access: TeamAccess,
    client: JellyClient,
    holds: Arc<Holds>,
    catalog: Arc<Catalog>,
    clock: Clock,
    /// A pause that lasts longer ends the walk for now; `None` waits for its end.
    patience: Option<Duration>,
    requests: Arc<AtomicU64>,
}

impl Asker {
    /// Asks with a team's access. A pause that lasts longer than `patience` ends a walk for now.
    pub fn new(
        access: &TeamAccess,
        holds: Arc<Holds>,
        catalog: Arc<Catalog>,
        clock: Clock,
        patience: Option<Duration>,
    ) -> Self {
        let client = access.client.clone().in_bulk();
        Self { access: access.clone(), client, holds, catalog, clock, patience, requests: Arc::default() }
    }

    /// The client, whose calls are bulk work.
    pub(super) fn client(&self) -> &JellyClient {
        &self.client
    }

    /// The requests since this was last asked.
    pub(super) fn take_requests(&self) -> u64 {
        self.requests.swap(0, Ordering::Relaxed)
    }

    /// Sends a request, as often as it may help. Safe to drop at any time.
    pub(super) async fn ask<T, F>(&self, request: impl Fn() -> F) -> Result<T, Refused>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let mut failures = 0;
        loop {
            self.wait_for_leave().await?;
            let error = match request().await {
                Ok(answer) => {
                    self.requests.fetch_add(1, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(ApiError::QuotaUsedUp { retry_after }) => {
                    let reason = "what bulk work may use of the request quota is used up";
                    self.holds.hold(self.pause(&self.access.bulk_scope, retry_after, reason));
                    continue;
                }
                Err(error) => error,
            };
            self.requests.fetch_add(1, Ordering::Relaxed);
            let reason = error.to_string();
            match (error.decision(), error) {
                (_, ApiError::Invalid(words)) => return Err(Refused::Invalid(words.join("; "))),
                (_, ApiError::CursorLoop { .. }) => return Err(Refused::Circle),
                (_, ApiError::TooLarge { .. }) => return Err(Refused::TooLarge(reason)),
                (Decision::RetryGone, _) => return Err(Refused::Gone),
                (Decision::PauseTeam, _) => self.refuse_token(reason).await?,
                (Decision::PauseTeamFor(wait), _) => {
                    self.keep_asked(self.pause(&self.access.scopes[0], wait, &reason)).await?;
                }
                (Decision::PauseEgressGroup(wait), _) => {
                    let scope = &self.access.scopes[usize::from(wait <= EGRESS_PAUSE_MAX)];
                    self.keep_asked(self.pause(scope, wait, &reason)).await?;
                }
                (Decision::ProbeMembers, _) => match self.access.client.probe_members().await {
                    Ok(false) => self.refuse_token(format!("{reason}; the team's members are refused as well")).await?,
                    Ok(true) | Err(_) => return Err(Refused::Failed(reason)),
                },
                (Decision::RetryAfter(asked), _) => {
                    failures += 1;
                    if failures >= ATTEMPTS {
                        return Err(Refused::Failed(format!("{reason} (attempt {failures}, the last)")));
                    }
                    debug!(team = %self.access.key, error = %reason, "to be asked again");
                    tokio::time::sleep(backoff(failures - 1).max(asked.unwrap_or_default())).await;
                }
                // The base URL is wrong: nothing else would be answered either.
                (Decision::HoldOff(_), _) => return Err(WalkError::Unanswered(reason).into()),
                (Decision::Fail | Decision::Reexchange | Decision::Quarantine, _) => {
                    return Err(Refused::Failed(reason));
                }
            }
        }
    }

    /// Waits while something holds the team's bulk work.
    pub(super) async fn wait_for_leave(&self) -> Result<(), WalkError> {
        loop {
            let now_ms = self.clock.now_ms();
            let Some(pause) = self.access.held(&self.holds, Lane::Bulk, now_ms) else { return Ok(()) };
            let left = Duration::from_millis(pause.until_ms.saturating_sub(now_ms).unsigned_abs());
            if self.patience.is_some_and(|patience| left > patience) {
                return Err(WalkError::Held(pause));
            }
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }

    async fn refuse_token(&self, reason: String) -> Result<(), WalkError> {
        warn!(team = %self.access.key, error = %reason, "the token is refused: the team is paused");
        match self.access.refused(&self.holds, &reason) {
            Some(pause) => self.keep(pause).await,
            None => Ok(()),
        }
    }

    /// Begins one that Jelly asked for.
    async fn keep_asked(&self, pause: Pause) -> Result<(), WalkError> {
        self.holds.pause(&pause, self.clock.now_ms());
        self.keep(pause).await
    }

    /// Begins a pause that outlasts this process.
    async fn keep(&self, pause: Pause) -> Result<(), WalkError> {
        self.holds.hold(pause.clone());
        self.catalog.pause(&pause).await?;
        self.holds.are_kept(&[pause]);
        Ok(())
    }

    fn pause(&self, scope: &str, wait: Duration, reason: &str) -> Pause {
        let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let until_ms = self.clock.now_ms().saturating_add(wait_ms.max(1));
        Pause { scope: scope.to_owned(), until_ms, reason: reason.to_owned() }
    }
}

/// A random time up to twice the one before, at most [`BACKOFF_MAX`].
fn backoff(failures: u32) -> Duration {
    let bound = BACKOFF.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
    let mut random = [0; 2];
    // Without randomness the whole bound is waited.
    let share =
        getrandom::fill(&mut random).map_or(1.0, |()| f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX));
    bound.mul_f64(share)
}
