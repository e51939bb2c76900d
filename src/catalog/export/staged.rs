//! The temporary tables of an export: what it puts there, in which the last or the least of what comes twice stays.

use std::collections::HashMap;

use super::{ExportConversation, ExportPlace, Exported};
use crate::catalog::engine::query;
use crate::catalog::report::unsigned;
use crate::catalog::{Catalog, Result, at, json};

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// What begins and ends an export: its tables.
const TABLES: [&str; 4] = ["export_places", "export_conversations", "exported", "export_lines"];

impl Catalog {
    /// Begins an export on this connection: its temporary tables are empty.
    pub async fn begin_export(&self) -> Result<()> {
        self.end_export().await?;
        let mut connection = self.connection().await;
        // Their keys come in no order: most pages of a million places should stay in memory while they are filled.
        connection.sqlite_only("PRAGMA temp.cache_size = -32000").await.map_err(at("begin_export"))?;
        for sql in [
            "CREATE TEMP TABLE export_places (id BLOB PRIMARY KEY, position BLOB NOT NULL, message_row INTEGER NOT NULL,
                place INTEGER NOT NULL, sha256 BLOB NOT NULL, size_bytes INTEGER NOT NULL, conversation BLOB) WITHOUT ROWID",
            "CREATE TEMP TABLE export_conversations (id BLOB PRIMARY KEY, position BLOB NOT NULL, sent_ms INTEGER,
                subject TEXT, folder TEXT) WITHOUT ROWID",
            "CREATE TEMP TABLE exported (id BLOB PRIMARY KEY, path TEXT COLLATE BINARY NOT NULL, sha256 BLOB NOT NULL,
                modified_ms INTEGER) WITHOUT ROWID",
            "CREATE INDEX temp.exported_sha256 ON exported (sha256, path) WHERE modified_ms IS NOT NULL",
            "CREATE TEMP TABLE export_lines (path TEXT COLLATE BINARY PRIMARY KEY, byte_offset INTEGER NOT NULL) WITHOUT ROWID",
        ] {
            query(sql).execute(&mut connection).await.map_err(at("begin_export"))?;
        }
        Ok(())
    }

    /// Ends an export: its temporary tables go.
    pub async fn end_export(&self) -> Result<()> {
        let mut connection = self.connection().await;
        for table in TABLES {
            query(format!("DROP TABLE IF EXISTS temp.{table}"))
                .execute(&mut connection)
                .await
                .map_err(at("end_export"))?;
        }
        Ok(())
    }

    /// Keeps places and conversations; of those with one id, the least in order.
    pub async fn stage_export(&self, places: &[ExportPlace], conversations: &[ExportConversation]) -> Result<()> {
        let mut least: HashMap<[u8; 16], &ExportPlace> = HashMap::new();
        for place in places {
            least
                .entry(place.id)
                .and_modify(|known| *known = if place.order < known.order { place } else { known })
                .or_insert(place);
        }
        let places: Vec<_> = least
            .values()
            .map(|place| {
                let (id, order, conversation) =
                    (hex(&place.id), hex(&place.order), place.conversation.map(|id| hex(&id)));
                (id, order, place.link.0, place.link.1, place.sha256, place.size_bytes, conversation)
            })
            .collect();
        let mut merged: HashMap<[u8; 16], ExportConversation> = HashMap::new();
        for one in conversations {
            match merged.get_mut(&one.id) {
                None => {
                    merged.insert(one.id, one.clone());
                }
                Some(known) if one.order < known.order => {
                    let folder = known.folder.take().or_else(|| one.folder.clone());
                    *known = ExportConversation { folder, ..one.clone() };
                }
                Some(_) => {}
            }
        }
        let conversations: Vec<_> = merged
            .values()
            .map(|one| (hex(&one.id), hex(&one.order), one.sent_ms, &one.subject, &one.folder))
            .collect();
        let mut connection = self.connection().await;
        let mut transaction = connection.begin().await.map_err(at("begin_stage"))?;
        query(
            "-- name: stage_places
            INSERT INTO temp.export_places (id, position, message_row, place, sha256, size_bytes, conversation)
            SELECT unhex(value ->> 0), unhex(value ->> 1), CAST(value ->> 2 AS BIGINT), CAST(value ->> 3 AS BIGINT),
                unhex(value ->> 4), CAST(value ->> 5 AS BIGINT), unhex(value ->> 6)
            FROM json_each($1) WHERE true
            ON CONFLICT (id) DO UPDATE SET position = excluded.position, message_row = excluded.message_row,
                place = excluded.place, conversation = excluded.conversation
            WHERE excluded.position < export_places.position",
        )
        .bind(json(&places))
        .execute(&mut transaction)
        .await
        .map_err(at("stage_places"))?;
        query(
            "-- name: stage_conversations
                INSERT INTO temp.export_conversations (id, position, sent_ms, subject, folder)
                SELECT unhex(value ->> 0), unhex(value ->> 1), CAST(value ->> 2 AS BIGINT), value ->> 3, value ->> 4
                FROM json_each($1) WHERE true
                ON CONFLICT (id) DO UPDATE SET position = excluded.position, sent_ms = excluded.sent_ms,
                    subject = excluded.subject, folder = coalesce(export_conversations.folder, excluded.folder)
                WHERE excluded.position < export_conversations.position",
        )
        .bind(json(&conversations))
        .execute(&mut transaction)
        .await
        .map_err(at("stage_conversations"))?;
        transaction.commit().await.map_err(at("commit_stage"))
    }

    /// Remembers paths that are given away; of those with one id, the last.
    pub async fn remember_exported(&self, exported: &[Exported]) -> Result<()> {
        let last: HashMap<&[u8; 16], &Exported> = exported.iter().map(|one| (&one.id, one)).collect();
        let rows: Vec<_> = last.values().map(|one| (hex(&one.id), &one.path, one.sha256, one.modified_ms)).collect();
        let mut connection = self.connection().await;
        query(
            "-- name: remember_exported
            INSERT INTO temp.exported (id, path, sha256, modified_ms)
            SELECT unhex(value ->> 0), value ->> 1, unhex(value ->> 2), CAST(value ->> 3 AS BIGINT) FROM json_each($1)
            WHERE true
            ON CONFLICT (id) DO UPDATE SET path = excluded.path, sha256 = excluded.sha256,
                modified_ms = excluded.modified_ms",
        )
        .bind(json(&rows))
        .execute(&mut connection)
        .await
        .map_err(at("remember_exported"))?;
        Ok(())
    }

    /// Remembers where in a file the lines of these paths begin; of those with one path, the last.
    pub async fn remember_lines(&self, lines: &[(String, u64)]) -> Result<()> {
        let lines: HashMap<&str, u64> = lines.iter().map(|(path, offset)| (path.as_str(), *offset)).collect();
        let lines: Vec<_> = lines.into_iter().collect();
        let mut connection = self.connection().await;
        query(
            "-- name: remember_lines
            INSERT INTO temp.export_lines (path, byte_offset)
            SELECT value ->> 0, CAST(value ->> 1 AS BIGINT) FROM json_each($1) WHERE true
            ON CONFLICT (path) DO UPDATE SET byte_offset = excluded.byte_offset",
        )
        .bind(json(&lines))
        .execute(&mut connection)
        .await
        .map_err(at("remember_lines"))?;
        Ok(())
    }

    /// The remembered lines in the order of their paths: at most `limit` after the path `after`.
    pub async fn lines_after(&self, after: &str, limit: u32) -> Result<Vec<(String, u64)>> {
        let mut connection = self.connection().await;
        let rows = query(
            "-- name: lines_after
            SELECT path, byte_offset FROM temp.export_lines WHERE path > $1 ORDER BY path LIMIT $2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&mut connection)
        .await
        .map_err(at("lines_after"))?;
        Ok(rows.iter().map(|row| (row.get(0), unsigned(row, 1))).collect())
    }
}
