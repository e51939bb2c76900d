//! The text format of Prometheus, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;

use super::cells::{Counter, Counts, Gauge, Histogram, Moment, Readings};
use super::families::{self, Family};
use super::{Labels, NO_TEAM, Service, TeamMetrics, process};

/// Writes every family, in the order of the list.
pub(super) fn render(service: &Service, now: Timestamp) -> String {
    let now_ms = now.as_millisecond();
    let (teams, groups) = (named(&service.teams), named(&service.groups));
    let no_team = (NO_TEAM, &*service.no_team);
    let teams: Vec<_> = teams.iter().map(|(name, team)| (name.as_str(), &**team)).collect();
    let every_team = teams.iter().copied().chain([no_team]).collect();
    let mut page = Page { text: String::with_capacity(16 << 10), teams: every_team };
    page.begin(families::BUILD).sample(&[env!("CARGO_PKG_VERSION")], 1);
    page.begin(families::START).sample(&[], seconds(service.started_at.as_millisecond()));
    page.begin(families::MEMORY).value(&[], process::resident_bytes());
    page.begin(families::FILES).value(&[], process::open_files());
    page.readings(families::READY, &service.ready);
    page.readings(families::TROUBLES, &service.troubles);

    page.team_counts(families::WEBHOOKS, |team| &team.webhooks);
    page.team_counter(families::WEBHOOK_BYTES, |team| &team.webhook_bytes);
    page.team_time(families::LAST_WEBHOOK, |team| &team.last_webhook);
    page.begin(families::CONNECTIONS).value(&[], service.connections.value());
    page.begin(families::BODY_BYTES).value(&[], service.body_bytes_in_flight.value());

    page.team_gauge(families::INBOX_BYTES, |team| &team.inbox_bytes);
    page.begin(families::INBOX_LIMIT).value(&[], service.inbox_limit_bytes.value());
    page.team_gauge(families::INBOX_LAG, |team| &team.inbox_lag_bytes);
    page.team_age(families::INBOX_AGE, now_ms, |team| &team.inbox_oldest);
    page.team_gauge(families::INBOX_FAILING, |team| &team.inbox_failing);
    page.team_counts(families::PAYLOADS, |team| &team.payloads);
    page.counts(families::PAYLOAD_COPIES, &service.payload_copies);
    page.counts(families::COMPACTIONS, &service.compactions);

    page.begin(families::ATTACHMENTS);
    for (name, team) in page.teams.clone() {
        for (state, gauge) in team.attachments.iter() {
            page.labelled(families::ATTACHMENTS, name, state.values(), gauge.value());
        }
    }
    page.team_age(families::PENDING_AGE, now_ms, |team| &team.oldest_pending);
    page.team_counter(families::GAP_RECOVERED, |team| &team.gap_recovered);
    page.team_time(families::LAST_SWEEP, |team| &team.last_sweep);
    page.begin(families::IN_FLIGHT).value(&[], service.in_flight.value());
    page.team_counts(families::ATTEMPTS, |team| &team.attempts);
    page.team_counts(families::OUTCOMES, |team| &team.outcomes);
    page.team_counter(families::ARCHIVED_BYTES, |team| &team.archived_bytes);
    page.team_counter(families::STORED_BYTES, |team| &team.stored_bytes);
    page.team_time(families::LAST_SUCCESS, |team| &team.last_success);
    page.begin(families::STAGES);
    for (stage, histogram) in service.stages.iter() {
        page.histogram(families::STAGES, stage.values(), histogram);
    }
    page.begin(families::ARCHIVE_DELAY);
    page.histogram(families::ARCHIVE_DELAY, &[], &service.archive_delay);
    page.begin(families::SPOOL).value(&[], service.spool_bytes.value());
    page.readings(families::DISK_FREE, &service.disk_free_bytes);

    page.team_counts(families::API_REQUESTS, |team| &team.api_requests);
    page.team_gauge(families::QUOTA_DAY_LEFT, |team| &team.quota_day_left);
    page.team_gauge(families::QUOTA_DAY_LIMIT, |team| &team.quota_day_limit);
    let mut left = page.begin(families::QUOTA_WINDOW_LEFT);
    for (name, group) in &groups {
        left.value(&[name], group.quota_window_left.value());
    }
    let mut limit = page.begin(families::QUOTA_WINDOW_LIMIT);
    for (name, group) in &groups {
        limit.value(&[name], group.quota_window_limit.value());
    }
    let mut paused = page.begin(families::PAUSED);
    for (name, team) in &teams {
        paused.value(&["team", name], team.paused.value());
    }
    for (name, group) in &groups {
        paused.value(&["egress_group", name], group.paused.value());
    }
    paused.value(&["local", ""], service.local_paused.value());

    let mut expiry = page.begin(families::CERTIFICATE_EXPIRY);
    if let Some(at_ms) = service.certificate_expiry.value_ms() {
        expiry.sample(&[], seconds(at_ms));
    }
    page.counts(families::NOTIFICATIONS, &service.notifications);
    page.counts(families::RELOADS, &service.reloads);
    page.text
}

