//! The configuration file: its shape, and errors that name file, line and key. Knows nothing of flags and environment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::{
    ApiConfig, AzureConfig, BackfillConfig, BucketConfig, CatalogSetting, ConfigError, FilterConfig, GcsConfig,
    HttpConfig, InboxConfig, NotifyConfig, PostgresConfig, QuotaConfig, RetryConfig, S3Config, ServeConfig,
    SourceConfig, SpoolConfig, SweepConfig, WorkerConfig, token, values, web,
};
use crate::model::Location;
use crate::secret::Secret;

/// The most that a configuration file may hold, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ConfigFile {
    #[serde(deserialize_with = "values::optional_location")]
    pub(super) archive: Option<Location>,
    #[serde(deserialize_with = "values::optional_catalog")]
    pub(super) catalog: Option<CatalogSetting>,
    pub(super) postgres: PostgresConfig,
    pub(super) api: ApiConfig,
    pub(super) http: HttpConfig,
    pub(super) quota: QuotaConfig,
    pub(super) worker: WorkerConfig,
    pub(super) retry: RetryConfig,
    pub(super) spool: SpoolConfig,
    pub(super) inbox: InboxConfig,
    pub(super) sweep: SweepConfig,
    pub(super) backfill: BackfillConfig,
    pub(super) bucket: BucketConfig,
    pub(super) s3: S3Config,
    pub(super) gcs: GcsConfig,
    pub(super) azure: AzureConfig,
    pub(super) source: SourceConfig,
    pub(super) serve: ServeConfig,
    pub(super) notify: NotifyConfig,
    pub(super) filter: FilterConfig,
    pub(super) teams: BTreeMap<String, TeamFile>,
}

/// One `[teams.NAME]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TeamFile {
    #[serde(deserialize_with = "token::inline")]
    pub(super) token: Option<Secret>,
    #[serde(deserialize_with = "values::optional_path")]
    pub(super) token_file: Option<PathBuf>,
    #[serde(deserialize_with = "values::optional_location")]
    pub(super) archive: Option<Location>,
    #[serde(deserialize_with = "values::optional_name")]
    pub(super) archive_key: Option<String>,
    #[serde(deserialize_with = "values::optional_name")]
    pub(super) egress_group: Option<String>,
    pub(super) filter: Option<FilterConfig>,
    #[serde(deserialize_with = "web::inline")]
    pub(super) webhook_secret: Option<Secret>,
    #[serde(deserialize_with = "values::optional_path")]
    pub(super) webhook_secret_file: Option<PathBuf>,
    pub(super) webhook_username: Option<String>,
    #[serde(deserialize_with = "web::inline")]
    pub(super) webhook_password: Option<Secret>,
    #[serde(deserialize_with = "values::optional_path")]
    pub(super) webhook_password_file: Option<PathBuf>,
    pub(super) allow_unsigned_webhooks: bool,
}

impl TeamFile {
    /// Whether a secret itself stands in the file.
    pub(super) fn has_secret(&self) -> bool {
        self.token.is_some() || self.webhook_secret.is_some() || self.webhook_password.is_some()
    }
}

/// The file and the line (from 1) of every key in it, dotted.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) file: ConfigFile,
    pub(super) lines: BTreeMap<String, usize>,
}

/// Reads and parses a file.
pub(super) fn read(path: &Path) -> Result<Parsed, ConfigError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| ConfigError::ReadFile { path: path.to_owned(), source })?;
    let blame =
        |line, message: &str| ConfigError::File { path: path.to_owned(), line, key: None, message: message.into() };
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(blame(None, "it is larger than any configuration; is it the right file?"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = line_at(&bytes, error.valid_up_to());
        blame(Some(line), "this is not UTF-8 text; save the file as UTF-8")
    })?;
    parse(path, text)
}

/// Parses the text of a file; `path` only names it in errors.
pub(super) fn parse(path: &Path, text: &str) -> Result<Parsed, ConfigError> {
    let line_of = |offset: usize| line_at(text.as_bytes(), offset);
    let blame = |error: &toml::de::Error, spans: &[Span]| {
        let key = error.span().and_then(|span| key_at(spans, &span));
        ConfigError::File {
            path: path.to_owned(),
            line: error.span().map(|span| line_of(span.start)),
            message: explain(error.message(), key.as_deref()),
            key,
        }
    };
    let table = DeTable::parse(text).map_err(|error| blame(&error, &[]))?;
    let mut spans = Vec::new();
    flatten("", table.get_ref(), &mut spans);
    let file = toml::from_str(text).map_err(|error| blame(&error, &spans))?;
    let lines = spans.into_iter().map(|span| (span.key, line_of(span.name.start))).collect();
    Ok(Parsed { file, lines })
}

