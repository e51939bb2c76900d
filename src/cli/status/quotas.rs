//! What of each team's request quota is used, as it was last kept, and until when nothing more may be asked.

use std::time::Duration;

use serde::Serialize;

use crate::catalog::TeamRow;
use crate::cli::output;
use crate::cli::receipt::number;
use crate::cli::session::{EgressWindows, Session, limits_of};
use crate::http::BaseUrl;
use crate::jelly::{Quota, QuotaLimits, QuotaState};
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
    let (config, now) = (&session.config, session.clock.now());
    let limits = QuotaLimits::resolve(&config.quota, BaseUrl::parse(&config.api.base_url)?.is_loopback());
    let windows = EgressWindows::default();
    let mut kept = Vec::new();
    for (_, key) in keys {
        let text = session.catalog.quota_window(&format!("team:{key}")).await?;
        let Some(state) = text.and_then(|text| serde_json::from_str::<QuotaState>(&text).ok()) else { continue };
        let name = session.teams.iter().find(|(_, team)| team.key == *key).map(|(name, _)| name);
        let quota = name.map(|name| {
            let limits = limits_of(config, limits, name);
            let quota = Quota::new(limits, windows.of(config.egress_group(name)));
            quota.restore(&state);
            (limits, quota)
        });
        kept.push((key, state, quota));
    }
    // Only now, as teams share windows.
    let lines = kept.into_iter().map(|(key, state, quota)| {
        let (requests_today, requests_in_window) = state.used(now);
        let until = |lane| {
            let (limits, quota) = quota.as_ref()?;
            let left = quota.left(now);
            let (of_window, of_day) = match lane {
                Lane::Live => (0, 0),
                Lane::Bulk => (limits.live_of_window, limits.live_of_day),
            };
            let is_used_up = |left: Option<(u64, u64)>, kept: u64| left.is_some_and(|(left, _)| left <= kept);
            // Taken where it is sure to be refused alone: each look must leave it as it is.
            let is_refused = is_used_up(left.of_window, of_window) || is_used_up(left.of_day, of_day);
            let wait = is_refused.then(|| quota.try_take(now, lane).err())??;
            Some(output::time(now.as_millisecond().saturating_add(milliseconds(wait))))
        };
        let (used_up_until, bulk_used_up_until) = (until(Lane::Live), until(Lane::Bulk));
        QuotaJson { team: key.to_string(), requests_today, requests_in_window, used_up_until, bulk_used_up_until }
    });
    Ok(lines.collect())
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
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
