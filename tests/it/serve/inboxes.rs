//! Inboxes that are lost, of another catalog, or copied half: what is taken in is taken in once, and nothing is left out.

use super::*;

const UNREADABLE: &[u8] = b"{\"event\": ";

#[test]
fn a_new_inbox_is_read_from_its_beginning_whatever_position_is_kept() {
    let world = world();
    let start = || {
        let mut command = world.command(&["serve", "--archive", "disk/archive", "--catalog", "catalog"]);
        command.env("JELLY_WEBHOOK_SECRET", SECRET);
        Serve::start_with(&world, command)
    };
    std::fs::create_dir(world.path("disk")).unwrap();
    let serve = start();
    let mut mail = events(5, 1, (10, 1000));
    for event in &mail {
        serve.post(event);
    }
    until_archived(&world.path("disk/archive"), &ids(&mail));
    serve.stop(&world);

    // The disk of the inbox is lost, and the clock was far ahead when that was written.
    std::fs::remove_dir_all(world.path(".local/state/jellyjar/inbox")).unwrap();
    let ahead = "UPDATE inbox_positions SET segment = '02' || substr(segment, 3) RETURNING segment";
    assert_eq!(world.catalog_in("catalog", ahead).len(), 1);
    // What comes while the archive is away is in segments that were named in ignorance of that position.
    std::fs::rename(world.path("disk"), world.path("unmounted")).unwrap();
    std::fs::write(world.path("disk"), "not mounted").unwrap();
    let serve = start();
    let more = events_from(1000, 5, 1, (10, 1000));
    for event in &more {
        serve.post(event);
    }
    until("the archive is missed", || serve.process.stderr().contains("trying again in"));
    std::fs::remove_file(world.path("disk")).unwrap();
    std::fs::rename(world.path("unmounted"), world.path("disk")).unwrap();
    mail.extend(more);
    until_archived(&world.path("disk/archive"), &ids(&mail));
    serve.stop(&world);
    assert_eq!(world.jelly.exchanges_max(), 1);
}

#[test]
fn what_cannot_be_read_is_shown_where_it_is_in_the_inbox_and_then_in_the_archive() {
    let world = world();
    world.settings(&SERVE.replace("segment_age = \"1s\"", "segment_age = \"1h\""));
    let shown = || {
        let told = world.run(&["rejected", "--archive", "archive", "--json"]).json();
        let one = &told["rejected"][0];
        (std::path::PathBuf::from(one["source"].as_str().unwrap()), one["line"].as_u64().unwrap())
    };
    let serve = Serve::start(&world);
    until("it is ready", || serve.is_ready());
    serve.post(&events(1, 1, (10, 100))[0]);
    assert_eq!(serve.sender().post("default", SECRET, UNREADABLE), Some(200));
    until("it is read", || !world.rejects().is_empty());
    let (path, line) = shown();
    assert!(path.starts_with(world.path(".local/state/jellyjar/inbox")), "{}", path.display());
    assert_eq!((std::fs::read_to_string(&path).unwrap().lines().count(), line), (2, 2));
    serve.stop(&world);
    world.settings(SERVE);
    let serve = Serve::start(&world);
    until("the inbox is copied", || segments(&world).is_empty());
    let (path, line) = shown();
    // Below the archive as it was named.
    let copies = files(&world.archive().join("payloads"));
    assert_eq!((world.path(path.to_str().unwrap()), line), (copies[0].clone(), 2));
    serve.stop(&world);
}

#[test]
fn a_position_of_an_unknown_inbox_has_all_of_it_read_again_which_changes_nothing() {
    let world = world();
    world.settings(&SERVE.replace("segment_age = \"1s\"", "segment_age = \"1h\""));
    let serve = Serve::start(&world);
    let mail = events(4, 1, (10, 1000));
    for event in &mail {
        serve.post(event);
        // Each in a batch of its own.
        until_archived(&world.archive(), &ids(std::slice::from_ref(event)));
        assert_eq!(serve.sender().post("default", SECRET, UNREADABLE), Some(200));
    }
    until("all is read", || world.rejects().len() == 4);
    let rejects = world.rejects();
    assert_eq!(rejects.iter().map(|reject| reject.1).collect::<Vec<_>>(), [2, 4, 6, 8], "{rejects:?}");
    world.check(&serve.process.kill());
    // As if it were that of another folder.
    world.catalog("UPDATE inbox_positions SET inbox = 'another'");
    let serve = Serve::start(&world);
    until("it is known now", || world.catalog("SELECT inbox FROM inbox_positions WHERE inbox <> 'another'").len() == 1);
    let last = events_from(1000, 1, 1, (10, 1000));
    serve.post(&last[0]);
    until_archived(&world.archive(), &ids(&last));
    serve.stop(&world);
    assert_eq!(world.rejects(), rejects);
    is_archived_once(&world, &[mail, last].concat());
}

#[test]
fn a_crash_while_an_inbox_is_copied_lists_nothing_twice() {
    let world = world();
    let serve = Serve::start(&world);
    until("it is ready", || serve.is_ready());
    world.catalog(
        "CREATE TRIGGER broken BEFORE INSERT ON payload_segments BEGIN SELECT RAISE(ABORT, 'as a crash would'); END",
    );
    let mail = events(1, 1, (10, 1000));
    serve.post(&mail[0]);
    assert_eq!(serve.sender().post("default", SECRET, UNREADABLE), Some(200));
    until("it is to be copied", || serve.process.stderr().contains("an inbox cannot be copied"));
    world.check(&serve.process.kill());
    let rejects = world.rejects();
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    world.catalog("DROP TRIGGER broken");
    for _ in 0..2 {
        let serve = Serve::start(&world);
        until("it is ready", || serve.is_ready());
        until("the inbox is copied", || segments(&world).is_empty());
        serve.stop(&world);
    }
    assert_eq!(world.rejects(), rejects);
    is_archived_once(&world, &mail);
}
