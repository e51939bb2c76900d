//! What changes by itself and is read off from time to time, or when somebody asks: queues, quotas, pauses, disks; and
//! what people are told of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::Shared;
use crate::archive::{Holds, LOCAL_SCOPE};
use crate::catalog::{Pause, StateTotals};
use crate::cli::session::{Access, Session};
use crate::jelly::Quota;
use crate::metrics::{AttachmentState, Metrics, Outcome, TeamMetrics};
use crate::model::Lane;
use crate::notify::{Condition, Kind, Progress, nearly_full};
use crate::spool::Spool;
use crate::worker::Signal;

/// How many attachments ended so since it was last asked, and why the last of them did.
type Ended = (u64, String);

/// How often disks are looked at, and people told of what came to an end.
const EVERY: Duration = Duration::from_secs(5);
/// A pause that is shorter ends by itself before anybody could do something: each full 5-minute window brings one.
const LONG_PAUSE_MS: i64 = 15 * 60_000;
/// What people are told of.
const FAILURES: [Outcome; 4] = [Outcome::Gone, Outcome::Forbidden, Outcome::Refused, Outcome::AttemptsUsedUp];

/// The readings of a service. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Samples(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started_ms: i64,
    disk_free_below_bytes: AtomicU64,
    readings: Mutex<Readings>,
}

#[derive(Debug, Default)]
struct Readings {
    /// The archives that are open, by place.
    lives: BTreeMap<String, Live>,
    /// Where files are written: what they are, and for which archive. They are looked at while that archive is down, too.
    disks: BTreeMap<(&'static str, String), PathBuf>,
    teams: BTreeMap<String, TeamReadings>,
}

/// What is remembered of a team between two looks.
#[derive(Debug, Default)]
struct TeamReadings {
    /// Since when something has always been waiting, in milliseconds since the Unix epoch.
    waiting_since_ms: Option<i64>,
    /// The end of a pause that people were told of.
    long_pause_until_ms: Option<i64>,
    /// How many failures, by [`FAILURES`], and contradictions people were told of.
    failures: [u64; FAILURES.len()],
    contradictions: u64,
}

/// An archive that is open.
#[derive(Debug)]
struct Live {
    in_flight: Arc<AtomicU64>,
    spool: Spool,
    holds: Arc<Holds>,
    /// Teams with their egress groups.
    quotas: Vec<(String, String, Quota)>,
}

/// Ends the readings of an archive when it is dropped.
#[derive(Debug)]
pub(super) struct Open {
    samples: Samples,
    place: String,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.samples.readings().lives.remove(&self.place);
    }
}

impl Samples {
    /// Begins. `inbox` is where the inbox is, if there is one.
    pub(super) fn new(teams: &[String], inbox: Option<&Path>, disk_free_below_bytes: u64, now: Timestamp) -> Self {
        let teams = teams.iter().map(|name| (name.clone(), TeamReadings::default())).collect();
        let disks = inbox.map(|folder| (("inbox", String::new()), folder.to_owned())).into_iter().collect();
        let readings = Mutex::new(Readings { lives: BTreeMap::new(), disks, teams });
        let disk_free_below_bytes = AtomicU64::new(disk_free_below_bytes);
        Self(Arc::new(Inner { started_ms: now.as_millisecond(), disk_free_below_bytes, readings }))
    }

    /// Takes over settings: how much free space is too little, the teams, and the places of their archives.
    pub(super) fn reconfigure(&self, disk_free_below_bytes: u64, teams: &[String], places: &[String]) {
        self.0.disk_free_below_bytes.store(disk_free_below_bytes, Ordering::Relaxed);
        let mut readings = self.readings();
        readings.disks.retain(|(_, place), _| place.is_empty() || places.contains(place));
        readings.teams.retain(|name, _| teams.contains(name));
        for name in teams {
            readings.teams.entry(name.clone()).or_default();
        }
    }

