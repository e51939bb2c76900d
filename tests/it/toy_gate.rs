//! The gate: killed in the middle, its catalog lost, started again, nothing is lost and nothing is asked for twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jellyjar::sim::SimConfig;

use crate::support::{Ledger, World, events, ids, until};

/// Few leases at once, so that what a kill may cost is little.
const SETTINGS: &str = "[worker]\nconcurrency = 8\nmax_leases = 16\nbatch_size = 8\n";

/// What was true right after a kill.
struct Wreck {
    exchanges: BTreeMap<String, u32>,
    leased: BTreeSet<String>,
    journal: Ledger,
}

/// Replays until `exchanges` more were made, and kills.
fn kill_after(world: &World, exchanges: u64) -> Wreck {
    let before = world.jelly.stats().exchanges;
    let process = world.start_replay();
    until("enough was exchanged", || world.jelly.stats().exchanges >= before + exchanges);
    let ended = process.kill();
    assert_eq!(ended.code(), None, "it was to be killed in the middle: {ended:?}");
    let leased = world.catalog("SELECT attachment_id FROM attachments WHERE lease_token IS NOT NULL");
    Wreck { exchanges: world.jelly.exchanges(), leased: leased.into_iter().collect(), journal: world.ledger() }
}

#[test]
fn killed_in_the_middle_and_robbed_of_its_catalog_it_goes_on_where_the_journal_ends() {
    let world = World::with(SimConfig { latency: Duration::from_millis(4), ..SimConfig::default() });
    world.settings(SETTINGS);
    let mail = events(200, 2, (10, 3000));
    let all = ids(&mail);
    world.dump(&mail);

    let mut allowed: BTreeMap<String, u32> = BTreeMap::new();
    let mut leases = 0;
    // Killed in the middle, then again while it recovers.
    for exchanges in [90, 30, 60] {
        let Wreck { exchanges, leased, journal } = kill_after(&world, exchanges);
        assert!(!leased.is_empty() && leased.len() <= 16, "{} leases", leased.len());
        leases += leased.len();
        for id in &leased {
            *allowed.entry(id.clone()).or_default() += 1;
        }
        let journaled = journal.ids("archived");
        assert!(!journaled.is_empty() && journaled.len() < all.len(), "{} archived", journaled.len());
        // Whatever was asked for is written down, or was held by a lease that the kill cut short.
        let asked: BTreeSet<String> = exchanges.keys().cloned().collect();
        let unexplained: Vec<_> = asked.difference(&journaled).filter(|id| !allowed.contains_key(*id)).collect();
        assert!(unexplained.is_empty(), "exchanged, and neither in the journal nor leased: {unexplained:?}");

        world.lose_catalog();
        let probe = world.jelly.stats().exchanges;
        if leases > 40 {
            continue;
        }
        // What the journal holds is not asked for again by the run that follows; it is killed in turn.
        let next = kill_after(&world, 20);
        assert!(next.exchanges.values().sum::<u32>() > u32::try_from(probe).unwrap());
        for id in &journaled {
            assert_eq!(next.exchanges.get(id), exchanges.get(id), "asked for again though it is in the journal");
        }
        leases += next.leased.len();
        for id in next.leased {
            *allowed.entry(id).or_default() += 1;
        }
        world.lose_catalog();
    }

    let journaled = world.ledger().ids("archived");
    let before = world.jelly.exchanges();
    let receipt = world.replay();
    assert!(receipt.ok, "{receipt:?}");
    assert_eq!(receipt.attachments, 400);
    assert_eq!(receipt.known, journaled.len() as u64);
    assert_eq!(receipt.api_requests, receipt.archived, "each that is not in the journal, once");
    let ledger = world.ledger();
    ledger.agrees_with(&receipt);
    assert_eq!(ledger.ids("archived"), all, "none is lost");

    let after = world.jelly.exchanges();
    let lines = ledger.raw_counts();
    for id in &all {
        let again = after[id] - before.get(id).copied().unwrap_or(0);
        assert_eq!(again, u32::from(!journaled.contains(id)));
        let most = 1 + allowed.get(id).copied().unwrap_or(0);
        assert!(after[id] <= most, "{} exchanges, {most} allowed", after[id]);
        assert!(lines[id] <= most, "{} outcome lines, {most} allowed", lines[id]);
    }
    assert!(world.jelly.stats().exchanges <= 400 + leases as u64);
    assert_eq!(world.replay().api_requests, 0);
}

#[test]
fn killed_with_its_catalog_left_it_goes_on_as_well() {
    let world = World::with(SimConfig { latency: Duration::from_millis(4), ..SimConfig::default() });
    world.settings(SETTINGS);
    let mail = events(120, 2, (10, 3000));
    world.dump(&mail);
    let mut allowed: BTreeMap<String, u32> = BTreeMap::new();
    for exchanges in [60, 10, 40] {
        for id in kill_after(&world, exchanges).leased {
            *allowed.entry(id).or_default() += 1;
        }
    }
    let receipt = world.replay();
    assert!(receipt.ok, "{receipt:?}");
    let ledger = world.ledger();
    ledger.agrees_with(&receipt);
    assert_eq!(ledger.ids("archived"), ids(&mail));
    for (id, count) in world.jelly.exchanges() {
        assert!(count <= 1 + allowed.get(&id).copied().unwrap_or(0));
    }
    assert!(world.catalog("SELECT attachment_id FROM attachments WHERE lease_token IS NOT NULL").is_empty());
    let left: Vec<_> = std::fs::read_dir(world.archive().join(".jellyjar")).unwrap().collect();
    assert!(left.len() < 12, "folders of killed runs are cleared away: {left:?}");
}
