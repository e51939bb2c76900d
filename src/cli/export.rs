//! `jellyjar export`: a tree of readable names, each file proven, with a manifest.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;

use super::look::Look;
use super::receipt::{number, size};
use super::session::Session;
use super::{DONE, Global, INCOMPLETE, INTERRUPTED, UsageError, log, output, run as foreground};
use crate::audit::{ExportError, ExportOptions, ExportProgress, ExportReport, HardLinks, Selection, Template, export};
use crate::config::values;
use crate::filter::Patterns;

/// The arguments of `jellyjar export`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:
  jellyjar export /media/usb/files --archive /srv/archive                  by conversation
  jellyjar export ./q3 --by date --since 2026-07-01 --until 2026-10-01 --archive /srv/archive
  jellyjar export ./pdfs --by '{year}/{sender_domain}/{date} {name}' --type application/pdf --archive /srv/archive
  cd ./q3 && sha256sum -c --quiet SHA256SUMS                               proves it, without jellyjar

Only what is archived is exported; `jellyjar status` tells what is not. Run the same command again to go on \
after an interruption, or later to add what is new: what is there and right is left alone, and files keep \
their names. --help tells more.",
    after_long_help = long_help()
)]
pub(super) struct ExportArgs {
    /// The folder to fill: new, empty, or an earlier export of this archive
    #[arg(value_name = "DEST")]
    destination: PathBuf,
    /// The layout: conversation, sender, date, or a template like '{year}/{date} {name}'
    #[arg(long, value_name = "LAYOUT", default_value = "conversation", value_parser = layout)]
    by: Template,
    /// Only files of messages sent at or after this date (midnight UTC) or time
    #[arg(long, value_name = "DATE", value_parser = values::parse_moment)]
    since: Option<Timestamp>,
    /// Only files of messages sent before this date (midnight UTC) or time
    #[arg(long, value_name = "DATE", value_parser = values::parse_moment)]
    until: Option<Timestamp>,
    /// Only these media types, like application/pdf or image/*, by declaration or content (repeatable)
    #[arg(long = "type", value_name = "PATTERN")]
    types: Vec<String>,
    /// Only files from these addresses, like *@supplier.example (repeatable)
    #[arg(long = "sender", value_name = "PATTERN")]
    senders: Vec<String>,
    /// Only files with these names, like *.pdf (repeatable)
    #[arg(long = "name", value_name = "GLOB")]
    names: Vec<String>,
    /// Only files of this conversation
    #[arg(long, value_name = "ID")]
    conversation: Option<String>,
    /// Which files with the same bytes may be one file with several names
    #[arg(long, value_name = "WHICH", value_enum, default_value_t = Links::Export)]
    hard_links: Links,
    /// Count, and show the first paths, but write nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Links {
    /// None: every file has bytes of its own, and is writable
    Never,
    /// Files of the export; they are read-only, as a change of one would be a change of all
    Export,
    /// Also the archive's own files, which become read-only: no space is needed, but whoever makes such a file writable
    /// can damage the archive through it
    Archive,
}

fn layout(by: &str) -> Result<Template, String> {
    Template::parse(by).map_err(|error| error.to_string())
}

fn long_help() -> String {
    format!(
        "Layouts:
  conversation   {{conversation_date}} {{conversation_subject}} [{{conversation_id}}]/{{name}}
  sender         {{sender}}/{{date}} {{name}}
  date           {{year}}/{{month}}/{{day}}/{{name}}
An attachment has one place, with its first message; in layouts with a conversation's field it has one in
each conversation. Only the template's own / make folders.

Fields of a template:
{}
Names are made safe for Linux, macOS and Windows: what cannot stand in a name becomes _, long names are
cut before their extension, and names that differ in case alone are numbered. A path has at most 200
characters, so that Windows opens it in any ordinary folder.

What is written beside the files:
  manifest.jsonl   one line for each file: path, hash, size, name, type, sender, subject, message, …
  manifest.csv     the same for spreadsheets (UTF-8); text that would be a formula has a ' before it
  SHA256SUMS       for `sha256sum -c`; it covers the manifests too, so its own hash fixes everything
  .jellyjar-export what lets a later run go on; it may be removed before the folder is given away

Every file is hashed while it is copied, named only when its bytes are right and on the disk, and has the
time at which its message was sent. A file whose bytes are missing or damaged in the archive is listed as
such, and the exit code is 1.

Examples:
  jellyjar export /media/usb/files --archive /srv/archive
  jellyjar export ./q3 --by date --since 2026-07-01 --until 2026-10-01 --archive /srv/archive
  jellyjar export ./pdfs --by '{{year}}/{{sender_domain}}/{{date}} {{name}}' --type application/pdf",
        Template::help()
    )
}

