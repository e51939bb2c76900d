//! `jellyjar status`: what is archived, what is not, and what to do about it.

mod quotas;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::look::Look;
use super::pause::{AFTER_A_PAUSE, WITH_A_VALID_TOKEN};
use super::receipt::{number, size};
use super::session::{Session, settings};
use super::{DONE, Global, INCOMPLETE, fleet, output};
use crate::catalog::{Pause, StateTotals, TeamTotals, WalkKind};
use crate::clock::Clock;
use crate::model::Location;
use crate::walk::{Counts, last_sweep_ms};
use quotas::QuotaJson;

/// The arguments of `jellyjar status`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar status --archive /srv/archive
  jellyjar status --archive /srv/archive --json
  jellyjar status --team berlin                   of several archives, that of this team

It needs no token, and may run beside a replay. Where teams have archives of their own and no --team is given, each archive is \
shown, one after the other; with --json they are in the list `archives` of one object, whose `ok` is theirs together. One \
that cannot be looked at has an `error` in place of figures, and the exit code is 1.")]
pub(super) struct StatusArgs {}

#[derive(Debug, Serialize)]
struct Place {
    path: String,
    uuid: String,
    catalog: String,
}

#[derive(Debug, Default, Serialize)]
struct Content {
    /// Distinct contents that archived attachments have.
    blobs: u64,
    bytes: u64,
    /// Known to be missing or wrong, by the last `verify`.
    damaged: u64,
}

#[derive(Debug, Serialize)]
struct PauseJson {
    scope: String,
    team: Option<String>,
    /// `null` until a person acts.
    until: Option<String>,
    reason: String,
}

/// A backfill, or a team's sweeps.
#[derive(Debug, Serialize)]
struct WalkJson {
    team: String,
    kind: &'static str,
    phase: &'static str,
    filters: serde_json::Value,
    /// Of sweeps: when the last one ended.
    last: Option<String>,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Debug, Serialize)]
struct Status {
    archive: Place,
    total: TeamTotals,
    teams: Vec<TeamTotals>,
    content: Content,
    rejected: u64,
    pauses: Vec<PauseJson>,
    worker_running: bool,
    /// Those who work on it, where many can.
    processes: Vec<fleet::AtWork>,
    last_activity: Option<String>,
    quotas: Vec<QuotaJson>,
    walks: Vec<WalkJson>,
    /// Why the catalog could not catch up with the journal.
    trouble: Option<String>,
    /// Whether nothing asks for a person.
    ok: bool,
    advice: String,
}

/// Several archives.
#[derive(Debug, Serialize)]
struct Several<'a> {
    ok: bool,
    archives: &'a [Shown],
}

/// One archive of several, as it is shown.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Shown {
    Status(Box<Status>),
    /// It cannot be looked at.
    Failure {
        archive: FailedPlace,
        ok: bool,
        error: String,
    },
}

#[derive(Debug, Serialize)]
struct FailedPlace {
    path: String,
}

/// Runs the command.
pub(super) async fn run(_args: StatusArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let loaded = settings(&global.overrides(true))?;
    // The first team of each archive stands for it.
    let mut archives: BTreeMap<Location, String> = BTreeMap::new();
    for name in loaded.config.teams.keys().filter(|_| global.team.is_none()) {
        if let Some(location) = loaded.config.archive_for(name) {
            archives.entry(location.clone()).or_insert_with(|| name.clone());
        }
    }
    if archives.len() < 2 {
        let team = archives.into_values().next().or(global.team.clone());
        let session = Session::open(&Global { team, ..global.clone() }, loaded, false).await?;
        let status = gather(Look::of(session).await?).await?;
        if global.json {
            output::json(&status);
        } else {
            output::line(text(&status));
        }
        return Ok(ExitCode::from(DONE));
    }
    let mut shown = Vec::new();
    for (location, team) in archives {
        let looked = async {
            let session = Session::open_team(loaded.config.clone(), team, false, Clock::system()).await?;
            gather(Look::of(session).await?).await
        };
        shown.push(match looked.await {
            Ok(status) => Shown::Status(Box::new(status)),
            Err(error) => {
                let archive = FailedPlace { path: location.to_string() };
                Shown::Failure { archive, ok: false, error: format!("{error:#}") }
            }
        });
    }
    if global.json {
        let ok = shown.iter().all(|one| matches!(one, Shown::Status(status) if status.ok));
        output::json(&Several { ok, archives: &shown });
    } else {
        let texts = shown.iter().map(|one| match one {
            Shown::Status(status) => text(status),
            Shown::Failure { archive, error, .. } => {
                let (path, error) = (output::printable(&archive.path, 500), output::printable(error, 2_000));
                format!("archive   {path}\nerror     {error}")
            }
        });
        output::line(texts.collect::<Vec<_>>().join("\n\n\n"));
    }
    let is_whole = shown.iter().all(|one| matches!(one, Shown::Status(_)));
    Ok(ExitCode::from(if is_whole { DONE } else { INCOMPLETE }))
}

