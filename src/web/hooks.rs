//! Whose webhooks are accepted, and how a sender is known. The only place that compares secrets, in constant time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER_PERMISSIVE;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};
use sha2::Sha256;

use crate::config::{TeamConfig, WebhookConfig};
use crate::secret::Secret;

/// Hex HMAC-SHA256 of the raw body, with or without `sha256=` before it.
static SIGNATURE: HeaderName = HeaderName::from_static("x-jelly-signature");

/// By what the webhooks of one team are known.
pub struct Hook {
    /// One for each secret, with the key already taken in.
    keys: Vec<Hmac<Sha256>>,
    basic: Option<Basic>,
    allow_unsigned: bool,
}

/// The HMAC of `user:password`. It, and not the text, is compared, so that neither length nor prefix shows in the time.
struct Basic([u8; 32]);

/// The key of that HMAC; it needs not be secret.
const BASIC_KEY: &[u8] = b"jellyjar webhook basic authentication";

impl fmt::Debug for Hook {
    /// Shows no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook")
            .field("secrets", &self.keys.len())
            .field("basic", &self.basic.is_some())
            .field("allow_unsigned", &self.allow_unsigned)
            .finish()
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length (RFC 2104)")
}

/// What a request has for a signature.
enum Signature {
    Missing,
    Malformed,
    Tag([u8; 32]),
}

fn signature(headers: &HeaderMap) -> Signature {
    let mut values = headers.get_all(&SIGNATURE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return if headers.contains_key(&SIGNATURE) { Signature::Malformed } else { Signature::Missing };
    };
    let value = value.as_bytes().trim_ascii();
    let hex = value.strip_prefix(b"sha256=").unwrap_or(value);
    // The length is looked at first, so that nothing of a size that a stranger chose is decoded.
    let tag = (hex.len() == 64).then(|| HEXLOWER_PERMISSIVE.decode(hex).ok()).flatten();
    tag.and_then(|tag| tag.try_into().ok()).map_or(Signature::Malformed, Signature::Tag)
}

impl Basic {
    fn new(username: &str, password: &Secret) -> Self {
        let mut tag = keyed(BASIC_KEY);
        tag.update(username.as_bytes());
        tag.update(b":");
        tag.update(password.expose().as_bytes());
        Self(tag.finalize().into_bytes().into())
    }

    /// Whether the one `Authorization` header names this user and password (RFC 7617).
    fn accepts(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, credentials)) = value.as_bytes().split_at_checked(6) else { return false };
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return false;
        }
        let Ok(credentials) = STANDARD.decode(credentials.trim_ascii()) else { return false };
        let mut tag = keyed(BASIC_KEY);
        tag.update(&credentials);
        tag.verify_slice(&self.0).is_ok()
    }
}

impl Hook {
    /// Makes a team's hook; `None` where nothing is set by which a sender could be known.
    pub fn new(config: &WebhookConfig) -> Option<Self> {
        let basic = config.username.as_deref().zip(config.password.as_ref());
        let hook = Self {
            keys: config.secrets.iter().map(|secret| keyed(secret.expose().as_bytes())).collect(),
            basic: basic.map(|(username, password)| Basic::new(username, password)),
            allow_unsigned: config.allow_unsigned,
        };
        // A user name whose password was not read must not make a hook without Basic authentication.
        let is_whole = config.username.is_some() == hook.basic.is_some();
        (is_whole && (!hook.keys.is_empty() || hook.allows_unsigned())).then_some(hook)
    }

    /// Unsigned webhooks are taken only where Basic authentication stands in for the signature.
    fn allows_unsigned(&self) -> bool {
        self.allow_unsigned && self.basic.is_some()
    }

    /// Whether a request comes from the team's Jelly. All of it is always looked at, so that the time tells nothing.
    pub(super) fn accepts(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let is_known = self.basic.as_ref().is_none_or(|basic| basic.accepts(headers));
        let is_signed = match signature(headers) {
            // Without a secret there is nothing to check a signature against.
            _ if self.keys.is_empty() => self.allows_unsigned(),
            Signature::Missing => self.allows_unsigned(),
            Signature::Malformed => false,
            Signature::Tag(tag) => self.keys.iter().fold(false, |is_signed, key| {
                let mut key = key.clone();
                key.update(body);
                is_signed | key.verify_slice(&tag).is_ok()
            }),
        };
        is_known & is_signed
    }
}

/// The hooks of all teams by name. They can be replaced while requests come in.
#[derive(Debug, Default)]
pub struct Hooks(RwLock<Arc<BTreeMap<String, Arc<Hook>>>>);

impl Hooks {
    /// Makes the hooks of the teams that have what they need.
    pub fn new(teams: &BTreeMap<String, TeamConfig>) -> Self {
        let hooks = Self::default();
        hooks.replace(teams);
        hooks
    }

    /// Puts other secrets and teams in place, for all requests that are judged from now on.
    pub fn replace(&self, teams: &BTreeMap<String, TeamConfig>) {
        let hooks = teams.iter().filter_map(|(name, team)| Some((name.clone(), Arc::new(Hook::new(&team.webhook)?))));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(hooks.collect());
    }

