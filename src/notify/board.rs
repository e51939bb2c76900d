//! The board: what is in trouble, and what was told of it. Pure: it is given the time, and gives back messages.
//!
//! Trouble that lasts is told of when it has lasted for the delay, again after each repeat, and once more when it has been
//! over for the delay: what comes and goes within it tells nothing. What merely happens is gathered for the delay, then
//! told of with its count; what happens after that is gathered until the next repeat.

use std::collections::BTreeMap;
use std::time::Duration;

use super::condition::{Condition, Kind};
use super::message::{Message, Status};

/// The most conditions that are on the board. There are fewer kinds, teams and places than that.
const MAX_CONDITIONS: usize = 4096;
/// The most of a detail that is kept, in characters.
const MAX_DETAIL: usize = 600;
/// What was told before a restart is over if nobody raises it again for this long.
const CONFIRM_WITHIN_MS: i64 = 15 * 60_000;

/// When things are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    pub(super) delay: Duration,
    pub(super) repeat_every: Duration,
}

/// What is remembered over restarts of one condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) condition: Condition,
    pub(super) since_ms: i64,
    pub(super) last_ms: i64,
}

#[derive(Debug, Clone)]
struct Entry {
    /// When it began, or when the first of those happened that nobody was told of.
    since_ms: i64,
    detail: String,
    /// How many of those happened that nobody was told of.
    count: u64,
    told_ms: Option<i64>,
    over_ms: Option<i64>,
    /// When it was taken over from before a restart, until somebody raises it again.
    restored_ms: Option<i64>,
}

/// What is in trouble, and what was told of it.
#[derive(Debug, Default)]
pub(super) struct Board {
    entries: BTreeMap<Condition, Entry>,
    changed: bool,
}

impl Board {
    /// Trouble has begun, or lasts.
    pub(super) fn raise(&mut self, condition: Condition, detail: &str, now_ms: i64) {
        debug_assert!(condition.kind.lasts(), "{condition:?} happens, and does not last");
        if let Some(entry) = self.entry(condition, now_ms) {
            entry.detail = cut(detail);
            entry.over_ms = None;
            entry.restored_ms = None;
        }
    }

    /// Trouble is over. Tells whether that changes anything.
    pub(super) fn clear(&mut self, condition: &Condition, now_ms: i64) -> bool {
        let Some(entry) = self.entries.get_mut(condition) else { return false };
        if entry.told_ms.is_none() {
            self.entries.remove(condition);
        } else if entry.over_ms.is_none() {
            entry.over_ms = Some(now_ms);
            entry.restored_ms = None;
        } else {
            return false;
        }
        true
    }

    /// All troubles of one kind: these have it, and no others.
    pub(super) fn set_all(&mut self, kind: Kind, subjects: Vec<(String, String)>, now_ms: i64) {
        let had: Vec<Condition> = self.entries.keys().filter(|condition| condition.kind == kind).cloned().collect();
        for condition in had.iter().filter(|had| !subjects.iter().any(|(subject, _)| *subject == had.subject)) {
            self.clear(condition, now_ms);
        }
        for (subject, detail) in subjects {
            self.raise(Condition::new(kind, subject), &detail, now_ms);
        }
    }

    /// Something happened this often.
    pub(super) fn happened(&mut self, condition: Condition, times: u64, detail: &str, now_ms: i64) {
        debug_assert!(!condition.kind.lasts(), "{condition:?} lasts, and does not happen");
        if times == 0 {
            return;
        }
        if let Some(entry) = self.entry(condition, now_ms) {
            if entry.count == 0 {
                entry.since_ms = now_ms;
            }
            entry.count = entry.count.saturating_add(times);
            entry.detail = cut(detail);
        }
    }

    /// The entry of a condition, made if there is room.
    fn entry(&mut self, condition: Condition, now_ms: i64) -> Option<&mut Entry> {
        if self.entries.len() >= MAX_CONDITIONS && !self.entries.contains_key(&condition) {
            return None;
        }
        Some(self.entries.entry(condition).or_insert_with(|| Entry {
            since_ms: now_ms,
            detail: String::new(),
            count: 0,
            told_ms: None,
            over_ms: None,
            restored_ms: None,
        }))
    }

