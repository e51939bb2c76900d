//! Many small segments into few large ones: nothing is forgotten, whoever reads meanwhile, wherever it is cut off.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Bucket, World, events, events_from};

/// A world whose archive has grown in five runs.
fn grown() -> World {
    let world = World::new();
    for run in 0..5 {
        world.dump(&events_from(1_000 * run, 4, 2, (100, 2000)));
        assert!(world.replay().ok);
    }
    world
}

fn answer(world: &World, arguments: &[&str], code: i32) -> Value {
    let ended = world.run(&[arguments, &["--archive", "archive", "--json"]].concat());
    assert_eq!(ended.code(), Some(code), "{arguments:?}: {ended:?}");
    ended.json()
}

fn segments(world: &World, stream: &str) -> Vec<PathBuf> {
    let pattern = world.archive().join(stream).join("v1/*/*/*/*.jsonl");
    let mut found: Vec<PathBuf> = glob::glob(pattern.to_str().unwrap()).unwrap().map(Result::unwrap).collect();
    found.sort();
    found
}

#[test]
fn nothing_is_forgotten() {
    let world = grown();
    let before = world.ledger();
    assert_eq!((segments(&world, "messages").len(), segments(&world, "outcomes").len()), (5, 5));
    let untouched = answer(&world, &["compact"], 0);
    assert_eq!(
        (&untouched["merged"], &untouched["segments_now"]),
        (&0.into(), &10.into()),
        "today goes on: {untouched}"
    );
    let tried = answer(&world, &["compact", "--today", "--dry-run"], 0);
    assert_eq!((&tried["merged"], &tried["segments_now"]), (&10.into(), &2.into()), "{tried}");
    assert_eq!(segments(&world, "outcomes").len(), 5, "a dry run changes nothing");

    let done = answer(&world, &["compact", "--today"], 0);
    assert_eq!(
        (&done["merged"], &done["written"], &done["segments_now"]),
        (&10.into(), &2.into(), &2.into()),
        "{done}"
    );
    assert_eq!((segments(&world, "messages").len(), segments(&world, "outcomes").len()), (1, 1));
    assert!(!world.archive().join("lock.json").exists());
    answer(&world, &["verify"], 0);
    let after = world.ledger();
    assert_eq!(after.count("archived"), 40);
    assert_eq!(after.outcomes, before.outcomes);
    // The writers' chains lead through two generations of merging.
    world.dump(&events_from(9_000, 4, 2, (100, 2000)));
    assert_eq!(world.replay().archived, 8);
    answer(&world, &["compact", "--today"], 0);
    assert_eq!(segments(&world, "outcomes").len(), 1);
    answer(&world, &["verify"], 0);

    world.lose_catalog();
    assert_eq!(answer(&world, &["rebuild"], 0)["archived"], 48);
    answer(&world, &["verify"], 0);
    let again = world.replay();
    assert_eq!((again.known, again.api_requests), (8, 0), "{again:?}");
}

#[test]
fn another_catalog_follows_without_reading_the_lines_again() {
    let world = grown();
    let other = world.path("other");
    let other = ["--catalog", other.to_str().unwrap()];
    let ask = |arguments: &[&str]| answer(&world, &[arguments, &other].concat(), 0);
    assert_eq!(ask(&["rebuild"])["archived"], 40);
    answer(&world, &["compact", "--today"], 0);
    assert_eq!(ask(&["status"])["total"]["archived"], 40);
    ask(&["verify"]);
    assert_eq!(ask(&["compact", "--today"])["merged"], 0, "it knows what was merged");
}

#[test]
fn what_a_crash_leaves_is_read_once_and_removed_by_the_next_run() {
    let world = grown();
    let copies: Vec<(PathBuf, Vec<u8>)> = ["messages", "outcomes"]
        .iter()
        .flat_map(|stream| segments(&world, stream))
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    answer(&world, &["compact", "--today"], 0);
    // As if it had died before it removed what it had replaced.
    for (path, bytes) in &copies {
        fs::write(path, bytes).unwrap();
    }
    answer(&world, &["verify"], 0);
    for lose in [false, true] {
        if lose {
            world.lose_catalog();
            answer(&world, &["rebuild"], 0);
        }
        assert_eq!(answer(&world, &["status"], 0)["total"]["archived"], 40);
    }
    let cleaned = answer(&world, &["compact", "--today"], 0);
    assert_eq!((&cleaned["left_over"], &cleaned["segments_now"]), (&10.into(), &2.into()), "{cleaned}");
    answer(&world, &["verify"], 0);
}

