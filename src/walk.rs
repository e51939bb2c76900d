//! Walks over what Jelly lists: from the list of conversations to messages that are ingested. A backfill goes to a fixed
//! point of the list and reads all that may hold attachments; a sweep goes down to where the last one began.
//!
//! `listing` says which page is asked for next, `entry` what is kept of a conversation, `reading` reads messages, `page`
//! makes payloads of them, `sweep` looks for what no webhook brought, `ask` sends requests within the quota's bulk share,
//! `notes` is what is kept of a walk. All of it is in the catalog with every page, so that a walk can be dropped at any
//! moment and gone on with by any process that holds the worker lock. It fetches no attachment, and knows no inbox.

mod ask;
mod entry;
mod listing;
mod notes;
mod page;
mod reading;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{Catalog, CatalogError, Pause, Walk, WalkKind, WalkPhase, WalkRow, WalkWish};
use crate::clock::Clock;
use crate::config::SourceConfig;
use crate::ingest::{IngestError, Intake, Team};
use crate::jelly::{ConversationFilter, Cursor, Id};
use crate::model::{Position, Reject};

use ask::Refused;
use listing::{Listing, Shown};
use notes::{Going, State};

pub use ask::Asker;
pub use listing::Stuck;
pub use notes::{Counts, Filters, last_sweep_ms};
pub use sweep::{Sweeper, Swept};

/// Why a walk is broken off. It is kept, and goes on where it was.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// What was read cannot be taken in.
    #[error(transparent)]
    Ingest(#[from] IngestError),
    /// The list cannot be walked to its end.
    #[error(transparent)]
    Stuck(#[from] Stuck),
    /// A pause lasts longer than is waited for.
    #[error("requests are held: {}", .0.reason)]
    Held(Pause),
    /// The service gives no answer that helps.
    #[error("{0}")]
    Unanswered(String),
    /// The filters name what the service does not know.
    #[error(
        "Jelly does not take these filters ({0}); `jellyjar api labels list` and `jellyjar api mailboxes` show what there is"
    )]
    Filters(String),
    /// What was kept of the walk is from another version.
    #[error("what was kept of the walk cannot be read: {0}")]
    Unreadable(String),
    /// The runtime is stopping.
    #[error("reading messages was interrupted")]
    Interrupted,
}

impl WalkError {
    /// Whether the token is refused.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Held(pause) if pause.is_of_refused_token())
    }
}

/// Walks for one team.
#[derive(Clone)]
pub struct Walker {
    /// Where walks are kept.
    pub catalog: Arc<Catalog>,
    /// Where messages go.
    pub intake: Arc<Intake>,
    /// The team.
    pub team: Team,
    /// How requests are sent.
    pub asker: Asker,
    /// The time.
    pub clock: Clock,
    /// How messages are read.
    pub source: SourceConfig,
    /// While more attachments of the team wait, no more messages are read.
    pub max_pending: u64,
    /// Told of attachments that became pending.
    pub enqueued: Arc<dyn Fn(u64) + Send + Sync>,
}

impl std::fmt::Debug for Walker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walker").field("team", &self.team.key).finish_non_exhaustive()
    }
}

/// Finds the backfill of these filters, as it was left.
pub async fn find_backfill(catalog: &Catalog, team: &Team, filters: &Filters) -> Result<Option<Walk>, CatalogError> {
    catalog.find_walk(team.row, WalkKind::Backfill, &filters.text()).await
}

/// Begins a backfill, anew where it was there.
pub async fn begin_backfill(
    catalog: &Catalog,
    team: &Team,
    filters: &Filters,
    is_thorough: bool,
    wish: WalkWish,
    now_ms: i64,
) -> Result<WalkRow, CatalogError> {
    let floor_ms = filters.since.map(jiff::Timestamp::as_millisecond);
    let listing = Listing::to_rest(filters.status.as_deref(), floor_ms, is_thorough);
    let state = State::new(filters.clone(), listing, now_ms);
    let notes = notes::notes(&state, &Counts::default());
    catalog.begin_walk(team.row, WalkKind::Backfill, &filters.text(), wish, &notes).await
}

