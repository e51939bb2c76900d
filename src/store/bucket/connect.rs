//! From a bucket's place and settings to the clients that reach it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::MultipartStore;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};

use super::BucketError;
use super::uploads::S3Uploads;
use crate::config::{BucketSettings, HttpConfig, ObjectLockMode};
use crate::model::{BucketLocation, Provider};

/// What a bucket's client must be able to do.
pub(super) trait Objects: ObjectStore + MultipartStore {}
impl<T: ObjectStore + MultipartStore> Objects for T {}

/// Makes a client whose objects are locked until a day.
type MakeLocking = Box<dyn Fn(&str) -> Result<Arc<dyn Objects>, BucketError> + Send + Sync>;

/// A bucket's clients.
pub(super) struct Connection {
    /// For everything.
    pub(super) objects: Arc<dyn Objects>,
    /// Makes a client whose objects are locked until a day (`yyyy-mm-dd`), where they are to be.
    pub(super) locking: Option<MakeLocking>,
    /// Finds uploads that were never finished, where the protocol can.
    pub(super) uploads: Option<S3Uploads>,
}

/// Makes the clients; nothing is sent yet.
pub(super) fn connect(
    location: &BucketLocation,
    settings: &BucketSettings,
    http: &HttpConfig,
) -> Result<Connection, BucketError> {
    let client = client_options(location, settings, http)?;
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() },
        max_retries: settings.common.max_retries,
        // As requests are repeated with the signature of the first, this stays well below its 15 minutes.
        retry_timeout: Duration::from_mins(3),
    };
    let failed = |error: &object_store::Error| BucketError::new("open", location.to_string(), error);
    match location.provider {
        Provider::S3 => {
            let builder = s3_builder(location, settings, client.clone(), retry);
            let store = builder.clone().build().map_err(|error| failed(&error))?;
            let uploads = S3Uploads::new(location, settings, &store, &client)?;
            let locking = settings.s3.object_lock_mode.map(|mode| {
                let place = location.to_string();
                let make = move |day: &str| {
                    let headers = lock_headers(mode, day);
                    let builder = builder.clone().with_client_options(client.clone().with_default_headers(headers));
                    let store = builder.build().map_err(|error| BucketError::new("open", place.clone(), &error))?;
                    Ok(Arc::new(store) as Arc<dyn Objects>)
                };
                Box::new(make) as MakeLocking
            });
            Ok(Connection { objects: Arc::new(store), locking, uploads: Some(uploads) })
        }
        Provider::Gcs => {
            let mut builder = GoogleCloudStorageBuilder::new();
            for (name, value) in settings.options(location) {
                if let Ok(key) = name.parse::<GoogleConfigKey>() {
                    builder = builder.with_config(key, value.expose());
                }
            }
            let store =
                builder.with_client_options(client).with_retry(retry).build().map_err(|error| failed(&error))?;
            Ok(Connection { objects: Arc::new(store), locking: None, uploads: None })
        }
        Provider::Azure => {
            let mut builder = MicrosoftAzureBuilder::new();
            for (name, value) in settings.options(location) {
                if let Ok(key) = name.parse::<AzureConfigKey>() {
                    builder = builder.with_config(key, value.expose());
                }
            }
            let store =
                builder.with_client_options(client).with_retry(retry).build().map_err(|error| failed(&error))?;
            Ok(Connection { objects: Arc::new(store), locking: None, uploads: None })
        }
    }
}

fn client_options(
    location: &BucketLocation,
    settings: &BucketSettings,
    http: &HttpConfig,
) -> Result<ClientOptions, BucketError> {
    let mut client = ClientOptions::new()
        .with_connect_timeout(http.connect_timeout)
        // Between bytes: a large object may take its time.
        .with_timeout_disabled()
        .with_read_timeout(settings.common.request_timeout)
        .with_pool_max_idle_per_host(settings.common.concurrency * 2)
        .with_user_agent(HeaderValue::from_static(concat!("jellyjar/", env!("CARGO_PKG_VERSION"))));
    let problem = |reason: &str, advice: &str| BucketError::because("open", location.to_string(), reason, advice);
    client = client.with_allow_http(settings.is_plain_http(location.provider));
    if let Some(path) = &http.ca_file {
        let pem = std::fs::read(path)
            .map_err(|error| problem(&format!("{} cannot be read: {error}", path.display()), "check `http.ca_file`"))?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .map_err(|_| problem(&format!("{} holds no certificates", path.display()), "check `http.ca_file`"))?;
        for certificate in certificates {
            client = client.with_root_certificate(certificate);
        }
    }
    Ok(match &http.proxy {
        Some(proxy) => client.with_proxy_url(proxy),
        None => client,
    })
}

fn s3_builder(
    location: &BucketLocation,
    settings: &BucketSettings,
    client: ClientOptions,
    retry: RetryConfig,
) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in settings.options(location) {
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value.expose());
        }
    }
    // The server checks the bytes against their SHA-256 before it stores them.
    builder.with_client_options(client).with_retry(retry).with_checksum_algorithm(Checksum::SHA256)
}

fn lock_headers(mode: ObjectLockMode, day: &str) -> HeaderMap {
    let mode = match mode {
        ObjectLockMode::Governance => "GOVERNANCE",
        ObjectLockMode::Compliance => "COMPLIANCE",
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-object-lock-mode", HeaderValue::from_static(mode));
    let until = HeaderValue::from_str(&format!("{day}T00:00:00Z")).expect("a day is plain digits and dashes");
    headers.insert("x-amz-object-lock-retain-until-date", until);
    headers
}
