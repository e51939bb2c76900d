//! The store suite in memory, and with every call of a whole run failing in every way: what the program calls stored is
//! there, and a second run mends the rest.

#[path = "../../../tests/it/store/behaviours.rs"]
mod behaviours;
mod objects;

use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tempfile::TempDir;

use super::{Bucket, StoreError, UploadRecord};
use crate::clock::Clock;
use crate::config::BucketSettings;
use crate::digest::Digest;
use crate::model::{Provider, Stream, WriterId};
use crate::store::{Archive, JournalWriter, Place, Put, Scratch, Stored};
use behaviours::{Raw, Store, bytes, line, read_back};
use objects::{Mishap, Scripted};

#[tokio::test]
async fn memory_keeps_the_suite() {
    let memory = Scripted::default();
    let open = move |name: &str| {
        let bucket = Bucket { settings: large_parts(), ..memory.bucket(Provider::S3, &format!("suite/{name}")) };
        let raw: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&memory.memory);
        (Place::Bucket(Arc::new(bucket)), Raw::Objects(raw, Path::parse(format!("suite/{name}")).unwrap()))
    };
    behaviours::all(&Store { open: Box::new(open), scratch: TempDir::new().unwrap() }).await;
}

fn large_parts() -> BucketSettings {
    let mut settings = BucketSettings::default();
    settings.common.part_bytes = 5 << 20;
    settings
}

/// One machine's view of a scripted archive.
struct Machine {
    scripted: Scripted,
    provider: Provider,
    store: Store,
    runs: AtomicI64,
}

/// The contents of a run: two of them in one request, one in parts.
const SIZES: [usize; 3] = [10, 3_000, 10_000];

impl Machine {
    fn new(provider: Provider) -> Self {
        let open = |_: &str| unreachable!("a run opens its own place");
        let store = Store { open: Box::new(open), scratch: TempDir::new().unwrap() };
        Self { scripted: Scripted::default(), provider, store, runs: AtomicI64::new(0) }
    }

    fn fail(&self, fail: Option<(usize, Mishap)>) {
        let mut script = self.scripted.script.lock().unwrap();
        (script.fail, script.calls) = (fail, Vec::new());
    }

    fn calls(&self) -> Vec<String> {
        self.scripted.script.lock().unwrap().calls.clone()
    }

    /// What is stored, past the script.
    async fn there(&self, key: &str) -> Option<Vec<u8>> {
        let found = self.scripted.memory.get(&Path::from(format!("mail/{key}"))).await.ok()?;
        Some(found.bytes().await.unwrap().to_vec())
    }

    async fn keys(&self) -> Vec<String> {
        let listed: Vec<_> = self.scripted.memory.list(None).try_collect().await.unwrap();
        listed.iter().map(|meta| meta.location.as_ref()["mail/".len()..].to_owned()).collect()
    }

    /// A whole run of the program, as far as the store sees it. What an answer calls stored must be there at once.
    async fn run(&self) -> std::result::Result<(), StoreError> {
        let place = Place::Bucket(Arc::new(self.scripted.bucket(self.provider, "mail")));
        let clock = Clock::fixed("2026-11-22T10:00:00Z".parse().unwrap());
        let archive = Arc::new(Archive::open_or_create(&place, &clock).await?);
        assert!(self.there("jellyjar.json").await.is_some());
        let writer = JournalWriter::new(Arc::clone(&archive), clock.clone())?;
        let scratch = Scratch::open(self.store.scratch.path(), writer.writer_id())?;
        let result = self.work(&archive, &writer, &scratch).await;
        if self.scripted.script.lock().unwrap().fail.is_some() {
            self.every_upload_is_on_record(scratch.path());
        }
        result
    }

    async fn work(
        &self,
        archive: &Archive,
        writer: &JournalWriter,
        scratch: &Scratch,
    ) -> std::result::Result<(), StoreError> {
        archive.abort_uploads(scratch).await?;
        writer.announce().await?;
        let mut puts = Vec::new();
        for (number, size) in SIZES.into_iter().enumerate() {
            let content = bytes(u8::try_from(number).unwrap(), size);
            puts.push(self.store.spooled(&content).await);
            puts.push(Put { quarantine: true, ..self.store.spooled(&content).await });
        }
        let names: Vec<(Digest, bool)> = puts.iter().map(|put| (put.digest, put.quarantine)).collect();
        let stored = archive.put(scratch.path(), puts).await?;
        for ((digest, quarantine), stored) in names.into_iter().zip(stored) {
            assert!(!matches!(stored, Stored::Replaced | Stored::Blocked(_)), "{stored:?}");
            let key = if quarantine { super::quarantine_key(digest) } else { super::blob_key(digest) };
            assert_eq!(self.there(&key).await.map(|bytes| Digest::of(&bytes)), Some(digest), "{stored:?} {key}");
        }
        writer.append_merged(Stream::Messages, Vec::new(), b"").await?;
        for number in 0..2 {
            let (key, digest) = writer.append(Stream::Outcomes, &[line(number, writer.writer_id())]).await?;
            assert_eq!(self.there(&key).await.map(|bytes| Digest::of(&bytes)), Some(digest), "{key}");
        }
        // A lock that could not be given back ends by itself.
        let hours = self.runs.fetch_add(1, Ordering::Relaxed);
        let clock = Clock::fixed("2026-11-22T10:00:00Z".parse().unwrap());
        clock.advance_ms(2 * 3_600_000 * hours);
        let lock = archive.lock("compact", writer.writer_id(), &clock).await?;
        assert!(self.there("lock.json").await.is_some());
        lock.release(archive).await?;
        assert!(self.there("lock.json").await.is_none());
        assert!(!archive.segments(Stream::Outcomes).await?.is_empty());
        writer.heartbeat(true).await?;
        for key in archive.segments(Stream::Outcomes).await? {
            let whole = archive.read_segment(&key).await?.expect("it was just listed");
            assert!(whole.ends_with(b"\n"), "{key}");
        }
        Ok(())
    }