impl Walker {
    /// Goes on with a backfill as far as it is asked for. Only under the worker lock. Safe to drop at any time.
    pub async fn backfill(&self, row: WalkRow) -> Result<(), WalkError> {
        let mut going = Going::new(self.catalog.walk(row).await?)?;
        if going.walk.phase == WalkPhase::Listed && going.walk.wish == WalkWish::All {
            // What has come since the estimate is listed, too.
            going.state.listing.look_again();
            self.change(&mut going, WalkPhase::Listing).await?;
        }
        if going.walk.phase == WalkPhase::Listing && !self.list_all(&mut going).await? {
            return Ok(());
        }
        if going.walk.phase == WalkPhase::Done {
            return Ok(());
        }
        if going.walk.phase == WalkPhase::Listed {
            if self.catalog.walk(row).await?.wish != WalkWish::All {
                return Ok(());
            }
            self.change(&mut going, WalkPhase::Reading).await?;
        }
        for turn in 1.. {
            if !self.read(&mut going, None).await? {
                return Ok(());
            }
            // What has come while messages were read is listed and read, too, until nothing more has.
            going.state.listing.look_again();
            self.change(&mut going, WalkPhase::Listing).await?;
            if !self.list(&mut going).await? {
                return Ok(());
            }
            self.change(&mut going, WalkPhase::Reading).await?;
            let totals = self.catalog.walk_totals(&going.walk).await?;
            let new = totals.to_read.saturating_sub(going.counts.failed);
            let counts = &mut going.counts;
            (counts.listed, counts.conversations) = (totals.listed, totals.conversations);
            (counts.listed_attachments, counts.to_read) = (totals.attachments, counts.to_read + new);
            counts.is_unsettled = going.state.listing.is_unsettled || turn >= MAX_TURNS && new > 0;
            if new == 0 || turn >= MAX_TURNS {
                break;
            }
        }
        if going.state.filters.are_none() {
            self.note_for_sweeps(&going).await?;
        }
        self.change(&mut going, WalkPhase::Done).await
    }

    /// Goes on with the listing of a backfill and stops after it, though others ask for more. Only under the worker lock.
    /// Safe to drop at any time.
    pub async fn estimate(&self, row: WalkRow) -> Result<(), WalkError> {
        let mut going = Going::new(self.catalog.walk(row).await?)?;
        if going.walk.phase == WalkPhase::Listing {
            self.list_all(&mut going).await?;
        }
        Ok(())
    }

    /// Lists to the end and counts what is to be read. Gives `false` where the walk is no longer asked for.
    async fn list_all(&self, going: &mut Going) -> Result<bool, WalkError> {
        if !self.list(going).await? {
            return Ok(false);
        }
        self.count(going).await?;
        self.change(going, WalkPhase::Listed).await?;
        Ok(true)
    }

    /// The service's clock, to the second; ours where it does not tell.
    fn served_ms(&self, served_at: Option<jiff::Timestamp>) -> i64 {
        served_at.map_or(self.clock.now_ms(), jiff::Timestamp::as_millisecond)
    }

    async fn change(&self, going: &mut Going, phase: WalkPhase) -> Result<(), WalkError> {
        self.catalog.change_walk(going.walk.row, phase, &going.notes()).await?;
        going.walk.phase = phase;
        Ok(())
    }

    /// Whether a walk is still to be gone on with.
    async fn is_wanted(&self, going: &Going) -> Result<bool, WalkError> {
        Ok(going.walk.kind == WalkKind::Sweep || self.catalog.walk(going.walk.row).await?.wish != WalkWish::Nothing)
    }

    /// Counts what is to be read.
    async fn count(&self, going: &mut Going) -> Result<(), WalkError> {
        let totals = self.catalog.walk_totals(&going.walk).await?;
        let counts = &mut going.counts;
        counts.listed = totals.listed;
        (counts.conversations, counts.to_read, counts.pages) = (totals.conversations, totals.to_read, totals.pages);
        (counts.listed_attachments, counts.known_attachments) = (totals.attachments, totals.known);
        counts.is_unsettled = going.state.listing.is_unsettled;
        Ok(())
    }

