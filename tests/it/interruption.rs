//! Ctrl-C: the first stops in good order, the second at once; neither loses anything.

use std::time::{Duration, Instant};

use jellyjar::sim::SimConfig;

use crate::support::{World, events, ids, lines, until};

#[test]
fn an_interrupted_replay_ends_soon_with_a_receipt_and_the_next_one_completes_it() {
    let world = World::with(SimConfig { latency: Duration::from_millis(8), ..SimConfig::default() });
    world.settings("[worker]\nconcurrency = 8\n");
    let mail = events(300, 1, (10, 2000));
    world.dump(&mail);
    let process = world.start_replay();
    until("it is in the middle", || world.jelly.stats().exchanges >= 60);
    process.interrupt();
    let began = Instant::now();
    let ended = process.wait();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    world.check(&ended);
    assert_eq!(ended.code(), Some(130));
    let first = ended.receipt();
    assert!(first.interrupted && first.archived > 0 && first.pending > 0, "{first:?}");
    assert_eq!(first.attachments, 300);
    world.ledger().agrees_with(&first);
    assert_eq!(first.api_requests, first.archived, "what was in flight was finished");
    assert!(world.catalog("SELECT attachment_id FROM attachments WHERE lease_token IS NOT NULL").is_empty());

    let second = world.replay();
    assert!(second.ok, "{second:?}");
    assert_eq!((second.known, second.archived), (first.archived, first.pending));
    assert_eq!((world.jelly.stats().exchanges, world.jelly.exchanges_max()), (300, 1));
    assert_eq!(world.ledger().ids("archived"), ids(&mail));
}

#[test]
fn downloads_that_hang_are_released_in_time() {
    let world = World::with_faults("stall=1.0");
    std::fs::write(
        world.path("jellyjar.toml"),
        "[http]\nread_timeout = \"60s\"\n[worker]\nshutdown_timeout = \"1s\"\n",
    )
    .unwrap();
    world.dump(&events(10, 1, (1000, 2000)));
    let process = world.start_replay();
    until("all hang", || world.jelly.stats().storage_requests >= 10);
    process.interrupt();
    let began = Instant::now();
    let receipt = process.wait().receipt();
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(receipt.interrupted, "{receipt:?}");
    assert_eq!((receipt.pending, receipt.failed), (10, 0), "{receipt:?}");
    world.jelly.set_faults("");
    assert_eq!(world.replay().archived, 10);
    assert_eq!(world.jelly.exchanges_max(), 2, "once more for what was in flight");
}

#[test]
fn a_second_ctrl_c_stops_at_once_and_loses_nothing() {
    let world = World::with_faults("stall=1.0");
    std::fs::write(world.path("jellyjar.toml"), "[http]\nread_timeout = \"60s\"\n").unwrap();
    let mail = events(10, 1, (1000, 2000));
    world.dump(&mail);
    let process = world.start_replay();
    until("all hang", || world.jelly.stats().storage_requests >= 10);
    process.interrupt();
    until("the first is answered", || process.stderr().contains("Press Ctrl-C again"));
    let began = Instant::now();
    process.interrupt();
    let ended = process.wait();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(ended.code(), Some(130));
    world.check(&ended);
    world.jelly.set_faults("");
    let receipt = world.replay();
    assert_eq!((receipt.ok, receipt.archived), (true, 10), "{receipt:?}");
    world.ledger().agrees_with(&receipt);
    assert_eq!(world.ledger().ids("archived"), ids(&mail));
}

#[test]
fn an_input_that_never_ends_can_be_interrupted() {
    let world = World::new();
    let mut process = world.start_with_stdin(world.command(&["replay", "-", "--archive", "archive", "--json"]));
    let mut input = process.stdin();
    std::io::Write::write_all(&mut input, lines(&events(100, 1, (10, 100))).as_bytes()).unwrap();
    until("some of it is archived", || world.jelly.stats().exchanges >= 64);
    process.interrupt();
    let began = Instant::now();
    let receipt = process.wait().receipt();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(receipt.interrupted && receipt.archived >= 64, "{receipt:?}");
    drop(input);
}

#[test]
fn a_pause_that_the_service_asked_for_can_be_interrupted() {
    let world = World::with_faults("api-429=1.0,retry-after=100");
    world.dump(&events(5, 1, (10, 100)));
    let process = world.start_replay();
    until("it waits", || world.jelly.stats().exchanges > 0);
    process.interrupt();
    let receipt = process.wait().receipt();
    assert!(receipt.interrupted && receipt.pending == 5, "{receipt:?}");
}
