//! `jellyjar verify`: proves that an archive is whole, and with `--repair` makes it so.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::look::Look;
use super::receipt::{number, size};
use super::session::{Access, Session, settings};
use super::{DONE, Global, INCOMPLETE, INTERRUPTED, TOKEN_REFUSED, USAGE, log, output, run};
use crate::audit::{self, Checked, Finding, RepairAccess, Report, Unrepaired, VerifyOptions};

/// The arguments of `jellyjar verify`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar verify --archive /srv/archive               read and hash everything
  jellyjar verify --archive /srv/archive --quick       sizes only: fast, and blind to flipped bits
  jellyjar verify --archive /srv/archive --repair      fetch damaged or missing bytes again

Compares the journal, the catalog and the bytes, each with the others, both ways. It needs no token, except \
to repair, and may run beside a replay. Repairing takes only bytes that hash to what was archived.")]
pub(super) struct VerifyArgs {
    /// Fetch damaged or missing bytes again, by the attachments that have them
    #[arg(long)]
    repair: bool,
    /// Measure the bytes instead of hashing them
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    ok: bool,
    #[serde(flatten)]
    report: Report,
    /// What could not be repaired, and why.
    unrepaired: Vec<Unrepaired>,
    api_requests: u64,
    token_refused: bool,
    /// Why the repair broke off.
    repair_error: Option<String>,
    /// Why the catalog could not catch up with the journal before.
    trouble: Option<String>,
    worker_running: bool,
    elapsed_seconds: f64,
}

impl Answer {
    fn exit_code(&self) -> u8 {
        if self.token_refused {
            TOKEN_REFUSED
        } else if self.ok {
            DONE
        } else {
            INCOMPLETE
        }
    }
}

