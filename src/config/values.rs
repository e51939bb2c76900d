//! Values as people write them: durations ("30s"), sizes ("64 MiB"), counts and dates, each within bounds.

use std::ffi::OsStr;
use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, civil::Date, tz::TimeZone};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use toml::Value;

use crate::config::CatalogSetting;
use crate::model::{InvalidLocation, Location, TeamKey};

/// Reads a duration: a number and a unit (`250ms`, `30s`, `5m`, `1h 30m`, `30d`). A day has 24 hours.
///
/// # Errors
/// A sentence that says what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let advice =
        || format!("{text:?} is no duration; write a number with a unit, like \"250ms\", \"30s\", \"5m\", \"2h\"");
    let parsed: SignedDuration = match text.trim() {
        "0" => SignedDuration::ZERO,
        text => {
            let span: Span = text.parse().map_err(|_| advice())?;
            span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| advice())?
        }
    };
    Duration::try_from(parsed).map_err(|_| format!("{text:?} is negative; a duration cannot be"))
}

/// Writes a duration the way [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    let total_ms = duration.as_millis();
    let mut text = String::new();
    let mut rest = total_ms;
    for (unit, ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if rest >= ms {
            let space = if text.is_empty() { "" } else { " " };
            // Writing into a String cannot fail.
            _ = write!(text, "{space}{}{unit}", rest / ms);
            rest %= ms;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Reads a size: a number, with a unit unless it counts bytes (`64 MiB`, `10 MB`, `4096`).
///
/// # Errors
/// A sentence that says what to write instead.
pub fn parse_size(text: &str) -> Result<ByteSize, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("{text:?} is no size; write a number with a unit, like \"64 KiB\", \"10 MiB\", \"5 GiB\""))
}

/// Writes a size the way [`parse_size`] reads it: in the largest binary unit that divides it, so that nothing is rounded.
pub fn format_size(bytes: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

/// Reads a date (`2026-01-31`, at midnight UTC) or a time with its offset (RFC 3339).
///
/// # Errors
/// A sentence that says what to write instead.
pub fn parse_moment(text: &str) -> Result<Timestamp, String> {
    let advice =
        || format!("{text:?} is no date; write one like \"2026-01-31\" (midnight UTC) or \"2026-01-31T09:00:00Z\"");
    let text = text.trim();
    if text.len() == "2026-01-31".len() {
        let date: Date = text.parse().map_err(|_| advice())?;
        return date.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(|_| advice());
    }
    text.parse().map_err(|_| advice())
}

/// Keeps a value within its bounds.
fn bounded<T: PartialOrd + Copy>(value: T, least: T, most: T, show: impl Fn(&T) -> String) -> Result<T, String> {
    if value < least || value > most {
        return Err(format!("{} is out of bounds; write {} to {}", show(&value), show(&least), show(&most)));
    }
    Ok(value)
}

/// Names what stands in the file in place of what was expected.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a bare number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// A duration within bounds in milliseconds.
fn duration_of(value: &Value, least_ms: u64, most_ms: u64) -> Result<Duration, String> {
    match value {
        Value::String(text) => {
            let show = |duration: &Duration| format_duration(*duration);
            bounded(parse_duration(text)?, Duration::from_millis(least_ms), Duration::from_millis(most_ms), show)
        }
        other => Err(format!("a duration is a text with a unit, like \"30s\" or \"5m\", not {}", kind(other))),
    }
}

/// A size within bounds in bytes.
fn size_of(value: &Value, least: u64, most: u64) -> Result<u64, String> {
    let bytes = match value {
        Value::String(text) => parse_size(text)?.as_u64(),
        Value::Integer(bytes) => u64::try_from(*bytes).map_err(|_| format!("{bytes} is negative; a size cannot be"))?,
        other => return Err(format!("a size is a text with a unit, like \"64 MiB\", not {}", kind(other))),
    };
    bounded(bytes, least, most, |bytes| format_size(*bytes))
}

/// A whole number within bounds.
fn count_of(value: &Value, least: u64, most: u64) -> Result<u64, String> {
    match value {
        Value::Integer(number) => {
            let number =
                u64::try_from(*number).map_err(|_| format!("{number} is negative; write {least} to {most}"))?;
            bounded(number, least, most, ToString::to_string)
        }
        other => Err(format!("a count is a whole number without quotes, {least} to {most}, not {}", kind(other))),
    }
}

/// Converts a value of the file; the error takes the value's place in it.
fn read<'de, D: Deserializer<'de>, T, E: Display>(
    deserializer: D,
    convert: impl FnOnce(&Value) -> Result<T, E>,
) -> Result<T, D::Error> {
    convert(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Reads a duration within bounds in milliseconds.
pub(super) fn duration<'de, const LEAST_MS: u64, const MOST_MS: u64, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    read(deserializer, |value| duration_of(value, LEAST_MS, MOST_MS))
}

/// Reads a size within bounds in bytes.
pub(super) fn size<'de, const LEAST: u64, const MOST: u64, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<u64, D::Error> {
    read(deserializer, |value| size_of(value, LEAST, MOST))
}

/// Reads a size of what is held in memory.
pub(super) fn size_in_memory<'de, const LEAST: u64, const MOST: u64, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<usize, D::Error> {
    read(deserializer, |value| usize::try_from(size_of(value, LEAST, MOST)?).map_err(|error| error.to_string()))
}

/// Reads a size that may be left out.
pub(super) fn optional_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    read(deserializer, |value| size_of(value, 0, u64::MAX).map(|bytes| Some(ByteSize::b(bytes))))
}

