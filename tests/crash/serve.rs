//! Kills of `jellyjar serve` at random times, while many senders post webhooks at once.

mod judge;
mod senders;

use std::collections::HashSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::life::{Life, Totals, check_again, report};
use super::oracle::{Finding, Kind};
use super::random::Random;
use super::world::{Size, World};
use super::{Options, catalog, trace};
use judge::Records;
use senders::{Letters, Load};

/// The webhooks of every life.
const SIZE: Size = Size { messages: 240, per_message: 2, contents: 160, large: 10, huge: 0 };
/// The most deaths of one life.
const DEATHS: u64 = 10;
/// How long a service may take to begin, to catch up, and to stop.
const HANGS_AFTER: Duration = Duration::from_mins(1);
/// A service that nobody posts to any longer is killed after this at the latest.
const IDLE: Duration = Duration::from_millis(1_500);

/// When a service is killed.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// So long after it was started, which may be before it listens.
    AfterStart(Duration),
    /// So long after it began to listen.
    AfterListening(Duration),
    /// By the sender that sees this acknowledgement, counted from its start: right after a sync.
    AtAcknowledgement(u64),
    /// Before a thread's sync or rename of this number.
    AtCall(u64),
}

/// What was counted beside [`Totals`].
#[derive(Debug, Default)]
pub(crate) struct Posted {
    /// Webhooks that were answered with 2xx.
    pub(crate) acknowledged: u64,
    /// Webhooks to which no answer came, as the service died or the sender went away.
    pub(crate) unanswered: u64,
    /// Webhooks that were refused for a while.
    pub(crate) refused: u64,
    /// Records in inboxes and their copies at the end of lives.
    pub(crate) records: u64,
    /// Services killed before they listened.
    pub(crate) killed_at_start: u64,
}

impl Posted {
    /// One line for people.
    pub(crate) fn line(&self) -> String {
        format!(
            "webhooks acknowledged {}, unanswered {}, refused {}, kept {}; killed before listening {}",
            self.acknowledged, self.unanswered, self.refused, self.records, self.killed_at_start
        )
    }
}

/// Kills until so many services have died.
pub(crate) fn run(options: &Options) -> Result<(Totals, Posted)> {
    let world = World::start(&options.dir.join("serve"), &options.program, options.seed, SIZE)?;
    let letters = Letters::of_dump(&world.folder.join("dump.jsonl"), options.seed)?;
    let (mut totals, mut posted) = (Totals::default(), Posted::default());
    let kills = options.kills.unwrap_or(40);
    let (began, mut said) = (Instant::now(), 0);
    for number in 0.. {
        if totals.kills >= kills {
            break;
        }
        let most = DEATHS.min(kills - totals.kills);
        live(&world, &letters, options.seed, number, most, &mut totals, &mut posted).with_context(|| {
            let said = fs::read_to_string(world.folder.join("stderr")).unwrap_or_default();
            let folder = world.folder.display();
            format!("seed {}, life {number} of serve; all is kept in {folder}; it said last:\n{said}", options.seed)
        })?;
        if totals.kills >= said + 100 {
            said = totals.kills;
            println!("{}; {} ({:.0} s)", totals.line(), posted.line(), began.elapsed().as_secs_f64());
        }
    }
    Ok((totals, posted))
}

/// One life with at most `kills` deaths, and a last service that catches up and is stopped in good order.
fn live(
    world: &World,
    letters: &Letters,
    seed: u64,
    number: u64,
    kills: u64,
    totals: &mut Totals,
    posted: &mut Posted,
) -> Result<()> {
    let mut random = Random::new(seed, 0x5e7e + number);
    let settings = world.begin_at_random(&mut random)?;
    let load = Load::new(letters, &mut random);
    let (mut life, mut catalogs_deleted, mut starting) = (Life::default(), 0_u64, Duration::from_millis(300));
    for _ in 0..kills {
        let death = match random.below(8) {
            0 | 1 => Death::AfterStart(starting.mul_f64(f64::from(u32::try_from(random.below(1_200))?) / 1_000.0)),
            2 => Death::AfterListening(Duration::from_micros(random.below(20_000))),
            3 => Death::AfterListening(Duration::from_millis(random.below(1_200))),
            4 => Death::AtCall(1 + random.below(24)),
            _ => Death::AtAcknowledgement(1 + random.below(load.left() as u64 / 4 + 20)),
        };
        let context = || format!("{settings:?}, {death:?}");
        match die(world, &load, death, &mut random).with_context(context)? {
            Some(began) => starting = began,
            None => posted.killed_at_start += 1,
        }
        life.after_death(world).with_context(context)?;
        // Before anything is started again: what was acknowledged is in the inbox or in its copies, as it was posted.
        report("in inbox and copies after a kill", &Records::read(world)?.check(&load, false)).with_context(context)?;
        if random.one_in(6) {
            catalogs_deleted += 1;
            life.delete_catalog(world)?;
        }
    }
    let mut service = Service::start(world, &[])?;
    load.post_all(service.listening()?, None)?;
    anyhow::ensure!(load.left() == 0, "{} webhooks were never accepted", load.left());
    until_caught_up(world, &mut service)?;
    service.stop()?;
    let records = Records::read(world)?;
    let mut findings = records.check(&load, true);
    findings.extend(rejects(world, &records, catalogs_deleted > 0)?);
    report("in inbox and copies at the end of a life", &findings)?;
    life.complete_service(world, totals)?;
    let counts = load.counts();
    posted.acknowledged += counts.acknowledged;
    posted.unanswered += counts.unanswered;
    posted.refused += counts.refused;
    posted.records += records.len();
    let ran = world.command(&["verify"])?;
    anyhow::ensure!(ran.status.success(), "verify ended with {}: {}{}", ran.status, ran.stdout, ran.stderr);
    rebuild_and_compare(world)?;
    check_again(world)
}

