//! Every kind of system call that stores something fails once: the run says so or makes up for it, nothing is cited
//! after a sync that failed, and the next run is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, bail};
use jellyjar::sim::Faults;
use serde_json::Value;

use super::life::{Life, Totals, report};
use super::oracle::{Finding, Kind};
use super::random::Random;
use super::steps::{Places, SINGLE, SMALL, WHOLE, choose, places, traced};
use super::trace::{self, Call};
use super::world::{Ran, Settings, World};
use super::{Options, catalog};

/// The calls that fail, and how.
const FAILURES: [(&str, &[&str]); 13] = [
    ("fsync", &["EIO", "ENOSPC"]),
    ("fdatasync", &["EIO"]),
    ("syncfs", &["EIO"]),
    ("write", &["ENOSPC", "EIO"]),
    ("pwrite64", &["EIO", "ENOSPC"]),
    ("renameat2", &["EIO", "ENOSPC", "EINVAL"]),
    ("rename", &["EIO"]),
    ("mkdir", &["ENOSPC", "EACCES"]),
    ("unlink", &["EIO"]),
    ("openat", &["ENOSPC", "EMFILE", "EACCES"]),
    ("ftruncate", &["EIO"]),
    ("linkat", &["EIO", "ENOSPC"]),
    ("statfs", &["EIO"]),
];

/// How often it is tried to hit a step.
const TRIES: usize = 4;

/// How often more it is tried to hit a kind of call that was not hit at any step.
const MORE_TRIES: usize = 60;

/// What failed runs came to: how often, by step, error and what the run said.
pub(crate) type Told = BTreeMap<String, u64>;

/// A place at which a call is to fail: its name, and its place among those of its thread.
type Place = (String, usize);

/// Fails every kind of call once, at each step that uses it, in small and in large batches.
pub(crate) fn run(options: &Options) -> Result<(Totals, Told)> {
    let world = World::start(&options.dir.join("faults"), &options.program, options.seed, SMALL)?;
    let mut random = Random::new(options.seed, 0xfa17);
    let (mut totals, mut told, mut failed) = (Totals::default(), Told::new(), BTreeSet::new());
    let mut all: Vec<(Settings, Place)> = Vec::new();
    for settings in [SINGLE, WHOLE] {
        world.begin(settings, Faults::none())?;
        let (_, calls) = traced(&world, &[]).context("a traced run without a failure")?;
        // What the traced run does not do, as nothing fails in it: links in place of renames.
        let links: Vec<_> = (1..=3).map(|place| ("linkat".to_owned(), place)).collect();
        let mut cases = vec![vec![vec!["renameat2:error=EINVAL".into()]]];
        for error in ["EIO", "ENOSPC"] {
            cases.push(vec![failure(random.pick::<Place>(&links), error)]);
        }
        let places = undisturbed(places(&calls), &calls);
        for places in places.values() {
            // Threads share the work anew in each run, so that it takes some tries to hit a call of ours.
            let tries = choose(places, TRIES, &mut random);
            let tries =
                tries.iter().filter_map(|place| Some(failure(place, random.pick::<&str>(errors_of(&place.0)?))));
            cases.push(tries.collect());
        }
        for tries in cases {
            for case in tries {
                world.begin(settings, Faults::none())?;
                let context = || format!("{settings:?}, {case:?}");
                if let Some(call) = one_case(&world, &case, &mut totals, &mut told).with_context(context)? {
                    failed.insert(call);
                    break;
                }
            }
        }
        all.extend(places.into_values().flatten().chain(links).map(|place| (settings, place)));
    }
    // Each kind of call has to fail at a step of ours at least once: what bad luck has missed so far is tried anywhere.
    for (call, errors) in FAILURES {
        let places: Vec<_> = all.iter().filter(|(_, (name, _))| name == call).collect();
        for _ in 0..MORE_TRIES {
            if failed.contains(call) || places.is_empty() {
                break;
            }
            let (settings, place) = random.pick(&places);
            let case = failure(place, random.pick::<&str>(errors));
            world.begin(*settings, Faults::none())?;
            let context = || format!("{settings:?}, {case:?}");
            failed.extend(one_case(&world, &case, &mut totals, &mut told).with_context(context)?);
        }
        if !failed.contains(call) {
            bail!("no {call} was made to fail at a step of the program; this test has lost its grip");
        }
    }
    Ok((totals, told))
}

/// The errors with which a call fails; `None` for one that is not made to.
fn errors_of(call: &str) -> Option<&'static [&'static str]> {
    FAILURES.iter().find(|(name, _)| *name == call).map(|(_, errors)| *errors)
}

/// The injections that make a call fail.
fn failure((call, place): &Place, error: &str) -> Vec<String> {
    let failure = format!("{call}:error={error}:when={place}");
    // Names are given by links only where a rename cannot refuse to replace a file.
    if call == "linkat" { vec!["renameat2:error=EINVAL".into(), failure] } else { vec![failure] }
}

