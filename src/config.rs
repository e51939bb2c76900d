//! Settings: what each means, its default and its bounds. The one reader of the configuration file and environment.

mod aws_profile;
mod bucket;
mod catalog;
mod check;
mod credentials;
mod environment;
mod error;
mod file;
mod http;
mod inbox;
mod load;
mod notify;
mod origin;
mod token;
pub mod values;
mod walk;
mod watched;
mod web;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

pub use bucket::{
    AwsProfile, AzureConfig, BucketConfig, BucketSettings, GcsConfig, ObjectLockMode, ReadBack, S3Config,
};
pub use catalog::{CatalogSetting, PostgresConfig, PostgresUrl};
pub use environment::{Environment, VARIABLES};
pub use error::ConfigError;
pub use http::{ApiConfig, HttpConfig};
pub use inbox::InboxConfig;
pub use load::{DEFAULT_TEAM, Loaded, Overrides, load};
pub use notify::NotifyConfig;
pub use origin::{Origin, Sources};
pub use walk::{BackfillConfig, SweepConfig};
pub use web::{SMALL_BODY_BYTES, ServeConfig, WebhookConfig};

use crate::model::{InvalidId, Location, TeamKey};
use crate::secret::Secret;

/// Everything that can be set, resolved: flag over environment over file over default.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where attachments are kept, unless a team has its own: a folder or a bucket.
    pub archive: Option<Location>,
    /// The catalog's folder or database; by default `.jellyjar` inside an archive that is a folder.
    pub catalog: Option<CatalogSetting>,
    /// How a catalog in PostgreSQL is reached.
    pub postgres: PostgresConfig,
    /// The user's folder for state, where catalogs of buckets are by default.
    pub state_home: Option<PathBuf>,
    /// How to reach Jelly.
    pub api: ApiConfig,
    /// Both HTTP clients.
    pub http: HttpConfig,
    /// The service's request limits.
    pub quota: QuotaConfig,
    /// How work is driven.
    pub worker: WorkerConfig,
    /// How attempts are spaced.
    pub retry: RetryConfig,
    /// The space downloads may take before they are stored.
    pub spool: SpoolConfig,
    /// The inbox of accepted webhooks.
    pub inbox: InboxConfig,
    /// The gap sweep.
    pub sweep: SweepConfig,
    /// Backfills.
    pub backfill: BackfillConfig,
    /// How buckets are reached.
    pub buckets: BucketSettings,
    /// How payloads are read.
    pub source: SourceConfig,
    /// Where webhooks are taken, and what a sender may take.
    pub serve: ServeConfig,
    /// Who is told of trouble, and when.
    pub notify: NotifyConfig,
    /// What is kept, for teams without rules of their own.
    pub filter: FilterConfig,
    /// The teams by name; `default` is the one that flags and environment describe.
    pub teams: BTreeMap<String, TeamConfig>,
    /// Webhooks are taken by other processes, whose secrets this one need not know. Nothing that can be set.
    pub webhooks_elsewhere: bool,
}

/// The live service's limit of requests in each 5 minutes and address.
pub const LIVE_REQUESTS_PER_WINDOW: u64 = 5_000;
/// The live service's limit of requests in each UTC day and team.
pub const LIVE_REQUESTS_PER_DAY: u64 = 100_000;

impl Config {
    /// The limits in force, as requests in each 5 minutes and in each UTC day: what is set; else the live service's
    /// against any base that is not loopback, and none against one that is.
    pub fn quota_limits(&self, base_is_loopback: bool) -> (Option<u64>, Option<u64>) {
        let live = |limit| (!base_is_loopback).then_some(limit);
        (
            self.quota.requests_per_window.or(live(LIVE_REQUESTS_PER_WINDOW)),
            self.quota.requests_per_day.or(live(LIVE_REQUESTS_PER_DAY)),
        )
    }

    /// The rules for a team: its own where it has some, else the common ones.
    pub fn filter_for(&self, team: &str) -> &FilterConfig {
        self.teams.get(team).and_then(|team| team.filter.as_ref()).unwrap_or(&self.filter)
    }

    /// The archive of a team: its own where it has one, else the common one.
    pub fn archive_for(&self, team: &str) -> Option<&Location> {
        self.teams.get(team).and_then(|team| team.archive.as_ref()).or(self.archive.as_ref())
    }

    /// The name of a team in keys and journal lines: its `archive_key`, else its name.
    pub fn team_key(&self, team: &str) -> Result<TeamKey, InvalidId> {
        self.teams.get(team).and_then(|team| team.archive_key.as_deref()).unwrap_or(team).parse()
    }

