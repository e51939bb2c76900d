//! A fleet: many `jellyjar work` on one PostgreSQL and one bucket, of which one is killed or stopped every moment, while
//! PostgreSQL is crashed, connections are ended, and some are cut around a commit.

mod database;
mod judge;
mod proxy;
mod watch;
mod workers;

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use jellyjar::sim::Faults;
use serde::{Deserialize, Serialize};

use super::Options;
use super::bucket::{Bucket, move_house};
use super::life::Totals;
use super::oracle::Kind;
use super::random::Random;
use super::world::{Settings, Size, World};
use database::{Database, Held};
use proxy::{Cut, Proxy};
use watch::{Looked, Watch};
use workers::Worker;

/// How long a lease holds: the least that can be set.
const LEASE: Duration = Duration::from_secs(10);
/// A lease that is over is free after one more scan, and those are a third of a lease apart; looking takes its time, too.
const SCAN: Duration = Duration::from_secs(5);
/// Workers that have lost the server are back so soon after it, whatever happens to them at their start.
const BACK_WITHIN: Duration = Duration::from_secs(20);
/// What a worker has sent has reached PostgreSQL so soon.
const SENT_WITHIN: Duration = Duration::from_millis(50);
/// Fleets that come no further for so long hang.
const HANGS_AFTER: Duration = Duration::from_mins(2);
/// For so long a worker is stopped: less than its lease, or more.
const STOPS: [Duration; 4] =
    [Duration::from_millis(300), Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(14)];

/// What a fleet has to do and to bear.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Workers.
    pub(crate) workers: u64,
    /// Attachments that are to be archived.
    pub(crate) attachments: u64,
    /// For how long it is disturbed, at the most.
    pub(crate) seconds: u64,
    /// How often a worker is killed or stopped, in milliseconds.
    pub(crate) every_ms: u64,
    /// Requests that it may send in each window.
    pub(crate) quota: u64,
    /// How often PostgreSQL is crashed.
    pub(crate) crashes: u64,
    /// How many connections are ended by the server.
    pub(crate) terminations: u64,
    /// How many connections are cut around a commit.
    pub(crate) cuts: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            workers: 4,
            attachments: 3_000,
            seconds: 60,
            every_ms: 2_000,
            quota: 200_000,
            crashes: 2,
            terminations: 4,
            cuts: 9,
        }
    }
}

/// What was counted, over all fleets, beside [`Totals`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    stops: u64,
    crashes: u64,
    terminations: u64,
    /// Connections that were cut before a commit, when it was sent, and when it was answered.
    cuts: [u64; 3],
    /// Outcomes that the catalog has of a lease that was over.
    stale: u64,
    /// Fleets that their quota kept from archiving everything in their time.
    held_by_quota: u64,
    overdue_ms: u64,
    #[serde(default)]
    unattended_ms: u64,
    requests_in_window: u64,
    working_seconds: f64,
}

impl Counts {
    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let [before, sent, answered] = self.cuts;
        format!(
            "stopped {}, PostgreSQL crashed {}, connections ended {}, cut before a commit {before}, when sent {sent}, when \
             answered {answered}; stale commits {}, leases overdue at most {} ms, nobody at work for at most {} ms, requests in \
             a window at most {}, fleets held by their quota {}; working for {:.0} s",
            self.stops,
            self.crashes,
            self.terminations,
            self.stale,
            self.overdue_ms,
            self.unattended_ms,
            self.requests_in_window,
            self.held_by_quota,
            self.working_seconds
        )
    }
}

/// What is kept between runs of this program.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    seed: u64,
    next_life: u64,
    totals: Totals,
    counts: Counts,
}

/// What disturbs a fleet beside kills.
#[derive(Debug, Clone, Copy)]
enum Disturbance {
    Crash,
    Termination,
    Cut(Cut),
}

