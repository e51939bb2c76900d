//! Tags, storage class, encryption and Object Lock: they arrive, signed, on what they are for and on nothing else.

use std::sync::Arc;

use http::Method;
use jellyjar::clock::Clock;
use jellyjar::config::ObjectLockMode;
use jellyjar::model::Stream;
use jellyjar::store::{Archive, JournalWriter, Put, Stored};

use super::behaviours::{LARGE_BYTES, bytes, line};
use super::in_bucket;
use crate::support::Bucket;

#[test]
fn labels_arrive_signed_on_what_they_are_for_and_on_nothing_else() {
    for lock_messages in [false, true] {
        let bucket = Bucket::s3s();
        let mut settings = bucket.settings();
        settings.s3.tags.insert("team".into(), "a b&c".into());
        settings.s3.storage_class = Some("REDUCED_REDUNDANCY".into());
        settings.s3.kms_key_id = Some("alias/archive".into());
        settings.s3.object_lock_mode = Some(ObjectLockMode::Governance);
        settings.s3.object_lock_days = Some(30);
        settings.s3.object_lock_messages = lock_messages;
        let (place, store) = (bucket.place("labels", &settings), in_bucket(&bucket));
        bucket.gate.block_on(async {
            let archive = Arc::new(Archive::open_or_create(&place, &Clock::system()).await.unwrap());
            let writer = JournalWriter::new(Arc::clone(&archive), Clock::system()).unwrap();
            writer.announce().await.unwrap();
            let (small, large) = (bytes(1, 500), bytes(2, LARGE_BYTES));
            let batch = vec![
                store.spooled(&small).await,
                store.spooled(&large).await,
                Put { quarantine: true, ..store.spooled(&small).await },
            ];
            archive.put(store.scratch.path(), batch).await.unwrap();
            // What is accepted becomes a blob like any other, large or small.
            let (doubtful, more) = (bytes(3, 600), bytes(4, LARGE_BYTES));
            let doubtful = [store.spooled(&doubtful).await, store.spooled(&more).await];
            let digests = doubtful.each_ref().map(|put| put.digest);
            let doubtful = doubtful.into_iter().map(|put| Put { quarantine: true, ..put }).collect();
            archive.put(store.scratch.path(), doubtful).await.unwrap();
            for digest in digests {
                assert_eq!(archive.accept_quarantined(digest).await.unwrap(), Some(Stored::New));
                assert_eq!(archive.blob_digest(digest).await.unwrap().unwrap().0, digest);
            }
            writer.append_merged(Stream::Messages, Vec::new(), b"").await.unwrap();
            writer.append(Stream::Outcomes, &[line(1, writer.writer_id())]).await.unwrap();
            writer.heartbeat(true).await.unwrap();
        });

        let mut kinds = std::collections::BTreeSet::new();
        let passed = bucket.gate.passed();
        let reads = [Method::GET, Method::HEAD];
        for request in passed.iter().filter(|one| !reads.contains(&one.method)) {
            let is_part = request.path.contains("partNumber=");
            let completes = request.method == Method::POST && request.path.contains("uploadId=");
            let kind = match request.path.split('/').nth(5) {
                _ if is_part => "part",
                _ if completes => "completion",
                Some(kind) => kind,
                // The bucket itself: what was accepted leaves quarantine.
                None => continue,
            };
            kinds.insert((request.method.clone(), kind));
            let is = |kinds: &[&str]| kinds.contains(&kind);
            let until = request.signed("x-amz-object-lock-retain-until-date");
            let mode = request.signed("x-amz-object-lock-mode");
            if is(&["blobs", "outcomes"]) || lock_messages && is(&["messages"]) {
                assert_eq!(mode, Some("GOVERNANCE"), "{request:?}");
                let until: jiff::Timestamp = until.unwrap().parse().unwrap();
                let days = until.duration_since(Clock::system().now()).as_hours();
                assert!((30 * 24 - 1..=31 * 24).contains(&days), "{request:?}");
            } else {
                assert_eq!((mode, until), (None, None), "{request:?}");
            }
            let tags = is(&["blobs", "outcomes"]).then_some("team=a+b%26c");
            assert_eq!(request.signed("x-amz-tagging"), tags, "{request:?}");
            let class = is(&["blobs"]).then_some("REDUCED_REDUNDANCY");
            assert_eq!(request.signed("x-amz-storage-class"), class, "{request:?}");
            let key = (!is_part && !completes).then_some("alias/archive");
            assert_eq!(request.signed("x-amz-server-side-encryption-aws-kms-key-id"), key, "{request:?}");
            if request.method == Method::PUT {
                assert!(request.signed("x-amz-checksum-sha256").is_some(), "{request:?}");
            }
        }
        let expected = [
            (Method::POST, "blobs"),
            (Method::POST, "completion"),
            (Method::POST, "quarantine"),
            (Method::PUT, "blobs"),
            (Method::PUT, "jellyjar.json"),
            (Method::PUT, "messages"),
            (Method::PUT, "outcomes"),
            (Method::PUT, "part"),
            (Method::PUT, "quarantine"),
            (Method::PUT, "writers"),
        ];
        for one in &expected {
            assert!(kinds.contains(one), "no {one:?} among {kinds:?}");
        }
        assert_eq!(kinds.len(), expected.len(), "{kinds:?}");
    }
}