async fn gather(look: Look) -> anyhow::Result<Status> {
    let Look { session, worker_running, trouble } = look;
    let (catalog, archive_row) = (&session.catalog, session.archive_row);
    let teams = catalog.team_totals(archive_row).await?;
    let (blobs, bytes) = catalog.content_totals(archive_row).await?;
    let content = Content { blobs, bytes, damaged: catalog.damaged_blobs(archive_row).await? };
    let keys = catalog.teams(archive_row).await?;
    let mut pauses = Vec::new();
    for Pause { scope, until_ms, reason } in catalog.pauses().await? {
        let by_person = scope.starts_with("person:");
        let of = if by_person { crate::catalog::person_scope } else { crate::catalog::team_scope };
        let team = keys.iter().find(|(row, _)| of(*row) == scope);
        if team.is_none() && (by_person || scope.starts_with("team:")) {
            // Another archive's.
            continue;
        }
        let team = team.map(|(_, key)| key.to_string());
        let until = (until_ms != i64::MAX).then(|| output::time(until_ms));
        pauses.push(PauseJson { scope, team, until, reason });
    }
    let quotas = quotas::gather(&session, &keys).await?;
    let mut walks = Vec::new();
    for (row, key) in &keys {
        for walk in catalog.walks(*row).await? {
            let last_ms = if walk.kind == WalkKind::Sweep { last_sweep_ms(&walk) } else { None };
            walks.push(WalkJson {
                team: key.to_string(),
                kind: walk.kind.as_str(),
                phase: walk.phase.as_str(),
                filters: serde_json::from_str(&walk.filters).unwrap_or_default(),
                last: last_ms.map(output::time),
                counts: Counts::of(&walk),
            });
        }
    }
    let rejected = catalog.reject_count().await?;
    let last_activity = catalog.last_activity_ms(archive_row).await?.map(output::time);
    let total = sum(&teams);
    let archive = Place {
        path: session.archive.place().to_string(),
        uuid: session.archive.uuid().to_owned(),
        catalog: catalog.shown().to_owned(),
    };
    let mut status = Status {
        archive,
        total,
        teams,
        content,
        rejected,
        pauses,
        worker_running,
        processes: fleet::at_work(&session).await?,
        last_activity,
        quotas,
        walks,
        trouble,
        ok: false,
        advice: String::new(),
    };
    let advice = advise(&status);
    status.ok = advice.is_none();
    status.advice = advice.unwrap_or_else(|| {
        if status.total.states.sum() == 0 {
            "Nothing has been read yet: `jellyjar replay` takes saved payloads in.".into()
        } else if status.worker_running {
            "A worker is at work, and nothing needs your attention.".into()
        } else {
            "Nothing needs your attention; `jellyjar verify` proves that what is archived is intact.".into()
        }
    });
    Ok(status)
}

fn sum(teams: &[TeamTotals]) -> TeamTotals {
    let mut total = TeamTotals { team: "total".into(), states: StateTotals::default(), messages: 0, archived_bytes: 0 };
    for team in teams {
        total.states.archived += team.states.archived;
        total.states.skipped += team.states.skipped;
        total.states.failed += team.states.failed;
        total.states.quarantined += team.states.quarantined;
        total.states.erased += team.states.erased;
        total.states.pending += team.states.pending;
        total.messages += team.messages;
        total.archived_bytes += team.archived_bytes;
    }
    total
}

