//! Archives that are not there, or not for one team.

use http::Method;

use super::*;
use crate::support::{Bucket, Mishap, TOKEN};

#[test]
fn a_folder_that_cannot_be_made_yet_costs_nothing_but_time() {
    let world = world();
    std::fs::write(world.path("disk"), "not mounted").unwrap();
    let mut command = world.command(&["serve", "--archive", "disk/archive"]);
    command.env("JELLY_WEBHOOK_SECRET", SECRET);
    let serve = Serve::start_with(&world, command);
    let mail = events(10, 1, (10, 1000));
    for event in &mail {
        serve.post(event);
    }
    until("it says what is wrong", || {
        let (status, text) = serve.ask("/readyz");
        let told: Value = serde_json::from_str(&text).unwrap();
        let dependencies = told["dependencies"].as_array().unwrap();
        let archive = dependencies.iter().find(|one| one["name"].as_str().unwrap().ends_with("disk/archive")).unwrap();
        assert_eq!((status, &told["ready"], &archive["ready"]), (503, &false.into(), &false.into()), "{text}");
        assert_eq!(serve.ask("/healthz").0, 200);
        archive["reason"].as_str().unwrap().contains("disk")
    });
    std::fs::remove_file(world.path("disk")).unwrap();
    std::fs::create_dir(world.path("disk")).unwrap();
    until_archived(&world.path("disk/archive"), &ids(&mail));
    until("it is ready", || serve.is_ready());
    serve.stop(&world);
    assert_eq!(Ledger::sound(&world.path("disk/archive")).ids("archived"), ids(&mail));
    assert_eq!(world.jelly.exchanges_max(), 1);
}

#[test]
fn a_folder_that_is_exchanged_while_it_is_served_gets_nothing() {
    let world = world();
    let serve = Serve::start(&world);
    let mail = events(8, 1, (10, 1000));
    serve.post(&mail[0]);
    until_archived(&world.archive(), &ids(&mail[..1]));
    // Its disk goes, and leaves its mount point behind.
    std::fs::rename(world.archive(), world.path("away")).unwrap();
    std::fs::create_dir(world.archive()).unwrap();
    for event in &mail[1..] {
        serve.post(event);
    }
    until("it says what is wrong", || !serve.is_ready());
    std::fs::remove_dir(world.archive()).expect("nothing was put there");
    std::fs::rename(world.path("away"), world.archive()).unwrap();
    until_archived(&world.archive(), &ids(&mail));
    serve.stop(&world);
    is_archived_once(&world, &mail);
    assert_eq!(world.run(&["verify", "--archive", "archive"]).code(), Some(0));
}

#[test]
fn an_outage_of_jelly_fails_nothing_for_good() {
    let world = world();
    std::fs::write(
        world.path("jellyjar.toml"),
        format!("{SERVE}[retry]\nbase_delay = \"2ms\"\nmax_delay = \"20ms\"\n"),
    )
    .unwrap();
    world.jelly.set_faults("api-503=1");
    let serve = Serve::start(&world);
    let mail = events(3, 1, (10, 1000));
    for event in &mail {
        serve.post(event);
    }
    // More than `max_attempts` for each.
    until("it has tried often", || world.jelly.stats().api_requests > 40);
    world.jelly.set_faults("");
    until_archived(&world.archive(), &ids(&mail));
    serve.stop(&world);
    assert_eq!(Ledger::sound(&world.archive()).ids("archived"), ids(&mail));
}

/// Lets every request to a bucket be lost.
fn cut_off(bucket: &Bucket) {
    for method in [Method::GET, Method::PUT, Method::HEAD, Method::POST, Method::DELETE] {
        bucket.gate.spoil(method, "", 1..=usize::MAX, Mishap::CutBefore);
    }
}

