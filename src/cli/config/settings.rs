//! Every effective setting with its origin, for `config show`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::config::{
    BucketSettings, Config, FilterConfig, InboxConfig, InlinePolicy, Loaded, NotifyConfig, ObjectLockMode, ReadBack,
    ServeConfig, WebhookConfig, values,
};
use crate::digest::Digest;
use crate::model::{Direction, Location};
use crate::secret::Secret;

/// The settings by dotted key, in the order of the reference file; `null` where nothing is set.
fn settings(config: &Config) -> Vec<(String, Value)> {
    let path = |path: &Option<PathBuf>| json!(path.as_ref().map(|path| path.display().to_string()));
    let place = |place: &Option<Location>| json!(place.as_ref().map(ToString::to_string));
    let duration = |duration| json!(values::format_duration(duration));
    let size = |bytes: u64| json!(values::format_size(bytes));
    let (per_window, per_day) = config.quota_limits(config.api.is_loopback());
    let Config {
        archive,
        catalog,
        postgres,
        state_home: _,
        webhooks_elsewhere: _,
        api,
        http,
        quota,
        worker,
        retry,
        spool,
        inbox,
        sweep,
        backfill,
        source,
        serve,
        notify,
        filter,
        teams,
        buckets,
    } = config;
    let mut all: Vec<(String, Value)> = vec![
        ("archive".into(), place(archive)),
        ("catalog".into(), json!(catalog.as_ref().map(ToString::to_string))),
        ("postgres.answer_timeout".into(), duration(postgres.answer_timeout)),
        ("api.base_url".into(), json!(api.base_url)),
        ("http.connect_timeout".into(), duration(http.connect_timeout)),
        ("http.read_timeout".into(), duration(http.read_timeout)),
        ("http.ca_file".into(), path(&http.ca_file)),
        ("http.proxy".into(), json!(http.proxy.as_deref().map(without_password))),
        ("http.max_storage_redirects".into(), json!(http.max_storage_redirects)),
        ("http.max_resumes".into(), json!(http.max_resumes)),
        ("http.max_attachment_size".into(), size(http.max_attachment_bytes)),
        ("http.max_answer_size".into(), size(http.max_answer_bytes)),
        ("quota.requests_per_window".into(), json!(per_window)),
        ("quota.requests_per_day".into(), json!(per_day)),
        ("quota.live_share".into(), json!(quota.live_share)),
        ("worker.concurrency".into(), json!(worker.concurrency)),
        ("worker.max_leases".into(), json!(worker.max_leases)),
        ("worker.batch_size".into(), json!(worker.batch_size)),
        ("worker.lease_duration".into(), duration(worker.lease_duration)),
        ("worker.shutdown_timeout".into(), duration(worker.shutdown_timeout)),
        ("worker.max_wait".into(), duration(worker.max_wait)),
        ("worker.compact_every".into(), duration(worker.compact_every)),
        ("retry.max_attempts".into(), json!(retry.max_attempts)),
        ("retry.base_delay".into(), duration(retry.base_delay)),
        ("retry.max_delay".into(), duration(retry.max_delay)),
        ("retry.give_up_after".into(), duration(retry.give_up_after)),
        ("spool.max_size".into(), size(spool.max_bytes)),
        ("spool.max_memory".into(), size(spool.max_memory_bytes)),
        ("spool.memory_threshold".into(), size(spool.memory_threshold_bytes)),
        ("spool.min_free".into(), size(spool.min_free_bytes)),
        ("spool.folder".into(), path(&spool.folder)),
        ("spool.allow_tmpfs".into(), json!(spool.allow_tmpfs)),
        ("source.max_payload_bytes".into(), size(source.max_payload_bytes as u64)),
        ("sweep.every".into(), duration(sweep.every)),
        ("sweep.grace".into(), duration(sweep.grace)),
        ("backfill.max_pending".into(), json!(backfill.max_pending)),
    ];
    push_inbox(&mut all, inbox);
    push_serve(&mut all, serve);
    push_buckets(&mut all, buckets);
    push_notify(&mut all, notify);
    push_filter(&mut all, "filter", filter);
    for (name, team) in teams {
        let prefix = format!("teams.{name}");
        let key = team.archive_key.as_ref().unwrap_or(name);
        all.push((format!("{prefix}.token"), json!(team.token.as_ref().map(|_| "[set]"))));
        all.push((format!("{prefix}.token_file"), path(&team.token_file)));
        all.push((format!("{prefix}.archive"), place(&team.archive)));
        all.push((format!("{prefix}.archive_key"), json!(key)));
        all.push((format!("{prefix}.egress_group"), json!(config.egress_group(name))));
        push_webhook(&mut all, &prefix, &team.webhook);
        if let Some(filter) = &team.filter {
            push_filter(&mut all, &format!("{prefix}.filter"), filter);
        }
    }
    all
}

