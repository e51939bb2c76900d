//! What both servers share: keys, settings that change while they run, and how often what was asked for.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;

use super::content::Contents;
use super::faults::{Fault, Faults};
use super::ids::{Blob, IdKey};
use super::limits::Limits;
use super::link::LinkKey;
use super::random::mix2;
use super::stats::Counters;
use super::team::{Changes, Conversation, Team};
use super::webhook::Hook;
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

/// Which requests are counted together, for faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Call {
    /// Pages of conversations.
    Page,
    /// Those of them with a cursor.
    PageCursor,
    /// Pages of the messages of one conversation.
    Messages,
    /// Those of them with a cursor.
    MessagesCursor,
    /// The members.
    Members,
    /// Any other endpoint.
    Other,
    /// Webhooks.
    Webhook,
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
    /// The team.
    pub(super) team: Team,
    /// Mail that arrives by itself, and the webhook that tells of it.
    pub(super) hook: Hook,
    /// How often each list and each other endpoint was asked for.
    pub(super) called: Mutex<HashMap<(Call, u64), u32>>,
    /// The next link's number.
    pub(super) nonce: AtomicU64,
    /// What was counted.
    pub(super) counters: Arc<Counters>,
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

    /// Counts a request that is not for an attachment, and says how many of its kind came before it.
    pub(super) fn count_call(&self, call: Call, subject: u64) -> u32 {
        let mut all = lock(&self.called);
        let asked = all.entry((call, subject)).or_default();
        let before = *asked;
        *asked = before.saturating_add(1);
        before
    }

    /// Says which of `candidates` goes wrong, and counts it.
    pub(super) fn pick(&self, candidates: &[Fault], subject: u64, asked: u32) -> Option<Fault> {
        let fault =
            self.faults.read().unwrap_or_else(PoisonError::into_inner).pick(candidates, self.seed, subject, asked)?;
        self.counters.faults[fault as usize].fetch_add(1, Relaxed);
        Some(fault)
    }

    /// A conversation as it is now; none where a fault has made it vanish after it was listed.
    pub(super) fn conversation(&self, changes: &Changes, slug: &str) -> Option<Conversation> {
        let found = self.team.conversation(changes, slug)?;
        let is_gone = self.pick(&[Fault::ConversationGone], found.number, 0).is_some();
        (!is_gone).then_some(found)
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
        lock(&self.called).clear();
        self.counters.reset();
    }
}
