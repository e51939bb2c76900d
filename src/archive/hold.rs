//! Who may not send requests now, and until when: pauses of teams and egress groups.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::catalog::Pause;

/// The pauses in force in this process. What the service asked for is kept in the catalog as well; a used-up quota is
/// not, since the quota's own windows are.
#[derive(Debug, Default)]
pub struct Holds(Mutex<HashMap<String, Pause>>);

impl Holds {
    /// Begins a pause, or moves its end later.
    pub fn hold(&self, pause: Pause) {
        let mut holds = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match holds.get(&pause.scope) {
            Some(known) if known.until_ms >= pause.until_ms => {}
            _ => {
                holds.insert(pause.scope.clone(), pause);
            }
        }
    }

    /// The pause that keeps any of `scopes` from sending at `now_ms`, the longest.
    pub fn held(&self, scopes: &[&str], now_ms: i64) -> Option<Pause> {
        let holds = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        scopes
            .iter()
            .filter_map(|scope| holds.get(*scope))
            .filter(|pause| pause.until_ms > now_ms)
            .max_by_key(|pause| pause.until_ms)
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_pause_does_not_cut_a_longer_one() {
        let holds = Holds::default();
        let pause = |until_ms| Pause { scope: "team:1".into(), until_ms, reason: String::new() };
        holds.hold(pause(100));
        holds.hold(pause(50));
        assert_eq!(holds.held(&["team:1", "egress:default"], 60).map(|pause| pause.until_ms), Some(100));
        assert_eq!(holds.held(&["team:1"], 100), None);
    }
}