/// The one thing to do first; `None` if nothing is.
fn advise(status: &Status) -> Option<String> {
    let states = &status.total.states;
    if let Some(trouble) = &status.trouble {
        return Some(format!("The journal could not be loaded, so these figures may be old: {trouble}."));
    }
    if status.content.damaged > 0 {
        return Some(format!(
            "{} contents are damaged or missing: run `jellyjar verify --repair` to fetch them again.",
            number(status.content.damaged)
        ));
    }
    if let Some(pause) = status.pauses.iter().find(|pause| pause.scope.starts_with("person:")) {
        let team = pause.team.as_deref().unwrap_or(&pause.scope);
        return Some(format!("{team} is paused by a person: `jellyjar resume --team {team}` lets it go on."));
    }
    if let Some(pause) = status.pauses.iter().find(|pause| pause.until.is_none()) {
        let team = pause.team.as_deref().unwrap_or(&pause.scope);
        return Some(format!("{team} is paused because its token is refused: {WITH_A_VALID_TOKEN}."));
    }
    if let Some(pause) = status.pauses.first() {
        let until = pause.until.as_deref().unwrap_or("a person acts");
        return Some(format!("Requests pause until {until}; {AFTER_A_PAUSE}."));
    }
    if states.failed > 0 {
        return Some(format!(
            "{} attachments failed: `jellyjar failed` tells why, `jellyjar retry` tries them again.",
            number(states.failed)
        ));
    }
    if states.quarantined > 0 {
        return Some(format!(
            "{} attachments are quarantined: `jellyjar quarantined` tells why, `jellyjar accept` admits them, \
             `jellyjar retry --quarantined` fetches them again.",
            number(states.quarantined)
        ));
    }
    if states.pending > 0 && !status.worker_running {
        return Some(format!(
            "{} attachments are pending and nothing works on them: run `jellyjar retry` to finish them.",
            number(states.pending)
        ));
    }
    if status.rejected > 0 {
        return Some(format!(
            "{} pieces of input could not be read: `jellyjar rejected` lists them; mend and replay them.",
            number(status.rejected)
        ));
    }
    None
}

fn text(status: &Status) -> String {
    let mut out = format!(
        "archive   {}\nuuid      {}\ncatalog   {}\nworker    {}\nactivity  {}\n",
        output::printable(&status.archive.path, 500),
        status.archive.uuid,
        output::printable(&status.archive.catalog, 500),
        if status.worker_running { "running" } else { "none" },
        status.last_activity.as_deref().unwrap_or("none yet"),
    );
    for process in &status.processes {
        out.push_str(&format!("process   {}\n", output::printable(&process.to_string(), 500)));
    }
    let rows = status.teams.iter().chain((status.teams.len() > 1).then_some(&status.total)).map(|team| {
        let states = &team.states;
        let counts = [
            states.archived,
            states.skipped,
            states.failed,
            states.quarantined,
            states.erased,
            states.pending,
            team.messages,
        ];
        let mut row = vec![team.team.clone()];
        row.extend(counts.into_iter().map(number));
        row.push(size(team.archived_bytes));
        row
    });
    let head =
        ["TEAM", "ARCHIVED", "SKIPPED", "FAILED", "QUARANTINED", "ERASED", "PENDING", "MESSAGES", "BYTES ARCHIVED"];
    out.push_str(&format!("\n{}\n\n", output::table(&head, rows)));
    out.push_str(&format!(
        "{} distinct contents, {}; {} rejected\n",
        number(status.content.blobs),
        size(status.content.bytes),
        number(status.rejected)
    ));
    out.extend(status.quotas.iter().map(quotas::text));
    for walk in status.walks.iter().filter(|walk| walk.kind == "sweep" || walk.phase != "done") {
        let WalkJson { team, counts, .. } = walk;
        out.push_str(&match &walk.last {
            Some(last) => {
                format!("sweeps of {team}: the last at {last}; {} attachments found in all\n", number(counts.enqueued))
            }
            None if walk.kind == "sweep" => format!("sweeps of {team}: none yet\n"),
            None => format!(
                "backfill of {team}: {}, {} of {} conversations read\n",
                walk.phase,
                number(counts.read),
                number(counts.to_read)
            ),
        });
    }
    for pause in &status.pauses {
        out.push_str(&format!(
            "paused: {} until {}: {}\n",
            pause.team.as_deref().unwrap_or(&pause.scope),
            pause.until.as_deref().unwrap_or("a person acts"),
            output::printable(&pause.reason, 300)
        ));
    }
    out.push_str(&format!("\n{}", output::printable(&status.advice, 2_000)));
    out
}
