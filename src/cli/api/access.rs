//! The way to Jelly for single calls: the chosen team's client, its kept quota, and the waits that limits ask for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;

use super::super::receipt::number;
use super::super::session::{Session, choose_team, no_token, settings};
use super::super::{Global, UsageError, output};
use crate::catalog::{Pause, person_scope, team_scope};
use crate::clock::Clock;
use crate::config::Config;
use crate::http::{BaseUrl, Decision, HttpClients};
use crate::jelly::{ApiError, Bounds, EgressWindow, JellyClient, Quota, QuotaLimits};
use crate::store::StoreError;

/// See the module.
pub(super) struct Access {
    pub(super) client: JellyClient,
    pub(super) clients: HttpClients,
    pub(super) config: Config,
    /// The archive's catalog, where the team has one: it keeps the count of requests, and pauses.
    session: Option<Session>,
    team: String,
    clock: Clock,
    quiet: bool,
    changing: AtomicBool,
}

/// What to tell where it is not known whether a change was made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Repetition {
    /// It may be sent again.
    Harmless,
    /// It would make a second one.
    Doubles,
}

impl Access {
    /// Makes the client. An archive is not needed; where the team has one, its catalog is asked for pauses and for what
    /// of the quota is used.
    pub(super) async fn open(global: &Global) -> anyhow::Result<Self> {
        let config = settings(&global.overrides(false))?.config;
        let team = choose_team(&config, global.team.as_deref())?;
        let token = config.teams.get(&team).and_then(|team| team.token.clone()).ok_or_else(|| no_token(&team))?;
        let key = config.team_key(&team).map_err(|error| UsageError(format!("teams.{team}: {error}")))?;
        let base = BaseUrl::parse(&config.api.base_url)?;
        let clients = HttpClients::new(&config.http, &base)?;
        let clock = Clock::system();
        let limits = QuotaLimits::resolve(&config.quota, base.is_loopback());
        let session = match config.archive_for(&team) {
            Some(_) => kept(&config, &team, &clock).await,
            None => None,
        };
        let mut quota = Quota::new(limits, EgressWindow::default());
        if let Some(session) = &session {
            quota = quota.counted_in(session.quota_place(config.egress_group(&team), &key));
        }
        let client = JellyClient::new(clients.clone(), base, &token, key, quota, clock.clone())
            .map_err(|error| UsageError(error.to_string()))?
            .bounded_by(Bounds::of(&config.http));
        let changing = AtomicBool::new(false);
        let access = Self { client, clients, config, session, team, clock, quiet: global.quiet, changing };
        access.heed_pauses().await?;
        Ok(access)
    }

