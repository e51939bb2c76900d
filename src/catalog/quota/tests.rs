//! What is given out of a window and a day, by whoever asks; on either engine.

use super::*;
use crate::clock::Clock;

const DAY_START_MS: i64 = 20_000 * DAY_MS;

async fn open(folder: &std::path::Path, clock: &Clock) -> Catalog {
    Catalog::open(folder, clock.clone()).await.unwrap()
}

fn clock_at(ms: i64) -> Clock {
    Clock::fixed(jiff::Timestamp::from_millisecond(DAY_START_MS + ms).unwrap())
}

fn wish(wanted: u64, of_window: Option<u64>, of_day: Option<u64>) -> RequestWish<'static> {
    RequestWish { window: "egress:a", team: "team:a", wanted, of_window, of_day, elsewhere: 0, unused: None }
}

#[tokio::test]
async fn a_full_window_opens_when_enough_of_its_slots_no_longer_count() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock_at(1_000);
    let catalog = open(folder.path(), &clock).await;
    for _ in 0..3 {
        let given = catalog.take_requests(&wish(1, Some(3), None)).await.unwrap();
        assert_eq!((given.requests, given.wait_ms), (1, 0));
        clock.advance_ms(10_000);
    }
    // At 31 s; the first slot began at 0.
    let given = catalog.take_requests(&wish(1, Some(3), None)).await.unwrap();
    assert_eq!((given.requests, given.wait_ms), (0, 279_000));
    // Bulk work, of which only one may be in use: all three must go.
    let given = catalog.take_requests(&wish(1, Some(1), None)).await.unwrap();
    assert_eq!((given.requests, given.wait_ms), (0, 299_000));
    clock.advance_ms(278_999);
    assert_eq!(catalog.take_requests(&wish(1, Some(3), None)).await.unwrap().wait_ms, 1);
    clock.advance_ms(1);
    assert_eq!(catalog.take_requests(&wish(1, Some(3), None)).await.unwrap().requests, 1);
    // No limit at all fits nothing.
    assert_eq!(catalog.take_requests(&wish(1, Some(0), None)).await.unwrap().wait_ms, 305_000);
}

#[tokio::test]
async fn a_full_day_opens_at_midnight_utc_and_a_clock_set_back_does_not_open_it() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock_at(DAY_MS - 10);
    let catalog = open(folder.path(), &clock).await;
    for used in 1..=2 {
        let given = catalog.take_requests(&wish(1, None, Some(2))).await.unwrap();
        assert_eq!((given.requests, given.day_used, given.day), (1, used, 20_000));
    }
    assert_eq!(catalog.take_requests(&wish(1, None, Some(2))).await.unwrap().wait_ms, 10);
    clock.advance_ms(10);
    for _ in 0..2 {
        assert_eq!(catalog.take_requests(&wish(1, None, Some(2))).await.unwrap().day, 20_001);
    }
    clock.advance_ms(-1_000);
    let given = catalog.take_requests(&wish(1, None, Some(2))).await.unwrap();
    assert_eq!((given.requests, given.wait_ms), (0, u64::try_from(DAY_MS).unwrap() + 1_000));
    let used = catalog.used_requests(&["team:a".into(), "egress:a".into()]).await.unwrap();
    assert_eq!(used.of("egress:a", "team:a"), (2, 4));
}

#[tokio::test]
async fn a_clock_that_was_set_back_blocks_for_one_window_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock_at(0);
    let catalog = open(folder.path(), &clock).await;
    assert_eq!(catalog.take_requests(&wish(1, Some(1), None)).await.unwrap().requests, 1);
    clock.advance_ms(-10 * DAY_MS);
    let wait_ms = catalog.take_requests(&wish(1, Some(1), None)).await.unwrap().wait_ms;
    assert!((305_000..=310_000).contains(&wait_ms), "{wait_ms}");
    clock.advance_ms(i64::try_from(wait_ms).unwrap());
    assert_eq!(catalog.take_requests(&wish(1, Some(1), None)).await.unwrap().requests, 1);
}

#[tokio::test]
async fn blocks_become_small_where_little_is_left_and_nothing_is_limited_without_limits() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock_at(0);
    let (one, two) = (open(folder.path(), &clock).await, open(folder.path(), &clock).await);
    assert_eq!(one.take_requests(&wish(100, None, None)).await.unwrap().requests, 100);
    assert_eq!(two.take_requests(&wish(100, Some(420), None)).await.unwrap().requests, 20);
    assert_eq!(one.take_requests(&wish(100, Some(420), Some(160))).await.unwrap().requests, 2);
    let mut given = 122;
    loop {
        let block = two.take_requests(&wish(100, Some(420), None)).await.unwrap();
        if block.requests == 0 {
            break;
        }
        given += block.requests;
    }
    assert_eq!(given, 420);
}

