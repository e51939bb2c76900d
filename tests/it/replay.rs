//! Replays: one request for each attachment, once.

use jellyjar::sim::SimConfig;
use jellyjar::sim::corpus::{CorpusConfig, Profile, write_dump};

use crate::support::{World, attachments, events, ids, lines, until, write_lines};

/// Writes a plain dump whose attachments share `contents`.
fn dump_with_copies(world: &World, messages: u64, contents: u64) {
    let config = CorpusConfig {
        profile: Profile::Plain,
        messages,
        attachments_per_message: 2,
        contents,
        sizes: (0, 3000),
        ..CorpusConfig::default()
    };
    write_dump(&config, &world.path("dump")).unwrap();
}

#[test]
fn every_attachment_is_exchanged_once_and_never_again() {
    let world = World::new();
    dump_with_copies(&world, 200, 90);
    let first = world.replay();
    assert!(first.ok, "{first:?}");
    assert_eq!((first.payloads, first.attachments, first.archived, first.api_requests), (200, 400, 400, 400));
    assert_eq!(first.duplicates, 310, "400 attachments of 90 contents");
    assert_eq!((world.jelly.stats().exchanges, world.jelly.exchanges_max()), (400, 1));
    assert_eq!(world.jelly.stats().storage_requests, 400);
    let ledger = world.ledger();
    ledger.agrees_with(&first);
    assert_eq!((ledger.blobs.len(), ledger.outcomes.len()), (90, 400));
    assert_eq!(first.bytes_stored, ledger.blobs.values().sum::<u64>());

    let second = world.replay();
    assert!(second.ok, "{second:?}");
    assert_eq!((second.known, second.archived, second.api_requests), (400, 0, 0));
    world.lose_catalog();
    let third = world.replay();
    assert!(third.ok, "{third:?}");
    assert_eq!((third.known, third.archived, third.api_requests), (400, 0, 0));
    assert_eq!(world.jelly.stats().api_requests, 400, "nothing was asked for again");
    assert_eq!(world.ledger().outcomes.len(), 400, "nothing was written down again");
}

#[test]
fn realistic_mail_in_all_its_formats_is_archived_whole() {
    let world = World::with(SimConfig { checksums: true, ..SimConfig::default() });
    let summary = write_dump(&CorpusConfig { messages: 120, ..CorpusConfig::default() }, &world.path("dump")).unwrap();
    let receipt = world.replay();
    assert!(receipt.ok, "{receipt:?}");
    assert_eq!((receipt.attachments, receipt.skipped), (summary.attachments, summary.inline));
    assert_eq!(receipt.archived, summary.attachments - summary.inline);
    let ledger = world.ledger();
    ledger.agrees_with(&receipt);
    assert_eq!(ledger.blobs.len() as u64, summary.contents);
}

#[test]
fn later_mail_costs_only_what_is_new_in_it() {
    let world = World::new();
    let all = events(30, 1, (10, 500));
    world.dump(&all[..20]);
    assert_eq!(world.replay().archived, 20);
    world.dump(&all);
    let receipt = world.replay();
    assert_eq!((receipt.known, receipt.archived, receipt.api_requests), (20, 10, 10));
    assert_eq!(world.ledger().digests().len(), 30);
}

#[test]
fn an_id_in_many_messages_is_one_attachment() {
    let world = World::new();
    let mut mail = events(3, 1, (100, 100));
    let shared = attachments(&mut mail[0])[0].clone();
    for event in &mut mail[1..] {
        attachments(event).push(shared.clone());
    }
    world.dump(&mail);
    let receipt = world.replay();
    assert_eq!((receipt.attachments, receipt.archived, receipt.api_requests), (3, 3, 3));
    assert_eq!(world.ledger().messages.len(), 3, "each message keeps its link to the file");
}

#[test]
fn an_archive_can_move_and_go_on_with_a_new_catalog() {
    let world = World::new();
    world.dump(&events(5, 1, (10, 500)));
    world.replay();
    world.lose_catalog();
    std::fs::rename(world.archive(), world.path("moved")).unwrap();
    let receipt = world.run(&["replay", "dump", "--archive", "moved", "--json"]).receipt();
    assert_eq!((receipt.known, receipt.api_requests), (5, 0));
}

