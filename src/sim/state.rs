//! What both servers share: keys, settings that change while they run, and the counters.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::content::Contents;
use super::faults::{Fault, Faults};
use super::ids::{Blob, IdKey};
use super::limits::Limits;
use super::link::LinkKey;
use super::random::mix2;
use crate::clock::Clock;

/// Locks, also after a panic elsewhere: what is guarded is never left half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often one attachment was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// At the API.
    pub(super) exchanges: u32,
    /// At the storage.
    pub(super) downloads: u32,
}

/// What both servers share.
#[derive(Debug)]
pub(super) struct State {
    /// What faults are drawn from.
    pub(super) seed: u64,
    /// What links and limits go by.
    pub(super) clock: Clock,
    /// The team's ids.
    pub(super) ids: IdKey,
    /// The storage's links.
    pub(super) links: LinkKey,
    /// The bytes.
    pub(super) contents: Contents,
    /// The storage's address, as links and `Host` headers have it.
    pub(super) storage_host: String,
    /// How long a link lives.
    pub(super) link_ttl: Duration,
    /// How long each request waits.
    pub(super) latency: Duration,
    /// The `Authorization` header that is accepted.
    pub(super) authorization: RwLock<String>,
    /// What goes wrong.
    pub(super) faults: RwLock<Faults>,
    /// What is allowed and used.
    pub(super) limits: Mutex<Limits>,
    /// How often each attachment was asked for.
    pub(super) asked: Mutex<HashMap<Blob, Asked>>,
    /// How often the members were asked for.
    pub(super) members_asked: AtomicU64,
    /// The next link's number.
    pub(super) nonce: AtomicU64,
    /// What was counted.
    pub(super) counters: Counters,
}

impl State {
    /// The time in Unix milliseconds.
    pub(super) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Counts a request for an attachment and says which of `candidates` goes wrong with it. `count` picks what is
    /// counted.
    pub(super) fn next_fault(
        &self,
        blob: Blob,
        candidates: &[Fault],
        count: impl FnOnce(&mut Asked) -> &mut u32,
    ) -> Option<Fault> {
        let asked = {
            let mut all = lock(&self.asked);
            let asked = count(all.entry(blob).or_default());
            let before = *asked;
            *asked = before.saturating_add(1);
            before
        };
        let subject = mix2(blob.number, mix2(blob.content, blob.kind as u64));
        self.pick(candidates, subject, asked)
    }

    /// Says which of `candidates` goes wrong, and counts it.
    pub(super) fn pick(&self, candidates: &[Fault], subject: u64, asked: u32) -> Option<Fault> {
        let fault =
            self.faults.read().unwrap_or_else(PoisonError::into_inner).pick(candidates, self.seed, subject, asked)?;
        self.counters.faults[fault as usize].fetch_add(1, Relaxed);
        Some(fault)
    }

    /// The measures of the faults.
    pub(super) fn measures(&self) -> (u64, u64, Duration) {
        let faults = self.faults.read().unwrap_or_else(PoisonError::into_inner);
        (faults.retry_after_seconds, faults.slow_bytes_per_second, faults.short_link)
    }

    /// Appends a fresh link, as a whole URL, that lives for `ttl`.
    pub(super) fn mint_link(&self, blob: Blob, now: Timestamp, ttl: Duration, out: &mut String) {
        let nonce = self.nonce.fetch_add(1, Relaxed);
        let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        let expires_ms = now.as_millisecond().saturating_add(ttl_ms);
        let _ = write!(out, "http://{}", self.storage_host);
        self.links.mint(blob, &self.storage_host, now, expires_ms, nonce, out);
    }

    /// Sets every counter, and what the limits have seen, back to nothing.
    pub(super) fn reset(&self) {
        lock(&self.asked).clear();
        lock(&self.limits).reset();
        self.members_asked.store(0, Relaxed);
        self.counters.reset();
    }
}

/// The counters; [`Stats`] says what each counts.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) api_requests: AtomicU64,
    pub(super) exchanges: AtomicU64,
    pub(super) links: AtomicU64,
    pub(super) unknown_ids: AtomicU64,
    pub(super) members: AtomicU64,
    pub(super) unauthorized: AtomicU64,
    pub(super) rate_limited: AtomicU64,
    pub(super) other: AtomicU64,
    pub(super) storage_requests: AtomicU64,
    pub(super) storage_ranges: AtomicU64,
    pub(super) storage_refused: AtomicU64,
    pub(super) storage_authorization_seen: AtomicU64,
    pub(super) storage_referer_seen: AtomicU64,
    pub(super) bytes_served: AtomicU64,
    pub(super) in_flight: AtomicU64,
    pub(super) in_flight_max: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) faults: [AtomicU64; Fault::COUNT],
}

