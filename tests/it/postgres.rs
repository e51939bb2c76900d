//! What people are told of a catalog in PostgreSQL: where it is, how it is, and what is wrong with it.

use jellyjar::sim::SimConfig;
use serde_json::Value;

use crate::support::{Database, Ended, World, events, ids, until};

/// Runs a command on a catalog of this address, whose password nobody may see.
fn run(world: &World, catalog: &str, arguments: &[&str]) -> Ended {
    let mut command = world.command(arguments);
    command.env("JELLYJAR_CATALOG", catalog);
    let ended = world.start(command).wait();
    world.check(&ended);
    let url: url::Url = catalog.parse().unwrap();
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.contains(url.password().unwrap()), "the password was printed:\n{text}");
    }
    ended
}

/// What `doctor` says of the catalog: its exit code, and each check as status and text.
fn examine(world: &World, catalog: &str) -> (i32, Vec<(String, String)>) {
    let ended = run(world, catalog, &["doctor", "--archive", "archive", "--offline", "--json"]);
    let answer = ended.json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = answer["checks"].as_array().unwrap().iter().filter(|check| check["name"] == "catalog");
    let checks = checks.map(|check| {
        let found = format!("{} → {}", text(&check["found"]), text(&check["advice"]));
        (text(&check["status"]), found)
    });
    (ended.code().unwrap(), checks.collect())
}

/// The address as people may see it.
fn shown(database: &Database) -> String {
    let mut url: url::Url = database.url().parse().unwrap();
    url.set_password(None).unwrap();
    url.into()
}

#[test]
fn doctor_tells_of_the_server_before_and_after_there_is_an_archive() {
    let Some(database) = Database::create() else { return };
    let (world, url) = (World::new(), database.url());
    let (code, checks) = examine(&world, &url);
    let [(status, found)] = &checks[..] else { panic!("{checks:?}") };
    assert_eq!((code, status.as_str()), (0, "ok"), "{found}");
    assert!(found.starts_with(&format!("{}: PostgreSQL 1", shown(&database))), "{found}");
    assert!(found.contains("UTF8, no tables yet"), "{found}");
    let schemas = database.query("SELECT nspname::TEXT FROM pg_namespace WHERE nspname = 'jellyjar'");
    assert_eq!(schemas, [""; 0], "to look is not to make");

    world.dump(&events(3, 1, (10, 100)));
    assert!(run(&world, &url, &World::REPLAY).receipt().ok);
    let (code, checks) = examine(&world, &url);
    let [(status, found)] = &checks[..] else { panic!("{checks:?}") };
    assert_eq!((code, status.as_str()), (0, "ok"), "{found}");
    assert!(found.contains("UTF8, tables of version") && found.contains("no process works with it"), "{found}");
}

#[test]
fn doctor_tells_what_is_wrong_with_an_address_once_and_what_to_do() {
    let Some(database) = Database::create() else { return };
    let (world, url) = (World::new(), database.url());
    let mut closed: url::Url = url.parse().unwrap();
    closed.set_port(Some(1)).unwrap();
    for (wrong, words) in [
        (url.replace(database.password(), "canary-of-another"), "password authentication failed"),
        (format!("{url}_that_is_not_there"), "does not exist"),
        (closed.into(), "Connection refused"),
    ] {
        let (code, checks) = examine(&world, &wrong);
        let [(status, found)] = &checks[..] else { panic!("{checks:?}") };
        assert_eq!((code, status.as_str()), (1, "problem"), "{found}");
        assert_eq!(found.matches(words).count(), 1, "{found}");
        assert!(!found.contains(" at line ") && found.contains("check the address"), "{found}");
    }
    for statement in ["CREATE", "TEMPORARY"] {
        let name = url.rsplit('/').next().unwrap();
        database.query(&format!("REVOKE {statement} ON DATABASE {name} FROM CURRENT_USER, PUBLIC"));
        let (code, checks) = examine(&world, &url);
        let [(status, found)] = &checks[..] else { panic!("{checks:?}") };
        assert_eq!((code, status.as_str()), (1, "problem"), "{found}");
        assert!(found.contains("GRANT") && found.contains(statement), "{found}");
    }
}

#[test]
fn a_server_that_cannot_be_written_or_proven_is_told_as_such() {
    let Some(database) = Database::create() else { return };
    let (world, url) = (World::new(), database.url());
    // Any address of this machine; it is no loopback's.
    let elsewhere = url.replace("127.0.0.1", "0.0.0.0").replace("localhost", "0.0.0.0");
    let (code, checks) = examine(&world, &elsewhere);
    let [(status, found), (next, _)] = &checks[..] else { panic!("{checks:?}") };
    assert_eq!((code, status.as_str(), next.as_str()), (0, "warning", "ok"), "{checks:?}");
    assert!(found.contains("(sslmode=prefer)") && found.contains("sslmode=verify-full"), "{found}");

    world.dump(&events(3, 1, (10, 100)));
    assert!(run(&world, &url, &World::REPLAY).receipt().ok);
    let name = url.rsplit('/').next().unwrap();
    database.query(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
    let (code, checks) = examine(&world, &url);
    let [(status, found)] = &checks[..] else { panic!("{checks:?}") };
    assert_eq!((code, status.as_str()), (1, "problem"), "{found}");
    assert!(found.contains("read-only → let the server's owner set"), "{found}");
    let ended = run(&world, &url, &["status", "--archive", "archive", "--json"]);
    let error = ended.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("cannot be written") && error.contains("the address of the primary"), "{error}");
}

