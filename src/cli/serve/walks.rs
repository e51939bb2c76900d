//! Walks of a service: backfills that people ask for, and the gap sweep.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::Timestamp;

use super::archive::Service;
use crate::catalog::{CatalogError, InboxPosition, WalkWish};
use crate::cli::backfill::walker;
use crate::cli::fleet;
use crate::cli::output;
use crate::cli::run::Run;
use crate::cli::session::{Access, Session};
use crate::metrics::TeamMetrics;
use crate::notify::{Condition, Kind};
use crate::walk::{Sweeper, Swept, WalkError, Walker};

/// How often is looked for backfills that were asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a failure, so long until the next try.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// So long is waited for webhooks that are accepted and not yet ingested.
const WEBHOOKS_WITHIN: Duration = Duration::from_mins(1);

/// What is known of a team's webhooks.
struct Webhooks {
    /// Mail from before is no sign: nobody could take its webhook.
    listening_since_ms: i64,
    last_ms: Option<i64>,
    /// How far others have taken theirs in, where this process takes none.
    elsewhere: Vec<InboxPosition>,
}

impl Webhooks {
    /// Why webhooks seem to be switched off, if a sweep shows it.
    fn silent(&self, swept: &Swept, last_ms: Option<i64>) -> Option<String> {
        let oldest_ms = swept.oldest_ms.filter(|oldest| swept.recovered > 0 && *oldest >= self.listening_since_ms)?;
        last_ms.is_none_or(|last| last < oldest_ms).then(|| {
            let last = last_ms.map_or("none has come since the start".into(), |ms| {
                format!("the last was accepted at {}", output::time(ms))
            });
            format!(
                "a sweep found {} attachments that no webhook brought, the oldest from {}; {last}",
                swept.recovered,
                output::time(oldest_ms)
            )
        })
    }
}

