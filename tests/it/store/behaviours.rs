//! What every kind of store does: one suite for all of them. It also runs inside the library, where a store is made
//! that no configuration can name.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::join_all;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use jellyjar::clock::Clock;
use jellyjar::config::SpoolConfig;
use jellyjar::digest::Digest;
use jellyjar::model::{OutcomeKind, OutcomeLine, Stream, WriterId};
use jellyjar::spool::{Spool, SpoolMemory};
use jellyjar::store::{
    Archive, JournalWriter, Place, Put, SegmentReader, StoreError, Stored, blob_key, quarantine_key,
};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tempfile::TempDir;

/// Larger than one part of an upload, which these tests set to 5 MiB, and not a multiple of it.
pub(crate) const LARGE_BYTES: usize = (6 << 20) + 4_321;

/// Makes a place, and the other way to it.
type Open = Box<dyn Fn(&str) -> (Place, Raw) + Send + Sync>;

/// A kind of store, in which places are made by name.
pub(crate) struct Store {
    pub(crate) open: Open,
    pub(crate) scratch: TempDir,
}

/// The way to a place's files that is not the program's.
#[allow(dead_code, reason = "inside the library only buckets are tried")]
pub(crate) enum Raw {
    Folder(PathBuf),
    Objects(Arc<dyn ObjectStore>, Key),
}

impl Raw {
    pub(crate) async fn put(&self, key: &str, bytes: &[u8]) {
        match self {
            Self::Folder(root) => {
                let path = root.join(key);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
            Self::Objects(store, prefix) => {
                let key = Key::parse(format!("{prefix}/{key}")).unwrap();
                store.put(&key, bytes.to_vec().into()).await.unwrap();
            }
        }
    }

    /// All keys, sorted, but for what is not part of an archive.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = match self {
            Self::Folder(root) => {
                let mut found = Vec::new();
                let mut folders = vec![root.clone()];
                while let Some(folder) = folders.pop() {
                    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                        if entry.is_dir() {
                            folders.push(entry);
                        } else {
                            found.push(entry.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
                        }
                    }
                }
                found.retain(|key| !key.starts_with(".jellyjar/"));
                found
            }
            Self::Objects(store, prefix) => {
                let listed: Vec<_> = store.list(Some(prefix)).try_collect().await.unwrap();
                let key = |key: &Key| key.as_ref().strip_prefix(prefix.as_ref()).unwrap()[1..].to_owned();
                listed.iter().map(|meta| key(&meta.location)).collect()
            }
        };
        keys.sort_unstable();
        keys
    }
}

impl Store {
    async fn archive(&self, name: &str) -> (Archive, Raw) {
        let (place, raw) = (self.open)(name);
        (Archive::open_or_create(&place, &Clock::system()).await.unwrap(), raw)
    }

    /// Bytes as a download leaves them: in memory while they are small, else in a file.
    pub(crate) async fn spooled(&self, bytes: &[u8]) -> Put {
        let config = SpoolConfig { memory_threshold_bytes: 1_000, min_free_bytes: 0, ..SpoolConfig::default() };
        let folder = TempDir::new_in(self.scratch.path()).unwrap().keep();
        let spool = Spool::open(folder, &config, SpoolMemory::of(&config)).unwrap();
        let reservation = spool.reserve(Some(bytes.len() as u64)).await.unwrap();
        let mut writer = spool.writer(reservation, Some(bytes.len() as u64), &[]);
        writer.write(bytes).await.unwrap();
        let (bytes, digest, size_bytes, _) = writer.finish().await.unwrap().into_parts();
        Put { digest, size_bytes, bytes, quarantine: false }
    }

    async fn put(&self, archive: &Archive, bytes: &[u8], quarantine: bool) -> Stored {
        let put = Put { quarantine, ..self.spooled(bytes).await };
        // As every process has its own.
        let scratch = TempDir::new_in(self.scratch.path()).unwrap();
        let stored = archive.put(scratch.path(), vec![put]).await.unwrap();
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "no record of an upload is left");
        stored.into_iter().next().unwrap()
    }
}

