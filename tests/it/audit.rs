//! The commands that look after an archive: what is in it, whether it is whole, and how it is made whole again.

use serde_json::Value;

use crate::support::{Ended, World, events, ids};

/// A world whose archive holds 10 attachments, all made in fair weather.
fn archived() -> World {
    let world = World::new();
    world.dump(&events(10, 1, (100, 2000)));
    assert!(world.replay().ok);
    world
}

fn ask(world: &World, arguments: &[&str]) -> Ended {
    world.run(&[arguments, &["--archive", "archive", "--json"]].concat())
}

/// The answer of a command that must succeed.
fn answer(world: &World, arguments: &[&str]) -> Value {
    let ended = ask(world, arguments);
    assert_eq!(ended.code(), Some(0), "{arguments:?}: {ended:?}");
    ended.json()
}

fn blob(world: &World, digest: &str) -> std::path::PathBuf {
    world.archive().join("blobs/sha256").join(&digest[..2]).join(digest)
}

#[test]
fn after_a_rebuild_nothing_is_asked_for_again() {
    let world = archived();
    let outcomes = world.ledger().outcomes;
    for lose in [false, true] {
        if lose {
            world.lose_catalog();
        }
        let rebuilt = answer(&world, &["rebuild"]);
        assert_eq!((&rebuilt["archived"], &rebuilt["attachments"]), (&10.into(), &10.into()), "{rebuilt}");
        let receipt = world.replay();
        assert_eq!((receipt.known, receipt.api_requests), (10, 0), "{receipt:?}");
    }
    assert_eq!(world.jelly.stats().exchanges, 10);
    assert_eq!(world.ledger().outcomes, outcomes, "nothing is written down again");
}

#[test]
fn a_rebuild_restores_every_kind_of_outcome() {
    let world = World::with_faults("wrong-size=0.3,lost=0.3");
    let mut mail = events(60, 1, (100, 2000));
    crate::support::attachments(&mut mail[0])[0]["inline"] = true.into();
    world.dump(&mail);
    let first = world.replay();
    assert!(first.archived > 5 && first.failed > 5 && first.quarantined > 2 && first.skipped == 1, "{first:?}");
    world.lose_catalog();
    answer(&world, &["rebuild"]);
    let second = world.replay();
    assert_eq!(
        (second.known, second.failed, second.quarantined, second.skipped, second.api_requests),
        (first.archived, first.failed, first.quarantined, first.skipped, 0)
    );
    world.ledger().agrees_with(&second);
}

#[test]
fn status_tells_what_is_archived() {
    let world = archived();
    let status = answer(&world, &["status"]);
    assert_eq!(status["ok"], true, "{status}");
    assert_eq!(status["total"]["archived"], 10, "{status}");
    let ledger = world.ledger();
    assert_eq!(status["content"]["blobs"], ledger.blobs.len(), "{status}");
    assert_eq!(status["content"]["bytes"], ledger.blobs.values().sum::<u64>(), "{status}");
    assert_eq!(world.jelly.stats().exchanges, 10, "looking costs nothing");
}

#[test]
fn status_tells_of_a_quota_that_is_used_up_and_calls_it_no_pause() {
    let world = World::new();
    world.dump(&events(10, 1, (100, 2000)));
    // Where there is no limit, as on this machine, nothing is counted.
    world.settings("[quota]\nrequests_per_day = 100\n");
    assert!(world.replay().ok);
    let quota = |limit: u32, more: &str| {
        world.settings(&format!("[quota]\nrequests_per_day = {limit}\nlive_share = 0.5\n{more}"));
        let status = answer(&world, &["status"]);
        assert_eq!((&status["ok"], &status["pauses"]), (&true.into(), &Value::Array(Vec::new())), "{status}");
        let told = status["quotas"][0].clone();
        assert_eq!(told["requests_today"], 10, "{status}");
        let is_told = |name: &str| told[name].as_str().is_some_and(|until| until.ends_with(" 00:00:00Z"));
        let text = world.run(&["status", "--archive", "archive"]).stdout;
        assert_eq!(text.contains("used up until"), is_told("bulk_used_up_until"), "{text}");
        (is_told("used_up_until"), is_told("bulk_used_up_until"))
    };
    let webhooks = "[teams.default]\nwebhook_secret = \"s\"\n";
    assert_eq!(quota(11, ""), (false, false));
    assert_eq!(quota(10, ""), (true, true));
    assert_eq!(quota(22, webhooks), (false, false));
    assert_eq!(quota(20, webhooks), (false, true), "half of it is kept for webhooks");
}

