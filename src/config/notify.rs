//! `[notify]`: who is told of trouble, and when. The addresses are secrets: whoever has one can post to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use url::Url;

use super::environment::GivenSecret;
use super::http::names_loopback;
use super::token::Unread;
use super::{ConfigError, Environment, Loaded, Origin, token, values};
use crate::secret::Secret;

/// Who is told of trouble, and when. Without any address nobody is.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifyConfig {
    /// Where notifications are posted as JSON.
    #[serde(deserialize_with = "inline")]
    pub webhook_url: Option<Secret>,
    /// The file that holds this address.
    #[serde(deserialize_with = "values::optional_path")]
    pub webhook_url_file: Option<PathBuf>,
    /// Where they are posted as Slack, and what speaks like it, takes them.
    #[serde(deserialize_with = "inline")]
    pub slack_url: Option<Secret>,
    /// The file that holds this address.
    #[serde(deserialize_with = "values::optional_path")]
    pub slack_url_file: Option<PathBuf>,
    /// What is asked for again and again while all is well; with `/fail` behind it when not.
    #[serde(deserialize_with = "inline")]
    pub ping_url: Option<Secret>,
    /// The file that holds this address.
    #[serde(deserialize_with = "values::optional_path")]
    pub ping_url_file: Option<PathBuf>,
    /// How often it is asked for.
    #[serde(deserialize_with = "values::duration::<10_000, 86_400_000, _>")]
    pub ping_every: Duration,
    /// The name of this installation, for people who have several.
    pub name: Option<String>,
    /// How long trouble must last before it is told of, and be over before that is.
    #[serde(deserialize_with = "values::duration::<0, 3_600_000, _>")]
    pub delay: Duration,
    /// How often it is told of again while it lasts.
    #[serde(deserialize_with = "values::duration::<60_000, 2_592_000_000, _>")]
    pub repeat_every: Duration,
    /// For how long nothing may be archived while work waits.
    #[serde(deserialize_with = "values::duration::<1_000, 2_592_000_000, _>")]
    pub no_success_after: Duration,
    /// Below how much free space a disk counts as nearly full, in bytes.
    #[serde(rename = "disk_free_below", deserialize_with = "values::size::<0, { 1 << 50 }, _>")]
    pub disk_free_below_bytes: u64,
    /// How long before the certificate of the public listener expires that is told.
    #[serde(deserialize_with = "values::duration::<0, 31_536_000_000, _>")]
    pub certificate_expires_within: Duration,
    /// How long one delivery may take.
    #[serde(deserialize_with = "values::duration::<1_000, 60_000, _>")]
    pub timeout: Duration,
}

impl Default for NotifyConfig {
    fn default() -> Self {
        Self {
            webhook_url: None,
            webhook_url_file: None,
            slack_url: None,
            slack_url_file: None,
            ping_url: None,
            ping_url_file: None,
            ping_every: Duration::from_mins(5),
            name: None,
            delay: Duration::from_mins(1),
            repeat_every: Duration::from_hours(6),
            no_success_after: Duration::from_hours(6),
            disk_free_below_bytes: 2 << 30,
            certificate_expires_within: Duration::from_hours(14 * 24),
            timeout: Duration::from_secs(10),
        }
    }
}

impl NotifyConfig {
    /// Whether an address stands in the file itself.
    pub(super) fn has_inline_address(&self) -> bool {
        self.webhook_url.is_some() || self.slack_url.is_some() || self.ping_url.is_some()
    }

    /// The files that hold addresses, with the names of their settings.
    pub(super) fn files_mut(&mut self) -> [(&'static str, &mut Option<PathBuf>); 3] {
        [
            ("notify.webhook_url_file", &mut self.webhook_url_file),
            ("notify.slack_url_file", &mut self.slack_url_file),
            ("notify.ping_url_file", &mut self.ping_url_file),
        ]
    }
}

/// One address: its settings and its variables.
struct Address<'a> {
    key: &'static str,
    file_key: &'static str,
    variable: &'static str,
    file_variable: &'static str,
    url: &'a mut Option<Secret>,
    file: &'a mut Option<PathBuf>,
}

