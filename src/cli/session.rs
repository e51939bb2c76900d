//! Wiring: from settings to an open archive, its catalog, its teams and, where asked, the way to Jelly.

mod access;
mod view;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use super::fleet;
use super::places::KnownPlace;
use super::{Global, UsageError};
use crate::catalog::{ArchiveRow, Catalog, CatalogPlace, TeamRow, day_scope, window_scope};
use crate::clock::Clock;
use crate::config::{CatalogSetting, Config, DEFAULT_TEAM, Environment, Loaded, Overrides, load};
use crate::filter::Filter;
use crate::ingest::{Intake, Team};
use crate::jelly::QuotaPlace;
use crate::model::{Location, TeamKey};
use crate::spool::SpoolMemory;
use crate::store::{Archive, JournalWriter, Place, Scratch};

pub(super) use access::{Access, EgressWindows, TriedTokens, limits_of};
pub(super) use view::View;

/// An archive that is open for a command.
pub(super) struct Session {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) archive: Arc<Archive>,
    pub(super) archive_row: ArchiveRow,
    pub(super) catalog: Arc<Catalog>,
    /// Where the catalog is.
    pub(super) catalog_place: CatalogPlace,
    pub(super) journal: Arc<JournalWriter>,
    pub(super) intake: Arc<Intake>,
    /// The configured teams of this archive, by name.
    pub(super) teams: BTreeMap<String, Team>,
    /// The team that payloads without a name of their own belong to.
    pub(super) team_name: String,
}

/// Loads settings for a command. Warnings are logged.
pub(super) fn settings(overrides: &Overrides) -> anyhow::Result<Loaded> {
    let loaded = load(overrides, &Environment::from_process())?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded)
}

impl Session {
    /// Opens the archive of the chosen team. `create` makes one where there is none.
    pub(super) async fn open(global: &Global, loaded: Loaded, create: bool) -> anyhow::Result<Self> {
        Self::open_with(global, loaded, create, Clock::system()).await
    }

    async fn open_with(global: &Global, loaded: Loaded, create: bool, clock: Clock) -> anyhow::Result<Self> {
        let team_name = choose_team(&loaded.config, global.team.as_deref())?;
        Self::open_team(loaded.config, team_name, create, clock).await
    }

    /// Opens the archive of a team.
    pub(super) async fn open_team(
        config: Config,
        team_name: String,
        create: bool,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        Box::pin(Self::open_again(config, team_name, create, clock, None)).await
    }

    /// Opens the archive of a team, going on as the writer of an earlier life of this process.
    pub(super) async fn open_again(
        mut config: Config,
        team_name: String,
        create: bool,
        clock: Clock,
        earlier: Option<&JournalWriter>,
    ) -> anyhow::Result<Self> {
        let location = location_of(&config, &team_name)?.clone();
        let place = Place::of(&location, &config.buckets, &config.http, &clock)?;
        let archive = if create {
            open_or_create(&place, KnownPlace::of(&config, &location), &clock).await?
        } else {
            Archive::open(&place).await?
        };
        let archive = Arc::new(archive);
        let catalog_place = catalog_place(&config, &location, archive.uuid())?;
        let catalog = Arc::new(Catalog::open(catalog_place.clone(), clock).await?);
        // Where many share a catalog, its clock is theirs.
        let clock = catalog.clock().clone();
        let name = match &location {
            Location::Folder(root) => root.canonicalize().unwrap_or_else(|_| root.clone()).display().to_string(),
            Location::Bucket(bucket) => bucket.to_string(),
        };
        let names: Vec<&String> =
            config.teams.keys().filter(|name| config.archive_for(name) == Some(&location)).collect();
        let mut keys = Vec::new();
        for name in &names {
            keys.push(config.team_key(name).map_err(|error| UsageError(format!("teams.{name}: {error}")))?);
        }
        catalog.refuse_teams_of_others(archive.uuid(), &keys).await?;
        let scopes = |(name, key): (&&String, &TeamKey)| (window_scope(config.egress_group(name)), day_scope(key));
        let scopes: Vec<_> = names.iter().zip(&keys).map(scopes).collect();
        catalog.adopt_quota_windows(&scopes).await?;
        let archive_row = catalog.bind_archive(archive.uuid(), &name).await?;
        // Bulk work leaves webhooks their share, also where this process knows no secret of theirs.
        config.webhooks_elsewhere |= fleet::takes_webhooks(&catalog, archive_row).await?;
        let journal = match earlier {
            Some(earlier) => JournalWriter::after(earlier, Arc::clone(&archive), clock.clone()).await?,
            None => JournalWriter::new(Arc::clone(&archive), clock.clone())?,
        };
        let journal = Arc::new(journal.at_home(fleet::home(&catalog, archive_row).await?));
        let intake = Arc::new(Intake::new(
            Arc::clone(&catalog),
            Arc::clone(&archive),
            archive_row,
            Arc::clone(&journal),
            clock.clone(),
        ));
        let mut teams = BTreeMap::new();
        for (name, key) in names.into_iter().zip(keys) {
            let row = catalog.bind_team(archive_row, &key).await?;
            let filter = Arc::new(Filter::compile(config.filter_for(name))?);
            teams.insert(name.clone(), Team { row, key, filter });
        }
        Ok(Self { config, clock, archive, archive_row, catalog, catalog_place, journal, intake, teams, team_name })
    }

