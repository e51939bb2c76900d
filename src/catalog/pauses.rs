//! Who may not send requests, until when, and what was sent: what the service asked for, kept over restarts.

use super::{Catalog, Pause, Result, TeamRow, at, json};
use crate::catalog::engine::{Connection, query};

/// The scope of a team's pause.
pub fn team_scope(team: TeamRow) -> String {
    format!("team:{}", team.0)
}

/// The scope of the pause in which a person holds a team: it outlasts what the service asks for and takes back.
pub fn person_scope(team: TeamRow) -> String {
    format!("person:{}", team.0)
}

/// The scope of the pause of all teams that share an address.
pub fn egress_scope(group: &str) -> String {
    format!("egress:{group}")
}

/// Begins or changes a pause; the later end wins.
pub(super) async fn keep_pause(connection: &mut Connection, pause: &Pause) -> Result<()> {
    query(
        "-- name: keep_pause
        INSERT INTO pauses (scope, until, reason) VALUES ($1, $2, $3)
        ON CONFLICT (scope) DO UPDATE SET until = excluded.until, reason = excluded.reason
        WHERE excluded.until > pauses.until",
    )
    .bind(&pause.scope)
    .bind(pause.until_ms)
    .bind(&pause.reason)
    .execute(connection)
    .await
    .map_err(at("keep_pause"))?;
    Ok(())
}

impl Catalog {
    /// The pauses that are in force.
    pub async fn pauses(&self) -> Result<Vec<Pause>> {
        let mut connection = self.connection().await;
        let rows = query("-- name: pauses\nSELECT scope, until, reason FROM pauses WHERE until > $1 ORDER BY scope")
            .bind(self.clock.now_ms())
            .fetch_all(&mut connection)
            .await
            .map_err(at("pauses"))?;
        Ok(rows.iter().map(|row| Pause { scope: row.get(0), until_ms: row.get(1), reason: row.get(2) }).collect())
    }

    /// Begins a pause, or moves its end later.
    pub async fn pause(&self, pause: &Pause) -> Result<()> {
        let mut connection = self.connection().await;
        keep_pause(&mut connection, pause).await
    }

    /// Ends pauses, whoever began them. Gives how many were in force.
    pub async fn resume(&self, scopes: &[String]) -> Result<u64> {
        let mut connection = self.connection().await;
        let done =
            query("-- name: resume\nDELETE FROM pauses WHERE scope IN (SELECT value FROM json_each(?)) AND until > ?")
                .bind(json(&scopes))
                .bind(self.clock.now_ms())
                .execute(&mut connection)
                .await
                .map_err(at("resume"))?;
        Ok(done.rows_affected())
    }

    /// Ends a pause that has no end of its own: that of a refused token.
    pub async fn resume_refused(&self, scope: &str) -> Result<()> {
        let mut connection = self.connection().await;
        query("-- name: resume_refused\nDELETE FROM pauses WHERE scope = $1 AND until = $2")
            .bind(scope)
            .bind(i64::MAX)
            .execute(&mut connection)
            .await
            .map_err(at("resume_refused"))?;
        Ok(())
    }
}
