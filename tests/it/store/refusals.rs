//! What a bucket refuses, as a person reads it: one sentence that says what, where and the way out, before anything is
//! asked of Jelly.

use http::Method;

use crate::support::{Bucket, Ended, Mishap, Refusal, World, events};

fn replay(world: &World, bucket: &Bucket, variables: &[(&str, &str)], location: &str) -> Ended {
    let mut command = world.command(&["replay", "dump", "--archive", location, "--catalog", "one"]);
    bucket.open_to(&mut command);
    command.envs(variables.iter().copied());
    let ended = world.start(command).wait();
    world.check(&ended);
    ended
}

/// It is told once, it names the place and the way out, and nothing was asked for.
fn is_told(world: &World, ended: &Ended, place: &str, words: &[&str]) {
    assert_eq!(ended.code(), Some(2), "{ended:?}");
    assert_eq!(world.jelly.stats().api_requests, 0, "{ended:?}");
    let told: Vec<&str> = ended.stderr.lines().filter(|line| line.contains(place)).collect();
    assert_eq!(told.len(), 1, "it is told once, with the place {place}: {ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "no word of {word}: {ended:?}");
    }
    assert!(!ended.stderr.contains("<Code>") && !ended.stderr.contains("object_store"), "{ended:?}");
}

fn world() -> World {
    let world = World::new();
    world.dump(&events(2, 1, (100, 200)));
    world
}

#[test]
fn every_refusal_names_the_place_and_the_way_out() {
    let refused = Mishap::Refused;
    for (method, key, mishap, words) in [
        (Method::GET, "jellyjar.json", refused(Refusal::AccessDenied), &["s3:GetObject", "s3:ListBucket"][..]),
        (Method::GET, "list-type=2", refused(Refusal::AccessDenied), &["s3:ListBucket"]),
        (Method::PUT, "jellyjar.json", refused(Refusal::AccessDenied), &["s3:PutObject"]),
        (Method::PUT, "writers/", refused(Refusal::AccessDenied), &["s3:PutObject"]),
        (Method::GET, "", refused(Refusal::NoSuchBucket), &["no such bucket", "--archive"]),
        (Method::GET, "", refused(Refusal::AuthorizationHeaderMalformed), &["another region", "eu-central-1"]),
        (Method::GET, "", refused(Refusal::PermanentRedirect), &["another region", "AWS_REGION"]),
        (Method::GET, "", refused(Refusal::ExpiredToken), &["expired", "fresh credentials"]),
        (Method::PUT, "", refused(Refusal::ExpiredToken), &["expired", "fresh credentials"]),
        (Method::GET, "", refused(Refusal::RequestTimeTooSkewed), &["clock"]),
        (Method::PUT, "writers/", refused(Refusal::RequestTimeTooSkewed), &["clock"]),
    ] {
        let (world, bucket) = (world(), Bucket::s3s());
        bucket.gate.spoil(method.clone(), key, 1..=usize::MAX, mishap);
        let ended = replay(&world, &bucket, &[], &bucket.location);
        assert!(bucket.gate.count(&method, key) > 0, "{mishap:?} at {method} {key} was not reached: {ended:?}");
        is_told(&world, &ended, &bucket.location, words);
    }
}

#[test]
fn a_prefix_that_holds_other_things_is_left_alone() {
    for bucket in [Some(Bucket::s3s()), Some(Bucket::gcs_shaped()), Bucket::seaweedfs(), Bucket::azurite()] {
        let Some(bucket) = bucket else { continue };
        let world = world();
        bucket.put("letters/one.txt", b"Dear all,".to_vec());
        let ended = replay(&world, &bucket, &[], &bucket.location);
        is_told(&world, &ended, &bucket.location, &["not empty", "--archive"]);
        assert_eq!(bucket.keys(), ["letters/one.txt"]);
    }
}

#[test]
fn a_newer_archive_is_left_alone() {
    let (world, bucket) = (world(), Bucket::s3s());
    bucket.put("jellyjar.json", br#"{"format_version": 2}"#.to_vec());
    let ended = replay(&world, &bucket, &[], &bucket.location);
    is_told(&world, &ended, &bucket.location, &["format version 2", "newer jellyjar"]);
    assert_eq!(bucket.keys(), ["jellyjar.json"]);
}

#[test]
fn keys_that_a_real_server_does_not_know_are_told_and_not_shown() {
    let Some(bucket) = Bucket::seaweedfs() else { return };
    for (variable, value) in [("AWS_SECRET_ACCESS_KEY", "wrong-canary-7c1e"), ("AWS_ACCESS_KEY_ID", "nobody-canary-51")]
    {
        let world = world();
        let ended = replay(&world, &bucket, &[(variable, value)], &bucket.location);
        is_told(&world, &ended, &bucket.location, &["credentials", "AWS_ACCESS_KEY_ID"]);
        assert!(!ended.stderr.contains(value), "{ended:?}");
    }
    let world = world();
    let location = format!("{}-nobody", bucket.location.split_once("/it-").unwrap().0);
    let ended = replay(&world, &bucket, &[], &location);
    is_told(&world, &ended, &location, &["no such bucket", "--archive"]);
}

#[test]
fn a_container_that_a_real_server_does_not_have_is_told() {
    let Some(bucket) = Bucket::azurite() else { return };
    let world = world();
    let ended = replay(&world, &bucket, &[], "az://nobody/x");
    is_told(&world, &ended, "az://nobody/x", &["no such bucket", "--archive"]);
    let wrong = data_encoding::BASE64.encode(b"not the key of this account, but as long as one, 64 bytes of it.");
    let ended = replay(&world, &bucket, &[("AZURE_STORAGE_ACCOUNT_KEY", &wrong)], &bucket.location);
    is_told(&world, &ended, &bucket.location, &["credentials"]);
    assert!(!ended.stderr.contains(&wrong), "{ended:?}");
}
