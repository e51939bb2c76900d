//! What a script may rely on: exit codes, one object on standard output, refusals that say what to do.

use jellyjar::sim::SimConfig;
use jellyjar::sim::corpus::{CorpusConfig, write_dump};

use crate::support::{World, attachments, events};

#[test]
fn a_dry_run_asks_for_nothing_and_writes_nothing_and_tells_the_truth() {
    let world = World::new();
    let mut mail = events(10, 1, (500, 500));
    attachments(&mut mail[0])[0]["inline"] = true.into();
    world.dump(&mail);
    let plan = world.run(&[&World::REPLAY[..], &["--dry-run"]].concat());
    assert_eq!(plan.code(), Some(0), "{plan:?}");
    let told = plan.json();
    assert_eq!((&told["fetch"], &told["api_requests"], &told["skipped"]), (&9.into(), &9.into(), &1.into()), "{told}");
    assert_eq!(told["fetch_bytes"], 4500, "{told}");
    assert_eq!(world.jelly.stats().api_requests, 0);
    assert!(!world.archive().exists(), "nothing is written, not even the archive");

    world.dump(&mail[..4]);
    let receipt = world.replay();
    assert_eq!((receipt.archived, receipt.skipped), (3, 1));
    world.dump(&mail);
    let before = World::bytes_below(&world.archive().join("blobs"));
    let told = world.run(&[&World::REPLAY[..], &["--dry-run"]].concat()).json();
    assert_eq!((&told["fetch"], &told["known"], &told["skipped"]), (&6.into(), &3.into(), &1.into()), "{told}");
    assert_eq!((world.jelly.stats().exchanges, World::bytes_below(&world.archive().join("blobs"))), (3, before));
    let receipt = world.replay();
    assert_eq!((receipt.api_requests, receipt.archived, receipt.known), (6, 6, 3), "as was foretold");
}

#[test]
fn a_misspelt_level_of_the_log_silences_nothing() {
    let world = World::new();
    world.dump(&events(1, 1, (5, 5)));
    let mut command = world.command(&World::REPLAY);
    // A warning of the command's own shows that the default is in force.
    command.env("JELLYJAR_LOG", "degub").env("JELLYJAR_TYPO", "1");
    let ended = world.start(command).wait();
    assert!(ended.stderr.contains("JELLYJAR_LOG has no effect: \"degub\" is no level"), "{}", ended.stderr);
    assert!(ended.stderr.contains("JELLYJAR_TYPO is none that jellyjar knows"), "{}", ended.stderr);
}

#[test]
fn a_short_webhook_secret_is_told_of_where_webhooks_are_taken_and_nowhere_else() {
    let world = World::new();
    world.dump(&events(1, 1, (5, 5)));
    world.settings("[teams.default]\nwebhook_secret = \"short-secret\"\n");
    for (arguments, is_told) in
        [(&["config", "check"][..], true), (&["doctor", "--archive", "archive"], true), (&World::REPLAY, false)]
    {
        let ended = world.run(arguments);
        let said = ended.stdout.clone() + &ended.stderr;
        assert_eq!(said.contains("has less than 16 characters"), is_told, "{arguments:?}: {said}");
    }
}

#[test]
fn a_dry_run_needs_no_token() {
    let world = World::new();
    world.dump(&events(2, 1, (5, 5)));
    let mut command = world.command(&["replay", "dump", "--dry-run", "--json"]);
    command.env_remove("JELLY_API_TOKEN");
    let ended = world.start(command).wait();
    assert_eq!((ended.code(), &ended.json()["fetch"]), (Some(0), &2.into()), "{ended:?}");
}

