//! The setting `catalog`: a folder, or the address of a PostgreSQL database.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::token::{self, Unread};
use super::{Config, ConfigError, Environment, Loaded, Origin, Overrides, values};
use crate::secret::Secret;

/// Where the catalog is kept.
#[derive(Debug, Clone)]
pub enum CatalogSetting {
    /// In a folder of this machine, by SQLite.
    Folder(PathBuf),
    /// In a PostgreSQL database, which many machines share.
    Postgres(PostgresUrl),
}

/// `[postgres]`: how a catalog in PostgreSQL is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresConfig {
    /// How long a statement may go unanswered before its connection is given up. What walks over whole tables has longer.
    #[serde(deserialize_with = "values::duration::<1_000, 3_600_000, _>")]
    pub answer_timeout: Duration,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self { answer_timeout: Duration::from_mins(1) }
    }
}

impl Config {
    /// Whether many processes share the catalog.
    pub fn catalog_is_shared(&self) -> bool {
        matches!(self.catalog, Some(CatalogSetting::Postgres(_)))
    }
}

impl CatalogSetting {
    /// The folder, if it is one.
    pub fn folder_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Postgres(_) => None,
        }
    }
}

impl CatalogSetting {
    /// What a person gave.
    pub(super) fn of(path: PathBuf) -> Result<Self, String> {
        match path.to_str() {
            Some(text) if has_scheme(text) => text.parse().map(Self::Postgres),
            Some(text) if is_address(text) => Err(format!("this is neither a folder nor {ADDRESS}; {AS_GIVEN}")),
            _ => values::check_path(&path).map(|()| Self::Folder(path)),
        }
    }

    /// Whether it is an address with a password in it.
    pub(super) fn has_password(&self) -> bool {
        matches!(self, Self::Postgres(url) if url.has_password)
    }
}

/// Takes over the place that a flag or the environment gives.
pub(super) fn take(loaded: &mut Loaded, overrides: &Overrides, environment: &Environment) -> Result<(), ConfigError> {
    let (variable, file_variable) = ("JELLYJAR_CATALOG", "JELLYJAR_CATALOG_FILE");
    let (setting, origin) = match (&overrides.catalog, environment.path(variable), environment.path(file_variable)) {
        (Some(given), _, _) => {
            let name = "--catalog";
            let setting = CatalogSetting::of(given.clone()).map_err(|message| ConfigError::Flag { name, message })?;
            if setting.has_password() {
                loaded.warnings.push(
                    "--catalog has a password in it, which every user of this machine can read there; put the address into \
                     JELLYJAR_CATALOG, or into a file that JELLYJAR_CATALOG_FILE names, or the password into ~/.pgpass"
                        .into(),
                );
            }
            (setting, Origin::Flag(name))
        }
        (None, Some(_), Some(_)) => {
            return Err(ConfigError::Conflict(format!(
                "{variable} and {file_variable} are both set; unset one of them"
            )));
        }
        (None, Some(given), None) => {
            let setting = CatalogSetting::of(given).map_err(|message| ConfigError::environment(variable, message))?;
            (setting, Origin::Environment(variable))
        }
        (None, None, Some(path)) => {
            let setting = read(&path).map_err(|message| ConfigError::environment(file_variable, message))?;
            if let Some(mode) = token::open_mode(&path).filter(|_| setting.has_password()) {
                let path = path.display();
                loaded.warnings.push(format!(
                    "the file {path} of the catalog's address can be read by others (mode {mode:04o}); run: chmod 600 {path}"
                ));
            }
            (setting, Origin::Environment(file_variable))
        }
        (None, None, None) => return Ok(()),
    };
    loaded.config.catalog = Some(setting);
    loaded.sources.set("catalog", origin);
    Ok(())
}

/// Reads a file that holds the place of a catalog alone.
fn read(path: &Path) -> Result<CatalogSetting, String> {
    if path.to_str().is_some_and(is_address) {
        return Err("this is an address and not the name of a file; set JELLYJAR_CATALOG to it".into());
    }
    let text = token::read_alone(path).map_err(|unread| match unread {
        Unread::Io(error) => format!("cannot read {}: {error}; check that you may read it", path.display()),
        Unread::Bad(problem) => format!("{}: {problem}", path.display()),
    })?;
    let text = text.expose();
    if text.contains(['\n', '\r']) {
        return Err(format!("{} has more than one line; write the address alone", path.display()));
    }
    CatalogSetting::of(text.into()).map_err(|message| format!("{}: {message}", path.display()))
}

const ADDRESS: &str = "postgres://USER@HOST/DATABASE";
/// Errors never repeat what was given: there may be a password in it.
const AS_GIVEN: &str = "it is not shown, as there may be a password in it";

fn has_scheme(text: &str) -> bool {
    let text = text.trim_start().to_ascii_lowercase();
    ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme))
}

