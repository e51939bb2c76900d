//! What a running service counts and measures, and the one list of metric names. Knows no other module but `config`;
//! whoever does the work is handed the cells that it counts in.
//!
//! Written by hand rather than with a metrics library: the sets of labels are closed (the configured teams, times a few
//! words), so that every series is a plain atomic number with a type of its own. Nothing is looked up by text, no label
//! can grow without bound, every counter exists from the start at zero, and a test needs no global recorder.

mod arrivals;
mod cells;
pub mod families;
mod labels;
mod process;
mod render;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;

pub use arrivals::Arrivals;
pub use cells::{Counter, Counts, Gauge, Histogram, Moment, Readings};
pub use families::{FAMILIES, Family, Kind};
pub use labels::{
    ApiAnswer, AttachmentState, Attempt, Channel, Delivery, Labels, Outcome, Payload, Stage, Success, WebhookResult,
};

/// What an answer with the text of [`Metrics::render`] says of itself (Prometheus text format 0.0.4).
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The team label of what belongs to no configured team. No team can have this name.
pub const NO_TEAM: &str = "(none)";

/// All cells of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Service>);

/// The cells that belong to no team, and those of each.
#[derive(Debug)]
pub struct Service {
    started_at: Timestamp,
    teams: RwLock<BTreeMap<String, Arc<TeamMetrics>>>,
    no_team: Arc<TeamMetrics>,
    groups: RwLock<BTreeMap<String, Arc<GroupMetrics>>>,
    /// Connections to the public listener that are open.
    pub connections: Gauge,
    /// The bytes of webhook bodies that are in memory.
    pub body_bytes_in_flight: Gauge,
    /// The most that the inboxes of all teams may hold together.
    pub inbox_limit_bytes: Gauge,
    /// How long each stage takes.
    pub stages: Counts<Stage, Histogram>,
    /// From a webhook's arrival to its attachment being archived.
    pub archive_delay: Histogram,
    /// When attachments came that are not archived yet, for [`Service::archive_delay`].
    pub arrivals: Arrivals,
    /// Attachments that are being fetched.
    pub in_flight: Gauge,
    /// What downloads take up in the spool folder.
    pub spool_bytes: Gauge,
    /// Whether trouble of this machine holds all teams: 1 or 0.
    pub local_paused: Gauge,
    /// Free bytes of the file systems, by place (`inbox`, `catalog`, `spool`, `archive`).
    pub disk_free_bytes: Readings,
    /// Whether each dependency works, by its name in `/readyz`: 1 or 0.
    pub ready: Readings,
    /// Troubles that last, by their kind.
    pub troubles: Readings,
    /// Notifications by channel and what became of them.
    pub notifications: Counts<Delivery>,
    /// Re-reads of tokens, secrets and certificates.
    pub reloads: Counts<Success>,
    /// Segments of the inbox whose copy in the archive is durable, or could not be made.
    pub payload_copies: Counts<Success>,
    /// Compactions of a journal.
    pub compactions: Counts<Success>,
    /// When the certificate of the public listener expires.
    pub certificate_expiry: Moment,
}

/// The cells of one team.
#[derive(Debug, Default)]
pub struct TeamMetrics {
    /// Webhooks by what became of them.
    pub webhooks: Counts<WebhookResult>,
    /// The bytes of accepted bodies.
    pub webhook_bytes: Counter,
    /// When a webhook was last accepted.
    pub last_webhook: Moment,
    /// The bytes that the inbox takes up on disk.
    pub inbox_bytes: Gauge,
    /// The bytes in the inbox that are durable and not yet ingested.
    pub inbox_lag_bytes: Gauge,
    /// When the oldest record came in that is not yet ingested.
    pub inbox_oldest: Moment,
    /// Whether the inbox can take nothing in: 1 or 0.
    pub inbox_failing: Gauge,
    /// Payloads that were ingested, by what they were.
    pub payloads: Counts<Payload>,
    /// The catalog's attachments by state.
    pub attachments: Counts<AttachmentState, Gauge>,
    /// Since when the attachment waits whose turn it is next, or now: since it was first seen, or last tried.
    pub oldest_pending: Moment,
    /// Attempts by how they ended.
    pub attempts: Counts<Attempt>,
    /// Attachments that came to an end, by outcome and reason.
    pub outcomes: Counts<Outcome>,
    /// The bytes of attachments that were archived, equal contents each time.
    pub archived_bytes: Counter,
    /// The bytes that were stored, equal contents once.
    pub stored_bytes: Counter,
    /// When an attachment was last archived.
    pub last_success: Moment,
    /// Attachments that a sweep found and no webhook had brought.
    pub gap_recovered: Counter,
    /// When a sweep was last completed.
    pub last_sweep: Moment,
    /// Requests to Jelly by answer.
    pub api_requests: Counts<ApiAnswer>,
    /// What is left of the UTC day's quota; unset where there is no limit.
    pub quota_day_left: Gauge,
    /// The UTC day's quota; unset where there is no limit.
    pub quota_day_limit: Gauge,
    /// Whether the team is paused: 1 or 0.
    pub paused: Gauge,
}

