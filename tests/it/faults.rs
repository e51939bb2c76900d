//! Everything the simulator can do wrong, and what the program must make of it. Whatever comes, no wrong byte is ever
//! archived: each world ends with the archive that fair weather gives.

use std::collections::BTreeSet;

use jellyjar::sim::SimConfig;

use crate::support::{Ledger, Receipt, World, events, ids};

const COUNT: u64 = 12;

/// A world with `COUNT` attachments to archive and these faults.
fn weather(faults: &str) -> World {
    let world = World::with_faults(faults);
    world.dump(&events(COUNT, 1, (600, 4000)));
    world
}

/// Checks that everything is archived, with the very bytes that fair weather gives.
fn is_whole(world: &World, receipt: &Receipt) {
    assert!(receipt.ok, "{receipt:?}");
    assert_eq!(receipt.archived + receipt.known, COUNT, "{receipt:?}");
    let ledger = world.ledger();
    ledger.agrees_with(receipt);
    assert_eq!(ledger.digests(), world.fair_weather().digests());
}

/// Replays in a world where each attachment fails `faults`, once or more, before all is well. Every attachment must be
/// exchanged exactly `exchanges` times.
fn passes(faults: &str, exchanges: u64) {
    let world = weather(faults);
    let receipt = world.replay();
    let stats = world.jelly.stats();
    assert!(!stats.faults.is_empty(), "{faults} never happened: {stats:?}");
    assert_eq!(stats.exchanges, COUNT * exchanges, "{faults}: {stats:?}");
    assert_eq!(receipt.api_requests, stats.api_requests, "{faults}");
    is_whole(&world, &receipt);
}

/// Replays in a world where `faults` never end: all attachments fail, and nothing of what came is kept.
fn fails(faults: &str, reason: &str) -> World {
    let world = weather(faults);
    world.settings("[worker]\nconcurrency = 4\n");
    std::fs::write(world.path("jellyjar.toml"), FEW_ATTEMPTS).unwrap();
    let receipt = world.replay();
    assert_eq!((receipt.failed, receipt.archived, receipt.quarantined), (COUNT, 0, 0), "{faults}: {receipt:?}");
    let ledger = world.ledger();
    ledger.agrees_with(&receipt);
    assert!(ledger.blobs.is_empty() && ledger.quarantine.is_empty(), "{faults}");
    for outcome in ledger.merged.values() {
        let told = outcome.reason.as_deref().unwrap_or_default();
        assert!(told.contains(reason), "{faults}: {told}");
    }
    // A later replay does not ask again: that is for `retry`.
    let requests = world.jelly.stats().api_requests;
    assert_eq!((world.replay().failed, world.jelly.stats().api_requests), (COUNT, requests), "{faults}");
    world
}

const FEW_ATTEMPTS: &str =
    "[http]\nread_timeout = \"500ms\"\n[retry]\nmax_attempts = 2\nbase_delay = \"2ms\"\nmax_delay = \"9ms\"\n";

#[test]
fn a_dead_link_is_exchanged_afresh_at_once() {
    passes("expired-link=first:1", 2);
    passes("short-link=first:1,short-link-ms=0", 2);
    passes("storage-403=first:1", 2);
    passes("storage-404=first:1", 2);
}

#[test]
fn errors_of_the_api_are_tried_again() {
    passes("api-500=first:2", 3);
    passes("api-503=first:1", 2);
    passes("api-reset=first:1", 2);
    passes("api-html=first:1", 2);
    passes("missing-location=first:1", 2);
    passes("api-404=first:2", 3);
}

#[test]
fn errors_of_the_storage_are_tried_again() {
    passes("storage-500=first:1", 2);
    passes("storage-503=first:1", 2);
    passes("storage-reset=first:1", 2);
    // Six redirects in a row: one more than is followed.
    passes("redirect-loop=first:6", 2);
}

#[test]
fn what_never_answers_is_given_up_in_time_and_tried_again() {
    passes("api-stall=first:1", 2);
    passes("storage-stall=first:1", 2);
}

#[test]
fn a_broken_download_goes_on_where_it_broke_with_no_further_exchange() {
    for fault in ["truncate", "reset", "stall"] {
        let world = weather(&format!("{fault}=first:1"));
        let receipt = world.replay();
        let stats = world.jelly.stats();
        assert_eq!((stats.exchanges, stats.storage_ranges), (COUNT, COUNT), "{fault}: {stats:?}");
        is_whole(&world, &receipt);
    }
}

#[test]
fn a_redirect_of_the_storage_is_followed_on_the_same_exchange() {
    passes("redirect=first:1", 1);
}

