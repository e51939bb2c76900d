//! How the parts of the service are: what `/readyz` tells, metrics count and people are notified of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::clock::Clock;
use crate::inbox::{AppendError, Inboxes};
use crate::metrics::{Metrics, Stage, Success, WebhookResult};
use crate::notify::{Condition, Kind, Notifier, Pulse};
use crate::web::{Delivery, DeliveryResult, Dependency, Health, Refusal, Sink};

/// The board. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Board {
    inboxes: Option<Inboxes>,
    metrics: Metrics,
    notifier: Notifier,
    pulse: Pulse,
    archives: Arc<Mutex<BTreeMap<String, Result<(), String>>>>,
    /// Archives that were open once in this process.
    known: Arc<Mutex<BTreeSet<String>>>,
    clock: Clock,
}

impl Board {
    pub(super) fn new(
        inboxes: Option<Inboxes>,
        metrics: Metrics,
        notifier: Notifier,
        pulse: Pulse,
        clock: Clock,
    ) -> Self {
        Self { inboxes, metrics, notifier, pulse, archives: Arc::default(), known: Arc::default(), clock }
    }

    /// Expects these archives, and no others.
    pub(super) fn expect(&self, places: impl Iterator<Item = String>) {
        let mut archives = self.archives();
        let before = std::mem::take(&mut *archives);
        archives.extend(places.map(|place| (place, Err("it is being opened".into()))));
        for place in before.keys().filter(|place| !archives.contains_key(*place)) {
            self.notifier.clear(&not_ready(place));
        }
    }

    /// Expects nothing more of a team that is not configured any more.
    pub(super) fn forget_team(&self, name: &str) {
        for kind in [Kind::TeamPaused, Kind::NoSuccess, Kind::InboxFilling] {
            self.notifier.clear(&Condition::new(kind, name));
        }
    }

    /// Notes how an archive is: well, or why not.
    pub(super) fn archive(&self, place: &str, state: Result<(), String>) {
        if state.is_ok() {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(place.to_owned());
        }
        self.notifier.set(not_ready(place), state.as_ref().err().cloned());
        self.archives().insert(place.to_owned(), state);
    }

    /// Whether an archive was open once in this process.
    pub(super) fn was_there(&self, place: &str) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(place)
    }

    /// Notes whether settings could be read again.
    pub(super) fn reloaded(&self, failure: Option<String>) {
        let success = if failure.is_some() { Success::Failed } else { Success::Succeeded };
        self.metrics.reloads.of(success).add(1);
        self.notifier.set(Condition::new(Kind::ReloadFailed, "settings"), failure);
    }

    /// Notes what became of a webhook.
    pub(super) fn delivered(&self, delivery: &Delivery<'_>) {
        let team = self.metrics.team(delivery.team.unwrap_or(crate::metrics::NO_TEAM));
        team.webhooks.of(result_of(delivery.result)).add(1);
        if delivery.result == DeliveryResult::Stored {
            team.webhook_bytes.add(delivery.size_bytes);
            team.last_webhook.set(self.clock.now());
            self.metrics.stages.of(Stage::Receive).observe(delivery.elapsed);
        }
        if let (DeliveryResult::TooLarge, Some(name)) = (delivery.result, delivery.team) {
            let detail = "a webhook was refused, as its body is larger than `serve.max_body_size`";
            self.notifier.happened(Condition::new(Kind::BodyTooLarge, name), 1, detail);
        }
    }

    /// Looks at what changes by itself.
    pub(super) fn look(&self) {
        let Some(inboxes) = &self.inboxes else { return };
        let (status, now) = (inboxes.status(), self.clock.now());
        self.metrics.inbox_limit_bytes.set(status.max_bytes);
        for team in &status.teams {
            let cells = self.metrics.team(&team.team);
            cells.inbox_bytes.set(team.bytes);
            cells.inbox_lag_bytes.set(team.unread_bytes);
            let oldest = team.unread_age.map(|age| now.checked_sub(age).unwrap_or(now));
            cells.inbox_oldest.set(oldest);
            cells.inbox_failing.set(u64::from(team.failing.is_some()));
            let alarm = team.failing.clone().or_else(|| team.alarm.clone());
            self.notifier.set(Condition::new(Kind::InboxFilling, &team.team), alarm);
        }
        let waiting = status.strangers.into_iter().map(|one| {
            let detail = format!("{} hold {}.", one.folder.display(), bytesize::ByteSize(one.bytes));
            (one.team, detail)
        });
        self.notifier.set_all(Kind::InboxOfNoTeam, waiting.collect());
    }

    /// Shows how each dependency is, in the metrics.
    pub(super) fn show(&self) {
        let ready = |one: Dependency| (one.name, u64::from(one.state.is_ok()));
        self.metrics.ready.replace(self.dependencies().into_iter().map(ready));
    }

    fn archives(&self) -> MutexGuard<'_, BTreeMap<String, Result<(), String>>> {
        self.archives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health for Board {
    fn dependencies(&self) -> Vec<Dependency> {
        let inbox = self.inboxes.as_ref().map(|inboxes| {
            let teams = inboxes.status().teams.into_iter();
            let failing: Vec<String> =
                teams.filter_map(|team| Some(format!("{}: {}", team.team, team.failing?))).collect();
            let state = if failing.is_empty() { Ok(()) } else { Err(failing.join("; ")) };
            Dependency { name: "inbox".into(), state }
        });
        let archives = self.archives();
        let archives =
            archives.iter().map(|(place, state)| Dependency { name: format!("archive:{place}"), state: state.clone() });
        inbox.into_iter().chain(archives).collect()
    }

    fn hanging(&self) -> Vec<String> {
        self.pulse.late().into_iter().map(|(part, _)| part).collect()
    }
}

fn not_ready(place: &str) -> Condition {
    Condition::new(Kind::NotReady, format!("archive:{place}"))
}

/// What inbox records say of where they came from.
pub(super) const WEBHOOK: &str = "webhook";

/// Hands webhooks to the inbox.
#[derive(Debug, Clone)]
pub(super) struct InboxSink(pub(super) Inboxes, pub(super) Metrics);

impl Sink for InboxSink {
    async fn append(&self, team: &str, body: Bytes) -> Result<(), Refusal> {
        let began = Instant::now();
        let appended = self.0.append(team, WEBHOOK, body).await;
        if appended.is_ok() {
            self.1.stages.of(Stage::Append).observe(began.elapsed());
        }
        appended.map_err(|error| match error {
            AppendError::Overloaded => Refusal::Overloaded { retry_after: Duration::from_secs(1) },
            other => Refusal::Unavailable { reason: other.to_string() },
        })
    }
}

fn result_of(result: DeliveryResult) -> WebhookResult {
    match result {
        DeliveryResult::Stored => WebhookResult::Accepted,
        DeliveryResult::Unauthorized => WebhookResult::Unauthorized,
        DeliveryResult::TooLarge => WebhookResult::TooLarge,
        DeliveryResult::Encoded => WebhookResult::Compressed,
        DeliveryResult::NotFound | DeliveryResult::WrongMethod | DeliveryResult::Unmet => WebhookResult::Refused,
        DeliveryResult::Overloaded => WebhookResult::Overloaded,
        DeliveryResult::Unavailable => WebhookResult::Unavailable,
        DeliveryResult::TooSlow | DeliveryResult::Broken => WebhookResult::CutOff,
    }
}
