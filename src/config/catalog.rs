//! The setting `catalog`: a folder, or the address of a PostgreSQL database.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use super::Config;
use crate::secret::Secret;

/// Where the catalog is kept.
#[derive(Debug, Clone)]
pub enum CatalogSetting {
    /// In a folder of this machine, by SQLite.
    Folder(PathBuf),
    /// In a PostgreSQL database, which many machines share.
    Postgres(PostgresUrl),
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
            Some(text) if text.starts_with("postgres:") || text.starts_with("postgresql:") => {
                text.parse().map(Self::Postgres)
            }
            _ => super::values::check_path(&path).map(|()| Self::Folder(path)),
        }
    }
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
}

impl PostgresUrl {
    /// The whole address, for the one place that connects.
    pub fn expose(&self) -> &str {
        self.whole.expose()
    }
}

impl FromStr for PostgresUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // The text itself is not shown: it may hold a password.
        let url = Url::parse(text).map_err(|error| {
            format!("the catalog's address is no postgres://USER@HOST/DATABASE ({error}); write @ : / % in a password as %40 …")
        })?;
        if url.path().trim_start_matches('/').is_empty() {
            return Err("the catalog's address names no database; write postgres://USER@HOST/DATABASE".into());
        }
        let host = url.host_str().unwrap_or_default();
        let user = if url.username().is_empty() { String::new() } else { format!("{}@", url.username()) };
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        let shown = format!("postgres://{user}{host}{port}{}", url.path());
        Ok(Self { whole: Secret::new(text), shown })
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

    #[test]
    fn an_address_shows_itself_without_its_password() {
        let setting =
            CatalogSetting::of("postgres://jar:s3cret@db.example:5433/archive?sslpassword=s3cret".into()).unwrap();
        assert_eq!(setting.to_string(), "postgres://jar@db.example:5433/archive");
        assert!(!format!("{setting:?}").contains("s3cret"));
    }

    #[test]
    fn an_address_without_a_database_is_refused_without_being_shown() {
        for text in
            ["postgres://jar:s3cret@db.example", "postgres://jar:s3cret@db.example/", "postgres://jar:s3 cret@[/x"]
        {
            let error = CatalogSetting::of(text.into()).unwrap_err();
            assert!(error.contains("postgres://USER@HOST/DATABASE") && !error.contains("cret"), "{error}");
        }
    }

    #[test]
    fn anything_else_is_a_folder() {
        assert!(matches!(CatalogSetting::of("./postgres".into()), Ok(CatalogSetting::Folder(_))));
    }
}
