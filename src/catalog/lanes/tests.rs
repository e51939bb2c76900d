//! Which attachments go first, and by which index they are found.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::catalog::jobs::{CLAIM, DUE, NEXT_DUE, WAITING_SINCE};
use crate::catalog::{ArchiveRow, IngestMessage, IngestReference, Ingested, Journaled, NewState};
use crate::clock::Clock;
use crate::model::{Attachment, Message, MessageLine, TeamKey};

const LEASE: Duration = Duration::from_mins(5);

/// A catalog with one team, at a time that stands still.
struct World {
    _folder: tempfile::TempDir,
    catalog: Catalog,
    archive: ArchiveRow,
    team: TeamRow,
    clock: Clock,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::fixed("2026-11-23T06:00:00Z".parse().unwrap());
        let (catalog, archive, team) = open(folder.path(), &clock).await;
        Self { _folder: folder, catalog, archive, team, clock }
    }

    /// Takes in messages that have these attachments, which rules skip where `is_skipped`.
    async fn take(&self, lane: Lane, numbers: &[usize], is_skipped: bool) -> Ingested {
        let messages: Vec<IngestMessage> = numbers.iter().map(|number| message(lane, *number, is_skipped)).collect();
        let journaled = Journaled { lane, ..Journaled::of(self.archive, 1, "w") };
        self.catalog.ingest(self.team, &messages, &journaled).await.unwrap()
    }

    async fn claim(&self, lane: Lane, limit: usize) -> Vec<Lease<Job>> {
        let leases = self.catalog.claim(self.team, lane, limit, LEASE).await.unwrap();
        assert!(leases.iter().all(|lease| lease.job().lane() == lane));
        leases
    }

    /// The ids of what a lane has due, which are leased from then on.
    async fn claimed(&self, lane: Lane) -> Vec<String> {
        names(&self.claim(lane, 100).await)
    }

    /// The one column of a query.
    async fn column(&self, query: &'static str) -> Vec<String> {
        let mut connection = self.catalog.connection().await;
        query_scalar(query).fetch_all(&mut connection).await.unwrap()
    }
}

async fn open(folder: &Path, clock: &Clock) -> (Catalog, ArchiveRow, TeamRow) {
    let catalog = Catalog::open(folder, clock.clone()).await.unwrap();
    let archive = catalog.bind_archive("uuid", "here").await.unwrap();
    let team = catalog.bind_team(archive, &key()).await.unwrap();
    (catalog, archive, team)
}

fn key() -> TeamKey {
    "default".parse().unwrap()
}

fn names(leases: &[Lease<Job>]) -> Vec<String> {
    leases.iter().map(|lease| lease.job().attachment_id().as_str().to_owned()).collect()
}

/// A message of its own for each lane, with attachment `number`.
fn message(lane: Lane, number: usize, is_skipped: bool) -> IngestMessage {
    let id: crate::model::AttachmentId = format!("a{number}").try_into().unwrap();
    let attachment =
        Attachment { id: id.clone(), name: None, content_type: None, size_bytes: Some(7), inline: is_skipped };
    let reference =
        IngestReference { key: AttachmentKey::new(&key(), &id), skip_rule: is_skipped.then(|| "inline".into()) };
    let message =
        Message { id: Some(format!("{lane:?}{number}")), attachments: vec![attachment], ..Message::default() };
    let mut line_digest = [0; 16];
    line_digest[..8].copy_from_slice(&number.to_be_bytes());
    line_digest[8] = u8::from(lane == Lane::Live) + 2 * u8::from(is_skipped);
    let line = MessageLine::new(key(), jiff::Timestamp::UNIX_EPOCH, message);
    IngestMessage { line_digest, line, references: vec![reference] }
}

#[tokio::test]
async fn each_lane_is_claimed_for_itself_the_longest_due_first() {
    let world = World::new().await;
    world.take(Lane::Bulk, &[1, 2, 3], false).await;
    world.take(Lane::Live, &[4, 5], false).await;
    assert_eq!(names(&world.claim(Lane::Bulk, 2).await), ["a1", "a2"]);
    assert_eq!(world.claimed(Lane::Live).await, ["a4", "a5"]);
    assert_eq!(world.claimed(Lane::Bulk).await, ["a3"]);
    assert!(world.claimed(Lane::Live).await.is_empty());
}