/// The line, from 1, that an offset is in.
fn line_at(text: &[u8], offset: usize) -> usize {
    1 + memchr::memchr_iter(b'\n', &text[..offset.min(text.len())]).count()
}

/// Where a key and its value stand in the text.
struct Span {
    key: String,
    name: Range<usize>,
    value: Range<usize>,
}

/// Lists the keys of a table and of those within it.
fn flatten(prefix: &str, table: &DeTable<'_>, spans: &mut Vec<Span>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        spans.push(Span { key: key.clone(), name: name.span(), value: value.span() });
        if let DeValue::Table(table) = value.get_ref() {
            flatten(&key, table, spans);
        }
    }
}

/// The key whose name or value an error points at: the longest one, which is the innermost.
fn key_at(spans: &[Span], span: &Range<usize>) -> Option<String> {
    let within = |outer: &Range<usize>| outer.start <= span.start && span.end <= outer.end;
    spans
        .iter()
        .filter(|candidate| candidate.name == *span || within(&candidate.value))
        .max_by_key(|candidate| candidate.key.len())
        .map(|candidate| candidate.key.clone())
}

/// Whether a key that is no setting of a bucket's is meant for a secret.
fn is_credential(key: &str) -> bool {
    let words =
        ["access_key", "key_id", "account_key", "secret", "token", "password", "sas", "service_account", "credential"];
    ["bucket.", "s3.", "gcs.", "azure."]
        .into_iter()
        .find_map(|section| key.strip_prefix(section))
        .is_some_and(|name| words.iter().any(|word| name.to_ascii_lowercase().contains(word)))
}

/// Words an error for people. A value that serde repeats is cut: it may be a token in the wrong place.
fn explain(message: &str, key: Option<&str>) -> String {
    let message = message.trim().replace('\n', "; ");
    if let Some(rest) = message.strip_prefix("invalid type: ") {
        let kind: String = rest.chars().take_while(|c| c.is_alphabetic() || *c == ' ' || *c == '-').collect();
        let expected = rest.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected);
        let expected = if expected.starts_with("struct ") { "a table of settings" } else { expected };
        return format!("a {} stands here, expected {expected}", kind.trim());
    }
    let top_level = key.is_none_or(|key| !key.starts_with("teams."));
    if top_level && (message.starts_with("unknown field `token`") || message.starts_with("unknown field `token_file`"))
    {
        return "a token belongs to a team; write it under [teams.default]".into();
    }
    if message.starts_with("unknown field ") && key.is_some_and(is_credential) {
        return "credentials are not kept in this file; they come from the provider's own environment variables (like \
                AWS_ACCESS_KEY_ID), from an AWS profile (`s3.profile`), or from the machine's role"
            .into();
    }
    if message.starts_with("unknown field ") {
        return message.replacen("unknown field", "there is no setting", 1).replacen(
            "expected one of",
            "the settings here are",
            1,
        );
    }
    message
}

