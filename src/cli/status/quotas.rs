//! What of each team's request quota is used, and until when nothing more may be asked.

use serde::Serialize;

use crate::catalog::{TeamRow, day_scope, window_scope};
use crate::cli::output;
use crate::cli::receipt::number;
use crate::cli::session::{Session, limits_of};
use crate::http::BaseUrl;
use crate::jelly::QuotaLimits;
use crate::model::{Lane, TeamKey};

#[derive(Debug, Serialize)]
pub(super) struct QuotaJson {
    team: String,
    requests_today: u64,
    requests_in_window: u64,
    /// Until when no request fits; `null` while one does, and for a team that is not configured.
    used_up_until: Option<String>,
    /// The same for replays and backfills, which leave a share to webhooks.
    bulk_used_up_until: Option<String>,
}

/// Reads the quotas of an archive's teams. A used-up quota is no pause, and nothing is to be done about it.
pub(super) async fn gather(session: &Session, keys: &[(TeamRow, TeamKey)]) -> anyhow::Result<Vec<QuotaJson>> {
    let config = &session.config;
    let limits = QuotaLimits::resolve(&config.quota, BaseUrl::parse(&config.api.base_url)?.is_loopback());
    let mut teams = Vec::new();
    for (_, key) in keys {
        let name = session.teams.iter().find(|(_, team)| team.key == *key).map(|(name, _)| name.as_str());
        let (window, day) = (window_scope(config.egress_group(name.unwrap_or_default())), day_scope(key));
        teams.push((key, name, window, day));
    }
    let scopes: Vec<String> = teams.iter().flat_map(|(_, _, window, day)| [window.clone(), day.clone()]).collect();
    let used = session.catalog.used_requests(&scopes).await?;
    let lines = teams.iter().map(|(key, name, window, day)| {
        let (requests_today, requests_in_window) = used.of(window, day);
        let until = |lane| {
            let (of_window, of_day) = limits_of(config, limits, (*name)?).of(lane);
            used.fits_at_ms((window, day), of_window, of_day).map(output::time)
        };
        let (used_up_until, bulk_used_up_until) = (until(Lane::Live), until(Lane::Bulk));
        QuotaJson { team: key.to_string(), requests_today, requests_in_window, used_up_until, bulk_used_up_until }
    });
    Ok(lines.filter(|line| line.requests_today > 0 || line.requests_in_window > 0).collect())
}

/// One team's line.
pub(super) fn text(quota: &QuotaJson) -> String {
    let used_up = match (&quota.used_up_until, &quota.bulk_used_up_until) {
        (Some(until), _) => format!("; used up until {until}"),
        (None, Some(until)) => format!("; what replays and backfills may use of it is used up until {until}"),
        (None, None) => String::new(),
    };
    format!(
        "quota of {}: {} requests today, {} in the last 5 minutes{used_up}\n",
        quota.team,
        number(quota.requests_today),
        number(quota.requests_in_window)
    )
}