    /// How much is held in memory on its way to the archive: for a bucket whole objects of up to one part.
    pub(super) fn spool_memory(&self) -> SpoolMemory {
        let usual = SpoolMemory::of(&self.config.spool);
        if self.archive.folder().is_some() {
            return usual;
        }
        let bucket = &self.config.buckets.common;
        let max_bytes = usual.max_bytes.max(bucket.max_upload_memory_bytes);
        let threshold_bytes = usual.threshold_bytes.max(bucket.part_bytes.min(max_bytes / 4));
        SpoolMemory { max_bytes, threshold_bytes, waits: true }
    }

    /// Batches that are made durable at once: a folder's share their syncs, a bucket's share nothing.
    pub(super) fn commits_at_once(&self) -> usize {
        if self.archive.folder().is_some() { 1 } else { self.config.buckets.common.concurrency.min(4) }
    }

    /// Where a team's requests are counted, whose window is its egress group's.
    pub(super) fn quota_place(&self, group: &str, team: &TeamKey) -> QuotaPlace {
        let (window, team) = (window_scope(group), day_scope(team));
        let place = match &self.config.catalog {
            // One for all archives.
            Some(CatalogSetting::Postgres(_)) => PathBuf::new(),
            _ => self.catalog.folder().to_owned(),
        };
        QuotaPlace { catalog: Arc::clone(&self.catalog), place, window, team }
    }

    /// The archive and its catalog, for an audit.
    pub(super) fn subject(&self) -> crate::audit::Subject {
        crate::audit::Subject {
            archive: Arc::clone(&self.archive),
            archive_row: self.archive_row,
            catalog: Arc::clone(&self.catalog),
            journal: Arc::clone(&self.journal),
            clock: self.clock.clone(),
        }
    }

    /// Loads what other writers have put in the journal since this catalog last looked, and what an earlier life of this
    /// process has left there.
    pub(super) async fn reload(&self) -> anyhow::Result<crate::ingest::Reloaded> {
        let rules = self.rules()?;
        Ok(self.intake.reload(&rules, false).await?)
    }

    /// The same, beside work of this process.
    pub(super) async fn reload_while_working(&self) -> anyhow::Result<crate::ingest::Reloaded> {
        let rules = self.rules()?;
        Ok(self.intake.reload(&rules, true).await?)
    }

    /// Finds a team's rules by its name in the archive; a team that is not configured has the common ones.
    pub(super) fn rules(&self) -> anyhow::Result<impl Fn(&TeamKey) -> Team + Send + Sync + use<>> {
        let known: BTreeMap<TeamKey, Team> = self.teams.values().map(|team| (team.key.clone(), team.clone())).collect();
        let common = Arc::new(Filter::compile(&self.config.filter)?);
        let some_row = self.teams.values().map(|team| team.row).next().unwrap_or(TeamRow::NONE);
        Ok(move |key: &TeamKey| {
            known.get(key).cloned().unwrap_or_else(|| Team {
                row: some_row,
                key: key.clone(),
                filter: Arc::clone(&common),
            })
        })
    }
}

