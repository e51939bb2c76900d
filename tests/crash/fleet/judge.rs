//! Judges what a fleet has left.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Result, ensure};

use super::Counts;
use super::database::{self, Database, Held, Place};
use crate::life::{Totals, report};
use crate::oracle::{Archive, Finding, Kind};
use crate::world::{Truth, World};

/// Judges what a fleet has left, and adds it to the totals.
pub(super) fn judge(
    world: &World,
    database: &Database,
    held: &HashSet<Held>,
    held_by_quota: bool,
    mut findings: Vec<Finding>,
    totals: &mut Totals,
    counts: &mut Counts,
) -> Result<()> {
    world.refresh(true)?;
    let (places, snapshot, loaded) = world.runtime.block_on(async {
        let mut connection = database.connect().await?;
        let left = database::leases(&mut connection).await?;
        ensure!(left.is_empty(), "{} leases are held by nobody", left.len());
        let places = database::places(&mut connection).await?;
        let snapshot = database::snapshot(&mut connection, &places).await?;
        let loaded = database::loaded_segments(&mut connection).await?;
        anyhow::Ok((places, snapshot, loaded))
    })?;
    let archive = Archive::read(&world.archive(), &mut HashSet::new())?;
    let journal = Journal::of(&archive);
    let stale = journal.stale(&places, &loaded);
    counts.stale += stale.len() as u64;
    findings.extend(stale);
    // What came too late for its lease is merged by whoever loads the journal next: then the catalog says what a new one would.
    let loads = world.command(&["compact", "--dry-run"])?;
    ensure!(loads.status.success(), "loading the journal ended with {}: {}", loads.status, loads.stdout);
    let places = world.runtime.block_on(async { database::places(&mut database.connect().await?).await })?;
    findings.extend(journal.differences(&places));
    let cut_short = cut_short(held, &places);
    let exchanges = world.sim.exchange_counts();
    findings.extend(archive.check_any_moment(&world.truth, Some(&snapshot)));
    if !held_by_quota {
        // Each worker's own folder is looked at by itself.
        let nowhere = Path::new("/nonexistent");
        findings.extend(archive.check_end(nowhere, &world.truth, &exchanges, &cut_short)?);
    }
    for (kind, _) in &findings {
        match kind {
            Kind::Lost => totals.lost += 1,
            Kind::Twice => totals.twice += 1,
            Kind::Corrupt => totals.corrupt += 1,
        }
    }
    totals.lives += 1;
    totals.exchanges += exchanges.values().map(|count| u64::from(*count)).sum::<u64>();
    totals.in_flight += cut_short.values().map(|count| u64::from(*count)).sum::<u64>();
    totals.attachments += world.truth.values().filter(|truth| **truth != Truth::Inline).count() as u64;
    totals.archived_lines += archive.outcomes.iter().filter(|(_, line)| line["kind"] == "archived").count() as u64;
    report("after a fleet", &findings)
}

/// A lease, as outcome lines name it: its generation, and who held it.
type Of<'a> = (i64, &'a str);

/// The `archived` lines of each attachment, with the segments that they are in.
struct Journal<'a>(HashMap<&'a str, Vec<(Of<'a>, &'a str)>>);

impl<'a> Journal<'a> {
    fn of(archive: &'a Archive) -> Self {
        let mut lines: HashMap<&str, Vec<_>> = HashMap::new();
        for (segment, line) in archive.outcomes.iter().filter(|(_, line)| line["kind"] == "archived") {
            let text = |name: &str| line[name].as_str().unwrap_or_default();
            let of = (line["generation"].as_i64().unwrap_or(i64::MAX), text("writer_id"));
            lines.entry(text("attachment_id")).or_default().push((of, segment.as_str()));
        }
        for lines in lines.values_mut() {
            lines.sort_unstable();
        }
        Self(lines)
    }

    fn lines(&self, place: &Place) -> &[(Of<'a>, &'a str)] {
        self.0.get(place.id.as_str()).map_or(&[], Vec::as_slice)
    }

    /// What a worker has changed in the catalog whose lease was over: what the catalog says is no line of the journal, or not
    /// the last one of those that it has loaded.
    fn stale(&self, places: &[Place], loaded: &HashSet<String>) -> Vec<Finding> {
        let archived = places.iter().filter(|place| place.state == "archived");
        let stale = archived.filter(|place| {
            let later = |(of, segment): &(Of<'_>, &str)| *of > place.of() && loaded.contains(*segment);
            !self.lines(place).iter().any(|(of, _)| *of == place.of()) || self.lines(place).iter().any(later)
        });
        stale.map(|place| self.finding("", place)).collect()
    }

    /// What the catalog says otherwise than the journal, which it has loaded whole.
    fn differences(&self, places: &[Place]) -> Vec<Finding> {
        let differs = places.iter().filter(|place| match self.lines(place).last() {
            Some((of, _)) => place.state != "archived" || *of != place.of(),
            None => place.state == "archived",
        });
        differs.map(|place| self.finding("after loading the journal, ", place)).collect()
    }

    fn finding(&self, when: &str, place: &Place) -> Finding {
        let text = format!("{when}the catalog has {place:?}, the journal {:?}", self.lines(place));
        (Kind::Corrupt, text)
    }
}

/// How many leases of each attachment were cut short: those that were held when something was done to somebody, and that are
/// not what its outcome came of.
fn cut_short(held: &HashSet<Held>, places: &[Place]) -> HashMap<String, u32> {
    let last: HashMap<&str, i64> = places.iter().map(|place| (place.id.as_str(), place.generation)).collect();
    let mut counts = HashMap::new();
    for lease in held.iter().filter(|lease| last.get(lease.id.as_str()) != Some(&lease.generation)) {
        *counts.entry(lease.id.clone()).or_insert(0) += 1;
    }
    counts
}