#[test]
fn a_slow_download_is_waited_for() {
    passes("slow=first:1,slow-bytes-per-second=6000", 1);
}

#[test]
fn bodies_of_a_wrong_length_are_not_archived() {
    passes("short-length=first:1", 2);
    let world = weather("long-length=first:1");
    let receipt = world.replay();
    is_whole(&world, &receipt);
}

#[test]
fn pages_with_status_200_are_never_taken_for_files() {
    for page in ["html-page", "html-octets", "json-page", "xml-page"] {
        let world = weather(&format!("{page}=first:1"));
        let receipt = world.replay();
        is_whole(&world, &receipt);
        fails(&format!("{page}=1.0"), "error page");
    }
}

#[test]
fn pages_are_refused_where_nothing_declares_a_size_too() {
    let world = World::with_faults("html-octets=1.0");
    std::fs::write(world.path("jellyjar.toml"), FEW_ATTEMPTS).unwrap();
    let mut mail = events(4, 1, (600, 4000));
    for event in &mut mail {
        crate::support::attachments(event)[0]["byte_size"] = serde_json::Value::Null;
    }
    world.dump(&mail);
    let receipt = world.replay();
    assert_eq!((receipt.failed, receipt.archived), (4, 0), "{receipt:?}");
    assert!(world.ledger().blobs.is_empty());
}

#[test]
fn a_flipped_byte_is_found_by_its_checksum_and_fetched_again() {
    passes("flip=first:1", 2);
}

#[test]
fn bytes_that_contradict_what_is_declared_twice_alike_go_to_quarantine() {
    for faults in ["flip=1.0", "wrong-size=1.0"] {
        let world = weather(faults);
        let receipt = world.replay();
        assert_eq!((receipt.quarantined, receipt.archived), (COUNT, 0), "{faults}: {receipt:?}");
        assert_eq!(world.jelly.stats().exchanges, 2 * COUNT, "two downloads each, and no more");
        let ledger = world.ledger();
        ledger.agrees_with(&receipt);
        assert!(ledger.blobs.is_empty(), "{faults}");
        assert_eq!(ledger.quarantine.len() as u64, COUNT, "the bytes are kept for a person to judge");
        for outcome in ledger.merged.values() {
            let reason = outcome.reason.as_deref().unwrap_or_default();
            assert!(reason.contains("second download"), "{reason}");
        }
        let requests = world.jelly.stats().api_requests;
        assert_eq!((world.replay().quarantined, world.jelly.stats().api_requests), (COUNT, requests));
    }
}

#[test]
fn lost_objects_and_gone_ids_fail_with_their_reason() {
    fails("lost=1.0", "404");
    let world = weather("api-404=1.0");
    let receipt = world.replay();
    assert_eq!((receipt.failed, world.jelly.stats().exchanges), (COUNT, 3 * COUNT), "{receipt:?}");
    let ledger = world.ledger();
    assert!(ledger.merged.values().all(|outcome| outcome.reason.as_deref().unwrap().contains("gone")));
}

#[test]
fn private_targets_are_refused_without_a_connection() {
    for faults in ["link-metadata=1.0", "link-private=1.0"] {
        let world = fails(faults, "refused");
        assert_eq!(world.jelly.stats().storage_requests, 0);
    }
    for faults in ["redirect-metadata=1.0", "redirect-private=1.0"] {
        fails(faults, "refused");
    }
}

#[test]
fn a_refused_token_pauses_the_team_and_costs_no_attempt() {
    let world = weather("");
    world.jelly.set_token("another");
    let receipt = world.replay();
    assert_eq!((receipt.pending, receipt.token_refused), (COUNT, true), "{receipt:?}");
    assert!(receipt.notes.iter().any(|note| note.contains("paused")), "{receipt:?}");
    assert_eq!(world.catalog("SELECT CAST(max(attempts) AS TEXT) FROM attachments"), ["0"]);
    world.jelly.set_token(crate::support::TOKEN);
    let receipt = world.replay();
    is_whole(&world, &receipt);
}

#[test]
fn a_token_that_is_revoked_in_the_middle_stops_the_run_soon() {
    let world = World::with(SimConfig { latency: std::time::Duration::from_millis(5), ..SimConfig::default() });
    world.settings("[worker]\nconcurrency = 4\n");
    let mail = events(200, 1, (10, 100));
    world.dump(&mail);
    let process = world.start_replay();
    crate::support::until("some are archived", || world.jelly.stats().exchanges >= 40);
    world.jelly.set_token("revoked");
    let receipt = process.wait().receipt();
    assert!(receipt.token_refused && receipt.pending > 0 && receipt.failed == 0, "{receipt:?}");
    assert!(world.jelly.stats().unauthorized <= 8, "{:?}", world.jelly.stats());
    world.jelly.set_token(crate::support::TOKEN);
    assert!(world.replay().ok);
    assert_eq!((world.ledger().ids("archived"), world.jelly.exchanges_max()), (ids(&mail), 1));
}

