//! `jellyjar refilter`: judges by the rules of today what was skipped by those of yesterday, and fetches what they accept.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::filter_args::FilterArgs;
use super::receipt::{Input, Receipt, number, size};
use super::run::Run;
use super::session::{Access, Session, require_token, settings};
use super::{DONE, Global, output};
use crate::catalog::Judged;
use crate::ingest::Team;
use crate::model::TeamKey;

/// The arguments of `jellyjar refilter`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar refilter --archive /srv/archive --dry-run               what the rules of now would fetch
  jellyjar refilter --archive /srv/archive                         fetch it
  jellyjar refilter --archive /srv/archive --inline keep-non-images --type application/pdf

The rules are those of the configuration, with the flags in their place, as for `jellyjar replay`. They are \
held against every message that the archive's journal has; no dump is needed. What is accepted now is fetched \
by its stable id: one API request each. What is archived stays archived, whatever the rules say.")]
pub(super) struct RefilterArgs {
    /// Tell what would be fetched, without a request and without a change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Debug, Serialize)]
struct Plan {
    dry_run: bool,
    messages: u64,
    #[serde(flatten)]
    judged: Judged,
    api_requests: u64,
    ok: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    #[serde(flatten)]
    receipt: Receipt,
    refilter: Judged,
}

/// Runs the command.
pub(super) async fn run(args: RefilterArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let mut loaded = settings(&global.overrides(args.dry_run))?;
    args.filter.apply_to(&mut loaded);
    if !args.dry_run {
        require_token(global, &loaded.config)?;
    }
    let session = Arc::new(Session::open(global, loaded, false).await?);
    session.reload().await?;
    if args.dry_run {
        let (messages, judged) = judge(&session, None).await?;
        let plan = Plan { dry_run: true, messages, judged, api_requests: judged.accepted, ok: true };
        if global.json {
            output::json(&plan);
        } else {
            output::line(format!(
                "Dry run: nothing was asked of Jelly, and nothing was changed.\n{}",
                text(&judged, "would be fetched")
            ));
        }
        return Ok(ExitCode::from(DONE));
    }
    let access = Arc::new(Access::open(&session).await?);
    let (_, judged) = judge(&session, Some(&access)).await?;
    let run = Run::new(Arc::clone(&session), access);
    let enqueued = session.catalog.enqueue_accepted().await?;
    run.expected.attachments.store(enqueued, Ordering::Relaxed);
    run.signals.input_ended.set();
    let outcome = run.finish(global.quiet).await;
    let receipt = run.receipt(Input::default(), outcome).await;
    let code = receipt.exit_code();
    if global.json {
        output::json(&Answer { receipt, refilter: judged });
    } else {
        output::line(format!("{}\n", text(&judged, "to be fetched")));
        receipt.print(false);
    }
    Ok(ExitCode::from(code))
}

/// Holds the rules of the configured teams against the journal. With `access`, teams without a token are left alone:
/// nothing of theirs can be fetched.
async fn judge(session: &Session, access: Option<&Access>) -> anyhow::Result<(u64, Judged)> {
    let mut teams: BTreeMap<TeamKey, Team> = BTreeMap::new();
    for (name, team) in &session.teams {
        if access.is_none_or(|access| access.teams.contains_key(&team.row)) {
            teams.insert(team.key.clone(), team.clone());
        } else {
            tracing::warn!("team {name} is left alone: it has no token here");
        }
    }
    let rules = move |key: &TeamKey| teams.get(key).cloned();
    let messages = session.intake.judge(&rules).await.context("cannot judge what the journal holds")?;
    Ok((messages, session.catalog.judged().await?))
}

fn text(judged: &Judged, fate: &str) -> String {
    let mut lines = Vec::new();
    if judged.accepted == 0 {
        lines.push("The rules accept nothing that was skipped.".to_owned());
    } else {
        let unknown = match judged.unknown_size {
            0 => String::new(),
            count => format!(", {} of unknown size", number(count)),
        };
        lines.push(format!(
            "{} that were skipped are accepted now, and {fate}: {} API requests, {} declared{unknown}.",
            number(judged.accepted),
            number(judged.accepted),
            size(judged.accepted_bytes)
        ));
    }
    if judged.still_skipped > 0 {
        lines.push(format!("{} stay skipped.", number(judged.still_skipped)));
    }
    if judged.archived_against_rules > 0 {
        lines.push(format!(
            "{} that are archived would be skipped by these rules; they stay archived.",
            number(judged.archived_against_rules)
        ));
    }
    lines.join("\n")
}
