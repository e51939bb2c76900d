//! What keeps a service going for years: disks that are not mounted, journals that grow, copies whose time is over.

use std::path::{Path, PathBuf};

use super::*;
use crate::support::{Disk, TOKEN};

/// Moves all files below a folder of days into a day long past.
fn age(folder: &Path) {
    for path in files(folder) {
        let day = path.parent().unwrap();
        let stem = day.parent().unwrap().parent().unwrap().parent().unwrap();
        let past = stem.join("2020/01/02");
        std::fs::create_dir_all(&past).unwrap();
        std::fs::rename(&path, past.join(path.file_name().unwrap())).unwrap();
    }
}

fn marker(archive: &Path) -> String {
    std::fs::read_to_string(archive.join("jellyjar.json")).unwrap()
}

#[test]
fn a_disk_that_is_not_mounted_is_not_taken_for_a_new_place() {
    let world = World::new();
    world.settings(&format!("spool.min_free = \"0 B\"\n{SERVE}"));
    let Some(disk) = Disk::mount(&world.path("disk"), 64) else { return };
    let (mounted, empty) = (disk.path().join("archive"), world.path("disk"));
    let command = || {
        let mut command = world.command(&["serve", "--archive", "disk/archive"]);
        command.env("JELLY_WEBHOOK_SECRET", SECRET);
        command
    };
    let mail = events(6, 1, (10, 1000));
    let serve = Serve::start_with(&world, disk.enter(&command()));
    serve.post(&mail[0]);
    until_archived(&mounted, &ids(&mail[..1]));
    serve.stop(&world);
    let before = marker(&mounted);

    // Out here the disk is not mounted: there is its empty mount point.
    let serve = Serve::start_with(&world, command());
    for event in &mail[1..] {
        serve.post(event);
    }
    until("it says what is wrong", || serve.ask("/readyz").1.contains("bring it back: mount its disk"));
    world.dump(&mail);
    let refused = world.run(&["replay", "dump", "--archive", "disk/archive"]);
    assert!(refused.stderr.contains("bring it back: mount its disk"), "{}", refused.stderr);
    assert_eq!((refused.code(), std::fs::read_dir(&empty).unwrap().count()), (Some(2), 0), "{}", refused.stderr);
    serve.stop(&world);

    // It comes back, and nothing is lost.
    let serve = Serve::start_with(&world, disk.enter(&command()));
    until_archived(&mounted, &ids(&mail));
    serve.stop(&world);
    assert_eq!(marker(&mounted), before);
    assert_eq!((Ledger::sound(&mounted).ids("archived"), world.jelly.exchanges_max()), (ids(&mail), 1));

    // The way out that is told: a new archive there after all.
    let refused = world.run(&["replay", "dump", "--archive", "disk/archive"]);
    let (_, file) = refused.stderr.trim_end().rsplit_once("remove ").unwrap();
    std::fs::remove_file(file).unwrap();
    assert_eq!(world.run(&["replay", "dump", "--archive", "disk/archive", "--json"]).receipt().archived, 6);
    // Removed, with its disk there: a new one is made.
    std::fs::remove_dir_all(empty.join("archive")).unwrap();
    assert_eq!(world.run(&["replay", "dump", "--archive", "disk/archive", "--json"]).receipt().archived, 6);
}

