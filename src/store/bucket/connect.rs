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

/// A bucket's clients.
pub(super) struct Connection {
    /// For everything.
    pub(super) objects: Arc<dyn Objects>,
    /// Makes a client whose objects are locked until a day (`yyyy-mm-dd`), where they are to be.
    pub(super) locking: Option<Box<dyn Fn(&str) -> Result<Arc<dyn Objects>, BucketError> + Send + Sync>>,
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
            let builder = s3_builder(location, settings, client.clone(), retry)?;
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
                Box::new(make) as Box<dyn Fn(&str) -> _ + Send + Sync>
            });
            Ok(Connection { objects: Arc::new(store), locking, uploads: Some(uploads) })
        }
        Provider::Gcs => {
            let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(&location.bucket);
            for (name, value) in &settings.environment {
                let name = if name == "service_account" { "google_service_account" } else { name };
                if let Ok(key) = name.parse::<GoogleConfigKey>() {
                    builder = builder.with_config(key, value.expose());
                }
            }
            if let Some(endpoint) = &settings.gcs.endpoint {
                builder = builder.with_base_url(endpoint.trim_end_matches('/'));
            }
            let store =
                builder.with_client_options(client).with_retry(retry).build().map_err(|error| failed(&error))?;
            Ok(Connection { objects: Arc::new(store), locking: None, uploads: None })
        }
        Provider::Azure => {
            let mut builder = MicrosoftAzureBuilder::new().with_container_name(&location.bucket);
            for (name, value) in &settings.environment {
                if let Ok(key) = name.parse::<AzureConfigKey>() {
                    builder = builder.with_config(key, value.expose());
                }
            }
            if let Some(account) = &settings.azure.account {
                builder = builder.with_account(account);
            }
            if let Some(endpoint) = &settings.azure.endpoint {
                builder = builder.with_endpoint(endpoint.clone());
            }
            let store =
                builder.with_client_options(client).with_retry(retry).build().map_err(|error| failed(&error))?;
            Ok(Connection { objects: Arc::new(store), locking: None, uploads: None })
        }
    }
}

/// The endpoint in force, where it is not the provider's own.
pub(super) fn endpoint(provider: Provider, settings: &BucketSettings) -> Option<String> {
    let from_environment = |names: &[&str]| {
        names.iter().find_map(|name| settings.environment.get(*name)).map(|value| value.expose().to_owned())
    };
    match provider {
        Provider::S3 => settings
            .s3
            .endpoint
            .clone()
            .or_else(|| from_environment(&["aws_endpoint_url_s3", "aws_endpoint_url", "aws_endpoint"]))
            .or_else(|| settings.profile.as_ref()?.endpoint.clone()),
        Provider::Gcs => settings.gcs.endpoint.clone().or_else(|| from_environment(&["google_base_url"])),
        Provider::Azure => {
            settings.azure.endpoint.clone().or_else(|| from_environment(&["azure_storage_endpoint", "azure_endpoint"]))
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
        .with_timeout(settings.common.request_timeout)
        .with_pool_max_idle_per_host(settings.common.concurrency * 2)
        .with_user_agent(HeaderValue::from_static(concat!("jellyjar/", env!("CARGO_PKG_VERSION"))));
    let problem = |reason: &str, advice: &str| BucketError::because("open", location.to_string(), reason, advice);
    if let Some(endpoint) = endpoint(location.provider, settings) {
        let url = url::Url::parse(&endpoint)
            .map_err(|_| problem("its endpoint is no URL", "write one like \"https://s3.example.com\""))?;
        let loopback = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.to_canonical().is_loopback(),
            None => false,
        };
        if url.scheme() == "http" && !loopback {
            return Err(problem(
                "its endpoint is plain http, over which mail would travel in the clear",
                "write https://…; http is for this machine alone",
            ));
        }
        client = client.with_allow_http(url.scheme() == "http");
    }
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
) -> Result<AmazonS3Builder, BucketError> {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in s3_options(settings) {
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let path_style = settings.s3.path_style.unwrap_or(endpoint(Provider::S3, settings).is_some());
    let virtual_hosted = !path_style;
    if virtual_hosted {
        // The client takes an endpoint with the bucket's name in it, or none.
        if let Some(endpoint) = endpoint(Provider::S3, settings) {
            let hosted = endpoint.replacen("://", &format!("://{}.", location.bucket), 1);
            builder = builder.with_endpoint(hosted);
        }
    } else if let Some(endpoint) = endpoint(Provider::S3, settings) {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(key) = &settings.s3.kms_key_id {
        builder = builder.with_sse_kms_encryption(key);
    }
    Ok(builder
        .with_bucket_name(&location.bucket)
        .with_virtual_hosted_style_request(virtual_hosted)
        .with_client_options(client)
        .with_retry(retry)
        // The server checks the bytes against their SHA-256 before it stores them.
        .with_checksum_algorithm(Checksum::SHA256))
}

/// Credentials and region: the environment's, then the profile's; what is configured goes over both.
pub(super) fn s3_options(settings: &BucketSettings) -> Vec<(String, String)> {
    let mut options = Vec::new();
    if let Some(profile) = &settings.profile {
        let secrets = [
            ("aws_access_key_id", &profile.access_key_id),
            ("aws_secret_access_key", &profile.secret_access_key),
            ("aws_session_token", &profile.session_token),
        ];
        for (name, value) in secrets {
            options.extend(value.as_ref().map(|value| (name.to_owned(), value.expose().to_owned())));
        }
        options.extend(profile.region.as_ref().map(|region| ("aws_region".to_owned(), region.clone())));
    }
    let endpoints = ["aws_endpoint_url_s3", "aws_endpoint_url", "aws_endpoint"];
    for (name, value) in &settings.environment {
        if !endpoints.contains(&name.as_str()) {
            options.push((name.clone(), value.expose().to_owned()));
        }
    }
    options.extend(settings.s3.region.as_ref().map(|region| ("aws_region".to_owned(), region.clone())));
    options
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