    /// Whether webhooks of a team can be accepted: there is live traffic, in this process or in another.
    pub fn takes_webhooks(&self, team: &str) -> bool {
        self.webhooks_elsewhere || self.teams.get(team).is_some_and(|team| team.webhook.accepts_any())
    }

    /// The group of teams with which a team shares its address and so its 5-minute window; `default` unless set.
    pub fn egress_group(&self, team: &str) -> &str {
        self.teams.get(team).and_then(|team| team.egress_group.as_deref()).unwrap_or("default")
    }
}

/// One team: its token, its name in the archive, its rules.
#[derive(Debug, Clone, Default)]
pub struct TeamConfig {
    /// The API token (from `token`, `token_file` or the environment).
    pub token: Option<Secret>,
    /// The file that the token came from, or would come from where tokens are not read.
    pub token_file: Option<PathBuf>,
    /// Its own archive.
    pub archive: Option<Location>,
    /// Its immutable name in keys and journal lines; by default its name.
    pub archive_key: Option<String>,
    /// The group of teams that share one address and so one 5-minute window.
    pub egress_group: Option<String>,
    /// Its own rules, in place of the common ones.
    pub filter: Option<FilterConfig>,
    /// By what its webhooks are known.
    pub webhook: WebhookConfig,
}

/// The service's request limits. Where `None`, the live service's limits hold against it, and none against a
/// loopback base.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaConfig {
    /// Requests in each 5 minutes and egress group (the live service: 5,000).
    #[serde(deserialize_with = "values::optional_count::<1, 1_000_000_000, _>")]
    pub requests_per_window: Option<u64>,
    /// Requests in each UTC day and team (the live service: 100,000).
    #[serde(deserialize_with = "values::optional_count::<1, 1_000_000_000, _>")]
    pub requests_per_day: Option<u64>,
    /// The share of both that replays and other bulk work leave to what comes by webhook.
    #[serde(deserialize_with = "values::share")]
    pub live_share: f64,
}

impl Default for QuotaConfig {
    fn default() -> Self {
        Self { requests_per_window: None, requests_per_day: None, live_share: 0.2 }
    }
}

/// How work is driven.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerConfig {
    /// Attachments that are exchanged and fetched at once.
    #[serde(deserialize_with = "values::count::<1, 1024, _, _>")]
    pub concurrency: usize,
    /// Attachments that may be leased at once: fetching, or waiting for their batch to be made durable.
    #[serde(deserialize_with = "values::count::<1, 65_536, _, _>")]
    pub max_leases: usize,
    /// The most attachments that are made durable together.
    #[serde(deserialize_with = "values::count::<1, 65_536, _, _>")]
    pub batch_size: usize,
    /// How long a lease holds without renewal.
    #[serde(deserialize_with = "values::duration::<10_000, 86_400_000, _>")]
    pub lease_duration: Duration,
    /// How long an interrupted run may finish what is in flight.
    #[serde(deserialize_with = "values::duration::<0, 600_000, _>")]
    pub shutdown_timeout: Duration,
    /// The longest pause a foreground run sits out before it ends with work pending.
    #[serde(deserialize_with = "values::duration::<0, 604_800_000, _>")]
    pub max_wait: Duration,
    /// How often a service merges the journal's small segments; zero never does.
    #[serde(deserialize_with = "values::duration::<0, 31_536_000_000, _>")]
    pub compact_every: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            concurrency: 32,
            max_leases: 1024,
            batch_size: 512,
            lease_duration: Duration::from_mins(5),
            shutdown_timeout: Duration::from_secs(8),
            max_wait: Duration::from_mins(10),
            compact_every: Duration::from_hours(24),
        }
    }
}

/// How attempts are spaced: exponential backoff with full jitter.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Attempts before an attachment fails for good.
    #[serde(deserialize_with = "values::count::<1, 1000, _, _>")]
    pub max_attempts: u32,
    /// The upper bound of the first delay.
    #[serde(deserialize_with = "values::duration::<1, 3_600_000, _>")]
    pub base_delay: Duration,
    /// The upper bound of any delay.
    #[serde(deserialize_with = "values::duration::<1, 86_400_000, _>")]
    pub max_delay: Duration,
    /// How long `serve` goes on trying what an outage may be the cause of, however many attempts that takes.
    #[serde(deserialize_with = "values::duration::<0, 2_592_000_000, _>")]
    pub give_up_after: Duration,
    /// How many attempts an outage may cost; see [`RetryConfig::patient`].
    #[serde(skip)]
    pub outage_attempts: u32,
}

impl RetryConfig {
    /// So many attempts are made at most, however short the delays.
    const MOST_ATTEMPTS: u32 = 10_000;

