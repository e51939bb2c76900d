use std::path::Path;
use std::time::Duration;

use serde_json::Map;

use super::*;
use crate::catalog::engine::query_scalar;
use crate::catalog::{Completion, Job, Journaled, Lease, NewState};
use crate::catalog::{IngestReference, StateTotals, TeamTotals};
use crate::clock::Clock;
use crate::model::{Attachment, AttachmentId, Conversation, FORMAT_VERSION, Message, MessageLine, TeamKey, WriterId};

fn team() -> TeamKey {
    "default".parse().unwrap()
}

fn attachment_id(number: usize) -> AttachmentId {
    format!("attachment-{number}").try_into().unwrap()
}

/// A message with attachment `number` and the one before it, which a rule skips where it says so.
fn message(number: usize, skip_rule: Option<&str>) -> IngestMessage {
    let ids = [number, number.saturating_sub(1)];
    let attachments: Vec<Attachment> = ids
        .iter()
        .map(|number| Attachment {
            id: attachment_id(*number),
            name: Some(format!("{number}.bin")),
            content_type: None,
            size_bytes: Some(7),
            inline: false,
        })
        .collect();
    let references = ids.map(|number| IngestReference {
        key: AttachmentKey::new(&team(), &attachment_id(number)),
        skip_rule: skip_rule.map(str::to_owned),
    });
    let message = Message {
        id: Some(format!("m{number}")),
        conversation: Some(Conversation::default()),
        attachments,
        ..Message::default()
    };
    let mut line_digest = [0; 16];
    line_digest[..8].copy_from_slice(&number.to_be_bytes());
    let line = MessageLine::new(team(), jiff::Timestamp::UNIX_EPOCH, message);
    IngestMessage { line_digest, line, references: references.into() }
}

/// Outcomes of the attachments up to `count`: every third shares its content with the one before it, every seventh
/// failed.
fn outcomes(count: usize) -> Vec<OutcomeLine> {
    (0..count)
        .map(|number| {
            let failed = number % 7 == 6;
            OutcomeLine {
                v: FORMAT_VERSION,
                kind: if failed { OutcomeKind::Failed } else { OutcomeKind::Archived },
                team: team(),
                attachment_id: attachment_id(number),
                generation: 1 + number as u64,
                writer_id: WriterId("w".into()),
                at: jiff::Timestamp::UNIX_EPOCH,
                sha256: (!failed).then(|| Digest::of(&(number - number % 3 / 2).to_be_bytes())),
                size_bytes: (!failed).then_some(10 + (number - number % 3 / 2) as u64),
                sniffed_type: None,
                rule: None,
                reason: failed.then(|| "gone".into()),
                extra: Map::new(),
            }
        })
        .collect()
}

async fn open(folder: &Path) -> (Catalog, ArchiveRow) {
    let catalog = Catalog::open(folder, Clock::system()).await.unwrap();
    let archive = catalog.bind_archive("uuid", "here").await.unwrap();
    (catalog, archive)
}

async fn column(catalog: &Catalog, sql: &'static str) -> Vec<String> {
    let mut connection = catalog.connection().await;
    crate::catalog::engine::query_scalar(sql).fetch_all(&mut connection).await.unwrap()
}

/// The indexes and triggers of a catalog.
async fn schema(catalog: &Catalog) -> Vec<String> {
    column(catalog, "SELECT name FROM sqlite_schema WHERE type IN ('index', 'trigger') ORDER BY name").await
}

/// Fails unless the totals that are kept are those that counting gives.
async fn assert_totals_are_right(catalog: &Catalog) {
    const KEPT: &str = "SELECT team_id || ' ' || state || ' ' || attachments || ' ' || archived_bytes FROM state_totals
            WHERE attachments > 0
        UNION ALL SELECT team_id || ' ' || messages FROM message_totals WHERE messages > 0
        UNION ALL SELECT archive_id || ' ' || contents || ' ' || bytes FROM content_totals WHERE contents > 0";
    const COUNTED: &str =
        "SELECT team_id || ' ' || state || ' ' || attachments || ' ' || archived_bytes FROM counted_states
        UNION ALL SELECT team_id || ' ' || messages FROM counted_messages
        UNION ALL SELECT archive_id || ' ' || contents || ' ' || bytes FROM counted_contents";
    let (mut kept, mut counted) = (column(catalog, KEPT).await, column(catalog, COUNTED).await);
    kept.sort();
    counted.sort();
    assert_eq!(kept, counted);
}

