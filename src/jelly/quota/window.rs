//! What was used, in memory: all of it for callers without a catalog, and of catalogs what was last seen there.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::MutexGuard;

use super::{DAY_MS, WINDOW_MS, locked};
use crate::catalog::{SLOT_COUNTS_MS, SLOT_MS};

/// The window of one egress group, shared by its teams. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct EgressWindow(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    window: Mutex<Window>,
    /// What each catalog counts in the window, by slot, as far as it was seen.
    places: Mutex<BTreeMap<PathBuf, BTreeMap<i64, u64>>>,
    /// Where there are several catalogs, one is asked at a time: each is told what the others count.
    turn: tokio::sync::Mutex<()>,
}

impl EgressWindow {
    pub(super) fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        locked(&self.0.window)
    }

    /// Notes that a catalog counts in this window.
    pub(super) fn join(&self, place: &Path) {
        locked(&self.0.places).entry(place.to_owned()).or_default();
    }

    /// This catalog's turn, where there are several.
    pub(super) async fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        let is_one = locked(&self.0.places).len() <= 1;
        if is_one { None } else { Some(self.0.turn.lock().await) }
    }

    /// What all catalogs but this one count.
    pub(super) fn elsewhere(&self, place: &Path, now_ms: i64) -> u64 {
        let places = locked(&self.0.places);
        places.iter().filter(|(other, _)| *other != place).map(|(_, slots)| counting(slots, now_ms)).sum()
    }

    /// What all catalogs count.
    pub(super) fn used(&self, now_ms: i64) -> u64 {
        locked(&self.0.places).values().map(|slots| counting(slots, now_ms)).sum()
    }

    /// Takes over what a catalog counts in one slot.
    pub(super) fn see_slot(&self, place: &Path, slot_ms: i64, used: u64) {
        let mut places = locked(&self.0.places);
        let slots = places.entry(place.to_owned()).or_default();
        slots.insert(slot_ms, used);
        // Well after it ceased to count, so that a clock that is not quite the catalog's makes no difference.
        slots.retain(|slot, _| *slot > slot_ms - 2 * SLOT_COUNTS_MS);
    }

    /// Takes over what a catalog counts in all slots. Of those that still grow the larger count holds: what was seen may
    /// be older than what is known.
    pub(super) fn see(&self, place: &Path, mut seen: BTreeMap<i64, u64>, now_ms: i64) {
        let mut places = locked(&self.0.places);
        let slots = places.entry(place.to_owned()).or_default();
        for (slot, used) in slots.range(now_ms - 2 * SLOT_MS..) {
            let count = seen.entry(*slot).or_default();
            *count = (*count).max(*used);
        }
        *slots = seen;
    }
}

/// What still counts of these slots.
fn counting(slots: &BTreeMap<i64, u64>, now_ms: i64) -> u64 {
    slots.range(now_ms - SLOT_COUNTS_MS + 1..).map(|(_, used)| *used).sum()
}

/// The window of callers that have no catalog.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    pub(super) slots: VecDeque<(i64, u64)>,
    pub(super) used: u64,
}

impl Window {
    /// Forgets what no longer counts. Slots of a future (the clock was set back) count as taken now.
    pub(super) fn settle(&mut self, now_ms: i64) {
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

    /// Counts requests in a slot.
    pub(super) fn add(&mut self, slot: i64, requests: u64) {
        self.used = self.used.saturating_add(requests);
        match self.slots.back_mut() {
            Some((start, used)) if *start == slot => *used = used.saturating_add(requests),
            _ => self.slots.push_back((slot, requests)),
        }
    }

    /// How long until one more request fits.
    pub(super) fn wait_ms(&self, limit: u64, now_ms: i64) -> i64 {
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

/// The day of a team whose caller has no catalog.
#[derive(Debug, Clone, Default)]
pub(super) struct Day {
    pub(super) number: i64,
    pub(super) used: u64,
}

impl Day {
    /// Begins a new day where it has come.
    pub(super) fn settle(&mut self, now_ms: i64) {
        // A clock that was set back does not give a used day again.
        let today = now_ms.div_euclid(DAY_MS);
        if today > self.number || today < self.number - 1 {
            *self = Self { number: today, used: 0 };
        }
    }
}
