//! How buckets are reached, and what is asked of them for every object.

mod options;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::values;
use crate::secret::Secret;

/// All kinds of buckets.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BucketConfig {
    /// Objects that are stored at once.
    #[serde(deserialize_with = "values::count::<1, 256, _, _>")]
    pub concurrency: usize,
    /// Objects above this size are uploaded in parts of at least this size, in bytes.
    #[serde(rename = "part_size", deserialize_with = "values::size::<{ 5 << 20 }, { 1 << 30 }, _>")]
    pub part_bytes: u64,
    /// What all uploads together may hold in memory, in bytes. One part is always admitted.
    #[serde(rename = "max_upload_memory", deserialize_with = "values::size::<{ 5 << 20 }, { 1 << 40 }, _>")]
    pub max_upload_memory_bytes: u64,
    /// For an answer to begin, the upload of the request's body included, and then for the next bytes of it.
    #[serde(deserialize_with = "values::duration::<1000, 3_600_000, _>")]
    pub request_timeout: Duration,
    /// How often a request that failed for the server's reasons is sent again, before the run ends.
    #[serde(deserialize_with = "values::count::<0, 100, _, _>")]
    pub max_retries: usize,
    /// Whether stored bytes are read back and hashed.
    pub read_back: ReadBack,
}

impl Default for BucketConfig {
    fn default() -> Self {
        Self {
            concurrency: 32,
            part_bytes: 8 << 20,
            max_upload_memory_bytes: 48 << 20,
            request_timeout: Duration::from_mins(2),
            max_retries: 6,
            read_back: ReadBack::Auto,
        }
    }
}

/// Whether stored bytes are read back and hashed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadBack {
    /// Where the server has not checked them itself: S3 is sent their SHA-256; elsewhere an `ETag` that is their MD5
    /// will do.
    #[default]
    Auto,
    /// Always.
    Always,
}

/// S3, and servers that speak its protocol. What is not set here comes from the usual `AWS_…` variables, then from
/// the profile files.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3Config {
    /// The server's URL, where it is not Amazon's.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// Whether the bucket's name stands in the path rather than in the host; by default where `endpoint` is set.
    pub path_style: Option<bool>,
    /// The profile in `~/.aws/config` and `~/.aws/credentials`.
    pub profile: Option<String>,
    /// The KMS key with which every object is encrypted.
    pub kms_key_id: Option<String>,
    /// Tags of every blob and outcome segment.
    pub tags: BTreeMap<String, String>,
    /// The storage class of blobs.
    pub storage_class: Option<String>,
    /// Object Lock of blobs and outcome segments.
    pub object_lock_mode: Option<ObjectLockMode>,
    /// How long they are locked, from the day they are stored.
    #[serde(deserialize_with = "values::optional_count::<1, 36_500, _>")]
    pub object_lock_days: Option<u64>,
    /// Locks the messages too, which hold personal data and can then not be erased before their time.
    pub object_lock_messages: bool,
}

/// S3's modes of Object Lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectLockMode {
    /// Those with a special permission may lift it.
    Governance,
    /// Nobody may.
    Compliance,
}

/// Google Cloud Storage.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GcsConfig {
    /// The server's URL, where it is not Google's.
    pub endpoint: Option<String>,
}

/// Azure Blob Storage.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AzureConfig {
    /// The storage account.
    pub account: Option<String>,
    /// The server's URL, where it is not Azure's.
    pub endpoint: Option<String>,
}

/// Everything about buckets that can be set.
#[derive(Debug, Clone, Default)]
pub struct BucketSettings {
    /// All kinds.
    pub common: BucketConfig,
    /// S3.
    pub s3: S3Config,
    /// Google Cloud Storage.
    pub gcs: GcsConfig,
    /// Azure.
    pub azure: AzureConfig,
    /// The providers' own variables for credentials (`AWS_…`, `GOOGLE_…`, `AZURE_…`) by lower-case name, as far as they
    /// are to be used.
    pub environment: BTreeMap<String, Secret>,
    /// The AWS profile, if there is one; its keys only where they are to be used.
    pub profile: Option<AwsProfile>,
}

/// What a profile of the AWS tools says.
#[derive(Debug, Clone, Default)]
pub struct AwsProfile {
    /// Its name.
    pub name: String,
    /// The files it stands in.
    pub files: Vec<PathBuf>,
    /// The access key's id.
    pub access_key_id: Option<Secret>,
    /// The secret access key.
    pub secret_access_key: Option<Secret>,
    /// The session's token.
    pub session_token: Option<Secret>,
    /// The region.
    pub region: Option<String>,
    /// The server's URL.
    pub endpoint: Option<String>,
    /// A setting by which the AWS tools would get credentials and jellyjar does not, with its file.
    pub other_way: Option<(&'static str, PathBuf)>,
}
