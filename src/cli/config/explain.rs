//! The configuration in sentences, for `config check`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::config::{Config, FilterConfig, InlinePolicy, Loaded, Origin, TeamConfig, WebhookConfig, values};
use crate::model::{Direction, Location, Provider};

use super::settings::without_password;

/// The whole explanation.
pub(super) fn as_text(loaded: &Loaded) -> String {
    let Loaded { config, sources, warnings } = loaded;
    let mut text = String::new();
    let mut say = |line: String| _ = writeln!(text, "{line}");
    say(match (&sources.file, sources.file_found_by) {
        (Some(file), Some(found_by)) => format!("The configuration file is {} (from {found_by}).", file.display()),
        (Some(file), None) => format!("The configuration file is {}.", file.display()),
        (None, _) => "There is no configuration file; defaults, environment and flags hold.".into(),
    });
    say(config.archive.as_ref().map_or_else(
        || "No common archive is set; name one with --archive, JELLYJAR_ARCHIVE or `archive`.".into(),
        |archive| format!("The archive is {archive} ({}).", sources.of("archive")),
    ));
    for provider in providers(config) {
        say(bucket(loaded, provider));
    }
    if let Some(catalog) = &config.catalog {
        say(format!("The catalog is in {catalog} ({}).", sources.of("catalog")));
    }
    say(format!("Jelly is asked at {} ({}).", config.api.base_url, sources.of("api.base_url")));
    if let Some(proxy) = &config.http.proxy {
        say(format!("All requests go through the proxy {}.", without_password(proxy)));
    }
    for sentence in quota(loaded) {
        say(sentence);
    }
    if let Some(sentence) = notified(config) {
        say(sentence);
    }
    for (name, team) in &config.teams {
        say(String::new());
        say(format!("Team `{name}`:"));
        say(format!("  {}", token(loaded, name, team)));
        if let Some(sentence) = webhook(&team.webhook) {
            say(format!("  {sentence}"));
        }
        if let Some(archive) = &team.archive {
            say(format!("  It has an archive of its own: {archive}."));
        }
        if let Some(key) = team.archive_key.as_ref().filter(|key| *key != name) {
            say(format!("  In the archive its name is `{key}`."));
        }
        if config.teams.len() > 1 {
            say(format!("  It shares the 5-minute limit of the egress group `{}`.", config.egress_group(name)));
        }
        if let Some(filter) = &team.filter {
            say("  It has rules of its own:".into());
            for sentence in rules(filter) {
                say(format!("    {sentence}"));
            }
        }
    }
    let common: Vec<_> = config.teams.iter().filter(|(_, team)| team.filter.is_none()).collect();
    if !common.is_empty() {
        say(String::new());
        say(if common.len() == config.teams.len() {
            "The rules:".into()
        } else {
            "The rules for teams without their own:".into()
        });
        for sentence in rules(&config.filter) {
            say(format!("  {sentence}"));
        }
    }
    if !warnings.is_empty() {
        say("\nWarnings:".into());
        for warning in warnings {
            say(format!("  {warning}"));
        }
    }
    say("\nThe configuration can be used.".into());
    text
}

/// The same as one object.
pub(super) fn as_json(loaded: &Loaded) -> Value {
    let Loaded { config, sources, warnings } = loaded;
    let (per_window, per_day) = config.quota_limits(config.api.is_loopback());
    let teams: Vec<_> = config
        .teams
        .iter()
        .map(|(name, team)| {
            json!({
                "name": name,
                "token": team.token.as_ref().map(|_| "set"),
                "webhook": webhook(&team.webhook),
                "token_origin": team.token.as_ref().map(|_| token_origin(loaded, name, team).to_string()),
                "archive": config.archive_for(name).map(ToString::to_string),
                "archive_key": team.archive_key.as_ref().unwrap_or(name),
                "egress_group": config.egress_group(name),
                "rules": rules(config.filter_for(name)),
            })
        })
        .collect();
    json!({
        "ok": true,
        "file": sources.file.as_ref().map(|file| file.display().to_string()),
        "archive": config.archive.as_ref().map(ToString::to_string),
        "catalog": config.catalog.as_ref().map(ToString::to_string),
        "buckets": providers(config).into_iter().map(|provider| json!({
            "provider": provider.scheme(),
            "endpoint": config.buckets.endpoint(provider),
            "region": config.buckets.s3.region.as_ref().filter(|_| provider == Provider::S3),
            "credentials": config.buckets.credentials(provider),
        })).collect::<Vec<_>>(),
        "base_url": config.api.base_url,
        "quota": { "requests_per_window": per_window, "requests_per_day": per_day, "explanation": quota(loaded) },
        "teams": teams,
        "warnings": warnings,
    })
}

