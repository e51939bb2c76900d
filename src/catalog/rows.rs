//! Batches as parameters: many rows in one `VALUES` list, and lists of keys in one packed BLOB. Both are several times
//! cheaper than JSON, which SQLite takes apart anew for every field.
//!
//! Such statements say `OR FAIL`, and have no `DO UPDATE`: else SQLite copies every page that they change to a temporary
//! file first, to undo one statement alone, and of random keys every row is a page of its own. A statement that fails
//! takes its whole transaction with it here.

use super::{Result, at};
use crate::catalog::engine::{Connection, query};

/// Rows of one statement, largest first: a few texts, so that each is prepared once.
const CHUNKS: [usize; 4] = [256, 32, 4, 1];
/// The most keys that one packed list may hold: the rows of `temp.ordinals`.
pub(super) const PACKED_KEYS: usize = 4096;

/// Cuts rows into pieces whose lengths are those of few prepared statements.
pub(super) fn chunks<T>(mut rows: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let length = CHUNKS.into_iter().find(|length| *length <= rows.len())?;
        let (chunk, rest) = rows.split_at(length);
        rows = rest;
        Some(chunk)
    })
}

/// `rows` rows of `columns` parameters each, for `VALUES`. Parameters have no numbers, as the driver looks for the name
/// of each that has one among all of them; so what all rows share stands in a row of its own beside them.
pub(super) fn values(rows: usize, columns: usize) -> String {
    let row = format!("(?{})", ",?".repeat(columns.saturating_sub(1)));
    let mut text = row.clone();
    for _ in 1..rows {
        text.push(',');
        text.push_str(&row);
    }
    text
}

/// Makes the temporary tables of a connection: `seen`, what this run has met; `ordinals`, the numbers that take a packed
/// list apart.
pub(super) async fn create_temporary(connection: &mut Connection) -> Result<()> {
    for statement in [
        "CREATE TEMP TABLE seen (attachment_row INTEGER PRIMARY KEY, known INTEGER NOT NULL)",
        "CREATE TEMP TABLE ordinals (i INTEGER PRIMARY KEY)",
        "INSERT INTO temp.ordinals (i)
            WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 4095) SELECT i FROM n",
    ] {
        query(statement).execute(&mut *connection).await.map_err(at("create_temporary"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_leave_no_row_out_and_have_few_lengths() {
        let rows: Vec<usize> = (0..1000).collect();
        for length in [0, 1, 3, 5, 31, 255, 256, 257, 1000] {
            let chunks: Vec<&[usize]> = chunks(&rows[..length]).collect();
            assert_eq!(chunks.concat(), rows[..length]);
            assert!(chunks.iter().all(|chunk| CHUNKS.contains(&chunk.len())));
        }
    }

    #[test]
    fn values_have_a_parameter_for_every_column_of_every_row() {
        assert_eq!(values(1, 1), "(?)");
        assert_eq!(values(2, 3), "(?,?,?),(?,?,?)");
    }
}
