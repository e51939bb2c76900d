//! The base URL of the API: what it may be, and the address rules that follow from it.

use std::fmt;

use url::{Host, Url};

use super::HttpError;
use super::address::{AddressRules, is_loopback_name};

/// The base URL of the API, checked. Prints in full: it holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    url: Url,
    text: String,
    loopback: bool,
}

impl BaseUrl {
    /// Reads `text`: https, or http to a loopback address; no user, query or fragment. A last slash is cut.
    pub fn parse(text: &str) -> Result<Self, HttpError> {
        let text = text.trim();
        let shown = || if text.contains('@') { "(a URL with '@')".to_owned() } else { format!("{text:?}") };
        let refuse = |reason: &str| HttpError::BaseUrl { url: shown(), reason: reason.to_owned() };
        let mut url = Url::parse(text)
            .map_err(|error| refuse(&format!("{error}; write it like https://app.letsjelly.com/api")))?;
        if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
            return Err(refuse("it must begin with https://, like https://app.letsjelly.com/api"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("it must not carry a user name or password; the token is a setting of its own"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("it must end with the path (/api), without '?' or '#'"));
        }
        let loopback = match url.host() {
            Some(Host::Domain(name)) => is_loopback_name(name),
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        if url.scheme() == "http" && !loopback {
            return Err(refuse(
                "plain http would show the token to everyone on the way; use https:// (http is for loopback addresses)",
            ));
        }
        AddressRules::new(loopback).check_url(&url).map_err(|refusal| {
            refuse(&format!("it leads to {}, which is refused; use the public https address", refusal.reason()))
        })?;
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        let text = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { url, text, loopback })
    }

    /// Whether it leads to this machine.
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// The rules that follow from it.
    pub fn rules(&self) -> AddressRules {
        AddressRules::new(self.loopback)
    }

    /// The URL of `path` below the base. Every segment is already percent-encoded.
    pub(crate) fn below(&self, segments: &[&str]) -> Result<Url, HttpError> {
        let mut text = self.text.clone();
        for segment in segments {
            text.push('/');
            text.push_str(segment);
        }
        Url::parse(&text).map_err(|error| HttpError::BaseUrl { url: self.text.clone(), reason: error.to_string() })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_base_url_says_what_is_wrong_with_it() {
        assert_eq!(
            BaseUrl::parse(" https://app.letsjelly.com/api/ ").unwrap().to_string(),
            "https://app.letsjelly.com/api"
        );
        assert!(!BaseUrl::parse("https://app.letsjelly.com/api").unwrap().is_loopback());
        for local in ["http://127.0.0.1:3999/api", "http://[::1]:1", "https://localhost/api", "http://127.8.8.8/"] {
            assert!(BaseUrl::parse(local).unwrap().rules().loopback_allowed(), "{local}");
        }
        for (bad, hint) in [
            ("app.letsjelly.com/api", "https://"),
            ("http://app.letsjelly.com/api", "use https://"),
            ("http://localhost.evil.example/api", "use https://"),
            ("https://10.0.0.1/api", "private"),
            ("https://me:hunter2@app.letsjelly.com/api", "user name"),
            ("https://app.letsjelly.com/api?x=1", "without '?'"),
            ("ftp://app.letsjelly.com", "https://"),
            ("http://0.0.0.0:80/", "use https://"),
            ("", "https://"),
        ] {
            let error = BaseUrl::parse(bad).unwrap_err().to_string();
            assert!(error.contains(hint), "{bad}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn segments_are_appended_below_the_base() {
        let base = BaseUrl::parse("http://127.0.0.1:1/").unwrap();
        assert_eq!(base.below(&["attachments", "a%3D"]).unwrap().as_str(), "http://127.0.0.1:1/attachments/a%3D");
    }

    proptest! {
        #[test]
        fn parsing_a_base_url_never_panics(text in ".{0,60}") {
            let _ = BaseUrl::parse(&text);
        }
    }
}
