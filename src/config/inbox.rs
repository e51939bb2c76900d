//! `[inbox]`: where accepted webhooks wait until they are archived, and how much of them.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{Config, values};

/// The inbox of accepted webhooks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InboxConfig {
    /// Its folder, on a local disk; by default in the state home.
    #[serde(deserialize_with = "values::optional_path")]
    pub folder: Option<PathBuf>,
    /// Whether that folder may be in memory (tmpfs), where nothing survives a crash of the machine.
    pub allow_tmpfs: bool,
    /// On disk, all teams together, in bytes. Where there are several, no team has more than half of it.
    #[serde(rename = "max_size", deserialize_with = "values::size::<{ 1 << 20 }, { 1 << 50 }, _>")]
    pub max_bytes: u64,
    /// Free space that is left on the file system, in bytes.
    #[serde(rename = "min_free", deserialize_with = "values::size::<0, { 1 << 50 }, _>")]
    pub min_free_bytes: u64,
    /// The share of `max_bytes` from which on an alarm is given.
    #[serde(deserialize_with = "values::share")]
    pub alarm: f64,
    /// The size at which a file is closed and the next one begun, in bytes.
    #[serde(rename = "segment_size", deserialize_with = "values::size::<{ 64 << 10 }, { 1 << 30 }, _>")]
    pub segment_bytes: u64,
    /// The age at which a file is closed, so that it is copied into the archive.
    #[serde(deserialize_with = "values::duration::<1_000, 86_400_000, _>")]
    pub segment_age: Duration,
    /// How long copies of inboxes are kept in the archive; zero keeps none.
    #[serde(deserialize_with = "values::duration::<0, 315_360_000_000, _>")]
    pub keep_copies: Duration,
    /// In memory, all webhooks together that wait to be written, in bytes. The last one may reach beyond.
    #[serde(rename = "max_waiting_size", deserialize_with = "values::size::<{ 1 << 20 }, { 1 << 36 }, _>")]
    pub max_waiting_bytes: u64,
    /// How many webhooks may wait to be written.
    #[serde(deserialize_with = "values::count::<1, 1_000_000, _, _>")]
    pub max_waiting: usize,
    /// How long writing one webhook may take.
    #[serde(deserialize_with = "values::duration::<100, 600_000, _>")]
    pub write_timeout: Duration,
}

impl Default for InboxConfig {
    fn default() -> Self {
        Self {
            folder: None,
            allow_tmpfs: false,
            max_bytes: 4 << 30,
            min_free_bytes: 256 << 20,
            alarm: 0.5,
            segment_bytes: 64 << 20,
            segment_age: Duration::from_mins(10),
            keep_copies: Duration::from_hours(30 * 24),
            max_waiting_bytes: 32 << 20,
            max_waiting: 16_384,
            write_timeout: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// The folder of the inbox: the one that is set, else the one in the state home; `None` where that is not known.
    pub fn inbox_folder(&self) -> Option<PathBuf> {
        let home = || self.state_home.as_ref().map(|home| home.join("jellyjar").join("inbox"));
        self.inbox.folder.clone().or_else(home)
    }
}
