//! When figures are trouble: the details to report, or nothing. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::config::values::{format_duration, format_size};

/// Times of one team, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// When the service started: before, nothing could be archived.
    pub started_ms: i64,
    /// When the oldest attachment that waits was first seen; `None` if none waits.
    pub waiting_since_ms: Option<i64>,
    /// When an attachment was last archived.
    pub last_success_ms: Option<i64>,
}

impl Progress {
    /// The details of [`super::Kind::NoSuccess`]: nothing was archived for `after`, and all that time something waited.
    pub fn stalled(&self, now_ms: i64, after: Duration) -> Option<String> {
        let since_ms = self.waiting_since_ms?.max(self.started_ms).max(self.last_success_ms.unwrap_or(i64::MIN));
        let silent = Duration::from_millis(u64::try_from(now_ms.saturating_sub(since_ms)).unwrap_or(0));
        if silent < after {
            return None;
        }
        let minutes = Duration::from_mins(silent.as_secs() / 60);
        Some(format!("Nothing was archived for {}, though attachments wait.", format_duration(minutes)))
    }
}

/// The details of [`super::Kind::CertificateExpires`].
pub fn expires(at: Timestamp, now: Timestamp, within: Duration) -> Option<String> {
    let left = Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
    if left > within {
        return None;
    }
    let days = left.as_secs() / 86_400;
    Some(match (left.is_zero(), days) {
        (true, _) => format!("It expired at {at:.0}."),
        (false, 1) => format!("It expires at {at:.0}, in 1 day."),
        (false, _) => format!("It expires at {at:.0}, in {days} days."),
    })
}

/// The details of [`super::Kind::DiskNearlyFull`].
pub fn nearly_full(free_bytes: u64, below_bytes: u64) -> Option<String> {
    let mib = |bytes: u64| format_size(bytes >> 20 << 20);
    (free_bytes < below_bytes).then(|| format!("{} are free, less than {}.", mib(free_bytes), format_size(below_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const AFTER: Duration = Duration::from_hours(6);

    fn stalled(waiting_since: Option<i64>, last_success: Option<i64>, now: i64) -> Option<String> {
        let hours = |hours: Option<i64>| hours.map(|hours| hours * HOUR);
        let (waiting_since_ms, last_success_ms) = (hours(waiting_since), hours(last_success));
        Progress { started_ms: 100 * HOUR, waiting_since_ms, last_success_ms }.stalled(now * HOUR, AFTER)
    }

    #[test]
    fn silence_counts_only_while_something_waits_and_the_service_runs() {
        assert_eq!(stalled(None, None, 1000), None);
        // A quiet week, then something new.
        assert_eq!(stalled(Some(299), Some(120), 300), None);
        // Something old waits for its next attempt, while others get through.
        assert_eq!(stalled(Some(200), Some(299), 300), None);
        // The service was down for long.
        assert_eq!(stalled(Some(10), Some(10), 105), None);
        let told = "Nothing was archived for 6h, though attachments wait.";
        assert_eq!(stalled(Some(10), Some(10), 106).as_deref(), Some(told));
        assert_eq!(stalled(Some(200), None, 206).as_deref(), Some(told));
        assert_eq!(stalled(Some(200), Some(201), 206), None);
        // The clock was set back.
        assert_eq!(stalled(Some(500), Some(501), 206), None);
    }

    #[test]
    fn a_certificate_is_told_of_before_and_after_its_end() {
        let (now, day) = (Timestamp::from_second(1_700_000_000).unwrap(), Duration::from_hours(24));
        let told = |end: i64| expires(Timestamp::from_second(1_700_000_000 + end).unwrap(), now, 14 * day);
        assert_eq!(told(14 * 86_400 + 1), None);
        assert_eq!(told(14 * 86_400).as_deref(), Some("It expires at 2023-11-28T22:13:20Z, in 14 days."));
        assert_eq!(told(86_400).as_deref(), Some("It expires at 2023-11-15T22:13:20Z, in 1 day."));
        assert_eq!(told(-5).as_deref(), Some("It expired at 2023-11-14T22:13:15Z."));
    }

    #[test]
    fn a_disk_is_nearly_full_below_the_bound() {
        assert_eq!(nearly_full(2 << 30, 2 << 30), None);
        assert_eq!(nearly_full((100 << 20) + 5, 2 << 30).as_deref(), Some("100 MiB are free, less than 2 GiB."));
        assert_eq!(nearly_full(0, 0), None);
    }
}
