//! Every kind of system call that stores something fails once: the run says so or makes up for it, nothing is cited
//! after a sync that failed, and the next run is whole.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, bail};
use jellyjar::sim::Faults;
use serde_json::Value;

use super::life::{Life, Totals, report};
use super::oracle::{Finding, Kind};
use super::random::Random;
use super::steps::{SINGLE, SMALL, WHOLE, choose, places, traced};
use super::trace::{self, Call};
use super::world::{Ran, World};
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

/// What failed runs came to: how often, by step, error and what the run said.
pub(crate) type Told = BTreeMap<String, u64>;

/// Fails every kind of call once, at each step that uses it, in small and in large batches.
pub(crate) fn run(options: &Options) -> Result<(Totals, Told)> {
    let world = World::start(&options.dir.join("faults"), &options.program, options.seed, SMALL)?;
    let mut random = Random::new(options.seed, 0xfa17);
    let (mut totals, mut told) = (Totals::default(), Told::new());
    for settings in [SINGLE, WHOLE] {
        world.begin(settings, Faults::none())?;
        let (_, calls) = traced(&world, &[]).context("a traced run without a failure")?;
        // What no step of ours stands for, or what needs two failures: the free space, and links in place of renames.
        let mut cases = vec![vec![vec![format!("statfs:error=EIO:when={}", 1 + random.below(3))]]];
        cases.push(vec![vec!["renameat2:error=EINVAL".into()]]);
        for error in ["EIO", "ENOSPC"] {
            let failure = format!("linkat:error={error}:when={}", 1 + random.below(3));
            cases.push(vec![vec!["renameat2:error=EINVAL".into(), failure]]);
        }
        for places in places(&calls).values() {
            // Threads share the work anew in each run, so that it takes some tries to hit a call of ours.
            let tries: Vec<_> = choose(places, TRIES, &mut random)
                .into_iter()
                .filter_map(|(call, place)| {
                    let (_, errors) = FAILURES.iter().find(|(name, _)| *name == call)?;
                    Some(vec![format!("{call}:error={}:when={place}", random.pick(errors))])
                })
                .collect();
            cases.push(tries);
        }
        for tries in cases {
            for case in tries {
                world.begin(settings, Faults::none())?;
                let context = || format!("{settings:?}, {case:?}");
                if one_case(&world, &case, &mut totals, &mut told).with_context(context)? {
                    break;
                }
            }
        }
    }
    // Each kind of call has to have failed at least once.
    let missed = |call: &str| !told.keys().any(|told| told.starts_with(&format!("{call} ")));
    if let Some((call, _)) = FAILURES.iter().find(|(call, _)| missed(call)) {
        bail!("no {call} was made to fail; this test has lost its grip");
    }
    Ok((totals, told))
}

/// One run with failures, and the next. Gives whether a step of ours was hit.
fn one_case(world: &World, injections: &[String], totals: &mut Totals, told: &mut Told) -> Result<bool> {
    let mut life = Life::default();
    let (ran, calls) = traced(world, injections)?;
    let mut findings = Vec::new();
    let hit = calls.iter().rfind(|call| call.injected);
    let is_ours = hit.and_then(trace::step).is_some();
    // The runtime's own wake-up calls are writes, too; without them it cannot but fall over. Each thread has its own
    // K-th call, so one of them may be hit beside one of ours.
    let is_wake_up = calls.iter().any(|call| call.injected && trace::step(call).is_none());
    if ran.stderr.contains("failed to wake") || (is_wake_up && ran.hung) {
        return Ok(false);
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
    if let Some(call) = hit {
        let error = injections.last().map_or("", String::as_str);
        let error = error.split(':').find_map(|part| part.strip_prefix("error=")).unwrap_or_default();
        let step = trace::step(call).unwrap_or_else(|| format!("{} elsewhere", call.name));
        *told.entry(format!("{} {error} at \"{step}\": {text}", call.name)).or_default() += 1;
    }
    life.after_failure(world)?;
    world.runtime.block_on(catalog::let_time_pass(&world.archive().join(".jellyjar")))?;
    life.complete(world, &world.run(&[])?, totals).context("the next run")?;
    Ok(is_ours)
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