/// Opens the archive at a place, or makes one where none ever was.
async fn open_or_create(place: &Place, known: Option<KnownPlace>, clock: &Clock) -> anyhow::Result<Archive> {
    let archive = match Archive::find(place).await? {
        Some(archive) => archive,
        None => {
            known.as_ref().map_or(Ok(()), KnownPlace::refuse_new)?;
            Archive::open_or_create(place, clock).await?
        }
    };
    if let Some(known) = known {
        known.note(archive.uuid(), clock.now());
    }
    Ok(archive)
}

fn location_of<'a>(config: &'a Config, team_name: &str) -> anyhow::Result<&'a Location> {
    config.archive_for(team_name).ok_or_else(|| {
        let text =
            "no archive is named; add --archive PLACE, or set JELLYJAR_ARCHIVE or `archive` in the configuration";
        UsageError(text.into()).into()
    })
}

/// Where the catalog is: as configured; else inside a folder archive; for a bucket in the user's state folder, under the
/// archive's UUID.
pub(super) fn catalog_place(config: &Config, location: &Location, uuid: &str) -> anyhow::Result<CatalogPlace> {
    let home = match (&config.catalog, location) {
        (Some(CatalogSetting::Folder(folder)), _) => folder.clone(),
        (_, Location::Folder(root)) => root.join(Scratch::HOME),
        (_, Location::Bucket(_)) => {
            let home = config.state_home.as_ref().ok_or_else(|| {
                UsageError("HOME is not set, so there is no usual place for the catalog; give --catalog DIR".into())
            })?;
            home.join("jellyjar").join(uuid)
        }
    };
    Ok(match &config.catalog {
        Some(CatalogSetting::Postgres(url)) => {
            CatalogPlace::Postgres { url: url.clone(), home, answer_timeout: config.postgres.answer_timeout }
        }
        _ => CatalogPlace::Folder(home),
    })
}

/// Where the catalog of the chosen team's archive is, for a command that must not open it yet. The archive must be
/// there.
pub(super) async fn open_place(global: &Global, config: &Config) -> anyhow::Result<CatalogPlace> {
    let location = location_of(config, &choose_team(config, global.team.as_deref())?)?;
    let place = Place::of(location, &config.buckets, &config.http, &Clock::system())?;
    let archive = Archive::open(&place).await?;
    let place = catalog_place(config, location, archive.uuid())?;
    if let CatalogPlace::Folder(folder) = &place {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    Ok(place)
}

/// The team that a command is about: the named one, else `default`, else the only one.
pub(super) fn choose_team(config: &Config, wanted: Option<&str>) -> anyhow::Result<String> {
    let names = || config.teams.keys().cloned().collect::<Vec<_>>().join(", ");
    match wanted {
        Some(name) if config.teams.contains_key(name) => Ok(name.to_owned()),
        Some(name) => Err(UsageError(format!("no team {name:?} is configured; there are: {}", names())).into()),
        None if config.teams.contains_key(DEFAULT_TEAM) => Ok(DEFAULT_TEAM.to_owned()),
        None => match config.teams.keys().next() {
            Some(only) if config.teams.len() == 1 => Ok(only.clone()),
            _ => Err(UsageError(format!("several teams are configured; choose one with --team: {}", names())).into()),
        },
    }
}

/// Refuses to go on where the chosen team has no token.
pub(super) fn require_token(global: &Global, config: &Config) -> anyhow::Result<()> {
    let name = choose_team(config, global.team.as_deref())?;
    match config.teams.get(&name).and_then(|team| team.token.as_ref()) {
        Some(_) => Ok(()),
        None => Err(no_token(&name).into()),
    }
}

pub(super) fn no_token(team: &str) -> UsageError {
    UsageError(format!(
        "team {team} has no API token; set JELLY_API_TOKEN, or give --token-file, or set teams.{team}.token_file in the \
         configuration"
    ))
}
