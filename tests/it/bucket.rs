//! An archive in a bucket: the same promises as in a folder, on every kind of store there is to test with; and what goes
//! wrong between the program and a store.

use std::process::Command;
use std::time::Duration;

use http::Method;

use crate::support::{Bucket, Ended, Mishap, Receipt, Refusal, World, events, events_from};

/// The program with leave to use the bucket. Each machine has a catalog of its own.
fn command(world: &World, bucket: &Bucket, machine: &str, arguments: &[&str]) -> Command {
    let options = ["--archive", &bucket.location, "--catalog", machine, "--json"];
    let mut command = world.command(&[arguments, &options].concat());
    bucket.open_to(&mut command);
    command
}

fn run(world: &World, bucket: &Bucket, machine: &str, arguments: &[&str]) -> Ended {
    let ended = world.start(command(world, bucket, machine, arguments)).wait();
    check(world, bucket, &ended);
    ended
}

/// What holds for every run: no secret of the bucket's is told either.
fn check(world: &World, bucket: &Bucket, ended: &Ended) {
    world.check(ended);
    for secret in bucket.secrets() {
        assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "a secret was printed: {ended:?}");
    }
}

/// The one line in which a command that fails early says why.
fn reason(ended: &Ended) -> String {
    assert!(!ended.status.success(), "{ended:?}");
    ended.json()["error"].as_str().unwrap().to_owned()
}

fn replay(world: &World, bucket: &Bucket, machine: &str) -> Receipt {
    run(world, bucket, machine, &["replay", "dump"]).receipt()
}

/// A world with 61 attachments, one of which is so large that a bucket gets it in parts.
fn world() -> World {
    let world = World::new();
    world.settings("spool.allow_tmpfs = true\n[bucket]\npart_size = \"5 MiB\"\n");
    let mut mail = events(20, 3, (100, 40_000));
    mail.extend(events_from(1_000_000, 1, 1, (12 << 20, 12 << 20)));
    world.dump(&mail);
    world
}

/// Everything that an archive goes through, from the first replay to an empty machine.
fn keeps_its_promises(bucket: &Bucket) {
    let world = world();
    let first = replay(&world, bucket, "one");
    assert_eq!((first.archived, first.api_requests, first.ok), (61, 61, true), "{first:?}");
    let ledger = bucket.ledger();
    ledger.agrees_with(&first);
    let again = replay(&world, bucket, "one");
    assert_eq!((again.known, again.api_requests), (61, 0), "{again:?}");
    let elsewhere = replay(&world, bucket, "two");
    assert_eq!((elsewhere.known, elsewhere.api_requests), (61, 0), "another machine learns it all: {elsewhere:?}");
    let verified = run(&world, bucket, "one", &["verify"]);
    assert_eq!(verified.code(), Some(0), "{verified:?}");
    let rebuilt = run(&world, bucket, "three", &["rebuild"]);
    assert_eq!(rebuilt.code(), Some(0), "{rebuilt:?}");
    assert_eq!(rebuilt.json()["archived"], 61, "{rebuilt:?}");
    let last = replay(&world, bucket, "three");
    assert_eq!((last.known, last.api_requests), (61, 0), "an empty machine after a rebuild: {last:?}");
    assert_eq!(bucket.ledger().outcomes, ledger.outcomes, "nothing is written down again");
    assert_eq!(bucket.ledger().digests(), world.fair_weather().digests(), "a folder would hold the same");
}

/// Two machines that replay the same dump at once agree in the end, and no content is there twice.
fn two_machines_agree(bucket: &Bucket) {
    let world = world();
    let both = ["one", "two"].map(|machine| world.start(command(&world, bucket, machine, &["replay", "dump"])));
    for process in both {
        let ended = process.wait();
        check(&world, bucket, &ended);
        let receipt = ended.receipt();
        assert_eq!((receipt.archived + receipt.known, receipt.ok), (61, true), "{receipt:?}");
    }
    let ledger = bucket.ledger();
    assert_eq!(ledger.count("archived"), 61);
    assert!(world.jelly.exchanges_max() <= 2, "each machine asks once at most");
    for machine in ["one", "two", "three"] {
        let receipt = replay(&world, bucket, machine);
        assert_eq!((receipt.known, receipt.api_requests), (61, 0), "{machine}: {receipt:?}");
    }
    let blobs = bucket.keys().iter().filter(|key| key.starts_with("blobs/")).count();
    assert_eq!(blobs, 61, "a content is stored once");
}

