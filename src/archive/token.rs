//! What a process knows of its own token of a team, where others work for the same team with tokens of theirs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// While the team is paused for a refused token, a process tries its own this often at most.
const TRY_EVERY_MS: i64 = 10_000;

/// Whether this process's own token was refused. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct OwnToken(Arc<Mutex<Facts>>);

#[derive(Debug, Default)]
struct Facts {
    is_refused: bool,
    /// Whether it was tried since the team's pause was ended.
    is_tried: bool,
    /// When it was last tried under the team's pause, in milliseconds since the Unix epoch.
    tried_at_ms: Option<i64>,
}

impl OwnToken {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was refused when it was last used.
    pub fn is_refused(&self) -> bool {
        self.facts().is_refused
    }

    /// Notes that it was refused. Gives whether that is new: who knows it already pauses nobody again.
    pub fn refuse(&self) -> bool {
        let mut facts = self.facts();
        facts.is_tried = false;
        !std::mem::replace(&mut facts.is_refused, true)
    }

    /// Notes that a try of it was refused; `is_after_pause` if no pause of the team's held it then.
    pub fn refuse_tried(&self, is_after_pause: bool) {
        let mut facts = self.facts();
        (facts.is_refused, facts.is_tried) = (true, is_after_pause);
    }

    /// Notes that it was accepted.
    pub fn accept(&self) {
        self.facts().is_refused = false;
    }

    /// Whether to try it now, for one request: one that is good ends the team's pause; one that was refused is tried once
    /// after others, or a person, have ended that.
    pub fn is_to_be_tried(&self, team_is_paused: bool, now_ms: i64) -> bool {
        let mut facts = self.facts();
        if facts.is_refused {
            return !std::mem::replace(&mut facts.is_tried, !team_is_paused) && !team_is_paused;
        }
        let is_due = facts.tried_at_ms.is_none_or(|at| !(0..TRY_EVERY_MS).contains(&(now_ms - at)));
        if team_is_paused && is_due {
            facts.tried_at_ms = Some(now_ms);
        }
        team_is_paused && is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_token_is_tried_under_a_pause_and_not_without_end() {
        let own = OwnToken::default();
        let tries = [(false, 0), (true, 1), (true, 2), (false, 3), (true, 10_000), (true, 10_001)];
        let tried = tries.map(|(is_paused, now_ms)| own.is_to_be_tried(is_paused, now_ms));
        assert_eq!(tried, [false, true, false, false, false, true]);
    }

    #[test]
    fn a_refused_token_pauses_once_and_is_tried_once_after_the_pause() {
        let own = OwnToken::default();
        assert_eq!([own.refuse(), own.refuse()], [true, false]);
        let tried = [true, true, false, false, true, false, false].map(|is_paused| own.is_to_be_tried(is_paused, 0));
        assert_eq!(tried, [false, false, true, false, false, true, false]);
        own.accept();
        assert!(!own.is_refused() && own.refuse());
    }
}
