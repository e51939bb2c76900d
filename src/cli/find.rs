//! `jellyjar find`: attachments by what people remember of them.

mod answer;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use super::look::{Look, digest_range};
use super::receipt::number;
use super::session::Session;
use super::{DONE, Global, INCOMPLETE, UsageError, output};
use crate::catalog::{FindQuery, FindSort, GlobPattern, Shown, State};
use crate::config::values;
use crate::digest::{Digest, Hasher};
use answer::{Same, answer, text};

/// The arguments of `jellyjar find`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar find invoice acme --archive /srv/archive            words of names, subjects and people
  jellyjar find --name '*.pdf' --sender '*@acme.com' --since 2026-01-01
  jellyjar find --larger '10 MiB' --sort size                  the largest first
  jellyjar find --conversation k7Qz --json                     with hashes, keys and all messages
  jellyjar find --state skipped signature                      what the rules skipped
  jellyjar find --same-as contract.pdf                         is this very file archived? exit code 0 or 1

All words must be found, in any order, whatever their case and accents; the last one may be the beginning of \
a word. Patterns know *, ?, [a-z] and {a,b}, as the rules do, and match the whole text: '*voice*' finds what \
'voice' does not. An attachment of several messages is shown once, with the newest that matches.")]
pub(super) struct FindArgs {
    /// Words of the name, the subject, or the people (from, to, cc)
    #[arg(value_name = "WORDS")]
    words: Vec<String>,
    /// The file's name, as a pattern
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    name: Option<GlobPattern>,
    /// The sender's address, as a pattern
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    sender: Option<GlobPattern>,
    /// The address of somebody who got it (to or cc), as a pattern
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    recipient: Option<GlobPattern>,
    /// Words of the subject alone
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// The media type, declared or shown by the bytes, as a pattern
    #[arg(long = "type", value_name = "PATTERN", value_parser = pattern)]
    content_type: Option<GlobPattern>,
    /// Sent on or after this date
    #[arg(long, value_name = "DATE", value_parser = second)]
    since: Option<i64>,
    /// Sent before this date
    #[arg(long, value_name = "DATE", value_parser = second)]
    until: Option<i64>,
    /// The conversation's id
    #[arg(long, value_name = "ID")]
    conversation: Option<String>,
    /// The SHA-256 of the bytes, or at least 6 digits of its beginning
    #[arg(long, value_name = "HEX", value_parser = digests)]
    sha256: Option<(Digest, Digest)>,
    /// The same bytes as this file; exit code 1 if they are not archived
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sha256", "state"])]
    same_as: Option<PathBuf>,
    /// Where it is now
    #[arg(long, value_name = "STATE", default_value = "archived", hide_possible_values = false,
        value_parser = PossibleValuesParser::new(["archived", "skipped", "failed", "quarantined", "pending", "any"]))]
    state: String,
    /// More than this, as "10 MiB"
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    larger: Option<u64>,
    /// What sorts the answer: newest, largest, or A first
    #[arg(long, value_name = "KEY", value_enum, default_value_t = Sort::Date)]
    sort: Sort,
    /// Sort the other way round
    #[arg(long)]
    reverse: bool,
    /// Look at everything, however long it takes; else at the first 50,000 to 500,000 candidates
    #[arg(long)]
    all: bool,
    /// Show at most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Show what follows that page; each page tells how to get the next
    #[arg(long, value_name = "CURSOR", value_parser = cursor)]
    after: Option<Shown>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sort {
    Date,
    Name,
    Size,
    Sender,
}

fn pattern(text: &str) -> Result<GlobPattern, String> {
    GlobPattern::parse(text).map_err(|error| error.to_string())
}

/// A date, as a second; a part of a second counts as the next.
fn second(text: &str) -> Result<i64, String> {
    let moment = values::parse_moment(text)?;
    Ok(moment.as_second() + i64::from(moment.subsec_nanosecond() > 0))
}

fn bytes(text: &str) -> Result<u64, String> {
    values::parse_size(text).map(|size| size.as_u64())
}

fn digests(text: &str) -> Result<(Digest, Digest), String> {
    let text = text.trim().to_ascii_lowercase();
    digest_range(text.strip_prefix("sha256:").unwrap_or(&text))
        .ok_or_else(|| "give 6 to 64 hexadecimal digits of a SHA-256".into())
}

fn cursor(text: &str) -> Result<Shown, String> {
    let id = i64::from_str_radix(text.trim(), 36).ok().filter(|id| *id > 0);
    id.map(Shown).ok_or_else(|| "it is none; take what the page before says".into())
}