/// Bytes of this length that no other number gives.
pub(crate) fn bytes(number: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap() ^ number).collect()
}

/// An outcome line, told apart by its number.
pub(crate) fn line(number: u64, writer_id: &WriterId) -> OutcomeLine {
    OutcomeLine {
        v: 1,
        kind: OutcomeKind::Failed,
        team: "default".parse().unwrap(),
        attachment_id: format!("attachment-{number}").try_into().unwrap(),
        generation: number,
        writer_id: writer_id.clone(),
        at: "2026-11-22T10:00:00Z".parse().unwrap(),
        sha256: None,
        size_bytes: None,
        sniffed_type: None,
        rule: None,
        reason: Some("gone".into()),
        extra: serde_json::Map::new(),
    }
}

/// The numbers of a segment's lines, and its digest.
pub(crate) async fn read_back(archive: &Archive, key: &str) -> (Vec<u64>, Digest) {
    let mut reader = SegmentReader::open(archive, key).await.unwrap().unwrap();
    let mut found = Vec::new();
    while let Some(line) = reader.next_line::<OutcomeLine>().await.unwrap() {
        found.push(line.generation);
    }
    (found, reader.finish())
}

/// All of it, one after the other. Every behaviour has places of its own.
pub(crate) async fn all(store: &Store) {
    of_sixteen_that_make_an_archive_one_does(store).await;
    a_place_that_is_no_archive_is_told(store).await;
    of_sixteen_that_store_one_content_one_does(store).await;
    bytes_large_and_small_are_stored_once_and_mended(store).await;
    quarantined_bytes_are_kept_apart_until_accepted(store).await;
    the_journal_is_read_as_it_was_written(store).await;
    one_at_a_time_has_the_lock(store).await;
    lists_are_whole_and_in_order(store).await;
    neighbours_do_not_see_each_other(store).await;
}

async fn of_sixteen_that_make_an_archive_one_does(store: &Store) {
    let (_, raw) = (store.open)("race");
    let racers = (0..16).map(|_| async {
        // Each as another process would: with clients of its own.
        let (place, _) = (store.open)("race");
        Archive::open_or_create(&place, &Clock::system()).await.unwrap().uuid().to_owned()
    });
    let uuids = join_all(racers).await;
    assert!(uuids.iter().all(|uuid| *uuid == uuids[0]), "{uuids:?}");
    assert_eq!(raw.keys().await, ["jellyjar.json"]);
    let (again, _) = store.archive("race").await;
    assert_eq!(again.uuid(), uuids[0]);
}

async fn a_place_that_is_no_archive_is_told(store: &Store) {
    let (place, raw) = (store.open)("nothing");
    assert!(Archive::find(&place).await.unwrap().is_none());
    assert!(matches!(Archive::open(&place).await, Err(StoreError::Absent { .. })));
    for stranger in ["letter.txt", "folder/letter.txt"] {
        let (place, raw) = (store.open)(&format!("stranger-{}", stranger.len()));
        raw.put(stranger, b"Dear all,").await;
        let refused = Archive::open_or_create(&place, &Clock::system()).await.unwrap_err();
        assert!(matches!(refused, StoreError::NotAnArchive { .. }), "{refused}");
        assert!(refused.to_string().contains(&place.to_string()), "{refused}");
        assert_eq!(raw.keys().await, [stranger], "nothing is written there");
    }
    let newer = br#"{"format_version": 2, "shape": "unknown"}"#;
    raw.put("jellyjar.json", newer).await;
    let refused = Archive::open_or_create(&place, &Clock::system()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unsupported { .. }), "{refused}");
    raw.put("jellyjar.json", b"{\"format_vers").await;
    let refused = Archive::open_or_create(&place, &Clock::system()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
}

