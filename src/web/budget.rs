//! The memory that bodies may take, and who waits when it is short.
//!
//! The first 16 KiB of any body are free: there are no more of them than connections, and most webhooks need no more. A
//! body that goes on takes room for what has come and as much again, never for what it only declares: a small one from a
//! common share, a large one by waiting for the one place that large ones have. A small body that finds no room waits for
//! some, or for the one place in which it can end whatever the others hold; who has a place never waits. So not all can
//! wait for each other. While anybody waits, those who hold room and do not use it lose it ([`Budget::is_pressed`]).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::{SMALL_BODY_BYTES, ServeConfig};

/// What each body may take without asking, in bytes.
pub(super) const FREE_BYTES: u64 = 16 << 10;

/// What one permit of the common share stands for, in bytes.
const UNIT_BYTES: u64 = 1 << 10;

/// The memory of all bodies.
#[derive(Debug)]
pub(super) struct Budget {
    shared: Arc<Semaphore>,
    small_place: Arc<Semaphore>,
    large_place: Arc<Semaphore>,
    shared_units: usize,
    max_body_bytes: u64,
    /// How many wait.
    waiting: watch::Sender<usize>,
}

/// What one body has taken. Dropping it gives it back.
#[derive(Debug, Default)]
pub(super) struct Share {
    shared: Option<OwnedSemaphorePermit>,
    place: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Whether others could use what it has.
    pub(super) fn is_held(&self) -> bool {
        self.shared.is_some() || self.place.is_some()
    }

    fn shared_bytes(&self) -> u64 {
        self.shared.as_ref().map_or(0, |permit| permit.num_permits() as u64 * UNIT_BYTES)
    }

    /// Takes a place, which stands for all that the body may need.
    fn settle(&mut self, place: Option<OwnedSemaphorePermit>) {
        *self = Self { shared: None, place };
    }
}

