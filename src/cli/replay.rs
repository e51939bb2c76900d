//! `jellyjar replay`: from saved payloads to an archive.

mod plan;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Args;
use tokio::sync::mpsc;

use super::Global;
use super::filter_args::FilterArgs;
use super::progress::Expected;
use super::receipt::{Input, Receipt};
use super::run::Run;
use super::session::{Access, Session, settings};
use crate::audit::{Rechecked, recheck};
use crate::clock::Clock;
use crate::config::{Config, SourceConfig};
use crate::ingest::{Prepared, Team, Texts};
use crate::model::{Payload, Reject};
use crate::source::{self, Item, Memory};
use crate::worker::Ended;

/// The arguments of `jellyjar replay`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar replay dumps/ --archive /srv/archive
  jellyjar replay 'logs/2026-*.jsonl.gz' --archive /srv/archive --dry-run
  zcat hooks.gz | jellyjar replay - --archive /srv/archive --json
  jellyjar replay dumps/ --archive /srv/archive --type application/pdf --since 2026-01-01
  jellyjar replay dumps/ --archive s3://company-mail --check

A payload is a webhook body, an API message, a conversation with its messages, a page of either, or a log \
record that carries one. Files may hold one JSON document, JSON Lines, concatenated JSON or an array, each \
also gzip- or zstd-compressed; the format is told by content. Replaying the same payloads again costs no \
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
    payloads: u64,
    /// Those of them that were taken in before.
    known: u64,
    ignored: u64,
    rejects: Vec<Reject>,
    attachments: usize,
    /// The messages, by the name of the team that they belong to.
    teams: Vec<(String, Prepared)>,
}

/// A batch is full with this many payloads, or this many attachments.
const BATCH_PAYLOADS: u64 = 2_000;
const BATCH_ATTACHMENTS: usize = 4_000;

/// What the reading thread must know to make lines of messages.
struct Readers {
    teams: BTreeMap<String, Team>,
    /// The team of what names none.
    team_name: String,
    clock: Clock,
    /// What was taken in before; nothing where it must be looked at again.
    texts: Option<Arc<Texts>>,
}

impl Readers {
    /// Adds a payload. One that names a team that is not configured for this archive is rejected, with its place.
    fn add(&self, payload: &Payload, batch: &mut Batch) {
        batch.payloads += 1;
        batch.rejects.extend(payload.rejects());
        let name = payload.team.as_deref().unwrap_or(&self.team_name);
        let Some(team) = self.teams.get(name) else {
            let reason = format!(
                "it belongs to team {name:?}, which is not configured for this archive; add [teams.…] or replay it \
                 elsewhere"
            );
            return batch.rejects.push(Reject::new(payload.position.clone(), reason));
        };
        let place = batch.teams.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            batch.teams.push((name.to_owned(), Prepared::new(self.clock.now())));
            batch.teams.len() - 1
        });
        batch.attachments += payload.messages.iter().map(|message| message.attachments.len()).sum::<usize>();
        batch.teams[place].1.push(team, payload);
    }
}

/// How payloads are read: any webhook that `serve` accepts has room in its record, as copies of inboxes hold it.
fn source_of(config: &Config) -> SourceConfig {
    let accepted = usize::try_from(config.serve.max_body_bytes).unwrap_or(usize::MAX);
    let bound = |name: &String| source::inbox_line_bound(name, "webhook", accepted);
    let max_record_bytes = config.teams.keys().map(bound).max().unwrap_or_default();
    SourceConfig { max_record_bytes, ..config.source.clone() }
}

/// Reads all inputs on a thread of its own, which ends when the receiver does. Not on the runtime's: a reader that
/// waits for standard input cannot be ended.
fn read_all(inputs: Vec<source::Input>, config: SourceConfig, readers: Readers) -> mpsc::Receiver<Batch> {
    let (sender, receiver) = mpsc::channel::<Batch>(2);
    let mut memory = readers.texts.as_ref().map(Texts::memory);
    std::thread::spawn(move || {
        let mut batch = Batch::default();
        for input in &inputs {
            let memory = memory.as_mut().map(|memory| memory as &mut dyn Memory);
            let flow = source::read(input, &config, memory, &mut |item| {
                match item {
                    Item::Payload(payload) => readers.add(&payload, &mut batch),
                    Item::Known => {
                        batch.payloads += 1;
                        batch.known += 1;
                    }
                    Item::Ignored(_) => batch.ignored += 1,
                    Item::Rejected(reject) => batch.rejects.push(reject),
                }
                let to_take = batch.payloads - batch.known;
                let full = to_take >= BATCH_PAYLOADS
                    || batch.attachments >= BATCH_ATTACHMENTS
                    || batch.rejects.len() as u64 >= BATCH_PAYLOADS
                    || batch.ignored + batch.known >= 20_000;
                // While nobody has anything to do, a small batch now is better than a full one later.
                let idle = to_take >= 64 && sender.capacity() == sender.max_capacity();
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

/// Runs the command.
pub(super) async fn run(args: ReplayArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let mut loaded = settings(&global.overrides(args.dry_run))?;
    args.filter.apply_to(&mut loaded);
    let inputs = source::resolve(&args.sources)?;
    if args.dry_run {
        return Box::pin(plan::dry_run(inputs, loaded, global)).await;
    }
    // Before an archive is made for nothing.
    super::session::require_token(global, &loaded.config)?;
    let session = Arc::new(Session::open(global, loaded, true).await?);
    let access = Arc::new(Access::open(&session).await?);
    let receipt =
        Box::pin(replay(session, access, inputs, Care { strict: args.strict, check: args.check }, global.quiet))
            .await?;
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
    let texts = Arc::new(Texts::new(Arc::clone(&session.catalog), &session.teams, &session.team_name));
    let readers = Readers {
        teams: session.teams.clone(),
        team_name: session.team_name.clone(),
        clock: session.clock.clone(),
        texts: Some(Arc::clone(&texts)),
    };
    let batches = read_all(inputs, source_of(&session.config), readers);
    let mut input = Input::default();
    let mut rechecked = None;
    let (taken, outcome) = if care.strict {
        let taken = take_in(&session, &run, (batches, &texts), &mut input, care, &mut rechecked).await;
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
            let taken = take_in(&session, &run, (batches, &texts), &mut input, care, &mut rechecked).await;
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

/// Takes in everything that is read, until the end or a stop. A batch is read while the catalog deals with the one before
/// it.
async fn take_in(
    session: &Session,
    run: &Run,
    (mut batches, texts): (mpsc::Receiver<Batch>, &Texts),
    input: &mut Input,
    care: Care,
    rechecked: &mut Option<Rechecked>,
) -> anyhow::Result<()> {
    let expected: &Expected = &run.expected;
    loop {
        let batch = tokio::select! {
            biased;
            () = run.signals.stop.wait() => None,
            batch = batches.recv() => batch,
        };
        let Some(batch) = batch else { break };
        input.payloads += batch.payloads;
        input.ignored += batch.ignored;
        input.rejected += batch.rejects.len() as u64;
        expected.payloads.store(input.payloads, Ordering::Relaxed);
        session.intake.keep_rejects(&batch.rejects).await?;
        for (name, prepared) in batch.teams {
            if let Some(team) = session.teams.get(&name) {
                let taken = session.intake.take(team, prepared).await?;
                expected.attachments.fetch_add(taken.enqueued, Ordering::Relaxed);
                if taken.enqueued > 0 {
                    run.signals.work.notify_one();
                }
                texts.remember(team.row, taken.texts).await?;
            }
        }
    }
    drop(batches);
    texts.flush().await?;
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
