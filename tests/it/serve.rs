//! `jellyjar serve`: what was accepted is archived, once, whatever happens to the process; and what it says to whom.

mod care;
mod database;
mod disks;
mod examples;
mod halves;
mod inboxes;
mod lanes;
mod load;
mod notifications;
mod outages;
mod settings;
mod strangers;
mod sweep;
mod systemd;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jellyjar::sim::SimConfig;
use serde_json::Value;

use crate::support::{
    Ledger, SECRET, SERVE, Sender, Serve, TOKEN, World, archived, attachments, events, events_from, files, ids, until,
    until_archived,
};

/// A world whose settings fit a service.
fn world() -> World {
    let world = World::new();
    world.settings(SERVE);
    world
}

/// The inbox lines in the copies below `payloads/v1`, as the webhook bodies that they hold.
fn copied_bodies(world: &World, team: &str) -> Vec<Value> {
    let paths = files(&world.archive().join("payloads/v1").join(team));
    let mut bodies = Vec::new();
    for path in paths.iter().filter(|path| path.to_str().unwrap().ends_with(".jsonl.zst")) {
        let text = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
        assert_eq!(text.last(), Some(&b'\n'), "{} is cut off", path.display());
        for line in std::str::from_utf8(&text).unwrap().lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            assert_eq!((record["v"].as_u64(), record["source"].as_str()), (Some(1), Some("webhook")), "{line}");
            bodies.push(serde_json::from_str(record["body"].as_str().unwrap()).unwrap());
        }
    }
    bodies
}

/// The segments that the inbox still has.
fn segments(world: &World) -> Vec<std::path::PathBuf> {
    let mut found = files(&world.path(".local/state/jellyjar/inbox"));
    found.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    found
}

/// Checks the end of a world in which all of `mail` was accepted: everything is there once, with the right bytes, and
/// nothing was asked for twice.
fn is_archived_once(world: &World, mail: &[Value]) {
    let ledger = world.ledger();
    assert_eq!(ledger.ids("archived"), ids(mail));
    assert!(ledger.raw_counts().values().all(|count| *count == 1), "an outcome was written down twice");
    world.dump(mail);
    let before = world.jelly.stats().api_requests;
    let receipt = world.replay();
    assert_eq!((receipt.known, receipt.archived), (ids(mail).len() as u64, 0), "{receipt:?}");
    assert_eq!(world.jelly.stats().api_requests, before, "a replay asked again for what is archived");
    assert_eq!(world.fair_weather().digests(), ledger.digests(), "other bytes than those of a replay");
}

#[test]
fn webhooks_are_archived_and_the_inbox_moves_into_the_archive() {
    let world = world();
    let mail = events(30, 2, (10, 3000));
    let serve = Serve::start(&world);
    for event in &mail {
        serve.post(event);
    }
    // Jelly may send one again.
    serve.post(&mail[0]);
    until_archived(&world.archive(), &ids(&mail));
    until("the inbox is copied", || copied_bodies(&world, "default").len() == mail.len() + 1);
    until("it is removed then", || segments(&world).is_empty());
    assert_eq!(copied_bodies(&world, "default")[..30], mail);
    let (status, metrics) = serve.ask("/metrics");
    assert_eq!(status, 200);
    for line in [r#"jellyjar_webhooks_total{team="default",result="accepted"} 31"#, "jellyjar_build_info"] {
        assert!(metrics.contains(line), "{line} is not among the metrics:\n{metrics}");
    }
    assert_eq!(serve.ask("/healthz").0, 200);
    assert!(serve.is_ready());
    serve.stop(&world);
    assert_eq!((world.jelly.stats().exchanges, world.jelly.exchanges_max()), (60, 1));
    is_archived_once(&world, &mail);
}

#[test]
fn a_webhook_is_archived_within_two_seconds() {
    let world = world();
    let mail = events(5, 1, (100, 1000));
    let serve = Serve::start(&world);
    until("it is ready", || serve.is_ready());
    // The best of five: what else this machine does meanwhile is not the service's doing.
    let mut best = Duration::MAX;
    for event in &mail {
        let began = Instant::now();
        serve.post(event);
        until_archived(&world.archive(), &ids(std::slice::from_ref(event)));
        best = best.min(began.elapsed());
    }
    assert!(best < Duration::from_secs(2), "the fastest took {best:?}");
    serve.stop(&world);
}

#[test]
fn a_stop_in_the_middle_loses_nothing() {
    let world = World::with(SimConfig { latency: Duration::from_millis(20), ..SimConfig::default() });
    world.settings(&format!("{SERVE}[worker]\nconcurrency = 2\n"));
    let mail = events(60, 1, (10, 2000));
    let serve = Serve::start(&world);
    for event in &mail {
        serve.post(event);
    }
    let ended = serve.stop(&world);
    assert!(ended.stderr.contains("Stopping"), "{}", ended.stderr);
    assert!(archived(&world.archive()).len() < 60, "it was to be stopped in the middle");
    let serve = Serve::start(&world);
    until_archived(&world.archive(), &ids(&mail));
    serve.stop(&world);
    is_archived_once(&world, &mail);
}