#[test]
fn what_is_damaged_is_not_merged() {
    let world = grown();
    let victim = segments(&world, "outcomes")[2].clone();
    let whole = fs::read(&victim).unwrap();
    let altered = String::from_utf8(whole.clone()).unwrap().replacen("archived", "erased\",\"x\":\"", 1);
    fs::write(&victim, altered).unwrap();
    let refused = answer(&world, &["compact", "--today"], 1);
    assert_eq!(refused["refused"].as_array().unwrap().len(), 1, "{refused}");
    assert!(victim.exists(), "what is wrong stays for `verify` to see");
    answer(&world, &["verify"], 1);
    fs::write(&victim, whole).unwrap();
    answer(&world, &["verify"], 0);
}

#[test]
fn one_at_a_time() {
    let world = grown();
    let lock = world.archive().join("lock.json");
    let held =
        |at: &str| format!("{{\"v\":1,\"purpose\":\"compaction\",\"writer_id\":\"01K0\",\"taken_at\":\"{at}\"}}\n");
    fs::write(&lock, held(&jellyjar::clock::Clock::system().now().to_string())).unwrap();
    let refused = answer(&world, &["compact", "--today"], 1);
    assert!(refused["error"].as_str().unwrap().contains("another process"), "{refused}");
    assert_eq!(segments(&world, "outcomes").len(), 5);
    // Of a process that died long ago.
    fs::write(&lock, held("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(answer(&world, &["compact", "--today"], 0)["merged"], 10);
    assert!(!lock.exists());
}

#[test]
fn a_bucket_is_compacted_too() {
    let (world, bucket) = (World::new(), Bucket::s3s());
    world.settings("spool.allow_tmpfs = true\n");
    let run = |arguments: &[&str]| {
        let options = ["--archive", &bucket.location, "--catalog", "one", "--json"];
        let mut command = world.command(&[arguments, &options].concat());
        bucket.open_to(&mut command);
        let ended = world.start(command).wait();
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        ended.json()
    };
    for first in 0..3 {
        world.dump(&events(2 + first, 2, (100, 2000)));
        run(&["replay", "dump"]);
    }
    let done = run(&["compact", "--today"]);
    assert_eq!((&done["merged"], &done["segments_now"]), (&6.into(), &2.into()), "{done}");
    run(&["verify"]);
    assert_eq!(bucket.ledger().count("archived"), 8);
    assert!(!bucket.keys().iter().any(|key| key == "lock.json"));
}

#[test]
fn a_load_that_breaks_off_does_not_lose_what_was_replaced() {
    let world = grown();
    let other = world.path("other");
    let other = ["--catalog", other.to_str().unwrap()];
    answer(&world, &[&["rebuild"], &other[..]].concat(), 0);
    answer(&world, &["compact", "--today"], 0);
    // After the merged segment, and before the load is complete, something cannot be read.
    let merged = segments(&world, "outcomes").remove(0);
    let garbage = merged.with_file_name("7ZZZZZZZZZZZZZZZZZZZZZZZZZ.jsonl");
    fs::write(&garbage, "no segment\n").unwrap();
    let replay = [&["replay", "dump"], &other[..]].concat();
    let refused = answer(&world, &replay, 1);
    assert!(refused["error"].as_str().unwrap().contains("damaged"), "{refused}");
    fs::remove_file(&garbage).unwrap();
    assert_eq!(answer(&world, &replay, 0)["api_requests"], 0);
    answer(&world, &[&["verify"], &other[..]].concat(), 0);
}

#[test]
fn a_segment_that_is_cut_off_is_reported() {
    for stream in ["messages", "outcomes"] {
        let world = grown();
        let victim = segments(&world, stream).remove(0);
        let whole = fs::read(&victim).unwrap();
        fs::write(&victim, &whole[..whole.len() - 1]).unwrap();
        let report = answer(&world, &["verify"], 1);
        assert!(report.to_string().contains("is cut off"), "{report}");
    }
}
