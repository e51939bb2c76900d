//! The store suite: the library's store on every kind of storage there is to test with, without the program above it.

mod behaviours;
mod labels;
mod refusals;

use std::sync::Arc;

use http::Method;
use jellyjar::clock::Clock;
use jellyjar::digest::Digest;
use jellyjar::model::WriterId;
use jellyjar::store::{Archive, Place, Scratch, Stored, UploadRecord, blob_key, quarantine_key};
use object_store::path::Path as Key;
use tempfile::TempDir;

use crate::support::{Bucket, Mishap, Refusal};
use behaviours::{LARGE_BYTES, Raw, Store, all, bytes};

fn in_bucket(bucket: &Bucket) -> Store {
    let (settings, client, prefix) = (bucket.settings(), bucket.objects(), bucket.prefix().clone());
    let location = bucket.location.clone();
    let open = move |name: &str| {
        let place = Bucket::place_at(&format!("{location}/{name}"), &settings);
        let client: Arc<dyn object_store::ObjectStore> = Arc::<dyn super::support::Objects>::clone(&client);
        (place, Raw::Objects(client, Key::parse(format!("{prefix}/{name}")).unwrap()))
    };
    Store { open: Box::new(open), scratch: TempDir::with_prefix("jellyjar-it-").unwrap() }
}