#[cfg(test)]
mod reference_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse(Path::new("jellyjar.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_file_line_and_key() {
        for (text, expected) in [
            (
                "\n[http]\nread_timeout = \"5 parsecs\"\n",
                "jellyjar.toml:3: `http.read_timeout`: \"5 parsecs\" is no duration",
            ),
            ("[http]\nread_timeout = 30\n", "jellyjar.toml:2: `http.read_timeout`: a duration is a text with a unit"),
            (
                "http.read_timeout = \"1ms\"\n",
                "jellyjar.toml:1: `http.read_timeout`: 1ms is out of bounds; write 100ms to 1h",
            ),
            (
                "[worker]\nconcurrency = 0\n",
                "jellyjar.toml:2: `worker.concurrency`: 0 is out of bounds; write 1 to 1024",
            ),
            ("[worker]\nconcurrency = \"8\"\n", "jellyjar.toml:2: `worker.concurrency`: a count is a whole number"),
            ("[spool]\nmax_size = \"lots\"\n", "jellyjar.toml:2: `spool.max_size`: \"lots\" is no size"),
            (
                "[inbox]\nalarm = 1.5\n",
                "jellyjar.toml:2: `inbox.alarm`: 1.5 is out of bounds; write a share, 0.0 to 1.0",
            ),
            ("[inbox]\nalarm = nan\n", "jellyjar.toml:2: `inbox.alarm`: NaN is out of bounds"),
            (
                "[inbox]\nalarm = \"50%\"\n",
                "jellyjar.toml:2: `inbox.alarm`: a share is a number from 0.0 to 1.0, not a text",
            ),
            ("[filter]\nsince = \"soon\"\n", "jellyjar.toml:2: `filter.since`: \"soon\" is no date"),
            ("[filter]\ninline = \"sometimes\"\n", "jellyjar.toml:2: `filter.inline`: unknown variant `sometimes`"),
            (
                "[teams.a.filter]\nnames = \"*.pdf\"\n",
                "jellyjar.toml:2: `teams.a.filter.names`: a string stands here, expected a sequence",
            ),
            ("[teams.a]\narchive_key = \"a/b\"\n", "jellyjar.toml:2: `teams.a.archive_key`: "),
            (
                "[http]\nconect_timeout = \"5s\"\n",
                "jellyjar.toml:2: `http.conect_timeout`: there is no setting `conect_timeout`",
            ),
            ("archive = \"\"\n", "jellyjar.toml:1: `archive`: "),
            ("archive = \"ftp://bucket\"\n", "jellyjar.toml:1: `archive`: \"ftp\" is no kind of place"),
            ("archive = \"s3://key:hush@bucket\"\n", "jellyjar.toml:1: `archive`: a bucket's place is written"),
            ("[http\n", "jellyjar.toml:1: "),
            ("[s3]\nendpoint = 9000\n", "jellyjar.toml:2: `s3.endpoint`: a integer stands here, expected a string"),
            ("[bucket]\npart_size = \"1 MiB\"\n", "jellyjar.toml:2: `bucket.part_size`: 1 MiB is out of bounds"),
            ("[s3]\nobject_lock_mode = \"soft\"\n", "jellyjar.toml:2: `s3.object_lock_mode`: unknown variant `soft`"),
            ("token = \"x\"\n", "jellyjar.toml:1: `token`: a token belongs to a team"),
        ] {
            let error = refusal(text);
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn no_error_repeats_a_token() {
        for text in [
            "[teams.default]\ntoken = hush\n",
            "[teams.default]\ntoken = \"hush hush\"\n",
            "[teams.default]\ntoken = \"hush\\nhush\"\n",
            "[teams.default]\ntoken = [\"hush\"]\n",
            "[teams.default]\ntoken = { hush = 1 }\n",
            "[teams]\ndefault = \"hush\"\n",
            "teams = \"hush\"\n",
            "token = \"hush\"\n",
            "[teams.default]\ntoken = \"hush\n",
            "[teams.default]\ntoken = \"hush\"\ntoken = \"hush2\"\n",
            "[teams.default]\ntoken = hush-\"hush\n",
        ] {
            let error = parse(Path::new("f"), text).unwrap_err();
            assert!(!error.to_string().contains("hush"), "{error}");
            assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        }
    }

    #[test]
    fn who_writes_credentials_of_buckets_into_the_file_is_told_where_they_belong() {
        for text in [
            "[s3]\naccess_key_id = \"hush\"\n",
            "[s3]\n\nsecret_access_key = \"hush\"\n",
            "[s3]\nsession_token = { a = \"hush\" }\n",
            "[gcs]\nservice_account_key = \"hush\"\n",
            "[azure]\nsas_token = \"hush\"\n",
            "[bucket]\nAWS_SECRET_ACCESS_KEY = \"hush\"\n",
        ] {
            let error = parse(Path::new("f"), text).unwrap_err();
            assert!(error.to_string().contains("credentials are not kept in this file"), "{error}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
        let error = refusal("[s3]\nregoin = \"x\"\n");
        assert!(error.contains("there is no setting `regoin`"), "{error}");
    }

    #[test]
    fn a_date_may_stand_without_quotes() {
        let parsed = parse(Path::new("f"), "[filter]\nsince = 2026-01-31\nuntil = 2026-02-01T00:00:00Z\n").unwrap();
        assert_eq!(parsed.file.filter.since.as_deref(), Some("2026-01-31"));
        assert_eq!(parsed.file.filter.until.as_deref(), Some("2026-02-01T00:00:00Z"));
        assert_eq!(parsed.lines["filter.until"], 3);
    }
}
