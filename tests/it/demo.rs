//! `jellyjar demo`: the first thing that anybody runs.

use std::collections::BTreeMap;

use crate::support::{Ended, Ledger, World};

fn demo(world: &World) -> Ended {
    world.run(&["demo", "--json"])
}

#[test]
fn the_demo_archives_everything_and_a_second_run_asks_for_nothing() {
    let world = World::new();
    let ended = demo(&world);
    let first = ended.receipt();
    assert!(first.ok && first.archived > 100 && first.skipped > 0 && first.duplicates > 0, "{first:?}");
    assert_eq!(first.api_requests, first.archived, "one request each");
    let ledger = Ledger::sound(&world.path("jellyjar-demo"));
    ledger.agrees_with(&first);
    assert_eq!(first.duplicates, first.archived - ledger.blobs.len() as u64);
    assert_eq!(first.bytes_stored, ledger.blobs.values().sum::<u64>());
    for hint in ["status --archive", "verify --archive", "demo"] {
        assert!(ended.stderr.contains(hint), "{}", ended.stderr);
    }

    let second = demo(&world).receipt();
    assert!(second.ok, "{second:?}");
    assert_eq!((second.archived, second.api_requests, second.bytes_fetched), (0, 0, 0));
    assert_eq!((second.known, second.skipped), (first.archived, first.skipped));
}

#[test]
fn the_demo_says_in_words_what_it_did() {
    let world = World::new();
    let ended = world.run(&["demo"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("Everything is archived."), "{}", ended.stdout);
    let again = world.run(&["demo"]);
    assert!(again.stdout.contains("no API request was made"), "{}", again.stdout);
}

#[test]
fn archived_files_really_are_of_their_type() {
    let world = World::new();
    demo(&world);
    let archive = world.path("jellyjar-demo");
    let ledger = Ledger::sound(&archive);
    let declared: BTreeMap<&str, &str> = ledger
        .messages
        .iter()
        .flat_map(|line| line["attachments"].as_array().unwrap())
        .filter_map(|attachment| Some((attachment["id"].as_str()?, attachment["content_type"].as_str()?)))
        .collect();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let mut misdeclared = 0;
    for outcome in ledger.merged.values().filter(|outcome| outcome.kind == "archived") {
        let (id, digest) = (&outcome.id, outcome.sha256.clone().unwrap());
        let bytes = std::fs::read(archive.join("blobs/sha256").join(&digest[..2]).join(&digest)).unwrap();
        let declared = declared[id.as_str()];
        let fits = match declared {
            "application/pdf" => bytes.starts_with(b"%PDF-") && bytes.trim_ascii_end().ends_with(b"%%EOF"),
            "image/png" => bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.ends_with(b"IEND\xaeB`\x82"),
            "image/jpeg" => bytes.starts_with(b"\xff\xd8\xff") && bytes.ends_with(b"\xff\xd9"),
            "image/gif" => bytes.starts_with(b"GIF8") && bytes.ends_with(b";"),
            "application/zip" => bytes.starts_with(b"PK\x03\x04"),
            kind if kind.starts_with("application/vnd.openxmlformats") => bytes.starts_with(b"PK\x03\x04"),
            "text/csv" | "text/plain" | "text/html" | "text/calendar" | "message/rfc822" | "image/svg+xml" => {
                std::str::from_utf8(&bytes).is_ok()
            }
            _ => continue,
        };
        if fits {
            *seen.entry(declared).or_default() += 1;
        } else {
            // Mail has such files; what they are is then told by their bytes.
            assert_ne!(outcome.sniffed_type.as_deref(), Some(declared), "{digest}");
            misdeclared += 1;
        }
    }
    let fitting: u32 = seen.values().sum();
    assert!(misdeclared * 20 < fitting, "{misdeclared} of {fitting} files are not what they were declared to be");
    for kind in ["application/pdf", "image/png", "image/jpeg", "text/csv", "application/zip"] {
        assert!(seen.contains_key(kind), "no {kind} in the demo: {seen:?}");
    }
}
