//! Judging attachments anew by rules that have changed: the verdicts are kept in a temporary table, so that memory is
//! flat however many there are.

use std::collections::HashMap;

use serde::Serialize;

use super::{Catalog, IngestReference, Result, TeamRow, at, json};
use crate::catalog::engine::long_query as query;
use crate::catalog::report::unsigned;
use crate::model::AttachmentKey;

/// Attachments that become pending in one transaction.
const STEP: i64 = 5_000;

/// What rules say of attachments that have been judged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Skipped so far, and accepted now: to be fetched.
    pub accepted: u64,
    /// Their declared sizes together.
    pub accepted_bytes: u64,
    /// Those of them whose size is not declared.
    pub unknown_size: u64,
    /// Skipped so far, and still.
    pub still_skipped: u64,
    /// Archived, though the rules would skip them now. They stay.
    pub archived_against_rules: u64,
}

#[derive(Serialize)]
struct Verdict {
    k: String,
    a: bool,
}

impl Catalog {
    /// Begins anew: nothing is judged.
    pub async fn begin_judging(&self) -> Result<()> {
        let mut connection = self.connection().await;
        for statement in [
            "-- name: create_judged
            CREATE TEMP TABLE IF NOT EXISTS judged (attachment_row INTEGER PRIMARY KEY, accepted INTEGER NOT NULL)",
            "-- name: clear_judged\nDELETE FROM temp.judged",
        ] {
            query(statement).execute(&mut connection).await.map_err(at("begin_judging"))?;
        }
        Ok(())
    }

    /// Notes what the rules say of these references of one team. Any accepting reference wins over skips.
    pub async fn judge(&self, team: TeamRow, references: &[IngestReference]) -> Result<()> {
        let mut accepted: HashMap<AttachmentKey, bool> = HashMap::new();
        for reference in references {
            *accepted.entry(reference.key).or_default() |= reference.skip_rule.is_none();
        }
        let verdicts: Vec<Verdict> = accepted.iter().map(|(key, a)| Verdict { k: key.to_hex(), a: *a }).collect();
        let mut connection = self.connection().await;
        query(
            "-- name: judge
            INSERT INTO temp.judged (attachment_row, accepted)
            SELECT a.id, CASE WHEN CAST(j.value ->> 'a' AS BOOLEAN) THEN 1 ELSE 0 END FROM json_each($2) j
            CROSS JOIN attachments a ON a.team_id = $1 AND a.key = unhex(j.value ->> 'k')
            WHERE true
            ON CONFLICT (attachment_row) DO UPDATE SET accepted = max(judged.accepted, excluded.accepted)",
        )
        .bind(team.0)
        .bind(json(&verdicts))
        .execute(&mut connection)
        .await
        .map_err(at("judge"))?;
        Ok(())
    }

    /// What the verdicts come to.
    pub async fn judged(&self) -> Result<Judged> {
        let mut connection = self.connection().await;
        let row = query(
            "-- name: judged
            SELECT count(*) FILTER (WHERE a.state = 'skipped' AND j.accepted <> 0),
                CAST(sum(a.declared_size) FILTER (WHERE a.state = 'skipped' AND j.accepted <> 0) AS BIGINT),
                count(*) FILTER (WHERE a.state = 'skipped' AND j.accepted <> 0 AND a.declared_size IS NULL),
                count(*) FILTER (WHERE a.state = 'skipped' AND j.accepted = 0),
                count(*) FILTER (WHERE a.state = 'archived' AND j.accepted = 0)
            FROM temp.judged j CROSS JOIN attachments a ON a.id = j.attachment_row",
        )
        .fetch_one(&mut connection)
        .await
        .map_err(at("judged"))?;
        Ok(Judged {
            accepted: unsigned(&row, 0),
            accepted_bytes: unsigned(&row, 1),
            unknown_size: unsigned(&row, 2),
            still_skipped: unsigned(&row, 3),
            archived_against_rules: unsigned(&row, 4),
        })
    }

    /// Makes pending what is skipped and was judged to be accepted, in bounded transactions; it counts as seen by this
    /// run. Their skips stay in the journal, where an `archived` wins over them. Gives how many. Repeating it changes
    /// nothing.
    pub async fn enqueue_accepted(&self) -> Result<u64> {
        let mut enqueued = 0;
        loop {
            let mut connection = self.seen_connection().await?;
            let mut transaction = connection.begin().await.map_err(at("begin_enqueue"))?;
            let rows: Option<String> = query(
                "-- name: accepted_rows
                SELECT '[' || group_concat(CAST(row_id AS TEXT), ',') || ']' FROM
                    (SELECT a.id AS row_id FROM temp.judged j CROSS JOIN attachments a ON a.id = j.attachment_row
                    WHERE j.accepted <> 0 AND a.state = 'skipped' LIMIT $1) rows",
            )
            .bind(STEP)
            .fetch_one(&mut transaction)
            .await
            .map_err(at("accepted_rows"))?
            .get(0);
            let Some(rows) = rows else { return Ok(enqueued) };
            let done = query(
                "-- name: enqueue_accepted
                UPDATE attachments SET state = 'pending', reason = NULL, attempts = 0, not_found_count = 0,
                    not_before = 0, lane = 1, updated_at = $2
                WHERE state = 'skipped' AND id IN (SELECT CAST(value AS BIGINT) FROM json_each($1))",
            )
            .bind(&rows)
            .bind(self.clock.now_ms())
            .execute(&mut transaction)
            .await
            .map_err(at("enqueue_accepted"))?;
            for (statement, name) in [
                (
                    "-- name: see_accepted
                    INSERT OR IGNORE INTO temp.seen (attachment_row, known) SELECT CAST(value AS BIGINT), 0 FROM json_each($1)",
                    "see_accepted",
                ),
                (
                    "-- name: judged_no_more
                    DELETE FROM temp.judged WHERE attachment_row IN (SELECT CAST(value AS BIGINT) FROM json_each($1))",
                    "judged_no_more",
                ),
            ] {
                query(statement).bind(&rows).execute(&mut transaction).await.map_err(at(name))?;
            }
            super::find::unsettle(&mut transaction, &rows).await?;
            transaction.commit().await.map_err(at("commit_enqueue"))?;
            enqueued += done.rows_affected();
        }
    }
}