#[test]
fn status_shows_every_archive_where_teams_have_their_own() {
    let world = World::new();
    world.dump(&events(4, 1, (100, 2000)));
    let team = |name: &str| format!("[teams.{name}]\narchive = \"of-{name}\"\ntoken_file = \"token\"\n");
    world.settings(&["berlin", "oslo"].map(team).concat());
    std::fs::write(world.path("token"), crate::support::TOKEN).unwrap();
    let replay = |team: &str| {
        let mut command = world.command(&["replay", "dump", "--json", "--team", team]);
        command.env_remove("JELLY_API_TOKEN");
        assert_eq!(world.start(command).wait().receipt().archived, 4);
    };
    let status = |more: &[&str]| {
        let mut command = world.command(&[&["status"], more].concat());
        command.env_remove("JELLY_API_TOKEN");
        world.start(command).wait()
    };
    replay("berlin");
    let ended = status(&["--json"]);
    let told = ended.json();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert_eq!(told["ok"], false, "{told}");
    let told = &told["archives"];
    assert_eq!((&told[0]["total"]["archived"], &told[1]["ok"]), (&4.into(), &false.into()), "{told}");
    assert!(told[1]["error"].as_str().unwrap().contains("no jellyjar archive"), "{told}");
    replay("oslo");
    let ended = status(&["--json"]);
    let told = ended.json();
    assert_eq!((ended.code(), &told["ok"]), (Some(0), &true.into()), "{ended:?}");
    assert_eq!(told["archives"][1]["total"]["archived"], 4, "{ended:?}");
    let text = status(&[]).stdout;
    assert!(text.contains("of-berlin") && text.contains("of-oslo"), "{text}");
    let ended = status(&["--team", "oslo", "--json"]);
    assert_eq!(ended.json()["total"]["archived"], 4, "one archive is one object: {ended:?}");
}

#[test]
fn a_sound_archive_verifies_and_a_damaged_blob_is_found_and_fetched_again() {
    let world = archived();
    assert_eq!(answer(&world, &["verify"])["ok"], true);
    let digest = world.ledger().blobs.into_keys().next().unwrap();
    let right = std::fs::read(blob(&world, &digest)).unwrap();

    let mut flipped = right.clone();
    flipped[0] ^= 1;
    std::fs::write(blob(&world, &digest), flipped).unwrap();
    let ended = ask(&world, &["verify"]);
    assert_eq!((ended.code(), &ended.json()["ok"]), (Some(1), &false.into()), "{ended:?}");
    assert!(ended.stdout.contains(&digest), "{ended:?}");
    answer(&world, &["verify", "--repair"]);
    assert_eq!(std::fs::read(blob(&world, &digest)).unwrap(), right);

    std::fs::remove_file(blob(&world, &digest)).unwrap();
    assert_eq!(ask(&world, &["verify"]).code(), Some(1));
    answer(&world, &["verify", "--repair"]);
    assert_eq!(std::fs::read(blob(&world, &digest)).unwrap(), right);
    assert_eq!(answer(&world, &["verify"])["ok"], true);
    assert_eq!(world.jelly.stats().exchanges, 12, "one request for each repair");
    world.ledger();
}

