//! The way to Jelly for the teams of an archive, and where their downloads go.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use super::{Session, no_token};
use crate::archive::{Fetcher, Holds, OwnToken, TeamAccess};
use crate::catalog::{Catalog, CatalogError, Pause, TeamRow, egress_scope, person_scope, team_scope};
use crate::cli::{UsageError, fleet};
use crate::config::Config;
use crate::digest::Digest;
use crate::http::{BaseUrl, HttpClients};
use crate::ingest::Team;
use crate::jelly::{Bounds, EgressWindow, JellyClient, Quota, QuotaLimits};
use crate::metrics::Metrics;
use crate::model::TeamKey;
use crate::spool::Spool;
use crate::store::Scratch;

/// The 5-minute windows of the egress groups, which all archives of a process share.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct EgressWindows(Arc<Mutex<BTreeMap<String, EgressWindow>>>);

impl EgressWindows {
    fn of(&self, group: &str) -> EgressWindow {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        windows.entry(group.to_owned()).or_default().clone()
    }
}

/// The tokens with which a process has begun to ask, by archive and team: one that was refused is not tried again because
/// something else was set anew.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct TriedTokens(Arc<Mutex<Tried>>);

/// By archive and team: which token, and whether it was refused.
type Tried = BTreeMap<(String, TeamKey), (Digest, OwnToken)>;

impl TriedTokens {
    fn tokens(&self) -> MutexGuard<'_, Tried> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The limits of one team, of which bulk work leaves a share to webhooks where any may come: by what is configured, not by
/// what runs, as webhooks that come after a replay want their part of the day, too.
pub(in crate::cli) fn limits_of(config: &Config, limits: QuotaLimits, name: &str) -> QuotaLimits {
    let share = |takes_webhooks: bool| if takes_webhooks { config.quota.live_share } else { 0.0 };
    let group = config.egress_group(name);
    let of_group = config.teams.keys().any(|name| config.egress_group(name) == group && config.takes_webhooks(name));
    limits.keep_for_live(share(of_group), share(config.takes_webhooks(name)))
}

/// The way to Jelly: a client for every team that has a token, and what fetches.
pub(in crate::cli) struct Access {
    pub(in crate::cli) fetcher: Fetcher,
    pub(in crate::cli) teams: BTreeMap<TeamRow, TeamAccess>,
    pub(in crate::cli) holds: Arc<Holds>,
    pub(in crate::cli) scratch: Scratch,
}

impl Access {
    /// Makes the clients. The chosen team must have a token; others without one are left alone.
    pub(in crate::cli) async fn open(session: &Session) -> anyhow::Result<Self> {
        fleet::join(session, "a single run").await?;
        let (groups, tried) = (EgressWindows::default(), TriedTokens::default());
        Self::open_for(&session.teams, session, (&groups, &tried), &Metrics::unseen()).await
    }

    /// Like [`Access::open`], for one archive of several that share the windows of this machine's addresses.
    pub(in crate::cli) async fn open_in(
        session: &Session,
        groups: &EgressWindows,
        tried: &TriedTokens,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        Self::open_for(&session.teams, session, (groups, tried), metrics).await
    }

    /// For whoever asks Jelly for nothing: without a client for any team, whatever tokens there are.
    pub(in crate::cli) async fn without_clients(session: &Session, metrics: &Metrics) -> anyhow::Result<Self> {
        let (groups, tried) = (EgressWindows::default(), TriedTokens::default());
        Self::open_for(&BTreeMap::new(), session, (&groups, &tried), metrics).await
    }

    async fn open_for(
        asking: &BTreeMap<String, Team>,
        session: &Session,
        (groups, tried): (&EgressWindows, &TriedTokens),
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let config = &session.config;
        let base = BaseUrl::parse(&config.api.base_url)?;
        let clients = HttpClients::new(&config.http, &base)?;
        let limits = QuotaLimits::resolve(&config.quota, base.is_loopback());
        let holds = Arc::new(Holds::default());
        let mut teams = BTreeMap::new();
        for (name, team) in asking {
            let Some(token) = config.teams.get(name).and_then(|team| team.token.as_ref()) else {
                if *name == session.team_name {
                    return Err(no_token(name).into());
                }
                continue;
            };
            let group = config.egress_group(name).to_owned();
            let quota = Quota::new(limits_of(config, limits, name), groups.of(&group))
                .counted_in(session.quota_place(&group, &team.key));
            let client =
                JellyClient::new(clients.clone(), base.clone(), token, team.key.clone(), quota, session.clock.clone())
                    .map_err(|error| UsageError(error.to_string()))?
                    .counted_in(metrics.team(name))
                    .bounded_by(Bounds::of(&config.http));
            let scopes = [team_scope(team.row), egress_scope(&group), person_scope(team.row)];
            // A refused token is tried again by every run that a person starts, and a new one by a service. A pause that
            // the service asked for stays in force.
            let whose = (session.archive.uuid().to_owned(), team.key.clone());
            let digest = Digest::of(token.expose().as_bytes());
            let known = tried.tokens().get(&whose).filter(|(known, _)| *known == digest).map(|(_, own)| own.clone());
            let own_token = match known {
                Some(own_token) => own_token,
                None => {
                    session.catalog.resume_refused(&scopes[0]).await?;
                    let own_token = OwnToken::default();
                    tried.tokens().insert(whose, (digest, own_token.clone()));
                    own_token
                }
            };
            let token_scope = format!("token:{}", scopes[0]);
            if own_token.is_refused() {
                let reason = "the token was refused before, and is the same".into();
                holds.hold(Pause { scope: token_scope.clone(), until_ms: i64::MAX, reason });
            }
            let access = TeamAccess {
                key: team.key.clone(),
                client,
                bulk_scope: format!("bulk:{}", scopes[0]),
                token_scope,
                own_token,
                among: session.catalog.is_shared().then(fleet::this_process),
                scopes,
                probed_at_ms: Arc::default(),
            };
            teams.insert(team.row, access);
        }
        for pause in session.catalog.pauses().await? {
            holds.hold(pause);
        }
        let scratch = Scratch::open(&spool_home(session)?, &session.journal.scratch_name())?;
        // Before any request is spent: whether this archive can be written at all.
        session.journal.announce().await?;
        fleet::warn_of_other_catalogs(session).await;
        let aborted = session.archive.abort_uploads(&scratch).await?;
        if aborted > 0 {
            tracing::info!(aborted, "uploads that were never finished are aborted");
        }
        let downloads = scratch.path().join("downloads");
        let spool = Spool::open(downloads, &config.spool, session.spool_memory()).context("cannot open the spool")?;
        let fetcher = Fetcher {
            clients,
            spool,
            http: config.http.clone(),
            retry: config.retry.clone(),
            // Longer than a foreground run waits: it ends, and says what to do.
            local_pause: config.worker.max_wait + Duration::from_mins(1),
            holds: Arc::clone(&holds),
            clock: session.clock.clone(),
            metrics: metrics.clone(),
        };
        let access = Self { fetcher, teams, holds, scratch };
        access.look_at_quotas().await?;
        Ok(access)
    }

