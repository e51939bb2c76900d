//! The one list of metric names. Dashboards, alert rules and the rendering take them from here; a test compares.

/// What kind of numbers a family has, as Prometheus tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and starts again at zero with the process.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Durations in buckets: `_bucket`, `_sum` and `_count`.
    Histogram,
}

impl Kind {
    /// Its name in the text format.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// All series of one name.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// The name, with its unit.
    pub name: &'static str,
    /// The kind of its numbers.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal $labels:tt $help:literal;)+) => {
        $(pub(super) const $constant: &Family =
            &Family { name: $name, kind: Kind::$kind, labels: &$labels, help: $help };)+

        /// Every family, in the order in which they are shown.
        pub const FAMILIES: &[&Family] = &[$($constant,)+];
    };
}

families! {
    BUILD = Gauge "jellyjar_build_info" ["version"] "Always 1; the label says which version runs.";
    START = Gauge "process_start_time_seconds" [] "When the process started, in seconds since the Unix epoch.";
    MEMORY = Gauge "process_resident_memory_bytes" [] "Memory that the process holds.";
    FILES = Gauge "process_open_fds" [] "Open files and sockets.";
    READY = Gauge "jellyjar_ready" ["dependency"] "Whether a dependency works: 1 or 0. The names are those of /readyz.";
    TROUBLES = Gauge "jellyjar_troubles" ["condition"] "Troubles that last now, by the condition that notifications name.";

    WEBHOOKS = Counter "jellyjar_webhooks_total" ["team", "result"] "Webhooks by what became of them.";
    WEBHOOK_BYTES = Counter "jellyjar_webhook_bytes_total" ["team"] "Bytes of accepted webhook bodies.";
    LAST_WEBHOOK = Gauge "jellyjar_last_webhook_timestamp_seconds" ["team"] "When a webhook was last accepted, in seconds since the Unix epoch.";
    CONNECTIONS = Gauge "jellyjar_connections" [] "Open connections to the public listener.";
    BODY_BYTES = Gauge "jellyjar_body_in_flight_bytes" [] "Webhook bodies in memory.";

    INBOX_BYTES = Gauge "jellyjar_inbox_bytes" ["team"] "What the inbox takes up on disk.";
    INBOX_LIMIT = Gauge "jellyjar_inbox_limit_bytes" [] "The most that the inboxes of all teams may hold together.";
    INBOX_LAG = Gauge "jellyjar_inbox_lag_bytes" ["team"] "What is durable in the inbox and not yet ingested.";
    INBOX_AGE = Gauge "jellyjar_inbox_oldest_age_seconds" ["team"] "How long the oldest record in the inbox has waited to be ingested; 0 where none waits.";
    INBOX_FAILING = Gauge "jellyjar_inbox_failing" ["team"] "Whether the inbox can take nothing in: 1 or 0.";
    PAYLOADS = Counter "jellyjar_payloads_total" ["team", "result"] "Ingested payloads by what they were.";
    PAYLOAD_COPIES = Counter "jellyjar_payload_copies_total" ["result"] "Inbox segments copied to the archive, by success.";
    COMPACTIONS = Counter "jellyjar_compactions_total" ["result"] "Compactions of a journal that had something to merge, by success.";

    ATTACHMENTS = Gauge "jellyjar_attachments" ["team", "state"] "The catalog's attachments by state; pending is the queue's depth.";
    PENDING_AGE = Gauge "jellyjar_pending_oldest_age_seconds" ["team"] "How long the pending attachment whose turn it is has waited since it was seen or last tried; 0 where none waits.";
    GAP_RECOVERED = Counter "jellyjar_gap_recovered_attachments_total" ["team"] "Attachments that a sweep found and no webhook had brought.";
    LAST_SWEEP = Gauge "jellyjar_last_sweep_timestamp_seconds" ["team"] "When a gap sweep was last completed, in seconds since the Unix epoch.";
    IN_FLIGHT = Gauge "jellyjar_in_flight_attachments" [] "Attachments that are being fetched.";
    ATTEMPTS = Counter "jellyjar_attempts_total" ["team", "result"] "Attempts at attachments by how they ended.";
    OUTCOMES = Counter "jellyjar_outcomes_total" ["team", "outcome", "reason"] "Attachments that came to an end, by outcome and reason.";
    ARCHIVED_BYTES = Counter "jellyjar_archived_bytes_total" ["team"] "Bytes of archived attachments, equal contents counted each time.";
    STORED_BYTES = Counter "jellyjar_stored_bytes_total" ["team"] "Bytes that were stored, equal contents counted once.";
    LAST_SUCCESS = Gauge "jellyjar_last_success_timestamp_seconds" ["team"] "When an attachment was last archived, in seconds since the Unix epoch.";
    STAGES = Histogram "jellyjar_stage_duration_seconds" ["stage"] "How long each stage takes.";
    ARCHIVE_DELAY = Histogram "jellyjar_archive_delay_seconds" [] "From a webhook's arrival to its attachment being archived.";
    SPOOL = Gauge "jellyjar_spool_bytes" [] "What downloads take up in the spool.";
    DISK_FREE = Gauge "jellyjar_disk_free_bytes" ["place"] "Free space of the file systems that are written to.";

    API_REQUESTS = Counter "jellyjar_api_requests_total" ["team", "answer"] "Requests to Jelly's API by answer.";
    QUOTA_DAY_LEFT = Gauge "jellyjar_quota_day_remaining_requests" ["team"] "Requests that are left of the UTC day's quota.";
    QUOTA_DAY_LIMIT = Gauge "jellyjar_quota_day_limit_requests" ["team"] "The UTC day's quota of requests.";
    QUOTA_WINDOW_LEFT = Gauge "jellyjar_quota_window_remaining_requests" ["egress_group"] "Requests that are left of the 5-minute window's quota.";
    QUOTA_WINDOW_LIMIT = Gauge "jellyjar_quota_window_limit_requests" ["egress_group"] "The 5-minute window's quota of requests.";
    PAUSED = Gauge "jellyjar_paused" ["scope", "name"] "Whether a team, an egress group or this machine is paused: 1 or 0.";

    CERTIFICATE_EXPIRY = Gauge "jellyjar_tls_certificate_expiry_timestamp_seconds" [] "When the certificate of the public listener, or one above it, expires, in seconds since the Unix epoch.";
    NOTIFICATIONS = Counter "jellyjar_notifications_total" ["channel", "result"] "Notifications by channel and what became of them.";
    RELOADS = Counter "jellyjar_reloads_total" ["result"] "Re-reads of tokens, secrets and certificates, by success.";
}