/// Fingerprints of the settings that all who work on one archive must have alike, by their names. What belongs to one
/// machine (addresses, folders, bounds, tokens) is not among them.
pub(in crate::cli) fn common(config: &Config, teams: &[&str]) -> BTreeMap<String, String> {
    let of_all = ["api.base_url", "quota.", "retry.", "filter.", "sweep.", "http.max_attachment_size"];
    let of_team = ["archive_key", "filter."];
    let is_common = |name: &str| {
        of_all.iter().any(|prefix| name.starts_with(prefix))
            || teams.iter().any(|team| {
                let inside = name.strip_prefix("teams.").and_then(|rest| rest.strip_prefix(team)?.strip_prefix('.'));
                inside.is_some_and(|inside| of_team.iter().any(|prefix| inside.starts_with(prefix)))
            })
    };
    let fingerprint = |value: Value| Digest::of(value.to_string().as_bytes()).to_hex()[..16].to_owned();
    settings(config)
        .into_iter()
        .filter(|(name, _)| is_common(name))
        .map(|(name, value)| (name, fingerprint(value)))
        .collect()
}

fn push_inbox(all: &mut Vec<(String, Value)>, inbox: &InboxConfig) {
    let InboxConfig {
        folder,
        allow_tmpfs,
        max_bytes,
        min_free_bytes,
        alarm,
        segment_bytes,
        segment_age,
        keep_copies,
        max_waiting_bytes,
        max_waiting,
        write_timeout,
    } = inbox;
    for (key, value) in [
        ("folder", json!(folder.as_ref().map(|folder| folder.display().to_string()))),
        ("allow_tmpfs", json!(allow_tmpfs)),
        ("max_size", json!(values::format_size(*max_bytes))),
        ("min_free", json!(values::format_size(*min_free_bytes))),
        ("alarm", json!(alarm)),
        ("segment_size", json!(values::format_size(*segment_bytes))),
        ("segment_age", json!(values::format_duration(*segment_age))),
        ("keep_copies", json!(values::format_duration(*keep_copies))),
        ("max_waiting_size", json!(values::format_size(*max_waiting_bytes))),
        ("max_waiting", json!(max_waiting)),
        ("write_timeout", json!(values::format_duration(*write_timeout))),
    ] {
        all.push((format!("inbox.{key}"), value));
    }
}