#[tokio::test]
async fn what_is_tried_again_keeps_its_lane_and_is_due_in_it() {
    let world = World::new().await;
    world.take(Lane::Bulk, &[1], false).await;
    world.take(Lane::Live, &[2], false).await;
    let live = world.claim(Lane::Live, 1).await.remove(0);
    let delay = Duration::from_secs(30);
    let again = NewState::Retry { delay, attempt_spent: true, not_found: false, reason: None };
    let completion = crate::catalog::Completion::new(&live, again);
    world.catalog.complete(world.archive, &[completion], &[], None, &[], "w").await.unwrap();
    let due = |lane| world.catalog.next_due_ms(world.team, lane);
    let now = world.clock.now_ms();
    assert_eq!(due(Lane::Live).await.unwrap(), Some(now + 30_000));
    assert_eq!(due(Lane::Bulk).await.unwrap(), Some(0));
    assert!(world.claimed(Lane::Live).await.is_empty());
    world.clock.advance_ms(30_000);
    assert_eq!(world.claimed(Lane::Live).await, ["a2"]);
    assert_eq!(due(Lane::Live).await.unwrap(), None);
}

#[tokio::test]
async fn a_live_message_brings_forward_what_waits_and_no_bulk_message_puts_it_back() {
    let world = World::new().await;
    world.take(Lane::Bulk, &[1, 2, 3], false).await;
    assert_eq!(world.take(Lane::Live, &[2, 9], false).await, Ingested { enqueued: 1, promoted: 1 });
    assert_eq!(world.take(Lane::Live, &[2], false).await, Ingested { enqueued: 0, promoted: 0 });
    assert_eq!(world.take(Lane::Bulk, &[2, 9], false).await, Ingested { enqueued: 0, promoted: 0 });
    assert_eq!(world.claimed(Lane::Live).await, ["a2", "a9"]);
    assert_eq!(world.claimed(Lane::Bulk).await, ["a1", "a3"]);
}

#[tokio::test]
async fn a_known_line_that_comes_live_brings_forward_what_waits_by_its_row() {
    let world = World::new().await;
    world.take(Lane::Bulk, &[1, 2], false).await;
    let digests = [message(Lane::Bulk, 2, false).line_digest];
    let met = world.catalog.meet_lines(world.team, &digests).await.unwrap();
    assert!(met.new.is_empty() && met.skipped.is_empty());
    assert_eq!(met.bulk.len(), 1);
    let journaled = Journaled { lane: Lane::Live, promoted: &met.bulk, ..Journaled::of(world.archive, 1, "w") };
    let ingested = world.catalog.ingest(world.team, &[], &journaled).await.unwrap();
    assert_eq!(ingested, Ingested { enqueued: 0, promoted: 1 });
    assert_eq!(world.claimed(Lane::Live).await, ["a2"]);
    let met = world.catalog.meet_lines(world.team, &digests).await.unwrap();
    assert!(met.bulk.is_empty());
}

#[tokio::test]
async fn a_skipped_attachment_that_is_accepted_takes_the_lane_of_the_message_that_brings_it() {
    let world = World::new().await;
    world.take(Lane::Live, &[1], true).await;
    world.take(Lane::Bulk, &[2], true).await;
    world.take(Lane::Bulk, &[1], false).await;
    world.take(Lane::Live, &[2], false).await;
    assert_eq!(world.claimed(Lane::Bulk).await, ["a1"]);
    assert_eq!(world.claimed(Lane::Live).await, ["a2"]);
}

#[tokio::test]
async fn a_retry_keeps_the_lane_and_changed_rules_make_bulk_work() {
    let world = World::new().await;
    world.take(Lane::Live, &[1, 2], false).await;
    world.take(Lane::Live, &[3], true).await;
    let leases = world.claim(Lane::Live, 2).await;
    let failed = |lease| crate::catalog::Completion::new(lease, NewState::Failed { reason: "gone".into() });
    let completions: Vec<_> = leases.iter().map(failed).collect();
    world.catalog.complete(world.archive, &completions, &[], None, &[], "w").await.unwrap();
    let rows = world.catalog.rows_in_state(world.team, crate::catalog::State::Failed).await.unwrap();
    assert_eq!(world.catalog.requeue(&rows).await.unwrap(), 2);
    world.catalog.begin_judging().await.unwrap();
    world.catalog.judge(world.team, &message(Lane::Live, 3, false).references).await.unwrap();
    assert_eq!(world.catalog.enqueue_accepted().await.unwrap(), 1);
    assert_eq!(world.claimed(Lane::Live).await, ["a1", "a2"]);
    assert_eq!(world.claimed(Lane::Bulk).await, ["a3"]);
}

