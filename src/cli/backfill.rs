//! `jellyjar backfill`: from what Jelly has to an archive.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;
use serde::Serialize;

use super::fleet;
use super::pause::held_note;
use super::receipt::{Input, Receipt, number};
use super::run::Run;
use super::session::{Access, Session, settings};
use super::{DONE, Global, INCOMPLETE, UsageError, output};
use crate::catalog::{Walk, WalkPhase, WalkRow, WalkWish};
use crate::config::values;
use crate::jelly::{Id, JellyClient};
use crate::walk::{Asker, Counts, Filters, WalkError, Walker, begin_backfill, find_backfill};
use crate::worker::Signal;

/// How often is looked how far another process is.
const FOLLOW_EVERY: Duration = Duration::from_millis(300);

/// What is said where nobody asks for the walk any more.
const STOPPED_ELSEWHERE: &str = "it was stopped by another command, or given up by the service, whose log tells why";

/// The arguments of `jellyjar backfill`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar backfill --archive /srv/archive --estimate     what it would take
  jellyjar backfill --archive /srv/archive
  jellyjar backfill --archive /srv/archive --since 2026-01-01 --mailbox support
  jellyjar backfill --archive /srv/archive --json

It lists all conversations (one request for each 100), then reads the messages of those with attachments, and archives \
what the rules accept. Beside `jellyjar serve` the service does the work, and this command shows how far it is. Stop it \
as you like: the same command goes on where it was. What is archived costs no further request.")]
pub(super) struct BackfillArgs {
    /// Tell what it would take, after listing, and stop there
    #[arg(long)]
    estimate: bool,
    /// Only conversations in which something happened at or after this date (midnight UTC) or time
    #[arg(long, value_name = "DATE", value_parser = values::parse_moment)]
    since: Option<Timestamp>,
    /// Only conversations with this label, by name or id
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// Only conversations in this mailbox, by name, address or id
    #[arg(long, value_name = "MAILBOX")]
    mailbox: Option<String>,
    /// Only conversations of this status
    #[arg(long, value_name = "STATUS", value_parser = PossibleValuesParser::new(["open", "archived", "snoozed", "spam", "trash"]))]
    status: Option<String>,
    /// Begin anew, though a backfill with the same filters could be gone on with
    #[arg(long)]
    restart: bool,
    /// List everything twice, so that what vanishes meanwhile can hide nothing
    #[arg(long)]
    thorough: bool,
}

/// Makes the walker of a team; `None` where it has no token.
pub(super) fn walker(
    session: &Session,
    access: &Access,
    name: &str,
    patience: Option<Duration>,
    enqueued: Arc<dyn Fn(u64) + Send + Sync>,
) -> Option<Walker> {
    let team = session.teams.get(name)?.clone();
    let own = access.teams.get(&team.row)?;
    let catalog = Arc::clone(&session.catalog);
    Some(Walker {
        asker: Asker::new(own, Arc::clone(&access.holds), Arc::clone(&catalog), session.clock.clone(), patience),
        catalog,
        intake: Arc::clone(&session.intake),
        team,
        clock: session.clock.clone(),
        source: session.config.source.clone(),
        max_pending: session.config.backfill.max_pending,
        enqueued,
    })
}

/// Runs the command.
pub(super) async fn run(args: BackfillArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let loaded = settings(&global.overrides(false))?;
    super::session::require_token(global, &loaded.config)?;
    let session = Arc::new(Session::open(global, loaded, true).await?);
    let access = Arc::new(Access::open(&session).await?);
    session.reload().await?;
    let name = session.team_name.clone();
    let run = Run::new(Arc::clone(&session), Arc::clone(&access));
    let (work, expected) = (Arc::clone(&run.signals.work), Arc::clone(&run.expected));
    let enqueued = Arc::new(move |count| {
        expected.attachments.fetch_add(count, Ordering::Relaxed);
        work.notify_one();
    });
    let patience = Some(session.config.worker.max_wait);
    let walker = walker(&session, &access, &name, patience, enqueued).context("the team has no API token")?;
    let filters = filters(&args, &access.teams[&walker.team.row].client).await?;
    let wish = if args.estimate { WalkWish::Listing } else { WalkWish::All };
    let row = ask_for(&session, &walker, &args, &filters, wish).await?;
    if args.estimate {
        return estimate(&session, &access, &walker, row, &run, global).await;
    }

    let walking = async {
        let walked = walk(&run, &walker, row).await;
        if !matches!(walked, Ok(true)) {
            run.signals.stop.set();
        }
        session.catalog.see_walk(row).await?;
        run.signals.input_ended.set();
        walked
    };
    let working = async {
        let outcome = run.finish(global.quiet).await;
        if outcome.is_err() {
            run.signals.stop.set();
        }
        outcome
    };
    let (walked, outcome) = tokio::join!(walking, working);
    let counts = Counts::of(&session.catalog.walk(row).await?);
    let input = Input { payloads: counts.messages, ignored: 0, rejected: counts.unreadable };
    let mut receipt = finish(&run, input, walked, outcome).await;
    receipt.walk = Some(counts);
    if counts.failed > 0 {
        receipt.notes.push(format!("{} conversations could not be read; run the same command again", counts.failed));
        receipt.ok = false;
    }
    if counts.is_unsettled {
        let text = "Jelly's list of conversations never came to rest; run the same command again at a quieter time";
        receipt.notes.push(text.into());
        receipt.ok = false;
    }
    receipt.print(global.json);
    Ok(ExitCode::from(receipt.exit_code()))
}