/// Lets one fleet work, and gives what was counted so far; `None` without a PostgreSQL and a bucket.
pub(crate) fn run(options: &Options) -> Result<Option<(Totals, Counts)>> {
    let state = options.dir.join("fleet.json");
    let mut kept = Kept { seed: options.seed, ..Kept::default() };
    if options.resume && state.exists() {
        kept = serde_json::from_slice(&fs::read(&state)?).with_context(|| format!("reading {}", state.display()))?;
        println!("going on: {}; {}", kept.totals.line(), kept.counts.line());
    }
    let plan = &options.fleet;
    let life = kept.next_life;
    let Some(bucket) = Bucket::from_environment()? else { return none("JELLYJAR_TEST_S3_SEAWEEDFS") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Some(database) = runtime.block_on(Database::create(&format!("fleet_{}", std::process::id())))? else {
        return none("JELLYJAR_TEST_POSTGRES");
    };
    let began = Instant::now();
    // Each fleet has mail of its own.
    let mut world = World::start(&options.dir.join("fleet"), &options.program, kept.seed ^ (life << 32), plan.size())?;
    println!("mail for a fleet after {:.0} s", began.elapsed().as_secs_f64());
    world.bucket = Some(bucket);
    world.hangs_after = HANGS_AFTER * 5;
    let mut random = Random::new(kept.seed, 0xf1ee7 + life);
    let outcome = live(&mut world, &database, plan, &mut random, &mut kept.totals, &mut kept.counts);
    kept.next_life += 1;
    let new = state.with_extension("new");
    fs::write(&new, serde_json::to_vec_pretty(&kept)?)?;
    fs::rename(new, state)?;
    outcome.with_context(|| format!("seed {}, fleet {life}; all is kept in {}", kept.seed, world.folder.display()))?;
    world.runtime.block_on(database.remove())?;
    Ok(Some((kept.totals, kept.counts)))
}

fn none<T>(variable: &str) -> Result<Option<T>> {
    ensure!(std::env::var_os("CI").is_none(), "{variable} is not set: run the tests by tests/run");
    Ok(None)
}

impl Plan {
    /// A dump with so many attachments that are not inline (see [`World::start`]).
    const fn size(&self) -> Size {
        Size {
            messages: self.attachments * 77 / 71 / 4 + 1,
            per_message: 4,
            contents: self.attachments / 2,
            large: self.attachments / 1_000,
            huge: 2,
        }
    }

    /// The settings of every worker.
    fn settings(&self, catalog: &str, archive: &str) -> String {
        format!(
            "catalog = \"{catalog}\"\narchive = \"{archive}\"\n\
             [worker]\nbatch_size = 32\nconcurrency = 16\nmax_leases = 64\nlease_duration = \"{}s\"\n\
             [spool]\nfolder = \"spool\"\nmin_free = \"1 MiB\"\nallow_tmpfs = true\n\
             [retry]\nbase_delay = \"10ms\"\n[bucket]\npart_size = \"5 MiB\"\n\
             [serve]\nops_listen = \"127.0.0.1:0\"\n[sweep]\nevery = \"0s\"\n[quota]\nrequests_per_window = {}\nrequests_per_day = 1000000000\n",
            LEASE.as_secs(),
            self.quota
        )
    }

    /// What happens when.
    fn disturbances(&self, random: &mut Random) -> Vec<(Duration, Disturbance)> {
        let mut all = Vec::new();
        let mut add = |count: u64, what: &dyn Fn(u64) -> Disturbance| {
            for number in 0..count {
                all.push((Duration::from_millis(random.below(1 + self.seconds * 1_000)), what(number)));
            }
        };
        add(self.crashes, &|_| Disturbance::Crash);
        add(self.terminations, &|_| Disturbance::Termination);
        add(self.cuts, &|number| {
            Disturbance::Cut([Cut::Answered, Cut::Sent, Cut::Before][usize::try_from(number % 3).unwrap_or(0)])
        });
        all.sort_by_key(|(at, _)| *at);
        all
    }
}

/// One fleet, from an empty archive to one in which everything is.
fn live(
    world: &mut World,
    database: &Database,
    plan: &Plan,
    random: &mut Random,
    totals: &mut Totals,
    counts: &mut Counts,
) -> Result<()> {
    let settings = Settings { batch_size: 512, memory_threshold_kib: 256, concurrency: 16 };
    world.begin(settings, Faults::none())?;
    world.catalog = Some(database.url(database.address()?)?);
    take_in(world)?;
    world.runtime.block_on(database.note_taken_back())?;

    let proxy = world.runtime.block_on(Proxy::start(database.address()?))?;
    let archive = world.bucket.as_ref().map(Bucket::location).context("no bucket")?;
    let settings = plan.settings(&database.url(proxy.address)?, &archive);
    let count = usize::try_from(plan.workers)?;
    let mut fleet = Fleet {
        world,
        database,
        plan,
        proxy,
        workers: Vec::new(),
        held: HashSet::new(),
        kills: 0,
        cuts_due: 0,
        cuts: [0; 3],
    };
    for number in 0..count {
        fleet.workers.push(Worker::start(world, number, &settings)?);
    }
    let began = Instant::now();
    let (watch, held_by_quota) = fleet.work(random, counts)?;
    counts.working_seconds += began.elapsed().as_secs_f64();
    let mut findings = Vec::new();
    if watch.overdue > SCAN {
        let text =
            format!("a lease was over for {:?} and nobody freed it; at first:\n{}", watch.overdue, watch.meanwhile);
        findings.push((Kind::Lost, text));
    }
    if watch.unattended > BACK_WITHIN {
        findings.push((
            Kind::Lost,
            format!(
                "nobody was at work for {:?}, though PostgreSQL was; at first:\n{}",
                watch.unattended, watch.meanwhile
            ),
        ));
    }
    if watch.requests_in_window > plan.quota {
        let text = format!("{} requests in a window, {} are allowed", watch.requests_in_window, plan.quota);
        findings.push((Kind::Twice, text));
    }
    let (mut held, kills) = (fleet.held, fleet.kills);
    // Between two looks a worker may claim, be cut off, and another take back what it claimed.
    let taken_back = async { database::taken_back(&mut database.connect().await?).await };
    held.extend(world.runtime.block_on(taken_back)?);
    let cuts = fleet.proxy.cuts();
    ensure!(fleet.cuts_due == 0 || cuts.iter().sum::<u64>() > 0, "no connection was cut, of {}", fleet.cuts_due);
    for (total, cuts) in counts.cuts.iter_mut().zip(cuts) {
        *total += cuts;
    }
    for worker in fleet.workers {
        worker.end()?;
    }
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    counts.overdue_ms = counts.overdue_ms.max(millis(watch.overdue));
    counts.unattended_ms = counts.unattended_ms.max(millis(watch.unattended));
    counts.requests_in_window = counts.requests_in_window.max(watch.requests_in_window);
    counts.held_by_quota += u64::from(held_by_quota);
    totals.kills += kills;
    let secrets = [database.password(), "sim-token", "X-Amz-Signature"];
    let left = workers::leavings(world, count, &secrets)?;
    findings.extend(left.into_iter().map(|text| (Kind::Corrupt, text)));
    judge::judge(world, database, &held, held_by_quota, findings, totals, counts)?;
    if !held_by_quota {
        world.catalog = None;
        move_house(world)?;
    }
    Ok(())
}

/// Makes archive and catalog, and has the dump taken in while the team is paused: nothing is fetched yet.
fn take_in(world: &World) -> Result<()> {
    let began = Instant::now();
    world.make_archive()?;
    for words in [&["pause"][..], &["replay", "dump.jsonl"], &["resume"]] {
        let ran = world.command(words)?;
        let waits = words[0] == "replay" && ran.receipt()["pending"].as_u64().is_some_and(|pending| pending > 0);
        ensure!(ran.status.success() || waits, "{words:?} ended with {}: {}{}", ran.status, ran.stdout, ran.stderr);
    }
    let asked = world.sim.stats().api_requests;
    ensure!(asked == 0, "{asked} requests were sent for a team that is paused");
    println!("a dump was taken in after {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// A fleet at work.
struct Fleet<'a> {
    world: &'a World,
    database: &'a Database,
    plan: &'a Plan,
    proxy: Proxy,
    workers: Vec<Worker>,
    /// Every lease that was held when something was done to somebody.
    held: HashSet<Held>,
    kills: u64,
    /// Connections that were to be cut at their next commit.
    cuts_due: u64,
    /// Those that were, when it was looked last.
    cuts: [u64; 3],
}

impl Fleet<'_> {
    /// Disturbs it until everything is archived, or its time is over; then leaves it in peace until it is done. Gives whether
    /// its quota keeps it from that.
    fn work(&mut self, random: &mut Random, counts: &mut Counts) -> Result<(Watch, bool)> {
        let began = Instant::now();
        let length = Duration::from_secs(self.plan.seconds);
        let mut disturbances = self.plan.disturbances(random).into_iter().peekable();
        let mut next_kill = began + Duration::from_millis(self.plan.every_ms);
        let mut watch = self.world.runtime.block_on(Watch::start(self.database))?;
        loop {
            let going = self.workers.iter().filter(|worker| worker.stopped_until.is_none()).map(Worker::process);
            if watch.look(self.world, self.database, &going.collect())? == Looked::AfterSleep {
                // So did the workers.
                self.held.extend(watch.held.iter().cloned());
                self.held.extend(watch.leases(self.world, self.database)?);
            }
            for worker in &mut self.workers {
                worker.check()?;
                if worker.stopped_until.is_some_and(|until| until <= Instant::now()) {
                    worker.go_on()?;
                }
            }
            // Whoever was cut off comes back a moment later at the earliest: until then the catalog has its leases.
            let cuts = self.proxy.cuts();
            if cuts != std::mem::replace(&mut self.cuts, cuts) {
                self.held.extend(watch.leases(self.world, self.database)?);
            }
            let in_peace = watch.pending == 0 || began.elapsed() > length;
            if in_peace {
                for worker in self.workers.iter_mut().filter(|worker| worker.stopped_until.is_some()) {
                    worker.go_on()?;
                }
                // Who was killed just now is waited for, and removes what it left behind.
                let all_are_back = watch.going.len() == self.workers.len();
                if watch.pending == 0 && all_are_back && watch.leases(self.world, self.database)?.is_empty() {
                    return Ok((watch, false));
                }
                // Three tenths of a window are kept for webhooks; the last requests before that may be kept for other workers.
                let used_up = watch.requests_in_window * 100 >= self.plan.quota * 65;
                if used_up && began.elapsed() > length + LEASE {
                    return Ok((watch, true));
                }
                if watch.progressed_at.elapsed() > HANGS_AFTER {
                    bail!(
                        "{} attachments are pending with {} workers at work, and nothing has come of it for {HANGS_AFTER:?}",
                        watch.pending,
                        watch.going.len()
                    );
                }
            } else {
                while let Some((_, what)) = disturbances.next_if(|(at, _)| *at <= began.elapsed()) {
                    self.disturb(what, &mut watch, counts)?;
                }
                if Instant::now() >= next_kill {
                    next_kill += Duration::from_millis(self.plan.every_ms);
                    self.strike(random, &mut watch, counts)?;
                }
            }
            watch.called_at = Instant::now();
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills a worker, or stops it for a while.
    fn strike(&mut self, random: &mut Random, watch: &mut Watch, counts: &mut Counts) -> Result<()> {
        let kills = random.one_in(2);
        let length = *random.pick(&STOPS);
        let chosen = random.next();
        let mut going: Vec<usize> = (0..self.workers.len()).collect();
        going.retain(|number| self.workers[*number].stopped_until.is_none());
        // Some go on, whatever happens.
        if going.len() * 2 <= self.workers.len() {
            self.held.extend(watch.leases(self.world, self.database)?);
            return Ok(());
        }
        let number = going[usize::try_from(chosen % going.len() as u64)?];
        // It holds what the catalog says while it stands still, with what it has asked for at this moment.
        self.workers[number].stop(length)?;
        std::thread::sleep(SENT_WITHIN);
        self.held.extend(watch.leases(self.world, self.database)?);
        if kills {
            self.workers[number].replace(self.world)?;
            self.kills += 1;
        } else {
            counts.stops += 1;
        }
        Ok(())
    }

    fn disturb(&mut self, what: Disturbance, watch: &mut Watch, counts: &mut Counts) -> Result<()> {
        match what {
            Disturbance::Crash => {
                // What was leased when it crashed is known before anybody can change it.
                let closed = self.world.runtime.block_on(self.proxy.close());
                self.held.extend(watch.leases(self.world, self.database)?);
                self.database.crash_server()?;
                counts.crashes += 1;
                drop(closed);
            }
            Disturbance::Termination => {
                self.held.extend(watch.leases(self.world, self.database)?);
                let ended = self.world.runtime.block_on(self.database.terminate_one())?;
                counts.terminations += u64::from(ended);
                self.held.extend(watch.leases(self.world, self.database)?);
            }
            Disturbance::Cut(cut) => {
                self.held.extend(watch.leases(self.world, self.database)?);
                self.proxy.cut(cut);
                self.cuts_due += 1;
            }
        }
        Ok(())
    }
}