async fn of_sixteen_that_store_one_content_one_does(store: &Store) {
    let (archive, raw) = store.archive("contents").await;
    for (size, racers) in [(1, 16), (50_000, 16), (LARGE_BYTES, 2)] {
        let content = bytes(1, size);
        let stored = join_all((0..racers).map(|_| store.put(&archive, &content, false))).await;
        let new = stored.iter().filter(|stored| **stored == Stored::New).count();
        let there = stored.iter().filter(|stored| **stored == Stored::AlreadyThere).count();
        assert_eq!(new + there, racers, "{size}: {stored:?}");
        // Uploads in parts may end together; what they make is one.
        assert!(new == 1 || size == LARGE_BYTES && new > 1, "{size}: {stored:?}");
        let digest = Digest::of(&content);
        assert_eq!(archive.blob_digest(digest).await.unwrap(), Some((digest, size as u64)));
        assert_eq!(archive.blob_size(digest).await.unwrap(), Some(size as u64));
    }
    assert_eq!(raw.keys().await.iter().filter(|key| key.starts_with("blobs/")).count(), 3);
    assert!(matches!(archive.unfinished_uploads().await, None | Some(0)), "an upload was left behind");
}

async fn bytes_large_and_small_are_stored_once_and_mended(store: &Store) {
    let (archive, raw) = store.archive("mended").await;
    for size in [0, 700, 70_000, LARGE_BYTES] {
        let content = bytes(2, size);
        let digest = Digest::of(&content);
        assert_eq!(archive.blob_digest(digest).await.unwrap(), None);
        assert_eq!(archive.blob_size(digest).await.unwrap(), None);
        assert!(!archive.settle_blob(digest).await.unwrap());
        assert_eq!(store.put(&archive, &content, false).await, Stored::New, "{size}");
        assert_eq!(store.put(&archive, &content, false).await, Stored::AlreadyThere, "{size}");
        let read: Vec<_> = archive.open_bytes(digest, false).await.unwrap().unwrap().try_collect().await.unwrap();
        assert_eq!(read.concat(), content, "{size}");
        assert!(archive.open_bytes(digest, true).await.unwrap().is_none());
        assert!(archive.settle_blob(digest).await.unwrap());
        // Damaged, of the same size and of another.
        for damaged in [bytes(3, size), b"other bytes".to_vec()].iter().filter(|damaged| **damaged != content) {
            raw.put(&blob_key(digest), damaged).await;
            assert!(!archive.settle_blob(digest).await.unwrap());
            assert_eq!(store.put(&archive, &content, false).await, Stored::Replaced, "{size}");
            assert_eq!(archive.blob_digest(digest).await.unwrap(), Some((digest, size as u64)), "{size}");
        }
    }
    let batch = [bytes(4, 10), bytes(5, 20_000), bytes(6, 30)];
    let mut puts = Vec::new();
    for content in &batch {
        puts.push(store.spooled(content).await);
    }
    let stored = archive.put(store.scratch.path(), puts).await.unwrap();
    assert_eq!(stored, [Stored::New, Stored::New, Stored::New]);
    assert_eq!(archive.put(store.scratch.path(), Vec::new()).await.unwrap(), []);
    let listed = raw.keys().await;
    assert_eq!(listed.iter().filter(|key| key.starts_with("blobs/")).count(), 4 + 3, "{listed:?}");
}

