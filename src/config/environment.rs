//! The process environment, read once; everything else takes an [`Environment`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::ConfigError;

/// The variables that jellyjar reads, with what each sets.
pub const VARIABLES: [(&str, &str); 20] = [
    ("JELLY_API_TOKEN", "the API token of the team `default`"),
    ("JELLY_API_TOKEN_FILE", "a file that holds the API token of the team `default`"),
    ("JELLY_API_URL", "api.base_url"),
    ("JELLY_WEBHOOK_SECRET", "the webhook secret of the team `default`, or two of them"),
    ("JELLY_WEBHOOK_SECRET_FILE", "a file that holds the webhook secret of the team `default`, or two of them"),
    ("JELLYJAR_ARCHIVE", "archive"),
    ("JELLYJAR_CATALOG", "catalog"),
    ("JELLYJAR_CATALOG_FILE", "a file that holds `catalog`: an address with a password"),
    ("JELLYJAR_CONFIG", "the configuration file"),
    ("JELLYJAR_CA_FILE", "http.ca_file"),
    ("JELLYJAR_CONCURRENCY", "worker.concurrency"),
    ("JELLYJAR_LISTEN", "serve.listen"),
    ("JELLYJAR_OPS_LISTEN", "serve.ops_listen"),
    ("JELLYJAR_LOG", "what is logged"),
    ("JELLYJAR_NOTIFY_WEBHOOK_URL", "notify.webhook_url"),
    ("JELLYJAR_NOTIFY_WEBHOOK_URL_FILE", "notify.webhook_url_file"),
    ("JELLYJAR_NOTIFY_SLACK_URL", "notify.slack_url"),
    ("JELLYJAR_NOTIFY_SLACK_URL_FILE", "notify.slack_url_file"),
    ("JELLYJAR_NOTIFY_PING_URL", "notify.ping_url"),
    ("JELLYJAR_NOTIFY_PING_URL_FILE", "notify.ping_url_file"),
];

/// A secret that the environment gives, unchecked.
pub(super) enum GivenSecret<'a> {
    Value(&'a str),
    File(PathBuf),
}

/// Environment variables by name. An empty value counts as not set.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// Takes the variables of this process. The only place that reads them.
    pub fn from_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// Makes an environment of the given variables and no others.
    pub fn from_pairs<K: Into<OsString>, V: Into<OsString>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The value of a variable as a path; `None` where it is missing or empty.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.raw(name).map(PathBuf::from)
    }

    /// The value of a variable as text; `None` where it is missing or empty.
    ///
    /// # Errors
    /// If it is not UTF-8; the value is not shown.
    pub fn text(&self, name: &'static str) -> Result<Option<&str>, ConfigError> {
        self.raw(name).map_or(Ok(None), |value| {
            value.to_str().map(Some).ok_or_else(|| ConfigError::environment(name, "it is not valid UTF-8"))
        })
    }

    /// A secret that one variable holds, or a file that another names; the two exclude each other.
    ///
    /// # Errors
    /// If both are set, or if the secret is not UTF-8; it is not shown.
    pub(super) fn secret(
        &self,
        variable: &'static str,
        file_variable: &'static str,
    ) -> Result<Option<GivenSecret<'_>>, ConfigError> {
        match (self.text(variable)?, self.path(file_variable)) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err(ConfigError::Conflict(format!("{variable} and {file_variable} are both set; unset one of them")))
            }
            (Some(text), None) => Ok(Some(GivenSecret::Value(text))),
            (None, Some(path)) => Ok(Some(GivenSecret::File(path))),
        }
    }

    /// Whether a variable is there but empty.
    pub(super) fn is_blank(&self, name: &str) -> bool {
        self.0.get(OsStr::new(name)).is_some_and(|value| value.is_empty())
    }

    /// The variables that look like ours and are not.
    pub(super) fn unknown(&self) -> Vec<String> {
        let known = |name: &str| VARIABLES.iter().any(|(variable, _)| *variable == name);
        self.0
            .keys()
            .filter_map(|name| name.to_str())
            .filter(|name| {
                ["JELLYJAR_", "JELLY_API_", "JELLY_WEBHOOK_"].iter().any(|ours| name.starts_with(ours)) && !known(name)
            })
            .map(str::to_owned)
            .collect()
    }

    fn raw(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).filter(|value| !value.is_empty()).map(OsString::as_os_str)
    }
}

impl std::fmt::Debug for Environment {
    /// Shows the names only: values may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_form_shows_no_value() {
        let environment = Environment::from_pairs([("JELLY_API_TOKEN", "hush")]);
        assert_eq!(format!("{environment:?}"), r#"{"JELLY_API_TOKEN"}"#);
    }

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        let environment = Environment::from_pairs([("JELLY_API_URL", "")]);
        assert!(matches!(environment.text("JELLY_API_URL"), Ok(None)));
        assert!(environment.is_blank("JELLY_API_URL"));
        assert!(!environment.is_blank("JELLYJAR_ARCHIVE"));
    }
}
