//! `export`: the tree is read back with code of its own, and proven with `sha256sum`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use jellyjar::sim::corpus::{CorpusConfig, Profile, write_plain};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Ended, World, attachments, events, until, write_lines};

/// An export to `out`.
fn export(world: &World, more: &[&str]) -> Ended {
    export_to(world, "out", more)
}

fn export_to(world: &World, destination: &str, more: &[&str]) -> Ended {
    world.run(&[&["export", destination, "--archive", "archive", "--json"], more].concat())
}

/// The answer of an export that must succeed.
fn answer(world: &World, more: &[&str]) -> Value {
    let ended = export(world, more);
    assert_eq!(ended.code(), Some(0), "{more:?}: {ended:?}");
    ended.json()
}

/// A world whose archive holds this mail.
fn archived(mail: &[Value]) -> World {
    let world = World::new();
    world.settings("[filter]\ninline = \"keep\"");
    world.dump(mail);
    assert!(world.replay().ok);
    world
}

/// All files below a folder, by their relative paths, but for those that let a later run go on.
fn tree(root: &Path) -> BTreeMap<String, PathBuf> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with(".jellyjar-export") {
                continue;
            }
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), path);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found);
    found
}

/// The exported files alone.
fn files(root: &Path) -> BTreeMap<String, PathBuf> {
    let mut files = tree(root);
    for own in ["manifest.csv", "manifest.jsonl", "SHA256SUMS"] {
        files.remove(own);
    }
    files
}

fn sha256(path: &Path) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(std::fs::read(path).unwrap()))
}

