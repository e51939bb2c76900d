//! Requests that were counted against quotas, for every process that works on this catalog. They are given out in blocks
//! and count from then on, in the 5-second slot in which they were given out and in the team's UTC day.
//!
//! A slot counts until 305 s after its end. Whoever sends what it was given before the slot's end thus exceeds no window,
//! wherever that begins, and has 5 s left for delays on the way.

use std::collections::BTreeMap;

use super::engine::{Connection, Row, query, query_scalar};
use super::{Catalog, Result, at, json};

/// The length of a slot.
pub const SLOT_MS: i64 = 5_000;
/// How long a slot counts from its start on.
pub const SLOT_COUNTS_MS: i64 = 310_000;
const DAY_MS: i64 = 86_400_000;
/// Of what is left, one process is given at most this part at once: so many that ask share the last of it.
const PART: i64 = 16;
/// The wait where it cannot be told from what this catalog counts.
const LOOK_AGAIN_MS: i64 = 5_000;

/// The scope of an egress group's window.
pub fn window_scope(egress_group: &str) -> String {
    format!("egress:{egress_group}")
}

/// The scope of a team's day, by its name in the archive.
pub fn day_scope(team: &crate::model::TeamKey) -> String {
    format!("team:{team}")
}

/// Requests that were given out and will not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnusedRequests {
    /// How many.
    pub requests: u64,
    /// The start of the slot in which they count.
    pub slot_ms: i64,
    /// The UTC day in which they count.
    pub day: i64,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct RequestWish<'a> {
    /// The egress group's scope.
    pub window: &'a str,
    /// The team's scope.
    pub team: &'a str,
    /// At most so many are given out.
    pub wanted: u64,
    /// So many may be used of the window in all; `None` is no limit.
    pub of_window: Option<u64>,
    /// So many may be used of the day in all; `None` is no limit.
    pub of_day: Option<u64>,
    /// What other catalogs count in the same window.
    pub elsewhere: u64,
    /// What is given back first.
    pub unused: Option<UnusedRequests>,
}

/// What was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenRequests {
    /// How many. They may be sent until `slot_ms` + [`SLOT_MS`].
    pub requests: u64,
    /// The catalog's time.
    pub now_ms: i64,
    /// The slot in which they count.
    pub slot_ms: i64,
    /// The UTC day in which they count.
    pub day: i64,
    /// What is used of that slot, these included.
    pub slot_used: u64,
    /// What is used of that day, these included.
    pub day_used: u64,
    /// Where nothing was given: how long until one fits.
    pub wait_ms: u64,
}

/// What is used: for each scope, its slots or days, and the requests of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsedRequests {
    scopes: BTreeMap<String, BTreeMap<i64, u64>>,
    /// The catalog's time.
    pub now_ms: i64,
}

impl UsedRequests {
    /// The slots of a window that still count, by their start.
    pub fn slots(&self, window: &str) -> BTreeMap<i64, u64> {
        let slots = self.scopes.get(window).into_iter().flatten();
        slots.map(|(slot, used)| (*slot, *used)).filter(|(slot, _)| slot + SLOT_COUNTS_MS > self.now_ms).collect()
    }

    /// The UTC day and what a team has used of it.
    pub fn day(&self, team: &str) -> (i64, u64) {
        let today = self.now_ms.div_euclid(DAY_MS);
        let days = self.scopes.get(team);
        // The later one, where the clock was set back over midnight.
        let used = |day| Some((day, *days?.get(&day)?));
        used(today + 1).or_else(|| used(today)).unwrap_or((today, 0))
    }

    /// What is used: of the team's day, and of the last 5 minutes of its egress group.
    pub fn of(&self, window: &str, team: &str) -> (u64, u64) {
        let recent = self.slots(window).into_iter().filter(|(slot, _)| *slot > self.now_ms - 300_000);
        (self.day(team).1, recent.map(|(_, used)| used).sum())
    }