#[test]
fn doctor_and_rebuild_tell_of_those_at_work_and_doctor_where_nobody_is() {
    let Some(database) = Database::create() else { return };
    let (world, url) = (World::with_faults("stall=1.0"), database.url());
    world.dump(&events(3, 1, (1000, 2000)));
    let mut command = world.command(&World::REPLAY);
    command.env("JELLYJAR_CATALOG", &url);
    let process = world.start(command);
    until("it hangs", || world.jelly.stats().storage_requests > 0);

    world.settings("[quota]\nrequests_per_day = 777\n");
    let (_, checks) = examine(&world, &url);
    let differing = |(status, found): &(String, String)| {
        status == "warning"
            && found.contains(&format!("process {} on ", process.id()))
            && found.contains("quota.requests_per_day")
            && found.contains("jellyjar config show")
    };
    assert_eq!(checks.iter().filter(|check| differing(check)).count(), 1, "{checks:?}");
    let refused = run(&world, &url, &["rebuild", "--archive", "archive", "--json"]);
    let error = refused.json()["error"].as_str().unwrap().to_owned();
    assert_eq!(refused.code(), Some(2), "{error}");
    assert!(error.contains(&format!("at work: process {} on ", process.id())), "{error}");

    let alone = || {
        let answer = run(&world, &url, &["doctor", "--archive", "archive", "--offline", "--json"]).json();
        let checks = answer["checks"].as_array().unwrap();
        checks
            .iter()
            .any(|check| check["status"] == "warning" && check["found"] == "3 are pending, and no worker is at work")
    };
    assert!(!alone(), "one is at work");
    process.kill();
    // The server sees within a moment that the session is over.
    until("doctor sees that nobody works", alone);
}

#[test]
fn status_names_the_database_and_a_catalog_of_another_archive_is_told_with_both() {
    let Some(database) = Database::create() else { return };
    let (world, url) = (World::new(), database.url());
    world.dump(&events(3, 1, (10, 100)));
    assert!(run(&world, &url, &World::REPLAY).receipt().ok);
    let status = run(&world, &url, &["status", "--archive", "archive", "--json"]).json();
    assert_eq!(
        (&status["archive"]["catalog"], &status["processes"]),
        (&shown(&database).into(), &Value::Array(vec![]))
    );
    let text = run(&world, &url, &["status", "--archive", "archive"]).stdout;
    assert!(text.contains(&format!("\ncatalog   {}\n", shown(&database))), "{text}");

    let ended = run(&world, &url, &["replay", "dump", "--archive", "other", "--json"]);
    let answer = ended.json();
    let error = answer["error"].as_str().unwrap();
    assert_eq!(ended.code(), Some(2), "{error}");
    let marker: Value = serde_json::from_slice(&std::fs::read(world.path("other/jellyjar.json")).unwrap()).unwrap();
    for uuid in [&status["archive"]["uuid"], &marker["archive_uuid"]] {
        assert!(error.contains(uuid.as_str().unwrap()), "{error}");
    }
    assert!(error.contains(&shown(&database)) && error.contains("another database"), "{error}");
}

#[test]
fn a_replay_whose_connection_is_ended_says_that_its_totals_are_unknown_and_the_next_one_knows() {
    let Some(database) = Database::create() else { return };
    let world = World::with(SimConfig { latency: std::time::Duration::from_millis(5), ..SimConfig::default() });
    world.settings("[worker]\nconcurrency = 4\n");
    let mail = events(300, 1, (10, 100));
    world.dump(&mail);
    for arguments in [&World::REPLAY[..], &["replay", "dump", "--archive", "archive"]] {
        let asked = world.jelly.stats().exchanges;
        let mut command = world.command(arguments);
        command.env("JELLYJAR_CATALOG", database.url());
        let process = world.start(command);
        until("some are asked for", || world.jelly.stats().exchanges >= asked + 40);
        database.query(
            "SELECT pg_terminate_backend(pid)::TEXT FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        let ended = process.wait();
        assert_eq!(ended.code(), Some(1), "{ended:?}");
        if arguments.contains(&"--json") {
            let answer = ended.json();
            assert_eq!((&answer["totals_unknown"], &answer["adds_up"]), (&true.into(), &false.into()), "{answer}");
        } else {
            let text = &ended.stdout;
            assert!(text.contains("Nothing is lost: run the same command again"), "{text}");
            assert!(!text.contains("\nattachments") && !text.contains("\n  archived"), "{text}");
        }
    }
    assert!(run(&world, &database.url(), &World::REPLAY).receipt().ok);
    assert_eq!(world.ledger().ids("archived"), ids(&mail));
}
