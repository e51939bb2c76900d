//! `jellyjar compact`: many small segments of the journal into few large ones.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::receipt::number;
use super::session::{Session, settings};
use super::{DONE, Global, INCOMPLETE, output};
use crate::audit::{CompactOptions, Compacted, compact};

/// The arguments of `jellyjar compact`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar compact --archive s3://company-mail
  jellyjar compact --archive /srv/archive --dry-run

Every run leaves small segments in the journal; merging those of past days keeps opening an archive fast. No \
attachment is touched, nothing is forgotten, and other programs may work on the archive meanwhile. Once a \
month is often enough.")]
pub(super) struct CompactArgs {
    /// Tell what would be merged, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Merge the segments of the current day too
    #[arg(long)]
    today: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    ok: bool,
    dry_run: bool,
    #[serde(flatten)]
    compacted: Compacted,
}

/// Runs the command.
pub(super) async fn run(args: CompactArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let loaded = settings(&global.overrides(true))?;
    let session = Session::open(global, loaded, false).await?;
    session.reload().await?;
    let subject = session.subject();
    let options = CompactOptions { dry_run: args.dry_run, today: args.today, ..CompactOptions::default() };
    let compacted = if args.dry_run {
        compact(&subject, options, None).await.context("cannot look")?
    } else {
        let mut lock = session.archive.lock("compaction", session.journal.writer_id(), &session.clock).await?;
        let work = async {
            session.journal.announce().await?;
            compact(&subject, options, Some(&mut lock)).await.context("cannot compact")
        };
        // What was begun is harmless wherever it is dropped: a reader merges, and the next compaction clears up.
        let compacted = tokio::select! {
            compacted = work => Some(compacted),
            () = super::run::interrupted() => None,
        };
        session.journal.heartbeat(true).await?;
        lock.release(&session.archive).await?;
        match compacted {
            Some(compacted) => compacted?,
            None => {
                output::note("Interrupted; run it again to go on.");
                return Ok(ExitCode::from(super::INTERRUPTED));
            }
        }
    };
    let answer = Answer { ok: compacted.refused.is_empty(), dry_run: args.dry_run, compacted };
    if global.json {
        output::json(&answer);
    } else {
        output::line(text(&answer));
    }
    Ok(ExitCode::from(if answer.ok { DONE } else { INCOMPLETE }))
}

fn text(answer: &Answer) -> String {
    let Compacted { segments_before, segments_now, merged, written, left_over, refused } = &answer.compacted;
    let mut out = if *merged + *left_over == 0 {
        format!("Nothing to merge: the journal has {} segments.", number(*segments_before))
    } else {
        format!(
            "{} {} small segments into {}: the journal {} {} segments, {} before.",
            if answer.dry_run { "Would merge" } else { "Merged" },
            number(*merged),
            number(*written),
            if answer.dry_run { "would have" } else { "has" },
            number(*segments_now),
            number(*segments_before)
        )
    };
    if *left_over > 0 {
        out.push_str(&format!("\n{} of them were left over by an interrupted compaction.", number(*left_over)));
    }
    for one in refused {
        out.push_str(&format!("\nNot merged: {}: {}", one.key, one.reason));
    }
    out
}