async fn quarantined_bytes_are_kept_apart_until_accepted(store: &Store) {
    let (archive, raw) = store.archive("quarantine").await;
    for size in [900, LARGE_BYTES] {
        let content = bytes(7, size);
        let digest = Digest::of(&content);
        assert_eq!(store.put(&archive, &content, true).await, Stored::New);
        assert_eq!(archive.quarantined_digest(digest).await.unwrap(), Some((digest, size as u64)));
        assert_eq!(archive.blob_digest(digest).await.unwrap(), None);
        let folder = archive.quarantine_folder().await.unwrap();
        assert_eq!(folder.blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>(), [digest]);
        assert_eq!(archive.accept_quarantined(digest).await.unwrap(), Some(Stored::New));
        assert_eq!(archive.blob_digest(digest).await.unwrap(), Some((digest, size as u64)));
        assert_eq!(archive.quarantined_digest(digest).await.unwrap(), None);
        assert_eq!(archive.accept_quarantined(digest).await.unwrap(), None);
    }
    let content = bytes(8, 500);
    let digest = Digest::of(&content);
    raw.put(&quarantine_key(digest), b"not these").await;
    assert_eq!(archive.accept_quarantined(digest).await.unwrap(), None, "only what hashes to its name");
    raw.put(&quarantine_key(digest), &content).await;
    raw.put(&blob_key(digest), b"damaged").await;
    assert_eq!(archive.accept_quarantined(digest).await.unwrap(), Some(Stored::Replaced));
    assert_eq!(archive.blob_digest(digest).await.unwrap(), Some((digest, 500)));
}

async fn the_journal_is_read_as_it_was_written(store: &Store) {
    let (archive, raw) = store.archive("journal").await;
    let archive = Arc::new(archive);
    let clock = Clock::fixed("2026-11-22T10:00:00Z".parse().unwrap());
    let writer = JournalWriter::new(Arc::clone(&archive), clock.clone()).unwrap();
    let id = writer.writer_id().clone();
    assert_eq!(archive.segments(Stream::Outcomes).await.unwrap(), Vec::<String>::new());
    writer.announce().await.unwrap();
    let mut written = Vec::new();
    for number in 0..5 {
        clock.advance_ms(60_000);
        let lines: Vec<_> = (0..=number).map(|at| line(number * 10 + at, &id)).collect();
        written.push(writer.append(Stream::Outcomes, &lines).await.unwrap());
    }
    let (merged, _) = writer.append_merged(Stream::Messages, Vec::new(), b"").await.unwrap();
    let keys = archive.segments(Stream::Outcomes).await.unwrap();
    assert_eq!(keys, written.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>());
    assert_eq!(archive.segments(Stream::Messages).await.unwrap(), std::slice::from_ref(&merged));
    archive.sync_segments(keys.clone()).await.unwrap();
    for ((key, digest), number) in written.iter().zip(0..) {
        let expected: Vec<u64> = (0..=number).map(|at| number * 10 + at).collect();
        assert_eq!(read_back(&archive, key).await, (expected, *digest));
        let header = SegmentReader::open(&archive, key).await.unwrap().unwrap().header().clone();
        assert_eq!((header.seq, header.writer_id), (number, id.clone()));
        let before = number.checked_sub(1).map(|before| written[usize::try_from(before).unwrap()].1);
        assert_eq!(header.previous_sha256, before);
    }
    let sizes = archive.segment_files(Stream::Outcomes).await.unwrap();
    let whole = archive.read_segment(&keys[0]).await.unwrap().unwrap();
    assert_eq!((sizes.len(), sizes[0].size_bytes), (5, whole.len() as u64));
    writer.heartbeat(true).await.unwrap();
    let records = archive.writer_records().await.unwrap();
    let record = records[0].1.as_ref().unwrap();
    assert_eq!((records.len(), &record.writer_id), (1, &id));
    assert_eq!(record.outcomes.map(|end| (end.seq, end.sha256)), Some((4, written[4].1)));
    assert!(record.ended_at.is_some());
    archive.remove_segments(keys[..2].to_vec()).await.unwrap();
    archive.remove_segments(keys[..3].to_vec()).await.unwrap();
    assert_eq!(archive.segments(Stream::Outcomes).await.unwrap(), keys[3..]);
    assert!(SegmentReader::open(&archive, &keys[0]).await.unwrap().is_none());
    // One that writes nothing leaves nothing.
    let idle = JournalWriter::new(Arc::clone(&archive), clock).unwrap();
    idle.announce().await.unwrap();
    idle.heartbeat(true).await.unwrap();
    assert_eq!(archive.writer_records().await.unwrap().len(), 1, "{:?}", raw.keys().await);
}

