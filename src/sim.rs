//! The simulated Jelly: an API server, a storage server, a team with mail, and dumps of it. For rehearsals, for `demo`, and for
//! tests.
//!
//! It imports nothing of ours but `digest` and `clock`, so that it cannot share the client's mistakes: it has its own
//! ids, its own JSON and its own HTTP server. Nothing is kept per file: an attachment's id says, signed, what its bytes
//! are, and they are made when they are asked for. Plain mail is made when it is read; only what changes is held.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use corpus::CorpusConfig;

use crate::clock::Clock;

mod api;
mod content;
pub mod corpus;
mod faults;
mod files;
mod http;
mod ids;
mod limits;
mod link;
mod random;
mod state;
mod stats;
mod storage;
mod team;
#[cfg(test)]
mod tests;
mod webhook;

pub use faults::{Fault, FaultError, Faults, Rule};
pub use limits::LimitConfig;
pub use stats::Stats;
pub use team::{Delivery, Known, Schedule};
pub use webhook::Webhook;

/// How to start a simulator.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Where the API listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the storage listens.
    pub storage_listen: SocketAddr,
    /// Everything is a function of it: ids, bytes, signatures, faults. Dumps must be of the same seed.
    pub seed: u64,
    /// The team whose ids are served; dumps must be of the same team.
    pub team: String,
    /// The team's mail. Its seed and team are those of the simulator.
    pub mail: CorpusConfig,
    /// Mail that arrives while the API is used.
    pub schedule: Option<Schedule>,
    /// Who is told of mail that arrives.
    pub webhook: Option<Webhook>,
    /// The token that is accepted.
    pub token: String,
    /// How long a link lives.
    pub link_ttl: Duration,
    /// How long each request waits for its answer.
    pub latency: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// How many requests are allowed.
    pub limits: LimitConfig,
    /// Whether three objects in four carry a checksum header (SHA-256, MD5 or CRC32C) beside the `ETag`.
    pub checksums: bool,
    /// What time it is, for links and limits.
    pub clock: Clock,
}

impl Default for SimConfig {
    fn default() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: any,
            storage_listen: any,
            seed: 1,
            team: String::new(),
            mail: CorpusConfig::default(),
            schedule: None,
            webhook: None,
            token: "sim-token".into(),
            link_ttl: Duration::from_mins(5),
            latency: Duration::ZERO,
            faults: Faults::none(),
            limits: LimitConfig::default(),
            checksums: false,
            clock: Clock::system(),
        }
    }
}

/// Why a simulator could not start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// An address is taken or not ours.
    #[error("the simulator could not listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A running simulator. Dropping it stops it.
#[derive(Debug)]
pub struct Sim {
    state: Arc<state::State>,
    api_address: SocketAddr,
    servers: [JoinHandle<()>; 2],
}

impl Sim {
    /// Starts both servers on the current tokio runtime.
    pub async fn start(config: SimConfig) -> Result<Self, SimError> {
        let (api, api_address) = bind(config.listen).await?;
        let (storage, storage_address) = bind(config.storage_listen).await?;
        let mail = CorpusConfig { seed: config.seed, team: config.team.clone(), ..config.mail };
        let state = Arc::new(state::State {
            seed: config.seed,
            clock: config.clock,
            ids: ids::IdKey::new(config.seed, &config.team),
            links: link::LinkKey::new(config.seed),
            contents: content::Contents::new(config.seed, config.checksums),
            storage_host: storage_address.to_string(),
            link_ttl: config.link_ttl,
            latency: config.latency,
            authorization: RwLock::default(),
            faults: RwLock::new(config.faults),
            limits: Mutex::new(limits::Limits::new(config.limits)),
            asked: Mutex::new(HashMap::new()),
            team: team::Team::new(mail),
            hook: webhook::Hook::new(config.webhook, config.schedule),
            called: Mutex::new(HashMap::new()),
            nonce: AtomicU64::new(0),
            counters: Arc::default(),
        });
        api::set_token(&state, &config.token);
        let servers = [
            tokio::spawn(http::serve(api, http::Role::Api, Arc::clone(&state))),
            tokio::spawn(http::serve(storage, http::Role::Storage, Arc::clone(&state))),
        ];
        Ok(Self { state, api_address, servers })
    }

    /// The base URL of the API, with `/api`.
    pub fn base_url(&self) -> String {
        format!("http://{}/api", self.api_address)
    }

    /// The URL of the control pages: `stats`, `exchanges`, `truth`, `faults`, `token`, `mail`, `schedule`,
    /// `webhook`, `reset`.
    pub fn control_url(&self) -> String {
        format!("http://{}/_sim", self.api_address)
    }

    /// The URL of the storage.
    pub fn storage_url(&self) -> String {
        format!("http://{}", self.state.storage_host)
    }

    /// The counters as they are now.
    pub fn stats(&self) -> Stats {
        self.state.counters.snapshot()
    }

    /// How often each attachment was exchanged, by id; those never asked for are left out.
    pub fn exchange_counts(&self) -> HashMap<String, u32> {
        let asked = state::lock(&self.state.asked);
        asked
            .iter()
            .filter(|(_, asked)| asked.exchanges > 0)
            .map(|(b, a)| (self.state.ids.mint(*b), a.exchanges))
            .collect()
    }

    /// The most exchanges that any one attachment saw.
    pub fn exchanges_max(&self) -> u32 {
        state::lock(&self.state.asked).values().map(|asked| asked.exchanges).max().unwrap_or(0)
    }

    /// Replaces what goes wrong, from now on.
    pub fn set_faults(&self, faults: Faults) {
        *self.state.faults.write().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// Lets a message arrive, and tells the webhook. Gives the message as the API shows it; `None` if there is no such
    /// conversation.
    pub fn deliver(&self, delivery: &Delivery) -> Option<serde_json::Value> {
        webhook::deliver(&self.state, delivery)
    }

    /// Lets mail arrive while the API is used, from now on, or no more.
    pub fn set_schedule(&self, schedule: Option<Schedule>) {
        self.state.hook.set_schedule(schedule);
    }

    /// Tells someone of mail that arrives, from now on, or no one. It is switched on again if it had failed too often.
    pub fn set_webhook(&self, webhook: Option<Webhook>) {
        self.state.hook.set_webhook(webhook);
    }

    /// Every attachment that is not inline wherever it occurs: what an archive of all mail holds.
    pub fn truth(&self) -> Vec<Known> {
        self.state.team.truth()
    }

    /// Replaces the token, from now on.
    pub fn set_token(&self, token: &str) {
        api::set_token(&self.state, token);
    }

    /// Sets all counters, and what the limits have seen, back to nothing.
    pub fn reset(&self) {
        self.state.reset();
    }

    /// Stops both servers and cuts their connections.
    pub async fn stop(mut self) {
        for server in &mut self.servers {
            server.abort();
            // The only way to end is by that abort.
            let _ = server.await;
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), SimError> {
    let failed = |source| SimError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let mut bound = listener.local_addr().map_err(failed)?;
    if bound.ip().is_unspecified() {
        // Links need an address that can be reached: every address includes the loopback one.
        bound.set_ip(if bound.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    Ok((listener, bound))
}