#[derive(Debug, Serialize)]
struct Answer {
    ok: bool,
    destination: String,
    /// The layout's template.
    by: String,
    dry_run: bool,
    interrupted: bool,
    #[serde(flatten)]
    report: ExportReport,
    /// Why the catalog could not catch up with the journal before.
    trouble_with_journal: Option<String>,
    elapsed_seconds: f64,
}

/// Runs the command.
pub(super) async fn run(args: ExportArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    if args.since.zip(args.until).is_some_and(|(since, until)| since >= until) {
        return Err(UsageError("--since is not before --until: nothing could be exported".into()).into());
    }
    let patterns = |flag, texts: &[String]| Patterns::compile(flag, texts);
    let mut selection = Selection {
        since: args.since,
        until: args.until,
        types: patterns("--type", &args.types)?,
        senders: patterns("--sender", &args.senders)?,
        names: patterns("--name", &args.names)?,
        conversation: args.conversation.clone(),
        team: None,
    };
    let look = Look::open(global).await?;
    look.warn();
    let (session, trouble_with_journal) = (look.session, look.trouble);
    selection.team = named_team(global, &session);
    let options = ExportOptions {
        destination: args.destination.clone(),
        template: args.by.clone(),
        selection,
        links: match args.hard_links {
            Links::Never => HardLinks::Never,
            Links::Export => HardLinks::Export,
            Links::Archive => HardLinks::Archive,
        },
        concurrency: session.config.worker.concurrency.clamp(1, 32),
        dry_run: args.dry_run,
    };
    let progress = Arc::new(ExportProgress::default());
    let shown = show_progress(global.quiet || args.dry_run, Arc::clone(&progress));
    let stopping = tokio::spawn(stop_when_interrupted(Arc::clone(&progress)));
    let report = export(&session.subject(), &options, &progress).await;
    stopping.abort();
    if let Some(shown) = shown {
        shown.abort();
        // The bar goes with its task, before anything is printed.
        let _ = shown.await;
    }
    let report = report.map_err(|error| match error {
        error if ExportError::is_usage(&error) => UsageError(error.to_string()).into(),
        error => anyhow::Error::new(error),
    })?;
    let interrupted = progress.stop.load(Ordering::Relaxed) && report.left > 0;
    let whole = if args.dry_run { report.without_message == 0 } else { report.is_whole() };
    let answer = Answer {
        ok: whole && trouble_with_journal.is_none() && !interrupted,
        destination: args.destination.display().to_string(),
        by: args.by.as_str().to_owned(),
        dry_run: args.dry_run,
        interrupted,
        report,
        trouble_with_journal,
        elapsed_seconds: (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
    };
    if global.json {
        output::json(&answer);
    } else {
        output::line(if args.dry_run { plan(&answer) } else { text(&answer) });
    }
    Ok(ExitCode::from(match () {
        () if answer.interrupted => INTERRUPTED,
        () if answer.ok => DONE,
        () => INCOMPLETE,
    }))
}

/// The key of the team that was named. Without one, all teams of the archive are exported.
fn named_team(global: &Global, session: &Session) -> Option<String> {
    let name = global.team.as_ref()?;
    session.teams.get(name).map(|team| team.key.to_string())
}

/// The first Ctrl-C ends the run in good order, the second at once.
async fn stop_when_interrupted(progress: Arc<ExportProgress>) {
    foreground::interrupted().await;
    output::note("Stopping: what is done is written down. Press Ctrl-C again to stop at once.");
    progress.stop.store(true, Ordering::Relaxed);
    foreground::interrupted().await;
    // No file has its name before its bytes are right, so that the next run goes on from here too.
    std::process::exit(i32::from(INTERRUPTED));
}

/// A bar on a terminal, a line every few seconds elsewhere.
fn show_progress(quiet: bool, progress: Arc<ExportProgress>) -> Option<tokio::task::JoinHandle<()>> {
    if quiet {
        return None;
    }
    struct Cleared(ProgressBar);
    impl Drop for Cleared {
        fn drop(&mut self) {
            self.0.finish_and_clear();
        }
    }
    let on_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let bar = on_terminal.then(|| {
        let bar = log::bars().add(ProgressBar::new(0));
        let style = ProgressStyle::with_template("{spinner} {bar:24} {msg}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        Cleared(bar)
    });
    let period = if on_terminal { Duration::from_millis(200) } else { Duration::from_secs(5) };
    Some(tokio::spawn(async move {
        loop {
            tokio::time::sleep(period).await;
            let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            let text = format!(
                "{} of {} files, {} of {} read",
                number(of(&progress.done)),
                number(of(&progress.places)),
                size(of(&progress.bytes)),
                size(of(&progress.total_bytes))
            );
            match &bar {
                Some(bar) => {
                    bar.0.set_length(of(&progress.places));
                    bar.0.set_position(of(&progress.done));
                    bar.0.set_message(text);
                }
                None => tracing::info!("{text}"),
            }
        }
    }))
}

/// Troubles that people are shown.
const SHOWN: usize = 40;

fn line(word: &str, count: u64, meaning: &str) -> String {
    format!("  {word:<12}{:>12}  {meaning}\n", number(count))
}

fn text(answer: &Answer) -> String {
    let report = &answer.report;
    let mut out = String::new();
    for trouble in report.trouble.iter().take(SHOWN) {
        let (path, reason) = (output::printable(&trouble.path, 300), output::printable(&trouble.reason, 300));
        out.push_str(&format!("PROBLEM   {path}\n          {reason}\n"));
    }
    let troubled = report.missing + report.damaged + report.changed;
    let told = u64::try_from(report.trouble.len().min(SHOWN)).unwrap_or(u64::MAX);
    if troubled > told {
        out.push_str(&format!("          … and {} more\n", number(troubled - told)));
    }
    out.push_str(&lacks(answer));
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&format!("{:<14}{:>12}  selected, of which\n", "files", number(report.totals.places)));
    out.push_str(&line("exported", report.exported, "now"));
    out.push_str(&line("present", report.present, "there already, and right"));
    for (count, word, meaning) in [
        (report.missing, "missing", "the archive has no copy of their bytes"),
        (report.damaged, "damaged", "the archive's copy of their bytes is damaged"),
        (report.changed, "changed", "changed since they were exported; left alone"),
        (report.left, "left", "not come to"),
    ] {
        if count > 0 {
            out.push_str(&line(word, count, meaning));
        }
    }
    if !report.adds_up() {
        out.push_str("  this does not add up, which is a defect of jellyjar\n");
    }
    out.push_str(&format!("{:<14}{:>12}  further names of the same bytes\n", "hard links", number(report.linked)));
    out.push_str(&format!("{:<14}{:>12}\n", "bytes written", size(report.bytes_written)));
    out.push_str(&format!("{:<14}{:>10.1} s\n", "elapsed", answer.elapsed_seconds));
    let destination = output::printable(&answer.destination, 300);
    if let Some(sums) = report.sums_sha256 {
        out.push_str(&format!("\nSHA256SUMS has the SHA-256 {sums}, which fixes the whole export.\n"));
    }
    out.push_str(&match () {
        () if answer.interrupted => "Interrupted. Run the same command again to go on.".to_owned(),
        () if answer.ok => {
            format!("The export is whole. Prove it: cd '{destination}' && sha256sum -c --quiet SHA256SUMS")
        }
        () => "The export is NOT whole; see above what to do.".to_owned(),
    });
    out
}

/// What no file tells of.
fn lacks(answer: &Answer) -> String {
    let mut out = String::new();
    if answer.report.without_message > 0 {
        out.push_str(&format!(
            "PROBLEM   {} archived attachments belong to no message, so they have no place; run `jellyjar verify`\n",
            number(answer.report.without_message)
        ));
    }
    if let Some(trouble) = &answer.trouble_with_journal {
        let trouble = output::printable(trouble, 600);
        out.push_str(&format!("PROBLEM   the catalog could not catch up with the journal: {trouble}\n"));
    }
    out
}

fn plan(answer: &Answer) -> String {
    let report = &answer.report;
    let totals = &report.totals;
    let mut out = lacks(answer);
    out.push_str(&format!("{:<14}{:>12}  {}\n", "files", number(totals.places), size(totals.bytes)));
    out.push_str(&line("to export", totals.new_places, &size(totals.new_bytes)));
    out.push_str(&line("present", report.present, "exported before"));
    out.push_str(&format!(
        "{:<14}{:>12}  of contents that are new there\n",
        "to write",
        size(totals.new_content_bytes)
    ));
    for path in &report.first_paths {
        out.push_str(&format!("  {}\n", output::printable(path, 300)));
    }
    let shown = u64::try_from(report.first_paths.len()).unwrap_or(u64::MAX);
    if totals.new_places > shown {
        out.push_str(&format!("  … and {} more\n", number(totals.new_places - shown)));
    }
    out.push_str("Nothing was written.");
    out
}