/// Who is told of trouble, in one sentence; `None` if nobody is.
fn notified(config: &Config) -> Option<String> {
    let notify = &config.notify;
    let receivers = [
        (notify.webhook_url.is_some(), "a webhook"),
        (notify.slack_url.is_some(), "Slack, or what speaks like it"),
        (notify.ping_url.is_some(), "a health check"),
    ];
    let told: Vec<&str> = receivers.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect();
    (!told.is_empty()).then(|| format!("Told of trouble: {}.", told.join("; ")))
}

/// The kinds of buckets that archives are in.
fn providers(config: &Config) -> BTreeSet<Provider> {
    let archives = config.teams.keys().filter_map(|team| config.archive_for(team));
    archives.filter_map(Location::bucket).map(|bucket| bucket.provider).collect()
}

/// How buckets of one kind are reached, in one sentence.
fn bucket(loaded: &Loaded, provider: Provider) -> String {
    let Loaded { config, sources, .. } = loaded;
    let buckets = &config.buckets;
    let (name, section) = match provider {
        Provider::S3 => ("S3", "s3"),
        Provider::Gcs => ("Google Cloud Storage", "gcs"),
        Provider::Azure => ("Azure", "azure"),
    };
    let mut sentence = match buckets.endpoint(provider) {
        Some(endpoint) => format!("{name} is asked at {endpoint} ({})", sources.of(&format!("{section}.endpoint"))),
        None => format!("{name} is asked at its provider's own servers"),
    };
    if let Some(region) = buckets.s3.region.as_ref().filter(|_| provider == Provider::S3) {
        sentence += &format!(", in the region {region} ({})", sources.of("s3.region"));
    }
    if let Some(account) = buckets.azure.account.as_ref().filter(|_| provider == Provider::Azure) {
        sentence += &format!(", in the account {account} ({})", sources.of("azure.account"));
    }
    format!("{sentence}, with credentials of {}.", buckets.credentials(provider))
}

fn quota(loaded: &Loaded) -> Vec<String> {
    let Config { api, quota, .. } = &loaded.config;
    let (per_window, per_day) = loaded.config.quota_limits(api.is_loopback());
    let sentence = |limit: Option<u64>, set: Option<u64>, span: &str, key: &str| match (limit, set) {
        (None, _) => format!("Requests in each {span} are not limited, for that server is on this machine."),
        (Some(limit), Some(_)) => {
            format!("At most {} requests are made in each {span} ({}).", grouped(limit), loaded.sources.of(key))
        }
        (Some(limit), None) => {
            format!("At most {} requests are made in each {span}, the limit of the live service.", grouped(limit))
        }
    };
    let mut sentences = vec![
        sentence(per_window, quota.requests_per_window, "5 minutes and egress group", "quota.requests_per_window"),
        sentence(per_day, quota.requests_per_day, "UTC day and team", "quota.requests_per_day"),
    ];
    let takes_webhooks = loaded.config.teams.keys().any(|name| loaded.config.takes_webhooks(name));
    if takes_webhooks && per_window.or(per_day).is_some() && quota.live_share > 0.0 {
        let percent = (quota.live_share * 1000.0).round() / 10.0;
        let origin = loaded.sources.of("quota.live_share");
        sentences.push(format!(
            "Replays and other bulk work leave {percent} % of them to what comes by webhook ({origin})."
        ));
    }
    sentences
}

