//! Faults: what the simulator does wrong on purpose, and when. Decided by (seed, attachment, how many times it was
//! asked), so that a run can be repeated exactly.

use std::str::FromStr;
use std::time::Duration;

use super::random::{mix, mix2};

/// Something the simulator can do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the table below has a line for each, which people are shown too")]
pub enum Fault {
    Api401,
    Api403,
    Api404,
    Api429,
    Api429Date,
    Api500,
    Api503,
    ApiHtml,
    ApiReset,
    ApiStall,
    ExpiredLink,
    ShortLink,
    MissingLocation,
    LinkMetadata,
    LinkPrivate,
    Members401,
    Members403,
    Call401,
    Call429,
    Call500,
    CallHtml,
    Page422,
    Page429,
    Page500,
    PageHtml,
    PageCut,
    PageReset,
    PageLoop,
    PageVanish,
    PageRepeat,
    CountMissing,
    CountNull,
    ConversationGone,
    Messages404,
    Messages422,
    Messages429,
    Messages500,
    MessagesHtml,
    MessagesLoop,
    MessagesEmpty,
    WebhookDrop,
    Lost,
    Storage403,
    Storage404,
    Storage500,
    Storage503,
    Redirect,
    RedirectLoop,
    RedirectMetadata,
    RedirectPrivate,
    WrongSize,
    HtmlPage,
    HtmlOctets,
    JsonPage,
    XmlPage,
    Flip,
    FlipSilent,
    ShortLength,
    LongLength,
    Truncate,
    Reset,
    Stall,
    Slow,
    StorageReset,
    StorageStall,
}

use Fault as F;

/// Every fault, in the order of the enum: its name and what it does.
const TABLE: [(Fault, &str, &str); 65] = [
    (F::Api401, "api-401", "exchange refused: invalid token"),
    (F::Api403, "api-403", "exchange forbidden"),
    (F::Api404, "api-404", "attachment is gone; a rate chooses attachments, for good"),
    (F::Api429, "api-429", "too many requests, Retry-After in seconds"),
    (F::Api429Date, "api-429-date", "too many requests, Retry-After as a date"),
    (F::Api500, "api-500", "exchange fails: internal server error"),
    (F::Api503, "api-503", "exchange fails: unavailable"),
    (F::ApiHtml, "api-html", "exchange answered 200 with an HTML page"),
    (F::ApiReset, "api-reset", "connection reset instead of an answer"),
    (F::ApiStall, "api-stall", "connection held without an answer"),
    (F::ExpiredLink, "expired-link", "link has expired before it is given out"),
    (F::ShortLink, "short-link", "link lives for short-link-ms only"),
    (F::MissingLocation, "missing-location", "302 without a Location"),
    (F::LinkMetadata, "link-metadata", "link to http://169.254.169.254/"),
    (F::LinkPrivate, "link-private", "link to http://10.0.0.1/"),
    (F::Members401, "members-401", "GET /members refused: invalid token"),
    (F::Members403, "members-403", "GET /members forbidden"),
    (F::Call401, "call-401", "any other call than an exchange or a list refused: invalid token"),
    (F::Call429, "call-429", "any other call: too many requests, Retry-After in seconds"),
    (F::Call500, "call-500", "any other call fails: internal server error"),
    (F::CallHtml, "call-html", "any other call answered 200 with an HTML page"),
    (F::Page422, "page-422", "conversations: the cursor is refused as malformed"),
    (F::Page429, "page-429", "conversations: too many requests, Retry-After in seconds"),
    (F::Page500, "page-500", "conversations: internal server error"),
    (F::PageHtml, "page-html", "conversations: 200 with an HTML page"),
    (F::PageCut, "page-cut", "conversations: JSON that ends half-way"),
    (F::PageReset, "page-reset", "conversations: connection reset instead of an answer"),
    (F::PageLoop, "page-loop", "conversations: the next cursor leads to the same page"),
    (F::PageVanish, "page-vanish", "conversations: a page leaves out every third entry"),
    (F::PageRepeat, "page-repeat", "conversations: a page begins with 3 entries of the one before"),
    (F::CountMissing, "count-missing", "conversations without attachments_count; a rate chooses them, for good"),
    (F::CountNull, "count-null", "conversations whose attachments_count is null; a rate chooses them, for good"),
    (
        F::ConversationGone,
        "conversation-gone",
        "listed conversations that are gone: 404 for every call; a rate chooses them",
    ),
    (F::Messages404, "messages-404", "messages of a conversation: not found"),
    (F::Messages422, "messages-422", "messages of a conversation: the cursor is refused as malformed"),
    (F::Messages429, "messages-429", "messages of a conversation: too many requests, Retry-After in seconds"),
    (F::Messages500, "messages-500", "messages of a conversation: internal server error"),
    (F::MessagesHtml, "messages-html", "messages of a conversation: 200 with an HTML page"),
    (F::MessagesLoop, "messages-loop", "messages of a conversation: the next cursor leads to the same page"),
    (F::MessagesEmpty, "messages-empty", "messages of a conversation: an empty list, and no next page"),
    (F::WebhookDrop, "webhook-drop", "no webhook is sent for a message that arrives"),
    (F::Lost, "lost", "storage has lost the object (404 NoSuchKey); a rate chooses attachments, for good"),
    (F::Storage403, "storage-403", "storage answers 403 AccessDenied"),
    (F::Storage404, "storage-404", "storage answers 404 with an empty body"),
    (F::Storage500, "storage-500", "storage answers 500 InternalError"),
    (F::Storage503, "storage-503", "storage answers 503 SlowDown"),
    (F::Redirect, "redirect", "storage redirects to another good link of its own"),
    (F::RedirectLoop, "redirect-loop", "storage redirects to the same link"),
    (F::RedirectMetadata, "redirect-metadata", "storage redirects to http://169.254.169.254/"),
    (F::RedirectPrivate, "redirect-private", "storage redirects to http://10.0.0.1/"),
    (F::WrongSize, "wrong-size", "a sound body 7 bytes longer than declared; a rate chooses attachments, for good"),
    (F::HtmlPage, "html-page", "a login page with status 200"),
    (F::HtmlOctets, "html-octets", "a login page with status 200 as application/octet-stream"),
    (F::JsonPage, "json-page", "a JSON error with status 200"),
    (F::XmlPage, "xml-page", "an XML error with status 200"),
    (F::Flip, "flip", "one byte wrong, under the true ETag and checksums"),
    (F::FlipSilent, "flip-silent", "one byte wrong, without any ETag or checksum"),
    (F::ShortLength, "short-length", "one byte less than there is, in body and Content-Length"),
    (F::LongLength, "long-length", "Content-Length promises 1,000 bytes more than are sent"),
    (F::Truncate, "truncate", "connection closed half-way"),
    (F::Reset, "reset", "connection reset half-way"),
    (F::Stall, "stall", "nothing more after half the body, connection held"),
    (F::Slow, "slow", "body sent at slow-bytes-per-second"),
    (F::StorageReset, "storage-reset", "connection reset instead of an answer"),
    (F::StorageStall, "storage-stall", "connection held without an answer"),
];