#[test]
fn a_repair_accepts_nothing_but_the_recorded_bytes() {
    let world = archived();
    let digest = world.ledger().blobs.into_keys().next().unwrap();
    let right = std::fs::read(blob(&world, &digest)).unwrap();
    std::fs::write(blob(&world, &digest), "damaged").unwrap();
    // The storage now gives other bytes, and vouches for them.
    world.jelly.set_faults("flip-silent=1.0");
    let ended = ask(&world, &["verify", "--repair"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert_ne!(std::fs::read(blob(&world, &digest)).ok(), Some(right.clone()));
    world.jelly.set_faults("");
    answer(&world, &["verify", "--repair"]);
    assert_eq!(std::fs::read(blob(&world, &digest)).unwrap(), right);
}

#[test]
fn a_missing_segment_is_noticed() {
    let world = archived();
    std::fs::remove_dir_all(world.archive().join("outcomes")).unwrap();
    let ended = ask(&world, &["verify"]);
    assert_ne!(ended.code(), Some(0), "{ended:?}");
    let replay = world.run(&World::REPLAY);
    assert_ne!(replay.code(), Some(0), "a segment that was seen has vanished: {replay:?}");
    assert!(replay.stdout.contains("rebuild"), "{replay:?}");
}

#[test]
fn failures_are_listed_with_their_reason_and_retried() {
    let world = World::with_faults("api-404=1.0");
    let mail = events(4, 1, (100, 2000));
    world.dump(&mail);
    assert_eq!(world.replay().failed, 4);
    let failed = answer(&world, &["failed"]);
    assert_eq!((&failed["total"], failed["failed"].as_array().unwrap().len()), (&4.into(), 4), "{failed}");
    let first = &failed["failed"][0];
    assert!(first["reason"].as_str().unwrap().contains("gone"), "{first}");
    assert!(!first["next"].as_str().unwrap().is_empty(), "{first}");
    for id in ids(&mail) {
        assert!(!failed.to_string().contains(&id), "a raw id was printed");
    }
    world.jelly.set_faults("");
    let short = first["id"].as_str().unwrap();
    assert_eq!(ask(&world, &["retry", short]).receipt().archived, 1);
    assert_eq!(ask(&world, &["retry"]).receipt().archived, 3);
    assert_eq!(answer(&world, &["failed"])["total"], 0);
    assert_eq!(world.ledger().ids("archived"), ids(&mail));
    world.lose_catalog();
    assert_eq!(world.replay().known, 4);
}

#[test]
fn quarantined_bytes_are_listed_fetched_again_or_accepted() {
    let world = World::with_faults("wrong-size=1.0");
    let mail = events(3, 1, (100, 2000));
    world.dump(&mail);
    assert_eq!(world.replay().quarantined, 3);
    let listed = answer(&world, &["quarantined"]);
    let first = &listed["quarantined"][0];
    assert_eq!(listed["total"], 3, "{listed}");
    let digest = first["sha256"].as_str().unwrap().to_owned();
    let requests = world.jelly.stats().api_requests;
    answer(&world, &["accept", first["id"].as_str().unwrap()]);
    assert_eq!(world.jelly.stats().api_requests, requests, "accepting asks for nothing");
    assert!(world.ledger().blobs.contains_key(&digest));

    world.jelly.set_faults("");
    assert_eq!(ask(&world, &["retry", "--quarantined"]).receipt().archived, 2);
    let receipt = world.replay();
    assert_eq!((receipt.ok, receipt.known, receipt.api_requests), (true, 3, 0), "{receipt:?}");
    world.ledger().agrees_with(&receipt);
}

#[test]
fn rejected_lines_are_listed_with_their_place_and_reason() {
    let world = archived();
    std::fs::write(world.path("dump/bad.jsonl"), "{\"msg\":\"fine\"}\n{\"id\": \"m\", \"attachments\": [\n").unwrap();
    assert_eq!(world.replay().rejected, 1);
    let listed = answer(&world, &["rejected"]);
    assert_eq!(listed["total"], 1, "{listed}");
    let one = &listed["rejected"][0];
    assert_eq!((&one["source"], &one["line"], &one["byte_offset"]), (&"dump/bad.jsonl".into(), &2.into(), &15.into()));
    assert!(one["reason"].as_str().unwrap().contains("cut off"), "{one}");
}

#[test]
fn bytes_come_out_by_hash_and_by_short_id_as_they_went_in() {
    let world = archived();
    let digest = world.ledger().blobs.into_keys().next().unwrap();
    let right = std::fs::read(blob(&world, &digest)).unwrap();
    let got = answer(&world, &["get", &digest, "-o", "out.bin"]);
    assert_eq!((&got["ok"], &got["sha256"]), (&true.into(), &digest.clone().into()), "{got}");
    assert_eq!(std::fs::read(world.path("out.bin")).unwrap(), right);

    // Under the id that Jelly shows, too; which is not printed, whether it is known or not.
    let outcomes = world.ledger().outcomes;
    let id = &outcomes.iter().find(|line| line.sha256.as_deref() == Some(&digest)).unwrap().id;
    let ended = ask(&world, &["get", id, "-o", "by-id.bin"]);
    assert!(ended.code() == Some(0) && !format!("{ended:?}").contains(id.as_str()), "{ended:?}");
    assert_eq!(std::fs::read(world.path("by-id.bin")).unwrap(), right);
    let unknown = id.repeat(4);
    let ended = ask(&world, &["get", &unknown, "-o", "unknown.bin"]);
    assert!(ended.code() == Some(2) && !ended.stdout.contains(id.as_str()), "{ended:?}");

    std::fs::write(blob(&world, &digest), "damaged").unwrap();
    let ended = ask(&world, &["get", &digest, "-o", "other.bin"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(!world.path("other.bin").exists(), "damaged bytes are not given out");
    assert_ne!(ask(&world, &["get", "00000000"]).code(), Some(0));
}

#[test]
fn commands_that_look_make_no_archive_where_there_is_none() {
    let world = World::new();
    for command in ["status", "failed", "quarantined", "rejected", "verify", "rebuild"] {
        let ended = ask(&world, &[command]);
        assert_eq!(ended.code(), Some(2), "{command}: {ended:?}");
        assert!(ended.json()["error"].as_str().unwrap().contains("no jellyjar archive"), "{command}: {ended:?}");
        assert!(!world.archive().exists(), "{command}");
    }
}