/// Takes over the addresses that the environment gives, and reads those that are in files, unless `skip_files`.
pub(super) fn take(loaded: &mut Loaded, environment: &Environment, skip_files: bool) -> Result<(), ConfigError> {
    let Loaded { config, sources, warnings } = loaded;
    let notify = &mut config.notify;
    for address in [
        Address {
            key: "notify.webhook_url",
            file_key: "notify.webhook_url_file",
            variable: "JELLYJAR_NOTIFY_WEBHOOK_URL",
            file_variable: "JELLYJAR_NOTIFY_WEBHOOK_URL_FILE",
            url: &mut notify.webhook_url,
            file: &mut notify.webhook_url_file,
        },
        Address {
            key: "notify.slack_url",
            file_key: "notify.slack_url_file",
            variable: "JELLYJAR_NOTIFY_SLACK_URL",
            file_variable: "JELLYJAR_NOTIFY_SLACK_URL_FILE",
            url: &mut notify.slack_url,
            file: &mut notify.slack_url_file,
        },
        Address {
            key: "notify.ping_url",
            file_key: "notify.ping_url_file",
            variable: "JELLYJAR_NOTIFY_PING_URL",
            file_variable: "JELLYJAR_NOTIFY_PING_URL_FILE",
            url: &mut notify.ping_url,
            file: &mut notify.ping_url_file,
        },
    ] {
        let Address { key, file_key, variable, file_variable, url, file } = address;
        match environment.secret(variable, file_variable)? {
            Some(GivenSecret::Value(text)) => {
                if let Some(problem) = problem(text) {
                    return Err(ConfigError::environment(variable, problem));
                }
                (*url, *file) = (Some(Secret::new(text)), None);
                sources.set(key, Origin::Environment(variable));
            }
            Some(GivenSecret::File(path)) => {
                (*url, *file) = (None, Some(path));
                sources.set(file_key, Origin::Environment(file_variable));
            }
            None if url.is_some() && file.is_some() => {
                let place = sources.locate(key).map(|place| format!("{place}: ")).unwrap_or_default();
                let message = format!("{place}both `{key}` and `{file_key}` are set; keep one of them");
                return Err(ConfigError::Conflict(message));
            }
            None => {}
        }
        if let Some(path) = file.as_ref().filter(|_| !skip_files) {
            *url = Some(read(file_key, path)?);
            if let Some(mode) = token::open_mode(path) {
                let path = path.display();
                warnings.push(format!(
                    "the file {path} of `{file_key}` can be read by others (mode {mode:04o}); run: chmod 600 {path}"
                ));
            }
        }
    }
    Ok(())
}

/// Says why a text cannot be an address for notifications; never repeats it.
fn problem(text: &str) -> Option<&'static str> {
    const ADVICE: &str = "this is no usable URL; write one like \"https://hooks.example/…\"";
    if token::problem(text).is_some() {
        return Some(ADVICE);
    }
    let Ok(url) = Url::parse(text.trim()) else { return Some(ADVICE) };
    match url.scheme() {
        "https" if url.has_host() => None,
        "http" if names_loopback(&url) => None,
        "http" => Some("this is plain http, over which everyone on the way could read the address; write https://…"),
        _ => Some(ADVICE),
    }
}

/// Reads a file that holds an address alone.
fn read(key: &'static str, path: &Path) -> Result<Secret, ConfigError> {
    let unreadable = |source| ConfigError::ReadAddress { key, path: path.to_owned(), source };
    let bad = |problem| ConfigError::BadAddress { key, path: path.to_owned(), problem };
    let text = token::read_alone(path).map_err(|unread| match unread {
        Unread::Io(source) => unreadable(source),
        Unread::Bad(problem) => bad(problem),
    })?;
    problem(text.expose()).map_or(Ok(text), |problem| Err(bad(problem)))
}

