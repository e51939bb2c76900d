//! The closed sets of words that metrics are told apart by.

/// A closed set of label values.
pub trait Labels: Copy + 'static {
    /// All of them, in the order of their indexes.
    const ALL: &'static [Self];

    /// Its place in [`Labels::ALL`].
    fn index(self) -> usize;

    /// Its label values, one for each label of the metric that is told apart by it.
    fn values(self) -> &'static [&'static str];
}

/// Makes an enum, with the values of the labels for each variant.
macro_rules! labels {
    ($($(#[$meta:meta])* $name:ident { $($(#[$note:meta])* $variant:ident => $values:expr,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$note])* $variant,)+ }

        impl Labels for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn index(self) -> usize {
                self as usize
            }

            fn values(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &$values,)+ }
            }
        }
    )+};
}

labels! {
    /// What became of a webhook.
    WebhookResult {
        /// 2xx: it is durable.
        Accepted => ["accepted"],
        /// 401: signature or password missing or wrong.
        Unauthorized => ["unauthorized"],
        /// 413: the body is above the cap.
        TooLarge => ["too_large"],
        /// 415: the body is compressed.
        Compressed => ["compressed"],
        /// Another 4xx: a wrong method, an unknown team, a request that cannot be read.
        Refused => ["refused"],
        /// 503: the inbox or this process has no room.
        Overloaded => ["overloaded"],
        /// 503: the inbox cannot be written.
        Unavailable => ["unavailable"],
        /// It was cut off: too slow, or gone before its end.
        CutOff => ["cut_off"],
    }

    /// What an ingested payload was.
    Payload {
        /// It has messages that were not known.
        New => ["new"],
        /// Everything in it was known.
        Known => ["known"],
        /// It is of a kind that has nothing to archive, or of an unknown one.
        Ignored => ["ignored"],
        /// It cannot be read; it is kept, and `rejected` shows it.
        Rejected => ["rejected"],
    }

    /// The state of an attachment in the catalog.
    AttachmentState {
        /// It is a job: waiting, being fetched, or to be tried again.
        Pending => ["pending"],
        /// It is in the archive.
        Archived => ["archived"],
        /// A rule left it out.
        Skipped => ["skipped"],
        /// It failed for good.
        Failed => ["failed"],
        /// Its bytes contradict what was declared.
        Quarantined => ["quarantined"],
    }

    /// How an attempt at an attachment ended.
    Attempt {
        /// It has the bytes.
        Fetched => ["fetched"],
        /// It failed and is to be tried again.
        Retry => ["retry"],
        /// It was given back with no attempt spent: a pause, no room, or a stop.
        Released => ["released"],
        /// It failed for good.
        Failed => ["failed"],
    }

    /// What became of an attachment, and why.
    Outcome {
        /// Archived, as a content that was not there yet.
        Stored => ["archived", "stored"],
        /// Archived, as a content that was there already.
        Deduplicated => ["archived", "deduplicated"],
        /// A rule left it out.
        Skipped => ["skipped", "rule"],
        /// The service says that there is no such attachment.
        Gone => ["failed", "gone"],
        /// The token works, but not for this one.
        Forbidden => ["failed", "forbidden"],
        /// An answer that trying again does not change.
        Refused => ["failed", "refused"],
        /// All attempts are used up.
        AttemptsUsedUp => ["failed", "attempts_used_up"],
        /// Its bytes contradict what was declared.
        Contradicted => ["quarantined", "contradiction"],
    }

    /// How Jelly answered a request.
    ApiAnswer {
        /// As hoped: a redirect to the file, or 200.
        Ok => ["ok"],
        /// 401.
        Unauthorized => ["unauthorized"],
        /// 403.
        Forbidden => ["forbidden"],
        /// 404.
        NotFound => ["not_found"],
        /// 429.
        RateLimited => ["rate_limited"],
        /// Another 4xx, or an answer that makes no sense.
        Refused => ["refused"],
        /// 5xx.
        ServerError => ["server_error"],
        /// No answer: no connection, a reset, a timeout.
        NoAnswer => ["no_answer"],
    }

    /// A part of the way from a webhook to the archive.
    Stage {
        /// From an accepted webhook's head to the answer.
        Receive => ["receive"],
        /// Waiting for the inbox to make a record durable.
        Append => ["append"],
        /// Taking a batch of records from the inbox into journal and catalog.
        Ingest => ["ingest"],
        /// Exchanging an id for a link.
        Exchange => ["exchange"],
        /// Downloading.
        Download => ["download"],
        /// Making a batch durable in the archive.
        Commit => ["commit"],
    }

    /// Whether something worked.
    Success {
        /// It did.
        Succeeded => ["ok"],
        /// It did not.
        Failed => ["failed"],
    }

    /// A notification's channel, and what became of it there.
    Delivery {
        /// Delivered.
        WebhookDelivered => ["webhook", "delivered"],
        /// Given up.
        WebhookFailed => ["webhook", "failed"],
        /// Left out, for too many were waiting.
        WebhookDropped => ["webhook", "dropped"],
        /// Delivered.
        SlackDelivered => ["slack", "delivered"],
        /// Given up.
        SlackFailed => ["slack", "failed"],
        /// Left out, for too many were waiting.
        SlackDropped => ["slack", "dropped"],
        /// Delivered.
        PingDelivered => ["ping", "delivered"],
        /// Given up.
        PingFailed => ["ping", "failed"],
    }
}

/// Where notifications go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// A generic webhook, as JSON.
    Webhook,
    /// A webhook as Slack and its likes take it.
    Slack,
    /// A health check's URL.
    Ping,
}

impl Channel {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Slack => "slack",
            Self::Ping => "ping",
        }
    }

    /// The label of what arrived, or did not.
    pub fn delivery(self, arrived: bool) -> Delivery {
        match (self, arrived) {
            (Self::Webhook, true) => Delivery::WebhookDelivered,
            (Self::Webhook, false) => Delivery::WebhookFailed,
            (Self::Slack, true) => Delivery::SlackDelivered,
            (Self::Slack, false) => Delivery::SlackFailed,
            (Self::Ping, true) => Delivery::PingDelivered,
            (Self::Ping, false) => Delivery::PingFailed,
        }
    }
}

impl ApiAnswer {
    /// The label of an HTTP status; `None` is no answer at all.
    pub fn of_status(status: Option<u16>) -> Self {
        match status {
            None => Self::NoAnswer,
            Some(200..=399) => Self::Ok,
            Some(401) => Self::Unauthorized,
            Some(403) => Self::Forbidden,
            Some(404) => Self::NotFound,
            Some(429) => Self::RateLimited,
            Some(500..=599) => Self::ServerError,
            Some(_) => Self::Refused,
        }
    }
}
