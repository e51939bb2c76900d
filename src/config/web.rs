//! Settings of `jellyjar serve`: where it listens, what a sender may take, and by what a team's webhooks are known.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::environment::GivenSecret;
use super::file::TeamFile;
use super::{ConfigError, DEFAULT_TEAM, Environment, Loaded, Origin, Overrides, token, values};
use crate::secret::Secret;

/// A signing secret shorter than this is easier to guess than it should be.
const SHORT_SECRET_CHARACTERS: usize = 16;

/// The most secrets that are accepted at once: the new one and the one that it replaces.
const MAX_SECRETS: usize = 2;

/// The bodies up to this size share what `max_in_flight` leaves; larger ones come in one at a time.
pub const SMALL_BODY_BYTES: u64 = 1 << 20;

/// The least that small bodies must have to share, in bytes.
const LEAST_SHARED_BYTES: u64 = 8 << 20;

/// Where webhooks and questions of operators are taken, and what one sender may take from the others.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeConfig {
    /// Where webhooks come in.
    #[serde(deserialize_with = "values::address")]
    pub listen: SocketAddr,
    /// Where health and metrics are told.
    #[serde(deserialize_with = "values::address")]
    pub ops_listen: SocketAddr,
    /// The certificate chain of the public listener (PEM); read again when it changes.
    #[serde(deserialize_with = "values::optional_path")]
    pub tls_certificate: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[serde(deserialize_with = "values::optional_path")]
    pub tls_key: Option<PathBuf>,
    /// The largest body that is taken, in bytes.
    #[serde(rename = "max_body_size", deserialize_with = "values::size::<1024, { 1 << 30 }, _>")]
    pub max_body_bytes: u64,
    /// What all bodies may take in memory, in bytes.
    #[serde(rename = "max_in_flight", deserialize_with = "values::size::<{ 8 << 20 }, { 1 << 40 }, _>")]
    pub max_in_flight_bytes: u64,
    /// How long a connection may take to be made, and a request's head to come.
    #[serde(deserialize_with = "values::duration::<100, 300_000, _>")]
    pub header_timeout: Duration,
    /// How long a connection is kept between requests.
    #[serde(deserialize_with = "values::duration::<100, 3_600_000, _>")]
    pub idle_timeout: Duration,
    /// How long a body may take to come.
    #[serde(deserialize_with = "values::duration::<100, 3_600_000, _>")]
    pub body_timeout: Duration,
    /// The bytes that must come in each second, on average, once `header_timeout` has passed.
    #[serde(rename = "min_body_rate", deserialize_with = "values::size::<1, { 1 << 30 }, _>")]
    pub min_body_rate_bytes: u64,
    /// How long a body may wait for memory, and how long it may take to be stored, before its sender is told to come again.
    #[serde(deserialize_with = "values::duration::<100, 300_000, _>")]
    pub store_timeout: Duration,
    /// How many connections are served at once; more wait until one ends.
    #[serde(deserialize_with = "values::count::<1, 65_536, _, _>")]
    pub max_connections: usize,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            ops_listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            tls_certificate: None,
            tls_key: None,
            max_body_bytes: 64 << 20,
            max_in_flight_bytes: 84 << 20,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            body_timeout: Duration::from_mins(2),
            min_body_rate_bytes: 16 << 10,
            store_timeout: Duration::from_secs(20),
            max_connections: 2048,
        }
    }
}

/// By what a team's webhooks are known. Without a secret, and without leave for unsigned ones, none is accepted.
#[derive(Debug, Clone, Default)]
pub struct WebhookConfig {
    /// The signing secrets: one, or two while one replaces the other.
    pub secrets: Vec<Secret>,
    /// The file that they came from, or would come from where secrets are not read.
    pub secret_file: Option<PathBuf>,
    /// The user name of Basic authentication; with it every webhook must have it.
    pub username: Option<String>,
    /// The password that belongs to it.
    pub password: Option<Secret>,
    /// The file that the password came from, or would come from.
    pub password_file: Option<PathBuf>,
    /// Whether unsigned webhooks are accepted, on Basic authentication alone.
    pub allow_unsigned: bool,
}

impl WebhookConfig {
    /// Whether any webhook could be accepted.
    pub fn accepts_any(&self) -> bool {
        !self.secrets.is_empty() || self.secret_file.is_some() || self.allow_unsigned
    }
}

/// Reads an inline secret, whose errors must not repeat the value.
pub(super) fn inline<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let toml::Value::String(text) = toml::Value::deserialize(deserializer)? else {
        return Err(serde::de::Error::custom(
            "a secret is a text in quotes; better, put it in a file and set its path, with `_file` at the setting's end",
        ));
    };
    Ok(Some(Secret::new(&text)))
}

