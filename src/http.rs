//! The two HTTP clients and the rules on where they may connect. Owns transport settings; knows no API and no token.

mod address;
mod base;
mod headers;
#[cfg(test)]
pub(crate) mod scripted;

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use url::Url;

pub(crate) use address::Origin;
pub use address::{AddressRules, Refusal};
pub use base::BaseUrl;
pub(crate) use headers::{retry_after, served_at};

use crate::config::HttpConfig;

/// The most of an answer's body that is read where its head says all that is needed, in bytes.
const MAX_BODY_BYTES: usize = 64 << 10;
/// How long such a body may take.
const BODY_PATIENCE: Duration = Duration::from_secs(2);

/// What the driver does after a failed exchange or download. Delays without a value are the driver's own backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again after backoff, or after the time that the server asked for if that is longer. Spends an attempt.
    RetryAfter(Option<Duration>),
    /// Exchange afresh at once. Bounded by the driver.
    Reexchange,
    /// This attachment failed; asking again cannot help.
    Fail,
    /// Whole bytes that contradict what was declared: fetch once more, and quarantine what agrees with itself.
    Quarantine,
    /// The token is refused: pause the team until a person acts. Spends no attempt.
    PauseTeam,
    /// The team's quota is used up for this long. Spends no attempt.
    PauseTeamFor(Duration),
    /// The address's quota is used up for this long: pause all teams of the egress group. Spends no attempt.
    PauseEgressGroup(Duration),
    /// Ask once whether the token still works: refused too, pause the team; else this attachment failed.
    ProbeMembers,
    /// The service says there is no such attachment: try twice more, then it failed as gone.
    RetryGone,
    /// This side is in trouble (disk full, spool taken): wait this long. Spends no attempt.
    HoldOff(Duration),
}

/// Why the clients cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The base URL is not usable.
    #[error("base URL {url} is not usable: {reason}")]
    BaseUrl {
        /// The URL as written, unless it may hold a password.
        url: String,
        /// What to do about it.
        reason: String,
    },
    /// The file of extra root certificates cannot be read.
    #[error("cannot read the root certificates in {path}: {reason}; it must hold PEM certificates")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// The proxy's address is not usable.
    #[error("the proxy setting is not usable ({0}); write it like http://proxy.example:3128")]
    Proxy(String),
    /// The TLS or client setup failed.
    #[error("cannot set up HTTPS ({0}); install the system's root certificates (ca-certificates) or set ca_file")]
    Setup(String),
}

/// The API client and the storage client. Cheap to clone; each has its own connection pool.
#[derive(Debug, Clone)]
pub struct HttpClients {
    api: reqwest::Client,
    storage: reqwest::Client,
    rules: AddressRules,
}

impl HttpClients {
    /// Makes both clients. Neither follows redirects, sends a referer, keeps cookies or undoes content codings; only
    /// what the caller adds to an API request carries a token.
    pub fn new(config: &HttpConfig, base: &BaseUrl) -> Result<Self, HttpError> {
        let rules = base.rules();
        let roots = extra_roots(config)?;
        let make = || -> Result<reqwest::Client, HttpError> {
            let merged = builder(config, rules)?.tls_certs_merge(roots.iter().cloned()).build();
            match merged {
                // Nothing but loopback needs no system roots; a bare container has none.
                Err(_) if rules.loopback_allowed() => {
                    builder(config, rules)?.tls_certs_only(roots.iter().cloned()).build()
                }
                other => other,
            }
            .map_err(|error| HttpError::Setup(describe(error)))
        };
        Ok(Self { api: make()?, storage: make()?, rules })
    }

    /// The client for the API; `jelly` adds the token to each request.
    pub(crate) fn api(&self) -> &reqwest::Client {
        &self.api
    }

    /// The client for the storage service; never given a token.
    pub(crate) fn storage(&self) -> &reqwest::Client {
        &self.storage
    }

    /// The address rules that every target must pass before it is requested.
    pub fn rules(&self) -> AddressRules {
        self.rules
    }
}

/// The settings that both clients share.
fn builder(config: &HttpConfig, rules: AddressRules) -> Result<reqwest::ClientBuilder, HttpError> {
    let mut defaults = HeaderMap::new();
    defaults.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("jellyjar/", env!("CARGO_PKG_VERSION")))
        .default_headers(defaults)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .no_proxy()
        .connect_timeout(config.connect_timeout)
        .read_timeout(config.read_timeout)
        .tcp_nodelay(true)
        .pool_max_idle_per_host(64)
        .pool_idle_timeout(Duration::from_mins(1));
    let mut exempt = None;
    if let Some(proxy) = &config.proxy {
        let url = Url::parse(proxy).map_err(|error| HttpError::Proxy(error.to_string()))?;
        exempt = Some(url.host_str().ok_or_else(|| HttpError::Proxy("it names no host".into()))?.to_owned());
        builder = builder.proxy(reqwest::Proxy::all(url).map_err(|error| HttpError::Proxy(describe(error)))?);
    }
    Ok(builder.dns_resolver(address::RuledResolver { rules, exempt }))
}