#[test]
fn a_blob_that_someone_deleted_is_fetched_when_its_content_comes_again() {
    let world = World::new();
    let config = CorpusConfig {
        profile: Profile::Plain,
        messages: 2,
        contents: 1,
        sizes: (100, 100),
        ..CorpusConfig::default()
    };
    write_dump(&config, &world.path("all")).unwrap();
    let text = std::fs::read_to_string(world.path("all/webhooks.jsonl")).unwrap();
    let mut both = text.lines();
    std::fs::create_dir(world.path("dump")).unwrap();
    std::fs::write(world.path("dump/mail.jsonl"), both.next().unwrap()).unwrap();
    world.replay();
    let digest = world.ledger().blobs.into_keys().next().unwrap();
    std::fs::remove_file(world.archive().join("blobs/sha256").join(&digest[..2]).join(&digest)).unwrap();
    std::fs::write(world.path("dump/mail.jsonl"), both.next().unwrap()).unwrap();
    let receipt = world.replay();
    assert_eq!((receipt.archived, receipt.duplicates), (1, 0), "the catalog's word alone is no proof: {receipt:?}");
    assert_eq!(world.ledger().blobs.len(), 1);
}

#[test]
fn two_replays_of_one_dump_at_once_share_the_work() {
    let world = World::with(SimConfig { latency: std::time::Duration::from_millis(5), ..SimConfig::default() });
    let mail = events(150, 2, (10, 2000));
    world.dump(&mail);
    let (one, two) = (world.start_replay(), world.start_replay());
    let (one, two) = (one.wait(), two.wait());
    world.check(&one);
    world.check(&two);
    for receipt in [one.receipt(), two.receipt()] {
        assert!(receipt.ok, "{receipt:?}");
        assert_eq!((receipt.attachments, receipt.archived + receipt.known), (300, 300));
    }
    assert_eq!((world.jelly.stats().exchanges, world.jelly.exchanges_max()), (300, 1));
    let ledger = world.ledger();
    assert_eq!(ledger.ids("archived"), ids(&mail));
    assert_eq!(ledger.outcomes.len(), 300);
}

#[test]
fn two_replays_of_different_dumps_at_once_lose_nothing() {
    let world = World::with(SimConfig { latency: std::time::Duration::from_millis(5), ..SimConfig::default() });
    let mail = events(160, 1, (10, 2000));
    write_lines(&world.path("one/mail.jsonl"), &mail[..100]);
    write_lines(&world.path("two/mail.jsonl"), &mail[60..]);
    let start = |dump| world.start(world.command(&["replay", dump, "--archive", "archive", "--json"]));
    let (one, two) = (start("one"), start("two"));
    let (one, two) = (one.wait().receipt(), two.wait().receipt());
    assert!(one.ok && two.ok, "{one:?} {two:?}");
    assert_eq!((one.attachments, two.attachments), (100, 100));
    assert_eq!((world.jelly.stats().exchanges, world.jelly.exchanges_max()), (160, 1));
    assert_eq!(world.ledger().ids("archived"), ids(&mail));
}

#[test]
fn standard_input_is_archived_while_it_is_still_coming() {
    let world = World::new();
    let mail = events(100, 1, (10, 100));
    let mut process = world.start_with_stdin(world.command(&["replay", "-", "--archive", "archive", "--json"]));
    let mut input = process.stdin();
    std::io::Write::write_all(&mut input, lines(&mail[..80]).as_bytes()).unwrap();
    until("what has come so far is fetched", || world.jelly.stats().exchanges >= 64);
    std::io::Write::write_all(&mut input, lines(&mail[80..]).as_bytes()).unwrap();
    drop(input);
    let receipt = process.wait().receipt();
    assert_eq!((receipt.archived, receipt.api_requests), (100, 100));
}

#[test]
fn each_team_has_its_own_place_in_a_shared_archive() {
    let world = World::new();
    let mail = events(6, 1, (10, 100));
    world.dump(&mail);
    world.settings("[teams.default]\narchive_key = \"harbour\"\n");
    let receipt = world.replay();
    assert!(receipt.ok, "{receipt:?}");
    let ledger = world.ledger();
    assert!(ledger.merged.keys().all(|(team, _)| team == "harbour"), "{:?}", ledger.merged.keys());
}

#[test]
fn a_record_of_an_inbox_is_read_though_its_envelope_makes_it_larger_than_a_payload_may_be() {
    let world = World::new();
    world.settings("[source]\nmax_payload_bytes = \"2 KiB\"\n");
    let mut mail = events(1, 1, (10, 10));
    let text = serde_json::Value::String("\"".repeat(400));
    mail[0]["data"]["message"]["text_body"] = text;
    let body = mail[0].to_string();
    let record = format!(
        r#"{{"v":1,"team":"default","received_at":"2026-01-01T00:00:00Z","source":"webhook","body":{}}}"#,
        serde_json::Value::String(body.clone())
    );
    assert!(body.len() < 2048 && record.len() > 2048, "{} {}", body.len(), record.len());
    std::fs::create_dir(world.path("dump")).unwrap();
    std::fs::write(world.path("dump/copy.jsonl"), record).unwrap();
    let receipt = world.replay();
    assert_eq!((receipt.archived, receipt.rejected), (1, 0), "{receipt:?}");
}
