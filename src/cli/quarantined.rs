//! `jellyjar quarantined`: whole bytes that contradict what was declared, and where they are.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::look::Look;
use super::receipt::{number, size};
use super::{DONE, Global, output};
use crate::catalog::{AttachmentRow, State};
use crate::store::{blob_key, quarantine_key};

/// The arguments of `jellyjar quarantined`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar quarantined --archive /srv/archive
  jellyjar get k3jx4… --quarantined -o look.bin       look at the bytes
  jellyjar accept k3jx4… --archive /srv/archive       take them as they are
  jellyjar retry k3jx4… --archive /srv/archive        fetch them again")]
pub(super) struct QuarantinedArgs {
    /// Show at most this many, the last first
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
}

#[derive(Debug, Serialize)]
struct Quarantined {
    #[serde(flatten)]
    attachment: AttachmentRow,
    /// When it was quarantined.
    at: String,
    /// The key of its bytes in the archive; `null` if they are gone.
    bytes_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    total: u64,
    shown: usize,
    quarantined: Vec<Quarantined>,
}

/// Runs the command.
pub(super) async fn run(args: QuarantinedArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let look = Look::open(global).await?;
    look.warn();
    let session = &look.session;
    let rows = session.catalog.in_state(session.archive_row, State::Quarantined, args.limit).await?;
    let teams = session.catalog.team_totals(session.archive_row).await?;
    let total = teams.iter().map(|team| team.states.quarantined).sum();
    let mut quarantined = Vec::with_capacity(rows.len());
    for attachment in rows {
        let at = output::time(attachment.updated_at_ms);
        let bytes_at = match attachment.sha256 {
            Some(sha256) if session.archive.open_bytes(sha256, true).await?.is_some() => Some(quarantine_key(sha256)),
            // Another attachment with the same bytes was accepted.
            Some(sha256) if session.archive.open_bytes(sha256, false).await?.is_some() => Some(blob_key(sha256)),
            _ => None,
        };
        quarantined.push(Quarantined { attachment, at, bytes_at });
    }
    if global.json {
        output::json(&Answer { total, shown: quarantined.len(), quarantined });
    } else {
        output::line(text(total, &quarantined));
    }
    Ok(ExitCode::from(DONE))
}

fn text(total: u64, quarantined: &[Quarantined]) -> String {
    if quarantined.is_empty() && total == 0 {
        return "Nothing is quarantined.".into();
    }
    let mut out = String::new();
    for one in quarantined {
        let attachment = &one.attachment;
        let text = |text: &Option<String>, chars| output::printable(text.as_deref().unwrap_or("-"), chars);
        out.push_str(&format!("{}  {}  {}\n", attachment.id, one.at, text(&attachment.name, 80)));
        out.push_str(&format!("  subject   {}\n", text(&attachment.subject, 100)));
        out.push_str(&format!(
            "  declared  {}, {}\n",
            attachment.declared_size.map_or("no size".into(), |bytes| format!("{} bytes", number(bytes))),
            text(&attachment.content_type, 80)
        ));
        out.push_str(&format!(
            "  came      {} bytes ({}), {}\n",
            number(attachment.size_bytes.unwrap_or(0)),
            size(attachment.size_bytes.unwrap_or(0)),
            text(&attachment.sniffed_type, 80)
        ));
        out.push_str(&format!("  why       {}\n", text(&attachment.reason, 400)));
        out.push_str(&format!(
            "  sha256    {}\n  bytes at  {}\n\n",
            attachment.sha256.map(|sha256| sha256.to_hex()).unwrap_or_default(),
            one.bytes_at.as_deref().unwrap_or("gone: `jellyjar retry` fetches it again")
        ));
    }
    if u64::try_from(quarantined.len()).unwrap_or(u64::MAX) < total {
        out.push_str(&format!("… {} of {}; --limit shows more\n", quarantined.len(), number(total)));
    }
    out.push_str("`jellyjar accept ID…` admits bytes as they are; `jellyjar retry ID…` fetches them again.");
    out
}
