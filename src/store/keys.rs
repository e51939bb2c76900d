//! Keys: where things lie in an archive (v1). The one place that makes them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::digest::Digest;
use crate::model::{FORMAT_VERSION, Stream, TeamKey, WriterId};

/// `blobs/sha256/ab/abcd…`: 256 folders.
pub fn blob_key(digest: Digest) -> String {
    let hex = digest.to_hex();
    format!("blobs/sha256/{}/{hex}", &hex[..2])
}

/// `quarantine/<sha256>`.
pub fn quarantine_key(digest: Digest) -> String {
    format!("quarantine/{digest}")
}

/// `<stream>/v1/<yyyy>/<mm>/<dd>/<ulid>.jsonl`, by UTC day.
pub(super) fn segment_key(stream: Stream, at: Timestamp, ulid: &str) -> String {
    let day = at.to_zoned(TimeZone::UTC).strftime("%Y/%m/%d");
    format!("{}/v{FORMAT_VERSION}/{day}/{ulid}.jsonl", stream.prefix())
}

/// Whether a key is that of a segment.
pub(super) fn is_segment(key: &str) -> bool {
    std::path::Path::new(key).extension().is_some_and(|extension| extension == "jsonl")
}

/// The UTC day of the key of a segment, or of a copy of an inbox.
pub fn segment_day(key: &str) -> Option<jiff::civil::Date> {
    let mut parts = key.rsplit('/').skip(1);
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    jiff::civil::Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
}

/// `payloads/v1/`: where the copies of inboxes are.
pub(super) fn payloads_prefix() -> &'static str {
    "payloads"
}

/// `payloads/v1/<team>/<yyyy>/<mm>/<dd>/<name>.jsonl.zst`, by UTC day.
pub fn payloads_key(team: &TeamKey, at: Timestamp, name: &str) -> String {
    let day = at.to_zoned(TimeZone::UTC).strftime("%Y/%m/%d");
    format!("{}/v{FORMAT_VERSION}/{team}/{day}/{name}.jsonl.zst", payloads_prefix())
}

/// The team of a copy's key.
pub fn payloads_team(key: &str) -> Option<TeamKey> {
    key.split('/').nth(2)?.parse().ok()
}

/// `writers/<id>.json`.
pub(super) fn writer_key(writer: &WriterId) -> String {
    format!("writers/{writer}.json")
}
