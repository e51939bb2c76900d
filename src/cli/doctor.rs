//! `jellyjar doctor`: looks at everything that a run needs, one check after the other, and says what to do. What fails
//! keeps no other check from being made, and nothing that is there is changed.

mod api;
mod catalog;
mod place;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::output::{self, printable};
use super::session::Session;
use super::{DONE, Global, INCOMPLETE, TOKEN_REFUSED, USAGE, UsageError};
use crate::clock::Clock;
use crate::config::{Config, Environment, Loaded, Overrides, load};
use crate::model::{FORMAT_VERSION, Location};
use crate::store::{BucketError, Fault};

/// The arguments of `jellyjar doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  jellyjar doctor --archive /srv/archive
  jellyjar doctor --archive s3://company-mail --json
  jellyjar doctor --archive /srv/archive --offline

It looks at settings, archive, catalog, disk, journal, clock, quota and token, and may run beside a replay. It \
costs one API request for each team that has a token. In the archive it writes one small file, and deletes it \
again.

Exit codes: 0 no problem, though there may be warnings; 1 a problem; 2 the settings cannot be used; 3 a token is \
refused.")]
pub(super) struct DoctorArgs {
    /// Send Jelly no request: whether the tokens are accepted is not checked
    #[arg(long)]
    offline: bool,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Standing {
    Ok,
    /// Not checked, for a reason that is no fault.
    Skipped,
    Warning,
    Problem,
}

impl Standing {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Standing,
    /// What was found.
    found: String,
    /// What to do; `null` where nothing is to be done.
    advice: Option<String>,
}

/// All checks so far. Shows each to people as soon as it is made.
#[derive(Debug)]
struct Findings {
    json: bool,
    checks: Vec<Check>,
    token_refused: bool,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    ok: bool,
    problems: usize,
    warnings: usize,
    token_refused: bool,
    checks: &'a [Check],
}

impl Findings {
    fn add(&mut self, name: &'static str, status: Standing, found: impl Into<String>, advice: Option<String>) {
        let check = Check { name, status, found: found.into(), advice };
        if !self.json {
            output::line(text(&check));
        }
        self.checks.push(check);
    }

    fn ok(&mut self, name: &'static str, found: impl Into<String>) {
        self.add(name, Standing::Ok, found, None);
    }

    fn skipped(&mut self, name: &'static str, found: impl Into<String>, advice: Option<&str>) {
        self.add(name, Standing::Skipped, found, advice.map(Into::into));
    }

    fn warning(&mut self, name: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(name, Standing::Warning, found, Some(advice.into()));
    }

    fn problem(&mut self, name: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(name, Standing::Problem, found, Some(advice.into()));
    }

    /// A check that ended with an error.
    fn failed(&mut self, name: &'static str, error: &anyhow::Error) {
        let (found, advice) = told(error);
        self.problem(name, found, advice.unwrap_or_else(|| usual_advice(name).into()));
    }

    fn count(&self, status: Standing) -> usize {
        self.checks.iter().filter(|check| check.status == status).count()
    }

    /// Compares this machine's clock with another one, as it was read at `now`.
    fn clock(&mut self, whose: &str, theirs: Timestamp, now: Timestamp) {
        let apart = theirs.as_second().saturating_sub(now.as_second());
        let found = match apart {
            0 => format!("this machine's clock agrees with that of {whose}"),
            _ => format!(
                "this machine's clock is {} s {} that of {whose}",
                apart.unsigned_abs(),
                if apart > 0 { "behind" } else { "ahead of" }
            ),
        };
        let advice = "set this machine's clock (timedatectl set-ntp true)";
        match apart.unsigned_abs() {
            0..=WARN_SECONDS => self.ok("clock", found),
            61..=PROBLEM_SECONDS => self.warning("clock", found, advice),
            _ => self.problem("clock", found, format!("{advice}: buckets and signed links refuse clocks so far off")),
        }
    }

