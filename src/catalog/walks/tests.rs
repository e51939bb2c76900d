use std::path::Path;

use super::*;
use crate::clock::Clock;

struct Fixture {
    catalog: Catalog,
    team: TeamRow,
    walk: Walk,
}

fn notes(text: &str) -> WalkNotes {
    WalkNotes { state: text.into(), counts: "{}".into() }
}

fn entry(id: &str, fingerprint: i64) -> WalkEntry {
    WalkEntry {
        conversation: Conversation { id: Some(id.into()), ..Conversation::default() },
        fingerprint,
        may_hold: true,
        only_known: false,
        messages_count: Some(1),
        attachments_count: Some(2),
    }
}

impl Fixture {
    async fn new(folder: &Path) -> Self {
        let catalog = Catalog::open(folder, Clock::system()).await.unwrap();
        let archive = catalog.bind_archive("uuid", "here").await.unwrap();
        let team = catalog.bind_team(archive, &"default".parse().unwrap()).await.unwrap();
        let row = catalog.begin_walk(team, WalkKind::Backfill, "", WalkWish::All, &notes("0")).await.unwrap();
        let walk = catalog.walk(row).await.unwrap();
        Self { catalog, team, walk }
    }

    async fn list(&self, pass: u64, entries: &[WalkEntry]) -> Vec<Met> {
        let mut all = Vec::new();
        let settle = |met: &[Met]| {
            all.extend_from_slice(met);
            notes("listed")
        };
        self.catalog.list_page(self.walk.row, self.team, pass, entries, settle).await.unwrap();
        all
    }

    async fn next(&self) -> Option<ToRead> {
        self.catalog.next_to_read(&self.walk, 0, 0).await.unwrap()
    }

    async fn keep(&self, read: &ToRead, at: (Option<&str>, Option<&str>), content: Option<&str>) {
        self.catalog.keep_page(self.walk.row, read, at, content, &notes("read")).await.unwrap();
    }
}

#[tokio::test]
async fn a_listing_tells_how_it_met_each_entry() {
    let folder = tempfile::tempdir().unwrap();
    let world = Fixture::new(folder.path()).await;
    assert_eq!(world.list(1, &[entry("a", 1), entry("b", 1)]).await, [Met::New, Met::New]);
    assert_eq!(world.list(1, &[entry("a", 1), entry("b", 2)]).await, [Met::Repeated, Met::Changed]);
    assert_eq!(world.list(2, &[entry("a", 1), entry("b", 2)]).await, [Met::Same, Met::Same]);
    let unknown = WalkEntry { only_known: true, ..entry("c", 1) };
    let changed = WalkEntry { only_known: true, ..entry("a", 5) };
    assert_eq!(world.list(3, &[unknown, changed]).await, [Met::Same, Met::Changed]);
    let without = WalkEntry { may_hold: false, ..entry("d", 1) };
    assert_eq!(world.list(3, &[without]).await, [Met::New]);
    let totals = world.catalog.walk_totals(&world.walk).await.unwrap();
    assert_eq!((totals.listed, totals.conversations, totals.to_read, totals.attachments), (3, 2, 2, 4));
    assert_eq!(world.catalog.walk(world.walk.row).await.unwrap().state, "listed");
}

#[tokio::test]
async fn a_conversation_is_done_as_it_was_listed_before_it_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let world = Fixture::new(folder.path()).await;
    world.list(1, &[entry("a", 1)]).await;
    let first = world.next().await.unwrap();
    world.keep(&first, (None, Some("p2")), Some("one")).await;
    // It gets mail while it is read.
    world.list(2, &[WalkEntry { messages_count: Some(3), ..entry("a", 2) }]).await;
    let second = world.next().await.unwrap();
    assert_eq!((second.cursor.as_deref(), second.fingerprint), (Some("p2"), 1));
    world.keep(&ToRead { messages_count: Some(1), ..second }, (Some("p2"), None), None).await;
    // So it is read again, from where its last page began.
    let third = world.next().await.unwrap();
    assert_eq!((third.cursor.as_deref(), third.fingerprint), (Some("p2"), 2));
    world.keep(&third, (Some("p2"), None), Some("two")).await;
    assert_eq!(world.next().await, None);
    let pages = world.catalog.kept_pages(world.walk.row, 10, 100).await.unwrap();
    assert_eq!(pages.iter().map(|page| page.content.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(world.catalog.kept_pages(world.walk.row, 10, 2).await.unwrap().len(), 1);
    world.catalog.pages_ingested(world.walk.row, world.team, pages[0].row, &[], &notes("x")).await.unwrap();
    assert_eq!(world.catalog.kept_pages(world.walk.row, 10, 100).await.unwrap(), pages[1..]);
}

#[tokio::test]
async fn one_that_changed_otherwise_is_read_from_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let world = Fixture::new(folder.path()).await;
    world.list(1, &[entry("a", 1)]).await;
    let first = world.next().await.unwrap();
    world.keep(&first, (Some("p9"), None), None).await;
    world.list(2, &[entry("a", 2)]).await;
    assert_eq!(world.next().await.unwrap().cursor, None);
}