    fn quotas(&self) -> impl Iterator<Item = &Quota> {
        self.teams.values().map(|team| team.client.quota())
    }

    /// Looks at what all processes have used of the quotas.
    pub(in crate::cli) async fn look_at_quotas(&self) -> Result<(), CatalogError> {
        Quota::look(self.quotas()).await
    }

    /// Gives back what was taken from the quotas and will not be used: `all` of it, at the end of a run.
    pub(in crate::cli) async fn give_back(&self, all: bool) -> Result<(), CatalogError> {
        for quota in self.quotas() {
            quota.give_back(&self.fetcher.clock, all).await?;
        }
        Ok(())
    }

    /// Takes over the pauses that are kept in the catalog. One for another process's token is ended where this one's is
    /// accepted: that costs one request.
    pub(in crate::cli) async fn heed_pauses(&self, catalog: &Catalog) -> Result<(), CatalogError> {
        let mut pauses = catalog.pauses().await?;
        for team in self.teams.values().filter(|team| team.among.is_some()) {
            let [own, group, person] = &team.scopes;
            let is_refused = |pause: &Pause| pause.scope == *own && pause.is_of_refused_token();
            let now_ms = self.fetcher.clock.now_ms();
            // What this process has just begun is on its way to the catalog.
            let team_is_paused =
                pauses.iter().any(is_refused) || self.holds.held(&[own], now_ms).as_ref().is_some_and(is_refused);
            let may_ask = !pauses.iter().any(|pause| pause.scope == *group || pause.scope == *person);
            if !may_ask || !team.own_token.is_to_be_tried(team_is_paused, now_ms) {
                continue;
            }
            match team.client.probe_members().await {
                Ok(true) => {
                    catalog.resume_refused(own).await?;
                    pauses.retain(|pause| !is_refused(pause));
                    for scope in [own, &team.token_scope] {
                        self.holds.end(scope);
                    }
                    team.own_token.accept();
                    tracing::info!(team = %team.key, "this process's own token is accepted: the team goes on");
                }
                Ok(false) => {
                    team.own_token.refuse_tried(!team_is_paused);
                    let reason = "the token of this process is refused".to_owned();
                    self.holds.hold(Pause { scope: team.token_scope.clone(), until_ms: i64::MAX, reason });
                    tracing::warn!(
                        team = %team.key,
                        "this process's own token is refused, whatever others have: it asks for nothing until it gets \
                         another"
                    );
                }
                Err(error) => tracing::debug!(team = %team.key, "whether the own token works cannot be told: {error}"),
            }
        }
        self.holds.sync(pauses);
        Ok(())
    }

    /// The API requests that this process has made.
    pub(in crate::cli) fn requests(&self) -> u64 {
        self.teams.values().map(|team| team.client.requests()).sum()
    }
}

/// Where downloads are until they are stored: in the file system of a folder archive; for a bucket beside the catalog,
/// unless configured.
fn spool_home(session: &Session) -> anyhow::Result<PathBuf> {
    if let Some(folder) = session.archive.folder() {
        return Ok(folder.root().join(Scratch::HOME));
    }
    let spool = &session.config.spool;
    let home = spool.folder.clone().unwrap_or_else(|| session.catalog.folder().to_owned());
    std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    if !spool.allow_tmpfs && Spool::is_in_memory(&home) {
        let text = format!(
            "{} is in memory (tmpfs), which large downloads would fill; set `folder` under [spool] to a folder on a disk, or \
             `allow_tmpfs = true`",
            home.display()
        );
        return Err(UsageError(text).into());
    }
    Ok(home)
}