/// Counts as waiting until it is dropped.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl Budget {
    /// Divides `max_in_flight` into one large body, one small body, and what all others share.
    pub(super) fn new(config: &ServeConfig) -> Self {
        let others = config.max_body_bytes.saturating_add(SMALL_BODY_BYTES);
        let shared = config.max_in_flight_bytes.saturating_sub(others);
        let units = usize::try_from(shared / UNIT_BYTES).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Semaphore::new(units)),
            small_place: Arc::new(Semaphore::new(1)),
            large_place: Arc::new(Semaphore::new(1)),
            shared_units: units,
            max_body_bytes: config.max_body_bytes,
            waiting: watch::Sender::new(0),
        }
    }

    /// Waits for room for `needed` bytes of a body whose size was declared or not, and returns the room there is then.
    ///
    /// Cancellation: nothing more is taken.
    pub(super) async fn grow(&self, share: &mut Share, needed: u64, declared: Option<u64>) -> u64 {
        let small = SMALL_BODY_BYTES.min(self.max_body_bytes);
        if declared.unwrap_or(0).max(needed) > small {
            let place = Arc::clone(&self.large_place);
            let place = match place.try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => {
                    let _waiting = self.wait();
                    Arc::clone(&self.large_place).acquire_owned().await.ok()
                }
            };
            share.settle(place);
            return self.max_body_bytes;
        }
        let room = needed.next_power_of_two().min(declared.unwrap_or(small)).max(needed);
        let more = room.saturating_sub(share.shared_bytes()).div_ceil(UNIT_BYTES);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let taken = match Arc::clone(&self.shared).try_acquire_many_owned(more) {
            Ok(taken) => Some(taken),
            Err(_) => {
                let _waiting = self.wait();
                tokio::select! {
                    taken = Arc::clone(&self.shared).acquire_many_owned(more) => taken.ok(),
                    place = Arc::clone(&self.small_place).acquire_owned() => {
                        share.settle(place.ok());
                        return small;
                    }
                }
            }
        };
        match (&mut share.shared, taken) {
            (Some(shared), Some(taken)) => shared.merge(taken),
            (shared, taken) => *shared = taken,
        }
        room
    }

    /// The room that is taken, in bytes. A place counts as a whole.
    pub(super) fn taken_bytes(&self) -> u64 {
        let shared = (self.shared_units - self.shared.available_permits().min(self.shared_units)) as u64 * UNIT_BYTES;
        let place = |place: &Semaphore, bytes| if place.available_permits() == 0 { bytes } else { 0 };
        shared + place(&self.small_place, SMALL_BODY_BYTES) + place(&self.large_place, self.max_body_bytes)
    }

    /// Whether somebody waits.
    pub(super) fn is_pressed(&self) -> bool {
        *self.waiting.borrow() > 0
    }

    /// Waits until somebody waits.
    pub(super) async fn pressed(&self) {
        // It ends early only with the budget itself.
        _ = self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await;
    }

    fn wait(&self) -> Waiting<'_> {
        self.waiting.send_modify(|waiting| *waiting += 1);
        Waiting(&self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    /// Seven MiB to share.
    fn budget() -> Budget {
        let config = ServeConfig { max_body_bytes: 64 * MIB, max_in_flight_bytes: 72 * MIB, ..ServeConfig::default() };
        Budget::new(&config)
    }

    /// What a body gets at once, if it does.
    fn take(budget: &Budget, share: &mut Share, needed: u64, declared: Option<u64>) -> Option<u64> {
        budget.grow(share, needed, declared).now_or_never()
    }

    /// Bodies that hold all that is shared, and the place for small ones.
    fn fill(budget: &Budget) -> Vec<Share> {
        let mut shares: Vec<Share> = (0..8).map(|_| Share::default()).collect();
        for share in &mut shares {
            assert_eq!(take(budget, share, MIB, Some(MIB)), Some(MIB));
        }
        shares
    }

    #[test]
    fn a_body_takes_room_as_it_comes_not_as_it_declares() {
        let (budget, mut share) = (budget(), Share::default());
        for (needed, room) in [(FREE_BYTES + 1, 32 * KIB), (40 * KIB, 64 * KIB), (65 * KIB, 100_000)] {
            assert_eq!(take(&budget, &mut share, needed, Some(100_000)), Some(room));
        }
        assert_eq!(budget.taken_bytes(), 98 * KIB);
        drop(share);
        assert_eq!(budget.taken_bytes(), 0);
    }

    #[test]
    fn small_bodies_share_and_wait_until_one_ends_and_that_presses_the_others() {
        let budget = budget();
        let mut shares = fill(&budget);
        let mut late = Share::default();
        let mut waits = Box::pin(budget.grow(&mut late, FREE_BYTES + 1, Some(100_000)));
        assert!(!budget.is_pressed());
        assert_eq!((&mut waits).now_or_never(), None);
        assert!(budget.is_pressed() && budget.pressed().now_or_never().is_some());
        shares.remove(0);
        assert_eq!(waits.now_or_never(), Some(32 * KIB));
        assert!(!budget.is_pressed());
    }

    #[test]
    fn bodies_that_all_hold_and_all_want_more_end_one_after_the_other() {
        let budget = budget();
        let mut shares: Vec<Share> = (0..14).map(|_| Share::default()).collect();
        for share in &mut shares {
            assert_eq!(take(&budget, share, MIB / 2, Some(MIB)), Some(MIB / 2));
        }
        while let Some(mut share) = shares.pop() {
            assert_eq!(take(&budget, &mut share, MIB / 2 + 1, Some(MIB)), Some(MIB));
        }
    }

    #[test]
    fn one_large_body_gets_in_whatever_small_ones_hold_and_the_next_waits() {
        let budget = budget();
        let _small = fill(&budget);
        let (mut first, mut second) = (Share::default(), Share::default());
        assert_eq!(take(&budget, &mut first, FREE_BYTES + 1, Some(64 * MIB)), Some(64 * MIB));
        assert_eq!(take(&budget, &mut second, FREE_BYTES + 1, Some(2 * MIB)), None);
        drop(first);
        assert_eq!(take(&budget, &mut second, FREE_BYTES + 1, Some(2 * MIB)), Some(64 * MIB));
    }

    #[test]
    fn a_body_that_outgrows_small_ones_gives_its_share_back() {
        let (budget, mut growing) = (budget(), Share::default());
        assert_eq!(take(&budget, &mut growing, MIB, None), Some(MIB));
        assert_eq!(budget.taken_bytes(), MIB);
        assert_eq!(take(&budget, &mut growing, MIB + 1, None), Some(64 * MIB));
        assert_eq!(budget.taken_bytes(), 64 * MIB);
    }
}
