//! Where a listing is, and what to ask for next: pure, and kept with every page.
//!
//! The feed shows the newest activity first and moves while it is paged. A **pass** goes from the top to the end (or to a
//! floor); then **rounds** go from the top down to what was newest when the pass or round before began, until one brings
//! nothing new: what moved upwards meanwhile is found there. Entries that come twice in one pass tell that cursors are
//! positions, with which an entry that vanishes lets the next one be missed; then there is another pass. Last, the first
//! page of each status tells whether the feed without a status shows all of them.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::catalog::Met;
use crate::digest::Digest;

/// The statuses that conversations are known to have.
pub(super) const STATUSES: [&str; 5] = ["open", "archived", "snoozed", "spam", "trash"];
/// A feed that brings something new in each of so many rounds is busier than we are.
const MAX_ROUNDS: u32 = 50;
/// No mail comes any more whose time lies so far back, by the service's clock.
pub(super) const SETTLED_MS: i64 = 2_000;
/// So many passes over one feed, at most.
const MAX_PASSES: u32 = 5;
/// So often a listing begins anew from the top where cursors fail.
const MAX_RESTARTS: u32 = 3;
/// After so many pages that show only what was shown before in the same pass, the feed leads in a circle.
const MAX_STALE_PAGES: u32 = 50;

/// Why a listing cannot be ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// Cursors lead back.
    #[error(
        "Jelly's list of conversations leads in a circle: its cursors came twice, {MAX_RESTARTS} times from the top"
    )]
    Circle,
    /// Cursors are refused.
    #[error("Jelly refuses the cursors of its own list of conversations, {MAX_RESTARTS} times from the top ({0})")]
    Refused(String),
}

/// One page, as far as it decides where to go.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    /// When each entry last changed, by the service's clock, in milliseconds since the Unix epoch; and how it was met.
    pub(super) entries: &'a [(Option<i64>, Met)],
    /// Where the next page is.
    pub(super) next_cursor: Option<&'a str>,
    /// The service's clock.
    pub(super) served_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// From the top to the floor or the end.
    Pass,
    /// From the top to `until_ms`.
    Round,
    Over,
}

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Listing {
    /// Nothing below is asked for.
    floor_ms: Option<i64>,
    /// Whether rounds follow a pass: a sweep is followed by the next sweep.
    is_settling: bool,
    is_thorough: bool,
    /// The statuses to walk, in turn; `None` is the feed without one.
    parts: Vec<Option<String>>,
    part: usize,
    stage: Stage,
    /// A number that no other pass or round of this walk has.
    pub(super) number: u64,
    cursor: Option<String>,
    /// Whether the top of this pass or round was seen.
    has_begun: bool,
    /// What was newest then.
    mark_ms: Option<i64>,
    /// Whether no mail can come any more with that time.
    is_mark_past: bool,
    /// What was newest when the round or pass before began.
    until_ms: Option<i64>,
    /// What was newest when the pass before this one began, in this part; in a later part, when the last round began.
    older_than_ms: Option<i64>,
    /// What was newest when this pass began.
    pass_mark_ms: Option<i64>,
    pages: u32,
    stale_pages: u32,
    found: u64,
    /// Entries of this pass that the one before should have shown.
    missed: u64,
    /// Whether entries came twice.
    has_repeats: bool,
    rounds: u32,
    /// Whether the round before brought nothing new.
    was_quiet: bool,
    passes: u32,
    restarts: u32,
    /// Whether it was ended though the feed had not come to rest.
    pub(super) is_unsettled: bool,
    /// The statuses that the feed without one does not show.
    pub(super) apart: Vec<String>,
    /// What was newest when all of it began.
    pub(super) began_ms: Option<i64>,
    /// The cursors of this pass.
    #[serde(skip)]
    cursors: HashSet<[u8; 16]>,
}

impl Listing {
    /// A listing to its fixed point, of one status or of all.
    pub(super) fn to_rest(status: Option<&str>, floor_ms: Option<i64>, is_thorough: bool) -> Self {
        let mut parts = vec![status.map(str::to_owned)];
        if status.is_none() {
            parts.extend(STATUSES.map(|status| Some(status.to_owned())));
        }
        Self::new(parts, floor_ms, true, is_thorough)
    }

