//! A test's bucket: a prefix of its own in an object store, behind a gate, and what the program needs to reach it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::TryStreamExt as _;
use jellyjar::clock::Clock;
use jellyjar::config::{BucketSettings, HttpConfig};
use jellyjar::model::Location;
use jellyjar::secret::Secret;
use jellyjar::store::Place;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;

use super::Ledger;
use super::gate::{Behind, Gate};

/// The bucket, or container, of all servers.
const BUCKET: &str = "test";
const REGION: &str = "us-east-1";
/// What an S3 of this process lets in.
const ACCESS_KEY_ID: &str = "in-process";
const SECRET_ACCESS_KEY: &str = "in-process-secret-canary-91c2";

/// What the clients can do.
pub(crate) trait Objects: ObjectStore + MultipartStore {}
impl<T: ObjectStore + MultipartStore> Objects for T {}

/// See the module.
pub(crate) struct Bucket {
    /// What can go wrong on the way to it.
    pub(crate) gate: Gate,
    /// The place as `--archive` takes it.
    pub(crate) location: String,
    environment: Vec<(&'static str, String)>,
    store: Arc<dyn Objects>,
    prefix: Key,
    // What an S3 of this process keeps; removed last.
    _folder: Option<TempDir>,
}

impl Bucket {
    /// In an S3 of this process, which checks signatures and checksums.
    pub(crate) fn s3s() -> Self {
        let (folder, mut builder) = in_process();
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        Self::s3(Behind::S3(builder.build()), ACCESS_KEY_ID, SECRET_ACCESS_KEY, Some(folder))
    }

    /// In a stand-in for GCS of this process: protocol-shaped, not GCS.
    pub(crate) fn gcs_shaped() -> Self {
        let (folder, builder) = in_process();
        let gate = Gate::before(Behind::GcsShaped(builder.build()));
        let account = format!(
            "{{\"gcs_base_url\": \"{}\", \"disable_oauth\": true, \"client_email\": \"\", \"private_key\": \"\", \
             \"private_key_id\": \"\"}}",
            gate.url()
        );
        let store = GoogleCloudStorageBuilder::new()
            .with_bucket_name(BUCKET)
            .with_service_account_key(&account)
            .with_client_options(object_store::ClientOptions::new().with_allow_http(true))
            .build()
            .unwrap();
        let environment = vec![("GOOGLE_SERVICE_ACCOUNT_KEY", account), ("GOOGLE_BASE_URL", gate.url())];
        Self::new(gate, "gs", environment, Arc::new(store), Some(folder))
    }

    /// In the SeaweedFS that runs beside the tests.
    pub(crate) fn seaweedfs() -> Option<Self> {
        Self::s3_beside("JELLYJAR_TEST_S3_SEAWEEDFS")
    }

    /// In the moto that runs beside the tests.
    pub(crate) fn moto() -> Option<Self> {
        Self::s3_beside("JELLYJAR_TEST_S3_MOTO")
    }

    /// In the Azurite that runs beside the tests.
    pub(crate) fn azurite() -> Option<Self> {
        let (address, path) = beside("JELLYJAR_TEST_AZURITE")?;
        let (account, key) = (variable("JELLYJAR_TEST_AZURE_ACCOUNT")?, variable("JELLYJAR_TEST_AZURE_KEY")?);
        let gate = Gate::before(Behind::Server(address));
        let endpoint = format!("{}/{path}", gate.url());
        let store = MicrosoftAzureBuilder::new()
            .with_container_name(BUCKET)
            .with_account(&account)
            .with_access_key(&key)
            .with_endpoint(endpoint.clone())
            .with_allow_http(true)
            .build()
            .unwrap();
        let environment = vec![
            ("AZURE_STORAGE_ACCOUNT_NAME", account),
            ("AZURE_STORAGE_ACCOUNT_KEY", key),
            ("AZURE_STORAGE_ENDPOINT", endpoint),
        ];
        Some(Self::new(gate, "az", environment, Arc::new(store), None))
    }

    fn s3_beside(name: &str) -> Option<Self> {
        let (address, _) = beside(name)?;
        let id = variable("JELLYJAR_TEST_S3_ACCESS_KEY_ID")?;
        let secret = variable("JELLYJAR_TEST_S3_SECRET_ACCESS_KEY")?;
        Some(Self::s3(Behind::Server(address), &id, &secret, None))
    }