#[test]
fn arguments_that_cannot_be_understood_are_told_as_json_where_that_is_wanted() {
    let world = World::new();
    let cases: [(&[&str], &str); 6] = [
        (&["replay", "--json"], "required arguments were not provided: <SOURCE>"),
        (&["status", "--jsn", "--json"], "unexpected argument '--jsn' found tip: a similar argument exists: '--json'"),
        (&["--json", "search", "x"], "unrecognized subcommand 'search' tip: here that is 'jellyjar find'"),
        (&["find", "--limit", "many", "--json"], "invalid value 'many' for '--limit"),
        (&["--json"], "a command is missing; --help lists them"),
        (&["api", "--json"], "a command is missing"),
    ];
    for (arguments, words) in cases {
        let ended = world.run(arguments);
        assert_eq!((ended.code(), &ended.json()["ok"]), (Some(2), &false.into()), "{arguments:?}: {ended:?}");
        let error = ended.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(words) && !error.contains("Usage") && !error.contains('\n'), "{arguments:?}: {error}");
    }
    for arguments in [&["replay"][..], &["replay", "--", "--json", "--bad", "--", "x"], &["--help", "--json"]] {
        let ended = world.run(arguments);
        assert!(!ended.stdout.starts_with('{'), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn mistakes_of_use_end_with_2_and_say_what_to_do() {
    let world = World::new();
    world.dump(&events(2, 1, (5, 5)));
    std::fs::create_dir(world.path("other")).unwrap();
    std::fs::write(world.path("other/notes.txt"), "mine").unwrap();
    std::fs::write(world.path("bad.toml"), "[worker]\nconcurency = 4\n").unwrap();
    let cases: [(&[&str], &str); 9] = [
        (&["replay", "nowhere", "--archive", "a"], "does not exist"),
        (&["replay", "no*thing", "--archive", "a"], "no file matches"),
        (&["replay", "dump"], "--archive"),
        (&["replay", "dump", "--archive", "other"], "no jellyjar archive"),
        (&["replay", "dump", "--archive", "a", "--team", "sales"], "no team \"sales\""),
        (&["replay", "dump", "--archive", "a", "--config", "bad.toml"], "concurency"),
        (&["replay", "dump", "--archive", "a", "--config", "missing.toml"], "missing.toml"),
        (&["replay", "dump", "--archive", "a", "--name", "["], "["),
        (&["replay"], "SOURCE"),
    ];
    for (arguments, word) in cases {
        let ended = world.run(arguments);
        assert_eq!(ended.code(), Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(word), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
    assert!(!world.path("a").exists() || !world.path("a/blobs").exists());
    assert_eq!(std::fs::read_dir(world.path("other")).unwrap().count(), 1, "a foreign folder stays as it is");
    let as_json = world.run(&["replay", "dump", "--archive", "other", "--json"]);
    assert_eq!((as_json.code(), &as_json.json()["ok"]), (Some(2), &false.into()));
    assert!(as_json.json()["error"].as_str().unwrap().contains("no jellyjar archive"));
}

#[test]
fn a_missing_token_is_a_mistake_of_use() {
    let world = World::new();
    world.dump(&events(2, 1, (5, 5)));
    let mut command = world.command(&World::REPLAY);
    command.env_remove("JELLY_API_TOKEN");
    let ended = world.start(command).wait();
    assert_eq!(ended.code(), Some(2), "{ended:?}");
    assert!(ended.json()["error"].as_str().unwrap().contains("JELLY_API_TOKEN"));
}

#[test]
fn the_token_may_come_from_a_file_or_the_configuration() {
    let world = World::new();
    world.dump(&events(2, 1, (5, 5)));
    std::fs::write(world.path("token"), format!("{}\n", crate::support::TOKEN)).unwrap();
    let mut command = world.command(&[&World::REPLAY[..], &["--token-file", "token"]].concat());
    command.env_remove("JELLY_API_TOKEN");
    assert_eq!(world.start(command).wait().receipt().archived, 2);
    std::fs::write(world.path("c.toml"), "[teams.default]\ntoken_file = \"token\"\n").unwrap();
    let mut command = world.command(&["replay", "dump", "--archive", "b", "--json", "--config", "c.toml"]);
    command.env_remove("JELLY_API_TOKEN");
    assert_eq!(world.start(command).wait().receipt().archived, 2);
}

#[test]
fn an_archive_of_a_newer_format_is_refused_and_left_alone() {
    let world = World::new();
    world.dump(&events(2, 1, (5, 5)));
    world.replay();
    let marker = world.archive().join("jellyjar.json");
    let text = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, text.replace("\"format_version\": 1", "\"format_version\": 2")).unwrap();
    let before = World::bytes_below(&world.archive());
    let ended = world.run(&World::REPLAY);
    assert_eq!(ended.code(), Some(2), "{ended:?}");
    let told = ended.json()["error"].as_str().unwrap().to_owned();
    assert!(told.contains("newer") && told.contains('2'), "{told}");
    assert!(before == World::bytes_below(&world.archive()));
}

#[test]
fn a_journal_line_of_a_newer_format_is_refused() {
    let world = World::new();
    world.dump(&events(2, 1, (5, 5)));
    world.replay();
    world.lose_catalog();
    let folder = world.archive().join("outcomes/v1/2026");
    let find = |folder: &std::path::Path| std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let mut path = if folder.exists() { folder } else { find(&world.archive().join("outcomes/v1")) };
    while path.is_dir() {
        path = find(&path);
    }
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"v\":1,\"kind\":\"archived\"", "\"v\":9,\"kind\":\"archived\"")).unwrap();
    let ended = world.run(&World::REPLAY);
    assert_ne!(ended.code(), Some(0), "{ended:?}");
    assert!(ended.stdout.contains("newer"), "{ended:?}");
    assert_eq!(world.jelly.stats().exchanges, 2, "nothing is asked for on a misread journal");
}

#[test]
fn a_newer_foreign_or_damaged_catalog_is_refused() {
    let world = World::new();
    world.dump(&events(2, 1, (5, 5)));
    world.replay();
    world.catalog("INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) VALUES (9999, 'later', '2030-01-01', 1, x'00', 0) RETURNING description");
    let ended = world.run(&World::REPLAY);
    assert_eq!(ended.code(), Some(2), "{ended:?}");
    assert!(ended.json()["error"].as_str().unwrap().contains("newer jellyjar"), "{ended:?}");

    std::fs::create_dir(world.path("foreign")).unwrap();
    std::fs::write(world.path("foreign/catalog.sqlite"), "not a database, but long enough to have a header".repeat(90))
        .unwrap();
    let ended = world.run(&[&World::REPLAY[..], &["--catalog", "foreign"]].concat());
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.json()["error"].as_str().unwrap().contains("jellyjar rebuild"), "{ended:?}");

    world.catalog("PRAGMA application_id = 7");
    let ended = world.run(&World::REPLAY);
    assert_eq!(ended.code(), Some(2), "{ended:?}");
    assert!(ended.json()["error"].as_str().unwrap().contains("not a jellyjar catalog"), "{ended:?}");
}