/// Posts from several threads at once; gives what was accepted, and the rest. Ends early once nobody answers.
fn post_at_once(sender: Sender, mail: &[Value], accepted: &AtomicUsize) -> (Vec<Value>, Vec<Value>) {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new((Vec::new(), Vec::new())));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(event) = mail.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let status = sender.post("default", SECRET, event.to_string().as_bytes());
                    let mut outcomes = outcomes.lock().unwrap();
                    if status == Some(200) {
                        accepted.fetch_add(1, Ordering::Relaxed);
                        outcomes.0.push(event.clone());
                    } else {
                        assert_eq!(status, None, "neither accepted nor cut off");
                        outcomes.1.push(event.clone());
                    }
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

#[test]
fn a_kill_while_webhooks_come_in_loses_nothing_and_repeats_nothing() {
    let world = world();
    let mut all_accepted = Vec::new();
    for life in 0..3_u64 {
        let mail = events_from(life * 1000, 400, 1, (10, 2000));
        let serve = Serve::start(&world);
        let accepted = AtomicUsize::new(0);
        let (sender, mail) = (serve.sender(), &mail);
        let (took, _cut_off) = std::thread::scope(|scope| {
            let posting = scope.spawn(|| post_at_once(sender, mail, &accepted));
            let wanted = 60 + usize::try_from(life).unwrap() * 70;
            until("enough is accepted", || accepted.load(Ordering::Relaxed) >= wanted);
            world.check(&serve.process.kill());
            posting.join().unwrap()
        });
        assert!(took.len() < 400, "it was to be killed in the middle");
        all_accepted.extend(took);
    }
    // What is archived by now is never asked for again.
    let done: BTreeSet<String> = archived(&world.archive()).into_iter().collect();
    let asked = world.jelly.exchanges();
    let serve = Serve::start(&world);
    until_archived(&world.archive(), &ids(&all_accepted));
    until("nothing is pending", || {
        let pending = "SELECT CAST(count(*) AS TEXT) FROM attachments WHERE state NOT IN ('archived')";
        world.catalog(pending) == ["0"]
    });
    serve.stop(&world);
    let asked_now = world.jelly.exchanges();
    for id in &done {
        assert_eq!(asked_now[id], asked[id], "{id} was archived, and asked for again");
    }
    let ledger = world.ledger();
    assert!(ids(&all_accepted).is_subset(&ledger.ids("archived")));
    assert!(ledger.raw_counts().values().all(|count| *count == 1), "an outcome was written down twice");
}

#[test]
fn a_lost_catalog_is_made_anew_from_archive_and_copies() {
    let world = world();
    let mail = events(20, 1, (10, 1000));
    let serve = Serve::start(&world);
    for event in &mail {
        serve.post(event);
    }
    until_archived(&world.archive(), &ids(&mail));
    until("the inbox is copied", || copied_bodies(&world, "default").len() == 20 && segments(&world).is_empty());
    serve.stop(&world);
    for path in files(&world.archive().join(".jellyjar")) {
        if path.file_name().unwrap().to_str().unwrap().starts_with("catalog.sqlite") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let serve = Serve::start(&world);
    until("it is ready", || serve.is_ready());
    let more = events_from(1000, 3, 1, (10, 1000));
    for event in &more {
        serve.post(event);
    }
    until_archived(&world.archive(), &ids(&more));
    serve.stop(&world);
    assert_eq!((world.jelly.stats().exchanges, world.jelly.exchanges_max()), (23, 1));
    is_archived_once(&world, &[mail, more].concat());
}

#[test]
fn a_copy_of_what_was_never_archived_is_taken_in() {
    // The catalog was lost while the team was paused for its token: only the copy knows of what was pending.
    let world = world();
    let mail = events(5, 1, (10, 1000));
    world.jelly.set_token("another");
    let serve = Serve::start(&world);
    for event in &mail {
        serve.post(event);
    }
    until("the inbox is copied", || copied_bodies(&world, "default").len() == 5 && segments(&world).is_empty());
    serve.stop(&world);
    assert_eq!(archived(&world.archive()), [""; 0]);
    world.lose_catalog();
    world.jelly.set_token(TOKEN);
    let serve = Serve::start(&world);
    until_archived(&world.archive(), &ids(&mail));
    serve.stop(&world);
    let ledger: Ledger = world.ledger();
    assert_eq!(ledger.ids("archived"), ids(&mail));
}

#[test]
fn replay_and_status_work_beside_a_service() {
    let world = world();
    let serve = Serve::start(&world);
    let (live, saved) = (events(10, 1, (10, 1000)), events_from(1000, 40, 1, (10, 1000)));
    for event in &live {
        serve.post(event);
    }
    world.dump(&saved);
    let receipt = world.replay();
    assert_eq!((receipt.attachments, receipt.archived, receipt.ok), (40, 40, true), "{receipt:?}");
    until_archived(&world.archive(), &ids(&live));
    // Whichever of the two had the work, the service has it in the end.
    until("it works", || {
        let status = world.run(&["status", "--archive", "archive", "--json"]).json();
        assert!(status["trouble"].is_null(), "{status}");
        status["worker_running"] == true
    });
    serve.stop(&world);
    assert_eq!((world.jelly.stats().exchanges, world.jelly.exchanges_max()), (50, 1));
    is_archived_once(&world, &[live, saved].concat());
}
