//! `jellyjar replay`: from saved payloads to an archive.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;

use super::filter_args::FilterArgs;
use super::output;
use super::progress::Expected;
use super::receipt::{Input, Receipt, number, size};
use super::run::Run;
use super::session::{Access, Session, settings};
use super::{DONE, Global, INCOMPLETE};
use crate::audit::{Rechecked, recheck};
use crate::config::SourceConfig;
use crate::ingest::{Forecast, Prepared, by_team};
use crate::model::{Payload, Position, Reject};
use crate::source::{self, Item};
use crate::worker::Ended;

/// The arguments of `jellyjar replay`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar replay dumps/ --archive /srv/archive
  jellyjar replay 'logs/2026-*.jsonl.gz' --archive /srv/archive --dry-run
  zcat hooks.gz | jellyjar replay - --archive /srv/archive --json
  jellyjar replay dumps/ --archive /srv/archive --type application/pdf --since 2026-01-01
  jellyjar replay dumps/ --archive s3://company-mail --check

A payload is a webhook body, an API message, a conversation with its messages, a page of either, or a log
record that carries one. Files may hold one JSON document, JSON Lines, concatenated JSON or an array, each
also gzip- or zstd-compressed; the format is told by content. Replaying the same payloads again costs no
API request.")]
pub(super) struct ReplayArgs {
    /// Files, folders (read recursively), globs, or - for standard input
    #[arg(required = true, value_name = "SOURCE")]
    pub(super) sources: Vec<String>,
    /// Tell what would be fetched, skipped and known, without a request and without writing anything
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Read everything first, and stop before any download if something cannot be read
    #[arg(long)]
    pub(super) strict: bool,
    /// Look whether the bytes of what is known are still there, by their size, and fetch what is not once more
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) check: bool,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
}

/// What one message of the reading thread carries.
#[derive(Debug, Default)]
struct Batch {
    payloads: Vec<Payload>,
    ignored: u64,
    rejects: Vec<Reject>,
    attachments: usize,
}

/// A batch is full with this many payloads, or this many attachments.
const BATCH_PAYLOADS: usize = 2_000;
const BATCH_ATTACHMENTS: usize = 4_000;