/// The cells of one egress group.
#[derive(Debug, Default)]
pub struct GroupMetrics {
    /// What is left of the 5-minute window; unset where there is no limit.
    pub quota_window_left: Gauge,
    /// The 5-minute window's quota; unset where there is no limit.
    pub quota_window_limit: Gauge,
    /// Whether the group is paused: 1 or 0.
    pub paused: Gauge,
}

impl Metrics {
    /// Makes the cells for the teams and egress groups of a configuration.
    pub fn new<'a>(
        teams: impl IntoIterator<Item = &'a str>,
        groups: impl IntoIterator<Item = &'a str>,
        started_at: Timestamp,
    ) -> Self {
        let metrics = Self(Arc::new(Service {
            started_at,
            teams: RwLock::default(),
            no_team: Arc::default(),
            groups: RwLock::default(),
            connections: Gauge::default(),
            body_bytes_in_flight: Gauge::default(),
            inbox_limit_bytes: Gauge::default(),
            stages: Counts::default(),
            archive_delay: Histogram::of_delays(),
            arrivals: Arrivals::default(),
            in_flight: Gauge::default(),
            spool_bytes: Gauge::default(),
            local_paused: Gauge::default(),
            disk_free_bytes: Readings::default(),
            ready: Readings::default(),
            troubles: Readings::default(),
            notifications: Counts::default(),
            reloads: Counts::default(),
            payload_copies: Counts::default(),
            compactions: Counts::default(),
            certificate_expiry: Moment::default(),
        }));
        metrics.reconfigure(teams, groups);
        metrics
    }

    /// Takes over the teams and egress groups of another configuration: those that stay keep their cells, those that are
    /// gone are shown no more.
    pub fn reconfigure<'a>(&self, teams: impl IntoIterator<Item = &'a str>, groups: impl IntoIterator<Item = &'a str>) {
        retain(&self.0.teams, teams);
        retain(&self.0.groups, groups);
    }

    /// Cells that nobody sees, for what works without telling how.
    pub fn unseen() -> Self {
        Self::new([], [], Timestamp::UNIX_EPOCH)
    }

    /// The cells of a team by its configured name; those of [`NO_TEAM`] for a name that is not configured.
    pub fn team(&self, name: &str) -> Arc<TeamMetrics> {
        let teams = self.0.teams.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(teams.get(name).unwrap_or(&self.0.no_team))
    }

    /// The cells of an egress group by its configured name; for any other name, cells that nobody sees.
    pub fn group(&self, name: &str) -> Arc<GroupMetrics> {
        let groups = self.0.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(name).map(Arc::clone).unwrap_or_default()
    }

    /// Writes all of it in Prometheus' text format. Cheap, and does no I/O but for this process's own `/proc`.
    pub fn render(&self, now: Timestamp) -> String {
        render::render(&self.0, now)
    }
}

/// Makes cells for new names, and drops those of names that are gone.
fn retain<'a, T: Default>(cells: &RwLock<BTreeMap<String, Arc<T>>>, names: impl IntoIterator<Item = &'a str>) {
    let mut cells = cells.write().unwrap_or_else(PoisonError::into_inner);
    let mut before = std::mem::take(&mut *cells);
    for name in names {
        let kept = before.remove(name);
        cells.entry(name.to_owned()).or_insert_with(|| kept.unwrap_or_default());
    }
}

impl std::ops::Deref for Metrics {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.0
    }
}

#[cfg(test)]
mod tests;