#[test]
fn a_bucket_that_cannot_be_reached_delays_webhooks_and_the_end_of_the_service_no_more_than_it_must() {
    let world = World::new();
    world.settings(&format!("spool.allow_tmpfs = true\n{SERVE}[bucket]\nmax_retries = 0\n"));
    let bucket = Bucket::s3s();
    cut_off(&bucket);
    let start = || {
        let mut command = world.command(&["serve", "--archive", &bucket.location, "--catalog", "catalog"]);
        command.env("JELLY_WEBHOOK_SECRET", SECRET);
        bucket.open_to(&mut command);
        Serve::start_with(&world, command)
    };
    let serve = start();
    let mail = events(10, 1, (10, 1000));
    for event in &mail {
        serve.post(event);
    }
    until("it says what is wrong", || {
        let (status, text) = serve.ask("/readyz");
        assert_eq!(status, 503, "{text}");
        assert!(text.contains(&bucket.location), "{text}");
        !text.contains("it is being opened")
    });
    let began = Instant::now();
    serve.stop(&world);
    assert!(began.elapsed() < Duration::from_secs(20), "stopping took {:?}", began.elapsed());

    // The next one finds what that one has taken, and goes on by itself when the bucket is back.
    let serve = start();
    let more = events_from(1000, 5, 1, (10, 1000));
    for event in &more {
        serve.post(event);
    }
    bucket.gate.reset();
    until("it is ready", || serve.is_ready());
    let all = [mail, more].concat();
    until("all is archived", || {
        let status = bucket.keys().iter().any(|key| key.starts_with("outcomes/"));
        status && world.jelly.stats().exchanges >= 15
    });
    let ended = serve.stop(&world);
    for secret in bucket.secrets() {
        assert!(!ended.stderr.contains(secret), "a secret was printed: {}", ended.stderr);
    }
    assert_eq!(bucket.ledger().ids("archived"), ids(&all));
    assert_eq!(world.jelly.exchanges_max(), 1);
}

#[test]
fn a_bucket_that_accepts_and_says_nothing_holds_up_neither_settings_nor_the_end() {
    let world = World::new();
    world.settings(&format!("spool.allow_tmpfs = true\n{SERVE}"));
    // The system takes connections for it; nobody reads them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = world.command(&["serve", "--archive", "s3://test/silent", "--catalog", "catalog"]);
    command.env("JELLY_WEBHOOK_SECRET", SECRET).env("AWS_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "key");
    command.env("AWS_ENDPOINT_URL", format!("http://{}", silent.local_addr().unwrap()));
    let serve = Serve::start_with(&world, command);
    let began = Instant::now();
    for event in &events(3, 1, (10, 100)) {
        serve.post(event);
        serve.process.hang_up();
    }
    until("the settings are read again", || serve.process.stderr().contains("are read again"));
    assert_eq!(serve.ask("/readyz").0, 503);
    serve.stop(&world);
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
}

/// A world with the teams `well` and `stuck`, each with an archive of its own; that of `stuck` cannot be made.
fn two_teams() -> World {
    let world = World::new();
    std::fs::write(world.path("token"), TOKEN).unwrap();
    std::fs::write(world.path("disk"), "not mounted").unwrap();
    let mut text = SERVE.to_owned();
    for (team, archive) in [("well", "archive"), ("stuck", "disk/archive")] {
        std::fs::write(world.path(&format!("{team}.secret")), format!("{SECRET}-{team}")).unwrap();
        text.push_str(&format!(
            "[teams.{team}]\narchive = \"{archive}\"\ntoken_file = \"token\"\nwebhook_secret_file = \"{team}.secret\"\n"
        ));
    }
    world.settings(&text);
    world
}

#[test]
fn a_team_whose_archive_is_broken_delays_no_other() {
    let world = two_teams();
    let mut command = world.command(&["serve"]);
    command.env_remove("JELLY_API_TOKEN");
    let serve = Serve::start_with(&world, command);
    let post = |team: &str, event: &Value| {
        let status = serve.sender().post(team, &format!("{SECRET}-{team}"), event.to_string().as_bytes());
        assert_eq!(status, Some(200), "{team}");
    };
    let (well, stuck) = (events(6, 1, (10, 1000)), events_from(1000, 6, 1, (10, 1000)));
    let mut best = Duration::MAX;
    for (event, other) in well.iter().zip(&stuck) {
        post("stuck", other);
        let began = Instant::now();
        post("well", event);
        until_archived(&world.archive(), &ids(std::slice::from_ref(event)));
        best = best.min(began.elapsed());
    }
    assert!(best < Duration::from_secs(2), "the fastest took {best:?}");
    // One team's secret is none of the other's.
    assert_eq!(serve.sender().post("well", &format!("{SECRET}-stuck"), b"{}"), Some(401));
    let (status, text) = serve.ask("/readyz");
    assert_eq!(status, 503, "{text}");
    std::fs::remove_file(world.path("disk")).unwrap();
    std::fs::create_dir(world.path("disk")).unwrap();
    until_archived(&world.path("disk/archive"), &ids(&stuck));
    serve.stop(&world);
    assert_eq!(world.ledger().ids("archived"), ids(&well));
    assert_eq!(Ledger::sound(&world.path("disk/archive")).ids("archived"), ids(&stuck));
}