fn run_on(bucket: Option<Bucket>) {
    if let Some(bucket) = bucket {
        let store = in_bucket(&bucket);
        bucket.gate.block_on(all(&store));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_suite() {
    let folder = TempDir::with_prefix("jellyjar-it-").unwrap();
    let root = folder.path().to_owned();
    let open = move |name: &str| (Place::Folder(root.join(name)), Raw::Folder(root.join(name)));
    all(&Store { open: Box::new(open), scratch: TempDir::with_prefix("jellyjar-it-").unwrap() }).await;
}

#[test]
fn s3s_in_process_keeps_the_suite() {
    run_on(Some(Bucket::s3s()));
}

#[test]
fn gcs_shaped_which_is_not_gcs_keeps_the_suite() {
    run_on(Some(Bucket::gcs_shaped()));
}

#[test]
fn seaweedfs_keeps_the_suite() {
    run_on(Bucket::seaweedfs());
}

#[test]
fn moto_keeps_the_suite() {
    run_on(Bucket::moto());
}

#[test]
fn azurite_keeps_the_suite() {
    run_on(Bucket::azurite());
}

/// A process begins uploads and dies. The next one on its machine aborts them, and nobody else's.
/// `left` is how many the server then lists, if it can.
fn aborts_what_a_crash_left(bucket: &Bucket, left: Option<usize>) {
    let archive_place = bucket.place("crash", &bucket.settings());
    let location = archive_place.to_string();
    let home = TempDir::with_prefix("jellyjar-it-").unwrap();
    let client = bucket.objects();
    let (known, lost, held) = (Digest::of(b"known"), Digest::of(b"lost"), Digest::of(b"held"));
    bucket.gate.block_on(async {
        let archive = Archive::open_or_create(&archive_place, &Clock::system()).await.unwrap();
        let begin = async |key: &str| {
            let path = Key::parse(format!("{}/crash/{key}", bucket.prefix())).unwrap();
            let id = client.create_multipart(&path).await.unwrap();
            client.put_part(&path, &id, 0, bytes(1, 5 << 20).into()).await.unwrap();
            id
        };
        let dead = home.path().join("spool/dead");
        std::fs::create_dir_all(&dead).unwrap();
        let record = |name: &str, key: String, id: Option<String>| {
            let record = UploadRecord { archive: location.clone(), key, id };
            std::fs::write(dead.join(name), serde_json::to_vec(&record).unwrap()).unwrap();
        };
        record("0.upload", blob_key(known), Some(begin(&blob_key(known)).await));
        record("1.upload", blob_key(lost), None);
        begin(&blob_key(lost)).await;
        record("2.upload", quarantine_key(lost), None);
        begin(&quarantine_key(lost)).await;
        // It came to nothing more than its record; and somebody else is at work.
        record("3.upload", blob_key(Digest::of(b"never")), None);
        let others = begin(&blob_key(held)).await;
        assert_eq!(archive.unfinished_uploads().await, left.map(|_| 4));

        let scratch = Scratch::open(home.path(), &WriterId("alive".into())).unwrap();
        assert_eq!(archive.abort_uploads(&scratch).await.unwrap(), left.map_or(1, |left| 4 - left));
        assert_eq!(archive.unfinished_uploads().await, left, "the living one's");
        assert!(!dead.exists(), "what is done with is forgotten");
        assert_eq!(archive.abort_uploads(&scratch).await.unwrap(), 0);
        let path = Key::parse(format!("{}/crash/{}", bucket.prefix(), blob_key(held))).unwrap();
        assert_eq!(client.abort_multipart(&path, &others).await.is_ok(), left != Some(0));
    });
}

#[test]
fn seaweedfs_gets_rid_of_uploads_that_a_crash_left() {
    if let Some(bucket) = Bucket::seaweedfs() {
        aborts_what_a_crash_left(&bucket, Some(1));
    }
}

#[test]
fn moto_gets_rid_of_uploads_that_a_crash_left() {
    if let Some(bucket) = Bucket::moto() {
        // It says that all of them were begun in 2010, and old ones are aborted, whoever began them.
        aborts_what_a_crash_left(&bucket, Some(0));
    }
}

#[test]
fn s3s_in_process_gets_rid_of_uploads_that_a_crash_left() {
    // It has no list of uploads.
    aborts_what_a_crash_left(&Bucket::s3s(), None);
}

/// A list of uploads that is refused for a moment forgets nothing.
#[test]
fn a_record_is_kept_while_nobody_can_say_what_became_of_it() {
    let bucket = Bucket::s3s();
    let place = bucket.place("busy", &bucket.settings());
    let home = TempDir::with_prefix("jellyjar-it-").unwrap();
    let dead = home.path().join("spool/dead");
    std::fs::create_dir_all(&dead).unwrap();
    let record = UploadRecord { archive: place.to_string(), key: blob_key(Digest::of(b"x")), id: None };
    std::fs::write(dead.join("0.upload"), serde_json::to_vec(&record).unwrap()).unwrap();
    bucket.gate.block_on(async {
        let archive = Archive::open_or_create(&place, &Clock::system()).await.unwrap();
        let scratch = Scratch::open(home.path(), &WriterId("alive".into())).unwrap();
        bucket.gate.spoil(Method::GET, "uploads=", 1..=3, Mishap::Refused(Refusal::SlowDown));
        assert_eq!(archive.abort_uploads(&scratch).await.unwrap(), 0);
        assert!(dead.join("0.upload").exists());
        bucket.gate.spoil(Method::GET, "uploads=", 1..=2, Mishap::CutAfter);
        assert_eq!(archive.abort_uploads(&scratch).await.unwrap(), 0);
        assert!(!dead.exists());
    });
}

/// A part that the server refuses ends the upload there and then.
#[test]
fn an_upload_that_fails_is_aborted() {
    let bucket = Bucket::s3s();
    let store = in_bucket(&bucket);
    let content = bytes(1, LARGE_BYTES);
    bucket.gate.block_on(async {
        let (place, _) = (store.open)("fails");
        let archive = Archive::open_or_create(&place, &Clock::system()).await.unwrap();
        bucket.gate.spoil(Method::PUT, "partNumber=2", 1..=1, Mishap::Refused(Refusal::AccessDenied));
        let put = store.spooled(&content).await;
        let refused = archive.put(store.scratch.path(), vec![put]).await.unwrap_err();
        assert!(refused.to_string().contains("s3:PutObject"), "{refused}");
        assert_eq!(bucket.gate.count(&Method::DELETE, "uploadId="), 1);
        let put = store.spooled(&content).await;
        assert_eq!(archive.put(store.scratch.path(), vec![put]).await.unwrap(), [Stored::New]);
        let left = std::fs::read_dir(store.scratch.path()).unwrap().map(|entry| entry.unwrap().path());
        assert!(left.into_iter().all(|path| path.is_dir()), "no record is left");
    });
}

/// Another machine may take an upload for one that a crash has left.
#[test]
fn an_upload_that_somebody_else_aborts_is_begun_again() {
    for (method, key) in [(Method::PUT, "partNumber=2"), (Method::POST, "uploadId=")] {
        let bucket = Bucket::s3s();
        let store = in_bucket(&bucket);
        bucket.gate.block_on(async {
            let (place, _) = (store.open)("again");
            let archive = Archive::open_or_create(&place, &Clock::system()).await.unwrap();
            bucket.gate.spoil(method.clone(), key, 1..=1, Mishap::Refused(Refusal::NoSuchUpload));
            let put = store.spooled(&bytes(1, LARGE_BYTES)).await;
            assert_eq!(archive.put(store.scratch.path(), vec![put]).await.unwrap(), [Stored::New]);
            assert_eq!(bucket.gate.count(&Method::POST, "uploads"), 2);
        });
    }
}
