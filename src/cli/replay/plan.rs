//! `jellyjar replay --dry-run`: what a replay would fetch, skip and know.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use serde::Serialize;

use super::{Readers, read_all, source_of};
use crate::catalog::State;
use crate::cli::receipt::{Input, number, size};
use crate::cli::session::View;
use crate::cli::{DONE, Global, INCOMPLETE, output};
use crate::clock::Clock;
use crate::config::Loaded;
use crate::ingest::{Forecast, forecast};
use crate::source;

/// What a replay would do.
#[derive(Debug, Default, Serialize)]
struct Plan {
    dry_run: bool,
    #[serde(flatten)]
    input: Input,
    attachments: u64,
    /// To be fetched.
    fetch: u64,
    /// Their declared sizes together.
    fetch_bytes: u64,
    /// Those of them whose size is not declared.
    unknown_size: u64,
    api_requests: u64,
    known: u64,
    /// Skipped by a rule, by this run or before.
    skipped: u64,
    skipped_by_rule: BTreeMap<String, u64>,
    failed: u64,
    quarantined: u64,
    erased: u64,
    elapsed_seconds: f64,
    ok: bool,
}

/// Tells what a replay would do.
pub(super) async fn dry_run(inputs: Vec<source::Input>, loaded: Loaded, global: &Global) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let view = View::open(global, loaded).await?;
    let mut found = Forecast::default();
    let mut plan = Plan { dry_run: true, ..Plan::default() };
    let readers =
        Readers { teams: view.teams.clone(), team_name: view.team_name.clone(), clock: Clock::system(), texts: None };
    let mut batches = read_all(inputs, source_of(&view.config), readers);
    while let Some(batch) = batches.recv().await {
        plan.input.payloads += batch.payloads;
        plan.input.ignored += batch.ignored;
        plan.input.rejected += batch.rejects.len() as u64;
        for reject in &batch.rejects {
            tracing::warn!("rejected: {}: {}", reject.position, reject.reason);
        }
        for (name, prepared) in batch.teams {
            if let Some(team) = view.teams.get(&name) {
                forecast(view.catalog.as_deref(), team, &prepared, &mut found).await?;
            }
        }
    }
    plan.fetch = found.fetch.len() as u64;
    plan.fetch_bytes = found.fetch.values().flatten().sum();
    plan.unknown_size = found.fetch.values().filter(|size| size.is_none()).count() as u64;
    plan.api_requests = plan.fetch;
    for rule in found.skip.values() {
        plan.skipped += 1;
        *plan.skipped_by_rule.entry(rule.clone()).or_default() += 1;
    }
    for state in found.placed.values() {
        match state {
            State::Archived => plan.known += 1,
            State::Skipped => plan.skipped += 1,
            State::Failed => plan.failed += 1,
            State::Quarantined => plan.quarantined += 1,
            State::Erased => plan.erased += 1,
            State::Pending => {}
        }
    }
    plan.attachments = plan.fetch + plan.known + plan.skipped + plan.failed + plan.quarantined + plan.erased;
    plan.elapsed_seconds = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    plan.ok = plan.input.rejected == 0;
    if global.json {
        output::json(&plan);
    } else {
        output::line(plan_text(&plan));
    }
    Ok(ExitCode::from(if plan.ok { DONE } else { INCOMPLETE }))
}

fn plan_text(plan: &Plan) -> String {
    let mut lines = vec![
        "Dry run: nothing was asked of Jelly, and nothing was written.".to_owned(),
        format!(
            "{} payloads, {} ignored, {} rejected; {} attachments, of which",
            number(plan.input.payloads),
            number(plan.input.ignored),
            number(plan.input.rejected),
            number(plan.attachments)
        ),
        format!(
            "  {} would be fetched: {} API requests, {} declared{}",
            number(plan.fetch),
            number(plan.api_requests),
            size(plan.fetch_bytes),
            if plan.unknown_size > 0 {
                format!(", {} of unknown size", number(plan.unknown_size))
            } else {
                String::new()
            }
        ),
        format!("  {} are known", number(plan.known)),
        format!("  {} would be skipped", number(plan.skipped)),
    ];
    lines.extend(
        plan.skipped_by_rule
            .iter()
            .map(|(rule, count)| format!("    {} by {}", number(*count), output::printable(rule, 80))),
    );
    for (count, word) in [
        (plan.failed, "failed before (see `jellyjar retry`)"),
        (plan.quarantined, "are quarantined"),
        (plan.erased, "were erased"),
    ] {
        if count > 0 {
            lines.push(format!("  {} {word}", number(count)));
        }
    }
    lines.join("\n")
}
