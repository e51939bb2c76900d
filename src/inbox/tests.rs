//! The inbox as a whole, in one process. What kills and failing disks do to it is in `tests/it/inbox.rs`.

use std::os::unix::fs::PermissionsExt as _;

use futures::future::join_all;
use jiff::Timestamp;

use super::*;

const NOON: i64 = 1_795_000_000_000;

fn clock(ms: i64) -> Clock {
    Clock::fixed(Timestamp::from_millisecond(ms).unwrap())
}

fn config() -> InboxConfig {
    InboxConfig { allow_tmpfs: true, min_free_bytes: 0, ..InboxConfig::default() }
}

fn open_with(config: &InboxConfig, folder: &Path, clock: &Clock) -> Inboxes {
    Inboxes::open(config, folder, &["a".into(), "b".into()], clock.clone()).unwrap()
}

fn open(folder: &Path) -> Inboxes {
    open_with(&config(), folder, &clock(NOON))
}

async fn append(inboxes: &Inboxes, team: &str, body: &str) -> Result<(), AppendError> {
    inboxes.append(team, "webhook", Bytes::copy_from_slice(body.as_bytes())).await
}

/// Appends numbers as bodies, all at once.
async fn append_all(inboxes: &Inboxes, team: &str, numbers: std::ops::Range<usize>) {
    let appends: Vec<_> = numbers.map(|number| inboxes.append(team, "webhook", number.to_string().into())).collect();
    for result in join_all(appends).await {
        result.unwrap();
    }
}

/// The bodies of whole lines.
fn bodies(lines: &[u8]) -> Vec<String> {
    let lines = std::str::from_utf8(lines).unwrap().lines();
    lines
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["body"].as_str().unwrap().into())
        .collect()
}

