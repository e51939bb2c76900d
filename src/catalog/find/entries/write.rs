//! Writing entries of the index, and the words that they are found by.

use std::collections::HashMap;

use super::{Entry, NUMBER_BITS, OfAttachment, first_id};
use crate::catalog::engine::{Connection, query};
use crate::catalog::find::text::postgres_entry;
use crate::catalog::rows::{chunks, values};
use crate::catalog::{Result, at, json};

/// Writes the entries that come, in place of those that they are about; `number` is the last that an id was made of.
pub(super) async fn write(
    connection: &mut Connection,
    attachments: &mut HashMap<i64, OfAttachment>,
    number: &mut i64,
) -> Result<()> {
    let mut replaced: Vec<i64> = Vec::new();
    let mut shared: Vec<i64> = Vec::new();
    for (row, attachment) in attachments.iter_mut() {
        for (identity, entry) in &mut attachment.coming {
            let old = attachment.there.remove(identity);
            replaced.extend(old);
            // The same date keeps the same place, so that a page's end stays where it was.
            entry.id = old.filter(|id| id >> NUMBER_BITS == entry.second).unwrap_or_else(|| {
                *number += 1;
                first_id(entry.second) + *number
            });
        }
        if attachment.there.len() + attachment.coming.len() > 1 {
            shared.push(*row);
        }
    }
    let mut entries: Vec<&Entry> = attachments.values().flat_map(|attachment| attachment.coming.values()).collect();
    // The full-text index writes a part of its own for every step backwards.
    entries.sort_unstable_by_key(|entry| entry.id);
    replaced.sort_unstable();
    let (replaced, shared) = (json(&replaced), json(&shared));
    for statement in [
        connection.pick(
            "-- name: drop_find_text
            DELETE FROM find_text WHERE rowid IN (SELECT value FROM json_each($1))",
            "-- name: drop_find_text
            DELETE FROM find_text WHERE id IN (SELECT CAST(value AS BIGINT) FROM json_each($1))",
        ),
        "-- name: drop_find_entries
        DELETE FROM find_entries WHERE id IN (SELECT CAST(value AS INTEGER) FROM json_each($1))",
    ] {
        query(statement).bind(&replaced).execute(&mut *connection).await.map_err(at("drop_find_entries"))?;
    }
    for chunk in chunks(&entries) {
        add(connection, chunk).await?;
    }
    query(
        "-- name: mark_shared
        UPDATE find_entries SET shared = 1
        WHERE attachment_row IN (SELECT CAST(value AS INTEGER) FROM json_each($1))",
    )
    .bind(&shared)
    .execute(connection)
    .await
    .map_err(at("mark_shared"))?;
    Ok(())
}

/// Adds entries that are not there, in the order of their ids.
async fn add(connection: &mut Connection, entries: &[&Entry]) -> Result<()> {
    let sql = format!(
        "-- name: add_find_entries
        INSERT OR FAIL INTO find_entries (id, attachment_row, message_row, place, name, sender, content_type,
            sniffed_type, size_bytes, conversation_id, settled)
        VALUES {}",
        values(entries.len(), 11)
    );
    let mut adding = query(sql);
    for entry in entries {
        adding = adding
            .bind(entry.id)
            .bind(entry.attachment_row)
            .bind(entry.message_row)
            .bind(entry.place)
            .bind(entry.name.as_str())
            .bind(entry.sender.as_str())
            .bind(entry.content_type.as_str())
            .bind(entry.sniffed_type.as_deref())
            .bind(entry.size_bytes)
            .bind(entry.conversation_id.as_deref())
            .bind(entry.settled);
    }
    adding.execute(&mut *connection).await.map_err(at("add_find_entries"))?;
    if connection.is_postgres() { add_tokens(connection, entries).await } else { add_text(connection, entries).await }
}

/// Adds the words of entries to PostgreSQL's index.
async fn add_tokens(connection: &mut Connection, entries: &[&Entry]) -> Result<()> {
    let mut adding = query(format!(
        "-- name: add_find_tokens
        INSERT INTO find_text (id, tokens, words)
        SELECT id, tokens, array_to_tsvector(string_to_array(btrim(coalesce(lexemes, tokens)), ' '))
        FROM (VALUES {}) v (id, tokens, lexemes)",
        values(entries.len(), 3)
    ));
    for entry in entries {
        let (tokens, lexemes) = postgres_entry(&entry.name, &entry.subject, &entry.people);
        adding = adding.bind(entry.id).bind(tokens).bind(lexemes);
    }
    adding.execute(connection).await.map_err(at("add_find_tokens"))?;
    Ok(())
}

/// Adds the texts of entries to SQLite's index.
async fn add_text(connection: &mut Connection, entries: &[&Entry]) -> Result<()> {
    let sql = format!(
        "-- name: add_find_text
        INSERT INTO find_text (rowid, name, subject, people) VALUES {}",
        values(entries.len(), 4)
    );
    let mut query = query(sql);
    for entry in entries {
        query = query.bind(entry.id).bind(entry.name.as_str()).bind(entry.subject.as_str()).bind(entry.people.as_str());
    }
    query.execute(connection).await.map_err(at("add_find_text"))?;
    Ok(())
}