    /// When one request fits again, where so many may be used of the window and of the day in all; `None` where one fits now.
    pub fn fits_at_ms(&self, (window, team): (&str, &str), of_window: Option<u64>, of_day: Option<u64>) -> Option<i64> {
        let (day, today) = self.day(team);
        let of_day = of_day.filter(|limit| today >= *limit).map(|_| (day + 1) * DAY_MS);
        let slots = self.slots(window);
        let used: u64 = slots.values().sum();
        let of_window = of_window.filter(|limit| used >= *limit).map(|limit| {
            let mut left = used;
            let goes = slots.iter().find(|(_, used)| {
                left = left.saturating_sub(**used);
                left < limit
            });
            goes.map_or(self.now_ms + SLOT_COUNTS_MS - SLOT_MS, |(slot, _)| slot + SLOT_COUNTS_MS)
        });
        of_day.max(of_window)
    }
}

impl Catalog {
    /// Gives out requests, or tells how long until one fits. Dropped, it may have given them out: they count then, and
    /// nobody sends them.
    pub async fn take_requests(&self, wish: &RequestWish<'_>) -> Result<GivenRequests> {
        let mut connection = self.connection().await;
        if connection.is_postgres() {
            return take_in_postgres(&mut connection, wish, self.clock.fixed_ms()).await;
        }
        let mut transaction = connection.begin().await.map_err(at("begin_take_requests"))?;
        // The time once it is this one's turn.
        let given = take(&mut transaction, wish, self.clock.now_ms()).await?;
        transaction.commit().await.map_err(at("commit_take_requests"))?;
        Ok(given)
    }

    /// The time by which requests are counted.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// What is used of these scopes.
    pub async fn used_requests(&self, scopes: &[String]) -> Result<UsedRequests> {
        let mut connection = self.connection().await;
        let rows = query(
            "-- name: used_requests
            SELECT scope, slot, used FROM quota_slots WHERE scope IN (SELECT value FROM json_each(?))",
        )
        .bind(json(&scopes))
        .fetch_all(&mut connection)
        .await
        .map_err(at("used_requests"))?;
        let mut used = UsedRequests { scopes: BTreeMap::new(), now_ms: self.clock.now_ms() };
        for row in &rows {
            used.scopes.entry(row.get(0)).or_default().insert(row.get(1), number(row, 2));
        }
        Ok(used)
    }

    /// Takes over what an earlier version has counted, once: for each team its window's scope, and its own.
    pub async fn adopt_quota_windows(&self, teams: &[(String, String)]) -> Result<()> {
        if self.is_shared() {
            // No version kept it there.
            return Ok(());
        }
        let mut connection = self.connection().await;
        let rows = query("-- name: kept_quota_windows\nSELECT scope, state FROM quota_windows")
            .fetch_all(&mut connection)
            .await
            .map_err(at("kept_quota_windows"))?;
        let kept: BTreeMap<String, String> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        for (window, team) in teams {
            if let Some(kept) = kept.get(team) {
                adopt(&mut connection, window, team, kept).await?;
            }
        }
        Ok(())
    }
}

/// Takes over what was kept of one team.
async fn adopt(connection: &mut Connection, window: &str, team: &str, kept: &str) -> Result<()> {
    let mut transaction = connection.begin().await.map_err(at("begin_adopt_quota"))?;
    // Each team's row holds the slots of its whole group: the larger count of a slot holds.
    for (statement, scope) in [
        (
            "-- name: adopt_window
            INSERT INTO quota_slots (scope, slot, used)
            SELECT ?, value ->> 0, value ->> 1
            FROM json_each(CASE WHEN json_valid(?2) THEN ?2 ELSE '{}' END, '$.slots')
            WHERE true
            ON CONFLICT (scope, slot) DO UPDATE SET used = max(quota_slots.used, excluded.used)",
            window,
        ),
        (
            "-- name: adopt_day
            INSERT INTO quota_slots (scope, slot, used)
            SELECT ?, ?2 ->> '$.day', ?2 ->> '$.day_used' WHERE json_valid(?2) AND ?2 ->> '$.day_used' IS NOT NULL
            ON CONFLICT (scope, slot) DO UPDATE SET used = max(quota_slots.used, excluded.used)",
            team,
        ),
    ] {
        let adopted = query(statement).bind(scope).bind(kept);
        adopted.execute(&mut transaction).await.map_err(at("adopt_quota"))?;
    }
    query("-- name: forget_quota_window\nDELETE FROM quota_windows WHERE scope = ?")
        .bind(team)
        .execute(&mut transaction)
        .await
        .map_err(at("forget_quota_window"))?;
    transaction.commit().await.map_err(at("commit_adopt_quota"))
}