/// Makes the receipt, whichever of the two broke off.
async fn finish(
    run: &Run,
    input: Input,
    walked: anyhow::Result<bool>,
    outcome: anyhow::Result<crate::worker::Ended>,
) -> Receipt {
    let (refused, held) = match walked.as_ref().err().and_then(|error| error.downcast_ref::<WalkError>()) {
        Some(error @ WalkError::Held(pause)) => (error.is_refused(), Some(pause.clone())),
        _ => (false, None),
    };
    let stopped = matches!(outcome, Ok(crate::worker::Ended::Stopped));
    let outcome = match (&walked, outcome) {
        // It was this that stopped the rest, and is told below.
        (Err(_), Ok(_)) => Ok(crate::worker::Ended::Done),
        (_, outcome) => outcome,
    };
    let mut receipt = run.receipt(input, outcome).await;
    match (walked, held) {
        (Err(_), Some(pause)) => {
            receipt.token_refused |= refused;
            let after = if refused { "" } else { "; run the same command then" };
            receipt.notes.push(held_note(&pause) + after);
        }
        (Err(error), None) => receipt.notes.push(format!("the backfill broke off: {error:#}")),
        (Ok(false), _) => receipt.interrupted |= stopped,
        (Ok(true), _) => {}
    }
    receipt.ok &= receipt.notes.is_empty() && !receipt.interrupted && !receipt.token_refused;
    receipt
}

/// Finds the walk of these filters, or begins it, and asks for it.
async fn ask_for(
    session: &Session,
    walker: &Walker,
    args: &BackfillArgs,
    filters: &Filters,
    wish: WalkWish,
) -> anyhow::Result<WalkRow> {
    let (catalog, team) = (&session.catalog, &walker.team);
    let known = find_backfill(catalog, team, filters).await?;
    if let Some(walk) = known.filter(|walk| walk.phase != WalkPhase::Done && !args.restart) {
        tracing::info!("going on with the backfill that was begun before ({})", walk.phase.as_str());
        catalog.want_walk(walk.row, wish).await?;
        return Ok(walk.row);
    }
    Ok(begin_backfill(catalog, team, filters, args.thorough, wish, session.clock.now_ms()).await?)
}

