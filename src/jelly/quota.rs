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
}

impl QuotaLimits {
    /// The configured limits; where none are, the live service's own, or none against a loopback base.
    pub fn resolve(config: &QuotaConfig, loopback: bool) -> Self {
        let live = |limit: u64| (!loopback).then_some(limit);
        Self {
            per_window: config.requests_per_window.or(live(5_000)),
            per_day: config.requests_per_day.or(live(100_000)),
        }
    }
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
    /// A quota with nothing used, on the shared window.
    pub fn new(limits: QuotaLimits, window: EgressWindow) -> Self {
        Self { limits, window, day: Arc::default() }
    }

    /// Takes one request, or tells how long until one fits. Nothing is taken then.
    pub fn try_take(&self, now: Timestamp) -> Result<(), Duration> {
        self.take(now, false)
    }

    /// Counts a request that is made whatever the quota says.
    pub(super) fn take_anyway(&self, now: Timestamp) {
        // Forced: it cannot be refused.
        let _ = self.take(now, true);
    }

    fn take(&self, now: Timestamp, anyway: bool) -> Result<(), Duration> {
        let now_ms = now.as_millisecond();
        let mut day = locked(&self.day);
        let mut window = locked(&self.window.0);
        day.settle(now_ms);
        window.settle(now_ms);
        let mut wait_ms = 0;
        if self.limits.per_day.is_some_and(|limit| day.used >= limit) {
            wait_ms = (day.number + 1) * DAY_MS - now_ms;
        }
        if let Some(limit) = self.limits.per_window.filter(|limit| window.used >= *limit) {
            wait_ms = wait_ms.max(window.wait_ms(limit, now_ms));
        }
        if wait_ms > 0 && !anyway {
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    fn quota(per_window: u64, per_day: u64) -> Quota {
        Quota::new(QuotaLimits { per_window: Some(per_window), per_day: Some(per_day) }, EgressWindow::default())
    }

    #[test]
    fn the_live_limits_hold_unless_the_base_is_loopback_or_limits_are_set() {
        let none = QuotaConfig::default();
        assert_eq!(QuotaLimits::resolve(&none, false).per_window, Some(5_000));
        assert_eq!(QuotaLimits::resolve(&none, false).per_day, Some(100_000));
        assert_eq!(QuotaLimits::resolve(&none, true), QuotaLimits { per_window: None, per_day: None });
        let set = QuotaConfig { requests_per_window: Some(7), requests_per_day: None };
        assert_eq!(QuotaLimits::resolve(&set, true).per_window, Some(7));
    }

    #[test]
    fn a_full_window_opens_after_the_time_that_was_told() {
        let quota = quota(3, 100);
        for ms in [0, 1_000, 200_000] {
            quota.try_take(at(ms)).unwrap();
        }
        let wait = quota.try_take(at(210_000)).unwrap_err();
        assert_eq!(wait, Duration::from_secs(100));
        assert!(quota.try_take(at(309_999)).is_err());
        quota.try_take(at(310_000)).unwrap();
    }

    #[test]
    fn what_a_kept_state_has_used_ends_with_the_day_and_the_window() {
        let state = QuotaState { slots: vec![(DAY_MS, 3), (DAY_MS + 200_000, 4)], day: 1, day_used: 9 };
        assert_eq!(state.used(at(DAY_MS + 200_001)), (9, 7));
        assert_eq!(state.used(at(DAY_MS + 300_001)), (9, 4));
        assert_eq!(state.used(at(2 * DAY_MS)), (0, 0));
    }

    #[test]
    fn what_is_left_comes_back_with_time_and_is_never_below_nothing() {
        let quota = quota(2, 100);
        for _ in 0..3 {
            quota.take_anyway(at(0));
        }
        assert_eq!(quota.left(at(1)), QuotaLeft { of_window: Some((0, 2)), of_day: Some((97, 100)) });
        assert_eq!(quota.left(at(310_000)), QuotaLeft { of_window: Some((2, 2)), of_day: Some((97, 100)) });
        assert_eq!(quota.left(at(DAY_MS)).of_day, Some((100, 100)));
        let none = QuotaLimits { per_window: None, per_day: None };
        let free = Quota::new(none, EgressWindow::default());
        assert_eq!(free.left(at(0)), QuotaLeft { of_window: None, of_day: None });
    }

    #[test]
    fn a_full_day_opens_at_midnight_utc() {
        let quota = quota(100, 2);
        quota.try_take(at(DAY_MS - 10)).unwrap();
        quota.try_take(at(DAY_MS - 9)).unwrap();
        assert_eq!(quota.try_take(at(DAY_MS - 8)), Err(Duration::from_millis(8)));
        quota.try_take(at(DAY_MS)).unwrap();
    }

    #[test]
    fn a_refused_request_takes_nothing_and_the_probe_always_counts() {
        let quota = quota(1, 100);
        quota.try_take(at(0)).unwrap();
        assert!(quota.try_take(at(0)).is_err());
        assert_eq!(quota.state().day_used, 1);
        quota.take_anyway(at(0));
        assert_eq!(quota.state().day_used, 2);
        assert_eq!(quota.state().slots, [(0, 2)]);
    }

    #[test]
    fn teams_of_one_egress_group_share_the_window_and_not_the_day() {
        let window = EgressWindow::default();
        let limits = QuotaLimits { per_window: Some(3), per_day: Some(2) };
        let (one, two) = (Quota::new(limits, window.clone()), Quota::new(limits, window));
        one.try_take(at(0)).unwrap();
        one.try_take(at(0)).unwrap();
        two.try_take(at(0)).unwrap();
        assert!(two.try_take(at(0)).is_err());
        assert_eq!(two.state().day_used, 1);
    }

    #[test]
    fn a_kept_state_counts_on_after_a_restart_and_twice_changes_nothing() {
        let before = quota(2, 100);
        before.try_take(at(0)).unwrap();
        before.try_take(at(1)).unwrap();
        let after = quota(2, 100);
        after.restore(&before.state());
        after.restore(&before.state());
        assert!(after.try_take(at(2)).is_err());
        assert_eq!(after.state(), before.state());
    }

    #[test]
    fn a_clock_that_was_set_back_blocks_for_one_window_at_most() {
        let quota = quota(1, 100);
        quota.try_take(at(50 * DAY_MS)).unwrap();
        let wait = quota.try_take(at(40 * DAY_MS)).unwrap_err();
        assert!(wait <= Duration::from_secs(310), "{wait:?}");
        quota.try_take(at(40 * DAY_MS + 310_000)).unwrap();
    }

    proptest! {
        #[test]
        fn no_five_minutes_hold_more_than_the_limit(steps in proptest::collection::vec(0i64..40_000, 1..400)) {
            let quota = quota(5, u64::MAX);
            let mut now = 0;
            let mut taken = Vec::new();
            for step in steps {
                now += step;
                match quota.try_take(at(now)) {
                    Ok(()) => taken.push(now),
                    Err(wait) => prop_assert!(wait > Duration::ZERO && wait <= Duration::from_secs(310)),
                }
            }
            for pair in taken.windows(6) {
                prop_assert!(pair[5] - pair[0] > 300_000);
            }
        }
    }
}