/// The next bodies, until there are `count`.
async fn read(reader: &mut Reader, count: usize) -> Vec<String> {
    let mut read = Vec::new();
    while read.len() < count {
        read.extend(bodies(&reader.next(1000).await.unwrap().bytes));
    }
    read
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Waits until something holds that only changes of a team can bring about.
async fn until(inboxes: &Inboxes, team: &str, holds: impl Fn(&TeamStatus, &[ClosedSegment]) -> bool) {
    let mut changes = inboxes.changes(team).unwrap();
    loop {
        let status = inboxes.status().teams.into_iter().find(|status| status.team == team).unwrap();
        if holds(&status, &inboxes.segments(team).unwrap()) {
            return;
        }
        changes.changed().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_at_once_are_all_durable_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let inboxes = open_with(&InboxConfig { max_waiting: 40_000, ..config() }, folder.path(), &clock(NOON));
    append_all(&inboxes, "a", 0..10_000).await;
    assert_eq!(read(&mut inboxes.reader("a", None).unwrap(), 10_000).await, numbers(0..10_000));
    inboxes.close().await;
    let segments = inboxes.segments("a").unwrap();
    assert_eq!(segments.iter().map(|segment| segment.bytes).sum::<u64>(), inboxes.status().bytes);
    assert_eq!(inboxes.status().teams[0].waiting, 0);
}

#[tokio::test]
async fn reading_goes_on_after_a_restart_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    append_all(&first, "a", 0..100).await;
    let mut reader = first.reader("a", None).unwrap();
    let batch = reader.next(2000).await.unwrap();
    let known = bodies(&batch.bytes).len();
    assert!(batch.bytes.len() <= 2000 && known > 10, "{known}");
    assert_eq!((batch.start.offset, batch.end.offset), (0, batch.bytes.len() as u64));
    first.close().await;
    drop((first, reader));

    let second = open(folder.path());
    append_all(&second, "a", 100..200).await;
    let mut reader = second.reader("a", Some(batch.end)).unwrap();
    assert_eq!(read(&mut reader, 200 - known).await, numbers(known..200));
    assert_ne!(reader.position().unwrap().segment, batch.end.segment, "a restart goes on in a new segment");
}

#[tokio::test]
async fn a_reader_waits_for_the_next_record_and_sees_its_own_team_alone() {
    let folder = tempfile::tempdir().unwrap();
    let inboxes = open(folder.path());
    let mut reader = inboxes.reader("a", None).unwrap();
    let reading = tokio::spawn(async move { reader.next(1 << 20).await.unwrap() });
    tokio::task::yield_now().await;
    append(&inboxes, "b", "other").await.unwrap();
    assert!(!reading.is_finished());
    append(&inboxes, "a", "mine").await.unwrap();
    assert_eq!(bodies(&reading.await.unwrap().bytes), ["mine"]);
}

#[tokio::test]
async fn a_line_above_what_was_asked_for_comes_alone() {
    let folder = tempfile::tempdir().unwrap();
    let inboxes = open(folder.path());
    let large = "x".repeat(300_000);
    for body in ["small", &large, "last"] {
        append(&inboxes, "a", body).await.unwrap();
    }
    let mut reader = inboxes.reader("a", None).unwrap();
    let mut read = Vec::new();
    for _ in 0..3 {
        read.push(bodies(&reader.next(200).await.unwrap().bytes));
    }
    assert_eq!(read, [["small".to_owned()], [large], ["last".into()]]);
}

#[tokio::test]
async fn segments_close_by_size_and_by_age_and_are_removed_once_they_are_finished() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock(NOON);
    let config = InboxConfig { segment_bytes: 64 << 10, ..config() };
    let inboxes = open_with(&config, folder.path(), &clock);
    let body = "x".repeat(40_000);
    for _ in 0..3 {
        append(&inboxes, "a", &body).await.unwrap();
    }
    until(&inboxes, "a", |status, closed| status.segments == 2 && closed.len() == 1).await;
    clock.advance_ms(i64::try_from(config.segment_age.as_millis()).unwrap() - 1);
    inboxes.check();
    append(&inboxes, "a", "in the same").await.unwrap();
    assert_eq!(inboxes.segments("a").unwrap().len(), 1);
    clock.advance_ms(1);
    inboxes.check();
    until(&inboxes, "a", |status, closed| status.segments == 2 && closed.len() == 2).await;

    let mut reader = inboxes.reader("a", None).unwrap();
    assert_eq!(read(&mut reader, 4).await.len(), 4);
    assert!(inboxes.finished("a").unwrap().is_empty());
    inboxes.consumed("a", reader.position().unwrap()).unwrap();
    let finished = inboxes.finished("a").unwrap();
    assert_eq!(finished, inboxes.segments("a").unwrap());
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut finished[1].open().unwrap(), &mut text).unwrap();
    assert_eq!(bodies(&text), [body, "in the same".into()]);
    for segment in finished {
        inboxes.remove("a", segment.id).unwrap();
        inboxes.remove("a", segment.id).unwrap();
        assert!(!segment.path.exists());
    }
    assert_eq!(inboxes.status().bytes, 0);
    append(&inboxes, "a", "next").await.unwrap();
    assert_eq!(read(&mut reader, 1).await, ["next"]);
    let open = reader.position().unwrap().segment;
    assert!(matches!(inboxes.remove("a", open), Err(ReadError::Open(id)) if id == open));
}

#[tokio::test]
async fn names_ascend_even_if_all_segments_are_gone_and_the_clock_was_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut position = None;
    for life in 0..4 {
        let inboxes = open_with(&config(), folder.path(), &clock(NOON - life * 86_400_000));
        append(&inboxes, "a", &life.to_string()).await.unwrap();
        let mut reader = inboxes.reader("a", position).unwrap();
        assert_eq!(read(&mut reader, 1).await, [life.to_string()]);
        position = reader.position();
        inboxes.close().await;
        inboxes.consumed("a", position.unwrap()).unwrap();
        for segment in inboxes.finished("a").unwrap() {
            inboxes.remove("a", segment.id).unwrap();
        }
    }
    let left: Vec<_> = std::fs::read_dir(folder.path().join("a")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let (identity, left): (Vec<_>, Vec<_>) = left.iter().partition(|path| path.ends_with(".identity"));
    assert_eq!((identity.len(), left.len()), (1, 1), "{left:?}");
    assert_eq!(std::fs::metadata(left[0]).unwrap().len(), 0);
}

#[tokio::test]
async fn a_new_disk_goes_on_above_a_position_that_is_known() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inboxes = open(old.path());
    append(&inboxes, "a", "0").await.unwrap();
    let mut reader = inboxes.reader("a", None).unwrap();
    read(&mut reader, 1).await;

    let inboxes = open_with(&config(), new.path(), &clock(NOON - 86_400_000));
    let mut reader = inboxes.reader("a", reader.position()).unwrap();
    append(&inboxes, "a", "1").await.unwrap();
    assert_eq!(read(&mut reader, 1).await, ["1"]);
}

