//! Kills before every named step of an attachment's life, and again while the next run recovers.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};
use jellyjar::sim::Faults;

use super::Options;
use super::life::{Life, Totals};
use super::random::Random;
use super::trace::{self, Call};
use super::world::{Ran, Settings, Size, World};

/// A dump for runs that are traced.
pub(crate) const SMALL: Size = Size { messages: 30, per_message: 3, contents: 50, large: 8, huge: 0 };

/// Small batches, each blob synced by itself; downloads in files.
pub(crate) const SINGLE: Settings = Settings { batch_size: 6, memory_threshold_kib: 4, concurrency: 6 };

/// Large batches, synced by `syncfs`; downloads in memory unless they are large.
pub(crate) const WHOLE: Settings = Settings { batch_size: 512, memory_threshold_kib: 256, concurrency: 16 };

/// How many kills each step gets: the steps that the order of a record turns on, and others.
const PER_STEP: (usize, usize) = (2, 1);

/// How often more it is tried to hit a step that was not hit, at places of one run, and of how many runs.
const MORE_TRIES: usize = 4;
const MORE_ROUNDS: usize = 4;

/// An injection that never happens. With one, runs are slower, so that threads share the work as they do in runs with
/// kills.
const NEVER: &str = "statfs:signal=SIGKILL:when=65535";

/// The step at which each kill is to happen: a call and its place among those of its thread.
pub(crate) type Places = BTreeMap<String, Vec<(String, usize)>>;

/// Runs the program under strace, and reads the log.
pub(crate) fn traced(world: &World, injections: &[String]) -> Result<(Ran, Vec<Call>)> {
    let log = trace::log_path(&world.folder);
    let ran = world.run(&trace::tracer(&log, 256, injections))?;
    Ok((ran, trace::read(&log, &world.folder)?))
}

/// For each step that a run takes, the places at which it does.
pub(crate) fn places(calls: &[Call]) -> Places {
    let mut counts: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    let mut places = Places::new();
    for call in calls {
        let count = counts.entry((call.thread, &call.name)).or_default();
        *count += 1;
        if let Some(step) = trace::step(call) {
            let known = places.entry(step).or_default();
            if !known.contains(&(call.name.clone(), *count)) {
                known.push((call.name.clone(), *count));
            }
        }
    }
    places
}

/// Of the places of each step, those at which the first thread to come so far took it: the one that a kill happens to.
fn first_places(calls: &[Call]) -> Places {
    let mut counts: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    let mut seen: BTreeSet<(&str, usize)> = BTreeSet::new();
    let mut places = Places::new();
    for call in calls {
        let count = counts.entry((call.thread, &call.name)).or_default();
        *count += 1;
        let is_first = seen.insert((&call.name, *count));
        if let Some(step) = trace::step(call).filter(|_| is_first) {
            places.entry(step).or_default().push((call.name.clone(), *count));
        }
    }
    places
}

/// Chooses up to `count` of the places of a step.
pub(crate) fn choose(places: &[(String, usize)], count: usize, random: &mut Random) -> Vec<(String, usize)> {
    let mut places = places.to_vec();
    let mut chosen = Vec::new();
    while chosen.len() < count && !places.is_empty() {
        let index = usize::try_from(random.below(places.len() as u64)).unwrap_or(0);
        chosen.push(places.swap_remove(index));
    }
    chosen
}

/// Whether a kill has to hit a step. Opening a file is left to chance: threads open too many others in between.
fn is_required(step: &str) -> bool {
    !trace::meaning(step).is_empty() && !step.starts_with("make ")
}