    /// The teams whose webhooks are accepted.
    pub fn teams(&self) -> Vec<String> {
        self.current().keys().cloned().collect()
    }

    /// The hook of a team.
    pub(super) fn of(&self, team: &str) -> Option<Arc<Hook>> {
        self.current().get(team).map(Arc::clone)
    }

    fn current(&self) -> Arc<BTreeMap<String, Arc<Hook>>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(secrets: &[&str], login: Option<(&str, &str)>, allow_unsigned: bool) -> Option<Hook> {
        Hook::new(&WebhookConfig {
            secrets: secrets.iter().map(|secret| Secret::new(secret)).collect(),
            username: login.map(|(username, _)| username.to_owned()),
            password: login.map(|(_, password)| Secret::new(password)),
            allow_unsigned,
            ..WebhookConfig::default()
        })
    }

    fn headers(pairs: &[(&HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    /// RFC 4231, test case 2.
    const KEY: &str = "Jefe";
    const DATA: &[u8] = b"what do ya want for nothing?";
    const TAG: &str = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

    #[test]
    fn the_signature_of_the_rfcs_example_is_right_in_every_spelling() {
        let hook = hook(&["another", KEY], None, false).unwrap();
        for value in [TAG, &format!("sha256={TAG}"), &TAG.to_uppercase(), &format!("  {TAG} ")] {
            assert!(hook.accepts(&headers(&[(&SIGNATURE, value)]), DATA), "{value}");
            assert!(!hook.accepts(&headers(&[(&SIGNATURE, value)]), b"other"), "{value}");
        }
    }

    #[test]
    fn nothing_but_one_whole_signature_counts() {
        let hook = hook(&[KEY], Some(("u", "p")), false).unwrap();
        let login = "Basic dTpw";
        assert!(hook.accepts(&headers(&[(&SIGNATURE, TAG), (&AUTHORIZATION, login)]), DATA));
        let wrong = TAG.replace('5', "6");
        for value in
            [&TAG[..62], &format!("{TAG}00"), &format!("{TAG},{TAG}"), "", "sha256=", &wrong, &TAG.replace('5', "g")]
        {
            assert!(!hook.accepts(&headers(&[(&SIGNATURE, value), (&AUTHORIZATION, login)]), DATA), "{value}");
        }
        assert!(!hook.accepts(&headers(&[(&AUTHORIZATION, login)]), DATA));
        let twice = headers(&[(&SIGNATURE, TAG), (&SIGNATURE, TAG), (&AUTHORIZATION, login)]);
        assert!(!hook.accepts(&twice, DATA));
    }

    #[test]
    fn a_password_is_wanted_besides_the_signature() {
        let hook = hook(&[KEY], Some(("jelly", "a b:c")), false).unwrap();
        let encoded = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let accepts = |value: &str| hook.accepts(&headers(&[(&SIGNATURE, TAG), (&AUTHORIZATION, value)]), DATA);
        assert!(accepts(&encoded("jelly:a b:c")));
        assert!(accepts(&encoded("jelly:a b:c").replace("Basic", "bASIC")));
        for value in [
            "",
            "Basic",
            "Basic ",
            "Basic !",
            "Bearer amVsbHk6YSBiOmM=",
            &encoded("jelly:a b:d"),
            &encoded("jelly:a b:cc"),
        ] {
            assert!(!accepts(value), "{value}");
        }
        let value = encoded("jelly:a b:c");
        let twice = headers(&[(&SIGNATURE, TAG), (&AUTHORIZATION, &value), (&AUTHORIZATION, &value)]);
        assert!(!hook.accepts(&twice, DATA));
    }

    #[test]
    fn unsigned_webhooks_are_taken_only_where_they_are_allowed_and_with_a_password() {
        let login = headers(&[(&AUTHORIZATION, "Basic dTpw")]);
        let signed = headers(&[(&AUTHORIZATION, "Basic dTpw"), (&SIGNATURE, TAG)]);
        let only = hook(&[], Some(("u", "p")), true).unwrap();
        assert!(only.accepts(&login, DATA) && only.accepts(&signed, DATA));
        assert!(!only.accepts(&HeaderMap::new(), DATA));
        let both = hook(&[KEY], Some(("u", "p")), true).unwrap();
        assert!(both.accepts(&login, DATA) && both.accepts(&signed, DATA));
        assert!(!both.accepts(&signed, b"other"), "a signature that is there must be right");
        assert!(!hook(&[KEY], Some(("u", "p")), false).unwrap().accepts(&login, DATA));
    }

    #[test]
    fn without_anything_to_know_a_sender_by_there_is_no_hook() {
        assert!(hook(&[], None, false).is_none());
        assert!(hook(&[], None, true).is_none());
        assert!(hook(&[], Some(("u", "p")), false).is_none());
        let unread = WebhookConfig {
            secrets: vec![Secret::new(KEY)],
            username: Some("u".into()),
            password_file: Some("unread".into()),
            ..WebhookConfig::default()
        };
        assert!(Hook::new(&unread).is_none(), "a password that was not read must not be left out");
    }
}
