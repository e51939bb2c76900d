//! The texts of payloads that were taken in: what is replayed again byte for byte is known by its text's digest, and need
//! not even be parsed. A cache: whatever is missing in it is found by its message lines.

use super::ingest::{count_column, numbers};
use super::rows::PACKED_KEYS;
use super::{Catalog, Result, TeamRow, at};
use crate::catalog::engine::{Connection, query, query_scalar};
use crate::digest::Digest;
use crate::model::AttachmentKey;

/// Stands for all that decides what is made of a text: what was taken in by others must be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RulesId(i64);

impl RulesId {
    /// Made of a digest over all of it.
    pub fn new(digest: Digest) -> Self {
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_bytes()[..8]);
        Self(i64::from_be_bytes(first))
    }
}

/// Texts of one team that were taken in: every message in them is in the catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TakenTexts {
    /// Digests of texts without attachments.
    pub bare: Vec<[u8; 16]>,
    /// A text's digest and that of one of its message lines, for each that has attachments.
    pub lines: Vec<([u8; 16], [u8; 16])>,
    /// A text's digest and the key of one of its attachments which the rules skip, wherever it stands.
    pub skipped: Vec<([u8; 16], AttachmentKey)>,
}

impl TakenTexts {
    /// How many there are, counting each line.
    pub const fn count(&self) -> usize {
        self.bare.len() + self.lines.len() + self.skipped.len()
    }

    /// Moves all of `other` to the end.
    pub fn append(&mut self, other: &mut Self) {
        self.bare.append(&mut other.bare);
        self.lines.append(&mut other.lines);
        self.skipped.append(&mut other.skipped);
    }
}

impl Catalog {
    /// Looks texts up by their digests: gives for each whether it was taken in before and would change nothing now, by
    /// the same rules. The attachments of those count as seen by this run.
    pub async fn meet_texts(&self, rules: RulesId, digests: &[[u8; 16]]) -> Result<Vec<bool>> {
        let mut known = vec![false; digests.len()];
        let mut seen = Vec::with_capacity(digests.len());
        let mut connection = self.connection().await;
        for (digests, known) in digests.chunks(PACKED_KEYS).zip(known.chunks_mut(PACKED_KEYS)) {
            // One row for all, and two numbers for each attachment: the first holds the text (below 4096), and whether
            // it is archived (1), or must be looked at again (2), as it is skipped but not by these rules.
            let found: Option<String> = query_scalar(
                "-- name: meet_texts
                SELECT group_concat(
                    (n.i * 4 + CASE
                        WHEN a.state = 'archived' THEN 1
                        WHEN a.state = 'skipped' THEN 2 * (1 - t.is_skipped)
                        WHEN a.id IS NULL THEN CASE t.attachment_row WHEN 0 THEN 0 ELSE 2 END
                        ELSE 0
                    END) || ' ' || t.attachment_row, ' ')
                FROM temp.ordinals n
                CROSS JOIN texts t ON t.digest = substr(?, n.i * 16 + 1, 16) AND t.rules = ?
                LEFT JOIN attachments a ON a.id = t.attachment_row
                WHERE n.i < ?",
            )
            .bind(digests.as_flattened())
            .bind(rules.0)
            .bind(count_column(digests.len()))
            .fetch_one(&mut connection)
            .await
            .map_err(at("meet_texts"))?;
            let found: Vec<usize> = numbers(found.as_deref()).collect();
            let (pairs, _) = found.as_chunks::<2>();
            for [packed, _] in pairs {
                known[packed >> 2] = true;
            }
            for [packed, _] in pairs.iter().filter(|[packed, _]| packed & 2 != 0) {
                known[packed >> 2] = false;
            }
            let met = pairs.iter().filter(|[packed, row]| known[packed >> 2] && *row != 0);
            seen.extend(met.map(|[packed, row]| (count_column(*row), packed & 1 != 0)));
        }
        self.see_soon(&mut connection, seen).await?;
        Ok(known)
    }

    /// Remembers texts, in one transaction. They may be forgotten at any time.
    pub async fn remember_texts(&self, team: TeamRow, rules: RulesId, texts: &mut TakenTexts) -> Result<()> {
        // So that each page of the table is changed once.
        texts.bare.sort_unstable();
        texts.lines.sort_unstable();
        let mut connection = self.connection().await;
        let mut transaction = connection.begin().await.map_err(at("begin_texts"))?;
        for bare in texts.bare.chunks(PACKED_KEYS) {
            let statement = "-- name: remember_bare_texts
                SELECT substr(?2, n.i * 16 + 1, 16), 0, ?4, 0 FROM temp.ordinals n WHERE n.i < ?3 AND ?1 IS NOT NULL";
            remember(&mut transaction, (team, rules), statement, bare.as_flattened().to_vec(), bare.len()).await?;
        }
        for lines in texts.lines.chunks(PACKED_KEYS) {
            let statement = "-- name: remember_texts
                SELECT substr(?2, n.i * 32 + 1, 16), l.attachment_row, ?4, 0 FROM temp.ordinals n
                CROSS JOIN messages m ON m.team_id = ?1 AND m.line_digest = substr(?2, n.i * 32 + 17, 16)
                CROSS JOIN links l ON l.message_row = m.id
                WHERE n.i < ?3";
            let packed = lines.iter().flat_map(|(text, line)| [*text, *line]).flatten().collect();
            remember(&mut transaction, (team, rules), statement, packed, lines.len()).await?;
        }
        for skipped in texts.skipped.chunks(PACKED_KEYS) {
            let statement = "-- name: remember_skipped_texts
                SELECT substr(?2, n.i * 32 + 1, 16), a.id, ?4, 1 FROM temp.ordinals n
                CROSS JOIN attachments a ON a.team_id = ?1 AND a.key = substr(?2, n.i * 32 + 17, 16)
                WHERE n.i < ?3";
            let packed = skipped.iter().flat_map(|(text, key)| [*text, *key.as_bytes()]).flatten().collect();
            remember(&mut transaction, (team, rules), statement, packed, skipped.len()).await?;
        }
        transaction.commit().await.map_err(at("commit_texts"))
    }
}

async fn remember(
    connection: &mut Connection,
    (team, rules): (TeamRow, RulesId),
    statement: &'static str,
    packed: Vec<u8>,
    count: usize,
) -> Result<()> {
    let (name, select) = statement.split_once("SELECT ").expect("a name, and then what is remembered");
    let sql = if connection.is_postgres() {
        format!(
            "{name}INSERT INTO texts (digest, attachment_row, rules, is_skipped) SELECT DISTINCT {select}
            ON CONFLICT (digest, attachment_row) DO UPDATE SET rules = excluded.rules, is_skipped = excluded.is_skipped"
        )
    } else {
        format!("{name}INSERT OR REPLACE INTO texts (digest, attachment_row, rules, is_skipped) SELECT {select}")
    };
    let query = query(sql).bind(team.0).bind(packed).bind(count_column(count)).bind(rules.0);
    query.execute(connection).await.map_err(at("remember_texts"))?;
    Ok(())
}

#[cfg(test)]
mod tests;
