//! `jellyjar rejected`: input that could not be read, and where it stands.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::look::Look;
use super::receipt::number;
use super::session::Session;
use super::{DONE, Global, output};
use crate::catalog::RejectRow;

/// The arguments of `jellyjar rejected`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar rejected --archive /srv/archive
  jellyjar rejected --archive /srv/archive --json

Mend the input and replay it: what was read before costs nothing.")]
pub(super) struct RejectedArgs {
    /// Show at most this many, the last first
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
}

#[derive(Debug, Serialize)]
struct Answer {
    total: u64,
    shown: usize,
    rejected: Vec<RejectRow>,
}

/// Names the files in which webhooks are now: in this machine's inbox until they are copied, then in the archive. Where
/// neither is there, the name stays that of the inbox.
async fn find_in_inboxes(session: &Session, rejected: &mut [RejectRow]) -> anyhow::Result<()> {
    let inbox = session.config.inbox_folder();
    let mut copies = None;
    for one in rejected {
        let Some(below) = one.source.strip_prefix("inbox/") else { continue };
        if let Some(path) = inbox.as_ref().map(|inbox| inbox.join(below)).filter(|path| path.is_file()) {
            one.source = path.display().to_string();
            continue;
        }
        let keys = match &mut copies {
            Some(keys) => keys,
            none => none.insert(session.archive.payloads().await?),
        };
        let name = below.rsplit_once('/').map_or(below, |(_, name)| name);
        let copy = |key: &&String| key.strip_suffix(".zst").is_some_and(|key| key.ends_with(&format!("/{name}")));
        if let Some(key) = keys.iter().find(copy) {
            one.source = format!("{}/{key}", session.archive.place());
        }
    }
    Ok(())
}

/// Runs the command.
pub(super) async fn run(args: RejectedArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let look = Look::open(global).await?;
    let mut rejected = look.session.catalog.rejects(args.limit).await?;
    find_in_inboxes(&look.session, &mut rejected).await?;
    let total = look.session.catalog.reject_count().await?;
    if global.json {
        output::json(&Answer { total, shown: rejected.len(), rejected });
    } else if rejected.is_empty() && total == 0 {
        output::line("Nothing was rejected.");
    } else {
        let mut out = String::new();
        for one in &rejected {
            out.push_str(&format!(
                "{}:{} (byte {})  {}\n  {}\n",
                output::printable(&one.source, 300),
                one.line,
                one.byte_offset,
                output::time(one.first_seen_at_ms),
                output::printable(&one.reason, 400)
            ));
            if !one.excerpt.is_empty() {
                out.push_str(&format!("  > {}\n", output::printable(&one.excerpt, 200)));
            }
        }
        if u64::try_from(rejected.len()).unwrap_or(u64::MAX) < total {
            out.push_str(&format!("… {} of {}; --limit shows more\n", rejected.len(), number(total)));
        }
        output::line(out.trim_end());
    }
    Ok(ExitCode::from(DONE))
}