    /// Ends the examination.
    fn close(&self) -> ExitCode {
        let (problems, warnings) = (self.count(Standing::Problem), self.count(Standing::Warning));
        if self.json {
            let token_refused = self.token_refused;
            output::json(&Answer { ok: problems == 0, problems, warnings, token_refused, checks: &self.checks });
        } else {
            let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
            output::line(match (problems, warnings) {
                (0, 0) => "\nEverything is in order.".into(),
                (0, _) => format!("\nNo problem, {}.", counted(warnings, "warning")),
                _ => format!("\n{}, {}.", counted(problems, "problem"), counted(warnings, "warning")),
            });
        }
        ExitCode::from(match problems {
            _ if self.token_refused => TOKEN_REFUSED,
            0 => DONE,
            _ => INCOMPLETE,
        })
    }
}

/// Clocks further apart are warned of, and
const WARN_SECONDS: u64 = 60;
/// further than this they are a problem: S3 refuses a quarter of an hour, signed links often five minutes.
const PROBLEM_SECONDS: u64 = 300;

fn text(check: &Check) -> String {
    let mut text = format!("{:<8} {:<14} {}", check.status.as_str(), check.name, printable(&check.found, 2_000));
    if let Some(advice) = &check.advice {
        text.push_str(&format!("\n{:24}→ {}", "", printable(advice, 2_000)));
    }
    text
}

/// An error in its two parts: what is wrong, with its causes, and the way out. By the house's rule an error names both,
/// in this order, set apart by a semicolon.
fn told(error: &anyhow::Error) -> (String, Option<String>) {
    if let Some(error) = error.chain().find_map(|cause| cause.downcast_ref::<BucketError>()) {
        // Where nothing else is known, the way out leads here.
        let advice = (error.fault != Fault::Refused).then(|| error.advice().to_owned());
        return (error.finding(), advice);
    }
    let (mut found, mut advice) = (Vec::new(), None);
    for cause in error.chain().map(ToString::to_string) {
        match cause.split_once("; ") {
            Some((what, way_out)) => {
                found.push(what.to_owned());
                advice = Some(way_out.to_owned());
            }
            None => found.push(cause),
        }
    }
    (found.join(": "), advice)
}

/// The way out where an error names none.
fn usual_advice(check: &str) -> &'static str {
    match check {
        "configuration" => "`jellyjar config check` explains every setting",
        "token" => "set the team's token again, and check who may read its file",
        "api" => "check --api-url, and `proxy` and `ca_file` under [http]",
        "catalog" => "give --catalog a folder of your own on a local disk, or run `jellyjar rebuild`",
        "journal" => "run `jellyjar verify`",
        _ => "check that the place is right, that it is a folder or bucket of yours, and that you may write there",
    }
}

/// Longer than this nothing that is asked for over a network may take, tries again included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the command.
pub(super) async fn run(args: DoctorArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let mut findings = Findings { json: global.json, checks: Vec::new(), token_refused: false };
    findings.ok(
        "version",
        format!("jellyjar {}, which reads and writes archives of format {FORMAT_VERSION}", env!("CARGO_PKG_VERSION")),
    );
    let Some((mut loaded, tokens_read)) = configuration(&mut findings, global) else {
        findings.close();
        return Ok(ExitCode::from(USAGE));
    };
    if let Some(wanted) = global.team.as_ref().filter(|name| !loaded.config.teams.contains_key(*name)) {
        let names: Vec<_> = loaded.config.teams.keys().cloned().collect();
        return Err(UsageError(format!("no team {wanted:?} is configured; there are: {}", names.join(", "))).into());
    }
    bound(&mut loaded.config);
    let names = loaded.config.teams.keys().filter(|name| global.team.as_ref().is_none_or(|wanted| wanted == *name));
    let names: Vec<String> = names.cloned().collect();

    // The first team of each archive stands for it.
    let mut archives: BTreeMap<Location, String> = BTreeMap::new();
    for name in &names {
        match loaded.config.archive_for(name) {
            Some(location) => drop(archives.entry(location.clone()).or_insert_with(|| name.clone())),
            None => findings.problem(
                "archive",
                format!("no archive is named for team {name}"),
                "add --archive PLACE, or set JELLYJAR_ARCHIVE or `archive` in the configuration",
            ),
        }
    }
    let mut sessions = Vec::new();
    for (location, team) in &archives {
        let global = Global { team: Some(team.clone()), ..global.clone() };
        sessions.extend(archive(&mut findings, &global, &loaded, location).await);
    }
    api::examine(&mut findings, &loaded.config, &names, &sessions, args.offline, tokens_read).await;
    Ok(findings.close())
}

