//! A new catalog is filled from the journal in bulk: killed at any moment, or beside others, it misses nothing.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::{World, until};

/// Enough that the load is one in bulk, from its 20,000th line on.
const COUNT: usize = 30_000;

/// The `number`-th digest: scattered, as digests are, and each once.
fn digest(number: usize) -> String {
    format!("{:016x}{number:048x}", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Writes a journal of `COUNT` messages, each with an attachment that was archived. Every tenth content is that of the
/// attachment before it.
fn write_journal(world: &World) {
    const WRITER: &str = "01KAYZZZZZ000000000000SCA1";
    const AT: &str = "2026-11-01T00:00:00Z";
    let archive = world.archive();
    std::fs::create_dir_all(&archive).unwrap();
    let marker = json!({"format_version": 1, "archive_uuid": "00000000-0000-4000-8000-000000005ca1", "created_at": AT});
    std::fs::write(archive.join("jellyjar.json"), format!("{marker}\n")).unwrap();
    for (stream, name) in [("messages", "0"), ("outcomes", "1")] {
        let header = json!({"v": 1, "kind": "segment", "stream": stream, "writer_id": WRITER, "seq": 0,
            "previous_sha256": null, "supersedes": []});
        let mut text = format!("{header}\n");
        for number in 0..COUNT {
            let line = if stream == "messages" {
                json!({"v": 1, "kind": "message", "team": "default", "at": AT,
                    "message": {"id": format!("m{number}"), "subject": "Hello", "from": ["a@b.example"], "to": [],
                        "cc": [], "sent_at": AT, "direction": "inbound"},
                    "conversation": {"id": "c", "subject": "Hello", "labels": [], "mailboxes": []},
                    "attachments": [{"id": format!("id-{number}"), "name": "a.bin", "content_type": null,
                        "size_bytes": 10, "inline": false}]})
            } else {
                json!({"v": 1, "kind": "archived", "team": "default", "attachment_id": format!("id-{number}"),
                    "generation": 1 + number, "writer_id": WRITER, "at": AT,
                    "sha256": digest(number - usize::from(number % 10 == 9)), "size_bytes": 10,
                    "sniffed_type": "application/octet-stream"})
            };
            writeln!(text, "{line}").unwrap();
        }
        let folder = archive.join(stream).join("v1/2026/11/01");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("01KAYZZZZZ{name}000000000000000.jsonl")), text).unwrap();
    }
}

const STATUS: [&str; 4] = ["status", "--archive", "archive", "--json"];

/// Fails unless the catalog, and what `status` says of it, is what the journal says.
fn assert_whole(world: &World, answer: &Value) {
    let contents = COUNT - COUNT / 10;
    assert_eq!(answer["total"]["archived"], COUNT, "{answer}");
    assert_eq!(answer["total"]["messages"], COUNT, "{answer}");
    assert_eq!(answer["content"]["blobs"], contents, "{answer}");
    for (query, count) in [
        ("SELECT '' || count(*) FROM attachments WHERE state = 'archived' AND declared_size = 10", COUNT),
        (
            "SELECT '' || count(*) FROM links l JOIN attachments a ON a.id = l.attachment_row
                JOIN messages m ON m.id = l.message_row WHERE substr(m.message_id, 2) = substr(a.attachment_id, 4)",
            COUNT,
        ),
        ("SELECT '' || count(*) FROM blobs WHERE state = 'writing' AND size_bytes = 10", contents),
        ("SELECT '' || count(DISTINCT a.sha256) FROM attachments a JOIN blobs b ON b.sha256 = a.sha256", contents),
        ("SELECT '' || attachments FROM state_totals WHERE state = 'archived'", COUNT),
        ("SELECT '' || count(*) FROM segments", 2),
        ("SELECT '' || count(*) FROM sqlite_schema WHERE type = 'trigger'", 5),
        (
            "SELECT '' || count(*) FROM sqlite_schema WHERE name IN
                ('attachments_due', 'attachments_attention', 'attachments_sha256', 'links_attachment')",
            4,
        ),
    ] {
        assert_eq!(world.catalog(query), [count.to_string()], "{query}");
    }
    assert_eq!(world.catalog("PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn a_load_that_is_killed_at_any_moment_is_gone_on_with_by_the_next_start() {
    let world = World::new();
    write_journal(&world);
    let folder = world.archive().join(".jellyjar");
    let size = |name: &str| std::fs::metadata(folder.join(name)).map_or(0, |file| file.len());
    let grown = || size("catalog.sqlite") + size("catalog.sqlite-wal");
    let mut killed = 0;
    // Before the bulk begins, when it does, and while it goes on: the catalog is some 20 MB at its end.
    for at_bytes in [1 << 20, 0, 12 << 20, 16 << 20, 20 << 20] {
        if folder.exists() {
            world.lose_catalog();
        }
        let mut process = world.start(world.command(&STATUS));
        until("it is in the middle", || {
            let there = if at_bytes == 0 { folder.join("load.lock").exists() } else { grown() >= at_bytes };
            there || !process.is_running()
        });
        let ended = process.kill();
        killed += usize::from(ended.code().is_none());
        // Killed twice in a row, the second time where the first load is gone on with.
        let before = grown();
        let mut again = world.start(world.command(&STATUS));
        until("it has begun", || grown() != before || !again.is_running());
        again.kill();
        assert_whole(&world, &world.run(&STATUS).json());
    }
    assert!(killed >= 3, "only {killed} of the loads were killed");
}

#[test]
fn two_that_fill_a_new_catalog_at_once_leave_it_whole() {
    let world = World::new();
    write_journal(&world);
    // Unlike `status`, a replay loads the journal although another does.
    world.dump(&[]);
    for process in [world.start_replay(), world.start_replay()] {
        let ended = process.wait();
        world.check(&ended);
        assert_eq!(ended.code(), Some(0), "{ended:?}");
    }
    assert_whole(&world, &world.run(&STATUS).json());
}

#[test]
fn a_second_start_beside_a_fill_and_a_rebuild_after_it_leave_the_catalog_whole() {
    let world = World::new();
    write_journal(&world);
    let filler = world.start(world.command(&STATUS));
    until("it fills", || world.archive().join(".jellyjar/load.lock").exists());
    let beside = world.run(&STATUS);
    // It tells what is there so far.
    assert_eq!(beside.code(), Some(0), "{beside:?}");
    assert_eq!(filler.wait().code(), Some(0));
    assert_whole(&world, &world.run(&STATUS).json());
    let rebuilt = world.run(&["rebuild", "--archive", "archive", "--json"]);
    assert_eq!(rebuilt.code(), Some(0), "{rebuilt:?}");
    assert_whole(&world, &world.run(&STATUS).json());
}