impl Default for Counters {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            api_requests: zero(),
            exchanges: zero(),
            links: zero(),
            unknown_ids: zero(),
            members: zero(),
            unauthorized: zero(),
            rate_limited: zero(),
            other: zero(),
            storage_requests: zero(),
            storage_ranges: zero(),
            storage_refused: zero(),
            storage_authorization_seen: zero(),
            storage_referer_seen: zero(),
            bytes_served: zero(),
            in_flight: zero(),
            in_flight_max: zero(),
            connections: zero(),
            faults: std::array::from_fn(|_| zero()),
        }
    }
}

impl Counters {
    fn reset(&self) {
        let Self {
            api_requests,
            exchanges,
            links,
            unknown_ids,
            members,
            unauthorized,
            rate_limited,
            other,
            storage_requests,
            storage_ranges,
            storage_refused,
            storage_authorization_seen,
            storage_referer_seen,
            bytes_served,
            in_flight: _,
            in_flight_max,
            connections,
            faults,
        } = self;
        for counter in [
            api_requests,
            exchanges,
            links,
            unknown_ids,
            members,
            unauthorized,
            rate_limited,
            other,
            storage_requests,
            storage_ranges,
            storage_refused,
            storage_authorization_seen,
            storage_referer_seen,
            bytes_served,
            in_flight_max,
            connections,
        ] {
            counter.store(0, Relaxed);
        }
        for counter in faults {
            counter.store(0, Relaxed);
        }
    }

    /// The counters as they are now.
    pub(super) fn snapshot(&self) -> Stats {
        let fired = |fault: Fault| self.faults[fault as usize].load(Relaxed);
        Stats {
            api_requests: self.api_requests.load(Relaxed),
            exchanges: self.exchanges.load(Relaxed),
            links: self.links.load(Relaxed),
            unknown_ids: self.unknown_ids.load(Relaxed),
            members: self.members.load(Relaxed),
            unauthorized: self.unauthorized.load(Relaxed),
            rate_limited: self.rate_limited.load(Relaxed),
            other: self.other.load(Relaxed),
            storage_requests: self.storage_requests.load(Relaxed),
            storage_ranges: self.storage_ranges.load(Relaxed),
            storage_refused: self.storage_refused.load(Relaxed),
            storage_authorization_seen: self.storage_authorization_seen.load(Relaxed),
            storage_referer_seen: self.storage_referer_seen.load(Relaxed),
            bytes_served: self.bytes_served.load(Relaxed),
            in_flight_max: self.in_flight_max.load(Relaxed),
            connections: self.connections.load(Relaxed),
            faults: Fault::all().filter(|f| fired(*f) > 0).map(|f| (f.name().to_owned(), fired(f))).collect(),
        }
    }
}

/// What the simulator has counted since it started or was reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Requests to the API, whatever the answer.
    pub api_requests: u64,
    /// Requests for an attachment that came with the right token and within the limits.
    pub exchanges: u64,
    /// Signed links that were given out.
    pub links: u64,
    /// Exchanges of ids that this simulator never signed.
    pub unknown_ids: u64,
    /// Requests for the members.
    pub members: u64,
    /// Requests with a wrong token or none.
    pub unauthorized: u64,
    /// Requests beyond the limits.
    pub rate_limited: u64,
    /// Requests for endpoints that do not exist.
    pub other: u64,
    /// Requests to the storage, whatever the answer.
    pub storage_requests: u64,
    /// Those with a usable range.
    pub storage_ranges: u64,
    /// Those with a wrong signature, a dead link or two authentications.
    pub storage_refused: u64,
    /// Those that carried an `Authorization` header: must stay 0.
    pub storage_authorization_seen: u64,
    /// Those that carried a `Referer` or a `Cookie`: must stay 0.
    pub storage_referer_seen: u64,
    /// Bytes of bodies that were sent by the storage.
    pub bytes_served: u64,
    /// The most requests that were being answered at once, both servers together.
    pub in_flight_max: u64,
    /// Connections that were accepted, both servers together.
    pub connections: u64,
    /// How often each fault fired, by name; those that never did are left out.
    pub faults: std::collections::BTreeMap<String, u64>,
}