    /// Asks for something, and waits where a limit asks for that.
    pub(super) async fn ask<T, F>(&self, call: impl Fn() -> F) -> anyhow::Result<T>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let (mut waited, mut refusals) = (Duration::ZERO, 0);
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let Some(asked) = error.wait() else { return Err(error.into()) };
            self.tell_others(&error).await;
            let wait = asked.max(back_off(refusals));
            refusals += 1;
            waited += wait;
            let longest = self.config.worker.max_wait;
            if waited > longest {
                let text = format!("longer than {} s is not waited (worker.max_wait)", number(longest.as_secs()));
                return Err(anyhow::Error::new(error).context(text));
            }
            self.wait(wait, &error.to_string()).await;
        }
    }

    /// Sends a change. It is sent again only where a limit refused it; where its answer is lost, the error says what to
    /// do.
    pub(super) async fn change<T, F>(
        &self,
        repetition: Repetition,
        call: impl Fn() -> F + Send + Sync,
    ) -> anyhow::Result<T>
    where
        T: Send,
        F: Future<Output = Result<T, ApiError>> + Send,
    {
        let outcome = self
            .ask(|| async {
                self.changing.store(true, Ordering::Relaxed);
                let outcome = call().await;
                self.changing.store(false, Ordering::Relaxed);
                outcome
            })
            .await;
        match &outcome {
            Err(error) if error.downcast_ref::<ApiError>().is_some_and(ApiError::may_be_done) => {
                outcome.context(match repetition {
                    Repetition::Harmless => {
                        "it is not known whether Jelly has done it; run the same again, which does no harm"
                    }
                    Repetition::Doubles => {
                        "it is not known whether Jelly has done it; look before you run the same again"
                    }
                })
            }
            _ => outcome,
        }
    }

    /// Whether a change is on its way.
    pub(super) fn is_changing(&self) -> bool {
        self.changing.load(Ordering::Relaxed)
    }

    /// Shows progress to people, unless nothing is to be shown.
    pub(super) fn note(&self, text: impl AsRef<str>) {
        if !self.quiet {
            output::note(text);
        }
    }

    async fn wait(&self, wait: Duration, why: &str) {
        self.note(format!("{why}; waiting {} s (Ctrl-C stops)", wait.as_secs().max(1)));
        tokio::time::sleep(wait).await;
    }

    /// Gives back what was taken from the quota and not used.
    pub(super) async fn close(&self) {
        if let Err(error) = self.client.quota().give_back(&self.clock, true).await {
            tracing::debug!(%error, "requests that were not sent stay counted");
        }
    }

    fn egress_scope(&self) -> String {
        format!("egress:{}", self.config.egress_group(&self.team))
    }

    /// Waits out the pauses in force, or refuses. One for a refused token is not heeded: it is tried.
    async fn heed_pauses(&self) -> anyhow::Result<()> {
        let Some(session) = &self.session else { return Ok(()) };
        let Some(row) = session.teams.get(&self.team).map(|team| team.row) else { return Ok(()) };
        let asked = [team_scope(row), self.egress_scope()];
        for pause in session.catalog.pauses().await? {
            let left = pause.until_ms.saturating_sub(self.clock.now_ms());
            let by_person = pause.scope == person_scope(row);
            if left <= 0 || !by_person && (!asked.contains(&pause.scope) || pause.until_ms == i64::MAX) {
                continue;
            }
            let wait = Duration::from_millis(left.unsigned_abs());
            let reason = output::printable(&pause.reason, 200);
            if by_person {
                anyhow::bail!("team {} is paused ({reason}); `jellyjar resume` lets it send again", self.team);
            }
            if wait > self.config.worker.max_wait {
                anyhow::bail!("team {} sends nothing until {} ({reason})", self.team, output::time(pause.until_ms));
            }
            self.wait(wait, &reason).await;
        }
        Ok(())
    }

    /// Tells the other processes of this archive that the service asked to wait.
    async fn tell_others(&self, error: &ApiError) {
        let Some(session) = &self.session else { return };
        let Some(row) = session.teams.get(&self.team).map(|team| team.row) else { return };
        let (scope, wait) = match (error, error.decision()) {
            (ApiError::RateLimited { .. }, Decision::PauseEgressGroup(wait)) => (self.egress_scope(), wait),
            (ApiError::RateLimited { .. }, Decision::PauseTeamFor(wait)) => (team_scope(row), wait),
            _ => return,
        };
        let until_ms = self.clock.now_ms().saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        if let Err(error) = session.catalog.pause(&Pause { scope, until_ms, reason: error.to_string() }).await {
            tracing::debug!(%error, "the pause is not kept");
        }
    }
}

/// How long is waited at least after so many refusals before: who asks for less than it takes, as with a date that is past, is
/// not asked each second.
fn back_off(refusals: u32) -> Duration {
    Duration::from_secs(1 << refusals.min(8))
}

/// The archive's catalog, if it is there and can be opened; single calls do without.
async fn kept(config: &Config, team: &str, clock: &Clock) -> Option<Session> {
    match Session::open_team(config.clone(), team.to_owned(), false, clock.clone()).await {
        Ok(session) => Some(session),
        Err(error) if matches!(error.downcast_ref::<StoreError>(), Some(StoreError::Absent { .. })) => None,
        Err(error) => {
            tracing::warn!("the archive cannot be opened, so these requests are not counted with its own: {error:#}");
            None
        }
    }
}