fn manifest(root: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(root.join("manifest.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Checks that manifest, sums and files tell the same, and that the files are those of the archive.
fn check(world: &World, root: &Path) {
    let lines = manifest(root);
    let exported = |line: &&Value| line["status"] == "exported";
    let told: BTreeMap<String, String> = lines
        .iter()
        .filter(exported)
        .map(|line| (line["path"].as_str().unwrap().to_owned(), line["sha256"].as_str().unwrap().to_owned()))
        .collect();
    let there: BTreeMap<String, String> = files(root).iter().map(|(name, path)| (name.clone(), sha256(path))).collect();
    assert_eq!(told, there);
    let paths: Vec<&str> = lines.iter().map(|line| line["path"].as_str().unwrap()).collect();
    assert!(paths.is_sorted(), "{paths:?}");
    let blobs = world.ledger().blobs;
    assert!(told.values().all(|digest| blobs.contains_key(digest)));
    let ended = Command::new("sha256sum").args(["-c", "--strict", "SHA256SUMS"]).current_dir(root).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    let proven = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(proven.lines().count(), told.len() + 2, "every file and both manifests");
    let mut reader = csv::Reader::from_path(root.join("manifest.csv")).unwrap();
    let cells: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(cells.len(), lines.len());
    assert!(!cells.iter().flatten().any(|cell| cell.starts_with(['=', '+', '-', '@', '\t', '\r'])), "{cells:?}");
}

const HOSTILE: [&str; 34] = [
    "../../../escape.txt",
    "/etc/cron.d/absolute",
    "..",
    ".",
    "",
    "   ",
    "C:\\Windows\\win.ini",
    "NUL",
    "nul.txt",
    "aux.tar.gz",
    "COM1",
    "LPT².log",
    "report.pdf",
    "REPORT.PDF",
    "Report.pdf",
    "report (2).pdf",
    "caf\u{e9}.txt",
    "cafe\u{301}.txt",
    "stra\u{df}e",
    "STRASSE",
    "trailing dot.",
    "trailing space ",
    "zero\0byte.txt",
    "line\nbreak\r.txt",
    "esc\u{1b}[2Jape.txt",
    "gnp.\u{202e}fdp.exe",
    "zero\u{200b}width.txt",
    "-rf",
    "=cmd|' /C calc'!A0",
    "@SUM(A1).csv",
    "a|b<c>d\"e?f*g.txt",
    "manifest.csv",
    ".htaccess",
    "\u{ffff}\u{fdd0}\u{f03a}",
];

/// One message of one conversation with files of these names.
fn message_of(names: &[&str]) -> Vec<Value> {
    let mut mail = events(1, names.len() as u64, (100, 2000));
    for (attachment, name) in attachments(&mut mail[0]).iter_mut().zip(names) {
        attachment["filename"] = (*name).into();
    }
    mail
}

/// Fails unless a path is safe on Linux, macOS and Windows.
fn assert_safe(path: &str) {
    assert!(path.encode_utf16().count() <= 200, "{path:?}");
    for component in path.split('/') {
        assert!(!component.is_empty() && component.len() <= 255, "{path:?}");
        assert!(!component.starts_with(['.', ' ', '-']) && !component.ends_with(['.', ' ']), "{path:?}");
        let bad = |c: char| c.is_control() || "\\<>:\"|?*\u{202e}\u{200b}\u{ffff}".contains(c);
        assert!(!component.chars().any(bad), "{path:?}");
        let first = component.split('.').next().unwrap().trim_end().to_lowercase();
        assert!(!["con", "nul", "aux", "prn", "com1", "lpt²"].contains(&first.as_str()), "{path:?}");
    }
}

#[test]
fn hostile_names_become_safe_ones_and_no_two_are_one_file_anywhere() {
    let long: Vec<String> =
        vec![format!("{}.pdf", "x".repeat(400)), format!("{}.PDF", "X".repeat(400)), "ü".repeat(300)];
    let names: Vec<&str> = HOSTILE.into_iter().chain(long.iter().map(String::as_str)).collect();
    let mut mail = message_of(&names);
    mail[0]["data"]["message"]["subject"] = "=HYPERLINK(\"x\")\n../..".into();
    mail[0]["data"]["message"]["from"] = json!(["+evil/../../@customers.example"]);
    let world = archived(&mail);
    let before: BTreeSet<PathBuf> =
        std::fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    for (number, by) in
        ["conversation", "sender", "date", "{subject}/{sender}/{name}", "{name}"].into_iter().enumerate()
    {
        let (destination, root) = (format!("out{number}"), world.path(&format!("out{number}")));
        let ended = export_to(&world, &destination, &["--by", by]);
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        let answer = ended.json();
        assert_eq!((&answer["places"], &answer["exported"]), (&json!(names.len()), &json!(names.len())), "{answer}");
        let files = files(&root);
        assert_eq!(files.len(), names.len());
        for path in files.keys() {
            assert_safe(path);
        }
        let folded: BTreeSet<String> = files.keys().map(|path| path.to_lowercase().to_uppercase()).collect();
        assert_eq!(folded.len(), names.len(), "{files:#?}");
        check(&world, &root);
        let kept = files.keys().filter(|path| path.to_lowercase().ends_with(".pdf")).count();
        assert_eq!(kept, 6, "extensions survive: {files:#?}");
    }
    let after: BTreeSet<PathBuf> =
        std::fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let new: Vec<_> = after.difference(&before).filter(|path| path.is_dir()).collect();
    assert_eq!(new.len(), 5, "nothing left its folder: {new:?}");
    let told: BTreeSet<String> =
        manifest(&world.path("out0")).iter().map(|line| line["name"].as_str().unwrap_or_default().to_owned()).collect();
    for name in ["../../../escape.txt", "=cmd|' /C calc'!A0", "gnp.\u{202e}fdp.exe"] {
        assert!(told.contains(name), "the manifest tells names as they came: {told:?}");
    }
}

#[test]
fn files_have_the_names_and_times_of_their_messages() {
    let mut mail = message_of(&["a.pdf", "a.pdf", "A.PDF", "README"]);
    let event = &mut mail[0]["data"];
    event["message"]["subject"] = "The offer".into();
    event["message"]["sent_at"] = "2026-03-04T23:30:00-02:00".into();
    event["message"]["from"] = json!(["Ann <Ann@Supplier.example>"]);
    let conversation = event["conversation"]["id"].as_str().unwrap().to_owned();
    let world = archived(&mail);
    answer(&world, &[]);
    let folder = format!("2026-03-05 The offer [{conversation}]");
    let names: Vec<String> = files(&world.path("out")).into_keys().collect();
    let expected = ["A (3).PDF", "README", "a (2).pdf", "a.pdf"].map(|name| format!("{folder}/{name}"));
    assert_eq!(names, expected, "dates are in UTC");
    let metadata = world.path("out").join(&expected[3]).metadata().unwrap();
    assert_eq!((metadata.mtime(), metadata.mode() & 0o777), (1_772_674_200, 0o444));
    assert_eq!(export_to(&world, "by-sender", &["--by", "sender"]).code(), Some(0));
    assert!(world.path("by-sender/ann@supplier.example/2026-03-05 README").exists());
    assert_eq!(export_to(&world, "by-date", &["--by", "date"]).code(), Some(0));
    assert!(world.path("by-date/2026/03/05/README").exists());
    let line = &manifest(&world.path("out"))[1];
    assert_eq!(
        (&line["name"], &line["sender"], &line["subject"], &line["team"], &line["sent_at"]),
        (
            &json!("README"),
            &json!("Ann <Ann@Supplier.example>"),
            &json!("The offer"),
            &json!("default"),
            &json!("2026-03-04T23:30:00-02:00")
        )
    );
    assert!(world.archive().join(line["blob_key"].as_str().unwrap()).exists());
}

#[test]
fn an_attachment_of_several_messages_has_a_place_in_each_conversation_and_one_elsewhere() {
    let mut mail = events(9, 1, (100, 2000));
    let shared = attachments(&mut mail[0])[0].clone();
    // Once more in its own conversation (three messages each), and once in another.
    attachments(&mut mail[1]).push(shared.clone());
    attachments(&mut mail[5]).push(shared.clone());
    let world = archived(&mail);
    let conversations = answer(&world, &[]);
    assert_eq!((&conversations["places"], &conversations["linked"]), (&json!(10), &json!(1)), "{conversations}");
    check(&world, &world.path("out"));
    let inodes: BTreeSet<u64> = files(&world.path("out")).values().map(|path| path.metadata().unwrap().ino()).collect();
    assert_eq!(inodes.len(), 9, "the tenth name is a hard link");
    let ended = export_to(&world, "dates", &["--by", "date"]);
    assert_eq!(ended.json()["places"], 9, "{ended:?}");
}

/// A world with one message for each attachment, of few contents and often of one name.
fn crowd(messages: u64, contents: u64) -> (World, Vec<Value>) {
    let config = CorpusConfig {
        profile: Profile::Plain,
        messages,
        attachments_per_message: 1,
        sizes: (2000, 30_000),
        contents,
        ..CorpusConfig::default()
    };
    let mut text = Vec::new();
    write_plain(&config, &mut text).unwrap();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut mail: Vec<Value> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    for (number, event) in mail.iter_mut().enumerate() {
        attachments(event)[0]["filename"] = ["image001.png", "IMAGE001.png", "scan.pdf"][number % 3].into();
    }
    (archived(&mail), mail)
}

#[test]
fn a_killed_export_goes_on_and_gives_the_tree_of_one_that_was_not() {
    let (world, _) = crowd(1800, 0);
    assert_eq!(export_to(&world, "reference", &["--by", "date"]).code(), Some(0));
    let reference = tree(&world.path("reference"));
    let out = world.path("out");
    let arguments = ["export", "out", "--by", "date", "--archive", "archive", "--json"];
    let mut kills = 0;
    for lines in [1, 600, 1100] {
        let process = world.start(world.command(&arguments));
        until("some lines are written", || {
            let text = std::fs::read(out.join(".jellyjar-export/progress.jsonl")).unwrap_or_default();
            text.split(|byte| *byte == b'\n').count() > lines || out.join("SHA256SUMS").exists()
        });
        let ended = process.kill();
        world.check(&ended);
        kills += usize::from(ended.code().is_none());
        let blobs = world.ledger().blobs;
        for (name, path) in files(&out) {
            assert!(blobs.contains_key(&sha256(&path)), "{name} is half a file");
        }
    }
    assert!(kills >= 1, "no run was killed in its middle");
    // As if the last kill had torn a line and left a half copy.
    use std::io::Write as _;
    let progress = out.join(".jellyjar-export/progress.jsonl");
    if progress.exists() {
        std::fs::File::options().append(true).open(&progress).unwrap().write_all(b"{\"path\":\"2026").unwrap();
        std::fs::write(out.join(".jellyjar-export/tmp/7.part"), "half").unwrap();
    }
    let answer = answer(&world, &["--by", "date"]);
    assert!(answer["present"].as_u64().unwrap() >= 512, "{answer}");
    assert_eq!(answer["present"].as_u64().unwrap() + answer["exported"].as_u64().unwrap(), 1800, "{answer}");
    check(&world, &out);
    assert_eq!(tree(&out).keys().collect::<Vec<_>>(), reference.keys().collect::<Vec<_>>());
    for own in ["manifest.csv", "manifest.jsonl", "SHA256SUMS"] {
        let text = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(text(&out.join(own)), text(&reference[own]), "{own}");
    }
    assert_eq!(std::fs::read_dir(out.join(".jellyjar-export/tmp")).unwrap().count(), 0);
}

#[test]
fn a_repeated_export_does_nothing_and_a_later_one_adds_what_is_new() {
    let (world, mut mail) = crowd(90, 30);
    let first = answer(&world, &["--by", "{sender_domain}/{name}"]);
    assert_eq!((&first["exported"], &first["linked"]), (&json!(90), &json!(60)), "{first}");
    let before: Vec<_> = tree(&world.path("out"))
        .into_iter()
        .map(|(name, path)| (name, path.metadata().unwrap().ctime_nsec()))
        .collect();
    let second = answer(&world, &["--by", "{sender_domain}/{name}"]);
    assert_eq!((&second["present"], &second["exported"], &second["bytes_written"]), (&json!(90), &json!(0), &json!(0)));
    assert_eq!(second["sums_sha256"], first["sums_sha256"]);
    let after: Vec<_> = tree(&world.path("out"))
        .into_iter()
        .map(|(name, path)| (name, path.metadata().unwrap().ctime_nsec()))
        .collect();
    assert_eq!(before, after, "nothing was touched");
    // An older message of the same name comes late: what has a name keeps it.
    let mut late = events(200, 1, (100, 2000)).split_off(199);
    late[0]["data"]["message"]["sent_at"] = "2001-01-01T00:00:00Z".into();
    attachments(&mut late[0])[0]["filename"] = "image001.png".into();
    mail.append(&mut late);
    write_lines(&world.path("dump/mail.jsonl"), &mail);
    assert!(world.replay().ok);
    let third = answer(&world, &["--by", "{sender_domain}/{name}"]);
    assert_eq!((&third["present"], &third["exported"]), (&json!(90), &json!(1)), "{third}");
    let names: BTreeSet<String> = tree(&world.path("out")).into_keys().collect();
    assert!(before.iter().all(|(name, _)| names.contains(name)));
    assert!(names.contains("customers.example/image001 (61).png"), "{names:?}");
    check(&world, &world.path("out"));
    // What an earlier run exported stays in the manifest, whatever this one selects.
    let fourth = answer(&world, &["--by", "{sender_domain}/{name}", "--name", "*.pdf"]);
    assert_eq!((&fourth["places"], &fourth["present"]), (&json!(30), &json!(30)), "{fourth}");
    assert_eq!(manifest(&world.path("out")).len(), 91);
}

#[test]
fn the_tree_does_not_hang_on_the_catalog() {
    let (world, _) = crowd(60, 20);
    answer(&world, &["--by", "sender"]);
    world.lose_catalog();
    let ended = world.run(&["rebuild", "--archive", "archive", "--json"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!(export_to(&world, "again", &["--by", "sender"]).code(), Some(0));
    let (one, other) = (tree(&world.path("out")), tree(&world.path("again")));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    let told = |destination: &str| {
        let mut lines = manifest(&world.path(destination));
        // The journal has the time of the line, the catalog that wrote it the moment after.
        for line in &mut lines {
            line["archived_at"] = Value::Null;
        }
        lines
    };
    assert_eq!(told("out"), told("again"));
    assert_eq!(answer(&world, &["--by", "sender"])["present"], 60);
}

#[test]
fn a_folder_that_is_not_this_export_is_refused_and_left_alone() {
    let world = archived(&events(3, 1, (100, 2000)));
    std::fs::create_dir(world.path("photos")).unwrap();
    std::fs::write(world.path("photos/a.txt"), "mine").unwrap();
    std::fs::write(world.path("file"), "mine").unwrap();
    answer(&world, &[]);
    world.run(&["replay", "dump", "--archive", "other", "--json"]).receipt();
    let refused = |arguments: &[&str], word: &str| {
        let ended = world.run(&[arguments, &["--json"]].concat());
        assert_eq!(ended.code(), Some(2), "{ended:?}");
        assert!(ended.json()["error"].as_str().unwrap().contains(word), "{word}: {ended:?}");
    };
    refused(&["export", "photos", "--archive", "archive"], "is no export");
    assert_eq!(tree(&world.path("photos")).len(), 1);
    refused(&["export", "file", "--archive", "archive"], "not a folder");
    refused(&["export", "file/below", "--archive", "archive"], "not a folder");
    refused(&["export", "out", "--archive", "other"], "another archive");
    refused(&["export", "out", "--by", "date", "--archive", "archive"], "laid out by");
    refused(&["export", "archive/export/deep", "--archive", "archive"], "inside the archive");
    refused(&["export", "archive", "--archive", "archive"], "inside the archive");
    assert!(!world.path("archive/export").exists());
    let ended = export(&world, &["--by", "{nothing}"]);
    assert!(ended.code() == Some(2) && ended.stdout.contains("there is no field {nothing}"), "{ended:?}");
    check(&world, &world.path("out"));
}

#[test]
fn damaged_and_missing_bytes_are_told_and_made_good_after_a_repair() {
    let world = archived(&events(10, 1, (100, 2000)));
    let digests: Vec<String> = world.ledger().digests().into_values().collect();
    let blob = |digest: &str| world.archive().join("blobs/sha256").join(&digest[..2]).join(digest);
    let size = blob(&digests[0]).metadata().unwrap().len();
    std::fs::write(blob(&digests[0]), vec![b'x'; usize::try_from(size).unwrap()]).unwrap();
    std::fs::remove_file(blob(&digests[1])).unwrap();
    for _ in 0..2 {
        let ended = export(&world, &[]);
        assert_eq!(ended.code(), Some(1), "{ended:?}");
        let answer = ended.json();
        assert_eq!((&answer["damaged"], &answer["missing"]), (&json!(1), &json!(1)), "{answer}");
        assert_eq!(answer["trouble"].as_array().unwrap().len(), 2, "{answer}");
    }
    let lines = manifest(&world.path("out"));
    let status: BTreeMap<&str, &str> =
        lines.iter().map(|line| (line["sha256"].as_str().unwrap(), line["status"].as_str().unwrap())).collect();
    assert_eq!((status[&*digests[0]], status[&*digests[1]]), ("damaged", "missing"));
    assert_eq!(files(&world.path("out")).len(), 8, "no file for what is not proven");
    let ended = world.run(&["verify", "--repair", "--archive", "archive", "--json"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let mended = answer(&world, &[]);
    assert_eq!((&mended["exported"], &mended["present"]), (&json!(2), &json!(8)), "{mended}");
    assert!(manifest(&world.path("out")).iter().all(|line| line["status"] == "exported"));
    check(&world, &world.path("out"));
}

#[test]
fn a_file_that_was_changed_is_left_alone_and_one_that_is_gone_comes_back() {
    let world = archived(&events(6, 1, (100, 2000)));
    answer(&world, &[]);
    let names: Vec<PathBuf> = files(&world.path("out")).into_values().collect();
    // Editors write a new file and rename it.
    std::fs::remove_file(&names[0]).unwrap();
    std::fs::write(&names[0], "edited").unwrap();
    std::fs::remove_file(&names[1]).unwrap();
    // Copied elsewhere and back: the bytes are right, the time is new.
    let bytes = std::fs::read(&names[2]).unwrap();
    std::fs::remove_file(&names[2]).unwrap();
    std::fs::write(&names[2], bytes).unwrap();
    let ended = export(&world, &[]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    let told = ended.json();
    assert_eq!((&told["changed"], &told["exported"], &told["present"]), (&json!(1), &json!(1), &json!(4)), "{told}");
    assert_eq!(std::fs::read(&names[0]).unwrap(), b"edited");
    std::fs::remove_file(&names[0]).unwrap();
    assert_eq!(answer(&world, &[])["exported"], 1);
    check(&world, &world.path("out"));
}

#[test]
fn a_file_of_somebody_else_is_never_replaced() {
    let world = archived(&message_of(&["a.pdf", "b.pdf"]));
    answer(&world, &["--name", "b.pdf", "--by", "{name}"]);
    std::fs::write(world.path("out/a.pdf"), "mine").unwrap();
    let second = answer(&world, &["--by", "{name}"]);
    assert_eq!((&second["exported"], &second["present"]), (&json!(1), &json!(1)), "{second}");
    assert_eq!(std::fs::read(world.path("out/a.pdf")).unwrap(), b"mine");
    assert!(world.path("out/a (2).pdf").exists());
}

#[test]
fn selections_take_what_matches_and_a_dry_run_writes_nothing() {
    let mut mail = events(4, 1, (100, 2000));
    let facts = [
        ("a.pdf", "application/pdf", "ann@a.example", "2026-01-05T00:00:00Z"),
        ("b.PDF", "application/pdf", "bob@b.example", "2026-02-05T00:00:00Z"),
        ("c.png", "image/png", "Cy <CY@a.example>", "2026-03-05T00:00:00Z"),
        ("d.txt", "text/plain; charset=utf-8", "dan@d.example", "not a date"),
    ];
    for (event, (name, content_type, sender, sent_at)) in mail.iter_mut().zip(facts) {
        attachments(event)[0]["filename"] = name.into();
        attachments(event)[0]["content_type"] = content_type.into();
        event["data"]["message"]["from"] = json!([sender]);
        event["data"]["message"]["sent_at"] = sent_at.into();
    }
    let world = archived(&mail);
    for (flags, expected) in [
        (&["--name", "*.pdf"][..], &["a.pdf", "b.PDF"][..]),
        (&["--type", "text/*", "--type", "image/png"], &["c.png", "d.txt"]),
        (&["--sender", "*@a.example"], &["a.pdf", "c.png"]),
        (&["--since", "2026-02-01"], &["b.PDF", "c.png"]),
        (&["--since", "2026-02-01", "--until", "2026-03-01"], &["b.PDF"]),
        (&["--conversation", "c1"], &["d.txt"]),
        (&["--name", "nothing"], &[]),
    ] {
        let plan = answer(&world, &[flags, &["--dry-run", "--by", "{name}"]].concat());
        let mut paths: Vec<&str> =
            plan["first_paths"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
        paths.sort_unstable();
        assert_eq!(paths, expected, "{flags:?}: {plan}");
        assert_eq!(plan["new_places"], expected.len(), "{plan}");
    }
    assert!(!world.path("out").exists(), "a dry run writes nothing");
    assert_eq!(answer(&world, &["--by", "{name}", "--name", "nothing"])["places"], 0);
    check(&world, &world.path("out"));
    let ended = export(&world, &["--since", "2026-02-01", "--until", "2026-02-01"]);
    assert_eq!(ended.code(), Some(2), "{ended:?}");
}

#[test]
fn hard_links_are_made_as_far_as_they_are_asked_for() {
    let (world, _) = crowd(12, 4);
    let inodes = |destination: &str, links: &str| {
        let ended = export_to(&world, destination, &["--hard-links", links]);
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        check(&world, &world.path(destination));
        let metadata = files(&world.path(destination)).into_values().map(|path| path.metadata().unwrap());
        metadata.map(|metadata| (metadata.ino(), metadata.mode() & 0o222 == 0)).collect::<Vec<_>>()
    };
    let blobs: BTreeSet<u64> =
        tree(&world.archive().join("blobs")).values().map(|path| path.metadata().unwrap().ino()).collect();
    let count = |found: &[(u64, bool)]| found.iter().map(|(inode, _)| *inode).collect::<BTreeSet<_>>();
    let never = inodes("never", "never");
    assert_eq!(count(&never).len(), 12);
    assert!(never.iter().all(|(_, read_only)| !read_only));
    let within = inodes("within", "export");
    assert_eq!(count(&within).len(), 4);
    assert!(within.iter().all(|(_, read_only)| *read_only) && count(&within).is_disjoint(&blobs));
    let archive = inodes("linked", "archive");
    assert_eq!(count(&archive), blobs);
    assert!(archive.iter().all(|(_, read_only)| *read_only), "nobody changes the archive through the export");
    let ended = world.run(&["verify", "--archive", "archive", "--json"]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}
