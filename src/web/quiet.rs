//! Says when a message that strangers can cause is worth a line in the log: the first time, and then once a minute.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a message of one kind is held back after it was told.
const PAUSE: Duration = Duration::from_mins(1);

/// Remembers what was told of each kind. The kinds must be few.
#[derive(Debug)]
pub(super) struct Quiet<K>(Mutex<HashMap<K, Told>>);

#[derive(Debug)]
struct Told {
    at: Instant,
    held_back: u64,
}

impl<K: Eq + Hash> Quiet<K> {
    /// Nothing was told yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Whether to tell now, and then how many were held back before; `None` holds this one back.
    pub(super) fn ask(&self, kind: K, now: Instant) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match told.get_mut(&kind) {
            Some(last) if now.saturating_duration_since(last.at) < PAUSE => {
                last.held_back += 1;
                None
            }
            Some(last) => {
                last.at = now;
                Some(std::mem::take(&mut last.held_back))
            }
            None => {
                told.insert(kind, Told { at: now, held_back: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_told_once_a_minute_with_what_was_held_back() {
        let (quiet, start) = (Quiet::new(), Instant::now());
        assert_eq!(quiet.ask("a", start), Some(0));
        assert_eq!(quiet.ask("a", start + Duration::from_secs(1)), None);
        assert_eq!(quiet.ask("b", start + Duration::from_secs(1)), Some(0));
        assert_eq!(quiet.ask("a", start + Duration::from_secs(59)), None);
        assert_eq!(quiet.ask("a", start + PAUSE), Some(2));
        assert_eq!(quiet.ask("a", start + PAUSE * 2), Some(0));
    }
}
