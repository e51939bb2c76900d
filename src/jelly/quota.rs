//! The request quota: what may still be asked in this 5-minute window and on this day.
//!
//! The service does not say whether its windows are aligned or sliding, so no 5 minutes whatever may hold more than
//! the limit: requests are counted in 5-second slots, and a slot is forgotten only when all of it, and a little more
//! for requests that were long on the way, is older than 5 minutes.
//!
//! What is used is counted in the catalog, for all processes that work on it (`ledger`); callers without a catalog count
//! in memory (`window`). Where nothing is limited the catalog is not asked.

mod ledger;
mod limits;
mod window;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::ApiError;
use crate::catalog::{Catalog, CatalogError, SLOT_COUNTS_MS, SLOT_MS, UsedRequests};
use crate::clock::Clock;
use crate::model::Lane;

use ledger::Ledger;
pub use ledger::Permit;
pub use limits::QuotaLimits;
use window::Day;
pub use window::EgressWindow;

/// How long a slot counts, from its end: the window, and 5 s for delays on the way.
const WINDOW_MS: i64 = SLOT_COUNTS_MS - SLOT_MS;
const DAY_MS: i64 = 86_400_000;

/// What is left, and of how much; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLeft {
    /// Of the egress group's last 5 minutes.
    pub of_window: Option<(u64, u64)>,
    /// Of the team's UTC day.
    pub of_day: Option<(u64, u64)>,
}

/// Where a quota's requests are counted.
#[derive(Debug, Clone)]
pub struct QuotaPlace {
    /// The catalog that counts.
    pub catalog: Arc<Catalog>,
    /// What tells it from other catalogs that count in the same window.
    pub place: PathBuf,
    /// The scope of the egress group's window.
    pub window: String,
    /// The scope of the team's day.
    pub team: String,
}

/// One team's quota: its day, and the window of its egress group. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Quota {
    limits: QuotaLimits,
    window: EgressWindow,
    day: Arc<Mutex<Day>>,
    ledger: Option<Arc<Ledger>>,
}

impl Quota {
    /// A quota with nothing used, on the shared window; counted in memory.
    pub fn new(limits: QuotaLimits, window: EgressWindow) -> Self {
        Self { limits, window, day: Arc::default(), ledger: None }
    }

    /// The same quota, counted in a catalog; but not where nothing is limited.
    #[must_use]
    pub fn counted_in(self, place: QuotaPlace) -> Self {
        if self.limits.are_none() {
            return self;
        }
        self.window.join(&place.place);
        Self { ledger: Some(Arc::new(Ledger::new(place))), ..self }
    }

    /// How long so many requests of bulk work take at least, where nothing else is asked: zero without limits.
    pub fn bulk_time(&self, requests: u64) -> Duration {
        let (of_window, of_day) = self.limits.of(Lane::Bulk);
        let whole = |limit: Option<u64>| limit.map_or(0, |limit| requests.saturating_sub(1) / limit.max(1));
        let windows = Duration::from_millis(WINDOW_MS.unsigned_abs().saturating_mul(whole(of_window)));
        windows.max(Duration::from_millis(DAY_MS.unsigned_abs().saturating_mul(whole(of_day))))
    }

    /// Takes one request, or tells how long until one fits ([`ApiError::QuotaUsedUp`]). Nothing is taken then. Live work
    /// may use all of the limits; bulk work is refused as soon as less is left than is kept for live work, whoever has
    /// used the rest. Dropped, it takes one request at most, which nobody sends.
    pub async fn take(&self, clock: &Clock, lane: Lane) -> Result<Permit, ApiError> {
        self.taken(clock, lane, self.limits.of(lane), false).await
    }

    /// Counts a request that is made whatever the quota says.
    pub(super) async fn take_anyway(&self, clock: &Clock) -> Result<Permit, ApiError> {
        self.taken(clock, Lane::Live, (None, None), true).await
    }

