//! The spool as its users see it.

use std::io::{Read as _, Seek as _};

use super::*;

fn spool(config: &SpoolConfig) -> (tempfile::TempDir, Spool) {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path().join("spool/run"), config, SpoolMemory::of(config)).unwrap();
    (folder, spool)
}

fn small() -> SpoolConfig {
    SpoolConfig {
        max_bytes: 64 << 20,
        max_memory_bytes: 64 << 10,
        memory_threshold_bytes: 16 << 10,
        min_free_bytes: 0,
        ..SpoolConfig::default()
    }
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251).to_le_bytes()[0]).collect()
}

async fn put(spool: &Spool, expected: Option<u64>, bytes: &[u8], step: usize) -> Spooled {
    let reservation = spool.reserve(expected).await.unwrap();
    let mut writer = spool.writer(reservation, expected, &[SumKind::Crc32c]);
    for piece in bytes.chunks(step) {
        writer.write(piece).await.unwrap();
    }
    assert_eq!(writer.size_bytes(), bytes.len() as u64);
    writer.finish().await.unwrap()
}

fn contents(spooled: &Spooled) -> Vec<u8> {
    match &spooled.bytes {
        SpooledBytes::Memory(bytes) => bytes.to_vec(),
        SpooledBytes::File(file) => {
            let (mut bytes, mut handle) = (Vec::new(), file.file());
            handle.rewind().unwrap();
            handle.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, std::fs::read(file.path()).unwrap());
            bytes
        }
    }
}

#[tokio::test]
async fn every_size_comes_back_with_its_digest_sums_and_head() {
    let (_folder, spool) = spool(&small());
    for length in [0, 1, 8191, 8192, 8193, 16 << 10, (16 << 10) + 1, 256 << 10, (256 << 10) + 1, 900_001] {
        let bytes = pattern(length);
        for expected in [Some(length as u64), None] {
            for step in [700, 70_000, 600_000] {
                let spooled = put(&spool, expected, &bytes, step).await;
                assert_eq!(spooled.sha256(), Digest::of(&bytes), "{length} {step}");
                assert_eq!(contents(&spooled), bytes);
                assert_eq!(spooled.head(), &bytes[..length.min(HEAD_BYTES)]);
                assert_eq!(spooled.size_bytes(), length as u64);
                let crc = crc_fast::crc32_iscsi(&bytes);
                assert_eq!(spooled.sum(SumKind::Crc32c).unwrap(), crc.to_be_bytes());
                assert_eq!(spooled.sum(SumKind::Md5), None);
                assert_eq!(spooled.in_memory().is_some(), length <= 16 << 10, "{length}");
            }
        }
    }
}

#[tokio::test]
async fn small_bodies_go_to_files_when_the_memory_is_taken() {
    let (_folder, spool) = spool(&small());
    let bytes = pattern(16 << 10);
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(put(&spool, Some(16 << 10), &bytes, 4096).await);
    }
    assert_eq!(held.iter().filter(|spooled| spooled.in_memory().is_some()).count(), 4);
    assert!(held.iter().all(|spooled| contents(spooled) == bytes));
    held.remove(0);
    assert!(put(&spool, Some(16 << 10), &bytes, 4096).await.in_memory().is_some());
}

#[tokio::test]
async fn files_disappear_unless_they_are_kept_and_so_does_the_folder() {
    let (_folder, spool) = spool(&small());
    let count = |spool: &Spool| std::fs::read_dir(spool.folder()).unwrap().count();
    let bytes = pattern(300 << 10);
    let (dropped, kept) = (put(&spool, None, &bytes, 9999).await, put(&spool, Some(300 << 10), &bytes, 9999).await);
    assert_eq!(count(&spool), 2);
    drop(dropped);
    assert_eq!(count(&spool), 1);
    let (SpooledBytes::File(file), ..) = kept.into_parts() else { panic!("expected a file") };
    let (_, path) = file.keep();
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    std::fs::remove_file(path).unwrap();
    let folder = spool.folder().to_owned();
    drop(spool);
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_restarted_writer_knows_nothing_of_the_bytes_before() {
    let (_folder, spool) = spool(&small());
    for length in [10, 400 << 10] {
        let reservation = spool.reserve(None).await.unwrap();
        let mut writer = spool.writer(reservation, None, &[]);
        writer.write(&pattern(length)).await.unwrap();
        let mut writer = writer.restart(None, &[SumKind::Md5]);
        writer.write(b"fresh").await.unwrap();
        let spooled = writer.finish().await.unwrap();
        assert_eq!((contents(&spooled).as_slice(), spooled.sha256()), (&b"fresh"[..], Digest::of(b"fresh")));
        assert!(spooled.sum(SumKind::Md5).is_some());
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let (folder, spool) = spool(&small());
    std::fs::remove_dir_all(folder.path().join("spool")).unwrap();
    let error = spool.reserve(Some(1)).await.unwrap_err();
    assert!(error.to_string().contains("spool/run"), "{error}");
}

#[tokio::test]
async fn what_is_written_is_no_longer_promised_and_what_is_dropped_neither() {
    let (_folder, spool) = spool(&small());
    let reservation = spool.reserve(Some(1 << 20)).await.unwrap();
    assert_eq!(spool.space().promised_bytes(), 1 << 20);
    let mut writer = spool.writer(reservation, Some(1 << 20), &[]);
    writer.write(&pattern(600 << 10)).await.unwrap();
    assert_eq!(spool.space().promised_bytes(), (1 << 20) - (512 << 10));
    drop(writer);
    assert_eq!(spool.space().promised_bytes(), 0);
    let held = put(&spool, Some(5_000), &pattern(5_000), 999).await;
    assert_eq!(spool.space().promised_bytes(), 5_000);
    drop(held);
    assert_eq!(spool.space().promised_bytes(), 0);
}