/// Reads an address from the configuration file; errors must not repeat it.
fn inline<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let toml::Value::String(text) = toml::Value::deserialize(deserializer)? else {
        return Err(serde::de::Error::custom("a URL is a text in quotes; better, put it in a file of its own"));
    };
    problem(&text).map_or_else(|| Ok(Some(Secret::new(&text))), |problem| Err(serde::de::Error::custom(problem)))
}

#[cfg(test)]
mod tests {
    use crate::config::{ConfigError, Environment, Loaded, Origin, Overrides, load};

    fn loaded(file: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "https://hooks.example/hush-file\n").unwrap();
        std::fs::write(folder.path().join("broken"), "http://hooks.example/hush-file\n").unwrap();
        let path = folder.path().join("jellyjar.toml");
        std::fs::write(&path, file).unwrap();
        let overrides = Overrides { config: Some(path), ..Overrides::default() };
        load(&overrides, &Environment::from_pairs(variables.iter().copied()))
    }

    #[test]
    fn an_address_comes_from_the_file_from_a_file_of_its_own_or_from_the_environment_which_wins() {
        let text = "[notify]\nwebhook_url = \"https://hooks.example/hush\"\nslack_url_file = \"secret\"\n";
        let plain = loaded(text, &[]).unwrap();
        assert_eq!(plain.config.notify.webhook_url.as_ref().unwrap().expose(), "https://hooks.example/hush");
        assert_eq!(plain.config.notify.slack_url.as_ref().unwrap().expose(), "https://hooks.example/hush-file");
        assert!(plain.config.notify.ping_url.is_none());
        assert!(plain.warnings.iter().any(|warning| warning.contains("chmod 600")), "{:?}", plain.warnings);
        assert!(!format!("{plain:?}").contains("hush"), "{plain:?}");

        let variables = [
            ("JELLYJAR_NOTIFY_WEBHOOK_URL", "http://127.0.0.1:1/x"),
            ("JELLYJAR_NOTIFY_SLACK_URL", "https://[::1]/y"),
            ("JELLYJAR_NOTIFY_PING_URL", "http://localhost:8000/z"),
        ];
        let over = loaded(text, &variables).unwrap();
        assert_eq!(over.config.notify.webhook_url.as_ref().unwrap().expose(), "http://127.0.0.1:1/x");
        assert!(over.config.notify.slack_url_file.is_none());
        assert_eq!(over.sources.of("notify.slack_url"), Origin::Environment("JELLYJAR_NOTIFY_SLACK_URL"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_place_and_never_repeated() {
        for (text, variables, place) in [
            ("[notify]\nwebhook_url = \"http://hooks.example/hush\"\n", &[][..], "toml:2: `notify.webhook_url`"),
            ("[notify]\nslack_url = \"hush\"\n", &[], "toml:2: `notify.slack_url`"),
            ("[notify]\nping_url = [\"hush\"]\n", &[], "toml:2: `notify.ping_url`"),
            ("[notify]\nping_url = \"ftp://hush.example/\"\n", &[], "toml:2: `notify.ping_url`"),
            ("[notify]\nwebhook_url_file = \"broken\"\n", &[], "`notify.webhook_url_file`"),
            ("[notify]\nwebhook_url_file = \"nowhere/x\"\n", &[], "nowhere/x"),
            ("[notify]\nwebhook_url_file = \"secret\"\nwebhook_url = \"https://hush/\"\n", &[], "toml:3: both"),
            ("", &[("JELLYJAR_NOTIFY_PING_URL", "http://hush.example")], "JELLYJAR_NOTIFY_PING_URL"),
            (
                "",
                &[("JELLYJAR_NOTIFY_PING_URL", "https://hush/"), ("JELLYJAR_NOTIFY_PING_URL_FILE", "hush")],
                "are both set",
            ),
        ] {
            let error = loaded(text, variables).unwrap_err();
            assert!(error.to_string().contains(place), "{error}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        }
    }
}
