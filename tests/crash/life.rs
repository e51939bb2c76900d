//! One life: an archive from its first run to the run that completes it, with any number of deaths in between.

use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::oracle::{Archive, Finding, Kind, check_receipt};
use super::world::{Ran, Truth, World};
use super::{catalog, oracle};

/// What was counted, over all lives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Processes that were killed.
    pub(crate) kills: u64,
    /// Archives that were completed and checked.
    pub(crate) lives: u64,
    /// Findings of that kind.
    pub(crate) lost: u64,
    /// Findings of that kind.
    pub(crate) twice: u64,
    /// Findings of that kind.
    pub(crate) corrupt: u64,
    /// Exchanges that the simulator counted.
    pub(crate) exchanges: u64,
    /// Attachments of all lives that are not inline.
    pub(crate) attachments: u64,
    /// Leases that were held when their process was killed.
    pub(crate) in_flight: u64,
    /// Outcome lines `archived`.
    pub(crate) archived_lines: u64,
    /// Catalogs that were deleted.
    pub(crate) catalogs_deleted: u64,
}

impl Totals {
    /// One line for people.
    pub(crate) fn line(&self) -> String {
        format!(
            "kills {}, lives {}, lost {}, twice {}, corrupt {}, exchanges {} and archived lines {} over {} attachments \
             + {} leases in flight; catalogs deleted {}",
            self.kills,
            self.lives,
            self.lost,
            self.twice,
            self.corrupt,
            self.exchanges,
            self.archived_lines,
            self.attachments,
            self.in_flight,
            self.catalogs_deleted
        )
    }
}

/// A life that goes on.
#[derive(Debug, Default)]
pub(crate) struct Life {
    hashed: HashSet<String>,
    leases: HashSet<(String, Vec<u8>)>,
    deaths: u64,
    catalogs_deleted: u64,
}

impl Life {
    /// Looks at what a killed process left: its leases, and whether everything that it wrote holds.
    pub(crate) fn after_death(&mut self, world: &World) -> Result<()> {
        self.deaths += 1;
        world.refresh(false)?;
        let root = world.archive();
        let snapshot = world.runtime.block_on(catalog::read(&world.home(), &world.folder.join("catalog-copy")))?;
        self.leases.extend(snapshot.leases.iter().cloned());
        let archive = Archive::read(&root, &mut self.hashed)?;
        report("after a kill", &archive.check_any_moment(&world.truth, Some(&snapshot)))
    }

    /// Looks at what a run left that broke off. Its leases went back to the queue, so that any attachment may have been
    /// exchanged once more.
    pub(crate) fn after_failure(&mut self, world: &World) -> Result<()> {
        self.after_death(world)?;
        self.deaths -= 1;
        self.leases.extend(world.truth.keys().map(|id| (id.clone(), Vec::new())));
        Ok(())
    }

    /// Deletes the catalog.
    pub(crate) fn delete_catalog(&mut self, world: &World) -> Result<()> {
        self.catalogs_deleted += 1;
        world.delete_catalog()
    }

    /// Checks a run that ended by itself and has to have completed the life; adds the life to the totals.
    pub(crate) fn complete(self, world: &World, ran: &Ran, totals: &mut Totals) -> Result<()> {
        if ran.status.code() != Some(0) {
            bail!("the last run of a life ended with {}: {}{}", ran.status, ran.stdout, ran.stderr);
        }
        self.end(world, check_receipt(&ran.receipt(), &world.truth), totals)
    }

    /// Checks what a service has left that had nothing more to do and was stopped; adds the life to the totals.
    pub(crate) fn complete_service(self, world: &World, totals: &mut Totals) -> Result<()> {
        self.end(world, Vec::new(), totals)
    }

    fn end(mut self, world: &World, receipt: Vec<Finding>, totals: &mut Totals) -> Result<()> {
        world.refresh(true)?;
        let root = world.archive();
        // Everything is hashed anew: what was right before may have been damaged since.
        self.hashed.clear();
        let archive = Archive::read(&root, &mut self.hashed)?;
        let home = world.home();
        let snapshot = world.runtime.block_on(catalog::read(&home, &world.folder.join("catalog-copy")))?;
        let exchanges = world.sim.exchange_counts();
        let mut leased: HashMap<String, u32> = HashMap::new();
        for (id, _) in &self.leases {
            *leased.entry(id.clone()).or_default() += 1;
        }
        let mut findings = archive.check_any_moment(&world.truth, Some(&snapshot));
        findings.extend(archive.check_end(&home, &world.truth, &exchanges, &leased)?);
        findings.extend(receipt);
        if !snapshot.leases.is_empty() {
            findings.push((Kind::Lost, format!("{} leases are held after the end", snapshot.leases.len())));
        }
        for (kind, _) in &findings {
            match kind {
                Kind::Lost => totals.lost += 1,
                Kind::Twice => totals.twice += 1,
                Kind::Corrupt => totals.corrupt += 1,
            }
        }
        totals.kills += self.deaths;
        totals.lives += 1;
        totals.catalogs_deleted += self.catalogs_deleted;
        totals.exchanges += exchanges.values().map(|count| u64::from(*count)).sum::<u64>();
        totals.in_flight += self.leases.len() as u64;
        totals.attachments += world.truth.values().filter(|truth| **truth != Truth::Inline).count() as u64;
        totals.archived_lines += archive.outcomes.iter().filter(|(_, line)| line["kind"] == "archived").count() as u64;
        report("at the end of a life", &findings)
    }
}

/// Runs the program over a completed archive: it must ask for nothing.
pub(crate) fn check_again(world: &World) -> Result<()> {
    world.sim.reset();
    let ran = world.run(&[])?;
    let mut findings = check_receipt(&ran.receipt(), &world.truth);
    let asked = world.sim.stats().api_requests;
    if asked > 0 {
        findings.push((Kind::Twice, format!("a completed archive cost {asked} more requests")));
    }
    world.refresh(true)?;
    let archive = Archive::read(&world.archive(), &mut HashSet::new())?;
    findings.extend(archive.check_any_moment(&world.truth, None));
    report("on the run after a life", &findings)
}

/// Fails with the first findings, if there are any.
pub(crate) fn report(when: &str, findings: &[oracle::Finding]) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    let show = |(kind, text): &Finding| format!("  {kind:?}: {text}");
    let shown: Vec<String> = findings.iter().take(10).map(show).collect();
    bail!("{} findings {when}:\n{}", findings.len(), shown.join("\n"));
}