/// Whether a text is meant as some address, with a password perhaps, that must not become the name of a folder.
pub(super) fn is_address(text: &str) -> bool {
    let text = text.trim_start().to_ascii_lowercase();
    let begins = ["postgres:", "postgresql:", "postgres//", "postgresql//"].iter().any(|word| text.starts_with(word));
    let names = ["host=", "hostaddr=", "dbname=", "user="];
    begins
        || text.contains("://")
        || (text.contains('@') && text.contains(':'))
        || ["password=", "passwd="].iter().any(|word| text.contains(word))
        || text.split_whitespace().any(|word| names.iter().any(|name| word.starts_with(name)))
}

impl fmt::Display for CatalogSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

/// The address of a PostgreSQL database. It shows itself without its password.
#[derive(Debug, Clone)]
pub struct PostgresUrl {
    whole: Secret,
    shown: String,
    database: String,
    role: Option<String>,
    has_password: bool,
}

impl PostgresUrl {
    /// The whole address, for the one place that connects.
    pub fn expose(&self) -> &str {
        self.whole.expose()
    }

    /// The database's name, as it is in the address.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The role's name, where the address has one.
    pub fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }
}

/// Parameters of an address that the driver knows. It warns of all others, and shows their values.
const PARAMETERS: [&str; 14] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
];
/// Those of them that say where the database is.
const PLACES: [&str; 4] = ["host", "hostaddr", "port", "user"];

/// Refuses a parameter that the driver does not know, or whose value it would repeat in an error.
fn check_parameter(name: &str, value: &str) -> Result<(), String> {
    if !PARAMETERS.contains(&name) {
        // What is no name may be the rest of a password that has a `?` in it.
        let is_name = name.len() <= 32 && name.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c == '_');
        let name = if is_name && !value.is_empty() { format!(" `{name}`") } else { String::new() };
        return Err(format!(
            "the catalog's address has a parameter{name} that is not known; there are sslmode, sslrootcert, sslcert, \
             sslkey, host, hostaddr, port, user and password; write ? in a password as %3F"
        ));
    }
    let fits = match name {
        "sslmode" | "ssl-mode" => {
            ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"].contains(&value)
        }
        "port" => value.parse::<u16>().is_ok(),
        "hostaddr" => value.parse::<IpAddr>().is_ok(),
        _ => !value.is_empty(),
    };
    let advice = match name {
        "sslmode" | "ssl-mode" => "; write disable, allow, prefer, require, verify-ca or verify-full",
        "hostaddr" => "; write an IP address, or use host",
        _ => "",
    };
    if fits { Ok(()) } else { Err(format!("the parameter {name} of the catalog's address does not fit{advice}")) }
}