impl Fault {
    /// How many there are.
    pub const COUNT: usize = TABLE.len();

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|(fault, ..)| *fault)
    }

    /// Its name on the command line, in JSON and in the counters.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// What it does, in a few words.
    pub fn description(self) -> &'static str {
        TABLE[self as usize].2
    }

    /// Whether a rate chooses attachments or conversations (for good) and not single requests.
    fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::Api404 | Self::Lost | Self::WrongSize | Self::CountMissing | Self::CountNull | Self::ConversationGone
        )
    }

    fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|(_, known, _)| *known == name).map(|(fault, ..)| *fault)
    }
}

/// When a fault fires.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Rule {
    /// Never.
    #[default]
    Never,
    /// For this share (0 to 1) of the requests.
    Rate(f64),
    /// For the first so many requests for each attachment or list.
    First(u32),
    /// For one request for each attachment or list, counted from 1.
    At(u32),
}

impl FromStr for Rule {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let wrong = || FaultError(format!("{text:?} is neither a rate from 0 to 1 nor \"first:K\" nor \"at:K\""));
        if let Some(count) = text.strip_prefix("first:") {
            return count.parse().map(Self::First).map_err(|_| wrong());
        }
        if let Some(number) = text.strip_prefix("at:") {
            return number.parse().map(Self::At).map_err(|_| wrong());
        }
        let rate: f64 = text.parse().map_err(|_| wrong())?;
        if (0.0..=1.0).contains(&rate) { Ok(Self::Rate(rate)) } else { Err(wrong()) }
    }
}

/// A fault setting that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FaultError(String);

/// Which faults fire when, and how the ones with a measure behave.
#[derive(Debug, Clone, PartialEq)]
pub struct Faults {
    rules: [Rule; Fault::COUNT],
    any: bool,
    /// What `Retry-After` says for `api-429`, in seconds.
    pub retry_after_seconds: u64,
    /// How fast `slow` bodies come, in bytes a second.
    pub slow_bytes_per_second: u64,
    /// How long a `short-link` lives.
    pub short_link: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            rules: [Rule::Never; Fault::COUNT],
            any: false,
            retry_after_seconds: 1,
            slow_bytes_per_second: 16 << 10,
            short_link: Duration::from_secs(1),
        }
    }
}

impl Faults {
    /// None at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// These, and one more.
    #[must_use]
    pub fn with(mut self, fault: Fault, rule: Rule) -> Self {
        self.rules[fault as usize] = rule;
        self.any = self.rules.iter().any(|rule| *rule != Rule::Never);
        self
    }

