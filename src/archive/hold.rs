//! Who may not send requests now, and until when: pauses of teams and egress groups.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::info;

use crate::catalog::Pause;

/// The pauses in force in this process. What the service asked for is kept in the catalog as well; a used-up quota is
/// not, since the quota's own windows are.
#[derive(Debug, Default)]
pub struct Holds {
    holds: Mutex<HashMap<String, Hold>>,
    /// When it was last told that attachments wait for this machine, in milliseconds since the Unix epoch.
    told_at_ms: Mutex<Option<i64>>,
}

/// What each attachment meets while this machine is in short trouble is told this often.
const TELL_EVERY_MS: i64 = 60_000;

#[derive(Debug)]
struct Hold {
    pause: Pause,
    /// Whether it was seen in the catalog, so that it ends when it is no longer there.
    is_kept: bool,
}

impl Holds {
    /// Begins a pause, or moves its end later.
    pub fn hold(&self, pause: Pause) {
        let mut holds = self.holds();
        match holds.get(&pause.scope) {
            Some(known) if known.pause.until_ms >= pause.until_ms => {}
            _ => {
                holds.insert(pause.scope.clone(), Hold { pause, is_kept: false });
            }
        }
    }

    /// Begins a pause that Jelly asked for, or moves its end later. The first of a scope is logged: what many requests are
    /// told at once is one pause.
    pub fn pause(&self, pause: &Pause, now_ms: i64) {
        if self.begin(pause, now_ms) {
            let until = jiff::Timestamp::from_millisecond(pause.until_ms).unwrap_or(jiff::Timestamp::MAX);
            info!(scope = %pause.scope, until = %format_args!("{until:.0}"), reason = %pause.reason, "requests pause");
        }
    }

    /// Whether none of its scope was in force.
    fn begin(&self, pause: &Pause, now_ms: i64) -> bool {
        let mut holds = self.holds();
        let known = holds.get(&pause.scope).map(|hold| hold.pause.until_ms);
        if known.is_none_or(|until_ms| until_ms < pause.until_ms) {
            holds.insert(pause.scope.clone(), Hold { pause: pause.clone(), is_kept: false });
        }
        known.is_none_or(|until_ms| until_ms <= now_ms)
    }

    /// Lets a pause that is in force last at least so long from now on.
    pub fn lengthen(&self, scope: &str, now_ms: i64, time: Duration) {
        if let Some(hold) = self.holds().get_mut(scope).filter(|hold| hold.pause.until_ms > now_ms) {
            let until_ms = now_ms.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
            hold.pause.until_ms = hold.pause.until_ms.max(until_ms);
        }
    }

    /// Ends a pause at once.
    pub fn end(&self, scope: &str) {
        self.holds().remove(scope);
    }

    /// Notes that pauses were written to the catalog: they end when they are no longer there.
    pub fn are_kept(&self, pauses: &[Pause]) {
        let mut holds = self.holds();
        for pause in pauses {
            if let Some(hold) = holds.get_mut(&pause.scope).filter(|hold| hold.pause.until_ms <= pause.until_ms) {
                hold.is_kept = true;
            }
        }
    }

    /// Takes over the pauses that are kept in the catalog: those that people begin and end there, too.
    pub fn sync(&self, kept: Vec<Pause>) {
        let mut holds = self.holds();
        holds.retain(|scope, hold| !hold.is_kept || kept.iter().any(|pause| pause.scope == *scope));
        for pause in kept {
            match holds.get_mut(&pause.scope) {
                // Its own end is later, and on its way to the catalog.
                Some(known) if !known.is_kept && known.pause.until_ms > pause.until_ms => {}
                _ => {
                    holds.insert(pause.scope.clone(), Hold { pause, is_kept: true });
                }
            }
        }
    }

    fn holds(&self) -> MutexGuard<'_, HashMap<String, Hold>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is to be told now that an attachment waits for this machine: many meet the same at once.
    pub fn is_to_be_told(&self, now_ms: i64) -> bool {
        let mut told_at_ms = self.told_at_ms.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told_at_ms.is_none_or(|at| !(0..TELL_EVERY_MS).contains(&(now_ms - at)));
        if is_due {
            *told_at_ms = Some(now_ms);
        }
        is_due
    }

