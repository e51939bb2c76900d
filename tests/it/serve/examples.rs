//! The examples in `config/`, followed from nothing to archived webhooks.

use std::path::Path;

use super::*;
use crate::support::TOKEN;

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