/// Kills before every step, in small and in large batches. Gives the totals and how often each step was hit.
pub(crate) fn run(options: &Options) -> Result<(Totals, BTreeMap<String, u64>)> {
    let world = World::start(&options.dir.join("steps"), &options.program, options.seed, SMALL)?;
    let mut random = Random::new(options.seed, 0x5_7e95);
    let (mut totals, mut hit, mut missed) = (Totals::default(), BTreeMap::new(), BTreeSet::new());
    for settings in [SINGLE, WHOLE] {
        world.begin(settings, Faults::none())?;
        let (_, calls) = traced(&world, &[]).context("a traced run without a kill")?;
        let places = places(&calls);
        let mut cases = Vec::new();
        for (step, places) in &places {
            let count = if trace::meaning(step).is_empty() { PER_STEP.1 } else { PER_STEP.0 };
            cases.extend(choose(places, count, &mut random));
        }
        // Between a message segment and the outcomes of its skips, and again before the next start has written these.
        for (first, again) in [(2, 1), (3, 1), (2, 2)] {
            let name = |place| ("renameat2".to_owned(), place);
            world.begin(settings, Faults::none())?;
            one_case(&world, [name(first), name(again)], None, &mut totals, &mut hit)
                .with_context(|| format!("{settings:?}, killed at renameat2 {first}, again at {again}"))?;
        }
        let early: Vec<_> = places.values().flatten().filter(|(_, place)| *place <= 6).cloned().collect();
        for (call, place) in cases {
            let again = random.pick(&early).clone();
            let case = format!("{settings:?}, killed at {call} {place}, again at {again:?}");
            world.begin(settings, Faults::none())?;
            one_case(&world, [(call, place), again], Some(&mut random), &mut totals, &mut hit).context(case)?;
        }
        // Threads share the work anew in each run, so that some steps are missed: they are tried again, at places that a
        // run took which was as slow as those with kills are.
        for _ in 0..MORE_ROUNDS {
            let is_missed = |step: &String, hit: &BTreeMap<_, _>| is_required(step) && !hit.contains_key(step);
            if !places.keys().any(|step| is_missed(step, &hit)) {
                break;
            }
            world.begin(settings, Faults::none())?;
            world.make_archive()?;
            let (_, calls) = traced(&world, &[NEVER.into()]).context("a slow run without a kill")?;
            let firsts = first_places(&calls);
            for (step, places) in &places {
                let places = firsts.get(step).unwrap_or(places);
                for _ in 0..MORE_TRIES {
                    if !is_missed(step, &hit) {
                        break;
                    }
                    let (call, place) = random.pick(places).clone();
                    let case = format!("{settings:?}, killed at {call} {place}");
                    world.begin(settings, Faults::none())?;
                    // Where the archive is made already, no thread comes to its K-th call while it makes it.
                    world.make_archive()?;
                    let kill = [(call, place), random.pick(&early).clone()];
                    one_case(&world, kill, Some(&mut random), &mut totals, &mut hit).context(case)?;
                }
            }
        }
        missed.extend(places.into_keys().filter(|step| is_required(step)));
    }
    missed.retain(|step| !hit.contains_key(step));
    // Which thread comes to which call is the scheduler's choice: one or two steps may escape all tries of a run.
    if missed.len() > 2 {
        bail!("no kill hit the steps {missed:?}; try another --seed");
    }
    if !missed.is_empty() {
        println!("no kill of this run hit {missed:?}");
    }
    // Where a rename cannot refuse to replace a file, names are given by links: kills between link and removal.
    for place in 1..=4 {
        world.begin(SINGLE, Faults::none())?;
        let mut life = Life::default();
        let injections = ["renameat2:error=EINVAL".into(), format!("unlink:signal=SIGKILL:when={place}")];
        if killed(&world, &injections, &mut life, &mut hit)? {
            life.complete(&world, &world.run(&[])?, &mut totals).with_context(|| format!("links, unlink {place}"))?;
        }
    }
    Ok((totals, hit))
}

fn one_case(
    world: &World,
    kills: [(String, usize); 2],
    mut losing_catalogs: Option<&mut Random>,
    totals: &mut Totals,
    hit: &mut BTreeMap<String, u64>,
) -> Result<()> {
    let mut life = Life::default();
    for (call, place) in kills {
        if !killed(world, &[format!("{call}:signal=SIGKILL:when={place}")], &mut life, hit)? {
            // The thread that was to come so far did not this time: the run has ended whole, which is checked below.
            break;
        }
        if losing_catalogs.as_mut().is_some_and(|random| random.one_in(3)) {
            life.delete_catalog(world)?;
        }
    }
    life.complete(world, &world.run(&[])?, totals)
}

/// Runs with injections of which one kills. Gives whether it did, after looking at what is left.
fn killed(world: &World, injections: &[String], life: &mut Life, hit: &mut BTreeMap<String, u64>) -> Result<bool> {
    let (ran, calls) = traced(world, injections)?;
    if !ran.was_killed() {
        return Ok(false);
    }
    // Entered and never left: the killing call is the last of its name that began.
    let name = injections.iter().find_map(|injection| injection.split_once(":signal=")).map_or("", |(name, _)| name);
    let last = calls.iter().rfind(|call| call.is(&[name]) && call.result.is_none());
    if let Some(step) = last.and_then(trace::step) {
        *hit.entry(step).or_default() += 1;
    }
    life.after_death(world)?;
    Ok(true)
}