    /// One pass down to `floor_ms`, over the feed and the statuses that it does not show.
    pub(super) fn down_to(floor_ms: Option<i64>, apart: &[String]) -> Self {
        let parts = std::iter::once(None).chain(apart.iter().cloned().map(Some)).collect();
        Self::new(parts, floor_ms, false, false)
    }

    fn new(parts: Vec<Option<String>>, floor_ms: Option<i64>, is_settling: bool, is_thorough: bool) -> Self {
        Self {
            floor_ms,
            is_settling,
            is_thorough,
            parts,
            part: 0,
            stage: Stage::Pass,
            number: 1,
            cursor: None,
            has_begun: false,
            mark_ms: None,
            is_mark_past: false,
            until_ms: None,
            older_than_ms: None,
            pass_mark_ms: None,
            pages: 0,
            stale_pages: 0,
            found: 0,
            missed: 0,
            has_repeats: false,
            rounds: 0,
            was_quiet: false,
            passes: 0,
            restarts: 0,
            is_unsettled: false,
            apart: Vec::new(),
            began_ms: None,
            cursors: HashSet::new(),
        }
    }

    /// The status and the cursor of the page to ask for; `None` at the end.
    pub(super) fn next(&self) -> Option<(Option<&str>, Option<&str>)> {
        let part = self.parts.get(self.part).filter(|_| self.stage != Stage::Over)?;
        Some((part.as_deref(), self.cursor.as_deref()))
    }

    /// Looks again, from the top down to what was newest when it ended: for what has come since.
    pub(super) fn look_again(&mut self) {
        // Which statuses the feed does not show is known.
        self.parts.truncate(1);
        self.parts.extend(self.apart.iter().cloned().map(Some));
        self.part = 0;
        self.passes = 1;
        self.rounds = 0;
        self.was_quiet = false;
        self.mark_ms = self.older_than_ms;
        self.begin(Stage::Round);
    }

    /// What was newest when the last round began: all that is older was seen.
    pub(super) fn seen_upto_ms(&self) -> Option<i64> {
        self.older_than_ms
    }

    /// Nothing below is asked for.
    pub(super) fn floor_ms(&self) -> Option<i64> {
        self.floor_ms
    }

    /// How many passes and rounds were begun, for people.
    pub(super) fn turns(&self) -> u64 {
        self.number
    }

    /// Whether the first page of a status is asked for, to see whether the feed shows its conversations.
    fn is_probe(&self) -> bool {
        self.is_settling && self.part > 0 && self.passes == 0 && self.stage == Stage::Pass && self.pages == 0
    }

    /// Takes what a page showed.
    pub(super) fn shown(&mut self, page: &Shown<'_>) -> Result<(), Stuck> {
        let is_probe = self.is_probe();
        if !self.has_begun {
            self.has_begun = true;
            // A time of the future (mail is dated by its sender) would hide all that comes before it.
            let newest = page.entries.iter().find_map(|(at, _)| *at);
            self.mark_ms = newest.map(|at| at.min(page.served_ms));
            self.is_mark_past = self.mark_ms.is_some_and(|mark| mark + SETTLED_MS <= page.served_ms);
            self.began_ms = self.began_ms.or(Some(self.mark_ms.unwrap_or(page.served_ms)));
            if self.stage == Stage::Pass {
                self.pass_mark_ms = self.mark_ms;
            }
        }
        self.pages += 1;
        let is_old = |at: Option<i64>| match (at, self.older_than_ms) {
            (Some(at), Some(mark)) => at < mark,
            // Without times nothing tells that it came meanwhile.
            _ => true,
        };
        let new = page.entries.iter().filter(|(_, met)| matches!(met, Met::New | Met::Changed)).count();
        let missed = page.entries.iter().filter(|(at, met)| *met == Met::New && is_old(*at)).count();
        let repeats = page.entries.iter().filter(|(_, met)| *met == Met::Repeated).count();
        self.found += new as u64;
        self.missed += missed as u64;
        self.has_repeats |= repeats > 0 && self.stage == Stage::Pass;
        self.stale_pages = if repeats == page.entries.len() { self.stale_pages + 1 } else { 0 };
        if is_probe {
            if missed == 0 {
                self.next_part();
                return Ok(());
            }
            self.apart.extend(self.parts[self.part].clone());
        }
        // Nothing has come since the round before began, which found nothing: it was as good as one look.
        let is_still = self.stage == Stage::Round && self.pages == 1 && self.was_quiet;
        let is_still = is_still && self.mark_ms == self.until_ms && self.is_mark_past;
        let is_over = page.next_cursor.is_none() || is_still || self.is_below(page, new);
        match page.next_cursor.filter(|_| !is_over) {
            None => {
                self.turn_over();
                Ok(())
            }
            Some(next) => {
                let is_known = !self.cursors.insert(Digest::of(next.as_bytes()).short());
                if is_known || self.stale_pages > MAX_STALE_PAGES {
                    return self.begin_again(Stuck::Circle);
                }
                self.cursor = Some(next.to_owned());
                Ok(())
            }
        }
    }

