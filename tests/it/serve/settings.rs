//! Settings and secrets that change while the service runs.

use super::*;
use crate::support::{Process, TOKEN};

/// How often the service has said that it has read its settings again.
fn reloads(process: &Process) -> usize {
    process.stderr().matches("are read again").count()
}

#[test]
fn a_changed_secret_is_taken_over_on_a_hangup() {
    let world = world();
    std::fs::write(world.path("secret"), "the-first-secret\n").unwrap();
    let mut command = world.command(&["serve", "--archive", "archive"]);
    command.env("JELLY_WEBHOOK_SECRET_FILE", world.path("secret"));
    let serve = Serve::start_with(&world, command);
    let post = |secret: &str, event: &Value| serve.sender().post("default", secret, event.to_string().as_bytes());
    let mail = events(4, 1, (10, 1000));
    assert_eq!(post("the-first-secret", &mail[0]), Some(200));
    assert_eq!(post("the-second-secret", &mail[1]), Some(401));

    // Both, while Jelly is told the new one.
    std::fs::write(world.path("secret"), "the-first-secret the-second-secret\n").unwrap();
    serve.process.hang_up();
    until("the settings are read again", || reloads(&serve.process) == 1);
    assert_eq!(post("the-second-secret", &mail[1]), Some(200));
    assert_eq!(post("the-first-secret", &mail[2]), Some(200));

    std::fs::write(world.path("secret"), "the-second-secret\n").unwrap();
    serve.process.hang_up();
    until("the settings are read again", || reloads(&serve.process) == 2);
    assert_eq!(post("the-first-secret", &mail[3]), Some(401));
    assert_eq!(post("the-second-secret", &mail[3]), Some(200));

    // Settings that cannot be used change nothing.
    std::fs::remove_file(world.path("secret")).unwrap();
    serve.process.hang_up();
    until("it says so", || serve.process.stderr().contains("cannot be read again"));
    assert_eq!(post("the-second-secret", &mail[3]), Some(200));
    until_archived(&world.archive(), &ids(&mail));
    let ended = serve.stop(&world);
    for secret in ["the-first-secret", "the-second-secret"] {
        assert!(!ended.stderr.contains(secret), "a secret was printed: {}", ended.stderr);
    }
    assert_eq!(world.ledger().ids("archived"), ids(&mail));
    assert_eq!(world.jelly.exchanges_max(), 1);
}

#[test]
fn a_hangup_while_the_archive_is_away_holds_nothing_up() {
    let world = world();
    std::fs::write(world.path("disk"), "not mounted").unwrap();
    let mut command = world.command(&["serve", "--archive", "disk/archive"]);
    command.env("JELLY_WEBHOOK_SECRET", SECRET);
    let serve = Serve::start_with(&world, command);
    let mail = events(3, 1, (10, 1000));
    serve.post(&mail[0]);
    for count in 1..=3 {
        serve.process.hang_up();
        until("the settings are read again", || reloads(&serve.process) == count);
    }
    serve.post(&mail[1]);
    std::fs::remove_file(world.path("disk")).unwrap();
    std::fs::create_dir(world.path("disk")).unwrap();
    serve.post(&mail[2]);
    until_archived(&world.path("disk/archive"), &ids(&mail));
    serve.stop(&world);
}

#[test]
fn what_it_cannot_do_its_work_with_is_refused_at_the_start() {
    let world = world();
    for (missing, arguments, words) in [
        ("JELLY_WEBHOOK_SECRET", &["serve", "--archive", "archive"][..], "no team has a webhook secret"),
        ("JELLY_API_TOKEN", &["serve", "--archive", "archive"], "JELLY_API_TOKEN"),
        ("NOTHING", &["serve"], "archive"),
        ("NOTHING", &["serve", "--archive", "archive", "--listen", "nowhere"], "--listen"),
    ] {
        let mut command = world.command(arguments);
        command.env("JELLY_WEBHOOK_SECRET", SECRET).env_remove(missing);
        let ended = world.start(command).wait();
        world.check(&ended);
        assert_eq!(ended.code(), Some(2), "{missing} {arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(words), "{missing} {arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn a_second_service_with_the_same_inbox_is_refused() {
    let world = world();
    let serve = Serve::start(&world);
    let second = world.start(Serve::command(&world)).wait();
    world.check(&second);
    assert!(!second.status.success() && second.stderr.contains("inbox"), "{second:?}");
    serve.post(&events(1, 1, (10, 100))[0]);
    serve.stop(&world);
}

#[test]
fn a_team_that_is_added_while_it_runs_harms_no_other() {
    let world = World::new();
    std::fs::write(world.path("token"), TOKEN).unwrap();
    std::fs::write(world.path("secret"), SECRET).unwrap();
    let team = |name: &str| format!("[teams.{name}]\ntoken_file = \"token\"\nwebhook_secret_file = \"secret\"\n");
    world.settings(&format!("{SERVE}{}", team("old")));
    let mut command = world.command(&["serve", "--archive", "archive"]);
    command.env_remove("JELLY_API_TOKEN");
    let serve = Serve::start_with(&world, command);
    let post = |team: &str, event: &Value| serve.sender().post(team, SECRET, event.to_string().as_bytes());
    let mail = events(12, 1, (10, 1000));
    assert_eq!(post("old", &mail[0]), Some(200));
    world.settings(&format!("{SERVE}{}{}", team("old"), team("new")));
    serve.process.hang_up();
    until("the settings are read again", || reloads(&serve.process) == 1);
    assert!(serve.process.stderr().contains("new"), "{}", serve.process.stderr());
    // Its inbox is made at the start: until then its webhooks are not accepted, and Jelly sends them again.
    assert_ne!(post("new", &mail[1]), Some(200));
    for event in &mail[2..] {
        assert_eq!(post("old", event), Some(200));
        until_archived(&world.archive(), &ids(std::slice::from_ref(event)));
    }
    until("the inbox is copied", || segments(&world).is_empty());
    assert!(serve.is_ready(), "{:?}", serve.ask("/readyz"));
    serve.stop(&world);
}