    fn readings(&self) -> MutexGuard<'_, Readings> {
        self.0.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads an archive off as long as what it returns lives.
    pub(super) fn open(&self, place: &str, session: &Session, access: &Access, in_flight: &Arc<AtomicU64>) -> Open {
        let quotas = session.teams.iter().filter_map(|(name, team)| {
            let quota = access.teams.get(&team.row)?.client.quota().clone();
            Some((name.clone(), session.config.egress_group(name).to_owned(), quota))
        });
        let spool = access.fetcher.spool.clone();
        let mut readings = self.readings();
        let mut disk = |what, path: &Path| readings.disks.insert((what, place.to_owned()), path.to_owned());
        disk("catalog", session.catalog.folder());
        // Not the spool's own folder, which goes with each life.
        disk("spool", spool.folder().parent().and_then(Path::parent).unwrap_or(spool.folder()));
        if let Some(folder) = session.archive.folder() {
            disk("archive", folder.root());
        }
        let (in_flight, holds) = (Arc::clone(in_flight), Arc::clone(&access.holds));
        readings.lives.insert(place.to_owned(), Live { in_flight, spool, holds, quotas: quotas.collect() });
        Open { samples: self.clone(), place: place.to_owned() }
    }

    /// Sets what costs nothing to read.
    pub(super) fn show(&self, metrics: &Metrics, now: Timestamp) {
        let readings = self.readings();
        let lives = || readings.lives.values();
        let is_held = |scope: &str| lives().any(|live| live.holds.held(&[scope], now.as_millisecond()).is_some());
        metrics.in_flight.set(lives().map(|live| live.in_flight.load(Ordering::Relaxed)).sum::<u64>());
        metrics.spool_bytes.set(lives().map(|live| live.spool.taken_bytes()).sum::<u64>());
        metrics.local_paused.set(u64::from(is_held(LOCAL_SCOPE)));
        for (name, group, quota) in lives().flat_map(|live| &live.quotas) {
            let left = quota.left(now);
            let (team, egress) = (metrics.team(name), metrics.group(group));
            team.quota_day_left.set(left.of_day.map(|(left, _)| left));
            team.quota_day_limit.set(left.of_day.map(|(_, limit)| limit));
            egress.quota_window_left.set(left.of_window.map(|(left, _)| left));
            egress.quota_window_limit.set(left.of_window.map(|(_, limit)| limit));
            egress.paused.set(u64::from(is_held(&format!("egress:{group}"))));
        }
    }

    /// Looks at disks, and tells of what came to an end, until `stop`.
    pub(super) async fn watch(self, shared: Shared, stop: Signal) {
        while !stop.is_set() {
            self.tell_ended(&shared);
            self.look_at_disks(&shared).await;
            if let Some(inboxes) = shared.inboxes.clone() {
                // What cannot be looked into is told of by its writers.
                let _ = tokio::task::spawn_blocking(move || inboxes.look_for_strangers()).await;
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.wait() => {}
            }
        }
    }

    async fn look_at_disks(&self, shared: &Shared) {
        let disks = self.readings().disks.clone();
        // A network file system that is gone can keep a thread; it must not keep this one.
        let Ok(free) = tokio::task::spawn_blocking(move || least_free(&disks)).await else { return };
        let below = self.0.disk_free_below_bytes.load(Ordering::Relaxed);
        let full = free.iter().filter_map(|(what, bytes)| Some(((*what).to_owned(), nearly_full(*bytes, below)?)));
        shared.notifier.set_all(Kind::DiskNearlyFull, full.collect());
        shared.metrics.disk_free_bytes.replace(free.into_iter().map(|(what, bytes)| (what.to_owned(), bytes)));
    }

    /// Tells people of what failed or went to quarantine since they were last told.
    pub(super) fn tell_ended(&self, shared: &Shared) {
        for (name, known) in &mut self.readings().teams {
            let cells = shared.metrics.team(name);
            let (failed, quarantined) = known.ended(&cells);
            if let Some((times, detail)) = failed {
                shared.notifier.happened(Condition::new(Kind::Failed, name), times, detail);
            }
            if let Some((times, detail)) = quarantined {
                shared.notifier.happened(Condition::new(Kind::Quarantined, name), times, detail);
            }
        }
    }