impl FromStr for PostgresUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| {
            Err(format!("the catalog's address {why}; write {ADDRESS}, with @ : / ? # % in a password as %40 …"))
        };
        let text = text.trim();
        if !has_scheme(text) {
            return refuse("does not begin with postgres://");
        }
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => return refuse(&format!("cannot be read ({error})")),
        };
        let database = url.path().strip_prefix('/').unwrap_or_default();
        if database.is_empty() {
            return refuse("names no database");
        }
        if database.contains(['/', ':', '@']) || url.fragment().is_some() {
            return refuse("has more behind the host than a database's name");
        }
        if url.username().to_ascii_lowercase().contains("%3a") {
            return refuse("has a colon in the user's name");
        }
        for (name, value) in url.query_pairs() {
            check_parameter(&name, &value)?;
        }
        let host = url.host_str().unwrap_or_default();
        let user = if url.username().is_empty() { String::new() } else { format!("{}@", url.username()) };
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let places = url.query_pairs().filter(|(name, _)| PLACES.contains(&&**name));
        let places: Vec<String> = places.map(|(name, value)| format!("{name}={value}")).collect();
        let places = if places.is_empty() { String::new() } else { format!("?{}", places.join("&")) };
        Ok(Self {
            shown: format!("postgres://{user}{host}{port}/{database}{places}"),
            database: database.to_owned(),
            role: Some(url.username()).filter(|name| !name.is_empty()).map(str::to_owned),
            has_password: url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password"),
            whole: Secret::new(url.as_str()),
        })
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        CatalogSetting::of(text.into()).unwrap().to_string()
    }

    #[test]
    fn an_address_shows_itself_without_its_password() {
        let whole = "postgres://jar:s3cret@db.example:5433/archive";
        for text in [
            format!("{whole}?sslmode=verify-full&sslrootcert=/etc/db.pem"),
            format!("  {whole}\n"),
            whole.replace("postgres:", "PostgreSQL:"),
            "postgres://jar@db.example:5433/archive?password=s3cret".to_owned(),
        ] {
            let setting = CatalogSetting::of(text.into()).unwrap();
            assert_eq!(setting.to_string(), "postgres://jar@db.example:5433/archive");
            assert!(setting.has_password() && !format!("{setting:?}").contains("s3cret"));
        }
        assert!(!CatalogSetting::of("postgres://jar@db/archive?sslmode=require".into()).unwrap().has_password());
        assert!(!CatalogSetting::of("/srv/archive".into()).unwrap().has_password());
        let socket = "postgres:///archive?host=/run/postgresql&user=jar&password=s3cret";
        assert_eq!(shown(socket), "postgres:///archive?host=/run/postgresql&user=jar");
    }

    #[test]
    fn what_is_almost_an_address_is_refused_without_being_shown() {
        for text in [
            // No database, or more than one name.
            "postgres://jar:s3cret@db.example",
            "postgres://jar:s3cret@db.example/",
            "postgres://jar:s3 cret@[/x",
            "postgres://jar@db.example/archive/s3cret",
            "postgres://jar:1234/s3cret@db.example",
            "postgres://jar:12/34/s3cret@db.example/archive",
            "postgres://jar:1234#s3cret@db.example/archive",
            "postgres://jar:12?s3cret@db.example/archive",
            "postgres://jar%3As3cret@db.example/archive",
            // No `//`, or another scheme.
            "postgres:/jar:s3cret@db.example/archive",
            "postgresql:jar:s3cret@db.example/archive",
            "postgres//jar:s3cret@db.example/archive",
            " postgres:/jar:s3cret@db.example/archive",
            "mysql://jar:s3cret@db.example/archive",
            "s3cret://db.example/archive",
            "jar:s3cret@db.example/archive",
            "host=db.example password=s3cret dbname=archive",
            "host=s3cret dbname=archive",
            "PASSWORD = s3cret://",
        ] {
            let error = CatalogSetting::of(text.into()).unwrap_err();
            assert!(error.contains(ADDRESS) && !error.contains("cret"), "{text}: {error}");
            assert!(is_address(text), "{text}");
        }
    }

    #[test]
    fn a_parameter_that_the_driver_does_not_know_is_named_without_its_value() {
        let of = |query: &str| CatalogSetting::of(format!("postgres://jar@db/archive?{query}").into());
        for name in ["passwd", "sslpassword", "options", "channel_binding"] {
            let error = of(&format!("sslmode=require&{name}=s3cret")).unwrap_err();
            assert!(error.contains(&format!("`{name}`")) && !error.contains("s3cret"), "{error}");
        }
        for query in ["s3cret", "s3cret=", "s3cret@db", "sslmode=s3cret", "port=s3cret", "hostaddr=s3cret", "S3cret=x"]
        {
            let error = of(query).unwrap_err();
            assert!(!error.to_lowercase().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn an_address_comes_from_a_file_of_its_own_and_whoever_shows_its_password_is_warned() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let whole = "postgres://jar:s3cret@db.example/archive";
        std::fs::write(path("url"), format!("{whole}\n")).unwrap();
        std::fs::write(path("broken"), format!("{whole}/more\n")).unwrap();
        std::fs::write(path("two"), format!("{whole}\n{whole}\n")).unwrap();
        std::fs::write(path("settings"), format!("catalog = \"{whole}\"\n")).unwrap();
        for name in ["url", "settings"] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            std::fs::set_permissions(path(name), mode).unwrap();
        }
        let load = |catalog: Option<&str>, config: Option<&str>, variables: &[(&str, &str)]| {
            let overrides =
                Overrides { catalog: catalog.map(Into::into), config: config.map(path), ..Overrides::default() };
            let loaded = crate::config::load(&overrides, &Environment::from_pairs(variables.iter().copied()));
            assert!(!format!("{loaded:?}").contains("s3cret"), "{loaded:?}");
            loaded
        };
        let file = path("url");
        let file = file.to_str().unwrap();
        for (loaded, origin, warning) in [
            (load(None, None, &[("JELLYJAR_CATALOG_FILE", file)]), "JELLYJAR_CATALOG_FILE", "chmod 600"),
            (load(Some(whole), None, &[("JELLYJAR_CATALOG_FILE", "nowhere")]), "--catalog", "~/.pgpass"),
            (load(None, Some("settings"), &[]), "line 1", "holds a secret"),
        ] {
            let loaded = loaded.unwrap();
            assert_eq!(loaded.config.catalog.as_ref().unwrap().to_string(), "postgres://jar@db.example/archive");
            assert!(loaded.sources.of("catalog").to_string().contains(origin), "{origin}");
            assert!(loaded.warnings.iter().any(|one| one.contains(warning)), "{:?}", loaded.warnings);
        }
        let quiet = load(None, None, &[("JELLYJAR_CATALOG", whole)]).unwrap();
        assert_eq!(quiet.warnings, [""; 0]);
        for (value, words) in [
            (path("broken").display().to_string(), ADDRESS),
            (path("two").display().to_string(), "more than one line"),
            (path("nowhere").display().to_string(), "cannot read"),
            (whole.to_owned(), "set JELLYJAR_CATALOG to it"),
        ] {
            let error = load(None, None, &[("JELLYJAR_CATALOG_FILE", &value)]).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("s3cret"), "{error}");
        }
        let both = load(None, None, &[("JELLYJAR_CATALOG", whole), ("JELLYJAR_CATALOG_FILE", file)]);
        assert!(both.unwrap_err().to_string().contains("both set"));
    }

    #[test]
    fn anything_else_is_a_folder() {
        for path in ["./postgres", "postgres", "/srv/user=7/archive", "/srv/a@b", "/srv/12:30"] {
            assert!(matches!(CatalogSetting::of(path.into()), Ok(CatalogSetting::Folder(_))), "{path}");
        }
    }
}
