//! `jellyjar rejected`: input that could not be read, and where it stands.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::look::Look;
use super::receipt::number;
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

/// Runs the command.
pub(super) async fn run(args: RejectedArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let look = Look::open(global).await?;
    let rejected = look.session.catalog.rejects(args.limit).await?;
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
