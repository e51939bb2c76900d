//! Tests of both listeners over real sockets, with a client that shares no code with the server.

#[cfg(unix)]
mod canary;
mod client;
mod clock;
mod deliveries;
mod framing;
mod operations;
mod stopping;
mod tls;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::config::{ServeConfig, TeamConfig, WebhookConfig};
use crate::secret::Secret;
use crate::worker::Signal;

const SECRET: &str = "the-signing-secret-of-the-tests";
const PASSWORD: &str = "the-password-of-the-tests";

/// What the sink does with a body.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Keep,
    Overloaded,
    Unavailable,
    /// Waits until it is let go, then keeps.
    Hold,
}

/// Keeps bodies in memory.
#[derive(Debug, Clone, Default)]
struct Kept {
    bodies: Arc<Mutex<Vec<(String, Bytes)>>>,
    mood: Arc<AtomicU8>,
    holding: Arc<Notify>,
    release: Arc<Notify>,
}

impl Kept {
    fn set(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    fn bodies(&self) -> Vec<(String, Bytes)> {
        self.bodies.lock().unwrap().clone()
    }
}

impl Sink for Kept {
    async fn append(&self, team: &str, body: Bytes) -> Result<(), Refusal> {
        let mood = self.mood.load(Ordering::SeqCst);
        if mood == Mood::Overloaded as u8 {
            return Err(Refusal::Overloaded { retry_after: Duration::from_millis(6_500) });
        }
        if mood == Mood::Unavailable as u8 {
            return Err(Refusal::Unavailable { reason: "the disk is full of jelly".into() });
        }
        if mood == Mood::Hold as u8 {
            self.holding.notify_one();
            self.release.notified().await;
        }
        self.bodies.lock().unwrap().push((team.to_owned(), body));
        Ok(())
    }
}

/// Each answered request: its team, its result, its size in bytes.
type Results = Arc<Mutex<Vec<(Option<String>, DeliveryResult, u64)>>>;

/// A running public listener.
struct World {
    address: SocketAddr,
    kept: Kept,
    hooks: Arc<Hooks>,
    results: Results,
    connections: Connections,
    stop: Signal,
    serving: JoinHandle<usize>,
}

/// Listens on a free port.
fn config() -> ServeConfig {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    ServeConfig { listen: any, ops_listen: any, ..ServeConfig::default() }
}

fn team(secrets: &[&str], login: bool, allow_unsigned: bool) -> TeamConfig {
    let webhook = WebhookConfig {
        secrets: secrets.iter().map(|secret| Secret::new(secret)).collect(),
        username: login.then(|| "jelly".into()),
        password: login.then(|| Secret::new(PASSWORD)),
        allow_unsigned,
        ..WebhookConfig::default()
    };
    TeamConfig { webhook, ..TeamConfig::default() }
}

impl World {
    async fn start() -> Self {
        Self::with(config(), None, Duration::from_secs(20)).await
    }

    /// Teams: `default` (signed), `rotating` (two secrets), `guarded` (signed, with a password), `legacy` (unsigned).
    async fn with(config: ServeConfig, tls: Option<Arc<Tls>>, grace: Duration) -> Self {
        let teams = [
            ("default", team(&[SECRET], false, false)),
            ("rotating", team(&["the-next-secret-of-the-tests", SECRET], false, false)),
            ("guarded", team(&[SECRET], true, false)),
            ("legacy", team(&[], true, true)),
            ("unset", TeamConfig::default()),
        ];
        let hooks = Arc::new(Hooks::new(&teams.map(|(name, team)| (name.to_owned(), team)).into()));
        let (kept, stop, results) = (Kept::default(), Signal::default(), Results::default());
        let listener = Listener::public(&config, tls).await.unwrap();
        let (address, connections) = (listener.address(), listener.connections());
        let noted = Arc::clone(&results);
        let receiver = Receiver::new(&config, Arc::clone(&hooks), kept.clone(), move |delivery: &Delivery<'_>| {
            let team = delivery.team.map(str::to_owned);
            noted.lock().unwrap().push((team, delivery.result, delivery.size_bytes));
        });
        let serving = tokio::spawn(listener.serve(Arc::new(receiver), stop.clone(), grace));
        Self { address, kept, hooks, results, connections, stop, serving }
    }

    fn results(&self) -> Vec<DeliveryResult> {
        self.results.lock().unwrap().iter().map(|(_, result, _)| *result).collect()
    }
}