#[test]
fn a_run_says_what_it_did_in_words() {
    let world = World::with(SimConfig::default());
    write_dump(&CorpusConfig { messages: 30, ..CorpusConfig::default() }, &world.path("dump")).unwrap();
    let ended = world.run(&["replay", "dump", "--archive", "archive"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    for word in ["attachments", "archived", "API requests", "Everything is archived."] {
        assert!(ended.stdout.contains(word), "{word}: {}", ended.stdout);
    }
    let quiet = world.run(&["replay", "dump", "--archive", "archive", "--quiet"]);
    assert_eq!((quiet.code(), quiet.stderr.as_str()), (Some(0), ""));
    assert!(quiet.stdout.contains("no API request was made"), "{}", quiet.stdout);
}

#[test]
fn sources_may_be_files_folders_and_patterns_together() {
    let world = World::new();
    let mail = events(9, 1, (5, 50));
    for (name, part) in [("in/a/1.jsonl", &mail[..3]), ("in/b.json", &mail[3..6]), ("c-2026.log", &mail[6..])] {
        crate::support::write_lines(&world.path(name), part);
    }
    let receipt = world.run(&["replay", "in", "c-*.log", "in/b.json", "--archive", "archive", "--json"]).receipt();
    assert_eq!((receipt.attachments, receipt.archived, receipt.payloads), (9, 9, 12), "{receipt:?}");
    assert_eq!(world.jelly.stats().exchanges, 9);
}

#[test]
fn the_simulator_rehearses_with_the_real_binary() {
    let world = World::new();
    let simulator = ["sim", "--listen", "127.0.0.1:0", "--dump", "rehearsal", "--messages", "20", "--json"];
    let process = world.start(world.command(&simulator));
    let mut ready = serde_json::Value::Null;
    crate::support::until("it is ready", || {
        ready = serde_json::from_str(&process.stdout()).unwrap_or_default();
        ready.is_object()
    });
    let mut command = world.command(&["replay", "rehearsal", "--archive", "archive", "--json"]);
    command.env("JELLY_API_URL", ready["base_url"].as_str().unwrap());
    command.env("JELLY_API_TOKEN", ready["token"].as_str().unwrap());
    let receipt = world.start(command).wait().receipt();
    assert!(receipt.ok && receipt.archived > 0, "{receipt:?}");
    process.interrupt();
    assert_eq!(process.wait().code(), Some(0));
}
