//! `jellyjar backfill`: everything that was there is archived, whatever the list does meanwhile, with counted requests.

use std::collections::BTreeSet;
use std::time::Duration;

use jellyjar::sim::corpus::{CorpusConfig, Profile};
use jellyjar::sim::{Schedule, SimConfig};
use serde_json::Value;

use crate::support::{Ended, SERVE, Serve, World, until};

/// Plain mail: conversations of 3 messages with a file each, in `percent` of 100.
fn mail(conversations: u64, percent: u64) -> CorpusConfig {
    CorpusConfig {
        profile: Profile::Plain,
        messages: conversations * 3,
        messages_per_conversation: 3,
        with_files_percent: percent,
        sizes: (10, 200),
        ..CorpusConfig::default()
    }
}

fn world(conversations: u64, percent: u64) -> World {
    World::with(SimConfig { mail: mail(conversations, percent), ..SimConfig::default() })
}

const BACKFILL: [&str; 4] = ["backfill", "--archive", "archive", "--json"];

fn backfill(world: &World, more: &[&str]) -> Ended {
    world.run(&[&BACKFILL[..], more].concat())
}

/// What the walk of a receipt has counted.
fn walked(ended: &Ended, key: &str) -> u64 {
    ended.json()["walk"][key].as_u64().unwrap_or_else(|| panic!("{key}: {ended:?}"))
}

/// Checks that an archive of all mail holds exactly what there is, each asked for once.
fn is_complete(world: &World) {
    let truth: BTreeSet<String> = world.jelly.truth().into_iter().map(|known| known.id).collect();
    assert_eq!(world.ledger().ids("archived"), truth);
}

#[test]
fn everything_that_was_there_is_archived_and_a_second_backfill_only_lists() {
    let world = world(250, 20);
    let ended = backfill(&world, &[]);
    let receipt = ended.receipt();
    assert_eq!((receipt.attachments, receipt.archived, receipt.ok), (156, 156, true), "{receipt:?}");
    is_complete(&world);
    let stats = world.jelly.stats();
    // Three pages, one look whether it is still, one at each status, and one for what has come while messages were read; one
    // page of messages for each conversation.
    assert_eq!((stats.conversation_pages, stats.message_pages, stats.exchanges), (3 + 1 + 5 + 1, 52, 156));
    assert_eq!((walked(&ended, "list_requests"), walked(&ended, "message_requests")), (10, 52));

    world.jelly.reset();
    let again = backfill(&world, &[]);
    assert_eq!((walked(&again, "to_read"), walked(&again, "known_attachments")), (0, 156));
    let stats = world.jelly.stats();
    assert_eq!((stats.conversation_pages, stats.message_pages, stats.exchanges), (10, 0, 0));

    // What was read is known by the journal: after `rebuild` nothing is fetched again.
    world.run(&["rebuild", "--archive", "archive", "--json"]);
    let rebuilt = backfill(&world, &[]).receipt();
    assert_eq!((rebuilt.known, rebuilt.archived), (156, 0), "{rebuilt:?}");
    assert_eq!(world.jelly.stats().exchanges, 0);
}

#[test]
fn mail_that_arrives_while_the_list_is_walked_is_not_missed() {
    let world = world(1_000, 30);
    // All of it within the first pass: conversations jump from pages that are not yet read to the top.
    world.jelly.set_schedule(Some(Schedule { every: 1, count: 8, mail: jellyjar::sim::Delivery::default() }));
    let ended = backfill(&world, &[]);
    assert!(ended.receipt().ok, "{ended:?}");
    assert_eq!(world.jelly.stats().arrived, 8);
    is_complete(&world);
    assert_eq!(world.jelly.stats().exchanges, world.jelly.truth().len() as u64);
}

#[test]
fn a_list_that_fails_repeats_itself_or_leaves_entries_out_hides_nothing() {
    for (faults, more) in [
        ("page-loop=at:2", &[][..]),
        ("page-422=at:3", &[]),
        ("page-429=at:2, retry-after=1", &[]),
        ("page-500=at:1, page-html=at:2, page-cut=at:3, page-reset=at:4", &[]),
        ("page-repeat=1", &[]),
        ("page-repeat=1, page-vanish=at:2", &[]),
        ("page-vanish=at:2", &["--thorough"]),
        ("count-missing=0.5, count-null=0.3", &[]),
        ("messages-422=first:1", &[]),
        ("messages-loop=first:1", &[]),
        ("messages-429=at:2, retry-after=1", &[]),
        ("messages-500=first:2", &[]),
        ("messages-html=first:1", &[]),
    ] {
        let world = world(350, 10);
        world.jelly.set_faults(&faults.replace(", ", ","));
        let ended = backfill(&world, more);
        assert!(ended.receipt().ok, "{faults}: {ended:?}");
        is_complete(&world);
        assert_eq!(world.jelly.exchanges_max(), 1, "{faults}");
    }
}

