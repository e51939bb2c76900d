//! A quota that is counted in a catalog. Requests come from there in blocks, which are as large as what is being asked for:
//! a lone request takes one, and a busy worker asks a few times a second.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{DAY_MS, EgressWindow, QuotaPlace, locked};
use crate::catalog::{Catalog, CatalogError, GivenRequests, RequestWish, SLOT_MS, UnusedRequests, UsedRequests};
use crate::clock::Clock;
use crate::model::Lane;

/// A block is this part of the requests of the last second.
const BLOCK_PART: u64 = 4;
/// A refusal is believed for this long at most: others may give back what they took.
const REFUSAL_HOLDS_MS: i64 = 1_000;

/// Leave to send one request, while it is good.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    pub(super) lane: Lane,
    /// Taken whatever the quota says.
    pub(super) is_forced: bool,
    /// Where it counts, and until when it is good; `None` is in memory, and for ever.
    counted: Option<Counted>,
}

/// Where a request counts that a catalog gave.
#[derive(Debug, Clone, Copy)]
struct Counted {
    slot_ms: i64,
    day: i64,
    good_until: Deadline,
}

impl Counted {
    fn unused(&self, requests: u64) -> UnusedRequests {
        UnusedRequests { requests, slot_ms: self.slot_ms, day: self.day }
    }
}

impl Permit {
    pub(super) fn of_memory(lane: Lane, is_forced: bool) -> Self {
        Self { lane, is_forced, counted: None }
    }

    /// Whether it may still be used.
    pub(super) fn is_good(&self, clock: &Clock) -> bool {
        self.counted.is_none_or(|counted| !counted.good_until.has_passed(clock))
    }
}

/// A moment that has passed when the clock says so, or when so much time went by: a clock may be set back, and time that
/// this process was stopped goes by all the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    instant: Instant,
    clock_ms: i64,
}

impl Deadline {
    fn now(clock: &Clock) -> Self {
        Self { instant: Instant::now(), clock_ms: clock.now_ms() }
    }

    fn after(self, wait_ms: i64) -> Self {
        let wait = Duration::from_millis(wait_ms.max(0).unsigned_abs());
        Self { instant: self.instant + wait, clock_ms: self.clock_ms.saturating_add(wait_ms) }
    }

    fn has_passed(self, clock: &Clock) -> bool {
        self.left(clock).is_zero()
    }

    fn left(self, clock: &Clock) -> Duration {
        let by_clock = Duration::from_millis(self.clock_ms.saturating_sub(clock.now_ms()).max(0).unsigned_abs());
        by_clock.min(self.instant.saturating_duration_since(Instant::now()))
    }
}

/// One team's account in a catalog.
#[derive(Debug)]
pub(super) struct Ledger {
    place: QuotaPlace,
    stock: Mutex<Stock>,
    /// One asks, for all who wait.
    asking: tokio::sync::Mutex<()>,
    waiting: [AtomicU64; 2],
}

/// What is at hand.
#[derive(Debug, Default)]
struct Stock {
    /// For each lane, what the catalog gave, and how much of it is left.
    blocks: [Option<(Counted, u64)>; 2],
    /// For each lane: until when a refusal is believed, and when there is room again.
    refusals: [Option<(Deadline, Deadline)>; 2],
    /// What is to be given back.
    unused: VecDeque<UnusedRequests>,
    pace: Pace,
    /// The UTC day that was last seen, and what was used of it.
    day: (i64, u64),
}

/// How many requests are taken in a second.
#[derive(Debug, Default)]
struct Pace {
    since: Option<Instant>,
    count: u64,
    before: u64,
}

impl Pace {
    fn note(&mut self, now: Instant) {
        let age = self.since.map_or(Duration::MAX, |since| now.saturating_duration_since(since));
        if age >= Duration::from_secs(1) {
            self.before = if age < Duration::from_secs(2) { self.count } else { 0 };
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
    }

    fn in_a_second(&self) -> u64 {
        self.before.max(self.count)
    }
}

const fn place_of(lane: Lane) -> usize {
    match lane {
        Lane::Live => 0,
        Lane::Bulk => 1,
    }
}

impl Stock {
    /// A permit that is at hand, or a refusal that is still to be believed.
    fn at_hand(&mut self, clock: &Clock, lane: Lane, is_forced: bool) -> Option<Result<Permit, Duration>> {
        self.sort_out(clock, false);
        // What bulk work was given live work may use, but not the other way round.
        for block in self.blocks.iter_mut().skip(place_of(lane)).flatten() {
            if block.1 > 0 {
                block.1 -= 1;
                self.pace.note(Instant::now());
                return Some(Ok(Permit { lane, is_forced, counted: Some(block.0) }));
            }
        }
        let (believed_until, room_at) = self.refusals[place_of(lane)]?;
        let left = room_at.left(clock);
        (!is_forced && !believed_until.has_passed(clock) && !left.is_zero()).then_some(Err(left))
    }

    /// Takes in what the catalog gave.
    fn add(&mut self, lane: Lane, block: (Counted, u64)) {
        if let Some((counted, left)) = self.blocks[place_of(lane)].replace(block) {
            self.put_aside(counted.unused(left));
        }
        self.refusals[place_of(lane)] = None;
    }