fn push_buckets(all: &mut Vec<(String, Value)>, buckets: &BucketSettings) {
    let BucketSettings { common, s3, gcs, azure, environment: _, profile: _ } = buckets;
    let lock_mode = s3.object_lock_mode.map(|mode| match mode {
        ObjectLockMode::Governance => "governance",
        ObjectLockMode::Compliance => "compliance",
    });
    let read_back = match common.read_back {
        ReadBack::Auto => "auto",
        ReadBack::Always => "always",
    };
    for (key, value) in [
        ("bucket.concurrency", json!(common.concurrency)),
        ("bucket.part_size", json!(values::format_size(common.part_bytes))),
        ("bucket.max_upload_memory", json!(values::format_size(common.max_upload_memory_bytes))),
        ("bucket.request_timeout", json!(values::format_duration(common.request_timeout))),
        ("bucket.max_retries", json!(common.max_retries)),
        ("bucket.read_back", json!(read_back)),
        ("s3.endpoint", json!(s3.endpoint)),
        ("s3.region", json!(s3.region)),
        ("s3.path_style", json!(s3.path_style)),
        ("s3.profile", json!(s3.profile)),
        ("s3.kms_key_id", json!(s3.kms_key_id)),
        ("s3.tags", json!(s3.tags)),
        ("s3.storage_class", json!(s3.storage_class)),
        ("s3.object_lock_mode", json!(lock_mode)),
        ("s3.object_lock_days", json!(s3.object_lock_days)),
        ("s3.object_lock_messages", json!(s3.object_lock_messages)),
        ("gcs.endpoint", json!(gcs.endpoint)),
        ("azure.account", json!(azure.account)),
        ("azure.endpoint", json!(azure.endpoint)),
    ] {
        all.push((key.into(), value));
    }
}

fn push_serve(all: &mut Vec<(String, Value)>, serve: &ServeConfig) {
    let path = |path: &Option<PathBuf>| json!(path.as_ref().map(|path| path.display().to_string()));
    let duration = |duration| json!(values::format_duration(duration));
    let size = |bytes: u64| json!(values::format_size(bytes));
    for (key, value) in [
        ("listen", json!(serve.listen)),
        ("ops_listen", json!(serve.ops_listen)),
        ("tls_certificate", path(&serve.tls_certificate)),
        ("tls_key", path(&serve.tls_key)),
        ("max_body_size", size(serve.max_body_bytes)),
        ("max_in_flight", size(serve.max_in_flight_bytes)),
        ("header_timeout", duration(serve.header_timeout)),
        ("idle_timeout", duration(serve.idle_timeout)),
        ("body_timeout", duration(serve.body_timeout)),
        ("min_body_rate", size(serve.min_body_rate_bytes)),
        ("store_timeout", duration(serve.store_timeout)),
        ("max_connections", json!(serve.max_connections)),
    ] {
        all.push((format!("serve.{key}"), value));
    }
}

fn push_webhook(all: &mut Vec<(String, Value)>, prefix: &str, webhook: &WebhookConfig) {
    let path = |path: &Option<PathBuf>| json!(path.as_ref().map(|path| path.display().to_string()));
    let secret = (!webhook.secrets.is_empty()).then_some("[set]");
    for (key, value) in [
        ("webhook_secret", json!(secret)),
        ("webhook_secret_file", path(&webhook.secret_file)),
        ("webhook_username", json!(webhook.username)),
        ("webhook_password", json!(webhook.password.as_ref().map(|_| "[set]"))),
        ("webhook_password_file", path(&webhook.password_file)),
        ("allow_unsigned_webhooks", json!(webhook.allow_unsigned)),
    ] {
        all.push((format!("{prefix}.{key}"), value));
    }
}

fn push_notify(all: &mut Vec<(String, Value)>, notify: &NotifyConfig) {
    let NotifyConfig {
        webhook_url,
        webhook_url_file,
        slack_url,
        slack_url_file,
        ping_url,
        ping_url_file,
        ping_every,
        name,
        delay,
        repeat_every,
        no_success_after,
        disk_free_below_bytes,
        certificate_expires_within,
        timeout,
    } = notify;
    let secret = |secret: &Option<Secret>| json!(secret.as_ref().map(|_| "[set]"));
    let path = |path: &Option<PathBuf>| json!(path.as_ref().map(|path| path.display().to_string()));
    let duration = |duration: &Duration| json!(values::format_duration(*duration));
    for (key, value) in [
        ("webhook_url", secret(webhook_url)),
        ("webhook_url_file", path(webhook_url_file)),
        ("slack_url", secret(slack_url)),
        ("slack_url_file", path(slack_url_file)),
        ("ping_url", secret(ping_url)),
        ("ping_url_file", path(ping_url_file)),
        ("ping_every", duration(ping_every)),
        ("name", json!(name)),
        ("delay", duration(delay)),
        ("repeat_every", duration(repeat_every)),
        ("no_success_after", duration(no_success_after)),
        ("disk_free_below", json!(values::format_size(*disk_free_below_bytes))),
        ("certificate_expires_within", duration(certificate_expires_within)),
        ("timeout", duration(timeout)),
    ] {
        all.push((format!("notify.{key}"), value));
    }
}

