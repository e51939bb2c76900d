//! One archive, two catalogs: nothing is lost, but leases, pauses and quotas are not shared, and so it is told.

use std::process::Command;

use crate::support::{Database, Process, SERVE, Serve, World, events, files, until};

const TOLD: &str = "works on the same archive with another catalog";

/// A world in which a replay with a catalog of its own hangs in the middle, after it has written to the journal.
fn busy(catalog: impl FnOnce(&World) -> Command) -> (World, Process) {
    let world = World::with_faults("stall=1.0");
    world.dump(&events(3, 1, (1000, 2000)));
    let process = world.start(catalog(&world));
    until("it has written to the journal", || !files(&world.archive().join("writers")).is_empty());
    until("it hangs", || world.jelly.stats().storage_requests > 0);
    (world, process)
}

/// What `doctor` warns of.
fn warnings(world: &World, command: Command) -> String {
    let ended = world.start(command).wait();
    world.check(&ended);
    let answer = ended.json();
    let checks = answer["checks"].as_array().unwrap().iter().filter(|check| check["status"] == "warning");
    checks.map(|check| format!("{} → {}", check["found"], check["advice"])).collect::<Vec<_>>().join("\n")
}

fn replay(world: &World, catalog: &str) -> Command {
    world.command(&["replay", "dump", "--archive", "archive", "--json", "--catalog", catalog])
}

fn doctor(world: &World, catalog: &str) -> Command {
    world.command(&["doctor", "--archive", "archive", "--offline", "--json", "--catalog", catalog])
}

#[test]
fn two_catalogs_of_one_archive_are_told_while_both_work_and_not_afterwards() {
    let (world, process) = busy(|world| replay(world, "one"));
    let (id, host) = (process.id(), host_name());
    let told = format!("process {id} on {host} (writer ");
    // Before this machine has a catalog, and with one.
    for _ in 0..2 {
        let warned = warnings(&world, doctor(&world, "two"));
        assert!(warned.contains(&told) && warned.contains(TOLD) && warned.contains("the same `catalog`"), "{warned}");
        let ended = world.start(world.command(&["status", "--archive", "archive", "--catalog", "two"])).wait();
        assert_eq!(ended.code(), Some(0), "{ended:?}");
    }
    let warned = warnings(&world, doctor(&world, "one"));
    assert!(!warned.contains(TOLD), "its own: {warned}");

    process.interrupt();
    world.check(&process.wait());
    world.jelly.set_faults("");
    let ended = world.start(replay(&world, "two")).wait();
    assert!(!ended.stderr.contains(TOLD), "it has ended: {}", ended.stderr);
    assert!(ended.receipt().ok, "{ended:?}");
    assert!(!warnings(&world, doctor(&world, "one")).contains(TOLD));
    world.ledger();
}

#[test]
fn runs_and_services_warn_of_those_with_another_catalog_and_go_on() {
    let (world, process) = busy(|world| replay(world, "one"));
    world.settings(&format!("{SERVE}[notify]\ndelay = \"0s\"\n"));
    world.jelly.set_faults("");
    // Killed, it cannot say that it has ended.
    process.kill();
    let ended = world.start(replay(&world, "two")).wait();
    assert!(ended.stderr.contains(TOLD) && ended.stderr.contains("WARN"), "{}", ended.stderr);
    assert!(ended.receipt().ok, "{ended:?}");

    let mut command = Serve::command(&world);
    command.args(["--catalog", "three"]);
    let serve = Serve::start_with(&world, command);
    until("it is told", || serve.process.stderr().matches(TOLD).count() >= 2);
    until("it is counted", || serve.ask("/metrics").1.contains("jellyjar_troubles{condition=\"settings_differ\"} 1"));
    until("it is ready", || serve.is_ready());
    serve.stop(&world);

    let ended = world.start(replay(&world, "one")).wait();
    assert!(!ended.stderr.contains(TOLD), "its own, and the others have ended: {}", ended.stderr);
    world.ledger();
}

#[test]
fn a_catalog_in_a_folder_beside_one_on_a_server_is_told() {
    let Some(database) = Database::create() else { return };
    let (world, process) = busy(|world| {
        let mut command = world.command(&World::REPLAY);
        command.env("JELLYJAR_CATALOG", database.url());
        command
    });
    let beside = |arguments: &[&str], catalog: &str| {
        let mut command = world.command(arguments);
        command.env("JELLYJAR_CATALOG", catalog);
        command
    };
    let examine = ["doctor", "--archive", "archive", "--offline", "--json"];
    let alone = world.path("alone");
    let warned = warnings(&world, beside(&examine, alone.to_str().unwrap()));
    assert!(warned.contains(TOLD) && warned.contains("(PostgreSQL)"), "{warned}");
    let warned = warnings(&world, beside(&examine, &database.url()));
    assert!(!warned.contains(TOLD), "all on one server share it: {warned}");
    world.jelly.set_faults("");
    process.kill();
    let ended = world.start(beside(&World::REPLAY, alone.to_str().unwrap())).wait();
    assert!(ended.stderr.contains(TOLD), "{}", ended.stderr);
    assert!(ended.receipt().ok, "{ended:?}");
    let ended = world.start(beside(&World::REPLAY, &database.url())).wait();
    assert!(!ended.stderr.contains(TOLD), "what has ended is told of no more: {}", ended.stderr);
    world.ledger();
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