    /// Notes the pauses of an archive's teams.
    pub(super) fn pauses(&self, shared: &Shared, session: &Session, access: &Access) {
        let now_ms = shared.clock.now_ms();
        for (name, team) in &session.teams {
            let Some(team) = access.teams.get(&team.row) else { continue };
            let held = team.held(&access.holds, Lane::Live, now_ms);
            shared.metrics.team(name).paused.set(u64::from(held.is_some()));
            // Not for this machine's own trouble: of that people are told by what it is.
            let own = access.holds.held(&[&team.scopes[0], &team.scopes[1], &team.token_scope], now_ms);
            let told = self.readings().teams.entry(name.clone()).or_default().long_pause(own, now_ms);
            shared.notifier.set(Condition::new(Kind::TeamPaused, name), told);
        }
    }

    /// Reads an archive's queues off its catalog. Only who is `leading` can tell that nothing is archived: of what others
    /// archive, this process does not hear.
    pub(super) async fn queues(
        &self,
        shared: &Shared,
        session: &Session,
        access: &Access,
        leading: bool,
    ) -> anyhow::Result<()> {
        let totals = session.catalog.team_totals(session.archive_row).await?;
        for (name, team) in &session.teams {
            let key = team.key.to_string();
            let states = totals.iter().find(|one| one.team == key).map(|one| one.states).unwrap_or_default();
            let since_ms = session.catalog.waiting_since_ms(team.row).await?;
            let cells = shared.metrics.team(name);
            show_states(&cells, &states);
            cells.oldest_pending.set(since_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()));

            let now_ms = shared.clock.now_ms();
            let held = |lane| access.teams.get(&team.row)?.held(&access.holds, lane, now_ms);
            let waiting_since_ms =
                self.readings().teams.entry(name.clone()).or_default().waiting(states.pending > 0, now_ms);
            let last_success_ms = cells.last_success.value_ms();
            let progress = Progress { started_ms: self.0.started_ms, waiting_since_ms, last_success_ms };
            // A pause is told of as one; and that bulk work waits for its quota is as it should be.
            let is_paused = match (held(Lane::Live), held(Lane::Bulk)) {
                (None, None) => false,
                (None, Some(_)) => session.catalog.next_due_ms(team.row, Lane::Live).await?.is_none(),
                (Some(_), _) => true,
            };
            let after = session.config.notify.no_success_after;
            let stalled = if is_paused || !leading { None } else { progress.stalled(now_ms, after) };
            shared.notifier.set(Condition::new(Kind::NoSuccess, name), stalled);
        }
        Ok(())
    }
}

impl TeamReadings {
    /// What of `cells` people were not told of yet: how many failed, how many went to quarantine, each in words.
    fn ended(&mut self, cells: &TeamMetrics) -> (Option<Ended>, Option<Ended>) {
        let mut reasons = Vec::new();
        let mut failed = 0;
        for (outcome, known) in FAILURES.into_iter().zip(&mut self.failures) {
            let count = cells.outcomes.of(outcome).value();
            let new = count.saturating_sub(std::mem::replace(known, count));
            failed += new;
            if new > 0 {
                reasons.push(format!("{new} {}", reason_of(outcome)));
            }
        }
        let count = cells.outcomes.of(Outcome::Contradicted).value();
        let contradicted = count.saturating_sub(std::mem::replace(&mut self.contradictions, count));
        let some = |times: u64, detail: String| (times > 0).then_some((times, detail));
        let failed = some(failed, format!("Since it was last told: {}.", reasons.join(", ")));
        (failed, some(contradicted, "What was fetched contradicts what was declared.".into()))
    }

    /// Why people are told of a pause, if they are. One that was long when it began is told of to its end.
    fn long_pause(&mut self, pause: Option<Pause>, now_ms: i64) -> Option<String> {
        let pause = pause.filter(|pause| {
            self.long_pause_until_ms == Some(pause.until_ms) || pause.until_ms.saturating_sub(now_ms) > LONG_PAUSE_MS
        });
        self.long_pause_until_ms = pause.as_ref().map(|pause| pause.until_ms);
        Some(pause?.reason)
    }

