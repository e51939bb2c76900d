//! Mail that arrives while the simulator runs, and the webhook that tells of it: signed, sent once, never again, and
//! switched off after ten failures in a row, as the service does it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use url::Url;

use super::faults::Fault;
use super::state::{Call, State, lock};
use super::team::{Delivery, Schedule};

/// After so many failures in a row it is switched off.
const MAX_FAILURES: u64 = 10;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is told of mail that arrives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Setting")]
pub struct Webhook {
    url: Url,
    secret: String,
}

/// A webhook as the control page takes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    url: String,
    #[serde(default)]
    secret: String,
}

impl TryFrom<Setting> for Webhook {
    type Error = String;

    fn try_from(setting: Setting) -> Result<Self, String> {
        Self::new(&setting.url, &setting.secret)
    }
}

impl Webhook {
    /// A webhook to an `http://` URL; user and password in it become Basic auth. Bodies are signed with `secret`, or not at
    /// all if it is empty.
    pub fn new(url: &str, secret: &str) -> Result<Self, String> {
        let parsed = Url::parse(url).map_err(|error| format!("{url:?} is no URL: {error}"))?;
        if parsed.scheme() != "http" {
            return Err(format!("{url:?}: the simulator posts to http:// only"));
        }
        Ok(Self { url: parsed, secret: secret.to_owned() })
    }
}

/// Mail that arrives by itself, and who is told.
#[derive(Debug)]
pub(super) struct Hook {
    webhook: Mutex<Option<Webhook>>,
    failures: Arc<AtomicU64>,
    schedule: Mutex<Option<Running>>,
    /// Where webhooks are sent from, whoever lets the mail arrive.
    runtime: Handle,
}

/// A schedule, and how far it is.
#[derive(Debug)]
struct Running {
    schedule: Schedule,
    requests: u64,
    delivered: u64,
}

impl Hook {
    /// Begins with these. Webhooks are sent from the runtime that this is called on.
    pub(super) fn new(webhook: Option<Webhook>, schedule: Option<Schedule>) -> Self {
        let (webhook, runtime) = (Mutex::new(webhook), Handle::current());
        let hook = Self { webhook, failures: Arc::default(), schedule: Mutex::default(), runtime };
        hook.set_schedule(schedule);
        hook
    }

    /// Replaces the schedule, and begins to count anew.
    pub(super) fn set_schedule(&self, schedule: Option<Schedule>) {
        *lock(&self.schedule) = schedule.map(|schedule| Running { schedule, requests: 0, delivered: 0 });
    }

    /// Replaces the webhook, and forgets its failures.
    pub(super) fn set_webhook(&self, webhook: Option<Webhook>) {
        *lock(&self.webhook) = webhook;
        self.failures.store(0, Relaxed);
    }

    /// Counts a request to the API, and says which mail arrives at it.
    fn due(&self) -> Option<Delivery> {
        let mut running = lock(&self.schedule);
        let running = running.as_mut()?;
        running.requests += 1;
        let Schedule { every, count, mail } = &running.schedule;
        if running.delivered >= *count || !running.requests.is_multiple_of((*every).max(1)) {
            return None;
        }
        running.delivered += 1;
        Some(Delivery { new: mail.new || running.delivered.is_multiple_of(4), ..mail.clone() })
    }
}

/// Counts a request to the API; mail may arrive at it.
pub(super) fn tick(state: &State) {
    if let Some(delivery) = state.hook.due() {
        deliver(state, &delivery);
    }
}

/// Lets a message arrive, and tells the webhook. `None` if there is no such conversation.
pub(super) fn deliver(state: &State, delivery: &Delivery) -> Option<Value> {
    let arrival = state.team.arrive(delivery, &state.ids, state.clock.now())?;
    state.counters.arrived.fetch_add(1, Relaxed);
    if let Some(webhook) = lock(&state.hook.webhook).clone().filter(|_| delivery.webhook) {
        let asked = state.count_call(Call::Webhook, 0);
        let is_dropped = state.pick(&[Fault::WebhookDrop], 0, asked).is_some();
        if is_dropped || state.hook.failures.load(Relaxed) >= MAX_FAILURES {
            state.counters.webhooks_dropped.fetch_add(1, Relaxed);
        } else {
            send(state, webhook, arrival.event);
        }
    }
    Some(arrival.message)
}

/// Posts a body on a task of its own.
fn send(state: &State, webhook: Webhook, body: String) {
    let (failures, counters) = (Arc::clone(&state.hook.failures), Arc::clone(&state.counters));
    state.hook.runtime.spawn(async move {
        let answer = tokio::time::timeout(PATIENCE, post(&webhook, &body)).await;
        if matches!(answer, Ok(Ok(200..=299))) {
            failures.store(0, Relaxed);
            counters.webhooks_sent.fetch_add(1, Relaxed);
        } else {
            failures.fetch_add(1, Relaxed);
            counters.webhooks_failed.fetch_add(1, Relaxed);
        }
    });
}

/// Posts a body and gives the status of the answer.
async fn post(webhook: &Webhook, body: &str) -> io::Result<u16> {
    let Webhook { url, secret } = webhook;
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(80);
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut head = format!(
        "POST {}{query} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         User-Agent: jellyjar-sim\r\nConnection: close\r\n",
        url.path(),
        body.len()
    );
    if !secret.is_empty() {
        head.push_str(&format!("X-Jelly-Signature: sha256={}\r\n", sign(secret, body)));
    }
    if let Some(password) = url.password() {
        let plain = |text| percent_decode_str(text).decode_utf8_lossy();
        let pair = format!("{}:{}", plain(url.username()), plain(password));
        head.push_str(&format!("Authorization: Basic {}\r\n", STANDARD.encode(pair)));
    }
    let mut stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
    let mut answer = Vec::new();
    while answer.len() < 12 {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let status = std::str::from_utf8(&answer[9..12]).ok().and_then(|text| text.parse().ok());
    status.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The hex HMAC-SHA256 of a body.
fn sign(secret: &str, body: &str) -> String {
    // HMAC takes keys of any length (RFC 2104 §2), so this cannot fail.
    let mut mac: Hmac<Sha256> = Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(body.as_bytes());
    HEXLOWER.encode(&mac.finalize().into_bytes())
}
