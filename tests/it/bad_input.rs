//! Hostile and broken dumps: each has an answer that loses nothing.

use std::io::Write;
use std::os::unix::fs::symlink;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::support::{Receipt, World, attachments, events, ids, lines};

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Replays one file with this content, beside good mail that must all be archived.
fn beside_good_mail(name: &str, content: impl AsRef<[u8]>) -> (World, Receipt) {
    let world = World::new();
    world.dump(&events(3, 1, (50, 500)));
    std::fs::write(world.path("dump").join(name), content).unwrap();
    let receipt = world.replay();
    let good = ids(&events(3, 1, (50, 500)));
    assert!(world.ledger().ids("archived").is_superset(&good), "good mail was lost: {receipt:?}");
    world.ledger().agrees_with(&receipt);
    (world, receipt)
}

/// The same where exactly these things are rejected: line, byte offset, and a part of the reason.
fn rejected(content: impl AsRef<[u8]>, expected: &[(u64, u64, &str)]) -> (World, Receipt) {
    let (world, receipt) = beside_good_mail("a.jsonl", content);
    let rejects = world.rejects();
    assert_eq!(rejects.len(), expected.len(), "{rejects:?}");
    for ((source, line, offset, reason), (expected_line, expected_offset, part)) in rejects.iter().zip(expected) {
        assert_eq!((source.as_str(), line, offset), ("dump/a.jsonl", expected_line, expected_offset), "{reason}");
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(receipt.rejected, expected.len() as u64, "{receipt:?}");
    assert!(!receipt.ok);
    (world, receipt)
}

/// More mail, with other attachments than that of `beside_good_mail`.
fn more(count: usize) -> Vec<Value> {
    events(20, 1, (50, 500)).split_off(3).into_iter().take(count).collect()
}

#[test]
fn a_bad_line_is_rejected_with_its_place_and_the_others_count() {
    let good = lines(&more(2));
    let first = good.lines().next().unwrap();
    let text = format!("{first}\n{{\"id\": nonsense}}\n{}\n", good.lines().nth(1).unwrap());
    let offset = first.len() as u64 + 1;
    let (world, receipt) = rejected(text, &[(2, offset, "")]);
    assert_eq!(receipt.archived, 5);
    drop(world);
}

#[test]
fn strict_stops_before_any_request() {
    let world = World::new();
    world.dump(&events(3, 1, (50, 500)));
    std::fs::write(world.path("dump/z.jsonl"), "{\"id\":\n").unwrap();
    let receipt = world.replay_with(&["--strict"]);
    assert_eq!((receipt.ok, receipt.rejected, receipt.pending), (false, 1, 3), "{receipt:?}");
    assert_eq!(world.jelly.stats().api_requests, 0);
    std::fs::remove_file(world.path("dump/z.jsonl")).unwrap();
    assert_eq!(world.replay_with(&["--strict"]).archived, 3);
}

#[test]
fn rejects_are_kept_once_however_often_they_are_read() {
    let (world, receipt) = rejected("{\"id\":\n", &[(1, 0, "")]);
    assert_eq!(receipt.rejected, 1);
    assert_eq!((world.replay().rejected, world.rejects().len()), (1, 1));
}

#[test]
fn cut_off_compression_counts_as_far_as_it_goes() {
    let mail = more(6);
    let whole = gzip(&lines(&mail));
    for name in ["a.jsonl.gz", "no-name-tells"] {
        let (world, receipt) = beside_good_mail(name, &whole[..whole.len() - 9]);
        assert!((1..=2).contains(&receipt.rejected), "{receipt:?}");
        assert!(receipt.archived >= 8, "{receipt:?}");
        assert!(world.rejects().iter().any(|(.., reason)| reason.contains("cut off")), "{:?}", world.rejects());
    }
    let whole = zstd::encode_all(lines(&mail).as_bytes(), 1).unwrap();
    let (world, receipt) = beside_good_mail("a.zst", &whole[..whole.len() / 2]);
    assert!(receipt.rejected >= 1 && !receipt.ok, "{receipt:?}");
    assert!(!world.rejects().is_empty());
}

#[test]
fn corrupt_compression_is_told() {
    let text = lines(&more(6));
    let mut damaged = gzip(&text);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    let (world, receipt) = beside_good_mail("a.gz", damaged);
    assert!(receipt.rejected >= 1, "{receipt:?}");
    assert!(!world.rejects().is_empty());
    let mut damaged = zstd::encode_all(text.as_bytes(), 1).unwrap();
    damaged[20] ^= 0x55;
    let (_, receipt) = beside_good_mail("a.zst", damaged);
    assert!(receipt.rejected >= 1, "{receipt:?}");
    let (_, receipt) = beside_good_mail("a.gz", b"\x1f\x8b");
    assert_eq!(receipt.rejected, 1, "{receipt:?}");
}

#[test]
fn whole_compression_is_told_by_content_alone() {
    let world = World::new();
    let mail = events(6, 1, (50, 500));
    std::fs::create_dir(world.path("dump")).unwrap();
    let two = [gzip(&lines(&mail[..1])), gzip(&lines(&mail[1..3]))].concat();
    std::fs::write(world.path("dump/plain.json"), two).unwrap();
    std::fs::write(world.path("dump/b.gz"), zstd::encode_all(lines(&mail[3..]).as_bytes(), 1).unwrap()).unwrap();
    let receipt = world.replay();
    assert_eq!((receipt.ok, receipt.archived), (true, 6), "{receipt:?}");
}

#[test]
fn invalid_utf8_costs_its_line_alone() {
    let mut text = b"{\"id\":\"m\",\"subject\":\"caf\xe9\",\"attachments\":[]}\n".to_vec();
    text.extend(lines(&more(2)).as_bytes());
    let (_, receipt) = rejected(text, &[(1, 0, "UTF-8")]);
    assert_eq!(receipt.archived, 5);
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let (_, receipt) = beside_good_mail("a.jsonl", format!("\u{feff}{}", lines(&more(2))));
    assert_eq!((receipt.ok, receipt.archived), (true, 5), "{receipt:?}");
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain("{\"id\":1}".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    rejected(utf16, &[(1, 0, "UTF-16")]);
}

#[test]
fn nesting_bombs_are_rejected_in_little_time() {
    let began = std::time::Instant::now();
    for bomb in ["[".repeat(1_000_000), "{\"a\":".repeat(500_000)] {
        let (_, receipt) = beside_good_mail("a.jsonl", format!("{bomb}\n{}", lines(&more(2))));
        assert!(receipt.rejected >= 1 && receipt.rejected <= 200, "{receipt:?}");
    }
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

#[test]
fn a_line_of_100_mb_is_rejected_and_the_next_is_read_in_bounded_memory() {
    let world = World::new();
    let mut process = world.start_with_stdin(world.command(&["replay", "-", "--archive", "archive", "--json"]));
    let mut input = process.stdin();
    let mail = events(2, 1, (50, 500));
    let writer = std::thread::spawn(move || -> std::io::Result<()> {
        input.write_all(lines(&mail[..1]).as_bytes())?;
        input.write_all(b"{\"id\":\"huge\",\"inbound\":true,\"text_body\":\"")?;
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            input.write_all(&piece)?;
        }
        input.write_all(b"\",\"attachments\":[]}\n")?;
        input.write_all(lines(&mail[1..]).as_bytes())
    });
    let ended = process.wait();
    writer.join().unwrap().unwrap();
    let receipt = ended.receipt();
    assert_eq!((receipt.archived, receipt.rejected), (2, 1), "{receipt:?}");
    let rejects = world.rejects();
    assert_eq!((rejects[0].0.as_str(), rejects[0].1), ("-", 2), "{rejects:?}");
    assert!(ended.peak_kib < 300 << 10, "{} KiB", ended.peak_kib);
}

#[test]
fn a_message_with_100_000_attachments_is_taken_whole() {
    const COUNT: u64 = 100_000;
    let world = World::new();
    let mut mail = events(1, COUNT, (10, 100));
    for (index, attachment) in attachments(&mut mail[0]).iter_mut().enumerate() {
        attachment["inline"] = json!(index % 5000 != 0);
    }
    world.dump(&mail);
    let receipt = world.replay();
    assert!(receipt.ok, "{receipt:?}");
    assert_eq!((receipt.attachments, receipt.archived, receipt.skipped), (COUNT, 20, COUNT - 20));
    world.ledger().agrees_with(&receipt);
    assert_eq!(world.replay().api_requests, 0);
}

#[test]
fn hostile_ids_reach_no_other_path_of_the_api() {
    let hostile = [
        "../members",
        "..%2f..%2fmembers",
        "a/b",
        "a?b=c",
        "a#b",
        "%2e%2e%2f",
        "%",
        "a b",
        "\u{0}nul",
        "\n\r\nHost: x",
        "\u{1b}[31m",
        "é\u{202e}",
        "&amp;",
        "'; DROP TABLE attachments; --",
        "...",
        "a\\..\\b",
        "//evil.example/",
        "http://evil.example/",
    ];
    let world = World::new();
    let mail: Vec<Value> = hostile
        .iter()
        .map(|id| json!({"id": "m", "subject": id, "inbound": true, "attachments": [{"id": id, "filename": id, "byte_size": 3}]}))
        .collect();
    world.dump(&mail);
    let receipt = world.replay();
    let count = hostile.len() as u64;
    assert_eq!((receipt.attachments, receipt.failed, receipt.rejected), (count, count, 0), "{receipt:?}");
    let stats = world.jelly.stats();
    assert_eq!((stats.other, stats.members, stats.unknown_ids), (0, 0, 3 * count), "{stats:?}");
    let ledger = world.ledger();
    assert!(ledger.blobs.is_empty());
    assert_eq!(ledger.ids("failed"), hostile.iter().map(|id| (*id).to_owned()).collect());
}

#[test]
fn ids_that_no_request_can_carry_are_rejected_and_their_neighbours_count() {
    let mut mail = events(1, 1, (50, 500));
    let long = "x".repeat(64 << 10);
    for bad in [json!(long), json!(""), json!("."), json!(".."), json!(null), json!(true), json!({"a": 1}), json!([1])]
    {
        attachments(&mut mail[0]).push(json!({"id": bad, "filename": "f"}));
    }
    attachments(&mut mail[0]).push(json!({"filename": "without"}));
    attachments(&mut mail[0]).push(json!("no object"));
    let world = World::new();
    world.dump(&mail);
    let receipt = world.replay();
    assert_eq!((receipt.attachments, receipt.archived, receipt.rejected), (1, 1, 10), "{receipt:?}");
    assert_eq!(world.rejects().len(), 10);
    assert!(world.rejects().iter().any(|(.., reason)| reason.contains("65536 bytes long")), "{:?}", world.rejects());
}

#[test]
fn sizes_that_cannot_be_are_unknown_sizes() {
    let mut mail = events(7, 1, (50, 500));
    let sizes = [json!(-1), json!("many"), json!(1e300), json!(u64::MAX), json!(null), json!(12.5), json!([])];
    for (event, size) in mail.iter_mut().zip(sizes) {
        attachments(event)[0]["byte_size"] = size;
    }
    let world = World::new();
    world.dump(&mail);
    let receipt = world.replay();
    assert_eq!((receipt.ok, receipt.archived), (true, 7), "{receipt:?}");
}

#[test]
fn a_huge_size_that_could_be_is_checked_against_what_comes() {
    let mut mail = events(2, 1, (50, 500));
    attachments(&mut mail[0])[0]["byte_size"] = json!(4_000_000_000_u64);
    let world = World::new();
    world.dump(&mail);
    let receipt = world.replay();
    assert_eq!((receipt.archived, receipt.quarantined), (1, 1), "{receipt:?}");
}

#[test]
fn a_missing_inline_counts_as_false() {
    let mut mail = events(2, 1, (50, 500));
    attachments(&mut mail[0])[0].as_object_mut().unwrap().remove("inline");
    attachments(&mut mail[1])[0]["inline"] = Value::Null;
    let world = World::new();
    world.dump(&mail);
    assert_eq!(world.replay().archived, 2);
}

#[test]
fn a_repeated_key_rejects_its_message_alone() {
    let id = ids(&more(1)).into_iter().next().unwrap();
    let text = format!(
        "{{\"id\":\"m\",\"inbound\":true,\"attachments\":[{{\"id\":\"{id}\",\"id\":\"other\"}}]}}\n{}",
        lines(&more(1))
    );
    let (_, receipt) = rejected(text, &[(1, 0, "duplicate field `id`")]);
    assert_eq!(receipt.archived, 4);
}

#[test]
fn numbers_for_text_and_text_for_numbers_are_understood() {
    let mut mail = events(3, 1, (50, 500));
    mail[0]["data"]["message"]["id"] = json!(42);
    mail[0]["data"]["message"]["subject"] = json!(7.5);
    let size = attachments(&mut mail[0])[0]["byte_size"].as_u64().unwrap();
    attachments(&mut mail[0])[0]["byte_size"] = json!(size.to_string());
    attachments(&mut mail[0])[0]["filename"] = json!(2026);
    attachments(&mut mail[1])[0]["inline"] = json!("true");
    attachments(&mut mail[2])[0]["inline"] = json!(1);
    let world = World::new();
    world.dump(&mail);
    let receipt = world.replay();
    assert_eq!((receipt.ok, receipt.archived, receipt.skipped), (true, 1, 2), "{receipt:?}");
    let ledger = world.ledger();
    assert_eq!(ledger.messages.iter().filter(|line| line["message"]["id"] == "42").count(), 1);
}

#[test]
fn nul_bytes_are_harmless() {
    let good = lines(&more(2));
    let (_, receipt) = beside_good_mail("a.jsonl", format!("\0\0\0\n{good}\0"));
    assert_eq!(receipt.archived, 5, "{receipt:?}");
    assert!((1..=2).contains(&receipt.rejected), "{receipt:?}");
    let (_, receipt) = beside_good_mail("a.bin", [&b"\x7fELF\0\0"[..], &[0, 1, 2, 255].repeat(5000)].concat());
    assert_eq!(receipt.rejected, 1, "{receipt:?}");
    let mut mail = more(1);
    attachments(&mut mail[0])[0]["filename"] = json!("a\u{0}b.pdf");
    let (world, receipt) = beside_good_mail("a.jsonl", lines(&mail));
    assert_eq!((receipt.ok, receipt.archived), (true, 4), "{receipt:?}");
    assert!(world.ledger().messages.iter().any(|line| line["attachments"][0]["name"] == "a\u{0}b.pdf"));
}

#[test]
fn a_fifo_is_read_where_it_is_named_and_reported_where_it_is_found() {
    let world = World::new();
    world.dump(&events(3, 1, (50, 500)));
    let fifo = world.path("dump/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let receipt = world.replay();
    assert_eq!((receipt.archived, receipt.rejected), (3, 1), "{receipt:?}");
    assert!(world.rejects()[0].3.contains("FIFO"), "{:?}", world.rejects());

    let process = world.start(world.command(&["replay", "dump/pipe", "--archive", "archive", "--json"]));
    std::fs::write(&fifo, lines(&more(2))).unwrap();
    let receipt = process.wait().receipt();
    assert_eq!((receipt.ok, receipt.archived), (true, 2), "{receipt:?}");
}

#[test]
fn links_are_followed_once_and_dead_ones_are_told() {
    let world = World::new();
    world.dump(&events(3, 1, (50, 500)));
    std::fs::write(world.path("elsewhere.jsonl"), lines(&more(1))).unwrap();
    symlink(world.path("elsewhere.jsonl"), world.path("dump/link.jsonl")).unwrap();
    symlink(world.path("dump"), world.path("dump/loop")).unwrap();
    symlink("nowhere", world.path("dump/dead")).unwrap();
    let receipt = world.replay();
    assert_eq!((receipt.archived, receipt.payloads, receipt.rejected), (4, 4, 1), "{receipt:?}");
    assert!(world.rejects()[0].0.ends_with("dump/dead"), "{:?}", world.rejects());
}

#[test]
fn lines_without_jelly_content_are_ignored_and_no_failure() {
    let text = format!("{{\"level\":\"info\",\"msg\":\"started\"}}\n{}\"text\"\n17\n[]\n", lines(&more(1)));
    let (_, receipt) = beside_good_mail("a.jsonl", text);
    assert_eq!((receipt.ok, receipt.archived, receipt.rejected), (true, 4, 0), "{receipt:?}");
    assert!((3..=4).contains(&receipt.ignored), "{receipt:?}");
}

#[test]
fn log_records_and_arrays_and_pages_carry_content() {
    let mail = more(5);
    let message = |index: usize| mail[index]["data"]["message"].clone();
    let text = [
        json!({"ts": 1, "body": mail[0].to_string()}).to_string(),
        json!({"request": {"payload": mail[1]}}).to_string(),
        json!([mail[2], message(3)]).to_string(),
        json!({"messages": [message(4)], "next_cursor": null}).to_string(),
    ]
    .join("\n");
    let (_, receipt) = beside_good_mail("a.jsonl", text);
    assert_eq!((receipt.ok, receipt.archived, receipt.payloads), (true, 8, 8), "{receipt:?}");
}

#[test]
fn an_unreadable_source_is_rejected_and_the_others_count() {
    let world = World::new();
    world.dump(&events(3, 1, (50, 500)));
    let receipt = world.run(&["replay", "dump", "/proc/self/mem", "--archive", "archive", "--json"]).receipt();
    assert_eq!((receipt.archived, receipt.rejected), (3, 1), "{receipt:?}");
}