#[test]
fn a_persons_pause_is_no_refused_token() {
    let world = weather("");
    std::fs::write(world.path("nothing.jsonl"), "").unwrap();
    world.run(&["replay", "nothing.jsonl", "--archive", "archive"]);
    for length in [&[][..], &["--for", "1h"]] {
        world.run(&[&["pause", "--archive", "archive"], length].concat());
        for command in ["replay dump", "retry", "backfill"] {
            let mut arguments: Vec<&str> = command.split(' ').collect();
            arguments.extend(["--archive", "archive", "--json"]);
            let ended = world.run(&arguments);
            let receipt = ended.receipt();
            assert_eq!((ended.code(), receipt.token_refused), (Some(1), false), "{command}: {receipt:?}");
            let [note] = &receipt.notes[..] else { panic!("{command}: {receipt:?}") };
            assert!(
                note.starts_with("paused") && note.contains("`jellyjar resume` lets it go on"),
                "{command}: {note}"
            );
        }
    }
    assert_eq!(world.jelly.stats().api_requests, 0);
    world.run(&["resume", "--archive", "archive"]);
    let receipt = world.replay();
    is_whole(&world, &receipt);
}

#[test]
fn a_forbidden_attachment_fails_alone_while_the_members_may_still_be_read() {
    let world = weather("api-403=1.0");
    let receipt = world.replay();
    assert_eq!((receipt.failed, receipt.token_refused), (COUNT, false), "{receipt:?}");
    let stats = world.jelly.stats();
    assert!(stats.members >= 1 && stats.members <= COUNT, "{stats:?}");
    assert_eq!(receipt.api_requests, stats.exchanges + stats.members);
}

#[test]
fn a_forbidden_attachment_pauses_the_team_where_the_members_are_forbidden_too() {
    for members in ["members-403=1.0", "members-401=1.0"] {
        let world = weather(&format!("api-403=1.0,{members}"));
        let receipt = world.replay();
        assert_eq!((receipt.pending, receipt.token_refused), (COUNT, true), "{receipt:?}");
        world.jelly.set_faults("");
        let receipt = world.replay();
        is_whole(&world, &receipt);
    }
}

#[test]
fn a_full_window_is_waited_out_as_the_service_asks_in_seconds_and_as_a_date() {
    for fault in ["api-429", "api-429-date"] {
        let world = weather(&format!("{fault}=first:1,retry-after=2"));
        let receipt = world.replay();
        assert!(receipt.elapsed_seconds >= 1.0, "{fault}: {receipt:?}");
        assert_eq!(world.jelly.stats().exchanges, 2 * COUNT, "{fault}");
        assert_eq!(world.catalog("SELECT CAST(max(attempts) AS TEXT) FROM attachments"), ["0"], "no attempt is spent");
        is_whole(&world, &receipt);
    }
}

#[test]
fn a_long_pause_is_kept_and_the_next_run_does_not_ask_before_its_end() {
    let world = weather("api-429=1.0,retry-after=3600");
    world.settings("[worker]\nmax_wait = \"1s\"\n");
    let receipt = world.replay();
    assert_eq!((receipt.pending, receipt.failed), (COUNT, 0), "{receipt:?}");
    assert!(receipt.notes.iter().any(|note| note.starts_with("paused until")), "{receipt:?}");
    let requests = world.jelly.stats().api_requests;
    assert_eq!((world.replay().api_requests, world.jelly.stats().api_requests), (0, requests));
}

#[test]
fn the_pause_of_an_address_is_logged_once_and_resume_names_it() {
    let world = weather("api-429=1.0,retry-after=200");
    world.settings("[worker]\nmax_wait = \"1s\"\n");
    let ended = world.run(&World::REPLAY);
    assert_eq!(ended.stderr.matches("requests pause scope=egress:default until=20").count(), 1, "{}", ended.stderr);
    let ended = world.run(&["resume", "--archive", "archive"]);
    let words = "Team default was not paused itself, but its egress group default is until 20";
    assert!(ended.stdout.contains(words), "{}", ended.stdout);
    let told = world.run(&["resume", "--archive", "archive", "--json"]).json();
    assert!(told["paused"] == true && told["until"].is_string(), "{told}");
    // A person's own pause ends; that of the address does not.
    let paused = world.run(&["pause", "--archive", "archive", "--for", "1h"]);
    assert!(paused.stdout.contains("what runs already heeds that within 2 s"), "{}", paused.stdout);
    let ended = world.run(&["resume", "--archive", "archive"]);
    assert!(ended.stdout.contains("is no longer paused itself, but"), "{}", ended.stdout);
    let none = world.run(&["pause", "--archive", "archive", "--for", "0s"]);
    assert!(none.code() == Some(2) && none.stderr.contains("that is no pause"), "{none:?}");
}

