//! What both lanes get of the windows, at chosen and at random times.

use proptest::prelude::*;

use super::*;
use crate::config::QuotaConfig;

impl Quota {
    /// Takes from a quota that is counted in memory.
    fn try_take(&self, now: Timestamp, lane: Lane) -> Result<(), Duration> {
        self.take_in_memory(now.as_millisecond(), self.limits.of(lane))
    }

    fn force(&self, now: Timestamp) {
        self.take_in_memory(now.as_millisecond(), (None, None)).unwrap();
    }

    /// One that has used the same.
    fn copied(&self) -> Self {
        let copy = Self::new(self.limits, EgressWindow::default());
        *locked(&copy.day) = locked(&self.day).clone();
        *copy.window.window() = self.window.window().clone();
        copy
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

fn quota(per_window: u64, per_day: u64) -> Quota {
    Quota::new(
        QuotaLimits { per_window: Some(per_window), per_day: Some(per_day), ..QuotaLimits::NONE },
        EgressWindow::default(),
    )
}

/// The same, with a share that is kept for live work.
fn keeping(per_window: u64, per_day: u64, share: f64) -> Quota {
    let limits = QuotaLimits { per_window: Some(per_window), per_day: Some(per_day), ..QuotaLimits::NONE };
    Quota::new(limits.keep_for_live(share, share), EgressWindow::default())
}

#[test]
fn the_live_limits_hold_unless_the_base_is_loopback_or_limits_are_set() {
    let none = QuotaConfig::default();
    assert_eq!(QuotaLimits::resolve(&none, false).per_window, Some(5_000));
    assert_eq!(QuotaLimits::resolve(&none, false).per_day, Some(100_000));
    assert_eq!(QuotaLimits::resolve(&none, true), QuotaLimits::NONE);
    let set = QuotaConfig { requests_per_window: Some(7), ..QuotaConfig::default() };
    assert_eq!(QuotaLimits::resolve(&set, true).per_window, Some(7));
}

#[test]
fn a_full_window_opens_after_the_time_that_was_told() {
    let quota = quota(3, 100);
    for ms in [0, 1_000, 200_000] {
        quota.try_take(at(ms), Lane::Live).unwrap();
    }
    let wait = quota.try_take(at(210_000), Lane::Live).unwrap_err();
    assert_eq!(wait, Duration::from_secs(100));
    assert!(quota.try_take(at(309_999), Lane::Live).is_err());
    quota.try_take(at(310_000), Lane::Live).unwrap();
}

#[test]
fn what_is_left_comes_back_with_time_and_is_never_below_nothing() {
    let quota = quota(2, 100);
    for _ in 0..3 {
        quota.force(at(0));
    }
    assert_eq!(quota.left(at(1)), QuotaLeft { of_window: Some((0, 2)), of_day: Some((97, 100)) });
    assert_eq!(quota.left(at(310_000)), QuotaLeft { of_window: Some((2, 2)), of_day: Some((97, 100)) });
    assert_eq!(quota.left(at(DAY_MS)).of_day, Some((100, 100)));
    let free = Quota::new(QuotaLimits::NONE, EgressWindow::default());
    assert_eq!(free.left(at(0)), QuotaLeft { of_window: None, of_day: None });
}

#[test]
fn a_full_day_opens_at_midnight_utc() {
    let quota = quota(100, 2);
    quota.try_take(at(DAY_MS - 10), Lane::Live).unwrap();
    quota.try_take(at(DAY_MS - 9), Lane::Live).unwrap();
    assert_eq!(quota.try_take(at(DAY_MS - 8), Lane::Live), Err(Duration::from_millis(8)));
    quota.try_take(at(DAY_MS), Lane::Live).unwrap();
}

#[test]
fn a_refused_request_takes_nothing_and_the_probe_always_counts() {
    let quota = quota(1, 100);
    quota.try_take(at(0), Lane::Live).unwrap();
    assert!(quota.try_take(at(0), Lane::Live).is_err());
    assert_eq!(quota.used(at(0)), (1, 1));
    quota.force(at(0));
    assert_eq!(quota.used(at(0)), (2, 2));
}

#[test]
fn teams_of_one_egress_group_share_the_window_and_not_the_day() {
    let window = EgressWindow::default();
    let limits = QuotaLimits { per_window: Some(3), per_day: Some(2), ..QuotaLimits::NONE };
    let (one, two) = (Quota::new(limits, window.clone()), Quota::new(limits, window));
    one.try_take(at(0), Lane::Live).unwrap();
    one.try_take(at(0), Lane::Live).unwrap();
    two.try_take(at(0), Lane::Live).unwrap();
    assert!(two.try_take(at(0), Lane::Live).is_err());
    assert_eq!(two.used(at(0)), (1, 3));
}

#[test]
fn a_clock_that_was_set_back_blocks_for_one_window_at_most() {
    let quota = quota(1, 100);
    quota.try_take(at(50 * DAY_MS), Lane::Live).unwrap();
    let wait = quota.try_take(at(40 * DAY_MS), Lane::Live).unwrap_err();
    assert!(wait <= Duration::from_secs(310), "{wait:?}");
    quota.try_take(at(40 * DAY_MS + 310_000), Lane::Live).unwrap();
}

#[test]
fn bulk_work_leaves_its_share_and_waits_until_less_of_it_is_used() {
    let quota = keeping(10, 100, 0.2);
    for ms in 0..8 {
        quota.try_take(at(ms * 5_000), Lane::Bulk).unwrap();
    }
    // The first of eight must go, at the end of its slot and the window.
    assert_eq!(quota.try_take(at(40_000), Lane::Bulk), Err(Duration::from_secs(270)));
    quota.try_take(at(40_000), Lane::Live).unwrap();
    quota.try_take(at(40_000), Lane::Live).unwrap();
    assert_eq!(quota.try_take(at(40_000), Lane::Live), Err(Duration::from_secs(270)));
    // Three must go before bulk work fits again, and one before live work does.
    assert_eq!(quota.try_take(at(40_000), Lane::Bulk), Err(Duration::from_secs(280)));
    assert!(quota.try_take(at(310_000), Lane::Bulk).is_err());
    quota.try_take(at(310_000), Lane::Live).unwrap();
}

#[test]
fn bulk_work_leaves_its_share_of_the_day_too_and_is_told_to_wait_for_midnight() {
    let quota = keeping(1_000, 5, 0.2);
    for _ in 0..4 {
        quota.try_take(at(DAY_MS - 10), Lane::Bulk).unwrap();
    }
    assert_eq!(quota.try_take(at(DAY_MS - 9), Lane::Bulk), Err(Duration::from_millis(9)));
    quota.try_take(at(DAY_MS - 9), Lane::Live).unwrap();
    assert_eq!(quota.try_take(at(DAY_MS - 9), Lane::Live), Err(Duration::from_millis(9)));
    quota.try_take(at(DAY_MS), Lane::Bulk).unwrap();
}

#[test]
fn a_share_is_rounded_up_and_always_leaves_bulk_work_one_request() {
    let kept = |per_window, share| {
        let limits = QuotaLimits { per_window: Some(per_window), ..QuotaLimits::NONE }.keep_for_live(share, 0.2);
        assert_eq!(limits.live_of_day, 0);
        limits.live_of_window
    };
    assert_eq!([kept(5_000, 0.2), kept(7, 0.2), kept(3, 0.2), kept(1, 0.2)], [1_000, 2, 1, 0]);
    assert_eq!([kept(5_000, 0.0), kept(5_000, 1.0), kept(1, 1.0)], [0, 4_999, 0]);
}

#[test]
fn what_others_of_the_group_use_counts_against_bulk_work() {
    let window = EgressWindow::default();
    let limits = QuotaLimits { per_window: Some(10), per_day: None, ..QuotaLimits::NONE };
    let replaying = Quota::new(limits.keep_for_live(0.5, 0.5), window.clone());
    let live = Quota::new(limits, window);
    for _ in 0..5 {
        live.try_take(at(0), Lane::Live).unwrap();
    }
    assert!(replaying.try_take(at(0), Lane::Bulk).is_err());
    live.try_take(at(0), Lane::Live).unwrap();
}

#[test]
fn a_probe_counts_but_is_never_kept_back_by_what_is_kept_for_live_work() {
    let quota = keeping(2, 2, 0.5);
    quota.try_take(at(0), Lane::Bulk).unwrap();
    quota.force(at(0));
    assert_eq!(quota.left(at(0)), QuotaLeft { of_window: Some((0, 2)), of_day: Some((0, 2)) });
}

proptest! {
    #[test]
    fn no_five_minutes_hold_more_than_the_limit(steps in proptest::collection::vec(0i64..40_000, 1..400)) {
        let quota = quota(5, u64::MAX);
        let mut now = 0;
        let mut taken = Vec::new();
        for step in steps {
            now += step;
            match quota.try_take(at(now), Lane::Live) {
                Ok(()) => taken.push(now),
                Err(wait) => prop_assert!(wait > Duration::ZERO && wait <= Duration::from_secs(310)),
            }
        }
        for pair in taken.windows(6) {
            prop_assert!(pair[5] - pair[0] > 300_000);
        }
    }

    #[test]
    fn bulk_work_keeps_below_its_share_and_live_work_gets_all_that_is_left(
        steps in proptest::collection::vec((0i64..20_000, any::<bool>()), 1..400),
        eighths in 0u32..=8,
    ) {
        const LIMIT: u64 = 8;
        let share = f64::from(eighths) / 8.0;
        let limits = QuotaLimits { per_window: Some(LIMIT), ..QuotaLimits::NONE }.keep_for_live(share, share);
        let quota = Quota::new(limits, EgressWindow::default());
        let for_bulk = (LIMIT - u64::from(eighths)).max(1);
        let mut now = 0;
        let mut taken: Vec<i64> = Vec::new();
        for (step, is_live) in steps {
            now += step;
            let left = quota.left(at(now)).of_window.unwrap().0;
            let lane = if is_live { Lane::Live } else { Lane::Bulk };
            let answer = quota.try_take(at(now), lane);
            // What is right for each lane follows from how much is used, and from nothing else.
            let fits = if is_live { left > 0 } else { LIMIT - left < for_bulk };
            prop_assert_eq!(answer.is_ok(), fits, "{:?}, {} left", lane, left);
            match answer {
                Ok(()) => taken.push(now),
                Err(wait) => {
                    prop_assert!(wait > Duration::ZERO && wait <= Duration::from_secs(310));
                    // Nothing is taken meanwhile: the wait that was told is exact.
                    let after = now + i64::try_from(wait.as_millis()).unwrap();
                    for (at_ms, fits) in [(after - 1, false), (after, true)] {
                        prop_assert_eq!(quota.copied().try_take(at(at_ms), lane).is_ok(), fits);
                    }
                }
            }
        }
        for pair in taken.windows(9) {
            prop_assert!(pair[8] - pair[0] > 300_000);
        }
    }
}
