//! The memory that bodies may take, and who waits when it is short.
//!
//! The first 16 KiB of any body are free: there are no more of them than connections, and most webhooks need no more. A
//! small body that goes on takes its whole size from a common share, a large one waits for the one place that large ones
//! have. Nobody waits with something in hand that another in the same queue waits for, so nobody waits for ever.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{SMALL_BODY_BYTES, ServeConfig};

/// What each body may take without asking, in bytes.
pub(super) const FREE_BYTES: u64 = 16 << 10;

/// What one permit of the common share stands for, in bytes.
const UNIT_BYTES: u64 = 1 << 10;

/// The memory of all bodies.
#[derive(Debug)]
pub(super) struct Budget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    max_body_bytes: u64,
}

/// What one body has taken. Dropping it gives it back.
#[derive(Debug, Default)]
pub(super) struct Share {
    small: Option<OwnedSemaphorePermit>,
    large: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// Divides `max_in_flight` into one large body and what small ones share.
    pub(super) fn new(config: &ServeConfig) -> Self {
        let shared = config.max_in_flight_bytes.saturating_sub(config.max_body_bytes).max(SMALL_BODY_BYTES);
        let units = usize::try_from(shared / UNIT_BYTES).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            small: Arc::new(Semaphore::new(units)),
            large: Arc::new(Semaphore::new(1)),
            max_body_bytes: config.max_body_bytes,
        }
    }

    /// Waits for room for `needed` bytes of a body whose size was declared or not, and returns the room there is then.
    ///
    /// Cancellation: nothing is taken.
    pub(super) async fn grow(&self, share: &mut Share, needed: u64, declared: Option<u64>) -> u64 {
        let size = declared.unwrap_or(0).max(needed);
        if size <= SMALL_BODY_BYTES && share.small.is_none() {
            // Without a declared size the body may become as large as small ones get.
            let room = declared.map_or(SMALL_BODY_BYTES, |declared| declared.max(needed));
            let units = u32::try_from(room.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
            share.small = Arc::clone(&self.small).acquire_many_owned(units).await.ok();
            return room;
        }
        if share.large.is_none() {
            share.large = Arc::clone(&self.large).acquire_owned().await.ok();
            share.small = None;
        }
        self.max_body_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const MIB: u64 = 1 << 20;

    fn budget() -> Budget {
        let config = ServeConfig { max_body_bytes: 64 * MIB, max_in_flight_bytes: 72 * MIB, ..ServeConfig::default() };
        Budget::new(&config)
    }

    /// What a body gets at once, if it does.
    fn take(budget: &Budget, share: &mut Share, needed: u64, declared: Option<u64>) -> Option<u64> {
        budget.grow(share, needed, declared).now_or_never()
    }

    #[test]
    fn small_bodies_share_and_wait_until_one_ends() {
        let budget = budget();
        let mut shares: Vec<Share> = (0..8).map(|_| Share::default()).collect();
        for share in &mut shares {
            assert_eq!(take(&budget, share, FREE_BYTES + 1, Some(MIB)), Some(MIB));
        }
        let mut late = Share::default();
        assert_eq!(take(&budget, &mut late, FREE_BYTES + 1, Some(100_000)), None);
        shares.pop();
        assert_eq!(take(&budget, &mut late, FREE_BYTES + 1, Some(100_000)), Some(100_000));
    }

    #[test]
    fn one_large_body_gets_in_whatever_small_ones_hold_and_the_next_waits() {
        let budget = budget();
        let mut small: Vec<Share> = (0..8).map(|_| Share::default()).collect();
        for share in &mut small {
            assert!(take(&budget, share, FREE_BYTES + 1, None).is_some());
        }
        let (mut first, mut second) = (Share::default(), Share::default());
        assert_eq!(take(&budget, &mut first, FREE_BYTES + 1, Some(64 * MIB)), Some(64 * MIB));
        assert_eq!(take(&budget, &mut second, FREE_BYTES + 1, Some(2 * MIB)), None);
        drop(first);
        assert_eq!(take(&budget, &mut second, FREE_BYTES + 1, Some(2 * MIB)), Some(64 * MIB));
    }

    #[test]
    fn a_body_that_outgrows_small_ones_gives_its_share_back() {
        let budget = budget();
        let mut growing = Share::default();
        assert_eq!(take(&budget, &mut growing, FREE_BYTES + 1, None), Some(MIB));
        assert_eq!(take(&budget, &mut growing, MIB + 1, None), Some(64 * MIB));
        assert_eq!(budget.small.available_permits(), 8 * 1024);
    }
}