#[test]
fn what_comes_while_messages_are_read_is_read_too() {
    let world = world(350, 10);
    world.jelly.set_schedule(Some(Schedule { every: 3, count: 20, mail: jellyjar::sim::Delivery::default() }));
    let ended = backfill(&world, &[]);
    assert!(ended.receipt().ok, "{ended:?}");
    assert_eq!(world.jelly.stats().arrived, 20);
    is_complete(&world);
}

#[test]
fn a_list_that_leads_in_a_circle_for_ever_is_told_and_so_are_messages_that_are_not_there() {
    let world = world(350, 10);
    world.jelly.set_faults("page-loop=1");
    let ended = backfill(&world, &[]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.json()["notes"].to_string().contains("circle"), "{ended:?}");
    // The conversations are there: that their messages are not must pass.
    world.jelly.set_faults("messages-404=0.3");
    let ended = backfill(&world, &[]);
    assert_eq!((ended.code(), walked(&ended, "gone")), (Some(1), 0), "{ended:?}");
    world.jelly.set_faults("");
    assert!(backfill(&world, &[]).receipt().ok);
    is_complete(&world);
}

#[test]
fn conversations_that_are_gone_are_counted_and_come_back_where_they_were_not() {
    let world = world(350, 10);
    world.jelly.set_faults("conversation-gone=0.3");
    let ended = backfill(&world, &[]);
    let (receipt, gone) = (ended.receipt(), walked(&ended, "gone"));
    let all = world.jelly.truth().len() as u64;
    // Each has 3 files. What is gone is nothing to be done about.
    assert!(gone > 0 && receipt.ok, "{ended:?}");
    assert_eq!((receipt.archived, walked(&ended, "failed")), (all - 3 * gone, 0), "{ended:?}");
    // One look at the messages of each, and one at each that has none.
    assert_eq!(walked(&ended, "message_requests"), all / 3 + gone);
    world.jelly.set_faults("");
    let ended = backfill(&world, &[]);
    assert_eq!((ended.receipt().archived, walked(&ended, "gone")), (3 * gone, 0), "{ended:?}");
    is_complete(&world);
}

#[test]
fn conversations_that_show_no_messages_are_left_for_later_and_many_end_the_walk() {
    let world = world(350, 10);
    world.jelly.set_faults("messages-empty=1");
    let ended = backfill(&world, &[]);
    let notes = ended.json()["notes"].to_string();
    assert!(ended.code() == Some(1) && notes.contains("10 conversations in a row"), "{ended:?}");
    assert!(notes.contains("it is listed with messages (3), and shows none"), "{ended:?}");
    assert_eq!(world.jelly.stats().message_pages, 10, "no request more is spent");

    // Where it is some, the others go on, and those that showed none twice are told.
    world.jelly.set_faults("messages-empty=0.5");
    let ended = backfill(&world, &[]);
    let (left, all) = (walked(&ended, "failed"), world.jelly.truth().len() as u64);
    assert!(left > 0 && ended.code() == Some(1), "{ended:?}");
    assert_eq!((ended.receipt().archived, walked(&ended, "gone")), (all - 3 * left, 0), "{ended:?}");
    world.jelly.set_faults("");
    assert!(backfill(&world, &[]).receipt().ok);
    is_complete(&world);
}

#[test]
fn a_killed_backfill_goes_on_where_it_was() {
    let config = SimConfig { mail: mail(300, 50), latency: Duration::from_millis(2), ..SimConfig::default() };
    let world = World::with(config);
    let process = world.start(world.command(&BACKFILL));
    until("it lists", || world.jelly.stats().conversation_pages >= 2);
    process.kill();
    let process = world.start(world.command(&BACKFILL));
    until("it reads", || world.jelly.stats().message_pages >= 60);
    process.kill();
    let ended = backfill(&world, &[]);
    let receipt = ended.receipt();
    assert_eq!((receipt.attachments, receipt.known + receipt.archived), (450, 450), "{receipt:?}");
    is_complete(&world);
    let stats = world.jelly.stats();
    // What was asked for when the kill came is asked for once more, and no more.
    assert!(stats.conversation_pages <= 9 + 2, "{stats:?}");
    assert!((150..=152).contains(&stats.message_pages), "{stats:?}");
}

