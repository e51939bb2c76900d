//! A simulated Jelly on loopback, on threads of its own.

use std::collections::{BTreeMap, HashMap};

use jellyjar::sim::{Delivery, Faults, Known, Schedule, Sim, SimConfig, Stats, Webhook};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

/// A running simulator. Dropping it stops it.
pub(crate) struct Jelly {
    // Before the runtime that it lives on.
    sim: Sim,
    runtime: Runtime,
}

impl Jelly {
    /// Starts one.
    pub(crate) fn start(config: SimConfig) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let sim = runtime.block_on(Sim::start(config)).unwrap();
        Self { sim, runtime }
    }

    /// The base URL of its API.
    pub(crate) fn base_url(&self) -> String {
        self.sim.base_url()
    }

    /// The URL of its storage.
    pub(crate) fn storage_url(&self) -> String {
        self.sim.storage_url()
    }

    /// The counters.
    pub(crate) fn stats(&self) -> Stats {
        self.sim.stats()
    }

    /// How often each id was exchanged.
    pub(crate) fn exchanges(&self) -> BTreeMap<String, u32> {
        let counts: HashMap<String, u32> = self.sim.exchange_counts();
        counts.into_iter().collect()
    }

    /// The most exchanges that any one id saw.
    pub(crate) fn exchanges_max(&self) -> u32 {
        self.sim.exchanges_max()
    }

    /// Sets what goes wrong from now on; an empty text is nothing.
    pub(crate) fn set_faults(&self, faults: &str) {
        self.sim.set_faults(faults.parse::<Faults>().unwrap());
    }

    /// Lets a message arrive, and gives it as the API shows it.
    pub(crate) fn deliver(&self, delivery: &Delivery) -> Value {
        let _in_runtime = self.runtime.enter();
        self.sim.deliver(delivery).unwrap()
    }

    /// Lets mail arrive while the API is used.
    pub(crate) fn set_schedule(&self, schedule: Option<Schedule>) {
        self.sim.set_schedule(schedule);
    }

    /// Posts a signed webhook to this URL for each message that arrives from now on.
    pub(crate) fn set_webhook(&self, url: &str, secret: &str) {
        self.sim.set_webhook(Some(Webhook::new(url, secret).unwrap()));
    }

    /// Every attachment that an archive of all mail holds.
    pub(crate) fn truth(&self) -> Vec<Known> {
        self.sim.truth()
    }

    /// Sets the token that is accepted.
    pub(crate) fn set_token(&self, token: &str) {
        self.sim.set_token(token);
    }

    /// Sets all counters back to nothing.
    pub(crate) fn reset(&self) {
        self.sim.reset();
    }

    /// Runs asynchronous code of a test.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}
