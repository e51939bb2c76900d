//! Checks what is set for buckets, wherever it came from.

use std::collections::BTreeMap;

use url::{Host, Url};

use super::super::credentials::uses;
use super::super::http::names_loopback;
use super::super::{ConfigError, Loaded, S3Config, Sources};
use super::blame;
use crate::model::{Location, Provider};

/// Refuses what cannot work, and warns of what no archive uses.
pub(super) fn check(loaded: &mut Loaded) -> Result<(), ConfigError> {
    let Loaded { config, sources, .. } = loaded;
    let buckets = &mut config.buckets;
    check_endpoint(sources, "s3.endpoint", &mut buckets.s3.endpoint, "https://s3.example:9000")?;
    check_endpoint(sources, "gcs.endpoint", &mut buckets.gcs.endpoint, "https://storage.example")?;
    check_endpoint(sources, "azure.endpoint", &mut buckets.azure.endpoint, "https://account.blob.example")?;
    check_names(sources, &buckets.s3, buckets.azure.account.as_deref())?;
    check_storage_class(sources, &buckets.s3)?;
    check_tags(sources, &buckets.s3.tags)?;
    check_lock(sources, &buckets.s3)?;
    if buckets.azure.account.is_none() && uses(loaded, Provider::Azure) {
        return Err(ConfigError::Conflict(
            "an archive is in Azure (az://…), and no storage account is named; set AZURE_STORAGE_ACCOUNT, or `azure.account` \
             in the configuration"
                .into(),
        ));
    }
    warn_of_unused(loaded);
    Ok(())
}

/// Checks a server's URL and takes its final slash. The value is not shown: there may be a password in it.
fn check_endpoint(
    sources: &Sources,
    key: &str,
    endpoint: &mut Option<String>,
    example: &str,
) -> Result<(), ConfigError> {
    let Some(text) = endpoint else { return Ok(()) };
    let advice = format!("write one like {example:?}");
    let url = Url::parse(text.trim())
        .map_err(|error| blame(sources, key, format!("this is no URL of a server ({error}); {advice}")))?;
    let refusal = if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        Some("only http and https URLs will do")
    } else if !url.username().is_empty() || url.password().is_some() {
        Some("the URL has a user name or password in it; credentials come from the environment, a profile or a role")
    } else if url.query().is_some() || url.fragment().is_some() {
        Some("the URL has a query or fragment in it")
    } else if url.scheme() == "http" && !names_loopback(&url) {
        Some(
            "this is plain http, over which mail would travel in the clear; only a server on this machine may have that",
        )
    } else {
        None
    };
    match refusal {
        Some(refusal) => Err(blame(sources, key, format!("{refusal}; {advice}"))),
        None => {
            *endpoint = Some(url.as_str().trim_end_matches('/').to_owned());
            Ok(())
        }
    }
}