#[tokio::test]
async fn no_debug_form_shows_a_body() {
    let folder = tempfile::tempdir().unwrap();
    let inboxes = open(folder.path());
    append(&inboxes, "a", "hush").await.unwrap();
    let mut reader = inboxes.reader("a", None).unwrap();
    let batch = reader.next(1000).await.unwrap();
    assert!(!format!("{batch:?} {reader:?} {inboxes:?}").contains("hush"));
    let (answer, _) = tokio::sync::oneshot::channel();
    let admission = inboxes.0.common.space.admit(0, 4).unwrap();
    let waiting = team::Waiting { line: b"hush".to_vec(), admission, answer };
    assert_eq!(format!("{waiting:?}"), "4 bytes");
}

#[tokio::test]
async fn a_torn_tail_is_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    append_all(&first, "a", 0..3).await;
    first.close().await;
    let segment = first.segments("a").unwrap().remove(0);
    drop(first);
    let mut text = std::fs::read(&segment.path).unwrap();
    text.extend_from_slice(&vec![b'x'; 100_000]);
    std::fs::write(&segment.path, text).unwrap();
    let only_torn = segment.path.with_file_name("01JDBYX0000000000000000000.jsonl");
    std::fs::write(&only_torn, "torn").unwrap();

    let second = open(folder.path());
    assert_eq!(second.status().teams[0].torn_bytes, 100_004);
    assert_eq!(second.segments("a").unwrap(), [segment]);
    assert!(!only_torn.exists(), "what holds no whole record is removed");
    append(&second, "a", "3").await.unwrap();
    assert_eq!(read(&mut second.reader("a", None).unwrap(), 4).await, numbers(0..4));
}

#[tokio::test]
async fn a_disk_that_fails_is_told_and_the_inbox_opens_again_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let inboxes = open(folder.path());
    append(&inboxes, "a", "0").await.unwrap();
    inboxes.close().await;
    drop(inboxes);
    let inboxes = open(folder.path());
    let (own, aside) = (folder.path().join("a"), folder.path().join("aside"));
    std::fs::rename(&own, &aside).unwrap();
    std::fs::write(&own, "no folder").unwrap();
    let error = append(&inboxes, "a", "refused").await.unwrap_err();
    assert!(matches!(error, AppendError::Failed { action: "begin the inbox segment", .. }), "{error}");
    until(&inboxes, "a", |status, _| status.failing == Some(error.to_string())).await;
    append(&inboxes, "b", "other").await.unwrap();

    std::fs::remove_file(&own).unwrap();
    std::fs::rename(&aside, &own).unwrap();
    inboxes.check();
    until(&inboxes, "a", |status, _| status.failing.is_none()).await;
    append(&inboxes, "a", "1").await.unwrap();
    assert_eq!(read(&mut inboxes.reader("a", None).unwrap(), 2).await, numbers(0..2));
}

#[tokio::test]
async fn a_full_inbox_refuses_after_an_alarm_and_accepts_again_once_something_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let config = InboxConfig { max_bytes: 1 << 20, segment_bytes: 100_000, ..config() };
    let inboxes = open_with(&config, folder.path(), &clock(NOON));
    let body = "x".repeat(100_000);
    let mut accepted = 0;
    let error = loop {
        match append(&inboxes, "a", &body).await {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        let status = inboxes.status();
        assert_eq!(status.teams[0].alarm.is_some(), accepted * 100_000 >= (1 << 18), "{accepted}");
        assert!(status.teams[1].alarm.is_none());
    };
    assert!(error.to_string().contains("512 KiB that it may take for one team"), "{error}");
    assert_eq!((accepted, error.retry_after().as_secs()), (4, 60));
    append(&inboxes, "b", &body).await.unwrap();
    let words = inboxes.status().alarm;
    inboxes.close().await;
    drop(inboxes);

    // What is there counts after a restart.
    let inboxes = open_with(&config, folder.path(), &clock(NOON));
    assert_eq!(inboxes.status().alarm, words);
    append(&inboxes, "a", &body).await.unwrap_err();
    let oldest = inboxes.segments("a").unwrap().remove(0);
    inboxes.remove("a", oldest.id).unwrap();
    append(&inboxes, "a", &body).await.unwrap();
}

