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
fn a_refused_token_is_not_tried_again_by_a_hangup_and_a_new_one_is() {
    let world = world();
    std::fs::write(world.path("token"), TOKEN).unwrap();
    let mut command = Serve::command(&world);
    command.env_remove("JELLY_API_TOKEN").env("JELLY_API_TOKEN_FILE", world.path("token"));
    world.jelly.set_token("another");
    let serve = Serve::start_with(&world, command);
    assert!(serve.process.stderr().contains("/webhooks/default;"), "{}", serve.process.stderr());
    let mail = events(2, 1, (10, 1000));
    serve.post(&mail[0]);
    let is_paused = || serve.ask("/metrics").1.contains("jellyjar_paused{scope=\"team\",name=\"default\"} 1");
    let kept = || world.catalog("SELECT scope FROM pauses").len() == 1;
    until("the team is paused", || is_paused() && kept());
    let asked = world.jelly.stats().api_requests;
    for count in 1..=2 {
        serve.process.hang_up();
        until("the settings are read again", || reloads(&serve.process) == count);
        until("it is ready", || serve.is_ready());
        until("it is still paused", is_paused);
    }
    serve.post(&mail[1]);
    until("all is taken in", || world.catalog("SELECT 'x' FROM attachments").len() == 2);
    assert_eq!(world.jelly.stats().api_requests, asked, "a token that was refused was tried again");
    std::fs::write(world.path("token"), "another").unwrap();
    serve.process.hang_up();
    until_archived(&world.archive(), &ids(&mail));
    serve.stop(&world);
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

/// Teams with secrets of one file each, and archives of their own.
fn teams(world: &World, names: &[&str]) -> String {
    std::fs::write(world.path("token"), TOKEN).unwrap();
    std::fs::write(world.path("secret"), SECRET).unwrap();
    let team = |name: &&str| {
        format!(
            "[teams.{name}]\narchive = \"disk-{name}/archive\"\ntoken_file = \"token\"\nwebhook_secret_file = \"secret\"\n"
        )
    };
    names.iter().map(team).collect()
}

#[test]
fn teams_come_and_go_while_it_runs() {
    let world = World::new();
    let set = |names: &[&str]| {
        world.settings(&format!("{SERVE}[notify]\ndelay = \"0s\"\n{}", teams(&world, names)));
    };
    set(&["old", "stays"]);
    // The disk of one is away, so that its webhooks wait.
    std::fs::write(world.path("disk-old"), "not mounted").unwrap();
    let mut command = world.command(&["serve"]);
    command.env_remove("JELLY_API_TOKEN");
    let serve = Serve::start_with(&world, command);
    let post = |team: &str, event: &Value| serve.sender().post(team, SECRET, event.to_string().as_bytes());
    let (old, stays, new) =
        (events(5, 1, (10, 1000)), events_from(100, 6, 1, (10, 1000)), events_from(200, 4, 1, (10, 1000)));
    for event in &old[..3] {
        assert_eq!(post("old", event), Some(200));
    }
    assert_ne!(post("new", &new[0]), Some(200));
    assert_eq!(post("stays", &stays[0]), Some(200));

    set(&["stays", "new"]);
    serve.process.hang_up();
    until("the settings are read again", || reloads(&serve.process) == 1);
    let refused = post("nobody", &old[3]);
    assert_eq!(post("old", &old[3]), refused, "a team that is gone is like one that never was");
    for (one, other) in new.iter().zip(&stays[1..]) {
        assert_eq!((post("new", one), post("stays", other)), (Some(200), Some(200)));
    }
    until_archived(&world.path("disk-new/archive"), &ids(&new));
    until_archived(&world.path("disk-stays/archive"), &ids(&stays[..5]));
    until("what waits is told of", || {
        let (_, metrics) = serve.ask("/metrics");
        metrics.contains("jellyjar_troubles{condition=\"inbox_of_no_team\"} 1")
            && !metrics.contains("team=\"old\"")
            && metrics.contains("jellyjar_webhooks_total{team=\"new\",result=\"accepted\"} 4")
    });
    let said = serve.process.stderr();
    assert!(said.contains("inbox/old belongs to no configured team"), "{said}");
    until("it is ready without the team that is gone", || serve.is_ready());

    // It comes back, and its disk too: what was accepted for it is archived, and what comes now.
    std::fs::remove_file(world.path("disk-old")).unwrap();
    std::fs::create_dir(world.path("disk-old")).unwrap();
    set(&["old", "stays", "new"]);
    serve.process.hang_up();
    until("the settings are read again", || reloads(&serve.process) == 2);
    assert_eq!(post("old", &old[4]), Some(200));
    let back = [&old[..3], &old[4..]].concat();
    until_archived(&world.path("disk-old/archive"), &ids(&back));
    until("nothing waits for nobody", || {
        serve.ask("/metrics").1.contains("jellyjar_troubles{condition=\"inbox_of_no_team\"} 0")
    });
    serve.stop(&world);
    assert_eq!(Ledger::sound(&world.path("disk-old/archive")).ids("archived"), ids(&back));
    assert_eq!(world.jelly.exchanges_max(), 1);
}

#[test]
fn a_team_that_is_gone_with_all_of_its_webhooks_archived_is_no_trouble() {
    let world = World::new();
    let serve = SERVE.replace("segment_age = \"1s\"", "segment_age = \"1h\"");
    let set = |names: &[&str]| world.settings(&format!("{serve}{}", teams(&world, names)));
    let start = || {
        let mut command = world.command(&["serve"]);
        command.env_remove("JELLY_API_TOKEN");
        Serve::start_with(&world, command)
    };
    set(&["gone", "stays"]);
    let serve = start();
    let events = events(3, 1, (10, 1000));
    for event in &events {
        assert_eq!(serve.sender().post("gone", SECRET, event.to_string().as_bytes()), Some(200));
    }
    until_archived(&world.path("disk-gone/archive"), &ids(&events));
    serve.stop(&world);
    let inbox = world.path(".local/state/jellyjar/inbox/gone");
    assert!(std::fs::read_dir(&inbox).unwrap().any(|file| file.unwrap().path().extension() == Some("jsonl".as_ref())));
    set(&["stays"]);
    let serve = start();
    until("it is ready", || serve.is_ready());
    assert!(serve.ask("/metrics").1.contains("jellyjar_troubles{condition=\"inbox_of_no_team\"} 0"));
    let ended = serve.stop(&world);
    assert!(!ended.stderr.contains("no configured team"), "{}", ended.stderr);
}

#[test]
fn a_reload_that_cannot_be_taken_over_changes_nothing() {
    let world = World::new();
    world.settings(&format!("{SERVE}{}", teams(&world, &["one"])));
    let mut command = world.command(&["serve"]);
    command.env_remove("JELLY_API_TOKEN");
    let serve = Serve::start_with(&world, command);
    // The folder of the new team's inbox cannot be made.
    std::fs::write(world.path(".local/state/jellyjar/inbox/two"), "in the way").unwrap();
    world.settings(&format!("{SERVE}{}", teams(&world, &["two"])));
    serve.process.hang_up();
    until("it says so", || serve.process.stderr().contains("those of before stay in force"));
    let mail = events(1, 1, (10, 1000));
    assert_eq!(serve.sender().post("one", SECRET, mail[0].to_string().as_bytes()), Some(200));
    until_archived(&world.path("disk-one/archive"), &ids(&mail));
    serve.stop(&world);
}

/// A token that is mounted as Kubernetes does it: a link to a file behind a link that is swapped.
fn mount(world: &World, version: &str, token: &str) {
    let folder = world.path("mount").join(version);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), token).unwrap();
    std::os::unix::fs::symlink(version, world.path("mount/..new")).unwrap();
    std::fs::rename(world.path("mount/..new"), world.path("mount/..data")).unwrap();
    // It is there from the first time on.
    let _ = std::os::unix::fs::symlink("..data/token", world.path("mount/token"));
}

