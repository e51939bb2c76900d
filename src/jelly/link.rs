//! The signed link: how a `Location` becomes one, and how it is kept from leaking.

use std::fmt;

use http::HeaderMap;
use http::header::LOCATION;
use url::{Position, Url};

use super::ApiError;
use crate::http::{AddressRules, Origin};

/// What an exchange should be answered with.
pub(super) const A_REDIRECT: &str = "a redirect to the file";

/// A fresh link to the bytes of one attachment, good for minutes. Made by the exchange alone and opened by value, so
/// that it is used once; shows scheme and host only.
///
/// ```compile_fail
/// fn twice(link: jellyjar::jelly::SignedUrl) { let _copy = link.clone(); }
/// ```
pub struct SignedUrl {
    url: Url,
    exact: bool,
}

impl SignedUrl {
    /// Takes the link out of a redirect that `requested` was answered with.
    pub(super) fn from_redirect(requested: &Url, headers: &HeaderMap, rules: AddressRules) -> Result<Self, ApiError> {
        let (url, exact) = resolve_location(requested, headers)
            .map_err(|bad| ApiError::UnexpectedAnswer { expected: A_REDIRECT, found: format!("a redirect {bad}") })?;
        rules.check_url(&url).map_err(|refusal| ApiError::RefusedTarget(refusal.to_string()))?;
        Ok(Self { url, exact })
    }

    /// Gives up the link to the one who follows it.
    pub(crate) fn open(self) -> Url {
        self.url
    }

    /// Whether the request target is sent byte for byte as the service wrote it. It is, for every link whose reserved
    /// signs are percent-encoded; otherwise what URLs cannot carry (raw quotes, spaces, dot segments) was encoded.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// A link to anywhere, for the tests of those who open it.
    #[cfg(test)]
    pub(crate) fn for_test(url: &str) -> Self {
        Self { url: Url::parse(url).unwrap(), exact: true }
    }
}

impl fmt::Display for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Origin(&self.url).fmt(f)
    }
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedUrl({self})")
    }
}

/// What is wrong with a redirect's `Location`. Never holds its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadLocation {
    /// There is none.
    #[error("without a Location")]
    Missing,
    /// There are several, and they differ.
    #[error("with several Locations")]
    Several,
    /// It is no URL.
    #[error("with a Location that is no URL")]
    Invalid,
}

/// The target of a redirect, resolved against the URL that was requested (RFC 9110 §10.2.2), without its fragment;
/// and whether its path and query are sent as they were written.
pub(crate) fn resolve_location(requested: &Url, headers: &HeaderMap) -> Result<(Url, bool), BadLocation> {
    let mut values = headers.get_all(LOCATION).iter();
    let value = values.next().ok_or(BadLocation::Missing)?;
    if values.any(|other| other != value) {
        return Err(BadLocation::Several);
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| BadLocation::Invalid)?.trim();
    if text.is_empty() {
        return Err(BadLocation::Missing);
    }
    let mut url = requested.join(text).map_err(|_| BadLocation::Invalid)?;
    url.set_fragment(None);
    // The HTTP library has limits of its own, which it would report with a panic or an error that shows the link.
    if url.as_str().parse::<http::Uri>().is_err() {
        return Err(BadLocation::Invalid);
    }
    let exact = raw_target(text).is_none_or(|raw| raw == &url[Position::BeforePath..Position::AfterQuery]);
    Ok((url, exact))
}