#[test]
fn the_quota_of_the_service_is_kept_without_being_told() {
    let world = weather("");
    world.settings("[quota]\nrequests_per_window = 5\n[worker]\nmax_wait = \"1s\"\n");
    let receipt = world.replay();
    assert_eq!((receipt.archived, receipt.pending, receipt.api_requests), (5, COUNT - 5, 5), "{receipt:?}");
    // What was used is remembered.
    assert_eq!(world.replay().api_requests, 0);
}

#[test]
fn foul_weather_of_every_kind_ends_in_the_archive_of_fair_weather() {
    let faults = "expired-link=0.05,api-500=0.05,api-503=0.03,api-reset=0.03,api-html=0.03,missing-location=0.02,\
                  storage-403=0.03,storage-500=0.04,storage-503=0.03,storage-reset=0.03,redirect=0.1,html-page=0.05,\
                  html-octets=0.05,json-page=0.05,xml-page=0.05,short-length=0.04,long-length=0.04,truncate=0.1,reset=0.1";
    let world = World::with(SimConfig { faults: faults.parse().unwrap(), checksums: true, ..SimConfig::default() });
    std::fs::write(
        world.path("jellyjar.toml"),
        "[retry]\nmax_attempts = 40\nbase_delay = \"1ms\"\nmax_delay = \"9ms\"\n",
    )
    .unwrap();
    let mail = events(250, 2, (0, 6000));
    world.dump(&mail);
    let receipt = world.replay();
    assert!(receipt.ok, "{receipt:?}");
    assert!(world.jelly.stats().faults.len() >= 18, "{:?}", world.jelly.stats().faults);
    let ledger = world.ledger();
    ledger.agrees_with(&receipt);
    assert_eq!(ledger.ids("archived"), ids(&mail));
    assert_eq!(ledger.digests(), world.fair_weather().digests());
}

#[test]
fn empty_files_are_files() {
    let world = World::new();
    let mail = events(3, 1, (0, 0));
    world.dump(&mail);
    let receipt = world.replay();
    assert_eq!((receipt.archived, receipt.duplicates, receipt.bytes_stored), (3, 2, 0), "{receipt:?}");
    let empty: BTreeSet<u64> = world.ledger().blobs.into_values().collect();
    assert_eq!(empty, BTreeSet::from([0]));
}

#[test]
fn the_oracle_notices_what_is_wrong_with_an_archive() {
    type Damage = (&'static str, fn(&World));
    let damages: [Damage; 5] = [
        ("hash", |world| {
            let digest = world.ledger().blobs.into_keys().next().unwrap();
            std::fs::write(world.archive().join("blobs/sha256").join(&digest[..2]).join(&digest), "x").unwrap();
        }),
        ("not there", |world| {
            let digest = world.ledger().blobs.into_keys().next().unwrap();
            std::fs::remove_file(world.archive().join("blobs/sha256").join(&digest[..2]).join(&digest)).unwrap();
        }),
        ("no message line", |world| std::fs::remove_dir_all(world.archive().join("messages")).unwrap()),
        ("ends at", |world| std::fs::remove_dir_all(world.archive().join("writers")).unwrap()),
        ("breaks off", |world| std::fs::remove_file(segments(world).remove(0)).unwrap()),
    ];
    for (what, damage) in damages {
        let world = weather("");
        world.settings("[worker]\nbatch_size = 4\nconcurrency = 4\n");
        world.replay();
        damage(&world);
        let violations = Ledger::read(&world.archive()).violations;
        let found = violations.iter().any(|violation| violation.contains(what) || violation.contains("no record"));
        assert!(found, "{what}: {violations:?}");
    }
}

/// The segments of outcomes.
fn segments(world: &World) -> Vec<std::path::PathBuf> {
    fn walk(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&world.archive().join("outcomes"), &mut found);
    found.sort();
    assert!(found.len() > 1, "a chain of one segment shows no gap");
    found
}
