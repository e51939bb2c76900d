//! The cells: numbers that many tasks change and one reads, without a lock.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::Labels;

/// A number that only grows, from zero on.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Its value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that is read off somewhere from time to time. Until the first reading it is unset, and not shown: no value
/// is better than a false zero.
#[derive(Debug)]
pub struct Gauge(AtomicU64);

/// The value of an unset gauge; as a count of anything it is out of reach.
const UNSET: u64 = u64::MAX;

impl Default for Gauge {
    fn default() -> Self {
        Self(AtomicU64::new(UNSET))
    }
}

impl Gauge {
    /// Sets it; `None` unsets it.
    pub fn set(&self, value: impl Into<Option<u64>>) {
        self.0.store(value.into().map_or(UNSET, |value| value.min(UNSET - 1)), Ordering::Relaxed);
    }

    /// Its value, if it is set.
    pub fn value(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|value| *value != UNSET)
    }
}

/// A point in time, or none. What is shown of it (an age, a time) is computed when it is read, so that it stays true
/// when whoever sets it is stuck.
#[derive(Debug)]
pub struct Moment(AtomicI64);

const NEVER: i64 = i64::MIN;

impl Default for Moment {
    fn default() -> Self {
        Self(AtomicI64::new(NEVER))
    }
}

impl Moment {
    /// Sets it; `None` says that there is none.
    pub fn set(&self, at: impl Into<Option<Timestamp>>) {
        self.0.store(at.into().map_or(NEVER, Timestamp::as_millisecond), Ordering::Relaxed);
    }

    /// The time, in milliseconds since the Unix epoch.
    pub fn value_ms(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|ms| *ms != NEVER)
    }
}

/// The upper bounds of the buckets for what a machine does, in milliseconds.
const WORK_MS: [u64; 15] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000];
/// The upper bounds of the buckets for what may wait in queues and pauses, in milliseconds.
const DELAYS_MS: [u64; 14] =
    [50, 100, 250, 500, 1_000, 2_000, 5_000, 15_000, 60_000, 300_000, 1_800_000, 7_200_000, 21_600_000, 86_400_000];

/// How often something took how long.
#[derive(Debug)]
pub struct Histogram {
    bounds_ms: &'static [u64],
    /// One for each bound, and one for what is above all of them.
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

/// What a histogram held at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Distribution {
    /// Upper bound in milliseconds, and how many were at most that long.
    pub(super) at_most: Vec<(u64, u64)>,
    pub(super) count: u64,
    pub(super) sum_us: u64,
}

impl Default for Histogram {
    /// For what a machine does: from 1 ms to 1 min.
    fn default() -> Self {
        Self::with_bounds(&WORK_MS)
    }
}

impl Histogram {
    /// For what may wait in queues and pauses: from 50 ms to a day.
    pub fn of_delays() -> Self {
        Self::with_bounds(&DELAYS_MS)
    }

    fn with_bounds(bounds_ms: &'static [u64]) -> Self {
        let counts = (0..=bounds_ms.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds_ms, counts, sum_us: AtomicU64::new(0) }
    }

    /// Counts one that took this long.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds_ms.partition_point(|bound| bound.saturating_mul(1000) < us);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Distribution {
        let mut count = 0;
        let mut at_most = Vec::with_capacity(self.bounds_ms.len());
        for (bound, bucket) in self.bounds_ms.iter().zip(&self.counts) {
            count += bucket.load(Ordering::Relaxed);
            at_most.push((*bound, count));
        }
        count += self.counts[self.bounds_ms.len()].load(Ordering::Relaxed);
        Distribution { at_most, count, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

/// One cell for each of a closed set of labels.
#[derive(Debug)]
pub struct Counts<L: Labels, C = Counter> {
    cells: Box<[C]>,
    labels: std::marker::PhantomData<L>,
}

impl<L: Labels, C: Default> Default for Counts<L, C> {
    fn default() -> Self {
        Self { cells: L::ALL.iter().map(|_| C::default()).collect(), labels: std::marker::PhantomData }
    }
}

impl<L: Labels, C> Counts<L, C> {
    /// The cell of a label.
    pub fn of(&self, label: L) -> &C {
        &self.cells[label.index()]
    }

    /// Every label with its cell.
    pub(super) fn iter(&self) -> impl Iterator<Item = (L, &C)> {
        L::ALL.iter().copied().zip(&self.cells)
    }
}

impl<L: Labels> Counts<L> {
    /// Counts one.
    pub fn count(&self, label: L) {
        self.of(label).add(1);
    }

    /// Counts several.
    pub fn add(&self, label: L, amount: u64) {
        self.of(label).add(amount);
    }
}

/// The most readings of one kind that are kept.
const MAX_READINGS: usize = 1024;

/// Readings by name, all replaced at once: the names are known only to who takes them.
#[derive(Debug, Default)]
pub struct Readings(Mutex<BTreeMap<String, u64>>);

impl Readings {
    /// Replaces all readings; those beyond the first 1,024 are left out.
    pub fn replace(&self, readings: impl IntoIterator<Item = (String, u64)>) {
        let readings = readings.into_iter().take(MAX_READINGS).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = readings;
    }

    /// The readings, by name.
    pub fn values(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
