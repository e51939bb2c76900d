//! The way to Jelly: each team's quota, and whether its token is accepted, which costs one request.

use std::time::Duration;

use crate::catalog::{day_scope, team_scope, window_scope};
use crate::clock::Clock;
use crate::config::Config;
use crate::http::{BaseUrl, HttpClients};
use crate::jelly::{ApiError, EgressWindow, JellyClient, Probe, Quota, QuotaLimits};

use super::super::output;
use super::super::receipt::number;
use super::super::session::Session;
use super::Findings;

/// How long one request may take in all.
const PATIENCE: Duration = Duration::from_secs(20);

/// Examines the teams, one after the other.
pub(super) async fn examine(
    findings: &mut Findings,
    config: &Config,
    names: &[String],
    sessions: &[Session],
    offline: bool,
    tokens_read: bool,
) {
    let base = match BaseUrl::parse(&config.api.base_url) {
        Ok(base) => base,
        Err(error) => return findings.failed("api", &error.into()),
    };
    let clients = match HttpClients::new(&config.http, &base) {
        Ok(clients) => clients,
        Err(error) => return findings.failed("api", &error.into()),
    };
    let limits = QuotaLimits::resolve(&config.quota, base.is_loopback());
    let clock = Clock::system();
    let mut clock_told = false;
    for name in names {
        let session = sessions.iter().find(|session| session.teams.contains_key(name));
        let used = used_quota(session, name, config).await.unwrap_or((0, 0));
        quota(findings, name, limits, used);
        let Some(token) = config.teams.get(name).and_then(|team| team.token.as_ref()) else {
            if tokens_read {
                let found = format!("team {name} has no API token, so Jelly is not asked");
                let advice = format!(
                    "an owner of the team makes one in Jelly's settings; set JELLY_API_TOKEN, or give --token-file, or \
                     set teams.{name}.token_file in the configuration"
                );
                findings.warning("token", found, advice);
            }
            continue;
        };
        if offline {
            findings.skipped("token", format!("team {name} has a token; it is not tried (--offline)"), None);
            continue;
        }
        if let Some(until) = paused_until(session, name, config, &clock).await {
            let found = format!("Jelly asked team {name} to send nothing until {until}, so the token is not tried");
            findings.skipped("token", found, Some("run `jellyjar doctor` again after that"));
            continue;
        }
        let mut quota = Quota::new(limits, EgressWindow::default());
        if let Some((session, team)) = session.and_then(|session| Some((session, session.teams.get(name)?))) {
            quota = quota.counted_in(session.quota_place(config.egress_group(name), &team.key));
        }
        let client = config.team_key(name).map_err(|error| error.to_string()).and_then(|key| {
            JellyClient::new(clients.clone(), base.clone(), token, key, quota, clock.clone())
                .map_err(|error| error.to_string())
        });
        let client = match client {
            Ok(client) => client,
            Err(error) => {
                findings.failed("token", &anyhow::anyhow!(error));
                continue;
            }
        };
        let begun = clock.now();
        let answer = tokio::time::timeout(PATIENCE, client.probe()).await;
        let answer = answer.unwrap_or_else(|_| Err(ApiError::Timeout(format!("{} s", PATIENCE.as_secs()))));
        if let Ok(Probe { served_at: Some(served_at), .. }) = &answer
            && !clock_told
        {
            // Somewhere between asking and now.
            let half = clock.now().duration_since(begun) / 2;
            findings.clock("Jelly", *served_at, begun + half);
            clock_told = true;
        }
        token_line(findings, name, &base, answer);
    }
}

fn token_line(findings: &mut Findings, name: &str, base: &BaseUrl, answer: Result<Probe, ApiError>) {
    let plan = "the team's plan may not include the API, or the token's owner may not use it: ask an owner of the team";
    match answer {
        Ok(Probe { refusal: None, .. }) => {
            let way = if base.is_loopback() { "on this machine" } else { "with a certificate that is trusted" };
            findings.ok("token", format!("{base} answers, {way}, and accepts the token of team {name} (one request)"));
        }
        Ok(Probe { refusal: Some((status, words)), .. }) => {
            findings.token_refused = true;
            let found = format!("Jelly refuses the token of team {name} ({status}: {words})");
            let advice = if status == 403 {
                plan
            } else {
                "copy the token again from Jelly's settings, or make a new one; then set it where this one is set"
            };
            findings.problem("token", found, advice);
        }
        Err(ApiError::Rejected { status: 402, words }) => {
            findings.problem("plan", format!("Jelly asks team {name} to pay (402: {words})"), plan);
        }
        Err(error @ ApiError::RateLimited { .. }) => {
            findings.warning("api", error.to_string(), "wait that long; what else uses this token or address?");
        }
        Err(error @ (ApiError::Timeout(_) | ApiError::Connection(_))) => findings.problem(
            "api",
            format!("{base}: {error}"),
            "check the network, --api-url, and `proxy` and `ca_file` under [http]",
        ),
        Err(error @ ApiError::Server { .. }) => {
            findings.problem("api", error.to_string(), "the fault is Jelly's: try again later");
        }
        Err(error) => findings.problem(
            "api",
            format!("{base}: {error}"),
            "check --api-url (JELLY_API_URL): it ends with /api, as in the default",
        ),
    }
}

/// What of the team's day and of its egress group's window is used.
async fn used_quota(session: Option<&Session>, name: &str, config: &Config) -> Option<(u64, u64)> {
    let session = session?;
    let (window, day) = (window_scope(config.egress_group(name)), day_scope(&session.teams.get(name)?.key));
    let used = session.catalog.used_requests(&[window.clone(), day.clone()]).await.ok()?;
    Some(used.of(&window, &day))
}

fn quota(findings: &mut Findings, name: &str, limits: QuotaLimits, (today, window): (u64, u64)) {
    let of = |limit: Option<u64>| limit.map_or_else(|| " (no limit)".into(), |limit| format!(" of {}", number(limit)));
    let found = format!(
        "team {name} has used {}{} requests today, {}{} in the last 5 minutes",
        number(today),
        of(limits.per_day),
        number(window),
        of(limits.per_window)
    );
    let full = |used: u64, limit: Option<u64>| limit.is_some_and(|limit| used >= limit);
    if full(today, limits.per_day) {
        findings.warning("quota", found, "nothing more is asked for before midnight UTC; a run waits or ends then");
    } else if full(window, limits.per_window) {
        findings.warning("quota", found, "a run waits until there is room again");
    } else {
        findings.ok("quota", found);
    }
}

/// Until when the service has asked a team, or its address, to send nothing.
async fn paused_until(session: Option<&Session>, name: &str, config: &Config, clock: &Clock) -> Option<String> {
    let session = session?;
    let scopes = [team_scope(session.teams.get(name)?.row), format!("egress:{}", config.egress_group(name))];
    let now_ms = clock.now().as_millisecond();
    let pauses = session.catalog.pauses().await.ok()?;
    // One for a refused token has no end; whether the token is accepted now is the question.
    let held = pauses.into_iter().filter(|pause| scopes.contains(&pause.scope) && pause.until_ms != i64::MAX);
    held.map(|pause| pause.until_ms).filter(|until| *until > now_ms).max().map(output::time)
}
