//! Signs of life: whether the loops that the service consists of still turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The signs of life of all parts. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<Mutex<BTreeMap<String, Part>>>);

#[derive(Debug)]
struct Part {
    last: Instant,
    allowed: Duration,
}

/// One part's own. A part that ends (drops it) is expected to.
#[derive(Debug)]
pub struct Beat {
    pulse: Pulse,
    name: String,
}

impl Pulse {
    /// Expects signs of life of a part from now on, at most this far apart. A name that is there already is replaced.
    #[must_use = "the part counts as ended when this is dropped"]
    pub fn expect(&self, name: impl Into<String>, allowed: Duration) -> Beat {
        let name = name.into();
        self.parts().insert(name.clone(), Part { last: Instant::now(), allowed });
        Beat { pulse: self.clone(), name }
    }

    /// Whether every part shows signs of life.
    pub fn is_alive(&self) -> bool {
        self.late().is_empty()
    }

    /// The parts that show none, each with a sentence on it.
    pub fn late(&self) -> Vec<(String, String)> {
        self.late_at(Instant::now())
    }

    fn late_at(&self, now: Instant) -> Vec<(String, String)> {
        let silent = |part: &Part| now.saturating_duration_since(part.last);
        self.parts()
            .iter()
            .filter(|(_, part)| silent(part) > part.allowed)
            .map(|(name, part)| (name.clone(), format!("The last was {} seconds ago.", silent(part).as_secs())))
            .collect()
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<String, Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Beat {
    /// Shows a sign of life.
    pub fn beat(&self) {
        if let Some(part) = self.pulse.parts().get_mut(&self.name) {
            part.last = Instant::now();
        }
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.pulse.parts().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_without_signs_of_life_is_named_until_it_shows_one_or_ends() {
        let pulse = Pulse::default();
        let worker = pulse.expect("worker", Duration::from_mins(1));
        let inbox = pulse.expect("inbox", Duration::from_mins(10));
        let names = |seconds: u64| -> Vec<String> {
            let late = pulse.late_at(Instant::now() + Duration::from_secs(seconds));
            late.into_iter().map(|(name, _)| name).collect()
        };
        assert!(pulse.is_alive());
        assert_eq!(names(59), [""; 0]);
        assert_eq!(names(62), ["worker"]);
        assert_eq!(names(602), ["inbox", "worker"]);
        worker.beat();
        assert_eq!(names(59), [""; 0]);
        drop((worker, inbox));
        assert_eq!(names(1_000_000), [""; 0]);
    }
}
