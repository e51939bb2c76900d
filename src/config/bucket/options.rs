//! What a bucket's client is told, under the names that `object_store` reads. The only way to the credentials.

use url::Url;

use super::super::credentials;
use super::BucketSettings;
use crate::model::{BucketLocation, Provider};
use crate::secret::Secret;

impl BucketSettings {
    /// Everything a bucket's client must know but for its timeouts, retries, proxy, certificates and checksums: name,
    /// endpoint, region, addressing, credentials, encryption.
    pub fn options(&self, bucket: &BucketLocation) -> Vec<(&'static str, Secret)> {
        let mut options: Vec<(&'static str, Secret)> = Vec::new();
        for (variable, key) in credentials::variables(bucket.provider) {
            if let Some(value) = self.environment.get(&variable.to_ascii_lowercase())
                && options.iter().all(|(known, _)| known != key)
            {
                options.push((key, value.clone()));
            }
        }
        let mut set = |key, value: Option<&str>| options.extend(value.map(|value| (key, Secret::new(value))));
        let endpoint = self.endpoint(bucket.provider);
        match bucket.provider {
            Provider::S3 => {
                let path_style = self.is_path_style(bucket);
                set("aws_bucket", Some(&bucket.bucket));
                set("aws_region", self.s3.region.as_deref());
                set("aws_virtual_hosted_style_request", Some(if path_style { "false" } else { "true" }));
                let hosted = endpoint.filter(|_| !path_style).and_then(|endpoint| hosted(endpoint, &bucket.bucket));
                set("aws_endpoint", hosted.as_deref().or(endpoint));
                if let Some(key) = &self.s3.kms_key_id {
                    set("aws_server_side_encryption", Some("aws:kms"));
                    set("aws_sse_kms_key_id", Some(key));
                }
                if let Some(profile) = &self.profile {
                    let secrets = [
                        ("aws_access_key_id", &profile.access_key_id),
                        ("aws_secret_access_key", &profile.secret_access_key),
                        ("aws_session_token", &profile.session_token),
                    ];
                    options.extend(secrets.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
                }
            }
            Provider::Gcs => {
                set("google_bucket", Some(&bucket.bucket));
                set("google_base_url", endpoint);
            }
            Provider::Azure => {
                set("azure_container_name", Some(&bucket.bucket));
                set("azure_storage_account_name", self.azure.account.as_deref());
                set("azure_storage_endpoint", endpoint);
            }
        }
        options
    }

    /// The server's URL, where it is not the provider's own.
    pub fn endpoint(&self, provider: Provider) -> Option<&str> {
        match provider {
            Provider::S3 => self.s3.endpoint.as_deref(),
            Provider::Gcs => self.gcs.endpoint.as_deref(),
            Provider::Azure => self.azure.endpoint.as_deref(),
        }
    }

    /// Whether the server is asked over plain http, which only one on this machine is.
    pub fn is_plain_http(&self, provider: Provider) -> bool {
        self.endpoint(provider).is_some_and(|endpoint| endpoint.starts_with("http://"))
    }

    /// Whether the bucket's name stands in the path: where that is set, else on servers that are not Amazon's, and for
    /// names with a dot, which no certificate covers.
    pub fn is_path_style(&self, bucket: &BucketLocation) -> bool {
        self.s3.path_style.unwrap_or(self.s3.endpoint.is_some() || bucket.bucket.contains('.'))
    }

    /// Whose credentials are used, in words that hold no secret.
    pub fn credentials(&self, provider: Provider) -> String {
        let first = |variables: &[&'static str]| {
            let is_set = |variable: &&&str| self.environment.contains_key(&variable.to_ascii_lowercase());
            variables.iter().find(is_set).map(|variable| format!("the environment ({variable})"))
        };
        let (found, otherwise) = match provider {
            Provider::S3 => {
                let profile = self.profile.as_ref().filter(|profile| profile.access_key_id.is_some());
                let by_profile = profile.map(|profile| format!("the AWS profile {:?}", profile.name));
                let variables = [
                    "AWS_ACCESS_KEY_ID",
                    "AWS_WEB_IDENTITY_TOKEN_FILE",
                    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                ];
                (by_profile.or_else(|| first(&variables)), "the machine's role")
            }
            Provider::Gcs => {
                let variables = variables_of(provider);
                (first(&variables), "gcloud's default credentials, or the machine's service account")
            }
            Provider::Azure => {
                let variables = variables_of(provider);
                (first(&variables), "the machine's managed identity")
            }
        };
        found.unwrap_or_else(|| otherwise.into())
    }
}

/// The names of a provider's variables.
fn variables_of(provider: Provider) -> Vec<&'static str> {
    credentials::variables(provider).iter().map(|(variable, _)| *variable).collect()
}

/// An endpoint with the bucket's name before its host, as the client wants it for that style.
fn hosted(endpoint: &str, bucket: &str) -> Option<String> {
    let mut url = Url::parse(endpoint).ok()?;
    let host = format!("{bucket}.{}", url.host_str()?);
    url.set_host(Some(&host)).ok()?;
    Some(url.as_str().trim_end_matches('/').to_owned())
}
