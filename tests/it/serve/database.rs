//! A catalog in PostgreSQL that does not answer.

use std::process::Command;

use url::Url;

use super::*;
use crate::support::{Database, Proxy, Worker};

#[test]
fn a_database_that_goes_silent_is_told_of_as_the_catalog_and_reached_anew() {
    let Some(database) = Database::create() else { return };
    let mut url: Url = database.url().parse().unwrap();
    let proxy = Proxy::start((url.host_str().unwrap(), url.port().unwrap()));
    url.set_port(Some(proxy.address().port())).unwrap();
    let world = World::new();
    let more = "[postgres]\nanswer_timeout = \"2s\"\n[worker]\nlease_duration = \"10s\"\n";
    world.settings(&format!("{SERVE}{more}"));
    let through = |mut command: Command| {
        command.env("JELLYJAR_CATALOG", url.as_str()).env("JELLY_WEBHOOK_SECRET", SECRET);
        command
    };
    let receiver = Serve::start_with(&world, through(world.command(&["receive", "--archive", "archive"])));
    until("the receiver is ready", || receiver.is_ready());
    let worker = Worker::start_with(&world, through(Worker::command(&world)));
    let mail = events(5, 1, (10, 1000));
    for event in &mail {
        receiver.post(event);
    }
    until_archived(&world.archive(), &ids(&mail));

    // Nothing is forwarded, and nobody hears of an end.
    proxy.refuse(true);
    proxy.fall_silent();
    let late = events_from(1000, 5, 1, (10, 1000));
    for event in &late {
        receiver.post(event);
    }
    let said = || [receiver.process.stderr(), worker.process.stderr()];
    until("both give the connection up", || said().iter().all(|said| said.contains("did not answer within 2 s")));
    until("it is the catalog that is told of", || {
        let troubles = receiver.troubles();
        let names: Vec<&str> = troubles.keys().map(String::as_str).collect();
        names.len() == 1 && names[0].starts_with("catalog:postgres://") && !names[0].contains(database.password())
    });
    let metrics = receiver.ask("/metrics").1;
    let archive = metrics.lines().find(|line| line.starts_with("jellyjar_ready{dependency=\"archive:")).unwrap();
    assert!(archive.ends_with(" 1"), "{archive}");
    assert_eq!(receiver.ask("/healthz").0, 200);

    proxy.refuse(false);
    until_archived(&world.archive(), &ids(&late));
    until("both are ready", || receiver.is_ready() && worker.ask("/readyz").0 == 200);
    for said in said() {
        let (_, after) = said.rsplit_once("trying again").unwrap();
        assert!(after.contains("are open again"), "the log does not say that it is over: {said}");
    }

    // Silent again: that holds up no end for longer than an answer is waited for.
    proxy.fall_silent();
    let began = Instant::now();
    worker.stop(&world);
    receiver.stop(&world);
    assert!(began.elapsed() < Duration::from_secs(25), "stopping took {:?}", began.elapsed());
    assert_eq!(world.ledger().ids("archived"), ids(&[mail, late].concat()));
    assert_eq!(world.jelly.exchanges_max(), 1);
}

#[test]
fn a_worker_with_a_stale_token_stops_no_other() {
    let Some(database) = Database::create() else { return };
    let world = World::new();
    world.settings(SERVE);
    let on_database = |mut command: Command| {
        command.env("JELLYJAR_CATALOG", database.url()).env("JELLY_WEBHOOK_SECRET", SECRET);
        command
    };
    let receiver = Serve::start_with(&world, on_database(world.command(&["receive", "--archive", "archive"])));
    until("the receiver is ready", || receiver.is_ready());
    let mut command = on_database(Worker::command(&world));
    command.env("JELLY_API_TOKEN", "stale");
    let stale = Worker::start_with(&world, command);
    let mail = events(5, 1, (10, 1000));
    for event in &mail {
        receiver.post(event);
    }
    let pauses = || database.query("SELECT reason FROM pauses");
    until("the team is paused", || pauses().len() == 1);
    let named = format!("process {} on ", stale.process.id());
    assert!(pauses()[0].contains(&named), "{:?}", pauses());

    let good = Worker::start_with(&world, on_database(Worker::command(&world)));
    until_archived(&world.archive(), &ids(&mail));
    let is_quiet = || stale.process.stderr().contains("asks for nothing until it gets another");
    until("the stale one has seen the pause end, and that its own token is refused still", is_quiet);
    let refused = world.jelly.stats().unauthorized;

    // Another's token is refused: whose own is good ends that.
    let other = "INSERT INTO pauses (scope, until, reason)
        SELECT 'team:' || id, 9223372036854775807, 'of another' FROM teams";
    database.query(other);
    until("the pause is ended", || pauses().is_empty());
    let late = events_from(1000, 5, 1, (10, 1000));
    for event in &late {
        receiver.post(event);
    }
    until_archived(&world.archive(), &ids(&late));
    assert_eq!(pauses(), [""; 0]);
    let more = world.jelly.stats().unauthorized - refused;
    assert!(more <= 1, "{more} requests more with the stale token");
    for worker in [stale, good] {
        worker.stop(&world);
    }
    receiver.stop(&world);
    assert_eq!(world.jelly.exchanges_max(), 1);
}
