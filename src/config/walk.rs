//! `[sweep]` and `[backfill]`: how often is looked for what no webhook brought, and how far reading runs ahead.

use std::time::Duration;

use serde::Deserialize;

use super::values;

/// The gap sweep of `serve`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SweepConfig {
    /// From the end of one to the next; zero switches it off.
    #[serde(deserialize_with = "values::duration::<0, 604_800_000, _>")]
    pub every: Duration,
    /// How long a webhook may be on its way.
    #[serde(deserialize_with = "values::duration::<0, 3_600_000, _>")]
    pub grace: Duration,
}

impl Default for SweepConfig {
    fn default() -> Self {
        Self { every: Duration::from_mins(15), grace: Duration::from_secs(30) }
    }
}

/// Reading what came before.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackfillConfig {
    /// While more attachments of a team are pending, no more messages are read.
    #[serde(deserialize_with = "values::count::<1, 10_000_000, _, _>")]
    pub max_pending: u64,
}

impl Default for BackfillConfig {
    fn default() -> Self {
        Self { max_pending: 5_000 }
    }
}