#[test]
fn the_journal_of_past_days_is_compacted_and_a_start_leaves_one_writer_s_record() {
    let world = world();
    let every = |time: &str| world.settings(&format!("{SERVE}[worker]\ncompact_every = \"{time}\"\n"));
    every("0s");
    let old: Vec<Vec<Value>> = (0..4).map(|run| events_from(run * 100, 3, 1, (10, 500))).collect();
    for mail in &old {
        world.dump(mail);
        world.replay();
    }
    let archive = world.archive();
    let writers = || files(&archive.join("writers")).len();
    let past = |stream: &str| files(&archive.join(stream).join("v1/2020")).len();
    for stream in ["messages", "outcomes"] {
        age(&archive.join(stream));
    }
    assert_eq!((past("messages"), writers()), (4, 4));
    world.lose_catalog();

    let serve = Serve::start(&world);
    let new = events_from(1000, 5, 1, (10, 500));
    for (number, event) in new.iter().enumerate() {
        serve.post(event);
        until_archived(&archive, &ids(std::slice::from_ref(event)));
        if number == 4 {
            assert_eq!((past("messages"), past("outcomes")), (4, 4), "it was not asked for");
            every("1s");
        }
        serve.process.hang_up();
        until("the settings are read again", || serve.process.stderr().matches("are read again").count() == number + 1);
    }
    until("it is compacted", || (past("messages"), past("outcomes")) == (0, 0));
    assert!(serve.ask("/metrics").1.contains("jellyjar_compactions_total{result=\"failed\"} 0"));
    serve.stop(&world);
    assert!(!archive.join("lock.json").exists());
    assert_eq!(writers(), 5, "one for each replay, and one for the service");
    is_archived_once(&world, &[old.concat(), new].concat());
    assert_eq!(world.run(&["verify", "--archive", "archive", "--json"]).code(), Some(0));
}

/// The copies of inboxes in an archive.
fn copies(world: &World) -> Vec<PathBuf> {
    files(&world.archive().join("payloads"))
}

#[test]
fn a_copy_goes_when_its_time_is_over_and_what_is_in_it_is_in_the_journal() {
    // Of a copy whose webhooks nobody has archived: the token was refused, and then the whole machine was lost.
    let lost = world();
    let mail = events(4, 1, (10, 1000));
    lost.jelly.set_token("another");
    let serve = Serve::start(&lost);
    for event in &mail {
        serve.post(event);
    }
    until("the inbox is copied", || copied_bodies(&lost, "default").len() == 4 && segments(&lost).is_empty());
    serve.stop(&lost);

    let world = world();
    world.jelly.set_token("another");
    let serve = Serve::start(&world);
    let new = events_from(100, 1, 1, (10, 1000));
    serve.post(&new[0]);
    until("the inbox is copied", || copies(&world).len() == 1 && segments(&world).is_empty());
    serve.stop(&world);
    let kept = copies(&world);
    let past = world.archive().join("payloads/v1/default/2020/01/02");
    std::fs::create_dir_all(&past).unwrap();
    for path in copies(&lost) {
        std::fs::copy(&path, past.join(path.file_name().unwrap())).unwrap();
    }
    let serve = Serve::start(&world);
    until("the old ones go", || copies(&world) == kept);
    let messages = || {
        let texts =
            files(&world.archive().join("messages")).into_iter().map(|path| std::fs::read_to_string(path).unwrap());
        texts.collect::<String>()
    };
    let journal = messages();
    assert!(ids(&mail).iter().all(|id| journal.contains(id)), "a copy went before its messages were in the journal");
    serve.stop(&world);
    // The catalog is lost as well: the journal alone knows what is pending.
    world.lose_catalog();
    world.jelly.set_token(TOKEN);
    let serve = Serve::start(&world);
    let all = [mail, new].concat();
    until_archived(&world.archive(), &ids(&all));
    serve.stop(&world);
    assert_eq!(world.ledger().ids("archived"), ids(&all));
}

#[test]
fn where_no_copies_are_kept_the_inbox_goes_by_itself_and_nothing_is_lost() {
    let world = World::new();
    world.settings(&SERVE.replace("[inbox]\n", "[inbox]\nkeep_copies = \"0s\"\n"));
    let mail = events(5, 1, (10, 1000));
    world.jelly.set_token("another");
    let serve = Serve::start(&world);
    for event in &mail {
        serve.post(event);
    }
    until("the inbox is empty", || segments(&world).is_empty());
    assert_eq!(copies(&world), Vec::<PathBuf>::new());
    serve.process.kill();
    world.lose_catalog();
    world.jelly.set_token(TOKEN);
    let serve = Serve::start(&world);
    until_archived(&world.archive(), &ids(&mail));
    serve.stop(&world);
    assert_eq!(world.ledger().ids("archived"), ids(&mail));
}
