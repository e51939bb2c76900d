//! `jellyjar accept`: admits quarantined bytes to the archive, by a person's leave.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::look::{Look, find_all};
use super::receipt::number;
use super::{DONE, Global, INCOMPLETE, UsageError, output};
use crate::audit;
use crate::catalog::{AttachmentRow, State};

/// The arguments of `jellyjar accept`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar quarantined --archive /srv/archive         what there is, and why
  jellyjar accept k3jx4… --archive /srv/archive       admit one, by its short id or SHA-256
  jellyjar accept --all --archive /srv/archive        admit all of them

Nothing is asked of Jelly. Accepting twice changes nothing.")]
pub(super) struct AcceptArgs {
    /// Short ids or SHA-256 sums, or the beginnings of them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// Accept everything that is quarantined
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    /// Archived by this call.
    accepted: Vec<AttachmentRow>,
    /// Archived before.
    known: u64,
    /// Their bytes are gone or no longer what was quarantined.
    bytes_lost: Vec<AttachmentRow>,
    ok: bool,
}

/// Runs the command.
pub(super) async fn run(args: AcceptArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let session = Look::open_current(global).await?;
    let (rows, elsewhere) = if args.all {
        (session.catalog.in_state(session.archive_row, State::Quarantined, u64::MAX).await?, Vec::new())
    } else {
        find_all(&session, &args.ids, &[State::Quarantined]).await?
    };
    if let Some(row) = elsewhere.iter().find(|row| row.state != State::Archived) {
        return Err(UsageError(format!(
            "{} is {}, not quarantined; `jellyjar quarantined` lists what can be accepted",
            row.id,
            row.state.as_str()
        ))
        .into());
    }
    let done = audit::accept(&session.subject(), rows).await?;
    session.journal.heartbeat(true).await?;
    let answer = Answer {
        ok: done.bytes_lost.is_empty(),
        accepted: done.accepted,
        known: u64::try_from(elsewhere.len()).unwrap_or(u64::MAX),
        bytes_lost: done.bytes_lost,
    };
    if global.json {
        output::json(&answer);
    } else {
        output::line(text(&answer));
    }
    Ok(ExitCode::from(if answer.ok { DONE } else { INCOMPLETE }))
}

fn text(answer: &Answer) -> String {
    let name = |row: &AttachmentRow| output::printable(row.name.as_deref().unwrap_or("-"), 80);
    let mut out = String::new();
    for row in &answer.accepted {
        out.push_str(&format!("accepted  {}  {}\n", row.id, name(row)));
    }
    for row in &answer.bytes_lost {
        out.push_str(&format!(
            "lost      {}  {}  its bytes are gone or changed; `jellyjar retry {}` fetches it again\n",
            row.id,
            name(row),
            row.id
        ));
    }
    if answer.accepted.is_empty() && answer.bytes_lost.is_empty() {
        out.push_str(if answer.known > 0 { "It is archived already." } else { "Nothing is quarantined." });
    } else {
        let count = u64::try_from(answer.accepted.len()).unwrap_or(u64::MAX);
        out.push_str(&format!("{} archived now.", number(count)));
    }
    out
}