/// The cells with their names, as they are now.
fn named<T>(cells: &RwLock<BTreeMap<String, Arc<T>>>) -> Vec<(String, Arc<T>)> {
    let cells = cells.read().unwrap_or_else(PoisonError::into_inner);
    cells.iter().map(|(name, cells)| (name.clone(), Arc::clone(cells))).collect()
}

/// Milliseconds as seconds, without rounding.
fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    let ms = ms.unsigned_abs();
    format!("{sign}{}.{:03}", ms / 1000, ms % 1000)
}

struct Page<'a> {
    text: String,
    teams: Vec<(&'a str, &'a TeamMetrics)>,
}

/// A family that is being written.
struct Series<'p> {
    text: &'p mut String,
    family: &'static Family,
}

impl<'a> Page<'a> {
    fn begin(&mut self, family: &'static Family) -> Series<'_> {
        let Family { name, kind, help, .. } = family;
        // Writing into a String cannot fail.
        _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
        Series { text: &mut self.text, family }
    }

    /// One sample of a family that was begun, for a team and further labels.
    fn labelled(&mut self, family: &'static Family, team: &str, labels: &[&str], value: impl Into<Option<u64>>) {
        let values: Vec<&str> = std::iter::once(team).chain(labels.iter().copied()).collect();
        Series { text: &mut self.text, family }.value(&values, value);
    }

    fn team_counts<L: Labels>(&mut self, family: &'static Family, cells: impl Fn(&'a TeamMetrics) -> &'a Counts<L>) {
        self.begin(family);
        for (name, team) in self.teams.clone() {
            for (label, counter) in cells(team).iter() {
                self.labelled(family, name, label.values(), counter.value());
            }
        }
    }

    fn team_counter(&mut self, family: &'static Family, cell: impl Fn(&'a TeamMetrics) -> &'a Counter) {
        self.begin(family);
        for (name, team) in self.teams.clone() {
            self.labelled(family, name, &[], cell(team).value());
        }
    }

    fn team_gauge(&mut self, family: &'static Family, cell: impl Fn(&'a TeamMetrics) -> &'a Gauge) {
        self.begin(family);
        for (name, team) in self.teams.clone() {
            self.labelled(family, name, &[], cell(team).value());
        }
    }

    /// A time, where there is one.
    fn team_time(&mut self, family: &'static Family, cell: impl Fn(&'a TeamMetrics) -> &'a Moment) {
        let teams = self.teams.clone();
        let mut series = self.begin(family);
        for (name, team) in teams {
            if let Some(at_ms) = cell(team).value_ms() {
                series.sample(&[name], seconds(at_ms));
            }
        }
    }

    /// How long ago a time is; 0 where there is none. What belongs to no team does not wait.
    fn team_age(&mut self, family: &'static Family, now_ms: i64, cell: impl Fn(&'a TeamMetrics) -> &'a Moment) {
        let teams = self.teams.clone();
        let mut series = self.begin(family);
        for (name, team) in teams.into_iter().filter(|(name, _)| *name != NO_TEAM) {
            let age_ms = cell(team).value_ms().map_or(0, |since| now_ms.saturating_sub(since).max(0));
            series.sample(&[name], seconds(age_ms));
        }
    }

    fn counts<L: Labels>(&mut self, family: &'static Family, counts: &Counts<L>) {
        let mut series = self.begin(family);
        for (label, counter) in counts.iter() {
            series.sample(label.values(), counter.value());
        }
    }

    fn readings(&mut self, family: &'static Family, readings: &Readings) {
        let mut series = self.begin(family);
        for (name, value) in readings.values() {
            series.sample(&[&name], value);
        }
    }

    /// One histogram of a family that was begun.
    fn histogram(&mut self, family: &'static Family, labels: &[&str], histogram: &Histogram) {
        let read = histogram.read();
        let name = family.name;
        let mut labels = label_pairs(family.labels, labels);
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound_ms, count) in &read.at_most {
            let bound = seconds(bound_ms.cast_signed());
            let bound = bound.trim_end_matches('0').trim_end_matches('.');
            _ = writeln!(self.text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
        }
        _ = writeln!(self.text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", read.count);
        if !labels.is_empty() {
            labels = format!("{{{labels}}}");
        }
        let sum = format!("{}.{:06}", read.sum_us / 1_000_000, read.sum_us % 1_000_000);
        _ = writeln!(self.text, "{name}_sum{labels} {sum}\n{name}_count{labels} {}", read.count);
    }
}

impl Series<'_> {
    /// One sample.
    fn sample(&mut self, values: &[&str], number: impl Display) {
        let labels = label_pairs(self.family.labels, values);
        let name = self.family.name;
        _ = if labels.is_empty() {
            writeln!(self.text, "{name} {number}")
        } else {
            writeln!(self.text, "{name}{{{labels}}} {number}")
        };
    }

    /// One sample, if there is a value.
    fn value(&mut self, values: &[&str], number: impl Into<Option<u64>>) {
        if let Some(number) = number.into() {
            self.sample(values, number);
        }
    }
}

/// Label names and values as they stand between braces.
fn label_pairs(names: &[&str], values: &[&str]) -> String {
    debug_assert_eq!(names.len(), values.len(), "{names:?} {values:?}");
    let pairs = names.iter().zip(values).map(|(name, value)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    });
    pairs.collect::<Vec<_>>().join(",")
}
