//! `doctor`: each thing that can be wrong is found, told with its way out, and keeps nothing else from being checked.

use std::process::Command;

use http::Method;
use jellyjar::clock::Clock;
use jellyjar::sim::SimConfig;
use jiff::SignedDuration;
use serde_json::Value;

use crate::support::{Bucket, Ended, Mishap, Refusal, World, events};

const DOCTOR: [&str; 4] = ["doctor", "--archive", "archive", "--json"];

/// What was found, and what is true of every examination.
struct Examined {
    code: i32,
    answer: Value,
}

impl Examined {
    fn of(world: &World, ended: &Ended) -> Self {
        world.check(ended);
        let (code, answer) = (ended.code().unwrap(), ended.json());
        let checks = answer["checks"].as_array().unwrap();
        let count = |status: &str| checks.iter().filter(|check| check["status"] == status).count();
        assert_eq!(answer["problems"], count("problem"), "{answer}");
        assert_eq!(answer["ok"], count("problem") == 0, "{answer}");
        for check in checks {
            let helpless = check["advice"].is_null() && (check["status"] == "problem" || check["status"] == "warning");
            assert!(!helpless, "it does not say what to do: {check}");
        }
        Self { code, answer }
    }

    /// The checks of this name, as status and text with its advice.
    fn all(&self, name: &str) -> Vec<(String, String)> {
        let checks = self.answer["checks"].as_array().unwrap().iter().filter(|check| check["name"] == name);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        checks
            .map(|one| (text(&one["status"]), format!("{} → {}", text(&one["found"]), text(&one["advice"]))))
            .collect()
    }

    /// Asserts that there is such a check, with this status and these words.
    #[track_caller]
    fn has(&self, name: &str, status: &str, words: &str) {
        let found = self.all(name);
        let fits = found.iter().any(|(one, text)| one == status && text.contains(words));
        assert!(fits, "no {status} of {name} with {words:?}: {found:?}\n{}", self.answer);
    }
}

fn examine(world: &World) -> Examined {
    Examined::of(world, &world.run(&DOCTOR))
}

/// A world with an archive of five attachments.
fn archived() -> World {
    let world = World::new();
    world.dump(&events(5, 1, (10, 1000)));
    assert!(world.replay().ok);
    world
}

fn in_bucket(world: &World, bucket: &Bucket) -> Command {
    let mut command = world.command(&["doctor", "--archive", &bucket.location, "--catalog", "one", "--json"]);
    bucket.open_to(&mut command);
    command
}

fn examine_bucket(world: &World, bucket: &Bucket) -> Examined {
    let ended = world.start(in_bucket(world, bucket)).wait();
    for secret in bucket.secrets() {
        assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "a secret was printed");
    }
    Examined::of(world, &ended)
}

#[test]
fn a_sound_archive_is_found_sound_for_one_request_and_left_as_it_was() {
    let world = World::new();
    world.settings("[quota]\nrequests_per_day = 1000\nrequests_per_window = 50\n");
    world.dump(&events(5, 1, (10, 1000)));
    assert!(world.replay().ok);
    let before = world.ledger();
    world.jelly.reset();
    let examined = examine(&world);
    assert_eq!(examined.code, 0, "{}", examined.answer);
    for name in ["version", "configuration", "write", "read", "put-if-absent", "list", "delete", "disk", "journal"] {
        examined.has(name, "ok", "");
    }
    examined.has("archive", "ok", "format 1");
    examined.has("catalog", "ok", "SQLite finds it sound");
    examined.has("attachments", "ok", "5 are archived, 0 pending");
    examined.has("quota", "ok", "5 of 1,000 requests today, 5 of 50 in the last 5 minutes");
    examined.has("clock", "ok", "Jelly");
    examined.has("token", "ok", "accepts the token of team default");
    let stats = world.jelly.stats();
    assert_eq!((stats.api_requests, stats.members), (1, 1));
    let after = world.ledger();
    assert_eq!((after.outcomes, after.messages.len()), (before.outcomes, before.messages.len()));
    let left = World::bytes_below(&world.archive().join("writers"));
    assert!(!left.windows(6).any(|window| window == b"doctor"), "its file is gone");
    examine(&world).has("quota", "ok", "6 of 1,000 requests today");
}