/// Damaged and missing bytes are found, and fetched again.
fn is_repaired(bucket: &Bucket) {
    let world = world();
    assert!(replay(&world, bucket, "one").ok);
    let blobs: Vec<String> = bucket.keys().into_iter().filter(|key| key.starts_with("blobs/")).collect();
    let mut flipped = bucket.get(&blobs[0]);
    flipped[7] ^= 1;
    bucket.put(&blobs[0], flipped);
    bucket.delete(&blobs[1]);
    let verified = run(&world, bucket, "one", &["verify"]);
    assert_eq!(verified.code(), Some(1), "{verified:?}");
    assert!(blobs[..2].iter().all(|key| verified.stdout.contains(&key[key.len() - 64..])), "{verified:?}");
    let repaired = run(&world, bucket, "one", &["verify", "--repair"]);
    assert_eq!(repaired.code(), Some(0), "{repaired:?}");
    assert_eq!(run(&world, bucket, "one", &["verify"]).code(), Some(0));
    bucket.ledger();
}

/// Runs these on one kind of store.
macro_rules! suite_on {
    ($store:ident, $bucket:expr) => {
        mod $store {
            use super::Bucket;

            #[test]
            fn keeps_its_promises() {
                if let Some(bucket) = $bucket {
                    super::keeps_its_promises(&bucket);
                }
            }

            #[test]
            fn two_machines_agree() {
                if let Some(bucket) = $bucket {
                    super::two_machines_agree(&bucket);
                }
            }

            #[test]
            fn is_repaired() {
                if let Some(bucket) = $bucket {
                    super::is_repaired(&bucket);
                }
            }
        }
    };
}

suite_on!(s3s_in_process, Some(Bucket::s3s()));
suite_on!(gcs_shaped_which_is_not_gcs, Some(Bucket::gcs_shaped()));
suite_on!(seaweedfs, Bucket::seaweedfs());
suite_on!(moto, Bucket::moto());
suite_on!(azurite, Bucket::azurite());

#[test]
fn trouble_on_the_way_to_the_bucket_costs_no_exchange() {
    let late = Mishap::Late(Duration::from_millis(200));
    let conflict = Mishap::Refused(Refusal::ConditionalRequestConflict);
    let slow_down = Mishap::Refused(Refusal::SlowDown);
    for (method, key, which, mishap) in [
        (Method::PUT, "/blobs/", 1..=3, Mishap::CutAfter),
        (Method::PUT, "/blobs/", 1..=3, Mishap::CutBefore),
        (Method::PUT, "/blobs/", 2..=4, slow_down),
        (Method::PUT, "/blobs/", 1..=1, conflict),
        (Method::PUT, "partNumber=2", 1..=1, Mishap::CutAfter),
        (Method::POST, "uploadId=", 1..=1, Mishap::CutAfter),
        (Method::POST, "uploads", 1..=1, slow_down),
        (Method::PUT, "/messages/", 1..=1, Mishap::CutAfter),
        (Method::PUT, "/outcomes/", 1..=1, Mishap::CutAfter),
        (Method::PUT, "/outcomes/", 1..=1, conflict),
        (Method::PUT, "/writers/", 1..=2, Mishap::CutAfter),
        (Method::PUT, "/jellyjar.json", 1..=1, Mishap::CutAfter),
        (Method::GET, "list-type=2", 1..=2, slow_down),
        (Method::GET, "list-type=2", 1..=2, late),
    ] {
        let (world, bucket) = (world(), Bucket::s3s());
        bucket.gate.spoil(method.clone(), key, which, mishap);
        let receipt = replay(&world, &bucket, "one");
        let trouble = format!("{mishap:?} at {method} {key}: {receipt:?}");
        assert!(bucket.gate.count(&method, key) > 0, "nothing was asked for that could go wrong: {trouble}");
        assert_eq!((receipt.archived, receipt.api_requests, receipt.ok), (61, 61, true), "{trouble}");
        bucket.gate.reset();
        bucket.ledger().agrees_with(&receipt);
        let again = replay(&world, &bucket, "one");
        assert_eq!((again.known, again.api_requests), (61, 0), "{trouble}, then {again:?}");
    }
}

