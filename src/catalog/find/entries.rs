//! The index of `find`, filled behind the ingest: in steps, each one transaction, from the messages that it does not
//! know yet. A message that was seen again counts as it was seen last.

use std::collections::{BTreeMap, HashMap};

use super::text::indexed;
use crate::catalog::engine::{Connection, query, query_scalar};
use crate::catalog::rows::{chunks, values};
use crate::catalog::{Catalog, People, Result, at, json};
use crate::filter::{address, essence};

/// Messages that are indexed in one transaction: it holds the catalog for about a tenth of a second.
const STEP_MESSAGES: i64 = 5_000;
/// From so many unknown messages on, if they are more than the index knows, it is filled without the indexes below:
/// names, senders and sizes come in no order, and each step would write nearly every page of theirs again.
const BULK_MESSAGES: i64 = 50_000;
/// What a large fill goes without, by name: created as the migrations create it.
const DEFERRED: [(&str, &str); 4] = [
    ("find_entries_name", "CREATE INDEX IF NOT EXISTS find_entries_name ON find_entries (name)"),
    ("find_entries_sender", "CREATE INDEX IF NOT EXISTS find_entries_sender ON find_entries (sender)"),
    ("find_entries_size", "CREATE INDEX IF NOT EXISTS find_entries_size ON find_entries (size_bytes)"),
    (
        "find_entries_conversation",
        "CREATE INDEX IF NOT EXISTS find_entries_conversation ON find_entries (conversation_id)
            WHERE conversation_id IS NOT NULL",
    ),
];
/// The part of an entry's id that is a number.
const NUMBER_BITS: u32 = 30;

/// The last second that an id can tell, in the year 2242.
const LAST_SECOND: i64 = (1 << 33) - 1;

/// The ids of entries that were sent in or after this second begin here. What has no date comes before all.
pub(super) fn first_id(second: i64) -> i64 {
    second.clamp(0, LAST_SECOND) << NUMBER_BITS
}

#[derive(Debug, Clone)]
struct Entry {
    id: i64,
    attachment_row: i64,
    message_row: i64,
    place: i64,
    name: String,
    sender: String,
    content_type: String,
    sniffed_type: Option<String>,
    size_bytes: i64,
    conversation_id: Option<String>,
    settled: bool,
    subject: String,
    people: String,
    second: i64,
}

/// One message of one attachment: its id, or its row where it has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    Id(String),
    Row(i64),
}

/// The entries of one attachment, by message: those that are there, and those that come.
#[derive(Debug, Default)]
struct OfAttachment {
    there: BTreeMap<Identity, i64>,
    coming: BTreeMap<Identity, Entry>,
}

/// Empties the index; the next step begins anew.
pub(in crate::catalog) async fn forget(connection: &mut Connection) -> Result<()> {
    for statement in [
        "-- name: forget_find_entries\nDELETE FROM find_entries",
        "-- name: forget_find_text\nINSERT INTO find_text (find_text) VALUES ('delete-all')",
        "-- name: forget_find_progress\nUPDATE find_progress SET message_row = 0, entries = 0",
    ] {
        query(statement).execute(&mut *connection).await.map_err(at("forget_find"))?;
    }
    Ok(())
}

/// Notes that size and type of these attachments' entries may change.
pub(in crate::catalog) async fn unsettle(connection: &mut Connection, rows: &str) -> Result<()> {
    query(
        "-- name: unsettle_find_entries
        UPDATE find_entries SET settled = 0 WHERE attachment_row IN (SELECT value FROM json_each($1))",
    )
    .bind(rows)
    .execute(connection)
    .await
    .map_err(at("unsettle_find_entries"))?;
    Ok(())
}

