//! `jellyjar rebuild`: makes the catalog anew from the archive's journal.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::fleet;
use super::receipt::number;
use super::session::{Session, open_place, settings};
use super::{DONE, Global, UsageError, output};
use crate::audit::{self, Rebuilt};
use crate::catalog::{Catalog, CatalogPlace, StateTotals};
use crate::clock::Clock;

/// The arguments of `jellyjar rebuild`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar rebuild --archive /srv/archive
  jellyjar rebuild --archive /srv/archive --catalog /var/lib/jellyjar

Nothing is asked of Jelly, and nothing in the archive is changed. Every outcome and every link from a message \
to a file comes back; work without an outcome is pending again (`jellyjar retry` finishes it). A catalog that \
SQLite cannot read is moved aside. Interrupted, it is simply run again.")]
pub(super) struct RebuildArgs {}

#[derive(Debug, Serialize)]
struct Answer {
    ok: bool,
    #[serde(flatten)]
    loaded: Rebuilt,
    attachments: u64,
    #[serde(flatten)]
    states: StateTotals,
    /// Where the unreadable catalog is now.
    moved_aside: Option<String>,
}

/// Runs the command.
pub(super) async fn run(_args: RebuildArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let loaded = settings(&global.overrides(true))?;
    let in_use = "another jellyjar works with this catalog; stop it, or wait until it is done, then run this again";
    let (lock, moved_aside) = match open_place(global, &loaded.config).await? {
        CatalogPlace::Folder(folder) => {
            let lock = Catalog::worker_lock_in(&folder)?.ok_or_else(|| UsageError(in_use.into()))?;
            (Some(lock), Catalog::set_aside_if_corrupt(&folder, &Clock::system()).await?)
        }
        CatalogPlace::Postgres { .. } => (None, None),
    };
    if let Some(path) = &moved_aside {
        tracing::warn!(
            "the catalog could not be read and was moved to {}; kept quotas, pauses and rejects were in it",
            path.display()
        );
    }
    let session = Session::open(global, loaded, false).await?;
    let lock = match lock {
        Some(lock) => lock,
        None => match session.catalog.try_lock_alone().await? {
            Some(lock) => lock,
            None => return Err(refusal(in_use, &fleet::names(&session).await?)),
        },
    };
    let rules = session.rules()?;
    let loaded = audit::rebuild(&session.subject(), &session.intake, &lock, &rules).await.context("cannot rebuild")?;
    session.journal.heartbeat(true).await?;
    super::find::index(&session, true).await?;
    let mut states = StateTotals::default();
    for team in session.catalog.team_totals(session.archive_row).await? {
        states.archived += team.states.archived;
        states.skipped += team.states.skipped;
        states.failed += team.states.failed;
        states.quarantined += team.states.quarantined;
        states.erased += team.states.erased;
        states.pending += team.states.pending;
    }
    let moved_aside = moved_aside.map(|path| path.display().to_string());
    let answer = Answer { ok: true, loaded, attachments: states.sum(), states, moved_aside };
    if global.json {
        output::json(&answer);
    } else {
        output::line(text(&answer));
    }
    Ok(ExitCode::from(DONE))
}

/// Why it does not begin, with the names of those who are in its way where they are known.
fn refusal(in_use: &str, names: &str) -> anyhow::Error {
    let at_work = if names.is_empty() { String::new() } else { format!("; at work: {names}") };
    UsageError(format!("{in_use}{at_work}")).into()
}

fn text(answer: &Answer) -> String {
    let states = &answer.states;
    let mut out = format!(
        "Loaded {} segments: {} message lines, {} outcome lines.\n{} attachments: {} archived, {} skipped, {} failed, \
         {} quarantined, {} erased, {} pending.",
        number(answer.loaded.segments),
        number(answer.loaded.messages),
        number(answer.loaded.outcomes),
        number(answer.attachments),
        number(states.archived),
        number(states.skipped),
        number(states.failed),
        number(states.quarantined),
        number(states.erased),
        number(states.pending)
    );
    if let Some(path) = &answer.moved_aside {
        out.push_str(&format!("\nThe catalog that could not be read is now {path}; delete it when you like."));
    }
    if states.pending > 0 {
        out.push_str("\n`jellyjar retry` finishes what is pending.");
    }
    out
}