    fn s3(behind: Behind, id: &str, secret: &str, folder: Option<TempDir>) -> Self {
        let gate = Gate::before(behind);
        let store = AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_region(REGION)
            .with_endpoint(gate.url())
            .with_access_key_id(id)
            .with_secret_access_key(secret)
            .with_allow_http(true)
            .build()
            .unwrap();
        let environment = vec![
            ("AWS_ACCESS_KEY_ID", id.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ENDPOINT_URL", gate.url()),
        ];
        Self::new(gate, "s3", environment, Arc::new(store), folder)
    }

    fn new(
        gate: Gate,
        scheme: &str,
        environment: Vec<(&'static str, String)>,
        store: Arc<dyn Objects>,
        folder: Option<TempDir>,
    ) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("it-{}/{number}", std::process::id());
        let location = format!("{scheme}://{BUCKET}/{prefix}");
        Self { gate, location, environment, store, prefix: prefix.into(), _folder: folder }
    }

    /// Lets a program reach it.
    pub(crate) fn open_to(&self, command: &mut Command) {
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    /// A variable that it is reached by.
    fn value(&self, name: &str) -> Option<String> {
        self.environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    /// The same as settings, for the library without the program.
    pub(crate) fn settings(&self) -> BucketSettings {
        let mut settings = BucketSettings::default();
        settings.common.part_bytes = 5 << 20;
        settings.s3.region = self.value("AWS_REGION");
        settings.s3.endpoint = self.value("AWS_ENDPOINT_URL");
        settings.gcs.endpoint = self.value("GOOGLE_BASE_URL");
        settings.azure.account = self.value("AZURE_STORAGE_ACCOUNT_NAME");
        settings.azure.endpoint = self.value("AZURE_STORAGE_ENDPOINT");
        let variables = self.environment.iter().map(|(name, value)| (name.to_lowercase(), Secret::new(value)));
        settings.environment = variables.collect();
        settings
    }

    /// A place below its prefix, opened with these settings by the library itself.
    pub(crate) fn place(&self, name: &str, settings: &BucketSettings) -> Place {
        Self::place_at(&format!("{}/{name}", self.location), settings)
    }

    /// Any place.
    pub(crate) fn place_at(location: &str, settings: &BucketSettings) -> Place {
        let location: Location = location.parse().unwrap();
        Place::of(&location, settings, &HttpConfig::default(), &Clock::system()).unwrap()
    }

    /// The client behind the program's back.
    pub(crate) fn objects(&self) -> Arc<dyn Objects> {
        Arc::clone(&self.store)
    }

    /// Its prefix in the store.
    pub(crate) fn prefix(&self) -> &Key {
        &self.prefix
    }

    /// The values of its variables that nobody may print.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        let secret = |name: &str| name.contains("SECRET") || name.ends_with("_KEY");
        self.environment.iter().filter(move |(name, _)| secret(name)).map(|(_, value)| value.as_str())
    }

    /// All keys below its prefix, without it, sorted.
    pub(crate) fn keys(&self) -> Vec<String> {
        let listed = self.gate.block_on(self.store.list(Some(&self.prefix)).try_collect::<Vec<_>>()).unwrap();
        let mut keys: Vec<String> = listed.iter().map(|one| self.without_prefix(&one.location)).collect();
        keys.sort_unstable();
        keys
    }

    fn without_prefix(&self, key: &Key) -> String {
        key.as_ref().strip_prefix(self.prefix.as_ref()).unwrap().trim_start_matches('/').to_owned()
    }

    fn key(&self, name: &str) -> Key {
        Key::from(format!("{}/{name}", self.prefix))
    }

    /// The bytes of an object.
    pub(crate) fn get(&self, name: &str) -> Vec<u8> {
        let key = self.key(name);
        self.gate.block_on(async { self.store.get(&key).await.unwrap().bytes().await.unwrap().to_vec() })
    }

    /// Writes an object over what is there.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.gate.block_on(self.store.put(&self.key(name), PutPayload::from(bytes))).unwrap();
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, name: &str) {
        self.gate.block_on(self.store.delete(&self.key(name))).unwrap();
    }

    /// What its objects say, which must be sound. They are copied into a folder: the keys are a folder's names.
    pub(crate) fn ledger(&self) -> Ledger {
        let folder = TempDir::with_prefix("jellyjar-it-").unwrap();
        self.copy_to(folder.path());
        Ledger::sound(folder.path())
    }

    fn copy_to(&self, folder: &Path) {
        for key in self.keys() {
            let path = folder.join(&key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, self.get(&key)).unwrap();
        }
    }
}

/// An S3 of this process with one empty bucket, and the folder that it keeps it in.
fn in_process() -> (TempDir, S3ServiceBuilder) {
    let folder = TempDir::with_prefix("jellyjar-it-").unwrap();
    std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
    let builder = S3ServiceBuilder::new(FileSystem::new(folder.path()).unwrap());
    (folder, builder)
}

/// The address and the path of a server that runs beside the tests, as tests/servers/run tells it.
fn beside(name: &str) -> Option<(SocketAddr, String)> {
    let url = variable(name)?;
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap_or((&url["http://".len()..], ""));
    Some((address.parse().unwrap(), path.to_owned()))
}

/// A variable of tests/servers/run. Without it a test is skipped, but not where everything must be tested.
#[expect(clippy::disallowed_methods, reason = "the environment of the tests, not the program's")]
pub(super) fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{name} is not set: run the tests by tests/run");
        let _ = writeln!(std::io::stderr(), "skipped, as {name} is not set: run the tests by tests/run");
    }
    value
}