    /// What is to be told now; it counts as told.
    pub(super) fn due(&mut self, timing: Timing, now_ms: i64) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut gone = Vec::new();
        for (condition, entry) in &mut self.entries {
            entry.settle(now_ms);
            if entry.next_due_ms(condition.kind, timing) > now_ms {
                continue;
            }
            self.changed = true;
            let status = match (condition.kind.lasts(), entry.told_ms, entry.over_ms) {
                (true, None, _) => Status::Trouble,
                (true, Some(_), Some(_)) => Status::Recovered,
                (true, Some(_), None) if entry.restored_ms.is_some() => Status::Recovered,
                (true, Some(_), None) => Status::Still,
                (false, ..) => Status::Happened,
            };
            // A quiet time after something happened ends its gathering; there is nothing to tell.
            let is_quiet = status == Status::Happened && entry.count == 0;
            if !is_quiet {
                messages.push(Message {
                    status,
                    condition: condition.clone(),
                    at_ms: now_ms,
                    since_ms: entry.since_ms,
                    count: if condition.kind.lasts() { 1 } else { entry.count },
                    detail: entry.detail.clone(),
                });
            }
            if is_quiet || status == Status::Recovered {
                gone.push(condition.clone());
            }
            entry.told_ms = Some(now_ms);
            entry.count = 0;
        }
        for condition in gone {
            self.entries.remove(&condition);
        }
        messages
    }

    /// When there will be something to do, if nothing changes.
    pub(super) fn next_due_ms(&self, timing: Timing) -> Option<i64> {
        self.entries.iter().map(|(condition, entry)| entry.next_due_ms(condition.kind, timing)).min()
    }

    /// The troubles that last and were told of.
    pub(super) fn troubles(&self) -> Vec<Condition> {
        let told = |entry: &Entry| entry.told_ms.is_some() && entry.over_ms.is_none();
        let lasting = self.entries.iter().filter(|(condition, entry)| condition.kind.lasts() && told(entry));
        lasting.map(|(condition, _)| condition.clone()).collect()
    }

    /// Takes over what was told before a restart.
    pub(super) fn restore(&mut self, told: Vec<Told>, now_ms: i64) {
        for Told { condition, since_ms, last_ms } in told.into_iter().take(MAX_CONDITIONS) {
            let restored_ms = condition.kind.lasts().then_some(now_ms);
            let detail = "It was there before the last restart.".to_owned();
            let entry = Entry { since_ms, detail, count: 0, told_ms: Some(last_ms), over_ms: None, restored_ms };
            self.entries.insert(condition, entry);
        }
    }

    /// What was told, to be remembered; `None` if that is as it was at the last call.
    pub(super) fn take_changes(&mut self) -> Option<Vec<Told>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let told = self.entries.iter().filter_map(|(condition, entry)| {
            let (condition, since_ms) = (condition.clone(), entry.since_ms);
            entry.told_ms.map(|last_ms| Told { condition, since_ms, last_ms })
        });
        Some(told.collect())
    }
}

impl Entry {
    /// Takes times of a future back to now: the clock was set back, and nothing shall wait for it.
    fn settle(&mut self, now_ms: i64) {
        self.since_ms = self.since_ms.min(now_ms);
        for time in [&mut self.told_ms, &mut self.over_ms, &mut self.restored_ms] {
            *time = time.map(|at| at.min(now_ms));
        }
    }

    fn next_due_ms(&self, kind: Kind, timing: Timing) -> i64 {
        let after =
            |at_ms: i64, wait: Duration| at_ms.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        match (self.told_ms, self.over_ms) {
            (None, _) => after(self.since_ms, timing.delay),
            (Some(_), Some(over_ms)) => after(over_ms, timing.delay),
            (Some(told_ms), None) => {
                let repeat = after(told_ms, timing.repeat_every);
                match self.restored_ms {
                    // Whether it lasts is not known: no reminder before that is clear.
                    Some(restored_ms) if kind.lasts() => restored_ms.saturating_add(CONFIRM_WITHIN_MS),
                    _ => repeat,
                }
            }
        }
    }
}

/// The beginning of a detail, on one line.
fn cut(detail: &str) -> String {
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    let line = detail.chars().map(shown);
    let mut rest = line.skip(MAX_DETAIL - 1);
    let mut cut: String = detail.chars().take(MAX_DETAIL - 1).map(shown).collect();
    match (rest.next(), rest.next()) {
        (Some(_), Some(_)) => cut.push('…'),
        (last, _) => cut.extend(last),
    }
    cut
}

#[cfg(test)]
mod tests;