    /// The same, for a service: outages end, and nobody is there to try again. Attempts go on until their delays, half of
    /// their bounds on average, come to `give_up_after`.
    #[must_use]
    pub fn patient(mut self) -> Self {
        let (mut attempts, mut waited) = (0, Duration::ZERO);
        while waited < self.give_up_after && attempts < Self::MOST_ATTEMPTS {
            let bound = self.base_delay.saturating_mul(1 << attempts.min(30)).min(self.max_delay);
            waited = waited.saturating_add(bound / 2);
            attempts += 1;
        }
        self.outage_attempts = attempts;
        self
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 6,
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_mins(30),
            give_up_after: Duration::from_hours(72),
            outage_attempts: 0,
        }
    }
}

/// The space downloads may take before they are stored.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpoolConfig {
    /// On disk, all downloads together, in bytes.
    #[serde(rename = "max_size", deserialize_with = "values::size::<{ 1 << 20 }, { 1 << 50 }, _>")]
    pub max_bytes: u64,
    /// In memory, all downloads together, in bytes.
    #[serde(rename = "max_memory", deserialize_with = "values::size::<0, { 1 << 40 }, _>")]
    pub max_memory_bytes: u64,
    /// Up to this size a download is kept in memory, in bytes.
    #[serde(rename = "memory_threshold", deserialize_with = "values::size::<0, { 1 << 30 }, _>")]
    pub memory_threshold_bytes: u64,
    /// The folder for downloads, for an archive in a bucket; by default beside the catalog.
    #[serde(deserialize_with = "values::optional_path")]
    pub folder: Option<PathBuf>,
    /// Whether that folder may be in memory (tmpfs).
    pub allow_tmpfs: bool,
    /// Free space that is left on the file system, in bytes.
    #[serde(rename = "min_free", deserialize_with = "values::size::<0, { 1 << 50 }, _>")]
    pub min_free_bytes: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            max_bytes: 16 << 30,
            folder: None,
            allow_tmpfs: false,
            max_memory_bytes: 24 << 20,
            memory_threshold_bytes: 256 << 10,
            min_free_bytes: 256 << 20,
        }
    }
}

/// How payloads are read.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceConfig {
    /// The largest message or conversation, in bytes of JSON.
    #[serde(deserialize_with = "values::size_in_memory::<1024, { 4 << 30 }, _>")]
    pub max_payload_bytes: usize,
    /// The largest record of an inbox, in which a webhook's body is a text and so longer, if that is more. Not set, but
    /// known by what `serve` takes.
    #[serde(skip)]
    pub max_record_bytes: usize,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self { max_payload_bytes: 64 << 20, max_record_bytes: 0 }
    }
}

/// What is done with files that the HTML body refers to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InlinePolicy {
    /// None is kept.
    #[default]
    Skip,
    /// Those that are not images are kept: mail clients mark real PDFs inline.
    KeepNonImages,
    /// All are kept.
    Keep,
}

/// Which attachments are kept. Every rule that is set must accept; the first that does not is recorded.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterConfig {
    /// Files that the HTML body refers to.
    pub inline: InlinePolicy,
    /// Media types to keep, as patterns (`application/pdf`, `image/*`); empty keeps all.
    pub content_types: Vec<String>,
    /// Media types to skip.
    pub skip_content_types: Vec<String>,
    /// File names to keep, as patterns without regard to case (`*.pdf`); empty keeps all.
    pub names: Vec<String>,
    /// File names to skip.
    pub skip_names: Vec<String>,
    /// The smallest declared size to keep, as people write it (`4 KiB`).
    #[serde(deserialize_with = "values::optional_size")]
    pub min_size: Option<bytesize::ByteSize>,
    /// The largest declared size to keep.
    #[serde(deserialize_with = "values::optional_size")]
    pub max_size: Option<bytesize::ByteSize>,
    /// Senders to keep, as patterns over the address (`*@supplier.example`); empty keeps all.
    pub senders: Vec<String>,
    /// Senders to skip.
    pub skip_senders: Vec<String>,
    /// `inbound` or `outbound`: keep only mail that went this way.
    pub direction: Option<crate::model::Direction>,
    /// Keep only mail sent at or after this date or time.
    #[serde(deserialize_with = "values::optional_moment")]
    pub since: Option<String>,
    /// Keep only mail sent before this date or time.
    #[serde(deserialize_with = "values::optional_moment")]
    pub until: Option<String>,
    /// Labels of the conversation to keep (any of them); empty keeps all.
    pub labels: Vec<String>,
    /// Labels of the conversation to skip.
    pub skip_labels: Vec<String>,
}
