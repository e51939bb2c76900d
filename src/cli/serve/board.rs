//! How the parts of the service are: what `/readyz` tells, metrics count and people are notified of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::disks;
use crate::clock::Clock;
use crate::inbox::{AppendError, Inboxes};
use crate::metrics::{Metrics, Stage, Success, WebhookResult};
use crate::notify::{Condition, Kind, Notifier, Pulse};
use crate::web::{Delivery, DeliveryResult, Dependency, Health, Refusal, Sink};

/// Why something is not ready before it was tried.
const OPENING: &str = "it is being opened";
/// Why a catalog is not, whose archive could not be opened.
const BEHIND: &str = "it is opened once its archive is";

fn is_untried(reason: &str) -> bool {
    [OPENING, BEHIND].contains(&reason)
}

/// What the work on one archive needs.
#[derive(Debug)]
struct Needed {
    archive: Result<(), String>,
    /// The name of its catalog, which many archives may share.
    catalog: String,
    catalog_state: Result<(), String>,
}

/// The board. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Board {
    inboxes: Option<Inboxes>,
    metrics: Metrics,
    notifier: Notifier,
    pulse: Pulse,
    archives: Arc<Mutex<BTreeMap<String, Needed>>>,
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

    /// Expects these archives, each with the name of its catalog, and no others.
    pub(super) fn expect(&self, places: impl Iterator<Item = (String, String)>) {
        let opening = || Err(OPENING.to_owned());
        let needed = |catalog| Needed { archive: opening(), catalog, catalog_state: opening() };
        let mut archives = self.archives();
        let before = std::mem::take(&mut *archives);
        archives.extend(places.map(|(place, catalog)| (place, needed(catalog))));
        for (place, Needed { catalog, .. }) in before {
            if !archives.contains_key(&place) {
                self.notifier.clear(&not_ready("archive", &place));
            }
            if archives.values().all(|needed| needed.catalog != catalog) {
                self.notifier.clear(&not_ready("catalog", &catalog));
            }
        }
    }

    /// Expects nothing more of a team that is not configured any more.
    pub(super) fn forget_team(&self, name: &str) {
        for kind in [Kind::TeamPaused, Kind::NoSuccess, Kind::InboxFilling] {
            self.notifier.clear(&Condition::new(kind, name));
        }
    }

    /// Notes that an archive and its catalog are well.
    pub(super) fn is_well(&self, place: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(place.to_owned());
        self.note(place, Some(Ok(())), Some(Ok(())));
    }

    /// Notes why nothing goes on: for an error of the catalog, or for one of the archive.
    pub(super) fn failed(&self, place: &str, error: &anyhow::Error, text: String) {
        if disks::is_of_catalog(error) {
            // An archive is opened before its catalog is, and works until it fails itself.
            self.note(place, Some(Ok(())), Some(Err(text)));
        } else {
            self.archive_failed(place, text);
        }
    }

    /// Notes that nothing can be written to an archive. How its catalog is is not known by that.
    pub(super) fn archive_failed(&self, place: &str, text: String) {
        self.note(place, Some(Err(text)), None);
    }

    fn note(&self, place: &str, archive: Option<Result<(), String>>, catalog: Option<Result<(), String>>) {
        let mut archives = self.archives();
        // One that is not configured any more is being ended.
        let Some(needed) = archives.get_mut(place) else { return };
        if let Some(state) = archive {
            self.notifier.set(not_ready("archive", place), state.as_ref().err().cloned());
            if state.is_err() && needed.catalog_state.as_ref().is_err_and(|text| text == OPENING) {
                needed.catalog_state = Err(BEHIND.to_owned());
            }
            needed.archive = state;
        }
        if let Some(state) = catalog {
            needed.catalog_state = state;
            let name = needed.catalog.clone();
            let trouble = state_of_catalog(&archives, &name).err().filter(|text| !is_untried(text));
            self.notifier.set(not_ready("catalog", &name), trouble);
        }
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

    fn archives(&self) -> MutexGuard<'_, BTreeMap<String, Needed>> {
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
        let hanging = self.hanging();
        // What hangs hears of no trouble, so its dependencies may seem well.
        let process = (!hanging.is_empty()).then(|| Dependency {
            name: "process".into(),
            state: Err(format!("no sign of life: {}", hanging.join(", "))),
        });
        let archives = self.archives();
        let of_archive = |(place, needed): (&String, &Needed)| Dependency {
            name: format!("archive:{place}"),
            state: needed.archive.clone(),
        };
        let catalogs: BTreeSet<&str> = archives.values().map(|needed| needed.catalog.as_str()).collect();
        let of_catalog =
            |name: &str| Dependency { name: format!("catalog:{name}"), state: state_of_catalog(&archives, name) };
        let of_archives = archives.iter().map(of_archive).chain(catalogs.into_iter().map(of_catalog));
        inbox.into_iter().chain(process).chain(of_archives).collect()
    }

    fn hanging(&self) -> Vec<String> {
        self.pulse.late().into_iter().map(|(part, _)| part).collect()
    }
}

fn not_ready(what: &str, name: &str) -> Condition {
    Condition::new(Kind::NotReady, format!("{what}:{name}"))
}

/// How a catalog is for those who use it: what failed for one of them counts, and what was never tried.
fn state_of_catalog(archives: &BTreeMap<String, Needed>, name: &str) -> Result<(), String> {
    let users = || archives.values().filter(|needed| needed.catalog == name).map(|needed| &needed.catalog_state);
    let troubles = || users().filter_map(|state| state.as_ref().err());
    troubles().find(|text| !is_untried(text)).or_else(|| troubles().next()).map_or(Ok(()), |text| Err(text.clone()))
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
