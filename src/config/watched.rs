//! The files that settings, tokens and secrets were read from: whose change means that all of it is to be read again.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Config, Loaded};

/// The variables that name a file which is read once, when a bucket is opened. Files that the storage's library reads
/// again by itself (tokens of a platform's identity) are none of them.
const KEY_FILES: [&str; 4] =
    ["google_service_account", "google_service_account_path", "service_account", "google_application_credentials"];

impl Loaded {
    /// Every file that had a part in these settings, each once. The certificate of the public listener is none: whoever
    /// uses it looks at it.
    pub fn files(&self) -> Vec<PathBuf> {
        let Config { http, notify, buckets, teams, .. } = &self.config;
        let teams = teams.values().flat_map(|team| {
            [&team.token_file, &team.webhook.secret_file, &team.webhook.password_file].into_iter().flatten()
        });
        let notify = [&notify.webhook_url_file, &notify.slack_url_file, &notify.ping_url_file].into_iter().flatten();
        let profile = buckets.profile.iter().flat_map(|profile| &profile.files);
        let keys = KEY_FILES.iter().filter_map(|variable| buckets.environment.get(*variable));
        let files: BTreeSet<PathBuf> = (self.sources.file.iter())
            .chain(&http.ca_file)
            .chain(teams)
            .chain(notify)
            .chain(profile)
            .cloned()
            .chain(keys.map(|path| PathBuf::from(path.expose())))
            .collect();
        files.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Environment, Overrides, load};

    #[test]
    fn every_file_that_was_read_is_named_once_wherever_its_name_came_from() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, text) in [
            ("ca.pem", include_str!("../../tests/fixtures/tls/first.certificate.pem")),
            ("token", "a-token"),
            ("secret", "a-secret"),
            ("ping", "https://ping.example/x"),
            ("credentials", "[default]\naws_access_key_id = a\naws_secret_access_key = b\n"),
        ] {
            std::fs::write(path(name), text).unwrap();
        }
        let text = "archive = \"s3://bucket/x\"\n[http]\nca_file = \"ca.pem\"\n[notify]\nping_url_file = \"ping\"\n\
                    [teams.a]\ntoken_file = \"token\"\nwebhook_secret_file = \"secret\"\n\
                    [teams.b]\ntoken_file = \"token\"\n";
        std::fs::write(path("settings.toml"), text).unwrap();
        let (settings, credentials) = (path("settings.toml"), path("credentials"));
        let variables = [
            ("JELLYJAR_CONFIG", settings.to_str().unwrap()),
            ("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().unwrap()),
        ];
        let overrides = Overrides { read_webhooks: true, ..Overrides::default() };
        let loaded = load(&overrides, &Environment::from_pairs(variables)).unwrap();
        let names = ["ca.pem", "credentials", "ping", "secret", "settings.toml", "token"];
        assert_eq!(loaded.files(), names.map(path));
    }
}
