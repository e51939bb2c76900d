//! Delivery: one outbox for each receiver, so that none waits for another; tries again with growing waits; pings.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};
use url::Url;

use super::message::Message;
use crate::clock::Clock;
use crate::config::NotifyConfig;
use crate::http::{classify, retry_after};
use crate::metrics::{Channel, Delivery, Metrics};
use crate::secret::Secret;

/// The most notifications that wait for one receiver; the oldest goes when there are more.
const MAX_WAITING: usize = 100;
/// The first wait after a failed delivery; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// A notification that could not be delivered for this long is given up.
const GIVE_UP_MS: i64 = 24 * 3_600_000;
/// How long the last deliveries before the end may take together.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Where notifications go.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    webhook: Option<Secret>,
    slack: Option<Secret>,
    ping: Option<Secret>,
}

impl Addresses {
    pub(super) fn of(config: &NotifyConfig) -> Self {
        let NotifyConfig { webhook_url, slack_url, ping_url, .. } = config;
        Self { webhook: webhook_url.clone(), slack: slack_url.clone(), ping: ping_url.clone() }
    }

    fn of_channel(&self, channel: Channel) -> Option<&Secret> {
        match channel {
            Channel::Webhook => self.webhook.as_ref(),
            Channel::Slack => self.slack.as_ref(),
            Channel::Ping => self.ping.as_ref(),
        }
    }
}

/// Why a delivery failed. Says nothing of the address or of the answer's body: both may be secret.
#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error("the receiver answered {0}")]
    Answer(StatusCode, Option<Duration>),
    #[error("the receiver was not reached: {0}")]
    Transport(String),
    #[error("the address is no URL")]
    Address,
}

impl DeliveryError {
    /// Whether trying again may help.
    fn is_passing(&self) -> bool {
        match self {
            Self::Answer(status, _) => {
                status.is_server_error()
                    || matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
            }
            Self::Transport(_) => true,
            Self::Address => false,
        }
    }
}

/// What waits for one receiver.
#[derive(Debug, Default)]
struct Outbox {
    waiting: Mutex<VecDeque<Waiting>>,
    filled: Notify,
    /// Notifications that were left out since the last that arrived.
    dropped: AtomicU64,
}

#[derive(Debug, Clone)]
struct Waiting {
    message: Message,
    id: String,
    name: Option<String>,
}

/// Whether all is well, and how often that is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Health {
    is_well: bool,
    every: Duration,
}

/// All outboxes.
#[derive(Debug)]
pub(super) struct Outboxes {
    client: RwLock<reqwest::Client>,
    addresses: RwLock<Arc<Addresses>>,
    webhook: Outbox,
    slack: Outbox,
    health: Mutex<Option<Health>>,
    health_changed: Notify,
    clock: Clock,
    metrics: Metrics,
    first_wait: Duration,
}

impl Outboxes {
    pub(super) fn new(client: reqwest::Client, addresses: Addresses, clock: Clock, metrics: Metrics) -> Self {
        Self {
            client: RwLock::new(client),
            addresses: RwLock::new(Arc::new(addresses)),
            webhook: Outbox::default(),
            slack: Outbox::default(),
            health: Mutex::new(None),
            health_changed: Notify::new(),
            clock,
            metrics,
            first_wait: FIRST_WAIT,
        }
    }

    fn client(&self) -> reqwest::Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes other addresses; what waits goes to them.
    pub(super) fn readdress(&self, addresses: Addresses, client: Option<reqwest::Client>) {
        if let Some(client) = client {
            *self.client.write().unwrap_or_else(PoisonError::into_inner) = client;
        }
        *self.addresses.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(addresses);
        self.webhook.filled.notify_one();
        self.slack.filled.notify_one();
        self.health_changed.notify_one();
    }