    /// Whatever is unfinished is written down, with its id or with its key.
    fn every_upload_is_on_record(&self, scratch: &FilePath) {
        let records: Vec<UploadRecord> = std::fs::read_dir(scratch)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "upload"))
            .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
            .collect();
        for (id, path) in &self.scripted.script.lock().unwrap().uploads {
            let is_on_record = |record: &UploadRecord| match &record.id {
                Some(known) => known == id,
                None => format!("mail/{}", record.key) == path.as_ref(),
            };
            assert!(records.iter().any(is_on_record), "nobody knows of the upload {id} to {path}: {records:?}");
        }
    }

    /// Everything is right, and nothing is there twice or left over.
    async fn is_right(&self) {
        let keys = self.keys().await;
        let digests: Vec<Digest> =
            SIZES.into_iter().zip(0..).map(|(size, number)| Digest::of(&bytes(number, size))).collect();
        for folder in ["blobs/", "quarantine/"] {
            let mut found: Vec<&str> =
                keys.iter().filter(|key| key.starts_with(folder)).map(|key| &key[key.len() - 64..]).collect();
            found.sort_unstable();
            let mut expected: Vec<String> = digests.iter().map(Digest::to_hex).collect();
            expected.sort_unstable();
            assert_eq!(found, expected);
        }
        for key in keys.iter().filter(|key| key.starts_with("blobs/") || key.starts_with("quarantine/")) {
            let bytes = self.there(key).await.unwrap();
            assert!(key.ends_with(&Digest::of(&bytes).to_hex()), "{key}");
        }
        assert!(!keys.iter().any(|key| key == "lock.json"));
        let place = Place::Bucket(Arc::new(self.scripted.bucket(self.provider, "mail")));
        let archive = Archive::open(&place).await.unwrap();
        let segments = archive.segments(Stream::Outcomes).await.unwrap();
        let mut lines = Vec::new();
        for key in &segments {
            lines.extend(read_back(&archive, key).await.0);
        }
        assert!(lines.contains(&0) && lines.contains(&1), "{lines:?}");
        let scripted = self.scripted.script.lock().unwrap();
        // Those whose id nobody has learned wait for a server that lists them.
        assert!(scripted.uploads.len() <= 1, "{:?}", scripted.uploads);
    }
}

#[tokio::test]
async fn every_call_fails_once_in_every_way_and_a_second_run_mends_it() {
    for provider in [Provider::S3, Provider::Azure] {
        let smooth = Machine::new(provider);
        smooth.run().await.unwrap();
        let calls = smooth.calls();
        smooth.is_right().await;
        assert!(calls.len() > 30 && smooth.scripted.script.lock().unwrap().uploads.is_empty(), "{calls:#?}");
        let mishaps = [Mishap::LostBefore, Mishap::LostAfter, Mishap::Conflict, Mishap::Denied];
        let trials = calls.iter().enumerate().flat_map(|at| mishaps.map(|mishap| (at, mishap)));
        let trial = |((number, call), mishap): ((usize, &String), Mishap)| {
            let call = call.clone();
            async move {
                let machine = Machine::new(provider);
                machine.fail(Some((number, mishap)));
                let ended = machine.run().await;
                let told = format!("{provider:?}: {mishap:?} at call {number}, {call}: {ended:?}");
                // What is stored under a condition survives all but a refusal.
                if call.starts_with("create ") && mishap != Mishap::Denied {
                    assert!(ended.is_ok(), "{told}");
                }
                if mishap == Mishap::Denied && !call.starts_with("abort ") && !call.starts_with("head ") {
                    assert!(ended.is_err(), "{told}");
                }
                machine.fail(None);
                let again = machine.run().await;
                assert!(again.is_ok(), "{told}, then {again:?}");
                machine.is_right().await;
                let left = machine.scripted.script.lock().unwrap().uploads.len();
                assert!(left == 0 || call.starts_with("begin ") && mishap == Mishap::LostAfter, "{told}: {left}");
            }
            .boxed()
        };
        futures::stream::iter(trials.map(trial)).buffer_unordered(16).collect::<Vec<()>>().await;
    }
}