    /// Takes one setting: a fault's name with a rate or `first:K`, or one of `retry-after`,
    /// `slow-bytes-per-second` and `short-link-ms` with a whole number.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), FaultError> {
        let number = || {
            value.parse::<u64>().map_err(|_| FaultError(format!("{name} takes a whole number, and {value:?} is none")))
        };
        match name {
            "retry-after" => self.retry_after_seconds = number()?,
            "slow-bytes-per-second" => self.slow_bytes_per_second = number()?.max(1),
            "short-link-ms" => self.short_link = Duration::from_millis(number()?),
            _ => {
                let fault = Fault::from_name(name).ok_or_else(|| {
                    let names: Vec<_> = Fault::all().map(Fault::name).collect();
                    FaultError(format!("no fault is called {name:?}; there are: {}", names.join(", ")))
                })?;
                *self = self.clone().with(fault, value.parse()?);
            }
        }
        Ok(())
    }

    /// Reads settings from a JSON object: `{"api-429": 0.1, "truncate": "first:1", "retry-after": 2}`.
    pub fn from_json(json: &[u8]) -> Result<Self, FaultError> {
        let settings: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(json).map_err(|error| FaultError(format!("not a JSON object: {error}")))?;
        let mut faults = Self::default();
        for (name, value) in settings {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            faults.set(&name, &text)?;
        }
        Ok(faults)
    }

    /// The first of `candidates` that fires for request number `asked` (from 0) for the attachment or list known by
    /// `subject`.
    pub(super) fn pick(&self, candidates: &[Fault], seed: u64, subject: u64, asked: u32) -> Option<Fault> {
        if !self.any {
            return None;
        }
        candidates.iter().copied().find(|fault| match self.rules[*fault as usize] {
            Rule::Never => false,
            Rule::First(count) => asked < count,
            Rule::At(number) => asked.checked_add(1) == Some(number),
            Rule::Rate(rate) => {
                let turn = if fault.is_lasting() { 0 } else { u64::from(asked) + 1 };
                let draw = mix2(mix2(seed ^ subject, *fault as u64), turn);
                share(mix(draw)) < rate
            }
        })
    }
}

impl FromStr for Faults {
    type Err = FaultError;

    /// Reads `NAME=VALUE` settings, separated by commas.
    fn from_str(text: &str) -> Result<Self, FaultError> {
        let mut faults = Self::default();
        for setting in text.split(',').filter(|setting| !setting.is_empty()) {
            let (name, value) =
                setting.split_once('=').ok_or_else(|| FaultError(format!("{setting:?} is not NAME=VALUE")))?;
            faults.set(name.trim(), value.trim())?;
        }
        Ok(faults)
    }
}

/// A number as a share of all numbers: at least 0, below 1.
fn share(number: u64) -> f64 {
    // 53 bits fit a double exactly.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
    let upper = (number >> 11) as f64;
    upper / 9_007_199_254_740_992.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, fault) in Fault::all().enumerate() {
            assert_eq!(fault as usize, index, "{fault:?}");
            assert_eq!(Fault::from_name(fault.name()), Some(fault));
        }
    }

    #[test]
    fn the_first_k_requests_fail_or_a_single_one() {
        let faults: Faults = "truncate=first:2,slow=at:4".parse().unwrap();
        let fires = |asked| faults.pick(&[Fault::Reset, Fault::Truncate, Fault::Slow], 1, 99, asked);
        assert_eq!([fires(0), fires(1), fires(2)], [Some(Fault::Truncate), Some(Fault::Truncate), None]);
        assert_eq!([fires(3), fires(4)], [Some(Fault::Slow), None]);
    }

    #[test]
    fn a_rate_is_kept_and_repeats() {
        let faults: Faults = "api-500=0.25".parse().unwrap();
        let fires = |subject| faults.pick(&[Fault::Api500], 7, subject, 0).is_some();
        let count = (0..4000).filter(|subject| fires(*subject)).count();
        assert!((900..1100).contains(&count), "{count} of 4000");
        assert_eq!(count, (0..4000).filter(|subject| fires(*subject)).count());
    }

    #[test]
    fn a_lost_object_stays_lost() {
        let faults: Faults = "lost=0.5".parse().unwrap();
        for subject in 0..50 {
            let first = faults.pick(&[Fault::Lost], 7, subject, 0);
            assert!((1..9).all(|asked| faults.pick(&[Fault::Lost], 7, subject, asked) == first));
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_word() {
        for text in ["nonsense=1", "reset=1.5", "reset=first:x", "reset=at:", "reset", "retry-after=soon", "reset=NaN"]
        {
            assert!(text.parse::<Faults>().is_err(), "{text}");
        }
        assert!(Faults::from_json(b"[]").is_err());
        let faults = Faults::from_json(br#"{"reset":0.5,"stall":"first:1","retry-after":9}"#).unwrap();
        assert_eq!(faults, "reset=0.5,stall=first:1,retry-after=9".parse().unwrap());
    }
}