    /// Takes the refusal of a page (422): a cursor that is no longer good, or a status that this Jelly does not know. Gives
    /// back whether that is no end: without a cursor it would be refused again.
    pub(super) fn refused(&mut self, words: &str) -> Result<bool, Stuck> {
        if self.cursor.is_some() {
            return self.begin_again(Stuck::Refused(words.to_owned())).map(|()| true);
        }
        if self.part > 0 {
            self.next_part();
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether a page reaches below where this pass or round ends: by two entries, so that one with a strange time ends
    /// nothing.
    fn is_below(&self, page: &Shown<'_>, new: usize) -> bool {
        let end_ms = match self.stage {
            Stage::Round => self.until_ms.max(self.floor_ms),
            Stage::Pass | Stage::Over => self.floor_ms,
        };
        let mut times = page.entries.iter().rev().filter_map(|(at, _)| *at);
        match (end_ms, times.next()) {
            (Some(end), Some(last)) => last < end && times.next().is_none_or(|before| before < end),
            // Nothing tells how old they are, or what to compare with: what is known has been passed.
            (Some(_), None) => new == 0 && !page.entries.is_empty(),
            (None, _) => self.stage == Stage::Round && new == 0,
        }
    }

    /// Ends a pass or a round.
    fn turn_over(&mut self) {
        match self.stage {
            Stage::Over => {}
            Stage::Pass if !self.is_settling => self.next_part(),
            Stage::Pass => {
                self.passes += 1;
                self.rounds = 0;
                self.was_quiet = false;
                self.begin(Stage::Round);
            }
            Stage::Round => {
                // While several pages are asked for, what is on the first may change again.
                self.was_quiet = self.found == 0;
                let is_quiet = self.was_quiet && self.pages == 1;
                self.rounds += 1;
                if !is_quiet && self.rounds < MAX_ROUNDS {
                    self.begin(Stage::Round);
                    return;
                }
                self.is_unsettled |= !is_quiet;
                let again = if self.passes == 1 { self.is_thorough || self.has_repeats } else { self.missed > 0 };
                if !again {
                    self.next_part();
                } else if self.passes >= MAX_PASSES {
                    self.is_unsettled = true;
                    self.next_part();
                } else {
                    self.missed = 0;
                    self.older_than_ms = self.pass_mark_ms;
                    self.begin(Stage::Pass);
                }
            }
        }
    }

    /// Begins a pass or a round at the top.
    fn begin(&mut self, stage: Stage) {
        self.until_ms = self.mark_ms;
        self.stage = stage;
        self.restart();
    }

    fn restart(&mut self) {
        self.number += 1;
        self.cursor = None;
        self.has_begun = false;
        self.pages = 0;
        self.stale_pages = 0;
        self.found = 0;
        self.cursors.clear();
    }

    fn next_part(&mut self) {
        if self.part == 0 {
            self.older_than_ms = self.mark_ms;
        }
        self.part += 1;
        self.passes = 0;
        self.restarts = 0;
        self.missed = 0;
        self.has_repeats = false;
        self.until_ms = None;
        self.stage = if self.part < self.parts.len() { Stage::Pass } else { Stage::Over };
        self.restart();
    }

    /// Takes a page whose cursor leads to itself.
    pub(super) fn circle(&mut self) -> Result<(), Stuck> {
        self.begin_again(Stuck::Circle)
    }

    /// Begins the same pass or round anew.
    fn begin_again(&mut self, stuck: Stuck) -> Result<(), Stuck> {
        self.restarts += 1;
        if self.restarts >= MAX_RESTARTS {
            return Err(stuck);
        }
        self.restart();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
