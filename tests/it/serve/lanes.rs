//! Live traffic goes first: beside replays, beside other teams, and whatever hangs.

use super::*;

/// Fewer slots and longer waits than usual: what hangs, hangs longer than any test lasts.
fn patient() -> String {
    format!("{SERVE}[worker]\nconcurrency = 4\n[http]\nread_timeout = \"10m\"\n")
}

/// A world with just these settings.
fn world_with(text: &str) -> World {
    let world = World::new();
    std::fs::write(world.path("jellyjar.toml"), text).unwrap();
    world
}

fn pending(world: &World, lane: &'static str) -> usize {
    let query = match lane {
        "live" => "SELECT '' || count(*) FROM attachments WHERE state = 'pending' AND lane = 0",
        _ => "SELECT '' || count(*) FROM attachments WHERE state = 'pending' AND lane = 1",
    };
    world.catalog(query)[0].parse().unwrap()
}

#[test]
fn a_replay_beside_a_service_leaves_webhooks_their_share_of_the_quota() {
    let world = world();
    world.settings(&format!("{SERVE}[quota]\nrequests_per_window = 40\nlive_share = 0.25\n"));
    let serve = Serve::start(&world);
    until("it is ready", || serve.is_ready());
    let dump = events(1_500, 2, (10, 500));
    world.dump(&dump);
    let replay = world.start_replay();
    // All but a quarter: then it waits for the next window, minutes from now.
    until("the replay has used its part", || world.jelly.stats().exchanges == 30);
    until("the dump is read", || pending(&world, "bulk") == 2 * 1_500 - 30);

    let mail = events_from(10_000, 6, 1, (10, 500));
    for event in &mail {
        serve.post(event);
        until_archived(&world.archive(), &ids(std::slice::from_ref(event)));
    }
    // A webhook of what the replay has brought, and what waits with the rest of it.
    let waiting = &dump[1_400..1_401];
    assert!(!archived(&world.archive()).iter().any(|id| ids(waiting).contains(id)));
    serve.post(&waiting[0]);
    until_archived(&world.archive(), &ids(waiting));
    // The catalog hears of it last.
    until("no webhook waits", || pending(&world, "live") == 0);
    assert_eq!((world.jelly.stats().exchanges, pending(&world, "bulk")), (38, 2 * 1_500 - 30 - 2));

    // Live work may use all that is left, and not more.
    let last = events_from(20_000, 3, 1, (10, 500));
    for event in &last {
        serve.post(event);
    }
    until("one of them waits", || world.jelly.stats().exchanges == 40 && pending(&world, "live") == 1);
    replay.terminate();
    let ended = replay.wait();
    world.check(&ended);
    serve.stop(&world);
    assert_eq!((world.jelly.stats().exchanges, world.jelly.exchanges_max()), (40, 1));
}

#[test]
fn a_replay_without_any_webhook_secret_uses_the_whole_quota() {
    for (secret, requests) in [(None, 10), (Some(SECRET), 5)] {
        let world = World::new();
        world.settings("[quota]\nrequests_per_window = 10\nlive_share = 0.5\n[worker]\nmax_wait = \"1s\"\n");
        world.dump(&events(30, 1, (10, 500)));
        let mut command = world.command(&World::REPLAY);
        command.envs(secret.map(|secret| ("JELLY_WEBHOOK_SECRET", secret)));
        let ended = world.start(command).wait();
        world.check(&ended);
        let receipt = ended.receipt();
        assert_eq!((receipt.archived, receipt.pending), (requests, 30 - requests), "{receipt:?}");
        assert_eq!(world.jelly.stats().exchanges, requests);
    }
}

#[test]
fn bulk_work_that_hangs_leaves_webhooks_a_slot() {
    let world = world_with(&patient());
    world.jelly.set_faults("api-stall=1");
    let serve = Serve::start(&world);
    until("it is ready", || serve.is_ready());
    world.dump(&events(40, 1, (10, 500)));
    let replay = world.start_replay();
    until("the replay has its slots", || world.jelly.stats().api_requests == 3);
    world.jelly.set_faults("");
    let mail = events_from(10_000, 5, 1, (10, 500));
    for event in &mail {
        serve.post(event);
        until_archived(&world.archive(), &ids(std::slice::from_ref(event)));
    }
    assert_eq!((world.jelly.stats().api_requests, pending(&world, "bulk")), (8, 40));
    replay.terminate();
    replay.wait();
    serve.stop(&world);
    assert_eq!(world.ledger().ids("archived"), ids(&mail));
}

#[test]
fn a_team_whose_requests_hang_delays_no_other_in_the_same_archive() {
    let mut text = patient();
    for team in ["hangs", "well"] {
        text.push_str(&format!("[teams.{team}]\ntoken_file = \"token\"\nwebhook_secret_file = \"secret\"\n"));
    }
    let world = world_with(&text);
    std::fs::write(world.path("token"), TOKEN).unwrap();
    std::fs::write(world.path("secret"), SECRET).unwrap();
    let start = || {
        let mut command = world.command(&["serve", "--archive", "archive"]);
        command.env_remove("JELLY_API_TOKEN");
        Serve::start_with(&world, command)
    };
    let serve = start();
    until("it is ready", || serve.is_ready());
    let post = |serve: &Serve, team: &str, event: &Value| {
        assert_eq!(serve.sender().post(team, SECRET, event.to_string().as_bytes()), Some(200), "{team}");
    };
    world.jelly.set_faults("api-stall=1");
    let (hanging, mail) = (events(40, 1, (10, 500)), events_from(10_000, 5, 1, (10, 500)));
    for event in &hanging {
        post(&serve, "hangs", event);
    }
    until("it has its slots", || world.jelly.stats().api_requests == 3);
    world.jelly.set_faults("");
    for event in &mail {
        post(&serve, "well", event);
        until_archived(&world.archive(), &ids(std::slice::from_ref(event)));
    }
    assert_eq!(world.jelly.stats().api_requests, 8);
    serve.stop(&world);

    // The rest is done once nothing hangs.
    let serve = start();
    until_archived(&world.archive(), &ids(&hanging));
    serve.stop(&world);
    let ledger = world.ledger();
    assert_eq!(ledger.ids("archived"), ids(&[hanging, mail].concat()));
    assert!(ledger.raw_counts().values().all(|count| *count == 1));
}