impl Catalog {
    /// About how many messages the index of `find` does not know yet.
    pub async fn unindexed_messages(&self) -> Result<u64> {
        let mut connection = self.connection().await;
        let count: i64 = query_scalar(
            "-- name: unindexed_messages
            SELECT (SELECT coalesce(max(id), 0) FROM messages) - message_row FROM find_progress",
        )
        .fetch_one(&mut *connection)
        .await
        .map_err(at("unindexed_messages"))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Takes the next messages into the index of `find`, or makes an index that a large fill left out, in one
    /// transaction. Gives whether there may be more to do.
    pub async fn index_messages(&self) -> Result<bool> {
        let unknown = self.unindexed_messages().await?;
        let mut connection = self.connection().await;
        if unknown == 0 {
            return make_deferred(&mut connection).await;
        }
        let mut transaction = connection.begin().await.map_err(at("begin_index"))?;
        let progress = query("-- name: find_progress\nSELECT message_row, entries FROM find_progress")
            .fetch_one(&mut transaction)
            .await
            .map_err(at("find_progress"))?;
        let (from, mut number): (i64, i64) = (progress.get(0), progress.get(1));
        let unknown = i64::try_from(unknown).unwrap_or(i64::MAX);
        if unknown > BULK_MESSAGES.max(from) {
            let drops: Vec<String> = DEFERRED.iter().map(|(name, _)| format!("DROP INDEX IF EXISTS {name};")).collect();
            transaction.run(drops.concat()).await.map_err(at("drop_find_indexes"))?;
        }
        let last: Option<i64> = query_scalar(
            "-- name: last_of_step
            SELECT max(id) FROM (SELECT id FROM messages WHERE id > $1 ORDER BY id LIMIT $2)",
        )
        .bind(from)
        .bind(STEP_MESSAGES)
        .fetch_one(&mut *transaction)
        .await
        .map_err(at("last_of_step"))?;
        let Some(last) = last else { return Ok(false) };
        let mut attachments = coming(&mut transaction, from, last).await?;
        there(&mut transaction, &mut attachments).await?;
        write(&mut transaction, &mut attachments, &mut number).await?;
        query("-- name: keep_find_progress\nUPDATE find_progress SET message_row = $1, entries = $2")
            .bind(last)
            .bind(number)
            .execute(&mut *transaction)
            .await
            .map_err(at("keep_find_progress"))?;
        transaction.commit().await.map_err(at("commit_index"))?;
        Ok(true)
    }

    /// Brings size and type of entries up to date whose attachments have their place by now; at most `limit` are looked
    /// at. With `seen`, also those that this run has met.
    pub async fn settle_entries(&self, limit: u64, seen: bool) -> Result<()> {
        let mut connection = self.connection().await;
        if seen {
            query(
                "-- name: unsettle_seen
                UPDATE find_entries SET settled = 0 WHERE settled = 1 AND attachment_row IN
                    (SELECT attachment_row FROM temp.seen WHERE known = 0)",
            )
            .execute(&mut *connection)
            .await
            .map_err(at("unsettle_seen"))?;
        }
        query(
            "-- name: settle_entries
            UPDATE find_entries SET settled = 1, sniffed_type = a.sniffed_type,
                size_bytes = coalesce(a.size_bytes, a.declared_size, -1)
            FROM (SELECT id AS entry, attachment_row AS row FROM find_entries WHERE settled = 0 LIMIT $1) u
            CROSS JOIN attachments a ON a.id = u.row AND a.state IN ('archived', 'skipped', 'erased')
            WHERE find_entries.id = u.entry",
        )
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .execute(&mut *connection)
        .await
        .map_err(at("settle_entries"))?;
        Ok(())
    }
}

/// Makes one index that a large fill left out, or whose filler died; `false` where none is missing.
async fn make_deferred(connection: &mut Connection) -> Result<bool> {
    let present: Vec<String> = query_scalar(
        "-- name: find_indexes
        SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'find_entries'",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(at("find_indexes"))?;
    let Some((_, create)) = DEFERRED.iter().find(|(name, _)| !present.iter().any(|one| one == name)) else {
        return Ok(false);
    };
    query(*create).execute(connection).await.map_err(at("create_find_index"))?;
    Ok(true)
}

/// What the messages above `from`, up to `last`, bring.
async fn coming(connection: &mut Connection, from: i64, last: i64) -> Result<HashMap<i64, OfAttachment>> {
    let rows = query(
        "-- name: messages_to_index
        SELECT m.id, m.message_id, m.subject, m.sender, m.people, m.sent_at, m.conversation_id, l.place,
            l.attachment_row, l.name, l.content_type, a.state, a.sniffed_type,
            coalesce(a.size_bytes, a.declared_size, l.declared_size, -1)
        FROM messages m CROSS JOIN links l ON l.message_row = m.id CROSS JOIN attachments a ON a.id = l.attachment_row
        WHERE m.id > $1 AND m.id <= $2 ORDER BY m.id, l.place DESC",
    )
    .bind(from)
    .bind(last)
    .fetch_all(connection)
    .await
    .map_err(at("messages_to_index"))?;
    let mut attachments: HashMap<i64, OfAttachment> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let text = |column: usize| row.get::<Option<&str>>(column);
        let message_row: i64 = row.get(0);
        let people = People::read(text(4), text(3));
        let sent = text(5).and_then(|text| text.trim().parse::<jiff::Timestamp>().ok());
        let everyone: Vec<&str> =
            [&people.from, &people.to, &people.cc].into_iter().flatten().map(String::as_str).collect();
        let entry = Entry {
            id: 0,
            attachment_row: row.get(8),
            message_row,
            place: row.get(7),
            name: indexed(text(9).unwrap_or_default()),
            sender: indexed(&address(text(3).unwrap_or_default())),
            content_type: indexed(&essence(text(10).unwrap_or_default())),
            sniffed_type: text(12).map(str::to_owned),
            size_bytes: row.get(13),
            conversation_id: text(6).map(str::to_owned),
            settled: matches!(text(11), Some("archived" | "skipped" | "erased")),
            subject: indexed(text(2).unwrap_or_default()),
            people: indexed(&everyone.join("\n")),
            second: sent.map_or(0, |sent| sent.as_second().clamp(0, LAST_SECOND)),
        };
        let identity = text(1).map_or(Identity::Row(message_row), |id| Identity::Id(id.to_owned()));
        // In the order of the rows: the last line of a message counts.
        attachments.entry(entry.attachment_row).or_default().coming.insert(identity, entry);
    }
    Ok(attachments)
}

/// Finds the entries that those attachments have already.
async fn there(connection: &mut Connection, attachments: &mut HashMap<i64, OfAttachment>) -> Result<()> {
    let rows: Vec<i64> = attachments.keys().copied().collect();
    let found = query(
        "-- name: entries_of
        SELECT e.id, e.attachment_row, e.message_row, m.message_id
        FROM json_each($1) j CROSS JOIN find_entries e ON e.attachment_row = j.value
        CROSS JOIN messages m ON m.id = e.message_row",
    )
    .bind(json(&rows))
    .fetch_all(connection)
    .await
    .map_err(at("entries_of"))?;
    for row in &found {
        let (attachment_row, message_row): (i64, i64) = (row.get(1), row.get(2));
        let identity = row.get::<Option<String>>(3).map_or(Identity::Row(message_row), Identity::Id);
        if let Some(attachment) = attachments.get_mut(&attachment_row) {
            attachment.there.insert(identity, row.get(0));
        }
    }
    Ok(())
}

async fn write(
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
        "-- name: drop_find_text
        DELETE FROM find_text WHERE rowid IN (SELECT value FROM json_each($1))",
        "-- name: drop_find_entries
        DELETE FROM find_entries WHERE id IN (SELECT value FROM json_each($1))",
    ] {
        query(statement).bind(&replaced).execute(&mut *connection).await.map_err(at("drop_find_entries"))?;
    }
    for chunk in chunks(&entries) {
        add(connection, chunk).await?;
    }
    query(
        "-- name: mark_shared
        UPDATE find_entries SET shared = 1 WHERE attachment_row IN (SELECT value FROM json_each($1))",
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