#[test]
fn files_that_change_are_noticed_without_a_word() {
    let world = world();
    mount(&world, "1", "not-the-token");
    let text = std::fs::read_to_string(world.path("jellyjar.toml")).unwrap();
    // Found by its variable, and replaced by a rename.
    std::fs::create_dir(world.path("etc")).unwrap();
    let replace = |text: &str| {
        std::fs::write(world.path("etc/new"), text).unwrap();
        std::fs::rename(world.path("etc/new"), world.path("etc/settings.toml")).unwrap();
    };
    replace(&text);
    std::fs::remove_file(world.path("jellyjar.toml")).unwrap();
    let mut command = Serve::command(&world);
    command.env("JELLYJAR_CONFIG", world.path("etc/settings.toml"));
    command.env_remove("JELLY_API_TOKEN").env("JELLY_API_TOKEN_FILE", world.path("mount/token"));
    let serve = Serve::start_with(&world, command);
    let mail = events(2, 1, (10, 1000));
    serve.post(&mail[0]);
    until("the team is paused", || {
        serve.ask("/metrics").1.contains("jellyjar_paused{scope=\"team\",name=\"default\"} 1")
    });
    mount(&world, "2", TOKEN);
    until_archived(&world.archive(), &ids(&mail[..1]));
    assert_eq!(reloads(&serve.process), 1);

    replace(&format!("{text}[filter]\nnames = [\"nothing has this name\"]\n"));
    until("the settings are read again", || reloads(&serve.process) == 2);
    serve.post(&mail[1]);
    until("the new rules are used", || {
        serve
            .ask("/metrics")
            .1
            .contains("jellyjar_outcomes_total{team=\"default\",outcome=\"skipped\",reason=\"rule\"} 1")
    });
    serve.stop(&world);
}

#[test]
fn settings_from_the_working_directory_are_watched_and_never_vanish_into_defaults() {
    let world = world();
    let serve = Serve::start(&world);
    let text = std::fs::read_to_string(world.path("jellyjar.toml")).unwrap();
    std::fs::remove_file(world.path("jellyjar.toml")).unwrap();
    until("it says so", || serve.process.stderr().contains("jellyjar.toml is gone, from which the settings came"));
    serve.post(&events(1, 1, (10, 100))[0]);
    std::fs::write(world.path("jellyjar.toml"), text).unwrap();
    until("the settings are read again", || reloads(&serve.process) == 1);
    serve.stop(&world);
}
