//! `[api]` and `[http]`: where Jelly is, and how the two clients connect.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::values;

/// How to reach Jelly.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// The base URL, with `/api` and without a final slash.
    pub base_url: String,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self { base_url: "https://app.letsjelly.com/api".into() }
    }
}

impl ApiConfig {
    /// Whether the base URL names this machine: `localhost`, a name under it, or a loopback address.
    pub fn is_loopback(&self) -> bool {
        url::Url::parse(&self.base_url).is_ok_and(|url| names_loopback(&url))
    }
}

/// Whether a URL names this machine: `localhost`, a name under it, or a loopback address.
pub(super) fn names_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    }
}

/// Both HTTP clients. Times are per event (connecting, waiting for the next bytes), not for whole transfers.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// To connect, with TLS.
    #[serde(deserialize_with = "values::duration::<100, 300_000, _>")]
    pub connect_timeout: Duration,
    /// For the next bytes to come, headers included.
    #[serde(deserialize_with = "values::duration::<100, 3_600_000, _>")]
    pub read_timeout: Duration,
    /// A file of extra root certificates (PEM).
    pub ca_file: Option<PathBuf>,
    /// A proxy for both clients; it must enforce the address rules itself.
    pub proxy: Option<String>,
    /// The most redirects that are followed on the storage side.
    #[serde(deserialize_with = "values::count::<0, 20, _, _>")]
    pub max_storage_redirects: u32,
    /// How often one download is continued after a broken connection before the attempt counts as failed.
    #[serde(deserialize_with = "values::count::<0, 1000, _, _>")]
    pub max_resumes: u32,
    /// The largest attachment that is fetched, in bytes.
    #[serde(rename = "max_attachment_size", deserialize_with = "values::size::<1, { 1 << 50 }, _>")]
    pub max_attachment_bytes: u64,
    /// The largest answer of the API that is read, in bytes.
    #[serde(rename = "max_answer_size", deserialize_with = "values::size::<{ 1 << 20 }, { 1 << 32 }, _>")]
    pub max_answer_bytes: u64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            ca_file: None,
            proxy: None,
            max_storage_redirects: 5,
            max_resumes: 3,
            max_attachment_bytes: 5 << 30,
            max_answer_bytes: 64 << 20,
        }
    }
}
