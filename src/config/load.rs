//! Puts the settings together: flag over environment over file over default, with the origin of each.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::environment::GivenSecret;
use super::file::{self, TeamFile};
use super::{
    CatalogSetting, Config, ConfigError, Environment, Origin, Sources, TeamConfig, catalog, check, credentials, notify,
    token, values, web,
};
use crate::model::Location;
use crate::secret::Secret;

/// The team that flags and environment describe.
pub const DEFAULT_TEAM: &str = "default";

/// The settings that flags give. `None` leaves a setting to environment, file and default.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`: the configuration file.
    pub config: Option<PathBuf>,
    /// `--archive`: a folder's path or a bucket's URL.
    pub archive: Option<OsString>,
    /// `--catalog`.
    pub catalog: Option<PathBuf>,
    /// `--api-url`.
    pub api_url: Option<String>,
    /// `--token-file`: a path, never the token.
    pub token_file: Option<PathBuf>,
    /// `--ca-file`.
    pub ca_file: Option<PathBuf>,
    /// `--concurrency`.
    pub concurrency: Option<usize>,
    /// `--listen`: where webhooks are taken.
    pub listen: Option<String>,
    /// `--ops-listen`: where health and metrics are told.
    pub ops_listen: Option<String>,
    /// Reads the files of webhook secrets, which other commands than `serve` may have no right to, and refuses addresses
    /// at which webhooks cannot be taken.
    pub read_webhooks: bool,
    /// Leaves token files unread, for commands that ask Jelly for nothing.
    pub skip_tokens: bool,
}

/// Settings that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Where each came from.
    pub sources: Sources,
    /// What is allowed but probably not meant; each a sentence.
    pub warnings: Vec<String>,
}

/// Reads the configuration.
///
/// # Errors
/// If a file, variable or flag cannot be read or does not fit. Messages never hold a secret.
pub fn load(overrides: &Overrides, environment: &Environment) -> Result<Loaded, ConfigError> {
    load_in(Path::new(""), overrides, environment)
}

/// Reads the configuration as seen from a working directory.
fn load_in(directory: &Path, overrides: &Overrides, environment: &Environment) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded { config: Config::default(), sources: Sources::default(), warnings: Vec::new() };
    let mut teams = BTreeMap::new();
    if let Some((path, found_by)) = find_file(directory, overrides, environment) {
        teams = loaded.take_file(&path, environment)?;
        loaded.sources.file = Some(path);
        loaded.sources.file_found_by = Some(found_by);
    }
    // The XDG Base Directory Specification: relative paths are invalid and ignored.
    let state_home = environment.path("XDG_STATE_HOME").filter(|path| path.is_absolute());
    loaded.config.state_home =
        state_home.or_else(|| environment.path("HOME").map(|home| home.join(".local").join("state")));
    loaded.take_paths(overrides, environment, &mut teams)?;
    loaded.take_others(overrides, environment)?;
    loaded.take_listeners(overrides, environment)?;
    loaded.take_teams(teams, overrides, environment)?;
    web::warn_of_stray_secret(&mut loaded, environment)?;
    credentials::take(&mut loaded, environment)?;
    // Who takes webhooks tells people of trouble, with or without tokens.
    notify::take(&mut loaded, environment, overrides.skip_tokens && !overrides.read_webhooks)?;
    for name in environment.unknown() {
        loaded.warnings.push(format!("the environment variable {name} is none that jellyjar knows; is it misspelt?"));
    }
    for name in ["JELLY_API_TOKEN", "JELLYJAR_CATALOG", "JELLYJAR_CATALOG_FILE"] {
        if environment.is_blank(name) {
            loaded.warnings.push(format!("{name} is empty, which counts as not set"));
        }
    }
    check::check(&mut loaded, overrides)?;
    Ok(loaded)
}

