//! Checks settings against each other, once all are known.

mod buckets;

use std::collections::BTreeMap;

use url::Url;

use super::{
    ConfigError, FilterConfig, LIVE_REQUESTS_PER_DAY, LIVE_REQUESTS_PER_WINDOW, Loaded, Origin, Overrides, Sources,
    values, web,
};
use crate::model::Location;

/// Refuses what cannot work, and warns of what is probably not meant.
pub(super) fn check(loaded: &mut Loaded, overrides: &Overrides) -> Result<(), ConfigError> {
    check_urls(loaded)?;
    check_worker(loaded);
    check_sizes(loaded)?;
    check_quota(loaded);
    web::check(loaded, overrides)?;
    buckets::check(loaded)?;
    check_filter(&loaded.sources, "filter", &loaded.config.filter)?;
    for (name, team) in &loaded.config.teams {
        if let Some(filter) = &team.filter {
            check_filter(&loaded.sources, &format!("teams.{name}.filter"), filter)?;
        }
    }
    check_teams(loaded)
}

/// Blames the place that a setting came from.
pub(super) fn blame(sources: &Sources, key: &str, message: impl Into<String>) -> ConfigError {
    let message = message.into();
    match (sources.of(key), &sources.file) {
        (Origin::Flag(name), _) => ConfigError::Flag { name, message },
        (Origin::Environment(name), _) => ConfigError::Environment { name, message },
        (Origin::File { line }, Some(path)) => {
            ConfigError::File { path: path.clone(), line: Some(line), key: Some(key.to_owned()), message }
        }
        (Origin::Default | Origin::Profile | Origin::File { .. }, _) => {
            let place = sources.locate(key).map(|place| format!("{place}: ")).unwrap_or_default();
            ConfigError::Conflict(format!("{place}`{key}`: {message}"))
        }
    }
}

fn check_urls(loaded: &mut Loaded) -> Result<(), ConfigError> {
    let key = "api.base_url";
    let advice = "write one like \"https://app.letsjelly.com/api\"";
    let text = loaded.config.api.base_url.trim().to_owned();
    // The value is not shown: somebody may have put a password into it.
    let url = Url::parse(&text)
        .map_err(|error| blame(&loaded.sources, key, format!("this is no URL ({error}); {advice}")))?;
    let refusal = if !matches!(url.scheme(), "http" | "https") {
        Some("only http and https URLs will do")
    } else if !url.username().is_empty() || url.password().is_some() {
        Some("the URL has a user name or password in it; the token is all that Jelly wants")
    } else if url.query().is_some() || url.fragment().is_some() {
        Some("the URL has a query or fragment in it")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        return Err(blame(&loaded.sources, key, format!("{refusal}; {advice}")));
    }
    url.as_str().trim_end_matches('/').clone_into(&mut loaded.config.api.base_url);
    if url.scheme() == "http" && !loaded.config.api.is_loopback() {
        let message = "this is plain http, over which the token would travel in the clear; write https://…";
        return Err(blame(&loaded.sources, key, message.to_owned()));
    }
    if url.host_str() == Some("app.letsjelly.com") && url.path().trim_end_matches('/') != "/api" {
        loaded.warnings.push("the base URL of Jelly's API is https://app.letsjelly.com/api, with /api".into());
    }
    if let Some(proxy) = &loaded.config.http.proxy {
        let usable = Url::parse(proxy).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !usable {
            let message = "this is no URL of a proxy; write one like \"http://proxy.example:3128\"";
            return Err(blame(&loaded.sources, "http.proxy", message));
        }
    }
    if let Some(path) = loaded.config.http.ca_file.as_ref().filter(|path| !path.is_file()) {
        let message = format!("there is no file {}; name a file of certificates (PEM)", path.display());
        return Err(blame(&loaded.sources, "http.ca_file", message));
    }
    Ok(())
}

/// Lowers what could never be reached: a batch that waits for more than may be leased would wait for ever.
fn check_worker(loaded: &mut Loaded) {
    let worker = &mut loaded.config.worker;
    let most = worker.max_leases;
    for (key, value) in [("worker.batch_size", &mut worker.batch_size), ("worker.concurrency", &mut worker.concurrency)]
    {
        if *value > most {
            if loaded.sources.is_set(key) {
                loaded
                    .warnings
                    .push(format!("`{key}` is lowered from {value} to {most}, for `worker.max_leases` allows no more"));
            }
            *value = most;
        }
    }
}

