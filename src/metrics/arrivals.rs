//! When webhooks came whose attachments have no outcome yet, for the one histogram that spans a whole way.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most attachments that are remembered, some 3 MiB. What comes while so many wait is not measured: those that wait
/// longest are.
const MOST: usize = 65_536;
/// What has waited longer than the histogram's last bucket makes room, if room is short.
const LONGEST_MS: i64 = 86_400_000;
/// How often room is made at most.
const MAKE_ROOM_EVERY_MS: i64 = 60_000;

/// The key of an attachment.
type Key = [u8; 16];

/// When attachments came, by their keys. Bounded; a restart forgets all.
#[derive(Debug, Default)]
pub struct Arrivals(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    at_ms: HashMap<Key, i64>,
    made_room_ms: i64,
}

impl Arrivals {
    /// An attachment came at this time. The first time counts.
    pub fn note(&self, key: Key, at_ms: i64) {
        let mut known = self.known();
        if known.at_ms.len() >= MOST {
            if at_ms.saturating_sub(known.made_room_ms) < MAKE_ROOM_EVERY_MS {
                return;
            }
            known.made_room_ms = at_ms;
            known.at_ms.retain(|_, known| at_ms.saturating_sub(*known) < LONGEST_MS);
            if known.at_ms.len() >= MOST {
                return;
            }
        }
        known.at_ms.entry(key).or_insert(at_ms);
    }

    /// When an attachment came, if that is known; it is forgotten then.
    pub fn take(&self, key: &Key) -> Option<i64> {
        self.known().at_ms.remove(key)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_arrival_counts_and_the_number_is_bounded() {
        let arrivals = Arrivals::default();
        let key = |number: u32| -> Key {
            let mut key = [0; 16];
            key[..4].copy_from_slice(&number.to_be_bytes());
            key
        };
        arrivals.note(key(1), 5);
        arrivals.note(key(1), 9);
        assert_eq!((arrivals.take(&key(1)), arrivals.take(&key(1))), (Some(5), None));
        let most = u32::try_from(MOST).unwrap();
        (0..most).for_each(|number| arrivals.note(key(number), 10));
        arrivals.note(key(most), 100_000);
        assert_eq!(arrivals.take(&key(most)), None, "those that have waited longest stay");
        arrivals.note(key(most), 10 + LONGEST_MS);
        assert_eq!((arrivals.take(&key(most)), arrivals.take(&key(0))), (Some(10 + LONGEST_MS), None));
    }
}
