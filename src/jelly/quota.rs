//! The request quota: what may still be asked in this 5-minute window and on this day.
//!
//! The service does not say whether its windows are aligned or sliding, so no 5 minutes whatever may hold more than
//! the limit: requests are counted in 5-second slots, and a slot is forgotten only when all of it, and a little more
//! for requests that were long on the way, is older than 5 minutes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::QuotaConfig;
use crate::model::Lane;

/// The length of a slot.
const SLOT_MS: i64 = 5_000;
/// How long a slot counts, from its end: the window, and 5 s for delays on the way.
const WINDOW_MS: i64 = 305_000;
const DAY_MS: i64 = 86_400_000;

/// The limits that hold; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Requests in any 5 minutes and egress group.
    pub per_window: Option<u64>,
    /// Requests in each UTC day and team.
    pub per_day: Option<u64>,
    /// So many requests of [`Self::per_window`] bulk work leaves to live work.
    pub live_of_window: u64,
    /// So many requests of [`Self::per_day`] bulk work leaves to live work.
    pub live_of_day: u64,
}

impl QuotaLimits {
    /// No limit at all.
    pub const NONE: Self = Self { per_window: None, per_day: None, live_of_window: 0, live_of_day: 0 };

    /// The configured limits; where none are, the live service's own, or none against a loopback base. Both lanes may use
    /// all of them: see [`Self::keep_for_live`].
    pub fn resolve(config: &QuotaConfig, loopback: bool) -> Self {
        let live = |limit: u64| (!loopback).then_some(limit);
        Self {
            per_window: config.requests_per_window.or(live(5_000)),
            per_day: config.requests_per_day.or(live(100_000)),
            ..Self::NONE
        }
    }

    /// The same limits, of which bulk work leaves these shares to live work, rounded up; at least one request is not left,
    /// so that bulk work never stands still for ever.
    #[must_use]
    pub fn keep_for_live(self, of_window: f64, of_day: f64) -> Self {
        let kept = |limit: Option<u64>, share| limit.map_or(0, |limit| part(limit, share).min(limit.saturating_sub(1)));
        Self { live_of_window: kept(self.per_window, of_window), live_of_day: kept(self.per_day, of_day), ..self }
    }

    /// What a lane may have used of the window and of the day, at most.
    fn of(&self, lane: Lane) -> (Option<u64>, Option<u64>) {
        let less = |limit: Option<u64>, kept: u64| match lane {
            Lane::Live => limit,
            Lane::Bulk => limit.map(|limit| limit.saturating_sub(kept)),
        };
        (less(self.per_window, self.live_of_window), less(self.per_day, self.live_of_day))
    }
}

/// A share of a number, rounded up.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "limits are configured up to 1e9, and shares from 0 to 1"
)]
fn part(whole: u64, share: f64) -> u64 {
    (whole as f64 * share).ceil() as u64
}

/// What is left, and of how much; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLeft {
    /// Of the egress group's last 5 minutes.
    pub of_window: Option<(u64, u64)>,
    /// Of the team's UTC day.
    pub of_day: Option<(u64, u64)>,
}

/// What must outlive the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaState {
    /// The slots of the window that still count: start in milliseconds since the Unix epoch, and requests.
    pub slots: Vec<(i64, u64)>,
    /// The UTC day, in days since the Unix epoch.
    pub day: i64,
    /// The requests of that day.
    pub day_used: u64,
}

impl QuotaState {
    /// What is used: of this UTC day, and of the last 5 minutes.
    pub fn used(&self, now: Timestamp) -> (u64, u64) {
        let now_ms = now.as_millisecond();
        let today = if self.day == now_ms.div_euclid(DAY_MS) { self.day_used } else { 0 };
        let recent = self.slots.iter().filter(|(start, _)| *start > now_ms - 300_000);
        (today, recent.map(|(_, used)| used).sum())
    }
}

/// The window of one egress group, shared by its teams. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct EgressWindow(Arc<Mutex<Window>>);

#[derive(Debug, Default)]
struct Window {
    slots: VecDeque<(i64, u64)>,
    used: u64,
}

impl Window {
    /// Forgets what no longer counts. Slots of a future (the clock was set back) count as taken now.
    fn settle(&mut self, now_ms: i64) {
        let current = now_ms - now_ms.rem_euclid(SLOT_MS);
        while let Some((start, used)) = self.slots.front().copied() {
            if start + SLOT_MS + WINDOW_MS > now_ms {
                break;
            }
            self.slots.pop_front();
            self.used = self.used.saturating_sub(used);
        }
        let mut ahead = 0;
        while let Some((_, used)) = self.slots.pop_back_if(|(start, _)| *start > current) {
            ahead = used.saturating_add(ahead);
        }
        if ahead > 0 {
            self.used = self.used.saturating_sub(ahead);
            self.add(current, ahead);
        }
    }