/// A client for addresses that the operator chose, which may be private ones. It follows no redirects and sends no
/// referer; addresses on this machine are not asked through the proxy. `timeout` is for a whole request.
pub(crate) fn operator_client(config: &HttpConfig, timeout: Duration) -> Result<reqwest::Client, HttpError> {
    let roots = extra_roots(config)?;
    let make = || -> Result<reqwest::ClientBuilder, HttpError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("jellyjar/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(config.connect_timeout.min(timeout))
            .timeout(timeout)
            .pool_max_idle_per_host(1);
        if let Some(proxy) = &config.proxy {
            let proxy = reqwest::Proxy::all(proxy).map_err(|error| HttpError::Proxy(describe(error)))?;
            let local = reqwest::NoProxy::from_string("localhost,127.0.0.0/8,::1");
            builder = builder.proxy(proxy.no_proxy(local));
        }
        Ok(builder)
    };
    // A bare container has no system roots; what is on this machine is reached without.
    let client = make()?.tls_certs_merge(roots.iter().cloned()).build();
    let client = match client {
        Err(_) => make()?.tls_certs_only(roots.iter().cloned()).build(),
        made => made,
    };
    client.map_err(|error| HttpError::Setup(describe(error)))
}

/// Reads the extra root certificates.
fn extra_roots(config: &HttpConfig) -> Result<Vec<reqwest::Certificate>, HttpError> {
    let Some(path) = &config.ca_file else { return Ok(Vec::new()) };
    let wrong = |reason: String| HttpError::CaFile { path: path.clone(), reason };
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let roots = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrong(describe(error)))?;
    if roots.is_empty() {
        return Err(wrong("there is no certificate in it".into()));
    }
    Ok(roots)
}

/// What kind of failure a transport error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransportFailure {
    /// The address rules refused every address of the name.
    Refused,
    /// Nothing came in time.
    Timeout,
    /// Everything else: no connection, a reset, a cut body.
    Connection,
}

/// Sorts a transport error, and describes it without its URL.
pub(crate) fn classify(error: reqwest::Error) -> (TransportFailure, String) {
    let mut cause = error.source();
    let mut kind = if error.is_timeout() { TransportFailure::Timeout } else { TransportFailure::Connection };
    while let Some(inner) = cause {
        if inner.is::<Refusal>() {
            kind = TransportFailure::Refused;
        }
        cause = inner.source();
    }
    (kind, describe(error))
}

/// The innermost cause in words. The URL is removed first: it may be a signed link.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost.to_string()
}

/// Reads what there is of a body, up to 64 KiB and two seconds; failures only shorten it. One that is read to its
/// end leaves its connection to the next request.
pub(crate) async fn read_body(response: &mut reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(piece)) = response.chunk().await {
            let room = MAX_BODY_BYTES - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if body.len() == MAX_BODY_BYTES {
                break;
            }
        }
    };
    // Whether it came in time does not matter: what has come is used.
    drop(tokio::time::timeout(BODY_PATIENCE, read).await);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_without_a_host_is_refused_with_an_example() {
        let base = BaseUrl::parse("http://127.0.0.1:1/api").unwrap();
        let config = HttpConfig { proxy: Some("proxy".into()), ..HttpConfig::default() };
        let error = HttpClients::new(&config, &base).unwrap_err().to_string();
        assert!(error.contains("http://proxy.example:3128"), "{error}");
    }

    #[test]
    fn a_missing_or_empty_certificate_file_is_named() {
        let base = BaseUrl::parse("http://127.0.0.1:1/api").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("roots.pem");
        let config = HttpConfig { ca_file: Some(path.clone()), ..HttpConfig::default() };
        assert!(HttpClients::new(&config, &base).unwrap_err().to_string().contains("roots.pem"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(HttpClients::new(&config, &base).unwrap_err().to_string().contains("roots.pem"));
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_refused_address_is_a_refusal_and_not_a_mere_connection_error() {
        let base = BaseUrl::parse("https://app.letsjelly.com/api").unwrap();
        let clients = HttpClients::new(&HttpConfig::default(), &base).unwrap();
        let error = clients.storage().get("https://localhost:1/secret?query").send().await.unwrap_err();
        let (kind, text) = classify(error);
        assert_eq!(kind, TransportFailure::Refused, "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