#[tokio::test]
async fn too_little_free_space_refuses_records_with_the_figures() {
    let folder = tempfile::tempdir().unwrap();
    let config = InboxConfig { min_free_bytes: 1 << 60, ..config() };
    let inboxes = open_with(&config, folder.path(), &clock(NOON));
    let error = append(&inboxes, "a", "refused").await.unwrap_err().to_string();
    assert!(error.starts_with("the disk of the inbox is nearly full: "), "{error}");
    let status = inboxes.status();
    assert_eq!((&status.teams[0].failing, status.bytes), (&Some(error), 0));
    assert!(status.alarm.unwrap().starts_with("the disk of the inbox has "));
}

#[tokio::test]
async fn what_is_unread_is_told_with_its_age() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock(NOON);
    let inboxes = open_with(&config(), folder.path(), &clock);
    let status = |inboxes: &Inboxes| {
        let team = inboxes.status().teams.remove(0);
        (team.unread_bytes, team.unread_age.map(|age| age.as_secs()))
    };
    assert_eq!(status(&inboxes), (0, None));
    append(&inboxes, "a", "0").await.unwrap();
    let mut reader = inboxes.reader("a", None).unwrap();
    let first = reader.next(1 << 20).await.unwrap();
    clock.advance_ms(60_000);
    append(&inboxes, "a", "1").await.unwrap();
    clock.advance_ms(5_000);
    let length = first.bytes.len() as u64;
    assert_eq!(status(&inboxes), (2 * length, Some(65)));
    inboxes.consumed("a", first.end).unwrap();
    assert_eq!(status(&inboxes), (length, Some(5)));
    let second = reader.next(1 << 20).await.unwrap();
    inboxes.consumed("a", second.end).unwrap();
    assert_eq!(status(&inboxes), (0, None));
}

#[tokio::test]
async fn a_segment_that_somebody_took_away_does_not_stop_reading() {
    let folder = tempfile::tempdir().unwrap();
    for body in ["lost", "kept"] {
        let inboxes = open(folder.path());
        append(&inboxes, "a", body).await.unwrap();
        inboxes.close().await;
    }
    let inboxes = open(folder.path());
    let lost = inboxes.segments("a").unwrap().remove(0);
    std::fs::remove_file(lost.path).unwrap();
    let before = inboxes.status().bytes;
    assert_eq!(read(&mut inboxes.reader("a", None).unwrap(), 1).await, ["kept"]);
    assert_eq!(inboxes.status().bytes, before - lost.bytes);
}

#[tokio::test]
async fn a_second_process_is_refused_until_the_first_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    append(&first, "a", "0").await.unwrap();
    let again = || Inboxes::open(&config(), folder.path(), &["a".into()], clock(NOON));
    let error = again().unwrap_err();
    assert!(matches!(error, OpenError::Locked(_)), "{error}");
    first.close().await;
    assert_eq!(append(&first, "a", "1").await, Err(AppendError::Closed));
    assert!(again().is_err(), "as long as somebody may read");
    drop(first);
    assert_eq!(again().unwrap().status().strangers, []);
}

#[tokio::test]
async fn a_team_that_is_not_configured_is_refused_and_what_it_left_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let inboxes = open(folder.path());
    assert_eq!(append(&inboxes, "c", "x").await, Err(AppendError::UnknownTeam("c".into())));
    assert!(matches!(inboxes.reader("c", None), Err(ReadError::UnknownTeam(_))));
    append(&inboxes, "b", "x").await.unwrap();
    inboxes.close().await;
    drop(inboxes);
    let alone = Inboxes::open(&config(), folder.path(), &["a".into()], clock(NOON)).unwrap();
    let strangers = alone.status().strangers;
    assert_eq!(
        strangers.iter().map(|one| (&*one.team, &one.folder)).collect::<Vec<_>>(),
        [("b", &folder.path().join("b"))]
    );
    assert!(strangers[0].bytes > 0);
    drop(alone);
    for name in ["..", ".lock", "a/b", ""] {
        let error = Inboxes::open(&config(), folder.path(), &[name.to_owned()], clock(NOON)).unwrap_err();
        assert!(matches!(error, OpenError::TeamName(_)), "{error}");
    }
}