#[test]
fn a_bucket_that_cannot_be_used_is_told_before_anything_is_asked_for() {
    for (method, key, refusal, words) in [
        (Method::PUT, "", Refusal::AccessDenied, &["s3:PutObject"][..]),
        (Method::GET, "list-type=2", Refusal::AccessDenied, &["s3:ListBucket"]),
        (Method::PUT, "", Refusal::ExpiredToken, &["expired", "fresh credentials"]),
        (Method::GET, "", Refusal::ExpiredToken, &["expired", "fresh credentials"]),
        (Method::GET, "", Refusal::RequestTimeTooSkewed, &["clock"]),
        (Method::GET, "", Refusal::PermanentRedirect, &["region"]),
    ] {
        let (world, bucket) = (world(), Bucket::s3s());
        bucket.gate.spoil(method.clone(), key, 1..=usize::MAX, Mishap::Refused(refusal));
        let ended = run(&world, &bucket, "one", &["replay", "dump"]);
        let told = format!("{refusal:?} at {method} {key}: {ended:?}");
        let reason = reason(&ended);
        assert_eq!(world.jelly.stats().api_requests, 0, "{told}");
        for word in words.iter().copied().chain([bucket.location.as_str()]) {
            assert!(reason.contains(word), "no word of {word}: {told}");
        }
    }
}

#[test]
fn a_bucket_that_is_not_there_is_told() {
    let (world, bucket) = (world(), Bucket::s3s());
    let mut command = world.command(&["replay", "dump", "--archive", "s3://nobody-has-this/x", "--catalog", "one"]);
    bucket.open_to(&mut command);
    let ended = world.start(command).wait();
    check(&world, &bucket, &ended);
    assert!(!ended.status.success() && ended.stderr.contains("no such bucket"), "{ended:?}");
    assert!(ended.stderr.contains("nobody-has-this"), "{ended:?}");
    assert_eq!(world.jelly.stats().api_requests, 0);
}

#[test]
fn wrong_credentials_are_told_and_not_shown() {
    let (world, bucket) = (world(), Bucket::s3s());
    let mut command = command(&world, &bucket, "one", &["replay", "dump"]);
    command.env("AWS_SECRET_ACCESS_KEY", "another-secret-canary-0d7a");
    let ended = world.start(command).wait();
    check(&world, &bucket, &ended);
    assert!(reason(&ended).contains("does not accept the credentials"), "{ended:?}");
    assert!(!ended.stdout.contains("another-secret") && !ended.stderr.contains("another-secret"), "{ended:?}");
    assert_eq!(world.jelly.stats().api_requests, 0);
}

#[test]
fn an_archive_of_a_newer_format_is_left_alone() {
    let (world, bucket) = (world(), Bucket::s3s());
    let marker = r#"{"format_version": 2, "archive_id": "0198c0de-0000-7000-8000-000000000000"}"#;
    bucket.put("jellyjar.json", marker.into());
    let ended = run(&world, &bucket, "one", &["replay", "dump"]);
    assert!(reason(&ended).contains("format version 2 is newer"), "{ended:?}");
    assert!(reason(&ended).contains(&bucket.location), "{ended:?}");
    assert_eq!((world.jelly.stats().api_requests, bucket.keys()), (0, vec!["jellyjar.json".to_owned()]));
}

#[test]
fn another_archives_catalog_is_refused() {
    let (world, bucket, other) = (world(), Bucket::s3s(), Bucket::s3s());
    assert!(replay(&world, &other, "one").ok);
    world.jelly.reset();
    let ended = run(&world, &bucket, "one", &["replay", "dump"]);
    assert!(reason(&ended).contains("is that of another archive"), "{ended:?}");
    assert_eq!(world.jelly.stats().api_requests, 0);
}

#[test]
fn an_interrupted_replay_goes_on_where_it_was() {
    let (world, bucket) = (world(), Bucket::s3s());
    let mut process = world.start(command(&world, &bucket, "one", &["replay", "dump", "--concurrency", "1"]));
    crate::support::until("a first exchange", || world.jelly.stats().exchanges > 0 || !process.is_running());
    process.interrupt();
    let ended = process.wait();
    check(&world, &bucket, &ended);
    let receipt = replay(&world, &bucket, "one");
    assert_eq!((receipt.archived + receipt.known, receipt.ok), (61, true), "{receipt:?}");
    assert_eq!(bucket.ledger().ids("archived").len(), 61);
    assert!(world.jelly.exchanges_max() <= 2, "only what was under way is asked for again");
}