/// A page's end as [`cursor`] reads it: base 36.
fn cursor_text(shown: Shown) -> String {
    let (mut rest, mut text) = (shown.0.unsigned_abs(), Vec::new());
    while rest > 0 {
        text.push(char::from_digit(u32::try_from(rest % 36).unwrap_or(0), 36).unwrap_or('0'));
        rest /= 36;
    }
    text.iter().rev().collect()
}

impl FindArgs {
    fn query(&self) -> FindQuery {
        FindQuery {
            team: None,
            words: self.words.clone(),
            subject: self.subject.clone(),
            name: self.name.clone(),
            sender: self.sender.clone(),
            recipient: self.recipient.clone(),
            content_type: self.content_type.clone(),
            since: self.since,
            until: self.until,
            conversation: self.conversation.clone(),
            digests: self.sha256,
            state: [State::Archived, State::Skipped, State::Failed, State::Quarantined, State::Pending]
                .into_iter()
                .find(|state| state.as_str() == self.state),
            larger: self.larger,
            sort: match self.sort {
                Sort::Date => FindSort::Date,
                Sort::Name => FindSort::Name,
                Sort::Size => FindSort::Size,
                Sort::Sender => FindSort::Sender,
            },
            reverse: self.reverse,
            // A proof does not stop half way.
            look: (self.all || self.same_as.is_some()).then_some(u64::MAX),
        }
    }
}

/// Runs the command.
pub(super) async fn run(args: FindArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let mut query = args.query();
    let same = match args.same_as.clone() {
        Some(path) => Some(tokio::task::spawn_blocking(move || hash(&path)).await??),
        None => None,
    };
    query.digests = same.map(|sha256| (sha256, sha256)).or(query.digests);
    let look = Look::open(global).await?;
    look.warn();
    let session = look.session;
    if let Some(name) = &global.team {
        query.team = session.teams.get(name).map(|team| team.row);
    }
    index(&session, global.quiet).await?;
    let page = session.catalog.find(session.archive_row, &query, args.after, args.limit).await?;
    let same = match same {
        // The catalog says so, and the bytes are there.
        Some(sha256) => {
            let archived = page.total > 0 && session.archive.open_bytes(sha256, false).await?.is_some();
            Some(Same { sha256, archived })
        }
        None => None,
    };
    let ok = same.as_ref().is_none_or(|same| same.archived);
    if global.json {
        output::json(&answer(page, same, ok));
    } else {
        output::line(text(&args, &page, same.as_ref()));
    }
    Ok(ExitCode::from(if ok { DONE } else { INCOMPLETE }))
}

/// Takes what the index does not know yet into it; says so where that takes its time.
pub(super) async fn index(session: &Session, quiet: bool) -> anyhow::Result<()> {
    const SETTLED_AT_ONCE: u64 = 20_000;
    const SAID_AFTER: Duration = Duration::from_secs(1);
    const SAID_EVERY: Duration = Duration::from_secs(5);
    let (started, mut said) = (Instant::now(), None::<Instant>);
    while session.catalog.index_messages().await? {
        let is_due = said.map_or(started.elapsed() >= SAID_AFTER, |said| said.elapsed() >= SAID_EVERY);
        if is_due && !quiet {
            said = Some(Instant::now());
            let left = session.catalog.unindexed_messages().await?;
            output::note(format!("Indexing for the first search; {} messages to go.", number(left)));
        }
    }
    Ok(session.catalog.settle_entries(SETTLED_AT_ONCE, false).await?)
}

/// The SHA-256 of a file on this machine.
fn hash(path: &Path) -> anyhow::Result<Digest> {
    let usage = |error: std::io::Error| UsageError(format!("cannot read {}: {error}", path.display()));
    let mut file = std::fs::File::open(path).map_err(usage)?;
    if file.metadata().map_err(usage)?.is_dir() {
        return Err(UsageError(format!("{} is a folder; give a file", path.display())).into());
    }
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let length = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        if length == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back() {
        for id in [1, 36, 1_795_000_000_i64 << 30, i64::MAX] {
            assert_eq!(cursor(&cursor_text(Shown(id))), Ok(Shown(id)));
        }
        for text in ["", "0", "-1", "?", "zzzzzzzzzzzzzzzz"] {
            assert!(cursor(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_of_a_second_counts_as_the_next() {
        assert_eq!(second("2026-01-01"), Ok(1_767_225_600));
        assert_eq!(second("2026-01-01T00:00:00.5Z"), Ok(1_767_225_601));
    }
}
