//! Whether webhooks come in a rush. Then archives are worked on sparingly: what they write shares a disk with the inbox,
//! and a webhook that waits for that disk cannot be put off, while an attachment can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::worker::Signal;

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// So many in that time are a rush: ten times as many in a second as Jelly's quota (5,000 in 5 minutes) lets be fetched,
/// so that nothing is fetched later for it.
const MANY: u64 = 42;

/// Counts webhooks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Rush {
    count: Arc<AtomicU64>,
    sparing: Arc<AtomicBool>,
}

impl Rush {
    /// Counts one.
    pub(super) fn count(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether archives are to be worked on sparingly; it changes.
    pub(super) fn sparing(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.sparing)
    }

    /// Judges what came since the last time.
    fn look(&self) {
        let came = self.count.swap(0, Ordering::Relaxed);
        self.sparing.store(came > MANY, Ordering::Relaxed);
    }

    /// Looks again and again, until `stop`.
    pub(super) async fn watch(self, stop: Signal) {
        while !stop.is_set() {
            self.look();
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.wait() => {}
            }
        }
        // Nothing comes any more.
        self.sparing.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rush_begins_with_many_webhooks_and_ends_when_few_come() {
        let rush = Rush::default();
        let sparing = rush.sparing();
        for (came, expected) in [(MANY, false), (MANY + 1, true), (5000, true), (1, false), (0, false)] {
            (0..came).for_each(|_| rush.count());
            rush.look();
            assert_eq!(sparing.load(Ordering::Relaxed), expected, "{came}");
        }
    }
}