async fn load_all(catalog: &Catalog, archive: ArchiveRow, count: usize, bulk_after: usize) {
    let mut load = catalog.load().await.unwrap();
    load.bulk_after = bulk_after;
    let messages: Vec<IngestMessage> = (0..count).map(|number| message(number, None)).collect();
    for batch in messages.chunks(40) {
        load.messages(archive, &team(), batch).await.unwrap();
    }
    for batch in outcomes(count).chunks(40) {
        load.outcomes(archive, &team(), batch).await.unwrap();
    }
    load.finish().await.unwrap();
}

/// What people see of a catalog.
async fn figures(catalog: &Catalog, archive: ArchiveRow) -> (Vec<TeamTotals>, (u64, u64), Vec<String>) {
    let links = "SELECT m.message_id || ' ' || l.place || ' ' || a.attachment_id || ' ' || a.state || a.declared_size
        FROM links l JOIN messages m ON m.id = l.message_row JOIN attachments a ON a.id = l.attachment_row
        ORDER BY 1";
    (
        catalog.team_totals(archive).await.unwrap(),
        catalog.content_totals(archive).await.unwrap(),
        column(catalog, links).await,
    )
}

#[tokio::test]
async fn a_bulk_load_gives_what_a_load_in_small_steps_gives() {
    if crate::catalog::open::test::is_postgres() {
        return; // SQLite's own.
    }
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (catalog, archive) = open(folder.path()).await;
    let whole = schema(&catalog).await;
    load_all(&catalog, archive, 300, usize::MAX).await;
    let (bulk, bulk_archive) = open(other.path()).await;
    load_all(&bulk, bulk_archive, 300, 100).await;
    assert_eq!(figures(&bulk, bulk_archive).await, figures(&catalog, archive).await);
    let failed = 300 / 7;
    let states = StateTotals { archived: 300 - failed, failed, ..StateTotals::default() };
    assert_eq!(figures(&bulk, bulk_archive).await.0[0].states, states);
    for catalog in [&catalog, &bulk] {
        assert_totals_are_right(catalog).await;
        assert_eq!(schema(catalog).await, whole);
    }
}

#[tokio::test]
async fn a_catalog_whose_bulk_load_died_is_whole_again_when_it_is_opened_and_loaded() {
    if crate::catalog::open::test::is_postgres() {
        return; // SQLite's own.
    }
    let folder = tempfile::tempdir().unwrap();
    let (catalog, archive) = open(folder.path()).await;
    let whole = schema(&catalog).await;
    {
        let mut load = catalog.load().await.unwrap();
        load.bulk_after = 50;
        let messages: Vec<IngestMessage> = (0..100).map(|number| message(number, None)).collect();
        load.messages(archive, &team(), &messages[..60]).await.unwrap();
        assert!(load.bulk.is_some());
        load.commit().await.unwrap();
        load.messages(archive, &team(), &messages[60..]).await.unwrap();
        // Dropped: the last forty are lost, and so are the indexes, for now.
    }
    assert_ne!(schema(&catalog).await, whole);
    // The figures are right all the same: they are counted.
    assert_eq!(catalog.team_totals(archive).await.unwrap()[0].messages, 60);
    drop(catalog);
    let (catalog, archive) = open(folder.path()).await;
    assert_eq!(schema(&catalog).await, whole);
    assert_totals_are_right(&catalog).await;
    assert_eq!(catalog.team_totals(archive).await.unwrap()[0].messages, 60);
    load_all(&catalog, archive, 100, 50).await;
    assert_totals_are_right(&catalog).await;
    let other = tempfile::tempdir().unwrap();
    let (fresh, fresh_archive) = open(other.path()).await;
    load_all(&fresh, fresh_archive, 100, usize::MAX).await;
    assert_eq!(figures(&catalog, archive).await, figures(&fresh, fresh_archive).await);
}

