//! Canaries: tokens, signed links and raw ids never leave the process.

use jellyjar::sim::SimConfig;

use crate::support::{Ended, TOKEN, World, events, ids};

/// What gives a signed link away.
const LINK_PARTS: [&str; 5] =
    ["X-Amz-Signature", "X-Amz-Credential", "X-Amz-Algorithm", "X-Amz-Date", "response-content-disposition"];

fn holds(bytes: &[u8], part: &str) -> bool {
    memchr::memmem::find(bytes, part.as_bytes()).is_some()
}

fn traced(world: &World, arguments: &[&str]) -> Ended {
    let mut command = world.command(arguments);
    command.env("JELLYJAR_LOG", "trace");
    world.start(command).wait()
}

fn is_silent(world: &World, ended: &Ended, what: &str) {
    let storage = world.jelly.storage_url().replace("http://", "");
    for text in [&ended.stdout, &ended.stderr] {
        for part in LINK_PARTS.iter().chain([&TOKEN]) {
            assert!(!text.contains(part), "{what}: {part} was printed");
        }
        let paths = text.match_indices(&storage).filter(|(at, found)| {
            let rest = &text[at + found.len()..];
            rest.starts_with('/') && !rest[1..].starts_with(|c: char| c.is_whitespace() || "\"',;:)/".contains(c))
        });
        assert_eq!(paths.count(), 0, "{what}: a link into the storage was printed");
    }
}

#[test]
fn no_log_line_and_no_file_holds_a_token_or_a_link_whatever_goes_wrong() {
    let faults = "expired-link=0.1,storage-403=0.1,storage-500=0.1,redirect=0.2,redirect-loop=0.1,reset=0.1,truncate=0.1,\
                  html-page=0.1,flip=0.1,wrong-size=0.1,lost=0.1,api-404=0.05,api-500=0.1,api-html=0.1,\
                  missing-location=0.05,link-private=0.05,redirect-metadata=0.05,long-length=0.1";
    let world = World::with(SimConfig { faults: faults.parse().unwrap(), ..SimConfig::default() });
    std::fs::write(
        world.path("jellyjar.toml"),
        "[http]\nread_timeout = \"500ms\"\n[retry]\nmax_attempts = 2\nbase_delay = \"1ms\"\nmax_delay = \"5ms\"\n",
    )
    .unwrap();
    let mail = events(150, 1, (500, 3000));
    world.dump(&mail);
    let ended = traced(&world, &World::REPLAY);
    let receipt = ended.receipt();
    assert!(receipt.failed > 0 && receipt.quarantined > 0 && receipt.archived > 0, "{receipt:?}");
    assert!(ended.stderr.len() > 10_000, "nothing was traced: {}", ended.stderr);
    is_silent(&world, &ended, "a run with failures");
    for id in ids(&mail) {
        assert!(!ended.stderr.contains(&id) && !ended.stdout.contains(&id), "a raw id was printed");
    }

    let archive = World::bytes_below(&world.archive());
    for part in LINK_PARTS.iter().chain([&TOKEN]) {
        assert!(!holds(&archive, part), "{part} is in the archive or its catalog");
    }
}

#[test]
fn a_refused_token_is_not_named() {
    let world = World::new();
    world.dump(&events(3, 1, (10, 100)));
    world.jelly.set_token("another");
    let ended = traced(&world, &World::REPLAY);
    assert_eq!(ended.code(), Some(3));
    is_silent(&world, &ended, "a refused token");
    assert!(!holds(&World::bytes_below(&world.archive()), TOKEN));
}

#[test]
fn a_jelly_that_cannot_be_reached_is_told_without_secrets() {
    let world = World::new();
    std::fs::write(
        world.path("jellyjar.toml"),
        "[retry]\nmax_attempts = 2\nbase_delay = \"1ms\"\nmax_delay = \"5ms\"\n",
    )
    .unwrap();
    let mail = events(3, 1, (10, 100));
    world.dump(&mail);
    let mut command = world.command(&World::REPLAY);
    // Nobody listens on port 1 of the loopback address.
    command.env("JELLY_API_URL", "http://127.0.0.1:1/api").env("JELLYJAR_LOG", "trace");
    let ended = world.start(command).wait();
    assert_eq!((ended.receipt().failed, ended.receipt().archived), (3, 0));
    is_silent(&world, &ended, "no Jelly");
    for id in ids(&mail) {
        assert!(!ended.stderr.contains(&id) && !ended.stdout.contains(&id), "a raw id was printed");
    }
}

#[test]
fn a_token_in_a_payload_or_a_bad_line_is_not_kept_in_the_excerpt() {
    let world = World::new();
    std::fs::create_dir(world.path("dump")).unwrap();
    let line = format!("{{\"authorization\": \"Bearer {TOKEN}\", \"attachments\": [\n");
    std::fs::write(world.path("dump/bad.jsonl"), line).unwrap();
    let ended = traced(&world, &World::REPLAY);
    assert_eq!(ended.receipt().rejected, 1);
    is_silent(&world, &ended, "a bad line");
    assert!(!holds(&World::bytes_below(&world.archive()), TOKEN), "the token of a bad line is in the catalog");
}