/// Reads all inputs on a thread of its own, which ends when the receiver does. Not on the runtime's: a reader that
/// waits for standard input cannot be ended.
fn read_all(inputs: Vec<source::Input>, config: SourceConfig) -> mpsc::Receiver<Batch> {
    let (sender, receiver) = mpsc::channel::<Batch>(1);
    std::thread::spawn(move || {
        let mut batch = Batch::default();
        for input in &inputs {
            let flow = source::read(input, &config, &mut |item| {
                match item {
                    Item::Payload(mut payload) => {
                        let bad = std::mem::take(&mut payload.bad_attachments);
                        batch.rejects.extend(bad.into_iter().map(|reason| reject_at(&payload.position, reason)));
                        batch.attachments +=
                            payload.messages.iter().map(|message| message.attachments.len()).sum::<usize>();
                        batch.payloads.push(payload);
                    }
                    Item::Ignored(_) => batch.ignored += 1,
                    Item::Rejected(reject) => batch.rejects.push(reject),
                }
                let full = batch.payloads.len() >= BATCH_PAYLOADS
                    || batch.attachments >= BATCH_ATTACHMENTS
                    || batch.rejects.len() >= BATCH_PAYLOADS
                    || batch.ignored >= 100_000;
                // While nobody has anything to do, a small batch now is better than a full one later.
                let idle = batch.payloads.len() >= 64 && sender.capacity() == sender.max_capacity();
                if (full || idle) && sender.blocking_send(std::mem::take(&mut batch)).is_err() {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            if flow.is_break() {
                return;
            }
        }
        let _ = sender.blocking_send(batch);
    });
    receiver
}

fn reject_at(position: &Position, reason: String) -> Reject {
    Reject { position: position.clone(), reason, excerpt: String::new() }
}

/// Sorts a batch by team. What names a team that is not configured for this archive is rejected, with its place.
fn sort_by_team(session: &Session, batch: &mut Batch) -> Vec<(String, Vec<crate::model::Message>)> {
    let (known, unknown): (Vec<_>, Vec<_>) = std::mem::take(&mut batch.payloads)
        .into_iter()
        .partition(|payload| payload.team.as_deref().is_none_or(|team| session.teams.contains_key(team)));
    for payload in unknown {
        let reason = format!(
            "it belongs to team {:?}, which is not configured for this archive; add [teams.…] or replay it elsewhere",
            payload.team.unwrap_or_default()
        );
        batch.rejects.push(reject_at(&payload.position, reason));
    }
    by_team(known, &session.team_name)
}

/// Runs the command.
pub(super) async fn run(args: ReplayArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let mut loaded = settings(&global.overrides(args.dry_run))?;
    args.filter.apply_to(&mut loaded);
    let inputs = source::resolve(&args.sources)?;
    if args.dry_run {
        return dry_run(inputs, loaded, global).await;
    }
    // Before an archive is made for nothing.
    super::session::require_token(global, &loaded.config)?;
    let session = Arc::new(Session::open(global, loaded, true).await?);
    let access = Arc::new(Access::open(&session).await?);
    let receipt =
        replay(session, access, inputs, Care { strict: args.strict, check: args.check }, global.quiet).await?;
    receipt.print(global.json);
    Ok(ExitCode::from(receipt.exit_code()))
}

/// What a replay does beyond the usual.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Care {
    /// Reads everything first, and fetches nothing if something cannot be read.
    pub(super) strict: bool,
    /// Looks whether what is known is still there.
    pub(super) check: bool,
}

/// Replays inputs into an open archive.
pub(super) async fn replay(
    session: Arc<Session>,
    access: Arc<Access>,
    inputs: Vec<source::Input>,
    care: Care,
    quiet: bool,
) -> anyhow::Result<Receipt> {
    session.reload().await?;
    let run = Run::new(Arc::clone(&session), access);
    let batches = read_all(inputs, session.config.source.clone());
    let mut input = Input::default();
    let mut rechecked = None;
    let (taken, outcome) = if care.strict {
        let taken = take_in(&session, &run, batches, &mut input, care, &mut rechecked).await;
        if taken.is_ok() && input.rejected > 0 {
            let mut receipt = run.receipt(input, Ok(Ended::Done)).await;
            receipt.notes.push("--strict: something could not be read, so nothing was fetched".into());
            return Ok(receipt);
        }
        let outcome = if taken.is_ok() { run.finish(quiet).await } else { Ok(Ended::Stopped) };
        (taken, outcome)
    } else {
        // If one of the two breaks off, the other finishes or releases what is in flight.
        let taking = async {
            let taken = take_in(&session, &run, batches, &mut input, care, &mut rechecked).await;
            if taken.is_err() {
                run.signals.stop.set();
            }
            taken
        };
        let working = async {
            let outcome = run.finish(quiet).await;
            if outcome.is_err() {
                run.signals.stop.set();
            }
            outcome
        };
        tokio::join!(taking, working)
    };
    let mut receipt = run.receipt(input, taken.and(outcome)).await;
    receipt.check = rechecked;
    Ok(receipt)
}

/// A batch that is judged: what was read of it, what could not be, and its messages by the team's name.
struct Judged {
    input: Input,
    rejects: Vec<Reject>,
    teams: Vec<(String, Prepared)>,
}

/// Takes in everything that is read, until the end or a stop. A batch is judged while the catalog deals with the one
/// before it.
async fn take_in(
    session: &Session,
    run: &Run,
    batches: mpsc::Receiver<Batch>,
    input: &mut Input,
    care: Care,
    rechecked: &mut Option<Rechecked>,
) -> anyhow::Result<()> {
    let (sender, mut receiver) = mpsc::channel::<Judged>(1);
    let told = &mut *input;
    let taking = async move {
        while let Some(batch) = receiver.recv().await {
            *told = batch.input;
            let expected: &Expected = &run.expected;
            expected.payloads.store(told.payloads, Ordering::Relaxed);
            session.intake.keep_rejects(&batch.rejects).await?;
            for (name, prepared) in batch.teams {
                if let Some(team) = session.teams.get(&name) {
                    let taken = session.intake.take(team, prepared).await?;
                    expected.attachments.fetch_add(taken.enqueued, Ordering::Relaxed);
                    if taken.enqueued > 0 {
                        run.signals.work.notify_one();
                    }
                }
            }
        }
        anyhow::Ok(())
    };
    let (taken, ()) = tokio::join!(taking, judge(session, run, batches, sender));
    taken?;
    if care.check && !(care.strict && input.rejected > 0) {
        let subject = session.subject();
        let requeued = || {
            run.expected.attachments.fetch_add(1, Ordering::Relaxed);
            run.signals.work.notify_one();
        };
        tokio::select! {
            biased;
            () = run.signals.stop.wait() => {}
            done = recheck(&subject, rechecked.insert(Rechecked::default()), requeued) => done?,
        }
    }
    run.signals.input_ended.set();
    Ok(())
}

/// Judges batches as they are read, until the end, a stop, or nobody takes them any more.
async fn judge(session: &Session, run: &Run, mut batches: mpsc::Receiver<Batch>, sender: mpsc::Sender<Judged>) {
    let mut input = Input::default();
    loop {
        let batch = tokio::select! {
            biased;
            () = run.signals.stop.wait() => None,
            batch = batches.recv() => batch,
        };
        let Some(mut batch) = batch else { return };
        input.payloads += count(batch.payloads.len());
        input.ignored += batch.ignored;
        let teams = sort_by_team(session, &mut batch);
        input.rejected += count(batch.rejects.len());
        let prepare = |(name, messages)| {
            let team = session.teams.get(&name)?;
            let prepared = session.intake.prepare(team, messages);
            Some((name, prepared))
        };
        let teams = teams.into_iter().filter_map(prepare).collect();
        if sender.send(Judged { input, rejects: batch.rejects, teams }).await.is_err() {
            return;
        }
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

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

async fn dry_run(
    inputs: Vec<source::Input>,
    loaded: crate::config::Loaded,
    global: &Global,
) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let view = super::session::View::open(global, loaded).await?;
    let mut forecast = Forecast::default();
    let mut plan = Plan { dry_run: true, ..Plan::default() };
    let mut batches = read_all(inputs, view.config.source.clone());
    while let Some(mut batch) = batches.recv().await {
        plan.input.payloads += count(batch.payloads.len());
        plan.input.ignored += batch.ignored;
        plan.input.rejected += count(batch.rejects.len());
        for reject in &batch.rejects {
            tracing::warn!("rejected: {}: {}", reject.position, reject.reason);
        }
        for (name, messages) in by_team(std::mem::take(&mut batch.payloads), &view.team_name) {
            match view.teams.get(&name) {
                Some(team) => crate::ingest::forecast(view.catalog.as_deref(), team, messages, &mut forecast).await?,
                None => plan.input.rejected += 1,
            }
        }
    }
    plan.fetch = count(forecast.fetch.len());
    plan.fetch_bytes = forecast.fetch.values().flatten().sum();
    plan.unknown_size = count(forecast.fetch.values().filter(|size| size.is_none()).count());
    plan.api_requests = plan.fetch;
    for rule in forecast.skip.values() {
        plan.skipped += 1;
        *plan.skipped_by_rule.entry(rule.clone()).or_default() += 1;
    }
    for state in forecast.placed.values() {
        use crate::catalog::State;
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