fn push_filter(all: &mut Vec<(String, Value)>, prefix: &str, filter: &FilterConfig) {
    let FilterConfig {
        inline,
        content_types,
        skip_content_types,
        names,
        skip_names,
        min_size,
        max_size,
        senders,
        skip_senders,
        direction,
        since,
        until,
        labels,
        skip_labels,
    } = filter;
    let inline = match inline {
        InlinePolicy::Skip => "skip",
        InlinePolicy::KeepNonImages => "keep-non-images",
        InlinePolicy::Keep => "keep",
    };
    let direction = direction.map(|direction| match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    });
    let size = |size: &Option<bytesize::ByteSize>| json!(size.map(|size| values::format_size(size.as_u64())));
    for (key, value) in [
        ("inline", json!(inline)),
        ("content_types", json!(content_types)),
        ("skip_content_types", json!(skip_content_types)),
        ("names", json!(names)),
        ("skip_names", json!(skip_names)),
        ("min_size", size(min_size)),
        ("max_size", size(max_size)),
        ("senders", json!(senders)),
        ("skip_senders", json!(skip_senders)),
        ("direction", json!(direction)),
        ("since", json!(since)),
        ("until", json!(until)),
        ("labels", json!(labels)),
        ("skip_labels", json!(skip_labels)),
    ] {
        all.push((format!("{prefix}.{key}"), value));
    }
}

/// A proxy's URL without who logs in there.
pub(super) fn without_password(proxy: &str) -> String {
    let Ok(mut url) = url::Url::parse(proxy) else { return "[set]".into() };
    let has_login = !url.username().is_empty() || url.password().is_some();
    if has_login && (url.set_username("").is_err() || url.set_password(None).is_err()) {
        return "[set]".into();
    }
    let login = if has_login { "[set]@" } else { "" };
    url.as_str().trim_end_matches('/').replacen("://", &format!("://{login}"), 1)
}

/// A value as TOML writes it: like JSON but for tables.
fn as_toml(value: &Value) -> String {
    match value.as_object() {
        Some(table) => {
            let entries: Vec<_> = table.iter().map(|(key, value)| format!("{} = {value}", json!(key))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        None => value.to_string(),
    }
}

/// One line a setting: its key, its value as TOML writes it, and where that came from.
pub(super) fn as_text(loaded: &Loaded) -> String {
    let mut text = String::new();
    if let Some(file) = &loaded.sources.file {
        _ = writeln!(text, "# file: {}", file.display());
    }
    for (key, value) in settings(&loaded.config) {
        let origin = loaded.sources.of(&key);
        _ = if value.is_null() {
            writeln!(text, "# {key} is not set")
        } else {
            writeln!(text, "{key} = {}  # {origin}", as_toml(&value))
        };
    }
    text
}

/// One object: the file, and every setting by its dotted key.
pub(super) fn as_json(loaded: &Loaded) -> Value {
    let settings: Map<String, Value> = settings(&loaded.config)
        .into_iter()
        .map(|(key, value)| {
            let origin = loaded.sources.of(&key).to_string();
            (key, json!({ "value": value, "origin": origin }))
        })
        .collect();
    json!({
        "ok": true,
        "file": loaded.sources.file.as_ref().map(|file| file.display().to_string()),
        "settings": settings,
        "warnings": loaded.warnings,
    })
}
