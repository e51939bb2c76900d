//! What a dry run sees of an archive.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Session, choose_team};
use crate::catalog::{Catalog, TeamRow};
use crate::cli::{Global, UsageError};
use crate::clock::Clock;
use crate::config::{Config, Loaded};
use crate::filter::Filter;
use crate::ingest::Team;
use crate::store::{Archive, Place};

/// What a dry run sees: an archive and a catalog if they are there, and nothing that is written.
pub(in crate::cli) struct View {
    pub(in crate::cli) config: Config,
    pub(in crate::cli) catalog: Option<Box<Catalog>>,
    pub(in crate::cli) teams: BTreeMap<String, Team>,
    pub(in crate::cli) team_name: String,
}

impl View {
    /// Looks at the archive of the chosen team. Where there is a marker and a catalog, journal lines that this catalog
    /// has not seen are loaded into it; else nothing is known.
    pub(in crate::cli) async fn open(global: &Global, loaded: Loaded) -> anyhow::Result<Self> {
        let team_name = choose_team(&loaded.config, global.team.as_deref())?;
        let archive = match loaded.config.archive_for(&team_name) {
            Some(location) => {
                let place = Place::of(location, &loaded.config.buckets, &loaded.config.http, &Clock::system())?;
                Archive::find(&place).await?
            }
            None => None,
        };
        if archive.is_some() {
            let session = Session::open(global, loaded, false).await?;
            session.reload().await?;
            let Session { config, catalog, teams, team_name, intake, .. } = session;
            drop(intake);
            let catalog = Arc::into_inner(catalog).map(Box::new);
            return Ok(Self { config, catalog, teams, team_name });
        }
        let config = loaded.config;
        let mut teams = BTreeMap::new();
        for name in config.teams.keys() {
            let key = config.team_key(name).map_err(|error| UsageError(format!("teams.{name}: {error}")))?;
            let filter = Arc::new(Filter::compile(config.filter_for(name))?);
            teams.insert(name.clone(), Team { row: TeamRow::NONE, key, filter });
        }
        Ok(Self { config, catalog: None, teams, team_name })
    }
}