/// Of the places of each step, those at which no thread made a call that is none of our steps; all, if there is none.
/// An injection counts each thread's calls by themselves and fails them all: a write that is a wake-up of the runtime,
/// too.
fn undisturbed(places: Places, calls: &[Call]) -> Places {
    let mut counts: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    let mut disturbed: BTreeSet<(&str, usize)> = BTreeSet::new();
    for call in calls {
        let count = counts.entry((call.thread, &call.name)).or_default();
        *count += 1;
        if trace::step(call).is_none() {
            disturbed.insert((&call.name, *count));
        }
    }
    let narrowed = |all: Vec<Place>| {
        let kept: Vec<_> = all.iter().filter(|(call, place)| !disturbed.contains(&(call, *place))).cloned().collect();
        if kept.is_empty() { all } else { kept }
    };
    places.into_iter().map(|(step, all)| (step, narrowed(all))).collect()
}

/// One run with failures, and the next. Gives the call that failed, if that was a step of ours.
fn one_case(world: &World, injections: &[String], totals: &mut Totals, told: &mut Told) -> Result<Option<String>> {
    let mut life = Life::default();
    let (ran, calls) = traced(world, injections)?;
    let mut findings = Vec::new();
    let (name, error) = injections.last().and_then(|last| last.split_once(":error=")).context("no injection")?;
    let error = error.split(':').next().unwrap_or_default();
    // Each thread has its own K-th call, so that several may be hit.
    let injected = |call: &&Call| call.injected && call.is(&[name]);
    let hit = calls.iter().filter(injected).max_by_key(|call| trace::step(call).is_some());
    // The runtime's own wake-up calls are writes, too; without them it cannot but fall over.
    let is_wake_up = calls.iter().any(|call| call.injected && trace::step(call).is_none());
    if ran.stderr.contains("failed to wake") || (is_wake_up && ran.hung) {
        return Ok(None);
    }
    let text = match said(&ran) {
        Ok(text) => text,
        Err(finding) => {
            findings.push(finding);
            String::new()
        }
    };
    findings.extend(cited_after_failed_sync(world, &calls)?);
    report("after a failure", &findings)?;
    let step = hit.and_then(trace::step);
    if hit.is_some() {
        let step = step.clone().unwrap_or_else(|| format!("{name} elsewhere"));
        *told.entry(format!("{name} {error} at \"{step}\": {text}")).or_default() += 1;
    }
    life.after_failure(world)?;
    world.runtime.block_on(catalog::let_time_pass(&world.archive().join(".jellyjar")))?;
    life.complete(world, &world.run(&[])?, totals).context("the next run")?;
    Ok(step.map(|_| name.to_owned()))
}

/// What a run said of a failure; a finding if it said nothing, or fell over.
fn said(ran: &Ran) -> Result<String, Finding> {
    let code = ran.status.code();
    let receipt = ran.receipt();
    if code == Some(0) && receipt["ok"] == true {
        return Ok("made up for it".into());
    }
    let lost = |text: &str| Err((Kind::Lost, format!("{text}: {}, {}{}", ran.status, ran.stdout, ran.stderr)));
    if ran.hung {
        return lost("the run hangs");
    }
    if code.is_none() || ran.stderr.contains("panicked") {
        return lost("the run fell over");
    }
    let notes = receipt["notes"].as_array().into_iter().flatten();
    let mut texts: Vec<&str> = receipt["error"].as_str().into_iter().chain(notes.filter_map(Value::as_str)).collect();
    texts.extend(ran.stderr.lines().next());
    match texts.first() {
        Some(text) if code != Some(0) => {
            // Names and times that change from run to run would make each case its own.
            let changes = |word: &str| word.contains("archive/") || word.ends_with('Z') || word.starts_with("20");
            let words = text.split(' ').map(|word| if changes(word) { "…" } else { word });
            Ok(format!("exit {}: {}", code.unwrap_or(-1), words.collect::<Vec<_>>().join(" ")))
        }
        _ => lost("the run did not say that something failed"),
    }
}

/// Outcome segments that were named after a sync of stored bytes or names had failed, and that cite blobs.
fn cited_after_failed_sync(world: &World, calls: &[Call]) -> Result<Vec<Finding>> {
    let stored = |call: &Call| {
        let path = call.descriptor_path();
        call.is(&["syncfs"]) || path.starts_with("archive/blobs") || path.starts_with("archive/.jellyjar/spool")
    };
    let is_sync = |call: &Call| call.is(&["fsync", "fdatasync", "syncfs"]);
    let Some(failed) = calls.iter().find(|call| call.injected && is_sync(call) && stored(call)) else {
        return Ok(Vec::new());
    };
    let mut findings = Vec::new();
    for call in calls.iter().filter(|call| call.is(&["renameat2", "link", "linkat"]) && call.succeeded()) {
        let name = call.text(1);
        if call.begin > failed.end && name.starts_with("archive/outcomes/") {
            let lines = fs::read_to_string(world.folder.join(&name))?;
            if lines.contains("\"kind\":\"archived\"") {
                findings.push((Kind::Corrupt, format!("{name} cites blobs after a sync that failed")));
            }
        }
    }
    Ok(findings)
}