    /// Lists to the end. Gives `false` where the walk is no longer asked for.
    async fn list(&self, going: &mut Going) -> Result<bool, WalkError> {
        loop {
            if !self.is_wanted(going).await? {
                return Ok(false);
            }
            let Some((status, cursor)) = going.state.listing.next() else { return Ok(true) };
            let filters = &going.state.filters;
            let id = |id: &Option<String>| id.as_ref().and_then(|id| id.parse::<Id>().ok());
            let filter = ConversationFilter {
                status: status.map(str::to_owned),
                label_id: id(&filters.label_id),
                mailbox_id: id(&filters.mailbox_id),
                limit: None,
            };
            let cursor = cursor.and_then(|cursor| Cursor::try_from(cursor.to_owned()).ok());
            let client = self.asker.client();
            let page = self.asker.ask(|| client.conversations_page(&filter, cursor.as_ref())).await;
            going.counts.list_requests += self.asker.take_requests();
            let page = match page {
                Ok(page) => page,
                Err(refused) => {
                    listing_refused(going, refused)?;
                    let phase = going.walk.phase;
                    self.change(going, phase).await?;
                    continue;
                }
            };
            let served_ms = self.served_ms(page.served_at);
            self.keep_unreadable(going, "/conversations", &page.unreadable).await?;
            let old_enough = going.sweep_upto(served_ms);
            let floor_ms = going.state.listing.floor_ms();
            let mut entries = Vec::new();
            let mut times = Vec::new();
            for conversation in &page.entries {
                let at = entry::activity_ms(conversation);
                if at.zip(old_enough).is_some_and(|(at, upto)| at > upto) {
                    going.state.has_young = true;
                    continue;
                }
                let is_below = at.zip(floor_ms).is_some_and(|(at, floor)| at < floor);
                entries.push(entry::entry(conversation, is_below, going.state.salt));
                times.push(at);
            }
            going.counts.entries += entries.len() as u64;
            let (row, number) = (going.walk.row, going.state.listing.number);
            let mut stuck = None;
            let settle = |met: &[crate::catalog::Met]| {
                let shown: Vec<_> = times.iter().copied().zip(met.iter().copied()).collect();
                let next_cursor = page.next_cursor.as_ref().map(Cursor::as_str);
                let page = Shown { entries: &shown, next_cursor, served_ms };
                stuck = going.state.listing.shown(&page).err();
                going.counts.turns = going.state.listing.turns();
                going.notes()
            };
            self.catalog.list_page(row, self.team.row, number, &entries, settle).await?;
            if let Some(stuck) = stuck {
                return Err(stuck.into());
            }
        }
    }

    /// Keeps what of a page cannot be read.
    async fn keep_unreadable(
        &self,
        going: &mut Going,
        path: &str,
        unreadable: &[crate::jelly::Unreadable],
    ) -> Result<(), WalkError> {
        going.counts.unreadable += unreadable.len() as u64;
        let position = |place: usize| Position {
            source: format!("Jelly {path}"),
            line: 1,
            byte_offset: u64::try_from(place).unwrap_or(u64::MAX),
        };
        let rejects: Vec<Reject> = unreadable
            .iter()
            .enumerate()
            .map(|(place, one)| {
                Reject::new(position(place), format!("an entry of a list cannot be read: {}", one.reason))
            })
            .collect();
        Ok(self.intake.keep_rejects(&rejects).await?)
    }
}

/// What a page that was refused means for the listing.
fn listing_refused(going: &mut Going, refused: Refused) -> Result<(), WalkError> {
    match refused {
        Refused::Circle => Ok(going.state.listing.circle()?),
        Refused::Invalid(words) if going.state.listing.refused(&words)? => Ok(()),
        other => Err(unlisted(other)),
    }
}

/// Why there is no list at all.
fn unlisted(refused: Refused) -> WalkError {
    match refused {
        Refused::Walk(error) => error,
        Refused::Invalid(words) => WalkError::Filters(words),
        Refused::Circle => Stuck::Circle.into(),
        Refused::Gone => WalkError::Unanswered("Jelly knows no list of conversations (404)".into()),
        Refused::TooLarge(reason) | Refused::Failed(reason) => WalkError::Unanswered(reason),
    }
}

/// A team whose mail comes faster than it is read is left to the sweeps, or to the next backfill, after so many turns.
const MAX_TURNS: u32 = 20;
/// How long a walk that must wait for others waits before it looks again.
const WAIT: Duration = Duration::from_millis(250);