#[test]
fn people_get_a_line_for_each_check_and_a_verdict() {
    let world = archived();
    let ended = world.run(&["doctor", "--archive", "archive", "--offline"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("ok       version        jellyjar "), "{}", ended.stdout);
    assert!(ended.stdout.contains("skipped  token          team default has a token; it is not tried"), "{ended:?}");
    assert_eq!(world.jelly.stats().members, 0);
}

#[test]
fn a_place_without_an_archive_is_tried_and_none_is_made() {
    let world = World::new();
    let examined = examine(&world);
    assert_eq!(examined.code, 0, "{}", examined.answer);
    examined.has("archive", "ok", "`jellyjar replay` will make it");
    examined.has("write", "ok", "");
    assert!(!world.archive().exists());
    std::fs::create_dir(world.archive()).unwrap();
    std::fs::write(world.archive().join("letter.txt"), "x").unwrap();
    let examined = examine(&world);
    assert_eq!(examined.code, 1);
    examined.has("archive", "problem", "is no jellyjar archive");
}

#[test]
fn without_a_token_everything_else_is_checked() {
    let world = archived();
    world.jelly.reset();
    let mut command = world.command(&DOCTOR);
    command.env_remove("JELLY_API_TOKEN");
    let examined = Examined::of(&world, &world.start(command).wait());
    assert_eq!((examined.code, world.jelly.stats().api_requests), (0, 0), "{}", examined.answer);
    examined.has("token", "warning", "JELLY_API_TOKEN");
    examined.has("catalog", "ok", "sound");
    let mut command = world.command(&[&DOCTOR[..], &["--token-file", "nowhere"]].concat());
    command.env_remove("JELLY_API_TOKEN");
    let examined = Examined::of(&world, &world.start(command).wait());
    assert_eq!(examined.code, 1, "{}", examined.answer);
    examined.has("token", "problem", "No such file or directory (os error 2) → check that it exists");
    examined.has("catalog", "ok", "sound");
}

#[test]
fn a_refused_token_is_told_and_has_its_own_exit_code() {
    let world = archived();
    world.jelly.set_token("another");
    let examined = examine(&world);
    assert_eq!((examined.code, &examined.answer["token_refused"]), (3, &Value::Bool(true)));
    examined.has("token", "problem", "401: Invalid API token");
    world.jelly.set_token(crate::support::TOKEN);
    world.jelly.set_faults("members-403=1.0");
    let examined = examine(&world);
    assert_eq!(examined.code, 3);
    examined.has("token", "problem", "plan");
}

#[test]
fn a_clock_that_is_wrong_is_told() {
    for (seconds, status, code) in [(20, "ok", 0), (-150, "warning", 0), (900, "problem", 1)] {
        let clock = Clock::fixed(Clock::system().now() + SignedDuration::from_secs(seconds));
        let world = World::with(SimConfig { clock, ..SimConfig::default() });
        let examined = examine(&world);
        assert_eq!(examined.code, code, "{}", examined.answer);
        examined.has("clock", status, if seconds > 0 { "behind" } else { "ahead of" });
        examined.has("token", "ok", "");
    }
}

#[test]
fn a_jelly_that_cannot_be_reached_is_told() {
    let world = archived();
    let mut command = world.command(&DOCTOR);
    // Nobody listens on port 1 of the loopback address.
    command.env("JELLY_API_URL", "http://127.0.0.1:1/api");
    let examined = Examined::of(&world, &world.start(command).wait());
    assert_eq!(examined.code, 1);
    examined.has("api", "problem", "http://127.0.0.1:1/api");
    examined.has("catalog", "ok", "sound");
}

#[test]
fn what_stands_in_the_way_of_writing_is_told() {
    let world = archived();
    let writers = world.archive().join("writers");
    std::fs::rename(&writers, world.path("aside")).unwrap();
    std::fs::write(&writers, "in the way").unwrap();
    let examined = examine(&world);
    assert_eq!(examined.code, 1);
    examined.has("write", "problem", "writers");
    examined.has("token", "ok", "");

    std::fs::write(world.archive().join("jellyjar.json"), "{").unwrap();
    let examined = examine(&world);
    examined.has("archive", "problem", "restore it from a copy");
    examined.has("catalog", "skipped", "");

    std::fs::write(world.path("file"), "x").unwrap();
    let examined = Examined::of(&world, &world.run(&["doctor", "--archive", "file", "--json"]));
    assert_eq!(examined.code, 1);
    examined.has("archive", "problem", "is not a folder");
}

#[test]
fn a_damaged_catalog_and_what_waits_for_a_person_are_told() {
    let world = World::with_faults("api-404=0.5");
    world.dump(&events(20, 1, (10, 1000)));
    assert!(world.replay().failed > 0);
    let examined = examine(&world);
    assert_eq!(examined.code, 0, "{}", examined.answer);
    examined.has("attachments", "warning", "`jellyjar failed`");
    let catalog = world.archive().join(".jellyjar/catalog.sqlite");
    for log in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(world.archive().join(format!(".jellyjar/catalog.sqlite{log}")));
    }
    std::fs::write(
        &catalog,
        "this is no database, whatever it is called; far from it, and long enough to tell it apart",
    )
    .unwrap();
    let examined = examine(&world);
    assert_eq!(examined.code, 1);
    examined.has("catalog", "problem", "jellyjar rebuild");
    examined.has("token", "ok", "");
}

