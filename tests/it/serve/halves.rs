//! `receive` and `work`: the halves of `serve`, as processes of their own, with a catalog between them.

use std::io::Write as _;
use std::process::Command;
use std::time::Instant;

use super::*;
use crate::support::Worker;

/// A receiver that knows no token.
fn receive(world: &World) -> Command {
    let mut command = world.command(&["receive", "--archive", "archive"]);
    command.env("JELLY_WEBHOOK_SECRET", SECRET).env_remove("JELLY_API_TOKEN");
    command
}

/// A number in the catalog.
fn count(world: &World, query: &'static str) -> usize {
    world.catalog(query)[0].parse().unwrap()
}

const PENDING: &str = "SELECT CAST(count(*) AS TEXT) FROM attachments WHERE state = 'pending'";
const LEASED: &str = "SELECT CAST(count(*) AS TEXT) FROM attachments WHERE lease_token IS NOT NULL";

#[test]
fn what_a_receiver_without_a_token_takes_a_worker_without_an_inbox_archives() {
    let world = world();
    // One configuration for both machines; the token's file is on one of them alone.
    world.settings(&format!("{SERVE}[teams.default]\ntoken_file = \"elsewhere\"\n"));
    let receiver = Serve::start_with(&world, receive(&world));
    until("the receiver is ready", || receiver.is_ready());
    let mail = events(10, 2, (10, 1000));
    for event in &mail {
        receiver.post(event);
    }
    until("all is taken in", || count(&world, PENDING) == 20);
    until("the inbox is copied", || copied_bodies(&world, "default").len() == 10 && segments(&world).is_empty());
    assert_eq!((world.jelly.stats().api_requests, count(&world, LEASED)), (0, 0));

    let mut command = Worker::command(&world);
    command.env("HOME", world.path("other"));
    let worker = Worker::start_with(&world, command);
    until_archived(&world.archive(), &ids(&mail));
    // What comes while both run.
    let more = events_from(1000, 5, 1, (10, 1000));
    for event in &more {
        receiver.post(event);
    }
    until_archived(&world.archive(), &ids(&more));
    until("the worker is ready", || worker.ask("/readyz").0 == 200);
    assert!(!worker.ask("/readyz").1.contains("inbox"), "{}", worker.ask("/readyz").1);
    assert!(receiver.ask("/readyz").1.contains("inbox"), "{}", receiver.ask("/readyz").1);
    worker.stop(&world);
    assert!(!world.path("other/.local/state/jellyjar/inbox").exists(), "a worker has made an inbox");
    assert!(receiver.is_ready());
    receiver.stop(&world);
    assert_eq!((world.jelly.stats().exchanges, world.jelly.exchanges_max()), (25, 1));
    is_archived_once(&world, &[mail, more].concat());
}

#[test]
fn a_worker_that_is_told_to_stop_gives_its_leases_back_and_the_next_goes_on() {
    let world = World::with(SimConfig { latency: Duration::from_millis(20), ..SimConfig::default() });
    world.settings(&format!("{SERVE}[worker]\nconcurrency = 2\n"));
    let receiver = Serve::start_with(&world, receive(&world));
    until("there is a catalog", || receiver.is_ready());
    let mail = events(60, 1, (10, 2000));
    for event in &mail {
        receiver.post(event);
    }
    until("all is taken in", || count(&world, PENDING) == 60);
    let worker = Worker::start(&world);
    until("it works", || !archived(&world.archive()).is_empty());
    worker.stop(&world);
    assert_eq!(count(&world, LEASED), 0);
    assert!(count(&world, PENDING) > 0, "it was to be stopped in the middle");
    let worker = Worker::start(&world);
    until_archived(&world.archive(), &ids(&mail));
    worker.stop(&world);
    receiver.stop(&world);
    is_archived_once(&world, &mail);
}