/// The settings, and whether the tokens could be read; `None` where they cannot be used at all.
fn configuration(findings: &mut Findings, global: &Global) -> Option<(Loaded, bool)> {
    let environment = Environment::from_process();
    let with_webhooks = Overrides { read_webhooks: true, ..global.overrides(false) };
    // What is wrong with them alone stands in no other command's way.
    let loaded = load(&with_webhooks, &environment).or_else(|_| load(&global.overrides(false), &environment));
    let (loaded, tokens_read) = match loaded {
        Ok(loaded) => (loaded, true),
        // It may be a token's file alone that cannot be read; everything else can be looked at all the same.
        Err(error) => match load(&global.overrides(true), &environment) {
            Ok(loaded) => {
                findings.failed("token", &error.into());
                (loaded, false)
            }
            Err(_) => {
                findings.failed("configuration", &error.into());
                return None;
            }
        },
    };
    if let Err(error) = super::config::compile_filters(&loaded) {
        findings.failed("configuration", &error);
        return None;
    }
    let file = match (&loaded.sources.file, loaded.sources.file_found_by) {
        (Some(file), Some(found_by)) => format!("the file {} (from {found_by})", file.display()),
        (Some(file), None) => format!("the file {}", file.display()),
        (None, _) => "no file; defaults, environment and flags hold".into(),
    };
    let teams: Vec<_> = loaded.config.teams.keys().map(String::as_str).collect();
    findings.ok("configuration", format!("{file}; teams: {}", teams.join(", ")));
    for warning in &loaded.warnings {
        findings.warning("configuration", warning, "`jellyjar config check` explains every setting");
    }
    Some((loaded, tokens_read))
}

/// Makes requests end soon: a person waits.
fn bound(config: &mut Config) {
    let http = &mut config.http;
    http.connect_timeout = http.connect_timeout.min(PATIENCE / 2);
    http.read_timeout = http.read_timeout.min(PATIENCE);
    let bucket = &mut config.buckets.common;
    bucket.request_timeout = bucket.request_timeout.min(PATIENCE);
    bucket.max_retries = bucket.max_retries.min(1);
}

/// Everything about one archive.
async fn archive(findings: &mut Findings, global: &Global, loaded: &Loaded, location: &Location) -> Option<Session> {
    let clock = Clock::system();
    let found = place::examine(findings, &loaded.config, location, &clock).await;
    catalog::examine(findings, global, loaded, location, found).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Findings {
        Findings { json: true, checks: Vec::new(), token_refused: false }
    }

    #[test]
    fn clocks_are_judged_by_how_far_they_are_apart() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for (seconds, status) in [
            (0, Standing::Ok),
            (-60, Standing::Ok),
            (60, Standing::Ok),
            (61, Standing::Warning),
            (-300, Standing::Warning),
            (301, Standing::Problem),
            (-301, Standing::Problem),
        ] {
            let mut findings = findings();
            findings.clock("X", now + jiff::SignedDuration::from_secs(seconds), now);
            assert_eq!(findings.checks[0].status, status, "{seconds}: {}", findings.checks[0].found);
        }
    }

    #[test]
    fn an_error_is_told_in_its_two_parts() {
        let (found, advice) = told(&anyhow::anyhow!("it is broken; mend it; really").context("cannot go on"));
        assert_eq!((found.as_str(), advice.as_deref()), ("cannot go on: it is broken", Some("mend it; really")));
        let (found, advice) = told(&anyhow::anyhow!("no such file").context("cannot read it; check the name"));
        assert_eq!((found.as_str(), advice.as_deref()), ("cannot read it: no such file", Some("check the name")));
        assert_eq!(told(&anyhow::anyhow!("broken")), ("broken".into(), None));
    }

    #[test]
    fn a_check_is_one_line_and_its_advice_another() {
        let advice = Some("mend it".to_owned());
        let check = Check { name: "disk", status: Standing::Warning, found: "a\nb".into(), advice };
        assert_eq!(text(&check), format!("warning  disk           a\u{fffd}b\n{:24}→ mend it", ""));
    }
}
