//! `jellyjar pause` and `jellyjar resume`: a person keeps a team from sending requests, and lets it again.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::output;
use super::session::{Session, settings};
use super::{DONE, Global};
use crate::catalog::{Pause, egress_scope, person_scope, team_scope};
use crate::config::values::parse_duration;

/// The arguments of `jellyjar pause`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar pause --archive /srv/archive --for 2h --reason 'the office is on a slow line'
  jellyjar pause --team berlin                    until `jellyjar resume --team berlin`

A running `jellyjar serve` or `work` heeds it within 2 seconds, on a shared catalog all of them do. `serve` and `receive` still \
take webhooks in; what comes with them waits.")]
pub(super) struct PauseArgs {
    /// How long, such as 30m or 2h; without it, until `resume`
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_length)]
    length: Option<Duration>,
    /// Why, for whoever wonders
    #[arg(long, value_name = "TEXT", default_value = "a person paused it")]
    reason: String,
}

/// The arguments of `jellyjar resume`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar resume --archive /srv/archive
  jellyjar resume --team berlin

A running `jellyjar serve` or `work` goes on within 2 seconds. It ends what `jellyjar pause` began, and pauses of a team whose token was refused or whose requests Jelly asked to hold back. \
That of an egress group, for Jelly's limit of an address, ends by itself.")]
pub(super) struct ResumeArgs {}

/// The way out of a refused token, beside a service and without one.
pub(super) const WITH_A_VALID_TOKEN: &str = "give a valid token; a running `jellyjar serve` or `work` takes one from its file by itself, \
    and one from the environment with a restart; without a service, run `jellyjar retry` to go on";
/// How it goes on after a pause that ends by itself.
pub(super) const AFTER_A_PAUSE: &str =
    "a running `jellyjar serve` or `work` goes on by itself then; without one, run `jellyjar retry` after that";

/// What is said of a pause that holds a run up, and for one that people end, how they do.
pub(super) fn held_note(pause: &Pause) -> String {
    let mut note = match pause.until_ms {
        i64::MAX => format!("paused: {}", pause.reason),
        until_ms => format!("paused until {}: {}", output::time(until_ms), pause.reason),
    };
    if pause.is_by_person() {
        note.push_str("; `jellyjar resume` lets it go on");
    }
    note
}

/// Reads how long a pause lasts.
fn parse_length(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("that is no pause; `jellyjar resume` ends one".into()),
        length => Ok(length),
    }
}

/// What is in force now.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    ok: bool,
    team: &'a str,
    paused: bool,
    until: Option<String>,
    reason: Option<&'a str>,
}

/// Runs `pause`.
pub(super) async fn pause(args: PauseArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let session = Session::open(global, settings(&global.overrides(true))?, false).await?;
    let length = args.length.map(|length| i64::try_from(length.as_millis()).unwrap_or(i64::MAX));
    let until_ms = length.map_or(i64::MAX, |length| session.clock.now_ms().saturating_add(length));
    let row = session.teams[&session.team_name].row;
    // Another one of a person's is replaced, be it longer or shorter.
    session.catalog.resume(&[person_scope(row)]).await?;
    session.catalog.pause(&Pause { scope: person_scope(row), until_ms, reason: args.reason.clone() }).await?;
    let until = (until_ms != i64::MAX).then(|| output::time(until_ms));
    if global.json {
        let (team, reason) = (session.team_name.as_str(), Some(args.reason.as_str()));
        output::json(&Answer { ok: true, team, paused: true, until, reason });
    } else {
        let until = until.unwrap_or_else(|| "`jellyjar resume`".into());
        let team = &session.team_name;
        output::line(format!("Team {team} sends no requests until {until}; what runs already heeds that within 2 s."));
    }
    Ok(ExitCode::from(DONE))
}

/// Runs `resume`.
pub(super) async fn resume(_args: ResumeArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let session = Session::open(global, settings(&global.overrides(true))?, false).await?;
    let row = session.teams[&session.team_name].row;
    let ended = session.catalog.resume(&[person_scope(row), team_scope(row)]).await?;
    // Jelly's limit for an address is no person's to lift.
    let group = session.config.egress_group(&session.team_name);
    let scope = egress_scope(group);
    let of_group = session.catalog.pauses().await?.into_iter().find(|pause| pause.scope == scope);
    let team = session.team_name.as_str();
    if global.json {
        let until = of_group.as_ref().map(|pause| output::time(pause.until_ms));
        let reason = of_group.as_ref().map(|pause| pause.reason.as_str());
        output::json(&Answer { ok: true, team, paused: of_group.is_some(), until, reason });
        return Ok(ExitCode::from(DONE));
    }
    let own = if ended > 0 { "is no longer paused itself" } else { "was not paused itself" };
    output::line(match of_group {
        Some(Pause { until_ms, reason, .. }) => format!(
            "Team {team} {own}, but its egress group {group} is until {}: {}. That ends by itself: Jelly asked all that come \
             from this address to wait.",
            output::time(until_ms),
            output::printable(&reason, 300)
        ),
        None if ended > 0 => format!("Team {team} may send requests again."),
        None => format!("Team {team} was not paused."),
    });
    Ok(ExitCode::from(DONE))
}