    /// Puts aside what is not to be sent any more.
    fn sort_out(&mut self, clock: &Clock, all: bool) {
        for place in 0..self.blocks.len() {
            let over = |(counted, _): &mut (Counted, u64)| all || counted.good_until.has_passed(clock);
            if let Some((counted, left)) = self.blocks[place].take_if(over) {
                self.put_aside(counted.unused(left));
            }
        }
    }

    fn put_aside(&mut self, unused: UnusedRequests) {
        if unused.requests == 0 {
            return;
        }
        let same = |one: &&mut UnusedRequests| (one.slot_ms, one.day) == (unused.slot_ms, unused.day);
        match self.unused.iter_mut().find(same) {
            Some(one) => one.requests += unused.requests,
            None => self.unused.push_back(unused),
        }
    }
}

impl Ledger {
    pub(super) fn new(place: QuotaPlace) -> Self {
        Self { place, stock: Mutex::default(), asking: tokio::sync::Mutex::default(), waiting: Default::default() }
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.place.catalog
    }

    pub(super) fn scopes(&self) -> [&String; 2] {
        [&self.place.window, &self.place.team]
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.place.catalog.now_ms()
    }

    /// What is used of this day, as last seen.
    pub(super) fn day_used(&self) -> u64 {
        let (day, used) = locked(&self.stock).day;
        if day >= self.now_ms().div_euclid(DAY_MS) { used } else { 0 }
    }

    /// Takes over what the catalog counts.
    pub(super) fn see(&self, window: &EgressWindow, used: &UsedRequests) {
        window.see(&self.place.place, used.slots(&self.place.window), used.now_ms);
        locked(&self.stock).day = used.day(&self.place.team);
    }

    /// A permit that will not be used.
    pub(super) fn give_up(&self, permit: &Permit) {
        if let Some(counted) = permit.counted {
            locked(&self.stock).put_aside(counted.unused(1));
        }
    }

    /// Takes one request, from what is at hand or from the catalog.
    pub(super) async fn take(
        &self,
        window: &EgressWindow,
        (of_window, of_day): (Option<u64>, Option<u64>),
        clock: &Clock,
        lane: Lane,
        is_forced: bool,
    ) -> Result<Result<Permit, Duration>, CatalogError> {
        let at_hand = || locked(&self.stock).at_hand(clock, lane, is_forced);
        if let Some(answer) = at_hand() {
            return Ok(answer);
        }
        let waiting = Waiting::among(&self.waiting[place_of(lane)]);
        let _turn = self.asking.lock().await;
        loop {
            // Who was before may have got enough for all, or learned that there is none.
            if let Some(answer) = at_hand() {
                return Ok(answer);
            }
            if is_forced {
                // Not for others, whom the quota may refuse.
                let given = self.ask(window, (of_window, of_day), clock, lane, 1).await?;
                let Some((counted, _)) = given else { continue };
                return Ok(Ok(Permit { lane, is_forced, counted: Some(counted) }));
            }
            let pace = locked(&self.stock).pace.in_a_second();
            let wanted = waiting.count().max(pace / BLOCK_PART);
            if let Some(block) = self.ask(window, (of_window, of_day), clock, lane, wanted).await? {
                locked(&self.stock).add(lane, block);
            }
        }
    }

    /// Asks the catalog for so many, and gives back what is put aside.
    async fn ask(
        &self,
        window: &EgressWindow,
        (of_window, of_day): (Option<u64>, Option<u64>),
        clock: &Clock,
        lane: Lane,
        wanted: u64,
    ) -> Result<Option<(Counted, u64)>, CatalogError> {
        let place = &self.place;
        let _turn = window.turn().await;
        let unused = locked(&self.stock).unused.pop_front();
        let elsewhere = window.elsewhere(&place.place, self.now_ms());
        // Before it is asked: what it gives may be good for less long than is thought here, never for longer.
        let began = Deadline::now(clock);
        let wish =
            RequestWish { window: &place.window, team: &place.team, wanted, of_window, of_day, elsewhere, unused };
        let given = place.catalog.take_requests(&wish).await?;
        window.see_slot(&place.place, given.slot_ms, given.slot_used);
        let GivenRequests { requests, now_ms, slot_ms, day, day_used, wait_ms, .. } = given;
        let mut stock = locked(&self.stock);
        stock.day = (day, day_used);
        if requests > 0 {
            let good_until = began.after(slot_ms + SLOT_MS - now_ms);
            return Ok(Some((Counted { slot_ms, day, good_until }, requests)));
        }
        if wanted > 0 {
            let wait_ms = i64::try_from(wait_ms).unwrap_or(i64::MAX).max(1);
            let refusal = (began.after(wait_ms.min(REFUSAL_HOLDS_MS)), began.after(wait_ms));
            stock.refusals[place_of(lane)] = Some(refusal);
        }
        Ok(None)
    }

    /// Gives back what is put aside: what it is too late for, or all that is at hand.
    pub(super) async fn give_back(&self, window: &EgressWindow, clock: &Clock, all: bool) -> Result<(), CatalogError> {
        loop {
            {
                let mut stock = locked(&self.stock);
                stock.sort_out(clock, all);
                if stock.unused.is_empty() {
                    return Ok(());
                }
            }
            let _ = self.ask(window, (None, None), clock, Lane::Bulk, 0).await?;
        }
    }
}

/// Who waits for a permit.
#[derive(Debug)]
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn among(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