#[tokio::test]
async fn blobs_are_cited_however_the_load_that_read_of_them_ends() {
    if crate::catalog::open::test::is_postgres() {
        return; // SQLite's own.
    }
    const BLOBS: &str = "SELECT lower(hex(sha256)) || ' ' || size_bytes || ' ' || state FROM blobs ORDER BY 1";
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (small, small_archive) = open(other.path()).await;
    load_all(&small, small_archive, 100, usize::MAX).await;
    let whole = column(&small, BLOBS).await;
    assert!(whole.len() > 50, "{whole:?}");
    let (catalog, archive) = open(folder.path()).await;
    {
        let mut load = catalog.load().await.unwrap();
        load.bulk_after = 1;
        load.outcomes(archive, &team(), &outcomes(1)).await.unwrap();
        load.outcomes(archive, &team(), &outcomes(100)).await.unwrap();
        load.commit().await.unwrap();
        // Dropped: as if it was killed before its end.
    }
    assert!(column(&catalog, BLOBS).await.len() < 2);
    // Meanwhile those who look for blobs see what is coming.
    let (low, high) = (Digest::from_bytes([0; 32]), Digest::from_bytes([0xff; 32]));
    let coming = catalog.blobs_between(archive, low, high).await.unwrap();
    drop(catalog);
    let (catalog, archive) = open(folder.path()).await;
    assert_eq!(column(&catalog, BLOBS).await, whole);
    assert_eq!(catalog.blobs_between(archive, low, high).await.unwrap(), coming);
}

#[tokio::test]
async fn several_lines_of_one_attachment_in_one_batch_are_merged_in_their_order() {
    let line = |number: usize, kind: OutcomeKind, generation: u64| OutcomeLine {
        kind,
        generation,
        reason: Some(format!("{kind:?} {generation}")),
        ..outcomes(number + 1).remove(number)
    };
    use OutcomeKind::{Archived, Erased, Failed};
    let lines = [
        line(0, Failed, 5),
        line(1, Failed, 2),
        line(0, Archived, 3),
        line(1, Failed, 9),
        line(0, Failed, 8),
        line(2, Erased, 1),
        line(1, Failed, 4),
        line(2, Archived, 7),
        line(0, Archived, 4),
    ];
    let folder = tempfile::tempdir().unwrap();
    let (catalog, archive) = open(folder.path()).await;
    catalog.load_outcomes(archive, &team(), &lines).await.unwrap();
    let merged = "SELECT attachment_id || ' ' || reason FROM attachments ORDER BY 1";
    let expected = ["attachment-0 Archived 4", "attachment-1 Failed 9", "attachment-2 Erased 1"];
    assert_eq!(column(&catalog, merged).await, expected);
    catalog.load_outcomes(archive, &team(), &lines).await.unwrap();
    assert_eq!(column(&catalog, merged).await, expected, "loaded twice, nothing changes");
}