/// Takes the secrets out of a text: one, or two with white space between them.
fn split(text: &Secret) -> Result<Vec<Secret>, &'static str> {
    let words: Vec<_> = text.expose().split_whitespace().collect();
    if words.is_empty() {
        Err("it is empty")
    } else if words.len() > MAX_SECRETS {
        Err("it has more than two words; write one secret, or two with a space or a line break between them")
    } else if !words.iter().all(|word| word.chars().all(|c| c.is_ascii_graphic())) {
        Err("it has control or non-ASCII characters; copy the secret again from Jelly")
    } else {
        Ok(words.into_iter().map(Secret::new).collect())
    }
}

/// Says why a text cannot be a password; `None` if it can.
fn password_problem(text: &Secret) -> Option<&'static str> {
    if text.is_empty() {
        Some("it is empty")
    } else if text.expose().contains(char::is_control) {
        Some("it has control characters or more than one line; write the password alone")
    } else {
        None
    }
}

impl TeamFile {
    /// Takes out what stands there of webhooks, with the secrets still unread.
    fn take_webhook(&mut self) -> (WebhookConfig, Option<Secret>) {
        let webhook = WebhookConfig {
            secrets: Vec::new(),
            secret_file: self.webhook_secret_file.take(),
            username: self.webhook_username.take(),
            password: self.webhook_password.take(),
            password_file: self.webhook_password_file.take(),
            allow_unsigned: self.allow_unsigned_webhooks,
        };
        (webhook, self.webhook_secret.take())
    }
}

