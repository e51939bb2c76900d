//! What processes that share a catalog send in all, at chosen and at random times; on either engine.

use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::super::{Quota, QuotaLimits, QuotaPlace};
use super::*;
use crate::jelly::ApiError;

struct Fleet {
    catalogs: Vec<Arc<Catalog>>,
    clock: Clock,
    _folder: tempfile::TempDir,
}

impl Fleet {
    async fn of(processes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::fixed(Timestamp::from_millisecond(20_000 * DAY_MS).unwrap());
        let mut catalogs = Vec::new();
        for _ in 0..processes {
            catalogs.push(Arc::new(Catalog::open(folder.path(), clock.clone()).await.unwrap()));
        }
        Self { catalogs, clock, _folder: folder }
    }

    /// A quota in each process, of one team each.
    fn quotas(&self, limits: QuotaLimits, scope: &str) -> Vec<Quota> {
        let each = self.catalogs.iter().enumerate();
        each.map(|(number, catalog)| {
            Quota::new(limits, EgressWindow::default()).counted_in(QuotaPlace {
                catalog: Arc::clone(catalog),
                place: "one".into(),
                window: format!("egress:{scope}"),
                team: format!("team:{scope}-{number}"),
            })
        })
        .collect()
    }
}

fn per_window(limit: u64) -> QuotaLimits {
    QuotaLimits { per_window: Some(limit), ..QuotaLimits::NONE }
}