#[test]
fn of_two_workers_on_one_machine_each_can_do_without_the_other() {
    let world = world();
    let receiver = Serve::start_with(&world, receive(&world));
    let first = Worker::start(&world);
    until("the first is ready", || first.ask("/readyz").0 == 200);
    let second = Worker::start(&world);
    until("the second is ready", || second.ask("/readyz").0 == 200);
    let is_following = || second.process.stderr().contains("another jellyjar works on this archive");
    if !world.is_on_postgres() {
        until("the second follows", is_following);
    }
    let mail = events(20, 1, (10, 1000));
    for event in &mail {
        receiver.post(event);
    }
    until_archived(&world.archive(), &ids(&mail));
    first.stop(&world);
    let more = events_from(1000, 5, 1, (10, 1000));
    for event in &more {
        receiver.post(event);
    }
    until_archived(&world.archive(), &ids(&more));
    second.stop(&world);
    receiver.stop(&world);
    assert_eq!((world.jelly.stats().exchanges, world.jelly.exchanges_max()), (25, 1));
    is_archived_once(&world, &[mail, more].concat());
}

#[test]
fn each_half_says_what_it_is_and_what_it_misses() {
    let world = world();
    let usage = world.run(&["--help"]).stdout;
    for (command, words) in [
        ("serve", "answered with 2xx only once it is durable in the inbox"),
        ("receive", "It asks Jelly for nothing and needs no API token"),
        ("work", "It has no inbox and needs no webhook secret"),
    ] {
        assert!(usage.contains(&format!("\n  {command} ")), "{command}: {usage}");
        let help = world.run(&[command, "--help"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(words) && help.contains(&format!("jellyjar {command} --")), "{help}");
        assert_eq!(help.contains("--listen"), command != "work", "{help}");
    }
    for (missing, command, words) in [
        ("JELLY_WEBHOOK_SECRET", &["receive", "--archive", "archive"][..], "no team has a webhook secret"),
        ("JELLY_API_TOKEN", &["work", "--archive", "archive"], "JELLY_API_TOKEN"),
        ("NOTHING", &["receive"], "archive"),
        ("NOTHING", &["work", "--archive", "archive", "--listen", "127.0.0.1:0"], "--listen"),
    ] {
        let mut command = world.command(command);
        command.env("JELLY_WEBHOOK_SECRET", SECRET).env_remove(missing);
        let ended = world.start(command).wait();
        world.check(&ended);
        assert_eq!(ended.code(), Some(2), "{missing}: {ended:?}");
        assert!(ended.stderr.contains(words), "{missing}: {}", ended.stderr);
    }
}

/// Prints how soon a fleet that has nothing to do has archived what a webhook brings.
#[test]
#[ignore = "a measurement: JELLYJAR_TEST_CATALOG=postgres tests/servers/run --only postgres -- cargo test --release --test it \
            serve::halves::reaction -- --ignored --nocapture"]
fn reaction() {
    const ROUNDS: usize = 50;
    for hears in [true, false] {
        let world = world();
        world.settings(SERVE);
        let receiver = Serve::start_with(&world, receive(&world));
        until("the receiver is ready", || receiver.is_ready());
        if world.is_on_postgres() && !hears {
            // The worker gets no second connection, for hearing.
            world.catalog(
                "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 2', current_database()); END $$",
            );
        }
        let mut command = Worker::command(&world);
        command.env("HOME", world.path("other")).env("JELLYJAR_LOG", "debug");
        let worker = Worker::start_with(&world, command);
        until("the worker is ready", || worker.ask("/readyz").0 == 200);
        let mail = events(ROUNDS as u64 + 1, 1, (10, 1000));
        let mut took = Vec::new();
        for (round, event) in mail.iter().enumerate() {
            // At no fixed time in the rounds of either.
            std::thread::sleep(Duration::from_millis(700 + (round as u64 * 37) % 150));
            let began = Instant::now();
            receiver.post(event);
            until_archived(&world.archive(), &ids(std::slice::from_ref(event)));
            took.push(began.elapsed());
        }
        // The first is about connections.
        took.remove(0);
        took.sort();
        let is_deaf = worker.process.stderr().contains("as nothing is heard");
        assert_eq!(is_deaf, world.is_on_postgres() && !hears);
        let told = format!(
            "{}: median {:?}, 9 of 10 within {:?}, at most {:?}\n",
            if is_deaf { "nothing heard, asking" } else { "hearing" },
            took[ROUNDS / 2],
            took[ROUNDS * 9 / 10],
            took[ROUNDS - 1]
        );
        let _ = std::io::stdout().lock().write_all(told.as_bytes());
        worker.stop(&world);
        receiver.stop(&world);
    }
}