#[tokio::test]
async fn a_team_that_goes_and_comes_back_loses_nothing_and_its_names_ascend() {
    let folder = tempfile::tempdir().unwrap();
    let inboxes = open(folder.path());
    append_all(&inboxes, "b", 0..5).await;
    assert!(inboxes.is_behind("b").unwrap());
    let with_both = inboxes.status().bytes;
    inboxes.keep(&["a".into()]).await;
    assert_eq!(append(&inboxes, "b", "x").await, Err(AppendError::UnknownTeam("b".into())));
    inboxes.look_for_strangers().unwrap();
    let status = inboxes.status();
    assert_eq!((status.bytes, status.teams.len()), (0, 1));
    assert_eq!(status.strangers.iter().map(|one| (&*one.team, one.bytes)).collect::<Vec<_>>(), [("b", with_both)]);

    inboxes.add(&["a".into(), "b".into(), "c".into()]).unwrap();
    inboxes.look_for_strangers().unwrap();
    assert_eq!((inboxes.status().bytes, inboxes.status().strangers), (with_both, Vec::new()));
    append_all(&inboxes, "b", 5..8).await;
    append(&inboxes, "c", "new").await.unwrap();
    let mut reader = inboxes.reader("b", None).unwrap();
    assert_eq!(read(&mut reader, 8).await, numbers(0..8));
    inboxes.consumed("b", reader.position().unwrap()).unwrap();
    assert!(!inboxes.is_behind("b").unwrap());
}

#[tokio::test]
async fn of_a_team_that_is_gone_only_what_was_not_taken_over_is_told_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let inboxes = open(folder.path());
    append_all(&inboxes, "a", 0..3).await;
    append_all(&inboxes, "b", 0..3).await;
    let told = |inboxes: &Inboxes| {
        inboxes.look_for_strangers().unwrap();
        inboxes.status().strangers.into_iter().map(|one| (one.team, one.bytes)).collect::<Vec<_>>()
    };
    let first = inboxes.reader("b", None).unwrap().next(1).await.unwrap();
    inboxes.consumed("b", first.end).unwrap();
    let left = inboxes.status().teams[1].unread_bytes;
    assert!(left > 0 && left < inboxes.status().teams[1].bytes);
    inboxes.keep(&["a".into()]).await;
    assert_eq!(told(&inboxes), [("b".into(), left)]);

    inboxes.add(&["b".into()]).unwrap();
    append(&inboxes, "b", "3").await.unwrap();
    let mut reader = inboxes.reader("b", Some(first.end)).unwrap();
    assert_eq!(read(&mut reader, 3).await, numbers(1..4));
    inboxes.consumed("b", reader.position().unwrap()).unwrap();
    inboxes.close().await;
    drop((inboxes, reader));
    let alone = Inboxes::open(&config(), folder.path(), &[], clock(NOON)).unwrap();
    let waiting = told(&alone);
    assert_eq!(waiting.iter().map(|(team, _)| &**team).collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn nobody_else_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("made/inbox");
    let inboxes = open(&place);
    append(&inboxes, "a", "0").await.unwrap();
    inboxes.close().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&inboxes.segments("a").unwrap()[0].path), 0o600);
    assert_eq!((mode(&place), mode(&place.join("a"))), (0o700, 0o700));
}

#[tokio::test]
async fn an_inbox_keeps_its_name_as_long_as_its_folder_and_a_new_folder_has_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let identity = || open(folder.path()).identity("a").unwrap();
    let first = identity();
    assert_eq!(identity(), first);
    assert_ne!(open(folder.path()).identity("b").unwrap(), first);
    std::fs::remove_dir_all(folder.path().join("a")).unwrap();
    let second = identity();
    assert_ne!(second, first);
    // A damaged name is nobody's.
    std::fs::write(folder.path().join("a/.identity"), "half a na").unwrap();
    let third = identity();
    assert!(third != first && third != second);
    assert_eq!(identity(), third);
}

#[tokio::test]
async fn lines_before_a_position_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let inboxes = open(folder.path());
    append_all(&inboxes, "a", 0..20).await;
    let mut reader = inboxes.reader("a", None).unwrap();
    let mut lines = 0;
    while lines < 20 {
        let batch = reader.next(300).await.unwrap();
        assert_eq!(inboxes.lines_before("a", batch.start).unwrap(), lines);
        lines += bodies(&batch.bytes).len() as u64;
    }
}