    async fn taken(
        &self,
        clock: &Clock,
        lane: Lane,
        limits: (Option<u64>, Option<u64>),
        is_forced: bool,
    ) -> Result<Permit, ApiError> {
        let taken = match &self.ledger {
            Some(ledger) => ledger.take(&self.window, limits, clock, lane, is_forced).await?,
            None => self.take_in_memory(clock.now_ms(), limits).map(|()| Permit::of_memory(lane, is_forced)),
        };
        taken.map_err(|retry_after| ApiError::QuotaUsedUp { retry_after })
    }

    /// What to do right before a request is sent: a permit that this process has held for too long (it may have been
    /// stopped meanwhile) is not used, and another one taken.
    pub(super) async fn renewed(&self, mut permit: Permit, clock: &Clock) -> Result<Permit, ApiError> {
        while !permit.is_good(clock) {
            if let Some(ledger) = &self.ledger {
                ledger.give_up(&permit);
            }
            permit =
                if permit.is_forced { self.take_anyway(clock).await? } else { self.take(clock, permit.lane).await? };
        }
        Ok(permit)
    }

    fn take_in_memory(&self, now_ms: i64, (per_window, per_day): (Option<u64>, Option<u64>)) -> Result<(), Duration> {
        let mut day = locked(&self.day);
        let mut window = self.window.window();
        day.settle(now_ms);
        window.settle(now_ms);
        let mut wait_ms = 0;
        if per_day.is_some_and(|limit| day.used >= limit) {
            wait_ms = (day.number + 1) * DAY_MS - now_ms;
        }
        if let Some(limit) = per_window.filter(|limit| window.used >= *limit) {
            wait_ms = wait_ms.max(window.wait_ms(limit, now_ms));
        }
        if wait_ms > 0 {
            return Err(Duration::from_millis(wait_ms.unsigned_abs()));
        }
        day.used = day.used.saturating_add(1);
        window.add(now_ms - now_ms.rem_euclid(SLOT_MS), 1);
        Ok(())
    }

    /// What is used of the day and of the window, as far as this process knows.
    pub fn used(&self, now: Timestamp) -> (u64, u64) {
        if let Some(ledger) = &self.ledger {
            return (ledger.day_used(), self.window.used(ledger.now_ms()));
        }
        let mut day = locked(&self.day);
        let mut window = self.window.window();
        day.settle(now.as_millisecond());
        window.settle(now.as_millisecond());
        (day.used, window.used)
    }

    /// What is left, as far as this process knows.
    pub fn left(&self, now: Timestamp) -> QuotaLeft {
        let (today, in_window) = self.used(now);
        QuotaLeft {
            of_window: self.limits.per_window.map(|limit| (limit.saturating_sub(in_window), limit)),
            of_day: self.limits.per_day.map(|limit| (limit.saturating_sub(today), limit)),
        }
    }

    /// Gives requests back that this process has taken and will not send: `all` of them at its end, else those for which
    /// it is too late. Whoever sends goes on all the same.
    pub async fn give_back(&self, clock: &Clock, all: bool) -> Result<(), CatalogError> {
        match &self.ledger {
            Some(ledger) => ledger.give_back(&self.window, clock, all).await,
            None => Ok(()),
        }
    }

    /// Takes over what all processes have counted, for [`Quota::used`] and for other catalogs that count in the same
    /// window. One statement for each catalog.
    pub async fn look(quotas: impl IntoIterator<Item = &Self>) -> Result<(), CatalogError> {
        let ledgers: Vec<_> = quotas.into_iter().filter_map(|quota| Some((quota, quota.ledger.as_ref()?))).collect();
        let Some((_, first)) = ledgers.first() else { return Ok(()) };
        let scopes: BTreeSet<&String> = ledgers.iter().flat_map(|(_, ledger)| ledger.scopes()).collect();
        let scopes: Vec<String> = scopes.into_iter().cloned().collect();
        let used: UsedRequests = first.catalog().used_requests(&scopes).await?;
        for (quota, ledger) in ledgers {
            ledger.see(&quota.window, &used);
        }
        Ok(())
    }
}

/// Counters stay right when a holder panics: no operation leaves them half-changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