/// Reads a whole number within bounds.
pub(super) fn count<'de, const LEAST: u64, const MOST: u64, T: TryFrom<u64>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    read(deserializer, |value| {
        T::try_from(count_of(value, LEAST, MOST)?).map_err(|_| "the number is too large for this machine".to_owned())
    })
}

/// Reads a share of a whole: a number from 0 to 1.
pub(super) fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    read(deserializer, |value| {
        let share = match value {
            Value::Float(share) => *share,
            Value::Integer(0) => 0.0,
            Value::Integer(1) => 1.0,
            Value::Integer(number) => return Err(format!("{number} is out of bounds; write a share, 0.0 to 1.0")),
            other => return Err(format!("a share is a number from 0.0 to 1.0, not {}", kind(other))),
        };
        // What is not a number fails this, too.
        let within = (0.0..=1.0).contains(&share);
        within.then_some(share).ok_or_else(|| format!("{share} is out of bounds; write a share, 0.0 to 1.0"))
    })
}

/// Reads a whole number that may be left out.
pub(super) fn optional_count<'de, const LEAST: u64, const MOST: u64, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    read(deserializer, |value| count_of(value, LEAST, MOST).map(Some))
}

/// Reads a date or time, quoted or not, and keeps its text.
pub(super) fn optional_moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    read(deserializer, |value| {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Datetime(moment) => moment.to_string(),
            other => return Err(format!("a date is written like \"2026-01-31\", not as {}", kind(other))),
        };
        parse_moment(&text).map(|_| Some(text))
    })
}

/// Reads the path of a file or folder.
pub(super) fn optional_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    read(deserializer, |value| match value {
        Value::String(text) => check_path(Path::new(text)).map(|()| Some(PathBuf::from(text))),
        other => Err(format!("a path is a text in quotes, not {}", kind(other))),
    })
}

/// Reads the place of a catalog: a folder's path or a PostgreSQL database's URL.
pub(super) fn optional_catalog<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CatalogSetting>, D::Error> {
    read(deserializer, |value| match value {
        Value::String(text) => CatalogSetting::of(text.into()).map(Some),
        other => Err(format!("a catalog's place is a text in quotes, not {}", kind(other))),
    })
}

/// Reads the place of an archive: a folder's path or a bucket's URL.
pub(super) fn optional_location<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Location>, D::Error> {
    read(deserializer, |value| match value {
        Value::String(text) => location_of(OsStr::new(text)).map(Some),
        other => Err(format!("an archive's place is a text in quotes, not {}", kind(other))),
    })
}

/// The place of an archive that a text names. What is not UTF-8 can only be a folder.
pub(super) fn location_of(text: &OsStr) -> Result<Location, String> {
    match text.to_str() {
        Some(text) => text.parse().map_err(|error: InvalidLocation| error.to_string()),
        None => Ok(Location::Folder(PathBuf::from(text))),
    }
}

/// Refuses what cannot be meant as a path in this machine's file system.
pub(super) fn check_path(path: &Path) -> Result<(), String> {
    let text = path.to_string_lossy();
    if text.trim().is_empty() {
        return Err("the path is empty; write a path, or leave the setting out".into());
    }
    if text.contains('\0') {
        return Err("the path has a NUL character in it".into());
    }
    match text.split_once("://") {
        Some((scheme, _)) if !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric()) => Err(format!(
            "{scheme}:// addresses are not supported here; write the path of a folder or file, like \"/srv/jellyjar\""
        )),
        _ => Ok(()),
    }
}

/// Reads an address to listen on.
pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    read(deserializer, |value| match value {
        Value::String(text) => parse_address(text),
        other => Err(format!("an address is a text in quotes, not {}", kind(other))),
    })
}

/// Reads an address to listen on: an IP address and a port.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| {
        format!(
            "{text:?} is no address to listen on; write one like \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::1]:8080\""
        )
    })
}

/// Reads a name that is safe in keys and paths.
pub(super) fn optional_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    read(deserializer, |value| match value {
        Value::String(text) => check_name(text).map(|()| Some(text.clone())),
        other => Err(format!("a name is a text in quotes, not {}", kind(other))),
    })
}

/// Refuses a name that is no [`TeamKey`].
pub(super) fn check_name(name: &str) -> Result<(), String> {
    name.parse::<TeamKey>().map(drop).map_err(|_| {
        format!("{name:?} is not usable as a name; write 1 to 64 letters, digits, '.', '_' or '-', not '.' first")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h 30m", 5_400_000),
            ("2 hours", 7_200_000),
            ("0", 0),
            ("30d", 2_592_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "-5s", "5 parsecs", "5s ago", "1 month"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("64 MiB", 64 << 20), ("10MB", 10_000_000), ("1.5 KiB", 1536), ("4096", 4096), ("0", 0)] {
            assert_eq!(parse_size(text).map(|size| size.as_u64()), Ok(bytes), "{text}");
        }
        for text in ["", "-1", "ten MiB", "1 parsec"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_out_reads_back_the_same() {
        for bytes in [0, 1, 1023, 1024, 64 << 20, (5 << 30) + 1, u64::from(u32::MAX)] {
            assert_eq!(parse_size(&format_size(bytes)).map(|size| size.as_u64()), Ok(bytes));
        }
        for ms in [0, 1, 999, 1000, 90_000, 3_600_001, 604_800_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }

    #[test]
    fn a_date_is_midnight_utc_and_a_time_needs_its_offset() {
        assert_eq!(parse_moment("2026-01-31").unwrap().to_string(), "2026-01-31T00:00:00Z");
        assert_eq!(parse_moment("2026-01-31T10:00:00+01:00").unwrap().to_string(), "2026-01-31T09:00:00Z");
        for text in ["", "yesterday", "2026-02-30", "2026-01-31T10:00:00", "31.01.2026"] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
    }
}