/// Walks, or follows another process that does, to the end; `false` if it was stopped before.
async fn walk(run: &Run, walker: &Walker, row: WalkRow) -> anyhow::Result<bool> {
    let catalog = &walker.catalog;
    let showing = async {
        loop {
            let walk = catalog.walk(row).await?;
            run.expected.payloads.store(shown(&walk), Ordering::Relaxed);
            *run.expected.stage.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = stage(&walk);
            if walk.phase == WalkPhase::Done {
                return Ok(true);
            }
            if walk.wish == WalkWish::Nothing {
                anyhow::bail!(STOPPED_ELSEWHERE);
            }
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    };
    let leading = async {
        run.leading.wait().await;
        fleet::lead_walks(&run.session).await?;
        // Its end is seen in the catalog, as others see it.
        match walker.backfill(row).await {
            Ok(()) => std::future::pending().await,
            Err(error) => Err(anyhow::Error::from(error)),
        }
    };
    let walked = tokio::select! {
        biased;
        () = run.signals.stop.wait() => Ok(false),
        walked = showing => walked,
        failed = leading => failed,
    };
    if !matches!(walked, Ok(true)) {
        // It is kept, and not gone on with by a service in the meantime.
        catalog.want_walk(row, WalkWish::Nothing).await?;
    }
    walked
}

/// What progress counts.
fn shown(walk: &Walk) -> u64 {
    let counts = Counts::of(walk);
    counts.entries.max(counts.messages)
}

/// How far a walk is, in words.
fn stage(walk: &Walk) -> String {
    let counts = Counts::of(walk);
    match walk.phase {
        WalkPhase::Listing => format!("{} conversations listed", number(counts.entries)),
        WalkPhase::Listed | WalkPhase::Reading => {
            format!("{} of {} conversations read", number(counts.read), number(counts.to_read))
        }
        WalkPhase::Done => String::new(),
    }
}

/// The filters, with names looked up.
async fn filters(args: &BackfillArgs, client: &JellyClient) -> anyhow::Result<Filters> {
    let mut filters = Filters { status: args.status.clone(), since: args.since, ..Filters::default() };
    if let Some(wanted) = &args.label {
        let labels = client.labels().await?;
        let known = labels.iter().filter_map(|label| Some((label.id.as_ref()?, vec![label.name.as_deref()?])));
        filters.label_id = Some(look_up("label", wanted, &known.collect::<Vec<_>>())?);
    }
    if let Some(wanted) = &args.mailbox {
        let mailboxes = client.mailboxes().await?;
        let names = |name: &Option<String>, email: &Option<String>| {
            [name.clone(), email.clone()].into_iter().flatten().collect::<Vec<_>>()
        };
        let named: Vec<_> = mailboxes.iter().map(|one| (&one.id, names(&one.name, &one.email))).collect();
        let known = named.iter().map(|(id, names)| (*id, names.iter().map(String::as_str).collect()));
        filters.mailbox_id = Some(look_up("mailbox", wanted, &known.collect::<Vec<_>>())?);
    }
    Ok(filters)
}

/// The id of what is named so, in any case, or has this id.
fn look_up(what: &str, wanted: &str, known: &[(&Id, Vec<&str>)]) -> anyhow::Result<String> {
    let is_named = |names: &[&str]| names.iter().any(|name| name.to_lowercase() == wanted.to_lowercase());
    let found =
        known.iter().find(|(_, names)| is_named(names)).or_else(|| known.iter().find(|(id, _)| id.as_str() == wanted));
    match found {
        Some((id, _)) => Ok(id.as_str().to_owned()),
        None => {
            let name = |names: &Vec<&str>| names.first().map(|name| output::printable(name, 60));
            let names: Vec<String> = known.iter().filter_map(|(_, names)| name(names)).collect();
            Err(UsageError(format!("Jelly has no {what} {wanted:?}; there are: {}", names.join(", "))).into())
        }
    }
}

/// What a backfill would take.
#[derive(Debug, Serialize)]
struct Estimate {
    #[serde(rename = "estimate")]
    nothing_read: bool,
    #[serde(flatten)]
    counts: Counts,
    /// Attachments to fetch, at most: the rules may skip some.
    attachments: u64,
    /// Pages of messages, and exchanges.
    requests: u64,
    /// At least, at the pace that the quota leaves to bulk work.
    seconds: u64,
    ok: bool,
}

/// Lists, and tells what is before it.
async fn estimate(
    session: &Session,
    access: &Access,
    walker: &Walker,
    row: WalkRow,
    run: &Run,
    global: &Global,
) -> anyhow::Result<ExitCode> {
    let has_ended = |walk: &Walk| !matches!(walk.phase, WalkPhase::Listing);
    let mut lead: Option<Signal> = None;
    let listed = loop {
        let walk = session.catalog.walk(row).await?;
        if has_ended(&walk) {
            break walk;
        }
        if walk.wish == WalkWish::Nothing {
            anyhow::bail!(STOPPED_ELSEWHERE);
        }
        let lock = session.catalog.try_worker_lock().await.context("cannot lock the catalog")?;
        if lock.is_some() && session.catalog.try_walk_lock(session.archive_row).await? {
            let done = tokio::select! {
                done = walker.estimate(row) => Some(done),
                () = run.signals.stop.wait() => None,
            };
            access.give_back(true).await?;
            match done {
                Some(done) => done?,
                None => return stopped(walker, row).await,
            }
        } else {
            if lead.replace(Signal::default()).is_none() {
                tracing::info!("another jellyjar works on this archive; following it");
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
                () = run.signals.stop.wait() => return stopped(walker, row).await,
            }
        }
    };
    let counts = Counts::of(&listed);
    let attachments = counts.listed_attachments.saturating_sub(counts.known_attachments);
    let requests = counts.pages + attachments;
    let quota = access.teams.get(&walker.team.row).map(|team| team.client.quota().bulk_time(requests));
    let seconds = quota.unwrap_or_default().as_secs();
    let estimate = Estimate { nothing_read: true, counts, attachments, requests, seconds, ok: !counts.is_unsettled };
    if global.json {
        output::json(&estimate);
    } else {
        output::line(estimate_text(&estimate));
    }
    Ok(ExitCode::from(if estimate.ok { DONE } else { INCOMPLETE }))
}

async fn stopped(walker: &Walker, row: WalkRow) -> anyhow::Result<ExitCode> {
    walker.catalog.unwant_listing(row).await?;
    output::note("Interrupted. Nothing is lost: run the same command again to go on.");
    Ok(ExitCode::from(super::INTERRUPTED))
}

fn estimate_text(estimate: &Estimate) -> String {
    let counts = &estimate.counts;
    let time = if estimate.seconds == 0 {
        "no limit holds it up".to_owned()
    } else {
        format!("at least {}", values::format_duration(Duration::from_secs(estimate.seconds)))
    };
    format!(
        "{} conversations were listed with {} requests; {} of them have, or may have, attachments.\n\
         To read: {} conversations, {} pages of messages.\n\
         Attachments: {}, of which {} are known.\n\
         That takes up to {} requests: {time}.\n\
         Nothing was fetched. The same command without --estimate goes on from here.",
        number(counts.listed),
        number(counts.list_requests),
        number(counts.conversations),
        number(counts.to_read),
        number(counts.pages),
        number(counts.listed_attachments),
        number(counts.known_attachments),
        number(estimate.requests),
    )
}