#[test]
fn ctrl_c_keeps_the_walk_and_the_same_command_goes_on() {
    let config = SimConfig { mail: mail(200, 50), latency: Duration::from_millis(5), ..SimConfig::default() };
    let world = World::with(config);
    let process = world.start(world.command(&BACKFILL));
    until("it reads", || world.jelly.stats().message_pages >= 20);
    process.interrupt();
    let ended = process.wait();
    assert!(ended.receipt().interrupted, "{ended:?}");
    let ended = backfill(&world, &[]);
    assert!(ended.stderr.contains("going on with the backfill"), "{ended:?}");
    assert_eq!((ended.receipt().ok, ended.receipt().attachments), (true, 300));
    is_complete(&world);
    assert!(world.jelly.stats().message_pages <= 101, "{:?}", world.jelly.stats());
}

#[test]
fn an_estimate_fetches_nothing_and_the_backfill_goes_on_from_it() {
    let world = world(250, 20);
    let ended = backfill(&world, &["--estimate"]);
    let estimate: Value = ended.json();
    assert_eq!(ended.code(), Some(0));
    for (key, expected) in
        [("listed", 250), ("conversations", 52), ("pages", 52), ("attachments", 156), ("requests", 208)]
    {
        assert_eq!(estimate[key], expected, "{key}: {estimate}");
    }
    let stats = world.jelly.stats();
    assert_eq!((stats.conversation_pages, stats.message_pages, stats.exchanges), (9, 0, 0));
    assert!(backfill(&world, &[]).receipt().ok);
    is_complete(&world);
    // A look at the top for what has come since, and one for what has come while messages were read.
    assert_eq!(world.jelly.stats().conversation_pages, 9 + 2);
}

#[test]
fn an_estimate_lowers_no_wish_for_all_and_reads_nothing_where_there_is_one() {
    let config = SimConfig { mail: mail(300, 50), latency: Duration::from_millis(2), ..SimConfig::default() };
    let world = World::with(config);
    let process = world.start(world.command(&BACKFILL));
    until("it lists", || world.jelly.stats().conversation_pages >= 2);
    process.kill();
    assert_eq!(world.jelly.stats().message_pages, 0);
    let ended = backfill(&world, &["--estimate"]);
    assert_eq!((ended.code(), &ended.json()["pages"]), (Some(0), &150.into()), "{ended:?}");
    assert_eq!(world.jelly.stats().message_pages, 0, "an estimate reads no messages");
    assert_eq!(world.catalog("SELECT wish FROM walks"), ["all"]);
    assert!(backfill(&world, &[]).receipt().ok);
    is_complete(&world);
}

#[test]
fn beside_a_service_the_service_walks_and_the_command_tells_how_far_it_is() {
    let world = world(200, 50);
    world.settings(SERVE);
    let serve = Serve::start(&world);
    until("it is ready", || serve.is_ready());
    let ended = backfill(&world, &[]);
    let receipt = ended.receipt();
    assert_eq!((receipt.attachments, receipt.archived, receipt.ok), (300, 300, true), "{receipt:?}");
    // One walks; of a catalog that many share, both fetch.
    let follows = ended.stderr.contains("another jellyjar works on this archive");
    assert_eq!((follows, &ended.json()["followed"]), (!world.is_on_postgres(), &follows.into()), "{ended:?}");
    let again = world.run(&["retry", "--archive", "archive"]);
    if follows {
        assert_eq!(receipt.api_requests, 0);
        assert!(again.stdout.contains("the jellyjar that works on this archive makes the others"), "{again:?}");
    }
    serve.stop(&world);
    is_complete(&world);
}

#[test]
fn filters_are_looked_up_and_keep_to_what_they_name() {
    let world = World::with(SimConfig {
        mail: CorpusConfig { messages: 90, ..CorpusConfig::default() },
        ..SimConfig::default()
    });
    let ended = backfill(&world, &["--label", "no such label"]);
    assert_eq!(ended.code(), Some(2), "{ended:?}");
    let error = ended.json()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with("Jelly has no label \"no such label\"; there are: Invoices"), "{error}");
    let all = backfill(&world, &["--estimate"]).json()["listed"].as_u64().unwrap();
    let archived = backfill(&world, &["--estimate", "--status", "archived"]).json()["listed"].as_u64().unwrap();
    assert!(archived < all, "{archived} of {all}");
    let none = backfill(&world, &["--since", "2099-01-01"]);
    assert_eq!((walked(&none, "conversations"), none.receipt().ok), (0, true));
}

#[test]
fn a_refused_token_ends_it_with_its_own_exit_code() {
    let world = world(20, 50);
    world.jelly.set_token("another");
    let ended = backfill(&world, &[]);
    assert_eq!(ended.code(), Some(3), "{ended:?}");
}