/// Starts a service, has webhooks posted to it, and kills it. Gives how long it took to listen, if it came so far.
fn die(world: &World, load: &Load, death: Death, random: &mut Random) -> Result<Option<Duration>> {
    let began = Instant::now();
    let tracer = match death {
        Death::AtCall(number) => {
            let calls = random.pick(&["fsync,fdatasync,syncfs", "renameat2,rename,link,linkat,unlink,unlinkat"]);
            trace::tracer(&trace::log_path(&world.folder), 0, &[format!("{calls}:signal=KILL:when={number}")])
        }
        _ => Vec::new(),
    };
    let mut service = Service::start(world, &tracer)?;
    if let Death::AfterStart(after) = death {
        while began.elapsed() < after && service.public.is_none() {
            service.look()?;
            std::thread::sleep(Duration::from_micros(200));
        }
    } else if matches!(death, Death::AtCall(_)) {
        service.listening_or_dead()?;
    } else {
        service.listening()?;
    }
    let Some(address) = service.public.clone() else {
        service.kill()?;
        return Ok(None);
    };
    let listened = began.elapsed();
    let pid = service.pid();
    std::thread::scope(|scope| {
        let at = if let Death::AtAcknowledgement(number) = death { Some((number, pid)) } else { None };
        let address = &address;
        let posting = scope.spawn(move || load.post_all(address, at));
        let listening = Instant::now();
        let mut idle_since = None;
        loop {
            if service.child.try_wait()?.is_some() {
                break;
            }
            if posting.is_finished() {
                idle_since.get_or_insert_with(Instant::now);
            }
            let due = match death {
                Death::AfterStart(after) => began.elapsed() >= after,
                Death::AfterListening(after) => listening.elapsed() >= after,
                Death::AtAcknowledgement(_) | Death::AtCall(_) => false,
            };
            let idle = idle_since.is_some_and(|since: Instant| since.elapsed() > IDLE);
            if due || idle || listening.elapsed() > HANGS_AFTER {
                break;
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        service.kill()?;
        posting.join().map_err(|_| anyhow::anyhow!("a sender fell over"))?
    })?;
    Ok(Some(listened))
}

/// A running `jellyjar serve`. Dropping it kills it.
struct Service<'a> {
    world: &'a World,
    child: Child,
    /// Where it takes webhooks, once it does.
    public: Option<String>,
    /// Where it answers operators, once it does.
    operations: String,
}

impl<'a> Service<'a> {
    fn start(world: &'a World, tracer: &[String]) -> Result<Self> {
        Ok(Self { world, child: world.spawn_command(tracer, &["serve"])?, public: None, operations: String::new() })
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Looks whether it listens.
    fn look(&mut self) -> Result<()> {
        let said = fs::read_to_string(self.world.folder.join("stderr"))?;
        if let Some((_, rest)) = said.split_once("Taking webhooks on http://")
            && let Some((_, operations)) = rest.split_once("operations on http://")
            && let Some((operations, _)) = operations.split_once(".\n")
        {
            self.public = rest.split_once('/').map(|(address, _)| address.to_owned());
            operations.clone_into(&mut self.operations);
        }
        Ok(())
    }

    /// Whether it says that all is well.
    fn is_ready(&self) -> Result<bool> {
        let url = format!("http://{}/readyz", self.operations);
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(self.world.runtime.block_on(async { client.get(url).send().await })?.status().is_success())
    }

    /// Waits until it listens; gives where.
    fn listening(&mut self) -> Result<&str> {
        self.listening_or_dead()?;
        self.public.as_deref().context("the service ended before it listened")
    }

    fn listening_or_dead(&mut self) -> Result<()> {
        let began = Instant::now();
        while self.public.is_none() {
            let ended = self.child.try_wait()?.is_some();
            self.look()?;
            if ended {
                break;
            }
            anyhow::ensure!(began.elapsed() < HANGS_AFTER, "the service does not begin to listen");
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    /// Kills it, with its tracer. One that has ended by itself was killed by a sender or a tracer, or has failed.
    fn kill(&mut self) -> Result<()> {
        // A tracer does not take its program with it: the whole group goes. One that is gone already is no error.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let status = self.child.wait()?;
        let began = Instant::now();
        // Its tracer may be gone before it.
        while lives(self.child.id())? {
            anyhow::ensure!(began.elapsed() < HANGS_AFTER, "a killed service does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        let said = fs::read_to_string(self.world.folder.join("stderr"))?;
        let killed = status.signal() == Some(9) || status.code() == Some(128 + 9);
        if !killed || said.contains("panicked") {
            bail!("the service was to be killed and ended with {status}");
        }
        Ok(())
    }

    /// Stops it in good order.
    fn stop(mut self) -> Result<()> {
        kill_process(self.pid(), Signal::TERM)?;
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                anyhow::ensure!(status.code() == Some(0), "SIGTERM ended the service with {status}");
                return Ok(());
            }
            anyhow::ensure!(began.elapsed() < HANGS_AFTER, "SIGTERM does not end the service");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Whether any thread of a process group still holds files and locks.
fn lives(group: u32) -> Result<bool> {
    let group = group.to_string();
    for process in fs::read_dir("/proc")?.flatten() {
        for thread in fs::read_dir(process.path().join("task")).into_iter().flatten().flatten() {
            // proc_pid_stat(5): the state and the process group stand behind the name, which is in parentheses.
            let Ok(text) = fs::read_to_string(thread.path().join("stat")) else { continue };
            let mut words = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
            let (state, found) = (words.next(), words.nth(1));
            if found == Some(group.as_str()) && !matches!(state, Some("Z" | "X")) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Waits until every attachment has its outcome line, and the inbox has moved into the archive.
fn until_caught_up(world: &World, service: &mut Service<'_>) -> Result<()> {
    let began = Instant::now();
    let (mut read, mut decided) = (HashSet::new(), HashSet::new());
    loop {
        for key in super::oracle::files_below(&world.archive(), "outcomes")? {
            if read.contains(&key) {
                continue;
            }
            for line in fs::read_to_string(world.archive().join(&key))?.lines().skip(1) {
                let line: serde_json::Value = serde_json::from_str(line)?;
                let id = line["attachment_id"].as_str().unwrap_or_default().to_owned();
                let wanted =
                    if world.truth.get(&id) == Some(&super::world::Truth::Inline) { "skipped" } else { "archived" };
                if line["kind"] == wanted {
                    decided.insert(id);
                }
            }
            read.insert(key);
        }
        let in_inbox = judge::segments(world)?.len();
        // It may have been done before this one began.
        if decided.len() >= world.truth.len() && in_inbox == 0 && service.is_ready()? {
            return Ok(());
        }
        anyhow::ensure!(service.child.try_wait()?.is_none(), "the service ended by itself");
        let missing = world.truth.keys().filter(|id| !decided.contains(*id)).count();
        if began.elapsed() > HANGS_AFTER {
            bail!("the service does not catch up: {missing} attachments have no outcome, {in_inbox} segments are left");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every record that cannot be read is listed, once. A deleted catalog has taken its list with it; what was both in the
/// inbox and in a copy then is found at two places.
fn rejects(world: &World, records: &Records, catalog_deleted: bool) -> Result<Vec<Finding>> {
    let snapshot = world.runtime.block_on(catalog::read(&world.home(), &world.folder.join("catalog-copy")))?;
    let (listed, there) = (snapshot.rejects.len() as u64, records.unreadable());
    Ok(match listed.cmp(&there) {
        std::cmp::Ordering::Less => vec![(Kind::Lost, format!("{listed} of {there} unreadable webhooks are listed"))],
        std::cmp::Ordering::Greater if !catalog_deleted => {
            vec![(Kind::Twice, format!("{there} unreadable webhooks are listed as {:?}", snapshot.rejects))]
        }
        _ => Vec::new(),
    })
}

/// Makes the catalog anew on an empty machine: it has to say what the old one says.
fn rebuild_and_compare(world: &World) -> Result<()> {
    let home: PathBuf = world.folder.join("rebuilt");
    super::files::remove_folder(&home)?;
    let ran = world.command(&["--catalog", "rebuilt", "rebuild"])?;
    anyhow::ensure!(ran.status.success(), "rebuild ended with {}: {}{}", ran.status, ran.stdout, ran.stderr);
    let read = |folder| world.runtime.block_on(catalog::places(folder));
    let (old, new) = (read(&world.home())?, read(&home)?);
    anyhow::ensure!(!old.is_empty(), "the catalog is empty");
    let lost = old.difference(&new).map(|row| (Kind::Lost, format!("a rebuild has not {row}")));
    let other = new.difference(&old).map(|row| (Kind::Corrupt, format!("only a rebuild has {row}")));
    report("of a rebuild", &lost.chain(other).collect::<Vec<_>>())
}
