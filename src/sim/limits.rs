//! The request limits: so many in a window, so many in a UTC day.

use std::time::Duration;

const DAY_MS: i64 = 86_400_000;

/// What is allowed; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitConfig {
    /// Requests in a window, and its length.
    pub window: Option<(u64, Duration)>,
    /// Requests in a UTC day.
    pub per_day: Option<u64>,
}

/// What is allowed and what has been used. Times are Unix milliseconds.
#[derive(Debug)]
pub(super) struct Limits {
    config: LimitConfig,
    window_start_ms: i64,
    window_used: u64,
    day: i64,
    day_used: u64,
}

impl Limits {
    /// Nothing used.
    pub(super) const fn new(config: LimitConfig) -> Self {
        Self { config, window_start_ms: i64::MIN, window_used: 0, day: i64::MIN, day_used: 0 }
    }

    /// Forgets what was used.
    pub(super) const fn reset(&mut self) {
        *self = Self::new(self.config);
    }

    /// Takes one request, or says after how many seconds to ask again. A refused request uses nothing.
    pub(super) fn take(&mut self, now_ms: i64) -> Result<(), u64> {
        let day = now_ms.div_euclid(DAY_MS);
        if day != self.day {
            (self.day, self.day_used) = (day, 0);
        }
        if self.config.per_day.is_some_and(|limit| self.day_used >= limit) {
            return Err(seconds(DAY_MS - now_ms.rem_euclid(DAY_MS)));
        }
        if let Some((limit, length)) = self.config.window {
            let length_ms = i64::try_from(length.as_millis()).unwrap_or(i64::MAX).max(1);
            if now_ms.saturating_sub(self.window_start_ms) >= length_ms {
                (self.window_start_ms, self.window_used) = (now_ms, 0);
            }
            if self.window_used >= limit {
                return Err(seconds(self.window_start_ms.saturating_add(length_ms).saturating_sub(now_ms)));
            }
            self.window_used += 1;
        }
        self.day_used += 1;
        Ok(())
    }
}

/// Milliseconds as whole seconds, rounded up, at least one.
fn seconds(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0).div_ceil(1000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_fills_and_opens_again() {
        let window = Some((2, Duration::from_mins(5)));
        let mut limits = Limits::new(LimitConfig { window, per_day: None });
        assert_eq!([limits.take(1000), limits.take(2000), limits.take(2500)], [Ok(()), Ok(()), Err(299)]);
        assert_eq!(limits.take(300_999), Err(1));
        assert_eq!(limits.take(301_000), Ok(()));
    }

    #[test]
    fn a_day_fills_and_ends_at_midnight_utc() {
        let mut limits = Limits::new(LimitConfig { window: None, per_day: Some(1) });
        assert_eq!(limits.take(DAY_MS - 10_000), Ok(()));
        assert_eq!(limits.take(DAY_MS - 10_000), Err(10));
        assert_eq!(limits.take(DAY_MS), Ok(()));
    }
}