/// Finds the configuration file, and says what named it.
fn find_file(directory: &Path, overrides: &Overrides, environment: &Environment) -> Option<(PathBuf, &'static str)> {
    if let Some(path) = &overrides.config {
        return Some((path.clone(), "--config"));
    }
    if let Some(path) = environment.path("JELLYJAR_CONFIG") {
        return Some((path, "JELLYJAR_CONFIG"));
    }
    let here = directory.join("jellyjar.toml");
    if here.exists() {
        return Some((here, "its usual place, the working directory"));
    }
    // The XDG Base Directory Specification: relative paths are invalid and ignored.
    let home = environment.path("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let home = home.or_else(|| environment.path("HOME").map(|home| home.join(".config")));
    let path = home?.join("jellyjar/jellyjar.toml");
    path.exists().then_some((path, "its usual place, the user's configuration folder"))
}

impl Loaded {
    /// Takes over a configuration file. Its relative paths are taken from its own folder, `~/` from `HOME`.
    fn take_file(&mut self, path: &Path, environment: &Environment) -> Result<BTreeMap<String, TeamFile>, ConfigError> {
        let file::Parsed { file, lines } = file::read(path)?;
        let mut teams = file.teams;
        let folder = path.parent().unwrap_or(Path::new(""));
        let resolve = |key: &str, value: Option<&mut PathBuf>| -> Result<(), ConfigError> {
            let Some(given) = value else { return Ok(()) };
            *given = match given.strip_prefix("~") {
                Ok(rest) => environment.path("HOME").map(|home| home.join(rest)).ok_or_else(|| ConfigError::File {
                    path: path.to_owned(),
                    line: lines.get(key).copied(),
                    key: Some(key.to_owned()),
                    message: "`~` cannot be resolved, for HOME is not set; write the whole path".into(),
                })?,
                Err(_) => folder.join(&*given),
            };
            Ok(())
        };
        let config = &mut self.config;
        (config.archive, config.catalog) = (file.archive, file.catalog);
        (config.postgres, config.http) = (file.postgres, file.http);
        resolve("archive", config.archive.as_mut().and_then(Location::folder_mut))?;
        resolve("catalog", config.catalog.as_mut().and_then(CatalogSetting::folder_mut))?;
        resolve("http.ca_file", config.http.ca_file.as_mut())?;
        config.spool = file.spool;
        resolve("spool.folder", config.spool.folder.as_mut())?;
        config.sweep = file.sweep;
        config.backfill = file.backfill;
        config.inbox = file.inbox;
        resolve("inbox.folder", config.inbox.folder.as_mut())?;
        config.serve = file.serve;
        resolve("serve.tls_certificate", config.serve.tls_certificate.as_mut())?;
        resolve("serve.tls_key", config.serve.tls_key.as_mut())?;
        config.notify = file.notify;
        for (key, file) in config.notify.files_mut() {
            resolve(key, file.as_mut())?;
        }
        for (name, team) in &mut teams {
            resolve(&format!("teams.{name}.archive"), team.archive.as_mut().and_then(Location::folder_mut))?;
            resolve(&format!("teams.{name}.token_file"), team.token_file.as_mut())?;
            resolve(&format!("teams.{name}.webhook_secret_file"), team.webhook_secret_file.as_mut())?;
            resolve(&format!("teams.{name}.webhook_password_file"), team.webhook_password_file.as_mut())?;
            let blame = |message| ConfigError::File {
                path: path.to_owned(),
                line: lines.get(&format!("teams.{name}")).copied(),
                key: Some(format!("teams.{name}")),
                message,
            };
            values::check_name(name).map_err(blame)?;
            for (setting, both) in [
                ("token", team.token.is_some() && team.token_file.is_some()),
                ("webhook_secret", team.webhook_secret.is_some() && team.webhook_secret_file.is_some()),
                ("webhook_password", team.webhook_password.is_some() && team.webhook_password_file.is_some()),
            ] {
                if both {
                    return Err(blame(format!("both `{setting}` and `{setting}_file` are set; keep one of them")));
                }
            }
        }
        config.api = file.api;
        config.quota = file.quota;
        config.worker = file.worker;
        config.retry = file.retry;
        let buckets = &mut config.buckets;
        (buckets.common, buckets.s3, buckets.gcs, buckets.azure) = (file.bucket, file.s3, file.gcs, file.azure);
        config.source = file.source;
        config.filter = file.filter;
        let holds_secret = teams.values().any(TeamFile::has_secret)
            || config.notify.has_inline_address()
            || config.catalog.as_ref().is_some_and(CatalogSetting::has_password);
        if let Some(mode) = token::open_mode(path).filter(|_| holds_secret) {
            self.warnings.push(format!(
                "{} holds a secret and can be read by others (mode {mode:04o}); run: chmod 600 {}",
                path.display(),
                path.display()
            ));
        }
        for (key, line) in lines {
            self.sources.set(key, Origin::File { line });
        }
        Ok(teams)
    }

    /// Takes over the places that flags and environment give. The archive is also that of the team `default`.
    fn take_paths(
        &mut self,
        overrides: &Overrides,
        environment: &Environment,
        teams: &mut BTreeMap<String, TeamFile>,
    ) -> Result<(), ConfigError> {
        let pick = |flag: &'static str, given: &Option<PathBuf>, variable: &'static str| {
            let of_flag = given.clone().map(|path| (path, Origin::Flag(flag)));
            of_flag.or_else(|| Some((environment.path(variable)?, Origin::Environment(variable))))
        };
        let refused = |origin, variable, message| match origin {
            Origin::Flag(name) => ConfigError::Flag { name, message },
            _ => ConfigError::environment(variable, message),
        };
        let archive = match (&overrides.archive, environment.path("JELLYJAR_ARCHIVE")) {
            (Some(text), _) => {
                let place = values::location_of(text);
                let flag = "--archive";
                Some((place.map_err(|message| ConfigError::Flag { name: flag, message })?, Origin::Flag(flag)))
            }
            (None, Some(text)) => {
                let place = values::location_of(text.as_os_str());
                let variable = "JELLYJAR_ARCHIVE";
                let place = place.map_err(|message| ConfigError::environment(variable, message))?;
                Some((place, Origin::Environment(variable)))
            }
            (None, None) => None,
        };
        if let Some((place, origin)) = archive {
            self.config.archive = Some(place);
            self.sources.set("archive", origin);
            for (name, team) in teams {
                if name == DEFAULT_TEAM && team.archive.take().is_some() {
                    self.sources.set(format!("teams.{name}.archive"), origin);
                } else if team.archive.is_some() {
                    self.warnings
                        .push(format!("the archive of {origin} is not that of team `{name}`, which has its own"));
                }
            }
        }
        catalog::take(self, overrides, environment)?;
        if let Some((path, origin)) = pick("--ca-file", &overrides.ca_file, "JELLYJAR_CA_FILE") {
            values::check_path(&path).map_err(|message| refused(origin, "JELLYJAR_CA_FILE", message))?;
            self.config.http.ca_file = Some(path);
            self.sources.set("http.ca_file", origin);
        }
        Ok(())
    }

    /// Takes over the settings that flags and environment give and that are no paths.
    fn take_others(&mut self, overrides: &Overrides, environment: &Environment) -> Result<(), ConfigError> {
        if let Some(url) = &overrides.api_url {
            self.config.api.base_url.clone_from(url);
            self.sources.set("api.base_url", Origin::Flag("--api-url"));
        } else if let Some(url) = environment.text("JELLY_API_URL")? {
            url.clone_into(&mut self.config.api.base_url);
            self.sources.set("api.base_url", Origin::Environment("JELLY_API_URL"));
        }
        let message = || "write a whole number, 1 to 1024".to_owned();
        if let Some(concurrency) = overrides.concurrency {
            if !(1..=1024).contains(&concurrency) {
                return Err(ConfigError::Flag { name: "--concurrency", message: message() });
            }
            self.config.worker.concurrency = concurrency;
            self.sources.set("worker.concurrency", Origin::Flag("--concurrency"));
        } else if let Some(text) = environment.text("JELLYJAR_CONCURRENCY")? {
            let number = text.trim().parse().ok().filter(|number| (1..=1024).contains(number));
            self.config.worker.concurrency =
                number.ok_or_else(|| ConfigError::environment("JELLYJAR_CONCURRENCY", message()))?;
            self.sources.set("worker.concurrency", Origin::Environment("JELLYJAR_CONCURRENCY"));
        }
        Ok(())
    }

    /// Makes the teams, and reads their tokens.
    fn take_teams(
        &mut self,
        mut teams: BTreeMap<String, TeamFile>,
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<(), ConfigError> {
        let given = given_token(overrides, environment)?;
        if teams.is_empty() {
            teams.insert(DEFAULT_TEAM.into(), TeamFile::default());
        } else if let Some(given) = given.as_ref().filter(|_| !teams.contains_key(DEFAULT_TEAM)) {
            let names: Vec<_> = teams.keys().map(|name| format!("`{name}`")).collect();
            self.warnings.push(format!(
                "the token of {} makes a team `{DEFAULT_TEAM}` besides {}; if it is the token of one of these, take it away",
                given.origin(),
                names.join(", ")
            ));
            teams.insert(DEFAULT_TEAM.into(), TeamFile::default());
        }
        for (name, mut file) in teams {
            let webhook = self.take_webhook(&name, &mut file, overrides, environment)?;
            let TeamFile { mut token, mut token_file, archive, archive_key, egress_group, filter, .. } = file;
            if let Some(given) = given.as_ref().filter(|_| name == DEFAULT_TEAM) {
                let key = if matches!(given, GivenToken::Value(..)) { "token" } else { "token_file" };
                self.sources.set(format!("teams.{name}.{key}"), given.origin());
                (token, token_file) = match given {
                    GivenToken::Value(value, _) => (Some(value.clone()), None),
                    GivenToken::File(path, _) => (None, Some(path.clone())),
                };
            }
            if let Some(path) = token_file.as_ref().filter(|_| !overrides.skip_tokens) {
                token = Some(token::read(&name, path)?);
                if let Some(mode) = token::open_mode(path) {
                    let path = path.display();
                    self.warnings.push(format!(
                        "the token file {path} of team `{name}` can be read by others (mode {mode:04o}); run: chmod 600 {path}"
                    ));
                }
            }
            let team = TeamConfig { token, token_file, archive, archive_key, egress_group, filter, webhook };
            self.config.teams.insert(name, team);
        }
        Ok(())
    }
}

/// A token that flags or environment give.
enum GivenToken {
    Value(Secret, Origin),
    File(PathBuf, Origin),
}

impl GivenToken {
    fn origin(&self) -> Origin {
        match self {
            Self::Value(_, origin) | Self::File(_, origin) => *origin,
        }
    }
}

/// Takes the token that flags or environment give, if they do.
fn given_token(overrides: &Overrides, environment: &Environment) -> Result<Option<GivenToken>, ConfigError> {
    if let Some(path) = &overrides.token_file {
        let flag = "--token-file";
        values::check_path(path).map_err(|message| ConfigError::Flag { name: flag, message })?;
        return Ok(Some(GivenToken::File(path.clone(), Origin::Flag(flag))));
    }
    match environment.secret("JELLY_API_TOKEN", "JELLY_API_TOKEN_FILE")? {
        None => Ok(None),
        Some(GivenSecret::Value(value)) => match token::problem(value) {
            Some(problem) => Err(ConfigError::environment("JELLY_API_TOKEN", format!("no usable token: {problem}"))),
            None => Ok(Some(GivenToken::Value(Secret::new(value), Origin::Environment("JELLY_API_TOKEN")))),
        },
        Some(GivenSecret::File(path)) => Ok(Some(GivenToken::File(path, Origin::Environment("JELLY_API_TOKEN_FILE")))),
    }
}

#[cfg(test)]
mod bucket_tests;
#[cfg(test)]
mod tests;