#[tokio::test]
async fn what_is_given_back_counts_no_longer_and_what_is_counted_elsewhere_does() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock_at(0);
    let catalog = open(folder.path(), &clock).await;
    let given = catalog.take_requests(&wish(32, Some(512), Some(1_000))).await.unwrap();
    assert_eq!(given.requests, 32);
    clock.advance_ms(20_000);
    let unused = Some(UnusedRequests { requests: 30, slot_ms: given.slot_ms, day: given.day });
    let given = catalog.take_requests(&RequestWish { unused, ..wish(0, Some(512), None) }).await.unwrap();
    assert_eq!((given.requests, given.day_used), (0, 2));
    // More than was taken, by an error, never makes a count negative.
    catalog.take_requests(&RequestWish { unused, ..wish(0, Some(512), None) }).await.unwrap();
    let used = catalog.used_requests(&["team:a".into(), "egress:a".into()]).await.unwrap();
    assert_eq!(used.of("egress:a", "team:a"), (0, 0));
    let full = RequestWish { elsewhere: 9, ..wish(1, Some(10), None) };
    assert_eq!(catalog.take_requests(&full).await.unwrap().requests, 1);
    let given = catalog.take_requests(&RequestWish { elsewhere: 11, ..full }).await.unwrap();
    assert_eq!((given.requests, given.wait_ms), (0, 5_000));
}

#[tokio::test]
async fn teams_of_one_egress_group_share_the_window_and_not_the_day() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock_at(0);
    let catalog = open(folder.path(), &clock).await;
    let other = RequestWish { team: "team:b", ..wish(1, Some(3), Some(2)) };
    let own = wish(1, Some(3), Some(2));
    let mut given = Vec::new();
    for wish in [own, own, own, other, other] {
        given.push(catalog.take_requests(&wish).await.unwrap().requests);
    }
    assert_eq!(given, [1, 1, 0, 1, 0]);
}

#[tokio::test]
async fn what_an_earlier_version_counted_is_taken_over_once() {
    if super::super::open::test::is_postgres() {
        // No earlier version counted there.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let clock = clock_at(1_000);
    let catalog = open(folder.path(), &clock).await;
    let keep = async |scope: &str, state: String| {
        let mut connection = catalog.connection().await;
        query("INSERT INTO quota_windows (scope, state, updated_at) VALUES (?, ?, 0)")
            .bind(scope)
            .bind(state)
            .execute(&mut connection)
            .await
            .unwrap();
    };
    let (slot, older) = (DAY_START_MS, DAY_START_MS - 5_000);
    keep("team:a", format!(r#"{{"slots":[[{older},2],[{slot},3]],"day":20000,"day_used":7}}"#)).await;
    keep("team:b", format!(r#"{{"slots":[[{older},1],[{slot},4]],"day":20000,"day_used":1}}"#)).await;
    keep("team:c", "what no version wrote".into()).await;
    for _ in 0..2 {
        let teams = ["team:a", "team:b", "team:c", "team:d"].map(|team| ("egress:a".to_owned(), team.to_owned()));
        catalog.adopt_quota_windows(&teams).await.unwrap();
    }
    let used = catalog.used_requests(&["team:a".into(), "egress:a".into(), "team:b".into()]).await.unwrap();
    assert_eq!((used.of("egress:a", "team:a"), used.of("egress:a", "team:b")), ((7, 6), (1, 6)));
}

#[tokio::test]
async fn when_one_fits_again_is_told_without_taking_any() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock_at(1_000);
    let catalog = open(folder.path(), &clock).await;
    for _ in 0..3 {
        catalog.take_requests(&wish(1, None, None)).await.unwrap();
        clock.advance_ms(10_000);
    }
    let used = catalog.used_requests(&["egress:a".into(), "team:a".into()]).await.unwrap();
    for (of_window, of_day) in
        [(Some(4), None), (Some(3), Some(4)), (Some(2), None), (Some(1), Some(3)), (Some(0), None)]
    {
        let fits_at_ms = used.fits_at_ms(("egress:a", "team:a"), of_window, of_day);
        let given = catalog.take_requests(&RequestWish { wanted: 1, ..wish(1, of_window, of_day) }).await.unwrap();
        // What is told is what a taker is told, who takes nothing where none fits.
        let told = (given.requests == 0).then(|| given.now_ms + i64::try_from(given.wait_ms).unwrap());
        assert_eq!(fits_at_ms, told, "{of_window:?} {of_day:?}");
        if given.requests > 0 {
            let unused = Some(UnusedRequests { requests: 1, slot_ms: given.slot_ms, day: given.day });
            catalog.take_requests(&RequestWish { unused, ..wish(0, None, None) }).await.unwrap();
        }
    }
}
