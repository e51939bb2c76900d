//! Reading of header fields that both sides share.

use std::time::Duration;

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};
use jiff::Timestamp;

/// The longest wait that an answer can ask for: one day, the longest of the service's own windows.
const LONGEST: Duration = Duration::from_hours(24);

/// How long an answer asks to wait (RFC 9110 §10.2.3: seconds or an HTTP date), from one second to one day; `None`
/// where it does not say or cannot be understood.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are a long wait all the same.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else if let Some(seconds) = text.parse::<f64>().ok().filter(|s| s.is_finite() && *s >= 0.0) {
        Duration::try_from_secs_f64(seconds.ceil()).unwrap_or(LONGEST)
    } else {
        let at = http_date(text)?;
        Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wait.clamp(Duration::from_secs(1), LONGEST))
}

/// The server's clock when it answered (RFC 9110 §6.6.1), to the second.
pub(crate) fn served_at(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(DATE)?.to_str().ok()?.trim())
}

/// Reads the three forms of RFC 9110 §5.6.7.
fn http_date(text: &str) -> Option<Timestamp> {
    if let Ok(zoned) = jiff::fmt::rfc2822::parse(text) {
        return Some(zoned.timestamp());
    }
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"].iter().find_map(|format| {
        let time = jiff::fmt::strtime::parse(format, text).ok()?.to_datetime().ok()?;
        Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Option<u64> {
        let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().ok()?);
        retry_after(&headers, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_all_three_date_forms_are_read() {
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("0"), Some(1));
        assert_eq!(read("1.2"), Some(2));
        assert_eq!(read("99999999999999999999999"), Some(86_400));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(37));
        assert_eq!(read("Sunday, 06-Nov-94 08:49:37 GMT"), Some(37));
        assert_eq!(read("Sun Nov  6 08:49:37 1994"), Some(37));
        assert_eq!(read("Sun, 06 Nov 1994 07:00:00 GMT"), Some(1));
        assert_eq!(read("soon"), None);
        assert_eq!(read("-5"), None);
        assert_eq!(read(""), None);
    }

    proptest! {
        #[test]
        fn any_text_gives_nothing_or_a_bounded_wait(text in "[ -~]{0,40}") {
            if let Some(seconds) = read(&text) {
                prop_assert!((1..=86_400).contains(&seconds));
            }
        }
    }
}
