//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::faults::Fault;

/// The counters; [`Stats`] says what each counts.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) api_requests: AtomicU64,
    pub(super) exchanges: AtomicU64,
    pub(super) links: AtomicU64,
    pub(super) unknown_ids: AtomicU64,
    pub(super) members: AtomicU64,
    pub(super) conversation_pages: AtomicU64,
    pub(super) message_pages: AtomicU64,
    pub(super) reads: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) arrived: AtomicU64,
    pub(super) webhooks_sent: AtomicU64,
    pub(super) webhooks_failed: AtomicU64,
    pub(super) webhooks_dropped: AtomicU64,
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
            conversation_pages: zero(),
            message_pages: zero(),
            reads: zero(),
            writes: zero(),
            arrived: zero(),
            webhooks_sent: zero(),
            webhooks_failed: zero(),
            webhooks_dropped: zero(),
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
    /// Sets all of them back to nothing.
    pub(super) fn reset(&self) {
        let Self {
            api_requests,
            exchanges,
            links,
            unknown_ids,
            members,
            conversation_pages,
            message_pages,
            reads,
            writes,
            arrived,
            webhooks_sent,
            webhooks_failed,
            webhooks_dropped,
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
            conversation_pages,
            message_pages,
            reads,
            writes,
            arrived,
            webhooks_sent,
            webhooks_failed,
            webhooks_dropped,
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
            conversation_pages: self.conversation_pages.load(Relaxed),
            message_pages: self.message_pages.load(Relaxed),
            reads: self.reads.load(Relaxed),
            writes: self.writes.load(Relaxed),
            arrived: self.arrived.load(Relaxed),
            webhooks_sent: self.webhooks_sent.load(Relaxed),
            webhooks_failed: self.webhooks_failed.load(Relaxed),
            webhooks_dropped: self.webhooks_dropped.load(Relaxed),
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
    /// Pages of conversations that were asked for.
    pub conversation_pages: u64,
    /// Pages of messages that were asked for.
    pub message_pages: u64,
    /// Other requests that read: one conversation, one message, labels, mailboxes, contacts.
    pub reads: u64,
    /// Requests that change something.
    pub writes: u64,
    /// Messages that arrived after the start.
    pub arrived: u64,
    /// Webhooks that were answered 2xx.
    pub webhooks_sent: u64,
    /// Those that were answered otherwise, or not at all.
    pub webhooks_failed: u64,
    /// Those that were not sent: by a fault, or because ten in a row had failed.
    pub webhooks_dropped: u64,
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