/// What a taker that sends at once has been allowed.
async fn sends(quota: &Quota, clock: &Clock, lane: Lane) -> bool {
    match quota.take(clock, lane).await {
        Ok(permit) => quota.renewed(permit, clock).await.is_ok(),
        Err(ApiError::QuotaUsedUp { retry_after }) => {
            assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(310), "{retry_after:?}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_lone_request_takes_one_and_many_at_once_take_a_block() {
    let fleet = Fleet::of(1).await;
    let quota = &fleet.quotas(per_window(5_000), "a")[0];
    assert!(sends(quota, &fleet.clock, Lane::Bulk).await);
    assert_eq!(quota.used(fleet.clock.now()), (1, 1));
    let all = futures::future::join_all((0..100).map(|_| sends(quota, &fleet.clock, Lane::Bulk))).await;
    assert!(all.into_iter().all(|sent| sent));
    quota.give_back(&fleet.clock, true).await.unwrap();
    Quota::look([quota]).await.unwrap();
    assert_eq!(quota.used(fleet.clock.now()), (101, 101));
}

#[tokio::test]
async fn what_a_stopped_process_held_is_not_sent_and_is_given_back() {
    let fleet = Fleet::of(2).await;
    let quotas = fleet.quotas(per_window(5_000), "a");
    let permits = futures::future::join_all((0..10).map(|_| quotas[0].take(&fleet.clock, Lane::Live))).await;
    // It is stopped here, and goes on when its slot counts for nobody.
    fleet.clock.advance_ms(310_000);
    for permit in permits {
        let permit = permit.unwrap();
        assert!(!permit.is_good(&fleet.clock));
        let renewed = quotas[0].renewed(permit, &fleet.clock).await.unwrap();
        assert!(renewed.is_good(&fleet.clock));
    }
    quotas[0].give_back(&fleet.clock, true).await.unwrap();
    Quota::look(&quotas).await.unwrap();
    assert_eq!(quotas[0].used(fleet.clock.now()), (10, 10));
    assert_eq!(quotas[1].used(fleet.clock.now()), (0, 10));
}

#[tokio::test]
async fn a_permit_is_good_to_the_end_of_its_slot_by_either_clock() {
    let fleet = Fleet::of(1).await;
    let quota = &fleet.quotas(per_window(10), "a")[0];
    fleet.clock.advance_ms(4_000);
    let permit = quota.take(&fleet.clock, Lane::Live).await.unwrap();
    fleet.clock.advance_ms(999);
    assert!(permit.is_good(&fleet.clock));
    fleet.clock.advance_ms(1);
    assert!(!permit.is_good(&fleet.clock));
    // The clock may be set back: the time that went by counts all the same.
    let deadline = Deadline { instant: Instant::now(), clock_ms: fleet.clock.now_ms() + 60_000 };
    assert!(deadline.has_passed(&fleet.clock));
}

#[tokio::test]
async fn bulk_work_leaves_its_share_whoever_used_the_rest_and_a_probe_always_counts() {
    let fleet = Fleet::of(2).await;
    let limits = per_window(10).keep_for_live(0.2, 0.2);
    let quotas = fleet.quotas(limits, "a");
    let mut bulk = 0;
    for round in 0..12 {
        bulk += u64::from(sends(&quotas[round % 2], &fleet.clock, Lane::Bulk).await);
    }
    assert_eq!(bulk, 8);
    assert!(sends(&quotas[0], &fleet.clock, Lane::Live).await);
    assert!(sends(&quotas[1], &fleet.clock, Lane::Live).await);
    assert!(!sends(&quotas[0], &fleet.clock, Lane::Live).await);
    let _probe = quotas[0].take_anyway(&fleet.clock).await.unwrap();
    Quota::look(&quotas).await.unwrap();
    assert_eq!(quotas[1].left(fleet.clock.now()).of_window, Some((0, 10)));
    assert_eq!(quotas[1].used(fleet.clock.now()).1, 11);
}

#[tokio::test]
async fn archives_with_catalogs_of_their_own_share_a_window_within_a_process() {
    let (one, two) = (Fleet::of(1).await, Fleet::of(1).await);
    let window = EgressWindow::default();
    let quotas: Vec<Quota> = [&one, &two]
        .into_iter()
        .enumerate()
        .map(|(number, fleet)| {
            Quota::new(per_window(10), window.clone()).counted_in(QuotaPlace {
                catalog: Arc::clone(&fleet.catalogs[0]),
                place: format!("{number}").into(),
                window: "egress:a".into(),
                team: format!("team:{number}"),
            })
        })
        .collect();
    let mut sent = 0;
    for round in 0..14 {
        sent += u64::from(sends(&quotas[round % 2], &one.clock, Lane::Live).await);
    }
    assert_eq!(sent, 10);
    assert_eq!(quotas[0].left(one.clock.now()).of_window, Some((0, 10)));
}

#[tokio::test]
async fn without_limits_the_catalog_is_not_asked() {
    let fleet = Fleet::of(1).await;
    let quota = &fleet.quotas(QuotaLimits::NONE, "a")[0];
    assert!(sends(quota, &fleet.clock, Lane::Bulk).await);
    let used = fleet.catalogs[0].used_requests(&["egress:a".into(), "team:a-0".into()]).await.unwrap();
    assert_eq!(used.of("egress:a", "team:a-0"), (0, 0));
    assert_eq!(quota.used(fleet.clock.now()), (1, 1));
}

#[tokio::test]
async fn a_busy_fleet_uses_nearly_all_of_its_windows() {
    const LIMIT: u64 = 300;
    let fleet = Fleet::of(8).await;
    let quotas = fleet.quotas(per_window(LIMIT), "a");
    let mut sent = Vec::new();
    // Three windows of 310 s; each process asks for three at once, every 5 s.
    for _ in 0..3 * 62 {
        for quota in &quotas {
            let asked = (0..3).map(|_| sends(quota, &fleet.clock, Lane::Bulk));
            let allowed = futures::future::join_all(asked).await.into_iter().filter(|allowed| *allowed).count();
            sent.extend(std::iter::repeat_n(fleet.clock.now_ms(), allowed));
        }
        fleet.clock.advance_ms(5_000);
    }
    assert_kept(&sent, LIMIT).unwrap();
    let sent = u64::try_from(sent.len()).unwrap();
    assert!(sent >= 3 * LIMIT * 95 / 100, "{sent}");
}

/// No 305 s hold more than the limit.
fn assert_kept(sent: &[i64], limit: u64) -> Result<(), TestCaseError> {
    let limit = usize::try_from(limit).unwrap();
    for most in sent.windows(limit + 1) {
        prop_assert!(most[limit] - most[0] > 305_000 - 1, "{} requests in {} ms", limit + 1, most[limit] - most[0]);
    }
    Ok(())
}

/// What a process does at a moment.
#[derive(Debug, Clone, Copy)]
struct Step {
    process: usize,
    is_live: bool,
    at_once: usize,
    /// What goes by before what was taken is sent.
    held_ms: i64,
    /// What goes by then.
    then_ms: i64,
}

fn step() -> impl Strategy<Value = Step> {
    let held_ms = prop_oneof![4 => Just(0i64), 1 => 0i64..12_000, 1 => 300_000i64..320_000];
    let then_ms = prop_oneof![4 => 0i64..3_000, 1 => 0i64..60_000];
    (0usize..3, any::<bool>(), 1usize..9, held_ms, then_ms)
        .prop_map(|(process, is_live, at_once, held_ms, then_ms)| Step { process, is_live, at_once, held_ms, then_ms })
}

#[test]
fn random_takers_on_several_catalogs_never_exceed_a_window() {
    const LIMIT: u64 = 24;
    let cases = AtomicU64::new(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fleet = runtime.block_on(Fleet::of(3));
    let mut runner = TestRunner::new(ProptestConfig { cases: 24, ..ProptestConfig::default() });
    let ran = runner.run(&proptest::collection::vec(step(), 1..120), |steps| {
        let case = cases.fetch_add(1, Ordering::Relaxed);
        let limits = per_window(LIMIT).keep_for_live(0.25, 0.25);
        let quotas = fleet.quotas(limits, &format!("case-{case}"));
        runtime.block_on(async {
            let clock = &fleet.clock;
            let mut sent = Vec::new();
            for Step { process, is_live, at_once, held_ms, then_ms } in steps {
                let (quota, lane) = (&quotas[process], if is_live { Lane::Live } else { Lane::Bulk });
                let taken = futures::future::join_all((0..at_once).map(|_| quota.take(clock, lane))).await;
                clock.advance_ms(held_ms);
                for permit in taken.into_iter().filter_map(Result::ok) {
                    if quota.renewed(permit, clock).await.is_ok() {
                        sent.push(clock.now_ms());
                    }
                }
                clock.advance_ms(then_ms);
            }
            // What is left when nobody sends any more can all be used.
            clock.advance_ms(310_000);
            for quota in &quotas {
                quota.give_back(clock, true).await.unwrap();
            }
            for at_end in 0..LIMIT {
                prop_assert!(sends(&quotas[0], clock, Lane::Live).await, "only {at_end} of {LIMIT}");
                sent.push(clock.now_ms());
            }
            prop_assert!(!sends(&quotas[1], clock, Lane::Live).await);
            assert_kept(&sent, LIMIT)
        })
    });
    ran.unwrap();
}
