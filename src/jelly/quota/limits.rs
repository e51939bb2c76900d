//! The limits that hold, and what bulk work may use of them.

use crate::config::QuotaConfig;
use crate::model::Lane;

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
    /// Whether nothing is limited.
    pub fn are_none(&self) -> bool {
        self.per_window.is_none() && self.per_day.is_none()
    }

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
    pub fn of(&self, lane: Lane) -> (Option<u64>, Option<u64>) {
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