async fn one_at_a_time_has_the_lock(store: &Store) {
    let (archive, _) = store.archive("lock").await;
    let clock = Clock::fixed("2026-11-22T10:00:00Z".parse().unwrap());
    let names: Vec<WriterId> = (0..16).map(|number| WriterId(format!("writer-{number}"))).collect();
    let taken = join_all(names.iter().map(|name| archive.lock("compact", name, &clock))).await;
    let (held, refused): (Vec<_>, Vec<_>) = taken.into_iter().partition(Result::is_ok);
    assert_eq!((held.len(), refused.len()), (1, 15));
    for error in refused {
        assert!(matches!(error, Err(StoreError::Locked { .. })), "{error:?}");
    }
    clock.advance_ms(61 * 60_000);
    let stolen = archive.lock("compact", &names[1], &clock).await.unwrap();
    stolen.release(&archive).await.unwrap();
    archive.lock("compact", &names[2], &clock).await.unwrap().release(&archive).await.unwrap();
}

async fn lists_are_whole_and_in_order(store: &Store) {
    // One more than a page of S3 and GCS has.
    const MANY: usize = 1_001;
    let (archive, raw) = store.archive("pages").await;
    let names: Vec<String> = (0..MANY).map(|number| format!("ab{number:062x}")).collect();
    let put = |name: &String| {
        let key = format!("blobs/sha256/ab/{name}");
        let raw = &raw;
        async move { raw.put(&key, b"x").await }.boxed()
    };
    futures::stream::iter(names.iter().rev().map(put)).buffer_unordered(16).collect::<Vec<()>>().await;
    raw.put("blobs/sha256/ab/note.txt", b"x").await;
    raw.put(&format!("blobs/sha256/abc/{}", names[0]), b"x").await;
    raw.put("blobs/letter.txt", b"x").await;
    let found = archive.blob_folder(0xab).await.unwrap();
    assert_eq!(found.blobs.iter().map(|blob| blob.digest.to_hex()).collect::<Vec<_>>(), names);
    assert!(found.blobs.iter().all(|blob| blob.size_bytes == 1 && blob.modified_ms > 1_500_000_000_000));
    assert_eq!(found.strangers, ["blobs/sha256/ab/note.txt"]);
    assert_eq!(archive.blob_folder(0xac).await.unwrap().blobs, []);
    assert_eq!(archive.blob_strangers().await.unwrap(), ["blobs/letter.txt", "blobs/sha256/abc"]);
}

async fn neighbours_do_not_see_each_other(store: &Store) {
    let names = ["mail", "mail2", "mail 3+4&c=", "a,b;(c)'$!_.x"];
    let mut archives = Vec::new();
    for name in names {
        let (archive, raw) = store.archive(name).await;
        archives.push((Arc::new(archive), raw));
    }
    for (number, (archive, raw)) in archives.iter().enumerate() {
        let content = bytes(9 + u8::try_from(number).unwrap(), 100);
        let digest = Digest::of(&content);
        assert_eq!(store.put(archive, &content, false).await, Stored::New);
        let writer = JournalWriter::new(Arc::clone(archive), Clock::system()).unwrap();
        let (segment, _) = writer.append(Stream::Outcomes, &[line(number as u64, writer.writer_id())]).await.unwrap();
        let record = format!("writers/{}.json", writer.writer_id().0);
        assert_eq!(archive.segments(Stream::Outcomes).await.unwrap(), std::slice::from_ref(&segment));
        assert_eq!(read_back(archive, &segment).await.0, [number as u64]);
        let folder = archive.blob_folder(digest.as_bytes()[0]).await.unwrap();
        assert_eq!(folder.blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>(), [digest]);
        assert_eq!(raw.keys().await, [blob_key(digest), "jellyjar.json".into(), segment, record]);
    }
    let uuids: std::collections::BTreeSet<_> = archives.iter().map(|(archive, _)| archive.uuid()).collect();
    assert_eq!(uuids.len(), names.len());
}
