//! The examples in `config/`, followed from nothing to archived webhooks.

use std::path::Path;

use super::*;
use crate::support::{Database, TOKEN, Worker};

/// A world with an example as its configuration; its places are put below the world's folder, and its secrets there.
fn follow(example: &str) -> (World, Serve) {
    let world = World::new();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(example)).unwrap();
    let etc = world.path("etc");
    std::fs::create_dir(&etc).unwrap();
    for path in text.split('"').filter_map(|word| word.strip_prefix("/etc/jellyjar/")) {
        let secret = if path.contains("secret") { SECRET } else { TOKEN };
        std::fs::write(etc.join(path), format!("{secret}\n")).unwrap();
    }
    let text = text.replace("/etc/jellyjar", etc.to_str().unwrap());
    let text = text.replace("/srv", world.path("srv").to_str().unwrap());
    // What only a test's machine needs.
    std::fs::write(etc.join("jellyjar.toml"), format!("{text}\n[inbox]\nallow_tmpfs = true\nmin_free = \"0 B\"\n"))
        .unwrap();
    let settings = etc.join("jellyjar.toml");
    let arguments =
        ["serve", "--config", settings.to_str().unwrap(), "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];
    let mut command = world.command(&arguments);
    command.env_remove("JELLY_API_TOKEN");
    let serve = Serve::start_with(&world, command);
    (world, serve)
}

#[test]
fn one_team_can_be_served_as_its_example_says() {
    let (world, serve) = follow("one-team.toml");
    let mail = events(3, 1, (10, 1000));
    for event in &mail {
        serve.post(event);
    }
    until_archived(&world.path("srv/jellyjar"), &ids(&mail));
    until("it is ready", || serve.is_ready());
    serve.stop(&world);
}

#[test]
fn many_teams_can_be_served_as_their_example_says() {
    let (world, serve) = follow("many-teams.toml");
    for (number, team, place) in [(0, "support", "common"), (100, "sales", "common"), (200, "accounting", "accounting")]
    {
        let mut mail = events_from(number, 2, 1, (10, 1000));
        for event in &mut mail {
            event["data"]["message"]["sent_at"] = "2026-06-01T00:00:00Z".into();
            attachments(event)[0]["content_type"] = "application/pdf".into();
        }
        for event in &mail {
            assert_eq!(serve.sender().post(team, SECRET, event.to_string().as_bytes()), Some(200), "{team}");
        }
        until_archived(&world.path("srv/jellyjar").join(place), &ids(&mail));
    }
    until("it is ready", || serve.is_ready());
    serve.stop(&world);
}

#[test]
fn a_fleet_can_be_run_as_its_example_says_and_status_lists_it() {
    let Some(database) = Database::create() else { return };
    let world = World::new();
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/fleet.toml")).unwrap();
    let text = text.replace("s3://example-mail/jelly", world.archive().to_str().unwrap());
    let machine = |name: &str, secret: (&str, &str)| {
        let etc = world.path(name);
        std::fs::create_dir(&etc).unwrap();
        std::fs::write(etc.join(secret.0), secret.1).unwrap();
        std::fs::write(etc.join("catalog-address"), database.url() + "\n").unwrap();
        let text = text.replace("/etc/jellyjar", etc.to_str().unwrap());
        std::fs::write(etc.join("jellyjar.toml"), format!("{text}\n[inbox]\nallow_tmpfs = true\nmin_free = \"0 B\"\n"))
            .unwrap();
    };
    machine("receiver", ("webhook-secret", SECRET));
    machine("worker", ("token", TOKEN));
    let on = |machine: &str, arguments: &[&str]| {
        let settings = format!("{machine}/jellyjar.toml");
        let mut command = world.command(&[arguments, &["--config", &settings]].concat());
        command.env_remove("JELLY_API_TOKEN").env_remove("JELLYJAR_CATALOG");
        command.env("JELLYJAR_CATALOG_FILE", world.path(machine).join("catalog-address"));
        command.env("HOME", world.path(machine));
        command
    };
    let listen = ["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];
    let receiver = Serve::start_with(&world, on("receiver", &[&["receive"], &listen[..]].concat()));
    let worker = Worker::start_with(&world, on("worker", &["work", "--ops-listen", "127.0.0.1:0"]));
    let mail = events(3, 1, (10, 1000));
    for event in &mail {
        receiver.post(event);
    }
    until_archived(&world.archive(), &ids(&mail));
    until("both are ready", || receiver.is_ready() && worker.ask("/readyz").0 == 200);

    let status = world.start(on("worker", &["status", "--json"])).wait().json();
    let processes = status["processes"].as_array().unwrap();
    let mut roles: Vec<_> = processes.iter().map(|process| process["role"].as_str().unwrap()).collect();
    roles.sort_unstable();
    assert_eq!(roles, ["receive", "work"], "{status}");
    let now = jellyjar::clock::Clock::system().now();
    for process in processes {
        assert!(process["process"].as_u64() > Some(1) && !process["host"].as_str().unwrap().is_empty(), "{process}");
        assert_eq!(process["differing"], serde_json::json!([]), "{process}");
        let since: jiff::Timestamp = process["since"].as_str().unwrap().parse().unwrap();
        assert!(since.duration_until(now).abs() < jiff::SignedDuration::from_mins(10), "{process}");
    }
    // A machine whose settings are not those of the fleet.
    machine("desk", ("token", TOKEN));
    let settings = world.path("desk/jellyjar.toml");
    let text = std::fs::read_to_string(&settings).unwrap() + "[sweep]\nevery = \"7m\"\n";
    std::fs::write(settings, text).unwrap();
    let ended = world.start(on("desk", &["status"])).wait();
    assert!(ended.stdout.contains("other settings than here: sweep.every"), "{ended:?}");
    worker.stop(&world);
    let stopped = receiver.stop(&world);
    for text in [&ended.stdout, &stopped.stderr] {
        assert!(!text.contains(database.password()), "{text}");
    }
}