/// Checks what goes into URLs and headers.
fn check_names(sources: &Sources, s3: &S3Config, account: Option<&str>) -> Result<(), ConfigError> {
    let plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 64
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    if s3.region.as_deref().is_some_and(|region| !plain(region)) {
        return Err(blame(sources, "s3.region", "this is no name of a region; write one like \"eu-central-1\""));
    }
    if s3.profile.as_deref().is_some_and(|name| name.is_empty() || name.contains(char::is_control)) {
        return Err(blame(sources, "s3.profile", "this is no name of a profile; write the one in ~/.aws/config"));
    }
    let graphic = |text: &str| !text.is_empty() && text.len() <= 2048 && text.chars().all(|c| c.is_ascii_graphic());
    if s3.kms_key_id.as_deref().is_some_and(|key| !graphic(key)) {
        return Err(blame(
            sources,
            "s3.kms_key_id",
            "this is no id of a KMS key; write its id, its ARN, or \"alias/NAME\"",
        ));
    }
    let is_ip = |endpoint: &String| Url::parse(endpoint).is_ok_and(|url| !matches!(url.host(), Some(Host::Domain(_))));
    if s3.path_style == Some(false) && s3.endpoint.as_ref().is_some_and(is_ip) {
        let message =
            "the endpoint is an address without a name, so that no bucket's name can stand before it; set true";
        return Err(blame(sources, "s3.path_style", message));
    }
    let usual = |name: &str| {
        (3..=24).contains(&name.len()) && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if account.is_some_and(|name| !usual(name)) {
        let message = "this is no name of a storage account; those have 3 to 24 small letters and digits";
        return Err(blame(sources, "azure.account", message));
    }
    Ok(())
}

fn check_storage_class(sources: &Sources, s3: &S3Config) -> Result<(), ConfigError> {
    let Some(class) = &s3.storage_class else { return Ok(()) };
    let key = "s3.storage_class";
    if matches!(class.to_ascii_uppercase().as_str(), "GLACIER" | "DEEP_ARCHIVE") {
        let message = format!(
            "objects of the class {class} cannot be read at once, and deduplication, `verify` and `get` read them; write one that \
             can be, like \"STANDARD_IA\", \"INTELLIGENT_TIERING\" or \"GLACIER_IR\""
        );
        return Err(blame(sources, key, message));
    }
    let usual = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    if class.is_empty() || class.len() > 64 || !class.chars().all(usual) {
        return Err(blame(sources, key, "this is no storage class; write one in capitals, like \"STANDARD_IA\""));
    }
    Ok(())
}

/// S3's own limits on tags ("Categorizing your objects using tags", S3 User Guide).
fn check_tags(sources: &Sources, tags: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    let usual = |text: &str| text.chars().all(|c| c.is_alphanumeric() || " +-=._:/@".contains(c));
    if tags.len() > 10 {
        return Err(blame(sources, "s3.tags", format!("there are {} tags; S3 takes 10 at most", tags.len())));
    }
    for (name, value) in tags {
        let problem = if name.is_empty() || name.chars().count() > 128 {
            "a tag's key has 1 to 128 characters"
        } else if value.chars().count() > 256 {
            "a tag's value has 256 characters at most"
        } else if name.to_ascii_lowercase().starts_with("aws:") {
            "keys that begin with `aws:` are Amazon's own"
        } else if !usual(name) || !usual(value) {
            "tags have letters, digits, spaces and + - = . _ : / @ only"
        } else {
            continue;
        };
        return Err(blame(sources, &format!("s3.tags.{name}"), problem));
    }
    Ok(())
}

fn check_lock(sources: &Sources, s3: &S3Config) -> Result<(), ConfigError> {
    match (s3.object_lock_mode, s3.object_lock_days) {
        (Some(_), None) => {
            let message = "for how long is not said; set `object_lock_days` too, or neither";
            Err(blame(sources, "s3.object_lock_mode", message))
        }
        (None, Some(_)) => {
            let message =
                "in which mode is not said; set `object_lock_mode` too (\"governance\" or \"compliance\"), or neither";
            Err(blame(sources, "s3.object_lock_days", message))
        }
        (None, None) if s3.object_lock_messages => {
            let message = "nothing is locked; set `object_lock_mode` and `object_lock_days` too, or take this away";
            Err(blame(sources, "s3.object_lock_messages", message))
        }
        _ => Ok(()),
    }
}

/// Warns of settings that have no effect on any archive. Without an archive nothing is known yet.
fn warn_of_unused(loaded: &mut Loaded) {
    let archives: Vec<_> = loaded.config.teams.keys().filter_map(|team| loaded.config.archive_for(team)).collect();
    if archives.is_empty() {
        return;
    }
    let in_bucket = archives.iter().any(|archive| matches!(archive, Location::Bucket(_)));
    let sections = [
        ("bucket", in_bucket, "a bucket"),
        ("s3", uses(loaded, Provider::S3), "S3 (s3://…)"),
        ("gcs", uses(loaded, Provider::Gcs), "Google Cloud Storage (gs://…)"),
        ("azure", uses(loaded, Provider::Azure), "Azure (az://…)"),
    ];
    for (section, used, words) in sections {
        if !used && let Some(key) = loaded.sources.first_under(section) {
            loaded.warnings.push(format!("`{key}` has no effect, for no archive is in {words}"));
        }
    }
    for key in ["spool.folder", "spool.allow_tmpfs"] {
        if !in_bucket && loaded.sources.is_set(key) {
            loaded.warnings.push(format!(
                "`{key}` has no effect, for no archive is in a bucket; downloads are kept in the archive's own folder"
            ));
        }
    }
}