#[tokio::test]
async fn outcomes_are_merged_by_their_keys_and_not_by_a_walk_through_the_table() {
    if crate::catalog::open::test::is_postgres() {
        return; // SQLite's own.
    }
    let folder = tempfile::tempdir().unwrap();
    let (catalog, _) = open(folder.path()).await;
    let mut connection = catalog.connection().await;
    for rows in [1, 4, 256] {
        let sql = merge_sql(&values(rows, LINE_COLUMNS));
        let plan = query(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan = plan.fetch_all(&mut connection).await.unwrap();
        let steps: Vec<String> = plan.iter().map(|step| step.get(3)).collect();
        let table = |step: &&String| step.contains("old") || step.contains("attachments");
        let table: Vec<&String> = steps.iter().filter(table).collect();
        assert_eq!(table.len(), 2, "{steps:?}");
        assert!(table.iter().all(|step| step.starts_with("SEARCH ")), "{steps:?}");
    }
}

#[tokio::test]
async fn a_catalog_that_another_process_fills_is_left_alone() {
    if crate::catalog::open::test::is_postgres() {
        return; // SQLite's own.
    }
    let folder = tempfile::tempdir().unwrap();
    let (catalog, archive) = open(folder.path()).await;
    let whole = schema(&catalog).await;
    let mut load = catalog.load().await.unwrap();
    load.bulk_after = 1;
    load.messages(archive, &team(), &[message(1, None)]).await.unwrap();
    load.commit().await.unwrap();
    let beside = Catalog::open(folder.path(), Clock::system()).await.unwrap();
    assert_ne!(schema(&beside).await, whole);
    assert_eq!(beside.team_totals(archive).await.unwrap()[0].states.pending, 2);
    load.finish().await.unwrap();
    assert_eq!(schema(&catalog).await, whole);
}

#[tokio::test]
async fn totals_follow_every_change_of_state() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, archive) = open(folder.path()).await;
    load_all(&catalog, archive, 50, usize::MAX).await;
    assert_totals_are_right(&catalog).await;
    let row = catalog.bind_team(archive, &team()).await.unwrap();
    let failed = catalog.rows_in_state(row, crate::catalog::State::Failed).await.unwrap();
    assert_eq!(catalog.requeue(&failed).await.unwrap(), 7);
    assert_totals_are_right(&catalog).await;
    let skipped: Vec<IngestMessage> = (100..120).map(|number| message(number, Some("inline"))).collect();
    catalog.ingest(row, &skipped, &Journaled::of(archive, 99, "w")).await.unwrap();
    assert_totals_are_right(&catalog).await;
    let accepted: Vec<IngestMessage> = (105..110).map(|number| message(number, None)).collect();
    catalog.ingest(row, &accepted, &Journaled::of(archive, 99, "w")).await.unwrap();
    assert_totals_are_right(&catalog).await;
    // One of two that share a content is erased, then the other; and one gets other bytes.
    for (number, kind, generation) in [(2, OutcomeKind::Erased, 200), (1, OutcomeKind::Erased, 201)] {
        let line = OutcomeLine { kind, generation, ..outcomes(3).remove(number) };
        let before = catalog.content_totals(archive).await.unwrap().0;
        catalog.load_outcomes(archive, &team(), &[line]).await.unwrap();
        assert_totals_are_right(&catalog).await;
        let gone = u64::from(number == 1);
        assert_eq!(catalog.content_totals(archive).await.unwrap().0, before - gone);
    }
    let other = OutcomeLine { generation: 300, sha256: Some(Digest::of(b"other")), ..outcomes(4).remove(3) };
    catalog.load_outcomes(archive, &team(), &[other]).await.unwrap();
    assert_totals_are_right(&catalog).await;
    let lock = catalog.try_worker_lock().await.unwrap().unwrap();
    catalog.forget_archive(archive, &lock).await.unwrap();
    assert_totals_are_right(&catalog).await;
    assert_eq!(catalog.content_totals(archive).await.unwrap(), (0, 0));
}

#[tokio::test]
async fn a_line_that_is_known_is_met_with_its_attachments_and_a_new_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, archive) = open(folder.path()).await;
    load_all(&catalog, archive, 5000, usize::MAX).await;
    let row = catalog.bind_team(archive, &team()).await.unwrap();
    let skipped = message(6000, Some("inline"));
    let mut load = catalog.load().await.unwrap();
    load.messages(archive, &team(), std::slice::from_ref(&skipped)).await.unwrap();
    load.finish().await.unwrap();
    let digests: Vec<[u8; 16]> =
        (0..5000).chain([7000, 6000]).map(|number| message(number, None).line_digest).collect();
    let met = catalog.meet_lines(row, &digests).await.unwrap();
    assert_eq!(met.new, [5000].into());
    assert_eq!(met.skipped, [(5001, 0), (5001, 1)]);
    let seen = catalog.seen_totals().await.unwrap();
    let failed = 5000 / 7;
    assert_eq!((seen.attachments, seen.known), (5002, 5000 - failed));
    assert_eq!((seen.states.failed, seen.states.skipped), (failed, 2));
    // Met again, nothing changes.
    assert_eq!(catalog.meet_lines(row, &digests).await.unwrap(), met);
    assert_eq!(catalog.seen_totals().await.unwrap(), seen);
}