/// Path and query of a `Location` as they stand in it; `None` where they are relative to another path, or empty.
fn raw_target(text: &str) -> Option<&str> {
    let text = text.split('#').next().unwrap_or(text);
    let scheme_end = text.find(':').filter(|end| !text[..*end].contains(['/', '?']));
    let rest = scheme_end.map_or(text, |end| &text[end + 1..]);
    let target = match rest.strip_prefix("//") {
        Some(authority) => &authority[authority.find(['/', '?'])?..],
        None => rest,
    };
    target.starts_with('/').then_some(target)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn follow(location: &str) -> Result<(Url, bool), BadLocation> {
        let mut headers = HeaderMap::new();
        headers.append(LOCATION, http::HeaderValue::from_bytes(location.as_bytes()).unwrap());
        resolve_location(&Url::parse("https://app.letsjelly.com/api/attachments/x").unwrap(), &headers)
    }

    #[test]
    fn links_as_the_storage_services_sign_them_pass_unchanged() {
        let long = format!("https://b.s3.amazonaws.com/k?X-Amz-Security-Token={}", "Ab%2F%2b".repeat(810));
        for link in [
            "https://b.s3.us-east-1.amazonaws.com/9x8?response-content-disposition=inline%3B%20filename%3D%22it%2527s%20a%2520b.pdf%22%3B%20filename%2A%3DUTF-8%27%27it%252527s.pdf&response-content-type=application%2Fpdf&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F20261122%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Signature=ab",
            "https://storage.googleapis.com/b/o?GoogleAccessId=a%40b.iam&Expires=1&Signature=a%2Bb%2fc%3D%3D&response-content-disposition=attachment;+filename*%3DUTF-8%27%27n.txt",
            "https://acct.blob.core.windows.net/c/o?sp=r&se=2026-11-22T00%3A00%3A00Z&sv=2019-02-02&sr=b&rscd=inline;filename=%22a.png%22&sig=x%2By%2Fz%3d",
            "https://app.letsjelly.com/rails/active_storage/disk/eyJfcmFpbHMiOnt9fQ==--0ab/r%C3%A9sum%c3%a9%20(1)~_-.!$&'()*+,;=:@.pdf?content_type=a",
            "https://h.example/a//b/%2e%2E%2fx/?a=b?c/d&&=%00%ff",
            long.as_str(),
        ] {
            let (url, exact) = follow(link).unwrap();
            // "%2e%2E%2f" is one segment that begins with two dots, not a dot segment.
            assert_eq!((url.as_str(), exact), (link, true));
        }
        assert_eq!(follow("https://h.example").unwrap().0.as_str(), "https://h.example/");
    }

    #[test]
    fn a_link_that_url_rules_change_is_followed_and_marked() {
        for (link, sent) in [
            ("https://h.example/a?b='c'", "https://h.example/a?b=%27c%27"),
            ("https://h.example/a/../b", "https://h.example/b"),
            ("https://h.example/a b", "https://h.example/a%20b"),
            ("https://h.example/é", "https://h.example/%C3%A9"),
        ] {
            let (url, exact) = follow(link).unwrap();
            assert_eq!((url.as_str(), exact), (sent, false), "{link}");
        }
    }

    #[test]
    fn relative_locations_are_resolved_and_fragments_cut() {
        assert_eq!(follow("/disk/a%2B?x#f").unwrap().0.as_str(), "https://app.letsjelly.com/disk/a%2B?x");
        assert_eq!(follow("//h.example/a").unwrap(), (Url::parse("https://h.example/a").unwrap(), true));
        assert_eq!(follow("y?z").unwrap().0.as_str(), "https://app.letsjelly.com/api/attachments/y?z");
    }

    #[test]
    fn missing_doubled_and_broken_locations_are_told_apart() {
        let requested = Url::parse("https://h.example/").unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(resolve_location(&requested, &headers).unwrap_err(), BadLocation::Missing);
        headers.append(LOCATION, "https://a.example/".parse().unwrap());
        headers.append(LOCATION, "https://a.example/".parse().unwrap());
        assert!(resolve_location(&requested, &headers).is_ok());
        headers.append(LOCATION, "https://b.example/".parse().unwrap());
        assert_eq!(resolve_location(&requested, &headers).unwrap_err(), BadLocation::Several);
        assert_eq!(follow("https://").unwrap_err(), BadLocation::Invalid);
        assert_eq!(follow(&format!("https://h.example/{}", "a".repeat(70_000))).unwrap_err(), BadLocation::Invalid);
    }

    #[test]
    fn a_signed_link_shows_scheme_and_host_alone() {
        let link = SignedUrl::for_test("https://u@h.example:444/path/name?X-Amz-Signature=sig");
        assert_eq!(format!("{link} {link:?}"), "https://h.example:444 SignedUrl(https://h.example:444)");
    }

    proptest! {
        #[test]
        fn no_location_panics_and_exactness_is_true(bytes in proptest::collection::vec(0x20u8..=0xff, 0..80)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = http::HeaderValue::from_bytes(&bytes) {
                headers.append(LOCATION, value);
            }
            let _ = resolve_location(&Url::parse("https://h.example/a/b").unwrap(), &headers);
        }

        #[test]
        fn percent_encoded_targets_are_never_changed(
            target in "(/([A-Za-z0-9_~.-]|%[0-9A-Fa-f]{2}){1,9}x){1,4}(\\?([A-Za-z0-9=&+;*/_~.-]|%[0-9A-Fa-f]{2}){0,40})?"
        ) {
            let link = format!("https://h.example{target}");
            let (url, exact) = follow(&link).unwrap();
            prop_assert_eq!(url.as_str(), link.as_str());
            prop_assert!(exact);
        }
    }
}
