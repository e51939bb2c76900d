//! `jellyjar failed`: what could not be archived, why, and what to do about it.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::look::Look;
use super::receipt::number;
use super::{DONE, Global, output};
use crate::catalog::{AttachmentRow, State};

/// The arguments of `jellyjar failed`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar failed --archive /srv/archive
  jellyjar failed --archive /srv/archive --json --limit 1000000
  jellyjar retry --archive /srv/archive k3jx4…        try one of them again")]
pub(super) struct FailedArgs {
    /// Show at most this many, the last first
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
}

#[derive(Debug, Serialize)]
struct Failed {
    #[serde(flatten)]
    attachment: AttachmentRow,
    /// When it failed.
    at: String,
    /// What to do next.
    next: &'static str,
}

#[derive(Debug, Serialize)]
struct Answer {
    total: u64,
    shown: usize,
    failed: Vec<Failed>,
}

/// Runs the command.
pub(super) async fn run(args: FailedArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let look = Look::open(global).await?;
    look.warn();
    let session = &look.session;
    let rows = session.catalog.in_state(session.archive_row, State::Failed, args.limit).await?;
    let teams = session.catalog.team_totals(session.archive_row).await?;
    let total = teams.iter().map(|team| team.states.failed).sum();
    let failed: Vec<Failed> = rows
        .into_iter()
        .map(|attachment| Failed {
            at: output::time(attachment.updated_at_ms),
            next: hint(attachment.reason.as_deref().unwrap_or("")),
            attachment,
        })
        .collect();
    if global.json {
        output::json(&Answer { total, shown: failed.len(), failed });
    } else {
        output::line(text(total, &failed));
    }
    Ok(ExitCode::from(DONE))
}

/// What to do about a failure, by the kind of its reason.
fn hint(reason: &str) -> &'static str {
    let has = |word: &str| reason.contains(word);
    if reason.starts_with("gone:") || has("no such attachment") {
        "Jelly has deleted it: nothing to fetch; `retry` asks once more"
    } else if has("refused access to this attachment") {
        "the token works, but not for this file: is it the right team's? then `retry`"
    } else if has("http.max_attachment") {
        "raise http.max_attachment in the configuration, then `retry`"
    } else if has("target is refused") {
        "its link leads where no file storage should be (a private address, plain http, or a user name in it): tell Jelly, then `retry`"
    } else if has("is the base URL right") {
        "check api.base_url (JELLY_API_URL), then `retry`"
    } else if has("rejected the request") {
        "Jelly does not take this id: look at the payload it came from"
    } else if has("error page") || has("different bytes") || has("contradicts") {
        "the storage serves something else than the file: `retry` later"
    } else {
        "it may pass: `retry` later"
    }
}

fn text(total: u64, failed: &[Failed]) -> String {
    if failed.is_empty() && total == 0 {
        return "Nothing has failed.".into();
    }
    let rows = failed.iter().map(|one| {
        let text = |text: &Option<String>, chars| output::printable(text.as_deref().unwrap_or("-"), chars);
        vec![
            one.attachment.id.clone(),
            text(&one.attachment.name, 40),
            text(&one.attachment.subject, 30),
            one.at.clone(),
            number(one.attachment.attempts),
            format!("{}; {}", text(&one.attachment.reason, 300), one.next),
        ]
    });
    let mut out = output::table(&["ID", "NAME", "SUBJECT", "WHEN", "ATTEMPTS", "WHY, AND WHAT NEXT"], rows);
    if u64::try_from(failed.len()).unwrap_or(u64::MAX) < total {
        out.push_str(&format!("\n… {} of {}; --limit shows more", failed.len(), number(total)));
    }
    out.push_str("\n\n`jellyjar retry` tries all of them again; `jellyjar retry ID…` only some.");
    out
}

#[cfg(test)]
mod tests {
    use super::hint;

    #[test]
    fn the_hint_follows_from_what_the_attempts_say() {
        assert!(hint("gone: Jelly knows no such attachment (404: x), three times").contains("deleted"));
        assert!(hint("the file is larger than the limit of 5 bytes (http.max_attachment)").contains("raise"));
        assert!(hint("Jelly refused access to this attachment (403: x)").contains("right team"));
        assert!(hint("the storage did not answer in time (x) (attempt 8, the last)").contains("may pass"));
    }
}