/// A count; none is negative.
fn number(row: &Row, column: usize) -> u64 {
    u64::try_from(row.get::<i64>(column)).unwrap_or(0)
}

/// A number as the database has it.
fn signed(number: u64) -> i64 {
    // Limits are configured up to 1e9; what is larger than the database's numbers is no limit.
    i64::try_from(number).unwrap_or(i64::MAX).min(i64::MAX / PART)
}

/// The function `take_requests` of its migrations does it there, in one round trip.
async fn take_in_postgres(
    connection: &mut Connection,
    wish: &RequestWish<'_>,
    fixed_ms: Option<i64>,
) -> Result<GivenRequests> {
    let row = query(
        "-- name: take_requests
        SELECT granted, at_ms, slot_ms, today, slot_used, day_used, wait_ms
        FROM take_requests(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(wish.window)
    .bind(wish.team)
    .bind(signed(wish.wanted))
    .bind(wish.of_window.map(signed))
    .bind(wish.of_day.map(signed))
    .bind(signed(wish.elsewhere))
    .bind(wish.unused.map_or(0, |unused| unused.slot_ms))
    .bind(wish.unused.map_or(0, |unused| unused.day))
    .bind(wish.unused.map_or(0, |unused| signed(unused.requests)))
    .bind(fixed_ms)
    .fetch_one(connection)
    .await
    .map_err(at("take_requests"))?;
    Ok(GivenRequests {
        requests: number(&row, 0),
        now_ms: row.get(1),
        slot_ms: row.get(2),
        day: row.get(3),
        slot_used: number(&row, 4),
        day_used: number(&row, 5),
        wait_ms: number(&row, 6),
    })
}

/// What PostgreSQL's function does, on SQLite.
async fn take(connection: &mut Connection, wish: &RequestWish<'_>, now_ms: i64) -> Result<GivenRequests> {
    let slot_ms = now_ms - now_ms.rem_euclid(SLOT_MS);
    if let Some(UnusedRequests { requests, slot_ms, day }) = wish.unused {
        for (scope, slot) in [(wish.window, slot_ms), (wish.team, day)] {
            count(connection, scope, slot, -signed(requests)).await?;
        }
    }
    settle_window(connection, wish.window, now_ms, slot_ms).await?;
    let day = settle_day(connection, wish.team, now_ms.div_euclid(DAY_MS)).await?;
    let window_used = used(connection, wish.window).await?;
    let day_used = used(connection, wish.team).await?;
    let elsewhere = signed(wish.elsewhere);
    let left_of_window = wish.of_window.map(|limit| signed(limit) - elsewhere - window_used);
    let left_of_day = wish.of_day.map(|limit| signed(limit) - day_used);
    let wanted = signed(wish.wanted);
    let left = left_of_window.into_iter().chain(left_of_day).min();
    let requests = match left {
        None => wanted,
        Some(left) if left > 0 => wanted.min((left / PART).max(1)),
        Some(_) => 0,
    };
    let mut wait_ms = 0;
    if wanted > 0 && left.is_some_and(|left| left <= 0) {
        if left_of_day.is_some_and(|left| left <= 0) {
            wait_ms = (day + 1) * DAY_MS - now_ms;
        }
        if let Some(left) = left_of_window.filter(|left| *left <= 0) {
            let gone_ms = gone_ms(connection, wish.window, 1 - left).await?;
            let unknown_ms = if elsewhere > 0 { LOOK_AGAIN_MS } else { SLOT_COUNTS_MS - SLOT_MS };
            wait_ms = wait_ms.max(gone_ms.map_or(unknown_ms, |gone_ms| gone_ms - now_ms));
        }
    }
    if requests > 0 {
        count(connection, wish.window, slot_ms, requests).await?;
        count(connection, wish.team, day, requests).await?;
    }
    let slot_used: Option<i64> =
        query_scalar("-- name: slot_used\nSELECT used FROM quota_slots WHERE scope = ? AND slot = ?")
            .bind(wish.window)
            .bind(slot_ms)
            .fetch_optional(connection)
            .await
            .map_err(at("slot_used"))?;
    Ok(GivenRequests {
        requests: requests.unsigned_abs(),
        now_ms,
        slot_ms,
        day,
        slot_used: slot_used.unwrap_or(0).unsigned_abs(),
        day_used: (day_used + requests).unsigned_abs(),
        wait_ms: wait_ms.unsigned_abs(),
    })
}

/// Counts requests in a slot or a day. What is given back of one that is forgotten is forgotten, too.
async fn count(connection: &mut Connection, scope: &str, slot: i64, requests: i64) -> Result<()> {
    let sql = if requests < 0 {
        "-- name: give_requests_back
        UPDATE quota_slots SET used = max(used + ?, 0) WHERE scope = ? AND slot = ?"
    } else {
        "-- name: count_requests
        INSERT INTO quota_slots (used, scope, slot) VALUES (?, ?, ?)
        ON CONFLICT (scope, slot) DO UPDATE SET used = quota_slots.used + excluded.used"
    };
    let counted = query(sql).bind(requests).bind(scope).bind(slot).execute(connection).await;
    counted.map_err(at("count_requests")).map(|_| ())
}

/// Forgets what no longer counts. Slots of a future (the clock was set back) count as taken now.
async fn settle_window(connection: &mut Connection, scope: &str, now_ms: i64, slot_ms: i64) -> Result<()> {
    let ahead: Option<i64> =
        query_scalar("-- name: requests_ahead\nSELECT sum(used) FROM quota_slots WHERE scope = ? AND slot > ?")
            .bind(scope)
            .bind(slot_ms)
            .fetch_one(connection)
            .await
            .map_err(at("requests_ahead"))?;
    query("-- name: forget_slots\nDELETE FROM quota_slots WHERE scope = ? AND (slot <= ? OR slot > ?)")
        .bind(scope)
        .bind(now_ms - SLOT_COUNTS_MS)
        .bind(slot_ms)
        .execute(connection)
        .await
        .map_err(at("forget_slots"))?;
    match ahead {
        Some(ahead) => count(connection, scope, slot_ms, ahead).await,
        None => Ok(()),
    }
}

/// Gives the day that counts. A clock that was set back does not give a used day again.
async fn settle_day(connection: &mut Connection, scope: &str, today: i64) -> Result<i64> {
    let day: Option<i64> =
        query_scalar("-- name: quota_day\nSELECT max(slot) FROM quota_slots WHERE scope = ? AND slot IN (?, ?)")
            .bind(scope)
            .bind(today)
            .bind(today + 1)
            .fetch_one(connection)
            .await
            .map_err(at("quota_day"))?;
    let day = day.unwrap_or(today);
    query("-- name: forget_days\nDELETE FROM quota_slots WHERE scope = ? AND slot <> ?")
        .bind(scope)
        .bind(day)
        .execute(connection)
        .await
        .map_err(at("forget_days"))?;
    Ok(day)
}

async fn used(connection: &mut Connection, scope: &str) -> Result<i64> {
    let used: Option<i64> =
        query_scalar("-- name: requests_in_scope\nSELECT sum(used) FROM quota_slots WHERE scope = ?")
            .bind(scope)
            .fetch_one(connection)
            .await
            .map_err(at("requests_in_scope"))?;
    Ok(used.unwrap_or(0))
}

/// When so many requests of a window no longer count.
async fn gone_ms(connection: &mut Connection, scope: &str, requests: i64) -> Result<Option<i64>> {
    let slot: Option<i64> = query_scalar(
        "-- name: slot_that_goes
        SELECT min(slot) FROM (
            SELECT slot, sum(used) OVER (ORDER BY slot) AS gone FROM quota_slots WHERE scope = ?
        ) WHERE gone >= ?",
    )
    .bind(scope)
    .bind(requests)
    .fetch_one(connection)
    .await
    .map_err(at("slot_that_goes"))?;
    Ok(slot.map(|slot| slot + SLOT_COUNTS_MS))
}

#[cfg(test)]
mod tests;
