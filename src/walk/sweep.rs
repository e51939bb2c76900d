//! The gap sweep: what changed since the last one, for mail that no webhook brought.

use std::time::Duration;

use futures::future::BoxFuture;

use super::listing::Listing;
use super::notes::{Going, State, notes};
use super::reading::{Brought, Care};
use super::{CLOCK_DOUBT_MS, Counts, Filters, WalkError, Walker, entry, unlisted};
use crate::catalog::{Walk, WalkKind, WalkPhase, WalkWish};
use crate::jelly::ConversationFilter;

/// What a sweep found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Whether it was the first, which only notes from when on changes are looked for.
    pub is_first: bool,
    /// Attachments that no webhook had brought.
    pub recovered: u64,
    /// When the oldest message that brought one was sent, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// Whether something was so young that its webhook may be on its way: the next sweep is due after the grace.
    pub has_young: bool,
    /// Conversations that could not be read; the next sweep tries them again.
    pub failed: u64,
    /// The requests that it cost.
    pub requests: u64,
}

/// Sweeps for one team.
#[derive(Debug, Clone)]
pub struct Sweeper {
    /// The walker.
    pub walker: Walker,
    /// How long a webhook may be on its way.
    pub grace: Duration,
}

impl Going {
    /// Up to when a sweep looks; `None` for other walks. Notes where the next one begins.
    pub(super) fn sweep_upto(&mut self, served_ms: i64) -> Option<i64> {
        if self.walk.kind != WalkKind::Sweep {
            return None;
        }
        let upto = served_ms - self.state.grace_ms;
        self.state.next_watermark_ms.get_or_insert(upto);
        Some(upto)
    }
}

impl Sweeper {
    fn grace_ms(&self) -> i64 {
        i64::try_from(self.grace.as_millis()).unwrap_or(i64::MAX / 4)
    }

    /// When the last sweep ended, by our clock; `None` if there was none, or one was broken off.
    pub async fn last_ms(&self) -> Result<Option<i64>, WalkError> {
        let walk = self.walk().await?;
        walk.map(|walk| Ok(Going::new(walk)?.state.completed_ms)).transpose().map(Option::flatten)
    }

    async fn walk(&self) -> Result<Option<Walk>, WalkError> {
        let (catalog, team) = (&self.walker.catalog, self.walker.team.row);
        Ok(catalog.find_walk(team, WalkKind::Sweep, &Filters::default().text()).await?)
    }

    /// Sweeps once. Only under the worker lock. Safe to drop at any time: the next one looks as far back.
    /// `webhooks_first` waits until what webhooks have brought is ingested.
    pub async fn sweep<'a>(
        &'a self,
        webhooks_first: &'a (dyn Fn() -> BoxFuture<'a, ()> + Send + Sync),
    ) -> Result<Swept, WalkError> {
        let known = self.walk().await?.map(Going::new).transpose()?;
        let Some(mut going) = known.filter(|going| going.state.watermark_ms.is_some()) else {
            return self.first().await;
        };
        let before = going.counts;
        going.state.listing = Listing::down_to(going.state.watermark_ms, &going.state.apart);
        going.state.salt = self.walker.clock.now_ms();
        going.state.grace_ms = self.grace_ms();
        (going.state.has_young, going.state.next_watermark_ms) = (false, None);
        self.walker.change(&mut going, WalkPhase::Listing).await?;
        self.walker.list(&mut going).await?;
        self.walker.change(&mut going, WalkPhase::Reading).await?;
        let mut all = Brought::default();
        let care = Care { grace_ms: self.grace_ms(), webhooks_first };
        self.walker.read_into(&mut going, Some(care), &mut all).await?;
        let state = &mut going.state;
        let next = state.next_watermark_ms.into_iter().chain(state.listing.began_ms).min();
        state.watermark_ms = next.max(state.watermark_ms);
        state.completed_ms = Some(self.walker.clock.now_ms());
        let (has_young, counts) = (state.has_young, going.counts);
        self.walker.change(&mut going, WalkPhase::Done).await?;
        let requests = |counts: &Counts| counts.list_requests + counts.message_requests;
        Ok(Swept {
            is_first: false,
            recovered: all.enqueued,
            oldest_ms: all.oldest_ms,
            has_young,
            failed: counts.failed,
            requests: requests(&counts).saturating_sub(requests(&before)),
        })
    }

    /// The first sweep: looks what is newest, and reads nothing.
    async fn first(&self) -> Result<Swept, WalkError> {
        let walker = &self.walker;
        let client = walker.asker.client();
        let filter = ConversationFilter::default();
        let page = walker.asker.ask(|| client.conversations_page(&filter, None)).await.map_err(unlisted)?;
        let served_ms = page.served_at.map_or(walker.clock.now_ms() - CLOCK_DOUBT_MS, |at| at.as_millisecond());
        let newest_ms = page.entries.iter().find_map(|one| entry::activity_ms(one));
        let watermark_ms = newest_ms.unwrap_or(i64::MAX).min(served_ms - self.grace_ms());
        let counts = Counts { list_requests: walker.asker.take_requests(), ..Counts::default() };
        let mut state = self.state();
        (state.watermark_ms, state.completed_ms) = (Some(watermark_ms), Some(walker.clock.now_ms()));
        walker.begin_sweeps(&state, &counts).await?;
        Ok(Swept { is_first: true, requests: counts.list_requests, ..Swept::default() })
    }

    fn state(&self) -> State {
        Walker::sweep_state(self.walker.clock.now_ms(), self.grace_ms())
    }
}

impl Walker {
    fn sweep_state(now_ms: i64, grace_ms: i64) -> State {
        State { grace_ms, ..State::new(Filters::default(), Listing::down_to(None, &[]), now_ms) }
    }

    async fn begin_sweeps(&self, state: &State, counts: &Counts) -> Result<(), WalkError> {
        let (team, filters) = (self.team.row, Filters::default().text());
        let notes = notes(state, counts);
        let row = self.catalog.begin_walk(team, WalkKind::Sweep, &filters, WalkWish::All, &notes).await?;
        Ok(self.catalog.change_walk(row, WalkPhase::Done, &notes).await?)
    }

    /// Tells sweeps what a backfill of everything has seen.
    pub(super) async fn note_for_sweeps(&self, done: &Going) -> Result<(), WalkError> {
        let listing = &done.state.listing;
        let Some(seen_ms) = listing.seen_upto_ms() else { return Ok(()) };
        let filters = Filters::default().text();
        let known = self.catalog.find_walk(self.team.row, WalkKind::Sweep, &filters).await?;
        match known.map(Going::new).transpose()? {
            // A sweep that is at work keeps its own end, which is as good.
            Some(mut going) if going.walk.phase == WalkPhase::Done => {
                going.state.watermark_ms = going.state.watermark_ms.max(Some(seen_ms));
                going.state.apart.clone_from(&listing.apart);
                self.change(&mut going, WalkPhase::Done).await
            }
            Some(_) => Ok(()),
            None => {
                let mut state = Self::sweep_state(self.clock.now_ms(), 0);
                (state.watermark_ms, state.apart) = (Some(seen_ms), listing.apart.clone());
                self.begin_sweeps(&state, &Counts::default()).await
            }
        }
    }
}