#[tokio::test]
async fn right_bytes_take_the_place_of_damaged_ones_though_every_call_may_fail() {
    let mut number = 0;
    loop {
        let mut reached = false;
        for mishap in [Mishap::LostBefore, Mishap::LostAfter, Mishap::Conflict, Mishap::Denied] {
            let machine = Machine::new(Provider::S3);
            machine.run().await.unwrap();
            for (size, content) in SIZES.into_iter().zip(0..) {
                let digest = Digest::of(&bytes(content, size));
                let path = Path::from(format!("mail/{}", super::blob_key(digest)));
                machine.scripted.memory.put(&path, vec![7; size].into()).await.unwrap();
            }
            machine.fail(Some((number, mishap)));
            let place = Place::Bucket(Arc::new(machine.scripted.bucket(Provider::S3, "mail")));
            for _ in 0..2 {
                let Ok(archive) = Archive::open(&place).await else { continue };
                let scratch = Scratch::open(machine.store.scratch.path(), &WriterId("mender".into())).unwrap();
                for (size, content) in SIZES.into_iter().zip(0..) {
                    let put = machine.store.spooled(&bytes(content, size)).await;
                    let (digest, key) = (put.digest, super::blob_key(put.digest));
                    if archive.put(scratch.path(), vec![put]).await.is_ok() {
                        let there = machine.there(&key).await.unwrap();
                        assert_eq!(Digest::of(&there), digest, "{mishap:?} at {number}: {:?}", machine.calls());
                    }
                }
                machine.every_upload_is_on_record(scratch.path());
            }
            machine.is_right().await;
            reached |= machine.calls().len() / 2 > number;
        }
        if !reached {
            break;
        }
        number += 1;
    }
    assert!(number > 8, "only {number} calls");
}

#[tokio::test]
async fn a_server_that_knows_no_condition_is_found_out_and_one_that_stumbles_is_not() {
    let announce = async |scripted: &Scripted| {
        let bucket = Arc::new(scripted.bucket(Provider::S3, "mail"));
        let archive = Archive::open_or_create(&Place::Bucket(Arc::clone(&bucket)), &Clock::system()).await.unwrap();
        let started = scripted.script.lock().unwrap().calls.len();
        JournalWriter::new(Arc::new(archive), Clock::system()).unwrap().announce().await.unwrap();
        (bucket.is_conditional(), started)
    };
    let (known, started) = announce(&Scripted::default()).await;
    assert_eq!(known, Some(true));
    for at in 0..2 {
        for (mishap, expected) in [
            (Mishap::LostBefore, [Some(true), None]),
            (Mishap::LostAfter, [Some(true), Some(true)]),
            (Mishap::Conflict, [Some(true), Some(true)]),
        ] {
            let scripted = Scripted::default();
            scripted.script.lock().unwrap().fail = Some((started + at, mishap));
            assert_eq!(announce(&scripted).await.0, expected[at], "{mishap:?} at {at}");
        }
    }
}

#[tokio::test]
async fn the_record_of_a_writer_stays_where_it_may_have_written_or_goes_on() {
    let scripted = Scripted::default();
    let place = Place::Bucket(Arc::new(scripted.bucket(Provider::S3, "mail")));
    let archive = Arc::new(Archive::open_or_create(&place, &Clock::system()).await.unwrap());
    let earlier = JournalWriter::new(Arc::clone(&archive), Clock::system()).unwrap();
    earlier.announce().await.unwrap();
    let record = Path::from(format!("mail/writers/{}.json", earlier.writer_id()));
    let is_there = async || scripted.memory.get(&record).await.is_ok();
    let later = JournalWriter::after(&earlier, archive, Clock::system()).await.unwrap();
    earlier.heartbeat(true).await.unwrap();
    assert!(is_there().await);
    later.heartbeat(true).await.unwrap();
    assert!(!is_there().await);
}

#[test]
fn what_lies_beside_a_prefix_is_not_below_it() {
    let key =
        |prefix: &str, path: &str| Scripted::default().bucket(Provider::S3, prefix).key(&Path::parse(path).unwrap());
    assert_eq!(key("mail", "mail/jellyjar.json").as_deref(), Some("jellyjar.json"));
    assert_eq!(key("a/b c", "a/b c/blobs/x").as_deref(), Some("blobs/x"));
    assert_eq!(key("", "blobs/x").as_deref(), Some("blobs/x"));
    // An empty object named `mail/` is how consoles make a folder.
    assert_eq!(key("mail", "mail/"), None);
    assert_eq!(key("mail", "mail2/jellyjar.json"), None);
    let bucket = Scripted::default().bucket(Provider::S3, "team @1");
    assert_eq!(bucket.path("blobs/x").as_ref(), "team @1/blobs/x");
}
