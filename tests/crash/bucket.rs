//! Kills at random times, with the archive in a bucket of a SeaweedFS.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer};
use object_store::client::{HttpClient, HttpConnector as _, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore as _, ObjectStoreExt as _};

use super::Options;
use super::files::remove_folder;
use super::kills::{DEFAULT, live};
use super::life::{Totals, check_again};
use super::world::{Size, World};

/// The dump of every life.
const SIZE: Size = Size { messages: 60, per_message: 4, contents: 160, large: 8, huge: 4 };
/// The most deaths of one life: there are lives that go on to the empty machine, also on a slow one.
const DEATHS: u64 = 10;
/// Objects that are copied at once.
const COPIES: usize = 16;
const BUCKET: &str = "test";
const REGION: &str = "us-east-1";

/// A bucket, in which each life has a prefix of its own.
#[derive(Debug)]
pub(crate) struct Bucket {
    endpoint: String,
    access_key_id: String,
    secret_access_key: String,
    store: AmazonS3,
    life: Cell<u64>,
    /// Uploads in parts that kills have cut off.
    cut_off: Cell<usize>,
    /// The tags (`ETag`) of what is copied, by key.
    copied: RefCell<BTreeMap<String, Option<String>>>,
}

impl Bucket {
    /// The one that tests/servers/run tells of.
    #[expect(clippy::disallowed_methods, reason = "the environment of the tests, not the program's")]
    pub(crate) fn from_environment() -> Result<Option<Self>> {
        let variable = |name: &str| std::env::var(name);
        let Ok(endpoint) = variable("JELLYJAR_TEST_S3_SEAWEEDFS") else { return Ok(None) };
        let access_key_id = variable("JELLYJAR_TEST_S3_ACCESS_KEY_ID")?;
        let secret_access_key = variable("JELLYJAR_TEST_S3_SECRET_ACCESS_KEY")?;
        let store = AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_region(REGION)
            .with_endpoint(&endpoint)
            .with_access_key_id(&access_key_id)
            .with_secret_access_key(&secret_access_key)
            .with_allow_http(true)
            .build()?;
        let (life, cut_off, copied) = (Cell::new(0), Cell::new(0), RefCell::default());
        Ok(Some(Self { endpoint, access_key_id, secret_access_key, store, life, cut_off, copied }))
    }

    /// Begins a life.
    pub(crate) fn begin(&self) {
        self.life.set(self.life.get() + 1);
        self.copied.borrow_mut().clear();
    }

    fn prefix(&self) -> String {
        format!("crash-{}/{}", std::process::id(), self.life.get())
    }

    /// The place of the archive, as `--archive` takes it.
    pub(crate) fn location(&self) -> String {
        format!("s3://{BUCKET}/{}", self.prefix())
    }

    /// What the program needs to reach it.
    pub(crate) fn environment(&self) -> [(&'static str, &str); 4] {
        [
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", &self.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_access_key),
        ]
    }

    /// Copies the archive to a folder, so that the oracle can read it: all of it `anew`, or what has changed.
    #[expect(clippy::future_not_send, reason = "a life is lived on one thread")]
    pub(crate) async fn copy_to(&self, folder: &Path, anew: bool) -> Result<()> {
        let mut copied = self.copied.take();
        if anew {
            remove_folder(folder)?;
            copied.clear();
        } else {
            self.cut_off.set(self.cut_off.get() + self.unfinished_uploads().await?);
        }
        fs::create_dir_all(folder)?;
        let prefix = self.prefix();
        let mut there = BTreeMap::new();
        let mut listed = self.store.list(Some(&Key::from(prefix.as_str())));
        while let Some(object) = listed.try_next().await? {
            let key =
                object.location.as_ref().strip_prefix(&format!("{prefix}/")).context("a key elsewhere")?.to_owned();
            there.insert(key, object.e_tag);
        }
        for gone in copied.keys().filter(|key| !there.contains_key(*key)) {
            fs::remove_file(folder.join(gone))?;
        }
        let copy = async |key: &str| {
            let bytes = self.store.get(&Key::from(format!("{prefix}/{key}"))).await?.bytes().await?;
            let path = folder.join(key);
            fs::create_dir_all(path.parent().context("a key without a folder")?)?;
            anyhow::Ok(fs::write(path, bytes)?)
        };
        let changed = there.iter().filter(|(key, tag)| copied.get(*key) != Some(*tag)).map(|(key, _)| copy(key));
        futures::stream::iter(changed).buffer_unordered(COPIES).try_collect::<()>().await?;
        self.copied.replace(there);
        Ok(())
    }

    /// The server's list of this life's uploads that were begun and never finished (`ListMultipartUploads`).
    #[expect(clippy::future_not_send, reason = "a life is lived on one thread")]
    async fn unfinished_uploads(&self) -> Result<usize> {
        let client: HttpClient = ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true))?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        let prefix = self.prefix().replace('/', "%2F");
        *request.uri_mut() = format!("{}/{BUCKET}/?prefix={prefix}&uploads=", self.endpoint).parse()?;
        let credential = self.store.credentials().get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", REGION).try_authorize(&mut request, None)?;
        let response = client.execute(request).await?;
        let status = response.status();
        let text = String::from_utf8(response.into_body().bytes().await?.to_vec())?;
        if !status.is_success() || !text.contains("<ListMultipartUploadsResult") {
            bail!("the server lists no uploads: {status} {text}");
        }
        Ok(text.matches("<Upload>").count())
    }
}

/// Kills half as many processes as in a folder, and gives what was counted, with the uploads in parts that were cut off;
/// `None` without a bucket.
pub(crate) fn run(options: &Options) -> Result<Option<(Totals, usize)>> {
    let Some(bucket) = Bucket::from_environment()? else {
        if std::env::var_os("CI").is_some() {
            bail!("JELLYJAR_TEST_S3_SEAWEEDFS is not set: run the tests by tests/run");
        }
        return Ok(None);
    };
    let mut world = World::start(&options.dir.join("bucket"), &options.program, options.seed, SIZE)?;
    world.bucket = Some(bucket);
    let mut totals = Totals::default();
    let kills = options.kills.unwrap_or(DEFAULT) / 2;
    for life in 0.. {
        if totals.kills >= kills {
            break;
        }
        live(&world, options.seed, life, DEATHS.min(kills - totals.kills), &mut totals)
            .and_then(|()| move_house(&world))
            .with_context(|| {
                format!("seed {}, life {life} over a bucket; copied to {}", options.seed, world.archive().display())
            })?;
    }
    Ok(Some((totals, world.bucket.map_or(0, |bucket| bucket.cut_off.get()))))
}

/// What a life over a bucket leaves: no upload in parts, and all that an empty machine needs.
pub(crate) fn move_house(world: &World) -> Result<()> {
    let bucket = world.bucket.as_ref().context("no bucket")?;
    let left = world.runtime.block_on(bucket.unfinished_uploads())?;
    if left > 0 {
        bail!("{left} uploads in parts were left behind");
    }
    remove_folder(&world.home())?;
    for command in ["rebuild", "verify"] {
        let ran = world.command(&[command])?;
        if !ran.status.success() {
            bail!("{command} on an empty machine ended with {}: {}{}", ran.status, ran.stdout, ran.stderr);
        }
    }
    check_again(world)
}
