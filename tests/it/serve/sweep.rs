//! The gap sweep: what no webhook brings is found, counted and told, and nothing new costs one request.

use std::collections::BTreeSet;

use jellyjar::sim::corpus::{CorpusConfig, Profile};
use jellyjar::sim::{Delivery, SimConfig};

use crate::support::{SECRET, SERVE, Serve, World, archived, until, until_archived};

/// A world with some mail from before, in which of 100 conversations `percent` have files; a service there sweeps all the
/// time.
fn world(grace: &str, percent: u64) -> World {
    let mail = CorpusConfig {
        profile: Profile::Plain,
        messages: 600,
        messages_per_conversation: 3,
        with_files_percent: percent,
        sizes: (10, 200),
        ..CorpusConfig::default()
    };
    let world = World::with(SimConfig { mail, ..SimConfig::default() });
    let sweep = format!("every = \"1s\"\ngrace = \"{grace}\"\n[notify]\ndelay = \"0s\"");
    world.settings(&SERVE.replace("every = \"0s\"", &sweep));
    world
}

/// A number among the metrics; 0 where it is not there.
fn metric(serve: &Serve, series: &str) -> f64 {
    let (_, metrics) = serve.ask("/metrics");
    let line = metrics.lines().find(|line| line.starts_with(series));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
}

const RECOVERED: &str = r#"jellyjar_gap_recovered_attachments_total{team="default"}"#;
const LAST: &str = r#"jellyjar_last_sweep_timestamp_seconds{team="default"}"#;
const SILENT: &str = r#"jellyjar_troubles{condition="webhooks_silent"}"#;

/// Waits for two more sweeps: the second has begun after this was called.
fn until_swept(serve: &Serve) {
    for _ in 0..2 {
        let before = metric(serve, LAST);
        until("there is another sweep", || metric(serve, LAST) > before);
    }
}

/// Delivers mail without a webhook; gives the ids.
fn deliver_silently(world: &World, count: u64) -> BTreeSet<String> {
    let mail = Delivery { webhook: false, ..Delivery::default() };
    let ids = (0..count).map(|_| world.jelly.deliver(&mail)["attachments"][0]["id"].as_str().unwrap().to_owned());
    ids.collect()
}

/// Has Jelly tell the service of what comes from now on.
fn switch_on(world: &World, serve: &Serve) {
    world.jelly.set_webhook(&format!("http://{}/webhooks/default", serve.sender().address()), SECRET);
}

#[test]
fn with_all_webhooks_dropped_everything_is_archived_and_told_until_one_comes() {
    let world = world("0s", 0);
    let serve = Serve::start(&world);
    until("it has swept", || metric(&serve, LAST) > 0.0);
    assert!(serve.process.stderr().contains("`jellyjar backfill` fetches what came before"));
    until_swept(&serve);
    let before = world.jelly.stats();

    let ids = deliver_silently(&world, 100);
    until_archived(&world.archive(), &ids);
    until_swept(&serve);
    assert!((metric(&serve, RECOVERED) - 100.0).abs() < 0.5, "{}", serve.ask("/metrics").1);
    until("people are told that no webhook comes", || metric(&serve, SILENT) > 0.5);
    let after = world.jelly.stats();
    assert_eq!(after.exchanges - before.exchanges, 100);
    let listing = |stats: &jellyjar::sim::Stats| stats.conversation_pages + stats.message_pages;
    let beyond = after.api_requests - before.api_requests - (listing(&after) - listing(&before));
    assert!(beyond <= 120, "{beyond} requests beyond the listing pages for 100 attachments");

    // Nothing new: each sweep is one page.
    let pages = world.jelly.stats();
    until_swept(&serve);
    let later = world.jelly.stats();
    assert_eq!(later.message_pages, pages.message_pages);
    assert!((2..=4).contains(&(later.conversation_pages - pages.conversation_pages)), "{pages:?} {later:?}");

    switch_on(&world, &serve);
    world.jelly.deliver(&Delivery::default());
    until("people are told that webhooks come again", || metric(&serve, SILENT) < 0.5);
    serve.stop(&world);
}

#[test]
fn what_webhooks_bring_is_no_gap() {
    let world = world("1s", 0);
    let serve = Serve::start(&world);
    until("it has swept", || metric(&serve, LAST) > 0.0);
    switch_on(&world, &serve);
    let ids: BTreeSet<String> = (0..20)
        .map(|_| world.jelly.deliver(&Delivery::default())["attachments"][0]["id"].as_str().unwrap().to_owned())
        .collect();
    until_archived(&world.archive(), &ids);
    let pages = world.jelly.stats().message_pages;
    until("a sweep has read the conversations", || world.jelly.stats().message_pages >= pages + 15);
    until_swept(&serve);
    assert!(metric(&serve, RECOVERED) < 0.5, "{}", serve.ask("/metrics").1);
    assert!(metric(&serve, SILENT) < 0.5);
    assert_eq!(world.jelly.exchanges_max(), 1);
    serve.stop(&world);
}

#[test]
fn what_came_while_it_was_down_is_found_at_the_start_and_is_no_sign_of_silence() {
    let world = world("0s", 0);
    let serve = Serve::start(&world);
    until("it has swept", || metric(&serve, LAST) > 0.0);
    serve.stop(&world);
    let ids = deliver_silently(&world, 30);
    let serve = Serve::start(&world);
    until_archived(&world.archive(), &ids);
    until_swept(&serve);
    assert!((metric(&serve, RECOVERED) - 30.0).abs() < 0.5);
    assert!(metric(&serve, SILENT) < 0.5);
    serve.stop(&world);
}

#[test]
fn what_stood_in_a_conversation_before_comes_along_and_is_no_gap() {
    let world = world("0s", 100);
    let serve = Serve::start(&world);
    until("it has swept", || metric(&serve, LAST) > 0.0);
    until_swept(&serve);
    // What came before the first sweep is left to a backfill.
    assert_eq!(archived(&world.archive()), Vec::<String>::new());
    let mail = Delivery { conversation: Some("c7".into()), webhook: false, ..Delivery::default() };
    world.jelly.deliver(&mail);
    until("the conversation is archived", || archived(&world.archive()).len() == 4);
    until_swept(&serve);
    assert!((metric(&serve, RECOVERED) - 1.0).abs() < 0.5, "{}", serve.ask("/metrics").1);
    serve.stop(&world);
}