#[tokio::test]
async fn what_was_leased_as_bulk_work_and_came_live_since_is_taken_out_of_the_queue_with_its_lease() {
    let world = World::new().await;
    world.take(Lane::Bulk, &[1, 2, 3, 4], false).await;
    let mut queue = VecDeque::from(world.claim(Lane::Bulk, 10).await);
    assert!(world.catalog.take_promoted(&mut queue).await.unwrap().is_empty());
    assert_eq!(world.take(Lane::Live, &[4, 2], false).await.promoted, 2);
    let promoted = world.catalog.take_promoted(&mut queue).await.unwrap();
    assert_eq!(
        (names(&promoted), names(queue.make_contiguous())),
        (vec!["a2".into(), "a4".into()], vec!["a1".to_owned(), "a3".into()])
    );
    assert!(promoted.iter().all(|lease| lease.job().lane() == Lane::Live));
    // The lease itself still holds.
    let tickets: Vec<_> = promoted.iter().map(Lease::ticket).collect();
    assert_eq!(world.catalog.renew(&tickets, LEASE).await.unwrap(), 2);
    world.catalog.release(&tickets).await.unwrap();
    assert_eq!(world.claimed(Lane::Live).await, ["a2", "a4"]);
}

#[tokio::test]
async fn the_oldest_that_waits_is_told_of_either_lane() {
    let world = World::new().await;
    let began = world.clock.now_ms();
    world.take(Lane::Bulk, &[1], false).await;
    world.clock.advance_ms(1_000);
    world.take(Lane::Live, &[2], false).await;
    assert_eq!(world.catalog.waiting_since_ms(world.team).await.unwrap(), Some(began));
    let bulk = world.claim(Lane::Bulk, 1).await.remove(0);
    let done = crate::catalog::Completion::new(&bulk, NewState::Failed { reason: "gone".into() });
    world.catalog.complete(world.archive, &[done], &[], None, &[], "w").await.unwrap();
    assert_eq!(world.catalog.waiting_since_ms(world.team).await.unwrap(), Some(began + 1_000));
}

#[tokio::test]
async fn lanes_are_found_by_the_index_and_by_keys_and_never_by_a_walk_or_a_sort() {
    if crate::catalog::open::test::is_postgres() {
        return; // SQLite's own.
    }
    let world = World::new().await;
    let due = "attachments USING INDEX attachments_due (team_id=? AND lane=?";
    for (sql, searches, by) in [
        (DUE, 1, due),
        (NEXT_DUE, 1, due),
        (CLAIM, 1, due),
        (WAITING_SINCE, 2, "attachments USING INDEX attachments_due (team_id=? AND lane=?)"),
        (PROMOTE, 1, "attachments USING INDEX sqlite_autoindex_attachments_1 (team_id=? AND key=?)"),
        (PROMOTE_ROWS, 1, "attachments USING INTEGER PRIMARY KEY (rowid=?)"),
    ] {
        let mut connection = world.catalog.connection().await;
        let plan = query(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan = plan.fetch_all(&mut connection).await.unwrap();
        let steps: Vec<String> = plan.iter().map(|step| step.get(3)).collect();
        let found = steps.iter().filter(|step| step.contains(&format!("SEARCH {by}"))).count();
        assert_eq!(found, searches, "{sql}: {steps:?}");
        assert!(!steps.iter().any(|step| step.starts_with("SCAN attachments")), "{sql}: {steps:?}");
        assert!(!steps.iter().any(|step| step.contains("ORDER BY")), "{sql}: {steps:?}");
    }
}

#[tokio::test]
async fn what_waited_before_there_were_lanes_is_bulk_work() {
    if crate::catalog::open::test::is_postgres() {
        return; // SQLite's own.
    }
    let world = World::new().await;
    world.take(Lane::Live, &[1], false).await;
    let mut connection = world.catalog.connection().await;
    // As the version before left it.
    for statement in [
        "DROP INDEX attachments_due",
        "ALTER TABLE attachments DROP COLUMN lane",
        "CREATE INDEX attachments_due ON attachments (team_id, not_before, id)
            WHERE state = 'pending' AND lease_token IS NULL",
        "DELETE FROM _sqlx_migrations WHERE version = 7",
    ] {
        query(statement).execute(&mut connection).await.unwrap();
    }
    drop(connection);
    let schema = "SELECT sql FROM sqlite_schema WHERE name = 'attachments_due'";
    assert!(!world.column(schema).await[0].contains("lane"));
    let World { _folder: folder, catalog, clock, .. } = world;
    catalog.close().await.unwrap();
    let (catalog, archive, team) = open(folder.path(), &clock).await;
    let world = World { _folder: folder, catalog, archive, team, clock };
    assert!(world.column(schema).await[0].contains("(team_id, lane, not_before, id)"));
    assert!(world.claimed(Lane::Live).await.is_empty());
    assert_eq!(world.claimed(Lane::Bulk).await, ["a1"]);
}