    /// The pause that keeps any of `scopes` from sending at `now_ms`, the longest.
    pub fn held(&self, scopes: &[&str], now_ms: i64) -> Option<Pause> {
        let holds = self.holds();
        scopes
            .iter()
            .filter_map(|scope| holds.get(*scope).map(|hold| &hold.pause))
            .filter(|pause| pause.until_ms > now_ms)
            .max_by_key(|pause| pause.until_ms)
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_that_is_ended_in_the_catalog_ends_here_and_one_that_is_not_kept_stays() {
        let holds = Holds::default();
        let pause = |scope: &str, until_ms| Pause { scope: scope.into(), until_ms, reason: String::new() };
        holds.hold(pause("team:2", 100));
        holds.sync(vec![pause("team:1", 100)]);
        assert_eq!(holds.held(&["team:1"], 60).map(|pause| pause.until_ms), Some(100));
        holds.sync(vec![]);
        assert_eq!(holds.held(&["team:1"], 60), None);
        assert_eq!(holds.held(&["team:2"], 60).map(|pause| pause.until_ms), Some(100));
    }

    #[test]
    fn a_pause_that_was_written_ends_with_the_catalogs_though_it_was_never_read_there() {
        let holds = Holds::default();
        let pause = |until_ms| Pause { scope: "team:1".into(), until_ms, reason: String::new() };
        holds.hold(pause(i64::MAX));
        holds.are_kept(&[pause(i64::MAX)]);
        holds.sync(vec![]);
        assert_eq!(holds.held(&["team:1"], 60), None);
        // One that ends later than what was written is on its way to the catalog.
        holds.hold(pause(200));
        holds.are_kept(&[pause(100)]);
        holds.sync(vec![]);
        assert_eq!(holds.held(&["team:1"], 60).map(|pause| pause.until_ms), Some(200));
    }

    #[test]
    fn of_pauses_that_are_asked_for_at_once_one_is_told() {
        let holds = Holds::default();
        let begins = |until_ms, now_ms| {
            holds.begin(&Pause { scope: "egress:default".into(), until_ms, reason: String::new() }, now_ms)
        };
        assert_eq!([begins(100, 0), begins(120, 1), begins(90, 2), begins(200, 120)], [true, false, false, true]);
        assert_eq!(holds.held(&["egress:default"], 150).map(|pause| pause.until_ms), Some(200));
    }

    #[test]
    fn what_many_attachments_meet_at_once_is_told_once_a_minute() {
        let holds = Holds::default();
        let told = [0, 1, 30_000, 59_999, 60_000, 60_001, 0].map(|now_ms| holds.is_to_be_told(now_ms));
        // The last is after the clock was set back.
        assert_eq!(told, [true, false, false, false, true, false, true]);
    }

    #[test]
    fn a_shorter_pause_does_not_cut_a_longer_one() {
        let holds = Holds::default();
        let pause = |until_ms| Pause { scope: "team:1".into(), until_ms, reason: String::new() };
        holds.hold(pause(100));
        holds.hold(pause(50));
        assert_eq!(holds.held(&["team:1", "egress:default"], 60).map(|pause| pause.until_ms), Some(100));
        assert_eq!(holds.held(&["team:1"], 100), None);
    }

    #[test]
    fn a_pause_in_force_is_lengthened_never_cut_and_ended_at_once() {
        let holds = Holds::default();
        let until = |now_ms| holds.held(&["local"], now_ms).map(|pause| pause.until_ms);
        holds.hold(Pause { scope: "local".into(), until_ms: 1000, reason: String::new() });
        holds.lengthen("local", 0, Duration::from_millis(500));
        assert_eq!(until(0), Some(1000));
        holds.lengthen("local", 900, Duration::from_millis(500));
        assert_eq!(until(900), Some(1400));
        holds.lengthen("local", 1400, Duration::from_millis(500));
        assert_eq!(until(1400), None);
        holds.end("local");
        assert_eq!(until(0), None);
    }
}