#[test]
fn too_little_space_and_settings_that_cannot_be_used_are_told() {
    let world = World::new();
    world.settings("[spool]\nmin_free = \"1 PiB\"\n");
    let examined = examine(&world);
    assert_eq!(examined.code, 1);
    examined.has("disk", "problem", "min_free");
    world.settings("[spool]\nmin_fre = \"1 PiB\"\n");
    let examined = examine(&world);
    assert_eq!(examined.code, 2);
    examined.has("configuration", "problem", "min_fre");
}

#[test]
fn a_bucket_is_tried_and_left_as_it_was() {
    let (world, bucket) = (World::new(), Bucket::s3s());
    let examined = examine_bucket(&world, &bucket);
    assert_eq!(examined.code, 0, "{}", examined.answer);
    examined.has("archive", "ok", "`jellyjar replay` will make it");
    for name in ["write", "read", "put-if-absent", "list", "delete", "clock", "spool"] {
        examined.has(name, "ok", "");
    }
    assert_eq!(bucket.keys(), Vec::<String>::new());
    world.dump(&events(5, 1, (10, 1000)));
    let mut replay = world.command(&["replay", "dump", "--archive", &bucket.location, "--catalog", "one", "--json"]);
    bucket.open_to(&mut replay);
    assert!(world.start(replay).wait().receipt().ok);
    let keys = bucket.keys();
    let examined = examine_bucket(&world, &bucket);
    assert_eq!((examined.code, bucket.keys()), (0, keys), "{}", examined.answer);
    examined.has("attachments", "ok", "5 are archived");
}

#[test]
fn each_right_that_is_missing_in_a_bucket_is_named() {
    let denied = Mishap::Refused(Refusal::AccessDenied);
    for (method, key, check, status, words, code) in [
        (Method::PUT, "", "write", "problem", "s3:PutObject", 1),
        (Method::GET, "list-type=2", "list", "problem", "s3:ListBucket", 1),
        (Method::DELETE, "", "delete", "warning", "s3:DeleteObject", 0),
        (Method::POST, "delete", "delete", "warning", "s3:DeleteObject", 0),
    ] {
        let (world, bucket) = (World::new(), Bucket::s3s());
        bucket.gate.spoil(method.clone(), key, 1..=usize::MAX, denied);
        let examined = examine_bucket(&world, &bucket);
        if bucket.gate.count(&method, key) == 0 {
            // The client deletes by one of the two ways.
            assert_eq!(check, "delete");
            continue;
        }
        assert_eq!(examined.code, code, "{method} {key}: {}", examined.answer);
        examined.has(check, status, words);
        examined.has("token", "ok", "");
    }
}

#[test]
fn a_server_that_ignores_conditions_is_told() {
    let (world, bucket) = (World::new(), Bucket::s3s());
    bucket.gate.spoil(Method::PUT, "", 1..=usize::MAX, Mishap::Unconditional);
    let examined = examine_bucket(&world, &bucket);
    assert_eq!(examined.code, 0, "{}", examined.answer);
    examined.has("put-if-absent", "warning", "only one jellyjar at a time");
    assert_eq!(bucket.keys(), Vec::<String>::new());
}

#[test]
fn a_bucket_that_is_not_there_or_of_another_region_is_told_once() {
    let (world, bucket) = (World::new(), Bucket::s3s());
    let mut command = world.command(&["doctor", "--archive", "s3://nobody-has-this/x", "--json"]);
    bucket.open_to(&mut command);
    let examined = Examined::of(&world, &world.start(command).wait());
    assert_eq!(examined.code, 1);
    examined.has("archive", "problem", "no such bucket");
    examined.has("write", "skipped", "");
    examined.has("token", "ok", "");

    bucket.gate.spoil(Method::GET, "", 1..=usize::MAX, Mishap::Refused(Refusal::PermanentRedirect));
    let examined = examine_bucket(&world, &bucket);
    examined.has("archive", "problem", "region");
    assert_eq!(bucket.gate.count(&Method::PUT, ""), 0);
}

#[test]
fn an_archive_of_a_newer_format_is_not_touched() {
    let (world, bucket) = (World::new(), Bucket::s3s());
    bucket.put("jellyjar.json", br#"{"format_version": 2}"#.to_vec());
    let examined = examine_bucket(&world, &bucket);
    assert_eq!(examined.code, 1);
    examined.has("archive", "problem", "install a newer jellyjar");
    assert_eq!(bucket.gate.count(&Method::PUT, "doctor"), 0);
}