/// Runs the command.
pub(super) async fn run(args: VerifyArgs, global: &Global) -> anyhow::Result<ExitCode> {
    tokio::select! {
        done = work(args, global) => done,
        // Whatever was not finished is found again.
        () = run::interrupted() => {
            output::note("Interrupted. Run the same command again.");
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

async fn work(args: VerifyArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let look = Look::open(global).await?;
    let (worker_running, trouble) = (look.worker_running, look.trouble);
    let mut session = look.session;
    let checked = Arc::new(Checked::default());
    let total = session.catalog.content_totals(session.archive_row).await?;
    let progress = show_progress(global.quiet, Arc::clone(&checked), total);
    let options = VerifyOptions { quick: args.quick, worker_running };
    let report = audit::verify(&session.subject(), options, &checked).await;
    if let Some(progress) = progress {
        progress.abort();
    }
    let mut answer = Answer {
        ok: false,
        report: report?,
        unrepaired: Vec::new(),
        api_requests: 0,
        token_refused: false,
        repair_error: None,
        trouble,
        worker_running,
        elapsed_seconds: 0.0,
    };
    let mut usage = false;
    if args.repair && !answer.report.broken.is_empty() {
        // Only now is a token needed.
        session.config = settings(&global.overrides(false))?.config;
        if let Err(error) = repair(&session, &mut answer).await {
            answer.repair_error = Some(format!("{error:#}"));
            usage = output::is_usage(&error);
        }
    }
    answer.ok = answer.report.is_whole() && answer.trouble.is_none() && answer.repair_error.is_none();
    answer.elapsed_seconds = (started.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    if global.json {
        output::json(&answer);
    } else {
        output::line(text(&answer, args.repair));
    }
    Ok(ExitCode::from(if usage { USAGE } else { answer.exit_code() }))
}

async fn repair(session: &Session, answer: &mut Answer) -> anyhow::Result<()> {
    let access = Access::open(session).await?;
    let teams = access.teams.values().map(|team| (team.key.to_string(), team)).collect();
    let ways = RepairAccess {
        fetcher: &access.fetcher,
        teams,
        scratch: access.scratch.path().to_owned(),
        max_wait: session.config.worker.max_wait,
    };
    let done = audit::repair(&session.subject(), &ways, &answer.report.broken).await?;
    for sha256 in done.repaired {
        answer.report.mark_repaired(sha256);
    }
    answer.unrepaired = done.unrepaired;
    answer.token_refused = done.token_refused;
    answer.api_requests = access.requests();
    Ok(access.give_back(true).await?)
}

/// A bar on a terminal, a line every few seconds elsewhere.
fn show_progress(quiet: bool, checked: Arc<Checked>, total: (u64, u64)) -> Option<tokio::task::JoinHandle<()>> {
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
        let bar = log::bars().add(ProgressBar::new(total.1));
        let style =
            ProgressStyle::with_template("{spinner} {bar:24} {bytes} of {total_bytes} ({bytes_per_sec}), {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        Cleared(bar)
    });
    let period = if on_terminal { Duration::from_millis(200) } else { Duration::from_secs(5) };
    Some(tokio::spawn(async move {
        loop {
            tokio::time::sleep(period).await;
            let (blobs, bytes) = (checked.blobs.load(Ordering::Relaxed), checked.bytes.load(Ordering::Relaxed));
            match &bar {
                Some(bar) => bar.0.set_position(bytes),
                None => tracing::info!(
                    "{} of {} contents, {} of {} read",
                    number(blobs),
                    number(total.0),
                    size(bytes),
                    size(total.1)
                ),
            }
        }
    }))
}

/// Findings of either sort that people are shown.
const SHOWN: usize = 40;

fn text(answer: &Answer, repair: bool) -> String {
    let report = &answer.report;
    let looked = &report.looked;
    let mut out = String::new();
    for problem in [true, false] {
        let findings: Vec<&Finding> = report.findings.iter().filter(|finding| finding.problem == problem).collect();
        for finding in findings.iter().take(SHOWN) {
            let word = match (problem, finding.repaired) {
                (_, true) => "repaired",
                (true, false) => "PROBLEM",
                (false, false) => "note",
            };
            out.push_str(&format!("{word:<9} {}\n", output::printable(&finding.place, 200)));
            out.push_str(&format!("          {}\n", output::printable(&finding.detail, 400)));
            if !finding.repaired {
                out.push_str(&format!("          → {}\n", finding.advice));
            }
        }
        let all = if problem { report.problems } else { report.notes };
        let left = all.saturating_sub(u64::try_from(findings.len().min(SHOWN)).unwrap_or(u64::MAX));
        if left > 0 {
            let word = if problem { "problems" } else { "notes" };
            out.push_str(&format!("          … and {} more {word}; --json has more of them\n", number(left)));
        }
    }
    for one in &answer.unrepaired {
        out.push_str(&format!("NOT REPAIRED {}\n          {}\n", one.sha256, output::printable(&one.reason, 600)));
    }
    if let Some(error) = &answer.repair_error {
        out.push_str(&format!("NO REPAIR {}\n", output::printable(error, 600)));
    }
    if let Some(trouble) = &answer.trouble {
        out.push_str(&format!(
            "PROBLEM   the catalog could not catch up with the journal: {}\n",
            output::printable(trouble, 600)
        ));
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(&format!(
        "journal   {} segments: {} message lines, {} outcome lines, {} attachments with an outcome\n",
        number(looked.segments),
        number(looked.message_lines),
        number(looked.outcome_lines),
        number(looked.outcomes)
    ));
    out.push_str(&format!(
        "contents  {} files, {}, {}; {} in quarantine\n",
        number(looked.blobs),
        size(looked.blob_bytes),
        if report.hashed { "read and hashed" } else { "measured only" },
        number(looked.quarantined)
    ));
    if repair {
        out.push_str(&format!(
            "repair    {} put right with {} API requests\n",
            number(report.repaired),
            number(answer.api_requests)
        ));
    }
    out.push_str(&format!("elapsed   {:.1} s\n", answer.elapsed_seconds));
    let left = report.problems - report.repaired;
    out.push_str(&if answer.ok {
        if report.hashed {
            "The archive is whole: journal, catalog and bytes agree.".to_owned()
        } else {
            "Journal, catalog and sizes agree; without --quick the bytes are hashed as well.".to_owned()
        }
    } else if answer.token_refused {
        "The API token is refused. Check it, then run the same command again.".to_owned()
    } else {
        format!("The archive is NOT whole: {} problems; see above what to do.", number(left.max(1)))
    });
    out
}