#[tokio::test]
async fn an_outcome_that_came_too_late_for_its_lease_counts_once_its_line_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, archive) = open(folder.path()).await;
    catalog.load().await.unwrap().finish().await.unwrap();
    let row = catalog.bind_team(archive, &team()).await.unwrap();
    catalog.ingest(row, &[message(0, None)], &Journaled::of(archive, 1, "w")).await.unwrap();
    let claim = async || catalog.claim(row, Lane::Bulk, 9, Duration::from_mins(1)).await.unwrap().remove(0);
    let first = claim().await;
    catalog.release(&[first.ticket()]).await.unwrap();
    let second = claim().await;
    let line = |lease: &Lease<Job>| OutcomeLine { generation: lease.generation(), ..outcomes(1).remove(0) };
    let archived = |lease: &Lease<Job>| {
        let (sha256, size_bytes) = (line(lease).sha256.unwrap(), 10);
        Completion::new(lease, NewState::Archived { sha256, size_bytes, sniffed_type: None })
    };
    let complete = async |lease: &Lease<Job>, segment: &'static str| {
        let segment = Some((segment, Digest::of(segment.as_bytes())));
        catalog.complete(archive, &[archived(lease)], &[], segment, &[], "w").await.unwrap()
    };
    let load = async |lease: &Lease<Job>, segment: &'static str| {
        let known = async || catalog.segments(archive).await.unwrap()[segment];
        assert!(known().await.is_left() && !known().await.superseded);
        let mut load = catalog.load().await.unwrap();
        load.outcomes(archive, &team(), &[line(lease)]).await.unwrap();
        load.remember_segment(archive, segment, Digest::of(segment.as_bytes())).await.unwrap();
        load.finish().await.unwrap();
        assert!(known().await.loaded && !known().await.superseded);
    };
    let place = async || column(&catalog, "SELECT state || ' ' || generation FROM attachments").await;

    // The first one's lease is over: nothing of it changes, and others load what it wrote down.
    let before = place().await;
    assert_eq!(complete(&first, "first").await, 1);
    assert_eq!(place().await, before);
    load(&first, "first").await;
    assert_eq!(place().await, [format!("archived {}", first.generation())]);

    // The second one has worked in vain; the journal's last line is its own.
    assert_eq!(complete(&second, "second").await, 1);
    load(&second, "second").await;
    assert_eq!(place().await, [format!("archived {}", second.generation())]);
}

#[tokio::test]
async fn what_others_commit_while_a_line_is_loaded_is_not_written_over_by_an_older_one() {
    if !crate::catalog::open::test::is_postgres() {
        return; // SQLite has one writer.
    }
    let folder = tempfile::tempdir().unwrap();
    let (catalog, archive) = open(folder.path()).await;
    let row = catalog.bind_team(archive, &team()).await.unwrap();
    catalog.ingest(row, &[message(0, None)], &Journaled::of(archive, 1, "w")).await.unwrap();
    let claim = async || catalog.claim(row, Lane::Bulk, 9, Duration::from_mins(1)).await.unwrap().remove(0);
    let first = claim().await;
    catalog.release(&[first.ticket()]).await.unwrap();
    let lease = claim().await;
    assert!(first.generation() < lease.generation());
    let old = OutcomeLine { generation: first.generation(), ..outcomes(1).remove(0) };
    let place = async || column(&catalog, "SELECT state || ' ' || generation FROM attachments").await;

    // Another connection ends the lease, and commits only once the load waits for it.
    let (loader, _) = open(folder.path()).await;
    let mut other = catalog.connection().await;
    let mut transaction = other.begin().await.unwrap();
    let end = "UPDATE attachments SET state = 'archived', lease_token = NULL, lease_expires_at = NULL";
    assert_eq!(query(end).execute(&mut transaction).await.unwrap().rows_affected(), 1);
    let load = tokio::spawn(async move { loader.load_outcomes(archive, &team(), &[old]).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while query_scalar::<i64>(waits).fetch_one(&mut transaction).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    transaction.commit().await.unwrap();
    drop(other);
    load.await.unwrap().unwrap();
    assert_eq!(place().await, [format!("archived {}", lease.generation())]);
}