impl Service {
    /// Walks for all teams once this process has the worker lock. Ends with an error alone.
    pub(super) async fn walk(&self, session: &Arc<Session>, access: &Arc<Access>, run: &Run) -> anyhow::Error {
        run.leading.wait().await;
        // Where many share a catalog, one of them walks.
        if let Err(error) = fleet::lead_walks(session).await {
            return error;
        }
        let mut walking: FuturesUnordered<BoxFuture<'_, anyhow::Error>> = FuturesUnordered::new();
        for name in session.teams.keys() {
            let work = Arc::clone(&run.signals.work);
            let enqueued = Arc::new(move |_| work.notify_one());
            let Some(walker) = walker(session, access, name, None, enqueued) else { continue };
            let sweeper = Sweeper { walker: walker.clone(), grace: session.config.sweep.grace };
            walking.push(self.backfills(name, walker).boxed());
            if !session.config.sweep.every.is_zero() {
                walking.push(self.sweeps(name, sweeper, session.config.sweep.every).boxed());
            }
        }
        match walking.next().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Goes on with every backfill that is asked for.
    async fn backfills(&self, name: &str, walker: Walker) -> anyhow::Error {
        loop {
            let wanted = match walker.catalog.wanted_walks(walker.team.row).await {
                Ok(wanted) => wanted,
                Err(error) => return error.into(),
            };
            for walk in wanted {
                tracing::info!(team = %name, "going on with a backfill");
                match walker.backfill(walk.row).await {
                    Ok(()) => tracing::info!(team = %name, "the backfill is read, as far as it was asked for"),
                    Err(error @ (WalkError::Catalog(_) | WalkError::Ingest(_))) => return error.into(),
                    Err(error @ (WalkError::Stuck(_) | WalkError::Filters(_) | WalkError::Unreadable(_))) => {
                        tracing::error!(team = %name, "a backfill is given up; ask for it again to go on: {error}");
                        if let Err(error) = walker.catalog.want_walk(walk.row, WalkWish::Nothing).await {
                            return error.into();
                        }
                    }
                    Err(error) => {
                        tracing::error!(team = %name, "a backfill cannot go on now: {error}");
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sweeps for as long as it runs.
    async fn sweeps(&self, name: &str, sweeper: Sweeper, every: Duration) -> anyhow::Error {
        let shared = &self.shared;
        let clock = &shared.clock;
        let cells = shared.metrics.team(name);
        let elsewhere = match self.elsewhere(&sweeper.walker).await {
            Ok(elsewhere) => elsewhere,
            Err(error) => return error.into(),
        };
        let mut webhooks =
            Webhooks { listening_since_ms: clock.now_ms(), last_ms: cells.last_webhook.value_ms(), elsewhere };
        let mut due_ms = match sweeper.last_ms().await {
            Ok(last_ms) => last_ms.map_or(0, |last| last.saturating_add(millis(every))),
            Err(error) => return error.into(),
        };
        loop {
            self.hear(name, &cells, &mut webhooks);
            let now_ms = clock.now_ms();
            if now_ms < due_ms {
                let left = Duration::from_millis((due_ms - now_ms).unsigned_abs());
                tokio::time::sleep(left.min(LOOK_EVERY)).await;
                continue;
            }
            match self.elsewhere(&sweeper.walker).await {
                Ok(elsewhere) if elsewhere == webhooks.elsewhere => {}
                Ok(elsewhere) => {
                    // At some time since the last sweep; what a sweep judges by is no finer than that.
                    cells.last_webhook.set(clock.now());
                    webhooks.elsewhere = elsewhere;
                    self.hear(name, &cells, &mut webhooks);
                }
                Err(error) => return error.into(),
            }
            let ingested = || self.ingested(name).boxed();
            let next = match sweeper.sweep(&ingested).await {
                Ok(swept) => {
                    self.swept(name, &cells, &webhooks, &swept);
                    if swept.has_young { sweeper.grace.clamp(Duration::from_secs(1), every) } else { every }
                }
                Err(error @ (WalkError::Catalog(_) | WalkError::Ingest(_))) => return error.into(),
                Err(error) => {
                    tracing::error!(team = %name, "a sweep was broken off; the next one looks as far back: {error}");
                    RETRY_AFTER.min(every)
                }
            };
            due_ms = clock.now_ms().saturating_add(millis(next));
        }
    }

    /// How far other processes have taken in webhooks of the walker's team; nothing where this one takes them itself.
    async fn elsewhere(&self, walker: &Walker) -> Result<Vec<InboxPosition>, CatalogError> {
        if self.shared.role.receives() {
            return Ok(Vec::new());
        }
        walker.catalog.inbox_positions(walker.team.row).await
    }

    /// Hears whether a webhook has come.
    fn hear(&self, name: &str, cells: &TeamMetrics, webhooks: &mut Webhooks) {
        let last_ms = cells.last_webhook.value_ms();
        if last_ms != std::mem::replace(&mut webhooks.last_ms, last_ms) {
            self.shared.notifier.set(Condition::new(Kind::WebhooksSilent, name), None);
        }
    }

    /// Tells what a sweep found.
    fn swept(&self, name: &str, cells: &TeamMetrics, webhooks: &Webhooks, swept: &Swept) {
        cells.last_sweep.set(self.shared.clock.now());
        cells.gap_recovered.add(swept.recovered);
        if swept.is_first {
            tracing::info!(
                team = %name,
                "from now on, sweeps find mail that no webhook brings; `jellyjar backfill` fetches what came before"
            );
        }
        if swept.recovered > 0 {
            let oldest = swept.oldest_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
            let oldest = oldest.map_or("an unknown time".into(), |at| at.to_string());
            tracing::warn!(
                team = %name,
                attachments = swept.recovered,
                requests = swept.requests,
                "a sweep found what no webhook brought, the oldest from {oldest}"
            );
        }
        if swept.failed > 0 {
            tracing::warn!(team = %name, conversations = swept.failed, "a sweep could not read all; the next one tries again");
        }
        if let Some(detail) = webhooks.silent(swept, cells.last_webhook.value_ms()) {
            self.shared.notifier.set(Condition::new(Kind::WebhooksSilent, name), Some(detail));
        }
    }

    /// Waits until the webhooks that were accepted up to now are ingested. Into an inbox that is elsewhere nobody here can
    /// look: what a sweep finds may be in it, too, and is archived once all the same.
    async fn ingested(&self, name: &str) {
        let Some(inboxes) = &self.shared.inboxes else { return };
        let is_behind = || {
            let status = inboxes.status();
            status.teams.iter().any(|team| team.team == name && team.unread_bytes > 0)
        };
        let waiting = async {
            while is_behind() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(WEBHOOKS_WITHIN, waiting).await.is_err() {
            tracing::warn!(team = %name, "the inbox is behind; what a sweep finds may be in it, too");
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_are_silent_if_mail_came_after_the_last_one_while_we_listened() {
        let webhooks = Webhooks { listening_since_ms: 100, last_ms: None, elsewhere: Vec::new() };
        let swept = |recovered, oldest_ms| Swept { recovered, oldest_ms, ..Swept::default() };
        assert!(webhooks.silent(&swept(2, Some(150)), None).is_some_and(|text| text.contains("2 attachments")));
        assert!(webhooks.silent(&swept(2, Some(150)), Some(149)).is_some());
        // One webhook that was lost among others is a gap, and no more.
        assert_eq!(webhooks.silent(&swept(2, Some(150)), Some(150)), None);
        // It came before we listened.
        assert_eq!(webhooks.silent(&swept(2, Some(99)), None), None);
        assert_eq!(webhooks.silent(&swept(0, Some(150)), None), None);
        assert_eq!(webhooks.silent(&swept(2, None), None), None);
    }
}