impl Loaded {
    /// Takes over where to listen from flags and environment.
    pub(super) fn take_listeners(
        &mut self,
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<(), ConfigError> {
        let serve = &mut self.config.serve;
        for (key, flag, given, variable, address) in [
            ("serve.listen", "--listen", &overrides.listen, "JELLYJAR_LISTEN", &mut serve.listen),
            ("serve.ops_listen", "--ops-listen", &overrides.ops_listen, "JELLYJAR_OPS_LISTEN", &mut serve.ops_listen),
        ] {
            if let Some(text) = given {
                let parsed = values::parse_address(text);
                *address = parsed.map_err(|message| ConfigError::Flag { name: flag, message })?;
                self.sources.set(key, Origin::Flag(flag));
            } else if let Some(text) = environment.text(variable)? {
                let parsed = values::parse_address(text);
                *address = parsed.map_err(|message| ConfigError::environment(variable, message))?;
                self.sources.set(key, Origin::Environment(variable));
            }
        }
        Ok(())
    }

    /// Makes what a team's webhooks are known by, and reads the files of its secrets where they are wanted.
    pub(super) fn take_webhook(
        &mut self,
        team: &str,
        file: &mut TeamFile,
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<WebhookConfig, ConfigError> {
        let (mut webhook, mut inline) = file.take_webhook();
        let key = |name: &str| format!("teams.{team}.{name}");
        let mut blamed = key("webhook_secret");
        if let Some(given) = given_secret(environment)?.filter(|_| team == DEFAULT_TEAM) {
            let (name, origin) = match &given {
                GivenSecret::Value(_) => ("webhook_secret", "JELLY_WEBHOOK_SECRET"),
                GivenSecret::File(_) => ("webhook_secret_file", "JELLY_WEBHOOK_SECRET_FILE"),
            };
            blamed = key(name);
            self.sources.set(&blamed, Origin::Environment(origin));
            (inline, webhook.secret_file) = match given {
                GivenSecret::Value(text) => (Some(Secret::new(text)), None),
                GivenSecret::File(path) => (None, Some(path)),
            };
        }
        if let Some(text) = inline {
            let secrets = split(&text);
            webhook.secrets = secrets.map_err(|problem| self.blame(&blamed, format!("no usable secret: {problem}")))?;
        }
        if let Some(text) = &webhook.password
            && let Some(problem) = password_problem(text)
        {
            return Err(self.blame(&key("webhook_password"), format!("no usable password: {problem}")));
        }
        if overrides.read_webhooks {
            if let Some(path) = &webhook.secret_file {
                let what = "webhook secret";
                let text = self.read_secret(what, team, path)?;
                let bad = |problem| ConfigError::BadSecret { what, team: team.to_owned(), path: path.clone(), problem };
                webhook.secrets = split(&text).map_err(bad)?;
            }
            if let Some(path) = &webhook.password_file {
                let what = "webhook password";
                let text = self.read_secret(what, team, path)?;
                if let Some(problem) = password_problem(&text) {
                    return Err(ConfigError::BadSecret { what, team: team.to_owned(), path: path.clone(), problem });
                }
                webhook.password = Some(text);
            }
        }
        self.check_webhook(team, &webhook)?;
        // Whoever takes no webhooks has others to say it.
        if overrides.read_webhooks {
            self.warn_of_short_secrets(team, &webhook);
        }
        Ok(webhook)
    }

    /// Reads the file of a secret, and warns if others may read it too.
    fn read_secret(&mut self, what: &'static str, team: &str, path: &Path) -> Result<Secret, ConfigError> {
        let text = token::read_text(what, team, path)?;
        if let Some(mode) = token::open_mode(path) {
            let path = path.display();
            self.warnings.push(format!(
                "the {what} file {path} of team `{team}` can be read by others (mode {mode:04o}); run: chmod 600 {path}"
            ));
        }
        Ok(text)
    }

    /// Refuses what would let strangers in, or nobody.
    fn check_webhook(&mut self, team: &str, webhook: &WebhookConfig) -> Result<(), ConfigError> {
        let key = |name: &str| format!("teams.{team}.{name}");
        let has_password = webhook.password.is_some() || webhook.password_file.is_some();
        if let Some(username) = &webhook.username {
            if !has_password {
                let message = "there is no password with it; set `webhook_password_file` too";
                return Err(self.blame(&key("webhook_username"), message));
            }
            // RFC 7617, section 2: the first colon ends the user name.
            if username.is_empty() || username.contains(':') || username.contains(char::is_control) {
                let message = "a user name has no colon and no control characters, and is not empty";
                return Err(self.blame(&key("webhook_username"), message));
            }
        } else if has_password {
            let name = if webhook.password_file.is_some() { "webhook_password_file" } else { "webhook_password" };
            let message = "there is no user name with it; set `webhook_username` too";
            return Err(self.blame(&key(name), message));
        }
        if webhook.allow_unsigned && webhook.username.is_none() {
            let message =
                "without a signature anybody could send; set `webhook_username` and `webhook_password_file` too";
            return Err(self.blame(&key("allow_unsigned_webhooks"), message));
        }
        Ok(())
    }

    fn warn_of_short_secrets(&mut self, team: &str, webhook: &WebhookConfig) {
        if webhook.secrets.iter().any(|secret| secret.expose().len() < SHORT_SECRET_CHARACTERS) {
            self.warnings.push(format!(
                "a webhook secret of team `{team}` has less than {SHORT_SECRET_CHARACTERS} characters, and may be guessed"
            ));
        }
    }

    /// Blames the place that a setting came from.
    fn blame(&self, key: &str, message: impl Into<String>) -> ConfigError {
        super::check::blame(&self.sources, key, message)
    }
}

/// Checks `[serve]` as a whole.
pub(super) fn check(loaded: &mut Loaded, overrides: &Overrides) -> Result<(), ConfigError> {
    let serve = &loaded.config.serve;
    match (&serve.tls_certificate, &serve.tls_key) {
        (Some(_), None) => {
            return Err(loaded.blame("serve.tls_certificate", "there is no key with it; set `serve.tls_key` too"));
        }
        (None, Some(_)) => {
            let message = "there is no certificate with it; set `serve.tls_certificate` too";
            return Err(loaded.blame("serve.tls_key", message));
        }
        _ => {}
    }
    let least = serve.max_body_bytes.saturating_add(LEAST_SHARED_BYTES);
    if serve.max_in_flight_bytes < least {
        let message = format!(
            "`max_in_flight` ({}) has no room for one body of `max_body_size` ({}) and {} for all others; write at least {}",
            values::format_size(serve.max_in_flight_bytes),
            values::format_size(serve.max_body_bytes),
            values::format_size(LEAST_SHARED_BYTES),
            values::format_size(least),
        );
        let key = if loaded.sources.is_set("serve.max_in_flight") { "max_in_flight" } else { "max_body_size" };
        return Err(loaded.blame(&format!("serve.{key}"), message));
    }
    // Who takes no webhooks listens for operations alone.
    if overrides.read_webhooks && serve.listen == serve.ops_listen && serve.listen.port() != 0 {
        let key = if loaded.sources.is_set("serve.ops_listen") { "serve.ops_listen" } else { "serve.listen" };
        let message = "webhooks and operations cannot share an address; write another port";
        return Err(loaded.blame(key, message));
    }
    if !serve.listen.ip().is_loopback() && serve.tls_certificate.is_none() {
        loaded.warnings.push(format!(
            "webhooks are taken at {} without TLS, so mail travels in the clear; set `serve.tls_certificate` and \
             `serve.tls_key`, or listen on 127.0.0.1 behind a proxy that has TLS",
            serve.listen
        ));
    }
    if !serve.ops_listen.ip().is_loopback() {
        loaded.warnings.push(format!(
            "health and metrics are told to everybody who reaches {}; let only your own network reach it",
            serve.ops_listen
        ));
    }
    Ok(())
}

/// Says that a secret of the environment is for nobody.
pub(super) fn warn_of_stray_secret(loaded: &mut Loaded, environment: &Environment) -> Result<(), ConfigError> {
    if !loaded.config.teams.contains_key(DEFAULT_TEAM) && given_secret(environment)?.is_some() {
        loaded.warnings.push(format!(
            "the webhook secret of the environment has no effect, for there is no team `{DEFAULT_TEAM}`; set \
             `webhook_secret_file` under the team that it belongs to"
        ));
    }
    Ok(())
}

/// Takes the secret that the environment gives, if it does.
fn given_secret(environment: &Environment) -> Result<Option<GivenSecret<'_>>, ConfigError> {
    environment.secret("JELLY_WEBHOOK_SECRET", "JELLY_WEBHOOK_SECRET_FILE")
}

#[cfg(test)]
mod tests;