    fn add(&mut self, slot: i64, requests: u64) {
        self.used = self.used.saturating_add(requests);
        match self.slots.back_mut() {
            Some((start, used)) if *start == slot => *used = used.saturating_add(requests),
            _ => self.slots.push_back((slot, requests)),
        }
    }

    /// How long until one more request fits.
    fn wait_ms(&self, limit: u64, now_ms: i64) -> i64 {
        let mut excess = self.used.saturating_add(1).saturating_sub(limit);
        for (start, used) in &self.slots {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(*used);
            if excess == 0 {
                return (start + SLOT_MS + WINDOW_MS - now_ms).max(1);
            }
        }
        // A limit of zero never fits; look again after a window.
        WINDOW_MS
    }
}

/// One team's quota: its day, and the window of its egress group. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Quota {
    limits: QuotaLimits,
    window: EgressWindow,
    day: Arc<Mutex<Day>>,
}

#[derive(Debug, Default)]
struct Day {
    number: i64,
    used: u64,
}

impl Day {
    fn settle(&mut self, now_ms: i64) {
        // A clock that was set back does not give a used day again.
        let today = now_ms.div_euclid(DAY_MS);
        if today > self.number || today < self.number - 1 {
            *self = Self { number: today, used: 0 };
        }
    }
}

impl Quota {
    /// How long so many requests of bulk work take at least, where nothing else is asked: zero without limits.
    pub fn bulk_time(&self, requests: u64) -> Duration {
        let (of_window, of_day) = self.limits.of(Lane::Bulk);
        let whole = |limit: Option<u64>| limit.map_or(0, |limit| requests.saturating_sub(1) / limit.max(1));
        let windows = Duration::from_millis(WINDOW_MS.unsigned_abs().saturating_mul(whole(of_window)));
        windows.max(Duration::from_millis(DAY_MS.unsigned_abs().saturating_mul(whole(of_day))))
    }

    /// A quota with nothing used, on the shared window.
    pub fn new(limits: QuotaLimits, window: EgressWindow) -> Self {
        Self { limits, window, day: Arc::default() }
    }

    /// Takes one request, or tells how long until one fits. Nothing is taken then. Live work may use all of the limits;
    /// bulk work is refused as soon as less is left than is kept for live work, whoever has used the rest.
    pub fn try_take(&self, now: Timestamp, lane: Lane) -> Result<(), Duration> {
        self.take(now, self.limits.of(lane))
    }

    /// Counts a request that is made whatever the quota says.
    pub(super) fn take_anyway(&self, now: Timestamp) {
        // Without limits it cannot be refused.
        let _ = self.take(now, (None, None));
    }

    fn take(&self, now: Timestamp, (per_window, per_day): (Option<u64>, Option<u64>)) -> Result<(), Duration> {
        let now_ms = now.as_millisecond();
        let mut day = locked(&self.day);
        let mut window = locked(&self.window.0);
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

    /// What is left now.
    pub fn left(&self, now: Timestamp) -> QuotaLeft {
        let now_ms = now.as_millisecond();
        let mut day = locked(&self.day);
        let mut window = locked(&self.window.0);
        day.settle(now_ms);
        window.settle(now_ms);
        QuotaLeft {
            of_window: self.limits.per_window.map(|limit| (limit.saturating_sub(window.used), limit)),
            of_day: self.limits.per_day.map(|limit| (limit.saturating_sub(day.used), limit)),
        }
    }

    /// What is used, to be kept; the window's part is the whole egress group's.
    pub fn state(&self) -> QuotaState {
        let day = locked(&self.day);
        let window = locked(&self.window.0);
        QuotaState { slots: window.slots.iter().copied().collect(), day: day.number, day_used: day.used }
    }

    /// Takes up a kept state, at start. Where several teams share a window, each may bring it: the larger count of a
    /// slot holds.
    pub fn restore(&self, state: &QuotaState) {
        let mut day = locked(&self.day);
        if state.day > day.number {
            *day = Day { number: state.day, used: state.day_used };
        } else if state.day == day.number {
            day.used = day.used.max(state.day_used);
        }
        let mut window = locked(&self.window.0);
        let mut slots: std::collections::BTreeMap<i64, u64> = window.slots.iter().copied().collect();
        for (start, used) in &state.slots {
            let count = slots.entry(*start).or_default();
            *count = (*count).max(*used);
        }
        window.used = slots.values().fold(0, |sum, used| sum.saturating_add(*used));
        window.slots = slots.into_iter().collect();
    }
}

/// Counters stay right when a holder panics: no operation leaves them half-changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
