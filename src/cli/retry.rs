//! `jellyjar retry`: tries again what failed, and finishes what is pending.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use clap::Args;

use super::look::find_all;
use super::output;
use super::receipt::Input;
use super::run::Run;
use super::session::{Access, Session, settings};
use super::{Global, UsageError};
use crate::catalog::State;

/// The arguments of `jellyjar retry`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar retry --archive /srv/archive                  all that failed, and all that is pending
  jellyjar retry --archive /srv/archive k3jx4… m7q2a…    only these
  jellyjar retry --archive /srv/archive --quarantined    fetch what is quarantined again

Each attachment costs an API request and has all its attempts ahead again.")]
pub(super) struct RetryArgs {
    /// Short ids or SHA-256 sums, or the beginnings of them
    #[arg(value_name = "ID", conflicts_with_all = ["failed", "quarantined"])]
    ids: Vec<String>,
    /// Only what failed
    #[arg(long)]
    failed: bool,
    /// Only what is quarantined
    #[arg(long)]
    quarantined: bool,
}

/// Runs the command.
pub(super) async fn run(args: RetryArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let session = Arc::new(Session::open(global, settings(&global.overrides(false))?, false).await?);
    session.reload().await?;
    let access = Arc::new(Access::open(&session).await?);
    let rows = choose(&args, &session, &access).await?;
    let run = Run::new(Arc::clone(&session), access);
    session.catalog.requeue(&rows).await?;
    run.expected.attachments.store(u64::try_from(rows.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
    run.signals.input_ended.set();
    let outcome = run.finish(global.quiet).await;
    let receipt = run.receipt(Input::default(), outcome).await;
    if !global.json && !global.quiet && rows.is_empty() {
        output::note("Nothing failed, and nothing is pending.");
    }
    receipt.print(global.json);
    Ok(ExitCode::from(receipt.exit_code()))
}

/// The rows of what is to be tried.
async fn choose(args: &RetryArgs, session: &Session, access: &Access) -> anyhow::Result<Vec<i64>> {
    const WANTED: [State; 3] = [State::Failed, State::Quarantined, State::Pending];
    if !args.ids.is_empty() {
        let (rows, elsewhere) = find_all(session, &args.ids, &WANTED).await?;
        if let Some(row) = elsewhere.first() {
            return Err(UsageError(format!(
                "{} is {}; only what failed, is quarantined or pending can be tried again",
                row.id,
                row.state.as_str()
            ))
            .into());
        }
        let reachable = |team: &str| access.teams.values().any(|access| access.key.as_str() == team);
        if let Some(row) = rows.iter().find(|row| !reachable(&row.team)) {
            return Err(UsageError(format!("{} belongs to team {}, which has no token here", row.id, row.team)).into());
        }
        return Ok(rows.iter().map(|row| row.row).collect());
    }
    let states: &[State] = match (args.failed, args.quarantined) {
        (false, false) => &[State::Failed, State::Pending],
        (true, false) => &[State::Failed],
        (false, true) => &[State::Quarantined],
        (true, true) => &[State::Failed, State::Quarantined],
    };
    let mut rows = Vec::new();
    for (team, key) in session.catalog.teams(session.archive_row).await? {
        for state in states {
            let found = session.catalog.rows_in_state(team, *state).await?;
            if access.teams.contains_key(&team) {
                rows.extend(found);
            } else if !found.is_empty() {
                tracing::warn!(
                    "{} {} attachments of team {key} are left alone: it has no token here",
                    found.len(),
                    state.as_str()
                );
            }
        }
    }
    Ok(rows)
}
