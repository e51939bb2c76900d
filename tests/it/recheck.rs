//! `replay --check`: whether what is known is still there, and what is not comes back.

use jellyjar::sim::corpus::{CorpusConfig, Profile, write_dump};
use serde_json::{Value, json};

use crate::support::{Bucket, Ended, World, events};

/// A replay with `--check`, and what it says of the check.
fn check(world: &World) -> (Ended, Value) {
    let ended = world.run(&[&World::REPLAY[..], &["--check"]].concat());
    let said = ended.json()["check"].clone();
    (ended, said)
}

fn blob(world: &World, digest: &str) -> std::path::PathBuf {
    world.archive().join("blobs/sha256").join(&digest[..2]).join(digest)
}

#[test]
fn missing_and_cut_contents_come_back_in_the_same_run() {
    let world = World::new();
    world.dump(&events(20, 2, (100, 3000)));
    world.replay();
    let before = world.ledger();
    let digests: Vec<&String> = before.blobs.keys().collect();
    std::fs::remove_file(blob(&world, digests[3])).unwrap();
    let cut = std::fs::read(blob(&world, digests[7])).unwrap();
    std::fs::remove_file(blob(&world, digests[7])).unwrap();
    std::fs::write(blob(&world, digests[7]), &cut[1..]).unwrap();

    let unaware = world.replay();
    assert_eq!((unaware.known, unaware.api_requests), (40, 0), "without --check nothing is looked at");
    let (ended, said) = check(&world);
    let receipt = ended.receipt();
    assert_eq!(said, json!({"checked": before.blobs.len(), "missing": 2, "requeued": 2}));
    assert_eq!((receipt.known, receipt.archived, receipt.api_requests, receipt.ok), (38, 2, 2, true), "{receipt:?}");
    let after = world.ledger();
    assert_eq!((&after.blobs, after.merged.len()), (&before.blobs, before.merged.len()));
    assert_eq!(after.outcomes.len(), before.outcomes.len() + 2, "their outcomes are written down again");
    assert_eq!(world.run(&["verify", "--archive", "archive"]).code(), Some(0));

    let (ended, said) = check(&world);
    assert_eq!(said, json!({"checked": before.blobs.len(), "missing": 0, "requeued": 0}));
    assert_eq!((ended.receipt().known, ended.receipt().api_requests), (40, 0));
}

#[test]
fn a_content_that_many_have_costs_one_request() {
    let world = World::new();
    let config = CorpusConfig {
        profile: Profile::Plain,
        messages: 30,
        contents: 1,
        sizes: (100, 100),
        ..CorpusConfig::default()
    };
    write_dump(&config, &world.path("dump")).unwrap();
    world.replay();
    let digest = world.ledger().blobs.into_keys().next().unwrap();
    std::fs::remove_file(blob(&world, &digest)).unwrap();
    let (ended, said) = check(&world);
    assert_eq!(said, json!({"checked": 1, "missing": 1, "requeued": 1}));
    let receipt = ended.receipt();
    assert_eq!((receipt.archived, receipt.known, receipt.api_requests), (1, receipt.attachments - 1, 1), "{receipt:?}");
    assert_eq!(world.ledger().blobs.len(), 1);
}

#[test]
fn what_cannot_be_fetched_any_more_is_told() {
    let world = World::new();
    world.dump(&events(3, 1, (100, 3000)));
    world.replay();
    let digest = world.ledger().blobs.into_keys().next().unwrap();
    std::fs::remove_file(blob(&world, &digest)).unwrap();
    world.jelly.set_faults("api-404=1.0");
    let (ended, said) = check(&world);
    let receipt = ended.receipt();
    assert_eq!((receipt.known, receipt.failed, receipt.ok), (2, 1, false), "{receipt:?}");
    assert_eq!(said["missing"], 1);
    let damaged = world.catalog("SELECT hex(sha256) FROM blobs WHERE state = 'damaged'");
    assert_eq!(damaged, [digest.to_uppercase()]);
}

#[test]
fn objects_that_are_gone_from_a_bucket_come_back() {
    let (world, bucket) = (World::new(), Bucket::s3s());
    world.dump(&events(10, 1, (100, 3000)));
    let run = |more: &[&str]| {
        let arguments =
            [&["replay", "dump", "--archive", &bucket.location, "--catalog", "one", "--json"], more].concat();
        let mut command = world.command(&arguments);
        bucket.open_to(&mut command);
        world.start(command).wait()
    };
    assert_eq!(run(&[]).receipt().archived, 10);
    let keys = bucket.keys();
    let blob = keys.iter().find(|key| key.starts_with("blobs/")).unwrap();
    bucket.delete(blob);
    let ended = run(&["--check"]);
    assert_eq!(ended.json()["check"], json!({"checked": 10, "missing": 1, "requeued": 1}));
    assert_eq!((ended.receipt().archived, ended.receipt().api_requests), (1, 1));
    assert_eq!(bucket.ledger().blobs.len(), 10);
    assert_eq!(bucket.gate.count(&http::Method::HEAD, "/blobs/"), 10, "each content is asked for once");
}