    fn addresses(&self) -> Arc<Addresses> {
        Arc::clone(&self.addresses.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a message into the outbox of every receiver that there is.
    pub(super) fn push(&self, message: &Message, name: Option<&str>) {
        let addresses = self.addresses();
        for (channel, dropped) in
            [(Channel::Webhook, Delivery::WebhookDropped), (Channel::Slack, Delivery::SlackDropped)]
        {
            let (Some(outbox), Some(_)) = (self.outbox(channel), addresses.of_channel(channel)) else { continue };
            let waiting =
                Waiting { message: message.clone(), id: new_id(message.at_ms), name: name.map(str::to_owned) };
            if outbox.push(waiting) {
                self.metrics.notifications.count(dropped);
            }
        }
    }

    /// Says whether all is well. A change is told at once.
    pub(super) fn health(&self, is_well: bool, every: Duration) {
        let mut health = locked(&self.health);
        if *health != Some(Health { is_well, every }) {
            *health = Some(Health { is_well, every });
            self.health_changed.notify_one();
        }
    }

    fn outbox(&self, channel: Channel) -> Option<&Outbox> {
        match channel {
            Channel::Webhook => Some(&self.webhook),
            Channel::Slack => Some(&self.slack),
            Channel::Ping => None,
        }
    }

    /// Delivers until it is `ending`, and then, for a few seconds, tries once to deliver what waits.
    pub(super) async fn deliver(&self, ending: watch::Receiver<bool>) {
        let all = async {
            tokio::join!(
                self.serve(Channel::Webhook, &self.webhook, ending.clone()),
                self.serve(Channel::Slack, &self.slack, ending.clone()),
                self.ping(ending.clone())
            )
        };
        let mut ended = ending.clone();
        let too_late = async {
            // An end that nobody can call any more is one, too.
            drop(ended.wait_for(|is_ending| *is_ending).await);
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            _ = all => {}
            () = too_late => warn!("not all notifications could be delivered before the end"),
        }
    }

    async fn serve(&self, channel: Channel, outbox: &Outbox, mut ending: watch::Receiver<bool>) {
        let mut wait = self.first_wait;
        let mut is_failing = false;
        loop {
            let is_ending = *ending.borrow_and_update();
            let Some(waiting) = outbox.first() else {
                if is_ending {
                    return;
                }
                tokio::select! {
                    () = outbox.filled.notified() => {}
                    _ = ending.changed() => {}
                }
                continue;
            };
            let age_ms = self.clock.now_ms().saturating_sub(waiting.message.at_ms);
            match self.post(channel, outbox, &waiting).await {
                Ok(()) => {
                    if std::mem::take(&mut is_failing) {
                        info!(channel = channel.name(), "notifications arrive again");
                    }
                    self.metrics.notifications.count(channel.delivery(true));
                    outbox.remove(&waiting.id);
                    wait = self.first_wait;
                }
                Err(error) if error.is_passing() && age_ms < GIVE_UP_MS && !is_ending => {
                    // Once is enough: the counter and the next message tell the rest.
                    if !std::mem::replace(&mut is_failing, true) {
                        warn!(channel = channel.name(), %error, "a notification cannot be delivered; it is tried again");
                    }
                    let asked = if let DeliveryError::Answer(_, asked) = error { asked } else { None };
                    let pause = wait.max(asked.unwrap_or_default()).min(LONGEST_WAIT);
                    wait = (wait * 2).min(LONGEST_WAIT);
                    // A new message or a new address is tried at once.
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = outbox.filled.notified() => {}
                        _ = ending.changed() => {}
                    }
                }
                Err(error) => {
                    let advice = if error.is_passing() { "" } else { "; check the address" };
                    warn!(channel = channel.name(), %error, "a notification is given up{advice}");
                    self.metrics.notifications.count(channel.delivery(false));
                    outbox.remove(&waiting.id);
                    outbox.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Sends one notification.
    async fn post(&self, channel: Channel, outbox: &Outbox, waiting: &Waiting) -> Result<(), DeliveryError> {
        let addresses = self.addresses();
        // Without an address any more there is nobody to tell.
        let Some(address) = addresses.of_channel(channel) else { return Ok(()) };
        let url = Url::parse(address.expose()).map_err(|_| DeliveryError::Address)?;
        let dropped = outbox.dropped.load(Ordering::Relaxed);
        let name = waiting.name.as_deref();
        let body = match channel {
            Channel::Slack => waiting.message.as_slack(name, dropped),
            Channel::Webhook | Channel::Ping => waiting.message.as_json(&waiting.id, name, dropped),
        };
        let request = self.client().post(url).header(CONTENT_TYPE, "application/json").body(body.to_string());
        self.send(request).await?;
        outbox.dropped.fetch_sub(dropped, Ordering::Relaxed);
        Ok(())
    }

    /// Tells the health check how it is: at once after a change, and again and again.
    async fn ping(&self, mut ending: watch::Receiver<bool>) {
        let mut is_failing = false;
        while !*ending.borrow_and_update() {
            let health = *locked(&self.health);
            let addresses = self.addresses();
            let (Some(health), Some(address)) = (health, addresses.of_channel(Channel::Ping)) else {
                tokio::select! {
                    () = self.health_changed.notified() => {}
                    _ = ending.changed() => {}
                }
                continue;
            };
            let sent = match ping_url(address, health.is_well) {
                Some(url) => self.send(self.client().get(url)).await,
                None => Err(DeliveryError::Address),
            };
            self.metrics.notifications.count(Channel::Ping.delivery(sent.is_ok()));
            let mut wait = health.every;
            if let Err(error) = &sent {
                wait = wait.min(self.first_wait * 6);
                if !is_failing {
                    warn!(channel = Channel::Ping.name(), %error, "the health check was not reached");
                }
            } else if is_failing {
                info!(channel = Channel::Ping.name(), "the health check is reached again");
            }
            is_failing = sent.is_err();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.health_changed.notified() => {}
                _ = ending.changed() => {}
            }
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<(), DeliveryError> {
        let response = request.send().await.map_err(|error| DeliveryError::Transport(classify(error).1))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        Err(DeliveryError::Answer(status, retry_after(response.headers(), self.clock.now())))
    }
}

impl Outbox {
    /// Adds one; tells whether the oldest had to go for it.
    fn push(&self, new: Waiting) -> bool {
        let mut waiting = locked(&self.waiting);
        let is_full = waiting.len() >= MAX_WAITING;
        if is_full {
            waiting.pop_front();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        waiting.push_back(new);
        drop(waiting);
        self.filled.notify_one();
        is_full
    }

    fn first(&self) -> Option<Waiting> {
        locked(&self.waiting).front().cloned()
    }

    /// Removes one, unless it had to go meanwhile.
    fn remove(&self, id: &str) {
        locked(&self.waiting).retain(|waiting| waiting.id != id);
    }
}

/// The URL of a ping: the address itself, or with `/fail` behind its path (as healthchecks.io and its likes have it).
fn ping_url(address: &Secret, is_well: bool) -> Option<Url> {
    let mut url = Url::parse(address.expose()).ok()?;
    if !is_well {
        let path = format!("{}/fail", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    Some(url)
}

/// A new ULID, by which a receiver knows a notification that came twice.
fn new_id(at_ms: i64) -> String {
    let mut random = [0; 16];
    // Without randomness the time alone must tell them apart.
    let _ = getrandom::fill(&mut random);
    ulid::Ulid::from_parts(u64::try_from(at_ms).unwrap_or(0), u128::from_be_bytes(random)).to_string()
}

/// Whole values are put in and taken out: a holder that panics leaves nothing half-changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