#[tokio::test]
async fn what_could_not_be_read_waits_and_stays_with_the_walk() {
    let folder = tempfile::tempdir().unwrap();
    let world = Fixture::new(folder.path()).await;
    world.list(1, &[entry("a", 1), entry("b", 1)]).await;
    let first = world.next().await.unwrap();
    world.catalog.failed_to_read(world.walk.row, &first).await.unwrap();
    assert_eq!(world.next().await.unwrap().conversation.id.as_deref(), Some("b"));
    assert_eq!(world.catalog.walk_totals(&world.walk).await.unwrap().failed, 1);
    assert_eq!(world.catalog.next_to_read(&world.walk, 0, 1).await.unwrap(), Some(first));
    let second = world.next().await.unwrap();
    world.keep(&second, (None, None), None).await;
    // The end of a walk forgets what is read, and keeps what is not.
    world.catalog.change_walk(world.walk.row, WalkPhase::Done, &notes("x")).await.unwrap();
    assert_eq!(world.catalog.walk_totals(&world.walk).await.unwrap().listed, 1);
    world.catalog.forget_failures(world.walk.row).await.unwrap();
    assert_eq!(world.next().await.unwrap().conversation.id.as_deref(), Some("a"));
}

#[tokio::test]
async fn walks_with_other_filters_do_not_take_each_others_conversations() {
    let folder = tempfile::tempdir().unwrap();
    let world = Fixture::new(folder.path()).await;
    let row = world.catalog.begin_walk(world.team, WalkKind::Backfill, "x", WalkWish::All, &notes("0")).await.unwrap();
    let other = world.catalog.walk(row).await.unwrap();
    world.list(1, &[entry("a", 1)]).await;
    assert_eq!(world.catalog.next_to_read(&other, 0, 0).await.unwrap(), None);
    world.catalog.list_page(row, world.team, 1, &[entry("a", 1)], |_| notes("1")).await.unwrap();
    let read = world.catalog.next_to_read(&other, 0, 0).await.unwrap().unwrap();
    world.catalog.keep_page(row, &read, (None, None), None, &notes("2")).await.unwrap();
    // Read once is read for all.
    assert_eq!(world.next().await, None);
}

#[tokio::test]
async fn only_what_is_asked_for_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let world = Fixture::new(folder.path()).await;
    let wanted = || async { world.catalog.wanted_walks(world.team).await.unwrap().len() };
    let row = world.walk.row;
    assert_eq!(wanted().await, 1);
    world.catalog.want_walk(row, WalkWish::Nothing).await.unwrap();
    assert_eq!(wanted().await, 0);
    world.catalog.want_walk(row, WalkWish::Listing).await.unwrap();
    assert_eq!(wanted().await, 1);
    world.catalog.change_walk(row, WalkPhase::Listed, &notes("1")).await.unwrap();
    assert_eq!(wanted().await, 0);
    world.catalog.want_walk(row, WalkWish::All).await.unwrap();
    assert_eq!(wanted().await, 1);
    world.catalog.change_walk(row, WalkPhase::Done, &notes("2")).await.unwrap();
    assert_eq!(wanted().await, 0);
}

#[tokio::test]
async fn a_wish_for_the_listing_lowers_none_for_all_of_a_walk() {
    let folder = tempfile::tempdir().unwrap();
    let world = Fixture::new(folder.path()).await;
    let (catalog, row) = (&world.catalog, world.walk.row);
    let wish = || async { catalog.walk(row).await.unwrap().wish };
    let begin = |wish| async move {
        catalog.begin_walk(world.team, WalkKind::Backfill, "", wish, &notes("0")).await.unwrap();
    };
    catalog.want_walk(row, WalkWish::Listing).await.unwrap();
    assert_eq!(wish().await, WalkWish::All);
    begin(WalkWish::Listing).await;
    assert_eq!(wish().await, WalkWish::All);
    catalog.unwant_listing(row).await.unwrap();
    assert_eq!(wish().await, WalkWish::All);
    // One that is done asks for nothing more.
    catalog.change_walk(row, WalkPhase::Done, &notes("1")).await.unwrap();
    begin(WalkWish::Listing).await;
    assert_eq!(wish().await, WalkWish::Listing);
    catalog.unwant_listing(row).await.unwrap();
    assert_eq!(wish().await, WalkWish::Nothing);
}

#[tokio::test]
async fn the_next_to_read_is_found_by_its_index() {
    if crate::catalog::open::test::is_postgres() {
        return; // SQLite's own.
    }
    let folder = tempfile::tempdir().unwrap();
    let world = Fixture::new(folder.path()).await;
    let mut connection = world.catalog.connection().await;
    let plan = query(format!("EXPLAIN QUERY PLAN {}", pages::NEXT_TO_READ))
        .bind(1_i64)
        .bind(0_i64)
        .bind(1_i64)
        .bind(0_i64)
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
    assert!(plan.iter().any(|step| step.contains("conversations_unread")), "{plan:?}");
    assert!(!plan.iter().any(|step| step.starts_with("SCAN") || step.contains("TEMP B-TREE")), "{plan:?}");
}
