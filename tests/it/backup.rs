//! `catalog backup`: a whole copy while others write, and nothing half-made.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::{World, events};

fn files(world: &World) -> Vec<String> {
    let list = std::fs::read_dir(world.path("copies")).unwrap();
    list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_copy_takes_the_place_of_a_lost_catalog() {
    let world = World::new();
    world.dump(&events(5, 1, (10, 50)));
    world.replay();
    std::fs::create_dir(world.path("copies")).unwrap();
    let backup = ["catalog", "backup", "copies/monday.sqlite", "--archive", "archive", "--json"];
    let made = world.run(&backup);
    assert_eq!(made.code(), Some(0), "{made:?}");
    let copy = world.path("copies/monday.sqlite");
    assert_eq!(made.json()["size_bytes"], std::fs::metadata(&copy).unwrap().len());
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600, "it holds addresses");
    assert_eq!(files(&world), ["monday.sqlite"]);

    let before = std::fs::read(&copy).unwrap();
    let again = world.run(&backup);
    assert_eq!(again.code(), Some(2), "{again:?}");
    assert!(std::fs::read(&copy).unwrap() == before, "a copy is never replaced");

    // Mail that came after the copy is loaded from the journal.
    world.dump(&events(9, 1, (10, 50)));
    assert_eq!(world.replay().archived, 4);
    world.lose_catalog();
    std::fs::create_dir(world.archive().join(".jellyjar")).unwrap();
    std::fs::copy(&copy, world.archive().join(".jellyjar/catalog.sqlite")).unwrap();
    let receipt = world.replay();
    assert_eq!((receipt.known, receipt.api_requests), (9, 0), "{receipt:?}");
    let verified = world.run(&["verify", "--archive", "archive", "--json"]);
    assert_eq!(verified.code(), Some(0), "{verified:?}");
}

#[test]
fn a_copy_is_made_beside_a_worker() {
    let world = World::with_faults("slow=1.0");
    world.dump(&events(200, 1, (2000, 9000)));
    let worker = world.start_replay();
    crate::support::until("something is archived", || world.jelly.stats().exchanges > 3);
    let made = world.run(&["catalog", "backup", "copy.sqlite", "--archive", "archive", "--json"]);
    assert_eq!(made.code(), Some(0), "{made:?}");
    worker.interrupt();
    worker.wait();
    world.lose_catalog();
    std::fs::create_dir(world.archive().join(".jellyjar")).unwrap();
    std::fs::rename(world.path("copy.sqlite"), world.archive().join(".jellyjar/catalog.sqlite")).unwrap();
    world.jelly.set_faults("");
    let receipt = world.replay();
    assert!(receipt.ok && receipt.attachments == 200, "{receipt:?}");
    world.ledger().agrees_with(&receipt);
}

#[test]
fn what_cannot_be_written_is_said_and_leaves_nothing() {
    let world = World::new();
    world.dump(&events(1, 1, (10, 50)));
    world.replay();
    std::fs::create_dir(world.path("copies")).unwrap();
    for (target, word) in [("copies", "folder"), ("nowhere/x.sqlite", "nowhere/x.sqlite")] {
        let ended = world.run(&["catalog", "backup", target, "--archive", "archive"]);
        assert_eq!(ended.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(word), "{ended:?}");
    }
    assert!(files(&world).is_empty());
    let path = world.run(&["catalog", "path", "--archive", "archive"]);
    assert_eq!(path.stdout, "archive/.jellyjar/catalog.sqlite\n");
}