fn token(loaded: &Loaded, name: &str, team: &TeamConfig) -> String {
    let origin = token_origin(loaded, name, team);
    match (&team.token, &team.token_file) {
        (Some(_), Some(file)) => format!("Its token is set, from the file {} ({origin}).", file.display()),
        (Some(_), None) => format!("Its token is set ({origin})."),
        (None, _) if name == crate::config::DEFAULT_TEAM => {
            "It has no token; set JELLY_API_TOKEN_FILE, JELLY_API_TOKEN, --token-file or `token_file`.".into()
        }
        (None, _) => format!("It has no token; set `token_file` under [teams.{name}]."),
    }
}

/// How a team's webhooks are known; nothing where none are set up.
fn webhook(webhook: &WebhookConfig) -> Option<String> {
    let secrets = match webhook.secrets.len() {
        0 => None,
        1 => Some("Its webhooks are known by their signature".to_owned()),
        number => Some(format!("Its webhooks are known by their signature with one of {number} secrets")),
    };
    let login = webhook.username.as_ref().map(|username| format!("the user name `{username}` and its password"));
    match (secrets, login, webhook.allow_unsigned) {
        (Some(secrets), None, _) => Some(format!("{secrets}.")),
        (Some(secrets), Some(login), false) => Some(format!("{secrets}, and by {login}.")),
        (Some(secrets), Some(login), true) => Some(format!("{secrets}, where they have one, and by {login}.")),
        (None, Some(login), true) => Some(format!("Its webhooks need no signature; they are known by {login}.")),
        (None, _, _) => None,
    }
}

fn token_origin(loaded: &Loaded, name: &str, team: &TeamConfig) -> Origin {
    let key = if team.token_file.is_some() { "token_file" } else { "token" };
    loaded.sources.of(&format!("teams.{name}.{key}"))
}

/// The rules in words, one sentence each.
fn rules(filter: &FilterConfig) -> Vec<String> {
    let mut sentences = vec![
        match filter.inline {
            InlinePolicy::Skip => "Files that the HTML body refers to (inline) are skipped.",
            InlinePolicy::KeepNonImages => {
                "Images that the HTML body refers to (inline) are skipped; other files are kept."
            }
            InlinePolicy::Keep => "Files that the HTML body refers to (inline) are kept like all others.",
        }
        .to_owned(),
    ];
    let lists = [
        (&filter.content_types, "Only files of these types are kept"),
        (&filter.skip_content_types, "Files of these types are skipped"),
        (&filter.names, "Only files with these names are kept"),
        (&filter.skip_names, "Files with these names are skipped"),
        (&filter.senders, "Only mail of these senders counts"),
        (&filter.skip_senders, "Mail of these senders is skipped"),
        (&filter.labels, "Only conversations with one of these labels count"),
        (&filter.skip_labels, "Conversations with one of these labels are skipped"),
    ];
    for (values, words) in lists.into_iter().filter(|(values, _)| !values.is_empty()) {
        let values: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
        sentences.push(format!("{words}: {}.", values.join(", ")));
    }
    if let Some(least) = filter.min_size {
        sentences.push(format!("Files declared smaller than {} are skipped.", values::format_size(least.as_u64())));
    }
    if let Some(most) = filter.max_size {
        sentences.push(format!("Files declared larger than {} are skipped.", values::format_size(most.as_u64())));
    }
    match filter.direction {
        Some(Direction::Inbound) => sentences.push("Only mail that came in counts.".into()),
        Some(Direction::Outbound) => sentences.push("Only mail that the team sent counts.".into()),
        None => {}
    }
    if let Some(since) = &filter.since {
        sentences.push(format!("Mail sent before {since} is skipped."));
    }
    if let Some(until) = &filter.until {
        sentences.push(format!("Mail sent at or after {until} is skipped."));
    }
    sentences
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