fn check_sizes(loaded: &mut Loaded) -> Result<(), ConfigError> {
    let retry = &mut loaded.config.retry;
    if retry.base_delay > retry.max_delay {
        // Of the two, blame the one that is set; the other may be a default.
        let key = if loaded.sources.is_set("retry.base_delay") { "retry.base_delay" } else { "retry.max_delay" };
        let message = format!(
            "`retry.base_delay` ({}) is longer than `retry.max_delay` ({}); set both so that it is not",
            values::format_duration(retry.base_delay),
            values::format_duration(retry.max_delay)
        );
        return Err(blame(&loaded.sources, key, message));
    }
    let spool = &mut loaded.config.spool;
    if spool.memory_threshold_bytes > spool.max_memory_bytes {
        if loaded.sources.is_set("spool.memory_threshold") {
            let most = values::format_size(spool.max_memory_bytes);
            loaded.warnings.push(format!("`spool.memory_threshold` is lowered to `spool.max_memory`, {most}"));
        }
        spool.memory_threshold_bytes = spool.max_memory_bytes;
    }
    if loaded.config.http.max_attachment_bytes > spool.max_bytes {
        loaded.warnings.push(format!(
            "attachments above {} cannot be fetched: `spool.max_size` has no room for them, though `http.max_attachment_size` is {}",
            values::format_size(spool.max_bytes),
            values::format_size(loaded.config.http.max_attachment_bytes)
        ));
    }
    Ok(())
}

fn check_quota(loaded: &mut Loaded) {
    if loaded.config.api.is_loopback() {
        return;
    }
    let quota = &loaded.config.quota;
    for (key, set, live) in [
        ("quota.requests_per_window", quota.requests_per_window, LIVE_REQUESTS_PER_WINDOW),
        ("quota.requests_per_day", quota.requests_per_day, LIVE_REQUESTS_PER_DAY),
    ] {
        if let Some(set) = set.filter(|set| *set > live) {
            loaded
                .warnings
                .push(format!("`{key}` is {set}, above the {live} that Jelly grants: expect refusals (429)"));
        }
    }
}

fn check_filter(sources: &Sources, prefix: &str, filter: &FilterConfig) -> Result<(), ConfigError> {
    if filter.min_size.zip(filter.max_size).is_some_and(|(least, most)| least > most) {
        return Err(blame(sources, &format!("{prefix}.min_size"), "it is above `max_size`: nothing could be kept"));
    }
    let moment = |text: &Option<String>| text.as_deref().and_then(|text| values::parse_moment(text).ok());
    if moment(&filter.since).zip(moment(&filter.until)).is_some_and(|(since, until)| since >= until) {
        return Err(blame(sources, &format!("{prefix}.since"), "it is not before `until`: nothing could be kept"));
    }
    Ok(())
}

/// Two teams under one name in one archive would be taken for each other.
fn check_teams(loaded: &Loaded) -> Result<(), ConfigError> {
    let mut seen: BTreeMap<(Option<Location>, String), &str> = BTreeMap::new();
    for name in loaded.config.teams.keys() {
        let team_key = loaded
            .config
            .team_key(name)
            .map_err(|error| blame(&loaded.sources, &format!("teams.{name}.archive_key"), error.to_string()))?;
        let archive = loaded.config.archive_for(name).map(identity);
        if let Some(other) = seen.insert((archive, team_key.to_string()), name) {
            let set = |team: &str| loaded.sources.is_set(&format!("teams.{team}.archive_key"));
            let blamed = if set(name) { name } else { other };
            let message = format!(
                "the teams `{other}` and `{name}` are both `{team_key}` in the same archive; give one of them another archive_key or archive"
            );
            return Err(blame(&loaded.sources, &format!("teams.{blamed}.archive_key"), message));
        }
    }
    Ok(())
}

/// What an archive is recognised by: a folder's real path where it exists, else its absolute one; a bucket's URL.
fn identity(archive: &Location) -> Location {
    match archive {
        Location::Folder(path) => Location::Folder(
            path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.clone()),
        ),
        Location::Bucket(bucket) => Location::Bucket(bucket.clone()),
    }
}