    /// Since when something has always been waiting.
    fn waiting(&mut self, waits: bool, now_ms: i64) -> Option<i64> {
        self.waiting_since_ms = if waits { self.waiting_since_ms.or(Some(now_ms)) } else { None };
        self.waiting_since_ms
    }
}

fn show_states(cells: &TeamMetrics, states: &StateTotals) {
    for (state, count) in [
        (AttachmentState::Pending, states.pending),
        (AttachmentState::Archived, states.archived),
        (AttachmentState::Skipped, states.skipped),
        (AttachmentState::Failed, states.failed),
        (AttachmentState::Quarantined, states.quarantined),
    ] {
        cells.attachments.of(state).set(count);
    }
}

/// Why it failed, for people.
fn reason_of(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Gone => "gone",
        Outcome::Forbidden => "forbidden",
        Outcome::AttemptsUsedUp => "after the last attempt",
        _ => "refused",
    }
}

/// What is free, in bytes, by what is written there; of several archives, where it is least.
fn least_free(disks: &BTreeMap<(&'static str, String), PathBuf>) -> BTreeMap<&'static str, u64> {
    let mut least = BTreeMap::new();
    for ((what, _), path) in disks {
        let Ok(status) = rustix::fs::statvfs(path) else { continue };
        let free_bytes = status.f_bavail.saturating_mul(status.f_frsize);
        least.entry(*what).and_modify(|least| *least = free_bytes.min(*least)).or_insert(free_bytes);
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_of_once_with_their_reasons() {
        let (mut known, cells) = (TeamReadings::default(), TeamMetrics::default());
        assert_eq!(known.ended(&cells), (None, None));
        cells.outcomes.add(Outcome::Gone, 2);
        cells.outcomes.add(Outcome::AttemptsUsedUp, 1);
        cells.outcomes.add(Outcome::Stored, 9);
        let told = "Since it was last told: 2 gone, 1 after the last attempt.";
        assert_eq!(known.ended(&cells), (Some((3, told.into())), None));
        assert_eq!(known.ended(&cells), (None, None));
        cells.outcomes.add(Outcome::Contradicted, 1);
        assert_eq!(known.ended(&cells).1.map(|(times, _)| times), Some(1));
    }

    #[test]
    fn a_long_pause_is_told_of_to_its_end_and_a_short_one_never() {
        let mut known = TeamReadings::default();
        let pause = |until_ms| Some(Pause { scope: "team:1".into(), until_ms, reason: "why".into() });
        assert_eq!(known.long_pause(pause(LONG_PAUSE_MS), 0), None);
        assert_eq!(known.long_pause(pause(2 * LONG_PAUSE_MS), 0).as_deref(), Some("why"));
        assert_eq!(known.long_pause(pause(2 * LONG_PAUSE_MS), 2 * LONG_PAUSE_MS - 1).as_deref(), Some("why"));
        assert_eq!(known.long_pause(None, 2 * LONG_PAUSE_MS), None);
        assert_eq!(known.long_pause(pause(3 * LONG_PAUSE_MS), 2 * LONG_PAUSE_MS), None);
        assert_eq!(known.long_pause(pause(i64::MAX), 2 * LONG_PAUSE_MS).as_deref(), Some("why"));
    }

    #[test]
    fn waiting_begins_anew_when_nothing_waits() {
        let mut known = TeamReadings::default();
        assert_eq!(
            [(true, 5), (true, 9), (false, 10), (true, 11)].map(|(waits, at)| known.waiting(waits, at)),
            [Some(5), Some(5), None, Some(11)]
        );
    }

    #[test]
    fn of_several_places_the_fullest_disk_counts_and_one_that_is_gone_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let disk = |what, place: &str, path: &Path| ((what, place.to_owned()), path.to_owned());
        let disks = [
            disk("archive", "a", folder.path()),
            disk("archive", "b", Path::new("/proc")),
            disk("spool", "a", &folder.path().join("gone")),
        ];
        // A file system without blocks of its own.
        assert_eq!(least_free(&disks.into()), BTreeMap::from([("archive", 0)]));
    }
}
